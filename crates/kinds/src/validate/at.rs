//! A place in an object that is being validated: its path as upstream prints it, and what is there.

use meta::{FieldError, FieldErrorKind, Object, Value};
use serde_json::json;

/// What a validation collects.
pub(crate) type Errors = Vec<FieldError>;

/// A value and where it is. Absent values have places too, so that they can be required.
#[derive(Clone, Debug)]
pub(crate) struct At<'a> {
    path: String,
    value: &'a Value,
}

const NULL: &Value = &Value::Null;

impl<'a> At<'a> {
    /// A field of the object itself.
    pub(crate) fn root(object: &'a Object, name: &str) -> Self {
        Self { path: name.to_owned(), value: object.0.get(name).unwrap_or(NULL) }
    }

    /// Any value under any path.
    pub(crate) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    /// A field: `path.name`.
    pub(crate) fn get(&self, name: &str) -> Self {
        Self { path: format!("{}.{name}", self.path), value: self.value.get(name).unwrap_or(NULL) }
    }

    /// An entry of a map, there or not: `path[key]`.
    pub(crate) fn key(&self, key: &str) -> Self {
        Self { path: format!("{}[{key}]", self.path), value: self.value.get(key).unwrap_or(NULL) }
    }

    /// A field below a field.
    pub(crate) fn at(&self, names: &[&str]) -> Self {
        names.iter().fold(self.clone(), |at, name| at.get(name))
    }

    /// The items of a list: `path[0]`.
    pub(crate) fn items(&self) -> impl Iterator<Item = At<'a>> + use<'_, 'a> {
        let list = self.value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().enumerate().map(|(i, value)| Self { path: format!("{}[{i}]", self.path), value })
    }

    /// The entries of a map: `path[key]`.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'a str, At<'a>)> + use<'_, 'a> {
        let entries = self.value.as_object().into_iter().flatten();
        entries.map(|(key, value)| (key.as_str(), Self { path: format!("{}[{key}]", self.path), value }))
    }

    /// The same value under another path, where upstream reports it elsewhere.
    pub(crate) fn named(&self, path: &str) -> Self {
        Self { path: path.to_owned(), value: self.value }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn value(&self) -> &'a Value {
        self.value
    }

    /// Whether anything but null is there.
    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    /// Whether nothing is there, or something of no length.
    pub(crate) fn is_empty(&self) -> bool {
        match self.value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) => false,
        }
    }

    /// The text there, or empty.
    pub(crate) fn text(&self) -> &'a str {
        self.value.as_str().unwrap_or_default()
    }

    /// The whole number there.
    pub(crate) fn int(&self) -> Option<i64> {
        self.value.as_i64()
    }

    /// True only when true is there.
    pub(crate) fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or(false)
    }

    /// Number of items or entries.
    pub(crate) fn len(&self) -> usize {
        match self.value {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    pub(crate) fn required(&self, errors: &mut Errors, detail: &str) {
        // The schema says it too where the field is not even there.
        let error = FieldError::required(&self.path, detail);
        if !errors.contains(&error) {
            errors.push(error);
        }
    }

    pub(crate) fn invalid(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path, self.value, detail));
    }

    /// The error is about a part of what is here.
    pub(crate) fn invalid_as(&self, errors: &mut Errors, value: &Value, detail: impl Into<String>) {
        errors.push(FieldError::invalid(&self.path, value, detail));
    }

    pub(crate) fn forbidden(&self, errors: &mut Errors, detail: impl Into<String>) {
        errors.push(FieldError::forbidden(&self.path, detail));
    }

    pub(crate) fn duplicate(&self, errors: &mut Errors) {
        errors.push(FieldError::duplicate(&self.path, self.value));
    }

    /// The error is about a part of what is here.
    pub(crate) fn duplicate_as(&self, errors: &mut Errors, value: &Value) {
        errors.push(FieldError::duplicate(&self.path, value));
    }

    pub(crate) fn not_found(&self, errors: &mut Errors) {
        errors.push(FieldError::valued(FieldErrorKind::NotFound, &self.path, self.value, ""));
    }

    pub(crate) fn not_supported(&self, errors: &mut Errors, supported: &[&str]) {
        errors.push(FieldError::not_supported(&self.path, self.value, supported));
    }

    /// One error for each message of a check of the text there.
    pub(crate) fn all(&self, errors: &mut Errors, check: impl Fn(&str) -> Vec<String>) {
        for message in check(self.text()) {
            self.invalid(errors, message);
        }
    }

    /// As [`At::all`], and required.
    pub(crate) fn must(&self, errors: &mut Errors, check: impl Fn(&str) -> Vec<String>) {
        if self.is_empty() { self.required(errors, "") } else { self.all(errors, check) }
    }

    /// A number, if there, is not below zero.
    pub(crate) fn not_negative(&self, errors: &mut Errors) {
        if self.int().is_some_and(|n| n < 0) {
            self.invalid(errors, "must be greater than or equal to 0");
        }
    }

    /// A number, if there, is in a range.
    pub(crate) fn within(&self, errors: &mut Errors, low: i64, high: i64) {
        if self.int().is_some_and(|n| n < low || n > high) {
            self.invalid(errors, format!("must be between {low} and {high}, inclusive"));
        }
    }

    /// The text is one of these.
    pub(crate) fn one_of(&self, errors: &mut Errors, supported: &[&str]) {
        if !supported.contains(&self.text()) {
            let value = json!(self.text());
            errors.push(FieldError::not_supported(&self.path, &value, supported));
        }
    }

    /// The value is what it was.
    pub(crate) fn immutable(&self, errors: &mut Errors, old: &At<'_>) {
        if self.value != old.value {
            self.invalid(errors, "field is immutable");
        }
    }
}
