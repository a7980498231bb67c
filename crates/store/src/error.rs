//! Why a store could not do its work. Cheap to clone: one failed sync answers many waiting writers.

use std::{io, path::PathBuf, sync::Arc};

use meta::Revision;

/// A failure of the store, each with what the reader can do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The follower asked for changes that are no longer kept. It must load again. The one expected
    /// outcome among these.
    #[error("changes after revision {asked} are no longer kept, the oldest possible start is {compacted}")]
    Compacted {
        /// What `follow` had delivered, or was asked to start after.
        asked: Revision,
        /// The oldest revision to start after now.
        compacted: Revision,
    },
    /// The batch is beyond a bound of the contract; nothing of it is applied.
    #[error("{what} is {size}, the store takes at most {limit}")]
    TooLarge {
        /// What is too large, and of which key.
        what: String,
        /// Its size.
        size: usize,
        /// The bound.
        limit: usize,
    },
    /// No space left; nothing of the batch is applied. Later commits work once there is space.
    #[error("no space left on the disk of {}: free some space, nothing was lost and later writes will succeed", path.display())]
    DiskFull {
        /// The file or directory that could not grow.
        path: PathBuf,
    },
    /// Another process has the store open.
    #[error("{} is in use by another process ({holder}): stop it first, or choose another directory", path.display())]
    Locked {
        /// The store's directory.
        path: PathBuf,
        /// Who holds it, such as `pid 4711`.
        holder: String,
    },
    /// What is stored is not what was written.
    #[error("{} is damaged at byte {offset}: {why}; {advice}", path.display())]
    Damaged {
        /// The damaged file.
        path: PathBuf,
        /// Where in it; 0 when the whole file is meant.
        offset: u64,
        /// What is wrong.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// The files were written by a newer release.
    #[error("{} has format {found}, this release reads up to {supported}: start the newer release that wrote it", path.display())]
    NewerFormat {
        /// The file that says so.
        path: PathBuf,
        /// The format it has.
        found: u32,
        /// The newest format this release knows.
        supported: u32,
    },
    /// The store that was to be filled holds something.
    #[error("{what} is not empty: nothing was changed; name an empty one")]
    NotEmpty {
        /// Which store.
        what: String,
    },
    /// Another writer has taken the store over; this one must not write any more.
    #[error("another writer took the store over in epoch {epoch}: this one must stop")]
    Deposed {
        /// The epoch of the new writer.
        epoch: u64,
    },
    /// The batch was sent but the answer did not come: it is applied whole or not at all, and only
    /// loading tells which.
    #[error("the store gave no answer to {doing}: it may or may not have been applied")]
    Unknown {
        /// What was attempted.
        doing: &'static str,
    },
    /// The store stopped for good after an earlier failure that it cannot repair while running.
    #[error("the store stopped after an earlier failure: {why}; restart to recover what was acknowledged")]
    Stopped {
        /// The earlier failure.
        why: Arc<str>,
    },
    /// A file operation failed.
    #[error("{doing} {}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The engine or server underneath failed.
    #[error("{doing}")]
    Backend {
        /// What was attempted.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
}
