//! Node selectors: `nodeAffinity` terms and persistent volumes' node affinity, read once from the
//! wire into a form that only matches.
//!
//! Terms are ORed, requirements in a term ANDed, a term without requirements matches nothing
//! (upstream `component-helpers/scheduling/corev1/nodeaffinity`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as wire;

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// The label has one of the values.
    In,
    /// The label is absent or has none of the values.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
    /// The label is an integer greater than the value.
    Gt,
    /// The label is an integer less than the value.
    Lt,
    /// An operator this release does not know; matches nothing.
    Unknown,
}

/// One requirement on a label, or on a field in [`Term::fields`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// Label or field.
    pub key: String,
    /// Comparison.
    pub operator: Operator,
    /// Values to compare with.
    pub values: Vec<String>,
}

impl Requirement {
    /// Whether a label with this value, or its absence, satisfies the requirement.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let listed = |v: &str| self.values.iter().any(|x| x == v);
        match self.operator {
            Operator::In => value.is_some_and(listed),
            Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Gt => self.compare(value, |have, bound| have > bound),
            Operator::Lt => self.compare(value, |have, bound| have < bound),
            Operator::Unknown => false,
        }
    }

    fn compare(&self, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
        let [bound] = self.values.as_slice() else { return false };
        match (value.map(str::parse), bound.parse()) {
            (Some(Ok(have)), Ok(bound)) => holds(have, bound),
            _ => false,
        }
    }
}

impl From<&wire::NodeSelectorRequirement> for Requirement {
    fn from(from: &wire::NodeSelectorRequirement) -> Self {
        let operator = match from.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt,
            "Lt" => Operator::Lt,
            _ => Operator::Unknown,
        };
        Self { key: from.key.clone(), operator, values: from.values.clone().unwrap_or_default() }
    }
}

/// Requirements that must all hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Term {
    /// On labels.
    pub expressions: Vec<Requirement>,
    /// On fields; only `metadata.name` exists, any other matches nothing.
    pub fields: Vec<Requirement>,
}

impl Term {
    /// Whether a node of this name and these labels satisfies the term.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.expressions.iter().all(|r| r.matches(labels.get(&r.key).map(String::as_str)))
            && self.fields.iter().all(|r| r.key == "metadata.name" && r.matches(Some(name)))
    }
}

impl From<&wire::NodeSelectorTerm> for Term {
    fn from(from: &wire::NodeSelectorTerm) -> Self {
        let read = |list: &Option<Vec<wire::NodeSelectorRequirement>>| {
            list.as_deref().unwrap_or_default().iter().map(Requirement::from).collect()
        };
        Self { expressions: read(&from.match_expressions), fields: read(&from.match_fields) }
    }
}

/// Terms of which one must hold. Without terms it matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NodeSelector(pub Vec<Term>);

impl NodeSelector {
    /// Whether a node of this name and these labels is selected.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }
}

impl From<&wire::NodeSelector> for NodeSelector {
    fn from(from: &wire::NodeSelector) -> Self {
        Self(from.node_selector_terms.iter().map(Term::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(selector: serde_json::Value, expected: bool) {
        let wire: wire::NodeSelector =
            serde_json::from_value(serde_json::json!({"nodeSelectorTerms": selector})).unwrap();
        let labels = [("zone", "a"), ("cores", "8")].map(|(k, v)| (k.into(), v.into())).into();
        assert_eq!(NodeSelector::from(&wire).matches("n1", &labels), expected, "{selector}");
    }

    #[test]
    fn every_operator() {
        use serde_json::json;
        let one = |key: &str, op: &str, values: &[&str]| json!([{"matchExpressions": [{"key": key, "operator": op, "values": values}]}]);
        check(one("zone", "In", &["a", "b"]), true);
        check(one("zone", "In", &["b"]), false);
        check(one("rack", "In", &["b"]), false);
        check(one("zone", "NotIn", &["b"]), true);
        check(one("zone", "NotIn", &["a"]), false);
        check(one("rack", "NotIn", &["a"]), true);
        check(one("zone", "Exists", &[]), true);
        check(one("rack", "Exists", &[]), false);
        check(one("zone", "DoesNotExist", &[]), false);
        check(one("rack", "DoesNotExist", &[]), true);
        check(one("cores", "Gt", &["7"]), true);
        check(one("cores", "Gt", &["8"]), false);
        check(one("cores", "Lt", &["9"]), true);
        check(one("zone", "Lt", &["9"]), false);
        check(one("cores", "Lt", &["many"]), false);
        check(one("zone", "Near", &["a"]), false);
    }

    #[test]
    fn terms_fields_and_emptiness() {
        use serde_json::json;
        let field = |key: &str, name: &str| json!([{"matchFields": [{"key": key, "operator": "In", "values": [name]}]}]);
        check(field("metadata.name", "n1"), true);
        check(field("metadata.name", "n2"), false);
        check(field("spec.unschedulable", "n1"), false);
        check(json!([]), false);
        check(json!([{}]), false);
        let zone_b = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]});
        let any_zone = json!({"matchExpressions": [{"key": "zone", "operator": "Exists"}]});
        check(json!([zone_b, any_zone]), true);
        check(json!([{}, zone_b]), false);
    }
}
