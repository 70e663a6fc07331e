//! From what a client sent to what is stored: one pipeline for bodies, results of patches, and old objects.
//!
//! `depth → type and format → unknown and duplicate fields dropped and told → nulls and zeros as they are always
//! written`: [`text`] for a body's JSON, [`value`] for what has been parsed or patched already. Built-in kinds are read as
//! Kubernetes' Go types are ([`typed`]), others by their structural schema ([`structural`]); both by one
//! [`Schema`]. The result is canonical: equal objects are equal values, so that equality, generations and immutability can be
//! judged by comparing. What a client left out is filled in after this by the kind, and [`fill`] by the schema.
//!
//! Invariants: pure; bytes from outside never panic and are bounded in depth; `value(canonical)` changes nothing (each
//! test of it looks); no unknown field ever gets past here.
//! Left to others: rules of kinds (`crate::validate`), and whether unknown fields are refused, told or ignored.

mod convert;
pub(crate) mod findings;
mod scalar;
mod strfmt;
pub(crate) mod structural;
mod typed;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::de::{DeserializeSeed as _, MapAccess, SeqAccess};
use serde_json::Value;
use weft_api::gvk::GroupVersionKind;
use weft_api::status::Cause;

use crate::Kind;
use crate::cel::rules;
use crate::schema::{Node, Schema};
use crate::walk::{Containers, Walk};

pub(crate) use scalar::url_bytes;

/// How deep objects and lists may stand in one another, in what is stored and in every step on the way there. Below the
/// 128 levels at which this server's own JSON reader stops, by what a list or a watch event puts around an object; the
/// deepest path of a kind has about 20.
pub const DEPTH_MAX: usize = 100;

/// Faults that are told of one body; one made of mistakes must not make the answer large.
const FAULTS_MAX: usize = 100;

/// An object as it is stored, and what was dropped to make it so.
#[derive(Debug, PartialEq)]
pub struct Decoded {
    pub value: Value,
    /// In the words of Kubernetes' strict decoder: `unknown field "spec.replcas"`, `duplicate field "metadata.name"`.
    pub faults: Vec<String>,
}

/// Why something is no object of its kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("the request body is not valid JSON: {0}")]
    Syntax(String),
    /// In the words of Go's decoder.
    #[error("{0}")]
    Unfit(String),
}

/// How objects are read.
#[derive(Clone, Copy)]
pub enum Reading<'a> {
    /// As a Go type of Kubernetes.
    Typed(Schema<'static>),
    /// By a structural schema.
    Structural(Schema<'a>),
    /// As they are: no schema is known.
    Free,
}

/// What says how objects are read: the name of a kind that is compiled in, or a kind.
pub trait Readable {
    fn reading(&self) -> Reading<'_>;
}

impl Readable for GroupVersionKind {
    fn reading(&self) -> Reading<'_> {
        reading_by(Schema::of(self))
    }
}

/// By a schema of the committed table, or by none.
fn reading_by(schema: Option<Schema<'static>>) -> Reading<'static> {
    match schema {
        Some(schema) if schema.is_typed() => Reading::Typed(schema),
        Some(schema) => Reading::Structural(schema),
        None => Reading::Free,
    }
}

impl Readable for Kind {
    fn reading(&self) -> Reading<'_> {
        match &self.custom {
            Some(version) => Reading::Structural(Schema::at(version.node())),
            None => {
                let schema = Schema::of_kind(&self.group, &self.version, &self.kind);
                reading_by(schema)
            }
        }
    }
}

impl<T: Readable> Readable for Arc<T> {
    fn reading(&self) -> Reading<'_> {
        (**self).reading()
    }
}

/// A structural schema alone.
impl Readable for Node {
    fn reading(&self) -> Reading<'_> {
        Reading::Structural(Schema::at(self))
    }
}

