//! What a server says at `/metrics`, read over its socket: well formed, and under upstream's names and labels.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use crate::{
    testing_kinds,
    testing_server::{self, Running, request},
};

/// One line that is no comment.
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Names with the labels they must have; for histograms without `le`. Of upstream's
/// `test/instrumentation/documentation` and `staging/src/k8s.io/apiserver`.
const REQUEST: &str = "component group resource scope subresource verb version";
const NAMES: &[(&str, &str)] = &[
    ("aggregator_unavailable_apiservice", "-"),
    ("apiserver_admission_controller_admission_duration_seconds", "-"),
    ("apiserver_admission_step_admission_duration_seconds", "operation rejected type"),
    ("apiserver_audit_error_total", "-"),
    ("apiserver_audit_event_total", ""),
    ("apiserver_audit_level_total", "-"),
    ("apiserver_audit_requests_rejected_total", ""),
    ("apiserver_authorization_decisions_total", "-"),
    ("apiserver_cache_list_fetched_objects_total", "group index resource"),
    ("apiserver_cache_list_returned_objects_total", "group resource"),
    ("apiserver_cache_list_total", "group index resource"),
    ("apiserver_client_certificate_expiration_seconds", ""),
    ("apiserver_current_inflight_requests", "request_kind"),
    ("apiserver_current_inqueue_requests", "request_kind"),
    ("apiserver_flowcontrol_current_executing_requests", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_executing_seats", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_inqueue_requests", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_inqueue_seats", "flow_schema priority_level"),
    ("apiserver_flowcontrol_current_limit_seats", "priority_level"),
    ("apiserver_flowcontrol_demand_seats_average", "priority_level"),
    ("apiserver_flowcontrol_demand_seats_high_watermark", "priority_level"),
    ("apiserver_flowcontrol_demand_seats_smoothed", "priority_level"),
    ("apiserver_flowcontrol_demand_seats_stdev", "priority_level"),
    ("apiserver_flowcontrol_dispatched_requests_total", "flow_schema priority_level"),
    ("apiserver_flowcontrol_lower_limit_seats", "priority_level"),
    ("apiserver_flowcontrol_nominal_limit_seats", "priority_level"),
    ("apiserver_flowcontrol_rejected_requests_total", "flow_schema priority_level reason"),
    ("apiserver_flowcontrol_request_dispatch_no_accommodation_total", "flow_schema priority_level"),
    ("apiserver_flowcontrol_request_execution_seconds", "flow_schema priority_level type"),
    ("apiserver_flowcontrol_request_wait_duration_seconds", "execute flow_schema priority_level"),
    ("apiserver_flowcontrol_seat_fair_frac", ""),
    ("apiserver_flowcontrol_target_seats", "priority_level"),
    ("apiserver_flowcontrol_upper_limit_seats", "priority_level"),
    ("apiserver_flowcontrol_work_estimated_seats", "flow_schema priority_level"),
    ("apiserver_init_events_total", "group resource"),
    ("apiserver_longrunning_requests", REQUEST),
    ("apiserver_registered_watchers", "group resource"),
    ("apiserver_request_aborts_total", "-"),
    ("apiserver_request_body_size_bytes", "group resource verb"),
    ("apiserver_request_duration_seconds", "component dry_run group resource scope subresource verb version"),
    ("apiserver_request_sli_duration_seconds", REQUEST),
    ("apiserver_request_terminations_total", "-"),
    ("apiserver_request_total", "code component dry_run group resource scope subresource verb version"),
    ("apiserver_resource_objects", "group resource"),
    ("apiserver_response_sizes", REQUEST),
    ("apiserver_selfrequest_total", "group resource subresource verb"),
    ("apiserver_storage_objects", "resource"),
    ("apiserver_terminated_watchers_total", "group resource"),
    ("apiserver_tls_handshake_errors_total", ""),
    ("apiserver_watch_cache_capacity", "group resource"),
    ("apiserver_watch_cache_events_dispatched_total", "group resource"),
    ("apiserver_watch_cache_events_received_total", "group resource"),
    ("apiserver_watch_cache_resource_version", "group resource"),
    ("apiserver_watch_events_sizes", "group resource version"),
    ("apiserver_watch_events_total", "group resource version"),
    ("apiserver_watch_list_duration_seconds", "group resource scope version"),
    ("authenticated_user_requests", "username"),
    ("authentication_attempts", "result"),
    ("authentication_duration_seconds", "result"),
    ("authentication_token_cache_active_fetch_count", "-"),
    ("authentication_token_cache_fetch_total", "-"),
    ("authentication_token_cache_request_duration_seconds", "-"),
    ("authentication_token_cache_request_total", "-"),
    ("authorization_attempts_total", "result"),
    ("authorization_duration_seconds", "result"),
    ("etcd_request_duration_seconds", "group operation resource"),
    ("etcd_request_errors_total", "-"),
    ("etcd_requests_total", "group operation resource"),
    (
        "kubernetes_build_info",
        "build_date compiler git_commit git_tree_state git_version go_version major minor platform",
    ),
    ("kubernetes_healthcheck", "name type"),
    ("process_cpu_seconds_total", ""),
    ("process_max_fds", ""),
    ("process_open_fds", ""),
    ("process_resident_memory_bytes", ""),
    ("process_start_time_seconds", ""),
    ("process_virtual_memory_bytes", ""),
    ("rest_client_request_duration_seconds", "host verb"),
    ("rest_client_requests_total", "code host method"),
];

/// Names that a server may have besides: those marked `-` above, which need a failure or a plugin, and this one, which
/// needs a limit.
const MAYBE: &str = "process_virtual_memory_max_bytes";

/// Reads the text; panics where it is not what the format asks for.
fn parse(text: &str) -> (BTreeMap<String, String>, Vec<Sample>) {
    let mut kinds: BTreeMap<String, String> = BTreeMap::new();
    let mut helped: Option<String> = None;
    let mut samples = Vec::new();
    let mut seen = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helped.replace(name.to_owned()).is_some() != kinds.is_empty());
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(matches!(kind, "counter" | "gauge" | "histogram"), "{line}");
            assert_eq!(helped.as_deref(), Some(name), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} begins twice");
        } else {
            let (of, value) = line.rsplit_once(' ').unwrap();
            assert!(seen.insert(of.to_owned()), "{of} is there twice");
            let (name, labels) = of.split_once('{').unwrap_or((of, "}"));
            let family = helped.as_deref().unwrap();
            let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
            let histogram = kinds[family] == "histogram";
            assert!(
                if histogram { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() },
                "{line}"
            );
            samples.push(Sample {
                name: name.to_owned(),
                labels: pairs(labels.strip_suffix('}').unwrap()),
                value: value.parse().unwrap(),
            });
        }
    }
    (kinds, samples)
}

