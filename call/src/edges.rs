//! Who called whom, as a node counts it and a server makes a graph of it: calls, how they ended and how long they took.
//!
//! A node counts from its start ([`EdgeCounts`]); what is new between two looks is [`Figures`], which can be put together over nodes and
//! times before anything is read from them.
//!
//! Invariants: pure; times are counted in groups that are the same everywhere ([`DURATION_MICROS`]), so that sums of them are exact; only
//! groups that have any are said.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Ends of the groups that durations are counted in, in microseconds. Those that Istio's metrics have are among them, so that its
/// histograms are sums of these. What takes longer than the last is in [`LONGER`].
pub const DURATION_MICROS: [f64; 53] = [
    1.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 70.0, 100.0, 150.0, 200.0, 250.0, 300.0,
    400.0, 500.0, 700.0, 1e3, 1.5e3, 2e3, 3e3, 4e3, 5e3, 7e3, 1e4, 1.5e4, 2e4, 2.5e4, 3.5e4, 5e4,
    7e4, 1e5, 1.5e5, 2e5, 2.5e5, 3.5e5, 5e5, 7e5, 1e6, 1.5e6, 2.5e6, 3.5e6, 5e6, 7e6, 1e7, 1.5e7,
    3e7, 6e7, 3e8, 6e8, 1.8e9, 3.6e9,
];

/// The group of what takes longer than an hour.
pub const LONGER: u8 = DURATION_MICROS.len() as u8;

/// One end of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeEnd {
    pub namespace: String,
    pub workload: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub app: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// `spiffe://…`; empty where nobody was reached.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub principal: String,
}

/// Who calls whom, for which service and how.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeName {
    pub source: EdgeEnd,
    pub destination: EdgeEnd,
    /// What was called; empty for a pod that was called by its address.
    pub service_namespace: String,
    pub service: String,
    /// `http`, `grpc` or `tcp`.
    pub protocol: String,
    /// `mutual_tls`, `in_process`, or `none` where nobody was reached.
    pub security: String,
}

/// What calls of one edge came to, in some time or on some nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Calls by how they ended: `200`, `503/UH`, or of gRPC `grpc-14`.
    pub outcomes: BTreeMap<String, u64>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    /// How long all of them took together.
    pub duration_micros: u64,
    /// Calls by the group of their duration, an index into [`DURATION_MICROS`].
    pub durations: BTreeMap<u8, u64>,
}

/// How a call ended, as a key of [`Figures::outcomes`].
#[must_use]
pub fn outcome(code: u16, grpc: Option<u16>, flag: &str) -> String {
    match (grpc, flag) {
        (Some(status), _) if code == 200 => format!("grpc-{status}"),
        (_, "-" | "") => code.to_string(),
        (_, flag) => format!("{code}/{flag}"),
    }
}

/// Whether calls that ended so are failures of whoever was called: a 5xx, none at all, and gRPC's words for either. That a client went
/// away, or asked for what is not there, is not.
#[must_use]
pub fn is_failure(outcome: &str) -> bool {
    if let Some(status) = outcome.strip_prefix("grpc-") {
        // UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: what gRPC maps to 5xx.
        return matches!(status, "2" | "4" | "12" | "13" | "14" | "15");
    }
    let (code, flag) = outcome.split_once('/').unwrap_or((outcome, ""));
    match code {
        "0" => flag != "DC",
        code => code.starts_with('5') && code.len() == 3,
    }
}

