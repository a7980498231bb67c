//! Measures the Buildbarn operator: a farm of five components with many workers until it is ready, what many farms
//! cost and how long a change of one takes, and workers after their queue has grown.
//!
//! Guarantees that a farm counts as ready only when each of its five objects says so of its present spec, and that a
//! case which does not end fails. Wants a cluster whose pods run, such as one of simulated nodes; workers, queues and
//! their scheduler are the stand-in of the operator's own tests, since no Buildbarn program runs here.

mod objects;
mod operator;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, StatusCode};
use operator_buildbarn::{Lane, Served};
use serde_json::{Value, json};

use self::operator::Operator;
use crate::{
    cli::{FarmCase, FarmOptions},
    client::Client,
    drive::micros,
    failure::{Failure, Result},
    process::{Server, load_average},
    report::{Report, Row},
    target::Target,
};

/// Between two looks at whether a case has ended: little beside the seconds that it takes.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The same where one answer is waited for that takes milliseconds.
const LOOK_CLOSELY: Duration = Duration::from_millis(2);
/// The operator looks at a queue this often, in milliseconds; the queue grows at any moment between two looks.
const QUEUE_PERIOD_MS: u64 = 5000;

pub(crate) async fn run(options: &FarmOptions) -> Result<Report> {
    let mut report = Report::default();
    let mut pids = options.process.pid.clone();
    let mut started = Vec::new();
    if let Some(command) = &options.process.spawn {
        let (server, ready) = Server::start(command, &options.process, &options.target).await?;
        report.figure("from start to ready", ready.as_secs_f64() * 1000.0, "ms");
        pids.push(server.pid());
        started.push(server);
    }
    let measured = measure(options, pids, &mut started, &mut report).await;
    // Stopping may take a while, and must come after the last request. The operator goes before its cluster.
    tokio::task::spawn_blocking(move || while started.pop().is_some() {}).await?;
    measured.map(|()| report)
}

async fn measure(
    options: &FarmOptions,
    pids: Vec<u32>,
    started: &mut Vec<Server>,
    report: &mut Report,
) -> Result<()> {
    let client = Client::connect(&Target::read(&options.target)?, 1).await?;
    report.setting("workers", options.workers);
    report.setting("farms", options.farms);
    report.setting("load average", load_average());
    let mut run = Run { options, client, operator: Operator::new(pids, options.operator_metrics.clone()) };
    run.definitions().await?;
    if let Some(command) = &options.operator {
        let server = Server::spawn(command)?;
        run.operator = Operator::new(vec![server.pid()], options.operator_metrics.clone());
        started.push(server);
    }
    for case in &options.cases {
        let before = run.operator.spent().await?;
        match case {
            FarmCase::Ready => run.ready(report).await?,
            FarmCase::Farms => run.farms(report).await?,
            FarmCase::Reaction => run.reaction(report).await?,
        }
        let spent = run.operator.spent().await? - before;
        report.rows.extend(spent.row(&format!("reconciles, {}", case.name())));
    }
    Ok(())
}

struct Run<'a> {
    options: &'a FarmOptions,
    client: Client,
    operator: Operator,
}

/// A farm of its own namespace, and the scheduler that it asks.
struct Farm {
    namespace: String,
    scheduler: Served,
}

