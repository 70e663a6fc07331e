//! Short ways to make tables in tests.

use weft_api::identity::SpiffeId;

use super::*;
use crate::WorkloadInfo;

pub(crate) fn table(node: &str) -> TableBuilder {
    Table::builder(node, 1)
}

pub(crate) struct ServiceMaker(ServiceSpec);

/// A service on port 80 with the pod `<name>-0` at 10.42.0.1:8080 of node `a`.
pub(crate) fn service(namespace: &str, name: &str) -> ServiceMaker {
    ServiceMaker(ServiceSpec {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ports: vec![ServicePortSpec {
            port: 80,
            endpoints: vec![endpoint(namespace, &format!("{name}-0"), "10.42.0.1", "a")],
            ..ServicePortSpec::default()
        }],
        ..ServiceSpec::default()
    })
}

/// A slice: ports by name, and endpoints by host name, address and whether they are ready.
pub(crate) fn names(
    ports: &[(&str, Protocol, u16)],
    hosts: &[(&str, &str, bool)],
) -> Arc<SliceNames> {
    let ports = ports.iter();
    let hosts = hosts.iter();
    Arc::new(SliceNames {
        ports: ports
            .map(|(name, protocol, number)| (Some((*name).to_owned()), *protocol, *number))
            .collect(),
        hosts: hosts
            .map(|(name, ip, ready)| HostName {
                hostname: Some((*name).to_owned()),
                ip: ip.parse().expect("an address"),
                ready: *ready,
            })
            .collect(),
    })
}

impl ServiceMaker {
    pub(crate) fn cluster_ip(mut self, ip: &str) -> Self {
        self.0.cluster_ip = Some(ip.parse().expect("an address"));
        self
    }

    pub(crate) fn alias(mut self, name: &str) -> Self {
        self.0.alias = Some(name.to_owned());
        self.0.ports.clear();
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.0.ports[0].port = port;
        self
    }

    pub(crate) fn names(mut self, names: Arc<SliceNames>) -> Self {
        self.0.names.push(names);
        self
    }

    pub(crate) fn endpoints(mut self, endpoints: Vec<EndpointSpec>) -> Self {
        self.0.ports[0].endpoints = endpoints;
        self
    }

    pub(crate) fn build(self) -> ServiceSpec {
        self.0
    }
}

pub(crate) fn endpoint(namespace: &str, pod: &str, ip: &str, node: &str) -> EndpointSpec {
    EndpointSpec {
        pod: pod.to_owned(),
        ip: ip.parse().expect("an address"),
        port: 8080,
        node: node.to_owned(),
        node_address: Some(([127, 0, 0, 1], 15443).into()),
        identity: SpiffeId::new("cluster.local", namespace, "default"),
        workload: WorkloadInfo::default(),
        ready: true,
        serving: true,
        assigned: true,
    }
}
