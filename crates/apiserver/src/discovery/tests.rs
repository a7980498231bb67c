use super::*;
use crate::testing_kinds::registry;
use http::HeaderValue;

#[test]
fn legacy_documents() {
    let registry = registry();
    for (name, path) in [
        ("api", "/api"),
        ("apis", "/apis"),
        ("api_v1", "/api/v1"),
        ("group", "/apis/toys.example"),
        ("group_version", "/apis/toys.example/v1"),
    ] {
        insta::assert_json_snapshot!(name, legacy(&registry, path).unwrap());
    }
    for path in ["/apis/none", "/apis/toys.example/v2", "/api/v2", "/apis/toys.example/v1/x"] {
        assert!(legacy(&registry, path).is_none(), "{path}");
    }
}

#[test]
fn aggregated_documents_follow_the_registry() {
    let registry = registry();
    let discovery = Discovery::default();
    let core = discovery.aggregated(&registry, true);
    let groups = discovery.aggregated(&registry, false);
    let value = |document: &Aggregated| -> meta::Value { serde_json::from_slice(&document.body).unwrap() };
    insta::assert_json_snapshot!("aggregated_core", value(&core));
    insta::assert_json_snapshot!("aggregated_groups", value(&groups));
    assert_eq!(discovery.aggregated(&registry, false).etag, groups.etag);
    registry.remove(&meta::GroupVersionResource {
        group: "toys.example".into(),
        version: "v1".into(),
        resource: "widgets".into(),
    });
    assert_ne!(discovery.aggregated(&registry, false).etag, groups.etag);
    assert_eq!(discovery.aggregated(&registry, true).etag, core.etag);
}

#[test]
fn versions_are_ordered_as_upstream() {
    let mut versions = ["v1alpha1", "foo", "v2", "v10beta3", "v1", "v11alpha2", "v10", "v2beta1"];
    versions.sort_by_key(|version| std::cmp::Reverse(priority(version)));
    assert_eq!(versions, ["v10", "v2", "v1", "v10beta3", "v2beta1", "v11alpha2", "v1alpha1", "foo"]);
}

#[test]
fn accept_asks_for_the_aggregated_form() {
    for (text, expected) in [
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json", true),
        ("application/json;as=APIGroupDiscoveryList;v=v2;g=apidiscovery.k8s.io", true),
        ("application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json", false),
        ("application/json", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(text));
        assert_eq!(wants_aggregated(&headers), expected, "{text}");
    }
}
