//! What a Job may ask for, in the words and the order of Kubernetes, and what of it may change.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use weft_api::name;
use weft_api::selector::LabelSelector;

use super::indexes;
use crate::apps::workload;
use crate::core::pod;
use crate::field::Field;
use crate::lens::{flag, integer, items, member, put, text};
use crate::validate::{Problems, label_selector};

/// Bounds that keep what a Job's status says of its indexes small.
const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
const COMPLETIONS_MANY: i64 = 100_000;
const PARALLELISM_OF_MANY_MAX: i64 = 10_000;
const FAILED_INDEXES_OF_MANY_MAX: i64 = 10_000;
const RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITIONS_MAX: usize = 20;
const MANAGER_BYTES_MAX: usize = 63;
const INDEXES_BYTES_MAX: usize = 64 << 10;

const MODES: &[&str] = &["NonIndexed", "Indexed"];
const REPLACED: &[&str] = &["Failed", "TerminatingOrFailed"];
const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
const OPERATORS: &[&str] = &["In", "NotIn"];
const STATUSES: &[&str] = &["False", "True", "Unknown"];

/// The spec of a Job, or of those that a CronJob makes.
pub(in crate::batch) fn judge(spec: &Field<'_, '_>, problems: &mut Problems) {
    for names in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        problems.not_negative(&spec.child(names));
    }
    let per_index = spec.child("backoffLimitPerIndex");
    if spec.child("maxFailedIndexes").is_set() && !per_index.is_set() {
        problems.required(&per_index, "when maxFailedIndexes is specified");
    }
    manager(&spec.child("managedBy"), problems);
    mode(spec, problems);
    let failure = spec.child("podFailurePolicy");
    if failure.is_set() {
        failure_policy(spec, &failure, problems);
    }
    let success = spec.child("successPolicy");
    if success.is_set() {
        if is_indexed(spec) {
            success_policy(spec, &success, problems);
        } else {
            let sentence = "requires indexed completion mode";
            problems.invalid(&success, success.shown(), sentence);
        }
    }
    let replaced = spec.child("podReplacementPolicy");
    match failure.is_set() {
        true => problems.one_of(&replaced, &REPLACED[..1]),
        false => problems.one_of(&replaced, REPLACED),
    }
    pod::validate_template(&spec.child("template"), problems);
    restart_policy(spec, failure.is_set(), problems);
}

fn is_indexed(spec: &Field<'_, '_>) -> bool {
    spec.child("completionMode").text() == "Indexed"
}

/// Who else than the server's own controller is to act on it.
fn manager(manager: &Field<'_, '_>, problems: &mut Problems) {
    if !manager.is_set() {
        return;
    }
    let text = manager.text();
    match text.split_once('/') {
        _ if text.is_empty() => problems.required(manager, ""),
        Some((domain, path)) if !domain.is_empty() && !path.is_empty() => {
            for fault in name::dns1123_subdomain_faults(domain) {
                problems.invalid(manager, domain, &fault);
            }
            const MARKS: &str = "/-._~%!$&'()*+,;=:";
            if !path
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || MARKS.contains(c))
            {
                let sentence = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                problems.invalid(manager, path, sentence);
            }
        }
        _ => {
            let sentence = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            problems.invalid(manager, text, sentence);
        }
    }
    if text.len() > MANAGER_BYTES_MAX {
        problems.too_long(manager, MANAGER_BYTES_MAX);
    }
}

