//! What a request is counted as.

use std::sync::{Arc, LazyLock};

use http::{HeaderValue, Method, Uri, header, request::Parts};
use meta::Status;

use super::{
    chain::too_slow,
    route::{Named, Route},
};
use crate::{
    metrics::{Ended, Labels, Metrics},
    trace::Value,
};

/// What is noticed of a request on its way, for its counters. One that is dropped before its answer was
/// begun has lost its client.
pub(super) struct Noticed {
    pub(super) metrics: Arc<Metrics>,
    pub(super) labels: Labels,
    pub(super) ended: Ended,
    pub(super) answered: bool,
}

impl Noticed {
    pub(super) fn new(metrics: &Arc<Metrics>, in_process: bool) -> Self {
        let labels = Labels { verb: "OTHER", ..Labels::default() };
        let ended = Ended { in_process, ..Ended::default() };
        Self { metrics: metrics.clone(), labels, ended, answered: false }
    }

    pub(super) fn is_stream(&self) -> bool {
        matches!(self.labels.verb, "WATCH" | "CONNECT")
    }

    /// 504, and that the server did it.
    pub(super) fn too_slow(&mut self) -> Status {
        self.ended.terminated = true;
        too_slow()
    }
}

impl Drop for Noticed {
    fn drop(&mut self) {
        if self.answered {
            self.metrics.requests.answered(&self.labels, &self.ended);
        } else {
            self.metrics.requests.aborted(&self.labels);
        }
    }
}

/// A method as metrics name it.
pub(super) fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "OTHER",
    }
}

/// A path that is no object as metrics name it: only those that are served everywhere have a name.
pub(super) fn path_label(path: &str) -> Arc<str> {
    static NAMED: LazyLock<[Arc<str>; 7]> = LazyLock::new(|| {
        ["/healthz", "/livez", "/readyz", "/metrics", "/version", "/openapi/v2", "/openapi/v3"].map(Arc::from)
    });
    static OTHER: LazyLock<Arc<str>> = LazyLock::new(|| Arc::from(""));
    NAMED.iter().find(|named| &***named == path).unwrap_or(&OTHER).clone()
}

/// The name of a request's span, upstream's: what was asked for without the names in it.
pub(crate) fn span_name(method: &str, path: &str) -> String {
    let Route::Resource(named) = Route::parse(path) else { return method.to_owned() };
    let Named { group, version, namespace, plural, name, subresource, tail: _, watch: _ } = named;
    let mut text = format!("{method} {}", if group.is_empty() { "/api" } else { "/apis/" });
    text.push_str(group);
    text.push_str(&format!("/{version}"));
    if !namespace.is_empty() {
        text.push_str("/namespaces/{:namespace}");
    }
    text.push_str(&format!("/{plural}"));
    if !name.is_empty() {
        text.push_str("/{:name}");
    }
    if !subresource.is_empty() {
        text.push_str(&format!("/{subresource}"));
    }
    text
}

/// What is said of a request in its span.
pub(super) fn attributes(
    parts: &Parts,
    uri: &Uri,
    audit_id: &HeaderValue,
    code: u16,
) -> Vec<(&'static str, Value)> {
    let text = |value: &HeaderValue| Value::Text(String::from_utf8_lossy(value.as_bytes()).into_owned());
    let target = uri.path_and_query().map_or(uri.path(), http::uri::PathAndQuery::as_str);
    let mut said = vec![
        ("http.request.method", Value::Text(parts.method.to_string())),
        ("url.path", Value::Text(uri.path().to_owned())),
        ("http.target", Value::Text(target.to_owned())),
        ("http.response.status_code", Value::Number(code.into())),
        ("audit-id", text(audit_id)),
    ];
    if let Some(agent) = parts.headers.get(header::USER_AGENT) {
        said.push(("user_agent.original", text(agent)));
    }
    said
}
