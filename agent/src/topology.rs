//! What the cluster looks like, for the mesh: services, endpoints, routes, nodes.
//!
//! A watch a kind keeps [`Cluster`] as the server has it; whenever something changed, and after a short pause that gathers what comes
//! together, the table is changed by just that and published. Deciding what that is is pure (`cluster.rs`, [`weft_gateway`]); a
//! table is never half filled, because nothing is published before every list that the mesh cannot do without has arrived.
//!
//! A node that starts begins with what it knew (`kept.rs`), until lists have arrived: whom no server answers serves that.
//!
//! Invariants: generations only grow; after a relist there is exactly what was listed; while the server is away the last
//! table stays in force.

mod certificates;
mod cluster;
mod kept;
mod nearness;
mod policies;
mod slice;

use self::cluster::{Change, Cluster, name_of};
use self::kept::{Keeper, Kept};
use crate::identity::{Chain, Link};
use futures::{Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Namespace, Node, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ApiResource, DynamicObject};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use weft_gateway::{Compiler, Kind, NamespacedName, Object, api};
use weft_mesh::{Mesh, Table, TableBuilder};

/// How long changes are gathered before a table is made: a rollout touches several objects at once.
const GATHER: Duration = Duration::from_millis(5);
/// A table is made again no sooner than after this many times what the last one took: a service of thousands of pods takes
/// milliseconds, and they all change while they start.
const REST_SHARE: u32 = 8;
/// Longest such pause: callers wait a second for a newer table when every endpoint they know turned them away.
const REST_MAX: Duration = Duration::from_millis(400);
/// First pause after a broken watch.
const RECONNECT_FIRST: Duration = Duration::from_millis(200);
/// Longest pause after a broken watch: a node must notice a new leader soon.
const RECONNECT_MAX: Duration = Duration::from_secs(3);

/// Where DNS is asked.
const DNS_PORT: u16 = 53;

/// Pauses between attempts to open a watch, doubling, with jitter.
#[derive(Clone, Debug)]
pub struct Reconnect {
    next: Duration,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            next: RECONNECT_FIRST,
        }
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.next.mul_f64(0.75 + 0.5 * rand::random::<f64>());
        self.next = (self.next * 2).min(RECONNECT_MAX);
        Some(pause)
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        self.next = RECONNECT_FIRST;
    }
}

/// Lists without which there is no table: who calls, whom, and by which rules. Grants only open what is closed without them.
const NEEDED: [&str; 10] = [
    "services",
    "endpointslices",
    "nodes",
    "namespaces",
    "httproutes",
    "gateways",
    "gatewayclasses",
    // Who is not let in by one is not to be let in before it is known.
    "networkpolicies",
    "authorizationpolicies",
    "requestauthentications",
];

/// Group and version of weft's own kinds.
const OWN_GROUP: &str = "weft.dev";
const OWN_VERSION: &str = "v1alpha1";

/// Versions of the Gateway API in which its objects may be served, the newest first: who may put other definitions in the place of those that
/// a cluster has from its beginning, may put older ones there.
const GATEWAY_API_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
/// A kind that is served in no version for so long has no objects: its definition was deleted. Before that it may be one that is about to be
/// made, by a server that was just started.
const UNSERVED_AFTER: Duration = Duration::from_secs(5);

/// A kind that is watched, and how what comes of it is taken in.
struct List<K> {
    name: &'static str,
    /// What is known of the kind.
    names: fn(&Cluster) -> Vec<NamespacedName>,
    apply: fn(&mut Cluster, K),
    delete: fn(&mut Cluster, &NamespacedName),
}

/// The cluster as this node last saw it. Clones share it.
#[derive(Clone)]
pub struct Topology {
    seen: Arc<Mutex<Seen>>,
    changed: Arc<Notify>,
    /// What certificates are referred to may be otherwise.
    referred: Arc<Notify>,
    /// Where keys of tokens are may be otherwise.
    keyed: Arc<Notify>,
    known: watch::Sender<bool>,
    node: String,
    /// Where what is listed is kept, if it is.
    kept: Option<Kept>,
    /// Writes there, until it is begun.
    keeper: Arc<Mutex<Option<Keeper>>>,
    begun: Arc<Mutex<Option<Begun>>>,
}

