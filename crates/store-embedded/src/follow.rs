//! `Store::follow`: reads the log forward, from the files, up to where it is durable.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, stream::BoxStream};
use meta::Revision;
use store::{Change, Error, Result, follow_with};

use crate::{
    fault::damaged,
    frame::{FRAME_HEADER, Kind, records},
    scan::{Frame, Scanner},
    segment::Segment,
    state::Shared,
};

/// A read ends once it has this many bytes of frames.
const READ_BYTES: u64 = 256 << 10;

/// Where a follower's last read ended.
#[derive(Clone, Copy, Debug)]
struct Position {
    after: Revision,
    segment: u64,
    offset: u64,
}

pub(crate) fn follow(shared: &Arc<Shared>, after: Revision) -> BoxStream<'_, Result<Change>> {
    let position: Arc<Mutex<Option<Position>>> = Arc::default();
    follow_with(after, shared.head.subscribe(), move |after| {
        let (shared, position) = (shared.clone(), position.clone());
        tokio::task::spawn_blocking(move || {
            let mut position = position.lock().unwrap_or_else(PoisonError::into_inner);
            let (changes, next) = read(&shared, after, *position)?;
            *position = Some(next);
            Ok(changes)
        })
        .map(|joined| {
            let doing = "read the changes of the store";
            joined.map_err(|error| Error::Backend { doing, source: Arc::new(error) }).flatten()
        })
    })
}

/// At least one change after `after`, which is below the head, and where to go on.
fn read(shared: &Shared, after: Revision, position: Option<Position>) -> Result<(Vec<Change>, Position)> {
    let position = position.filter(|position| position.after == after);
    let (start, from, parts) = {
        let state = shared.read();
        if after < state.compacted {
            return Err(Error::Compacted { asked: after, compacted: state.compacted });
        }
        let (start, from) = position.map_or_else(|| state.history_start(after), |p| (p.segment, p.offset));
        let parts: Vec<(Arc<Segment>, u64)> =
            state.parts.range(start..).map(|(_, part)| (part.segment.clone(), part.end)).collect();
        (start, from, parts)
    };
    let mut changes: Vec<Change> = Vec::new();
    let mut read_bytes = 0;
    let mut next = Position { after, segment: start, offset: from };
    for (segment, end) in parts {
        let from = if segment.sequence == start { from } else { 0 };
        let mut scanner = Scanner::new(segment.clone(), from, end);
        while let Some(frame) = scanner.next().map_err(|fault| fault.into_error(&segment))? {
            let Frame { offset, kind, body } = frame;
            next = Position {
                segment: segment.sequence,
                offset: offset + (FRAME_HEADER + body.len()) as u64,
                ..next
            };
            if kind == Kind::Moved {
                continue;
            }
            read_bytes += body.len() as u64;
            for record in records(body) {
                let change = record
                    .and_then(crate::frame::Record::to_change)
                    .ok_or_else(|| damaged(&segment.path, offset, "a record is not readable"))?;
                if change.revision <= after {
                    continue;
                }
                if change.revision.0 != next.after.0 + 1 {
                    let why = format!("revision {} follows {}", change.revision, next.after);
                    return Err(damaged(&segment.path, offset, why));
                }
                next.after = change.revision;
                changes.push(change);
            }
            if !changes.is_empty() && read_bytes >= READ_BYTES {
                return Ok((changes, next));
            }
        }
    }
    Ok((changes, next))
}
