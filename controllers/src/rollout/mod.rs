//! Rollouts: a new template is brought out by steps, and promoted or rolled back by what the mesh counts of its calls.
//!
//! A Rollout has a template of its own, as a Deployment has, and a ReplicaSet for each revision of it ([`sets`]). The one that is served, the
//! stable one, keeps all of its pods until another has taken its place: going back is a change of weights and nothing else. That is why a
//! Rollout does not drive a Deployment, whose controller would take the old pods away while the new ones are tried.
//!
//! Each revision has a Service of its own, made and unmade with its pods; an HTTPRoute leads the callers of the user's Service, and of
//! Gateways, to one or the other by weights or by marks ([`traffic`]). So calls are divided by the route table that every node has, and the
//! mesh counts by revision of itself, as callers saw it: who was not reached failed, too ([`judge`]).
//!
//! `template → revision → steps ([`step`]) → promoted, or rolled back`. The status says how far that is, and comes first: sizes and routes are
//! functions of it, so that a leader that ends between two writes leaves nothing that the next one would not finish.
//!
//! Invariants:
//! - a revision gets calls only once its pods are available and behind its Service, and none while nobody is there;
//! - of two revisions, the stable one has all of its pods until the other has all of its own and all calls;
//! - every way of a revision ends with `Healthy` or `RolledBack`, unless it is paused or waits for somebody's word: what does not go on is
//!   rolled back when its deadline has passed.
//!
//! Left to others: pods (`replicaset`), endpoints (`endpoint_slice`), what routes are (`weft_gateway`), counting (`weft_mesh`).

mod asked;
mod judge;
mod sets;
mod status;
mod step;
#[cfg(test)]
mod tests;
mod traffic;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_api::view::EndpointSlice;
use weft_kinds::{ENDPOINT_SLICE, HTTP_ROUTE, Kind, REPLICA_SET, ROLLOUT, SERVICE};

use self::asked::Asked;
pub use self::judge::Past;
use self::sets::Sets;
use self::status::Status;
use self::step::Facts;
use self::traffic::Traffic;
use crate::claim::claim_objects;
use crate::deployment::BY_CONTROLLER;
use crate::endpoint_slice;
use crate::indexer::Lens;
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::{Touched, View};
use crate::write::{Note, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "rollout-controller",
    reads: |reads| {
        reads
            .kind::<Rollout>()
            .kind::<Service>()
            .kind::<traffic::Route>()
            .index(&BY_CONTROLLER)
            .index(&endpoint_slice::BY_SERVICE);
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Rollout>().map(|row| row.key.clone()).collect(),
    subject: |view, key| Some(view.object_of(&ROLLOUT, key)?.reference()),
    reconcile,
};

/// Between two readings of what nodes count, while a revision is judged: what is bad shows one interval later at the latest.
pub const JUDGED_PAUSE: Duration = Duration::from_secs(5);
/// Between two looks meanwhile.
const LOOK_PAUSE: Duration = Duration::from_secs(2);

/// A Rollout as it is written, what is asked for, and how far it is.
#[derive(Debug)]
pub struct Rollout {
    asked: Asked,
    status: Status,
    selector: Option<LabelSelector>,
}

/// The template and the selector are copied into sets as they were written.
impl Lens for Rollout {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &ROLLOUT
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let whole: Whole = object.view()?;
        let selector = LabelSelector::from_object(&object.as_value()["spec"]["selector"]).ok();
        Ok(Self {
            asked: whole.spec.resolved(),
            status: whole.status,
            selector: selector.filter(|selector| !selector.is_everything()),
        })
    }
}

/// What is read of one.
#[derive(serde::Deserialize)]
struct Whole {
    spec: asked::Spec,
    #[serde(default)]
    status: Status,
}

