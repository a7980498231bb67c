//! Secrets of type `kubernetes.io/service-account-token` are filled with a token, the authority and the namespace, and
//! go with their ServiceAccount (upstream `pkg/controller/serviceaccount/tokens_controller.go`).
//!
//! The token is asked for like any other and bound to the Secret, so that it ends with it; nobody but the API server
//! has the key. Upstream's tokens of this kind say no time at which they end, these say one in 136 years.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::{Secret, ServiceAccount},
    },
};
use kube::{Api, ResourceExt, api::PostParams};
use meta::{ObjectKey, Timestamp};
use reconcile::{
    Change, Context, Effect, EffectFuture, Error, Kind, Plan, Precondition, Reconciler, Result, Watches,
    key_of,
};

const FIELDS: &str = "type=kubernetes.io/service-account-token";
const ACCOUNT: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";
/// The longest that can be asked for.
const SECONDS: i64 = 1 << 32;

/// The controller.
pub struct ServiceAccountTokens {
    /// The CA bundle that verifies the API server, in PEM.
    pub root_ca_pem: String,
}

/// What one plan looks at: a name that a ServiceAccount may have, and the Secrets that are for it.
pub struct World {
    account: Option<ServiceAccount>,
    secrets: Vec<Arc<Secret>>,
}

fn account_of(secret: &Secret) -> Option<ObjectKey> {
    let name = secret.annotations().get(ACCOUNT).filter(|name| !name.is_empty())?;
    Some(ObjectKey::new(secret.namespace().unwrap_or_default(), name.as_str()))
}

impl Reconciler for ServiceAccountTokens {
    type World = World;
    const NAME: &'static str = "serviceaccount-token";

    fn watches(&self) -> Watches {
        Watches::of::<ServiceAccount>().also_where::<Secret>(FIELDS, |change: &Change<Secret>, _| {
            change.versions().filter_map(|secret| account_of(secret)).collect()
        })
    }

    async fn observe(&self, cx: &Context, key: &ObjectKey) -> Result<Option<World>> {
        let store = cx.stores.with_fields::<Secret>(FIELDS);
        store.ready().await;
        let mut secrets = store.in_namespace(&key.namespace);
        secrets.retain(|secret| {
            account_of(secret).as_ref() == Some(key) && secret.metadata.deletion_timestamp.is_none()
        });
        if secrets.is_empty() {
            return Ok(None);
        }
        let account = match cx.stores.ready::<ServiceAccount>().await.get(key) {
            Some(account) => Some((*account).clone()),
            // One that is new may not be in the cache, and its Secrets would be gone.
            None => {
                let accounts: Api<ServiceAccount> = Api::namespaced(cx.client.clone(), &key.namespace);
                let found = accounts.get_opt(&key.name).await;
                found.map_err(Error::read(format!("service account {key}")))?
            }
        };
        Ok(Some(World { account, secrets }))
    }

    fn plan(&self, world: &World, _: Timestamp) -> Plan {
        let mut plan = Plan::default();
        for secret in &world.secrets {
            let meant = secret.annotations().get(ACCOUNT_UID).filter(|uid| !uid.is_empty());
            let account = world
                .account
                .as_ref()
                .filter(|account| meant.is_none_or(|uid| account.uid().as_ref() == Some(uid)));
            match account {
                None => plan.delete.push(Precondition {
                    kind: Kind::of::<Secret>(),
                    key: key_of(&**secret),
                    uid: secret.uid(),
                    resource_version: secret.resource_version(),
                    grace_period_seconds: None,
                    propagation: None,
                }),
                Some(account) => plan.effects.extend(self.filled(secret, account)),
            }
        }
        plan
    }
}

impl ServiceAccountTokens {
    /// What a Secret lacks.
    fn filled(&self, secret: &Arc<Secret>, account: &ServiceAccount) -> Option<Box<dyn Effect>> {
        let mut wanted = (**secret).clone();
        let data = wanted.data.get_or_insert_default();
        let namespace = secret.namespace().unwrap_or_default();
        data.insert("namespace".to_owned(), ByteString(namespace.into_bytes()));
        if !self.root_ca_pem.is_empty() {
            data.insert("ca.crt".to_owned(), ByteString(self.root_ca_pem.clone().into_bytes()));
        }
        let token = data.get("token").is_none_or(|token| token.0.is_empty());
        let uid = account.uid().unwrap_or_default();
        wanted.annotations_mut().insert(ACCOUNT_UID.to_owned(), uid);
        let fill = Fill { wanted, account: account.name_any(), token };
        (token || fill.wanted != **secret).then(|| Box::new(fill) as Box<dyn Effect>)
    }
}

