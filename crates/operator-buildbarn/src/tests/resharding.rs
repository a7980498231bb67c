//! A shard that comes and one that goes, as a whole. Every reader and writer of the farm is played by the
//! configuration that its pods were started with: between any two steps of any controller or rollout each of them
//! stores a blob, and each finds what any of them stored.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use super::*;

/// More turns than any stage needs.
const TURNS_MAX: usize = 40;
const WINDOW_S: i64 = 3600;

/// Where the client of a storage stands in a component's configuration.
const CLIENTS: [&str; 3] = [
    "/contentAddressableStorage/backend",
    "/blobstore/contentAddressableStorage",
    "/contentAddressableStorage",
];

struct Story {
    farm: Farm,
    /// What each storage pod holds, by address.
    pods: BTreeMap<String, BTreeSet<u32>>,
    /// The storage's client of everything that runs, by pod or Deployment.
    running: BTreeMap<String, Value>,
    /// Blobs so far; each is the number of its writer's turn.
    blobs: u32,
}

impl Story {
    /// A farm at rest, with three workers.
    async fn new(manifests: &str) -> Self {
        let farm = Farm::new(manifests);
        farm.edit::<BuildbarnWorker>("ubuntu", json!({"autoscaling": null, "replicas": 3}));
        farm.edit::<BuildbarnStorage>("storage", json!({"resharding": {"windowSeconds": WINDOW_S}}));
        farm.run().await;
        let mut story = Self { farm, pods: BTreeMap::new(), running: BTreeMap::new(), blobs: 0 };
        story.started();
        let names: Vec<&String> = story.running.keys().collect();
        assert_eq!(
            names.len(),
            6,
            "scheduler, frontend, browser and three workers: {names:?} {}",
            story.farm.condition::<BuildbarnFrontend>("frontend", "Ready")
        );
        story.clients();
        story
    }

    /// One step of every controller and one rollout of every workload, between any two of which the clients go on.
    async fn turn(&mut self) {
        macro_rules! step {
            ($($controller:ident: $kind:ty),*) => {$(
                for key in self.farm.keys::<$kind>() {
                    self.farm.$controller.step(&key).await;
                }
            )*};
        }
        step!(storage: BuildbarnStorage, scheduler: BuildbarnScheduler, worker: BuildbarnWorker);
        step!(frontend: BuildbarnFrontend, browser: BuildbarnBrowser);
        for deployment in self.farm.list::<Deployment>() {
            self.farm.roll_deployment(&deployment);
            self.started();
        }
        for set in self.farm.list::<StatefulSet>() {
            self.farm.roll_set(&set);
            self.started();
        }
    }

    /// Turns until the map is at a stage.
    async fn until(&mut self, stage: &str) {
        for _ in 0..TURNS_MAX {
            if self.stage() == stage {
                return;
            }
            self.turn().await;
        }
        let farm = &self.farm;
        let said = [
            farm.condition::<BuildbarnStorage>("storage", "Resharding"),
            farm.condition::<BuildbarnScheduler>("scheduler", "Ready"),
            farm.condition::<BuildbarnWorker>("ubuntu", "Ready"),
            farm.condition::<BuildbarnFrontend>("frontend", "Ready"),
            farm.condition::<BuildbarnBrowser>("browser", "Ready"),
        ];
        panic!("not {stage} but {}: {said:#?}", self.stage());
    }

    /// Turns until nothing is left to do.
    async fn rest(&mut self) {
        for _ in 0..TURNS_MAX {
            let before = self.farm.storage.api.revision();
            self.turn().await;
            if before == self.farm.storage.api.revision() {
                return;
            }
        }
        panic!("no rest after {TURNS_MAX} turns");
    }

    fn stage(&self) -> String {
        self.farm.status::<BuildbarnStorage>("storage")["topology"]["stage"].as_str().unwrap().to_owned()
    }

    /// Pods begin and end. Of a Deployment the earlier and the later configuration run at the same time for a
    /// moment; workers run with what their own pod was started with.
    fn started(&mut self) {
        let replicas = self.farm.get::<StatefulSet>("storage").unwrap()["status"]["replicas"].as_i64();
        let address = |n: i64| format!("storage-{n}.storage.buildbarn.svc:8981");
        let alive: BTreeSet<String> = (0..replicas.unwrap()).map(address).collect();
        self.pods.retain(|address, _| alive.contains(address));
        for address in alive {
            self.pods.entry(address).or_default();
        }
        let mut now = BTreeMap::new();
        for deployment in self.farm.list::<Deployment>() {
            let (name, template) = (&deployment["metadata"]["name"], &deployment["spec"]["template"]);
            let name = name.as_str().unwrap().to_owned();
            if deployment["metadata"]["labels"]["app"] == "worker" {
                let label = &template["metadata"]["labels"]["buildbarn.io/template"];
                for pod in self.farm.list::<Pod>() {
                    if pod["metadata"]["labels"]["buildbarn.io/template"] == *label {
                        let pod = pod["metadata"]["name"].as_str().unwrap().to_owned();
                        now.insert(pod, self.client(template));
                    }
                }
            } else if deployment["status"]["observedGeneration"] == deployment["metadata"]["generation"] {
                now.insert(name, self.client(template));
            } else if let Some(own) = self.running.get(&name) {
                now.insert(name, own.clone());
            }
        }
        // Started with what it has: a configuration that has gone since is still its own.
        for (name, client) in &mut now {
            if let Some(own) = self.running.get(name).filter(|_| client.is_null()) {
                *client = own.clone();
            }
        }
        if now == self.running {
            return;
        }
        let mut both = self.running.clone();
        let later = now.clone().into_iter().map(|(name, client)| (format!("{name} (later)"), client));
        both.extend(later);
        self.running = both;
        self.clients();
        self.running = now;
        self.clients();
    }

