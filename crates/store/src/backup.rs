//! A snapshot of a store as bytes: what `load` gave, with checksums, so that damage and a missing end are
//! noticed before anything is restored. Pure.
//!
//! ```text
//! file     magic "KEELBAK1" | frame...
//! frame    length of body u32 | crc32 of body | body
//! body     1 | revision u64 | length of key u16 | key | value      an object
//!          2 | revision u64 | number of objects u64 | crc32 of all frames before     the end
//! ```
//!
//! All numbers are little endian. Values are as they are stored: encrypted ones stay so.

use std::io::{self, Read};

use bytes::{BufMut, Bytes, BytesMut};
use meta::Revision;

use crate::{BATCH_BYTES_MAX, Key, Loaded, Stored};

const MAGIC: &[u8; 8] = b"KEELBAK1";
const OBJECT: u8 = 1;
const END: u8 = 2;
/// Longest body: a value of the largest size with its key fits by far.
const BODY_MAX: usize = BATCH_BYTES_MAX;

/// Why bytes are no whole backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// They could not be read.
    #[error("read the backup")]
    Read(#[source] io::Error),
    /// They begin as no backup does.
    #[error("this is no backup of a store")]
    Foreign,
    /// They end before their end.
    #[error("the backup is not complete: it ends after {objects} objects")]
    Truncated {
        /// How many were whole.
        objects: u64,
    },
    /// They are not what was written.
    #[error("the backup is damaged after {objects} objects: {why}")]
    Damaged {
        /// How many were whole.
        objects: u64,
        /// What is wrong.
        why: &'static str,
    },
}

/// Makes the bytes.
#[derive(Debug, Default)]
pub struct Encoder {
    sum: crc32fast::Hasher,
    objects: u64,
    begun: bool,
}

impl Encoder {
    /// The bytes of the next item; [`Loaded::At`] is the last.
    pub fn encode(&mut self, item: &Loaded) -> Bytes {
        let mut body = BytesMut::new();
        match item {
            Loaded::Object(Stored { key, value, revision }) => {
                body.reserve(value.len() + key.as_str().len() + 11);
                body.put_u8(OBJECT);
                body.put_u64_le(revision.0);
                // The contract bounds keys far below this.
                body.put_u16_le(u16::try_from(key.as_str().len()).unwrap_or(u16::MAX));
                body.put_slice(key.as_str().as_bytes());
                body.put_slice(value);
                self.objects += 1;
            }
            Loaded::At(revision) => {
                body.put_u8(END);
                body.put_u64_le(revision.0);
                body.put_u64_le(self.objects);
                body.put_u32_le(self.sum.clone().finalize());
            }
        }
        let mut out = BytesMut::with_capacity(body.len() + 16);
        if !std::mem::replace(&mut self.begun, true) {
            out.put_slice(MAGIC);
        }
        let start = out.len();
        out.put_u32_le(u32::try_from(body.len()).unwrap_or(u32::MAX));
        out.put_u32_le(crc32fast::hash(&body));
        out.put_slice(&body);
        self.sum.update(out.get(start..).unwrap_or_default());
        out.freeze()
    }
}

/// Reads the bytes: an iterator over what [`Encoder::encode`] was given, which ends after [`Loaded::At`] or
/// the first error. What came before an error must not be used.
#[derive(Debug)]
pub struct Decoder<R> {
    from: R,
    sum: crc32fast::Hasher,
    objects: u64,
    begun: bool,
    ended: bool,
}

