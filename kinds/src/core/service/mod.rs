//! Services: names, defaults, columns, and what stays when a Service changes its type.
//!
//! Rules are in `validation`, addresses and node ports in `allocation`, which families of addresses there are in `families`.

mod addresses;
mod allocation;
mod families;
#[cfg(test)]
mod tests;
mod validation;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::status::StatusError;

pub use addresses::{ADDRESS_MANAGED_BY, ADDRESS_MANAGER, address_claim, held_address};
pub use allocation::ServiceRange;

use allocation::{allocate_address, allocate_ports, health_port, is_health_checked, port_claim};

use crate::columns::{Column, Row, labels_text, or_none};
use crate::kind::{NameRule, Selectable};
use crate::lens::{fill, integer, items, items_mut, member, put, text};
use crate::networking::IP_ADDRESS;
use crate::strategy::{Claim, Companion, Strategy, Surroundings, replace_part};
use crate::validate::Problems;
use crate::{Kind, StatusMetadata, Subresource};

pub static SERVICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["svc".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status, Subresource::Proxy],
        columns: vec![
            Column::name(),
            Column::text("Type", shown_type, "How the service is exposed."),
            Column::text("Cluster-IP", cluster_ip, "Virtual address of the service."),
            Column::text("External-IP", external_ip, "Addresses outside the cluster."),
            Column::text("Port(s)", ports, "Ports the service exposes."),
            Column::age(),
            Column::text(
                "Selector",
                selector,
                "Labels of the pods behind the service.",
            )
            .wide(),
        ],
        selectable: vec![
            Selectable::new("spec.clusterIP", "/spec/clusterIP"),
            Selectable::new("spec.type", "/spec/type"),
        ],
        name_rule: NameRule::Label,
        status_metadata: StatusMetadata::TAKEN,
        strategy: Arc::new(Services),
        ..Kind::new("", "v1", "Service", "services")
    })
});

struct Services;

impl Strategy for Services {
    fn creates_on_update(&self) -> bool {
        true
    }

    fn prepare_for_update(
        &self,
        kind: &Kind,
        part: Option<Subresource>,
        proposed: Value,
        old: &Value,
    ) -> Value {
        let mut next = replace_part(kind, part, proposed, old);
        if part.is_none() && next.get("spec").is_some_and(Value::is_object) {
            drop_of_former_type(&mut next, old);
        }
        next
    }

    /// Of its addresses, the first one says the same as the list of them.
    fn settle(&self, next: &mut Value, old: Option<&Value>) {
        let spec = next.get("spec").is_some_and(Value::is_object);
        if !spec || text(next, "/spec/type") == "ExternalName" {
            return;
        }
        if let Some(old) = old {
            keep_addresses(next, old);
            keep_health_port(next, old);
        }
        let address = text(next, "/spec/clusterIP").to_owned();
        if items(next, "/spec/clusterIPs").is_empty() && !address.is_empty() {
            member(next, "spec")["clusterIPs"] = json!([address]);
        }
    }

