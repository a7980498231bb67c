//! Approves client certificates that nodes ask for, where RBAC lets whoever asks (upstream `approver/sarapprove.go`), and
//! the serving certificates that they ask for their own names.
//!
//! Upstream leaves serving certificates to people, because a node says of itself what addresses it has. Here the API server
//! knows a kubelet by its node's name, so a certificate for nothing but that gives a node no more than it has.

use std::sync::Arc;

use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use kube::{Api, api::PostParams};
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Error, Plan, Reconciler, Result, Watches};

use super::{add_condition, condition, is_issued};

/// The controller.
pub struct CertificateApprover;

/// What one plan looks at: a request of a node that the rules admit, as whom.
pub struct World {
    pub(super) request: Arc<CertificateSigningRequest>,
    /// Why it may be approved; `None` when who asks may not ask for this.
    pub(super) because: Option<&'static str>,
}

const SELF: (&str, &str) =
    ("selfnodeclient", "Auto approving self kubelet client certificate after SubjectAccessReview.");
const NODE: (&str, &str) =
    ("nodeclient", "Auto approving kubelet client certificate after SubjectAccessReview.");

const SERVER: (&str, &str) = (
    "selfnodeserver",
    "Auto approving kubelet serving certificate for the node's own name after SubjectAccessReview.",
);

/// The permissions that would do for this request, the narrower first; none for requests of others.
pub(super) fn permissions(request: &CertificateSigningRequest) -> Vec<(&'static str, &'static str)> {
    let spec = &request.spec;
    let Ok(parsed) = csr::Request::parse(&spec.request.0) else { return Vec::new() };
    let usages = spec.usages.as_deref().unwrap_or_default();
    if csr::accepts(&spec.signer_name, &parsed, usages).is_none_or(|accepted| accepted.is_err()) {
        return Vec::new();
    }
    let own = spec.username.as_deref() == Some(&parsed.common_name);
    match spec.signer_name.as_str() {
        csr::KUBELET_CLIENT if own => vec![SELF, NODE],
        csr::KUBELET_CLIENT => vec![NODE],
        csr::KUBELET_SERVING if own && csr::is_for_own_name(&parsed) => vec![SERVER],
        _ => Vec::new(),
    }
}

impl Reconciler for CertificateApprover {
    type World = World;
    const NAME: &'static str = "certificatesigningrequest-approving";

    fn watches(&self) -> Watches {
        Watches::of::<CertificateSigningRequest>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let Some(request) = cx.stores.ready::<CertificateSigningRequest>().await.get(key) else {
            return Ok(None);
        };
        if is_issued(&request)
            || ["Approved", "Denied"].iter().any(|kind| condition(&request, kind).is_some())
        {
            return Ok(None);
        }
        let permissions = permissions(&request);
        if permissions.is_empty() {
            return Ok(None);
        }
        for (subresource, because) in permissions {
            if allowed(cx, &request, subresource).await? {
                return Ok(Some(World { request, because: Some(because) }));
            }
        }
        Ok(Some(World { request, because: None }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        match world.because {
            Some(because) => plan.apply.push(add_condition(
                &world.request,
                "approval",
                "Approved",
                "AutoApproved",
                because,
                now,
            )),
            // Permissions may come later; upstream retries too.
            None => plan.recheck(std::time::Duration::from_secs(60)),
        }
        plan
    }
}

/// Whether who asks may create this kind of request. A question, not a write.
async fn allowed(cx: &Context, request: &CertificateSigningRequest, subresource: &str) -> Result<bool> {
    let spec = &request.spec;
    let review = SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            uid: spec.uid.clone(),
            groups: spec.groups.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".to_owned()),
                resource: Some("certificatesigningrequests".to_owned()),
                subresource: Some(subresource.to_owned()),
                verb: Some("create".to_owned()),
                version: Some("*".to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    };
    let api: Api<SubjectAccessReview> = Api::all(cx.client.clone());
    let answer = api.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(Error::read("the access of who asks for a certificate"))?;
    Ok(answer.status.is_some_and(|status| status.allowed && status.denied != Some(true)))
}
