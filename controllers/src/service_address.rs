//! Addresses of Services of type LoadBalancer: which each one has, told in its status.
//!
//! Nodes say of which ranges they have all addresses (`weft.dev/service-addresses`). A Service gets one of its own of those: the one that it
//! asks for (`spec.loadBalancerIP`), the one that it had, else one that follows from its name, so that it usually gets the same again. Where
//! no node has such ranges, a Service is at the addresses of all nodes that are ready, at its ports, which the oldest Service that wants them
//! has. Services with a class are somebody else's.
//!
//! All are decided in one look ([`assign`], which is pure): no two looks can choose the same address.
//!
//! Invariants: no two Services have one port of one address; an address stays with its Service as long as that wants one and nodes have it;
//! who gets none is told why, and waits.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde_json::{Value, json};
use weft_api::annotation;
use weft_api::object::{Object, ObjectError};
use weft_api::view::Node;
use weft_kinds::{GATEWAY, Kind, NODE, SERVICE};

use crate::indexer::{Cached, Lens};
use crate::lens::Service;
use crate::metadata::Key;
use crate::view::View;
use crate::write::{Note, Write};
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "service-lb-controller",
    reads: |reads| {
        reads.kind::<Service>();
        reads.kind::<Gateway>();
        reads.kind::<Node>();
    },
    keys: |_, touched| {
        let is_service = touched.is_of(&SERVICE);
        let of_gateway = |row: Option<&Cached<Gateway>>| row.map(|row| row.body.0.clone());
        let before = of_gateway(touched.before::<Gateway>());
        let gateways = touched.is_of(&GATEWAY) && before != of_gateway(touched.after::<Gateway>());
        let wakes = is_service || gateways || touched.is_of(&NODE) && is_news(touched);
        if wakes { vec![all()] } else { Vec::new() }
    },
    relieved: |_, _| Vec::new(),
    seeds: |_| vec![all()],
    subject: |_, _| None,
    reconcile,
};

/// Addresses of nodes that a Service is told at.
const NODES_MAX: usize = 16;
/// Addresses that are tried for a Service before it is told that there is none: a range of IPv6 has no end.
const TRIES_MAX: u32 = 1 << 16;

fn all() -> Key {
    Key::cluster("services")
}

/// A node that says again that it is well changes nothing here.
fn is_news(touched: &crate::Touched) -> bool {
    let of = |node: Option<&Cached<Node>>| node.map(NodeFacts::read);
    of(touched.before::<Node>()) != of(touched.after::<Node>())
}

/// The addresses that a Gateway has: they come from the same ranges, and are no Service's.
#[derive(Debug)]
struct Gateway(Vec<IpAddr>);

impl Lens for Gateway {
    const WHOLE: bool = true;

    fn kind() -> &'static Arc<Kind> {
        &GATEWAY
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let addresses = object.as_value()["status"]["addresses"].as_array();
        let addresses = addresses.into_iter().flatten();
        let addresses = addresses.filter_map(|one| one["value"].as_str()?.parse().ok());
        Ok(Self(addresses.collect()))
    }
}

/// What a node has for Services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NodeFacts {
    /// While it is ready.
    address: Option<IpAddr>,
    ranges: Vec<IpNet>,
    lowest_port: u16,
}

impl NodeFacts {
    fn read(node: &Cached<Node>) -> Self {
        let status = node.body.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let is_ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let mut addresses = addresses.into_iter().flatten();
        let internal = addresses.find(|address| address.type_ == "InternalIP");
        let said = |name: &str| node.meta.annotations.get(name);
        let ranges = said(annotation::SERVICE_ADDRESSES).map_or("", String::as_str);
        let ranges = ranges
            .split(',')
            .filter_map(|range| range.trim().parse().ok());
        let lowest = said(annotation::LOWEST_PORT).and_then(|port| port.parse().ok());
        Self {
            address: internal
                .filter(|_| is_ready)
                .and_then(|internal| internal.address.parse().ok()),
            ranges: ranges.collect(),
            lowest_port: lowest.unwrap_or(0),
        }
    }
}

/// What there is for Services.
#[derive(Debug, Default)]
struct Offer {
    /// Of which nodes have all addresses; none where they have their own only.
    ranges: BTreeSet<IpNet>,
    nodes: BTreeSet<IpAddr>,
    /// What Gateways have.
    gateways: BTreeSet<IpAddr>,
    /// Below this no node may listen.
    lowest_port: u16,
}

