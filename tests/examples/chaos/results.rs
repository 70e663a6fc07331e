//! What a campaign is summed up as: a document, a table for readers, a row in `docs/chaos-results.md`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use super::fault::Kind;
use super::history::{History, Moment, Operation, Told};

/// Of many violations the first ones tell as much.
const SHOWN: usize = 20;

const HEAD: &str = "\
# Real servers under faults

Three `weft server` processes, killed, paused and cut off from each other while clients write and read through all of them;
then the history is judged (`tests/examples/chaos/{check,search}.rs`). A row for each run, written by the run itself:

    cargo xtask chaos --minutes N [--seed S]

*Leader killed* is from the kill to the first answer to a write that was asked for after it: median and longest.

| date | seed | commit | minutes | network cut | cycles | operations | acknowledged | violations | leader killed |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
";

/// A fault and what came after it.
#[derive(Debug, Clone, Copy)]
pub struct Cycle {
    pub kind: Kind,
    pub struck: Moment,
}

pub struct Results {
    pub seed: u64,
    pub minutes: f64,
    pub cuts: bool,
    pub cycles: usize,
    pub operations: usize,
    pub acknowledged: usize,
    pub unknown: usize,
    pub resumes_refused: usize,
    /// Steps of single objects that were also judged by search.
    pub searched: usize,
    pub violations: Vec<String>,
    /// For each kind of fault, how long until writes were accepted again, shortest first.
    pub again: BTreeMap<Kind, Vec<Duration>>,
}

impl Results {
    pub fn new(
        seed: u64,
        minutes: f64,
        cuts: bool,
        cycles: &[Cycle],
        history: &History,
        violations: Vec<String>,
        searched: usize,
    ) -> Self {
        let count = |what: &dyn Fn(&&Operation) -> bool| {
            let operations = history.operations.iter();
            operations.filter(what).count()
        };
        Self {
            seed,
            minutes,
            cuts,
            cycles: cycles.len(),
            operations: history.operations.len(),
            acknowledged: count(&|operation| operation.acknowledged()),
            unknown: count(&|operation| matches!(operation.told, Told::Unknown(_))),
            resumes_refused: history.watches.iter().filter(|w| w.given_up).count(),
            searched,
            violations,
            again: accepted_again(cycles, history),
        }
    }

    pub fn document(&self) -> Value {
        let again: serde_json::Map<String, Value> = self
            .again
            .iter()
            .map(|(kind, times)| {
                let summary = json!({
                    "cycles": times.len(),
                    "medianSeconds": seconds(median(times)),
                    "longestSeconds": seconds(times.last().copied()),
                });
                (kind.name().to_owned(), summary)
            })
            .collect();
        json!({
            "seed": self.seed,
            "minutes": self.minutes,
            "networkCut": self.cuts,
            "cycles": self.cycles,
            "operations": self.operations,
            "acknowledged": self.acknowledged,
            "unknown": self.unknown,
            "resumesRefused": self.resumes_refused,
            "searched": self.searched,
            "violations": self.violations.len(),
            "firstViolations": self.violations.iter().take(SHOWN).collect::<Vec<_>>(),
            "writesAcceptedAgain": again,
        })
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "seed          {}\ncycles        {}\noperations    {}\nacknowledged  {}\nunknown       {}\nsearched      {}\nviolations    {}\n\n\
             {:<28}{:>8}{:>10}{:>10}\n",
            self.seed,
            self.cycles,
            self.operations,
            self.acknowledged,
            self.unknown,
            self.searched,
            self.violations.len(),
            "writes accepted again after",
            "cycles",
            "median",
            "longest"
        );
        for (kind, times) in &self.again {
            let show = |time: Option<Duration>| {
                seconds(time).map_or("-".to_owned(), |time| format!("{time:.2} s"))
            };
            text += &format!(
                "{:<28}{:>8}{:>10}{:>10}\n",
                kind.name(),
                times.len(),
                show(median(times)),
                show(times.last().copied())
            );
        }
        for violation in self.violations.iter().take(SHOWN) {
            text += &format!("\nviolation: {violation}\n");
        }
        text
    }

    /// Appends the row of this run.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&self, repository: &Path) -> anyhow::Result<()> {
        let path = repository.join("docs/chaos-results.md");
        let what = || format!("cannot append to {}", path.display());
        let head = if path.exists() { "" } else { HEAD };
        let killed = self.again.get(&Kind::KillLeader);
        let killed = killed.map_or("-".to_owned(), |times| {
            let show = |time| seconds(time).map_or("-".to_owned(), |time| format!("{time:.2}"));
            format!(
                "{} / {} s",
                show(median(times)),
                show(times.last().copied())
            )
        });
        let row = format!(
            "{head}| {} | {} | {} | {:.1} | {} | {} | {} | {} | {} | {killed} |\n",
            jiff::Timestamp::now().strftime("%Y-%m-%d"),
            self.seed,
            commit(repository),
            self.minutes,
            if self.cuts { "yes" } else { "no" },
            self.cycles,
            self.operations,
            self.acknowledged,
            self.violations.len(),
        );
        let mut options = std::fs::File::options();
        let mut file = options
            .create(true)
            .append(true)
            .open(&path)
            .with_context(what)?;
        file.write_all(row.as_bytes()).with_context(what)
    }
}

