//! Against bytes written by hand, against what upstream's own code wrote, and against itself.

use proptest::prelude::*;
use schema::{Format, Property, Shape};
use serde_json::Map;

use super::*;

/// A length-delimited field.
fn bytes(number: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
    out.extend_from_slice(content);
    out
}

fn body(api_version: &str, kind: &str, message: &[u8]) -> Vec<u8> {
    let type_meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &type_meta), bytes(2, message)].concat()
}

fn read(definition: &str, message: &[u8]) -> Result<Value> {
    let types = kinds::types();
    let body = body("v1", "Thing", message);
    let envelope = envelope(&body)?;
    envelope.object(&types, types.find(definition).unwrap())
}

#[test]
fn reads_what_typed_clients_send() {
    let data = [bytes(1, b"key"), bytes(2, &[1, 2, 3])].concat();
    let metadata = [bytes(1, b"name"), bytes(8, &[])].concat();
    let secret = [bytes(1, &metadata), bytes(2, &data), bytes(3, b"Opaque")].concat();
    assert_eq!(
        read("io.k8s.api.core.v1.Secret", &secret).unwrap(),
        json!({"apiVersion": "v1", "kind": "Thing", "metadata": {"name": "name"},
            "data": {"key": "AQID"}, "type": "Opaque"})
    );
    // port 80, targetPort "http", nodePort left out
    let target = [vec![1 << 3, 1], bytes(3, b"http")].concat();
    let port = [vec![3 << 3, 80], bytes(4, &target)].concat();
    let service = bytes(2, &bytes(1, &port));
    assert_eq!(
        read("io.k8s.api.core.v1.Service", &service).unwrap()["spec"],
        json!({"ports": [{"port": 80, "targetPort": "http"}]})
    );
    // TokenReview status: extra is a map of lists
    let extra = [bytes(1, b"scopes"), bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat())].concat();
    let spec = [bytes(3, b"ann"), bytes(5, &extra)].concat();
    assert_eq!(
        read("io.k8s.api.authorization.v1.SubjectAccessReview", &bytes(2, &spec)).unwrap()["spec"],
        json!({"user": "ann", "extra": {"scopes": ["a", "b"]}})
    );
}

