//! Why a measurement could not be made.

use std::{io, path::PathBuf};

/// Named for the step that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("start the runtime")]
    Runtime(#[source] io::Error),
    #[error("read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("kubeconfig {}: {why}", path.display())]
    Kubeconfig { path: PathBuf, why: String },
    #[error("{what}: {why}")]
    Credential { what: &'static str, why: String },
    #[error("server address {url:?}: {why}")]
    Address { url: String, why: String },
    #[error("connect to {to}")]
    Connect {
        to: String,
        #[source]
        source: io::Error,
    },
    #[error("the server at {to} does not speak HTTP/2")]
    NoHttp2 { to: String },
    #[error("set up TLS")]
    Tls(#[source] rustls::Error),
    #[error("{doing}")]
    Http {
        doing: &'static str,
        #[source]
        source: hyper::Error,
    },
    #[error("build a request")]
    Request(#[source] http::Error),
    #[error("{method} {path}: {status}: {body}")]
    Refused { method: http::Method, path: String, status: http::StatusCode, body: String },
    #[error("{path}: the answer is not as expected: {why}")]
    Answer { path: String, why: String },
    #[error("start {command:?}")]
    Spawn {
        command: String,
        #[source]
        source: io::Error,
    },
    #[error("the server did not become ready within {seconds} s: {last}")]
    NotReady { seconds: u64, last: String },
    #[error("the started server ended by itself: {0}")]
    Ended(std::process::ExitStatus),
    #[error("start the stand-in for a Buildbarn scheduler")]
    Scheduler(#[source] io::Error),
    #[error("{doing} process {pid}: {why}")]
    Process { doing: &'static str, pid: u32, why: String },
    #[error("{errors} of {requests} requests failed, the first so: {first}")]
    TooManyErrors { errors: u64, requests: u64, first: String },
    #[error("{}: already holds a store with {revision} writes: choose an empty directory", directory.display())]
    NotEmpty { directory: PathBuf, revision: u64 },
    #[error("store")]
    Store(#[from] store::Error),
    #[error("the store gave back {found} of {expected} objects")]
    Lost { found: usize, expected: usize },
    #[error("a task of the generator failed")]
    Task(#[from] tokio::task::JoinError),
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// The failure and what caused it, in a line.
pub(crate) fn chain(failure: &dyn std::error::Error) -> String {
    let mut text = failure.to_string();
    let mut source = failure.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
