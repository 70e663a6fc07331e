//! What came of a test, by the suite's own count and words; and the file that results are written to, from which a run goes on.
//!
//! Invariant: a test counts as passed only if the suite says `1 Passed`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::suite::Test;
use crate::Failure;

pub(super) const RESULTS: &str = "results.jsonl";
/// How much of a failure's own words is kept.
const WORDS_MAX: usize = 400;

/// What came of a test.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub result: Verdict,
    pub seconds: f64,
    pub words: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    Passed,
    Failed,
    TimedOut,
    Skipped,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Passed, Self::Failed, Self::TimedOut, Self::Skipped];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::TimedOut => "timed out",
            Self::Skipped => "skipped",
        }
    }
}

/// By the line in which the suite counts what it ran.
pub(super) fn verdict(text: &str, in_time: bool) -> Verdict {
    let count = |of: &str| {
        let before = text.rsplit_once(of)?.0;
        let digits = before
            .trim_end()
            .rsplit(|letter: char| !letter.is_ascii_digit())
            .next()?;
        digits.parse::<u32>().ok()
    };
    match (count(" Passed"), count(" Failed")) {
        (Some(1), Some(0)) => Verdict::Passed,
        _ if !in_time => Verdict::TimedOut,
        (Some(0), Some(0)) => Verdict::Skipped,
        _ => Verdict::Failed,
    }
}

/// The first failure's own words, without its trace.
pub(super) fn words(text: &str) -> String {
    let failed = text
        .match_indices("[FAILED] ")
        .map(|(at, mark)| text.get(at + mark.len()..).unwrap_or_default())
        .find(|rest| !rest.starts_with('[') && !rest.starts_with("in "));
    let told = match failed {
        Some(rest) => rest.split("\n  In [").next().unwrap_or(rest),
        None => {
            let from = text.len().saturating_sub(2 * WORDS_MAX);
            let from = (from..text.len())
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            text.get(from..).unwrap_or_default()
        }
    };
    let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
    told.chars().take(WORDS_MAX).collect()
}

/// What a run judged before, of the same suite and weft.
pub(super) fn judged(results: &Path, head: &Value) -> Result<BTreeMap<usize, Outcome>> {
    let text = match fs::read_to_string(results) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", results.display())),
    };
    let mut lines = text.lines();
    let is_of_this = lines
        .next()
        .and_then(|line| serde_json::from_str::<Value>(line).ok())
        .is_some_and(|line| line == *head);
    if !is_of_this {
        let what = format!("{} is of another weft or suite", results.display());
        return Err(Failure::new(what, "leave --resume out, and run all of it").into());
    }
    // The last line may be cut short: its test runs again.
    Ok(lines.filter_map(outcome_of).collect())
}

fn outcome_of(line: &str) -> Option<(usize, Outcome)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let result = Verdict::ALL
        .into_iter()
        .find(|verdict| line["result"] == verdict.name())?;
    let outcome = Outcome {
        result,
        seconds: line["seconds"].as_f64()?,
        words: line["why"].as_str()?.to_owned(),
    };
    Some((usize::try_from(line["number"].as_u64()?).ok()?, outcome))
}

pub(super) fn line_of(test: &Test, outcome: &Outcome) -> Value {
    json!({
        "number": test.number, "name": test.name, "file": test.file, "class": test.classes,
        "result": outcome.result.name(), "seconds": (outcome.seconds * 10.0).round() / 10.0, "why": outcome.words,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_passes_only_if_the_suite_counts_it() {
        let line = |passed: u32, failed: u32| {
            format!(
                "Ran 1 of 7000 Specs\nSUCCESS! -- {passed} Passed | {failed} Failed | 0 Pending | 6999 Skipped\n"
            )
        };
        assert!(verdict(&line(1, 0), true) == Verdict::Passed);
        assert!(verdict(&line(0, 1), true) == Verdict::Failed);
        assert!(verdict(&line(0, 0), true) == Verdict::Skipped);
        assert!(verdict(&line(0, 1), false) == Verdict::TimedOut);
        assert!(verdict("killed", true) == Verdict::Failed);
        assert!(verdict("10 Passed | 0 Failed", true) == Verdict::Failed);
    }

    #[test]
    fn a_run_goes_on_from_what_was_judged_by_the_same_weft() {
        let folder = std::env::temp_dir().join(format!("weft-results-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let results = folder.join(RESULTS);
        let (head, other) = (json!({"weft": "a"}), json!({"weft": "b"}));
        assert!(judged(&results, &head).unwrap().is_empty());
        let test = Test {
            number: 7,
            name: "n".to_owned(),
            file: "f".to_owned(),
            classes: "A".to_owned(),
            needs: String::new(),
        };
        let outcome = Outcome {
            result: Verdict::TimedOut,
            seconds: 12.0,
            words: "why".to_owned(),
        };
        let line = line_of(&test, &outcome);
        fs::write(&results, format!("{head}\n{line}\n{{\"number\":8,\"res")).unwrap();
        let found = judged(&results, &head).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [&7]);
        assert_eq!(line_of(&test, &found[&7]), line);
        assert!(judged(&results, &other).is_err());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_failure_is_told_in_its_own_words() {
        let text = "• [FAILED] [1.2 seconds]\n[FAILED] in [It] - x\n  [FAILED] expected\n    a thing\n  In [It] at: y\n";
        assert_eq!(words(text), "expected a thing");
    }
}
