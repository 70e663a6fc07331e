//! Which events are told, and which of them as one: what keeps a story that goes on and on from being so many objects.
//!
//! Of events that differ in their message alone, [`SIMILAR_MAX`] less one stand for themselves; what comes beyond them while they keep
//! coming is one event, with the words of the latest. And one source may tell [`BURST`] of them about one object, good news and bad apart,
//! and then one every [`REFILL_SECONDS`]. Both as Kubernetes' recorders do it. Counting what is the same to the letter is left to
//! whoever writes events: it depends on what was written.
//!
//! Time is handed in. Invariant: no more than [`REMEMBERED_MAX`] of each sort are remembered; beyond that those that were told least
//! lately are forgotten, half of them.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::names;

/// So many messages of one reason make them similar.
const SIMILAR_MAX: usize = 10;
/// Without another one for so long, they are not any more.
const SIMILAR_FOR: SignedDuration = SignedDuration::from_mins(10);
/// Events that one source may tell about one object at once.
const BURST: i64 = 25;
/// One more each.
const REFILL_SECONDS: i64 = 300;
/// Of groups and of sources.
const REMEMBERED_MAX: usize = 4096;
/// What stands before the message of an event that stands for others, too.
const COMBINED: &str = "(combined from similar events): ";

/// Who tells something about whom.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// A component of the cluster; with it, the node that it is on.
    pub component: &'a str,
    pub host: &'a str,
    pub uid: &'a str,
    /// Of objects whose uid says nothing.
    pub kind: &'a str,
    pub name: &'a str,
    pub is_warning: bool,
}

/// What was told lately, of all sources.
#[derive(Debug, Default)]
pub struct EventFilter {
    groups: BTreeMap<u64, Group>,
    sources: BTreeMap<u64, Left>,
}

/// Events of one source and reason.
#[derive(Debug)]
struct Group {
    /// Hashes of those that stand for themselves.
    messages: Vec<u64>,
    last: Timestamp,
}

/// What a source may tell yet, and since when that holds.
#[derive(Debug)]
struct Left {
    events: i64,
    since: Timestamp,
}

impl Source<'_> {
    fn hash(&self, reason: &str) -> u64 {
        names::hash(&[
            self.component.as_bytes(),
            self.host.as_bytes(),
            self.uid.as_bytes(),
            self.kind.as_bytes(),
            self.name.as_bytes(),
            &[u8::from(self.is_warning)],
            reason.as_bytes(),
        ])
    }
}

impl EventFilter {
    /// The message of the event that stands for this one and those like it; `None`: it stands for itself.
    pub fn combined(
        &mut self,
        source: &Source<'_>,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) -> Option<String> {
        forget(&mut self.groups, |group| group.last);
        let group = self.groups.entry(source.hash(reason)).or_insert(Group {
            messages: Vec::new(),
            last: now,
        });
        if now.duration_since(group.last) > SIMILAR_FOR {
            group.messages.clear();
        }
        group.last = now;
        let message_hash = names::hash(&[message.as_bytes()]);
        if group.messages.contains(&message_hash) {
            return None;
        }
        if group.messages.len() + 1 < SIMILAR_MAX {
            group.messages.push(message_hash);
            return None;
        }
        Some(format!("{COMBINED}{message}"))
    }

    /// Takes one of the events that the source has left. False: it has none.
    pub fn may_tell(&mut self, source: &Source<'_>, now: Timestamp) -> bool {
        forget(&mut self.sources, |left| left.since);
        let left = self.sources.entry(source.hash("")).or_insert(Left {
            events: BURST,
            since: now,
        });
        let refilled = now.duration_since(left.since).as_secs().max(0) / REFILL_SECONDS;
        left.events = left.events.saturating_add(refilled).min(BURST);
        let passed = SignedDuration::from_secs(refilled * REFILL_SECONDS);
        left.since = match left.events {
            BURST => now,
            _ => left.since.checked_add(passed).unwrap_or(now),
        };
        if left.events == 0 {
            return false;
        }
        left.events -= 1;
        true
    }
}

/// Makes room for one more, where there is none.
fn forget<T>(remembered: &mut BTreeMap<u64, T>, last: impl Fn(&T) -> Timestamp) {
    if remembered.len() < REMEMBERED_MAX {
        return;
    }
    let mut times: Vec<Timestamp> = remembered.values().map(&last).collect();
    times.sort_unstable();
    let Some(middle) = times.get(times.len() / 2).copied() else {
        return;
    };
    remembered.retain(|_, one| last(one) > middle);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn source(is_warning: bool) -> Source<'static> {
        Source {
            component: "kubelet",
            host: "a",
            uid: "u",
            kind: "Pod",
            name: "p",
            is_warning,
        }
    }

    #[test]
    fn beyond_nine_messages_of_a_reason_the_others_are_one() {
        let mut filter = EventFilter::default();
        let told = |filter: &mut EventFilter, reason, message: &str, second| {
            filter.combined(&source(true), reason, message, at(second))
        };
        for number in 0..9 {
            let message = format!("port {number}");
            assert_eq!(told(&mut filter, "Failed", &message, 0), None, "{number}");
        }
        for message in ["port 9", "port 10", "port 9"] {
            let expected = format!("(combined from similar events): {message}");
            assert_eq!(told(&mut filter, "Failed", message, 1), Some(expected));
        }
        for (reason, message, second, is_combined) in [
            ("Failed", "port 3", 2, false),
            ("BackOff", "port 11", 2, false),
            ("Failed", "port 12", 602, true),
            // Ten minutes and a second after the last one it is a new story.
            ("Failed", "port 13", 1203, false),
        ] {
            let found = told(&mut filter, reason, message, second);
            assert_eq!(
                found.is_some(),
                is_combined,
                "{reason} {message} at {second}"
            );
        }
        let good = source(false);
        assert_eq!(filter.combined(&good, "Failed", "port 14", at(602)), None);
    }

    #[test]
    fn one_source_tells_so_many_events_of_an_object_and_then_one_now_and_then() {
        let mut filter = EventFilter::default();
        let mut told = |is_warning: bool, second: i64| {
            let tries = 0..100;
            tries
                .filter(|_| filter.may_tell(&source(is_warning), at(second)))
                .count()
        };
        for (is_warning, second, events) in [
            (false, 0, 25),
            // Counted apart, so that a burst of good news hides none of the bad.
            (true, 0, 25),
            (false, 299, 0),
            (false, 301, 1),
            // What of a period has passed is not lost.
            (false, 600, 1),
            (false, 1_300, 2),
            (false, 1_000_000, 25),
        ] {
            assert_eq!(told(is_warning, second), events, "{is_warning} at {second}");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut filter = EventFilter::default();
        for number in 0..10_000 {
            let name = format!("p{number}");
            let source = Source {
                name: &name,
                ..source(false)
            };
            filter.combined(&source, "R", "m", at(number));
            filter.may_tell(&source, at(number));
        }
        assert!(filter.groups.len() <= REMEMBERED_MAX);
        assert!(filter.sources.len() <= REMEMBERED_MAX);
        assert!(filter.sources.values().any(|left| left.since == at(9_999)));
    }
}
