//! Says of each ServiceCIDR whether it is there for Services, and holds one that is being deleted while addresses would
//! be left outside of every range (upstream `pkg/controller/servicecidrs`).

use std::{net::IpAddr, sync::Arc, time::Duration};

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR, ServiceCIDRStatus};
use kube::ResourceExt;
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Condition, Context, Plan, Reconciler, Result, Stores, Watches, key_of, set_condition,
};

const FINALIZER: &str = "networking.k8s.io/service-cidr-finalizer";
/// The label of addresses that the API server gave to Services, and its value.
const MANAGED_BY: (&str, &str) = ("ipaddress.kubernetes.io/managed-by", "ipallocator.k8s.io");
/// Until every API server has seen that a range goes and gives nothing more from it, as upstream.
const GRACE: Duration = Duration::from_secs(10);

/// The controller.
pub struct ServiceCidrs;

/// What one plan looks at.
pub struct World {
    range: Arc<ServiceCIDR>,
    /// Whether addresses would be left outside of every range without it.
    needed: bool,
}

/// A network and how many bits name it.
type Block = (IpAddr, u32);

fn blocks(range: &ServiceCIDR) -> Vec<Block> {
    let texts = range.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    let block = |text: &String| {
        let (network, bits) = text.split_once('/')?;
        Some((network.parse().ok()?, bits.parse().ok()?))
    };
    texts.filter_map(block).collect()
}

/// The leading bits of an address, with its width.
fn leading(address: IpAddr, bits: u32) -> (u32, u128) {
    let (width, value) = match address {
        IpAddr::V4(address) => (32, u128::from(u32::from(address))),
        IpAddr::V6(address) => (128, u128::from(address)),
    };
    (width, value.checked_shr(width - bits.min(width)).unwrap_or(0))
}

fn contains((network, bits): Block, address: IpAddr) -> bool {
    leading(network, bits) == leading(address, bits)
}

fn within(outer: Block, inner: Block) -> bool {
    outer.1 <= inner.1 && contains(outer, inner.0)
}

fn of_services(address: &IPAddress) -> Option<IpAddr> {
    let ours = address.labels().get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1);
    address.name_any().parse().ok().filter(|_| ours)
}

fn needed(range: &ServiceCIDR, ranges: &[Arc<ServiceCIDR>], addresses: &[Arc<IPAddress>]) -> bool {
    let others: Vec<Block> = ranges
        .iter()
        .filter(|other| other.metadata.name != range.metadata.name)
        .flat_map(|other| blocks(other))
        .collect();
    let uncovered: Vec<Block> =
        blocks(range).into_iter().filter(|mine| !others.iter().any(|other| within(*other, *mine))).collect();
    addresses.iter().filter_map(|address| of_services(address)).any(|address| {
        uncovered.iter().any(|mine| contains(*mine, address))
            && !others.iter().any(|other| contains(*other, address))
    })
}

impl Reconciler for ServiceCidrs {
    type World = World;
    const NAME: &'static str = "service-cidr";

    fn watches(&self) -> Watches {
        Watches::of::<ServiceCIDR>()
            // Another range may free one that is being deleted, or leave it needed.
            .also::<ServiceCIDR>(|_, stores| deleting(stores, |_| true))
            .also::<IPAddress>(|change: &Change<IPAddress>, stores| {
                let changed: Vec<IpAddr> =
                    change.versions().filter_map(|address| of_services(address)).collect();
                deleting(stores, |range| {
                    let blocks = blocks(range);
                    changed.iter().any(|address| blocks.iter().any(|block| contains(*block, *address)))
                })
            })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let ranges = cx.stores.ready::<ServiceCIDR>().await;
        let Some(range) = ranges.get(key) else { return Ok(None) };
        let mut is_needed = false;
        if range.metadata.deletion_timestamp.is_some() {
            let addresses = cx.stores.ready::<IPAddress>().await.all();
            is_needed = needed(&range, &ranges.all(), &addresses);
        }
        Ok(Some(World { range, needed: is_needed }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let range = &*world.range;
        let mut status = range.status.clone().unwrap_or_default();
        let mut conditions = status.conditions.take().unwrap_or_default();
        match &range.metadata.deletion_timestamp {
            None => {
                plan.add_finalizer(range, FINALIZER);
                let is = ready("True", "", "Kubernetes Service CIDR is ready");
                set_condition(&mut conditions, is, None, now);
            }
            Some(_) if world.needed => {
                let message = "There are still IPAddresses referencing the ServiceCIDR, please remove them or \
                               create a new ServiceCIDR";
                set_condition(&mut conditions, ready("False", "Terminating", message), None, now);
            }
            Some(since) => {
                let passed = now.duration_since(since.0).unsigned_abs();
                match GRACE.checked_sub(passed) {
                    Some(left) if !left.is_zero() => plan.recheck(left),
                    _ => plan.remove_finalizer(range, FINALIZER),
                }
            }
        }
        plan.set_status(range, &ServiceCIDRStatus { conditions: Some(conditions) });
        plan
    }
}

fn ready<'a>(status: &'a str, reason: &'a str, message: &str) -> Condition<'a> {
    Condition { kind: "Ready", status, reason, message: message.to_owned() }
}

/// Ranges that are being deleted, of those that `concerned` lets pass.
fn deleting(stores: &Stores, concerned: impl Fn(&ServiceCIDR) -> bool) -> Vec<ObjectKey> {
    let ranges = stores.of::<ServiceCIDR>().all();
    let gone = |range: &&Arc<ServiceCIDR>| range.metadata.deletion_timestamp.is_some() && concerned(range);
    ranges.iter().filter(gone).map(|range| key_of(&**range)).collect()
}

#[cfg(test)]
mod tests {
    use reconcile::{Kind, testkit::Bench};
    use serde_json::{Value, json};

    use super::*;

    fn range(name: &str, cidrs: &[&str]) -> Value {
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": { "name": name },
            "spec": { "cidrs": cidrs } })
    }

