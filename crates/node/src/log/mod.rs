//! Container logs: what `kubectl logs` shows ([`Filter`], [`send`]) and keeping them bounded
//! ([`rotate`]).
//!
//! Guarantees upstream's meaning of `tailLines`, `sinceSeconds`, `sinceTime`, `limitBytes`,
//! `timestamps`, `stream` and `follow` (`cri-client/pkg/logs`). Like upstream, only the newest file of
//! a rotated log is read. Knows nothing of HTTP.

mod file;
mod filter;
mod follow;

pub use file::{rotate, tail_of_file};
pub use filter::{Filter, LogOptions, Which, plain_tail};
pub use follow::send;
