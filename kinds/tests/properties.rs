//! What holds for any bytes and any JSON from outside: nothing panics, results are bounded, and what was written is read the
//! same again.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Map, Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_kinds::apiextensions::Definition;
use weft_kinds::apply::{self, Scope, Writable, Writer, one_version};
use weft_kinds::cel::rules;
use weft_kinds::gateway_api::definitions;
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::schema::{Node, Schema};
use weft_kinds::{Kind, decode, protobuf, validate};

/// Enough to meet each directive of a patch some hundred times, in a few seconds.
const CASES: u32 = 1500;

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: CASES,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

/// Names that mean something in a pod, to patches, or to nobody.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => proptest::sample::select(vec![
            "metadata", "name", "labels", "spec", "containers", "env", "value", "ports", "containerPort", "volumes", "mountPath",
            "replicas", "selector", "template", "emptyDir", "tolerations", "key", "resources", "limits", "cpu", "finalizers", "data",
        ]).prop_map(str::to_owned),
        3 => proptest::sample::select(vec![
            "$patch", "$retainKeys", "$setElementOrder/containers", "$deleteFromPrimitiveList/finalizers", "$setElementOrder/env", "",
        ]).prop_map(str::to_owned),
        1 => ".{0,5}",
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-5_i64..100).prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![
            "a", "b", "delete", "replace", "merge", "25%", "100m", ""
        ])
        .prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            proptest::collection::vec((name(), inner), 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::vec((name(), value()), 0..5)
        .prop_map(|members| Value::Object(members.into_iter().collect()))
}

/// A pod with lists that merge by keys of different types, each key once.
fn pod() -> impl Strategy<Value = Value> {
    let ports = proptest::collection::btree_set(1_i64..4, 0..3);
    let env = proptest::collection::btree_map("[ab]", "[xy]", 0..3);
    let containers = proptest::collection::btree_map("[abc]", (ports, env), 1..3);
    let labels = proptest::collection::btree_map("[a-c]", "[a-c]", 0..3);
    let finalizers = proptest::collection::btree_set("[a-c]", 0..3);
    (containers, labels, finalizers).prop_map(|(containers, labels, finalizers)| {
        let container =
            |(name, (ports, env)): (String, (BTreeSet<i64>, BTreeMap<String, String>))| {
                let ports: Vec<Value> = ports
                    .into_iter()
                    .map(|port| json!({"containerPort": port, "protocol": "TCP"}))
                    .collect();
                let env: Vec<Value> = env
                    .into_iter()
                    .map(|(name, value)| json!({"name": name, "value": value}))
                    .collect();
                json!({"name": name, "image": "i", "ports": ports, "env": env})
            };
        let containers: Vec<Value> = containers.into_iter().map(container).collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "labels": labels, "finalizers": finalizers},
            "spec": {"containers": containers},
        })
    })
}

