//! The values every other crate speaks in: the object envelope, keys, the wire error, time.
//!
//! Guarantees: no I/O, no clock, no randomness of its own. Deliberately unaware of any kind, of
//! schemas, and of HTTP.

mod clock;
mod entry;
mod key;
mod object;
mod quantity;
mod status;

pub use clock::{Clock, Fixed, Random, Seeded, Timestamp, format_micro, format_second};
pub use entry::{Entry, Header, NotAnObject, OwnerRef, Revision};
pub use key::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, ObjectKey};
pub use object::{Object, Value};
pub use quantity::{Quantity, QuantityError};
pub use status::{Cause, Details, FieldError, FieldErrorKind, Reason, Status};
