//! A world: a cluster, its leaders, nodes and users, from a quiet beginning through a storm to the calm after it. Whose turn it is is
//! drawn from those who have something to do; when nobody has, time passes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::agents::{self, Agent};
use super::chance::Chance;
use super::check;
use super::cluster::Cluster;
use super::deeds::Users;
use super::faults::{self, Fault, Faults};
use super::leader::Leader;
use super::planted::Bug;
use super::record::Judged;
use super::rollouts::{self, Rollouts};

const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
/// Times in milliseconds: how long things go wrong, and how long the cluster may take to recover from it.
const STORM: i64 = 30_000;
pub const PATIENCE: i64 = 240_000;
/// Nobody decides anything for so long at the end.
const REST: i64 = 12_000;
/// A step takes as long as this at most.
const STEP: i64 = 12;
/// When nobody has anything to do, so much passes at once at most.
const IDLE: i64 = 400;
/// How long a leader of before goes on at most.
const OVERLAP: i64 = 3_000;

pub struct World {
    cluster: Cluster,
    leader: Leader,
    /// One that was deposed, and until when it does not know.
    before: Option<(Leader, i64)>,
    agents: Vec<Agent>,
    users: Users,
    /// Those of a world that is about Rollouts; nothing else is done there.
    rollouts: Option<Rollouts>,
    turns: Chance,
    deeds: Chance,
    strikes: Chance,
    next_deed: i64,
    next_strike: i64,
    /// When which node is there again.
    mends: BTreeMap<usize, i64>,
    leaders: u64,
    steps: u64,
    recovered: i64,
    /// Changes that were there when all was last looked over.
    calmed: u64,
    bug: Option<Bug>,
    is_storm: bool,
}

impl World {
    pub fn new(seed: u64, bug: Option<Bug>, without: BTreeSet<Fault>, is_loud: bool) -> Self {
        let agent = |name: &&str| {
            let mut agent = Agent::new(name);
            agent.keeps_promise = bug != Some(Bug::PromiseBroken);
            agent
        };
        let cluster = Cluster::new(Faults::new(without), is_loud);
        let leader = Leader::new(&cluster, 1, bug);
        Self {
            cluster,
            leader,
            before: None,
            agents: NODES.iter().map(agent).collect(),
            users: Users::new(bug),
            rollouts: None,
            turns: Chance::new(seed, 1),
            deeds: Chance::new(seed, 2),
            strikes: Chance::new(seed, 3),
            next_deed: 0,
            next_strike: 4_000,
            mends: BTreeMap::new(),
            leaders: 1,
            steps: 0,
            recovered: 0,
            calmed: 0,
            bug,
            is_storm: true,
        }
    }

    /// A world in which templates are brought out by steps.
    pub fn with_rollouts(seed: u64, without: BTreeSet<Fault>, is_loud: bool) -> Self {
        Self {
            rollouts: Some(Rollouts::default()),
            ..Self::new(seed, None, without, is_loud)
        }
    }

    /// To the end, or to the first rule that is broken.
    pub fn run(&mut self) -> Result<(), String> {
        for agent in &mut self.agents {
            agent.register(&mut self.cluster);
        }
        match &mut self.rollouts {
            Some(rollouts) => rollouts.begin(&mut self.cluster),
            None => self.users.begin(&mut self.cluster),
        }
        let storm = match self.rollouts {
            Some(_) => rollouts::STORM,
            None => STORM,
        };
        while self.cluster.millis() < storm {
            self.step()?;
        }
        self.heal();
        let begun = self.cluster.millis();
        let mut since = None;
        let mut decided = 0;
        let mut looked = 0;
        let mut found = Ok(());
        loop {
            self.step()?;
            let now = self.cluster.millis();
            let decisions = self.cluster.record.decisions;
            if decisions != decided {
                decided = decisions;
                since = None;
            }
            let not_yet = match since {
                Some(_) => Ok(()),
                None if self.leader.is_calm() => {
                    if looked != self.cluster.record.changes {
                        looked = self.cluster.record.changes;
                        found = check::converged(&self.cluster.record);
                        if self.rollouts.is_some() && found.is_ok() {
                            found = Rollouts::ended(&self.cluster.record);
                        }
                    }
                    found.clone()
                }
                None => Err("the leader is at work".to_owned()),
            };
            if not_yet.is_ok() && since.is_none() {
                since = Some(now);
            }
            if let Some(since) = since
                && now - since >= REST
            {
                self.recovered = since - begun;
                return Ok(());
            }
            if now - begun > PATIENCE {
                let why = not_yet
                    .err()
                    .unwrap_or_else(|| "it does not rest".to_owned());
                let how = format!("everything converges after healing: {why}");
                self.cluster.breaks(how.clone());
                return Err(how);
            }
        }
    }

