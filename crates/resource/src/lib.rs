//! The contract of a kind: what the one engine (`apiserver`) needs to serve it, and what a table of
//! kinds (`kinds`, CRDs) provides. A kind is a value; built-ins and CRDs are the same type.
//!
//! Deliberately without any kind, any HTTP and any storage; [`flow_control`] are the objects that both sides
//! have to mean alike.

mod admission;
pub mod flow_control;
mod strategy;
mod table;

pub use admission::{Admission, Attributes, Notes, Operation, User, View};
pub use strategy::{Claim, ClaimFault, Context, Holder, Plain, Strategy};
pub use table::{
    Act, Acted, Cell, Column, ColumnType, Convert, ConvertAll, Resource, Scale, Scope, Selectable,
    Subresource, Verb,
};
