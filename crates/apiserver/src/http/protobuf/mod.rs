//! Protobuf bodies and answers of built-in kinds, as client-go's typed clients send and read them: `k8s\0`, a
//! `runtime.Unknown` envelope, and a message. Both directions follow the field numbers of the schemas; there
//! is no code per type, and no descriptor beside the table that everything else uses.
//!
//! Guarantees: the tree is what the same object sent as JSON gives; unknown fields are dropped, as protobuf
//! means it; depth and size are bounded. Written by hand because prost, the crate for protobuf, makes types
//! at build time and knows neither upstream's inlined structs nor JSON inside messages.

mod read;
mod wire;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use meta::{GroupVersion, Status, Value};
use resource::Resource;
use schema::{Schema, Shape, TypeId, TypeSet};
use serde::de::DeserializeSeed as _;
use serde_json::json;

use self::{
    read::Reader,
    wire::{Fields, Kind, Wire, put_bytes, put_nested, put_tag, put_varint, utf8},
    write::Message,
};
use super::negotiate::{self, Form};
use crate::{Registry, cache::Happened};

/// What a protobuf body begins with (`runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";
/// Fields 3 and 4 of the envelope, the encoding and type of what is inside: empty, as upstream writes them.
const TAIL: &[u8] = &[3 << 3 | 2, 0, 4 << 3 | 2, 0];
/// Package of the types that all kinds share.
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

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
        definition(self.api_version, self.kind)
    }
}

/// The name of the type of a kind that is built in.
fn definition(api_version: &str, kind: &str) -> String {
    let version = GroupVersion::parse(api_version).unwrap_or_else(|| GroupVersion::new("", "v1"));
    match (&*version.group, kind) {
        ("", "Status" | "APIVersions" | "APIGroupList" | "APIGroup" | "APIResourceList")
        | (_, "DeleteOptions")
        | ("meta.k8s.io", _) => format!("{META}.{kind}"),
        ("apiextensions.k8s.io", _) => {
            format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{}.{kind}", version.version)
        }
        _ => crate::openapi::builtin_name(&version.group, &version.version, kind),
    }
}

/// Whether objects of this type can be written as protobuf.
pub(super) fn has_form(schema: &Schema) -> bool {
    match &schema.node().shape {
        Shape::Struct { properties, .. } => properties.values().any(|property| property.protobuf != 0),
        _ => false,
    }
}

/// An object in its envelope.
fn enveloped(
    api_version: &str,
    kind: &str,
    message: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
) -> serde_json::Result<Vec<u8>> {
    let mut out = opened(api_version, kind);
    put_nested(&mut out, 2, message)?;
    out.extend_from_slice(TAIL);
    Ok(out)
}

/// An envelope up to where its content begins.
fn opened(api_version: &str, kind: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(MAGIC);
    let _: Result<()> = put_nested(&mut out, 1, |out| {
        put_bytes(out, 1, api_version.as_bytes());
        put_bytes(out, 2, kind.as_bytes());
        Ok(())
    });
    out
}

/// A tree that names its built-in kind; 406 when that kind has no protobuf form.
pub(super) fn value(registry: &Registry, value: &Value) -> std::result::Result<Vec<u8>, Status> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    let found = registry.builtin_type(&definition(api_version, kind));
    let (set, of) = found.ok_or_else(|| negotiate::not_acceptable(negotiate::Binary::Nothing))?;
    enveloped(api_version, kind, |out| Message { set: &set, of, out }.deserialize(value))
        .map_err(|error| unwritable(kind, &error))
}

fn unwritable(kind: &str, error: &serde_json::Error) -> Status {
    Status::internal(format!("{kind} as protobuf: {error}; ask for application/json"))
}

/// Writes the objects of one kind in the form a client wants.
pub(super) struct Writer {
    set: Arc<TypeSet>,
    of: TypeId,
    list: TypeId,
    api_version: String,
    kind: Arc<str>,
    list_kind: Arc<str>,
}

