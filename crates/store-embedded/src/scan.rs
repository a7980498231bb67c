//! Reads the frames of a segment in order and tells an incomplete last frame from damage.
//!
//! The writer syncs each frame before it writes the next, so only the last frame of the last
//! segment can be incomplete after a crash: the file ends within it, or a part of it never reached
//! the disk and reads as zeros. The smallest such part is a sector (etcd's log reads its tail alike,
//! `server/storage/wal/decoder.go`). Any other mismatch is damage to acknowledged data.

use std::sync::Arc;

use store::{Error, Result};

use crate::{
    fault::damaged,
    frame::{FRAME_HEADER, FrameHeader, Kind, SEGMENT_HEADER},
    segment::Segment,
};

/// Read at a time. Long enough to be quick, short enough to stay in the processor's cache.
const READ_BYTES: usize = 256 << 10;
/// What a disk writes whole.
const SECTOR: u64 = 512;

/// Reads frames between two offsets of a segment.
#[derive(Debug)]
pub(crate) struct Scanner {
    segment: Arc<Segment>,
    /// Offset of the next frame.
    at: u64,
    to: u64,
    /// What was read from `at` on.
    buffer: Vec<u8>,
    /// How much of the start of `buffer` is before `at`.
    used: usize,
}

/// One frame whose checksums are right.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    /// Offset of its header in the segment.
    pub(crate) offset: u64,
    pub(crate) kind: Kind,
    pub(crate) body: &'a [u8],
}

/// Why a frame could not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// From this offset on is a frame that was not completely written.
    Torn(u64),
    /// Anything else.
    Failed(Error),
}

impl Fault {
    /// The error where a torn frame cannot be.
    pub(crate) fn into_error(self, segment: &Segment) -> Error {
        match self {
            Self::Torn(offset) => {
                damaged(&segment.path, offset, "a frame is incomplete though later ones exist")
            }
            Self::Failed(error) => error,
        }
    }
}

impl Scanner {
    /// Reads from `from` (or the first frame, where that is later) up to `to`.
    pub(crate) fn new(segment: Arc<Segment>, from: u64, to: u64) -> Self {
        Self { segment, at: from.max(SEGMENT_HEADER as u64), to, buffer: Vec::new(), used: 0 }
    }

    /// Goes on in another segment, with the same buffer.
    pub(crate) fn restart(&mut self, segment: Arc<Segment>, to: u64) {
        *self = Self { buffer: std::mem::take(&mut self.buffer), ..Self::new(segment, 0, to) };
        self.buffer.clear();
    }

    /// Offset of the next frame.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The segment that is read.
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    /// The next frame; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Frame<'_>>, Fault> {
        let offset = self.at;
        let left = self.to.saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        if left < FRAME_HEADER as u64 {
            return Err(Fault::Torn(offset));
        }
        let Some(header) = FrameHeader::decode(self.fill(FRAME_HEADER)?) else {
            let torn = has_zero_sector(self.fill(FRAME_HEADER)?, offset);
            return Err(self.fault(torn, offset, "the header of a frame does not match its checksum"));
        };
        let length = FRAME_HEADER + header.length;
        if length as u64 > left {
            return Err(Fault::Torn(offset));
        }
        self.fill(length)?;
        let body = self.buffer.get(self.used + FRAME_HEADER..self.used + length).unwrap_or_default();
        if !header.fits(body) {
            let torn = length as u64 == left && has_zero_sector(body, offset + FRAME_HEADER as u64);
            return Err(self.fault(torn, offset, "a frame does not match its checksum"));
        }
        self.at += length as u64;
        self.used += length;
        Ok(Some(Frame { offset, kind: header.kind, body }))
    }

    fn fault(&self, torn: bool, offset: u64, why: &str) -> Fault {
        if torn { Fault::Torn(offset) } else { Fault::Failed(damaged(&self.segment.path, offset, why)) }
    }

    /// Makes sure that `length` bytes from `at` on are in the buffer, and gives them. The caller
    /// made sure that there are as many before `to`.
    fn fill(&mut self, length: usize) -> Result<&[u8], Fault> {
        if self.buffer.len() < self.used + length {
            self.buffer.drain(..self.used);
            self.used = 0;
            let have = self.buffer.len();
            let left = usize::try_from(self.to - self.at).unwrap_or(usize::MAX);
            self.buffer.resize(left.min(length.max(READ_BYTES)), 0);
            let rest = self.buffer.get_mut(have..).unwrap_or_default();
            self.segment.read_exact(rest, self.at + have as u64).map_err(Fault::Failed)?;
        }
        Ok(self.buffer.get(self.used..self.used + length).unwrap_or_default())
    }
}

/// Whether one of the sectors that `bytes`, found at `offset`, has a part in is zero in that part.
fn has_zero_sector(bytes: &[u8], offset: u64) -> bool {
    let first = usize::try_from(SECTOR - offset % SECTOR).unwrap_or(0).min(bytes.len());
    let (head, rest) = bytes.split_at(first);
    std::iter::once(head)
        .chain(rest.chunks(SECTOR as usize))
        .any(|part| !part.is_empty() && part.iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_sectors() {
        let mut bytes = vec![1; 1500];
        assert!(!has_zero_sector(&bytes, 100));
        bytes[412..924].fill(0);
        assert!(has_zero_sector(&bytes, 100));
        assert!(!has_zero_sector(&bytes, 0), "zeros that are no whole sector");
        assert!(has_zero_sector(&[1, 0, 0], 511), "the part of a sector at the end");
        assert!(!has_zero_sector(&[], 0));
    }
}
