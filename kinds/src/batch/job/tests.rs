//! Each rule of Jobs fires alone; labels are made, what has ended stays so.

use serde_json::{Value, json};

use super::*;
use crate::columns::{cells, shapes};
use crate::strategy::small::Cluster;
use crate::validate::told;

fn job() -> Value {
    json!({
        "metadata": {"name": "sum", "namespace": "n", "uid": "u"},
        "spec": {"template": {
            "metadata": {"labels": {"app": "sum"}},
            "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "shop/sum:1"}]},
        }},
    })
}

/// As it is once the server has made its labels.
fn admitted(job: &Value) -> Value {
    let mut job = job.clone();
    JOB.strategy.default(&mut job);
    JOB.strategy.admit(&mut job, &Cluster::default()).unwrap();
    JOB.strategy.default(&mut job);
    job
}

fn told_of(changes: &[(&str, Value)]) -> Vec<String> {
    let changed = changes.iter().fold(job(), |job, (pointer, value)| {
        told::with(&job, pointer, value.clone())
    });
    told::of_new(&JOB, &admitted(&changed))
}

#[test]
fn the_server_makes_the_labels_that_pods_are_found_by() {
    let job = admitted(&job());
    let labels = json!({
        "app": "sum",
        "batch.kubernetes.io/controller-uid": "u", "controller-uid": "u",
        "batch.kubernetes.io/job-name": "sum", "job-name": "sum",
    });
    assert_eq!(job["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(job["metadata"]["labels"], labels);
    assert_eq!(
        job["spec"]["selector"],
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}})
    );
    let spec = &job["spec"];
    for (field, value) in [
        ("parallelism", json!(1)),
        ("completions", json!(1)),
        ("backoffLimit", json!(6)),
        ("completionMode", json!("NonIndexed")),
        ("suspend", json!(false)),
        ("podReplacementPolicy", json!("TerminatingOrFailed")),
        ("manualSelector", json!(false)),
    ] {
        assert_eq!(spec[field], value, "{field}");
    }
    assert_eq!(admitted(&job), job);
}

