//! Levels of priority: how many requests of one are answered at a time, and what becomes of the others.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use super::{GROUP, bootstrap, in_go_names, validate_conditions};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, integer, object, put, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static PRIORITY_LEVEL_CONFIGURATION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        namespaced: false,
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Type", kind, "Whether it has a limit."),
            Column::text(
                "NominalConcurrencyShares",
                shares,
                "Its share of what there is.",
            ),
            Column::text("Queues", queues, "Number of its queues."),
            Column::text("HandSize", hand, "Queues that a flow may be put in."),
            Column::text("QueueLengthLimit", length, "Most that wait in a queue."),
            Column::age(),
        ],
        counts_generations: true,
        strategy: Arc::new(Levels),
        ..Kind::new(
            GROUP,
            "v1",
            "PriorityLevelConfiguration",
            "prioritylevelconfigurations",
        )
    })
});

const EXEMPT: &str = "exempt";
/// What an older version kept a share of zero in.
const ZERO_SHARES: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash that a flow's hand is dealt by.
const HASH_BITS: f64 = 60.0;

struct Levels;

impl Strategy for Levels {
    fn default(&self, value: &mut Value) {
        if let Some(exempt) = value.pointer_mut("/spec/exempt") {
            fill(exempt, "nominalConcurrencyShares", 0);
            fill(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = value.pointer_mut("/spec/limited") {
            fill(limited, "nominalConcurrencyShares", 30);
            fill(limited, "lendablePercent", 0);
        }
        if let Some(queuing) = value.pointer_mut("/spec/limited/limitResponse/queuing") {
            for (member, default) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
                if integer(queuing, &format!("/{member}")).unwrap_or(0) == 0 {
                    put(queuing, member, Some(default.into()));
                }
            }
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let own_name = text(new, "/metadata/name");
        if root.entry("metadata.annotations", ZERO_SHARES).is_set() {
            let sentence = format!("annotation '{ZERO_SHARES}' is forbidden");
            problems.forbidden(&root.child("metadata.annotations"), &sentence);
        }
        let spec = root.child("spec");
        self::spec(&spec, own_name, problems);
        fixed(&spec, own_name, problems);
        validate_conditions(&root, problems);
        declared(&spec, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        match part {
            Some(Subresource::Status) => validate_conditions(&Field::root(new), problems),
            _ => self.validate(new, problems),
        }
    }
}

fn spec(spec: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    let kind = spec.child("type");
    if (own_name == EXEMPT) != (kind.text() == "Exempt") {
        let sentence = "must be 'Exempt' if and only if `name` is 'exempt'";
        problems.invalid(&kind, kind.text(), sentence);
    }
    match kind.text() {
        "Exempt" => shares_of(&spec.child("exempt"), problems),
        "Limited" => {
            let limited = spec.child("limited");
            if limited.is_set() {
                self::limited(&limited, problems);
            }
        }
        "" => {}
        _ => problems.one_of(&kind, &["Exempt", "Limited"]),
    }
}

fn shares_of(level: &Field<'_, '_>, problems: &mut Problems) {
    let shares = level.child("nominalConcurrencyShares");
    if let Some(number) = shares.integer().filter(|number| *number < 0) {
        problems.invalid(&shares, number, "must be a non-negative integer");
    }
    lendable(level, problems);
}

fn lendable(level: &Field<'_, '_>, problems: &mut Problems) {
    let lendable = level.child("lendablePercent");
    if lendable.is_set() {
        problems.in_range(&lendable, 0..=100);
    }
}

fn limited(limited: &Field<'_, '_>, problems: &mut Problems) {
    let shares = limited.child("nominalConcurrencyShares");
    if let Some(number) = shares.integer().filter(|number| *number < 0) {
        problems.invalid(&shares, number, "must be a non-negative integer");
    }
    let response = limited.child("limitResponse");
    let kind = response.child("type");
    match kind.text() {
        "Queue" => {
            let queuing = response.child("queuing");
            if queuing.is_set() {
                self::queuing(&queuing, problems);
            }
        }
        "Reject" | "" => {}
        _ => problems.one_of(&kind, &["Queue", "Reject"]),
    }
    lendable(limited, problems);
    let borrowed = limited.child("borrowingLimitPercent");
    if let Some(number) = borrowed.integer().filter(|number| *number < 0) {
        let sentence = "if specified, must be a non-negative integer";
        problems.invalid(&borrowed, number, sentence);
    }
}

fn queuing(queuing: &Field<'_, '_>, problems: &mut Problems) {
    let number = |member: &str| queuing.child(member).integer().unwrap_or(0);
    let (length, queues, hand) = (
        number("queueLengthLimit"),
        number("queues"),
        number("handSize"),
    );
    let mut refuse = |member: &str, value: i64, sentence: &str| {
        problems.invalid(&queuing.child(member), value, sentence);
    };
    if length <= 0 {
        refuse("queueLengthLimit", length, "must be positive");
    }
    if queues <= 0 {
        refuse("queues", queues, "must be positive");
    } else if queues > QUEUES_MAX {
        let sentence = format!("must not be greater than {QUEUES_MAX}");
        refuse("queues", queues, &sentence);
    }
    if hand <= 0 {
        refuse("handSize", hand, "must be positive");
    } else if hand > queues {
        let sentence = format!("should not be greater than queues ({queues})");
        refuse("handSize", hand, &sentence);
    } else if hand_bits(queues, hand) > HASH_BITS {
        let sentence = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        refuse("handSize", hand, &sentence);
    }
}

/// Bits of a hash that dealing a hand of this size out of so many queues takes, at most.
fn hand_bits(queues: i64, hand: i64) -> f64 {
    let float = |number: i64| u32::try_from(number).map_or(f64::INFINITY, f64::from);
    (float(queues).log2() * float(hand)).ceil()
}

/// What the levels that every cluster has say is fixed, but for the share of those without a limit.
fn fixed(spec: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    let Some(mut wanted) = bootstrap::spec_of("PriorityLevelConfiguration", own_name) else {
        return;
    };
    let mut found = spec.shown();
    let sentence = if own_name == EXEMPT {
        put(&mut wanted, EXEMPT, None);
        put(&mut found, EXEMPT, None);
        format!("spec of '{own_name}' except the 'spec.exempt' field must equal the fixed value")
    } else {
        format!("spec of '{own_name}' must equal the fixed value")
    };
    if found != wanted {
        problems.invalid(spec, in_go_names(&spec.shown()), &sentence);
    }
}

/// What Kubernetes tells of last: which fields go with which type.
fn declared(spec: &Field<'_, '_>, problems: &mut Problems) {
    let kind = spec.child("type");
    let limited = spec.child("limited");
    if kind.text() == "Limited" && !limited.is_set() {
        problems.required(&limited, "");
    }
    for (member, of) in [("limited", "Limited"), ("exempt", "Exempt")] {
        let field = spec.child(member);
        if field.is_set() && kind.text() != of {
            problems.forbidden_plainly(&field);
        }
    }
    problems.required_text(&kind);
    if !limited.is_set() {
        return;
    }
    let response = limited.child("limitResponse");
    let (how, queuing) = (response.child("type"), response.child("queuing"));
    match (how.text(), queuing.is_set()) {
        ("Queue", false) => problems.required(&queuing, ""),
        ("Queue", true) | (_, false) => {}
        (_, true) => problems.forbidden_plainly(&queuing),
    }
    problems.required_text(&how);
}

fn kind(row: &Row<'_>) -> Value {
    row.text_or("/spec/type", "")
}

fn of_limit(row: &Row<'_>, within: &str, member: &str) -> Value {
    let pointer = format!("/spec/limited{within}");
    match object(row.object, &pointer) {
        Some(_) => row.count(&format!("{pointer}/{member}")).into(),
        None => "<none>".into(),
    }
}

const QUEUING: &str = "/limitResponse/queuing";

fn shares(row: &Row<'_>) -> Value {
    of_limit(row, "", "nominalConcurrencyShares")
}

fn queues(row: &Row<'_>) -> Value {
    of_limit(row, QUEUING, "queues")
}

fn hand(row: &Row<'_>) -> Value {
    of_limit(row, QUEUING, "handSize")
}

fn length(row: &Row<'_>) -> Value {
    of_limit(row, QUEUING, "queueLengthLimit")
}
