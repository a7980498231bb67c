//! From an answer to bytes. What is stored goes out as it is; only other forms are built.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use meta::{Entry, Status, Value};
use resource::Resource;
use serde_json::value::RawValue;

use super::{
    body::Body,
    negotiate::{Form, Media, Wanted},
};
use crate::table;

/// A response with a body and its type.
pub(crate) fn response(code: u16, content_type: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A tree as the client wants it encoded.
pub(crate) fn value(code: u16, wanted: Wanted, value: &Value) -> Response<Body> {
    match bytes_of(wanted, value) {
        Ok(bytes) => response(code, wanted.content_type(), Body::whole(bytes)),
        Err(failed) => status(&failed),
    }
}

fn bytes_of(wanted: Wanted, value: &Value) -> Result<Bytes, Status> {
    match (wanted.media, wanted.pretty) {
        (Media::Yaml, _) => serde_saphyr::to_string(value).map(Bytes::from).map_err(Status::internal),
        (Media::Json | Media::Protobuf, false) => {
            serde_json::to_vec(value).map(Bytes::from).map_err(Status::internal)
        }
        (Media::Json | Media::Protobuf, true) => {
            serde_json::to_vec_pretty(value).map(Bytes::from).map_err(Status::internal)
        }
    }
}

/// JSON, whatever the client wants: for documents that have no other form.
pub(crate) fn json(code: u16, value: &Value) -> Response<Body> {
    self::value(code, Wanted::PLAIN, value)
}

/// Text for people.
pub(crate) fn text(code: u16, text: impl Into<Bytes>) -> Response<Body> {
    response(code, HeaderValue::from_static("text/plain; charset=utf-8"), Body::whole(text.into()))
}

/// An error. JSON always, so that every client can read it.
pub(crate) fn status(status: &Status) -> Response<Body> {
    let body = Bytes::from(status.to_json().to_string());
    let mut response = response(status.code, HeaderValue::from_static("application/json"), Body::whole(body));
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
    resource: &Resource,
    entry: &Entry,
    include: table::Include,
    now: meta::Timestamp,
) -> Response<Body> {
    let made = match wanted.form {
        Form::Whole if wanted == Wanted::PLAIN => {
            return response(code, wanted.content_type(), Body::whole(entry.bytes.clone()));
        }
        Form::Whole => serde_json::from_slice(&entry.bytes).map_err(Status::internal),
        Form::Partial => partial(entry),
        Form::Table => table::of_one(resource, entry, include, now),
    };
    match made {
        Ok(made) => value(code, wanted, &made),
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
