//! The chain that every request passes: authenticate, audit id, impersonate, authorize, route, handle.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, header, request::Parts};
use meta::{GroupVersion, Reason, Status, Timestamp, metrics::Exposition};
use resource::{Notes, Subresource, User};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    attributes::{Attributes, path_verb},
    body::{Body, Input},
    decode, encode, gzip,
    health::Health,
    impersonate::impersonate,
    negotiate::{self, Binary, Wanted},
    noticed::{Noticed, attributes, method_label, path_label, span_name},
    paths,
    query::Query,
    resources::{self, Call},
    route::{Named, Route, verb},
    warnings, websocket,
};
use crate::{
    aggregation::{Aggregation, Passing, Remote, remote_of_path},
    audit::{Audit, Of, Record},
    auth::{Ask, Authenticator, Authorizer, Peer, verdict},
    connect::Kubelets,
    discovery::Discovery,
    flow::{Asks, Flow, On, Place},
    metrics::{Class, Labels, Verdict},
    openapi::OpenApi,
    rest::Rest,
    tokens::Tokens,
    trace::{self, Tracing},
};

/// How long a request that is no stream may take, as upstream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// Writes what somebody else counts, when `/metrics` is asked for. It must not wait.
pub type Expose = Arc<dyn Fn(&mut Exposition) + Send + Sync>;

/// What a component is configured with, for `/configz`. It must not wait, and say no secret.
pub type Configured = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) rest: Rest,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) kubelets: Option<Kubelets>,
    /// Other servers that answer for versions of groups.
    pub(crate) aggregation: Option<Aggregation>,
    /// What a backup is made of.
    pub(crate) backup: Option<Arc<dyn store::Store>>,
    pub(crate) audit: Option<Arc<Audit>>,
    /// Who runs, who waits and who is refused.
    pub(crate) flow: Flow,
    pub(crate) health: Health,
    /// What is counted elsewhere in this process.
    pub(crate) exposed: Vec<Expose>,
    /// What is configured, by component, for `/configz`.
    pub(crate) configured: Vec<(String, Configured)>,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) version: serde_json::Value,
    /// Which requests are traced; `None` for none.
    pub(crate) tracing: Option<Tracing>,
    /// How long a connection may be without its first request.
    pub(crate) head_timeout: Duration,
    /// Cancelled when the server stops: watches and streams end.
    pub(crate) stop: CancellationToken,
}

/// What is known of the sender before the request is read.
#[derive(Clone)]
pub(crate) enum Sender {
    /// A connection, with what its client certificate says, and until when that is good.
    Connection(Peer, Option<Timestamp>),
    /// A component in this process, who needs no credentials.
    InProcess(Arc<User>),
}

