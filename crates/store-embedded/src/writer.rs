//! The one thread that changes the log: collects what is waiting, decides it, appends one frame,
//! syncs once, then tells everybody. What arrives during a sync is the next frame.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use meta::Revision;
use store::{Change, Current, Error, Key, Outcome, Plan, Result, Stored, Write, plan};
use tokio::sync::{mpsc, oneshot};

use crate::{
    fault::{damaged, failed},
    frame::{FrameBuilder, Kind, SEGMENT_HEADER, Span},
    relocate::Relocation,
    segment::Segment,
    state::{Location, Shared, State},
};

/// No further batch joins a frame that has this many bytes: what a disk writes in about the time
/// of a sync.
const FRAME_BYTES: usize = 1 << 20;

pub(crate) type Answer<T> = oneshot::Sender<Result<T>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(crate) enum Message {
    Commit { batch: Vec<Write>, answer: Answer<Vec<Outcome>> },
    Compact { through: Revision, answer: Answer<()> },
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) directory: PathBuf,
    pub(crate) shared: Arc<Shared>,
    /// The last segment, and where the next frame goes.
    active: Arc<Segment>,
    end: u64,
    pub(crate) frame: FrameBuilder,
    pub(crate) relocation: Option<Relocation>,
    /// Set for good when the state of the disk is not known any more.
    stopped: Option<Arc<str>>,
}

/// Where a frame was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl Written {
    /// The place of a record of this frame.
    pub(crate) fn location(self, revision: Revision, Span { offset, length }: Span) -> Location {
        Location { revision, segment: self.segment, offset: self.offset + offset, length }
    }
}

impl Writer {
    pub(crate) fn new(directory: PathBuf, shared: Arc<Shared>) -> Result<Self> {
        let (active, end) = {
            let state = shared.read();
            let Some(last) = state.parts.values().next_back() else {
                return Err(damaged(&directory, 0, "the log has no segment"));
            };
            (last.segment.clone(), last.end)
        };
        let frame = FrameBuilder::default();
        Ok(Self { directory, shared, active, end, frame, relocation: None, stopped: None })
    }

    /// Works until every sender is gone and everything sent is answered.
    pub(crate) fn run(mut self, mut receiver: mpsc::Receiver<Message>) {
        let mut held = None;
        loop {
            let message = match held.take() {
                Some(message) => Some(message),
                None if self.relocation.is_some() => match receiver.try_recv() {
                    Ok(message) => Some(message),
                    Err(mpsc::error::TryRecvError::Empty) => None,
                    Err(mpsc::error::TryRecvError::Disconnected) => break,
                },
                None => match receiver.blocking_recv() {
                    Some(message) => Some(message),
                    None => break,
                },
            };
            match message {
                Some(Message::Commit { batch, answer }) => {
                    let (group, next) = collect(batch, answer, &mut receiver);
                    held = next;
                    self.commit(group);
                }
                Some(Message::Compact { through, answer }) => reply(answer, self.compact(through)),
                None => {}
            }
            self.relocate();
        }
        self.close();
    }

    fn commit(&mut self, group: Vec<(Vec<Write>, Answer<Vec<Outcome>>)>) {
        self.frame.clear();
        let mut changes = Vec::new();
        let mut decided = Vec::with_capacity(group.len());
        {
            let state = self.shared.read();
            let mut pending = Pending { state: &state, changed: HashMap::new() };
            let mut revision = state.revision;
            let mut left = group.len();
            for (batch, answer) in group {
                left -= 1;
                let outcomes = plan(batch, revision, &pending).map(|Plan { outcomes, changes: planned }| {
                    for change in planned {
                        revision = change.revision;
                        if left > 0 {
                            pending.changed.insert(change.key.clone(), change.clone());
                        }
                        changes.push((self.frame.push(&change), change));
                    }
                    outcomes
                });
                decided.push((outcomes, answer));
            }
        }
        let written = if changes.is_empty() { Ok(()) } else { self.write(changes) };
        for (outcomes, answer) in decided {
            reply(answer, written.clone().and(outcomes));
        }
    }

    fn write(&mut self, changes: Vec<(Span, Change)>) -> Result<()> {
        let written = self.append(Kind::Batch)?;
        let mut state = self.shared.write();
        state.add_frame(Kind::Batch, written.segment, written.offset, written.length);
        for (span, Change { revision, key, value }) in changes {
            let to = written.location(revision, span);
            state.commit(key.as_str(), || Some(key.clone()), value.is_none(), to);
        }
        let revision = state.revision;
        drop(state);
        self.shared.head.send_replace(revision);
        Ok(())
    }

