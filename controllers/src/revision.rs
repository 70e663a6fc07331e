//! ControllerRevisions: what a workload's template was, each kept as the patch that brings it back.
//!
//! Revisions of an owner are numbered upwards; the one with the highest number is what is asked for. A template that was asked for before gets
//! its old revision back, with a new number. Which are kept beyond those in use is the owner's to say.
//!
//! Invariant: a revision's name is a function of its owner, its template and how often that name was somebody else's.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::names;
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_kinds::{CONTROLLER_REVISION, Kind};

use crate::claim::{adopt, controller_or_namespace, controller_reference};
use crate::indexer::{Cached, Index, Lens};
use crate::view::View;
use crate::write::{Write, object};

/// A label of pods: which revision they are of.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// Kubernetes cuts the owner's name so that revision names are names.
const PREFIX_BYTES_MAX: usize = 223;

/// What is read of a revision.
#[derive(Debug)]
pub struct Revision {
    pub number: i64,
    /// The patch.
    data: Value,
}

impl Lens for Revision {
    fn kind() -> &'static Arc<Kind> {
        &CONTROLLER_REVISION
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        Ok(Self {
            number: value["revision"].as_i64().unwrap_or(0),
            data: value["data"].clone(),
        })
    }
}

impl Revision {
    /// The template that it brings back.
    pub fn template(&self) -> Value {
        let mut template = self.data["spec"]["template"].clone();
        if let Some(members) = template.as_object_mut() {
            members.remove("$patch");
        }
        template
    }
}

/// Revisions by their controller, see [`controller_or_namespace`].
pub static BY_CONTROLLER: Index<Revision> = Index {
    name: "controller",
    of: controller_or_namespace,
};

/// The revision that is asked for.
pub struct Update {
    pub name: String,
    pub hash: String,
    /// How often its name turned out to be somebody else's.
    pub collisions: i32,
    /// What makes it the newest one, where it is not.
    pub write: Option<Write>,
}

/// The revisions of one owner, oldest first.
pub struct History {
    pub revisions: Vec<Arc<Cached<Revision>>>,
    /// Adoptions, to be written first.
    pub writes: Vec<Write>,
    /// The label that they carry their hash in.
    hash_label: &'static str,
}

impl History {
    /// Those of `owner`, and those that nobody owns and its selector matches.
    pub fn of<K: Lens>(
        view: &View,
        owner: &Cached<K>,
        selector: &LabelSelector,
        hash_label: &'static str,
    ) -> Self {
        let owned = view.list_by(&BY_CONTROLLER, &owner.meta.uid);
        let mut revisions: Vec<Arc<Cached<Revision>>> = owned
            .filter(|revision| revision.key.namespace == owner.key.namespace)
            .filter(|revision| selector.matches(&revision.meta.labels))
            .map(Arc::clone)
            .collect();
        revisions.sort_by(|a, b| order(a).cmp(&order(b)));
        let strays = view.list_by(&BY_CONTROLLER, &format!("/{}", owner.key.namespace));
        let free = strays.filter(|revision| {
            let is_free = !revision.meta.is_deleting() && !owner.meta.is_deleting();
            is_free && selector.matches(&revision.meta.labels)
        });
        Self {
            writes: free.map(|revision| adopt(revision, owner, None)).collect(),
            revisions,
            hash_label,
        }
    }

    pub fn named(&self, name: &str) -> Option<&Arc<Cached<Revision>>> {
        let mut all = self.revisions.iter();
        all.find(|revision| *revision.key.name == *name)
    }

