//! What Buildbarn's programs accept as configuration, without Buildbarn: a table of their messages and the rules
//! that they check when they start.
//!
//! Guarantees: what passes has no unknown field, no two members of one choice, no value of the wrong type, and all
//! that the programs require. Deliberately unaware of what the configuration is for. Cloud sessions, FUSE and NFS
//! mounts are not looked into.

mod check;
mod rules;
mod table;
#[cfg(test)]
mod tests;

use serde_json::Value;

pub(crate) use rules::bad_instance_name;
#[cfg(test)]
pub(crate) use table::{Shape, Table, Type, kind as kind_of, table};

/// A program that reads a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Program {
    /// `bb_storage`, as a shard or as the frontend.
    Storage,
    /// `bb_scheduler`.
    Scheduler,
    /// `bb_worker`.
    Worker,
    /// `bb_runner`.
    Runner,
    /// `bb_browser`.
    Browser,
}

impl Program {
    /// The message that its file holds.
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Storage => "bb_storage.ApplicationConfiguration",
            Self::Scheduler => "bb_scheduler.ApplicationConfiguration",
            Self::Worker => "bb_worker.ApplicationConfiguration",
            Self::Runner => "bb_runner.ApplicationConfiguration",
            Self::Browser => "bb_browser.ApplicationConfiguration",
        }
    }
}

/// Checks a whole configuration. Each fault begins with the path of the field.
pub fn check(program: Program, configuration: &Value) -> Vec<String> {
    message(program.message(), configuration)
}

/// Checks a part of a configuration that is one message.
pub(crate) fn message(name: &str, value: &Value) -> Vec<String> {
    let mut faults = check::Faults::default();
    faults.message(name, value);
    faults.into_list()
}
