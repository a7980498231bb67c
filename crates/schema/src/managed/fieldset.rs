//! A set of field paths, as `metadata.managedFields` keeps them (FieldsV1, upstream
//! `structured-merge-diff/fieldpath`).
//!
//! A path element is kept in its serialised form (`f:name`, `k:{"name":"a"}`, `v:"a"`, `i:0`), made
//! canonical when read, so that equal elements are equal strings and no operation has to parse one.
//! Knows no schema.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::{Map, Value};

/// A set of field paths. The default is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(BTreeMap<Box<str>, FieldNode>);

/// What a set says about one path element: whether the path that ends here is in it, and which longer ones
/// are. Never neither, once it is inside a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FieldNode {
    pub(crate) member: bool,
    pub(crate) children: FieldSet,
}

/// A tree that is not FieldsV1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldSetError {
    /// A level is not a map.
    #[error("expected an object in fieldsV1, got {0}")]
    NotAnObject(String),
    /// A key is none of the five kinds of path element.
    #[error("invalid path element {0:?} in fieldsV1")]
    Element(String),
}

impl FieldNode {
    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.children.is_empty()
    }
}

impl FieldSet {
    /// Reads FieldsV1.
    pub fn from_value(value: &Value) -> Result<Self, FieldSetError> {
        let map = value.as_object().ok_or_else(|| FieldSetError::NotAnObject(value.to_string()))?;
        let mut set = Self::default();
        for (element, below) in map {
            if element == "." {
                continue;
            }
            let inner = below.as_object().ok_or_else(|| FieldSetError::NotAnObject(below.to_string()))?;
            let children = Self::from_value(below)?;
            let member = inner.is_empty() || inner.contains_key(".");
            set.put(canonical(element)?, FieldNode { member, children });
        }
        Ok(set)
    }

    /// As FieldsV1.
    pub fn to_value(&self) -> Value {
        Value::Object(self.to_map(false))
    }

    fn to_map(&self, member: bool) -> Map<String, Value> {
        let mut map = Map::new();
        if member && !self.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (element, node) in &self.0 {
            map.insert(element.to_string(), Value::Object(node.children.to_map(node.member)));
        }
        map
    }

    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the path of these serialised elements; an empty path is not a field.
    pub fn insert(&mut self, path: &[&str]) {
        let Some((first, rest)) = path.split_first() else { return };
        let node = self.0.entry(Box::from(*first)).or_default();
        if rest.is_empty() {
            node.member = true;
        } else {
            node.children.insert(rest);
        }
    }

    /// Whether exactly this path is in the set.
    pub fn has(&self, path: &[&str]) -> bool {
        match path.split_first() {
            None => false,
            Some((last, [])) => self.0.get(*last).is_some_and(|node| node.member),
            Some((first, rest)) => self.0.get(*first).is_some_and(|node| node.children.has(rest)),
        }
    }

    /// What is in either.
    pub fn union(mut self, other: &Self) -> Self {
        for (element, theirs) in &other.0 {
            match self.0.get_mut(element) {
                Some(ours) => {
                    ours.member |= theirs.member;
                    ours.children = std::mem::take(&mut ours.children).union(&theirs.children);
                }
                None => {
                    self.0.insert(element.clone(), theirs.clone());
                }
            }
        }
        self
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| {
            Some(match theirs {
                None => return None,
                Some(theirs) => FieldNode {
                    member: ours.member && theirs.member,
                    children: ours.children.intersection(&theirs.children),
                },
            })
        })
    }

    /// What is here and not in `other`. A path goes only where itself is in `other`, not where its parent is.
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| {
            Some(match theirs {
                None => ours.clone(),
                Some(theirs) => FieldNode {
                    member: ours.member && !theirs.member,
                    children: ours.children.difference(&theirs.children),
                },
            })
        })
    }

    /// What is here and neither itself nor below a path of `other`.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.zip(other, |ours, theirs| {
            Some(match theirs {
                None => ours.clone(),
                Some(theirs) if theirs.member => return None,
                Some(theirs) => FieldNode {
                    member: ours.member,
                    children: ours.children.recursive_difference(&theirs.children),
                },
            })
        })
    }

    fn zip(&self, other: &Self, rule: impl Fn(&FieldNode, Option<&FieldNode>) -> Option<FieldNode>) -> Self {
        Self(
            self.0
                .iter()
                .filter_map(|(element, ours)| {
                    let node = rule(ours, other.0.get(element))?;
                    (!node.is_empty()).then(|| (element.clone(), node))
                })
                .collect(),
        )
    }

    /// Every path in upstream's form (`.spec.containers[name="a"].image`), sorted by element.
    pub fn paths(&self) -> Vec<String> {
        let mut out = Vec::new();
        self.visit(&mut Vec::new(), &mut |path| out.push(path.iter().map(|e| readable(e)).collect()));
        out
    }

    fn visit<'a>(&'a self, path: &mut Vec<&'a str>, each: &mut impl FnMut(&[&'a str])) {
        for (element, node) in &self.0 {
            path.push(element);
            if node.member {
                each(path);
            }
            node.children.visit(path, each);
            path.pop();
        }
    }

    pub(crate) fn get(&self, element: &str) -> Option<&FieldNode> {
        self.0.get(element)
    }

    /// Puts a node in, unless it says nothing.
    pub(crate) fn put(&mut self, element: Box<str>, node: FieldNode) {
        if !node.is_empty() {
            self.0.insert(element, node);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &FieldNode)> {
        self.0.iter().map(|(element, node)| (&**element, node))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut FieldNode)> {
        self.0.iter_mut().map(|(element, node)| (&**element, node))
    }
}

