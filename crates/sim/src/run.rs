//! One simulation: users and faults for a while, then peace, then the invariants.

use std::{fmt, sync::Arc, time::Duration};

use meta::{Random, Seeded};
use serde_json::Value;

use crate::{
    cluster::{Cluster, Error, Settings},
    invariants::{safety, violations as at_rest},
    link::Rates,
    workload::Users,
};

/// Nothing written for so long is rest: longer than the longest wait of a healthy loop but crash back-off
/// of containers, which workloads here leave after one crash, and the five minutes of a taint's default
/// toleration, after which the node lifecycle moves pods.
const QUIET: Duration = Duration::from_secs(360);
/// A cluster in peace comes to rest in this time.
const REST_MAX: Duration = Duration::from_secs(2 * 3600);

/// What a simulation is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Everything random comes from it.
    pub seed: u64,
    /// How long users and faults go on, in the cluster's time.
    pub duration: Duration,
    /// Nodes.
    pub nodes: u32,
}

/// How it went.
#[derive(Debug)]
pub struct Report {
    /// The seed it was.
    pub seed: u64,
    /// What users did, in order.
    pub actions: Vec<String>,
    /// What was broken, in order.
    pub faults: Vec<String>,
    /// Objects at the end.
    pub objects: usize,
    /// What is wrong; empty is what everybody hopes for.
    pub violations: Vec<String>,
    /// The objects around those that are wrong, and what is told about them, as JSON.
    pub evidence: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, actions, faults, objects, violations, evidence: _ } = self;
        writeln!(
            f,
            "seed {seed}: {} actions, {} faults, {objects} objects, {} violations",
            actions.len(),
            faults.len(),
            violations.len()
        )?;
        violations.iter().try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// Runs one simulation. Must be called within a tokio runtime whose time is paused.
pub async fn run(plan: Plan) -> Result<Report, Error> {
    let random: Arc<dyn Random> = Arc::new(Seeded::new(plan.seed.wrapping_mul(0x2545_f491_4f6c_dd1d)));
    let mut cluster = Cluster::start(&Settings::new(plan.seed, plan.nodes)).await?;
    let mut users = Users::new(cluster.client(), random.clone());
    let mut chaos = Chaos { random, faults: Vec::new(), down: Vec::new() };
    let mut unsafe_states = Vec::new();
    users.arrive().await;
    for second in 0..plan.duration.as_secs() {
        if chaos.random.below(4) == 0 && cluster.serves() {
            users.act().await;
        }
        chaos.step(second, &mut cluster).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        if second.is_multiple_of(30)
            && let Some(truth) = cluster.truth()
        {
            unsafe_states.extend(
                safety(&truth, cluster.clock().now())
                    .into_iter()
                    .map(|what| format!("at {second} s: {what}")),
            );
        }
    }
    cluster.mend().await?;
    let mut violations = unsafe_states;
    if let Err(error) = users.leave().await {
        violations.push(format!("the API refuses to end the chaos: {error}"));
    }
    if let Err(error) = cluster.settle(QUIET, REST_MAX).await {
        violations.push(error.to_string());
    }
    for part in &cluster.parts {
        violations
            .extend(part.faults.refused().iter().map(|what| format!("{} had no right: {what}", part.name)));
    }
    let (mut objects, mut evidence) = (0, Vec::new());
    if let Some(truth) = cluster.truth() {
        violations.extend(at_rest(&truth, cluster.clock().now()));
        let all = truth.everything();
        objects = all.len();
        evidence =
            all.iter().filter(|(_, object)| concerns(object, &violations)).map(|(_, o)| told(o)).collect();
    }
    Ok(Report { seed: plan.seed, actions: users.done, faults: chaos.faults, objects, violations, evidence })
}

/// Whether a violation names the object, what owns it by name, or what an event is about.
fn concerns(object: &Value, violations: &[String]) -> bool {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let name = match text("/involvedObject/name") {
        "" => text("/metadata/name"),
        involved => involved,
    };
    let named = |violation: &String| {
        let (_, key) = violation.split_once(' ')?;
        let (namespace, rest) = key.split_once('/')?;
        Some(namespace == text("/metadata/namespace") && name.starts_with(rest.split_once(':')?.0))
    };
    violations.iter().any(|violation| named(violation) == Some(true))
}

/// The object without what says who wrote it.
fn told(object: &Value) -> String {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object.to_string()
}

/// Breaks and mends at random.
struct Chaos {
    random: Arc<dyn Random>,
    faults: Vec<String>,
    /// When what comes back.
    down: Vec<(u64, Mend)>,
}

#[derive(Clone, Copy)]
enum Mend {
    Start(usize),
    Join(usize),
    Rates(usize),
    Store,
    Api,
    Clock(usize),
}

impl Chaos {
    async fn step(&mut self, second: u64, cluster: &mut Cluster) -> Result<(), Error> {
        let (due, later) = self.down.drain(..).partition(|(at, _)| *at <= second);
        self.down = later;
        let due: Vec<(u64, Mend)> = due;
        for (_, mend) in due {
            match mend {
                Mend::Store => cluster.slow_store(0),
                Mend::Api => cluster.start_api().await?,
                Mend::Start(at) => cluster.parts.get_mut(at).into_iter().for_each(crate::Part::start),
                Mend::Join(at) => cluster.parts.get(at).into_iter().for_each(|p| p.faults.partition(false)),
                Mend::Rates(at) => {
                    cluster.parts.get(at).into_iter().for_each(|p| p.faults.set(Rates::default()));
                }
                Mend::Clock(at) => cluster.parts.get(at).into_iter().for_each(|p| p.clock.set(0)),
            }
        }
        if self.random.below(10) == 0 {
            self.break_something(second, cluster);
        }
        Ok(())
    }

    fn break_something(&mut self, second: u64, cluster: &mut Cluster) {
        let at = usize::try_from(self.random.below(cluster.parts.len() as u64)).unwrap_or(0);
        let for_s = 1 + self.random.below(30);
        if self.random.below(13) == 0 {
            cluster.crash_api();
            self.faults.push(format!("{second} s: the API server crashes for {for_s} s"));
            self.down.push((second + for_s, Mend::Api));
            return;
        }
        let Some(part) = cluster.parts.get_mut(at) else { return };
        let (what, mend, back) = match self.random.below(12) {
            0..=3 => {
                part.crash();
                (format!("{} crashes", part.name), Mend::Start(at), for_s)
            }
            4..=6 => {
                part.faults.partition(true);
                // Long enough, now and then, that the node is given up.
                let for_s = if self.random.below(3) == 0 { for_s * 20 } else { for_s };
                (format!("{} is cut off", part.name), Mend::Join(at), for_s)
            }
            7..=9 => {
                part.faults.set(Rates {
                    conflict: self.random.below(200),
                    lost_request: self.random.below(100),
                    lost_answer: self.random.below(100),
                    cut_watch: self.random.below(50),
                    repeat_event: self.random.below(200),
                    delay_ms_max: self.random.below(500),
                });
                (format!("{} has a bad link", part.name), Mend::Rates(at), for_s * 4)
            }
            10 => {
                cluster.slow_store(1 + self.random.below(800));
                ("the store is slow".to_owned(), Mend::Store, for_s)
            }
            _ => {
                let offset_ms = i64::try_from(self.random.below(120_000)).unwrap_or(0) - 60_000;
                part.clock.set(offset_ms);
                (format!("{}'s clock is {offset_ms} ms off", part.name), Mend::Clock(at), for_s * 4)
            }
        };
        self.faults.push(format!("{second} s: {what} for {back} s"));
        self.down.push((second + back, mend));
    }
}
