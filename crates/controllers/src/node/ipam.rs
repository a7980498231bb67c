//! Gives each Node without `spec.podCIDR` a range of the cluster's pod addresses (upstream
//! `pkg/controller/nodeipam/ipam`, the range allocator).
//!
//! Guarantees: a range that is given has no address of another Node's, whoever gave that one, and none of a reserved
//! range. What a Node has stays as it is. A range is free again when its Node is gone. All Nodes are one key, so that
//! what was given a moment ago is seen before anything else is given.
//!
//! Does not know whether a Node will bring a range of its own: one that does has it from its creation on.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use meta::{Ipv4Cidr, ObjectKey, Timestamp};
use parking_lot::Mutex;
use reconcile::{
    Change, Child, Context, Effect, EffectFuture, Kind, Note, Plan, Reconciler, Result, Watches, Write,
    key_of,
};
use serde_json::json;

/// Bits of a range (upstream's default of `--node-cidr-mask-size`): 254 addresses for a node's 110 pods.
const BITS: u8 = 24;

/// Where nodes' pods get their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCidrs {
    /// The addresses of all pods.
    pub cluster: Ipv4Cidr,
    /// Ranges that are given to nobody: their nodes come with them.
    pub reserved: Vec<Ipv4Cidr>,
}

/// The controller.
pub struct NodeIpam {
    cidrs: NodeCidrs,
    told: Told,
}

/// UIDs of the Nodes whose users know that nothing is left for them.
type Told = Arc<Mutex<BTreeSet<String>>>;

/// What one plan looks at.
pub struct World {
    /// Without a range, the oldest first.
    waiting: Vec<Arc<Node>>,
    /// Ranges that Nodes have.
    taken: Vec<Ipv4Cidr>,
    /// See [`Told`].
    told: BTreeSet<String>,
}

impl NodeIpam {
    /// Gives out these addresses.
    pub fn new(cidrs: NodeCidrs) -> Self {
        Self { cidrs, told: Told::default() }
    }
}

/// The one key.
fn everything() -> ObjectKey {
    ObjectKey::new("", "nodes")
}

impl Reconciler for NodeIpam {
    type World = World;
    const NAME: &'static str = "node-ipam";

    fn watches(&self) -> Watches {
        Watches::default().also::<Node>(|change, _| is_news(change).then(everything).into_iter().collect())
    }

    async fn observe(&self, cx: &Context, _: &ObjectKey) -> Result<Option<World>> {
        let nodes = cx.stores.ready::<Node>().await.all();
        let taken =
            nodes.iter().flat_map(|node| ranges(node)).filter_map(|range| range.parse().ok()).collect();
        let mut waiting: Vec<_> = nodes.into_iter().filter(|node| waits(node)).collect();
        waiting.sort_by_cached_key(|node| (node.creation_timestamp().map(|time| time.0), node.name_any()));
        let mut told = self.told.lock();
        told.retain(|uid| waiting.iter().any(|node| node.metadata.uid.as_ref() == Some(uid)));
        Ok((!waiting.is_empty()).then(|| World { waiting, taken, told: told.clone() }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let NodeCidrs { cluster, reserved } = &self.cidrs;
        let taken = || world.taken.iter().chain(reserved);
        let mut free = cluster.split(BITS).filter(|range| !taken().any(|taken| taken.overlaps(range)));
        for node in &world.waiting {
            match free.next() {
                Some(range) => plan.apply.push(give(node, range)),
                None => tell(&mut plan, node, &world.told, &self.told),
            }
        }
        plan
    }
}

/// Ranges in the spec of a Node.
fn ranges(node: &Node) -> impl Iterator<Item = &String> {
    let spec = node.spec.iter();
    let all = spec.flat_map(|spec| spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten()));
    all.filter(|range| !range.is_empty())
}

fn waits(node: &Node) -> bool {
    node.metadata.deletion_timestamp.is_none() && ranges(node).next().is_none()
}

/// Whether somebody needs a range now, or may have one that is free by this.
fn is_news(change: &Change<Node>) -> bool {
    match (&change.old, &change.new) {
        (_, None) => true,
        (None, Some(new)) => waits(new),
        (Some(old), Some(new)) => waits(new) && !waits(old),
    }
}

/// Without the version that was seen: nodes report often, and the API server refuses a second range.
fn give(node: &Node, range: Ipv4Cidr) -> Child {
    let range = range.to_string();
    let body = json!({
        "metadata": { "uid": node.metadata.uid },
        "spec": { "podCIDR": range, "podCIDRs": [range] },
    });
    Child::object(Kind::of::<Node>(), key_of(node), Write::Patch(None), body)
}

/// Says once that nothing is left, in upstream's words.
fn tell(plan: &mut Plan, node: &Node, told: &BTreeSet<String>, memory: &Told) {
    let uid = node.metadata.uid.clone().unwrap_or_default();
    if told.contains(&uid) {
        return;
    }
    let message = format!("Node {} status is now: CIDRNotAvailable", node.name_any());
    plan.events.push(Note::normal(node, "CIDRNotAvailable", "Allocate", message));
    plan.effects.push(Box::new(Remember { node: node.name_any(), uid, memory: Arc::clone(memory) }));
}

/// Keeps in mind that it was said.
struct Remember {
    node: String,
    uid: String,
    memory: Told,
}

impl std::fmt::Debug for Remember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "remember that node {} knows", self.node)
    }
}

