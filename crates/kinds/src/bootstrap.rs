//! What a new cluster begins with: namespaces, roles and their bindings, priority classes, the range of
//! Service addresses, the APIServices of what the server itself answers for. Roles are facts of upstream's policy, read from a generated table (`policy.txt`).
//!
//! The table's lines: `KIND NAME [ROLE] [to=AGGREGATE] [of=AGGREGATE]`, then below a role its rules
//! (` VERBS GROUPS RESOURCES [NAMES]` or ` VERBS url URLS`, `-` for the core group) and below a binding its
//! subjects. What aggregated roles gather is written into them at once, as the controller for that would.

use meta::{Object, Value};
use serde_json::json;

use crate::{Options, flow_control, groups};

const POLICY: &str = include_str!("policy.txt");

/// Objects to create where absent, in an order in which each finds what it needs. They have neither UID nor
/// time: whoever creates them gives those.
pub fn bootstrap(options: &Options) -> Vec<Object> {
    let mut all: Vec<Value> = Vec::new();
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    }
    all.push(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [options.service_cidr.to_string()]},
    }));
    for (name, value, description) in [
        ("system-node-critical", 2_000_001_000, "for pods that their node cannot do without"),
        ("system-cluster-critical", 2_000_000_000, "for pods that the cluster cannot do without"),
    ] {
        all.push(json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description, "preemptionPolicy": "PreemptLowerPriority",
        }));
    }
    all.into_iter()
        .filter_map(|value| Object::from_value(value).ok())
        .chain(groups::api_services())
        .chain(flow_control::objects())
        .chain(policy())
        .collect()
}

/// Roles and bindings.
fn policy() -> Vec<Object> {
    let mut all: Vec<Object> = Vec::new();
    for line in POLICY.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix(' '), all.last_mut()) {
            (Some(part), Some(object)) if object.get(&["roleRef"]).is_some() => {
                push(object, "subjects", subject(part));
            }
            (Some(part), Some(object)) => push(object, "rules", rule(part)),
            _ => all.extend(head(line)),
        }
    }
    aggregate(&mut all);
    all
}

fn push(object: &mut Object, list: &str, item: Option<Value>) {
    if let Some(list) = object.get_mut(&[list]).and_then(Value::as_array_mut) {
        list.extend(item);
    }
}

fn head(line: &str) -> Option<Object> {
    let mut words = line.split(' ');
    let (kind, name) = (words.next()?, words.next()?);
    let mut object = Object::default();
    object.set(&["apiVersion"], "rbac.authorization.k8s.io/v1");
    object.set(&["kind"], kind);
    object.set(&["metadata", "annotations", "rbac.authorization.kubernetes.io/autoupdate"], "true");
    object.set(&["metadata", "labels", "kubernetes.io/bootstrapping"], "rbac-defaults");
    let mut list = "rules";
    for word in words {
        if let Some(to) = word.strip_prefix("to=") {
            object.set(&["metadata", "labels", &aggregate_label(to)], "true");
        } else if let Some(of) = word.strip_prefix("of=") {
            let selector = json!({"matchLabels": {aggregate_label(of): "true"}});
            object.set(&["aggregationRule", "clusterRoleSelectors"], json!([selector]));
        } else if let Some((kind, name)) = word.split_once('/') {
            let group = "rbac.authorization.k8s.io";
            object.set(&["roleRef"], json!({"apiGroup": group, "kind": kind, "name": name}));
            list = "subjects";
        }
    }
    object.set(&[list], json!([]));
    match name.split_once('/').filter(|_| !kind.starts_with("Cluster")) {
        Some((namespace, name)) => {
            object.set(&["metadata", "namespace"], namespace);
            object.set(&["metadata", "name"], name);
        }
        None => object.set(&["metadata", "name"], name),
    }
    Some(object)
}

fn aggregate_label(to: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{to}")
}

