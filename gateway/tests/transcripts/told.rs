//! Clusters written as manifests, and what came of them as text.

use std::collections::BTreeSet;
use std::fmt::Write;

use serde_json::Value;
use weft_api::view;
use weft_gateway::{
    Backend, BackendTarget, Compiled, Condition, Filter, Kind, NamespacedName, Object, Objects,
    PathMatch, Rule, ServiceRoutes, api, compile,
};

/// What is there in every test: the class, one node, two services.
pub const TESTS_OWN: &str = r"
- kind: GatewayClass
  metadata: {name: weft}
  spec: {controllerName: weft.dev/gateway-controller}
- kind: Node
  metadata: {name: a, annotations: {weft.dev/gateway-port: '9080'}}
  status: {addresses: [{type: InternalIP, address: 127.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
- kind: Service
  metadata: {name: web, namespace: shop}
  spec: {clusterIP: 10.43.0.1, ports: [{name: http, port: 80}]}
- kind: Service
  metadata: {name: api, namespace: shop}
  spec: {clusterIP: 10.43.0.2, ports: [{name: http, port: 80}, {name: grpc, port: 50051}]}
- kind: Gateway
  metadata: {name: always, namespace: default}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP, hostname: always.test}]}
- kind: HTTPRoute
  metadata: {name: always, namespace: default}
  spec: {parentRefs: [{name: always}], rules: [{backendRefs: [{name: nobody, port: 80}]}]}
";

#[derive(Default)]
pub struct Cluster {
    objects: Objects,
}

/// A node as its agent reports it.
pub fn node(name: &str, address: &str, port: Option<u16>, is_ready: bool) -> String {
    let port = port.map(|port| format!("weft.dev/gateway-port: '{port}'"));
    let status = if is_ready { "True" } else { "False" };
    format!(
        "[{{kind: Node, metadata: {{name: {name}, annotations: {{{}}}}}, status: {{addresses: [{{type: InternalIP, address: {address}}}], \
        conditions: [{{type: Ready, status: '{status}'}}]}}}}]",
        port.unwrap_or_default()
    )
}

/// One item of a list of manifests, as a list.
pub fn item(text: &str) -> String {
    format!("- {text}")
}

impl Cluster {
    /// Those of [`TESTS_OWN`] that the test needs, and these.
    pub fn of(manifests: &str) -> Self {
        let mut cluster = Self::default();
        let own = TESTS_OWN.split("\n- ").skip(1);
        for document in own.filter(|document| !document.contains("name: always")) {
            cluster.apply(&item(document));
        }
        cluster.apply(manifests);
        cluster
    }

    pub fn apply(&mut self, manifests: &str) {
        let values: Vec<Value> = serde_saphyr::from_str(manifests)
            .unwrap_or_else(|error| panic!("{error}:\n{manifests}"));
        for value in values {
            self.objects.apply(read(&value));
        }
    }

    pub fn delete_node(&mut self, name: &str) {
        let name = NamespacedName::cluster(name);
        assert!(self.objects.delete(Kind::Node, &name));
    }

    pub fn delete(&mut self, kind: Kind, namespace: &str, name: &str) {
        let name = NamespacedName::new(namespace, name);
        assert!(self.objects.delete(kind, &name));
    }

    pub fn compiled(&self) -> Compiled {
        compile(&self.objects)
    }

    /// Everything.
    pub fn told(&self) -> String {
        self.told_without(&[])
    }

    /// Everything but what begins so.
    pub fn told_without(&self, left_out: &[&str]) -> String {
        let blocks = blocks(&self.compiled()).into_iter();
        let kept = blocks.filter(|block| !left_out.iter().any(|start| block.starts_with(start)));
        kept.collect::<Vec<_>>().join("\n")
    }

    /// What is said of one object, and with it what is served.
    pub fn told_of(&self, subject: &str, with_served: bool) -> String {
        let blocks = blocks(&self.compiled()).into_iter();
        let kept = blocks.filter(|block| {
            let first = block.lines().next().unwrap_or_default();
            first == subject
                || first.starts_with(&format!("{subject} "))
                || (with_served && first == "served")
        });
        kept.collect::<Vec<_>>().join("\n")
    }

