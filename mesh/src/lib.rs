//! The mesh of one node: route, balance, authorise, encrypt and measure calls between workloads.
//!
//! [`Mesh`] is a cheap handle to the data plane of this node. The agent feeds it values: an immutable
//! [`Table`] of services, endpoints and routes, the certificates of the identities that run here, and the
//! local workloads as boxed tower services. Calls enter by three doors, [`Mesh::outbound`] (a workload of
//! this node calls), [`Mesh::serve_gateway`] (somebody outside calls) and [`Mesh::serve_inbound`] (another
//! node calls on behalf of its workload), and all of them leave by one, `deliver.rs`.
//!
//! ```text
//! outbound.rs ─┐ ingress.rs · resolve.rs · route/ · call.rs (retry.rs, budget.rs, balance.rs)
//! gateway.rs ──┴─► attempt.rs ─ same node ─────────────────────────────────────► deliver.rs (admission.rs) ─► workload
//!                             └ other node ─► transport.rs ═ wire.rs ═► inbound.rs ─► deliver.rs ─► workload
//! outbound.rs ──► egress.rs ─► a named host outside, where a rule allows it
//! ```
//! The order of these layers is written down at the top of `outbound.rs`.
//!
//! Invariants: one call sees one table until it has to be retried; a call that another workload may have
//! seen is repeated only when its method is idempotent; nothing leaves the cluster that no rule lets out; who the caller is comes
//! from the host or from a verified certificate, never from a header of a guest.
//! Left to others: reading Kubernetes objects and asking for certificates (`weft_agent`), what routes mean and where
//! they are attached (`weft_gateway`), running the workload (`weft_runtime`).

mod accept;
mod activity;
mod admission;
mod affinity;
mod attempt;
mod backend_tls;
mod balance;
mod breaker;
mod budget;
mod call;
mod caller;
mod carry;
mod connection;
mod deliver;
mod dial;
mod dns;
mod door;
mod egress;
mod exposed;
mod failure;
mod fault;
mod forwarded;
mod front;
mod gate;
mod gateway;
mod gradient;
mod guards;
mod headers;
mod health;
mod hedge;
mod hello;
mod hold;
mod identity;
mod in_turn;
mod inbound;
mod ingress;
mod joined;
mod judge;
mod limit;
mod load;
mod measure;
mod messages;
mod metrics;
mod mirror;
mod names;
mod outbound;
mod pace;
mod peek;
#[cfg(test)]
mod properties;
mod replay;
mod resolve;
mod retry;
mod route;
mod shard;
mod share;
mod sighting;
mod speak;
mod streams;
mod sync;
mod table;
mod transport;
mod turnstile;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use weft_api::identity::SpiffeId;
use weft_call::counted::{Counted, ServiceCalls};
use weft_call::edges::NodeEdges;
use weft_call::standing::{IdentityStanding, NodeMesh};

pub use accept::accept_loop;
pub use deliver::Detached;
pub use dns::{Answering, DnsConfig, Over};
pub use egress::{
    EGRESS_RULES_MAX, EgressConfig, EgressCredential, EgressManner, EgressRule, EgressRuleError,
    EgressScheme, NotGranted, OwnAddresses, Resolve, Resolving, SpecialAddress, outside_verifier,
};
pub use exposed::Spawn;
pub use forwarded::TRUSTED_HOPS_MAX;
pub use gateway::{GatewayConfig, OpenServices};
pub use guards::Keys;
pub use hello::Hello;
pub use hold::Wanted;
pub use identity::{Identities, SvidError, server_name};
pub use metrics::{
    BYTE_BOUNDS, CallExemplar, CallSeries, Format, Labels, NodeSeries, Reporter, SeriesBytes,
};
pub use names::Search;
pub use outbound::{
    Datagrams, FLOW_IDLE_MAX, FlowReceiver, FlowSender, Outbound, Raw, TooLong, Unframed, flow,
};
pub use retry::{Refusal, Verdict};
pub use route::{
    AttachedRoute, Backend, BackendTarget, BackendTls, CertificateName, ClientValidation, Filter,
    Front, FrontTls, HeaderChange, HostPattern, Match, Mirror, NamespacedName, PathChange,
    PathMatch, Redirect, Retry, Rewrite, Rule, Served, ServiceRoutes,
};
pub use sighting::{
    Interest, QUEUE_MAX, QUEUE_USUAL, Retried, Sighting, Sightings, Spoiled, WATCHES_MAX,
};
pub use speak::{Driven, SpeaksH2, speak};
pub use table::{
    Endpoint, EndpointSpec, HostName, PodRange, Protocol, Service, ServicePortSpec, ServiceSpec,
    SliceNames, Table, TableBuilder,
};
pub use tokio_util::sync::CancellationToken;
pub use weft_call::{
    Blame, Body, BoxError, CallContext, Failure, FailureKind, Peer, Processed, Sampling,
    TraceContext, Transport,
};
pub use weft_policy::{NamedPort, Pod, Policies, Protocol as PolicyProtocol};

