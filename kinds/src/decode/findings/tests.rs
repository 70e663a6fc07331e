//! What objects break of a schema, told in upstream's sentences.

use serde_json::json;

use super::*;

fn node() -> Node {
    Node::parse(&json!({
        "type": "object", "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object", "required": ["class"],
                "properties": {
                    "class": { "type": "string", "minLength": 1, "maxLength": 5, "pattern": "^[a-z]*$" },
                    "size": { "type": "integer", "minimum": 1, "maximum": 9, "default": 3 },
                    "mode": { "type": "string", "enum": ["A", "B"] },
                    "note": { "type": "string", "nullable": true },
                    "any": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "list": {
                        "type": "array", "minItems": 1, "maxItems": 3, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name", "port"],
                        "items": { "type": "object", "required": ["name"], "properties": {
                            "name": { "type": "string" }, "port": { "type": "integer", "default": 80 },
                        } },
                    },
                },
            },
        },
    }))
    .unwrap()
}

#[test]
fn each_constraint_is_told_in_its_sentence() {
    let node = node();
    let told = |spec: Value| -> Vec<String> {
        let value = json!({ "metadata": {}, "spec": spec });
        validate(Schema::at(&node), &value, None)
            .into_iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect()
    };
    for (spec, expected) in [
        (json!({}), "spec.class: Required value"),
        (
            json!({ "class": "" }),
            "spec.class: Invalid value: \"\": spec.class in body should be at least 1 chars long",
        ),
        (
            json!({ "class": "abcdef" }),
            "spec.class: Too long: may not be more than 5 bytes",
        ),
        (
            json!({ "class": "A" }),
            "spec.class: Invalid value: \"A\": spec.class in body should match '^[a-z]*$'",
        ),
        (
            json!({ "class": 1 }),
            "spec.class: Invalid value: \"integer\": spec.class in body must be of type string: \"integer\"",
        ),
        (
            json!({ "class": null }),
            "spec.class: Invalid value: \"null\": spec.class in body must be of type string: \"null\"",
        ),
        (
            json!({ "class": "a", "size": 0 }),
            "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1",
        ),
        (
            json!({ "class": "a", "size": 10 }),
            "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
        ),
        (
            json!({ "class": "a", "mode": "C" }),
            "spec.mode: Unsupported value: \"C\": supported values: \"A\", \"B\"",
        ),
        (
            json!({ "class": "a", "list": [] }),
            "spec.list: Invalid value: 0: spec.list in body should have at least 1 items",
        ),
        (
            json!({ "class": "a", "list": [{}] }),
            "spec.list[0].name: Required value",
        ),
        (
            json!({ "class": "a", "list": [{ "name": "x", "port": 80 }, { "name": "x" }] }),
            "spec.list[1]: Duplicate value: {\"name\":\"x\",\"port\":80}",
        ),
        (
            json!({ "class": "a", "list": [{ "name": "x", "port": 1 }, { "name": "x", "port": 2 }, { "name": "y" }, { "name": "z" }] }),
            "spec.list: Too many: 4: must have at most 3 items",
        ),
    ] {
        assert_eq!(told(spec.clone()), [expected], "{spec}");
    }
    let both = told(json!({ "class": "a", "mode": ["x"], "list": [7] }));
    assert_eq!(
        both,
        [
            "spec.list[0]: Invalid value: \"integer\": spec.list[0] in body must be of type object: \"integer\"",
            "spec.mode: Invalid value: \"array\": spec.mode in body must be of type string: \"array\"",
            "spec.mode: Unsupported value: [\"x\"]: supported values: \"A\", \"B\"",
            "spec.list[0]: Invalid value: 7: must be an object for an array of list-type map",
        ]
    );
    let empty = json!({ "spec": {} });
    let causes = validate(Schema::at(&node), &empty, None);
    assert!(
        unchecked(&causes)
            .unwrap()
            .message
            .starts_with("Invalid value: null: some validation rules")
    );
    let unfit = json!({ "spec": { "class": "" } });
    let causes = validate(Schema::at(&node), &unfit, None);
    assert_eq!(unchecked(&causes), None);
}

