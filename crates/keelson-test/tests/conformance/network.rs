//! Endpoints and EndpointSlices.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kit::{Kit, pod};

fn service(name: &str, port: Value) -> Value {
    json!({
        "metadata": { "name": name, "labels": { "kept": "yes" } },
        "spec": { "selector": { "app": "web" }, "ports": [{ "name": "example", "port": 80, "targetPort": port }] },
    })
}

fn web(name: &str, port: &str, number: u16) -> Value {
    let mut pod = pod(name);
    pod["metadata"]["labels"] = json!({ "app": "web" });
    pod["spec"]["containers"][0]["ports"] = json!([{ "name": port, "containerPort": number }]);
    pod
}

async fn slices(kit: &Kit, service: &str) -> Vec<Value> {
    kit.list(&format!("endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{service}")).await
}

/// Addresses of a Service's slices, of those that are ready.
fn addresses(slices: &[Value]) -> BTreeSet<String> {
    let endpoints = slices.iter().flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    ready.map(|endpoint| endpoint["addresses"][0].as_str().unwrap().to_owned()).collect()
}

async fn until_behind(kit: &Kit, service: &str, count: usize) -> Vec<Value> {
    let what = format!("{count} are behind {service}");
    let waited = kit.cluster.eventually(&what, async || {
        let slices = slices(kit, service).await;
        if addresses(&slices).len() == count { Ok(slices) } else { Err(json!(slices).to_string()) }
    });
    waited.await.unwrap()
}

/// The same in Endpoints, the older form.
async fn same_in_endpoints(kit: &Kit, service: &str, addresses: &BTreeSet<String>) -> Value {
    kit.until(&format!("endpoints/{service}"), "shows the same", |endpoints| {
        let subsets = endpoints["subsets"].as_array().into_iter().flatten();
        let shown = subsets.flat_map(|subset| subset["addresses"].as_array().into_iter().flatten());
        shown.map(|address| address["ip"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>() == *addresses
    })
    .await
}

/// Two pods of which each has a port of that name, of its own number; a Service by name and one by number.
async fn two_pods(kit: &Kit) -> BTreeSet<String> {
    kit.create("services", service("named", json!("example-name"))).await;
    kit.create("services", service("numbered", json!(3001))).await;
    kit.create("pods", web("one", "example-name", 3000)).await;
    kit.create("pods", web("two", "example-name", 3001)).await;
    let mut ips = BTreeSet::new();
    for name in ["one", "two"] {
        let running = |pod: &Value| pod["status"]["podIP"].is_string();
        let pod = kit.until(&format!("pods/{name}"), "has an address", running).await;
        ips.insert(pod["status"]["podIP"].as_str().unwrap().to_owned());
    }
    ips
}

#[tokio::test(start_paused = true)]
async fn slices_show_the_pods_that_match() {
    let kit = Kit::nodes(2).await;
    let ips = two_pods(&kit).await;
    let named = until_behind(&kit, "named", 2).await;
    assert_eq!(addresses(&named), ips);
    let ports: BTreeSet<_> = named.iter().map(|slice| slice["ports"][0]["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [3000, 3001].into(), "pods with different numbers for a name are in different slices");
    for slice in &named {
        assert_eq!(slice["addressType"], "IPv4");
        assert_eq!(slice["metadata"]["labels"]["kept"], "yes");
        let target = &slice["endpoints"][0]["targetRef"];
        assert_eq!((&target["kind"], &target["namespace"]), (&json!("Pod"), &json!("default")));
        assert!(slice["endpoints"][0]["nodeName"].is_string());
    }
    let numbered = until_behind(&kit, "numbered", 2).await;
    assert_eq!((numbered.len(), &numbered[0]["ports"][0]["port"]), (1, &json!(3001)));
}

#[tokio::test(start_paused = true)]
async fn slices_of_a_service_without_pods_come_and_go_with_it() {
    let kit = Kit::nodes(1).await;
    kit.create("services", service("web", json!(80))).await;
    let waited = kit.cluster.eventually("a slice", async || {
        if slices(&kit, "web").await.is_empty() { Err("none") } else { Ok(()) }
    });
    waited.await.unwrap();
    kit.until("endpoints/web", "is there", |endpoints| endpoints["subsets"].is_null()).await;
    kit.delete("services/web").await;
    kit.gone("endpoints/web").await;
    let waited = kit.cluster.eventually("no slice", async || {
        let left = slices(&kit, "web").await;
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    waited.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn endpoints_show_the_pods_that_match() {
    let kit = Kit::nodes(2).await;
    let ips = two_pods(&kit).await;
    let named = same_in_endpoints(&kit, "named", &ips).await;
    let subsets = named["subsets"].as_array().unwrap();
    let ports: BTreeSet<_> =
        subsets.iter().map(|subset| subset["ports"][0]["port"].as_u64().unwrap()).collect();
    assert_eq!(ports, [3000, 3001].into());
    same_in_endpoints(&kit, "numbered", &ips).await;
    kit.delete("pods/one").await;
    kit.gone("pods/one").await;
    let left = kit.get("pods/two").await["status"]["podIP"].as_str().unwrap().to_owned();
    same_in_endpoints(&kit, "named", &[left].into()).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_of_a_service_without_pods_come_and_go_with_it() {
    let kit = Kit::nodes(1).await;
    kit.create("services", service("web", json!(80))).await;
    same_in_endpoints(&kit, "web", &BTreeSet::new()).await;
    kit.delete("services/web").await;
    kit.gone("endpoints/web").await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_made_by_hand_are_mirrored() {
    let kit = Kit::nodes(1).await;
    let mut bare = service("web", json!(80));
    bare["spec"]["selector"] = Value::Null;
    kit.create("services", bare).await;
    let subset =
        |ip: &str| json!([{ "addresses": [{ "ip": ip }], "ports": [{ "name": "example", "port": 80 }] }]);
    kit.create("endpoints", json!({ "metadata": { "name": "web" }, "subsets": subset("10.1.2.3") })).await;
    let mirrored = until_behind(&kit, "web", 1).await;
    assert_eq!(addresses(&mirrored), ["10.1.2.3".to_owned()].into());
    let by = &mirrored[0]["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
    assert_eq!(by, "endpointslicemirroring-controller.k8s.io");
    kit.update("endpoints/web", |endpoints| endpoints["subsets"] = subset("10.2.3.4")).await;
    let waited = kit.cluster.eventually("follows", async || {
        let now = addresses(&slices(&kit, "web").await);
        if now == ["10.2.3.4".to_owned()].into() { Ok(()) } else { Err(now) }
    });
    waited.await.unwrap();
    kit.delete("endpoints/web").await;
    until_behind(&kit, "web", 0).await;
    assert_eq!(slices(&kit, "web").await, Vec::<Value>::new());
}

/// Upstream's bounds on the time from a Service to its endpoints: half of them in 20 s, 99 of 100 in 50 s.
#[tokio::test(start_paused = true)]
async fn a_hundred_services_have_their_endpoints_soon() {
    let kit = Kit::nodes(1).await;
    kit.create("pods", web("web", "example-name", 80)).await;
    kit.until("pods/web", "is ready", crate::kit::is_ready).await;
    let mut took = Vec::new();
    for n in 0..100 {
        let (name, begun) = (format!("web-{n}"), kit.cluster.now());
        kit.create("services", service(&name, json!(80))).await;
        until_behind(&kit, &name, 1).await;
        took.push(kit.cluster.now().as_second() - begun.as_second());
    }
    took.sort_unstable();
    assert!(took[50] <= 20 && took[90] <= 50 && took[99] <= 50, "{took:?}");
}
