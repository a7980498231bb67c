//! The audit log: who asked for what, when, and what came of it, as lines of `audit.k8s.io/v1` Event.
//!
//! Guarantees: what is logged of a request is what the first matching rule of the policy says; bodies appear
//! only at the levels `Request` and `RequestResponse`; credentials in headers never do. Bodies beyond
//! [`BODY_BYTES_MAX`] are left out, which an annotation says. Knows nothing of what requests do.

mod log;
mod policy;
mod webhook;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use http::{HeaderMap, Uri, header};
use meta::{
    Clock, Status, Timestamp,
    metrics::{Exposition, Kind, labels},
};
use resource::User;
use serde_json::{Map, Value, json};

pub use log::{Log, LogOptions, Mode};
pub(crate) use policy::{About, Of};
pub use policy::{Level, Policy, PolicyError, Stage};
pub use webhook::{BatchOptions, EventWebhook};

use policy::Verdict;

/// Longest body that is logged. Events are kept for months; a list of a whole cluster would fill the disk.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest text that a client may put into an event by a header or path.
const TEXT_BYTES_MAX: usize = 4096;
/// Addresses of proxies that are believed to tell something.
const FORWARDED_MAX: usize = 8;

/// Policy, and where events go.
pub struct Audit {
    policy: Policy,
    log: Option<Log>,
    webhook: Option<EventWebhook>,
    clock: Arc<dyn Clock>,
    counts: Counts,
}

/// Upstream's (`apiserver/pkg/audit/metrics.go`).
#[derive(Default)]
struct Counts {
    /// Events for the log or the webhook, one for each stage.
    events: AtomicU64,
    /// Requests that were refused since their event could not be written.
    refused: AtomicU64,
    /// Requests by level, [`Level::None`] too.
    levels: [AtomicU64; Level::ALL.len()],
}

/// Writes what is counted of auditing; without it, that there was none.
pub(crate) fn expose(audit: Option<&Audit>, out: &mut Exposition) {
    let of = |count: fn(&Counts) -> &AtomicU64| audit.map_or(0, |audit| count(&audit.counts).load(Relaxed));
    let mut family = |name: &str, help: &str, count| out.family(name, Kind::Counter, help).value("", count);
    family("apiserver_audit_event_total", "Audit events.", of(|counts| &counts.events));
    let help = "Requests that were refused because they could not be audited.";
    family("apiserver_audit_requests_rejected_total", help, of(|counts| &counts.refused));
    let Some(audit) = audit else { return };
    let mut family = out.family("apiserver_audit_level_total", Kind::Counter, "Requests by audit level.");
    for (level, count) in Level::ALL.iter().zip(&audit.counts.levels) {
        family.value(&labels(&[("level", level.as_str())]), count.load(Relaxed));
    }
    let mut family = out.family("apiserver_audit_error_total", Kind::Counter, "Audit events that were lost.");
    let ways = [
        ("log", audit.log.as_ref().map(Log::lost)),
        ("webhook", audit.webhook.as_ref().map(EventWebhook::lost)),
    ];
    for (plugin, lost) in ways {
        if let Some(lost) = lost {
            family.value(&labels(&[("plugin", plugin)]), lost);
        }
    }
}

impl Audit {
    /// Logs to `log` and to `webhook` what `policy` says.
    pub fn new(
        policy: Policy,
        log: Option<Log>,
        webhook: Option<EventWebhook>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { policy, log, webhook, clock, counts: Counts::default() }
    }

    /// How much is logged of a request.
    fn decide(&self, about: &About<'_>) -> Verdict {
        let verdict = self.policy.decide(about);
        let mut levels = Level::ALL.iter().zip(&self.counts.levels);
        if let Some((_, count)) = levels.find(|(level, _)| **level == verdict.level) {
            count.fetch_add(1, Relaxed);
        }
        verdict
    }