/// The commit that is checked out, and whether the files are others.
fn commit(repository: &Path) -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git")
            .args(arguments)
            .current_dir(repository)
            .output()
            .ok()
            .filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    // The results themselves are no change to what was tested.
    let changed = git(&["status", "--porcelain", "--", ".", ":!docs"]);
    match changed.as_deref() {
        Some("") => commit,
        _ => format!("{commit} and changes"),
    }
}

/// From each fault to the first answer to a write that was asked for after it.
fn accepted_again(cycles: &[Cycle], history: &History) -> BTreeMap<Kind, Vec<Duration>> {
    let mut acknowledged: Vec<(Moment, Moment)> = history
        .operations
        .iter()
        .filter(|operation| operation.acknowledged())
        .map(|operation| (operation.asked, operation.answered))
        .collect();
    acknowledged.sort_unstable();
    // The earliest answer among this and all that were asked for later.
    let mut earliest = Moment::MAX;
    for (_, answered) in acknowledged.iter_mut().rev() {
        earliest = earliest.min(*answered);
        *answered = earliest;
    }
    let mut again: BTreeMap<Kind, Vec<Duration>> = BTreeMap::new();
    for cycle in cycles {
        let after = acknowledged.partition_point(|(asked, _)| *asked <= cycle.struck);
        if let Some((_, answered)) = acknowledged.get(after) {
            let time = Duration::from_nanos(answered - cycle.struck);
            again.entry(cycle.kind).or_default().push(time);
        }
    }
    for times in again.values_mut() {
        times.sort_unstable();
    }
    again
}

fn median(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len() / 2).copied()
}

fn seconds(time: Option<Duration>) -> Option<f64> {
    time.map(|time| (time.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::super::history::Ask;
    use super::*;

    #[test]
    fn writes_are_accepted_again_with_the_first_answer_to_what_was_asked_after_the_fault() {
        let write = |asked, answered, told| Operation {
            server: 0,
            asked,
            answered,
            ask: Ask::Create { key: 1, value: 1 },
            told,
        };
        let history = History {
            operations: vec![
                write(90, 110, Told::Written(1)), // asked before
                write(120, 125, Told::Conflict),  // refused
                write(130, 900, Told::Written(2)),
                write(500, 700, Told::Written(3)),
            ],
            ..History::default()
        };
        let cycles = [Cycle {
            kind: Kind::KillLeader,
            struck: 100,
        }];
        let again = accepted_again(&cycles, &history);
        assert_eq!(again[&Kind::KillLeader], [Duration::from_nanos(600)]);
    }
}
