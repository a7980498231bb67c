//! Redis with one member, on the official image or one that behaves like it.

use std::collections::BTreeMap;

use super::{CONFIG_PATH, Traits, check_parameters};
use crate::{
    types::{Redis, RedisMode, SecretKey},
    validate::{Valid, Wrong},
};

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the user keeps the password.
    pub password_secret: Option<SecretKey>,
    /// Settings of `redis.conf`.
    pub parameters: BTreeMap<String, String>,
}

/// What the operator decides: paths, listening, authentication, and how members find each other.
const DENIED: &[&str] = &[
    "aclfile",
    "bind",
    "bind-source-addr",
    "cluster-enabled",
    "cluster-config-file",
    "daemonize",
    "dir",
    "include",
    "loadmodule",
    "logfile",
    "masterauth",
    "masteruser",
    "pidfile",
    "port",
    "protected-mode",
    "rename-command",
    "replicaof",
    "requirepass",
    "slaveof",
    "supervised",
    "syslog-enabled",
    "tls-port",
    "unixsocket",
    "unixsocketperm",
    "user",
];

pub(crate) fn validate(given: Option<&Redis>, wrong: &mut Wrong) -> Option<Settings> {
    let given = given.cloned().unwrap_or_default();
    let known = wrong.len();
    match given.mode.unwrap_or_default() {
        RedisMode::Standalone => {}
        mode @ (RedisMode::Sentinel | RedisMode::Cluster) => wrong.push(format!(
            "spec.redis.mode: {} is not supported by this release: use standalone",
            format!("{mode:?}").to_lowercase()
        )),
    }
    let named = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    check_parameters("spec.redis.parameters", &given.parameters, named, DENIED, wrong);
    let settings = Settings { password_secret: given.password_secret, parameters: given.parameters };
    (wrong.len() == known).then_some(settings)
}

pub(crate) fn traits(settings: &Settings, valid: &Valid) -> Traits {
    let alpine = valid.image.contains("alpine");
    Traits {
        label: "redis",
        port: 6379,
        mount: "/data",
        uid: 999,
        gid: if alpine { 1000 } else { 999 },
        env: Vec::new(),
        password_variable: "REDIS_PASSWORD",
        command: vec!["/bin/sh".to_owned(), format!("{CONFIG_PATH}/start.sh")],
        args: Vec::new(),
        files: [
            ("redis.conf", configuration(settings)),
            ("start.sh", START.to_owned()),
            ("ready.sh", READY.to_owned()),
            ("alive.sh", ALIVE.to_owned()),
            ("stop.sh", STOP.to_owned()),
        ]
        .into(),
        scratch: &[("run", "/run/redis")],
        ready: "ready.sh",
        alive: "alive.sh",
        stop: "stop.sh",
        grace_seconds: 60,
    }
}

/// Everything is written to disk by default; the user's parameters come last and win.
fn configuration(settings: &Settings) -> String {
    let mut text = String::from(
        "# Written by the database operator.\n\
         bind * -::*\n\
         port 6379\n\
         protected-mode no\n\
         dir /data\n\
         appendonly yes\n\
         appendfsync everysec\n",
    );
    for (name, value) in &settings.parameters {
        let value = if value.is_empty() { "\"\"" } else { value };
        text.push_str(&format!("{name} {value}\n"));
    }
    text
}

/// The image does not read a password from its environment; the configuration gets it in memory, so that it
/// is in no argument and on no disk.
const START: &str = r#"
# Written by the database operator.
set -eu
umask 077
escaped=$(printf '%s' "$REDIS_PASSWORD" | sed 's/[\\"]/\\&/g')
{
    cat /etc/keelson/redis.conf
    printf 'requirepass "%s"\nmasterauth "%s"\n' "$escaped" "$escaped"
} >/run/redis/redis.conf
exec redis-server /run/redis/redis.conf
"#;

/// Ready: it answers a client that has the password; while it loads its data it does not.
const READY: &str = r#"
# Written by the database operator.
[ "$(REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -h 127.0.0.1 ping 2>/dev/null)" = PONG ]
"#;

/// Alive: it answers anything, be it that it loads its data.
const ALIVE: &str = r#"
# Written by the database operator.
case $(REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -h 127.0.0.1 ping 2>&1) in
*PONG* | *LOADING* | *BUSY* | *NOAUTH* | *WRONGPASS* | *MASTERDOWN*) exit 0 ;;
esac
exit 1
"#;

/// Writes what is in memory, then ends.
const STOP: &str = r#"
# Written by the database operator.
REDISCLI_AUTH="$REDIS_PASSWORD" redis-cli -h 127.0.0.1 shutdown
exit 0
"#;