/// Label pairs. Values here have no quotes inside; those have a test in `meta::metrics`.
fn pairs(text: &str) -> BTreeMap<String, String> {
    let split = |pair: &str| {
        let (name, value) = pair.split_once("=\"").unwrap();
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{name}");
        (name.to_owned(), value.to_owned())
    };
    let text = text.strip_suffix('"').unwrap_or(text);
    let all: Vec<_> = text.split("\",").filter(|pair| !pair.is_empty()).map(split).collect();
    let unique: BTreeMap<_, _> = all.iter().cloned().collect();
    assert_eq!(unique.len(), all.len(), "{text} has a label twice");
    unique
}

/// The labels of a series without `le`.
type Key<'a> = Vec<(&'a String, &'a String)>;

/// Buckets of one series rise up to what was counted.
fn check_histograms(kinds: &BTreeMap<String, String>, samples: &[Sample]) {
    for name in kinds.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
        let mut series: BTreeMap<Key<'_>, Vec<(f64, f64)>> = BTreeMap::new();
        for sample in samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
            let key = sample.labels.iter().filter(|(label, _)| *label != "le").collect();
            let le = sample.labels["le"].parse().unwrap();
            series.entry(key).or_default().push((le, sample.value));
        }
        assert!(!series.is_empty(), "{name}");
        for (key, buckets) in series {
            assert!(buckets.is_sorted(), "{name} {key:?} {buckets:?}");
            let count = samples.iter().find(|sample| {
                sample.name == format!("{name}_count") && sample.labels.iter().collect::<Vec<_>>() == key
            });
            assert_eq!(buckets.last(), Some(&(f64::INFINITY, count.unwrap().value)), "{name} {key:?}");
        }
    }
}

