//! Which of the nodes that can take a pod should.
//!
//! Kubernetes' scores and weights: untainted (3), preferred node affinity (2), spreading (2), preferred pod affinity (2), least
//! allocated (1), balanced (1), images that are there (1), each from 0 to 100. Equally good nodes are told apart by a hash of seed,
//! kind of pod and node, so a replay chooses the same.
//!
//! A score has two parts: one of the node alone ([`Snapshot::own_score`]), and one of its standing, which is brought to one scale over all
//! nodes that can take the pod ([`Scale`]).

use weft_api::hash::fnv1a_64_seeded;
use weft_api::node_selector::term_holds;
use weft_api::toleration::tolerates;

use crate::class::Class;
use crate::node::NodeFacts;
use crate::pod::PodNeeds;
use crate::rules::Raw;
use crate::snapshot::Snapshot;
use crate::topology::Slot;

const MAX: i64 = 100;
const WEIGHT_TAINTS: i64 = 3;
const WEIGHT_PREFERENCE: i64 = 2;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_INCLINATION: i64 = 2;
/// Images smaller than this are as good as there, and larger ones, each, no better than this.
const IMAGE_BYTES_MIN: i64 = 23 << 20;
const IMAGE_BYTES_MAX: i64 = 1000 << 20;

/// The least and the most of each part, over the nodes that can take a pod.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Scale {
    taints: i64,
    preference: i64,
    spread: Option<(i64, i64)>,
    inclination: Option<(i64, i64)>,
}

impl Scale {
    pub fn take(&mut self, raw: &Raw) {
        let widen = |range: Option<(i64, i64)>, value: i64| {
            let (least, most) = range.unwrap_or((value, value));
            Some((least.min(value), most.max(value)))
        };
        self.taints = self.taints.max(raw.taints);
        self.preference = self.preference.max(raw.preference);
        if let Some(spread) = raw.spread {
            self.spread = widen(self.spread, spread);
        }
        self.inclination = widen(self.inclination, raw.inclination);
    }

    pub fn score(&self, raw: &Raw) -> i64 {
        let taints = match self.taints {
            0 => MAX,
            most => MAX - MAX * raw.taints / most,
        };
        let preference = match self.preference {
            0 => 0,
            most => MAX * raw.preference / most,
        };
        let spread = match (self.spread, raw.spread) {
            (_, None) => 0,
            (None | Some((_, 0)), Some(_)) => MAX,
            (Some((least, most)), Some(crowd)) => MAX * (most + least - crowd) / most,
        };
        let inclination = match self.inclination {
            Some((least, most)) if most > least => MAX * (raw.inclination - least) / (most - least),
            _ => 0,
        };
        WEIGHT_TAINTS * taints
            + WEIGHT_PREFERENCE * preference
            + WEIGHT_SPREAD * spread
            + WEIGHT_INCLINATION * inclination
    }
}

impl Snapshot {
    /// Least allocated, balanced and images, with a pod of the class on it.
    pub(crate) fn own_score(&self, class: &Class, slot: Slot) -> i64 {
        let node = &self.nodes[slot];
        let Some(facts) = &node.facts else {
            return 0;
        };
        let needs = &*class.needs;
        let weighed = [
            (facts.allocatable.cpu, node.weight.0 + needs.weight.cpu),
            (
                facts.allocatable.memory,
                node.weight.1 + needs.weight.memory,
            ),
        ];
        let requested = [
            (facts.allocatable.cpu, node.used.cpu, needs.requests.cpu),
            (
                facts.allocatable.memory,
                node.used.memory,
                needs.requests.memory,
            ),
        ];
        least_allocated(weighed) + balanced(requested) + self.images(needs, facts)
    }

    /// As far as its images are there; images that many nodes have count more, or the first node that has one would get all pods.
    fn images(&self, needs: &PodNeeds, node: &NodeFacts) -> i64 {
        if node.images.is_empty() || needs.images.is_empty() {
            return 0;
        }
        let nodes = i64::try_from(self.by_name.len()).unwrap_or(i64::MAX).max(1);
        let here = needs.images.iter().filter_map(|image| {
            let size = *node.images.get(image)?;
            let holders = self.images.get(image).copied().unwrap_or(0);
            Some(size.saturating_mul(holders) / nodes)
        });
        let sum = here.fold(0_i64, i64::saturating_add);
        let count = i64::try_from(needs.images.len()).unwrap_or(1);
        let most = IMAGE_BYTES_MAX.saturating_mul(count);
        let sum = sum.clamp(IMAGE_BYTES_MIN, most);
        MAX * (sum - IMAGE_BYTES_MIN) / (most - IMAGE_BYTES_MIN).max(1)
    }

    /// The order of equals: a hash, mixed, that spreads them evenly and repeats exactly.
    pub(crate) fn tie(&self, class: &Class, slot: Slot) -> u64 {
        let seed = self.seed ^ class.needs.fingerprint;
        let state = fnv1a_64_seeded(seed, self.nodes[slot].name.bytes());
        let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state ^ (state >> 31)
    }
}

