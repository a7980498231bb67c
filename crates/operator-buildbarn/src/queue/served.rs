//! The scheduler in memory over real gRPC on loopback, for tests: of the client here, of whole clusters elsewhere.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{FutureExt, future::BoxFuture};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{
    Request, Response, Status,
    body::Body,
    server::{Grpc, UnaryService},
};
use tonic_prost::ProstCodec;

use super::{BuildQueue, Queue, QueueError, QueueName, StandIn, Thread, WorkerId, wire};
use crate::types::{Platform, Property};

/// How the scheduler takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Answers,
    /// It takes calls and never answers.
    Silent,
    /// Every call fails for this reason.
    Fails(String),
    /// Every answer takes so long.
    Slow(Duration),
    /// Every page of a list is the first.
    Repeats,
}

/// A running scheduler; ends when it is dropped.
pub struct Served {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    scheduler: StandIn,
    manner: Mutex<Manner>,
    connections: AtomicUsize,
    calls: AtomicUsize,
}

impl Served {
    /// Listens on a free port of loopback. Needs a running tokio.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            scheduler: StandIn::default(),
            manner: Mutex::new(Manner::Answers),
            connections: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, _tasks: tasks })
    }

    /// `HOST:PORT`, as `spec.buildQueueState.address` has it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Changes how calls are taken from now on.
    pub fn behave(&self, manner: Manner) {
        *self.shared.manner.lock() = manner;
    }

    /// Connections and calls so far.
    pub fn seen(&self) -> (usize, usize) {
        (self.shared.connections.load(Relaxed), self.shared.calls.load(Relaxed))
    }
}

impl Deref for Served {
    type Target = StandIn;

    fn deref(&self) -> &StandIn {
        &self.shared.scheduler
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Relaxed);
        let shared = Arc::clone(&shared);
        let answer = service_fn(move |request| respond(Arc::clone(&shared), request).map(Ok::<_, io::Error>));
        let serve = http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer);
        // A connection that breaks is the client's to notice.
        connections.spawn(async move { drop(serve.await) });
        while connections.try_join_next().is_some() {}
    }
}

/// One method, as tonic wants it.
struct Method<Q, A> {
    shared: Arc<Shared>,
    answer: fn(Arc<Shared>, Q) -> BoxFuture<'static, Result<A, Status>>,
}

impl<Q, A: Send + 'static> UnaryService<Q> for Method<Q, A> {
    type Response = A;
    type Future = BoxFuture<'static, Result<Response<A>, Status>>;

    fn call(&mut self, request: Request<Q>) -> Self::Future {
        let answer = (self.answer)(Arc::clone(&self.shared), request.into_inner());
        answer.map(|answer| answer.map(Response::new)).boxed()
    }
}

async fn respond(shared: Arc<Shared>, request: http::Request<Incoming>) -> http::Response<Body> {
    shared.calls.fetch_add(1, Relaxed);
    let manner = shared.manner.lock().clone();
    match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Slow(time) => tokio::time::sleep(time).await,
        Manner::Fails(why) => return Status::unavailable(why).into_http(),
        Manner::Answers | Manner::Repeats => {}
    }
    macro_rules! unary {
        ($question:ty, $answer:ty, $method:ident) => {{
            let answer = |shared, question| $method(shared, question).boxed();
            let method = Method::<$question, $answer> { shared, answer };
            Grpc::new(ProstCodec::<$answer, $question>::default()).unary(method, request).await
        }};
    }
    match request.uri().path().rsplit('/').next().unwrap_or_default() {
        "ListPlatformQueues" => unary!(wire::Empty, wire::ListPlatformQueuesResponse, list_queues),
        "ListWorkers" => unary!(wire::ListWorkersRequest, wire::ListWorkersResponse, list_workers),
        "ListDrains" => unary!(wire::ListDrainsRequest, wire::ListDrainsResponse, list_drains),
        "AddDrain" => unary!(wire::AddOrRemoveDrainRequest, wire::Empty, add_drain),
        "RemoveDrain" => unary!(wire::AddOrRemoveDrainRequest, wire::Empty, remove_drain),
        "TerminateWorkers" => unary!(wire::TerminateWorkersRequest, wire::Empty, terminate),
        other => Status::unimplemented(other.to_owned()).into_http(),
    }
}

fn status(error: QueueError) -> Status {
    match error {
        QueueError::NotFound => Status::not_found("no such queue"),
        QueueError::Failed(why) => Status::failed_precondition(why),
    }
}

