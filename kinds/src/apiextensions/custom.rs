//! From a definition to kinds: one for each version that is served, and what they have in common.
//!
//! Objects of all versions lie under the same keys, each in the version that stored it, and are seen in the version that is asked for: what a
//! [`Kind`](crate::Kind) of a definition reads and judges has its own version, so that the write path knows none but that one.
//! [`Definition::read`] and [`Definition::write`] are the two ends of it.
//!
//! Invariants: kinds of one definition share one [`Definition`]; whatever is stored as a definition, nothing here panics: a version that
//! cannot be served is left out, with the reason.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::{Cause, StatusError};

use super::conversion::Conversion;
use super::json_path::JsonPath;
use super::{by_maturity, status};
use crate::Subresource;
use crate::columns::{Column, Row};
use crate::decode;
use crate::kind::{Kind, Name, Selectable};
use crate::lens::{flag, items, put, text};
use crate::schema::{Node, Schema};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::Problems;

/// What the kinds of one definition have in common.
pub struct Definition {
    /// Of the definition: `widgets.example.com`.
    pub name: String,
    pub uid: String,
    pub generation: i64,
    pub group: String,
    pub list_kind: String,
    pub conversion: Conversion,
    /// Whether it is on its way out, and takes no new objects.
    pub is_ending: bool,
    /// The names that were accepted, as discovery tells them.
    accepted: Value,
    versions: Vec<Version>,
    /// The place of the version that objects are stored in.
    storage: usize,
    /// The place of the version that stands for all where only one can: the one that objects are stored in, if it is served.
    primary: usize,
    /// Fields that selectors of any version may name.
    selectable: Vec<Selectable>,
}

struct Version {
    name: String,
    is_served: bool,
    has_status: bool,
    node: Node,
    /// The schema as clients are told it, as text: what is read of it is in `node`.
    schema: String,
    columns: Value,
    selectable: Vec<Selectable>,
    scale: Option<Scale>,
    /// What whoever uses it is told.
    warning: Option<String>,
}

/// Where a workload of a user's kind keeps its size, as JSON pointers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scale {
    pub spec_replicas: String,
    pub status_replicas: String,
    pub selector: Option<String>,
}

/// One version of a definition, as a kind has it.
#[derive(Clone)]
pub struct Custom {
    definition: Arc<Definition>,
    version: usize,
}

impl fmt::Debug for Custom {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.definition.name, self.name())
    }
}

impl Custom {
    pub fn definition(&self) -> &Arc<Definition> {
        &self.definition
    }

    fn version(&self) -> &Version {
        &self.definition.versions[self.version]
    }

    fn name(&self) -> &str {
        &self.version().name
    }

    /// The schema that its objects are read and judged by.
    pub(crate) fn node(&self) -> &Node {
        &self.version().node
    }

    /// The schema as the definition has it, as JSON.
    pub fn schema(&self) -> &str {
        &self.version().schema
    }

    pub fn scale(&self) -> Option<&Scale> {
        self.version().scale.as_ref()
    }

    /// What whoever uses a version is told that will not be served for ever.
    pub fn deprecation(&self) -> Option<&str> {
        self.version().warning.as_deref()
    }

    /// Whether it stands for all versions, where a stored object can be seen in one only.
    pub fn is_primary(&self) -> bool {
        self.version == self.definition.primary
    }

    /// What is stored, as this version shows it.
    pub fn read(&self, stored: &mut Value) {
        self.definition.read(self.version, stored);
    }

    /// What is stored, as the version that it is stored in has it now: pruned, and with its defaults.
    pub fn settle(&self, stored: &mut Value) {
        let from = self.definition.place_of(text(stored, "/apiVersion"));
        if let Some(place) = from {
            self.definition.settle(place, stored);
        }
    }

    /// Drops what this version does not know.
    pub fn fit(&self, value: &mut Value) {
        decode::repair(Schema::at(self.node()), value);
    }

    /// What was read in this version, as it is to be stored.
    pub fn write(&self, value: &mut Value) {
        self.definition.write(value);
    }
}