    /// The rules of a route as they are served, whole.
    pub fn rules(&self, route: &str) -> String {
        let served = self.compiled().served;
        let hosts = served.listeners.values().flat_map(|hosts| hosts.values());
        let attached: Vec<_> = hosts.flatten().filter(|one| one.route == route).collect();
        assert_eq!(attached.len(), 1, "served once");
        let rules = attached[0].rules.iter().map(|rule| format!("{rule:#?}"));
        rules.collect::<Vec<_>>().join("\n")
    }
}

fn read(value: &Value) -> Object {
    fn of<S: serde::de::DeserializeOwned + Default>(value: &Value) -> api::Object<S> {
        let metadata: view::ObjectMeta =
            serde_json::from_value(value["metadata"].clone()).expect("metadata");
        api::Object::read(&metadata, &value["spec"])
            .unwrap_or_else(|error| panic!("{error}: {value}"))
    }
    let metadata = || -> view::ObjectMeta {
        serde_json::from_value(value["metadata"].clone()).expect("metadata")
    };
    let name = || metadata().name.unwrap_or_default();
    let full_name = || {
        let metadata = metadata();
        NamespacedName::new(
            metadata.namespace.unwrap_or_default(),
            metadata.name.unwrap_or_default(),
        )
    };
    match value["kind"].as_str() {
        Some("GatewayClass") => Object::GatewayClass(of(value)),
        Some("MeshPolicy") => Object::MeshPolicy(Box::new(of(value))),
        Some("FaultInjection") => Object::FaultInjection(of(value)),
        Some("Gateway") => Object::Gateway(Box::new(of(value))),
        Some("HTTPRoute") => Object::HttpRoute(of(value)),
        Some("GRPCRoute") => Object::GrpcRoute(of(value)),
        Some("TLSRoute") => Object::TlsRoute(of(value)),
        Some("TCPRoute") => Object::TcpRoute(of(value)),
        Some("UDPRoute") => Object::UdpRoute(of(value)),
        Some("ListenerSet") => Object::ListenerSet(of(value)),
        Some("BackendTLSPolicy") => Object::BackendTlsPolicy(of(value)),
        Some("Secret") => {
            let data = value["data"].as_object().into_iter().flatten();
            let data = data.map(|(name, text)| {
                let text = text.as_str().unwrap_or_default();
                (name.clone(), text.as_bytes().to_vec())
            });
            Object::Secret(full_name(), api::Secret::read(&data.collect(), true))
        }
        Some("ConfigMap") => {
            let pem = value["data"]["ca.crt"].as_str().unwrap_or_default();
            Object::ConfigMap(full_name(), api::Bundle::read(pem.as_bytes()))
        }
        Some("ReferenceGrant") => Object::ReferenceGrant(of(value)),
        Some("Service") => {
            let service: view::Service = serde_json::from_value(value["spec"].clone())
                .map(|spec| view::Service {
                    spec: Some(spec),
                    ..view::Service::default()
                })
                .expect("a service");
            Object::Service(full_name(), (&service).into())
        }
        Some("Namespace") => Object::Namespace(name(), metadata().labels.unwrap_or_default()),
        Some("Node") => {
            let status: view::NodeStatus =
                serde_json::from_value(value["status"].clone()).expect("a status");
            let annotations = metadata().annotations.unwrap_or_default();
            Object::Node(name(), api::Node::read(Some(&status), &annotations))
        }
        other => panic!("{other:?} is no kind of these tests"),
    }
}

