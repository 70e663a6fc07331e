//! Gateway API status: which classes, meshes, gateways and routes are weft's, and what became of them.
//!
//! What the nodes do with each object, and what is to be said of it, comes of one compiler ([`weft_gateway::compile`]), which the
//! nodes run too; this controller writes its statuses. The objects that it reads are kept in a [`Track`], so that each is read once,
//! when it changes.
//!
//! Invariants: entries of other controllers are never touched; conditions carry the generation they were decided on.
//!
//! The kinds are custom kinds: whoever takes a definition away takes its objects away, and what came of them; the class of this cluster comes
//! back with the definition.
//!
//! Of Secrets only those are read that hold a certificate, and of those not the key (`certificates.rs`).
//!
//! A parent that is not there gets no status, as the standard has it: nobody knows whose it would be. The route gets an event.
//!
//! Left to others: what is decided (`weft_gateway`), routing (`weft_mesh`).

mod certificates;
mod infrastructure;
mod mesh;
mod resilience;
mod routes;
mod version;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_api::view::{Namespace, Node, ObjectMeta};
use weft_gateway::{Compiled, ListenerStatus, NamespacedName, Objects, api};
use weft_kinds::{
    BACKEND_TLS_POLICY, CONFIG_MAP, CUSTOM_RESOURCE_DEFINITION, FAULT_INJECTION, GATEWAY,
    GATEWAY_CLASS, GRPC_ROUTE, HTTP_ROUTE, Kind, LISTENER_SET, MESH_POLICY, NAMESPACE, NODE,
    REFERENCE_GRANT, SECRET, SERVICE, TCP_ROUTE, TLS_ROUTE, UDP_ROUTE, X_MESH,
};

use crate::conditions::Condition;
use crate::indexer::{Cached, Lens};
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::{Touched, Track, View};
use crate::write::{Write, object};
use crate::{Context, Controller, Outcome};
use certificates::{Authorities, KeyPair};
use version::Definition;

pub const CONTROLLER: Controller = Controller {
    name: "gateway-controller",
    reads: |reads| {
        reads
            .kind::<GatewayClass>()
            .kind::<Gateway>()
            .kind::<HttpRoute>()
            .kind::<GrpcRoute>()
            .kind::<TlsRoute>()
            .kind::<TcpRoute>()
            .kind::<UdpRoute>()
            .kind::<ListenerSet>()
            .kind::<BackendTlsPolicy>()
            .kind::<MeshPolicy>()
            .kind::<FaultInjection>()
            .kind::<Mesh>()
            .kind::<ReferenceGrant>()
            .kind::<KeyPair>()
            .kind::<Authorities>()
            .kind::<Definition>()
            .kind::<Namespace>()
            .kind::<Node>()
            .kind::<Service>()
            .track::<GatewayApi>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let mut keys = classes(view);
        keys.extend(all::<Gateway>(view));
        keys.extend(all::<HttpRoute>(view));
        keys.extend(all::<GrpcRoute>(view));
        keys.extend(all::<TlsRoute>(view));
        keys.extend(all::<TcpRoute>(view));
        keys.extend(all::<UdpRoute>(view));
        keys.extend(all::<ListenerSet>(view));
        keys.extend(all::<BackendTlsPolicy>(view));
        keys.extend(all::<MeshPolicy>(view));
        keys.extend(all::<FaultInjection>(view));
        keys.extend(meshes(view));
        keys
    },
    subject: |view, key| {
        let (kind, name) = key.name.split_once('/')?;
        let kind = told_kinds().find(|known| known.resource == kind)?;
        Some(view.object_of(kind, &key.sibling(name))?.reference())
    },
    reconcile,
};

/// The class that always exists, and the mesh.
const CLASS: &str = "weft";

/// Kinds whose statuses are told here.
fn told_kinds() -> impl Iterator<Item = &'static Arc<Kind>> {
    let kinds: [&'static Arc<Kind>; 12] = [
        &GATEWAY_CLASS,
        &GATEWAY,
        &HTTP_ROUTE,
        &GRPC_ROUTE,
        &TLS_ROUTE,
        &TCP_ROUTE,
        &UDP_ROUTE,
        &LISTENER_SET,
        &BACKEND_TLS_POLICY,
        &MESH_POLICY,
        &FAULT_INJECTION,
        &X_MESH,
    ];
    kinds.into_iter()
}

/// They share one queue, so the key's name carries the kind: `gateways/web`.
fn key_of(kind: &Kind, key: &Key) -> Key {
    key.sibling(&format!("{}/{}", kind.resource, key.name))
}

