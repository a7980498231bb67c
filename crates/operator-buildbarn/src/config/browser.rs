//! `browser.jsonnet`.

use serde_json::{Value, json};

use super::{
    File, Place,
    pieces::{DIAGNOSTICS_PORT, allow, blobstore, global, put, servers, store},
};
use crate::{model::Program, types::BuildbarnBrowserSpec};

/// `stores` says which of `iscc` and `fsac` the storage has.
pub(crate) fn browser(
    spec: &BuildbarnBrowserSpec,
    place: &Place<'_>,
    message_bytes: i64,
    stores: impl Fn(&str) -> bool,
) -> File {
    let auth = spec.auth.clone().unwrap_or_default();
    let links = spec.request_metadata_links.clone().unwrap_or_else(|| "`{}`".to_owned());
    let mut content = json!({
        "blobstore": blobstore(place),
        "maximumMessageSizeBytes": message_bytes.to_string(),
        "httpServers": servers(7984, auth.authentication.as_ref()),
        "global": global(&spec.common, DIAGNOSTICS_PORT),
        "authorizer": auth.authorizer.unwrap_or_else(allow),
        "requestMetadataLinksJmespathExpression": {"expression": links},
    });
    for (name, field) in [("iscc", "initialSizeClassCache"), ("fsac", "fileSystemAccessCache")] {
        put(&mut content, field, stores(name).then(|| store(place)));
    }
    put(&mut content, "routePrefix", spec.route_prefix.clone().map(Value::from));
    put(
        &mut content,
        "bbClientdInstanceNamePrefix",
        spec.bb_clientd_instance_name_prefix.clone().map(Value::from),
    );
    File { name: "browser.jsonnet".to_owned(), program: Program::Browser, overlay_key: "", content }
}
