//! One incarnation of the API server over a store: the engine and its chain, without sockets.

use std::sync::{Arc, OnceLock};

use apiserver::{
    Cache, Registry,
    auth::{self, Authenticator, Authorizer, Rbac},
    cache::{Kind, Take},
    compactor,
    crd::CustomResources,
    expiry,
    http::Server,
    repair,
    rest::{Caller, Duplicates, FieldValidation, Parts, Rest},
};
use meta::{Clock, Entry, GroupResource, Object, Random, Reason};
use node::usage::Board;
use resource::{User, View};
use serde_json::json;
use store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cluster::Error;

/// What a client is told; upstream's release first.
const VERSION: &str = "v1.36.0+keelson.sim";

/// Kinds whose change makes RBAC decide anew.
const RBAC_KINDS: &[&str] = &["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

/// A running API server. Dropping it is a crash: what it was doing is not done.
pub(crate) struct Api {
    pub(crate) server: Arc<Server>,
    pub(crate) rest: Rest,
    /// Cancelled by the crash; connections end with it.
    pub(crate) dead: CancellationToken,
    /// Ends its tasks when dropped.
    _tasks: JoinSet<()>,
}

impl Drop for Api {
    fn drop(&mut self) {
        self.dead.cancel();
    }
}

impl Api {
    /// Loads what the store has and serves it.
    pub(crate) async fn start(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
        board: Arc<Board>,
    ) -> Result<Self, Error> {
        let registry = Arc::new(Registry::new());
        let late = Arc::new(Late::default());
        let view: Arc<dyn View> = late.clone();
        let authorizer: Arc<dyn Authorizer> = Arc::new(Rbac::new(view.clone(), stamp(&late)));
        let authenticator = Arc::new(Authenticator::new(view, clock.clone()));
        let options = kinds::Options::default();
        registry.install_all(kinds::all(&options, &acts(&authorizer, &authenticator)));
        let cache = Cache::load(&*store, &registry).await.map_err(|error| Error::Load(error.to_string()))?;
        let cache = Arc::new(cache);
        late.fill(&cache);
        let webhooks = apiserver::webhook::Webhooks::new(cache.clone());
        let admission = apiserver::admission::chain(&authorizer, &registry, &webhooks, kinds::admission());
        let dead = CancellationToken::new();
        let (parts_cache, parts_store) = (cache.clone(), store.clone());
        let (rest, committer) =
            Rest::start(Parts { store: parts_store, cache: parts_cache, registry, admission, clock, random });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Dropping the set has to end the committer too: an abort of this task does.
            let committer = Aborting(committer);
            committer.ended().await;
        });
        tasks.spawn(compactor::run(store, cache, dead.clone()));
        bootstrap(&rest, &options).await?;
        tasks.spawn(CustomResources::install_stored(&rest).run(dead.clone()));
        tasks.spawn(expiry::run(rest.clone(), dead.clone()));
        tasks.spawn(repair::run(rest.clone(), dead.clone()));
        let measure = |plural: &str, each: fn(&Board, Take<'_>)| {
            let (shown, changed, clock) = (board.clone(), board.clone(), rest.clock().clone());
            let measured = (move || changed.version(clock.now()), move |take: Take<'_>| each(&shown, take));
            rest.cache().measure(&GroupResource::new("metrics.k8s.io", plural), Arc::new(measured));
        };
        measure("nodes", Board::nodes);
        measure("pods", Board::pods);
        let server = Arc::new(Server::new(rest.clone(), authenticator, authorizer, VERSION));
        Ok(Self { server, rest, dead, _tasks: tasks })
    }
}

/// A task that ends when this is dropped.
struct Aborting(tokio::task::JoinHandle<()>);

impl Aborting {
    async fn ended(mut self) {
        if let Err(error) = (&mut self.0).await {
            tracing::debug!(%error, "the committer ended");
        }
    }
}

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Objects that every cluster begins with; a restart finds them.
async fn bootstrap(rest: &Rest, options: &kinds::Options) -> Result<(), Error> {
    let caller = Caller {
        user: User {
            name: "system:apiserver".to_owned(),
            groups: vec!["system:masters".to_owned()],
            ..User::default()
        },
        field_manager: "keelson".to_owned(),
        field_validation: FieldValidation::Strict,
        ..Caller::default()
    };
    let mut objects = kinds::bootstrap(options);
    objects.extend(controllers::accounts::roles(&objects));
    objects.push(storage_class());
    // Namespaces first: others live in them.
    objects.sort_by_key(|object| object.kind() != "Namespace");
    for object in objects {
        let version = object.group_version().unwrap_or_else(|| meta::GroupVersion::new("", "v1"));
        let failed = |what: String| Error::Bootstrap(format!("{} {}: {what}", object.kind(), object.key()));
        let resource = rest
            .registry()
            .by_kind(&version.group, &version.version, object.kind())
            .ok_or_else(|| failed("not served".to_owned()))?;
        if rest.cache().kind(&resource.stored_as).get(&object.key()).is_some() {
            continue;
        }
        let namespace = object.namespace().to_owned();
        match rest.create(&caller, &resource, &namespace, object.clone(), Duplicates::default()).await {
            Ok(_) => {}
            Err(status) if status.reason == Some(Reason::AlreadyExists) => {}
            Err(status) => return Err(failed(status.to_string())),
        }
    }
    Ok(())
}

fn storage_class() -> Object {
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": "local-path",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": controllers::volume::PROVISIONER,
        "allowVolumeExpansion": true,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    Object::from_value(class).unwrap_or_default()
}

fn acts(authorizer: &Arc<dyn Authorizer>, authenticator: &Arc<Authenticator>) -> kinds::Acts {
    let auth::Reviews {
        subject_access,
        self_subject_access,
        local_subject_access,
        self_subject_rules,
        token,
        self_subject,
    } = auth::Reviews::new(authorizer, authenticator);
    kinds::Acts {
        // Simulated containers have no processes that could use a token.
        token: None,
        token_review: Some(token),
        self_subject_review: Some(self_subject),
        subject_access_review: Some(subject_access),
        local_subject_access_review: Some(local_subject_access),
        self_subject_access_review: Some(self_subject_access),
        self_subject_rules_review: Some(self_subject_rules),
    }
}

/// The cache, for those who are made before it.
#[derive(Default)]
struct Late {
    cache: OnceLock<Arc<Cache>>,
    rbac: OnceLock<Vec<Arc<Kind>>>,
}

impl Late {
    fn fill(&self, cache: &Arc<Cache>) {
        let kind = |plural: &&str| cache.kind(&GroupResource::new("rbac.authorization.k8s.io", *plural));
        // Filled once, before anybody can ask.
        drop(self.rbac.set(RBAC_KINDS.iter().map(kind).collect()));
        drop(self.cache.set(cache.clone()));
    }
}

impl View for Late {
    fn get(&self, resource: &GroupResource, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.cache.get()?.get(resource, namespace, name)
    }

    fn list(&self, resource: &GroupResource, namespace: Option<&str>) -> Vec<Arc<Entry>> {
        self.cache.get().map(|cache| cache.list(resource, namespace)).unwrap_or_default()
    }

    fn indexed(&self, resource: &GroupResource, namespace: Option<&str>, value: &str) -> Vec<Arc<Entry>> {
        self.cache.get().map(|cache| cache.indexed(resource, namespace, value)).unwrap_or_default()
    }
}

fn stamp(late: &Arc<Late>) -> auth::Stamp {
    let late = late.clone();
    Arc::new(move || late.rbac.get().into_iter().flatten().map(|kind| kind.snapshot().revision.0).sum())
}
