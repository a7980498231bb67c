//! The bytes of a segment: a header, then frames, each with checksums of its own. Pure.
//!
//! ```text
//! segment  magic "KEELSEG1" | sequence u64 | base revision u64 | zero u32 | crc32 of these 28 bytes
//! frame    length of body u32 | kind u32 | crc32 of body | crc32 of these 12 bytes | body
//! body     record...
//! record   revision u64 | length of value u32, all ones for a delete | length of key u16 | key | value
//! ```
//!
//! All numbers are little endian. A frame is the unit of atomicity: it counts whole or not at all.

use meta::Revision;
use store::{Change, Key};

/// Length of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 32;
/// Length of a frame's header.
pub(crate) const FRAME_HEADER: usize = 16;
/// Length of a record without key and value.
const RECORD_HEADER: usize = 14;
/// In place of a value's length: the key was deleted.
const DELETED: u32 = u32::MAX;
const MAGIC: &[u8; 8] = b"KEELSEG1";

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Committed changes, at contiguous revisions: history.
    Batch,
    /// Live objects copied from an old segment, at the revisions they have: not history.
    Moved,
}

impl Kind {
    fn code(self) -> u32 {
        match self {
            Self::Batch => 1,
            Self::Moved => 2,
        }
    }

    fn from_code(code: u32) -> Option<Self> {
        match code {
            1 => Some(Self::Batch),
            2 => Some(Self::Moved),
            _ => None,
        }
    }
}

/// The header of a segment whose first change is the one after `base`.
pub(crate) fn encode_segment_header(sequence: u64, base: Revision) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER);
    out.extend(MAGIC);
    out.extend(sequence.to_le_bytes());
    out.extend(base.0.to_le_bytes());
    out.extend([0; 4]);
    out.extend(crc32fast::hash(&out).to_le_bytes());
    out
}

/// Sequence and base revision, if the header is whole.
pub(crate) fn decode_segment_header(header: &[u8; SEGMENT_HEADER]) -> Option<(u64, Revision)> {
    let (checked, crc) = header.split_last_chunk::<4>()?;
    let mut input = Input(checked);
    let magic = input.take(MAGIC.len())?;
    let (sequence, base) = (input.u64()?, input.u64()?);
    let whole = magic == MAGIC && crc32fast::hash(checked) == u32::from_le_bytes(*crc);
    whole.then_some((sequence, Revision(base)))
}

/// A frame's header, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) length: usize,
    pub(crate) kind: Kind,
    body_crc: u32,
}

impl FrameHeader {
    /// Reads a header; `None` when it is not what was written.
    pub(crate) fn decode(header: &[u8]) -> Option<Self> {
        let (checked, crc) = header.split_last_chunk::<4>()?;
        let mut input = Input(checked);
        let (length, kind, body_crc) = (input.u32()?, input.u32()?, input.u32()?);
        if !input.0.is_empty() || crc32fast::hash(checked) != u32::from_le_bytes(*crc) {
            return None;
        }
        Some(Self { length: usize::try_from(length).ok()?, kind: Kind::from_code(kind)?, body_crc })
    }

    /// Whether `body` is what this header was written for.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() == self.length && crc32fast::hash(body) == self.body_crc
    }
}

/// A frame in the making; reused from one to the next.
#[derive(Debug, Default)]
pub(crate) struct FrameBuilder {
    bytes: Vec<u8>,
}

/// Where in a frame a record is, counted from the first byte of the frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) offset: u64,
    pub(crate) length: u32,
}

impl FrameBuilder {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        // A single huge batch must not hold its memory for ever.
        self.bytes.shrink_to(4 << 20);
        self.bytes.extend([0; FRAME_HEADER]);
    }

    /// Whether no record was pushed.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.len() <= FRAME_HEADER
    }

    /// Length so far, header included.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Adds a change. The contract's bounds on keys and values were checked by `store::plan`.
    pub(crate) fn push(&mut self, change: &Change) -> Span {
        let Change { revision, key, value } = change;
        let key = key.as_str().as_bytes();
        debug_assert!(u16::try_from(key.len()).is_ok(), "key of {} bytes", key.len());
        let at = self.bytes.len();
        let value_length = value.as_ref().map_or(DELETED, |value| value.len() as u32);
        self.bytes.extend(revision.0.to_le_bytes());
        self.bytes.extend(value_length.to_le_bytes());
        self.bytes.extend((key.len() as u16).to_le_bytes());
        self.bytes.extend(key);
        self.bytes.extend(value.as_deref().unwrap_or_default());
        Span { offset: at as u64, length: (self.bytes.len() - at) as u32 }
    }

    /// Copies a record that was read from a frame.
    pub(crate) fn push_raw(&mut self, record: &[u8]) -> Span {
        let at = self.bytes.len();
        self.bytes.extend(record);
        Span { offset: at as u64, length: record.len() as u32 }
    }

    /// Completes the header and gives the whole frame.
    pub(crate) fn finish(&mut self, kind: Kind) -> &[u8] {
        if let Some((header, body)) = self.bytes.split_first_chunk_mut::<FRAME_HEADER>() {
            let mut fields = [0; 12];
            let parts = [body.len() as u32, kind.code(), crc32fast::hash(body)];
            for (to, part) in fields.chunks_exact_mut(4).zip(parts) {
                to.copy_from_slice(&part.to_le_bytes());
            }
            let (checked, crc) = header.split_at_mut(fields.len());
            checked.copy_from_slice(&fields);
            crc.copy_from_slice(&crc32fast::hash(&fields).to_le_bytes());
        }
        &self.bytes
    }
}

