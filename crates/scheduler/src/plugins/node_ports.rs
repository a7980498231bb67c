//! NodePorts: host ports must be free on the node.

use crate::{
    plugins::{Cycle, Filter, Reach, Reasons, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter =
    Filter { name: "NodePorts", reach: Reach::Usage, wake: Wake::NODE_ADDED.and(Wake::POD_GONE), check };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Reasons> {
    let wanted = &cycle.shape.host_ports;
    if wanted.is_empty() {
        return Ok(());
    }
    let used = cycle.snapshot.ports(slot);
    if wanted.iter().any(|want| used.iter().any(|have| have.conflicts(want))) {
        return Err(vec!["node(s) didn't have free ports for the requested pod ports".into()]);
    }
    Ok(())
}
