//! What every cluster has from its beginning: objects that the leader makes, and puts back into shape when somebody changed what clients rely on.
//!
//! A list that kinds add to, by a function of theirs in [`pieces`]. A piece says what the object is at first, and what becomes of one that
//! is there. Pure: the facts of the cluster come from outside.
//!
//! Invariants: a piece stands behind the namespace that it is in; mending what was mended changes nothing.
//! Left to others: making them (`weft_apiserver`), what each namespace has (`weft_controllers`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::annotation::FOLDER_DRIVER;
use weft_api::time::rfc3339;

use crate::core::{PERMANENT_NAMESPACES, ServiceRange};
use crate::flowcontrol;
use crate::lens::{items, member, object, put, text};
use crate::scheduling::system_priority_classes;

/// The Service that programs in the cluster find the API by, and what tells where its servers are.
pub const API_SERVICE: (&str, &str) = ("default", "kubernetes");
/// What programs trust that are asked by the API server, or in its place.
const AUTHENTICATION: &str = "extension-apiserver-authentication";
/// In which they find the authorities of servers that pass requests on, and the one name that those prove.
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
pub const FRONT_PROXY: &str = "front-proxy-client";
/// The Service that names are asked of.
const DNS_SERVICE: (&str, &str) = ("kube-system", "kube-dns");
const DNS_PORT: u16 = 53;
const API_PORT_NAME: &str = "https";
const API_PORT: u16 = 443;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Whoever signs the certificates that servers of the API show.
pub const SERVING_SIGNER: &str = "kubernetes.io/kube-apiserver-serving";
/// Marks slices of servers beside the first: what is not among the pieces any more and has it, is to go.
pub const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "weft-apiserver");

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Where the servers serve the API.
    pub servers: BTreeSet<SocketAddr>,
    pub service_range: ServiceRange,
    /// The certificate of the cluster's authority; empty where there is none.
    pub ca_pem: String,
    pub now: Timestamp,
    /// The certificate of the authority by which servers prove themselves to those that they pass requests on to; empty where there is none.
    pub front_proxy_ca_pem: String,
}

/// One object that is to be there.
pub struct Piece {
    /// As it is made, with `apiVersion` and `kind`.
    pub object: Value,
    /// What one that is there should be, by what it is and what would be made; `None` when it is well as it is.
    pub mend: fn(&Value, &Value) -> Option<Value>,
    /// The same for its status, which is written by a step of its own.
    pub report: fn(&Value, &Value) -> Option<Value>,
}

fn nothing(_: &Value, _: &Value) -> Option<Value> {
    None
}

impl Piece {
    /// An object that is made where there is none, and is its users' from then on.
    pub fn made_once(object: Value) -> Self {
        Self {
            object,
            mend: nothing,
            report: nothing,
        }
    }
}

/// All of it, in the order of making.
pub fn pieces(facts: &Facts) -> Vec<Piece> {
    let namespaces = PERMANENT_NAMESPACES.iter().map(|name| {
        let metadata = json!({"name": name});
        Piece::made_once(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}))
    });
    let mut pieces: Vec<Piece> = namespaces.collect();
    pieces.extend(system_priority_classes().map(Piece::made_once));
    pieces.extend(flowcontrol::pieces());
    pieces.extend(authentication(facts));
    pieces.push(Piece::made_once(folder_class()));
    pieces.push(service_range(facts));
    pieces.extend(trust_bundle(facts));
    pieces.extend(api_service(facts));
    pieces.extend(dns_service(facts));
    pieces
}

/// Where programs ask for names: the nodes answer for it, as long as it selects no pods. Whoever has a DNS of his own gives it a selector.
fn dns_service(facts: &Facts) -> Option<Piece> {
    let (namespace, name) = DNS_SERVICE;
    // With whatever else needs a server: a cluster whose servers nobody knows serves nobody.
    facts.servers.first()?;
    Some(Piece::made_once(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": name, "namespace": namespace,
            "labels": {"k8s-app": name, "kubernetes.io/cluster-service": "true"},
        },
        "spec": {
            "clusterIP": facts.service_range.tenth().to_string(),
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [
                {"name": "dns", "protocol": "UDP", "port": DNS_PORT, "targetPort": DNS_PORT},
                {"name": "dns-tcp", "protocol": "TCP", "port": DNS_PORT, "targetPort": DNS_PORT},
            ],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    })))
}

