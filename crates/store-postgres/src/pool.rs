//! Connections to PostgreSQL: made with time limits, retried with back-off, at most a few at a time.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use meta::Random;
use store::{Error, Result};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout, timeout_at},
};
use tokio_postgres::{
    AsyncMessage, Client, Connection, NoTls, Row,
    error::SqlState,
    tls::TlsStream,
    types::{ToSql, Type},
};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backoff::Backoff,
    config::Config,
    fault::{Fault, Meaning, meaning, words},
};

/// A statement's parameters with their types.
pub(crate) type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// Hears the payload of each notification.
pub(crate) type Hear = Box<dyn Fn(&str) + Send + Sync>;

/// One connection. Dropping it closes the socket at once, whatever is under way.
pub(crate) struct Session {
    pub(crate) client: Client,
    driver: AbortOnDropHandle<()>,
}

impl Session {
    /// Until the connection is gone.
    pub(crate) async fn closed(&mut self) {
        // A driver that panicked is gone too.
        drop((&mut self.driver).await);
    }
}

/// See the module.
pub(crate) struct Pool {
    pub(crate) config: Arc<Config>,
    pub(crate) random: Arc<dyn Random>,
    idle: Mutex<Vec<Session>>,
    permits: Arc<Semaphore>,
}

impl Pool {
    pub(crate) fn new(config: Arc<Config>, random: Arc<dyn Random>) -> Self {
        let permits = Arc::new(Semaphore::new(config.connections_max));
        Self { config, random, idle: Mutex::default(), permits }
    }

    /// A connection of its own, outside the pool, within `config.patience`.
    pub(crate) async fn connect(&self, hear: impl Fn() -> Option<Hear>) -> Result<Session, Fault> {
        let deadline = Instant::now() + self.config.patience;
        let mut backoff = Backoff::new();
        loop {
            let fault = match connect_once(&self.config, hear()).await {
                Ok(session) => return Ok(session),
                Err(fault) => fault,
            };
            if !matches!(fault, Fault::Unreachable { .. } | Fault::Unable { .. })
                || Instant::now() >= deadline
            {
                return Err(fault);
            }
            tracing::debug!(%fault, "no connection to PostgreSQL yet");
            backoff.wait(&*self.random).await;
        }
    }

    /// A connection of the pool, to be handed back with [`Pooled::done`] in the state it came.
    pub(crate) async fn get(&self) -> Result<Pooled<'_>, Fault> {
        let deadline = Instant::now() + self.config.patience;
        let Ok(Ok(permit)) = timeout_at(deadline, self.permits.clone().acquire_owned()).await else {
            let server = self.config.name.clone();
            let why = "all connections of the pool are in use".into();
            return Err(Fault::Unreachable { server, why });
        };
        let idle = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(session) = idle() {
            if !session.client.is_closed() {
                return Ok(Pooled { session, pool: self, _permit: permit });
            }
        }
        Ok(Pooled { session: self.connect(|| None).await?, pool: self, _permit: permit })
    }

    /// Runs a statement that may run twice; a lost connection is replaced, within `config.patience`.
    pub(crate) async fn query(
        &self,
        doing: &'static str,
        sql: &str,
        parameters: Parameters<'_>,
    ) -> Result<Vec<Row>> {
        let deadline = Instant::now() + self.config.patience;
        let mut backoff = Backoff::new();
        loop {
            let pooled = self.get().await.map_err(|fault| fault.during(doing))?;
            let answer =
                timeout(self.config.answer, pooled.session.client.query_typed(sql, parameters)).await;
            let why = match answer {
                Ok(Ok(rows)) => {
                    pooled.done();
                    return Ok(rows);
                }
                Ok(Err(error)) if matches!(meaning(&error), Meaning::Lost | Meaning::Again) => words(&error),
                Ok(Err(error)) => {
                    pooled.done();
                    return Err(self.explain(doing, &error));
                }
                Err(_) => format!("no answer within {:?}", self.config.answer),
            };
            drop(pooled);
            if Instant::now() >= deadline {
                return Err(Fault::Unreachable { server: self.config.name.clone(), why }.during(doing));
            }
            backoff.wait(&*self.random).await;
        }
    }

    /// A definite failure of a statement, as the contract's error.
    pub(crate) fn explain(&self, doing: &'static str, error: &tokio_postgres::Error) -> Error {
        match meaning(error) {
            Meaning::Full => Error::DiskFull { path: format!("PostgreSQL at {}", self.config.name).into() },
            Meaning::Deposed(epoch) => Error::Deposed { epoch },
            Meaning::Lost | Meaning::Again | Meaning::Superseded | Meaning::Definite => {
                Fault::Sql { doing, why: words(error) }.during(doing)
            }
        }
    }
}

