//! Judging one other server, again and again: when its Service or its endpoints change, and every half minute.

use std::{sync::Arc, time::Duration};

use meta::{Condition, FieldSelector, LabelSelector, ObjectKey, Status};
use resource::Resource;
use tokio::time::{sleep, timeout};

use super::{
    Aggregation, check,
    document::{self, Fragment, Seen},
    remote::{Answer, Link, Remote},
};
use crate::rest::{Caller, Duplicates, ListOptions, Rest, Target, Watch};

/// How often a server is asked that answered, as upstream's resync.
const EVERY: Duration = Duration::from_secs(30);
/// The first pause after a failure; each further is twice as long, up to [`EVERY`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Changes that come together are one.
const GATHER: Duration = Duration::from_millis(100);
/// How long an answer may take, upstream's.
const ANSWER_MAX: Duration = Duration::from_secs(6);
/// Every so many rounds the OpenAPI documents are asked for: upstream does each minute.
const DOCUMENTS_EVERY: u32 = 2;

/// Judges `remote`, for which the APIService `name` stands, until it is aborted.
pub(super) async fn attend(layer: Aggregation, services: Arc<Resource>, name: String, mut remote: Remote) {
    let rest = &layer.0.rest;
    let link = match remote.link.clone() {
        Ok(link) => link,
        Err(why) => {
            while report(rest, &services, &name, &check::failed(&*why)).await.is_err() {
                sleep(RETRY_MIN).await;
            }
            return;
        }
    };
    let mut changes = Changes::of(&link);
    let (mut rounds, mut failures) = (0_u32, 0_u32);
    loop {
        // Watched before it is looked at, so that no change is missed.
        changes.open(rest).await;
        let mut condition = check::obstacle(rest.cache().as_ref(), &link.service);
        if condition.is_none() {
            condition = Some(ask(&layer, &link, &mut remote, rounds).await);
        }
        let condition = condition.unwrap_or_else(check::passed);
        remote.available = condition.status == meta::ConditionStatus::True;
        rest.registry().update_remote(&remote);
        let told = report(rest, &services, &name, &condition).await;
        if let Err(status) = &told
            && status.reason != Some(meta::Reason::Conflict)
        {
            tracing::warn!(name, %status, "write the condition of an APIService");
        }
        failures = if remote.available && told.is_ok() { 0 } else { failures.saturating_add(1) };
        rounds = if remote.available { rounds.wrapping_add(1) } else { 0 };
        let pause = match failures {
            0 => EVERY,
            n => (RETRY_MIN * 2_u32.saturating_pow(n.min(6) - 1)).min(EVERY),
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = changes.next() => sleep(GATHER).await,
        }
    }
}

/// One GET that is check and discovery; what it says is noted in `remote`.
async fn ask(layer: &Aggregation, link: &Link, remote: &mut Remote, round: u32) -> Condition {
    let path = remote.path();
    let url = link.url(&path);
    let failing = |why: String| check::failed(format!("failing or missing response from {url}: {why}"));
    let answer = match get(layer, link, &path, None).await {
        Ok(answer) => answer,
        Err(why) => return failing(why),
    };
    if !(200..300).contains(&answer.code) {
        return failing(format!("bad status from {url}: {}", answer.code));
    }
    let document = serde_json::from_slice(&answer.bytes).unwrap_or_default();
    let resources = document::resources(&document, &remote.of).unwrap_or_else(|| {
        tracing::warn!(version = %remote.of, url, "the answer is no APIResourceList of this version");
        Vec::new()
    });
    let before = remote.seen.as_ref();
    let same = before.is_some_and(|before| before.resources == resources);
    let (v3, v2) = match before.filter(|_| same && !round.is_multiple_of(DOCUMENTS_EVERY)) {
        Some(before) => (before.v3.clone(), before.v2.clone()),
        None => documents(layer, link, remote).await,
    };
    let seen = Seen::new(resources, v3, v2);
    if before.is_none_or(|before| before.stamp != seen.stamp) {
        remote.seen = Some(Arc::new(seen));
    }
    check::passed()
}

