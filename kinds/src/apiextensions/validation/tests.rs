//! One change of a sound definition for each rule, and what is told of it.

use super::*;
use crate::CUSTOM_RESOURCE_DEFINITION as KIND;
use crate::validate::told::{check, of_new, of_update, with};

fn base() -> Value {
    json!({
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": {
                "type": "object", "properties": { "spec": { "type": "object", "properties": { "size": { "type": "integer" } } } },
            } } }],
        },
    })
}

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

#[test]
fn names_versions_and_parts_are_held_to_the_rules() {
    check(
        &KIND,
        &base(),
        &[
            (
                "/metadata/name",
                json!("widgets.other.com"),
                &[
                    "metadata.name: Invalid value: \"widgets.other.com\": must be spec.names.plural+\".\"+spec.group",
                ],
            ),
            (
                "/spec/scope",
                json!("Global"),
                &[
                    "spec.scope: Unsupported value: \"Global\": supported values: \"Cluster\", \"Namespaced\"",
                ],
            ),
            ("/spec/scope", json!(""), &["spec.scope: Required value"]),
            (
                "/spec/versions/0/storage",
                json!(false),
                &[
                    "spec.versions: Invalid value: [{\"name\":\"v1\",\"schema\":{\"openAPIV3Schema\":{\"properties\":{\"spec\":{\"properties\":{\"size\":{\"type\":\"integer\"}},\"type\":\"object\"}},\"type\":\"object\"}},\"served\":true,\"storage\":false}]: must have exactly one version marked as storage version",
                    "status.storedVersions: Invalid value: null: must have at least one stored version",
                ],
            ),
            (
                "/spec/versions/0/name",
                json!("V1"),
                &[
                    "spec.versions[0].name: Invalid value: \"V1\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                ],
            ),
            (
                "/spec/versions/0/schema",
                Value::Null,
                &["spec.versions[0].schema.openAPIV3Schema: Required value"],
            ),
            (
                "/spec/names/listKind",
                json!("Widget"),
                &[
                    "spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same",
                ],
            ),
            (
                "/spec/versions/0/deprecationWarning",
                json!("old"),
                &[
                    "spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions",
                ],
            ),
            (
                "/spec/versions/0/additionalPrinterColumns",
                json!([{ "name": "A", "type": "int", "jsonPath": "spec.a", "format": "x" }, { "type": "string" }]),
                &[
                    "spec.additionalPrinterColumns[0].type: Invalid value: \"int\": must be one of boolean,date,integer,number,string",
                    "spec.additionalPrinterColumns[0].format: Invalid value: \"x\": must be one of byte,date,date-time,double,float,int32,int64,password",
                    "spec.additionalPrinterColumns[0].JSONPath: Invalid value: \"spec.a\": must be a simple json path starting with .",
                    "spec.additionalPrinterColumns[1].name: Required value",
                    "spec.additionalPrinterColumns[1].JSONPath: Required value",
                ],
            ),
            (
                "/spec/versions/0/subresources",
                json!({ "scale": { "specReplicasPath": ".status.a", "labelSelectorPath": ".metadata.x" } }),
                &[
                    "spec.subresources.scale.specReplicasPath: Invalid value: \".status.a\": should be a json path under .spec",
                    "spec.subresources.scale.statusReplicasPath: Required value",
                    "spec.subresources.scale.labelSelectorPath: Invalid value: \".metadata.x\": should be a json path under either .spec or .status",
                ],
            ),
            (
                "/spec/versions/0/selectableFields",
                json!([{ "jsonPath": ".spec.size" }, { "jsonPath": ".spec.size" }, { "jsonPath": ".spec" }, { "jsonPath": ".spec.none" }, { "jsonPath": ".spec['a']" }, {}]),
                &[
                    "spec.selectableFields[1].jsonPath: Duplicate value: \".spec.size\"",
                    "spec.selectableFields[2].jsonPath: Invalid value: \".spec\": must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
                    "spec.selectableFields[3].jsonPath: Invalid value: \".spec.none\": is an invalid path: does not refer to a valid field",
                    "spec.selectableFields[4].jsonPath: Invalid value: \".spec['a']\": is an invalid path: array notation is not allowed",
                    "spec.selectableFields[5].jsonPath: Required value",
                ],
            ),
            (
                "/spec/preserveUnknownFields",
                json!(true),
                &[
                    "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead",
                ],
            ),
            (
                "/spec/conversion",
                json!({ "strategy": "Webhook" }),
                &[
                    "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
                    "spec.conversion.conversionReviewVersions: Required value",
                ],
            ),
            (
                "/spec/conversion",
                json!({ "strategy": "Webhook", "webhook": { "clientConfig": { "url": "http://u@h?x" }, "conversionReviewVersions": ["v2", "v2"] } }),
                &[
                    "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                    "spec.conversion.webhookClientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
                    "spec.conversion.webhookClientConfig.url: Invalid value: \"x\": query parameters are not permitted in the URL",
                    "spec.conversion.conversionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                    "spec.conversion.conversionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            (
                "/spec/conversion",
                json!({ "strategy": "None", "webhook": { "clientConfig": { "url": "https://h" }, "conversionReviewVersions": ["v1"] } }),
                &[
                    "spec.conversion.webhookClientConfig: Forbidden: should not be set when strategy is not set to Webhook",
                    "spec.conversion.conversionReviewVersions: Forbidden: should not be set when strategy is not set to Webhook",
                ],
            ),
        ],
    );
}

#[test]
fn schemas_are_judged_where_upstream_judges_them() {
    let path = |below: &str| format!("{SCHEMA}{below}");
    let told = |below: &str, value: Value| of_new(&KIND, &with(&base(), &path(below), value));
    for (below, value, expected) in [
        (
            "/type",
            json!("string"),
            &[
                "spec.validation.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root",
            ][..],
        ),
        (
            "/nullable",
            json!(true),
            &[
                "spec.validation.openAPIV3Schema.nullable: Forbidden: nullable cannot be true at the root",
            ],
        ),
        (
            "/properties/spec/properties/size/type",
            json!("int"),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].type: Unsupported value: \"int\": supported values: \"array\", \"boolean\", \"integer\", \"number\", \"object\", \"string\"",
            ],
        ),
        (
            "/properties/spec/properties/size",
            json!({ "type": "integer", "default": "x" }),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].properties[size].default: Invalid value: \"string\":  in body must be of type integer: \"string\"",
            ],
        ),
        (
            "/properties/spec/default",
            json!({ "sizes": 1 }),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].default: Invalid value: {\"sizes\":1}: must not have unknown fields",
            ],
        ),
        (
            "/properties/metadata",
            json!({ "type": "object", "default": {} }),
            &[
                "spec.validation.openAPIV3Schema.properties[metadata].default: Forbidden: must not be set in top-level metadata",
            ],
        ),
        (
            "/properties/spec/additionalProperties",
            json!({ "type": "string" }),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive",
            ],
        ),
        (
            "/properties/list",
            json!({ "type": "array", "x-kubernetes-list-type": "map", "items": { "type": "object", "properties": { "a": { "type": "string" } } }, "x-kubernetes-list-map-keys": ["a", "b"] }),
            &[
                "spec.validation.openAPIV3Schema.properties[list].x-kubernetes-list-map-keys: Invalid value: [\"a\",\"b\"]: entries must all be names of item properties",
                "spec.validation.openAPIV3Schema.properties[list].items.properties[a].default: Required value: this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
            ],
        ),
        (
            "/properties/list",
            json!({ "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "object", "nullable": true } }),
            &[
                "spec.validation.openAPIV3Schema.properties[list].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set",
                "spec.validation.openAPIV3Schema.properties[list].items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is set",
            ],
        ),
        (
            "/properties/spec/uniqueItems",
            json!(true),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ],
        ),
        (
            "/properties/spec/$ref",
            json!("#/x"),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].$ref: Forbidden: $ref is not supported",
            ],
        ),
        (
            "/properties/spec/x-kubernetes-validations",
            json!([{ "rule": "self.size > 0" }, { "rule": "self.nothing > 0" }]),
            &[
                "spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[1].rule: Invalid value: \"self.nothing > 0\": compilation failed: ERROR: <input>:1:5: undefined field 'nothing'\n | self.nothing > 0\n | ....^",
            ],
        ),
        (
            "/properties/list",
            json!({ "type": "array", "items": { "type": "array", "items": { "type": "string", "x-kubernetes-validations": [{ "rule": "self.matches('a.*b')" }] } } }),
            &[
                "spec.validation.openAPIV3Schema.properties[list].items.items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)",
            ],
        ),
    ] {
        let found = told(below, value.clone());
        let found: Vec<&str> = found
            .iter()
            .map(String::as_str)
            .take(expected.len().max(1))
            .collect();
        assert_eq!(found, expected, "{below} = {value}");
    }
    // Where versions differ, each is told of at its own place; what all have alike is told of above them.
    let mut two = base();
    let mut other = two["spec"]["versions"][0].clone();
    other["name"] = "v2".into();
    other["storage"] = false.into();
    other["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = "".into();
    let versions = two["spec"]["versions"].as_array_mut().unwrap();
    versions.push(other);
    assert_eq!(
        of_new(&KIND, &two),
        [
            "spec.versions[1].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields"
        ]
    );
}

