//! The client against a scheduler on loopback that keeps BuildQueueState's rules, and against ones that do not.

use std::collections::BTreeSet;

use super::*;
use crate::queue::{
    Lane, Snapshot, pod_pattern,
    served::{Manner, Served},
};

/// Nothing in a test takes so long, however busy the machine.
const LONG: Duration = Duration::from_secs(600);
/// Long enough to be asked, short enough to be waited for.
const SHORT: Duration = Duration::from_millis(300);

const PLATFORM: &[(&str, &str)] = &[("OSFamily", "linux"), ("os", "jammy")];

fn queue_name() -> QueueName {
    let property = |(name, value): &(&str, &str)| types::Property {
        name: (*name).to_owned(),
        value: (*value).to_owned(),
    };
    let platform = types::Platform { properties: PLATFORM.iter().map(property).collect() };
    QueueName { prefix: String::new(), platform, size_class: 4 }
}

/// A scheduler with five pods of two threads, one of them with an action, and three actions that wait.
async fn scheduler() -> (Served, Lane) {
    let scheduler = Served::start().await.unwrap();
    let lane = Lane::of(PLATFORM, 4);
    scheduler.register(&lane, "busy", 2);
    scheduler.submit(&lane, 1);
    scheduler.assign();
    for pod in ["a", "b", "c", "d"] {
        scheduler.register(&lane, pod, 2);
    }
    scheduler.submit(&lane, 3);
    (scheduler, lane)
}

fn client(scheduler: &Served, patience: Duration, rest: Duration) -> Arc<dyn BuildQueue> {
    let bounds = Bounds { patience, rest, page: 3, pages_max: 5 };
    Grpc::within(bounds).open(&scheduler.address())
}

fn why<T: std::fmt::Debug>(answer: Result<T, QueueError>) -> String {
    answer.unwrap_err().to_string()
}

#[tokio::test]
async fn queues_threads_and_drains_are_read_whole() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, LONG, LONG);
    let (name, pattern) = (queue_name(), pod_pattern("b"));
    client.add_drain(&name, &pattern).await.unwrap();
    let seen = Snapshot::take(&*client, None).await.unwrap();
    assert_eq!(seen.queues, [Queue { name: name.clone(), workers: 10, executing: 1, queued: 3 }]);
    let pods: Vec<(&str, usize)> = seen.threads.iter().map(|(pod, all)| (pod.as_str(), all.len())).collect();
    assert_eq!(pods, [("a", 2), ("b", 2), ("busy", 2), ("c", 2), ("d", 2)], "four pages of three");
    assert_eq!((seen.busy("busy"), seen.busy("a")), (1, 0));
    assert_eq!((seen.drained("b"), seen.drained("a")), (true, false));
    client.remove_drain(&name, &pattern).await.unwrap();
    assert_eq!(client.drains(&name).await.unwrap(), Vec::<WorkerId>::new());
    assert_eq!(scheduler.seen().0, 1, "one connection for all of it");
}

#[tokio::test]
async fn a_queue_that_is_not_there_is_no_failure() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, LONG, LONG);
    let other = QueueName { size_class: 8, ..queue_name() };
    assert_eq!(client.threads(&other).await, Err(QueueError::NotFound));
    assert_eq!(client.drains(&other).await, Err(QueueError::NotFound));
    assert_eq!(client.add_drain(&other, &pod_pattern("a")).await, Err(QueueError::NotFound));
    let seen = Snapshot::take(&*client, Some(&[other])).await.unwrap();
    assert_eq!((seen.queues.len(), seen.drains.len()), (1, 0));
}

#[tokio::test]
async fn a_scheduler_that_fails_says_why() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, LONG, LONG);
    scheduler.behave(Manner::Fails("not yet".to_owned()));
    let said = why(client.queues().await);
    assert_eq!(said, format!("ListPlatformQueues at {}: Unavailable: not yet", scheduler.address()));
    scheduler.behave(Manner::Answers);
    assert_eq!(client.queues().await.unwrap().len(), 1, "a failure is no silence: it is asked again at once");
}

#[tokio::test]
async fn where_nobody_listens_the_cause_is_told() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let bounds = Bounds { patience: LONG, rest: LONG, page: 3, pages_max: 5 };
    let said = why(Grpc::within(bounds).open(&free.to_string()).queues().await);
    assert!(said.contains("refused"), "{said}");
    let said = why(Grpc::within(bounds).open("not an address").queues().await);
    assert!(said.starts_with("ListPlatformQueues at not an address: "), "{said}");
}

#[tokio::test]
async fn a_silent_scheduler_is_waited_for_once_in_a_while() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, SHORT, LONG);
    scheduler.behave(Manner::Silent);
    let said = why(client.queues().await);
    assert!(said.ends_with("no answer within 300ms"), "{said}");
    let (_, calls) = scheduler.seen();
    for _ in 0..10 {
        let said = why(client.queues().await);
        assert!(said.contains("gave no answer within 300ms and is asked again in "), "{said}");
    }
    assert_eq!(scheduler.seen().1, calls, "nobody was kept waiting again");
}

#[tokio::test]
async fn a_silent_scheduler_that_comes_back_is_heard_on_a_new_connection() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, SHORT, Duration::ZERO);
    scheduler.behave(Manner::Silent);
    client.queues().await.unwrap_err();
    scheduler.behave(Manner::Answers);
    // A busy machine may take longer than is waited for here.
    while client.queues().await.is_err() {}
    assert!(scheduler.seen().0 > 1, "the connection that went silent was used again");
}

#[tokio::test]
async fn a_slow_scheduler_is_waited_for_and_its_whole_look_is_bounded() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, LONG, LONG);
    scheduler.behave(Manner::Slow(SHORT));
    let seen = Snapshot::take_within(&*client, None, LONG).await.unwrap();
    assert_eq!(
        seen.threads.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        ["a", "b", "busy", "c", "d"].into()
    );
    let said = why(Snapshot::take_within(&*client, None, SHORT).await);
    assert_eq!(said, "its queues could not be read within 300ms");
}

#[tokio::test]
async fn a_list_without_an_end_is_a_failure_and_not_a_part_of_it() {
    let (scheduler, _lane) = scheduler().await;
    let client = client(&scheduler, LONG, LONG);
    scheduler.behave(Manner::Repeats);
    let said = why(Snapshot::take(&*client, None).await);
    assert!(said.ends_with("more than 15 workers in one queue"), "{said}");
}

#[tokio::test]
async fn terminating_answers_when_nothing_runs_any_more() {
    let (scheduler, lane) = scheduler().await;
    let impatient = client(&scheduler, SHORT, LONG);
    let said = why(impatient.terminate(&pod_pattern("busy")).await);
    assert!(said.starts_with("TerminateWorkers at ") && said.ends_with("no answer within 300ms"), "{said}");
    scheduler.submit(&lane, 1);
    scheduler.assign();
    scheduler.finish("busy");
    scheduler.assign();
    assert!(!scheduler.busy("busy"), "it gets nothing any more");
    client(&scheduler, LONG, LONG).terminate(&pod_pattern("busy")).await.unwrap();
    let (_, calls) = scheduler.seen();
    drop(impatient.queues().await);
    assert!(scheduler.seen().1 > calls, "that one call had no answer says nothing of the next");
}
