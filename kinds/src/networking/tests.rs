//! Ingresses, their classes, policies, addresses and ranges, as tables.

use serde_json::{Value, json};

use super::*;
use crate::columns::cells;
use crate::default_class::tests::Classes;
use crate::validate::told;

fn ingress() -> Value {
    json!({"metadata": {"name": "i", "namespace": "n"}, "spec": {"rules": [{
        "host": "shop.example", "http": {"paths": [{
            "path": "/cart", "pathType": "Prefix", "backend": {"service": {"name": "cart", "port": {"number": 80}}},
        }]},
    }]}})
}

#[test]
fn ingresses_lead_somewhere() {
    const PATH: &str = "spec.rules[0].http.paths[0]";
    let path = |line: &str| format!("{PATH}{line}");
    told::check(
        &INGRESS,
        &ingress(),
        &[
            (
                "/spec",
                json!({}),
                &[
                    "spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
                ],
            ),
            (
                "/spec/rules/0/host",
                json!("10.0.0.1"),
                &[
                    "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
                ],
            ),
            (
                "/spec/rules/0/http/paths",
                json!([]),
                &["spec.rules[0].http.paths: Required value"],
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                Value::Null,
                &[&path(
                    ".pathType: Required value: pathType must be specified",
                )],
            ),
            (
                "/spec/rules/0/http/paths/0/pathType",
                json!("Suffix"),
                &[&path(
                    ".pathType: Unsupported value: \"Suffix\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
                )],
            ),
            (
                "/spec/rules/0/http/paths/0/path",
                json!("a//b/.."),
                &[
                    &path(".path: Invalid value: \"a//b/..\": must be an absolute path"),
                    &path(".path: Invalid value: \"a//b/..\": must not contain '//'"),
                    &path(".path: Invalid value: \"a//b/..\": cannot end with '/..'"),
                ],
            ),
            (
                "/spec/rules/0/http/paths/0/backend",
                json!({}),
                &[&path(
                    ".backend: Invalid value: \"\": resource or service backend is required",
                )],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port",
                json!({}),
                &[&path(
                    ".backend: Required value: port name or number is required",
                )],
            ),
            (
                "/spec/rules/0/http/paths/0/backend/service/port/name",
                json!("http"),
                &[&path(
                    ".backend: Invalid value: \"\": cannot set both port name & port number",
                )],
            ),
            (
                "/spec/rules/0/http/paths/0/backend",
                json!({"resource": {"kind": "", "name": "a/b"}}),
                &[
                    &path(".backend.resource.kind: Required value"),
                    &path(".backend.resource.name: Invalid value: \"a/b\": may not contain '/'"),
                ],
            ),
        ],
    );
    let both = told::with(&ingress(), "/spec/ingressClassName", json!("a"));
    let annotations = json!({CLASS_ANNOTATION: "b"});
    let both = told::with(&both, "/metadata/annotations", annotations);
    assert_eq!(
        told::of_new(&INGRESS, &both),
        [
            "annotations.kubernetes.io/ingress.class: Invalid value: \"b\": must match `ingressClassName` when both are specified"
        ]
    );
    // Of one that is there already, only its new class is judged.
    assert_eq!(told::of_update(&INGRESS, &both, &ingress(), None), [""; 0]);
}

