//! What a user types, against the real program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod aggregated;
mod buildbarn;
mod buildbarn_containers;
mod cluster;
mod control_plane;
mod databases;
mod nodes;
mod obsyk;
mod obsyk_alone;
mod obsyk_faults;
mod obsyk_measure;
mod obsyk_original;
mod pods;
mod security;
