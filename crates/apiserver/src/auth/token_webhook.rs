//! Tokens that a webhook knows (upstream `apiserver/plugin/pkg/authenticator/token/webhook`).
//!
//! Guarantees: who is asked and does not answer lets nobody in; what it answers is remembered for the time that was
//! set, refusals too, failures not.

use std::{sync::Arc, time::Duration};

use meta::{Clock, Value};
use resource::User;
use serde_json::json;

use super::{AUTHENTICATED, memo::Memo, token_cache::TokenCache};
use crate::webhook::Reviewer;

/// Answers remembered.
const REMEMBERED_MAX: usize = 4096;

/// Bytes of a user who is remembered.
const BYTES_MAX: usize = 64 << 10;

/// A user and the audiences the token is good for; none when the webhook does not know the token.
type Answer = Option<(User, Vec<String>)>;

/// Asks a webhook who has a token.
pub struct TokenWebhook {
    reviewer: Reviewer,
    version: &'static str,
    remembered_for: Duration,
    /// Audiences of this server: what an answer without audiences is good for.
    own: Vec<String>,
    remembered: Memo<Answer>,
}

impl TokenWebhook {
    /// Sends TokenReviews of `version` (`v1`, `v1beta1`) and remembers answers for `remembered_for`. `own` are
    /// the audiences of this server.
    pub fn new(
        reviewer: Reviewer,
        version: &'static str,
        remembered_for: Duration,
        own: Vec<String>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { reviewer, version, remembered_for, own, remembered: Memo::new(clock, REMEMBERED_MAX) }
    }

    /// Counts who asks for what from now on.
    pub(super) fn count(&mut self, counts: &Arc<TokenCache>) {
        self.remembered.count(counts);
    }

    /// Who has a token that is good for one of `audiences` (empty: this server's own).
    pub(super) async fn authenticate(&self, token: &str, audiences: &[String]) -> Result<Answer, String> {
        let wanted = if audiences.is_empty() { &self.own } else { audiences };
        let key: Vec<&str> = std::iter::once(token).chain(wanted.iter().map(String::as_str)).collect();
        let ask = async {
            let answer = self.ask(token, wanted).await?;
            let small = answer.as_ref().is_none_or(|(user, _)| size(user) <= BYTES_MAX);
            Ok((answer, if small { self.remembered_for } else { Duration::ZERO }))
        };
        self.remembered.get(&key, ask).await
    }

    async fn ask(&self, token: &str, wanted: &[String]) -> Result<Answer, String> {
        let mut spec = json!({ "token": token });
        if let (false, Some(spec)) = (wanted.is_empty(), spec.as_object_mut()) {
            spec.insert("audiences".to_owned(), json!(wanted));
        }
        let review = json!({
            "kind": "TokenReview", "apiVersion": format!("authentication.k8s.io/{}", self.version),
            "metadata": {}, "spec": spec,
        });
        let answer = self.reviewer.review(&review).await?;
        let status = answer.get("status").unwrap_or(&Value::Null);
        // As upstream: the audiences are looked at before anything else.
        let given = strings(status.get("audiences"));
        let given = if given.is_empty() { &self.own } else { &given };
        let good: Vec<String> = wanted.iter().filter(|a| given.contains(a)).cloned().collect();
        if good.is_empty() && !wanted.is_empty() {
            return Ok(None);
        }
        if status.get("authenticated").and_then(Value::as_bool) != Some(true) {
            return match status.get("error").and_then(Value::as_str).unwrap_or_default() {
                "" => Ok(None),
                why => Err(why.to_owned()),
            };
        }
        let user = status.get("user").unwrap_or(&Value::Null);
        let text = |key: &str| user.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let mut groups = strings(user.get("groups"));
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        let extra = user.get("extra").and_then(Value::as_object);
        let extra = extra.into_iter().flatten().map(|(key, list)| (key.clone(), strings(Some(list))));
        let user = User { name: text("username"), uid: text("uid"), groups, extra: extra.collect() };
        Ok(Some((user, good)))
    }
}

