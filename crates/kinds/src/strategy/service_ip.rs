//! Choosing a Service's address and node ports. What is taken is what the view shows as claimed; the claim
//! itself, made by the engine, decides.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use meta::{GroupResource, Random};
use resource::Context;

use super::claims;
use crate::options::Cidr;

impl Cidr {
    fn parse(text: &str) -> Option<Self> {
        let (network, prefix) = text.split_once('/')?;
        let range = Self { network: network.parse().ok()?, prefix: prefix.parse().ok()? };
        (range.prefix <= if range.network.is_ipv4() { 32 } else { 128 }).then_some(range)
    }

    /// `IPv4` or `IPv6`.
    pub(crate) fn family(&self) -> &'static str {
        if self.network.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// Addresses that can be given away: all but the first and, for IPv4, the last. IPv6 ranges are
    /// counted up to 2^16 addresses, as upstream's old allocator did, so that a scan ends.
    fn usable(&self) -> u64 {
        let bits = if self.network.is_ipv4() { 32 } else { 128 } - self.prefix.min(128);
        let size = 1_u64 << bits.min(if self.network.is_ipv4() { 32 } else { 16 });
        if self.network.is_ipv4() { size.saturating_sub(2) } else { size.saturating_sub(1) }
    }

    /// The address at a distance from the network's own.
    fn nth(&self, offset: u64) -> IpAddr {
        match self.network {
            IpAddr::V4(network) => {
                let offset = u32::try_from(offset).unwrap_or(u32::MAX);
                Ipv4Addr::from(u32::from(network).saturating_add(offset)).into()
            }
            IpAddr::V6(network) => Ipv6Addr::from(u128::from(network).saturating_add(offset.into())).into(),
        }
    }

    /// The first usable address, which the `kubernetes` Service has.
    pub fn first(&self) -> IpAddr {
        self.nth(1)
    }

    /// Whether an address can be given away.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let offset = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                u128::from(u32::from(address)).checked_sub(u32::from(network).into())
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                u128::from(address).checked_sub(u128::from(network))
            }
            _ => None,
        };
        let bits = if self.network.is_ipv4() { 32 } else { 128 } - u32::from(self.prefix);
        let last = 1_u128.checked_shl(bits).map_or(u128::MAX, |size| size - 1);
        let last = if self.network.is_ipv4() { last.saturating_sub(1) } else { last };
        offset.is_some_and(|offset| (1..=last).contains(&offset))
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// The ranges that Services get addresses from: the server's own, then those of the ServiceCIDRs of its family that are
/// ready (KEP-1880), by name. One that is being deleted gives nothing more.
pub(super) fn ranges(cx: &Context<'_>, own: Cidr) -> Vec<Cidr> {
    let mut ranges = vec![own];
    for stored in cx.view.list(&GroupResource::new("networking.k8s.io", "servicecidrs"), None) {
        // One that cannot be read gives nothing.
        let Ok(object) = stored.object() else { continue };
        if object.is_deleting() || !meta::is_condition_true(&object, "Ready") {
            continue;
        }
        let texts = object.list(&["spec", "cidrs"]).iter().filter_map(|text| text.as_str());
        for range in texts.filter_map(Cidr::parse) {
            if range.family() == own.family() && !ranges.contains(&range) {
                ranges.push(range);
            }
        }
    }
    ranges
}

/// A free address; `None` when all are taken. The lower band is left to those who name an address
/// (KEP-3070) until the rest is full.
pub(super) fn free_address(cx: &Context<'_>, cidr: Cidr) -> Option<IpAddr> {
    let usable = cidr.usable();
    let band = (usable / 16).clamp(16, 256);
    let taken =
        |offset: u64| cx.view.get(&claims::addresses(), "", &cidr.nth(offset + 1).to_string()).is_some();
    pick(cx.random, usable, if usable > 16 { band } else { 0 }, taken).map(|offset| cidr.nth(offset + 1))
}

