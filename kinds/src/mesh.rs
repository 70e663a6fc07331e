//! What a mesh tells of its calls, as kinds that are made while they are read: the edges between workloads, and calls one by one.

use std::sync::Arc;

use crate::{Kind, Served};

/// The group that clients read them in.
pub const GROUP: &str = "mesh.weft.dev";
pub const VERSION: &str = "v1";
/// Who calls whom, and how that goes.
pub const EDGES: &str = "edges";
/// Calls as they end. They can be watched, and there is no list of them.
pub const TAP: &str = "tap";

/// All that changes of both, and of what is used, a frame each second. They can be watched, and there is no list of them.
pub const FRAMES: &str = "frames";

/// A sample of calls that failed or were slow, with all that came of them.
pub const TRACES: &str = "traces";

pub(crate) fn kinds() -> Vec<Arc<Kind>> {
    let told = |kind, resource, singular: &'static str, served| {
        Arc::new(Kind {
            namespaced: true,
            served,
            singular: singular.into(),
            ..Kind::new(GROUP, VERSION, kind, resource)
        })
    };
    vec![
        told("Edge", EDGES, "edge", Served::Watched),
        told("Frame", FRAMES, "frame", Served::Streamed),
        told("Call", TAP, "call", Served::Streamed),
        told("Trace", TRACES, "trace", Served::Watched),
    ]
}
