//! The Secrets and ConfigMaps that a pod refers to, as they were found.
//!
//! Guarantees: "does not exist" is a fact that is kept apart from "was not asked for"; the error
//! wording is upstream's. Pure: the driver fetches.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret, Volume};

/// Names of what has to be fetched before an environment or a volume can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// ConfigMaps by name.
    pub config_maps: BTreeSet<String>,
    /// Secrets by name.
    pub secrets: BTreeSet<String>,
}

impl Needs {
    /// What the environment of `container` refers to.
    pub fn of_env(container: &Container) -> Self {
        let mut needs = Self::default();
        for from in container.env_from.iter().flatten() {
            needs.config_maps.extend(from.config_map_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(from.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for source in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            needs.config_maps.extend(source.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            needs.secrets.extend(source.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
        needs
    }

    /// What the volumes of `pod` refer to.
    pub fn of_volumes(pod: &Pod) -> Self {
        let mut needs = Self::default();
        for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
            needs.add_volume(volume);
        }
        needs
    }

    fn add_volume(&mut self, volume: &Volume) {
        self.config_maps.extend(volume.config_map.as_ref().map(|source| source.name.clone()));
        self.secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.clone()));
        let projections = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
        for projection in projections {
            self.config_maps.extend(projection.config_map.as_ref().map(|source| source.name.clone()));
            self.secrets.extend(projection.secret.as_ref().map(|source| source.name.clone()));
        }
    }

    /// Whether nothing has to be fetched.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty()
    }
}

/// A reference to data that is not there. The wording is what users see in the container's status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// No such ConfigMap.
    #[error("configmap {0:?} not found")]
    ConfigMap(String),
    /// No such Secret.
    #[error("secret {0:?} not found")]
    Secret(String),
    /// The object has no such key.
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    Key {
        /// `ConfigMap` or `Secret`.
        kind: &'static str,
        /// Namespace of the pod.
        namespace: String,
        /// Name of the object.
        name: String,
        /// The key.
        key: String,
    },
    /// A value for an environment variable is not text.
    #[error(
        "key {key} in Secret {namespace}/{name} is not valid UTF-8, so it cannot be an environment variable"
    )]
    NotText {
        /// Namespace of the pod.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// The key.
        key: String,
    },
}

/// What was fetched; `None` for what does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Option<Secret>>,
}

impl Sources {
    /// The data of a ConfigMap as bytes; `Ok(None)` when it is missing and may be.
    pub fn config_map(&self, name: &str, optional: bool) -> Result<Option<BTreeMap<&str, &[u8]>>, Missing> {
        match self.config_maps.get(name).and_then(Option::as_ref) {
            Some(map) => {
                let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
                let binary = map.binary_data.iter().flatten();
                let binary = binary.map(|(key, value)| (key.as_str(), value.0.as_slice()));
                Ok(Some(text.chain(binary).collect()))
            }
            None if optional => Ok(None),
            None => Err(Missing::ConfigMap(name.to_owned())),
        }
    }

    /// The data of a Secret; `Ok(None)` when it is missing and may be.
    pub fn secret(&self, name: &str, optional: bool) -> Result<Option<BTreeMap<&str, &[u8]>>, Missing> {
        match self.secrets.get(name).and_then(Option::as_ref) {
            Some(secret) => {
                let data = secret.data.iter().flatten();
                Ok(Some(data.map(|(key, value)| (key.as_str(), value.0.as_slice())).collect()))
            }
            None if optional => Ok(None),
            None => Err(Missing::Secret(name.to_owned())),
        }
    }
}
