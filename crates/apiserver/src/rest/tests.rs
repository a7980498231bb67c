use std::{borrow::Cow, sync::Arc};

use meta::{
    Clock, FieldSelector, Fixed, GroupResource, GroupVersion, LabelSelector, Object, ObjectKey, Revision,
    Seeded, Status, Timestamp, Value,
};
use resource::{Claim, Context, Resource, Scale, Scope, Selectable, Strategy, Subresource, Verb};
use schema::{Node, Property, Schema, Shape, TypeSet};
use serde_json::json;

use super::*;

mod beside;
mod reading;

/// A kind with a grace period, like a Pod, that claims the name in `spec.claim`.
struct Toy;

impl Strategy for Toy {
    fn grace_period(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        let default = object.int(&["spec", "grace"])?;
        Some(asked.unwrap_or(default))
    }

    fn claims(&self, object: &Object) -> Vec<Claim> {
        let Some(name) = object.str(&["spec", "claim"]) else { return Vec::new() };
        let object = json!({"apiVersion": "v1", "kind": "Name", "metadata": {"name": name}});
        vec![Claim { resource: GroupResource::new("", "names"), object: Object::from_value(object).unwrap() }]
    }

    fn prepare(&self, cx: &Context<'_>, new: &mut Object, _: Option<&Object>) -> Result<(), Status> {
        if new.str(&["spec", "claim"]) == Some("any") {
            new.set(&["spec", "claim"], format!("name-{}", cx.random.below(4)));
        }
        Ok(())
    }
}

fn toy(plural: &str, kind: &str, scope: Scope) -> Resource {
    let mut set = TypeSet::new();
    let any = set.add(Node::default());
    let property = || Property { of: any, default: None, patch: None, protobuf: 0 };
    let properties =
        ["apiVersion", "kind", "metadata", "spec", "status", "data"].map(|name| (name.into(), property()));
    let root = set.add(Node {
        shape: Shape::Struct {
            properties: properties.into_iter().collect(),
            required: Box::default(),
            preserve_unknown: false,
            embedded: false,
            map_type: schema::MapType::Granular,
        },
        ..Node::default()
    });
    let scale = Scale {
        spec_replicas: Cow::Borrowed("spec.replicas"),
        status_replicas: Cow::Borrowed("status.replicas"),
        selector: None,
    };
    Resource {
        group: "".into(),
        version: "v1".into(),
        kind: kind.into(),
        list_kind: format!("{kind}List").into(),
        plural: plural.into(),
        singular: kind.to_lowercase().into(),
        short_names: Vec::new(),
        categories: Vec::new(),
        scope,
        stored_as: GroupResource::new("", plural),
        stored_version: GroupVersion::new("", "v1"),
        convert: None,
        verbs: Verb::ALL,
        schema: Schema::new(Arc::new(set), root),
        columns: Vec::new(),
        subresources: vec![
            ("scale".into(), Subresource::Scale(scale)),
            ("status".into(), Subresource::Status),
        ],
        selectable: vec![Selectable {
            name: Cow::Borrowed("spec.node"),
            value: Arc::new(|object| object.str(&["spec", "node"]).unwrap_or_default().to_owned()),
            indexed: true,
        }],
        strategy: Arc::new(Toy),
        complete_since: meta::Revision(0),
        custom: false,
        deprecated: None,
    }
}

/// Admission that fills in a class where one is wanted, as upstream's DefaultStorageClass.
struct UsualClass;

