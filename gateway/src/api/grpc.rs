//! GRPCRoutes, typed. What they share with HTTPRoutes is written as there.

use serde::Deserialize;

use super::{
    HttpBackendRef, HttpRouteFilter, NamedMatch, ParentReference, SessionPersistence, or_default,
};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteSpec {
    #[serde(deserialize_with = "or_default")]
    pub parent_refs: Vec<ParentReference>,
    #[serde(deserialize_with = "or_default")]
    pub hostnames: Vec<String>,
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<GrpcRouteRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteRule {
    pub name: Option<String>,
    #[serde(deserialize_with = "or_default")]
    pub matches: Vec<GrpcRouteMatch>,
    #[serde(deserialize_with = "or_default")]
    pub filters: Vec<HttpRouteFilter>,
    #[serde(deserialize_with = "or_default")]
    pub backend_refs: Vec<HttpBackendRef>,
    pub session_persistence: Option<SessionPersistence>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcRouteMatch {
    pub method: Option<GrpcMethodMatch>,
    #[serde(deserialize_with = "or_default")]
    pub headers: Vec<NamedMatch>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrpcMethodMatch {
    /// `Exact` when not given, or `RegularExpression`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Any when not given.
    pub service: Option<String>,
    /// Any when not given.
    pub method: Option<String>,
}
