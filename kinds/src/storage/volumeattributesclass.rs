//! Attributes that volumes can be given while they are in use. A class never changes: one with another name takes its place.

use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use super::{GROUP, validate_parameters};
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static VOLUME_ATTRIBUTES_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["vac".into()],
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::text("DriverName", driver, "Who gives the attributes."),
            Column::age(),
        ],
        strategy: Arc::new(VolumeAttributesClasses),
        ..Kind::new(
            GROUP,
            "v1",
            "VolumeAttributesClass",
            "volumeattributesclasses",
        )
    })
});

struct VolumeAttributesClasses;

impl Strategy for VolumeAttributesClasses {
    fn warn(&self, _: &Value, _: &dyn Surroundings) -> Vec<String> {
        unserved::told_of(GROUP, "VolumeAttributesClass")
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let driver = root.child("driverName");
        if driver.text().is_empty() {
            problems.required(&driver, "");
        } else {
            let shown = driver.text().to_lowercase();
            for fault in name::qualified_name_faults(&shown) {
                problems.invalid(&driver, shown.as_str(), &fault);
            }
        }
        let parameters = root.child("parameters");
        validate_parameters(&parameters, problems);
        if parameters.is_empty() {
            problems.required(&parameters, "must contain at least one key/value pair");
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
        for member in ["driverName", "parameters"] {
            let field = root.child(member);
            if field.value() != before.child(member).value() {
                let sentence = format!("updates to {member} are forbidden.");
                problems.forbidden(&field, &sentence);
            }
        }
        self.validate(new, problems);
    }
}

fn driver(row: &Row<'_>) -> Value {
    row.text_or("/driverName", "")
}
