//! Routes of requests: who takes them, what they refer to, and what they mean.

use crate::told::{self, Cluster, TESTS_OWN};

/// The label of a namespace decides, at each moment, in status and service alike.
#[test]
fn a_selector_admits_routes_of_the_namespaces_that_bear_the_label() {
    let mut cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - name: http
      port: 9080
      protocol: HTTP
      allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: t}}}}
- kind: Namespace
  metadata: {name: shop, labels: {team: t}}
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec:
    parentRefs: [{name: public, namespace: infra}]
    hostnames: [s.test]
    rules: [{backendRefs: [{name: web, port: 80}]}]
",
    );
    insta::assert_snapshot!(cluster.told_of("route shop/web", true), @r"
    route shop/web
      at Gateway public
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *
        s.test: shop/web, port 9080
          everything → web.shop:80
    ");
    cluster.apply("[{kind: Namespace, metadata: {name: shop, labels: {team: u}}}]");
    insta::assert_snapshot!(cluster.told_of("route shop/web", true), @r"
    route shop/web
      at Gateway public
        Accepted=False NotAllowedByListeners: No listener allows routes of namespace shop.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *
    ");
    cluster.apply("[{kind: Namespace, metadata: {name: shop, labels: {team: t}}}]");
    assert!(
        cluster
            .told()
            .contains("Accepted=True Accepted: The route is accepted.")
    );
}

/// A Service is a parent like a Gateway: each gets its entry, and what is not there says so.
#[test]
fn routes_to_services_have_a_status() {
    let cluster = Cluster::of(
        r#"
- kind: Service
  metadata: {name: headless, namespace: shop}
  spec: {clusterIP: None, ports: [{port: 80}]}
- kind: Service
  metadata: {name: alias, namespace: shop}
  spec: {type: ExternalName, externalName: example.com}
- kind: HTTPRoute
  metadata: {name: producer, namespace: shop}
  spec:
    parentRefs:
    - {group: "", kind: Service, name: web}
    - {group: "", kind: Service, name: api, sectionName: grpc}
    - {group: "", kind: Service, name: api, port: 81}
    - {group: "", kind: Service, name: nobody}
    - {group: "", kind: Service, name: headless}
    - {group: "", kind: Service, name: alias}
    - {group: other.dev, kind: Mesh, name: all}
    rules: [{backendRefs: [{name: web, port: 80, weight: 90}, {name: api, port: 80, weight: 10}]}]
- kind: HTTPRoute
  metadata: {name: consumer, namespace: cart}
  spec:
    parentRefs: [{group: "", kind: Service, name: web, namespace: shop}]
    # Whoever calls the service may call this one too: no grant is needed.
    rules: [{backendRefs: [{name: api, namespace: shop, port: 80}]}]
"#,
    );
    insta::assert_snapshot!(cluster.told(), @r"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    route cart/consumer
      at Service web
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/producer
      at Service web
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service api grpc
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service api 81
        Accepted=False NoMatchingParent: Service shop/api has no such port; it has 80, 50051.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service nobody
        Accepted=False NoMatchingParent: There is no Service shop/nobody.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service headless
        Accepted=False NoMatchingParent: Service shop/headless is headless: its pods are called, and routes have no part in that.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service alias
        Accepted=False NoMatchingParent: Service shop/alias is an ExternalName: nobody is called by its name.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      service shop/api port 50051, for all: shop/producer
          everything → web.shop:80 ×90 | api.shop:80 ×10
      service shop/web, for all: shop/producer
          everything → web.shop:80 ×90 | api.shop:80 ×10
      service shop/web, for cart: cart/consumer
          everything → api.shop:80
    ");
}

/// A backend that cannot be called is told, in the words in which its share of the requests is answered.
#[test]
fn references_that_do_not_hold_are_told_and_nothing_else_is_closed() {
    let mut cluster = Cluster::of(
        r"
- kind: Service
  metadata: {name: alias, namespace: shop}
  spec: {type: ExternalName, externalName: example.com, ports: [{port: 80}]}
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP}]}
- kind: HTTPRoute
  metadata: {name: r, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    rules:
    - matches: [{path: {value: /port}}]
      backendRefs: [{name: web, port: 80, weight: 9}, {name: web, port: 8080}]
    - matches: [{path: {value: /nobody}}]
      backendRefs: [{name: nobody, port: 80}]
    - matches: [{path: {value: /kind}}]
      backendRefs: [{group: storage.example.com, kind: Bucket, name: b}]
    - matches: [{path: {value: /foreign}}]
      backendRefs: [{name: prices, namespace: stock, port: 80}]
    - matches: [{path: {value: /alias}}]
      backendRefs: [{name: alias, port: 80}]
- kind: Service
  metadata: {name: prices, namespace: stock}
  spec: {clusterIP: 10.43.0.9, ports: [{port: 80}]}
",
    );
    insta::assert_snapshot!(cluster.told_of("route shop/r", true), @r"
    route shop/r
      at Gateway public
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=False BackendNotFound: Service shop/web has no port 8080; it has 80. There is no Service shop/nobody. Backend b is a Bucket; only Services are supported. No ReferenceGrant in stock lets HTTPRoutes of shop refer to Service stock/prices. Service shop/alias is an ExternalName, which routes cannot lead to.

    served
      listener *
        *: shop/r, port 9080
          prefix /port → web.shop:80 ×9 | web.shop:8080
          prefix /nobody → nobody.shop:80
          prefix /kind → 500 backend b is a Bucket; only Services are supported
          prefix /foreign → 500 No ReferenceGrant in stock lets HTTPRoutes of shop refer to Service stock/prices
          prefix /alias → 500 Service shop/alias is an ExternalName, which routes cannot lead to
    ");
    cluster.apply(
        r#"
- kind: ReferenceGrant
  metadata: {name: shop, namespace: stock}
  spec:
    from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]
    to: [{group: "", kind: Service, name: prices}]
"#,
    );
    let granted = cluster.told();
    assert!(
        granted.contains("prefix /foreign → prices.stock:80"),
        "{granted}"
    );
    assert!(!granted.contains("RefNotPermitted"), "{granted}");
    // For another service, another namespace, or gone: revoked at once.
    for grant in [
        r#"{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Service, name: other}]}"#,
        r#"{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: cart}], to: [{group: "", kind: Service}]}"#,
        r#"{from: [{group: gateway.networking.k8s.io, kind: GRPCRoute, namespace: shop}], to: [{group: "", kind: Service}]}"#,
        r#"{from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: "", kind: Secret}]}"#,
    ] {
        let object = format!(
            "[{{kind: ReferenceGrant, metadata: {{name: shop, namespace: stock}}, spec: {grant}}}]"
        );
        cluster.apply(&object);
        assert!(cluster.told().contains("/foreign → 500 "), "{grant}");
    }
}

