//! What operators count, as `/metrics` tells it: of their controllers, and of what they have beside these.

use reconcile::{Controller, MetricsSnapshot};

use crate::operators::{MetricsText, Started};

type Counted = Box<dyn Fn() -> MetricsSnapshot + Send + Sync>;

/// Operators that were started.
#[derive(Default)]
pub(crate) struct Counters {
    controllers: Vec<Counted>,
    operators: Vec<MetricsText>,
}

type Number = fn(&MetricsSnapshot) -> f64;

const SERIES: &[(&str, &str, Number)] = &[
    ("reconciles_total", "counter", |m| m.reconciles as f64),
    ("reconcile_seconds_total", "counter", |m| m.busy_us as f64 / 1e6),
    ("errors_total", "counter", |m| m.errors as f64),
    ("conflicts_total", "counter", |m| m.conflicts as f64),
    ("writes_total", "counter", |m| m.writes as f64),
    ("queued", "gauge", |m| m.queued as f64),
    ("active", "gauge", |m| m.active as f64),
];

impl Counters {
    /// Counts one more; gives its controllers, to be run.
    pub(crate) fn count(&mut self, started: Started) -> Vec<Controller> {
        let Started { controllers, metrics } = started;
        let counted = controllers.iter().map(|controller| Box::new(controller.metrics()) as Counted);
        self.controllers.extend(counted);
        self.operators.extend(metrics);
        controllers
    }

    /// All of it, in the Prometheus text form.
    pub(crate) fn text(&self) -> String {
        let snapshots: Vec<MetricsSnapshot> = self.controllers.iter().map(|counted| counted()).collect();
        let mut text = String::new();
        for (name, kind, number) in SERIES {
            text.push_str(&format!("# TYPE keelson_controller_{name} {kind}\n"));
            for snapshot in &snapshots {
                let (controller, value) = (snapshot.name, number(snapshot));
                text.push_str(&format!("keelson_controller_{name}{{controller=\"{controller}\"}} {value}\n"));
            }
        }
        self.operators.iter().for_each(|of| text.push_str(&of()));
        text
    }
}
