//! ControllerRevisions: what a StatefulSet or a DaemonSet looked like, kept for going back to.

use std::sync::{Arc, LazyLock};

use serde_json::Value;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{flag, items, text};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Subresource};

pub static CONTROLLER_REVISION: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        columns: vec![
            Column::name(),
            Column::text("Controller", controller, "Whose revision it is."),
            Column::text("Revision", revision, "Its number."),
            Column::age(),
        ],
        strategy: Arc::new(Revisions),
        ..Kind::new("apps", "v1", "ControllerRevision", "controllerrevisions")
    })
});

struct Revisions;

impl Strategy for Revisions {
    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        problems.not_negative(&root.child("revision"));
        let data = root.child("data");
        if !data.is_set() {
            problems.required(&data, "data is mandatory");
        } else if data.map().is_none() {
            problems.required(&data, "data must be a valid JSON object");
        }
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        problems.not_negative(&root.child("revision"));
        problems.immutable(&root.child("data"), &before.child("data"));
    }
}

fn controller(row: &Row<'_>) -> Value {
    let mut owners = items(row.object, "/metadata/ownerReferences").iter();
    let Some(owner) = owners.find(|owner| flag(owner, "/controller")) else {
        return "<none>".into();
    };
    let kind = text(owner, "/kind").to_lowercase();
    let name = text(owner, "/name");
    match text(owner, "/apiVersion").split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{name}").into(),
        None => format!("{kind}/{name}").into(),
    }
}

fn revision(row: &Row<'_>) -> Value {
    row.count("/revision").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::cells;
    use crate::validate::told;

    fn revision() -> Value {
        json!({"metadata": {"name": "web-1", "namespace": "n"}, "data": {"spec": {}}, "revision": 3})
    }

    #[test]
    fn a_revision_holds_an_object_that_stays() {
        let mandatory = "data: Required value: data must be a valid JSON object";
        told::check(
            &CONTROLLER_REVISION,
            &revision(),
            &[
                (
                    "/revision",
                    json!(-1),
                    &["revision: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/data",
                    Value::Null,
                    &["data: Required value: data is mandatory"],
                ),
                ("/data", json!([]), &[mandatory]),
                ("/data", json!("x"), &[mandatory]),
            ],
        );
        let old = revision();
        for (pointer, value, expected) in [
            ("/revision", json!(4), vec![]),
            (
                "/data",
                json!({"b": 2}),
                vec!["data: Invalid value: {\"b\":2}: field is immutable"],
            ),
        ] {
            let new = told::with(&old, pointer, value);
            assert_eq!(
                told::of_update(&CONTROLLER_REVISION, &new, &old, None),
                expected
            );
        }
    }

    #[test]
    fn a_row_names_the_controller() {
        let owner = json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]);
        let owned = told::with(&revision(), "/metadata/ownerReferences", owner);
        assert_eq!(
            cells(&CONTROLLER_REVISION, &owned)[1..3],
            [json!("statefulset.apps/web"), json!(3)]
        );
        assert_eq!(cells(&CONTROLLER_REVISION, &revision())[1], "<none>");
    }
}
