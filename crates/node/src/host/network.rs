//! Probes and hooks over the network.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::probe::Target;

/// Most of a body that is read (upstream `maxRespBodyLength`).
const BODY_BYTES_MAX: usize = 10 * 1024;

/// Asks once; the caller bounds the time.
pub(super) async fn probe(target: &Target) -> Result<(), String> {
    match target {
        Target::Tcp { host, port } => connect(host, *port).await.map(drop),
        Target::Http { https, host, port, path, headers } => {
            let stream = connect(host, *port).await?;
            if *https {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                let connector = tokio_rustls::TlsConnector::from(Arc::new(unverified()?));
                let stream = connector.connect(name, stream).await.map_err(|error| error.to_string())?;
                get(stream, host, *port, path, headers).await
            } else {
                get(stream, host, *port, path, headers).await
            }
        }
        Target::Grpc { host, port, service } => grpc(connect(host, *port).await?, host, *port, service).await,
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port))
        .await
        .map_err(|error| format!("dial tcp {}: {error}", authority(host, port)))
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

async fn get<S>(
    stream: S,
    host: &str,
    port: u16,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut send, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let mut request = http::Request::get(path);
    let mut named_host = false;
    for (name, value) in headers {
        named_host |= name.eq_ignore_ascii_case("host");
        request = request.header(name, value);
    }
    if !named_host {
        request = request.header(http::header::HOST, authority(host, port));
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept")) {
        request = request.header(http::header::ACCEPT, "*/*");
    }
    let request = request.body(Full::<Bytes>::default()).map_err(|error| error.to_string())?;
    let exchange = async {
        let response = send.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        // What the body says is of interest only in part; one that is too long or breaks off is no failure.
        drop(Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await);
        if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    };
    alongside(connection, exchange).await
}

/// Drives a connection while an exchange on it goes on, without a task of its own.
async fn alongside<T>(
    connection: impl Future<Output = Result<(), hyper::Error>>,
    exchange: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    tokio::pin!(connection, exchange);
    tokio::select! {
        biased;
        done = &mut exchange => return done,
        ended = &mut connection => if let Err(error) = ended {
            return Err(error.to_string());
        },
    }
    exchange.await
}

/// `grpc.health.v1.Health/Check`, written out: one request with one string, one answer with one enum.
async fn grpc(stream: TcpStream, host: &str, port: u16, service: &str) -> Result<(), String> {
    let (mut send, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 128);
    let length = length.ok_or_else(|| "service name of the probe is longer than 127 bytes".to_owned())?;
    let mut message = BytesMut::new();
    if length > 0 {
        message.put_u8(0x0a);
        message.put_u8(length);
        message.put_slice(service.as_bytes());
    }
    let mut body = BytesMut::new();
    body.put_u8(0);
    body.put_u32(u32::try_from(message.len()).unwrap_or_default());
    body.put_slice(&message);
    let request =
        http::Request::post(format!("http://{}/grpc.health.v1.Health/Check", authority(host, port)))
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header("te", "trailers")
            .body(Full::new(body.freeze()))
            .map_err(|error| error.to_string())?;
    let exchange = async {
        let response = send.send_request(request).await.map_err(|error| error.to_string())?;
        let early = response.headers().get("grpc-status").cloned();
        let body =
            Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await.map_err(|e| e.to_string())?;
        let status =
            early.or_else(|| body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned());
        let code = status.as_ref().and_then(|status| status.to_str().ok()).unwrap_or("unknown");
        if code != "0" {
            return Err(format!("service unhealthy (rpc error: code = {code})"));
        }
        // SERVING is field 1, varint 1.
        match body.to_bytes().get(5..) {
            Some([0x08, 0x01, ..]) => Ok(()),
            _ => Err("service unhealthy (responded with a status other than SERVING)".to_owned()),
        }
    };
    alongside(connection, exchange).await
}

/// Probes do not verify certificates, as upstream: they ask whether somebody answers, not who.
fn unverified() -> Result<rustls::ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth())
}

#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers one request with these bytes.
    async fn answering(answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 1024];
            let _read = stream.read(&mut buffer).await;
            let _written = stream.write_all(answer.as_bytes()).await;
        });
        port
    }

    #[tokio::test]
    async fn http_answers() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", Ok(())),
            ("HTTP/1.1 302 Found\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n", Ok(())),
            (
                "HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
                Err("HTTP probe failed with statuscode: 503".to_owned()),
            ),
        ] {
            let port = answering(answer).await;
            let host = "127.0.0.1".to_owned();
            let target = Target::Http { https: false, host, port, path: "/".into(), headers: vec![] };
            assert_eq!(probe(&target).await, expected);
        }
    }

    #[tokio::test]
    async fn nobody_there() {
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        let error = probe(&Target::Tcp { host: "127.0.0.1".into(), port }).await.unwrap_err();
        assert!(error.starts_with("dial tcp 127.0.0.1:"), "{error}");
    }
}
