//! watch: what happened to the objects of a kind since a revision, and then as it happens.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use meta::{Entry, Revision, Status};
use resource::{Resource, Verb};
use tokio::time::{Instant, sleep_until};

use super::{ListOptions, Rest, select::Selection};
use crate::cache::{Backlog, Batch, Event, Happened, Subscription, Taken, line};
use crate::metrics::Tally;

/// Between two bookmarks, as upstream.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// The last bookmark comes so long before the end, as upstream.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);
/// A watch without `timeoutSeconds` ends after this time or up to twice as long (upstream
/// `minRequestTimeout`).
const TIMEOUT_MIN: Duration = Duration::from_secs(1_800);
/// What one chunk may hold before it is sent.
const CHUNK_BYTES: usize = 256 << 10;

/// One event as this watcher sees it.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    /// What happened.
    pub happened: Happened,
    /// The object; for a bookmark, an object with nothing but a revision.
    pub entry: Arc<Entry>,
    /// The event as a line of JSON, shared with other watchers where they see the same.
    pub line: Bytes,
}

/// A running watch. Dropping it ends it.
pub struct Watch {
    rest: Rest,
    resource: Arc<Resource>,
    selection: Selection,
    subscription: Subscription,
    /// Events up to this revision have been seen or are not wanted.
    seen: Revision,
    ready: VecDeque<Pending>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
    /// What was given as chunks since somebody looked.
    pub(crate) tally: Tally,
    /// Whether all there was at the beginning has been told, and nobody has looked since.
    pub(crate) told_all: bool,
}

enum Pending {
    /// Sent as it is, whatever it selects.
    Object(Happened, Arc<Entry>),
    Event(Arc<Event>),
    Batch(Arc<Batch>),
    Bookmark {
        initial_end: bool,
    },
    /// Converted already.
    Seen(WatchEvent),
}

/// What happened, to what, and the event where others may be sent the same.
type Through<'e> = (Happened, Arc<Entry>, Option<&'e Arc<Event>>);

impl Rest {
    /// Watches the objects of a kind, in one namespace or (with `None`) everywhere.
    pub async fn watch(
        &self,
        resource: &Arc<Resource>,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<Watch, Status> {
        if !resource.verbs.contains(&Verb::Watch) {
            return Err(Status::method_not_allowed(&resource.group_resource(), "watch"));
        }
        let selection = Selection::new(resource, namespace, options)?;
        let unset = options.watch_from.is_none_or(|from| from.0 == 0);
        let present = options.send_initial_events || (unset && !options.skip_initial_events);
        match options.watch_from {
            Some(from) => self.cache.reach(from).await?,
            None => self.committer.newest().await?,
        }
        let kind = self.kind(resource);
        // Read before registering: what is committed up to here is in the backlog.
        let head = self.cache.head();
        let after = match present {
            true => None,
            false if unset => Some(head),
            false => options.watch_from,
        };
        let (subscription, backlog) = kind.subscribe(selection.interest(resource), after);
        if resource.custom && !self.still_served(resource) {
            // Its definition changed before the watch was registered, too early to end it.
            subscription.queue.end();
        }
        let mut ready = VecDeque::new();
        let mut seen = head;
        match backlog {
            Backlog::Expired => {
                let from = options.watch_from.unwrap_or_default();
                return Err(Status::expired(format!("too old resource version: {from} ({head})")));
            }
            Backlog::Events(events) => {
                seen = after.unwrap_or(head);
                ready.extend(events.into_iter().map(Pending::Event));
            }
            Backlog::Snapshot(snapshot) => {
                seen = seen.max(snapshot.revision);
                let found = snapshot.valued(selection.fields(), namespace, None);
                let wanted = found.filter(|entry| selection.matches(entry));
                ready.extend(wanted.map(|entry| Pending::Object(Happened::Added, entry.clone())));
                kind.counts.initial.fetch_add(ready.len() as u64, Relaxed);
            }
        }
        if options.send_initial_events && options.bookmarks {
            ready.push_back(Pending::Bookmark { initial_end: true });
        }
        let now = Instant::now();
        let deadline = now + self.watch_timeout(options);
        Ok(Watch {
            rest: self.clone(),
            resource: resource.clone(),
            selection,
            subscription,
            seen,
            ready,
            bookmarks: options.bookmarks,
            next_bookmark: next_bookmark(now, deadline),
            deadline,
            ended: false,
            tally: Tally::default(),
            told_all: false,
        })
    }

    fn still_served(&self, resource: &Arc<Resource>) -> bool {
        let now = self.registry.resolve(&resource.group, &resource.version, &resource.plural);
        now.is_some_and(|now| Arc::ptr_eq(&now, resource))
    }

    fn watch_timeout(&self, options: &ListOptions) -> Duration {
        match options.timeout_seconds {
            Some(seconds) => Duration::from_secs(u64::from(seconds)),
            None => TIMEOUT_MIN + Duration::from_secs(self.random.below(TIMEOUT_MIN.as_secs())),
        }
    }
}

/// A minute from now, and shortly before the watch ends, so that the client goes on where it was.
fn next_bookmark(now: Instant, deadline: Instant) -> Instant {
    let last = deadline.checked_sub(BOOKMARK_BEFORE_END).filter(|last| *last > now).unwrap_or(deadline);
    last.min(now + BOOKMARK_EVERY)
}

impl Watch {
    /// The kind being watched, in the version asked for.
    pub fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// The next event; `None` when the time is up, or when the kind is no longer what it was. An error is
    /// the last thing a watch gives: the client has to list again. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, Status>> {
        loop {
            if self.ended {
                return None;
            }
            if let Err(status) = self.convert().await {
                self.ended = true;
                return Some(Err(status));
            }
            if let Some(event) = self.pop() {
                return Some(event);
            }
            if let Err(end) = self.wait().await {
                self.ended = true;
                return end.map(Err);
            }
        }
    }

