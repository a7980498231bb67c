//! What cannot work is refused with a message that says why, never shows the password, and leaves
//! nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod common;

use std::time::Duration;

use common::{Redis, config, open, postgres, redis, redundant::Cluster, run};
use meta::Revision;
use store::{Error, Key, Outcome, Store, Write};
use store_postgres::{Config, Fault};

fn key(name: &str) -> Key {
    Key::parse(&format!("core/configmaps/default/{name}")).unwrap()
}

/// Opening fails with a message that has this in it.
fn refused(config: Config, part: &str) -> Fault {
    let fault = run(open(config.with_patience(Duration::from_millis(300)))).unwrap_err();
    let message = fault.to_string();
    assert!(message.contains(part), "{message}");
    assert!(!message.contains("hunter2"), "{message}");
    fault
}

fn relations(database: &str) -> Vec<String> {
    postgres().sql(
        database,
        "SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' ORDER BY 1",
    )
}

#[test]
fn wrong_addresses_and_passwords() {
    let database = postgres().database();
    let url = postgres().url(&database);
    let fault =
        refused(config(&url.replace("hunter2", "hunter3"), None), "check user, password and database");
    assert!(matches!(fault, Fault::Refused { .. }));
    assert!(!fault.to_string().contains("hunter3"));
    refused(config(&url.replace(&database, "nowhere"), None), "\"nowhere\" does not exist");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = closed.local_addr().unwrap().port().to_string();
    drop(closed);
    refused(config(&url.replace(&postgres().port.to_string(), &port), None), "no answer from PostgreSQL");
    refused(config(&format!("{url}?sslmode=verify-full"), None), "does not offer it; set `ssl = on` there");
    refused(config(&url.replace(":hunter2", ""), None), "it asks for a password; check user, password");
    assert_eq!(relations(&database), Vec::<String>::new());
}

#[test]
fn a_redis_that_cannot_be_used() {
    let url = postgres().url(&postgres().database());
    let wrong = redis().url().replace("hunter2", "hunter3");
    let fault = refused(config(&url, None).with_events(&wrong).unwrap(), "Redis at 127.0.0.1");
    assert!(!fault.to_string().contains("hunter3"), "{fault}");
    // One that is not there at all is waited for, with the store at work.
    let away = format!(
        "redis://127.0.0.1:{}",
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    );
    run(async {
        let store = open(config(&url, None).with_events(&away).unwrap()).await.unwrap();
        let done = store.commit(vec![Write::create(key("a"), "1")]).await.unwrap();
        assert_eq!(done, [Outcome::Done(Revision(1))]);
    });
}

#[test]
fn a_redis_that_is_something_else() {
    let database = postgres().database();
    let config = |url: &str| config(&postgres().url(&database), None).with_events(url).unwrap();
    let cluster = Cluster::start();
    let one = cluster.pairs[0].0.url();
    refused(config(&one), "say redis+cluster://");
    refused(config(&redis().url().replace("redis:", "redis+cluster:")), "say redis://");
    refused(config(&cluster.url().replace("hunter2", "hunter3")), "Redis at 127.0.0.1");
    assert_eq!(relations(&database), Vec::<String>::new());
}

#[test]
fn a_redis_without_streams() {
    let old = Redis::with(|_, port| {
        let hidden = "--rename-command XADD _ --rename-command XLEN _2 --rename-command XREAD _3";
        let words = format!("--port {port} --requirepass hunter2 {hidden}");
        words.split(' ').map(str::to_owned).collect()
    });
    let database = postgres().database();
    let config = config(&postgres().url(&database), None).with_events(&old.url()).unwrap();
    refused(config, "it has no streams (unknown command 'XLEN'");
    assert_eq!(relations(&database), Vec::<String>::new());
}

