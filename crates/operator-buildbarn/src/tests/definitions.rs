//! Generated configurations and the operator's table of messages against Buildbarn's own protobuf definitions.
//!
//! The definitions are not part of this project. Where `KEELSON_BUILDBARN_PROTOS` names a tree of them (laid out by
//! import path, as docs/buildbarn.md says), everything is held against them; where it does not, generated
//! configurations are held against the table alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use prost::Message as _;
use prost_reflect::{
    Cardinality, DescriptorPool, DynamicMessage, FieldDescriptor, Kind as Proto, MessageDescriptor,
};

use super::*;
use crate::{
    Program,
    model::{Shape, Table, Type, kind_of},
    queue::wire,
};

const TREE: &str = "KEELSON_BUILDBARN_PROTOS";
const RE: &str = "github.com/buildbarn/bb-remote-execution/pkg/proto";

/// What the definitions say, where there are any.
pub(super) fn definitions() -> Option<DescriptorPool> {
    let Some(tree) = std::env::var_os(TREE).map(PathBuf::from) else {
        eprintln!("{TREE} is not set: configurations are held against the operator's own table only");
        return None;
    };
    let mut compiler = protox::Compiler::new([&tree]).unwrap();
    compiler.include_imports(true);
    let configuration = |program: &str| format!("{RE}/configuration/{program}/{program}.proto");
    compiler
        .open_files([
            "github.com/buildbarn/bb-storage/pkg/proto/configuration/bb_storage/bb_storage.proto".to_owned(),
            configuration("bb_scheduler"),
            configuration("bb_worker"),
            configuration("bb_runner"),
            "github.com/buildbarn/bb-browser/pkg/proto/configuration/bb_browser/bb_browser.proto".to_owned(),
            format!("{RE}/buildqueuestate/buildqueuestate.proto"),
        ])
        .unwrap_or_else(|error| panic!("{TREE}={}: {error:?}", tree.display()));
    Some(DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).unwrap())
}

/// The full name of a message of the table.
fn full_name(short: &str) -> String {
    match short.split_once('.') {
        Some(("reapi", rest)) => format!("build.bazel.remote.execution.v2.{rest}"),
        Some(("resourceusage", _)) => format!("buildbarn.{short}"),
        _ if short == "auth.AuthenticationMetadata" => format!("buildbarn.{short}"),
        _ => format!("buildbarn.configuration.{short}"),
    }
}

fn message(pool: &DescriptorPool, short: &str) -> MessageDescriptor {
    pool.get_message_by_name(&full_name(short)).unwrap_or_else(|| panic!("the definitions have no {short}"))
}

fn program(file: &str) -> Program {
    match file.split(['-', '.']).next().unwrap() {
        "storage" | "frontend" => Program::Storage,
        "scheduler" => Program::Scheduler,
        "worker" => Program::Worker,
        "runner" => Program::Runner,
        "browser" => Program::Browser,
        other => panic!("no program reads {other}"),
    }
}

/// Every file that a farm's operator made.
fn configurations(farm: &Farm) -> Vec<(String, Value)> {
    let maps = farm.list::<ConfigMap>();
    let made = maps.iter().filter(|map| map["metadata"]["ownerReferences"].is_array());
    let files = made.flat_map(|map| map["data"].as_object().unwrap());
    files.map(|(name, text)| (name.clone(), parse(text.as_str().unwrap()))).collect()
}

/// Holds all files of a farm against the table and, where there are any, the definitions.
pub(super) fn hold(title: &str, farm: &Farm, pool: Option<&DescriptorPool>, held: &mut usize) {
    for (file, content) in configurations(farm) {
        let program = program(&file);
        assert_eq!(crate::check(program, &content), Vec::<String>::new(), "{title}: {file}");
        if let Some(pool) = pool {
            let read = DynamicMessage::deserialize(message(pool, program.message()), &content);
            read.unwrap_or_else(|error| panic!("{title}: {file}: {error}\n{content:#}"));
        }
        *held += 1;
    }
}