    /// Events that could not be written since the start, by each way for itself.
    pub fn lost(&self) -> u64 {
        let log = self.log.as_ref().map_or(0, Log::lost);
        log.saturating_add(self.webhook.as_ref().map_or(0, EventWebhook::lost))
    }
}

/// One request on its way.
pub(crate) struct Record {
    audit: Arc<Audit>,
    received: Timestamp,
    verdict: Option<Verdict>,
    /// Members of the event that do not change from stage to stage.
    event: Map<String, Value>,
    annotations: Map<String, Value>,
    user: Option<Arc<User>>,
}

impl Record {
    /// A request that just came.
    pub(crate) fn begin(
        audit: &Arc<Audit>,
        id: &str,
        uri: &Uri,
        headers: &HeaderMap,
        address: Option<IpAddr>,
    ) -> Box<Self> {
        let text = |name| headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).map(short);
        let forwarded = text(header::HeaderName::from_static("x-forwarded-for")).unwrap_or_default();
        let forwarded = forwarded.split(',').filter_map(|ip| ip.trim().parse::<IpAddr>().ok());
        let ips: Vec<String> =
            forwarded.take(FORWARDED_MAX).chain(address).map(|ip| ip.to_canonical().to_string()).collect();
        let mut event = Map::new();
        let uri = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        event.insert("auditID".to_owned(), id.into());
        event.insert("requestURI".to_owned(), short(uri).into());
        if !ips.is_empty() {
            event.insert("sourceIPs".to_owned(), json!(ips));
        }
        if let Some(agent) = text(header::USER_AGENT) {
            event.insert("userAgent".to_owned(), agent.into());
        }
        Box::new(Self {
            audit: audit.clone(),
            received: audit.clock.now(),
            verdict: None,
            event,
            annotations: Map::new(),
            user: None,
        })
    }

    /// Who sent it.
    pub(crate) fn user(&mut self, user: &Arc<User>) {
        self.event.insert("user".to_owned(), info(user));
        self.user = Some(user.clone());
    }

    /// As whom it is carried out, and the verb that allows it to be for this only; empty when one allows it for all.
    pub(crate) fn acting(&mut self, user: &User, constraint: &str) {
        self.event.insert("impersonatedUser".to_owned(), info(user));
        if !constraint.is_empty() {
            let metadata = json!({"impersonationConstraint": constraint});
            self.event.insert("authenticationMetadata".to_owned(), metadata);
        }
    }

    /// What it is about: from here on it is known how much is logged. Fails when it must not go on unlogged.
    pub(crate) fn about(&mut self, verb: &str, version: &str, of: Of<'_>) -> Result<(), Status> {
        self.event.insert("verb".to_owned(), verb.into());
        if let Of::Resource { group, resource, subresource, namespace, name } = of {
            let fields = [
                ("resource", resource),
                ("namespace", namespace),
                ("name", name),
                ("apiGroup", group),
                ("apiVersion", version),
                ("subresource", subresource),
            ];
            let given = fields.into_iter().filter(|(_, value)| !value.is_empty());
            let object: Map<String, Value> =
                given.map(|(key, value)| (key.to_owned(), short(value).into())).collect();
            self.event.insert("objectRef".to_owned(), Value::Object(object));
        }
        let about = About { user: self.user.as_deref(), verb, of };
        self.verdict = Some(self.audit.decide(&about));
        let strict = self.audit.log.as_ref().is_some_and(Log::is_strict);
        if !self.emit(Stage::RequestReceived) && strict {
            self.audit.counts.refused.fetch_add(1, Relaxed);
            return Err(Status::internal("audit failed: the event of this request could not be written"));
        }
        Ok(())
    }

    /// Whether the authorizer let it pass, and why.
    pub(crate) fn decision(&mut self, allowed: bool, reason: &str) {
        let decision = if allowed { "allow" } else { "forbid" };
        self.annotations.insert("authorization.k8s.io/decision".to_owned(), decision.into());
        self.annotations.insert("authorization.k8s.io/reason".to_owned(), reason.into());
    }

    /// What admission says of it. What is known here already stays.
    pub(crate) fn notes(&mut self, notes: BTreeMap<String, String>) {
        for (key, value) in notes {
            self.annotations.entry(key).or_insert_with(|| value.into());
        }
    }

    fn level(&self) -> Level {
        self.verdict.as_ref().map_or(Level::None, |verdict| verdict.level)
    }

    /// Whether the reason of the authorizer is going to be logged.
    pub(crate) fn is_logged(&self) -> bool {
        self.level() > Level::None
    }

    pub(crate) fn wants_request(&self) -> bool {
        self.level() >= Level::Request
    }

    pub(crate) fn wants_response(&self) -> bool {
        self.level() >= Level::RequestResponse
    }

    /// The decoded body of the request; `bytes` is its length as it came.
    pub(crate) fn request(&mut self, body: Option<Value>, bytes: usize) {
        self.body("requestObject", body, bytes);
    }

    /// The body of the answer.
    pub(crate) fn response(&mut self, body: &Bytes) {
        let parsed = (body.len() <= BODY_BYTES_MAX).then(|| serde_json::from_slice(body).ok()).flatten();
        self.body("responseObject", parsed, body.len());
    }

    fn body(&mut self, field: &str, body: Option<Value>, bytes: usize) {
        if bytes > BODY_BYTES_MAX {
            self.annotations
                .insert(format!("audit.keelson.dev/omitted-{field}"), format!("{bytes} bytes").into());
            return;
        }
        let Some(mut body) = body else { return };
        if self.verdict.as_ref().is_some_and(|verdict| verdict.omit_managed_fields) {
            without_managed_fields(&mut body);
        }
        self.event.insert(field.to_owned(), body);
    }

    /// What came of it. A stream is complete when what is returned is dropped.
    pub(crate) fn finish(mut self: Box<Self>, answer: Result<u16, &Status>, stream: bool) -> Option<Ended> {
        if self.verdict.is_none() {
            // Refused before anybody knew what it is about: authentication failed.
            let about = About { user: self.user.as_deref(), verb: "", of: Of::Path("") };
            self.verdict = Some(self.audit.decide(&about));
        }
        let status = match answer {
            Ok(code) => json!({ "metadata": {}, "code": code }),
            Err(status) => {
                let reason = json!(status.reason);
                json!({
                    "metadata": {}, "status": "Failure", "message": short(&status.message), "reason": reason,
                    "code": status.code,
                })
            }
        };
        self.event.insert("responseStatus".to_owned(), status);
        if stream && answer.is_ok() {
            self.emit(Stage::ResponseStarted);
            return Some(Ended(self));
        }
        self.emit(Stage::ResponseComplete);
        None
    }

    /// Its handler failed.
    pub(crate) fn panicked(&mut self) {
        let status = json!({ "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500 });
        self.event.insert("responseStatus".to_owned(), status);
        self.emit(Stage::Panic);
    }

    /// Writes the event of a stage, when the policy wants it. False when it was wanted and the log has not got it.
    fn emit(&self, stage: Stage) -> bool {
        let Some(verdict) = &self.verdict else { return true };
        if verdict.level == Level::None || verdict.omit.contains(&stage) {
            return true;
        }
        let mut event = self.event.clone();
        let mut set = |key: &str, value: Value| event.insert(key.to_owned(), value);
        set("kind", "Event".into());
        set("apiVersion", "audit.k8s.io/v1".into());
        set("level", verdict.level.as_str().into());
        set("stage", stage.as_str().into());
        set("requestReceivedTimestamp", micro(self.received).into());
        set("stageTimestamp", micro(self.audit.clock.now()).into());
        if !self.annotations.is_empty() {
            set("annotations", Value::Object(self.annotations.clone()));
        }
        let event = Value::Object(event);
        self.audit.counts.events.fetch_add(1, Relaxed);
        let written = self.audit.log.as_ref().is_none_or(|log| {
            let mut line = event.to_string().into_bytes();
            line.push(b'\n');
            log.write(line)
        });
        if let Some(webhook) = &self.audit.webhook {
            webhook.write(event);
        }
        written
    }
}

/// Writes that a stream is complete when it is dropped.
pub(crate) struct Ended(Box<Record>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.emit(Stage::ResponseComplete);
    }
}

