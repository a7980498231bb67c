//! The client's credentials: its identity and its P-256 key, from the Secret's two keys.
//!
//! Stricter in nothing and laxer in one thing than the original: the key is found behind an
//! `EC PARAMETERS` block too. A key on another curve is refused here, not at the first signature.

use std::{fmt, sync::Arc};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Who the agent is to the platform. `Debug` prints no key.
#[derive(Clone)]
pub struct Credentials {
    /// OAuth client.
    pub client_id: String,
    pair: Arc<EcdsaKeyPair>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

impl PartialEq for Credentials {
    /// The same client with the same key.
    fn eq(&self, other: &Self) -> bool {
        self.client_id == other.client_id
            && self.pair.public_key().as_ref() == other.pair.public_key().as_ref()
    }
}

/// Why a Secret is not usable as credentials. The texts are for the user.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No identity.
    #[error("key client_id is missing or empty: put the client's id from the platform there")]
    ClientId,
    /// No key.
    #[error("key private_key is missing: put the client's private key there, as PEM")]
    Missing,
    /// No authority where one should be.
    #[error("key ca.crt holds no certificate in PEM: put the platform's authority there, or leave it out")]
    Authority,
    /// Not PEM, or PEM of something else; what it is.
    #[error(
        "key private_key holds {0}: put the client's private key there, as the PEM that begins with BEGIN EC PRIVATE KEY or BEGIN PRIVATE KEY"
    )]
    Pem(&'static str),
    /// Some other key.
    #[error(
        "key private_key is not an EC key on the curve P-256: put the client's there, or make one with `openssl ecparam -name prime256v1 -genkey -noout` and register its public part with the platform"
    )]
    Curve,
}

/// The certificates of a PEM text; `None` when there are none or something in it is none.
pub(crate) fn authorities(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    read.ok().filter(|certificates| !certificates.is_empty())
}

impl Credentials {
    /// Reads the values of the Secret's keys `client_id` and `private_key`.
    pub fn parse(client_id: Option<&[u8]>, private_key: Option<&[u8]>) -> Result<Self, KeyError> {
        let text = client_id.and_then(|bytes| std::str::from_utf8(bytes).ok()).map(str::trim);
        let client_id = text.filter(|text| !text.is_empty()).ok_or(KeyError::ClientId)?;
        let pem = private_key.ok_or(KeyError::Missing)?;
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| KeyError::Pem(what_it_is(pem)))?;
        let pkcs8 = match &key {
            PrivateKeyDer::Sec1(key) => wrap(key.secret_sec1_der()).ok_or(KeyError::Curve)?,
            PrivateKeyDer::Pkcs8(key) => key.secret_pkcs8_der().to_vec(),
            _ => return Err(KeyError::Curve),
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|_| KeyError::Curve)?;
        Ok(Self { client_id: client_id.to_owned(), pair: Arc::new(pair) })
    }

    /// R and S of the signature, 32 bytes each.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, ring::error::Unspecified> {
        Ok(self.pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec())
    }

    /// The point of the public key, uncompressed: what the platform has of the client.
    pub fn public_key(&self) -> &[u8] {
        self.pair.public_key().as_ref()
    }
}

/// What somebody took for a private key.
fn what_it_is(bytes: &[u8]) -> &'static str {
    let text = String::from_utf8_lossy(bytes);
    // Any of these may stand beside the others; what is nearest to a key is named.
    let known = [
        ("ENCRYPTED", "a key that is protected by a passphrase, which `openssl pkey` takes off"),
        ("BEGIN PUBLIC KEY", "the public key, which is for the platform"),
        ("BEGIN CERTIFICATE", "a certificate"),
        // "-----BEGIN" in base64.
        ("LS0tLS1CRUdJTi", "PEM packed once more in base64, which belongs under data, not stringData"),
    ];
    known.iter().find(|(mark, _)| text.contains(mark)).map_or("no PEM block of a private key", |(_, is)| *is)
}

/// PKCS#8 around a SEC1 key (RFC 5208 around RFC 5915): version 0, ecPublicKey, prime256v1. ring reads
/// PKCS#8 only; with another curve inside it refuses the whole.
fn wrap(sec1: &[u8]) -> Option<Vec<u8>> {
    const HEAD: [u8; 24] = [
        2, 1, 0, 0x30, 0x13, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3,
        1, 7,
    ];
    let mut inner = HEAD.to_vec();
    inner.push(4);
    inner.extend(length(sec1.len())?);
    inner.extend_from_slice(sec1);
    let mut out = vec![0x30];
    out.extend(length(inner.len())?);
    out.extend(inner);
    Some(out)
}

/// A DER length below 64 KiB; keys are some hundred bytes.
fn length(length: usize) -> Option<Vec<u8>> {
    match u16::try_from(length).ok()?.to_be_bytes() {
        [0, low @ ..=0x7f] => Some(vec![low]),
        [0, low] => Some(vec![0x81, low]),
        [high, low] => Some(vec![0x82, high, low]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testkit::{p256, p384};

    #[test]
    fn reads_both_forms_and_behind_parameters() {
        let parse = |pem: &str| Credentials::parse(Some(b" client \n"), Some(pem.as_bytes()));
        let (pkcs8, sec1) = p256();
        let key = parse(&sec1).unwrap();
        assert_eq!(key.client_id, "client");
        assert_eq!(parse(&pkcs8).unwrap(), key, "one key in two forms");
        let parameters = "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n";
        assert_eq!(parse(&format!("{parameters}{sec1}")).unwrap(), key);
        assert_eq!(key.sign(b"message").unwrap().len(), 64);
        assert_eq!(parse(&p384()).unwrap_err(), KeyError::Curve);
        for (text, is) in [
            ("nonsense", "no PEM"),
            ("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "the public key"),
            (
                "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
                "a passphrase",
            ),
            ("LS0tLS1CRUdJTiBFQyBQUklWQVRFIEtFWS0tLS0t", "in base64"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(is), "{said}");
        }
        assert_eq!(Credentials::parse(Some(b" "), None).unwrap_err(), KeyError::ClientId);
        assert_eq!(Credentials::parse(Some(b"c"), None).unwrap_err(), KeyError::Missing);
        assert!(!format!("{key:?}").contains("pair"), "no key in Debug");
    }
}
