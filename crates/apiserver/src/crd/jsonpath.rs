//! The part of JSONPath that printer columns use (upstream `client-go/util/jsonpath` without ranges and
//! templates): `.a.b`, `['a.b']`, `\.`, `[0]`, `[-1]`, `[*]`, `[?(@.type=="Ready")]`.

use meta::{Object, Value};

/// A parsed path.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct JsonPath(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Key(String),
    Index(i64),
    Every,
    /// Items whose value at a path compares so with a constant.
    Where {
        path: Vec<String>,
        equal: bool,
        value: Value,
    },
}

/// A path that is accepted finds something, or nothing.
#[cfg(any(test, feature = "decoders"))]
pub(crate) fn decode_json_path(text: &str) {
    let value = serde_json::json!({"a": [1, {"b": "c"}], "metadata": {"annotations": {"a.b/c": "d"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    if let (Ok(path), Ok(object)) = (JsonPath::parse(text), Object::from_value(value)) {
        drop(path.first(&object).cloned());
    }
}

impl JsonPath {
    /// Parses a path that begins with a dot or a bracket.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('$').unwrap_or(text);
        if !text.starts_with(['.', '[']) {
            return Err("is not a valid JSONPath: must begin with a dot".to_owned());
        }
        let mut rest = text;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(inner) = rest.strip_prefix('[') {
                let end = closing(inner).ok_or("is not a valid JSONPath: missing ]")?;
                let (body, after) = inner.split_at(end);
                steps.push(bracket(body)?);
                rest = after.strip_prefix(']').unwrap_or_default();
            } else if let Some(inner) = rest.strip_prefix('.') {
                let (key, after) = key(inner);
                match key.as_str() {
                    "" if after.starts_with('[') && !steps.is_empty() => {}
                    "" if after.is_empty() && steps.is_empty() => {}
                    "" => return Err("is not a valid JSONPath: empty step".to_owned()),
                    "*" => steps.push(Step::Every),
                    _ => steps.push(Step::Key(key)),
                }
                rest = after;
            } else {
                return Err(format!("is not a valid JSONPath: unexpected {rest:?}"));
            }
        }
        Ok(Self(steps))
    }

    /// The first value at the path.
    pub(super) fn first<'a>(&self, object: &'a Object) -> Option<&'a Value> {
        let (first, steps) = self.0.split_first()?;
        let Step::Key(key) = first else { return None };
        let mut found = vec![object.0.get(key)?];
        for step in steps {
            found = found.into_iter().flat_map(|value| step.apply(value)).collect();
        }
        found.into_iter().next()
    }
}

impl Step {
    fn apply<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        match self {
            Self::Key(key) => value.get(key).into_iter().collect(),
            Self::Index(at) => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let length = i64::try_from(list.len()).unwrap_or(i64::MAX);
                let at = if *at < 0 { *at + length } else { *at };
                usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
            }
            Self::Every => match value {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Self::Where { path, equal, value: wanted } => {
                let list = value.as_array().map_or(&[][..], Vec::as_slice);
                let fits = |item: &&Value| {
                    let found = path.iter().try_fold(*item, |at, key| at.get(key));
                    found.is_some_and(|found| (found == wanted) == *equal)
                };
                list.iter().filter(fits).collect()
            }
        }
    }
}

/// A key up to an unescaped dot or bracket, and the rest.
fn key(text: &str) -> (String, &str) {
    let mut key = String::new();
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\\' if !escaped => {
                escaped = true;
                continue;
            }
            '.' | '[' if !escaped => return (key, text.get(at..).unwrap_or_default()),
            c => key.push(c),
        }
        escaped = false;
    }
    (key, "")
}

/// Where the bracket closes, outside quotes.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut depth) = (None, 0);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracket(body: &str) -> Result<Step, String> {
    let body = body.trim();
    if body == "*" {
        return Ok(Step::Every);
    }
    if let Some(name) = quoted(body) {
        return Ok(Step::Key(name.to_owned()));
    }
    if let Ok(at) = body.parse() {
        return Ok(Step::Index(at));
    }
    let filter = body.strip_prefix("?(").and_then(|f| f.strip_suffix(')'));
    let filter = filter.ok_or_else(|| format!("is not a valid JSONPath: [{body}] is not supported"))?;
    let (left, equal, right) = match (filter.split_once("=="), filter.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => return Err(format!("is not a valid JSONPath: filter {filter:?} has no == or !=")),
    };
    let left = left.trim().strip_prefix("@.");
    let left =
        left.ok_or_else(|| format!("is not a valid JSONPath: filter {filter:?} must begin with @."))?;
    let right = right.trim();
    let value = match quoted(right) {
        Some(text) => Value::String(text.to_owned()),
        None => serde_json::from_str(right)
            .map_err(|_| format!("is not a valid JSONPath: {right:?} is neither quoted nor a number"))?,
    };
    Ok(Step::Where { path: left.split('.').map(str::to_owned).collect(), equal, value })
}

fn quoted(text: &str) -> Option<&str> {
    let strip = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    strip('\'').or_else(|| strip('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(path: &str, expected: Result<Option<Value>, ()>) {
        let object = Object::from_value(json!({
            "metadata": {"name": "x", "labels": {"a.b/c": "dotted"}},
            "spec": {"replicas": 3, "list": ["a", "b"]},
            "status": {"conditions": [
                {"type": "Synced", "status": "False"}, {"type": "Ready", "status": "True"}]},
        }))
        .unwrap();
        let got = JsonPath::parse(path).map(|path| path.first(&object).cloned()).map_err(|_| ());
        assert_eq!(got, expected, "{path}");
    }

    #[test]
    fn finds_values() {
        check(".spec.replicas", Ok(Some(json!(3))));
        check("$.spec.replicas", Ok(Some(json!(3))));
        check(".spec.none.deeper", Ok(None));
        check(".spec.list[1]", Ok(Some(json!("b"))));
        check(".spec.list[-1]", Ok(Some(json!("b"))));
        check(".spec.list[*]", Ok(Some(json!("a"))));
        check(".metadata.labels['a.b/c']", Ok(Some(json!("dotted"))));
        check(".metadata.labels.a\\.b/c", Ok(Some(json!("dotted"))));
        check(".status.conditions[?(@.type==\"Ready\")].status", Ok(Some(json!("True"))));
        check(".status.conditions[?(@.type=='Ready')].status", Ok(Some(json!("True"))));
        check(".status.conditions[?(@.type != 'Ready')].status", Ok(Some(json!("False"))));
        for bad in ["", "spec", ".spec..x", ".a[", ".a[x]", ".a[?(type=='x')]", ".a[?(@.b)]"] {
            check(bad, Err(()));
        }
    }
}
