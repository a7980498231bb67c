//! From JSON, as text or as a tree, to a message, in one pass.

use std::{collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use meta::{Timestamp, Value};
use schema::{Format, Property, Shape, TypeId, TypeSet};
use serde::de::{
    Deserialize as _, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::wire::{Kind, put_bytes, put_nested, put_tag, put_varint};

/// Appends the fields of a struct. Keys without a number are left out.
pub(super) struct Message<'a> {
    pub(super) set: &'a TypeSet,
    pub(super) of: TypeId,
    pub(super) out: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Message<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { set, of, out } = self;
        let Shape::Struct { properties, .. } = &set.node(of).shape else {
            return Err(A::Error::custom("its type has no fields"));
        };
        // Fields that JSON shows here and protobuf keeps in messages of their own, by what is above the low 16
        // bits of their number.
        let mut inlined: Vec<(u32, Vec<u8>)> = Vec::new();
        while let Some(found) = map.next_key_seed(Key(properties))? {
            let Some(Property { of, protobuf, .. }) = found.filter(|property| property.protobuf != 0) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let (outer, number) = (protobuf >> 16, protobuf & 0xffff);
            let out = if outer == 0 { &mut *out } else { inner(&mut inlined, outer) };
            map.next_value_seed(Field { set, of: *of, number, out, wrapped: false })?;
        }
        // The innermost first: they lie in others.
        while let Some(at) = inlined.iter().position(|(place, _)| *place > 0xff) {
            let (place, message) = inlined.swap_remove(at);
            put_bytes(inner(&mut inlined, place >> 8), place & 0xff, &message);
        }
        for (number, message) in inlined {
            put_bytes(out, number, &message);
        }
        Ok(())
    }
}

fn inner(inlined: &mut Vec<(u32, Vec<u8>)>, outer: u32) -> &mut Vec<u8> {
    let at = inlined.iter().position(|(number, _)| *number == outer).unwrap_or_else(|| {
        inlined.push((outer, Vec::new()));
        inlined.len() - 1
    });
    #[allow(clippy::indexing_slicing, reason = "found or pushed above")]
    &mut inlined[at].1
}

/// Finds the property of a key without keeping the key.
struct Key<'a>(&'a BTreeMap<Arc<str>, Property>);

impl<'de, 'a> DeserializeSeed<'de> for Key<'a> {
    type Value = Option<&'a Property>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'a> Visitor<'_> for Key<'a> {
    type Value = Option<&'a Property>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.get(key))
    }
}

/// Appends one field.
struct Field<'a> {
    set: &'a TypeSet,
    of: TypeId,
    number: u32,
    out: &'a mut Vec<u8>,
    /// A list here is a message of its own with the items as field 1 (`ExtraValue` in a map).
    wrapped: bool,
}

