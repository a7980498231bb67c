//! gRPC of the scheduler and the controller manager: TLS with the cluster's authority, on loopback only.
//!
//! Guarantees: who asks is authenticated and authorized as for the API: a client certificate or a bearer
//! token, and RBAC on resources of the group `keelson.dev` ([`RULES`]). Only health is told to anybody;
//! reflection to anybody who has proved who they are. The address is in a file of the data directory while
//! the cluster runs.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use apiserver::auth::{AUTHENTICATED, Ask, Asked, Authenticator, Authorizer, Peer, decide};
use futures::FutureExt;
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::Watcher,
};
use parking_lot::Mutex;
use resource::User;
use rpc::{
    controllermanager::controller_manager_server::ControllerManagerServer,
    scheduler::{
        QueueRequest,
        scheduler_server::{Scheduler, SchedulerServer},
    },
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, server::NamedService};
use tonic_health::server::HealthReporter;
use tower::{ServiceExt, util::BoxCloneSyncService};

use crate::{
    data_dir::DataDir,
    error::Failure,
    serve::{self, BoxError, HANDSHAKE_TIMEOUT},
    up::{components::Check, server::ApiServer},
};

/// How often the scheduler is asked whether it answers.
const PROBE_EVERY: Duration = Duration::from_secs(10);
/// Streams of one connection.
const STREAMS_MAX: u32 = 32;

/// What a method needs, as RBAC says it: a verb on a resource and subresource of `keelson.dev`.
const RULES: &[(&str, &str, &str, &str)] = &[
    ("/keelson.scheduler.v1.Scheduler/Explain", "get", "schedulers", "explain"),
    ("/keelson.scheduler.v1.Scheduler/Simulate", "create", "schedulers", "simulate"),
    ("/keelson.scheduler.v1.Scheduler/Queue", "get", "schedulers", "queue"),
    ("/keelson.controllermanager.v1.ControllerManager/List", "list", "controllers", ""),
    ("/keelson.controllermanager.v1.ControllerManager/Queues", "get", "controllers", "queues"),
    ("/keelson.controllermanager.v1.ControllerManager/Pause", "update", "controllers", "pause"),
    ("/keelson.controllermanager.v1.ControllerManager/Resume", "update", "controllers", "pause"),
    ("/keelson.controllermanager.v1.ControllerManager/Trigger", "create", "controllers", "trigger"),
];
const GROUP: &str = "keelson.dev";