impl resource::Admission for UsualClass {
    fn name(&self) -> &'static str {
        "UsualClass"
    }

    fn handles(&self, _: &resource::Attributes) -> bool {
        true
    }

    fn mutate<'a>(
        &'a self,
        _: &'a Context<'a>,
        object: Option<&'a mut Object>,
        old: Option<&'a Object>,
    ) -> futures::future::BoxFuture<'a, Result<(), Status>> {
        if let (Some(object), None) = (object, old)
            && object.bool(&["spec", "wantsClass"]) == Some(true)
        {
            object.set(&["spec", "class"], "usual");
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

struct Server {
    rest: Rest,
    toys: Arc<Resource>,
    clock: Arc<Fixed>,
    store: store::Memory,
}

impl Server {
    async fn start() -> Self {
        Self::over(store::Memory::new()).await
    }

    async fn over(store: store::Memory) -> Self {
        let registry = Arc::new(Registry::new());
        registry.install_all([toy("toys", "Toy", Scope::Namespaced), toy("names", "Name", Scope::Cluster)]);
        let cache = Arc::new(Cache::load(&store, &registry).await.unwrap());
        let clock = Arc::new(Fixed::new("2026-01-01T00:00:00Z".parse::<Timestamp>().unwrap()));
        let (rest, _task) = Rest::start(Parts {
            store: Arc::new(store.clone()),
            cache,
            registry: registry.clone(),
            admission: vec![Arc::new(UsualClass)],
            clock: clock.clone(),
            random: Arc::new(Seeded::new(1)),
        });
        let toys = registry.resolve("", "v1", "toys").unwrap();
        Self { rest, toys, clock, store }
    }

    async fn create(&self, value: Value) -> Result<Written, Status> {
        let object = Object::from_value(value).unwrap();
        self.rest.create(&caller(), &self.toys, "default", object, Duplicates::default()).await
    }

    async fn make(&self, name: &str) -> Arc<Entry> {
        self.create(json!({"metadata": {"name": name}})).await.unwrap().entry
    }

    async fn update(&self, value: Value) -> Result<Written, Status> {
        let object = Object::from_value(value).unwrap();
        let target = Target { key: key(object.name()), subresource: String::new() };
        self.rest.update(&caller(), &self.toys, &target, object, Duplicates::default()).await
    }

    async fn merge(&self, name: &str, subresource: &str, body: Value) -> Result<Written, Status> {
        let target = Target { key: key(name), subresource: subresource.to_owned() };
        let patch = Patch { kind: PatchKind::Merge, body, duplicates: Duplicates::default() };
        self.rest.patch(&caller(), &self.toys, &target, patch).await
    }

    async fn delete(&self, name: &str, options: DeleteOptions) -> Result<Deleted, Status> {
        self.rest.delete(&caller(), &self.toys, &key(name), &options).await
    }

    async fn names(&self, options: &ListOptions) -> Vec<String> {
        let page = self.rest.list(&self.toys, Some("default"), options).await.unwrap();
        page.entries.iter().map(|entry| entry.header.key.name.clone()).collect()
    }

    async fn watch(&self, options: ListOptions) -> Watch {
        self.rest.watch(&self.toys, None, &options).await.unwrap()
    }
}

fn caller() -> Caller {
    Caller { field_manager: "test".to_owned(), ..Caller::default() }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

fn from(revision: u64) -> ListOptions {
    ListOptions { watch_from: Some(Revision(revision)), ..ListOptions::default() }
}

async fn seen(watch: &mut Watch, count: usize) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let event = watch.next().await.unwrap().unwrap();
        seen.push(format!(
            "{} {}@{}",
            event.happened.wire(),
            event.entry.header.key.name,
            event.entry.revision
        ));
    }
    seen
}

#[tokio::test]
async fn create_fills_metadata_and_refuses_a_second() {
    let server = Server::start().await;
    let made = server.create(json!({"metadata": {"name": "a"}, "status": {"x": 1}})).await.unwrap();
    let object = made.entry.object().unwrap();
    assert!(made.created);
    assert_eq!(object.str(&["metadata", "creationTimestamp"]), Some("2026-01-01T00:00:00Z"));
    assert_eq!(object.int(&["metadata", "generation"]), Some(1));
    assert_eq!(object.str(&["metadata", "resourceVersion"]), Some("1"));
    assert_eq!(object.get(&["status"]), None, "status is not the client's to create");
    assert_eq!(object.uid().len(), 36);
    let again = server.create(json!({"metadata": {"name": "a"}})).await.unwrap_err();
    assert_eq!((again.code, again.message.as_str()), (409, "toys \"a\" already exists"));
    let other = server.create(json!({"metadata": {"name": "b", "namespace": "other"}})).await.unwrap_err();
    assert_eq!(other.code, 400);
    let nameless = server.create(json!({"metadata": {}})).await.unwrap_err();
    assert_eq!(nameless.code, 422);
}

