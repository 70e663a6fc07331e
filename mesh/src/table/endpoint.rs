//! Endpoints, and the choice among those of a port.

use std::{net::SocketAddr, sync::Arc};

use http::HeaderValue;
use weft_api::{hash::fnv1a_64, identity::SpiffeId};
use weft_call::standing::{EndpointStanding, PortStanding};

use super::Protocol;
use crate::{
    Transport, WorkloadInfo,
    balance::{self, Standing},
    breaker::Outcomes,
    health::Health,
    load::Load,
};

/// A port of a pod that calls can be sent to.
#[derive(Debug)]
pub struct Endpoint {
    pub pod: String,
    pub address: SocketAddr,
    pub node: String,
    pub identity: SpiffeId,
    /// `identity` as text.
    pub(crate) spiffe_id: Arc<str>,
    pub(crate) workload: Arc<WorkloadInfo>,
    pub(crate) way: Way,
    /// `address` for the wire.
    pub(crate) header: HeaderValue,
    /// By which it is known to sessions, on every node ([`Endpoint::key_of`]).
    pub(crate) key: u64,
    /// Of the pod at this address, whichever services lead to it.
    pub(super) standing: Arc<Standing>,
}

/// How this node reaches an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Here,
    Node(SocketAddr),
}

impl Way {
    pub(crate) fn transport(self) -> Transport {
        match self {
            Way::Here => Transport::InProcess,
            Way::Node(_) => Transport::MutualTls,
        }
    }

    /// What is believed of an endpoint before anything was measured.
    pub(super) fn first_standing(self) -> Standing {
        Standing::new(match self {
            Way::Here => balance::SEED_SAME_NODE,
            Way::Node(_) => balance::SEED_OTHER_NODE,
        })
    }
}

/// The same pod: what was measured of one holds for the other. Who claims its address under another identity is another.
impl PartialEq for Endpoint {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.pod == other.pod && self.identity == other.identity
    }
}

impl Endpoint {
    pub(crate) fn load(&self) -> &Load {
        &self.standing.load
    }

    pub(crate) fn health(&self) -> &Health {
        &self.standing.health
    }

    /// What it answered of late, of which only policies ask.
    pub(crate) fn outcomes(&self) -> &Outcomes {
        &self.standing.outcomes
    }

    /// Of a pod and where it is: another pod at the address is another endpoint. The same whatever a node was built by.
    pub(super) fn key_of(pod: &str, address: SocketAddr) -> u64 {
        let address = address.to_string();
        fnv1a_64(pod.bytes().chain([0]).chain(address.bytes()))
    }

    /// This endpoint with what is known of `old`.
    pub(super) fn with_standing_of(&self, old: &Self) -> Arc<Self> {
        Arc::new(Self {
            pod: self.pod.clone(),
            address: self.address,
            node: self.node.clone(),
            identity: self.identity.clone(),
            spiffe_id: Arc::clone(&self.spiffe_id),
            workload: Arc::clone(&self.workload),
            way: self.way,
            header: self.header.clone(),
            key: self.key,
            standing: Arc::clone(&old.standing),
        })
    }

