//! Digests by which agent and platform see whether they have the same.
//!
//! The hash of an object is the first eight bytes of SHA-256 of its JSON as received, big-endian; its digest
//! those of SHA-256 of uid, a zero byte and that hash; a set's is the exclusive or. The bucket of an object
//! is the first byte of SHA-256 of its uid.

use ring::digest::{SHA256, digest};

/// Of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) bucket: u8,
    pub(crate) value: u64,
}

fn head(bytes: &[u8]) -> u64 {
    let sum = digest(&SHA256, bytes);
    let mut head = [0; 8];
    for (to, from) in head.iter_mut().zip(sum.as_ref()) {
        *to = *from;
    }
    u64::from_be_bytes(head)
}

/// The digest of an object.
pub(crate) fn of(uid: &str, object: &[u8]) -> Digest {
    let mut text = uid.as_bytes().to_vec();
    text.push(0);
    text.extend_from_slice(&head(object).to_be_bytes());
    let [bucket, ..] = head(uid.as_bytes()).to_be_bytes();
    Digest { bucket, value: head(&text) }
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
