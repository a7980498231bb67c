//! The three endpoints of the original contract, to the letter: JSON that is not packed, no field more and
//! none less, one change a request.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    answer::Refused,
    cluster::{Edit, Kept},
    contract,
    kinds::{KINDS, named},
    receiver::{Caller, Receiver, SnapshotPolicy},
};

/// Numbers leaders.
const FENCE: HeaderName = HeaderName::from_static("obsyk-agent-fence");

fn bad(why: impl Into<String>) -> Refused {
    Refused::new(400, "invalid_request", why)
}

pub(crate) fn check_headers(headers: &HeaderMap) -> Result<(), Refused> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = text(header::CONTENT_TYPE).split(';').next().unwrap_or_default().trim().to_owned();
    if media != "application/json" {
        return Err(Refused::new(415, "unsupported_media_type", "the body has to be application/json"));
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refused::new(415, "unsupported_media_type", "this endpoint takes no packed bodies"));
    }
    Ok(())
}

/// Which leader of an agent's replicas speaks, as an agent says that knows that this platform heeds it. The
/// original says nothing.
pub(crate) fn fence(headers: &HeaderMap) -> Result<Option<u64>, Refused> {
    let Some(value) = headers.get(FENCE) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number.map(Some).ok_or_else(|| bad("Obsyk-Agent-Fence is no number"))
}

fn fields(body: &[u8]) -> Result<Map<String, Value>, Refused> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(bad("the body is no JSON object")),
        Err(error) => Err(bad(format!("the body is no JSON: {error}"))),
    }
}

/// Takes a text that has to be there.
fn take(fields: &mut Map<String, Value>, name: &str) -> Result<String, Refused> {
    match fields.remove(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(bad(format!("{name} is no text"))),
        None => Err(bad(format!("{name} is missing"))),
    }
}

/// Takes a text that may be absent.
fn take_optional(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Refused> {
    fields.contains_key(name).then(|| take(fields, name)).transpose()
}

fn no_more(fields: &Map<String, Value>) -> Result<(), Refused> {
    match fields.keys().next() {
        Some(unknown) => Err(bad(format!("field {unknown} is unknown"))),
        None => Ok(()),
    }
}

pub(crate) async fn heartbeat(receiver: &Receiver, caller: &Caller, body: &[u8]) -> Result<Value, Refused> {
    let mut fields = fields(body)?;
    let cluster = take(&mut fields, "cluster_uid")?;
    let version = take_optional(&mut fields, "agent_version")?;
    no_more(&fields)?;
    let mut record = receiver.admit(caller, &cluster)?;
    if let Some(version) = version {
        record.agent_version = version;
    }
    receiver.commit(&cluster, Vec::new(), record).await?;
    Ok(Value::Null)
}

pub(crate) async fn event(
    receiver: &Receiver,
    caller: &Caller,
    fence: Option<u64>,
    body: &[u8],
) -> Result<Value, Refused> {
    let mut fields = fields(body)?;
    let cluster = take(&mut fields, "cluster_uid")?;
    let change = take(&mut fields, "type")?;
    let kind = take(&mut fields, "kind")?;
    let kind = named(&kind).ok_or_else(|| bad(format!("kind {kind} is unknown")))?;
    let uid = take(&mut fields, "uid")?;
    contract::identity("uid", &uid).map_err(bad)?;
    let name = take(&mut fields, "name")?;
    let namespace = take_optional(&mut fields, "namespace")?;
    if namespace.is_some() != kind.namespaced {
        return Err(bad(format!(
            "namespace of a {} has to be {}",
            kind.name,
            if kind.namespaced { "there" } else { "absent" }
        )));
    }
    let object = fields.remove("object");
    no_more(&fields)?;
    let mut record = receiver.admit(caller, &cluster)?;
    if let Some(fence) = fence {
        receiver.lead(&mut record, fence)?;
    }
    record.open = false;
    let edit = match (change.as_str(), object) {
        ("added" | "modified", Some(object)) => {
            let identity = contract::object(kind, &object).map_err(bad)?;
            if identity.uid != uid
                || identity.name != name
                || Some(identity.namespace) != namespace.or(Some(String::new()))
            {
                return Err(bad("the object is not the one that the event names"));
            }
            let raw = Bytes::from(raw_object(body)?);
            let kept = Kept::new(
                &uid,
                &name,
                object.get("namespace").and_then(Value::as_str).unwrap_or_default(),
                raw,
                (0, 0),
            );
            Edit::Put { kind, uid, kept }
        }
        ("deleted", None) => Edit::Remove { kind, uid },
        ("added" | "modified" | "deleted", _) => {
            return Err(bad(format!("{change} with or without an object")));
        }
        _ => return Err(bad(format!("type {change} is unknown"))),
    };
    receiver.commit(&cluster, vec![edit], record).await?;
    Ok(Value::Null)
}

/// The object of an event as it was written.
fn raw_object(body: &[u8]) -> Result<Vec<u8>, Refused> {
    let fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| bad(error.to_string()))?;
    let object = fields.get("object").ok_or_else(|| bad("object is missing"))?;
    Ok(object.get().as_bytes().to_vec())
}

