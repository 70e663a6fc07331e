//! Two judges of a history, with nothing in common but the history.
//!
//! [`by_revision`] knows that every mutation has a revision of its own, which gives the order of all of them: it replays
//! the events and asks of every answer whether it fits that order and real time. Linear in the history.
//! [`by_search`] gives no order to revisions: for each key, porcupine searches for an order of the operations that a
//! register with conditions could have had (`register.rs`).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::history::{Ask, History, Moment, Operation, Seen, Told, holds, written};
use super::register::{self, Action, Condition, Step};
use crate::command::{Change, Mutation, Precondition};
use crate::key::{Key, Revision};

/// Checks everything that revisions tell. Returns what is wrong.
pub(crate) fn by_revision(history: &History, newest: Revision) -> Vec<String> {
    let mut wrong = Vec::new();
    let facts = &history.facts;
    // The events are the whole story: each revision once, and each consistent with the ones before.
    for revision in 1..=newest {
        if !facts.contains_key(&revision) {
            wrong.push(format!("no watcher was told of revision {revision}"));
        }
    }
    if let Some((last, _)) = facts.last_key_value()
        && *last > newest
    {
        wrong.push(format!(
            "revision {last} was told and is gone: the newest is {newest}"
        ));
    }
    let mut state: BTreeMap<Key, (Revision, Revision)> = BTreeMap::new();
    for (revision, fact) in facts {
        let found = state.get(&fact.key).copied();
        if found.map(|found| found.1) != fact.previous {
            wrong.push(format!(
                "event {revision} follows {:?}, it was {found:?}",
                fact.previous
            ));
        }
        let created = found.map_or(*revision, |found| found.0);
        if fact.created != created {
            wrong.push(format!(
                "event {revision} says created {}, it was {created}",
                fact.created
            ));
        }
        if fact.put {
            state.insert(fact.key.clone(), (created, *revision));
        } else {
            state.remove(&fact.key);
        }
    }

    // Whose write each revision is: values are unique, deletes are placed by their answers.
    let mut writer: BTreeMap<String, usize> = BTreeMap::new();
    for (index, operation) in history.operations.iter().enumerate() {
        if let Ask::Write { mutations } = &operation.ask {
            for value in mutations.iter().filter_map(written) {
                writer.insert(value, index);
            }
        }
    }
    let mut took_effect: BTreeMap<usize, Vec<Revision>> = BTreeMap::new();
    for (revision, fact) in facts.iter().filter(|(_, fact)| fact.put) {
        if history.is_reworded(fact) {
            continue;
        }
        match writer.get(&fact.value) {
            None => wrong.push(format!(
                "nobody wrote {} of revision {revision}",
                fact.value
            )),
            Some(index) => took_effect.entry(*index).or_default().push(*revision),
        }
    }
    for (index, revisions) in &took_effect {
        let operation = &history.operations[*index];
        let Ask::Write { mutations } = &operation.ask else {
            continue;
        };
        let puts = mutations.iter().filter(|m| written(m).is_some()).count();
        if revisions.len() != puts {
            wrong.push(format!("{operation:?} took effect at {revisions:?}"));
        }
        if let Some((_, Told::Conflict { .. } | Told::Nothing)) = &operation.told {
            wrong.push(format!(
                "refused, yet in effect at {revisions:?}: {operation:?}"
            ));
        }
    }

    // Real time: what was acknowledged before something was asked lies before it.
    let mut ends: Vec<(Moment, Revision)> = Vec::new();
    for operation in &history.operations {
        if let Some((at, told)) = &operation.told {
            match told {
                Told::Done(revision) | Told::View { revision, .. } => ends.push((*at, *revision)),
                Told::Conflict { .. } | Told::Nothing | Told::Unknown => {}
            }
        }
    }
    ends.sort_unstable();
    let mut highest = 0;
    for end in &mut ends {
        highest = highest.max(end.1);
        end.1 = highest;
    }
    let floor = |moment: Moment| {
        let nth = ends.partition_point(|(at, _)| *at < moment);
        nth.checked_sub(1).map_or(0, |nth| ends[nth].1)
    };
    for operation in &history.operations {
        let floor = floor(operation.asked);
        match (&operation.ask, &operation.told) {
            (Ask::Write { mutations }, Some((_, Told::Done(revision)))) => {
                check_write(history, operation, mutations, *revision, floor, &mut wrong);
            }
            (Ask::Write { .. }, Some((_, Told::Conflict { key, found }))) => {
                check_conflict(history, operation, (key, *found), floor, &mut wrong);
            }
            (Ask::Read, Some((_, Told::View { revision, entries }))) => {
                if *revision < floor {
                    wrong.push(format!(
                        "a read on server {} shows {revision}, {floor} was known before it was asked",
                        operation.server
                    ));
                }
                check_view(history, *revision, entries, &mut wrong);
            }
            _ => {}
        }
    }
    check_causes(history, &took_effect, &mut wrong);
    wrong
}