impl Definition {
    /// The `apiVersion` that objects are stored in.
    pub fn storage_api_version(&self) -> String {
        format!("{}/{}", self.group, self.versions[self.storage].name)
    }

    /// Fields that selectors of any version may name, in the order in which caches keep them.
    pub fn selectable(&self) -> &[Selectable] {
        &self.selectable
    }

    /// Unlike that of any other definition, and of any other state of this one that would serve other objects.
    pub fn serial(&self) -> String {
        format!("{}/{}", self.uid, self.generation)
    }

    /// Whether both serve the same in the same way.
    pub fn serves_as(&self, other: &Self) -> bool {
        self.uid == other.uid
            && self.generation == other.generation
            && self.is_ending == other.is_ending
            && self.accepted == other.accepted
    }

    fn place_of(&self, api_version: &str) -> Option<usize> {
        let version = api_version.strip_prefix(self.group.as_str())?;
        let version = version.strip_prefix('/')?;
        self.versions.iter().position(|known| known.name == version)
    }

    /// What is stored, in the version at a place: first as the version that it was stored in has it now, with its defaults; then without what
    /// the other does not know.
    fn read(&self, place: usize, stored: &mut Value) {
        let from = self.place_of(text(stored, "/apiVersion"));
        if let Some(place) = from {
            self.settle(place, stored);
        }
        if from != Some(place) {
            self.convert(place, stored);
        }
    }

    fn settle(&self, place: usize, stored: &mut Value) {
        let schema = Schema::at(&self.versions[place].node);
        decode::repair(schema, stored);
        decode::structural::default(schema, stored);
    }

    fn write(&self, value: &mut Value) {
        if self.place_of(text(value, "/apiVersion")) != Some(self.storage) {
            self.convert(self.storage, value);
        }
    }

    /// Conversion without a webhook: another version of the same fields.
    fn convert(&self, place: usize, value: &mut Value) {
        let version = &self.versions[place];
        if let Some(map) = value.as_object_mut() {
            let api_version = format!("{}/{}", self.group, version.name);
            map.insert("apiVersion".to_owned(), api_version.into());
        }
        decode::repair(Schema::at(&version.node), value);
    }

    /// The kinds of a definition: those of its versions that are served, the most mature first. Versions that cannot be are told with the reason.
    pub fn kinds(definition: &Value) -> Result<Vec<Arc<Kind>>, String> {
        let definition = Arc::new(Self::read_of(definition)?);
        let served = definition.versions.iter().enumerate();
        let served = served.filter(|(_, version)| version.is_served);
        Ok(served
            .map(|(place, _)| Arc::new(definition.kind(place)))
            .collect())
    }

    /// The kind that its objects are removed as, whether any version is served or not.
    pub fn primary_kind(definition: &Value) -> Result<Arc<Kind>, String> {
        let definition = Arc::new(Self::read_of(definition)?);
        Ok(Arc::new(definition.kind(definition.primary)))
    }

    fn read_of(definition: &Value) -> Result<Self, String> {
        let spec = &definition["spec"];
        let group = text(spec, "/group");
        let mut versions = Vec::new();
        let mut all: Vec<&Value> = items(spec, "/versions").iter().collect();
        all.sort_by(|one, other| by_maturity(text(one, "/name"), text(other, "/name")));
        let mut storage = None;
        for version in all {
            if flag(version, "/storage") {
                storage = Some(versions.len());
            }
            versions.push(Version::read(spec, version)?);
        }
        let storage = storage.ok_or("no version is marked as storage version")?;
        let served = versions.iter().position(|version| version.is_served);
        let primary = match versions[storage].is_served {
            true => storage,
            false => served.unwrap_or(storage),
        };
        let accepted = definition
            .pointer("/status/acceptedNames")
            .filter(|names| !text(names, "/plural").is_empty())
            .ok_or("no names were accepted")?;
        let mut selectable: Vec<Selectable> = Vec::new();
        for field in versions
            .iter()
            .flat_map(|version: &Version| &version.selectable)
        {
            if !selectable
                .iter()
                .any(|known| known.pointer == field.pointer)
            {
                selectable.push(field.clone());
            }
        }
        Ok(Self {
            name: text(definition, "/metadata/name").to_owned(),
            uid: text(definition, "/metadata/uid").to_owned(),
            generation: crate::lens::integer(definition, "/metadata/generation").unwrap_or(0),
            group: group.to_owned(),
            list_kind: text(accepted, "/listKind").to_owned(),
            conversion: Conversion::read(spec),
            is_ending: status::is_ending(definition),
            accepted: json!({ "names": accepted, "scope": spec["scope"] }),
            versions,
            storage,
            primary,
            selectable,
        })
    }

