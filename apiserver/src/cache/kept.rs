//! Views that lists which are read page by page come back to.
//!
//! Each pins the objects that were replaced since, so there is a bound a caller and one for all; what nobody came back to for
//! longest goes first, and only from whoever has most. Nobody can take away the pages of another by asking for many lists.
//! A revision has an age, too, by which a token leads nowhere any more even where the history would lead back to it: clients are
//! promised that tokens end, and have to be told what a list goes on from then.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use weft_store::Revision;

use super::view::View;

/// Lists that one caller can page through at a time: `kubectl get all` reads some ten kinds one after the other.
const A_CALLER_MAX: usize = 8;
/// Of all callers together: memory, not fairness.
const ALL_MAX: usize = 128;
/// How long a list may take over its pages, as in Kubernetes (etcd's compaction interval).
const AGE_MAX: Duration = Duration::from_secs(300);
/// How exactly the age of a revision is known: some thirty of them are remembered.
const MARK_EVERY: Duration = Duration::from_secs(10);

struct One {
    caller: String,
    /// Prefix of the kind's keys.
    prefix: String,
    view: View,
    since: Instant,
}

/// Views by caller and kind, the one that was used last at the end.
#[derive(Default)]
pub(crate) struct Kept {
    views: Vec<One>,
    /// Which revision was the newest at which time; the first one at least [`AGE_MAX`] ago, once there is one.
    marks: VecDeque<(Instant, Revision)>,
}

impl Kept {
    pub(crate) fn keep(&mut self, caller: &str, prefix: &str, view: &View, now: Instant) {
        self.sweep(now);
        if self.touch(caller, prefix, view.revision()).is_some() {
            return;
        }
        let own = |one: &One| one.caller == caller;
        if self.views.iter().filter(|one| own(one)).count() >= A_CALLER_MAX
            && let Some(oldest) = self.views.iter().position(own)
        {
            self.views.remove(oldest);
        } else if self.views.len() >= ALL_MAX {
            self.make_room();
        }
        self.views.push(One {
            caller: caller.to_owned(),
            prefix: prefix.to_owned(),
            view: view.clone(),
            since: now,
        });
    }

    pub(crate) fn get(
        &mut self,
        caller: &str,
        prefix: &str,
        revision: Revision,
        now: Instant,
    ) -> Option<View> {
        self.sweep(now);
        self.touch(caller, prefix, revision)
    }

    pub(crate) fn sweep(&mut self, now: Instant) {
        self.views
            .retain(|one| now.saturating_duration_since(one.since) < AGE_MAX);
    }

    /// Remembers that this revision is the newest now.
    pub(crate) fn note(&mut self, newest: Revision, now: Instant) {
        let age = |(at, _): &(Instant, Revision)| now.saturating_duration_since(*at);
        if self.marks.back().is_none_or(|last| age(last) >= MARK_EVERY) {
            self.marks.push_back((now, newest));
        }
        while self.marks.get(1).is_some_and(|next| age(next) >= AGE_MAX) {
            self.marks.pop_front();
        }
    }

    /// Whether this revision has not been the newest for longer than lists may take.
    pub(crate) fn is_expired(&self, revision: Revision, now: Instant) -> bool {
        self.marks.front().is_some_and(|(at, newest)| {
            revision < *newest && now.saturating_duration_since(*at) >= AGE_MAX
        })
    }

    pub(crate) fn clear(&mut self) {
        self.views.clear();
    }

    fn touch(&mut self, caller: &str, prefix: &str, revision: Revision) -> Option<View> {
        let at = self.views.iter().position(|one| {
            one.caller == caller && one.prefix == prefix && one.view.revision() == revision
        })?;
        let one = self.views.remove(at);
        let view = one.view.clone();
        self.views.push(one);
        Some(view)
    }

    /// Drops the view that its owner used least recently, of the owner with most of them.
    fn make_room(&mut self) {
        let count = |caller: &str| self.views.iter().filter(|one| one.caller == caller).count();
        let most = self.views.iter().map(|one| count(&one.caller)).max();
        let oldest = self
            .views
            .iter()
            .position(|one| Some(count(&one.caller)) == most);
        if let Some(oldest) = oldest {
            self.views.remove(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_the_pages_of_another() {
        let mut kept = Kept::default();
        let begin = Instant::now();
        kept.keep("a", "/core/pods/", &View::new(1), begin);
        for revision in 2..1000 {
            kept.keep("b", "/core/pods/", &View::new(revision), begin);
        }
        // Then as many callers as there is room for, and a few more: it is made by whoever has most.
        for caller in 0..ALL_MAX - 5 {
            kept.keep(&format!("c{caller}"), "/core/pods/", &View::new(7), begin);
        }
        assert_eq!(kept.views.len(), ALL_MAX);
        let has = |kept: &mut Kept, caller: &str, revision, at| {
            kept.get(caller, "/core/pods/", revision, at).is_some()
        };
        assert!(has(&mut kept, "a", 1, begin), "the only one of its caller");
        assert!(has(&mut kept, "b", 999, begin), "its newest");
        assert!(
            !has(&mut kept, "b", 991, begin),
            "more than one caller may have"
        );
        assert!(
            !has(&mut kept, "b", 992, begin),
            "the oldest of who has most"
        );
        assert!(!has(&mut kept, "a", 999, begin), "that of another");
        assert!(
            kept.get("b", "/core/nodes/", 999, begin).is_none(),
            "that of another kind"
        );
        let late = begin + AGE_MAX;
        kept.sweep(late);
        assert!(kept.views.is_empty(), "old views go without anybody asking");
    }

    #[test]
    fn a_revision_gets_old() {
        let (mut kept, begin) = (Kept::default(), Instant::now());
        for second in 0..1000 {
            kept.note(second / 10, begin + Duration::from_secs(second));
        }
        assert!(kept.marks.len() <= 32, "{}", kept.marks.len());
        let now = begin + Duration::from_secs(1000);
        // 69 was the newest until 700 s, which is five minutes ago.
        for (revision, expired) in [(0, true), (68, true), (70, false), (99, false)] {
            assert_eq!(kept.is_expired(revision, now), expired, "{revision}");
        }
    }

    #[test]
    fn what_was_used_last_stays() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        for revision in 1..=A_CALLER_MAX as u64 {
            kept.keep("a", "/p/", &View::new(revision), now);
        }
        assert!(kept.get("a", "/p/", 1, now).is_some());
        kept.keep("a", "/p/", &View::new(100), now);
        assert!(kept.get("a", "/p/", 1, now).is_some());
        assert!(kept.get("a", "/p/", 2, now).is_none());
    }
}