/// Samples; options are held where they are tried.
#[tokio::test]
async fn every_generated_configuration_is_what_the_programs_read() {
    let pool = definitions();
    let mut held = 0;
    for (title, manifests) in [("small", FARM), ("sharded", SHARDED), ("three pools", THREE)] {
        let farm = Farm::new(manifests);
        farm.run().await;
        hold(title, &farm, pool.as_ref(), &mut held);
    }
    println!(
        "{held} configurations were held against {}",
        if pool.is_some() { "the definitions" } else { "the table" }
    );
    assert!(held > 20, "{held}");
}

fn shape(field: &FieldDescriptor) -> Shape {
    match field.cardinality() {
        _ if field.is_map() => Shape::Map,
        Cardinality::Repeated => Shape::List,
        Cardinality::Optional | Cardinality::Required => Shape::One,
    }
}

/// A type as the table writes it.
fn kind(field: &FieldDescriptor) -> Type {
    let of = match field.kind() {
        Proto::Message(map) if field.is_map() => map.map_entry_value_field().kind(),
        other => other,
    };
    let text = match of {
        Proto::Double | Proto::Float => "double".to_owned(),
        Proto::Int32 | Proto::Sint32 | Proto::Sfixed32 => "int32".to_owned(),
        Proto::Int64 | Proto::Sint64 | Proto::Sfixed64 => "int64".to_owned(),
        Proto::Uint32 | Proto::Fixed32 => "uint32".to_owned(),
        Proto::Uint64 | Proto::Fixed64 => "uint64".to_owned(),
        Proto::Bool => "bool".to_owned(),
        Proto::String => "string".to_owned(),
        Proto::Bytes => "bytes".to_owned(),
        Proto::Enum(values) => {
            let names: Vec<String> = values.values().map(|value| value.name().to_owned()).collect();
            format!("enum({})", names.join("|"))
        }
        Proto::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => "duration".to_owned(),
            "google.protobuf.Timestamp" => "timestamp".to_owned(),
            "google.protobuf.Empty" => "empty".to_owned(),
            "google.protobuf.Struct" => "struct".to_owned(),
            "google.protobuf.Value" => "value".to_owned(),
            // In JSON a wrapped number is a number.
            "google.protobuf.UInt64Value" => "uint64".to_owned(),
            other => other
                .strip_prefix("buildbarn.configuration.")
                .or_else(|| other.strip_prefix("buildbarn."))
                .map(str::to_owned)
                .unwrap_or_else(|| other.replace("build.bazel.remote.execution.v2.", "reapi.")),
        },
    };
    kind_of(String::leak(text))
}

/// Where the table says something else than the definitions.
fn differences(pool: &DescriptorPool, table: &Table) -> Vec<String> {
    let mut wrong = Vec::new();
    for (short, fields) in table {
        let Some(message) = pool.get_message_by_name(&full_name(short)) else {
            wrong.push(format!("{short}: not in the definitions"));
            continue;
        };
        let ours: BTreeMap<&str, _> = fields.iter().map(|field| (field.name, field)).collect();
        for theirs in message.fields() {
            let Some(field) = ours.get(theirs.json_name()) else {
                wrong.push(format!("{short}.{}: not in the table", theirs.json_name()));
                continue;
            };
            let group = theirs.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            let group = group.map(|oneof| oneof.name().to_owned()).unwrap_or_default();
            let is = (field.shape, field.group.to_owned(), field.of.clone());
            let of = if is.2 == Type::Open { Type::Open } else { kind(&theirs) };
            let wanted = (shape(&theirs), group, of);
            if is != wanted {
                wrong.push(format!(
                    "{short}.{}: {is:?} in the table, {wanted:?} in the definitions",
                    theirs.json_name()
                ));
            }
        }
        let known: BTreeSet<String> = message.fields().map(|field| field.json_name().to_owned()).collect();
        wrong.extend(
            ours.keys()
                .filter(|name| !known.contains(**name))
                .map(|name| format!("{short}.{name}: only in the table")),
        );
    }
    wrong
}

