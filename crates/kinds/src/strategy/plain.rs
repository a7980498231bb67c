//! Kinds whose behaviour is only flags and one validation: said as data.

use std::time::Duration;

use meta::Object;
use resource::{Context, Strategy};

use crate::validate::Errors;

/// A check of a new object against the old one, if there is one.
type Check = fn(new: &Object, old: Option<&Object>, errors: &mut Errors);

/// What a simple kind does differently from others.
#[derive(Clone, Copy)]
pub(crate) struct Rules {
    creates_on_update: bool,
    unconditional: bool,
    generation: bool,
    time_to_live: Option<Duration>,
    check: Check,
}

impl Rules {
    /// Like most: named by a subdomain, nothing else.
    pub(crate) const fn new() -> Self {
        Self {
            creates_on_update: false,
            unconditional: true,
            generation: false,
            time_to_live: None,
            check: |_, _, _| {},
        }
    }

    /// PUT on a missing name creates it.
    pub(crate) const fn creates_on_update(mut self) -> Self {
        self.creates_on_update = true;
        self
    }

    /// An update names the resourceVersion it is based on.
    pub(crate) const fn conditional(mut self) -> Self {
        self.unconditional = false;
        self
    }

    /// `metadata.generation` counts changes.
    pub(crate) const fn generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// Objects go so long after their last write.
    pub(crate) const fn expires_after(mut self, time: Duration) -> Self {
        self.time_to_live = Some(time);
        self
    }

    /// Objects are checked by this.
    pub(crate) const fn checked(mut self, check: Check) -> Self {
        self.check = check;
        self
    }
}

impl Strategy for Rules {
    fn validate(&self, _: &Context<'_>, new: &Object, old: Option<&Object>, errors: &mut Errors) {
        (self.check)(new, old, errors);
    }

    fn creates_on_update(&self) -> bool {
        self.creates_on_update
    }

    fn allows_unconditional_update(&self) -> bool {
        self.unconditional
    }

    fn has_generation(&self) -> bool {
        self.generation
    }

    fn time_to_live(&self) -> Option<Duration> {
        self.time_to_live
    }

    fn validate_name(&self, name: &str) -> Result<(), String> {
        super::subdomain(name)
    }
}