    fn kind(self: &Arc<Self>, place: usize) -> Kind {
        let version = &self.versions[place];
        let names = &self.accepted["names"];
        let owned = |pointer: &str| -> Name { Cow::Owned(text(names, pointer).to_owned()) };
        let list = |pointer: &str| -> Vec<Name> {
            let list = items(names, pointer).iter().filter_map(Value::as_str);
            list.map(|name| Cow::Owned(name.to_owned())).collect()
        };
        let mut subresources = Vec::new();
        if version.has_status {
            subresources.push(Subresource::Status);
        }
        if version.scale.is_some() {
            subresources.push(Subresource::Scale);
        }
        let strategy = CustomObjects {
            has_status: subresources.contains(&Subresource::Status),
            scale: version.scale.clone(),
            group: self.group.clone(),
            resource: text(names, "/plural").to_owned(),
            is_ending: self.is_ending,
        };
        Kind {
            singular: owned("/singular"),
            short_names: list("/shortNames"),
            categories: list("/categories"),
            namespaced: text(&self.accepted, "/scope") == "Namespaced",
            subresources,
            columns: columns_of(&version.columns),
            selectable: version.selectable.clone(),
            counts_generations: true,
            merges_strategically: false,
            custom: Some(Custom {
                definition: Arc::clone(self),
                version: place,
            }),
            strategy: Arc::new(strategy),
            ..Kind::new(
                self.group.clone(),
                version.name.clone(),
                owned("/kind"),
                owned("/plural"),
            )
        }
    }
}

impl Version {
    fn read(spec: &Value, version: &Value) -> Result<Self, String> {
        let name = text(version, "/name").to_owned();
        // One of before schemas were asked for keeps whatever it is sent.
        let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        let schema = version.pointer("/schema/openAPIV3Schema");
        let schema = schema
            .filter(|schema| schema.is_object())
            .unwrap_or(&anything);
        let node = Node::parse(schema).map_err(|error| format!("version {name}: {error}"))?;
        let pointer = |path: &str| {
            let steps = path.split('.').skip(1);
            steps.fold(String::new(), |pointer, step| {
                format!("{pointer}/{}", step.replace('~', "~0").replace('/', "~1"))
            })
        };
        let scale = version.pointer("/subresources/scale").map(|scale| {
            let selector = text(scale, "/labelSelectorPath");
            Scale {
                spec_replicas: pointer(text(scale, "/specReplicasPath")),
                status_replicas: pointer(text(scale, "/statusReplicasPath")),
                selector: (!selector.is_empty()).then(|| pointer(selector)),
            }
        });
        let warning = flag(version, "/deprecated").then(|| {
            let own = version.get("deprecationWarning").and_then(Value::as_str);
            own.map_or_else(|| deprecation(spec, &name), str::to_owned)
        });
        Ok(Self {
            is_served: flag(version, "/served"),
            has_status: version
                .pointer("/subresources/status")
                .is_some_and(|status| !status.is_null()),
            schema: schema.to_string(),
            columns: version["additionalPrinterColumns"].clone(),
            selectable: selectable_of(version),
            node,
            scale: scale.filter(|scale| !scale.spec_replicas.is_empty()),
            warning,
            name,
        })
    }
}