async fn scrape(running: &Running) -> String {
    let admin = running.pki.admin().unwrap();
    let answer = running.send(Some(&admin), true, request("GET", "/metrics", None)).await;
    assert_eq!(answer.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    String::from_utf8(answer.body().to_vec()).unwrap()
}

/// Has a server do a little of everything.
async fn exercise(running: &Running) {
    use tower::ServiceExt as _;
    let admin = running.pki.admin().unwrap();
    let gadget = |name: &str| json!({"apiVersion": "v1", "kind": "Gadget", "metadata": {"name": name}});
    for (method, path, body, code) in [
        ("POST", "/api/v1/gadgets", Some(gadget("one")), 201),
        ("POST", "/api/v1/gadgets?dryRun=All", Some(gadget("two")), 201),
        ("POST", "/api/v1/gadgets", Some(gadget("one")), 409),
        ("GET", "/api/v1/gadgets", None, 200),
        ("DELETE", "/api/v1/gadgets/one", None, 200),
        ("GET", "/healthz", None, 200),
        (
            "GET",
            "/api/v1/gadgets?watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true\
             &resourceVersionMatch=NotOlderThan",
            None,
            200,
        ),
    ] {
        let answer = running.send(Some(&admin), true, request(method, path, body)).await;
        assert_eq!(answer.status(), code, "{method} {path}");
    }
    let user =
        resource::User { name: "part".into(), groups: vec!["system:masters".into()], ..Default::default() };
    let served = running.server.service(user).oneshot(request("GET", "/api/v1/gadgets", None)).await;
    assert_eq!(served.unwrap().status(), 200);
    assert_eq!(running.send(None, true, request("GET", "/api/v1/gadgets", None)).await.status(), 403);
}

#[tokio::test]
async fn a_scrape_is_well_formed_and_has_upstreams_names() {
    let running = testing_server::start(testing_kinds::registry()).await;
    exercise(&running).await;
    let text = scrape(&running).await;
    let (kinds, samples) = parse(&text);
    check_histograms(&kinds, &samples);
    let mut expected: BTreeSet<&str> = BTreeSet::new();
    for (name, wanted) in NAMES {
        if *wanted == "-" {
            continue;
        }
        expected.insert(name);
        let kind = kinds.get(*name).unwrap_or_else(|| panic!("{name} is missing\n{text}"));
        let shown = if kind == "histogram" { format!("{name}_count") } else { (*name).to_owned() };
        for sample in samples.iter().filter(|sample| sample.name == shown) {
            let labels: Vec<&str> = sample.labels.keys().map(String::as_str).collect();
            assert_eq!(labels.join(" "), *wanted, "{name}");
        }
    }
    let known: BTreeSet<&str> = NAMES.iter().map(|(name, _)| *name).chain([MAYBE]).collect();
    let shown: BTreeSet<&str> = kinds.keys().map(String::as_str).collect();
    assert_eq!(shown.difference(&known).collect::<Vec<_>>(), Vec::<&&str>::new(), "not in the list");
    assert_eq!(expected.difference(&shown).collect::<Vec<_>>(), Vec::<&&str>::new(), "missing");
    for (line, count) in [
        (
            "apiserver_request_total{code=\"201\",component=\"apiserver\",dry_run=\"All\",group=\"\",resource=\"gadgets\",scope=\"cluster\",subresource=\"\",verb=\"POST\",version=\"v1\"}",
            1,
        ),
        (
            "apiserver_request_total{code=\"409\",component=\"apiserver\",dry_run=\"\",group=\"\",resource=\"gadgets\",scope=\"cluster\",subresource=\"\",verb=\"POST\",version=\"v1\"}",
            1,
        ),
        ("apiserver_watch_cache_events_received_total{group=\"\",resource=\"gadgets\"}", 2),
        ("apiserver_cache_list_total{group=\"\",index=\"\",resource=\"gadgets\"}", 2),
        ("etcd_requests_total{group=\"\",operation=\"create\",resource=\"gadgets\"}", 1),
        ("etcd_requests_total{group=\"\",operation=\"delete\",resource=\"gadgets\"}", 1),
        ("apiserver_watch_events_total{group=\"\",resource=\"gadgets\",version=\"v1\"}", 1),
        (
            "apiserver_watch_list_duration_seconds_count{group=\"\",resource=\"gadgets\",version=\"v1\",scope=\"cluster\"}",
            1,
        ),
        ("rest_client_requests_total{code=\"200\",host=\"in-process\",method=\"GET\"}", 1),
        ("authorization_attempts_total{result=\"no-opinion\"}", 1),
        (
            "apiserver_longrunning_requests{component=\"apiserver\",group=\"\",resource=\"gadgets\",scope=\"cluster\",subresource=\"\",verb=\"WATCH\",version=\"v1\"}",
            0,
        ),
    ] {
        assert!(text.contains(&format!("\n{line} {count}\n")), "{line} {count}\n{text}");
    }
    running.serving.stop().await;
}

/// Who makes up names makes no numbers: labels are words of the server.
#[tokio::test]
async fn clients_cannot_make_up_labels() {
    let running = testing_server::start(testing_kinds::registry()).await;
    let admin = running.pki.admin().unwrap();
    for path in [
        "/api/v1/madeup",
        "/apis/madeup.example/v1/things",
        "/api/v1/gadgets/x/madeup",
        "/madeup",
        "/api/v1/namespaces/madeup/widgets?dryRun=madeup",
    ] {
        running.send(Some(&admin), true, request("GET", path, None)).await;
    }
    running.send(Some(&admin), true, request("MADEUP", "/madeup", None)).await;
    let text = scrape(&running).await;
    assert!(!text.to_lowercase().contains("madeup"), "{text}");
    running.serving.stop().await;
}

#[tokio::test]
async fn configz_says_what_components_are_configured_with() {
    let running = testing_server::start_with(testing_kinds::registry(), |server, _, _| {
        server.with_config("part", std::sync::Arc::new(|| json!({"size": 7})))
    })
    .await;
    let admin = running.pki.admin().unwrap();
    let answer = running.send(Some(&admin), true, request("GET", "/configz", None)).await;
    let said = testing_server::value(&answer);
    assert_eq!(said["part"], json!({"size": 7}));
    assert_eq!(said["apiserver"]["requestTimeout"], "1m0s");
    assert_eq!(running.send(None, true, request("GET", "/configz", None)).await.status(), 403);
    running.serving.stop().await;
}

#[test]
fn admission_is_counted_by_plugin_and_webhook() {
    let mut out = meta::metrics::Exposition::default();
    let times = super::AdmissionTimes::new(["One", "Two"].into_iter());
    let took = std::time::Duration::from_millis(7);
    times.plugin(1, super::Step::Validate, resource::Operation::Update, true, took);
    times.plugin(2, super::Step::Validate, resource::Operation::Update, true, took);
    times.expose(&mut out);
    let hooks = super::WebhookCounts::default();
    let name = "a.example.com".into();
    for called in [
        super::Called::Allowed,
        super::Called::Allowed,
        super::Called::Refused(1_000),
        super::Called::Failed,
        super::Called::FailedOpen,
    ] {
        hooks.called(&name, "admit", "CREATE", called, took);
    }
    hooks.expose(&mut out);
    let (kinds, samples) = parse(out.text());
    check_histograms(&kinds, &samples);
    let of = "name=\"a.example.com\"";
    for line in [
        "apiserver_admission_controller_admission_duration_seconds_count{name=\"Two\",operation=\"UPDATE\",rejected=\"true\",type=\"validate\"} 1".to_owned(),
        format!("apiserver_admission_webhook_admission_duration_seconds_count{{{of},operation=\"CREATE\",rejected=\"false\",type=\"admit\"}} 3"),
        format!("apiserver_admission_webhook_request_total{{code=\"200\",{of},operation=\"CREATE\",rejected=\"false\",type=\"admit\"}} 2"),
        format!("apiserver_admission_webhook_rejection_count{{error_type=\"no_error\",{of},operation=\"CREATE\",rejection_code=\"600\",type=\"admit\"}} 1"),
        format!("apiserver_admission_webhook_rejection_count{{error_type=\"calling_webhook_error\",{of},operation=\"CREATE\",rejection_code=\"0\",type=\"admit\"}} 1"),
        format!("apiserver_admission_webhook_fail_open_count{{{of},type=\"admit\"}} 1"),
    ] {
        assert!(out.text().contains(&format!("\n{line}\n")), "{line}\n{}", out.text());
    }
}
