//! ClusterRoles that gather the rules of others: theirs are those of all that their selectors pick, in the order of names, each rule once.
//!
//! Invariants: what somebody writes into the rules of such a role does not stay; a role does not gather itself.
//! After Kubernetes' clusterrole-aggregation-controller.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_kinds::lens::items;
use weft_kinds::{CLUSTER_ROLE, Kind};

use crate::indexer::{Cached, Lens};
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "clusterrole-aggregation-controller",
    reads: |reads| {
        reads.kind::<Role>();
    },
    keys: |view, touched| match touched.is_of(&CLUSTER_ROLE) {
        // There are few that gather, and any role may be one that they gather, or was.
        true => gathering(view, touched),
        false => Vec::new(),
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let gathering = view.list::<Role>().filter(|row| row.body.gathers());
        gathering.map(|row| row.key.clone()).collect()
    },
    subject: |view, key| {
        Some(PartialObject::reference(
            view.object_of(&CLUSTER_ROLE, key)?,
        ))
    },
    reconcile,
};

/// What is looked at of a role.
#[derive(Debug)]
struct Role {
    /// What it gathers by; nothing for most.
    selectors: Vec<LabelSelector>,
    rules: Vec<Value>,
}

impl Role {
    fn gathers(&self) -> bool {
        !self.selectors.is_empty()
    }
}

impl Lens for Role {
    fn kind() -> &'static Arc<Kind> {
        &CLUSTER_ROLE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        let selectors = items(value, "/aggregationRule/clusterRoleSelectors").iter();
        // One that cannot be read picks nothing.
        let read =
            |selector| LabelSelector::from_object(selector).unwrap_or(LabelSelector::nothing());
        Ok(Self {
            selectors: selectors.map(read).collect(),
            rules: items(value, "/rules").to_vec(),
        })
    }
}

fn gathering(view: &View, touched: &Touched) -> Vec<Key> {
    // Without rules or labels in play before and after, nobody's rules change.
    let labels = |row: &Cached<Role>| row.meta.labels.clone();
    let same = match (touched.before::<Role>(), touched.after::<Role>()) {
        (Some(before), Some(after)) => {
            before.body.rules == after.body.rules
                && labels(before) == labels(after)
                && before.body.gathers() == after.body.gathers()
        }
        _ => false,
    };
    if same
        && !touched
            .after::<Role>()
            .is_some_and(|row| row.body.gathers())
    {
        return Vec::new();
    }
    let all = view.list::<Role>().filter(|row| row.body.gathers());
    all.map(|row| row.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(role) = view.get::<Role>(key).filter(|role| role.body.gathers()) else {
        return Outcome::default();
    };
    let picks = |other: &Cached<Role>| {
        let labels = &other.meta.labels;
        let matches = |selector: &LabelSelector| {
            selector.matches_with(|label| labels.get(label).map(String::as_str))
        };
        other.key != role.key && role.body.selectors.iter().any(matches)
    };
    let mut rules: Vec<&Value> = Vec::new();
    for other in view.list::<Role>().filter(|other| picks(other)) {
        for rule in &other.body.rules {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
    }
    if rules.iter().copied().eq(&role.body.rules) {
        return Outcome::default();
    }
    Outcome::from_writes(vec![Write::patch(role, json!({"rules": rules}))])
}
