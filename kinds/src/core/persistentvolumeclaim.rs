//! Claims of persistent volumes: what a pod asks for. A new one without a class has the default one, as Kubernetes' admission gives it.

use std::sync::{Arc, LazyLock};

use serde_json::{Map, Value};
use weft_api::name;
use weft_api::quantity::Quantity;
use weft_api::status::StatusError;

use crate::columns::{Column, Row};
use crate::field::Field;
use crate::lens::{fill, items, member, put, text};
use crate::storage::{IS_DEFAULT, STORAGE_CLASS};
use crate::strategy::{Strategy, Surroundings};
use crate::validate::{Problems, annotations, label_selector, labels};
use crate::{Kind, StatusMetadata, Subresource, default_class, quantity_of};

pub static PERSISTENT_VOLUME_CLAIM: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["pvc".into()],
        subresources: vec![Subresource::Status],
        columns: vec![
            Column::name(),
            Column::text("Status", phase, "Whether it is bound."),
            Column::text("Volume", volume, "What it is bound to."),
            Column::text("Capacity", capacity, "How large that is."),
            Column::text("Access Modes", modes, "How it can be mounted."),
            Column::text("StorageClass", class, "Its class."),
            Column::text(
                "VolumeAttributesClass",
                attributes,
                "Class of its attributes.",
            ),
            Column::age(),
            Column::text("VolumeMode", mode, "Files or blocks.").wide(),
        ],
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Claims),
        ..Kind::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims")
    })
});

/// In the order of Kubernetes' messages.
pub(crate) const ACCESS_MODES: &[&str] = &[
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];
pub(crate) const VOLUME_MODES: &[&str] = &["Block", "Filesystem"];
/// What named the class before there was a field for it.
pub(crate) const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// What a claim can be in on its way to another size.
const RESIZE_STATUSES: &[&str] = &[
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];
const FROZEN: &str = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";

/// Keeps a claim that pods use: put on at create, taken off by the controller.
const PROTECTION: &str = "kubernetes.io/pvc-protection";

/// Puts a finalizer on a new object, behind those that it has; after Kubernetes' admission plugin `StorageObjectInUseProtection`.
pub(crate) fn protect(new: &mut Value, finalizer: &str) {
    let finalizers = &mut member(new, "metadata")["finalizers"];
    if !finalizers.is_array() {
        *finalizers = Value::Array(Vec::new());
    }
    if let Some(finalizers) = finalizers.as_array_mut()
        && !finalizers.iter().any(|known| *known == finalizer)
    {
        finalizers.push(finalizer.into());
    }
}

struct Claims;

impl Strategy for Claims {
    fn prepare_for_create(&self, _: &Kind, new: &mut Value) {
        put(new, "status", None);
    }

    fn settle(&self, next: &mut Value, old: Option<&Value>) {
        settle_sources(next, old);
    }

    fn default(&self, value: &mut Value) {
        fill(member(value, "spec"), "volumeMode", "Filesystem");
        let status = member(value, "status");
        if text(status, "/phase").is_empty() {
            put(status, "phase", Some("Pending".into()));
        }
    }

    fn admit(&self, new: &mut Value, around: &dyn Surroundings) -> Result<(), StatusError> {
        let root = Field::root(new);
        let named = root.child("spec.storageClassName").is_set()
            || root.entry("metadata.annotations", BETA_CLASS).is_set();
        if !named && let Some(class) = default_class::newest(around, &STORAGE_CLASS, IS_DEFAULT) {
            put(member(new, "spec"), "storageClassName", Some(class.into()));
        }
        protect(new, PROTECTION);
        Ok(())
    }