#[test]
fn what_stays_as_it_was_is_not_held_against_an_update() {
    let node = Node::parse(&json!({
        "type": "object", "required": ["top"],
        "properties": { "spec": { "type": "object", "required": ["must"], "minProperties": 2, "properties": {
            "size": { "type": "integer", "maximum": 5 },
            "mode": { "type": "string", "enum": ["A"] },
            "other": { "type": "string", "minLength": 2 },
            "map": { "type": "object", "additionalProperties": { "type": "string", "maxLength": 1 } },
            "list": { "type": "array", "maxItems": 1, "items": { "type": "string", "maxLength": 1 } },
            "keyed": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": { "k": { "type": "string" }, "v": { "type": "integer", "maximum": 5 } },
            } },
            "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
            "any": { "type": "object", "properties": { "a": { "type": "integer" }, "b": { "type": "string" } }, "not": { "properties": { "a": { "minimum": 5 } } } },
        } } },
    }))
    .unwrap();
    let told = |old: Value, new: Value| -> Vec<String> {
        let object = |spec: Value| json!({ "top": 1, "spec": spec });
        let (old, new) = (object(old), object(new));
        let causes = validate(Schema::at(&node), &new, Some(&old));
        causes.into_iter().map(|cause| cause.field).collect()
    };
    let at = |field: &str, value: Value| {
        let mut spec = json!({ "must": 1, "other": "ok" });
        spec[field] = value;
        spec
    };
    for (field, old, new, expected) in [
        ("size", json!(9), json!(9), &[][..]),
        ("size", json!(9), json!(8), &["spec.size"]),
        ("mode", json!("B"), json!("B"), &[]),
        (
            "map",
            json!({ "a": "xx" }),
            json!({ "a": "xx", "b": "y" }),
            &[],
        ),
        (
            "map",
            json!({ "a": "xx" }),
            json!({ "a": "xx", "b": "yy" }),
            &["spec.map.b"],
        ),
        // Elements of other lists are not known again, and the list is another one.
        ("list", json!(["xx"]), json!(["xx"]), &[]),
        (
            "list",
            json!(["xx"]),
            json!(["xx", "y"]),
            &["spec.list", "spec.list[0]"],
        ),
        (
            "keyed",
            json!([{ "k": "a", "v": 9 }]),
            json!([{ "k": "b", "v": 1 }, { "k": "a", "v": 9 }]),
            &[],
        ),
        (
            "keyed",
            json!([{ "k": "a", "v": 9 }]),
            json!([{ "k": "b", "v": 9 }, { "k": "a", "v": 8 }]),
            &["spec.keyed[0].v", "spec.keyed[1].v"],
        ),
        ("set", json!(["a"]), json!(["a", "a"]), &["spec.set[1]"]),
        ("set", json!(["a", "a"]), json!(["a", "a", "b", "b"]), &[]),
        ("any", json!({ "a": 9 }), json!({ "a": 9 }), &[]),
        (
            "any",
            json!({ "a": 9 }),
            json!({ "a": 9, "b": "x" }),
            &["<nil>"],
        ),
    ] {
        let mut new = at(field, new);
        // Something else changes in any case.
        new["other"] = "changed".into();
        assert_eq!(told(at(field, old), new.clone()), expected, "{new}");
    }
    // What is not there, and how much is, is said of what it is in.
    assert_eq!(told(json!({ "size": 1 }), json!({ "size": 1 })), [""; 0]);
    assert_eq!(
        told(json!({ "size": 1 }), json!({ "size": 2 })),
        ["spec", "spec.must"]
    );
    // An object as a whole is never as it was.
    let old = json!({ "spec": { "must": 1, "size": 1 } });
    assert_eq!(validate(Schema::at(&node), &old, Some(&old)).len(), 1);
}

#[test]
fn numbers_are_held_to_their_format() {
    let node = Node::parse(&json!({
        "type": "object", "properties": { "spec": { "type": "object", "properties": {
            "port": { "type": "integer", "format": "int32", "maximum": 65535 },
            "size": { "type": "integer" },
            "at": { "type": "string", "format": "date-time" },
        } } },
    }))
    .unwrap();
    for (spec, expected) in [
        (json!({ "port": 80.0, "size": 2_147_483_648_u64 }), vec![]),
        (
            json!({ "port": 2_147_483_648_u64 }),
            vec![
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.port",
                "spec.port: Invalid value: 2147483648: spec.port in body should be less than or equal to 65535",
            ],
        ),
        (
            json!({ "port": 1.5 }),
            vec![
                "spec.port: Invalid value: \"float64\": spec.port in body must be of type int32: \"float64\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer with format int32 in spec.port",
            ],
        ),
        (
            json!({ "size": 1.5 }),
            vec![
                "spec.size: Invalid value: \"number\": spec.size in body must be of type integer: \"number\"",
                "<nil>: Invalid value: \"\": Checked value must be of type integer (default format) in spec.size",
            ],
        ),
        (
            json!({ "at": true }),
            vec!["spec.at: Invalid value: \"\": spec.at in body must be of type date-time: \"\""],
        ),
    ] {
        let value = json!({ "spec": spec });
        let causes = validate(Schema::at(&node), &value, None);
        let told: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        assert_eq!(told, expected, "{value}");
    }
}

