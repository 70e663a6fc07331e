//! Who calls, and to whose account its calls go.
//!
//! A call looks up the edges of its callee at each try, so they are kept by table, without a lock and without building the key
//! of a metric each time.
//!
//! Invariants: a caller holds one entry for each workload and service that it calls, however many pods those have and however
//! often they are called; what it remembers of an edge does not keep it among the metrics.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    net::IpAddr,
    sync::{Arc, LazyLock, Weak, atomic::AtomicU64},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use smallvec::{SmallVec, smallvec};
use weft_api::identity::SpiffeId;
use weft_turns::Tenant;

use crate::{
    CallerInfo, Inner, Peer, Transport, WorkloadInfo,
    deliver::Attached,
    metrics::{Edge, EdgeKey, Origin, Reporter},
    table::{Endpoint, ServiceLabels},
    wire,
};

/// Who calls, in every form that a call needs.
pub(crate) struct Caller {
    identity: SpiffeId,
    pub(crate) spiffe_id: Arc<str>,
    pub(crate) workload: Arc<WorkloadInfo>,
    pub(crate) tenant: Tenant,
    pub(crate) origin: Origin,
    /// Of its pod, where it is one.
    pub(crate) at: Option<IpAddr>,
    /// As a callee of this node sees it.
    pub(crate) peer: Arc<Peer>,
    /// For the wire.
    pub(crate) source_line: HeaderValue,
    edges: ArcSwap<EdgeCache>,
    /// Calls out of the cluster that it tried.
    pub(crate) denied: AtomicU64,
}

/// Edges by workload and service of one table. Addresses of values serve as keys, and the values are kept alive
/// beside them, so that no address is used twice.
#[derive(Default)]
struct EdgeCache {
    generation: u64,
    edges: HashMap<EdgeCacheKey, CachedEdges, BuildHasherDefault<OfAddresses>>,
}

/// Workload, principal and service of the callee, and the way there.
type EdgeCacheKey = (usize, usize, usize, Transport);

/// Hashes keys of addresses by a multiplication each: nobody outside chooses them, and each call asks.
#[derive(Default)]
struct OfAddresses(u64);

impl Hasher for OfAddresses {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, value: usize) {
        self.0 = (self.0.rotate_left(5) ^ value as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    /// The upper bits are the mixed ones; tables look at the lower ones first.
    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

#[derive(Clone)]
struct CachedEdges {
    edges: SmallVec<[Weak<Edge>; 2]>,
    _workload: Arc<WorkloadInfo>,
    _principal: Arc<str>,
    _service: Arc<ServiceLabels>,
}

impl CachedEdges {
    /// The edges, unless one was dropped for want of calls.
    fn alive(&self) -> Option<SmallVec<[Arc<Edge>; 2]>> {
        self.edges.iter().map(Weak::upgrade).collect()
    }
}

/// Of calls to an address of a pod. One for all, or each call would be a service of its own.
pub(crate) static NO_SERVICE: LazyLock<Arc<ServiceLabels>> =
    LazyLock::new(|| Arc::new(ServiceLabels::new("", "")));

/// Of calls to what is not there, under the name that Istio has for it.
pub(crate) static BLACK_HOLE: LazyLock<Arc<ServiceLabels>> =
    LazyLock::new(|| Arc::new(ServiceLabels::new("", "BlackHoleCluster")));

/// Who is called, as far as accounts tell callees apart.
pub(crate) struct Callee<'e> {
    workload: &'e Arc<WorkloadInfo>,
    principal: &'e Arc<str>,
    transport: Transport,
}

impl<'e> Callee<'e> {
    pub(crate) fn at(endpoint: &'e Endpoint) -> Self {
        Self {
            workload: &endpoint.workload,
            principal: &endpoint.spiffe_id,
            transport: endpoint.way.transport(),
        }
    }

    pub(crate) fn of(attached: &'e Attached) -> Self {
        Self {
            workload: &attached.workload,
            principal: &attached.spiffe_id,
            transport: Transport::InProcess,
        }
    }
}

impl Caller {
    pub(crate) fn new(info: CallerInfo, origin: Origin) -> Self {
        let spiffe_id: Arc<str> = info.identity.to_string().into();
        Self {
            peer: Arc::new(Peer {
                spiffe_id: Arc::clone(&spiffe_id),
                namespace: info.identity.namespace.as_str().into(),
                service_account: info.identity.service_account.as_str().into(),
                workload: info.workload.name.as_str().into(),
                transport: Transport::InProcess,
            }),
            source_line: wire::source_line(&info.workload),
            tenant: Tenant::named(&info.identity.namespace),
            identity: info.identity,
            spiffe_id,
            workload: Arc::new(info.workload),
            origin,
            at: None,
            edges: ArcSwap::default(),
            denied: AtomicU64::new(0),
        }
    }

