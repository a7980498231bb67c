//! The server as a function in this process: no socket, no TLS, the same chain.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use http::{Request, Response};
use resource::User;
use tower::Service;

use super::{
    Input,
    body::{Body, BoxError},
    chain::{Sender, Shared},
};

/// A service that acts as one user. `kube::Client::new` takes it. Streams that need an upgraded connection
/// (exec, attach, port-forward) are refused here, since there is no connection.
#[derive(Clone)]
pub struct InProcess {
    shared: Arc<Shared>,
    user: Arc<User>,
}

impl InProcess {
    pub(crate) fn new(shared: Arc<Shared>, user: User) -> Self {
        Self { shared, user: Arc::new(user) }
    }
}

impl<B> Service<Request<B>> for InProcess
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (shared, sender) = (self.shared.clone(), Sender::InProcess(self.user.clone()));
        shared.respond(sender, request.map(Input::new)).map(Ok).boxed()
    }
}