/// Whether any revision is judged now by what is counted of calls.
pub fn wants_calls(view: &View) -> bool {
    view.list::<Rollout>()
        .any(|row| judge::is_judged(&row.body.asked, &row.body.status))
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&ROLLOUT) {
        return vec![touched.key.clone()];
    }
    let rollout_of = |uid: &str| {
        let owner = view.object(uid)?;
        (*owner.kind == **ROLLOUT).then(|| owner.key().clone())
    };
    let is_owned = touched.is_of(&REPLICA_SET) || touched.is_of(&HTTP_ROUTE);
    if is_owned || touched.is_of(&SERVICE) {
        let owners = touched.owners.iter();
        let mut keys: Vec<Key> = owners.filter_map(|uid| rollout_of(uid)).collect();
        if touched.is_of(&SERVICE) {
            let named = |asked: &Asked| {
                let preview = asked.preview.as_deref();
                asked.service == *touched.key.name || preview == Some(&*touched.key.name)
            };
            let all = view.list_in::<Rollout>(&touched.key.namespace);
            let named = all.filter(|row| named(&row.body.asked));
            keys.extend(named.map(|row| row.key.clone()));
        }
        return keys;
    }
    if touched.is_of(&ENDPOINT_SLICE) {
        let states = touched.states::<EndpointSlice>();
        let services = states.filter_map(endpoint_slice::service_of);
        let owners = services.filter_map(|service| {
            let service = view.object_of(&SERVICE, &service)?;
            rollout_of(&service.meta.controller()?.uid)
        });
        return owners.collect();
    }
    Vec::new()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(row) = view.get::<Rollout>(key) else {
        return Outcome {
            past: Some(crate::Past::Nothing),
            ..Outcome::default()
        };
    };
    let Some(selector) = row
        .body
        .selector
        .as_ref()
        .filter(|_| !row.meta.is_deleting())
    else {
        return Outcome::default();
    };
    let mut unreadable = view.unreadable_of(&REPLICA_SET, &row.meta.uid);
    if unreadable.next().is_some() {
        return Outcome::default();
    }
    let claims = claim_objects(view, &BY_CONTROLLER, row, selector);
    if !claims.writes.is_empty() {
        // Ownership first: the next look counts the adopted sets.
        return Outcome::from_writes(claims.writes);
    }
    let asked = &row.body.asked;
    let before = &row.body.status;
    let mut status = before.clone();
    let mut sets = Sets::of(row, claims.owned, before.collision_count);
    let revision = sets.current_revision().to_owned();
    let traffic = Traffic::of(view, row, cx);

    let (round, past) = judge::look(row, &traffic, cx);
    let facts = Facts {
        asked,
        revision: &revision,
        available: sets.available(&revision),
        serves: traffic.serves(&revision),
        is_routed: traffic.is_led(asked, before, traffic.serves_current(before)),
        round,
        now: cx.now,
    };
    let told = step::advance(&mut status, &facts);

    let mut outcome = Outcome {
        past,
        ..Outcome::default()
    };
    sets.fit(view, &status, cx.now, &mut outcome);
    status.collision_count = sets.collisions();
    sets.count(&mut status);
    traffic.fit_services(&status, &sets, &mut outcome.writes);
    let routed = traffic.routed(&status);
    status.conclude(row, &sets, &routed, cx);
    outcome.writes.extend(Write::status(row, before, &status));
    let notes = told.into_iter().map(|told| {
        let about = row.reference();
        let note = match told.warning {
            true => Note::warning(about, told.reason, told.message),
            false => Note::normal(about, told.reason, told.message),
        };
        Write::Event(note)
    });
    outcome.writes.extend(notes);
    traffic.fit_routes(&status, &mut outcome.writes);
    if let Some(after) = step::next_look(&status, &facts) {
        outcome.again_after(after);
    }
    if judge::is_judged(asked, &status) {
        outcome.again_after(LOOK_PAUSE);
    }
    outcome
}

/// A JSON text member, empty where there is none.
fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
