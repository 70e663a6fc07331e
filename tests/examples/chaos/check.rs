//! The judge: whether a history is one of a store that keeps what it acknowledged and shows no past.
//!
//! Every write has a revision of its own, so the order of all of them is known from the watches. The watches are compared
//! with each other and with the final state, replayed, and each answer is held against that order and against real
//! time. Sorting and a few passes, whatever the history's length.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::history::{Ask, Change, Event, History, Key, Moment, Operation, Revision, Told, Value};

type State = BTreeMap<Key, (Revision, Value)>;

/// A write that took effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fact {
    change: Change,
    key: Key,
    value: Value,
}

/// What an object was before and after one of its revisions.
#[derive(Debug, Clone, Copy)]
struct Version {
    revision: Revision,
    /// `None` where it was deleted.
    value: Option<Value>,
    /// When this was asked for; `None` where nobody is known to have.
    asked: Option<Moment>,
}

struct Judge<'a> {
    history: &'a History,
    facts: BTreeMap<Revision, Fact>,
    versions: HashMap<Key, Vec<Version>>,
    /// The revision before each fact, of the same object.
    previous: HashMap<Revision, Option<Revision>>,
    /// Which operation wrote a value.
    writers: HashMap<Value, usize>,
    /// Known by each moment: the highest revision that an answer told until then.
    known: Vec<(Moment, Revision)>,
    wrong: Vec<String>,
}

/// Everything that is wrong with the history; empty for one that is sound.
pub fn violations(history: &History) -> Vec<String> {
    let mut judge = Judge {
        history,
        facts: BTreeMap::new(),
        versions: HashMap::new(),
        previous: HashMap::new(),
        writers: HashMap::new(),
        known: Vec::new(),
        wrong: Vec::new(),
    };
    for (index, operation) in history.operations.iter().enumerate() {
        if let Some(value) = operation.value() {
            judge.writers.insert(value, index);
        }
    }
    judge.collect();
    judge.watches();
    let deletes = judge.deletes();
    judge.replay(&deletes);
    judge.what_was_known(&deletes);
    for operation in &history.operations {
        judge.answer(operation, &deletes);
    }
    judge.lists();
    judge.wrong
}

