//! `keelson operator NAME...`: operators alone, against any cluster, one leader at a time.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use meta::{Clock, Random};
use parking_lot::Mutex;
use reconcile::{Context, LeaseLock, LeaseOptions, MetricsSnapshot};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::OperatorOptions,
    clock::{Dice, System},
    error::Failure,
    operators::{MetricsText, Operator, choose},
    serve::{self, Site},
    signals, term,
};

/// Those who look at health and metrics send no bodies.
const LOOK_BODY_BYTES_MAX: usize = 4096;

type Counted = Box<dyn Fn() -> MetricsSnapshot + Send + Sync>;

/// What is counted while this replica leads.
#[derive(Default)]
struct Counters {
    controllers: Vec<Counted>,
    operators: Vec<MetricsText>,
}

pub(crate) async fn operator(options: OperatorOptions) -> Result<(), Failure> {
    let operators = choose(&options.names)?;
    let names: Vec<&str> = operators.iter().map(|operator| operator.name).collect();
    let stop = CancellationToken::new();
    let _signals = signals::stop_on_signal(stop.clone())?;
    let client = client(&options).await?;
    let clock: Arc<dyn Clock> = Arc::new(System);
    let random: Arc<dyn Random> = Arc::new(Dice::new());
    let counters = Arc::new(Mutex::new(Counters::default()));
    let (listener, address) = serve::bind(options.health)
        .await
        .map_err(|error| Failure::of(format!("listen on {}", options.health), error))?;
    let looked = counters.clone();
    let site = Site {
        tls: None,
        body_bytes_max: LOOK_BODY_BYTES_MAX,
        handler: serve::plain(move |request| look(&looked, request)),
    };
    let served = tokio::spawn(serve::serve(listener, site, stop.clone()));
    term::line(&format!("ready: {} (health and metrics on http://{address})", names.join(", ")));

    let identity = options.identity.clone().unwrap_or_else(|| format!("keelson-{}", random.suffix(8)));
    let lease = format!("keelson-operator-{}", names.join("-"));
    let lock = LeaseLock::new(
        client.clone(),
        clock.clone(),
        LeaseOptions::new(&options.namespace, &lease, identity),
    );
    let leases: Api<Lease> = Api::namespaced(client.clone(), &options.namespace);
    let context = Context::new(client, clock, random);
    let kept = lock
        .lead(&stop, |leading| async {
            // Each new leader has a larger number: a platform refuses sessions to the ones before.
            let fence = leases.get(&lease).await.ok().and_then(|lease| lease.spec?.lease_transitions);
            run(
                &operators,
                fence.and_then(|fence| u64::try_from(fence).ok()).unwrap_or(0),
                &context,
                &counters,
                leading,
            )
            .await;
        })
        .await;
    context.stores.shutdown().await;
    stop.cancel();
    // It was told to stop.
    drop(served.await);
    if kept {
        Ok(())
    } else {
        Err(Failure::new("another replica leads now").advise("this one starts again as its standby"))
    }
}

async fn run(
    operators: &[&Operator],
    fence: u64,
    context: &Context,
    counters: &Mutex<Counters>,
    leading: CancellationToken,
) {
    let mut all = Vec::new();
    {
        let mut counters = counters.lock();
        for operator in operators {
            let started = (operator.start)(fence);
            let counted =
                started.controllers.iter().map(|controller| Box::new(controller.metrics()) as Counted);
            counters.controllers.extend(counted);
            counters.operators.extend(started.metrics);
            all.extend(started.controllers);
        }
    }
    reconcile::run(all, context.clone(), leading).await;
}

async fn client(options: &OperatorOptions) -> Result<Client, Failure> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let failed = |error| Failure::of(format!("read {}", path.display()), error);
            let file = Kubeconfig::read_from(path).map_err(failed)?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(failed)?
        }
        None => Config::incluster().map_err(|error| {
            Failure::of("find the cluster that this runs in", error)
                .advise("or name one with --kubeconfig FILE")
        })?,
    };
    Client::try_from(config).map_err(|error| Failure::of("make a client of the cluster", error))
}

/// Health says that the process answers; what a platform or database does is in conditions, and no reason to
/// start this again.
fn look(counters: &Mutex<Counters>, request: &Request<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from_static(b"ok"));
    match request.uri().path() {
        "/healthz" | "/readyz" => {}
        "/metrics" => *response.body_mut() = metrics(&counters.lock()).into(),
        _ => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Bytes::from_static(b"there are /healthz, /readyz and /metrics");
        }
    }
    response
}

type Number = fn(&MetricsSnapshot) -> u64;

const SERIES: &[(&str, &str, Number)] = &[
    ("reconciles_total", "counter", |m| m.reconciles),
    ("errors_total", "counter", |m| m.errors),
    ("conflicts_total", "counter", |m| m.conflicts),
    ("writes_total", "counter", |m| m.writes),
    ("queued", "gauge", |m| m.queued),
    ("active", "gauge", |m| m.active),
];

fn metrics(counters: &Counters) -> String {
    let snapshots: Vec<MetricsSnapshot> = counters.controllers.iter().map(|counted| counted()).collect();
    let mut text = String::new();
    for (name, kind, number) in SERIES {
        text.push_str(&format!("# TYPE keelson_controller_{name} {kind}\n"));
        for snapshot in &snapshots {
            let (controller, value) = (snapshot.name, number(snapshot));
            text.push_str(&format!("keelson_controller_{name}{{controller=\"{controller}\"}} {value}\n"));
        }
    }
    counters.operators.iter().for_each(|of| text.push_str(&of()));
    text
}
