//! One change as watchers see it. Encoded once, whoever asks first; the same bytes go to all.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};
use meta::{Entry, Revision};

/// What happened to an object, from the watcher's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is there now.
    Added,
    /// It is another now.
    Modified,
    /// It is gone, or no longer what the watcher selects.
    Deleted,
    /// Nothing: the watcher is up to date with the revision.
    Bookmark,
}

impl Happened {
    /// The `type` of a watch event.
    pub fn wire(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
            Self::Bookmark => "BOOKMARK",
        }
    }
}

/// What a line has besides its type and its object.
const LINE_BYTES: usize = br#"{"type":"","object":}"#.len() + 1;

/// One committed change of one object.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub happened: Happened,
    /// The object as it is now; as it was last, at the revision of its deletion, where deleted.
    pub entry: Arc<Entry>,
    /// The object as it was before.
    pub previous: Option<Arc<Entry>>,
    line: OnceLock<Bytes>,
}

impl Event {
    pub(crate) fn new(happened: Happened, entry: Arc<Entry>, previous: Option<Arc<Entry>>) -> Self {
        Self { happened, entry, previous, line: OnceLock::new() }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        self.entry.revision
    }

    /// The event as one line of JSON.
    pub fn line(&self) -> Bytes {
        self.line.get_or_init(|| line(self.happened, &self.entry)).clone()
    }

    /// How long [`Event::line`] is.
    pub(crate) fn line_bytes(&self) -> usize {
        self.entry.bytes.len() + self.happened.wire().len() + LINE_BYTES
    }

    pub(crate) fn weight(&self) -> usize {
        self.entry.bytes.len()
    }
}

/// A watch event as one line of JSON, newline included.
pub fn line(happened: Happened, entry: &Entry) -> Bytes {
    line_of(happened, &entry.bytes)
}

/// A watch event whose object is in another form than it is stored in, already encoded.
pub(crate) fn line_of(happened: Happened, object: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(object.len() + 40);
    put_line(&mut out, happened, object);
    out.freeze()
}

fn put_line(out: &mut BytesMut, happened: Happened, object: &[u8]) {
    out.put_slice(b"{\"type\":\"");
    out.put_slice(happened.wire().as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(object);
    out.put_slice(b"}\n");
}

/// The changes of one kind, or of one namespace of it, in one commit.
#[derive(Debug)]
pub struct Batch {
    /// In revision order, never empty.
    pub events: Vec<Arc<Event>>,
    chunk: OnceLock<Bytes>,
}

impl Batch {
    pub(crate) fn new(events: Vec<Arc<Event>>) -> Self {
        Self { events, chunk: OnceLock::new() }
    }

    /// All events as lines of JSON in one piece.
    pub fn chunk(&self) -> Bytes {
        self.chunk
            .get_or_init(|| match self.events.as_slice() {
                [one] => one.line(),
                many => {
                    let size = many.iter().map(|event| event.weight() + 40).sum();
                    let mut out = BytesMut::with_capacity(size);
                    for event in many {
                        put_line(&mut out, event.happened, &event.entry.bytes);
                    }
                    out.freeze()
                }
            })
            .clone()
    }
}
