//! The contract between the API server and whatever keeps its objects: five verbs on bytes.
//!
//! Guarantees, for every implementation that passes [`conformance`]: a write is durable before it is
//! acknowledged; revisions are contiguous and in commit order; a batch is applied whole or not at
//! all; a follower sees every change once, in order, or is told that history is gone. Deliberately
//! unaware of what the values mean: they are neither parsed nor changed here, and nobody but the API
//! server calls this.

pub mod backup;
mod error;
mod follow;
mod key;
mod memory;
mod plan;
mod types;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

use futures::{future::BoxFuture, stream::BoxStream};
use meta::Revision;

pub use error::Error;
pub use follow::follow_with;
pub use key::{InvalidKey, Key};
pub use memory::Memory;
pub use plan::{Current, Plan, check_size, plan};
pub use types::{
    BATCH_BYTES_MAX, BATCH_WRITES_MAX, Change, Expect, Head, KEY_BYTES_MAX, Loaded, Outcome, Stored,
    VALUE_BYTES_MAX, Write, Writers,
};

/// The result of every verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Keeps objects as bytes under keys, with one revision counter for all of them.
///
/// Expected outcomes are values ([`Outcome`]); an `Err` means that the store could not do its work.
pub trait Store: Send + Sync + 'static {
    /// Who may change what is stored while this store is open. Never changes. Whoever keeps a copy must
    /// [`Store::follow`] where it is [`Writers::Many`].
    fn writers(&self) -> Writers;

    /// Every object, in no particular order, then once [`Loaded::At`] with the revision that they
    /// all stand at, then the end. It is one snapshot: a commit during the load is in it whole or
    /// not at all. A stream that ends without [`Loaded::At`] is a defect of the store; after an
    /// `Err` nothing follows.
    fn load(&self) -> BoxStream<'_, Result<Loaded>>;

    /// Applies the writes in order, each seeing those before it, and answers one [`Outcome`] for
    /// each, in the same order. What is [`Outcome::Done`] is durable by then. Batches of concurrent
    /// callers are applied one after the other, in the order in which the calls were first polled.
    ///
    /// On `Err` none of the batch is applied and none will be, except after [`Error::Unknown`]
    /// (see there). Refuses, with [`Error::TooLarge`], a batch beyond [`BATCH_WRITES_MAX`],
    /// [`BATCH_BYTES_MAX`], [`VALUE_BYTES_MAX`] or [`KEY_BYTES_MAX`].
    ///
    /// Not cancel-safe: once polled, the batch may be committed although the future is dropped. It is
    /// then committed whole or not at all.
    fn commit(&self, batch: Vec<Write>) -> BoxFuture<'_, Result<Vec<Outcome>>>;

    /// Every change with a revision greater than `after`, whoever committed it, in order and
    /// without gaps, and then each new one once it is durable. Does not end by itself, except with
    /// [`Error::Compacted`] when the next change in line is no longer kept. An `after` beyond the
    /// newest revision waits until the store gets there.
    fn follow(&self, after: Revision) -> BoxStream<'_, Result<Change>>;

    /// Where the store stands now. Never older than the last acknowledged commit.
    fn head(&self) -> BoxFuture<'_, Result<Head>>;

    /// Forgets the changes up to and including `through`; `follow(through)` still works afterwards,
    /// `follow` from before it does not. Objects are not touched. Beyond the newest revision it
    /// forgets what there is; below [`Head::compacted`] it does nothing.
    fn compact(&self, through: Revision) -> BoxFuture<'_, Result<()>>;
}
