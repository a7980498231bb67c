//! Certificate signing requests.

use meta::{Object, Timestamp, Value};

use super::{AGE, Col, age::human, or};

/// Columns of a CertificateSigningRequest.
pub(crate) const REQUEST: &[Col] = &[
    AGE,
    Col::text("SignerName", |o, _| or(o.str(&["spec", "signerName"]), "<none>").into()),
    Col::text("Requestor", |o, _| o.str(&["spec", "username"]).unwrap_or_default().into()),
    Col::text("RequestedDuration", |o, _| match o.int(&["spec", "expirationSeconds"]) {
        Some(seconds) => human(seconds).into(),
        None => "<none>".into(),
    }),
    Col::text("Condition", condition),
];

fn condition(request: &Object, _: Timestamp) -> Value {
    let has = |kind: &str| request.list(&["status", "conditions"]).iter().any(|c| c["type"] == kind);
    let mut text = if has("Denied") {
        "Denied".to_owned()
    } else if has("Approved") {
        "Approved".to_owned()
    } else {
        "Pending".to_owned()
    };
    if has("Failed") {
        text.push_str(",Failed");
    }
    if request.str(&["status", "certificate"]).is_some_and(|certificate| !certificate.is_empty()) {
        text.push_str(",Issued");
    }
    text.into()
}
