//! `keelson obsyk-platform`: the receiver of inventories, with sockets, files and the real clock.

mod registry;

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use apiserver::pki::{Leaf, Pair, Pki};
use meta::{Clock, Random, Seeded};
use obsyk_platform::{Faults, Options, Receiver, SnapshotPolicy};
use store_embedded::EmbeddedStore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    cli::{ObsykPlatformCommand, ObsykPlatformOptions, Snapshots},
    clock::{Dice, System},
    error::Failure,
    serve::{self, Reply, Site},
    signals, term,
};
use registry::Registry;

/// The file of clients is looked at so often: how long a revoked client may go on.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Requests of those who look on have no bodies.
const LOOK_BODY_BYTES_MAX: usize = 4096;

pub(crate) async fn obsyk_platform(options: ObsykPlatformOptions) -> Result<(), Failure> {
    let directory = registry::directory(options.data_dir.as_deref())?;
    match options.command.clone() {
        None => run(&directory, options).await,
        Some(ObsykPlatformCommand::Register { client_id, public_key, namespace, secret }) => {
            Registry::new(&directory).register(&client_id, public_key.as_deref(), &namespace, &secret)
        }
        Some(ObsykPlatformCommand::Revoke { client_id }) => Registry::new(&directory).revoke(&client_id),
    }
}

async fn run(directory: &Path, options: ObsykPlatformOptions) -> Result<(), Failure> {
    check(&options)?;
    let stop = CancellationToken::new();
    let _signals = signals::stop_on_signal(stop.clone())?;
    let registry = Registry::new(directory);
    registry.prepare()?;
    let clock: Arc<dyn Clock> = Arc::new(System);
    let random: Arc<dyn Random> = Arc::new(Dice::new());
    let (agents, address) = bind("--listen", options.listen).await?;
    let (lookers, page) = bind("--page", options.page).await?;
    let tls = if options.plain_http { None } else { Some(acceptor(directory, &options, address, &*clock)?) };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = options.url.clone().unwrap_or_else(|| format!("{scheme}://{address}"));
    let receiver = open(directory, &options, url.clone(), clock, random).await?;
    receiver.set_clients(registry.read()?);

    let answering = receiver.clone();
    let agent_site = Site {
        tls,
        body_bytes_max: options.max_body_mib << 20,
        handler: Arc::new(move |request| {
            let receiver = answering.clone();
            Box::pin(async move {
                let answer = receiver.agent(request).await.ok()?;
                Some(Reply { response: answer.response, cut_after: answer.cut_after })
            })
        }),
    };
    let looking = receiver.clone();
    let page_site = Site {
        tls: None,
        body_bytes_max: LOOK_BODY_BYTES_MAX,
        handler: serve::plain(move |request| looking.look(request)),
    };
    term::line(&format!("{} obsyk-platform {}", term::bold("keelson"), env!("CARGO_PKG_VERSION")));
    if !options.fault.is_empty() {
        term::note(&format!("faults on purpose: {}", options.fault.join(", ")));
    }
    let elsewhere = if options.url.is_some() { format!(" (listens on {address})") } else { String::new() };
    term::line(&format!("  agents: spec.platformURL: {url}{elsewhere}"));
    term::line(&format!("  page:   http://{page}/"));
    term::line(&format!("ready: {url}"));
    tokio::join!(
        serve::serve(agents, agent_site, stop.clone()),
        serve::serve(lookers, page_site, stop.clone()),
        follow(registry, receiver.clone(), stop.clone()),
    );
    receiver.close().await;
    term::line("stopped");
    Ok(())
}

fn check(options: &ObsykPlatformOptions) -> Result<(), Failure> {
    if !options.page.ip().is_loopback() {
        let what = format!("--page {}: the page has no login and shows everything", options.page);
        return Err(
            Failure::usage(what).advise("keep it on loopback, and put a proxy that asks who it is before it")
        );
    }
    if options.plain_http && !options.listen.ip().is_loopback() {
        let what =
            format!("--plain-http on {}: tokens would go over the network unprotected", options.listen);
        return Err(Failure::usage(what).advise("leave --plain-http out, or listen on loopback"));
    }
    if options.tls_cert.is_some() != options.tls_key.is_some() {
        return Err(Failure::usage("--tls-cert and --tls-key go together"));
    }
    Ok(())
}