/// Or the creator's later server-side apply, which does not name the field, would remove it.
#[tokio::test]
async fn what_admission_adds_to_a_new_object_belongs_to_nobody() {
    let server = Server::start().await;
    let sent = json!({"metadata": {"name": "a"}, "spec": {"wantsClass": true}});
    let made = server.create(sent).await.unwrap().entry.object().unwrap();
    assert_eq!(made.str(&["spec", "class"]), Some("usual"));
    let owned = made.list(&["metadata", "managedFields"]).first().unwrap().get("fieldsV1").unwrap();
    assert_eq!(*owned, json!({"f:spec": {".": {}, "f:wantsClass": {}}}));
}

#[tokio::test]
async fn generated_names_are_tried_again_until_free() {
    let server = Server::start().await;
    let mut names = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let made = server.create(json!({"metadata": {"generateName": "web-"}})).await.unwrap();
        names.insert(made.entry.header.key.name.clone());
    }
    assert_eq!(names.len(), 50);
    assert!(names.iter().all(|name| name.starts_with("web-") && name.len() == 9));
}

#[tokio::test]
async fn unknown_fields_warn_or_fail_as_asked() {
    let server = Server::start().await;
    let body = || Object::from_value(json!({"metadata": {"name": "a"}, "sepc": {}})).unwrap();
    let strict = Caller { field_validation: FieldValidation::Strict, ..caller() };
    let refused = server
        .rest
        .create(&strict, &server.toys, "default", body(), Duplicates::default())
        .await
        .unwrap_err();
    assert_eq!(refused.message, "strict decoding error: unknown field \"sepc\"");
    let warn = caller();
    let made =
        server.rest.create(&warn, &server.toys, "default", body(), Duplicates::default()).await.unwrap();
    assert_eq!(warn.notes.warnings(), ["unknown field \"sepc\""]);
    assert_eq!(made.entry.object().unwrap().get(&["sepc"]), None);
}

#[tokio::test]
async fn pages_read_one_state_whatever_is_written_meanwhile() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        server.make(name).await;
    }
    let limit = ListOptions { limit: Some(2), ..ListOptions::default() };
    let first = server.rest.list(&server.toys, Some("default"), &limit).await.unwrap();
    assert_eq!((first.revision, first.remaining), (Revision(4), Some(2)));
    server.make("bb").await;
    server.rest.delete(&caller(), &server.toys, &key("c"), &DeleteOptions::default()).await.unwrap();
    let next = ListOptions { continue_token: first.continue_token, ..limit };
    let second = server.rest.list(&server.toys, Some("default"), &next).await.unwrap();
    let names: Vec<_> = second.entries.iter().map(|entry| entry.header.key.name.as_str()).collect();
    assert_eq!(names, ["c", "d"]);
    assert_eq!((second.revision, second.continue_token), (Revision(4), None));
    let past = ListOptions { at: At::Exact(Revision(3)), ..ListOptions::default() };
    assert_eq!(server.names(&past).await, ["a", "b", "c"]);
    assert_eq!(server.names(&ListOptions::default()).await, ["a", "b", "bb", "d"]);
}

#[tokio::test]
async fn a_page_beyond_kept_history_says_how_to_go_on() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.make(name).await;
    }
    let limit = ListOptions { limit: Some(1), ..ListOptions::default() };
    let page = server.rest.list(&server.toys, None, &limit).await.unwrap();
    server.make("d").await;
    // A restart forgets events; the token is older than what is loaded.
    let server = Server::over(server.store).await;
    let next = ListOptions { continue_token: page.continue_token, ..limit };
    let expired = server.rest.list(&server.toys, None, &next).await.unwrap_err();
    assert_eq!((expired.code, expired.reason), (410, Some(meta::Reason::Expired)));
    let next =
        ListOptions { continue_token: expired.continue_token.map(String::from), ..ListOptions::default() };
    assert_eq!(server.names(&next).await, ["b", "c", "d"]);
}