fn name(sent: Option<wire::SizeClassQueueName>) -> QueueName {
    let wire::SizeClassQueueName { platform_queue_name, size_class } = sent.unwrap_or_default();
    let wire::PlatformQueueName { instance_name_prefix: prefix, platform } =
        platform_queue_name.unwrap_or_default();
    let property = |sent: wire::Property| Property { name: sent.name, value: sent.value };
    let properties = platform.unwrap_or_default().properties.into_iter().map(property).collect();
    QueueName { prefix, platform: Platform { properties }, size_class }
}

async fn list_queues(
    shared: Arc<Shared>,
    _: wire::Empty,
) -> Result<wire::ListPlatformQueuesResponse, Status> {
    let queues = shared.scheduler.0.queues().await.map_err(status)?;
    let state = |queue: Queue| {
        let property = |property: &Property| wire::Property {
            name: property.name.clone(),
            value: property.value.clone(),
        };
        let properties = queue.name.platform.properties.iter().map(property).collect();
        // Half of what waits is of one invocation, half of others below it: a client has to add them up.
        let waiting =
            wire::ObjectCount { direct: queue.queued / 2, indirect: queue.queued - queue.queued / 2 };
        wire::PlatformQueueState {
            name: Some(wire::PlatformQueueName {
                instance_name_prefix: queue.name.prefix.clone(),
                platform: Some(wire::Platform { properties }),
            }),
            size_class_queues: vec![wire::SizeClassQueueState {
                size_class: queue.name.size_class,
                workers_count: queue.workers,
                drains_count: 0,
                root_invocation: Some(wire::InvocationState {
                    queued_operations_count: Some(waiting),
                    executing_workers_count: queue.executing,
                    idle_workers_count: queue.workers - queue.executing,
                }),
            }],
        }
    };
    Ok(wire::ListPlatformQueuesResponse { platform_queues: queues.into_iter().map(state).collect() })
}

async fn list_workers(
    shared: Arc<Shared>,
    request: wire::ListWorkersRequest,
) -> Result<wire::ListWorkersResponse, Status> {
    let queue = name(request.filter.unwrap_or_default().all);
    let repeats = *shared.manner.lock() == Manner::Repeats;
    let after = request.start_after.filter(|_| !repeats).map(|after| after.worker_id);
    let threads = shared.scheduler.0.threads(&queue).await.map_err(status)?;
    let state = |thread: Thread| wire::WorkerState {
        id: thread.id,
        current_operation: thread.busy.then(|| wire::OperationState { name: "operation".to_owned() }),
        drained: thread.drained,
    };
    let rest = threads.into_iter().filter(|thread| after.as_ref().is_none_or(|after| thread.id > *after));
    let size = usize::try_from(request.page_size).unwrap_or(usize::MAX);
    Ok(wire::ListWorkersResponse { workers: rest.take(size).map(state).collect() })
}

async fn list_drains(
    shared: Arc<Shared>,
    request: wire::ListDrainsRequest,
) -> Result<wire::ListDrainsResponse, Status> {
    let drains = BuildQueue::drains(&*shared.scheduler.0, &name(request.size_class_queue_name)).await;
    let state = |worker_id_pattern: WorkerId| wire::DrainState { worker_id_pattern };
    Ok(wire::ListDrainsResponse { drains: drains.map_err(status)?.into_iter().map(state).collect() })
}

async fn add_drain(
    shared: Arc<Shared>,
    request: wire::AddOrRemoveDrainRequest,
) -> Result<wire::Empty, Status> {
    let queue = name(request.size_class_queue_name);
    shared.scheduler.0.add_drain(&queue, &request.worker_id_pattern).await.map_err(status)?;
    Ok(wire::Empty {})
}

async fn remove_drain(
    shared: Arc<Shared>,
    request: wire::AddOrRemoveDrainRequest,
) -> Result<wire::Empty, Status> {
    let queue = name(request.size_class_queue_name);
    shared.scheduler.0.remove_drain(&queue, &request.worker_id_pattern).await.map_err(status)?;
    Ok(wire::Empty {})
}

async fn terminate(
    shared: Arc<Shared>,
    request: wire::TerminateWorkersRequest,
) -> Result<wire::Empty, Status> {
    shared.scheduler.0.terminated(&request.worker_id_pattern).await;
    Ok(wire::Empty {})
}
