//! What is made for a Gateway: a Service with its addresses and ports, for whoever looks for Services where others look for Gateways.
//!
//! Nobody is called by it: the nodes listen for the Gateway itself. It bears the labels and annotations that the Gateway has for what is made
//! for it (`spec.infrastructure`), and the label by which tools find it.
//!
//! Invariants: a Service that somebody else made is left alone, and its name is told; one that was made goes with its Gateway, and as soon
//! as that is no longer of a class of ours.
//! Source: gateway-api `geps/gep-1762`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use weft_api::annotation::GATEWAY_SERVICE_CLASS;
use weft_api::hash::fnv1a_64;
use weft_gateway::GatewayStatus;
use weft_kinds::{GATEWAY, SERVICE};

use super::{Gateway, key_of};
use crate::claim::controller_reference;
use crate::indexer::Cached;
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write, object};

const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// Longest name of a Service, and longest value of a label.
const LABEL_MAX: usize = 63;

/// The Gateway that a Service stands for, as a key of this controller.
pub(super) fn gateway_of(service: &Cached<Service>) -> Option<Key> {
    let owner = service
        .meta
        .controller()
        .filter(|owner| *owner.kind == *GATEWAY.kind)?;
    Some(key_of(&GATEWAY, &service.key.sibling(&owner.name)))
}

/// What has to be written for a Gateway; `now` is none where it is not ours.
pub(super) fn kept(view: &View, row: &Cached<Gateway>, now: Option<&GatewayStatus>) -> Vec<Write> {
    if row.meta.is_deleting() {
        return Vec::new();
    }
    let name = service_name(row);
    let all = view.list_in::<Service>(&row.key.namespace);
    let made = all.filter(|service| is_made_for(service, row) && !service.meta.is_deleting());
    let mut writes: Vec<Write> = made
        .filter(|service| now.is_none() || *service.key.name != *name)
        .map(|service| Write::delete(service))
        .collect();
    let Some(now) = now else { return writes };
    let wanted = wanted(row, &name);
    match view.get::<Service>(&row.key.sibling(&name)) {
        None => writes.push(Write::create(&SERVICE, object(wanted))),
        Some(service) if !is_made_for(service, row) => {
            let message = format!(
                "Service {name} is not of this Gateway, which has none for as long as that is there"
            );
            let note = Note::warning(row.reference(), "ServiceNotMade", message);
            writes.push(Write::Event(note));
        }
        Some(service) => writes.extend(mended(service, &wanted, now)),
    }
    writes
}

fn is_made_for(service: &Cached<Service>, row: &Cached<Gateway>) -> bool {
    let owner = service.meta.controller();
    owner.is_some_and(|owner| *owner.uid == *row.meta.uid)
}

/// `NAME-CLASS`, or what follows from it where that is no name of a Service.
fn service_name(row: &Cached<Gateway>) -> String {
    let class = &row.body.0.spec.gateway_class_name;
    let name = format!("{}-{class}", row.key.name);
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = name.len() <= LABEL_MAX
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.bytes().all(is_word);
    match is_label {
        true => name,
        false => format!("gateway-{:016x}", fnv1a_64(name.bytes())),
    }
}

fn wanted(row: &Cached<Gateway>, name: &str) -> Value {
    let spec = &row.body.0.spec;
    let infrastructure = spec.infrastructure.clone().unwrap_or_default();
    let mut labels = infrastructure.labels;
    if row.key.name.len() <= LABEL_MAX {
        labels.insert(GATEWAY_NAME.to_owned(), row.key.name.to_string());
    }
    let listeners = spec.listeners.iter();
    let ports: BTreeSet<(&str, u16)> = listeners
        .map(|listener| match listener.protocol.as_str() {
            "UDP" => ("UDP", listener.port),
            _ => ("TCP", listener.port),
        })
        .collect();
    let ports: Vec<Value> = ports
        .into_iter()
        .map(|(protocol, port)| {
            let name = format!("{}-{port}", protocol.to_ascii_lowercase());
            json!({"name": name, "protocol": protocol, "port": port})
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": SERVICE.kind,
        "metadata": {
            "name": name,
            "namespace": &*row.key.namespace,
            "labels": labels,
            "annotations": infrastructure.annotations,
            "ownerReferences": [controller_reference(row)],
        },
        "spec": {
            "type": "LoadBalancer",
            "loadBalancerClass": GATEWAY_SERVICE_CLASS,
            "allocateLoadBalancerNodePorts": false,
            "ports": ports,
        },
    })
}

/// What of a Service that is there has to be otherwise.
fn mended(service: &Cached<Service>, wanted: &Value, now: &GatewayStatus) -> Vec<Write> {
    let mut patch = json!({});
    for (field, there) in [
        ("labels", &*service.meta.labels),
        ("annotations", &*service.meta.annotations),
    ] {
        if let Some(change) = change(there, &wanted["metadata"][field]) {
            patch["metadata"][field] = change;
        }
    }
    let ports = service
        .body
        .spec
        .iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let there: BTreeSet<(String, i64)> = ports
        .map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            (protocol, i64::from(port.port))
        })
        .collect();
    let ports = wanted["spec"]["ports"].as_array().into_iter().flatten();
    let asked: BTreeSet<(String, i64)> = ports
        .filter_map(|port| {
            Some((
                port["protocol"].as_str()?.to_owned(),
                port["port"].as_i64()?,
            ))
        })
        .collect();
    if there != asked {
        patch["spec"] = json!({ "ports": wanted["spec"]["ports"] });
    }
    let mut writes = Vec::new();
    if patch != json!({}) {
        writes.push(Write::patch(service, patch));
    }
    let balancer = service
        .body
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let told = balancer
        .into_iter()
        .flat_map(|balancer| balancer.ingress.iter().flatten());
    let told: Vec<&str> = told.filter_map(|one| one.ip.as_deref()).collect();
    let addresses: &[String] = if now.is_apart { &now.addresses } else { &[] };
    if told != addresses {
        let ingress: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"ip": ip, "ipMode": "VIP"}))
            .collect();
        let ingress = if ingress.is_empty() {
            Value::Null
        } else {
            ingress.into()
        };
        writes.push(Write::status_fields(
            service,
            &json!({"loadBalancer": {"ingress": ingress}}),
        ));
    }
    writes
}

/// A merge patch from what is there to just what is wanted; none where that is the same.
fn change(there: &BTreeMap<String, String>, wanted: &Value) -> Option<Value> {
    let mut patch = json!({});
    for name in there.keys().filter(|name| wanted[name.as_str()].is_null()) {
        patch[name] = Value::Null;
    }
    for (name, value) in wanted.as_object().into_iter().flatten() {
        if there.get(name).map(String::as_str) != value.as_str() {
            patch[name] = value.clone();
        }
    }
    (patch != json!({})).then_some(patch)
}
