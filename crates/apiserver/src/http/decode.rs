//! From the bytes of a body to a tree. Keys given twice are reported as upstream's strict decoder does; the
//! last one counts.

use std::fmt;

use meta::{Object, Status, Value};
use resource::Resource;
use schema::Shape;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Map;

use super::{
    negotiate::{self, Media},
    protobuf,
};
use crate::{Registry, rest::Duplicates};

/// Most duplicates reported; nobody reads more.
const DUPLICATES_MAX: usize = 100;
/// Bytes of paths whose places are noted, as a deep body has paths of more bytes than its own: what is found beyond
/// them is named last.
const PLACED_BYTES_MAX: usize = 1 << 20;

/// A decoded body.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Decoded {
    pub(crate) value: Value,
    /// The keys that were given twice.
    pub(crate) duplicates: Duplicates,
}

/// Decodes a body; 400 when it is not valid.
pub(crate) fn decode(bytes: &[u8], media: Media) -> Result<Decoded, Status> {
    let mut found = Found::default();
    let value = match media {
        Media::Json => {
            let mut json = serde_json::Deserializer::from_slice(bytes);
            let value = Seed(&mut found).deserialize(&mut json).and_then(|v| json.end().map(|()| v));
            let value =
                value.map_err(|error| Status::bad_request(format!("error decoding json: {error}")))?;
            if !found.duplicates.found.is_empty() {
                // Where each key is, is worth knowing only now.
                found = Found { placeable: PLACED_BYTES_MAX, ..Found::default() };
                drop(Seed(&mut found).deserialize(&mut serde_json::Deserializer::from_slice(bytes)));
            }
            value
        }
        Media::Protobuf => {
            let why =
                "application/vnd.kubernetes.protobuf is not supported for this body; send application/json";
            return Err(negotiate::unsupported(why));
        }
        Media::Yaml => {
            let text = std::str::from_utf8(bytes)
                .map_err(|error| Status::bad_request(format!("error decoding yaml: {error}")))?;
            let options = serde_saphyr::options! {
                duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
            };
            found.yaml = true;
            serde_saphyr::with_deserializer_from_str_with_options(text, options, |yaml| {
                Seed(&mut found).deserialize(yaml)
            })
            .map_err(|error| Status::bad_request(format!("error decoding yaml: {error}")))?
        }
    };
    Ok(Decoded { value, duplicates: found.duplicates })
}

/// Decodes a body that must be an object: of the kind `resource`, or of another kind that is built in.
pub(crate) fn object(
    bytes: &[u8],
    media: Media,
    resource: &Resource,
    registry: &Registry,
) -> Result<(Object, Duplicates), Status> {
    let Decoded { value, duplicates } = match media {
        Media::Json | Media::Yaml => decode(bytes, media)?,
        Media::Protobuf => {
            Decoded { value: message(bytes, resource, registry)?, duplicates: Duplicates::default() }
        }
    };
    let object = Object::from_value(value)
        .map_err(|_| Status::bad_request("the body of the request is not an object"))?;
    Ok((object, duplicates))
}

/// Decodes a protobuf body by the schema of the kind that its envelope names.
fn message(bytes: &[u8], resource: &Resource, registry: &Registry) -> Result<Value, Status> {
    let failed = |error| Status::bad_request(format!("error decoding protobuf: {error}"));
    let envelope = protobuf::envelope(bytes).map_err(failed)?;
    let own =
        envelope.kind == &*resource.kind && matches!(resource.schema.node().shape, Shape::Struct { .. });
    if own {
        return envelope.object(resource.schema.set(), resource.schema.root()).map_err(failed);
    }
    let name = envelope.definition();
    let set = resource.schema.set();
    let own = set.find(&name).map(|of| (set.clone(), of));
    let found = own.or_else(|| registry.builtin_type(&name));
    let (set, of) = found.ok_or_else(|| {
        let why = format!(
            "{} {} has no protobuf form here; send application/json",
            envelope.api_version, envelope.kind
        );
        negotiate::unsupported(&why)
    })?;
    envelope.object(&set, of).map_err(failed)
}

#[derive(Default)]
struct Found {
    path: Vec<Step>,
    duplicates: Duplicates,
    /// How many bytes of paths may still be noted with their places.
    placeable: usize,
    keys: usize,
    /// Keys are named by their lines, not by their paths.
    yaml: bool,
}

enum Step {
    Key(String),
    Item(usize),
}

impl Found {
    fn key(&mut self) {
        self.keys += 1;
        if self.placeable > 0 {
            let (path, place) = (self.text(), self.keys);
            self.placeable = self.placeable.saturating_sub(path.len());
            self.duplicates.first.entry(path).or_insert(place);
        }
    }