/// The furthest refusal is the one told.
#[test]
fn a_parent_that_does_not_take_the_route_says_why() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: http, port: 9080, protocol: HTTP, hostname: '*.shop.test'}
    - {name: tls, port: 443, protocol: HTTPS}
- kind: Gateway
  metadata: {name: foreign, namespace: shop}
  spec: {gatewayClassName: other, listeners: [{name: http, port: 80, protocol: HTTP}]}
- kind: GatewayClass
  metadata: {name: other}
  spec: {controllerName: example.com/gateway}
- kind: HTTPRoute
  metadata: {name: section, namespace: shop}
  spec: {parentRefs: [{name: public, sectionName: grpc}, {name: public, port: 81}], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: HTTPRoute
  metadata: {name: namespace, namespace: cart}
  spec: {parentRefs: [{name: public, namespace: shop}], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: HTTPRoute
  metadata: {name: hostname, namespace: shop}
  spec: {parentRefs: [{name: public}], hostnames: [shop.test], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: HTTPRoute
  metadata: {name: protocol, namespace: shop}
  spec: {parentRefs: [{name: public, sectionName: tls}], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: HTTPRoute
  metadata: {name: lost, namespace: shop}
  spec: {parentRefs: [{name: nowhere}, {name: foreign}], rules: [{backendRefs: [{name: web, port: 80}]}]}
",
    );
    insta::assert_snapshot!(cluster.told(), @r"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    gateway shop/public at 127.0.0.1
      Accepted=True ListenersNotValid: 1 of 2 listeners are not valid: tls.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at port 9080.
      listener tls takes nothing, 0 attached
        Accepted=False UnsupportedProtocol: Protocol HTTPS is not supported; HTTP is.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: Protocol HTTPS is not supported; HTTP is.

    route cart/namespace
      at Gateway public
        Accepted=False NotAllowedByListeners: No listener allows routes of namespace cart.
        ResolvedRefs=False BackendNotFound: There is no Service cart/web.

    route shop/hostname
      at Gateway public
        Accepted=False NoMatchingListenerHostname: No listener has a hostname in common with the route.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/lost
      there is no Gateway shop/nowhere

    route shop/protocol
      at Gateway public tls
        Accepted=False NotAllowedByListeners: No listener allows HTTPRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/section
      at Gateway public grpc
        Accepted=False NoMatchingParent: The gateway has no such listener; it has http, tls.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Gateway public 81
        Accepted=False NoMatchingParent: The gateway has no such listener; it has http, tls.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *.shop.test
    ");
}

/// Nothing is green that is not done, and what a filter was meant for is never served without it.
#[test]
fn what_is_not_supported_is_refused_by_name_and_answered_with_500() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP}]}
- kind: HTTPRoute
  metadata: {name: partly, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    hostnames: [partly.test]
    rules:
    - backendRefs: [{name: web, port: 80}]
    - matches: [{path: {value: /admin}}]
      filters: [{type: ExtensionRef, extensionRef: {group: x.dev, kind: Login, name: l}}]
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {type: RegularExpression, value: '/v[0-9'}}, {path: {type: Exact, value: /both}}]
      backendRefs: [{name: web, port: 80}]
    - matches: [{path: {type: Glob, value: '/only.*'}}]
      backendRefs: [{name: web, port: 80}]
