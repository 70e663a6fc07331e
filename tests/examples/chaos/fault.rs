//! What is done to the servers, and in which order.

use std::time::Duration;

use rand::Rng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

/// A kind of fault; the leader is whoever leads when it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    KillLeader,
    KillFollower,
    KillAll,
    PauseLeader,
    PauseFollower,
    /// Nothing between the leader and the others.
    CutLeader,
    CutFollower,
    /// Nothing from the leader to the others; what they send arrives.
    MuteLeader,
    /// Nothing from the others to the leader.
    DeafLeader,
    /// Nothing between the leader and one of the others; the third one reaches both.
    Split,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::KillLeader => "leader killed",
            Self::KillFollower => "follower killed",
            Self::KillAll => "all killed",
            Self::PauseLeader => "leader paused",
            Self::PauseFollower => "follower paused",
            Self::CutLeader => "leader cut off",
            Self::CutFollower => "follower cut off",
            Self::MuteLeader => "nothing from the leader",
            Self::DeafLeader => "nothing to the leader",
            Self::Split => "leader and a follower apart",
        }
    }
}

/// The leader's death is what matters most: it comes twice in a round.
const PROCESS: [Kind; 6] = [
    Kind::KillLeader,
    Kind::KillLeader,
    Kind::KillFollower,
    Kind::KillAll,
    Kind::PauseLeader,
    Kind::PauseFollower,
];
const NETWORK: [Kind; 5] = [
    Kind::CutLeader,
    Kind::CutFollower,
    Kind::MuteLeader,
    Kind::DeafLeader,
    Kind::Split,
];

/// A fault as it is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// The server it is about; of all killed, the leader.
    pub server: usize,
    /// Its counterpart, of those apart.
    pub other: usize,
    /// How long it lasts.
    pub hold: Duration,
}

impl Fault {
    /// Which way nothing gets through: from, to.
    pub fn cuts(&self, servers: usize) -> Vec<(usize, usize)> {
        let server = self.server;
        let others = (0..servers).filter(|other| *other != server);
        match self.kind {
            Kind::CutLeader | Kind::CutFollower => others
                .flat_map(|other| [(server, other), (other, server)])
                .collect(),
            Kind::MuteLeader => others.map(|other| (server, other)).collect(),
            Kind::DeafLeader => others.map(|other| (other, server)).collect(),
            Kind::Split => vec![(server, self.other), (self.other, server)],
            Kind::KillLeader
            | Kind::KillFollower
            | Kind::KillAll
            | Kind::PauseLeader
            | Kind::PauseFollower => Vec::new(),
        }
    }
}

/// Rounds of all kinds, each round in an order of its own.
pub struct Plan {
    kinds: Vec<Kind>,
    left: Vec<Kind>,
}

impl Plan {
    pub fn new(network: bool) -> Self {
        let mut kinds = PROCESS.to_vec();
        if network {
            kinds.extend(NETWORK);
        }
        Self {
            kinds,
            left: Vec::new(),
        }
    }

    /// The next fault, while `leader` leads.
    pub fn next(&mut self, leader: usize, servers: usize, rng: &mut impl Rng) -> Fault {
        if self.left.is_empty() {
            self.left = self.kinds.clone();
            self.left.shuffle(rng);
        }
        let kind = self.left.pop().unwrap_or(Kind::KillLeader);
        let followers: Vec<usize> = (0..servers).filter(|server| *server != leader).collect();
        let follower = followers.choose(rng).copied().unwrap_or(leader);
        let server = match kind {
            Kind::KillFollower | Kind::PauseFollower | Kind::CutFollower => follower,
            _ => leader,
        };
        let milliseconds = match kind {
            // A process that comes back at once, and one that is missed.
            Kind::KillLeader | Kind::KillFollower => rng.random_range(100..3000),
            Kind::KillAll => rng.random_range(0..500),
            // Shorter and longer than an election takes.
            Kind::PauseLeader | Kind::PauseFollower => rng.random_range(1000..5000),
            _ => rng.random_range(1000..4000),
        };
        Fault {
            kind,
            server,
            other: follower,
            hold: Duration::from_millis(milliseconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn a_seed_gives_the_same_faults_and_a_round_has_every_kind() {
        let round = |seed| {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut plan = Plan::new(true);
            (0..PROCESS.len() + NETWORK.len())
                .map(|_| plan.next(1, 3, &mut rng))
                .collect::<Vec<_>>()
        };
        assert_eq!(round(7), round(7));
        assert_ne!(round(7), round(8));
        let mut kinds: Vec<Kind> = round(7).iter().map(|fault| fault.kind).collect();
        kinds.sort_unstable();
        let mut all = [&PROCESS[..], &NETWORK].concat();
        all.sort_unstable();
        assert_eq!(kinds, all);
    }

    #[test]
    fn what_is_cut() {
        let fault = |kind| Fault {
            kind,
            server: 0,
            other: 2,
            hold: Duration::ZERO,
        };
        for (kind, expected) in [
            (Kind::KillLeader, vec![]),
            (Kind::CutLeader, vec![(0, 1), (1, 0), (0, 2), (2, 0)]),
            (Kind::MuteLeader, vec![(0, 1), (0, 2)]),
            (Kind::DeafLeader, vec![(1, 0), (2, 0)]),
            (Kind::Split, vec![(0, 2), (2, 0)]),
        ] {
            assert_eq!(fault(kind).cuts(3), expected, "{kind:?}");
        }
    }
}
