//! Each control by one pod that breaks it, in upstream's words.

use serde_json::json;

use super::*;
use crate::testing::{Cx, object};

fn check(level: &str, spec: Value, expected: Option<&str>) {
    let minor = level.split_once(':').map_or(level::LATEST, |(_, version)| level::minor(version).unwrap());
    let level = Level::parse(level.split(':').next().unwrap()).unwrap();
    let seen = Policy { level, minor }.violations(&Value::Null, &spec);
    assert_eq!(seen.as_deref(), expected, "{spec}");
}

fn pod(container: Value, more: Value) -> Value {
    let mut first = json!({"name": "a"});
    let mut spec = more;
    for (key, value) in container.as_object().unwrap() {
        first[key] = value.clone();
    }
    spec["containers"] = json!([first]);
    spec
}

fn secured(context: Value) -> Value {
    pod(json!({"securityContext": context}), json!({}))
}

#[test]
fn baseline() {
    let check =
        |spec: Value, expected: &str| check("baseline", spec, Some(expected).filter(|e| !e.is_empty()));
    check(pod(json!({}), json!({})), "");
    check(
        secured(json!({"privileged": true})),
        "privileged (container \"a\" must not set securityContext.privileged=true)",
    );
    check(
        secured(json!({"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}})),
        "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
    );
    check(
        pod(json!({}), json!({"hostNetwork": true, "hostPID": true})),
        "host namespaces (hostNetwork=true, hostPID=true)",
    );
    check(
        pod(
            json!({}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}, {"name": "w", "hostPath": {}}]}),
        ),
        "hostPath volumes (volumes \"v\", \"w\")",
    );
    check(
        pod(json!({"ports": [{"hostPort": 80}, {"containerPort": 1}]}), json!({})),
        "hostPort (container \"a\" uses hostPort 80)",
    );
    check(
        pod(json!({"livenessProbe": {"httpGet": {"host": "other"}}}), json!({})),
        "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"other\")",
    );
    check(
        secured(json!({"procMount": "Unmasked"})),
        "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
    );
    check(
        pod(
            json!({"securityContext": {"seLinuxOptions": {"type": "x"}}}),
            json!({"securityContext": {"seLinuxOptions": {"user": "u"}}}),
        ),
        "seLinuxOptions (pod and container \"a\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
    );
    check(
        pod(json!({}), json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
        "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
    );
    check(
        pod(
            json!({}),
            json!({"securityContext": {"sysctls": [{"name": "net.core.x"}, {"name": "net.ipv4.tcp_rmem"}]}}),
        ),
        "forbidden sysctls (net.core.x)",
    );
    check(
        secured(json!({"windowsOptions": {"hostProcess": true}})),
        "hostProcess (container \"a\" must not set securityContext.windowsOptions.hostProcess=true)",
    );
    check(
        secured(json!({"appArmorProfile": {"type": "Unconfined"}})),
        "forbidden AppArmor profile (container \"a\" must not set securityContext.appArmorProfile.type to \"Unconfined\")",
    );
}

#[test]
fn restricted() {
    check(
        "restricted",
        pod(json!({}), json!({"volumes": [{"name": "v", "hostPath": {}}, {"name": "c", "configMap": {}}]})),
        Some(
            "allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), \
             unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), \
             restricted volume types (volume \"v\" uses restricted volume type \"hostPath\"), \
             runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), \
             seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
        ),
    );
    let good = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
        "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    check("restricted", secured(good.clone()), None);
    let mut root = good;
    root["runAsUser"] = json!(0);
    check(
        "restricted",
        secured(root.clone()),
        Some("runAsUser=0 (container \"a\" must not set runAsUser=0)"),
    );
    check("restricted:v1.22", secured(root), None);
    let windows = pod(json!({"securityContext": {"runAsNonRoot": true}}), json!({"os": {"name": "windows"}}));
    check("restricted", windows, None);
}

#[test]
fn versions() {
    for (text, expected) in [
        ("latest", Some(level::LATEST)),
        ("v1.0", Some(0)),
        ("v1.36", Some(36)),
        ("v1.01", None),
        ("v2.1", None),
        ("v1.", None),
    ] {
        assert_eq!(level::minor(text), expected, "{text}");
    }
}

fn run(labels: Value, resource: &str, new: Value) -> (Result<(), String>, Vec<String>, Vec<String>) {
    let namespace = json!({"metadata": {"name": "ns", "labels": labels}});
    let (group, plural) = match resource.split_once('.') {
        Some((plural, group)) => (group, plural),
        None => ("", resource),
    };
    let mut cx = Cx::new(plural, "").with("", "namespaces", namespace);
    cx.attributes.resource = GroupResource::new(group, plural);
    let done = PodSecurity.validate(&cx.context(), &object(new), None);
    let notes = &cx.attributes.notes;
    let audited = notes.annotations().into_iter().filter(|(key, _)| key.ends_with("audit-violations"));
    (done.map_err(|status| status.message), notes.warnings(), audited.map(|(_, text)| text).collect())
}

#[test]
fn modes() {
    let pod = json!({"metadata": {"name": "p"}, "spec": {"hostNetwork": true, "containers": []}});
    let label = |mode: &str| json!({(format!("pod-security.kubernetes.io/{mode}")): "baseline"});
    let why = "violate PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    let refused = format!("pods \"p\" is forbidden: {}", why.replace("violate ", "violates "));
    assert_eq!(run(label("enforce"), "pods", pod.clone()), (Err(refused), vec![], vec![]));
    let would = format!("would {why}");
    assert_eq!(run(label("warn"), "pods", pod.clone()), (Ok(()), vec![would.clone()], vec![]));
    assert_eq!(run(label("audit"), "pods", pod.clone()), (Ok(()), vec![], vec![would.clone()]));
    assert_eq!(run(json!({}), "pods", pod.clone()), (Ok(()), vec![], vec![]));
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"template": {"spec": pod["spec"]}}});
    assert_eq!(run(label("enforce"), "deployments.apps", deployment.clone()), (Ok(()), vec![], vec![]));
    assert_eq!(run(label("warn"), "deployments.apps", deployment), (Ok(()), vec![would], vec![]));
}

#[test]
fn namespaces() {
    let namespace = |level: &str| {
        object(json!({"metadata": {"name": "ns", "labels": {"pod-security.kubernetes.io/enforce": level}}}))
    };
    let mut cx = Cx::new("namespaces", "");
    for name in ["p", "q"] {
        let pod = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"hostPID": true}});
        cx = cx.with("", "pods", pod);
    }
    let refused = PodSecurity.validate(&cx.context(), &namespace("high"), None).unwrap_err();
    assert_eq!(
        refused.message,
        "Namespace \"ns\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"high\": \
         must be one of privileged, baseline, restricted"
    );
    PodSecurity.validate(&cx.context(), &namespace("baseline"), Some(&namespace("privileged"))).unwrap();
    assert_eq!(
        cx.attributes.notes.warnings(),
        [
            "existing pods in namespace \"ns\" violate the new PodSecurity enforce level \"baseline:latest\"",
            "p (and 1 other pod): host namespaces",
        ]
    );
}
