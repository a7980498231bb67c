//! The JWT bearer assertion of RFC 7523, signed with ES256, in the original's form: no `kid`, no `nbf`, the
//! audience a list of one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use meta::Timestamp;
use serde_json::json;

use super::Credentials;

/// How long an assertion is good for, in seconds; as the original.
const LIFETIME_SECONDS: i64 = 300;

/// A compact JWT for one exchange; `id` must be unique.
pub(crate) fn assertion(
    credentials: &Credentials,
    audience: &str,
    now: Timestamp,
    id: &str,
) -> Result<String, ring::error::Unspecified> {
    let issued = now.as_second();
    let header = json!({"alg": "ES256", "typ": "JWT"});
    let claims = json!({
        "iss": credentials.client_id, "sub": credentials.client_id, "aud": [audience],
        "iat": issued, "exp": issued.saturating_add(LIFETIME_SECONDS), "jti": id,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = credentials.sign(signed.as_bytes())?;
    Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
