//! Fills a new directory with what another store gave, at the revisions that the objects have. History
//! begins there. The manifest is written last: a directory that was not finished is refused when opened.

use std::{path::Path, sync::Arc};

use futures::{StreamExt, stream::BoxStream};
use meta::Revision;
use store::{Change, Error, Loaded, Result, Stored};

use crate::{
    fault::{damaged, failed},
    frame::{FrameBuilder, Kind, SEGMENT_HEADER},
    lock::Lock,
    manifest::Manifest,
    segment::{Segment, path_of},
    state::State,
};

/// Objects written at a time.
const FRAME_BYTES: usize = 1 << 20;
/// The first segment.
const SEQUENCE: u64 = 1;

/// Refuses a directory that holds a store already; after a failure the directory holds none.
pub(crate) async fn import(directory: &Path, objects: BoxStream<'_, Result<Loaded>>) -> Result<Revision> {
    let lock = Lock::take(directory)?;
    let first = path_of(directory, SEQUENCE);
    if Manifest::read(directory)?.is_some() || first.exists() {
        return Err(Error::NotEmpty { what: directory.display().to_string() });
    }
    let imported = fill(directory, objects).await;
    if imported.is_err() {
        // What was written so far is no store; a directory with it would be taken for a damaged one.
        drop(std::fs::remove_file(&first));
    }
    drop(lock);
    imported
}

async fn fill(directory: &Path, mut objects: BoxStream<'_, Result<Loaded>>) -> Result<Revision> {
    let segment = Segment::create(directory, SEQUENCE, Revision(0))?;
    let (mut frame, mut end, mut at) = (FrameBuilder::default(), SEGMENT_HEADER as u64, None);
    let mut newest = Revision(0);
    frame.clear();
    while let Some(item) = objects.next().await {
        match item? {
            Loaded::Object(Stored { key, value, revision }) => {
                newest = newest.max(revision);
                frame.push(&Change { revision, key, value: Some(value) });
                if frame.len() >= FRAME_BYTES {
                    end += append(&segment, &mut frame, end)?;
                }
            }
            Loaded::At(revision) => at = Some(revision),
        }
    }
    let wrong = |why: &str| damaged(directory, 0, why.to_owned());
    let revision = at.ok_or_else(|| wrong("what was to be imported ended early"))?;
    if newest > revision {
        return Err(wrong("an object to be imported is newer than its store"));
    }
    if !frame.is_empty() {
        end += append(&segment, &mut frame, end)?;
    }
    let segment = segment.rebase(revision).map_err(|error| failed("write", directory, error))?;
    let state = State::new(Arc::new(segment), revision, 0);
    Manifest { end, ..state.manifest() }.write(directory)?;
    Ok(revision)
}

fn append(segment: &Segment, frame: &mut FrameBuilder, at: u64) -> Result<u64> {
    let bytes = frame.finish(Kind::Moved);
    let length = bytes.len() as u64;
    segment.write_durably(bytes, at).map_err(|error| failed("write", &segment.path, error))?;
    frame.clear();
    Ok(length)
}