/// Writes a Secret as it should be, with a token where there is none.
struct Fill {
    wanted: Secret,
    account: String,
    token: bool,
}

impl std::fmt::Debug for Fill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, account, token } = self;
        let keys: Vec<&String> = wanted.data.iter().flat_map(BTreeMap::keys).collect();
        write!(f, "Fill({} for {account}: {keys:?}, new token: {token})", wanted.name_any())
    }
}

impl Effect for Fill {
    fn name(&self) -> &'static str {
        "fill token secret"
    }

    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a> {
        Box::pin(async move {
            let (namespace, name) = (self.wanted.namespace().unwrap_or_default(), self.wanted.name_any());
            let mut wanted = self.wanted.clone();
            if self.token {
                let bound = BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Secret".to_owned()),
                    name: Some(name.clone()),
                    uid: self.wanted.uid(),
                };
                let request = TokenRequest {
                    spec: Some(TokenRequestSpec {
                        bound_object_ref: Some(bound),
                        expiration_seconds: Some(SECONDS),
                        ..TokenRequestSpec::default()
                    }),
                    ..TokenRequest::default()
                };
                let accounts: Api<ServiceAccount> = Api::namespaced(cx.client.clone(), &namespace);
                let answer =
                    accounts.create_token_request(&self.account, &PostParams::default(), &request).await?;
                let token =
                    answer.status.and_then(|status| status.token).ok_or("an answer without a token")?;
                wanted
                    .data
                    .get_or_insert_default()
                    .insert("token".to_owned(), ByteString(token.into_bytes()));
            }
            let secrets: Api<Secret> = Api::namespaced(cx.client.clone(), &namespace);
            secrets.replace(&name, &PostParams::default(), &wanted).await?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn world(account: Option<Value>, annotations: Value, data: Value) -> World {
        let account =
            account.map(|metadata| serde_json::from_value(json!({ "metadata": metadata })).unwrap());
        let metadata = json!({ "name": "s", "namespace": "ns", "uid": "2", "annotations": annotations });
        let secret = serde_json::from_value(json!({ "metadata": metadata, "data": data })).unwrap();
        World { account, secrets: vec![Arc::new(secret)] }
    }

    fn check(account: Option<Value>, annotations: Value, data: Value, expected: &str) {
        let plan = ServiceAccountTokens { root_ca_pem: "PEM".to_owned() }
            .plan(&world(account, annotations, data), "2026-01-01T00:00:00Z".parse().unwrap());
        let deletes = plan.delete.iter().map(|gone| format!("delete {}", gone.key));
        let all: Vec<String> =
            plan.effects.iter().map(|effect| format!("{effect:?}")).chain(deletes).collect();
        assert_eq!(all.join("; "), expected);
    }

    #[test]
    fn secrets_are_filled_and_go_with_their_account() {
        let account = || Some(json!({ "name": "a", "namespace": "ns", "uid": "1" }));
        let of = |uid: &str| json!({ ACCOUNT: "a", ACCOUNT_UID: uid });
        let full = || json!({ "token": "dA==", "namespace": "bnM=", "ca.crt": "UEVN" });
        let new = "Fill(s for a: [\"ca.crt\", \"namespace\"], new token: true)";
        let old = "Fill(s for a: [\"ca.crt\", \"namespace\", \"token\"], new token: false)";
        check(account(), json!({ ACCOUNT: "a" }), json!({}), new);
        check(account(), of("1"), full(), "");
        check(account(), of(""), full(), old);
        check(account(), of("1"), json!({ "token": "dA==", "namespace": "bnM=", "ca.crt": "eA==" }), old);
        check(account(), of("1"), json!({ "namespace": "bnM=", "ca.crt": "UEVN" }), new);
        check(account(), of("another"), full(), "delete ns/s");
        check(None, of("1"), full(), "delete ns/s");
    }
}