/// Checks an element and gives equal ones one spelling.
fn canonical(element: &str) -> Result<Box<str>, FieldSetError> {
    let wrong = || FieldSetError::Element(element.to_owned());
    let (kind, text) = element.split_at_checked(2).ok_or_else(wrong)?;
    match kind {
        "f:" => Ok(element.into()),
        "i:" => text.parse::<i64>().map(|at| format!("i:{at}").into()).map_err(|_| wrong()),
        "v:" => {
            let value: Value = serde_json::from_str(text).map_err(|_| wrong())?;
            Ok(format!("v:{value}").into())
        }
        "k:" => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(text).map_err(|_| wrong())?;
            let keys = serde_json::to_string(&keys).map_err(|_| wrong())?;
            Ok(format!("k:{keys}").into())
        }
        _ => Err(wrong()),
    }
}

/// An element as upstream prints it: `.name`, `[name="a"]`, `[="a"]`, `[0]`.
fn readable(element: &str) -> String {
    let (kind, text) = element.split_at_checked(2).unwrap_or(("", element));
    match kind {
        "f:" => format!(".{text}"),
        "v:" => format!("[={text}]"),
        "k:" => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let mut out = String::from("[");
            for (at, (key, value)) in keys.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                // Writing to a string cannot fail.
                write!(out, "{comma}{key}={value}").unwrap_or_default();
            }
            out.push(']');
            out
        }
        _ => format!("[{text}]"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn set(value: Value) -> FieldSet {
        FieldSet::from_value(&value).unwrap()
    }

    #[test]
    fn reads_and_writes_fields_v1() {
        let value = json!({
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}, "f:args": {"v:\"x\"": {}}},
        });
        assert_eq!(set(value.clone()).to_value(), value);
        assert_eq!(
            set(value).paths(),
            [
                ".metadata.labels",
                ".metadata.labels.app",
                ".spec.args[=\"x\"]",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
        let spelled = set(json!({"k:{ \"b\":1, \"a\":2 }": {}}));
        assert_eq!(spelled.to_value(), json!({"k:{\"a\":2,\"b\":1}": {}}));
    }

    #[test]
    fn refuses_what_is_not_fields_v1() {
        for bad in [
            json!([]),
            json!({"f:a": 1}),
            json!({"x:a": {}}),
            json!({"f": {}}),
            json!({"i:x": {}}),
            json!({"k:1": {}}),
        ] {
            assert!(FieldSet::from_value(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn differences_are_upstreams() {
        let parent = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}});
        let child = json!({"f:a": {"f:b": {}}});
        assert_eq!(
            set(parent.clone()).difference(&set(child.clone())).to_value(),
            json!({"f:a": {}, "f:c": {}})
        );
        assert_eq!(set(child.clone()).difference(&set(json!({"f:a": {}}))).to_value(), child);
        assert!(set(child).recursive_difference(&set(json!({"f:a": {}}))).is_empty());
        assert_eq!(set(parent).recursive_difference(&set(json!({"f:a": {}}))).to_value(), json!({"f:c": {}}));
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        proptest::collection::vec(proptest::collection::vec("f:[abc]", 1..4), 0..6).prop_map(|paths| {
            let mut set = FieldSet::default();
            for path in paths {
                set.insert(&path.iter().map(String::as_str).collect::<Vec<_>>());
            }
            set
        })
    }

    proptest! {
        #[test]
        fn algebra_holds(a in sets(), b in sets()) {
            let union = a.clone().union(&b);
            prop_assert_eq!(&union, &b.clone().union(&a));
            prop_assert_eq!(a.intersection(&b), union.difference(&a.difference(&b)).difference(&b.difference(&a)));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert_eq!(FieldSet::from_value(&union.to_value()), Ok(union));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
                let _: Result<FieldSet, _> = FieldSet::from_value(&value);
            }
        }

        #[test]
        fn any_element_is_read_or_refused(element in "[fkvi.]:?\\PC{0,20}") {
            if let Ok(set) = FieldSet::from_value(&json!({element: {}})) {
                prop_assert_eq!(FieldSet::from_value(&set.to_value()), Ok(set.clone()));
                let _: Vec<String> = set.paths();
            }
        }
    }
}
