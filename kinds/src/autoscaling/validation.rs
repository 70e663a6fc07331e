//! What an autoscaler may ask for, in the words and the order of Kubernetes.

use serde_json::Value;
use weft_api::name;

use crate::core::pod::validate_container_resource;
use crate::field::Field;
use crate::validate::Problems;

const WINDOW_SECONDS_MAX: i64 = 3600;
const PERIOD_SECONDS_MAX: i64 = 1800;
const SOURCES: &[&str] = &[
    "ContainerResource",
    "External",
    "Object",
    "Pods",
    "Resource",
];
const POLICIES: &[&str] = &["Percent", "Pods"];
const SELECTIONS: &[&str] = &["Disabled", "Max", "Min"];

/// The spec, as an update of `old` or as a new one.
pub(super) fn spec(spec: &Field<'_, '_>, old: Option<&Field<'_, '_>>, problems: &mut Problems) {
    let (min, max) = (spec.child("minReplicas"), spec.child("maxReplicas"));
    let most = max.integer().unwrap_or(0);
    if min.integer().is_some_and(|fewest| most < fewest) {
        let sentence = "must be greater than or equal to `minReplicas`";
        problems.invalid(&max, most, sentence);
    }
    scaled(&spec.child("scaleTargetRef"), old, problems);
    let described_before = old.is_some_and(|old| {
        old.items("metrics").any(|metric| {
            let version = metric.child("object.describedObject.apiVersion");
            group_of(version.text()).is_err()
        })
    });
    metrics(spec, described_before, problems);
    for (direction, names) in [
        ("scaleUp", "behavior.scaleUp"),
        ("scaleDown", "behavior.scaleDown"),
    ] {
        let behavior = spec.child("behavior");
        let rules = behavior.child(direction);
        if spec.child(names).is_set() {
            scaling_rules(&rules, problems);
        }
    }
    // Kubernetes tells these after all else.
    problems.not_negative(&min);
    match most {
        0 => problems.required(&max, ""),
        ..0 => problems.invalid(&max, most, "must be greater than or equal to 1"),
        _ => {}
    }
}

pub(super) fn status(status: &Field<'_, '_>, problems: &mut Problems) {
    for condition in status.items("conditions") {
        problems.not_negative(&condition.child("observedGeneration"));
    }
    for names in ["currentReplicas", "desiredReplicas"] {
        problems.not_negative(&status.child(names));
    }
}

/// The group in an apiVersion.
fn group_of(version: &str) -> Result<&str, String> {
    let mut parts = version.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(_), None, _) => Ok(""),
        (Some(group), Some(_), None) => Ok(group),
        _ => Err(format!("unexpected GroupVersion string: {version}")),
    }
}

/// What is scaled has a group, unless it is of the kind that has none. What stays as it was is not judged again.
fn scaled(target: &Field<'_, '_>, old: Option<&Field<'_, '_>>, problems: &mut Problems) {
    let is_kept = old.is_some_and(|old| {
        let same = |names: &str| {
            let before = old.child("scaleTargetRef");
            before.child(names).text() == target.child(names).text()
        };
        same("apiVersion") && same("kind")
    });
    let has_no_group = target.child("kind").text() == "ReplicationController";
    reference(target, is_kept, has_no_group, problems);
}

fn reference(
    reference: &Field<'_, '_>,
    any_version: bool,
    any_group: bool,
    problems: &mut Problems,
) {
    for names in ["kind", "name"] {
        path_segment(&reference.child(names), "", problems);
    }
    let version = reference.child("apiVersion");
    let fault = match group_of(version.text()) {
        _ if any_version => return,
        Err(why) => why,
        Ok("") if !any_group => "apiVersion must specify API group".to_owned(),
        Ok(_) => return,
    };
    problems.invalid(&version, version.text(), &fault);
}

fn path_segment(field: &Field<'_, '_>, missing: &str, problems: &mut Problems) {
    if field.text().is_empty() {
        problems.required(field, missing);
    } else if let Err(fault) = name::path_segment(field.text()) {
        problems.invalid(field, field.text(), &fault);
    }
}

fn metrics(spec: &Field<'_, '_>, described_before: bool, problems: &mut Problems) {
    for metric in spec.items("metrics") {
        self::metric(&metric, described_before, problems);
    }
    let counts_without_pods = spec
        .items("metrics")
        .any(|metric| matches!(metric.child("type").text(), "Object" | "External"));
    if spec.child("minReplicas").integer() == Some(0) && !counts_without_pods {
        let sentence = "must specify at least one Object or External metric to support scaling to zero replicas";
        problems.forbidden(&spec.child("metrics"), sentence);
    }
}

fn metric(metric: &Field<'_, '_>, described_before: bool, problems: &mut Problems) {
    let kind = metric.child("type");
    if kind.text().is_empty() {
        problems.required(&kind, "must specify a metric source type");
    }
    problems.one_of_as(&kind, kind.text(), SOURCES);
    let mut present = Vec::new();
    for names in [
        "object",
        "external",
        "pods",
        "resource",
        "containerResource",
    ] {
        let source = metric.child(names);
        if !source.is_set() {
            continue;
        }
        present.push(names);
        if present.len() > 1 {
            continue;
        }
        match names {
            "object" => object(&source, described_before, problems),
            "external" => external(&source, problems),
            "pods" => pods(&source, problems),
            _ => resource(&source, names == "containerResource", problems),
        }
    }
    let wanted = match kind.text() {
        "Object" => "object",
        "External" => "external",
        "Pods" => "pods",
        "Resource" => "resource",
        "ContainerResource" => "containerResource",
        _ => "",
    };
    if !wanted.is_empty() && !present.contains(&wanted) {
        let sentence = "must populate information for the given metric source";
        problems.required(&metric.child(wanted), sentence);
    }
    if present.len() > 1 {
        for other in present.iter().filter(|names| **names != wanted) {
            let sentence = "must populate the given metric source only";
            problems.forbidden(&metric.child(other), sentence);
        }
    }
}

