//! Passing requests on, with the user in headers (upstream `transport.SetAuthProxyHeaders`).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, Response, Uri, request::Parts};
use hyper::upgrade::OnUpgrade;
use meta::{GroupVersion, Status};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use resource::User;

use super::{
    Aggregation,
    remote::{Remote, not_available},
};
use crate::{
    Registry,
    http::{Body, Input, response},
    metrics::InFlight,
};

/// What of a key may stand in the name of a header: the characters of a token (RFC 9110) save `%`.
const KEY: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'*')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

/// One request to pass on.
pub(crate) struct Passing<'a> {
    pub(crate) user: &'a User,
    pub(crate) parts: &'a Parts,
    pub(crate) uri: &'a Uri,
    pub(crate) input: Input,
    pub(crate) upgrade: Option<OnUpgrade>,
    pub(crate) running: InFlight,
    /// How long it may take altogether; `None` for streams.
    pub(crate) limit: Option<Duration>,
}

/// The other server that answers for a path that is no object: `/apis/GROUP/VERSION`, and its OpenAPI document.
pub(crate) fn remote_of_path(registry: &Registry, path: &str) -> Option<Arc<Remote>> {
    let path = path.strip_prefix("/openapi/v3").unwrap_or(path);
    let (group, version) = path.strip_prefix("/apis/")?.trim_end_matches('/').split_once('/')?;
    registry.remote(&GroupVersion::new(group, version))
}

impl Aggregation {
    /// Answers with what the other server answers.
    pub(crate) async fn pass(&self, remote: &Remote, passing: Passing<'_>) -> Result<Response<Body>, Status> {
        let Passing { user, parts, uri, input, upgrade, running, limit } = passing;
        let link = match &remote.link {
            Ok(link) if remote.available => link,
            Ok(_) | Err(_) => return Ok(not_available()),
        };
        let added = vouched(user)?;
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        let view = self.0.rest.cache().as_ref();
        let to = link.forward(view, parts.method.clone(), path, &parts.headers, added);
        let mut to = match to {
            Ok(to) => to,
            Err(why) => {
                tracing::warn!(version = %remote.of, why, "pass a request on");
                return Ok(not_available());
            }
        };
        to.input = input;
        to.limit = limit;
        // An upgrade that the client did not ask for is none.
        to.upgrade = upgrade.filter(|_| parts.headers.contains_key(http::header::UPGRADE));
        to.running = Some(running);
        match self.0.forwarder.forward(to).await {
            Ok(answer) => Ok(answer),
            Err(status) if status.code == 503 => {
                tracing::warn!(version = %remote.of, why = status.message, "pass a request on");
                Ok(unavailable(&status.message))
            }
            Err(status) => Err(status),
        }
    }
}

/// 503 in plain words, as upstream's aggregator.
pub(super) fn unavailable(why: &str) -> Response<Body> {
    let of = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut answer = response(503, of, Body::whole(format!("{why}\n").into()));
    let nosniff = HeaderValue::from_static("nosniff");
    answer.headers_mut().insert(HeaderName::from_static("x-content-type-options"), nosniff);
    answer
}

/// The headers that name a user to another server.
pub(super) fn vouched(user: &User) -> Result<HeaderMap, Status> {
    let User { name, uid, groups, extra } = user;
    let value = |text: &str| {
        HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| Status::internal("the user's name, groups or extra values do not fit in headers"))
    };
    let mut headers = HeaderMap::new();
    headers.insert("x-remote-user", value(name)?);
    if !uid.is_empty() {
        headers.insert("x-remote-uid", value(uid)?);
    }
    for group in groups {
        headers.append("x-remote-group", value(group)?);
    }
    for (key, values) in extra {
        let header = format!("x-remote-extra-{}", utf8_percent_encode(key, KEY));
        let header = HeaderName::from_bytes(header.as_bytes()).map_err(Status::internal)?;
        for text in values {
            headers.append(header.clone(), value(text)?);
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn users_in_headers() {
        let user = User {
            name: "ann".to_owned(),
            uid: "7".to_owned(),
            groups: vec!["dev".to_owned(), "ops".to_owned()],
            extra: BTreeMap::from([("example.com/a%b".to_owned(), vec!["x".to_owned(), "y".to_owned()])]),
        };
        let headers = vouched(&user).unwrap();
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("x-remote-user"), all("x-remote-uid")), (vec!["ann"], vec!["7"]));
        assert_eq!(all("x-remote-group"), ["dev", "ops"]);
        assert_eq!(all("x-remote-extra-example.com%2fa%25b"), ["x", "y"]);
        let bad = User { name: "a\nb".to_owned(), ..User::default() };
        assert_eq!(vouched(&bad).unwrap_err().code, 500);
        assert!(!vouched(&User::default()).unwrap().contains_key("x-remote-uid"));
    }
}
