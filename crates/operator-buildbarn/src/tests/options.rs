//! Every option, and what it makes of the children of the whole farm.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::networking::v1::NetworkPolicy;

use super::*;

const OPTIONS: &str = include_str!("options.yaml");

/// The small farm, with all four stores.
fn base() -> Farm {
    let farm = Farm::new(FARM);
    farm.edit::<BuildbarnStorage>("storage", json!({"iscc": {"enabled": true}, "fsac": {"enabled": true}}));
    farm
}

/// Changes the small farm and lets it come to rest.
async fn changed(option: &Value) -> Farm {
    let farm = base();
    let spec = option["spec"].clone();
    match option["kind"].as_str().unwrap() {
        "BuildbarnStorage" => farm.edit::<BuildbarnStorage>("storage", spec),
        "BuildbarnScheduler" => farm.edit::<BuildbarnScheduler>("scheduler", spec),
        "BuildbarnWorker" => farm.edit::<BuildbarnWorker>("ubuntu", spec),
        "BuildbarnFrontend" => farm.edit::<BuildbarnFrontend>("frontend", spec),
        "BuildbarnBrowser" => farm.edit::<BuildbarnBrowser>("browser", spec),
        other => panic!("no kind {other}"),
    }
    farm.settle().await;
    farm
}

/// Every leaf of the children by its path, hashes made equal.
fn leaves(farm: &Farm) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut put = |kind: &str, objects: Vec<Value>| {
        for object in objects {
            let labels = &object["metadata"]["labels"];
            let component = labels["component"].as_str().unwrap();
            let name = match kind {
                "Service" => object["metadata"]["name"].as_str().unwrap(),
                _ => component,
            };
            let mut rest = json!({"annotations": object["metadata"]["annotations"], "spec": object["spec"]});
            if let Some(data) = object["data"].as_object() {
                rest["data"] =
                    data.iter().map(|(name, text)| (name.clone(), parse(text.as_str().unwrap()))).collect();
            }
            flatten(&format!("{kind} {name}"), &rest, &mut out);
        }
    };
    put("ConfigMap", farm.list::<ConfigMap>());
    put("Deployment", farm.list::<Deployment>());
    put("StatefulSet", farm.list::<StatefulSet>());
    put("Service", farm.list::<Service>());
    put("Ingress", farm.list::<Ingress>());
    put("PodDisruptionBudget", farm.list::<PodDisruptionBudget>());
    put("NetworkPolicy", farm.list::<NetworkPolicy>());
    let hashes = ["config-hash", "/configMap/name", "buildbarn.io~1template", "buildbarn.io/template"];
    out.retain(|path, _| !hashes.iter().any(|hash| path.contains(hash)));
    out
}

fn flatten(path: &str, value: &Value, out: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(key, inner)| flatten(&format!("{path}/{key}"), inner, out));
        }
        Value::Array(list) if !list.is_empty() => {
            // Parts with a name are told apart by it, so that one more does not move the others.
            let step = |at: usize, item: &Value| match item["name"].as_str() {
                Some(name) => name.to_owned(),
                None => at.to_string(),
            };
            list.iter()
                .enumerate()
                .for_each(|(at, item)| flatten(&format!("{path}/{}", step(at, item)), item, out));
        }
        Value::Null => {}
        leaf => drop(out.insert(path.to_owned(), leaf.to_string())),
    }
}

