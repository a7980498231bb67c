//! Requests that change something: create, update, patch, delete and the POST subresources.

use std::sync::Arc;

use http::{HeaderValue, Response, header};
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
use crate::rest::{Caller, Deleted, Patch, PatchKind, Written};

/// POST.
pub(crate) async fn create(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = query::caller(call.user, call.headers, &call.query)?;
    let wanted = call.wanted_of(resource)?;
    let media = negotiate::content(call.headers)?;
    let (object, duplicates) =
        decode::object(&input.collect().await?, media, resource, call.rest().registry())?;
    if let Some(Subresource::Act(_)) = resource.subresource(call.subresource()) {
        let answer = call.rest().act(&caller, resource, &call.target(), object).await?;
        let whole = Wanted { form: Form::Whole, ..wanted };
        let response = encode::value(201, whole, call.rest().registry(), &answer);
        return Ok(warned(response, &caller.notes.warnings()));
    }
    if !call.subresource().is_empty() {
        return Err(Status::method_not_allowed(&resource.group_resource(), "create"));
    }
    let namespace = call.namespace().unwrap_or_default();
    let written = call.rest().create(&caller, resource, namespace, object, duplicates).await?;
    answer(call, wanted, resource, &caller, &written)
}

/// PUT.
pub(crate) async fn update(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = query::caller(call.user, call.headers, &call.query)?;
    let wanted = call.wanted_of(resource)?;
    let media = negotiate::content(call.headers)?;
    let (object, duplicates) =
        decode::object(&input.collect().await?, media, resource, call.rest().registry())?;
    let written = call.rest().update(&caller, resource, &call.target(), object, duplicates).await?;
    answer(call, wanted, resource, &caller, &written)
}

/// PATCH.
pub(crate) async fn patch(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let caller = query::caller(call.user, call.headers, &call.query)?;
    let wanted = call.wanted_of(resource)?;
    let (kind, media) = patch_kind(call, resource)?;
    let decode::Decoded { value, duplicates } = decode::decode(&input.collect().await?, media)?;
    let patch = Patch { kind, body: value, duplicates };
    let written = call.rest().patch(&caller, resource, &call.target(), patch).await?;
    answer(call, wanted, resource, &caller, &written)
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
    let mut caller = query::caller(call.user, call.headers, &Query::default())?;
    let wanted = call.wanted_of(resource)?;
    let (options, dry_run) = query::delete_options(&call.query, options_body(call, resource, input).await?)?;
    caller.dry_run = dry_run;
    let deleted = call.rest().delete(&caller, resource, &call.target().key, &options).await?;
    let response = match deleted {
        Deleted::Pending(entry) => call.entry(200, wanted, resource, &entry)?,
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
            encode::value(
                200,
                Wanted { form: Form::Whole, ..call.wanted()? },
                call.rest().registry(),
                &status,
            )
        }
    };
    Ok(warned(response, &caller.notes.warnings()))
}

/// DELETE of all objects of a kind.
pub(crate) async fn delete_collection(
    call: &Call<'_>,
    resource: &Arc<Resource>,
    input: Input,
) -> Result<Response<Body>, Status> {
    let mut caller = query::caller(call.user, call.headers, &Query::default())?;
    let wanted = call.wanted_of(resource)?;
    let list = query::list_options(&call.query, false)?;
    let (options, dry_run) = query::delete_options(&call.query, options_body(call, resource, input).await?)?;
    caller.dry_run = dry_run;
    let page = call.rest().delete_collection(&caller, resource, call.namespace(), &options, &list).await?;
    let registry = call.rest().registry();
    let response = list::page(wanted, registry, resource, page, call.include()?, call.now()).await;
    Ok(warned(response, &caller.notes.warnings()))
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
    caller: &Caller,
    written: &Written,
) -> Result<Response<Body>, Status> {
    let Written { entry, created, warnings } = written;
    let code = if *created { 201 } else { 200 };
    let response = call.entry(code, wanted, resource, entry)?;
    Ok(warned(warned(response, warnings), &caller.notes.warnings()))
}

/// Adds a `Warning` header for each text.
pub(super) fn warned<T: AsRef<str>>(mut response: Response<Body>, warnings: &[T]) -> Response<Body> {
    for text in warnings {
        if let Ok(value) = HeaderValue::from_str(&warning(text.as_ref())) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A `Warning` header of code 299 (RFC 7234 section 5.5).
fn warning(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 10);
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    format!("299 - \"{quoted}\"")
}
