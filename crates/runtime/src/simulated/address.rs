//! Pod addresses from a range: first free one after the last given, as CNI's host-local does, so that
//! an address is not reused at once.

use std::{collections::HashSet, net::Ipv4Addr};

/// Addresses in use and the range to take more from.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    first: u32,
    size: u32,
    last: u32,
    used: HashSet<Ipv4Addr>,
}

impl Addresses {
    /// Whether there is a range.
    pub(super) fn has_range(&self) -> bool {
        self.size > 0
    }

    /// Takes `a.b.c.d/prefix`, prefix 8 to 30. Network, gateway (.1) and broadcast are not given out.
    pub(super) fn set_range(&mut self, cidr: &str) -> Result<(), String> {
        let parsed = cidr
            .split_once('/')
            .and_then(|(base, prefix)| Some((base.parse::<Ipv4Addr>().ok()?, prefix.parse::<u32>().ok()?)))
            .filter(|(_, prefix)| (8..=30).contains(prefix));
        let Some((base, prefix)) = parsed else {
            return Err("want an IPv4 range such as 10.244.0.0/24 with a prefix of 8 to 30".to_owned());
        };
        let total = 1_u32 << (32 - prefix);
        let first = (u32::from(base) & !(total - 1)) + 2;
        if (first, total - 3) != (self.first, self.size) {
            (self.first, self.size, self.last) = (first, total - 3, total - 4);
        }
        Ok(())
    }

    /// A free address; `None` when there is no range or all are in use.
    pub(super) fn take(&mut self) -> Option<Ipv4Addr> {
        for step in 1..=self.size {
            let at = (self.last + step) % self.size;
            let address = Ipv4Addr::from(self.first + at);
            if self.used.insert(address) {
                self.last = at;
                return Some(address);
            }
        }
        None
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_each_address_once_and_not_the_special_ones() {
        let mut addresses = Addresses::default();
        assert_eq!(addresses.take(), None);
        addresses.set_range("10.1.2.0/29").unwrap();
        let all: Vec<String> = std::iter::from_fn(|| addresses.take()).map(|a| a.to_string()).collect();
        assert_eq!(all, ["10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6"]);
        addresses.release("10.1.2.4".parse().unwrap());
        assert_eq!(addresses.take(), "10.1.2.4".parse().ok());
    }

    #[test]
    fn says_what_a_range_looks_like() {
        for bad in ["", "10.0.0.0", "10.0.0.0/31", "10.0.0.0/x", "fd00::/64"] {
            assert!(Addresses::default().set_range(bad).unwrap_err().contains("10.244.0.0/24"), "{bad}");
        }
    }
}
