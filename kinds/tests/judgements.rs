//! Rules over objects, held to what kube-apiserver's own packages answer (`upstream/README.md`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value as Json, json};
use weft_api::status::Cause;
use weft_kinds::Kind;
use weft_kinds::apiextensions::Definition;
use weft_kinds::cel::rules::{Estimate, Options, definition_faults, estimates, field_path, judge};
use weft_kinds::gateway_api::definitions;
use weft_kinds::schema::{Node, Schema};

/// A table of upstream's answers, one a line.
fn table<T: serde::de::DeserializeOwned>(packed: &[u8]) -> Vec<T> {
    let text = lz4_flex::block::decompress_size_prepended(packed).expect("the table is LZ4");
    let text = String::from_utf8(text).expect("the table is text");
    let read = |line: &str| {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:.300}"))
    };
    text.lines().map(read).collect()
}

/// Of upstream's own cases, those that are known to differ, which `upstream/README.md` names. To be brought down, never up.
const VALIDATIONS_DIFFERENT_MAX: usize = 5;
const COMPILATIONS_DIFFERENT_MAX: usize = 1;

#[derive(Deserialize)]
struct Validated {
    schema: Json,
    root: bool,
    ratchets: bool,
    new: Json,
    old: Option<Json>,
    budget: i64,
    /// Reason, field, message.
    errors: Vec<(String, String, String)>,
    remaining: i64,
}

/// Causes as upstream lists them, in an order of their own: upstream's is that of its maps.
fn listed(causes: &[Cause]) -> Vec<(String, String, String)> {
    let mut listed: Vec<_> = causes
        .iter()
        .map(|cause| {
            (
                cause.reason.clone(),
                cause.field.clone(),
                cause.message.clone(),
            )
        })
        .collect();
    listed.sort();
    listed
}

fn judged(case: &Validated) -> (Vec<(String, String, String)>, i64) {
    let node = Node::parse(&case.schema).unwrap();
    let old = case.old.as_ref().filter(|old| !old.is_null());
    let budget = u64::try_from(case.budget).unwrap_or(u64::MAX);
    let options = Options {
        cost_max: budget,
        root: case.root,
        ratchets: case.ratchets,
    };
    let judgement = judge(Schema::at(&node), &case.new, old, options);
    let left = judgement.cost.map(|cost| budget - cost);
    let left = left.map_or(-1, |left| i64::try_from(left).unwrap_or(i64::MAX));
    (listed(&judgement.causes), left)
}

#[test]
fn objects_are_judged_as_upstream_judges_them() {
    let cases: Vec<Validated> = table(include_bytes!("upstream/validations.lz4"));
    let mut different = Vec::new();
    for case in &cases {
        let (mut errors, left) = judged(case);
        for error in &mut errors {
            // The test's objects stand below a root of their own.
            if error.1 == "<nil>" {
                error.1.clear();
            }
        }
        let mut wanted = case.errors.clone();
        for (_, _, message) in &mut wanted {
            *message = without_numbers(message);
        }
        wanted.sort();
        if errors != wanted || left != case.remaining {
            different.push(format!(
                "{}\n  new {}\n  old {:?}\n  ours {errors:?} {left}\n  upstream {wanted:?} {}",
                case.schema, case.new, case.old, case.remaining
            ));
        }
    }
    assert!(cases.len() > 500, "{}", cases.len());
    println!("{} of {} differ", different.len(), cases.len());
    assert!(
        different.len() <= VALIDATIONS_DIFFERENT_MAX,
        "{}",
        different.join("\n")
    );
}

