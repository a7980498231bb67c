//! The batch mode: a session with an epoch, records with contiguous numbers, batches that are applied whole
//! and once, digests that show what differs, sweeps that delete what was not said.
//!
//! A session is opened by `sync/state`, which tells what there is; opening one ends the one before, so that
//! two agents cannot interleave, and so does whoever speaks the original contract, which has no numbers. A batch is newline-delimited JSON: a header, then its records.

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
};

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};

use crate::{
    answer::{Refused, json_response},
    cluster::{Cluster, Edit, Kept, Record, Tally},
    contract, digest,
    kinds::{KINDS, Kind, named},
    receiver::{Caller, Receiver},
};

/// Records of one batch.
const RECORDS_MAX: usize = 500;
/// Bytes of one batch, unpacked.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// One object larger than a batch may be alone in one; beyond this it is refused.
const RECORD_BYTES_MAX: usize = 4 << 20;

fn bad(why: impl Into<String>) -> Refused {
    Refused::new(400, "invalid_request", why)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Open {
    cluster_uid: String,
    cluster_name: String,
    #[serde(default)]
    agent_version: String,
    /// Grows with each new leader of the agent's replicas.
    #[serde(default)]
    fence: u64,
}

pub(crate) async fn open(receiver: &Receiver, caller: &Caller, body: &[u8]) -> Result<Value, Refused> {
    let Open { cluster_uid, cluster_name, agent_version, fence } =
        serde_json::from_slice(body).map_err(|error| bad(format!("not as it should be: {error}")))?;
    let mut record = receiver.admit(caller, &cluster_uid)?;
    receiver.lead(&mut record, fence)?;
    record.name = cluster_name;
    record.agent_version = agent_version;
    record.epoch += 1;
    record.open = true;
    record.applied = 0;
    record.last_batch = None;
    record.syncs.clear();
    let epoch = record.epoch;
    receiver.commit(&cluster_uid, Vec::new(), record).await?;
    let known = receiver.known.read();
    let kinds: serde_json::Map<String, Value> = known
        .clusters
        .get(&cluster_uid)
        .map(|of| KINDS.iter().map(|kind| (kind.name.to_owned(), buckets(of, kind))).collect())
        .unwrap_or_default();
    let limits = json!({"max_records": RECORDS_MAX, "max_bytes": BATCH_BYTES_MAX});
    Ok(json!({"epoch": epoch, "kinds": kinds, "limits": limits, "encodings": ["gzip"]}))
}

/// `[bucket, count, digest]` for each bucket that holds something.
fn buckets(of: &Cluster, kind: &Kind) -> Value {
    let one = |(bucket, tally): (u8, Tally)| json!([bucket, tally.count, format!("{:016x}", tally.xor)]);
    of.buckets(kind).into_iter().map(one).collect()
}

/// The first line of a batch.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Head {
    cluster_uid: String,
    epoch: u64,
    first_seq: u64,
    last_seq: u64,
    /// SHA-256 of what follows the first line.
    sha256: String,
    #[serde(default)]
    queue_objects: u64,
    #[serde(default)]
    queue_bytes: u64,
}

/// One record.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    op: Op,
    seq: u64,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    /// `sync_begin`: what the sweep is about.
    #[serde(default)]
    buckets: Vec<u8>,
    /// `check`: number of objects and digest by kind.
    #[serde(default)]
    tallies: BTreeMap<String, (u64, String)>,
    #[serde(default, borrow)]
    object: Option<&'a RawValue>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Op {
    Upsert,
    Delete,
    /// A number without a record: the platform refused what it was to say.
    Gap,
    SyncBegin,
    SyncEnd,
    Check,
}

