//! Service-account tokens: issued bound to an object, checked against what that object is now.
//!
//! Guarantees: a token stops working when it expires, when its ServiceAccount or the object it is bound to
//! is gone or was made anew, and for audiences it does not name. Claims are upstream's
//! (`pkg/serviceaccount/claims.go`). Does not know HTTP.

mod jwt;
pub mod legacy;
mod request;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
};

use meta::{GroupResource, ObjectKey, Timestamp};
use resource::{User, View};
use serde_json::{Value, json};
use tokio::sync::mpsc;

pub use jwt::{JwtError, Signer};
pub use request::TokenRequest;

/// Verified signatures remembered, so that a busy client costs one ECDSA verification, not one a request.
/// A kubelet's worth of pods per server several times over; when full, all are forgotten.
const REMEMBERED_MAX: usize = 4096;
/// How long after its deletion began an object still holds its tokens (upstream `jwt.DefaultLeeway`, so
/// that pods can finish).
const DELETION_LEEWAY_SECONDS: i64 = 60;

/// Why a bearer token is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token itself.
    #[error(transparent)]
    Jwt(#[from] JwtError),
    /// A claim is missing or of the wrong type.
    #[error("token has no usable claim {0}")]
    Claim(&'static str),
    /// Before `nbf` or after `exp`.
    #[error("token has expired or is not valid yet")]
    Time,
    /// For nobody here.
    #[error("token audiences {found:?} are none of {wanted:?}")]
    Audience {
        /// In the token.
        found: Vec<String>,
        /// Accepted here.
        wanted: Vec<String>,
    },
    /// What it is bound to is gone or was made anew.
    #[error("token is bound to {kind} {name} which is gone or another one now")]
    Unbound {
        /// Kind.
        kind: &'static str,
        /// Name.
        name: String,
    },
    /// It stands in a Secret that was marked, as nobody had used it for long.
    #[error(
        "the token in secret {name} has been marked invalid; use one of TokenRequest, or take the label \
         kubernetes.io/legacy-token-invalid-since off the secret"
    )]
    Invalidated {
        /// Of the Secret.
        name: String,
    },
}

/// An object a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// What a token is to say.
#[derive(Clone, Debug, Default)]
pub struct Grant {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Name of the ServiceAccount.
    pub account: String,
    /// UID of the ServiceAccount.
    pub account_uid: String,
    /// Audiences; empty for the API server's own.
    pub audiences: Vec<String>,
    /// Validity.
    pub seconds: i64,
    /// Pod it is bound to.
    pub pod: Option<Bound>,
    /// Secret it is bound to.
    pub secret: Option<Bound>,
    /// Node it is bound to, or on which its pod runs.
    pub node: Option<Bound>,
    /// Unique id of the token (`jti`).
    pub id: String,
}

/// An accepted token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who.
    pub user: User,
    /// Audiences of the token that were asked for.
    pub audiences: Vec<String>,
}

/// Issues and checks service-account tokens.
#[derive(Debug)]
pub struct Tokens {
    signer: Signer,
    issuer: String,
    audiences: Vec<String>,
    verified: Mutex<HashMap<Box<str>, Arc<Value>>>,
    /// Where uses of tokens of Secrets are told of.
    used: Option<mpsc::Sender<ObjectKey>>,
}

impl Tokens {
    /// `issuer` is the URL in `iss` and of the discovery document; it is the API server's audience too.
    pub fn new(signer: Signer, issuer: &str) -> Self {
        Self {
            signer,
            issuer: issuer.to_owned(),
            audiences: vec![issuer.to_owned()],
            verified: Mutex::default(),
            used: None,
        }
    }

    /// Tells of uses of tokens that stand in Secrets, for [`legacy::run`].
    #[must_use]
    pub fn telling(mut self, used: mpsc::Sender<ObjectKey>) -> Self {
        self.used = Some(used);
        self
    }

    /// Audiences that this API server answers to.
    pub fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// Whether the token claims to be from this issuer; decided without trust, to choose an authenticator.
    pub fn issued(&self, token: &str) -> bool {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims: Option<Value> = claims.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        claims.as_ref().and_then(|c| c.get("iss")).and_then(Value::as_str) == Some(&self.issuer)
    }

    /// A token for this grant, valid from `now`.
    pub fn issue(&self, grant: &Grant, now: Timestamp) -> Result<String, JwtError> {
        let Grant { namespace, account, account_uid, audiences, seconds, pod, secret, node, id } = grant;
        let audiences = if audiences.is_empty() { &self.audiences } else { audiences };
        let mut kubernetes = json!({
            "namespace": namespace,
            "serviceaccount": { "name": account, "uid": account_uid },
        });
        for (kind, bound) in [("pod", pod), ("secret", secret), ("node", node)] {
            if let (Some(Bound { name, uid }), Some(map)) = (bound, kubernetes.as_object_mut()) {
                map.insert(kind.to_owned(), json!({ "name": name, "uid": uid }));
            }
        }
        let issued = now.as_second();
        self.signer.sign(&json!({
            "iss": self.issuer, "sub": format!("system:serviceaccount:{namespace}:{account}"),
            "aud": audiences, "iat": issued, "nbf": issued, "exp": issued.saturating_add(*seconds),
            "jti": id, "kubernetes.io": kubernetes,
        }))
    }