impl Run<'_> {
    /// The five kinds; where an operator runs, it may have been faster.
    async fn definitions(&self) -> Result<()> {
        for definition in operator_buildbarn::crds() {
            let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
            self.create(path, &definition).await?;
        }
        for (kind, _) in objects::NAMES {
            let path = format!("{}/{kind}", objects::GROUP);
            self.until(&format!("{kind} are served"), LOOK_EVERY, async || {
                self.get(&path).await.map(|found| found.is_some())
            })
            .await?;
        }
        Ok(())
    }

    /// Makes an object; that it is there already is no failure.
    async fn create(&self, path: &str, body: &Value) -> Result<()> {
        match self.client.call(0, Method::POST, path, Bytes::from(body.to_string())).await {
            Ok(_) | Err(Failure::Refused { status: StatusCode::CONFLICT, .. }) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// An object or a list, if there is one.
    async fn get(&self, path: &str) -> Result<Option<Value>> {
        match self.client.json(Method::GET, path, Bytes::new()).await {
            Ok(found) => Ok(Some(found)),
            Err(Failure::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Asks again and again, for as long as a case may take.
    async fn until(
        &self,
        what: &str,
        every: Duration,
        mut ended: impl AsyncFnMut() -> Result<bool>,
    ) -> Result<()> {
        let (begin, seconds) = (Instant::now(), self.options.seconds_max);
        while !ended().await? {
            if begin.elapsed() > Duration::from_secs(seconds) {
                let why = format!("not so after {seconds} s");
                return Err(Failure::Answer { path: what.to_owned(), why });
            }
            tokio::time::sleep(every).await;
        }
        Ok(())
    }

    /// A namespace and a scheduler for a farm; no object of it yet.
    async fn place(&self, name: &str) -> Result<Farm> {
        let token = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let namespace = format!("bench-{name}-{token:x}");
        self.create("/api/v1/namespaces", &json!({ "metadata": { "name": namespace } })).await?;
        let scheduler = Served::start().await.map_err(Failure::Scheduler)?;
        scheduler.declare(&lane());
        Ok(Farm { namespace, scheduler })
    }

    async fn fill(&self, farm: &Farm, pool: &Value) -> Result<()> {
        for (kind, object) in objects::farm(&farm.scheduler.address(), pool) {
            self.create(&objects::path(&farm.namespace, kind, ""), &object).await?;
        }
        Ok(())
    }

    /// Waits until each object of a farm says of its present spec that it is ready.
    async fn wait(&self, farm: &Farm) -> Result<()> {
        for (kind, name) in objects::NAMES {
            let path = objects::path(&farm.namespace, kind, name);
            self.until(&format!("{kind}/{name} is ready"), LOOK_EVERY, async || {
                Ok(self.get(&path).await?.is_some_and(|object| objects::is_ready(&object)))
            })
            .await?;
        }
        Ok(())
    }

    /// Gives the nodes back.
    async fn remove(&self, farm: &Farm) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}", farm.namespace);
        self.client.call(0, Method::DELETE, &path, Bytes::new()).await?;
        self.until("the namespace is gone", LOOK_EVERY, async || Ok(self.get(&path).await?.is_none())).await
    }

    async fn ready(&self, report: &mut Report) -> Result<()> {
        let workers = self.options.workers;
        let farm = self.place("farm").await?;
        let begin = Instant::now();
        self.fill(&farm, &json!({ "replicas": workers })).await?;
        self.wait(&farm).await?;
        let mut row = Row::counted("workers, farm to ready", workers, begin.elapsed());
        self.operator.rest(&self.options.process, report, &format!("{workers} workers")).await?;
        let begin = Instant::now();
        self.remove(&farm).await?;
        row.note = Some(format!("deleted in {:.1} s", begin.elapsed().as_secs_f64()));
        report.rows.push(row);
        Ok(())
    }

    async fn farms(&self, report: &mut Report) -> Result<()> {
        let count = self.options.farms;
        let mut farms = Vec::new();
        for index in 0..count {
            farms.push(self.place(&format!("farm-{index}")).await?);
        }
        let begin = Instant::now();
        for farm in &farms {
            self.fill(farm, &json!({ "replicas": 1 })).await?;
        }
        for farm in &farms {
            self.wait(farm).await?;
        }
        report.rows.push(Row::counted("farms, to ready", count, begin.elapsed()));
        self.operator.rest(&self.options.process, report, &format!("{count} farms")).await?;
        report.rows.push(self.changes(&farms).await?);
        for farm in &farms {
            self.remove(farm).await?;
        }
        Ok(())
    }

    /// One frontend after the other gets another annotation for its Service: from the change until the operator says
    /// that it has carried it out, while nothing else happens.
    async fn changes(&self, farms: &[Farm]) -> Result<Row> {
        let (mut times, begin) = (Vec::new(), Instant::now());
        for (index, farm) in (0..self.options.changes).zip(farms.iter().cycle()) {
            let path = objects::path(&farm.namespace, "buildbarnfrontends", "frontend");
            let patch = json!({ "spec": { "service": { "annotations": { "bench": index.to_string() } } } });
            let sent = Instant::now();
            self.client.call(0, Method::PATCH, &path, Bytes::from(patch.to_string())).await?;
            self.until("the change is reconciled", LOOK_CLOSELY, async || {
                Ok(self.get(&path).await?.is_some_and(|object| objects::is_observed(&object)))
            })
            .await?;
            times.push(micros(sent.elapsed()));
        }
        Ok(Row::new("change, to reconciled", times, begin.elapsed(), 0, None))
    }

    /// Each round more actions wait than the workers that there are could run: one more is wanted.
    async fn reaction(&self, report: &mut Report) -> Result<()> {
        let (rounds, farm) = (self.options.rounds, self.place("farm").await?);
        let autoscaling = json!({ "min": 0, "max": rounds.max(1) });
        self.fill(&farm, &json!({ "autoscaling": autoscaling })).await?;
        self.wait(&farm).await?;
        let pods = format!("/api/v1/namespaces/{}/pods?labelSelector=app%3Dworker", farm.namespace);
        let (mut made, mut running) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            // Steps of the golden section fall evenly over the time between two looks.
            tokio::time::sleep(Duration::from_millis(round * 618 * QUEUE_PERIOD_MS / 1000 % QUEUE_PERIOD_MS))
                .await;
            let begin = Instant::now();
            farm.scheduler.submit(&lane(), objects::CONCURRENCY);
            let wanted = usize::try_from(round + 1).unwrap_or(usize::MAX);
            let mut seen = None;
            self.until("the worker runs", LOOK_CLOSELY * 5, async || {
                let list = self.get(&pods).await?.unwrap_or_default();
                let phases: Vec<&Value> = list
                    .pointer("/items")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|pod| pod.pointer("/status/phase"))
                    .collect();
                if phases.len() >= wanted {
                    seen.get_or_insert_with(|| begin.elapsed());
                }
                Ok(phases.iter().filter(|phase| **phase == "Running").count() >= wanted)
            })
            .await?;
            running.push(micros(begin.elapsed()));
            made.extend(seen.map(micros));
        }
        let whole = Duration::from_micros(running.iter().map(|us| u64::from(*us)).sum());
        report.rows.push(Row::new("queue grown, to pod", made, whole, 0, None));
        report.rows.push(Row::new("queue grown, to running", running, whole, 0, None));
        self.remove(&farm).await
    }
}

/// The queue of the farms' pools.
fn lane() -> Lane {
    Lane::of(objects::PLATFORM, 0)
}
