//! What `kubectl get` shows. Headings and cells follow upstream's
//! `pkg/printers/internalversion/printers.go`; one file for each family of kinds.

use std::{borrow::Cow, sync::Arc};

use meta::{Object, Timestamp, Value};
use resource::{Column, ColumnType};

mod admission;
mod age;
mod certificates;
mod cluster;
mod devices;
mod flowcontrol;
mod metrics;
mod network;
mod parts;
mod pods;
mod storage;
mod workloads;

pub(crate) use admission::*;
pub(crate) use age::{age, since};
pub(crate) use certificates::REQUEST;
pub(crate) use cluster::*;
pub(crate) use devices::*;
pub(crate) use flowcontrol::*;
pub(crate) use metrics::METRICS;
pub(crate) use network::*;
pub(crate) use parts::{
    CONTAINERS, IMAGES, SELECTOR, containers_at, entries, joined, labels, or, selector, some_of,
};
pub(crate) use pods::{POD, POD_TEMPLATE};
pub(crate) use storage::*;
pub(crate) use workloads::*;

/// Computes a cell.
type Cell = fn(&Object, Timestamp) -> Value;

/// A column as it is written down.
#[derive(Clone, Copy)]
pub(crate) struct Col {
    name: &'static str,
    of: ColumnType,
    priority: i32,
    cell: CellOf,
}

#[derive(Clone, Copy)]
enum CellOf {
    Computed(Cell),
    /// The value at a dotted path; the second is shown when it is absent.
    Path(&'static str, Unset),
}

/// What a path column shows when there is nothing.
#[derive(Clone, Copy)]
pub(crate) enum Unset {
    Text(&'static str),
    Zero,
    False,
}

impl Col {
    /// A computed text.
    pub(crate) const fn text(name: &'static str, cell: Cell) -> Self {
        Self { name, of: ColumnType::String, priority: 0, cell: CellOf::Computed(cell) }
    }

    /// A computed number.
    pub(crate) const fn int(name: &'static str, cell: Cell) -> Self {
        Self { name, of: ColumnType::Integer, priority: 0, cell: CellOf::Computed(cell) }
    }

    /// The text at a path, or `unset`.
    pub(crate) const fn text_at(name: &'static str, path: &'static str, unset: &'static str) -> Self {
        Self { name, of: ColumnType::String, priority: 0, cell: CellOf::Path(path, Unset::Text(unset)) }
    }

    /// The number at a path, or 0.
    pub(crate) const fn int_at(name: &'static str, path: &'static str) -> Self {
        Self { name, of: ColumnType::Integer, priority: 0, cell: CellOf::Path(path, Unset::Zero) }
    }

    /// The boolean at a path, or false.
    pub(crate) const fn bool_at(name: &'static str, path: &'static str) -> Self {
        Self { name, of: ColumnType::Boolean, priority: 0, cell: CellOf::Path(path, Unset::False) }
    }

    /// The instant at a path.
    pub(crate) const fn date_at(name: &'static str, path: &'static str) -> Self {
        Self { name, of: ColumnType::Date, priority: 0, cell: CellOf::Path(path, Unset::Text("")) }
    }

    /// Shown only with `-o wide`.
    pub(crate) const fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }

    pub(crate) fn column(&self) -> Column {
        let Self { name, of, priority, cell } = *self;
        Column {
            name: Cow::Borrowed(name),
            of,
            format: Cow::Borrowed(if name == "Name" { "name" } else { "" }),
            description: Cow::Borrowed(""),
            priority,
            cell: match cell {
                CellOf::Computed(cell) => Arc::new(cell),
                CellOf::Path(path, unset) => Arc::new(move |object, _| value_at(object, path, unset)),
            },
        }
    }
}

/// Time since creation.
pub(crate) const AGE: Col = Col::text("Age", age);

fn value_at(object: &Object, path: &str, unset: Unset) -> Value {
    let path: Vec<&str> = path.split('.').collect();
    match object.get(&path) {
        None | Some(Value::Null) => match unset {
            Unset::Text(text) => text.into(),
            Unset::Zero => 0.into(),
            Unset::False => false.into(),
        },
        Some(value) => value.clone(),
    }
}

#[cfg(test)]
mod tests;
