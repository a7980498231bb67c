//! `metav1.Status`, the only error on the wire. Built where the cause is known, with reason and
//! details; nothing downstream parses a message to recover meaning.

use serde::{Deserialize, Serialize};

use crate::GroupResource;

/// Machine-readable reason, upstream's names (`apimachinery/pkg/apis/meta/v1/types.go`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "upstream's names, each documented there")]
pub enum Reason {
    Unauthorized,
    Forbidden,
    NotFound,
    AlreadyExists,
    Conflict,
    Gone,
    Invalid,
    ServerTimeout,
    StoreReadError,
    Timeout,
    TooManyRequests,
    BadRequest,
    MethodNotAllowed,
    NotAcceptable,
    RequestEntityTooLarge,
    UnsupportedMediaType,
    InternalError,
    Expired,
    ServiceUnavailable,
}

/// One cause inside `details.causes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `FieldValueInvalid`, `FieldManagerConflict`, ...
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// For a reader.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Field path, such as `spec.replicas`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub field: String,
}

/// `details` of a status.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Object name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// Kind or, as upstream mostly does, the plural resource.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// What exactly was wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before trying again; 0 for none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retry_after_seconds: u32,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A failed request, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Reason; `None` is upstream's empty reason.
    pub reason: Option<Reason>,
    /// For a reader.
    pub message: String,
    /// What it was about. Boxed: a `Result` with a status stays small.
    pub details: Option<Box<Details>>,
    /// `metadata.continue`: how to go on after an expired page, at the price of consistency.
    pub continue_token: Option<Box<str>>,
}

impl Status {
    /// A status with the given code, reason and message and no details.
    pub fn new(code: u16, reason: Reason, message: impl Into<String>) -> Self {
        Self { code, reason: Some(reason), message: message.into(), details: None, continue_token: None }
    }

    /// 404 for one object: `pods "x" not found`.
    pub fn not_found(resource: &GroupResource, name: &str) -> Self {
        Self::new(404, Reason::NotFound, format!("{resource} \"{name}\" not found")).about(resource, name)
    }

    /// Whether it says of this very object that it is not there ([`Status::not_found`]), not of its namespace or another.
    pub fn is_missing(&self, resource: &GroupResource, name: &str) -> bool {
        *self == Self::not_found(resource, name)
    }

    /// 404 for a path nobody serves.
    pub fn no_such_path() -> Self {
        Self::new(404, Reason::NotFound, "the server could not find the requested resource")
    }

    /// 409 on create.
    pub fn already_exists(resource: &GroupResource, name: &str) -> Self {
        Self::new(409, Reason::AlreadyExists, format!("{resource} \"{name}\" already exists"))
            .about(resource, name)
    }

    /// 409 on a failed precondition.
    pub fn conflict(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, Reason::Conflict, message).about(resource, name)
    }

    /// 403: `pods "x" is forbidden: why`.
    pub fn forbidden(resource: &GroupResource, name: &str, why: &str) -> Self {
        let message = if name.is_empty() {
            format!("{resource} is forbidden: {why}")
        } else {
            format!("{resource} \"{name}\" is forbidden: {why}")
        };
        Self::new(403, Reason::Forbidden, message).about(resource, name)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, Reason::Unauthorized, "Unauthorized")
    }

    /// 400.
    pub fn bad_request(why: impl Into<String>) -> Self {
        Self::new(400, Reason::BadRequest, why)
    }

    /// 405: the verb is not served here.
    pub fn method_not_allowed(resource: &GroupResource, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind \"{resource}\"");
        Self::new(405, Reason::MethodNotAllowed, message).about(resource, "")
    }

    /// 410 with reason Expired: the asked-for revision is no longer kept.
    pub fn expired(why: impl Into<String>) -> Self {
        Self::new(410, Reason::Expired, why)
    }

    /// 500. The message must not carry secrets.
    pub fn internal(why: impl std::fmt::Display) -> Self {
        Self::new(500, Reason::InternalError, format!("Internal error occurred: {why}"))
    }

    /// 422 with one cause for each error, message as upstream's `NewInvalid`.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let listed = match texts.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        Self {
            code: 422,
            reason: Some(Reason::Invalid),
            message: format!("{qualified} \"{name}\" is invalid: {listed}"),
            details: Some(Box::new(Details {
                name: name.to_owned(),
                group: group.to_owned(),
                kind: kind.to_owned(),
                causes: errors.iter().map(FieldError::cause).collect(),
                ..Details::default()
            })),
            continue_token: None,
        }
    }

    /// Names the object in `details`.
    #[must_use]
    pub fn about(mut self, resource: &GroupResource, name: &str) -> Self {
        let details = self.details.get_or_insert_default();
        details.name = name.to_owned();
        details.group.clone_from(&resource.group);
        details.kind.clone_from(&resource.resource);
        self
    }

    /// Adds `details.retryAfterSeconds`.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.details.get_or_insert_default().retry_after_seconds = seconds;
        self
    }

    /// The `Status` object as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        let mut body = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if let (Some(token), Some(map)) = (&self.continue_token, body.as_object_mut()) {
            map.insert("metadata".into(), serde_json::json!({"continue": token}));
        }
        if let (Some(reason), Some(map)) = (self.reason, body.as_object_mut()) {
            map.insert("reason".into(), serde_json::json!(reason));
        }
        if let (Some(details), Some(map)) = (&self.details, body.as_object_mut()) {
            map.insert("details".into(), serde_json::json!(details));
        }
        body
    }
}

