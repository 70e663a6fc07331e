//! Each rule fires, and only it; texts and order are those of kube-apiserver 1.37.

use serde_json::{Value, json};

use crate::validate::told;
use crate::{POD, Subresource};

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "default"},
        "spec": {
            "containers": [{"name": "c", "image": "shop/web:1", "ports": [{"containerPort": 80}]}],
            "serviceAccountName": "default",
        },
    })
}

#[test]
fn containers() {
    told::check(
        &POD,
        &pod(),
        &[
            (
                "/spec/containers",
                json!([]),
                &["spec.containers: Required value"],
            ),
            (
                "/spec/containers/0/name",
                json!(""),
                &["spec.containers[0].name: Required value"],
            ),
            (
                "/spec/containers/0/name",
                json!("A"),
                &[
                    "spec.containers[0].name: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                "/spec/containers/0/image",
                json!(""),
                &["spec.containers[0].image: Required value"],
            ),
            (
                "/spec/containers/0/image",
                json!(" a"),
                &[
                    "spec.containers[0].image: Invalid value: \" a\": must not have leading or trailing whitespace",
                ],
            ),
            (
                "/spec/containers/0/imagePullPolicy",
                json!("Often"),
                &[
                    "spec.containers[0].imagePullPolicy: Unsupported value: \"Often\": supported values: \"Always\", \"IfNotPresent\", \"Never\"",
                ],
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                json!(0),
                &["spec.containers[0].ports[0].containerPort: Required value"],
            ),
            (
                "/spec/containers/0/ports/0/containerPort",
                json!(65536),
                &[
                    "spec.containers[0].ports[0].containerPort: Invalid value: 65536: must be between 1 and 65535, inclusive",
                ],
            ),
            (
                "/spec/containers/0/ports/0/protocol",
                json!("tcp"),
                &[
                    "spec.containers[0].ports[0].protocol: Unsupported value: \"tcp\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}, {"name": "B", "valueFrom": {}}]),
                &[
                    "spec.containers[0].env[0].valueFrom: Invalid value: \"\": may not be specified when `value` is not empty",
                    "spec.containers[0].env[1].valueFrom: Invalid value: \"\": must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
                ],
            ),
            (
                "/spec/containers/0/env",
                json!([{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.hostname"}}}]),
                &[
                    "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.hostname\": error converting fieldPath: field label not supported: spec.hostname",
                ],
            ),
            (
                "/spec/containers/0/envFrom",
                json!([{}]),
                &[
                    "spec.containers[0].envFrom: Invalid value: \"\": must specify one of: `configMapRef` or `secretRef`",
                ],
            ),
            (
                "/spec/containers/0/volumeMounts",
                json!([{"name": "v", "mountPath": ""}]),
                &[
                    "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
                    "spec.containers[0].volumeMounts[0].mountPath: Required value",
                ],
            ),
            (
                "/spec/containers/0/resources",
                json!({"requests": {"cpu": "2", "gpu": "1"}, "limits": {"cpu": "1", "memory": "-1"}}),
                &[
                    "spec.containers[0].resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                    "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
                    "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
                    "spec.containers[0].resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
                    "spec.containers[0].resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
                ],
            ),
            (
                "/spec/containers/0/livenessProbe",
                json!({"httpGet": {"port": 0}, "exec": {"command": ["x"]}, "successThreshold": 2, "periodSeconds": -1}),
                &[
                    "spec.containers[0].livenessProbe.httpGet: Forbidden: may not specify more than 1 handler type",
                    "spec.containers[0].livenessProbe.periodSeconds: Invalid value: -1: must be greater than or equal to 0",
                    "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
                ],
            ),
            (
                "/spec/containers/0/readinessProbe",
                json!({}),
                &["spec.containers[0].readinessProbe: Required value: must specify a handler type"],
            ),
            (
                "/spec/containers/0/lifecycle",
                json!({"preStop": {"sleep": {"seconds": 31}}}),
                &[
                    "spec.containers[0].lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than terminationGracePeriodSeconds (30)",
                ],
            ),
            (
                "/spec/initContainers",
                json!([{"name": "c", "image": "i", "livenessProbe": {"exec": {"command": ["x"]}}}]),
                &[
                    "spec.initContainers[0].name: Duplicate value: \"c\"",
                    "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
                ],
            ),
            (
                "/spec/containers/0/securityContext",
                json!({"runAsUser": -1, "seccompProfile": {"type": "Localhost"}}),
                &[
                    "spec.containers[0].securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
                    "spec.containers[0].securityContext.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
                ],
            ),
        ],
    );
}

#[test]
fn volumes() {
    let asks =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let told = |source: Value| {
        let mut volume = json!({"name": "v"});
        let members = source.as_object().unwrap().clone();
        volume.as_object_mut().unwrap().extend(members);
        told::of_new(&POD, &told::with(&pod(), "/spec/volumes", json!([volume])))
    };
    for (source, expected) in [
        (
            json!({"configMap": {}}),
            "spec.volumes[0].configMap.name: Required value",
        ),
        (
            json!({"secret": {"secretName": "s", "defaultMode": 512}}),
            "spec.volumes[0].secret.defaultMode: Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
        ),
        (
            json!({"hostPath": {"path": "/a/../b"}}),
            "spec.volumes[0].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
        ),
        (
            json!({"emptyDir": {}, "configMap": {"name": "x"}}),
            "spec.volumes[0].configMap: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"persistentVolumeClaim": {"claimName": ""}}),
            "spec.volumes[0].persistentVolumeClaim.claimName: Required value",
        ),
        (
            json!({"configMap": {"name": "x", "items": [{"key": "k", "path": "/abs"}]}}),
            "spec.volumes[0].configMap.items[0].path: Invalid value: \"/abs\": must be a relative path",
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "f"}]}}),
            "spec.volumes[0].downwardAPI: Required value: one of fieldRef and resourceFieldRef is required",
        ),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 60}}]}}),
            "spec.volumes[0].projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 60: may not specify a duration less than 10 minutes",
        ),
        (
            json!({"ephemeral": {}}),
            "spec.volumes[0].ephemeral.volumeClaimTemplate: Required value",
        ),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"uid": "u"}, "spec": asks}}}),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.metadata.uID: Forbidden: cannot be set",
        ),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["X"], "resources": asks["resources"]}}}}),
            "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
        ),
    ] {
        assert_eq!(told(source.clone()), [expected], "{source}");
    }
    let ephemeral = json!([
        {"name": "v", "ephemeral": {"volumeClaimTemplate": {"spec": asks}}},
        {"name": "w", "persistentVolumeClaim": {"claimName": "p-v"}},
    ]);
    let mut named = told::with(&pod(), "/spec/volumes", ephemeral);
    named["metadata"]["name"] = "p".into();
    assert_eq!(
        told::of_new(&POD, &named),
        [
            "spec.volumes[1].persistentVolumeClaim.claimName: Invalid value: \"p-v\": must not reference a PVC that gets created for an ephemeral volume"
        ]
    );
    let twice = json!([{"name": "v", "emptyDir": {}}, {"name": "v", "emptyDir": {}}]);
    assert_eq!(
        told::of_new(&POD, &told::with(&pod(), "/spec/volumes", twice)),
        ["spec.volumes[1].name: Duplicate value: \"v\""]
    );
}

