//! What the node agent asks of a container runtime: `observe` what is there, `act` one step at a time.
//!
//! Guarantees: [`Runtime`] is object safe; its types know neither CRI's protobufs nor Docker's JSON;
//! every failure is an [`Error`] that names the step and says whether trying again can help.
//! [`simulated`] is a faithful fake, [`conformance`] the suite that every implementation passes.
//!
//! Deliberately unaware of the Pod API type: the node turns a Pod into the specs of [`action`] and an
//! [`ObservedPod`] into a Pod status. Not in the contract: Windows, checkpointing.

pub mod action;
pub mod conformance;
pub mod contract;
pub mod error;
pub mod image;
pub mod log;
pub mod observed;
pub mod simulated;
pub mod stats;

pub use action::{Action, ContainerSpec, Done, PodSandboxSpec};
pub use contract::{Event, ExecOutput, Runtime, StreamRequest, StreamUrl};
pub use error::{Error, ErrorKind, Result, Step};
pub use image::{Credentials, Image, PullPolicy};
pub use observed::{ContainerState, ObservedContainer, ObservedPod, ObservedSandbox, SandboxState};
