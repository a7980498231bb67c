//! What goes wrong with PostgreSQL and Redis, in words that say what to do, and what a commit may
//! conclude from it. No message holds a password or the URL it came from.

use std::{error::Error as _, io, path::PathBuf, sync::Arc};

use store::Error;
use tokio_postgres::error::SqlState;

/// Why the store could not be opened, or could not do its work.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// A URL that cannot be used.
    #[error("{what}: {why}")]
    Url {
        /// Which URL.
        what: &'static str,
        /// What is wrong with it, without its text.
        why: String,
    },
    /// A password or certificate file that cannot be used.
    #[error("read the {what} file {}", path.display())]
    File {
        /// What it should hold.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Arc<io::Error>,
    },
    /// TLS cannot be set up.
    #[error("set up TLS: {0}")]
    Tls(String),
    /// No connection could be made in the time allowed.
    #[error("no answer from PostgreSQL at {server}: {why}; is it running, and is the address right?")]
    Unreachable {
        /// Host and port.
        server: String,
        /// What the last attempt met.
        why: String,
    },
    /// `PostgreSQL` answered and cannot let anybody in, and did not in the time allowed.
    #[error(
        "PostgreSQL at {server} takes no connection: {why}; look at its log, its disk and its number of \
             connections"
    )]
    Unable {
        /// Host and port.
        server: String,
        /// Its own words.
        why: String,
    },
    /// `PostgreSQL` answered and does not let us in.
    #[error(
        "PostgreSQL at {server} refused the connection: {why}; check user, password and database of the URL"
    )]
    Refused {
        /// Host and port.
        server: String,
        /// Its own words.
        why: String,
    },
    /// The database holds what is not ours.
    #[error(
        "the database {database:?} belongs to something else ({found}): nothing was changed; make an empty one \
             with CREATE DATABASE and name that in the URL"
    )]
    Foreign {
        /// The database.
        database: String,
        /// What was found there.
        found: String,
    },
    /// The schema was written by a newer release.
    #[error(
        "the schema in database {database:?} has version {found}, this release knows up to {supported}: \
             nothing was changed; start the newer release that wrote it"
    )]
    Newer {
        /// The database.
        database: String,
        /// The version there.
        found: i32,
        /// The newest version of this release.
        supported: i32,
    },
    /// `PostgreSQL` is too old.
    #[error("PostgreSQL {found} is too old: version 13 or newer is needed")]
    Old {
        /// Its version.
        found: String,
    },
    /// Redis answered and cannot be used.
    #[error("Redis at {server} cannot carry the events: {why}")]
    Events {
        /// Host and port.
        server: String,
        /// Why.
        why: String,
    },
    /// A statement failed.
    #[error("{doing}: {why}")]
    Sql {
        /// What was attempted.
        doing: &'static str,
        /// PostgreSQL's own words.
        why: String,
    },
    /// What is stored is not what this program writes.
    #[error("the tables in PostgreSQL are damaged: {0}; restore a backup")]
    Damaged(String),
}

impl Fault {
    /// Whether PostgreSQL may be there by itself a little later.
    pub(crate) fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unable { .. })
    }

    /// The same, as the contract's error.
    pub(crate) fn during(self, doing: &'static str) -> Error {
        Error::Backend { doing, source: Arc::new(self) }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        fault.during("use the store in PostgreSQL")
    }
}

/// What a failed statement means.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// No answer: it may have been carried out.
    Lost,
    /// Rolled back, and worth another try: a restart, a deadlock, a time limit, a standby.
    Again,
    /// Rolled back: no space.
    Full,
    /// Refused by `commit_batch`: another epoch.
    Deposed(u64),
    /// Refused by `commit_batch`: a later batch of this writer was carried out.
    Superseded,
    /// Rolled back, and it would be again.
    Definite,
}

/// See [`Meaning`]. An error that ends the connection is never taken as an answer: `PostgreSQL` may send
/// it after the commit is durable.
pub(crate) fn meaning(error: &tokio_postgres::Error) -> Meaning {
    let Some(answer) = error.as_db_error() else { return Meaning::Lost };
    let code = answer.code();
    match code.code() {
        "KE001" => Meaning::Superseded,
        "KE002" => answer.message().parse().map_or(Meaning::Definite, Meaning::Deposed),
        _ if *code == SqlState::DISK_FULL => Meaning::Full,
        _ if [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN, SqlState::CANNOT_CONNECT_NOW]
            .contains(code) =>
        {
            Meaning::Lost
        }
        code if code.starts_with("08") || code == "57P05" || code == "25P03" => Meaning::Lost,
        code if code.starts_with("40") || code.starts_with("53") => Meaning::Again,
        "55P03" | "57014" | "25006" => Meaning::Again,
        _ => Meaning::Definite,
    }
}

/// An error's own words and those of its causes; never a statement's parameters.
pub(crate) fn words(error: &tokio_postgres::Error) -> String {
    if let Some(answer) = error.as_db_error() {
        return format!("{} ({})", answer.message(), answer.code().code());
    }
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
