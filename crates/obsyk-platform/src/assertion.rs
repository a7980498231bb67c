//! The JWT bearer assertion of RFC 7523, checked in full.
//!
//! Only ES256 with a key that was registered: a header that names another algorithm, or brings or points to
//! a key, is refused before anything is verified. What is wrong is said in a word that helps and gives
//! nothing away.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{answer::Refused, clients::Clients};

/// RFC 7523 section 2.1.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
/// Longest life of an assertion.
const LIFE_MAX_SECONDS: i64 = 300;
/// How far ahead the client's clock may be.
const SKEW_MAX_SECONDS: i64 = 60;
/// R and S, 32 bytes each; the DER form has another length.
const SIGNATURE_BYTES: usize = 64;
/// Longest identity of an assertion.
const ID_BYTES_MAX: usize = 256;

/// What a good assertion says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asserted {
    pub(crate) client_id: String,
    /// To be seen once only until `expires`.
    pub(crate) id: String,
    pub(crate) expires: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    iat: i64,
    exp: i64,
    jti: String,
    #[serde(default)]
    nbf: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

/// Checks the form of a token request and the assertion in it, all but that it was not seen before.
pub(crate) fn check(
    form: &[u8],
    content_type: &str,
    url: &str,
    clients: &Clients,
    now: i64,
) -> Result<Asserted, Refused> {
    let media = content_type.split(';').next().unwrap_or_default().trim();
    if media != "application/x-www-form-urlencoded" {
        let why = "the body has to be application/x-www-form-urlencoded";
        return Err(Refused::new(400, "invalid_request", why));
    }
    let mut fields = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(form).into_owned() {
        if fields.insert(name, value).is_some() {
            return Err(Refused::new(400, "invalid_request", "a parameter is given twice"));
        }
    }
    if fields.get("grant_type").map(String::as_str) != Some(GRANT_TYPE) {
        return Err(Refused::new(
            400,
            "unsupported_grant_type",
            format!("grant_type has to be {GRANT_TYPE}"),
        ));
    }
    let Some(assertion) = fields.get("assertion") else {
        return Err(Refused::new(400, "invalid_request", "there is no assertion"));
    };
    let claims = verify(assertion, clients)?;
    let Claims { iss, sub, aud, iat, exp, jti, nbf } = claims;
    let grant = |why: &str| Err(Refused::new(400, "invalid_grant", why));
    let meant = match &aud {
        Audience::One(one) => one == url,
        Audience::Many(many) => many.iter().any(|one| one == url),
    };
    if sub != iss {
        return grant("sub is not iss");
    }
    if !meant {
        return Err(Refused::new(
            400,
            "invalid_grant",
            format!("aud is not {url}: that is what spec.platformURL has to be"),
        ));
    }
    if exp <= now {
        return grant("the assertion has expired: is the client's clock right?");
    }
    if iat > now + SKEW_MAX_SECONDS || nbf.is_some_and(|from| from > now + SKEW_MAX_SECONDS) {
        return grant("the assertion is from the future: is the client's clock right?");
    }
    if exp.saturating_sub(iat) > LIFE_MAX_SECONDS || exp < iat {
        return grant("exp is more than 300 s after iat");
    }
    if jti.is_empty() || jti.len() > ID_BYTES_MAX {
        return grant("jti is empty or too long");
    }
    Ok(Asserted { client_id: iss, id: jti, expires: exp })
}

/// Reads the three parts and verifies the signature with a key of the client that `iss` names.
fn verify(assertion: &str, clients: &Clients) -> Result<Claims, Refused> {
    let grant = |why: &str| Refused::new(400, "invalid_grant", why);
    let malformed = || grant("the assertion is no compact JWT");
    let (signed, signature) = assertion.rsplit_once('.').ok_or_else(malformed)?;
    let (header, claims) = signed.split_once('.').filter(|(_, c)| !c.contains('.')).ok_or_else(malformed)?;
    let header: BTreeMap<String, Value> = part(header).ok_or_else(malformed)?;
    if header.get("alg").and_then(Value::as_str) != Some("ES256") {
        return Err(grant("alg has to be ES256"));
    }
    if header.keys().any(|key| !matches!(key.as_str(), "alg" | "typ" | "kid")) {
        return Err(grant("the header has a field other than alg, typ and kid"));
    }
    let claims: Claims = part(claims).ok_or_else(|| grant("a claim is missing or of the wrong type"))?;
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| malformed())?;
    if signature.len() != SIGNATURE_BYTES {
        return Err(grant("the signature has to be 64 bytes, R and S"));
    }
    // One answer for unknown, revoked and wrong key: it does not tell which clients there are.
    let unknown = || Refused::new(400, "invalid_client", "client unknown or revoked, or not its key");
    if !clients.is_active(&claims.iss) {
        return Err(unknown());
    }
    let points = clients.points(&claims.iss);
    let verified = points.iter().any(|point| {
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed.as_bytes(), &signature).is_ok()
    });
    if verified { Ok(claims) } else { Err(unknown()) }
}

fn part<T: DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}