    /// The storage's client in the configuration that a template's pods read.
    fn client(&self, template: &Value) -> Value {
        let volumes = template["spec"]["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|volume| volume["name"] == "configs").unwrap();
        let Some(map) = self.farm.get::<ConfigMap>(volume["configMap"]["name"].as_str().unwrap()) else {
            return Value::Null;
        };
        let files = map["data"].as_object().unwrap();
        let mut clients = files.values().filter_map(|text| {
            let file = parse(text.as_str().unwrap());
            CLIENTS.iter().find_map(|at| file.pointer(at).cloned())
        });
        clients.next().unwrap()
    }

    /// Each stores a blob, and each finds all there are.
    fn clients(&mut self) {
        for (name, client) in self.running.clone() {
            self.blobs += 1;
            self.put(&client, &client, self.blobs).unwrap_or_else(|why| panic!("{name} writes: {why}"));
        }
        for (name, client) in self.running.clone() {
            for blob in 1..=self.blobs {
                match self.get(&client, &client, blob) {
                    Ok(true) => {}
                    Ok(false) => panic!("{name} does not find blob {blob} of {}: {client:#}", self.blobs),
                    Err(why) => panic!("{name} reads blob {blob}: {why}"),
                }
            }
        }
    }

    fn put(&mut self, root: &Value, at: &Value, blob: u32) -> Result<(), String> {
        match Backend::of(root, at, blob) {
            Backend::Pod(address) => {
                self.pod(&address)?.insert(blob);
                Ok(())
            }
            Backend::Both(a, b) => self.put(root, a, blob).and(self.put(root, b, blob)),
            Backend::Fallback(primary, _) => self.put(root, primary, blob),
        }
    }

    fn get(&mut self, root: &Value, at: &Value, blob: u32) -> Result<bool, String> {
        match Backend::of(root, at, blob) {
            Backend::Pod(address) => Ok(self.pod(&address)?.contains(&blob)),
            Backend::Both(a, b) => Ok(self.get(root, a, blob)? && self.get(root, b, blob)?),
            Backend::Fallback(primary, secondary) => {
                let found = self.get(root, primary, blob)?;
                let elsewhere = !found && self.get(root, secondary, blob)?;
                if elsewhere {
                    self.put(root, primary, blob)?;
                }
                Ok(found || elsewhere)
            }
        }
    }

    fn pod(&mut self, address: &str) -> Result<&mut BTreeSet<u32>, String> {
        self.pods.get_mut(address).ok_or_else(|| format!("there is no pod at {address}"))
    }

    /// Everything that a change may not touch: what runs, and with what.
    fn runs(&self) -> (Vec<Value>, Vec<Value>, Vec<Value>) {
        let spec = |objects: Vec<Value>| objects.into_iter().map(|object| object["spec"].clone()).collect();
        let (sets, deployments) = (self.farm.list::<StatefulSet>(), self.farm.list::<Deployment>());
        (spec(sets), spec(deployments), self.farm.list::<Pod>())
    }

    fn ready(&self) -> String {
        self.farm.condition::<BuildbarnStorage>("storage", "Ready")
    }

    fn read_by_both(&self) -> usize {
        self.running.values().filter(|client| labels(client).is_some()).count()
    }
}

/// What of Buildbarn's backends a farm's configuration has.
enum Backend<'a> {
    Pod(String),
    Both(&'a Value, &'a Value),
    Fallback(&'a Value, &'a Value),
}

impl<'a> Backend<'a> {
    /// Where a blob's way through a configuration leads next.
    fn of(root: &'a Value, at: &'a Value, blob: u32) -> Self {
        let (kind, inner) = at.as_object().unwrap().iter().next().unwrap();
        match kind.as_str() {
            "grpc" => Self::Pod(inner["client"]["address"].as_str().unwrap().to_owned()),
            "mirrored" => Self::Both(&inner["backendA"], &inner["backendB"]),
            "readFallback" => Self::Fallback(&inner["primary"], &inner["secondary"]),
            // What it remembers to be there, it does not ask for again; that is all.
            "existenceCaching" | "withLabels" => Self::of(root, &inner["backend"], blob),
            "label" => Self::of(root, &labels(root).unwrap()[inner.as_str().unwrap()], blob),
            "sharding" => {
                let shards = inner["shards"].as_object().unwrap();
                let (_, shard) = shards.iter().max_by_key(|(key, _)| score(key, blob)).unwrap();
                Self::of(root, &shard["backend"], blob)
            }
            other => panic!("{other} is not played: {at:#}"),
        }
    }
}

