//! The objects of the Gateway API and what is looked at beside them, typed: of their fields those that are served and those that
//! are refused by name.
//!
//! Own types, because those of the `gateway-api` crate come with another version of `kube` and `k8s-openapi` than the rest has.
//! Invariants: what is absent and what is `null` is the same; a field of another type makes the object unreadable, never one
//! that means something else.

mod grpc;
mod resilience;
mod stream;
mod tls;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use weft_api::view;

use crate::name::NamespacedName;

pub use grpc::{GrpcMethodMatch, GrpcRouteMatch, GrpcRouteRule, GrpcRouteSpec};
pub use resilience::{
    AbortFault, BudgetPolicy, CallerRef, CircuitBreaker, ConcurrencyPolicy, DelayFault,
    FaultHeader, FaultInjectionSpec, Hedging, MeshPolicySpec, RateLimitPolicy, RetryPolicy,
    Timeouts,
};
pub use stream::{StreamRouteRule, StreamRouteSpec};
pub use tls::{
    AuthorityRef, BackendTlsPolicySpec, BackendValidation, Bundle, FrontendValidation, GatewayTls,
    KeyPair, ListenerTls, ObjectReference, PolicyTarget, Secret, SubjectAltName,
};

/// The API group of everything here.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// How GatewayClasses name the gateway of this cluster, and under what name statuses of routes are told.
pub const CONTROLLER_NAME: &str = "weft.dev/gateway-controller";

/// What is needed of an object's metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    pub name: NamespacedName,
    /// Seconds since the epoch; the older object wins a conflict.
    pub created: i64,
}

/// An object: who it is, and what it asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Object<S> {
    pub metadata: Metadata,
    pub spec: S,
}

pub type GatewayClass = Object<GatewayClassSpec>;
pub type Gateway = Object<GatewaySpec>;
pub type Mesh = Object<MeshSpec>;
pub type HttpRoute = Object<HttpRouteSpec>;
pub type GrpcRoute = Object<GrpcRouteSpec>;
/// A TLSRoute, a TCPRoute or a UDPRoute.
pub type StreamRoute = Object<StreamRouteSpec>;
pub type ListenerSet = Object<ListenerSetSpec>;
pub type BackendTlsPolicy = Object<BackendTlsPolicySpec>;
pub type ReferenceGrant = Object<ReferenceGrantSpec>;
pub type MeshPolicy = Object<MeshPolicySpec>;
pub type FaultInjection = Object<FaultInjectionSpec>;

impl<S: DeserializeOwned + Default> Object<S> {
    /// From the parts of an object as JSON.
    ///
    /// # Errors
    /// When a field has another type than in the API.
    pub fn read(metadata: &view::ObjectMeta, spec: &Value) -> Result<Self, serde_json::Error> {
        let created = metadata.creation_timestamp.as_ref();
        Ok(Self {
            metadata: Metadata {
                name: NamespacedName {
                    namespace: metadata.namespace.clone().unwrap_or_default(),
                    name: metadata.name.clone().unwrap_or_default(),
                },
                created: created.map_or(0, |time| time.0.as_second()),
            },
            spec: Option::deserialize(spec)?.unwrap_or_default(),
        })
    }
}

