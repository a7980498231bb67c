//! The operators of this release, as one table: what `up` runs, `operator` runs alone, and `install` prints.

use std::sync::Arc;

use serde_json::Value;

use crate::error::Failure;

/// Reads the numbers of an operator, in the Prometheus text form.
pub(crate) type MetricsText = Arc<dyn Fn() -> String + Send + Sync>;

/// What an operator comes to when it is started.
pub(crate) struct Started {
    pub(crate) controllers: Vec<reconcile::Controller>,
    /// Beside those of its controllers.
    pub(crate) metrics: Option<MetricsText>,
}

/// What an operator may do in a cluster: API group, resources, verbs.
pub(crate) type Rule = (&'static str, &'static [&'static str], &'static [&'static str]);

/// An operator: its name on the command line, its CRDs, its controllers, its rights and its size.
pub(crate) struct Operator {
    pub(crate) name: &'static str,
    pub(crate) crds: fn() -> Vec<Value>,
    /// The argument grows with each new leader of its replicas.
    pub(crate) start: fn(u64) -> Started,
    pub(crate) rules: fn() -> Vec<Rule>,
    /// Memory that it keeps below, in MiB.
    pub(crate) memory_mib: u32,
}

/// Every operator of this release.
pub(crate) const OPERATORS: &[Operator] = &[
    Operator {
        name: "buildbarn",
        crds: operator_buildbarn::crds,
        start: |_| Started { controllers: operator_buildbarn::controllers(), metrics: None },
        rules: || BUILDBARN.to_vec(),
        memory_mib: 128,
    },
    Operator {
        name: "database",
        crds: || vec![operator_database::crd()],
        start: |_| Started { controllers: operator_database::controllers(), metrics: None },
        rules: || DATABASE.to_vec(),
        memory_mib: 128,
    },
    Operator {
        name: "obsyk",
        crds: || vec![operator_obsyk::crd()],
        start: |fence| {
            let operator_obsyk::Parts { controllers, metrics } = operator_obsyk::parts(fence);
            Started { controllers, metrics: Some(metrics) }
        },
        rules: obsyk,
        memory_mib: 128,
    },
];

const READ: &[&str] = &["get", "list", "watch"];
const OWN: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
const STATUS: &[&str] = &["get", "update", "patch"];
const TELL: &[&str] = &["create", "patch"];

/// What the Buildbarn operator may do.
const BUILDBARN: &[Rule] = &[
    (
        "buildbarn.io",
        &[
            "buildbarnbrowsers",
            "buildbarnfrontends",
            "buildbarnschedulers",
            "buildbarnstorages",
            "buildbarnworkers",
        ],
        &["get", "list", "watch", "patch", "update"],
    ),
    (
        "buildbarn.io",
        &[
            "buildbarnbrowsers/status",
            "buildbarnfrontends/status",
            "buildbarnschedulers/status",
            "buildbarnstorages/status",
            "buildbarnworkers/status",
        ],
        &["get", "patch", "update"],
    ),
    (
        "",
        &["configmaps", "services", "pods", "persistentvolumeclaims"],
        &["get", "list", "watch", "create", "patch", "update", "delete"],
    ),
    ("", &["pods/proxy"], &["get"]),
    ("", &["nodes"], &["get", "list", "watch"]),
    (
        "apps",
        &["deployments", "statefulsets"],
        &["get", "list", "watch", "create", "patch", "update", "delete"],
    ),
    (
        "networking.k8s.io",
        &["ingresses", "networkpolicies"],
        &["get", "list", "watch", "create", "patch", "update", "delete"],
    ),
    ("policy", &["poddisruptionbudgets"], &["get", "list", "watch", "create", "patch", "update", "delete"]),
    ("events.k8s.io", &["events"], &["create", "patch"]),
];

const DATABASE: &[Rule] = &[
    (operator_database::GROUP, &["databases"], &["get", "list", "watch", "update", "patch"]),
    (operator_database::GROUP, &["databases/status", "databases/finalizers"], STATUS),
    ("apps", &["statefulsets"], OWN),
    ("", &["services", "configmaps", "secrets", "persistentvolumeclaims"], OWN),
    ("", &["pods"], READ),
    ("", &["events"], TELL),
    ("events.k8s.io", &["events"], TELL),
];

/// Reads the kinds of the inventory, writes only the status of its own kind.
fn obsyk() -> Vec<Rule> {
    let mut rules: Vec<Rule> = vec![
        (operator_obsyk::GROUP, &["obsykagents"], READ),
        (operator_obsyk::GROUP, &["obsykagents/status"], STATUS),
        ("", &["events"], TELL),
        ("events.k8s.io", &["events"], TELL),
        // The credentials, and the cluster's identity; the lists hold them as well.
        ("", &["secrets", "namespaces"], &["get"]),
    ];
    for (group, resources) in operator_obsyk::READS {
        rules.push((group, resources, &["list", "watch"]));
    }
    rules
}

/// The operators that a user asked for: `all`, `none`, or names.
pub(crate) fn choose(asked: &[String]) -> Result<Vec<&'static Operator>, Failure> {
    match asked {
        [one] if one == "all" => return Ok(OPERATORS.iter().collect()),
        [one] if one == "none" => return Ok(Vec::new()),
        _ => {}
    }
    let known: Vec<&str> = OPERATORS.iter().map(|operator| operator.name).collect();
    if let Some(alone) = asked.iter().find(|name| ["all", "none"].contains(&name.as_str())) {
        return Err(Failure::usage(format!("--operators {alone} stands alone"))
            .advise(format!("say all, none, or some of: {}", known.join(", "))));
    }
    asked
        .iter()
        .map(|name| {
            OPERATORS.iter().find(|operator| operator.name == name).ok_or_else(|| {
                Failure::usage(format!("there is no operator {name:?}"))
                    .advise(format!("say all, none, or some of: {}", known.join(", ")))
            })
        })
        .collect()
}