type Service = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// Who may ask what, and who answers.
#[derive(Clone)]
struct Site {
    authenticator: Arc<Authenticator>,
    authorizer: Arc<dyn Authorizer>,
    services: Arc<Vec<(&'static str, Service)>>,
}

/// What is served; its task ends with the cluster.
pub(crate) struct Control {
    pub(crate) address: SocketAddr,
    /// Whether the scheduler answered when it was asked last.
    pub(crate) scheduler: Check,
    pub(crate) task: futures::future::BoxFuture<'static, ()>,
}

/// Listens on a free port of loopback, and writes which into the data directory.
pub(crate) async fn start(
    server: &ApiServer,
    data: &DataDir,
    scheduler: scheduler::Desk,
    controllers: controllers::Desk,
    stop: CancellationToken,
) -> Result<Control, Failure> {
    let failed = |error| Failure::of("listen for gRPC on 127.0.0.1", error);
    let (listener, address) = serve::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.map_err(failed)?;
    let path = data.rpc_file();
    std::fs::write(&path, address.to_string())
        .map_err(|error| Failure::of(format!("write {}", path.display()), error))?;
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ControllerManagerServer<controllers::Desk>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(rpc::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| Failure::of("prepare gRPC reflection", error))?;
    let services = vec![
        named(SchedulerServer::new(scheduler.clone())),
        named(ControllerManagerServer::new(controllers)),
        named(health),
        named(reflection),
    ];
    let (authenticator, authorizer) = server.guards();
    let site = Site { authenticator, authorizer, services: Arc::new(services) };
    let tls = TlsAcceptor::from(Arc::new(server.tls()));
    let answered = Arc::new(Mutex::new(Err("it has not been asked yet".to_owned())));
    let noted = answered.clone();
    let task = async move {
        let accept = serve::accept(listener, stop.clone(), move |stream, watcher| {
            connection(site.clone(), tls.clone(), watcher, stream)
        });
        let probe = async {
            tokio::select! {
                () = probe(scheduler, reporter, &noted) => {}
                () = stop.cancelled() => {}
            }
        };
        tokio::join!(accept, probe);
        // The file only names an address that answers.
        drop(std::fs::remove_file(path));
    };
    Ok(Control { address, scheduler: Arc::new(move || answered.lock().clone()), task: task.boxed() })
}

fn named<S>(service: S) -> (&'static str, Service)
where
    S: tower::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    (S::NAME, BoxCloneSyncService::new(service))
}

/// Keeps the scheduler's health true to whether it answers.
async fn probe(scheduler: scheduler::Desk, reporter: HealthReporter, noted: &Mutex<Result<(), String>>) {
    loop {
        let asked = scheduler.queue(tonic::Request::new(QueueRequest { limit: 1 }));
        let answered = match timeout(PROBE_EVERY, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("it does not answer".to_owned()),
        };
        noted.lock().clone_from(&answered);
        if answered.is_ok() {
            reporter.set_serving::<SchedulerServer<scheduler::Desk>>().await;
        } else {
            reporter.set_not_serving::<SchedulerServer<scheduler::Desk>>().await;
        }
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

async fn connection(
    site: Site,
    tls: TlsAcceptor,
    watcher: Watcher,
    stream: TcpStream,
) -> Result<(), BoxError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr().ok().map(|address| address.ip());
    let stream = timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = Arc::new(site.authenticator.peer(chain, address));
    let service = service_fn(move |request: Request<Incoming>| {
        let (site, peer) = (site.clone(), peer.clone());
        async move { Ok::<_, Infallible>(site.answer(&peer, request).await) }
    });
    let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
    watcher.watch(builder.serve_connection(TokioIo::new(stream), service)).await?;
    Ok(())
}

impl Site {
    async fn answer(&self, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        let of = |name: &str| {
            path.strip_prefix('/').and_then(|p| p.strip_prefix(name)).is_some_and(|r| r.starts_with('/'))
        };
        let Some((_, service)) = self.services.iter().find(|(name, _)| of(name)) else {
            return tonic::Status::unimplemented(format!("there is no method {path}")).into_http();
        };
        if let Err(status) = self.admit(peer, path, request.headers()).await {
            return status.into_http();
        }
        match service.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    async fn admit(&self, peer: &Peer, path: &str, headers: &http::HeaderMap) -> Result<(), tonic::Status> {
        if path.starts_with("/grpc.health.v1.Health/") {
            return Ok(());
        }
        let user = self
            .authenticator
            .authenticate(peer, headers, path)
            .await
            .map_err(|status| tonic::Status::unauthenticated(status.message))?;
        permit(&*self.authorizer, &user, path).await
    }
}

/// Whether a user may call a method; what no rule names only needs somebody.
async fn permit(authorizer: &dyn Authorizer, user: &User, path: &str) -> Result<(), tonic::Status> {
    let Some((_, verb, resource, subresource)) = RULES.iter().find(|(method, ..)| *method == path) else {
        return if user.groups.iter().any(|group| group == AUTHENTICATED) {
            Ok(())
        } else {
            Err(tonic::Status::unauthenticated(
                "credentials are needed: a client certificate or a bearer token",
            ))
        };
    };
    let object =
        Asked::Resource { group: GROUP, version: "v1", resource, subresource, namespace: "", name: "" };
    if decide(authorizer, &Ask::new(user, verb, object)).await.allows() {
        return Ok(());
    }
    let slash = if subresource.is_empty() { "" } else { "/" };
    Err(tonic::Status::permission_denied(format!(
        "user {:?} cannot {verb} {resource}{slash}{subresource} in API group {GROUP:?} at the cluster scope",
        user.name
    )))
}

#[cfg(test)]
mod tests {
    use apiserver::auth::{Decision, MASTERS, Rule};

    use super::*;

    /// Allows masters everything, and `viewer` to list controllers.
    struct Few;

    impl Authorizer for Few {
        fn allows(&self, ask: &Ask<'_>) -> bool {
            let list = matches!(
                ask.object,
                Asked::Resource { group: GROUP, resource: "controllers", subresource: "", .. }
            );
            ask.user.groups.iter().any(|g| g == MASTERS)
                || (ask.user.name == "viewer" && ask.verb == "list" && list)
        }
        fn decide(&self, ask: &Ask<'_>) -> Decision {
            let why = String::new();
            if self.allows(ask) { Decision::Allow(why) } else { Decision::NoOpinion(why) }
        }
        fn rules(&self, _: &User, _: &str) -> Vec<Rule> {
            Vec::new()
        }
    }

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            groups: groups.iter().map(ToString::to_string).collect(),
            ..User::default()
        }
    }

    fn permit_now(authorizer: &Few, user: &User, path: &str) -> Result<(), tonic::Status> {
        permit(authorizer, user, path).now_or_never().unwrap()
    }

    #[test]
    fn every_method_has_a_rule_and_only_the_permitted_pass() {
        let services = ["keelson.scheduler.v1.Scheduler/", "keelson.controllermanager.v1.ControllerManager/"];
        assert_eq!(RULES.len(), 8);
        assert!(
            RULES.iter().all(|(method, ..)| services.iter().any(|s| method.starts_with(&format!("/{s}"))))
        );
        for (method, ..) in RULES {
            assert!(permit_now(&Few, &user("admin", &[MASTERS, AUTHENTICATED]), method).is_ok(), "{method}");
            let refused = permit_now(&Few, &user("somebody", &[AUTHENTICATED]), method).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::PermissionDenied, "{method}");
            let may = method.ends_with("/List");
            assert_eq!(permit_now(&Few, &user("viewer", &[AUTHENTICATED]), method).is_ok(), may, "{method}");
        }
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert!(permit_now(&Few, &user("somebody", &[AUTHENTICATED]), reflection).is_ok());
        assert!(
            permit_now(&Few, &user("system:anonymous", &["system:unauthenticated"]), reflection).is_err()
        );
    }
}
