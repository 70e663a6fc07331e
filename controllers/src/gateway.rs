//! Gateway API status: which classes, gateways and routes are weft's, and what became of them.
//!
//! The gateway itself runs on every node; this controller only says, in the standard's words, what the nodes will do
//! with each object: GatewayClass `Accepted`, Gateway and listener conditions, and one entry per parent on HTTPRoutes.
//!
//! Invariants: entries of other controllers are never touched; conditions carry the generation they were decided on; a
//! condition's transition time changes only with its status. The objects are read as JSON: there is no lens for them.
//!
//! Left to others: routing (`weft_mesh`).

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_api::selector::LabelSelector;
use weft_api::view::{Namespace, Node};
use weft_kinds::{GATEWAY, GATEWAY_CLASS, HTTP_ROUTE, Kind, NAMESPACE, NODE, SERVICE};

use crate::indexer::{Cached, Lens};
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::{Touched, View};
use crate::write::{Write, object};
use crate::{Context, Controller, Outcome, stamp};

pub const CONTROLLER: Controller = Controller {
    name: "gateway-controller",
    reads: |reads| {
        reads
            .kind::<GatewayClass>()
            .kind::<Gateway>()
            .kind::<HttpRoute>()
            .kind::<Namespace>()
            .kind::<Node>()
            .kind::<Service>();
    },
    keys,
    seeds: |view| {
        let mut keys = vec![key_of(&GATEWAY_CLASS, &Key::cluster(CLASS))];
        keys.extend(all::<GatewayClass>(view));
        keys.extend(all::<Gateway>(view));
        keys.extend(all::<HttpRoute>(view));
        keys.sort();
        keys.dedup();
        keys
    },
    subject: |view, key| {
        let (kind, name) = key.name.split_once('/')?;
        let kinds = [&GATEWAY_CLASS, &GATEWAY, &HTTP_ROUTE];
        let kind = kinds.into_iter().find(|known| known.resource == kind)?;
        Some(view.object_of(kind, &key.sibling(name))?.reference())
    },
    reconcile,
};

/// The API group of everything here.
const GROUP: &str = "gateway.networking.k8s.io";
/// The class that always exists.
const CLASS: &str = "weft";
/// How classes and route statuses name us.
const CONTROLLER_NAME: &str = "weft.dev/gateway-controller";

/// Three kinds share one queue, so the key's name carries the kind: `gateways/web`.
fn key_of(kind: &Kind, key: &Key) -> Key {
    key.sibling(&format!("{}/{}", kind.resource, key.name))
}

/// Kinds without a published type: they are read as JSON.
trait Raw: Lens {
    fn value(&self) -> &Value;
}

macro_rules! raw {
    ($name:ident, $kind:ident) => {
        #[derive(Debug)]
        struct $name(Object);

        impl Lens for $name {
            fn kind() -> &'static Arc<Kind> {
                &$kind
            }

            fn read(object: &Object) -> Result<Self, ObjectError> {
                Ok(Self(object.clone()))
            }
        }

        impl Raw for $name {
            fn value(&self) -> &Value {
                self.0.as_value()
            }
        }
    };
}

raw!(GatewayClass, GATEWAY_CLASS);
raw!(Gateway, GATEWAY);
raw!(HttpRoute, HTTP_ROUTE);

fn all<K: Lens>(view: &View) -> impl Iterator<Item = Key> {
    view.list::<K>().map(|row| key_of(K::kind(), &row.key))
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    let itself = || std::iter::once(key_of(&touched.kind, &touched.key));
    if touched.is_of(&GATEWAY_CLASS) {
        let others = all::<Gateway>(view).chain(all::<HttpRoute>(view));
        itself().chain(others).collect()
    } else if touched.is_of(&GATEWAY) {
        itself().chain(all::<HttpRoute>(view)).collect()
    } else if touched.is_of(&HTTP_ROUTE) {
        itself().chain(all::<Gateway>(view)).collect()
    } else if touched.is_of(&SERVICE) && touched.ownership_changed {
        all::<HttpRoute>(view).collect()
    } else if touched.is_of(&NAMESPACE) && !touched.was_there {
        all::<Gateway>(view).chain(all::<HttpRoute>(view)).collect()
    } else if touched.is_of(&NODE) && touched_address(touched) {
        all::<Gateway>(view).collect()
    } else {
        Vec::new()
    }
}