/// What was stored and silently not obeyed: a typo in an operator turned anti-affinity off.
#[test]
fn scheduling() {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    told::check(
        &POD,
        &pod(),
        &[
            (
                "/spec/affinity/podAntiAffinity",
                json!({REQUIRED: [{"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "app", "operator": "in", "values": ["x"]}]}}]}),
                &[
                    "spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].operator: Invalid value: \"in\": not a valid selector operator",
                ],
            ),
            (
                "/spec/affinity/podAffinity",
                json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 101, "podAffinityTerm": {"topologyKey": "zone"}}]}),
                &[
                    "spec.affinity.podAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 101: must be in the range 1-100",
                ],
            ),
            (
                "/spec/affinity/nodeAffinity",
                json!({REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Equals", "values": ["a"]}]}]}}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator: Invalid value: \"Equals\": not a valid selector operator",
                ],
            ),
            (
                "/spec/affinity/nodeAffinity",
                json!({REQUIRED: {"nodeSelectorTerms": []}}),
                &[
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Required value: must have at least one node selector term",
                ],
            ),
            (
                "/spec/topologySpreadConstraints",
                json!([{"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "DoNotScedule"}]),
                &[
                    "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0",
                    "spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty",
                    "spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"DoNotScedule\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\"",
                ],
            ),
            (
                "/spec/tolerations",
                json!([{"key": "a", "operator": "Exist"}, {"operator": "Exists", "value": "x"}]),
                &[
                    "spec.tolerations[0].operator: Unsupported value: \"Exist\": supported values: \"Equal\", \"Exists\"",
                    "spec.tolerations[1].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'",
                ],
            ),
        ],
    );
}

#[test]
fn only_some_fields_of_a_pod_change() {
    let old = told::with(&pod(), "/spec/activeDeadlineSeconds", json!(100));
    let bound = told::with(&old, "/spec/nodeName", json!("n"));
    for (pointer, value, expected) in [
        ("/spec/containers/0/image", json!("shop/web:2"), ""),
        ("/spec/activeDeadlineSeconds", json!(99), ""),
        (
            "/spec/activeDeadlineSeconds",
            json!(101),
            "spec.activeDeadlineSeconds: Invalid value: 101: must be less than or equal to previous value",
        ),
        ("/metadata/labels/a", json!("b"), ""),
        (
            "/spec/containers/1",
            json!({"name": "d", "image": "i"}),
            "spec.containers: Forbidden: pod updates may not add or remove containers",
        ),
    ] {
        let new = told::with(&bound, pointer, value.clone());
        let found = told::of_update(&POD, &new, &bound, None).join("; ");
        assert_eq!(found, expected, "{pointer} = {value}");
    }
    let moved = told::with(&bound, "/spec/nodeName", json!("m"));
    let found = told::of_update(&POD, &moved, &bound, None);
    assert!(
        found[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,"),
        "{found:?}"
    );
    assert_eq!(
        told::of_update(&POD, &moved, &bound, Some(Subresource::Binding)),
        [""; 0]
    );
}

/// A rule that came with a release does not keep an object of before from being labelled.
#[test]
fn a_fault_that_is_stored_already_is_not_held_against_an_update() {
    let old = told::with(
        &pod(),
        "/spec/tolerations",
        json!([{"key": "a", "operator": "Exist"}]),
    );
    let labelled = told::with(&old, "/metadata/labels/x", json!("y"));
    assert_eq!(told::of_update(&POD, &labelled, &old, None), [""; 0]);
    let worse = told::with(&labelled, "/metadata/labels/z", json!("-"));
    assert_eq!(told::of_update(&POD, &worse, &old, None).len(), 1);
}
