//! The garbage collector: deletes objects whose owners are all gone, and carries out foreground and
//! orphan deletion (upstream `pkg/controller/garbagecollector`).
//!
//! [`Graph`] holds what the metadata-only watches of all resources say, built-in and CRD alike;
//! [`monitors`] keeps those watches in step with discovery; [`GarbageCollector`] decides about one
//! object at a time, by UID. Nothing is deleted on the word of a watch: the object and every owner that
//! seems gone are read from the API first.

mod collect;
mod graph;
mod monitors;
#[cfg(test)]
mod tests;

pub use collect::GarbageCollector;
pub(crate) use graph::Graph;
pub(crate) use monitors::monitors;
