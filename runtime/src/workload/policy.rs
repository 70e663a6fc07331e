//! How long instances live.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::artifact::Wasi;

/// How long instances live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InstancePolicy {
    /// A fresh instance for every call. Nothing is left behind between calls.
    PerRequest,
    /// Instances are kept for further calls.
    Pooled {
        /// Calls that one instance handles before it ends.
        max_requests: u32,
        /// Calls that one instance handles at the same time. Components of WASI 0.2 handle one.
        max_concurrent: u32,
        /// How long an instance waits for the next call.
        idle: Duration,
    },
}

impl InstancePolicy {
    /// What suits a generation of WASI when nothing else was asked for; `wasmtime serve` chose the same.
    pub fn default_for(wasi: Wasi) -> InstancePolicy {
        match wasi {
            Wasi::P2 => InstancePolicy::PerRequest,
            Wasi::P3 => InstancePolicy::Pooled {
                max_requests: 128,
                max_concurrent: 16,
                idle: Duration::from_secs(1),
            },
        }
    }

    pub(super) fn for_wasi(self, wasi: Wasi) -> InstancePolicy {
        match (self, wasi) {
            (
                InstancePolicy::Pooled {
                    max_requests: 0 | 1,
                    ..
                },
                _,
            ) => InstancePolicy::PerRequest,
            (
                InstancePolicy::Pooled {
                    max_requests, idle, ..
                },
                Wasi::P2,
            ) => InstancePolicy::Pooled {
                max_requests,
                max_concurrent: 1,
                idle,
            },
            (
                InstancePolicy::Pooled {
                    max_requests,
                    max_concurrent,
                    idle,
                },
                Wasi::P3,
            ) => InstancePolicy::Pooled {
                max_requests,
                max_concurrent: max_concurrent.max(1),
                idle,
            },
            (InstancePolicy::PerRequest, _) => InstancePolicy::PerRequest,
        }
    }

    pub(crate) fn requests_max(self) -> u32 {
        match self {
            InstancePolicy::PerRequest => 1,
            InstancePolicy::Pooled { max_requests, .. } => max_requests,
        }
    }

    pub(crate) fn concurrent_max(self) -> usize {
        match self {
            InstancePolicy::PerRequest => 1,
            InstancePolicy::Pooled { max_concurrent, .. } => max_concurrent as usize,
        }
    }

    pub(crate) fn idle(self) -> Duration {
        match self {
            InstancePolicy::PerRequest => Duration::ZERO,
            InstancePolicy::Pooled { idle, .. } => idle,
        }
    }
}
