//! What had wholly happened before a launch, a copy or a host call began: the edges that streams,
//! events and the host add to happens-before. Agents are numbered through all launches of a
//! machine, so a past is a set of ranges of agents. Used by the clocks and, as an opaque value, by
//! whoever orders launches.

use std::ops::Range;

/// Launches, copies and host calls that are over for whoever holds this value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Sorted, disjoint, not touching.
    ranges: Vec<Range<u32>>,
}

impl Past {
    /// Nothing has happened.
    pub fn new() -> Self {
        Past::default()
    }

    /// All agents below this one are known: the usual case is one compare.
    pub(crate) fn floor(&self) -> u32 {
        self.ranges.first().map_or(0, |r| if r.start == 0 { r.end } else { 0 })
    }

    pub(crate) fn covers(&self, agent: u32) -> bool {
        let after = self.ranges.partition_point(|r| r.start <= agent);
        after > 0 && agent < self.ranges[after - 1].end
    }

    pub(crate) fn add(&mut self, range: Range<u32>) {
        if range.is_empty() {
            return;
        }
        let from = self.ranges.partition_point(|r| r.end < range.start);
        let to = self.ranges.partition_point(|r| r.start <= range.end);
        let mut all = range;
        if from < to {
            all.start = all.start.min(self.ranges[from].start);
            all.end = all.end.max(self.ranges[to - 1].end);
        }
        self.ranges.splice(from..to, std::iter::once(all));
    }

    /// Takes over what `other` knows.
    pub fn join(&mut self, other: &Past) {
        if self.ranges.is_empty() {
            self.ranges.clone_from(&other.ranges);
            return;
        }
        for range in &other.ranges {
            self.add(range.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(ranges: &[Range<u32>]) -> Past {
        let mut past = Past::new();
        ranges.iter().for_each(|r| past.add(r.clone()));
        past
    }

    #[test]
    fn ranges_merge_when_they_touch_or_overlap() {
        assert_eq!(past(&[0..2, 4..6, 2..4]).ranges, vec![0..6]);
        assert_eq!(past(&[8..9, 0..2, 4..6]).ranges, [0..2, 4..6, 8..9]);
        assert_eq!(past(&[0..2, 4..6, 8..9, 1..8]).ranges, vec![0..9]);
        assert_eq!(past(&[4..6, 5..5]).ranges, vec![4..6]);
        assert_eq!(past(&[4..6, 0..10]).ranges, vec![0..10]);
    }

    #[test]
    fn knows_what_it_was_told_and_nothing_else() {
        let past = past(&[0..2, 4..6]);
        let known: Vec<bool> = (0..8).map(|agent| past.covers(agent)).collect();
        assert_eq!(known, [true, true, false, false, true, true, false, false]);
        assert_eq!(past.floor(), 2);
        assert_eq!(Past::new().floor(), 0);
        let mut joined = Past::new();
        joined.join(&past);
        joined.add(2..4);
        assert_eq!(joined.floor(), 6);
    }
}
