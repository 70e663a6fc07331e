//! Who speaks with whom under NetworkPolicies: the cases of upstream's own suite, and of its documentation, as tables.

use std::net::IpAddr;

use serde_json::{Value, json};
use weft_policy::{End, Flow, NamedPort, Object, Pod, Policies, PolicyKind, Protocol};

/// Three namespaces, `x`, `y` and `z`, with three pods each, `a`, `b` and `c`, as upstream has them. `x/a` is at 10.0.0.1, `z/c` at 10.2.2.1.
fn pod(name: &str) -> (Pod, IpAddr) {
    let (namespace, name) = name.split_once('/').expect("a namespace");
    let number = |text: &str, first: u8| text.as_bytes()[0] - first;
    let ip = [10, number(namespace, b'x'), number(name, b'a'), 1];
    let named = |protocol, port| NamedPort {
        name: format!(
            "serve-{port}-{}",
            if protocol == Protocol::Udp {
                "udp"
            } else {
                "tcp"
            }
        ),
        protocol,
        port,
    };
    let pod = Pod {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        labels: [("pod".to_owned(), name.to_owned())].into(),
        ports: vec![
            named(Protocol::Tcp, 80),
            named(Protocol::Tcp, 81),
            named(Protocol::Udp, 80),
        ],
        on_host: false,
    };
    (pod, ip.into())
}

fn policies(all: &[(&str, Value)]) -> Policies {
    let mut policies = Policies::new("cluster.local");
    for namespace in ["x", "y", "z"] {
        let labels = [
            ("ns".to_owned(), namespace.to_owned()),
            (
                "kubernetes.io/metadata.name".to_owned(),
                namespace.to_owned(),
            ),
        ];
        policies.set_namespace(namespace, Some(&labels.into()));
    }
    for (at, (namespace, spec)) in all.iter().enumerate() {
        let (_, faults) = policies.apply(&Object {
            kind: PolicyKind::Network,
            namespace,
            name: &format!("p{at}"),
            annotations: None,
            spec,
        });
        assert_eq!(faults, [""; 0]);
    }
    policies
}

/// `x/a > y/b:80`, or `x/a > y/b:80/udp`.
fn speaks(policies: &Policies, flow: &str) -> bool {
    let (from, to) = flow.split_once(" > ").expect("two ends");
    let (to, port) = to.rsplit_once(':').expect("a port");
    let (port, protocol) = match port.split_once('/') {
        Some((port, "udp")) => (port, Protocol::Udp),
        Some((port, _)) => (port, Protocol::Sctp),
        None => (port, Protocol::Tcp),
    };
    let end = |name: &str| match name.parse::<IpAddr>() {
        Ok(ip) => (None, ip),
        Err(_) => {
            let (pod, ip) = pod(name);
            (Some(pod), ip)
        }
    };
    let (from, to) = (end(from), end(to));
    let of = |(pod, ip): &(Option<Pod>, IpAddr)| (*ip, pod.clone());
    let ((from_ip, from), (to_ip, to)) = (of(&from), of(&to));
    policies
        .admits(&Flow {
            from: End {
                ip: Some(from_ip),
                pod: from.as_ref(),
            },
            to: End {
                ip: Some(to_ip),
                pod: to.as_ref(),
            },
            protocol,
            port: port.parse().expect("a port"),
        })
        .is_ok()
}