#[test]
fn each_rule_is_told_of_by_itself() {
    assert_eq!(told_of(&[]), [""; 0]);
    let not_negative = "must be greater than or equal to 0";
    let matched = json!({"matchLabels": {"app": "sum"}});
    for (changes, expected) in [
        (
            vec![("/spec/parallelism", json!(-1))],
            vec![format!("spec.parallelism: Invalid value: -1: {not_negative}")],
        ),
        (
            vec![("/spec/maxFailedIndexes", json!(-1))],
            vec![
                format!("spec.maxFailedIndexes: Invalid value: -1: {not_negative}"),
                "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified".to_owned(),
                "spec.maxFailedIndexes: Invalid value: -1: requires indexed completion mode".to_owned(),
            ],
        ),
        (
            vec![("/spec/managedBy", json!("x"))],
            vec!["spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path (such as \"acme.io/foo\")".to_owned()],
        ),
        (
            vec![("/spec/managedBy", format!("a.b/{}", "x".repeat(70)).into())],
            vec!["spec.managedBy: Too long: may not be more than 63 bytes".to_owned()],
        ),
        (
            vec![("/spec/completionMode", json!("X"))],
            vec!["spec.completionMode: Unsupported value: \"X\": supported values: \"NonIndexed\", \"Indexed\"".to_owned()],
        ),
        (
            vec![("/spec/completionMode", json!("Indexed")), ("/spec/completions", json!(3)), ("/spec/parallelism", json!(100_001))],
            vec!["spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed".to_owned()],
        ),
        (
            vec![
                ("/spec/completionMode", json!("Indexed")),
                ("/spec/completions", json!(200_000)),
                ("/spec/backoffLimitPerIndex", json!(1)),
                ("/spec/parallelism", json!(20_000)),
            ],
            vec![
                "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000".to_owned(),
                "spec.parallelism: Invalid value: 20000: must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index".to_owned(),
            ],
        ),
        (
            vec![("/spec/podReplacementPolicy", json!("X"))],
            vec!["spec.podReplacementPolicy: Unsupported value: \"X\": supported values: \"Failed\", \"TerminatingOrFailed\"".to_owned()],
        ),
        (
            vec![("/spec/template/spec/restartPolicy", Value::Null)],
            vec!["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"".to_owned()],
        ),
        (
            vec![("/spec/template/spec/restartPolicy", json!("X"))],
            vec![
                "spec.template.spec.restartPolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnFailure\", \"Never\"".to_owned(),
                "spec.template.spec.restartPolicy: Unsupported value: \"X\": supported values: \"OnFailure\", \"Never\"".to_owned(),
            ],
        ),
        (
            vec![("/spec/podFailurePolicy", json!({"rules": []})), ("/spec/template/spec/restartPolicy", json!("OnFailure"))],
            vec!["spec.template.spec.restartPolicy: Invalid value: \"OnFailure\": only \"Never\" is supported when podFailurePolicy is specified".to_owned()],
        ),
        (
            vec![("/spec/selector", matched.clone())],
            vec!["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"sum\",\"batch.kubernetes.io/controller-uid\":\"u\"}}: `selector` not auto-generated".to_owned()],
        ),
        (vec![("/spec/selector", matched), ("/spec/manualSelector", json!(true))], vec![]),
        (
            vec![("/spec/manualSelector", json!(true))],
            vec![
                "spec.selector: Required value".to_owned(),
                "spec.template.metadata.labels: Invalid value: {\"app\":\"sum\"}: `selector` does not match template `labels`".to_owned(),
            ],
        ),
        (
            vec![("/spec/template/metadata/labels", json!({"job-name": "y"}))],
            vec!["spec.template.metadata.labels[job-name]: Invalid value: {\"batch.kubernetes.io/controller-uid\":\"u\",\"batch.kubernetes.io/job-name\":\"sum\",\"controller-uid\":\"u\",\"job-name\":\"y\"}: must be 'sum'".to_owned()],
        ),
        (
            vec![("/spec/completionMode", json!("Indexed")), ("/spec/completions", json!(5)), ("/metadata/name", "a".repeat(62).into())],
            vec![format!("metadata.name: Invalid value: \"{0}\": will not able to create pod with invalid DNS label: {0}-4", "a".repeat(62))],
        ),
    ] {
        assert_eq!(told_of(&changes), expected, "{changes:?}");
    }
}

#[test]
fn policies_of_failure_and_success() {
    let rules = json!([
        {"action": ""},
        {"action": "X", "onExitCodes": {"operator": "In", "values": [0, 5, 3, 3]}},
        {"action": "FailIndex", "onPodConditions": [{"type": "DisruptionTarget"}]},
        {"action": "Count", "onExitCodes": {"containerName": "q", "operator": "X", "values": []},
            "onPodConditions": [{"type": "Ready", "status": "X"}]},
    ]);
    assert_eq!(
        told_of(&[("/spec/podFailurePolicy", json!({"rules": rules}))]),
        [
            "spec.podFailurePolicy.rules[0].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
            "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            "spec.podFailurePolicy.rules[1].action: Unsupported value: \"X\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
            "spec.podFailurePolicy.rules[1].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
            "spec.podFailurePolicy.rules[1].onExitCodes.values[3]: Duplicate value: 3",
            "spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: [0,5,3,3]: must be ordered",
            "spec.podFailurePolicy.rules[2].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
            "spec.podFailurePolicy.rules[3].onExitCodes.operator: Unsupported value: \"X\": supported values: \"In\", \"NotIn\"",
            "spec.podFailurePolicy.rules[3].onExitCodes.containerName: Invalid value: \"q\": must be one of the container or initContainer names in the pod template",
            "spec.podFailurePolicy.rules[3].onExitCodes.values: Invalid value: []: at least one value is required",
            "spec.podFailurePolicy.rules[3].onPodConditions[0].status: Unsupported value: \"X\": supported values: \"False\", \"True\", \"Unknown\"",
            "spec.podFailurePolicy.rules[3]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        ]
    );
    let rules = json!([
        {},
        {"succeededIndexes": "0-9"},
        {"succeededIndexes": "1,2-3", "succeededCount": 4},
        {"succeededCount": 9},
    ]);
    let indexed = ("/spec/completionMode", json!("Indexed"));
    assert_eq!(
        told_of(&[
            indexed,
            ("/spec/completions", json!(5)),
            ("/spec/successPolicy", json!({"rules": rules})),
        ]),
        [
            "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be specified",
            "spec.successPolicy.rules[1].succeededIndexes: Invalid value: \"0-9\": error parsing succeededIndexes: too large index: \"9\"",
            "spec.successPolicy.rules[2].succeededCount: Invalid value: 4: must be less than or equal to 3 (the number of indexes in the specified succeededIndexes field)",
            "spec.successPolicy.rules[3].succeededCount: Invalid value: 9: must be less than or equal to 5 (the number of specified completions)",
        ]
    );
    assert_eq!(
        told_of(&[("/spec/successPolicy", json!({"rules": []}))]),
        ["spec.successPolicy: Invalid value: {\"rules\":[]}: requires indexed completion mode"]
    );
}

#[test]
fn a_job_that_waits_may_be_placed_anew() {
    let running = admitted(&job());
    let waiting = admitted(&told::with(&job(), "/spec/suspend", json!(true)));
    let image = "/spec/template/spec/containers/0/image";
    let limits = "/spec/template/spec/containers/0/resources";
    for (old, pointer, value, expected) in [
        (&running, "/spec/parallelism", json!(5), None),
        (&running, "/spec/suspend", json!(true), None),
        (
            &running,
            "/spec/completions",
            json!(2),
            Some("spec.completions: "),
        ),
        (
            &running,
            "/spec/completionMode",
            json!("Indexed"),
            Some("spec.completionMode: "),
        ),
        (&running, image, json!("z:1"), Some("spec.template: ")),
        (
            &running,
            "/spec/template/spec/nodeSelector",
            json!({"a": "b"}),
            Some("spec.template: "),
        ),
        (
            &waiting,
            "/spec/template/spec/nodeSelector",
            json!({"a": "b"}),
            None,
        ),
        (
            &waiting,
            "/spec/template/metadata/labels/q",
            json!("z"),
            None,
        ),
        (&waiting, limits, json!({"requests": {"cpu": "1"}}), None),
        (
            &waiting,
            "/spec/template/spec/affinity",
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}},
            ]}}),
            None,
        ),
        (&waiting, image, json!("z:1"), Some("spec.template.spec: ")),
    ] {
        let new = told::with(old, pointer, value);
        let told = told::of_update(&JOB, &new, old, None);
        match expected {
            None => assert_eq!(told, [""; 0], "{pointer}"),
            Some(field) => {
                assert_eq!(told.len(), 1, "{pointer}: {told:?}");
                assert!(told[0].starts_with(field), "{told:?}");
                assert!(told[0].ends_with(": field is immutable"), "{told:?}");
            }
        }
    }
    let started = told::with(
        &waiting,
        "/status",
        json!({"startTime": "2026-01-01T00:00:00Z"}),
    );
    let placed = told::with(
        &started,
        "/spec/template/spec/nodeSelector",
        json!({"a": "b"}),
    );
    assert_eq!(told::of_update(&JOB, &placed, &started, None).len(), 1);
}

