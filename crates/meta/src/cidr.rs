//! Ranges of IPv4 addresses, as `spec.podCIDR` has them.
//!
//! Own code, and not the crate ipnet: what is needed is a mask, and a range that is always said by its network.

use std::{fmt, net::Ipv4Addr, str::FromStr};

/// A range of IPv4 addresses, such as `10.42.7.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ipv4Cidr {
    network: u32,
    bits: u8,
}

/// The text is no range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 range such as 10.42.7.0/24")]
pub struct NotACidr(String);

impl FromStr for Ipv4Cidr {
    type Err = NotACidr;

    /// Reads it by its network: `10.42.7.9/24` is `10.42.7.0/24`.
    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let parts = text.split_once('/').and_then(|(address, bits)| {
            Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok().filter(|bits| *bits <= 32)?))
        });
        let (address, bits) = parts.ok_or_else(|| NotACidr(text.to_owned()))?;
        Ok(Self { network: u32::from(address) & mask(bits), bits })
    }
}

impl fmt::Display for Ipv4Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.network), self.bits)
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

impl Ipv4Cidr {
    /// Whether it has this address.
    pub fn has(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.bits) == self.network
    }

    /// Whether it has all addresses of the other.
    pub fn contains(&self, other: &Self) -> bool {
        self.bits <= other.bits && self.has(other.network())
    }

    /// Whether both have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        let bits = mask(self.bits.min(other.bits));
        self.network & bits == other.network & bits
    }

    /// Its first address, by which it is said.
    pub fn network(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.network)
    }

    /// The first address that something in it can have, where it is of a size that pods of a node are given: 6 addresses
    /// at the least.
    pub fn first(&self) -> Option<Ipv4Addr> {
        (8..=29).contains(&self.bits).then(|| Ipv4Addr::from(self.network | 1))
    }

    /// The ranges of this many bits that it is made of, in order; none where it is smaller than one.
    pub fn split(&self, bits: u8) -> impl Iterator<Item = Self> + use<> {
        let (network, step) = (u64::from(self.network), 1_u64 << (32 - u32::from(bits.min(32))));
        let count = bits.min(32).checked_sub(self.bits).map_or(0, |more| 1_u64 << more);
        (0..count).filter_map(move |at| {
            let network = u32::try_from(network + at * step).ok()?;
            Some(Self { network, bits: bits.min(32) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Ipv4Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_are_read_by_their_network() {
        let one = range("10.42.7.9/24");
        assert_eq!(
            (one.to_string().as_str(), one.network().to_string().as_str()),
            ("10.42.7.0/24", "10.42.7.0")
        );
        assert_eq!(one.first(), Some(Ipv4Addr::new(10, 42, 7, 1)));
        assert_eq!(range("10.42.7.0/30").first(), None);
        let everything = range("1.2.3.4/0");
        assert!(everything.overlaps(&one) && one.overlaps(&everything));
        assert!(!one.overlaps(&range("10.42.8.0/24")));
        assert!(everything.contains(&one) && one.contains(&one) && !one.contains(&everything));
        for bad in ["", "10.42.7.0", "10.42.7.0/33", "10.42.7/24", "::/0"] {
            assert!(bad.parse::<Ipv4Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_range_is_made_of_smaller_ones() {
        for (whole, bits, expected) in [
            ("10.42.0.0/23", 24, &["10.42.0.0/24", "10.42.1.0/24"][..]),
            ("10.42.0.0/24", 24, &["10.42.0.0/24"]),
            ("10.42.0.0/25", 24, &[]),
            ("255.255.255.254/31", 32, &["255.255.255.254/32", "255.255.255.255/32"]),
        ] {
            let parts: Vec<String> = range(whole).split(bits).map(|part| part.to_string()).collect();
            assert_eq!(parts, expected, "{whole} in /{bits}");
        }
        assert_eq!(range("0.0.0.0/0").split(8).count(), 256);
    }
}
