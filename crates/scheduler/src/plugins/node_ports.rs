//! NodePorts: host ports must be free on the node.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter =
    Filter { name: "NodePorts", reach: Reach::Usage, wake: Wake::NODE_ADDED.and(Wake::POD_GONE), check };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let wanted = &cycle.shape.host_ports;
    if wanted.is_empty() {
        return Ok(());
    }
    let used = cycle.ports(slot);
    if wanted.iter().any(|want| used.iter().any(|have| have.conflicts(want))) {
        return Err(Refused::for_now("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}
