//! Which state a list shows and where a watch begins, in tables.

use super::*;
use crate::cache::Happened;

/// Objects a@1, b@2, c@3, then b deleted at 4 and a changed at 5.
async fn history() -> Server {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.make(name).await;
    }
    server.delete("b", DeleteOptions::default()).await.unwrap();
    server.merge("a", "", json!({"spec": {"x": 1}})).await.unwrap();
    server
}

#[tokio::test(start_paused = true)]
async fn lists_show_the_state_that_is_asked_for() {
    let server = history().await;
    for (at, limit, expected) in [
        (At::Newest, None, Ok("a@5 c@3 | 5")),
        (At::Any, None, Ok("a@5 c@3 | 5")),
        (At::Any, Some(1), Ok("a@5 | 5 more 1")),
        (At::NotOlderThan(Revision(2)), None, Ok("a@5 c@3 | 5")),
        (At::NotOlderThan(Revision(6)), None, Err(504)),
        (At::Exact(Revision(1)), None, Ok("a@1 | 1")),
        (At::Exact(Revision(3)), None, Ok("a@1 b@2 c@3 | 3")),
        (At::Exact(Revision(3)), Some(2), Ok("a@1 b@2 | 3 more 1")),
        (At::Exact(Revision(4)), None, Ok("a@1 c@3 | 4")),
        (At::Exact(Revision(5)), None, Ok("a@5 c@3 | 5")),
        (At::Exact(Revision(6)), None, Err(504)),
    ] {
        let options = ListOptions { at, limit, ..ListOptions::default() };
        let page = server.rest.list(&server.toys, None, &options).await;
        let shown = page.map_err(|status| status.code).map(|page| {
            let items = page.entries.iter().map(|e| format!("{}@{}", e.header.key.name, e.revision));
            let more = page.remaining.map(|n| format!(" more {n}")).unwrap_or_default();
            assert_eq!(page.continue_token.is_some(), !more.is_empty());
            format!("{} | {}{more}", items.collect::<Vec<_>>().join(" "), page.revision)
        });
        assert_eq!(shown, expected.map(str::to_owned), "{at:?} {limit:?}");
    }
}

#[tokio::test]
async fn watches_begin_where_they_are_told() {
    let none = ListOptions::default;
    for (options, expected) in [
        (none(), &["ADDED a@5", "ADDED c@3", "ADDED d@6"][..]),
        (from(0), &["ADDED a@5", "ADDED c@3", "ADDED d@6"]),
        (from(4), &["MODIFIED a@5", "ADDED d@6"]),
        (from(5), &["ADDED d@6"]),
        (ListOptions { skip_initial_events: true, ..none() }, &["ADDED d@6"]),
        (ListOptions { skip_initial_events: true, ..from(0) }, &["ADDED d@6"]),
        (ListOptions { skip_initial_events: true, ..from(4) }, &["MODIFIED a@5", "ADDED d@6"]),
        (ListOptions { send_initial_events: true, ..from(4) }, &["ADDED a@5", "ADDED c@3", "ADDED d@6"]),
    ] {
        let server = history().await;
        let mut watch = server.watch(options.clone()).await;
        server.make("d").await;
        assert_eq!(seen(&mut watch, expected.len()).await, expected, "{options:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_bookmark_comes_shortly_before_the_end() {
    let server = history().await;
    for (seconds, expected) in [(1, 0), (30, 1), (100, 2), (130, 3)] {
        let options = ListOptions { bookmarks: true, timeout_seconds: Some(seconds), ..from(5) };
        let mut watch = server.watch(options).await;
        let mut bookmarks = 0;
        while let Some(event) = watch.next().await {
            assert_eq!(event.unwrap().happened, Happened::Bookmark);
            bookmarks += 1;
        }
        assert_eq!(bookmarks, expected, "{seconds} seconds");
    }
}