#[tokio::test]
async fn selectors_choose_by_label_and_declared_field() {
    let server = Server::start().await;
    server
        .create(json!({"metadata": {"name": "a", "labels": {"app": "x"}}, "spec": {"node": "n1"}}))
        .await
        .unwrap();
    server.create(json!({"metadata": {"name": "b"}, "spec": {"node": "n2"}})).await.unwrap();
    let by = |labels: &str, fields: &str| ListOptions {
        labels: Some(LabelSelector::parse(labels).unwrap()),
        fields: Some(FieldSelector::parse(fields).unwrap()),
        ..ListOptions::default()
    };
    assert_eq!(server.names(&by("app=x", "")).await, ["a"]);
    assert_eq!(server.names(&by("!app", "spec.node=n2")).await, ["b"]);
    assert_eq!(server.names(&by("", "spec.node!=n2,metadata.name=a")).await, ["a"]);
    let unknown = server.rest.list(&server.toys, None, &by("", "spec.x=1")).await.unwrap_err();
    assert_eq!(unknown.message, "field label not supported: spec.x");
}

#[tokio::test]
async fn a_watch_resumes_after_its_revision_without_gap_or_repeat() {
    let server = Server::start().await;
    server.make("a").await;
    server.make("b").await;
    let mut watch = server.watch(from(1)).await;
    server.merge("a", "", json!({"spec": {"x": 1}})).await.unwrap();
    server.rest.delete(&caller(), &server.toys, &key("b"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(seen(&mut watch, 3).await, ["ADDED b@2", "MODIFIED a@3", "DELETED b@4"]);
    let restarted = Server::over(server.store).await;
    let error = restarted.rest.watch(&restarted.toys, None, &from(1)).await.err().unwrap();
    assert_eq!(error.code, 410);
}

#[tokio::test]
async fn whole_kind_watchers_share_the_bytes_of_a_commit() {
    let server = Server::start().await;
    server.make("first").await;
    let (mut one, mut two) = (server.watch(from(1)).await, server.watch(from(1)).await);
    server.make("a").await;
    let (one, two) = (one.next_chunk().await.unwrap().unwrap(), two.next_chunk().await.unwrap().unwrap());
    assert_eq!(one.as_ptr(), two.as_ptr());
    let event: Value = serde_json::from_slice(&one).unwrap();
    assert_eq!(
        (event["type"].as_str(), event["object"]["metadata"]["name"].as_str()),
        (Some("ADDED"), Some("a"))
    );
}

#[tokio::test]
async fn leaving_a_selection_is_a_deletion_and_entering_it_an_addition() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a"}, "spec": {"node": "n1"}})).await.unwrap();
    let on = |node: &str| ListOptions {
        fields: Some(FieldSelector::parse(&format!("spec.node={node}")).unwrap()),
        ..from(1)
    };
    let (mut first, mut second) = (server.watch(on("n1")).await, server.watch(on("n2")).await);
    server.merge("a", "", json!({"spec": {"node": "n2"}})).await.unwrap();
    server.merge("a", "", json!({"spec": {"y": 1}})).await.unwrap();
    assert_eq!(seen(&mut first, 1).await, ["DELETED a@2"]);
    assert_eq!(seen(&mut second, 2).await, ["ADDED a@2", "MODIFIED a@3"]);
}

#[tokio::test]
async fn a_label_selection_is_left_and_entered_like_any_other() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a", "labels": {"c": "red"}}})).await.unwrap();
    let on = |labels: &str| ListOptions { labels: Some(LabelSelector::parse(labels).unwrap()), ..from(1) };
    let (mut red, mut blue) = (server.watch(on("c=red")).await, server.watch(on("c in (blue),!d")).await);
    server.merge("a", "", json!({"metadata": {"labels": {"c": "blue"}}})).await.unwrap();
    server.merge("a", "", json!({"metadata": {"labels": {"d": ""}}})).await.unwrap();
    server.merge("a", "", json!({"metadata": {"labels": {"c": "red"}}})).await.unwrap();
    assert_eq!(seen(&mut red, 2).await, ["DELETED a@2", "ADDED a@4"]);
    assert_eq!(seen(&mut blue, 2).await, ["ADDED a@2", "DELETED a@3"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_end_with_a_marked_bookmark_and_bookmarks_follow() {
    let server = Server::start().await;
    server.make("a").await;
    let options = ListOptions {
        send_initial_events: true,
        bookmarks: true,
        timeout_seconds: Some(100),
        ..ListOptions::default()
    };
    let mut watch = server.watch(options).await;
    assert_eq!(seen(&mut watch, 1).await, ["ADDED a@1"]);
    let mark = watch.next().await.unwrap().unwrap();
    let line: Value = serde_json::from_slice(&mark.line).unwrap();
    assert_eq!(line["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!((line["type"].as_str(), line["object"]["kind"].as_str()), (Some("BOOKMARK"), Some("Toy")));
    let idle = watch.next().await.unwrap().unwrap();
    assert_eq!((idle.happened, idle.entry.revision), (crate::cache::Happened::Bookmark, Revision(1)));
    let last = watch.next().await.unwrap().unwrap();
    assert_eq!(last.happened, crate::cache::Happened::Bookmark, "shortly before the end");
    assert!(watch.next().await.is_none(), "the time is up");
}

#[tokio::test]
async fn a_watcher_that_falls_behind_is_told_to_list_again() {
    let server = Server::start().await;
    let mut watch = server.watch(from(0)).await;
    for at in 0..17_000 {
        server.make(&format!("n{at}")).await;
    }
    let error = watch.next().await.unwrap().unwrap_err();
    assert_eq!(error.reason, Some(meta::Reason::Expired));
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn updates_conflict_only_when_they_name_a_revision() {
    let server = Server::start().await;
    server.make("a").await;
    server.update(json!({"metadata": {"name": "a"}, "spec": {"x": 1}})).await.unwrap();
    let stale = server.update(json!({"metadata": {"name": "a", "resourceVersion": "1"}})).await.unwrap_err();
    assert_eq!((stale.code, stale.reason), (409, Some(meta::Reason::Conflict)));
    let fresh =
        server.update(json!({"metadata": {"name": "a", "resourceVersion": "2"}, "spec": {"x": 2}})).await;
    assert_eq!(fresh.unwrap().entry.header.generation, 3);
    let gone = server.update(json!({"metadata": {"name": "zzz"}})).await.unwrap_err();
    assert_eq!(gone.code, 404);
}

#[tokio::test]
async fn a_change_of_nothing_writes_nothing() {
    let server = Server::start().await;
    server.make("a").await;
    server.clock.set("2026-01-02T00:00:00Z".parse().unwrap());
    let same = server.merge("a", "", json!({"metadata": {"labels": null}})).await.unwrap();
    assert_eq!(same.entry.revision, Revision(1));
    assert_eq!(server.rest.cache().head(), Revision(1));
}

#[tokio::test]
async fn status_and_spec_are_written_through_their_own_doors() {
    let server = Server::start().await;
    server.make("a").await;
    let body = json!({"spec": {"x": 1}, "status": {"ready": true}});
    let main = server.merge("a", "", body.clone()).await.unwrap().entry.object().unwrap();
    assert_eq!((main.get(&["status"]), main.int(&["spec", "x"])), (None, Some(1)));
    let status = server.merge("a", "status", json!({"spec": {"x": 2}, "status": {"ready": true}})).await;
    let status = status.unwrap().entry.object().unwrap();
    assert_eq!((status.bool(&["status", "ready"]), status.int(&["spec", "x"])), (Some(true), Some(1)));
    assert_eq!(status.int(&["metadata", "generation"]), Some(2), "status does not count");
    let main = server.update(json!({"metadata": {"name": "a"}, "spec": {"x": 3}})).await.unwrap();
    assert_eq!(main.entry.object().unwrap().bool(&["status", "ready"]), Some(true));
}

#[tokio::test]
async fn scale_reads_and_sets_replicas() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a"}, "spec": {"replicas": 2}})).await.unwrap();
    let scaled =
        server.merge("a", "scale", json!({"spec": {"replicas": 5}})).await.unwrap().entry.object().unwrap();
    assert_eq!((scaled.kind(), scaled.int(&["spec", "replicas"])), ("Scale", Some(5)));
    let object = server.rest.get(&server.toys, &key("a"), None).await.unwrap().object().unwrap();
    assert_eq!(object.int(&["spec", "replicas"]), Some(5));
    let bad = server.merge("a", "scale", json!({"spec": {"replicas": -1}})).await.unwrap_err();
    assert_eq!(bad.code, 422);
}

/// Only a revision that the patch itself brings can clash with what others write meanwhile.
#[tokio::test]
async fn a_patch_of_a_scale_is_tried_again_beside_other_writers() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a"}, "spec": {"replicas": 0}})).await.unwrap();
    let scales = (1..=5).map(|n| server.merge("a", "scale", json!({"spec": {"replicas": n}})));
    for scaled in futures::future::join_all(scales).await {
        scaled.unwrap();
    }
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 9}});
    assert_eq!(server.merge("a", "scale", stale).await.unwrap_err().code, 409);
}

#[tokio::test]
async fn finalizers_hold_a_deletion_until_the_last_is_gone() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a", "finalizers": ["x/y"]}})).await.unwrap();
    let Deleted::Pending(entry) = server.delete("a", DeleteOptions::default()).await.unwrap() else {
        panic!("it has a finalizer")
    };
    assert!(entry.header.deleting);
    let again = server.delete("a", DeleteOptions::default()).await.unwrap();
    assert!(matches!(again, Deleted::Pending(_)));
    assert_eq!(server.rest.cache().head(), Revision(2), "the second changes nothing");
    let more = server.merge("a", "", json!({"metadata": {"finalizers": ["x/y", "x/z"]}})).await.unwrap_err();
    assert_eq!(more.code, 422);
    server.merge("a", "", json!({"metadata": {"finalizers": null}})).await.unwrap();
    assert_eq!(server.names(&ListOptions::default()).await, Vec::<String>::new());
}

