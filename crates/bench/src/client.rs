//! HTTP/2 over TLS, with as little work for an answer as can be: its status, its length, and its
//! first bytes.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    failure::{Failure, Result},
    target::Target,
};

/// What is kept of an answer: enough for an object's metadata or an error.
const HEAD_BYTES: usize = 4 << 10;
/// Flow-control windows: an answer of a list of 5,000 does not wait for the reader.
const STREAM_WINDOW: u32 = 8 << 20;
const CONNECTION_WINDOW: u32 = 64 << 20;

/// Connections to one server. Clones share them.
#[derive(Clone)]
pub(crate) struct Client {
    connections: Vec<http2::SendRequest<Full<Bytes>>>,
    authority: String,
    authorization: Option<String>,
}

/// What is kept of an answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: Vec<u8>,
    pub(crate) length: usize,
}

impl Client {
    /// Opens that many connections.
    pub(crate) async fn connect(target: &Target, connections: usize) -> Result<Self> {
        let open = (0..connections.max(1)).map(|_| connect(target));
        Ok(Self {
            connections: futures::future::try_join_all(open).await?,
            authority: target.authority.clone(),
            authorization: target.token.as_ref().map(|token| format!("Bearer {token}")),
        })
    }

    /// Sends a request on connection number `lane`, wrapping around, and gives the answer as soon as
    /// its head is there. A patch is a merge patch. A refusal is an error with the start of its body.
    pub(crate) async fn send(
        &self,
        lane: usize,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::builder()
            .method(method.clone())
            .uri(format!("https://{}{path}", self.authority))
            .header(header::ACCEPT, "application/json");
        if !body.is_empty() {
            let form =
                if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
            request = request.header(header::CONTENT_TYPE, form);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::new(body)).map_err(Failure::Request)?;
        let at = lane.checked_rem(self.connections.len()).unwrap_or(0);
        let Some(mut connection) = self.connections.get(at).cloned() else {
            return Err(Failure::NoHttp2 { to: self.authority.clone() });
        };
        let doing = "send a request";
        connection.ready().await.map_err(|source| Failure::Http { doing, source })?;
        let response =
            connection.send_request(request).await.map_err(|source| Failure::Http { doing, source })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let Reply { head, length: _ } = read(response).await?;
        Err(Failure::Refused { method, path: path.to_owned(), status, body: message(status, &head) })
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&self, lane: usize, method: Method, path: &str, body: Bytes) -> Result<Reply> {
        read(self.send(lane, method, path, body).await?).await
    }

    /// Reads an answer that is a small JSON document.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Bytes) -> Result<serde_json::Value> {
        let response = self.send(0, method, path, body).await?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|source| Failure::Http { doing: "read an answer", source })?.to_bytes();
        serde_json::from_slice(&body)
            .map_err(|error| Failure::Answer { path: path.to_owned(), why: error.to_string() })
    }
}

async fn connect(target: &Target) -> Result<http2::SendRequest<Full<Bytes>>> {
    let to = || target.authority.clone();
    let tcp = TcpStream::connect(&target.authority)
        .await
        .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
        .map_err(|source| Failure::Connect { to: to(), source })?;
    let tls = TlsConnector::from(target.tls.clone())
        .connect(target.name.clone(), tcp)
        .await
        .map_err(|source| Failure::Connect { to: to(), source })?;
    if tls.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(Failure::NoHttp2 { to: to() });
    }
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(64 << 10)
        .handshake(TokioIo::new(tls))
        .await
        .map_err(|source| Failure::Http { doing: "begin HTTP/2", source })?;
    // Ends when the last sender is dropped; a broken connection shows in the requests on it.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: Response<Incoming>) -> Result<Reply> {
    let mut reply = Reply { head: Vec::new(), length: 0 };
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|source| Failure::Http { doing: "read an answer", source })?;
        if let Ok(data) = frame.into_data() {
            let room = HEAD_BYTES - reply.head.len();
            reply.head.extend_from_slice(data.get(..room.min(data.len())).unwrap_or_default());
            reply.length += data.len();
        }
    }
    Ok(reply)
}

/// The message of a `Status`, or what there is instead.
fn message(status: StatusCode, head: &[u8]) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(head).ok();
    let message = parsed.as_ref().and_then(|body| body.get("message")?.as_str());
    match message {
        Some(message) => message.to_owned(),
        None if head.is_empty() => status.to_string(),
        None => String::from_utf8_lossy(head.get(..200).unwrap_or(head)).into_owned(),
    }
}

/// The number behind the first `"resourceVersion":"` of an object.
pub(crate) fn resource_version(json: &[u8]) -> Option<u64> {
    const FIELD: &[u8] = b"\"resourceVersion\":\"";
    let at = memchr::memmem::find(json, FIELD)?;
    let digits = json.get(at + FIELD.len()..)?;
    let end = memchr::memchr(b'"', digits)?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_resource_versions() {
        let check = |json: &str, expected| assert_eq!(resource_version(json.as_bytes()), expected, "{json}");
        check(r#"{"metadata":{"name":"a","resourceVersion":"42"},"data":{}}"#, Some(42));
        check(r#"{"metadata":{"name":"a"}}"#, None);
        check(r#"{"metadata":{"resourceVersion":"#, None);
        check(r#"{"metadata":{"resourceVersion":"12"#, None);
    }
}
