//! The original's design, as `spec/obsyk.md` section 2 has it from its source: a bounded channel that drops
//! when it is full, one sender, one snapshot ever, no repair; 5xx is tried five times, all else is final.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use super::scene::{Mode, Scene};
use crate::{
    Kind,
    project::Projected,
    stream::feed::{Observed, feeds},
    testkit::CLUSTER,
    wire::{EVENTS, Platform, SNAPSHOT},
};

/// The original's channel.
const CHANNEL: usize = 1000;
/// Tries of one event; only after 5xx.
const TRIES: u32 = 5;

/// How many objects the platform has wrong, too many or not after the same story, and how many there are.
pub(super) async fn differs(seed: u64) -> (usize, usize) {
    use meta::{Random, Seeded};
    let mut scene = Scene::new(seed, Mode::Original).await;
    let dice = Seeded::new(seed ^ 0x5eed);
    scene.churn.fill(30);
    let mut known_to_have_snapshot = false;
    let mut running = start(&scene, &mut known_to_have_snapshot).await;
    for round in 0..5 {
        if dice.below(4) > 0 {
            scene.fail(seed * 8 + round);
        } else {
            scene.heal();
        }
        scene.storm(60, Duration::from_millis(dice.below(600))).await;
        // A crash or a restart; the other things that happen do not reach it.
        if matches!(dice.below(8), 0 | 1) {
            running.abort_all();
            running = start(&scene, &mut known_to_have_snapshot).await;
        }
    }
    scene.heal();
    sleep(Duration::from_secs(600)).await;
    running.abort_all();
    (scene.differences().len(), scene.wanted().len())
}

async fn start(scene: &Scene, has_snapshot: &mut bool) -> JoinSet<()> {
    let platform = std::sync::Arc::new(Platform::new(
        scene.wire.clone(),
        super::scene::URL,
        scene.credentials.clone(),
        scene.clock.clone(),
        scene.random.clone(),
    ));
    if !*has_snapshot {
        // Retried until it is taken; never again after that.
        while platform.post(SNAPSHOT, snapshot(scene).to_string().into()).await.is_err() {
            sleep(Duration::from_secs(30)).await;
            if scene.wire.journal.lock().len() > 200 {
                break;
            }
        }
        *has_snapshot = true;
    }
    let (watched, mut from_watches) = mpsc::channel(64);
    let (to_sender, mut changes) = mpsc::channel::<Value>(CHANNEL);
    let mut tasks = JoinSet::new();
    for feed in feeds(&scene.churn.api.client(), &scene.random, &watched) {
        tasks.spawn(feed);
    }
    tasks.spawn(async move {
        while let Some(observed) = from_watches.recv().await {
            let (kind, object) = match observed {
                Observed::Seen(object) => ("modified", object),
                Observed::Gone(object) => ("deleted", object),
                Observed::Begin(_) | Observed::End(_) | Observed::Failed(..) => continue,
            };
            // Full: dropped, with a line in the log.
            drop(to_sender.try_send(event(kind, &object)));
        }
    });
    tasks.spawn(async move {
        while let Some(change) = changes.recv().await {
            for attempt in 1..=TRIES {
                match platform.post(EVENTS, change.to_string().into()).await {
                    Err(trouble) if trouble.status.is_some_and(|status| status >= 500) => {
                        sleep(Duration::from_secs(1 << attempt)).await;
                    }
                    Ok(()) | Err(_) => break,
                }
            }
            // Ten a second.
            sleep(Duration::from_millis(100)).await;
        }
    });
    tasks
}

fn event(kind: &str, object: &Projected) -> Value {
    let mut event = json!({"cluster_uid": CLUSTER, "type": kind, "kind": object.id.kind.name(),
        "uid": &*object.id.uid, "name": &*object.name});
    if object.id.kind.is_namespaced() {
        event["namespace"] = json!(&*object.namespace);
    }
    if kind != "deleted" {
        event["object"] = serde_json::from_slice(&object.body).unwrap();
    }
    event
}

fn snapshot(scene: &Scene) -> Value {
    let mut body = json!({"cluster_uid": CLUSTER, "cluster_name": "c"});
    for kind in Kind::ALL {
        let all = scene.churn.api.list(&super::churn::api_kind(kind), "");
        let sent = all.iter().map(|object| obsyk_platform::oracle::expected(kind.name(), object));
        body[kind.list()] = sent.collect();
    }
    body
}