/// What servers that requests are passed on to know callers by, and this server. Each server has an authority of its own for that, and adds it.
pub fn authentication(facts: &Facts) -> Option<Piece> {
    let mut data = json!({"client-ca-file": facts.ca_pem});
    if !facts.front_proxy_ca_pem.is_empty() {
        data[FRONT_PROXY_CA] = facts.front_proxy_ca_pem.as_str().into();
        for (name, value) in [
            ("requestheader-allowed-names", FRONT_PROXY),
            ("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
            ("requestheader-group-headers", "X-Remote-Group"),
            ("requestheader-uid-headers", "X-Remote-Uid"),
            ("requestheader-username-headers", "X-Remote-User"),
        ] {
            data[name] = json!([value]).to_string().into();
        }
    }
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": AUTHENTICATION, "namespace": "kube-system"},
        "data": data,
    });
    let piece = Piece {
        object,
        mend: |present, wanted| {
            let mut next = present.clone();
            for (name, value) in object_of(wanted, "/data") {
                let there = text(present, &format!("/data/{name}"));
                let own = value.as_str().unwrap_or("");
                let told = match name.as_str() {
                    // Other servers' are as good.
                    FRONT_PROXY_CA if there.contains(own.trim()) => continue,
                    FRONT_PROXY_CA if !there.trim().is_empty() => {
                        format!("{}\n{own}", there.trim_end())
                    }
                    _ => own.to_owned(),
                };
                if told != there {
                    member(&mut next, "data")[name.as_str()] = told.into();
                }
            }
            (next != *present).then_some(next)
        },
        report: nothing,
    };
    (!facts.ca_pem.is_empty()).then_some(piece)
}

/// The class of volumes that are folders of nodes: made where the first pod that uses one is. What users make of it is theirs.
fn folder_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": "folder",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": FOLDER_DRIVER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

/// What clients verify the servers by, for pods to mount. Another authority is another object: whoever trusts the one of before finds both
/// until the leader has taken it away.
fn trust_bundle(facts: &Facts) -> Option<Piece> {
    const DIGEST_BYTES: usize = 12;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, facts.ca_pem.as_bytes());
    let digest: String = (digest.as_ref().iter().take(DIGEST_BYTES))
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let name = format!("{}:{digest}", SERVING_SIGNER.replace('/', ":"));
    let object = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "ClusterTrustBundle",
        "metadata": {"name": name},
        "spec": {"signerName": SERVING_SIGNER, "trustBundle": facts.ca_pem},
    });
    let piece = Piece {
        mend: |present, wanted| with_parts(present, wanted, &["/spec/trustBundle"]),
        ..Piece::made_once(object)
    };
    (!facts.ca_pem.is_empty()).then_some(piece)
}

/// The range that addresses of Services come from. One that says another range than this cluster's is not called ready.
fn service_range(facts: &Facts) -> Piece {
    Piece {
        object: json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
            "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": [facts.service_range.to_string()]},
            "status": {"conditions": [{
                "type": "Ready", "status": "True", "reason": "",
                "message": "Kubernetes default Service CIDR is ready",
                "lastTransitionTime": rfc3339(facts.now),
            }]},
        }),
        mend: nothing,
        report: |present, wanted| {
            let known = items(present, "/status/conditions")
                .iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] != "Unknown");
            if known || present["spec"] != wanted["spec"] {
                return None;
            }
            let mut next = present.clone();
            put(&mut next, "status", wanted.get("status").cloned());
            Some(next)
        },
    }
}

