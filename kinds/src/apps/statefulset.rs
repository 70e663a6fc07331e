//! StatefulSets: pods with names and volumes of their own.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;
use weft_api::selector::LabelSelector;

use super::amount::{amount_of, amount_or_percent, at_most_all};
use super::workload;
use crate::columns::{Column, Row};
use crate::core::persistentvolumeclaim::validate_spec as validate_claim;
use crate::core::pod;
use crate::field::Field;
use crate::kind::NameRule;
use crate::lens::{fill, integer, items, items_mut, member, put, text};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, label_selector};
use crate::{Kind, StatusMetadata, Subresource, weft};

pub static STATEFUL_SET: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let [containers, images, _] = workload::columns();
    let columns = vec![
        Column::name(),
        Column::text("Ready", ready, "Ready pods of desired pods."),
        Column::age(),
        containers,
        images,
    ];
    Arc::new(Kind {
        short_names: vec!["sts".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Scale, Subresource::Status],
        columns,
        counts_generations: true,
        name_rule: NameRule::Label,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(StatefulSets),
        ..Kind::new("apps", "v1", "StatefulSet", "statefulsets")
    })
});

const RETENTION: &[&str] = &["Retain", "Delete"];

struct StatefulSets;

impl Strategy for StatefulSets {
    fn default(&self, value: &mut Value) {
        workload::default_template(value);
        let spec = member(value, "spec");
        fill(spec, "replicas", 1);
        fill(spec, "revisionHistoryLimit", 10);
        fill(spec, "podManagementPolicy", "OrderedReady");
        let strategy = member(spec, "updateStrategy");
        if text(strategy, "/type").is_empty() {
            strategy["type"] = "RollingUpdate".into();
            member(strategy, "rollingUpdate");
        }
        if text(strategy, "/type") == "RollingUpdate"
            && let Some(rolling) = strategy.get_mut("rollingUpdate")
        {
            fill(rolling, "partition", 0);
            fill(rolling, "maxUnavailable", 1);
        }
        let retention = member(spec, "persistentVolumeClaimRetentionPolicy");
        fill(retention, "whenDeleted", "Retain");
        fill(retention, "whenScaled", "Retain");
        for claim in items_mut(spec, "/volumeClaimTemplates") {
            put(claim, "apiVersion", Some("v1".into()));
            put(claim, "kind", Some("PersistentVolumeClaim".into()));
            fill(member(claim, "spec"), "volumeMode", "Filesystem");
            fill(member(claim, "status"), "phase", "Pending");
        }
    }

    fn images(&self, value: &Value) -> BTreeSet<String> {
        workload::images_of_pods(value)
    }

    fn warn(&self, value: &Value, around: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        if integer(value, "/spec/revisionHistoryLimit").is_some_and(|limit| limit < 0) {
            told.push("spec.revisionHistoryLimit: a negative value retains all historical revisions; a value >= 0 is recommended".to_owned());
        }
        told.extend(weft::warnings_of_template(value, around));
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        judge(&root.child("spec"), true, problems);
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
            counts(&root.child("status"), problems);
            workload::collisions_only_grow(new, old, problems);
            return;
        }
        let (spec, kept) = (root.child("spec"), before.child("spec"));
        judge(&spec, false, problems);
        for names in [
            "selector",
            "volumeClaimTemplates",
            "serviceName",
            "podManagementPolicy",
        ] {
            problems.immutable(&spec.child(names), &kept.child(names));
        }
    }
}

/// What may never change is judged once, when the object is new.
fn judge(spec: &Field<'_, '_>, is_new: bool, problems: &mut Problems) {
    let order = spec.child("podManagementPolicy");
    if !matches!(order.text(), "OrderedReady" | "Parallel") {
        let sentence = "must be 'OrderedReady' or 'Parallel'";
        problems.invalid(&order, order.text(), sentence);
    }
    strategy(&spec.child("updateStrategy"), problems);
    let retention = spec.child("persistentVolumeClaimRetentionPolicy");
    for names in ["whenDeleted", "whenScaled"] {
        problems.one_of(&retention.child(names), RETENTION);
    }
    if is_new {
        for claim in spec.items("volumeClaimTemplates") {
            validate_claim(&claim.child("spec"), problems);
        }
    }
    for names in ["replicas", "minReadySeconds", "ordinals.start"] {
        problems.not_negative(&spec.child(names));
    }
    let service = spec.child("serviceName");
    if is_new && !service.text().is_empty() {
        problems.rule(&service, name::dns1123_label_faults);
    }
    pods(spec, problems);
}

