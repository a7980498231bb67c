//! The real clock and real chance.

use meta::{Clock, Random, Timestamp};
use ring::rand::{SecureRandom, SystemRandom};

/// The machine's clock.
#[derive(Debug)]
pub(crate) struct System;

impl Clock for System {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The operating system's generator.
#[derive(Debug)]
pub(crate) struct Dice(SystemRandom);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(SystemRandom::new())
    }
}

impl Random for Dice {
    fn next(&self) -> u64 {
        let mut bytes = [0; 8];
        match self.0.fill(&mut bytes) {
            Ok(()) => u64::from_ne_bytes(bytes),
            // The kernel's generator cannot fail once it is seeded; ring has no fallback either.
            Err(_) => std::process::abort(),
        }
    }
}
