//! The API server of `up`: store, cache, kinds, guards, sockets.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, OnceLock},
};

use apiserver::{
    Cache, Registry,
    aggregation::Aggregation,
    auth::{self, Authenticator, Authorizer, Decisions, NodeAuthorizer, Rbac, Rule},
    cache::Kind,
    compactor,
    connect::Kubelets,
    crd::CustomResources,
    encryption::Sealed,
    expiry,
    http::{Health, Server, Serving, tls_config},
    pki::{Kubeconfig, Login, Pair, Pki},
    repair,
    rest::{Parts, Rest},
    tokens::{Signer, TokenRequest, Tokens, legacy},
    trace::Tracing,
};
use meta::{Clock, Entry, GroupResource, Random, metrics::Exposition};
use parking_lot::Mutex;
use resource::{User, View};
use store::{Store, Writers};
use tokio::task::JoinHandle;
use tower::Layer as _;

use crate::{
    again::AgainLayer,
    counters::Counters,
    data_dir::DataDir,
    error::Failure,
    security::{
        Callers, SecurityOptions,
        reload::{self, Reloaded},
    },
    term::Steps,
    up::{background::Background, bootstrap, stand::Stand},
    version::GIT_VERSION,
};

/// The issuer of service-account tokens, as pods know the server.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// DNS names of the server inside the cluster.
const NAMES: &[&str] = &[
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// A running API server.
pub(crate) struct ApiServer {
    pub(crate) server: Server,
    pub(crate) rest: Rest,
    pub(crate) pki: Arc<Pki>,
    authenticator: Arc<Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    /// The port that `--listen` came to.
    pub(crate) address: SocketAddr,
    /// Whether others may stand on the same store, so that who acts alone has to be elected.
    pub(crate) shared: bool,
    /// What the operators in this process count: `/metrics` has it.
    pub(crate) counters: Arc<Mutex<Counters>>,
    advertise: Option<(String, u16)>,
    serving: Vec<Serving>,
    tls: rustls::ServerConfig,
    committer: JoinHandle<()>,
    background: Background,
    auditing: Option<JoinHandle<()>>,
    exporting: Option<JoinHandle<()>>,
    stop: tokio_util::sync::CancellationToken,
}

/// Kinds whose change makes RBAC decide anew.
const RBAC_KINDS: &[&str] = &["roles", "rolebindings", "clusterroles", "clusterrolebindings"];

impl ApiServer {
    /// Opens everything and listens.
    pub(crate) async fn start(
        data: &DataDir,
        stand: &Stand,
        security: &SecurityOptions,
        clock: &Arc<dyn Clock>,
        random: &Arc<dyn Random>,
        steps: &mut Steps,
    ) -> Result<Self, Failure> {
        // First of all: nothing is made for a cluster whose store cannot be used.
        steps.start("store");
        let store = stand.place.open(random).await?;
        steps.done(&stand.place.shown());

        steps.start("certificates");
        let listen = stand.listen;
        let pki = Arc::new(open_pki(stand, data, &**clock)?);
        let names = names(listen, &stand.extra);
        let serving =
            pki.serving(&names).map_err(|error| Failure::of("make the serving certificate", error))?;
        let trusted = security.authentication.trusted(&pki)?;
        let client_ca = format!("{}\n{}", trusted.client_ca_pem, trusted.proxy_ca_pem);
        let front_proxy = pki
            .front_proxy_client()
            .map_err(|error| Failure::of("make the front proxy's certificate", error))?;
        let tls = tls_config(&serving, &client_ca).map_err(|error| Failure::of("prepare tls", error))?;
        steps.done(&format!("own authority in {}", stand.authority.display()));

        steps.start("objects");
        let encryption = security.encryption(&stand.authority, &**random)?;
        let store = Arc::new(Sealed::new(store, encryption));
        store.begin().await.map_err(|error| Failure::of("ask for the keys of what is encrypted", error))?;
        let shared = store.writers() == Writers::Many;
        let registry = Arc::new(Registry::new());
        let signer = pki.token_key().map_err(|error| Failure::of("make the token key", error))?;
        let signer = Signer::from_pem(&signer).map_err(|error| Failure::of("read the token key", error))?;
        let (used, uses) = legacy::uses();
        let tokens = Arc::new(Tokens::new(signer, ISSUER).telling(used));
        let late = Arc::new(Late::default());
        let view: Arc<dyn View> = late.clone();
        let options = kinds::Options::default();
        let node = NodeAuthorizer::new(view.clone(), node_rules(&options));
        let rbac = Rbac::new(view.clone(), rbac_stamp(&late));
        let webhooks = apiserver::webhook::Webhooks::new(view.clone());
        let callers = Callers { client: webhooks.clone(), random: random.clone() };
        let (audit, auditing) = security.audit.open(&callers, clock)?.unzip();
        let decisions = Arc::<Decisions>::default();
        let (authorizer, permissions) =
            security.authorization.authorizer(node, rbac, &callers, clock, &decisions)?;
        let authenticator = Authenticator::new(view, clock.clone()).with_tokens(tokens.clone());
        let audiences = tokens.audiences();
        let authenticator =
            security.authentication.apply(authenticator, &trusted, &callers, audiences, clock)?;
        let authenticator = Arc::new(authenticator);
        let reloaded = security.authentication.reloaded(&authenticator, ISSUER, clock);
        let reloaded = reloaded.map(Reloaded::begin).transpose()?;
        let reloaded: Vec<Reloaded> = reloaded.into_iter().chain(permissions).collect();
        registry.install_all(kinds::all(&options, &acts(&authorizer, &authenticator, &tokens)));
        let cache = Arc::new(load(&store, &registry, &stand.place.shown()).await?);
        late.fill(&cache);
        let objects: usize = cache.kinds().iter().map(|(_, kind)| kind.snapshot().len()).sum();
        steps.done(&format!("{objects} objects at revision {}", cache.head()));

        steps.start("api server");
        let admission = apiserver::admission::chain(&authorizer, &registry, &webhooks, kinds::admission());
        let stop = tokio_util::sync::CancellationToken::new();
        let mut background = Background::default();
        background.spawn("compact the store", compactor::run(store.clone(), cache.clone(), stop.clone()));
        let (rest, committer) = Rest::start(Parts {
            store: store.clone(),
            cache,
            registry,
            admission,
            clock: clock.clone(),
            random: random.clone(),
        });
        let mut objects = kinds::bootstrap(&options);
        objects.push(bootstrap::storage_class());
        objects.extend(bootstrap::local_volumes());
        bootstrap::objects(&rest, objects).await?;
        bootstrap::authority(&rest, &pki, shared).await?;
        background.spawn("serve custom resources", CustomResources::install_stored(&rest).run(stop.clone()));
        let aggregation = Aggregation::new(&rest, front_proxy);
        background.spawn("find aggregated servers", aggregation.clone().run(trusted, stop.clone()));
        background.spawn("delete what expires", expiry::run(rest.clone(), stop.clone()));
        background.spawn("repair claims", repair::run(rest.clone(), stop.clone()));
        background.spawn("ask for encryption keys", store.clone().run(stop.clone()));
        background.spawn("track tokens", legacy::run(rest.clone(), uses, stop.clone()));
        background.spawn("read configuration again", reload::run(reloaded, stop.clone()));
        let kubelets = Kubelets::new(&pki).map_err(|error| Failure::of("make the kubelet client", error))?;
        let counters = Arc::<Mutex<Counters>>::default();
        let health = health(&rest, &store);
        let counted = counters.clone();
        let mut server = Server::new(rest.clone(), authenticator.clone(), authorizer.clone(), GIT_VERSION)
            .with_tokens(tokens)
            .with_kubelets(kubelets)
            .with_aggregation(aggregation)
            .with_backup(store)
            .with_metrics(Arc::new(move |out: &mut Exposition| out.append(&counted.lock().text())))
            .with_metrics(Arc::new(move |out: &mut Exposition| decisions.expose(out)))
            .with_seats(stand.seats)
            .with_health(health)
            .with_metrics(Arc::new(move |out: &mut Exposition| webhooks.expose(out)))
            .with_descriptions(Arc::new(|| Box::new(kinds::descriptions())));
        if let Some(audit) = audit {
            server = server.with_audit(audit);
        }
        let mut exporting = None;
        if let Some(configuration) = &stand.tracing {
            let (tracing, exporter) = Tracing::new(configuration, clock.clone(), random.clone());
            server = server.with_tracing(tracing);
            exporting = Some(tokio::spawn(exporter.run(stop.clone())));
        }
        background.spawn("share seats", server.keep_flow(stop.clone()));
        let mut this = Self {
            server,
            rest,
            pki,
            authenticator,
            authorizer,
            address: listen,
            shared,
            counters,
            advertise: stand.advertise.clone(),
            serving: Vec::new(),
            tls,
            committer: background.watch("write to the store", committer),
            background,
            auditing: auditing.flatten(),
            exporting,
            stop,
        };
        this.address = this.listen(listen).await?;
        this.write_kubeconfig(&data.kubeconfig())?;
        steps.done(&format!("https://{}", this.address));
        Ok(this)
    }

    /// Listens on one more address.
    pub(crate) async fn listen(&mut self, address: SocketAddr) -> Result<SocketAddr, Failure> {
        let serving = self.server.serve(&[address], self.tls.clone()).await.map_err(|error| {
            let used = std::io::ErrorKind::AddrInUse;
            let failure = Failure::of(format!("start the api server on {address}"), error);
            match std::net::TcpListener::bind(address) {
                Err(error) if error.kind() == used => failure.advise(format!(
                    "another program listens on port {}: stop it, or choose another with --listen {}:PORT",
                    address.port(),
                    address.ip()
                )),
                _ => failure,
            }
        })?;
        let bound = serving.addresses.first().copied().unwrap_or(address);
        self.serving.push(serving);
        Ok(bound)
    }

    /// Completes when this server can no longer follow its store, or lacks a part of itself.
    pub(crate) async fn broken(&self) {
        let mut store = self.rest.broken();
        tokio::select! {
            // Whoever could say so is gone: then nobody waits for it either.
            _ = store.wait_for(Option::is_some) => {}
            () = self.background.broken() => {}
        }
    }

    /// Why it cannot.
    pub(crate) fn is_broken(&self) -> Result<(), Failure> {
        if let Some(does) = self.background.failed() {
            return Err(Failure::new(format!("the task of the API server to {does} has panicked")).advise(
                "nothing that was acknowledged is lost; the log says where: report it, and start again",
            ));
        }
        match &*self.rest.broken().borrow() {
            None => Ok(()),
            Some(why) => Err(Failure::new(format!("the store cannot be followed any more: {why}"))
                .advise("nothing that was acknowledged is lost; start this server again once the store is as it should be")),
        }
    }

    fn write_kubeconfig(&self, path: &Path) -> Result<(), Failure> {
        let admin = self.pki.admin().map_err(|error| Failure::of("make the admin certificate", error))?;
        self.write_kubeconfig_of("admin", admin, path)
    }

    /// For a part of the cluster in a process of its own: `system:NAME`, with the rights that RBAC gives it.
    pub(crate) fn write_part_kubeconfig(&self, name: &str, path: &Path) -> Result<(), Failure> {
        let pair = self.pki.component(name);
        let pair = pair.map_err(|error| Failure::of(format!("make the certificate of {name}"), error))?;
        self.write_kubeconfig_of(name, pair, path)
    }

    /// For nodes in processes of their own: `system:node:NAME`, which the Node authorizer narrows to what its pods
    /// need. A node serves the kubelet API with the same certificate.
    pub(crate) fn write_node_kubeconfigs(&self, names: &[String], data: &DataDir) -> Result<(), Failure> {
        for name in names {
            let pair = self.pki.node(name, std::slice::from_ref(name));
            let pair =
                pair.map_err(|error| Failure::of(format!("make the certificate of node {name}"), error))?;
            let path = data.part_kubeconfig(&format!("node-{name}"));
            self.write_kubeconfig_of(&format!("system:node:{name}"), pair, &path)?;
        }
        Ok(())
    }

    fn write_kubeconfig_of(&self, user: &str, pair: Pair, path: &Path) -> Result<(), Failure> {
        let host = match self.address {
            SocketAddr::V4(address) if address.ip().is_unspecified() => {
                format!("127.0.0.1:{}", address.port())
            }
            SocketAddr::V6(address) if address.ip().is_unspecified() => format!("[::1]:{}", address.port()),
            address => address.to_string(),
        };
        let host = match &self.advertise {
            Some((host, port)) => format!("{host}:{port}"),
            None => host,
        };
        let kubeconfig = Kubeconfig {
            cluster: "keelson".to_owned(),
            user: user.to_owned(),
            server: format!("https://{host}"),
            ca_pem: self.pki.ca_pem().to_owned(),
            login: Login::Certificate(pair),
        };
        kubeconfig.write(path).map_err(|error| Failure::of(format!("write {}", path.display()), error))
    }

    /// Who proves and who decides who may ask.
    pub(crate) fn guards(&self) -> (Arc<Authenticator>, Arc<dyn Authorizer>) {
        (self.authenticator.clone(), self.authorizer.clone())
    }

    /// The server's certificate, and the authority of its clients.
    pub(crate) fn tls(&self) -> rustls::ServerConfig {
        self.tls.clone()
    }

    /// A client that acts as `name`, through the same authorization and admission as anyone.
    pub(crate) fn client(&self, name: &str, groups: &[&str]) -> kube::Client {
        let groups = groups.iter().chain(&["system:authenticated"]).map(ToString::to_string).collect();
        let user = User { name: name.to_owned(), groups, ..User::default() };
        let service = AgainLayer::new(self.rest.random().clone()).layer(self.server.service(user));
        kube::Client::new(service, "default")
    }

    /// Not ready from now on, but serving: balancers have `delay` to notice before it stops.
    pub(crate) async fn retire(&self, delay: std::time::Duration) {
        self.serving.iter().for_each(Serving::retire);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.broken() => {}
        }
    }

    /// Stops listening, drains, and closes the store after its last write.
    pub(crate) async fn stop(self) {
        let Self {
            server,
            rest,
            pki: _,
            authenticator: _,
            authorizer: _,
            address: _,
            shared: _,
            counters: _,
            advertise: _,
            serving,
            tls: _,
            committer,
            background,
            auditing,
            exporting,
            stop,
        } = self;
        stop.cancel();
        for serving in serving {
            serving.stop().await;
        }
        background.join().await;
        drop((server, rest));
        if let Some(exporting) = exporting {
            // It sends what is left, for five seconds at most.
            drop(exporting.await);
        }
        if let Some(auditing) = auditing
            && tokio::time::timeout(std::time::Duration::from_secs(5), auditing).await.is_err()
        {
            tracing::warn!("audit events were still waiting for their webhook when the server stopped");
        }
        // Components that still hold a client keep the committer; they are joined before this.
        if tokio::time::timeout(std::time::Duration::from_secs(5), committer).await.is_err() {
            tracing::warn!("the store was still in use when the server stopped");
        }
    }
}

