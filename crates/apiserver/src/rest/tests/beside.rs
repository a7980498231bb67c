//! Changes beside those of others.

use super::*;

/// Whoever applies gets an object, whatever others do to it meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_never_misses_what_others_make_and_delete() {
    let server = Arc::new(Server::start().await);
    let others = server.clone();
    let coming = tokio::spawn(async move {
        for _ in 0..300 {
            drop(others.create(json!({"metadata": {"name": "a"}})).await);
            drop(others.delete("a", DeleteOptions::default()).await);
        }
    });
    let mut created = 0;
    while !coming.is_finished() {
        let body =
            json!({"apiVersion": "v1", "kind": "Toy", "metadata": {"name": "a"}, "spec": {"x": created}});
        let patch = Patch { kind: PatchKind::Apply { force: true }, body, duplicates: Duplicates::default() };
        let target = Target { key: key("a"), subresource: String::new() };
        let applied = server.rest.patch(&caller(), &server.toys, &target, patch).await;
        created += usize::from(applied.unwrap().created);
    }
    coming.await.unwrap();
    assert!(created > 0);
}

#[tokio::test]
async fn concurrent_patches_all_arrive() {
    let server = Arc::new(Server::start().await);
    server.make("a").await;
    let patches = (0..40).map(|at| {
        let server = server.clone();
        tokio::spawn(async move { server.merge("a", "", json!({"data": {format!("k{at}"): at}})).await })
    });
    for patch in patches.collect::<Vec<_>>() {
        patch.await.unwrap().unwrap();
    }
    let object = server.rest.get(&server.toys, &key("a"), None).await.unwrap().object().unwrap();
    assert_eq!(object.get(&["data"]).unwrap().as_object().unwrap().len(), 40);
}
