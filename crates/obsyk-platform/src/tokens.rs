//! Access tokens: opaque, in memory only. After a restart clients get new ones.

use std::collections::HashMap;

use ring::rand::{SecureRandom, SystemRandom};

/// Tokens of one client; a new one beyond that ends its oldest.
const OF_CLIENT_MAX: usize = 64;
/// Tokens of all; beyond that the one that expires first ends.
const TOKENS_MAX: usize = 100_000;

struct Token {
    client_id: String,
    expires: i64,
    /// The cluster it was first used for; it is good for no other.
    cluster: Option<String>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Tokens {
    by_text: HashMap<String, Token>,
}

impl Tokens {
    /// A new token; `None` when the system has no random bytes.
    pub(crate) fn grant(&mut self, client_id: &str, now: i64, expires_in: i64) -> Option<String> {
        let mut bytes = [0_u8; 32];
        SystemRandom::new().fill(&mut bytes).ok()?;
        let text = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        self.by_text.retain(|_, token| token.expires > now);
        let own = self.by_text.values().filter(|token| token.client_id == client_id).count();
        let end = |token: &Token| if own >= OF_CLIENT_MAX { token.client_id == client_id } else { true };
        if own >= OF_CLIENT_MAX || self.by_text.len() >= TOKENS_MAX {
            let first = self.by_text.iter().filter(|(_, token)| end(token)).min_by_key(|(_, t)| t.expires);
            if let Some(first) = first.map(|(text, _)| text.clone()) {
                self.by_text.remove(&first);
            }
        }
        let expires = now.saturating_add(expires_in);
        self.by_text.insert(text.clone(), Token { client_id: client_id.to_owned(), expires, cluster: None });
        Some(text)
    }

    /// The client of a token that is good now.
    pub(crate) fn client(&self, text: &str, now: i64) -> Option<String> {
        self.by_text.get(text).filter(|token| token.expires > now).map(|token| token.client_id.clone())
    }

    /// Binds a token to the cluster it is first used for; whether it is good for this one.
    pub(crate) fn bind(&mut self, text: &str, cluster: &str) -> bool {
        let Some(token) = self.by_text.get_mut(text) else { return false };
        token.cluster.get_or_insert_with(|| cluster.to_owned()) == cluster
    }

    /// All tokens end.
    pub(crate) fn forget(&mut self) {
        self.by_text.clear();
    }
}
