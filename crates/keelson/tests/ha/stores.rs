//! What a new user types: wrong addresses, and a cluster on its way from one store to another.

use crate::{
    part::{Part, finish, kubectl, succeed},
    servers::{postgres, redis},
};

fn refused(arguments: &[&str], code: i32, part: &str) {
    let output = finish(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(said.contains(part), "{said}");
    assert!(!said.contains("hunter"), "a password is shown: {said}");
}

#[test]
fn stores_that_cannot_be_used_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let data = data.to_str().unwrap();
    let url = postgres().url(&postgres().database());
    let server = |store: &str, rest: &[&str], code: i32, part: &str| {
        let mut arguments =
            vec!["apiserver", "--listen", "127.0.0.1:0", "--data-dir", data, "--store", store];
        arguments.extend(rest);
        refused(&arguments, code, part);
    };
    server("mysql://a:hunter2@localhost/k", &[], 2, "a store cannot be at mysql://");
    server(
        "postgres://a:hunter2@localhost/",
        &[],
        2,
        "must have the form postgres://USER@HOST:PORT/DATABASE",
    );
    server("postgres://a:hunter2@localhost", &[], 2, "must have the form postgres://USER@HOST:PORT/DATABASE");
    server("postgres:a:hunter2@localhost/k", &[], 2, "looks like PostgreSQL's and is none");
    server(&url, &["--events", "http://localhost"], 2, "must begin with redis://");
    server(data, &["--events", "redis://localhost"], 2, "--events needs a store in PostgreSQL");
    server(&url.replace("hunter2", "hunter3"), &[], 1, "check user, password and database");
    server(&url, &["--events", &redis().url().replace("hunter2", "hunter3")], 1, "Redis at 127.0.0.1");
    let foreign = postgres().database();
    postgres().sql(&foreign, "CREATE TABLE invoices (id int)");
    server(&postgres().url(&foreign), &[], 1, "belongs to something else");
    // Nothing was made for a cluster that never was.
    let made: Vec<_> = std::fs::read_dir(data).into_iter().flatten().flatten().collect();
    assert!(made.is_empty(), "{made:?}");
    assert_eq!(
        postgres().sql(&foreign, "SELECT nspname FROM pg_namespace WHERE nspname = 'keelson'").len(),
        0
    );
}

#[test]
fn a_second_server_with_another_authority_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let url = postgres().url(&postgres().database());
    let (first, second) = (at("first"), at("second"));
    let start = |data: &str| {
        ["apiserver", "--listen", "127.0.0.1:0", "--store", &url, "--data-dir", data].map(str::to_owned)
    };
    let arguments = start(&first);
    let _first = Part::start(&arguments.each_ref().map(String::as_str));
    let arguments = start(&second);
    refused(&arguments.each_ref().map(String::as_str), 1, "another authority");
}

#[test]
fn a_cluster_moves_to_postgresql_and_back_with_its_revisions() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    let kubeconfig = directory.path().join("data/admin.kubeconfig");
    let url = postgres().url(&postgres().database());
    let data = at("data");
    let server = ["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &data];
    let revision =
        || kubectl(&kubeconfig, &["get", "configmap", "kept", "-o", "jsonpath={.metadata.resourceVersion}"]);

    let mut running = Part::start(&server);
    kubectl(&kubeconfig, &["create", "configmap", "kept", "--from-literal=a=b"]);
    let made = revision();
    // While it runs, through the API; its store is locked.
    let said = succeed(&["backup", &at("running"), "--kubeconfig", kubeconfig.to_str().unwrap()]);
    assert!(said.contains("objects at revision"), "{said}");
    refused(&["migrate", "--from", &data, "--to", &url], 1, "in use by another process");
    assert_eq!(running.stop(), 0);

    succeed(&["migrate", "--from", &data, "--to", &url]);
    refused(&["migrate", "--from", &data, "--to", &url], 1, "is not empty");
    let mut on_postgres: Vec<&str> = server.to_vec();
    on_postgres.extend(["--store", &url]);
    let mut running = Part::start(&on_postgres);
    assert_eq!(revision(), made);
    kubectl(&kubeconfig, &["create", "configmap", "later"]);
    // While it runs, from PostgreSQL itself.
    succeed(&["backup", &at("postgres"), "--store", &url]);
    assert_eq!(running.stop(), 0);

    refused(&["restore", &at("postgres"), "--data-dir", &data], 1, "is not empty");
    let back = at("back");
    succeed(&["restore", &at("postgres"), "--data-dir", &back]);
    std::fs::rename(directory.path().join("data/pki"), directory.path().join("back/pki")).unwrap();
    let running = Part::start(&["apiserver", "--listen", "127.0.0.1:0", "--data-dir", &back]);
    let kubeconfig = directory.path().join("back/admin.kubeconfig");
    let there =
        kubectl(&kubeconfig, &["get", "configmap", "kept", "-o", "jsonpath={.metadata.resourceVersion}"]);
    assert_eq!(there, made);
    kubectl(&kubeconfig, &["get", "configmap", "later"]);
    drop(running);
}