/// A local workload as the mesh sees it: what the agent plugs in.
pub type WorkloadService = weft_call::CallService<Body>;

/// Where the identity of the gateways lives, and its ServiceAccount. Their calls come from outside, so that whoever is given it is nobody
/// to guests.
const SYSTEM_NAMESPACE: &str = "weft-system";
const GATEWAY_ACCOUNT: &str = "gateway";

/// Whether a gateway of the cluster calls, on behalf of somebody outside whom nobody identified.
#[must_use]
pub fn is_gateway(peer: &Peer) -> bool {
    &*peer.namespace == SYSTEM_NAMESPACE && &*peer.service_account == GATEWAY_ACCOUNT
}

/// A call tree deeper than this is a loop. In memory it would otherwise cost a stack frame and an instance a
/// level with nothing to stop it.
pub const DEPTH_MAX: u32 = 32;

/// Names of a workload for metrics and for its peers. Empty strings are shown as `unknown`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkloadInfo {
    pub name: String,
    pub namespace: String,
    pub app: String,
    pub version: String,
    pub canonical_service: String,
    pub canonical_revision: String,
}

impl WorkloadInfo {
    /// Reads the labels that Istio reads: `service.istio.io/canonical-name`, `app.kubernetes.io/name`, `app`,
    /// and the same for the version; the workload's name stands in for a missing service name.
    #[must_use]
    pub fn from_labels(name: &str, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key)).cloned();
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            app: first(&["app", "app.kubernetes.io/name"]).unwrap_or_default(),
            version: first(&["version", "app.kubernetes.io/version"]).unwrap_or_default(),
            canonical_service: first(&[
                "service.istio.io/canonical-name",
                "app.kubernetes.io/name",
                "app",
            ])
            .unwrap_or_else(|| name.to_owned()),
            canonical_revision: first(&[
                "service.istio.io/canonical-revision",
                "app.kubernetes.io/version",
                "version",
            ])
            .unwrap_or_else(|| "latest".to_owned()),
        }
    }
}

/// A workload of this node that makes calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerInfo {
    pub identity: SpiffeId,
    /// Its `namespace` is where short service names resolve.
    pub workload: WorkloadInfo,
}

/// A workload of this node that takes calls.
pub struct LocalWorkload {
    pub identity: SpiffeId,
    pub workload: WorkloadInfo,
    pub service: WorkloadService,
    /// Calls in flight beyond this, at all its addresses, are refused as [`FailureKind::Overloaded`] and may go elsewhere.
    pub in_flight_max: usize,
}

/// Address of a pod's port in the host's virtual network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodAddress {
    pub ip: IpAddr,
    pub port: u16,
}

impl From<PodAddress> for SocketAddr {
    fn from(address: PodAddress) -> Self {
        SocketAddr::new(address.ip, address.port)
    }
}