/// Addresses of gateways are those of the nodes that are ready. A node reports its state often, and that seldom changes.
fn touched_address(touched: &Touched) -> bool {
    let (before, after) = (touched.before::<Node>(), touched.after::<Node>());
    before.and_then(ready_address) != after.and_then(ready_address)
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some((kind, name)) = key.name.split_once('/') else {
        return Outcome::default();
    };
    let key = key.sibling(name);
    let write = match kind {
        "gatewayclasses" => class(view, &key, cx),
        "gateways" => gateway(view, &key, cx),
        "httproutes" => route(view, &key, cx),
        _ => None,
    };
    Outcome::from_writes(write.into_iter().collect())
}

fn value<K: Raw>(row: &Cached<K>) -> &Value {
    row.body.value()
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// A condition as it should be, before its transition time is known.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn verdict(
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: impl Into<String>,
) -> Verdict {
    Verdict {
        kind,
        holds,
        reason,
        message: message.into(),
    }
}

/// Conditions as JSON; those whose status did not change keep their transition time.
fn conditions(before: &Value, verdicts: &[Verdict], generation: i64, cx: &Context<'_>) -> Value {
    let before = before.as_array().map_or(&[][..], Vec::as_slice);
    let entries = verdicts.iter().map(|verdict| {
        let status = if verdict.holds { "True" } else { "False" };
        let old = before
            .iter()
            .find(|old| old["type"] == verdict.kind && old["status"] == status);
        let since = old
            .map(|old| old["lastTransitionTime"].clone())
            .filter(Value::is_string)
            .unwrap_or_else(|| json!(stamp(cx.now)));
        json!({
            "type": verdict.kind,
            "status": status,
            "reason": verdict.reason,
            "message": verdict.message,
            "observedGeneration": generation,
            "lastTransitionTime": since,
        })
    });
    Value::Array(entries.collect())
}

fn class(view: &View, key: &Key, cx: &Context<'_>) -> Option<Write> {
    let Some(row) = view.get::<GatewayClass>(key) else {
        return (&*key.name == CLASS).then(|| {
            let class = json!({
                "apiVersion": GATEWAY_CLASS.api_version(),
                "kind": GATEWAY_CLASS.kind,
                "metadata": {"name": CLASS},
                "spec": {
                    "controllerName": CONTROLLER_NAME,
                    "description": "The gateway that listens on every node.",
                },
            });
            Write::create(&GATEWAY_CLASS, object(class))
        });
    };
    let class = value(row);
    if class["spec"]["controllerName"] != CONTROLLER_NAME {
        return None;
    }
    let verdicts = [verdict(
        "Accepted",
        true,
        "Accepted",
        "Gateways of this class are served on every node.",
    )];
    let before = &class["status"];
    let mut after = before.clone();
    after["conditions"] = conditions(&before["conditions"], &verdicts, row.meta.generation, cx);
    Write::status(row, before, &after)
}

/// A gateway of a class of ours.
fn our_gateway<'a>(view: &'a View, key: &Key) -> Option<&'a Cached<Gateway>> {
    let row = view.get::<Gateway>(key)?;
    let class = value(row)["spec"]["gatewayClassName"].as_str()?;
    let class = view.get::<GatewayClass>(&Key::cluster(class))?;
    (value(class)["spec"]["controllerName"] == CONTROLLER_NAME).then_some(row)
}

