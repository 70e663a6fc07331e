//! Events, which are stored as `v1` and spoken as `events.k8s.io/v1`, too.
//!
//! What comes as `v1` is judged as it always was; what comes as `events.k8s.io/v1` has to say who reports what and when, and stays
//! so but for its series. Both are stored the same, so the rules are those of the spelling that a write came in.

use std::sync::{Arc, LazyLock};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use weft_api::name;
use weft_api::status::Cause;

use crate::columns::{self, Column, Row};
use crate::field::Field;
use crate::kind::{NameRule, Selectable, Spelling};
use crate::lens::{fill, integer, text, time};
use crate::strategy::{Dependents, Strategy};
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static EVENT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["ev".into()],
        columns: columns(),
        selectable: selectable("involvedObject")
            .chain([
                Selectable::new("reportingComponent", "/reportingComponent"),
                Selectable {
                    instead: Some("/reportingComponent".into()),
                    ..Selectable::new("source", "/source/component")
                },
            ])
            .collect(),
        name_rule: NameRule::PathSegment,
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
        strategy: Arc::new(ReportedEvents),
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
        instead: None,
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

/// As `v1` takes them: of before there were rules.
struct Events;

impl Strategy for Events {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn dependents(&self) -> Dependents {
        Dependents::None
    }

    fn default(&self, value: &mut Value) {
        fill(value, "source", json!({}));
        fill(value, "reportingComponent", "");
        fill(value, "reportingInstance", "");
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validate_legacy(&Field::root(new), "reportingComponent", problems);
    }
}

/// As `events.k8s.io/v1` takes them: whole when they are new, and only their series changes.
struct ReportedEvents;

impl Strategy for ReportedEvents {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        Events.default(value);
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        validate_legacy(&root, "reportingController", problems);
        validate_series(&root, problems);
        validate_reported(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        validate_legacy(&root, "reportingController", problems);
        if root.child("series").value() != before.child("series").value() {
            validate_series(&root, problems);
        }
        validate_unchanged(&root, &before, problems);
    }
}

/// Longest texts of events that say who reports them.
const WORD_BYTES_MAX: usize = 128;
const NOTE_BYTES_MAX: usize = 1024;

/// The rules that were always there; more of them for an event with a time of its own, which is one of the newer kind.
fn validate_legacy(root: &Field<'_, '_>, reporter: &str, problems: &mut Problems) {
    let own = root.child("metadata.namespace").text();
    let about = root.child("involvedObject.namespace");
    let newer = root.child("eventTime").is_set();
    let apart = match newer {
        true => about.text().is_empty() && !matches!(own, "default" | "kube-system"),
        false => own != about.text() && !(about.text().is_empty() && own == "default"),
    };
    if apart {
        problems.invalid(&about, about.text(), "does not match event.namespace");
    }
    if !newer {
        return;
    }
    let reporter = root.child_as("reportingComponent", reporter);
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

fn validate_series(root: &Field<'_, '_>, problems: &mut Problems) {
    let series = root.child("series");
    if !series.is_set() {
        return;
    }
    if series.child("count").integer().unwrap_or(0) < 2 {
        problems.invalid(&series.child("count"), "", "should be at least 2");
    }
    let seen = series.child("lastObservedTime");
    if !seen.is_set() {
        problems.required(&seen, "");
    }
}

/// What a new event has to have, and what only events of before have.
fn validate_reported(root: &Field<'_, '_>, problems: &mut Problems) {
    let time = root.child("eventTime");
    if !time.is_set() {
        problems.required(&time, "");
    }
    let kind = root.child("type");
    if !matches!(kind.text(), "Normal" | "Warning") {
        let sentence = format!("has invalid value: {}", kind.text());
        problems.invalid(&kind, "", &sentence);
    }
    for names in ["firstTimestamp", "lastTimestamp"] {
        let time = root.child(names);
        if time.is_set() {
            problems.invalid(&time, "", "needs to be unset");
        }
    }
    let count = root.child("count");
    if count.integer().is_some_and(|count| count != 0) {
        problems.invalid(&count, "", "needs to be unset");
    }
    let source = root.child("source");
    if !(source.child("component").text().is_empty() && source.child("host").text().is_empty()) {
        problems.invalid(&source, "", "needs to be unset");
    }
}

/// Everything but metadata and the series stays as it was.
fn validate_unchanged(root: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    // In upstream's order, which judges the reason twice.
    for (names, shown) in [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        let (new, old) = (root.child_as(names, shown), before.child(names));
        if is_same(&new, &old) {
            continue;
        }
        let value = match names {
            "involvedObject" | "related" if new.is_set() => reference_text(&new),
            "source" => {
                let part = |name| json!(new.child(name).text());
                format!(
                    "{{\"Component\":{},\"Host\":{}}}",
                    part("component"),
                    part("host")
                )
            }
            "count" => new.integer().unwrap_or(0).to_string(),
            "firstTimestamp" | "lastTimestamp" | "eventTime" | "related" => new.shown().to_string(),
            _ => json!(new.text()).to_string(),
        };
        problems.add(Cause {
            reason: "FieldValueInvalid".to_owned(),
            message: format!("Invalid value: {value}: field is immutable"),
            field: new.to_string(),
        });
    }
}

/// Whether a field says the same as before; one that is absent says its zero.
fn is_same(new: &Field<'_, '_>, old: &Field<'_, '_>) -> bool {
    fn zero(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Number(number) => number.as_i64() == Some(0),
            Value::Object(map) => map.values().all(zero),
            _ => false,
        }
    }
    let (new, old) = (new.value(), old.value());
    new == old || new.is_none_or(zero) && old.is_none_or(zero)
}

