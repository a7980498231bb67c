//! From a message to a tree.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{Timestamp, Value, format_micro, format_second};
use schema::{Format, Property, Shape, TypeId, TypeSet};
use serde_json::{Map, json};

use super::{
    ProtobufError, Result,
    wire::{Fields, Wire, utf8},
};

/// Deepest nesting that is followed; the deepest built-in type has about twenty levels.
const DEPTH_MAX: usize = 100;

pub(super) struct Reader<'a> {
    pub(super) set: &'a TypeSet,
}

impl Reader<'_> {
    pub(super) fn message(&self, of: TypeId, bytes: &[u8], depth: usize) -> Result<Value> {
        let mut map = Map::new();
        self.fields(of, bytes, 0, depth, &mut map)?;
        Ok(Value::Object(map))
    }

    /// Reads the fields of a struct that are in the message `outer`: 0 for its own message, else what is above
    /// the low 16 bits of [`Property::protobuf`].
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
            let Ok(number) = u16::try_from(number) else { continue };
            let full = outer << 16 | u32::from(number);
            if let Some((name, property)) = properties.iter().find(|(_, p)| p.protobuf == full && full != 0) {
                self.property(name, property, wire, depth, map)?;
            } else if let (0..=0xff, Ok(1..), Wire::Bytes(inner)) = (outer, u8::try_from(number), wire) {
                let within = outer << 8 | u32::from(number);
                let inlined = |p: &Property| p.protobuf >> 16 == within || p.protobuf >> 24 == within;
                if properties.values().any(inlined) {
                    self.fields(of, inner, within, depth + 1, map)?;
                }
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
            (None, Shape::String(Format::DateTime | Format::MicroTime)) => Value::Null,
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
