//! Objects that do not have the shape of their kind: each is told so, and otherwise left alone.
//!
//! No lens shows such an object, so nobody works on it, and nobody takes it for gone: it owns what it owns, counts among its
//! owner's and keeps its namespace from ending. How one comes to be: written by another version, or past validation.
//!
//! Keys are uids.

use weft_kinds::EVENT;

use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "object-reader",
    reads: |_| {},
    keys: |_, touched| match touched.unreadable {
        true => vec![Key::cluster(&touched.uid)],
        false => Vec::new(),
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let objects = view.unreadable();
        objects.map(|(o, _)| Key::cluster(&o.meta.uid)).collect()
    },
    subject: |view, key| Some(view.object(&key.name)?.reference()),
    reconcile,
};

fn reconcile(view: &View, key: &Key, _: &Context<'_>) -> Outcome {
    let Some(object) = view.object(&key.name) else {
        return Outcome::default();
    };
    // An event about an event would be one more of them.
    let is_told = *object.kind != **EVENT;
    let Some(why) = object.unreadable.as_ref().filter(|_| is_told) else {
        return Outcome::default();
    };
    let message = format!(
        "{} {} cannot be read ({why}). It and what it owns are left as they are until it is corrected or deleted",
        object.kind.kind,
        object.key()
    );
    Outcome::from_writes(vec![Write::Event(Note::warning(
        object.reference(),
        "Unreadable",
        message,
    ))])
}