impl Writer {
    /// Of whole objects or of their metadata; 406 when they have no protobuf form.
    pub(super) fn new(
        form: Form,
        resource: &Resource,
        registry: &Registry,
    ) -> std::result::Result<Self, Status> {
        let refused = || negotiate::not_acceptable(negotiate::Binary::Nothing);
        let (set, partial) =
            registry.builtin_type(&format!("{META}.PartialObjectMetadata")).ok_or_else(refused)?;
        let list = set.find(&format!("{META}.ListMeta")).ok_or_else(refused)?;
        match form {
            Form::Whole if !resource.custom && has_form(&resource.schema) => Ok(Self {
                set: resource.schema.set().clone(),
                of: resource.schema.root(),
                list: resource.schema.set().find(&format!("{META}.ListMeta")).unwrap_or(list),
                api_version: resource.api_version(),
                kind: resource.kind.clone(),
                list_kind: resource.list_kind.clone(),
            }),
            Form::Partial => Ok(Self {
                set,
                of: partial,
                list,
                api_version: "meta.k8s.io/v1".to_owned(),
                kind: "PartialObjectMetadata".into(),
                list_kind: "PartialObjectMetadataList".into(),
            }),
            Form::Whole | Form::Table => Err(refused()),
        }
    }

    fn message(&self, json: &[u8], out: &mut Vec<u8>) -> serde_json::Result<()> {
        let mut json = serde_json::Deserializer::from_slice(json);
        Message { set: &self.set, of: self.of, out }.deserialize(&mut json)
    }

    /// One stored object in its envelope.
    pub(super) fn object(&self, json: &[u8]) -> std::result::Result<Vec<u8>, Status> {
        enveloped(&self.api_version, &self.kind, |out| self.message(json, out))
            .map_err(|error| unwritable(&self.kind, &error))
    }

    /// One stored object as an item of a list.
    pub(super) fn item(&self, json: &[u8]) -> std::result::Result<Vec<u8>, Status> {
        let mut out = Vec::with_capacity(json.len());
        put_nested(&mut out, 2, |out| self.message(json, out))
            .map_err(|error| unwritable(&self.kind, &error))?;
        Ok(out)
    }

    /// What comes before and after the items of a list, whose bytes sum up to `items`.
    pub(super) fn list(
        &self,
        metadata: &Value,
        items: usize,
    ) -> std::result::Result<(Vec<u8>, &'static [u8]), Status> {
        let mut own = Vec::new();
        put_nested(&mut own, 1, |out| Message { set: &self.set, of: self.list, out }.deserialize(metadata))
            .map_err(|error| unwritable(&self.list_kind, &error))?;
        let mut head = opened(&self.api_version, &self.list_kind);
        put_tag(&mut head, 2, Kind::Bytes);
        put_varint(&mut head, (own.len() + items) as u64);
        head.extend_from_slice(&own);
        Ok((head, TAIL))
    }

    /// One event of a watch: its length in four bytes, then a `WatchEvent`.
    pub(super) fn event(&self, happened: Happened, json: &[u8]) -> std::result::Result<Vec<u8>, Status> {
        Ok(frame(happened.wire(), &self.object(json)?))
    }
}

/// Reads a message, writes it and reads it again; `None` when it cannot be read. Panics when it does not come back.
#[cfg(any(test, feature = "decoders"))]
pub(super) fn round_trip(set: &TypeSet, of: TypeId, bytes: &[u8]) -> Option<Value> {
    let value = Reader { set }.message(of, bytes, 0).ok()?;
    let mut written = Vec::new();
    let done = Message { set, of, out: &mut written }.deserialize(&value);
    assert!(done.is_ok(), "{value} cannot be written: {done:?}");
    assert_eq!(Reader { set }.message(of, &written, 0).as_ref(), Ok(&value), "protobuf does not come back");
    Some(value)
}

/// The event that ends a watch with an error.
pub(super) fn error_event(registry: &Registry, status: &Status) -> std::result::Result<Vec<u8>, Status> {
    Ok(frame("ERROR", &value(registry, &status.to_json())?))
}

fn frame(of: &str, object: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 4];
    put_bytes(&mut out, 1, of.as_bytes());
    let _: Result<()> = put_nested(&mut out, 2, |out| {
        put_bytes(out, 1, object);
        Ok(())
    });
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    if let Some(head) = out.first_chunk_mut() {
        *head = length.to_be_bytes();
    }
    out
}
