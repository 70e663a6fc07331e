//! MeshPolicies and FaultInjections, as they are written: kinds of weft's own, and so all of their fields.

use serde::Deserialize;

use super::{PolicyTarget, or_default};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MeshPolicySpec {
    /// Every Service of the namespace when none is given.
    #[serde(deserialize_with = "or_default")]
    pub target_refs: Vec<PolicyTarget>,
    pub timeouts: Option<Timeouts>,
    pub retry: Option<RetryPolicy>,
    pub circuit_breaker: Option<CircuitBreaker>,
    pub concurrency: Option<ConcurrencyPolicy>,
    /// Of this policy where it has any.
    #[serde(deserialize_with = "or_default")]
    pub rate_limits: Vec<RateLimitPolicy>,
    pub hedging: Option<Hedging>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Timeouts {
    pub request: Option<String>,
    pub attempt: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RetryPolicy {
    pub attempts: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub status_codes: Vec<u16>,
    /// Names of gRPC's statuses.
    #[serde(deserialize_with = "or_default")]
    pub grpc_codes: Vec<String>,
    pub backoff: Option<String>,
    pub budget: Option<BudgetPolicy>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BudgetPolicy {
    pub percent: Option<u32>,
    pub interval: Option<String>,
    pub min_per_second: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CircuitBreaker {
    pub consecutive_failures: Option<u32>,
    pub success_percent: Option<u32>,
    pub min_requests: Option<u32>,
    pub interval: Option<String>,
    pub ejection: Option<String>,
    pub max_ejection: Option<String>,
    pub max_ejected_percent: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConcurrencyPolicy {
    pub min: Option<u32>,
    pub max: Option<u32>,
    pub queue: Option<u32>,
    #[serde(deserialize_with = "or_default")]
    pub critical_callers: Vec<CallerRef>,
}

/// A ServiceAccount; of the object's own namespace when none is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CallerRef {
    pub namespace: Option<String>,
    pub service_account_name: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimitPolicy {
    /// `ServiceAccount`, `Namespace` or `Everyone`.
    pub by: Option<String>,
    /// `Node` or `Cluster`.
    pub across: Option<String>,
    pub requests: u32,
    pub per: Option<String>,
    pub burst: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hedging {
    pub after: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultInjectionSpec {
    #[serde(deserialize_with = "or_default")]
    pub target_refs: Vec<PolicyTarget>,
    /// Since the object was made.
    pub duration: String,
    #[serde(deserialize_with = "or_default")]
    pub callers: Vec<CallerRef>,
    #[serde(deserialize_with = "or_default")]
    pub headers: Vec<FaultHeader>,
    pub delay: Option<DelayFault>,
    pub abort: Option<AbortFault>,
}

/// What a line of a request says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FaultHeader {
    pub name: String,
    pub value: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DelayFault {
    pub duration: String,
    pub percent: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AbortFault {
    pub http_status: u16,
    pub percent: Option<u32>,
}
