//! Services: their addresses and node ports are given out here, and stay for life.
//!
//! An address is a [`Claim`] of its own, written only if absent, so two concurrent writers cannot hold one address, whichever
//! server they spoke to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::name;
use weft_api::status::{Cause, StatusError};

use crate::columns::{Column, Row, labels_text, or_none};
use crate::field::Field;
use crate::kind::{NameRule, Selectable};
use crate::lens::{fill, flag, integer, items, items_mut, member, put, text};
use crate::strategy::{Claim, Strategy, Surroundings, replace_part};
use crate::validate::{Problems, labels};
use crate::{Kind, Subresource};

/// Ports a Service of type NodePort may have on every node, as in Kubernetes.
const NODE_PORTS: RangeInclusive<u16> = 30000..=32767;
/// Addresses at the start of the service range that are only given out on request.
const RESERVED_ADDRESSES: u32 = 16;

pub static SERVICE: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        short_names: vec!["svc".into()],
        categories: vec!["all".into()],
        subresources: vec![Subresource::Status],
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
        strategy: Arc::new(Services),
        ..Kind::new("", "v1", "Service", "services")
    })
});

/// The range that virtual service addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceRange {
    base: u32,
    size: u32,
}

impl Default for ServiceRange {
    /// 10.43.0.0/16.
    fn default() -> Self {
        Self {
            base: u32::from(Ipv4Addr::new(10, 43, 0, 0)),
            size: 1 << 16,
        }
    }
}

impl ServiceRange {
    fn contains(self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        // The first and the last address are those of the network.
        address > self.base && address < self.base + self.size - 1
    }

    /// Candidates, every one once: from a place that follows from the name, so that a Service that is deleted
    /// and created again usually gets its old address, and a new one rarely gets that of another.
    fn candidates(self, name: &str) -> impl Iterator<Item = Ipv4Addr> {
        let span = self.size - 1 - RESERVED_ADDRESSES;
        // A fixed function, because the same name must lead to the same place on every server.
        let start = weft_api::hash::fnv1a_32(name.bytes()) % span;
        (0..span)
            .map(move |step| Ipv4Addr::from(self.base + RESERVED_ADDRESSES + (start + step) % span))
    }
}

struct Services;