/// Decodes a body in JSON.
///
/// # Errors
/// [`DecodeError::Syntax`] for what is no JSON, else for the first value that does not fit.
pub fn text(of: &impl Readable, body: &[u8]) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) => {
            let mut deserializer = serde_json::Deserializer::from_slice(body);
            let decoded = typed::read(schema, &mut deserializer)?;
            deserializer
                .end()
                .map_err(|error| DecodeError::Syntax(error.to_string()))?;
            Ok(decoded)
        }
        _ => {
            let parsed: Value = serde_json::from_slice(body)
                .map_err(|error| DecodeError::Syntax(error.to_string()))?;
            let mut decoded = owned(of, parsed)?;
            let mut faults: Vec<String> = duplicate_fields(body)
                .iter()
                .map(|field| format!("duplicate field {field:?}"))
                .collect();
            faults.append(&mut decoded.faults);
            decoded.faults = faults;
            Ok(decoded)
        }
    }
}

/// Decodes what is JSON already. A kind that no schema is known for keeps all its fields.
///
/// # Errors
/// [`DecodeError::Unfit`] for the first value that does not fit.
pub fn value(of: &impl Readable, value: &Value) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) if !typed::is_read(schema, value) => Ok(typed::read(schema, value)?),
        _ => owned(of, value.clone()),
    }
}

/// As [`value`], of a value that is given away: what is canonical comes back as it is.
///
/// # Errors
/// As [`value`].
pub fn owned(of: &impl Readable, value: Value) -> Result<Decoded, DecodeError> {
    match of.reading() {
        Reading::Typed(schema) if !typed::is_read(schema, &value) => {
            return typed::read(schema, &value);
        }
        Reading::Typed(_) => {}
        Reading::Structural(schema) => return structured(schema, value),
        Reading::Free => bounded(&value)?,
    }
    Ok(Decoded {
        value,
        faults: Vec::new(),
    })
}

/// As [`value`], for the result of a strategic merge patch: what does not fit is told as Kubernetes tells it there.
///
/// # Errors
/// As [`value`].
pub fn merged(of: &impl Readable, merged: &Value) -> Result<Decoded, DecodeError> {
    let decoded = value(of, merged);
    let told = match (&decoded, of.reading()) {
        (Err(DecodeError::Unfit(_)), Reading::Typed(schema)) => {
            bounded(merged)?;
            convert::fault(schema, "", merged)
        }
        _ => None,
    };
    match (decoded, told) {
        (Err(_), Some(told)) => Err(DecodeError::Unfit(told)),
        (Ok(mut decoded), _) => {
            decoded.faults.sort();
            Ok(decoded)
        }
        (decoded, None) => decoded,
    }
}

fn structured(schema: Schema<'_>, mut value: Value) -> Result<Decoded, DecodeError> {
    bounded(&value)?;
    structural::shorten_numbers(&mut value);
    let mut faults = Vec::new();
    // Metadata is Kubernetes' own type in every kind.
    if let (Some(metadata), Some(meta)) = (value.get_mut("metadata"), Schema::named(OBJECT_META))
        && !metadata.is_null()
        && !typed::is_read(meta, metadata)
    {
        let decoded = typed::read_below(meta, "metadata", &*metadata)?;
        *metadata = decoded.value;
        faults = decoded.faults;
    }
    let unknown = structural::prune(schema, &mut value)?;
    faults.extend(
        unknown
            .iter()
            .map(|path| format!("unknown field \"{path}\"")),
    );
    faults.truncate(FAULTS_MAX);
    Ok(Decoded { value, faults })
}