#[derive(Deserialize)]
struct CompiledCase {
    schema: Json,
    rules: Vec<CompiledRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CompiledRule {
    cost: u64,
    message_cost: u64,
    uses_old_self: bool,
    empty: bool,
    error: Option<String>,
    message_error: Option<String>,
}

/// Errors name the types of objects by a number that is new each time.
fn without_numbers(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("selfType") {
        let end = at + "selfType".len();
        out.push_str(&rest[..end]);
        rest = rest[end..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    out.push_str(rest);
    out
}

#[test]
fn rules_compile_and_are_estimated_as_upstream_does() {
    let cases: Vec<CompiledCase> = table(include_bytes!("upstream/compilations.lz4"));
    let mut different = Vec::new();
    let mut count = 0;
    for case in &cases {
        let node = Node::parse(&case.schema).unwrap();
        let schema = Schema::at(&node);
        // The table does not say whether the schema was that of an object or of a part.
        let found = [estimates(schema, false), estimates(schema, true)];
        assert_eq!(found[0].len(), case.rules.len());
        for (index, theirs) in case.rules.iter().enumerate() {
            count += 1;
            let cleaned = |estimate: &Estimate| Estimate {
                error: estimate.error.as_deref().map(without_numbers),
                message_error: estimate.message_error.as_deref().map(without_numbers),
                ..estimate.clone()
            };
            let ours = found.each_ref().map(|found| cleaned(&found[index]));
            let wanted = Estimate {
                cost_max: theirs.cost,
                message_cost_max: theirs.message_cost,
                uses_old_self: theirs.uses_old_self,
                is_empty: theirs.empty,
                error: theirs.error.as_deref().map(without_numbers),
                message_error: theirs.message_error.as_deref().map(without_numbers),
            };
            if !ours.contains(&wanted) {
                let ours = &ours[0];
                different.push(format!(
                    "{}\n  ours     {ours:?}\n  upstream {wanted:?}",
                    case.schema
                ));
            }
        }
    }
    assert!(count > 400, "{count}");
    println!("{} of {count} differ", different.len());
    assert!(
        different.len() <= COMPILATIONS_DIFFERENT_MAX,
        "{}",
        different.join("\n")
    );
}

/// Rules of the Gateway API: what upstream says of each object.
#[derive(Deserialize)]
struct GatewayCase {
    kind: String,
    new: Json,
    old: Option<Json>,
    told: Vec<(String, String, String)>,
}

#[test]
fn every_rule_of_the_gateway_api_fires_as_upstream_has_it() {
    let cases: Vec<GatewayCase> = table(include_bytes!("upstream/gateways.lz4"));
    let kinds = gateway_kinds();
    let mut fired: BTreeSet<(String, String)> = BTreeSet::new();
    for case in &cases {
        let schema = kinds[&case.kind].schema().unwrap();
        let old = case.old.as_ref().filter(|old| !old.is_null());
        let options = Options {
            ratchets: false,
            ..Options::default()
        };
        let judgement = judge(schema, &case.new, old, options);
        let mut wanted = case.told.clone();
        wanted.sort();
        let told = listed(&judgement.causes);
        assert_eq!(told, wanted, "{} {}", case.kind, case.new);
        let messages = wanted.into_iter().map(|(_, _, message)| message);
        fired.extend(messages.map(|message| (case.kind.clone(), message)));
    }
    // Each rule has been broken somewhere.
    let mut unbroken = Vec::new();
    for (name, kind) in &kinds {
        let custom = kind.custom.as_ref().expect("it has a definition");
        let schema = serde_json::from_str(custom.schema()).expect("a schema is JSON");
        for rule in rule_messages(&schema) {
            let (told, shown) = (format!("Invalid value: {rule}"), format!(": {rule}"));
            let of_kind = |(of, message): &(String, String)| {
                of == name && (*message == told || message.ends_with(&shown))
            };
            if !name.starts_with("v1beta1") && !fired.iter().any(of_kind) {
                unbroken.push(format!("{name}: {rule}"));
            }
        }
    }
    assert_eq!(unbroken, [""; 0]);
}

#[test]
fn definitions_say_what_the_published_ones_say() {
    let published: Vec<Json> = table(include_bytes!("upstream/definitions.lz4"));
    let ours = definitions();
    assert_eq!(ours.len(), published.len());
    for (ours, published) in ours.into_iter().zip(published) {
        let name = &published["metadata"]["name"];
        let mut different = Vec::new();
        differences("", &bare(ours), &published, &mut different);
        assert_eq!(different, [""; 0], "{name}");
    }
}

/// A definition of ours in the form of the table: without descriptions, and of rules the messages.
fn bare(value: Json) -> Json {
    match value {
        Json::Object(map) => {
            let members = map.into_iter().filter_map(|(key, value)| {
                let is_text = key == "description" && value.is_string();
                let rules = key == "x-kubernetes-validations";
                match value {
                    _ if is_text => None,
                    Json::Array(rules_of) if rules => {
                        let messages = rules_of.iter().map(|rule| rule["message"].clone());
                        Some(("messages".to_owned(), messages.collect()))
                    }
                    value => Some((key, bare(value))),
                }
            });
            Json::Object(members.collect())
        }
        Json::Array(items) => items.into_iter().map(bare).collect(),
        other => other,
    }
}

fn differences(at: &str, ours: &Json, theirs: &Json, found: &mut Vec<String>) {
    match (ours, theirs) {
        (Json::Object(ours), Json::Object(theirs)) => {
            let names: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                let of = |map: &serde_json::Map<String, Json>| map.get(name).cloned();
                let (ours, theirs) = (of(ours), of(theirs));
                let (ours, theirs) = (ours.unwrap_or_default(), theirs.unwrap_or_default());
                differences(&format!("{at}.{name}"), &ours, &theirs, found);
            }
        }
        // What has to be there stands in no order.
        (Json::Array(ours), Json::Array(theirs)) if at.ends_with(".required") => {
            let sorted = |list: &[Json]| -> BTreeSet<String> {
                list.iter().map(ToString::to_string).collect()
            };
            if sorted(ours) != sorted(theirs) {
                found.push(format!("{at}: {ours:?} is not {theirs:?}"));
            }
        }
        (Json::Array(ours), Json::Array(theirs)) if ours.len() == theirs.len() => {
            let pairs = ours.iter().zip(theirs).enumerate();
            pairs.for_each(|(place, (ours, theirs))| {
                differences(&format!("{at}[{place}]"), ours, theirs, found);
            });
        }
        (ours, theirs) if ours != theirs => found.push(format!("{at}: {ours} is not {theirs}")),
        _ => {}
    }
}

/// The kinds of the Gateway API as its definitions make them: those of version 1 by their names, others with the version before it.
fn gateway_kinds() -> BTreeMap<String, Arc<Kind>> {
    let kinds = definitions().into_iter().flat_map(|mut definition| {
        definition["status"] = json!({ "acceptedNames": definition["spec"]["names"] });
        Definition::kinds(&definition).expect("it can be served")
    });
    let named = kinds.map(|kind| match &*kind.version {
        "v1" => (kind.kind.to_string(), kind),
        version => (format!("{version} {}", kind.kind), kind),
    });
    named.collect()
}

/// The messages of all rules in a schema.
fn rule_messages(schema: &Json) -> Vec<String> {
    match schema {
        Json::Object(map) => {
            let rules = map.get("x-kubernetes-validations").and_then(Json::as_array);
            let own = rules.into_iter().flatten();
            let own = own.filter_map(|rule| Some(rule.get("message")?.as_str()?.to_owned()));
            own.chain(map.values().flat_map(rule_messages)).collect()
        }
        Json::Array(items) => items.iter().flat_map(rule_messages).collect(),
        _ => Vec::new(),
    }
}

#[test]
fn a_change_is_judged_by_what_it_changes() {
    let node = Node::parse(&json!({
        "type": "object",
        "properties": {
            "size": { "type": "integer", "x-kubernetes-validations": [
                { "rule": "self < 5", "messageExpression": "'is ' + string(self)" },
                { "rule": "self >= oldSelf", "message": "may not shrink", "reason": "FieldValueForbidden" },
            ] },
            "list": { "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {
                "type": "object", "properties": { "k": { "type": "string" }, "v": { "type": "integer", "x-kubernetes-validations": [
                    { "rule": "self == oldSelf", "message": "may not change" },
                ] } },
            } },
            "once": { "type": "string", "x-kubernetes-validations": [
                { "rule": "oldSelf.hasValue() ? self == oldSelf.value() : self != ''", "message": "set once", "optionalOldSelf": true },
            ] },
        },
    }))
    .unwrap();
    let told = |new: Json, old: Option<Json>| -> Vec<String> {
        let judgement = judge(Schema::at(&node), &new, old.as_ref(), Options::default());
        let line = |cause: &Cause| format!("{}: {}", cause.field, cause.message);
        judgement.causes.iter().map(line).collect()
    };
    assert_eq!(
        told(json!({"size": 7}), None),
        ["size: Invalid value: 7: is 7"]
    );
    // What was too large before may stay so.
    assert_eq!(told(json!({"size": 7}), Some(json!({"size": 7}))), [""; 0]);
    assert_eq!(
        told(json!({"size": 6}), Some(json!({"size": 7}))),
        [
            "size: Invalid value: 6: is 6",
            "size: Forbidden: may not shrink"
        ]
    );
    // Elements are found by their keys, wherever they stand.
    let old = json!({"list": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]});
    let moved = json!({"list": [{"k": "c", "v": 9}, {"k": "b", "v": 3}, {"k": "a", "v": 1}]});
    assert_eq!(
        told(moved, Some(old)),
        ["list[1].v: Invalid value: 3: may not change"]
    );
    assert_eq!(
        told(json!({"once": ""}), None),
        ["once: Invalid value: \"\": set once"]
    );
    assert_eq!(
        told(json!({"once": "b"}), Some(json!({"once": "a"}))),
        ["once: Invalid value: \"b\": set once"]
    );
}

