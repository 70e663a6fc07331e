//! What is read of a body, what is told of it, and in which words.

use serde_json::json;

use super::*;

fn gvk(group: &str, kind: &str) -> GroupVersionKind {
    GroupVersionKind::new(group, "v1", kind)
}

fn read(group: &str, kind: &str, value: Value) -> Decoded {
    let decoded = self::value(&gvk(group, kind), &value).unwrap();
    let again = self::value(&gvk(group, kind), &decoded.value).unwrap();
    if let Reading::Typed(schema) = gvk(group, kind).reading() {
        assert!(typed::is_read(schema, &decoded.value), "{}", decoded.value);
    }
    assert_eq!(
        (again.value, again.faults),
        (decoded.value.clone(), Vec::new())
    );
    decoded
}

fn fault(group: &str, kind: &str, value: Value) -> String {
    self::value(&gvk(group, kind), &value)
        .unwrap_err()
        .to_string()
}

#[test]
fn unknown_fields_are_told_by_path_and_dropped() {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": "web", "labels": { "any.key/x": "y" }, "colour": "red" },
        "spec": { "replcas": 1, "template": { "spec": {
            "nodeSelector": { "free": "yes" },
            "containers": [{ "name": "a", "resources": { "limits": { "cpu": 1, "weft.dev/x": "2" } } }, { "foo": 1, "env": [{ "nam": 1 }] }],
        } } },
    });
    let decoded = read("apps", "Deployment", deployment);
    assert_eq!(
        decoded.faults,
        [
            "unknown field \"metadata.colour\"",
            "unknown field \"spec.replcas\"",
            "unknown field \"spec.template.spec.containers[1].env[0].nam\"",
            "unknown field \"spec.template.spec.containers[1].foo\"",
        ]
    );
    assert_eq!(
        decoded.value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": "web", "labels": { "any.key/x": "y" } },
            "spec": { "selector": null, "strategy": {}, "template": { "metadata": {}, "spec": {
                "nodeSelector": { "free": "yes" },
                "containers": [
                    { "name": "a", "resources": { "limits": { "cpu": "1", "weft.dev/x": "2" } } },
                    { "name": "", "env": [{ "name": "" }], "resources": {} },
                ],
            } } },
            "status": {},
        })
    );
    let of_user = Node::parse(
        &json!({ "type": "object", "properties": { "spec": { "type": "object", "properties": {
        "rules": { "type": "array", "items": { "type": "object", "properties": { "path": { "type": "string" } } } },
    } } } }),
    );
    let route =
        json!({ "spec": { "rules": [{ "path": "/", "pat": "/" }] }, "metadata": { "Name": "x" } });
    assert_eq!(
        value(&of_user.unwrap(), &route).unwrap().faults,
        [
            "unknown field \"metadata.Name\"",
            "unknown field \"spec.rules[0].pat\""
        ]
    );
    let unknown_kind = json!({ "x": 1 });
    assert_eq!(
        read("example.com", "Thing", unknown_kind.clone()).value,
        unknown_kind
    );
}