    /// Appends the frame that was built. On `Err` none of it is in the log, or, with
    /// [`Error::Unknown`], it may be.
    pub(crate) fn append(&mut self, kind: Kind) -> Result<Written> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped { why: why.clone() });
        }
        let length = self.frame.len() as u64;
        let full = self.end + length > self.shared.read().segment_bytes();
        if full && self.end > SEGMENT_HEADER as u64 {
            self.roll().inspect_err(|error| self.stop_unless_full(error))?;
        }
        let (offset, path) = (self.end, &self.active.path);
        if let Err(error) = self.active.write_durably(self.frame.finish(kind), offset) {
            let error = failed("write", path, error);
            return Err(match self.active.truncate(offset) {
                Ok(()) => {
                    self.stop_unless_full(&error);
                    error
                }
                Err(truncate) => {
                    self.stop(format!("{error}, and the file could not be cut back: {truncate}"));
                    Error::Unknown { doing: "a write that failed half-way" }
                }
            });
        }
        self.end += length;
        Ok(Written { segment: self.active.sequence, offset, length })
    }

    /// Begins a new segment.
    fn roll(&mut self) -> Result<()> {
        let state = self.shared.read();
        let sequence = self.active.sequence + 1;
        let segment = Arc::new(Segment::create(&self.directory, sequence, state.revision)?);
        let mut manifest = state.manifest();
        drop(state);
        manifest.segments.push(sequence);
        manifest.end = SEGMENT_HEADER as u64;
        manifest.write(&self.directory)?;
        self.shared.write().add_segment(segment.clone());
        (self.active, self.end) = (segment, SEGMENT_HEADER as u64);
        Ok(())
    }

    fn compact(&mut self, through: Revision) -> Result<()> {
        if let Some(why) = &self.stopped {
            return Err(Error::Stopped { why: why.clone() });
        }
        let mut manifest = {
            let state = self.shared.read();
            let through = through.min(state.revision);
            if through <= state.compacted {
                return Ok(());
            }
            let mut manifest = state.manifest();
            manifest.compacted = through;
            manifest
        };
        manifest.end = self.end;
        manifest.write(&self.directory).inspect_err(|error| self.stop_unless_full(error))?;
        self.shared.write().compact(manifest.compacted);
        self.begin_relocation();
        Ok(())
    }

    /// After any failure but a lack of space nothing is known of what the disk will do next. To go
    /// on could acknowledge what is then lost (`PostgreSQL` stops likewise since "fsyncgate", 2018).
    pub(crate) fn stop_unless_full(&mut self, error: &Error) {
        if !matches!(error, Error::DiskFull { .. }) {
            self.stop(error.to_string());
        }
    }

    fn stop(&mut self, why: String) {
        tracing::error!(directory = %self.directory.display(), why, "store stopped taking writes");
        self.stopped = Some(why.into());
    }

    /// Notes how long the log is, so that a shorter one is noticed at the next opening.
    fn close(&mut self) {
        let manifest = self.shared.read().manifest();
        if self.stopped.is_none()
            && let Err(error) = manifest.write(&self.directory)
        {
            tracing::warn!(%error, "could not note the clean end; the next opening does without");
        }
    }
}

type Group = Vec<(Vec<Write>, Answer<Vec<Outcome>>)>;

/// What is waiting and fits into one frame with `batch`, and the message after that, if it was taken.
fn collect(
    batch: Vec<Write>,
    answer: Answer<Vec<Outcome>>,
    receiver: &mut mpsc::Receiver<Message>,
) -> (Group, Option<Message>) {
    let size = |batch: &[Write]| -> usize {
        batch.iter().map(|w| w.value.as_ref().map_or(64, |v| v.len() + 64)).sum()
    };
    let mut bytes = size(&batch);
    let mut group = vec![(batch, answer)];
    while bytes < FRAME_BYTES {
        match receiver.try_recv() {
            Ok(Message::Commit { batch, answer }) => {
                bytes += size(&batch);
                if bytes > FRAME_BYTES {
                    return (group, Some(Message::Commit { batch, answer }));
                }
                group.push((batch, answer));
            }
            Ok(other @ Message::Compact { .. }) => return (group, Some(other)),
            // Empty or closed; the caller finds out which.
            Err(_) => break,
        }
    }
    (group, None)
}

fn reply<T>(answer: Answer<T>, result: Result<T>) {
    // Nobody listens when the caller dropped its future; what was done stays done.
    drop(answer.send(result));
}

/// The state as it will be once the batches before this one in the group are written.
struct Pending<'a> {
    state: &'a State,
    changed: HashMap<Key, Change>,
}

impl Current for Pending<'_> {
    fn revision(&self, key: &Key) -> Result<Option<Revision>> {
        match self.changed.get(key) {
            Some(Change { value, revision, key: _ }) => Ok(value.as_ref().map(|_| *revision)),
            None => self.state.revision(key),
        }
    }

    fn stored(&self, key: &Key) -> Result<Option<Stored>> {
        match self.changed.get(key).cloned() {
            Some(Change { key, value, revision }) => Ok(value.map(|value| Stored { key, value, revision })),
            None => self.state.stored(key),
        }
    }
}