pub(crate) async fn stream(
    receiver: &Receiver,
    caller: &Caller,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Value, Refused> {
    let body = unpack(headers, body)?;
    let (head, records) = split(&body)?;
    let mut record = receiver.admit(caller, &head.cluster_uid)?;
    if !record.open || head.epoch != record.epoch {
        let why = "the session has ended: another was opened";
        return Err(Refused::new(409, "stale_epoch", why).with("epoch", record.epoch));
    }
    if digest::sha256(records) != head.sha256 {
        return Err(bad("the records are not those that the header has the digest of"));
    }
    if head.last_seq < head.first_seq {
        return Err(bad("last_seq is before first_seq"));
    }
    let acknowledge = |record: &Record, action: &str, kinds: Vec<&str>| json!({"acked_seq": record.applied, "epoch": record.epoch, "action": action, "kinds": kinds});
    if head.last_seq <= record.applied {
        let differs = head.last_seq == record.applied
            && record.last_batch.as_ref().is_some_and(|last| *last != (head.first_seq, head.sha256.clone()));
        if differs {
            let why = "a batch with these numbers and another content was applied";
            return Err(Refused::new(409, "conflict", why));
        }
        return Ok(acknowledge(&record, "continue", Vec::new()));
    }
    if head.first_seq != record.applied + 1 {
        let expected = record.applied + 1;
        return Err(Refused::new(409, "gap", "records are missing").with("expected_seq", expected));
    }
    let planned = {
        let known = receiver.known.read();
        let empty = Cluster::default();
        let of = known.clusters.get(&head.cluster_uid).unwrap_or(&empty);
        plan(of, &mut record, &head, records)?
    };
    record.applied = head.last_seq;
    record.last_batch = Some((head.first_seq, head.sha256.clone()));
    let answer = match planned.drifted.as_slice() {
        [] => acknowledge(&record, "continue", Vec::new()),
        kinds => acknowledge(&record, "resync_kinds", kinds.to_vec()),
    };
    receiver.commit(&head.cluster_uid, planned.edits, record).await?;
    let now = receiver.now();
    if let Some(of) = receiver.known.write().clusters.get_mut(&head.cluster_uid) {
        of.batches += 1;
        of.drifted += u64::try_from(planned.drifted.len()).unwrap_or(u64::MAX);
        of.queue = Some((head.queue_objects, head.queue_bytes));
        of.behind_since = (head.queue_objects > 0).then(|| of.behind_since.unwrap_or(now));
    }
    Ok(answer)
}

fn unpack(headers: &HeaderMap, body: &Bytes) -> Result<Bytes, Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let unsupported = |why: &str| Refused::new(415, "unsupported_media_type", why);
    if text(header::CONTENT_TYPE) != "application/x-ndjson" {
        return Err(unsupported("the body has to be application/x-ndjson"));
    }
    let most = RECORD_BYTES_MAX + BATCH_BYTES_MAX;
    let too_large =
        || Refused::new(413, "too_large", "the batch is too large").with("max_bytes", BATCH_BYTES_MAX);
    match text(header::CONTENT_ENCODING) {
        "" | "identity" => {
            if body.len() > most {
                Err(too_large())
            } else {
                Ok(body.clone())
            }
        }
        "gzip" => {
            let mut plain = Vec::new();
            let bound = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
            flate2::read::GzDecoder::new(&**body)
                .take(bound)
                .read_to_end(&mut plain)
                .map_err(|error| bad(format!("the body is no gzip: {error}")))?;
            if plain.len() > most { Err(too_large()) } else { Ok(plain.into()) }
        }
        _ => Err(unsupported("bodies are packed with gzip or not at all")),
    }
}

fn split(body: &[u8]) -> Result<(Head, &[u8]), Refused> {
    let end = body.iter().position(|byte| *byte == b'\n').ok_or_else(|| bad("there is no first line"))?;
    let (head, rest) = body.split_at(end);
    let head = serde_json::from_slice(head).map_err(|error| bad(format!("first line: {error}")))?;
    Ok((head, rest.get(1..).unwrap_or_default()))
}

/// What a batch comes to.
struct Planned {
    edits: Vec<Edit>,
    /// Kinds whose digest is not the agent's.
    drifted: Vec<&'static str>,
}

/// The object that will be there after the edits so far.
type Overlay = HashMap<(&'static str, String), Option<(u64, u64)>>;

fn plan(of: &Cluster, record: &mut Record, head: &Head, records: &[u8]) -> Result<Planned, Refused> {
    let mut planned = Planned { edits: Vec::new(), drifted: Vec::new() };
    let mut overlay = Overlay::new();
    let mut expected = head.first_seq;
    for line in records.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let refused = |why: String| Refused::new(422, "bad_record", why).with("seq", expected);
        let line: Line<'_> = serde_json::from_slice(line).map_err(|error| refused(error.to_string()))?;
        if line.seq != expected {
            return Err(bad(format!("record {} stands where {expected} should", line.seq)));
        }
        one(of, record, head.epoch, &line, &mut planned, &mut overlay).map_err(refused)?;
        expected += 1;
    }
    if expected != head.last_seq.saturating_add(1) {
        return Err(bad("there are fewer or more records than the header says"));
    }
    if head.last_seq - head.first_seq >= u64::try_from(RECORDS_MAX).unwrap_or(u64::MAX) {
        return Err(
            Refused::new(413, "too_large", "there are too many records").with("max_records", RECORDS_MAX)
        );
    }
    Ok(planned)
}