fn condition(kind: &str) -> Value {
    json!({"type": kind, "status": "True"})
}

#[test]
fn what_is_said_of_how_it_goes_agrees_with_itself() {
    const T1: &str = "2026-01-01T00:00:00Z";
    const T2: &str = "2026-01-02T00:00:00Z";
    let old = admitted(&job());
    for (status, expected) in [
        (
            json!({"active": -1, "ready": 3, "failed": -1}),
            vec![
                "active: Invalid value: -1: must be greater than or equal to 0",
                "failed: Invalid value: -1: must be greater than or equal to 0",
                "ready: Invalid value: 3: cannot set more ready pods than active",
                "failed: Invalid value: -1: cannot decrease the failed counter",
            ],
        ),
        (
            json!({"conditions": [condition("Complete")]}),
            vec![
                "completionTime: Required value: completionTime is required for Complete jobs",
                "conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "startTime: Required value: startTime is required for finished job",
            ],
        ),
        (
            json!({"conditions": [condition("Complete"), condition("Failed")], "completionTime": T1,
                "startTime": T2, "active": 1, "terminating": 1}),
            vec![
                "conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
                "completionTime: Invalid value: \"2026-01-01T00:00:00Z\": must be equal to or after `startTime`",
                "conditions: Invalid value: cannot set Failed=True condition without the FailureTarget=true condition",
                "conditions: Invalid value: cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
                "active: Invalid value: 1: active>0 is invalid for finished job",
                "terminating: Invalid value: 1: terminating>0 is invalid for finished job",
            ],
        ),
        (
            json!({"conditions": [condition("SuccessCriteriaMet"), condition("FailureTarget")],
                "completedIndexes": "0", "failedIndexes": "0"}),
            vec![
                "completedIndexes: Invalid value: \"0\": cannot set non-empty completedIndexes when non-indexed completion mode",
                "failedIndexes: Invalid value: \"0\": cannot set non-null failedIndexes when backoffLimitPerIndex is null",
                "failedIndexes: Invalid value: \"0\": failedIndexes and completedIndexes overlap at index: 0",
                "conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true conditions",
            ],
        ),
        (
            json!({"completionTime": T1, "uncountedTerminatedPods": {"succeeded": ["a", "", "a"], "failed": ["a"]}}),
            vec![
                "uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
                "uncountedTerminatedPods.succeeded[2]: Duplicate value: \"a\"",
                "uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
                "completionTime: Invalid value: \"2026-01-01T00:00:00Z\": cannot set completionTime when there is no Complete=True condition",
            ],
        ),
        (
            json!({"conditions": [condition("SuccessCriteriaMet"), condition("Complete")], "completionTime": T1,
                "startTime": T1, "succeeded": 1, "uncountedTerminatedPods": {"succeeded": ["a"]}}),
            vec![
                "uncountedTerminatedPods: Invalid value: {\"Succeeded\":[\"a\"],\"Failed\":null}: must be empty for finished job",
            ],
        ),
    ] {
        let new = told::with(&old, "/status", status.clone());
        let told = told::of_update(&JOB, &new, &old, Some(Subresource::Status));
        let told: Vec<&str> = told
            .iter()
            .map(|line| line.strip_prefix("status.").unwrap())
            .collect();
        assert_eq!(told, expected, "{status}");
    }
}

