//! The way of a revision as a transcript: what is so, and what becomes of the status.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::asked::{Asked, Spec};
use super::status::{Round, Status, Verdict};
use super::step::{Facts, advance, next_look, size};
use crate::{plus_seconds, stamp};

struct Way {
    asked: Asked,
    status: Status,
    now: Timestamp,
    revision: &'static str,
    /// Pods that are available; none: as many as are wanted.
    available: Option<i64>,
    is_routed: bool,
}

fn asked(strategy: &Value, more: &Value) -> Asked {
    let mut spec = json!({
        "replicas": 10, "traffic": {"service": "web"}, "strategy": strategy,
        "progressDeadlineSeconds": 100,
        "analysis": {"intervalSeconds": 10, "failureLimit": 2, "successPercent": 99},
    });
    for (name, value) in more.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    let spec: Spec = serde_json::from_value(spec).unwrap();
    spec.resolved()
}

impl Way {
    /// The first revision is served.
    fn new(strategy: &Value) -> Self {
        let mut way = Self {
            asked: asked(strategy, &json!({})),
            status: Status::default(),
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            revision: "a",
            available: None,
            is_routed: true,
        };
        assert_eq!(
            way.step(None).last().unwrap(),
            "RolloutCompleted a is the first revision"
        );
        way.revision = "b";
        way
    }

    /// A look, and what it tells.
    fn step(&mut self, round: Option<Verdict>) -> Vec<String> {
        let available = self
            .available
            .unwrap_or_else(|| size(&self.status, &self.asked));
        let round = round.map(|verdict| Round {
            ended: stamp(self.now),
            verdict,
            requests: 100,
            failures: 7,
            message: "7 of 100 calls failed".to_owned(),
        });
        let facts = Facts {
            asked: &self.asked,
            revision: self.revision,
            available,
            serves: available > 0,
            is_routed: self.is_routed,
            round,
            now: self.now,
        };
        let told = advance(&mut self.status, &facts);
        told.into_iter()
            .map(|told| format!("{} {}", told.reason, told.message))
            .collect()
    }

    /// Looks until nothing changes.
    fn settle(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let before = self.status.clone();
            told.extend(self.step(None));
            if self.status == before {
                return told;
            }
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now = plus_seconds(self.now, seconds);
    }

    /// Phase, step, weight, and the pods that the revision is to have.
    fn shown(&self) -> String {
        let Status {
            phase,
            step,
            weight,
            ..
        } = &self.status;
        format!(
            "{phase} {step} {weight} % {}",
            size(&self.status, &self.asked)
        )
    }
}

fn canary() -> Value {
    json!({"canary": {"steps": [
        {"setWeight": 15}, {"analysis": {"rounds": 1}}, {"setWeight": 60}, {"pause": {"durationSeconds": 30}}]}})
}

#[test]
fn a_canary_goes_step_by_step() {
    let mut way = Way::new(&canary());
    assert_eq!(
        way.settle(),
        [
            "RolloutStarted b begins",
            "RolloutStepCompleted step 0: 15 % of calls go to b"
        ]
    );
    assert_eq!(way.shown(), "Progressing 1 15 % 2");
    assert!(way.step(Some(Verdict::Inconclusive)).is_empty());
    assert_eq!(way.shown(), "Progressing 1 15 % 2");
    // Pods first, then calls.
    let told = way.step(Some(Verdict::Passed));
    assert_eq!(told, ["RolloutStepCompleted step 1: 1 of 1 rounds passed"]);
    assert_eq!(way.shown(), "Progressing 2 15 % 6");
    way.settle();
    assert_eq!(way.shown(), "Paused 3 60 % 6");
    way.pass(29);
    assert!(way.settle().is_empty());
    way.pass(1);
    let told = way.settle();
    assert_eq!(
        told.last().unwrap(),
        "RolloutCompleted b is promoted in the place of a"
    );
    assert_eq!(way.shown(), "Healthy 4 0 % 10");
    assert_eq!(way.status.stable_revision.as_deref(), Some("b"));
}

#[test]
fn weights_count_once_the_routes_have_them() {
    let mut way = Way::new(&canary());
    way.is_routed = false;
    way.settle();
    assert_eq!(way.shown(), "Progressing 0 15 % 2");
    way.is_routed = true;
    way.available = Some(1);
    way.settle();
    assert_eq!(way.shown(), "Progressing 0 15 % 2");
    way.available = None;
    way.settle();
    assert_eq!(way.shown(), "Progressing 1 15 % 2");
}

