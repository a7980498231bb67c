//! Redis Streams as the event bus: copies of the log on their way to other servers.
//!
//! An entry's id is its revision, so Redis refuses what it has and what is out of order, and any server
//! may publish. Nothing here is trusted: a reader takes only what comes next, and a gap is read from the
//! log. Redis may be lost, emptied or late at any moment. The stream's name holds cluster and epoch, so
//! that an old stream is never taken for this one.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use meta::Revision;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, RedisError, RedisResult, ServerErrorKind, TlsCertificates,
    Value,
    aio::MultiplexedConnection,
    streams::{StreamId, StreamReadReply},
};
use store::{Change, Key};
use tokio::time::{Instant, timeout};
use url::Url;

use crate::{
    backoff::Backoff,
    config::{decode, parse_url, password, read_secret},
    fault::Fault,
    shared::Shared,
};

const WHAT: &str = "the Redis URL";
/// How long entries are kept: longer than any server is away without loading anew.
const KEEP: Duration = Duration::from_secs(300);
/// Most entries kept, whatever their age: what a burst may cost Redis in memory.
const ENTRIES_MAX: u64 = 100_000;
/// How often the age of entries is looked at.
const TRIM: Duration = Duration::from_secs(10);
/// How long Redis may hold a read open, and how often a publisher looks whether Redis was emptied.
const BLOCK: Duration = Duration::from_secs(1);
/// Longest to wait for an answer.
const ANSWER: Duration = Duration::from_secs(3);

/// Where Redis is.
#[derive(Clone)]
pub(crate) struct Events {
    url: Url,
    password: Option<PathBuf>,
    roots: Option<PathBuf>,
    name: String,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Events {
    pub(crate) fn parse(text: &str) -> Result<Self, Fault> {
        let mut url = parse_url(WHAT, text, &["redis", "rediss"])?;
        let refuse = |why: String| Fault::Url { what: WHAT, why };
        let (mut file, mut roots) = (None, None);
        for (name, value) in url.query_pairs() {
            match &*name {
                "passwordFile" => file = Some(PathBuf::from(&*value)),
                "sslrootcert" => roots = Some(PathBuf::from(&*value)),
                other => return Err(refuse(format!("parameter {other:?} is not known"))),
            }
        }
        if file.is_some() && password(WHAT, &url)?.is_some() {
            return Err(refuse("it has both a password and a passwordFile".into()));
        }
        let host = decode(WHAT, url.host_str().unwrap_or_default())?;
        if host.is_empty() || host.contains(',') {
            return Err(refuse("it must name exactly one host".into()));
        }
        let database = url.path().trim_start_matches('/');
        if !database.is_empty() && database.parse::<u8>().is_err() {
            return Err(refuse("its path must be the number of a database".into()));
        }
        let name = format!("{host}:{}", url.port().unwrap_or(6379));
        url.set_query(None);
        Ok(Self { url, password: file, roots, name })
    }

    fn fault(&self, error: &RedisError) -> Fault {
        let why = match (error.code(), error.detail()) {
            (Some("MOVED" | "ASK" | "CLUSTERDOWN"), _) => {
                "it is part of a Redis Cluster, which is not supported; name a Redis of its own".to_owned()
            }
            (_, Some(detail)) if detail.starts_with("unknown command") => format!(
                "it has no streams ({detail}); name a Redis 6.2 or newer, or none: the servers then wake each other by PostgreSQL",
                detail = detail.trim_end()
            ),
            (Some(code), Some(detail)) => format!("{code} {detail}"),
            (_, Some(detail)) => detail.to_owned(),
            _ => error.to_string(),
        };
        Fault::Events { server: self.name.clone(), why }
    }

    async fn connect(&self) -> Result<MultiplexedConnection, Fault> {
        let mut url = self.url.clone();
        if let Some(path) = &self.password {
            let secret = read_secret(path)?;
            url.set_password(Some(&secret))
                .map_err(|()| Fault::Url { what: WHAT, why: "it cannot hold a password".into() })?;
        }
        let root_cert = self.roots.as_ref().map(|path| {
            std::fs::read(path).map_err(|error| Fault::File {
                what: "certificate",
                path: path.clone(),
                source: Arc::new(error),
            })
        });
        let fault = |error: RedisError| self.fault(&error);
        let client = match root_cert.transpose()? {
            None => Client::open(url),
            root_cert => Client::build_with_tls(url, TlsCertificates { client_tls: None, root_cert }),
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ANSWER))
            .set_response_timeout(Some(ANSWER));
        client.map_err(fault)?.get_multiplexed_async_connection_with_config(&config).await.map_err(fault)
    }

