//! The platform's side of the Obsyk contract: for tests, for demonstrations, and for people who want their
//! inventory at home.
//!
//! Guarantees: strict about the wire (an assertion, a field or a header that the contract does not know is
//! refused, and said); what is acknowledged is in the store first; a batch is applied whole or not at all,
//! and once however often it comes; one client's clusters are not another's. Deliberately unaware of sockets:
//! it answers requests, the program above it serves them. It shares no code with the agent, so that a mistake
//! of one is seen by the other.

mod answer;
mod assertion;
mod clients;
mod cluster;
mod contract;
mod digest;
mod faults;
mod keep;
mod kinds;
mod legacy;
#[cfg(feature = "oracle")]
pub mod oracle;
mod page;
mod query;
mod receiver;
mod session;
#[cfg(test)]
mod tests;
mod tokens;

pub use answer::{Answer, Cut};
pub use clients::{Client, ClientError, Clients, public_key_pem};
pub use faults::{Fault, FaultError, Faults};
pub use receiver::{OpenError, Options, Receiver, SnapshotPolicy};
