//! The driver, the actor and the lease against the fake API.

use std::{
    future::Future as _,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use http::Method;
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use meta::{Fixed, ObjectKey, Reason, Seeded, Status, Timestamp};
use serde_json::{Value, json};

use crate::{
    CancellationToken, Child, Context, Controller, Kind, LeaseLock, LeaseOptions, Note, Plan, Reconciler,
    Result, Stores, Watches, key_of, owner_reference, run,
    testkit::{Bench, FakeApi},
};

/// Keeps `pods` pods for each ConfigMap (by `data.pods`), and a copy of its `data.text`.
struct Crowd;

struct CrowdWorld {
    source: Arc<ConfigMap>,
    pods: Vec<Arc<Pod>>,
    copies: Vec<Arc<ConfigMap>>,
}

impl Reconciler for Crowd {
    type World = CrowdWorld;
    const NAME: &'static str = "crowd";

    fn watches(&self) -> Watches {
        Watches::of::<ConfigMap>().owns::<Pod>().owns::<ConfigMap>()
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<CrowdWorld>> {
        let Some(source) = cx.stores.ready::<ConfigMap>().await.get(key) else { return Ok(None) };
        if crate::controller_of(&*source).is_some() {
            return Ok(None);
        }
        let uid = source.metadata.uid.clone().unwrap_or_default();
        let pods = cx.stores.ready::<Pod>().await.controlled_by(&uid);
        let copies = cx.stores.ready::<ConfigMap>().await.controlled_by(&uid);
        Ok(Some(CrowdWorld { source, pods, copies }))
    }

    fn plan(&self, world: &CrowdWorld, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let data = world.source.data.clone().unwrap_or_default();
        let metadata = |name: Option<String>| ObjectMeta {
            name,
            namespace: world.source.metadata.namespace.clone(),
            owner_references: Some(vec![owner_reference(&*world.source)]),
            ..ObjectMeta::default()
        };
        if let Some(text) = data.get("text") {
            let name = format!("{}-copy", key_of(&*world.source).name);
            let copy = ConfigMap {
                metadata: metadata(Some(name)),
                data: Some([("text".to_owned(), text.clone())].into()),
                ..ConfigMap::default()
            };
            plan.apply.push(Child::apply(&copy));
        }
        plan.prune(world.copies.iter().map(|copy| &**copy));
        let wanted: usize = data.get("pods").and_then(|text| text.parse().ok()).unwrap_or(0);
        for _ in world.pods.len()..wanted {
            let pod = Pod { metadata: metadata(None), ..Pod::default() };
            let mut child = Child::create(&pod).announced_to(&*world.source);
            child.body["metadata"]["generateName"] = json!("member-");
            plan.apply.push(child);
        }
        if wanted > world.pods.len() {
            plan.events.push(Note::normal(&*world.source, "Growing", "Create", "more pods"));
        }
        plan
    }
}

fn source(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a", "namespace": "ns" }, "data": data })
}

fn pods(api: &FakeApi) -> usize {
    api.list(&Kind::of::<Pod>(), "ns").len()
}

#[tokio::test]
async fn comes_to_rest_and_repairs_drift() {
    let bench = Bench::new(Crowd);
    let (key, copy) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "a-copy"));
    let maps = Kind::of::<ConfigMap>();
    bench.api.put(&source(json!({ "pods": "5", "text": "one" })));
    bench.settle(&key).await;
    assert_eq!(pods(&bench.api), 5);

    bench.api.take_requests();
    bench.settle(&key).await;
    let patches = bench.api.take_requests().iter().filter(|(verb, _)| *verb == Method::PATCH).count();
    assert_eq!(patches, 0, "an unchanged child is not applied again");

    bench.api.patch(
        &maps,
        &copy,
        "",
        &json!({ "data": { "text": "other" }, "metadata": { "labels": { "l": "v" } } }),
    );
    bench.settle(&key).await;
    let repaired = bench.api.get(&maps, &copy).unwrap();
    assert_eq!(
        (&repaired["data"]["text"], &repaired["metadata"]["labels"]["l"]),
        (&json!("one"), &json!("v"))
    );

    bench.api.patch(&maps, &key, "", &json!({ "data": { "text": null } }));
    bench.settle(&key).await;
    assert_eq!(bench.api.get(&maps, &copy), None, "pruned");
}

