//! Protobuf bodies of built-in kinds, as client-go's typed clients send them: `k8s\0`, a `runtime.Unknown`
//! envelope, and a message that the schema's field numbers make readable.
//!
//! Guarantees: the tree is what the same object sent as JSON gives; unknown fields are dropped, as protobuf
//! means it; depth and size are bounded. Answers are JSON, which every client that sends protobuf accepts.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{GroupVersion, Timestamp, Value, format_micro, format_second};
use schema::{Format, Property, Shape, TypeId, TypeSet};
use serde_json::{Map, json};

/// What a protobuf body begins with (`runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";
/// Deepest nesting that is followed; the deepest built-in type has about twenty levels.
const DEPTH_MAX: usize = 100;

/// The envelope of a body.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Envelope<'a> {
    pub(super) api_version: &'a str,
    pub(super) kind: &'a str,
    message: &'a [u8],
}

/// Why a body cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtobufError {
    /// The four bytes are missing.
    #[error("provided data does not appear to be a protobuf message, expected prefix 6b 38 73 00")]
    Magic,
    /// It ends early or is not what its tags say.
    #[error("message is damaged")]
    Damaged,
    /// Nested too deeply.
    #[error("message is nested too deeply")]
    Depth,
    /// A field that should be a number, a text and so on has another form.
    #[error("field {0} does not have the form of its type")]
    Form(String),
    /// A kind without protobuf form.
    #[error("{0} has no protobuf form here; send application/json")]
    Kind(String),
}

type Result<T> = std::result::Result<T, ProtobufError>;

/// Reads the envelope.
pub(super) fn envelope(bytes: &[u8]) -> Result<Envelope<'_>> {
    let bytes = bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let mut envelope = Envelope { api_version: "", kind: "", message: &[] };
    for field in Fields(bytes) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Fields(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => envelope.api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => envelope.kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(message)) => envelope.message = message,
            _ => {}
        }
    }
    Ok(envelope)
}

impl Envelope<'_> {
    /// The object as a tree, read as the type `of`.
    pub(super) fn object(&self, set: &TypeSet, of: TypeId) -> Result<Value> {
        let Shape::Struct { .. } = set.node(of).shape else {
            return Err(ProtobufError::Kind(self.kind.to_owned()));
        };
        let mut value = Reader { set }.message(of, self.message, 0)?;
        if let Some(map) = value.as_object_mut() {
            map.insert("apiVersion".to_owned(), json!(self.api_version));
            map.insert("kind".to_owned(), json!(self.kind));
        }
        Ok(value)
    }

    /// The definition name of its kind, if it is built in.
    pub(super) fn definition(&self) -> String {
        let version = GroupVersion::parse(self.api_version).unwrap_or_else(|| GroupVersion::new("", "v1"));
        match self.kind {
            "DeleteOptions" => "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".to_owned(),
            kind if version.group == "apiextensions.k8s.io" => {
                format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{}.{kind}", version.version)
            }
            kind => crate::openapi::builtin_name(&version.group, &version.version, kind),
        }
    }
}

/// One field as it is on the wire.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

/// The fields of a message in order.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Wire<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field.ok_or(ProtobufError::Damaged))
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Wire<'a>)> {
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok()?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(u64::from_le_bytes(*self.chunk()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => Wire::Fixed32(u32::from_le_bytes(*self.chunk()?)),
            _ => return None,
        };
        Some((number, wire))
    }

    fn chunk<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(chunk)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f).checked_shl(7 * at)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes).map_err(|_| ProtobufError::Damaged)
}

struct Reader<'a> {
    set: &'a TypeSet,
}

