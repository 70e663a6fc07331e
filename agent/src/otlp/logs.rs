//! Calls as records of a log: the line that taps have of each, with the trace that it belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_mesh::{Reporter, Sighting, WorkloadInfo};

use super::traces::{failed, of_workload, own};
use super::wire::Message;
use super::{Encoded, nanos};
use crate::tap::Line;

const INFO: u64 = 9;
const ERROR: u64 = 17;

/// All calls as one request of the protocol.
pub(super) fn encode(
    calls: &[Arc<Sighting>],
    node: &str,
    resource: &[(String, String)],
) -> Encoded {
    let mut by_workload: BTreeMap<&WorkloadInfo, Vec<&Sighting>> = BTreeMap::new();
    for call in calls {
        by_workload.entry(own(call)).or_default().push(call);
    }
    let mut request = Message::default();
    for (workload, calls) in by_workload {
        request.message(1, |message| {
            message.resource(&of_workload(workload), resource);
            message.message(2, |scope| {
                scope.scope();
                for call in calls {
                    scope.message(2, |record| write(record, call, node));
                }
            });
        });
    }
    (calls.len() as u64, request.into_bytes())
}

fn write(record: &mut Message, call: &Sighting, node: &str) {
    let is_failed = failed(call, call.reporter() == Reporter::Destination);
    let (severity, text) = if is_failed {
        (ERROR, "ERROR")
    } else {
        (INFO, "INFO")
    };
    record.fixed64(1, nanos(call.began));
    record.number(2, severity);
    record.text(3, text);
    let line = Line::of(call, node).to_json();
    record.message(5, |any| any.text(1, &line));
    record.attribute(6, "event.name", "weft.access");
    if let Some((span, _)) = call.span() {
        record.fixed32(8, u32::from(span.flags));
        record.bytes(9, &span.trace_id.to_be_bytes());
        record.bytes(10, &span.span_id.to_be_bytes());
    }
    record.fixed64(11, nanos(call.began + call.took));
}
