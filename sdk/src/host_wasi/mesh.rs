//! `weft:mesh` of the host.

use std::time::Duration;

use crate::mesh::{Options, Origin, Peer, Priority, Refusal, Transport};

mod bindings {
    wit_bindgen::generate!({
        path: "../wit/mesh",
        world: "weft:mesh/imports",
    });
}
use bindings::weft::mesh::{context as mesh_context, metrics, outgoing, serving};

pub fn caller() -> Option<Peer> {
    mesh_context::caller().map(|peer| Peer {
        spiffe_id: peer.spiffe_id,
        namespace: peer.namespace,
        service_account: peer.service_account,
        workload: peer.workload,
        transport: match peer.transport {
            mesh_context::Transport::InProcess => Transport::InProcess,
            mesh_context::Transport::MutualTls => Transport::MutualTls,
        },
    })
}

pub fn origin() -> Option<Origin> {
    mesh_context::call_origin().map(|origin| match origin {
        mesh_context::Origin::Workload => Origin::Workload,
        mesh_context::Origin::Gateway => Origin::Gateway,
        mesh_context::Origin::Host => Origin::Host,
    })
}

pub fn priority() -> Priority {
    match mesh_context::call_priority() {
        mesh_context::Priority::Critical => Priority::Critical,
        mesh_context::Priority::Usual => Priority::Usual,
        mesh_context::Priority::Low => Priority::Low,
        mesh_context::Priority::Sheddable => Priority::Sheddable,
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Asks for it for the next request.
pub fn ask(options: &Options) {
    if options.idempotent {
        outgoing::idempotent();
    }
    if options.no_retry {
        outgoing::no_retry();
    }
    if let Some(wait) = options.hedge_after {
        outgoing::hedge_after(nanos(wait));
    }
    if let Some(limit) = options.within {
        outgoing::within(nanos(limit));
    }
    if let Some(priority) = options.at_most {
        outgoing::at_most(match priority {
            Priority::Critical => mesh_context::Priority::Critical,
            Priority::Usual => mesh_context::Priority::Usual,
            Priority::Low => mesh_context::Priority::Low,
            Priority::Sheddable => mesh_context::Priority::Sheddable,
        });
    }
    if let Some(key) = &options.key {
        outgoing::hash_key(key);
    }
}

pub fn rest(time: Duration) {
    serving::rest(nanos(time));
}

pub fn no_retry() {
    serving::no_retry();
}

pub fn attribute(name: &str, value: &str) -> Result<(), Refusal> {
    serving::set_attribute(name, value).map_err(refusal)
}

fn refusal(refusal: serving::Refusal) -> Refusal {
    match refusal {
        serving::Refusal::Name => Refusal::Name,
        serving::Refusal::TooLong => Refusal::TooLong,
        serving::Refusal::TooMany => Refusal::TooMany,
        serving::Refusal::OtherSort => Refusal::OtherSort,
        serving::Refusal::Value => Refusal::Value,
    }
}

fn owned(labels: &[(&str, &str)]) -> Vec<(String, String)> {
    let labels = labels.iter();
    labels
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

pub fn metric_add(name: &str, labels: &[(&str, &str)], more: f64) -> Result<(), Refusal> {
    metrics::add(name, &owned(labels), more).map_err(refusal)
}

pub fn metric_set(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    metrics::set(name, &owned(labels), value).map_err(refusal)
}

pub fn metric_observe(name: &str, labels: &[(&str, &str)], value: f64) -> Result<(), Refusal> {
    metrics::observe(name, &owned(labels), value).map_err(refusal)
}

pub fn remaining() -> Option<Duration> {
    mesh_context::remaining().map(Duration::from_nanos)
}

pub fn port() -> Option<u16> {
    mesh_context::port()
}

pub fn attempt() -> u32 {
    mesh_context::attempt()
}

pub fn trace_id() -> Option<String> {
    mesh_context::trace_id()
}
