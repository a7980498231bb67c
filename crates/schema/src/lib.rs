//! Pure functions on a value and its schema. No I/O, no clock, no kind known by name.

pub mod cel;
pub mod decode;
pub mod default;
pub mod managed;
pub mod openapi;
pub mod patch;
mod path;
pub mod prune;
#[cfg(test)]
mod testing;
mod types;
pub mod validate;

pub use types::{
    Constraints, Format, ListType, MapType, Node, PatchStrategy, Property, Rule, Schema, Shape, TypeId,
    TypeSet,
};
