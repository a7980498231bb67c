//! Volumes of a pod.

use std::collections::BTreeSet;

use meta::names;

use super::{At, Errors, descending_path, no_backsteps};

const MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";

/// Checks each volume and gives the names of all, for mounts to refer to.
pub(super) fn volumes<'a>(at: &At<'a>, errors: &mut Errors) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for volume in at.items() {
        source(&volume, errors);
        let name = volume.get("name");
        name.must(errors, names::dns1123_label);
        if !name.is_empty() && !found.insert(name.text()) {
            name.duplicate(errors);
        }
    }
    found
}

fn source(volume: &At<'_>, errors: &mut Errors) {
    let kinds: Vec<&str> = volume
        .value()
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| &**k)
        .filter(|k| *k != "name")
        .collect();
    let Some((first, others)) = kinds.split_first() else {
        volume.required(errors, "must specify a volume type");
        return;
    };
    for other in others {
        volume.get(other).forbidden(errors, "may not specify more than 1 volume type");
    }
    let of = volume.get(first);
    match *first {
        "hostPath" => {
            let path = of.get("path");
            if path.is_empty() { path.required(errors, "") } else { no_backsteps(&path, errors) }
        }
        "secret" => keys(&of, "secretName", errors),
        "configMap" => keys(&of, "name", errors),
        "persistentVolumeClaim" => of.get("claimName").must(errors, |_| Vec::new()),
        "projected" => projected(&of, errors),
        "downwardAPI" => {
            mode(&of.get("defaultMode"), errors);
            for item in of.get("items").items() {
                downward_file(&item, errors);
            }
        }
        "nfs" => {
            of.get("server").must(errors, |_| Vec::new());
            let path = of.get("path");
            path.must(errors, |_| Vec::new());
            if !path.is_empty() && !path.text().starts_with('/') {
                path.invalid(errors, "must be an absolute path");
            }
        }
        "csi" => of.get("driver").must(errors, |_| Vec::new()),
        "ephemeral" => {
            let template = of.get("volumeClaimTemplate");
            if !template.is_set() {
                template.required(errors, "");
            }
        }
        _ => {}
    }
}

/// A Secret or ConfigMap volume.
fn keys(of: &At<'_>, name: &str, errors: &mut Errors) {
    of.get(name).must(errors, |_| Vec::new());
    mode(&of.get("defaultMode"), errors);
    for item in of.get("items").items() {
        key_to_path(&item, errors);
    }
}

fn key_to_path(item: &At<'_>, errors: &mut Errors) {
    item.get("key").must(errors, |_| Vec::new());
    let path = item.get("path");
    path.must(errors, |_| Vec::new());
    local_path(&path, errors);
    mode(&item.get("mode"), errors);
}

/// Relative, without `..` and without a first part that begins with `..`
/// (`ValidateLocalNonReservedPath`).
fn local_path(path: &At<'_>, errors: &mut Errors) {
    descending_path(path, errors);
    if path.text().starts_with("..") && !path.text().split('/').any(|part| part == "..") {
        path.invalid(errors, "must not start with '..'");
    }
}

fn mode(at: &At<'_>, errors: &mut Errors) {
    if at.int().is_some_and(|mode| !(0..=0o777).contains(&mode)) {
        at.invalid(errors, MODE);
    }
}

fn downward_file(item: &At<'_>, errors: &mut Errors) {
    let path = item.get("path");
    path.must(errors, |_| Vec::new());
    local_path(&path, errors);
    let (field, resource) = (item.get("fieldRef"), item.get("resourceFieldRef"));
    if field.is_set() && resource.is_set() {
        item.invalid(errors, "fieldRef and resourceFieldRef can not be specified simultaneously");
    } else if !field.is_set() && !resource.is_set() {
        item.required(errors, "one of fieldRef and resourceFieldRef is required");
    }
    mode(&item.get("mode"), errors);
}

fn projected(of: &At<'_>, errors: &mut Errors) {
    mode(&of.get("defaultMode"), errors);
    for source in of.get("sources").items() {
        if source.len() > 1 {
            source.forbidden(errors, "may not specify more than 1 volume type per source");
        }
        for kind in ["secret", "configMap"] {
            let at = source.get(kind);
            if at.is_set() {
                at.get("name").must(errors, |_| Vec::new());
                for item in at.get("items").items() {
                    key_to_path(&item, errors);
                }
            }
        }
        for item in source.at(&["downwardAPI", "items"]).items() {
            downward_file(&item, errors);
        }
        let token = source.get("serviceAccountToken");
        if token.is_set() {
            let seconds = token.get("expirationSeconds");
            if seconds.int().is_some_and(|s| s < 600) {
                seconds.invalid(errors, "may not specify a duration less than 10 minutes");
            } else if seconds.int().is_some_and(|s| s > 1 << 32) {
                seconds.invalid(errors, "may not specify a duration larger than 2^32 seconds");
            }
            let path = token.get("path");
            path.must(errors, |_| Vec::new());
            local_path(&path, errors);
        }
    }
}
