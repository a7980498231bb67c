//! NodeName: a pod that names a node goes there or nowhere. Assigned pods are not scheduled at all;
//! this answers for `explain`.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
};

pub(crate) const FILTER: Filter =
    Filter { name: "NodeName", reach: Reach::Nodes, wake: Wake::NODE_ADDED, check };

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    let name = cycle.snapshot.name(slot).map(|n| &**n);
    if cycle.node_name.is_none_or(|wanted| Some(wanted) == name) {
        return Ok(());
    }
    Err(Refused::for_good("node(s) didn't match the requested node name"))
}
