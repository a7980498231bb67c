//! PostgreSQL with one member, on the official image or one that behaves like it.

use std::collections::BTreeMap;

use super::{CONFIG_PATH, Traits, check_parameters};
use crate::{
    types::{PostgreSql, SecretKey},
    validate::{Valid, Wrong},
};

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// First database.
    pub database: String,
    /// Superuser.
    pub username: String,
    /// Where the user keeps the password.
    pub password_secret: Option<SecretKey>,
    /// Settings of `postgresql.conf`.
    pub parameters: BTreeMap<String, String>,
}

/// What the operator decides: paths, listening, and what replication and archiving will need.
const DENIED: &[&str] = &[
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    "ident_file",
    "include",
    "include_dir",
    "include_if_exists",
    "listen_addresses",
    "port",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "archive_command",
    "archive_library",
    "restore_command",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "ssl",
    "ssl_ca_file",
    "ssl_cert_file",
    "ssl_crl_file",
    "ssl_key_file",
    "local_preload_libraries",
    "stats_temp_directory",
];

/// Longest identifier (`NAMEDATALEN` - 1).
const IDENTIFIER_MAX: usize = 63;

/// The data directory is below the mount point: the images refuse a volume at their own default from version
/// 18 on, and a new file system's `lost+found` would make `initdb` refuse the directory.
const PGDATA: &str = "/var/lib/postgresql/data/pgdata";

pub(crate) fn validate(given: Option<&PostgreSql>, wrong: &mut Wrong) -> Option<Settings> {
    let given = given.cloned().unwrap_or_default();
    let known = wrong.len();
    let name = |value: Option<String>| value.unwrap_or_else(|| "postgres".to_owned());
    let settings = Settings {
        database: name(given.database),
        username: name(given.username),
        password_secret: given.password_secret,
        parameters: given.parameters,
    };
    for (field, value) in [("database", &settings.database), ("username", &settings.username)] {
        if value.is_empty() || value.len() > IDENTIFIER_MAX || value.chars().any(char::is_control) {
            wrong.push(format!(
                "spec.postgresql.{field}: must have 1 to {IDENTIFIER_MAX} printable characters"
            ));
        }
    }
    if settings.username.starts_with("pg_") {
        wrong.push("spec.postgresql.username: names that begin with pg_ belong to the server".to_owned());
    }
    let named = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
    };
    check_parameters("spec.postgresql.parameters", &settings.parameters, named, DENIED, wrong);
    (wrong.len() == known).then_some(settings)
}

pub(crate) fn traits(settings: &Settings, valid: &Valid) -> Traits {
    let Settings { database, username, password_secret: _, parameters } = settings;
    // Alpine's package has another user than Debian's.
    let id = if valid.image.contains("alpine") { 70 } else { 999 };
    let mut args =
        vec!["postgres".to_owned(), "-c".to_owned(), format!("hba_file={CONFIG_PATH}/pg_hba.conf")];
    for (name, value) in parameters {
        args.extend(["-c".to_owned(), format!("{name}={value}")]);
    }
    Traits {
        label: "postgresql",
        port: 5432,
        mount: "/var/lib/postgresql/data",
        uid: id,
        gid: id,
        env: vec![
            ("POSTGRES_DB", database.clone()),
            ("POSTGRES_USER", username.clone()),
            ("PGDATA", PGDATA.to_owned()),
            ("POSTGRES_INITDB_ARGS", "--data-checksums --auth-host=scram-sha-256".to_owned()),
        ],
        password_variable: "POSTGRES_PASSWORD",
        command: Vec::new(),
        args,
        files: [
            ("pg_hba.conf", HBA.to_owned()),
            ("ready.sh", READY.to_owned()),
            ("alive.sh", ALIVE.to_owned()),
            ("stop.sh", STOP.to_owned()),
        ]
        .into(),
        scratch: &[("run", "/var/run/postgresql"), ("tmp", "/tmp")],
        ready: "ready.sh",
        alive: "alive.sh",
        stop: "stop.sh",
        grace_seconds: 120,
    }
}

/// The Unix socket is inside the container; everything else needs the password, 127.0.0.1 included, so that
/// the readiness script tests what clients do.
const HBA: &str = "\
# Written by the database operator.
local all all trust
host all all all scram-sha-256
local replication all trust
host replication all all scram-sha-256
";

/// Ready: the server takes connections, and with the password in the Secret. Where the Secret has another
/// password than the server (it was changed, or made anew over a volume that was kept), the server gets it,
/// and the next look finds it ready. psql takes the password from its environment, never from arguments.
const READY: &str = r#"
# Written by the database operator.
pg_isready -q -h /var/run/postgresql -U "$POSTGRES_USER" -d "$POSTGRES_DB" || exit 1
export PGCONNECT_TIMEOUT=5
if PGPASSWORD="$POSTGRES_PASSWORD" psql -qtA -h 127.0.0.1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -c 'SELECT 1' >/dev/null 2>&1
then
    exit 0
fi
psql -q -h /var/run/postgresql -U "$POSTGRES_USER" -d postgres -v ON_ERROR_STOP=1 -v user="$POSTGRES_USER" >/dev/null <<'SQL'
\set password `printf '%s' "$POSTGRES_PASSWORD"`
SET log_statement = none;
ALTER ROLE :"user" PASSWORD :'password';
SQL
echo "the server had another password or is not up yet; looking again"
exit 1
"#;

/// Alive: something answers, be it that the server starts up or recovers (1); nothing answers is 2.
const ALIVE: &str = r#"
# Written by the database operator.
pg_isready -q -h /var/run/postgresql -U "$POSTGRES_USER" -d "$POSTGRES_DB"
[ $? -ne 2 ]
"#;

/// Fast shutdown: clients are cut, nothing committed is lost. SIGTERM alone would wait for clients.
const STOP: &str = r#"
# Written by the database operator.
exec pg_ctl -D "$PGDATA" -m fast -w -t 100 stop
"#;
