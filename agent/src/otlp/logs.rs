//! Records of a log: of calls the line that taps have of each, of containers what they print; with the span that either belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_mesh::{Reporter, Sighting, TraceContext, WorkloadInfo};

use super::lines::{self, Container};
use super::traces::{failed, of_workload, own};
use super::wire::Message;
use super::{Encoded, nanos};
use crate::logs::Stream;
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
        of_span(record, &span);
    }
    record.fixed64(11, nanos(call.began + call.took));
}

fn of_span(record: &mut Message, span: &TraceContext) {
    record.fixed32(8, u32::from(span.flags));
    record.bytes(9, &span.trace_id.to_be_bytes());
    record.bytes(10, &span.span_id.to_be_bytes());
}

/// Text of lines in one message, where receivers of gRPC take four megabytes, and a line is 16 KiB at most.
const TEXT_BYTES_MAX: usize = 2 << 20;

/// All lines as requests of the protocol.
pub(super) fn encode_lines(lines: &[lines::Line], resource: &[(String, String)]) -> Vec<Encoded> {
    let mut messages = Vec::new();
    let mut rest = lines;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|line| {
            bytes += line.text.len();
            bytes <= TEXT_BYTES_MAX
        });
        let (part, more) = rest.split_at(fits.count().max(1));
        messages.push(encode_part(part, resource));
        rest = more;
    }
    messages
}

fn encode_part(lines: &[lines::Line], resource: &[(String, String)]) -> Encoded {
    let mut by_container: BTreeMap<*const Container, Vec<&lines::Line>> = BTreeMap::new();
    for line in lines {
        by_container
            .entry(Arc::as_ptr(&line.container))
            .or_default()
            .push(line);
    }
    let mut request = Message::default();
    for lines in by_container.values() {
        let Some(container) = lines.first().map(|line| &line.container) else {
            continue;
        };
        let restart = container.restart.to_string();
        let mut own = of_workload(&container.workload).to_vec();
        own.extend([
            ("k8s.pod.name", container.pod.as_str()),
            ("k8s.pod.uid", &container.uid),
            ("k8s.container.name", &container.name),
            ("k8s.container.restart_count", &restart),
        ]);
        request.message(1, |message| {
            message.resource(&own, resource);
            message.message(2, |scope| {
                scope.scope();
                for line in lines {
                    scope.message(2, |record| write_line(record, line));
                }
            });
        });
    }
    (lines.len() as u64, request.into_bytes())
}

fn write_line(record: &mut Message, line: &lines::Line) {
    let at = nanos(line.at);
    record.fixed64(1, at);
    record.message(5, |any| any.text(1, &line.text));
    let stream = match line.stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    record.attribute(6, "log.iostream", stream);
    if let Some(span) = &line.trace {
        of_span(record, span);
    }
    record.fixed64(11, at);
}