    pub(crate) fn identity(&self) -> &SpiffeId {
        &self.identity
    }

    /// Where a call to `callee` is charged: here, and for a callee of this node also on its side.
    pub(crate) fn edges(
        &self,
        inner: &Inner,
        generation: u64,
        callee: &Callee<'_>,
        service: &Arc<ServiceLabels>,
    ) -> SmallVec<[Arc<Edge>; 2]> {
        let key = (
            Arc::as_ptr(callee.workload) as usize,
            Arc::as_ptr(callee.principal).cast::<u8>() as usize,
            Arc::as_ptr(service) as usize,
            callee.transport,
        );
        let cache = self.edges.load();
        if cache.generation == generation
            && let Some(edges) = cache.edges.get(&key).and_then(CachedEdges::alive)
        {
            return edges;
        }
        drop(cache);
        let edge = |reporter, transport| {
            inner.metrics.edge(&EdgeKey {
                reporter,
                source: Arc::clone(&self.workload),
                source_principal: Arc::clone(&self.spiffe_id),
                destination: Arc::clone(callee.workload),
                destination_principal: Arc::clone(callee.principal),
                service: Arc::clone(service),
                transport: Some(transport),
            })
        };
        let edges: SmallVec<[Arc<Edge>; 2]> = match callee.transport {
            Transport::InProcess => smallvec![
                edge(Reporter::Source, Transport::InProcess),
                edge(Reporter::Destination, Transport::InProcess)
            ],
            Transport::MutualTls => smallvec![edge(Reporter::Source, Transport::MutualTls)],
        };
        self.edges.rcu(|cache| {
            let mut known = if cache.generation == generation {
                cache.edges.clone()
            } else {
                HashMap::default()
            };
            known.insert(
                key,
                CachedEdges {
                    edges: edges.iter().map(Arc::downgrade).collect(),
                    _workload: Arc::clone(callee.workload),
                    _principal: Arc::clone(callee.principal),
                    _service: Arc::clone(service),
                },
            );
            EdgeCache {
                generation,
                edges: known,
            }
        });
        edges
    }

    /// Where a call is charged that reached no endpoint.
    pub(crate) fn edge_to_nobody(&self, inner: &Inner, service: &Arc<ServiceLabels>) -> Arc<Edge> {
        inner.metrics.edge(&EdgeKey {
            reporter: Reporter::Source,
            source: Arc::clone(&self.workload),
            source_principal: Arc::clone(&self.spiffe_id),
            destination: Arc::default(),
            destination_principal: "".into(),
            service: Arc::clone(service),
            transport: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Mesh,
        table::testing::{endpoint, service},
    };

    #[test]
    fn a_thousand_pods_of_a_workload_are_one_account() {
        let mesh = Mesh::builder("a", "cluster.local").build();
        let pods = (0..1000).map(|number| {
            let ip = format!("10.42.{}.{}", number / 250, number % 250 + 1);
            endpoint("vote", &format!("voting-{number}"), &ip, "a")
        });
        let voting = service("vote", "voting").endpoints(pods.collect()).build();
        let table = crate::Table::builder("a", 1).service(voting).build();
        let caller = Caller::new(
            CallerInfo {
                identity: SpiffeId::new("cluster.local", "vote", "default"),
                workload: WorkloadInfo::default(),
            },
            Origin::Workload,
        );
        for number in 0..1000 {
            let address = format!("10.42.{}.{}:8080", number / 250, number % 250 + 1);
            let address = address.parse().expect("an address");
            let endpoint = table.endpoint(address).expect("an endpoint");
            let edges = caller.edges(&mesh.inner, 1, &Callee::at(endpoint), &NO_SERVICE);
            assert_eq!(edges.len(), 2, "on both sides");
        }
        let cache = caller.edges.load();
        assert_eq!(cache.edges.len(), 1);
        // Only the metrics hold them, and may let go of what nobody calls.
        for edge in cache.edges.values().flat_map(|cached| &cached.edges) {
            assert_eq!(edge.strong_count(), 1);
        }
    }
}