impl Reader<'_> {
    fn message(&self, of: TypeId, bytes: &[u8], depth: usize) -> Result<Value> {
        let mut map = Map::new();
        self.fields(of, bytes, 0, depth, &mut map)?;
        Ok(Value::Object(map))
    }

    /// Reads the fields of a struct whose numbers are inside `outer` (0 for its own message; JSON inlines
    /// some structs that protobuf keeps).
    fn fields(
        &self,
        of: TypeId,
        bytes: &[u8],
        outer: u32,
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Result<()> {
        if depth > DEPTH_MAX {
            return Err(ProtobufError::Depth);
        }
        let Shape::Struct { properties, .. } = &self.set.node(of).shape else { return Ok(()) };
        for field in Fields(bytes) {
            let (number, wire) = field?;
            let full = if outer == 0 { number } else { outer << 16 | number };
            if let Some((name, property)) = properties.iter().find(|(_, p)| p.protobuf == full && full != 0) {
                self.property(name, property, wire, depth, map)?;
            } else if let (0, Wire::Bytes(inner)) = (outer, wire)
                && properties.values().any(|p| p.protobuf >> 16 == number)
            {
                self.fields(of, inner, number, depth + 1, map)?;
            }
        }
        Ok(())
    }

    fn property(
        &self,
        name: &str,
        property: &Property,
        wire: Wire<'_>,
        depth: usize,
        map: &mut Map<String, Value>,
    ) -> Result<()> {
        match &self.set.node(property.of).shape {
            Shape::List { items, .. } => {
                let list = map.entry(name).or_insert_with(|| json!([]));
                let Some(list) = list.as_array_mut() else { return Ok(()) };
                self.item(name, *items, wire, depth, list)?;
            }
            Shape::Map { values, .. } => {
                let entries = map.entry(name).or_insert_with(|| json!({}));
                let (Some(entries), Wire::Bytes(entry)) = (entries.as_object_mut(), wire) else {
                    return Err(ProtobufError::Form(name.to_owned()));
                };
                let (key, value) = self.entry(name, *values, entry, depth)?;
                entries.insert(key, value);
            }
            _ => {
                let value = self.value(name, property.of, wire, depth)?;
                // A zero time is an unset one.
                if !value.is_null() {
                    map.insert(name.to_owned(), value);
                }
            }
        }
        Ok(())
    }

    /// One occurrence of a repeated field; numbers may be packed.
    fn item(
        &self,
        name: &str,
        of: TypeId,
        wire: Wire<'_>,
        depth: usize,
        list: &mut Vec<Value>,
    ) -> Result<()> {
        let scalar = matches!(self.set.node(of).shape, Shape::Integer(_) | Shape::Boolean);
        if let (true, Wire::Bytes(packed)) = (scalar, wire) {
            let mut fields = Fields(packed);
            while !fields.0.is_empty() {
                let number = fields.varint().ok_or(ProtobufError::Damaged)?;
                list.push(self.value(name, of, Wire::Varint(number), depth)?);
            }
            return Ok(());
        }
        list.push(self.value(name, of, wire, depth)?);
        Ok(())
    }

    fn entry(&self, name: &str, of: TypeId, bytes: &[u8], depth: usize) -> Result<(String, Value)> {
        let mut key = String::new();
        let mut value = None;
        for field in Fields(bytes) {
            match field? {
                (1, Wire::Bytes(text)) => key = utf8(text)?.to_owned(),
                (2, wire) => value = Some(self.value(name, of, wire, depth + 1)?),
                _ => {}
            }
        }
        let value = match (value, &self.set.node(of).shape) {
            (Some(value), _) => value,
            (None, Shape::String(_)) => json!(""),
            (None, Shape::List { .. }) => json!([]),
            (None, _) => Value::Null,
        };
        Ok((key, value))
    }

    fn value(&self, name: &str, of: TypeId, wire: Wire<'_>, depth: usize) -> Result<Value> {
        let node = self.set.node(of);
        let form = || ProtobufError::Form(name.to_owned());
        #[allow(
            clippy::cast_possible_wrap,
            reason = "two's complement is protobuf's form of negative numbers"
        )]
        let value = match (&node.shape, wire) {
            (Shape::Boolean, Wire::Varint(n)) => json!(n != 0),
            (Shape::Integer(_), Wire::Varint(n)) => json!(n as i64),
            (Shape::Number(_), Wire::Fixed64(bits)) => json!(f64::from_bits(bits)),
            (Shape::Number(_), Wire::Fixed32(bits)) => json!(f32::from_bits(bits)),
            (Shape::Number(_), Wire::Varint(n)) => json!(n as i64),
            (Shape::String(Format::Byte), Wire::Bytes(bytes)) => json!(STANDARD.encode(bytes)),
            (Shape::String(Format::DateTime), Wire::Bytes(bytes)) => time(bytes, format_second)?,
            (Shape::String(Format::MicroTime), Wire::Bytes(bytes)) => time(bytes, format_micro)?,
            (Shape::String(Format::Quantity), Wire::Bytes(bytes)) => json!(utf8(first(bytes)?)?),
            (Shape::String(_), Wire::Bytes(bytes)) => json!(utf8(bytes)?),
            (Shape::IntOrString, Wire::Bytes(bytes)) => int_or_string(bytes)?,
            (Shape::Struct { .. }, Wire::Bytes(bytes)) => self.message(of, bytes, depth + 1)?,
            (Shape::Any, Wire::Bytes(bytes)) => {
                self.any(node.name.as_deref().unwrap_or_default(), bytes, depth)?
            }
            // A map's list value is a message of its own (`ExtraValue`), with the items as field 1.
            (Shape::List { items, .. }, Wire::Bytes(bytes)) => {
                let mut list = Vec::new();
                for field in Fields(bytes) {
                    if let (1, wire) = field? {
                        self.item(name, *items, wire, depth + 1, &mut list)?;
                    }
                }
                Value::Array(list)
            }
            _ => return Err(form()),
        };
        Ok(value)
    }

    /// JSON inside protobuf (`RawExtension`, `JSON`, `FieldsV1`), and the unions of JSONSchemaProps.
    fn any(&self, definition: &str, bytes: &[u8], depth: usize) -> Result<Value> {
        let (package, name) = definition.rsplit_once('.').unwrap_or_default();
        if !name.starts_with("JSONSchemaPropsOr") {
            let json = first(bytes)?;
            return if json.is_empty() {
                Ok(Value::Null)
            } else {
                serde_json::from_slice(json).map_err(|_| ProtobufError::Damaged)
            };
        }
        let props = self.set.find(&format!("{package}.JSONSchemaProps"));
        let props = props.ok_or_else(|| ProtobufError::Kind(definition.to_owned()))?;
        let mut value = Value::Null;
        for field in Fields(bytes) {
            match (name, field?) {
                ("JSONSchemaPropsOrBool", (1, Wire::Varint(allows))) if value.is_null() => {
                    value = json!(allows != 0)
                }
                ("JSONSchemaPropsOrBool", (2, Wire::Bytes(schema)))
                | ("JSONSchemaPropsOrArray" | "JSONSchemaPropsOrStringArray", (1, Wire::Bytes(schema))) => {
                    value = self.message(props, schema, depth + 1)?;
                }
                ("JSONSchemaPropsOrArray", (2, Wire::Bytes(schema))) => {
                    let schema = self.message(props, schema, depth + 1)?;
                    push(&mut value, schema);
                }
                ("JSONSchemaPropsOrStringArray", (2, Wire::Bytes(text))) => {
                    push(&mut value, json!(utf8(text)?))
                }
                _ => {}
            }
        }
        Ok(value)
    }
}

