//! What is known of one version of a group that another server answers for.

use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderValue, Method, header};
use http_body_util::{BodyExt as _, Limited};
use meta::{GroupVersion, Object, Value};
use resource::{User, View};
use rustls::{ClientConfig, pki_types::ServerName};

use super::{
    document::Seen,
    proxy::{unavailable, vouched},
};
use crate::{
    auth::MASTERS,
    connect::{Forward, Forwarder, Refusals},
    http::{Body, Input, Trust, client_config},
    pki::Pair,
    webhook::Target,
};

/// The longest document that is read of another server.
const DOCUMENT_BYTES_MAX: usize = 8 << 20;

/// Other servers by what they answer for.
pub(crate) type Remotes = BTreeMap<GroupVersion, Arc<Remote>>;

/// One version of a group.
#[derive(Clone)]
pub(crate) struct Remote {
    pub(crate) of: GroupVersion,
    pub(crate) group_priority: i64,
    pub(crate) version_priority: i64,
    /// Whether it passed its last check.
    pub(crate) available: bool,
    /// What it said it serves when it last answered.
    pub(crate) seen: Option<Arc<Seen>>,
    /// How it is reached, or why it cannot be.
    pub(super) link: Result<Arc<Link>, Arc<str>>,
}

/// How another server is reached.
pub(super) struct Link {
    pub(super) target: Target,
    pub(super) service: Service,
    tls: Arc<ClientConfig>,
}

/// The Service of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) port: u64,
}

/// An answer that was read whole.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) etag: String,
    pub(super) bytes: bytes::Bytes,
}

/// What an APIService is about.
pub(super) fn group_version(service: &Object) -> GroupVersion {
    let text = |field| service.str(&["spec", field]).unwrap_or_default();
    GroupVersion::new(text("group"), text("version"))
}

/// Whether an APIService names another server.
pub(super) fn is_remote(service: &Object) -> bool {
    service.get(&["spec", "service"]).is_some_and(Value::is_object)
}

impl Remote {
    /// Reads an APIService that names another server. Nothing is known of it yet.
    pub(super) fn read(service: &Object, login: &Pair) -> Self {
        let priority = |field| service.int(&["spec", field]).unwrap_or(0);
        Self {
            of: group_version(service),
            group_priority: priority("groupPriorityMinimum"),
            version_priority: priority("versionPriority"),
            available: false,
            seen: None,
            link: Link::read(service, login).map(Arc::new).map_err(Arc::from),
        }
    }

    /// Whether it is reached in the same way.
    pub(crate) fn is_reached_as(&self, other: &Self) -> bool {
        match (&self.link, &other.link) {
            (Ok(one), Ok(two)) => Arc::ptr_eq(one, two),
            _ => false,
        }
    }

    /// Whether nothing about it is different.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        let stamp = |remote: &Self| remote.seen.as_ref().map(|seen| seen.stamp.clone());
        self.is_reached_as(other) && self.available == other.available && stamp(self) == stamp(other)
    }

    /// Where discovery of it is.
    pub(super) fn path(&self) -> String {
        format!("/apis/{}", self.of)
    }
}

impl Link {
    fn read(service: &Object, login: &Pair) -> Result<Self, String> {
        let spec = service.get(&["spec"]).unwrap_or(&Value::Null);
        let target = Target::read(spec)?;
        let trust = match service.bool(&["spec", "insecureSkipTLSVerify"]) {
            Some(true) => Trust::Anybody,
            _ if target.ca.is_empty() => Trust::System,
            _ => Trust::Authorities(&target.ca),
        };
        let tls = client_config(trust, Some(login))
            .map_err(|error| format!("unable to load root certificates: caBundle: {error}"))?;
        let text = |field| service.str(&["spec", "service", field]).unwrap_or_default().to_owned();
        let port = spec.pointer("/service/port").and_then(Value::as_u64).unwrap_or(443);
        let service = Service { namespace: text("namespace"), name: text("name"), port };
        Ok(Self { target, service, tls: Arc::new(tls) })
    }

    /// The address as errors show it.
    pub(super) fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.target.authority())
    }

    /// A request to it.
    pub(super) fn forward<'a>(
        &self,
        view: &dyn View,
        method: Method,
        path: String,
        headers: &'a HeaderMap,
        added: HeaderMap,
    ) -> Result<Forward<'a>, String> {
        let name = ServerName::try_from(self.target.server_name()).map_err(|error| error.to_string())?;
        Ok(Forward {
            addresses: self.target.addresses(view)?,
            tls: Some((self.tls.clone(), name)),
            authority: self.target.authority(),
            method,
            path,
            headers,
            added,
            input: Input::empty(),
            upgrade: None,
            running: None,
            kept: true,
            limit: None,
            refusals: Refusals::Passed,
        })
    }

    /// GET as the aggregator itself.
    pub(super) async fn get(
        &self,
        forwarder: &Forwarder,
        view: &dyn View,
        path: &str,
        known: Option<&str>,
    ) -> Result<Answer, String> {
        let aggregator = User {
            name: "system:kube-aggregator".to_owned(),
            groups: vec![MASTERS.to_owned()],
            ..User::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(known) = known.and_then(|etag| HeaderValue::from_str(etag).ok()) {
            headers.insert(header::IF_NONE_MATCH, known);
        }
        let added = vouched(&aggregator).map_err(|status| status.message)?;
        let forward = self.forward(view, Method::GET, path.to_owned(), &headers, added)?;
        let answer = forwarder.forward(forward).await.map_err(|status| status.message)?;
        let code = answer.status().as_u16();
        let etag = answer.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
        let etag = etag.unwrap_or_default().to_owned();
        let read = Limited::new(answer.into_body(), DOCUMENT_BYTES_MAX).collect().await;
        let bytes = read.map_err(|error| format!("read the answer: {error}"))?.to_bytes();
        Ok(Answer { code, etag, bytes })
    }
}

/// What a client gets when there is nobody to pass its request to, as upstream.
pub(super) fn not_available() -> http::Response<Body> {
    unavailable("service unavailable")
}
