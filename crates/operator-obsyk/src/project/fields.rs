//! The two rules by which a field is there: always, or unless it is empty. And the shapes that several
//! kinds share.

use std::collections::BTreeMap;

use bytes::Bytes;
use meta::{Quantity, QuantityForm};
use serde_json::{Map, Value};

/// Structs that decode the named fields and nothing else; every field may be absent or null.
macro_rules! lite {
    ($($(#[$doc:meta])* $name:ident { $($(#[$attribute:meta])* $field:ident: $type:ty),* $(,)? })*) => {$(
        $(#[$doc])*
        #[derive(Default, serde::Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        pub(crate) struct $name { $($(#[$attribute])* pub(super) $field: Option<$type>),* }
    )*};
}
pub(crate) use lite;

/// An object as the platform gets it, field by field.
#[derive(Default)]
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    /// A field that is there whatever its value (`R` in the contract).
    pub(crate) fn always(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// A field that is absent when it is an empty text, list or map, or not set (`O` in the contract).
    pub(crate) fn unless_empty(mut self, name: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        };
        if !empty {
            self.0.insert(name.to_owned(), value);
        }
        self
    }

    pub(crate) fn into_json(self) -> Bytes {
        Bytes::from(Value::Object(self.0).to_string())
    }
}

impl From<Fields> for Value {
    fn from(fields: Fields) -> Self {
        Self::Object(fields.0)
    }
}

/// A map of texts; none is empty.
pub(crate) fn texts(map: Option<BTreeMap<String, String>>) -> Value {
    Value::Object(map.into_iter().flatten().map(|(key, value)| (key, Value::String(value))).collect())
}

/// A set in a stable order.
pub(crate) fn sorted(items: impl IntoIterator<Item = String>) -> Value {
    let set: std::collections::BTreeSet<String> = items.into_iter().collect();
    set.into_iter().collect()
}

/// A quantity in its canonical form, as Go prints it. What is no quantity is sent as it is.
pub(crate) fn amount(value: Option<&Value>) -> Option<String> {
    let text = match value? {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => return None,
    };
    let canonical = text.parse::<Quantity>().map(|quantity| quantity.canonical(QuantityForm::of(&text)));
    Some(canonical.unwrap_or(text))
}
