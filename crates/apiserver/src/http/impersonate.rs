//! Acting as somebody else, where one may (`Impersonate-User` and its companions).
//!
//! Guarantees: nobody acts as somebody without being allowed to be each thing that was named: by a rule for this kind
//! of somebody and for what is then done (constrained, <https://kep.k8s.io/5284>), or by one for acting as them
//! whatever is done (`impersonate`). Who is a node or a ServiceAccount by a constrained rule is in the groups of those and in no
//! others. As upstream's `impersonation` filter, without its caches: a decision here is a look into compiled rules.

use std::{collections::BTreeMap, sync::Arc};

use http::HeaderMap;
use meta::{Status, names};
use percent_encoding::percent_decode_str;
use resource::User;

use super::attributes::Attributes;
use crate::auth::{
    AUTHENTICATED, Ask, Asked, Authorizer, MASTERS, NODES, UNAUTHENTICATED, decide, forbidden,
};

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

/// The group of what authentication knows, and of who may be impersonated by a constrained rule.
const AUTHENTICATION: &str = "authentication.k8s.io";
/// Where the token of a pod says on which node that is.
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// What is left of such a token when it is asked whether its bearer may be the node it is on, whichever that is.
const NODE_KEYS: &str = "authentication.kubernetes.io/associated-node-keys";
/// From so many groups or values on it is asked first whether all may be taken.
const MANY: usize = 4;

/// Whom a request is for.
#[derive(Debug)]
pub(crate) struct Acting {
    /// The sender, or whom the sender asks to be and may.
    pub(crate) user: Arc<User>,
    /// The verb by which the sender may, empty for `impersonate`; `None` when nobody else was asked for.
    pub(crate) constraint: Option<&'static str>,
}

/// Finds out whom a request is for.
pub(crate) async fn impersonate(
    sender: Arc<User>,
    headers: &HeaderMap,
    authorizer: &dyn Authorizer,
    request: &Attributes<'_>,
) -> Result<Acting, Status> {
    let Some(wanted) = wanted(headers)? else { return Ok(Acting { user: sender, constraint: None }) };
    let wanted = Wanted { identity: Identity::of(&wanted.name), user: wanted };
    let mut first = None;
    for mode in MODES {
        if !(mode.applies)(&wanted, &sender) {
            continue;
        }
        match mode.check(&wanted, &sender, authorizer, request).await {
            Ok(user) => return Ok(Acting { user: Arc::new(user), constraint: Some(mode.constraint()) }),
            Err(status) => first = first.or(Some(status)),
        }
    }
    Err(first.unwrap_or_else(|| Status::internal("no mode of impersonation applies")))
}

/// Whom the headers name; `None` when they name nobody.
fn wanted(headers: &HeaderMap) -> Result<Option<User>, Status> {
    let groups = headers.get_all(GROUP).iter().map(|group| readable(group, "Impersonate-Group"));
    let groups = groups.map(|group| group.map(str::to_owned)).collect::<Result<Vec<_>, _>>()?;
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (key, value) in headers {
        let Some(key) = key.as_str().strip_prefix(EXTRA) else { continue };
        let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
        extra.entry(key).or_default().push(readable(value, "Impersonate-Extra")?.to_owned());
    }
    let name = text(headers, USER)?.unwrap_or_default().to_owned();
    let uid = text(headers, UID)?.unwrap_or_default().to_owned();
    if !name.is_empty() {
        return Ok(Some(User { name, uid, groups, extra }));
    }
    if groups.is_empty() && uid.is_empty() && extra.is_empty() {
        return Ok(None);
    }
    Err(Status::bad_request("impersonation of groups, uid or extra needs Impersonate-User"))
}

fn readable<'a>(value: &'a http::HeaderValue, name: &str) -> Result<&'a str, Status> {
    value.to_str().map_err(|_| Status::bad_request(format!("{name} is not text")))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Status> {
    let value = headers.get(name).map(|value| readable(value, &format!("header {name}"))).transpose()?;
    Ok(value.filter(|v| !v.is_empty()))
}

/// Somebody one asks to be.
struct Wanted {
    user: User,
    identity: Identity,
}

impl Wanted {
    /// Whether nothing but a name is asked for.
    fn is_name_only(&self) -> bool {
        self.user.uid.is_empty() && self.user.groups.is_empty() && self.user.extra.is_empty()
    }
}

/// What a user's name says.
enum Identity {
    Node(String),
    ServiceAccount { namespace: String, name: String },
    Other,
}

