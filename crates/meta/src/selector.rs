//! Label selectors: the text form of `?labelSelector=` and the map form `metav1.LabelSelector`, with
//! upstream's errors (`apimachinery/pkg/labels/selector.go`). Field selectors are in `field_selector`.

use std::{cmp::Ordering, collections::BTreeMap, fmt};

use serde_json::{Value, json};

use crate::{FieldError, names};

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One term. Valid by construction: [`Requirement::new`] checks key, operator and values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without duplicates.
    values: Vec<String>,
}

/// Terms that must all hold, sorted by key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Selects nothing at all: what an absent `metav1.LabelSelector` means.
    nothing: bool,
}

/// Why a selector is not valid, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl Requirement {
    /// Checks and makes a term.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        values.sort_unstable();
        values.dedup();
        let mut errors = Vec::new();
        errors.extend(key_error(key));
        let wrong = match operator {
            Operator::In | Operator::NotIn => {
                values.is_empty().then_some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals => {
                (values.len() != 1).then_some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist => {
                (!values.is_empty()).then_some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan => {
                (values.len() != 1).then_some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
        };
        errors.extend(wrong.map(|detail| FieldError::invalid("values", &json!(values), detail)));
        for (at, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err()
            {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format!("values[{at}]"), &json!(value), detail));
            }
            let problems = names::label_value(value);
            if !problems.is_empty() {
                let field = format!("values[{at}][{key}]");
                errors.push(FieldError::invalid(field, &json!(value), problems.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values }),
            [one] => Err(SelectorError(one.to_string())),
            many => {
                let texts: Vec<String> = many.iter().map(ToString::to_string).collect();
                Err(SelectorError(format!("[{}]", texts.join(", "))))
            }
        }
    }

    /// The label's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The operator.
    pub fn operator(&self) -> Operator {
        self.operator
    }

    /// The values, sorted.
    pub fn values(&self) -> &[String] {
        &self.values
    }

    fn matches(&self, value: Option<&str>) -> bool {
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        let ordered = |wanted: Ordering| {
            let number = |text: &str| text.parse::<i64>().ok();
            match (value.and_then(number), self.values.first().and_then(|text| number(text))) {
                (Some(have), Some(bound)) => have.cmp(&bound) == wanted,
                _ => false,
            }
        };
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => ordered(Ordering::Greater),
            Operator::LessThan => ordered(Ordering::Less),
        }
    }
}

fn key_error(key: &str) -> Option<FieldError> {
    let problems = names::qualified_name(key);
    // Upstream passes no path here and prints what Go prints for it.
    (!problems.is_empty()).then(|| FieldError::invalid("<nil>", &json!(key), problems.join("; ")))
}

impl LabelSelector {
    /// Selects every object.
    pub const fn everything() -> Self {
        Self { requirements: Vec::new(), nothing: false }
    }

    /// Selects no object.
    pub const fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// All of `requirements`; none of them selects everything.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Labels that must be exactly these, as `matchLabels` or a Service's `spec.selector`.
    pub fn from_labels<'a>(
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SelectorError> {
        labels
            .into_iter()
            .map(|(key, value)| Requirement::new(key, Operator::Equals, vec![value.to_owned()]))
            .collect::<Result<_, _>>()
            .map(Self::new)
    }