async fn bind(flag: &str, address: SocketAddr) -> Result<(tokio::net::TcpListener, SocketAddr), Failure> {
    serve::bind(address).await.map_err(|error| {
        Failure::of(format!("listen on {address}"), error)
            .advise(format!("choose another address with {flag} ADDRESS:PORT"))
    })
}

/// A certificate that was given, or one of an authority of its own, whose certificate agents have to trust.
fn acceptor(
    directory: &Path,
    options: &ObsykPlatformOptions,
    address: SocketAddr,
    clock: &dyn Clock,
) -> Result<TlsAcceptor, Failure> {
    let (pair, ca_pem) = match (&options.tls_cert, &options.tls_key) {
        (Some(cert), Some(key)) => {
            let read = |path: &Path| {
                fs::read_to_string(path)
                    .map_err(|error| Failure::of(format!("read {}", path.display()), error))
            };
            let pair = Pair { cert_pem: read(cert)?, key_pem: read(key)? };
            let own = pair.cert_pem.clone();
            (pair, own)
        }
        _ => {
            let pki = Pki::open(&directory.join("pki"), clock)
                .map_err(|error| Failure::of("prepare certificates", error))?;
            let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
            if !address.ip().is_unspecified() {
                names.push(address.ip().to_string());
            }
            names.extend(options.tls_name.iter().cloned());
            names.sort();
            names.dedup();
            let pair = pki
                .keep("platform", &Leaf::server("obsyk-platform", &names))
                .map_err(|error| Failure::of("make the serving certificate", error))?;
            (pair, pki.ca_pem().to_owned())
        }
    };
    let config =
        apiserver::http::tls_config(&pair, &ca_pem).map_err(|error| Failure::of("prepare tls", error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn open(
    directory: &Path,
    options: &ObsykPlatformOptions,
    url: String,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
) -> Result<Arc<Receiver>, Failure> {
    let path = directory.join("store");
    let shown = path.display().to_string();
    let opened = tokio::task::spawn_blocking(move || EmbeddedStore::open(path)).await;
    let store = match opened {
        Ok(Ok(store)) => Arc::new(store),
        Ok(Err(error)) => return Err(Failure::of(format!("open the store in {shown}"), error)),
        Err(error) => return Err(Failure::of(format!("open the store in {shown}"), error)),
    };
    let chance: Arc<dyn Random> = match options.fault_seed {
        Some(seed) => Arc::new(Seeded::new(seed)),
        None => Arc::new(Dice::new()),
    };
    let faults = Faults::parse(&options.fault, chance).map_err(|error| Failure::usage(error.to_string()))?;
    let receiver = Receiver::open(
        store,
        Options {
            expires_in: options.token_seconds,
            batch: !options.no_batch,
            snapshots: match options.snapshots {
                Snapshots::Replace => SnapshotPolicy::Replace,
                Snapshots::Merge => SnapshotPolicy::Merge,
            },
            body_bytes_max: options.max_body_mib << 20,
            faults,
            ..Options::new(url, clock, random)
        },
    );
    receiver.await.map_err(|error| Failure::of(format!("read the inventory in {shown}"), error))
}

/// Takes over what is registered and revoked while the platform runs.
async fn follow(registry: Registry, receiver: Arc<Receiver>, stop: CancellationToken) {
    let mut seen = registry.stamp();
    while !stop.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => return,
        }
        let now = registry.stamp();
        if now == seen {
            continue;
        }
        seen = now;
        match registry.read() {
            Ok(clients) => receiver.set_clients(clients),
            Err(failure) => tracing::error!(%failure, "the clients are kept as they were"),
        }
    }
}