#[test]
fn the_newest_default_class_is_given_to_those_without_one() {
    let default = |name: &str, created: &str, default: &str| {
        json!({"metadata": {"name": name, "creationTimestamp": created,
            "annotations": {"ingressclass.kubernetes.io/is-default-class": default}}})
    };
    let classes = Classes(vec![
        default("old", "2026-01-01T00:00:00Z", "true"),
        default("zwei", "2026-01-02T00:00:00Z", "true"),
        default("drei", "2026-01-02T00:00:00Z", "true"),
        default("none", "2026-01-03T00:00:00Z", "false"),
    ]);
    let admitted = |new: Value, classes: &Classes| {
        let mut new = new;
        INGRESS.strategy.admit(&mut new, classes).unwrap();
        new["spec"]["ingressClassName"].clone()
    };
    assert_eq!(admitted(ingress(), &classes), "drei");
    assert_eq!(admitted(ingress(), &Classes(Vec::new())), Value::Null);
    let named = told::with(&ingress(), "/spec/ingressClassName", json!("own"));
    assert_eq!(admitted(named, &classes), "own");
    let annotated = json!({CLASS_ANNOTATION: "b"});
    let annotated = told::with(&ingress(), "/metadata/annotations", annotated);
    assert_eq!(admitted(annotated, &classes), Value::Null);
}

