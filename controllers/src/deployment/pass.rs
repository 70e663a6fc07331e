//! One pass over a Deployment: which ReplicaSet grows, which shrinks, and whether one is missing.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use weft_api::view::DeploymentStatus;
use weft_kinds::REPLICA_SET;

use super::proportion::{Part, shared};
use super::sets::{Set, new_set, same_template, set_name, set_patch, template_hash};
use super::want::Want;
use super::{DESIRED_REPLICAS, HASH_LABEL, MAX_REPLICAS, REVISION};
use crate::Outcome;
use crate::amount::count;
use crate::indexer::Cached;
use crate::lens::ReplicaSet;
use crate::pod;
use crate::view::View;
use crate::write::{Note, Write};

/// The pass over one Deployment.
pub struct Pass<'a> {
    pub(super) want: Want<'a>,
    pub(super) now: Timestamp,
    /// The set of the current template, if it exists.
    pub(super) new: Option<Set>,
    /// The others, oldest first.
    pub(super) old: Vec<Set>,
    /// Annotations of the Deployment as we would have them.
    pub(super) revision: Option<String>,
    pub(super) status: DeploymentStatus,
    pub(super) writes: Vec<Write>,
}

impl<'a> Pass<'a> {
    /// `owned`: the sets that the Deployment controls.
    pub fn new(want: Want<'a>, owned: Vec<Arc<Cached<ReplicaSet>>>, now: Timestamp) -> Self {
        let mut sets: Vec<Set> = owned.into_iter().map(Set::of).collect();
        sets.sort_by(|a, b| a.created().cmp(&b.created()));
        let row = want.row;
        // By the hash first: it names the template this set was made from, however the server has spelled it since.
        let collisions = row.body.status.as_ref().and_then(|s| s.collision_count);
        let hash = template_hash(want.raw_template, collisions.unwrap_or(0));
        let made = |set: &Set| set.row.meta.labels.get(HASH_LABEL) == Some(&hash);
        let position = sets.iter().position(made).or_else(|| {
            let same = |set: &Set| same_template(&set.row.body, want.template);
            sets.iter().position(same)
        });
        let new = position.map(|at| sets.remove(at));
        Self {
            want,
            now,
            new,
            old: sets,
            revision: row.meta.annotations.get(REVISION).cloned(),
            status: row.body.status.clone().unwrap_or_default(),
            writes: Vec::new(),
        }
    }

    pub fn run(&mut self, view: &View) {
        if self.want.row.meta.is_deleting() {
            return;
        }
        self.note_pause();
        if self.want.paused || self.is_scaling() {
            self.adopt_revision();
            self.scale_in_proportion();
            if self.want.paused {
                self.drop_history();
            }
        } else if self.want.rolling {
            self.roll(view);
        } else {
            self.recreate(view);
        }
    }

    /// One step of a rolling update: first up, then, in a later pass, down.
    fn roll(&mut self, view: &View) {
        if !self.ensure_new(view) {
            return;
        }
        if self.grow_new() || self.shrink_old(view) {
            return;
        }
        if self.is_complete() {
            self.drop_history();
        }
    }