#[tokio::test(start_paused = true)]
async fn never_creates_twice_whatever_the_order_of_events() {
    let clock = Arc::new(Fixed::new(Timestamp::UNIX_EPOCH));
    let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(3)));
    let cx = Context::new(api.client(), clock, Arc::new(Seeded::new(4)));
    let refused = Status::new(500, Reason::InternalError, "no");
    api.fail_next(Method::POST, "/pods", refused.clone());
    api.fail_next(Method::POST, "/pods", refused);
    let stop = CancellationToken::new();
    let controller = Controller::new(Crowd);
    let metrics = controller.metrics();
    let running = tokio::spawn(run(vec![controller], cx, stop.clone()));
    for round in 0..20 {
        api.put(&source(json!({ "pods": "40", "round": round.to_string() })));
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(pods(&api), 40);
    assert_eq!((metrics().errors, metrics().queued, metrics().active), (2, 0, 0));
    stop.cancel();
    running.await.unwrap();

    let events = api.list(&Kind::new("events.k8s.io", "v1", "Event", "events"), "ns");
    let count = |reason: &str| events.iter().filter(|event| event["reason"] == reason).count();
    assert_eq!((count("FailedCreate"), count("SuccessfulCreate")), (1, 24), "bounded at 25 for one object");
}

/// Looks at a ConfigMap for a tenth of a second.
struct Slow(Arc<AtomicU32>);

impl Reconciler for Slow {
    type World = ();
    const NAME: &'static str = "slow";

    fn watches(&self) -> Watches {
        Watches::of::<ConfigMap>()
    }

    async fn observe(&self, _: &Context, _: &ObjectKey) -> Result<Option<()>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        // At once in reality: the clock goes on while this is busy, not while it waits.
        let mut busy = Box::pin(tokio::time::advance(Duration::from_millis(100)));
        std::future::poll_fn(|cx| busy.as_mut().poll(cx)).await;
        Ok(None)
    }

    fn plan(&self, (): &(), _: Timestamp) -> Plan {
        Plan::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_takes_long_to_look_at_is_looked_at_a_quarter_of_the_time() {
    let clock = Arc::new(Fixed::new(Timestamp::UNIX_EPOCH));
    let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(3)));
    let cx = Context::new(api.client(), clock, Arc::new(Seeded::new(4)));
    let (looked, stop) = (Arc::new(AtomicU32::new(0)), CancellationToken::new());
    let running = tokio::spawn(run(vec![Controller::new(Slow(looked.clone()))], cx, stop.clone()));
    let began = tokio::time::Instant::now();
    for round in 0.. {
        api.put(&source(json!({ "round": round.to_string() })));
        tokio::time::sleep(Duration::from_millis(10)).await;
        if began.elapsed() >= Duration::from_secs(8) {
            break;
        }
    }
    let count = looked.load(Ordering::Relaxed);
    assert!((18..=21).contains(&count), "looked {count} times in eight seconds");
    tokio::time::sleep(Duration::from_secs(8)).await;
    assert!(looked.load(Ordering::Relaxed) <= count + 1, "only what has changed is looked at again");
    stop.cancel();
    running.await.unwrap();
}

/// A second later each time it is asked, so that no two renewals are equal.
struct Ticking(std::sync::atomic::AtomicI64);