/// Ready while the store can be followed, and while the plugins answer that keep its keys.
fn health(rest: &Rest, store: &Arc<Sealed>) -> Health {
    let broken = rest.broken();
    let check = move || broken.borrow().clone().map_or(Ok(()), Err);
    let health = Health::default().ready_when("store", Arc::new(check));
    if !store.has_plugins() {
        return health;
    }
    let store = Arc::downgrade(store);
    health.ready_when(
        "kms-providers",
        Arc::new(move || store.upgrade().map_or(Ok(()), |store| store.healthy())),
    )
}

/// What every node may do: the rules of upstream's role for nodes, which the Node authorizer narrows.
fn node_rules(options: &kinds::Options) -> Vec<Rule> {
    let policy = kinds::bootstrap(options);
    let role = policy.iter().find(|object| object.kind() == "ClusterRole" && object.name() == "system:node");
    role.iter().flat_map(|role| role.list(&["rules"])).map(Rule::from_value).collect()
}

fn open_pki(stand: &Stand, data: &DataDir, clock: &dyn Clock) -> Result<Pki, Failure> {
    Pki::open_beside(&stand.authority, &data.pki(), clock).map_err(|error| {
        Failure::of("prepare certificates", error)
            .advise("restore the file from a backup; or remove the directory to get a new authority: clients then need the new admin.kubeconfig")
    })
}