/// Of alternatives that none of is met, the faults of the one that fits best are told; all parts have to be met.
#[test]
fn schemas_that_are_combined_are_judged_as_far_as_they_go() {
    let node = Node::parse(&json!({ "type": "object", "properties": {
        "spec": {
            "type": "object",
            "properties": { "a": { "type": "string" }, "n": { "type": "integer" }, "l": { "type": "array", "items": { "type": "string" } } },
            "oneOf": [{ "required": ["a"] }, { "required": ["n"] }],
            "anyOf": [{ "properties": { "a": { "minLength": 2 } } }, { "properties": { "n": { "minimum": 5 } } }],
            "not": { "properties": { "a": { "enum": ["no"] } }, "required": ["a"] },
            "allOf": [{ "properties": { "l": { "maxItems": 2 } } }, { "required": ["l"] }],
        },
        "address": {
            "type": "object",
            "properties": { "type": { "type": "string" }, "value": { "type": "string" } },
            "oneOf": [
                { "properties": { "type": { "enum": ["IPAddress"] }, "value": { "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] } } },
                { "properties": { "type": { "not": { "enum": ["IPAddress"] } } } },
            ],
        },
    } }))
    .unwrap();
    let told = |value: Value| -> Vec<String> {
        let causes = validate(Schema::at(&node), &value, None);
        let line = |cause: Cause| format!("{}: {}", cause.field, cause.message);
        causes.into_iter().map(line).collect()
    };
    const ALL: &str = r#"<nil>: Invalid value: "": "spec" must validate all the schemas (allOf)"#;
    for (spec, expected) in [
        (
            json!({}),
            vec![
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found none valid"#,
                "spec.a: Required value",
                "spec.l: Required value",
                ALL,
            ],
        ),
        (json!({ "a": "x" }), vec!["spec.l: Required value", ALL]),
        (
            json!({ "a": "xx", "l": ["1", "2", "3"] }),
            vec!["spec.l: Too many: 3: must have at most 2 items", ALL],
        ),
        (
            json!({ "a": "xx", "n": 7, "l": [] }),
            vec![
                r#"<nil>: Invalid value: "": "spec" must validate one and only one schema (oneOf). Found 2 valid alternatives"#,
            ],
        ),
        (json!({ "n": 7, "l": [] }), vec![]),
    ] {
        assert_eq!(told(json!({ "spec": spec })), expected, "{spec}");
    }
    let none = r#"<nil>: Invalid value: "": "address" must validate one and only one schema (oneOf). Found none valid"#;
    let any =
        r#"<nil>: Invalid value: "": "address.value" must validate at least one schema (anyOf)"#;
    for (address, expected) in [
        (json!({ "type": "IPAddress", "value": "::1" }), vec![]),
        (json!({ "type": "Hostname", "value": "x" }), vec![]),
        (
            json!({ "type": "IPAddress", "value": "x" }),
            vec![
                none,
                any,
                r#"address.value: Invalid value: "x": address.value in body must be of type ipv4: "x""#,
            ],
        ),
        (
            json!({ "type": "IPAddress", "value": 7 }),
            vec![
                none,
                any,
                r#"address.value: Invalid value: "int64": address.value in body must be of type ipv4: "int64""#,
                r#"address.value: Invalid value: "integer": address.value in body must be of type string: "integer""#,
            ],
        ),
    ] {
        assert_eq!(told(json!({ "address": address })), expected, "{address}");
    }
}

/// What is written as a number, beyond those of its type, and nothing among few values.
#[test]
fn numbers_are_those_of_go() {
    let node = Node::parse(&json!({ "type": "object", "properties": {
        "some": { "type": "integer", "enum": [1, 2] },
        "none": { "type": "string", "nullable": true, "enum": ["a", null] },
        "long": { "type": "integer", "format": "int64" },
        "float": { "type": "number", "format": "float" },
    } }))
    .unwrap();
    let told = |value: Value| -> Vec<String> {
        let causes = validate(Schema::at(&node), &value, None);
        causes.into_iter().map(|cause| cause.message).collect()
    };
    for (value, expected) in [
        (
            json!({ "some": 1.0, "none": "a", "long": 1e3, "float": 1.5 }),
            vec![],
        ),
        (
            json!({ "none": null }),
            vec![r#"Unsupported value: null: supported values: "a", "null""#],
        ),
        (
            json!({ "long": 9_223_372_036_854_775_808_u64 }),
            vec![
                r#"Invalid value: "float64": long in body must be of type int64: "float64""#,
                r#"Invalid value: "": Checked value must be of type integer with format int64 in long"#,
            ],
        ),
        (
            json!({ "float": 1e300 }),
            vec![
                r#"Invalid value: "": Checked value must be of type number with format float in float"#,
            ],
        ),
    ] {
        assert_eq!(told(value.clone()), expected, "{value}");
    }
}
