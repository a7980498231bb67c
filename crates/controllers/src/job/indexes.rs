//! Sets of completion indexes as a Job's status writes them: `0-3,5,7,8` (upstream
//! `indexed_job_utils.go`, `orderedIntervals`). A set costs as many bytes as it has gaps, not members:
//! a Job may have a hundred thousand indexes.

use std::fmt;

/// Disjoint, ascending, closed ranges with a gap between each two.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexes(Vec<(i32, i32)>);

impl Indexes {
    /// Reads what a status or a policy says; indexes from `completions` on are left out, and so is what
    /// cannot be read.
    pub(super) fn parse(text: &str, completions: i32) -> Self {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last): (i32, i32) = (first.parse().ok()?, last.parse().ok()?);
            (first >= 0 && first < completions).then(|| (first, last.min(completions - 1)))
        };
        Self::joined(text.split(',').filter_map(range).collect())
    }

    fn joined(mut ranges: Vec<(i32, i32)>) -> Self {
        ranges.sort_unstable();
        let mut joined: Vec<(i32, i32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match joined.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => joined.push((first, last)),
            }
        }
        Self(joined)
    }

    /// All that are in either.
    pub(super) fn union(&self, other: &Self) -> Self {
        Self::joined(self.0.iter().chain(&other.0).copied().collect())
    }

    /// How many there are.
    pub(super) fn len(&self) -> i32 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether `index` is one of them.
    pub(super) fn contains(&self, index: i32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(at).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub(super) fn common(&self, other: &Self) -> i32 {
        let overlap = |a: &(i32, i32), b: &(i32, i32)| (a.1.min(b.1) - a.0.max(b.0) + 1).max(0);
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut count = 0;
        while let (Some(a), Some(b)) = (mine.peek(), theirs.peek()) {
            count += overlap(a, b);
            let a_is_behind = a.1 < b.1;
            if a_is_behind {
                mine.next()
            } else {
                theirs.next()
            };
        }
        count
    }

    /// The lowest `count` indexes below `completions` that are not in the set.
    pub(super) fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let mut missing = Vec::new();
        let mut next = 0;
        for (first, last) in self.0.iter().copied().chain([(completions, completions)]) {
            missing.extend((next..first.min(completions)).take(count - missing.len()));
            next = last.saturating_add(1);
        }
        missing
    }
}

impl FromIterator<i32> for Indexes {
    fn from_iter<I: IntoIterator<Item = i32>>(indexes: I) -> Self {
        Self::joined(indexes.into_iter().map(|index| (index, index)).collect())
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.0.iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            match last - first {
                0 => write!(f, "{comma}{first}")?,
                1 => write!(f, "{comma}{first},{last}")?,
                _ => write!(f, "{comma}{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> Indexes {
        Indexes::parse(text, 100)
    }

    #[test]
    fn reads_and_writes_upstreams_form() {
        for (text, completions, written, len) in [
            ("", 5, "", 0),
            ("0,1,2", 5, "0-2", 3),
            ("0-1", 5, "0,1", 2),
            ("0-9,12", 5, "0-4", 5),
            ("x,3,4-y", 5, "3", 1),
            ("7", 5, "", 0),
        ] {
            let indexes = Indexes::parse(text, completions);
            assert_eq!((indexes.to_string().as_str(), indexes.len()), (written, len), "{text}");
        }
    }

    #[test]
    fn sets_behave_as_sets() {
        assert_eq!(set("1-3,7").union(&[4, 9].into_iter().collect()).to_string(), "1-4,7,9");
        assert!(set("1-3,7").contains(2) && !set("1-3,7").contains(5) && !set("1-3").contains(9));
        assert_eq!(set("1-5,8,10-20").common(&set("0,2-3,8-11")), 2 + 1 + 2);
        assert_eq!(set("0,2-3").first_missing(3, 7), [1, 4, 5]);
        assert_eq!(set("0-6").first_missing(3, 7), Vec::<i32>::new());
        assert_eq!(set("").first_missing(9, 2), [0, 1]);
    }
}