    fn address(name: &str, managed: &str) -> Value {
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
            "metadata": { "name": name, "labels": { MANAGED_BY.0: managed } }, "spec": {} })
    }

    #[tokio::test]
    async fn a_range_is_held_while_addresses_need_it() {
        let bench = Bench::new(ServiceCidrs);
        let (ranges, key) = (Kind::of::<ServiceCIDR>(), ObjectKey::new("", "more"));
        bench.api.put(&range("kubernetes", &["10.43.0.0/16"]));
        bench.api.put(&range("more", &["10.50.0.0/16"]));
        bench.api.put(&address("10.50.0.9", MANAGED_BY.1));
        insta::assert_yaml_snapshot!("ready", bench.plan(&key).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&key).await;
        bench.api.delete(&ranges, &key);
        insta::assert_yaml_snapshot!("held", bench.plan(&key).await.unwrap(), { ".**.uid" => "[uid]" });
        bench.settle(&key).await;
        bench.advance(60);
        assert!(bench.plan(&key).await.unwrap().is_empty(), "held however long it takes");
        bench.api.delete(&Kind::of::<IPAddress>(), &ObjectKey::new("", "10.50.0.9"));
        bench.settle(&key).await;
        assert!(bench.api.get(&ranges, &key).is_none());
    }

    #[tokio::test]
    async fn a_range_that_goes_is_not_given_from_any_more_before_it_is_gone() {
        let bench = Bench::new(ServiceCidrs);
        let (ranges, key) = (Kind::of::<ServiceCIDR>(), ObjectKey::new("", "more"));
        bench.api.put(&range("more", &["10.50.0.0/16"]));
        bench.settle(&key).await;
        bench.api.delete(&ranges, &key);
        let wait = |plan: Plan| plan.recheck_after.map(|wait| wait.as_secs());
        assert_eq!(wait(bench.plan(&key).await.unwrap()), Some(10));
        bench.advance(4);
        assert_eq!(wait(bench.plan(&key).await.unwrap()), Some(6));
        bench.advance(6);
        bench.settle(&key).await;
        assert!(bench.api.get(&ranges, &key).is_none());
    }

    #[test]
    fn who_needs_a_range() {
        let check = |mine: &[&str], others: &[&[&str]], addresses: &[(&str, &str)], expected: bool| {
            let read = |value: Value| Arc::new(serde_json::from_value::<ServiceCIDR>(value).unwrap());
            let mine = read(range("mine", mine));
            let mut all = vec![mine.clone()];
            all.extend(
                others.iter().enumerate().map(|(at, cidrs)| read(range(&format!("other-{at}"), cidrs))),
            );
            let addresses: Vec<Arc<IPAddress>> = addresses
                .iter()
                .map(|(name, managed)| Arc::new(serde_json::from_value(address(name, managed)).unwrap()))
                .collect();
            assert_eq!(needed(&mine, &all, &addresses), expected, "{mine:?} {others:?}");
        };
        let ours = MANAGED_BY.1;
        check(&["10.50.0.0/16"], &[], &[], false);
        check(&["10.50.0.0/16"], &[], &[("10.50.0.1", ours)], true);
        check(&["10.50.0.0/16"], &[], &[("10.50.0.1", "somebody")], false);
        check(&["10.50.0.0/16"], &[], &[("10.51.0.1", ours)], false);
        check(&["10.50.0.0/16"], &[&["10.50.0.0/24"]], &[("10.50.0.1", ours)], false);
        check(&["10.50.0.0/16"], &[&["10.50.0.0/24"]], &[("10.50.1.1", ours)], true);
        check(&["10.50.0.0/16"], &[&["10.48.0.0/12"]], &[("10.50.1.1", ours)], false);
        check(&["10.50.0.0/16", "fd00::/112"], &[&["10.0.0.0/8"]], &[("fd00::1", ours)], true);
        check(&["::/0"], &[], &[("10.50.0.1", ours)], false);
    }
}