/// The data plane of one node. Clones share it.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) node: String,
    pub(crate) trust_domain: String,
    pub(crate) cluster_domain: String,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) published: watch::Sender<u64>,
    /// Where Gateways have listeners of their own.
    pub(crate) places: watch::Sender<BTreeSet<SocketAddr>>,
    pub(crate) backends: backend_tls::Backends,
    pub(crate) mirrors: mirror::Mirrors,
    pub(crate) attached: deliver::Attachments,
    pub(crate) holding: hold::Holding,
    pub(crate) identities: Arc<Identities>,
    pub(crate) transport: transport::Pool,
    pub(crate) metrics: metrics::Metrics,
    pub(crate) watches: sighting::Watches,
    /// Which traces are recorded.
    pub(crate) sampling: Sampling,
    pub(crate) egress: egress::Egress,
    pub(crate) dns: dns::Dns,
    pub(crate) affinity: affinity::Affinity,
    pub(crate) gateway: gateway::GatewayConfig,
    pub(crate) inbound_connections_max: usize,
    pub(crate) gateway_caller: Arc<caller::Caller>,
    /// Origin of the monotonic nanoseconds that the balancer counts in.
    pub(crate) started: Instant,
    /// When that was, in microseconds of the calendar: no two runs of a node have the same.
    pub(crate) since: u64,
}

impl Inner {
    /// Monotonic nanoseconds for the pure balancer.
    pub(crate) fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Whether whoever proves to be this answers for all pods of its node, called by their addresses.
    pub(crate) fn answers_for(&self, identity: &SpiffeId) -> bool {
        self.gateway_caller.identity() == identity
    }
}

/// The identity of every node's gateway: under which it calls services, and which it proves to who calls a pod by its address alone.
#[must_use]
pub fn gateway_identity(trust_domain: &str) -> SpiffeId {
    SpiffeId::new(trust_domain, SYSTEM_NAMESPACE, GATEWAY_ACCOUNT)
}

impl Mesh {
    /// Starts describing the mesh of `node` in `trust_domain`.
    #[must_use]
    pub fn builder(node: impl Into<String>, trust_domain: impl Into<String>) -> Builder {
        Builder {
            node: node.into(),
            trust_domain: trust_domain.into(),
            cluster_domain: "cluster.local".to_owned(),
            gateway: GatewayConfig::default(),
            inbound_connections_max: inbound::CONNECTIONS_MAX,
            egress: EgressConfig::default(),
            dns: DnsConfig::default(),
            sampling: Sampling::default(),
        }
    }

