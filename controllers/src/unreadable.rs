//! Objects that do not have the shape of their kind: each is told so, and otherwise left alone.
//!
//! Such an object has no row, so nobody works on it, and nobody takes it for gone: it owns what it owns, counts among its
//! owner's and keeps its namespace from ending. How one comes to be: written by another version, or past validation.
//!
//! Keys are uids.

use crate::view::{Key, View};
use crate::write::{EVENTS, Note, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "object-reader",
    reads: |_| {},
    keys: |_, touched| match touched.unreadable {
        true => vec![Key::cluster(&touched.uid)],
        false => Vec::new(),
    },
    seeds: |view| {
        let uids = view.unreadable().map(|(entry, _)| Key::cluster(&entry.uid));
        uids.collect()
    },
    subject: |view, key| Some(view.entry(&key.name)?.reference()),
    reconcile,
};

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(entry) = view.entry(&key.name) else {
        return Outcome::default();
    };
    // An event about an event would be one more of them.
    let Some(why) = entry
        .unreadable
        .as_ref()
        .filter(|_| entry.resource != EVENTS)
    else {
        return Outcome::default();
    };
    let message = format!(
        "{} {} cannot be read ({why}). It and what it owns are left as they are until it is corrected or deleted",
        entry.resource.kind, entry.key
    );
    Outcome::of(vec![Write::Event(Note::warning(
        entry.reference(),
        "Unreadable",
        message,
    ))])
}
