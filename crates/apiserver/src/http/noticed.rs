//! What a request is counted as.

use std::sync::{Arc, LazyLock};

use http::Method;
use meta::Status;

use super::chain::too_slow;
use crate::metrics::{Ended, Labels, Metrics};

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