/// What is told of a deprecated version that says nothing itself.
fn deprecation(spec: &Value, version: &str) -> String {
    let (group, kind) = (text(spec, "/group"), text(spec, "/names/kind"));
    let newer = items(spec, "/versions").iter().filter(|other| {
        flag(other, "/served")
            && !flag(other, "/deprecated")
            && by_maturity(text(other, "/name"), version).is_lt()
    });
    let best = newer
        .map(|other| text(other, "/name"))
        .min_by(|one, other| by_maturity(one, other));
    let told = format!("{group}/{version} {kind} is deprecated");
    match best {
        Some(best) => format!("{told}; use {group}/{best} {kind}"),
        None => told,
    }
}

fn selectable_of(version: &Value) -> Vec<Selectable> {
    let paths = items(version, "/selectableFields").iter();
    let paths = paths.map(|field| text(field, "/jsonPath"));
    paths
        .filter(|path| path.starts_with('.'))
        .filter_map(|path| {
            let schema = version.pointer("/schema/openAPIV3Schema");
            let default = path.split('.').skip(1).try_fold(schema?, |schema, step| {
                let property = schema.get("properties").and_then(|all| all.get(step));
                property.or_else(|| schema.get("additionalProperties"))
            });
            let default = default.and_then(|schema| schema.get("default"));
            Some(Selectable {
                field: Cow::Owned(path[1..].to_owned()),
                pointer: Cow::Owned(path.replace('.', "/")),
                instead: None,
                // An object that was stored before the default came has it all the same.
                absent: match default {
                    Some(Value::String(text)) => Cow::Owned(text.clone()),
                    Some(other) => Cow::Owned(other.to_string()),
                    None => Cow::Borrowed(""),
                },
            })
        })
        .collect()
}

fn columns_of(own: &Value) -> Vec<Column> {
    let mut columns = vec![Column::name()];
    let own = items(own, "");
    if own.is_empty() {
        columns.push(column(&json!({
            "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "Time since the object was created.",
        })));
        return columns;
    }
    for one in own {
        // A path that is not understood ends the table there.
        if JsonPath::parse(text(one, "/jsonPath")).is_none() {
            break;
        }
        columns.push(column(one));
    }
    columns
}

fn column(column: &Value) -> Column {
    let path = text(column, "/jsonPath");
    let described = match text(column, "/description") {
        "" => format!("Custom resource definition column (in JSONPath format): {path}"),
        own => own.to_owned(),
    };
    let parsed = JsonPath::parse(path);
    let kind = match text(column, "/type") {
        "integer" => "integer",
        "number" => "number",
        "boolean" => "boolean",
        "date" => "date",
        _ => "string",
    };
    let format = text(column, "/format");
    let priority = crate::lens::integer(column, "/priority").unwrap_or(0);
    Column {
        name: Cow::Owned(text(column, "/name").to_owned()),
        kind,
        format: KNOWN_FORMATS
            .iter()
            .find(|known| **known == format)
            .copied()
            .unwrap_or(""),
        description: Cow::Owned(described),
        priority: i32::try_from(priority).unwrap_or(0),
        cell: Box::new(move |row| {
            let path = parsed.as_ref();
            let found = path.and_then(|path| path.find(row.object).ok());
            let first = found.and_then(|found| found.first().copied());
            first.map_or(Value::Null, |value| cell(kind, value, row))
        }),
    }
}

const KNOWN_FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];

/// What a column of a type shows of a value; nothing of one of another type.
fn cell(kind: &str, value: &Value, row: &Row<'_>) -> Value {
    match (kind, value) {
        ("string", Value::String(text)) => text.clone().into(),
        ("string", other) => other.to_string().into(),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(whole) => whole.into(),
            // As Go cuts a fraction off.
            None => number.as_f64().map_or(Value::Null, |number| {
                format!("{:.0}", number.trunc())
                    .parse::<i64>()
                    .map_or(Value::Null, Value::from)
            }),
        },
        ("number", Value::Number(number)) => match number.as_f64() {
            Some(number) if number.fract() == 0.0 && number.abs() < 1e15 => format!("{number:.0}")
                .parse::<i64>()
                .map_or(Value::Null, Value::from),
            Some(number) => number.into(),
            None => Value::Null,
        },
        ("boolean", Value::Bool(_)) => value.clone(),
        ("date", Value::String(text)) => match text.parse() {
            Ok(then) => row.since(Some(then)).into(),
            Err(_) => "<invalid>".into(),
        },
        _ => Value::Null,
    }
}

