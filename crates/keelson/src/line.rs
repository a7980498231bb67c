//! The client's side of the gRPC of scheduler and controller manager: one connection, with the credentials
//! of a kubeconfig.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use http::{HeaderValue, Request, Response, Uri, header::AUTHORIZATION};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::{
    Config,
    client::ConfigExt,
    config::{KubeConfigOptions, Kubeconfig},
};
use rustls::pki_types::ServerName;
use tokio::{net::TcpStream, time::timeout};
use tonic::body::Body;

use crate::{cli::ReachOptions, data_dir::DataDir, error::Failure};

/// How long the cluster may take to answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer: every node of a large cluster with every score.
pub(crate) const ANSWER_MAX: usize = 64 << 20;

/// A connection that speaks gRPC.
#[derive(Clone)]
pub(crate) struct Line {
    sender: SendRequest<Body>,
    token: Option<HeaderValue>,
    pub(crate) origin: Uri,
}

/// Connects to the cluster of a data directory, or to the address that is given.
pub(crate) async fn connect(options: &ReachOptions) -> Result<Line, Failure> {
    let data = DataDir::locate(&options.data)?;
    let path = options.kubeconfig.clone().unwrap_or_else(|| data.kubeconfig());
    if !path.exists() {
        return Err(Failure::new(format!("there is no cluster in {}", data.path().display())).advise(
            "start one with `keelson up`, or name another with --data-dir, or --kubeconfig and --rpc",
        ));
    }
    let address = match options.rpc {
        Some(address) => address,
        None => recorded(&data)?,
    };
    timeout(PATIENCE, dial(&path, address)).await.unwrap_or_else(|_| Err(silent(address)))
}

fn recorded(data: &DataDir) -> Result<SocketAddr, Failure> {
    let file = data.rpc_file();
    let stopped = || {
        Failure::new(format!("the cluster in {} does not run", data.path().display()))
            .advise("start it with `keelson up`, or name the address of another with --rpc")
    };
    let text = std::fs::read_to_string(&file).map_err(|_| stopped())?;
    text.trim().parse().map_err(|_| Failure::new(format!("{} holds no address", file.display())))
}

fn silent(address: SocketAddr) -> Failure {
    Failure::new(format!("nothing answers on {address}"))
        .advise("is the cluster running? `keelson status` says")
}

async fn dial(kubeconfig: &Path, address: SocketAddr) -> Result<Line, Failure> {
    let unreadable = |error| Failure::of(format!("read {}", kubeconfig.display()), error);
    let parsed = Kubeconfig::read_from(kubeconfig).map_err(unreadable)?;
    let config =
        Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.map_err(unreadable)?;
    let mut tls = config
        .rustls_client_config()
        .map_err(|error| Failure::of(format!("use the certificates of {}", kubeconfig.display()), error))?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await.map_err(|_| silent(address))?;
    let name = ServerName::IpAddress(address.ip().into());
    let failed = |error| {
        Failure::of(format!("connect to {address}"), error)
            .advise("is it the cluster that this kubeconfig is for?")
    };
    let stream =
        tokio_rustls::TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(failed)?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| Failure::of(format!("speak with {address}"), error))?;
    // Ends with the line; what fails shows in the call that it fails.
    drop(tokio::spawn(connection.map(drop)));
    let origin = Uri::builder()
        .scheme("https")
        .authority(address.to_string())
        .path_and_query("/")
        .build()
        .map_err(|error| Failure::of("name the server", error))?;
    Ok(Line { sender, token: token(&config), origin })
}

/// The bearer token of a kubeconfig, if that is what it has.
fn token(config: &Config) -> Option<HeaderValue> {
    let login = serde_json::to_value(&config.auth_info).ok()?;
    let field = |name: &str| login.get(name).and_then(serde_json::Value::as_str).map(str::to_owned);
    let token = field("token").or_else(|| std::fs::read_to_string(field("tokenFile")?).ok())?;
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.trim())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl tower::Service<Request<Body>> for Line {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        self.sender.send_request(request).boxed()
    }
}

/// What a refusal says, and what to do.
pub(crate) fn refused(what: &str, status: &tonic::Status) -> Failure {
    let failure = Failure::new(format!("{what}: {}", status.message()));
    match status.code() {
        tonic::Code::PermissionDenied => failure.advise("bind a ClusterRole that allows it to this user"),
        tonic::Code::Unauthenticated => failure.advise("use a kubeconfig of this cluster"),
        _ => failure,
    }
}
