//! What was seen, as a page of the docs, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use super::outcome::{Outcome, Verdict, line_of};
use super::suite::{NETPOL, RELEASE, Test};

/// What stands behind the letters of `needs.tsv`, and what a cluster of components needs for them.
const CLASSES: [(char, &str); 6] = [
    ('A', "the API and controllers; no pod has to run"),
    (
        'B',
        "pods reach a phase or condition; what they do does not matter",
    ),
    ('C', "the suite's servers and clients as components"),
    (
        'D',
        "files, environment or arguments as the suite's image prints them",
    ),
    ('E', "a shell or command in the pod"),
    ('F', "something of Linux that a component does not have"),
];

pub(super) struct Report<'a> {
    pub total: usize,
    pub tests: &'a [Test],
    pub outcomes: &'a [Outcome],
}

impl Report<'_> {
    fn each(&self) -> impl Iterator<Item = (&Test, &Outcome)> {
        self.tests.iter().zip(self.outcomes)
    }

    fn passed(&self) -> usize {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.result == Verdict::Passed)
            .count()
    }

    /// Passed and all, by a part of what is known of a test.
    fn by<K: Ord>(&self, key: impl Fn(&Test) -> K) -> BTreeMap<K, (usize, usize)> {
        let mut counts = BTreeMap::new();
        for (test, outcome) in self.each() {
            let (passed, all) = counts.entry(key(test)).or_insert((0, 0));
            *passed += usize::from(outcome.result == Verdict::Passed);
            *all += 1;
        }
        counts
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for (group, (passed, all)) in self.by(|test| test.group().to_owned()) {
            let _ = writeln!(text, "{group:20} {passed:3} of {all}");
        }
        for (class, (passed, all)) in self.by(|test| test.classes.clone()) {
            if class.is_empty() {
                continue;
            }
            let _ = writeln!(text, "class {class:14} {passed:3} of {all}");
        }
        let _ = writeln!(text, "{} of {}", self.passed(), self.tests.len());
        text
    }

    pub(super) fn json(&self) -> Value {
        let tests: Vec<Value> = self
            .each()
            .map(|(test, outcome)| line_of(test, outcome))
            .collect();
        json!({"release": RELEASE, "passed": self.passed(), "run": self.tests.len(), "total": self.total, "tests": tests})
    }

    pub(super) fn page(&self) -> String {
        let mut page = format!(
            "# Kubernetes' conformance suite\n\n\
             **{} of {}** tests of upstream's suite {RELEASE}, its binary unmodified, on `weft up --nodes 3`. Written by\n\
             `cargo xtask conformance kubernetes`; the classes say what a test asks of a cluster whose pods are components.\n\n\
             | class | asks for | passed |\n| --- | --- | --- |\n",
            self.passed(),
            self.total
        );
        let first = |test: &Test| test.classes.chars().max().unwrap_or('?');
        for (class, (passed, all)) in self.by(first) {
            let meaning = CLASSES.iter().find(|(letter, _)| *letter == class);
            let meaning = meaning.map_or("", |(_, meaning)| *meaning);
            let _ = writeln!(page, "| {class} | {meaning} | {passed} of {all} |");
        }
        page += "\n| group | passed |\n| --- | --- |\n";
        for (group, (passed, all)) in self.by(|test| test.group().to_owned()) {
            let _ = writeln!(page, "| {group} | {passed} of {all} |");
        }
        page += "\n## What does not pass\n\nWith the suite's own words, and what would lift it.\n\n\
                 | no. | test | class | result | why | what it needs |\n| --- | --- | --- | --- | --- | --- |\n";
        for (test, outcome) in self
            .each()
            .filter(|(_, outcome)| outcome.result != Verdict::Passed)
        {
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} | {} | {} |",
                test.number,
                cell(&test.name),
                test.classes,
                outcome.result.name(),
                cell(&outcome.words),
                cell(&test.needs)
            );
        }
        page
    }

    pub(super) fn page_of_netpol(&self) -> String {
        let mut page = format!(
            "# Kubernetes' tests of NetworkPolicy\n\n\
             **{} of {}** tests of upstream's suite {RELEASE} that are called `Netpol`, its binary unmodified, on `weft up --nodes 3`. Written by\n\
             `cargo xtask conformance netpol`. Each asks of every pair of its pods whether one reaches the other, by TCP, UDP or SCTP.\n\n\
             | test | result | why | what it needs |\n| --- | --- | --- | --- |\n",
            self.passed(),
            self.total
        );
        for (test, outcome) in self.each() {
            let name = test.name.trim_start_matches(NETPOL).trim();
            let _ = writeln!(
                page,
                "| {} | {} | {} | {} |",
                cell(name),
                outcome.result.name(),
                cell(&outcome.words),
                match outcome.result {
                    Verdict::Passed => String::new(),
                    _ => cell(&test.needs),
                }
            );
        }
        page
    }
}

/// Text in a table of Markdown.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}
