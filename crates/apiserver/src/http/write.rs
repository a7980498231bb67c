//! Requests that change something: create, update, patch, delete and the POST subresources.

use std::sync::Arc;

use http::Response;
use meta::{FieldError, Status};
use resource::{Resource, Subresource};
use serde_json::json;

use super::{
    body::{Body, Input},
    decode, encode, list,
    negotiate::{self, Form, Media, Wanted},
    query::{self, Query},
    resources::Call,
};
use crate::rest::{Deleted, Patch, PatchKind, Written};

/// POST.
pub(crate) async fn create(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = call.caller(&call.query)?;
    let wanted = call.wanted_of(resource)?;
    let media = negotiate::content(call.headers)?;
    let (object, duplicates) =
        decode::object(&input.collect().await?, media, resource, call.rest().registry())?;
    if let Some(Subresource::Act(_)) = resource.subresource(call.subresource()) {
        let answer = call.rest().act(&caller, resource, &call.target(), object).await?;
        let whole = Wanted { form: Form::Whole, ..wanted };
        return Ok(encode::value(201, whole, call.rest().registry(), &answer));
    }
    if !call.subresource().is_empty() {
        return Err(Status::method_not_allowed(&resource.group_resource(), "create"));
    }
    let namespace = call.namespace().unwrap_or_default();
    let written = call.rest().create(&caller, resource, namespace, object, duplicates).await?;
    answer(call, wanted, resource, &written)
}

/// PUT.
pub(crate) async fn update(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = call.caller(&call.query)?;
    let wanted = call.wanted_of(resource)?;
    let media = negotiate::content(call.headers)?;
    let (object, duplicates) =
        decode::object(&input.collect().await?, media, resource, call.rest().registry())?;
    let written = call.rest().update(&caller, resource, &call.target(), object, duplicates).await?;
    answer(call, wanted, resource, &written)
}

/// PATCH.
pub(crate) async fn patch(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = call.caller(&call.query)?;
    let wanted = call.wanted_of(resource)?;
    let (kind, media) = patch_kind(call, resource)?;
    let decode::Decoded { value, duplicates } = decode::decode(&input.collect().await?, media)?;
    let patch = Patch { kind, body: value, duplicates };
    let written = call.rest().patch(&caller, resource, &call.target(), patch).await?;
    answer(call, wanted, resource, &written)
}

fn patch_kind(call: &Call<'_>, resource: &Resource) -> Result<(PatchKind, Media), Status> {
    let force = call.query.get("force").map(|_| call.query.flag("force"));
    let invalid = |error| Status::invalid("meta.k8s.io", "PatchOptions", "", &[error]);
    let kind = match negotiate::media_type(call.headers)? {
        "application/json-patch+json" => PatchKind::Json,
        "application/merge-patch+json" => PatchKind::Merge,
        "application/strategic-merge-patch+json" if !resource.custom => PatchKind::Strategic,
        "application/apply-patch+yaml" => {
            if call.query.get("fieldManager").is_none() {
                return Err(invalid(FieldError::required("fieldManager", "is required for apply patch")));
            }
            return Ok((PatchKind::Apply { force: force.unwrap_or(false) }, Media::Yaml));
        }
        _ => {
            let strategic = if resource.custom { "" } else { ", application/strategic-merge-patch+json" };
            return Err(negotiate::unsupported(&format!(
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, \
                 application/apply-patch+yaml{strategic}"
            )));
        }
    };
    if force.is_some() {
        return Err(invalid(FieldError::forbidden("force", "may not be specified for non-apply patch")));
    }
    Ok((kind, Media::Json))
}

/// DELETE of one object.
pub(crate) async fn delete(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let mut caller = call.caller(&Query::default())?;
    let wanted = call.wanted_of(resource)?;
    let (options, dry_run) = query::delete_options(&call.query, options_body(call, resource, input).await?)?;
    caller.dry_run = dry_run;
    let deleted = call.rest().delete(&caller, resource, &call.target().key, &options).await?;
    match deleted {
        Deleted::Pending(entry) => call.entry(200, wanted, resource, &entry),
        Deleted::Gone(entry) => {
            let mut details = json!({
                "name": entry.header.key.name, "kind": &*resource.plural, "uid": entry.header.uid,
            });
            if let (false, Some(map)) = (resource.group.is_empty(), details.as_object_mut()) {
                map.insert("group".to_owned(), json!(&*resource.group));
            }
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
            });
            Ok(encode::value(
                200,
                Wanted { form: Form::Whole, ..call.wanted()? },
                call.rest().registry(),
                &status,
            ))
        }
    }
}

/// DELETE of all objects of a kind.
pub(crate) async fn delete_collection(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let mut caller = call.caller(&Query::default())?;
    let wanted = call.wanted_of(resource)?;
    let list = query::list_options(&call.query, false)?;
    let (options, dry_run) = query::delete_options(&call.query, options_body(call, resource, input).await?)?;
    caller.dry_run = dry_run;
    let page = call.rest().delete_collection(&caller, resource, call.namespace(), &options, &list).await?;
    let registry = call.rest().registry();
    Ok(list::page(wanted, registry, resource, page, call.include()?, call.now()).await)
}

/// DeleteOptions in the body, where there is one.
async fn options_body(
    call: &Call<'_>,
    resource: &Resource,
    input: Input,
) -> Result<Option<meta::Object>, Status> {
    let bytes = input.collect().await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let media = negotiate::content(call.headers)?;
    let (object, _) = decode::object(&bytes, media, resource, call.rest().registry())?;
    if !matches!(object.kind(), "" | "DeleteOptions") {
        return Err(Status::bad_request(format!(
            "the body of a delete must be DeleteOptions, not {}",
            object.kind()
        )));
    }
    Ok(Some(object))
}

fn answer(
    call: &Call<'_>,
    wanted: Wanted,
    resource: &Arc<Resource>,
    Written { entry, created }: &Written,
) -> Result<Response<Body>, Status> {
    call.entry(if *created { 201 } else { 200 }, wanted, resource, entry)
}
