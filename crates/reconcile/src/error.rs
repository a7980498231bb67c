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
        matches!(self, Self::Rejected(_))
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

/// The error and all its sources on one line, for logs and conditions.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