impl Effect for Remember {
    fn name(&self) -> &'static str {
        "remember"
    }

    fn run<'a>(&'a self, _: &'a Context) -> EffectFuture<'a> {
        self.memory.lock().insert(self.uid.clone());
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use reconcile::testkit::Bench;
    use serde_json::Value;

    use super::*;

    const FIXTURE: &str = r#"
apiVersion: v1
kind: Node
metadata: { name: own, creationTimestamp: "2026-01-01T00:00:00Z" }
spec: { podCIDR: 10.42.1.0/24, podCIDRs: [ 10.42.1.0/24 ] }
---
apiVersion: v1
kind: Node
metadata: { name: elsewhere, creationTimestamp: "2026-01-01T00:00:00Z" }
spec: { podCIDR: 10.128.0.0/24 }
---
apiVersion: v1
kind: Node
metadata: { name: small, creationTimestamp: "2026-01-01T00:00:00Z" }
spec: { podCIDR: 10.42.3.192/26 }
---
apiVersion: v1
kind: Node
metadata: { name: late, creationTimestamp: "2026-01-01T00:00:09Z" }
---
apiVersion: v1
kind: Node
metadata: { name: early, creationTimestamp: "2026-01-01T00:00:01Z" }
---
apiVersion: v1
kind: Node
metadata: { name: latest, creationTimestamp: "2026-01-01T00:00:10Z" }
"#;

    fn bench(cluster: &str) -> Bench<NodeIpam> {
        let cidrs =
            NodeCidrs { cluster: cluster.parse().unwrap(), reserved: vec!["10.42.0.0/24".parse().unwrap()] };
        let bench = Bench::new(NodeIpam::new(cidrs));
        bench.put_yaml(FIXTURE);
        bench
    }

    fn given(bench: &Bench<NodeIpam>) -> Vec<String> {
        let node = |name: &str| bench.api.get(&Kind::of::<Node>(), &ObjectKey::new("", name));
        let range = |name: &&str| {
            let node = node(name)?;
            let range = node["spec"]["podCIDR"].as_str()?.to_owned();
            assert!(
                matches!(&node["spec"]["podCIDRs"], Value::Array(all) if *all == [json!(range)]),
                "{node}"
            );
            Some(format!("{name} {range}"))
        };
        ["early", "late", "latest"].iter().filter_map(range).collect()
    }

    #[tokio::test]
    async fn free_ranges_are_given_to_the_oldest_first_and_never_twice() {
        let bench = bench("10.42.0.0/16");
        insta::assert_yaml_snapshot!(bench.plan(&everything()).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&everything()).await;
        assert_eq!(given(&bench), ["early 10.42.2.0/24", "late 10.42.4.0/24", "latest 10.42.5.0/24"]);
        assert!(bench.plan(&everything()).await.is_none(), "nobody waits");
    }

    #[tokio::test]
    async fn what_is_not_there_is_said_once_and_given_when_a_node_goes() {
        let bench = bench("10.42.0.0/22");
        let (plan, _) = bench.step(&everything()).await.unwrap();
        insta::assert_yaml_snapshot!(plan, { ".**.uid" => "[uid]" });
        bench.settle(&everything()).await;
        assert_eq!(given(&bench), ["early 10.42.2.0/24"]);
        assert!(bench.plan(&everything()).await.unwrap().is_empty());
        bench.api.delete(&Kind::of::<Node>(), &ObjectKey::new("", "own"));
        bench.settle(&everything()).await;
        assert_eq!(given(&bench), ["early 10.42.2.0/24", "late 10.42.1.0/24"]);
    }

    #[test]
    fn only_what_matters_is_looked_at() {
        let node = |range: &str, going: bool| -> Option<Arc<Node>> {
            let mut node = Node::default();
            node.spec.get_or_insert_default().pod_cidr = Some(range.to_owned());
            node.metadata.deletion_timestamp =
                going.then_some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH));
            Some(Arc::new(node))
        };
        let has = || node("10.42.1.0/24", false);
        for (old, new, expected) in [
            (None, node("", false), true),
            (None, has(), false),
            (None, node("", true), false),
            (node("", false), node("", false), false),
            (node("", false), has(), false),
            (has(), has(), false),
            (has(), None, true),
        ] {
            assert_eq!(is_news(&Change { old: old.clone(), new: new.clone() }), expected, "{old:?} {new:?}");
        }
    }
}
