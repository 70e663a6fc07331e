//! LimitRanges: what pods and claims of a namespace get where they say nothing, and how much they may ask for.
//!
//! Left to others: holding objects to them (`crate::admission::limits`).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;
use weft_api::quantity::Quantity;

use super::pod::resources;
use crate::Kind;
use crate::field::Field;
use crate::lens::{items_mut, member, none_when_empty, object, text};
use crate::strategy::Strategy;
use crate::validate::Problems;

pub static LIMIT_RANGE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["limits".into()],
        columns: vec![
            crate::Column::name(),
            crate::Column {
                kind: "date",
                ..crate::Column::text(
                    "Created At",
                    |row| row.text_or("/metadata/creationTimestamp", ""),
                    "When the object was created.",
                )
            },
        ],
        strategy: Arc::new(LimitRanges),
        ..Kind::new("", "v1", "LimitRange", "limitranges")
    })
});

struct LimitRanges;

impl Strategy for LimitRanges {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn names_new(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        for limit in items_mut(value, "/spec/limits") {
            if text(limit, "/type") != "Container" {
                continue;
            }
            // A limit is at most what is allowed; a request is the limit, and else the least that is allowed.
            fill_from(limit, "default", "max");
            fill_from(limit, "defaultRequest", "default");
            fill_from(limit, "defaultRequest", "min");
        }
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        if let Some(spec) = next.get_mut("spec") {
            none_when_empty(spec, "limits");
        }
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let mut types = BTreeSet::new();
        for limit in spec.items("limits") {
            let kind = limit.child("type");
            type_name(&kind, problems);
            if !types.insert(kind.text()) {
                problems.duplicate(&kind, kind.text());
            }
            amounts(&limit, kind.text(), problems);
        }
    }
}

/// Gives `into` the entries of `from` that it lacks.
fn fill_from(limit: &mut Value, into: &str, from: &str) {
    let found = object(limit, &format!("/{from}")).cloned();
    let Some(found) = found.filter(|found| !found.is_empty()) else {
        return;
    };
    let into = member(limit, into);
    for (resource, quantity) in found {
        if into.get(&resource).is_none() {
            into[resource] = quantity;
        }
    }
}

fn type_name(kind: &Field<'_, '_>, problems: &mut Problems) {
    let faults = name::qualified_name_faults(kind.text());
    for fault in &faults {
        problems.invalid(kind, kind.text(), fault);
    }
    let standard = matches!(kind.text(), "Pod" | "Container" | "PersistentVolumeClaim");
    if faults.is_empty() && !kind.text().contains('/') && !standard {
        let sentence = "must be a standard limit type or fully qualified";
        problems.invalid(kind, kind.text(), sentence);
    }
}

fn amounts(limit: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    let mut names = BTreeSet::new();
    let mut list = |map: &str, problems: &mut Problems| {
        for (resource, field) in limit.entries(map) {
            match kind {
                "Pod" | "Container" => resources::container_resource(resource, &field, problems),
                _ => {
                    resources::known_name(resource, &field, problems);
                }
            }
            names.insert(resource);
        }
    };
    list("max", problems);
    list("min", problems);
    if kind == "Pod" {
        for map in ["default", "defaultRequest"] {
            let field = limit.child(map);
            if !field.is_empty() {
                problems.forbidden(&field, "may not be specified when `type` is 'Pod'");
            }
        }
    } else {
        list("default", problems);
        list("defaultRequest", problems);
    }
    let bounds_storage = ["min", "max"]
        .iter()
        .any(|map| limit.entry(map, "storage").is_set());
    if kind == "PersistentVolumeClaim" && !bounds_storage {
        let sentence =
            "either minimum or maximum storage value is required, but neither was provided";
        problems.required(&limit.child("limits"), sentence);
    }
    list("maxLimitRequestRatio", problems);
    for name in names {
        one_resource(limit, kind, name, problems);
    }
}

