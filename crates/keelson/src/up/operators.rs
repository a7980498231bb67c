//! The operators that run inside the cluster's process.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::wait::{await_condition, conditions},
};
use serde_json::Value;

use crate::{
    error::Failure,
    operators::{Operator, choose},
};

/// Fails early on a name that nobody has.
pub(crate) fn check(asked: &[String]) -> Result<(), Failure> {
    choose(asked).map(|_| ())
}

/// Installs the CRDs of the operators asked for, or brings them up to date, and waits until they are served.
pub(crate) async fn install(
    client: &kube::Client,
    asked: &[String],
) -> Result<Vec<&'static Operator>, Failure> {
    let operators = choose(asked)?;
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for operator in &operators {
        for crd in (operator.crds)() {
            let name = crd.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_owned();
            let failed = |error: kube::Error| Failure::of(format!("install the kind {name}"), error);
            let how = PatchParams::apply("keelson").force();
            api.patch(&name, &how, &Patch::Apply(&crd)).await.map_err(failed)?;
            let established = await_condition(api.clone(), &name, conditions::is_crd_established());
            match tokio::time::timeout(ESTABLISH, established).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(Failure::of(format!("watch the kind {name}"), error)),
                Err(_) => {
                    return Err(Failure::new(format!("the kind {name} was not established"))
                        .advise("look at its conditions: kubectl describe crd NAME"));
                }
            }
        }
    }
    Ok(operators)
}

/// How long a CRD may take to be established; it takes milliseconds.
const ESTABLISH: std::time::Duration = std::time::Duration::from_secs(30);