    fn text(&self) -> String {
        let mut path = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if path.is_empty() => path.push_str(key),
                Step::Key(key) => path.extend([".", key]),
                Step::Item(at) => path.push_str(&format!("[{at}]")),
            }
        }
        path
    }

    /// The next key of a mapping and, in YAML, its line.
    fn next_key<'de, A: MapAccess<'de>>(&self, entries: &mut A) -> Result<Option<(String, u64)>, A::Error> {
        if self.yaml {
            let key = entries.next_key::<serde_saphyr::Spanned<String>>()?;
            return Ok(key.map(|key| (key.value, key.referenced.line())));
        }
        Ok(entries.next_key()?.map(|key| (key, 0)))
    }

    /// Notes that the key of this line repeats another, in the words of upstream's YAML decoder.
    fn repeated(&mut self, line: u64, key: &str) {
        if self.duplicates.lines.len() < DUPLICATES_MAX {
            self.duplicates.lines.push(format!("line {line}: key {key:?} already set in map"));
        }
    }

    /// Notes that the key at `place` repeats another.
    fn duplicate(&mut self, place: usize) {
        let found = &self.duplicates.found;
        if found.len() >= DUPLICATES_MAX {
            return;
        }
        let text = format!("duplicate field \"{}\"", self.text());
        if !found.iter().any(|(_, known)| *known == text) {
            self.duplicates.found.push((place, text));
        }
    }
}

/// Builds a [`Value`] and remembers on the way where it is.
struct Seed<'a>(&'a mut Found);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: serde::de::Error>(self, v: f64) -> Result<Value, E> {
        serde_json::Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        self.0.path.push(Step::Item(0));
        while let Some(item) = items.next_element_seed(Seed(self.0))? {
            list.push(item);
            if let Some(Step::Item(at)) = self.0.path.last_mut() {
                *at += 1;
            }
        }
        self.0.path.pop();
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, line)) = self.0.next_key(&mut entries)? {
            self.0.path.push(Step::Key(key));
            self.0.key();
            let place = self.0.keys;
            let value = entries.next_value_seed(Seed(self.0))?;
            let Some(Step::Key(key)) = self.0.path.pop() else { continue };
            if map.contains_key(&key) && self.0.yaml {
                self.0.repeated(line, &key);
            } else if map.contains_key(&key) {
                self.0.path.push(Step::Key(key.clone()));
                self.0.duplicate(place);
                self.0.path.pop();
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(media: Media, text: &str, value: Value, duplicates: &[&str]) {
        let decoded = decode(text.as_bytes(), media).unwrap();
        assert_eq!(decoded.value, value, "{text}");
        let found: Vec<_> = decoded.duplicates.found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(found, duplicates, "{text}");
    }

    #[test]
    fn reads_json_and_reports_duplicates() {
        check(
            Media::Json,
            r#"{"a": [1, -2, 1.5, "x", null, true]}"#,
            json!({"a": [1, -2, 1.5, "x", null, true]}),
            &[],
        );
        check(
            Media::Json,
            r#"{"spec": {"replicas": 1, "list": [{}, {"a": 1, "a": 2}], "replicas": 2}}"#,
            json!({"spec": {"replicas": 2, "list": [{}, {"a": 2}]}}),
            &[r#"duplicate field "spec.list[1].a""#, r#"duplicate field "spec.replicas""#],
        );
        for bad in ["", "{", "{}x", r#"{"a":}"#] {
            assert_eq!(decode(bad.as_bytes(), Media::Json).unwrap_err().code, 400, "{bad}");
        }
        let (widget, registry) = (crate::testing_kinds::widget(), Registry::new());
        assert_eq!(object(b"[]", Media::Json, &widget, &registry).unwrap_err().code, 400);
        let deep = "[".repeat(100_000);
        assert_eq!(decode(deep.as_bytes(), Media::Json).unwrap_err().code, 400);
    }

    #[test]
    fn what_is_wrong_is_named_in_the_order_of_the_text() {
        let text = br#"{"spec": {"new": 1, "replicas": 2, "replicas": 3, "late": {"a": 1}}}"#;
        let unknown = ["late", "new"].map(|field| format!("unknown field \"spec.{field}\"")).to_vec();
        let named = decode(text, Media::Json).unwrap().duplicates.among(unknown);
        let expected = [
            r#"unknown field "spec.new""#,
            r#"duplicate field "spec.replicas""#,
            r#"unknown field "spec.late""#,
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn places_are_noted_up_to_a_bound() {
        let fields: Vec<String> = (0..1_000).map(|n| format!("\"{n}\":0")).collect();
        let text = format!("{{\"{}\":{{\"0\":1,{}}}}}", "k".repeat(1 << 16), fields.join(","));
        let duplicates = decode(text.as_bytes(), Media::Json).unwrap().duplicates;
        assert_eq!(duplicates.found.len(), 1);
        let noted: usize = duplicates.first.keys().map(String::len).sum();
        assert!(noted < PLACED_BYTES_MAX + (1 << 17), "{noted}");
    }

    #[test]
    fn reads_yaml_and_reports_duplicates() {
        check(
            Media::Yaml,
            "apiVersion: v1\nport: 80\nratio: 0.5\nname: \"1\"\nlist:\n- a\n- {b: ~}\non: true\n",
            json!({"apiVersion": "v1", "port": 80, "ratio": 0.5, "name": "1", "list": ["a", {"b": null}], "on": true}),
            &[],
        );
        check(Media::Yaml, "spec:\n  a: 1\n  a: 2\n", json!({"spec": {"a": 2}}), &[]);
        let lines = decode(b"spec:\n  a: 1\n  b: 1\n\n  a: 2\n", Media::Yaml).unwrap().duplicates.lines;
        assert_eq!(lines, [r#"line 5: key "a" already set in map"#]);
        assert_eq!(decode(b"a: [", Media::Yaml).unwrap_err().code, 400);
    }
}
