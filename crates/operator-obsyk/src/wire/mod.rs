//! The platform as the original speaks to it: four endpoints, RFC 7523 with ES256, one JSON document a
//! request, no compression. Beside it the batch mode (`batch`), for a platform that says it understands.
//!
//! Guarantees: a token is asked for once however many requests wait for it, and anew before it expires and
//! when the platform refuses it; every answer becomes a [`Trouble`] or success, and a trouble says whether
//! the same request may succeed later. Deliberately unaware of what is sent.

mod assertion;
mod batch;
mod key;
mod platform;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod trouble;

pub(crate) use assertion::assertion;
pub(crate) use batch::{Acknowledged, Opened, STATE, STREAM, acknowledged, opened, refused};
pub(crate) use key::authorities;
pub use key::{Credentials, KeyError};
#[cfg(test)]
pub(crate) use platform::TOKEN;
pub(crate) use platform::{EVENTS, HEARTBEAT, Platform, SNAPSHOT};
pub use transport::{
    Aborted, Body, Certificate, Http, HttpError, Https, REPLY_BYTES_MAX, Reply, Replying, full,
};
pub use trouble::{Refusal, Trouble};