    fn warn(&self, value: &Value, _: &dyn Surroundings) -> Vec<String> {
        let mut told = Vec::new();
        let root = Field::root(value);
        let annotation = root.entry("metadata.annotations", BETA_CLASS);
        if annotation.is_set() {
            told.push(format!(
                "{annotation}: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        for member in ["requests", "limits"] {
            let sizes = root.child("spec.resources");
            let size = sizes.entry(member, "storage");
            if size.quantity().is_some_and(|size| size.milli() % 1000 != 0) {
                told.push(format!(
                    "{size}: fractional byte value {:?} is invalid, must be an integer",
                    size.quantity()
                        .map(|size| size.to_string())
                        .unwrap_or_default()
                ));
            }
        }
        told
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validate_spec(&Field::root(new).child("spec"), problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        let (root, before) = (Field::root(new), Field::root(old));
        if part == Some(Subresource::Status) {
            return validate_status(&root.child("status"), problems);
        }
        self.validate(new, problems);
        let annotation = |root: &Field<'_, '_>| {
            root.entry("metadata.annotations", BETA_CLASS)
                .text()
                .to_owned()
        };
        let (class, kept) = (annotation(&root), annotation(&before));
        let from_annotation = class_from_annotation(&root, &before);
        if !from_annotation && class != kept {
            let path = format!("metadata.annotations[{BETA_CLASS}]");
            problems.invalid_at(&path, class, "field is immutable");
        }
        if fixed(&root, &before, from_annotation) != fixed(&before, &before, false) {
            problems.forbidden(&root.child("spec"), FROZEN);
        }
        let sizes = (root.child("spec.resources"), before.child("spec.resources"));
        let (size, had) = (
            sizes.0.entry("requests", "storage"),
            sizes.1.entry("requests", "storage"),
        );
        let least = quantity_of(
            old.pointer("/status/capacity/storage")
                .unwrap_or(&Value::Null),
        );
        let zero = || Quantity::from_value(0);
        let (asked, had) = (
            size.quantity().unwrap_or_else(zero),
            had.quantity().unwrap_or_else(zero),
        );
        if asked < had && asked <= least.unwrap_or_else(zero) {
            let sentence = "field can not be less than status.capacity";
            problems.forbidden_at("spec.resources.requests.storage", sentence);
        }
        problems.immutable(
            &root.child_as("spec.volumeMode", "volumeMode"),
            &before.child("spec.volumeMode"),
        );
        let attributes = root.child("spec.volumeAttributesClassName");
        let changed = attributes.value() != before.child("spec.volumeAttributesClassName").value();
        if changed
            && before
                .child("status.currentVolumeAttributesClassName")
                .is_set()
        {
            const SET: &str =
                "is forbidden when status.currentVolumeAttributesClassName is not nil";
            if !attributes.is_set() {
                problems.forbidden(&attributes, &format!("update to nil {SET}"));
            } else if attributes.text().is_empty() {
                problems.forbidden(&attributes, &format!("update to empty string {SET}"));
            }
        }
    }
}

/// Whether the class moves from the annotation, which named it before, to its field.
fn class_from_annotation(root: &Field<'_, '_>, before: &Field<'_, '_>) -> bool {
    let kept = before.entry("metadata.annotations", BETA_CLASS);
    let now = root.entry("metadata.annotations", BETA_CLASS);
    let class = root.child("spec.storageClassName");
    kept.is_set()
        && !before.child("spec.storageClassName").is_set()
        && class.value() == kept.value()
        && (!now.is_set() || now.value() == kept.value())
}

/// What of a claim stays as it was in `before`; what may change is left out.
fn fixed(
    claim: &Field<'_, '_>,
    before: &Field<'_, '_>,
    from_annotation: bool,
) -> Map<String, Value> {
    let mut spec = claim.child("spec").map().cloned().unwrap_or_default();
    // A claim is given a volume once, and a class once if it has none.
    if before.child("spec.volumeName").text().is_empty() {
        spec.remove("volumeName");
    }
    let annotation = before.entry("metadata.annotations", BETA_CLASS);
    let class = claim.child("spec.storageClassName");
    let given = class.is_set()
        && !before.child("spec.storageClassName").is_set()
        && (!annotation.is_set() || annotation.value() == class.value());
    if from_annotation || given {
        spec.remove("storageClassName");
    }
    if before.child("status.phase").text() == "Bound" {
        spec.remove("volumeAttributesClassName");
        if let Some(Value::Object(requests)) = spec
            .get_mut("resources")
            .and_then(|resources| resources.get_mut("requests"))
        {
            requests.remove("storage");
        }
    }
    spec
}

/// Where the first content comes from can be said in two fields, which then say the same; the older one takes two kinds only.
fn settle_sources(claim: &mut Value, old: Option<&Value>) {
    const OLDER: &str = "dataSource";
    const NEWER: &str = "dataSourceRef";
    let Some(spec) = claim.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    let source = |of: &Value, name: &str| of.get(name).filter(|value| !value.is_null()).cloned();
    let in_use = |name: &str| {
        old.and_then(|old| old.get("spec"))
            .is_some_and(|spec| source(spec, name).is_some())
    };
    // Content of another namespace is not served.
    let elsewhere = !text(spec, "/dataSourceRef/namespace").is_empty();
    if elsewhere && !in_use(NEWER) {
        put(spec, NEWER, None);
    }
    if !in_use(OLDER) && !in_use(NEWER) && source(spec, NEWER).is_none() {
        let group = text(spec, "/dataSource/apiGroup");
        let kind = text(spec, "/dataSource/kind");
        let known = matches!(
            (group, kind),
            ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot")
        );
        if !known {
            put(spec, OLDER, None);
        }
    }
    match (source(spec, OLDER), source(spec, NEWER)) {
        (Some(older), None) => put(spec, NEWER, Some(older)),
        (None, Some(newer)) if text(&newer, "/namespace").is_empty() => {
            let mut older = newer;
            put(&mut older, "namespace", None);
            put(spec, OLDER, Some(older));
        }
        _ => {}
    }
}

/// What a claim asks for, also in a template of one.
pub(crate) fn validate_spec(spec: &Field<'_, '_>, problems: &mut Problems) {
    let modes = spec.child("accessModes");
    if modes.is_empty() {
        problems.required(&modes, "at least 1 access mode is required");
    }
    let selector = spec.child("selector");
    if selector.is_set() {
        label_selector(&selector, problems);
    }
    validate_access_modes(spec, problems);
    size(spec, problems);
    let class = spec.child("storageClassName");
    if !class.text().is_empty() {
        problems.rule(&class, name::dns1123_subdomain_faults);
    }
    problems.one_of(&spec.child("volumeMode"), VOLUME_MODES);
    let (older, newer) = (spec.child("dataSource"), spec.child("dataSourceRef"));
    for source in [&older, &newer] {
        if source.is_set() {
            data_source(source, problems);
        }
    }
    let namespace = newer.child("namespace");
    if !namespace.text().is_empty() {
        problems.rule(&namespace, name::dns1123_label_faults);
    }
    if older.is_set() && newer.is_set() {
        let same = |member: &str| older.child(member).text() == newer.child(member).text();
        if !namespace.text().is_empty() {
            let sentence = "may not be specified when dataSourceRef.namespace is specified";
            problems.invalid(spec, older.to_string(), sentence);
        } else if !["apiGroup", "kind", "name"].into_iter().all(same) {
            problems.invalid(spec, older.to_string(), "must match dataSourceRef");
        }
    }
    let attributes = spec.child("volumeAttributesClassName");
    if !attributes.text().is_empty() {
        problems.rule(&attributes, name::dns1123_subdomain_faults);
    }
}

/// What a claim is made from: its metadata says labels and annotations alone.
pub(crate) fn validate_template(template: &Field<'_, '_>, problems: &mut Problems) {
    const NEVER: [(&str, &str); 13] = [
        ("name", "name"),
        ("generateName", "generateName"),
        ("namespace", "namespace"),
        ("selfLink", "selfLink"),
        ("uid", "uID"),
        ("resourceVersion", "resourceVersion"),
        ("generation", "generation"),
        ("creationTimestamp", "creationTimestamp"),
        ("deletionTimestamp", "deletionTimestamp"),
        ("deletionGracePeriodSeconds", "deletionGracePeriodSeconds"),
        ("ownerReferences", "ownerReferences"),
        ("finalizers", "finalizers"),
        ("managedFields", "managedFields"),
    ];
    let metadata = template.child("metadata");
    annotations(&metadata.child("annotations"), problems);
    labels(&metadata.child("labels"), problems);
    for (member, shown) in NEVER {
        let field = metadata.child_as(member, shown);
        if field.is_set() {
            problems.forbidden(&field, "cannot be set");
        }
    }
    validate_spec(&template.child("spec"), problems);
}

/// Kubernetes' messages leave `requests` out of the path.
fn size(spec: &Field<'_, '_>, problems: &mut Problems) {
    let requests = spec.child("resources");
    let asked = requests.entry("requests", "storage");
    let shown = spec.entry("resources", "storage");
    let shown = asked.moved_to(&shown);
    match asked.quantity() {
        None => problems.required(&shown, ""),
        Some(size) if size <= Quantity::from_value(0) => {
            problems.invalid(&shown, size.to_string(), "must be greater than zero");
        }
        Some(_) => {}
    }
}

/// How a volume can be mounted: by one pod alone, or in any of the other ways.
pub(crate) fn validate_access_modes(spec: &Field<'_, '_>, problems: &mut Problems) {
    const ALONE: &str = "ReadWriteOncePod";
    let modes = spec.child("accessModes");
    for mode in spec.items("accessModes") {
        problems.one_of_as(&modes, mode.text(), ACCESS_MODES);
    }
    let known = || {
        spec.items("accessModes")
            .filter(|mode| ACCESS_MODES.contains(&mode.text()))
    };
    let alone = known().any(|mode| mode.text() == ALONE);
    if alone && known().any(|mode| mode.text() != ALONE) {
        let sentence = "may not use ReadWriteOncePod with other access modes";
        problems.forbidden(&modes, sentence);
    }
}

fn data_source(source: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&source.child("name"));
    let kind = source.child("kind");
    problems.required_text(&kind);
    let group = source.child("apiGroup");
    if !group.text().is_empty() {
        problems.rule(&group, name::dns1123_subdomain_faults);
    } else if kind.text() != "PersistentVolumeClaim" {
        let sentence = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        problems.invalid(source, kind.text(), sentence);
    }
}

fn validate_status(status: &Field<'_, '_>, problems: &mut Problems) {
    for (_, size) in status.entries("capacity") {
        problems.basic_size(&size);
    }
    let statuses = status.child("allocatedResourceStatuses");
    for (resource, state) in status.entries("allocatedResourceStatuses") {
        resource_key(&statuses, resource, problems);
        if !RESIZE_STATUSES.contains(&state.text()) {
            problems.not_supported(&statuses, resource, RESIZE_STATUSES);
        }
    }
    let allocated = status.child("allocatedResources");
    for (resource, size) in status.entries("allocatedResources") {
        let before = problems.count();
        resource_key(&allocated, resource, problems);
        if problems.count() == before {
            problems.basic_size(&size);
        }
    }
}

/// `storage`, or a resource with a domain of its own.
fn resource_key(field: &Field<'_, '_>, resource: &str, problems: &mut Problems) {
    let faults = name::qualified_name_faults(resource);
    for fault in &faults {
        problems.invalid(field, resource, fault);
    }
    let own = resource
        .split_once('/')
        .is_none_or(|(domain, _)| domain.ends_with("kubernetes.io"));
    if faults.is_empty() && own && resource != "storage" {
        problems.not_supported(field, resource, &["storage"]);
    }
}

/// `RWO,RWX`.
pub(crate) fn access_modes_text(object: &Value, pointer: &str) -> Value {
    const SHORT: &[(&str, &str)] = &[
        ("ReadWriteOnce", "RWO"),
        ("ReadOnlyMany", "ROX"),
        ("ReadWriteMany", "RWX"),
        ("ReadWriteOncePod", "RWOP"),
    ];
    let modes = items(object, pointer);
    let short = SHORT
        .iter()
        .filter(|(mode, _)| modes.iter().any(|one| one == mode));
    let short: Vec<&str> = short.map(|(_, short)| *short).collect();
    short.join(",").into()
}

/// The class of a volume or a claim, by its annotation first.
pub(crate) fn class_of(object: &Value) -> Value {
    let root = Field::root(object);
    let annotation = root.entry("metadata.annotations", BETA_CLASS);
    match annotation.is_set() {
        true => annotation.text().into(),
        false => text(object, "/spec/storageClassName").into(),
    }
}

fn phase(row: &Row<'_>) -> Value {
    match text(row.object, "/metadata/deletionTimestamp") {
        "" => row.text_or("/status/phase", ""),
        _ => "Terminating".into(),
    }
}

fn volume(row: &Row<'_>) -> Value {
    row.text_or("/spec/volumeName", "")
}

fn is_given(row: &Row<'_>) -> bool {
    !text(row.object, "/spec/volumeName").is_empty()
}

fn capacity(row: &Row<'_>) -> Value {
    match is_given(row) {
        true => row.quantity_or("/status/capacity/storage", "0"),
        false => "".into(),
    }
}

fn modes(row: &Row<'_>) -> Value {
    match is_given(row) {
        true => access_modes_text(row.object, "/status/accessModes"),
        false => "".into(),
    }
}

fn class(row: &Row<'_>) -> Value {
    class_of(row.object)
}

fn attributes(row: &Row<'_>) -> Value {
    row.text_or("/spec/volumeAttributesClassName", "<unset>")
}

fn mode(row: &Row<'_>) -> Value {
    row.text_or("/spec/volumeMode", "<unset>")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::columns::cells;
    use crate::validate::told;

    fn claim() -> Value {
        json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }})
    }

    #[test]
    fn a_claim_asks_for_a_size_and_a_way_to_mount_it() {
        told::check(
            &PERSISTENT_VOLUME_CLAIM,
            &claim(),
            &[
                (
                    "/spec",
                    json!({}),
                    &[
                        "spec.accessModes: Required value: at least 1 access mode is required",
                        "spec.resources[storage]: Required value",
                    ],
                ),
                (
                    "/spec/resources/requests/storage",
                    json!("0"),
                    &["spec.resources[storage]: Invalid value: \"0\": must be greater than zero"],
                ),
                (
                    "/spec/dataSourceRef",
                    json!({"kind": "A", "name": ""}),
                    &[
                        "spec.dataSource.name: Required value",
                        "spec.dataSource: Invalid value: \"A\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                        "spec.dataSourceRef.name: Required value",
                        "spec.dataSourceRef: Invalid value: \"A\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
                    ],
                ),
            ],
        );
    }

    #[test]
    fn what_is_asked_for_stays_until_the_claim_is_bound() {
        let old = claim();
        let larger = told::with(&old, "/spec/resources/requests/storage", json!("2Gi"));
        let update =
            |new: &Value, old: &Value| told::of_update(&PERSISTENT_VOLUME_CLAIM, new, old, None);
        let frozen = format!("spec: Forbidden: {FROZEN}");
        assert_eq!(update(&larger, &old), [frozen.as_str()]);
        let status = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        let bound = told::with(&old, "/status", status);
        assert_eq!(update(&larger, &bound), [""; 0]);
        let smaller = told::with(&bound, "/spec/resources/requests/storage", json!("1Mi"));
        assert_eq!(
            update(&smaller, &bound),
            [
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
            ]
        );
        // A volume and a class are given once.
        let given = told::with(&old, "/spec/volumeName", json!("v"));
        let given = told::with(&given, "/spec/storageClassName", json!("s"));
        assert_eq!(update(&given, &old), [""; 0]);
        let other = told::with(&given, "/spec/storageClassName", json!("t"));
        assert_eq!(update(&other, &given), [frozen.as_str()]);
    }

    #[test]
    fn two_fields_say_where_content_comes_from_and_say_the_same() {
        for (spec, older, newer) in [
            (
                json!({"dataSource": {"kind": "PersistentVolumeClaim", "name": "a"}}),
                json!({"kind": "PersistentVolumeClaim", "name": "a"}),
                json!({"kind": "PersistentVolumeClaim", "name": "a"}),
            ),
            (
                json!({"dataSourceRef": {"apiGroup": "x.io", "kind": "A", "name": "a"}}),
                json!({"apiGroup": "x.io", "kind": "A", "name": "a"}),
                json!({"apiGroup": "x.io", "kind": "A", "name": "a"}),
            ),
            (
                json!({"dataSource": {"apiGroup": "x.io", "kind": "A", "name": "a"}}),
                Value::Null,
                Value::Null,
            ),
        ] {
            let mut claim = json!({"spec": spec});
            let strategy = &PERSISTENT_VOLUME_CLAIM.strategy;
            strategy.settle(&mut claim, None);
            assert_eq!((&claim["spec"]["dataSource"]), &older, "{spec}");
            assert_eq!((&claim["spec"]["dataSourceRef"]), &newer, "{spec}");
        }
    }

    #[test]
    fn cells_are_of_the_volume_once_there_is_one() {
        let mut claim = claim();
        PERSISTENT_VOLUME_CLAIM.strategy.default(&mut claim);
        assert_eq!(
            json!(cells(&PERSISTENT_VOLUME_CLAIM, &claim)),
            json!([
                "c",
                "Pending",
                "",
                "",
                "",
                "",
                "<unset>",
                "10s",
                "Filesystem"
            ])
        );
        claim["spec"]["volumeName"] = json!("v");
        claim["spec"]["storageClassName"] = json!("fast");
        claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"]});
        assert_eq!(
            json!(cells(&PERSISTENT_VOLUME_CLAIM, &claim)),
            json!([
                "c",
                "Bound",
                "v",
                "1Gi",
                "RWO",
                "fast",
                "<unset>",
                "10s",
                "Filesystem"
            ])
        );
    }
}
