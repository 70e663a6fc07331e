//! Which volume fits a claim. Pure arithmetic over what both say.
//!
//! Of the volumes that are free, or set aside for just this claim, the smallest that is large enough; one that is set aside comes first.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_api::quantity::Quantity;
use weft_api::selector::LabelSelector;
use weft_kinds::lens::{items, text};

use super::{Claim, Volume, class_of};
use crate::indexer::Cached;

/// Why a volume that a claim names by itself is not its.
pub(super) fn mismatch(claim: &Cached<Claim>, volume: &Cached<Volume>) -> Option<&'static str> {
    let (wanted, has) = (&claim.body.spec, &volume.body.spec);
    if size(wanted, "/resources/requests/storage") > size(has, "/capacity/storage") {
        return Some("requested PV is too small");
    }
    if class_of(claim, wanted) != class_of(volume, has) {
        return Some("storageClassName does not match");
    }
    if mode(wanted) != mode(has) {
        return Some("incompatible volumeMode");
    }
    (!has_modes(wanted, has)).then_some("incompatible accessMode")
}

/// The best of `volumes` for `claim`. Where the claim waits for a consumer, only what is set aside for it.
pub(super) fn best<'a>(
    claim: &Cached<Claim>,
    volumes: impl Iterator<Item = &'a Cached<Volume>>,
    waits: bool,
) -> Option<&'a Cached<Volume>> {
    let wanted = &claim.body.spec;
    let selector = &wanted["selector"];
    let selector = match selector.is_null() {
        true => LabelSelector::everything(),
        false => LabelSelector::from_object(selector).unwrap_or_else(|_| LabelSelector::nothing()),
    };
    let fitting = volumes.filter_map(|volume| {
        let reserved = is_reserved_for(volume, claim);
        let is_taken = !volume.body.spec["claimRef"].is_null();
        if volume.meta.is_deleting() || (is_taken && !reserved) || mismatch(claim, volume).is_some()
        {
            return None;
        }
        if reserved {
            return Some((false, None, volume));
        }
        let phase = text(&volume.body.status, "/phase");
        let matches = selector.matches(&volume.meta.labels);
        let free = !waits && matches && matches!(phase, "Available" | "");
        let size = size(&volume.body.spec, "/capacity/storage");
        free.then_some((true, Some(size), volume))
    });
    let best = fitting.min_by(|a, b| (a.0, a.1, &a.2.key).cmp(&(b.0, b.1, &b.2.key)));
    best.map(|(_, _, volume)| volume)
}

/// Whether a volume can be used on a node with these labels.
pub(super) fn is_on(volume: &Cached<Volume>, labels: &BTreeMap<String, String>) -> bool {
    let required = &volume.body.spec["nodeAffinity"]["required"];
    if required.is_null() {
        return true;
    }
    let mut terms = items(required, "/nodeSelectorTerms").iter();
    terms.any(|term| {
        let wanted = json!({"matchExpressions": term["matchExpressions"]});
        let selector = LabelSelector::from_object(&wanted);
        selector.is_ok_and(|selector| selector.matches(labels))
    })
}

/// Whether a volume is written to just this claim, or to one of its name that is not said more closely.
pub(super) fn is_reserved_for(volume: &Cached<Volume>, claim: &Cached<Claim>) -> bool {
    let reference = &volume.body.spec["claimRef"];
    let uid = text(reference, "/uid");
    text(reference, "/name") == &*claim.key.name
        && text(reference, "/namespace") == &*claim.key.namespace
        && (uid.is_empty() || uid == &*claim.meta.uid)
}

/// What is not said is nothing.
pub(super) fn size(spec: &Value, pointer: &str) -> i128 {
    let quantity = Quantity::parse(text(spec, pointer));
    quantity.map_or(0, |quantity| quantity.value())
}

fn mode(spec: &Value) -> &str {
    match text(spec, "/volumeMode") {
        "" => "Filesystem",
        mode => mode,
    }
}

fn has_modes(wanted: &Value, has: &Value) -> bool {
    let has = items(has, "/accessModes");
    items(wanted, "/accessModes")
        .iter()
        .all(|mode| has.contains(mode))
}