impl<R: Read> Decoder<R> {
    /// Nothing is read yet.
    pub fn new(from: R) -> Self {
        Self { from, sum: crc32fast::Hasher::new(), objects: 0, begun: false, ended: false }
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), BackupError> {
        let objects = self.objects;
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => BackupError::Truncated { objects },
            _ => BackupError::Read(error),
        })
    }

    fn read(&mut self) -> Result<Loaded, BackupError> {
        if !std::mem::replace(&mut self.begun, true) {
            let mut magic = [0; MAGIC.len()];
            match self.fill(&mut magic) {
                Ok(()) if magic == *MAGIC => {}
                Ok(()) | Err(BackupError::Truncated { .. }) => return Err(BackupError::Foreign),
                Err(error) => return Err(error),
            }
        }
        let damaged = |objects, why| BackupError::Damaged { objects, why };
        let mut header = [0; 8];
        self.fill(&mut header)?;
        let [a, b, c, d, rest @ ..] = header;
        let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if length > BODY_MAX {
            return Err(damaged(self.objects, "a length is not possible"));
        }
        let mut body = vec![0; length];
        self.fill(&mut body)?;
        if crc32fast::hash(&body) != u32::from_le_bytes(rest) {
            return Err(damaged(self.objects, "a checksum does not match"));
        }
        let before = self.sum.clone().finalize();
        self.sum.update(&header);
        self.sum.update(&body);
        let item = item(&body.into()).ok_or_else(|| damaged(self.objects, "an entry is not readable"))?;
        match item {
            Item::Object(object) => {
                self.objects += 1;
                Ok(Loaded::Object(object))
            }
            Item::End { revision, objects, sum } => {
                self.ended = true;
                if objects != self.objects || sum != before {
                    return Err(damaged(self.objects, "entries are missing or were exchanged"));
                }
                let mut more = [0];
                match self.from.read(&mut more).map_err(BackupError::Read)? {
                    0 => Ok(Loaded::At(revision)),
                    _ => Err(damaged(self.objects, "something follows its end")),
                }
            }
        }
    }
}

impl<R: Read> Iterator for Decoder<R> {
    type Item = Result<Loaded, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let item = self.read();
        self.ended |= item.is_err();
        Some(item)
    }
}

enum Item {
    Object(Stored),
    End { revision: Revision, objects: u64, sum: u32 },
}

fn item(body: &Bytes) -> Option<Item> {
    let (kind, rest) = body.split_first()?;
    let (revision, rest) = rest.split_first_chunk::<8>()?;
    let revision = Revision(u64::from_le_bytes(*revision));
    match *kind {
        OBJECT => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (key, value) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            let key = Key::parse(std::str::from_utf8(key).ok()?).ok()?;
            Some(Item::Object(Stored { key, value: body.slice_ref(value), revision }))
        }
        END => {
            let (objects, rest) = rest.split_first_chunk::<8>()?;
            let sum = u32::from_le_bytes(rest.try_into().ok()?);
            Some(Item::End { revision, objects: u64::from_le_bytes(*objects), sum })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn backup(objects: usize) -> (Vec<Loaded>, Vec<u8>) {
        let object = |at: usize| {
            let key = Key::parse(&format!("core/configmaps/default/c{at}")).unwrap();
            Loaded::Object(Stored {
                key,
                value: vec![at as u8; at * 7].into(),
                revision: Revision(at as u64 + 1),
            })
        };
        let items: Vec<Loaded> = (0..objects).map(object).chain([Loaded::At(Revision(99))]).collect();
        let mut encoder = Encoder::default();
        let bytes = items.iter().flat_map(|item| encoder.encode(item).to_vec()).collect();
        (items, bytes)
    }

    fn read(bytes: &[u8]) -> Result<Vec<Loaded>, BackupError> {
        Decoder::new(bytes).collect()
    }

    #[test]
    fn reads_back() {
        for objects in [0, 1, 20] {
            let (items, bytes) = backup(objects);
            assert_eq!(read(&bytes).unwrap(), items);
        }
        assert!(matches!(read(b""), Err(BackupError::Foreign)));
        assert!(matches!(read(b"something else"), Err(BackupError::Foreign)));
    }

    proptest! {
        #[test]
        fn no_damage_goes_unnoticed(objects in 0usize..12, at in any::<prop::sample::Index>(), flip in 1u8..) {
            let (_, bytes) = backup(objects);
            let at = at.index(bytes.len());
            let mut damaged = bytes.clone();
            damaged[at] ^= flip;
            prop_assert!(read(&damaged).is_err());
            prop_assert!(read(&bytes[..at]).is_err());
            let mut longer = bytes;
            longer.push(flip);
            prop_assert!(read(&longer).is_err());
        }
    }

    #[test]
    fn an_entry_that_was_taken_out_is_missed() {
        let (_, bytes) = backup(3);
        let first = MAGIC.len();
        let length = 8 + u32::from_le_bytes(bytes[first..first + 4].try_into().unwrap()) as usize;
        let mut without = bytes.clone();
        without.drain(first..first + length);
        assert!(matches!(read(&without), Err(BackupError::Damaged { .. })));
    }
}