    /// Somebody who has something to do takes a step.
    fn step(&mut self) -> Result<(), String> {
        self.steps += 1;
        let now = self.cluster.millis();
        if self.is_storm {
            self.blow(now);
        }
        self.mend(now);
        for agent in &mut self.agents {
            agent.fence(now, &mut self.turns);
        }
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.serve(&mut self.cluster);
        }
        let moved = self.turn();
        if self.leader.in_doubt {
            self.start_over();
        }
        if let Some(how) = &self.cluster.broken {
            return Err(how.clone());
        }
        if moved {
            let millis = self.turns.within(0, STEP);
            self.cluster.pass(millis);
        } else {
            let changes = self.cluster.record.changes;
            if self.leader.is_calm() && self.before.is_none() && changes != self.calmed {
                check::calm(&mut self.cluster.record);
                self.calmed = changes;
            }
            self.wait(now);
        }
        Ok(())
    }

    /// Time passes until somebody may have something to do.
    fn wait(&mut self, now: i64) {
        let mut next = now + IDLE;
        let others = self.agents.iter().filter_map(Agent::next_due);
        let mends = self.mends.values().copied();
        for due in others
            .chain(mends)
            .chain([self.next_deed, self.next_strike])
            .chain(self.rollouts.as_ref().map(Rollouts::next_due))
        {
            if due > now {
                next = next.min(due);
            }
        }
        let step = (next - now).max(1);
        self.cluster.pass(step);
    }

    fn turn(&mut self) -> bool {
        let Self {
            cluster,
            leader,
            before,
            agents,
            turns,
            ..
        } = self;
        leader.listen(cluster);
        if let Some((old, until)) = before {
            if cluster.millis() >= *until {
                *before = None;
            } else if turns.is(30) {
                old.listen(cluster);
                let moved = match turns.below(4) {
                    0 => old.deliver(cluster, turns),
                    1 => old.look(cluster, turns),
                    2 => old.place(cluster),
                    _ => old.carry(cluster, turns),
                };
                if moved {
                    return true;
                }
            }
        }
        let first = turns.below(10);
        for at in 0..10 {
            let moved = match (first + at) % 10 {
                0 | 1 => leader.deliver(cluster, turns),
                2..=4 => leader.look(cluster, turns),
                5 | 6 => leader.carry(cluster, turns),
                7 => leader.place(cluster),
                _ => act(agents, cluster, turns),
            };
            if moved {
                return true;
            }
        }
        false
    }

    /// What users do and what goes wrong, when their time has come.
    fn blow(&mut self, now: i64) {
        if now >= self.next_deed {
            self.next_deed = now + self.act(now);
        }
        if now < self.next_strike {
            return;
        }
        self.next_strike = now + self.strikes.within(200, 4_000);
        let fault = *self.strikes.one_of(faults::ALL).unwrap();
        match fault {
            Fault::LeaderLost | Fault::LeadersOverlap => self.change_leader(fault),
            Fault::NewsLate => {
                let until = now + self.strikes.within(500, 6_000);
                if self.cluster.faults.strikes(fault) {
                    self.cluster.tell("the leader hears nothing for a while");
                    self.leader.deaf_until = until;
                }
            }
            Fault::WatchCut => {
                if self.cluster.faults.strikes(fault) {
                    self.cluster.tell("the leader's watch ends");
                    self.leader.cut_watch(&self.cluster);
                }
            }
            // These strike with each write.
            Fault::WriteLost | Fault::AnswerLost => {}
            Fault::NodeLost | Fault::NodeCut | Fault::NodeSlow | Fault::PodFails => {
                let strikes = &mut self.strikes;
                agents::strike(&mut self.agents, &mut self.cluster, strikes, fault);
                for (at, agent) in self.agents.iter().enumerate() {
                    if (!agent.is_up || agent.is_cut) && !self.mends.contains_key(&at) {
                        self.mends.insert(at, now + strikes.within(1_000, 20_000));
                    }
                }
            }
        }
    }

    /// A deed, and how long it is until the next one.
    fn act(&mut self, now: i64) -> i64 {
        if let Some(rollouts) = &mut self.rollouts {
            rollouts.act(&mut self.cluster, &mut self.deeds);
            return self.deeds.within(4_000, 24_000);
        }
        self.users.act(&mut self.cluster, &mut self.deeds);
        // At first there has to be something to act on.
        let pause = if now < 4_000 { 300 } else { 1_500 };
        self.deeds.within(100, pause)
    }

    fn mend(&mut self, now: i64) {
        let due: Vec<usize> = self
            .mends
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(at, _)| *at)
            .collect();
        for at in due {
            self.mends.remove(&at);
            agents::mend(&mut self.agents[at], &mut self.cluster);
        }
    }

    fn change_leader(&mut self, fault: Fault) {
        let until = self.cluster.millis() + self.strikes.within(200, OVERLAP);
        if !self.cluster.faults.strikes(fault) {
            return;
        }
        self.leaders += 1;
        let number = self.leaders;
        if fault == Fault::LeaderLost {
            self.leader.end(&mut self.cluster, &mut self.strikes);
        }
        self.cluster.tell(&format!("server {number} leads"));
        let next = Leader::new(&self.cluster, number, self.bug);
        let mut old = std::mem::replace(&mut self.leader, next);
        if fault == Fault::LeadersOverlap {
            old.depose();
            self.before = Some((old, until));
        }
    }

    /// The leader does not know what became of a write: it ends what is under way, and begins with what is stored by then.
    fn start_over(&mut self) {
        self.leader.end(&mut self.cluster, &mut self.turns);
        let number = self.leader.number;
        self.cluster.tell(&format!("server {number} starts over"));
        self.leader = Leader::new(&self.cluster, number, self.bug);
    }

    /// Everything that went wrong is mended, and users leave nothing half done.
    fn heal(&mut self) {
        self.is_storm = false;
        self.cluster.tell("all is mended");
        self.cluster.faults.end();
        self.leader.deaf_until = 0;
        self.before = None;
        self.mends.clear();
        for agent in &mut self.agents {
            agents::mend(agent, &mut self.cluster);
        }
        match self.rollouts {
            Some(_) => Rollouts::finish(&mut self.cluster),
            None => self.users.finish(&mut self.cluster),
        }
        self.next_deed = 0;
        self.next_strike = 0;
    }

    /// Steps that revisions took, how often one was promoted, and how often rolled back.
    pub fn ways(&self) -> [u64; 3] {
        let seen = self.rollouts.as_ref();
        seen.map_or([0; 3], |seen| [seen.steps, seen.promoted, seen.rolled_back])
    }

    pub fn report(&self) -> Report {
        let record = &self.cluster.record;
        Report {
            worlds: 1,
            steps: self.steps,
            changes: record.changes,
            decisions: record.decisions,
            leaders: self.leaders,
            seconds: self.cluster.millis() / 1000,
            slowest: self.recovered,
            faults: self.cluster.faults.seen,
            judged: record.judged.clone(),
            digest: self.cluster.digest,
            story: self.cluster.story(),
        }
    }
}