/// How the amounts of one resource stand to each other.
fn one_resource(limit: &Field<'_, '_>, kind: &str, name: &str, problems: &mut Problems) {
    let amount = |map: &str| limit.entry(map, name).quantity();
    let (min, max) = (amount("min"), amount("max"));
    let (default, request) = match kind {
        "Pod" => (None, None),
        _ => (amount("default"), amount("defaultRequest")),
    };
    let ratio = amount("maxLimitRequestRatio");
    // Which field is at fault, the value that is shown there, and the two that are compared.
    let mut ordered = |map: &str, shown, (what, small): (&str, _), (other, large): (&str, _)| {
        let (Some(small), Some(large)) = (small, large) else {
            return;
        };
        if small > large {
            let shown: Option<Quantity> = shown;
            let shown = shown.map(|shown| shown.to_string()).unwrap_or_default();
            let sentence = format!("{what} value {small} is greater than {other} value {large}");
            problems.invalid(&limit.entry(map, name), shown, &sentence);
        }
    };
    ordered("min", min, ("min", min), ("max", max));
    let shown = ("defaultRequest", request);
    ordered(shown.0, shown.1, ("min", min), ("default request", request));
    ordered(shown.0, shown.1, ("default request", request), ("max", max));
    ordered(
        shown.0,
        shown.1,
        ("default request", request),
        ("default limit", default),
    );
    ordered("default", min, ("min", min), ("default", default));
    ordered("default", max, ("default", default), ("max", max));
    let at = limit.entry("maxLimitRequestRatio", name);
    if let Some(ratio) = ratio {
        if ratio < Quantity::from_value(1) {
            let sentence = format!("ratio {ratio} is less than 1");
            problems.invalid(&at, ratio.to_string(), &sentence);
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.milli() as f64 / min.milli() as f64;
            if ratio.milli() as f64 / 1000.0 > most {
                let sentence = format!("ratio {ratio} is greater than max/min = {most:.6}");
                problems.invalid(&at, ratio.to_string(), &sentence);
            }
        }
    }
    let overcommits = resources::is_native(name) && !resources::is_huge(name);
    if let (Some(default), Some(request)) = (default, request)
        && !overcommits
        && default != request
    {
        let sentence = format!(
            "default value {default} must equal to defaultRequest value {request} in {name}"
        );
        let at = limit.entry("defaultRequest", name);
        problems.invalid(&at, request.to_string(), &sentence);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::told;

    fn range(limits: Value) -> Value {
        json!({"metadata": {"name": "r", "namespace": "n"}, "spec": {"limits": limits}})
    }

    #[test]
    fn defaults_follow_from_bounds() {
        let mut value = range(json!([
            {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"}},
            {"type": "Pod", "max": {"cpu": "4"}},
        ]));
        LimitRanges.default(&mut value);
        assert_eq!(
            value["spec"]["limits"],
            json!([
                {"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "1Mi"},
                 "default": {"cpu": "2"}, "defaultRequest": {"cpu": "2", "memory": "1Mi"}},
                {"type": "Pod", "max": {"cpu": "4"}},
            ])
        );
    }

    #[test]
    fn bounds_agree_with_each_other() {
        let base = range(json!([{"type": "Container", "max": {"cpu": "1"}}]));
        told::check(
            &LIMIT_RANGE,
            &base,
            &[
                (
                    "/spec/limits/0/min",
                    json!({"cpu": "2"}),
                    &[
                        "spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1",
                        "spec.limits[0].defaultRequest[cpu]: Invalid value: \"1\": min value 2 is greater than default request value 1",
                        "spec.limits[0].default[cpu]: Invalid value: \"2\": min value 2 is greater than default value 1",
                    ],
                ),
                (
                    "/spec/limits/0/default",
                    json!({"cpu": "3"}),
                    &[
                        "spec.limits[0].defaultRequest[cpu]: Invalid value: \"3\": default request value 3 is greater than max value 1",
                        "spec.limits[0].default[cpu]: Invalid value: \"1\": default value 3 is greater than max value 1",
                    ],
                ),
                (
                    "/spec/limits/0/maxLimitRequestRatio",
                    json!({"cpu": "500m"}),
                    &[
                        "spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1",
                    ],
                ),
                (
                    "/spec/limits/0",
                    json!({"type": "Pod", "default": {"cpu": "1"}}),
                    &[
                        "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
                    ],
                ),
                (
                    "/spec/limits/0",
                    json!({"type": "PersistentVolumeClaim"}),
                    &[
                        "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
                    ],
                ),
                (
                    "/spec/limits/0/type",
                    json!("Node"),
                    &[
                        "spec.limits[0].type: Invalid value: \"Node\": must be a standard limit type or fully qualified",
                    ],
                ),
                (
                    "/spec/limits/1",
                    json!({"type": "Container"}),
                    &["spec.limits[1].type: Duplicate value: \"Container\""],
                ),
                (
                    "/spec/limits/0/max",
                    json!({"widgets": "1"}),
                    &[
                        "spec.limits[0].max[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified",
                        "spec.limits[0].max[widgets]: Invalid value: \"widgets\": must be a standard resource for containers",
                        "spec.limits[0].default[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified",
                        "spec.limits[0].default[widgets]: Invalid value: \"widgets\": must be a standard resource for containers",
                        "spec.limits[0].defaultRequest[widgets]: Invalid value: \"widgets\": must be a standard resource type or fully qualified",
                        "spec.limits[0].defaultRequest[widgets]: Invalid value: \"widgets\": must be a standard resource for containers",
                    ],
                ),
            ],
        );
    }
}