fn gateway(view: &View, key: &Key, cx: &Context<'_>) -> Option<Write> {
    let row = our_gateway(view, key)?;
    let gateway = value(row);
    let before = &gateway["status"];
    let addresses = node_addresses(view);
    let listeners = list(&gateway["spec"], "listeners");
    let generation = row.meta.generation;
    let mut invalid = 0;
    let reported = listeners.iter().map(|listener| {
        let old = list(before, "listeners")
            .iter()
            .find(|old| old["name"] == listener["name"])
            .unwrap_or(&Value::Null);
        let verdicts = listener_verdicts(listener, listeners);
        if verdicts.iter().any(|v| v.kind == "Programmed" && !v.holds) {
            invalid += 1;
        }
        let kinds = if bad_kinds(listener) {
            json!([])
        } else {
            json!([{"group": GROUP, "kind": HTTP_ROUTE.kind}])
        };
        json!({
            "name": listener["name"],
            "supportedKinds": kinds,
            "attachedRoutes": attached_routes(view, key, listener),
            "conditions": conditions(&old["conditions"], &verdicts, generation, cx),
        })
    });
    let reported: Vec<Value> = reported.collect();
    let accepted = if invalid == 0 {
        verdict("Accepted", true, "Accepted", "The gateway is accepted.")
    } else {
        let message = format!("{invalid} of {} listeners are not valid.", listeners.len());
        verdict(
            "Accepted",
            invalid < listeners.len(),
            "ListenersNotValid",
            message,
        )
    };
    let programmed = if addresses.is_empty() {
        verdict(
            "Programmed",
            false,
            "AddressNotAssigned",
            "No node is ready to listen.",
        )
    } else if !accepted.holds {
        verdict("Programmed", false, "Invalid", "No listener is valid.")
    } else {
        let message = format!("Nodes listening: {}.", addresses.len());
        verdict("Programmed", true, "Programmed", message)
    };
    let mut after = before.clone();
    after["conditions"] = conditions(
        &before["conditions"],
        &[accepted, programmed],
        generation,
        cx,
    );
    after["addresses"] = addresses
        .iter()
        .map(|address| json!({"type": "IPAddress", "value": address}))
        .collect();
    after["listeners"] = Value::Array(reported);
    Write::status(row, before, &after)
}

/// Addresses of the nodes that are ready, each once. At most 16, the API's limit.
fn node_addresses(view: &View) -> Vec<String> {
    let ready = view.list::<Node>().filter_map(|node| ready_address(node));
    let addresses: BTreeSet<&str> = ready.collect();
    addresses.into_iter().take(16).map(str::to_owned).collect()
}

/// The address of a node that is ready.
fn ready_address(node: &Cached<Node>) -> Option<&str> {
    let status = node.body.status.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    let is_ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
    let mut addresses = status.addresses.iter().flatten();
    let internal = addresses.find(|address| address.type_ == "InternalIP")?;
    is_ready.then_some(internal.address.as_str())
}

fn bad_kinds(listener: &Value) -> bool {
    let kinds = list(&listener["allowedRoutes"], "kinds");
    kinds.iter().any(|kind| {
        let group = kind["group"].as_str().unwrap_or(GROUP);
        group != GROUP || kind["kind"] != *HTTP_ROUTE.kind
    })
}