#[test]
fn faults_come_in_the_order_of_the_text() {
    let body = br#"{"spec":{"zz":1,"containers":[{"name":"a","name":"b"}],"aa":2},"metadata":{"name":"x"},"spec":{}}"#;
    assert_eq!(
        text(&gvk("", "Pod"), body).unwrap().faults,
        [
            "unknown field \"spec.zz\"",
            "duplicate field \"spec.containers[0].name\"",
            "unknown field \"spec.aa\"",
            "duplicate field \"spec\"",
        ]
    );
    assert!(matches!(
        text(&gvk("", "Pod"), b"{\"a\":"),
        Err(DecodeError::Syntax(_))
    ));
    assert!(matches!(
        text(&gvk("", "Pod"), b"{}x"),
        Err(DecodeError::Syntax(_))
    ));
    assert_eq!(
        duplicate_fields(br#"{"a":1,"spec":{"x":[{"y":1,"y":2}],"x":3},"a":"z"}"#),
        ["spec.x[0].y", "spec.x", "a"]
    );
    assert_eq!(duplicate_fields(b"{\"a\":1,\"a\":"), ["a"]);
}

#[test]
fn wrong_types_are_told_in_the_decoders_words() {
    for (kind, body, message) in [
        (
            "Deployment",
            json!({ "spec": { "replicas": "3" } }),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            json!({ "spec": { "replicas": 1.5 } }),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            json!({ "spec": { "replicas": 3_000_000_000_u32 } }),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            "Deployment",
            json!({ "spec": { "template": { "spec": { "containers": [{ "env": [{ "value": 1 }] }] } } } }),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            "Deployment",
            json!({ "spec": { "template": { "spec": { "containers": {} } } } }),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            "Deployment",
            json!({ "metadata": { "labels": { "a": true } } }),
            "json: cannot unmarshal bool into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            "Deployment",
            json!({ "spec": [] }),
            "json: cannot unmarshal array into Go struct field Deployment.spec of type v1.DeploymentSpec",
        ),
        (
            "Deployment",
            json!({ "metadata": 5 }),
            "json: cannot unmarshal number into Go struct field Deployment.metadata of type v1.ObjectMeta",
        ),
        (
            "Deployment",
            json!({ "metadata": { "creationTimestamp": "soon" } }),
            "parsing time \"soon\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"soon\" as \"2006\"",
        ),
        (
            "Deployment",
            json!({ "metadata": { "creationTimestamp": 5 } }),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            "Deployment",
            json!({ "spec": { "strategy": { "rollingUpdate": { "maxSurge": 2_147_483_648_u32 } } } }),
            "json: cannot unmarshal number 2147483648 into Go struct field RollingUpdateDeployment.spec.strategy.rollingUpdate.maxSurge of type int32",
        ),
        (
            "Deployment",
            json!({ "spec": { "template": { "spec": { "volumes": [{ "emptyDir": 1 }] } } } }),
            "json: cannot unmarshal number into Go struct field Volume.spec.template.spec.volumes.VolumeSource.emptyDir of type v1.EmptyDirVolumeSource",
        ),
        (
            "Deployment",
            json!({ "spec": { "template": { "spec": { "containers": [{ "resources": { "limits": { "cpu": "x" } } }] } } } }),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ] {
        assert_eq!(fault("apps", kind, body), message);
    }
    assert_eq!(
        fault("", "Secret", json!({ "data": { "a": "!" } })),
        "illegal base64 data at input byte 0"
    );
    assert_eq!(
        fault("", "Secret", json!({ "data": { "a": [300] } })),
        "json: cannot unmarshal number 300 into Go struct field Secret.data of type uint8"
    );
    // The first fault that can be passed is told, unless a later one ends reading.
    let both = json!({ "apiVersion": 1, "metadata": { "creationTimestamp": "soon" } });
    assert!(fault("", "Secret", both).starts_with("parsing time"));
}

#[test]
fn nulls_and_zeros_are_where_go_writes_them() {
    let secret = read(
        "",
        "Secret",
        json!({
            "metadata": { "name": "s", "labels": null, "annotations": { "a": null }, "creationTimestamp": null, "generation": 0, "finalizers": [] },
            "data": { "a": "YWFh\nYWFh\n", "b": [104, 105], "c": null }, "stringData": {}, "immutable": false, "type": "",
        }),
    );
    assert_eq!(
        secret.value,
        json!({
            "metadata": { "name": "s", "annotations": { "a": "" } },
            "data": { "a": "YWFhYWFh", "b": "aGk=", "c": "" }, "immutable": false,
        })
    );
    let service = read(
        "",
        "Service",
        json!({ "spec": { "ports": [{ "port": 80, "nodePort": 0 }, null], "selector": null, "externalName": "" } }),
    );
    assert_eq!(
        service.value,
        json!({ "metadata": {}, "spec": { "ports": [{ "port": 80, "targetPort": 0 }, { "port": 0, "targetPort": 0 }] }, "status": { "loadBalancer": {} } })
    );
    let slice = read(
        "discovery.k8s.io",
        "EndpointSlice",
        json!({ "addressType": "IPv4" }),
    );
    assert_eq!(
        slice.value,
        json!({ "metadata": {}, "addressType": "IPv4", "endpoints": null, "ports": null })
    );
    let pod = read(
        "",
        "Pod",
        json!({ "spec": {
        "affinity": { "nodeAffinity": {} }, "terminationGracePeriodSeconds": 0,
        "containers": [{ "name": "c", "env": null, "readinessProbe": { "initialDelaySeconds": 0, "httpGet": { "port": 80 } }, "volumeMounts": [{ "name": "v", "mountPath": "/v", "subPath": "", "readOnly": false }] }],
    } }),
    );
    assert_eq!(
        pod.value["spec"],
        json!({
            "affinity": { "nodeAffinity": {} }, "terminationGracePeriodSeconds": 0,
            "containers": [{ "name": "c", "resources": {}, "readinessProbe": { "httpGet": { "port": 80 } }, "volumeMounts": [{ "name": "v", "mountPath": "/v" }] }],
        })
    );
}

/// An object, and others that differ from it in one place.
fn all_of_one_change(object: &Value) -> Vec<Value> {
    fn pointers(value: &Value, at: &str, found: &mut Vec<String>) {
        found.push(at.to_owned());
        match value {
            Value::Object(map) => {
                for (name, value) in map {
                    let name = name.replace('~', "~0").replace('/', "~1");
                    pointers(value, &format!("{at}/{name}"), found);
                }
            }
            Value::Array(items) => {
                for (index, value) in items.iter().enumerate() {
                    pointers(value, &format!("{at}/{index}"), found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    pointers(object, "", &mut found);
    let others = [
        json!(null),
        json!(""),
        json!("x"),
        json!("1.50"),
        json!("2026-01-01T00:00:00Z"),
        json!("YQ=="),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(3_000_000_000_u64),
        json!(u64::MAX),
        json!(true),
        json!(false),
        json!([]),
        json!([null]),
        json!([1]),
        json!({}),
        json!({"name": "x"}),
        json!({"x": null}),
        json!({"x": {"y": "z"}}),
    ];
    let mut all = vec![object.clone()];
    for pointer in found {
        for other in &others {
            let mut changed = object.clone();
            *changed.pointer_mut(&pointer).unwrap() = other.clone();
            all.push(changed);
            let mut grown = object.clone();
            if let Some(map) = grown.pointer_mut(&pointer).and_then(Value::as_object_mut) {
                for name in ["name", "status", "unknown", "creationTimestamp"] {
                    map.insert(name.to_owned(), other.clone());
                }
                all.push(grown);
            }
        }
        if let Some((above, name)) = pointer.rsplit_once('/') {
            let mut shrunk = object.clone();
            if let Some(map) = shrunk.pointer_mut(above).and_then(Value::as_object_mut) {
                map.remove(name);
                all.push(shrunk);
            }
        }
    }
    all
}

#[test]
fn what_is_taken_for_read_is_what_reading_it_gives() {
    let metadata = json!({
        "name": "a", "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 3,
        "managedFields": [{"manager": "m", "fieldsV1": {"f:spec": {"k:{\"a\":1}": {}}}, "time": "2026-01-01T00:00:00Z"}],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}],
    });
    let pod = json!({"containers": [{
        "name": "c", "image": "i", "args": ["a"], "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m"}}, "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
    }], "securityContext": {}, "nodeSelector": {"a": "b"}, "tolerations": [{"key": "k", "tolerationSeconds": 300}],
        "volumes": [{"name": "v", "configMap": {"name": "m", "defaultMode": 420}}]});
    let mut known = 0;
    for (group, kind, object) in [
        (
            "",
            "Pod",
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod, "status": {"startTime": "2026-01-01T00:00:00Z"}}),
        ),
        (
            "apps",
            "Deployment",
            json!({"metadata": metadata, "spec": {
                "replicas": 2, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod},
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
            }}),
        ),
        (
            "",
            "Secret",
            json!({"metadata": metadata, "data": {"a": "YQ=="}, "type": "Opaque"}),
        ),
        (
            "",
            "Service",
            json!({"metadata": metadata, "spec": {"ports": [{"port": 80, "targetPort": 8080}]}, "status": {"loadBalancer": {}}}),
        ),
        (
            "discovery.k8s.io",
            "EndpointSlice",
            json!({"metadata": metadata, "addressType": "IPv4", "endpoints": null, "ports": null}),
        ),
        (
            "coordination.k8s.io",
            "Lease",
            json!({"metadata": metadata, "spec": {"renewTime": "2026-01-01T00:00:00.000001Z"}}),
        ),
    ] {
        let kind = gvk(group, kind);
        let Reading::Typed(schema) = kind.reading() else {
            panic!("{kind:?}")
        };
        let canonical = typed::read(schema, &object).unwrap().value;
        assert!(typed::is_read(schema, &canonical), "{canonical}");
        for value in all_of_one_change(&object)
            .into_iter()
            .chain(all_of_one_change(&canonical))
        {
            if typed::is_read(schema, &value) {
                let read = typed::read(schema, &value).unwrap();
                assert_eq!((read.value, read.faults), (value, Vec::new()));
                known += 1;
            }
        }
    }
    assert!(known > 500, "{known} were taken for read");
}

#[test]
fn nothing_deeper_than_the_bound_gets_in() {
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "x": inner }));
    let managed = |levels: usize| json!({ "metadata": { "managedFields": [{ "fieldsV1": nested(levels) }] } });
    assert!(value(&gvk("", "Pod"), &managed(DEPTH_MAX - 5)).is_ok());
    assert_eq!(
        fault("", "Pod", managed(DEPTH_MAX)),
        "exceeded max depth of 100"
    );
    assert_eq!(
        fault("example.com", "Thing", nested(DEPTH_MAX + 1)),
        "exceeded max depth of 100"
    );
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(text(&gvk("", "Pod"), deep.as_bytes()).is_err());
}