- kind: HTTPRoute
  metadata: {name: all, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    hostnames: [all.test]
    rules:
    - filters: [{type: ExternalAuth}, {type: CORS}]
      backendRefs: [{name: web, port: 80}]
- kind: HTTPRoute
  metadata: {name: header, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    hostnames: [header.test]
    rules:
    - matches: [{headers: [{type: Glob, name: x, value: .*}], queryParams: [{name: q, value: v}]}]
      backendRefs: [{name: web, port: 80}]
- kind: HTTPRoute
  metadata: {name: exclusive, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    hostnames: [exclusive.test]
    rules:
    - filters:
      - {type: RequestRedirect, requestRedirect: {hostname: x.test}}
      - {type: URLRewrite, urlRewrite: {hostname: y.test}}
- kind: HTTPRoute
  metadata: {name: ignored, namespace: shop}
  spec:
    parentRefs: [{name: public}]
    hostnames: [ignored.test]
    rules:
    - backendRefs: [{name: web, port: 80}]
      retry: {attempts: 3, codes: [503]}
      sessionPersistence: {type: Cookie, idleTimeout: 5m}
",
    );
    insta::assert_snapshot!(cluster.told(), @r#"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    gateway shop/public at 127.0.0.1
      Accepted=True Accepted: The gateway is accepted.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener http takes HTTPRoute, GRPCRoute, 5 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at port 9080.

    route shop/all
      at Gateway public
        Accepted=False UnsupportedValue: spec.rules[0]: filter ExternalAuth is not supported; filter CORS lacks its settings. What the route matches is answered with 500.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/exclusive
      at Gateway public
        Accepted=False IncompatibleFilters: spec.rules[0]: RequestRedirect and URLRewrite exclude each other. What the route matches is answered with 500.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/header
      at Gateway public
        Accepted=False UnsupportedValue: spec.rules[0]: a header match of type Glob is not supported. What the route matches is answered with 500.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/ignored
      at Gateway public
        Accepted=True Accepted: The route is accepted. Not supported and without effect: spec.rules[0].sessionPersistence.idleTimeout.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/partly
      at Gateway public
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
        PartiallyInvalid=True UnsupportedValue: Dropped Rule spec.rules[1]: filter ExtensionRef is not supported; spec.rules[2]: "/v[0-9" is no regular expression; spec.rules[3]: a path match of type Glob is not supported. What it matches is answered with 500.

    served
      listener *
        all.test: shop/all, port 9080
          everything → 500 filter ExternalAuth is not supported; filter CORS lacks its settings
        exclusive.test: shop/exclusive, port 9080
          everything → 500 RequestRedirect and URLRewrite exclude each other
        ignored.test: shop/ignored, port 9080
          everything → web.shop:80
        partly.test: shop/partly, port 9080
          everything → web.shop:80
          prefix /admin → 500 filter ExtensionRef is not supported
          exact /both → 500 "/v[0-9" is no regular expression
    "#);
}

/// What a rule asks for is what the data plane is handed.
#[test]
fn rules_keep_what_they_mean() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP}]}
- kind: HTTPRoute
  metadata: {name: r, namespace: shop}
  spec:
    parentRefs: [{name: public}, {name: public, sectionName: http}]
    rules:
    - matches:
      - {path: {type: Exact, value: /a}, method: GET}
      - headers: [{name: X-Team, value: blue}, {name: x-team, value: red}]
        queryParams: [{name: q, value: '1'}, {name: q, value: '2'}]
      filters:
      - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-A, value: b}], add: [{name: c, value: d}], remove: [e]}}
      - {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: f, value: g}]}}
      - {type: URLRewrite, urlRewrite: {hostname: h.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /i}}}
      backendRefs: [{name: web, port: 80, weight: 9}, {name: api, port: 80}]
      timeouts: {request: 1m30s, backendRequest: 500ms}
    - matches: [{path: {value: /off}}]
      filters:
      - type: RequestRedirect
        requestRedirect: {scheme: https, statusCode: 308, path: {type: ReplaceFullPath, replaceFullPath: /j}}
      timeouts: {request: 0s}
