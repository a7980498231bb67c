//! When a machine runs short: the kubelet's hard eviction thresholds, in the form of its flag
//! `--eviction-hard` (`pkg/kubelet/eviction/helpers.go`, `ParseThresholdConfig`).
//!
//! Guarantees: a signal that is not named keeps its default (upstream's `mergeDefaultEvictionSettings`). Pure.
//! Nothing is evicted yet: below a threshold the node says so by a condition, and takes no more pods.

use std::{fmt, str::FromStr};

use meta::Quantity;

/// A whole, for shares: hundredths of a percent, since upstream takes `7.5%`.
const WHOLE: u64 = 10_000;

/// What must be left of a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// So much: bytes, inodes or processes.
    Amount(u64),
    /// A share of the whole, in hundredths of a percent.
    Share(u64),
}

impl Threshold {
    /// The amount that it is of a `whole`.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            // Of at most the whole, so it fits again.
            Self::Share(share) => {
                u64::try_from(u128::from(whole) * u128::from(share) / u128::from(WHOLE)).unwrap_or(whole)
            }
        }
    }

    /// Whether `available` of a `whole` is less; a whole of 0 is one that cannot be measured.
    pub fn is_passed(self, available: u64, whole: u64) -> bool {
        whole > 0 && available < self.of(whole)
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Amount(amount) if amount > 0 && amount.is_multiple_of(1 << 20) => {
                write!(f, "{}Mi", amount >> 20)
            }
            Self::Amount(amount) => write!(f, "{amount}"),
            Self::Share(share) if share.is_multiple_of(100) => write!(f, "{}%", share / 100),
            Self::Share(share) => write!(f, "{}.{:02}%", share / 100, share % 100),
        }
    }
}

/// The thresholds of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// `memory.available`
    pub memory: Threshold,
    /// `nodefs.available`
    pub disk: Threshold,
    /// `nodefs.inodesFree`
    pub inodes: Threshold,
    /// `pid.available`
    pub pids: Threshold,
}

/// Upstream's, but for the disk: of a large one a tenth is too much to keep from a cluster of one machine.
impl Default for Thresholds {
    fn default() -> Self {
        Self {
            memory: Threshold::Amount(100 << 20),
            disk: Threshold::Share(500),
            inodes: Threshold::Share(500),
            pids: Threshold::Share(500),
        }
    }
}

impl FromStr for Thresholds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut all = Self::default();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (signal, value) = part
                .split_once('<')
                .ok_or_else(|| format!("{part:?}: want SIGNAL<VALUE, such as nodefs.available<5%"))?;
            let slot = match signal.trim() {
                "memory.available" => &mut all.memory,
                "nodefs.available" => &mut all.disk,
                "nodefs.inodesFree" => &mut all.inodes,
                "pid.available" => &mut all.pids,
                other => {
                    return Err(format!(
                        "{other:?} is not measured: there are memory.available, nodefs.available, nodefs.inodesFree and pid.available"
                    ));
                }
            };
            *slot = value.trim().parse()?;
        }
        Ok(all)
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?}: want a quantity such as 500Mi, or a percentage from 0% to 100%");
        let Some(percent) = text.strip_suffix('%') else {
            let quantity: Quantity = text.parse().map_err(|_| wrong())?;
            return u64::try_from(quantity.value()).map(Self::Amount).map_err(|_| wrong());
        };
        let (whole, part) = percent.split_once('.').unwrap_or((percent, ""));
        let digits = |text: &str| text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || part.len() > 2 || !digits(part) {
            return Err(wrong());
        }
        let number = |text: &str| text.parse::<u64>().unwrap_or_default();
        let share = number(whole) * 100 + number(&format!("{part:0<2}"));
        if share > WHOLE { Err(wrong()) } else { Ok(Self::Share(share)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_read_as_upstreams_flag() {
        let default = Thresholds::default();
        let check = |text: &str, expected: Thresholds| assert_eq!(text.parse(), Ok(expected), "{text}");
        check("", default);
        check("nodefs.available<10%", Thresholds { disk: Threshold::Share(1000), ..default });
        check(
            "memory.available<1Gi, nodefs.inodesFree<7.5%,pid.available<1k",
            Thresholds {
                memory: Threshold::Amount(1 << 30),
                inodes: Threshold::Share(750),
                pids: Threshold::Amount(1000),
                ..default
            },
        );
        for (text, expected) in [
            ("nodefs.available", "want SIGNAL<VALUE"),
            ("imagefs.available<5%", "is not measured"),
            ("nodefs.available<101%", "from 0% to 100%"),
            ("nodefs.available<%", "from 0% to 100%"),
            ("nodefs.available<1.234%", "from 0% to 100%"),
            ("nodefs.available<-1", "want a quantity"),
            ("nodefs.available<much", "want a quantity"),
        ] {
            let why = text.parse::<Thresholds>().unwrap_err();
            assert!(why.contains(expected), "{text}: {why}");
        }
    }

    #[test]
    fn what_is_left_is_compared() {
        for (threshold, available, whole, passed) in [
            (Threshold::Share(500), 5, 100, false),
            (Threshold::Share(500), 499_999, 10_000_000, true),
            (Threshold::Share(500), 500_000, 10_000_000, false),
            (Threshold::Amount(10), 9, 100, true),
            (Threshold::Amount(10), 10, 100, false),
            (Threshold::Amount(10), 0, 0, false),
            (Threshold::Share(0), 0, 100, false),
        ] {
            assert_eq!(threshold.is_passed(available, whole), passed, "{threshold} {available} of {whole}");
        }
    }

    #[test]
    fn they_are_written_as_they_are_read() {
        for text in ["100Mi", "5%", "7.50%", "1000"] {
            assert_eq!(text.parse::<Threshold>().unwrap().to_string(), text);
        }
    }
}
