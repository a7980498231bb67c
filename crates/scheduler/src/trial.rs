//! One node as it would be with other pods: what preemption tries, and what nominated pods will take.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    pod::{HostPort, Shape},
    snapshot::{Slot, Snapshot, Used},
};

/// A node's use, changed by hand.
#[derive(Clone, Debug)]
pub(crate) struct Trial {
    pub(crate) slot: Slot,
    pub(crate) used: Used,
    pub(crate) extended: BTreeMap<Arc<str>, i64>,
    pub(crate) ports: Vec<HostPort>,
    pub(crate) shapes: Vec<Arc<Shape>>,
}

impl Trial {
    /// The node as it is.
    pub(crate) fn of(snapshot: &Snapshot, slot: Slot) -> Self {
        Self {
            slot,
            used: snapshot.used(slot),
            extended: snapshot.extended(slot).clone(),
            ports: snapshot.ports(slot).to_vec(),
            shapes: snapshot.tenants_at(slot).iter().map(|t| Arc::clone(&t.shape)).collect(),
        }
    }

    /// With one more pod.
    pub(crate) fn add(&mut self, shape: &Arc<Shape>) {
        self.count(shape, 1);
        self.ports.extend(shape.host_ports.iter().cloned());
        self.shapes.push(Arc::clone(shape));
    }

    /// Without one of its pods.
    pub(crate) fn remove(&mut self, shape: &Arc<Shape>) {
        self.count(shape, -1);
        for port in &shape.host_ports {
            if let Some(at) = self.ports.iter().position(|p| p == port) {
                self.ports.swap_remove(at);
            }
        }
        if let Some(at) = self.shapes.iter().position(|s| s == shape) {
            self.shapes.swap_remove(at);
        }
    }

    fn count(&mut self, shape: &Shape, sign: i64) {
        let (asked, nonzero) = (&shape.requests, &shape.requests_nonzero);
        let add = |cell: &mut i64, amount: i64| *cell = cell.wrapping_add(amount.wrapping_mul(sign));
        add(&mut self.used.cpu_milli, asked.cpu_milli);
        add(&mut self.used.memory, asked.memory);
        add(&mut self.used.ephemeral_storage, asked.ephemeral_storage);
        add(&mut self.used.cpu_milli_nonzero, nonzero.cpu_milli);
        add(&mut self.used.memory_nonzero, nonzero.memory);
        add(&mut self.used.pods, 1);
        for (name, amount) in &asked.extended {
            add(self.extended.entry(Arc::clone(name)).or_default(), *amount);
        }
    }
}