    /// Name of the node this mesh serves.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.inner.node
    }

    /// Puts a new table in force. Calls already under way keep the one they started with; endpoints that
    /// stay keep their measured latency. A table of an older generation than the current one is ignored.
    pub fn publish(&self, table: Table) {
        let current = self.inner.table.load();
        if table.generation() < current.generation() {
            tracing::warn!(
                offered = table.generation(),
                current = current.generation(),
                "ignored an older table"
            );
            return;
        }
        let table = table.inheriting(&current);
        let generation = table.generation();
        let is_same = Arc::ptr_eq(&table.fronts, &current.fronts)
            && Arc::ptr_eq(&table.streams, &current.streams);
        let places = (!is_same).then(|| &table.fronts.places() | &table.streams.places());
        drop(current);
        self.inner.table.store(Arc::new(table));
        if let Some(places) = places {
            self.inner.places.send_if_modified(|known| {
                let is_news = *known != places;
                *known = places;
                is_news
            });
        }
        self.inner.published.send_replace(generation);
    }

    /// The table in force.
    #[must_use]
    pub fn table(&self) -> Arc<Table> {
        self.inner.table.load_full()
    }

    /// Lets calls reach a workload of this node at `address`; replaces what was there.
    pub fn attach(&self, address: PodAddress, workload: LocalWorkload) {
        self.attach_at(&[address], workload);
    }

    /// The same at each of `addresses`: one workload with several ports, whose calls in flight are counted together.
    pub fn attach_at(&self, addresses: &[PodAddress], workload: LocalWorkload) {
        let addresses = addresses.iter().map(|address| SocketAddr::from(*address));
        self.inner.attached.insert(addresses, workload);
    }

    /// Whether a workload of this node takes calls at `address`.
    #[must_use]
    pub fn is_attached(&self, address: PodAddress) -> bool {
        self.inner.attached.get(address.into()).is_some()
    }

    /// Takes no further calls at `address`, or at another that its workload was attached at together with it. Calls in flight go on; wait
    /// for them with [`Detached::drained`].
    pub fn detach(&self, address: PodAddress) -> Detached {
        Detached::new(self.inner.attached.remove(address.into()))
    }

    /// The service through which one local workload reaches everything else.
    #[must_use]
    pub fn outbound(&self, caller: CallerInfo) -> Outbound {
        Outbound::new(self.clone(), caller, None)
    }

    /// The same for the pod at `ip`, by which policies know it.
    #[must_use]
    pub fn outbound_of_pod(&self, caller: CallerInfo, ip: IpAddr) -> Outbound {
        Outbound::new(self.clone(), caller, Some(ip))
    }

    /// Puts policies in force for calls to workloads of this node from now on; calls under way go on.
    pub fn set_policies(&self, policies: Arc<Policies>) {
        self.inner.attached.guards().set_policies(policies);
    }

    /// Whom nobody believes from now on, in place of whom it was before: their calls are refused here at once, their connections are not taken, and
    /// those that are open end within a minute.
    pub fn set_revoked(&self, revoked: BTreeSet<SpiffeId>) {
        let names = revoked.iter().map(ToString::to_string).collect();
        self.inner.attached.guards().set_revoked(names);
        self.inner.identities.set_revoked(revoked);
    }

    /// Tells other nodes what this one lets in of rates that are counted over all of them, until `stop`.
    pub async fn share_limits(self, stop: CancellationToken) {
        share::run(self.inner, stop).await;
    }

    /// The keys that tokens are proven by, by the places where policies say that they are.
    pub fn set_token_keys(&self, keys: BTreeMap<String, Arc<Keys>>) {
        self.inner.attached.guards().set_keys(keys);
    }

    /// What policies look at of the pod of this node at `ip`, as it is now; none once it is gone.
    pub fn set_pod(&self, ip: IpAddr, pod: Option<Pod>) {
        self.inner.attached.guards().set_pod(ip, pod);
    }

    /// Whether any network policy isolates pods.
    #[must_use]
    pub fn isolates(&self) -> bool {
        self.inner.attached.guards().isolates()
    }

    /// Whether network policies let the pod of this node at `from` send to `to`, for what does not go through the mesh. Of a pod of another
    /// node, that node decides.
    ///
    /// # Errors
    /// [`FailureKind::Unreachable`], which names the policy in its detail.
    pub fn admits(&self, from: IpAddr, to: SocketAddr, protocol: Protocol) -> Result<(), Failure> {
        let protocol = match protocol {
            Protocol::Tcp => weft_policy::Protocol::Tcp,
            Protocol::Udp => weft_policy::Protocol::Udp,
            Protocol::Sctp => weft_policy::Protocol::Sctp,
        };
        self.inner.attached.guards().admits(from, to, protocol)
    }

    /// Certificates of the identities of this node, and the roots it trusts.
    #[must_use]
    pub fn identities(&self) -> &Identities {
        &self.inner.identities
    }

    /// What workloads of `identity` may call outside of the cluster, from now on; nothing where there is no rule. Calls under way go on.
    /// Rules beyond [`EGRESS_RULES_MAX`] and rules of which a part says nothing are left out; the latter are returned.
    pub fn set_egress_rules(
        &self,
        identity: &SpiffeId,
        rules: &[EgressRule],
    ) -> Vec<EgressRuleError> {
        self.inner.egress.set_rules(identity, rules)
    }

    /// Addresses that are the cluster's own: a call that leaves it comes back to them only where its rule names just them.
    pub fn set_own_addresses(&self, own: OwnAddresses) {
        self.inner.egress.set_own(own);
    }

    /// The identity under which this node's gateway calls services.
    #[must_use]
    pub fn gateway_identity(&self) -> SpiffeId {
        self.inner.gateway_caller.identity().clone()
    }

    /// Accepts calls of other nodes until `shutdown`, then finishes what is in flight. One call a core, each
    /// with its own SO_REUSEPORT listener, on that core's runtime.
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn serve_inbound(
        &self,
        listener: std::net::TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        inbound::serve(Arc::clone(&self.inner), listener, shutdown).await
    }

    /// Accepts HTTP/1.1 and HTTP/2 cleartext from outside the cluster until `shutdown`, then finishes what is
    /// in flight. One call a core, as [`Mesh::serve_inbound`].
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn serve_gateway(
        &self,
        listener: std::net::TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        gateway::serve(Arc::clone(&self.inner), None, listener, shutdown).await
    }

    /// Addresses and ports where Gateways have listeners of their own, as they are now and as they change.
    #[must_use]
    pub fn places(&self) -> watch::Receiver<BTreeSet<SocketAddr>> {
        self.inner.places.subscribe()
    }

    /// Accepts what comes to one of [`Mesh::places`], HTTP, TLS or any bytes as its listeners say, until `shutdown`, then finishes what is in flight.
    /// One call a core, as [`Mesh::serve_inbound`].
    ///
    /// # Errors
    /// When the listener cannot be registered with the runtime.
    pub async fn serve_place(
        &self,
        place: SocketAddr,
        listener: std::net::TcpListener,
        shutdown: CancellationToken,
    ) -> std::io::Result<()> {
        gateway::serve(Arc::clone(&self.inner), Some(place), listener, shutdown).await
    }

    /// The next service that calls are held for because nobody answers for it; each once while calls wait. Whoever asks for a replica takes
    /// them here; one task at a time.
    pub async fn next_wanted(&self) -> Wanted {
        hold::next_wanted(&self.inner).await
    }

    /// Whether calls are held for any service.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.inner.holding.is_any()
    }

    /// What was counted of calls of the pods of this node, by their addresses.
    #[must_use]
    pub fn counted_pods(&self) -> BTreeMap<IpAddr, Counted> {
        self.inner.attached.counted(Instant::now())
    }

    /// What was counted of calls of this node to services, of those that were called.
    #[must_use]
    pub fn counted_services(&self) -> Vec<ServiceCalls> {
        self.inner.table.load().counted(Instant::now())
    }

    /// What was counted of each edge at the end that calls, of those alone that had calls `within` the time before now if that is given;
    /// then with what policies ask for services at the moment.
    #[must_use]
    pub fn counted_edges(&self, within: Option<Duration>) -> NodeEdges {
        let inner = &self.inner;
        let mut counted = inner.metrics.counted(inner.since, within);
        if within.is_some() {
            let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
            let seconds = seconds.map_or(0, |since| since.as_secs());
            let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
            let nanos = inner.nanos(Instant::now());
            counted.services = inner.table.load().policies(nanos, seconds);
        }
        counted
    }

    /// All that was counted of calls and connections, at both ends.
    #[must_use]
    pub fn series(&self) -> NodeSeries {
        self.inner.metrics.series(self.inner.since)
    }

    /// How this node's mesh stands, and with it a service by its namespace and name.
    #[must_use]
    pub fn standing(&self, service: Option<(&str, &str)>) -> NodeMesh {
        let inner = &self.inner;
        let (table, nanos) = (inner.table.load(), inner.nanos(Instant::now()));
        let (edges, edges_overflowed) = inner.metrics.edges_kept();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let now = SystemTime::now();
        let left = |end: SystemTime| match end.duration_since(now) {
            Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            Err(over) => -i64::try_from(over.duration().as_secs()).unwrap_or(i64::MAX),
        };
        let identities = inner.identities.all().into_iter();
        let mut identities: Vec<IdentityStanding> = identities
            .map(|(identity, end)| IdentityStanding {
                identity: identity.to_string(),
                ends_in_seconds: left(end),
            })
            .collect();
        identities.sort_by(|a, b| a.identity.cmp(&b.identity));
        let ports = service.map(|(namespace, name)| table.standing(namespace, name, nanos));
        NodeMesh {
            node: inner.node.clone(),
            table_generation: table.generation(),
            services: table.services_len(),
            endpoints: table.endpoints_len(),
            ejected: table.ejected(nanos),
            edges,
            edges_limit: metrics::EDGES_MAX,
            edges_overflowed,
            handshakes_failed: count(&inner.metrics.handshakes_failed),
            denied: count(&inner.metrics.denied),
            watches: inner.watches.len(),
            identities,
            ports: ports.unwrap_or_default(),
            telemetry_dropped: 0,
        }
    }

    /// Appends the mesh's metrics in Prometheus text format.
    pub fn render_metrics(&self, out: &mut String) {
        self.render_metrics_as(Format::Prometheus, out, &mut |_| {});
    }

    /// Appends the mesh's metrics; of OpenMetrics, the end is left to whoever knows that nothing follows. Of many edges they are tens of
    /// megabytes: each time that some are there, `spill` may take them away.
    pub fn render_metrics_as(
        &self,
        format: Format,
        out: &mut String,
        spill: &mut dyn FnMut(&mut String),
    ) {
        metrics::render(&self.inner, format, out, spill);
    }
}

