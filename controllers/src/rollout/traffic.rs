//! Where the calls of a Rollout's Service go: Services of revisions, and the routes that lead callers to them.
//!
//! A revision's Service bears its ReplicaSet's name and never changes whom it selects, so that a promotion is a change of weights: no endpoint
//! has to move from one Service to another while calls come. The route for callers within the cluster has the Service as its parent; a
//! second one, for Gateways, is there where the Rollout names any.
//!
//! Invariants: what somebody else made is left alone, and its name is told; a revision without anybody behind its Service gets no call; a
//! Service of a revision goes after its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_kinds::gateway_api::GROUP;
use weft_kinds::{HTTP_ROUTE, Kind, ROLLOUT, SERVICE};

use super::asked::{Asked, Mark};
use super::sets::Sets;
use super::status::Status;
use super::{Rollout, text};
use crate::Context;
use crate::claim::controller_reference;
use crate::deployment::HASH_LABEL;
use crate::deployment::sets::set_name;
use crate::endpoint_slice::BY_SERVICE;
use crate::indexer::{Cached, Lens};
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Write, object};

/// A route of a Rollout's; of others nothing is read.
#[derive(Debug)]
pub struct Route {
    leads: Option<Leads>,
    /// What one of its parents has against it.
    refused: Option<String>,
}

impl Lens for Route {
    fn kind() -> &'static Arc<Kind> {
        &HTTP_ROUTE
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        let owners = value["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        let is_ours = owners.any(|owner| owner["kind"] == *ROLLOUT.kind);
        Ok(Self {
            leads: is_ours.then(|| Leads::of(&value["spec"])),
            refused: is_ours.then(|| refusal(value)).flatten(),
        })
    }
}

/// What a parent says that did not take the route.
fn refusal(route: &Value) -> Option<String> {
    let parents = route["status"]["parents"].as_array();
    let conditions = parents.into_iter().flatten().flat_map(|parent| {
        let conditions = parent["conditions"].as_array();
        conditions.into_iter().flatten()
    });
    let mut refusals = conditions
        .filter(|condition| condition["type"] == "Accepted" && condition["status"] == "False");
    refusals
        .next()
        .map(|condition| text(condition, "/message").to_owned())
}

/// What is looked at of a route, whatever was filled in since it was written.
#[derive(Debug, PartialEq)]
struct Leads {
    parents: Vec<[String; 6]>,
    hosts: Vec<String>,
    /// Marks, and backends with port and weight.
    rules: Vec<(Vec<[String; 3]>, Vec<(String, i64, i64)>)>,
}

impl Leads {
    fn of(spec: &Value) -> Self {
        let list = |value: &Value, name: &str| -> Vec<Value> {
            value[name].as_array().cloned().unwrap_or_default()
        };
        let or = |value: &Value, name: &str, usual: &str| {
            value[name].as_str().unwrap_or(usual).to_owned()
        };
        let parents = list(spec, "parentRefs").into_iter().map(|parent| {
            [
                or(&parent, "group", GROUP),
                or(&parent, "kind", "Gateway"),
                or(&parent, "namespace", ""),
                or(&parent, "name", ""),
                or(&parent, "sectionName", ""),
                parent["port"].to_string(),
            ]
        });
        let rules = list(spec, "rules").into_iter().map(|rule| {
            let matches = list(&rule, "matches");
            let headers = matches.iter().flat_map(|one| list(one, "headers"));
            let marks = headers.map(|header| {
                [
                    or(&header, "name", ""),
                    or(&header, "type", "Exact"),
                    or(&header, "value", ""),
                ]
            });
            let backends = list(&rule, "backendRefs").into_iter().map(|backend| {
                let port = backend["port"].as_i64().unwrap_or(0);
                let weight = backend["weight"].as_i64().unwrap_or(1);
                (or(&backend, "name", ""), port, weight)
            });
            (marks.collect(), backends.collect())
        });
        let hosts = list(spec, "hostnames").into_iter();
        Self {
            parents: parents.collect(),
            hosts: hosts
                .filter_map(|host| host.as_str().map(str::to_owned))
                .collect(),
            rules: rules.collect(),
        }
    }
}

/// Whether calls are led where the status wants them, for the condition.
pub struct Routed {
    pub holds: bool,
    pub reason: &'static str,
    pub message: String,
}

/// The Services and routes of one Rollout.
pub struct Traffic<'a> {
    view: &'a View,
    row: &'a Cached<Rollout>,
    /// Whose callers are led.
    service: Option<&'a Arc<Cached<Service>>>,
    has_routes: bool,
}

