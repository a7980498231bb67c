//! The head of upstream's configuration files: group `apiserver.config.k8s.io`, in any version that it is known in.

use serde::de::DeserializeOwned;
use serde_json::Value;

/// Whether a file that says this of itself is of the kind `want`.
pub(crate) fn is(want: &str, kind: &str, api_version: &str) -> bool {
    let version = api_version.strip_prefix("apiserver.config.k8s.io/");
    kind == want && matches!(version, Some("v1" | "v1beta1" | "v1alpha1"))
}

/// What a file of the kind `want` has beside its head; errors in upstream's words.
pub(crate) fn read<T: DeserializeOwned>(want: &str, text: &str) -> Result<T, String> {
    let mut tree: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let mut head = |name: &str| match tree.as_object_mut().and_then(|members| members.remove(name)) {
        Some(Value::String(text)) => text,
        _ => String::new(),
    };
    let (api_version, kind) = (head("apiVersion"), head("kind"));
    if !is(want, &kind, &api_version) {
        return Err(format!(
            "no kind {kind:?} is registered for version {api_version:?}: want {want} of apiserver.config.k8s.io/v1 or \
             v1beta1"
        ));
    }
    serde_json::from_value(tree).map_err(|error| format!("strict decoding error: {error}"))
}
