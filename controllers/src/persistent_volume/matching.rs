//! Which volume fits a claim. Pure arithmetic over what both say.
//!
//! Of the volumes that are free, the one that can do least beyond what is asked for: fewest access modes, then the smallest that is large
//! enough. One that is set aside for just this claim comes first, and is asked for its size and mode alone: whoever set it aside meant it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_api::quantity::Quantity;
use weft_api::selector::LabelSelector;
use weft_kinds::lens::{items, text};

use super::{Claim, Volume, class_of};
use crate::indexer::Cached;

/// Why a volume that a claim names by itself is not its.
pub(super) fn mismatch(claim: &Cached<Claim>, volume: &Cached<Volume>) -> Option<String> {
    if volume.meta.is_deleting() {
        let name = &volume.key.name;
        return Some(format!("the volume is marked for deletion {name:?}"));
    }
    difference(claim, volume).map(str::to_owned)
}

fn difference(claim: &Cached<Claim>, volume: &Cached<Volume>) -> Option<&'static str> {
    const ATTRIBUTES: &str = "/volumeAttributesClassName";
    let (wanted, has) = (&claim.body.spec, &volume.body.spec);
    if is_too_small(wanted, has) {
        return Some("requested PV is too small");
    }
    if class_of(claim, wanted) != class_of(volume, has) {
        return Some("storageClassName does not match");
    }
    if text(wanted, ATTRIBUTES) != text(has, ATTRIBUTES) {
        return Some("volumeAttributesClassName does not match");
    }
    if !is_of_mode(wanted, has) {
        return Some("incompatible volumeMode");
    }
    (!has_modes(wanted, has)).then_some("incompatible accessMode")
}

fn is_too_small(wanted: &Value, has: &Value) -> bool {
    size(wanted, "/resources/requests/storage") > size(has, "/capacity/storage")
}

/// Whether both mean files, or both a device.
pub(super) fn is_of_mode(wanted: &Value, has: &Value) -> bool {
    mode(wanted) == mode(has)
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
        let has = &volume.body.spec;
        if volume.meta.is_deleting() {
            return None;
        }
        let order = (
            items(has, "/accessModes").len(),
            size(has, "/capacity/storage"),
        );
        if is_reserved_for(volume, claim) {
            let fits =
                !is_too_small(wanted, has) && is_of_mode(wanted, has) && has_modes(wanted, has);
            return fits.then_some((false, order, volume));
        }
        let phase = text(&volume.body.status, "/phase");
        let is_free = has["claimRef"].is_null() && matches!(phase, "Available" | "");
        let matches = selector.matches(&volume.meta.labels);
        let fits = !waits && is_free && matches && difference(claim, volume).is_none();
        fits.then_some((true, order, volume))
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
