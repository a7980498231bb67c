//! `frontend.jsonnet`: what clients talk to.

use serde_json::{Map, Value, json};

use super::{
    File, Place,
    pieces::{DIAGNOSTICS_PORT, action_cache, allow, global, put, seconds, servers, store},
};
use crate::{
    model::Program,
    types::{AcUploads, BuildbarnFrontendSpec},
};

/// Hands on who asks and for what: without it the scheduler cannot be fair and links lead nowhere.
const METADATA: &str = "{\"build.bazel.remote.execution.v2.requestmetadata-bin\": \
    incomingGRPCMetadata.\"build.bazel.remote.execution.v2.requestmetadata-bin\"}";
/// How often a certificate is read anew.
const TLS_REFRESH: &str = "300s";

/// A scheduler by instance name prefix: its address, and what is put before the rest of the name.
pub(crate) type Routes = Vec<(String, String, String)>;

/// `stores` says which of `iscc` and `fsac` the storage has.
pub(crate) fn frontend(
    spec: &BuildbarnFrontendSpec,
    place: &Place<'_>,
    routes: &Routes,
    stores: impl Fn(&str) -> bool,
) -> File {
    let auth = spec.auth.clone().unwrap_or_default();
    let deny = || json!({"deny": {}});
    let uploads =
        spec.ac_uploads.unwrap_or(if routes.is_empty() { AcUploads::Allow } else { AcUploads::Deny });
    let ac_put = match uploads {
        AcUploads::Allow => allow(),
        AcUploads::Deny => deny(),
    };
    let (cas, ac) = (auth.cas.unwrap_or_default(), auth.ac.unwrap_or_default());
    let mut cas_backend = store(place);
    if let Some(cache) = spec.existence_cache {
        cas_backend = json!({"existenceCaching": {"backend": cas_backend, "existenceCache": {
            "cacheSize": cache.size.to_string(), "cacheDuration": seconds(cache.duration_seconds),
            "cacheReplacementPolicy": "LEAST_RECENTLY_USED",
        }}});
    }
    let mut content = json!({
        "grpcServers": grpc_servers(spec, auth.authentication.as_ref()),
        "maximumMessageSizeBytes": spec.maximum_message_size_bytes.unwrap_or(2 << 20).to_string(),
        "global": global(&spec.common, DIAGNOSTICS_PORT),
        "contentAddressableStorage": {
            "backend": cas_backend, "getAuthorizer": cas.get.unwrap_or_else(allow),
            "putAuthorizer": cas.put.unwrap_or_else(allow),
            "findMissingAuthorizer": cas.find_missing.unwrap_or_else(allow),
        },
        "actionCache": {
            "backend": action_cache(place), "getAuthorizer": ac.get.unwrap_or_else(allow),
            "putAuthorizer": ac.put.unwrap_or(ac_put),
        },
    });
    for (name, field) in [("iscc", "initialSizeClassCache"), ("fsac", "fileSystemAccessCache")] {
        let read_only =
            || json!({"backend": store(place), "getAuthorizer": allow(), "putAuthorizer": deny()});
        put(&mut content, field, stores(name).then(read_only));
    }
    if !routes.is_empty() {
        put(&mut content, "schedulers", Some(schedulers(routes)));
        put(&mut content, "executeAuthorizer", Some(auth.execute.unwrap_or_else(allow)));
    }
    File { name: "frontend.jsonnet".to_owned(), program: Program::Storage, overlay_key: "", content }
}

fn schedulers(routes: &Routes) -> Value {
    let map: Map<String, Value> = routes
        .iter()
        .map(|(prefix, address, add)| {
            let mut scheduler = json!({"endpoint": {
                "address": address, "addMetadataJmespathExpression": {"expression": METADATA},
            }});
            put(&mut scheduler, "addInstanceNamePrefix", (!add.is_empty()).then(|| add.as_str().into()));
            (prefix.clone(), scheduler)
        })
        .collect();
    map.into()
}

fn grpc_servers(spec: &BuildbarnFrontendSpec, authentication: Option<&Value>) -> Value {
    let mut list = servers(8980, authentication);
    if let Some(server) = list.get_mut(0) {
        let files = json!({
            "certificatePath": "/tls/tls.crt", "privateKeyPath": "/tls/tls.key", "refreshInterval": TLS_REFRESH,
        });
        put(server, "tls", spec.tls.as_ref().map(|_| json!({"serverKeyPair": {"files": files}})));
        let keepalive = spec.keepalive.map(|keepalive| {
            json!({
                "maxConnectionIdle": "900s", "maxConnectionAge": seconds(keepalive.max_connection_age_seconds),
                // Running streams are let end: an action may be waited for as long as it takes.
                "maxConnectionAgeGrace": "86400s", "time": "300s", "timeout": "20s",
            })
        });
        put(server, "keepaliveParameters", keepalive);
    }
    list
}