#[test]
fn budgets_end_the_judging_and_refuse_the_object() {
    let all = "self.all(a, self.all(b, self.all(c, self.all(d, a + b + c + d >= 0))))";
    let node = Node::parse(&json!({
        "type": "object",
        "properties": { "list": { "type": "array", "items": { "type": "integer" }, "x-kubernetes-validations": [
            { "rule": all, "message": "sums" },
        ] }, "zz": { "type": "string", "x-kubernetes-validations": [{ "rule": "false", "message": "never" }] } },
    }))
    .unwrap();
    let list: Vec<i64> = (0..100).collect();
    let object = json!({"list": list, "zz": "x"});
    let judgement = judge(Schema::at(&node), &object, None, Options::default());
    assert_eq!(judgement.cost, None);
    assert_eq!(
        listed(&judgement.causes),
        [(
            "FieldValueInvalid".to_owned(),
            "list".to_owned(),
            "Invalid value: \"array\": 'operation cancelled: actual cost limit exceeded': no further validation rules will be run due to call cost exceeds limit for rule: sums".to_owned()
        )]
    );
    // As many rules as fit the budget of the object, and not one more.
    let rule = json!({ "rule": "self.all(a, self.all(b, a + b >= 0))", "message": "sums" });
    let node = Node::parse(&json!({
        "type": "array", "items": { "type": "integer" }, "x-kubernetes-validations": vec![rule; 300],
    }))
    .unwrap();
    let judgement = judge(Schema::at(&node), &json!(list), None, Options::default());
    let causes = judgement.causes;
    let told = "Invalid value: \"array\": validation failed due to running out of cost budget, no further validation rules will be run";
    assert_eq!(causes.len(), 1);
    assert_eq!(causes[0].message, told);
}

