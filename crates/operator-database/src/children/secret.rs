//! The generated credentials. Made once and never overwritten: what is in the Secret is what clients use.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::{Names, metadata};
use crate::{types::Database, validate::Valid};

pub(crate) fn credentials(database: &Database, valid: &Valid, password: &str) -> Value {
    let host = Names::host(valid);
    let mut data: BTreeMap<String, ByteString> = valid
        .engine
        .credentials(&host)
        .into_iter()
        .map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())))
        .collect();
    data.insert(valid.password.key().key.clone(), ByteString(password.as_bytes().to_vec()));
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": metadata(database, valid, &valid.password.key().name),
        "data": data,
    })
}
