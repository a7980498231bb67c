//! What those who look on may ask: JSON, the page, metrics. Read-only; what came from agents is data in it,
//! never markup.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{Method, Request, Response, header};
use serde_json::{Value, json, value::RawValue};

use crate::{
    answer::{Refused, bytes_response, json_response},
    cluster::{Cluster, Kept},
    kinds::{KINDS, Kind},
    page,
    receiver::Receiver,
};

/// Objects of one answer; more are asked for with another `skip`.
const OBJECTS_MAX: usize = 200;
/// Longest text that is searched for.
const SEARCH_CHARS_MAX: usize = 200;

type Answered = Result<Response<Bytes>, Refused>;

impl Receiver {
    /// Answers somebody who looks on. Only who reaches it by a name of this machine: a page from elsewhere
    /// that a name was bent for (DNS rebinding) does not.
    pub fn look(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let mut response = self.answer(request).unwrap_or_else(Into::into);
        page::protect(&mut response);
        response
    }

    fn answer(&self, request: &Request<Bytes>) -> Answered {
        let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
        if !host.is_some_and(is_local) {
            return Err(Refused::new(421, "misdirected", "this is served to this machine: use localhost"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err(Refused::new(405, "method_not_allowed", "it is read-only"));
        }
        let query: BTreeMap<String, String> =
            form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
                .into_owned()
                .collect();
        let path: Vec<&str> = request.uri().path().split('/').skip(1).collect();
        match path.as_slice() {
            ["healthz"] => Ok(bytes_response(200, "text/plain; charset=utf-8", Bytes::from_static(b"ok"))),
            ["metrics"] => Ok(bytes_response(200, "text/plain; version=0.0.4", self.metrics().into())),
            ["api", "clusters"] => Ok(json_response(200, &self.clusters())),
            ["api", "clusters", uid] => self.with(uid, |of| json_response(200, &self.cluster(uid, of))),
            ["api", "clusters", uid, "digests"] => self.with(uid, digests),
            ["api", "clusters", uid, "objects"] => self.with(uid, |of| objects(of, &query)),
            ["api", "changes"] => Ok(json_response(200, &self.changes(&query))),
            _ => page::file(request.uri().path())
                .ok_or_else(|| Refused::new(404, "not_found", "there is no such page")),
        }
    }

    fn with(&self, uid: &str, answer: impl FnOnce(&Cluster) -> Response<Bytes>) -> Answered {
        let known = self.known.read();
        let of = known.clusters.get(uid);
        of.map(answer).ok_or_else(|| Refused::new(404, "not_found", "there is no such cluster"))
    }

    fn clusters(&self) -> Value {
        let known = self.known.read();
        known.clusters.iter().map(|(uid, of)| self.cluster(uid, of)).collect()
    }

    fn cluster(&self, uid: &str, of: &Cluster) -> Value {
        let now = self.now();
        let counts = of.counts();
        let (queue_objects, queue_bytes) = of.queue.unwrap_or_default();
        let silent = (of.last_contact > 0).then(|| now.saturating_sub(of.last_contact));
        // What is known to be missing is missing since then; else nothing is.
        let lag = of.behind_since.map_or(0, |since| now.saturating_sub(since));
        json!({
            "uid": uid, "name": of.record.name, "client_id": of.record.client_id,
            "agent_version": of.record.agent_version,
            "mode": if of.record.open { "batch" } else { "original" },
            "objects": counts.values().sum::<usize>(), "counts": counts,
            "epoch": of.record.epoch, "acked_seq": of.record.applied,
            "batches": of.batches, "changes": of.changes, "drifted": of.drifted,
            "last_contact": (of.last_contact > 0).then(|| rfc3339(of.last_contact)),
            "silent_seconds": silent, "lag_seconds": lag,
            "last_snapshot": of.record.last_snapshot.map(rfc3339),
            "queue_objects": queue_objects, "queue_bytes": queue_bytes,
        })
    }

    /// Changes since a number, newest last.
    fn changes(&self, query: &BTreeMap<String, String>) -> Value {
        let after = query.get("after").and_then(|text| text.parse().ok()).unwrap_or(0);
        let cluster = query.get("cluster");
        let known = self.known.read();
        let new = known.recent.iter().filter(|change| change.number > after);
        let new = new.filter(|change| cluster.is_none_or(|uid| *uid == change.cluster));
        let changes: Vec<Value> = new
            .map(|change| {
                json!({"number": change.number, "at": rfc3339(change.at), "cluster": change.cluster,
                    "type": change.what, "kind": change.kind, "namespace": change.namespace, "name": change.name})
            })
            .collect();
        json!({"last": known.number, "changes": changes})
    }

    fn metrics(&self) -> String {
        let known = self.known.read();
        let mut text = String::from(
            "# HELP obsyk_platform_requests_total Requests of agents by path and status.\n\
             # TYPE obsyk_platform_requests_total counter\n",
        );
        for ((path, status), count) in &known.requests {
            text.push_str(&format!(
                "obsyk_platform_requests_total{{path=\"{path}\",status=\"{status}\"}} {count}\n"
            ));
        }
        text.push_str("# HELP obsyk_platform_objects Objects of a cluster by kind.\n# TYPE obsyk_platform_objects gauge\n");
        for (uid, of) in &known.clusters {
            for (list, count) in of.counts() {
                text.push_str(&format!(
                    "obsyk_platform_objects{{cluster=\"{uid}\",kind=\"{list}\"}} {count}\n"
                ));
            }
        }
        let mut series = |name: &str, help: &str, value: &dyn Fn(&Cluster) -> u64| {
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
            for (uid, of) in &known.clusters {
                text.push_str(&format!("{name}{{cluster=\"{uid}\"}} {}\n", value(of)));
            }
        };
        series("obsyk_platform_changes_total", "Changes applied since the start.", &|of| of.changes);
        series("obsyk_platform_batches_total", "Batches applied since the start.", &|of| of.batches);
        series("obsyk_platform_drifted_kinds_total", "Comparisons that found a kind to differ.", &|of| {
            of.drifted
        });
        text
    }
}

fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

fn rfc3339(second: i64) -> String {
    meta::format_second(jiff::Timestamp::from_second(second).unwrap_or_default())
}

/// Number and digest of each kind: what an agent's own must be equal to.
fn digests(of: &Cluster) -> Response<Bytes> {
    let one = |kind: &Kind| {
        let tally = of.tally(kind);
        (kind.name.to_owned(), json!({"count": tally.count, "digest": format!("{:016x}", tally.xor)}))
    };
    json_response(200, &Value::Object(KINDS.iter().map(one).collect()))
}

/// Objects of a cluster: of one kind or all, that hold the words, after those skipped.
fn objects(of: &Cluster, query: &BTreeMap<String, String>) -> Response<Bytes> {
    let wanted = query.get("kind").map(String::as_str).unwrap_or_default();
    let number =
        |name: &str, most: usize| query.get(name).and_then(|text| text.parse::<usize>().ok()).unwrap_or(most);
    let limit = number("limit", OBJECTS_MAX).min(OBJECTS_MAX);
    let skip = number("skip", 0);
    let words: String =
        query.get("q").map(String::as_str).unwrap_or_default().chars().take(SEARCH_CHARS_MAX).collect();
    let words: Vec<String> = words.split_whitespace().map(str::to_lowercase).collect();
    let kinds = KINDS.iter().filter(|kind| wanted.is_empty() || kind.name == wanted || kind.list == wanted);
    let all = kinds.flat_map(|kind| of.of(kind).map(move |(uid, kept)| (kind, uid, kept)));
    let mut found = 0_usize;
    let mut listed = Vec::new();
    for (kind, uid, kept) in all.filter(|(_, _, kept)| holds(kept, &words)) {
        found += 1;
        if found > skip && listed.len() < limit {
            let object = serde_json::from_slice::<&RawValue>(&kept.object).ok();
            listed.push(json!({"kind": kind.name, "uid": uid, "name": kept.name, "namespace": kept.namespace, "object": object}));
        }
    }
    json_response(200, &json!({"found": found, "skipped": skip, "objects": listed}))
}

fn holds(kept: &Kept, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let text = String::from_utf8_lossy(&kept.object).to_lowercase();
    words.iter().all(|word| text.contains(word.as_str()))
}
