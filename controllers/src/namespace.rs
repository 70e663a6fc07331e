//! Namespaces: what each must contain, and the orderly end of one.
//!
//! Alive: the `default` ServiceAccount, the `kube-root-ca.crt` ConfigMap and the name label exist and are put back when
//! somebody removes them. The system namespaces exist.
//! Deleted: phase Terminating, then pods (they may still need the rest to stop cleanly), then everything else, then the
//! `kubernetes` finalizer goes. A namespace never ends while something in it is left.
//!
//! Left to others: refusing creates in a terminating namespace (admission).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use weft_api::annotation;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Namespace;

use crate::table::{Kind, Row};
use crate::view::{Entry, Key, Touched, View};
use crate::write::{
    CONFIG_MAPS, NAMESPACES, PODS, Propagation, Resource, SERVICE_ACCOUNTS, Write, object,
};
use crate::{Context, Controller, Outcome, stamp};

pub const CONTROLLER: Controller = Controller {
    name: "namespace-controller",
    reads: |reads| {
        reads.kind::<Namespace>().kind::<CaBundle>();
    },
    keys,
    seeds: |view| {
        let present = view.rows::<Namespace>().map(|row| row.key.clone());
        let system = SYSTEM.iter().map(|name| Key::cluster(name));
        present.chain(system).collect()
    },
    subject: |view, key| Some(view.entry_of(NAMESPACES, key)?.reference()),
    reconcile,
};

/// The ConfigMap with the cluster CA that pods verify the API server by.
pub const ROOT_CA_CONFIG_MAP: &str = "kube-root-ca.crt";
/// Namespaces that always exist.
const SYSTEM: &[&str] = &["default", "kube-node-lease", "kube-public", "kube-system"];
const FINALIZER: &str = "kubernetes";
const SERVICE_ACCOUNT: &str = "default";
/// Objects deleted in one pass. What is left wakes the controller again as the first ones go.
const BATCH: usize = 500;

/// The data of the ConfigMap with the cluster CA. The others are nobody's business here.
#[derive(Debug)]
struct CaBundle(Value);

impl Kind for CaBundle {
    const RESOURCE: Resource = CONFIG_MAPS;

    fn wants(key: &Key) -> bool {
        key.name == ROOT_CA_CONFIG_MAP
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        Ok(Self(object.as_value()["data"].clone()))
    }
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.resource == NAMESPACES {
        return vec![touched.key.clone()];
    }
    let gone = !touched.is_there;
    let watched = match touched.resource {
        CONFIG_MAPS => touched.key.name == ROOT_CA_CONFIG_MAP,
        SERVICE_ACCOUNTS => touched.key.name == SERVICE_ACCOUNT && gone,
        _ => false,
    };
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
        None if view.entry_of(NAMESPACES, key).is_some() => Outcome::default(),
        None if SYSTEM.contains(&key.name.as_str()) => Outcome::of(vec![Write::Create {
            resource: NAMESPACES,
            namespace: None,
            object: object(json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": key.name},
            })),
            note: None,
        }]),
        None => Outcome::default(),
        Some(row) if row.meta.is_deleting() => Outcome::of(end(view, row, cx)),
        Some(row) => Outcome::of(furnish(view, row, cx)),
    }
}

/// What a living namespace lacks.
fn furnish(view: &View, row: &Row<Namespace>, cx: &Context<'_>) -> Vec<Write> {
    let name = row.meta.name.as_str();
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
    let create = |resource: Resource, object_name: &str, more: Value| {
        let mut value = json!({
            "apiVersion": resource.api_version(),
            "kind": resource.kind,
            "metadata": {"name": object_name, "namespace": name},
        });
        if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
            value.extend(more);
        }
        Write::Create {
            resource,
            namespace: Some(name.to_owned()),
            object: object(value),
            note: None,
        }
    };
    let key = Key::new(name, SERVICE_ACCOUNT);
    if view.entry_of(SERVICE_ACCOUNTS, &key).is_none() {
        writes.push(create(SERVICE_ACCOUNTS, SERVICE_ACCOUNT, json!({})));
    }
    let data = json!({"ca.crt": cx.cluster.ca_pem});
    let key = Key::new(name, ROOT_CA_CONFIG_MAP);
    match view.get::<CaBundle>(&key) {
        None if view.entry_of(CONFIG_MAPS, &key).is_some() => {}
        None => writes.push(create(
            CONFIG_MAPS,
            ROOT_CA_CONFIG_MAP,
            json!({"data": data}),
        )),
        Some(map) => {
            if let Some(patch) = crate::write::merge_patch(&map.body.0, &data) {
                writes.push(Write::patch(map, json!({"data": patch})));
            }
        }
    }
    writes
}

