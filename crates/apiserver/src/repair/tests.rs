//! Services, their addresses and node ports, in all states that a crash leaves.

use meta::{Clock as _, Fixed, Seeded};
use serde_json::{Value, json};

use super::*;
use crate::{
    Cache, Registry,
    rest::{DeleteOptions, Parts},
};

const NOW: &str = "2026-01-01T01:00:00Z";
const OLD: &str = "2026-01-01T00:00:00Z";
const YOUNG: &str = "2026-01-01T00:59:30Z";

fn registry() -> Arc<Registry> {
    let registry = Arc::new(Registry::new());
    registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
    registry
}

fn object(value: Value) -> Object {
    Object::from_value(value).unwrap()
}

fn service(name: &str, address: &str) -> Object {
    let metadata = json!({"name": name, "namespace": "ns", "uid": format!("uid-{name}")});
    let spec = json!({"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address]});
    object(json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}))
}

fn address(name: &str, of: &str, made: &str) -> Object {
    let labels = json!({
        "ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
    });
    let parent = json!({"resource": "services", "namespace": "ns", "name": of});
    object(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": {"name": name, "labels": labels, "creationTimestamp": made}, "spec": {"parentRef": parent},
    }))
}

fn told(registry: &Registry, world: &World) -> (Vec<String>, bool) {
    let kind = registry.by_kind("networking.k8s.io", "v1", "IPAddress").unwrap();
    let holders = registry.by_kind("", "v1", "Service").unwrap();
    let now = NOW.parse().unwrap();
    let Plan { repairs, disputes, waits } = plan(&kind, &holders, world, now);
    let report = |claim: &Object, holder: Option<&Object>, fault| {
        let event = kind.strategy.report(claim, holder, fault, now).unwrap();
        let text = |path: &[&str]| event.str(path).unwrap_or_default().to_owned();
        let about = (text(&["involvedObject", "kind"]), text(&["involvedObject", "name"]));
        format!("{} {}: {}: {}", about.0, about.1, text(&["reason"]), text(&["message"]))
    };
    let repairs = repairs.iter().map(|Repair { fault, claim, holder, found, wanted }| {
        let does = match (found, wanted) {
            (Some(revision), true) => format!("replace {} at {revision}", claim.name()),
            (Some(revision), false) => format!("delete {} at {revision}", claim.name()),
            (None, _) => format!("create {}", claim.name()),
        };
        format!("{does}\n  {}", report(claim, *holder, *fault))
    });
    let disputes =
        disputes.iter().map(|dispute| report(dispute.claim, Some(dispute.holder), ClaimFault::Taken));
    (repairs.chain(disputes).collect(), waits)
}