impl Identity {
    fn of(user: &str) -> Self {
        let node = user.strip_prefix("system:node:");
        if let Some(name) = node.filter(|name| names::dns1123_subdomain(name).is_empty()) {
            return Self::Node(name.to_owned());
        }
        let account = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
        let valid = |(namespace, name): &(&str, &str)| {
            names::dns1123_label(namespace).is_empty() && names::dns1123_subdomain(name).is_empty()
        };
        match account.filter(valid) {
            Some((namespace, name)) => {
                Self::ServiceAccount { namespace: namespace.to_owned(), name: name.to_owned() }
            }
            None => Self::Other,
        }
    }
}

/// One way of being allowed to act as somebody.
struct Mode {
    /// The verb of the rule for who it is.
    verb: &'static str,
    /// What the verb of the rule for what is done begins with; `None` when that is not asked.
    on: Option<&'static str>,
    /// Whether a sender can be this somebody in this way at all.
    applies: fn(&Wanted, &User) -> bool,
    /// Whether the rule is about the sender's own node, whichever that is.
    own_node: bool,
}

/// All of them, in the order in which they are asked.
const MODES: &[Mode] = &[
    Mode {
        verb: "impersonate:associated-node",
        on: Some("impersonate-on:associated-node:"),
        applies: |wanted, sender| match &wanted.identity {
            Identity::Node(node) => {
                wanted.is_name_only()
                    && matches!(Identity::of(&sender.name), Identity::ServiceAccount { .. })
                    && sender.extra.get(NODE_NAME).is_some_and(|nodes| nodes.as_slice() == [node.as_str()])
            }
            _ => false,
        },
        own_node: true,
    },
    Mode {
        verb: "impersonate:arbitrary-node",
        on: Some("impersonate-on:arbitrary-node:"),
        applies: |wanted, _| matches!(wanted.identity, Identity::Node(_)) && wanted.is_name_only(),
        own_node: false,
    },
    Mode {
        verb: "impersonate:serviceaccount",
        on: Some("impersonate-on:serviceaccount:"),
        applies: |wanted, _| {
            matches!(wanted.identity, Identity::ServiceAccount { .. }) && wanted.is_name_only()
        },
        own_node: false,
    },
    Mode {
        verb: "impersonate:user-info",
        on: Some("impersonate-on:user-info:"),
        applies: |wanted, _| matches!(wanted.identity, Identity::Other),
        own_node: false,
    },
    Mode { verb: "impersonate", on: None, applies: |_, _| true, own_node: false },
];

impl Mode {
    fn constraint(&self) -> &'static str {
        if self.on.is_some() { self.verb } else { "" }
    }

    /// Whether the sender may do this as whom it wants to be; who that is.
    async fn check(
        &self,
        wanted: &Wanted,
        sender: &User,
        authorizer: &dyn Authorizer,
        request: &Attributes<'_>,
    ) -> Result<User, Status> {
        let on_a_node;
        let sender = if self.own_node {
            let keys = sender.extra.keys().cloned().collect();
            on_a_node = User { extra: BTreeMap::from([(NODE_KEYS.to_owned(), keys)]), ..sender.clone() };
            &on_a_node
        } else {
            sender
        };
        let constrained = self.on.is_some();
        if let Some(on) = self.on {
            let ask = request.ask(sender);
            allowed(&Ask { verb: &format!("{on}{}", ask.verb), ..ask }, authorizer).await?;
        }
        // Names and groups are of the core group in the rules that there always were.
        let group = if constrained { AUTHENTICATION } else { "" };
        let asking = Asking { sender, verb: self.verb, group, constrained, authorizer };
        let (resource, namespace, name) = match &wanted.identity {
            Identity::Node(_) if self.own_node => ("nodes", "", "*"),
            Identity::Node(name) if constrained => ("nodes", "", name.as_str()),
            Identity::ServiceAccount { namespace, name } => {
                ("serviceaccounts", namespace.as_str(), name.as_str())
            }
            _ => ("users", "", wanted.user.name.as_str()),
        };
        asking.may(object(group, resource, "", namespace, name)).await?;
        if !wanted.user.uid.is_empty() {
            asking.may(object(AUTHENTICATION, "uids", "", "", &wanted.user.uid)).await?;
        }
        asking.groups(&wanted.user.groups).await?;
        asking.extra(&wanted.user.extra).await?;
        Ok(settled(wanted, constrained))
    }
}