/// The next step of ending a namespace.
fn end(view: &View, row: &Row<Namespace>, cx: &Context<'_>) -> Vec<Write> {
    let name = row.meta.name.as_str();
    let contents: Vec<&Entry> = view.contents(name).collect();
    let mut writes = Vec::new();
    writes.extend(status(row, &contents, cx));
    if contents.is_empty() {
        writes.extend(finalize(row));
        return writes;
    }
    let has_pods = contents.iter().any(|entry| entry.resource == PODS);
    let now = contents
        .iter()
        .filter(|entry| !entry.deleting && (!has_pods || entry.resource == PODS))
        .take(BATCH);
    writes.extend(now.map(|entry| Write::Delete {
        resource: entry.resource,
        namespace: Some(name.to_owned()),
        name: entry.key.name.clone(),
        uid: entry.uid.clone(),
        grace_seconds: None,
        propagation: Propagation::Background,
        note: None,
    }));
    writes
}

fn finalize(row: &Row<Namespace>) -> Option<Write> {
    let spec = row.body.spec.as_ref();
    let present = spec.and_then(|spec| spec.finalizers.as_ref())?;
    if !present.iter().any(|finalizer| finalizer == FINALIZER) {
        return None;
    }
    let left: Vec<&String> = present.iter().filter(|f| *f != FINALIZER).collect();
    Some(Write::Patch {
        resource: NAMESPACES,
        namespace: None,
        name: row.meta.name.clone(),
        subresource: Some("finalize"),
        patch: json!({"spec": {"finalizers": left}}),
        uid: Some(row.meta.uid.clone()),
        revision: None,
        note: None,
    })
}

/// Phase Terminating, and what it still waits for in Kubernetes' words.
fn status(row: &Row<Namespace>, contents: &[&Entry], cx: &Context<'_>) -> Option<Write> {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    let mut finalizers: BTreeMap<&str, usize> = BTreeMap::new();
    for entry in contents {
        let resource = &entry.resource;
        let name = if resource.group.is_empty() {
            format!("{}.", resource.resource)
        } else {
            format!("{}.{}", resource.resource, resource.group)
        };
        *kinds.entry(name).or_default() += 1;
        for finalizer in &entry.finalizers {
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
    let mut set = |kind: &str, holds: bool, reason: &str, message: String| {
        let status = if holds { "True" } else { "False" };
        let conditions = wanted.conditions.get_or_insert_default();
        let old = conditions.iter().position(|c| c.type_ == kind);
        let since = old
            .map(|at| conditions.remove(at))
            .filter(|old| old.status == status)
            .and_then(|old| old.last_transition_time);
        conditions.push(k8s_openapi::api::core::v1::NamespaceCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(since.unwrap_or_else(|| stamp(cx.now))),
        });
    };
    if remaining.is_empty() {
        set(
            "NamespaceContentRemaining",
            false,
            "ContentRemoved",
            "All content successfully removed".into(),
        );
    } else {
        let message = format!("Some resources are remaining: {remaining}");
        set(
            "NamespaceContentRemaining",
            true,
            "SomeResourcesRemain",
            message,
        );
    }
    if waiting.is_empty() {
        set(
            "NamespaceFinalizersRemaining",
            false,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished".into(),
        );
    } else {
        let message = format!("Some content in the namespace has finalizers remaining: {waiting}");
        set(
            "NamespaceFinalizersRemaining",
            true,
            "SomeFinalizersRemain",
            message,
        );
    }
    // Only this controller writes a terminating namespace's status.
    Write::status(row, &present, &wanted).map(Write::unbound)
}
