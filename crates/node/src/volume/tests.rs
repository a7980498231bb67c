use std::fmt::Write as _;

use serde_json::json;

use super::*;

fn inputs() -> Inputs {
    let mut inputs = Inputs::default();
    inputs.place.pod_ips.push("10.0.0.7".into());
    let map = json!({ "data": { "a": "1", "b": "22" } });
    inputs.sources.config_maps.insert("cm".into(), Some(serde_json::from_value(map).unwrap()));
    let secret = json!({ "data": { "key": "aHVudGVyMg==" } });
    inputs.sources.secrets.insert("s".into(), Some(serde_json::from_value(secret).unwrap()));
    let claim = |phase: &str, volume: &str| {
        serde_json::from_value(json!({ "metadata": { "uid": "cu" }, "spec": { "volumeName": volume }, "status": { "phase": phase } }))
            .unwrap()
    };
    let volume = |source: serde_json::Value, name: &str| {
        let mut spec = source;
        spec["claimRef"] = json!({ "namespace": "ns", "name": name, "uid": "cu" });
        serde_json::from_value(json!({ "spec": spec })).unwrap()
    };
    for (name, bound, source) in [
        ("local", "pv", Some(json!({ "local": { "path": "/disk" } }))),
        ("host", "pv", Some(json!({ "hostPath": { "path": "/data/x", "type": "DirectoryOrCreate" } }))),
        ("nfs", "pv", Some(json!({ "nfs": { "path": "/", "server": "x" } }))),
        ("block", "pv", Some(json!({ "local": { "path": "/disk" }, "volumeMode": "Block" }))),
        ("pending", "", None),
        ("lost", "pv", None),
    ] {
        let volume = source.map(|source| volume(source, name));
        inputs.claims.insert(name.into(), Claim { claim: Some(claim("Bound", bound)), volume });
    }
    inputs
}

fn check(volume: serde_json::Value, context: serde_json::Value) -> String {
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "ns", "uid": "u", "labels": { "l": "v" } },
        "spec": { "containers": [{ "name": "c" }], "securityContext": context, "volumes": [volume] }
    }))
    .unwrap();
    let mut inputs = inputs();
    for token in tokens(&pod) {
        inputs.tokens.insert(token, "jwt".into());
    }
    match plan(&pod, &inputs) {
        Err(error) => error.to_string(),
        Ok(plans) => match &plans[0].kind {
            Kind::Files(files) => {
                let mut text = String::new();
                for (path, file) in files {
                    let data = String::from_utf8_lossy(&file.data);
                    write!(
                        text,
                        "{path}={data} {:o}{};",
                        file.mode,
                        file.uid.map_or(String::new(), |u| format!(" u{u}"))
                    )
                    .unwrap();
                }
                text
            }
            other => format!("{other:?}"),
        },
    }
}