#[test]
fn what_has_ended_stays_so() {
    let ended = json!({"conditions": [condition("FailureTarget"), condition("Failed")],
        "startTime": "2026-01-01T00:00:00Z", "failed": 1});
    let old = told::with(&admitted(&job()), "/status", ended);
    let again = told::with(
        &old,
        "/status",
        json!({"startTime": "2026-01-02T00:00:00Z"}),
    );
    assert_eq!(
        told::of_update(&JOB, &again, &old, Some(Subresource::Status)),
        [
            "status.conditions: Invalid value: cannot disable the terminal Failed=True condition",
            "status.conditions: Invalid value: cannot disable the terminal FailureTarget=True condition",
            "status.failed: Invalid value: 0: cannot decrease the failed counter",
            "status.startTime: Invalid value: \"2026-01-02T00:00:00Z\": field is immutable for unsuspended job once set",
        ]
    );
}

#[test]
fn a_row_tells_how_far_it_is() {
    assert_eq!(
        shapes(&JOB)[..5],
        [
            "Name: string/name",
            "Status: string",
            "Completions: string",
            "Duration: string",
            "Age: string",
        ]
    );
    let whole = admitted(&job());
    for (status, spec, expected) in [
        (json!({}), json!({"completions": 3}), ["Running", "0/3", ""]),
        (
            json!({"startTime": "2026-01-01T00:00:05Z", "succeeded": 1}),
            json!({"completions": null, "parallelism": 4}),
            ["Running", "1/1 of 4", "5s"],
        ),
        (
            json!({"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:02:00Z", "succeeded": 1,
                "conditions": [condition("SuccessCriteriaMet"), condition("Complete")]}),
            json!({"completions": null}),
            ["Complete", "1/1", "2m"],
        ),
        (
            json!({"conditions": [condition("Suspended")]}),
            json!({"completions": 1}),
            ["Suspended", "0/1", ""],
        ),
    ] {
        let mut job = told::with(&whole, "/status", status);
        for (field, value) in spec.as_object().unwrap() {
            job["spec"][field] = value.clone();
        }
        assert_eq!(cells(&JOB, &job)[1..4], expected);
    }
    assert_eq!(
        cells(&JOB, &whole)[5..],
        ["c", "shop/sum:1", "batch.kubernetes.io/controller-uid=u"]
    );
}
