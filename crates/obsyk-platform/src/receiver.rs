//! The receiver: routes a request of an agent, decides whether it may, applies it in the store first and then
//! in memory, one request of a receiver after the other.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderName, Method, Request, Response, header};
use meta::{Clock, Random};
use parking_lot::{Mutex, RwLock};
use serde_json::{Value, json};
use store::Store;

use crate::{
    answer::{Answer, Cut, Refused, bytes_response, json_response, put},
    assertion,
    clients::Clients,
    cluster::{Cluster, Edit, Record},
    contract,
    faults::{Fault, Faults},
    keep::{self, KeepError},
    legacy, session,
    tokens::Tokens,
};

pub(crate) const TOKEN: &str = "/oauth/token";
pub(crate) const SNAPSHOT: &str = "/api/v1/agent/snapshot";
pub(crate) const EVENTS: &str = "/api/v1/agent/events";
pub(crate) const HEARTBEAT: &str = "/api/v1/agent/heartbeat";
pub(crate) const STATE: &str = "/api/v2/agent/sync/state";
pub(crate) const STREAM: &str = "/api/v2/agent/stream";
/// What an agent says that it can do, and what this platform answers.
const ASKED: HeaderName = HeaderName::from_static("obsyk-agent-capabilities");
const OFFERED: HeaderName = HeaderName::from_static("obsyk-capabilities");
const CAPABILITIES: &str = "batch=1, sync=1, gzip, fence=1";
/// Changes that are remembered for those who look on.
const RECENT_MAX: usize = 1000;
/// Assertions that are remembered; each for 5 minutes at the most.
const ASSERTIONS_MAX: usize = 100_000;
/// Clusters of one receiver.
const CLUSTERS_MAX: usize = 1000;

/// What a snapshot means for objects that it does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotPolicy {
    /// They are gone.
    #[default]
    Replace,
    /// They stay.
    Merge,
}

/// How a receiver behaves.
pub struct Options {
    /// This server's URL as agents write it: the audience of their assertions.
    pub url: String,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Chance, for nothing that has to be secret.
    pub random: Arc<dyn Random>,
    /// Life of an access token, in seconds.
    pub expires_in: i64,
    /// Whether the batch mode is offered.
    pub batch: bool,
    /// What a snapshot means for the rest.
    pub snapshots: SnapshotPolicy,
    /// Largest body, as sent and unpacked.
    pub body_bytes_max: usize,
    /// What goes wrong on purpose.
    pub faults: Faults,
}

impl Options {
    /// An hour for tokens, batch mode offered, snapshots replace, 256 MiB, no faults.
    pub fn new(url: impl Into<String>, clock: Arc<dyn Clock>, random: Arc<dyn Random>) -> Self {
        Self {
            url: url.into(),
            clock,
            random,
            expires_in: 3600,
            batch: true,
            snapshots: SnapshotPolicy::Replace,
            body_bytes_max: 256 << 20,
            faults: Faults::none(),
        }
    }
}

