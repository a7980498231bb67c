//! What an API server stands on, and `keelson apiserver`: one that is alone in its process.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use apiserver::trace::TracingConfiguration;
use meta::{Clock, Random};

use crate::{
    cli::{ApiserverOptions, ObserveOptions, StoreOptions},
    clock::{Dice, System},
    data_dir::DataDir,
    error::Failure,
    place::Place,
    term::{self, Steps},
    up::{
        bootstrap::{self, Addresses},
        components,
        server::ApiServer,
        until_stopped, usage,
    },
};

/// Where an API server has its objects and keys, and where it is reached.
pub(crate) struct Stand {
    pub(crate) place: Place,
    /// The authority and the token key.
    pub(crate) authority: PathBuf,
    pub(crate) listen: SocketAddr,
    /// Under what address clients reach it, where that is another.
    pub(crate) advertise: Option<(String, u16)>,
    /// Further addresses by which pods and other machines reach it.
    pub(crate) extra: Vec<String>,
    /// Which requests are traced; `None` for none.
    pub(crate) tracing: Option<TracingConfiguration>,
    /// What priority levels share.
    pub(crate) seats: u64,
}

impl Stand {
    pub(crate) fn of(
        store: &StoreOptions,
        seats: u64,
        data: &DataDir,
        listen: SocketAddr,
        advertise: Option<(String, u16)>,
        mut extra: Vec<String>,
    ) -> Result<Self, Failure> {
        let authority = match &store.pki_dir {
            Some(path) => std::path::absolute(path)
                .map_err(|error| Failure::of(format!("find {}", path.display()), error))?,
            None => data.pki(),
        };
        extra.extend(advertise.iter().map(|(host, _)| host.clone()));
        Ok(Self { place: Place::of(store, data)?, authority, listen, advertise, extra, tracing: None, seats })
    }

    /// Traces what the file of a flag says.
    pub(crate) fn traced(mut self, observe: &ObserveOptions) -> Result<Self, Failure> {
        if let Some(path) = &observe.tracing_config_file {
            let doing = || format!("read {} of --tracing-config-file", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| Failure::of(doing(), error))?;
            let read = TracingConfiguration::parse(&text).map_err(|error| Failure::of(doing(), error))?;
            self.tracing = Some(read);
        }
        Ok(self)
    }
}

/// Parts that have a kubeconfig of their own: each is the user that upstream's policy knows.
const PARTS: &[&str] = &["kube-scheduler", "kube-controller-manager"];

pub(crate) async fn apiserver(options: ApiserverOptions) -> Result<(), Failure> {
    until_stopped(|stop| async move {
        let ApiserverOptions {
            data,
            listen,
            advertise,
            node,
            shutdown_delay_seconds,
            store,
            observe,
            inflight,
            security,
        } = options;
        security.check()?;
        let seats = inflight.seats()?;
        let data = DataDir::locate(&data)?;
        data.prepare()?;
        let stand = Stand::of(&store, seats, &data, listen, advertise.clone(), Vec::new())?;
        let stand = stand.traced(&observe)?;
        let (clock, random): (Arc<dyn Clock>, Arc<dyn Random>) = (Arc::new(System), Arc::new(Dice::new()));
        let mut steps = Steps::begin();
        let server = ApiServer::start(&data, &stand, &security, &clock, &random, &mut steps).await?;
        let served = async {
            let api = reached(advertise.as_ref(), server.address);
            bootstrap::services(&server.rest, Addresses { api, dns: None }).await?;
            bootstrap::objects(&server.rest, bootstrap::nodes()).await?;
            bootstrap::objects(&server.rest, bootstrap::parts()).await?;
            for part in PARTS {
                server.write_part_kubeconfig(part, &data.part_kubeconfig(part))?;
            }
            server.write_node_kubeconfigs(&node, &data)?;
            term::line(&format!("ready in {} ms: https://{}", steps.elapsed_ms(), server.address));
            let part = |name| components::lease(&server.rest, name);
            components::show(&server.rest, part("kube-scheduler"), part("kube-controller-manager"));
            let (_, asking) = usage::show(&server, stop.clone());
            let asking = tokio::spawn(asking);
            tokio::select! {
                () = stop.cancelled() => server.retire(Duration::from_secs(shutdown_delay_seconds)).await,
                () = server.broken() => {}
            }
            asking.abort();
            server.is_broken()
        };
        let served = served.await;
        server.stop().await;
        served?;
        term::line("stopped");
        Ok(())
    })
    .await
}

/// Where pods on other machines reach the API server, or several behind one address: what the Service `kubernetes`
/// leads to. `None` where that is a name, or only this machine.
fn reached(advertise: Option<&(String, u16)>, listens: SocketAddr) -> Option<SocketAddr> {
    let address = match advertise {
        Some((host, port)) => SocketAddr::new(host.parse::<IpAddr>().ok()?, *port),
        None => listens,
    };
    (!address.ip().is_loopback() && !address.ip().is_unspecified()).then_some(address)
}
