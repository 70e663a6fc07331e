//! What was counted of edges in the last day: a ring of seconds for a quarter of an hour, and one of ten seconds for the day.
//!
//! ```text
//! a frame of a second or more ─► fine   1 s × 15 min ─┐
//!             summed up to ten ─► coarse 10 s × 24 h ─┴─► sums of a time, or frame by frame
//! ```
//! Whoever reads takes the frames that he wants, and sums them up on his own time.
//!
//! Invariants: a pure value; both rings are bounded in frames and in bytes, the oldest frames go first; equal names are one name in memory,
//! and an edge that had no call in a frame takes nothing in it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use weft_call::edges::{EdgeName, Figures};

/// Frames of the fine ring: a quarter of an hour of seconds; and of the coarse one, a day.
const FINE_MAX: usize = 900;
const COARSE_MAX: usize = 8640;
/// What a frame of the coarse ring is about.
pub(super) const COARSE: Duration = Duration::from_secs(10);
/// Bytes of each ring: a thousand edges that are busy all the time fill it with some eight minutes by the second, or an hour by ten seconds.
const RING_BYTES_MAX: usize = 64 << 20;

/// Of all edges with calls in some time.
pub(super) type Sums = BTreeMap<Arc<EdgeName>, Figures>;

/// What calls of one edge came to, in little memory.
#[derive(Debug)]
struct Cell {
    edge: Arc<EdgeName>,
    outcomes: Box<[(Arc<str>, u64)]>,
    durations: Box<[(u8, u32)]>,
    request_bytes: u64,
    response_bytes: u64,
    duration_micros: u64,
}

impl Cell {
    fn bytes(&self) -> usize {
        size_of::<Self>()
            + size_of_val::<[(Arc<str>, u64)]>(&self.outcomes)
            + size_of_val::<[(u8, u32)]>(&self.durations)
    }