#[test]
fn the_table_says_what_the_definitions_say() {
    let Some(pool) = definitions() else { return };
    let wrong = differences(&pool, crate::model::table());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is sent over gRPC, read by the definitions' numbers: a field with a wrong number would be missing.
#[test]
fn the_queue_speaks_by_the_definitions_numbers() {
    let Some(pool) = definitions() else { return };
    let id = || BTreeMap::from([("pod".to_owned(), "a".to_owned())]);
    let platform =
        wire::Platform { properties: vec![wire::Property { name: "n".into(), value: "v".into() }] };
    let name = wire::PlatformQueueName { instance_name_prefix: "i".into(), platform: Some(platform) };
    let queue = wire::SizeClassQueueName { platform_queue_name: Some(name.clone()), size_class: 4 };
    let platform =
        json!({"instanceNamePrefix": "i", "platform": {"properties": [{"name": "n", "value": "v"}]}});
    let queue_json = json!({"platformQueueName": platform, "sizeClass": 4});
    let state = wire::SizeClassQueueState {
        size_class: 4,
        workers_count: 5,
        drains_count: 6,
        root_invocation: Some(wire::InvocationState {
            queued_operations_count: Some(wire::ObjectCount { direct: 1, indirect: 2 }),
            executing_workers_count: 3,
            idle_workers_count: 7,
        }),
    };
    let platforms = wire::PlatformQueueState { name: Some(name), size_class_queues: vec![state] };
    let worker = wire::WorkerState {
        id: id(),
        current_operation: Some(wire::OperationState { name: "o".into() }),
        drained: true,
    };
    let cases = [
        (
            "ListPlatformQueuesResponse",
            wire::ListPlatformQueuesResponse { platform_queues: vec![platforms] }.encode_to_vec(),
            json!({"platformQueues": [{"name": platform, "sizeClassQueues": [{
                "sizeClass": 4, "workersCount": 5, "drainsCount": 6, "rootInvocation": {
                    "queuedOperationsCount": {"direct": 1, "indirect": 2}, "executingWorkersCount": 3, "idleWorkersCount": 7,
                },
            }]}]}),
        ),
        (
            "ListWorkersRequest",
            wire::ListWorkersRequest {
                filter: Some(wire::ListWorkersFilter { all: Some(queue.clone()) }),
                page_size: 3,
                start_after: Some(wire::StartAfter { worker_id: id() }),
            }
            .encode_to_vec(),
            json!({"filter": {"all": queue_json}, "pageSize": 3, "startAfter": {"workerId": {"pod": "a"}}}),
        ),
        (
            "ListWorkersResponse",
            wire::ListWorkersResponse { workers: vec![worker] }.encode_to_vec(),
            json!({"workers": [{"id": {"pod": "a"}, "currentOperation": {"name": "o"}, "drained": true}]}),
        ),
        (
            "TerminateWorkersRequest",
            wire::TerminateWorkersRequest { worker_id_pattern: id() }.encode_to_vec(),
            json!({"workerIdPattern": {"pod": "a"}}),
        ),
        (
            "ListDrainsRequest",
            wire::ListDrainsRequest { size_class_queue_name: Some(queue.clone()) }.encode_to_vec(),
            json!({"sizeClassQueueName": queue_json}),
        ),
        (
            "ListDrainsResponse",
            wire::ListDrainsResponse { drains: vec![wire::DrainState { worker_id_pattern: id() }] }
                .encode_to_vec(),
            json!({"drains": [{"workerIdPattern": {"pod": "a"}}]}),
        ),
        (
            "AddOrRemoveDrainRequest",
            wire::AddOrRemoveDrainRequest { size_class_queue_name: Some(queue), worker_id_pattern: id() }
                .encode_to_vec(),
            json!({"sizeClassQueueName": queue_json, "workerIdPattern": {"pod": "a"}}),
        ),
    ];
    for (short, bytes, wanted) in cases {
        let message = pool.get_message_by_name(&format!("buildbarn.buildqueuestate.{short}")).unwrap();
        let read = DynamicMessage::decode(message, bytes.as_slice()).unwrap();
        assert_eq!(serde_json::to_value(&read).unwrap(), wanted, "{short}");
    }
    let service = pool.get_service_by_name("buildbarn.buildqueuestate.BuildQueueState").unwrap();
    let known: BTreeSet<String> = service.methods().map(|method| method.name().to_owned()).collect();
    for method in
        ["ListPlatformQueues", "ListWorkers", "ListDrains", "AddDrain", "RemoveDrain", "TerminateWorkers"]
    {
        assert!(known.contains(method), "{method}: {known:?}");
    }
}
