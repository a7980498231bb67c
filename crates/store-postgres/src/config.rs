//! Where PostgreSQL and Redis are and how to get in, read from URLs. Nothing here prints a password.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use percent_encoding::percent_decode_str;
use tokio_postgres::config::SslMode;
use url::Url;

use crate::{
    events::Events,
    fault::Fault,
    tls::{self, TlsFiles},
};

/// What the store needs to know.
#[derive(Clone)]
pub struct Config {
    server: tokio_postgres::Config,
    password: Password,
    pub(crate) tls: Option<rustls::ClientConfig>,
    /// Host, port and database, for messages.
    pub(crate) name: String,
    pub(crate) database: String,
    /// Most connections for reading; writing and listening have one more each.
    pub(crate) connections_max: usize,
    /// Longest for one statement, by PostgreSQL's clock.
    pub(crate) statement: Duration,
    /// Longest to wait for an answer, by ours.
    pub(crate) answer: Duration,
    /// Longest to go on trying while PostgreSQL cannot be reached.
    pub(crate) patience: Duration,
    pub(crate) events: Option<Events>,
}

#[derive(Clone)]
enum Password {
    None,
    Text(String),
    File(PathBuf),
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("server", &self.name)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

const WHAT: &str = "the PostgreSQL URL";

impl Config {
    /// Reads `postgres://USER[:PASSWORD]@HOST[:PORT]/DATABASE[?PARAMETERS]`.
    ///
    /// A host such as `%2Frun%2Fpostgresql` is the directory of a Unix socket. Parameters: `passwordFile`
    /// (read at each connection),
    /// `sslmode` (`disable` or `verify-full`; the latter unless the host is this machine),
    /// `sslrootcert` (the system's authorities otherwise), `sslcert` and `sslkey`,
    /// `connections` (1 to 64 for reading, 4 otherwise), `statementTimeout` (seconds, 1 to 600, 10 otherwise).
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let url = parse_url(WHAT, text, &["postgres", "postgresql"])?;
        let refuse = |why: String| Fault::Url { what: WHAT, why };
        let mut files = TlsFiles::default();
        let (mut file, mut sslmode) = (None, None);
        let (mut connections_max, mut statement) = (4, 10);
        for (name, value) in url.query_pairs() {
            match &*name {
                "passwordFile" => file = Some(PathBuf::from(&*value)),
                "sslmode" => sslmode = Some(value.into_owned()),
                "sslrootcert" => files.roots = Some(PathBuf::from(&*value)),
                "sslcert" => files.certificate = Some(PathBuf::from(&*value)),
                "sslkey" => files.key = Some(PathBuf::from(&*value)),
                "connections" => connections_max = number(WHAT, &name, &value, 1..=64)?,
                "statementTimeout" => statement = number(WHAT, &name, &value, 1..=600)?,
                other => return Err(refuse(format!("parameter {other:?} is not known"))),
            }
        }
        let port = url.port().unwrap_or(5432);
        let host = decode(WHAT, url.host_str().unwrap_or_default())?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || host.contains(',') {
            return Err(refuse("it must name exactly one host".into()));
        }
        let user = decode(WHAT, url.username())?;
        let database = decode(WHAT, url.path().trim_start_matches('/'))?;
        if user.is_empty() || database.is_empty() || database.contains('/') {
            return Err(refuse("it must have the form postgres://USER@HOST:PORT/DATABASE".into()));
        }
        let local = host.starts_with('/') || ["localhost", "127.0.0.1", "::1"].contains(&host.as_str());
        let encrypt = match sslmode.as_deref() {
            None => !local,
            Some("disable") => false,
            Some("verify-full") => true,
            Some(other) => {
                return Err(refuse(format!(
                    "sslmode {other:?} is not supported: it does not make sure who answers; say verify-full, or disable"
                )));
            }
        };
        let mut server = tokio_postgres::Config::new();
        server.user(user).dbname(&database).port(port).host(&host).application_name("keelson");
        server.ssl_mode(if encrypt { SslMode::Require } else { SslMode::Disable });
        server.connect_timeout(Duration::from_secs(5)).tcp_user_timeout(Duration::from_secs(15));
        server.keepalives_idle(Duration::from_secs(15));
        let password = match (password(WHAT, &url)?, file) {
            (Some(_), Some(_)) => return Err(refuse("it has both a password and a passwordFile".into())),
            (Some(text), None) => Password::Text(text),
            (None, Some(path)) => Password::File(path),
            (None, None) => Password::None,
        };
        let tls = if encrypt { Some(tls::client(&files)?) } else { None };
        let statement = Duration::from_secs(statement as u64);
        Ok(Self {
            server,
            password,
            tls,
            name: format!("{host}:{port}/{database}"),
            database,
            connections_max,
            statement,
            answer: statement + Duration::from_secs(2),
            patience: Duration::from_secs(15),
            events: None,
        })
    }