#[test]
fn what_objects_depend_on_stays() {
    let old = with(
        &base(),
        "/status",
        json!({
            "storedVersions": ["v1"], "conditions": [{ "type": "Established", "status": "True" }],
        }),
    );
    let told = |pointer: &str, value: Value| {
        let new = with(&old, pointer, value);
        of_update(&KIND, &new, &old, None)
    };
    assert_eq!(told("/metadata/labels", json!({ "a": "b" })), [""; 0]);
    assert_eq!(
        told("/spec/scope", json!("Cluster")),
        ["spec.scope: Invalid value: \"Cluster\": field is immutable"]
    );
    assert_eq!(
        told("/spec/names/kind", json!("Gadget")),
        ["spec.names.kind: Invalid value: \"Gadget\": field is immutable"]
    );
    let renamed = told("/spec/versions/0/name", json!("v2"));
    assert_eq!(
        renamed,
        [
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions"
        ]
    );
}

#[test]
fn groups_of_kubernetes_need_approval() {
    let mut definition = base();
    definition["metadata"]["name"] = "widgets.x.k8s.io".into();
    definition["spec"]["group"] = "x.k8s.io".into();
    assert_eq!(
        of_new(&KIND, &definition),
        [
            "metadata.annotations[api-approved.kubernetes.io]: Required value: protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111"
        ]
    );
    let annotated = |text: &str| {
        let annotations = json!({ "api-approved.kubernetes.io": text });
        of_new(
            &KIND,
            &with(&definition, "/metadata/annotations", annotations),
        )
    };
    assert_eq!(
        annotated("https://github.com/kubernetes/enhancements/pull/1"),
        [""; 0]
    );
    assert_eq!(annotated("unapproved, for a test"), [""; 0]);
    assert!(annotated("yes")[0].contains("with either a URL or a reason"));
    assert!(is_protected("k8s.io") && is_protected("a.kubernetes.io"));
    assert!(!is_protected("ak8s.io") && !is_protected("k8s.io.example.com"));
}