/// Nesting as the decoder counts it: one for each list or object.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The merge patch that makes `b` of `a`, where `b` has no nulls: RFC 7386 cannot say them.
fn difference(a: &Value, b: &Value) -> Value {
    let (Value::Object(a), Value::Object(b)) = (a, b) else {
        return b.clone();
    };
    let mut patch = Map::new();
    for key in a.keys().filter(|key| !b.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    for (key, value) in b {
        match a.get(key) {
            Some(old) if old == value => {}
            Some(old) if old.is_object() && value.is_object() => {
                patch.insert(key.clone(), difference(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => map
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key, without_nulls(value)))
            .collect(),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn gvk() -> GroupVersionKind {
    GroupVersionKind::new("", "v1", "Pod")
}

/// No patch makes an object deeper than what is stored can be.
const DEPTH_MAX: usize = 128;

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_merge_patch_of_the_difference_makes_the_other(a in object(), b in object()) {
        let b = without_nulls(b);
        let patch = difference(&a, &b);
        let made = patch::apply(&gvk(), &a, PatchKind::Merge, &patch).unwrap();
        prop_assert_eq!(&made, &b);
        // Once more changes nothing.
        prop_assert_eq!(patch::apply(&gvk(), &made, PatchKind::Merge, &patch).unwrap(), made);
    }

    #[test]
    fn a_strategic_merge_without_directives_is_the_same_twice(current in pod(), patch in pod()) {
        let once = patch::apply(&gvk(), &current, PatchKind::Strategic, &patch).unwrap();
        let twice = patch::apply(&gvk(), &once, PatchKind::Strategic, &patch).unwrap();
        prop_assert_eq!(&twice, &once);
        // What the patch says is so afterwards.
        for container in patch["spec"]["containers"].as_array().unwrap() {
            let merged = once["spec"]["containers"].as_array().unwrap();
            prop_assert!(merged.iter().any(|other| other["name"] == container["name"]));
        }
    }

    #[test]
    fn no_patch_panics_or_nests_without_end(current in prop_oneof![object(), pod()], patch in prop_oneof![object(), value(), pod()]) {
        for kind in [PatchKind::Merge, PatchKind::Strategic, PatchKind::Json] {
            if let Ok(patched) = patch::apply(&gvk(), &current, kind, &patch) {
                prop_assert!(depth(&patched) <= DEPTH_MAX);
            }
        }
    }

    #[test]
    fn no_list_of_operations_panics_or_nests_without_end(
        current in prop_oneof![object(), pod()],
        operations in proptest::collection::vec(
            (proptest::sample::select(vec!["add", "remove", "replace", "move", "copy", "test", "other"]), pointer(), pointer(), value()),
            0..12,
        )
    ) {
        let patch: Vec<Value> = operations
            .into_iter()
            .map(|(op, path, from, value)| json!({"op": op, "path": path, "from": from, "value": value}))
            .collect();
        if let Ok(patched) = patch::apply(&gvk(), &current, PatchKind::Json, &patch.into()) {
            prop_assert!(depth(&patched) <= DEPTH_MAX);
        }
    }

    #[test]
    fn bytes_that_are_no_object_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(protobuf::decode(&bytes).is_err() || bytes.starts_with(protobuf::MAGIC));
        let enveloped = [protobuf::MAGIC, bytes.as_slice()].concat();
        let _ = protobuf::decode(&enveloped);
    }

    #[test]
    fn a_damaged_object_is_an_object_or_none(
        pod in pod(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = protobuf::encode(&pod).unwrap();
        for (place, byte, how) in damage {
            if bytes.is_empty() {
                break;
            }
            let place = place.index(bytes.len());
            match how {
                0 => bytes[place] = byte,
                1 => bytes.insert(place, byte),
                2 => drop(bytes.remove(place)),
                _ => bytes.truncate(place.max(1)),
            }
        }
        if let Ok(decoded) = protobuf::decode(&bytes) {
            prop_assert!(depth(&decoded.value) <= DEPTH_MAX);
            // What was read can be written, unless it is a text that is no quantity.
            let _ = protobuf::encode(&decoded.value);
        }
    }

    #[test]
    fn what_was_read_is_written_and_read_the_same(pod in pod()) {
        let bytes = protobuf::encode(&pod).unwrap();
        let read = protobuf::decode(&bytes).unwrap();
        prop_assert_eq!(read.unknown, [""; 0]);
        prop_assert_eq!(protobuf::encode(&read.value).unwrap(), bytes);
    }

    #[test]
    fn what_is_no_pod_is_not_written_as_one(mut object in object()) {
        object["apiVersion"] = "v1".into();
        object["kind"] = "Pod".into();
        if let Ok(bytes) = protobuf::encode(&object) {
            let read = protobuf::decode(&bytes).unwrap();
            prop_assert_eq!(protobuf::encode(&read.value).unwrap(), bytes);
        }
    }

    #[test]
    fn text_that_is_no_json_is_no_object(text in prop_oneof![any::<String>(), "[{}\\[\\]:,\"a-c0-9]{0,40}"]) {
        let _ = decode::duplicate_fields(text.as_bytes());
        let decoded = decode::text(&gvk(), text.as_bytes());
        prop_assert!(decoded.is_err() || serde_json::from_str::<Value>(&text).is_ok());
    }

    #[test]
    fn a_canonical_value_is_its_own_canonical_value(mut object in prop_oneof![object(), pod()]) {
        object["apiVersion"] = "v1".into();
        object["kind"] = "Pod".into();
        if let Ok(once) = decode::value(&gvk(), &object) {
            let twice = decode::value(&gvk(), &once.value).unwrap();
            prop_assert_eq!(&twice.value, &once.value);
            prop_assert!(twice.faults.is_empty());
            // Both ways lead to the same object.
            if let Ok(bytes) = protobuf::encode(&once.value) {
                let read = protobuf::decode(&bytes).unwrap().value;
                prop_assert_eq!(decode::value(&gvk(), &read).unwrap().value, once.value);
            }
        }
    }

    #[test]
    fn any_json_is_a_schema_or_none(schema in schema()) {
        if let Ok(node) = Node::parse(&schema) {
            look(Schema::at(&node), 6);
            let _ = rules::definition_faults(Schema::at(&node), "spec");
        }
    }

    #[test]
    fn a_route_is_decoded_and_judged_or_refused(route in route(), old in route()) {
        if let Ok(decoded) = decode::value(&*HTTP_ROUTE, &route) {
            let mut filled = decoded.value;
            decode::fill(&*HTTP_ROUTE, &mut filled);
            let may_be = validate::created(&HTTP_ROUTE, &filled).is_ok();
            let _ = validate::updated(&HTTP_ROUTE, &filled, &old, None);
            // What an object may be, it may stay.
            let may_stay = validate::updated(&HTTP_ROUTE, &filled, &filled, None);
            prop_assert!(!may_be || may_stay.is_ok(), "{may_stay:?}");
        }
    }

    #[test]
    fn any_json_is_a_set_of_fields_or_none(fields in fields()) {
        if let Ok(set) = apply::Set::parse(&fields) {
            let written = set.to_json();
            let read = apply::Set::parse(&written).unwrap();
            prop_assert_eq!(&read, &set);
            prop_assert_eq!(read.to_json(), written);
            prop_assert_eq!(set.union(&set), set.clone());
            prop_assert!(set.difference(&set).is_empty());
            prop_assert_eq!(set.paths().len(), set.intersection(&set).paths().len());
            prop_assert!(set.paths().iter().all(|path| set.has(&path.0)));
        }
    }

    #[test]
    fn what_is_applied_twice_is_applied_once(
        spec in value(),
        list in prop_oneof![value(), Just(json!([]))],
    ) {
        let gvk = GroupVersionKind::new("example.com", "v1", "Thing");
        let thing = json!({"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "t"}, "spec": spec});
        let scope = scope(&gvk, None);
        let once = apply::apply(&scope, None, &thing, writer("a", 1), false).unwrap();
        let twice = apply::apply(&scope, Some(&once), &thing, writer("a", 2), false).unwrap();
        prop_assert_eq!(&twice, &once);
        // Any managedFields are taken or passed over.
        let mut other = once.clone();
        other["metadata"]["managedFields"] = list;
        let (updated, error) = apply::update(&scope, Some(&once), other, writer("b", 3));
        prop_assert_eq!(error, None);
        let _ = apply::apply(&scope, Some(&updated), &thing, writer("c", 4), true);
    }

    #[test]
    fn what_nobody_owns_stays_whoever_applies(
        first in pod(),
        applied in proptest::collection::vec((0..3_usize, pod()), 1..6),
    ) {
        let gvk = gvk();
        let scope = scope(&gvk, Schema::of(&gvk));
        let mut live = apply::apply(&scope, None, &first, writer("first", 0), false).unwrap();
        live["spec"]["nodeName"] = json!("n");
        live["metadata"]["uid"] = json!("u");
        for (second, (manager, config)) in (1..).zip(applied) {
            // A list that is said to be empty is not, as long as others have something in it.
            let config = without_empty(config);
            let manager = ["first", "second", "third"][manager];
            live = apply::apply(&scope, Some(&live), &config, writer(manager, second), true).unwrap();
            let again = apply::apply(&scope, Some(&live), &config, writer(manager, second + 100), false).unwrap();
            prop_assert_eq!(&again, &live);
            prop_assert_eq!(&live["spec"]["nodeName"], &json!("n"));
            prop_assert_eq!(&live["metadata"]["uid"], &json!("u"));
            // What was asked for is there.
            let merged = live["spec"]["containers"].as_array().unwrap();
            for container in config["spec"]["containers"].as_array().unwrap() {
                prop_assert!(merged.iter().any(|other| other["name"] == container["name"]));
            }
        }
    }
}

fn without_empty(value: Value) -> Value {
    let is_empty = |value: &Value| *value == json!([]) || *value == json!({});
    match value {
        Value::Object(map) => {
            let members = map.into_iter();
            let members = members.map(|(key, value)| (key, without_empty(value)));
            members.filter(|(_, value)| !is_empty(value)).collect()
        }
        Value::Array(items) => items.into_iter().map(without_empty).collect(),
        other => other,
    }
}

fn scope<'a>(gvk: &'a GroupVersionKind, schema: Option<Schema<'a>>) -> Scope<'a> {
    Scope {
        gvk,
        subresource: "",
        schema,
        writable: &Writable::All,
        convert: &one_version,
    }
}

fn writer(manager: &str, second: i64) -> Writer<'_> {
    Writer {
        manager,
        now: jiff::Timestamp::from_second(second).unwrap(),
    }
}

/// Sets of fields, or nearly.
fn fields() -> impl Strategy<Value = Value> {
    let element = prop_oneof![
        4 => proptest::sample::select(vec![
            ".", "f:a", "f:b", "f:", "v:1", "v:1.0", "v:\"a\"", "v:null", "v:[1]", "k:{\"a\":1}", "k:{\"b\":2,\"a\":1.0}", "k:{}",
            "i:0", "i:-1",
        ]).prop_map(str::to_owned),
        1 => "[fvkix]:.{0,4}",
        1 => ".{0,3}",
    ]
    .boxed();
    let leaf = prop_oneof![4 => Just(json!({})), 1 => Just(Value::Null), 1 => leaf()];
    leaf.prop_recursive(5, 40, 5, move |inner| {
        proptest::collection::vec((element.clone(), inner), 0..5)
            .prop_map(|members| Value::Object(members.into_iter().collect()))
    })
}

/// Schemas, or nearly: keywords with values of the right type, or of any.
fn schema() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => proptest::sample::select(vec!["string", "integer", "number", "boolean", "object", "array"])
            .prop_map(|name| json!({"type": name})),
        1 => Just(json!({"x-kubernetes-int-or-string": true})),
        1 => Just(json!({"x-kubernetes-preserve-unknown-fields": true})),
        1 => Just(json!({"$ref": "#/definitions/io.k8s.api.core.v1.PodSpec"})),
        1 => Just(json!({"$ref": "#/definitions/nobody"})),
        1 => ("[(a-c*?+\\[)]{0,5}", any::<u16>(), any::<f64>()).prop_map(|(pattern, length, least)| {
            json!({"type": "string", "pattern": pattern, "maxLength": length, "minimum": least})
        }),
        1 => value(),
    ];
    leaf.prop_recursive(5, 40, 4, |inner| {
        prop_oneof![
            proptest::collection::btree_map(name(), inner.clone(), 0..4)
                .prop_map(|fields| json!({"type": "object", "properties": fields})),
            inner
                .clone()
                .prop_map(|values| json!({"type": "object", "additionalProperties": values})),
            (inner.clone(), proptest::sample::select(vec!["set", "map", "atomic", "other"])).prop_map(|(items, kind)| {
                json!({"type": "array", "items": items, "x-kubernetes-list-type": kind, "x-kubernetes-list-map-keys": ["name"]})
            }),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"allOf": [a], "oneOf": [b.clone()], "not": b})),
            (inner, value(), "[a-z.<= 0-9()]{0,12}").prop_map(|(mut schema, default, rule)| {
                if let Some(map) = schema.as_object_mut() {
                    map.insert("default".to_owned(), default);
                    map.insert("x-kubernetes-validations".to_owned(), json!([{"rule": format!("self{rule}")}]));
                }
                schema
            }),
        ]
    })
}

