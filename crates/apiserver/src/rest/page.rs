//! Continue tokens and pages.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use meta::{ObjectKey, Revision, Status};
use serde::{Deserialize, Serialize};

/// The decoded form of `continue`, upstream's JSON (`storage/continue.go`).
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision the pages belong to; -1 goes on with whatever is newest.
    rv: i64,
    /// The last key of the page before: `namespace/name`.
    start: String,
}

const VERSION: &str = "meta.k8s.io/v1";

/// Where the next page starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Continue {
    /// `None` after an expired token: goes on with the newest state.
    pub(super) revision: Option<Revision>,
    pub(super) after: ObjectKey,
}

impl Continue {
    pub(super) fn encode(&self) -> String {
        let Self { revision, after } = self;
        let rv = revision.map_or(-1, |revision| i64::try_from(revision.0).unwrap_or(i64::MAX));
        let token = Token { v: VERSION.to_owned(), rv, start: format!("{}/{}", after.namespace, after.name) };
        URL_SAFE_NO_PAD.encode(serde_json::json!(token).to_string())
    }

    pub(super) fn decode(text: &str) -> Result<Self, Status> {
        let bad = |why: &str| Status::bad_request(format!("continue key is not valid: {why}"));
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| bad("not base64"))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| bad("not a token of this server"))?;
        if token.v != VERSION || token.rv == 0 {
            return Err(bad("server does not recognize this encoded version"));
        }
        let (namespace, name) = token.start.split_once('/').ok_or_else(|| bad("no start"))?;
        Ok(Self {
            revision: u64::try_from(token.rv).ok().map(Revision),
            after: ObjectKey::new(namespace, name),
        })
    }
}

/// A token that is accepted is written as one that means the same.
#[cfg(any(test, feature = "decoders"))]
pub(crate) fn decode_token(text: &str) {
    if let Ok(token) = Continue::decode(text) {
        assert_eq!(Continue::decode(&token.encode()).as_ref(), Ok(&token), "the token does not come back");
    }
}

/// 410 with a token that goes on inconsistently, in upstream's words.
pub(super) fn expired(after: ObjectKey) -> Status {
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new \
         list without the continue parameter, or use the continue token in this response to retrieve the \
         remainder of the results. Continuing with the provided token results in an inconsistent list - \
         objects that were created, modified, or deleted between the time the first chunk was returned and \
         now may show up in the list.",
    );
    status.continue_token = Some(Continue { revision: None, after }.encode().into());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_read_back_and_refuse_nonsense() {
        for revision in [Some(Revision(7)), None] {
            let token = Continue { revision, after: ObjectKey::new("", "n1") };
            assert_eq!(Continue::decode(&token.encode()).unwrap(), token);
        }
        for bad in ["", "x", "e30", "eyJ2IjoieCIsInJ2IjoxLCJzdGFydCI6ImEvYiJ9"] {
            assert_eq!(Continue::decode(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
