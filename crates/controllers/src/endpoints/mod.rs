//! Endpoints of Services: EndpointSlices for everybody, Endpoints for those who still read them.
//!
//! Both look at the Services with a selector and the pods it selects. Objects that somebody else made
//! (the API server's own for `kubernetes`, a user's for a Service without selector) are not touched:
//! only those with our managed-by label are. Endpoints that a user made are mirrored as slices
//! ([`EndpointSliceMirroring`]).

mod backends;
mod legacy;
mod mirror;
mod placement;
mod slice;
#[cfg(test)]
mod tests;

pub use legacy::EndpointsController;
pub use mirror::EndpointSliceMirroring;
pub use slice::EndpointSlices;
