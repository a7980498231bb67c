//! The real clock and real chance.

use std::sync::{Mutex, PoisonError};

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

/// The operating system's generator, asked for many numbers at a time: every request needs two, and a call
/// of the kernel costs more than the rest of an audit id.
#[derive(Debug)]
pub(crate) struct Dice {
    system: SystemRandom,
    ahead: Mutex<Vec<u64>>,
}

/// Numbers fetched at once: a page less the vector's own words.
const AHEAD: usize = 500;

impl Dice {
    pub(crate) fn new() -> Self {
        Self { system: SystemRandom::new(), ahead: Mutex::default() }
    }

    fn fetch(&self) -> impl Iterator<Item = u64> {
        let mut bytes = [[0; 8]; AHEAD];
        if self.system.fill(bytes.as_flattened_mut()).is_err() {
            // The kernel's generator cannot fail once it is seeded; ring has no fallback either.
            std::process::abort();
        }
        bytes.into_iter().map(u64::from_ne_bytes)
    }
}

impl Random for Dice {
    fn next(&self) -> u64 {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match ahead.pop() {
                Some(number) => return number,
                None => ahead.extend(self.fetch()),
            }
        }
    }
}
