//! NodeUnschedulable: a cordoned node takes only pods that tolerate being there.

use crate::{
    plugins::{Cycle, Filter, Reach, Refused, Wake},
    snapshot::Slot,
    taint::{Effect, Taint},
};

pub(crate) const FILTER: Filter = Filter {
    name: "NodeUnschedulable",
    reach: Reach::Nodes,
    wake: Wake::NODE_ADDED.and(Wake::NODE_TAINTS),
    check,
};

fn check(cycle: &Cycle<'_>, slot: Slot) -> Result<(), Refused> {
    if !cycle.snapshot.node(slot).is_some_and(|n| n.unschedulable) {
        return Ok(());
    }
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".into(),
        value: String::new(),
        effect: Effect::NoSchedule,
    };
    if cycle.shape.tolerations.iter().any(|t| t.tolerates(&cordon)) {
        return Ok(());
    }
    Err(Refused::for_good("node(s) were unschedulable"))
}
