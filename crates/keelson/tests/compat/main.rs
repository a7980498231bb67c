//! Real clients against the real program: client-go and controller-runtime (the Go program beside this
//! file), and kube-rs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that fails says so by panicking"
)]

mod client_go;
#[allow(dead_code, reason = "shared with the end-to-end tests, which use all of it")]
#[path = "../e2e/cluster.rs"]
mod cluster;
mod every_kind;
mod kube_rs;
mod kubectl;
mod samples;
mod upstream;
