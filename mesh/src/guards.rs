//! Who is let in to the workloads of this node, by the policies in force: asked by `deliver.rs` of every call, whichever way it came.
//!
//! ```text
//! 0 is the caller's ServiceAccount gone             ─► as if nobody were there
//! 1 is it the pod itself that calls                 ─► nobody is asked
//! 2 NetworkPolicies, of caller and callee           ─► as if nobody were there
//! 3 tokens, where somebody's are taken (tokens.rs)  ─► 401, in Envoy's words
//! 4 AuthorizationPolicies                           ─► 403 `RBAC: access denied`
//! ```
//! At a gateway, 3 and 4 are asked beforehand of what is attached to the Gateway or selects it (gateways.rs).
//!
//! All of that is decided in [`weft_policy`]. What is handed in is known: the caller's identity by its certificate or its node, its address and
//! labels by its node, which runs it. Where there are no policies, a call costs one look at an empty value.
//!
//! Invariants: what was refused was not shown to the workload; a verdict is told with the policy and the rule that it rests on, in logs and
//! figures and never to the client; where the caller's node knows nothing of policies yet, the caller is nobody's pod.

mod gateways;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;
use http::{Extensions, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::{MetricType, counter::ConstCounter},
};
use weft_call::{Blame, CallContext, Failure, FailureKind, Peer};
use weft_policy::{
    Attributes, Because, End, Flow, Guard, Matched, Pod, Policies, Principal, Protocol, Verdict,
};

pub(crate) use gateways::Entered;
pub use tokens::Keys;

use crate::{
    Body, Datagrams, Raw, deliver, deliver::Attached, is_gateway, measure, route::NamespacedName,
};

/// What Envoy answers, and what clients look for.
const DENIED: &str = "RBAC: access denied";
/// Of who calls on after that.
const REVOKED: &str = "the ServiceAccount of its caller is gone";
/// Of a connection to whoever is told claims of tokens in lines.
const NO_BYTES: &str = "its requests are asked for tokens, so that it takes requests only";
/// In the place of a method, of what is no HTTP.
const BYTES: &str = "TCP";
/// The label that a Gateway has by its name.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
/// A pod with more than that in its labels is told by its address alone.
const LABELS_BYTES_MAX: usize = 4 << 10;
/// Of gRPC.
const PERMISSION_DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";

/// Who calls, and by which Service: an extension of a request on its way to a workload.
#[derive(Debug, Clone)]
pub(crate) struct Introduced {
    pub(crate) source: Source,
    /// `name.namespace`; where none was called, both are empty.
    pub(crate) service: HeaderValue,
}

impl Introduced {
    pub(crate) fn mark(self, extensions: &mut Extensions) {
        extensions.insert(self);
    }

    /// Namespace and name of the Service.
    fn service(&self) -> Option<(&str, &str)> {
        let (name, namespace) = self.service.to_str().ok()?.split_once('.')?;
        (!name.is_empty()).then_some((namespace, name))
    }
}

/// Where a caller is, and which pod it is: as its node says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub(crate) ip: Option<IpAddr>,
    pub(crate) pod: Option<Arc<Pod>>,
}

/// Where a client of a gateway is. An extension of its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAt(pub(crate) IpAddr);

/// See the module's promise.
#[derive(Default)]
pub(crate) struct Guards {
    policies: ArcSwap<InForce>,
    /// Pods of this node, by their addresses.
    pods: ArcSwap<imbl::HashMap<IpAddr, Arc<Pod>>>,
    keys: ArcSwap<BTreeMap<String, Arc<Keys>>>,
    /// Whom nobody believes any more, as their SPIFFE ids are written.
    revoked: ArcSwap<BTreeSet<String>>,
    pub(crate) counted: Counted,
}

struct InForce {
    generation: u64,
    policies: Arc<Policies>,
    is_empty: bool,
    asks_for_callers: bool,
    /// Keys that policies have in them, by the text that they are.
    sets: BTreeMap<String, Arc<Keys>>,
    /// What concerns each Gateway that was asked for.
    gateways: Mutex<BTreeMap<NamespacedName, Arc<Guard>>>,
}

impl Default for InForce {
    fn default() -> Self {
        Self {
            generation: 0,
            policies: Arc::default(),
            is_empty: true,
            asks_for_callers: false,
            sets: BTreeMap::new(),
            gateways: Mutex::default(),
        }
    }
}

/// How calls to workloads of this node were judged.
#[derive(Default)]
pub(crate) struct Counted {
    pub(crate) denied: AtomicU64,
    pub(crate) would_be_denied: AtomicU64,
    pub(crate) audited: AtomicU64,
    pub(crate) unauthenticated: AtomicU64,
    pub(crate) isolated: AtomicU64,
}