#[test]
fn a_user_who_may_not_make_tables() {
    let database = postgres().database();
    postgres().sql(&database, "CREATE ROLE guest LOGIN PASSWORD 'hunter2'");
    let url = postgres().url(&database).replace("//admin:", "//guest:");
    refused(config(&url, None), &format!("ALTER DATABASE \"{database}\" OWNER TO"));
    assert_eq!(relations(&database), Vec::<String>::new());
}

#[test]
fn foreign_databases_are_left_alone() {
    for (sql, part) in [
        ("CREATE TABLE orders (id int)", "public.orders"),
        ("CREATE SCHEMA keelson", "the schema keelson"),
        ("CREATE SCHEMA keelson; CREATE TABLE keelson.head (other text)", "keelson.head"),
        ("CREATE SCHEMA shop; CREATE VIEW shop.v AS SELECT 1", "shop.v"),
    ] {
        let database = postgres().database();
        postgres().sql(&database, sql);
        let before = relations(&database);
        let fault = refused(config(&postgres().url(&database), None), part);
        assert!(matches!(fault, Fault::Foreign { .. }), "{fault}");
        assert_eq!(relations(&database), before);
    }
}

#[test]
fn a_newer_schema_is_left_alone() {
    let database = postgres().database();
    let url = postgres().url(&database);
    run(async {
        let store = open(config(&url, None)).await.unwrap();
        store.commit(vec![Write::create(key("a"), "1")]).await.unwrap();
    });
    postgres().sql(&database, "UPDATE keelson.schema_version SET version = 99");
    let fault = refused(config(&url, None), "version 99");
    assert!(matches!(fault, Fault::Newer { found: 99, .. }));
    assert_eq!(postgres().sql(&database, "SELECT count(*) FROM keelson.objects"), ["1"]);
}

/// A migration that fails half-way, here for a right that the user has not, leaves nothing.
#[test]
fn nothing_is_half_made() {
    let database = postgres().database();
    // The schema's first statements work; making a function in it does not.
    postgres().sql(
        &database,
        "CREATE FUNCTION public.no() RETURNS event_trigger LANGUAGE plpgsql
             AS $$ BEGIN RAISE EXCEPTION 'no functions here'; END $$;
         CREATE EVENT TRIGGER no ON ddl_command_start WHEN TAG IN ('CREATE FUNCTION')
             EXECUTE FUNCTION public.no()",
    );
    let url = postgres().url(&database);
    refused(config(&url, None), "no functions here");
    assert_eq!(relations(&database), Vec::<String>::new());
    postgres().sql(&database, "DROP EVENT TRIGGER no");
    run(async { open(config(&url, None)).await.unwrap() });
}

/// Many servers that start at once on an empty database make one schema.
#[test]
fn one_schema_for_all_who_start_at_once() {
    let database = postgres().database();
    let url = postgres().socket_url(&database);
    run(async {
        let opened = futures::future::join_all((0..6).map(|_| open(config(&url, None)))).await;
        for store in &opened {
            assert_eq!(store.as_ref().unwrap().head().await.unwrap().revision, Revision(0));
        }
    });
}

/// The definite errors of the server come through as such.
#[test]
fn a_time_limit_is_an_error_and_nothing_is_applied() {
    let database = postgres().database();
    let url = format!("{}?statementTimeout=1", postgres().url(&database));
    run(async {
        let config = config(&url, None).with_patience(Duration::from_millis(1500));
        let store = open(config).await.unwrap();
        let (blocker, connection) =
            tokio_postgres::connect(&postgres().url(&database), tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        blocker.batch_execute("BEGIN; SELECT FROM keelson.head FOR UPDATE").await.unwrap();
        let refused = store.commit(vec![Write::create(key("a"), "1")]).await;
        assert!(matches!(refused, Err(Error::Backend { .. })), "{refused:?}");
        blocker.batch_execute("ROLLBACK").await.unwrap();
        let done = store.commit(vec![Write::create(key("a"), "2")]).await.unwrap();
        assert_eq!(done, [Outcome::Done(Revision(1))]);
        drop(blocker);
        driver.await.unwrap().unwrap();
    });
}