fn listener_verdicts(listener: &Value, all: &[Value]) -> Vec<Verdict> {
    let protocol = listener["protocol"].as_str().unwrap_or("");
    let supported = protocol == "HTTP";
    let conflicts = all.iter().filter(|other| {
        other["port"] == listener["port"]
            && other["protocol"] == listener["protocol"]
            && hostname(other) == hostname(listener)
    });
    let conflicted = conflicts.count() > 1;
    let resolved = !bad_kinds(listener);
    let accepted = if supported {
        verdict("Accepted", true, "Accepted", "The listener is accepted.")
    } else {
        let message = format!("Protocol {protocol} is not supported; HTTP is.");
        verdict("Accepted", false, "UnsupportedProtocol", message)
    };
    let conflict = if conflicted {
        verdict(
            "Conflicted",
            true,
            "HostnameConflict",
            "Another listener has the same port, protocol and hostname.",
        )
    } else {
        verdict("Conflicted", false, "NoConflicts", "No conflicts.")
    };
    let references = if resolved {
        verdict("ResolvedRefs", true, "ResolvedRefs", "All references hold.")
    } else {
        verdict(
            "ResolvedRefs",
            false,
            "InvalidRouteKinds",
            "Only HTTPRoute can attach.",
        )
    };
    let works = supported && !conflicted && resolved;
    let programmed = if works {
        verdict("Programmed", true, "Programmed", "The nodes listen.")
    } else {
        verdict("Programmed", false, "Invalid", "The listener is not valid.")
    };
    vec![accepted, conflict, references, programmed]
}

fn hostname(value: &Value) -> &str {
    value["hostname"].as_str().unwrap_or("")
}

fn attached_routes(view: &View, gateway: &Key, listener: &Value) -> usize {
    let routes = view.list::<HttpRoute>().filter(|route| {
        let parents = list(&value(route)["spec"], "parentRefs");
        parents.iter().any(|parent| {
            refers_to(parent, route).as_ref() == Some(gateway)
                && names_listener(parent, listener)
                && admits_namespace(view, gateway, listener, &route.key.namespace)
                && hostnames_meet(listener, value(route))
        })
    });
    routes.count()
}

/// The gateway a parentRef names, if it names a gateway.
fn refers_to(parent: &Value, route: &Cached<HttpRoute>) -> Option<Key> {
    let group = parent["group"].as_str().unwrap_or(GROUP);
    let kind = parent["kind"].as_str().unwrap_or(&GATEWAY.kind);
    if group != GROUP || *kind != *GATEWAY.kind {
        return None;
    }
    let namespace = parent["namespace"]
        .as_str()
        .unwrap_or(&*route.key.namespace);
    Some(Key::new(namespace, parent["name"].as_str()?))
}

fn names_listener(parent: &Value, listener: &Value) -> bool {
    let section = &parent["sectionName"];
    let port = &parent["port"];
    (section.is_null() || *section == listener["name"])
        && (port.is_null() || *port == listener["port"])
}

fn admits_namespace(view: &View, gateway: &Key, listener: &Value, namespace: &str) -> bool {
    let namespaces = &listener["allowedRoutes"]["namespaces"];
    match namespaces["from"].as_str().unwrap_or("Same") {
        "All" => true,
        "Same" => *gateway.namespace == *namespace,
        "Selector" => {
            let row = view.get::<Namespace>(&Key::cluster(namespace));
            let selector = LabelSelector::from_object(&namespaces["selector"]);
            match (row, selector) {
                (Some(row), Ok(selector)) => selector.matches(&row.meta.labels),
                _ => false,
            }
        }
        _ => false,
    }
}

fn hostnames_meet(listener: &Value, route: &Value) -> bool {
    let listener = hostname(listener);
    let routes = list(&route["spec"], "hostnames");
    listener.is_empty()
        || routes.is_empty()
        || routes
            .iter()
            .filter_map(Value::as_str)
            .any(|route| hosts_meet(listener, route))
}

/// Some host matches both; `*.a.b` stands for any depth below `a.b`, but not for `a.b`.
fn hosts_meet(one: &str, other: &str) -> bool {
    let covers = |wildcard: &str, host: &str| {
        wildcard
            .strip_prefix('*')
            .is_some_and(|suffix| host.len() > suffix.len() && host.ends_with(suffix))
    };
    one.eq_ignore_ascii_case(other) || covers(one, other) || covers(other, one)
}