impl Figures {
    /// All calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.outcomes.values().copied().fold(0, u64::saturating_add)
    }

    /// Those that failed, see [`is_failure`].
    #[must_use]
    pub fn failures(&self) -> u64 {
        let failed = self.outcomes.iter().filter(|(how, _)| is_failure(how));
        failed.map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    /// Takes up what was counted elsewhere, or at another time, of the same.
    pub fn add(&mut self, other: &Self) {
        for (how, count) in &other.outcomes {
            match self.outcomes.get_mut(how) {
                Some(sum) => *sum = sum.saturating_add(*count),
                None => {
                    self.outcomes.insert(how.clone(), *count);
                }
            }
        }
        self.request_bytes = self.request_bytes.saturating_add(other.request_bytes);
        self.response_bytes = self.response_bytes.saturating_add(other.response_bytes);
        self.duration_micros = self.duration_micros.saturating_add(other.duration_micros);
        for (group, count) in &other.durations {
            let sum = self.durations.entry(*group).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// What is new since `earlier`; none of it where that is not an earlier state of the same count.
    #[must_use]
    pub fn after(&self, earlier: &Self) -> Option<Self> {
        fn new<K: Ord + Clone>(
            now: &BTreeMap<K, u64>,
            before: &BTreeMap<K, u64>,
        ) -> Option<BTreeMap<K, u64>> {
            if before.iter().any(|(key, count)| now.get(key) < Some(count)) {
                return None;
            }
            let all = now.iter().map(|(key, count)| {
                let before = before.get(key).copied().unwrap_or_default();
                (key.clone(), count - before)
            });
            Some(all.filter(|(_, count)| *count > 0).collect())
        }
        Some(Self {
            outcomes: new(&self.outcomes, &earlier.outcomes)?,
            request_bytes: self.request_bytes.checked_sub(earlier.request_bytes)?,
            response_bytes: self.response_bytes.checked_sub(earlier.response_bytes)?,
            duration_micros: self.duration_micros.checked_sub(earlier.duration_micros)?,
            durations: new(&self.durations, &earlier.durations)?,
        })
    }

    /// The time within which so many thousandths of all calls ended, in microseconds; 0 where there was none. Within a group, they are
    /// taken to be spread evenly; of what took longer than the last, its end.
    #[must_use]
    pub fn quantile_micros(&self, thousandths: u64) -> f64 {
        let total: u64 = self
            .durations
            .values()
            .copied()
            .fold(0, u64::saturating_add);
        let rank = total as f64 * thousandths.min(1000) as f64 / 1000.0;
        let mut below = 0.0;
        for (group, count) in &self.durations {
            let here = *count as f64;
            if below + here >= rank && here > 0.0 {
                let index = usize::from(*group);
                let begin = index.checked_sub(1).and_then(|at| DURATION_MICROS.get(at));
                let begin = begin.copied().unwrap_or_default();
                let end = DURATION_MICROS.get(index).copied().unwrap_or(begin);
                return begin + (end - begin) * ((rank - below) / here).clamp(0.0, 1.0);
            }
            below += here;
        }
        0.0
    }
}

/// What a node has counted of an edge since it began to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EdgeCounts {
    pub edge: EdgeName,
    pub figures: Figures,
}

/// What policies and routes have a node do with calls to a Service, and what came of it. What nobody asks for is not said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServicePolicies {
    pub namespace: String,
    pub name: String,
    /// Where endpoints are left alone, or would be for what they answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStanding>,
    /// Those that are in force.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultStanding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<RetryStanding>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_millis: Option<u64>,
    /// Where a route leads its calls by shares.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<WeightedBackend>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BreakerStanding {
    /// Endpoints that are left alone now, of so many.
    pub ejected: usize,
    pub endpoints: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultStanding {
    /// `namespace/name` of who asks for it.
    pub name: String,
    /// Seconds since the epoch.
    pub until: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_millis: Option<u64>,
    /// Of a hundred calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_percent: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort_percent: Option<u32>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryStanding {
    /// Tries beyond the first, at most.
    pub attempts: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedBackend {
    pub namespace: String,
    pub name: String,
    pub weight: u32,
}

impl ServicePolicies {
    /// Whether there is anything to say.
    #[must_use]
    pub fn is_none(&self) -> bool {
        let Self {
            namespace: _,
            name: _,
            breaker,
            faults,
            retries,
            timeout_millis,
            backends,
        } = self;
        breaker.is_none()
            && faults.is_empty()
            && retries.is_none()
            && timeout_millis.is_none()
            && backends.is_empty()
    }

    /// Takes up what another node says of the same Service: of what each of them sees for itself, the worst.
    pub fn add(&mut self, other: &Self) {
        self.breaker = match (self.breaker, other.breaker) {
            (Some(own), Some(other)) if other.ejected > own.ejected => Some(other),
            (own, other) => own.or(other),
        };
        if self.faults.is_empty() {
            self.faults.clone_from(&other.faults);
        }
        self.retries = self.retries.or(other.retries);
        self.timeout_millis = self.timeout_millis.or(other.timeout_millis);
        if self.backends.is_empty() {
            self.backends.clone_from(&other.backends);
        }
    }
}

/// What a node has counted of its edges, as it tells a server: `/stats/edges` at the node's port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeEdges {
    /// When its mesh began to count, by a clock of its own. Counts of another beginning are other counts.
    pub since: u64,
    /// Edges whose calls were seen at the end that called. Where only those were asked for that had calls lately, those.
    pub edges: Vec<EdgeCounts>,
    /// Calls of edges that there was no room for are under `overflow`; this many were.
    #[serde(default)]
    pub overflowed: u64,
    /// Services that policies and routes ask something for, a thousand at most; only where edges of late were asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServicePolicies>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(outcomes: &[(&str, u64)], durations: &[(u8, u64)]) -> Figures {
        let outcomes = outcomes.iter();
        Figures {
            outcomes: outcomes
                .map(|(how, count)| ((*how).to_owned(), *count))
                .collect(),
            request_bytes: 10,
            response_bytes: 20,
            duration_micros: 30,
            durations: durations.iter().copied().collect(),
        }
    }

    #[test]
    fn istios_groups_are_among_ours() {
        assert!(DURATION_MICROS.is_sorted());
        for millis in [
            0.5,
            1.0,
            5.0,
            10.0,
            25.0,
            50.0,
            100.0,
            250.0,
            500.0,
            1000.0,
            2500.0,
            5000.0,
            10000.0,
            30000.0,
            60000.0,
            300_000.0,
            600_000.0,
            1_800_000.0,
            3_600_000.0,
        ] {
            assert!(DURATION_MICROS.contains(&(millis * 1e3)), "{millis}");
        }
    }

    #[test]
    fn whose_failure_an_outcome_is() {
        for (code, grpc, flag, name, failed) in [
            (200, None, "-", "200", false),
            (404, None, "-", "404", false),
            (429, None, "-", "429", false),
            (500, None, "-", "500", true),
            (503, None, "UH", "503/UH", true),
            (0, None, "DC", "0/DC", false),
            (0, None, "UF", "0/UF", true),
            (200, Some(0), "-", "grpc-0", false),
            (200, Some(5), "-", "grpc-5", false),
            (200, Some(14), "-", "grpc-14", true),
            (503, Some(14), "UF", "503/UF", true),
        ] {
            assert_eq!(outcome(code, grpc, flag), name);
            assert_eq!(is_failure(name), failed, "{name}");
        }
    }

    #[test]
    fn what_is_new_and_what_is_all() {
        let earlier = figures(&[("200", 3)], &[(4, 3)]);
        let later = figures(&[("200", 5), ("503/UH", 1)], &[(4, 5), (9, 1)]);
        let new = later.after(&earlier).expect("the same count");
        assert_eq!((new.calls(), new.failures(), new.request_bytes), (3, 1, 0));
        assert_eq!(new.durations, [(4, 2), (9, 1)].into());
        // A node that began anew.
        assert_eq!(earlier.after(&later), None);
        let mut all = earlier.clone();
        all.add(&later);
        assert_eq!((all.calls(), all.response_bytes), (9, 40));
    }

    #[test]
    fn quantiles_lie_within_their_group() {
        for (durations, thousandths, expected) in [
            (&[][..], 500, 0.0),
            (&[(10, 100)], 500, 85.0),
            (&[(10, 90), (18, 10)], 990, 970.0),
            (&[(LONGER, 1)], 990, 3.6e9),
        ] {
            let found = figures(&[], durations).quantile_micros(thousandths);
            assert!((found - expected).abs() < 1e-6, "{durations:?}: {found}");
        }
    }
}
