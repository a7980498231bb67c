//! `Store::load`: fixes where everything is at one moment, then reads it in the order of the disk.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, future, stream, stream::BoxStream};
use store::{Error, Key, Loaded, Result};

use crate::{
    segment::Segment,
    state::{Location, Shared, stored_in},
};

/// Read at a time; what a slow reader holds in memory is a few of these.
const READ_BYTES: u64 = 1 << 20;
/// A gap of garbage beyond this is jumped over.
const GAP_BYTES: u64 = 64 << 10;
/// Reads under way at once, so that the disk and the reader both have work.
const READS: usize = 3;

/// A stretch of a segment and the objects in it.
struct Stretch {
    segment: Arc<Segment>,
    from: u64,
    to: u64,
    objects: Vec<(Key, Location)>,
}

pub(crate) fn load(shared: &Arc<Shared>) -> BoxStream<'_, Result<Loaded>> {
    stream::once(async {
        let (stretches, revision) = stretches(shared);
        stream::iter(stretches)
            .map(|stretch| tokio::task::spawn_blocking(move || stretch.read()))
            .buffered(READS)
            .map(|joined| {
                let doing = "read the objects of the store";
                joined.map_err(|error| Error::Backend { doing, source: Arc::new(error) }).flatten()
            })
            .flat_map(|read| match read {
                Ok(objects) => stream::iter(objects.into_iter().map(Ok)).left_stream(),
                Err(error) => stream::iter([Err(error)]).right_stream(),
            })
            .chain(stream::iter([Ok(Loaded::At(revision))]))
            // Nothing follows an error.
            .scan(false, |failed, item| {
                future::ready((!std::mem::replace(failed, item.is_err())).then_some(item))
            })
    })
    .flatten()
    .boxed()
}

/// Everything in the store, in the order of the disk, and the revision it stands at.
fn stretches(shared: &Shared) -> (Vec<Stretch>, meta::Revision) {
    let state = shared.read();
    let mut objects: Vec<(Key, Location)> = state.index.iter().map(|(key, at)| (key.clone(), *at)).collect();
    let segments: Vec<Arc<Segment>> = state.parts.values().map(|part| part.segment.clone()).collect();
    let revision = state.revision;
    drop(state);
    objects.sort_unstable_by_key(|(_, at)| (at.segment, at.offset));
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut segments = segments.into_iter().peekable();
    for (key, at) in objects {
        let end = at.offset + u64::from(at.length);
        match stretches.last_mut() {
            Some(last)
                if last.segment.sequence == at.segment
                    && end - last.from <= READ_BYTES
                    && at.offset - last.to <= GAP_BYTES =>
            {
                last.to = end;
                last.objects.push((key, at));
            }
            _ => {
                while segments.next_if(|segment| segment.sequence < at.segment).is_some() {}
                // The index points at segments of the log only.
                let Some(segment) = segments.peek().cloned() else { continue };
                stretches.push(Stretch { segment, from: at.offset, to: end, objects: vec![(key, at)] });
            }
        }
    }
    (stretches, revision)
}

impl Stretch {
    /// The objects. Their values share one buffer.
    fn read(self) -> Result<Vec<Loaded>> {
        let Self { segment, from, to, objects } = self;
        let mut buffer = BytesMut::zeroed(usize::try_from(to - from).unwrap_or(usize::MAX));
        segment.read_exact(&mut buffer, from)?;
        let buffer: Bytes = buffer.freeze();
        objects
            .into_iter()
            .map(|(key, at)| {
                let begin = usize::try_from(at.offset - from).unwrap_or(usize::MAX);
                stored_in(&buffer.slice(begin..), &key, at, &segment).map(Loaded::Object)
            })
            .collect()
    }
}
