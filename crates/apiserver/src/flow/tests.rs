//! Upstream's levels and schemas, as a new cluster has them, under a flood.

use std::{pin::Pin, task::Poll};

use futures::{FutureExt as _, poll};
use resource::User;

use tokio::task::unconstrained;

use super::*;

fn upstream(seats: u64) -> Flow {
    let cache = Cache::empty();
    let objects = kinds::bootstrap(&kinds::Options::default());
    for (kind, plural) in
        [("FlowSchema", "flowschemas"), ("PriorityLevelConfiguration", "prioritylevelconfigurations")]
    {
        let of: Vec<Object> = objects.iter().filter(|object| object.kind() == kind).cloned().collect();
        cache.show(&GroupResource::new(GROUP, plural), &of);
    }
    Flow::new(&cache, seats)
}

fn user(name: &str, groups: &[&str]) -> User {
    let groups = groups.iter().map(ToString::to_string).collect();
    User { name: name.to_owned(), groups, ..User::default() }
}

const fn on<'a>(group: &'a str, resource: &'a str, namespace: &'a str) -> On<'a> {
    On::Resource { group, resource, subresource: "", namespace }
}

const AUTHENTICATED: &str = "system:authenticated";

#[tokio::test]
async fn upstream_schemas_classify_as_upstream() {
    let flow = upstream(SEATS);
    let account = |name: &str| format!("system:serviceaccount:{name}");
    let accounts = &["system:serviceaccounts", AUTHENTICATED][..];
    let node = &["system:nodes", AUTHENTICATED][..];
    let (leases, kube) = ("coordination.k8s.io", "kube-system");
    for (name, groups, verb, on, schema, level) in [
        ("admin", &["system:masters", AUTHENTICATED][..], "list", on("", "pods", ""), "exempt", "exempt"),
        ("system:anonymous", &["system:unauthenticated"], "get", On::Path("/readyz"), "probes", "exempt"),
        (
            "system:anonymous",
            &["system:unauthenticated"],
            "get",
            On::Path("/version"),
            "global-default",
            "global-default",
        ),
        (
            "system:kube-scheduler",
            &[AUTHENTICATED],
            "update",
            on(leases, "leases", kube),
            "system-leader-election",
            "leader-election",
        ),
        (
            "system:kube-scheduler",
            &[AUTHENTICATED],
            "list",
            on("", "pods", ""),
            "kube-scheduler",
            "workload-high",
        ),
        ("system:node:a", node, "patch", on("", "nodes", ""), "system-node-high", "node-high"),
        (
            "system:node:a",
            node,
            "update",
            on(leases, "leases", "kube-node-lease"),
            "system-node-high",
            "node-high",
        ),
        ("system:node:a", node, "list", on("", "pods", ""), "system-nodes", "system"),
        (
            &account("kube-system:dns"),
            accounts,
            "list",
            on("", "pods", ""),
            "kube-system-service-accounts",
            "workload-high",
        ),
        (&account("shop:cart"), accounts, "list", on("", "pods", "shop"), "service-accounts", "workload-low"),
        ("jane", &[AUTHENTICATED], "list", on("", "pods", "shop"), "global-default", "global-default"),
        ("nobody", &[], "list", on("", "pods", "shop"), "catch-all", "catch-all"),
    ] {
        let user = user(name, groups);
        let place = flow.admit(&Asks { user: &user, verb, on }, 1).await.ok().unwrap();
        let found = (&*place.schema.matcher.name, &*place.schema.level.name);
        assert_eq!(found, (schema, level), "{name} {verb} {on:?}");
    }
}

#[tokio::test]
async fn lists_are_as_wide_as_they_are_long_within_bounds() {
    let flow = upstream(SEATS);
    let (jane, admin) = (user("jane", &[AUTHENTICATED]), user("admin", &["system:masters"]));
    // 49 seats, of which one request takes 8 at most.
    for (user, objects, width) in
        [(&jane, 0, 1), (&jane, 100, 1), (&jane, 101, 2), (&jane, 100_000, 8), (&admin, 100_000, 10)]
    {
        let asks = Asks { user, verb: "list", on: on("", "pods", "") };
        assert_eq!(flow.admit(&asks, objects).await.ok().unwrap().width(), width, "{objects}");
    }
}

