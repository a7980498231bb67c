//! Tables: the columns of `kubectl get`, computed by the server.

use meta::{Entry, Object, Status, Timestamp, Value};
use resource::{Column, ColumnType, Resource};
use serde_json::json;

use crate::http::partial;

/// `includeObject`: what of the object each row carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Include {
    None,
    #[default]
    Metadata,
    Object,
}

impl Include {
    /// Reads the parameter.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, Status> {
        match text {
            None | Some("Metadata") => Ok(Self::Metadata),
            Some("None") => Ok(Self::None),
            Some("Object") => Ok(Self::Object),
            Some(other) => Err(Status::bad_request(format!(
                "invalid includeObject value {other:?}: must be None, Metadata or Object"
            ))),
        }
    }
}

/// A Table of one object.
pub(crate) fn of_one(
    resource: &Resource,
    entry: &Entry,
    include: Include,
    now: Timestamp,
) -> Result<Value, Status> {
    let list = json!({ "resourceVersion": entry.revision.to_string() });
    Ok(whole(Some(definitions(resource)), list, vec![row(resource, entry, include, now)?]))
}

/// A Table from its parts; without definitions where the client has them already (later watch events).
pub(crate) fn whole(definitions: Option<Value>, list_metadata: Value, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": definitions, "rows": rows,
    })
}

/// Whether `Name` is put before the kind's own columns.
fn adds_name(resource: &Resource) -> bool {
    !resource.columns.iter().any(|column| column.name == "Name")
}

/// `columnDefinitions`.
pub(crate) fn definitions(resource: &Resource) -> Value {
    let mut all = Vec::with_capacity(resource.columns.len() + 2);
    if adds_name(resource) {
        all.push(json!({
            "name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace.",
        }));
    }
    all.extend(resource.columns.iter().map(|column| {
        let Column { name, of, format, description, priority, cell: _ } = column;
        let of = match of {
            ColumnType::String => "string",
            ColumnType::Integer => "integer",
            ColumnType::Number => "number",
            ColumnType::Boolean => "boolean",
            ColumnType::Date => "date",
        };
        json!({ "name": name, "type": of, "format": format, "description": description, "priority": priority })
    }));
    if resource.columns.is_empty() {
        all.push(json!({
            "name": "Created At", "type": "date", "format": "", "priority": 0,
            "description": "When the object was created.",
        }));
    }
    Value::Array(all)
}

/// One row.
pub(crate) fn row(
    resource: &Resource,
    entry: &Entry,
    include: Include,
    now: Timestamp,
) -> Result<Value, Status> {
    let object = entry.object().map_err(Status::internal)?;
    let mut cells = Vec::with_capacity(resource.columns.len() + 2);
    if adds_name(resource) {
        cells.push(json!(object.name()));
    }
    cells.extend(resource.columns.iter().map(|column| (column.cell)(&object, now)));
    if resource.columns.is_empty() {
        cells.push(json!(object.str(&["metadata", "creationTimestamp"])));
    }
    let mut row = json!({ "cells": cells });
    let included = match include {
        Include::None => None,
        Include::Metadata => Some(partial(entry)?),
        Include::Object => Some(Object::into_value(object)),
    };
    if let (Some(included), Some(map)) = (included, row.as_object_mut()) {
        map.insert("object".to_owned(), included);
    }
    Ok(row)
}
