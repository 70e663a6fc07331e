//! Definitions of users' kinds and all that they may say: schemas, expressions, patterns, paths of columns, formats.

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_kinds::apiextensions::{Definition, status};
use weft_kinds::cel::rules::{self, Options};
use weft_kinds::cel::{self, Meter, Program, Type};
use weft_kinds::schema::{Node, Schema};
use weft_kinds::{CUSTOM_RESOURCE_DEFINITION, Row, decode, validate};

use crate::{bodies, seeds};

pub fn expression(input: &[u8]) {
    let Ok(source) = std::str::from_utf8(input) else {
        return;
    };
    let _ = cel::parse(source);
    let _ = Program::compile_patch(source, &[]);
    let variables = [
        ("self", Type::Dyn),
        ("x", Type::Int),
        ("text", Type::String),
    ];
    let Ok(program) = Program::compile(source, &variables, None) else {
        return;
    };
    let object =
        json!({"a": [1, 2, {"b": "c"}], "m": {"k": 1.5}, "t": "2026-01-01T00:00:00Z", "n": null});
    let Ok(this) = cel::Value::of(&object, &cel::Decl::any()) else {
        return;
    };
    let values = [
        ("self", this),
        ("x", cel::Value::Int(3)),
        ("text", cel::Value::text("a text")),
    ];
    let mut meter = Meter::per_call();
    if let Ok(value) = program.eval(&values, &mut meter) {
        let _ = value.to_json();
    }
}

pub fn expression_seeds() -> Vec<Vec<u8>> {
    let expressions = seeds::expressions().into_iter();
    let mut found: Vec<Vec<u8>> = expressions.map(String::into_bytes).collect();
    found.extend(seeds::texts(&[
        "self.a.all(i, i == i) && has(self.m.k)",
        "[1,2,3].map(i, i * x).sum() > 3 ? text.matches('^a') : false",
        "'%s %d %.3f'.format([text, x, 1.5])",
        "timestamp(self.t) + duration('1h') > timestamp('2025-01-01T00:00:00Z')",
        "quantity('1Ki').add(quantity('1')).asInteger() == 1025",
        "ip('10.0.0.1').isGlobalUnicast() && cidr('10.0.0.0/8').containsIP('10.0.0.1')",
        "cel.bind(v, [1, 2], v.exists_one(i, i == 1)) && optional.of(1).hasValue()",
    ]));
    found
}

pub fn pattern(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let source = format!(
        "'aaaaaaaaaaaaaaaaaaaaaaaa!'.matches({})",
        Value::from(&*text)
    );
    if let Ok(program) = Program::compile(&source, &[], None) {
        let _ = program.eval(&[], &mut Meter::per_call());
    }
    let schema = json!({"type": "string", "pattern": text, "maxLength": 100});
    if let Ok(node) = Node::parse(&schema) {
        let mut causes = Vec::new();
        decode::violations(&node, &"aaaaaaaaaaaaaaaa!".into(), None, &mut causes);
    }
}

pub fn pattern_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "^(a+)+$",
        "[a-z]([-a-z0-9]*[a-z0-9])?(\\.[a-z]+)*",
        "(?i)x{2,5}?\\pL\\x{10FFFF}",
        "(?P<n>a|b)*\\Qa.b\\E",
        "[[:alpha:]\\d_-]+\\b",
        "((a{1000}){1000}){1000}",
    ])
}

/// A definition, and an object of what it defines.
pub fn definition(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let Ok(decoded) = decode::value(&*CUSTOM_RESOURCE_DEFINITION, &value) else {
        return;
    };
    let mut definition = decoded.value;
    if !definition.is_object() {
        return;
    }
    let kind = &CUSTOM_RESOURCE_DEFINITION;
    kind.strategy.prepare_for_create(kind, &mut definition);
    kind.strategy.default(&mut definition);
    let is_taken = validate::created(kind, &definition).is_ok();
    // Its names are accepted, and it is established.
    const STEPS_MAX: usize = 10;
    for _ in 0..STEPS_MAX {
        match status::next(&definition, &[&definition], "2026-01-01T00:00:00Z") {
            Some(next) => definition = next,
            None => break,
        }
    }
    let Ok(kinds) = Definition::kinds(&definition) else {
        assert!(
            !is_taken || !status::is_served(&definition),
            "what is taken and served is not understood"
        );
        return;
    };
    let sent = json!({
        "apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a"},
        "spec": {"size": 3, "text": "t", "list": [{"name": "a"}, {"name": "b"}], "any": {"x": [null]}}, "status": {"ready": true},
    });
    for kind in kinds {
        let mut sent = sent.clone();
        sent["apiVersion"] = kind.api_version().into();
        if let Ok(read) = decode::value(&kind, &sent) {
            let mut filled = read.value;
            decode::fill(&kind, &mut filled);
            bodies::judged(&kind, filled);
        }
    }
}

