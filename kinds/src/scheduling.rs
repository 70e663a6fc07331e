//! `scheduling.k8s.io`: PriorityClasses, which say who goes first. One of them may be for all pods that name none.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::status::StatusError;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, flag, integer, text};
use crate::strategy::{Claim, Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, unserved};

pub static PRIORITY_CLASS: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["pc".into()],
        namespaced: false,
        columns: vec![
            Column::name(),
            Column::integer("Value", value, "The higher, the sooner."),
            Column::boolean(
                "Global-Default",
                is_default,
                "Whether pods that name no class have it.",
            ),
            Column::age(),
            Column::text(
                "PreemptionPolicy",
                policy,
                "Whether pods of it push others out.",
            ),
        ],
        // It has one generation, which nothing counts further.
        counts_generations: true,
        strategy: Arc::new(Classes),
        ..Kind::new(
            "scheduling.k8s.io",
            "v1",
            "PriorityClass",
            "priorityclasses",
        )
    })
});

const SYSTEM_PREFIX: &str = "system-";
/// Highest value of a class that is not the system's.
const VALUE_MAX: i64 = 1_000_000_000;
/// The classes of the system itself, with their values and what they are for.
const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Pods that the cluster cannot do without, wherever they run.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Pods that their node cannot do without.",
    ),
];

/// The classes that every cluster has, as whoever founds it makes them.
pub fn system_priority_classes() -> impl Iterator<Item = Value> {
    SYSTEM.iter().map(|(name, value, description)| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "description": description,
        })
    })
}

/// The class of pods that name none.
pub(crate) fn default_class(around: &dyn Surroundings) -> Option<Value> {
    if !around.is_claimed(&default_claim()) {
        return None;
    }
    let classes = around.objects(&PRIORITY_CLASS, None).into_iter();
    let defaults = classes.filter(|class| flag(class, "/globalDefault"));
    defaults.min_by_key(|class| integer(class, "/value"))
}

fn default_claim() -> Claim {
    Claim::new("defaults", "priorityclass")
}

struct Classes;

impl Strategy for Classes {
    fn default(&self, value: &mut Value) {
        fill(value, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let pushes = text(value, "/preemptionPolicy") != "Never";
        let told = pushes.then(|| unserved::told_of("scheduling.k8s.io", "PriorityClass"));
        told.into_iter().flatten().collect()
    }

    fn asks_for_change(&self, _: &Value, _: &Value) -> bool {
        false
    }

    fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let was_default = old.is_some_and(|old| flag(old, "/globalDefault"));
        if !flag(new, "/globalDefault") || was_default {
            return Ok(());
        }
        let Some(holder) = default_class(around) else {
            return Ok(());
        };
        let why = format!(
            "PriorityClass {} is already marked as default. Only one default can exist",
            text(&holder, "/metadata/name")
        );
        let name = text(new, "/metadata/name");
        Err(StatusError::forbidden(
            &PRIORITY_CLASS.resource,
            &PRIORITY_CLASS.group,
            name,
            &why,
        ))
    }

    fn claims(&self, value: &Value) -> BTreeSet<Claim> {
        let claim = flag(value, "/globalDefault").then(default_claim);
        claim.into_iter().collect()
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let name = root.child("metadata.name");
        let value = root.child("value");
        let number = value.integer().unwrap_or(0);
        if name.text().starts_with(SYSTEM_PREFIX) {
            if let Err(why) = known_to_the_system(name.text(), number, &root) {
                let sentence = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                problems.forbidden(&name, &sentence);
            }
        } else if number > VALUE_MAX {
            let sentence =
                format!("maximum allowed value of a user defined priority is {VALUE_MAX}");
            problems.forbidden(&value, &sentence);
        }
        let policy = root.child("preemptionPolicy");
        if policy.is_set() {
            problems.required_one_of(&policy, &["PreemptLowerPriority", "Never"]);
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
        let (value, kept) = (root.child("value"), before.child("value"));
        if value.integer().unwrap_or(0) != kept.integer().unwrap_or(0) {
            problems.forbidden(&value, "may not be changed in an update.");
        }
        let policy = root.child("preemptionPolicy");
        problems.immutable(&policy, &before.child("preemptionPolicy"));
    }

    fn refuses_deletion(&self, name: &str) -> Option<&'static str> {
        let of_system = SYSTEM.iter().any(|(system, ..)| *system == name);
        of_system.then_some("this is a system priority class and cannot be deleted")
    }
}

fn known_to_the_system(name: &str, value: i64, class: &Field<'_, '_>) -> Result<(), String> {
    let known = SYSTEM.iter().find(|(system, ..)| *system == name);
    let Some((_, wanted, _)) = known else {
        return Err(format!("{name} is not a known system priority class"));
    };
    if value != *wanted {
        return Err(format!("value of {name} PriorityClass must be {wanted}"));
    }
    if class.child("globalDefault").flag() {
        return Err(format!(
            "globalDefault of {name} PriorityClass must be false"
        ));
    }
    Ok(())
}

