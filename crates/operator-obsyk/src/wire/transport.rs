//! HTTP behind a trait, so that a test is the network; and the real one, hyper over rustls.
//!
//! The real one follows no redirects (a bearer token must not travel to where a redirect points) and knows
//! no proxies; system roots, TLS 1.2 and up, `http://` as written.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use meta::Timestamp;
use rustls::CertificateError;

use super::batch::OFFERED;

/// Of most answers, so much is read: a token response is smaller, an error text need not be longer.
pub const REPLY_BYTES_MAX: usize = 4096;

/// The body of a request.
pub type Body = UnsyncBoxBody<Bytes, Aborted>;

/// A body that ended before its end: the request must not count as sent.
#[derive(Debug, thiserror::Error)]
#[error("the body was not finished: {0}")]
pub struct Aborted(pub String);

/// A body that is there already.
pub fn full(bytes: Bytes) -> Body {
    Full::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// What of an answer matters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The header `Retry-After` as it came.
    pub retry_after: Option<String>,
    /// The header `Date`: the platform's clock.
    pub date: Option<Timestamp>,
    /// What the header `Obsyk-Capabilities` says.
    pub capabilities: Option<String>,
    /// The beginning of the body, as much as was asked for.
    pub body: Bytes,
}

/// No answer: no connection, TLS, a broken stream.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct HttpError {
    /// What happened, with its causes.
    pub text: String,
    /// What is wrong with the certificate, when that is what happened.
    pub certificate: Option<Certificate>,
}

impl HttpError {
    /// Anything but a certificate.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), certificate: None }
    }
}

/// Why a server is not taken for the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// No trusted authority vouches for it.
    Stranger,
    /// It is for other names.
    Name,
    /// Its time has passed or not come.
    Time,
}

/// The future of an answer.
pub type Replying<'a> = Pin<Box<dyn Future<Output = Result<Reply, HttpError>> + Send + 'a>>;

/// Sends requests. No deadline of its own: who waits decides how long.
pub trait Http: Send + Sync + 'static {
    /// Sends one request and reads the beginning of its answer, so many bytes at the most.
    fn send(&self, request: http::Request<Body>, bytes_max: usize) -> Replying<'_>;
}

/// The network.
pub struct Https {
    client: Client<HttpsConnector<HttpConnector>, Body>,
}

impl Https {
    /// A client that trusts the system's roots and, when there are some, the certificates of this PEM text.
    pub fn new(authorities: Option<&[u8]>) -> Result<Self, HttpError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(pem) = authorities {
            roots.add_parsable_certificates(super::authorities(pem).unwrap_or_default());
        }
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| HttpError::new(format!("cannot set up tls: {error}")))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client })
    }
}

impl Http for Https {
    fn send(&self, request: http::Request<Body>, bytes_max: usize) -> Replying<'_> {
        Box::pin(async move {
            let answer = self.client.request(request).await.map_err(|error| broken(&error))?;
            let text = |name: http::HeaderName| {
                answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
            };
            let mut reply = Reply {
                status: answer.status().as_u16(),
                retry_after: text(http::header::RETRY_AFTER),
                date: text(http::header::DATE).and_then(|text| http_date(&text)),
                capabilities: text(http::HeaderName::from_static(OFFERED)),
                body: Bytes::new(),
            };
            let mut body = answer.into_body();
            let mut read = BytesMut::new();
            while read.len() < bytes_max
                && let Some(frame) = body.frame().await
            {
                let frame = frame.map_err(|error| broken(&error))?;
                if let Ok(data) = frame.into_data() {
                    read.extend_from_slice(
                        data.get(..data.len().min(bytes_max - read.len())).unwrap_or_default(),
                    );
                }
            }
            reply.body = read.freeze();
            Ok(reply)
        })
    }
}

/// An HTTP date, such as `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// An error and its causes on one line: hyper's own texts leave the cause out.
fn broken(error: &(dyn std::error::Error + 'static)) -> HttpError {
    let causes = || std::iter::successors(Some(error), |error| error.source());
    let text = causes().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    HttpError { text, certificate: causes().find_map(certificate) }
}

/// An I/O error keeps what it was made of to itself.
fn certificate(cause: &(dyn std::error::Error + 'static)) -> Option<Certificate> {
    if let Some(inner) = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
        return certificate(inner);
    }
    match cause.downcast_ref::<rustls::Error>()? {
        rustls::Error::InvalidCertificate(why) => Some(match why {
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Certificate::Time,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                Certificate::Name
            }
            _ => Certificate::Stranger,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_certificate_is_found_wherever_it_is() {
        let check = |why: rustls::Error, wanted: Option<Certificate>| {
            let inner = std::io::Error::other(std::io::Error::other(why));
            assert_eq!(broken(&inner).certificate, wanted, "{inner}");
        };
        let invalid = rustls::Error::InvalidCertificate;
        check(invalid(CertificateError::Expired), Some(Certificate::Time));
        check(invalid(CertificateError::NotValidYet), Some(Certificate::Time));
        check(invalid(CertificateError::NotValidForName), Some(Certificate::Name));
        check(invalid(CertificateError::UnknownIssuer), Some(Certificate::Stranger));
        check(invalid(CertificateError::BadSignature), Some(Certificate::Stranger));
        check(rustls::Error::NoApplicationProtocol, None);
    }
}