pub(crate) async fn snapshot(
    receiver: &Receiver,
    caller: &Caller,
    fence: Option<u64>,
    body: &[u8],
) -> Result<Value, Refused> {
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON object: {error}")))?;
    let mut text = |name: &str| -> Result<Option<String>, Refused> {
        let read =
            |raw: &RawValue| serde_json::from_str(raw.get()).map_err(|_| bad(format!("{name} is no text")));
        fields.remove(name).map(read).transpose()
    };
    let cluster = text("cluster_uid")?.ok_or_else(|| bad("cluster_uid is missing"))?;
    let cluster_name = text("cluster_name")?.ok_or_else(|| bad("cluster_name is missing"))?;
    let version = text("agent_version")?;
    for name in ["kubernetes_version", "platform", "region"] {
        text(name)?;
    }
    let mut record = receiver.admit(caller, &cluster)?;
    if let Some(fence) = fence {
        receiver.lead(&mut record, fence)?;
    }
    record.open = false;
    let mut edits = Vec::new();
    let mut said = std::collections::BTreeSet::new();
    for kind in &KINDS {
        let list = fields.remove(kind.list).ok_or_else(|| bad(format!("list {} is missing", kind.list)))?;
        let list: Vec<&RawValue> =
            serde_json::from_str(list.get()).map_err(|_| bad(format!("{} is no list", kind.list)))?;
        for raw in list {
            let value: Value = serde_json::from_str(raw.get()).map_err(|error| bad(error.to_string()))?;
            let identity = contract::object(kind, &value).map_err(bad)?;
            if !said.insert((kind.list, identity.uid.clone())) {
                return Err(bad(format!("{} {} is there twice", kind.name, identity.uid)));
            }
            let object = Bytes::copy_from_slice(raw.get().as_bytes());
            let kept = Kept::new(&identity.uid, &identity.name, &identity.namespace, object, (0, 0));
            edits.push(Edit::Put { kind, uid: identity.uid, kept });
        }
    }
    if let Some(unknown) = fields.keys().next() {
        return Err(bad(format!("field {unknown} is unknown")));
    }
    {
        let known = receiver.known.read();
        if let Some(of) = known.clusters.get(&cluster) {
            // What is there already need not be written again.
            edits.retain(|edit| match edit {
                Edit::Put { kind, uid, kept } => {
                    of.get(kind, uid).is_none_or(|old| old.object != kept.object)
                }
                Edit::Remove { .. } => true,
            });
            if receiver.options.snapshots == SnapshotPolicy::Replace {
                for kind in &KINDS {
                    let gone = of.of(kind).filter(|(uid, _)| !said.contains(&(kind.list, (*uid).clone())));
                    edits.extend(gone.map(|(uid, _)| Edit::Remove { kind, uid: uid.clone() }));
                }
            }
        }
    }
    record.name = cluster_name;
    record.agent_version = version.unwrap_or_default();
    record.last_snapshot = Some(receiver.now());
    receiver.commit(&cluster, edits, record).await?;
    Ok(Value::Null)
}
