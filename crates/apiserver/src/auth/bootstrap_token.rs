//! Bootstrap tokens: Secrets `kube-system/bootstrap-token-ID` with which a machine that has nothing else yet
//! asks for its certificate (upstream `plugin/pkg/auth/authenticator/token/bootstrap`).
//!
//! Guarantees: a token stands for `system:bootstrap:ID` and groups below `system:bootstrappers`, nothing else;
//! one that is expired, being deleted, for another use or malformed stands for nobody.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{GroupResource, Object, Timestamp};
use resource::{User, View};

use super::AUTHENTICATED;

const NAMESPACE: &str = "kube-system";
const GROUP: &str = "system:bootstrappers";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// Longest name of a further group behind the prefix.
const GROUP_BYTES_MAX: usize = 256;

/// The user of a bootstrap token at `now`.
pub(super) fn user(token: &str, view: &dyn View, now: Timestamp) -> Option<User> {
    let (id, secret) = split(token)?;
    let name = format!("bootstrap-token-{id}");
    let entry = view.get(&GroupResource::new("", "secrets"), NAMESPACE, &name)?;
    let object = entry.object().ok()?;
    if object.str(&["type"]) != Some("bootstrap.kubernetes.io/token") || object.is_deleting() {
        return None;
    }
    let stored = field(&object, "token-secret")?;
    if !same(stored.as_bytes(), secret.as_bytes()) || field(&object, "token-id")? != id {
        return None;
    }
    if let Some(expires) = field(&object, "expiration") {
        // A time that cannot be read is over.
        let expires = expires.parse::<Timestamp>().ok()?;
        if expires <= now {
            return None;
        }
    }
    if field(&object, "usage-bootstrap-authentication").as_deref() != Some("true") {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = field(&object, "auth-extra-groups").unwrap_or_default();
    for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        // One bad group makes the token useless, as upstream: it would not mean what its maker thinks.
        is_group(group).then_some(())?;
        groups.push(group.to_owned());
    }
    groups.push(AUTHENTICATED.to_owned());
    Some(User { name: format!("system:bootstrap:{id}"), groups, ..User::default() })
}

/// Whether it has the form of a bootstrap token: `[a-z0-9]{6}.[a-z0-9]{16}`.
pub(super) fn split(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    (plain(id, ID_LENGTH) && plain(secret, SECRET_LENGTH)).then_some((id, secret))
}

fn is_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix(GROUP).and_then(|rest| rest.strip_prefix(':')) else { return false };
    let last = rest.bytes().next_back();
    rest.len() <= GROUP_BYTES_MAX
        && last.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-'))
}

fn field(secret: &Object, key: &str) -> Option<String> {
    let bytes = STANDARD.decode(secret.str(&["data", key])?).ok()?;
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// Compares in a time that does not tell where they differ.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0_u8, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Objects;
    use meta::Value;
    use proptest::prelude::*;
    use serde_json::json;

    fn secret(change: impl Fn(&mut Value)) -> Objects {
        let text = |text: &str| json!(STANDARD.encode(text));
        let mut secret = json!({
            "metadata": {"name": "bootstrap-token-abcdef", "namespace": NAMESPACE},
            "type": "bootstrap.kubernetes.io/token",
            "data": {
                "token-id": text("abcdef"), "token-secret": text("0123456789abcdef"),
                "usage-bootstrap-authentication": text("true"),
                "auth-extra-groups": text("system:bootstrappers:kubeadm:default-node-token"),
                "expiration": text("2026-01-02T00:00:00Z"),
            },
        });
        change(&mut secret);
        Objects::default().with(&GroupResource::new("", "secrets"), secret)
    }

    fn check(token: &str, at: &str, change: impl Fn(&mut Value)) -> Option<String> {
        let user = user(token, &secret(change), at.parse().unwrap())?;
        Some(format!("{} {}", user.name, user.groups.join(",")))
    }

    #[test]
    fn only_a_living_token_of_this_use_stands_for_somebody() {
        let (good, early) = ("abcdef.0123456789abcdef", "2026-01-01T00:00:00Z");
        let set = |key: &'static str, value: &'static str| {
            move |secret: &mut Value| secret["data"][key] = json!(STANDARD.encode(value))
        };
        assert_eq!(
            check(good, early, |_| {}).unwrap(),
            "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:kubeadm:default-node-token,system:authenticated"
        );
        for token in [
            "abcdef.0123456789abcdeg",
            "abcdeg.0123456789abcdef",
            "abcdef.0123456789abcde",
            "../def.0123456789abcdef",
            "ABCDEF.0123456789ABCDEF",
            "abcdef.",
            "abcdef",
        ] {
            assert_eq!(check(token, early, |_| {}), None, "{token}");
        }
        assert_eq!(check(good, "2026-01-02T00:00:00Z", |_| {}), None, "expired");
        assert_eq!(check(good, early, set("expiration", "tomorrow")), None);
        assert_eq!(check(good, early, set("usage-bootstrap-authentication", "false")), None);
        assert_eq!(check(good, early, set("token-id", "ghijkl")), None);
        assert_eq!(check(good, early, |s| s["type"] = json!("Opaque")), None);
        assert_eq!(check(good, early, |s| s["metadata"]["deletionTimestamp"] = json!(early)), None);
        for group in
            ["system:masters", "system:bootstrappers:", "system:bootstrappers:a b", "system:bootstrappersx"]
        {
            assert_eq!(check(good, early, set("auth-extra-groups", group)), None, "{group}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in ".{0,64}") {
            if let Some((id, secret)) = split(&text) {
                prop_assert_eq!(format!("{id}.{secret}"), text);
            }
        }
    }
}
