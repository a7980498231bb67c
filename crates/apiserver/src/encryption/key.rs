//! Keys and what they do to a value: the forms of upstream's providers (`apiserver/pkg/storage/value/encrypt`).

use std::fmt;

use aes::{Aes128, Aes192, Aes256};
use bytes::Bytes;
use cbc::cipher::{BlockDecryptMut as _, BlockEncryptMut as _, KeyIvInit as _, block_padding::Pkcs7};
use crypto_secretbox::{XSalsa20Poly1305, aead::Aead as _, aead::KeyInit as _};
use ring::{
    aead::{AES_128_GCM, AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom as _, SystemRandom},
};
use store::Key as Place;

const IV_LEN: usize = 16;
const BOX_NONCE_LEN: usize = 24;

/// How a key is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// AES-GCM with a random nonce of 96 bits; the place of the value is authenticated with it. A key is good for
    /// 2^32 writes; rotate long before.
    AesGcm,
    /// AES-CBC with PKCS#7. Nothing tells whether the value was changed or moved.
    AesCbc,
    /// XSalsa20 and Poly1305. A changed value does not open; one that was moved does.
    Secretbox,
}

impl Form {
    pub(super) const ALL: [Self; 3] = [Self::AesGcm, Self::AesCbc, Self::Secretbox];

    /// What a value begins with, before the name of its key and a colon.
    pub(super) const fn mark(self) -> &'static [u8] {
        match self {
            Self::AesGcm => b"k8s:enc:aesgcm:v1:",
            Self::AesCbc => b"k8s:enc:aescbc:v1:",
            Self::Secretbox => b"k8s:enc:secretbox:v1:",
        }
    }

    /// Bytes that a secret may have.
    pub(super) const fn lengths(self) -> &'static str {
        match self {
            Self::AesGcm => "16 or 32",
            Self::AesCbc => "16, 24 or 32",
            Self::Secretbox => "32",
        }
    }
}

/// A key with a name.
pub(super) struct SealingKey {
    pub(super) name: String,
    pub(super) form: Form,
    cipher: Cipher,
}

enum Cipher {
    Gcm(Box<LessSafeKey>),
    Cbc(Vec<u8>),
    Secretbox(Box<XSalsa20Poly1305>),
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealingKey")
            .field("name", &self.name)
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

impl SealingKey {
    /// `None` when the secret has not the length of such a key.
    pub(super) fn new(form: Form, name: &str, secret: &[u8]) -> Option<Self> {
        let cipher = match (form, secret.len()) {
            (Form::AesGcm, 16) => {
                Cipher::Gcm(Box::new(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, secret).ok()?)))
            }
            (Form::AesGcm, 32) => {
                Cipher::Gcm(Box::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, secret).ok()?)))
            }
            (Form::AesCbc, 16 | 24 | 32) => Cipher::Cbc(secret.to_vec()),
            (Form::Secretbox, 32) => {
                Cipher::Secretbox(Box::new(XSalsa20Poly1305::new_from_slice(secret).ok()?))
            }
            _ => return None,
        };
        Some(Self { name: name.to_owned(), form, cipher })
    }

    /// The value as it is stored at `place`; `None` when the system has no random numbers.
    pub(super) fn seal(&self, place: &Place, value: &[u8], random: &SystemRandom) -> Option<Bytes> {
        let head = [self.form.mark(), self.name.as_bytes(), b":"].concat();
        let sealed = match &self.cipher {
            Cipher::Gcm(key) => {
                let nonce: [u8; NONCE_LEN] = fresh(random)?;
                let mut body = value.to_vec();
                let aad = Aad::from(place.as_str().as_bytes());
                let unique = Nonce::assume_unique_for_key(nonce);
                let tag = key.seal_in_place_separate_tag(unique, aad, &mut body).ok()?;
                [&head[..], &nonce, &body, tag.as_ref()].concat()
            }
            Cipher::Cbc(secret) => {
                let iv: [u8; IV_LEN] = fresh(random)?;
                let body = match secret.len() {
                    16 => cbc::Encryptor::<Aes128>::new_from_slices(secret, &iv)
                        .ok()?
                        .encrypt_padded_vec_mut::<Pkcs7>(value),
                    24 => cbc::Encryptor::<Aes192>::new_from_slices(secret, &iv)
                        .ok()?
                        .encrypt_padded_vec_mut::<Pkcs7>(value),
                    _ => cbc::Encryptor::<Aes256>::new_from_slices(secret, &iv)
                        .ok()?
                        .encrypt_padded_vec_mut::<Pkcs7>(value),
                };
                [&head[..], &iv, &body].concat()
            }
            Cipher::Secretbox(key) => {
                let nonce: [u8; BOX_NONCE_LEN] = fresh(random)?;
                let body = key.encrypt((&nonce).into(), value).ok()?;
                [&head[..], &nonce, &body].concat()
            }
        };
        Some(Bytes::from(sealed))
    }

    /// The plain value of what comes behind the name; `None` when the key is another or the value was changed.
    pub(super) fn open(&self, place: &Place, sealed: &[u8]) -> Option<Bytes> {
        match &self.cipher {
            Cipher::Gcm(key) => {
                let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
                let mut body = body.to_vec();
                let aad = Aad::from(place.as_str().as_bytes());
                let opened = key.open_in_place(Nonce::assume_unique_for_key(*nonce), aad, &mut body).ok()?;
                let length = opened.len();
                body.truncate(length);
                Some(Bytes::from(body))
            }
            Cipher::Cbc(secret) => {
                let (iv, body) = sealed.split_first_chunk::<IV_LEN>()?;
                let opened = match secret.len() {
                    16 => cbc::Decryptor::<Aes128>::new_from_slices(secret, iv)
                        .ok()?
                        .decrypt_padded_vec_mut::<Pkcs7>(body),
                    24 => cbc::Decryptor::<Aes192>::new_from_slices(secret, iv)
                        .ok()?
                        .decrypt_padded_vec_mut::<Pkcs7>(body),
                    _ => cbc::Decryptor::<Aes256>::new_from_slices(secret, iv)
                        .ok()?
                        .decrypt_padded_vec_mut::<Pkcs7>(body),
                };
                opened.ok().map(Bytes::from)
            }
            Cipher::Secretbox(key) => {
                let (nonce, body) = sealed.split_first_chunk::<BOX_NONCE_LEN>()?;
                key.decrypt(nonce.into(), body).ok().map(Bytes::from)
            }
        }
    }
}

pub(super) fn fresh<const N: usize>(random: &SystemRandom) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    random.fill(&mut bytes).ok().map(|()| bytes)
}
