//! Two judges of a history, with nothing in common but the history.
//!
//! [`by_revision`] knows that every mutation has a revision of its own, which gives the order of all of them: it replays
//! the events and asks of every answer whether it fits that order and real time. Linear in the history.
//! [`by_search`] knows nothing of revisions: for each key it searches for an order of the operations that a register
//! with conditions could have had (Wing and Gong 1993, with Lowe's memory of configurations seen).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use super::history::{Ask, History, Moment, Operation, Seen, Told, holds, written};
use crate::command::{Mutation, Precondition};
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

/// One operation on one key, for the search.
#[derive(Debug, Clone)]
struct Step {
    asked: Moment,
    /// `Moment::MAX` where it may still take effect.
    told: Moment,
    kind: StepKind,
    /// Whether it may also never have happened.
    optional: bool,
}

#[derive(Debug, Clone)]
enum StepKind {
    /// A write whose condition held, where that is known from outside of revisions.
    Put {
        value: String,
        absent: bool,
    },
    Delete,
    Read {
        value: Option<String>,
    },
    /// A refused creation: the key was there.
    Exists,
}

/// Longest history of one key that is searched; beyond it the time grows without measure.
const SEARCH_MAX: usize = 220;

/// Searches an order for each key. Returns the keys that have none, and how many operations were judged.
pub(crate) fn by_search(history: &History) -> (Vec<String>, usize) {
    let mut keys: BTreeSet<Key> = BTreeSet::new();
    for operation in &history.operations {
        if let Ask::Write { mutations } = &operation.ask {
            keys.extend(mutations.iter().map(|mutation| mutation.key.clone()));
        }
    }
    let mut wrong = Vec::new();
    let mut judged = 0;
    for key in keys {
        let mut steps: Vec<Step> = history
            .operations
            .iter()
            .filter_map(|operation| step(operation, &key))
            .collect();
        steps.sort_by_key(|step| step.asked);
        steps.truncate(SEARCH_MAX);
        // What was cut off may have overlapped the rest: those may then read what is not there any more.
        if let Some(last) = steps.last().map(|step| step.asked)
            && steps.len() == SEARCH_MAX
        {
            for step in &mut steps {
                if step.told > last {
                    step.told = Moment::MAX;
                    step.optional = true;
                }
            }
        }
        judged += steps.len();
        if !has_order(&steps) {
            wrong.push(format!("no order explains what was seen of {key}"));
        }
    }
    (wrong, judged)
}

fn step(operation: &Operation, key: &Key) -> Option<Step> {
    let (told, answer) = match &operation.told {
        Some((at, told)) => (*at, told.clone()),
        None => (Moment::MAX, Told::Unknown),
    };
    let kind = match (&operation.ask, &answer) {
        (Ask::Read, Told::View { entries, .. }) => StepKind::Read {
            value: entries.get(key).map(|entry| entry.0.clone()),
        },
        (Ask::Write { mutations }, _) => {
            // The last mutation of the key in the write is what the key shows afterwards.
            let mutation = mutations.iter().rfind(|mutation| mutation.key == *key)?;
            let alone = mutations.len() == 1;
            match answer {
                Told::Nothing => return None,
                Told::Conflict { .. } => {
                    if alone && mutation.precondition == Precondition::Absent {
                        StepKind::Exists
                    } else {
                        return None;
                    }
                }
                Told::Done(_) | Told::Unknown | Told::View { .. } => match written(mutation) {
                    Some(value) => StepKind::Put {
                        value,
                        absent: alone && mutation.precondition == Precondition::Absent,
                    },
                    None => StepKind::Delete,
                },
            }
        }
        (Ask::Read, _) => return None,
    };
    let unknown = matches!(answer, Told::Unknown);
    Some(Step {
        asked: operation.asked,
        told: if unknown { Moment::MAX } else { told },
        kind,
        optional: unknown,
    })
}

/// Whether a register could have behaved like this.
fn has_order(steps: &[Step]) -> bool {
    let mut seen: HashSet<(Vec<u64>, Option<String>)> = HashSet::new();
    let done = vec![0_u64; steps.len().div_ceil(64)];
    let mut stack = vec![(done, None::<String>)];
    while let Some((done, state)) = stack.pop() {
        let is_done = |index: usize| done[index / 64] >> (index % 64) & 1 == 1;
        let open = || (0..steps.len()).filter(|index| !is_done(*index));
        if open().all(|index| steps[index].optional) {
            return true;
        }
        // Only what was asked before the earliest answer of all that are left may come next.
        let limit = open().map(|index| steps[index].told).min().unwrap_or(0);
        for index in open().filter(|index| steps[*index].asked <= limit) {
            let next = match &steps[index].kind {
                StepKind::Put { absent: true, .. } if state.is_some() => continue,
                StepKind::Put { value, .. } => Some(value.clone()),
                StepKind::Delete => None,
                StepKind::Read { value } if *value == state => state.clone(),
                StepKind::Exists if state.is_some() => state.clone(),
                StepKind::Read { .. } | StepKind::Exists => continue,
            };
            let mut after = done.clone();
            after[index / 64] |= 1 << (index % 64);
            if seen.insert((after.clone(), next.clone())) {
                stack.push((after, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(asked: Moment, told: Moment, kind: StepKind) -> Step {
        Step {
            asked,
            told,
            kind,
            optional: told == Moment::MAX,
        }
    }

    fn put(value: &str) -> StepKind {
        StepKind::Put {
            value: value.to_owned(),
            absent: false,
        }
    }

    fn read(value: Option<&str>) -> StepKind {
        StepKind::Read {
            value: value.map(str::to_owned),
        }
    }

    #[test]
    fn the_search_finds_orders_and_their_absence() {
        let lost = Moment::MAX;
        for (case, steps, expected) in [
            ("nothing", vec![], true),
            (
                "read back",
                vec![step(1, 2, put("a")), step(3, 4, read(Some("a")))],
                true,
            ),
            (
                "stale",
                vec![step(1, 2, put("a")), step(3, 4, read(None))],
                false,
            ),
            (
                "overlap",
                vec![step(1, 4, put("a")), step(2, 3, read(None))],
                true,
            ),
            (
                "lost answer, seen",
                vec![step(1, lost, put("a")), step(2, 3, read(Some("a")))],
                true,
            ),
            (
                "lost answer, seen late",
                vec![
                    step(1, lost, put("a")),
                    step(2, 3, read(None)),
                    step(4, 5, read(Some("a"))),
                ],
                true,
            ),
            (
                "back in time",
                vec![
                    step(1, 2, put("a")),
                    step(3, 4, put("b")),
                    step(5, 6, read(Some("b"))),
                    step(7, 8, read(Some("a"))),
                ],
                false,
            ),
            (
                "created twice",
                vec![
                    step(
                        1,
                        2,
                        StepKind::Put {
                            value: "a".to_owned(),
                            absent: true,
                        },
                    ),
                    step(
                        3,
                        4,
                        StepKind::Put {
                            value: "b".to_owned(),
                            absent: true,
                        },
                    ),
                ],
                false,
            ),
        ] {
            assert_eq!(has_order(&steps), expected, "{case}");
        }
    }
}