/// One record of a frame's body, borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) revision: Revision,
    pub(crate) key: &'a str,
    /// `None` for a delete.
    pub(crate) value: Option<&'a [u8]>,
    /// All of it, as it stands in the body.
    pub(crate) raw: &'a [u8],
}

impl Record<'_> {
    /// The same, owned. `None` when the key is not one.
    pub(crate) fn to_change(self) -> Option<Change> {
        let key = Key::parse(self.key).ok()?;
        Some(Change { revision: self.revision, key, value: self.value.map(bytes::Bytes::copy_from_slice) })
    }

    /// Reads the record at the start of `bytes`; `None` when there is none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Record<'_>> {
        let mut input = Input(bytes);
        let (revision, value_length, key_length) = (input.u64()?, input.u32()?, input.u16()?);
        let key = std::str::from_utf8(input.take(usize::from(key_length))?).ok()?;
        let value = match value_length {
            DELETED => None,
            length => Some(input.take(usize::try_from(length).ok()?)?),
        };
        let length = RECORD_HEADER + key.len() + value.map_or(0, <[u8]>::len);
        Some(Record { revision: Revision(revision), key, value, raw: bytes.get(..length)? })
    }
}

/// The records of a body. An item is `None` where the body cannot be read on, which, under a right
/// checksum, means that whoever wrote it did not know this format.
pub(crate) fn records(body: &[u8]) -> impl Iterator<Item = Option<Record<'_>>> {
    let mut rest = body;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let record = Record::decode(rest);
        rest = record.and_then(|record| rest.get(record.raw.len()..)).unwrap_or_default();
        Some(record)
    })
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.chunk().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.chunk().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_le_bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn change() -> impl Strategy<Value = Change> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..200));
        (any::<u64>(), "[^/]{1,20}", value).prop_map(|(revision, name, value)| Change {
            revision: Revision(revision),
            key: Key::parse(&format!("core/pods/default/{name}")).unwrap(),
            value: value.map(Into::into),
        })
    }

    fn read(frame: &[u8]) -> Option<(Kind, Vec<Change>)> {
        let header = FrameHeader::decode(frame.get(..FRAME_HEADER)?)?;
        let body = frame.get(FRAME_HEADER..)?;
        if !header.fits(body) {
            return None;
        }
        let changes = records(body).map(|record| record?.to_change()).collect::<Option<_>>()?;
        Some((header.kind, changes))
    }

    proptest! {
        #[test]
        fn frames_read_back(changes in prop::collection::vec(change(), 1..8)) {
            let mut builder = FrameBuilder::default();
            builder.clear();
            let spans: Vec<Span> = changes.iter().map(|change| builder.push(change)).collect();
            let frame = builder.finish(Kind::Batch).to_vec();
            for (span, change) in spans.iter().zip(&changes) {
                let record = Record::decode(&frame[span.offset as usize..]).unwrap();
                prop_assert_eq!(record.raw.len(), span.length as usize);
                prop_assert_eq!(&record.to_change().unwrap(), change);
            }
            prop_assert_eq!(read(&frame), Some((Kind::Batch, changes)));
        }

        #[test]
        fn a_changed_bit_is_noticed(change in change(), at in any::<prop::sample::Index>(), bit in 0..8_u32) {
            let mut builder = FrameBuilder::default();
            builder.clear();
            builder.push(&change);
            let mut frame = builder.finish(Kind::Moved).to_vec();
            let at = at.index(frame.len());
            frame[at] ^= 1_u8 << bit;
            prop_assert_eq!(read(&frame), None);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = FrameHeader::decode(&bytes);
            prop_assert!(records(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn segment_headers_read_back() {
        let header = encode_segment_header(7, Revision(1 << 40));
        let mut header: [u8; SEGMENT_HEADER] = header.try_into().unwrap();
        assert_eq!(decode_segment_header(&header), Some((7, Revision(1 << 40))));
        header[9] ^= 1;
        assert_eq!(decode_segment_header(&header), None);
    }
}
