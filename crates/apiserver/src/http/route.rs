//! From a path to what it names. No allocation unless a name is percent-encoded.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

/// What a path names (upstream `RequestInfoFactory`).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// Objects.
    Resource(Named<'a>),
    /// Everything else.
    Path(&'a str),
}

/// One object, or all of a kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Named<'a> {
    /// Group; empty for core.
    pub(crate) group: &'a str,
    /// Version.
    pub(crate) version: &'a str,
    /// Namespace; empty for cluster scope and for all namespaces.
    pub(crate) namespace: Cow<'a, str>,
    /// Plural.
    pub(crate) plural: &'a str,
    /// Name; empty for all.
    pub(crate) name: Cow<'a, str>,
    /// Subresource; mostly empty.
    pub(crate) subresource: &'a str,
    /// What is behind the subresource, for proxies, leading slash included.
    pub(crate) tail: &'a str,
    /// The old form `/api/v1/watch/...`.
    pub(crate) watch: bool,
}

impl<'a> Route<'a> {
    /// Reads a path.
    pub(crate) fn parse(path: &'a str) -> Self {
        Self::resource(path).map_or(Self::Path(path), Self::Resource)
    }

    fn resource(path: &'a str) -> Option<Named<'a>> {
        let mut rest = path.strip_prefix('/')?;
        let mut named = Named::default();
        match next(&mut rest)? {
            "api" => {}
            "apis" => named.group = next(&mut rest)?,
            _ => return None,
        }
        named.version = next(&mut rest)?;
        let mut plural = next(&mut rest)?;
        if plural == "watch" {
            named.watch = true;
            plural = next(&mut rest)?;
        }
        if plural == "namespaces" {
            let mut ahead = rest;
            if let (Some(namespace), Some(inner)) = (next(&mut ahead), next(&mut ahead)) {
                // A namespace's own subresources are not kinds in it.
                if !matches!(inner, "status" | "finalize") {
                    named.namespace = decode(namespace)?;
                    plural = inner;
                    rest = ahead;
                }
            }
        }
        named.plural = plural;
        if let Some(name) = next(&mut rest) {
            named.name = decode(name)?;
            if let Some(subresource) = next(&mut rest) {
                named.subresource = subresource;
                named.tail = if rest.is_empty() { "" } else { after(path, rest) };
            }
        }
        Some(named)
    }
}

/// The next non-empty segment; `rest` is what follows its slash.
fn next<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let (segment, left) = rest.split_once('/').unwrap_or((rest, ""));
    *rest = left;
    (!segment.is_empty()).then_some(segment)
}

/// `rest` with the slash before it.
fn after<'a>(path: &'a str, rest: &str) -> &'a str {
    path.get(path.len() - rest.len() - 1..).unwrap_or_default()
}

fn decode(segment: &str) -> Option<Cow<'_, str>> {
    if segment.contains('%') {
        percent_decode_str(segment).decode_utf8().ok()
    } else {
        Some(Cow::Borrowed(segment))
    }
}

/// The verb of a request on objects, as authorization names it.
pub(crate) fn verb(method: &Method, named: &Named<'_>, watch: bool) -> Option<&'static str> {
    Some(match *method {
        Method::GET | Method::HEAD if named.watch => "watch",
        Method::GET | Method::HEAD if !named.name.is_empty() => "get",
        Method::GET | Method::HEAD if watch => "watch",
        Method::GET | Method::HEAD => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if named.name.is_empty() => "deletecollection",
        Method::DELETE => "delete",
        // Upstream has no verb for it; who may use all verbs may use none, too.
        Method::OPTIONS if named.subresource == "proxy" => "",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `group version namespace plural name subresource tail`, with `-` for empty ones.
    fn check(path: &str, expected: &str) {
        let shown = match Route::parse(path) {
            Route::Path(path) => format!("path {path}"),
            Route::Resource(n) => {
                let parts = [n.group, n.version, &n.namespace, n.plural, &n.name, n.subresource, n.tail];
                let parts: Vec<_> = parts.iter().map(|p| if p.is_empty() { "-" } else { p }).collect();
                format!("{}{}", if n.watch { "watch " } else { "" }, parts.join(" "))
            }
        };
        assert_eq!(shown, expected, "{path}");
    }

    #[test]
    fn paths_name_objects() {
        check("/api/v1/pods", "- v1 - pods - - -");
        check("/api/v1/namespaces", "- v1 - namespaces - - -");
        check("/api/v1/namespaces/a", "- v1 - namespaces a - -");
        check("/api/v1/namespaces/a/", "- v1 - namespaces a - -");
        check("/api/v1/namespaces/a/status", "- v1 - namespaces a status -");
        check("/api/v1/namespaces/a/finalize", "- v1 - namespaces a finalize -");
        check("/api/v1/namespaces/a/pods", "- v1 a pods - - -");
        check("/api/v1/namespaces/a/pods/b", "- v1 a pods b - -");
        check("/api/v1/namespaces/a/pods/b/log", "- v1 a pods b log -");
        check("/api/v1/namespaces/a/services/b:80/proxy/x/y/", "- v1 a services b:80 proxy /x/y/");
        check("/apis/apps/v1/namespaces/a/deployments/b/scale", "apps v1 a deployments b scale -");
        check("/apis/apps/v1/deployments", "apps v1 - deployments - - -");
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            "rbac.authorization.k8s.io v1 - clusterroles system:node - -",
        );
        check("/api/v1/watch/namespaces/a/pods", "watch - v1 a pods - - -");
        for path in
            ["/", "/api", "/api/v1", "/api/", "/apis/apps", "/apis/apps/v1", "/healthz", "", "/version"]
        {
            check(path, &format!("path {path}"));
        }
    }

    #[test]
    fn methods_are_verbs() {
        let (one, all) = (Named { name: "x".into(), ..Named::default() }, Named::default());
        for (method, named, watch, expected) in [
            (Method::GET, &one, false, Some("get")),
            (Method::GET, &one, true, Some("get")),
            (Method::GET, &all, false, Some("list")),
            (Method::GET, &all, true, Some("watch")),
            (Method::HEAD, &one, false, Some("get")),
            (Method::POST, &all, false, Some("create")),
            (Method::PUT, &one, false, Some("update")),
            (Method::PATCH, &one, false, Some("patch")),
            (Method::DELETE, &one, false, Some("delete")),
            (Method::DELETE, &all, false, Some("deletecollection")),
            (Method::OPTIONS, &all, false, None),
        ] {
            assert_eq!(verb(&method, named, watch), expected, "{method}");
        }
    }
}
