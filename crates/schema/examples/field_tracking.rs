//! Times what `managed::update` adds to every write, on a ConfigMap of about 1 KiB:
//! `cargo run --release -p schema --example field_tracking`.
#![allow(clippy::expect_used, reason = "a measurement, not a part of the server")]

use std::{hint::black_box, time::Instant};

use meta::{Object, Timestamp, Value};
use schema::{default, managed, openapi, prune, validate};
use serde_json::json;

const ROUNDS: u32 = 200_000;

fn timed(what: &str, mut step: impl FnMut()) {
    for _ in 0..ROUNDS / 10 {
        step();
    }
    let start = Instant::now();
    for _ in 0..ROUNDS {
        step();
    }
    println!("{what:<44} {:>7} ns", start.elapsed().as_nanos() / u128::from(ROUNDS));
}

fn main() {
    let schema = openapi::from_crd(
        &json!({"type": "object", "properties": {
            "immutable": {"type": "boolean"},
            "data": {"type": "object", "additionalProperties": {"type": "string"}},
            "binaryData": {"type": "object", "additionalProperties": {"type": "string", "format": "byte"}}}}),
        "schema",
    )
    .expect("a good schema");
    let data: serde_json::Map<String, Value> =
        (0..4).map(|n| (format!("key{n}"), json!("x".repeat(200)))).collect();
    let object = Object::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "bench-1", "namespace": "default", "labels": {"app": "bench"}, "uid": "u"}
    }))
    .expect("an object");
    let request = managed::Request {
        manager: "bench",
        api_version: "v1",
        subresource: "",
        reset: &[],
        now: Timestamp::UNIX_EPOCH,
    };

    timed("clone (included in all below)", || drop(black_box(object.clone())));
    let mut created = object.clone();
    managed::update(&schema, None, &mut created, &request);
    timed("update: create", || {
        let mut new = object.clone();
        managed::update(&schema, None, black_box(&mut new), &request);
    });
    timed("update: nothing changed", || {
        let mut new = created.clone();
        managed::update(&schema, Some(&created), black_box(&mut new), &request);
    });
    let mut edited = created.clone();
    edited.set(&["data", "key1"], "other");
    timed("update: one key changed, same manager", || {
        let mut new = edited.clone();
        managed::update(&schema, Some(&created), black_box(&mut new), &request);
    });
    let other = managed::Request { manager: "other", ..request };
    timed("update: one key changed, other manager", || {
        let mut new = edited.clone();
        managed::update(&schema, Some(&created), black_box(&mut new), &other);
    });
    let value = object.clone().into_value();
    timed("default + prune + validate", || {
        let mut new = value.clone();
        default::apply(&schema, &mut new);
        prune::unknown(&schema, &mut new, prune::Mode::Report);
        black_box(validate::value(&schema, &new, None));
    });
    let mut config = object.clone();
    config.remove(&["metadata", "uid"]);
    let applied = managed::apply(&schema, None, &config, &request, false).expect("applies").object;
    timed("apply: nothing changed", || {
        black_box(managed::apply(&schema, Some(&applied), &config, &request, false).is_ok());
    });
}
