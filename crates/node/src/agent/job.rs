//! What a worker has done beside its own loop, so that a slow step of one container holds up nothing
//! else of the pod.

use std::{collections::BTreeMap, path::PathBuf};

use k8s_openapi::api::core::v1::ResourceRequirements;
use meta::Timestamp;

use crate::volume::Token;

/// A failed step: `reason` is CamelCase, as shown in the status and in events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) message: String,
}

impl Failed {
    pub(super) fn new(reason: &str, message: impl std::fmt::Display) -> Self {
        Self { reason: reason.to_owned(), message: message.to_string() }
    }
}

impl From<runtime::Error> for Failed {
    fn from(error: runtime::Error) -> Self {
        Self { reason: error.reason().to_owned(), message: error.to_string() }
    }
}

/// Tokens by what asked for them, with the time to ask again.
pub(super) type Tokens = BTreeMap<Token, (String, Timestamp)>;

/// Volumes that are usable.
#[derive(Debug, Default)]
pub(super) struct VolumesMade {
    pub(super) paths: BTreeMap<String, PathBuf>,
    pub(super) tokens: Tokens,
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Outcome {
    Volumes(Result<VolumesMade, Failed>),
    VolumesGone(Result<(), Failed>),
    Sandbox(Result<(), Failed>),
    /// A sandbox was stopped or removed.
    SandboxGone(Result<(), Failed>),
    Started(Result<(), Failed>),
    Stopped(Result<(), Failed>),
    /// What a container was given, or why not.
    Resized(Result<ResourceRequirements, Failed>),
    Removed(Result<(), Failed>),
    Deleted(Result<(), Failed>),
    Forgotten(Result<(), Failed>),
}

/// What a job is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Subject {
    Pod,
    Container(String),
}
