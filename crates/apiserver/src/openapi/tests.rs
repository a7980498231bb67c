use super::*;
use crate::testing_kinds::{registry, widget};

fn api() -> OpenApi {
    OpenApi::new("v1.36.0")
}

fn value(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap()
}

#[test]
fn patch_operations_say_what_kubectl_looks_for() {
    let registry = registry();
    let document = value(&api().v3(&registry, "apis/toys.example/v1").unwrap().unwrap());
    let patch = &document["paths"]["/apis/toys.example/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    let kind = json!({"group": "toys.example", "version": "v1", "kind": "Widget"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    assert_eq!(patch["x-kubernetes-action"], "patch");
    let names: Vec<&str> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
    for wanted in ["dryRun", "fieldManager", "fieldValidation", "force"] {
        assert!(names.contains(&wanted), "{wanted}");
    }
    assert_eq!(
        document["components"]["schemas"]["example.toys.v1.Widget"]["x-kubernetes-group-version-kind"][0],
        kind
    );
    assert!(document["components"]["schemas"]["example.toys.v1.WidgetList"].is_object());
    assert!(api().v3(&registry, "apis/none/v1").unwrap().is_none());
}

#[test]
fn index_hashes_follow_the_document() {
    let (registry, api) = (registry(), api());
    let url =
        |api: &OpenApi| value(&api.v3_index(&registry).unwrap())["paths"]["apis/toys.example/v1"].clone();
    let before = url(&api);
    assert_eq!(before, url(&api));
    let mut without = widget();
    without.subresources.clear();
    registry.install(without);
    assert_ne!(before, url(&api));
}

#[test]
fn documents_are_built_once() {
    let (registry, api) = (registry(), api());
    let first = api.v2(&registry, "application/json").unwrap();
    let again = api.v2(&registry, "application/json").unwrap();
    assert_eq!(first.bytes.as_ptr(), again.bytes.as_ptr());
    assert_eq!(api.v2(&registry, GNOSTIC_ASKED).unwrap().content_type, GNOSTIC);
    assert_eq!(value(&first)["swagger"], "2.0");
}

#[test]
fn what_is_never_served_is_in_no_document() {
    let registry = registry();
    let before = value(&api().v2(&registry, "application/json").unwrap());
    let inner = resource::Resource { group: "claims.internal".into(), verbs: &[], ..widget() };
    registry.install(inner);
    assert_eq!(value(&api().v2(&registry, "application/json").unwrap()), before);
    let index = value(&api().v3_index(&registry).unwrap());
    assert!(index["paths"].get("apis/claims.internal/v1").is_none(), "{index}");
    assert!(api().v3(&registry, "apis/claims.internal/v1").unwrap().is_none());
}

#[test]
fn fields_that_every_kind_has_are_described_in_custom_kinds_too() {
    let registry = registry();
    let schema = schema::openapi::from_crd(&json!({"type": "object"}), "schema").unwrap();
    registry.install(resource::Resource { custom: true, schema, ..widget() });
    let mut api = api();
    api.describe(Arc::new(|| {
        Box::new(|of, field| of.ends_with(".ConfigMap").then(|| format!("About {field}.")))
    }));
    let v3 = value(&api.v3(&registry, "apis/toys.example/v1").unwrap().unwrap());
    let fields = &v3["components"]["schemas"]["example.toys.v1.Widget"]["properties"];
    assert_eq!(fields["apiVersion"]["description"], "About apiVersion.");
    let meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
    let at = format!("#/components/schemas/{meta}");
    assert_eq!(fields["metadata"], json!({"allOf": [{"$ref": at}], "description": "About metadata."}));
    let v2 = value(&api.v2(&registry, "application/json").unwrap());
    let fields = &v2["definitions"]["example.toys.v1.Widget"]["properties"];
    let at = format!("#/definitions/{meta}");
    assert_eq!(fields["metadata"], json!({"$ref": at, "description": "About metadata."}));
}
