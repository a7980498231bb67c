//! Checks of single texts and numbers that `meta::names` does not have (apimachinery
//! `util/validation`). Each gives messages, none when the text is well formed.

use std::net::IpAddr;

use meta::{Value, names};

use super::{At, Errors};

/// A message with the pattern and examples, as upstream composes it.
fn regex(message: &str, pattern: &str, examples: &[&str]) -> String {
    let listed: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", listed.join(" or "))
}

/// A name for a container or Service port.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if text.len() > 15 {
        errors.push(names::max_length(15));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
        errors.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errors.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        errors.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errors.push("must not begin or end with a hyphen".to_owned());
    }
    errors
}

/// A port number, or a port name, as `IntOrString` has it.
pub(crate) fn port_number_or_name(at: &At<'_>, errors: &mut Errors) {
    match at.value() {
        Value::String(_) => at.all(errors, port_name),
        Value::Number(_) => at.within(errors, 1, 65_535),
        _ => at.invalid(errors, "must be between 1 and 65535, inclusive"),
    }
}

/// The name of an environment variable (relaxed since 1.34: printable ASCII without `=`).
pub(crate) fn env_name(text: &str) -> Vec<String> {
    let printable = text.chars().all(|c| (' '..='~').contains(&c) && c != '=');
    let message = "a valid environment variable name must consist only of printable ASCII characters \
                   other than '='";
    if text.is_empty() {
        vec!["environment variable name must be non-empty".to_owned()]
    } else if printable {
        Vec::new()
    } else {
        vec![message.to_owned()]
    }
}

/// The name of an HTTP header.
pub(crate) fn header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    let message = "a valid HTTP header must consist of alphanumeric characters or '-'";
    vec![regex(message, "[-A-Za-z0-9]+", &["X-Header-Name"])]
}

/// A domain name that may begin with `*.`.
pub(crate) fn wildcard_subdomain(text: &str) -> Vec<String> {
    match text.strip_prefix("*.") {
        Some(rest) if names::dns1123_subdomain(rest).is_empty() => Vec::new(),
        _ => vec![regex(
            "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which \
             must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric \
             character",
            "\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*",
            &["*.example.com"],
        )],
    }
}

/// An address that traffic may be sent to (`ValidateNonSpecialIP`): one that means the same on every machine.
pub(crate) fn usable_ip(at: &At<'_>, errors: &mut Errors) {
    let before = errors.len();
    at.all(errors, ip);
    if errors.len() > before {
        return;
    }
    let Ok(address) = at.text().parse::<IpAddr>() else { return };
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    // Of multicast, only what never leaves the link.
    let link_multicast = match address {
        IpAddr::V4(v4) => matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => matches!(v6.segments(), [0xff02, ..]),
    };
    if address.is_unspecified() {
        at.invalid(errors, format!("may not be unspecified ({})", at.text()));
    } else if address.is_loopback() {
        at.invalid(errors, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if link_local {
        at.invalid(errors, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    } else if link_multicast {
        at.invalid(errors, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// An IP address.
pub(crate) fn ip(text: &str) -> Vec<String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Vec::new(),
        Err(_) => vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".to_owned()],
    }
}

/// A block of addresses.
pub(crate) fn cidr(text: &str) -> Vec<String> {
    let parsed = text.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let bits: u8 = bits.parse().ok()?;
        (bits <= if address.is_ipv4() { 32 } else { 128 }).then_some(())
    });
    match parsed {
        Some(()) => Vec::new(),
        None => vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_owned()],
    }
}

/// `25%`.
pub(crate) fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let message = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex(message, "[0-9]+%", &["1%", "93%"])]
}

/// A count that is not negative, or a percentage (`ValidatePositiveIntOrPercent`).
pub(crate) fn count_or_percent(at: &At<'_>, errors: &mut Errors) {
    match at.value() {
        Value::String(_) => at.all(errors, percent),
        Value::Number(_) => at.not_negative(errors),
        _ => {}
    }
}

/// A percentage is at most 100 (`IsNotMoreThan100Percent`).
pub(crate) fn at_most_all(at: &At<'_>, errors: &mut Errors) {
    let percent = at.text().strip_suffix('%').and_then(|digits| digits.parse::<u64>().ok());
    if percent.is_some_and(|percent| percent > 100) {
        at.invalid(errors, "must not be greater than 100%");
    }
}

/// Whether a count or percentage is nothing: 0 or `0%`.
pub(crate) fn is_none_of(at: &At<'_>) -> bool {
    match at.value() {
        Value::String(text) => text.trim_end_matches('%').parse::<u64>() == Ok(0),
        value => value.as_i64() == Some(0),
    }
}

/// A path below something: relative and without `..` (`validateLocalDescendingPath`).
pub(crate) fn descending_path(at: &At<'_>, errors: &mut Errors) {
    if at.text().starts_with('/') {
        at.invalid(errors, "must be a relative path");
    }
    no_backsteps(at, errors);
}

/// A path without `..` (`validatePathNoBacksteps`).
pub(crate) fn no_backsteps(at: &At<'_>, errors: &mut Errors) {
    if at.text().split('/').any(|part| part == "..") {
        at.invalid(errors, "must not contain '..'");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        type Check = fn(&str) -> Vec<String>;
        for (check, good, bad) in [
            (
                port_name as Check,
                vec!["http", "a-1"],
                vec!["", "1", "-a", "a--b", "HTTP", "a234567890123456"],
            ),
            (env_name as Check, vec!["A", "a.b", "1 x"], vec!["", "a=b", "ä"]),
            (header_name as Check, vec!["X-A"], vec!["", "a b"]),
            (wildcard_subdomain as Check, vec!["*.a.b"], vec!["a.b", "*", "*."]),
            (ip as Check, vec!["10.0.0.1", "::1"], vec!["", "10.0.0", "010.0.0.1"]),
            (cidr as Check, vec!["10.0.0.0/8", "::/0"], vec!["10.0.0.0", "10.0.0.0/33", "/8"]),
            (percent as Check, vec!["0%", "100%"], vec!["", "%", "1", "-1%"]),
        ] {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{text}");
            }
            for text in bad {
                assert!(!check(text).is_empty(), "{text}");
            }
        }
    }
}
