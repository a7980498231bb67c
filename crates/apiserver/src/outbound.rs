//! HTTPS to services that the server asks: webhooks and token issuers.
//!
//! Guarantees: only `https`; the other side is verified; a call ends within its time; no more than
//! [`ANSWER_BYTES_MAX`] of an answer are read; redirects are not followed. One connection a call: what is
//! asked often is remembered by those who ask.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::{
    http::{TlsError, Trust, client_config},
    pki::Pair,
};

/// Longest answer that is read. An issuer's keys and a webhook's review have a thousandth of it.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum OutboundError {
    #[error("{0:?} is not an https URL with a host")]
    Url(String),
    #[error("connect to {host}")]
    Connect {
        host: String,
        #[source]
        source: std::io::Error,
    },
    #[error("talk to {host}")]
    Http {
        host: String,
        #[source]
        source: hyper::Error,
    },
    #[error("{host} did not answer within {seconds} s")]
    Slow { host: String, seconds: u64 },
    #[error("the answer of {0} is longer than 1 MiB")]
    TooLong(String),
}

/// A client for one service.
#[derive(Clone)]
pub struct Outbound {
    tls: TlsConnector,
    headers: HeaderMap,
    time: Duration,
}

impl Outbound {
    /// Trusts the authorities of `ca_pem` alone, or without it those of the system; presents `login` where it is
    /// asked to. A call takes at most `time`.
    pub fn new(ca_pem: Option<&str>, login: Option<&Pair>, time: Duration) -> Result<Self, TlsError> {
        let trust = ca_pem.map_or(Trust::System, |pem| Trust::Authorities(pem.as_bytes()));
        let config = client_config(trust, login)?;
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), headers: HeaderMap::new(), time })
    }

    /// Sends a header with every request.
    #[must_use]
    pub fn with_header(mut self, name: http::HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// GET.
    pub async fn get(&self, url: &str) -> Result<(StatusCode, Bytes), OutboundError> {
        self.send(Method::GET, url, Bytes::new()).await
    }

    /// POST of JSON.
    pub async fn post(&self, url: &str, json: Bytes) -> Result<(StatusCode, Bytes), OutboundError> {
        self.send(Method::POST, url, json).await
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), OutboundError> {
        let bad = || OutboundError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let host = uri.host().map(|host| host.trim_matches(['[', ']']).to_owned()).ok_or_else(bad)?;
        if uri.scheme_str() != Some("https") {
            return Err(bad());
        }
        // On the heap: all who may ask, which is every request, would carry its state.
        let answer = Box::pin(self.exchange(method, &uri, &host, body));
        tokio::time::timeout(self.time, answer)
            .await
            .map_err(|_| OutboundError::Slow { host: host.clone(), seconds: self.time.as_secs() })?
    }

    async fn exchange(
        &self,
        method: Method,
        uri: &Uri,
        host: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), OutboundError> {
        let connect = |source| OutboundError::Connect { host: host.to_owned(), source };
        let http = |source| OutboundError::Http { host: host.to_owned(), source };
        let bad = || OutboundError::Url(uri.to_string());
        let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(443))).await.map_err(connect)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| bad())?;
        let stream = self.tls.connect(name, stream).await.map_err(connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let authority = uri.authority().map_or(host, http::uri::Authority::as_str);
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, authority)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| bad())?;
        request.headers_mut().extend(self.headers.clone());
        let answer = async {
            let mut answer = sender.send_request(request).await.map_err(http)?;
            let mut bytes = BytesMut::new();
            while let Some(frame) = answer.body_mut().frame().await {
                let Ok(data) = frame.map_err(http)?.into_data() else { continue };
                if bytes.len() + data.len() > ANSWER_BYTES_MAX {
                    return Err(OutboundError::TooLong(host.to_owned()));
                }
                bytes.extend_from_slice(&data);
            }
            Ok((answer.status(), bytes.freeze()))
        };
        // The connection lives as long as this call.
        let mut connection = std::pin::pin!(connection);
        let mut answer = std::pin::pin!(answer);
        tokio::select! {
            answered = &mut answer => return answered,
            ended = &mut connection => ended.map_err(http)?,
        }
        answer.await
    }
}
