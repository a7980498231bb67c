//! Watchers: each counts the events it is given, and checks that none is missing, doubled or out of
//! order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::task::JoinHandle;

use crate::{
    client::{Client, resource_version},
    failure::{Failure, Result},
};

/// What one watcher saw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) events: u64,
    /// Events whose revision is not above the one before.
    pub(crate) out_of_order: u64,
    /// Lines that are no event of an object: `ERROR`, or unreadable.
    pub(crate) wrong: u64,
    /// When the last one came.
    pub(crate) last: Option<Instant>,
}

/// What watchers are to see, which is known for certain only once all updates are done.
#[derive(Debug)]
pub(crate) struct Expected {
    /// No watcher reads on beyond this.
    events: AtomicU64,
    /// No further events will be caused.
    done: AtomicBool,
}

impl Default for Expected {
    /// Not known yet.
    fn default() -> Self {
        Self { events: AtomicU64::new(u64::MAX), done: AtomicBool::new(false) }
    }
}

impl Expected {
    /// All updates are done, and made so many events.
    pub(crate) fn know(&self, events: u64) {
        self.events.store(events, Ordering::Relaxed);
        self.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn events(&self) -> u64 {
        self.events.load(Ordering::Relaxed)
    }
}

/// Opens a watcher of `path` (which has its query) on connection `lane` that ends after the expected events,
/// or once all were caused and nothing came for as long as `silence`.
pub(crate) async fn open(
    client: &Client,
    lane: usize,
    path: &str,
    expected: Arc<Expected>,
    silence: Duration,
) -> Result<JoinHandle<Result<Seen>>> {
    let client = client.clone();
    let response = client.send(lane, Method::GET, path, Bytes::new()).await?;
    // The client is moved along: its connections end with the last watcher.
    Ok(tokio::spawn(async move {
        let seen = follow(response.into_body(), &expected, silence).await;
        drop(client);
        seen
    }))
}

async fn follow(mut body: Incoming, expected: &Expected, silence: Duration) -> Result<Seen> {
    let mut reader = Reader::default();
    while reader.seen.events < expected.events.load(Ordering::Relaxed) {
        let frame = match tokio::time::timeout(silence, body.frame()).await {
            Ok(Some(frame)) => frame.map_err(|source| Failure::Http { doing: "read a watch", source })?,
            Ok(None) => break,
            Err(_) if expected.done.load(Ordering::Relaxed) => break,
            Err(_) => continue,
        };
        if let Ok(data) = frame.into_data() {
            reader.read(&data);
        }
    }
    Ok(reader.seen)
}

/// Cuts what arrives into lines.
#[derive(Default)]
struct Reader {
    seen: Seen,
    version: u64,
    /// The start of a line whose end has not come yet.
    rest: Vec<u8>,
}

impl Reader {
    fn read(&mut self, mut data: &[u8]) {
        while let Some(at) = memchr::memchr(b'\n', data) {
            let (line, after) = data.split_at(at);
            data = after.get(1..).unwrap_or_default();
            if self.rest.is_empty() {
                self.event(line);
            } else {
                let mut whole = std::mem::take(&mut self.rest);
                whole.extend_from_slice(line);
                self.event(&whole);
                whole.clear();
                self.rest = whole;
            }
        }
        self.rest.extend_from_slice(data);
    }

    fn event(&mut self, line: &[u8]) {
        let start = line.get(..64).unwrap_or(line);
        if memchr::memmem::find(start, b"\"BOOKMARK\"").is_some() {
            return;
        }
        let version = resource_version(line);
        match version {
            Some(version) if memchr::memmem::find(start, b"\"ERROR\"").is_none() => {
                self.seen.events += 1;
                if version <= self.version {
                    self.seen.out_of_order += 1;
                }
                self.version = version;
                self.seen.last = Some(Instant::now());
            }
            _ => self.seen.wrong += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&str], expected: (u64, u64, u64)) {
        let mut reader = Reader::default();
        for piece in pieces {
            reader.read(piece.as_bytes());
        }
        let Seen { events, out_of_order, wrong, last: _ } = reader.seen;
        assert_eq!((events, out_of_order, wrong), expected, "{pieces:?}");
    }

    fn event(version: u64) -> String {
        format!(
            r#"{{"type":"MODIFIED","object":{{"metadata":{{"name":"a","resourceVersion":"{version}"}}}}}}"#
        ) + "\n"
    }

    #[test]
    fn lines_across_frames() {
        let all = event(1) + &event(2) + &event(3);
        check(&[&all], (3, 0, 0));
        for cut in 0..all.len() {
            let (one, two) = all.split_at(cut);
            check(&[one, two], (3, 0, 0));
        }
        check(&[&all[..all.len() - 1]], (2, 0, 0));
    }

    #[test]
    fn disorder_and_errors() {
        check(&[&event(2), &event(1), &event(3)], (3, 1, 0));
        check(&[&event(2), &event(2)], (2, 1, 0));
        check(&[r#"{"type":"ERROR","object":{"code":410}}"#, "\n"], (0, 0, 1));
        check(
            &[r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#, "\n", &event(3)],
            (1, 0, 0),
        );
    }
}