/// How objects of users' kinds are treated: by their schema, and what every object is held to.
struct CustomObjects {
    has_status: bool,
    scale: Option<Scale>,
    group: String,
    resource: String,
    is_ending: bool,
}

impl CustomObjects {
    fn replicas(&self, new: &Value, pointer: &str, problems: &mut Problems) {
        let path = pointer.replace('/', ".");
        let told = match new.pointer(pointer) {
            None => return,
            Some(value) => match value.as_i64() {
                None => format!(
                    "{path} accessor error: {} is of the type {}, expected int64",
                    shown(value),
                    go_type(value)
                ),
                Some(number) if number < 0 => "should be a non-negative integer".to_owned(),
                Some(number) if number > i64::from(i32::MAX) => {
                    format!("should be less than or equal to {}", i32::MAX)
                }
                Some(_) => return,
            },
        };
        let value = new.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
        problems.add(Cause::invalid(&path, &value.into(), &told));
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

impl Strategy for CustomObjects {
    /// Everything but the metadata counts, and where the status is written apart, the status.
    fn asks_for_change(&self, next: &Value, old: &Value) -> bool {
        let without = |value: &Value| {
            let mut value = value.clone();
            put(&mut value, "metadata", None);
            if self.has_status {
                put(&mut value, "status", None);
            }
            value
        };
        without(next) != without(old)
    }

    fn admit(&self, new: &mut Value, _: &dyn Surroundings) -> Result<(), StatusError> {
        if self.is_ending {
            let name = text(new, "/metadata/name");
            let told = "create not allowed while custom resource definition is terminating";
            return Err(StatusError::forbidden(
                &self.resource,
                &self.group,
                name,
                told,
            ));
        }
        Ok(())
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        // Of an update, only those that it adds would be told.
        if !text(value, "/metadata/resourceVersion").is_empty() {
            return Vec::new();
        }
        let all = items(value, "/metadata/finalizers").iter();
        let all: BTreeSet<&str> = all.filter_map(Value::as_str).collect();
        all.into_iter().flat_map(finalizer_warnings).collect()
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn takes_any_finalizer(&self) -> bool {
        true
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        if let Some(scale) = &self.scale {
            self.replicas(new, &scale.spec_replicas, problems);
            self.replicas(new, &scale.status_replicas, problems);
            if let Some(selector) = &scale.selector
                && let Some(value) = new.pointer(selector)
                && !value.is_string()
            {
                let path = selector.replace('/', ".");
                let told = format!(
                    "{path} accessor error: {} is of the type {}, expected string",
                    shown(value),
                    go_type(value)
                );
                problems.add(Cause::invalid(&path, &"".into(), &told));
            }
        }
    }
}

fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let told = |what: &str| format!("metadata.finalizers: {finalizer:?}: {what}");
    let mut warnings: Vec<String> = name::qualified_name_faults(finalizer)
        .iter()
        .map(|fault| told(fault))
        .collect();
    let standard = ["orphan", "foregroundDeletion", "kubernetes"];
    if !finalizer.contains('/') && !standard.contains(&finalizer) {
        let path = match finalizer.contains('.') {
            true => " including a path (/)",
            false => "",
        };
        warnings.push(told(&format!(
            "prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer writers"
        )));
    }
    warnings
}

/// A member of `value` at a pointer, made where it is not.
pub fn set_at(value: &mut Value, pointer: &str, new: Value) {
    let mut place = value;
    for step in pointer.split('/').skip(1) {
        let step = step.replace("~1", "/").replace("~0", "~");
        if !place.is_object() {
            *place = json!({});
        }
        let Some(map) = place.as_object_mut() else {
            return;
        };
        place = map.entry(step).or_insert(Value::Null);
    }
    *place = new;
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::{CUSTOM_RESOURCE_DEFINITION, Registry, validate};

    fn definition() -> Value {
        json!({
            "metadata": { "name": "widgets.example.com", "uid": "u", "generation": 1 },
            "spec": {
                "group": "example.com", "scope": "Namespaced", "names": { "plural": "widgets", "kind": "Widget" },
                "conversion": { "strategy": "None" },
                "versions": [
                    { "name": "v1beta1", "served": true, "storage": true, "deprecated": true, "schema": { "openAPIV3Schema": {
                        "type": "object", "properties": { "spec": { "type": "object", "properties": { "old": { "type": "string" }, "both": { "type": "integer", "default": 7 } } } },
                    } } },
                    {
                        "name": "v1", "served": true, "storage": false, "schema": { "openAPIV3Schema": {
                            "type": "object", "properties": { "spec": { "type": "object", "properties": { "new": { "type": "string" }, "both": { "type": "integer" } } } },
                        } },
                        "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.both", "statusReplicasPath": ".status.replicas" } },
                        "selectableFields": [{ "jsonPath": ".spec.new" }],
                        "additionalPrinterColumns": [
                            { "name": "Both", "type": "integer", "jsonPath": ".spec.both" },
                            { "name": "Half", "type": "number", "jsonPath": ".spec.half" },
                            { "name": "On", "type": "boolean", "jsonPath": ".spec.on" },
                            { "name": "When", "type": "date", "jsonPath": ".spec.when", "priority": 1 },
                            { "name": "Any", "type": "string", "jsonPath": ".spec.any" },
                            { "name": "Bad", "type": "string", "jsonPath": ".spec[" },
                            { "name": "Behind", "type": "string", "jsonPath": ".spec.behind" },
                        ],
                    },
                    { "name": "v1alpha1", "served": false, "storage": false, "schema": { "openAPIV3Schema": { "type": "object" } } },
                ],
            },
            "status": { "acceptedNames": { "plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"] } },
        })
    }

    #[test]
    fn versions_that_are_served_are_kinds_of_one_store() {
        let kinds = Definition::kinds(&definition()).unwrap();
        let shown: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
        assert_eq!(
            shown,
            ["example.com/v1/widgets", "example.com/v1beta1/widgets"]
        );
        let (new, old) = (&kinds[0], &kinds[1]);
        assert!(old.stands_for_stored() && !new.stands_for_stored());
        assert_eq!(new.subresources, [Subresource::Status, Subresource::Scale]);
        assert!(old.subresources.is_empty());
        assert_eq!(new.key_prefix(), old.key_prefix());
        assert_eq!(new.looked_at().len(), 1);
        assert_eq!(
            old.custom.as_ref().unwrap().deprecation(),
            Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
        );
        let (registry, left_out) = Registry::extended(kinds.clone());
        assert!(left_out.is_empty());
        let key = b"/example.com/widgets/default/a";
        assert_eq!(registry.by_key(key), Some(old));
        assert_eq!(registry.by_group_kind("example.com", "Widget"), Some(old));
        assert_eq!(registry.groups().last().unwrap().1, ["v1", "v1beta1"]);
        // The same once more, and one that takes the place of what is compiled in.
        let mut other = definition();
        other["metadata"]["uid"] = "other".into();
        let twice = kinds
            .iter()
            .cloned()
            .chain(Definition::kinds(&other).unwrap());
        assert_eq!(Registry::extended(twice).1.len(), 2);

        let stored = json!({
            "apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": { "name": "a" },
            "spec": { "old": "x", "gone": 1 },
        });
        let read = |kind: &Kind| {
            let mut value = stored.clone();
            kind.custom.as_ref().unwrap().read(&mut value);
            (value["apiVersion"].clone(), value["spec"].clone())
        };
        assert_eq!(
            read(old),
            (
                json!("example.com/v1beta1"),
                json!({ "old": "x", "both": 7 })
            )
        );
        assert_eq!(read(new), (json!("example.com/v1"), json!({ "both": 7 })));
        let mut written = json!({
            "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "a" },
            "spec": { "new": "y", "both": 1 },
        });
        new.custom.as_ref().unwrap().write(&mut written);
        assert_eq!(
            written,
            json!({
                "apiVersion": "example.com/v1beta1", "kind": "Widget", "metadata": { "name": "a" },
                "spec": { "both": 1 },
            })
        );
    }

    #[test]
    fn cells_show_values_of_their_type() {
        let kinds = Definition::kinds(&definition()).unwrap();
        let columns = &kinds[0].columns;
        let names: Vec<&str> = columns.iter().map(|column| &*column.name).collect();
        assert_eq!(names, ["Name", "Both", "Half", "On", "When", "Any"]);
        let cells = |spec: Value| -> Value {
            let object = json!({ "metadata": { "name": "a" }, "spec": spec });
            let row = Row {
                object: &object,
                now: "2026-01-01T01:00:00Z".parse::<Timestamp>().unwrap(),
            };
            columns.iter().map(|column| (column.cell)(&row)).collect()
        };
        assert_eq!(
            cells(
                json!({ "both": 3, "half": 0.5, "on": true, "when": "2026-01-01T00:00:00Z", "any": { "b": [1] } })
            ),
            json!(["a", 3, 0.5, true, "60m", "{\"b\":[1]}"])
        );
        assert_eq!(
            cells(json!({ "both": 3.7, "half": 2, "on": "yes", "when": "soon", "any": 5 })),
            json!(["a", 3, 2, null, "<invalid>", "5"])
        );
        assert_eq!(cells(json!({})), json!(["a", null, null, null, null, null]));
    }

    /// Whatever lies in the store as a definition, or is sent as one.
    #[test]
    fn nothing_that_a_definition_says_ends_the_server() {
        let base = definition();
        let mut pointers = Vec::new();
        fn walk(value: &Value, at: String, pointers: &mut Vec<String>) {
            match value {
                Value::Object(map) => map.iter().for_each(|(key, value)| {
                    walk(value, format!("{at}/{}", key.replace('/', "~1")), pointers);
                }),
                Value::Array(items) => items
                    .iter()
                    .enumerate()
                    .for_each(|(index, value)| walk(value, format!("{at}/{index}"), pointers)),
                _ => {}
            }
            pointers.push(at);
        }
        walk(&base, String::new(), &mut pointers);
        let gvk = CUSTOM_RESOURCE_DEFINITION.gvk();
        let odd = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(""),
            json!("~0/.é["),
            json!([]),
            json!([null, [1], "x"]),
            json!({}),
            json!({ "x": { "y": null } }),
        ];
        let mut judged = 0;
        for pointer in &pointers {
            for value in &odd {
                let mut mutant = base.clone();
                *mutant.pointer_mut(pointer).unwrap() = value.clone();
                let _ = Definition::kinds(&mutant);
                let _ = Definition::primary_kind(&mutant);
                let _ = super::super::status::next(&mutant, &[&mutant, &base], "now");
                let Ok(decoded) = crate::decode::value(&gvk, &mutant) else {
                    continue;
                };
                let mut sent = decoded.value;
                let strategy = &CUSTOM_RESOURCE_DEFINITION.strategy;
                strategy.default(&mut sent);
                judged += 1;
                let _ = validate::created(&CUSTOM_RESOURCE_DEFINITION, &sent);
                for kind in Definition::kinds(&sent).into_iter().flatten() {
                    let mut object = json!({ "apiVersion": "example.com/v1", "metadata": [], "spec": { "both": {} } });
                    if let Some(custom) = &kind.custom {
                        custom.read(&mut object);
                        custom.write(&mut object);
                    }
                    let _ = validate::created(&kind, &object);
                }
            }
        }
        assert!(judged > 250, "{judged}");
    }
}