/// Looks at every place of a schema, some levels deep: named definitions refer to themselves.
fn look(schema: Schema<'_>, levels: usize) {
    let _ = (
        schema.shape(),
        schema.merge_key(),
        schema.map_type(),
        schema.default(),
    );
    if levels == 0 {
        return;
    }
    for name in ["name", "spec", "containers", "value", "data", ""] {
        schema
            .field(name)
            .into_iter()
            .for_each(|field| look(field, levels - 1));
    }
    schema
        .items()
        .into_iter()
        .for_each(|item| look(item, levels - 1));
}

/// HTTPRoutes as their definition makes them.
static HTTP_ROUTE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    let kinds = definitions().into_iter().flat_map(|mut definition| {
        definition["status"] = json!({ "acceptedNames": definition["spec"]["names"] });
        Definition::kinds(&definition).unwrap()
    });
    let mut kinds = kinds.filter(|kind| **kind == **weft_kinds::HTTP_ROUTE);
    kinds.next().unwrap()
});

/// An HTTPRoute with something else at a place of it.
fn route() -> impl Strategy<Value = Value> {
    let place = proptest::sample::select(vec![
        "/spec",
        "/spec/parentRefs",
        "/spec/parentRefs/0",
        "/spec/rules",
        "/spec/rules/0",
        "/spec/rules/0/matches",
        "/spec/rules/0/matches/0/path/value",
        "/spec/rules/0/filters/0",
        "/spec/rules/0/filters/0/type",
        "/spec/rules/0/backendRefs/0/port",
        "/spec/rules/0/timeouts",
        "/spec/hostnames",
    ]);
    (place, value()).prop_map(|(place, value)| {
        let mut route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r", "namespace": "n"},
            "spec": {
                "hostnames": ["a.b"], "parentRefs": [{"name": "g", "group": "gateway.networking.k8s.io", "kind": "Gateway"}],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "timeouts": {"request": "1s"},
                    "filters": [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}}],
                    "backendRefs": [{"name": "s", "group": "", "kind": "Service", "port": 80, "weight": 1}],
                }],
            },
        });
        if let Some(found) = route.pointer_mut(place) {
            *found = value;
        }
        route
    })
}

fn pointer() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::collection::vec(prop_oneof![name(), "[0-3]|-|01"], 0..4)
            .prop_map(|parts| parts.iter().map(|part| format!("/{part}")).collect()),
        1 => ".{0,6}",
    ]
}