/// What an object of a kind is read as that says nothing, not even its kind.
pub(crate) fn blank(schema: Option<Schema<'_>>) -> Option<&Value> {
    schema.filter(Schema::is_typed).map(typed::blank)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Whether a value is nested no deeper than objects may be.
pub fn is_bounded(value: &Value) -> bool {
    is_within(value, DEPTH_MAX, &mut 0)
}

fn bounded(value: &Value) -> Result<(), DecodeError> {
    match is_bounded(value) {
        true => Ok(()),
        false => Err(DecodeError::Unfit(format!(
            "exceeded max depth of {DEPTH_MAX}"
        ))),
    }
}

/// Fills in the defaults that the schema of a kind carries.
pub fn fill(of: &impl Readable, value: &mut Value) {
    if let Reading::Structural(schema) = of.reading() {
        structural::default(schema, value);
    }
}

/// Whether values of a type are held to a format; others are told of.
pub(crate) fn knows_format(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => strfmt::is(format, "").is_some() || format == "email",
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Reads what was stored by a structural schema of before, whatever it holds: what does not fit is left for others to judge.
pub(crate) fn repair(schema: Schema<'_>, value: &mut Value) {
    // What no metadata can be stays as it is.
    let _ = structural::prune(schema, value);
}

/// Adds to `causes` the constraints and rules of the schema that an object of a structural kind breaks, as an update of `old` or as a
/// new object; none for built-in kinds, whose constraints Kubernetes judges in code.
///
/// What an update leaves as it was is not held against it.
pub fn violations(of: &impl Readable, value: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Reading::Structural(schema) = of.reading() else {
        return;
    };
    causes.extend(findings::validate(schema, value, old));
    // Where there are no rules, none is missed.
    match findings::unchecked(causes).filter(|_| schema.has_rules()) {
        Some(unchecked) => causes.push(unchecked),
        None => {
            let judgement = rules::judge(schema, value, old, rules::Options::default());
            causes.extend(judgement.causes);
        }
    }
}

/// Whether a value of a structural kind has a null that its schema neither allows nor replaces: what is read loses it, what was made here has it still.
pub fn has_unfit_null(of: &impl Readable, value: &Value) -> bool {
    match of.reading() {
        Reading::Structural(schema) => structural::has_unfit_null(schema, value),
        Reading::Typed(_) | Reading::Free => false,
    }
}

/// Whether `value` has at most `levels` of objects and lists in one another. `looked_at` counts the values visited.
pub(crate) fn is_within(value: &Value, levels: usize, looked_at: &mut usize) -> bool {
    *looked_at += 1;
    match value {
        Value::Object(map) => {
            levels > 0
                && map
                    .values()
                    .all(|value| is_within(value, levels - 1, looked_at))
        }
        Value::Array(items) => {
            levels > 0
                && items
                    .iter()
                    .all(|value| is_within(value, levels - 1, looked_at))
        }
        _ => true,
    }
}

/// The object keys that appear twice in a JSON text, as paths; a text that is not JSON gives what was seen before the
/// mistake. A parsed `Value` cannot tell: its last duplicate has won.
pub fn duplicate_fields(text: &[u8]) -> Vec<String> {
    let mut path = String::new();
    let mut found = Vec::new();
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // A syntax error is reported by the parser that reads the body for its content.
    let _ = Walk(Duplicates {
        path: &mut path,
        found: &mut found,
    })
    .deserialize(&mut deserializer);
    found
}

struct Duplicates<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl<'de> Containers<'de> for Duplicates<'_> {
    fn object<A: MapAccess<'de>>(self, mut members: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = members.next_key::<String>()? {
            let length = push_key(self.path, &key);
            if !seen.insert(key) && self.found.len() < FAULTS_MAX {
                self.found.push(self.path.clone());
            }
            members.next_value_seed(Walk(Duplicates {
                path: self.path,
                found: self.found,
            }))?;
            self.path.truncate(length);
        }
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let length = self.path.len();
        for index in 0.. {
            let _ = write!(self.path, "[{index}]");
            let more = elements.next_element_seed(Walk(Duplicates {
                path: self.path,
                found: self.found,
            }))?;
            self.path.truncate(length);
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }
}

/// Appends `.key` (or `key` at the root) and returns the length to cut back to.
fn push_key(path: &mut String, key: &str) -> usize {
    let length = path.len();
    if length > 0 {
        path.push('.');
    }
    path.push_str(key);
    length
}

#[cfg(test)]
mod tests {
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
        let route = json!({ "spec": { "rules": [{ "path": "/", "pat": "/" }] }, "metadata": { "Name": "x" } });
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
}