/// What is wrong with a field; decides the wording and the cause's reason (upstream `field.ErrorType`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "upstream's names")]
pub enum FieldErrorKind {
    Required,
    Invalid,
    Duplicate,
    Forbidden,
    NotSupported,
    TooLong,
    TooMany,
    TypeInvalid,
    NotFound,
    Internal,
}

/// One validation error, worded as upstream's `field.Error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// What kind of error.
    pub kind: FieldErrorKind,
    /// Path, such as `spec.containers[0].image`.
    pub field: String,
    /// The offending value as upstream prints it (quoted when a string); `None` for kinds that omit it.
    pub value: Option<String>,
    /// Detail after the colon; may be empty.
    pub detail: String,
}

impl FieldError {
    /// `field: Required value[: detail]`.
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Required, field: field.into(), value: None, detail: detail.into() }
    }

    /// `field: Invalid value: VALUE: detail`; strings are quoted.
    pub fn invalid(field: impl Into<String>, value: &serde_json::Value, detail: impl Into<String>) -> Self {
        Self::valued(FieldErrorKind::Invalid, field, value, detail)
    }

    /// `field: Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind: FieldErrorKind::Forbidden, field: field.into(), value: None, detail: detail.into() }
    }

    /// `field: Duplicate value: VALUE`.
    pub fn duplicate(field: impl Into<String>, value: &serde_json::Value) -> Self {
        Self::valued(FieldErrorKind::Duplicate, field, value, "")
    }

    /// `field: Unsupported value: VALUE: supported values: "a", "b"`.
    pub fn not_supported(field: impl Into<String>, value: &serde_json::Value, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|s| format!("\"{s}\"")).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        Self::valued(FieldErrorKind::NotSupported, field, value, detail)
    }

    /// An error of any kind that prints its value.
    pub fn valued(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: &serde_json::Value,
        detail: impl Into<String>,
    ) -> Self {
        Self { kind, field: field.into(), value: Some(value.to_string()), detail: detail.into() }
    }

    fn words(&self) -> (&'static str, &'static str) {
        match self.kind {
            FieldErrorKind::Required => ("Required value", "FieldValueRequired"),
            FieldErrorKind::Invalid => ("Invalid value", "FieldValueInvalid"),
            FieldErrorKind::Duplicate => ("Duplicate value", "FieldValueDuplicate"),
            FieldErrorKind::Forbidden => ("Forbidden", "FieldValueForbidden"),
            FieldErrorKind::NotSupported => ("Unsupported value", "FieldValueNotSupported"),
            FieldErrorKind::TooLong => ("Too long", "FieldValueTooLong"),
            FieldErrorKind::TooMany => ("Too many", "FieldValueTooMany"),
            FieldErrorKind::TypeInvalid => ("Invalid value", "FieldValueTypeInvalid"),
            FieldErrorKind::NotFound => ("Not found", "FieldValueNotFound"),
            FieldErrorKind::Internal => ("Internal error", "InternalError"),
        }
    }

    /// The text without the field, as a cause's message.
    pub fn body(&self) -> String {
        let (words, _) = self.words();
        let mut text = words.to_owned();
        if let Some(value) = &self.value {
            text.push_str(": ");
            text.push_str(value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }

    /// As one element of `details.causes`.
    pub fn cause(&self) -> Cause {
        Cause { reason: self.words().1.to_owned(), message: self.body(), field: self.field.clone() }
    }
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