#[test]
fn definitions_with_mistakes_or_without_limits_are_refused() {
    let faults = |schema: Json| -> Vec<String> {
        let node = Node::parse(&schema).unwrap();
        let path = "spec.validation.openAPIV3Schema";
        definition_faults(Schema::at(&node), path)
            .into_iter()
            .map(|cause| {
                format!(
                    "{}: {}",
                    cause.field.trim_start_matches(path),
                    cause.message
                )
            })
            .collect()
    };
    let with = |rule: Json| {
        json!({ "type": "object", "properties": {
        "list": { "type": "array", "items": { "type": "string" }, "x-kubernetes-validations": [rule] },
        "name": { "type": "string", "maxLength": 10 },
    } })
    };
    assert_eq!(
        faults(with(json!({ "rule": "self.all(x, x.size() > 0)" }))),
        [""; 0]
    );
    let nested = faults(with(json!({ "rule": "self.all(x, self.all(y, x == y))" })));
    assert!(
        nested[0].starts_with(".properties[list].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x (try simplifying"),
        "{nested:?}"
    );
    assert!(
        nested[1].starts_with(": Forbidden: x-kubernetes-validations estimated rule cost total")
    );
    for (rule, told) in [
        (
            json!({ "rule": " " }),
            "rule: Required value: rule is not specified",
        ),
        (
            json!({ "rule": "true\n&& true" }),
            "message: Required value: message must be specified if rule contains line breaks",
        ),
        (
            json!({ "rule": "true", "message": "a\nb" }),
            "message: Invalid value: \"a\\nb\": must not contain line breaks",
        ),
        (
            json!({ "rule": "true", "message": " " }),
            "message: Invalid value: \" \": must be non-empty if specified",
        ),
        (
            json!({ "rule": "true", "messageExpression": " " }),
            "messageExpression: Required value: messageExpression must be non-empty if specified",
        ),
        (
            json!({ "rule": "true", "fieldPath": ".nope" }),
            "fieldPath: Invalid value: \".nope\": must be a valid path",
        ),
        (
            json!({ "rule": "true", "reason": "Because" }),
            "reason: Unsupported value: \"Because\": supported values: \"FieldValueDuplicate\", \"FieldValueForbidden\", \"FieldValueInvalid\", \"FieldValueRequired\"",
        ),
        (
            json!({ "rule": "self.size()" }),
            "rule: Invalid value: \"self.size()\": cel expression must evaluate to a bool",
        ),
        (
            json!({ "rule": "self.nope" }),
            "rule: Invalid value: \"self.nope\": compilation failed: ERROR: <input>:1:5: type 'list(string)' does not support field selection\n | self.nope\n | ....^",
        ),
        (
            json!({ "rule": "true", "messageExpression": "1" }),
            "messageExpression: Invalid value: \"true\": messageExpression must evaluate to a string",
        ),
        (
            json!({ "rule": "true", "optionalOldSelf": true }),
            "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
    ] {
        let prefix = ".properties[list].x-kubernetes-validations[0].";
        assert_eq!(
            faults(with(rule.clone())),
            [format!("{prefix}{told}")],
            "{rule}"
        );
    }
    let uncorrelated = faults(
        json!({ "type": "object", "properties": { "list": { "type": "array", "items": {
        "type": "string", "maxLength": 5, "x-kubernetes-validations": [{ "rule": "self == oldSelf" }],
    } } } }),
    );
    assert!(uncorrelated[0].ends_with("oldSelf cannot be used on the uncorrelatable portion of the schema within spec.validation.openAPIV3Schema.properties[list]"), "{uncorrelated:?}");
}

#[test]
fn paths_to_fields_are_read_by_the_schema() {
    let node = Node::parse(&json!({ "type": "object", "properties": {
        "a": { "type": "object", "properties": { "b-c": { "type": "string" } } },
        "m": { "type": "object", "additionalProperties": { "type": "string" } },
    } }))
    .unwrap();
    for (text, read) in [
        (".a", Ok(".a")),
        (".a['b-c']", Ok(".a.b-c")),
        (".m['x.y']", Ok(".m[x.y]")),
        (".m.x", Ok(".m[x]")),
        ("a", Err("expected [ or . but got: a")),
        (".nope", Err("does not refer to a valid field")),
        (".a[0]", Err("expected single quoted string but got 0")),
        (".a['b", Err("unexpected end of JSON path")),
        (".", Err("unexpected end of JSON path")),
        ("ä", Err("expected [ or . but got: ä")),
    ] {
        let found = field_path(Schema::at(&node), text);
        assert_eq!(found.as_deref().map_err(String::as_str), read, "{text}");
    }
}