fn push(list: &mut Value, item: Value) {
    match list {
        Value::Array(items) => items.push(item),
        other => *other = Value::Array(vec![item]),
    }
}

/// Field 1 of a message that wraps one value.
fn first(bytes: &[u8]) -> Result<&[u8]> {
    for field in Fields(bytes) {
        if let (1, Wire::Bytes(value)) = field? {
            return Ok(value);
        }
    }
    Ok(&[])
}

fn time(bytes: &[u8], format: fn(Timestamp) -> String) -> Result<Value> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Fields(bytes) {
        #[allow(
            clippy::cast_possible_wrap,
            reason = "two's complement is protobuf's form of negative numbers"
        )]
        match field? {
            (1, Wire::Varint(n)) => seconds = Some(n as i64),
            (2, Wire::Varint(n)) => nanos = i32::try_from(n).map_err(|_| ProtobufError::Damaged)?,
            _ => {}
        }
    }
    match seconds {
        None => Ok(Value::Null),
        Some(seconds) => {
            Timestamp::new(seconds, nanos).map(|at| json!(format(at))).map_err(|_| ProtobufError::Damaged)
        }
    }
}

fn int_or_string(bytes: &[u8]) -> Result<Value> {
    let (mut text, mut number, mut of) = ("", 0, 0);
    for field in Fields(bytes) {
        #[allow(
            clippy::cast_possible_wrap,
            reason = "two's complement is protobuf's form of negative numbers"
        )]
        match field? {
            (1, Wire::Varint(n)) => of = n,
            (2, Wire::Varint(n)) => number = n as i64,
            (3, Wire::Bytes(value)) => text = utf8(value)?,
            _ => {}
        }
    }
    Ok(if of == 0 { json!(number) } else { json!(text) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            (
                "authorization.k8s.io/v1",
                "SubjectAccessReview",
                "io.k8s.api.authorization.v1.SubjectAccessReview",
            ),
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
}