/// Fills the cache. What is kept under an older key, or in plain form though it shall not be, is encrypted anew
/// before anybody reads.
async fn load(store: &Sealed, registry: &Arc<Registry>, shown: &str) -> Result<Cache, Failure> {
    let failed = |error| Failure::of(format!("read {shown}"), error);
    let cache = Cache::load(store, registry).await.map_err(failed)?;
    let resealed = store.reseal().await.map_err(|error| Failure::of("encrypt the store anew", error))?;
    if resealed == 0 {
        return Ok(cache);
    }
    tracing::info!(objects = resealed, "encrypted with the newest key");
    Cache::load(store, registry).await.map_err(failed)
}

fn names(listen: SocketAddr, extra: &[String]) -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(ToString::to_string).collect();
    names.extend(["127.0.0.1".to_owned(), "::1".to_owned(), bootstrap::KUBERNETES_IP.to_string()]);
    if !listen.ip().is_unspecified() {
        names.push(listen.ip().to_string());
    }
    names.extend(extra.iter().cloned());
    names.sort();
    names.dedup();
    names
}

/// What the POST-only kinds need of the server.
fn acts(
    authorizer: &Arc<dyn Authorizer>,
    authenticator: &Arc<Authenticator>,
    tokens: &Arc<Tokens>,
) -> kinds::Acts {
    let auth::Reviews {
        subject_access,
        self_subject_access,
        local_subject_access,
        self_subject_rules,
        token,
        self_subject,
    } = auth::Reviews::new(authorizer, authenticator);
    kinds::Acts {
        token: Some(Arc::new(TokenRequest(tokens.clone()))),
        token_review: Some(token),
        self_subject_review: Some(self_subject),
        subject_access_review: Some(subject_access),
        local_subject_access_review: Some(local_subject_access),
        self_subject_access_review: Some(self_subject_access),
        self_subject_rules_review: Some(self_subject_rules),
    }
}

/// The cache, for those who are made before it: kinds come with their reviews, and the cache is loaded with
/// the kinds.
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

/// Changes whenever an RBAC object does: the sum of the newest revisions of the four kinds, each of which
/// only grows.
fn rbac_stamp(late: &Arc<Late>) -> auth::Stamp {
    let late = late.clone();
    Arc::new(move || late.rbac.get().into_iter().flatten().map(|kind| kind.snapshot().revision.0).sum())
}
