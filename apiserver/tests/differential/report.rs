//! How many answers are equal, and which differ in which way.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::messages::same_message;
use crate::objects::{comparable, differences};
use crate::part_of;
use crate::server::Answer;

#[derive(Default)]
pub struct Share {
    equal: u32,
    all: u32,
}

impl Share {
    fn count(&mut self, equal: bool) {
        self.all += 1;
        self.equal += u32::from(equal);
    }

    pub fn hundredths(&self) -> u32 {
        match self.all {
            0 => 10_000,
            all => (u64::from(self.equal) * 10_000 / u64::from(all)) as u32,
        }
    }

    fn percent(&self) -> String {
        let share = self.hundredths();
        format!("{:>3}.{:02} of {:<5}", share / 100, share % 100, self.all)
    }
}

#[derive(Default)]
pub struct Shares {
    pub codes: Share,
    pub messages: Share,
    pub objects: Share,
}

#[derive(Default)]
pub struct Report {
    total: Shares,
    by_kind: BTreeMap<String, Shares>,
    by_action: BTreeMap<String, Shares>,
    pub by_part: BTreeMap<String, Shares>,
    /// Kinds of difference, with how often each was seen and one request that shows it.
    differences: BTreeMap<String, (u32, String)>,
}

impl Report {
    pub fn add(&mut self, manifest: &Value, case: &Value, theirs: &Answer, ours: &Answer) {
        let named = manifest["kind"].as_str().unwrap();
        let kind = format!("{} {named}", manifest["apiVersion"].as_str().unwrap());
        let action = format!(
            "{} {}",
            case["action"].as_str().unwrap(),
            case["validation"].as_str().unwrap()
        );
        let codes = ours.code == theirs.code;
        let (refused, accepted) = (theirs.code >= 300, theirs.code < 300);
        let messages = same_message(&theirs.message, &ours.message, manifest);
        let (their_object, our_object) = (
            comparable(&theirs.object, named),
            comparable(&ours.object, named),
        );
        let objects = their_object == our_object;
        let Self {
            total,
            by_kind,
            by_action,
            by_part,
            ..
        } = self;
        let part = part_of(case["action"].as_str().unwrap(), named).to_owned();
        for shares in [
            total,
            by_kind.entry(kind.clone()).or_default(),
            by_action.entry(action.clone()).or_default(),
            by_part.entry(part).or_default(),
        ] {
            shares.codes.count(codes);
            if codes && refused {
                shares.messages.count(messages);
            }
            if codes && accepted {
                shares.objects.count(objects);
            }
        }
        let mut note = |what: String| {
            let example = format!(
                "{kind} {action} {}",
                shortened(&case["body"].to_string(), 600)
            );
            let entry = self
                .differences
                .entry(format!("{} {what}", manifest["kind"].as_str().unwrap()))
                .or_insert((0, example));
            entry.0 += 1;
        };
        if !codes {
            let told = match theirs.code < 300 {
                true => &ours.message,
                false => &theirs.message,
            };
            note(format!(
                "{} there, {} here: {}",
                theirs.code,
                ours.code,
                generic(told)
            ));
        } else if refused && !messages {
            note(format!(
                "{}: {}\n        here: {}",
                theirs.code,
                generic(&theirs.message),
                generic(&ours.message)
            ));
        } else if accepted && !objects {
            let mut found = Vec::new();
            differences(&their_object, &our_object, &mut String::new(), &mut found);
            note(format!(
                "stored: {}",
                found.first().map_or("", String::as_str)
            ));
        }
    }

    pub fn print(&self) {
        let line = |name: &str, shares: &Shares| {
            println!(
                "{name:<55} codes {}   messages {}   objects {}",
                shares.codes.percent(),
                shares.messages.percent(),
                shares.objects.percent()
            );
        };
        for (name, shares) in self
            .by_kind
            .iter()
            .chain(&self.by_action)
            .chain(&self.by_part)
        {
            line(name, shares);
        }
        line("all", &self.total);
        let shown = std::env::var("DIFFERENTIAL")
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(12);
        let mut differences: Vec<_> = self.differences.iter().collect();
        differences.sort_by_key(|(_, (seen, _))| std::cmp::Reverse(*seen));
        let kind = std::env::var("DIFFERENTIAL_KIND").unwrap_or_default();
        for (what, (seen, example)) in differences
            .into_iter()
            .filter(|(what, _)| what.starts_with(&kind))
            .take(shown)
        {
            println!("{seen:>5} {what}\n        {example}");
        }
    }
}

/// A message without what differs from case to case.
fn generic(message: &str) -> String {
    let mut out = String::new();
    let mut digits = false;
    for c in shortened(message, 420).chars() {
        match c {
            '0'..='9' => {
                if !digits {
                    out.push('#');
                }
                digits = true;
            }
            c => {
                digits = false;
                out.push(c);
            }
        }
    }
    out
}

pub fn shortened(text: &str, length: usize) -> String {
    match text.char_indices().nth(length) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
