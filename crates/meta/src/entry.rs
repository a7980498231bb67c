//! One stored version of an object: immutable encoded bytes and the header extracted from them.

use std::{fmt, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use crate::{Header, Object, Value};

/// The store's one counter: contiguous, in commit order, shared by every kind. 0 means "before the
/// first write". `metadata.resourceVersion` is its decimal form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The members that say what type an object has, in the order in which they are written.
const TYPE: [&str; 2] = ["kind", "apiVersion"];

/// One stored version of one object. Cheap to share; never changed.
#[derive(Debug)]
pub struct Entry {
    /// The extracted header.
    pub header: Header,
    /// The revision that wrote this version.
    pub revision: Revision,
    /// The object as JSON, `metadata.resourceVersion` included.
    pub bytes: Bytes,
    /// Where in `bytes` the member `"resourceVersion":"N",` begins.
    splice: usize,
}

impl Entry {
    /// Encodes `object` for the store: JSON without `metadata.resourceVersion`, behind four bytes
    /// (little endian) that say where in it the revision is spliced in. [`Entry::commit`] is its inverse.
    /// Kind and API version come first, as in what upstream sends: see [`Entry::untyped`].
    /// Refuses an object with no `metadata` map or an empty one.
    pub fn encode(object: &Object) -> Result<Bytes, NotAnObject> {
        let metadata = object.0.get("metadata").and_then(Value::as_object).ok_or(NotAnObject::Metadata)?;
        let mut out = BytesMut::with_capacity(1024);
        out.put_u32_le(0);
        let mut splice = 0;
        let mut separator = b'{';
        let first = TYPE.iter().filter_map(|key| object.0.get_key_value(*key));
        let rest = object.0.iter().filter(|(key, _)| !TYPE.contains(&key.as_str()));
        for (key, value) in first.chain(rest) {
            out.put_u8(separator);
            separator = b',';
            write_json(&mut out, key)?;
            out.put_u8(b':');
            if key == "metadata" {
                splice = out.len() - 4 + 1;
                let mut inner = b'{';
                for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                    out.put_u8(inner);
                    inner = b',';
                    write_json(&mut out, key)?;
                    out.put_u8(b':');
                    write_json(&mut out, value)?;
                }
                if inner == b'{' {
                    return Err(NotAnObject::Metadata);
                }
                out.put_u8(b'}');
            } else {
                write_json(&mut out, value)?;
            }
        }
        out.put_u8(b'}');
        let at = u32::try_from(splice).map_err(|_| NotAnObject::Splice)?;
        if let Some(head) = out.get_mut(..4) {
            head.copy_from_slice(&at.to_le_bytes());
        }
        Ok(out.freeze())
    }

    /// The entry that a commit at `revision` of the stored form `stored` made.
    pub fn commit(stored: &[u8], header: Header, revision: Revision) -> Result<Arc<Self>, NotAnObject> {
        let (splice, json) = Self::stored(stored)?;
        let (before, after) = json.split_at_checked(splice).ok_or(NotAnObject::Splice)?;
        Ok(Arc::new(Self { header, revision, bytes: member(before, revision, after), splice }))
    }

    /// Where the revision goes in a stored value, and its JSON.
    pub fn stored(stored: &[u8]) -> Result<(usize, &[u8]), NotAnObject> {
        let (head, json) = stored.split_first_chunk::<4>().ok_or(NotAnObject::Splice)?;
        let at = usize::try_from(u32::from_le_bytes(*head)).map_err(|_| NotAnObject::Splice)?;
        let before = json.get(..at).ok_or(NotAnObject::Splice)?;
        if before.ends_with(b"\"metadata\":{") { Ok((at, json)) } else { Err(NotAnObject::Splice) }
    }

    /// The same object as it reads at another revision: what a deletion at `revision` removed.
    pub fn at(&self, revision: Revision) -> Arc<Self> {
        let (before, rest) = self.bytes.split_at_checked(self.splice).unwrap_or((&self.bytes, &[]));
        let own = format!("\"resourceVersion\":\"{}\",", self.revision).len();
        let after = rest.get(own..).unwrap_or_default();
        let bytes = member(before, revision, after);
        Arc::new(Self { header: self.header.clone(), revision, bytes, splice: self.splice })
    }

    /// The members of the object behind `head`, which is what an object of its type begins with ([`type_head`]); `None`
    /// where it begins in another way, as objects of earlier releases do.
    pub fn untyped(&self, head: &[u8]) -> Option<&[u8]> {
        self.bytes.strip_prefix(head)
    }

    /// The object, parsed anew.
    pub fn object(&self) -> Result<Object, NotAnObject> {
        serde_json::from_slice::<Value>(&self.bytes)
            .map_err(NotAnObject::Json)
            .and_then(|value| Object::from_value(value).map_err(|_| NotAnObject::Metadata))
    }
}

/// What [`Entry::encode`] begins an object of a type with, up to its next member.
pub fn type_head(kind: &str, api_version: &str) -> String {
    format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(kind), Value::from(api_version))
}

fn member(before: &[u8], revision: Revision, after: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(before.len() + after.len() + 44);
    out.put_slice(before);
    out.put_slice(format!("\"resourceVersion\":\"{revision}\",").as_bytes());
    out.put_slice(after);
    out.freeze()
}

fn write_json(out: &mut BytesMut, value: &(impl Serialize + ?Sized)) -> Result<(), NotAnObject> {
    serde_json::to_writer(out.writer(), value).map_err(NotAnObject::Json)
}

/// Bytes or a tree that are not a storable object.
#[derive(Debug, thiserror::Error)]
pub enum NotAnObject {
    /// `metadata` is missing, empty or not a map.
    #[error("object has no metadata")]
    Metadata,
    /// The stored form is damaged.
    #[error("stored value does not say where its revision goes")]
    Splice,
    /// The bytes are not JSON.
    #[error("object is not valid json")]
    Json(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revision_is_spliced_into_metadata_and_never_stored() {
        let object = Object::from_value(serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"metadata": "{"},
            "metadata": {"name": "a\"b", "resourceVersion": "7"}
        }))
        .unwrap();
        let stored = Entry::encode(&object).unwrap();
        let entry = Entry::commit(&stored, Header::default(), Revision(42)).unwrap();
        let back = entry.object().unwrap();
        assert_eq!(back.str(&["metadata", "resourceVersion"]), Some("42"));
        assert_eq!(back.name(), "a\"b");
        assert!(!String::from_utf8_lossy(&stored).contains("resourceVersion"));
        let rest = entry.untyped(type_head("ConfigMap", "v1").as_bytes()).unwrap();
        assert!(rest.starts_with(b"\"data\":{"), "{:?}", entry.bytes);
        assert_eq!(entry.untyped(type_head("Secret", "v1").as_bytes()), None);
        assert_eq!(entry.at(Revision(7)).object().unwrap().str(&["metadata", "resourceVersion"]), Some("7"));
        assert!(Entry::stored(b"\0\0").is_err());
        assert!(Entry::stored(b"\x01\0\0\0{}").is_err());
    }
}