/// A reference as upstream shows its internal type, which has no names for JSON.
fn reference_text(field: &Field<'_, '_>) -> String {
    let parts: Vec<String> = [
        ("Kind", "kind"),
        ("Namespace", "namespace"),
        ("Name", "name"),
        ("UID", "uid"),
        ("APIVersion", "apiVersion"),
        ("ResourceVersion", "resourceVersion"),
        ("FieldPath", "fieldPath"),
    ]
    .into_iter()
    .map(|(shown, name)| format!("\"{shown}\":{}", json!(field.child(name).text())))
    .collect();
    format!("{{{}}}", parts.join(","))
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
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;

    fn reported() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "n"},
            "involvedObject": {"kind": "Pod", "name": "p", "namespace": "n"},
            "reportingComponent": "weft.dev/agent", "reportingInstance": "node-1", "action": "Binding", "reason": "Scheduled",
            "type": "Normal", "message": "it runs", "eventTime": "2021-05-04T03:02:01.000000Z",
        })
    }

    #[test]
    fn a_reported_event_has_to_be_whole_and_one_of_before_does_not() {
        let long = "x".repeat(129);
        told::check(
            &EVENT_V1,
            &reported(),
            &[
                ("/eventTime", Value::Null, &["eventTime: Required value"]),
                (
                    "/reportingComponent",
                    "".into(),
                    &[
                        "reportingController: Required value",
                        "reportingController: Invalid value: \"\": name part must be non-empty",
                        "reportingController: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
                    ],
                ),
                (
                    "/reportingInstance",
                    Value::Null,
                    &["reportingInstance: Required value"],
                ),
                (
                    "/reportingInstance",
                    long.as_str().into(),
                    &["reportingInstance: Invalid value: \"\": can have at most 128 characters"],
                ),
                ("/action", "".into(), &["action: Required value"]),
                (
                    "/action",
                    long.as_str().into(),
                    &["action: Invalid value: \"\": can have at most 128 characters"],
                ),
                ("/reason", Value::Null, &["reason: Required value"]),
                (
                    "/message",
                    "x".repeat(1025).into(),
                    &["message: Invalid value: \"\": can have at most 1024 characters"],
                ),
                (
                    "/type",
                    "Other".into(),
                    &["type: Invalid value: \"\": has invalid value: Other"],
                ),
                (
                    "/firstTimestamp",
                    "2021-05-04T03:02:01Z".into(),
                    &["firstTimestamp: Invalid value: \"\": needs to be unset"],
                ),
                (
                    "/lastTimestamp",
                    "2021-05-04T03:02:01Z".into(),
                    &["lastTimestamp: Invalid value: \"\": needs to be unset"],
                ),
                (
                    "/count",
                    2.into(),
                    &["count: Invalid value: \"\": needs to be unset"],
                ),
                (
                    "/source",
                    json!({"component": "kubelet"}),
                    &["source: Invalid value: \"\": needs to be unset"],
                ),
                (
                    "/series",
                    json!({"count": 1}),
                    &[
                        "series.count: Invalid value: \"\": should be at least 2",
                        "series.lastObservedTime: Required value",
                    ],
                ),
                (
                    "/series",
                    json!({"count": 2, "lastObservedTime": "2021-05-04T03:02:01.000000Z"}),
                    &[],
                ),
                (
                    "/involvedObject/namespace",
                    Value::Null,
                    &[
                        "involvedObject.namespace: Invalid value: \"\": does not match event.namespace",
                    ],
                ),
            ],
        );
        // The same as `v1`: an event of before says little, one with a time of its own who reports it.
        let old = json!({
            "metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"namespace": "n"},
            "source": {"component": "kubelet"}, "count": 3, "firstTimestamp": "2021-05-04T03:02:01Z", "type": "Other",
        });
        assert_eq!(told::of_new(&EVENT, &old), [""; 0]);
        assert_eq!(
            told::of_new(&EVENT, &told::with(&reported(), "/type", "Other".into())),
            [""; 0]
        );
        assert_eq!(
            told::of_new(&EVENT, &told::with(&reported(), "/action", Value::Null)),
            ["action: Required value"]
        );
    }

    #[test]
    fn of_a_reported_event_only_the_series_changes() {
        let old = reported();
        let update = |kind: &Kind, pointer: &str, value: Value| {
            told::of_update(kind, &told::with(&old, pointer, value), &old, None)
        };
        for (pointer, value, told) in [
            (
                "/involvedObject/name",
                json!("q"),
                "involvedObject: Invalid value: {\"Kind\":\"Pod\",\"Namespace\":\"n\",\"Name\":\"q\",\"UID\":\"\",\"APIVersion\":\"\",\"ResourceVersion\":\"\",\"FieldPath\":\"\"}: field is immutable",
            ),
            (
                "/message",
                json!("other"),
                "message: Invalid value: \"other\": field is immutable",
            ),
            (
                "/source",
                json!({"component": "k"}),
                "source: Invalid value: {\"Component\":\"k\",\"Host\":\"\"}: field is immutable",
            ),
            (
                "/firstTimestamp",
                json!("2021-05-04T03:02:01Z"),
                "firstTimestamp: Invalid value: \"2021-05-04T03:02:01Z\": field is immutable",
            ),
            (
                "/count",
                json!(4),
                "count: Invalid value: 4: field is immutable",
            ),
            (
                "/type",
                json!("Warning"),
                "type: Invalid value: \"Warning\": field is immutable",
            ),
            (
                "/eventTime",
                json!("2021-05-04T03:02:02.000000Z"),
                "eventTime: Invalid value: \"2021-05-04T03:02:02.000000Z\": field is immutable",
            ),
            (
                "/action",
                json!("Other"),
                "action: Invalid value: \"Other\": field is immutable",
            ),
            (
                "/reportingComponent",
                json!("weft.dev/other"),
                "reportingController: Invalid value: \"weft.dev/other\": field is immutable",
            ),
            (
                "/reportingInstance",
                json!("node-2"),
                "reportingInstance: Invalid value: \"node-2\": field is immutable",
            ),
        ] {
            assert_eq!(
                update(&EVENT_V1, pointer, value.clone()),
                [told],
                "{pointer}"
            );
            assert_eq!(update(&EVENT, pointer, value), [""; 0], "{pointer}");
        }
        assert_eq!(
            update(&EVENT_V1, "/reason", json!("Other")),
            ["reason: Invalid value: \"Other\": field is immutable"; 2]
        );
        let series = json!({"count": 2, "lastObservedTime": "2021-05-04T03:02:01.000000Z"});
        assert_eq!(update(&EVENT_V1, "/series", series), [""; 0]);
        assert_eq!(
            update(
                &EVENT_V1,
                "/series",
                json!({"count": 1, "lastObservedTime": "2021-05-04T03:02:01.000000Z"})
            ),
            ["series.count: Invalid value: \"\": should be at least 2"]
        );
        assert_eq!(
            update(&EVENT_V1, "/metadata/labels", json!({"a": "b"})),
            [""; 0]
        );
    }

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