impl Offer {
    fn of(nodes: impl Iterator<Item = NodeFacts>) -> Self {
        let mut offer = Self::default();
        let mut lowest: Option<u16> = None;
        for node in nodes {
            // What a node that is not ready has it will have again.
            offer.ranges.extend(node.ranges.iter().map(IpNet::trunc));
            if let Some(address) = node.address {
                offer.nodes.insert(address);
            }
            let known = lowest.unwrap_or(node.lowest_port);
            lowest = Some(known.min(node.lowest_port));
        }
        offer.lowest_port = lowest.unwrap_or(0);
        offer
    }

    /// The first and the last address of a range are those of its network.
    fn has(&self, address: IpAddr) -> bool {
        !self.gateways.contains(&address)
            && self.ranges.iter().any(|range| {
                range.contains(&address)
                    && (range.prefix_len() == range.max_prefix_len()
                        || address != range.network() && address != range.broadcast())
            })
    }

    /// Its addresses, each once, from a place that follows from the name.
    fn candidates<'a>(&'a self, name: &str) -> impl Iterator<Item = IpAddr> + 'a {
        let start = weft_api::hash::fnv1a_32(name.bytes());
        self.ranges.iter().flat_map(move |range| {
            let host_bits = u32::from(range.max_prefix_len() - range.prefix_len()).min(31);
            let size = 1u32 << host_bits;
            let at = move |step: u32| offset(range.network(), start.wrapping_add(step) % size);
            (0..size.min(TRIES_MAX)).map(at)
        })
    }
}

/// The address that is so many behind another.
fn offset(from: IpAddr, by: u32) -> IpAddr {
    match from {
        IpAddr::V4(from) => IpAddr::V4(std::net::Ipv4Addr::from_bits(
            from.to_bits().wrapping_add(by),
        )),
        IpAddr::V6(from) => {
            let bits = from.to_bits().wrapping_add(by.into());
            IpAddr::V6(std::net::Ipv6Addr::from_bits(bits))
        }
    }
}

/// A Service that wants an address.
#[derive(Debug)]
struct Want {
    /// `namespace/name`.
    name: String,
    asks_for: Option<String>,
    has: Vec<IpAddr>,
    ports: Vec<(String, u16)>,
}

/// What a Service gets.
type Given = Result<Vec<IpAddr>, String>;

/// Gives each of the Services, the oldest of which come first, its addresses, or says why not.
fn assign(wants: &[Want], offer: &Offer) -> Vec<Given> {
    if offer.ranges.is_empty() {
        return at_nodes(wants, offer);
    }
    let mut given: Vec<Option<Given>> = wants.iter().map(|_| None).collect();
    let mut taken: BTreeMap<IpAddr, &str> = BTreeMap::new();
    // First those who ask for one, then those who have one: nobody's is given away to who has none yet.
    for (want, given) in wants.iter().zip(&mut given) {
        let Some(text) = &want.asks_for else {
            continue;
        };
        let wanted = text.parse().ok().filter(|address| offer.has(*address));
        *given = Some(match wanted {
            None => Err(format!("no node has the address {text}")),
            Some(address) => match taken.get(&address) {
                Some(other) => Err(format!("the address {address} belongs to Service {other}")),
                None => {
                    taken.insert(address, &want.name);
                    Ok(vec![address])
                }
            },
        });
    }
    for (want, given) in wants.iter().zip(&mut given) {
        let mut had = want.has.iter().copied();
        if given.is_none()
            && let Some(address) = had.find(|ip| offer.has(*ip) && !taken.contains_key(ip))
        {
            taken.insert(address, &want.name);
            *given = Some(Ok(vec![address]));
        }
    }
    let given = wants.iter().zip(given).map(|(want, given)| {
        given.unwrap_or_else(|| {
            let mut free = offer.candidates(&want.name);
            let free = free.find(|ip| offer.has(*ip) && !taken.contains_key(ip));
            let address = free.ok_or("all addresses are given to other Services")?;
            taken.insert(address, &want.name);
            Ok(vec![address])
        })
    });
    given.collect()
}