/// Whether each pod has an index, and how many of those there may be.
fn mode(spec: &Field<'_, '_>, problems: &mut Problems) {
    let mode = spec.child("completionMode");
    let completions = spec.child("completions");
    let per_index = spec.child("backoffLimitPerIndex");
    let failed = spec.child("maxFailedIndexes");
    problems.one_of(&mode, MODES);
    match mode.text() {
        "Indexed" => {}
        "" | "NonIndexed" => {
            for limit in [&per_index, &failed] {
                if limit.is_set() {
                    let sentence = "requires indexed completion mode";
                    problems.invalid(limit, limit.shown(), sentence);
                }
            }
            return;
        }
        _ => return,
    }
    if !completions.is_set() {
        problems.required(&completions, "when completion mode is Indexed");
    }
    let parallelism = spec.child("parallelism");
    let at_most = |limit: &Field<'_, '_>, max: i64, when: &str, problems: &mut Problems| {
        if let Some(value) = limit.integer().filter(|value| *value > max) {
            let sentence = format!("must be less than or equal to {max}{when}");
            problems.invalid(limit, value, &sentence);
        }
    };
    let indexed = " when completion mode is Indexed";
    at_most(&parallelism, PARALLELISM_MAX, indexed, problems);
    let wanted = completions.integer();
    if let (Some(wanted), Some(limit)) = (wanted, failed.integer())
        && limit > wanted
    {
        let sentence = "must be less than or equal to completions";
        problems.invalid(&failed, limit, sentence);
    }
    at_most(&failed, FAILED_INDEXES_MAX, "", problems);
    if wanted.is_some_and(|wanted| wanted > COMPLETIONS_MANY) && per_index.is_set() {
        if !failed.is_set() {
            let sentence = "must be specified when completions is above 100000";
            problems.required(&failed, sentence);
        }
        let many = " when completions are above 100000 and used with backoff limit per index";
        at_most(&parallelism, PARALLELISM_OF_MANY_MAX, many, problems);
        at_most(&failed, FAILED_INDEXES_OF_MANY_MAX, many, problems);
    }
}

fn restart_policy(spec: &Field<'_, '_>, has_failure_policy: bool, problems: &mut Problems) {
    let restart = spec.child("template.spec.restartPolicy");
    match restart.text() {
        "" | "Always" => {
            problems.required(&restart, "valid values: \"OnFailure\", \"Never\"");
        }
        "OnFailure" if has_failure_policy => {
            let sentence = "only \"Never\" is supported when podFailurePolicy is specified";
            problems.invalid(&restart, "OnFailure", sentence);
        }
        _ => problems.one_of(&restart, &["OnFailure", "Never"]),
    }
}

/// Go's list of texts that are allowed.
fn valid_values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn required_one_of(field: &Field<'_, '_>, values: &[&str], problems: &mut Problems) {
    match field.text() {
        "" => problems.required(field, &valid_values(values)),
        text => problems.one_of_as(field, text, values),
    }
}

fn failure_policy(spec: &Field<'_, '_>, policy: &Field<'_, '_>, problems: &mut Problems) {
    let rules = policy.child("rules");
    if rules.list().len() > RULES_MAX {
        problems.too_many(&rules, rules.list().len(), RULES_MAX);
    }
    let pod = spec.child("template.spec").shown();
    let containers = ["/containers", "/initContainers"];
    let containers = containers.iter().flat_map(|list| items(&pod, list));
    let containers: BTreeSet<&str> = containers.map(|c| text(c, "/name")).collect();
    for rule in policy.items("rules") {
        let action = rule.child("action");
        match action.text() {
            "FailIndex" => {
                if !spec.child("backoffLimitPerIndex").is_set() {
                    let sentence = "requires the backoffLimitPerIndex to be set";
                    problems.invalid(&action, "FailIndex", sentence);
                }
            }
            _ => required_one_of(&action, ACTIONS, problems),
        }
        let codes = rule.child("onExitCodes");
        if codes.is_set() {
            exit_codes(&codes, &containers, problems);
        }
        let conditions = rule.child("onPodConditions");
        pod_conditions(&rule, problems);
        match (codes.is_set(), !conditions.list().is_empty()) {
            (true, true) => {
                let sentence = "specifying both OnExitCodes and OnPodConditions is not supported";
                problems.invalid_unshown(&rule, sentence);
            }
            (false, false) => {
                let sentence = "specifying one of OnExitCodes and OnPodConditions is required";
                problems.invalid_unshown(&rule, sentence);
            }
            _ => {}
        }
    }
}

