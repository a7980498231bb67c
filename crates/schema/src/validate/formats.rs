//! String formats that upstream checks in CRDs (`kube-openapi/pkg/validation/strfmt`). A format that is not
//! known here is not checked, as upstream does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine as _;
use meta::names;

use super::pattern::is_match;

/// Whether `text` has the format. Dashes in the name are ignored.
pub(crate) fn is_valid(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "datetime" => is_date_time(text),
        "date" => is_date(text),
        "byte" => base64::engine::general_purpose::STANDARD.decode(text).is_ok(),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => {
            is_match(r"^([0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}|([0-9A-Fa-f]{4}\.){2}[0-9A-Fa-f]{4})$", text)
        }
        "uuid" => is_match("(?i)^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$", text),
        "uuid3" => is_match("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$", text),
        "uuid4" => {
            is_match("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$", text)
        }
        "uuid5" => {
            is_match("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$", text)
        }
        "bsonobjectid" => is_match("^[0-9a-fA-F]{24}$", text),
        "hexcolor" => is_match("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$", text),
        "rgbcolor" => is_rgb(text),
        "ssn" => is_match(r"^\d{3}[- ]?\d{2}[- ]?\d{4}$", text),
        "creditcard" => is_credit_card(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "hostname" => is_hostname(text),
        "email" => is_match(r"^[^@\s<>]+@[^@\s<>]+$", text),
        "uri" => is_match(r"^([A-Za-z][A-Za-z0-9+.-]*:[^\s]*|/[^\s]*)$", text),
        "duration" => is_duration(text),
        "k8sshortname" => names::dns1123_label(text).is_empty(),
        "k8slongname" => names::dns1123_subdomain(text).is_empty(),
        _ => true,
    }
}

/// RFC 3339 with a `T`, seconds and a zone.
pub(crate) fn is_date_time(text: &str) -> bool {
    is_match(r"^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d+)?([Zz]|[+-]\d{2}:\d{2})$", text)
        && text.parse::<meta::Timestamp>().is_ok()
}

fn is_date(text: &str) -> bool {
    is_match(r"^\d{4}-\d{2}-\d{2}$", text) && format!("{text}T00:00:00Z").parse::<meta::Timestamp>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        let plain = !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit());
        match (address.parse::<IpAddr>(), bits.parse::<u8>()) {
            (Ok(IpAddr::V4(_)), Ok(bits)) => plain && bits <= 32,
            (Ok(IpAddr::V6(_)), Ok(bits)) => plain && bits <= 128,
            _ => false,
        }
    })
}

fn is_rgb(text: &str) -> bool {
    let inner = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')'));
    inner.is_some_and(|inner| {
        let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
        parts.len() == 3 && parts.iter().all(|part| part.parse::<u8>().is_ok())
    })
}

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

fn is_credit_card(text: &str) -> bool {
    let number = digits(text);
    let sum: u32 = number
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| match at % 2 {
            0 => *digit,
            _ if *digit > 4 => digit * 2 - 9,
            _ => digit * 2,
        })
        .sum();
    (13..=16).contains(&number.len()) && sum.is_multiple_of(10)
}

fn is_isbn10(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let sum: Option<u32> = plain
        .chars()
        .enumerate()
        .map(|(at, c)| {
            let value = if at == 9 && c == 'X' { Some(10) } else { c.to_digit(10) };
            value.and_then(|value| Some(value * u32::try_from(at + 1).ok()?))
        })
        .sum();
    plain.len() == 10 && sum.is_some_and(|sum| sum.is_multiple_of(11))
}

fn is_isbn13(text: &str) -> bool {
    let plain: String = text.chars().filter(|c| !matches!(c, '-' | ' ')).collect();
    let number = digits(&plain);
    let sum: u32 =
        number.iter().enumerate().map(|(at, digit)| if at % 2 == 0 { *digit } else { digit * 3 }).sum();
    plain.len() == 13 && number.len() == 13 && sum.is_multiple_of(10)
}

fn is_hostname(text: &str) -> bool {
    text.len() <= 255
        && text.strip_suffix('.').unwrap_or(text).split('.').all(|label| {
            label.len() <= 63 && is_match(r"^[A-Za-z0-9\p{L}]([A-Za-z0-9\p{L}_-]*[A-Za-z0-9\p{L}])?$", label)
        })
}

/// Go's durations (`1h30m`), and the words of Scala's (`22 ns`).
fn is_duration(text: &str) -> bool {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    unsigned == "0"
        || is_match(r"^((\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h))+$", unsigned)
        || is_match(
            r"^\d+\s*(ns|nanos?|us|µs|micros?|ms|millis?|s|secs?|seconds?|m|mins?|minutes?|h|hr|hours?|d|days?|w|wk|weeks?|nanoseconds?|microseconds?|milliseconds?)$",
            unsigned,
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        for (format, good, bad) in [
            ("date-time", "2024-02-29T12:00:00.5+01:00", "2023-02-29T12:00:00Z"),
            ("date", "2024-02-29", "2024-13-01"),
            ("byte", "aGk=", "a"),
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:02:03:04:05:06", "01:02"),
            ("uuid", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "x"),
            ("hexcolor", "#FFF", "#FF"),
            ("rgbcolor", "rgb(1,2,3)", "rgb(1,2,256)"),
            ("isbn", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("hostname", "a.example.com", "a..b"),
            ("email", "a@b.c", "a"),
            ("uri", "https://a/b", "a b"),
            ("duration", "1h30m", "1x"),
            ("duration", "22 ns", "ns"),
            ("k8s-short-name", "a-1", "A"),
            ("k8s-long-name", "a.b", "a..b"),
        ] {
            assert!(is_valid(format, good), "{format} {good}");
            assert!(!is_valid(format, bad), "{format} {bad}");
        }
        assert!(is_valid("no-such-format", ""));
    }
}
