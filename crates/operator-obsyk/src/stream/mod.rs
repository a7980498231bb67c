//! From the cluster to the platform, with nothing lost and a bound on what is held.
//!
//! - `state`: what the cluster has, what the platform has, and what has to be said. Pure.
//! - `whole`: what a snapshot means for it. Pure.
//! - `repair`: what was dropped or never sent, read again kind by kind. Pure.
//! - `refused`: what the platform did not take, said again after a while. Pure.
//! - `compare`: what both ends have, by digests. Pure.
//! - `session`: the batches of the better mode. Pure.
//! - `feed`: twenty watches, projected while they are decoded.
//! - `listing`: a snapshot, streamed from lists into the body of a request.
//! - `gate`: when the platform may be tried again. Pure.
//! - `lag`: how far behind the platform is. Pure.
//! - `agent`: the loop that owns them; `batching` is its part of the better mode, `report` what it says of itself.

mod agent;
mod batching;
mod compare;
pub(crate) mod feed;
mod gate;
mod lag;
mod listing;
#[cfg(test)]
mod model;
mod refused;
mod repair;
mod report;
mod session;
mod state;
#[cfg(test)]
mod storm;
mod whole;

pub(crate) use agent::{Agent, Settings};
pub(crate) use report::Report;