fn value(row: &Row<'_>) -> Value {
    row.count("/value").into()
}

fn is_default(row: &Row<'_>) -> Value {
    flag(row.object, "/globalDefault").into()
}

fn policy(row: &Row<'_>) -> Value {
    row.text_or("/preemptionPolicy", "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{cells, shapes};
    use crate::strategy::small::Cluster;
    use crate::validate::told;

    fn class(name: &str, value: i64) -> Value {
        json!({"metadata": {"name": name}, "value": value})
    }

    #[test]
    fn classes_of_the_system_are_its_own() {
        const RESERVED: &str = "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: ";
        let told = |class: &Value| told::of_new(&PRIORITY_CLASS, class);
        for own in system_priority_classes() {
            assert_eq!(told(&own), [""; 0]);
            let name = text(&own, "/metadata/name");
            assert!(PRIORITY_CLASS.strategy.refuses_deletion(name).is_some());
        }
        assert_eq!(PRIORITY_CLASS.strategy.refuses_deletion("system-x"), None);
        let mut default = class("system-node-critical", 2_000_001_000);
        default["globalDefault"] = true.into();
        for (class, expected) in [
            (
                class("system-x", 5),
                "system-x is not a known system priority class",
            ),
            (
                class("system-node-critical", 5),
                "value of system-node-critical PriorityClass must be 2000001000",
            ),
            (
                default,
                "globalDefault of system-node-critical PriorityClass must be false",
            ),
        ] {
            assert_eq!(told(&class), [format!("{RESERVED}{expected}")]);
        }
        told::check(
            &PRIORITY_CLASS,
            &class("x", VALUE_MAX),
            &[
                (
                    "/value",
                    json!(1_000_000_001),
                    &[
                        "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
                    ],
                ),
                (
                    "/preemptionPolicy",
                    json!("X"),
                    &[
                        "preemptionPolicy: Unsupported value: \"X\": supported values: \"PreemptLowerPriority\", \"Never\"",
                    ],
                ),
                (
                    "/preemptionPolicy",
                    json!(""),
                    &["preemptionPolicy: Required value"],
                ),
            ],
        );
    }

    #[test]
    fn a_class_means_the_same_for_ever() {
        let old = class("x", 5);
        let mut new = class("x", 6);
        new["preemptionPolicy"] = "Never".into();
        new["description"] = "d".into();
        assert_eq!(
            told::of_update(&PRIORITY_CLASS, &new, &old, None),
            [
                "value: Forbidden: may not be changed in an update.",
                "preemptionPolicy: Invalid value: \"Never\": field is immutable",
            ]
        );
    }

    #[test]
    fn who_would_push_others_out_is_told_that_it_does_not() {
        for (policy, told) in [("PreemptLowerPriority", 1), ("Never", 0)] {
            let mut class = class("x", 5);
            class["preemptionPolicy"] = policy.into();
            let warnings = PRIORITY_CLASS.strategy.warn(&class, &Cluster::default());
            assert_eq!(warnings.len(), told, "{policy}");
        }
    }

    #[test]
    fn there_is_one_default() {
        let default = |name: &str| {
            let mut class = class(name, 5);
            class["globalDefault"] = true.into();
            class
        };
        let strategy = &PRIORITY_CLASS.strategy;
        let around = Cluster::default().with(&PRIORITY_CLASS, default("one"));
        let refused = strategy
            .allocate(&mut default("two"), None, &around)
            .unwrap_err();
        assert_eq!(
            refused.message,
            "priorityclasses.scheduling.k8s.io \"two\" is forbidden: PriorityClass one is already marked as default. Only one default can exist"
        );
        let one = default("one");
        strategy
            .allocate(&mut default("one"), Some(&one), &around)
            .unwrap();
        strategy
            .allocate(&mut class("two", 5), None, &around)
            .unwrap();
        strategy
            .allocate(&mut default("two"), None, &Cluster::default())
            .unwrap();
    }

    #[test]
    fn a_row_shows_the_value() {
        assert_eq!(
            shapes(&PRIORITY_CLASS),
            [
                "Name: string/name",
                "Value: integer",
                "Global-Default: boolean",
                "Age: string",
                "PreemptionPolicy: string",
            ]
        );
        let mut class = class("x", 5);
        PRIORITY_CLASS.strategy.default(&mut class);
        assert_eq!(
            cells(&PRIORITY_CLASS, &class),
            [
                json!("x"),
                json!(5),
                json!(false),
                json!("10s"),
                json!("PreemptLowerPriority")
            ]
        );
    }
}
