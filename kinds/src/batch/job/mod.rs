//! Jobs: pods that run to their end. Which pods are a Job's own is said by labels that the server makes from its uid.

mod indexes;
mod spec;
mod status;

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Map, Value};
use weft_api::status::StatusError;

use crate::apps::workload;
use crate::columns::{Column, Row};
use crate::core::replicationcontroller::warning_of_name;
use crate::field::Field;
use crate::kind::Selectable;
use crate::lens::{
    condition_is_true, fill, flag, integer, items_mut, member, none_when_empty, object, put, text,
    time,
};
use crate::strategy::{Dependents, Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource, weft};

pub(super) use spec::judge as judge_spec;

pub static JOB: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let mut columns = vec![
        Column::name(),
        Column::text("Status", shown_status, "What became of it."),
        Column::text(
            "Completions",
            completions,
            "Pods that succeeded, of those wanted.",
        ),
        Column::text("Duration", duration, "How long it took, or takes so far."),
        Column::age(),
    ];
    columns.extend(workload::columns());
    Arc::new(Kind {
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
        columns,
        selectable: vec![Selectable::or(
            "status.successful",
            "/status/succeeded",
            "0",
        )],
        counts_generations: true,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Jobs),
        ..Kind::new("batch", "v1", "Job", "jobs")
    })
});

/// Labels of a Job's pods, each under a name of before prefixes, too.
const OF_UID: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
const OF_NAME: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
/// Retries of a Job, unless it says otherwise.
const RETRIES: i32 = 6;

struct Jobs;

impl Strategy for Jobs {
    /// One that says no labels takes those of the template that it says, and not of the one that is kept.
    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        mut proposed: Value,
        old: &Value,
    ) -> Value {
        take_labels_of_pods(&mut proposed);
        replace_part(kind, part, proposed, old)
    }

    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        default_template(spec);
        let is_set = |spec: &Value, field: &str| spec.get(field).is_some_and(|v| !v.is_null());
        if !is_set(spec, "completions") && !is_set(spec, "parallelism") {
            fill(spec, "completions", 1);
        }
        fill(spec, "parallelism", 1);
        let retries = match is_set(spec, "backoffLimitPerIndex") {
            true => i32::MAX,
            false => RETRIES,
        };
        fill(spec, "backoffLimit", retries);
        fill(spec, "completionMode", "NonIndexed");
        fill(spec, "suspend", false);
        let replaced = match is_set(spec, "podFailurePolicy") {
            true => "Failed",
            false => "TerminatingOrFailed",
        };
        fill(spec, "podReplacementPolicy", replaced);
        fill(spec, "manualSelector", false);
        // One whose labels are yet to be made takes them once they are.
        if flag(spec, "/manualSelector") || is_set(spec, "selector") {
            take_labels_of_pods(value);
        }
    }

    fn settle(&self, next: &mut Value, _: Option<&Value>) {
        no_rules_when_empty(next, "/spec");
    }

    /// Its uid and its name, which pods are found by.
    fn admit(&self, new: &mut Value, _: &dyn Surroundings) -> Result<(), StatusError> {
        if flag(new, "/spec/manualSelector") {
            return Ok(());
        }
        let uid = text(new, "/metadata/uid").to_owned();
        let name = text(new, "/metadata/name").to_owned();
        let spec = member(new, "spec");
        let labels = member(member(member(spec, "template"), "metadata"), "labels");
        for (keys, value) in [(OF_NAME, &name), (OF_UID, &uid)] {
            // One that is yet to be named is asked for again once it is.
            for key in keys.into_iter().filter(|_| !value.is_empty()) {
                fill(labels, key, value.as_str());
            }
        }
        let matched = member(member(spec, "selector"), "matchLabels");
        fill(matched, OF_UID[1], uid);
        Ok(())
    }

    /// How its pods are to be scheduled together is for a scheduler that does so.
    fn drop_unserved(&self, next: &mut Value) {
        put(member(next, "spec"), "scheduling", None);
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        let told = warning_of_name(value).into_iter();
        let told = told.chain(warning_of_size(value, "spec"));
        told.chain(weft::warnings_of_template(value, around))
            .collect()
    }

    fn dependents(&self) -> Dependents {
        Dependents::Stay(Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning",
        ))
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        own_labels(&root, problems);
        spec::judge(&root.child("spec"), problems);
        spec::selector(&root.child("spec"), problems);
        spec::names_fit(&root, problems);
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
            return status::judge(&root, &before, problems);
        }
        spec::judge(&root.child("spec"), problems);
        spec::selector(&root.child("spec"), problems);
        spec::kept(&root, &before, problems);
        spec::names_fit(&root, problems);
    }
}