/// Tables that were made before lists arrived.
struct Begun {
    builder: TableBuilder,
    /// What it has of routes.
    compiler: Compiler,
    generation: u64,
}

struct Seen {
    cluster: Cluster,
    /// Lists that have arrived at least once.
    arrived: BTreeSet<&'static str>,
}

impl Topology {
    /// Nothing known yet.
    pub fn new(node: &str, trust_domain: &str) -> Self {
        Self {
            seen: Arc::new(Mutex::new(Seen {
                cluster: Cluster::new(trust_domain).seen_from(node),
                arrived: BTreeSet::new(),
            })),
            changed: Arc::new(Notify::new()),
            referred: Arc::new(Notify::new()),
            keyed: Arc::new(Notify::new()),
            known: watch::Sender::new(false),
            node: node.into(),
            kept: None,
            keeper: Arc::default(),
            begun: Arc::default(),
        }
    }

    /// Has `mesh` serve what was known when this node of the cluster with this authority ran last, and keeps below `folder` what is listed
    /// from now on. Certificates are not among it.
    #[must_use]
    pub fn taken_up(mut self, folder: &Path, authority: &[u8], mesh: &Mesh) -> Self {
        let folder = kept::folder(folder, authority);
        self.read(&folder);
        let change = self.seen.lock().cluster.take_change();
        if !change.is_empty() {
            let mut begun = self.begin();
            self.apply(change, &mut begun, mesh);
            begun.generation = 1;
            mesh.publish(begun.builder.table(begun.generation));
            tracing::info!("serving what was known, until a server says what is so now");
            *self.begun.lock() = Some(begun);
        }
        let (kept, keeper) = kept::kept(folder);
        self.kept = Some(kept);
        *self.keeper.lock() = Some(keeper);
        self
    }

    /// Takes in what is kept.
    fn read(&self, folder: &Path) {
        fn all<K: serde::de::DeserializeOwned>(seen: &mut Seen, folder: &Path, list: &List<K>) {
            kept::each(folder, list.name, |object| {
                (list.apply)(&mut seen.cluster, object);
            });
        }
        let mut seen = self.seen.lock();
        all(&mut seen, folder, &SERVICES);
        all(&mut seen, folder, &SLICES);
        all(&mut seen, folder, &NODES);
        all(&mut seen, folder, &NAMESPACES);
        let of_gateway_api = [
            CLASSES,
            GATEWAYS,
            ROUTES,
            GRANTS,
            GRPC_ROUTES,
            TLS_ROUTES,
            TCP_ROUTES,
            UDP_ROUTES,
            SETS,
            POLICIES,
        ];
        for list in of_gateway_api {
            all(&mut seen, folder, &list);
        }
        // Who was not let in is not let in because no server is there.
        all(&mut seen, folder, &policies::NETWORKS);
        all(&mut seen, folder, &policies::AUTHORIZATIONS);
        all(&mut seen, folder, &policies::TOKENS);
        all(&mut seen, folder, &policies::ACCOUNTS);
        all(&mut seen, folder, &MESH_POLICIES);
        all(&mut seen, folder, &FAULTS);
    }

    /// Nothing is published yet.
    fn begin(&self) -> Begun {
        Begun {
            builder: Table::builder(&self.node, 0),
            compiler: Compiler::default(),
            generation: 0,
        }
    }

    /// Brings the builder's table up to date, and what of the mesh is none of it.
    fn apply(&self, mut change: Change, begun: &mut Begun, mesh: &Mesh) {
        let Begun {
            builder, compiler, ..
        } = begun;
        // Before the table: who is told that a node is there is not led to it from outside.
        if let Some(own) = change.take_own() {
            mesh.set_own_addresses(own);
        }
        // Before it, too: who is in it is judged.
        if let Some(gone) = change.take_gone() {
            mesh.set_revoked(gone);
        }
        if let Some(policies) = change.take_policies() {
            mesh.set_policies(policies);
            self.keyed.notify_one();
        }
        if let Some(ranges) = change.take_ranges() {
            builder.set_pod_ranges(mesh.gateway_identity(), ranges);
        }
        change.apply(builder, compiler);
    }