/// The questions whether a sender may be each thing that was named.
struct Asking<'a> {
    sender: &'a User,
    verb: &'a str,
    /// The group of names and groups.
    group: &'a str,
    constrained: bool,
    authorizer: &'a dyn Authorizer,
}

impl Asking<'_> {
    async fn may(&self, object: Asked<'_>) -> Result<(), Status> {
        allowed(&Ask::new(self.sender, self.verb, object), self.authorizer).await
    }

    fn never<T>(&self, object: Asked<'_>, why: &str) -> Result<T, Status> {
        Err(forbidden(&Ask::new(self.sender, self.verb, object), why))
    }

    async fn groups(&self, groups: &[String]) -> Result<(), Status> {
        let of = |name| object(self.group, "groups", "", "", name);
        if self.constrained && groups.iter().any(String::is_empty) {
            return self.never(of(""), "impersonating the empty string group is not allowed");
        }
        if self.constrained && groups.iter().any(|group| group == MASTERS) {
            return self.never(of(MASTERS), "impersonating the system:masters group is not allowed");
        }
        if self.constrained && groups.len() >= MANY && self.may(of("*")).await.is_ok() {
            return Ok(());
        }
        for name in groups {
            self.may(of(name)).await?;
        }
        Ok(())
    }

    async fn extra<'e>(&self, extra: &'e BTreeMap<String, Vec<String>>) -> Result<(), Status> {
        let of = |key, value| object(AUTHENTICATION, "userextras", key, "", value);
        let of_key = |(key, values): (&'e String, &'e Vec<String>)| -> Vec<(&'e str, &'e str)> {
            values.iter().map(|value| (key.as_str(), value.as_str())).collect()
        };
        let values: Vec<(&str, &str)> = extra.iter().flat_map(of_key).collect();
        if self.constrained {
            if let Some(why) = values.iter().find_map(|(key, value)| bad_extra(key, value)) {
                return self.never(of("", ""), &why);
            }
            if values.len() >= MANY && self.may(of("*", "*")).await.is_ok() {
                return Ok(());
            }
        }
        for (key, value) in values {
            self.may(of(key, value)).await?;
        }
        Ok(())
    }
}

fn object<'a>(
    group: &'a str,
    resource: &'a str,
    subresource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Asked<'a> {
    Asked::Resource { group, version: "v1", resource, subresource, namespace, name }
}

/// Whether somebody may. That it could not be decided is no yes either.
async fn allowed(ask: &Ask<'_>, authorizer: &dyn Authorizer) -> Result<(), Status> {
    let decision = decide(authorizer, ask).await;
    if decision.allows() { Ok(()) } else { Err(forbidden(ask, decision.reason())) }
}

/// What is wrong with a value that is known of a user besides, where it was never allowed.
fn bad_extra(key: &str, value: &str) -> Option<String> {
    if key.is_empty() {
        return Some("impersonating the empty string key in extra is not allowed".to_owned());
    }
    if let Some(why) = names::domain_prefixed_path(key).first() {
        return Some(format!("impersonating an invalid key in extra is not allowed: {key:?}: {why}"));
    }
    value.is_empty().then(|| "impersonating the empty string value in extra is not allowed".to_owned())
}

