//! Objects that a pod refers to, from the API server.

use std::collections::BTreeMap;

use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{ConfigMap, PersistentVolume, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
    node::v1::RuntimeClass,
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use meta::Timestamp;

use crate::{
    pod, service_env,
    sources::{Needs, Sources},
    volume::{Claim, Token},
};

/// The API server could not be asked. Not the same as "does not exist".
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("read {what} {name}: {}", reconcile::text(.source))]
    Read { what: &'static str, name: String, source: kube::Error },
    #[error("the API server gave no token for ServiceAccount {0}")]
    Empty(String),
}

fn fail<'a>(what: &'static str, name: &'a str) -> impl FnOnce(kube::Error) -> FetchError + 'a {
    move |source| FetchError::Read { what, name: name.to_owned(), source }
}

/// Reads what `needs` names in the namespace of `want`.
pub(crate) async fn sources(client: &Client, want: &Pod, needs: &Needs) -> Result<Sources, FetchError> {
    let mut sources = Sources::default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), pod::namespace(want));
    for name in &needs.config_maps {
        let map = maps.get_opt(name).await.map_err(fail("ConfigMap", name))?;
        sources.config_maps.insert(name.clone(), map);
    }
    for name in &needs.secrets {
        sources.secrets.insert(name.clone(), secret(client, pod::namespace(want), name).await?);
    }
    Ok(sources)
}

pub(crate) async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Secret>, FetchError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    secrets.get_opt(name).await.map_err(fail("Secret", name))
}

/// A RuntimeClass.
pub(crate) async fn runtime_class(client: &Client, name: &str) -> Result<Option<RuntimeClass>, FetchError> {
    let classes: Api<RuntimeClass> = Api::all(client.clone());
    classes.get_opt(name).await.map_err(fail("RuntimeClass", name))
}

/// The Secrets in `spec.imagePullSecrets` that exist.
pub(crate) async fn pull_secrets(client: &Client, want: &Pod) -> Result<Vec<Secret>, FetchError> {
    let mut list = Vec::new();
    for reference in want.spec.iter().flat_map(|spec| spec.image_pull_secrets.iter().flatten()) {
        list.extend(secret(client, pod::namespace(want), &reference.name).await?);
    }
    Ok(list)
}

/// The claims `names` with the volumes they are bound to.
pub(crate) async fn claims(
    client: &Client,
    want: &Pod,
    names: Vec<String>,
) -> Result<BTreeMap<String, Claim>, FetchError> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), pod::namespace(want));
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let mut found = BTreeMap::new();
    for name in names {
        let claim = claims.get_opt(&name).await.map_err(fail("PersistentVolumeClaim", &name))?;
        let bound = claim.as_ref().and_then(|claim| claim.spec.as_ref()?.volume_name.clone());
        let volume = match bound.filter(|bound| !bound.is_empty()) {
            Some(bound) => volumes.get_opt(&bound).await.map_err(fail("PersistentVolume", &bound))?,
            None => None,
        };
        found.insert(name, Claim { claim, volume });
    }
    Ok(found)
}

/// Variables that tell a container where Services are.
pub(crate) async fn service_env(client: &Client, want: &Pod) -> Result<BTreeMap<String, String>, FetchError> {
    let links = want.spec.as_ref().and_then(|spec| spec.enable_service_links).unwrap_or(true);
    let mut services = Vec::new();
    let namespace = pod::namespace(want);
    if links {
        let api: Api<Service> = Api::namespaced(client.clone(), namespace);
        services =
            api.list(&ListParams::default()).await.map_err(fail("Services of namespace", namespace))?.items;
    }
    if !links || namespace != "default" {
        let api: Api<Service> = Api::namespaced(client.clone(), "default");
        services.extend(api.get_opt("kubernetes").await.map_err(fail("Service", "kubernetes"))?);
    }
    Ok(service_env::variables(want, &services))
}

/// A token that a volume asks for, and when it expires.
pub(crate) async fn token(
    client: &Client,
    want: &Pod,
    token: &Token,
) -> Result<(String, Timestamp), FetchError> {
    let account =
        want.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), pod::namespace(want));
    let audiences = (!token.audience.is_empty()).then(|| vec![token.audience.clone()]);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences,
            expiration_seconds: Some(token.expiration_seconds),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: want.metadata.name.clone(),
                uid: want.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let answer = accounts
        .create_token_request(account, &PostParams::default(), &request)
        .await
        .map_err(fail("token of ServiceAccount", account))?;
    let status = answer.status.unwrap_or_default();
    let (Some(value), Some(expires)) = (status.token, status.expiration_timestamp) else {
        return Err(FetchError::Empty(account.to_owned()));
    };
    Ok((value, expires.0))
}
