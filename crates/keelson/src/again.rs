//! Requests for which the API server has no room are made again when it says so, as client-go does: whoever made them
//! only waits, instead of failing with what it was about.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response, StatusCode, header};
use kube::client::Body;
use meta::Random;
use tower::{Layer, Service};

/// client-go's `maxRetries`.
const TRIES_MAX: u32 = 10;
/// The longest wait that is believed.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Makes [`Again`].
#[derive(Clone)]
pub(crate) struct AgainLayer {
    random: Arc<dyn Random>,
}

impl AgainLayer {
    /// `random` spreads those that were refused together.
    pub(crate) fn new(random: Arc<dyn Random>) -> Self {
        Self { random }
    }
}

impl<S> Layer<S> for AgainLayer {
    type Service = Again<S>;

    fn layer(&self, inner: S) -> Again<S> {
        Again { inner, random: self.random.clone() }
    }
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Again<S> {
    inner: S,
    random: Arc<dyn Random>,
}

impl<S, B> Service<Request<Body>> for Again<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<B>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // The one that is ready now; its copy stays for the next request.
        let copy = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, copy);
        let random = self.random.clone();
        Box::pin(async move {
            for _ in 1..TRIES_MAX {
                let next = copied(&request);
                let response = inner.call(request).await?;
                let (Some(wait), Some(next)) = (asked_to_wait(&response), next) else { return Ok(response) };
                let spread = Duration::from_millis(random.below(1_000));
                tokio::time::sleep(wait.min(WAIT_MAX) + spread).await;
                std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
                request = next;
            }
            inner.call(request).await
        })
    }
}

/// `None` where the body is a stream.
fn copied(request: &Request<Body>) -> Option<Request<Body>> {
    let mut copy = Request::new(request.body().try_clone()?);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    Some(copy)
}

/// Only where the server says how long: then it has done nothing.
fn asked_to_wait<B>(response: &Response<B>) -> Option<Duration> {
    if response.status() != StatusCode::TOO_MANY_REQUESTS {
        return None;
    }
    let seconds = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use meta::Seeded;
    use tokio::time::Instant;
    use tower::ServiceExt;

    use super::*;

    /// What a server that refuses so many times answers at last, after how many requests and seconds.
    async fn asked(refusals: u32, retry_after: Option<&'static str>) -> (u16, u32, u64) {
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            let number = counted.fetch_add(1, Relaxed);
            let mut response = Response::new(());
            if number < refusals {
                *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
                if let Some(text) = retry_after {
                    response.headers_mut().insert(header::RETRY_AFTER, text.parse().unwrap());
                }
            }
            async move {
                assert_eq!((request.method(), request.uri().path()), (&http::Method::POST, "/x"));
                let bytes = request.into_body().collect_bytes().await.unwrap();
                assert_eq!(&bytes[..], b"body");
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let client = AgainLayer::new(Arc::new(Seeded::new(1))).layer(server);
        let began = Instant::now();
        let request = Request::post("/x").body(Body::from(b"body".to_vec())).unwrap();
        let status = client.oneshot(request).await.unwrap().status().as_u16();
        (status, count.load(Relaxed), began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_request_is_made_again_when_the_server_says() {
        assert_eq!(asked(0, None).await, (200, 1, 0));
        let (status, tries, seconds) = asked(2, Some("3")).await;
        assert_eq!((status, tries), (200, 3));
        assert!((6..=8).contains(&seconds), "{seconds} s");
        assert_eq!(asked(99, None).await.0, 429, "it does not say how long");
        let (status, tries, _) = asked(99, Some("1")).await;
        assert_eq!((status, tries), (429, TRIES_MAX));
    }
}