/// A lens that shows what the compiler takes. The status is read from the whole object.
macro_rules! lens {
    ($name:ident, $kind:ident) => {
        lens!($name, $kind, $name);
    };
    ($name:ident, $kind:ident, $of:ident) => {
        #[derive(Debug)]
        struct $name(api::$of);

        impl Lens for $name {
            const WHOLE: bool = true;

            fn kind() -> &'static Arc<Kind> {
                &$kind
            }

            fn read(object: &Object) -> Result<Self, ObjectError> {
                let value = object.as_value();
                let meta = ObjectMeta::deserialize(&value["metadata"]);
                let read = meta.and_then(|meta| api::Object::read(&meta, &value["spec"]));
                read.map(Self).map_err(ObjectError::View)
            }
        }
    };
}

lens!(GatewayClass, GATEWAY_CLASS);
lens!(Gateway, GATEWAY);
lens!(HttpRoute, HTTP_ROUTE);
lens!(GrpcRoute, GRPC_ROUTE);
lens!(TlsRoute, TLS_ROUTE, StreamRoute);
lens!(TcpRoute, TCP_ROUTE, StreamRoute);
lens!(UdpRoute, UDP_ROUTE, StreamRoute);
lens!(ListenerSet, LISTENER_SET);
lens!(BackendTlsPolicy, BACKEND_TLS_POLICY);
lens!(MeshPolicy, MESH_POLICY);
lens!(FaultInjection, FAULT_INJECTION);
lens!(Mesh, X_MESH);
lens!(ReferenceGrant, REFERENCE_GRANT);

/// What the compiler takes, and what came of it.
#[derive(Debug, Default)]
pub struct GatewayApi {
    objects: Objects,
    /// Made when it is asked for.
    compiled: OnceLock<Compiled>,
    /// What came of the objects before the last change of them.
    before: Compiled,
    /// The change told last was one of them.
    is_news: bool,
}

impl Track for GatewayApi {
    fn notice(&mut self, touched: &Touched, _: bool, _: Timestamp) {
        use weft_gateway::{Kind, Object};
        let is_of = |kind: &weft_kinds::Kind| touched.is_of(kind);
        let name = || touched.key.name.to_string();
        self.is_news = if is_of(&GATEWAY_CLASS) {
            self.take(touched, Kind::GatewayClass, |row: &Cached<GatewayClass>| {
                Object::GatewayClass(row.body.0.clone())
            })
        } else if is_of(&GATEWAY) {
            self.take(touched, Kind::Gateway, |row: &Cached<Gateway>| {
                Object::Gateway(Box::new(row.body.0.clone()))
            })
        } else if is_of(&HTTP_ROUTE) {
            self.take(touched, Kind::HttpRoute, |row: &Cached<HttpRoute>| {
                Object::HttpRoute(row.body.0.clone())
            })
        } else if is_of(&REFERENCE_GRANT) {
            self.take(
                touched,
                Kind::ReferenceGrant,
                |row: &Cached<ReferenceGrant>| Object::ReferenceGrant(row.body.0.clone()),
            )
        } else if is_of(&GRPC_ROUTE) {
            self.take(touched, Kind::GrpcRoute, |row: &Cached<GrpcRoute>| {
                Object::GrpcRoute(row.body.0.clone())
            })
        } else if is_of(&TLS_ROUTE) {
            self.take(touched, Kind::TlsRoute, |row: &Cached<TlsRoute>| {
                Object::TlsRoute(row.body.0.clone())
            })
        } else if is_of(&TCP_ROUTE) {
            self.take(touched, Kind::TcpRoute, |row: &Cached<TcpRoute>| {
                Object::TcpRoute(row.body.0.clone())
            })
        } else if is_of(&UDP_ROUTE) {
            self.take(touched, Kind::UdpRoute, |row: &Cached<UdpRoute>| {
                Object::UdpRoute(row.body.0.clone())
            })
        } else if is_of(&LISTENER_SET) {
            self.take(touched, Kind::ListenerSet, |row: &Cached<ListenerSet>| {
                Object::ListenerSet(row.body.0.clone())
            })
        } else if is_of(&BACKEND_TLS_POLICY) {
            self.take(
                touched,
                Kind::BackendTlsPolicy,
                |row: &Cached<BackendTlsPolicy>| Object::BackendTlsPolicy(row.body.0.clone()),
            )
        } else if is_of(&MESH_POLICY) {
            self.take(touched, Kind::MeshPolicy, |row: &Cached<MeshPolicy>| {
                Object::MeshPolicy(Box::new(row.body.0.clone()))
            })
        } else if is_of(&FAULT_INJECTION) {
            self.take(
                touched,
                Kind::FaultInjection,
                |row: &Cached<FaultInjection>| Object::FaultInjection(row.body.0.clone()),
            )
        } else if is_of(&SECRET) {
            self.take(touched, Kind::Secret, |row: &Cached<KeyPair>| {
                let secret = row.body.0.clone();
                secret.map(|secret| Object::Secret(name_of(&touched.key), secret))
            })
        } else if is_of(&CONFIG_MAP) {
            self.take(touched, Kind::ConfigMap, |row: &Cached<Authorities>| {
                let bundle = row.body.0.clone();
                bundle.map(|bundle| Object::ConfigMap(name_of(&touched.key), bundle))
            })
        } else if is_of(&SERVICE) {
            self.take(touched, Kind::Service, |row: &Cached<Service>| {
                let service: &weft_api::view::Service = &row.body;
                Object::Service(name_of(&touched.key), service.into())
            })
        } else if is_of(&NAMESPACE) {
            self.take(touched, Kind::Namespace, |row: &Cached<Namespace>| {
                Object::Namespace(name(), BTreeMap::clone(&row.meta.labels))
            })
        } else if is_of(&NODE) {
            self.take(touched, Kind::Node, |row: &Cached<Node>| {
                let node = api::Node::read(row.body.status.as_ref(), &row.meta.annotations);
                Object::Node(name(), node)
            })
        } else {
            false
        };
        if self.is_news
            && let Some(compiled) = self.compiled.take()
        {
            self.before = compiled;
        }
    }
}

