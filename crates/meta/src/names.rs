//! What names, labels and keys may look like, with upstream's texts (`apimachinery/pkg/util/validation`).
//! Each function returns one message for each thing that is wrong; an empty list means valid. They know
//! nothing of the field the text stands in.

const DNS1123_LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const DNS1035_LABEL: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const HTTP_PATH: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
const PATH_SIGNS: &[u8] = b"/-._~%!$&'()*+,;=:";
const QUALIFIED_NAME: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

/// At most 63 characters: lower case alphanumerics and `-`, alphanumeric at both ends. Namespaces, pods'
/// host names, containers.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 63);
    if !is_dns1123_label(text) {
        errors.push(regex_error(
            "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
             start and end with an alphanumeric character",
            DNS1123_LABEL,
            &["my-name", "123-abc"],
        ));
    }
    errors
}

/// At most 253 characters: labels joined by dots. Names of most objects.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 253);
    if !is_dns1123_subdomain(text) {
        errors.push(regex_error(
            "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
             and must start and end with an alphanumeric character",
            &format!("{DNS1123_LABEL}(\\.{DNS1123_LABEL})*"),
            &["example.com"],
        ));
    }
    errors
}

/// A label that begins with a letter. Names of Services.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 63);
    if !is_dns1123_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        errors.push(regex_error(
            "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
             alphabetic character, and end with an alphanumeric character",
            DNS1035_LABEL,
            &["my-name", "abc-123"],
        ));
    }
    errors
}

/// `domain/path`: controllers of IngressClasses, keys of what is known of a user besides.
pub fn domain_prefixed_path(text: &str) -> Vec<String> {
    let Some((domain, path)) =
        text.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
    else {
        return vec!["must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()];
    };
    let mut errors = dns1123_subdomain(domain);
    if !path.bytes().all(|b| b.is_ascii_alphanumeric() || PATH_SIGNS.contains(&b)) {
        errors.push(format!("Invalid path (regex used for validation is '{HTTP_PATH}')"));
    }
    errors
}

/// `[prefix/]name`: keys of labels, annotations, finalizers, resource names.
pub fn qualified_name(text: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = text.split('/');
    let (first, second, third) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let name = match (second, third) {
        (None, _) => first,
        (Some(name), None) => {
            if first.is_empty() {
                errors.push("prefix part must be non-empty".to_owned());
            } else {
                errors.extend(dns1123_subdomain(first).into_iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        (Some(_), Some(_)) => {
            let message = "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and \
                           must start and end with an alphanumeric character";
            let mut text = regex_error(message, QUALIFIED_NAME, &["MyName", "my.name", "123-abc"]);
            text.push_str(" with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')");
            errors.push(text);
            return errors;
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        errors.push(format!("name part {}", max_length(63)));
    }
    if !is_qualified(name) {
        errors.push(format!(
            "name part {}",
            regex_error(
                "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                 alphanumeric character",
                QUALIFIED_NAME,
                &["MyName", "my.name", "123-abc"],
            )
        ));
    }
    errors
}

/// The value of a label: empty, or at most 63 characters of a qualified name's name part.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 63);
    if !text.is_empty() && !is_qualified(text) {
        errors.push(regex_error(
            "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
             and must start and end with an alphanumeric character",
            "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?",
            &["MyValue", "my_value", "12345"],
        ));
    }
    errors
}

/// The name of a path segment: not `.`, not `..`, no `/`, no `%`. RBAC objects and the like.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|illegal| text.contains(**illegal))
            .map(|illegal| format!("may not contain '{illegal}'"))
            .collect(),
    }
}

/// A key of a ConfigMap or Secret: at most 253 of alphanumerics, `-`, `_`, `.`, and no way out of a directory.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut errors = too_long(text, 253);
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        errors.push(regex_error(
            "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
            "[-._a-zA-Z0-9]+",
            &["key.name", "KEY_NAME", "key-name"],
        ));
    }
    if text == "." {
        errors.push("must not be '.'".to_owned());
    } else if text == ".." {
        errors.push("must not be '..'".to_owned());
    } else if text.starts_with("..") {
        errors.push("must not start with '..'".to_owned());
    }
    errors
}

/// `must be no more than N characters`.
pub fn max_length(characters: usize) -> String {
    format!("must be no more than {characters} characters")
}

fn too_long(text: &str, max: usize) -> Vec<String> {
    if text.len() > max { vec![max_length(max)] } else { Vec::new() }
}

/// Upstream's `RegexError`, its spacing included.
fn regex_error(message: &str, pattern: &str, examples: &[&str]) -> String {
    let listed: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", listed.join(" or "))
}

fn is_dns1123_label(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

fn is_dns1123_subdomain(text: &str) -> bool {
    text.split('.').all(is_dns1123_label)
}

fn is_qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Check = fn(&str) -> Vec<String>;

    #[test]
    fn accepts_what_upstream_accepts() {
        let long = "a".repeat(63);
        for (check, good) in [
            (dns1123_label as Check, vec!["a", "a1", "1", "a--b", &long]),
            (dns1123_subdomain as Check, vec!["a.b", "a", "1.2-3"]),
            (dns1035_label as Check, vec!["a", "a-1"]),
            (qualified_name as Check, vec!["a", "A_b.c", "a.b/C", "1/2", "kubernetes.io/os"]),
            (label_value as Check, vec!["", "A_b.c", "1"]),
            (domain_prefixed_path as Check, vec!["acme.io/foo", "a/b/C~1"]),
            (path_segment as Check, vec!["system:node", "a b"]),
            (config_map_key as Check, vec!["a", ".a", "a..b", "A_-."]),
        ] {
            for text in good {
                assert_eq!(check(text), Vec::<String>::new(), "{text}");
            }
        }
    }

    #[test]
    fn refuses_what_upstream_refuses() {
        let long = "a".repeat(64);
        for (check, bad) in [
            (dns1123_label as Check, vec!["", "A", "a.b", "-a", "a-", &long]),
            (dns1123_subdomain as Check, vec!["", "a..b", ".a", "a.", "a_b"]),
            (dns1035_label as Check, vec!["", "1a"]),
            (domain_prefixed_path as Check, vec!["", "a", "/a", "a/", "A/b", "a/ b"]),
            (qualified_name as Check, vec!["", "/a", "a/", "a/b/c", "A_/b", "-a", &long]),
            (label_value as Check, vec!["-a", "a b", "a/b", &long]),
            (path_segment as Check, vec![".", "..", "a/b", "a%b"]),
            (config_map_key as Check, vec!["", ".", "..", "..a", "a/b"]),
        ] {
            for text in bad {
                assert!(!check(text).is_empty(), "{text}");
            }
        }
    }

    #[test]
    fn words_are_upstreams() {
        assert_eq!(
            dns1123_label("A").first().map(String::as_str),
            Some(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and \
                 must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex \
                 used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            )
        );
    }
}