impl Strategy for Services {
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
            keep_addresses(&mut next, old);
        }
        next
    }

    fn default(&self, value: &mut Value) {
        let spec = member(value, "spec");
        fill(spec, "type", "ClusterIP");
        fill(spec, "sessionAffinity", "None");
        let kind = text(spec, "/type").to_owned();
        if text(spec, "/sessionAffinity") == "ClientIP" {
            let client = member(member(spec, "sessionAffinityConfig"), "clientIP");
            fill(client, "timeoutSeconds", 10800);
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
        let address = text(spec, "/clusterIP").to_owned();
        match items(spec, "/clusterIPs").first().cloned() {
            None if !address.is_empty() => spec["clusterIPs"] = json!([address]),
            Some(first) if address.is_empty() => spec["clusterIP"] = first,
            _ => {}
        }
        fill(spec, "internalTrafficPolicy", "Cluster");
        fill(spec, "ipFamilies", json!(["IPv4"]));
        fill(spec, "ipFamilyPolicy", "SingleStack");
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
        claims
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let kind = spec.child("type");
        let addresses = spec.child("clusterIPs");
        let headless = is_headless(&spec);
        let ports = spec.child("ports");
        if ports.list().is_empty() && !headless && kind.text() != "ExternalName" {
            problems.required(&ports, "");
        }
        match kind.text() {
            kind @ ("LoadBalancer" | "NodePort") if headless => {
                let sentence = format!("may not be set to 'None' for {kind} services");
                problems.invalid(&spec.item("clusterIPs", 0), "None", &sentence);
            }
            "ExternalName" => {
                for names in ["clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                    let member = spec.child(names);
                    if member.is_set() {
                        let sentence = "may not be set for ExternalName services";
                        problems.forbidden(&member, sentence);
                    }
                }
                let name = spec.child("externalName");
                // A dot at the end says that the name is whole.
                let plain = name.text().strip_suffix('.').unwrap_or(name.text());
                if plain.is_empty() {
                    problems.required(&name, "");
                }
                for fault in name::dns1123_subdomain_faults(plain)
                    .iter()
                    .filter(|_| !plain.is_empty())
                {
                    problems.invalid(&name, plain, fault);
                }
            }
            _ => {}
        }
        validate_ports(&spec, problems);
        labels(&spec.child("selector"), problems);
        validate_affinity(&spec, problems);
        if kind.text() != "ExternalName" {
            validate_addresses(&spec, &addresses, headless, problems);
        }
        for address in spec.items("externalIPs") {
            match address.text().parse::<IpAddr>() {
                Ok(parsed) => problems.ordinary_address(&address, parsed),
                Err(_) => problems.ip_address(&address),
            }
        }
        problems.required_one_of(
            &kind,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
        validate_pairs(&spec, kind.text(), problems);
        validate_balancer(&spec, kind.text(), problems);
        validate_policies(&spec, kind.text(), problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        old: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part == Some(Subresource::Status) {
            return;
        }
        let (root, before) = (Field::root(new), Field::root(old));
        let (spec, before) = (root.child("spec"), before.child("spec"));
        let external = |spec: &Field<'_, '_>| spec.child("type").text() == "ExternalName";
        let addressed = !(external(&spec) || external(&before));
        let headless = is_headless(&spec) && is_headless(&before);
        if addressed && !headless {
            let (now, kept) = (spec.child("clusterIPs"), before.child("clusterIPs"));
            if now.list().is_empty() && !kept.list().is_empty() {
                let sentence = "primary clusterIP can not be unset";
                problems.invalid(&spec.item("clusterIPs", 0), now.shown(), sentence);
            }
            for (index, kept) in kept.list().iter().enumerate() {
                if now.list().get(index).is_some_and(|now| now != kept) {
                    let sentence = "may not change once set";
                    problems.invalid(&spec.item("clusterIPs", index), now.shown(), sentence);
                }
            }
            let (now, kept) = (spec.child("ipFamilies"), before.child("ipFamilies"));
            if is_headless(&spec) == is_headless(&before)
                && now.list().first() != kept.list().first()
                && !kept.list().is_empty()
                && !now.list().is_empty()
            {
                let sentence = "may not change once set";
                problems.invalid(&spec.item("ipFamilies", 0), now.shown(), sentence);
            }
        }
        let balances = |spec: &Field<'_, '_>| spec.child("type").text() == "LoadBalancer";
        let (class, kept) = (
            spec.child("loadBalancerClass"),
            before.child("loadBalancerClass"),
        );
        if balances(&spec) && balances(&before) && class.value() != kept.value() {
            problems.invalid(&class, class.shown(), "may not change once set");
        }
        self.validate(new, problems);
    }
}

fn is_headless(spec: &Field<'_, '_>) -> bool {
    matches!(spec.child("clusterIPs").list(), [only] if only == "None")
}

fn validate_ports(spec: &Field<'_, '_>, problems: &mut Problems) {
    let several = spec.child("ports").list().len() > 1;
    let mut names = BTreeSet::new();
    for port in spec.items("ports") {
        let own_name = port.child("name");
        if own_name.text().is_empty() {
            if several {
                problems.required(&own_name, "");
            }
        } else {
            problems.rule(&own_name, name::dns1123_label_faults);
            if !names.insert(own_name.text()) {
                problems.duplicate(&own_name, own_name.text());
            }
        }
        problems.port(&port.child("port"));
        problems.required_one_of(&port.child("protocol"), &["SCTP", "TCP", "UDP"]);
        problems.port_or_name(&port.child("targetPort"));
        let application = port.child("appProtocol");
        if application.is_set() {
            problems.rule(&application, name::qualified_name_faults);
        }
    }
}

/// Longest time for which a client is sent to one pod: a day.
const AFFINITY_SECONDS_MAX: i64 = 86_400;

fn validate_affinity(spec: &Field<'_, '_>, problems: &mut Problems) {
    let affinity = spec.child("sessionAffinity");
    problems.required_one_of(&affinity, &["ClientIP", "None"]);
    let config = spec.child("sessionAffinityConfig");
    match affinity.text() {
        "ClientIP" => {
            let client = config.child("clientIP");
            let timeout = client.child("timeoutSeconds");
            let missing = [&config, &client, &timeout]
                .into_iter()
                .find(|field| !field.is_set());
            if let Some(missing) = missing {
                problems.required(missing, "when session affinity type is ClientIP");
            } else if let Some(seconds) = timeout
                .integer()
                .filter(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(seconds))
            {
                let sentence =
                    format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
                problems.invalid(&timeout, seconds, &sentence);
            }
        }
        "None" if config.is_set() => {
            let sentence = "must not be set when session affinity is None";
            problems.forbidden(&config, sentence);
        }
        _ => {}
    }
}

fn validate_addresses(
    spec: &Field<'_, '_>,
    addresses: &Field<'_, '_>,
    headless: bool,
    problems: &mut Problems,
) {
    let address = spec.child("clusterIP").text();
    match addresses.list().first() {
        None if !address.is_empty() => problems.required(addresses, ""),
        Some(_) if address.is_empty() => {
            let sentence = "must be empty when `clusterIP` is not specified";
            problems.invalid(addresses, addresses.shown(), sentence);
        }
        Some(first) if first != address => {
            let sentence = "first value must match `clusterIP`";
            problems.invalid(addresses, addresses.shown(), sentence);
        }
        _ => {}
    }
    let mut seen = BTreeSet::new();
    for family in spec.items("ipFamilies") {
        problems.one_of(&family, &["IPv4", "IPv6"]);
        if !seen.insert(family.text()) {
            problems.duplicate(&family, family.text());
        }
    }
    problems.one_of(
        &spec.child("ipFamilyPolicy"),
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    );
    let count = addresses.list().len();
    let mut parsed = Vec::new();
    for (index, address) in spec.items("clusterIPs").enumerate() {
        if index == 0 && address.text() == "None" {
            if count > 1 {
                let sentence = "'None' must be the first and only value";
                problems.invalid(addresses, addresses.shown(), sentence);
            }
            continue;
        }
        problems.ip_address(&address);
        parsed.extend(address.text().parse::<IpAddr>());
    }
    if count > 2 {
        problems.invalid(addresses, addresses.shown(), "may only hold up to 2 values");
    }
    if headless || parsed.len() != count {
        return;
    }
    if matches!(parsed.as_slice(), [one, other] if one.is_ipv4() == other.is_ipv4()) {
        let sentence = "may specify no more than one IP for each IP family";
        problems.invalid(addresses, addresses.shown(), sentence);
    }
    let families = spec.child("ipFamilies").list();
    for (index, (address, family)) in parsed.iter().zip(families).enumerate() {
        let expected = match (family.as_str(), address.is_ipv4()) {
            (Some("IPv4"), false) => "IPv4",
            (Some("IPv6"), true) => "IPv6",
            _ => continue,
        };
        let sentence =
            format!("expected an {expected} value as indicated by `ipFamilies[{index}]`");
        let address = spec.item("clusterIPs", index);
        problems.invalid(&address, address.text(), &sentence);
    }
}

/// Ports and node ports, each once for a protocol.
fn validate_pairs(spec: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    if kind == "ClusterIP" {
        for port in spec.items("ports") {
            let of_node = port.child("nodePort");
            if of_node.integer().is_some_and(|port| port != 0) {
                let sentence = "may not be used when `type` is 'ClusterIP'";
                problems.forbidden(&of_node, sentence);
            }
        }
    }
    let mut of_nodes = BTreeSet::new();
    for port in spec.items("ports") {
        let of_node = port.child("nodePort");
        if let Some(number) = of_node.integer().filter(|number| *number != 0)
            && !of_nodes.insert((port.child("protocol").text(), number))
        {
            problems.duplicate(&of_node, number);
        }
    }
    let mut own = BTreeSet::new();
    for port in spec.items("ports") {
        let protocol = port.child("protocol").text();
        let number = port.child("port").integer().unwrap_or(0);
        if !own.insert((protocol, number)) {
            // Kubernetes shows its own type, with what the pair has not.
            problems.add(Cause {
                reason: "FieldValueDuplicate".to_owned(),
                message: format!(
                    "Duplicate value: {{\"Name\":\"\",\"Protocol\":{protocol:?},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
                ),
                field: port.to_string(),
            });
        }
    }
}

fn validate_balancer(spec: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    const ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
    let balances = kind == "LoadBalancer";
    let ranges = spec.child("loadBalancerSourceRanges");
    if !ranges.list().is_empty() {
        // Kubernetes writes this member with a capital.
        let shown = spec.child_as("loadBalancerSourceRanges", "LoadBalancerSourceRanges");
        if !balances {
            problems.forbidden(&shown, ONLY);
        }
        for (index, range) in ranges.list().iter().enumerate() {
            let place = spec.item("LoadBalancerSourceRanges", index);
            let text = range.as_str().unwrap_or("").trim();
            problems.address_range_as(&place, text);
        }
    }
    let allocates = spec.child("allocateLoadBalancerNodePorts");
    if allocates.is_set() && !balances {
        problems.forbidden(&allocates, ONLY);
    }
    let class = spec.child("loadBalancerClass");
    if balances && class.is_set() {
        problems.rule(&class, name::qualified_name_faults);
    } else if class.is_set() {
        problems.forbidden(&class, ONLY);
    }
}

fn validate_policies(spec: &Field<'_, '_>, kind: &str, problems: &mut Problems) {
    let outer = spec.child("externalTrafficPolicy");
    let external_addresses = !spec.child("externalIPs").list().is_empty();
    let reachable =
        matches!(kind, "LoadBalancer" | "NodePort") || (kind == "ClusterIP" && external_addresses);
    if reachable {
        problems.required_one_of(&outer, &["Cluster", "Local"]);
    } else if !outer.text().is_empty() {
        let sentence = "may only be set for externally-accessible services";
        problems.invalid(&outer, outer.text(), sentence);
    }
    let health = spec.child("healthCheckNodePort");
    let number = health.integer().unwrap_or(0);
    let checked = kind == "LoadBalancer" && outer.text() == "Local";
    if !checked && number != 0 {
        let sentence =
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        problems.invalid(&health, number, sentence);
    } else if checked && number != 0 {
        problems.port(&health);
    }
    problems.one_of(&spec.child("internalTrafficPolicy"), &["Cluster", "Local"]);
    problems.one_of(
        &spec.child("trafficDistribution"),
        &["PreferClose", "PreferSameZone", "PreferSameNode"],
    );
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
    if address.is_empty() && (all.is_empty() || all == all_kept) {
        put(spec, "clusterIP", old.pointer("/spec/clusterIP").cloned());
        put(spec, "clusterIPs", old.pointer("/spec/clusterIPs").cloned());
    } else if !address.is_empty() && address != kept && all == all_kept {
        put(spec, "clusterIPs", Some(json!([address])));
    } else if address == kept && all.is_empty() {
        put(spec, "clusterIPs", old.pointer("/spec/clusterIPs").cloned());
    }
}

fn address_claim(address: impl std::fmt::Display) -> Claim {
    Claim::new("clusterips", address)
}

fn port_claim(number: impl std::fmt::Display) -> Claim {
    Claim::new("nodeports", number)
}

fn refused(service: &Value, cause: Cause) -> StatusError {
    StatusError::invalid("Service", "", text(service, "/metadata/name"), vec![cause])
}

fn allocate_address(
    new: &mut Value,
    old: Option<&Value>,
    had: &BTreeSet<Claim>,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    if text(new, "/spec/type") == "ExternalName" {
        let spec = member(new, "spec");
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            put(spec, field, None);
        }
        return Ok(());
    }
    let wanted = match text(new, "/spec/clusterIP") {
        "" => old.map_or("", |old| text(old, "/spec/clusterIP")),
        wanted => wanted,
    }
    .to_owned();
    let kept = old
        .filter(|old| text(old, "/spec/type") != "ExternalName")
        .map_or("", |old| text(old, "/spec/clusterIP"));
    // An address stays for life: validation refuses another one, whatever it is.
    let changes = !kept.is_empty() && wanted != kept;
    let address = if wanted == "None" || changes {
        wanted
    } else if wanted.is_empty() {
        let namespace = text(new, "/metadata/namespace");
        let owner = format!("{namespace}/{}", text(new, "/metadata/name"));
        around
            .service_range()
            .candidates(&owner)
            .find(|address| !around.is_claimed(&address_claim(address)))
            .ok_or_else(|| StatusError::internal("failed to allocate a serviceIP: range is full"))?
            .to_string()
    } else if let Ok(address) = Ipv4Addr::from_str(&wanted) {
        let claim = address_claim(address);
        let refusal = if !around.service_range().contains(address) {
            Some("the provided IP is not in the valid range")
        } else if !had.contains(&claim) && around.is_claimed(&claim) {
            Some("provided IP is already allocated")
        } else {
            None
        };
        if let Some(refusal) = refusal {
            let sentence = format!("failed to allocate IP {wanted}: {refusal}");
            let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &sentence);
            return Err(refused(new, cause));
        }
        wanted
    } else {
        let sentence =
            format!("failed to allocate IP {wanted}: the provided IP is not in the valid range");
        let cause = Cause::invalid("spec.clusterIPs", &json!([wanted]), &sentence);
        return Err(refused(new, cause));
    };
    let spec = member(new, "spec");
    spec["clusterIPs"] = json!([address.clone()]);
    spec["clusterIP"] = address.into();
    Ok(())
}

