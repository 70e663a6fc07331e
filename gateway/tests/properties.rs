//! Whatever shape an object has: it is read or refused, never taken for something else, and what comes of it holds together.
//!
//! Cases are the same in every run; `WEFT_SEED=17` tries others, and a failure prints the seed and the smallest input.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};
use weft_api::view::ObjectMeta;
use weft_gateway::{Filter, Object, Objects, api, compile};

fn config() -> ProptestConfig {
    let seed = std::env::var("WEFT_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("WEFT_SEED={seed}");
    ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

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
        "Selector",
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
        "selector",
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

/// Rules that are mostly such as people write.
fn rule() -> impl Strategy<Value = Value> {
    let kind = |of: &[&'static str]| proptest::sample::select(of.to_vec());
    let matched = (
        kind(&["Exact", "PathPrefix", "RegularExpression"]),
        kind(&["/", "/a", "/a/b"]),
        kind(&["Exact", "RegularExpression"]),
    );
    let matched = matched.prop_map(|(path, value, header)| {
        json!({"path": {"type": path, "value": value}, "headers": [{"type": header, "name": "x", "value": "1"}]})
    });
    let filter = kind(&[
        "RequestHeaderModifier",
        "URLRewrite",
        "RequestRedirect",
        "CORS",
    ]);
    let filter = filter.prop_map(|kind| {
        json!({"type": kind, "requestHeaderModifier": {"remove": ["x"]}, "urlRewrite": {}, "requestRedirect": {}})
    });
    let backend = (
        kind(&["web", "nobody"]),
        kind(&["vote", "shop"]),
        79_u16..82,
    );
    let backend = backend.prop_map(
        |(name, namespace, port)| json!({"name": name, "namespace": namespace, "port": port}),
    );
    let list = |of: BoxedStrategy<Value>| proptest::collection::vec(of, 0..3);
    let whole = (
        list(matched.boxed()),
        list(filter.boxed()),
        list(backend.boxed()),
        kind(&["0s", "1h30m", "soon", "5s"]),
    );
    whole.prop_map(|(matches, filters, backends, limit)| {
        json!({"matches": matches, "filters": filters, "backendRefs": backends, "timeouts": {"request": limit}})
    })
}

fn metadata(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some("vote".to_owned()),
        ..ObjectMeta::default()
    }
}

/// A cluster with a gateway that takes every route, and the service `web`.
fn cluster() -> Objects {
    let mut objects = Objects::default();
    let class = json!({"controllerName": api::CONTROLLER_NAME});
    let class = api::Object::read(
        &ObjectMeta {
            namespace: None,
            ..metadata("weft")
        },
        &class,
    );
    objects.apply(Object::GatewayClass(class.expect("a class")));
    let listener = json!({"name": "http", "port": 80, "protocol": "HTTP"});
    let gateway = json!({"gatewayClassName": "weft", "listeners": [listener]});
    let gateway = api::Object::read(&metadata("public"), &gateway);
    objects.apply(Object::Gateway(Box::new(gateway.expect("a gateway"))));
    let web = api::Service {
        ports: vec![(None, 80)],
        protocols: vec![(80, "TCP".to_owned())],
        ..api::Service::default()
    };
    objects.apply(Object::Service(
        weft_gateway::NamespacedName::new("vote", "web"),
        web,
    ));
    objects
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn an_object_of_any_shape_is_read_or_refused(spec in shape(), rules in proptest::collection::vec(shape(), 0..3)) {
        let mut objects = cluster();
        if let Ok(gateway) = api::Object::read(&metadata("g"), &spec) {
            objects.apply(Object::Gateway(Box::new(gateway)));
        }
        for (name, spec) in [("r", spec), ("s", json!({"parentRefs": [{"name": "public"}], "rules": rules}))] {
            if let Ok(route) = api::Object::read(&metadata(name), &spec) {
                objects.apply(Object::HttpRoute(route));
            }
        }
        let compiled = compile(&objects);
        // A condition that cannot be kept never leaves a rule that matches everything.
        let hosts = compiled.served.listeners.values().flat_map(|hosts| hosts.values().flatten());
        for rule in hosts.flat_map(|route| route.rules.iter()) {
            prop_assert!(!rule.matches.is_empty());
        }
    }

    #[test]
    fn what_is_served_is_what_the_status_says(rules in proptest::collection::vec(rule(), 1..4)) {
        let mut objects = cluster();
        let spec = json!({"parentRefs": [{"name": "public"}], "rules": rules});
        let route = api::Object::read(&metadata("r"), &spec).expect("a route");
        objects.apply(Object::HttpRoute(route));
        let compiled = compile(&objects);
        let status = compiled.routes.values().next().expect("a status");
        let condition = |kind: &str| {
            let conditions = &status.parents[0].conditions;
            conditions.iter().find(|condition| condition.kind == kind)
        };
        let hosts = compiled.served.listeners.values().flat_map(|hosts| hosts.values().flatten());
        let served: Vec<_> = hosts.flat_map(|route| route.rules.iter()).collect();
        let is_closed = |rule: &weft_gateway::Rule| matches!(rule.filters.first(), Some(Filter::Invalid { .. }));
        let open = served.iter().filter(|rule| !is_closed(rule)).count();
        let accepted = condition("Accepted").is_some_and(|condition| condition.holds);
        // Accepted: at least one rule is done. Wholly: each of them is.
        prop_assert_eq!(accepted, open > 0);
        let is_partial = condition("PartiallyInvalid").is_some_and(|condition| condition.holds);
        prop_assert_eq!(is_partial, accepted && open < rules.len());
        // A backend that the status does not tell of is there.
        if condition("ResolvedRefs").is_some_and(|condition| condition.holds) {
            let targets = served.iter().filter(|rule| !is_closed(rule)).flat_map(|rule| &rule.backends);
            let targets: BTreeSet<String> = targets.map(|backend| format!("{:?}", backend.target)).collect();
            prop_assert!(targets.iter().all(|target| target.contains("name: \"web\", port: 80")), "{:?}", targets);
        }
    }
}