    /// All events that are ready, as lines of JSON; waits for the first. `None` and errors as
    /// [`Watch::next`]. Cancel-safe.
    pub async fn next_chunk(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            if self.ended {
                return None;
            }
            if let Err(status) = self.convert().await {
                self.ended = true;
                return Some(Err(status));
            }
            if let Some(chunk) = self.shared_chunk() {
                return Some(Ok(chunk));
            }
            let mut first: Option<Bytes> = None;
            let mut out = BytesMut::new();
            while out.len() < CHUNK_BYTES {
                if first.is_some() && matches!(self.ready.front(), Some(Pending::Batch(_))) {
                    break;
                }
                match self.pop() {
                    Some(Ok(WatchEvent { line, .. })) if first.is_none() => {
                        self.tally.add(line.len());
                        first = Some(line);
                    }
                    Some(Ok(WatchEvent { line, .. })) => {
                        self.tally.add(line.len());
                        if out.is_empty() {
                            out.extend_from_slice(first.as_deref().unwrap_or_default());
                        }
                        out.extend_from_slice(&line);
                    }
                    Some(Err(status)) => return Some(Err(status)),
                    None => break,
                }
            }
            match first {
                Some(first) if out.is_empty() => return Some(Ok(first)),
                Some(_) => return Some(Ok(out.freeze())),
                None => {}
            }
            if let Err(end) = self.wait().await {
                self.ended = true;
                return end.map(Err);
            }
        }
    }

    /// A whole commit in the bytes that all watchers of the kind, or of the namespace, share.
    fn shared_chunk(&mut self) -> Option<Bytes> {
        if self.selection.has_selectors() || super::converter(&self.resource).is_some() {
            return None;
        }
        let Some(Pending::Batch(batch)) = self.ready.front() else { return None };
        let (first, last) = (batch.events.first()?.revision(), batch.events.last()?.revision());
        if first <= self.seen || !super::is_shown_as_stored(&self.resource, first) {
            return None;
        }
        self.seen = last;
        batch.events.iter().for_each(|event| self.tally.add(event.line_bytes()));
        let chunk = batch.chunk();
        self.ready.pop_front();
        Some(chunk)
    }

    /// The next ready event that the client wants.
    fn pop(&mut self) -> Option<Result<WatchEvent, Status>> {
        while let Some(pending) = self.ready.pop_front() {
            match pending {
                Pending::Object(_, entry) if !self.wants(&entry) => {}
                Pending::Object(happened, entry) => return Some(self.event(happened, entry, None)),
                Pending::Seen(event) => return Some(Ok(event)),
                Pending::Bookmark { initial_end } => {
                    self.told_all |= initial_end;
                    return Some(self.bookmark(initial_end));
                }
                Pending::Batch(batch) => {
                    for event in batch.events.iter().rev() {
                        self.ready.push_front(Pending::Event(event.clone()));
                    }
                }
                Pending::Event(event) => {
                    if event.revision() <= self.seen {
                        continue;
                    }
                    self.seen = event.revision();
                    if let Some(seen) = self.see(&event) {
                        return Some(seen);
                    }
                }
            }
        }
        None
    }

    /// Brings what is ready to the version asked for, where that means to ask somebody: all of it in one go.
    /// Cancel-safe: nothing is taken before the answer is there.
    async fn convert(&mut self) -> Result<(), Status> {
        let todo = |pending: &Pending| !matches!(pending, Pending::Seen(_) | Pending::Bookmark { .. });
        if super::converter(&self.resource).is_none() || !self.ready.iter().any(todo) {
            return Ok(());
        }
        // Where fields of what is shown are selected, what was there before is brought to the version, too, and looked at.
        let look = self.selection.looks_at_shown();
        let mut seen = self.seen;
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        // In order, for each that is ready: what happened, and whether there was something before.
        let mut happenings: Vec<Vec<(Happened, bool)>> = Vec::with_capacity(self.ready.len());
        for pending in &self.ready {
            let mut these = Vec::new();
            let mut put = |happened: Happened, entry: Arc<Entry>, previous: Option<Arc<Entry>>| {
                these.push((happened, previous.is_some()));
                entries.push(entry);
                entries.extend(previous);
            };
            let mut see = |event: &Arc<Event>| {
                if event.revision() <= seen {
                    return;
                }
                seen = event.revision();
                if look {
                    put(event.happened, event.entry.clone(), event.previous.clone());
                } else if let Some((happened, entry, _)) = self.through(event) {
                    put(happened, entry, None);
                }
            };
            match pending {
                Pending::Object(happened, entry) => put(*happened, entry.clone(), None),
                Pending::Event(event) => see(event),
                Pending::Batch(batch) => batch.events.iter().for_each(see),
                Pending::Seen(_) | Pending::Bookmark { .. } => {}
            }
            happenings.push(these);
        }
        let mut converted = self.rest.serve_all(&self.resource, entries).await?.into_iter();
        let mut ready = VecDeque::with_capacity(self.ready.len());
        for (pending, these) in std::mem::take(&mut self.ready).into_iter().zip(happenings) {
            if !todo(&pending) {
                ready.push_back(pending);
            }
            for (mut happened, had) in these {
                let Some(mut entry) = converted.next() else { break };
                let previous = if had { converted.next() } else { None };
                if look {
                    let event = Arc::new(Event::new(happened, entry, previous));
                    let Some((as_shown, of, _)) = self.through(&event) else { continue };
                    (happened, entry) = (as_shown, of);
                }
                let line = line(happened, &entry);
                ready.push_back(Pending::Seen(WatchEvent { happened, entry, line }));
            }
        }
        self.ready = ready;
        self.seen = seen;
        Ok(())
    }

    fn wants(&self, entry: &Entry) -> bool {
        self.selection.matches(entry) && self.selection.shows(&self.resource, entry)
    }

    /// What a change looks like through the selection: leaving it is a deletion, entering it an addition.
    fn see(&self, event: &Arc<Event>) -> Option<Result<WatchEvent, Status>> {
        self.through(event).map(|(happened, entry, shared)| self.event(happened, entry, shared))
    }

    /// The same before it is written; the event itself where others may see the same.
    fn through<'e>(&self, event: &'e Arc<Event>) -> Option<Through<'e>> {
        let gone = event.happened == Happened::Deleted;
        let now = !gone && self.wants(&event.entry);
        let before = event.previous.as_ref().filter(|previous| self.wants(previous));
        match (before, now) {
            (None, false) => None,
            (Some(_), false) if gone => Some((event.happened, event.entry.clone(), Some(event))),
            // Upstream shows the object as it was, at the revision at which it left.
            (Some(before), false) => Some((Happened::Deleted, before.at(event.revision()), None)),
            (None, true) => {
                let same = (event.happened == Happened::Added).then_some(event);
                Some((Happened::Added, event.entry.clone(), same))
            }
            (Some(_), true) => Some((Happened::Modified, event.entry.clone(), Some(event))),
        }
    }

    fn event(
        &self,
        happened: Happened,
        entry: Arc<Entry>,
        shared: Option<&Arc<Event>>,
    ) -> Result<WatchEvent, Status> {
        match shared.filter(|event| super::is_shown_as_stored(&self.resource, event.revision())) {
            Some(event) => Ok(WatchEvent { happened, entry, line: event.line() }),
            None => {
                let entry = self.rest.serve_local(&self.resource, entry)?;
                let line = line(happened, &entry);
                Ok(WatchEvent { happened, entry, line })
            }
        }
    }

    /// Waits until something is ready. `Err(None)` when the time is up, `Err(Some)` when the watch broke.
    async fn wait(&mut self) -> Result<(), Option<Status>> {
        let bookmark = if self.bookmarks { self.next_bookmark } else { self.deadline };
        tokio::select! {
            biased;
            () = self.subscription.queue.ready() => {}
            () = sleep_until(self.deadline) => return Err(None),
            () = sleep_until(bookmark) => {
                self.next_bookmark = next_bookmark(Instant::now(), self.deadline);
                if self.caught_up() {
                    self.ready.push_back(Pending::Bookmark { initial_end: false });
                }
                return Ok(());
            }
        }
        match self.subscription.queue.take() {
            Taken::Empty => Ok(()),
            Taken::Ended => Err(None),
            Taken::Lost => {
                self.rest.kind(&self.resource).counts.lost.fetch_add(1, Relaxed);
                Err(Some(Status::expired("the watch fell too far behind: list again and watch from there")))
            }
            Taken::Items(items) => {
                self.ready.extend(items.into_iter().map(Pending::Batch));
                Ok(())
            }
        }
    }

    /// Moves `seen` up to the head when nothing waits. The head is read first: what was committed up to it
    /// has been queued by then.
    fn caught_up(&mut self) -> bool {
        let head = self.rest.cache.head();
        match self.subscription.queue.take() {
            Taken::Empty => {
                self.seen = self.seen.max(head);
                true
            }
            Taken::Lost | Taken::Ended => false,
            Taken::Items(items) => {
                self.ready.extend(items.into_iter().map(Pending::Batch));
                false
            }
        }
    }

    fn bookmark(&self, initial_end: bool) -> Result<WatchEvent, Status> {
        let mut object = meta::Object::default();
        object.set(&["kind"], &*self.resource.kind);
        object.set(&["apiVersion"], self.resource.api_version());
        object.set(&["metadata", "creationTimestamp"], meta::Value::Null);
        if initial_end {
            object.set(&["metadata", "annotations", "k8s.io/initial-events-end"], "true");
        }
        let stored = Entry::encode(&object).map_err(Status::internal)?;
        let entry = Entry::commit(&stored, meta::Header::default(), self.seen).map_err(Status::internal)?;
        let line = line(Happened::Bookmark, &entry);
        Ok(WatchEvent { happened: Happened::Bookmark, entry, line })
    }
}