    /// Carries events by Redis Streams: `redis://[[USER]:PASSWORD@]HOST[:PORT][/NUMBER][?PARAMETERS]`, or
    /// `rediss://` for TLS. Parameters: `passwordFile` (read at each connection), `sslrootcert`.
    ///
    /// Behind Sentinels: `redis+sentinel://[[USER]:PASSWORD@]SENTINEL[:PORT],.../MASTER[/NUMBER]`, with user and
    /// password of Redis and `sentinelPasswordFile` for the Sentinels' own. In a Cluster:
    /// `redis+cluster://[[USER]:PASSWORD@]HOST[:PORT],...`, members of which one must answer whenever a connection is made. Both
    /// with `rediss` for TLS, to all.
    pub fn with_events(mut self, url: &str) -> Result<Self, Fault> {
        self.events = Some(Events::parse(url)?);
        Ok(self)
    }

    /// Host, port and database; without user and password.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How long commits and reads go on trying while PostgreSQL cannot be reached; 15 s otherwise.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// For one attempt to connect, with the password as it is now.
    pub(crate) fn server(&self) -> Result<tokio_postgres::Config, Fault> {
        let mut server = self.server.clone();
        match &self.password {
            Password::None => {}
            Password::Text(text) => {
                server.password(text);
            }
            Password::File(path) => {
                server.password(read_secret(path)?);
            }
        }
        Ok(server)
    }
}

/// A URL of one of `schemes`; the error never shows its text.
pub(crate) fn parse_url(what: &'static str, text: &str, schemes: &[&str]) -> Result<Url, Fault> {
    let refuse = |why: String| Fault::Url { what, why };
    let url = Url::parse(text).map_err(|error| refuse(error.to_string()))?;
    if !schemes.contains(&url.scheme()) {
        return Err(refuse(format!("it must begin with {}://", schemes.join(":// or "))));
    }
    Ok(url)
}

/// The password in a URL, decoded.
pub(crate) fn password(what: &'static str, url: &Url) -> Result<Option<String>, Fault> {
    url.password().map(|text| decode(what, text)).transpose()
}

/// The first line of a file with a password.
pub(crate) fn read_secret(path: &Path) -> Result<String, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| Fault::File {
        what: "password",
        path: path.to_owned(),
        source: Arc::new(error),
    })?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

pub(crate) fn decode(what: &'static str, text: &str) -> Result<String, Fault> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Into::into).map_err(|_| Fault::Url { what, why: "a part is not UTF-8 once decoded".into() })
}

fn number(
    what: &'static str,
    name: &str,
    value: &str,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, Fault> {
    let number = value.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| Fault::Url {
        what,
        why: format!("{name} must be a number from {} to {}", range.start(), range.end()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let parsed = Config::parse(text);
        match expected {
            Ok(name) => assert_eq!(parsed.unwrap().name, name, "{text}"),
            Err(part) => {
                let message = parsed.unwrap_err().to_string();
                assert!(message.contains(part), "{text}: {message}");
                assert!(!message.contains("hunter2"), "{message}");
            }
        }
    }

    #[test]
    fn urls() {
        check("postgres://a:hunter2@localhost/k", Ok("localhost:5432/k"));
        check("postgresql://a@127.0.0.1:5433/k?connections=8", Ok("127.0.0.1:5433/k"));
        check("postgres://a@[::1]/k", Ok("::1:5432/k"));
        check("postgres://a@%2Frun%2Fpg:5433/k", Ok("/run/pg:5433/k"));
        check("postgres://a@db.example.com/k?sslmode=disable", Ok("db.example.com:5432/k"));
        check("mysql://a:hunter2@localhost/k", Err("must begin with postgres://"));
        check("postgres://a:hunter2@localhost:99999/k", Err("port"));
        check("postgres://a:hunter2@localhost/", Err("must have the form"));
        check("postgres://:hunter2@localhost/k", Err("must have the form"));
        check("postgres://a:hunter2@/k", Err("empty host"));
        check("postgres://a:hunter2@h1,h2/k", Err("exactly one host"));
        check("postgres://a:hunter2@h/k?sslmode=require", Err("verify-full"));
        check("postgres://a:hunter2@localhost/k?connections=0", Err("from 1 to 64"));
        check("postgres://a:hunter2@localhost/k?passwordFile=/x", Err("both a password"));
        check("postgres://a:hunter2@localhost/k?colour=red", Err("\"colour\" is not known"));
        check("a:hunter2@localhost", Err("the PostgreSQL URL"));
    }

    #[test]
    fn debug_shows_no_password() {
        let config = Config::parse("postgres://a:hunter2@localhost/k").unwrap();
        let config = config.with_events("redis://:hunter2@localhost").unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_file_is_read_at_each_connection() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config =
            Config::parse(&format!("postgres://a@localhost/k?passwordFile={}", file.path().display()));
        let config = config.unwrap();
        for word in ["one", "two"] {
            std::fs::write(file.path(), format!("{word}\n")).unwrap();
            assert_eq!(config.server().unwrap().get_password(), Some(word.as_bytes()));
        }
        drop(file);
        assert!(matches!(config.server(), Err(Fault::File { .. })));
    }
}