fn route(view: &View, key: &Key, cx: &Context<'_>) -> Option<Write> {
    let row = view.get::<HttpRoute>(key)?;
    let route = value(row);
    let before = &route["status"];
    let old = list(before, "parents");
    let mut parents: Vec<Value> = old
        .iter()
        .filter(|entry| entry["controllerName"] != CONTROLLER_NAME)
        .cloned()
        .collect();
    for parent in list(&route["spec"], "parentRefs") {
        let ours = refers_to(parent, row).and_then(|gateway| our_gateway(view, &gateway));
        let Some(gateway) = ours else { continue };
        let verdicts = [
            attachment(view, gateway, parent, row),
            references(view, row),
        ];
        let previous = old
            .iter()
            .find(|e| e["controllerName"] == CONTROLLER_NAME && e["parentRef"] == *parent)
            .map_or(&Value::Null, |entry| &entry["conditions"]);
        parents.push(json!({
            "parentRef": parent,
            "controllerName": CONTROLLER_NAME,
            "conditions": conditions(previous, &verdicts, row.meta.generation, cx),
        }));
    }
    if parents.as_slice() == old {
        return None;
    }
    let mut after = before.clone();
    after["parents"] = Value::Array(parents);
    Write::status(row, before, &after)
}

/// Whether a listener of the gateway takes the route; the furthest refusal is the one told.
fn attachment(
    view: &View,
    gateway: &Cached<Gateway>,
    parent: &Value,
    route: &Cached<HttpRoute>,
) -> Verdict {
    let named = list(&value(gateway)["spec"], "listeners")
        .iter()
        .filter(|listener| names_listener(parent, listener))
        .collect::<Vec<_>>();
    if named.is_empty() {
        return verdict(
            "Accepted",
            false,
            "NoMatchingParent",
            "The gateway has no such listener.",
        );
    }
    let allowed = named
        .into_iter()
        .filter(|l| admits_namespace(view, &gateway.key, l, &route.key.namespace))
        .collect::<Vec<_>>();
    if allowed.is_empty() {
        return verdict(
            "Accepted",
            false,
            "NotAllowedByListeners",
            "No listener allows routes of this namespace.",
        );
    }
    if !allowed.iter().any(|l| hostnames_meet(l, value(route))) {
        return verdict(
            "Accepted",
            false,
            "NoMatchingListenerHostname",
            "No listener has a hostname in common with the route.",
        );
    }
    verdict("Accepted", true, "Accepted", "The route is accepted.")
}

/// Whether every backend of the route is a Service that exists in its own namespace.
fn references(view: &View, route: &Cached<HttpRoute>) -> Verdict {
    let refuse = |reason, message: String| verdict("ResolvedRefs", false, reason, message);
    let rules = list(&value(route)["spec"], "rules").iter();
    for backend in rules.flat_map(|rule| list(rule, "backendRefs")) {
        let name = backend["name"].as_str().unwrap_or("");
        let group = backend["group"].as_str().unwrap_or("");
        let kind = backend["kind"].as_str().unwrap_or(&SERVICE.kind);
        if !group.is_empty() || *kind != *SERVICE.kind {
            let message = format!("Backend {name} is a {kind}; only Services are supported.");
            return refuse("InvalidKind", message);
        }
        let own = &*route.key.namespace;
        let namespace = backend["namespace"].as_str().unwrap_or(own);
        if namespace != own {
            let message = format!("No grant lets this route refer to {namespace}/{name}.");
            return refuse("RefNotPermitted", message);
        }
        if view.get::<Service>(&Key::new(namespace, name)).is_none() {
            let message = format!("Service {namespace}/{name} does not exist.");
            return refuse("BackendNotFound", message);
        }
    }
    verdict("ResolvedRefs", true, "ResolvedRefs", "All references hold.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_meet_as_the_standard_says() {
        for (one, other, meet) in [
            ("a.example.com", "a.example.com", true),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "*.b.example.com", true),
            ("a.example.com", "b.example.com", false),
        ] {
            assert_eq!(hosts_meet(one, other), meet, "{one} {other}");
            assert_eq!(hosts_meet(other, one), meet, "{other} {one}");
        }
    }
}
