//! What the statuses of Gateway API objects say, in the standard's words, as values.
//!
//! Left to others: `observedGeneration`, transition times, and the entries of other controllers, which whoever writes a status
//! adds and keeps (`weft_controllers`).

use crate::api::{ParentReference, RouteGroupKind};
use crate::name::NamespacedName;

/// A condition as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// `type`: `Accepted`, `Programmed`, `ResolvedRefs`, `Conflicted` or `PartiallyInvalid`.
    pub kind: &'static str,
    pub holds: bool,
    /// CamelCase; of those that the Gateway API lists wherever one of them fits.
    pub reason: &'static str,
    /// Whole sentences.
    pub message: String,
}

impl Condition {
    /// `type` with status `True`.
    pub fn holds(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            holds: true,
            reason,
            message: message.into(),
        }
    }

    /// `type` with status `False`.
    pub fn fails(kind: &'static str, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            holds: false,
            ..Self::holds(kind, reason, message)
        }
    }
}

/// Why something is not done: reason and message of a condition that fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn fails(&self, kind: &'static str) -> Condition {
        Condition::fails(kind, self.reason, self.message.clone())
    }
}

/// Status of a Gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GatewayStatus {
    /// IP addresses, at most 16, which is the API's limit.
    pub addresses: Vec<String>,
    /// They are nobody else's, and its listeners are at their ports there.
    pub is_apart: bool,
    pub conditions: Vec<Condition>,
    /// In the order of the spec.
    pub listeners: Vec<ListenerStatus>,
    /// ListenerSets that are accepted.
    pub attached_sets: usize,
}

/// Status of a ListenerSet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerSetStatus {
    pub conditions: Vec<Condition>,
    /// In the order of the spec.
    pub listeners: Vec<ListenerStatus>,
}

/// What became of a policy at one Gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AncestorStatus {
    pub gateway: NamespacedName,
    pub conditions: Vec<Condition>,
}

/// Status of a listener.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListenerStatus {
    pub name: String,
    pub supported_kinds: Vec<RouteGroupKind>,
    pub attached_routes: usize,
    pub conditions: Vec<Condition>,
}

/// Status of a route: one entry for each parent that is ours, in the order of the spec.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RouteStatus {
    pub parents: Vec<ParentStatus>,
    /// Gateways that the route names and that are not there. The status may not say so, as nobody knows whose they would be.
    pub missing: Vec<NamespacedName>,
}

/// What became of a route at one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentStatus {
    pub parent: ParentReference,
    pub conditions: Vec<Condition>,
}