#[test]
fn kinds() {
    let plain = || json!({});
    for (volume, context, expected) in [
        (json!({ "name": "v", "emptyDir": {} }), plain(), "Empty { memory: false, size_limit_bytes: 0 }"),
        (
            json!({ "name": "v", "emptyDir": { "medium": "Memory", "sizeLimit": "64Ki" } }),
            plain(),
            "Empty { memory: true, size_limit_bytes: 65536 }",
        ),
        (
            json!({ "name": "v", "emptyDir": { "medium": "HugePages" } }),
            plain(),
            "volume \"v\": an emptyDir with this medium is not supported by this node",
        ),
        (
            json!({ "name": "v", "hostPath": { "path": "/x", "type": "File" } }),
            plain(),
            "HostPath { path: \"/x\", kind: \"File\" }",
        ),
        (json!({ "name": "v", "configMap": { "name": "cm" } }), plain(), "a=1 644;b=22 644;"),
        (
            json!({ "name": "v", "configMap": { "name": "cm", "defaultMode": 256, "items": [
            { "key": "a", "path": "d/e" }, { "key": "b", "path": "f", "mode": 511 }] } }),
            plain(),
            "d/e=1 400;f=22 777;",
        ),
        (
            json!({ "name": "v", "configMap": { "name": "cm", "items": [{ "key": "z", "path": "z" }] } }),
            plain(),
            "MountVolume.SetUp failed for volume \"v\": references non-existent config key: z",
        ),
        (
            json!({ "name": "v", "configMap": { "name": "cm", "optional": true, "items": [{ "key": "z", "path": "z" }] } }),
            plain(),
            "",
        ),
        (
            json!({ "name": "v", "configMap": { "name": "cm", "items": [{ "key": "a", "path": "../z" }] } }),
            plain(),
            "volume \"v\": path \"../z\" must be relative and must not contain \"..\"",
        ),
        (json!({ "name": "v", "secret": { "secretName": "s" } }), plain(), "key=hunter2 644;"),
        (
            json!({ "name": "v", "secret": { "secretName": "no" } }),
            plain(),
            "MountVolume.SetUp failed for volume \"v\": secret \"no\" not found",
        ),
        (json!({ "name": "v", "secret": { "secretName": "no", "optional": true } }), plain(), ""),
        (
            json!({ "name": "v", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
            { "path": "ip", "fieldRef": { "fieldPath": "status.podIP" } }] } }),
            plain(),
            "ip=10.0.0.7 644;labels=l=\"v\" 644;",
        ),
        (
            json!({ "name": "v", "projected": { "sources": [
            { "serviceAccountToken": { "path": "token" } }, { "configMap": { "name": "cm" } }] } }),
            plain(),
            "a=1 644;b=22 644;token=jwt 644;",
        ),
        (
            json!({ "name": "v", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }),
            json!({ "runAsUser": 70, "fsGroup": 70 }),
            "token=jwt 600 u70;",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "local" } }),
            plain(),
            "Persistent { path: \"/disk\", create: false }",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "host" } }),
            plain(),
            "Persistent { path: \"/data/x\", create: true }",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "none" } }),
            plain(),
            "persistentvolumeclaim \"none\" not found",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "pending" } }),
            plain(),
            "persistentvolumeclaim \"pending\" is not bound to a volume yet (phase Bound)",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "lost" } }),
            plain(),
            "persistentvolume \"pv\" of persistentvolumeclaim \"lost\" not found",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "nfs" } }),
            plain(),
            "volume \"v\": a claim on this kind of PersistentVolume is not supported by this node",
        ),
        (
            json!({ "name": "v", "persistentVolumeClaim": { "claimName": "block" } }),
            plain(),
            "volume \"v\": a block volume is not supported by this node",
        ),
        (
            json!({ "name": "v", "csi": { "driver": "x" } }),
            plain(),
            "volume \"v\": a CSI volume is not supported by this node",
        ),
    ] {
        assert_eq!(check(volume.clone(), context), expected, "{volume}");
    }
}

#[test]
fn mounts_are_ordered_and_safe() {
    let check = |mounts_json: serde_json::Value| {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "ns", "uid": "u" },
            "spec": { "containers": [{ "name": "c", "volumeMounts": mounts_json }],
                      "volumes": [{ "name": "v", "emptyDir": {} }] }
        }))
        .unwrap();
        let env = [("POD".to_owned(), "p-0".to_owned())].into();
        let volumes = [("v".to_owned(), PathBuf::from("/volumes/v"))].into();
        match mounts(&pod, &pod.spec.as_ref().unwrap().containers[0], &env, &volumes) {
            Ok(list) => list
                .iter()
                .map(|m| format!("{}<-{}", m.container_path, m.sub_path))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => error.to_string(),
        }
    };
    for (mounts, expected) in [
        (json!([{ "name": "v", "mountPath": "/a/b" }, { "name": "v", "mountPath": "/a" }]), "/a<- /a/b<-"),
        (json!([{ "name": "v", "mountPath": "/a", "subPathExpr": "x/$(POD)" }]), "/a<-x/p-0"),
        (
            json!([{ "name": "v", "mountPath": "/a", "subPath": "../x" }]),
            "volume \"v\": path \"../x\" must be relative and must not contain \"..\"",
        ),
        (json!([{ "name": "w", "mountPath": "/a" }]), "volume \"w\" of pod p_ns(u) is not mounted"),
    ] {
        assert_eq!(check(mounts.clone()), expected, "{mounts}");
    }
}
