//! Redis Streams as the event bus: copies of the log on their way to other servers.
//!
//! An entry's id is its revision, so Redis refuses what it has and what is out of order, and any server
//! may publish. Nothing here is trusted: a reader takes only what comes next, and a gap is read from the
//! log. Redis may be lost, emptied or late at any moment. The stream's name holds cluster and epoch, so
//! that an old stream is never taken for this one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use meta::Revision;
use redis::{
    ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
    streams::{StreamId, StreamReadReply},
};
use store::{Change, Key};
use tokio::time::{Instant, timeout};

use crate::{
    backoff::Backoff,
    events::{Connection, Events},
    fault::Fault,
    shared::Shared,
};

/// How long entries are kept: longer than any server is away without loading anew.
const KEEP: Duration = Duration::from_secs(300);
/// Most entries kept, whatever their age: what a burst may cost Redis in memory.
const ENTRIES_MAX: u64 = 100_000;
/// How often the age of entries is looked at.
const TRIM: Duration = Duration::from_secs(10);
/// How long Redis may hold a read open, and how often a publisher looks whether Redis was emptied.
const BLOCK: Duration = Duration::from_secs(1);

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

    async fn read_on(&self, mut connection: Connection) -> Fault {
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

    async fn publish_on(&self, mut connection: Connection) -> Fault {
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
    async fn last_published(&self, connection: &mut Connection) -> RedisResult<u64> {
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

    async fn add(&self, connection: &mut Connection, changes: &[Change]) -> RedisResult<()> {
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
