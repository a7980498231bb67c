//! BuildQueueState over gRPC.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::uri::PathAndQuery;
use parking_lot::Mutex;
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
#[derive(Default)]
pub(crate) struct Grpc {
    open: Mutex<HashMap<String, Arc<Client>>>,
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
        let client = Arc::new(Client { channel: channel(address), address: address.to_owned() });
        open.insert(address.to_owned(), Arc::clone(&client));
        client
    }
}

fn channel(address: &str) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| error.to_string())?;
    Ok(endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy())
}

/// One scheduler.
struct Client {
    /// Made when it is first used, and anew when it breaks.
    channel: Result<Channel, String>,
    address: String,
}

impl Client {
    async fn call<Q, A>(&self, method: &str, request: Q) -> Result<A, QueueError>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let failed = |why: &str| QueueError::Failed(format!("{method} at {}: {why}", self.address));
        let channel = self.channel.clone().map_err(|why| failed(&why))?;
        let path =
            PathAndQuery::try_from(format!("/{SERVICE}/{method}")).map_err(|why| failed(&why.to_string()))?;
        let work = async {
            let mut stub = Stub::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
            stub.ready().await.map_err(|why| failed(&text(&why)))?;
            let codec = ProstCodec::<Q, A>::default();
            match stub.unary(Request::new(request), path, codec).await {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) if status.code() == Code::NotFound => Err(QueueError::NotFound),
                Err(status) => Err(failed(&format!("{:?}: {}", status.code(), status.message()))),
            }
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(failed("no answer within 5 s")))
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
            let answer: wire::ListPlatformQueuesResponse =
                self.call("ListPlatformQueues", wire::Empty {}).await?;
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
            for _ in 0..PAGES_MAX {
                let start_after =
                    threads.last().map(|thread| wire::StartAfter { worker_id: thread.id.clone() });
                let filter = Some(wire::ListWorkersFilter { all: Some(encode(queue)) });
                let request = wire::ListWorkersRequest { filter, page_size: PAGE, start_after };
                let answer: wire::ListWorkersResponse = self.call("ListWorkers", request).await?;
                let last = answer.workers.len() < PAGE as usize;
                threads.extend(answer.workers.into_iter().map(|worker| Thread {
                    id: worker.id,
                    busy: worker.current_operation.is_some(),
                    drained: worker.drained,
                }));
                if last {
                    break;
                }
            }
            Ok(threads)
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
