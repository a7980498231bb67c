//! `keelson operator NAME...`: operators alone, against any cluster, one leader at a time.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use meta::{Clock, Random};
use parking_lot::Mutex;
use reconcile::{Context, LeaseLock, LeaseOptions};
use tokio_util::sync::CancellationToken;

use crate::{
    cli::OperatorOptions,
    clock::{Dice, System},
    counters::Counters,
    error::Failure,
    operators::{Operator, choose},
    serve::{self, Site},
    signals, term,
};

/// A Lease that was just taken and cannot be read is read again after this.
const FENCE_AGAIN: Duration = Duration::from_secs(1);
/// Those who look at health and metrics send no bodies.
const LOOK_BODY_BYTES_MAX: usize = 4096;

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
            if let Some(fence) = fence(&leases, &lease, &leading).await {
                run(&operators, fence, &context, &counters, leading).await;
            }
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

/// A number that is larger than that of any leader before: when the Lease was made, and how often it has changed
/// hands since. Read until it can be, since one too small would be that of a leader that was deposed. None when
/// this replica leads no more.
async fn fence(leases: &Api<Lease>, lease: &str, leading: &CancellationToken) -> Option<u64> {
    loop {
        match leases.get(lease).await {
            Ok(lease) => {
                let transitions = lease.spec.and_then(|spec| spec.lease_transitions).unwrap_or(0);
                let made = lease.metadata.creation_timestamp.map_or(0, |time| time.0.as_second());
                return Some(number(made, transitions));
            }
            Err(error) => tracing::warn!(
                lease,
                error = reconcile::text(&error),
                "cannot read how often the lease changed hands"
            ),
        }
        tokio::select! {
            () = tokio::time::sleep(FENCE_AGAIN) => {}
            () = leading.cancelled() => return None,
        }
    }
}

/// The transitions are the lower 20 bits. What comes of that is exact in JSON for some centuries.
pub(crate) fn number(since: i64, transitions: i32) -> u64 {
    let transitions = u64::try_from(transitions).unwrap_or(0).min((1 << 20) - 1);
    (u64::try_from(since).unwrap_or(0) << 20) | transitions
}

async fn run(
    operators: &[&Operator],
    fence: u64,
    context: &Context,
    counters: &Mutex<Counters>,
    leading: CancellationToken,
) {
    let all = {
        let mut counters = counters.lock();
        operators.iter().flat_map(|operator| counters.count((operator.start)(fence))).collect()
    };
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
        "/metrics" => *response.body_mut() = counters.lock().text().into(),
        _ => {
            *response.status_mut() = StatusCode::NOT_FOUND;
            *response.body_mut() = Bytes::from_static(b"there are /healthz, /readyz and /metrics");
        }
    }
    response
}