    /// Accepts a token for one of `audiences` (empty: this server's own).
    pub fn verify(
        &self,
        token: &str,
        audiences: &[String],
        now: Timestamp,
        view: &dyn View,
    ) -> Result<Accepted, TokenError> {
        let claims = self.claims(token)?;
        let int = |key: &'static str| claims.get(key).and_then(Value::as_i64).ok_or(TokenError::Claim(key));
        if claims.get("iss").and_then(Value::as_str) != Some(&self.issuer) {
            return Err(TokenError::Claim("iss"));
        }
        if now.as_second() >= int("exp")? || now.as_second() < int("nbf")? {
            return Err(TokenError::Time);
        }
        let wanted = if audiences.is_empty() { &self.audiences } else { audiences };
        let found = strings(claims.get("aud"));
        let common: Vec<String> = wanted.iter().filter(|a| found.contains(a)).cloned().collect();
        if common.is_empty() {
            return Err(TokenError::Audience { found, wanted: wanted.to_vec() });
        }
        Ok(Accepted { user: user_of(&claims, now, view, self.used.as_ref())?, audiences: common })
    }

    fn claims(&self, token: &str) -> Result<Arc<Value>, JwtError> {
        let remembered = |cache: &Mutex<HashMap<Box<str>, Arc<Value>>>| {
            cache.lock().unwrap_or_else(PoisonError::into_inner).get(token).cloned()
        };
        if let Some(claims) = remembered(&self.verified) {
            return Ok(claims);
        }
        let claims = Arc::new(self.signer.verify(token)?);
        let mut cache = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= REMEMBERED_MAX {
            cache.clear();
        }
        cache.insert(token.into(), claims.clone());
        Ok(claims)
    }

    /// `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> Value {
        json!({
            "issuer": self.issuer,
            "jwks_uri": format!("{}/openid/v1/jwks", self.issuer.trim_end_matches('/')),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        self.signer.jwks()
    }
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// The user, after every object that the claims name was found to be still the same one.
fn user_of(
    claims: &Value,
    now: Timestamp,
    view: &dyn View,
    used: Option<&mpsc::Sender<ObjectKey>>,
) -> Result<User, TokenError> {
    let kubernetes = claims.get("kubernetes.io").ok_or(TokenError::Claim("kubernetes.io"))?;
    let text = |path: &str| kubernetes.pointer(path).and_then(Value::as_str);
    let namespace = text("/namespace").ok_or(TokenError::Claim("namespace"))?;
    let account = text("/serviceaccount/name").ok_or(TokenError::Claim("serviceaccount"))?;
    let uid = text("/serviceaccount/uid").ok_or(TokenError::Claim("serviceaccount"))?;
    alive(view, now, "serviceaccounts", "serviceaccount", namespace, account, uid)?;

    let mut extra = BTreeMap::new();
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        extra.insert("authentication.kubernetes.io/credential-id".to_owned(), vec![format!("JTI={id}")]);
    }
    let pod = text("/pod/name").zip(text("/pod/uid"));
    if let Some((name, uid)) = pod {
        alive(view, now, "pods", "pod", namespace, name, uid)?;
        extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![name.to_owned()]);
        extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![uid.to_owned()]);
    }
    if let Some((name, uid)) = text("/secret/name").zip(text("/secret/uid")) {
        alive(view, now, "secrets", "secret", namespace, name, uid)?;
        legacy::look(view, now, &ObjectKey::new(namespace, name), used)?;
    }
    if let Some((name, uid)) = text("/node/name").zip(text("/node/uid")) {
        // With a pod, the node is only told where the pod ran; the pod is what the token is bound to.
        if pod.is_none() {
            alive(view, now, "nodes", "node", "", name, uid)?;
        }
        extra.insert("authentication.kubernetes.io/node-name".to_owned(), vec![name.to_owned()]);
        extra.insert("authentication.kubernetes.io/node-uid".to_owned(), vec![uid.to_owned()]);
    }
    Ok(User {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
            "system:authenticated".to_owned(),
        ],
        extra,
    })
}

fn alive(
    view: &dyn View,
    now: Timestamp,
    plural: &str,
    kind: &'static str,
    namespace: &str,
    name: &str,
    uid: &str,
) -> Result<(), TokenError> {
    let gone = || TokenError::Unbound { kind, name: name.to_owned() };
    let entry = view.get(&GroupResource::new("", plural), namespace, name).ok_or_else(gone)?;
    if entry.header.uid != uid {
        return Err(gone());
    }
    if entry.header.deleting {
        let object = entry.object().map_err(|_| gone())?;
        let since = object.str(&["metadata", "deletionTimestamp"]).and_then(|t| t.parse::<Timestamp>().ok());
        let since = since.ok_or_else(gone)?;
        if now.as_second() > since.as_second().saturating_add(DELETION_LEEWAY_SECONDS) {
            return Err(gone());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