fn size(user: &User) -> usize {
    let User { name, uid, groups, extra } = user;
    let extra = extra.iter().flat_map(|(key, list)| std::iter::once(key).chain(list));
    [name, uid].into_iter().chain(groups).chain(extra).map(String::len).sum()
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let list = value.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::{
        testing::Objects,
        testing_webhook::{Hook, Reply},
        webhook::{Authorization, Endpoint, Webhooks},
    };

    fn status(status: Value) -> Reply {
        Reply::Json(
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}),
        )
    }

    fn webhook(hook: &Hook, version: &'static str, clock: Arc<dyn Clock>) -> TokenWebhook {
        let endpoint = Endpoint {
            url: format!("https://{}/authn", hook.address()),
            ca_pem: hook.ca_pem(),
            authorization: Authorization::Fixed("Bearer x".to_owned()),
            ..Endpoint::default()
        };
        let client = Webhooks::new(Arc::new(Objects::default()));
        let random = Arc::new(meta::Seeded::new(1));
        let reviewer = Reviewer::new(client, &endpoint, Duration::from_secs(5), random).unwrap().eager();
        TokenWebhook::new(reviewer, version, Duration::from_secs(120), vec!["here".to_owned()], clock)
    }

    fn clock() -> Arc<meta::Fixed> {
        Arc::new(meta::Fixed::new(meta::Timestamp::UNIX_EPOCH))
    }

    #[tokio::test]
    async fn what_it_says_is_who_it_is() {
        let hook = Hook::start(|_, body| {
            let ann = json!({"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"k": ["a", "b"]}});
            match body["spec"]["token"].as_str().unwrap() {
                "ann" => status(json!({"authenticated": true, "user": ann})),
                "there" => status(json!({"authenticated": true, "user": ann, "audiences": ["there"]})),
                "refused" => status(json!({"authenticated": false, "user": ann})),
                "error" => status(json!({"authenticated": false, "error": "no such token"})),
                "odd" => Reply::Json(json!([])),
                "text" => Reply::Raw(200, b"<html>".to_vec()),
                _ => Reply::Raw(403, Vec::new()),
            }
        })
        .await;
        let webhook = webhook(&hook, "v1", clock());
        let ask = async |token: &str, audiences: &[&str]| {
            let audiences: Vec<String> = audiences.iter().map(|a| (*a).to_owned()).collect();
            webhook.authenticate(token, &audiences).await
        };
        let (user, audiences) = ask("ann", &[]).await.unwrap().unwrap();
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("ann", "7"));
        assert_eq!(user.groups, ["dev", AUTHENTICATED]);
        assert_eq!(user.extra["k"], ["a", "b"]);
        assert_eq!(audiences, ["here"]);
        // Tokens for others are not for this server, and those for this server not for others.
        assert_eq!(ask("ann", &["other"]).await, Ok(None));
        assert_eq!(ask("there", &[]).await, Ok(None));
        assert_eq!(ask("there", &["x", "there"]).await.unwrap().unwrap().1, ["there"]);
        assert_eq!(ask("refused", &[]).await, Ok(None));
        assert_eq!(ask("error", &[]).await, Err("no such token".to_owned()));
        assert_eq!(ask("odd", &[]).await, Ok(None));
        for (token, words) in [("text", "decode the answer"), ("x", "status code 403")] {
            let why = ask(token, &[]).await.unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        let calls = hook.calls();
        let spec = json!({"token": "ann", "audiences": ["here"]});
        assert_eq!(calls[0].0, "/authn");
        assert_eq!(calls[0].1["apiVersion"], "authentication.k8s.io/v1");
        assert_eq!(calls[0].1["spec"], spec);
    }

    #[tokio::test]
    async fn answers_are_remembered_and_failures_that_may_pass_are_asked_again() {
        let tries = Arc::new(AtomicUsize::new(0));
        let seen = tries.clone();
        let hook = Hook::start(move |_, body| match body["spec"]["token"].as_str().unwrap() {
            // The third try of the first question is answered.
            "flaky" if seen.fetch_add(1, Ordering::SeqCst) < 2 => Reply::Raw(500, Vec::new()),
            "down" => Reply::Raw(503, Vec::new()),
            "nobody" => status(json!({"authenticated": false})),
            _ => status(json!({"authenticated": true, "user": {"username": "ann"}})),
        })
        .await;
        let time = clock();
        let webhook = webhook(&hook, "v1beta1", time.clone());
        for _ in 0..3 {
            assert!(webhook.authenticate("flaky", &[]).await.unwrap().is_some());
            assert_eq!(webhook.authenticate("nobody", &[]).await, Ok(None));
        }
        assert_eq!(hook.calls().len(), 4, "three tries for one, one for the other, and both remembered");
        assert_eq!(hook.calls()[0].1["apiVersion"], "authentication.k8s.io/v1beta1");
        time.set(meta::Timestamp::from_second(120).unwrap());
        assert!(webhook.authenticate("flaky", &[]).await.unwrap().is_some());
        assert_eq!(hook.calls().len(), 5);
        for _ in 0..2 {
            let why = webhook.authenticate("down", &[]).await.unwrap_err();
            assert!(why.contains("503"), "{why}");
        }
        assert_eq!(hook.calls().len(), 15, "five tries each, and nothing remembered");
    }
}