/// Its OpenAPI documents. A server need not have any; one that could not be read is shown as it was.
async fn documents(layer: &Aggregation, link: &Link, remote: &Remote) -> (String, Option<Arc<Fragment>>) {
    let before = remote.seen.as_ref();
    let index = match get(layer, link, "/openapi/v3", None).await {
        Ok(answer) if answer.code == 200 => serde_json::from_slice(&answer.bytes).ok(),
        Ok(_) => None,
        Err(_) => {
            return (before.map(|b| b.v3.clone()).unwrap_or_default(), before.and_then(|b| b.v2.clone()));
        }
    };
    let v3 = index.map(|index| document::v3_hash(&index, &remote.of)).unwrap_or_default();
    let known = before.and_then(|before| before.v2.as_ref());
    let etag = known.map(|v2| v2.etag.as_str()).filter(|etag| !etag.is_empty());
    let v2 = match get(layer, link, "/openapi/v2", etag).await {
        Ok(Answer { code: 200, etag, bytes }) => {
            let whole = serde_json::from_slice(&bytes).ok();
            whole.map(|whole| Arc::new(document::fragment(&whole, &remote.of, etag)))
        }
        Ok(Answer { code: 304, .. }) | Err(_) => known.cloned(),
        Ok(_) => None,
    };
    (v3, v2)
}

async fn get(layer: &Aggregation, link: &Link, path: &str, known: Option<&str>) -> Result<Answer, String> {
    let view = layer.0.rest.cache().as_ref();
    timeout(ANSWER_MAX, link.get(&layer.0.forwarder, view, path, known))
        .await
        .unwrap_or_else(|_| Err("timed out".to_owned()))
}

/// Writes a condition where it says something new.
pub(super) async fn report(
    rest: &Rest,
    services: &Arc<Resource>,
    name: &str,
    condition: &Condition,
) -> Result<(), Status> {
    let key = ObjectKey::new("", name);
    let Some(entry) = rest.cache().kind(&services.stored_as).get(&key) else { return Ok(()) };
    let mut object = entry.object().map_err(Status::internal)?;
    if !condition.set_in(&mut object, rest.clock().now()) {
        return Ok(());
    }
    let target = Target { key, subresource: "status".to_owned() };
    match rest.update(&Caller::server(), services, &target, object, Duplicates::default()).await {
        Err(status) if status.reason != Some(meta::Reason::NotFound) => Err(status),
        // Nobody is left to be told.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Watches on the Service and its endpoints.
struct Changes {
    /// Group, version and plural with what is selected.
    of: [(&'static str, &'static str, ListOptions); 2],
    namespace: String,
    watches: [Option<Watch>; 2],
}

impl Changes {
    fn of(link: &Link) -> Self {
        let new = || ListOptions { skip_initial_events: true, ..ListOptions::default() };
        let name = &link.service.name;
        let fields = Some(FieldSelector::equals("metadata.name", name));
        // A name that is no label selects nothing, and is the name of no Service.
        let labels = LabelSelector::parse(&format!("kubernetes.io/service-name={name}")).ok();
        Self {
            of: [
                ("", "services", ListOptions { fields, ..new() }),
                ("discovery.k8s.io", "endpointslices", ListOptions { labels, ..new() }),
            ],
            namespace: link.service.namespace.clone(),
            watches: [None, None],
        }
    }

    /// Begins what is not being watched. What cannot be watched is looked at when the pause is over.
    async fn open(&mut self, rest: &Rest) {
        for ((group, plural, options), watch) in self.of.iter().zip(&mut self.watches) {
            if watch.is_none()
                && let Some(resource) = rest.registry().resolve(group, "v1", plural)
            {
                *watch = rest.watch(&resource, Some(&self.namespace), options).await.ok();
            }
        }
    }

    async fn next(&mut self) {
        let [services, slices] = &mut self.watches;
        tokio::select! {
            () = changed(services) => {}
            () = changed(slices) => {}
        }
    }
}

async fn changed(watch: &mut Option<Watch>) {
    let Some(open) = watch else { return std::future::pending().await };
    if !matches!(open.next().await, Some(Ok(_))) {
        // Broken or over: opened anew before the next look.
        *watch = None;
    }
}