fn check_write(
    history: &History,
    operation: &Operation,
    mutations: &[Mutation],
    revision: Revision,
    floor: Revision,
    wrong: &mut Vec<String>,
) {
    // Backwards from the last revision: each mutation took one, except deletes of absent keys, which are told the
    // store's revision, whoever wrote that. Puts carry a value of their own, so they are certain.
    let mut next = revision;
    for mutation in mutations.iter().rev() {
        let fact = history.facts.get(&next);
        if mutation.change == Change::Check {
            let reworded = fact.is_some_and(|fact| history.is_reworded(fact));
            if reworded && fact.is_some_and(|fact| fact.key == mutation.key) {
                next -= 1;
            }
            continue;
        }
        let is_it = fact.is_some_and(|fact| {
            fact.key == mutation.key
                && fact.put == written(mutation).is_some()
                && written(mutation).is_none_or(|value| value == fact.value)
        });
        if is_it {
            let previous = fact.and_then(|fact| fact.previous);
            let put = written(mutation).is_some();
            if put && mutations.len() == 1 && !holds(mutation.precondition, previous) {
                wrong.push(format!("{operation:?} took effect over {previous:?}"));
            }
            if put && next <= floor {
                wrong.push(format!(
                    "{operation:?} took effect at {next}, {floor} was known before it was asked"
                ));
            }
            next -= 1;
        } else if written(mutation).is_some() {
            wrong.push(format!(
                "acknowledged at {next} and not there: {operation:?}"
            ));
            return;
        }
    }
    if revision < floor {
        wrong.push(format!("{operation:?} was told a revision below {floor}"));
    }
    // Where every mutation is certain, the state that it met is: what it checks must have held there.
    let certain = mutations.iter().all(|m| m.change != Change::Delete);
    for (nth, mutation) in mutations.iter().enumerate() {
        let mut earlier = mutations[..nth].iter();
        if !certain
            || mutation.change != Change::Check
            || earlier.any(|earlier| earlier.key == mutation.key)
        {
            continue;
        }
        let mut before = history.facts.range(..=next).rev();
        let found = before.find(|(_, fact)| fact.key == mutation.key);
        let found = found.filter(|(_, fact)| fact.put).map(|(at, _)| *at);
        if !holds(mutation.precondition, found) {
            wrong.push(format!(
                "{operation:?} took effect after {next}, where {} was {found:?}",
                mutation.key
            ));
        }
    }
}

/// The refusal's reason must have been true at some revision while the request was under way.
fn check_conflict(
    history: &History,
    operation: &Operation,
    (key, found): (&Key, Option<Revision>),
    floor: Revision,
    wrong: &mut Vec<String>,
) {
    let Ask::Write { mutations } = &operation.ask else {
        return;
    };
    if mutations.len() > 1 {
        // The condition may have been met by an earlier mutation of the same write.
        return;
    }
    if mutations
        .iter()
        .any(|m| m.key == *key && holds(m.precondition, found))
    {
        wrong.push(format!("refused for a condition that holds: {operation:?}"));
    }
    let of_key = history.facts.iter().filter(|(_, fact)| fact.key == *key);
    let still = match found {
        Some(revision) => {
            let mut after = of_key.filter(|(at, _)| **at > revision).map(|(at, _)| *at);
            history
                .facts
                .get(&revision)
                .is_some_and(|fact| fact.key == *key && fact.put)
                && after.next().is_none_or(|replaced| replaced > floor)
        }
        None => {
            // Absent from a deletion (or the beginning) until the next put, which must come after the floor.
            let mut absent = true;
            let mut ok = false;
            for (at, fact) in of_key {
                if *at > floor && absent {
                    ok = true;
                }
                absent = !fact.put;
                if *at > floor && absent {
                    ok = true;
                }
            }
            ok || absent
        }
    };
    if !still {
        wrong.push(format!("refused for a reason of the past: {operation:?}"));
    }
}

fn check_view(history: &History, revision: Revision, entries: &Seen, wrong: &mut Vec<String>) {
    let mut state = Seen::new();
    for (at, fact) in history.facts.range(..=revision) {
        if fact.put {
            let value = (fact.value.clone(), fact.created, *at);
            state.insert(fact.key.clone(), value);
        } else {
            state.remove(&fact.key);
        }
    }
    if state != *entries {
        wrong.push(format!(
            "a read of revision {revision} shows {entries:?}, not {state:?}"
        ));
    }
}

/// Nothing is seen before somebody asked for it.
fn check_causes(
    history: &History,
    took_effect: &BTreeMap<usize, Vec<Revision>>,
    wrong: &mut Vec<String>,
) {
    let mut asked: BTreeMap<Revision, Moment> = BTreeMap::new();
    for (index, revisions) in took_effect {
        for revision in revisions {
            asked.insert(*revision, history.operations[*index].asked);
        }
    }
    // The latest question among all revisions up to each.
    let mut latest = 0;
    for moment in asked.values_mut() {
        latest = latest.max(*moment);
        *moment = latest;
    }
    for operation in &history.operations {
        if let Some((at, Told::View { revision, .. } | Told::Done(revision))) = &operation.told
            && let Some((_, moment)) = asked.range(..=revision).next_back()
            && moment > at
        {
            wrong.push(format!(
                "revision {revision} was seen at moment {at}, and a part of it asked for at {moment}"
            ));
        }
    }
}