impl meta::Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed)).unwrap()
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_has_one_holder_and_is_taken_over_when_it_stands_still() {
    let clock = Arc::new(Ticking(0.into()));
    let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(3)));
    let lock = |identity: &str| {
        LeaseLock::new(api.client(), clock.clone(), LeaseOptions::new("kube-system", "controllers", identity))
    };
    let leases = Kind::new("coordination.k8s.io", "v1", "Lease", "leases");
    let key = ObjectKey::new("kube-system", "controllers");
    let holder = || api.get(&leases, &key).map(|lease| lease["spec"]["holderIdentity"].clone());
    api.put(&json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": { "name": "controllers", "namespace": "kube-system" },
        "spec": { "holderIdentity": "dead", "leaseDurationSeconds": 15, "leaseTransitions": 4 },
    }));
    let (stop_a, stop_b) = (CancellationToken::new(), CancellationToken::new());
    let start = |lock: LeaseLock, stop: CancellationToken| {
        tokio::spawn(
            async move { lock.lead(&stop, |leading| async move { leading.cancelled().await }).await },
        )
    };
    let a = start(lock("a"), stop_a.clone());
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(holder(), Some(json!("dead")), "not before a whole lease duration");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(holder(), Some(json!("a")));
    assert_eq!(api.get(&leases, &key).unwrap()["spec"]["leaseTransitions"], 5);

    let b = start(lock("b"), stop_b.clone());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(holder(), Some(json!("a")), "renewed all the time");
    stop_a.cancel();
    assert!(a.await.unwrap(), "given back, not lost");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(holder(), Some(json!("b")), "an empty holder is taken at once");

    api.patch(&leases, &key, "", &json!({ "spec": { "holderIdentity": "thief" } }));
    assert!(!b.await.unwrap(), "leadership lost is said");
}

/// A connection that died without a word costs who stands for election one try.
#[tokio::test(start_paused = true)]
async fn a_lease_is_acquired_though_a_request_is_never_answered() {
    let clock = Arc::new(Ticking(0.into()));
    let api = FakeApi::new(clock.clone(), Arc::new(Seeded::new(3)));
    let (asked, behind) = (Arc::new(AtomicU32::new(0)), api.client());
    let network = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (number, behind) = (asked.fetch_add(1, Ordering::Relaxed), behind.clone());
        async move {
            if number == 0 {
                std::future::pending::<()>().await;
            }
            behind.send(request).await
        }
    });
    let client = kube::Client::new(network, "default");
    let lock = LeaseLock::new(client, clock, LeaseOptions::new("kube-system", "controllers", "a"));
    let stop = CancellationToken::new();
    let led = lock.lead(&stop, |leading| async move { leading.cancel() });
    assert!(tokio::time::timeout(Duration::from_secs(15), led).await.expect("it waits for ever"));
}

/// Watches a kind that the fake API does not know.
struct Stranger;

impl Reconciler for Stranger {
    type World = ();
    const NAME: &'static str = "stranger";

    fn watches(&self) -> Watches {
        Watches::of::<k8s_openapi::api::flowcontrol::v1::FlowSchema>()
    }

    async fn observe(&self, _: &Context, _: &ObjectKey) -> Result<Option<()>> {
        Ok(None)
    }

    fn plan(&self, (): &(), _: Timestamp) -> Plan {
        Plan::default()
    }
}

#[tokio::test]
#[should_panic(expected = "which the fake API does not know")]
async fn a_kind_that_nobody_registered_is_a_failure_and_no_endless_wait() {
    Bench::new(Stranger).plan(&ObjectKey::new("", "x")).await;
}

/// An API server that is away costs a request for each cache every half a minute, not several a second.
#[tokio::test(start_paused = true)]
async fn lists_that_fail_are_asked_for_more_and_more_seldom() {
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let counting = asked.clone();
    let refuse = tower::service_fn(move |_: http::Request<kube::client::Body>| {
        counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        std::future::ready(Err::<http::Response<kube::client::Body>, _>(refused))
    });
    let stores = Stores::new(kube::Client::new(refuse, "default"), Arc::new(Seeded::new(1)));
    let _cache = stores.of::<Pod>();
    tokio::time::sleep(Duration::from_secs(900)).await;
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert!((30..=80).contains(&asked), "asked {asked} times");
    stores.shutdown().await;
}