/// Some node does something that is due.
fn act(agents: &mut [Agent], cluster: &mut Cluster, turns: &mut Chance) -> bool {
    let first = turns.below(agents.len());
    (0..agents.len()).any(|at| {
        let at = (first + at) % agents.len();
        agents.swap(0, at);
        let moved = match agents.split_first_mut() {
            Some((agent, others)) => agent.act(cluster, turns, others),
            None => false,
        };
        agents.swap(0, at);
        moved
    })
}

/// What was seen in some worlds.
#[derive(Default)]
pub struct Report {
    worlds: u64,
    steps: u64,
    changes: u64,
    decisions: u64,
    leaders: u64,
    seconds: i64,
    /// The longest recovery, in milliseconds.
    slowest: i64,
    faults: [u64; faults::ALL.len()],
    judged: BTreeMap<&'static str, Judged>,
    pub digest: u64,
    pub story: String,
}

impl Report {
    pub fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.steps += other.steps;
        self.changes += other.changes;
        self.decisions += other.decisions;
        self.leaders += other.leaders;
        self.seconds += other.seconds;
        self.slowest = self.slowest.max(other.slowest);
        for (sum, more) in self.faults.iter_mut().zip(other.faults) {
            *sum += more;
        }
        for (rule, judged) in other.judged {
            let sum = self.judged.entry(rule).or_default();
            sum.times += judged.times;
            sum.strictly += judged.strictly;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} worlds, {} steps, {} simulated seconds, {} leaders, {} changes stored, {} of them decided by leaders; \
             slowest recovery {}.{:03} s",
            self.worlds,
            self.steps,
            self.seconds,
            self.leaders,
            self.changes,
            self.decisions,
            self.slowest / 1000,
            self.slowest % 1000
        )?;
        writeln!(f, "\n| fault | times |\n| --- | --- |")?;
        for (fault, times) in faults::ALL.iter().zip(self.faults) {
            writeln!(f, "| {fault} | {times} |")?;
        }
        writeln!(
            f,
            "\n| rule | judged | with nothing to excuse it |\n| --- | --- | --- |"
        )?;
        for rule in check::ALL {
            let judged = self.judged.get(rule).copied().unwrap_or_default();
            writeln!(f, "| {rule} | {} | {} |", judged.times, judged.strictly)?;
        }
        Ok(())
    }
}