    /// Returns once all that a table needs has been listed and published.
    pub async fn known(&self) {
        let mut known = self.known.subscribe();
        // The sender lives in `self`, so that waiting cannot fail.
        let _ = known.wait_for(|known| *known).await;
    }

    /// The services whose variables a container in `namespace` sees.
    pub fn services_for(&self, namespace: &str) -> Vec<Service> {
        self.seen.lock().cluster.services_for(namespace)
    }

    /// Where the API servers are, if `to` is the address of the Service that they are behind.
    pub(crate) fn api_servers(&self, to: SocketAddr) -> Option<Vec<SocketAddr>> {
        self.seen.lock().cluster.api_servers(to)
    }

    /// The address of the cluster's DNS, if its Service is there.
    pub(crate) fn dns(&self) -> Option<IpAddr> {
        self.seen.lock().cluster.dns().map(|(ip, _)| ip)
    }

    /// Whether nodes themselves answer at `to` for the cluster's DNS: nobody else is behind its Service.
    pub(crate) fn is_dns(&self, to: SocketAddr) -> bool {
        to.port() == DNS_PORT && self.seen.lock().cluster.dns() == Some((to.ip(), true))
    }

    /// Watches and publishes until `shutdown`.
    pub async fn run(self, link: Link, mesh: Mesh, shutdown: CancellationToken) {
        let watching = async {
            tokio::join!(
                self.follow(&link, SERVICES, |client, _| Api::<Service>::all(client)),
                self.follow(&link, SLICES, |client, _| Api::<EndpointSlice>::all(client)),
                self.follow(&link, NODES, |client, _| Api::<Node>::all(client)),
                self.follow(&link, NAMESPACES, |client, _| Api::<Namespace>::all(client)),
                self.follow(&link, CLASSES, all_of("GatewayClass", CLASSES.name)),
                self.follow(&link, GATEWAYS, all_of("Gateway", GATEWAYS.name)),
                self.follow(&link, ROUTES, all_of("HTTPRoute", ROUTES.name)),
                self.follow(&link, GRANTS, all_of("ReferenceGrant", GRANTS.name)),
                self.follow(&link, GRPC_ROUTES, all_of("GRPCRoute", GRPC_ROUTES.name)),
                self.follow(&link, TLS_ROUTES, all_of("TLSRoute", TLS_ROUTES.name)),
                self.follow(&link, TCP_ROUTES, all_of("TCPRoute", TCP_ROUTES.name)),
                self.follow(&link, UDP_ROUTES, all_of("UDPRoute", UDP_ROUTES.name)),
                self.follow(&link, SETS, all_of("ListenerSet", SETS.name)),
                self.follow(&link, POLICIES, all_of("BackendTLSPolicy", POLICIES.name)),
                self.follow(
                    &link,
                    MESH_POLICIES,
                    own_of("MeshPolicy", MESH_POLICIES.name)
                ),
                self.follow(&link, FAULTS, own_of("FaultInjection", FAULTS.name)),
                self.follow(&link, policies::NETWORKS, |client, _| {
                    Api::<NetworkPolicy>::all(client)
                }),
                self.follow(
                    &link,
                    policies::AUTHORIZATIONS,
                    policies::all_of("AuthorizationPolicy", "authorizationpolicies")
                ),
                self.follow(
                    &link,
                    policies::TOKENS,
                    policies::all_of("RequestAuthentication", "requestauthentications")
                ),
                self.follow(&link, policies::ACCOUNTS, |client, _| {
                    Api::<ServiceAccount>::all(client)
                }),
                self.token_keys(&mesh),
                self.certificates(&link),
                self.publish(&mesh),
                self.keep(),
            )
        };
        tokio::select! {
            biased;
            () = shutdown.cancelled() => {}
            _ = watching => {}
        }
    }

    /// Writes down what is listed, for ever.
    async fn keep(&self) {
        let keeper = self.keeper.lock().take();
        if let Some(keeper) = keeper {
            keeper.run().await;
        }
        std::future::pending::<()>().await;
    }

