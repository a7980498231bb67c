//! Certificate signing requests: nodes' own are approved, approved ones are signed, old ones go (upstream
//! `pkg/controller/certificates`). One file each. The signing key is behind [`Signer`], which whoever starts
//! the controllers passes in: it never goes through the API.

mod approve;
mod clean;
mod sign;

use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use meta::Timestamp;
use reconcile::{Child, Kind};
use serde_json::json;

use crate::pods::whole_second;

pub use approve::CertificateApprover;
pub use clean::CertificateCleaner;
pub use sign::{CertificateSigner, Signer};

/// The condition of a type, when it is true.
fn condition<'a>(
    request: &'a CertificateSigningRequest,
    kind: &str,
) -> Option<&'a CertificateSigningRequestCondition> {
    let mut conditions = request.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == kind && condition.status == "True")
}

fn is_issued(request: &CertificateSigningRequest) -> bool {
    certificate(request).is_some()
}

fn certificate(request: &CertificateSigningRequest) -> Option<&[u8]> {
    let certificate = request.status.as_ref()?.certificate.as_ref()?;
    (!certificate.0.is_empty()).then_some(&certificate.0)
}

/// Adds a true condition on a subresource.
fn add_condition(
    request: &CertificateSigningRequest,
    subresource: &'static str,
    kind: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Child {
    let mut conditions: Vec<_> =
        request.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
    conditions.push(CertificateSigningRequestCondition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(whole_second(now))),
        last_transition_time: Some(Time(whole_second(now))),
    });
    let patch = json!({ "status": { "conditions": conditions } });
    Child::patch_body(Kind::of::<CertificateSigningRequest>(), request, Some(subresource), patch)
}

#[cfg(test)]
mod tests;
