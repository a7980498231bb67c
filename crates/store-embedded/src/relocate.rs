//! Gets rid of garbage: copies what is live in the oldest segment to the end of the log, a slice
//! at a time between commits, then removes the segment.

use std::fs;

use store::{Error, Key, Result};

use crate::{
    fault::damaged,
    frame::{FRAME_HEADER, Kind, Span, records},
    scan::{Frame, Scanner},
    state::{Location, State},
    writer::Writer,
};

/// Read, or copied, in one slice: what delays a commit by about as much as its own sync.
const SLICE_BYTES: u64 = 256 << 10;

/// The segment that is being copied, and how far that has got.
#[derive(Debug)]
pub(crate) struct Relocation(Scanner);

/// A live record in the frame that is being built.
struct Copied {
    key: Key,
    from: Location,
    span: Span,
}

impl Writer {
    /// Begins with the oldest segment, if that is worth while.
    pub(crate) fn begin_relocation(&mut self) {
        if self.relocation.is_none() {
            let state = self.shared.read();
            self.relocation =
                state.removable().map(|part| Relocation(Scanner::new(part.segment.clone(), 0, part.end)));
        }
    }

    /// Does one slice of what has begun.
    pub(crate) fn relocate(&mut self) {
        let Some(mut relocation) = self.relocation.take() else { return };
        match self.slice(&mut relocation.0) {
            Ok(true) => self.begin_relocation(),
            Ok(false) => self.relocation = Some(relocation),
            // Nothing is lost: the old segment stays. The next compaction tries again.
            Err(Error::DiskFull { path }) => {
                tracing::warn!(path = %path.display(), "disk is full: cannot tidy up the log");
            }
            Err(error) => tracing::error!(%error, "cannot tidy up the log"),
        }
    }

    /// Whether the segment was finished and removed.
    fn slice(&mut self, scanner: &mut Scanner) -> Result<bool> {
        let begin = scanner.position();
        let mut copied = Vec::new();
        let mut ended = false;
        self.frame.clear();
        while !ended && scanner.position() - begin < SLICE_BYTES {
            let segment = scanner.segment().clone();
            match scanner.next().map_err(|fault| fault.into_error(&segment))? {
                Some(frame) => {
                    let readable =
                        copy_live(&self.shared.read(), &mut self.frame, segment.sequence, frame, &mut copied);
                    readable.ok_or_else(|| damaged(&segment.path, begin, "a record is not readable"))?;
                }
                None => ended = true,
            }
        }
        if !self.frame.is_empty() {
            let written = self.append(Kind::Moved)?;
            let mut state = self.shared.write();
            state.add_frame(Kind::Moved, written.segment, written.offset, written.length);
            for Copied { key, from, span } in copied {
                state.place(key.as_str(), || Some(key.clone()), written.location(from.revision, span));
            }
        }
        if ended {
            self.remove(scanner)?;
        }
        Ok(ended)
    }

    fn remove(&mut self, scanner: &Scanner) -> Result<()> {
        let segment = scanner.segment();
        let mut manifest = self.shared.read().manifest();
        manifest.segments.retain(|sequence| *sequence != segment.sequence);
        manifest.write(&self.directory).inspect_err(|error| self.stop_unless_full(error))?;
        self.shared.write().remove_segment(segment.sequence);
        if let Err(error) = fs::remove_file(&segment.path) {
            // Opening the store removes segments that the manifest does not name any more.
            tracing::warn!(path = %segment.path.display(), %error, "could not remove an old segment");
        }
        Ok(())
    }
}

/// Adds the records of `frame` that the index points at to `to`. `None` when one is not readable.
fn copy_live(
    state: &State,
    to: &mut crate::frame::FrameBuilder,
    segment: u64,
    Frame { offset, kind: _, body }: Frame<'_>,
    copied: &mut Vec<Copied>,
) -> Option<()> {
    let mut at = offset + FRAME_HEADER as u64;
    for record in records(body) {
        let record = record?;
        if let Some((key, from)) = state.index.get_key_value(record.key)
            && (from.segment, from.offset) == (segment, at)
        {
            copied.push(Copied { key: key.clone(), from: *from, span: to.push_raw(record.raw) });
        }
        at += record.raw.len() as u64;
    }
    Some(())
}