    async fn publish(&self, mesh: &Mesh) {
        let begun = self.begun.lock().take();
        let mut begun = begun.unwrap_or_else(|| self.begin());
        let mut rested = tokio::time::Instant::now();
        loop {
            self.changed.notified().await;
            // Who waits for an endpoint is not kept waiting for what else may come.
            let gather = if mesh.is_holding() {
                Duration::ZERO
            } else {
                GATHER
            };
            tokio::time::sleep_until(rested.max(tokio::time::Instant::now() + gather)).await;
            let started = tokio::time::Instant::now();
            let change = {
                let mut seen = self.seen.lock();
                if !NEEDED.iter().all(|list| seen.arrived.contains(list)) {
                    continue;
                }
                seen.cluster.take_change()
            };
            if change.has_routes() {
                self.referred.notify_one();
            }
            let is_news = !change.is_empty() || change.has_ranges() || begun.generation == 0;
            self.apply(change, &mut begun, mesh);
            if is_news {
                begun.generation += 1;
                mesh.publish(begun.builder.table(begun.generation));
                let took = started.elapsed() * REST_SHARE;
                rested = tokio::time::Instant::now() + took.min(REST_MAX);
            }
            // Also where all is as it was known before.
            self.known.send_replace(true);
        }
    }

    /// Keeps what is known of one kind equal to what the server lists. `api` is asked for the place of a version in
    /// [`GATEWAY_API_VERSIONS`].
    async fn follow<K>(
        &self,
        link: &Link,
        list: List<K>,
        api: impl Fn(kube::Client, usize) -> Api<K>,
    ) where
        K: kube::Resource
            + Clone
            + std::fmt::Debug
            + Send
            + serde::Serialize
            + serde::de::DeserializeOwned
            + 'static,
    {
        let mut link = link.clone();
        let mut version = 0;
        let mut unserved: Option<Unserved> = None;
        loop {
            let api = api(link.client(), version);
            let mut events = std::pin::pin!(reconnecting(api, watcher::Config::default()));
            let mut relist: Vec<K> = Vec::new();
            loop {
                let event = tokio::select! {
                    biased;
                    event = events.next() => event,
                    // A renewed certificate: watch anew under it.
                    () = link.renewed() => None,
                };
                let Some(event) = event else { break };
                match event {
                    Ok(Event::Init) => {
                        relist.clear();
                        continue;
                    }
                    Ok(Event::InitApply(object)) => {
                        relist.push(object);
                        continue;
                    }
                    // Only what arrived completely is worth a table.
                    Ok(Event::InitDone) => {
                        unserved = None;
                        if let Some(kept) = &self.kept {
                            kept.all(list.name, &relist);
                        }
                        let mut seen = self.seen.lock();
                        list.replace(&mut seen.cluster, std::mem::take(&mut relist));
                        seen.arrived.insert(list.name);
                    }
                    Ok(Event::Apply(object)) => {
                        if let Some(kept) = &self.kept {
                            kept.one(list.name, &object);
                        }
                        (list.apply)(&mut self.seen.lock().cluster, object);
                    }
                    Ok(Event::Delete(object)) => {
                        if let Some(kept) = &self.kept {
                            kept.gone(list.name, &name_of(&object));
                        }
                        (list.delete)(&mut self.seen.lock().cluster, &name_of(&object));
                    }
                    Err(error) if is_unserved(&error) => {
                        let unserved = unserved.get_or_insert_with(Unserved::begins);
                        if unserved.is_over() && self.forget(&list) {
                            tracing::warn!(
                                list = list.name,
                                "no such kind is served: there are no such objects, until it is"
                            );
                        }
                        tokio::select! {
                            biased;
                            () = link.renewed() => {}
                            () = tokio::time::sleep(unserved.pause()) => {}
                        }
                        version = (version + 1) % GATEWAY_API_VERSIONS.len();
                        break;
                    }
                    Err(error) => {
                        tracing::debug!(list = list.name, error = %Chain(&error), "watch broken, will be opened again");
                        continue;
                    }
                }
                self.changed.notify_one();
            }
        }
    }

