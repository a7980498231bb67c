//! The values every other crate speaks in: the object envelope, keys, the wire error, time.
//!
//! Guarantees: no I/O, no clock, no randomness of its own. Deliberately unaware of any kind, of
//! schemas, and of HTTP.

mod cidr;
mod clock;
mod condition;
mod duration;
mod entry;
mod field_selector;
mod header;
mod key;
mod labels;
pub mod metrics;
pub mod names;
mod object;
mod quantity;
mod selector;
mod status;

pub use cidr::{Ipv4Cidr, NotACidr};
pub use clock::{Clock, Fixed, Random, Seeded, Timestamp, format_micro, format_second, human_duration};
pub use condition::{Condition, ConditionStatus, find_condition, is_condition_true};
pub use duration::parse_duration;
pub use entry::{Entry, NotAnObject, Revision, type_head};
pub use field_selector::{FieldRequirement, FieldSelector, FieldSelectorError};
pub use header::{Header, OwnerRef};
pub use key::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, ObjectKey};
pub use labels::Labels;
pub use object::{Object, Value};
pub use quantity::{Quantity, QuantityError, QuantityForm};
pub use selector::{LabelSelector, Operator, Requirement, SelectorError};
pub use status::{Cause, Details, FieldError, FieldErrorKind, Reason, Status};