#[tokio::test]
async fn grace_periods_are_two_phase_and_can_only_shrink() {
    let server = Server::start().await;
    server.create(json!({"metadata": {"name": "a"}, "spec": {"grace": 30}})).await.unwrap();
    let delete = async |seconds: Option<i64>| {
        let options = DeleteOptions { grace_period_seconds: seconds, ..DeleteOptions::default() };
        server.delete("a", options).await.unwrap()
    };
    let Deleted::Pending(first) = delete(None).await else { panic!("it has a grace period") };
    let object = first.object().unwrap();
    assert_eq!(object.int(&["metadata", "deletionGracePeriodSeconds"]), Some(30));
    assert_eq!(object.str(&["metadata", "deletionTimestamp"]), Some("2026-01-01T00:00:30Z"));
    assert!(matches!(delete(Some(60)).await, Deleted::Pending(_)));
    assert!(matches!(delete(Some(0)).await, Deleted::Gone(_)));
    let uid = DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() };
    server.make("b").await;
    let wrong = server.rest.delete(&caller(), &server.toys, &key("b"), &uid).await.unwrap_err();
    assert_eq!(wrong.code, 409);
}

#[tokio::test]
async fn dry_run_decides_and_stores_nothing() {
    let server = Server::start().await;
    let dry = Caller { dry_run: true, ..caller() };
    let object = Object::from_value(json!({"metadata": {"name": "a"}})).unwrap();
    let made =
        server.rest.create(&dry, &server.toys, "default", object, Duplicates::default()).await.unwrap();
    assert_eq!(made.entry.header.key.name, "a");
    assert_eq!(server.names(&ListOptions::default()).await, Vec::<String>::new());
    server.make("a").await;
    server.rest.delete(&dry, &server.toys, &key("a"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(server.names(&ListOptions::default()).await, ["a"]);
}

#[tokio::test]
async fn claims_are_exclusive_and_given_back() {
    let server = Server::start().await;
    for name in ["a", "b", "c", "d"] {
        server.create(json!({"metadata": {"name": name}, "spec": {"claim": "any"}})).await.unwrap();
    }
    let names = GroupResource::new("", "names");
    assert_eq!(server.rest.cache().kind(&names).snapshot().len(), 4);
    server.rest.delete(&caller(), &server.toys, &key("a"), &DeleteOptions::default()).await.unwrap();
    assert_eq!(server.rest.cache().kind(&names).snapshot().len(), 3);
    server.merge("b", "", json!({"spec": {"claim": null}})).await.unwrap();
    assert_eq!(server.rest.cache().kind(&names).snapshot().len(), 2);
    let _ = server.clock.now();
}

#[tokio::test]
async fn collections_are_deleted_by_selection() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.create(json!({"metadata": {"name": name, "labels": {"app": name}}})).await.unwrap();
    }
    let list =
        ListOptions { labels: Some(LabelSelector::parse("app in (a,c)").unwrap()), ..ListOptions::default() };
    let options = DeleteOptions::default();
    server.rest.delete_collection(&caller(), &server.toys, Some("default"), &options, &list).await.unwrap();
    assert_eq!(server.names(&ListOptions::default()).await, ["b"]);
}

