//! What nodes and pods use.

use meta::{Object, Quantity, QuantityForm, Value};

use super::Col;

/// Columns of NodeMetrics and PodMetrics, as metrics-server prints them.
pub(crate) const METRICS: &[Col] = &[
    Col::text("CPU", |o, _| sum(o, "cpu", QuantityForm::DecimalSi)),
    Col::text("Memory", |o, _| sum(o, "memory", QuantityForm::BinarySi)),
    Col::text_at("Window", "window", ""),
];

/// The node's use, or that of all containers of the pod.
fn sum(object: &Object, resource: &str, form: QuantityForm) -> Value {
    let node = object.get(&["usage", resource]);
    let containers = object.list(&["containers"]).iter().filter_map(|c| c.pointer("/usage")?.get(resource));
    let read = |value: &Value| value.as_str().and_then(|text| text.parse::<Quantity>().ok());
    let total = node.into_iter().chain(containers).filter_map(read).fold(Quantity::default(), |a, b| a + b);
    total.canonical(form).into()
}
