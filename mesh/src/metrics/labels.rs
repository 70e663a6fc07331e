//! Labels of an edge's series, under Istio's names and in its order.
//!
//! Invariants: each value comes from objects of the cluster or from this crate, never from what a client sends; those that are not known say
//! `unknown`, as Istio's do. Source: <https://istio.io/latest/docs/reference/config/metrics/#labels>.

use super::{EdgeKey, Outcome, Reporter};

fn known(value: &str) -> &str {
    if value.is_empty() { "unknown" } else { value }
}

/// Tells the labels of calls that ended so, one by one; of connections that began, how they end is not known.
pub(super) fn each(edge: &EdgeKey, outcome: Option<&Outcome>, mut label: impl FnMut(&str, &str)) {
    let reporter = match edge.reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
    };
    label("reporter", reporter);
    let (of_source, of_destination) = (&edge.source, &edge.destination);
    for (name, value) in [
        ("source_workload", of_source.name.as_str()),
        ("source_workload_namespace", &of_source.namespace),
        ("source_principal", &edge.source_principal),
        ("source_app", &of_source.app),
        ("source_version", &of_source.version),
        ("source_cluster", "Kubernetes"),
        ("source_canonical_service", &of_source.canonical_service),
        ("source_canonical_revision", &of_source.canonical_revision),
        ("destination_workload", &of_destination.name),
        ("destination_workload_namespace", &of_destination.namespace),
        ("destination_principal", &edge.destination_principal),
        ("destination_app", &of_destination.app),
        ("destination_version", &of_destination.version),
        ("destination_cluster", "Kubernetes"),
        (
            "destination_canonical_service",
            &of_destination.canonical_service,
        ),
        (
            "destination_canonical_revision",
            &of_destination.canonical_revision,
        ),
    ] {
        label(name, known(value));
    }
    let (name, namespace) = (edge.service.name.as_str(), &edge.service.namespace);
    let full_name = match namespace.as_str() {
        _ if name.is_empty() => String::new(),
        "" => name.to_owned(),
        namespace => format!("{name}.{namespace}.svc.cluster.local"),
    };
    for (name, value) in [
        ("destination_service", full_name.as_str()),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("connection_security_policy", edge.security()),
        ("request_protocol", outcome.map_or("tcp", Outcome::protocol)),
    ] {
        label(name, known(value));
    }
    match outcome {
        None => {}
        Some(Outcome {
            tcp: true, flag, ..
        }) => label("response_flags", flag),
        Some(outcome) => {
            label("response_code", &outcome.code.to_string());
            let status = outcome.grpc.map(|status| status.to_string());
            label("grpc_response_status", &status.unwrap_or_default());
            label("response_flags", outcome.flag);
        }
    }
}
