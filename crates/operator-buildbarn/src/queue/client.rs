//! BuildQueueState over gRPC.
//!
//! Guarantees: every call ends within its bound, and a scheduler that does not answer costs its askers one bound in
//! a while and not each of them one: who asks again soon after is told so at once. A connection that went silent is
//! not used again.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
use tokio::time::Instant;
use tonic::{
    Code, Request,
    client::Grpc as Stub,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Answer, BuildQueue, Queue, QueueError, QueueName, QueueSource, Thread, WorkerId, wire};
use crate::types;

/// How long a scheduler may take; it answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a scheduler that did not answer is not asked again: less than a pool's next look, twice.
const REST: Duration = Duration::from_secs(9);
/// Workers of one page; the scheduler's own largest.
const PAGE: u32 = 1000;
/// Pages of one list: a million threads.
const PAGES_MAX: usize = 1000;
/// Largest answer that is read: a page of workers with generous labels.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// Connections that are kept; farms beyond them connect anew.
const CONNECTIONS_MAX: usize = 256;

const SERVICE: &str = "buildbarn.buildqueuestate.BuildQueueState";

/// Opens queues over gRPC, one connection for each address.
pub(crate) struct Grpc {
    bounds: Bounds,
    open: Mutex<HashMap<String, Arc<Client>>>,
}

/// What is waited for, and what is not asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// How long one call may take.
    pub(super) patience: Duration,
    /// How long a scheduler that did not answer is not asked again.
    pub(super) rest: Duration,
    /// Workers of one page.
    pub(super) page: u32,
    /// Pages of one list.
    pub(super) pages_max: usize,
}

impl Default for Grpc {
    fn default() -> Self {
        Self::within(Bounds { patience: PATIENCE, rest: REST, page: PAGE, pages_max: PAGES_MAX })
    }
}

impl Grpc {
    pub(super) fn within(bounds: Bounds) -> Self {
        Self { bounds, open: Mutex::default() }
    }
}

impl QueueSource for Grpc {
    fn open(&self, address: &str) -> Arc<dyn BuildQueue> {
        let mut open = self.open.lock();
        if let Some(client) = open.get(address) {
            return Arc::clone(client) as _;
        }
        if open.len() >= CONNECTIONS_MAX {
            open.clear();
        }
        let link = Mutex::new(Link { channel: channel(address, self.bounds), silent_until: None });
        let client = Arc::new(Client { link, address: address.to_owned(), bounds: self.bounds });
        open.insert(address.to_owned(), Arc::clone(&client));
        client
    }
}

fn channel(address: &str, bounds: Bounds) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint.connect_timeout(bounds.patience).connect_lazy())
}

/// One scheduler.
struct Client {
    link: Mutex<Link>,
    address: String,
    bounds: Bounds,
}

struct Link {
    /// Made when it is first used, and anew when it breaks.
    channel: Result<Channel, String>,
    /// Not asked before.
    silent_until: Option<Instant>,
}

impl Client {
    async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, QueueError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let failed = |why: &str| QueueError::Failed(format!("{method} at {}: {why}", self.address));
        let channel = self.link.lock().channel.clone().map_err(|why| failed(&why))?;
        let path =
            PathAndQuery::try_from(format!("/{SERVICE}/{method}")).map_err(|why| failed(&why.to_string()))?;
        let work = async {
            let mut stub = Stub::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            stub.ready().await.map_err(|why| failed(&text(&why)))?;
            let codec = ProstCodec::<Q, A>::default();
            match stub.unary(Request::new(request), path, codec).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) if status.code() == Code::NotFound => Err(QueueError::NotFound),
                Err(status) => Err(failed(&format!("{:?}: {}", status.code(), reason(&status)))),
            }
        };
        match tokio::time::timeout(self.bounds.patience, work).await {
            Ok(answer) => answer,
            Err(_) => {
                // It may have gone to a pod that is no more: the kernel would try it for a quarter of an hour.
                self.link.lock().channel = self::channel(&self.address, self.bounds);
                Err(failed(&format!("no answer within {:?}", self.bounds.patience)))
            }
        }
    }

    /// Asks what is asked first of every look. Who looks soon after a silence is not kept waiting.
    async fn list(&self) -> Result<wire::ListPlatformQueuesResponse, QueueError> {
        let now = Instant::now();
        if let Some(until) = self.link.lock().silent_until.filter(|until| now < *until) {
            let (left, patience) = ((until - now).as_secs() + 1, self.bounds.patience);
            let why =
                format!("{} gave no answer within {patience:?} and is asked again in {left} s", self.address);
            return Err(QueueError::Failed(why));
        }
        let answer = self.call("ListPlatformQueues", wire::Empty {}).await;
        let silent = answer.is_err() && now.elapsed() >= self.bounds.patience;
        self.link.lock().silent_until = silent.then(|| Instant::now() + self.bounds.rest);
        answer
    }
}

