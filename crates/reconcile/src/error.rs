//! Why a reconciliation failed, by the step that failed.

use meta::ObjectKey;

use crate::Kind;

/// `std::result::Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed reconciliation. All but [`Error::Rejected`] are retried with backoff.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read (get, list, discovery) failed.
    #[error("cannot read {what}")]
    Read {
        /// What was read.
        what: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// A write failed.
    #[error("cannot {verb} {kind} {key}")]
    Write {
        /// `create`, `apply`, `patch`, `post` or `delete`.
        verb: &'static str,
        /// Plural and group of the object.
        kind: String,
        /// Which object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The body of a request could not be encoded.
    #[error("cannot encode {what}")]
    Encode {
        /// What was encoded.
        what: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A request could not be built.
    #[error("cannot build the request to {verb} {key}")]
    Request {
        /// The verb.
        verb: &'static str,
        /// Which object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: Box<kube::core::request::Error>,
    },
    /// An effect failed.
    #[error("{effect} failed")]
    Effect {
        /// [`crate::Effect::name`].
        effect: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Something that is on its way as a rule is not there yet. Tried again as after any failure, and told of only when
    /// it is missing for long.
    #[error("{0}")]
    NotYet(String),
    /// The object cannot be reconciled until it changes; not retried.
    #[error("{0}")]
    Rejected(String),
    /// The task that ran the reconciliation panicked: a bug in `plan` or `observe`.
    #[error("reconciliation stopped unexpectedly: {0}")]
    Panicked(String),
}

impl Error {
    /// A failed read of `what`.
    pub fn read(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Read { what, source: Box::new(source) }
    }

    /// A failed write of one object.
    pub fn write(
        verb: &'static str,
        kind: &Kind,
        key: &ObjectKey,
    ) -> impl FnOnce(kube::Error) -> Self + use<> {
        let (kind, key) = (kind.to_string(), key.clone());
        move |source| Self::Write { verb, kind, key, source: Box::new(source) }
    }

    /// Whether trying again with nothing changed cannot help.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Rejected(_)) || self.is_namespace_terminating()
    }

    /// Whether the write was refused because its namespace is going away: so will be what wanted it.
    pub fn is_namespace_terminating(&self) -> bool {
        let causes = self.status().and_then(|status| status.details.as_ref()).map(|details| &details.causes);
        causes.is_some_and(|causes| causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    }

    /// The server's status, when the server answered with one.
    pub fn status(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Read { source, .. } | Self::Write { source, .. } => match &**source {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Encode { .. }
            | Self::Request { .. }
            | Self::Effect { .. }
            | Self::NotYet(_)
            | Self::Rejected(_)
            | Self::Panicked(_) => None,
        }
    }

    /// The error and all its causes on one line, for conditions and logs.
    pub fn text(&self) -> String {
        text(self)
    }

    /// Whether the server said 404.
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Whether the server said 409: somebody wrote first, the next plan sees it.
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|status| status.code == 409)
    }
}

/// The message of an answer of the API server, where the error is one: its other fields say the same again.
pub fn answer<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a str> {
    match kube_error(error) {
        Some(kube::Error::Api(status)) => Some(&status.message),
        _ => None,
    }
}

fn kube_error<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a kube::Error> {
    let boxed = error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed);
    boxed.or_else(|| error.downcast_ref())
}

/// The error and all its causes on one line, for logs and conditions; of an answer of the API server see [`answer`].
pub fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let answer = answer(cause);
        next = cause.source().filter(|_| answer.is_none());
        let this = answer.map_or_else(|| cause.to_string(), str::to_owned);
        // Some libraries repeat their source in their own text; it is told in its turn.
        let source = next.map(ToString::to_string).unwrap_or_default();
        if matches!(kube_error(cause), Some(kube::Error::Service(_) | kube::Error::HyperError(_))) {
            // They say no more than that somebody else failed.
            continue;
        }
        let this = this.strip_suffix(&source).unwrap_or(&this).trim_end_matches([':', ' ']);
        if !this.is_empty() {
            text.extend((!text.is_empty()).then_some(": "));
            text.push_str(this);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_by_its_message_alone() {
        let status = kube::core::Status::failure("pods \"a\" is forbidden: no", "Forbidden").with_code(403);
        let source = kube::Error::Api(Box::new(status));
        let kind = Kind::new("", "v1", "Pod", "pods");
        let error = Error::write("create", &kind, &ObjectKey::new("ns", "a"))(source);
        assert_eq!(error.text(), "cannot create pods ns/a: pods \"a\" is forbidden: no");
        assert!(!error.is_terminal());
    }

    #[test]
    fn a_cause_is_told_once_whatever_libraries_do() {
        let status = kube::core::Status::failure("no such thing", "NotFound").with_code(404);
        let inner = Box::new(kube::Error::Api(Box::new(status)));
        let watch = kube::runtime::watcher::Error::InitialListFailed(*inner);
        assert_eq!(text(&watch), "failed to perform initial object list: no such thing");
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "nobody there");
        let service = kube::Error::Service(Box::new(refused));
        assert_eq!(text(&service), "nobody there");
    }
}