    /// Finds out at the start what waiting would not cure: a wrong password, no streams. A Redis that
    /// does not answer is no error: the store works without it.
    pub(crate) async fn probe(&self) -> Result<(), Fault> {
        let asked = timeout(ANSWER, async {
            let mut connection = self.connect().await?;
            // Reading and writing, without making anything.
            let (mut length, mut add) = (redis::cmd("XLEN"), redis::cmd("XADD"));
            length.arg("keelson:probe");
            add.arg("keelson:probe").arg("NOMKSTREAM").arg("*").arg("k").arg("");
            for command in [length, add] {
                let asked = command.query_async::<Value>(&mut connection).await;
                asked.map_err(|error| self.fault(&error))?;
            }
            Ok(())
        });
        match asked.await {
            Ok(Err(fault @ Fault::Events { .. })) if lasting(&fault) => Err(fault),
            Ok(Err(fault @ (Fault::File { .. } | Fault::Url { .. } | Fault::Tls(_)))) => Err(fault),
            Ok(Err(fault)) => {
                tracing::warn!(%fault, "working without Redis until it answers");
                Ok(())
            }
            Ok(Ok(_)) => Ok(()),
            Err(_) => {
                tracing::warn!(server = self.name, "Redis does not answer, working without it until it does");
                Ok(())
            }
        }
    }
}

fn lasting(fault: &Fault) -> bool {
    let Fault::Events { why, .. } = fault else { return false };
    [
        "WRONGPASS",
        "Redis Cluster",
        "NOAUTH",
        "NOPERM",
        "it has no streams",
        "Password authentication failed",
        "invalid password",
    ]
    .iter()
    .any(|words| why.contains(words))
}

/// The stream, as one server knows it.
pub(crate) struct Bus {
    shared: Arc<Shared>,
    events: Events,
    /// The newest revision seen in Redis. Too high after Redis was emptied, until the next look.
    top: AtomicU64,
}

impl Bus {
    pub(crate) fn new(shared: Arc<Shared>, events: Events) -> Self {
        Self { shared, events, top: AtomicU64::new(0) }
    }

    fn stream(&self) -> String {
        format!("keelson:{{{}}}:{}", self.shared.cluster, self.shared.epoch.load(Ordering::Relaxed))
    }

    /// Reads the stream until dropped.
    pub(crate) async fn read(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        loop {
            let fault = match self.events.connect().await {
                Ok(connection) => {
                    backoff = Backoff::new();
                    self.read_on(connection).await
                }
                Err(fault) => fault,
            };
            if self.shared.woken.swap(false, Ordering::Relaxed) {
                tracing::warn!(%fault, "Redis is away, asking PostgreSQL instead");
            }
            backoff.wait(&*self.shared.pool.random).await;
        }
    }

    async fn read_on(&self, mut connection: MultiplexedConnection) -> Fault {
        loop {
            let end = self.shared.window().end();
            let mut command = redis::cmd("XREAD");
            command.arg("COUNT").arg(256).arg("BLOCK").arg(BLOCK.as_millis() as u64);
            command.arg("STREAMS").arg(self.stream()).arg(format!("{end}-0"));
            let reply: RedisResult<Option<StreamReadReply>> = command.query_async(&mut connection).await;
            self.shared.woken.store(reply.is_ok(), Ordering::Relaxed);
            let entries = match reply {
                Ok(reply) => reply.into_iter().flat_map(|reply| reply.keys).flat_map(|key| key.ids),
                Err(error) => return self.events.fault(&error),
            };
            let changes: Vec<Option<Change>> = entries.map(|entry| change(&entry)).collect();
            let Some(last) = changes.iter().flatten().map(|change| change.revision.0).max() else {
                if !changes.is_empty() {
                    // Not ours: the log knows better, and this loop must not spin.
                    tokio::time::sleep(BLOCK).await;
                }
                continue;
            };
            self.top.fetch_max(last, Ordering::Relaxed);
            let readable = changes.into_iter().map_while(|change| change).collect();
            self.shared.push(readable, &self.shared.counters.bus);
            self.shared.hint(last);
            // Where there was a gap the tail fills it; what was read here is not asked for again.
            let mut head = self.shared.head.subscribe();
            drop(timeout(BLOCK, head.wait_for(|head| head.0 >= last)).await);
        }
    }

