//! `autoscaling`: HorizontalPodAutoscalers. Stored as `v2`; `v1` is a spelling with one metric in its fields, and the rest in
//! annotations.

pub mod calls;
mod columns;
mod v1;
mod validation;
pub mod wake;

use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};

use crate::field::Field;
use crate::kind::Spelling;
use crate::lens::{fill, items, member, object, put};
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

pub static HORIZONTAL_POD_AUTOSCALER: LazyLock<Arc<Kind>> = LazyLock::new(|| Arc::new(kind("v2")));

pub static HORIZONTAL_POD_AUTOSCALER_V1: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        spelling: Some(Spelling {
            of: HORIZONTAL_POD_AUTOSCALER.clone(),
            read: v1::read,
            write: v1::write,
        }),
        ..kind("v1")
    })
});

fn kind(version: &'static str) -> Kind {
    Kind {
        short_names: vec!["hpa".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        columns: columns::columns(),
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Autoscalers),
        ..Kind::new(
            "autoscaling",
            version,
            "HorizontalPodAutoscaler",
            "horizontalpodautoscalers",
        )
    }
}

/// Percent of the requested CPU that pods are to use, where no metric is named.
const UTILIZATION: i32 = 80;

struct Autoscalers;

impl Strategy for Autoscalers {
    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "minReplicas", 1);
        if items(spec, "/metrics").is_empty() {
            put(spec, "metrics", Some(json!([utilization(UTILIZATION)])));
        }
        if object(spec, "/behavior").is_some() {
            let behavior = member(spec, "behavior");
            let up = member(behavior, "scaleUp");
            fill(up, "stabilizationWindowSeconds", 0);
            fill(up, "selectPolicy", "Max");
            let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
            let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
            fill(up, "policies", json!([pods, percent]));
            let down = member(behavior, "scaleDown");
            fill(down, "selectPolicy", "Max");
            fill(down, "policies", json!([percent]));
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validation::spec(&Field::root(new).child("spec"), None, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        if part == Some(Subresource::Status) {
            validation::status(&root.child("status"), problems);
        } else {
            let (spec, old) = (root.child("spec"), before.child("spec"));
            validation::spec(&spec, Some(&old), problems);
        }
    }
}

/// The metric that `v1` has a field for.
fn utilization(percent: impl Into<Value>) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent.into()});
    json!({"type": "Resource", "resource": {"name": "cpu", "target": target}})
}

#[cfg(test)]
mod tests;