    fn default(&self, value: &mut Value) {
        for address in items_mut(value, "/status/loadBalancer/ingress") {
            if !text(address, "/ip").is_empty() {
                fill(address, "ipMode", "VIP");
            }
        }
        let spec = member(value, "spec");
        fill(spec, "type", "ClusterIP");
        fill(spec, "sessionAffinity", "None");
        let kind = text(spec, "/type").to_owned();
        let affinity = text(spec, "/sessionAffinity").to_owned();
        match affinity.as_str() {
            "ClientIP" => {
                let client = member(member(spec, "sessionAffinityConfig"), "clientIP");
                fill(client, "timeoutSeconds", 10800);
            }
            // What is left of a former wish.
            "None" => put(spec, "sessionAffinityConfig", None),
            _ => {}
        }
        for port in items_mut(spec, "/ports") {
            fill(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or(Value::Null);
            match port.get("targetPort") {
                None | Some(Value::Null) => put(port, "targetPort", Some(number)),
                Some(target) if target == &json!(0) || target == &json!("") => {
                    put(port, "targetPort", Some(number));
                }
                Some(_) => {}
            }
        }
        if kind == "ExternalName" {
            return;
        }
        fill(spec, "internalTrafficPolicy", "Cluster");
        let reachable = matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP" && !items(spec, "/externalIPs").is_empty());
        if reachable {
            fill(spec, "externalTrafficPolicy", "Cluster");
        }
        if kind == "LoadBalancer" {
            fill(spec, "allocateLoadBalancerNodePorts", true);
        }
        fill(member(value, "status"), "loadBalancer", json!({}));
    }

    fn allocate(
        &self,
        new: &mut Value,
        old: Option<&Value>,
        around: &dyn Surroundings,
    ) -> Result<(), StatusError> {
        let had = old.map(|old| self.claims(old)).unwrap_or_default();
        families::settle(new, old)?;
        allocate_address(new, old, &had, around)?;
        allocate_ports(new, old, &had, around)
    }

    fn claims(&self, value: &Value) -> BTreeSet<Claim> {
        let mut claims = BTreeSet::new();
        let address = text(value, "/spec/clusterIP");
        if Ipv4Addr::from_str(address).is_ok() {
            claims.insert(address_claim(address));
        }
        for port in items(value, "/spec/ports") {
            if let Some(number) = integer(port, "/nodePort").filter(|number| *number > 0) {
                claims.insert(port_claim(number));
            }
        }
        if is_health_checked(value) {
            claims.extend(health_port(value).map(port_claim));
        }
        claims
    }

    fn companions(&self, value: &Value) -> Vec<Companion> {
        let address = text(value, "/spec/clusterIP");
        if Ipv4Addr::from_str(address).is_err() {
            return Vec::new();
        }
        let (namespace, name) = (
            text(value, "/metadata/namespace"),
            text(value, "/metadata/name"),
        );
        vec![Companion {
            kind: &IP_ADDRESS,
            object: held_address(address, namespace, name),
        }]
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        validation::of_new(new, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part == Some(Subresource::Status) {
            validation::of_status(new, problems);
        } else {
            validation::of_update(new, old, problems);
        }
    }

    fn warn(&self, new: &Value, _around: &dyn Surroundings) -> Vec<String> {
        validation::unserved(new)
    }
}

/// Fields that only some types have.
const OF_SOME_TYPES: [&str; 9] = [
    "clusterIP",
    "clusterIPs",
    "ipFamilies",
    "ipFamilyPolicy",
    "externalName",
    "externalTrafficPolicy",
    "allocateLoadBalancerNodePorts",
    "loadBalancerClass",
    "healthCheckNodePort",
];

/// Drops fields that the new type does not have and that are as they were: nobody asked for them.
fn drop_of_former_type(next: &mut Value, old: &Value) {
    let external = |kind: &str| kind == "ExternalName";
    let gives_ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    let balances = |kind: &str| kind == "LoadBalancer";
    let has = |kind: &str, field: &str| match field {
        "externalName" => external(kind),
        "externalTrafficPolicy" => gives_ports(kind),
        "allocateLoadBalancerNodePorts" | "loadBalancerClass" | "healthCheckNodePort" => {
            balances(kind)
        }
        _ => !external(kind),
    };
    let now = match text(next, "/spec/type") {
        "" => "ClusterIP",
        kind => kind,
    }
    .to_owned();
    // The same of what another policy has no use for.
    let is_unused = is_health_checked(old) && !is_health_checked(next);
    if is_unused && health_port(next) == health_port(old) {
        put(member(next, "spec"), "healthCheckNodePort", None);
    }
    let before = text(old, "/spec/type");
    if now == before {
        return;
    }
    let spec = member(next, "spec");
    for field in OF_SOME_TYPES {
        if has(before, field)
            && !has(&now, field)
            && spec.get(field) == old.pointer(&format!("/spec/{field}"))
        {
            put(spec, field, None);
        }
    }
    if gives_ports(before) && !gives_ports(&now) {
        let kept: BTreeSet<i64> = items(old, "/spec/ports")
            .iter()
            .filter_map(|port| integer(port, "/nodePort"))
            .collect();
        for port in items_mut(spec, "/ports") {
            if integer(port, "/nodePort").is_some_and(|port| kept.contains(&port)) {
                put(port, "nodePort", None);
            }
        }
    }
}

/// What was given out stays unless the update says otherwise, and of two spellings the one that changed counts.
fn keep_addresses(next: &mut Value, old: &Value) {
    let external = |service: &Value| text(service, "/spec/type") == "ExternalName";
    if external(next) || external(old) {
        return;
    }
    let list = |service: &Value| items(service, "/spec/clusterIPs").to_vec();
    let (address, kept) = (
        text(next, "/spec/clusterIP").to_owned(),
        text(old, "/spec/clusterIP"),
    );
    let (all, all_kept) = (list(next), list(old));
    let spec = member(next, "spec");
    if address.is_empty() {
        put(spec, "clusterIP", old.pointer("/spec/clusterIP").cloned());
        if all.is_empty() {
            put(spec, "clusterIPs", old.pointer("/spec/clusterIPs").cloned());
        }
    } else if address != kept && all == all_kept {
        put(spec, "clusterIPs", Some(json!([address])));
    } else if address == kept && all.is_empty() {
        put(spec, "clusterIPs", old.pointer("/spec/clusterIPs").cloned());
    }
}

/// The port of health checks stays as long as what it is for, unless the update says otherwise.
fn keep_health_port(next: &mut Value, old: &Value) {
    let is_checked = is_health_checked(old) && is_health_checked(next);
    if let Some(port) = health_port(old)
        && is_checked
        && health_port(next).is_none()
    {
        put(
            member(next, "spec"),
            "healthCheckNodePort",
            Some(port.into()),
        );
    }
}

fn shown_type(row: &Row<'_>) -> Value {
    row.text_or("/spec/type", "ClusterIP")
}

fn cluster_ip(row: &Row<'_>) -> Value {
    row.text_or("/spec/clusterIP", "<none>")
}

fn external_ip(row: &Row<'_>) -> Value {
    let mut addresses: Vec<&str> = items(row.object, "/status/loadBalancer/ingress")
        .iter()
        .map(|ingress| match text(ingress, "/ip") {
            "" => text(ingress, "/hostname"),
            ip => ip,
        })
        .collect();
    addresses.extend(
        items(row.object, "/spec/externalIPs")
            .iter()
            .filter_map(Value::as_str),
    );
    match text(row.object, "/spec/type") {
        "ExternalName" => row.text_or("/spec/externalName", "<none>"),
        _ => or_none(addresses.join(",")),
    }
}

fn ports(row: &Row<'_>) -> Value {
    let ports = items(row.object, "/spec/ports")
        .iter()
        .map(|port| {
            let number = integer(port, "/port").unwrap_or(0);
            let protocol = text(port, "/protocol");
            match integer(port, "/nodePort") {
                Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
                _ => format!("{number}/{protocol}"),
            }
        })
        .collect::<Vec<_>>();
    or_none(ports.join(","))
}

fn selector(row: &Row<'_>) -> Value {
    or_none(labels_text(row.object, "/spec/selector"))
}
