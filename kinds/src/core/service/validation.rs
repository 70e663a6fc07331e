//! What a Service may say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::Value;
use weft_api::name;
use weft_api::status::Cause;

use crate::field::Field;
use crate::lens::{items, text};
use crate::validate::{Problems, labels};

/// What it asks for and does not get.
pub(super) fn unserved(service: &Value) -> Vec<String> {
    let mut told = Vec::new();
    if text(service, "/spec/type") == "ExternalName" {
        let name = text(service, "/spec/externalName").trim_end_matches('.');
        if !name.ends_with(".svc") && !name.contains(".svc.") {
            told.push(format!(
                "spec.externalName: calls are not passed on to {name}, which is no Service; components call it by its own name"
            ));
        }
    }
    if !items(service, "/spec/externalIPs").is_empty() {
        told.push(
            "spec.externalIPs: no node listens there, since whoever writes a Service could take any address; \
            a Service of type LoadBalancer gets an address of its own"
                .to_owned(),
        );
    }
    let mut ports = items(service, "/spec/ports").iter();
    if ports.any(|port| text(port, "/protocol") == "SCTP") {
        told.push("spec.ports: ports of SCTP lead nowhere; TCP and UDP are served".to_owned());
    }
    told
}

/// Judges a Service, whether it is new or not.
pub(super) fn of_new(new: &Value, problems: &mut Problems) {
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

/// Judges a Service that takes the place of `old`.
pub(super) fn of_update(new: &Value, old: &Value, problems: &mut Problems) {
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
    let is_checked = |spec: &Field<'_, '_>| {
        balances(spec) && spec.child("externalTrafficPolicy").text() == "Local"
    };
    let health = spec.child("healthCheckNodePort");
    let kept = before.child("healthCheckNodePort");
    if is_checked(&spec) && is_checked(&before) && health.integer() != kept.integer() {
        problems.forbidden(&health, "field is immutable");
    }
    of_new(new, problems);
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

/// Where a load balancer answers for a Service, as its status tells.
pub(super) fn of_status(new: &Value, problems: &mut Problems) {
    let root = Field::root(new);
    const LIST: &str = "status.loadBalancer.ingress";
    let all = root.child(LIST);
    if root.child("spec.type").text() != "LoadBalancer" {
        if !all.list().is_empty() {
            let sentence = "may only be used when `spec.type` is 'LoadBalancer'";
            problems.forbidden(&all, sentence);
        }
        return;
    }
    for address in root.items(LIST) {
        let (ip, mode) = (address.child("ip"), address.child("ipMode"));
        if !ip.text().is_empty() {
            problems.ip_address(&ip);
        } else if mode.is_set() {
            problems.forbidden(&mode, "may not be specified when `ip` is not set");
        }
        if mode.is_set() && !ip.text().is_empty() {
            problems.required_one_of(&mode, &["Proxy", "VIP"]);
        }
        let host = address.child("hostname");
        if !host.text().is_empty() {
            problems.rule(&host, name::dns1123_subdomain_faults);
        }
    }
}