/// Searches an order for each key. Returns the keys that have none, and how many operations were judged.
pub(crate) fn by_search(history: &History) -> (Vec<String>, usize) {
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    let mut numbers = Numbers::default();
    for operation in &history.operations {
        match (&operation.ask, &operation.told) {
            (Ask::Write { mutations }, told) => {
                keys.extend(mutations.iter().map(|mutation| mutation.key.clone()));
                if let ([mutation], Some((_, Told::Done(revision)))) = (&mutations[..], told)
                    && let Some(value) = written(mutation)
                {
                    numbers.told(*revision, &mutation.key, &value);
                }
            }
            (Ask::Read, Some((_, Told::View { entries, .. }))) => {
                for (key, (value, _, revision)) in entries {
                    numbers.told(*revision, key, value);
                }
            }
            (Ask::Read, _) => {}
        }
    }
    let mut wrong = Vec::new();
    let mut judged = 0;
    for key in keys {
        let steps = history.operations.iter();
        let steps = register::cut(
            steps
                .filter_map(|op| step(op, &key, &mut numbers))
                .collect(),
        );
        judged += steps.len();
        if !register::explains(&steps) {
            wrong.push(format!("no order explains what was seen of {key}"));
        }
    }
    (wrong, judged)
}

/// Numbers of values, and what clients were told of the values that revisions have.
#[derive(Default)]
struct Numbers {
    of: HashMap<String, register::Value>,
    at: HashMap<(Revision, Key), register::Value>,
}

impl Numbers {
    fn number(&mut self, value: &str) -> register::Value {
        let next = self.of.len() as register::Value;
        *self.of.entry(value.to_owned()).or_insert(next)
    }

    fn told(&mut self, revision: Revision, key: &Key, value: &str) {
        let number = self.number(value);
        self.at.insert((revision, key.clone()), number);
    }

    fn condition(&self, mutation: &Mutation) -> Condition {
        match mutation.precondition {
            Precondition::None => Condition::Any,
            Precondition::Absent => Condition::Absent,
            Precondition::Revision(revision) => {
                let value = self.at.get(&(revision, mutation.key.clone()));
                // Nobody was told what had that revision: then something was there.
                value.map_or(Condition::Present, |value| Condition::Is(*value))
            }
        }
    }
}

/// What a write that only checks a key says of it: that it was as it should be, or was not.
fn checked(
    operation: &Operation,
    check: &Mutation,
    mutations: usize,
    numbers: &Numbers,
) -> Option<Step> {
    let (at, told) = operation.told.as_ref()?;
    let on = numbers.condition(check);
    let action = match (told, on) {
        (Told::Done(_), Condition::Absent) => Action::Read(None),
        (Told::Done(_), Condition::Is(value)) => Action::Read(Some(value)),
        (Told::Conflict { .. }, Condition::Absent | Condition::Is(_)) if mutations == 1 => {
            Action::Refused { on }
        }
        _ => return None,
    };
    Some(Step {
        asked: operation.asked,
        answered: Some(*at),
        action,
    })
}

/// What an operation says of one key; `None` where that is nothing.
fn step(operation: &Operation, key: &Key, numbers: &mut Numbers) -> Option<Step> {
    let (at, told) = match &operation.told {
        Some((at, told)) => (Some(*at), told),
        None => (None, &Told::Unknown),
    };
    let action = match &operation.ask {
        Ask::Read => match told {
            Told::View { entries, .. } => {
                let value = entries.get(key);
                Action::Read(value.map(|(value, ..)| numbers.number(value)))
            }
            _ => return None,
        },
        Ask::Write { mutations } => {
            // The last mutation of the key in the write is what the key shows afterwards.
            let of_key = || mutations.iter().filter(|mutation| mutation.key == *key);
            let Some(mutation) = of_key().rfind(|mutation| mutation.change != Change::Check) else {
                return checked(operation, of_key().next_back()?, mutations.len(), numbers);
            };
            let alone = mutations.len() == 1;
            let on = if alone {
                numbers.condition(mutation)
            } else {
                // Another key's condition may be the reason of a refusal, and an earlier mutation may have met this.
                Condition::Any
            };
            match told {
                Told::Conflict { .. } if alone && on != Condition::Present => {
                    Action::Refused { on }
                }
                Told::Conflict { .. } | Told::Nothing => return None,
                Told::Done(_) | Told::Unknown | Told::View { .. } => Action::Write {
                    value: written(mutation).map(|value| numbers.number(&value)),
                    on,
                },
            }
        }
    };
    Some(Step {
        asked: operation.asked,
        answered: at.filter(|_| !matches!(told, Told::Unknown)),
        action,
    })
}
