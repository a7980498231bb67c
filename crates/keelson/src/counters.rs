//! What controllers count, as `/metrics` tells it, and what operators have beside these.

use meta::metrics::Exposition;
use reconcile::{Control, Controller, MetricsSnapshot};

use crate::operators::{MetricsText, Started};

/// Controllers and operators that were started.
#[derive(Default)]
pub(crate) struct Counters {
    controllers: Vec<Control>,
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
    /// Counts these controllers, too.
    pub(crate) fn add(&mut self, controllers: &[Controller]) {
        self.controllers.extend(controllers.iter().map(Controller::control));
    }

    /// Of these controllers and no operator.
    pub(crate) fn of(controllers: Vec<Control>) -> Self {
        Self { controllers, operators: Vec::new() }
    }

    /// Counts one more operator; gives its controllers, to be run.
    pub(crate) fn count(&mut self, started: Started) -> Vec<Controller> {
        let Started { controllers, metrics } = started;
        self.add(&controllers);
        self.operators.extend(metrics);
        controllers
    }

    /// All of it, in the Prometheus text form.
    pub(crate) fn text(&self) -> String {
        let snapshots: Vec<MetricsSnapshot> = self.controllers.iter().map(Control::metrics).collect();
        let mut queues = Exposition::default();
        reconcile::expose(&self.controllers, &mut queues);
        let mut text = queues.into_text();
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
