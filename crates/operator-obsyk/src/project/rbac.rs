//! Roles and bindings: how many rules about which resources, and who has them.

use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Fields, Inventory, Meta, lite, sorted};
use crate::Kind;

lite! {
    Role { metadata: Meta, rules: Vec<Rule> }
    ClusterRole { metadata: Meta, rules: Vec<Rule> }
    Rule { resources: Vec<String> }

    RoleBinding { metadata: Meta, role_ref: RoleRef, subjects: Vec<Subject> }
    ClusterRoleBinding { metadata: Meta, role_ref: RoleRef, subjects: Vec<Subject> }
    RoleRef { kind: String, name: String, api_group: IgnoredAny }
    Subject { kind: String, name: String, namespace: String }
}

fn role(rules: Option<Vec<Rule>>, is_cluster: bool) -> Fields {
    let rules = rules.unwrap_or_default();
    let count = rules.len();
    let resources = sorted(rules.into_iter().flat_map(|rule| rule.resources.unwrap_or_default()));
    Fields::default()
        .always("is_cluster", is_cluster)
        .always("rule_count", count)
        .always("resources", resources)
}

fn binding(role_ref: Option<RoleRef>, subjects: Option<Vec<Subject>>, is_cluster: bool) -> Fields {
    let RoleRef { kind, name, api_group: _ } = role_ref.unwrap_or_default();
    let role_ref =
        Fields::default().always("kind", kind.unwrap_or_default()).always("name", name.unwrap_or_default());
    let subjects: Vec<Value> = subjects.into_iter().flatten().map(subject).collect();
    Fields::default()
        .always("is_cluster", is_cluster)
        .always("role_ref", role_ref)
        .unless_empty("subjects", subjects)
}

fn subject(subject: Subject) -> Value {
    Fields::default()
        .always("kind", subject.kind.unwrap_or_default())
        .always("name", subject.name.unwrap_or_default())
        .unless_empty("namespace", subject.namespace)
        .into()
}

impl Inventory for Role {
    const KIND: Kind = Kind::Role;

    fn split(self) -> (Meta, Fields) {
        (self.metadata.unwrap_or_default(), role(self.rules, false))
    }
}

impl Inventory for ClusterRole {
    const KIND: Kind = Kind::ClusterRole;

    fn split(self) -> (Meta, Fields) {
        (self.metadata.unwrap_or_default(), role(self.rules, true))
    }
}

impl Inventory for RoleBinding {
    const KIND: Kind = Kind::RoleBinding;

    fn split(self) -> (Meta, Fields) {
        (self.metadata.unwrap_or_default(), binding(self.role_ref, self.subjects, false))
    }
}

impl Inventory for ClusterRoleBinding {
    const KIND: Kind = Kind::ClusterRoleBinding;

    fn split(self) -> (Meta, Fields) {
        (self.metadata.unwrap_or_default(), binding(self.role_ref, self.subjects, true))
    }
}
