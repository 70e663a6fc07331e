//! Vectors, and what is refused.

use serde_json::json;

use super::*;

/// Writes what Go writes: numbers as varints, everything else with its length.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn number(mut self, tag: u32, number: i64) -> Self {
        self.varint(u64::from(tag) << 3);
        self.varint(number.cast_unsigned());
        self
    }

    fn bytes(mut self, tag: u32, bytes: &[u8]) -> Self {
        self.varint(u64::from(tag) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    fn text(self, tag: u32, text: &str) -> Self {
        self.bytes(tag, text.as_bytes())
    }

    fn message(self, tag: u32, message: Message) -> Self {
        self.bytes(tag, &message.0)
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number & 0x7f) as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn enveloped(self, api_version: &str, kind: &str) -> Vec<u8> {
        let type_meta = message().text(1, api_version).text(2, kind);
        let envelope = message()
            .message(1, type_meta)
            .bytes(2, &self.0)
            .text(3, "")
            .text(4, "");
        [MAGIC, &envelope.0].concat()
    }
}

fn message() -> Message {
    Message::default()
}

#[test]
fn a_config_map_as_kubectl_sends_it() {
    let metadata = message()
        .text(1, "settings")
        .text(2, "")
        .text(3, "shop")
        .text(4, "")
        .text(5, "")
        .text(6, "")
        .number(7, 0)
        .message(8, message())
        .message(11, message().text(1, "tier").text(2, "front"));
    let body = message()
        .message(1, metadata)
        .message(2, message().text(1, "colour").text(2, "blue"))
        .message(2, message().text(1, "empty"))
        .message(3, message().text(1, "logo").bytes(2, &[0xff, 0x00]))
        .enveloped("v1", "ConfigMap");
    let decoded = decode(&body).unwrap();
    assert_eq!(
        decoded.value,
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "shop", "labels": {"tier": "front"}},
            "data": {"colour": "blue", "empty": ""},
            "binaryData": {"logo": "/wA="},
        })
    );
    assert_eq!(decoded.unknown, [""; 0]);
}

#[test]
fn a_deployment_keeps_the_zeros_that_say_something() {
    let probe = message()
        .message(
            1,
            message().message(
                2,
                message()
                    .text(1, "/ready")
                    .message(2, message().number(1, 1).number(2, 0).text(3, "http")),
            ),
        )
        .number(2, 0)
        .number(3, 2);
    let container = message()
        .text(1, "web")
        .text(2, "shop/web:1")
        .text(5, "")
        .message(
            6,
            message()
                .text(1, "http")
                .number(2, 0)
                .number(3, 80)
                .text(4, "TCP")
                .text(5, ""),
        )
        .message(
            8,
            message().message(
                1,
                message()
                    .text(1, "cpu")
                    .message(2, message().text(1, "250m")),
            ),
        )
        .message(11, probe)
        .message(15, message().number(2, 0))
        .number(16, 0);
    let pod = message()
        .message(
            1,
            message()
                .text(1, "tmp")
                .message(2, message().message(2, message())),
        )
        .message(2, container)
        .number(4, 0)
        .number(11, 0);
    let surge = message().number(1, 0).number(2, 0).text(3, "");
    let share = message().number(1, 1).number(2, 0).text(3, "25%");
    let spec = message()
        .number(1, 0)
        .message(3, message().message(1, message()).message(2, pod))
        .message(
            4,
            message()
                .text(1, "RollingUpdate")
                .message(2, message().message(1, share).message(2, surge)),
        )
        .number(5, 0)
        .number(7, 0);
    let body = message()
        .message(2, spec)
        .enveloped("apps/v1", "Deployment");
    assert_eq!(
        decode(&body).unwrap().value,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {}, "status": {},
            "spec": {
                "replicas": 0,
                "selector": null,
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": 0},
                },
                "template": {
                    "metadata": {},
                    "spec": {
                        "volumes": [{"name": "tmp", "emptyDir": {}}],
                        "terminationGracePeriodSeconds": 0,
                        "containers": [{
                            "name": "web", "image": "shop/web:1",
                            "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}],
                            "resources": {"limits": {"cpu": "250m"}},
                            "readinessProbe": {
                                "httpGet": {"path": "/ready", "port": "http"},
                                "timeoutSeconds": 2,
                            },
                            "securityContext": {"privileged": false},
                        }],
                    },
                },
            },
        })
    );
}

#[test]
fn times_negative_numbers_and_lists_in_maps() {
    let lease = message()
        .message(1, message().text(1, "l"))
        .message(
            2,
            message()
                .text(1, "")
                .number(2, -1)
                .message(3, message().number(1, 1_700_000_000).number(2, 5_000)),
        )
        .enveloped("coordination.k8s.io/v1", "Lease");
    assert_eq!(
        decode(&lease).unwrap().value["spec"],
        json!({
            "holderIdentity": "", "leaseDurationSeconds": -1,
            "acquireTime": "2023-11-14T22:13:20.000005Z",
        })
    );
    let extra = message()
        .text(1, "scopes")
        .message(2, message().text(1, "a").text(1, "b"));
    let review = message()
        .message(2, message().text(3, "jane").message(5, extra))
        .enveloped("authorization.k8s.io/v1", "SubjectAccessReview");
    assert_eq!(
        decode(&review).unwrap().value["spec"],
        json!({"user": "jane", "extra": {"scopes": ["a", "b"]}})
    );
    let options = message().number(1, 0).enveloped("apps/v1", "DeleteOptions");
    assert_eq!(
        decode(&options).unwrap().value["gracePeriodSeconds"],
        json!(0)
    );
}