pub fn definition_seeds() -> Vec<Vec<u8>> {
    let schema = json!({"type": "object", "required": ["spec"], "properties": {
        "spec": {"type": "object", "properties": {
            "size": {"type": "integer", "minimum": 1, "default": 1, "maximum": 10},
            "text": {"type": "string", "pattern": "^[a-z]*$", "enum": ["t", "u"], "maxLength": 10},
            "list": {"type": "array", "maxItems": 10, "items": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string", "maxLength": 5}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            "any": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true},
        }, "x-kubernetes-validations": [{"rule": "self.size < 5", "message": "large", "fieldPath": ".size", "reason": "FieldValueInvalid"},
            {"rule": "self.list.all(i, i.name != oldSelf.text)", "messageExpression": "'no ' + self.text", "optionalOldSelf": false}]},
        "status": {"type": "object", "properties": {"ready": {"type": "boolean"}}},
    }});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "shortNames": ["w"], "categories": ["all"]},
            "conversion": {"strategy": "None"},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
                    "selectableFields": [{"jsonPath": ".spec.text"}],
                    "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1}]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}},
            ],
        },
    });
    let mut found = vec![definition.to_string().into_bytes()];
    let manifests = seeds::MANIFESTS.iter();
    let definitions = manifests.filter(|manifest| manifest["kind"] == "CustomResourceDefinition");
    found.extend(definitions.map(|manifest| manifest.to_string().into_bytes()));
    found
}

/// A schema and a value, side by side.
pub fn schema(input: &[u8]) {
    let Ok(pair) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    let (schema, value) = (&pair["schema"], &pair["value"]);
    let Ok(node) = Node::parse(schema) else {
        return;
    };
    let _ = rules::definition_faults(Schema::at(&node), "spec");
    let _ = rules::estimates(Schema::at(&node), true);
    let Ok(read) = decode::value(&node, value) else {
        return;
    };
    let mut filled = read.value;
    decode::fill(&node, &mut filled);
    let mut causes = Vec::new();
    decode::violations(&node, &filled, Some(value), &mut causes);
    for old in [None, Some(value)] {
        let _ = rules::judge(Schema::at(&node), &filled, old, Options::default());
    }
}

pub fn schema_seeds() -> Vec<Vec<u8>> {
    let pairs = [
        json!({"schema": {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}}, "x-kubernetes-validations": [{"rule": "self.a == 'b'"}]}, "value": {"a": "b"}}),
        json!({"schema": {"type": "array", "items": {"type": "integer", "multipleOf": 2}, "uniqueItems": true, "x-kubernetes-list-type": "set"}, "value": [2, 4]}),
        json!({"schema": {"anyOf": [{"type": "string"}, {"type": "integer"}], "not": {"enum": [1]}, "x-kubernetes-int-or-string": true}, "value": 3}),
        json!({"schema": {"type": "object", "additionalProperties": {"type": "number", "minimum": 0.5, "exclusiveMinimum": true}, "maxProperties": 3}, "value": {"x": 1.5}}),
        json!({"schema": {"type": "object", "properties": {"t": {"type": "string", "format": "date-time"}}, "x-kubernetes-validations": [{"rule": "self.t > timestamp('2020-01-01T00:00:00Z')"}]}, "value": {"t": "2026-01-01T00:00:00Z"}}),
    ];
    pairs.map(|pair| pair.to_string().into_bytes()).to_vec()
}

/// A path of a column, which is read over an object.
pub fn json_path(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let kind = ["string", "integer", "number", "boolean", "date"][input.len() % 5];
    let definition = json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "additionalPrinterColumns": [{"name": "C", "type": kind, "jsonPath": text}],
            }],
        },
    });
    let object = json!({
        "metadata": {"name": "a"}, "spec": {"a": [1, 2, 3, {"b": [[], [1]]}], "n": 7, "f": 1.5, "t": "x", "z": null},
        "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Other", "n": 3}]},
    });
    for kind in Definition::kinds(&definition).into_iter().flatten() {
        let row = Row {
            object: &object,
            now: Timestamp::UNIX_EPOCH,
        };
        for column in &kind.columns {
            let _ = (column.cell)(&row);
        }
    }
}

pub fn json_path_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        ".spec.n",
        ".status.conditions[?(@.type==\"Ready\")].status",
        ".spec.a[0:2]",
        ".spec.a[-1:].b[*]",
        "..type",
        ".spec['n','t']",
        ".spec.a[::2]",
        ".status.conditions[?(@.n>=2)]['type']",
        ".metadata.labels.app\\.kubernetes\\.io/name",
        "{.spec.n}",
    ])
}

/// A text in every format that is checked.
pub fn format(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for format in [
        "date-time",
        "date",
        "duration",
        "byte",
        "uuid",
        "uuid3",
        "ipv4",
        "ipv6",
        "cidr",
        "mac",
        "hostname",
        "uri",
        "email",
        "bsonobjectid",
        "isbn",
        "isbn10",
        "isbn13",
        "creditcard",
        "ssn",
        "hexcolor",
        "rgbcolor",
        "password",
        "datetime",
        "int32",
        "double",
        "k8s-short-name",
    ] {
        let schema = json!({"type": "string", "format": format});
        if let Ok(node) = Node::parse(&schema) {
            let mut causes = Vec::new();
            decode::violations(&node, &Value::from(&*text), None, &mut causes);
        }
    }
}

pub fn format_seeds() -> Vec<Vec<u8>> {
    seeds::texts(&[
        "2026-01-01T00:00:00Z",
        "2026-02-29",
        "1h3m",
        "YWJj",
        "123e4567-e89b-12d3-a456-426614174000",
        "10.0.0.1",
        "::ffff:1.2.3.4",
        "10.0.0.0/8",
        "00:11:22:33:44:55",
        "a.example.com",
        "https://u:p@a.b:80/c?d=e#f",
        "5f4dcc3b5aa765d61d8327de",
        "978-3-16-148410-0",
        "4111-1111-1111-1111",
        "#ffAA00",
        "rgb(1,2,3)",
    ])
}