fn blocks(compiled: &Compiled) -> Vec<String> {
    let mut blocks = Vec::new();
    for (name, conditions) in &compiled.classes {
        blocks.push(format!("class {name}\n{}", lines(2, conditions)));
    }
    for (name, status) in &compiled.gateways {
        let place = match status.addresses.as_slice() {
            [] => "nowhere".to_owned(),
            addresses => addresses.join(", "),
        };
        let mut block = format!("gateway {name} at {place}\n");
        block.push_str(&lines(2, &status.conditions));
        for listener in &status.listeners {
            let kinds = listener.supported_kinds.iter();
            let kinds: Vec<&str> = kinds.map(|kind| kind.kind.as_str()).collect();
            let _ = writeln!(
                block,
                "  listener {} takes {}, {} attached",
                listener.name,
                if kinds.is_empty() {
                    "nothing".to_owned()
                } else {
                    kinds.join(", ")
                },
                listener.attached_routes
            );
            block.push_str(&lines(4, &listener.conditions));
        }
        blocks.push(block);
    }
    for (name, status) in &compiled.listener_sets {
        let mut block = format!("set {name}\n{}", lines(2, &status.conditions));
        for listener in &status.listeners {
            let _ = writeln!(
                block,
                "  listener {}, {} attached",
                listener.name, listener.attached_routes
            );
            block.push_str(&lines(4, &listener.conditions));
        }
        blocks.push(block);
    }
    let routes = compiled
        .routes
        .iter()
        .map(|(name, status)| ("route", name, status));
    let others = [
        ("grpc", &compiled.grpc_routes),
        ("tls", &compiled.tls_routes),
        ("tcp", &compiled.tcp_routes),
        ("udp", &compiled.udp_routes),
    ];
    let others = others.into_iter().flat_map(|(kind, routes)| {
        let routes = routes.iter();
        routes.map(move |(name, status)| (kind, name, status))
    });
    let routes = routes.chain(others);
    for (kind, name, status) in routes {
        let mut block = format!("{kind} {name}\n");
        for entry in &status.parents {
            let parent = &entry.parent;
            let kind = parent.kind.as_deref().unwrap_or("Gateway");
            let mut place = format!("{kind} {}", parent.name);
            for part in [
                parent.section_name.clone(),
                parent.port.map(|port| port.to_string()),
            ] {
                place.extend(part.map(|part| format!(" {part}")));
            }
            let _ = writeln!(block, "  at {place}");
            block.push_str(&lines(4, &entry.conditions));
        }
        for missing in &status.missing {
            let _ = writeln!(block, "  there is no Gateway {missing}");
        }
        blocks.push(block);
    }
    for (name, ancestors) in &compiled.policies {
        for ancestor in ancestors {
            let block = format!("policy {name} at {}\n", ancestor.gateway);
            blocks.push(block + &lines(2, &ancestor.conditions));
        }
    }
    blocks.push(served(compiled));
    blocks
}

fn lines(indent: usize, conditions: &[Condition]) -> String {
    let mut text = String::new();
    for condition in conditions {
        let status = if condition.holds { "True" } else { "False" };
        let _ = writeln!(
            text,
            "{:indent$}{}={status} {}: {}",
            "", condition.kind, condition.reason, condition.message
        );
    }
    text
}

