//! `Warning` headers (RFC 7234 section 5.5), of answers and of errors alike.
//!
//! Bounds, as upstream's recorder: 4,096 characters in all; where there are more, each text is cut to 256 and those that
//! do not fit are left out.

use http::{HeaderMap, HeaderValue, header};

const ALL_MAX: usize = 4096;
const EACH_MAX: usize = 256;

/// Adds a header for each text.
pub(super) fn write(texts: &[String], into: &mut HeaderMap) {
    let fits = texts.iter().map(|text| text.chars().count()).sum::<usize>() <= ALL_MAX;
    let mut written = 0;
    for text in texts {
        let text: String = text.chars().take(if fits { usize::MAX } else { EACH_MAX }).collect();
        written += text.chars().count();
        if written > ALL_MAX {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(quoted(&text).as_bytes()) {
            into.append(header::WARNING, value);
        }
    }
}

/// A warning of code 299.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 10);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(texts: &[String]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        write(texts, &mut headers);
        let values = headers.get_all(header::WARNING).iter();
        values.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()).collect()
    }

    #[test]
    fn texts_are_quoted() {
        let texts = ["say \"x\\y\"\n", "größer"].map(str::to_owned);
        assert_eq!(written(&texts), ["299 - \"say \\\"x\\\\y\\\" \"", "299 - \"größer\""]);
    }

    #[test]
    fn no_more_than_a_header_block_holds() {
        let long = |count: usize, length: usize| vec!["x".repeat(length); count];
        assert_eq!(written(&long(1, 4096))[0].len(), 4096 + "299 - \"\"".len());
        let cut = written(&long(100, 300));
        assert_eq!((cut.len(), cut[0].len()), (16, 256 + "299 - \"\"".len()));
        assert_eq!(written(&long(5000, 1)).len(), 4096);
    }
}
