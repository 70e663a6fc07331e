//! TLSRoutes, TCPRoutes and UDPRoutes, typed: where they are attached, for which names, and to which backends they lead.

use serde::Deserialize;

use super::{HttpBackendRef, ParentReference, or_default};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRouteSpec {
    #[serde(deserialize_with = "or_default")]
    pub parent_refs: Vec<ParentReference>,
    /// Of TLSRoutes: the names that clients ask for.
    #[serde(deserialize_with = "or_default")]
    pub hostnames: Vec<String>,
    /// One, as the API has it; of more the first counts.
    #[serde(deserialize_with = "or_default")]
    pub rules: Vec<StreamRouteRule>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StreamRouteRule {
    #[serde(deserialize_with = "or_default")]
    pub backend_refs: Vec<HttpBackendRef>,
}
