//! Unary calls over gRPC without TLS: to collectors of traces over TCP, to KMS plugins over unix sockets.
//!
//! Bounds: one connection, made when it is first needed and again after it ended; each call ends in the time the channel
//! was given, and reads no more than [`ANSWER_BYTES_MAX`].

use std::{fmt, path::PathBuf, time::Duration};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    sync::Mutex,
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

/// What is read of an answer, at most.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// `HOST:PORT`.
    Tcp(String),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("{target}: {why}")]
    Unreachable { target: String, why: String },
    #[error("{target} did not answer within {limit:?}")]
    TimedOut { target: String, limit: Duration },
    #[error("{target} answers gRPC status {code}: {message}")]
    Status { target: String, code: String, message: String },
}

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    _driver: AbortOnDropHandle<()>,
}

/// A way to call one server. Calls may run side by side.
pub(crate) struct Channel {
    target: Target,
    limit: Duration,
    connection: Mutex<Option<Connection>>,
}

impl Channel {
    /// Connects when the first call needs it.
    pub(crate) fn new(target: Target, limit: Duration) -> Self {
        Self { target, limit, connection: Mutex::new(None) }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Calls a method (`/PACKAGE.SERVICE/METHOD`).
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        let called = timeout(self.limit, self.exchange(method, message)).await;
        let called = called.unwrap_or_else(|_| {
            Err(CallError::TimedOut { target: self.target.to_string(), limit: self.limit })
        });
        if matches!(called, Err(CallError::Unreachable { .. } | CallError::TimedOut { .. })) {
            *self.connection.lock().await = None;
        }
        called
    }

    async fn exchange<A: Message + Default>(
        &self,
        method: &str,
        message: &impl Message,
    ) -> Result<A, CallError> {
        let request = self.request(method, message)?;
        let mut sender = self.sender().await?;
        let answer = sender.send_request(request).await.map_err(|error| self.failed(&error))?;
        let (parts, body) = answer.into_parts();
        if parts.status != 200 {
            return Err(self.failed(&format!("answers {}", parts.status)));
        }
        let read = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let read = read.map_err(|error| self.failed(&error))?;
        let (code, message) = said(&parts.headers)
            .or_else(|| read.trailers().and_then(said))
            .ok_or_else(|| self.failed(&"the answer is no gRPC"))?;
        if code != "0" {
            return Err(CallError::Status { target: self.target.to_string(), code, message });
        }
        let mut body = read.to_bytes();
        // A flag, which says that nothing is compressed, and the length.
        if body.len() < 5 || body.get_u8() != 0 || body.get_u32() as usize != body.len() {
            return Err(self.failed(&"the answer is no gRPC message"));
        }
        A::decode(body).map_err(|error| self.failed(&error))
    }

    fn request(&self, method: &str, message: &impl Message) -> Result<Request<Full<Bytes>>, CallError> {
        let length = message.encoded_len();
        let mut body = BytesMut::with_capacity(length + 5);
        body.put_u8(0);
        body.put_u32(u32::try_from(length).map_err(|error| self.failed(&error))?);
        message.encode(&mut body).map_err(|error| self.failed(&error))?;
        let authority = match &self.target {
            Target::Tcp(address) => address,
            Target::Unix(_) => "localhost",
        };
        Request::post(format!("http://{authority}{method}"))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"))
            .header(header::TE, HeaderValue::from_static("trailers"))
            .body(Full::new(body.freeze()))
            .map_err(|error| self.failed(&error))
    }

    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let mut connection = self.connection.lock().await;
        if let Some(open) = connection.as_ref().filter(|open| !open.sender.is_closed()) {
            return Ok(open.sender.clone());
        }
        let made = match &self.target {
            Target::Tcp(address) => {
                self.handshake(TcpStream::connect(address).await.map_err(|error| self.failed(&error))?).await
            }
            Target::Unix(path) => {
                self.handshake(UnixStream::connect(path).await.map_err(|error| self.failed(&error))?).await
            }
        }?;
        Ok(connection.insert(made).sender.clone())
    }

    async fn handshake(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Connection, CallError> {
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| self.failed(&error))?;
        let target = self.target.to_string();
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, target, "connection ended");
            }
        });
        Ok(Connection { sender, _driver: AbortOnDropHandle::new(driver) })
    }

    fn failed(&self, why: &dyn fmt::Display) -> CallError {
        CallError::Unreachable { target: self.target.to_string(), why: why.to_string() }
    }
}

/// The status of a call in headers or trailers.
fn said(headers: &HeaderMap) -> Option<(String, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    text("grpc-status").map(|code| (code, text("grpc-message").unwrap_or_default()))
}
