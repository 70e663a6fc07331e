//! Rollouts: pods of a template whose changes are brought out by steps. Here is what one may say.
//!
//! Counts, types and enumerations are the schema's; what has to hold between fields stands here: one strategy, one thing a step, names that
//! what is made for a revision can bear.
//!
//! Left to others: what comes of it (`weft_controllers`).

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::Value;
use weft_api::name;

use crate::apps::workload;
use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;
use crate::{Kind, Subresource, weft};

pub static ROLLOUT: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let columns = [
        Column::name(),
        Column::text("Phase", phase, "How far it is."),
        Column::text("Step", step, "Steps done of all steps."),
        Column::integer(
            "Weight",
            weight,
            "Of a hundred calls, those that a revision on its way gets.",
        ),
        Column::text("Ready", ready, "Ready pods of desired pods."),
        Column::text("Stable", stable, "The revision that is served."),
        Column::text("Current", current, "The revision of the template."),
        Column::age(),
    ];
    Arc::new(Kind {
        short_names: vec!["ro".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        columns: columns.into_iter().chain(workload::columns()).collect(),
        ..super::own("Rollout", "rollouts", Rollouts)
    })
});

/// What is made for a revision has the name of the Rollout, a hyphen, and a hash of ten letters; Services have 63.
const NAME_MAX: usize = 52;
const STRATEGIES: [&str; 3] = ["canary", "blueGreen", "ab"];
const STEPS: [&str; 3] = ["setWeight", "pause", "analysis"];

struct Rollouts;