/// A free node port that is not in `mine`; `None` when all are taken. The lower band is left to those who
/// name a port (KEP-3668).
pub(super) fn free_port(cx: &Context<'_>, (low, high): (u16, u16), mine: &[i64]) -> Option<i64> {
    let size = u64::from(high.saturating_sub(low)) + 1;
    let band = (size / 32).clamp(16, 128);
    let port = |offset: u64| i64::from(low) + i64::try_from(offset).unwrap_or(0);
    let taken = |offset: u64| {
        let port = port(offset);
        mine.contains(&port) || cx.view.get(&claims::node_ports(), "", &port.to_string()).is_some()
    };
    pick(cx.random, size, if size > 16 { band } else { 0 }, taken).map(port)
}

/// One of `0..size` that is not taken: from a random start through `band..size`, then through `0..band`.
fn pick(random: &dyn Random, size: u64, band: u64, taken: impl Fn(u64) -> bool) -> Option<u64> {
    let upper = size.saturating_sub(band);
    let start = random.below(upper);
    let above = (0..upper).map(|step| band + (start + step) % upper.max(1));
    above.chain(0..band.min(size)).find(|offset| !taken(*offset))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Cx;

    fn cidr(text: &str) -> Cidr {
        let (network, prefix) = text.split_once('/').unwrap();
        Cidr { network: network.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    #[test]
    fn ranges_know_what_is_theirs() {
        for (range, address, inside) in [
            ("10.43.0.0/16", "10.43.0.1", true),
            ("10.43.0.0/16", "10.43.255.254", true),
            ("10.43.0.0/16", "10.43.0.0", false),
            ("10.43.0.0/16", "10.43.255.255", false),
            ("10.43.0.0/16", "10.44.0.1", false),
            ("10.43.0.0/16", "fd00::1", false),
            ("fd00::/112", "fd00::1", true),
            ("fd00::/112", "fd00::1:0", false),
            ("0.0.0.0/0", "10.0.0.1", true),
        ] {
            assert_eq!(cidr(range).contains(address.parse().unwrap()), inside, "{range} {address}");
        }
        assert_eq!(cidr("10.43.0.0/16").first().to_string(), "10.43.0.1");
        assert_eq!(cidr("10.43.0.0/16").to_string(), "10.43.0.0/16");
    }

    #[test]
    fn choice_ends_when_all_is_taken() {
        let cx = Cx::new("services", "");
        let random = cx.context().random;
        for size in [1, 2, 20, 300] {
            let mut taken = std::collections::BTreeSet::new();
            while let Some(offset) =
                pick(random, size, if size > 16 { 16 } else { 0 }, |o| taken.contains(&o))
            {
                assert!(offset < size && taken.insert(offset));
            }
            assert_eq!(taken.len() as u64, size);
        }
        let chosen = free_address(&cx.context(), cidr("10.43.0.0/16")).unwrap();
        assert!(cidr("10.43.0.0/16").contains(chosen) && chosen > IpAddr::from([10, 43, 1, 0]));
    }

    #[test]
    fn ready_ranges_give_addresses_too() {
        let range = |name: &str, cidr: &str, ready: &str| {
            json!({"metadata": {"name": name}, "spec": {"cidrs": [cidr]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        let mut going = range("going", "10.53.0.0/16", "True");
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let cx = [
            range("kubernetes", "10.43.0.0/16", "True"),
            range("more", "10.50.0.0/16", "True"),
            range("new", "10.51.0.0/16", "False"),
            range("other", "fd00::/112", "True"),
            going,
        ]
        .into_iter()
        .fold(Cx::new("services", ""), |cx, range| cx.with("networking.k8s.io", "servicecidrs", range));
        let ranges: Vec<String> =
            ranges(&cx.context(), cidr("10.43.0.0/16")).iter().map(ToString::to_string).collect();
        assert_eq!(ranges, ["10.43.0.0/16", "10.50.0.0/16"]);
    }
}