#[test]
fn a_revision_is_rolled_back_for_its_rounds_for_time_and_by_somebody() {
    for (case, why) in [
        ("rounds", "b is rolled back to a: 7 of 100 calls failed"),
        (
            "time",
            "b is rolled back to a: nothing went on for 100 s: step 1: 0 of 1 rounds passed",
        ),
        ("word", "b is rolled back to a: somebody took it back"),
    ] {
        let mut way = Way::new(&canary());
        way.settle();
        let told = match case {
            "rounds" => {
                let told = way.step(Some(Verdict::Failed));
                assert_eq!(told, ["AnalysisFailed 7 of 100 calls failed"]);
                way.step(Some(Verdict::Failed))
            }
            "time" => {
                way.pass(99);
                assert!(way.step(Some(Verdict::Inconclusive)).is_empty());
                way.pass(1);
                way.step(None)
            }
            _ => {
                way.asked = asked(&canary(), &json!({"abort": {"revision": "b"}}));
                way.step(None)
            }
        };
        assert_eq!(told, [format!("RolloutRolledBack {why}")], "{case}");
        assert_eq!(way.shown(), "RolledBack 1 0 % 10", "{case}");
        // It stays back, and is tried again when somebody says so.
        way.pass(1000);
        assert!(way.settle().is_empty(), "{case}");
        way.asked = asked(&canary(), &json!({"retry": "1"}));
        way.settle();
        assert_eq!(way.shown(), "Progressing 1 15 % 2", "{case}");
    }
}

#[test]
fn a_pause_is_nobodys_delay() {
    let steps = json!({"canary": {"steps": [{"setWeight": 10}, {"pause": {}}, {"analysis": {}}]}});
    let mut way = Way::new(&steps);
    way.settle();
    way.pass(10_000);
    assert!(way.settle().is_empty());
    assert_eq!(way.shown(), "Paused 1 10 % 1");
    // A word about another revision, or an earlier step, is none.
    for word in [
        json!({"revision": "a", "step": 1}),
        json!({"revision": "b", "step": 0}),
    ] {
        way.asked = asked(&steps, &json!({ "promote": word }));
        assert!(way.settle().is_empty());
    }
    way.asked = asked(&steps, &json!({"paused": true}));
    way.settle();
    way.pass(10_000);
    way.asked = asked(&steps, &json!({"promote": {"revision": "b", "step": 1}}));
    way.settle();
    assert_eq!(way.shown(), "Progressing 2 10 % 1");
    way.pass(99);
    assert!(way.settle().is_empty());
    way.asked = asked(&steps, &json!({"promote": {"revision": "b"}}));
    let told = way.settle();
    assert_eq!(
        told.first().unwrap(),
        "RolloutPromoted b goes on at once: 1 steps are left out"
    );
    assert_eq!(way.shown(), "Healthy 3 0 % 10");
}

#[test]
fn a_change_of_mind_begins_anew_and_the_template_of_before_ends_it() {
    let mut way = Way::new(&canary());
    way.settle();
    way.revision = "c";
    let told = way.settle();
    assert_eq!(
        told.get(..2).unwrap(),
        [
            "RolloutLeft b was on its way, and something else is asked for",
            "RolloutStarted c begins"
        ]
    );
    way.revision = "a";
    let told = way.settle();
    assert_eq!(
        told,
        ["RolloutLeft c was on its way, and something else is asked for"]
    );
    assert_eq!(way.shown(), "Healthy 4 0 % 10");
}

#[test]
fn blue_and_green_and_marks_have_all_pods_before_any_call() {
    let mut way = Way::new(&json!({"blueGreen": {"autoPromotionSeconds": 60}}));
    way.available = Some(9);
    way.settle();
    assert_eq!(way.shown(), "Progressing 0 0 % 10");
    way.available = None;
    way.settle();
    assert_eq!(way.shown(), "Paused 1 0 % 10");
    way.pass(60);
    way.settle();
    assert_eq!(way.shown(), "Healthy 2 0 % 10");

    let mut way =
        Way::new(&json!({"ab": {"headers": [{"name": "x-try", "value": "1"}], "rounds": 2}}));
    way.settle();
    assert_eq!(
        (way.shown().as_str(), way.status.marked),
        ("Progressing 1 0 % 10", true)
    );
    way.step(Some(Verdict::Passed));
    way.step(Some(Verdict::Passed));
    way.settle();
    assert_eq!(
        (way.shown().as_str(), way.status.marked),
        ("Healthy 2 0 % 10", false)
    );
}

#[test]
fn what_waits_for_time_is_looked_at_again() {
    let mut way = Way::new(&canary());
    way.settle();
    let facts = |way: &Way, now| {
        let facts = Facts {
            asked: &way.asked,
            revision: "b",
            available: 10,
            serves: true,
            is_routed: true,
            round: None,
            now,
        };
        next_look(&way.status, &facts).map(|after| after.as_secs())
    };
    // The deadline of the analysis; then the end of the pause.
    assert_eq!(facts(&way, plus_seconds(way.now, 40)), Some(60));
    way.step(Some(Verdict::Passed));
    way.settle();
    assert_eq!(facts(&way, plus_seconds(way.now, 10)), Some(20));
}