/// The shards of both maps, where a client reads by two.
fn labels(client: &Value) -> Option<&Value> {
    let places = ["/withLabels/labels", "/existenceCaching/backend/withLabels/labels"];
    places.iter().find_map(|at| client.pointer(at))
}

/// Rendezvous hashing: of the keys, the one with the highest score has the blob.
fn score(key: &str, blob: u32) -> u64 {
    let mut hasher = DefaultHasher::new();
    (key, blob).hash(&mut hasher);
    hasher.finish()
}

/// A shard is added, the window is waited for, and the same shard is taken away again.
async fn comes_and_goes(manifests: &str, more: Value, fewer: Value, pods: (usize, usize)) {
    let (few, many) = pods;
    let mut story = Story::new(manifests).await;
    assert_eq!(story.pods.len(), few);
    let readers = story.running.len();
    for (spec, after) in [(more, many), (fewer, few)] {
        story.farm.edit::<BuildbarnStorage>("storage", spec);
        story.until("Growing").await;
        assert_eq!(story.read_by_both(), 0, "nobody reads what may not be there yet");
        story.until("Preparing").await;
        assert_eq!(story.pods.len(), many);
        story.until("Fallback").await;
        story.rest().await;
        assert_eq!(story.read_by_both(), readers, "all read by both maps");
        let said = story.farm.condition::<BuildbarnStorage>("storage", "Resharding");
        assert_eq!(said, format!("True Fallback: the earlier map is read for another {WINDOW_S} s"));
        assert!(story.ready().starts_with("True Ready"), "{}", story.ready());

        geometry_is_refused(&mut story).await;

        story.farm.storage.advance(WINDOW_S - 1);
        story.rest().await;
        assert_eq!((story.stage(), story.read_by_both()), ("Fallback".to_owned(), readers), "not yet");
        story.farm.storage.advance(1);
        story.until("Stable").await;
        assert_eq!(story.pods.len(), many, "the map is decided, and its readers still have the earlier");
        story.rest().await;
        let status = story.farm.status::<BuildbarnStorage>("storage");
        assert_eq!((&status["topology"]["previous"], story.read_by_both()), (&Value::Null, 0));
        assert_eq!(story.farm.condition::<BuildbarnStorage>("storage", "Resharding"), "");
        assert_eq!(story.pods.len(), after);
        assert!(story.pods.values().all(|blobs| !blobs.is_empty()), "every pod has its share");
        assert!(story.ready().starts_with("True Ready"), "{}", story.ready());
        assert_eq!(story.farm.list::<ConfigMap>().len(), 5, "no configuration of an earlier map is left");
    }
}

/// In the middle of a change, another geometry is asked for: it is refused, and nothing restarts.
async fn geometry_is_refused(story: &mut Story) {
    let before = story.runs();
    story.farm.edit::<BuildbarnStorage>("storage", json!({"cas": {"currentBlocks": 30}}));
    story.rest().await;
    assert!(story.ready().starts_with("False WouldLoseData: spec.cas.currentBlocks: "), "{}", story.ready());
    assert_eq!((story.runs(), story.stage()), (before, "Fallback".to_owned()));
    story.farm.edit::<BuildbarnStorage>("storage", json!({"cas": {"currentBlocks": null}}));
    story.rest().await;
    assert!(story.ready().starts_with("True Ready"), "{}", story.ready());
}

#[tokio::test]
async fn a_shard_comes_and_goes_and_every_blob_is_found_all_the_while() {
    comes_and_goes(FARM, json!({"replicas": 3}), json!({"replicas": 2}), (2, 3)).await;
}

#[tokio::test]
async fn a_mirrored_shard_comes_and_goes_as_a_pair() {
    let more = json!({"replicas": 8, "shards": {"keys": ["red", "green", "blue", "white"]}});
    let fewer = json!({"replicas": 6, "shards": {"keys": ["red", "green", "blue"]}});
    comes_and_goes(SHARDED, more, fewer, (6, 8)).await;
}

/// The test's own proof: maps that change without steps lose blobs, and the clients notice.
#[tokio::test]
#[should_panic(expected = "does not find blob")]
async fn a_map_that_is_dropped_at_once_loses_blobs() {
    let mut story = Story::new(FARM).await;
    let spec = json!({"replicas": 3, "allowDataLoss": true, "resharding": {"strategy": "Drop"}});
    story.farm.edit::<BuildbarnStorage>("storage", spec);
    story.rest().await;
}