fn strategy(strategy: &Field<'_, '_>, problems: &mut Problems) {
    let rolling = strategy.child("rollingUpdate");
    match strategy.child("type").text() {
        "OnDelete" if rolling.is_set() => {
            let sentence = "only allowed for updateStrategy 'RollingUpdate'";
            problems.invalid_in_go(&rolling, &in_go(&rolling), sentence);
        }
        "OnDelete" => {}
        "RollingUpdate" => {
            problems.not_negative(&rolling.child("partition"));
            let unavailable = rolling.child("maxUnavailable");
            if unavailable.is_set() {
                amount_or_percent(&unavailable, problems);
                if amount_of(&unavailable) == 0 {
                    problems.invalid(&unavailable, unavailable.shown(), "cannot be 0");
                }
                at_most_all(&unavailable, problems);
            }
        }
        kind => {
            let kind = Value::from(kind);
            let shown = format!("{{\"Type\":{kind},\"RollingUpdate\":{}}}", in_go(&rolling));
            let sentence = "must be 'RollingUpdate' or 'OnDelete'";
            problems.invalid_in_go(strategy, &shown, sentence);
        }
    }
}

/// As Go has it, with a number where none is said.
fn in_go(rolling: &Field<'_, '_>) -> String {
    if !rolling.is_set() {
        return "null".to_owned();
    }
    let partition = rolling.child("partition").integer().unwrap_or(0);
    let unavailable = rolling.child("maxUnavailable").shown();
    format!("{{\"Partition\":{partition},\"MaxUnavailable\":{unavailable}}}")
}

fn pods(spec: &Field<'_, '_>, problems: &mut Problems) {
    let selector = spec.child("selector");
    let parsed = LabelSelector::from_object(&selector.shown());
    if selector.is_set() {
        label_selector(&selector, problems);
        if selector.child("matchLabels").is_empty() && selector.child("matchExpressions").is_empty()
        {
            let sentence = "empty selector is invalid for statefulset";
            problems.invalid(&selector, selector.shown(), sentence);
        }
    } else {
        problems.required(&selector, "");
    }
    let template = spec.child("template");
    if let Ok(parsed) = &parsed {
        workload::labels_match(Some(parsed), &template, problems);
        let judged = as_made(spec);
        let judged = Field::root(&judged);
        pod::validate_template(&judged.moved_to(&template), problems);
    } else {
        let message = format!("Invalid value: {}", selector.shown());
        problems.tell(&selector, "FieldValueInvalid", message);
    }
    workload::keeps_running(&template, "StatefulSet", problems);
}

