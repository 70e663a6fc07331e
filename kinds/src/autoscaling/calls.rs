//! What the mesh counts of calls, as metrics that autoscalers go by and clients read: names, and values in thousandths.
//!
//! | metric | of a pod: what reached it | of a Service: what it was called for |
//! | --- | --- | --- |
//! | `requests-per-second` | calls that began | the same, those that found nobody included |
//! | `requests-in-flight` | calls at once, on average | the same, from the first layer of the caller's mesh to the end of the response |
//! | `request-latency-p95-milliseconds` | until the head of the response | the same, as callers saw it: with waits and further tries |
//!
//! All of the time between the last two looks at a node, ten seconds or so.

/// The group that clients read them in.
pub const GROUP: &str = "custom.metrics.k8s.io";
pub const VERSION: &str = "v1beta2";

/// One of the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallMetric {
    RequestsPerSecond,
    RequestsInFlight,
    LatencyP95,
}

impl CallMetric {
    pub const ALL: [Self; 3] = [
        Self::RequestsPerSecond,
        Self::RequestsInFlight,
        Self::LatencyP95,
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RequestsPerSecond => "requests-per-second",
            Self::RequestsInFlight => "requests-in-flight",
            Self::LatencyP95 => "request-latency-p95-milliseconds",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|metric| metric.name() == name)
    }
}

/// Values of all of them, for one pod or Service, in thousandths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallFigures {
    pub requests_per_second: i64,
    pub requests_in_flight: i64,
    /// Thousandths of a millisecond.
    pub latency_p95_milliseconds: i64,
}

impl CallFigures {
    /// The value of one.
    #[must_use]
    pub fn of(&self, metric: CallMetric) -> i64 {
        match metric {
            CallMetric::RequestsPerSecond => self.requests_per_second,
            CallMetric::RequestsInFlight => self.requests_in_flight,
            CallMetric::LatencyP95 => self.latency_p95_milliseconds,
        }
    }
}
