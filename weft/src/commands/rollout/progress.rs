//! How far a Rollout is, a line each time that changes: until it is promoted, or rolled back.

use std::time::Duration;

use serde_json::{Value, json};

use super::Output;
use crate::commands::object::Resource;
use crate::exit::Failure;
use crate::stdout;

/// Between two looks. A step takes seconds at least.
const LOOK_PAUSE: Duration = Duration::from_millis(500);

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    phase: String,
    pub message: String,
    pub stable: String,
    pub current: String,
    pub step: i64,
    steps: i64,
    weight: i64,
    /// What the last round of the analysis came to.
    round: Option<String>,
    is_seen: bool,
}

impl Progress {
    pub fn of(rollout: &Value) -> Self {
        let status = &rollout["status"];
        let text = |name: &str| status[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| status[name].as_i64().unwrap_or(0);
        let rounds = status["analysis"]["rounds"].as_array();
        let round = rounds.and_then(|rounds| rounds.last()).map(|round| {
            let verdict = round["verdict"].as_str().unwrap_or_default();
            let message = round["message"].as_str().unwrap_or_default();
            format!("{}: {message}", verdict.to_lowercase())
        });
        Self {
            phase: text("phase"),
            message: text("message"),
            stable: text("stableRevision"),
            current: text("currentRevision"),
            step: number("step"),
            steps: number("steps"),
            weight: number("weight"),
            round,
            is_seen: status["observedGeneration"] == rollout["metadata"]["generation"],
        }
    }

    /// No revision is on its way.
    pub fn is_over(&self) -> bool {
        matches!(&*self.phase, "Healthy" | "RolledBack")
    }

    /// As a line of text, or as one of JSON.
    ///
    /// # Errors
    /// None; the same shape as other output.
    pub fn shown(&self, name: &str, output: Option<Output>) -> anyhow::Result<String> {
        let Self {
            phase,
            message,
            stable,
            current,
            step,
            steps,
            weight,
            round,
            ..
        } = self;
        if output == Some(Output::Json) {
            let line = json!({"name": name, "phase": phase, "message": message, "stableRevision": stable,
                "currentRevision": current, "step": step, "steps": steps, "weight": weight, "lastRound": round});
            return Ok(line.to_string());
        }
        let round = round.as_ref().map(|round| format!("; last round {round}"));
        let round = round.filter(|_| !self.is_over()).unwrap_or_default();
        Ok(format!(
            "{name} {phase} {step}/{steps} {weight:>3} %  {message}{round}"
        ))
    }
}

/// Prints each change until the Rollout is at its end. `after`: the generation that has to be heeded first.
///
/// # Errors
/// When the revision is rolled back, or the Rollout cannot be read.
pub async fn follow(
    rollouts: &Resource,
    name: &str,
    after: Option<i64>,
    output: Option<Output>,
) -> anyhow::Result<()> {
    let mut before: Option<Progress> = None;
    loop {
        let rollout = rollouts.get(name).await?;
        let progress = Progress::of(&rollout);
        let observed = rollout["status"]["observedGeneration"].as_i64();
        let heeded = match after {
            Some(after) => observed.is_some_and(|observed| observed >= after),
            None => progress.is_seen,
        };
        if heeded && before.as_ref() != Some(&progress) {
            stdout::line(progress.shown(name, output)?)?;
        }
        if heeded && progress.is_over() {
            if progress.phase == "RolledBack" {
                let what = format!("rollout {name} was rolled back");
                let next = "mend what is wrong and bring out another template, or try again with `weft rollout retry`";
                return Err(Failure::new(what, progress.message, next).into());
            }
            return Ok(());
        }
        before = Some(progress);
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_it_is() {
        let rollout = json!({
            "metadata": {"generation": 3},
            "status": {"observedGeneration": 3, "phase": "Progressing", "message": "step 1: 0 of 2 rounds passed",
                "stableRevision": "a", "currentRevision": "b", "step": 1, "steps": 4, "weight": 20,
                "analysis": {"rounds": [{"verdict": "Inconclusive", "message": "3 calls are fewer than the 10 that say anything"}]}},
        });
        let progress = Progress::of(&rollout);
        assert_eq!(
            progress.shown("web", None).unwrap(),
            "web Progressing 1/4  20 %  step 1: 0 of 2 rounds passed; last round inconclusive: 3 calls are fewer than the 10 that say anything"
        );
        let json: Value =
            serde_json::from_str(&progress.shown("web", Some(Output::Json)).unwrap()).unwrap();
        assert_eq!(json["weight"], 20);
        assert!(!progress.is_over());
    }
}
