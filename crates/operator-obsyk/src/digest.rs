//! Digests by which both ends see that they have the same, without sending it: the hash of an object's bytes
//! as sent, and for sets of objects how many there are and the exclusive or of their digests, so that one
//! object more or less is one step. Sets are the kinds, and of each kind 256 buckets by the uid.

use std::collections::HashMap;

use ring::digest::{Context, SHA256, digest};

use crate::{Kind, project::Id};

/// Hash of an object's bytes: the first eight of SHA-256, big-endian.
pub(crate) fn hash(body: &[u8]) -> u64 {
    first(digest(&SHA256, body).as_ref())
}

/// SHA-256 in hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn first(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
}

/// How many objects a set has, and the exclusive or of their digests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) count: u64,
    pub(crate) xor: u64,
}

impl Tally {
    /// Adds one object: its digest is that of its uid, a zero byte, and its hash.
    pub(crate) fn add(&mut self, uid: &str, hash: u64) {
        let mut context = Context::new(&SHA256);
        context.update(uid.as_bytes());
        context.update(&[0]);
        context.update(&hash.to_be_bytes());
        self.count += 1;
        self.xor ^= first(context.finish().as_ref());
    }

    /// The exclusive or as it is written on the wire.
    pub(crate) fn text(&self) -> String {
        format!("{:016x}", self.xor)
    }
}

/// The buckets of all kinds; an absent one is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buckets(HashMap<(Kind, u8), Tally>);

impl Buckets {
    /// The bucket of an object: the first byte of SHA-256 of its uid.
    pub(crate) fn of(uid: &str) -> u8 {
        digest(&SHA256, uid.as_bytes()).as_ref().first().copied().unwrap_or_default()
    }

    pub(crate) fn add(&mut self, id: &Id, hash: u64) {
        self.0.entry((id.kind, Self::of(&id.uid))).or_default().add(&id.uid, hash);
    }

    /// One bucket as the platform tells it.
    pub(crate) fn set(&mut self, kind: Kind, bucket: u8, tally: Tally) {
        self.0.insert((kind, bucket), tally);
    }

    /// The buckets of a kind in which two differ.
    pub(crate) fn differing(&self, other: &Self, kind: Kind) -> Vec<u8> {
        let of = |buckets: &Self, bucket| buckets.0.get(&(kind, bucket)).copied().unwrap_or_default();
        (0..=u8::MAX).filter(|bucket| of(self, *bucket) != of(other, *bucket)).collect()
    }
}
