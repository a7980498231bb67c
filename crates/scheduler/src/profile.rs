//! Which plugins decide, with which weights.

use crate::plugins::{FILTERS, Filter, SCORES, Score};

/// The plugins of one scheduler, and the seed that settles ties.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Filters, in the order in which they are asked.
    pub filters: Vec<Filter>,
    /// Scores, with their weights.
    pub scores: Vec<Score>,
    /// Changes which of equally good nodes is taken.
    pub seed: u64,
}

impl Profile {
    /// Upstream's default plugins and weights.
    pub fn new(seed: u64) -> Self {
        Self { filters: FILTERS.to_vec(), scores: SCORES.to_vec(), seed }
    }
}
