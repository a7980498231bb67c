//! `$(VAR)` references in `command`, `args`, `env` values and `subPathExpr`.
//!
//! Guarantees upstream's grammar (`third_party/forked/golang/expansion`): `$(NAME)` is replaced
//! when NAME is known and kept as written when it is not; `$$` is one literal `$`; every other
//! `$` stands for itself. Knows nothing of where the values come from.

use std::collections::BTreeMap;

/// Replaces the references in `text` by what `lookup` knows.
pub fn expand<'a>(text: &str, lookup: impl Fn(&str) -> Option<&'a str>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        rest = after;
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|open| open.split_once(')')) {
            match lookup(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = tail;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// [`expand`] for each element, from one environment.
pub fn expand_all(texts: &[String], env: &BTreeMap<String, String>) -> Vec<String> {
    texts.iter().map(|text| expand(text, |name| env.get(name).map(String::as_str))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_upstreams_table() {
        for (input, expected) in [
            ("$(VAR_A)", "A"),
            ("___$(VAR_B)___", "___B___"),
            ("___$(VAR_B)___$(VAR_A)", "___B___A"),
            ("$$(VAR_A)_$(VAR_A)", "$(VAR_A)_A"),
            ("$$$(VAR_A)", "$A"),
            ("$$$$$$$(VAR_A)", "$$$A"),
            ("$(VAR_REF)", "$(VAR_A)"),
            ("foo$(MISSING)bar", "foo$(MISSING)bar"),
            ("$(EMPTY)", ""),
            ("$VAR_A", "$VAR_A"),
            ("$(VAR_A", "$(VAR_A"),
            ("f000-$((VAR_A)", "f000-$((VAR_A)"),
            ("$()", "$()"),
            ("a$", "a$"),
            ("a$$", "a$"),
            ("", ""),
        ] {
            let lookup = |name: &str| match name {
                "VAR_A" => Some("A"),
                "VAR_B" => Some("B"),
                "VAR_REF" => Some("$(VAR_A)"),
                "EMPTY" => Some(""),
                _ => None,
            };
            assert_eq!(expand(input, lookup), expected, "{input}");
        }
    }
}
