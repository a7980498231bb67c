//! Acting as somebody else, where one may (`Impersonate-User` and its companions).

use std::sync::Arc;

use http::HeaderMap;
use meta::Status;
use percent_encoding::percent_decode_str;
use resource::User;

use crate::auth::{AUTHENTICATED, Ask, Asked, Authorizer, UNAUTHENTICATED, decide, verdict};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The user the request is for: the sender, or whom the sender asks to be and may.
pub(crate) async fn impersonate(
    sender: Arc<User>,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
) -> Result<Arc<User>, Status> {
    let Some(name) = text(headers, USER)? else {
        if headers.contains_key(GROUP)
            || headers.contains_key(UID)
            || headers.keys().any(|k| k.as_str().starts_with(EXTRA))
        {
            return Err(Status::bad_request("impersonation of groups, uid or extra needs Impersonate-User"));
        }
        return Ok(sender);
    };
    let mut user = User { name: name.to_owned(), ..User::default() };
    let may = async |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        let object = Asked::Resource { group, version: "v1", resource, subresource, namespace, name };
        let ask = Ask::new(&sender, "impersonate", object);
        verdict(&ask, &decide(authorizer, &ask).await)
    };
    let account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match account {
        Some((namespace, account)) => may("", "serviceaccounts", "", namespace, account).await?,
        None => may("", "users", "", "", name).await?,
    }
    for group in headers.get_all(GROUP) {
        let group = group.to_str().map_err(|_| Status::bad_request("Impersonate-Group is not text"))?;
        may("", "groups", "", "", group).await?;
        user.groups.push(group.to_owned());
    }
    const AUTHENTICATION: &str = "authentication.k8s.io";
    if let Some(uid) = text(headers, UID)? {
        may(AUTHENTICATION, "uids", "", "", uid).await?;
        user.uid = uid.to_owned();
    }
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        let value = value.to_str().map_err(|_| Status::bad_request("Impersonate-Extra is not text"))?;
        may(AUTHENTICATION, "userextras", &key, "", value).await?;
        user.extra.entry(key).or_default().push(value.to_owned());
    }
    settle_groups(&mut user, account.map(|(namespace, _)| namespace));
    Ok(Arc::new(user))
}

/// Groups that follow from who it is.
fn settle_groups(user: &mut User, namespace: Option<&str>) {
    if let Some(namespace) = namespace
        && user.groups.is_empty()
    {
        user.groups.push("system:serviceaccounts".to_owned());
        user.groups.push(format!("system:serviceaccounts:{namespace}"));
    }
    let known = |group: &String| group == AUTHENTICATED || group == UNAUTHENTICATED;
    if user.name == "system:anonymous" {
        user.groups.push(UNAUTHENTICATED.to_owned());
    } else if !user.groups.iter().any(known) {
        user.groups.push(AUTHENTICATED.to_owned());
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Status> {
    let value = headers.get(name).map(|v| v.to_str()).transpose();
    let value = value.map_err(|_| Status::bad_request(format!("header {name} is not text")))?;
    Ok(value.filter(|v| !v.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Decision, Rule};
    use http::{HeaderName, HeaderValue};

    /// Allows impersonating users and groups that begin with `a`.
    struct OnlyA;

    impl Authorizer for OnlyA {
        fn allows(&self, ask: &Ask<'_>) -> bool {
            matches!(ask.object, Asked::Resource { name, .. } if name.starts_with('a'))
        }
        fn decide(&self, ask: &Ask<'_>) -> Decision {
            let why = String::new();
            if self.allows(ask) { Decision::Allow(why) } else { Decision::NoOpinion(why) }
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    fn check(headers: &[(&'static str, &'static str)], expected: Result<&str, u16>) {
        let pairs = headers.iter().map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)));
        let mut map = HeaderMap::new();
        pairs.for_each(|(key, value)| {
            map.append(key, value);
        });
        let sender = Arc::new(User { name: "sender".into(), ..User::default() });
        let got = impersonate(sender, &map, &OnlyA);
        let got = futures::FutureExt::now_or_never(got).unwrap().map_err(|s| s.code);
        let got = got.map(|user| format!("{} {}", user.name, user.groups.join(",")));
        assert_eq!(got.as_deref().map_err(|code| *code), expected, "{headers:?}");
    }

    #[test]
    fn only_who_may() {
        check(&[], Ok("sender "));
        check(&[("impersonate-user", "ann")], Ok("ann system:authenticated"));
        check(&[("impersonate-user", "bob")], Err(403));
        check(
            &[("impersonate-user", "ann"), ("impersonate-group", "a1"), ("impersonate-group", "a2")],
            Ok("ann a1,a2,system:authenticated"),
        );
        check(&[("impersonate-user", "ann"), ("impersonate-group", "b")], Err(403));
        check(&[("impersonate-user", "ann"), ("impersonate-extra-scopes", "b")], Err(403));
        check(
            &[("impersonate-user", "system:serviceaccount:n:a")],
            Ok(
                "system:serviceaccount:n:a system:serviceaccounts,system:serviceaccounts:n,system:authenticated",
            ),
        );
        check(&[("impersonate-group", "a")], Err(400));
    }
}
