//! Pure functions on a value and its schema. No I/O, no clock, no kind known by name.

mod types;

pub use types::{
    Constraints, Format, ListType, MapType, Node, PatchStrategy, Property, Rule, Schema, Shape, TypeId,
    TypeSet,
};