/// The Service that programs find the API by, and where that leads. Nothing while no server has said where it is.
pub fn api_service(facts: &Facts) -> Vec<Piece> {
    let (namespace, name) = API_SERVICE;
    // Servers at one port are told together; most clusters have one port.
    let mut by_port: BTreeMap<(bool, u16), Vec<IpAddr>> = BTreeMap::new();
    for server in &facts.servers {
        let group = by_port.entry((server.is_ipv6(), server.port()));
        group.or_default().push(server.ip());
    }
    let Some(((_, first_port), _)) = by_port.first_key_value() else {
        return Vec::new();
    };
    let mut pieces = vec![Piece {
        object: json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {"component": "apiserver", "provider": "kubernetes"},
            },
            "spec": {
                "clusterIP": facts.service_range.first().to_string(),
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "ports": [{
                    "name": API_PORT_NAME, "protocol": "TCP", "port": API_PORT, "targetPort": first_port,
                }],
                "sessionAffinity": "None",
                "type": "ClusterIP",
            },
        }),
        mend: |present, wanted| with_parts(present, wanted, &["/spec/type", "/spec/ports"]),
        report: nothing,
    }];
    let port = |port: u16| json!([{"name": API_PORT_NAME, "port": port, "protocol": "TCP"}]);
    let subsets: Vec<Value> = by_port
        .iter()
        .map(|((_, number), addresses)| {
            let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
            json!({"addresses": addresses, "ports": port(*number)})
        })
        .collect();
    pieces.push(Piece {
        object: json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {
                "name": name, "namespace": namespace,
                // Its slices are made here, too.
                "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
            },
            "subsets": subsets,
        }),
        mend: |present, wanted| with_parts(present, wanted, &["/subsets"]),
        report: nothing,
    });
    for (place, ((is_ipv6, number), addresses)) in by_port.iter().enumerate() {
        let family = if *is_ipv6 { "IPv6" } else { "IPv4" };
        let mut labels = json!({SERVICE_NAME: name});
        let own_name = if place == 0 {
            name.to_owned()
        } else {
            labels[MANAGED_BY.0] = MANAGED_BY.1.into();
            format!("{name}-{}-{number}", family.to_ascii_lowercase())
        };
        let endpoints: Vec<Value> = addresses
            .iter()
            .map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}}))
            .collect();
        pieces.push(Piece {
            object: json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": own_name, "namespace": namespace, "labels": labels},
                "addressType": family,
                "endpoints": endpoints,
                "ports": port(*number),
            }),
            mend: |present, wanted| with_parts(present, wanted, &["/endpoints", "/ports"]),
            report: nothing,
        });
    }
    pieces
}

fn object_of<'v>(value: &'v Value, pointer: &str) -> impl Iterator<Item = (&'v String, &'v Value)> {
    object(value, pointer).into_iter().flatten()
}

/// What is there with these parts as they are wanted, where they are not.
fn with_parts(present: &Value, wanted: &Value, parts: &[&str]) -> Option<Value> {
    let mut next = present.clone();
    for part in parts {
        let (above, name) = part.rsplit_once('/')?;
        let wanted = wanted.pointer(part)?;
        if present.pointer(part) != Some(wanted) {
            next.pointer_mut(above)?
                .as_object_mut()?
                .insert(name.to_owned(), wanted.clone());
        }
    }
    (next != *present).then_some(next)
}

