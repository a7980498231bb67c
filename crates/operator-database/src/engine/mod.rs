//! What differs between engines, as data: everything else exists once.

pub(crate) mod postgresql;
pub(crate) mod redis;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{types::SecretKey, validate::Valid};

/// An engine with its checked settings.
#[derive(Clone, Debug)]
pub enum Engine {
    /// PostgreSQL.
    PostgreSql(postgresql::Settings),
    /// Redis.
    Redis(redis::Settings),
}

/// What the shared children need to know of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    /// Value of the label `database-type`.
    pub(crate) label: &'static str,
    /// Port of the protocol.
    pub(crate) port: u16,
    /// Where the volume goes.
    pub(crate) mount: &'static str,
    /// User and group of the processes.
    pub(crate) uid: i64,
    /// Group of the processes and of the volume.
    pub(crate) gid: i64,
    /// Environment, the password left out.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Variable that carries the password.
    pub(crate) password_variable: &'static str,
    /// The container's command; empty for the image's own.
    pub(crate) command: Vec<String>,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Files mounted at [`CONFIG_PATH`].
    pub(crate) files: BTreeMap<&'static str, String>,
    /// Writable directories beside the volume; the root is read-only.
    pub(crate) scratch: &'static [(&'static str, &'static str)],
    /// Script (in `files`) whose success means that the engine serves clients.
    pub(crate) ready: &'static str,
    /// Script whose failure means that the engine has to be restarted.
    pub(crate) alive: &'static str,
    /// Script that ends the engine in good order.
    pub(crate) stop: &'static str,
    /// How long that may take.
    pub(crate) grace_seconds: i64,
}

/// Where configuration files are mounted.
pub(crate) const CONFIG_PATH: &str = "/etc/keelson";

impl Engine {
    /// The official image.
    pub(crate) fn repository(&self) -> &'static str {
        match self {
            Self::PostgreSql(_) => "postgres",
            Self::Redis(_) => "redis",
        }
    }

    pub(crate) fn password_secret(&self) -> Option<&SecretKey> {
        match self {
            Self::PostgreSql(settings) => settings.password_secret.as_ref(),
            Self::Redis(settings) => settings.password_secret.as_ref(),
        }
    }

    pub(crate) fn traits(&self, valid: &Valid) -> Traits {
        match self {
            Self::PostgreSql(settings) => postgresql::traits(settings, valid),
            Self::Redis(settings) => redis::traits(settings, valid),
        }
    }

    /// How clients connect, with placeholders where credentials belong.
    pub(crate) fn connection_string(&self, host: &str) -> String {
        match self {
            Self::PostgreSql(settings) => {
                format!("postgresql://<username>:<password>@{host}:5432/{}", settings.database)
            }
            Self::Redis(_) => format!("redis://:<password>@{host}:6379"),
        }
    }

    /// What a generated Secret holds besides the password.
    pub(crate) fn credentials(&self, host: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::PostgreSql(settings) => vec![
                ("username", settings.username.clone()),
                ("database", settings.database.clone()),
                ("host", host.to_owned()),
                ("port", "5432".to_owned()),
            ],
            Self::Redis(_) => vec![("host", host.to_owned()), ("port", "6379".to_owned())],
        }
    }
}

/// Checks names and values of engine parameters: `name` says what a name may be, `denied` which the
/// operator keeps to itself.
pub(crate) fn check_parameters(
    field: &str,
    parameters: &BTreeMap<String, String>,
    named: impl Fn(&str) -> bool,
    denied: &[&str],
    wrong: &mut Vec<String>,
) {
    for (name, value) in parameters {
        if !named(name) {
            wrong.push(format!("{field}: {name:?} is not the name of a parameter"));
        } else if denied.iter().any(|denied| name.eq_ignore_ascii_case(denied)) {
            wrong.push(format!("{field}.{name}: is set by the operator, remove it"));
        }
        if value.contains(['\n', '\r', '\0']) {
            wrong.push(format!("{field}.{name}: must be a single line"));
        }
    }
}

/// An exec action that runs a mounted script.
pub(crate) fn script(name: &str) -> Value {
    serde_json::json!({"exec": {"command": ["/bin/sh", format!("{CONFIG_PATH}/{name}")]}})
}
