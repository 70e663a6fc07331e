//! The second judge: for each object, porcupine searches an order of the operations that explains every answer.
//!
//! Revisions give no order here. They only tell which value a condition meant, as far as some client was shown it.

use std::collections::{BTreeSet, HashMap};

use super::history::{Ask, History, Key, Operation, Revision, Told, Value};
use super::register::{self, Action, Condition, Step};

/// The objects whose answers no order explains, and how many steps were judged.
pub fn violations(history: &History) -> (Vec<String>, usize) {
    let mut keys = BTreeSet::new();
    let mut values: HashMap<Revision, Value> = HashMap::new();
    for operation in &history.operations {
        match (&operation.ask, &operation.told) {
            (
                Ask::Create { key, value } | Ask::Update { key, value, .. },
                Told::Written(revision),
            ) => {
                keys.insert(*key);
                values.insert(*revision, *value);
            }
            (Ask::Get { key }, Told::Found(revision, value)) => {
                keys.insert(*key);
                values.insert(*revision, *value);
            }
            (_, Told::Listed(_, seen)) => {
                keys.extend(seen.keys());
                values.extend(seen.values().copied());
            }
            _ => {}
        }
    }
    let mut wrong = Vec::new();
    let mut judged = 0;
    for key in keys {
        let operations = history.operations.iter();
        let steps = register::cut(
            operations
                .filter_map(|operation| step(operation, key, &values))
                .collect(),
        );
        judged += steps.len();
        if !register::explains(&steps) {
            wrong.push(format!("no order explains what was seen of object {key}"));
        }
    }
    (wrong, judged)
}

/// What an operation says of one object; `None` where that is nothing.
fn step(operation: &Operation, of: Key, values: &HashMap<Revision, Value>) -> Option<Step> {
    let (key, value, on) = match operation.ask {
        Ask::Create { key, value } => (key, Some(value), Condition::Absent),
        Ask::Update { key, value, base } => (key, Some(value), at(base, values)),
        Ask::Delete { key, base } => (key, None, at(base, values)),
        Ask::Get { key } => (key, None, Condition::Any),
        Ask::List => (of, None, Condition::Any),
    };
    if key != of {
        return None;
    }
    let reads = matches!(operation.ask, Ask::Get { .. } | Ask::List);
    let action = match &operation.told {
        Told::Unknown(_) if reads => return None,
        Told::Written(_) | Told::Deleted | Told::Unknown(_) => Action::Write { value, on },
        // Nobody was shown what had the revision that was named: the refusal says nothing.
        Told::Conflict if on == Condition::Present => return None,
        Told::Conflict => Action::Refused { on },
        Told::NotFound => Action::Read(None),
        Told::Found(_, seen) => Action::Read(Some(*seen)),
        Told::Listed(_, seen) => Action::Read(seen.get(&of).map(|(_, seen)| *seen)),
    };
    Some(Step {
        asked: operation.asked,
        answered: (!matches!(operation.told, Told::Unknown(_))).then_some(operation.answered),
        action,
    })
}

fn at(base: Revision, values: &HashMap<Revision, Value>) -> Condition {
    values
        .get(&base)
        .map_or(Condition::Present, |value| Condition::Is(*value))
}

#[cfg(test)]
mod tests {
    use super::super::history::{Moment, Unknown};
    use super::*;

    fn operation(asked: Moment, answered: Moment, ask: Ask, told: Told) -> Operation {
        Operation {
            server: 0,
            asked,
            answered,
            ask,
            told,
        }
    }

    const GET: Ask = Ask::Get { key: 1 };

    fn update(value: Value, base: Revision) -> Ask {
        Ask::Update {
            key: 1,
            value,
            base,
        }
    }

    /// Created, updated by somebody who was not answered, deleted, created again, and read in between.
    fn sound() -> Vec<Operation> {
        let lost = Told::Unknown(Unknown::TimedOut);
        let listed = Told::Listed(12, [(1, (12, 102))].into());
        let create = |value| Ask::Create { key: 1, value };
        vec![
            operation(0, 9, GET, Told::NotFound),
            operation(10, 19, create(101), Told::Written(11)),
            operation(20, 29, GET, Told::Found(11, 101)),
            operation(30, 39, update(102, 11), lost),
            operation(40, 49, update(109, 11), Told::Conflict),
            operation(50, 59, create(108), Told::Conflict),
            operation(60, 69, Ask::List, listed),
            operation(70, 79, Ask::Delete { key: 1, base: 12 }, Told::Deleted),
            operation(80, 89, update(107, 12), Told::NotFound),
            operation(90, 99, create(103), Told::Written(14)),
        ]
    }

    fn is_sound(operations: Vec<Operation>) -> bool {
        let history = History {
            operations,
            ..History::default()
        };
        violations(&history).0.is_empty()
    }

    #[test]
    fn a_sound_history_is_explained() {
        assert!(is_sound(sound()));
    }

    #[test]
    fn planted_faults_are_found() {
        for (name, fault) in [
            (
                "an acknowledged write is lost",
                operation(100, 109, GET, Told::NotFound),
            ),
            (
                "a get shows the past",
                operation(100, 109, GET, Told::Found(12, 102)),
            ),
            (
                "a list shows the past",
                operation(100, 109, Ask::List, Told::Listed(13, [].into())),
            ),
            (
                "a get shows the future",
                operation(20, 25, GET, Told::Found(14, 103)),
            ),
            (
                "an update over what was replaced",
                operation(45, 48, update(104, 11), Told::Written(15)),
            ),
            (
                "a condition that held was refused",
                operation(100, 109, update(104, 14), Told::Conflict),
            ),
            (
                "what was there is not found",
                operation(62, 68, update(104, 12), Told::NotFound),
            ),
        ] {
            let mut operations = sound();
            operations.push(fault);
            assert!(!is_sound(operations), "{name}");
        }
    }
}
