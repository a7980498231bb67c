//! Signs approved requests to the built-in signers (upstream `signer/signer.go`).

use std::{fmt, sync::Arc};

use k8s_openapi::{ByteString, api::certificates::v1::CertificateSigningRequest};
use kube::{
    Api, ResourceExt,
    api::{Patch, PatchParams},
};
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Effect, EffectFuture, Plan, Reconciler, Result, Watches};
use serde_json::json;

use super::{add_condition, condition, is_issued};

/// Holds the key of the cluster's authority.
pub trait Signer: Send + Sync + 'static {
    /// The certificate (PEM) for a request that its signer's rules admit, valid from about now for at most
    /// `seconds`; or why not, without secrets.
    fn sign(
        &self,
        request: &csr::Request,
        usages: &[String],
        seconds: Option<i64>,
        now: Timestamp,
    ) -> Result<String, String>;
}

/// The controller.
pub struct CertificateSigner {
    /// Who signs.
    pub signer: Arc<dyn Signer>,
}

/// What one plan looks at: an approved request without certificate.
pub struct World {
    pub(super) request: Arc<CertificateSigningRequest>,
}

impl Reconciler for CertificateSigner {
    type World = World;
    const NAME: &'static str = "certificatesigningrequest-signing";

    fn watches(&self) -> Watches {
        Watches::of::<CertificateSigningRequest>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let request = cx.stores.ready::<CertificateSigningRequest>().await.get(key);
        let due = |request: &Arc<CertificateSigningRequest>| {
            condition(request, "Approved").is_some()
                && condition(request, "Denied").is_none()
                && condition(request, "Failed").is_none()
                && !is_issued(request)
        };
        Ok(request.filter(due).map(|request| World { request }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let request = &*world.request;
        let usages = request.spec.usages.clone().unwrap_or_default();
        let parsed = csr::Request::parse(&request.spec.request.0);
        let verdict = match &parsed {
            Ok(parsed) => csr::accepts(&request.spec.signer_name, parsed, &usages)
                .map(|accepted| accepted.map_err(|refused| refused.to_string()))
                .map(|accepted| accepted.and_then(|()| parsed.verify().map_err(|error| error.to_string()))),
            Err(error) => Some(Err(error.to_string())),
        };
        match (verdict, parsed) {
            (Some(Ok(())), Ok(parsed)) => plan.effects.push(Box::new(Sign {
                signer: Arc::clone(&self.signer),
                name: request.name_any(),
                version: request.resource_version(),
                request: parsed,
                usages,
                seconds: request.spec.expiration_seconds.map(i64::from),
                now,
            })),
            (Some(Err(why)), _) if is_ours(&request.spec.signer_name) => plan.apply.push(add_condition(
                request,
                "status",
                "Failed",
                "SignerValidationFailure",
                &why,
                now,
            )),
            _ => {}
        }
        plan
    }
}

fn is_ours(signer: &str) -> bool {
    [csr::API_CLIENT, csr::KUBELET_CLIENT, csr::KUBELET_SERVING, csr::LEGACY_UNKNOWN].contains(&signer)
}

/// Signs and writes the certificate into the status of the version that was seen.
struct Sign {
    signer: Arc<dyn Signer>,
    name: String,
    version: Option<String>,
    request: csr::Request,
    usages: Vec<String>,
    seconds: Option<i64>,
    now: Timestamp,
}

impl fmt::Debug for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { signer: _, name, version: _, request, usages, seconds, now: _ } = self;
        write!(f, "Sign({name}: {:?} {usages:?} {seconds:?})", request.common_name)
    }
}

impl Effect for Sign {
    fn name(&self) -> &'static str {
        "sign certificate"
    }

    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            let pem = self.signer.sign(&self.request, &self.usages, self.seconds, self.now)?;
            let patch = json!({
                "metadata": { "resourceVersion": self.version },
                "status": { "certificate": ByteString(pem.into_bytes()) },
            });
            let api: Api<CertificateSigningRequest> = Api::all(cx.client.clone());
            api.patch_status(&self.name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
            Ok(())
        })
    }
}