    /// Takes it that there is nothing of a kind. Whether that is news.
    fn forget<K: kube::Resource + serde::Serialize>(&self, list: &List<K>) -> bool {
        if let Some(kept) = &self.kept {
            kept.all::<K>(list.name, &[]);
        }
        let mut seen = self.seen.lock();
        let had = !(list.names)(&seen.cluster).is_empty();
        list.replace(&mut seen.cluster, Vec::new());
        let is_first = seen.arrived.insert(list.name);
        drop(seen);
        self.changed.notify_one();
        had || is_first
    }
}

/// A kind that the server does not serve, and since when.
struct Unserved {
    since: tokio::time::Instant,
    pauses: Reconnect,
}

impl Unserved {
    fn begins() -> Self {
        Self {
            since: tokio::time::Instant::now(),
            pauses: Reconnect::default(),
        }
    }

    fn is_over(&self) -> bool {
        self.since.elapsed() >= UNSERVED_AFTER
    }

    fn pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(RECONNECT_MAX)
    }
}

/// Whether the server says that it knows no such kind in this version. It asks its leader before it does.
fn is_unserved(error: &watcher::Error) -> bool {
    let error = match error {
        watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) => error,
        _ => return false,
    };
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

impl<K: kube::Resource> List<K> {
    /// Takes in a whole list: what is not in it is gone.
    fn replace(&self, cluster: &mut Cluster, listed: Vec<K>) {
        let names: BTreeSet<NamespacedName> = listed.iter().map(name_of).collect();
        for gone in (self.names)(cluster) {
            if !names.contains(&gone) {
                (self.delete)(cluster, &gone);
            }
        }
        for object in listed {
            (self.apply)(cluster, object);
        }
    }
}

const SERVICES: List<Service> = List {
    name: "services",
    names: Cluster::services,
    apply: Cluster::apply_service,
    delete: Cluster::delete_service,
};

const SLICES: List<EndpointSlice> = List {
    name: "endpointslices",
    names: Cluster::slices,
    apply: Cluster::apply_slice,
    delete: Cluster::delete_slice,
};

const NODES: List<Node> = List {
    name: "nodes",
    names: Cluster::nodes,
    apply: Cluster::apply_node,
    delete: Cluster::delete_node,
};

const NAMESPACES: List<Namespace> = List {
    name: "namespaces",
    names: |cluster| cluster.names(Kind::Namespace),
    apply: Cluster::apply_namespace,
    delete: Cluster::delete_namespace,
};

const CLASSES: List<DynamicObject> = List {
    name: "gatewayclasses",
    names: |cluster| cluster.names(Kind::GatewayClass),
    apply: |cluster, class| {
        cluster.apply_gateway_api(Kind::GatewayClass, &class, Object::GatewayClass);
    },
    delete: |cluster, name| cluster.forget_object(Kind::GatewayClass, name),
};

const GATEWAYS: List<DynamicObject> = List {
    name: "gateways",
    names: |cluster| cluster.names(Kind::Gateway),
    apply: |cluster, gateway| {
        cluster.apply_gateway_api(Kind::Gateway, &gateway, |gateway| {
            Object::Gateway(Box::new(gateway))
        })
    },
    delete: |cluster, name| cluster.forget_object(Kind::Gateway, name),
};

const ROUTES: List<DynamicObject> = List {
    name: "httproutes",
    names: |cluster| cluster.names(Kind::HttpRoute),
    apply: |cluster, route| cluster.apply_gateway_api(Kind::HttpRoute, &route, Object::HttpRoute),
    delete: |cluster, name| cluster.forget_object(Kind::HttpRoute, name),
};

const GRPC_ROUTES: List<DynamicObject> = List {
    name: "grpcroutes",
    names: |cluster| cluster.names(Kind::GrpcRoute),
    apply: |cluster, route| cluster.apply_gateway_api(Kind::GrpcRoute, &route, Object::GrpcRoute),
    delete: |cluster, name| cluster.forget_object(Kind::GrpcRoute, name),
};

const TLS_ROUTES: List<DynamicObject> = List {
    name: "tlsroutes",
    names: |cluster| cluster.names(Kind::TlsRoute),
    apply: |cluster, route| cluster.apply_gateway_api(Kind::TlsRoute, &route, Object::TlsRoute),
    delete: |cluster, name| cluster.forget_object(Kind::TlsRoute, name),
};