fn rule(line: &str) -> Option<Value> {
    let many = |word: &str| -> Vec<String> {
        word.split(',').map(|item| if item == "-" { String::new() } else { item.to_owned() }).collect()
    };
    let mut words = line.split(' ');
    let (verbs, groups, resources) = (many(words.next()?), words.next()?, many(words.next()?));
    if groups == "url" {
        return Some(json!({"nonResourceURLs": resources, "verbs": verbs}));
    }
    Some(match words.next() {
        Some(names) => json!({
            "apiGroups": many(groups), "resources": resources, "resourceNames": many(names), "verbs": verbs,
        }),
        None => json!({"apiGroups": many(groups), "resources": resources, "verbs": verbs}),
    })
}

fn subject(line: &str) -> Option<Value> {
    let (kind, name) = line.split_once(' ')?;
    Some(match name.split_once('/').filter(|_| kind == "ServiceAccount") {
        Some((namespace, name)) => json!({"kind": kind, "name": name, "namespace": namespace}),
        None => json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}),
    })
}

/// Gives each aggregated role the rules of the roles it selects, those that are aggregated themselves
/// first.
fn aggregate(all: &mut [Object]) {
    // `view` is part of `edit`, which is part of `admin`: as many rounds as the chain is long.
    for _ in 0..3 {
        for i in 0..all.len() {
            let Some(label) = all.get(i).and_then(selected) else { continue };
            let mut rules: Vec<Value> = Vec::new();
            for part in all.iter().filter(|part| part.label(&label).is_some()) {
                for rule in part.list(&["rules"]) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
            if let Some(role) = all.get_mut(i) {
                role.set(&["rules"], rules);
            }
        }
    }
}

/// The label that an aggregated role gathers roles by.
fn selected(role: &Object) -> Option<String> {
    let selector = role.list(&["aggregationRule", "clusterRoleSelectors"]).first()?;
    selector.get("matchLabels")?.as_object()?.keys().next().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cx;

    fn find<'a>(all: &'a [Object], kind: &str, name: &str) -> &'a Object {
        all.iter().find(|object| object.kind() == kind && object.name() == name).unwrap()
    }

    #[test]
    fn names_of_everything() {
        let lines: Vec<String> = bootstrap(&Options::default())
            .iter()
            .map(|object| {
                let (rules, subjects) = (object.list(&["rules"]).len(), object.list(&["subjects"]).len());
                format!(
                    "{} {} {} rules={rules} subjects={subjects}",
                    object.kind(),
                    object.namespace(),
                    object.name()
                )
            })
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn roles_say_what_upstream_lets_them() {
        let all = bootstrap(&Options::default());
        let admin = find(&all, "ClusterRole", "cluster-admin");
        assert_eq!(
            admin.list(&["rules"]),
            [
                json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}),
                json!({"nonResourceURLs": ["*"], "verbs": ["*"]}),
            ]
        );
        let binding = find(&all, "ClusterRoleBinding", "cluster-admin");
        assert_eq!(binding.list(&["subjects"])[0]["name"], "system:masters");
        assert_eq!(binding.str(&["roleRef", "name"]), Some("cluster-admin"));
        let rules = |name: &str| find(&all, "ClusterRole", name).list(&["rules"]).to_vec();
        let (view, edit, admin) = (rules("view"), rules("edit"), rules("admin"));
        assert!(!view.is_empty());
        assert!(view.iter().all(|rule| edit.contains(rule)) && edit.iter().all(|rule| admin.contains(rule)));
    }

    /// A fresh server accepts all of it.
    #[test]
    fn all_of_it_is_valid() {
        let table = crate::all(&Options::default(), &crate::Acts::default());
        for mut object in bootstrap(&Options::default()) {
            let kind =
                table.iter().find(|k| *k.kind == *object.kind() && k.api_version() == object.api_version());
            let kind = kind.unwrap();
            kind.strategy.validate_name(object.name()).unwrap();
            let mut tree = object.into_value();
            assert_eq!(schema::prune::unknown(&kind.schema, &mut tree, schema::prune::Mode::Report), [""; 0]);
            schema::default::apply(&kind.schema, &mut tree);
            object = Object::from_value(tree).unwrap();
            kind.strategy.default(&mut object);
            let errors = Cx::new(&kind.plural, "").errors(&*kind.strategy, &object, None);
            assert_eq!(errors, [""; 0], "{}", object.name());
        }
    }
}