/// Whether an object tells where the servers of the API are. Those of a cluster on one machine are on loopback, where its nodes are as well.
pub(crate) fn is_of_api(object: &Value) -> bool {
    let (namespace, name) = API_SERVICE;
    let own_name = text(object, "/metadata/name");
    text(object, "/metadata/namespace") == namespace
        && own_name
            .strip_prefix(name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with("-ipv"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;
    use crate::{ENDPOINT_SLICE, Registry};

    fn facts(servers: &[&str]) -> Facts {
        Facts {
            servers: servers
                .iter()
                .map(|server| server.parse().unwrap())
                .collect(),
            ca_pem: "PEM".to_owned(),
            front_proxy_ca_pem: "OWN".to_owned(),
            ..Facts::default()
        }
    }

    fn names(facts: &Facts) -> Vec<String> {
        let pieces = pieces(facts).into_iter();
        pieces
            .map(|piece| {
                let object = &piece.object;
                format!(
                    "{} {}",
                    text(object, "/kind"),
                    text(object, "/metadata/name")
                )
            })
            .filter(|name| {
                let always = [
                    "Namespace ",
                    "PriorityClass ",
                    "PriorityLevel",
                    "FlowSchema ",
                    "ServiceCIDR ",
                    "StorageClass ",
                ];
                !always.iter().any(|kind| name.starts_with(kind))
            })
            .collect()
    }

    #[test]
    fn the_api_is_told_once_a_server_is_known() {
        let none = Facts::default();
        assert_eq!(names(&none), [""; 0]);
        assert_eq!(pieces(&none).len(), PERMANENT_NAMESPACES.len() + 25);
        assert_eq!(
            names(&facts(&["10.0.0.1:6443", "10.0.0.2:6443"])),
            [
                "ConfigMap extension-apiserver-authentication",
                "ClusterTrustBundle kubernetes.io:kube-apiserver-serving:384fb9a44fabe158be2757b9",
                "Service kubernetes",
                "Endpoints kubernetes",
                "EndpointSlice kubernetes",
                "Service kube-dns",
            ]
        );
        assert_eq!(
            names(&facts(&[
                "10.0.0.1:6443",
                "10.0.0.1:7443",
                "[fd00::1]:6443"
            ]))[4..],
            [
                "EndpointSlice kubernetes",
                "EndpointSlice kubernetes-ipv4-7443",
                "EndpointSlice kubernetes-ipv6-6443",
                "Service kube-dns",
            ]
        );
        let all = pieces(&facts(&["10.0.0.2:6443", "10.0.0.1:6443"]));
        let of = |kind: &str| {
            let mut pieces = all.iter();
            let found = pieces.find(|piece| piece.object["kind"] == kind);
            &found.unwrap().object
        };
        assert_eq!(of("Service")["spec"]["clusterIP"], "10.43.0.1");
        assert_eq!(of("Service")["spec"]["ports"][0]["targetPort"], 6443);
        let dns = all.last().unwrap();
        assert_eq!(dns.object["spec"]["clusterIP"], "10.43.0.10");
        assert_eq!(
            of("Endpoints")["subsets"],
            json!([{
                "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}],
            }])
        );
        assert_eq!(
            of("EndpointSlice")["endpoints"][1]["addresses"],
            json!(["10.0.0.2"])
        );
    }

    #[test]
    fn what_was_changed_is_mended_and_what_is_well_is_left() {
        let all = pieces(&facts(&["10.0.0.1:6443"]));
        for piece in &all {
            assert_eq!(
                (piece.mend)(&piece.object, &piece.object),
                None,
                "{}",
                piece.object
            );
        }
        let slice = all
            .iter()
            .find(|piece| piece.object["kind"] == "EndpointSlice");
        let slice = slice.unwrap();
        let mut changed = slice.object.clone();
        changed["endpoints"] = json!([]);
        changed["metadata"]["labels"]["own"] = "kept".into();
        let mended = (slice.mend)(&changed, &slice.object).unwrap();
        assert_eq!(mended["endpoints"], slice.object["endpoints"]);
        assert_eq!(mended["metadata"]["labels"]["own"], "kept");
        assert_eq!((slice.mend)(&mended, &slice.object), None);
        let map = all
            .iter()
            .find(|piece| piece.object["kind"] == "ConfigMap")
            .unwrap();
        let mut changed = map.object.clone();
        changed["data"]["client-ca-file"] = "old".into();
        changed["data"]["requestheader-client-ca-file"] = "OTHER\n".into();
        let mended = (map.mend)(&changed, &map.object).unwrap();
        assert_eq!(mended["data"]["client-ca-file"], "PEM");
        // Another server's authority stays beside this one's.
        assert_eq!(mended["data"]["requestheader-client-ca-file"], "OTHER\nOWN");
        assert_eq!(
            mended["data"]["requestheader-allowed-names"],
            "[\"front-proxy-client\"]"
        );
        assert_eq!((map.mend)(&mended, &map.object), None);
    }

    #[test]
    fn servers_may_be_on_loopback_and_nothing_else_may() {
        let all = pieces(&facts(&["127.0.0.1:6443", "127.0.0.1:6444"]));
        let slices: Vec<&Value> = all
            .iter()
            .map(|piece| &piece.object)
            .filter(|object| object["kind"] == "EndpointSlice")
            .collect();
        assert_eq!(slices.len(), 2);
        for slice in slices {
            assert_eq!(told::of_new(&ENDPOINT_SLICE, slice), [""; 0]);
            let mut other = slice.clone();
            other["metadata"]["namespace"] = "shop".into();
            assert_eq!(
                told::of_new(&ENDPOINT_SLICE, &other),
                [
                    "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)"
                ]
            );
        }
    }

    #[test]
    fn a_piece_is_of_a_kind_that_is_served_or_will_be() {
        let registry = Registry::builtin();
        for piece in pieces(&facts(&["10.0.0.1:6443"])) {
            let (version, kind) = (
                text(&piece.object, "/apiVersion"),
                text(&piece.object, "/kind"),
            );
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let known = registry.by_kind(group, version, kind).is_some();
            assert!(known || kind == "Endpoints", "{kind}");
        }
    }
}
