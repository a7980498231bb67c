//! The operators that run inside the cluster's process.

use meta::Object;
use serde_json::Value;

use crate::{
    error::Failure,
    up::{bootstrap, server::ApiServer},
};

/// An operator: its name on the command line, its CRDs, its controllers.
struct Operator {
    name: &'static str,
    crds: fn() -> Vec<Value>,
    controllers: fn() -> Vec<reconcile::Controller>,
}

/// Every operator of this release.
const OPERATORS: &[Operator] = &[
    Operator {
        name: "database",
        crds: || vec![operator_database::crd()],
        controllers: operator_database::controllers,
    },
    Operator {
        name: "obsyk",
        crds: || vec![operator_obsyk::crd()],
        controllers: operator_obsyk::controllers,
    },
];

/// Operators that were chosen, ready to run.
pub(crate) struct Chosen {
    pub(crate) names: Vec<&'static str>,
    pub(crate) controllers: Vec<reconcile::Controller>,
}

fn choose(asked: &[String]) -> Result<Vec<&'static Operator>, Failure> {
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

/// Fails early on a name that nobody has.
pub(crate) fn check(asked: &[String]) -> Result<(), Failure> {
    choose(asked).map(|_| ())
}

/// Installs the CRDs of the operators asked for, or brings them up to date, and waits until they are served.
pub(crate) async fn install(server: &ApiServer, asked: &[String]) -> Result<Chosen, Failure> {
    let operators = choose(asked)?;
    for operator in &operators {
        for crd in (operator.crds)() {
            let object = Object::from_value(crd).unwrap_or_default();
            let name = object.name().to_owned();
            bootstrap::replace(&server.rest, object).await?;
            served(server, &name).await?;
        }
    }
    Ok(Chosen {
        names: operators.iter().map(|operator| operator.name).collect(),
        controllers: operators.iter().flat_map(|operator| (operator.controllers)()).collect(),
    })
}

/// How long a CRD may take to be established; it takes milliseconds.
const ESTABLISH: std::time::Duration = std::time::Duration::from_secs(10);

async fn served(server: &ApiServer, crd: &str) -> Result<(), Failure> {
    let (plural, group) = crd.split_once('.').unwrap_or((crd, ""));
    let registry = server.rest.registry();
    let mut changes = registry.changes();
    let there = || registry.all().iter().any(|kind| *kind.group == *group && *kind.plural == *plural);
    let waited = tokio::time::timeout(ESTABLISH, changes.wait_for(|_| there())).await;
    match waited {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Failure::new(format!("the kind {crd} was not established"))
            .advise("look at its conditions: kubectl describe crd NAME")),
    }
}
