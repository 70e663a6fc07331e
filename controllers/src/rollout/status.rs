//! How far a Rollout is, as its status tells it: what the next look decides on, and what people read.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weft_api::view::Time;

use super::Rollout;
use super::sets::Sets;
use super::traffic::Routed;
use crate::Context;
use crate::conditions::Condition;
use crate::indexer::Cached;

/// Rounds that are shown; the schema allows no more.
const ROUNDS_MAX: usize = 10;

pub const PROGRESSING: &str = "Progressing";
pub const PAUSED: &str = "Paused";
pub const PROMOTING: &str = "Promoting";
pub const HEALTHY: &str = "Healthy";
pub const ROLLED_BACK: &str = "RolledBack";

/// The status.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    pub observed_generation: i64,
    pub phase: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rolled_back_because: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<String>,
    pub step: i64,
    pub steps: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_started: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progressed: Option<Time>,
    pub weight: i64,
    pub marked: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub collision_count: Option<i32>,
    pub replicas: i32,
    pub ready_replicas: i32,
    pub available_replicas: i32,
    pub updated_replicas: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysed>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Value>,
}

/// What the rounds came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Analysed {
    /// Of the present step.
    pub passed: i64,
    pub failed: i64,
    pub inconclusive: i64,
    pub rounds: Vec<Round>,
}

/// One round.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Round {
    pub ended: Time,
    pub verdict: Verdict,
    pub requests: u64,
    pub failures: u64,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    Passed,
    Failed,
    Inconclusive,
}

impl Status {
    /// Whether a revision is on its way.
    pub fn is_on_its_way(&self) -> bool {
        self.stable_revision.is_some()
            && self.stable_revision != self.current_revision
            && self.rolled_back_revision != self.current_revision
    }

    /// Whether it was rolled back, and nothing else was asked for since.
    pub fn is_rolled_back(&self) -> bool {
        self.current_revision.is_some() && self.rolled_back_revision == self.current_revision
    }

    /// Counts a round, and keeps it among those that are shown.
    pub fn note(&mut self, round: Round) {
        let analysis = self.analysis.get_or_insert_default();
        match round.verdict {
            Verdict::Passed => analysis.passed += 1,
            Verdict::Failed => analysis.failed += 1,
            Verdict::Inconclusive => analysis.inconclusive += 1,
        }
        analysis.rounds.push(round);
        let excess = analysis.rounds.len().saturating_sub(ROUNDS_MAX);
        analysis.rounds.drain(..excess);
    }

    pub fn failed_rounds(&self) -> i64 {
        self.analysis.as_ref().map_or(0, |all| all.failed)
    }

    pub fn passed_rounds(&self) -> i64 {
        self.analysis.as_ref().map_or(0, |all| all.passed)
    }

    /// What is told beside the steps: the generation, and the conditions.
    pub fn conclude(
        &mut self,
        row: &Cached<Rollout>,
        sets: &Sets<'_>,
        routed: &Routed,
        cx: &Context<'_>,
    ) {
        let generation = row.meta.generation;
        self.observed_generation = generation;
        let served = self.stable_revision.as_deref().unwrap_or_default();
        let (there, wanted) = (sets.available(served), row.body.asked.replicas);
        let available = Condition {
            kind: "Available",
            holds: there >= wanted && self.stable_revision.is_some(),
            reason: match there >= wanted {
                true => "MinimumReplicasAvailable",
                false => "MinimumReplicasUnavailable",
            },
            message: &format!(
                "{there} of {wanted} pods of the revision that is served are available."
            ),
            generation,
        };
        let progressing = Condition {
            kind: "Progressing",
            holds: !matches!(&*self.phase, ROLLED_BACK | PAUSED),
            reason: &self.phase,
            message: &self.message,
            generation,
        };
        let traffic = Condition {
            kind: "TrafficRouted",
            holds: routed.holds,
            reason: routed.reason,
            message: &routed.message,
            generation,
        };
        let before = Value::from(row.body.status.conditions.clone());
        let ours = [available, progressing, traffic];
        let told: Vec<Value> = ours.iter().map(|one| one.after(&before, cx)).collect();
        self.conditions = told;
    }
}
