//! `additionalPrinterColumns` as columns of the table.

use std::sync::Arc;

use meta::{Timestamp, Value};
use resource::{Column, ColumnType};
use serde_json::json;

use super::jsonpath::JsonPath;

/// The columns of a version; upstream's `Age` when it defines none.
pub(super) fn columns(version: &Value) -> Vec<Column> {
    let given = version.get("additionalPrinterColumns").and_then(Value::as_array);
    match given.filter(|columns| !columns.is_empty()) {
        Some(columns) => columns.iter().filter_map(column).collect(),
        None => {
            let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
            column(&age).into_iter().collect()
        }
    }
}

fn column(value: &Value) -> Option<Column> {
    let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let path = JsonPath::parse(&text("jsonPath")).ok()?;
    let of = match text("type").as_str() {
        "integer" => ColumnType::Integer,
        "number" => ColumnType::Number,
        "boolean" => ColumnType::Boolean,
        "date" => ColumnType::Date,
        _ => ColumnType::String,
    };
    let priority = value.get("priority").and_then(Value::as_i64).and_then(|p| i32::try_from(p).ok());
    Some(Column {
        name: text("name").into(),
        of,
        format: text("format").into(),
        description: text("description").into(),
        priority: priority.unwrap_or_default(),
        cell: Arc::new(move |object, now| {
            path.first(object).map_or(Value::Null, |found| cell(of, found, now))
        }),
    })
}

/// Upstream `cellForJSONValue`: what does not have the column's type shows as nothing.
fn cell(of: ColumnType, found: &Value, now: Timestamp) -> Value {
    match (of, found) {
        (ColumnType::Integer, Value::Number(n)) => {
            #[allow(clippy::cast_possible_truncation, reason = "upstream truncates too")]
            let whole = n.as_i64().or_else(|| n.as_f64().map(|f| f as i64));
            json!(whole)
        }
        (ColumnType::Number, Value::Number(_)) | (ColumnType::Boolean, Value::Bool(_)) => found.clone(),
        (ColumnType::String, Value::String(_)) => found.clone(),
        (ColumnType::String, Value::Null) => Value::Null,
        (ColumnType::String, other) => json!(other.to_string()),
        (ColumnType::Date, Value::String(text)) => match text.parse::<Timestamp>() {
            Ok(at) => json!(meta::human_duration(now.as_second().saturating_sub(at.as_second()))),
            Err(_) => json!("<invalid>"),
        },
        _ => Value::Null,
    }
}
