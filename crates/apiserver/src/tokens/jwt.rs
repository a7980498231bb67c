//! Compact JWS with ES256 (RFC 7515, RFC 7518 section 3.4), and its public keys as a JWK set.
//!
//! Guarantees: only `alg: ES256` is accepted, and only from keys this signer knows. Does not know what a
//! claim means. Written here because the maintained JWT crates bring a second cryptography library beside
//! ring, which TLS already uses.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use rcgen::PublicKeyData as _;
use ring::{
    digest,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey},
};
use serde_json::{Value, json};

/// Longest token that is looked at; a bound token has about 1 KiB.
const TOKEN_BYTES_MAX: usize = 16 << 10;

/// Why a token could not be made or read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtError {
    /// The PEM holds no P-256 private key.
    #[error("the signing key is not a PKCS#8 private key on the P-256 curve")]
    Key,
    /// Signing failed.
    #[error("sign token")]
    Sign,
    /// Not three base64url parts with JSON in the first two.
    #[error("token is not a compact JWS")]
    Malformed,
    /// Another algorithm or an unknown key.
    #[error("token is signed with another key or algorithm")]
    Foreign,
    /// The signature does not fit.
    #[error("token signature is wrong")]
    Signature,
}

/// Signs with one key and verifies what it signed.
pub struct Signer {
    key: EcdsaKeyPair,
    public: Vec<u8>,
    kid: String,
    random: SystemRandom,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signer({})", self.kid)
    }
}

impl Signer {
    /// A signer from a PKCS#8 PEM key. The key id is upstream's: the hash of the public key's SPKI form.
    pub fn from_pem(pem: &str) -> Result<Self, JwtError> {
        let pair = rcgen::KeyPair::from_pem(pem).map_err(|_| JwtError::Key)?;
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &random)
            .map_err(|_| JwtError::Key)?;
        let kid = BASE64.encode(digest::digest(&digest::SHA256, &pair.subject_public_key_info()));
        Ok(Self { key, public: pair.public_key_raw().to_vec(), kid, random })
    }

    /// The token for these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, JwtError> {
        let header = json!({ "alg": "ES256", "kid": self.kid });
        let mut token =
            format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, token.as_bytes()).map_err(|_| JwtError::Sign)?;
        token.push('.');
        token.push_str(&BASE64.encode(signature));
        Ok(token)
    }

    /// The claims of a token whose signature fits. Does not look at them.
    pub fn verify(&self, token: &str) -> Result<Value, JwtError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
        let header = decode(header)?;
        if header.get("alg").and_then(Value::as_str) != Some("ES256")
            || header.get("kid").and_then(Value::as_str).is_some_and(|kid| kid != self.kid)
        {
            return Err(JwtError::Foreign);
        }
        let signature = BASE64.decode(signature).map_err(|_| JwtError::Malformed)?;
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| JwtError::Signature)?;
        decode(claims)
    }

    /// `/openid/v1/jwks`.
    pub fn jwks(&self) -> Value {
        // An uncompressed point: 0x04, x, y.
        let coordinates = self.public.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at_checked(32).unwrap_or_default();
        json!({ "keys": [{
            "use": "sig", "kty": "EC", "kid": self.kid, "crv": "P-256", "alg": "ES256",
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        }] })
    }
}

fn decode(part: &str) -> Result<Value, JwtError> {
    let bytes = BASE64.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_its_own_and_nothing_else() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let signer = Signer::from_pem(&pem).unwrap();
        let claims = json!({ "sub": "system:serviceaccount:a:b", "exp": 7 });
        let token = signer.sign(&claims).unwrap();
        assert_eq!(signer.verify(&token), Ok(claims));

        let other = Signer::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert_eq!(other.verify(&token), Err(JwtError::Foreign));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", BASE64.encode(r#"{"sub":"admin"}"#));
        assert_eq!(signer.verify(&forged), Err(JwtError::Signature));
        let none = format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), BASE64.encode("{}"));
        assert_eq!(signer.verify(&none), Err(JwtError::Foreign));
        for malformed in ["", "a", "a.b", "a.b.c", "...", &"x".repeat(20_000)] {
            assert_eq!(signer.verify(malformed), Err(JwtError::Malformed), "{malformed:.20}");
        }
    }

    #[test]
    fn publishes_the_point_it_signs_with() {
        let signer = Signer::from_pem(&rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
        let set = signer.jwks();
        for coordinate in ["x", "y"] {
            let text = set["keys"][0][coordinate].as_str().unwrap();
            assert_eq!(BASE64.decode(text).unwrap().len(), 32);
        }
        assert!(Signer::from_pem("nonsense").is_err());
    }
}