fn exit_codes(codes: &Field<'_, '_>, containers: &BTreeSet<&str>, problems: &mut Problems) {
    let operator = codes.child("operator");
    required_one_of(&operator, OPERATORS, problems);
    let container = codes.child("containerName");
    if container.is_set() && !containers.contains(container.text()) {
        let sentence = "must be one of the container or initContainer names in the pod template";
        problems.invalid(&container, container.text(), sentence);
    }
    let values = codes.child("values");
    let shown = || json!(values.list());
    if values.list().is_empty() {
        problems.invalid(&values, shown(), "at least one value is required");
    } else if values.list().len() > EXIT_CODES_MAX {
        problems.too_many(&values, values.list().len(), EXIT_CODES_MAX);
    }
    let mut seen = BTreeSet::new();
    let mut rises = true;
    let mut before = i64::MIN;
    for value in codes.items("values") {
        let code = value.integer().unwrap_or(0);
        if operator.text() == "In" && code == 0 {
            problems.invalid(&value, 0, "must not be 0 for the In operator");
        }
        if !seen.insert(code) {
            problems.duplicate(&value, code);
        }
        rises &= before <= code;
        before = code;
    }
    if !rises {
        problems.invalid(&values, shown(), "must be ordered");
    }
}

fn pod_conditions(rule: &Field<'_, '_>, problems: &mut Problems) {
    let all = rule.child("onPodConditions");
    if all.list().len() > CONDITIONS_MAX {
        problems.too_many(&all, all.list().len(), CONDITIONS_MAX);
    }
    for pattern in rule.items("onPodConditions") {
        problems.rule(&pattern.child("type"), name::qualified_name_faults);
        required_one_of(&pattern.child("status"), STATUSES, problems);
    }
}

fn success_policy(spec: &Field<'_, '_>, policy: &Field<'_, '_>, problems: &mut Problems) {
    let rules = policy.child("rules");
    if rules.list().is_empty() {
        let sentence = "at least one rules must be specified when the successPolicy is specified";
        problems.required(&rules, sentence);
    }
    if rules.list().len() > RULES_MAX {
        problems.too_many(&rules, rules.list().len(), RULES_MAX);
    }
    let completions = spec.child("completions").integer().unwrap_or(0);
    for rule in policy.items("rules") {
        let count = rule.child("succeededCount");
        let named = rule.child("succeededIndexes");
        if !count.is_set() && !named.is_set() {
            let sentence = "at least one of succeededCount or succeededIndexes must be specified";
            problems.required(&rule, sentence);
        }
        let mut total = 0;
        if named.is_set() {
            if named.text().len() > INDEXES_BYTES_MAX {
                problems.too_long(&named, INDEXES_BYTES_MAX);
            }
            match indexes::parse(named.text(), completions) {
                Ok(intervals) => {
                    total = intervals.iter().map(|(first, last)| last - first + 1).sum();
                }
                Err(why) => {
                    let sentence = format!("error parsing succeededIndexes: {why}");
                    problems.invalid(&named, named.text(), &sentence);
                }
            }
        }
        problems.not_negative(&count);
        if let Some(wanted) = count.integer() {
            if wanted > completions {
                let sentence = format!(
                    "must be less than or equal to {completions} (the number of specified completions)"
                );
                problems.invalid(&count, wanted, &sentence);
            }
            if named.is_set() && wanted > total {
                let sentence = format!(
                    "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
                );
                problems.invalid(&count, wanted, &sentence);
            }
        }
    }
}

