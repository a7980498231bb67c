//! What a request comes to.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

/// An answer, and how much of its body is sent before the connection is cut, when a fault says so.
#[derive(Debug)]
pub struct Answer {
    /// Status, headers and the whole body.
    pub response: Response<Bytes>,
    /// Of the body, so many bytes; then the connection is closed. None: all.
    pub cut_after: Option<usize>,
}

/// The connection is closed without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut;

/// A refusal, before it is written.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Refused {
    /// `error` is a word for programs, `why` a sentence for people.
    pub(crate) fn new(status: u16, error: &str, why: impl Into<String>) -> Self {
        Self { status, body: json!({"error": error, "error_description": why.into()}) }
    }

    /// One more field for programs.
    pub(crate) fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        if let Some(fields) = self.body.as_object_mut() {
            fields.insert(field.to_owned(), value.into());
        }
        self
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: u16, body: &Value) -> Response<Bytes> {
    bytes_response(status, "application/json", Bytes::from(body.to_string()))
}

/// An answer with a body of this type.
pub(crate) fn bytes_response(status: u16, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Puts a header that is known to be valid.
pub(crate) fn put(response: &mut Response<Bytes>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

impl From<Refused> for Response<Bytes> {
    fn from(refused: Refused) -> Self {
        json_response(refused.status, &refused.body)
    }
}
