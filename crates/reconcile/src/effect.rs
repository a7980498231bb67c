//! What a plan wants done that is not a write of an object: behind a trait, so a test can see it
//! without doing it.

use std::{fmt::Debug, future::Future, pin::Pin};

use crate::Context;

/// The future an effect runs as.
pub type EffectFuture<'a> =
    Pin<Box<dyn Future<Output = Result<(), Box<dyn std::error::Error + Send + Sync>>> + Send + 'a>>;

/// One thing to do outside the API objects of a plan. Must be safe to repeat: the driver runs it again
/// whenever the plan still asks for it. `Debug` is what snapshots show, so it must not print secrets.
pub trait Effect: Debug + Send + Sync + 'static {
    /// A short name for logs and errors, such as `delete collection`.
    fn name(&self) -> &'static str;

    /// Does it.
    fn run<'a>(&'a self, cx: &'a Context) -> EffectFuture<'a>;
}