/// `authentication.k8s.io/v1` UserInfo.
fn info(user: &User) -> Value {
    let User { name, uid, groups, extra } = user;
    let mut info = Map::new();
    info.insert("username".to_owned(), name.as_str().into());
    if !uid.is_empty() {
        info.insert("uid".to_owned(), uid.as_str().into());
    }
    info.insert("groups".to_owned(), json!(groups));
    if !extra.is_empty() {
        info.insert("extra".to_owned(), json!(extra));
    }
    Value::Object(info)
}

/// RFC 3339 with microseconds.
fn micro(at: Timestamp) -> String {
    format!("{at:.6}")
}

fn short(text: &str) -> String {
    let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_owned()
}

fn without_managed_fields(body: &mut Value) {
    if let Some(metadata) = body.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    for item in body.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
        without_managed_fields(item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitManagedFields: true
rules:
- {level: Metadata, resources: [{group: '', resources: [secrets]}]}
- {level: RequestResponse, resources: [{group: '', resources: [configmaps]}], omitStages: [RequestReceived]}
- {level: Metadata, verbs: [watch]}
- {level: Metadata, nonResourceURLs: ['*']}
";

    /// The events of one request, as the log has them.
    fn events(work: impl FnOnce(&mut Box<Record>) -> (Result<u16, Status>, bool)) -> Vec<Value> {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.log");
        let clock = Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let options = LogOptions {
            path: path.clone(),
            mode: Mode::Blocking,
            bytes_max: 0,
            backups_max: 0,
            days_max: 0,
        };
        let log = Log::open(options, clock.clone()).unwrap();
        let audit = Arc::new(Audit::new(Policy::parse(POLICY).unwrap(), Some(log), None, clock));
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, "Bearer hunter2".parse().unwrap());
        headers.insert("user-agent", "kubectl/v1".parse().unwrap());
        headers.insert("x-forwarded-for", "10.0.0.9, nonsense".parse().unwrap());
        let uri = "/api/v1/x?y=z".parse().unwrap();
        let mut record = Record::begin(&audit, "id", &uri, &headers, Some([127, 0, 0, 1].into()));
        let (answer, stream) = work(&mut record);
        drop(record.finish(answer.as_ref().copied(), stream));
        let text = std::fs::read_to_string(path).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn of(resource: &str) -> Of<'_> {
        Of::Resource { group: "", resource, subresource: "", namespace: "ns", name: "n" }
    }

    fn ann() -> Arc<User> {
        Arc::new(User { name: "ann".into(), groups: vec!["dev".into()], ..User::default() })
    }

    #[test]
    fn a_request_is_told_in_upstreams_form() {
        let all = events(|record| {
            record.user(&ann());
            record.acting(&User { name: "bob".into(), ..User::default() }, "impersonate:user-info");
            record.about("update", "v1", of("configmaps")).unwrap();
            record.decision(true, "RBAC");
            let said = [("authorization.k8s.io/decision", "forbid"), ("h.example.com/k", "v")];
            record.notes(said.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
            let body = json!({"metadata": {"name": "n", "managedFields": [1]}, "data": {"a": "b"}});
            record.request(Some(body.clone()), 20);
            record.response(&Bytes::from(body.to_string()));
            (Ok(200), false)
        });
        let object = json!({"metadata": {"name": "n"}, "data": {"a": "b"}});
        assert_eq!(
            all,
            [json!({
                "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "id",
                "stage": "ResponseComplete", "requestURI": "/api/v1/x?y=z", "verb": "update",
                "user": {"username": "ann", "groups": ["dev"]}, "impersonatedUser": {"username": "bob", "groups": []},
                "authenticationMetadata": {"impersonationConstraint": "impersonate:user-info"},
                "sourceIPs": ["10.0.0.9", "127.0.0.1"], "userAgent": "kubectl/v1",
                "objectRef": {"resource": "configmaps", "namespace": "ns", "name": "n", "apiVersion": "v1"},
                "responseStatus": {"metadata": {}, "code": 200},
                "requestObject": object, "responseObject": object,
                "requestReceivedTimestamp": "2026-01-01T00:00:00.000000Z",
                "stageTimestamp": "2026-01-01T00:00:00.000000Z",
                "annotations": {
                    "authorization.k8s.io/decision": "allow", "authorization.k8s.io/reason": "RBAC",
                    "h.example.com/k": "v",
                },
            })]
        );
    }

    #[test]
    fn secrets_stay_out_at_the_level_of_metadata() {
        let all = events(|record| {
            record.user(&ann());
            record.about("create", "v1", of("secrets")).unwrap();
            assert!(!record.wants_request() && !record.wants_response());
            (Ok(201), false)
        });
        let stages: Vec<&str> = all.iter().map(|event| event["stage"].as_str().unwrap()).collect();
        assert_eq!(stages, ["RequestReceived", "ResponseComplete"]);
        assert!(all.iter().all(|event| event.get("requestObject").is_none()));
    }

    #[test]
    fn streams_failures_and_large_bodies() {
        let stages = |all: &[Value]| -> Vec<String> {
            all.iter()
                .map(|e| format!("{} {}", e["stage"], e["responseStatus"]["code"]).replace('"', ""))
                .collect()
        };
        let all = events(|record| {
            record.user(&ann());
            record.about("watch", "v1", of("pods")).unwrap();
            (Ok(200), true)
        });
        assert_eq!(stages(&all), ["RequestReceived null", "ResponseStarted 200", "ResponseComplete 200"]);
        let all = events(|_| (Err(Status::unauthorized()), false));
        assert_eq!(stages(&all), ["ResponseComplete 401"]);
        assert!(all[0].get("user").is_none());
        let all = events(|record| {
            record.user(&ann());
            record.about("get", "v1", of("pods")).unwrap();
            (Ok(200), false)
        });
        assert!(all.is_empty(), "no rule, no event");
        let all = events(|record| {
            record.user(&ann());
            record.about("list", "v1", of("configmaps")).unwrap();
            record.response(&Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]));
            (Ok(200), false)
        });
        assert_eq!(all[0]["annotations"]["audit.keelson.dev/omitted-responseObject"], "1048577 bytes");
    }

    /// A disk that is full, and a log that no request goes without.
    #[cfg(target_os = "linux")]
    #[test]
    fn events_and_requests_are_counted() {
        let clock = Arc::new(meta::Fixed::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let options = LogOptions {
            path: "/dev/full".into(),
            mode: Mode::BlockingStrict,
            bytes_max: 0,
            backups_max: 0,
            days_max: 0,
        };
        let log = Log::open(options, clock.clone()).unwrap();
        let audit = Arc::new(Audit::new(Policy::parse(POLICY).unwrap(), Some(log), None, clock));
        for (resource, refused) in [("secrets", true), ("pods", false)] {
            let uri = "/api/v1/x".parse().unwrap();
            let mut record = Record::begin(&audit, "id", &uri, &HeaderMap::new(), None);
            record.user(&ann());
            assert_eq!(record.about("get", "v1", of(resource)).is_err(), refused, "{resource}");
        }
        let mut out = Exposition::default();
        expose(Some(&audit), &mut out);
        for line in [
            "event_total 1",
            "requests_rejected_total 1",
            "level_total{level=\"None\"} 1",
            "level_total{level=\"Metadata\"} 1",
            "level_total{level=\"Request\"} 0",
            "error_total{plugin=\"log\"} 1",
        ] {
            assert!(out.text().contains(&format!("\napiserver_audit_{line}\n")), "{line}\n{}", out.text());
        }
    }
}