impl GatewayApi {
    /// Whether anything could come of the change.
    fn take<K: Lens, O: Into<Option<weft_gateway::Object>>>(
        &mut self,
        touched: &Touched,
        kind: weft_gateway::Kind,
        object: impl FnOnce(&Cached<K>) -> O,
    ) -> bool {
        match (touched.before::<K>(), touched.after::<K>()) {
            (_, Some(row)) => match object(row).into() {
                Some(object) => self.objects.apply(object),
                None => self.objects.delete(kind, &name_of(&touched.key)),
            },
            (Some(_), None) => self.objects.delete(kind, &name_of(&touched.key)),
            // It was never read, or a namesake has taken its place.
            (None, None) => false,
        }
    }

    fn compiled(&self) -> &Compiled {
        let objects = &self.objects;
        self.compiled.get_or_init(|| weft_gateway::compile(objects))
    }

    /// Objects of which something else is to be said since the change told last.
    fn news(&self) -> Vec<Key> {
        if !self.is_news {
            return Vec::new();
        }
        let (before, now) = (&self.before, self.compiled());
        let classes = differences(&GATEWAY_CLASS, &before.classes, &now.classes);
        let gateways = differences(&GATEWAY, &before.gateways, &now.gateways);
        let routes = differences(&HTTP_ROUTE, &before.routes, &now.routes);
        let grpc = differences(&GRPC_ROUTE, &before.grpc_routes, &now.grpc_routes);
        let tls = differences(&TLS_ROUTE, &before.tls_routes, &now.tls_routes);
        let tcp = differences(&TCP_ROUTE, &before.tcp_routes, &now.tcp_routes);
        let udp = differences(&UDP_ROUTE, &before.udp_routes, &now.udp_routes);
        let grpc = grpc.chain(tls).chain(tcp).chain(udp);
        let sets = differences(&LISTENER_SET, &before.listener_sets, &now.listener_sets);
        let policies = differences(&BACKEND_TLS_POLICY, &before.policies, &now.policies);
        let resilience = differences(&MESH_POLICY, &before.mesh_policies, &now.mesh_policies);
        let faults = differences(&FAULT_INJECTION, &before.faults, &now.faults);
        let policies = policies.chain(resilience).chain(faults);
        let keys = classes.chain(gateways).chain(routes);
        keys.chain(grpc).chain(sets).chain(policies).collect()
    }
}

fn differences<'a, T: PartialEq>(
    kind: &'a Kind,
    before: &'a BTreeMap<NamespacedName, T>,
    now: &'a BTreeMap<NamespacedName, T>,
) -> impl Iterator<Item = Key> + use<'a, T> {
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    let new = now
        .iter()
        .filter(|(name, one)| before.get(*name) != Some(*one));
    let names = gone.chain(new.map(|(name, _)| name));
    names.map(move |name| key_of(kind, &Key::new(&name.namespace, &name.name)))
}

fn name_of(key: &Key) -> NamespacedName {
    NamespacedName::new(&*key.namespace, &*key.name)
}