#[tokio::test]
async fn each_option_makes_of_the_children_what_it_says() {
    let farm = base();
    farm.settle().await;
    let before = leaves(&farm);
    let mut text = String::new();
    let (pool, mut held) = (super::definitions::definitions(), 0);
    for option in yaml_documents(OPTIONS) {
        let farm = changed(&option).await;
        super::definitions::hold(&option.to_string(), &farm, pool.as_ref(), &mut held);
        let kind = option["kind"].as_str().unwrap();
        let name = kind.strip_prefix("Buildbarn").unwrap().to_lowercase();
        text.push_str(&format!("{name} {}\n", option["spec"]));
        let after = leaves(&farm);
        let mut lines = Vec::new();
        for path in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
            match (before.get(path), after.get(path)) {
                (Some(was), None) => lines.push(format!("  - {path} = {was}")),
                (None, Some(is)) => lines.push(format!("  + {path} = {is}")),
                (Some(was), Some(is)) if was != is => lines.push(format!("  ~ {path} = {was} -> {is}")),
                _ => {}
            }
        }
        if lines.len() > 40 {
            // A component that is not there, a store that comes or goes: what matters is that, and not each leaf.
            let heads: BTreeSet<String> = lines.iter().map(|line| head(line)).collect();
            lines = heads.into_iter().collect();
        }
        text.push_str(&format!(
            "{}\n\n",
            if lines.is_empty() { "  nothing".to_owned() } else { lines.join("\n") }
        ));
    }
    insta::assert_snapshot!("options", text);
}

/// A changed leaf's first five steps.
fn head(line: &str) -> String {
    let path = line.split(" = ").next().unwrap_or(line);
    path.split('/').take(6).collect::<Vec<_>>().join("/")
}

/// Paths of all fields of a schema down to what it does not look into.
fn fields(schema: &Value, path: &str, out: &mut BTreeSet<String>) {
    let children = schema["properties"].as_object().filter(|map| !map.is_empty());
    match (children, &schema["items"], &schema["additionalProperties"]) {
        (Some(children), _, _) => {
            children.iter().for_each(|(name, inner)| fields(inner, &format!("{path}.{name}"), out));
        }
        (None, items, _) if items.is_object() => fields(items, path, out),
        (None, _, more) if more.is_object() => fields(more, &format!("{path}.*"), out),
        _ => drop(out.insert(path.to_owned())),
    }
}

/// The same of a value, where the schema tells maps from objects.
fn used(schema: &Value, value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                let known = &schema["properties"][key];
                if known.is_object() {
                    used(known, inner, &format!("{path}.{key}"), out);
                } else if schema["additionalProperties"].is_object() {
                    used(&schema["additionalProperties"], inner, &format!("{path}.*"), out);
                } else {
                    out.insert(path.to_owned());
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| used(&schema["items"], item, path, out)),
        _ => {}
    }
    out.insert(path.to_owned());
}

/// A field that nobody tries is one that nobody knows to work. What all kinds have is tried on the two kinds whose
/// pods are made differently.
#[test]
fn every_field_of_the_crds_is_tried() {
    let mut common: Option<BTreeSet<String>> = None;
    let mut per_kind = BTreeMap::new();
    for crd in crate::crds() {
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap().to_owned();
        let schema = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec").unwrap().clone();
        let mut all = BTreeSet::new();
        fields(&schema, "spec", &mut all);
        let mut tried = BTreeSet::new();
        for option in yaml_documents(OPTIONS).iter().filter(|option| option["kind"] == kind.as_str()) {
            used(&schema, &option["spec"], "spec", &mut tried);
        }
        common = Some(match common {
            None => all.clone(),
            Some(common) => common.intersection(&all).cloned().collect(),
        });
        per_kind.insert(kind, (all, tried));
    }
    let mut common = common.unwrap();
    // Of every kind, but each with a meaning of its own.
    common.remove("spec.replicas");
    let mut missing = Vec::new();
    for (kind, (all, tried)) in &per_kind {
        let here = ["BuildbarnBrowser", "BuildbarnWorker"].contains(&kind.as_str());
        let wanted = all.iter().filter(|field| here || !common.contains(*field));
        // Tested where a ConfigMap is brought; `initImage` where there is something to prepare.
        let elsewhere = |field: &str| {
            field == "spec.configMapName"
                || field == "spec.auth.ac.findMissing" // refused, see bad_input
                || kind == "BuildbarnBrowser" && field == "spec.initImage"
                || kind == "BuildbarnWorker"
                    && ["spec.paused", "spec.pdb.enabled", "spec.pdb.minAvailable"].contains(&field)
        };
        missing.extend(
            wanted
                .filter(|field| !tried.contains(*field) && !elsewhere(field))
                .map(|field| format!("{kind} {field}")),
        );
    }
    assert!(missing.is_empty(), "no option of options.yaml tries {missing:#?}");
}
