//! How far behind the platform is: since when the oldest change waits that it does not have.
//!
//! Pure, save for the instants it is given. It is not told of each change but looks now and then at the order of the
//! oldest one, and remembers which orders were given out by when: as fine as it looks, and coarser the longer it takes.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Two marks are at least so far apart.
const APART: Duration = Duration::from_secs(1);
/// When there are more, every other one is forgotten.
const MARKS_MAX: usize = 128;

/// See the module.
#[derive(Default)]
pub(crate) struct Lag {
    /// Lower orders than the first were given out by the second.
    marks: VecDeque<(u64, Instant)>,
    /// Since when something is owed of which no order is known.
    owes: Option<Instant>,
}

impl Lag {
    /// Looks: the oldest order that waits and the next one to be given out, and whether something is owed beside.
    pub(crate) fn note(&mut self, now: Instant, (oldest, next): (Option<u64>, u64), owes: bool) {
        self.owes = owes.then(|| self.owes.unwrap_or(now));
        let Some(oldest) = oldest else { return self.marks.clear() };
        while self.marks.front().is_some_and(|(below, _)| *below <= oldest) {
            self.marks.pop_front();
        }
        let due = self.marks.back().is_none_or(|(below, at)| *below < next && now - *at >= APART);
        if !due {
            return;
        }
        self.marks.push_back((next, now));
        if self.marks.len() > MARKS_MAX {
            let mut keep = false;
            // The first stays: it is the lag.
            self.marks.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// Whole seconds.
    pub(crate) fn seconds(&self, now: Instant) -> u64 {
        let since = self.marks.front().map(|(_, at)| *at).into_iter().chain(self.owes).min();
        since.map_or(0, |since| now.saturating_duration_since(since).as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_oldest_counts() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut lag = Lag::default();
        lag.note(at(0), (None, 0), false);
        assert_eq!(lag.seconds(at(5)), 0);
        // One a second, and nothing is sent.
        for second in 0..1000 {
            lag.note(at(second), (Some(0), second + 1), false);
        }
        assert_eq!(lag.seconds(at(1000)), 1000);
        assert!(lag.marks.len() <= MARKS_MAX);
        // Half of it is: within a fifth, and never more than it is.
        lag.note(at(1000), (Some(500), 1001), false);
        let half = lag.seconds(at(1000));
        assert!((400..=500).contains(&half), "{half}");
        lag.note(at(1001), (None, 1001), true);
        assert_eq!(lag.seconds(at(1001)), 0);
        lag.note(at(1050), (Some(1001), 1002), true);
        assert_eq!(lag.seconds(at(1060)), 59);
        lag.note(at(1060), (Some(1001), 1002), false);
        assert_eq!(lag.seconds(at(1060)), 10);
        lag.note(at(1061), (None, 1002), false);
        assert_eq!(lag.seconds(at(1061)), 0);
    }
}
