//! The runtime contract over containerd's socket (CRI v1), and a private containerd to have one.
//!
//! Guarantees: [`Containerd`] passes `runtime::conformance` on a real containerd; pods that it did not
//! make are neither shown nor touched. [`private::Private`] needs nothing of the machine but the programs
//! of Debian's containerd, runc and CNI plugin packages, and keeps everything below one directory.
//!
//! Deliberately unaware of Pods, probes and back-off: that is the node's.

mod config;
mod connection;
mod containerd;
mod cri;
mod events;
mod images;
mod observe;
mod pause;
pub mod private;

pub use containerd::Containerd;
pub use images::Registries;
