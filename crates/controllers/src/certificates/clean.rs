//! Deletes requests that nobody will look at again (upstream `cleaner/cleaner.go`).

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::certificates::v1::{CertificateSigningRequest, CertificateSigningRequestCondition};
use meta::{ObjectKey, Timestamp};
use reconcile::{Context, Plan, Precondition, Reconciler, Result, Watches};

use super::{certificate, condition};

/// How long a request stays after it was issued, denied or failed.
const DECIDED_SECONDS: i64 = 3600;
/// How long a request stays that nobody decides, or that nobody signs.
const PENDING_SECONDS: i64 = 24 * 3600;

/// The controller.
pub struct CertificateCleaner;

/// What one plan looks at.
pub struct World {
    pub(super) request: Arc<CertificateSigningRequest>,
}

impl Reconciler for CertificateCleaner {
    type World = World;
    const NAME: &'static str = "certificatesigningrequest-cleaner";

    fn watches(&self) -> Watches {
        Watches::of::<CertificateSigningRequest>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let request = cx.stores.ready::<CertificateSigningRequest>().await.get(key);
        let request = request.filter(|request| request.metadata.deletion_timestamp.is_none());
        Ok(request.map(|request| World { request }))
    }

    fn plan(&self, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let left = ends(&world.request).saturating_sub(now.as_second());
        match u64::try_from(left) {
            Ok(left) if left > 0 => plan.recheck(Duration::from_secs(left)),
            _ => plan.delete.push(Precondition::of(&*world.request).unchanged(&*world.request)),
        }
        plan
    }
}

/// When a request goes, in seconds since 1970.
fn ends(request: &CertificateSigningRequest) -> i64 {
    let made = request.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second());
    let since = |condition: &CertificateSigningRequestCondition| {
        condition.last_update_time.as_ref().map_or(made, |time| time.0.as_second())
    };
    let after =
        |kind: &str| condition(request, kind).map(|found| since(found).saturating_add(DECIDED_SECONDS));
    if let Some(end) = [after("Denied"), after("Failed")].into_iter().flatten().min() {
        return end;
    }
    match certificate(request) {
        Some(pem) => {
            let decided = after("Approved").unwrap_or(made.saturating_add(DECIDED_SECONDS));
            csr::certificates(pem).map_or(decided, |expires| decided.min(expires))
        }
        None => made.saturating_add(PENDING_SECONDS),
    }
}
