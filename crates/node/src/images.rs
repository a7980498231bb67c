//! Pull policies and registry logins.
//!
//! Guarantees upstream's defaults (`Always` for `:latest` and no tag, else `IfNotPresent`) and the
//! matching of `kubernetes.io/dockerconfigjson` Secrets by registry host. Pure.

use k8s_openapi::api::core::v1::{Container, Secret};
use runtime::{Credentials, PullPolicy, image};
use serde::Deserialize;

/// When to fetch the image of `container`.
pub fn policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ => {
            let latest = container
                .image
                .as_deref()
                .and_then(image::full_name)
                .is_some_and(|name| name.ends_with(":latest") && !name.contains('@'));
            if latest { PullPolicy::Always } else { PullPolicy::IfNotPresent }
        }
    }
}

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: std::collections::BTreeMap<String, Auth>,
}

#[derive(Deserialize)]
struct Auth {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default, rename = "identitytoken")]
    identity_token: String,
    #[serde(default, rename = "registrytoken")]
    registry_token: String,
}

/// The login for `image` in the first of `secrets` that has one for its registry. Secrets that are
/// no Docker configuration are passed over; pulling then fails with the registry's own words.
pub fn credentials<'a>(image: &str, secrets: impl IntoIterator<Item = &'a Secret>) -> Option<Credentials> {
    let full = image::full_name(image)?;
    secrets.into_iter().find_map(|secret| {
        let data = secret.data.as_ref()?;
        let config: DockerConfig = if let Some(json) = data.get(".dockerconfigjson") {
            serde_json::from_slice(&json.0).ok()?
        } else {
            DockerConfig { auths: serde_json::from_slice(&data.get(".dockercfg")?.0).ok()? }
        };
        let (_, auth) = config.auths.into_iter().find(|(server, _)| is_for(server, &full))?;
        let Auth { username, password, auth, identity_token, registry_token } = auth;
        // As upstream's kubelet: containerd takes a server only as a URL of the host that it asks, which of docker.io is
        // none that any configuration names.
        let server_address = String::new();
        Some(Credentials { username, password, auth, server_address, identity_token, registry_token })
    })
}

/// `https://index.docker.io/v1/`, `registry.example.com`, `registry.example.com/team`.
fn is_for(server: &str, full: &str) -> bool {
    let server = server.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let server = server.trim_end_matches("/v1").trim_end_matches("/v2");
    let server = match server {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        other => other,
    };
    full.strip_prefix(server).is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn policies() {
        for (image, given, expected) in [
            ("a", None, PullPolicy::Always),
            ("a:latest", None, PullPolicy::Always),
            ("a:1", None, PullPolicy::IfNotPresent),
            ("a:latest", Some("Never"), PullPolicy::Never),
            ("a:1", Some("Always"), PullPolicy::Always),
        ] {
            let container = Container {
                image: Some(image.into()),
                image_pull_policy: given.map(str::to_owned),
                ..Container::default()
            };
            assert_eq!(policy(&container), expected, "{image} {given:?}");
        }
    }

    #[test]
    fn logins_by_registry() {
        let config = json!({ "auths": { "https://index.docker.io/v1/": { "auth": "hub" },
            "r.example.com/team": { "username": "u", "password": "p" } } })
        .to_string();
        let secret: Secret = serde_json::from_value(json!({ "stringData": {} })).unwrap();
        let data = [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.into_bytes()))].into();
        let secret = Secret { data: Some(data), ..secret };
        for (image, expected) in [
            ("postgres:15", Some("hub")),
            ("r.example.com/team/x", Some("u")),
            ("r.example.com/other/x", None),
            ("other.example.com/x", None),
        ] {
            let got =
                credentials(image, [&secret]).map(|c| if c.auth.is_empty() { c.username } else { c.auth });
            assert_eq!(got.as_deref(), expected, "{image}");
        }
    }
}
