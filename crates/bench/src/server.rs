//! Measures a server: the phases, in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::Method;

use crate::{
    cli::{Phase, ServerOptions},
    client::{Client, Reply, resource_version},
    drive::{Limit, drive},
    failure::{Failure, Result, chain},
    objects,
    process::{Server, cpu_seconds, load_average, memory_mb},
    report::{Report, Row},
    target::Target,
    watch::{self, Expected, Seen},
};

/// Watches on one connection; servers allow 250 and more at once.
const STREAMS: usize = 200;

/// How events are watched.
struct Watching {
    watchers: usize,
    connections: usize,
    /// Whether each watcher wants one group of objects.
    selective: bool,
}

/// What all watchers saw.
#[derive(Default)]
struct Tally {
    seen: Seen,
    missed: u64,
}

impl Tally {
    fn add(&mut self, seen: Seen, expected: u64) {
        let Seen { events, out_of_order, wrong, last } = seen;
        self.missed += expected.saturating_sub(events);
        self.seen.events += events;
        self.seen.out_of_order += out_of_order + events.saturating_sub(expected);
        self.seen.wrong += wrong;
        self.seen.last = self.seen.last.max(last);
    }

    fn row(self, name: &str, begin: Instant, watching: &Watching, updates: &Row) -> Row {
        let Self { seen: Seen { events, out_of_order, wrong, last }, missed } = self;
        let elapsed = last.map_or(Duration::ZERO, |last| last.duration_since(begin));
        let mut row = Row::counted(name, events, elapsed);
        row.errors = missed + out_of_order + wrong + updates.errors;
        let mut note = format!(
            "{} watchers of {} updates ({:.0}/s)",
            watching.watchers, updates.done, updates.per_second
        );
        if row.errors > 0 {
            note += &format!(
                "; {missed} events missed, {out_of_order} doubled or out of order, {wrong} wrong, {} updates failed",
                updates.errors
            );
        }
        row.note = Some(note);
        row
    }
}

/// Everything the phases share.
struct Run<'a> {
    options: &'a ServerOptions,
    target: Target,
    client: Client,
    /// Namespace of the objects that are read and updated.
    namespace: String,
    /// Namespace of those that the create phase makes.
    spare: String,
    /// The resourceVersion of each object, so that updates are conditional, as controllers' are.
    versions: Arc<Vec<AtomicU64>>,
}

pub(crate) async fn run(options: &ServerOptions) -> Result<Report> {
    let mut report = Report::default();
    let mut pids = options.process.pid.clone();
    let server = match &options.process.spawn {
        Some(command) => {
            let (server, ready) = Server::start(command, &options.process, &options.target).await?;
            report.figure("from start to ready", ready.as_secs_f64() * 1000.0, "ms");
            pids.push(server.pid());
            Some(server)
        }
        None => None,
    };
    let target = Target::read(&options.target)?;
    let client = Client::connect(&target, options.connections).await?;
    describe(options, &target, &client, &mut report).await?;
    if !pids.is_empty() {
        idle(options.process.idle_seconds, &pids, &mut report).await?;
    }
    let token = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let (namespace, spare) = (format!("bench-{token:x}"), format!("bench-{token:x}-creates"));
    let versions = Arc::new((0..options.objects).map(|_| AtomicU64::new(0)).collect());
    let run = Run { options, target, client, namespace, spare, versions };
    let measured = run.measure(&pids, &mut report).await;
    if !options.keep {
        run.clean_up().await;
    }
    // Stopping may take a while, and must come after the last request.
    tokio::task::spawn_blocking(move || drop(server)).await?;
    measured.map(|()| report)
}

/// Waits, and reads what the server takes while nobody asks anything. Its processor time is that of the
/// second half: the first is for what is left of the start.
async fn idle(seconds: u64, pids: &[u32], report: &mut Report) -> Result<()> {
    let half = Duration::from_secs(seconds) / 2;
    tokio::time::sleep(half).await;
    let (before, begin) = (cpu_seconds(pids)?, Instant::now());
    tokio::time::sleep(half).await;
    let share = (cpu_seconds(pids)? - before) / begin.elapsed().as_secs_f64().max(0.001);
    report.figure("memory, idle", memory_mb(pids)?, "MB");
    report.figure("processor, idle", share * 100.0, "% of a core");
    Ok(())
}

async fn describe(
    options: &ServerOptions,
    target: &Target,
    client: &Client,
    report: &mut Report,
) -> Result<()> {
    let version = client.json(Method::GET, "/version", Bytes::new()).await?;
    let version = version.get("gitVersion").and_then(|v| v.as_str()).unwrap_or("of unknown version");
    report.setting("server", format!("{} {version}", target.authority));
    report.setting("in flight", options.in_flight);
    report.setting("connections", options.connections);
    report.setting("objects", options.objects);
    report.setting("bytes", options.object_bytes);
    report.setting("load average", load_average());
    Ok(())
}

