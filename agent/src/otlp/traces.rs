//! Calls as spans.
//!
//! ```text
//! client   of who calls: the call, with an event for each try that came to nothing, and for what was done to it on purpose
//! ├─ client   try 2, 3, …: each that was made again
//! └─ server   of who serves, below the try that reached it
//! ```
//! Names of attributes are those of the semantic conventions for HTTP and gRPC where these have one.
//! Source: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_mesh::{Reporter, Sighting, TraceContext, WorkloadInfo};

use super::wire::Message;
use super::{Encoded, nanos, nanos_of};

const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;

/// All calls as one request of the protocol. What is said of a workload comes before what is said of all.
pub(super) fn encode(calls: &[Arc<Sighting>], resource: &[(String, String)]) -> Encoded {
    let mut by_workload: BTreeMap<&WorkloadInfo, Vec<&Sighting>> = BTreeMap::new();
    for call in calls {
        by_workload.entry(own(call)).or_default().push(call);
    }
    let mut spans = 0;
    let mut request = Message::default();
    for (workload, calls) in by_workload {
        request.message(1, |message| {
            message.resource(&of_workload(workload), resource);
            message.message(2, |scope| {
                scope.scope();
                for call in calls {
                    spans += write(scope, call);
                }
            });
        });
    }
    (spans, request.into_bytes())
}

/// The workload that an end of a call is.
pub(super) fn own(call: &Sighting) -> &WorkloadInfo {
    match call.reporter() {
        Reporter::Source => call.source(),
        Reporter::Destination => call.destination(),
    }
}

pub(super) fn of_workload(workload: &WorkloadInfo) -> [(&'static str, &str); 5] {
    [
        ("service.name", &workload.canonical_service),
        ("service.namespace", &workload.namespace),
        ("service.version", &workload.version),
        ("k8s.namespace.name", &workload.namespace),
        ("weft.workload.name", &workload.name),
    ]
}

/// Writes the spans of one end of a call, and says how many.
fn write(scope: &mut Message, call: &Sighting) -> u64 {
    let Some((context, parent)) = call.span() else {
        return 0;
    };
    let is_server = call.reporter() == Reporter::Destination;
    let began = nanos(call.began);
    let ended = began.saturating_add(nanos_of(call.took));
    let (namespace, service) = call.service();
    let name = match (call.protocol(), service) {
        ("tcp", "") => "connect".to_owned(),
        ("tcp", service) => format!("connect {service}.{namespace}"),
        (_, "") => call.method().to_owned(),
        (_, service) => format!("{} {service}.{namespace}", call.method()),
    };
    let kind = if is_server { SERVER } else { CLIENT };
    scope.message(2, |span| {
        head(span, &context, parent, &name, kind, (began, ended));
        attributes(span, call);
        if !is_server {
            if let Some(spoiled) = call.spoiled() {
                span.message(11, |event| {
                    event.fixed64(1, began);
                    event.text(2, "fault");
                    if let Some(delay) = spoiled.delay {
                        let millis = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                        event.attribute_number(3, "weft.fault.delay_ms", millis);
                    }
                    if let Some(status) = spoiled.abort {
                        event.attribute_number(3, "weft.fault.abort_status", status.into());
                    }
                });
            }
            for (number, retried) in (1_u64..).zip(call.retries()) {
                span.message(11, |event| {
                    event.fixed64(1, began.saturating_add(nanos_of(retried.after)));
                    event.text(2, "retry");
                    event.attribute(3, "weft.retry.reason", retried.reason);
                    event.attribute(3, "network.peer.address", &retried.address.to_string());
                    event.attribute_number(3, "http.request.resend_count", number);
                });
            }
        }
        if failed(call, is_server) {
            span.message(15, |status| {
                if call.flag != "-" {
                    status.text(2, call.flag);
                }
                status.number(3, STATUS_ERROR);
            });
        }
        span.fixed32(16, u32::from(context.flags));
    });
    let mut spans = 1;
    if is_server {
        return spans;
    }
    // A try begins when the one before it was over.
    let over = call.retries().iter().map(|retried| retried.after);
    let ends = over.clone().skip(1).chain([call.took]);
    for (number, (from, to)) in (1_u32..).zip(over.zip(ends)) {
        let at = |after| began.saturating_add(nanos_of(after));
        scope.message(2, |span| {
            let tried = context.of_try(number);
            let name = format!("{name} again");
            let parent = Some(context.span_id);
            head(span, &tried, parent, &name, CLIENT, (at(from), at(to)));
            span.attribute_number(9, "http.request.resend_count", number.into());
            span.fixed32(16, u32::from(tried.flags));
        });
        spans += 1;
    }
    spans
}

fn head(
    span: &mut Message,
    context: &TraceContext,
    parent: Option<u64>,
    name: &str,
    kind: u64,
    (began, ended): (u64, u64),
) {
    span.bytes(1, &context.trace_id.to_be_bytes());
    span.bytes(2, &context.span_id.to_be_bytes());
    let state = context.state.as_ref().and_then(|state| state.to_str().ok());
    if let Some(state) = state {
        span.text(3, state);
    }
    if let Some(parent) = parent {
        span.bytes(4, &parent.to_be_bytes());
    }
    span.text(5, name);
    span.number(6, kind);
    span.fixed64(7, began);
    span.fixed64(8, ended);
}

pub(super) fn failed(call: &Sighting, is_server: bool) -> bool {
    match call.grpc {
        Some(0) => false,
        // What gRPC's conventions call an error of a server; a client's is any.
        Some(status) => !is_server || matches!(status, 2 | 4 | 12 | 13 | 14 | 15),
        None if is_server => call.code >= 500 || call.code == 0,
        None => call.code >= 400 || call.code == 0,
    }
}

fn attributes(span: &mut Message, call: &Sighting) {
    let (source, destination) = (call.source(), call.destination());
    let (of_source, of_destination) = call.principals();
    let mut text = |name: &str, value: &str| {
        if !value.is_empty() {
            span.attribute(9, name, value);
        }
    };
    if call.protocol() != "tcp" {
        text("http.request.method", call.method());
        text("url.path", call.path());
    }
    text("server.address", call.authority());
    text("weft.source.workload", &source.name);
    text("weft.source.namespace", &source.namespace);
    text("weft.source.principal", of_source);
    text("weft.destination.workload", &destination.name);
    text("weft.destination.namespace", &destination.namespace);
    text("weft.destination.principal", of_destination);
    text("weft.connection_security_policy", call.security());
    if call.flag != "-" {
        text("weft.response_flags", call.flag);
    }
    for (name, value) in call.attributes() {
        // Whatever a workload calls it, it is nothing that the host says.
        text(&format!("app.{name}"), value);
    }
    if call.code != 0 && call.protocol() != "tcp" {
        span.attribute_number(9, "http.response.status_code", call.code.into());
    }
    if let Some(status) = call.grpc {
        span.attribute(9, "rpc.system", "grpc");
        span.attribute_number(9, "rpc.grpc.status_code", status.into());
    }
    span.attribute_number(9, "http.request.body.size", call.request_bytes);
    span.attribute_number(9, "http.response.body.size", call.response_bytes);
}
