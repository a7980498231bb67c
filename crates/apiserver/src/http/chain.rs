//! The chain that every request passes: authenticate, audit id, impersonate, authorize, route, handle.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use http::{HeaderName, HeaderValue, Method, Request, Response, header, request::Parts};
use meta::{Reason, Status};
use resource::User;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::{
    body::{Body, Input},
    encode, gzip,
    health::Health,
    impersonate::impersonate,
    metrics::{Class, Labels, Metrics},
    negotiate::{self, Binary, Wanted},
    paths,
    query::Query,
    resources::{self, Call},
    route::{Named, Route, verb},
};
use crate::{
    auth::{Ask, Asked, Authenticator, Authorizer, forbidden},
    connect::Kubelets,
    discovery::Discovery,
    openapi::OpenApi,
    rest::Rest,
    tokens::Tokens,
};

/// How long a request that is no stream may take, as upstream.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) rest: Rest,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) tokens: Option<Arc<Tokens>>,
    pub(crate) kubelets: Option<Kubelets>,
    /// What a backup is made of.
    pub(crate) backup: Option<Arc<dyn store::Store>>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) discovery: Discovery,
    pub(crate) openapi: OpenApi,
    pub(crate) version: serde_json::Value,
    /// Cancelled when the server stops: watches and streams end.
    pub(crate) stop: CancellationToken,
}

/// What is known of the sender before the request is read.
#[derive(Clone)]
pub(crate) enum Sender {
    /// A connection, with the user of its client certificate.
    Connection(Option<Arc<User>>),
    /// A component in this process, who needs no credentials.
    InProcess(Arc<User>),
}

impl Shared {
    /// Answers any request. Never fails: errors, and panics of a handler, are answers.
    pub(crate) async fn respond(self: Arc<Self>, sender: Sender, request: Request<Input>) -> Response<Body> {
        let began = Instant::now();
        let (mut parts, input) = request.into_parts();
        let audit_id = audit_id(&parts, &self.rest);
        let mut labels = Labels { verb: "OTHER", ..Labels::default() };
        let chain = AssertUnwindSafe(self.chain(sender, &mut parts, input, &mut labels));
        let answer = match chain.catch_unwind().await {
            Ok(answer) => answer,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                tracing::error!(panic = text, method = %parts.method, path = parts.uri.path(), "handler panicked");
                Err(Status::internal("the handler of this request failed; see the server's log"))
            }
        };
        let mut response = answer.unwrap_or_else(|status| {
            let wanted = negotiate::accept(&parts.headers, None, Binary::Whole).unwrap_or(Wanted::PLAIN);
            encode::status_as(wanted, self.rest.registry(), &status)
        });
        let stream = matches!(labels.verb, "WATCH" | "CONNECT");
        let took = (!stream).then(|| began.elapsed());
        let size = if stream { None } else { response.body().length() };
        self.metrics.answered(&labels, response.status().as_u16(), took, size);
        gzip::compress(&parts.headers, &mut response);
        let headers = response.headers_mut();
        headers.insert(AUDIT_ID, audit_id);
        if !headers.contains_key(header::CACHE_CONTROL) {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
        }
        response
    }

    async fn chain(
        self: &Arc<Self>,
        sender: Sender,
        parts: &mut Parts,
        input: Input,
        labels: &mut Labels,
    ) -> Result<Response<Body>, Status> {
        let user = match sender {
            Sender::Connection(certified) => {
                self.authenticator.authenticate(certified.as_ref(), &parts.headers)?
            }
            Sender::InProcess(user) => user,
        };
        let user = impersonate(user, &parts.headers, &*self.authorizer)?;
        let uri = std::mem::take(&mut parts.uri);
        let query = Query::parse(uri.query());
        match Route::parse(uri.path()) {
            Route::Path(path) => {
                self.authorize_path(&user, &parts.method, path)?;
                timeout(REQUEST_TIMEOUT, paths::answer(self, parts, path, &query))
                    .await
                    .map_err(|_| too_slow())?
            }
            Route::Resource(named) => {
                let verb = verb(&parts.method, &named, query.flag("watch")).ok_or_else(|| {
                    Status::new(405, Reason::MethodNotAllowed, "the server does not know this method")
                })?;
                self.authorize(&user, verb, &named, &query)?;
                self.resource(&user, parts, &uri, &named, query, verb, input, labels).await
            }
        }
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
        labels: &mut Labels,
    ) -> Result<Response<Body>, Status> {
        let upgrade = parts.extensions.remove::<hyper::upgrade::OnUpgrade>();
        let call =
            Call { server: self, user, method: &parts.method, headers: &parts.headers, named, query, verb };
        let resource = resources::resolve(&call)?;
        *labels = call.labels(&resource);
        match resources::is_long(&call, &resource) {
            Some(Class::Connect) => {
                labels.verb = "CONNECT";
                let kubelets = self.kubelets.as_ref().ok_or_else(|| {
                    Status::new(
                        501,
                        Reason::NotAcceptable,
                        "this server has no credentials to call nodes with",
                    )
                })?;
                kubelets.connect(&call, &resource, uri.query(), input, upgrade).await
            }
            Some(_) => resources::watch(&call, &resource).await,
            None => {
                let class = if matches!(verb, "get" | "list") { Class::Reading } else { Class::Mutating };
                let _running = self.metrics.begin(class);
                let answer = resources::answer(&call, &resource, input);
                timeout(REQUEST_TIMEOUT, answer).await.map_err(|_| too_slow())?
            }
        }
    }

    fn authorize(&self, user: &User, verb: &str, named: &Named<'_>, query: &Query<'_>) -> Result<(), Status> {
        let mut name = &*named.name;
        let selector;
        if name.is_empty() && matches!(verb, "list" | "watch" | "deletecollection") {
            // Whoever may read one object may list and watch it by its name.
            selector = query.get("fieldSelector").and_then(|text| meta::FieldSelector::parse(text).ok());
            name = selector.as_ref().and_then(|s| s.requires("metadata.name")).unwrap_or_default();
        }
        // As upstream, a namespace is in itself: a Role in it may allow reading it.
        let itself = named.plural == "namespaces" && named.group.is_empty();
        let namespace = if itself && named.namespace.is_empty() { &*named.name } else { &*named.namespace };
        let object = Asked::Resource {
            group: named.group,
            resource: named.plural,
            subresource: named.subresource,
            namespace,
            name,
        };
        self.allow(&Ask { user, verb, object })
    }

    fn authorize_path(&self, user: &User, method: &Method, path: &str) -> Result<(), Status> {
        let verb = match *method {
            Method::GET => "get",
            Method::HEAD => "head",
            Method::POST => "post",
            Method::PUT => "put",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            Method::OPTIONS => "options",
            _ => "unknown",
        };
        self.allow(&Ask { user, verb, object: Asked::Path(path) })
    }

    fn allow(&self, ask: &Ask<'_>) -> Result<(), Status> {
        if self.authorizer.allows(ask) { Ok(()) } else { Err(forbidden(ask)) }
    }
}

fn too_slow() -> Status {
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