impl Run<'_> {
    async fn measure(&self, pids: &[u32], report: &mut Report) -> Result<()> {
        for namespace in [&self.namespace, &self.spare] {
            self.client.call(0, Method::POST, "/api/v1/namespaces", objects::namespace(namespace)).await?;
        }
        report.rows.push(self.fill().await?);
        if !pids.is_empty() {
            let name = format!("memory, {} objects", self.options.objects);
            report.figure(name, memory_mb(pids)?, "MB");
        }
        for phase in &self.options.phases {
            let before = cpu_seconds(pids)?;
            let mut row = match phase {
                Phase::Create => self.create().await?,
                Phase::Get => self.get().await?,
                Phase::Update => self.update("update", self.limit(), Arc::default()).await?,
                Phase::List => self.list().await?,
                Phase::Watch => self.watch("watch", &self.everything()).await?,
                Phase::GetBesideLists => self.get_beside_lists().await?,
                Phase::WatchSelected => self.watch("watch-selected", &self.selections()).await?,
            };
            if !pids.is_empty() && row.done > 0 {
                row.server_us = Some((cpu_seconds(pids)? - before) * 1e6 / row.done as f64);
            }
            report.rows.push(row);
        }
        if !pids.is_empty() {
            report.figure("memory, at the end", memory_mb(pids)?, "MB");
        }
        Ok(())
    }

    fn limit(&self) -> Limit {
        Limit { requests: self.options.requests_max, time: Duration::from_secs(self.options.seconds) }
    }

    /// Makes the objects that the other phases work on.
    async fn fill(&self) -> Result<Row> {
        let (client, namespace, versions) =
            (self.client.clone(), self.namespace.clone(), self.versions.clone());
        let bytes = self.options.object_bytes;
        // As long as it takes, within reason: the phases need all of them.
        let limit = Limit { requests: self.options.objects as u64, time: Duration::from_secs(600) };
        let row = drive("fill", self.options.in_flight, limit, move |lane, index| {
            let (client, path, versions) =
                (client.clone(), objects::collection(&namespace), versions.clone());
            let body = objects::config_map(&namespace, index, 0, 0, bytes);
            async move {
                let reply = client.call(lane, Method::POST, &path, body).await?;
                remember(&versions, index, &path, &reply)
            }
        })
        .await?;
        match row.note {
            Some(why) => Err(Failure::Answer { path: objects::collection(&self.namespace), why }),
            None => Ok(row),
        }
    }

    async fn create(&self) -> Result<Row> {
        let (client, namespace) = (self.client.clone(), self.spare.clone());
        let bytes = self.options.object_bytes;
        drive("create", self.options.in_flight, self.limit(), move |lane, index| {
            let (client, path) = (client.clone(), objects::collection(&namespace));
            let body = objects::config_map(&namespace, index, 0, 0, bytes);
            async move { client.call(lane, Method::POST, &path, body).await.map(|_| ()) }
        })
        .await
    }

    /// What a reader waits for while another one lists everything, again and again.
    async fn get_beside_lists(&self) -> Result<Row> {
        let (client, path) = (self.client.clone(), objects::collection(&self.namespace));
        let lists = tokio::spawn(async move {
            loop {
                // One that fails shows in the gets.
                drop(client.call(usize::MAX, Method::GET, &path, Bytes::new()).await);
            }
        });
        let row = self.get().await;
        lists.abort();
        let phase = "get-beside-lists".to_owned();
        row.map(|row| Row { phase, ..row })
    }

    async fn get(&self) -> Result<Row> {
        let (client, collection) = (self.client.clone(), objects::collection(&self.namespace));
        let count = self.options.objects as u64;
        drive("get", self.options.in_flight, self.limit(), move |lane, index| {
            let path = format!("{collection}/{}", objects::name(index.checked_rem(count).unwrap_or(0)));
            let client = client.clone();
            async move { client.call(lane, Method::GET, &path, Bytes::new()).await.map(|_| ()) }
        })
        .await
    }

    /// Each object belongs to one worker, so that none is updated twice at a time: a worker that the machine
    /// holds up would otherwise come with a version that another has replaced meanwhile.
    /// Successful updates of each group are counted in `groups`, as far as it goes.
    async fn update(&self, name: &str, limit: Limit, groups: Arc<Vec<AtomicU64>>) -> Result<Row> {
        let (client, namespace, versions) =
            (self.client.clone(), self.namespace.clone(), self.versions.clone());
        let (bytes, count) = (self.options.object_bytes, self.options.objects);
        let workers = self.options.in_flight.clamp(1, count.max(1));
        let turns: Arc<Vec<AtomicUsize>> = Arc::new((0..workers).map(|_| AtomicUsize::new(0)).collect());
        drive(name, workers, limit, move |worker, _| {
            let turn = turns.get(worker).map_or(0, |turn| turn.fetch_add(1, Ordering::Relaxed));
            let object = objects::of_worker(worker, workers, turn, count) as u64;
            let version = versions.get(object as usize).map_or(0, |version| version.load(Ordering::Relaxed));
            // What it replaces tells one update of an object from every other, those of earlier phases too: an equal one
            // would be no change, and no event.
            let body = objects::config_map(&namespace, object, version, version, bytes);
            let path = format!("{}/{}", objects::collection(&namespace), objects::name(object));
            let (client, versions, groups) = (client.clone(), versions.clone(), groups.clone());
            async move {
                let reply = client.call(worker, Method::PUT, &path, body).await?;
                if let Some(count) = groups.get(objects::group(object) as usize) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                remember(&versions, object, &path, &reply)
            }
        })
        .await
    }

    async fn list(&self) -> Result<Row> {
        let (client, path) = (self.client.clone(), objects::collection(&self.namespace));
        let at_least = self.options.objects * self.options.object_bytes;
        let row = drive("list", self.options.lists_in_flight, self.limit(), move |lane, _| {
            let (client, path) = (client.clone(), path.clone());
            async move {
                let Reply { length, head: _ } = client.call(lane, Method::GET, &path, Bytes::new()).await?;
                let short = || Failure::Answer { path, why: format!("{length} bytes are not all objects") };
                if length < at_least { Err(short()) } else { Ok(()) }
            }
        })
        .await?;
        let note = format!("of {} objects, {} in flight", self.options.objects, self.options.lists_in_flight);
        Ok(Row { note: row.note.or(Some(note)), ..row })
    }

    /// Watchers of everything, a connection each.
    fn everything(&self) -> Watching {
        Watching { watchers: self.options.watchers, connections: self.options.watchers, selective: false }
    }

    /// Watchers of a group each.
    fn selections(&self) -> Watching {
        let watchers = self.options.selecting_watchers;
        Watching { watchers, connections: watchers.div_ceil(STREAMS), selective: true }
    }

    /// Updates objects while watchers look on; counts what the watchers are given.
    async fn watch(&self, name: &str, watching: &Watching) -> Result<Row> {
        let collection = objects::collection(&self.namespace);
        let list = self.client.json(Method::GET, &format!("{collection}?limit=1"), Bytes::new()).await?;
        let version =
            list.pointer("/metadata/resourceVersion").and_then(|v| v.as_str()).ok_or_else(|| {
                Failure::Answer { path: collection.clone(), why: "a list without resourceVersion".into() }
            })?;
        let path = format!("{collection}?watch=true&timeoutSeconds=600&resourceVersion={version}");
        let expected: Vec<Arc<Expected>> = (0..objects::GROUPS).map(|_| Arc::default()).collect();
        let silence = Duration::from_secs(self.options.watch_silence_seconds);
        let client = Client::connect(&self.target, watching.connections).await?;
        let mut watchers = Vec::with_capacity(watching.watchers);
        for (watcher, expected) in (0..watching.watchers).zip(expected.iter().cycle()) {
            let group = objects::group(watcher as u64);
            let path = match watching.selective {
                true => format!("{path}&labelSelector=group%3D{group}"),
                false => path.clone(),
            };
            watchers.push(watch::open(&client, watcher, &path, expected.clone(), silence).await?);
        }
        drop(client);
        let begin = Instant::now();
        let limit = Limit { requests: self.options.watch_updates, time: Duration::from_secs(600) };
        let counts: Arc<Vec<AtomicU64>> = Arc::new((0..objects::GROUPS).map(|_| AtomicU64::new(0)).collect());
        let updates = self.update("update", limit, counts.clone()).await?;
        for (expected, count) in expected.iter().zip(&*counts) {
            let of_group = count.load(Ordering::Relaxed);
            expected.know(if watching.selective { of_group } else { updates.done });
        }
        let mut all = Tally::default();
        for (watcher, expected) in watchers.into_iter().zip(expected.iter().cycle()) {
            all.add(watcher.await??, expected.events());
        }
        Ok(all.row(name, begin, watching, &updates))
    }

    /// Removes what was made. A failure is told, not returned: the measurement stands.
    async fn clean_up(&self) {
        for namespace in [&self.namespace, &self.spare] {
            for path in [objects::collection(namespace), format!("/api/v1/namespaces/{namespace}")] {
                if let Err(failure) = self.client.call(0, Method::DELETE, &path, Bytes::new()).await {
                    eprintln!("warning: clean up: {}", chain(&failure));
                }
            }
        }
    }
}

fn remember(versions: &[AtomicU64], index: u64, path: &str, reply: &Reply) -> Result<()> {
    let version = resource_version(&reply.head)
        .ok_or_else(|| Failure::Answer { path: path.to_owned(), why: "no resourceVersion".into() })?;
    if let Some(slot) = versions.get(index as usize) {
        slot.store(version, Ordering::Relaxed);
    }
    Ok(())
}
