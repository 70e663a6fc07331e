//! Namespaces: what each must contain, and the orderly end of one.
//!
//! Alive: the `default` ServiceAccount, the `kube-root-ca.crt` ConfigMap and the name label exist and are put back when
//! somebody removes them. The system namespaces exist.
//! Deleted: phase Terminating, then pods (they may still need the rest to stop cleanly), then everything else, then the
//! `kubernetes` finalizer goes. A namespace never ends while something in it is left.
//!
//! Left to others: refusing creates in a terminating namespace (admission).

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::NamespaceCondition;
use serde_json::{Value, json};
use weft_api::annotation;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Namespace;
use weft_kinds::{CONFIG_MAP, Kind, NAMESPACE, POD, SERVICE_ACCOUNT, Subresource};

use crate::indexer::{Cached, Lens};
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::{Propagation, Write, object};
use crate::{Context, Controller, Outcome, stamp};

pub const CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    reads: |reads| {
        reads.kind::<Namespace>().kind::<CaBundle>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let present = view.list::<Namespace>().map(|row| row.key.clone());
        let system = SYSTEM.iter().map(|name| Key::cluster(name));
        present.chain(system).collect()
    },
    subject: |view, key| Some(view.object_of(&NAMESPACE, key)?.reference()),
    reconcile,
};

/// The ConfigMap with the cluster CA that pods verify the API server by.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// Namespaces that always exist.
const SYSTEM: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
const FINALIZER: &str = "kubernetes";
const DEFAULT_ACCOUNT: &str = "default";
/// Objects deleted in one pass. What is left wakes the controller again as the first ones go.
const BATCH: usize = 500;

/// The data of the ConfigMap with the cluster CA. The others are nobody's business here.
#[derive(Debug)]
struct CaBundle(Value);

impl Lens for CaBundle {
    fn kind() -> &'static Arc<Kind> {
        &CONFIG_MAP
    }

    fn wants(key: &Key) -> bool {
        &*key.name == ROOT_CA_CONFIG_MAP
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self(object.as_value()["data"].clone()))
    }
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&NAMESPACE) {
        return vec![touched.key.clone()];
    }
    let gone = !touched.is_there;
    let name = &*touched.key.name;
    let watched = (name == ROOT_CA_CONFIG_MAP && touched.is_of(&CONFIG_MAP))
        || (gone && name == DEFAULT_ACCOUNT && touched.is_of(&SERVICE_ACCOUNT));
    let namespace = Key::cluster(&touched.key.namespace);
    let ending = || {
        let row = view.get::<Namespace>(&namespace);
        row.is_some_and(|row| row.meta.is_deleting())
    };
    if watched || ((gone || touched.ownership_changed) && ending()) {
        vec![namespace]
    } else {
        Vec::new()
    }
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    match view.get::<Namespace>(key) {
        None if view.object_of(&NAMESPACE, key).is_some() => Outcome::default(),
        None if SYSTEM.contains(&&*key.name) => {
            let namespace = object(json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": &*key.name},
            }));
            Outcome::from_writes(vec![Write::create(&NAMESPACE, namespace)])
        }
        None => Outcome::default(),
        Some(row) if row.meta.is_deleting() => Outcome::from_writes(end_namespace(view, row, cx)),
        Some(row) => Outcome::from_writes(furnish_namespace(view, row, cx)),
    }
}

/// What a living namespace lacks.
fn furnish_namespace(view: &View, row: &Cached<Namespace>, cx: &Context<'_>) -> Vec<Write> {
    let name = &*row.key.name;
    let mut writes = Vec::new();
    if row
        .meta
        .labels
        .get(annotation::NAMESPACE_NAME)
        .map(String::as_str)
        != Some(name)
    {
        let patch = json!({"metadata": {"labels": {annotation::NAMESPACE_NAME: name}}});
        writes.push(Write::patch(row, patch));
    }
    let create = |kind: &Arc<Kind>, object_name: &str, more: Value| {
        let mut value = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.kind,
            "metadata": {"name": object_name, "namespace": name},
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        Write::create(kind, object(value))
    };
    let key = Key::new(name, DEFAULT_ACCOUNT);
    if view.object_of(&SERVICE_ACCOUNT, &key).is_none() {
        writes.push(create(&SERVICE_ACCOUNT, DEFAULT_ACCOUNT, json!({})));
    }
    let data = json!({"ca.crt": cx.cluster.ca_pem});
    let key = Key::new(name, ROOT_CA_CONFIG_MAP);
    match view.get::<CaBundle>(&key) {
        None if view.object_of(&CONFIG_MAP, &key).is_some() => {}
        None => {
            let data = json!({ "data": data });
            writes.push(create(&CONFIG_MAP, ROOT_CA_CONFIG_MAP, data));
        }
        Some(map) => {
            if let Some(patch) = crate::write::merge_patch(&map.body.0, &data) {
                writes.push(Write::patch(map, json!({"data": patch})));
            }
        }
    }
    writes
}

