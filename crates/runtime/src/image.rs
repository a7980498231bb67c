//! Images: names as Docker and the kubelet normalise them, what a runtime knows of one.

use std::fmt;

/// When to fetch an image (`imagePullPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry every time. A runtime that has no registry takes what is on the machine.
    Always,
    /// Fetch it only when it is not on the machine.
    #[default]
    IfNotPresent,
    /// Never fetch it.
    Never,
}

/// How to log in to a registry. `Debug` hides the secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password.
    pub password: String,
    /// `user:password` in base64, instead of the two.
    pub auth: String,
    /// Registry address.
    pub server_address: String,
    /// Token to exchange for an access token.
    pub identity_token: String,
    /// Bearer token.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("username", &self.username)
            .field("server_address", &self.server_address)
            .finish_non_exhaustive()
    }
}

/// An image on this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `sha256:...` of its configuration.
    pub id: String,
    /// Names, such as `docker.io/library/postgres:15`.
    pub repo_tags: Vec<String>,
    /// `docker.io/library/postgres@sha256:...`.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Numeric user it runs as by default; for `runAsNonRoot`.
    pub uid: Option<i64>,
    /// Named user it runs as by default, when not numeric.
    pub username: String,
    /// Whether the runtime itself needs it (the pause image); garbage collection must spare it.
    pub pinned: bool,
}

/// The full name of an image reference, as Docker and the kubelet complete it: registry `docker.io`,
/// repository `library/`, tag `latest`. `None` when it cannot be one (distribution `reference`).
pub fn full_name(image: &str) -> Option<String> {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    let (host, path) = match repository.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", repository.to_owned()),
        None => ("docker.io", format!("library/{repository}")),
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let tag_ok = tag.is_none_or(is_tag);
    let digest_ok = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.bytes().all(|b| b.is_ascii_hexdigit())
        })
    });
    if !tag_ok || !digest_ok || !is_host(host) || !path.split('/').all(is_component) {
        return None;
    }
    Some(match (tag, digest) {
        (_, Some(digest)) => format!("{host}/{path}@{digest}"),
        (Some(tag), None) => format!("{host}/{path}:{tag}"),
        (None, None) => format!("{host}/{path}:latest"),
    })
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= 128
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

fn is_host(host: &str) -> bool {
    !host.is_empty()
        && host.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
}

fn is_component(component: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(component.chars().next())
        && edge(component.chars().last())
        && component
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_full_name_is_its_own_full_name(name in "[a-z0-9A-Z./:@_-]{0,40}|[a-z]{1,8}(/[a-z]{1,8}){0,3}(:[a-z0-9]{1,5})?") {
            if let Some(full) = full_name(&name) {
                prop_assert_eq!(full_name(&full), Some(full), "{}", name);
            }
        }
    }

    #[test]
    fn names_are_completed_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, full) in [
            ("postgres", Some("docker.io/library/postgres:latest")),
            ("postgres:15", Some("docker.io/library/postgres:15")),
            ("bitnami/redis:7", Some("docker.io/bitnami/redis:7")),
            ("localhost/x", Some("localhost/x:latest")),
            ("localhost:5000/a/b:c", Some("localhost:5000/a/b:c")),
            ("registry.k8s.io/pause:3.9", Some("registry.k8s.io/pause:3.9")),
            ("index.docker.io/library/x", Some("docker.io/library/x:latest")),
            ("Postgres", None),
            ("a//b", None),
            ("a:", None),
            ("", None),
            ("a b", None),
            ("a@sha256:12", None),
        ] {
            assert_eq!(full_name(given).as_deref(), full, "{given}");
        }
        assert_eq!(full_name(&format!("x:1@{digest}")), Some(format!("docker.io/library/x@{digest}")));
    }

    #[test]
    fn debug_hides_secrets() {
        let credentials = Credentials { password: "hunter2".into(), ..Credentials::default() };
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}