fn at_nodes(wants: &[Want], offer: &Offer) -> Vec<Given> {
    let mut taken: BTreeMap<&(String, u16), &str> = BTreeMap::new();
    let given = wants.iter().map(|want| {
        if offer.nodes.is_empty() {
            return Err("no node is ready".to_owned());
        }
        if let Some(text) = &want.asks_for {
            let known = text.parse().ok().filter(|ip| offer.nodes.contains(ip));
            known.ok_or_else(|| format!("no node has the address {text}"))?;
        }
        let other = want
            .ports
            .iter()
            .find_map(|port| Some((port, taken.get(port)?)));
        if let Some(((protocol, number), other)) = other {
            return Err(format!(
                "port {number}/{protocol} of the nodes belongs to Service {other}"
            ));
        }
        taken.extend(want.ports.iter().map(|port| (port, want.name.as_str())));
        let asked = want.asks_for.as_ref().and_then(|text| text.parse().ok());
        let nodes = offer.nodes.iter().copied();
        Ok(match asked {
            Some(one) => vec![one],
            None => nodes.take(NODES_MAX).collect(),
        })
    });
    given.collect()
}

fn wants_address(service: &Cached<Service>) -> bool {
    let spec = service.body.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
    }) && !service.meta.is_deleting()
}

fn told(service: &Cached<Service>) -> Vec<Value> {
    let status = service.body.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let ingress = ingress.into_iter().flatten();
    ingress
        .filter_map(|one| serde_json::to_value(one).ok())
        .collect()
}

fn want(service: &Cached<Service>) -> Want {
    let spec = service.body.spec.as_ref();
    let asks_for = spec.and_then(|spec| spec.load_balancer_ip.clone());
    let ports = spec
        .into_iter()
        .flat_map(|spec| spec.ports.iter().flatten());
    let ports = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some((protocol, u16::try_from(port.port).ok()?))
    });
    let has = told(service);
    let has = has
        .iter()
        .filter_map(|one| one["ip"].as_str()?.parse().ok());
    Want {
        name: format!("{}/{}", service.key.namespace, service.key.name),
        asks_for: asks_for.filter(|ip| !ip.is_empty()),
        has: has.collect(),
        ports: ports.collect(),
    }
}

/// The entry of an address: its ports, each with why it is not served if it is not.
fn entry(address: IpAddr, want: &Want, lowest_port: u16) -> Value {
    let ports = want.ports.iter().map(|(protocol, number)| {
        let mut port = json!({"port": number, "protocol": protocol});
        if *number < lowest_port {
            port["error"] = "weft.dev/PortNotPermitted".into();
        }
        port
    });
    let ports: Vec<Value> = ports.collect();
    json!({"ip": address, "ipMode": "VIP", "ports": ports})
}

fn reconcile(view: &View, _: &Key, _: &Context<'_>) -> Outcome {
    let mut offer = Offer::of(view.list::<Node>().map(|node| NodeFacts::read(node)));
    offer.gateways = view
        .list::<Gateway>()
        .flat_map(|gateway| gateway.body.0.clone())
        .collect();
    let (mut wanting, others): (Vec<_>, Vec<_>) = view
        .list::<Service>()
        .map(|service| &**service)
        .partition(|service| wants_address(service));
    wanting.sort_by_key(|service| (service.meta.creation_timestamp, service.key.clone()));
    let wants: Vec<Want> = wanting.iter().map(|service| want(service)).collect();
    let mut writes = Vec::new();
    let given = assign(&wants, &offer);
    for ((service, want), given) in wanting.into_iter().zip(&wants).zip(given) {
        let (ingress, note) = match given {
            Ok(addresses) => {
                let addresses = addresses.into_iter();
                let entries = addresses.map(|ip| entry(ip, want, offer.lowest_port));
                let note = Note::normal(
                    service.reference(),
                    "EnsuredLoadBalancer",
                    "Ensured load balancer",
                );
                (entries.collect(), note)
            }
            Err(why) => {
                let message = format!("Error syncing load balancer: {why}");
                let note = Note::warning(service.reference(), "SyncLoadBalancerFailed", message);
                (Vec::new(), note)
            }
        };
        let changes = told(service) != ingress;
        if changes {
            writes.push(set(service, &ingress));
        }
        if changes || ingress.is_empty() {
            writes.push(Write::Event(note));
        }
    }
    // Of a Service that was one.
    let is_ours = |service: &&Cached<Service>| {
        let spec = service.body.spec.as_ref();
        let class = spec.and_then(|spec| spec.load_balancer_class.as_ref());
        class.is_none() && !service.meta.is_deleting()
    };
    let former = others.into_iter().filter(is_ours);
    let former = former.filter(|service| !told(service).is_empty());
    writes.extend(former.map(|service| set(service, &[])));
    Outcome::from_writes(writes)
}