impl Counted {
    pub(crate) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let mut family = encoder.encode_descriptor(
            "weft_mesh_policy_verdicts",
            "Calls that policies refused at their callee's node, or would have, or want written down.",
            None,
            MetricType::Counter,
        )?;
        for (verdict, count) in [
            ("denied", &self.denied),
            ("would_be_denied", &self.would_be_denied),
            ("audited", &self.audited),
            ("unauthenticated", &self.unauthenticated),
            ("isolated", &self.isolated),
        ] {
            let count = ConstCounter::new(count.load(Ordering::Relaxed));
            count.encode(family.encode_family(&[("verdict", verdict)])?)?;
        }
        Ok(())
    }
}

/// What concerns a workload, as of some policies and some state of its pod.
pub(crate) struct Known {
    generation: u64,
    pod: Arc<Pod>,
    guard: Guard,
}

/// The pod that a gateway is to policies.
static GATEWAY: LazyLock<Arc<Pod>> = LazyLock::new(|| {
    Arc::new(Pod {
        namespace: crate::SYSTEM_NAMESPACE.to_owned(),
        name: crate::GATEWAY_ACCOUNT.to_owned(),
        labels: [("app".to_owned(), crate::GATEWAY_ACCOUNT.to_owned())].into(),
        ..Pod::default()
    })
});

impl Guards {
    /// Puts policies in force, for all calls from now on.
    pub(crate) fn set_policies(&self, policies: Arc<Policies>) {
        let sets = policies.key_sets().into_iter();
        let sets: BTreeMap<String, Arc<Keys>> = sets
            .filter_map(|set| Some((set.to_owned(), Arc::new(Keys::read(set)?))))
            .collect();
        self.policies.rcu(|before| InForce {
            sets: sets.clone(),
            gateways: Mutex::default(),
            generation: before.generation + 1,
            is_empty: policies.is_empty(),
            asks_for_callers: policies.asks_for_callers(),
            policies: Arc::clone(&policies),
        });
    }

    pub(crate) fn set_keys(&self, keys: BTreeMap<String, Arc<Keys>>) {
        self.keys.store(Arc::new(keys));
    }

    pub(crate) fn set_revoked(&self, revoked: BTreeSet<String>) {
        self.revoked.store(Arc::new(revoked));
    }

    pub(crate) fn set_pod(&self, ip: IpAddr, pod: Option<Pod>) {
        let known = self.pods.load();
        if known.get(&ip).map(|known| &**known) == pod.as_ref() {
            return;
        }
        let pod = pod.map(Arc::new);
        self.pods.rcu(|pods| {
            let mut pods = imbl::HashMap::clone(pods);
            match &pod {
                Some(pod) => pods.insert(ip, Arc::clone(pod)),
                None => pods.remove(&ip),
            };
            pods
        });
    }

    /// Whether nobody asks anything of a call.
    pub(crate) fn is_empty(&self) -> bool {
        self.policies.load().is_empty
    }

    /// Who calls, as a pod of this node or on behalf of a client; nothing where nobody asks.
    pub(crate) fn source(&self, caller: Option<IpAddr>, client: Option<IpAddr>) -> Source {
        if !self.policies.load().asks_for_callers {
            return Source::default();
        }
        Source {
            ip: client.or(caller),
            pod: caller.and_then(|ip| self.pods.load().get(&ip).cloned()),
        }
    }

    /// Whether any network policy isolates pods.
    pub(crate) fn isolates(&self) -> bool {
        self.policies.load().policies.has_networks()
    }

    /// Whether a pod of this node may send to an address, as far as that is known here: of a pod of another node, that node judges.
    pub(crate) fn admits(
        &self,
        from: IpAddr,
        to: SocketAddr,
        protocol: Protocol,
    ) -> Result<(), Failure> {
        let policies = self.policies.load();
        if !policies.policies.has_networks() {
            return Ok(());
        }
        let pods = self.pods.load();
        let flow = Flow {
            from: End {
                ip: Some(from),
                pod: pods.get(&from).map(|pod| &**pod),
            },
            to: End {
                ip: Some(to.ip()),
                pod: pods.get(&to.ip()).map(|pod| &**pod),
            },
            protocol,
            port: to.port(),
        };
        self.judge_flow(&policies.policies, &flow)
    }