fn one(
    of: &Cluster,
    record: &mut Record,
    epoch: u64,
    line: &Line<'_>,
    planned: &mut Planned,
    overlay: &mut Overlay,
) -> Result<(), String> {
    let kind = || named(&line.kind).ok_or_else(|| format!("kind {:?} is unknown", line.kind));
    match line.op {
        Op::Gap => {}
        Op::Upsert => {
            let kind = kind()?;
            let raw = line.object.ok_or("an upsert without an object")?.get();
            if raw.len() > RECORD_BYTES_MAX {
                return Err(format!("an object of more than {RECORD_BYTES_MAX} bytes"));
            }
            let value: Value = serde_json::from_str(raw).map_err(|error| error.to_string())?;
            let identity = contract::object(kind, &value)?;
            if (&identity.uid, &identity.name, &identity.namespace)
                != (&line.uid, &line.name, &line.namespace)
            {
                return Err("the object is not the one that the record names".to_owned());
            }
            let object = Bytes::copy_from_slice(raw.as_bytes());
            let kept = Kept::new(&line.uid, &line.name, &line.namespace, object, (epoch, line.seq));
            overlay.insert((kind.list, line.uid.clone()), Some((epoch, line.seq)));
            planned.edits.push(Edit::Put { kind, uid: line.uid.clone(), kept });
        }
        Op::Delete => {
            let kind = kind()?;
            contract::identity("uid", &line.uid)?;
            overlay.insert((kind.list, line.uid.clone()), None);
            planned.edits.push(Edit::Remove { kind, uid: line.uid.clone() });
        }
        Op::SyncBegin => {
            record.syncs.insert(kind()?.list.to_owned(), (line.seq, line.buckets.clone()));
        }
        Op::SyncEnd => sweep(of, record, epoch, kind()?, planned, overlay),
        Op::Check => compare(of, line, planned)?,
    }
    Ok(())
}

/// Removes what the buckets of a sync hold and what was not said since it began.
fn sweep(
    of: &Cluster,
    record: &mut Record,
    epoch: u64,
    kind: &'static Kind,
    planned: &mut Planned,
    overlay: &mut Overlay,
) {
    let Some((begun, buckets)) = record.syncs.remove(kind.list) else { return };
    for (uid, kept) in of.of(kind).filter(|(_, kept)| buckets.contains(&kept.digest.bucket)) {
        let at = overlay.get(&(kind.list, uid.clone())).copied().unwrap_or(Some(kept.at));
        if at.is_some_and(|(of, seq)| of != epoch || seq < begun) {
            overlay.insert((kind.list, uid.clone()), None);
            planned.edits.push(Edit::Remove { kind, uid: uid.clone() });
        }
    }
}

/// Compares what the agent believes to be here with what is. It stands first in its batch.
fn compare(of: &Cluster, line: &Line<'_>, planned: &mut Planned) -> Result<(), String> {
    if !planned.edits.is_empty() {
        return Err("a check has to come before changes".to_owned());
    }
    for (name, (count, xor)) in &line.tallies {
        let kind = named(name).ok_or_else(|| format!("kind {name:?} is unknown"))?;
        let xor = u64::from_str_radix(xor, 16).map_err(|_| format!("digest of {name} is no number"))?;
        if of.tally(kind) != (Tally { count: *count, xor }) {
            planned.drifted.push(kind.name);
        }
    }
    Ok(())
}

/// The answer of a platform that did nothing and says that it did.
pub(crate) fn pretend(body: &Bytes) -> Response<Bytes> {
    let plain = unpack_any(body);
    let answer = split(&plain).map(|(head, _)| {
        json!({"acked_seq": head.last_seq, "epoch": head.epoch, "action": "continue", "kinds": []})
    });
    json_response(200, &answer.unwrap_or(Value::Null))
}

fn unpack_any(body: &Bytes) -> Bytes {
    let mut plain = Vec::new();
    let bound = u64::try_from(RECORD_BYTES_MAX + BATCH_BYTES_MAX).unwrap_or(u64::MAX);
    match flate2::read::GzDecoder::new(&**body).take(bound).read_to_end(&mut plain) {
        Ok(_) => plain.into(),
        Err(_) => body.clone(),
    }
}