#[test]
fn names_its_kind() {
    for (api_version, kind, expected) in [
        ("v1", "Pod", "io.k8s.api.core.v1.Pod"),
        ("apps/v1", "Deployment", "io.k8s.api.apps.v1.Deployment"),
        ("authorization.k8s.io/v1", "SubjectAccessReview", "io.k8s.api.authorization.v1.SubjectAccessReview"),
        ("v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
    ] {
        let body = body(api_version, kind, &[]);
        assert_eq!(envelope(&body).unwrap().definition(), expected);
    }
    assert_eq!(envelope(b"{}"), Err(ProtobufError::Magic));
    assert_eq!(envelope(b"k8s\0\x0a\x7f"), Err(ProtobufError::Damaged));
}

proptest! {
    #[test]
    fn damage_is_an_error_not_a_panic(message in prop::collection::vec(any::<u8>(), 0..120)) {
        let body = body("v1", "Pod", &message);
        let types = kinds::types();
        if let Ok(envelope) = envelope(&body) {
            let _: Result<Value> = envelope.object(&types, types.find("io.k8s.api.core.v1.Pod").unwrap());
        }
        let _: Result<Envelope<'_>> = envelope(&message);
}
}

fn written(definition: &str, value: &Value) -> Vec<u8> {
    let types = kinds::types();
    let mut out = Vec::new();
    let of = types.find(definition).unwrap();
    Message { set: &types, of, out: &mut out }.deserialize(value).unwrap();
    out
}

/// `verbs` is a list with a name of its own in Go, and so a message around its items.
#[test]
fn a_named_list_is_a_message() {
    let definition = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResource";
    let resource = json!({"name": "pods", "verbs": ["get", "list"]});
    let verbs = bytes(4, &[bytes(1, b"get"), bytes(1, b"list")].concat());
    let message = written(definition, &resource);
    assert_eq!(message, [bytes(1, b"pods"), verbs].concat());
    let back = read(definition, &message).unwrap();
    assert_eq!((&back["name"], &back["verbs"]), (&resource["name"], &resource["verbs"]));
}

#[test]
fn writes_what_typed_clients_read() {
    let secret = json!({"metadata": {"name": "n"}, "data": {"k": "AQID"}, "type": "Opaque", "other": [{}]});
    let data = [bytes(1, b"k"), bytes(2, &[1, 2, 3])].concat();
    // In the order of the JSON, whose keys are sorted.
    let expected = [bytes(2, &data), bytes(1, &bytes(1, b"n")), bytes(3, b"Opaque")].concat();
    assert_eq!(written("io.k8s.api.core.v1.Secret", &secret), expected);
    // `emptyDir` is field 2 of the source that is field 2 of a volume, and there although it is empty.
    let volume = json!({"name": "v", "emptyDir": {}});
    assert_eq!(
        written("io.k8s.api.core.v1.Volume", &volume),
        [bytes(1, b"v"), bytes(2, &bytes(2, &[]))].concat()
    );
    let types = kinds::types();
    let long = "x".repeat(300);
    let config_map = json!({"data": {"k": long}});
    let bytes = written("io.k8s.api.core.v1.ConfigMap", &config_map);
    assert_eq!(&bytes[..4], &[0x12, 0xb2, 0x02, 0x0a], "a length of two bytes");
    assert_eq!(
        Reader { set: &types }.message(types.find("io.k8s.api.core.v1.ConfigMap").unwrap(), &bytes, 0),
        Ok(config_map)
    );
}

/// A value of a type, with every field that `choices` picks.
fn filled(set: &TypeSet, of: TypeId, choices: &mut impl Iterator<Item = u64>, depth: usize) -> Value {
    let node = set.node(of);
    let choice = choices.next().unwrap_or(0);
    match &node.shape {
        Shape::Boolean => json!(choice.is_multiple_of(2)),
        Shape::Integer(Format::Int32) => json!((choice % 4_294_967_296).cast_signed() - 2_147_483_648),
        Shape::Integer(_) => json!(choice.cast_signed()),
        Shape::Number(_) => json!(f64::from(u32::try_from(choice % 1_000).unwrap()) / 4.0),
        Shape::String(Format::Byte) => json!(["", "AQID", "/w=="][usize::try_from(choice % 3).unwrap()]),
        Shape::String(Format::DateTime) => json!("2026-01-02T03:04:05Z"),
        Shape::String(Format::MicroTime) => json!("2026-01-02T03:04:05.000006Z"),
        Shape::String(Format::Quantity) => json!("100m"),
        Shape::String(_) => json!("x".repeat(usize::try_from(choice % 200).unwrap())),
        Shape::IntOrString if choice.is_multiple_of(2) => json!(choice % 65_536),
        Shape::IntOrString => json!("25%"),
        Shape::Any => match node.name.as_deref().unwrap_or_default().rsplit('.').next().unwrap() {
            "JSONSchemaPropsOrStringArray" => json!(["a", "b"]),
            "JSONSchemaPropsOrArray" => json!([{"type": "string"}, {"title": "t"}]),
            "JSONSchemaPropsOrBool" => [json!(false), json!({"type": "string"}), json!(true)]
                [usize::try_from(choice % 3).unwrap()]
            .clone(),
            _ => json!({"f:a": {"b": [1, null, "c"]}}),
        },
        Shape::List { items, .. } => {
            let count = if depth == 0 { 0 } else { 1 + choice % 2 };
            (0..count).map(|_| filled(set, *items, choices, depth - 1)).collect()
        }
        Shape::Map { values, .. } => {
            let count = if depth == 0 { 0 } else { 1 + choice % 2 };
            let entry = |n: u64| format!("key-{n}");
            Value::Object((0..count).map(|n| (entry(n), filled(set, *values, choices, depth - 1))).collect())
        }
        Shape::Struct { properties, .. } => {
            let mut map = Map::new();
            for (name, Property { of, protobuf, .. }) in properties {
                let wanted = !choices.next().unwrap_or(0).is_multiple_of(3);
                if depth > 0 && *protobuf != 0 && wanted {
                    let value = filled(set, *of, choices, depth - 1);
                    let empty = value.as_array().is_some_and(Vec::is_empty)
                        || value.as_object().is_some_and(|map| map.is_empty() && !is_struct(set, *of));
                    if !empty {
                        map.insert(name.to_string(), value);
                    }
                }
            }
            Value::Object(map)
        }
    }
}

fn is_struct(set: &TypeSet, of: TypeId) -> bool {
    matches!(set.node(of).shape, Shape::Struct { .. })
}

/// What was written reads back as it was.
fn check_round_trip(types: &TypeSet, name: &str, of: TypeId, mut seed: u64, depth: usize) {
    let mut choices = std::iter::repeat_with(|| {
        // A linear congruential generator (Knuth's constants): small and good enough to pick fields.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 16
    });
    let value = filled(types, of, &mut choices, depth);
    let mut bytes = Vec::new();
    Message { set: types, of, out: &mut bytes }.deserialize(&value).unwrap();
    assert_eq!(Reader { set: types }.message(of, &bytes, 0), Ok(value), "{name}");
}

#[test]
fn every_type_goes_both_ways() {
    let types = kinds::types();
    for (name, of) in types.named().filter(|(_, of)| is_struct(&types, *of)) {
        (1..4).for_each(|seed| check_round_trip(&types, name, of, seed, 2));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn what_is_written_reads_back(seed in any::<u64>(), at in any::<prop::sample::Index>()) {
        let types = kinds::types();
        let structs: Vec<_> = types.named().filter(|(_, of)| is_struct(&types, *of)).collect();
        let (name, of) = at.get(&structs);
        check_round_trip(&types, name, *of, seed, 4);
    }
}

/// Upstream keeps an object of every kind as JSON and as protobuf beside its types. Where a checkout of
/// k8s.io/api is given (`KEELSON_K8S_API`), each is read here, and written, as upstream does.
#[test]
fn agrees_with_upstream() {
    let Some(api) = std::env::var_os("KEELSON_K8S_API") else { return };
    let folder = std::path::Path::new(&api).join("testdata/HEAD");
    let types = kinds::types();
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
        if file.extension().is_none_or(|extension| extension != "pb") {
            continue;
        }
        let bytes = std::fs::read(&file).unwrap();
        let envelope = envelope(&bytes).unwrap();
        let Some(of) = types.find(&envelope.definition()) else { continue };
        let json: Value =
            serde_json::from_slice(&std::fs::read(file.with_extension("json")).unwrap()).unwrap();
        let ours = enveloped(envelope.api_version, envelope.kind, |out| {
            Message { set: &types, of, out }.deserialize(&json)
        });
        let again = self::envelope(ours.as_deref().unwrap()).unwrap().object(&types, of);
        if envelope.object(&types, of).as_ref() != Ok(&json) || again.as_ref() != Ok(&json) {
            wrong.push(file.display().to_string());
        }
        seen += 1;
    }
    assert!(seen > 50 && wrong.is_empty(), "{seen} read, wrong: {wrong:#?}");
}
