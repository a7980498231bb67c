//! What the parts of one open store know together: how far it has followed the log, and whether it
//! must stop.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use meta::Revision;
use store::{Change, Error};
use tokio::sync::watch;

use crate::{pool::Pool, schema::Opened, window::Window};

/// Shown as the head to followers of a store that must stop, so that all of them wake and are told.
const WAKE_ALL: Revision = Revision(u64::MAX);

/// See the module.
pub(crate) struct Shared {
    pub(crate) pool: Pool,
    pub(crate) cluster: String,
    pub(crate) epoch: AtomicU64,
    /// Whether the bus, or the listener, is at work; when not, the head is asked for more often.
    pub(crate) woken: AtomicBool,
    /// The newest revision known to be committed, from whatever hint; the tail catches up to it.
    pub(crate) target: watch::Sender<u64>,
    /// The end of the window, for followers.
    pub(crate) head: watch::Sender<Revision>,
    pub(crate) counters: Counters,
    window: Mutex<Window>,
    fatal: Mutex<Option<Error>>,
}

/// How changes arrived, for tests and measurements.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) own: AtomicU64,
    pub(crate) bus: AtomicU64,
    pub(crate) log: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) resolved: AtomicU64,
}

impl Shared {
    pub(crate) fn new(pool: Pool, opened: &Opened) -> Self {
        let Opened { cluster, revision, epoch, compacted: _ } = opened.clone();
        Self {
            pool,
            cluster,
            epoch: AtomicU64::new(epoch),
            woken: AtomicBool::new(false),
            target: watch::Sender::new(revision),
            head: watch::Sender::new(Revision(revision)),
            counters: Counters::default(),
            window: Mutex::new(Window::new(revision)),
            fatal: Mutex::default(),
        }
    }

    pub(crate) fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody says that `revision` is committed.
    pub(crate) fn hint(&self, revision: u64) {
        self.target.send_if_modified(|target| {
            let news = revision > *target;
            *target = revision.max(*target);
            news
        });
    }

    /// Adds committed changes, in order; where some are missing before them, has the tail read those
    /// and these from the log.
    pub(crate) fn push(&self, changes: Vec<Change>, counter: &AtomicU64) {
        let Some(last) = changes.last().map(|change| change.revision.0) else { return };
        let mut window = self.window();
        let before = window.end();
        let gap = window.push(changes).is_err();
        let end = window.end();
        counter.fetch_add(end - before, Ordering::Relaxed);
        if end > before {
            self.show(Revision(end));
        }
        drop(window);
        if gap {
            self.hint(last);
        }
    }

    /// Goes on after changes that nobody can read any more.
    pub(crate) fn skip_to(&self, revision: Revision) {
        let mut window = self.window();
        if revision.0 > window.end() {
            *window = Window::new(revision.0);
            self.show(revision);
        }
    }

    /// Shows followers a new end. Called while the window is locked, so that the head never goes back.
    fn show(&self, end: Revision) {
        self.head.send_if_modified(|head| {
            let news = *head != WAKE_ALL;
            if news {
                *head = end;
            }
            news
        });
    }

    /// Stops this store for good.
    pub(crate) fn stop(&self, error: Error) {
        let mut fatal = self.fatal.lock().unwrap_or_else(PoisonError::into_inner);
        if fatal.is_none() {
            tracing::error!(%error, "the store in PostgreSQL must stop");
            *fatal = Some(error);
            self.head.send_replace(WAKE_ALL);
        }
    }

    /// Why it must stop.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.fatal.lock().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Takes note of where PostgreSQL says that it stands. `end` is the window's end before it was asked.
    pub(crate) fn observe(&self, revision: u64, epoch: u64, end: u64) {
        let ours = self.epoch.load(Ordering::Relaxed);
        if epoch > ours {
            self.stop(Error::Deposed { epoch });
        } else if revision < end {
            let why = format!(
                "PostgreSQL went back from revision {end} to {revision}: a standby without the last commits was \
                 promoted, or a backup restored"
            );
            self.stop(Error::Stopped { why: why.into() });
        } else {
            self.hint(revision);
        }
    }
}