#[test]
fn hosts_are_named_up_to_three() {
    for (hosts, expected) in [
        (vec![""], "*"),
        (vec!["a", "b", "c"], "a,b,c"),
        (vec!["a", "", "b", "c", ""], "a,b,c + 2 more..."),
    ] {
        let rules: Vec<Value> = hosts.iter().map(|host| json!({"host": host})).collect();
        let ingress = json!({"metadata": {"name": "i"}, "spec": {"rules": rules, "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "a.example"}]}}});
        assert_eq!(
            json!(cells(&INGRESS, &ingress)),
            json!([
                "i",
                "<none>",
                expected,
                "192.0.2.2,a.example",
                "80, 443",
                "10s"
            ])
        );
    }
}

#[test]
fn classes_name_a_controller_that_stays() {
    let class = json!({"metadata": {"name": "c", "annotations": {
        "ingressclass.kubernetes.io/is-default-class": "true",
    }}, "spec": {"controller": "example.com/one", "parameters": {"apiGroup": "x.io", "kind": "K", "name": "p"}}});
    told::check(
        &INGRESS_CLASS,
        &class,
        &[
            (
                "/spec",
                json!({"parameters": {"scope": "Namespace"}}),
                &[
                    "spec.controller: Required value",
                    "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
                    "spec.parameters.kind: Required value",
                    "spec.parameters.name: Required value",
                ],
            ),
            (
                "/spec/controller",
                json!("one"),
                &[
                    "spec.controller: Invalid value: \"one\": must be a domain-prefixed path (such as \"acme.io/foo\")",
                ],
            ),
            (
                "/spec/parameters/namespace",
                json!("n"),
                &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
            ),
        ],
    );
    let other = told::with(&class, "/spec/controller", json!("example.com/two"));
    assert_eq!(
        told::of_update(&INGRESS_CLASS, &other, &class, None),
        ["spec.controller: Invalid value: \"example.com/two\": field is immutable"]
    );
    assert_eq!(
        json!(cells(&INGRESS_CLASS, &class)),
        json!(["c (default)", "example.com/one", "K.x.io/p", "10s"])
    );
}

#[test]
fn policies_name_peers_ports_and_directions() {
    let policy = json!({"metadata": {"name": "p", "namespace": "n"}, "spec": {
        "podSelector": {"matchLabels": {"app": "db"}}, "egress": [{
            "to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}],
        }],
    }});
    let mut defaulted = policy.clone();
    NETWORK_POLICY.strategy.default(&mut defaulted);
    assert_eq!(
        defaulted["spec"]["policyTypes"],
        json!(["Ingress", "Egress"])
    );
    assert_eq!(
        defaulted["spec"]["egress"][0]["ports"][0]["protocol"],
        "TCP"
    );
    told::check(
        &NETWORK_POLICY,
        &policy,
        &[
            (
                "/spec/egress/0/ports/0",
                json!({"port": "http", "endPort": 1, "protocol": "X"}),
                &[
                    "spec.egress[0].ports[0].protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
                    "spec.egress[0].ports[0].endPort: Invalid value: 1: may not be specified when `port` is non-numeric",
                ],
            ),
            (
                "/spec/egress/0/ports/0/endPort",
                json!(1),
                &[
                    "spec.egress[0].ports[0].endPort: Invalid value: 1: must be greater than or equal to `port`",
                ],
            ),
            (
                "/spec/egress/0/to",
                json!([{}, {"ipBlock": {}}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]),
                &[
                    "spec.egress[0].to[0]: Required value: must specify a peer",
                    "spec.egress[0].to[2]: Forbidden: may not specify both ipBlock and another peer",
                    "spec.egress[0].to[1].ipBlock.cidr: Required value",
                ],
            ),
            (
                "/spec/egress/0/to/0/ipBlock/except/0",
                json!("10.0.0.0/8"),
                &[
                    "spec.egress[0].to[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
                ],
            ),
            (
                "/spec/policyTypes",
                json!(["In"]),
                &[
                    "spec.policyTypes[0]: Unsupported value: \"In\": supported values: \"Ingress\", \"Egress\"",
                ],
            ),
        ],
    );
    assert_eq!(
        json!(cells(&NETWORK_POLICY, &policy)),
        json!(["p", "app=db", "10s"])
    );
}

#[test]
fn addresses_are_held_by_something() {
    let address = json!({"metadata": {"name": "10.43.0.1"}, "spec": {"parentRef": {
        "resource": "services", "namespace": "default", "name": "kubernetes",
    }}});
    told::check(
        &IP_ADDRESS,
        &address,
        &[
            (
                "/metadata/name",
                json!("010.43.0.1"),
                &["metadata.name: Invalid value: \"010.43.0.1\": must not have leading 0s"],
            ),
            (
                "/spec/parentRef",
                json!({}),
                &[
                    "spec.parentRef.resource: Required value",
                    "spec.parentRef.name: Required value",
                ],
            ),
        ],
    );
    let other = told::with(&address, "/spec/parentRef/name", json!("web"));
    assert_eq!(
        told::of_update(&IP_ADDRESS, &other, &address, None),
        ["spec.parentRef: Invalid value: null: field is immutable"]
    );
    assert_eq!(
        json!(cells(&IP_ADDRESS, &address)),
        json!(["10.43.0.1", "services/default/kubernetes", "10s"])
    );
}

#[test]
fn ranges_are_of_different_families_and_only_grow() {
    let ranges = |cidrs: Value| json!({"metadata": {"name": "r"}, "spec": {"cidrs": cidrs}});
    let one = ranges(json!(["10.43.0.0/16"]));
    told::check(
        &SERVICE_CIDR,
        &one,
        &[
            (
                "/spec/cidrs",
                json!([]),
                &["spec.cidrs: Required value: at least one CIDR required"],
            ),
            (
                "/spec/cidrs",
                json!(["a", "b", "c"]),
                &[
                    "spec.cidrs: Invalid value: {\"CIDRs\":[\"a\",\"b\",\"c\"]}: may only hold up to 2 values",
                ],
            ),
            (
                "/spec/cidrs",
                json!(["10.0.0.0/8", "10.0.0.1/8"]),
                &[
                    "spec.cidrs[1]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
                    "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"10.0.0.1/8\"]: may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64",
                ],
            ),
        ],
    );
    for (cidrs, expected) in [
        (json!(["10.43.0.0/16", "2001:db8::/112"]), vec![]),
        (
            json!(["10.44.0.0/16"]),
            vec!["spec.cidrs[0]: Invalid value: \"10.44.0.0/16\": field is immutable"],
        ),
        (
            json!([]),
            vec!["spec.cidrs: Invalid value: []: field is immutable"],
        ),
    ] {
        let found = told::of_update(&SERVICE_CIDR, &ranges(cidrs), &one, None);
        assert_eq!(found, expected);
    }
    assert_eq!(
        json!(cells(
            &SERVICE_CIDR,
            &ranges(json!(["10.0.0.0/8", "2001:db8::/112"]))
        )),
        json!(["r", "10.0.0.0/8,2001:db8::/112", "10s"])
    );
}
