//! Runs tests, one process of the suite each, several side by side; those marked `[Serial]` after them, alone.
//!
//! Invariant: no process outlives the run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::outcome::{Outcome, RESULTS, Verdict, line_of, verdict, words};
use super::suite::Test;
use crate::interrupts;
use crate::progress::Counting;

/// How long an interrupted suite may take to clean up.
const ENDING: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
/// How much of a test's output is looked at, from its end.
const OUTPUT_MAX: usize = 4 << 20;

pub(super) struct Runner<'a> {
    pub e2e: &'a Path,
    pub kubectl: &'a Path,
    pub kubeconfig: &'a Path,
    pub repositories: Option<PathBuf>,
    pub patience: Duration,
    pub folder: &'a Path,
    /// What the results are of.
    pub head: Value,
    /// What came of tests before this run, by their numbers.
    pub judged: BTreeMap<usize, Outcome>,
}

impl Runner<'_> {
    pub(super) fn run_all(&self, tests: &[Test], parallel: usize) -> Result<Vec<Outcome>> {
        interrupts::watch()?;
        let known = |place: &usize| {
            let test = tests.get(*place)?;
            Some((*place, self.judged.get(&test.number)?.clone()))
        };
        let known: BTreeMap<usize, Outcome> =
            (0..tests.len()).filter_map(|place| known(&place)).collect();
        let (serial, beside): (Vec<usize>, Vec<usize>) = (0..tests.len())
            .filter(|place| !known.contains_key(place))
            .partition(|place| tests.get(*place).is_some_and(Test::is_serial));
        let file = self.folder.join(RESULTS);
        let log = match self.judged.is_empty() {
            true => {
                let mut log = fs::File::create(file)?;
                writeln!(log, "{}", self.head)?;
                log
            }
            false => {
                let mut log = fs::File::options().append(true).open(file)?;
                // The last line may be cut short.
                writeln!(log)?;
                log
            }
        };
        let state = Mutex::new((log, Counting::new(tests.len() as u64, "tests"), known));
        let work = |places: &[usize], next: &AtomicUsize| -> Result<()> {
            while let Some(place) = places.get(next.fetch_add(1, Ordering::Relaxed)) {
                let Some(test) = tests.get(*place) else {
                    continue;
                };
                let outcome = self.run_one(test)?;
                let mut state = state
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                let (log, counting, outcomes) = &mut *state;
                writeln!(log, "{}", line_of(test, &outcome))?;
                outcomes.insert(*place, outcome);
                counting.show(outcomes.len() as u64);
            }
            Ok(())
        };
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..parallel)
                .map(|_| scope.spawn(|| work(&beside, &next)))
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a thread of the run ended early")))
            })
        })?;
        work(&serial, &AtomicUsize::new(0))?;
        let (_, _, outcomes) = state
            .into_inner()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        ensure!(outcomes.len() == tests.len(), "some tests have no result");
        Ok(outcomes.into_values().collect())
    }

    fn run_one(&self, test: &Test) -> Result<Outcome> {
        let output = self.folder.join(format!("test-{}.log", test.number));
        let file = fs::File::create(&output)?;
        let mut command = Command::new(self.e2e);
        command
            .arg("--kubeconfig")
            .arg(self.kubeconfig)
            .arg("--kubectl-path")
            .arg(self.kubectl)
            .args([
                "--provider",
                "skeleton",
                "--ginkgo.no-color",
                "--ginkgo.v=false",
                "--delete-namespace",
                "--disable-log-dump",
            ])
            .args([
                "--node-schedulable-timeout",
                "10s",
                "--system-pods-startup-timeout",
                "10s",
                "--minStartupPods",
                "0",
            ])
            .args(["--ginkgo.focus", &literally(&test.name)])
            .env_remove("KUBECONFIG")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0);
        if let Some(repositories) = &self.repositories {
            command.env("KUBE_TEST_REPO_LIST", repositories);
        }
        let started = Instant::now();
        let mut child = command.spawn().context("starting the suite")?;
        interrupts::reach(child.id());
        let in_time = ended(&mut child, self.patience)?;
        if !in_time {
            // An interrupted suite says where it waits, and cleans up.
            let _ = Command::new("kill")
                .args(["-INT", &child.id().to_string()])
                .status();
            if !ended(&mut child, ENDING)? {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
        interrupts::forget(child.id());
        ensure!(!interrupts::came(), "interrupted");
        let text = tail(&output)?;
        let result = verdict(&text, in_time);
        let words = if result == Verdict::Passed {
            String::new()
        } else {
            words(&text)
        };
        Ok(Outcome {
            result,
            seconds: started.elapsed().as_secs_f64(),
            words,
        })
    }
}

fn ended(child: &mut Child, patience: Duration) -> Result<bool> {
    let until = Instant::now() + patience;
    while Instant::now() < until && !interrupts::came() {
        if child.try_wait()?.is_some() {
            return Ok(true);
        }
        std::thread::sleep(POLL);
    }
    Ok(false)
}

fn tail(file: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(file)?
        .take(1 << 30)
        .read_to_end(&mut bytes)?;
    let from = bytes.len().saturating_sub(OUTPUT_MAX);
    Ok(String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned())
}

/// A name as a regular expression that matches it alone.
fn literally(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len() + 16);
    for letter in name.chars() {
        if r".^$*+?()[]{}|\".contains(letter) {
            pattern.push('\\');
        }
        pattern.push(letter);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_they_are() {
        assert_eq!(literally("[a] b.c (d)"), r"\[a\] b\.c \(d\)");
    }
}