fn allocate_ports(
    new: &mut Value,
    old: Option<&Value>,
    had: &BTreeSet<Claim>,
    around: &dyn Surroundings,
) -> Result<(), StatusError> {
    let kind = text(new, "/spec/type").to_owned();
    let gives_ports = kind == "NodePort"
        || (kind == "LoadBalancer" && flag(new, "/spec/allocateLoadBalancerNodePorts"));
    let free = |number: u16| {
        let claim = port_claim(number);
        had.contains(&claim) || !around.is_claimed(&claim)
    };
    let old_ports = old.map_or(&[][..], |old| items(old, "/spec/ports"));
    let mut ports = items(new, "/spec/ports").to_vec();
    let mut taken = BTreeSet::new();
    for (index, port) in ports.iter_mut().enumerate() {
        if !gives_ports && kind != "LoadBalancer" {
            put(port, "nodePort", None);
            continue;
        }
        let same = |other: &&Value| {
            other.get("port") == port.get("port") && other.get("protocol") == port.get("protocol")
        };
        let kept = || integer(old_ports.iter().find(same)?, "/nodePort");
        let wanted = integer(port, "/nodePort")
            .filter(|number| *number > 0)
            .or_else(|| kept().filter(|_| gives_ports));
        let number = match wanted {
            Some(wanted) => {
                let in_range = u16::try_from(wanted)
                    .ok()
                    .filter(|number| NODE_PORTS.contains(number));
                let refusal = match in_range {
                    Some(number) if free(number) => None,
                    Some(_) => Some("provided port is already allocated"),
                    None => Some(
                        "provided port is not in the valid range. The range of valid ports is 30000-32767",
                    ),
                };
                if let Some(refusal) = refusal {
                    let field = format!("spec.ports[{index}].nodePort");
                    return Err(refused(
                        new,
                        Cause::invalid(&field, &wanted.into(), refusal),
                    ));
                }
                in_range
            }
            None if !gives_ports => continue,
            None => NODE_PORTS
                .clone()
                .find(|number| free(*number) && !taken.contains(number)),
        };
        let Some(number) = number else {
            return Err(StatusError::internal(
                "failed to allocate a nodePort: range is full",
            ));
        };
        taken.insert(number);
        put(port, "nodePort", Some(number.into()));
    }
    if let Some(slot) = new.pointer_mut("/spec/ports") {
        *slot = ports.into();
    }
    Ok(())
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
        "LoadBalancer" if addresses.is_empty() => "<pending>".into(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;

    #[test]
    fn candidates_cover_the_range_once_and_never_its_ends() {
        let range = ServiceRange {
            base: u32::from(Ipv4Addr::new(10, 0, 0, 0)),
            size: 64,
        };
        let all: BTreeSet<_> = range.candidates("a/b").collect();
        assert_eq!(all.len(), 64 - 1 - RESERVED_ADDRESSES as usize);
        assert!(all.iter().all(|address| range.contains(*address)));
    }

    fn service() -> Value {
        json!({
            "metadata": {"name": "1st", "namespace": "default"},
            "spec": {"ports": [{"port": 80}]},
        })
    }

    /// Names may begin with a digit since 1.37.
    #[test]
    fn each_rule_is_told_of_by_itself() {
        told::check(
            &SERVICE,
            &service(),
            &[
                ("/spec/ports", json!([]), &["spec.ports: Required value"]),
                (
                    "/spec/ports/0/port",
                    json!(0),
                    &[
                        "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
                        "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
                    ],
                ),
                (
                    "/spec/ports/0/targetPort",
                    json!("Http"),
                    &[
                        "spec.ports[0].targetPort: Invalid value: \"Http\": must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
                    ],
                ),
                (
                    "/spec/ports/1",
                    json!({"port": 80}),
                    &[
                        "spec.ports[0].name: Required value",
                        "spec.ports[1].name: Required value",
                        "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
                    ],
                ),
                (
                    "/spec/type",
                    json!("Internal"),
                    &[
                        "spec.type: Unsupported value: \"Internal\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
                    ],
                ),
                (
                    "/spec/type",
                    json!("ExternalName"),
                    &["spec.externalName: Required value"],
                ),
                (
                    "/spec/clusterIP",
                    json!("10.43.0"),
                    &[
                        "spec.clusterIPs[0]: Invalid value: \"10.43.0\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
                    ],
                ),
                (
                    "/spec/clusterIP",
                    json!("fd00::1"),
                    &[
                        "spec.clusterIPs[0]: Invalid value: \"fd00::1\": expected an IPv4 value as indicated by `ipFamilies[0]`",
                    ],
                ),
                (
                    "/spec/sessionAffinity",
                    json!("Cookie"),
                    &[
                        "spec.sessionAffinity: Unsupported value: \"Cookie\": supported values: \"ClientIP\", \"None\"",
                    ],
                ),
                (
                    "/spec/ports/0/nodePort",
                    json!(30000),
                    &[
                        "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
                    ],
                ),
                (
                    "/spec/externalIPs",
                    json!(["127.0.0.1"]),
                    &[
                        "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
                    ],
                ),
            ],
        );
    }

    /// What an update leaves out, or still says of its former type, is no wish.
    #[test]
    fn addresses_stay_and_fields_of_a_former_type_go() {
        let given = json!({"clusterIP": "10.43.0.9", "clusterIPs": ["10.43.0.9"], "type": "NodePort",
            "ports": [{"port": 80, "nodePort": 30001}], "externalTrafficPolicy": "Cluster"});
        let old = told::with(&service(), "/spec", given);
        assert_eq!(told::of_update(&SERVICE, &service(), &old, None), [""; 0]);
        let inner = told::with(&old, "/spec/type", json!("ClusterIP"));
        assert_eq!(told::of_update(&SERVICE, &inner, &old, None), [""; 0]);
        let external = told::with(&old, "/spec/type", json!("ExternalName"));
        let external = told::with(&external, "/spec/externalName", json!("example.com."));
        assert_eq!(told::of_update(&SERVICE, &external, &old, None), [""; 0]);
        let moved = told::with(&old, "/spec/clusterIP", json!("10.43.0.10"));
        assert_eq!(
            told::of_update(&SERVICE, &moved, &old, None),
            ["spec.clusterIPs[0]: Invalid value: [\"10.43.0.10\"]: may not change once set"]
        );
    }

    struct Cluster(BTreeSet<Claim>);

    impl Surroundings for Cluster {
        fn requester(&self) -> crate::strategy::Requester<'_> {
            crate::strategy::Requester {
                user: "",
                groups: &[],
                uid: None,
            }
        }

        fn has(&self, _: &Kind, _: Option<&str>, _: &str) -> bool {
            false
        }

        fn is_claimed(&self, claim: &Claim) -> bool {
            self.0.contains(claim)
        }

        fn service_range(&self) -> ServiceRange {
            ServiceRange::default()
        }
    }

    /// A node port that is asked for is checked, whether or not ports are given out to the rest.
    #[test]
    fn ports_and_addresses_that_others_hold_are_refused() {
        let taken = Cluster([port_claim(30001), address_claim("10.43.0.9")].into());
        let cases = [
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1, "nodePort": 30001}]}),
                Err(
                    "spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
                ),
            ),
            (
                json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"port": 1}]}),
                Ok(1),
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2, "nodePort": 80}]}),
                Err(
                    "spec.ports[1].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
                ),
            ),
            (
                json!({"clusterIP": "10.43.0.9", "ports": [{"port": 1}]}),
                Err(
                    "spec.clusterIPs: Invalid value: [\"10.43.0.9\"]: failed to allocate IP 10.43.0.9: provided IP is already allocated",
                ),
            ),
            (
                json!({"clusterIP": "fd00::9", "ipFamilies": ["IPv6"], "ports": [{"port": 1}]}),
                Err(
                    "spec.clusterIPs: Invalid value: [\"fd00::9\"]: failed to allocate IP fd00::9: the provided IP is not in the valid range",
                ),
            ),
            (json!({"clusterIP": "None"}), Ok(0)),
            (json!({"type": "NodePort", "ports": [{"port": 1}]}), Ok(2)),
        ];
        for (spec, expected) in cases {
            let mut new = json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec});
            Services.default(&mut new);
            let outcome = Services
                .allocate(&mut new, None, &taken)
                .map(|()| Services.claims(&new).len())
                .map_err(|error| error.message);
            match (outcome, expected) {
                (Ok(claims), Ok(expected)) => assert_eq!(claims, expected, "{new}"),
                (Err(message), Err(expected)) => {
                    assert!(message.contains(expected), "{message}");
                }
                (outcome, expected) => panic!("{outcome:?} and not {expected:?}: {new}"),
            }
        }
    }
}