fn all<K: Lens>(view: &View) -> impl Iterator<Item = Key> {
    view.list::<K>().map(|row| key_of(K::kind(), &row.key))
}

/// The class that always exists, and those that there are.
fn classes(view: &View) -> Vec<Key> {
    let mut keys: Vec<Key> = all::<GatewayClass>(view).collect();
    keys.push(key_of(&GATEWAY_CLASS, &Key::cluster(CLASS)));
    keys.sort();
    keys.dedup();
    keys
}

/// The same of meshes.
fn meshes(view: &View) -> Vec<Key> {
    let mut keys: Vec<Key> = all::<Mesh>(view).collect();
    keys.push(key_of(&X_MESH, &Key::cluster(CLASS)));
    keys.sort();
    keys.dedup();
    keys
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&CUSTOM_RESOURCE_DEFINITION) {
        return if Definition::wants(&touched.key) {
            classes(view)
        } else if mesh::is_definition(&touched.key) {
            meshes(view)
        } else {
            Vec::new()
        };
    }
    let mut keys = view.tracked::<GatewayApi>().news();
    if touched.is_of(&SERVICE) {
        keys.extend(
            touched
                .states::<Service>()
                .filter_map(infrastructure::gateway_of),
        );
    }
    if told_kinds().any(|kind| touched.is_of(kind)) {
        keys.push(key_of(&touched.kind, &touched.key));
    }
    keys
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some((kind, name)) = key.name.split_once('/') else {
        return Outcome::default();
    };
    let key = key.sibling(name);
    let compiled = view.tracked::<GatewayApi>().compiled();
    let writes = match kind {
        "gatewayclasses" => class(view, &key, compiled, cx).into_iter().collect(),
        "gateways" => gateway(view, &key, compiled, cx),
        "listenersets" => listener_set(view, &key, compiled, cx).into_iter().collect(),
        "httproutes" => routes::told::<HttpRoute>(view, &key, &compiled.routes, cx),
        "grpcroutes" => routes::told::<GrpcRoute>(view, &key, &compiled.grpc_routes, cx),
        "tlsroutes" => routes::told::<TlsRoute>(view, &key, &compiled.tls_routes, cx),
        "tcproutes" => routes::told::<TcpRoute>(view, &key, &compiled.tcp_routes, cx),
        "udproutes" => routes::told::<UdpRoute>(view, &key, &compiled.udp_routes, cx),
        "backendtlspolicies" => policy(view, &key, compiled, cx).into_iter().collect(),
        "meshpolicies" => resilience::policy(view, &key, compiled, cx)
            .into_iter()
            .collect(),
        "faultinjections" => return resilience::fault(view, &key, compiled, cx),
        "xmeshes" => mesh::told(view, &key, cx).into_iter().collect(),
        _ => Vec::new(),
    };
    Outcome::from_writes(writes)
}

/// The status as it is stored.
fn status_of<K: Lens>(row: &Cached<K>) -> &Value {
    let whole = row.object.as_ref();
    whole.map_or(&Value::Null, |object| &object.as_value()["status"])
}

fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map_or(&[], Vec::as_slice)
}

/// Conditions as JSON.
fn conditions(
    before: &Value,
    now: &[weft_gateway::Condition],
    generation: i64,
    cx: &Context<'_>,
) -> Value {
    let entries = now.iter().map(|condition| {
        let condition = Condition {
            kind: condition.kind,
            holds: condition.holds,
            reason: condition.reason,
            message: &condition.message,
            generation,
        };
        condition.after(before, cx)
    });
    Value::Array(entries.collect())
}

/// Whether objects of a kind can be made: somebody may have taken its definition away, or be about to.
fn is_served(kind: &Kind, cx: &Context<'_>) -> bool {
    let served = cx.kinds.by_group_kind(&kind.group, &kind.kind);
    let custom = served.and_then(|kind| kind.custom.as_ref());
    custom.is_some_and(|custom| !custom.definition().is_ending)
}

fn class(view: &View, key: &Key, compiled: &Compiled, cx: &Context<'_>) -> Option<Write> {
    let Some(row) = view.get::<GatewayClass>(key) else {
        // It comes as soon as there are classes.
        return (&*key.name == CLASS && is_served(&GATEWAY_CLASS, cx)).then(|| {
            let class = json!({
                "apiVersion": GATEWAY_CLASS.api_version(),
                "kind": GATEWAY_CLASS.kind,
                "metadata": {"name": CLASS},
                "spec": {
                    "controllerName": api::CONTROLLER_NAME,
                    "description": "The gateway that listens on every node.",
                },
            });
            Write::create(&GATEWAY_CLASS, object(class))
        });
    };
    let mut now = compiled.classes.get(&name_of(key))?.clone();
    now.push(version::supported(view));
    let before = status_of(row);
    let mut after = before.clone();
    after["conditions"] = conditions(&before["conditions"], &now, row.meta.generation, cx);
    if version::names_features(view) {
        after["supportedFeatures"] = features(weft_gateway::FEATURES);
    }
    Write::status(row, before, &after)
}

