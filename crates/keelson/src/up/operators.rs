//! The operators that run inside the cluster's process.

use meta::Object;

use crate::{
    error::Failure,
    operators::choose,
    up::{bootstrap, server::ApiServer},
};

/// Operators that were chosen, ready to run.
pub(crate) struct Chosen {
    pub(crate) names: Vec<&'static str>,
    pub(crate) controllers: Vec<reconcile::Controller>,
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
        controllers: operators.iter().flat_map(|operator| (operator.start)(0).controllers).collect(),
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
