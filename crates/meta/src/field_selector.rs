//! Field selectors (`metadata.name=a,status.phase!=Running`): parsing and matching, as upstream's
//! `apimachinery/pkg/fields`. Which fields a kind can be selected by is not known here.

use std::fmt;

/// One term.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// Field path, such as `metadata.name`.
    pub field: String,
    /// True for `!=`.
    pub negated: bool,
    /// The value, unescaped.
    pub value: String,
}

/// All terms must hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<FieldRequirement>);

/// Why a text is not a field selector, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSelectorError {
    /// A part has no operator.
    #[error("invalid selector: '{selector}'; can't understand '{part}'")]
    Part {
        /// The whole text.
        selector: String,
        /// The part.
        part: String,
    },
    /// A backslash before something other than `\`, `,` or `=`.
    #[error("invalid field selector: invalid escape sequence: {0}")]
    Escape(String),
    /// A `,` or `=` in a value without a backslash; printed as its code point, as upstream does.
    #[error("invalid field selector: unescaped character in value: {}", u32::from(*.0))]
    Unescaped(char),
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`. `\` escapes `,`, `=` and itself in values. Empty parts are skipped.
    pub fn parse(text: &str) -> Result<Self, FieldSelectorError> {
        let mut requirements = Vec::new();
        for part in split_terms(text) {
            if part.is_empty() {
                continue;
            }
            let (field, operator, value) = split_term(part).ok_or_else(|| FieldSelectorError::Part {
                selector: text.to_owned(),
                part: part.to_owned(),
            })?;
            requirements.push(FieldRequirement {
                field: field.to_owned(),
                negated: operator == "!=",
                value: unescape(value)?,
            });
        }
        Ok(Self(requirements))
    }

    /// `field=value`.
    pub fn equals(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self(vec![FieldRequirement { field: field.into(), negated: false, value: value.into() }])
    }

    /// The terms, in the order written.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.0
    }

    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that a field must have to match, if some term says so.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|term| !term.negated && term.field == field).map(|term| term.value.as_str())
    }

    /// Whether all terms hold; `get` gives a field's value, `None` counting as empty.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|term| (get(&term.field).unwrap_or_default() == term.value) != term.negated)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            let operator = if term.negated { "!=" } else { "=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{comma}{}{operator}{value}", term.field)?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash precedes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text.get(start..).unwrap_or_default());
    terms
}

/// Field, operator, value, at the first operator in the text.
fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    let at = term.char_indices().map(|(at, _)| at).find_map(|at| {
        let rest = term.get(at..)?;
        ["!=", "==", "="].into_iter().find(|operator| rest.starts_with(operator)).map(|o| (at, o))
    });
    let (at, operator) = at?;
    Some((term.get(..at)?, operator, term.get(at + operator.len()..)?))
}

fn unescape(value: &str) -> Result<String, FieldSelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(FieldSelectorError::Escape(format!("\\{next}"))),
                None => return Err(FieldSelectorError::Escape("\\".to_owned())),
            },
            ',' | '=' => return Err(FieldSelectorError::Unescaped(c)),
            other => out.push(other),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_as_upstream() {
        for (text, printed) in [
            ("", ""),
            ("a=b", "a=b"),
            ("a==b", "a=b"),
            ("a!=b,c=d", "a!=b,c=d"),
            ("x=", "x="),
            ("a=b,", "a=b"),
            (r"a=b\,c\=\\", r"a=b\,c\=\\"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap().to_string(), printed, "{text}");
        }
        for (text, error) in [
            ("a", "invalid selector: 'a'; can't understand 'a'"),
            (r"a=\x", r"invalid field selector: invalid escape sequence: \x"),
            ("a=b=c", "invalid field selector: unescaped character in value: 61"),
        ] {
            assert_eq!(FieldSelector::parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn matches_all_terms() {
        let selector = FieldSelector::parse("a=1,b!=2").unwrap();
        let get = |b: &'static str| move |field: &str| Some(if field == "a" { "1" } else { b });
        assert!(selector.matches(get("3")));
        assert!(!selector.matches(get("2")));
        assert_eq!((selector.requires("a"), selector.requires("b")), (Some("1"), None));
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_parses(text in ".{0,40}") {
            if let Ok(selector) = FieldSelector::parse(&text) {
                prop_assert_eq!(FieldSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
