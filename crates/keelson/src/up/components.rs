//! ComponentStatuses: whether the parts of the control plane work, found out when somebody asks (upstream
//! `pkg/registry/core/componentstatus`; deprecated since 1.19, and still what `kubectl get componentstatuses` shows).

use std::{
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use apiserver::{cache::Take, rest::Rest};
use meta::{GroupResource, Object, Timestamp, Value};
use resource::View;
use serde_json::json;

/// Whether a part works, else why not.
pub(crate) type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Serves the kind. The store works while it can be followed.
pub(crate) fn show(rest: &Rest, scheduler: Check, controllers: Check) {
    let broken = rest.broken();
    let store: Check = Arc::new(move || broken.borrow().clone().map_or(Ok(()), Err));
    let parts = Arc::new([("controller-manager", controllers), ("etcd-0", store), ("scheduler", scheduler)]);
    let asked = parts.clone();
    let version = move || {
        let said: Vec<_> = asked.iter().map(|(_, check)| check()).collect();
        BuildHasherDefault::<DefaultHasher>::default().hash_one(said)
    };
    let each = move |take: Take<'_>| {
        let all = parts.iter().filter_map(|(name, check)| Object::from_value(status(name, check())).ok());
        all.for_each(|object| take(&object));
    };
    rest.cache().measure(&GroupResource::new("", "componentstatuses"), Arc::new((version, each)));
}

fn status(name: &str, works: Result<(), String>) -> Value {
    let condition = match works {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": why}),
    };
    let metadata = json!({"name": name, "creationTimestamp": null});
    json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": metadata, "conditions": [condition]})
}

/// A part in another process works while somebody renews its Lease.
pub(crate) fn lease(rest: &Rest, name: &'static str) -> Check {
    let rest = rest.clone();
    Arc::new(move || {
        let entry =
            rest.cache().get(&GroupResource::new("coordination.k8s.io", "leases"), "kube-system", name);
        let object = entry.and_then(|entry| entry.object().ok());
        held(object.as_ref(), name, rest.clock().now())
    })
}

fn held(lease: Option<&Object>, name: &str, now: Timestamp) -> Result<(), String> {
    let lease = lease.ok_or_else(|| format!("nobody has taken the Lease kube-system/{name} yet"))?;
    let text = |field: &str| lease.str(&["spec", field]).unwrap_or_default();
    let until = text("renewTime").parse::<Timestamp>().ok().and_then(|renewed| {
        let seconds = lease.int(&["spec", "leaseDurationSeconds"])?;
        renewed.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    });
    match until {
        _ if text("holderIdentity").is_empty() => Err(format!("nobody holds the Lease kube-system/{name}")),
        Some(until) if now <= until => Ok(()),
        _ => Err(format!("the Lease kube-system/{name} was last renewed at {}", text("renewTime"))),
    }
}

/// Lives as long as a task that it was moved into.
pub(crate) struct Alive(Arc<AtomicBool>);

impl Alive {
    /// With what tells whether the task still runs.
    pub(crate) fn new() -> (Self, Check) {
        let runs = Arc::new(AtomicBool::new(true));
        let asked = runs.clone();
        let check = move || if asked.load(Relaxed) { Ok(()) } else { Err("it has ended".to_owned()) };
        (Self(runs), Arc::new(check))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_held_until_its_time_is_over() {
        let lease = |holder: &str, renewed: &str| {
            Object::from_value(json!({"spec": {
                "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed,
            }}))
            .ok()
        };
        let now = "2026-01-01T00:00:15Z".parse().unwrap();
        for (lease, expected) in [
            (lease("a", "2026-01-01T00:00:00.000000Z"), Ok(())),
            (
                lease("a", "2025-12-31T23:59:59.000000Z"),
                Err("the Lease kube-system/p was last renewed at 2025-12-31T23:59:59.000000Z"),
            ),
            (lease("", "2026-01-01T00:00:15.000000Z"), Err("nobody holds the Lease kube-system/p")),
            (lease("a", "soon"), Err("the Lease kube-system/p was last renewed at soon")),
            (None, Err("nobody has taken the Lease kube-system/p yet")),
        ] {
            assert_eq!(held(lease.as_ref(), "p", now), expected.map_err(str::to_owned), "{lease:?}");
        }
    }

    #[test]
    fn what_ended_does_not_work() {
        let (alive, check) = Alive::new();
        assert_eq!(check(), Ok(()));
        drop(alive);
        assert_eq!(check(), Err("it has ended".to_owned()));
        let said = status("scheduler", check());
        assert_eq!(
            said["conditions"][0],
            json!({"type": "Healthy", "status": "False", "message": "it has ended"})
        );
    }
}