impl Shared {
    /// Answers any request. Never fails: errors, and panics of a handler, are answers.
    pub(crate) async fn respond(self: Arc<Self>, sender: Sender, request: Request<Input>) -> Response<Body> {
        let began = Instant::now();
        let (mut parts, input) = request.into_parts();
        let audit_id = audit_id(&parts, &self.rest);
        let traced = self.tracing.as_ref().map(|of| (trace::Request::begin(of), parts.uri.clone()));
        let in_process = matches!(sender, Sender::InProcess(_));
        let mut noticed = Noticed::new(self.rest.metrics(), in_process);
        let mut noted = HeaderMap::new();
        let notes = Arc::<Notes>::default();
        let mut record = self.audit.as_ref().map(|audit| {
            let address = match &sender {
                Sender::Connection(peer, _) => peer.address,
                Sender::InProcess(_) => None,
            };
            Record::begin(audit, audit_id.to_str().unwrap_or_default(), &parts.uri, &parts.headers, address)
        });
        let answer = {
            let chain = self.chain(
                sender,
                &mut parts,
                input,
                &mut noticed,
                record.as_deref_mut(),
                &mut noted,
                &notes,
            );
            let chain = std::pin::pin!(AssertUnwindSafe(chain).catch_unwind());
            match &traced {
                Some((traced, _)) => traced.run(chain).await,
                None => chain.await,
            }
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(panic = text, method = %parts.method, path = parts.uri.path(), "handler panicked");
                if let Some(mut record) = record.take() {
                    record.panicked();
                }
                Err(Status::internal("the handler of this request failed; see the server's log"))
            }
        };
        let stream = noticed.is_stream();
        warnings::write(&notes.warnings(), &mut noted);
        let ended = record.and_then(|mut record| {
            record.notes(notes.annotations());
            record.finish(answer.as_ref().map(|response| response.status().as_u16()), stream)
        });
        let mut response = answer.unwrap_or_else(|status| {
            let wanted =
                negotiate::accept(&parts.headers, None, Binary::Whole, true).unwrap_or(Wanted::PLAIN);
            encode::status_as(wanted, self.rest.registry(), &status)
        });
        let (took, code) = (began.elapsed(), response.status().as_u16());
        noticed.ended.code = code;
        noticed.ended.took = (!stream).then_some(took);
        noticed.ended.size = if stream { None } else { response.body().length() };
        noticed.answered = true;
        if let Some((traced, uri)) = traced {
            traced.end(
                span_name(parts.method.as_str(), uri.path()),
                attributes(&parts, &uri, &audit_id, code),
                code >= 500,
            );
        }
        if in_process {
            noticed.metrics.requests.client(method_label(&parts.method), code, took);
        }
        gzip::compress(&parts.headers, &mut response);
        if let Some(ended) = ended {
            response = response.map(|body| body.until(Box::new(ended)));
        }
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id);
        headers.extend(noted);
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        }
        response
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request; one call site")]
    async fn chain(
        self: &Arc<Self>,
        sender: Sender,
        parts: &mut Parts,
        input: Input,
        noticed: &mut Noticed,
        mut record: Option<&mut Record>,
        noted: &mut HeaderMap,
        notes: &Arc<Notes>,
    ) -> Result<Response<Body>, Status> {
        let sender = match sender {
            Sender::Connection(peer, until) => {
                websocket::take_token(&mut parts.headers)?;
                self.authenticate(&peer, until, &parts.headers, parts.uri.path()).await?
            }
            Sender::InProcess(user) => user,
        };
        if self.tracing.is_some() {
            trace::decide(&sender, &parts.headers);
        }
        let uri = std::mem::take(&mut parts.uri);
        let query = Query::parse(uri.query());
        let route = Route::parse(uri.path());
        if let Some(record) = &mut record {
            record.user(&sender);
            self.told(record, &parts.method, &route, &query)?;
        }
        let attributes = Attributes::of(&parts.method, &route, &query);
        let acting = impersonate(sender, &parts.headers, &*self.authorizer, &attributes).await?;
        if let (Some(record), Some(constraint)) = (&mut record, acting.constraint) {
            record.acting(&acting.user, constraint);
        }
        let user = acting.user;
        let registry = self.rest.registry();
        match &route {
            Route::Path(path) => {
                noticed.labels.verb = method_label(&parts.method);
                noticed.labels.subresource = path_label(path);
                let asks = Asks { user: &user, verb: path_verb(&parts.method), on: On::Path(path) };
                let mutating = !matches!(parts.method, Method::GET | Method::HEAD);
                let _place = self.place(&asks, 0, mutating, noticed, noted).await?;
                let began = Instant::now();
                let allowed = self.allow(&attributes.ask(&user), record).await;
                self.decided(began, &allowed);
                allowed?;
                if let Some(remote) = remote_of_path(registry, path) {
                    let as_what = (Class::Reading, Some(REQUEST_TIMEOUT));
                    return self.elsewhere(&remote, &user, parts, &uri, input, as_what, noticed).await;
                }
                timeout(REQUEST_TIMEOUT, paths::answer(self, parts, path, &query))
                    .await
                    .map_err(|_| noticed.too_slow())?
            }
            Route::Resource(named) => {
                let verb = verb(&parts.method, named, query.flag("watch")).ok_or_else(|| {
                    Status::new(
                        405,
                        Reason::MethodNotAllowed,
                        "the server does not allow this method on the requested resource",
                    )
                })?;
                let found = registry.resolve(named.group, named.version, named.plural);
                if let Some(resource) = &found {
                    noticed.labels = resources::labels(resource, named, verb, &parts.headers);
                } else {
                    noticed.labels.verb = resources::verb_label(verb, false);
                }
                noticed.ended.dry_run = query.all("dryRun").any(|value| value == "All");
                noticed.ended.body = input.length().filter(|bytes| *bytes > 0);
                let mutating = !matches!(verb, "get" | "list" | "watch");
                let on = On::Resource {
                    group: named.group,
                    resource: named.plural,
                    subresource: named.subresource,
                    namespace: &named.namespace,
                };
                // A watch gives its place back when it begins.
                let _place = match self.objects(found.as_deref(), named, verb, &query) {
                    Some(objects) => {
                        let asks = Asks { user: &user, verb, on };
                        Some(self.place(&asks, objects, mutating, noticed, noted).await?)
                    }
                    None => None,
                };
                drop(found);
                let began = Instant::now();
                let allowed = self.allow(&attributes.ask(&user), record.as_deref_mut()).await;
                self.decided(began, &allowed);
                allowed?;
                let of = GroupVersion::new(named.group, named.version);
                if let Some(remote) = registry.remote(&of) {
                    noticed.labels = remote_labels(&remote, named, verb);
                    let as_what = remote_class(named, verb, &parts.headers);
                    return self.elsewhere(&remote, &user, parts, &uri, input, as_what, noticed).await;
                }
                self.resource(&user, parts, &uri, named, query, verb, input, noticed, record, notes).await
            }
        }
    }

    /// Asks who sent this, and counts what came of it.
    async fn authenticate(
        &self,
        peer: &Peer,
        until: Option<Timestamp>,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<Arc<User>, Status> {
        let metrics = self.rest.metrics();
        if let Some(until) = until {
            metrics.certified(until.as_second() - self.rest.clock().now().as_second());
        }
        let began = Instant::now();
        let known = self.authenticator.authenticate(peer, headers, path).await;
        let verdict = match &known {
            Ok(_) => Verdict::Success,
            Err(_) if headers.contains_key(header::AUTHORIZATION) => Verdict::Error,
            Err(_) => Verdict::Failure,
        };
        metrics.authenticated(verdict, known.as_ref().ok().map(|user| user.name.as_str()), began.elapsed());
        known
    }

    /// Counts whether somebody may do what they asked for.
    fn decided(&self, began: Instant, allowed: &Result<(), Status>) {
        let verdict = match allowed {
            Ok(()) => Verdict::Allowed,
            Err(status) if status.code == 500 => Verdict::Error,
            Err(_) => Verdict::NoOpinion,
        };
        self.rest.metrics().authorized(verdict, began.elapsed());
    }

    /// Passes a request on to the server that answers for it; it counts as given, and may take so long.
    #[allow(clippy::too_many_arguments, reason = "the parts of one request; two call sites")]
    async fn elsewhere(
        &self,
        remote: &Remote,
        user: &User,
        parts: &mut Parts,
        uri: &http::Uri,
        input: Input,
        (class, limit): (Class, Option<Duration>),
        noticed: &Noticed,
    ) -> Result<Response<Body>, Status> {
        let layer = self.aggregation.as_ref().ok_or_else(Status::no_such_path)?;
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let running = noticed.metrics.requests.begin(class, &noticed.labels);
        Box::pin(layer.pass(remote, Passing { user, parts, uri, input, upgrade, running, limit })).await
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one request; one call site")]
    async fn resource(
        self: &Arc<Self>,
        user: &User,
        parts: &mut Parts,
        uri: &http::Uri,
        named: &Named<'_>,
        query: Query<'_>,
        verb: &'static str,
        input: Input,
        noticed: &mut Noticed,
        mut record: Option<&mut Record>,
        notes: &Arc<Notes>,
    ) -> Result<Response<Body>, Status> {
        let mut upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let (method, headers) = (&parts.method, &parts.headers);
        let call = Call { server: self, user, method, headers, named, query, verb, notes };
        let resource = resources::resolve(&call)?;
        notes.warn_all(resource.deprecated.as_deref());
        let long = resources::is_long(&call, &resource);
        let made = match long {
            Some(Class::Connect) => (call.subresource() == "log").then_some(websocket::Made::Log),
            long => long.map(|_| websocket::Made::Events),
        };
        let socket = websocket::Socket::asked(call.headers, &mut upgrade, made)?;
        let streamed = match long {
            Some(Class::Connect) => {
                noticed.labels.verb = "CONNECT";
                let kubelets = self.kubelets.as_ref().ok_or_else(|| {
                    Status::new(
                        501,
                        Reason::NotAcceptable,
                        "this server has no credentials to call nodes with",
                    )
                })?;
                Box::pin(kubelets.connect(&call, &resource, uri, input, upgrade)).await?
            }
            Some(_) => resources::watch(&call, &resource).await?,
            None => {
                let class = if matches!(verb, "get" | "list") { Class::Reading } else { Class::Mutating };
                let _running = noticed.metrics.requests.begin(class, &noticed.labels);
                let work = async {
                    let input = match record.as_deref_mut().filter(|record| record.wants_request()) {
                        Some(record) => audited(&call, &resource, input, record).await?,
                        None => input,
                    };
                    resources::answer(&call, &resource, input).await
                };
                let answer = timeout(REQUEST_TIMEOUT, work).await.map_err(|_| noticed.too_slow())??;
                return Ok(match record.filter(|record| record.wants_response()) {
                    Some(record) => answer.map(|body| {
                        let (body, held) = body.hold();
                        if let Some(bytes) = held {
                            record.response(&bytes);
                        }
                        body
                    }),
                    None => answer,
                });
            }
        };
        Ok(websocket::answer(socket, streamed, &self.stop))
    }

    /// Waits for the request's turn. The answer says who decided, whatever it is.
    async fn place(
        &self,
        asks: &Asks<'_>,
        objects: u64,
        mutating: bool,
        noticed: &mut Noticed,
        noted: &mut HeaderMap,
    ) -> Result<Place, Status> {
        let began = Instant::now();
        let waiting = noticed.metrics.requests.waiting(mutating);
        let admitted = self.flow.admit(asks, objects).await;
        drop(waiting);
        noticed.ended.waited = began.elapsed();
        match admitted {
            Ok(place) => {
                place.note(noted);
                Ok(place)
            }
            Err(refused) => {
                noticed.ended.terminated = true;
                refused.note(noted);
                Err(refused.status)
            }
        }
    }

    /// How many objects a request looks at, at most; `None` for streams to nodes, which need no place.
    fn objects(
        &self,
        resource: Option<&resource::Resource>,
        named: &Named<'_>,
        verb: &str,
        query: &Query<'_>,
    ) -> Option<u64> {
        let many = match verb {
            "list" => true,
            "watch" => query.flag("sendInitialEvents"),
            _ => false,
        };
        if !many && named.subresource.is_empty() {
            return Some(1);
        }
        let Some(resource) = resource else { return Some(1) };
        match resource.subresource(named.subresource) {
            Some(Subresource::Connect) => None,
            _ if !many || !named.name.is_empty() => Some(1),
            _ => {
                let limit =
                    query.get("limit").and_then(|limit| limit.parse().ok()).filter(|limit| *limit > 0);
                let stored = self.rest.cache().kind(&resource.stored_as).snapshot().len() as u64;
                Some(limit.map_or(stored, |limit: u64| stored.min(limit)))
            }
        }
    }

    /// Tells the audit log what the request is about.
    fn told(
        &self,
        record: &mut Record,
        method: &Method,
        route: &Route<'_>,
        query: &Query<'_>,
    ) -> Result<(), Status> {
        match route {
            Route::Path(path) => record.about(path_verb(method), "", Of::Path(path)),
            Route::Resource(named) => {
                let verb = verb(method, named, query.flag("watch")).unwrap_or(path_verb(method));
                let of = Of::Resource {
                    group: named.group,
                    resource: named.plural,
                    subresource: named.subresource,
                    namespace: &named.namespace,
                    name: &named.name,
                };
                record.about(verb, named.version, of)
            }
        }
    }

    async fn allow(&self, ask: &Ask<'_>, record: Option<&mut Record>) -> Result<(), Status> {
        let record = record.filter(|record| record.is_logged());
        let decision = match self.authorizer.outside(ask) {
            Some(answer) => answer.await,
            None if record.is_none() && self.authorizer.allows(ask) => return Ok(()),
            None => self.authorizer.decide(ask),
        };
        if let Some(record) = record {
            record.decision(decision.allows(), decision.reason());
        }
        verdict(ask, &decision)
    }
}

/// Subresources that stream (upstream's long-running requests).
const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// How a request that is passed to another server counts, and how long it may take.
fn remote_class(named: &Named<'_>, verb: &str, headers: &HeaderMap) -> (Class, Option<Duration>) {
    match verb {
        "watch" => (Class::Watch, None),
        _ if STREAMS.contains(&named.subresource) || headers.contains_key(header::UPGRADE) => {
            (Class::Connect, None)
        }
        "get" | "list" => (Class::Reading, Some(REQUEST_TIMEOUT)),
        _ => (Class::Mutating, Some(REQUEST_TIMEOUT)),
    }
}

/// Labels of a request that is passed to another server: named only as far as it is known to serve that, so that
/// clients cannot make up labels.
fn remote_labels(remote: &Remote, named: &Named<'_>, verb: &'static str) -> Labels {
    let of = Labels { verb: resources::verb_label(verb, false), ..Labels::default() };
    let served = match named.subresource {
        "" => named.plural.to_owned(),
        subresource => format!("{}/{subresource}", named.plural),
    };
    if !remote.seen.as_ref().is_some_and(|seen| seen.serves(&served)) {
        return of;
    }
    Labels {
        group: named.group.into(),
        version: named.version.into(),
        resource: named.plural.into(),
        subresource: named.subresource.into(),
        scope: resources::scope(named),
        ..of
    }
}

/// Reads the body for the log and gives it on. One that cannot be read as an object is logged without it: the
/// handler is going to refuse it.
async fn audited(
    call: &Call<'_>,
    resource: &Arc<resource::Resource>,
    input: Input,
    record: &mut Record,
) -> Result<Input, Status> {
    let bytes = input.collect().await?;
    let read = || -> Option<serde_json::Value> {
        if call.verb == "patch" {
            return decode::decode(&bytes, negotiate::Media::Yaml).ok().map(|decoded| decoded.value);
        }
        let media = negotiate::content(call.headers).ok()?;
        let (object, _) = decode::object(&bytes, media, resource, call.rest().registry()).ok()?;
        Some(object.into_value())
    };
    record.request((!bytes.is_empty()).then(read).flatten(), bytes.len());
    Ok(Input::new(http_body_util::Full::new(bytes)))
}

pub(super) fn too_slow() -> Status {
    let why = "the request did not complete within 60 seconds; whether a write took place is unknown";
    Status::new(504, Reason::Timeout, why)
}

/// The id the client gave, else a new one.
fn audit_id(parts: &Parts, rest: &Rest) -> HeaderValue {
    let given = parts.headers.get(AUDIT_ID).filter(|value| value.len() <= 64 && !value.is_empty());
    let mut id = given
        .cloned()
        .or_else(|| HeaderValue::from_str(&rest.random().uuid()).ok())
        .unwrap_or(HeaderValue::from_static("-"));
    // Each is seen once: keeps HTTP/2 from putting it into the table of what may come again (RFC 7541
    // section 6.2.3), which costs both ends more than its 36 bytes.
    id.set_sensitive(true);
    id
}
