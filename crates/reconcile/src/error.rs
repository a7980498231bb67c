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
            | Self::Rejected(_)
            | Self::Panicked(_) => None,
        }
    }

    /// The error and all its causes on one line, for conditions and logs.
    pub fn text(&self) -> String {
        chain(self)
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

/// The error and all its causes on one line, for logs and conditions. Of an answer of the API server
/// only the message: its other fields say the same again.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        let boxed = cause.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed);
        if let Some(kube::Error::Api(status)) = boxed.or_else(|| cause.downcast_ref()) {
            text.push_str(&status.message);
            break;
        }
        text.push_str(&cause.to_string());
        next = cause.source();
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
}