    /// Nothing about them differs.
    pub(super) fn is_identical(&self, other: &Self) -> bool {
        self == other
            && self.node == other.node
            && self.way == other.way
            && self.workload == other.workload
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Port {
    pub(super) name: Option<String>,
    pub(super) protocol: Protocol,
    pub(super) number: u16,
    pub(super) speaks_h2: bool,
    pub(super) speaks_http: bool,
    /// Endpoints of this node.
    pub(super) near: Vec<Arc<Endpoint>>,
    /// Those that its Service wants callers of this node to go to; none where it is the same to it.
    pub(super) preferred: Vec<Arc<Endpoint>>,
    /// Those in this node's zone; none where that is all of them, or nobody knows.
    pub(super) zone: Vec<Arc<Endpoint>>,
    pub(super) all: Vec<Arc<Endpoint>>,
    /// An endpoint of no node, as somebody writes into a slice for what is not in the cluster.
    pub(super) outside: Option<SocketAddr>,
}

impl Port {
    /// Chooses an endpoint that is not among `tried`: of this node while those are neither busy nor failing, then of those that are
    /// preferred, then of this node's zone, else of all. `None` when every endpoint was tried or there is none.
    pub(crate) fn pick(
        &self,
        tried: &[SocketAddr],
        now: u64,
        rng: &mut impl rand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        for tier in [&self.near, &self.preferred, &self.zone] {
            if let Some(found) = pick(tier, tried, now, rng)
                && !found.health().is_ejected(now)
                && found.load().pending() < balance::SPILL_PENDING
            {
                return Some(found);
            }
        }
        pick(&self.all, tried, now, rng)
    }

    /// The endpoint that calls with `key` go to: the same on every node while it is there and well, and where it is not, another one for
    /// each of its keys. None where all were tried or are left alone.
    /// Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", IEEE/ACM Transactions on Networking 1998.
    pub(crate) fn pick_by(
        &self,
        key: u64,
        tried: &[SocketAddr],
        now: u64,
    ) -> Option<&Arc<Endpoint>> {
        let well =
            |one: &&Arc<Endpoint>| !tried.contains(&one.address) && !one.health().is_ejected(now);
        let mut all = self
            .all
            .iter()
            .filter(well)
            .map(|one| (mixed(key ^ one.key), one));
        let first = all.next()?;
        let (_, most) = all.fold(first, |most, one| if one.0 > most.0 { one } else { most });
        Some(most)
    }

    /// Chooses among all, wherever they are, or among those that are preferred.
    pub(crate) fn pick_anywhere(
        &self,
        tried: &[SocketAddr],
        now: u64,
        rng: &mut impl rand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        pick(&self.preferred, tried, now, rng).or_else(|| pick(&self.all, tried, now, rng))
    }

    /// Whether an endpoint is left that is none of `tried` and can be called.
    pub(crate) fn has_well(&self, tried: &[SocketAddr], now: u64) -> bool {
        let mut all = self.all.iter();
        all.any(|one| !tried.contains(&one.address) && !one.health().is_ejected(now))
    }

    /// Whether a policy may have `endpoint` left alone for its answers: fewer than a share of all are, or none is, and another one is well.
    pub(crate) fn may_trip(&self, endpoint: &Endpoint, percent_max: u32, now: u64) -> bool {
        let tripped = self.all.iter().filter(|one| one.health().is_tripped());
        let most = (self.all.len() * percent_max as usize / 100).max(1);
        tripped.count() < most && self.has_well(&[endpoint.address], now)
    }

    /// Where its endpoints are, or those that are preferred; of this node only, if that is asked for.
    pub(crate) fn at(&self, only_here: bool) -> Vec<SocketAddr> {
        let endpoints = match only_here {
            true => &self.near,
            false if self.preferred.is_empty() => &self.all,
            false => &self.preferred,
        };
        endpoints.iter().map(|endpoint| endpoint.address).collect()
    }

    /// Chooses among those of this node alone.
    pub(crate) fn pick_near(
        &self,
        tried: &[SocketAddr],
        now: u64,
        rng: &mut impl rand::Rng,
    ) -> Option<&Arc<Endpoint>> {
        pick(&self.near, tried, now, rng)
    }

    /// The endpoint at an address, if it is in use.
    pub(crate) fn endpoint(&self, at: SocketAddr) -> Option<&Arc<Endpoint>> {
        self.all.iter().find(|endpoint| endpoint.address == at)
    }

    /// The first endpoint in use of which `is_it` holds.
    pub(crate) fn find(&self, is_it: impl Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        self.all.iter().find(|endpoint| is_it(endpoint))
    }

    /// Where its endpoints are, those of this node first.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let far = self.all.iter().filter(|endpoint| endpoint.way != Way::Here);
        let all = self.near.iter().chain(far);
        all.map(|endpoint| endpoint.address).collect()
    }

    /// Each of its endpoints as this node sees it at `now`.
    pub(super) fn standing(&self, now: u64, routed: bool) -> PortStanding {
        let endpoints = self.all.iter().map(|endpoint| EndpointStanding {
            pod: endpoint.pod.clone(),
            address: endpoint.address.to_string(),
            node: endpoint.node.clone(),
            ejected: endpoint.health().is_ejected(now),
            pending: endpoint.load().pending(),
        });
        PortStanding {
            port: self.number,
            routed,
            endpoints: endpoints.collect(),
        }
    }

    /// Whether its endpoints understand HTTP/2 alone.
    pub(crate) fn speaks_h2(&self) -> bool {
        self.speaks_h2
    }

    /// Whether its Service says that HTTP is spoken there.
    pub(crate) fn speaks_http(&self) -> bool {
        self.speaks_http
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Where its calls would leave the cluster, if nothing else is behind it.
    pub(crate) fn outside(&self) -> Option<SocketAddr> {
        self.outside.filter(|_| self.all.is_empty())
    }

    /// Whether a call that one endpoint turned away could go to another.
    pub(crate) fn has_choice(&self) -> bool {
        self.all.len() > 1
    }

    /// The same where it has to stay on this node.
    pub(crate) fn has_choice_near(&self) -> bool {
        self.near.len() > 1
    }

    /// The port with other endpoints in the place of its own.
    pub(super) fn map(&self, renewed: impl Fn(&Arc<Endpoint>) -> Arc<Endpoint>) -> Self {
        Self {
            name: self.name.clone(),
            protocol: self.protocol,
            number: self.number,
            speaks_h2: self.speaks_h2,
            speaks_http: self.speaks_http,
            near: self.near.iter().map(&renewed).collect(),
            preferred: self.preferred.iter().map(&renewed).collect(),
            zone: self.zone.iter().map(&renewed).collect(),
            all: self.all.iter().map(&renewed).collect(),
            outside: self.outside,
        }
    }

    pub(super) fn is_identical(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Endpoint>], b: &[Arc<Endpoint>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_identical(b))
        };
        (&self.name, self.protocol, self.number, self.outside)
            == (&other.name, other.protocol, other.number, other.outside)
            && (self.speaks_h2, self.speaks_http) == (other.speaks_h2, other.speaks_http)
            && same(&self.near, &other.near)
            && same(&self.preferred, &other.preferred)
            && same(&self.zone, &other.zone)
            && same(&self.all, &other.all)
    }
}

