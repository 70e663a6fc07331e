//! What goes wrong, by kind: how often it did, and whether it may. A kind that may not still takes its turn in the stream of chance,
//! so the world without it is otherwise the same as long as it can be: that is how a failure is made smaller.

use std::collections::BTreeSet;
use std::fmt;

/// A sort of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader ends; what it had under way was stored, or never will be.
    LeaderLost,
    /// Another server leads, and the one before goes on for a while as if it did.
    LeadersOverlap,
    /// What the leader is told comes late.
    NewsLate,
    /// The leader's watch ends, and it lists everything anew.
    WatchCut,
    /// A write never arrives, and the leader knows only that it was not answered.
    WriteLost,
    /// A write is done, and the leader knows only that it was not answered.
    AnswerLost,
    /// A node ends with all that runs on it, and starts again later.
    NodeLost,
    /// A node goes on, and nobody hears of it, nor it of anybody.
    NodeCut,
    /// A node says late what becomes of its pods.
    NodeSlow,
    /// What ran in a pod ended.
    PodFails,
}

pub const ALL: &[Fault] = &[
    Fault::LeaderLost,
    Fault::LeadersOverlap,
    Fault::NewsLate,
    Fault::WatchCut,
    Fault::WriteLost,
    Fault::AnswerLost,
    Fault::NodeLost,
    Fault::NodeCut,
    Fault::NodeSlow,
    Fault::PodFails,
];

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Which faults a world may have, and which it had.
pub struct Faults {
    without: BTreeSet<Fault>,
    pub seen: [u64; ALL.len()],
    is_over: bool,
}

impl Faults {
    pub fn new(without: BTreeSet<Fault>) -> Self {
        Self {
            without,
            seen: [0; ALL.len()],
            is_over: false,
        }
    }

    /// Whether this fault, whose turn it is, happens; it is counted then.
    pub fn strikes(&mut self, fault: Fault) -> bool {
        let strikes = !self.is_over && !self.without.contains(&fault);
        if strikes {
            let at = ALL.iter().position(|one| *one == fault).unwrap();
            self.seen[at] += 1;
        }
        strikes
    }

    /// From now on nothing goes wrong.
    pub fn end(&mut self) {
        self.is_over = true;
    }
}