/// Describes a [`Mesh`] before it exists.
pub struct Builder {
    node: String,
    trust_domain: String,
    cluster_domain: String,
    gateway: GatewayConfig,
    inbound_connections_max: usize,
    egress: EgressConfig,
    dns: DnsConfig,
    sampling: Sampling,
}

impl Builder {
    /// Suffix of full service names, `cluster.local` by default.
    #[must_use]
    pub fn cluster_domain(mut self, domain: impl Into<String>) -> Self {
        self.cluster_domain = domain.into();
        self
    }

    /// Limits of the gateway.
    #[must_use]
    pub fn gateway(mut self, config: GatewayConfig) -> Self {
        self.gateway = config;
        self
    }

    /// How calls leave the cluster.
    #[must_use]
    pub fn egress(mut self, config: EgressConfig) -> Self {
        self.egress = config;
        self
    }

    /// Where names outside of the cluster are asked for.
    #[must_use]
    pub fn dns(mut self, config: DnsConfig) -> Self {
        self.dns = config;
        self
    }

    /// Which traces are recorded that begin here; none by default, and those that others record go on.
    #[must_use]
    pub fn sampling(mut self, sampling: Sampling) -> Self {
        self.sampling = sampling;
        self
    }

    /// Connections of other nodes that a listener (one a core) holds, 8192 by default; further ones wait in the kernel's queue.
    #[must_use]
    pub fn inbound_connections_max(mut self, connections: usize) -> Self {
        self.inbound_connections_max = connections;
        self
    }

