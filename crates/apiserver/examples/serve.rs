//! A server for trying out clients: built-in kinds over a store in memory, on a loopback port.
//!
//! `cargo run -p apiserver --example serve -- DIR [PORT]` writes `DIR/admin.kubeconfig` and prints `ready`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::SystemTime};

use apiserver::{
    Cache, Registry, admission,
    auth::{self, Authenticator, Authorizer, Rbac},
    connect::Kubelets,
    crd,
    http::{Server, tls_config},
    pki::{Kubeconfig, Login, Pki},
    rest::{Caller, Parts, Rest},
    tokens::{Signer, TokenRequest, Tokens},
};
use meta::{Clock, GroupResource, Object, Timestamp};

struct Now;

impl Clock for Now {
    fn now(&self) -> Timestamp {
        Timestamp::try_from(SystemTime::now()).unwrap_or_default()
    }
}

const ISSUER: &str = "https://kubernetes.default.svc";

type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: serve DIR [PORT]")?);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    let clock: Arc<dyn Clock> = Arc::new(Now);
    let began = std::time::Instant::now();
    let pki = Pki::open(&directory, &*clock)?;
    let tokens = Arc::new(Tokens::new(Signer::from_pem(&pki.token_key()?)?, ISSUER));

    let registry = Arc::new(Registry::new());
    let options = kinds::Options::default();
    let token: Arc<dyn resource::Act> = Arc::new(TokenRequest(tokens.clone()));
    registry.install_all(kinds::all(&options, &kinds::Acts { token: Some(token), ..kinds::Acts::default() }));
    let store = Arc::new(store::Memory::new());
    let cache = Arc::new(Cache::load(&*store, &registry).await?);
    let rbac: Vec<_> = ["roles", "rolebindings", "clusterroles", "clusterrolebindings"]
        .map(|plural| cache.kind(&GroupResource::new("rbac.authorization.k8s.io", plural)))
        .into();
    let stamp = Arc::new(move || rbac.iter().map(|kind| kind.snapshot().revision.0).sum());
    let authorizer: Arc<dyn Authorizer> = Arc::new(Rbac::new(cache.clone(), stamp));
    let authenticator =
        Arc::new(Authenticator::new(cache.clone(), clock.clone()).with_tokens(tokens.clone()));
    registry.install_all(auth::reviews(&authorizer, &authenticator));
    let webhooks = apiserver::webhook::Webhooks::new(cache.clone());
    let admission = admission::chain(&authorizer, &registry, &webhooks, Vec::new());
    let (rest, _committer) = Rest::start(Parts {
        store,
        cache,
        registry,
        admission,
        clock,
        random: Arc::new(meta::Seeded::new(42)),
    });
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let object = serde_json::json!({"metadata": {"name": namespace}});
        let resource = rest.registry().resolve("", "v1", "namespaces").ok_or("no namespaces")?;
        let object = Object::from_value(object).unwrap_or_default();
        rest.create(&Caller::default(), &resource, "", object, apiserver::rest::Duplicates::default())
            .await?;
    }
    let stop = tokio_util::sync::CancellationToken::new();
    let crds = tokio::spawn(crd::CustomResources::install_stored(&rest).run(stop.clone()));

    let names = ["localhost", "127.0.0.1"].map(str::to_owned);
    let tls = tls_config(&pki.serving(&names)?, pki.ca_pem())?;
    let server = Server::new(rest, authenticator, authorizer, "v1.36.0+keelson.0.1.0")
        .with_tokens(tokens)
        .with_kubelets(Kubelets::new(&pki)?);
    let serving = server.serve(&[SocketAddr::from(([127, 0, 0, 1], port))], tls).await?;
    let address = serving.addresses.first().ok_or("no address")?;
    let kubeconfig = Kubeconfig {
        cluster: "keelson".into(),
        user: "admin".into(),
        server: format!("https://{address}"),
        ca_pem: pki.ca_pem().into(),
        login: Login::Certificate(pki.admin()?),
    };
    kubeconfig.write(&directory.join("admin.kubeconfig"))?;
    println!("ready at https://{address} after {:?}", began.elapsed());
    tokio::signal::ctrl_c().await?;
    stop.cancel();
    serving.stop().await;
    crds.await?;
    Ok(())
}