#[test]
fn a_field_of_a_newer_version_is_named_unless_it_is_zero() {
    let pod = message()
        .message(
            2,
            message()
                .message(2, message().text(1, "a").number(97, 0).text(98, "x"))
                .number(99, 1),
        )
        .enveloped("v1", "Pod");
    assert_eq!(
        decode(&pod).unwrap().unknown,
        ["spec.containers[0].#98", "spec.#99"]
    );
}

#[test]
fn broken_bodies_are_refused_and_never_panic() {
    let whole = message()
        .message(1, message().text(1, "a"))
        .message(2, message().text(1, "k").text(2, "v"))
        .enveloped("v1", "ConfigMap");
    assert!(decode(&whole).is_ok());
    for length in 0..whole.len() {
        // Cut anywhere: an error, or the shorter object it happens to be.
        let _ = decode(&whole[..length]);
        for byte in [0x00, 0x7f, 0x80, 0xff] {
            let mut changed = whole.clone();
            changed[length] = byte;
            let _ = decode(&changed);
        }
    }
    for (body, error) in [
        (&b"{}"[..], DecodeError::NoEnvelope),
        (b"k8s\0\x0a", DecodeError::Truncated),
        (
            &message().enveloped("v1", "Thing"),
            DecodeError::UnknownKind {
                api_version: "v1".to_owned(),
                kind: "Thing".to_owned(),
            },
        ),
        (
            &message().number(1, 3).enveloped("v1", "ConfigMap"),
            DecodeError::WireType("metadata".to_owned()),
        ),
        (
            &message()
                .message(2, message().text(1, "k").bytes(2, &[0xff]))
                .enveloped("v1", "ConfigMap"),
            DecodeError::NotText("data".to_owned()),
        ),
    ] {
        assert_eq!(decode(body).unwrap_err(), error);
    }
}

#[test]
fn schemas_of_custom_kinds_come_back_as_they_were() {
    let definition = |schema: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "things.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "things", "kind": "Thing"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        })
    };
    let schema = json!({
        "$schema": "http://json-schema.org/schema#", "$ref": "r", "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "flag": {"additionalProperties": false},
            "free": {"additionalProperties": true},
            "map": {"additionalProperties": {"type": "string"}},
            "one": {"items": {"type": "integer"}},
            "many": {"items": [{"type": "integer"}, {"type": "string"}]},
            "numbers": {"maximum": 1.5, "minimum": 0, "multipleOf": -2, "exclusiveMaximum": true, "maxLength": 0},
            "values": {"default": {"a": [1, null, "x"]}, "enum": [1, "a", null, {"b": true}], "example": false},
            "needs": {"dependencies": {"a": ["b", "c"], "d": {"required": ["e"]}}},
            "rules": {"x-kubernetes-validations": [{"rule": "self > 1", "optionalOldSelf": false}]},
        },
    });
    let sent = definition(schema.clone());
    let read = decode(&encode(&sent).unwrap()).unwrap();
    assert_eq!(read.unknown, [""; 0]);
    let path = "/spec/versions/0/schema/openAPIV3Schema";
    assert_eq!(read.value.pointer(path), Some(&schema));

    // As deep as any is, and not deeper than anybody can read.
    let nested = |levels: usize| {
        let innermost = json!({"type": "string"});
        (0..levels).fold(innermost, |inner, _| json!({"properties": {"p": inner}}))
    };
    let deep = encode(&definition(nested(40))).unwrap();
    assert_eq!(
        decode(&deep).unwrap().value.pointer(path),
        Some(&nested(40))
    );
    let deeper = encode(&definition(nested(80))).unwrap();
    assert_eq!(decode(&deeper).unwrap_err(), DecodeError::TooDeep);
    // A number in the place of a schema, and one that is none.
    let odd = encode(&definition(json!({"items": 3})));
    assert!(matches!(odd, Err(EncodeError::Shape(field)) if field.ends_with("items")));
}

#[test]
fn an_api_service_as_client_go_sends_it() {
    let service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.example.com"},
        "spec": {
            "service": {"namespace": "n", "name": "s", "port": 443},
            "group": "example.com", "version": "v1", "insecureSkipTLSVerify": true,
            "groupPriorityMinimum": 100, "versionPriority": 10,
        },
        "status": {},
    });
    assert_eq!(decode(&encode(&service).unwrap()).unwrap().value, service);
}

/// Verbs stood in the list itself, and clients that read discovery in protobuf found a broken message.
#[test]
fn the_verbs_of_a_resource_are_a_message_of_their_own() {
    let list = json!({
        "apiVersion": "v1", "kind": "APIResourceList", "groupVersion": "v1",
        "resources": [{
            "name": "pods", "singularName": "pod", "namespaced": true, "kind": "Pod", "verbs": ["get", "list"],
        }],
    });
    let written = encode(&list).unwrap();
    let verbs = message()
        .message(4, message().text(1, "get").text(1, "list"))
        .0;
    let found = written.windows(verbs.len()).any(|part| part == verbs);
    assert!(found, "{written:?}");
    assert_eq!(decode(&written).unwrap().value, list);
}