    fn judge_flow(&self, policies: &Policies, flow: &Flow<'_>) -> Result<(), Failure> {
        policies.admits(flow).map_err(|isolated| {
            self.counted.isolated.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%isolated, from = ?flow.from.ip, port = flow.port, "no way by network policy");
            Failure::new(
                FailureKind::Unreachable,
                "network policy does not let the two speak with each other",
            )
            .with_blame(Blame::Policy)
            .with_detail(isolated.to_string())
        })
    }

    /// Judges a call that is about to be handed to `to`. An answer in the workload's place, where it may not have it.
    ///
    /// # Errors
    /// Where nobody is to know that there is a workload, and of what is no HTTP.
    pub(crate) fn judge(
        &self,
        to: &Attached,
        request: &mut Request<Body>,
        context: &CallContext,
    ) -> Result<Option<Response<Body>>, Failure> {
        let introduced = request.extensions_mut().remove::<Introduced>();
        let revoked = self.revoked.load();
        if let Some(peer) = &context.peer
            && !revoked.is_empty()
            && revoked.contains(&*peer.spiffe_id)
        {
            return Err(Failure::new(FailureKind::Unreachable, REVOKED).with_blame(Blame::Policy));
        }
        let policies = self.policies.load();
        if policies.is_empty {
            return Ok(None);
        }
        let source = introduced.as_ref().map(|by| by.source.clone());
        let source = source.unwrap_or_default();
        if source.ip.is_some() && source.ip == to.pod_ip {
            return Ok(None);
        }
        let known = self.known(&policies, to);
        let peer = context.peer.as_deref();
        let behind_gateway = peer.is_some_and(is_gateway);
        let datagrams = request.extensions().get::<Datagrams>();
        let (protocol, port) = match datagrams {
            Some(datagrams) => (Protocol::Udp, datagrams.port),
            None => (Protocol::Tcp, context.port.unwrap_or_default()),
        };
        if policies.policies.has_networks() {
            let pod = match behind_gateway {
                true => Some(&*GATEWAY),
                false => source.pod.as_ref(),
            };
            // Whoever says that it is a pod of another namespace than its certificate is of none.
            let is_its =
                |pod: &&Arc<Pod>| peer.is_some_and(|peer| *peer.namespace == *pod.namespace);
            let flow = Flow {
                from: End {
                    ip: source.ip,
                    pod: pod.filter(is_its).map(|pod| &**pod),
                },
                to: End {
                    ip: to.pod_ip,
                    pod: Some(&known.pod),
                },
                protocol,
                port,
            };
            self.judge_flow(&policies.policies, &flow)?;
        }
        if protocol == Protocol::Udp || known.guard.is_empty() {
            return Ok(None);
        }
        let is_raw = request.extensions().get::<Raw>().is_some();
        let service = introduced.as_ref().and_then(Introduced::service);
        let mut claims = None;
        if tokens::strip(known.guard.issuers(service), request) && is_raw {
            // Who trusts lines of ours is not to be shown bytes in which anybody may have written them.
            return Err(Failure::new(FailureKind::Unreachable, NO_BYTES).with_blame(Blame::Policy));
        }
        if !is_raw && !is_preflight(request) {
            let keys = self.keys.load();
            let issuers = known.guard.issuers(service);
            let keys = tokens::Known {
                written: &policies.sets,
                fetched: &keys,
            };
            match tokens::proven(issuers, &keys, request, seconds()) {
                Ok(found) => claims = found,
                Err(fault) => {
                    self.counted.unauthenticated.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!(to = %to.spiffe_id, reason = fault.sentence(), "a token is not taken");
                    return Ok(Some(unauthenticated(request, fault.sentence())));
                }
            }
        }
        let asked = Attributes {
            principal: peer.and_then(principal),
            source_ip: source.ip,
            remote_ip: source.ip,
            destination_ip: to.pod_ip,
            destination_port: port,
            sni: None,
            request: (!is_raw).then(|| weft_policy::Request {
                method: request.method().as_str(),
                host: request.uri().authority().map_or("", |host| host.as_str()),
                path: request.uri().path(),
                headers: request.headers(),
                claims: claims.as_ref(),
            }),
        };
        let verdict = known.guard.judge(&asked, service);
        self.tell(&verdict, to, peer, request);
        match (verdict.allowed, is_raw) {
            (true, _) => Ok(None),
            (false, true) => {
                Err(Failure::new(FailureKind::Unreachable, DENIED).with_blame(Blame::Policy))
            }
            (false, false) => Ok(Some(forbidden(request))),
        }
    }

    fn known(&self, policies: &InForce, to: &Attached) -> Arc<Known> {
        let pod = to.pod_ip.and_then(|ip| self.pods.load().get(&ip).cloned());
        let known = to.known.load_full();
        if let Some(known) = known
            && known.generation == policies.generation
            && pod.as_ref().is_none_or(|pod| Arc::ptr_eq(pod, &known.pod))
        {
            return known;
        }
        // Nothing is said of it: then it is one of its namespace that no labels are known of.
        let pod = pod.unwrap_or_else(|| {
            Arc::new(Pod {
                namespace: to.identity.namespace.clone(),
                ..Pod::default()
            })
        });
        let known = Arc::new(Known {
            generation: policies.generation,
            guard: policies.policies.guard(&pod),
            pod,
        });
        to.known.store(Some(Arc::clone(&known)));
        known
    }

    fn tell(&self, verdict: &Verdict, to: &Attached, peer: Option<&Peer>, request: &Request<Body>) {
        let who = peer.map_or("", |peer| &*peer.spiffe_id);
        let (method, path) = match request.extensions().get::<Raw>() {
            None => (request.method().as_str(), request.uri().path()),
            Some(_) => (BYTES, ""),
        };
        self.tell_of(verdict, who, &to.spiffe_id, method, path);
    }

    fn tell_of(
        &self,
        verdict: &Verdict,
        who: &str,
        to: &impl fmt::Display,
        method: &str,
        path: &str,
    ) {
        for Matched { policy, rule } in &verdict.audited {
            self.counted.audited.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%policy, rule, from = who, %to, method, path, "audited");
        }
        if let Some((false, because)) = &verdict.dry_run {
            self.counted.would_be_denied.fetch_add(1, Ordering::Relaxed);
            tracing::info!(%because, from = who, %to, method, path, "would be denied by a policy that is tried out");
        }
        if !verdict.allowed {
            self.counted.denied.fetch_add(1, Ordering::Relaxed);
            let because = match &verdict.because {
                Because::Met(matched) => matched.to_string(),
                because => because.to_string(),
            };
            tracing::debug!(
                details = %format_args!("rbac_access_denied_matched_policy[{because}]"),
                from = who, %to, method, path, "{}", verdict.explained()
            );
        }
    }
}

