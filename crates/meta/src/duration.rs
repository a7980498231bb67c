//! Durations as Go writes them.

use std::time::Duration;

/// Reads what Go's `time.ParseDuration` does (`300ms`, `1.5h`, `2m0s`, `0`), save for negative durations. `None` when
/// it is none, or longer than 2^63 ns.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut sum: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at_checked(end)?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, next) = tail.split_at_checked(end)?;
        let unit: u64 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return None;
        }
        let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        sum = sum.checked_add(whole.checked_mul(unit)?)?;
        let mut of = unit;
        for digit in fraction.bytes() {
            of /= 10;
            sum = sum.checked_add(of.checked_mul(u64::from(digit.saturating_sub(b'0')))?)?;
        }
        rest = next;
    }
    i64::try_from(sum).ok().map(|_| Duration::from_nanos(sum))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_go() {
        for (text, expected) in [
            ("0", Some(0)),
            ("5s", Some(5_000_000_000)),
            ("2m0s", Some(120_000_000_000)),
            ("1h15m30.918s", Some(4_530_918_000_000)),
            ("1.5h", Some(5_400_000_000_000)),
            (".5s", Some(500_000_000)),
            ("1.s", Some(1_000_000_000)),
            ("12us", Some(12_000)),
            ("12\u{b5}s", Some(12_000)),
            ("+3ns", Some(3)),
            ("", None),
            ("3", None),
            ("-3s", None),
            (".s", None),
            ("1..2s", None),
            ("1x", None),
            ("s", None),
            ("9223372036854775808ns", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(parse_duration(text), expected.map(Duration::from_nanos), "{text:?}");
        }
    }
}
