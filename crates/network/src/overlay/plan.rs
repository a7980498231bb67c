//! What a node's overlay device must hold: a pure function of the Nodes, and of where this one is.

use std::{collections::BTreeSet, net::Ipv4Addr};

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use meta::{Ipv4Cidr, Timestamp};

/// The hardware address of the overlay device of the node with this range. Locally administered; the same on every node,
/// so that nobody has to be told of it.
pub(super) fn hardware(range: Ipv4Cidr) -> String {
    let [a, b, c, d] = range.network().octets();
    format!("02:4b:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A node whose pods are reached through the overlay.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Peer {
    pub(super) range: Ipv4Cidr,
    pub(super) at: Ipv4Addr,
}

/// What the device holds. In the order in which it is taken away; it is added in the other one, so that no packet
/// takes a route whose end is not known.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Entry {
    Route { to: Ipv4Cidr, via: Ipv4Addr },
    Neighbour { address: Ipv4Addr, hardware: String },
    Forward { hardware: String, at: Ipv4Addr },
}

/// What matters of a Node. The older one comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Candidate {
    created: Option<Timestamp>,
    pub(super) name: String,
    /// `None` for one that is not reached: without a range, or with an address that is one of its own pods', which
    /// exist in memory only.
    peer: Option<Peer>,
}

impl Candidate {
    pub(super) fn read(node: &Node) -> Self {
        let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self { created, name: node.name_any(), peer: peer(node) }
    }
}

fn peer(node: &Node) -> Option<Peer> {
    let range: Ipv4Cidr = node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()?;
    let addresses = node.status.as_ref()?.addresses.iter().flatten();
    let mut internal = addresses.filter(|address| address.type_ == "InternalIP");
    let at = internal.find_map(|address| address.address.parse().ok())?;
    (!range.has(at)).then_some(Peer { range, at })
}

/// The peers of the node `own`, and the names of nodes that are none because their range is another node's, too: the
/// older one keeps it.
pub(super) fn peers<'a>(
    own: &str,
    own_range: Ipv4Cidr,
    nodes: impl IntoIterator<Item = &'a Candidate>,
) -> (BTreeSet<Peer>, Vec<String>) {
    let mut nodes: Vec<&Candidate> = nodes.into_iter().filter(|node| node.name != own).collect();
    nodes.sort_unstable();
    let mut taken = vec![own_range];
    let (mut peers, mut refused) = (BTreeSet::new(), Vec::new());
    for node in nodes {
        let Some(peer) = &node.peer else { continue };
        if taken.iter().any(|range| range.overlaps(&peer.range)) {
            refused.push(node.name.clone());
            continue;
        }
        taken.push(peer.range);
        peers.insert(peer.clone());
    }
    (peers, refused)
}

/// What the device must hold for these peers.
pub(super) fn entries(peers: &BTreeSet<Peer>) -> BTreeSet<Entry> {
    let of = |peer: &Peer| {
        let (via, hardware) = (peer.range.network(), hardware(peer.range));
        [
            Entry::Route { to: peer.range, via },
            Entry::Neighbour { address: via, hardware: hardware.clone() },
            Entry::Forward { hardware, at: peer.at },
        ]
    };
    peers.iter().flat_map(of).collect()
}

/// What to take away, and then what to add, each in order.
pub(super) fn plan<'a>(
    have: &'a BTreeSet<Entry>,
    want: &'a BTreeSet<Entry>,
) -> (Vec<&'a Entry>, Vec<&'a Entry>) {
    let mut new: Vec<&Entry> = want.difference(have).collect();
    new.reverse();
    (have.difference(want).collect(), new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, created: u32, range: &str, address: &str) -> Candidate {
        let mut node: Value = json!({
            "metadata": {"name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z")},
            "spec": {"podCIDR": range},
            "status": {"addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]},
        });
        if range.is_empty() {
            node["spec"] = json!({});
        }
        Candidate::read(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_device_has_its_address_from_its_range() {
        assert_eq!(hardware("10.42.7.0/24".parse().unwrap()), "02:4b:0a:2a:07:00");
    }

    #[test]
    fn every_other_real_node_is_a_peer_and_a_range_is_its_first_holders() {
        let nodes = [
            node("own", 0, "10.42.0.0/24", "192.0.2.1"),
            node("late-thief", 3, "10.42.1.128/25", "192.0.2.9"),
            node("other", 1, "10.42.1.0/24", "192.0.2.2"),
            node("thief-of-ours", 0, "10.42.0.0/16", "192.0.2.8"),
            node("no-range", 1, "", "192.0.2.3"),
            node("simulated", 1, "10.128.5.0/24", "10.128.5.1"),
        ];
        let (peers, refused) = peers("own", "10.42.0.0/24".parse().unwrap(), &nodes);
        let peer = Peer { range: "10.42.1.0/24".parse().unwrap(), at: "192.0.2.2".parse().unwrap() };
        assert_eq!(peers, [peer].into());
        assert_eq!(refused, ["thief-of-ours", "late-thief"]);
    }

    #[test]
    fn a_node_that_moves_keeps_its_route() {
        let at = |address: &str| {
            let peer = Peer { range: "10.42.1.0/24".parse().unwrap(), at: address.parse().unwrap() };
            entries(&[peer].into())
        };
        let (have, want) = (at("192.0.2.2"), at("192.0.2.7"));
        let (gone, new) = plan(&have, &want);
        let forward =
            |at: &str| Entry::Forward { hardware: "02:4b:0a:2a:01:00".into(), at: at.parse().unwrap() };
        assert_eq!((gone, new), (vec![&forward("192.0.2.2")], vec![&forward("192.0.2.7")]));
        let nothing = BTreeSet::new();
        assert!(matches!(
            plan(&want, &nothing).0[..],
            [Entry::Route { .. }, Entry::Neighbour { .. }, Entry::Forward { .. }]
        ));
        assert!(matches!(
            plan(&nothing, &want).1[..],
            [Entry::Forward { .. }, Entry::Neighbour { .. }, Entry::Route { .. }]
        ));
        assert!(plan(&want, &want) == (vec![], vec![]));
    }
}