#[test]
fn what_is_done_about_each_fault() {
    let registry = registry();
    let mut foreign = address("10.43.0.9", "gone", OLD);
    foreign.map_at(&["metadata"]).remove("labels");
    let mut nameless = address("10.43.0.10", "x", OLD);
    nameless.set(&["spec", "parentRef", "resource"], "gateways");
    let claims = vec![
        address("10.43.0.1", "well", OLD),
        address("10.43.0.3", "other", OLD),
        address("10.43.0.4", "shared-b", OLD),
        address("10.43.0.5", "gone", OLD),
        address("10.43.0.6", "gone", YOUNG),
        address("10.43.0.7", "well", OLD),
        address("10.43.0.8", "other", YOUNG),
        foreign,
        nameless,
    ];
    let holders = vec![
        service("headless", "None"),
        service("missing", "10.43.0.2"),
        service("misnamed", "10.43.0.3"),
        service("misnamed-lately", "10.43.0.8"),
        service("shared-a", "10.43.0.4"),
        service("shared-b", "10.43.0.4"),
        service("well", "10.43.0.1"),
    ];
    let claims = claims.into_iter().zip(1..).map(|(claim, at)| (Revision(at), claim)).collect();
    let (lines, waits) = told(&registry, &World { claims, holders });
    assert!(waits);
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_well_is_left_alone() {
    let world = World {
        claims: vec![(Revision(1), address("10.43.0.1", "well", OLD))],
        holders: vec![service("well", "10.43.0.1")],
    };
    assert_eq!(told(&registry(), &world), (Vec::new(), false));
}

/// A server with these built-in kinds whose time is the test's.
struct Site {
    rest: Rest,
    clock: Arc<Fixed>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Site {
    async fn start() -> Self {
        let (registry, store) = (registry(), store::Memory::new());
        let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
        let clock = Arc::new(Fixed::new(NOW.parse().unwrap()));
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store),
            cache,
            registry,
            admission: Vec::new(),
            clock: clock.clone(),
            random: Arc::new(Seeded::new(1)),
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(rest.clone(), stop.clone()));
        Self { rest, clock, stop, task }
    }

    async fn create(&self, group: &str, kind: &str, namespace: &str, value: Value) {
        let resource = self.rest.registry().by_kind(group, "v1", kind).unwrap();
        let caller = Caller { field_manager: "test".to_owned(), ..Caller::default() };
        self.rest.create(&caller, &resource, namespace, object(value), Duplicates::default()).await.unwrap();
    }

    async fn delete(&self, group: &str, kind: &str, key: ObjectKey) {
        let resource = self.rest.registry().by_kind(group, "v1", kind).unwrap();
        let caller = Caller { field_manager: "test".to_owned(), ..Caller::default() };
        self.rest.delete(&caller, &resource, &key, &DeleteOptions::default()).await.unwrap();
    }

    fn names(&self, group: &str, plural: &str) -> Vec<String> {
        let snapshot = self.rest.cache().kind(&meta::GroupResource::new(group, plural)).snapshot();
        snapshot.range(None, None).map(|entry| entry.header.key.name.clone()).collect()
    }

    fn events(&self) -> Vec<String> {
        let snapshot = self.rest.cache().kind(&meta::GroupResource::new("", "events")).snapshot();
        let events = snapshot.range(None, None).map(|entry| entry.object().unwrap());
        let mut told: Vec<String> =
            events.map(|event| event.str(&["message"]).unwrap_or_default().to_owned()).collect();
        told.sort();
        told
    }

    async fn pass(&self, seconds: i64) {
        self.clock.set(self.clock.now().checked_add(SignedDuration::from_secs(seconds)).unwrap());
        tokio::time::sleep(EVERY + Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_crash_left_is_given_back_and_what_is_missing_claimed() {
    let site = Site::start().await;
    site.create(
        "networking.k8s.io",
        "ServiceCIDR",
        "",
        json!({"metadata": {"name": "kubernetes"}, "spec": {"cidrs": ["10.43.0.0/16"]}}),
    )
    .await;
    let ports = json!([{"port": 80, "nodePort": 30_080}]);
    let spec = json!({"type": "NodePort", "clusterIP": "10.43.0.20", "ports": ports});
    site.create("", "Service", "ns", json!({"metadata": {"name": "web"}, "spec": spec})).await;
    let claims = || {
        (site.names("networking.k8s.io", "ipaddresses"), site.names("claims.keelson.internal", "nodeports"))
    };
    let held = || (vec!["10.43.0.20".to_owned()], vec!["30080".to_owned()]);
    assert_eq!(claims(), held());
    // As a server that died after it had claimed.
    let service = site.rest.registry().by_kind("", "v1", "Service").unwrap();
    let mut died = object(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "died", "namespace": "ns"},
        "spec": {"type": "NodePort", "clusterIP": "10.43.0.21", "clusterIPs": ["10.43.0.21"],
            "ports": [{"port": 80, "nodePort": 30_081, "protocol": "TCP"}]},
    }));
    service.strategy.default(&mut died);
    let claimed = service.strategy.claims(&died);
    assert_eq!(claimed.len(), 2);
    for claim in &claimed {
        let kind = site.rest.registry().stored(&claim.resource).unwrap();
        assert!(site.rest.mend(&kind, &claim.object, None, true).await.unwrap());
    }
    site.pass(60).await;
    assert_eq!(claims().1, ["30080", "30081"], "as old as a request may be");
    // Meanwhile somebody takes the other's away.
    site.delete("networking.k8s.io", "IPAddress", ObjectKey::new("", "10.43.0.20")).await;
    site.pass(1).await;
    assert_eq!(claims(), held());
    let told = [
        "Cluster IP [IPv4]: 10.43.0.20 is not allocated; repairing",
        "IPAddress: 10.43.0.21 for Service ns/died appears to have leaked: cleaning up",
    ];
    assert_eq!(site.events(), told);
    // At rest it stays.
    let before = site.rest.cache().head();
    site.pass(3_600).await;
    assert_eq!(site.rest.cache().head(), before);
    // Given back for it by the repair, and taken by another, before the one who was slow gives back.
    site.create(
        "",
        "Service",
        "ns",
        json!({"metadata": {"name": "next"}, "spec": {"clusterIP": "10.43.0.21", "ports": [{"port": 80}]}}),
    )
    .await;
    site.rest.release(&claimed).await;
    assert_eq!(claims().0, ["10.43.0.20", "10.43.0.21"]);
    site.stop.cancel();
    site.task.await.unwrap();
}
