//! Where a cluster's objects are kept, as the command line names it: a data directory, or a database.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use meta::{Random, Revision};
use store::{Loaded, Store};
use store_embedded::EmbeddedStore;
use store_postgres::{Config, Fault, PostgresStore};

use crate::{cli::StoreOptions, data_dir::DataDir, error::Failure, term};

/// Whoever waits longer is told what for.
const QUIET: Duration = Duration::from_secs(3);

/// See the module.
pub(crate) enum Place {
    /// The directory of the store itself.
    Directory(PathBuf),
    /// A database.
    Postgres(Box<Config>),
}

impl Place {
    /// Reads `--store` and `--events`; the store of the data directory without them.
    pub(crate) fn of(options: &StoreOptions, data: &DataDir) -> Result<Self, Failure> {
        let place = match &options.store {
            Some(store) => Self::parse(store)?,
            None => Self::Directory(data.store()),
        };
        match (place, &options.events) {
            (place, None) => Ok(place),
            (Self::Postgres(config), Some(events)) => {
                let config = config.with_events(events).map_err(|fault| misnamed("read --events", fault))?;
                Ok(Self::Postgres(Box::new(config)))
            }
            (Self::Directory(_), Some(_)) => Err(Failure::usage("--events needs a store in PostgreSQL")
                .advise("a store in a directory has one server, which needs no event bus; name a database with --store postgres://...")),
        }
    }

    /// A `postgres://` URL, or a data directory.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            let config =
                Config::parse(text).map_err(|fault| misnamed("read the address of the store", fault))?;
            return Ok(Self::Postgres(Box::new(config)));
        }
        if text.contains("://") {
            let scheme = text.split("://").next().unwrap_or_default();
            return Err(Failure::usage(format!("a store cannot be at {scheme}://"))
                .advise("say postgres://USER@HOST:PORT/DATABASE, or a data directory"));
        }
        if text.starts_with("postgres") && text.contains('@') {
            return Err(Failure::usage("the address of the store looks like PostgreSQL's and is none")
                .advise("say postgres://USER@HOST:PORT/DATABASE, or a data directory"));
        }
        let path = std::path::absolute(text).map_err(|error| Failure::of(format!("find {text}"), error))?;
        // The directory of a store itself is understood as well.
        let itself = path.join("manifest").exists();
        Ok(Self::Directory(if itself { path } else { path.join("store") }))
    }

    /// For messages; without password.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Directory(path) => path.display().to_string(),
            Self::Postgres(config) => format!("PostgreSQL at {}", config.name()),
        }
    }

    /// Opens it, making it where there is nothing.
    pub(crate) async fn open(&self, random: &Arc<dyn Random>) -> Result<Arc<dyn Store>, Failure> {
        match self {
            Self::Directory(path) => Ok(Arc::new(open_directory(path.clone()).await?)),
            Self::Postgres(config) => Ok(Arc::new(self.open_postgres(config, random).await?)),
        }
    }

    async fn open_postgres(
        &self,
        config: &Config,
        random: &Arc<dyn Random>,
    ) -> Result<PostgresStore, Failure> {
        let mut opening = std::pin::pin!(PostgresStore::open(config.clone(), random.clone()));
        let opened = tokio::select! {
            opened = &mut opening => opened,
            () = tokio::time::sleep(QUIET) => {
                term::note(&format!("waiting for {}, which does not let anybody in yet", self.shown()));
                opening.await
            }
        };
        opened.map_err(|fault| Failure::of(format!("open the store in {}", self.shown()), fault))
    }

    /// Opens what is to be moved away: whoever works on it in PostgreSQL is deposed; a directory is locked.
    pub(crate) async fn open_alone(&self, random: &Arc<dyn Random>) -> Result<Arc<dyn Store>, Failure> {
        match self {
            Self::Directory(path) => {
                if !path.join("manifest").exists() {
                    return Err(Failure::new(format!("there is no store in {}", path.display())));
                }
                Ok(Arc::new(open_directory(path.clone()).await?))
            }
            Self::Postgres(config) => {
                let store = self.open_postgres(config, random).await?;
                let deposed = store.take_over().await;
                deposed.map_err(|error| {
                    Failure::of(format!("take over the store in {}", self.shown()), error)
                })?;
                Ok(Arc::new(store))
            }
        }
    }

    /// Fills an empty store with what another one gave; gives the revision that it stands at then.
    pub(crate) async fn import(
        &self,
        objects: BoxStream<'_, store::Result<Loaded>>,
        random: &Arc<dyn Random>,
    ) -> Result<Revision, Failure> {
        let imported = match self {
            Self::Directory(path) => EmbeddedStore::import(path, objects).await,
            Self::Postgres(config) => {
                PostgresStore::import(config.as_ref().clone(), random.clone(), objects).await
            }
        };
        imported.map_err(|error| Failure::of(format!("fill the store in {}", self.shown()), error))
    }
}

/// An address that cannot be one is for the command line to change, a file that it names is not.
fn misnamed(doing: &str, fault: Fault) -> Failure {
    let usage = matches!(fault, Fault::Url { .. });
    Failure::of(doing, fault).of_usage(usage)
}

async fn open_directory(path: PathBuf) -> Result<EmbeddedStore, Failure> {
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await;
    match opened {
        Ok(Ok(store)) => Ok(store),
        Ok(Err(error)) => Err(Failure::of(format!("open the store in {shown}"), error)),
        Err(error) => Err(Failure::of(format!("open the store in {shown}"), error)),
    }
}