/// Somebody with the groups that follow from who it is.
fn settled(wanted: &Wanted, constrained: bool) -> User {
    let mut user = wanted.user.clone();
    match &wanted.identity {
        Identity::Node(_) if constrained => user.groups = vec![NODES.to_owned()],
        Identity::ServiceAccount { namespace, .. } if user.groups.is_empty() => {
            user.groups =
                vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        _ => {}
    }
    let has = |wanted: &str| user.groups.iter().any(|group| group == wanted);
    let implied = if user.name == "system:anonymous" {
        Some(UNAUTHENTICATED).filter(|group| !has(group))
    } else {
        Some(AUTHENTICATED).filter(|group| !has(group) && !has(UNAUTHENTICATED))
    };
    user.groups.extend(implied.map(str::to_owned));
    user
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        auth::{Decision, Rule},
        http::{query::Query, route::Route},
    };
    use http::{HeaderName, HeaderValue, Method};

    /// Allows `VERB GROUP/RESOURCE[/SUBRESOURCE] [NAMESPACE/]NAME`; a star at the end stands for anything.
    struct May(Vec<&'static str>);

    impl Authorizer for May {
        fn allows(&self, ask: &Ask<'_>) -> bool {
            let Asked::Resource { group, resource, subresource, namespace, name, .. } = ask.object else {
                panic!("{ask:?}");
            };
            let slash = |a: &str, b: &str| if b.is_empty() { a.to_owned() } else { format!("{a}/{b}") };
            let place = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
            let asked =
                format!("{} {} {place}", ask.verb, slash(&format!("{group}/{resource}"), subresource));
            self.0.iter().any(|rule| match rule.strip_suffix("**") {
                Some(begin) => asked.starts_with(begin),
                None => asked == *rule,
            })
        }
        fn decide(&self, ask: &Ask<'_>) -> Decision {
            let why = String::new();
            if self.allows(ask) { Decision::Allow(why) } else { Decision::NoOpinion(why) }
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    /// Who `GET /api/v1/namespaces/n/pods` is for when `sender` sends it with headers `NAME: VALUE`:
    /// `[CONSTRAINT ]USER GROUPS`, or what the error says.
    fn check(rules: &[&'static str], sender: &User, headers: &[&'static str], expected: &str) {
        let mut map = HeaderMap::new();
        for header in headers {
            let (key, value) = header.split_once(": ").unwrap();
            map.append(
                HeaderName::try_from(format!("impersonate-{key}")).unwrap(),
                HeaderValue::from_static(value),
            );
        }
        let route = Route::parse("/api/v1/namespaces/n/pods");
        let request = Attributes::of(&Method::GET, &route, &Query::parse(None));
        let may = May(rules.to_vec());
        let got = impersonate(Arc::new(sender.clone()), &map, &may, &request);
        let got = match futures::FutureExt::now_or_never(got).unwrap() {
            Ok(Acting { user, constraint }) => {
                let by = constraint.filter(|c| !c.is_empty()).map_or(String::new(), |c| format!("{c} "));
                format!("{by}{} {}", user.name, user.groups.join(","))
            }
            Err(status) => format!("{} {}", status.code, status.message),
        };
        assert_eq!(got, expected, "{rules:?} {headers:?}");
    }

    fn sender() -> User {
        User { name: "sender".into(), ..User::default() }
    }

    #[test]
    fn acting_as_somebody_whatever_is_done() {
        let check = |rules: &[&'static str], headers: &[&'static str], expected: &str| {
            check(rules, &sender(), headers, expected);
        };
        check(&[], &[], "sender ");
        check(&["impersonate /users ann"], &["user: ann"], "ann system:authenticated");
        let named = &["impersonate /users ann", "impersonate /groups a**"];
        check(named, &["user: ann", "group: a1", "group: a2"], "ann a1,a2,system:authenticated");
        check(named, &["user: ann", "group: a1", "group: system:unauthenticated"], FORBIDDEN);
        check(named, &["user: ann", "extra-scopes: b"], FORBIDDEN);
        check(named, &["user: ann", "uid: 7"], FORBIDDEN);
        check(named, &["user: bob"], FORBIDDEN);
        let all = &["impersonate **"];
        check(all, &["user: ann", "group: system:masters"], "ann system:masters,system:authenticated");
        check(all, &["user: ann", "group: system:unauthenticated"], "ann system:unauthenticated");
        check(all, &["user: system:anonymous"], "system:anonymous system:unauthenticated");
        check(all, &["user: ann", "extra-scopes: b", "uid: 7"], "ann system:authenticated");
        check(all, &["user: system:node:a"], "system:node:a system:authenticated");
        check(
            &["impersonate /serviceaccounts n/a"],
            &["user: system:serviceaccount:n:a"],
            "system:serviceaccount:n:a system:serviceaccounts,system:serviceaccounts:n,system:authenticated",
        );
        check(
            &["impersonate /users **"],
            &["user: system:serviceaccount:N:a"],
            "system:serviceaccount:N:a system:authenticated",
        );
        let nobody = "400 impersonation of groups, uid or extra needs Impersonate-User";
        check(all, &["group: a"], nobody);
        check(all, &["uid: a"], nobody);
        check(all, &["extra-a: a"], nobody);
    }

    /// What upstream says of a sender without any rule, too: the first way that was asked.
    const FORBIDDEN: &str = "403 pods is forbidden: User \"sender\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" in the namespace \"n\"";

    #[test]
    fn acting_as_somebody_for_one_thing() {
        let user = &[
            "impersonate-on:user-info:list /pods n/",
            "impersonate:user-info authentication.k8s.io/users ann",
        ];
        check(user, &sender(), &["user: ann"], "impersonate:user-info ann system:authenticated");
        check(
            &user[..1],
            &sender(),
            &["user: ann"],
            "403 users.authentication.k8s.io \"ann\" is forbidden: User \"sender\" cannot impersonate:user-info resource \"users\" in API group \"authentication.k8s.io\" at the cluster scope",
        );
        check(&user[1..], &sender(), &["user: ann"], FORBIDDEN);
        let all = &["impersonate-on:**", "impersonate:user-info **"];
        check(all, &sender(), &["user: ann", "group: a"], "impersonate:user-info ann a,system:authenticated");
        check(
            all,
            &sender(),
            &["user: ann", "group: system:masters"],
            "403 groups.authentication.k8s.io \"system:masters\" is forbidden: User \"sender\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope: impersonating the system:masters group is not allowed",
        );
        check(
            all,
            &sender(),
            &["user: ann", "extra-acme.io%2Fa: b"],
            "impersonate:user-info ann system:authenticated",
        );
        let extra = "403 userextras.authentication.k8s.io is forbidden: User \"sender\" cannot impersonate:user-info resource \"userextras\" in API group \"authentication.k8s.io\" at the cluster scope: ";
        let invalid = "impersonating an invalid key in extra is not allowed: \"scopes\": must be a domain-prefixed path (such as \"acme.io/foo\")";
        check(all, &sender(), &["user: ann", "extra-scopes: b"], &format!("{extra}{invalid}"));
        // Neither nodes nor ServiceAccounts are users here.
        check(
            all,
            &sender(),
            &["user: system:serviceaccount:n:a"],
            "403 serviceaccounts.authentication.k8s.io \"a\" is forbidden: User \"sender\" cannot impersonate:serviceaccount resource \"serviceaccounts\" in API group \"authentication.k8s.io\" in the namespace \"n\"",
        );
        let account = &[
            "impersonate-on:serviceaccount:list /pods n/",
            "impersonate:serviceaccount authentication.k8s.io/serviceaccounts n/a",
        ];
        check(
            account,
            &sender(),
            &["user: system:serviceaccount:n:a"],
            "impersonate:serviceaccount system:serviceaccount:n:a system:serviceaccounts,system:serviceaccounts:n,system:authenticated",
        );
    }

    #[test]
    fn groups_that_are_allowed_all_at_once() {
        let all = &[
            "impersonate-on:**",
            "impersonate:user-info authentication.k8s.io/users ann",
            "impersonate:user-info authentication.k8s.io/groups *",
        ];
        let groups = &["user: ann", "group: a", "group: b", "group: c", "group: d"];
        check(all, &sender(), groups, "impersonate:user-info ann a,b,c,d,system:authenticated");
        check(
            all,
            &sender(),
            &groups[..4],
            "403 groups.authentication.k8s.io \"a\" is forbidden: User \"sender\" cannot impersonate:user-info resource \"groups\" in API group \"authentication.k8s.io\" at the cluster scope",
        );
    }

    #[test]
    fn acting_as_the_node_one_is_on() {
        let extra = BTreeMap::from([(NODE_NAME.to_owned(), vec!["m1".to_owned()])]);
        let agent = User { name: "system:serviceaccount:n:agent".into(), extra, ..User::default() };
        let own = &[
            "impersonate-on:associated-node:list /pods n/",
            "impersonate:associated-node authentication.k8s.io/nodes *",
        ];
        check(
            own,
            &agent,
            &["user: system:node:m1"],
            "impersonate:associated-node system:node:m1 system:nodes,system:authenticated",
        );
        check(
            own,
            &agent,
            &["user: system:node:m2"],
            "403 pods is forbidden: User \"system:serviceaccount:n:agent\" cannot impersonate-on:arbitrary-node:list resource \"pods\" in API group \"\" in the namespace \"n\"",
        );
        let any = &[
            "impersonate-on:arbitrary-node:list /pods n/",
            "impersonate:arbitrary-node authentication.k8s.io/nodes m2",
        ];
        check(
            any,
            &agent,
            &["user: system:node:m2"],
            "impersonate:arbitrary-node system:node:m2 system:nodes,system:authenticated",
        );
        // Not even with a rule for it can a node bring groups.
        check(
            any,
            &agent,
            &["user: system:node:m2", "group: a"],
            "403 users \"system:node:m2\" is forbidden: User \"system:serviceaccount:n:agent\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
        );
    }
}