impl Strategy for Rollouts {
    fn default(&self, value: &mut Value) {
        workload::default_template(value);
        if let Some(spec) = value.get_mut("spec") {
            fill(spec, "replicas", 1);
            fill(spec, "revisionHistoryLimit", 10);
            fill(spec, "progressDeadlineSeconds", 600);
            fill(spec, "scaleDownDelaySeconds", 30);
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        weft::warnings_of_template(value, around)
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let named = root.child("metadata.name");
        if named.text().len() > NAME_MAX {
            problems.too_long(&named, NAME_MAX);
        }
        problems.rule(&named, name::dns1035_label_faults);
        let spec = root.child("spec");
        for names in [
            "replicas",
            "minReadySeconds",
            "revisionHistoryLimit",
            "scaleDownDelaySeconds",
        ] {
            problems.not_negative(&spec.child(names));
        }
        workload::validate_pods(&spec, problems);
        let expressions = spec.child("selector.matchExpressions");
        if !expressions.list().is_empty() {
            let why = "a Service selects the pods of a revision, by labels alone: use matchLabels";
            problems.forbidden(&expressions, why);
        }
        let deadline = spec.child("progressDeadlineSeconds");
        let min_ready = spec.child("minReadySeconds").integer().unwrap_or(0);
        if let Some(seconds) = deadline.integer().filter(|seconds| *seconds <= min_ready) {
            problems.invalid(&deadline, seconds, "must be greater than minReadySeconds");
        }
        traffic(&spec.child("traffic"), problems);
        strategy(&spec, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let parts = ["updatedReplicas", "readyReplicas", "availableReplicas"];
        workload::validate_update(self, new, old, part, &parts, problems);
    }
}

fn traffic(traffic: &Field<'_, '_>, problems: &mut Problems) {
    problems.rule(&traffic.child("service"), name::dns1035_label_faults);
    for gateway in traffic.items("gateways") {
        problems.rule(&gateway.child("name"), name::dns1123_subdomain_faults);
        let namespace = gateway.child("namespace");
        if namespace.is_set() {
            problems.rule(&namespace, name::dns1123_label_faults);
        }
    }
    let hosts = traffic.child("hostnames");
    if !hosts.is_empty() && traffic.child("gateways").is_empty() {
        problems.forbidden(
            &hosts,
            "there are no gateways at which a host could be named",
        );
    }
    for host in traffic.items("hostnames") {
        let plain = |host: &str| {
            let rest = host.strip_prefix("*.").unwrap_or(host);
            name::dns1123_subdomain_faults(rest)
        };
        problems.rule(&host, plain);
    }
}

fn strategy(spec: &Field<'_, '_>, problems: &mut Problems) {
    let strategy = spec.child("strategy");
    exactly_one(&strategy, &STRATEGIES, problems);
    let analysis = spec.child("analysis");
    let needs_analysis = |field: &Field<'_, '_>, problems: &mut Problems| {
        if !analysis.is_set() {
            let why = "rounds need spec.analysis, which says what passes";
            problems.forbidden(field, why);
        }
    };
    let canary = strategy.child("canary");
    for step in canary.items("steps") {
        exactly_one(&step, &STEPS, problems);
        let rounds = step.child("analysis");
        if rounds.is_set() {
            needs_analysis(&rounds, problems);
        }
    }
    let blue_green = strategy.child("blueGreen");
    let rounds = blue_green.child("rounds");
    if rounds.integer().unwrap_or(0) > 0 {
        needs_analysis(&rounds, problems);
    }
    let preview = blue_green.child("previewService");
    if preview.is_set() {
        problems.rule(&preview, name::dns1035_label_faults);
        if preview.text() == text(&spec.shown(), "/traffic/service") {
            let why = "must not be the Service whose callers are led";
            problems.invalid(&preview, preview.text(), why);
        }
    }
    let ab = strategy.child("ab");
    if ab.is_set() {
        needs_analysis(&ab.child("rounds"), problems);
        if ab.child("headers").is_empty() && !ab.child("cookie").is_set() {
            problems.required(&ab, "say by which headers or cookie calls are marked");
        }
    }
    let (percent, latency) = (analysis.child("successPercent"), analysis.child("latency"));
    if analysis.is_set() && !percent.is_set() && latency.is_empty() {
        problems.required(&analysis, "must set successPercent, latency or both");
    }
}

/// Whether just one of these members is there.
fn exactly_one(of: &Field<'_, '_>, members: &[&str], problems: &mut Problems) {
    let there = members.iter().filter(|member| of.child(member).is_set());
    match there.count() {
        1 => {}
        0 => {
            let names = members.join("`, `");
            problems.required(of, &format!("must specify one of: `{names}`"));
        }
        _ => problems.forbidden(of, "may not specify more than one of its fields"),
    }
}

fn phase(row: &Row<'_>) -> Value {
    text(row.object, "/status/phase").into()
}

fn step(row: &Row<'_>) -> Value {
    let count = |pointer: &str| row.count(pointer);
    format!("{}/{}", count("/status/step"), count("/status/steps")).into()
}

fn weight(row: &Row<'_>) -> Value {
    row.count("/status/weight").into()
}

fn ready(row: &Row<'_>) -> Value {
    let ready = row.count("/status/readyReplicas");
    format!("{ready}/{}", row.count("/spec/replicas")).into()
}

fn stable(row: &Row<'_>) -> Value {
    text(row.object, "/status/stableRevision").into()
}

fn current(row: &Row<'_>) -> Value {
    text(row.object, "/status/currentRevision").into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::decode;
    use crate::validate::told;

    fn rollout() -> Value {
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "selector": {"matchLabels": {"app": "web"}},
                "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "shop/web:1"}]},
                },
                "traffic": {"service": "web"},
                "analysis": {"successPercent": 99.5},
                "strategy": {"canary": {"steps": [{"setWeight": 10}, {"pause": {}}, {"analysis": {}}]}},
            },
        })
    }

    fn decoded(sent: &Value) -> Value {
        let decoded = decode::value(&ROLLOUT.gvk(), sent).unwrap();
        assert_eq!(decoded.faults, [""; 0]);
        let mut value = decoded.value;
        decode::fill(&ROLLOUT.gvk(), &mut value);
        ROLLOUT.strategy.default(&mut value);
        value
    }

    #[test]
    fn what_is_left_out_has_the_defaults() {
        let rollout = decoded(&rollout());
        let spec = &rollout["spec"];
        for (pointer, expected) in [
            ("/replicas", json!(1)),
            ("/progressDeadlineSeconds", json!(600)),
            ("/scaleDownDelaySeconds", json!(30)),
            ("/analysis/intervalSeconds", json!(30)),
            ("/analysis/failureLimit", json!(1)),
            ("/analysis/minRequests", json!(10)),
            ("/analysis/successPercent", json!(99.5)),
            ("/strategy/canary/steps/2/analysis/rounds", json!(1)),
        ] {
            assert_eq!(spec.pointer(pointer), Some(&expected), "{pointer}");
        }
        assert_eq!(told::of_new(&ROLLOUT, &rollout), [""; 0]);
    }

    #[test]
    fn each_rule_is_told_of() {
        for (pointer, value, expected) in [
            (
                "/spec/strategy",
                json!({}),
                "spec.strategy: Required value: must specify one of: `canary`, `blueGreen`, `ab`",
            ),
            (
                "/spec/strategy",
                json!({"canary": {"steps": [{"setWeight": 1}]}, "blueGreen": {}}),
                "spec.strategy: Forbidden: may not specify more than one of its fields",
            ),
            (
                "/spec/strategy",
                json!({"canary": {"steps": [{}]}}),
                "spec.strategy.canary.steps[0]: Required value: must specify one of: `setWeight`, `pause`, `analysis`",
            ),
            (
                "/spec/strategy",
                json!({"ab": {"rounds": 1}}),
                "spec.strategy.ab: Required value: say by which headers or cookie calls are marked",
            ),
            (
                "/spec/strategy",
                json!({"blueGreen": {"previewService": "web"}}),
                "spec.strategy.blueGreen.previewService: Invalid value: \"web\": must not be the Service whose callers are led",
            ),
            (
                "/spec/analysis",
                json!({"intervalSeconds": 30, "failureLimit": 1, "minRequests": 1}),
                "spec.analysis: Required value: must set successPercent, latency or both",
            ),
            (
                "/spec/analysis",
                Value::Null,
                "spec.strategy.canary.steps[2].analysis: Forbidden: rounds need spec.analysis, which says what passes",
            ),
            (
                "/spec/traffic",
                json!({"service": "web", "hostnames": ["a.example"]}),
                "spec.traffic.hostnames: Forbidden: there are no gateways at which a host could be named",
            ),
            (
                "/spec/selector/matchExpressions",
                json!([{"key": "app", "operator": "Exists"}]),
                "spec.selector.matchExpressions: Forbidden: a Service selects the pods of a revision, by labels alone: use matchLabels",
            ),
            (
                "/metadata/name",
                json!("a".repeat(53)),
                "metadata.name: Too long: may not be more than 52 bytes",
            ),
        ] {
            let new = told::with(&decoded(&rollout()), pointer, value);
            let found = told::of_new(&ROLLOUT, &new);
            assert_eq!(found, [expected], "{pointer}");
        }
    }

    #[test]
    fn selectors_stay() {
        let old = decoded(&rollout());
        let new = told::with(&old, "/spec/selector/matchLabels/b", json!("c"));
        let new = told::with(&new, "/spec/template/metadata/labels/b", json!("c"));
        let found = told::of_update(&ROLLOUT, &new, &old, None);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(
            found[0].starts_with("spec.selector: Invalid value"),
            "{found:?}"
        );
    }
}
