//! OpenAPI: reading the schema of a CRD or a published document, publishing any schema as OpenAPI v3 or Swagger 2. Knows no path and
//! no operation: those are the server's.

mod crd;
mod document;
mod metadata;
mod publish;
mod structural;

#[cfg(test)]
mod tests;

pub use crd::from_crd;
pub use document::from_document;
pub use metadata::object_meta;
pub use publish::{to_v2, to_v3};

/// Looks up a text for readers by definition name and field; the empty field is the type itself.
pub type Describe<'a> = &'a dyn Fn(&str, &str) -> Option<String>;