impl<'a> Traffic<'a> {
    pub fn of(view: &'a View, row: &'a Cached<Rollout>, cx: &Context<'_>) -> Self {
        let asked = &row.body.asked;
        Self {
            view,
            row,
            service: view.get::<Service>(&row.key.sibling(&asked.service)),
            has_routes: cx.kinds.by_group_kind(GROUP, &HTTP_ROUTE.kind).is_some(),
        }
    }

    fn asked(&self) -> &'a Asked {
        &self.row.body.asked
    }

    /// The Service of a revision.
    fn key_of(&self, revision: &str) -> Key {
        let name = set_name(&self.row.key.name, revision);
        self.row.key.sibling(&name)
    }

    /// The Services whose calls are a revision's.
    pub fn counted_of(&self, revision: &str) -> impl Iterator<Item = Key> + use<> {
        let preview = self.asked().preview.as_deref();
        let preview = preview.map(|name| self.row.key.sibling(name));
        std::iter::once(self.key_of(revision)).chain(preview)
    }

    /// Whether anybody is behind a revision's Service.
    pub fn serves(&self, revision: &str) -> bool {
        let service = self.key_of(revision).to_string();
        let mut slices = self.view.list_by(&BY_SERVICE, &service);
        slices.any(|slice| {
            slice.body.endpoints.iter().flatten().any(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                conditions.is_some_and(|conditions| conditions.ready == Some(true))
            })
        })
    }

    /// The same of the revision that a status calls the current one.
    pub fn serves_current(&self, status: &Status) -> bool {
        let current = status.current_revision.as_deref();
        current.is_some_and(|revision| self.serves(revision))
    }

    /// The port whose calls are divided.
    fn port(&self) -> Option<i64> {
        let spec = self.service?.body.spec.as_ref()?;
        let ports = spec.ports.as_deref().unwrap_or_default();
        let asked = self.asked().port.map(i32::from);
        let port = match asked {
            Some(number) => ports.iter().find(|port| port.port == number)?,
            None => ports.first()?,
        };
        Some(i64::from(port.port))
    }

    /// Whether the routes that are there lead as a status wants it.
    pub fn is_led(&self, asked: &Asked, status: &Status, serves: bool) -> bool {
        let wanted = self.wanted(asked, status, serves);
        !wanted.is_empty()
            && wanted.iter().all(|(name, spec)| {
                let route = self.view.get::<Route>(&self.row.key.sibling(name));
                let leads = route.filter(|route| self.is_ours(route));
                leads.is_some_and(|route| {
                    route.body.refused.is_none() && route.body.leads == Some(Leads::of(spec))
                })
            })
    }

    /// The routes that there are to be, by their names. None while it is not known where to.
    fn wanted(&self, asked: &Asked, status: &Status, serves: bool) -> BTreeMap<String, Value> {
        let (Some(port), true) = (self.port(), self.has_routes) else {
            return BTreeMap::new();
        };
        let rules = self.rules(asked, status, serves, port);
        if rules.is_empty() {
            return BTreeMap::new();
        }
        let parent = json!({"group": "", "kind": "Service", "name": asked.service, "port": port});
        let name = self.row.key.name.to_string();
        let spec = json!({"parentRefs": [parent], "rules": rules});
        let mut routes = BTreeMap::from([(name, spec)]);
        if !asked.gateways.is_empty() {
            let parents = asked.gateways.iter().map(|gateway| {
                let mut parent = json!({"group": GROUP, "kind": "Gateway", "name": gateway.name});
                for (member, value) in [
                    ("namespace", &gateway.namespace),
                    ("sectionName", &gateway.section_name),
                ] {
                    if let Some(value) = value {
                        parent[member] = json!(value);
                    }
                }
                parent
            });
            let mut spec = json!({"parentRefs": parents.collect::<Vec<_>>(), "rules": rules});
            if !asked.hostnames.is_empty() {
                spec["hostnames"] = json!(asked.hostnames);
            }
            routes.insert(self.name_at_gateways(), spec);
        }
        routes
    }

    fn name_at_gateways(&self) -> String {
        format!("{}-gateway", self.row.key.name)
    }

    fn rules(&self, asked: &Asked, status: &Status, serves: bool, port: i64) -> Vec<Value> {
        let backend = |revision: &str, weight: i64| {
            let name = set_name(&self.row.key.name, revision);
            json!({"group": "", "kind": "Service", "name": name, "port": port, "weight": weight})
        };
        let Some(current) = &status.current_revision else {
            return Vec::new();
        };
        let Some(stable) = &status.stable_revision else {
            return vec![rule(&[], vec![backend(current, 1)])];
        };
        if stable == current {
            return vec![rule(&[], vec![backend(stable, 1)])];
        }
        if status.is_rolled_back() {
            return vec![rule(&[], vec![backend(stable, 100)])];
        }
        // Who is away gets nothing, until the deadline says that it stays away.
        let weight = if serves { status.weight } else { 0 };
        let shares = vec![backend(stable, 100 - weight), backend(current, weight)];
        let mut rules = Vec::new();
        if status.marked && serves && !asked.marks.is_empty() {
            rules.push(rule(&asked.marks, vec![backend(current, 1)]));
        }
        rules.push(rule(&[], shares));
        rules
    }

    fn is_ours<K: Lens>(&self, row: &Cached<K>) -> bool {
        let owner = row.meta.controller();
        owner.is_some_and(|owner| *owner.uid == *self.row.meta.uid)
    }

    /// Whether the calls go where the status wants them, and if not, why.
    pub fn routed(&self, status: &Status) -> Routed {
        let asked = self.asked();
        let fails = |reason: &'static str, message: String| Routed {
            holds: false,
            reason,
            message,
        };
        if !self.has_routes {
            let message = "HTTPRoutes are not served: their definition was taken away".to_owned();
            return fails("NoRoutes", message);
        }
        let service = &asked.service;
        if self.service.is_none() {
            return fails(
                "ServiceNotFound",
                format!("Service {service} does not exist"),
            );
        }
        if self.port().is_none() {
            let port = asked
                .port
                .map_or("any port".to_owned(), |port| format!("port {port}"));
            return fails(
                "PortNotFound",
                format!("Service {service} does not have {port}"),
            );
        }
        let serves = self.serves_current(status);
        for name in self.wanted(asked, status, serves).keys() {
            let Some(route) = self.view.get::<Route>(&self.row.key.sibling(name)) else {
                continue;
            };
            if !self.is_ours(route) {
                let message =
                    format!("HTTPRoute {name} is not of this Rollout: rename one of them");
                return fails("NameTaken", message);
            }
            if let Some(why) = &route.body.refused {
                return fails(
                    "RouteRefused",
                    format!("HTTPRoute {name} is refused: {why}"),
                );
            }
        }
        if let Some(name) = self.taken_services(status).next() {
            let message = format!("Service {name} is not of this Rollout: rename one of them");
            return fails("NameTaken", message);
        }
        match self.is_led(asked, status, serves) {
            true => Routed {
                holds: true,
                reason: "Routed",
                message: format!("Callers of Service {service} are led by weights and marks."),
            },
            false => fails("RoutesPending", "the routes are being written".to_owned()),
        }
    }

    /// Services that are needed and that somebody else made.
    fn taken_services(&self, status: &Status) -> impl Iterator<Item = String> {
        let named = self
            .wanted_services(status)
            .into_iter()
            .map(|(name, _)| name);
        named.filter(|name| {
            let there = self.view.get::<Service>(&self.row.key.sibling(name));
            there.is_some_and(|there| !self.is_ours(there))
        })
    }

    /// By their names: the revision that each selects.
    fn wanted_services(&self, status: &Status) -> Vec<(String, String)> {
        let revisions = [&status.stable_revision, &status.current_revision];
        let mut wanted: Vec<(String, String)> = Vec::new();
        for revision in revisions.into_iter().flatten() {
            let name = set_name(&self.row.key.name, revision);
            if !wanted.iter().any(|(known, _)| *known == name) {
                wanted.push((name, revision.clone()));
            }
        }
        let shown = match status.is_rolled_back() {
            true => &status.stable_revision,
            false => &status.current_revision,
        };
        if let (Some(preview), Some(revision)) = (&self.asked().preview, shown) {
            wanted.push((preview.clone(), revision.clone()));
        }
        wanted
    }

    /// Makes the Services of revisions, keeps their ports those of the user's, and takes away those whose pods are gone.
    pub fn fit_services(&self, status: &Status, sets: &Sets<'_>, writes: &mut Vec<Write>) {
        let Some(spec) = self.service.and_then(|service| service.body.spec.as_ref()) else {
            return;
        };
        let ports: Vec<Value> = spec.ports.iter().flatten().map(port_of).collect();
        let wanted = self.wanted_services(status);
        for (name, revision) in &wanted {
            let selector = self.selector(revision);
            let Some(there) = self.view.get::<Service>(&self.row.key.sibling(name)) else {
                let service = json!({
                    "apiVersion": SERVICE.api_version(),
                    "kind": SERVICE.kind,
                    "metadata": {
                        "name": name,
                        "namespace": &*self.row.key.namespace,
                        "ownerReferences": [controller_reference(self.row)],
                    },
                    "spec": {"selector": selector, "ports": ports},
                });
                writes.push(Write::create(&SERVICE, object(service)));
                continue;
            };
            if !self.is_ours(there) || there.meta.is_deleting() {
                continue;
            }
            let spec = there.body.spec.as_ref();
            let mut patch = json!({});
            let has: Vec<Value> = spec
                .and_then(|spec| spec.ports.as_ref())
                .into_iter()
                .flatten()
                .map(port_of)
                .collect();
            if has != ports {
                patch["spec"]["ports"] = json!(ports);
            }
            let selects = spec.and_then(|spec| spec.selector.as_ref());
            if json!(selects) != selector {
                patch["spec"]["selector"] = selector;
            }
            if patch != json!({}) {
                writes.push(Write::patch(there, patch));
            }
        }
        let dependents = self.view.dependents(&self.row.meta.uid);
        for old in dependents.filter(|object| *object.kind == **SERVICE) {
            let name = &*old.key().name;
            let is_wanted = wanted.iter().any(|(known, _)| known == name);
            let prefix = format!("{}-", self.row.key.name);
            let is_empty = name
                .strip_prefix(&prefix)
                .is_none_or(|revision| sets.is_empty(revision));
            if let Some(row) = self.view.get::<Service>(old.key())
                && !is_wanted
                && is_empty
                && self.is_ours(row)
                && !row.meta.is_deleting()
            {
                writes.push(Write::delete(row));
            }
        }
    }

    /// The labels of a revision's pods.
    fn selector(&self, revision: &str) -> Value {
        let whole = self.row.object.as_ref().map(|object| object.as_value());
        let labels = whole.map(|whole| whole["spec"]["selector"]["matchLabels"].clone());
        let mut labels = match labels {
            Some(Value::Object(labels)) => labels,
            _ => serde_json::Map::new(),
        };
        labels.insert(HASH_LABEL.to_owned(), json!(revision));
        Value::Object(labels)
    }

    /// Has the routes lead as the status wants it.
    pub fn fit_routes(&self, status: &Status, writes: &mut Vec<Write>) {
        let wanted = self.wanted(self.asked(), status, self.serves_current(status));
        for (name, spec) in &wanted {
            let key = self.row.key.sibling(name);
            let Some(there) = self.view.get::<Route>(&key) else {
                let route = json!({
                    "apiVersion": HTTP_ROUTE.api_version(),
                    "kind": HTTP_ROUTE.kind,
                    "metadata": {
                        "name": name,
                        "namespace": &*self.row.key.namespace,
                        "ownerReferences": [controller_reference(self.row)],
                    },
                    "spec": spec,
                });
                writes.push(Write::create(&HTTP_ROUTE, object(route)));
                continue;
            };
            let is_so = there.body.leads == Some(Leads::of(spec));
            if self.is_ours(there) && !there.meta.is_deleting() && !is_so {
                let mut spec = spec.clone();
                if spec["hostnames"].is_null() {
                    spec["hostnames"] = Value::Null;
                }
                writes.push(Write::patch(there, json!({ "spec": spec })));
            }
        }
        let apart = self.name_at_gateways();
        let left = self.view.get::<Route>(&self.row.key.sibling(&apart));
        if let Some(left) = left
            && self.asked().gateways.is_empty()
            && self.is_ours(left)
            && !left.meta.is_deleting()
        {
            writes.push(Write::delete(left));
        }
    }
}

/// One rule of a route.
fn rule(marks: &[Mark], backends: Vec<Value>) -> Value {
    let headers = marks
        .iter()
        .map(|(name, kind, value)| json!({"type": kind, "name": name, "value": value}));
    let headers: Vec<Value> = headers.collect();
    let mut matches = json!({"path": {"type": "PathPrefix", "value": "/"}});
    if !headers.is_empty() {
        matches["headers"] = json!(headers);
    }
    json!({"matches": [matches], "backendRefs": backends})
}

/// What a revision's Service has of a port of the user's: not what only one Service may have.
fn port_of(port: &weft_api::view::ServicePort) -> Value {
    let mut port = serde_json::to_value(port).unwrap_or_default();
    if let Some(port) = port.as_object_mut() {
        port.remove("nodePort");
    }
    port
}
