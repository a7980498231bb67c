//! The server that a kubeconfig's current context names, and how to speak to it.
//!
//! Own, because the client crate's type is of another crate's secrets and resolves exec plugins; what is used of such
//! a file here is a dozen fields. What would need more than a connection is refused, never passed over.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;

use super::{Authorization, Endpoint};
use crate::pki::Pair;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    contexts: Vec<Named<Context>>,
    #[serde(default)]
    clusters: Vec<Named<Cluster>>,
    #[serde(default)]
    users: Vec<Named<User>>,
}

#[derive(Deserialize)]
struct Named<T> {
    name: String,
    #[serde(alias = "context", alias = "cluster", alias = "user")]
    is: T,
}

#[derive(Deserialize)]
struct Context {
    #[serde(default)]
    cluster: String,
    #[serde(default)]
    user: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    #[serde(default)]
    server: String,
    certificate_authority: Option<String>,
    certificate_authority_data: Option<String>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<String>,
    client_certificate_data: Option<String>,
    client_key: Option<String>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "as")]
    acts_as: Option<String>,
    exec: Option<serde_json::Value>,
    auth_provider: Option<serde_json::Value>,
}

impl Endpoint {
    /// Reads the text of a kubeconfig; files that it names are beside it in `directory`. Errors never show a secret.
    pub fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        // By way of a tree, so that the parser's error cannot quote the line with a secret.
        let tree: serde_json::Value =
            serde_saphyr::from_str(text).map_err(|_| "the file is not valid YAML".to_owned())?;
        let file: File = serde_json::from_value(tree).map_err(|error| error.to_string())?;
        let File { current_context, contexts, clusters, users } = file;
        if current_context.is_empty() {
            return Err("invalid configuration: no configuration has been provided".to_owned());
        }
        let context = of(contexts, &current_context)
            .ok_or_else(|| format!("context {current_context:?} does not exist"))?;
        let cluster = of(clusters, &context.cluster)
            .ok_or_else(|| format!("cluster {:?} does not exist", context.cluster))?;
        let user = match context.user.as_str() {
            "" => User::default(),
            name => of(users, name).ok_or_else(|| format!("auth info {name:?} does not exist"))?,
        };
        let refused = [
            ("proxy-url", cluster.proxy_url.is_some()),
            ("exec", user.exec.is_some()),
            ("auth-provider", user.auth_provider.is_some()),
            ("as", user.acts_as.is_some()),
        ];
        if let Some((key, _)) = refused.iter().find(|(_, given)| *given) {
            return Err(format!(
                "{key} is not supported here: use a client certificate, a token or a password"
            ));
        }
        if !cluster.server.starts_with("https://") {
            return Err(format!("server {:?}: want a URL that begins with https://", cluster.server));
        }
        let ca = (cluster.certificate_authority, cluster.certificate_authority_data);
        Ok(Self {
            url: cluster.server,
            ca_pem: pem("certificate-authority", ca, directory)?.unwrap_or_default(),
            server_name: cluster.tls_server_name.filter(|name| !name.is_empty()),
            insecure: cluster.insecure_skip_tls_verify,
            authorization: authorization(&user, directory),
            login: login(user, directory)?,
        })
    }
}

fn of<T>(list: Vec<Named<T>>, name: &str) -> Option<T> {
    list.into_iter().find(|named| named.name == name).map(|named| named.is)
}

fn login(user: User, directory: &Path) -> Result<Option<Pair>, String> {
    let certificate = (user.client_certificate, user.client_certificate_data);
    let key = (user.client_key, user.client_key_data);
    match (pem("client-certificate", certificate, directory)?, pem("client-key", key, directory)?) {
        (Some(cert_pem), Some(key_pem)) => Ok(Some(Pair { cert_pem, key_pem })),
        (None, None) => Ok(None),
        _ => Err("client-certificate and client-key need each other".to_owned()),
    }
}