/// Since the epoch.
fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |since| since.as_secs())
}

/// A browser asks beforehand without its credentials.
fn is_preflight(request: &Request<Body>) -> bool {
    request.method() == http::Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn principal(peer: &Peer) -> Option<Principal<'_>> {
    Some(Principal {
        text: peer.spiffe_id.strip_prefix("spiffe://")?,
        namespace: &peer.namespace,
        service_account: &peer.service_account,
    })
}

fn forbidden(request: &Request<Body>) -> Response<Body> {
    refused(request, StatusCode::FORBIDDEN, PERMISSION_DENIED, DENIED)
}

fn unauthenticated(request: &Request<Body>, why: &'static str) -> Response<Body> {
    let mut response = refused(request, StatusCode::UNAUTHORIZED, UNAUTHENTICATED, why);
    let uri = request.uri();
    let (scheme, host) = (
        uri.scheme_str().unwrap_or("http"),
        uri.authority().map_or("", |host| host.as_str()),
    );
    let realm = format!(
        "Bearer realm=\"{scheme}://{host}{}\", error=\"invalid_token\"",
        uri.path()
    );
    if let Ok(realm) = HeaderValue::from_str(&realm) {
        let lines = response.headers_mut();
        lines.insert(header::WWW_AUTHENTICATE, realm);
    }
    response
}

/// As Envoy answers in a workload's place; to gRPC in its own way.
fn refused(
    request: &Request<Body>,
    status: StatusCode,
    grpc: &'static str,
    why: &'static str,
) -> Response<Body> {
    if measure::is_grpc(request.headers()) {
        let mut response = Response::new(Body::empty());
        let lines = response.headers_mut();
        for (name, value) in [
            ("content-type", "application/grpc"),
            ("grpc-status", grpc),
            ("grpc-message", why),
        ] {
            lines.insert(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        return response;
    }
    let mut response = Response::new(Body::full(why));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    deliver::without_content(request.method(), response)
}

impl Source {
    /// As nodes tell each other: `ip`, and of a pod, behind a semicolon each, its labels.
    pub(crate) fn line(&self) -> Option<HeaderValue> {
        let ip = self.ip?;
        let labels = self.pod.as_ref().map(|pod| {
            let labels = pod
                .labels
                .iter()
                .map(|(key, value)| format!("{key}={value}"));
            format!(";{}", labels.collect::<Vec<_>>().join(";"))
        });
        let labels = labels.filter(|labels| labels.len() <= LABELS_BYTES_MAX);
        HeaderValue::from_str(&format!("{ip}{}", labels.unwrap_or_default())).ok()
    }

    /// What [`Source::line`] wrote of a pod of `namespace`, which is that of the caller's certificate.
    pub(crate) fn read(line: &HeaderValue, namespace: &str) -> Option<Self> {
        let text = line.to_str().ok()?;
        let (ip, labels) = match text.split_once(';') {
            Some((ip, labels)) => (ip, Some(labels)),
            None => (text, None),
        };
        let pod = labels.map(|labels| {
            let labels = labels.split(';').filter_map(|label| label.split_once('='));
            Arc::new(Pod {
                namespace: namespace.to_owned(),
                labels: labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
                ..Pod::default()
            })
        });
        Some(Self {
            ip: Some(ip.parse().ok()?),
            pod,
        })
    }
}

#[cfg(test)]
mod tests;