#[test]
fn policies_isolate_and_let_through_as_upstream_has_it() {
    let everybody = json!({});
    let a = json!({ "matchLabels": { "pod": "a" } });
    let y = json!({ "matchLabels": { "ns": "y" } });
    let mut wrong = Vec::new();
    for (what, all, flows) in [
        (
            "no policy",
            vec![],
            &[("x/a > y/b:80", true), ("192.0.2.1 > x/a:80", true)][..],
        ),
        (
            "default deny of ingress",
            vec![(
                "x",
                json!({ "podSelector": everybody, "policyTypes": ["Ingress"] }),
            )],
            &[
                ("y/a > x/a:80", false),
                ("x/b > x/a:80", false),
                ("x/a > x/a:80", true),
                ("x/a > y/a:80", true),
                ("192.0.2.1 > x/a:80", false),
                ("y/a > x/a:80/udp", false),
            ],
        ),
        (
            "default deny of egress",
            vec![(
                "x",
                json!({ "podSelector": everybody, "policyTypes": ["Egress"] }),
            )],
            &[
                ("x/a > y/a:80", false),
                ("x/a > 192.0.2.1:443", false),
                ("y/a > x/a:80", true),
            ],
        ),
        (
            "types where nobody says",
            vec![("x", json!({ "podSelector": everybody, "egress": [{}] }))],
            &[("y/a > x/a:80", false), ("x/a > y/a:80", true)],
        ),
        (
            "allow all ingress",
            vec![
                ("x", json!({ "podSelector": everybody })),
                ("x", json!({ "podSelector": everybody, "ingress": [{}] })),
            ],
            &[("y/a > x/a:80", true), ("192.0.2.1 > x/a:9", true)],
        ),
        (
            "pods of the same namespace",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "pod": "b" } } }] }] }),
            )],
            &[
                ("x/b > x/a:80", true),
                ("x/c > x/a:80", false),
                ("y/b > x/a:80", false),
                ("y/b > x/b:80", true),
            ],
        ),
        (
            "all pods of a namespace",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "from": [{ "namespaceSelector": y }] }] }),
            )],
            &[
                ("y/a > x/a:80", true),
                ("y/c > x/a:80", true),
                ("x/b > x/a:80", false),
                ("z/a > x/a:80", false),
            ],
        ),
        (
            "pods of a namespace, both",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "from": [{ "namespaceSelector": y, "podSelector": { "matchLabels": { "pod": "b" } } }] }] }),
            )],
            &[
                ("y/b > x/a:80", true),
                ("y/a > x/a:80", false),
                ("x/b > x/a:80", false),
            ],
        ),
        (
            "either of two",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "from": [{ "namespaceSelector": y }, { "podSelector": { "matchLabels": { "pod": "b" } } }] }] }),
            )],
            &[
                ("y/a > x/a:80", true),
                ("x/b > x/a:80", true),
                ("z/b > x/a:80", false),
            ],
        ),
        (
            "by expressions",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "from": [{
            "namespaceSelector": { "matchExpressions": [{ "key": "ns", "operator": "NotIn", "values": ["x"] }] },
            "podSelector": { "matchExpressions": [{ "key": "pod", "operator": "In", "values": ["b", "c"] }] },
        }] }] }),
            )],
            &[
                ("y/b > x/a:80", true),
                ("z/c > x/a:80", true),
                ("y/a > x/a:80", false),
                ("x/b > x/a:80", false),
            ],
        ),
        (
            "a port",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "ports": [{ "port": 81 }] }] }),
            )],
            &[
                ("y/a > x/a:81", true),
                ("y/a > x/a:80", false),
                ("y/a > x/a:81/udp", false),
            ],
        ),
        (
            "a port of UDP",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "ports": [{ "port": 80, "protocol": "UDP" }] }] }),
            )],
            &[("y/a > x/a:80/udp", true), ("y/a > x/a:80", false)],
        ),
        (
            "a port by its name",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [{ "ports": [{ "port": "serve-81-tcp" }] }] }),
            )],
            &[("y/a > x/a:81", true), ("y/a > x/a:80", false)],
        ),
        (
            "a port by its name on the way out",
            vec![(
                "x",
                json!({ "podSelector": a, "egress": [{ "ports": [{ "port": "serve-80-tcp" }] }], "policyTypes": ["Egress"] }),
            )],
            &[
                ("x/a > y/a:80", true),
                ("x/a > y/a:81", false),
                ("x/a > 192.0.2.1:80", false),
            ],
        ),
        (
            "ports from and to",
            vec![(
                "x",
                json!({ "podSelector": a, "egress": [{ "ports": [{ "port": 32000, "endPort": 32768 }] }] }),
            )],
            &[
                ("x/a > y/a:32000", true),
                ("x/a > y/a:32768", true),
                ("x/a > y/a:32769", false),
                ("x/a > y/a:80", false),
            ],
        ),
        (
            "a range with exceptions",
            vec![(
                "x",
                json!({ "podSelector": a, "egress": [{ "to": [{ "ipBlock": { "cidr": "10.1.0.0/16", "except": ["10.1.1.0/24"] } }] }] }),
            )],
            &[
                ("x/a > y/a:80", true),
                ("x/a > y/b:80", false),
                ("x/a > y/c:80", true),
                ("x/a > z/a:80", false),
                ("x/a > 10.1.9.9:80", true),
            ],
        ),
        (
            "an exception that another policy allows",
            vec![
                (
                    "x",
                    json!({ "podSelector": a, "egress": [{ "to": [{ "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.1.1.0/24"] } }] }] }),
                ),
                (
                    "x",
                    json!({ "podSelector": a, "egress": [{ "to": [{ "ipBlock": { "cidr": "10.1.1.1/32" } }] }] }),
                ),
            ],
            &[("x/a > y/b:80", true)],
        ),
        (
            "policies add to each other",
            vec![
                (
                    "x",
                    json!({ "podSelector": a, "ingress": [{ "ports": [{ "port": 80 }] }] }),
                ),
                (
                    "x",
                    json!({ "podSelector": everybody, "ingress": [{ "ports": [{ "port": 81 }] }] }),
                ),
            ],
            &[
                ("y/a > x/a:80", true),
                ("y/a > x/a:81", true),
                ("y/a > x/b:80", false),
                ("y/a > x/b:81", true),
            ],
        ),
        (
            "both ends have to agree",
            vec![
                (
                    "x",
                    json!({ "podSelector": a, "policyTypes": ["Egress"], "egress": [{ "to": [{ "namespaceSelector": y }] }] }),
                ),
                (
                    "y",
                    json!({ "podSelector": a, "ingress": [{ "from": [{ "podSelector": {} }] }] }),
                ),
            ],
            &[
                ("x/a > y/b:80", true),
                ("x/a > y/a:80", false),
                ("x/a > z/a:80", false),
            ],
        ),
        (
            "ports and others together",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [
            { "ports": [{ "port": 80 }], "from": [{ "namespaceSelector": y }] }, { "ports": [{ "port": 81 }], "from": [{ "podSelector": {} }] },
        ] }),
            )],
            &[
                ("y/a > x/a:80", true),
                ("y/a > x/a:81", false),
                ("x/b > x/a:81", true),
                ("x/b > x/a:80", false),
            ],
        ),
        (
            "what is not understood lets nobody through",
            vec![(
                "x",
                json!({ "podSelector": a, "ingress": [
            { "from": [{ "ipBlock": { "cidr": "nothing" } }] }, { "from": [{ "ipBlock": { "cidr": "0.0.0.0/0", "except": ["nothing"] } }] },
        ] }),
            )],
            &[("y/a > x/a:80", false)],
        ),
    ] {
        let policies = policies(&all);
        for (flow, expected) in flows {
            if speaks(&policies, flow) != *expected {
                wrong.push(format!("{what}: {flow}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn who_is_selected_changes_with_labels_and_policies() {
    let y = json!({ "matchLabels": { "team": "blue" } });
    let spec = json!({ "podSelector": {}, "ingress": [{ "from": [{ "namespaceSelector": y }] }] });
    let mut policies = policies(&[("x", spec)]);
    assert!(!speaks(&policies, "y/a > x/a:80"));
    let labels = [("team".to_owned(), "blue".to_owned())].into();
    assert!(policies.set_namespace("y", Some(&labels)));
    assert!(
        !policies.set_namespace("y", Some(&labels)),
        "it is so already"
    );
    assert!(speaks(&policies, "y/a > x/a:80"));
    policies.set_namespace("y", None);
    assert!(!speaks(&policies, "y/a > x/a:80"));
    let names = policies.names(PolicyKind::Network);
    assert!(names.len() == 1 && policies.delete(&names[0]) && !policies.delete(&names[0]));
    assert!(speaks(&policies, "y/a > x/a:80") && policies.is_empty());
}

#[test]
fn a_refusal_names_a_policy_that_isolates() {
    let policies = policies(&[("x", json!({ "podSelector": {} }))]);
    let ((from, from_ip), (to, to_ip)) = (pod("y/a"), pod("x/a"));
    let refused = policies.admits(&Flow {
        from: End {
            ip: Some(from_ip),
            pod: Some(&from),
        },
        to: End {
            ip: Some(to_ip),
            pod: Some(&to),
        },
        protocol: Protocol::Tcp,
        port: 80,
    });
    assert_eq!(
        refused.expect_err("isolated").to_string(),
        "NetworkPolicy x/p0 isolates the pod that is called"
    );
}
