//! The `scale` subresource of any kind that has one.

use k8s_openapi::api::autoscaling::v1::Scale;
use kube::core::Request;
use reconcile::Kind;

/// Reads the scale of an object given by `apiVersion`, kind and name. `None` when the kind is not served or
/// has no scale, or the object is gone; the error says what could not be read.
pub(crate) async fn read(
    client: &kube::Client,
    api_version: &str,
    kind: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<(Kind, Scale)>, String> {
    let asked = format!("the scale of {kind} {namespace}/{name}");
    let failed = |error: kube::Error| format!("cannot read {asked}: {}", reconcile::text(&error));
    let gone = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 404);
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let listed = match group {
        "" => client.list_core_api_resources(version).await,
        _ => client.list_api_group_resources(api_version).await,
    };
    let served = match listed {
        Ok(listed) => listed.resources,
        Err(error) if gone(&error) => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let of_kind = served.iter().find(|resource| resource.kind == kind && !resource.name.contains('/'));
    let scalable = |plural: &str| served.iter().any(|resource| resource.name == format!("{plural}/scale"));
    let Some(plural) = of_kind.map(|resource| resource.name.as_str()).filter(|plural| scalable(plural))
    else {
        return Ok(None);
    };
    let kind = Kind::new(group, version, kind, plural);
    let request = Request::new(kind.url(namespace)).get_subresource("scale", name);
    let request = request.map_err(|error| format!("cannot ask for {asked}: {error}"))?;
    match client.request::<Scale>(request).await {
        Ok(scale) => Ok(Some((kind, scale))),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}
