//! What becomes of Services, slices and routes, whatever their shape.

use super::*;
use proptest::prelude::*;
use serde_json::json;

/// JSON made of the words of routes and gateways, and of what stands in their places.
fn shape() -> impl Strategy<Value = Value> {
    let word = proptest::sample::select(vec![
        "Gateway",
        "Service",
        "PathPrefix",
        "Exact",
        "RegularExpression",
        "RequestRedirect",
        "URLRewrite",
        "ReplaceFullPath",
        "ReplacePrefixMatch",
        "RequestHeaderModifier",
        "ExtensionRef",
        "HTTP",
        "HTTPS",
        "All",
        "weft",
        "vote",
        "GET",
        "/a",
        "1s",
        "9999999h",
        "x-a",
        "é\n",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let name = proptest::sample::select(vec![
        "matches",
        "path",
        "type",
        "value",
        "headers",
        "queryParams",
        "method",
        "filters",
        "backendRefs",
        "name",
        "namespace",
        "group",
        "kind",
        "port",
        "weight",
        "timeouts",
        "request",
        "requestRedirect",
        "statusCode",
        "hostname",
        "urlRewrite",
        "requestHeaderModifier",
        "set",
        "add",
        "remove",
        "listeners",
        "protocol",
        "allowedRoutes",
        "namespaces",
        "from",
        "gatewayClassName",
        "parentRefs",
        "hostnames",
        "rules",
        "sectionName",
    ]);
    leaf.prop_recursive(5, 48, 6, move |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => proptest::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(crate::properties::config())]

    #[test]
    fn a_route_of_any_shape_means_no_more_than_it_says(
        spec in shape(),
        one in shape(),
        matches in proptest::collection::vec(shape(), 0..3),
    ) {
        let object = |spec: Value| -> DynamicObject {
            let object = json!({"apiVersion": "v1", "kind": "Any", "metadata": {"name": "r"}, "spec": spec});
            serde_json::from_value(object).expect("an object")
        };
        let _ = route_spec("vote", "r", &object(spec.clone()));
        if let Some(gateway) = gateway_spec("vote", "g", &object(spec)) {
            prop_assert_eq!(gateway.namespace, "vote");
        }
        let written = json!({
            "matches": matches, "filters": [one.clone()], "backendRefs": [one.clone(), one.clone()], "timeouts": one,
        });
        if let Some(kept) = rule("vote", &written) {
            // A condition that cannot be kept never leaves a rule that matches everything.
            prop_assert_eq!(kept.matches.is_empty(), matches.is_empty());
            prop_assert!(kept.matches.len() <= matches.len());
            prop_assert_eq!((kept.filters.len(), kept.backends.len()), (1, 2));
        } else {
            prop_assert!(!matches.is_empty());
        }
    }

    #[test]
    fn annotations_of_a_slice_are_read_or_left(accounts in any::<String>(), ip in "[0-9.:]{1,12}|10\\.42\\.0\\.2", port in any::<i32>()) {
        let slice: EndpointSlice = serde_json::from_value(json!({
            "metadata": {"annotations": {annotation::ENDPOINT_SERVICE_ACCOUNTS: accounts}},
            "addressType": "IPv4", "ports": [{"port": port}], "endpoints": [{"addresses": [ip]}],
        })).expect("a slice");
        for found in endpoints("vote", &slice, None, &BTreeMap::new(), "cluster.local") {
            prop_assert_eq!((i32::from(found.port), found.ip.to_string().is_empty()), (port, false));
            prop_assert_eq!(found.identity.namespace, "vote");
        }
    }
}

#[test]
fn endpoints_take_port_node_and_identity_from_where_they_are() {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {
            "name": "web-abc", "namespace": "vote",
            "labels": {"kubernetes.io/service-name": "web", "app": "web"},
            "annotations": {annotation::ENDPOINT_SERVICE_ACCOUNTS: "{\"web-1\":\"web\"}"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080}],
        "endpoints": [
            {"addresses": ["10.42.0.2"], "nodeName": "a", "targetRef": {"name": "web-1"}, "conditions": {"ready": true}},
            {"addresses": ["10.42.1.2"], "nodeName": "b", "targetRef": {"name": "web-2"}, "conditions": {"ready": false, "serving": true, "terminating": true}},
        ],
    }))
    .expect("a slice");
    let nodes = BTreeMap::from([("b", "127.0.0.1:15444".parse().expect("an address"))]);
    let found = endpoints("vote", &slice, Some("http"), &nodes, "cluster.local");
    let text: Vec<String> = found
        .iter()
        .map(|e| {
            format!(
                "{} {}:{} on {} {:?} {} ready={} serving={}",
                e.pod, e.ip, e.port, e.node, e.node_address, e.identity, e.ready, e.serving
            )
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    web-1 10.42.0.2:8080 on a None spiffe://cluster.local/ns/vote/sa/web ready=true serving=true
    web-2 10.42.1.2:8080 on b Some(127.0.0.1:15444) spiffe://cluster.local/ns/vote/sa/default ready=false serving=true
    ");
    assert!(endpoints("vote", &slice, Some("other"), &nodes, "cluster.local").is_empty());
}

#[test]
fn routes_keep_what_they_mean_and_say_what_they_cannot() {
    let route: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "vote"},
        "spec": {
            "hostnames": ["vote.example"],
            "parentRefs": [{"name": "gw"}, {"group": "", "kind": "Service", "name": "voting"}],
            "rules": [{
                "matches": [{"path": {"type": "Exact", "value": "/a"}, "method": "GET"}, {"path": {"type": "RegularExpression", "value": ".*"}}],
                "backendRefs": [{"name": "web", "port": 80, "weight": 9}, {"name": "web", "namespace": "other", "port": 80}],
                "timeouts": {"request": "3s"},
            }],
        },
    }))
    .expect("a route");
    let spec = route_spec("vote", "web", &route);
    assert_eq!((spec.parents.len(), spec.rules.len()), (2, 1));
    let rule = &spec.rules[0];
    assert_eq!(rule.matches.len(), 1);
    assert!(matches!(
        &rule.backends[0],
        Backend {
            weight: 9,
            target: BackendTarget::Service { .. },
            ..
        }
    ));
    assert!(matches!(
        &rule.backends[1].target,
        BackendTarget::Invalid { .. }
    ));
    assert_eq!(rule.request_timeout, Some(Duration::from_secs(3)));
}