/// A token before a token file before a password, as upstream's client.
fn authorization(user: &User, directory: &Path) -> Authorization {
    if let Some(token) = user.token.as_deref().filter(|token| !token.is_empty()) {
        return Authorization::Fixed(format!("Bearer {token}"));
    }
    if let Some(file) = user.token_file.as_deref().filter(|file| !file.is_empty()) {
        return Authorization::TokenFile(directory.join(file));
    }
    match user.username.as_deref().filter(|name| !name.is_empty()) {
        None => Authorization::None,
        Some(name) => {
            let password = user.password.as_deref().unwrap_or_default();
            Authorization::Fixed(format!("Basic {}", STANDARD.encode(format!("{name}:{password}"))))
        }
    }
}

/// What is given in place, or in a file beside the kubeconfig; the former counts.
fn pem(
    key: &str,
    (file, data): (Option<String>, Option<String>),
    directory: &Path,
) -> Result<Option<String>, String> {
    if let Some(data) = data.filter(|data| !data.is_empty()) {
        let bytes = STANDARD.decode(data.trim()).map_err(|_| format!("{key}-data is not base64"))?;
        return String::from_utf8(bytes).map(Some).map_err(|_| format!("{key}-data is not PEM"));
    }
    let Some(file) = file.filter(|file| !file.is_empty()) else { return Ok(None) };
    let path = directory.join(file);
    let text = std::fs::read_to_string(&path);
    text.map(Some).map_err(|error| format!("unable to read {key} {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cluster: &str, user: &str, expected: Result<Endpoint, &str>) {
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts:\n- name: c\n  context: {{cluster: k, user: u}}\n\
             clusters:\n- name: k\n  cluster: {{{cluster}}}\nusers:\n- name: u\n  user: {{{user}}}\n"
        );
        let seen = Endpoint::parse(&text, Path::new("/nowhere"));
        assert_eq!(seen, expected.map_err(str::to_owned), "{text}");
    }

    #[test]
    fn kubeconfigs() {
        let base = Endpoint { url: "https://hook.example/authn".to_owned(), ..Endpoint::default() };
        let server = "server: 'https://hook.example/authn'";
        check(server, "", Ok(base.clone()));
        check(
            &format!("{server}, certificate-authority-data: eA==, tls-server-name: other"),
            "token: t, username: ignored",
            Ok(Endpoint {
                ca_pem: "x".to_owned(),
                server_name: Some("other".to_owned()),
                authorization: Authorization::Fixed("Bearer t".to_owned()),
                ..base.clone()
            }),
        );
        check(
            &format!("{server}, insecure-skip-tls-verify: true"),
            "username: ann, password: x, client-certificate-data: eA==, client-key-data: eQ==",
            Ok(Endpoint {
                insecure: true,
                login: Some(Pair { cert_pem: "x".to_owned(), key_pem: "y".to_owned() }),
                authorization: Authorization::Fixed("Basic YW5uOng=".to_owned()),
                ..base.clone()
            }),
        );
        let token_file = Authorization::TokenFile("/nowhere/t".into());
        check(server, "tokenFile: t", Ok(Endpoint { authorization: token_file, ..base }));
        check("server: 'http://x'", "", Err("server \"http://x\": want a URL that begins with https://"));
        check(server, "client-key-data: eQ==", Err("client-certificate and client-key need each other"));
        check(server, "client-key-data: '!'", Err("client-key-data is not base64"));
        let exec = "exec is not supported here: use a client certificate, a token or a password";
        check(server, "exec: {command: x}", Err(exec));
        let none = "invalid configuration: no configuration has been provided";
        assert_eq!(Endpoint::parse("{}", Path::new("/")), Err(none.to_owned()));
        let gone = Endpoint::parse("{current-context: x}", Path::new("/"));
        assert_eq!(gone, Err("context \"x\" does not exist".to_owned()));
        let secret = Endpoint::parse("users: [{name: u, user: {token: s3cret", Path::new("/")).unwrap_err();
        assert!(!secret.contains("s3cret"), "{secret}");
    }
}