/// `null` is what is absent.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayClassSpec {
    pub controller_name: String,
    /// Refused: there is nothing to set.
    pub parameters_ref: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshSpec {
    pub controller_name: String,
    /// Refused: there is nothing to set.
    pub parameters_ref: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewaySpec {
    pub gateway_class_name: String,
    #[serde(deserialize_with = "or_default")]
    pub listeners: Vec<Listener>,
    #[serde(deserialize_with = "or_default")]
    pub addresses: Vec<GatewayAddress>,
    pub infrastructure: Option<Infrastructure>,
    /// Whose ListenerSets may add to it; nobody's when not given.
    pub allowed_listeners: Option<AllowedListeners>,
    pub tls: Option<GatewayTls>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedListeners {
    pub namespaces: Option<RouteNamespaces>,
}

/// Listeners that somebody adds to a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ListenerSetSpec {
    pub parent_ref: ParentReference,
    #[serde(deserialize_with = "or_default")]
    pub listeners: Vec<Listener>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GatewayAddress {
    /// `IPAddress` when not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Any address when not given.
    pub value: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Infrastructure {
    /// Of what is made for the Gateway.
    #[serde(deserialize_with = "or_default")]
    pub labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// Refused: there is nothing to set.
    pub parameters_ref: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Listener {
    pub name: String,
    /// Every host when not given.
    pub hostname: Option<String>,
    pub port: u16,
    pub protocol: String,
    pub allowed_routes: Option<AllowedRoutes>,
    pub tls: Option<ListenerTls>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AllowedRoutes {
    pub namespaces: Option<RouteNamespaces>,
    /// Those of the protocol when none is given.
    #[serde(deserialize_with = "or_default")]
    pub kinds: Vec<RouteGroupKind>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteNamespaces {
    /// `All`, `Selector` or `Same`, which is what counts when not given.
    pub from: Option<String>,
    pub selector: Option<Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteGroupKind {
    /// [`GROUP`] when not given.
    pub group: Option<String>,
    pub kind: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteSpec {
    #[serde(deserialize_with = "or_default")]
    pub parent_refs: Vec<ParentReference>,
    /// Of gateways; services ignore them.
    #[serde(deserialize_with = "or_default")]
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<HttpRouteRule>,
}

/// Written into statuses as it was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ParentReference {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    pub name: String,
    /// A listener's name, or that of a Service's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRule {
    pub name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub matches: Vec<HttpRouteMatch>,
    #[serde(deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
    #[serde(deserialize_with = "or_default")]
    pub backend_refs: Vec<HttpBackendRef>,
    pub timeouts: Option<HttpRouteTimeouts>,
    pub retry: Option<HttpRouteRetry>,
    pub session_persistence: Option<SessionPersistence>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteRetry {
    /// Statuses that are tried again.
    #[serde(deserialize_with = "or_default")]
    pub codes: Vec<u16>,
    /// Further tries; what the data plane thinks right when not given.
    pub attempts: Option<u32>,
    pub backoff: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionPersistence {
    pub session_name: Option<String>,
    pub absolute_timeout: Option<String>,
    pub idle_timeout: Option<String>,
    /// `Cookie` when not given, or `Header`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub cookie_config: Option<CookieConfig>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CookieConfig {
    /// `Session` when not given, or `Permanent`.
    pub lifetime_type: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteMatch {
    pub path: Option<HttpPathMatch>,
    #[serde(deserialize_with = "or_default")]
    pub headers: Vec<NamedMatch>,
    #[serde(deserialize_with = "or_default")]
    pub query_params: Vec<NamedMatch>,
    pub method: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpPathMatch {
    /// `PathPrefix` when not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// `/` when not given.
    pub value: Option<String>,
}

/// A condition on a header or a query parameter.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamedMatch {
    /// `Exact` when not given.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteFilter {
    #[serde(rename = "type")]
    pub kind: String,
    pub request_header_modifier: Option<HeaderModifier>,
    pub response_header_modifier: Option<HeaderModifier>,
    pub request_redirect: Option<RequestRedirect>,
    pub url_rewrite: Option<UrlRewrite>,
    pub request_mirror: Option<RequestMirror>,
    pub cors: Option<CorsFilter>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestMirror {
    pub backend_ref: HttpBackendRef,
    pub percent: Option<u32>,
    pub fraction: Option<Fraction>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Fraction {
    pub numerator: u32,
    /// 100 when not given.
    pub denominator: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorsFilter {
    #[serde(deserialize_with = "or_default")]
    pub allow_origins: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub allow_credentials: bool,
    #[serde(deserialize_with = "or_default")]
    pub allow_methods: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub allow_headers: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub expose_headers: Vec<String>,
    /// Seconds; 5 when not given.
    pub max_age: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderModifier {
    #[serde(deserialize_with = "or_default")]
    pub set: Vec<HeaderLine>,
    #[serde(deserialize_with = "or_default")]
    pub add: Vec<HeaderLine>,
    #[serde(deserialize_with = "or_default")]
    pub remove: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HeaderLine {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestRedirect {
    pub scheme: Option<String>,
    pub hostname: Option<String>,
    pub port: Option<u16>,
    pub path: Option<PathModifier>,
    pub status_code: Option<u16>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct UrlRewrite {
    pub hostname: Option<String>,
    pub path: Option<PathModifier>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PathModifier {
    #[serde(rename = "type")]
    pub kind: String,
    pub replace_full_path: Option<String>,
    pub replace_prefix_match: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpBackendRef {
    pub group: Option<String>,
    pub kind: Option<String>,
    pub namespace: Option<String>,
    pub name: String,
    pub port: Option<u16>,
    /// 1 when not given.
    pub weight: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct HttpRouteTimeouts {
    pub request: Option<String>,
    pub backend_request: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReferenceGrantSpec {
    #[serde(deserialize_with = "or_default")]
    pub from: Vec<GrantFrom>,
    #[serde(deserialize_with = "or_default")]
    pub to: Vec<GrantTo>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantFrom {
    pub group: String,
    pub kind: String,
    pub namespace: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    pub group: String,
    pub kind: String,
    /// Every object of the kind when not given.
    pub name: Option<String>,
}

/// What routes need to know of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Service {
    /// Name and number, in the order of the spec.
    pub ports: Vec<(Option<String>, u16)>,
    /// Number and `protocol` of each.
    pub protocols: Vec<(u16, String)>,
    /// `appProtocol` by number, where it is given.
    pub app_protocols: BTreeMap<u16, String>,
    /// It has no address of its own: who calls it, calls its pods.
    pub is_headless: bool,
    /// Where it points to, if it is of type ExternalName.
    pub external_name: Option<String>,
    /// Addresses that it has outside of the cluster.
    pub outside: Vec<IpAddr>,
}

impl Service {
    /// The port of this number, if there is one.
    #[must_use]
    pub fn has_port(&self, number: u16) -> bool {
        self.ports.iter().any(|(_, known)| *known == number)
    }

    /// Whether there is a port of this number for `protocol`: `TCP` or `UDP`.
    #[must_use]
    pub fn speaks(&self, number: u16, protocol: &str) -> bool {
        let mut protocols = self.protocols.iter();
        protocols.any(|(known, spoken)| *known == number && spoken == protocol)
    }

    /// The name of the port of this number.
    #[must_use]
    pub fn port_name(&self, number: u16) -> Option<&str> {
        let mut ports = self.ports.iter();
        let (name, _) = ports.find(|(_, known)| *known == number)?;
        name.as_deref()
    }

    /// `80, 443`, or `none`.
    #[must_use]
    pub fn shown_ports(&self) -> String {
        let ports = self.ports.iter().map(|(_, number)| number.to_string());
        let ports: Vec<String> = ports.collect();
        match ports.is_empty() {
            true => "none".to_owned(),
            false => ports.join(", "),
        }
    }
}

impl From<&view::Service> for Service {
    fn from(service: &view::Service) -> Self {
        let Some(spec) = &service.spec else {
            return Self::default();
        };
        let ports = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok().filter(|port| *port > 0)?;
            Some((port.name.clone(), number))
        });
        let protocols = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            Some((number, protocol.to_owned()))
        });
        let app_protocols = spec.ports.iter().flatten().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            Some((number, port.app_protocol.clone()?))
        });
        let status = service.status.as_ref();
        let balancer = status.and_then(|status| status.load_balancer.as_ref());
        let ingress = balancer
            .into_iter()
            .flat_map(|told| told.ingress.iter().flatten());
        let outside = ingress.filter_map(|told| told.ip.as_ref()?.parse().ok());
        let is_external = spec.type_.as_deref() == Some("ExternalName");
        let class = spec.load_balancer_class.as_deref();
        let stands_for_gateway = class == Some(weft_api::annotation::GATEWAY_SERVICE_CLASS);
        Self {
            ports: ports.collect(),
            protocols: protocols.collect(),
            app_protocols: app_protocols.collect(),
            // What stands for a Gateway takes no address from it.
            outside: outside.filter(|_| !stands_for_gateway).collect(),
            is_headless: spec.cluster_ip.as_deref() == Some("None"),
            external_name: is_external.then(|| spec.external_name.clone().unwrap_or_default()),
        }
    }
}

/// What routes need to know of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its address, while it is ready.
    pub ready_address: Option<String>,
    /// Where it listens for requests from outside, if it says so.
    pub gateway_port: Option<u16>,
    /// Ranges of addresses beside its own that it can answer at, of which each Gateway has one.
    pub ranges: Vec<IpNet>,
}

impl Node {
    /// `annotations` are those of the object that has this status.
    #[must_use]
    pub fn read(status: Option<&view::NodeStatus>, annotations: &BTreeMap<String, String>) -> Self {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        let is_ready = conditions.any(|c| c.type_ == "Ready" && c.status == "True");
        let addresses = status.and_then(|status| status.addresses.as_ref());
        let mut addresses = addresses.into_iter().flatten();
        let internal = addresses.find(|address| address.type_ == "InternalIP");
        let port = annotations.get(weft_api::annotation::GATEWAY_PORT);
        let ranges = annotations.get(weft_api::annotation::SERVICE_ADDRESSES);
        let ranges = ranges.iter().flat_map(|ranges| ranges.split(','));
        Self {
            ready_address: internal
                .filter(|_| is_ready)
                .map(|internal| internal.address.clone()),
            gateway_port: port.and_then(|port| port.parse().ok()),
            ranges: ranges
                .filter_map(|range| range.trim().parse().ok())
                .collect(),
        }
    }
}
