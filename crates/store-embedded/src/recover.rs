//! Opens a directory: reads the whole log once, checks it, and builds the state. Changes nothing
//! before everything was found right.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use meta::Revision;
use store::{Error, Key, Result};

use crate::{
    fault::{damaged, failed},
    frame::{FRAME_HEADER, Kind, SEGMENT_HEADER, records},
    manifest::Manifest,
    scan::{Fault, Frame, Scanner},
    segment::{self, Segment},
    state::{Location, State},
};

/// The state of the store in `directory`, a new one where there is nothing.
pub(crate) fn recover(directory: &Path) -> Result<State> {
    let files = segment_files(directory)?;
    let Some(manifest) = Manifest::read(directory)? else { return create(directory, &files) };
    let (mut state, torn) = replay(directory, &manifest)?;
    let last = manifest.segments.last().copied().unwrap_or_default();
    for (sequence, path, length) in files {
        // A later segment is begun before the manifest names it, and written to only afterwards.
        if sequence > last && length > SEGMENT_HEADER as u64 {
            return Err(damaged(&path, 0, "the manifest does not name this segment, though it has content"));
        }
        // An older one has been copied on; its removal was interrupted.
        if sequence < last && !manifest.segments.contains(&sequence) {
            fs::remove_file(&path).map_err(|error| failed("remove the old segment", &path, error))?;
        }
    }
    if let Some(Torn { segment, at, length }) = torn {
        let path = segment.path.display();
        tracing::info!(%path, at, bytes = length - at, "cut off a write that was not acknowledged");
        segment
            .truncate(at)
            .map_err(|error| failed("cut off the incomplete end of", &segment.path, error))?;
    }
    state.epoch = manifest.epoch + 1;
    match state.manifest().write(directory) {
        // Reading must be possible on a full disk, so that space can be made.
        Err(Error::DiskFull { path }) => {
            tracing::warn!(path = %path.display(), "disk is full: opened for reading, writes will fail");
        }
        other => other?,
    }
    Ok(state)
}

fn segment_files(directory: &Path) -> Result<Vec<(u64, PathBuf, u64)>> {
    let read = || -> std::io::Result<Vec<(u64, PathBuf, u64)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Some(sequence) = entry.file_name().to_str().and_then(segment::sequence_of) {
                found.push((sequence, entry.path(), entry.metadata()?.len()));
            }
        }
        Ok(found)
    };
    read().map_err(|error| failed("read the directory", directory, error))
}

fn create(directory: &Path, files: &[(u64, PathBuf, u64)]) -> Result<State> {
    if files.iter().any(|(_, _, length)| *length > SEGMENT_HEADER as u64) {
        return Err(damaged(
            &directory.join("manifest"),
            0,
            "it is missing, though there are segments of a log",
        ));
    }
    let first = Segment::create(directory, 1, Revision(0))?;
    let state = State::new(Arc::new(first), Revision(0), 1);
    state.manifest().write(directory)?;
    Ok(state)
}

/// An end that was not completely written.
struct Torn {
    segment: Arc<Segment>,
    at: u64,
    length: u64,
}

fn replay(directory: &Path, manifest: &Manifest) -> Result<(State, Option<Torn>)> {
    let path = directory.join("manifest");
    let Some((&last, _)) = manifest.segments.split_last() else {
        return Err(damaged(&path, 0, "it names no segment"));
    };
    let mut state: Option<State> = None;
    let mut scanner: Option<Scanner> = None;
    let mut torn = None;
    for &sequence in &manifest.segments {
        let (segment, length) = Segment::open(directory, sequence)?;
        let segment = Arc::new(segment);
        if sequence == last && length < manifest.end {
            return Err(damaged(
                &segment.path,
                length,
                format!("it has become shorter, it had {} bytes", manifest.end),
            ));
        }
        let state = match &mut state {
            Some(state) => {
                if segment.base != state.revision {
                    let why = format!(
                        "it continues revision {}, but the one before ends at {}",
                        segment.base, state.revision
                    );
                    return Err(damaged(&segment.path, 0, why));
                }
                state.add_segment(segment.clone());
                state
            }
            none => none.insert(State::new(segment.clone(), manifest.compacted, manifest.epoch)),
        };
        let scanner = match &mut scanner {
            Some(scanner) => {
                scanner.restart(segment, length);
                scanner
            }
            none => none.insert(Scanner::new(segment, 0, length)),
        };
        match replay_segment(state, scanner) {
            Ok(()) => {}
            Err(Fault::Torn(at)) if sequence == last && at >= manifest.end => {
                torn = Some(Torn { segment: scanner.segment().clone(), at, length });
            }
            Err(fault) => return Err(fault.into_error(scanner.segment())),
        }
    }
    let Some(mut state) = state else { return Err(damaged(&path, 0, "it names no segment")) };
    let first = state.parts.values().next().map_or(Revision(0), |part| part.segment.base);
    if first > manifest.compacted || manifest.compacted > state.revision {
        let why = format!(
            "history is compacted through {}, but the segments hold {} to {}",
            manifest.compacted, first, state.revision
        );
        return Err(damaged(&path, 0, why));
    }
    state.compact(manifest.compacted);
    Ok((state, torn))
}

fn replay_segment(state: &mut State, scanner: &mut Scanner) -> Result<(), Fault> {
    let (sequence, path) = (scanner.segment().sequence, scanner.segment().path.clone());
    while let Some(Frame { offset, kind, body }) = scanner.next()? {
        let fail = |why: String| Fault::Failed(damaged(&path, offset, why));
        state.add_frame(kind, sequence, offset, (FRAME_HEADER + body.len()) as u64);
        let mut at = offset + FRAME_HEADER as u64;
        for record in records(body) {
            let record = record.ok_or_else(|| fail("a record is not readable".into()))?;
            let to = Location {
                revision: record.revision,
                segment: sequence,
                offset: at,
                length: record.raw.len() as u32,
            };
            at += u64::from(to.length);
            let key = || Key::parse(record.key).ok();
            if !state.index.contains_key(record.key) && key().is_none() {
                return Err(fail(format!("{:?} is not a key", record.key)));
            }
            match kind {
                Kind::Batch if record.revision.0 == state.revision.0 + 1 => {
                    state.commit(record.key, key, record.value.is_none(), to);
                }
                Kind::Batch => {
                    return Err(fail(format!("revision {} follows {}", record.revision, state.revision)));
                }
                Kind::Moved => state.place(record.key, key, to),
            }
        }
    }
    Ok(())
}