#[tokio::test]
async fn built_in_kinds_begin_with_an_empty_status_and_say_each_error_once() {
    let registry = Arc::new(Registry::new());
    registry.install_all(kinds::all(&kinds::Options::default(), &kinds::Acts::default()));
    let store = store::Memory::new();
    let (rest, _task) = Rest::start(Parts {
        store: Arc::new(store.clone()),
        cache: Arc::new(Cache::load(&store, &registry).await.unwrap()),
        registry: registry.clone(),
        admission: Vec::new(),
        clock: Arc::new(Fixed::new("2026-01-01T00:00:00Z".parse().unwrap())),
        random: Arc::new(Seeded::new(1)),
    });
    let template =
        json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let spec = json!({"selector": {"matchLabels": {"a": "b"}}, "template": template});
    for (kind, spec, expected) in [
        ("deployments", spec.clone(), json!({})),
        ("replicasets", spec.clone(), json!({"replicas": 0})),
        (
            "daemonsets",
            spec,
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0,
                "numberReady": 0}),
        ),
    ] {
        let resource = registry.resolve("apps", "v1", kind).unwrap();
        let object = json!({"metadata": {"name": "d"}, "spec": spec, "status": {"replicas": 7}});
        let object = Object::from_value(object).unwrap();
        let made = rest.create(&caller(), &resource, "default", object, Duplicates::default()).await.unwrap();
        assert_eq!(made.entry.object().unwrap().get(&["status"]), Some(&expected), "{kind}");
        let empty = Object::from_value(json!({"metadata": {"name": "e"}, "spec": {}})).unwrap();
        let refused =
            rest.create(&caller(), &resource, "default", empty, Duplicates::default()).await.unwrap_err();
        let causes = refused.details.unwrap().causes;
        assert!(causes.iter().any(|cause| cause.field == "spec.selector"), "{kind} {causes:?}");
        for (at, cause) in causes.iter().enumerate() {
            let again = |c: &meta::Cause| c.field == cause.field && c.reason == cause.reason;
            assert!(!causes[at + 1..].iter().any(again), "{kind} {causes:?}");
        }
    }
}