/// The template of a pod as the controller will make it: it is named and grouped by its set, and has a volume for each claim.
fn as_made(spec: &Field<'_, '_>) -> Value {
    let mut template = spec.child("template").shown();
    if let Some(pod) = template.get_mut("spec") {
        put(pod, "hostname", None);
        put(pod, "subdomain", None);
    }
    let claims = spec.child("volumeClaimTemplates").list();
    if claims.is_empty() {
        return template;
    }
    let names: BTreeSet<&str> = claims
        .iter()
        .map(|claim| text(claim, "/metadata/name"))
        .collect();
    let own = items(&template, "/spec/volumes").iter();
    let own = own.filter(|volume| !names.contains(text(volume, "/name")));
    let claimed = names
        .iter()
        .map(|name| json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    let volumes: Vec<Value> = claimed.chain(own.cloned()).collect();
    member(&mut template, "spec")["volumes"] = volumes.into();
    template
}

fn counts(status: &Field<'_, '_>, problems: &mut Problems) {
    for names in [
        "replicas",
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
        "observedGeneration",
        "collisionCount",
    ] {
        problems.not_negative(&status.child(names));
    }
    let parts = [
        "readyReplicas",
        "currentReplicas",
        "updatedReplicas",
        "availableReplicas",
    ];
    workload::no_part_is_more(status, parts.iter(), "status.readyReplicas", problems);
}

fn ready(row: &Row<'_>) -> Value {
    format!(
        "{}/{}",
        row.count("/status/readyReplicas"),
        row.count("/spec/replicas")
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::columns::{cells, shapes};
    use crate::validate::told;

    fn set() -> Value {
        json!({
            "metadata": {"name": "db", "namespace": "n"},
            "spec": {
                "serviceName": "db",
                "selector": {"matchLabels": {"app": "db"}},
                "template": {
                    "metadata": {"labels": {"app": "db"}},
                    "spec": {"containers": [{"name": "c", "image": "shop/db:1"}]},
                },
            },
        })
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let mut whole = set();
        whole["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}}]);
        STATEFUL_SET.strategy.default(&mut whole);
        let once = whole.clone();
        STATEFUL_SET.strategy.default(&mut whole);
        assert_eq!(whole, once);
        let spec = &whole["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(spec["podManagementPolicy"], "OrderedReady");
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(
            spec["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": 1}})
        );
        assert_eq!(
            spec["volumeClaimTemplates"][0],
            json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
                "spec": {"volumeMode": "Filesystem"}, "status": {"phase": "Pending"}})
        );
        let mut waits = told::with(&set(), "/spec/updateStrategy", json!({"type": "OnDelete"}));
        STATEFUL_SET.strategy.default(&mut waits);
        assert_eq!(waits["spec"]["updateStrategy"], json!({"type": "OnDelete"}));
    }

    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &STATEFUL_SET,
            &set(),
            &[
                (
                    "/metadata/name",
                    json!("a.b"),
                    &["metadata.name: Invalid value: \"a.b\": must not contain dots"],
                ),
                (
                    "/spec/podManagementPolicy",
                    json!("X"),
                    &[
                        "spec.podManagementPolicy: Invalid value: \"X\": must be 'OrderedReady' or 'Parallel'",
                    ],
                ),
                (
                    "/spec/updateStrategy",
                    json!({"type": "X"}),
                    &[
                        "spec.updateStrategy: Invalid value: {\"Type\":\"X\",\"RollingUpdate\":null}: must be 'RollingUpdate' or 'OnDelete'",
                    ],
                ),
                (
                    "/spec/updateStrategy",
                    json!({"type": "OnDelete", "rollingUpdate": {}}),
                    &[
                        "spec.updateStrategy.rollingUpdate: Invalid value: {\"Partition\":0,\"MaxUnavailable\":null}: only allowed for updateStrategy 'RollingUpdate'",
                    ],
                ),
                (
                    "/spec/updateStrategy/rollingUpdate",
                    json!({"partition": -1, "maxUnavailable": "0%"}),
                    &[
                        "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
                        "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": cannot be 0",
                    ],
                ),
                (
                    "/spec/updateStrategy/rollingUpdate",
                    json!({"maxUnavailable": "101%"}),
                    &[
                        "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
                    ],
                ),
                (
                    "/spec/persistentVolumeClaimRetentionPolicy",
                    json!({"whenScaled": "X"}),
                    &[
                        "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"X\": supported values: \"Retain\", \"Delete\"",
                    ],
                ),
                (
                    "/spec/replicas",
                    json!(-1),
                    &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/spec/ordinals",
                    json!({"start": -1}),
                    &["spec.ordinals.start: Invalid value: -1: must be greater than or equal to 0"],
                ),
                (
                    "/spec/selector",
                    Value::Null,
                    &[
                        "spec.selector: Required value",
                        "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
                    ],
                ),
                (
                    "/spec/selector",
                    json!({}),
                    &[
                        "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
                    ],
                ),
                (
                    "/spec/selector",
                    json!({"matchExpressions": [{"key": "a", "operator": "X"}]}),
                    &[
                        "spec.selector.matchExpressions[0].operator: Invalid value: \"X\": not a valid selector operator",
                        "spec.selector: Invalid value: {\"matchExpressions\":[{\"key\":\"a\",\"operator\":\"X\"}]}",
                    ],
                ),
                (
                    "/spec/template/spec/restartPolicy",
                    json!("Never"),
                    &[
                        "spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                    ],
                ),
                (
                    "/spec/template/spec/activeDeadlineSeconds",
                    json!(5),
                    &[
                        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in StatefulSet is not Supported",
                    ],
                ),
                (
                    "/spec/volumeClaimTemplates",
                    json!([{"metadata": {"name": "v"}, "spec": {}}]),
                    &[
                        "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
                        "spec.volumeClaimTemplates[0].spec.resources[storage]: Required value",
                    ],
                ),
                (
                    "/spec/volumeClaimTemplates",
                    json!([{"metadata": {"name": "v"}, "spec": {"accessModes": ["ReadWriteOnce", "ReadWriteOncePod", "X"],
                        "volumeMode": "Y", "storageClassName": "A_", "resources": {"requests": {"storage": "0"}}}}]),
                    &[
                        "spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
                        "spec.volumeClaimTemplates[0].spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
                        "spec.volumeClaimTemplates[0].spec.resources[storage]: Invalid value: \"0\": must be greater than zero",
                        "spec.volumeClaimTemplates[0].spec.storageClassName: Invalid value: \"A_\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
                        "spec.volumeClaimTemplates[0].spec.volumeMode: Unsupported value: \"Y\": supported values: \"Block\", \"Filesystem\"",
                    ],
                ),
                // The controller sets it.
                ("/spec/template/spec/hostname", json!("A_"), &[]),
                (
                    "/spec/template",
                    Value::Null,
                    &[
                        "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`",
                        "spec.template.spec.containers: Required value",
                    ],
                ),
            ],
        );
    }

    #[test]
    fn a_container_mounts_what_its_pod_will_claim() {
        let claims = json!([{"metadata": {"name": "data"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}]);
        let mounts = json!([{"name": "data", "mountPath": "/data"}]);
        let set = told::with(
            &set(),
            "/spec/template/spec/containers/0/volumeMounts",
            mounts,
        );
        assert_eq!(
            told::of_new(&STATEFUL_SET, &set),
            ["spec.template.spec.containers[0].volumeMounts[0].name: Not found: \"data\""]
        );
        let set = told::with(&set, "/spec/volumeClaimTemplates", claims);
        assert_eq!(told::of_new(&STATEFUL_SET, &set), [""; 0]);
    }

    #[test]
    fn what_names_its_pods_stays() {
        let old = set();
        for (pointer, value, expected) in [
            ("/spec/replicas", json!(4), vec![]),
            (
                "/spec/template/spec/containers/0/image",
                json!("shop/db:2"),
                vec![],
            ),
            (
                "/spec/serviceName",
                json!("other"),
                vec!["spec.serviceName: Invalid value: \"other\": field is immutable"],
            ),
            (
                "/spec/podManagementPolicy",
                json!("Parallel"),
                vec!["spec.podManagementPolicy: Invalid value: \"Parallel\": field is immutable"],
            ),
            (
                "/spec/selector",
                json!({"matchLabels": {"c": "d"}}),
                vec![
                    "spec.template.metadata.labels: Invalid value: {\"app\":\"db\"}: `selector` does not match template `labels`",
                    "spec.selector: Invalid value: {\"matchLabels\":{\"c\":\"d\"}}: field is immutable",
                ],
            ),
        ] {
            let new = told::with(&old, pointer, value);
            assert_eq!(told::of_update(&STATEFUL_SET, &new, &old, None), expected);
        }
        let status = json!({"replicas": 1, "readyReplicas": 2, "availableReplicas": 3, "collisionCount": -1});
        let reported = told::with(&old, "/status", status);
        assert_eq!(
            told::of_update(&STATEFUL_SET, &reported, &old, Some(Subresource::Status)),
            [
                "status.collisionCount: Invalid value: -1: must be greater than or equal to 0",
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.readyReplicas",
            ]
        );
    }

    #[test]
    fn a_row_counts_what_is_ready() {
        assert_eq!(
            shapes(&STATEFUL_SET),
            [
                "Name: string/name",
                "Ready: string",
                "Age: string",
                "Containers: string wide",
                "Images: string wide",
            ]
        );
        let mut set = told::with(&set(), "/status", json!({"readyReplicas": 1}));
        set["spec"]["replicas"] = 3.into();
        assert_eq!(
            cells(&STATEFUL_SET, &set),
            ["db", "1/3", "10s", "c", "shop/db:1"]
        );
    }
}