    fn add_to(&self, sums: &mut Sums) {
        let figures = Figures {
            outcomes: self
                .outcomes
                .iter()
                .map(|(how, count)| (how.to_string(), *count))
                .collect(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            duration_micros: self.duration_micros,
            durations: self
                .durations
                .iter()
                .map(|(group, count)| (*group, u64::from(*count)))
                .collect(),
        };
        match sums.get_mut(&self.edge) {
            Some(sum) => sum.add(&figures),
            None => {
                sums.insert(Arc::clone(&self.edge), figures);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Frame {
    /// Its end.
    at: Timestamp,
    width: Duration,
    cells: Vec<Cell>,
    bytes: usize,
}

impl Frame {
    fn begin(&self) -> Timestamp {
        self.at.checked_sub(self.width).unwrap_or(self.at)
    }
}

#[derive(Debug, Default)]
struct Ring {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, frame: Frame, frames_max: usize) {
        self.bytes += frame.bytes;
        self.frames.push_back(Arc::new(frame));
        while self.frames.len() > frames_max
            || (self.bytes > RING_BYTES_MAX && self.frames.len() > 1)
        {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.bytes;
            }
        }
    }

    fn oldest(&self) -> Option<Timestamp> {
        self.frames.front().map(|frame| frame.begin())
    }
}

/// Both rings.
#[derive(Debug, Default)]
pub(super) struct Rings {
    fine: Ring,
    coarse: Ring,
    /// What the next frame of the coarse ring has by now.
    gathered: Sums,
    gathered_width: Duration,
    names: BTreeSet<Arc<EdgeName>>,
    words: BTreeSet<Arc<str>>,
}

/// Sums of some time, and what time that is.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Seen {
    pub(super) at: Option<Timestamp>,
    /// How much of the time that was asked for is known of.
    pub(super) width: Duration,
    pub(super) sums: Sums,
}

impl Rings {
    /// Takes up what was new in the time before `at`.
    pub(super) fn push(&mut self, at: Timestamp, width: Duration, new: Vec<(EdgeName, Figures)>) {
        let mut sums = Sums::new();
        for (name, figures) in new {
            let name = self.name(name);
            match sums.get_mut(&name) {
                Some(sum) => sum.add(&figures),
                None => {
                    sums.insert(name, figures);
                }
            }
        }
        for (name, figures) in &sums {
            self.gathered
                .entry(Arc::clone(name))
                .or_default()
                .add(figures);
        }
        self.gathered_width += width;
        let frame = self.frame(at, width, sums);
        self.fine.push(frame, FINE_MAX);
        if self.gathered_width >= COARSE {
            let (sums, width) = (
                std::mem::take(&mut self.gathered),
                std::mem::take(&mut self.gathered_width),
            );
            let frame = self.frame(at, width, sums);
            self.coarse.push(frame, COARSE_MAX);
            // Names that are in no frame any more.
            self.names.retain(|name| Arc::strong_count(name) > 1);
            self.words.retain(|word| Arc::strong_count(word) > 1);
        }
    }

    fn name(&mut self, name: EdgeName) -> Arc<EdgeName> {
        let name = Arc::new(name);
        if let Some(known) = self.names.get(&name) {
            return Arc::clone(known);
        }
        self.names.insert(Arc::clone(&name));
        name
    }

    fn word(&mut self, word: &str) -> Arc<str> {
        if let Some(known) = self.words.get(word) {
            return Arc::clone(known);
        }
        let word: Arc<str> = word.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    fn frame(&mut self, at: Timestamp, width: Duration, sums: Sums) -> Frame {
        let cells = sums.into_iter().map(|(edge, figures)| Cell {
            edge,
            outcomes: figures
                .outcomes
                .iter()
                .map(|(how, count)| (self.word(how), *count))
                .collect(),
            durations: figures
                .durations
                .into_iter()
                .map(|(group, count)| (group, u32::try_from(count).unwrap_or(u32::MAX)))
                .collect(),
            request_bytes: figures.request_bytes,
            response_bytes: figures.response_bytes,
            duration_micros: figures.duration_micros,
        });
        let cells: Vec<Cell> = cells.collect();
        Frame {
            at,
            width,
            bytes: size_of::<Frame>() + cells.iter().map(Cell::bytes).sum::<usize>(),
            cells,
        }
    }

    /// What both rings hold, the fine one first.
    pub(super) fn bytes(&self) -> [usize; 2] {
        [self.fine.bytes, self.coarse.bytes]
    }

    /// The end of the newest frame.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.fine.frames.back().map(|frame| frame.at)
    }

    /// What ended after `since`, the oldest first: by the fine ring as far as it goes back.
    pub(super) fn frames_after(&self, since: Timestamp) -> Vec<Arc<Frame>> {
        let fine_from = self.fine.oldest().unwrap_or(Timestamp::MAX);
        let coarse = self.coarse.frames.iter();
        // A coarse frame that begins before the fine ones do, and reaches into them, is left out rather than counted twice.
        let older = coarse.filter(|frame| frame.at <= fine_from);
        let all = older.chain(&self.fine.frames);
        all.filter(|frame| frame.at > since).cloned().collect()
    }
}

impl Seen {
    /// All frames, summed up.
    pub(super) fn of(frames: &[Arc<Frame>]) -> Self {
        let mut seen = Self::default();
        for frame in frames {
            seen.add(frame);
        }
        seen
    }

    /// The same in steps of at least so long.
    pub(super) fn steps(frames: &[Arc<Frame>], step: Duration) -> Vec<Self> {
        let mut steps = Vec::new();
        let mut seen = Self::default();
        for frame in frames {
            seen.add(frame);
            if seen.width >= step {
                steps.push(std::mem::take(&mut seen));
            }
        }
        if !seen.width.is_zero() {
            steps.push(seen);
        }
        steps
    }

    fn add(&mut self, frame: &Frame) {
        self.at = Some(frame.at);
        self.width += frame.width;
        for cell in &frame.cells {
            cell.add_to(&mut self.sums);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(source: &str) -> EdgeName {
        let mut name = EdgeName::default();
        source.clone_into(&mut name.source.workload);
        name
    }

    fn calls(count: u64) -> Figures {
        Figures {
            outcomes: [("200".to_owned(), count)].into(),
            durations: [(3, count)].into(),
            ..Figures::default()
        }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn shown(seen: &Seen) -> String {
        let sums = seen.sums.iter();
        let sums: Vec<String> = sums
            .map(|(name, figures)| format!("{} {}", name.source.workload, figures.calls()))
            .collect();
        format!("{} s: {}", seen.width.as_secs(), sums.join(", "))
    }

    #[test]
    fn a_day_is_remembered_in_seconds_and_in_tens_of_seconds() {
        let mut rings = Rings::default();
        let one = Duration::from_secs(1);
        for at in 1..=1000 {
            let mut new = vec![(name("web"), calls(1)), (name("web"), calls(1))];
            if at % 100 == 0 {
                new.push((name("job"), calls(5)));
            }
            rings.push(second(at), one, new);
        }
        assert_eq!(rings.fine.frames.len(), FINE_MAX);
        assert_eq!(rings.coarse.frames.len(), 100);
        assert_eq!(rings.newest(), Some(second(1000)));
        let after = |since| shown(&Seen::of(&rings.frames_after(second(since))));
        assert_eq!(after(995), "5 s: job 5, web 10");
        // The first hundred seconds are there as ten frames.
        assert_eq!(after(0), "1000 s: job 50, web 2000");
        let steps = Seen::steps(&rings.frames_after(second(940)), Duration::from_secs(25));
        let steps: Vec<String> = steps.iter().map(shown).collect();
        assert_eq!(
            steps,
            ["25 s: web 50", "25 s: web 50", "10 s: job 5, web 20"]
        );
        assert_eq!(rings.names.len(), 2);
        assert!(Rings::default().frames_after(second(0)).is_empty());
    }

    #[test]
    fn what_is_too_much_pushes_out_the_oldest() {
        let mut ring = Ring::default();
        for at in 0..5 {
            let frame = Frame {
                at: second(at),
                width: Duration::from_secs(1),
                cells: Vec::new(),
                bytes: RING_BYTES_MAX / 2,
            };
            ring.push(frame, FINE_MAX);
        }
        assert_eq!((ring.frames.len(), ring.bytes), (2, RING_BYTES_MAX));
        assert_eq!(ring.oldest(), Some(second(2)));
    }
}
