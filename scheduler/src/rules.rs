//! What pods of a class ask of the pods that are there: counters, and how their counts are judged.
//!
//! All that is said of a node beyond its own state is in its *standing*: a short row of numbers. In topologies with few nodes a
//! domain the numbers are counts; in others they are domains, whose counts are looked up when they are judged. Nodes of one
//! standing are judged once.

use crate::counters::{Counter, CounterId};
use crate::filter::Reason;
use crate::topology::Topologies;

/// Taints that a node only prefers to be tolerated, what the pod's node preferences give it, and what is made of pods near it.
pub(crate) const TAINTS: usize = 0;
pub(crate) const PREFERENCE: usize = 1;
pub(crate) const INCLINATION: usize = 2;
/// Numbers that each standing has.
pub(crate) const FIXED: usize = 3;
/// In place of a count or a domain: the node has no such label.
pub(crate) const NOWHERE: i64 = -1;

/// Where the number that a rule is about stands in a standing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Place {
    pub counter: CounterId,
    pub at: usize,
    /// The number is the count.
    pub is_count: bool,
}

/// How a number of a standing comes about.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Number {
    pub place: Place,
    /// Only whether there is anything is asked.
    pub is_flag: bool,
    /// Pods that claim room on the node count.
    pub with_claims: bool,
}

/// Hard: no domain may have many more than another.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hard {
    pub place: Place,
    pub max_skew: i64,
    pub min_domains: usize,
    /// Whether the pod itself counts.
    pub own: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Soft {
    pub place: Place,
    pub max_skew: i64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rules {
    pub hard: Vec<Hard>,
    pub soft: Vec<Soft>,
    /// Nodes that lack a label of `soft` are worse than all others.
    pub needs_all_keys: bool,
    pub near: Vec<Place>,
    /// Its own like could be what it wants to stand near.
    pub is_of_its_kind: bool,
    pub apart: Vec<Place>,
    pub avoided: Vec<Place>,
    /// Weights of what is near in topologies whose domains are looked up.
    pub inclined: Vec<(Place, i64)>,
    /// Weights of what is near in others: counted into [`INCLINATION`].
    pub inclined_here: Vec<(CounterId, i64)>,
    /// Numbers of a standing.
    pub width: usize,
    /// Every number that is read off a node.
    pub numbers: Vec<Number>,
    /// The services that default spreading rests on.
    pub services: Option<u64>,
}

/// What scores are made of, before they are brought to one scale.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Raw {
    pub taints: i64,
    pub preference: i64,
    /// `None`: out of the topologies that soft constraints are about.
    pub spread: Option<i64>,
    pub inclination: i64,
}

impl Rules {
    /// Whether all that can refuse is in the numbers of a node's own standing: nothing that happens elsewhere changes it.
    pub fn are_local(&self) -> bool {
        let mut places = self.apart.iter().chain(&self.avoided);
        self.hard.is_empty() && self.near.is_empty() && places.all(|place| place.is_count)
    }

    /// Whether a pod may stand where this is the standing, and how good that is.
    ///
    /// # Errors
    /// The first rule that refuses.
    pub fn judge(
        &self,
        standing: &[i64],
        counters: &[Counter],
        topologies: &Topologies,
    ) -> Result<Raw, Reason> {
        let count = |place: &Place| {
            let number = standing[place.at];
            if number == NOWHERE || place.is_count {
                return (number != NOWHERE).then_some(number);
            }
            let domain = usize::try_from(number).ok()?;
            Some(counters[place.counter].count(domain))
        };
        for rule in &self.hard {
            let counter = &counters[rule.place.counter];
            let Some(here) = count(&rule.place) else {
                return Err(Reason::NoTopologyLabel);
            };
            let domains = topologies.scope(counter.scope).domains;
            let fewest = counter.fewest(domains, rule.min_domains);
            if here + rule.own - fewest > rule.max_skew {
                return Err(Reason::Skew);
            }
        }
        if !self.near.is_empty() {
            let mut near = self.near.iter();
            let is_first =
                self.is_of_its_kind && near.all(|place| counters[place.counter].total == 0);
            let mut near = self.near.iter();
            let is_near = |place| count(place).is_some_and(|here| is_first || here > 0);
            if !near.all(is_near) {
                return Err(Reason::NotNear);
            }
        }
        let holds = |place: &Place| count(place).is_some_and(|here| here > 0);
        if self.apart.iter().any(holds) {
            return Err(Reason::NotApart);
        }
        if self.avoided.iter().any(holds) {
            return Err(Reason::Avoided);
        }
        let inclined = self.inclined.iter();
        let inclined = inclined.map(|(place, weight)| count(place).unwrap_or(0) * weight);
        Ok(Raw {
            taints: standing[TAINTS],
            preference: standing[PREFERENCE],
            spread: self.crowd(count, counters, topologies),
            inclination: standing[INCLINATION] + inclined.sum::<i64>(),
        })
    }

    /// Matching pods in the domains of a node, over the soft constraints. Topologies with more domains weigh more.
    fn crowd(
        &self,
        count: impl Fn(&Place) -> Option<i64>,
        counters: &[Counter],
        topologies: &Topologies,
    ) -> Option<i64> {
        let mut crowd = 0.0;
        for rule in &self.soft {
            let Some(here) = count(&rule.place) else {
                if self.needs_all_keys {
                    return None;
                }
                continue;
            };
            let domains = topologies.scope(counters[rule.place.counter].scope).domains;
            crowd += real(here) * (real_count(domains) + 2.0).ln() + real(rule.max_skew - 1);
        }
        Some(whole(crowd))
    }
}

/// Counts are far below what a float holds exactly.
#[allow(clippy::cast_precision_loss)]
fn real(number: i64) -> f64 {
    number as f64
}

#[allow(clippy::cast_precision_loss)]
fn real_count(number: usize) -> f64 {
    number as f64
}

#[allow(clippy::cast_possible_truncation)]
fn whole(number: f64) -> i64 {
    number.round() as i64
}
