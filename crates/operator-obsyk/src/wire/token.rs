//! Access tokens: got once for all who wait, kept for four fifths of their life, so that short ones work too.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use tokio::time::Instant;

use super::batch::{has_batch, has_fence};

/// Lives longer than a day are cut to one, lest a silly number overflow the clock.
const LIFE_MAX: Duration = Duration::from_secs(86_400);

/// An access token and until when to use it.
#[derive(Clone)]
pub(super) struct Token {
    pub(super) text: Arc<str>,
    pub(super) until: Instant,
    /// The platform speaks batches.
    pub(super) batch: bool,
    /// It refuses leaders that were deposed.
    pub(super) fence: bool,
}

/// The platform's answer to an assertion. Other fields are ignored.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    expires_in: Option<i64>,
    /// What the platform can do beyond the original contract.
    #[serde(default)]
    obsyk_capabilities: String,
}

impl Token {
    /// Reads a token response that came at `now`.
    pub(super) fn granted(body: &[u8], now: Instant) -> Result<Self, &'static str> {
        let Granted { access_token, expires_in, obsyk_capabilities } =
            serde_json::from_slice(body).map_err(|_| "the platform's answer is not the JSON it should be")?;
        if access_token.is_empty() {
            return Err("the platform's answer has no access_token");
        }
        if access_token.bytes().any(|byte| !(0x21..=0x7e).contains(&byte)) {
            return Err("the access_token has characters that no header may have");
        }
        let life = Duration::from_secs(expires_in.and_then(|life| u64::try_from(life).ok()).unwrap_or(0));
        let life = life.min(LIFE_MAX);
        let (batch, fence) = (has_batch(&obsyk_capabilities), has_fence(&obsyk_capabilities));
        Ok(Self { text: access_token.into(), until: now + life * 4 / 5, batch, fence })
    }
}
