//! Revisions: what `kubectl rollout history` lists, and how many of them are kept.

use super::pass::Pass;
use super::sets::{Set, size_of};
use super::{NOT_COPIED, REVISION, REVISION_HISTORY};
use crate::write::Write;

/// Old ReplicaSets kept for `rollout undo` when the spec does not say.
const DEFAULT_HISTORY_LIMIT: i32 = 10;
/// The longest list of the revisions that a set has been, in bytes; Kubernetes' number.
const REVISIONS_BYTES_MAX: usize = 2000;

impl Pass<'_> {
    /// Gives the current set the newest revision, as after `rollout undo`, and the Deployment the same.
    pub(super) fn adopt_revision(&mut self) {
        let newest_old = self.old.iter().map(Set::revision).max().unwrap_or(0);
        let Some(new) = &mut self.new else {
            return;
        };
        for (key, value) in self.want.row.meta.annotations.iter() {
            if !NOT_COPIED.contains(&key.as_str()) {
                new.annotations.insert(key.clone(), value.clone());
            }
        }
        let mine = new.revision();
        if mine <= newest_old {
            if mine > 0 {
                let history = new.annotations.entry(REVISION_HISTORY.into()).or_default();
                *history = with_revision(history, mine);
            }
            let next = newest_old.saturating_add(1).to_string();
            new.annotations.insert(REVISION.into(), next);
        }
        self.revision = new.annotations.get(REVISION).cloned();
        let message = format!("Found new replica set \"{}\"", new.row.key.name);
        if self.want.deadline_seconds.is_some() && self.condition("Progressing").is_none() {
            self.set_condition("Progressing", "True", "FoundNewReplicaSet", message);
        }
    }

    /// Deletes the oldest empty sets beyond `revisionHistoryLimit`.
    pub(super) fn drop_history(&mut self) {
        let limit = self.want.spec.revision_history_limit;
        let limit = usize::try_from(limit.unwrap_or(DEFAULT_HISTORY_LIMIT)).unwrap_or(0);
        let mut kept: Vec<&Set> = self
            .old
            .iter()
            .filter(|set| !set.row.meta.is_deleting())
            .collect();
        kept.sort_by_key(|set| set.revision());
        let excess = kept.len().saturating_sub(limit);
        for set in kept.into_iter().take(excess) {
            let status = set.row.body.status.as_ref();
            let observed = status.and_then(|s| s.observed_generation).unwrap_or(0);
            let idle = set.actual() == 0 && set.size == 0 && size_of(&set.row) == 0;
            if idle && set.row.meta.generation <= observed {
                self.writes.push(Write::delete(&set.row));
            }
        }
    }
}

/// A list of revisions with one more; the oldest go where it would get too long.
fn with_revision(history: &str, revision: i64) -> String {
    let mut kept = history;
    loop {
        let list = match kept {
            "" => revision.to_string(),
            kept => format!("{kept},{revision}"),
        };
        if list.len() <= REVISIONS_BYTES_MAX || kept.is_empty() {
            return list;
        }
        kept = kept.split_once(',').map_or("", |(_, rest)| rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_revisions_of_a_set_are_forgotten_when_there_are_too_many() {
        assert_eq!(with_revision("", 1), "1");
        assert_eq!(with_revision("1", 3), "1,3");
        let mut history = String::new();
        for revision in 1..=2000 {
            history = with_revision(&history, revision);
            assert!(history.len() <= REVISIONS_BYTES_MAX);
        }
        // 400 of four digits with their commas take one less than 2,000 bytes.
        assert!(history.starts_with("1601,1602,") && history.ends_with(",1999,2000"));
        // Somebody wrote one that is too long by itself.
        assert_eq!(with_revision(&"9".repeat(3000), 7), "7");
    }
}
