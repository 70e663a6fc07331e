//! Patches of every type, on the manifest of a kind that the first byte chooses, and who owns which fields.

use std::sync::LazyLock;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_apiserver::http::negotiate;
use weft_kinds::apply::{self, Scope, Set, Writable, Writer, one_version};
use weft_kinds::patch::{self, PatchKind};
use weft_kinds::schema::Schema;
use weft_kinds::{Kind, decode};

use crate::{bodies, seeds};

/// A manifest as it would be stored.
fn live(chosen: u8) -> (&'static Kind, Value) {
    static CANONICAL: LazyLock<Vec<(u8, Value)>> = LazyLock::new(|| {
        let manifests = seeds::MANIFESTS.iter();
        let canonical = manifests.filter_map(|manifest| {
            let byte = seeds::byte_of(manifest)?;
            let decoded = decode::value(seeds::kind(byte), manifest).ok()?;
            Some((byte, decoded.value))
        });
        canonical.collect()
    });
    let (byte, value) = &CANONICAL[usize::from(chosen) % CANONICAL.len()];
    (seeds::kind(*byte), value.clone())
}

fn patched(input: &[u8], patch_kind: PatchKind) {
    let Some((chosen, body)) = input.split_first() else {
        return;
    };
    let Ok(read) = negotiate::decode_json(body) else {
        return;
    };
    let (kind, current) = live(*chosen);
    let gvk = kind.gvk();
    let Ok(result) = patch::apply(&gvk, &current, patch_kind, &read.value) else {
        return;
    };
    let decoded = match patch_kind {
        PatchKind::Strategic => decode::merged(&gvk, &result),
        PatchKind::Json | PatchKind::Merge => decode::value(kind, &result),
    };
    let Ok(decoded) = decoded else {
        return;
    };
    if !decoded.value.is_object() {
        return;
    }
    assert!(
        decode::is_bounded(&decoded.value),
        "deeper than may be stored"
    );
    bodies::judged(kind, decoded.value.clone());
    let _ = weft_kinds::validate::updated(kind, &decoded.value, &current, None);
    // Whoever patches owns what changed.
    let scope = scope(&gvk);
    let (owned, _) = apply::update(&scope, Some(&current), decoded.value, writer("patch", 1));
    let _ = apply::apply(&scope, Some(&owned), &current, writer("apply", 2), true);
}

fn scope(gvk: &GroupVersionKind) -> Scope<'_> {
    Scope {
        gvk,
        subresource: "",
        schema: Schema::of(gvk),
        writable: &Writable::All,
        convert: &one_version,
    }
}

fn writer(manager: &str, second: i64) -> Writer<'_> {
    Writer {
        manager,
        now: Timestamp::from_second(second).unwrap_or_default(),
    }
}

pub fn json(input: &[u8]) {
    patched(input, PatchKind::Json);
}

pub fn json_seeds() -> Vec<Vec<u8>> {
    let patches = [
        json!([{"op": "test", "path": "/kind", "value": "Pod"}, {"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]),
        json!([{"op": "add", "path": "/spec/containers/-", "value": {"name": "x"}}, {"op": "remove", "path": "/spec/containers/0"}]),
        json!([{"op": "copy", "from": "/spec", "path": "/spec/template"}, {"op": "move", "from": "/metadata/name", "path": "/metadata/uid"}]),
        json!([{"op": "replace", "path": "/spec/replicas", "value": 3}, {"op": "add", "path": "/metadata/annotations/a~1b", "value": "c"}]),
        json!([{"op": "replace", "path": "", "value": {"apiVersion": "v1"}}]),
    ];
    on_each(&patches)
}

pub fn merge(input: &[u8]) {
    patched(input, PatchKind::Merge);
}

pub fn merge_seeds() -> Vec<Vec<u8>> {
    let patches = [
        json!({"metadata": {"labels": {"a": "b", "app": null}, "finalizers": ["x/y"]}}),
        json!({"spec": {"replicas": 3, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
        json!({"spec": null, "data": {"k": "v"}, "status": {"phase": "Running"}}),
    ];
    on_each(&patches)
}

pub fn strategic(input: &[u8]) {
    patched(input, PatchKind::Strategic);
}

pub fn strategic_seeds() -> Vec<Vec<u8>> {
    let patches = [
        json!({"spec": {"containers": [{"name": "c", "$patch": "delete"}, {"name": "d", "image": "i"}], "$setElementOrder/containers": [{"name": "d"}]}}),
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "env": [{"name": "A", "value": "b"}], "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}}}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"], "finalizers": ["b"]}}),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}, "ports": [{"port": 80}, {"$patch": "replace"}]}}),
        json!({"$patch": "replace", "spec": {}}),
    ];
    on_each(&patches)
}

/// Patches on objects of a few kinds.
fn on_each(patches: &[Value]) -> Vec<Vec<u8>> {
    let pairs = (0..u8::MAX).step_by(9).flat_map(|byte| {
        patches
            .iter()
            .map(move |patch| [vec![byte], patch.to_string().into_bytes()].concat())
    });
    pairs.collect()
}

pub fn apply(input: &[u8]) {
    let Some((chosen, body)) = input.split_first() else {
        return;
    };
    let Ok(applied) = negotiate::decode_applied(body) else {
        return;
    };
    let (kind, current) = live(*chosen);
    let gvk = kind.gvk();
    let scope = scope(&gvk);
    for live in [None, Some(&current)] {
        let Ok(once) = apply::apply(&scope, live, &applied.value, writer("a", 1), false) else {
            continue;
        };
        // What was applied once is applied.
        let twice = apply::apply(&scope, Some(&once), &applied.value, writer("a", 2), false);
        assert_eq!(twice.ok().as_ref(), Some(&once));
        let other = apply::apply(&scope, Some(&once), &current, writer("b", 3), true);
        if let Ok(other) = other
            && let Ok(decoded) = decode::value(kind, &other)
        {
            bodies::judged(kind, decoded.value);
        }
    }
}

pub fn apply_seeds() -> Vec<Vec<u8>> {
    seeds::bodies(|manifest| Some(manifest.to_string().into_bytes()))
}

pub fn fields(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<Value>(input) else {
        return;
    };
    if let Ok(set) = Set::parse(&value) {
        let written = set.to_json();
        let read = Set::parse(&written).ok();
        assert_eq!(read.as_ref(), Some(&set));
        assert_eq!(set.union(&set), set);
        assert!(set.difference(&set).is_empty());
    }
    // As a manager's entry of an object, too.
    let gvk = GroupVersionKind::new("", "v1", "ConfigMap");
    let scope = scope(&gvk);
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    object["metadata"]["managedFields"] = json!([{
        "manager": "m", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": value,
    }]);
    let next = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "w"}});
    let _ = apply::apply(&scope, Some(&object), &next, writer("m", 1), true);
    let _ = apply::update(&scope, Some(&object), object.clone(), writer("n", 1));
}

pub fn fields_seeds() -> Vec<Vec<u8>> {
    let sets = [
        json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {".": {}, "f:image": {}}}}}),
        json!({"f:data": {"f:k": {}}, "f:list": {"v:1": {}, "v:\"a\"": {}, "i:0": {"f:x": {}}, "k:{\"a\":1,\"b\":\"c\"}": {}}}),
        json!({}),
    ];
    sets.map(|set| set.to_string().into_bytes()).to_vec()
}
