//! How long admission took, whole and by plugin.

use std::time::Duration;

use meta::metrics::{Bounds, Exposition, Histogram, Kind, Unit, labels};
use resource::Operation;

/// Upstream's.
const TIMES: Bounds =
    Bounds { upper: &[5_000, 25_000, 100_000, 500_000, 1_000_000, 2_500_000], unit: Unit::Micros };

/// Which of the two rounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Admit,
    Validate,
}

const STEPS: [(Step, &str); 2] = [(Step::Admit, "admit"), (Step::Validate, "validate")];
const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Create, "CREATE"),
    (Operation::Update, "UPDATE"),
    (Operation::Delete, "DELETE"),
    (Operation::Connect, "CONNECT"),
];
const REJECTED: [&str; 2] = ["false", "true"];

/// By step, operation and whether it was refused.
type Table = [[[Histogram; REJECTED.len()]; OPERATIONS.len()]; STEPS.len()];

/// How long plugins took. Each has its numbers from the beginning, so that finding them costs nothing.
pub(crate) struct AdmissionTimes {
    whole: Table,
    plugins: Vec<(&'static str, Table)>,
}

fn table() -> Table {
    std::array::from_fn(|_| std::array::from_fn(|_| std::array::from_fn(|_| Histogram::new(TIMES))))
}

fn cell(table: &Table, step: Step, operation: Operation, rejected: bool) -> Option<&Histogram> {
    let step = STEPS.iter().position(|(of, _)| *of == step)?;
    let operation = OPERATIONS.iter().position(|(of, _)| *of == operation)?;
    table.get(step)?.get(operation)?.get(usize::from(rejected))
}

impl AdmissionTimes {
    pub(super) fn new(plugins: impl Iterator<Item = &'static str>) -> Self {
        Self { whole: table(), plugins: plugins.map(|name| (name, table())).collect() }
    }

    /// Counts what the plugin at this place in the chain took.
    pub(crate) fn plugin(&self, at: usize, step: Step, operation: Operation, rejected: bool, took: Duration) {
        let plugin = self.plugins.get(at);
        if let Some(times) = plugin.and_then(|(_, table)| cell(table, step, operation, rejected)) {
            times.took(took);
        }
    }

    /// Counts what all of them took.
    pub(crate) fn all(&self, step: Step, operation: Operation, rejected: bool, took: Duration) {
        if let Some(times) = cell(&self.whole, step, operation, rejected) {
            times.took(took);
        }
    }

    pub(super) fn expose(&self, out: &mut Exposition) {
        let name = "apiserver_admission_step_admission_duration_seconds";
        let mut family = out.family(name, Kind::Histogram, "Time of admission by step and operation.");
        each(&self.whole, |pairs, times| family.histogram(&labels(pairs), times));
        let name = "apiserver_admission_controller_admission_duration_seconds";
        let mut family =
            out.family(name, Kind::Histogram, "Time of an admission plugin by step and operation.");
        for (name, table) in &self.plugins {
            each(table, |pairs, times| {
                let pairs: Vec<(&str, &str)> = [("name", *name)].iter().chain(pairs).copied().collect();
                family.histogram(&labels(&pairs), times);
            });
        }
    }
}

/// Everything of a table that was counted, with its labels.
fn each(table: &Table, mut of: impl FnMut(&[(&str, &str)], &Histogram)) {
    for ((_, step), operations) in STEPS.iter().zip(table) {
        for ((_, operation), results) in OPERATIONS.iter().zip(operations) {
            for (rejected, times) in REJECTED.iter().zip(results) {
                of(&[("operation", operation), ("rejected", rejected), ("type", step)], times);
            }
        }
    }
}