impl Field<'_> {
    fn shape(&self) -> &Shape {
        &self.set.node(self.of).shape
    }

    fn varint<E>(self, value: u64) -> Result<(), E> {
        put_tag(self.out, self.number, Kind::Varint);
        put_varint(self.out, value);
        Ok(())
    }

    fn number<E: Error>(self, value: f64) -> Result<(), E> {
        #[allow(clippy::cast_possible_truncation, reason = "the field is a float upstream")]
        if matches!(self.shape(), Shape::Number(Format::Float)) {
            put_tag(self.out, self.number, Kind::Fixed32);
            self.out.extend_from_slice(&(value as f32).to_le_bytes());
        } else {
            put_tag(self.out, self.number, Kind::Fixed64);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(())
    }

    /// `IntOrString`; upstream writes all three fields.
    fn int_or_string<E>(self, number: i32, text: Option<&str>) -> Result<(), E> {
        put_nested(self.out, self.number, |out| {
            put_tag(out, 1, Kind::Varint);
            put_varint(out, u64::from(text.is_some()));
            put_tag(out, 2, Kind::Varint);
            put_varint(out, i64::from(number).cast_unsigned());
            put_bytes(out, 3, text.unwrap_or_default().as_bytes());
            Ok(())
        })
    }

    fn quantity<E>(self, text: &str) -> Result<(), E> {
        put_nested(self.out, self.number, |out| {
            put_bytes(out, 1, text.as_bytes());
            Ok(())
        })
    }

    fn time<E: Error>(self, text: &str) -> Result<(), E> {
        let time: Timestamp = text.parse().map_err(|_| E::custom(format_args!("{text:?} is no time")))?;
        put_nested(self.out, self.number, |out| {
            put_tag(out, 1, Kind::Varint);
            put_varint(out, time.as_second().cast_unsigned());
            put_tag(out, 2, Kind::Varint);
            put_varint(out, i64::from(time.subsec_nanosecond()).cast_unsigned());
            Ok(())
        })
    }

    fn integer<E: Error>(self, value: i64) -> Result<(), E> {
        match self.shape() {
            Shape::Integer(_) => self.varint(value.cast_unsigned()),
            #[allow(clippy::cast_precision_loss, reason = "the field is a double upstream")]
            Shape::Number(_) => self.number(value as f64),
            Shape::IntOrString => {
                let number = i32::try_from(value).map_err(|_| E::custom("number of more than 32 bits"))?;
                self.int_or_string(number, None)
            }
            Shape::String(Format::Quantity) => self.quantity(&value.to_string()),
            _ => Err(E::custom("a number where its type has none")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Field<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if matches!(self.shape(), Shape::Any) {
            let value = Value::deserialize(deserializer)?;
            return self.any(&value).map_err(D::Error::custom);
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of its type")
    }

    /// Null is an absent field.
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.shape() {
            Shape::Boolean => self.varint(u64::from(value)),
            _ => Err(E::custom("true or false where its type has none")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.integer(i64::try_from(value).map_err(|_| E::custom("number of more than 63 bits"))?)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.shape() {
            Shape::Number(_) => self.number(value),
            Shape::String(Format::Quantity) => self.quantity(&value.to_string()),
            _ => Err(E::custom("a fraction where its type has none")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.shape() {
            Shape::IntOrString => self.int_or_string(0, Some(text)),
            Shape::String(Format::Byte) => {
                let bytes = STANDARD.decode(text).map_err(|_| E::custom("bytes that are not base64"))?;
                put_bytes(self.out, self.number, &bytes);
                Ok(())
            }
            Shape::String(Format::DateTime | Format::MicroTime) => self.time(text),
            Shape::String(Format::Quantity) => self.quantity(text),
            Shape::String(_) => {
                put_bytes(self.out, self.number, text.as_bytes());
                Ok(())
            }
            _ => Err(E::custom("text where its type has none")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { set, of, number, out, wrapped: _ } = self;
        match &set.node(of).shape {
            Shape::Struct { .. } => put_nested(out, number, |out| Message { set, of, out }.visit_map(map)),
            Shape::Map { values, .. } => {
                while let Some(key) = map.next_key::<String>()? {
                    put_nested(out, number, |out| {
                        put_bytes(out, 1, key.as_bytes());
                        map.next_value_seed(Field { set, of: *values, number: 2, out, wrapped: true })
                    })?;
                }
                Ok(())
            }
            _ => Err(A::Error::custom("an object where its type has none")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { set, of, number, out, wrapped } = self;
        let Shape::List { items, .. } = &set.node(of).shape else {
            return Err(A::Error::custom("a list where its type has none"));
        };
        let mut each = |number, out: &mut Vec<u8>| {
            while list.next_element_seed(Field { set, of: *items, number, out, wrapped: true })?.is_some() {}
            Ok(())
        };
        if wrapped { put_nested(out, number, |out| each(1, out)) } else { each(number, out) }
    }
}

impl Field<'_> {
    /// JSON inside protobuf (`RawExtension`, `JSON`, `FieldsV1`), and the unions of JSONSchemaProps.
    fn any(self, value: &Value) -> Result<(), serde_json::Error> {
        if value.is_null() {
            return Ok(());
        }
        let Self { set, of, number, out, wrapped: _ } = self;
        let definition = set.node(of).name.as_deref().unwrap_or_default();
        let (package, name) = definition.rsplit_once('.').unwrap_or_default();
        if !name.starts_with("JSONSchemaPropsOr") {
            let json = serde_json::to_vec(value)?;
            return put_nested(out, number, |out| {
                put_bytes(out, 1, &json);
                Ok(())
            });
        }
        let props = set.find(&format!("{package}.JSONSchemaProps"));
        let props = props.ok_or_else(|| serde_json::Error::custom("JSONSchemaProps has no type"))?;
        let schema = |number, schema: &Value, out: &mut Vec<u8>| {
            put_nested(out, number, |out| Message { set, of: props, out }.deserialize(schema))
        };
        put_nested(out, number, |out| match (name, value) {
            ("JSONSchemaPropsOrBool", value) => {
                put_tag(out, 1, Kind::Varint);
                put_varint(out, u64::from(*value != Value::Bool(false)));
                if value.is_object() { schema(2, value, out) } else { Ok(()) }
            }
            (_, Value::Array(items)) => items.iter().try_for_each(|item| match item {
                Value::String(text) => {
                    put_bytes(out, 2, text.as_bytes());
                    Ok(())
                }
                item => schema(2, item, out),
            }),
            (_, value) => schema(1, value, out),
        })
    }
}