    /// Publishes what the window has and the stream has not, until dropped.
    pub(crate) async fn publish(self: Arc<Self>) {
        let mut backoff = Backoff::new();
        loop {
            let fault = match self.events.connect().await {
                Ok(connection) => {
                    backoff = Backoff::new();
                    self.publish_on(connection).await
                }
                Err(fault) => fault,
            };
            tracing::debug!(%fault, "cannot publish");
            backoff.wait(&*self.shared.pool.random).await;
        }
    }

    async fn publish_on(&self, mut connection: MultiplexedConnection) -> Fault {
        let mut head = self.shared.head.subscribe();
        let mut looked: Option<Instant> = None;
        // Where the head was, and when: to find what has become old.
        let mut ages: std::collections::VecDeque<(Instant, u64)> = std::collections::VecDeque::new();
        loop {
            if looked.is_none_or(|looked| looked.elapsed() >= BLOCK) {
                match self.last_published(&mut connection).await {
                    Ok(top) => self.top.store(top, Ordering::Relaxed),
                    Err(error) => return self.events.fault(&error),
                }
                looked = Some(Instant::now());
            }
            let top = self.top.load(Ordering::Relaxed);
            let changes = {
                let window = self.shared.window();
                window.read(Revision(top.max(window.start()).min(window.end()))).unwrap_or_default()
            };
            if let Some(last) = changes.last().map(|change| change.revision.0) {
                if let Err(error) = self.add(&mut connection, &changes).await {
                    return self.events.fault(&error);
                }
                self.top.fetch_max(last, Ordering::Relaxed);
            } else {
                // Whether something came or it is time to look, both is looked at.
                drop(timeout(BLOCK, head.wait_for(|head| head.0 > top)).await);
                if self.shared.check().is_err() {
                    return Fault::Events {
                        server: self.events.name.clone(),
                        why: "the store stopped".into(),
                    };
                }
            }
            if ages.back().is_none_or(|(at, _)| at.elapsed() >= TRIM) {
                let end = self.shared.window().end();
                ages.push_back((Instant::now(), end));
                let mut least = end.saturating_sub(ENTRIES_MAX);
                while let Some((_, revision)) = ages.front().filter(|(at, _)| at.elapsed() >= KEEP) {
                    least = least.max(*revision);
                    ages.pop_front();
                }
                let trimmed: RedisResult<Value> = redis::cmd("XTRIM")
                    .arg(self.stream())
                    .arg("MINID")
                    .arg("~")
                    .arg(least)
                    .query_async(&mut connection)
                    .await;
                if let Err(error) = trimmed {
                    return self.events.fault(&error);
                }
            }
        }
    }

    /// The newest revision that Redis has ever taken into this stream; 0 when there is none.
    async fn last_published(&self, connection: &mut MultiplexedConnection) -> RedisResult<u64> {
        let info: RedisResult<std::collections::HashMap<String, Value>> =
            redis::cmd("XINFO").arg("STREAM").arg(self.stream()).query_async(connection).await;
        let info = match info {
            Ok(info) => info,
            Err(error)
                if error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
                    && no_such_key(&error) =>
            {
                return Ok(0);
            }
            Err(error) => return Err(error),
        };
        let id: Option<String> =
            info.get("last-generated-id").map(redis::from_redis_value_ref).transpose()?;
        Ok(id.as_deref().and_then(revision).unwrap_or_default())
    }

    async fn add(&self, connection: &mut MultiplexedConnection, changes: &[Change]) -> RedisResult<()> {
        let stream = self.stream();
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for Change { revision, key, value } in changes {
            let command = pipeline.cmd("XADD").arg(&stream).arg(format!("{revision}-0"));
            command.arg("k").arg(key.as_str());
            if let Some(value) = value {
                command.arg("v").arg(value.as_ref());
            }
        }
        let added: Vec<RedisResult<Value>> = pipeline.query_async(connection).await?;
        // What is there already, or was passed by, is not an error: that is what the ids are for.
        let refused = |error: &RedisError| !error.to_string().contains("equal or smaller");
        added.into_iter().filter_map(Result::err).find(refused).map_or(Ok(()), Err)
    }
}

fn no_such_key(error: &RedisError) -> bool {
    error.to_string().contains("no such key")
}

fn revision(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse().ok()
}

/// `None` for what this program did not write.
fn change(entry: &StreamId) -> Option<Change> {
    let key = Key::parse(&entry.get::<String>("k")?).ok()?;
    let value = match entry.map.get("v") {
        Some(Value::BulkString(value)) => Some(bytes::Bytes::copy_from_slice(value)),
        Some(_) => return None,
        None => None,
    };
    Some(Change { revision: Revision(revision(&entry.id)?), key, value })
}