/// What a status says, with the cause that this side of the connection knows.
fn reason(status: &tonic::Status) -> String {
    match std::error::Error::source(status).map(text) {
        Some(causes) => format!("{}: {causes}", status.message()),
        None => status.message().to_owned(),
    }
}

/// An error with its causes: tonic's own text is only "transport error".
fn text(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        out = format!("{out}: {cause}");
        next = cause.source();
    }
    out
}

impl BuildQueue for Client {
    fn queues(&self) -> Answer<'_, Vec<Queue>> {
        Box::pin(async {
            let answer = self.list().await?;
            let mut queues = Vec::new();
            for platform in answer.platform_queues {
                let name = platform.name.unwrap_or_default();
                queues.extend(platform.size_class_queues.iter().map(|state| queue(&name, state)));
            }
            Ok(queues)
        })
    }

    fn threads<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<Thread>> {
        Box::pin(async move {
            let mut threads: Vec<Thread> = Vec::new();
            for _ in 0..self.bounds.pages_max {
                let start_after =
                    threads.last().map(|thread| wire::StartAfter { worker_id: thread.id.clone() });
                let filter = Some(wire::ListWorkersFilter { all: Some(encode(queue)) });
                let request = wire::ListWorkersRequest { filter, page_size: self.bounds.page, start_after };
                let answer: wire::ListWorkersResponse = self.call("ListWorkers", request).await?;
                let last = answer.workers.len() < self.bounds.page as usize;
                threads.extend(answer.workers.into_iter().map(|worker| Thread {
                    id: worker.id,
                    busy: worker.current_operation.is_some(),
                    drained: worker.drained,
                }));
                if last {
                    return Ok(threads);
                }
            }
            // Whoever is not listed would count as idle.
            let (at, most) = (&self.address, threads.len());
            Err(QueueError::Failed(format!("ListWorkers at {at}: more than {most} workers in one queue")))
        })
    }

    fn drains<'a>(&'a self, queue: &'a QueueName) -> Answer<'a, Vec<WorkerId>> {
        Box::pin(async move {
            let request = wire::ListDrainsRequest { size_class_queue_name: Some(encode(queue)) };
            let answer: wire::ListDrainsResponse = self.call("ListDrains", request).await?;
            Ok(answer.drains.into_iter().map(|drain| drain.worker_id_pattern).collect())
        })
    }

    fn add_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()> {
        Box::pin(self.drain("AddDrain", queue, pattern))
    }

    fn remove_drain<'a>(&'a self, queue: &'a QueueName, pattern: &'a WorkerId) -> Answer<'a, ()> {
        Box::pin(self.drain("RemoveDrain", queue, pattern))
    }

    fn terminate<'a>(&'a self, pattern: &'a WorkerId) -> Answer<'a, ()> {
        let request = wire::TerminateWorkersRequest { worker_id_pattern: pattern.clone() };
        Box::pin(async { self.call::<_, wire::Empty>("TerminateWorkers", request).await.map(|_| ()) })
    }
}

impl Client {
    async fn drain(&self, method: &str, queue: &QueueName, pattern: &WorkerId) -> Result<(), QueueError> {
        let request = wire::AddOrRemoveDrainRequest {
            size_class_queue_name: Some(encode(queue)),
            worker_id_pattern: pattern.clone(),
        };
        self.call::<_, wire::Empty>(method, request).await.map(|_| ())
    }
}

fn queue(name: &wire::PlatformQueueName, state: &wire::SizeClassQueueState) -> Queue {
    let root = state.root_invocation.clone().unwrap_or_default();
    let queued = root.queued_operations_count.unwrap_or_default();
    let properties = name.platform.clone().unwrap_or_default().properties;
    Queue {
        name: QueueName {
            prefix: name.instance_name_prefix.clone(),
            platform: types::Platform {
                properties: properties
                    .into_iter()
                    .map(|property| types::Property { name: property.name, value: property.value })
                    .collect(),
            },
            size_class: state.size_class,
        },
        workers: state.workers_count,
        executing: root.executing_workers_count,
        queued: queued.direct.saturating_add(queued.indirect),
    }
}

fn encode(queue: &QueueName) -> wire::SizeClassQueueName {
    let QueueName { prefix, platform, size_class } = queue;
    let property = |property: &types::Property| wire::Property {
        name: property.name.clone(),
        value: property.value.clone(),
    };
    wire::SizeClassQueueName {
        platform_queue_name: Some(wire::PlatformQueueName {
            instance_name_prefix: prefix.clone(),
            platform: Some(wire::Platform { properties: platform.properties.iter().map(property).collect() }),
        }),
        size_class: *size_class,
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
