//! The newest changes, kept in memory so that followers seldom read the log. Contiguous by
//! construction: what does not come next is refused. Pure.

use std::collections::VecDeque;

use meta::Revision;
use store::Change;

/// Most bytes of keys and values kept.
const BYTES_MAX: usize = 16 << 20;
/// Most changes kept.
const CHANGES_MAX: usize = 16 << 10;
/// Most changes and bytes given out at a time.
const READ_MAX: usize = 256;
const READ_BYTES: usize = 4 << 20;

/// See the module.
#[derive(Debug)]
pub(crate) struct Window {
    changes: VecDeque<Change>,
    bytes: usize,
    end: u64,
}

/// Changes are missing between the window's end and what was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap;

impl Window {
    /// An empty one that stands at `end`.
    pub(crate) fn new(end: u64) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, end }
    }

    /// The newest revision.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The revision before the oldest change kept.
    pub(crate) fn start(&self) -> u64 {
        self.end - self.changes.len() as u64
    }

    /// Adds those that come next; skips those that are here. The number added.
    pub(crate) fn push(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<usize, Gap> {
        let mut added = 0;
        for change in changes {
            if change.revision.0 <= self.end {
                continue;
            }
            if change.revision.0 != self.end + 1 {
                return Err(Gap);
            }
            self.end += 1;
            self.bytes += size(&change);
            self.changes.push_back(change);
            added += 1;
        }
        while self.bytes > BYTES_MAX || self.changes.len() > CHANGES_MAX {
            let Some(oldest) = self.changes.pop_front() else { break };
            self.bytes -= size(&oldest);
        }
        Ok(added)
    }

    /// Forgets what compaction forgets.
    pub(crate) fn forget(&mut self, through: u64) {
        while self.changes.front().is_some_and(|change| change.revision.0 <= through) {
            if let Some(oldest) = self.changes.pop_front() {
                self.bytes -= size(&oldest);
            }
        }
    }

    /// Some of what comes next after `after`; `None` when that is no longer here.
    pub(crate) fn read(&self, after: Revision) -> Option<Vec<Change>> {
        let skip = usize::try_from(after.0.checked_sub(self.start())?).ok()?;
        let mut bytes = 0;
        let fits = |change: &&Change| {
            let first = bytes == 0;
            bytes += size(change);
            first || bytes <= READ_BYTES
        };
        Some(self.changes.iter().skip(skip).take(READ_MAX).take_while(fits).cloned().collect())
    }
}

fn size(change: &Change) -> usize {
    64 + change.key.as_str().len() + change.value.as_ref().map_or(0, bytes::Bytes::len)
}

#[cfg(test)]
mod tests {
    use store::Key;

    use super::*;

    fn change(revision: u64, size: usize) -> Change {
        let key = Key::parse("core/pods/default/a").unwrap();
        Change { revision: Revision(revision), key, value: Some(vec![0; size].into()) }
    }

    fn revisions(window: &Window, after: u64) -> Option<Vec<u64>> {
        Some(window.read(Revision(after))?.iter().map(|change| change.revision.0).collect())
    }

    #[test]
    fn takes_only_what_comes_next() {
        let mut window = Window::new(10);
        assert_eq!(window.push([change(12, 1)]), Err(Gap));
        assert_eq!(window.push([change(9, 1), change(10, 1), change(11, 1), change(12, 1)]), Ok(2));
        assert_eq!(window.push([change(12, 1), change(13, 1), change(15, 1)]), Err(Gap));
        assert_eq!(revisions(&window, 10), Some(vec![11, 12, 13]));
        assert_eq!(revisions(&window, 13), Some(vec![]));
        assert_eq!(revisions(&window, 9), None);
        window.forget(11);
        assert_eq!((revisions(&window, 10), revisions(&window, 11)), (None, Some(vec![12, 13])));
    }

    #[test]
    fn is_bounded_by_bytes_and_count() {
        let mut window = Window::new(0);
        window.push((1..=5).map(|revision| change(revision, 5 << 20))).unwrap();
        assert_eq!((window.start(), window.end()), (2, 5));
        assert_eq!(revisions(&window, 2), Some(vec![3]), "one at least, however large");
        window.push((6..=40_000).map(|revision| change(revision, 0))).unwrap();
        assert_eq!(window.start(), 40_000 - CHANGES_MAX as u64);
    }
}
