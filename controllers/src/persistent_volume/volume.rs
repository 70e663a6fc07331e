//! A look at a volume: says what it is to whom, lets it go, and does with it what was asked for once its claim is gone.

use serde_json::{Value, json};
use weft_kinds::lens::text;

use super::matching::is_of_mode;
use super::{BOUND_BY_CONTROLLER, Claim, VOLUME_PROTECTION, Volume, is_folder, owner};
use crate::Outcome;
use crate::indexer::Cached;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write};

pub(super) fn reconcile(view: &View, key: &Key) -> Outcome {
    let Some(volume) = view.get::<Volume>(key) else {
        return Outcome::default();
    };
    if volume.meta.is_deleting() {
        return Outcome::from_writes(released(view, volume).into_iter().collect());
    }
    Outcome::from_writes(next(view, volume))
}

/// Lets a volume go that is not bound.
fn released(view: &View, volume: &Cached<Volume>) -> Option<Write> {
    let is_bound = claim(view, volume).is_some();
    if is_bound || !volume.meta.has_finalizer(VOLUME_PROTECTION) {
        return None;
    }
    let finalizers = volume.meta.finalizers.iter();
    let rest: Vec<&String> = finalizers
        .filter(|name| *name != VOLUME_PROTECTION)
        .collect();
    Some(Write::patch(
        volume,
        json!({"metadata": {"finalizers": rest}}),
    ))
}

/// The claim that it is written to, if that is there.
fn claim<'a>(view: &'a View, volume: &Cached<Volume>) -> Option<&'a Cached<Claim>> {
    let claim = view.get::<Claim>(&owner(volume)?)?;
    let uid = text(&volume.body.spec, "/claimRef/uid");
    (uid == &*claim.meta.uid).then_some(&**claim)
}

fn next(view: &View, volume: &Cached<Volume>) -> Vec<Write> {
    let reference = &volume.body.spec["claimRef"];
    if reference.is_null() || text(reference, "/uid").is_empty() {
        return phase(volume, "Available", None);
    }
    let Some(claim) = claim(view, volume) else {
        return reclaim(volume);
    };
    match text(&claim.body.spec, "/volumeName") {
        "" if !is_of_mode(&claim.body.spec, &volume.body.spec) => unlike(claim, volume),
        // The claim's next look names it.
        "" => Vec::new(),
        named if named == &*volume.key.name => phase(volume, "Bound", None),
        _ if is_folder(volume) && policy(volume) == "Delete" => vec![Write::delete(volume)],
        // The claim took another one.
        _ => {
            let by_us = volume.meta.annotations.contains_key(BOUND_BY_CONTROLLER);
            let patch = match by_us {
                true => json!({
                    "metadata": {"annotations": {BOUND_BY_CONTROLLER: null}},
                    "spec": {"claimRef": null},
                }),
                false => json!({"spec": {"claimRef": {"uid": null}}}),
            };
            vec![Write::patch(volume, patch)]
        }
    }
}

/// The volume was set aside for a claim that wants files where it is a device, or the other way round.
fn unlike(claim: &Cached<Claim>, volume: &Cached<Volume>) -> Vec<Write> {
    let tell = |about, what: String| {
        let message = format!("Cannot bind {what} due to incompatible volumeMode.");
        Write::Event(Note::warning(about, "VolumeMismatch", message))
    };
    let (of_claim, of_volume) = (&claim.key.name, &volume.key.name);
    vec![
        tell(
            volume.reference(),
            format!("PersistentVolume to requested PersistentVolumeClaim {of_claim:?}"),
        ),
        tell(
            claim.reference(),
            format!("PersistentVolume {of_volume:?} to requested PersistentVolumeClaim"),
        ),
    ]
}

fn policy(volume: &Cached<Volume>) -> &str {
    text(&volume.body.spec, "/persistentVolumeReclaimPolicy")
}

/// What becomes of a volume whose claim is gone.
fn reclaim(volume: &Cached<Volume>) -> Vec<Write> {
    let before = text(&volume.body.status, "/phase");
    if before != "Released" && before != "Failed" {
        return phase(volume, "Released", None);
    }
    let failed = |reason, message: &str| {
        let mut writes = phase(volume, "Failed", Some(message));
        if !writes.is_empty() {
            writes.push(Write::Event(Note::warning(
                volume.reference(),
                reason,
                message,
            )));
        }
        writes
    };
    match policy(volume) {
        "Delete" if is_folder(volume) => vec![Write::delete(volume)],
        // Somebody else's driver removes what it made.
        "Delete" if !volume.body.spec["csi"].is_null() => Vec::new(),
        "Delete" => failed(
            "VolumeFailedDelete",
            &format!(
                "error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched",
                volume.key.name
            ),
        ),
        "Recycle" => failed(
            "VolumeFailedRecycle",
            "No recycler plugin found for the volume!",
        ),
        _ => Vec::new(),
    }
}

fn phase(volume: &Cached<Volume>, phase: &str, message: Option<&str>) -> Vec<Write> {
    let before = &volume.body.status;
    if text(before, "/phase") == phase {
        return Vec::new();
    }
    let mut status = before.clone();
    if !status.is_object() {
        status = json!({});
    }
    status["phase"] = json!(phase);
    if let Some(status) = status.as_object_mut() {
        match message {
            Some(message) => status.insert("message".to_owned(), Value::from(message)),
            None => status.remove("message"),
        };
    }
    Write::status(volume, before, &status).into_iter().collect()
}