/// `part` of `whole` in percent; amounts that no machine has are cut.
fn percent(part: i128, whole: i128) -> i64 {
    const LARGE: i128 = 1 << 56;
    let cut = |amount: i128| i64::try_from(amount.clamp(0, LARGE)).unwrap_or(0);
    MAX * cut(part) / cut(whole).max(1)
}

/// The mean of what is free of each, in percent.
fn least_allocated(amounts: [(i128, i128); 2]) -> i64 {
    let shares = amounts.into_iter().filter(|(of, _)| *of > 0);
    let (sum, count) = shares.fold((0, 0), |(sum, count), (of, taken)| {
        (sum + percent(of - taken, of), count + 1)
    });
    if count == 0 { 0 } else { sum / count }
}

/// How much nearer to each other the pod brings what is taken of each: 75 if nothing changes. A pod without requests: 0 everywhere.
fn balanced(amounts: [(i128, i128, i128); 2]) -> i64 {
    if amounts.iter().all(|(_, _, requested)| *requested == 0) {
        return 0;
    }
    let level = |with: bool| {
        let taken = amounts.map(|(of, used, requested)| {
            let used = if with { used + requested } else { used };
            (of > 0).then(|| percent(used, of).min(MAX))
        });
        match taken {
            // The standard deviation of two numbers is half their distance.
            [Some(one), Some(other)] => MAX - (one - other).abs() / 2,
            _ => MAX,
        }
    };
    MAX / 2 + (MAX / 2 + level(true) - level(false)) / 2
}

/// Taints of a node that pods should rather avoid, and that the pod does not tolerate.
pub(crate) fn soft_taints(needs: &PodNeeds, node: &NodeFacts) -> i64 {
    let soft = node.taints.iter();
    let soft = soft.filter(|taint| taint.effect == "PreferNoSchedule");
    let untolerated = soft.filter(|taint| !needs.tolerations.iter().any(|t| tolerates(t, taint)));
    i64::try_from(untolerated.count()).unwrap_or(i64::MAX)
}

/// The weight of the pod's node preferences that the node meets.
pub(crate) fn preference(needs: &PodNeeds, node: &NodeFacts) -> i64 {
    let held = needs.preferred.iter().filter(|term| {
        let preference = &term.preference;
        // An empty preference matches every node.
        let empty = preference.match_expressions.is_none() && preference.match_fields.is_none();
        empty || term_holds(preference, &node.name, &node.labels)
    });
    held.map(|term| i64::from(term.weight)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptier_node_is_better() {
        for (amounts, score) in [
            ([(100, 0), (100, 0)], 100),
            ([(100, 50), (100, 0)], 75),
            ([(100, 100), (100, 100)], 0),
            ([(3, 1), (1, 1)], 33),
            // What a node does not have does not count; one that has nothing is no place.
            ([(0, 10), (100, 40)], 60),
            ([(0, 0), (0, 0)], 0),
        ] {
            assert_eq!(least_allocated(amounts), score, "{amounts:?}");
        }
    }

    #[test]
    fn what_is_taken_of_each_should_be_alike() {
        for (amounts, score) in [
            // Nothing changes.
            ([(100, 0, 10), (100, 0, 10)], 75),
            // Nearer to each other by 20 and by 40 percent, and further.
            ([(100, 0, 20), (100, 20, 0)], 80),
            ([(100, 0, 40), (100, 40, 0)], 85),
            ([(100, 0, 0), (100, 0, 40)], 65),
            // A pod that asks for nothing has no say.
            ([(100, 90, 0), (100, 10, 0)], 0),
        ] {
            assert_eq!(balanced(amounts), score, "{amounts:?}");
        }
    }

    #[test]
    fn every_part_is_on_the_same_scale() {
        let raw = |taints, preference, spread, inclination| Raw {
            taints,
            preference,
            spread,
            inclination,
        };
        for (all, scores) in [
            // Taints that are not tolerated, against the most of them: weight 3.
            (vec![raw(0, 0, None, 0), raw(2, 0, None, 0)], vec![300, 0]),
            // What is preferred, against the most of it: weight 2.
            (
                vec![raw(0, 10, None, 0), raw(0, 40, None, 0)],
                vec![350, 500],
            ),
            // Crowds, turned round: weight 2.
            (
                vec![raw(0, 0, Some(1), 0), raw(0, 0, Some(4), 0)],
                vec![500, 350],
            ),
            (
                vec![raw(0, 0, Some(0), 0), raw(0, 0, None, 0)],
                vec![500, 300],
            ),
            // Pods near it, from the least to the most: weight 2.
            (
                vec![raw(0, 0, None, -5), raw(0, 0, None, 15), raw(0, 0, None, 5)],
                vec![300, 500, 400],
            ),
        ] {
            let mut scale = Scale::default();
            all.iter().for_each(|raw| scale.take(raw));
            let told: Vec<i64> = all.iter().map(|raw| scale.score(raw)).collect();
            assert_eq!(told, scores, "{all:?}");
        }
    }
}