    /// The revision of `template`: the newest one, one that becomes it again, or a new one.
    pub fn update<K: Lens>(
        &self,
        view: &View,
        owner: &Cached<K>,
        template: &Value,
        collisions: i32,
    ) -> Update {
        let data = patch_of(template);
        let newest = self.revisions.last().map_or(0, |newest| newest.body.number);
        let next = newest.saturating_add(1);
        let equal = self.revisions.iter().rev();
        if let Some(equal) = equal.clone().find(|equal| equal.body.data == data) {
            let is_newest = equal.body.number == newest;
            let number = if is_newest { newest } else { next };
            let hash = equal.meta.labels.get(self.hash_label).cloned();
            return Update {
                name: equal.key.name.to_string(),
                hash: hash.unwrap_or_default(),
                collisions,
                write: (!is_newest).then(|| Write::patch(&**equal, json!({ "revision": number }))),
            };
        }
        let mut collisions = collisions;
        loop {
            let hash = hash_of(&data, collisions);
            let name = name_of(&owner.key.name, &hash);
            if view
                .object_of(&CONTROLLER_REVISION, &owner.key.sibling(&name))
                .is_some()
            {
                collisions = collisions.wrapping_add(1).max(0);
                continue;
            }
            return Update {
                write: Some(self.create(owner, &name, &hash, data, next)),
                name,
                hash,
                collisions,
            };
        }
    }

    /// Those that nobody needs any more but to go back to, oldest first.
    pub fn spent(
        &self,
        is_live: impl Fn(&Cached<Revision>) -> bool,
    ) -> Vec<&Arc<Cached<Revision>>> {
        let all = self.revisions.iter();
        all.filter(|revision| !is_live(revision) && !revision.meta.is_deleting())
            .collect()
    }
}

/// How many of those are to be kept, by `revisionHistoryLimit`; a negative one keeps all.
pub fn kept_of(limit: Option<i32>) -> usize {
    usize::try_from(limit.unwrap_or(10)).unwrap_or(usize::MAX)
}

impl History {
    fn create<K: Lens>(
        &self,
        owner: &Cached<K>,
        name: &str,
        hash: &str,
        data: Value,
        number: i64,
    ) -> Write {
        let mut labels = data["spec"]["template"]["metadata"]["labels"].clone();
        if !labels.is_object() {
            labels = json!({});
        }
        labels[self.hash_label] = json!(hash);
        let revision = json!({
            "apiVersion": CONTROLLER_REVISION.api_version(),
            "kind": CONTROLLER_REVISION.kind,
            "metadata": {
                "name": name,
                "namespace": &*owner.key.namespace,
                "labels": labels,
                "annotations": &*owner.meta.annotations,
                "ownerReferences": [controller_reference(owner)],
            },
            "data": data,
            "revision": number,
        });
        Write::create(&CONTROLLER_REVISION, object(revision))
    }
}

fn order(revision: &Cached<Revision>) -> (i64, Option<Timestamp>, &str) {
    let meta = &revision.meta;
    (
        revision.body.number,
        meta.creation_timestamp,
        &revision.key.name,
    )
}

/// The patch that brings back a template, whole.
fn patch_of(template: &Value) -> Value {
    let mut template = template.clone();
    template["$patch"] = json!("replace");
    json!({"spec": {"template": template}})
}

fn hash_of(data: &Value, collisions: i32) -> String {
    let text = data.to_string();
    let hash = names::hash(&[text.as_bytes(), &collisions.to_be_bytes()]);
    names::suffix(hash, 10)
}

fn name_of(owner: &str, hash: &str) -> String {
    let prefix = &owner[..owner.floor_char_boundary(PREFIX_BYTES_MAX)];
    format!("{prefix}-{hash}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_brings_back_the_template_it_was_made_of() {
        let template = json!({"metadata": {"labels": {"app": "a"}}, "spec": {"containers": []}});
        let data = patch_of(&template);
        assert_eq!(data["spec"]["template"]["$patch"], "replace");
        let revision = Revision { number: 1, data };
        assert_eq!(revision.template(), template);
    }

    #[test]
    fn names_follow_the_template_and_the_collisions() {
        let [one, two] = ["x:1", "x:2"].map(|image| patch_of(&json!({"image": image})));
        assert_eq!(hash_of(&one, 0), hash_of(&one.clone(), 0));
        assert_ne!(hash_of(&one, 0), hash_of(&two, 0));
        assert_ne!(hash_of(&one, 0), hash_of(&one, 1));
        assert_eq!(name_of(&"a".repeat(250), "hash").len(), 228);
    }
}