const TCP_ROUTES: List<DynamicObject> = List {
    name: "tcproutes",
    names: |cluster| cluster.names(Kind::TcpRoute),
    apply: |cluster, route| cluster.apply_gateway_api(Kind::TcpRoute, &route, Object::TcpRoute),
    delete: |cluster, name| cluster.forget_object(Kind::TcpRoute, name),
};

const UDP_ROUTES: List<DynamicObject> = List {
    name: "udproutes",
    names: |cluster| cluster.names(Kind::UdpRoute),
    apply: |cluster, route| cluster.apply_gateway_api(Kind::UdpRoute, &route, Object::UdpRoute),
    delete: |cluster, name| cluster.forget_object(Kind::UdpRoute, name),
};

const SETS: List<DynamicObject> = List {
    name: "listenersets",
    names: |cluster| cluster.names(Kind::ListenerSet),
    apply: |cluster, set| cluster.apply_gateway_api(Kind::ListenerSet, &set, Object::ListenerSet),
    delete: |cluster, name| cluster.forget_object(Kind::ListenerSet, name),
};

const POLICIES: List<DynamicObject> = List {
    name: "backendtlspolicies",
    names: |cluster| cluster.names(Kind::BackendTlsPolicy),
    apply: |cluster, policy| {
        cluster.apply_gateway_api(Kind::BackendTlsPolicy, &policy, Object::BackendTlsPolicy);
    },
    delete: |cluster, name| cluster.forget_object(Kind::BackendTlsPolicy, name),
};

const GRANTS: List<DynamicObject> = List {
    name: "referencegrants",
    names: |cluster| cluster.names(Kind::ReferenceGrant),
    apply: |cluster, grant| {
        cluster.apply_gateway_api(Kind::ReferenceGrant, &grant, Object::ReferenceGrant);
    },
    delete: |cluster, name| cluster.forget_object(Kind::ReferenceGrant, name),
};

const MESH_POLICIES: List<DynamicObject> = List {
    name: "meshpolicies",
    names: |cluster| cluster.names(Kind::MeshPolicy),
    apply: |cluster, policy| {
        cluster.apply_gateway_api(Kind::MeshPolicy, &policy, |policy| {
            Object::MeshPolicy(Box::new(policy))
        });
    },
    delete: |cluster, name| cluster.forget_object(Kind::MeshPolicy, name),
};

const FAULTS: List<DynamicObject> = List {
    name: "faultinjections",
    names: |cluster| cluster.names(Kind::FaultInjection),
    apply: |cluster, fault| {
        cluster.apply_gateway_api(Kind::FaultInjection, &fault, Object::FaultInjection);
    },
    delete: |cluster, name| cluster.forget_object(Kind::FaultInjection, name),
};

/// All objects of a kind of our own, which has one version.
fn own_of(
    kind: &'static str,
    plural: &'static str,
) -> impl Fn(kube::Client, usize) -> Api<DynamicObject> {
    move |client, _| {
        let resource = ApiResource {
            group: OWN_GROUP.into(),
            version: OWN_VERSION.into(),
            api_version: format!("{OWN_GROUP}/{OWN_VERSION}"),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::all_with(client, &resource)
    }
}

/// All objects of a kind of the Gateway API, in the version at a place.
fn all_of(
    kind: &'static str,
    plural: &'static str,
) -> impl Fn(kube::Client, usize) -> Api<DynamicObject> {
    move |client, version| {
        let version = GATEWAY_API_VERSIONS[version];
        let resource = ApiResource {
            group: api::GROUP.into(),
            version: version.into(),
            api_version: format!("{}/{version}", api::GROUP),
            kind: kind.into(),
            plural: plural.into(),
        };
        Api::all_with(client, &resource)
    }
}

/// A watch that opens itself again, with [`Reconnect`]'s pauses.
pub fn reconnecting<K>(
    api: Api<K>,
    config: watcher::Config,
) -> impl Stream<Item = watcher::Result<Event<K>>>
where
    K: kube::Resource + Clone + std::fmt::Debug + Send + serde::de::DeserializeOwned + 'static,
{
    watch_objects(api, config)
        .backoff(Reconnect::default())
        .into_stream()
}

#[cfg(test)]
mod tests;