",
    );
    insta::assert_snapshot!(cluster.rules("shop/r"), @r#"
    Rule {
        route: "shop/r",
        name: None,
        matches: [
            Match {
                path: Exact(
                    "/a",
                ),
                method: Some(
                    GET,
                ),
                headers: [],
                query: [],
                header_patterns: [],
                query_patterns: [],
            },
            Match {
                path: Prefix(
                    "/",
                ),
                method: None,
                headers: [
                    (
                        "x-team",
                        "blue",
                    ),
                ],
                query: [
                    (
                        "q",
                        "1",
                    ),
                ],
                header_patterns: [],
                query_patterns: [],
            },
        ],
        filters: [
            RequestHeaders(
                HeaderChange {
                    set: [
                        (
                            "x-a",
                            "b",
                        ),
                    ],
                    add: [
                        (
                            "c",
                            "d",
                        ),
                    ],
                    remove: [
                        "e",
                    ],
                },
            ),
            ResponseHeaders(
                HeaderChange {
                    set: [
                        (
                            "f",
                            "g",
                        ),
                    ],
                    add: [],
                    remove: [],
                },
            ),
            Rewrite(
                Rewrite {
                    hostname: Some(
                        "h.test",
                    ),
                    path: Some(
                        Prefix(
                            "/i",
                        ),
                    ),
                },
            ),
        ],
        backends: [
            Backend {
                weight: 9,
                target: Service {
                    namespace: "shop",
                    name: "web",
                    port: 80,
                },
                filters: [],
                protocol: AsAsked,
                tls: None,
            },
            Backend {
                weight: 1,
                target: Service {
                    namespace: "shop",
                    name: "api",
                    port: 80,
                },
                filters: [],
                protocol: AsAsked,
                tls: None,
            },
        ],
        request_timeout: Some(
            90s,
        ),
        backend_timeout: Some(
            500ms,
        ),
        retry: None,
        hedge_after: None,
        session: None,
    }
    Rule {
        route: "shop/r",
        name: None,
        matches: [
            Match {
                path: Prefix(
                    "/off",
                ),
                method: None,
                headers: [],
                query: [],
                header_patterns: [],
                query_patterns: [],
            },
        ],
        filters: [
            Redirect(
                Redirect {
                    scheme: Some(
                        "https",
                    ),
                    hostname: None,
                    port: None,
                    path: Some(
                        Full(
                            "/j",
                        ),
                    ),
                    status: Some(
                        308,
                    ),
                },
            ),
        ],
        backends: [],
        request_timeout: Some(
            1800000000s,
        ),
        backend_timeout: None,
        retry: None,
        hedge_after: None,
        session: None,
    }
    "#);
}

/// Statuses and routes depend on the objects alone.
#[test]
fn the_order_in_which_objects_come_means_nothing() {
    let documents = TESTS_OWN.split("\n- ").skip(1);
    let documents: Vec<&str> = documents.collect();
    let mut forward = Cluster::default();
    let mut backward = Cluster::default();
    for document in &documents {
        forward.apply(&told::item(document));
    }
    for document in documents.iter().rev() {
        backward.apply(&told::item(document));
    }
    assert_eq!(forward.compiled(), backward.compiled());
    assert!(forward.told().contains("attached"), "{}", forward.told());
    // And what went is as if it had never been.
    let before = forward.compiled();
    forward.apply(&told::node("z", "192.0.2.1", Some(1), true));
    assert_ne!(forward.compiled(), before);
    forward.delete_node("z");
    assert_eq!(forward.compiled(), before);
}
