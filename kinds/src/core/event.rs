//! Events, which are stored as `v1` and spoken as `events.k8s.io/v1`, too.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_api::name;

use crate::Kind;
use crate::columns::{self, Column, Row};
use crate::field::Field;
use crate::kind::{Selectable, Spelling};
use crate::lens::{fill, integer, text, time};
use crate::strategy::Strategy;
use crate::validate::Problems;

pub static EVENT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ev".into()],
        columns: columns(),
        selectable: selectable("involvedObject")
            .chain([
                Selectable::new("reportingComponent", "/reportingComponent"),
                Selectable::new("source", "/source/component"),
            ])
            .collect(),
        strategy: Arc::new(Events),
        ..Kind::new("", "v1", "Event", "events")
    })
});

pub static EVENT_V1: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ev".into()],
        columns: columns(),
        selectable: selectable("regarding")
            .chain([Selectable::new(
                "reportingController",
                "/reportingComponent",
            )])
            .collect(),
        spelling: Some(Spelling {
            of: EVENT.clone(),
            read: to_v1,
            write: from_v1,
        }),
        strategy: Arc::new(Events),
        ..Kind::new("events.k8s.io", "v1", "Event", "events")
    })
});

/// What both spellings select by, under the name that each gives the object an event is about.
fn selectable(about: &'static str) -> impl Iterator<Item = Selectable> {
    let of_object = [
        "kind",
        "namespace",
        "name",
        "uid",
        "apiVersion",
        "resourceVersion",
        "fieldPath",
    ];
    let of_object = of_object.into_iter().map(move |field| Selectable {
        field: format!("{about}.{field}").into(),
        pointer: format!("/involvedObject/{field}").into(),
        absent: "".into(),
    });
    of_object.chain([
        Selectable::new("reason", "/reason"),
        Selectable::new("type", "/type"),
    ])
}

fn columns() -> Vec<Column> {
    vec![
        Column::text("Last Seen", last_seen, "When it was last seen."),
        Column::text("Type", shown_type, "Normal or Warning."),
        Column::text("Reason", reason, "Why, in one word."),
        Column::text("Object", object, "What it is about."),
        Column::text("Subobject", subobject, "Which part of the object.").wide(),
        Column::text("Source", source, "Who reported it.").wide(),
        Column::text("Message", message, "What happened."),
        Column::text("First Seen", first_seen, "When it was first seen.").wide(),
        Column::text("Count", count, "How often it happened.").wide(),
        Column {
            format: "name",
            ..Column::text("Name", columns::name, "Name of the event.").wide()
        },
    ]
}

struct Events;

impl Strategy for Events {
    fn default(&self, value: &mut Value) {
        fill(value, "source", json!({}));
        fill(value, "reportingComponent", "");
        fill(value, "reportingInstance", "");
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let own = root.child("metadata.namespace").text();
        let about = root.child("involvedObject.namespace");
        let apart = if root.child("eventTime").is_set() {
            validate_report(&root, problems);
            about.text().is_empty() && !matches!(own, "default" | "kube-system")
        } else {
            own != about.text() && !(about.text().is_empty() && own == "default")
        };
        if apart {
            problems.invalid(&about, about.text(), "does not match event.namespace");
        }
    }
}

/// Longest texts of events that say who reports them.
const WORD_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// What an event of the newer kind has to say.
fn validate_report(root: &Field<'_, '_>, problems: &mut Problems) {
    let reporter = root.child("reportingComponent");
    problems.required_text(&reporter);
    problems.rule(&reporter, name::qualified_name_faults);
    for names in ["reportingInstance", "action", "reason"] {
        let word = root.child(names);
        problems.required_text(&word);
        if word.text().len() > WORD_BYTES_MAX {
            let sentence = format!("can have at most {WORD_BYTES_MAX} characters");
            problems.invalid(&word, "", &sentence);
        }
    }
    let note = root.child("message");
    if note.text().len() > NOTE_BYTES_MAX {
        let sentence = format!("can have at most {NOTE_BYTES_MAX} characters");
        problems.invalid(&note, "", &sentence);
    }
}

/// Names of `events.k8s.io/v1` fields and where `v1` keeps them.
const EVENT_FIELDS: &[(&str, &str)] = &[
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// A stored `v1` Event in the spelling of `events.k8s.io/v1`.
fn to_v1(value: &mut Value) {
    rename_event(value, "events.k8s.io/v1", |(new, old)| (*old, *new));
}

/// An `events.k8s.io/v1` Event in the spelling that is stored.
fn from_v1(value: &mut Value) {
    rename_event(value, "v1", |(new, old)| (*new, *old));
}

fn rename_event(
    value: &mut Value,
    api_version: &str,
    from_to: impl Fn(&(&'static str, &'static str)) -> (&'static str, &'static str),
) {
    let Some(map) = value.as_object_mut() else {
        return;
    };
    let mut moved = Map::new();
    for pair in EVENT_FIELDS {
        let (from, to) = from_to(pair);
        if let Some(found) = map.remove(from) {
            moved.insert(to.to_owned(), found);
        }
    }
    map.extend(moved);
    map.insert("apiVersion".to_owned(), api_version.into());
}

fn first(row: &Row<'_>) -> Option<Timestamp> {
    time(row.object, "/firstTimestamp").or_else(|| time(row.object, "/eventTime"))
}

fn last(row: &Row<'_>) -> Option<Timestamp> {
    time(row.object, "/series/lastObservedTime")
        .or_else(|| time(row.object, "/lastTimestamp"))
        .or_else(|| first(row))
}

fn last_seen(row: &Row<'_>) -> Value {
    row.since(last(row)).into()
}

fn first_seen(row: &Row<'_>) -> Value {
    row.since(first(row)).into()
}

fn shown_type(row: &Row<'_>) -> Value {
    row.text_or("/type", "")
}

fn reason(row: &Row<'_>) -> Value {
    row.text_or("/reason", "")
}

fn object(row: &Row<'_>) -> Value {
    let kind = text(row.object, "/involvedObject/kind").to_lowercase();
    let name = text(row.object, "/involvedObject/name");
    if name.is_empty() {
        kind.into()
    } else {
        format!("{kind}/{name}").into()
    }
}

fn subobject(row: &Row<'_>) -> Value {
    row.text_or("/involvedObject/fieldPath", "")
}

fn source(row: &Row<'_>) -> Value {
    let component = match text(row.object, "/source/component") {
        "" => text(row.object, "/reportingComponent"),
        component => component,
    };
    let host = match text(row.object, "/source/host") {
        "" => text(row.object, "/reportingInstance"),
        host => host,
    };
    if host.is_empty() {
        component.into()
    } else {
        format!("{component}, {host}").into()
    }
}

fn message(row: &Row<'_>) -> Value {
    text(row.object, "/message").trim().into()
}

fn count(row: &Row<'_>) -> Value {
    integer(row.object, "/series/count")
        .or_else(|| integer(row.object, "/count"))
        .unwrap_or(1)
        .to_string()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_spellings_are_inverse() {
        let stored = json!({
            "apiVersion": "v1", "kind": "Event", "message": "m", "reason": "r",
            "involvedObject": {"name": "p"}, "reportingComponent": "c", "count": 2,
        });
        let mut other = stored.clone();
        to_v1(&mut other);
        assert_eq!(other["regarding"]["name"], "p");
        assert_eq!(other["note"], "m");
        from_v1(&mut other);
        assert_eq!(other, stored);
    }
}
