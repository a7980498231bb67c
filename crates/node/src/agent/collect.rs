//! Removal of images that no container has, when the disk fills (upstream `pkg/kubelet/images/image_gc_manager.go`).
//!
//! Guarantees: an image that a container of this machine was made from, in whatever state, or that the runtime itself needs
//! stays; so does one that came less than [`Collection::min_age`] ago, since a pod may be about to start with it. Those that
//! have not been used for the longest time go first, and no more than necessary. An image that a pod asks for is fetched
//! again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use meta::Timestamp;
use runtime::{Action, Image, ObservedPod};

use super::{Agent, events::Level};

/// When images are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collection {
    /// From how much of the disk in use, in percent.
    pub high_percent: u8,
    /// Down to how much.
    pub low_percent: u8,
    /// An image that came later stays.
    pub min_age: Duration,
    /// How often the disk is looked at.
    pub every: Duration,
}

impl Default for Collection {
    /// Upstream's.
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            min_age: Duration::from_secs(120),
            every: Duration::from_secs(300),
        }
    }
}

impl Collection {
    /// How many bytes have to go; none with a high mark of 100, which upstream takes for "never".
    fn surplus(&self, bytes: u64, available: u64) -> u64 {
        let free = |used: u8| {
            u64::try_from(u128::from(bytes) * u128::from(100 - used.min(100)) / 100).unwrap_or(bytes)
        };
        if bytes == 0 || self.high_percent >= 100 || available > free(self.high_percent) {
            return 0;
        }
        free(self.low_percent).saturating_sub(available)
    }
}

/// What is remembered of an image.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// `None`: before we came.
    first: Option<Timestamp>,
    used: Option<Timestamp>,
}

/// When images came and were used last. Bounded by the images there are.
#[derive(Debug, Default)]
struct Ledger(BTreeMap<String, Seen>);

impl Ledger {
    /// Takes note of what there is and what is in use. `beginning`: what is there was there before.
    fn look(&mut self, images: &[Image], pods: &[ObservedPod], now: Timestamp, beginning: bool) {
        let containers = || pods.iter().flat_map(|pod| &pod.containers);
        let names: BTreeSet<&str> =
            containers().flat_map(|container| [&*container.image, &*container.image_id]).collect();
        let is_used = |image: &Image| {
            let mut own = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            own.any(|name| names.contains(name.as_str()))
        };
        self.0.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let first = (!beginning).then_some(now);
            let seen = self.0.entry(image.id.clone()).or_insert(Seen { first, used: None });
            if is_used(image) {
                seen.used = Some(now);
            }
        }
    }

    /// What may go, the first to go first. Those in use were used now.
    fn removable<'a>(&self, images: &'a [Image], now: Timestamp, min_age: Duration) -> Vec<&'a Image> {
        let seen = |image: &Image| self.0.get(&image.id).copied();
        let is_old =
            |seen: Seen| seen.first.is_none_or(|first| now.duration_since(first).unsigned_abs() >= min_age);
        let mut all: Vec<&Image> = images
            .iter()
            .filter(|image| {
                !image.pinned && seen(image).is_some_and(|seen| seen.used != Some(now) && is_old(seen))
            })
            .collect();
        all.sort_by_key(|image| (seen(image).map(|seen| (seen.used, seen.first)), image.id.clone()));
        all
    }
}

/// Looks at the disk from time to time, for ever.
pub(super) async fn run(agent: Arc<Agent>, collection: Collection) {
    let mut ledger = Ledger::default();
    let mut beginning = true;
    loop {
        if let Err(error) = collect(&agent, &collection, &mut ledger, beginning).await {
            tracing::warn!(%error, "cannot look for images that nobody uses");
        }
        beginning = false;
        tokio::time::sleep(collection.every).await;
    }
}

async fn collect(
    agent: &Agent,
    collection: &Collection,
    ledger: &mut Ledger,
    beginning: bool,
) -> Result<(), runtime::Error> {
    // Images first: one whose container comes in between is in use, and one that comes in between is not looked at.
    let images = agent.runtime.list_images().await?;
    let (pods, now) = (agent.runtime.observe().await?, agent.now());
    ledger.look(&images, &pods, now, beginning);
    let measured = match agent.options.host.measure().await {
        Ok(measured) => measured,
        Err(error) => {
            tracing::warn!(%error, "cannot measure the disk");
            return Ok(());
        }
    };
    let wanted = collection.surplus(measured.disk_bytes, measured.disk_available_bytes);
    let mut freed = 0;
    for image in ledger.removable(&images, now, collection.min_age) {
        if freed >= wanted {
            break;
        }
        let name = image.repo_tags.first().unwrap_or(&image.id);
        match agent.runtime.act(&Action::RemoveImage { image: image.id.clone() }).await {
            Ok(_) => {
                tracing::info!(image = %name, bytes = image.size_bytes, "removed an image that nobody uses: the disk is nearly full");
                freed += image.size_bytes;
            }
            Err(error) => tracing::warn!(image = %name, %error, "cannot remove an image that nobody uses"),
        }
    }
    if freed < wanted {
        let message = format!(
            "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes \
             eligible to free."
        );
        tracing::warn!(message);
        agent.events.record_node(&agent.options.name, Level::Warning, "FreeDiskSpaceFailed", message);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use runtime::{ContainerState, ObservedContainer};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn image(name: &str) -> Image {
        Image {
            id: format!("sha256:{name}"),
            repo_tags: vec![format!("r/{name}:1")],
            size_bytes: 10,
            ..Image::default()
        }
    }

    fn pod(image: &str) -> ObservedPod {
        let container = ObservedContainer {
            id: "c".to_owned(),
            sandbox_id: "s".to_owned(),
            name: "main".to_owned(),
            attempt: 0,
            state: ContainerState::Unknown,
            created_at: at(0),
            image: String::new(),
            image_id: format!("sha256:{image}"),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            log_path: String::new(),
        };
        ObservedPod {
            uid: "u".to_owned(),
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            sandboxes: Vec::new(),
            containers: vec![container],
        }
    }

    #[test]
    fn the_disk_is_freed_from_the_high_mark_down_to_the_low_one() {
        let marks = Collection::default();
        for (available, surplus) in [(1000, 0), (151, 0), (150, 50), (0, 200), (2000, 0)] {
            assert_eq!(marks.surplus(1000, available), surplus, "{available} of 1000 available");
        }
        assert_eq!(marks.surplus(0, 0), 0, "a disk that was not measured");
        let never = Collection { high_percent: 100, ..marks };
        assert_eq!(never.surplus(1000, 0), 0);
    }

    #[test]
    fn the_image_unused_for_the_longest_time_goes_first_and_none_in_use_or_new() {
        let mut images = ["used", "once", "never", "pinned"].map(image).to_vec();
        images[3].pinned = true;
        let mut ledger = Ledger::default();
        ledger.look(&images, &[pod("once")], at(0), true);
        images.push(image("new"));
        ledger.look(&images, &[pod("used")], at(60), false);
        let names = |now: i64| -> Vec<String> {
            let removable = ledger.removable(&images, at(now), Duration::from_secs(120));
            removable.iter().map(|image| image.id.trim_start_matches("sha256:").to_owned()).collect()
        };
        assert_eq!(names(60), ["never", "once"]);
        assert_eq!(names(180), ["never", "new", "once", "used"], "were nothing looked at meanwhile");
        ledger.look(&images[..1], &[], at(180), false);
        assert_eq!(ledger.0.len(), 1, "what is gone is forgotten");
    }
}
