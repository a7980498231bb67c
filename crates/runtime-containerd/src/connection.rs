//! gRPC over containerd's unix socket: one call, its time limit, and how a gRPC status becomes an
//! [`Error`]. The channel reconnects by itself when containerd was restarted.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use runtime::{Error, ErrorKind, Result, Step};
use tokio::net::UnixStream;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    metadata::MetadataValue,
    transport::{Channel, Endpoint, Uri},
};
use tonic_prost::ProstCodec;

/// For questions: they are answered from memory.
pub(crate) const QUICK: Duration = Duration::from_secs(15);

/// For steps that start programs (runc, CNI plugins) on a busy machine; the kubelet's default
/// `runtimeRequestTimeout`.
pub(crate) const SLOW: Duration = Duration::from_secs(120);

/// For pulls, which depend on the size of the image and on the network.
pub(crate) const PULL: Duration = Duration::from_secs(30 * 60);

/// Largest answer that is read: a list of some ten thousand containers, or 16 MiB of exec output on
/// each stream, containerd's own bound.
const ANSWER_BYTES_MAX: usize = 40 << 20;

/// containerd's namespace for CRI.
pub(crate) const NAMESPACE: &str = "k8s.io";

/// A connection to one socket. Cloning shares it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    channel: Channel,
    socket: PathBuf,
}

impl Connection {
    /// A connection that is made when it is first used. Must be called within a tokio runtime.
    pub(crate) fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        // The name is never resolved; the connector knows where to go.
        let endpoint = Endpoint::from_static("http://localhost");
        Self { channel: endpoint.connect_with_connector_lazy(connector), socket: socket.to_owned() }
    }

    /// Where containerd listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// One call. `about` names the step and its subject for the error.
    pub(crate) async fn call<Q, A>(
        &self,
        about: (Step, &str),
        path: &'static str,
        request: Q,
        limit: Duration,
    ) -> Result<A>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let called = async {
            let mut client = self.client();
            client.ready().await.map_err(|error| Status::unavailable(words(&error)))?;
            let answer =
                client.unary(namespaced(request), path_of(path), ProstCodec::<Q, A>::default()).await?;
            Ok(answer.into_inner())
        };
        match tokio::time::timeout(limit, called).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) => Err(self.error(about, status)),
            Err(_elapsed) => {
                let message = format!("containerd did not answer within {} s", limit.as_secs());
                Err(Error::new(about.0, about.1, ErrorKind::TimedOut, message))
            }
        }
    }

    /// A call that answers a stream. Resolves with the first message, since containerd sends no headers
    /// before.
    pub(crate) async fn stream<Q, A>(
        &self,
        path: &'static str,
        request: Q,
    ) -> std::result::Result<Streaming<A>, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let mut client = self.client();
        client.ready().await.map_err(|error| Status::unavailable(words(&error)))?;
        let codec = ProstCodec::<Q, A>::default();
        Ok(client.server_streaming(namespaced(request), path_of(path), codec).await?.into_inner())
    }

    fn client(&self) -> Grpc<Channel> {
        Grpc::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    fn error(&self, (step, subject): (Step, &str), status: Status) -> Error {
        let kind = match status.code() {
            Code::NotFound => ErrorKind::NotFound,
            Code::InvalidArgument | Code::AlreadyExists | Code::OutOfRange => ErrorKind::Invalid,
            Code::Unimplemented => ErrorKind::NotSupported,
            Code::Unavailable => ErrorKind::Unavailable,
            Code::DeadlineExceeded => ErrorKind::TimedOut,
            Code::Unauthenticated | Code::PermissionDenied => ErrorKind::Unauthorized,
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::DataLoss => ErrorKind::Internal,
        };
        let message = if kind == ErrorKind::Unavailable {
            format!("containerd at {} cannot be reached: {}", self.socket.display(), status.message())
        } else {
            status.message().to_owned()
        };
        Error::new(step, subject, kind, message).with_source(status)
    }
}

fn path_of(path: &'static str) -> http::uri::PathAndQuery {
    http::uri::PathAndQuery::from_static(path)
}

fn namespaced<Q>(message: Q) -> Request<Q> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("containerd-namespace", MetadataValue::from_static(NAMESPACE));
    request
}

/// An error with its causes; tonic's transport errors say nothing by themselves.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
