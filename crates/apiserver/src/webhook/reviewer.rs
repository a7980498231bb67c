//! Reviews sent to the server that a kubeconfig names (upstream `apiserver/pkg/util/webhook`).

use std::{path::PathBuf, sync::Arc, time::Duration};

use meta::{Random, Value};

use super::{
    Target, Webhooks,
    client::{Asked, Failure},
};
use crate::pki::Pair;

/// Tries, and the wait after the first: upstream's `DefaultRetryBackoffWithInitialDelay`.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// What a kubeconfig says of the server that its current context names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` URL.
    pub url: String,
    /// Authorities, PEM; empty for those of the system.
    pub ca_pem: String,
    /// The name its certificate must have, where that is not the URL's.
    pub server_name: Option<String>,
    /// Whether any certificate is taken.
    pub insecure: bool,
    /// Client certificate.
    pub login: Option<Pair>,
    /// `Authorization` header.
    pub authorization: Authorization,
}

/// How requests say who sends them, beside a certificate.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Authorization {
    /// They do not.
    #[default]
    None,
    /// This header.
    Fixed(String),
    /// A bearer token that a file has; read for each call, as it may change.
    TokenFile(PathBuf),
}

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(_) => f.write_str("Fixed(..)"),
            Self::TokenFile(path) => f.debug_tuple("TokenFile").field(path).finish(),
        }
    }
}

/// Sends reviews to one server. Cheap to clone.
#[derive(Clone)]
pub struct Reviewer {
    client: Webhooks,
    target: Target,
    within: Duration,
    first_wait: Duration,
    random: Arc<dyn Random>,
}

impl Reviewer {
    /// A call takes `within` at most; one that fails for a reason that may pass is made up to five times, half a
    /// second after another and longer each time.
    pub fn new(
        client: Webhooks,
        endpoint: &Endpoint,
        within: Duration,
        random: Arc<dyn Random>,
    ) -> Result<Self, String> {
        let target = Target::of(endpoint)?;
        Ok(Self { client, target, within, first_wait: FIRST_WAIT, random })
    }

    /// Without waits between tries.
    #[cfg(test)]
    pub(crate) fn eager(mut self) -> Self {
        self.first_wait = Duration::ZERO;
        self
    }

    /// Waits so long after the first try.
    #[must_use]
    pub fn patient(mut self, first_wait: Duration) -> Self {
        self.first_wait = first_wait;
        self
    }

    /// The review as it was answered; what went wrong otherwise, as upstream's client words it.
    pub(crate) async fn review(&self, body: &Value) -> Result<Value, String> {
        self.send(Asked::Review, body).await
    }

    /// Sends what needs no answer but a code.
    pub(crate) async fn tell(&self, body: &Value) -> Result<(), String> {
        self.send(Asked::Events, body).await.map(drop)
    }

    async fn send(&self, asked: Asked, body: &Value) -> Result<Value, String> {
        let mut wait = self.first_wait;
        for again in (0..TRIES).rev() {
            // On the heap: every request may come to ask, and would carry the state of it.
            match Box::pin(self.client.send(&self.target, asked, body, self.within)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) if again > 0 && failure.passes() => {
                    tracing::debug!(why = failure.text(), "ask again");
                    // A fifth more or less than the wait, so that not everybody comes at once.
                    let fifth = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX) / 5;
                    tokio::time::sleep(wait + Duration::from_micros(self.random.below(fifth + 1))).await;
                    wait = wait * 3 / 2;
                }
                Err(failure) => return Err(failure.into_text()),
            }
        }
        Err("no try is left".to_owned())
    }
}

impl Failure {
    /// Whether asking again may help (upstream `webhook.DefaultShouldRetry`).
    fn passes(&self) -> bool {
        match self {
            Self::Transport(why) => why.contains("connection reset") || why.contains("connection closed"),
            Self::Status(code, _) => matches!(code.as_u16(), 429 | 500 | 503 | 504),
            Self::Answer(_) | Self::Late(_) => false,
        }
    }
}
