//! The scheduler's gRPC service: questions go to the scheduling loop, which answers between two decisions.
//!
//! Guarantees: nothing asked here changes the cluster or where a pod goes; what is placed to answer is taken
//! back before the next decision. Bounded: [`ASKS_MAX`] questions wait, [`SIMULATED_MAX`] pods are placed for
//! one, and an answer that does not come within [`ANSWER_MAX`] is an error that says so.

mod explain;
mod queue;
mod simulate;

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client};
use rpc::scheduler::{
    ExplainRequest, ExplainResponse, QueueRequest, QueueResponse, SimulateRequest, SimulateResponse,
    scheduler_server::Scheduler,
};
use tokio::sync::{Mutex, mpsc, oneshot};
use tonic::{Request, Response, Status};

use crate::{core::Core, pod::PodInfo};

/// Questions that may wait: more than people ask at once.
const ASKS_MAX: usize = 16;
/// Pods placed for one question: a second's work at most.
const SIMULATED_MAX: usize = 1000;
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Pods listed when nobody says how many.
const QUEUE_LIMIT: u32 = 1000;

/// A question to the scheduling loop.
#[derive(Debug)]
pub(crate) enum Ask {
    Explain(Box<PodInfo>, oneshot::Sender<ExplainResponse>),
    Simulate(Vec<PodInfo>, oneshot::Sender<SimulateResponse>),
    Queue(usize, oneshot::Sender<QueueResponse>),
}

impl Ask {
    /// Answers; whoever asked may have gone, which is no matter.
    pub(crate) fn answer(self, core: &mut Core) {
        match self {
            Self::Explain(pod, reply) => drop(reply.send(explain::explain(core, &pod))),
            Self::Simulate(pods, reply) => drop(reply.send(simulate::simulate(core, &pods))),
            Self::Queue(limit, reply) => drop(reply.send(queue::queue(core, limit))),
        }
    }
}

/// Where the scheduling loop takes its questions; clones are one.
#[derive(Clone, Debug)]
pub struct Asks(Arc<Mutex<mpsc::Receiver<Ask>>>);

impl Asks {
    /// The next question. Cancel-safe: a question is taken when it is returned.
    pub(crate) async fn next(&self) -> Ask {
        match self.0.lock().await.recv().await {
            Some(ask) => ask,
            // Nobody can ask any more.
            None => std::future::pending().await,
        }
    }
}

/// The service, for a tonic server.
#[derive(Clone)]
pub struct Desk {
    client: Client,
    asks: mpsc::Sender<Ask>,
}

/// A service and where a scheduler takes its questions ([`crate::Options::asks`]). `client` reads the pods
/// that are asked about.
pub fn desk(client: Client) -> (Desk, Asks) {
    let (sender, receiver) = mpsc::channel(ASKS_MAX);
    (Desk { client, asks: sender }, Asks(Arc::new(Mutex::new(receiver))))
}

impl Desk {
    async fn ask<T>(&self, ask: impl FnOnce(oneshot::Sender<T>) -> Ask) -> Result<Response<T>, Status> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.asks.send(ask(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER_MAX, asked).await {
            Ok(Some(answer)) => Ok(Response::new(answer)),
            Ok(None) => Err(Status::unavailable("the scheduler has stopped")),
            Err(_) => Err(Status::unavailable(
                "the scheduler does not answer: it is starting, or another one leads",
            )),
        }
    }
}

#[tonic::async_trait]
impl Scheduler for Desk {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { namespace, name } = request.into_inner();
        if namespace.is_empty() || name.is_empty() {
            return Err(Status::invalid_argument("namespace and name of the pod are needed"));
        }
        let found = Api::<Pod>::namespaced(self.client.clone(), &namespace).get_opt(&name).await;
        let pod = match found {
            Ok(Some(pod)) => PodInfo::read(&pod),
            Ok(None) => {
                return Err(Status::not_found(format!(
                    "there is no pod {name:?} in namespace {namespace:?}"
                )));
            }
            Err(error) => {
                return Err(Status::unavailable(format!("cannot read pod {namespace}/{name}: {error}")));
            }
        };
        self.ask(|reply| Ask::Explain(Box::new(pod), reply)).await
    }

    async fn simulate(
        &self,
        request: Request<SimulateRequest>,
    ) -> Result<Response<SimulateResponse>, Status> {
        let texts = request.into_inner().pods;
        if texts.len() > SIMULATED_MAX {
            let why = format!("{} pods; at most {SIMULATED_MAX} are placed at once", texts.len());
            return Err(Status::invalid_argument(why));
        }
        let mut pods = Vec::with_capacity(texts.len());
        for (at, text) in texts.iter().enumerate() {
            let pod: Pod = serde_json::from_str(text)
                .map_err(|error| Status::invalid_argument(format!("pods[{at}] is no pod: {error}")))?;
            pods.push(simulate::imagined(&pod, at));
        }
        self.ask(|reply| Ask::Simulate(pods, reply)).await
    }

    async fn queue(&self, request: Request<QueueRequest>) -> Result<Response<QueueResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => QUEUE_LIMIT,
            limit => limit,
        };
        self.ask(|reply| Ask::Queue(usize::try_from(limit).unwrap_or(usize::MAX), reply)).await
    }
}

#[cfg(test)]
mod tests;
