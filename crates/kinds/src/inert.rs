//! Kinds that are served and stored while nothing acts on them yet. Whoever creates such an object is told so
//! in a `Warning`; a kind leaves [`INERT`] with the commit that makes something act on it.

use resource::Resource;

/// Group, plural, and what does not happen.
const INERT: &[(&str, &str, &str)] = &[
    ("networking.k8s.io", "ingresses", "no traffic is routed"),
    ("networking.k8s.io", "networkpolicies", "no traffic is filtered"),
    ("resource.k8s.io", "deviceclasses", "no device is allocated"),
    ("resource.k8s.io", "resourceclaims", "no device is allocated, and pods that use it are refused"),
    ("resource.k8s.io", "resourceclaimtemplates", "no claim is made from it"),
    ("resource.k8s.io", "resourceslices", "no device is allocated"),
    ("storage.k8s.io", "volumeattachments", "no volume is attached"),
];

/// The warning on creating an object of an inert kind.
pub(crate) fn notice(kind: &Resource) -> Option<String> {
    let what = INERT.iter().find(|(group, plural, _)| *group == &*kind.group && *plural == &*kind.plural)?.2;
    Some(format!("nothing in this release of Keelson acts on a {}: it is stored, but {what}", kind.kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that is misspelt here, or a kind that is no longer served, would silence a warning.
    #[test]
    fn every_inert_kind_is_served() {
        let served = crate::all(&crate::Options::default(), &crate::Acts::default());
        for (group, plural, _) in INERT {
            let found = served.iter().find(|kind| *kind.group == **group && *kind.plural == **plural);
            assert!(found.is_some_and(|kind| !kind.verbs.is_empty()), "{group} {plural}");
        }
    }

    #[test]
    fn creating_an_inert_kind_warns_and_changing_it_does_not() {
        let served = crate::all(&crate::Options::default(), &crate::Acts::default());
        let kind = |plural: &str| served.iter().find(|kind| *kind.plural == *plural).unwrap();
        let object =
            crate::testing::object(serde_json::json!({"metadata": {"name": "x", "namespace": "ns"}}));
        let ingresses = &kind("ingresses").strategy;
        assert_eq!(
            ingresses.warnings(&object, None),
            ["nothing in this release of Keelson acts on a Ingress: it is stored, but no traffic is routed"]
        );
        assert!(ingresses.warnings(&object, Some(&object)).is_empty());
        assert!(kind("configmaps").strategy.warnings(&object, None).is_empty());
    }
}