fn object(source: &Field<'_, '_>, described_before: bool, problems: &mut Problems) {
    let described = source.child("describedObject");
    reference(&described, described_before, true, problems);
    identifier(source, problems);
    let target = source.child("target");
    self::target(&target, problems);
    let average = target.child("averageValue");
    if !target.child("value").is_set() && !average.is_set() {
        let sentence = "must set either a target value or averageValue";
        problems.required(&average, sentence);
    }
}

fn external(source: &Field<'_, '_>, problems: &mut Problems) {
    identifier(source, problems);
    let target = source.child("target");
    self::target(&target, problems);
    let (value, average) = (target.child("value"), target.child("averageValue"));
    match (value.is_set(), average.is_set()) {
        (false, false) => {
            let sentence = "must set either a target value for metric or a per-pod target";
            problems.required(&average, sentence);
        }
        (true, true) => {
            let sentence = "may not set both a target value for metric and a per-pod target";
            problems.forbidden(&value, sentence);
        }
        _ => {}
    }
}

fn pods(source: &Field<'_, '_>, problems: &mut Problems) {
    identifier(source, problems);
    let target = source.child("target");
    self::target(&target, problems);
    let average = target.child("averageValue");
    if !average.is_set() {
        let sentence = "must specify a positive target averageValue";
        problems.required(&average, sentence);
    }
}

fn resource(source: &Field<'_, '_>, of_container: bool, problems: &mut Problems) {
    let own_name = source.child("name");
    if own_name.text().is_empty() {
        problems.required(&own_name, "must specify a resource name");
    } else if of_container {
        validate_container_resource(own_name.text(), &own_name, problems);
    }
    if of_container {
        let container = source.child("container");
        if container.text().is_empty() {
            problems.required(&container, "must specify a container");
        } else {
            problems.rule(&container, name::dns1123_label_faults);
        }
    }
    let target = source.child("target");
    self::target(&target, problems);
    let (utilization, average) = (
        target.child("averageUtilization"),
        target.child("averageValue"),
    );
    match (utilization.is_set(), average.is_set()) {
        (false, false) => {
            let sentence = "must set either a target raw value or a target utilization";
            problems.required(&utilization, sentence);
        }
        (true, true) => {
            let sentence = "may not set both a target raw value and a target utilization";
            problems.forbidden(&average, sentence);
        }
        _ => {}
    }
}

fn identifier(source: &Field<'_, '_>, problems: &mut Problems) {
    let metric = source.child("metric");
    path_segment(
        &metric.child("name"),
        "must specify a metric name",
        problems,
    );
}

fn target(target: &Field<'_, '_>, problems: &mut Problems) {
    let kind = target.child("type");
    if kind.text().is_empty() {
        problems.required(&kind, "must specify a metric target type");
    }
    if !matches!(kind.text(), "Utilization" | "Value" | "AverageValue") {
        let sentence = "must be either Utilization, Value, or AverageValue";
        problems.invalid(&kind, kind.text(), sentence);
    }
    for names in ["value", "averageValue"] {
        let amount = target.child(names);
        let quantity = amount.quantity();
        if let Some(quantity) = quantity.filter(|q| q.is_negative() || q.is_zero()) {
            problems.invalid(&amount, quantity.to_string(), "must be positive");
        }
    }
    let utilization = target.child("averageUtilization");
    if let Some(percent) = utilization.integer().filter(|percent| *percent < 1) {
        problems.invalid(&utilization, percent, "must be greater than 0");
    }
}

fn scaling_rules(rules: &Field<'_, '_>, problems: &mut Problems) {
    let window = rules.child("stabilizationWindowSeconds");
    match window.integer() {
        Some(seconds) if seconds < 0 => {
            let sentence = "must be greater than or equal to zero";
            problems.invalid(&window, seconds, sentence);
        }
        Some(seconds) if seconds > WINDOW_SECONDS_MAX => {
            let sentence = format!("must be less than or equal to {WINDOW_SECONDS_MAX}");
            problems.invalid(&window, seconds, &sentence);
        }
        _ => {}
    }
    problems.one_of(&rules.child("selectPolicy"), SELECTIONS);
    let policies = rules.child("policies");
    if policies.list().is_empty() {
        problems.required(&policies, "must specify at least one Policy");
    }
    for policy in rules.items("policies") {
        let kind = policy.child("type");
        problems.one_of_as(&kind, kind.text(), POLICIES);
        for names in ["value", "periodSeconds"] {
            let amount = policy.child(names);
            let value = amount.integer().unwrap_or(0);
            if value <= 0 {
                problems.invalid(&amount, value, "must be greater than zero");
            } else if names == "periodSeconds" && value > PERIOD_SECONDS_MAX {
                let sentence = format!("must be less than or equal to {PERIOD_SECONDS_MAX}");
                problems.invalid(&amount, value, &sentence);
            }
        }
    }
    let tolerance = rules.child("tolerance");
    if let Some(quantity) = tolerance.quantity().filter(|q| q.is_negative()) {
        let shown = Value::from(quantity.to_string());
        problems.invalid(&tolerance, shown, "must be greater than or equal to 0");
    }
}
