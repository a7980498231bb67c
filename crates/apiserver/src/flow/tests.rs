//! Upstream's levels and schemas, as a new cluster has them, under a flood.

use std::task::Poll;

use futures::poll;
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
    // 49 seats, of which one request takes 7 at most.
    for (user, objects, width) in
        [(&jane, 0, 1), (&jane, 100, 1), (&jane, 101, 2), (&jane, 100_000, 7), (&admin, 100_000, 0)]
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
    assert_eq!((running.len(), waiting.len(), refused), (245, 3755, 0));
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
        assert!(!running.is_empty() && running.len() <= 245, "{}", running.len());
        served += running.len();
        waiting = still;
    }
    assert_eq!(served, 3755 * 9 / 10);
    running.clear();
    let state = flow.table().levels["workload-low"].state.clone().unwrap();
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
    let state = flow.table().levels["global-default"].state.clone().unwrap();
    assert_eq!(lock(&state).queues.load(), (0, 0));
}
