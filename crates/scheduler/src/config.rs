//! The scheduler's configuration file, in upstream's form: `KubeSchedulerConfiguration` of
//! `kubescheduler.config.k8s.io/v1`.
//!
//! Guarantees: what is read is done; a field that this scheduler does not know or cannot honour is refused
//! by its path, with what to do instead. Every profile starts from upstream's defaults.

mod args;
mod plugins;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::{
    profile::{PreemptionArgs, Profile},
    queue::Backoff,
};

/// A configuration, read and checked.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// One for each `schedulerName`.
    pub profiles: Vec<Profile>,
    /// How long failed pods wait.
    pub backoff: Backoff,
    /// Several schedulers may run; one leads.
    pub leader_elect: bool,
}

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// It is not YAML or JSON of the right form.
    #[error("cannot read the scheduler's configuration: {0}")]
    Unreadable(String),
    /// A field is wrong.
    #[error("scheduler configuration, {path}: {why}")]
    Field {
        /// Which field.
        path: String,
        /// What is wrong with it, and what would be right.
        why: String,
    },
}

impl ConfigError {
    pub(crate) fn at(path: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Field { path: path.into(), why: why.into() }
    }
}

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

/// Fields of upstream's that mean nothing here, and why.
const FOREIGN: &[(&str, &str)] = &[
    ("extenders", "is not supported: this scheduler calls no extenders"),
    ("clientConnection", "is not supported: name the cluster with --kubeconfig"),
    ("parallelism", "is not supported: decisions are made by one thread; remove it"),
    ("enableProfiling", "is not supported; remove it"),
    ("enableContentionProfiling", "is not supported; remove it"),
    ("delayCacheUntilActive", "is not supported; remove it"),
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(default)]
    leader_election: Election,
    percentage_of_nodes_to_score: Option<i64>,
    pod_initial_backoff_seconds: Option<i64>,
    pod_max_backoff_seconds: Option<i64>,
    #[serde(default)]
    profiles: Vec<Value>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Election {
    leader_elect: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WireProfile {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    #[serde(default)]
    plugins: Value,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PluginConfig {
    name: String,
    #[serde(default)]
    args: Value,
}

/// A profile as it is put together.
pub(crate) struct Draft {
    pub(crate) profile: Profile,
    /// What preemption was told, for when it is turned off and on again.
    pub(crate) preemption: Option<PreemptionArgs>,
}

impl Configuration {
    /// Upstream's defaults.
    pub fn new(seed: u64) -> Self {
        Self { profiles: vec![Profile::new(seed)], backoff: Backoff::default(), leader_elect: false }
    }

    /// Reads YAML or JSON.
    pub fn read(text: &str, seed: u64) -> Result<Self, ConfigError> {
        let value: Value =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Unreadable(error.to_string()))?;
        let header = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default();
        for (field, wanted) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            if header(field) != wanted {
                return Err(ConfigError::at(field, format!("is {:?}; want {wanted}", header(field))));
            }
        }
        for (field, why) in FOREIGN {
            if value.get(field).is_some() {
                return Err(ConfigError::at(*field, *why));
            }
        }
        let wire: Wire = parse("the file", value)?;
        percentage("percentageOfNodesToScore", wire.percentage_of_nodes_to_score)?;
        let mut profiles = Vec::new();
        for (at, profile) in wire.profiles.into_iter().enumerate() {
            profiles.push(read_profile(&format!("profiles[{at}]"), profile, seed)?);
        }
        if profiles.is_empty() {
            profiles.push(Profile::new(seed));
        }
        for (at, profile) in profiles.iter().enumerate() {
            if profiles.iter().take(at).any(|other| other.name == profile.name) {
                let why = format!("another profile is named {:?} as well", profile.name);
                return Err(ConfigError::at(format!("profiles[{at}].schedulerName"), why));
            }
        }
        Ok(Self {
            profiles,
            backoff: backoff(wire.pod_initial_backoff_seconds, wire.pod_max_backoff_seconds)?,
            leader_elect: wire.leader_election.leader_elect.unwrap_or(true),
        })
    }
}

/// Turns a value into a type that has no other fields.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(path: &str, value: Value) -> Result<T, ConfigError> {
    serde_json::from_value(value).map_err(|error| ConfigError::at(path, error.to_string()))
}

/// Every node is scored, which is at least any percentage.
fn percentage(path: &str, value: Option<i64>) -> Result<(), ConfigError> {
    match value {
        None | Some(0..=100) => Ok(()),
        Some(other) => Err(ConfigError::at(path, format!("is {other}; want 0 to 100"))),
    }
}

fn backoff(first: Option<i64>, longest: Option<i64>) -> Result<Backoff, ConfigError> {
    let default = Backoff::default();
    let seconds = |path: &str, value: Option<i64>, default: Duration| match value {
        None => Ok(default),
        Some(seconds) => match u64::try_from(seconds) {
            Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
            Ok(0) | Err(_) => Err(ConfigError::at(path, format!("is {seconds}; want at least 1"))),
        },
    };
    let first = seconds("podInitialBackoffSeconds", first, default.first)?;
    let longest = seconds("podMaxBackoffSeconds", longest, default.longest)?;
    if longest < first {
        return Err(ConfigError::at("podMaxBackoffSeconds", "is less than podInitialBackoffSeconds"));
    }
    Ok(Backoff { first, longest })
}

fn read_profile(path: &str, value: Value, seed: u64) -> Result<Profile, ConfigError> {
    let wire: WireProfile = parse(path, value)?;
    percentage(&format!("{path}.percentageOfNodesToScore"), wire.percentage_of_nodes_to_score)?;
    let mut draft = Draft { profile: Profile::new(seed), preemption: None };
    if let Some(name) = wire.scheduler_name {
        if name.is_empty() {
            return Err(ConfigError::at(format!("{path}.schedulerName"), "is empty"));
        }
        draft.profile.name = name.as_str().into();
    }
    // Arguments first: turning a plugin off leaves them without effect, and on gives them theirs.
    let mut seen: Vec<String> = Vec::new();
    for (at, PluginConfig { name, args }) in wire.plugin_config.into_iter().enumerate() {
        let path = format!("{path}.pluginConfig[{at}]");
        if seen.contains(&name) {
            return Err(ConfigError::at(path, format!("plugin {name} is configured twice")));
        }
        args::apply(&path, &name, args, &mut draft)?;
        seen.push(name);
    }
    plugins::apply(&format!("{path}.plugins"), wire.plugins, &mut draft)?;
    Ok(draft.profile)
}

#[cfg(test)]
mod tests;