    /// Reads `x in (a,b),y,!z,a=b,c!=d,e>1`. Empty text selects everything.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut tokens = scan(text);
        tokens.reverse();
        Parser { tokens }.parse().map(Self::new).map_err(SelectorError)
    }

    /// Reads a `metav1.LabelSelector`. Null selects nothing, `{}` everything.
    pub fn from_value(value: &Value) -> Result<Self, SelectorError> {
        let Value::Object(map) = value else {
            return if value.is_null() {
                Ok(Self::nothing())
            } else {
                Err(SelectorError("a label selector must be an object".to_owned()))
            };
        };
        let mut requirements = Vec::new();
        for (key, value) in map.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            let value = value.as_str().unwrap_or_default();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.to_owned()])?);
        }
        for term in map.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let text = |field: &str| term.get(field).and_then(Value::as_str).unwrap_or_default();
            let operator = match text("operator") {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator")));
                }
            };
            let values = term.get("values").and_then(Value::as_array).into_iter().flatten();
            let values = values.filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::new(text("key"), operator, values)?);
        }
        Ok(Self::new(requirements))
    }

    /// The terms, sorted by key; empty for both [`LabelSelector::everything`] and
    /// [`LabelSelector::nothing`].
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    /// Whether all terms hold for these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// The same with a look-up function.
    pub fn matches_with<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|term| term.matches(get(&term.key)))
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.requirements.iter().enumerate() {
            write!(f, "{}{term}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A token and how it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'a> {
    Word(&'a str),
    Symbol(&'static str),
    Unknown(&'a str),
}

impl<'a> Token<'a> {
    fn text(self) -> String {
        match self {
            Token::Word(text) | Token::Symbol(text) => text.to_owned(),
            Token::Unknown(text) => format!("error expected: keyword found '{text}'"),
        }
    }
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}

fn scan(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let Some(first) = rest.chars().next() else { return tokens };
        let (token, length) = if is_symbol(first) {
            match ["==", "!=", "=", "!", "(", ")", ",", ">", "<"].into_iter().find(|s| rest.starts_with(s)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => (Token::Unknown(rest), rest.len()),
            }
        } else {
            let end =
                rest.find(|c| is_symbol(c) || matches!(c, ' ' | '\t' | '\r' | '\n')).unwrap_or(rest.len());
            (Token::Word(rest.get(..end).unwrap_or_default()), end)
        };
        tokens.push(token);
        rest = rest.get(length..).unwrap_or_default();
    }
}

/// Tokens in reverse, so that the next is the last.
struct Parser<'a> {
    tokens: Vec<Token<'a>>,
}

const BINARY: &str = "in, notin, =, ==, !=, gt, lt";

impl<'a> Parser<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.tokens.pop()
    }

    fn peek(&self) -> Option<Token<'a>> {
        self.tokens.last().copied()
    }

    fn parse(&mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                None => return Ok(requirements),
                Some(Token::Word(_) | Token::Symbol("!")) => {}
                Some(other) => {
                    return Err(format!(
                        "found '{}', expected: !, identifier, or 'end of string'",
                        other.text()
                    ));
                }
            }
            let requirement = self.requirement().map_err(|e| format!("unable to parse requirement: {e}"))?;
            requirements.push(requirement);
            match self.next() {
                None => return Ok(requirements),
                Some(Token::Symbol(",")) => match self.peek() {
                    Some(Token::Word(_) | Token::Symbol("!")) => {}
                    other => {
                        return Err(format!("found '{}', expected: identifier after ','", shown(other)));
                    }
                },
                Some(other) => {
                    return Err(format!("found '{}', expected: ',' or 'end of string'", other.text()));
                }
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let mut token = self.next();
        let negated = token == Some(Token::Symbol("!"));
        if negated {
            token = self.next();
        }
        let Some(Token::Word(key)) = token else {
            return Err(format!("found '{}', expected: identifier", shown(token)));
        };
        if let Some(error) = key_error(key) {
            return Err(error.to_string());
        }
        let made = |operator, values| Requirement::new(key, operator, values).map_err(|e| e.0);
        if negated {
            return made(Operator::DoesNotExist, Vec::new());
        }
        let operator = match self.peek() {
            None | Some(Token::Symbol(",")) => return made(Operator::Exists, Vec::new()),
            Some(Token::Word("in")) => Operator::In,
            Some(Token::Word("notin")) => Operator::NotIn,
            Some(Token::Symbol("=")) => Operator::Equals,
            Some(Token::Symbol("==")) => Operator::DoubleEquals,
            Some(Token::Symbol("!=")) => Operator::NotEquals,
            Some(Token::Symbol(">")) => Operator::GreaterThan,
            Some(Token::Symbol("<")) => Operator::LessThan,
            Some(other) => return Err(format!("found '{}', expected: {BINARY}", other.text())),
        };
        self.next();
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact()?],
        };
        made(operator, values)
    }

    fn exact(&mut self) -> Result<String, String> {
        match self.peek() {
            None | Some(Token::Symbol(",")) => Ok(String::new()),
            Some(Token::Word(word)) => {
                self.next();
                Ok(word.to_owned())
            }
            Some(other) => Err(format!("found '{}', expected: identifier", other.text())),
        }
    }

    /// `(a,b)`; an empty place is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            Some(Token::Symbol("(")) => {}
            other => return Err(format!("found '{}' expected: '('", shown(other))),
        }
        let mut values = Vec::new();
        loop {
            let value = match self.peek() {
                Some(Token::Word(word)) => {
                    self.next();
                    word
                }
                Some(Token::Symbol("," | ")")) => "",
                other => {
                    return Err(format!("found '{}', expected: ',', ')' or identifier", shown(other)));
                }
            };
            values.push(value.to_owned());
            match self.next() {
                Some(Token::Symbol(",")) => {}
                Some(Token::Symbol(")")) => return Ok(values),
                other => return Err(format!("found '{}', expected: ',' or ')'", shown(other))),
            }
        }
    }
}