impl Judge<'_> {
    /// The facts, as all watches together tell them.
    fn collect(&mut self) {
        for watch in &self.history.watches {
            for event in &watch.events {
                let Event::Object {
                    change,
                    key,
                    value,
                    revision,
                } = *event
                else {
                    continue;
                };
                let fact = Fact { change, key, value };
                let known = *self.facts.entry(revision).or_insert(fact);
                if known != fact {
                    self.wrong.push(format!(
                        "two watches tell revision {revision} differently: {known:?} and {fact:?}"
                    ));
                }
            }
        }
    }

    /// Each watch: in order, nothing twice, nothing left out, up to the end.
    fn watches(&mut self) {
        for (index, watch) in self.history.watches.iter().enumerate() {
            let mut last = watch.after;
            let mut told = HashSet::new();
            for event in &watch.events {
                let revision = event.revision();
                // A bookmark may repeat what the last event told.
                let bookmark = matches!(event, Event::Bookmark(_));
                if revision < last || (revision == last && !bookmark) {
                    self.wrong.push(format!(
                        "watch {index}: {event:?} came after revision {last}"
                    ));
                }
                if !bookmark {
                    told.insert(revision);
                }
                last = last.max(revision);
            }
            if let Some((newest, fact)) = self.facts.last_key_value()
                && last < *newest
                && !watch.given_up
            {
                self.wrong.push(format!(
                    "watch {index} ended at {last} and never told of {newest}: {fact:?}"
                ));
            }
            let range = self
                .facts
                .range(watch.after + 1..=last.max(watch.after + 1));
            for (revision, fact) in range.filter(|(revision, _)| **revision <= last) {
                if !told.contains(revision) {
                    self.wrong.push(format!(
                        "watch {index} left out revision {revision}: {fact:?}"
                    ));
                }
            }
        }
    }

    /// Which fact each acknowledged delete is: the one that follows the revision it named.
    fn deletes(&mut self) -> HashMap<(Key, Revision), Revision> {
        let mut now: HashMap<Key, Revision> = HashMap::new();
        let mut deletes = HashMap::new();
        for (revision, fact) in &self.facts {
            match fact.change {
                Change::Added | Change::Modified => {
                    now.insert(fact.key, *revision);
                }
                Change::Deleted => {
                    if let Some(base) = now.remove(&fact.key) {
                        deletes.insert((fact.key, base), *revision);
                    }
                }
            }
        }
        deletes
    }

    /// The facts one after the other: each consistent with those before, and asked for by somebody.
    fn replay(&mut self, deletes: &HashMap<(Key, Revision), Revision>) {
        let mut asked_delete: HashMap<Revision, Moment> = HashMap::new();
        let mut acknowledged_delete: HashSet<Revision> = HashSet::new();
        for operation in &self.history.operations {
            let Ask::Delete { key, base } = operation.ask else {
                continue;
            };
            let Some(revision) = deletes.get(&(key, base)) else {
                continue;
            };
            if matches!(operation.told, Told::Deleted) && !acknowledged_delete.insert(*revision) {
                self.wrong.push(format!(
                    "two deletes were acknowledged for the one of revision {revision}: {operation:?}"
                ));
            }
            if matches!(operation.told, Told::Deleted | Told::Unknown(_)) {
                let asked = asked_delete.entry(*revision).or_insert(operation.asked);
                *asked = operation.asked.min(*asked);
            }
        }
        let mut state = State::new();
        let mut written: HashMap<Value, Revision> = HashMap::new();
        let facts = std::mem::take(&mut self.facts);
        for (revision, fact) in &facts {
            let before = state.get(&fact.key).copied();
            self.previous
                .insert(*revision, before.map(|before| before.0));
            let fits = match fact.change {
                Change::Added => before.is_none(),
                Change::Modified => before.is_some(),
                // A deleted object is shown as it was last.
                Change::Deleted => before.is_some_and(|before| before.1 == fact.value),
            };
            if !fits {
                self.wrong.push(format!(
                    "revision {revision} is {fact:?}, and before it was {before:?}"
                ));
            }
            let version = if fact.change == Change::Deleted {
                state.remove(&fact.key);
                let asked = asked_delete.get(revision).copied();
                if asked.is_none() {
                    self.wrong.push(format!(
                        "nobody asked for the delete of revision {revision}: {fact:?}"
                    ));
                }
                Version {
                    revision: *revision,
                    value: None,
                    asked,
                }
            } else {
                state.insert(fact.key, (*revision, fact.value));
                if let Some(first) = written.insert(fact.value, *revision) {
                    self.wrong.push(format!(
                        "one write took effect twice, at {first} and {revision}: {fact:?}"
                    ));
                }
                Version {
                    revision: *revision,
                    value: Some(fact.value),
                    asked: self.writer(*revision, fact),
                }
            };
            self.versions.entry(fact.key).or_default().push(version);
        }
        self.facts = facts;
        if state != self.history.last.1 {
            self.wrong.push(format!(
                "at the end {:?} is there, and the watches tell of {state:?}",
                self.history.last.1
            ));
        }
    }

    /// When what this fact wrote was asked for; the condition it was asked for with must have held.
    fn writer(&mut self, revision: Revision, fact: &Fact) -> Option<Moment> {
        let Some(index) = self.writers.get(&fact.value) else {
            self.wrong
                .push(format!("nobody wrote revision {revision}: {fact:?}"));
            return None;
        };
        let operation = &self.history.operations[*index];
        let before = self.previous.get(&revision).copied().flatten();
        let (key, held) = match operation.ask {
            Ask::Create { key, .. } => (key, before.is_none()),
            Ask::Update { key, base, .. } => (key, before == Some(base)),
            Ask::Delete { .. } | Ask::Get { .. } | Ask::List => return None,
        };
        if key != fact.key || !held {
            self.wrong.push(format!(
                "took effect at {revision} over {before:?}: {operation:?}"
            ));
        }
        match operation.told {
            Told::Written(told) if told != revision => self.wrong.push(format!(
                "took effect at {revision} and not where it was told: {operation:?}"
            )),
            Told::Conflict | Told::NotFound => self.wrong.push(format!(
                "refused, yet in effect at {revision}: {operation:?}"
            )),
            _ => {}
        }
        Some(operation.asked)
    }

    fn what_was_known(&mut self, deletes: &HashMap<(Key, Revision), Revision>) {
        for operation in &self.history.operations {
            let revision = match (&operation.told, &operation.ask) {
                (
                    Told::Written(revision) | Told::Found(revision, _) | Told::Listed(revision, _),
                    _,
                ) => Some(*revision),
                (Told::Deleted, Ask::Delete { key, base }) => deletes.get(&(*key, *base)).copied(),
                _ => None,
            };
            if let Some(revision) = revision {
                self.known.push((operation.answered, revision));
            }
        }
        self.known.sort_unstable();
        let mut highest = 0;
        for (_, revision) in &mut self.known {
            highest = highest.max(*revision);
            *revision = highest;
        }
    }

    /// The highest revision that was told before this moment.
    fn floor(&self, moment: Moment) -> Revision {
        let count = self.known.partition_point(|(at, _)| *at < moment);
        count.checked_sub(1).map_or(0, |last| self.known[last].1)
    }

    fn answer(&mut self, operation: &Operation, deletes: &HashMap<(Key, Revision), Revision>) {
        let floor = self.floor(operation.asked);
        let problem = match (&operation.ask, &operation.told) {
            (
                Ask::Create { key, value } | Ask::Update { key, value, .. },
                Told::Written(revision),
            ) => {
                let there = self.facts.get(revision).is_some_and(|fact| {
                    fact.change != Change::Deleted && fact.key == *key && fact.value == *value
                });
                match (there, *revision > floor) {
                    (false, _) => Some("acknowledged and lost".to_owned()),
                    (true, false) => Some(format!("{floor} was known before it was asked for")),
                    (true, true) => None,
                }
            }
            (Ask::Delete { key, base }, Told::Deleted) => match deletes.get(&(*key, *base)) {
                None => Some("acknowledged and lost".to_owned()),
                Some(revision) if *revision <= floor => {
                    Some(format!("{floor} was known before it was asked for"))
                }
                Some(_) => None,
            },
            (Ask::Get { key }, Told::Found(revision, value)) => {
                self.showed(*key, Some((*revision, *value)), floor, operation)
            }
            (Ask::Get { key }, Told::NotFound) => self.showed(*key, None, floor, operation),
            (Ask::Update { key, .. } | Ask::Delete { key, .. }, Told::NotFound) => {
                self.showed(*key, None, floor, operation)
            }
            (Ask::Update { key, base, .. } | Ask::Delete { key, base }, Told::Conflict) => {
                let other = |version: &Version| version.revision != *base;
                let held = self.at_some_time(*key, floor, operation.answered, other, true);
                (!held).then(|| format!("refused, and it was at {base}"))
            }
            (Ask::Create { key, .. }, Told::Conflict) => {
                let present = |version: &Version| version.value.is_some();
                let held = self.at_some_time(*key, floor, operation.answered, present, false);
                (!held).then(|| "refused, and it was not there".to_owned())
            }
            (Ask::List, Told::Listed(revision, _)) if *revision < floor => {
                Some(format!("{floor} was known before it was asked for"))
            }
            _ => None,
        };
        if let Some(problem) = problem {
            self.wrong.push(format!("{problem}: {operation:?}"));
        }
    }

    /// Whether an object could be seen like this by somebody who knew of `floor` when he asked.
    fn showed(
        &self,
        key: Key,
        seen: Option<(Revision, Value)>,
        floor: Revision,
        operation: &Operation,
    ) -> Option<String> {
        let is_it = |version: &Version| match seen {
            Some((revision, value)) => version.revision == revision && version.value == Some(value),
            None => version.value.is_none(),
        };
        let fits = self.at_some_time(key, floor, operation.answered, is_it, seen.is_none());
        (!fits).then(|| format!("not what was there at {floor} or later"))
    }

    /// Whether `what` held of an object at a revision from `floor` on that was asked for before `answered`;
    /// `absent` tells whether it holds of an object that never was there.
    fn at_some_time(
        &self,
        key: Key,
        floor: Revision,
        answered: Moment,
        what: impl Fn(&Version) -> bool,
        absent: bool,
    ) -> bool {
        let versions = self.versions.get(&key).map_or(&[][..], Vec::as_slice);
        let until_floor = versions.partition_point(|version| version.revision <= floor);
        let at_floor = match until_floor.checked_sub(1) {
            None => absent,
            Some(last) => what(&versions[last]),
        };
        at_floor
            || versions[until_floor..]
                .iter()
                // Each builds on the one before: nothing after the first that was asked for too late can have been seen.
                .take_while(|version| version.asked.is_none_or(|asked| asked <= answered))
                .any(what)
    }

    /// Each list against the state at its revision.
    fn lists(&mut self) {
        let mut lists: Vec<(Revision, &State, Option<&Operation>)> = self
            .history
            .operations
            .iter()
            .filter_map(|operation| match &operation.told {
                Told::Listed(revision, seen) => Some((*revision, seen, Some(operation))),
                _ => None,
            })
            .collect();
        lists.push((self.history.last.0, &self.history.last.1, None));
        lists.sort_by_key(|(revision, ..)| *revision);
        let mut state = State::new();
        let mut facts = self.facts.iter().peekable();
        for (revision, seen, operation) in lists {
            while let Some((at, fact)) = facts.next_if(|(at, _)| **at <= revision) {
                if fact.change == Change::Deleted {
                    state.remove(&fact.key);
                } else {
                    state.insert(fact.key, (*at, fact.value));
                }
            }
            if state != *seen {
                self.wrong.push(format!(
                    "a list of revision {revision} shows {seen:?}, and {state:?} was there"
                ));
            }
            let Some(operation) = operation else { continue };
            for (written, value) in seen.values() {
                let writer = self.writers.get(value);
                let asked = writer.map(|index| self.history.operations[*index].asked);
                if asked.is_some_and(|asked| asked > operation.answered) {
                    self.wrong.push(format!(
                        "revision {written} was seen before it was asked for: {operation:?}"
                    ));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{Unknown, Watch};
    use super::*;

    const LOST: Told = Told::Unknown(Unknown::TimedOut);

    fn operation(asked: Moment, answered: Moment, ask: Ask, told: Told) -> Operation {
        Operation {
            server: 0,
            asked,
            answered,
            ask,
            told,
        }
    }

    fn create(value: Value) -> Ask {
        Ask::Create { key: 1, value }
    }

    fn update(value: Value, base: Revision) -> Ask {
        Ask::Update {
            key: 1,
            value,
            base,
        }
    }

    fn event(change: Change, value: Value, revision: Revision) -> Event {
        Event::Object {
            change,
            key: 1,
            value,
            revision,
        }
    }

    const GET: Ask = Ask::Get { key: 1 };

    /// Created at 11, updated at 12, deleted at 13, created again at 14, and read in between.
    fn sound() -> History {
        let listed = |revision, seen: &[(Revision, Value)]| {
            let seen = seen.iter().map(|seen| (1, *seen));
            Told::Listed(revision, seen.collect())
        };
        let told = vec![
            event(Change::Added, 101, 11),
            event(Change::Modified, 102, 12),
            Event::Bookmark(12),
            event(Change::Deleted, 102, 13),
            event(Change::Added, 103, 14),
        ];
        let watch = Watch {
            after: 10,
            events: told,
            given_up: false,
        };
        History {
            operations: vec![
                operation(0, 9, GET, Told::NotFound),
                operation(10, 19, create(101), Told::Written(11)),
                operation(20, 29, GET, Told::Found(11, 101)),
                operation(30, 39, update(102, 11), Told::Written(12)),
                operation(40, 49, update(109, 11), Told::Conflict),
                operation(50, 59, create(108), Told::Conflict),
                operation(60, 69, Ask::List, listed(12, &[(12, 102)])),
                operation(70, 79, Ask::Delete { key: 1, base: 12 }, Told::Deleted),
                operation(80, 89, update(107, 12), Told::NotFound),
                operation(90, 99, create(103), LOST),
                operation(110, 119, GET, Told::Found(14, 103)),
            ],
            watches: vec![watch.clone(), watch],
            last: (14, BTreeMap::from([(1, (14, 103))])),
        }
    }

    #[test]
    fn a_sound_history_passes() {
        assert_eq!(violations(&sound()), Vec::<String>::new());
    }

    /// A name, the fault that is planted, and a part of what the checker has to say.
    type Planted = (&'static str, fn(&mut History), &'static str);

    #[test]
    fn planted_faults_are_found() {
        let planted: &[Planted] = &[
            (
                "an acknowledged create is nowhere",
                |history| {
                    let lost = operation(120, 129, create(104), Told::Written(15));
                    history.operations.push(lost);
                },
                "acknowledged and lost",
            ),
            (
                "an acknowledged delete is nowhere",
                |history| {
                    let delete = Ask::Delete { key: 1, base: 14 };
                    history
                        .operations
                        .push(operation(120, 129, delete, Told::Deleted));
                },
                "acknowledged and lost",
            ),
            (
                "one revision for two writes",
                |history| {
                    let twice = operation(10, 19, create(104), Told::Written(11));
                    history.operations.push(twice);
                },
                "acknowledged and lost",
            ),
            (
                "a write is told another revision than it has",
                |history| history.operations[3].told = Told::Written(11),
                "not where it was told",
            ),
            (
                "a write has a revision below what was known",
                |history| history.operations[10].answered = 1,
                "was known before",
            ),
            (
                "a get shows the past",
                |history| {
                    let stale = operation(120, 129, GET, Told::Found(12, 102));
                    history.operations.push(stale);
                },
                "not what was there",
            ),
            (
                "a get misses what is there",
                |history| history.operations[2].told = Told::NotFound,
                "not what was there",
            ),
            (
                "a get shows the future",
                |history| {
                    let early = operation(20, 25, GET, Told::Found(12, 102));
                    history.operations.push(early);
                },
                "not what was there",
            ),
            (
                "a get shows another value",
                |history| history.operations[2].told = Told::Found(11, 102),
                "not what was there",
            ),
            (
                "a list shows the past",
                |history| {
                    let stale = operation(120, 129, Ask::List, Told::Listed(13, State::new()));
                    history.operations.push(stale);
                },
                "was known before",
            ),
            (
                "a list leaves something out",
                |history| history.operations[6].told = Told::Listed(12, State::new()),
                "a list of revision 12",
            ),
            (
                "an update took effect on another revision",
                |history| history.operations[3].ask = update(102, 9),
                "took effect at 12 over Some(11)",
            ),
            (
                "a create took effect over what was there",
                |history| history.operations[3].ask = create(102),
                "took effect at 12 over Some(11)",
            ),
            (
                "refused, and in effect",
                |history| history.operations[3].told = Told::Conflict,
                "refused, yet in effect",
            ),
            (
                "a condition that held was refused",
                |history| {
                    let refused = operation(120, 129, update(106, 14), Told::Conflict);
                    history.operations.push(refused);
                },
                "refused, and it was at 14",
            ),
            (
                "a create was refused where nothing was",
                |history| {
                    let refused = operation(1, 8, create(106), Told::Conflict);
                    history.operations.push(refused);
                },
                "refused, and it was not there",
            ),
            (
                "a watch has a gap",
                |history| {
                    history.watches[1].events.remove(1);
                },
                "left out revision 12",
            ),
            (
                "a watch stops early",
                |history| {
                    history.watches[1].events.pop();
                },
                "never told of 14",
            ),
            (
                "a watch tells twice",
                |history| {
                    let again = history.watches[1].events[1];
                    history.watches[1].events.insert(2, again);
                },
                "came after revision 12",
            ),
            (
                "a watch tells in another order",
                |history| history.watches[1].events.swap(0, 1),
                "came after revision 12",
            ),
            (
                "a bookmark is early",
                |history| history.watches[1].events[2] = Event::Bookmark(13),
                "came after revision 13",
            ),
            (
                "two watches differ",
                |history| history.watches[1].events[0] = event(Change::Added, 102, 11),
                "tell revision 11 differently",
            ),
            (
                "nobody wrote it",
                |history| drop(history.operations.remove(9)),
                "nobody wrote revision 14",
            ),
            (
                "nobody deleted it",
                |history| drop(history.operations.remove(7)),
                "nobody asked for the delete of revision 13",
            ),
            (
                "two deletes of one object were acknowledged",
                |history| {
                    let again = history.operations[7].clone();
                    history.operations.push(again);
                },
                "two deletes were acknowledged",
            ),
            (
                "an unknown write took effect twice",
                |history| {
                    for watch in &mut history.watches {
                        watch.events.push(event(Change::Modified, 103, 15));
                    }
                },
                "one write took effect twice",
            ),
            (
                "the end is not what the watches told",
                |history| history.last.1.clear(),
                "at the end",
            ),
        ];
        for (name, plant, expected) in planted {
            let mut history = sound();
            plant(&mut history);
            let found = violations(&history);
            assert!(
                found.iter().any(|found| found.contains(expected)),
                "{name}: {found:?}"
            );
        }
    }
}