/// Why a receiver does not start.
#[derive(Debug, thiserror::Error)]
#[error("read the inventory")]
pub struct OpenError(#[from] KeepError);

/// A change for those who look on.
#[derive(Clone, Debug)]
pub(crate) struct Recent {
    pub(crate) number: u64,
    pub(crate) at: i64,
    pub(crate) cluster: String,
    pub(crate) what: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What is known, for readers.
#[derive(Default)]
pub(crate) struct Known {
    pub(crate) clusters: BTreeMap<String, Cluster>,
    pub(crate) recent: VecDeque<Recent>,
    pub(crate) number: u64,
    /// Requests by path and status.
    pub(crate) requests: BTreeMap<(String, u16), u64>,
}

/// See the module.
pub struct Receiver {
    pub(crate) options: Options,
    store: Arc<dyn Store>,
    pub(crate) known: RwLock<Known>,
    clients: RwLock<Clients>,
    tokens: Mutex<Tokens>,
    /// When each used assertion expires.
    assertions: Mutex<BTreeMap<String, i64>>,
    /// Held while a request is applied: the order in the store is the order in memory. True once nothing more
    /// is to be applied.
    writing: tokio::sync::Mutex<bool>,
}

/// Who asks, once that is known.
pub(crate) struct Caller {
    pub(crate) client_id: String,
    token: String,
}

impl Receiver {
    /// Reads what the store holds.
    pub async fn open(store: Arc<dyn Store>, options: Options) -> Result<Arc<Self>, OpenError> {
        let held = keep::load(&*store).await?;
        let known = Known { clusters: held.clusters, ..Known::default() };
        Ok(Arc::new(Self {
            options,
            store,
            known: RwLock::new(known),
            clients: RwLock::default(),
            tokens: Mutex::default(),
            assertions: Mutex::new(held.assertions),
            writing: tokio::sync::Mutex::default(),
        }))
    }

    /// Who may speak from now on.
    pub fn set_clients(&self, clients: Clients) {
        *self.clients.write() = clients;
    }

    /// What goes wrong on purpose.
    pub fn faults(&self) -> &Faults {
        &self.options.faults
    }

    pub(crate) fn now(&self) -> i64 {
        self.options.clock.now().as_second()
    }

    /// Waits for the request that is being applied; none is after that.
    pub async fn close(&self) {
        *self.writing.lock().await = true;
    }

    /// Answers a request of an agent. Cancel-safe: what was begun to be applied is applied in whole, in the
    /// store and in memory, also when nobody waits for the answer any more.
    pub async fn agent(self: &Arc<Self>, request: Request<Bytes>) -> Result<Answer, Cut> {
        let path = request.uri().path().to_owned();
        let fault = self.options.faults.choose(&path);
        match &fault {
            Some(Fault::Disconnect) => return Err(Cut),
            Some(Fault::Hang) => std::future::pending::<()>().await,
            Some(Fault::Slow(wait)) => tokio::time::sleep(*wait).await,
            Some(Fault::ForgetTokens) => self.tokens.lock().forget(),
            Some(Fault::ForgetSession) => self.forget_session(),
            _ => {}
        }
        let ahead = match &fault {
            Some(Fault::Clock(seconds)) => *seconds,
            _ => 0,
        };
        let mut response = match &fault {
            Some(Fault::Larger(bytes)) if request.body().len() > *bytes => {
                Refused::new(413, "too_large", "a fault on purpose").into()
            }
            Some(Fault::Status(status, after)) => {
                let mut response = json_response(*status, &json!({"error": "fault"}));
                if let Some(after) = after {
                    put(&mut response, header::RETRY_AFTER, after);
                }
                response
            }
            Some(Fault::Redirect(to)) => {
                let mut response = json_response(302, &json!({}));
                put(&mut response, header::LOCATION, to);
                response
            }
            Some(Fault::BadRecord) if path == STREAM => {
                Refused::new(422, "bad_record", "a fault on purpose").into()
            }
            Some(Fault::Drop) if path == STREAM => session::pretend(request.body()),
            _ => self.serve_whole(&path, request, ahead).await,
        };
        put(&mut response, header::DATE, &http_date(self.now().saturating_add(ahead)));
        *self.known.write().requests.entry((known_path(&path), response.status().as_u16())).or_default() += 1;
        match fault {
            Some(Fault::Swallow) => Err(Cut),
            Some(Fault::Truncate) => {
                let cut_after = Some(response.body().len() / 2);
                Ok(Answer { response, cut_after })
            }
            Some(Fault::HalfBody) => {
                let body = response.body_mut();
                body.truncate(body.len() / 2);
                Ok(Answer { response, cut_after: None })
            }
            _ => Ok(Answer { response, cut_after: None }),
        }
    }

    /// Serves in a task of its own, which goes on when whoever waits for it is gone. `close` waits for it.
    async fn serve_whole(
        self: &Arc<Self>,
        path: &str,
        request: Request<Bytes>,
        ahead: i64,
    ) -> Response<Bytes> {
        let (own, path) = (Arc::clone(self), path.to_owned());
        let served = tokio::spawn(async move { own.serve(&path, &request, ahead).await });
        served.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a request ended unexpectedly");
            Refused::new(500, "server_error", "the request ended unexpectedly").into()
        })
    }

    async fn serve(&self, path: &str, request: &Request<Bytes>, ahead: i64) -> Response<Bytes> {
        let text = |name: HeaderName| {
            request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
        };
        if known_path(path) == "other" {
            return Refused::new(404, "not_found", "there is no such path").into();
        }
        if matches!(path, STATE | STREAM) && !self.options.batch {
            return Refused::new(404, "not_found", "the batch mode is not offered").into();
        }
        if request.method() != Method::POST {
            return Refused::new(405, "method_not_allowed", "POST is").into();
        }
        if request.body().len() > self.options.body_bytes_max {
            return Refused::new(413, "too_large", "the body is too large").into();
        }
        if path == TOKEN {
            let granted = self.grant(text(header::CONTENT_TYPE), request.body(), ahead).await;
            return granted.unwrap_or_else(Into::into);
        }
        let answered = match self.caller(text(header::AUTHORIZATION)) {
            Ok(caller) => self.act(path, &caller, request).await,
            Err(refused) => Err(refused),
        };
        let mut response = match answered {
            Ok(Value::Null) => bytes_response(200, "application/json", Bytes::new()),
            Ok(body) => json_response(200, &body),
            Err(refused) => refused.into(),
        };
        let asks = request.headers().get(ASKED).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.options.batch && asks.contains("batch=1") {
            put(&mut response, OFFERED, CAPABILITIES);
        }
        response
    }

    /// RFC 7523: an assertion for a token. The clock is so many seconds `ahead`, for who wants that.
    async fn grant(&self, content_type: &str, body: &[u8], ahead: i64) -> Result<Response<Bytes>, Refused> {
        let now = self.now().saturating_add(ahead);
        let asserted = {
            let clients = self.clients.read();
            assertion::check(body, content_type, &self.options.url, &clients, now)?
        };
        let name = keep::assertion_name(&asserted.client_id, &asserted.id);
        let expired = {
            let mut used = self.assertions.lock();
            let expired: Vec<String> =
                used.iter().filter(|(_, expires)| **expires <= now).map(|(name, _)| name.clone()).collect();
            for name in &expired {
                used.remove(name);
            }
            if used.len() >= ASSERTIONS_MAX {
                return Err(Refused::new(503, "temporarily_unavailable", "too many assertions at once"));
            }
            if used.insert(name.clone(), asserted.expires).is_some() {
                return Err(Refused::new(400, "invalid_grant", "the assertion was used before"));
            }
            expired
        };
        keep::assertion(&*self.store, &name, asserted.expires, &expired).await.map_err(failed)?;
        let granted = self.tokens.lock().grant(&asserted.client_id, now, self.options.expires_in);
        let token = granted.ok_or_else(|| Refused::new(503, "temporarily_unavailable", "no random bytes"))?;
        let mut body = json!({
            "access_token": token, "token_type": "Bearer", "expires_in": self.options.expires_in,
        });
        if self.options.batch
            && let Some(fields) = body.as_object_mut()
        {
            fields.insert("obsyk_capabilities".into(), json!(CAPABILITIES));
        }
        Ok(json_response(200, &body))
    }

    fn caller(&self, authorization: &str) -> Result<Caller, Refused> {
        let refused =
            || Refused::new(401, "invalid_token", "the token is unknown, expired or its client revoked");
        let token = authorization.strip_prefix("Bearer ").ok_or_else(refused)?;
        let client_id = self.tokens.lock().client(token, self.now()).ok_or_else(refused)?;
        if !self.clients.read().is_active(&client_id) {
            return Err(refused());
        }
        Ok(Caller { client_id, token: token.to_owned() })
    }

    async fn act(&self, path: &str, caller: &Caller, request: &Request<Bytes>) -> Result<Value, Refused> {
        let closed = self.writing.lock().await;
        if *closed {
            return Err(Refused::new(503, "temporarily_unavailable", "the platform is ending"));
        }
        match path {
            SNAPSHOT | EVENTS | HEARTBEAT => {
                legacy::check_headers(request.headers())?;
                let fence = legacy::fence(request.headers())?;
                match path {
                    SNAPSHOT => legacy::snapshot(self, caller, fence, request.body()).await,
                    EVENTS => legacy::event(self, caller, fence, request.body()).await,
                    _ => legacy::heartbeat(self, caller, request.body()).await,
                }
            }
            STATE => session::open(self, caller, request.body()).await,
            _ => session::stream(self, caller, request.headers(), request.body()).await,
        }
    }

    /// Lets through only who leads: nobody with a larger number has spoken.
    pub(crate) fn lead(&self, record: &mut Record, fence: u64) -> Result<(), Refused> {
        if fence < record.fence {
            let why = "an agent that leads since streams this cluster";
            return Err(Refused::new(409, "fenced", why).with("fence", record.fence));
        }
        record.fence = fence;
        Ok(())
    }

    /// Whether a caller may speak of a cluster: it is nobody else's, and the token's first.
    pub(crate) fn admit(&self, caller: &Caller, cluster: &str) -> Result<Record, Refused> {
        contract::identity("cluster_uid", cluster)
            .map_err(|why| Refused::new(400, "invalid_request", why))?;
        let known = self.known.read();
        let record = known.clusters.get(cluster).map(|of| of.record.clone());
        if record.as_ref().is_some_and(|record| record.client_id != caller.client_id) {
            return Err(Refused::new(403, "forbidden", "the cluster is another client's"));
        }
        if record.is_none() && known.clusters.len() >= CLUSTERS_MAX {
            return Err(Refused::new(403, "forbidden", "there are too many clusters"));
        }
        drop(known);
        if !self.tokens.lock().bind(&caller.token, cluster) {
            return Err(Refused::new(403, "forbidden", "the token was used for another cluster"));
        }
        Ok(record.unwrap_or_else(|| Record { client_id: caller.client_id.clone(), ..Record::default() }))
    }

    /// Makes edits durable, then shows them. Not cancel-safe: its caller has to run to its end.
    pub(crate) async fn commit(
        &self,
        cluster: &str,
        edits: Vec<Edit>,
        record: Record,
    ) -> Result<(), Refused> {
        let changed =
            self.known.read().clusters.get(cluster).is_none_or(|of| of.record != record).then_some(&record);
        keep::edits(&*self.store, cluster, &edits, changed).await.map_err(failed)?;
        let now = self.now();
        let mut known = self.known.write();
        let Known { clusters, recent, number, requests: _ } = &mut *known;
        let of = clusters.entry(cluster.to_owned()).or_default();
        for edit in &edits {
            *number += 1;
            let (kind, what, name, namespace) = match edit {
                Edit::Put { kind, uid, kept } => {
                    let what = if of.get(kind, uid).is_some() { "modified" } else { "added" };
                    (kind.name, what, kept.name.to_string(), kept.namespace.to_string())
                }
                Edit::Remove { kind, uid } => match of.get(kind, uid) {
                    Some(kept) => (kind.name, "deleted", kept.name.to_string(), kept.namespace.to_string()),
                    None => continue,
                },
            };
            let cluster = cluster.to_owned();
            recent.push_back(Recent { number: *number, at: now, cluster, what, kind, namespace, name });
            if recent.len() > RECENT_MAX {
                recent.pop_front();
            }
        }
        of.apply(edits);
        of.record = record;
        of.last_contact = now;
        Ok(())
    }

    fn forget_session(&self) {
        for cluster in self.known.write().clusters.values_mut() {
            cluster.record.applied = 0;
            cluster.record.last_batch = None;
        }
    }
}

/// A path as it is counted: there are no more than these.
fn known_path(path: &str) -> String {
    let known = [TOKEN, SNAPSHOT, EVENTS, HEARTBEAT, STATE, STREAM];
    if known.contains(&path) { path.to_owned() } else { "other".to_owned() }
}

fn failed(error: KeepError) -> Refused {
    tracing::error!(%error, "the inventory could not be written");
    Refused::new(503, "temporarily_unavailable", "it could not be written")
}

/// An HTTP date.
fn http_date(second: i64) -> String {
    let at = jiff::Timestamp::from_second(second).unwrap_or_default();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