/// A number in which each bit depends on all of `number`'s. Source: Steele, Lea and Flood, "Fast Splittable Pseudorandom Number
/// Generators", OOPSLA 2014.
fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

fn pick<'e>(
    set: &'e [Arc<Endpoint>],
    tried: &[SocketAddr],
    now: u64,
    rng: &mut impl rand::Rng,
) -> Option<&'e Arc<Endpoint>> {
    let index = balance::choose(
        set.len(),
        |index| &*set[index].standing,
        |index| tried.contains(&set[index].address),
        now,
        rng,
    )?;
    set.get(index)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use rand::{SeedableRng, rngs::SmallRng};

    use crate::table::{
        Table,
        testing::{endpoint, service},
    };

    #[test]
    fn a_key_stays_with_its_endpoint_and_moves_with_nobody_elses_loss() {
        let ips: Vec<String> = (1..=5).map(|n| format!("10.42.0.{n}")).collect();
        let table = |ips: &[String]| {
            let endpoints = ips.iter().map(|ip| endpoint("vote", ip, ip, "b"));
            let spec = service("vote", "web").endpoints(endpoints.collect());
            Table::builder("a", 1).service(spec.build()).build()
        };
        let picked = |table: &Table, key: u64| {
            let service = table.service("vote", "web").expect("the service");
            let port = service.port(80).expect("the port");
            let endpoint = port.pick_by(key, &[], 0).expect("one is well");
            endpoint.address
        };
        let (all, fewer) = (table(&ips), table(&ips[1..]));
        let mut counts = std::collections::BTreeMap::new();
        for key in (0..1000_u64).map(|key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)) {
            let before = picked(&all, key);
            *counts.entry(before).or_insert(0) += 1;
            if before.ip().to_string() != ips[0] {
                assert_eq!(picked(&fewer, key), before);
            }
        }
        assert!(
            counts.values().all(|count| (130..270).contains(count)),
            "{counts:?}"
        );
        let service = all.service("vote", "web").expect("the service");
        let port = service.port(80).expect("the port");
        let (first, now) = (picked(&all, 7), 1);
        let other = port.pick_by(7, &[first], now).expect("four are left");
        assert_ne!(other.address, first);
        let everyone: Vec<_> = counts.into_keys().collect();
        assert!(port.pick_by(7, &everyone, now).is_none());
    }

    #[test]
    fn endpoints_that_are_preferred_go_before_the_others_by_whatever_way() {
        let all = ["10.42.0.1", "10.42.1.1", "10.42.2.1"];
        let mut spec = service("vote", "web")
            .endpoints(all.map(|ip| endpoint("vote", ip, ip, "b")).to_vec())
            .build();
        let wanted = ["10.42.1.1", "10.42.2.1"];
        spec.preferred = wanted
            .map(|ip| ip.parse().expect("an address"))
            .into_iter()
            .collect();
        let table = Table::builder("a", 1).service(spec).build();
        let service = table.service("vote", "web").expect("the service");
        let port = service.port(80).expect("the port");
        assert_eq!(port.at(false).len(), 2);
        let picked = |tried: &[&str]| {
            let tried = tried.iter().map(|ip| format!("{ip}:8080").parse());
            let tried: Vec<_> = tried.map(|address| address.expect("an address")).collect();
            let mut rng = SmallRng::seed_from_u64(1);
            let mut found = BTreeSet::new();
            for _ in 0..50 {
                found.extend(port.pick(&tried, 0, &mut rng).map(|one| one.pod.clone()));
                let anywhere = port.pick_anywhere(&tried, 0, &mut rng);
                found.extend(anywhere.map(|one| one.pod.clone()));
            }
            found.into_iter().collect::<Vec<String>>()
        };
        assert_eq!(picked(&[]), wanted);
        assert_eq!(picked(&wanted), ["10.42.0.1"]);
    }

    #[test]
    fn a_call_leaves_its_zone_only_where_nobody_there_can_take_it() {
        let all = ["10.42.1.1", "10.42.2.1", "10.42.3.1"];
        let mut spec = service("vote", "web")
            .endpoints(all.map(|ip| endpoint("vote", ip, ip, "b")).to_vec())
            .build();
        let near = ["10.42.1.1", "10.42.2.1"];
        spec.same_zone = near
            .map(|ip| ip.parse().expect("an address"))
            .into_iter()
            .collect();
        let table = Table::builder("a", 1).service(spec).build();
        let service = table.service("vote", "web").expect("the service");
        let port = service.port(80).expect("the port");
        let picked = |tried: &[&str]| {
            let tried = tried.iter().map(|ip| format!("{ip}:8080").parse());
            let tried: Vec<_> = tried.map(|address| address.expect("an address")).collect();
            let mut rng = SmallRng::seed_from_u64(1);
            let found = (0..50).filter_map(|_| port.pick(&tried, 0, &mut rng));
            found.map(|one| one.pod.clone()).collect::<BTreeSet<_>>()
        };
        let told = |ips: &[&str]| {
            ips.iter()
                .map(|ip| (*ip).to_owned())
                .collect::<BTreeSet<_>>()
        };
        assert_eq!(picked(&[]), told(&near));
        assert_eq!(picked(&near), told(&["10.42.3.1"]));
        for ip in near {
            let address = format!("{ip}:8080").parse().expect("an address");
            let busy = table.endpoint(address).expect("the endpoint");
            (0..crate::balance::SPILL_PENDING).for_each(|_| busy.load().begin());
        }
        assert!(picked(&[]).contains("10.42.3.1"), "{:?}", picked(&[]));
        // Connections go everywhere, as with kube-proxy.
        let mut rng = SmallRng::seed_from_u64(1);
        let anywhere = (0..50).filter_map(|_| port.pick_anywhere(&[], 0, &mut rng));
        assert!(
            anywhere
                .map(|one| one.pod.clone())
                .collect::<BTreeSet<_>>()
                .contains("10.42.3.1")
        );
    }
}