fn shown(token: Option<Token<'_>>) -> String {
    token.map(Token::text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parses_and_prints_as_upstream() {
        for (text, printed) in [
            ("", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("x!=a,y=b", "x!=a,y=b"),
            ("x==a", "x==a"),
            ("x= ", "x="),
            ("x=,z= ", "x=,z="),
            ("!x", "!x"),
            ("x>1,z<5", "x>1,z<5"),
            ("z,x", "x,z"),
            ("x in (foo,,baz),y,z notin ()", "x in (,baz,foo),y,z notin ()"),
            ("x notin (abc,def) , in in (in)", "in in (in),x notin (abc,def)"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().to_string(), printed, "{text}");
        }
    }

    #[test]
    fn refuses_as_upstream() {
        for text in [
            "x=a||y=b", "x==a==b", "!x=a", "x<a", "x,", ",x", "x=a,,y=b", "!", "x in", "x in (a", "x in a",
            "x in ()b", "x=a b", "(x)", "x y", "a/b/c", "x=(a)", "x = 'a'",
        ] {
            assert!(LabelSelector::parse(text).is_err(), "{text}");
        }
        let error = LabelSelector::parse("a b").unwrap_err().to_string();
        assert_eq!(error, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt");
        let error = LabelSelector::parse("a,").unwrap_err().to_string();
        assert_eq!(error, "found '', expected: identifier after ','");
    }

    #[test]
    fn matches_as_upstream() {
        let labels: BTreeMap<String, String> =
            [("x", "a"), ("n", "5")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for (text, expected) in [
            ("", true),
            ("x=a", true),
            ("x=b", false),
            ("x", true),
            ("!x", false),
            ("!y", true),
            ("y!=a", true),
            ("y notin (a)", true),
            ("x in (a,b)", true),
            ("x=a,n>4", true),
            ("n<5", false),
            ("x>1", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&labels), expected, "{text}");
        }
    }

    #[test]
    fn reads_the_map_form() {
        let selector = LabelSelector::from_value(&json!({
            "matchLabels": {"app": "a"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x", "y"]}]
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "app=a,tier notin (x,y)");
        assert!(LabelSelector::from_value(&json!({})).unwrap().is_everything());
        assert!(!LabelSelector::from_value(&Value::Null).unwrap().matches(&BTreeMap::new()));
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "Like"}]});
        let error = LabelSelector::from_value(&bad).unwrap_err().to_string();
        assert_eq!(error, "\"Like\" is not a valid label selector operator");
    }

    proptest! {
        #[test]
        fn never_panics_and_prints_what_it_parses(text in "[a-c=!<>(),.x in]{0,30}|\\PC{0,30}") {
            if let Ok(selector) = LabelSelector::parse(&text) {
                prop_assert_eq!(LabelSelector::parse(&selector.to_string()), Ok(selector));
            }
        }
    }
}
