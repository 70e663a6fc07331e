//! Sets of completion indexes, kept and written as intervals: `1,3-5,7`.
//!
//! The time and space of everything here is in the number of intervals, not of indexes. Invariants: the intervals are in
//! order, do not touch, and none is empty.

use std::collections::BTreeSet;
use std::fmt;

/// A set of indexes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indexes(Vec<(i64, i64)>);

impl Indexes {
    /// What a status or a policy says, as far as it can be read and below `completions`. What cannot be read is passed over.
    pub fn parse(text: &str, completions: i64) -> Self {
        let mut indexes = Self::default();
        for part in text.split(',') {
            let (first, last) = match part.split_once('-') {
                Some((first, last)) => (first.parse::<i64>(), last.parse::<i64>()),
                None => (part.parse(), part.parse()),
            };
            let (Ok(first), Ok(last)) = (first, last) else {
                continue;
            };
            if first >= completions {
                break;
            }
            indexes.push(first.max(0), last.min(completions - 1));
        }
        indexes
    }

    /// Adds an interval that begins no earlier than the last one; an empty one adds nothing.
    fn push(&mut self, first: i64, last: i64) {
        if first > last {
            return;
        }
        match self.0.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => self.0.push((first, last)),
        }
    }

    /// Everything that is in one of the two.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut all: Vec<(i64, i64)> = self.0.iter().chain(&other.0).copied().collect();
        all.sort_unstable();
        let mut union = Self::default();
        for (first, last) in all {
            union.push(first, last);
        }
        union
    }

    /// How many there are.
    pub fn total(&self) -> i64 {
        self.0.iter().map(|(first, last)| last - first + 1).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn has(&self, index: i64) -> bool {
        let after = self.0.partition_point(|(_, last)| *last < index);
        self.0.get(after).is_some_and(|(first, _)| *first <= index)
    }

    /// How many are in both.
    pub fn common(&self, other: &Self) -> i64 {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut common = 0;
        while let (Some((a, b)), Some((x, y))) = (ours.peek(), theirs.peek()) {
            common += (b.min(y) - a.max(x) + 1).max(0);
            if b <= y {
                ours.next();
            } else {
                theirs.next();
            }
        }
        common
    }

    /// The first `count` indexes below `completions` that are not in it.
    pub fn missing(&self, count: usize, completions: i64) -> Vec<i64> {
        let ends = [(completions, completions)];
        let mut next = 0;
        let mut missing = Vec::new();
        for (first, last) in self.0.iter().chain(&ends) {
            let room = count - missing.len();
            missing.extend((next..(*first).min(completions)).take(room));
            next = last.saturating_add(1);
        }
        missing
    }
}

impl FromIterator<i64> for Indexes {
    fn from_iter<T: IntoIterator<Item = i64>>(indexes: T) -> Self {
        let sorted: BTreeSet<i64> = indexes.into_iter().collect();
        let mut all = Self::default();
        for index in sorted {
            all.push(index, index);
        }
        all
    }
}

/// As a status says it: two neighbours are not written as an interval.
impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (first, last)) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
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

    fn of(text: &str) -> Indexes {
        Indexes::parse(text, 1000)
    }

    #[test]
    fn texts_are_read_up_to_the_completions_and_written_short() {
        for (text, completions, written) in [
            ("", 5, ""),
            ("0", 5, "0"),
            ("0,1", 5, "0,1"),
            ("0-1", 5, "0,1"),
            ("0,1,2", 5, "0-2"),
            ("1,3-5,7", 10, "1,3-5,7"),
            ("1,3-5,7", 4, "1,3"),
            ("1,3-5,7", 5, "1,3,4"),
            ("6-9", 5, ""),
            ("0-9", 3, "0-2"),
            ("a,2", 5, "2"),
            ("1-x,2", 5, "2"),
            ("-1", 5, ""),
            ("3-2", 5, ""),
            ("0", 0, ""),
        ] {
            let parsed = Indexes::parse(text, completions);
            assert_eq!(parsed.to_string(), written, "{text} below {completions}");
        }
    }

    #[test]
    fn arithmetic_of_sets() {
        for (one, other, union, common) in [
            ("", "", "", 0),
            ("1", "", "1", 0),
            ("1,3", "2", "1-3", 0),
            ("0-3", "2-5", "0-5", 2),
            ("0-9", "3,5-6", "0-9", 3),
            ("0,2,4", "1,3,5", "0-5", 0),
            ("0-2,8-9", "1-8", "0-9", 3),
        ] {
            assert_eq!(of(one).union(&of(other)).to_string(), union);
            assert_eq!(of(one).common(&of(other)), common, "{one} {other}");
            assert_eq!(of(other).common(&of(one)), common, "{other} {one}");
        }
        assert_eq!(of("1,3-5,7").total(), 5);
        let members: Vec<i64> = (0..9).filter(|index| of("1,3-5,7").has(*index)).collect();
        assert_eq!(members, [1, 3, 4, 5, 7]);
        assert_eq!([7, 1, 0, 1].into_iter().collect::<Indexes>(), of("0,1,7"));
    }

    #[test]
    fn what_is_missing() {
        for (text, count, completions, missing) in [
            ("", 3, 2, vec![0, 1]),
            ("", 0, 2, vec![]),
            ("0", 2, 4, vec![1, 2]),
            ("1,3", 9, 5, vec![0, 2, 4]),
            ("0-4", 9, 5, vec![]),
            ("0-9", 9, 5, vec![]),
            ("2-8", 9, 5, vec![0, 1]),
        ] {
            assert_eq!(of(text).missing(count, completions), missing, "{text}");
        }
    }
}