/// The next step of ending a namespace.
fn end_namespace(view: &View, row: &Cached<Namespace>, cx: &Context<'_>) -> Vec<Write> {
    let name = &*row.key.name;
    let contents: Vec<&PartialObject> = view.contents(name).collect();
    let mut writes = Vec::new();
    writes.extend(update_status(row, &contents, cx));
    if contents.is_empty() {
        writes.extend(finalize_namespace(row));
        return writes;
    }
    let is_pod = |object: &PartialObject| *object.kind == **POD;
    let has_pods = contents.iter().any(|object| is_pod(object));
    let now = contents
        .iter()
        .filter(|object| !object.meta.is_deleting() && (!has_pods || is_pod(object)))
        .take(BATCH);
    writes.extend(now.map(|object| Write::delete_object(object, Propagation::Background)));
    writes
}

fn finalize_namespace(row: &Cached<Namespace>) -> Option<Write> {
    let spec = row.body.spec.as_ref();
    let present = spec.and_then(|spec| spec.finalizers.as_ref())?;
    if !present.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    let left: Vec<&String> = present.iter().filter(|f| *f != FINALIZER).collect();
    let mut write = Write::patch(row, json!({"spec": {"finalizers": left}})).unbound();
    if let Write::Patch { subresource, .. } = &mut write {
        *subresource = Some(Subresource::Finalize);
    }
    Some(write)
}

/// Phase Terminating, and what it still waits for in Kubernetes' words.
fn update_status(
    row: &Cached<Namespace>,
    contents: &[&PartialObject],
    cx: &Context<'_>,
) -> Option<Write> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for object in contents {
        let kind = &object.kind;
        let name = format!("{}.{}", kind.resource, kind.group);
        *kinds.entry(name).or_default() += 1;
        for finalizer in object.meta.finalizers.iter() {
            *finalizers.entry(finalizer).or_default() += 1;
        }
    }
    let remaining = kinds
        .iter()
        .map(|(kind, count)| format!("{kind} has {count} resource instances"))
        .collect::<Vec<_>>()
        .join(", ");
    let waiting = finalizers
        .iter()
        .map(|(finalizer, count)| format!("{finalizer} in {count} resource instances"))
        .collect::<Vec<_>>()
        .join(", ");
    let present = row.body.status.clone().unwrap_or_default();
    let mut wanted = present.clone();
    wanted.phase = Some("Terminating".into());
    let remain = (!remaining.is_empty())
        .then(|| format!("Some resources are remaining: {remaining}"))
        .map(|message| ("SomeResourcesRemain", message));
    let wait = (!waiting.is_empty())
        .then(|| format!("Some content in the namespace has finalizers remaining: {waiting}"))
        .map(|message| ("SomeFinalizersRemain", message));
    // What is here is known without asking, and what cannot be deleted is asked again: the first three do not happen.
    for (kind, found, well, words) in [
        (
            "NamespaceDeletionDiscoveryFailure",
            None,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            None,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            remain,
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            wait,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ] {
        let status = if found.is_some() { "True" } else { "False" };
        let (reason, message) = found.unwrap_or_else(|| (well, words.to_owned()));
        let conditions = wanted.conditions.get_or_insert_default();
        let old = conditions.iter().position(|old| old.type_ == kind);
        let since = old
            .and_then(|at| conditions.get(at))
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time.clone());
        let condition = NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or_else(|| stamp(cx.now))),
        };
        match old.and_then(|at| conditions.get_mut(at)) {
            Some(old) => *old = condition,
            None => conditions.push(condition),
        }
    }
    // Only this controller writes a terminating namespace's status.
    Write::status(row, &present, &wanted).map(Write::unbound)
}
