//! What pods use, and what is counted of calls, as it was read a moment ago: handed in with the time, so that what is decided on it stays a function.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
pub use weft_call::counted::Counted;
use weft_kinds::autoscaling::calls::CallFigures;

use crate::metadata::Key;

/// What was read, by the pod. A pod that nothing was read of is not in it.
pub type Usage = BTreeMap<Key, PodUsage>;

/// What one pod used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodUsage {
    /// The end of the time it is about.
    pub at: Timestamp,
    pub window: Duration,
    /// By the name of the container.
    pub containers: BTreeMap<String, ContainerUsage>,
}

/// What one container used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Thousand-millionths of a core, over the window.
    pub nano_cores: u64,
    /// At its end.
    pub memory_bytes: u64,
}

/// What the mesh counted of calls.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of those that the mesh leads to.
    pub pods: BTreeMap<Key, CallRate>,
    /// Those that were called.
    pub services: BTreeMap<Key, CallRate>,
    /// What is known of every other Service: when it was not called. `None`: nothing could be read.
    pub of_others: Option<CallRate>,
    /// All that was counted of Services since they were first seen to be called.
    pub totals: BTreeMap<Key, Counted>,
    /// When that was read. `None`: it never was.
    pub read: Option<Timestamp>,
}

/// What was counted of one pod or Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallRate {
    /// The end of the time it is about.
    pub at: Timestamp,
    pub window: Duration,
    pub figures: CallFigures,
}
