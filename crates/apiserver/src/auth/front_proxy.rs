//! Users that a front proxy vouches for in headers (upstream `request/headerrequest`).
//!
//! Guarantees: the headers are believed only on a connection whose client certificate the proxies' own
//! authority signed, for one of the names that may; everyone else's are ignored.

use http::{HeaderMap, HeaderName};
use percent_encoding::percent_decode_str;
use resource::User;

use super::{AUTHENTICATED, UNAUTHENTICATED};

/// Which headers and whose.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Common names that may vouch; empty for every certificate of the authority.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name, the first that is there counts.
    pub username_headers: Vec<HeaderName>,
    /// Headers with the user's UID.
    pub uid_headers: Vec<HeaderName>,
    /// Headers with the user's groups.
    pub group_headers: Vec<HeaderName>,
    /// Beginnings of headers with extra values, in lower case.
    pub extra_prefixes: Vec<String>,
}

impl FrontProxy {
    /// Upstream's usual headers.
    pub fn standard(allowed_names: Vec<String>) -> Self {
        Self {
            allowed_names,
            username_headers: vec![HeaderName::from_static("x-remote-user")],
            uid_headers: vec![HeaderName::from_static("x-remote-uid")],
            group_headers: vec![HeaderName::from_static("x-remote-group")],
            extra_prefixes: vec!["x-remote-extra-".to_owned()],
        }
    }

    /// Whether a certificate of the proxies' authority with this common name may vouch.
    pub(super) fn allows(&self, common_name: &str) -> bool {
        self.allowed_names.is_empty() || self.allowed_names.iter().any(|name| name == common_name)
    }

    /// The user that the headers name; `None` when they name nobody.
    pub(super) fn user(&self, headers: &HeaderMap) -> Option<User> {
        let first = |names: &[HeaderName]| {
            let values = names.iter().filter_map(|name| headers.get(name)?.to_str().ok());
            values.map(str::trim).find(|value| !value.is_empty()).map(str::to_owned)
        };
        let name = first(&self.username_headers)?;
        let mut user = User { name, uid: first(&self.uid_headers).unwrap_or_default(), ..User::default() };
        for header in &self.group_headers {
            let values = headers.get_all(header).iter().filter_map(|value| value.to_str().ok());
            user.groups.extend(values.filter(|value| !value.is_empty()).map(str::to_owned));
        }
        for (header, value) in headers {
            let key =
                self.extra_prefixes.iter().find_map(|prefix| header.as_str().strip_prefix(prefix.as_str()));
            let (Some(key), Ok(value)) = (key, value.to_str()) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().to_lowercase();
            user.extra.entry(key).or_default().push(value.to_owned());
        }
        let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
        if !user.groups.iter().any(known) {
            user.groups.push(AUTHENTICATED.to_owned());
        }
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn headers_name_a_user() {
        let header = HeaderName::from_static;
        let proxy = FrontProxy::standard(vec!["front".to_owned()]);
        let mut headers = HeaderMap::new();
        assert_eq!(proxy.user(&headers), None);
        for (name, value) in [
            ("x-remote-user", "ann"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscopes", "read"),
        ] {
            headers.append(header(name), HeaderValue::from_static(value));
        }
        let user = proxy.user(&headers).unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["example.com/scopes"], ["read"]);
        assert!(proxy.allows("front") && !proxy.allows("other"));
    }
}