    /// Makes the mesh, with an empty table and no certificates.
    #[must_use]
    pub fn build(self) -> Mesh {
        let identities = Arc::new(Identities::new(self.trust_domain.clone()));
        let gateway_caller = caller::Caller::new(
            CallerInfo {
                identity: gateway_identity(&self.trust_domain),
                workload: WorkloadInfo {
                    name: "gateway".to_owned(),
                    namespace: SYSTEM_NAMESPACE.to_owned(),
                    app: "gateway".to_owned(),
                    version: String::new(),
                    canonical_service: "gateway".to_owned(),
                    canonical_revision: "latest".to_owned(),
                },
            },
            metrics::Origin::Gateway,
        );
        Mesh {
            inner: Arc::new(Inner {
                table: ArcSwap::from_pointee(Table::builder(&self.node, 0).build()),
                node: self.node,
                trust_domain: self.trust_domain,
                cluster_domain: self.cluster_domain,
                published: watch::Sender::new(0),
                places: watch::Sender::new(BTreeSet::new()),
                backends: backend_tls::Backends::default(),
                mirrors: mirror::Mirrors::default(),
                attached: deliver::Attachments::default(),
                holding: hold::Holding::default(),
                transport: transport::Pool::new(Arc::clone(&identities)),
                identities,
                metrics: metrics::Metrics::default(),
                watches: sighting::Watches::default(),
                sampling: self.sampling,
                egress: egress::Egress::new(self.egress),
                dns: dns::Dns::new(self.dns),
                affinity: affinity::Affinity::default(),
                gateway: self.gateway,
                inbound_connections_max: self.inbound_connections_max,
                gateway_caller: Arc::new(gateway_caller),
                started: Instant::now(),
                since: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |since| {
                        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
                    }),
            }),
        }
    }
}

/// How long a listener that shuts down waits for calls in flight before it drops them.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(30);