/// The template of a Job's spec, with the statuses that conditions of pods are compared with.
pub(super) fn default_template(spec: &mut Value) {
    workload::default_template_of(spec);
    for rule in items_mut(spec, "/podFailurePolicy/rules") {
        for pattern in items_mut(rule, "/onPodConditions") {
            if text(pattern, "/status").is_empty() {
                put(pattern, "status", Some("True".into()));
            }
        }
    }
}

/// The policy about failed pods of a Job's spec, which may have no rules.
pub(super) fn no_rules_when_empty(job: &mut Value, spec: &str) {
    if let Some(policy) = job.pointer_mut(&format!("{spec}/podFailurePolicy")) {
        none_when_empty(policy, "rules");
    }
}

fn take_labels_of_pods(job: &mut Value) {
    let labels = object(job, "/spec/template/metadata/labels").cloned();
    let own = object(job, "/metadata/labels");
    if let Some(labels) = labels.filter(|labels| !labels.is_empty())
        && own.is_none_or(Map::is_empty)
    {
        member(job, "metadata")["labels"] = labels.into();
    }
}

/// A selector that the server makes selects by what it made.
fn own_labels(job: &Field<'_, '_>, problems: &mut Problems) {
    let spec = job.child("spec");
    let selector = spec.child("selector");
    if spec.child("manualSelector").flag() || !selector.is_set() {
        return;
    }
    let uid = job.child("metadata.uid").text();
    let name = job.child("metadata.name").text();
    let template = spec.child("template");
    for (key, value) in [
        (OF_UID[0], uid),
        (OF_NAME[0], name),
        (OF_UID[1], uid),
        (OF_NAME[1], name),
    ] {
        let label = template.entry("metadata.labels", key);
        let sentence = format!("must be '{value}'");
        // One without a name is refused for that.
        if !label.is_set() && !value.is_empty() {
            problems.required(&label, &sentence);
        } else if label.text() != value {
            let all = template.child("metadata.labels").shown();
            problems.invalid(&label, all, &sentence);
        }
    }
    let made = OF_UID.map(|key| (key.to_owned(), uid.to_owned()));
    let named = OF_NAME.map(|key| (key.to_owned(), name.to_owned()));
    let made = made.into_iter().chain(named).collect();
    let parsed = weft_api::selector::LabelSelector::from_object(&selector.shown());
    if parsed.is_ok_and(|parsed| !parsed.is_everything() && !parsed.matches(&made)) {
        problems.invalid(&selector, selector.shown(), "`selector` not auto-generated");
    }
}

/// Completions and parallelism that statuses cannot follow; `path` is where the spec is.
pub(super) fn warning_of_size(holder: &Value, path: &str) -> Option<String> {
    const COMPLETIONS_MANY: i64 = 100_000;
    const PARALLELISM_MANY: i64 = 10_000;
    let spec = holder.pointer(&format!("/{}", path.replace('.', "/")))?;
    let count = |field: &str| integer(spec, field).unwrap_or(0);
    let many = count("/completions") > COMPLETIONS_MANY && count("/parallelism") > PARALLELISM_MANY;
    (many && text(spec, "/completionMode") == "Indexed").then(|| {
        format!("{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes might not be able to track completedIndexes when a big number of indexes fail")
    })
}

fn shown_status(row: &Row<'_>) -> Value {
    let is = |condition: &str| condition_is_true(row.object, condition);
    let deleted = !text(row.object, "/metadata/deletionTimestamp").is_empty();
    let shown = if is("Complete") {
        "Complete"
    } else if is("Failed") {
        "Failed"
    } else if deleted {
        "Terminating"
    } else {
        let further = ["Suspended", "FailureTarget", "SuccessCriteriaMet"];
        let further = further.into_iter().find(|condition| is(condition));
        further.unwrap_or("Running")
    };
    shown.into()
}

fn completions(row: &Row<'_>) -> Value {
    let succeeded = row.count("/status/succeeded");
    match integer(row.object, "/spec/completions") {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match row.count("/spec/parallelism") {
            many @ 2.. => format!("{succeeded}/1 of {many}"),
            _ => format!("{succeeded}/1"),
        },
    }
    .into()
}

fn duration(row: &Row<'_>) -> Value {
    let Some(start) = time(row.object, "/status/startTime") else {
        return "".into();
    };
    let end = time(row.object, "/status/completionTime").unwrap_or(row.now);
    let lasted = Duration::try_from(end.duration_since(start)).unwrap_or_default();
    weft_api::time::short_duration(lasted).into()
}

#[cfg(test)]
mod tests;