/// Names of features as statuses have them.
fn features(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name })).collect()
}

fn gateway(view: &View, key: &Key, compiled: &Compiled, cx: &Context<'_>) -> Vec<Write> {
    let Some(row) = view.get::<Gateway>(key) else {
        return Vec::new();
    };
    let now = compiled.gateways.get(&name_of(key));
    let status = now.and_then(|now| gateway_status(row, now, cx));
    let mut writes: Vec<Write> = status.into_iter().collect();
    writes.extend(infrastructure::kept(view, row, now));
    writes
}

fn gateway_status(
    row: &Cached<Gateway>,
    now: &weft_gateway::GatewayStatus,
    cx: &Context<'_>,
) -> Option<Write> {
    let before = status_of(row);
    let generation = row.meta.generation;
    let addresses = now.addresses.iter();
    let mut after = before.clone();
    after["conditions"] = conditions(&before["conditions"], &now.conditions, generation, cx);
    after["addresses"] = addresses
        .map(|address| json!({"type": "IPAddress", "value": address}))
        .collect();
    after["listeners"] = listeners(before, &now.listeners, generation, cx);
    // Definitions of before ListenerSets have no such field.
    if now.attached_sets > 0 || !before["attachedListenerSets"].is_null() {
        after["attachedListenerSets"] = now.attached_sets.into();
    }
    Write::status(row, before, &after)
}

/// The statuses of listeners as JSON; `before` is the whole status as it is now.
fn listeners(before: &Value, now: &[ListenerStatus], generation: i64, cx: &Context<'_>) -> Value {
    let listeners = now.iter().map(|listener| {
        let mut old = list(before, "listeners").iter();
        let old = old.find(|old| old["name"] == *listener.name);
        let old = old.map_or(&Value::Null, |old| &old["conditions"]);
        let kinds = listener.supported_kinds.iter();
        let kinds = kinds.map(|kind| json!({"group": kind.group, "kind": kind.kind}));
        json!({
            "name": listener.name,
            "supportedKinds": kinds.collect::<Vec<_>>(),
            "attachedRoutes": listener.attached_routes,
            "conditions": conditions(old, &listener.conditions, generation, cx),
        })
    });
    Value::Array(listeners.collect())
}

fn listener_set(view: &View, key: &Key, compiled: &Compiled, cx: &Context<'_>) -> Option<Write> {
    let row = view.get::<ListenerSet>(key)?;
    let now = compiled.listener_sets.get(&name_of(key))?;
    let before = status_of(row);
    let generation = row.meta.generation;
    let mut after = before.clone();
    after["conditions"] = conditions(&before["conditions"], &now.conditions, generation, cx);
    after["listeners"] = listeners(before, &now.listeners, generation, cx);
    Write::status(row, before, &after)
}

fn policy(view: &View, key: &Key, compiled: &Compiled, cx: &Context<'_>) -> Option<Write> {
    let row = view.get::<BackendTlsPolicy>(key)?;
    let now = compiled.policies.get(&name_of(key))?;
    let before = status_of(row);
    let old = list(before, "ancestors");
    let is_ours = |entry: &Value| entry["controllerName"] == api::CONTROLLER_NAME;
    let others = old.iter().filter(|entry| !is_ours(entry)).cloned();
    let ours = now.iter().map(|ancestor| {
        let reference = json!({
            "group": api::GROUP,
            "kind": GATEWAY.kind,
            "namespace": ancestor.gateway.namespace,
            "name": ancestor.gateway.name,
        });
        let previous = old
            .iter()
            .find(|entry| is_ours(entry) && entry["ancestorRef"] == reference)
            .map_or(&Value::Null, |entry| &entry["conditions"]);
        json!({
            "ancestorRef": reference,
            "controllerName": api::CONTROLLER_NAME,
            "conditions": conditions(previous, &ancestor.conditions, row.meta.generation, cx),
        })
    });
    let ancestors: Vec<Value> = others.chain(ours).collect();
    if ancestors.as_slice() == old {
        return None;
    }
    let mut after = before.clone();
    after["ancestors"] = Value::Array(ancestors);
    Write::status(row, before, &after)
}