fn served(compiled: &Compiled) -> String {
    let mut text = "served\n".to_owned();
    for (listener, hosts) in &compiled.served.listeners {
        let _ = writeln!(text, "  listener {listener}");
        for (host, routes) in hosts {
            for route in routes {
                let port = route.listener_port.map(|port| format!(", port {port}"));
                let _ = writeln!(
                    text,
                    "    {host}: {}{}",
                    route.route,
                    port.unwrap_or_default()
                );
                route
                    .rules
                    .iter()
                    .for_each(|rule| text.push_str(&outcome(rule)));
            }
        }
    }
    for (place, front) in &compiled.served.fronts {
        for (listener, hosts) in &front.listeners {
            let tls = front.tls.get(listener).map(|tls| {
                let clients = match &tls.clients {
                    None => String::new(),
                    Some(clients) if clients.falls_back => ", any client".to_owned(),
                    Some(clients) => format!(", clients of {}", clients.roots.len()),
                };
                format!(", {} certificates{clients}", tls.certificates.len())
            });
            let _ = writeln!(
                text,
                "  {place} listener {listener}{}",
                tls.unwrap_or_default()
            );
            for (host, routes) in hosts {
                for route in routes {
                    let _ = writeln!(text, "    {host}: {} {}", route.kind, route.route);
                    route
                        .rules
                        .iter()
                        .for_each(|rule| text.push_str(&outcome(rule)));
                }
            }
        }
    }
    for ((protocol, place), front) in &compiled.served.streams {
        for (listener, what) in &front.listeners {
            let tls = what.tls.as_ref().map_or("", |_| ", opened");
            let _ = writeln!(text, "  {protocol:?} {place} listener {listener}{tls}");
            for (host, route) in &what.hosts {
                let backends: Vec<String> = route.backends.iter().map(leads).collect();
                let backends = backends.join(" | ");
                // Its policies are asked who may come.
                let owner = route.gateway.as_ref().expect("a Gateway");
                let mut own = compiled.gateways[owner].addresses.iter();
                assert!(own.any(|own| *own == place.ip().to_string()), "{owner}");
                let _ = writeln!(text, "    {host}: {} → {backends}", route.route);
            }
        }
    }
    for (service, routes) in &compiled.served.services {
        let ServiceRoutes {
            producer,
            consumers,
            streams,
        } = &**routes;
        let consumers = consumers.iter().map(|(who, routes)| (who.as_str(), routes));
        for (who, routes) in std::iter::once(("all", producer)).chain(consumers) {
            for route in routes {
                let port = route.service_port.map(|port| format!(" port {port}"));
                let _ = writeln!(
                    text,
                    "  service {service}{}, for {who}: {}",
                    port.unwrap_or_default(),
                    route.route
                );
                route
                    .rules
                    .iter()
                    .for_each(|rule| text.push_str(&outcome(rule)));
            }
        }
        let consumers = streams.consumers.iter();
        let consumers = consumers.map(|(who, ports)| (who.as_str(), ports));
        for (who, ports) in std::iter::once(("all", &streams.producer)).chain(consumers) {
            for ((protocol, port), route) in ports {
                assert_eq!(route.gateway, None);
                let backends: Vec<String> = route.backends.iter().map(leads).collect();
                let (name, backends) = (&route.route, backends.join(" | "));
                let _ = writeln!(
                    text,
                    "  service {service} {protocol:?} port {port}, for {who}: {name} → {backends}"
                );
            }
        }
    }
    text
}

/// What becomes of a request that the rule matches, a line for each match.
fn outcome(rule: &Rule) -> String {
    let invalid = rule.filters.iter().find_map(|filter| match filter {
        Filter::Invalid { reason } => Some(format!("500 {reason}")),
        Filter::Redirect(redirect) => Some(format!(
            "redirect to port {:?}, {:?}",
            redirect.port, redirect.status
        )),
        _ => None,
    });
    let backends = rule.backends.iter().map(leads);
    let backends = backends.collect::<Vec<_>>().join(" | ");
    let outcome = invalid.unwrap_or(backends);
    let mut paths = BTreeSet::new();
    for matched in &rule.matches {
        paths.insert(match &matched.path {
            PathMatch::Exact(path) => format!("exact {path}"),
            PathMatch::Prefix(path) if path.is_empty() => "everything".to_owned(),
            PathMatch::Prefix(path) => format!("prefix {path}"),
            PathMatch::Method(method) => format!("method {method}"),
            PathMatch::Pattern(pattern) => format!("like {}", pattern.as_str()),
        });
    }
    let paths = paths.into_iter();
    paths
        .map(|path| format!("      {path} → {outcome}\n"))
        .collect()
}

/// Where a share goes.
fn leads(backend: &Backend) -> String {
    let target = match &backend.target {
        BackendTarget::Service {
            namespace,
            name,
            port,
        } => format!("{name}.{namespace}:{port}"),
        BackendTarget::Invalid { reason } => format!("500 {reason}"),
    };
    let tls = backend.tls.as_ref().map(|tls| {
        let client = tls.client.as_ref().map_or("", |_| ", showing itself");
        format!(" over TLS to {}{client}", tls.hostname)
    });
    let target = target + &tls.unwrap_or_default();
    match backend.weight {
        1 => target,
        weight => format!("{target} ×{weight}"),
    }
}