fn set(service: &Cached<Service>, ingress: &[Value]) -> Write {
    let balancer = match ingress.is_empty() {
        true => json!({"ingress": null}),
        false => json!({"ingress": ingress}),
    };
    Write::status_fields(service, &json!({"loadBalancer": balancer}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(name: &str, asks_for: Option<&str>, has: &[&str], port: u16) -> Want {
        Want {
            name: name.to_owned(),
            asks_for: asks_for.map(str::to_owned),
            has: has.iter().map(|ip| ip.parse().unwrap()).collect(),
            ports: vec![("TCP".to_owned(), port)],
        }
    }

    fn offer(ranges: &[&str], nodes: &[&str]) -> Offer {
        Offer {
            ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            nodes: nodes.iter().map(|ip| ip.parse().unwrap()).collect(),
            lowest_port: 0,
            ..Offer::default()
        }
    }

    fn shown(given: Vec<Given>) -> Vec<String> {
        let given = given.into_iter().map(|given| match given {
            Ok(ips) => ips
                .iter()
                .map(IpAddr::to_string)
                .collect::<Vec<_>>()
                .join(" "),
            Err(why) => why,
        });
        given.collect()
    }

    #[test]
    fn each_has_an_address_of_its_own_and_keeps_it() {
        let wants = [
            want("a/old", None, &["127.64.0.2"], 80),
            want("a/asks", Some("127.64.0.3"), &[], 80),
            want("a/asks-too", Some("127.64.0.3"), &[], 80),
            want("a/far", Some("10.0.0.1"), &[], 80),
            want("a/double", None, &["127.64.0.2"], 80),
            want("a/gone", None, &["127.65.0.2"], 80),
        ];
        let given = shown(assign(&wants, &offer(&["127.64.0.0/29"], &[])));
        assert_eq!(given[0], "127.64.0.2");
        assert_eq!(given[1], "127.64.0.3");
        assert_eq!(given[2], "the address 127.64.0.3 belongs to Service a/asks");
        assert_eq!(given[3], "no node has the address 10.0.0.1");
        let others: BTreeSet<&String> = given[4..].iter().collect();
        assert_eq!(others.len(), 2);
        for other in others {
            let ip: IpAddr = other.parse().expect("an address");
            assert!(offer(&["127.64.0.0/29"], &[]).has(ip), "{ip}");
        }
        let many: Vec<Want> = (0..7)
            .map(|n| want(&format!("a/{n}"), None, &[], 80))
            .collect();
        let given = shown(assign(&many, &offer(&["127.64.0.0/29"], &[])));
        assert_eq!(given[6], "all addresses are given to other Services");
        let some: BTreeSet<&String> = given.iter().collect();
        assert_eq!(some.len(), 7, "six addresses, and who has none");
    }

    #[test]
    fn what_a_gateway_has_is_no_services() {
        let mut offer = offer(&["127.64.0.0/30"], &[]);
        offer.gateways = ["127.64.0.1".parse().unwrap()].into();
        let wants = [
            want("a/old", None, &["127.64.0.1"], 80),
            want("a/asks", Some("127.64.0.1"), &[], 80),
        ];
        let given = shown(assign(&wants, &offer));
        assert_eq!(given, ["127.64.0.2", "no node has the address 127.64.0.1"]);
    }

    #[test]
    fn without_ranges_services_share_the_nodes_by_their_ports() {
        let wants = [
            want("a/web", None, &[], 80),
            want("a/late", None, &[], 80),
            want("a/api", Some("192.0.2.2"), &[], 443),
            want("a/far", Some("10.0.0.1"), &[], 81),
        ];
        let given = shown(assign(&wants, &offer(&[], &["192.0.2.1", "192.0.2.2"])));
        assert_eq!(
            given,
            [
                "192.0.2.1 192.0.2.2",
                "port 80/TCP of the nodes belongs to Service a/web",
                "192.0.2.2",
                "no node has the address 10.0.0.1",
            ]
        );
        let given = shown(assign(&wants[..1], &offer(&[], &[])));
        assert_eq!(given, ["no node is ready"]);
    }
}