    /// Recreate: nothing new before the last old pod is gone.
    fn recreate(&mut self, view: &View) {
        self.adopt_revision();
        let mut shrunk = false;
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            set.scale(0, &self.want);
            shrunk = true;
        }
        if shrunk || self.old_pods_run(view) {
            return;
        }
        if !self.ensure_new(view) {
            return;
        }
        self.grow_new();
        if self.is_complete() {
            self.drop_history();
        }
    }

    fn old_pods_run(&self, view: &View) -> bool {
        self.old
            .iter()
            .flat_map(|set| view.list_by(&pod::BY_CONTROLLER, &set.row.meta.uid))
            .any(|pod| !pod.body.is_finished())
    }

    /// Makes sure the set of the current template exists and carries the newest revision. False: it was only now asked for.
    fn ensure_new(&mut self, view: &View) -> bool {
        if self.new.is_some() {
            self.adopt_revision();
            return true;
        }
        let newest = self.old.iter().map(Set::revision).max().unwrap_or(0);
        let mut collisions = self.status.collision_count.unwrap_or(0);
        let hash = template_hash(self.want.raw_template, collisions);
        let name = set_name(&self.want.row.key.name, &hash);
        let key = self.want.row.key.sibling(&name);
        if view.object_of(&REPLICA_SET, &key).is_some() {
            // The name is taken by a set that is not ours or has another template: hash again next time.
            collisions = collisions.checked_add(1).unwrap_or(0);
            self.status.collision_count = Some(collisions);
            return false;
        }
        let size = self.size_for_new(0);
        let revision = newest.saturating_add(1).to_string();
        let set = new_set(&self.want, &name, &hash, size, &revision);
        let told = Note::normal(
            self.want.row.reference(),
            "ScalingReplicaSet",
            format!("Scaled up replica set {name} from 0 to {size}"),
        );
        let mut create = Write::create(&REPLICA_SET, set);
        if size > 0 {
            create = create.telling(told.or_refused("ReplicaSetCreateError"));
        }
        self.writes.push(create);
        self.revision = Some(revision);
        if self.want.deadline_seconds.is_some() {
            self.set_condition(
                "Progressing",
                "True",
                "NewReplicaSetCreated",
                format!("Created new replica set \"{name}\""),
            );
        }
        false
    }

    fn total(&self) -> i64 {
        let old: i64 = self.old.iter().map(|set| set.size).sum();
        old + self.new.as_ref().map_or(0, |set| set.size)
    }

    /// How large the current set, `present` pods large now, may be.
    fn size_for_new(&self, present: i64) -> i64 {
        if !self.want.rolling {
            return self.want.replicas;
        }
        let room = self.want.replicas + self.want.surge - self.total();
        if room <= 0 {
            return present;
        }
        present + room.min(self.want.replicas - present)
    }

    /// True when the current set changed size.
    fn grow_new(&mut self) -> bool {
        let Some(present) = self.new.as_ref().map(|set| set.size) else {
            return false;
        };
        let size = if present > self.want.replicas {
            self.want.replicas
        } else {
            self.size_for_new(present)
        };
        if size == present {
            return false;
        }
        if let Some(new) = &mut self.new {
            new.scale(size, &self.want);
        }
        true
    }

    /// True when an old set changed size.
    fn shrink_old(&mut self, view: &View) -> bool {
        let (now, floor) = (self.now, self.want.replicas - self.want.unavailable);
        let new_unavailable = self
            .new
            .as_ref()
            .map_or(0, |set| set.size - set.dependable(view, now));
        let spare = self.total() - floor - new_unavailable;
        if spare <= 0 || self.old.iter().all(|set| set.size == 0) {
            return false;
        }
        let mut shrunk = 0;
        // First what serves nobody anyway …
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            let unhealthy = (set.size - set.available()).max(0);
            let by = unhealthy.min(spare - shrunk);
            if by > 0 {
                set.scale(set.size - by, &self.want);
                shrunk += by;
            }
        }
        // … then what is available above the floor, oldest first.
        let all = self.old.iter().chain(&self.new);
        let available: i64 = all.map(|set| set.dependable(view, now)).sum();
        let mut spare = available - floor;
        for set in self.old.iter_mut().filter(|set| set.size > 0) {
            let by = set.size.min(spare);
            if by > 0 {
                set.scale(set.size - by, &self.want);
                spare -= by;
                shrunk += by;
            }
        }
        shrunk > 0
    }

    /// `spec.replicas` changed since the sets were last sized.
    fn is_scaling(&self) -> bool {
        let active = self.old.iter().chain(&self.new).filter(|set| set.size > 0);
        active
            .filter_map(|set| set.annotation_number(DESIRED_REPLICAS))
            .any(|desired| desired != self.want.replicas)
    }

    fn scale_in_proportion(&mut self) {
        let want = &self.want;
        let active = self.old.iter().chain(&self.new).filter(|set| set.size > 0);
        match active.count() {
            0 | 1 => {
                // The only active set, else the current one, else the newest.
                let mut sets: Vec<&mut Set> = self.old.iter_mut().chain(&mut self.new).collect();
                let only = sets.iter().position(|set| set.size > 0);
                let at = only.or_else(|| sets.len().checked_sub(1));
                if let Some(set) = at.map(|at| &mut sets[at]) {
                    set.scale(want.replicas, want);
                }
                return;
            }
            _ => {}
        }
        let saturated = self.new.as_ref().is_some_and(|set| {
            set.size == want.replicas
                && set.annotation_number(DESIRED_REPLICAS) == Some(want.replicas)
                && set.available() == want.replicas
        });
        if saturated {
            for set in self.old.iter_mut().filter(|set| set.size > 0) {
                set.scale(0, want);
            }
            return;
        }
        if !want.rolling {
            // Recreate empties the old sets by itself once the change of size is noted.
            for set in self.old.iter_mut().chain(&mut self.new) {
                set.note_wanted(want);
            }
            return;
        }
        let reported = count(self.status.replicas);
        let mut sets: Vec<&mut Set> = self.old.iter_mut().chain(&mut self.new).collect();
        sets.retain(|set| set.size > 0);
        sets.sort_by(|a, b| a.created().cmp(&b.created()));
        let part = |set: &&mut Set| {
            // Without the annotation the set predates us: its share is of what the Deployment last reported.
            let most = set.annotation_number(MAX_REPLICAS);
            let most_before = most.filter(|most| *most > 0).unwrap_or(reported);
            let size = set.size;
            Part { size, most_before }
        };
        let parts: Vec<Part> = sets.iter().map(part).collect();
        let sizes = shared(&parts, want.replicas, want.surge);
        for (set, size) in sets.into_iter().zip(sizes) {
            set.scale(size, want);
        }
    }

    fn is_complete(&self) -> bool {
        let updated = self.new.as_ref();
        let all: i64 = self.old.iter().chain(&self.new).map(Set::actual).sum();
        let available: i64 = self.old.iter().chain(&self.new).map(Set::available).sum();
        updated.map_or(0, Set::actual) == self.want.replicas
            && all == self.want.replicas
            && available == self.want.replicas
    }

    /// Turns what changed into writes.
    pub fn finish(mut self) -> Outcome {
        let requeue_after = self.update_status();
        let want = &self.want;
        let mut writes = Vec::new();
        let revision = want.row.meta.annotations.get(REVISION);
        if let Some(new) = self.revision.as_ref().filter(|r| Some(*r) != revision) {
            let patch = json!({"metadata": {"annotations": {REVISION: new}}});
            writes.push(Write::patch(want.row, patch));
        }
        let min_ready = want.spec.min_ready_seconds.unwrap_or(0);
        for (set, current) in self
            .new
            .iter()
            .map(|set| (set, true))
            .chain(self.old.iter().map(|set| (set, false)))
        {
            writes.extend(set_patch(want.row, set, current.then_some(min_ready)));
        }
        // A set that was only now asked for, or an old one to be dropped, after the rest.
        writes.append(&mut self.writes);
        let before = want.row.body.status.clone().unwrap_or_default();
        // The annotation patch above moves the revision; and nobody else writes this status.
        writes.extend(Write::status(want.row, &before, &self.status).map(Write::unbound));
        Outcome {
            writes,
            requeue_after,
            ..Outcome::default()
        }
    }
}