/// Forty tenants send a hundred requests each at once. What has nothing to do with them is let in at once, all
/// the while; every one of theirs runs, waits or is refused, and everybody who waits gets a turn.
#[tokio::test(start_paused = true)]
async fn a_flood_of_tenants_stops_nobody_else() {
    let flow = upstream(SEATS);
    let tenants: Vec<User> = (0..40)
        .map(|n| {
            user(&format!("system:serviceaccount:tenant:{n}"), &["system:serviceaccounts", AUTHENTICATED])
        })
        .collect();
    let (mut running, mut waiting, mut refused) = (Vec::new(), Vec::new(), 0);
    for _ in 0..100 {
        for tenant in &tenants {
            let flow = &flow;
            // Thousands are polled by one task, more than tokio lets a task do in one go.
            let mut asked = Box::pin(unconstrained(async move {
                flow.admit(&Asks { user: tenant, verb: "get", on: on("", "pods", "shop") }, 1).await
            }));
            match poll!(&mut asked) {
                Poll::Ready(Ok(place)) => running.push(place),
                Poll::Ready(Err(_)) => refused += 1,
                Poll::Pending => waiting.push(asked),
            }
        }
    }
    // Of 245 seats that nobody wanted, others have most; those that nobody wants come back, and others' with them.
    assert_eq!((running.len(), waiting.len(), refused), (56, 3944, 0));
    tokio::time::advance(PERIOD).await;
    flow.adjust();
    let mut still = Vec::new();
    for mut asked in waiting.drain(..) {
        match poll!(&mut asked) {
            Poll::Ready(place) => running.push(place.ok().unwrap()),
            Poll::Pending => still.push(asked),
        }
    }
    waiting = still;
    assert_eq!((running.len(), waiting.len()), (368, 3632));
    for (name, groups) in [
        ("admin", &["system:masters"][..]),
        ("system:node:a", &["system:nodes", AUTHENTICATED]),
        ("system:kube-scheduler", &[AUTHENTICATED]),
        ("system:serviceaccount:kube-system:dns", &["system:serviceaccounts", AUTHENTICATED]),
        ("jane", &[AUTHENTICATED]),
    ] {
        let user = user(name, groups);
        let mut asked = Box::pin(unconstrained(async {
            flow.admit(&Asks { user: &user, verb: "list", on: on("", "pods", "") }, 1_000).await
        }));
        assert!(matches!(poll!(&mut asked), Poll::Ready(Ok(_))), "{name} is let in at once");
    }
    // A tenth of those who wait go away; the others get their turn as places become free.
    waiting.truncate(waiting.len() * 9 / 10);
    let mut served = 0;
    while !waiting.is_empty() {
        running.clear();
        let mut still = Vec::new();
        for mut asked in waiting.drain(..) {
            match poll!(&mut asked) {
                Poll::Ready(Ok(place)) => running.push(place),
                Poll::Ready(Err(_)) => panic!("nobody is refused who waited"),
                Poll::Pending => still.push(asked),
            }
        }
        assert!(!running.is_empty() && running.len() <= 368, "{}", running.len());
        served += running.len();
        waiting = still;
    }
    assert_eq!(served, 3632 * 9 / 10);
    running.clear();
    let state = flow.table().levels["workload-low"].state.clone();
    assert_eq!(lock(&state).queues.load(), (0, 0));
    assert!(lock(&state).wake.is_empty());
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_refused_and_takes_no_place() {
    let flow = upstream(1);
    let jane = user("jane", &[AUTHENTICATED]);
    let asks = Asks { user: &jane, verb: "get", on: on("", "pods", "shop") };
    let held = flow.admit(&asks, 1).await.ok().unwrap();
    let refused = flow.admit(&asks, 1).await.err().unwrap();
    assert_eq!((refused.status.code, refused.status.reason), (429, Some(Reason::TooManyRequests)));
    drop(held);
    let state = flow.table().levels["global-default"].state.clone();
    assert_eq!(lock(&state).queues.load(), (0, 0));
}

type Asked<'a> = Pin<Box<dyn Future<Output = Result<Place, Box<Refused>>> + 'a>>;

fn ask<'a>(flow: &'a Flow, user: &'a User, count: usize) -> Vec<Asked<'a>> {
    let asks = Asks { user, verb: "get", on: on("", "pods", "shop") };
    (0..count).map(|_| Box::pin(unconstrained(async move { flow.admit(&asks, 1).await })) as _).collect()
}

/// The places of those who have one by now; the others stay.
fn took(asked: &mut Vec<Asked<'_>>) -> Vec<Place> {
    let mut places = Vec::new();
    asked.retain_mut(|asked| match asked.as_mut().now_or_never() {
        Some(place) => {
            places.push(place.ok().unwrap());
            false
        }
        None => true,
    });
    places
}

/// The scheduler finds half of its level's seats lent; it has them back within a period, whoever borrowed them.
#[tokio::test(start_paused = true)]
async fn what_was_lent_comes_back() {
    let flow = upstream(SEATS);
    let seats = |level: &str| lock(&flow.table().levels[level].state).share.current;
    let tenants = ["a", "b"].map(|name| {
        user(&format!("system:serviceaccount:tenant:{name}"), &["system:serviceaccounts", AUTHENTICATED])
    });
    let scheduler = user("system:kube-scheduler", &[AUTHENTICATED]);
    let mut lent: Vec<_> = tenants.iter().flat_map(|tenant| ask(&flow, tenant, 250)).collect();
    let mut places = took(&mut lent);
    assert_eq!(places.len(), 56);
    tokio::time::advance(PERIOD).await;
    flow.adjust();
    places.extend(took(&mut lent));
    assert_eq!((places.len(), seats("workload-low"), seats("workload-high")), (368, 368, 49));
    let mut back = ask(&flow, &scheduler, 98);
    let mut held = took(&mut back);
    assert_eq!(held.len(), 49);
    tokio::time::advance(PERIOD).await;
    flow.adjust();
    held.extend(took(&mut back));
    assert_eq!((held.len(), seats("workload-low"), seats("workload-high")), (98, 319, 98));
    // The text says so, and what it was decided on.
    let mut out = Exposition::default();
    flow.expose(&mut out);
    let of = "{priority_level=\"workload-high\"}";
    for line in [
        format!("nominal_limit_seats{of} 98"),
        format!("lower_limit_seats{of} 49"),
        format!("upper_limit_seats{of} 698"),
        format!("current_limit_seats{of} 98"),
        format!("demand_seats_high_watermark{of} 98"),
        format!("demand_seats_average{of} 98"),
        format!("demand_seats_stdev{of} 0"),
        format!("target_seats{of} 98"),
        "current_limit_seats{priority_level=\"exempt\"} 0".to_owned(),
    ] {
        assert!(out.text().contains(&format!("\napiserver_flowcontrol_{line}\n")), "{line}\n{}", out.text());
    }
}