/// What a Job, and not one of a CronJob, selects.
pub(super) fn selector(spec: &Field<'_, '_>, problems: &mut Problems) {
    let selector = spec.child("selector");
    if selector.is_set() {
        label_selector(&selector, problems);
    } else {
        problems.required(&selector, "");
    }
    if let Ok(parsed) = LabelSelector::from_object(&selector.shown()) {
        workload::labels_match(Some(&parsed), &spec.child("template"), problems);
    }
}

/// Whether the pod with the last index can have the name that it gets.
pub(super) fn names_fit(job: &Field<'_, '_>, problems: &mut Problems) {
    let spec = job.child("spec");
    let completions = spec.child("completions").integer().unwrap_or(0);
    if !is_indexed(&spec) || completions <= 0 {
        return;
    }
    let own = job.child("metadata.name");
    let last = format!("{}-{}", own.text(), completions - 1);
    if name::dns1123_label(&last).is_err() {
        let sentence = format!("will not able to create pod with invalid DNS label: {last}");
        problems.invalid(&own, own.text(), &sentence);
    }
}

/// What stays as it was when the Job was made.
pub(super) fn kept(job: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    let (spec, old) = (job.child("spec"), before.child("spec"));
    let completions = spec.child("completions");
    let wanted = old.child("completions");
    if !is_indexed(&spec) {
        problems.immutable(&completions, &wanted);
    } else if completions.is_set()
        && completions.value() != wanted.value()
        && completions.value() != spec.child("parallelism").value()
    {
        let sentence = "can only be modified in tandem with spec.parallelism";
        problems.invalid(&completions, completions.shown(), sentence);
    }
    problems.immutable(&spec.child("selector"), &old.child("selector"));
    template(&spec, before, problems);
    for names in [
        "completionMode",
        "podFailurePolicy",
        "backoffLimitPerIndex",
        "managedBy",
        "successPolicy",
    ] {
        problems.immutable(&spec.child(names), &old.child(names));
    }
}

/// Where and with what the pods of a Job run that waits for its start may still be said.
fn template(spec: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    let new = spec.child("template");
    let old_job = before.shown();
    let mut old = before.child("spec.template").shown();
    let waits = flag(&old_job, "/spec/suspend");
    let is_open = waits
        && (text(&old_job, "/status/startTime").is_empty()
            || crate::lens::condition_is_true(&old_job, "Suspended"))
        && integer(&old_job, "/status/active").unwrap_or(0) == 0;
    if !is_open {
        let kept = Field::root(&old);
        return problems.immutable(&new, &kept);
    }
    let wanted = new.shown();
    take_placement(&mut old, &wanted);
    for list in ["containers", "initContainers"] {
        take_resources(&mut old, &wanted, list);
    }
    let kept = Field::root(&old);
    problems.immutable(&new.child("spec"), &kept.child("spec"));
}

fn take_placement(old: &mut Value, wanted: &Value) {
    let (Some(pod), Some(wanted)) = (old.get_mut("spec"), wanted.get("spec")) else {
        return;
    };
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        put(pod, field, wanted.get(field).cloned());
    }
    let had_affinity = pod.get("affinity").is_some_and(Value::is_object);
    let nodes = wanted.pointer("/affinity/nodeAffinity").cloned();
    if wanted.get("affinity").is_some_and(Value::is_object) || had_affinity {
        let affinity = member(pod, "affinity");
        put(affinity, "nodeAffinity", nodes);
        let is_empty = affinity.as_object().is_none_or(serde_json::Map::is_empty);
        if is_empty && wanted.get("affinity").is_none_or(Value::is_null) {
            put(pod, "affinity", None);
        }
    }
}

fn take_resources(old: &mut Value, wanted: &Value, list: &str) {
    let pointer = format!("/spec/{list}");
    let wanted = items(wanted, &pointer);
    let same_number = items(old, &pointer).len() == wanted.len();
    for (container, wanted) in crate::lens::items_mut(old, &pointer).zip(wanted) {
        if same_number && text(container, "/name") == text(wanted, "/name") {
            put(container, "resources", wanted.get("resources").cloned());
        }
    }
}
