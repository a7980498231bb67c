//! From an answer to bytes. What is stored goes out as it is; only other forms are built.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use meta::{Entry, Reason, Status, Value};
use resource::Resource;
use serde_json::value::RawValue;

use super::{
    body::Body,
    negotiate::{Form, Media, Wanted},
    protobuf,
};
use crate::{Registry, table};

/// A response with a body and its type.
pub(crate) fn response(code: u16, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A tree as the client wants it encoded.
pub(crate) fn value(code: u16, wanted: Wanted, registry: &Registry, value: &Value) -> Response<Body> {
    match bytes_of(wanted, registry, value) {
        Ok(bytes) => response(code, wanted.content_type(), Body::whole(bytes)),
        Err(failed) => status(&failed),
    }
}

fn bytes_of(wanted: Wanted, registry: &Registry, value: &Value) -> Result<Bytes, Status> {
    match (wanted.media, wanted.pretty) {
        (Media::Protobuf, _) => protobuf::value(registry, value).map(Bytes::from),
        (Media::Yaml, _) => serde_saphyr::to_string(value).map(Bytes::from).map_err(Status::internal),
        (Media::Json, false) => serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal),
        (Media::Json, true) => serde_json::to_vec_pretty(value).map(Bytes::from).map_err(Status::internal),
    }
}

/// JSON, whatever the client wants: for documents that have no other form.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    response(code, Wanted::PLAIN.content_type(), Body::whole(value.to_string().into()))
}

/// Text for people.
pub(crate) fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    response(code, HeaderValue::from_static("text/plain; charset=utf-8"), Body::whole(text.into()))
}

/// An error as JSON, which every client can read.
pub(crate) fn status(status: &Status) -> Response<Body> {
    refusal(status, json(status.code, &status.to_json()))
}

/// An error in the form that the client reads; as JSON where there is no such form.
pub(crate) fn status_as(wanted: Wanted, registry: &Registry, status: &Status) -> Response<Body> {
    let wanted = Wanted { form: Form::Whole, ..wanted };
    if status.reason == Some(Reason::NotAcceptable) {
        return self::status(status);
    }
    match bytes_of(wanted, registry, &status.to_json()) {
        Ok(bytes) => refusal(status, response(status.code, wanted.content_type(), Body::whole(bytes))),
        Err(_) => self::status(status),
    }
}

fn refusal(status: &Status, mut response: Response<Body>) -> Response<Body> {
    let retry = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    if retry > 0 {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry));
    }
    response
}

/// One object in the form the client wants.
pub(crate) fn entry(
    code: u16,
    wanted: Wanted,
    registry: &Registry,
    resource: &Resource,
    entry: &Entry,
    include: table::Include,
    now: meta::Timestamp,
) -> Response<Body> {
    if wanted.media == Media::Protobuf {
        let written = protobuf::Writer::new(wanted.form, resource, registry)
            .and_then(|writer| writer.object(&entry.bytes));
        return match written {
            Ok(bytes) => response(code, wanted.content_type(), Body::whole(bytes.into())),
            Err(failed) => status(&failed),
        };
    }
    let made = match wanted.form {
        Form::Whole if wanted == Wanted::PLAIN => {
            return response(code, wanted.content_type(), Body::whole(entry.bytes.clone()));
        }
        Form::Whole => serde_json::from_slice(&entry.bytes).map_err(Status::internal),
        Form::Partial => partial(entry),
        Form::Table => table::of_one(resource, entry, include, now),
    };
    match made {
        Ok(made) => value(code, wanted, registry, &made),
        Err(failed) => status(&failed),
    }
}

#[derive(serde::Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// `metadata` of a stored object as it was written.
pub(crate) fn raw_metadata(entry: &Entry) -> Result<&RawValue, Status> {
    serde_json::from_slice::<OnlyMetadata<'_>>(&entry.bytes).map(|o| o.metadata).map_err(Status::internal)
}

/// `PartialObjectMetadata` as bytes.
pub(crate) fn partial_bytes(entry: &Entry) -> Result<String, Status> {
    let metadata = raw_metadata(entry)?.get();
    Ok(format!(r#"{{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{metadata}}}"#))
}

/// `PartialObjectMetadata` as a tree.
pub(crate) fn partial(entry: &Entry) -> Result<Value, Status> {
    serde_json::from_str(&partial_bytes(entry)?).map_err(Status::internal)
}
