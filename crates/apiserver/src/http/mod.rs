//! The HTTP face of the server: from a request to the verb it means, and back.
//!
//! Guarantees: every request passes the one chain (authenticate, impersonate, authorize, route, handle);
//! every error is a `metav1.Status`; a body is bounded; stored bytes are written as they are. Knows no kind
//! and decides nothing about objects: that is `rest`.

mod attributes;
mod backup;
mod body;
mod chain;
mod cork;
mod decode;
#[cfg(any(test, feature = "decoders"))]
pub(crate) mod decoders;
mod encode;
mod gzip;
mod health;
mod impersonate;
mod list;
mod negotiate;
mod noticed;
mod paths;
mod protobuf;
mod query;
mod resources;
mod route;
mod serve;
mod service;
mod tls;
mod warnings;
mod watch;
mod websocket;
mod write;

pub(crate) use encode::partial;

pub use backup::BACKUP_PATH;
pub use body::{Body, BoxError};
pub use chain::{Configured, Expose};
pub use health::{Check, Health};
pub use serve::{ServeError, Server, Serving};
pub use service::InProcess;
pub use tls::{TlsError, tls_config};
pub(crate) use tls::{Trust, client_config};

pub(crate) use body::Input;
pub(crate) use encode::response;
#[cfg(test)]
pub(crate) use noticed::span_name;
pub(crate) use resources::Call;

#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod built_in;
#[cfg(test)]
mod tests;
