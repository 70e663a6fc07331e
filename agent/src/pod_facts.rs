//! What policies look at of a pod: its labels, and which of its ports have names. Pure.

use weft_mesh::{NamedPort, Pod, PolicyProtocol};

use crate::host_ports;
use crate::pod_view::PodView;
use crate::wanted::Role;

/// A pod as it is now.
pub(crate) fn of(pod: PodView<'_>) -> Pod {
    let labels = pod.0.metadata.labels.as_ref();
    let containers = pod.containers();
    let lasting = containers
        .iter()
        .filter(|(_, role)| matches!(role, Role::Main | Role::Sidecar));
    let ports = lasting.flat_map(|(container, _)| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        Some(NamedPort {
            name: port.name.clone()?,
            protocol: match port.protocol.as_deref() {
                Some("UDP") => PolicyProtocol::Udp,
                Some("SCTP") => PolicyProtocol::Sctp,
                _ => PolicyProtocol::Tcp,
            },
            port: u16::try_from(port.container_port).ok()?,
        })
    });
    Pod {
        namespace: pod.namespace().to_owned(),
        name: pod.name().to_owned(),
        labels: labels.cloned().unwrap_or_default(),
        ports: named.collect(),
        on_host: host_ports::is_on_host(pod),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_known_by_its_labels_and_its_named_ports() {
        let pod = serde_json::json!({
            "metadata": { "namespace": "shop", "name": "cart-0", "labels": { "app": "cart" } },
            "spec": {
                "initContainers": [
                    { "name": "once", "ports": [{ "name": "lost", "containerPort": 1 }] },
                    { "name": "side", "restartPolicy": "Always", "ports": [{ "name": "dns", "containerPort": 53, "protocol": "UDP" }] },
                ],
                "containers": [{ "name": "c", "ports": [{ "name": "http", "containerPort": 8080 }, { "containerPort": 9090 }] }],
            },
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        let facts = of(PodView(&pod));
        let ports = facts.ports.iter();
        let mut ports: Vec<_> = ports
            .map(|port| (&*port.name, port.protocol, port.port))
            .collect();
        ports.sort_unstable();
        assert_eq!(
            ports,
            [
                ("dns", PolicyProtocol::Udp, 53),
                ("http", PolicyProtocol::Tcp, 8080)
            ]
        );
        assert_eq!((&*facts.namespace, facts.on_host), ("shop", false));
        assert_eq!(facts.labels["app"], "cart");
    }
}
