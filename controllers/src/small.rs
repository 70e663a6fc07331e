//! A small view for tables: objects are put in, one look is taken, and what it would write is told a line each.
//!
//! Uids are functions of kind and name, so that references can be written down before what they refer to.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::object::Object;
use weft_kinds::{Kind, Registry};

use crate::view::Change;
use crate::{Cluster, Context, Controller, Key, Outcome, Past, Reads, View, Write};

pub const NAMESPACE: &str = "d";

pub struct Small {
    pub view: View,
    pub now: Timestamp,
    registry: Arc<Registry>,
    version: u64,
}

impl Small {
    /// 2026-01-01T00:10:00Z.
    pub fn new(readers: impl IntoIterator<Item = fn(&mut Reads)>) -> Self {
        let mut view = View::new(readers);
        view.set_synced(0);
        Self {
            view,
            now: "2026-01-01T00:10:00Z".parse().unwrap(),
            registry: Registry::builtin(),
            version: 0,
        }
    }

    /// Another kind is there as well.
    pub fn serve(&mut self, kind: &Arc<Kind>) {
        let mut kinds = self.registry.all().to_vec();
        kinds.push(Arc::clone(kind));
        self.registry = Arc::new(Registry::new(kinds));
    }

    pub fn put(&mut self, kind: &Arc<Kind>, mut value: Value) {
        self.version += 1;
        value["apiVersion"] = json!(kind.api_version());
        value["kind"] = json!(&*kind.kind);
        let name = value["metadata"]["name"].as_str().unwrap().to_owned();
        let metadata = &mut value["metadata"];
        if kind.namespaced {
            metadata["namespace"] = json!(NAMESPACE);
        }
        metadata["uid"] = json!(uid(kind, &name));
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["generation"].is_null() {
            metadata["generation"] = json!(1);
        }
        let object = Object::from_value(value).unwrap();
        let change = Change::Upsert(Arc::clone(kind), object);
        self.view.apply(change, self.now);
    }

    pub fn forget(&mut self, kind: &Arc<Kind>, name: &str) {
        let value =
            json!({"metadata": {"name": name, "namespace": NAMESPACE, "uid": uid(kind, name)}});
        let object = Object::from_value(value).unwrap();
        let change = Change::Delete(Arc::clone(kind), object);
        self.view.apply(change, self.now);
    }

    pub fn look(&self, controller: &Controller, name: &str) -> Outcome {
        let cx = Context {
            now: self.now,
            cluster: &Cluster {
                ca_pem: String::new(),
            },
            kinds: &self.registry,
            last_failure: None,
            usage: None,
            calls: None,
            past: &Past::default(),
        };
        (controller.reconcile)(&self.view, &Key::new(NAMESPACE, name), &cx)
    }

    /// What a look creates and deletes, and of what; patches by kind and name alone.
    pub fn told(&self, controller: &Controller, name: &str) -> Vec<String> {
        let writes = self.look(controller, name).writes.into_iter();
        writes
            .filter_map(|write| match write {
                Write::Create { kind, key, .. } => {
                    Some(format!("create {} {}", kind.resource, key.name))
                }
                Write::Delete { kind, key, .. } => {
                    Some(format!("delete {} {}", kind.resource, key.name))
                }
                Write::Patch {
                    kind,
                    key,
                    subresource: None,
                    ..
                } => Some(format!("patch {} {}", kind.resource, key.name)),
                _ => None,
            })
            .collect()
    }

    /// What a look would change of the status; null if nothing.
    pub fn status(&self, controller: &Controller, name: &str) -> Value {
        let writes = self.look(controller, name).writes.into_iter();
        let mut patches = writes.filter_map(|write| match write {
            Write::Patch {
                subresource: Some(_),
                patch,
                ..
            } => Some(patch["status"].clone()),
            _ => None,
        });
        patches.next().unwrap_or_default()
    }
}

pub fn uid(kind: &Kind, name: &str) -> String {
    format!("{}-{name}", kind.resource)
}

/// The list of owners with this one, which controls.
pub fn owned_by(kind: &Kind, name: &str) -> Value {
    json!([{"apiVersion": kind.api_version(), "kind": kind.kind, "name": name, "uid": uid(kind, name),
        "controller": true, "blockOwnerDeletion": true}])
}
