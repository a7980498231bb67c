//! The priority levels and flow schemas of a new cluster (upstream
//! `apiserver/pkg/apis/flowcontrol/bootstrap`): the mandatory ones, and those that are suggested here.

use meta::{Object, Value};
use resource::flow_control::{mandatory, object};
use serde_json::{Map, json};

/// Queues, hand, length of a queue.
type Queuing = (u32, u32, u32);

/// Name, shares, percent lent.
type Level = (&'static str, u32, u32, Queuing);

const LEVELS: &[Level] = &[
    ("system", 30, 33, (64, 6, 50)),
    ("node-high", 40, 25, (64, 6, 50)),
    ("leader-election", 10, 0, (16, 4, 50)),
    ("workload-high", 40, 50, (128, 6, 50)),
    ("workload-low", 100, 90, (128, 6, 50)),
    ("global-default", 20, 50, (128, 6, 50)),
];

const ALL: &[&str] = &["*"];
const ELECT: &[&str] = &["get", "create", "update"];

/// All of them. Levels come before what names them.
pub(crate) fn objects() -> Vec<Object> {
    let everyone = || vec![group("system:unauthenticated"), group("system:authenticated")];
    let locks = |namespaces| resources(ELECT, "", &["endpoints", "configmaps"], namespaces, false);
    let leases = |namespaces| resources(ELECT, "coordination.k8s.io", &["leases"], namespaces, false);
    let levels = LEVELS.iter().filter_map(level);
    let components = vec![user("system:kube-controller-manager"), user("system:kube-scheduler")];
    let probes = json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]});
    let endpoint_controllers = vec![
        user("system:kube-controller-manager"),
        account("endpoint-controller"),
        account("endpointslicemirroring-controller"),
    ];
    let nodes = json!([
        resources(ALL, "", &["nodes", "nodes/status"], ALL, true),
        resources(ALL, "coordination.k8s.io", &["leases"], ALL, false),
    ]);
    let (by_user, by_namespace) = (Some("ByUser"), Some("ByNamespace"));
    let endpoints = json!([resources(ELECT, "", &["endpoints"], ALL, false)]);
    let none = || json!([]);
    let schemas = [
        schema("probes", "exempt", 2, None, everyone(), none(), json!([probes])),
        schema(
            "system-leader-election",
            "leader-election",
            100,
            by_user,
            [components, vec![account("*")]].concat(),
            json!([locks(&["kube-system"]), leases(ALL)]),
            none(),
        ),
        schema("endpoint-controller", "workload-high", 150, by_user, endpoint_controllers, endpoints, none()),
        schema(
            "workload-leader-election",
            "leader-election",
            200,
            by_user,
            vec![account("*")],
            json!([locks(ALL), leases(ALL)]),
            none(),
        ),
        schema("system-node-high", "node-high", 400, by_user, vec![group("system:nodes")], nodes, none()),
        schema("system-nodes", "system", 500, by_user, vec![group("system:nodes")], everything(), anywhere()),
        schema(
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            vec![user("system:kube-controller-manager")],
            everything(),
            anywhere(),
        ),
        schema(
            "kube-scheduler",
            "workload-high",
            800,
            by_namespace,
            vec![user("system:kube-scheduler")],
            everything(),
            anywhere(),
        ),
        schema(
            "kube-system-service-accounts",
            "workload-high",
            900,
            by_namespace,
            vec![account("*")],
            everything(),
            anywhere(),
        ),
        schema(
            "service-accounts",
            "workload-low",
            9000,
            by_user,
            vec![group("system:serviceaccounts")],
            everything(),
            anywhere(),
        ),
        schema("global-default", "global-default", 9900, by_user, everyone(), everything(), anywhere()),
    ];
    mandatory().into_iter().chain(levels).chain(schemas.into_iter().flatten()).collect()
}

fn level((name, shares, lendable, (queues, hand, length)): &Level) -> Option<Object> {
    let response = json!({
        "type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": length},
    });
    let limited = json!({
        "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response,
    });
    object("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
}

fn schema(
    name: &str,
    level: &str,
    precedence: u32,
    by: Option<&str>,
    subjects: Vec<Value>,
    resources: Value,
    paths: Value,
) -> Option<Object> {
    let mut rule = Map::new();
    rule.insert("subjects".to_owned(), subjects.into());
    for (member, rules) in [("resourceRules", resources), ("nonResourceRules", paths)] {
        if rules.as_array().is_some_and(|rules| !rules.is_empty()) {
            rule.insert(member.to_owned(), rules);
        }
    }
    let (level, rules) = (json!({"name": level}), vec![Value::Object(rule)]);
    let mut spec = Map::new();
    spec.insert("priorityLevelConfiguration".to_owned(), level);
    spec.insert("matchingPrecedence".to_owned(), precedence.into());
    spec.insert("rules".to_owned(), rules.into());
    if let Some(by) = by {
        spec.insert("distinguisherMethod".to_owned(), json!({"type": by}));
    }
    object("FlowSchema", name, spec.into())
}

fn resources(verbs: &[&str], group: &str, resources: &[&str], namespaces: &[&str], cluster: bool) -> Value {
    let rule =
        json!({"verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": namespaces});
    match (cluster, rule) {
        (true, Value::Object(mut rule)) => {
            rule.insert("clusterScope".to_owned(), true.into());
            rule.into()
        }
        (_, rule) => rule,
    }
}

fn everything() -> Value {
    json!([resources(ALL, "*", ALL, ALL, true)])
}

fn anywhere() -> Value {
    json!([{"verbs": ALL, "nonResourceURLs": ALL}])
}

fn user(name: &str) -> Value {
    json!({"kind": "User", "user": {"name": name}})
}

fn group(name: &str) -> Value {
    json!({"kind": "Group", "group": {"name": name}})
}

fn account(name: &str) -> Value {
    json!({"kind": "ServiceAccount", "serviceAccount": {"namespace": "kube-system", "name": name}})
}