/// A connection on loan. Dropped instead of handed back, it is closed.
pub(crate) struct Pooled<'a> {
    pub(crate) session: Session,
    pool: &'a Pool,
    _permit: OwnedSemaphorePermit,
}

impl Pooled<'_> {
    /// Hands it back.
    pub(crate) fn done(self) {
        let Self { session, pool, _permit } = self;
        pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
    }
}

async fn connect_once(config: &Config, hear: Option<Hear>) -> Result<Session, Fault> {
    let server = config.server()?;
    let refused = |error: tokio_postgres::Error| refusal(config, &error);
    let late = |_| Fault::Unreachable { server: config.name.clone(), why: "connecting took too long".into() };
    let connecting = async {
        match &config.tls {
            Some(tls) => {
                let tls = MakeRustlsConnect::new(tls.clone());
                server.connect(tls).await.map(|(client, connection)| session(client, connection, hear))
            }
            None => server.connect(NoTls).await.map(|(client, connection)| session(client, connection, hear)),
        }
    };
    let session = timeout(CONNECT, connecting).await.map_err(late)?.map_err(refused)?;
    let setup = setup(config.statement);
    timeout(CONNECT, session.client.batch_execute(&setup)).await.map_err(late)?.map_err(refused)?;
    Ok(session)
}

/// Longest for a connection to be made, and to be set up.
const CONNECT: Duration = Duration::from_secs(5);

/// Ours on every connection, whatever role and database say: time limits, so that nothing waits for
/// ever, and a commit that is durable when it is answered.
fn setup(statement: Duration) -> String {
    format!(
        "SET statement_timeout = {}; SET lock_timeout = 0; SET idle_in_transaction_session_timeout = 60000;
         SET client_encoding = 'UTF8'; SET default_transaction_isolation = 'read committed';
         SET default_transaction_read_only = off; SET search_path = pg_catalog;
         SELECT set_config('synchronous_commit', 'on', false)
         WHERE current_setting('synchronous_commit') IN ('off', 'local')",
        statement.as_millis()
    )
}

fn session<S, T>(client: Client, mut connection: Connection<S, T>, hear: Option<Hear>) -> Session
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: TlsStream + Unpin + Send + 'static,
{
    let driver = tokio::spawn(async move {
        while let Some(message) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
            match message {
                Ok(AsyncMessage::Notification(notification)) => {
                    if let Some(hear) = &hear {
                        hear(notification.payload());
                    }
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(error = words(&error), "connection to PostgreSQL lost");
                    return;
                }
            }
        }
    });
    Session { client, driver: AbortOnDropHandle::new(driver) }
}

fn refusal(config: &Config, error: &tokio_postgres::Error) -> Fault {
    let (server, why) = (config.name.clone(), words(error));
    match error.as_db_error().map(|answer| answer.code()) {
        None if why.contains("certificate") => Fault::Tls(why),
        None if why.contains("does not support TLS") => Fault::Tls(format!(
            "PostgreSQL at {server} does not offer it; set `ssl = on` there, or say sslmode=disable in the URL where only this \
             machine and that one are in the network"
        )),
        // Asked for one, the client had none to give.
        None if why.ends_with("password missing") => {
            Fault::Refused { server, why: "it asks for a password".into() }
        }
        None => Fault::Unreachable { server, why },
        Some(code) if passes(code) => Fault::Unable { server, why },
        Some(_) => Fault::Refused { server, why },
    }
}

/// Whether the refusal of a connection is about the state of the server, not about who asks: it starts or
/// ends, has no connection, memory or disk left. A new connection in a database that is full fails with
/// XX000, as it cannot write the file that begins its caches.
fn passes(code: &SqlState) -> bool {
    ["53", "57P", "58", "XX"].iter().any(|class| code.code().starts_with(class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(code: &str, expected: bool) {
        assert_eq!(passes(&SqlState::from_code(code)), expected, "{code}");
    }

    #[test]
    fn what_passes_is_tried_again_and_what_is_wrong_is_told_at_once() {
        for code in ["53300", "53100", "53200", "57P01", "57P02", "57P03", "58030", "XX000"] {
            check(code, true);
        }
        for code in ["28P01", "28000", "3D000", "42501", "08P01"] {
            check(code, false);
        }
    }
}
