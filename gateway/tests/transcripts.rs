//! Small clusters in, routes and statuses out: what the nodes serve and what the statuses say of it, side by side.

mod told;

use told::{Cluster, TESTS_OWN};

/// Two listeners that differ by their port alone were one: a redirect attached to the one answered on the other and looped.
#[test]
fn two_listeners_of_a_gateway_do_not_mix() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: alt, port: 8080, protocol: HTTP}
- kind: HTTPRoute
  metadata: {name: redirect, namespace: shop}
  spec:
    parentRefs: [{name: public, sectionName: http}]
    rules: [{filters: [{type: RequestRedirect, requestRedirect: {port: 8080, statusCode: 301}}]}]
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec:
    parentRefs: [{name: public, sectionName: alt}]
    rules: [{backendRefs: [{name: web, port: 80}]}]
",
    );
    insta::assert_snapshot!(cluster.told(), @r"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    gateway shop/public at 127.0.0.1
      Accepted=True ListenersNotValid: 1 of 2 listeners are not valid: alt.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener http takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes answer for it at port 9080, not at 80: a node has one port for its gateway, which its flag --gateway-port sets.
      listener alt takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=False PortUnavailable: Port 8080 is not available: all listeners answer at the one port that a node's gateway has, and listener http (port 80) answers there for the same hosts; only another hostname tells them apart.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: Port 8080 is not available: all listeners answer at the one port that a node's gateway has, and listener http (port 80) answers there for the same hosts; only another hostname tells them apart.

    route shop/redirect
      at Gateway public http
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/web
      at Gateway public alt
        Accepted=False NoReadyListeners: No listener that allows the route is served: Port 8080 is not available: all listeners answer at the one port that a node's gateway has, and listener http (port 80) answers there for the same hosts; only another hostname tells them apart.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *
        *: shop/redirect
          everything → redirect to port Some(8080), Some(301)
    ");
}

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

/// The port of a listener is a wish; where requests really arrive is said, and who listens.
#[test]
fn a_gateway_says_where_the_nodes_really_listen() {
    let gateway = r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
";
    let mut cluster = Cluster::of(gateway);
    insta::assert_snapshot!(cluster.told_of("gateway shop/public", false), @r"
    gateway shop/public at 127.0.0.1
      Accepted=True Accepted: The gateway is accepted.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes answer for it at port 9080, not at 80: a node has one port for its gateway, which its flag --gateway-port sets.
    ");
    for node in ["b", "c"] {
        cluster.apply(&told::node(node, "192.0.2.2", Some(80), true));
    }
    insta::assert_snapshot!(cluster.told_of("gateway shop/public", false), @r"
    gateway shop/public at 127.0.0.1, 192.0.2.2
      Accepted=True Accepted: The gateway is accepted.
      Programmed=True Programmed: 3 nodes answer at ports 80 and 9080.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at ports 80 and 9080.
    ");
    cluster.apply(&told::node("a", "127.0.0.1", Some(9080), false));
    cluster.apply(&told::node("b", "192.0.2.2", None, true));
    cluster.apply(&told::node("c", "192.0.2.2", None, false));
    insta::assert_snapshot!(cluster.told_of("gateway shop/public", false), @r"
    gateway shop/public at 192.0.2.2
      Accepted=True Accepted: The gateway is accepted.
      Programmed=True Programmed: 1 node answers.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen.
    ");
    cluster.apply(&told::node("b", "192.0.2.2", Some(80), false));
    insta::assert_snapshot!(cluster.told_of("gateway shop/public", false), @r"
    gateway shop/public at nowhere
      Accepted=True Accepted: The gateway is accepted.
      Programmed=False AddressNotAssigned: No node is ready to listen.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Pending: No node is ready to listen.
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

/// Of listeners in conflict none is served; the others are.
#[test]
fn listeners_that_cannot_be_served_say_so_and_serve_nothing() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: good, port: 9080, protocol: HTTP, hostname: good.test}
    - {name: one, port: 9080, protocol: HTTP, hostname: Same.test}
    - {name: two, port: 9080, protocol: HTTP, hostname: same.test}
    - {name: clear, port: 81, protocol: HTTP, hostname: clear.test}
    - {name: tls, port: 81, protocol: HTTPS, hostname: tls.test}
    - name: kinds
      port: 9080
      protocol: HTTP
      hostname: kinds.test
      allowedRoutes: {kinds: [{kind: HTTPRoute}, {kind: TCPRoute}]}
    - name: grpc
      port: 9080
      protocol: HTTP
      hostname: grpc.test
      allowedRoutes: {kinds: [{kind: UDPRoute}]}
    - name: selector
      port: 9080
      protocol: HTTP
      hostname: selector.test
      allowedRoutes: {namespaces: {from: Selector, selector: {matchExpressions: [{key: a, operator: Near}]}}}
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec: {parentRefs: [{name: public}], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: HTTPRoute
  metadata: {name: conflicted, namespace: shop}
  spec: {parentRefs: [{name: public, sectionName: two}], rules: [{backendRefs: [{name: web, port: 80}]}]}
",
    );
    insta::assert_snapshot!(cluster.told(), @r#"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    gateway shop/public at 127.0.0.1
      Accepted=True ListenersNotValid: 6 of 8 listeners are not valid: one, two, clear, tls, grpc, selector.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener good takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at port 9080.
      listener one takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=False HostnameConflict: Listener two has the same port, protocol and hostname.
        Conflicted=True HostnameConflict: Listener two has the same port, protocol and hostname.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False HostnameConflict: The listener is not served: Listener two has the same port, protocol and hostname.
      listener two takes HTTPRoute, GRPCRoute, 2 attached
        Accepted=False HostnameConflict: Listener one has the same port, protocol and hostname.
        Conflicted=True HostnameConflict: Listener one has the same port, protocol and hostname.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False HostnameConflict: The listener is not served: Listener one has the same port, protocol and hostname.
      listener clear takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=False ProtocolConflict: Listener tls has the same port for protocol HTTPS.
        Conflicted=True ProtocolConflict: Listener tls has the same port for protocol HTTPS.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener tls has the same port for protocol HTTPS.
      listener tls takes nothing, 0 attached
        Accepted=False ProtocolConflict: Listener clear has the same port for protocol HTTP.
        Conflicted=True ProtocolConflict: Listener clear has the same port for protocol HTTP.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener clear has the same port for protocol HTTP.
      listener kinds takes HTTPRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidRouteKinds: Routes of kind TCPRoute cannot attach; HTTPRoutes and GRPCRoutes can.
        Programmed=True Programmed: The nodes listen at port 9080.
      listener grpc takes nothing, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidRouteKinds: Routes of kind UDPRoute cannot attach; HTTPRoutes and GRPCRoutes can.
        Programmed=False Invalid: The listener is not served: Routes of kind UDPRoute cannot attach; HTTPRoutes and GRPCRoutes can.
      listener selector takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=False UnsupportedValue: allowedRoutes.namespaces has a selector that cannot be read (matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator); no route can attach.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: allowedRoutes.namespaces has a selector that cannot be read (matchExpressions[0].operator: Invalid value: "Near": not a valid selector operator); no route can attach.

    route shop/conflicted
      at Gateway public two
        Accepted=False NoReadyListeners: No listener that allows the route is served: Listener one has the same port, protocol and hostname.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/web
      at Gateway public
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener good.test
        good.test: shop/web, port 9080
          everything → web.shop:80
      listener kinds.test
        kinds.test: shop/web, port 9080
          everything → web.shop:80
    "#);
}

/// All Gateways share the nodes' port. Whoever may make one does not get at the paths of another's host.
#[test]
fn a_host_belongs_to_the_oldest_gateway_that_has_a_route_for_it() {
    let cluster = Cluster::of(
        r"
- kind: Gateway
  metadata: {name: mine, namespace: mallory, creationTimestamp: '2026-01-02T00:00:00Z'}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP}]}
- kind: Gateway
  metadata: {name: public, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {gatewayClassName: weft, listeners: [{name: http, port: 9080, protocol: HTTP}]}
- kind: HTTPRoute
  metadata: {name: claim, namespace: mallory, creationTimestamp: '2025-01-01T00:00:00Z'}
  spec:
    parentRefs: [{name: mine}]
    hostnames: [shop.test]
    rules: [{matches: [{path: {type: Exact, value: /login}}], backendRefs: [{name: trap, port: 80}]}]
- kind: HTTPRoute
  metadata: {name: own, namespace: mallory}
  spec:
    parentRefs: [{name: mine}]
    hostnames: [shop.test, mallory.test]
    rules: [{backendRefs: [{name: trap, port: 80}]}]
- kind: HTTPRoute
  metadata: {name: web, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec:
    parentRefs: [{name: public}]
    hostnames: [shop.test]
    rules: [{backendRefs: [{name: web, port: 80}]}]
- kind: Service
  metadata: {name: trap, namespace: mallory}
  spec: {clusterIP: 10.43.0.8, ports: [{port: 80}]}
",
    );
    insta::assert_snapshot!(cluster.told_without(&["gateway "]), @r"
    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    route mallory/claim
      at Gateway mine
        Accepted=False HostnameConflict: Host shop.test belongs to Gateway shop/public, which is older: all Gateways share the nodes' addresses.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route mallory/own
      at Gateway mine
        Accepted=True Accepted: The route is accepted. Host shop.test belongs to Gateway shop/public, which is older: all Gateways share the nodes' addresses.
        ResolvedRefs=True ResolvedRefs: All references hold.

    route shop/web
      at Gateway public
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *
        mallory.test: mallory/own, port 9080
          everything → trap.mallory:80
        shop.test: shop/web, port 9080
          everything → web.shop:80
    ");
}

#[test]
fn classes_and_gateways_that_ask_for_what_there_is_not_are_refused() {
    let cluster = Cluster::of(
        r"
- kind: GatewayClass
  metadata: {name: tuned}
  spec: {controllerName: weft.dev/gateway-controller, parametersRef: {group: x.dev, kind: Tuning, name: fast}}
- kind: GatewayClass
  metadata: {name: also}
  spec: {controllerName: weft.dev/gateway-controller}
- kind: Gateway
  metadata: {name: tuned, namespace: shop}
  spec: {gatewayClassName: tuned, listeners: [{name: http, port: 9080, protocol: HTTP, hostname: tuned.test}]}
- kind: Gateway
  metadata: {name: parameters, namespace: shop}
  spec:
    gatewayClassName: also
    infrastructure: {parametersRef: {group: x.dev, kind: Tuning, name: fast}}
    listeners: [{name: http, port: 9080, protocol: HTTP, hostname: parameters.test}]
- kind: Gateway
  metadata: {name: named, namespace: shop}
  spec:
    gatewayClassName: also
    addresses: [{type: Hostname, value: a.test}]
    listeners: [{name: http, port: 9080, protocol: HTTP, hostname: named.test}]
- kind: Gateway
  metadata: {name: elsewhere, namespace: shop}
  spec:
    gatewayClassName: also
    addresses: [{value: 127.0.0.1}, {value: 192.0.2.9}]
    listeners: [{name: http, port: 9080, protocol: HTTP, hostname: elsewhere.test}]
- kind: Gateway
  metadata: {name: good, namespace: shop}
  spec:
    gatewayClassName: also
    addresses: [{value: 127.0.0.1}, {}]
    listeners: [{name: http, port: 9080, protocol: HTTP, hostname: good.test}]
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec: {parentRefs: [{name: tuned}, {name: good}], rules: [{backendRefs: [{name: web, port: 80}]}]}
",
    );
    insta::assert_snapshot!(cluster.told(), @r"
    class also
      Accepted=True Accepted: Gateways of this class are served on every node.

    class tuned
      Accepted=False InvalidParameters: parametersRef is not supported; leave it out.

    class weft
      Accepted=True Accepted: Gateways of this class are served on every node.

    gateway shop/elsewhere at 127.0.0.1
      Accepted=True Accepted: The gateway is accepted.
      Programmed=False AddressNotUsable: No node has the address 192.0.2.9.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at port 9080.

    gateway shop/good at 127.0.0.1
      Accepted=True Accepted: The gateway is accepted.
      Programmed=True Programmed: 1 node answers at port 9080.
      listener http takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at port 9080.

    gateway shop/named at 127.0.0.1
      Accepted=False UnsupportedAddress: Addresses of type Hostname are not supported; IPAddress is.
      Programmed=False Invalid: Addresses of type Hostname are not supported; IPAddress is.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: Addresses of type Hostname are not supported; IPAddress is.

    gateway shop/parameters at 127.0.0.1
      Accepted=False InvalidParameters: infrastructure.parametersRef is not supported; leave it out.
      Programmed=False Invalid: infrastructure.parametersRef is not supported; leave it out.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: infrastructure.parametersRef is not supported; leave it out.

    gateway shop/tuned at 127.0.0.1
      Accepted=False Pending: GatewayClass tuned is not accepted.
      Programmed=False Invalid: GatewayClass tuned is not accepted.
      listener http takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False Invalid: The listener is not served: GatewayClass tuned is not accepted.

    route shop/web
      at Gateway tuned
        Accepted=False NoReadyListeners: No listener that allows the route is served: GatewayClass tuned is not accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Gateway good
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener elsewhere.test
      listener good.test
        good.test: shop/web, port 9080
          everything → web.shop:80
    ");
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

/// Addresses of Gateways' own, certificates that are not there, and who may add listeners: status and service alike.
#[test]
fn a_gateway_with_an_address_of_its_own_serves_each_listener_at_its_port() {
    let mut cluster = Cluster::of(
        r"
- kind: Node
  metadata: {name: a, annotations: {weft.dev/gateway-port: '9080', weft.dev/service-addresses: 192.0.2.0/24}}
  status: {addresses: [{type: InternalIP, address: 127.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec:
    gatewayClassName: weft
    addresses: [{value: 192.0.2.9}]
    allowedListeners: {namespaces: {from: Same}}
    listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: alt, port: 8080, protocol: HTTP}
    - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: gone}]}}
- kind: ListenerSet
  metadata: {name: more, namespace: shop}
  spec:
    parentRef: {name: public}
    listeners: [{name: good, port: 80, protocol: HTTP, hostname: more.test}, {name: bad, port: 80, protocol: HTTP}]
- kind: ListenerSet
  metadata: {name: stranger, namespace: other}
  spec: {parentRef: {name: public, namespace: shop}, listeners: [{name: x, port: 81, protocol: HTTP}]}
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec:
    parentRefs: [{name: public, sectionName: alt}, {name: more, kind: ListenerSet}, {name: public, sectionName: good}]
    rules: [{backendRefs: [{name: web, port: 80}]}]
",
    );
    insta::assert_snapshot!(cluster.told_without(&["class"]), @r"
    gateway shop/public at 192.0.2.9
      Accepted=True ListenersNotValid: 1 of 3 listeners are not valid: https.
      Programmed=True Programmed: 1 node answers at 192.0.2.9.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:80.
      listener alt takes HTTPRoute, GRPCRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:8080.
      listener https takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidCertificateRef: There is no Secret shop/gone.
        Programmed=False Invalid: The listener is not served: There is no Secret shop/gone.

    set other/stranger
      Accepted=False NotAllowed: Gateway shop/public allows no ListenerSets of other.
      Programmed=False NotAllowed: Gateway shop/public allows no ListenerSets of other.

    set shop/more
      Accepted=True ListenersNotValid: 1 of 2 listeners are not valid: bad.
      Programmed=True Programmed: The nodes listen.
      listener good, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:80.
      listener bad, 1 attached
        Accepted=False HostnameConflict: Listener http has the same port, protocol and hostname.
        Conflicted=True HostnameConflict: Listener http has the same port, protocol and hostname.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False HostnameConflict: The listener is not served: Listener http has the same port, protocol and hostname.

    route shop/web
      at Gateway public alt
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at ListenerSet more
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Gateway public good
        Accepted=False NoMatchingParent: The gateway has no such listener; it has http, alt, https.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      listener *
      listener more.test
        more.test: shop/web
          everything → web.shop:80
      192.0.2.9:80 listener *
      192.0.2.9:80 listener more.test
        more.test: HTTPRoute shop/web
          everything → web.shop:80
      192.0.2.9:8080 listener *
        *: HTTPRoute shop/web
          everything → web.shop:80
    ");
    cluster.apply(
        r#"
- kind: BackendTLSPolicy
  metadata: {name: proof, namespace: shop}
  spec: {targetRefs: [{group: "", kind: Service, name: web}], validation: {hostname: web.test, caCertificateRefs: [{group: "", kind: ConfigMap, name: gone}]}}
"#,
    );
    insta::assert_snapshot!(cluster.told_of("policy shop/proof", true), @r"
    policy shop/proof at shop/public
      Accepted=False NoValidCACertificate: There is no ConfigMap shop/gone.
      ResolvedRefs=False InvalidCACertificateRef: There is no ConfigMap shop/gone.

    served
      listener *
      listener more.test
        more.test: shop/web
          everything → 500 BackendTLSPolicy shop/proof does not hold: There is no ConfigMap shop/gone
      192.0.2.9:80 listener *
      192.0.2.9:80 listener more.test
        more.test: HTTPRoute shop/web
          everything → 500 BackendTLSPolicy shop/proof does not hold: There is no ConfigMap shop/gone
      192.0.2.9:8080 listener *
        *: HTTPRoute shop/web
          everything → 500 BackendTLSPolicy shop/proof does not hold: There is no ConfigMap shop/gone
    ");
}

/// A listener that lost to one of before is in nobody's way: its neighbours are served.
#[test]
fn what_a_set_loses_to_others_is_not_in_the_way_of_its_own() {
    let cluster = Cluster::of(
        r"
- kind: Node
  metadata: {name: a, annotations: {weft.dev/gateway-port: '9080', weft.dev/service-addresses: 192.0.2.0/24}}
  status: {addresses: [{type: InternalIP, address: 127.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
- kind: Gateway
  metadata: {name: public, namespace: shop}
  spec:
    gatewayClassName: weft
    addresses: [{value: 192.0.2.9}]
    allowedListeners: {namespaces: {from: Same}}
    listeners: [{name: http, port: 80, protocol: HTTP, hostname: one.test}]
- kind: ListenerSet
  metadata: {name: first, namespace: shop}
  spec:
    parentRef: {name: public}
    listeners:
    - {name: good, port: 80, protocol: HTTP, hostname: two.test}
    - {name: stream, port: 80, protocol: TCP}
- kind: ListenerSet
  metadata: {name: second, namespace: shop}
  spec: {parentRef: {name: public}, listeners: [{name: same, port: 80, protocol: HTTP, hostname: two.test}]}
",
    );
    let told = ["set shop/first", "set shop/second"].map(|set| cluster.told_of(set, false));
    insta::assert_snapshot!(told.join("\n"), @r"
    set shop/first
      Accepted=True ListenersNotValid: 1 of 2 listeners are not valid: stream.
      Programmed=True Programmed: The nodes listen.
      listener good, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:80.
      listener stream, 0 attached
        Accepted=False ProtocolConflict: Listener http has the same port for protocol HTTP.
        Conflicted=True ProtocolConflict: Listener http has the same port for protocol HTTP.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener http has the same port for protocol HTTP.

    set shop/second
      Accepted=False ListenersNotValid: 1 of 1 listeners are not valid: same.
      Programmed=False ListenersNotValid: 1 of 1 listeners are not valid: same.
      listener same, 0 attached
        Accepted=False HostnameConflict: Listener good has the same port, protocol and hostname.
        Conflicted=True HostnameConflict: Listener good has the same port, protocol and hostname.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False HostnameConflict: The listener is not served: Listener good has the same port, protocol and hostname.
    ");
}

/// TLS, TCP and UDP: who takes which routes, which of several is served, what shares a port, and where shares go.
#[test]
fn routes_of_bytes_are_served_by_their_place_and_name() {
    let mut cluster = Cluster::of(
        r"
- kind: Node
  metadata: {name: a, annotations: {weft.dev/gateway-port: '9080', weft.dev/service-addresses: 192.0.2.0/24}}
  status: {addresses: [{type: InternalIP, address: 127.0.0.1}], conditions: [{type: Ready, status: 'True'}]}
- kind: Service
  metadata: {name: dns, namespace: shop}
  spec: {clusterIP: 10.43.0.3, ports: [{name: dns, port: 53, protocol: UDP}]}
- kind: Service
  metadata: {name: far, namespace: other}
  spec: {clusterIP: 10.43.0.4, ports: [{port: 80}]}
- kind: Gateway
  metadata: {name: bytes, namespace: shop}
  spec:
    gatewayClassName: weft
    addresses: [{value: 192.0.2.9}]
    listeners:
    - {name: tls, port: 443, protocol: TLS, hostname: '*.shop.test', tls: {mode: Passthrough}, allowedRoutes: {kinds: [{kind: TCPRoute}, {kind: TLSRoute}]}}
    - {name: https, port: 443, protocol: HTTPS, hostname: a.shop.test, tls: {certificateRefs: [{name: gone}]}}
    - {name: open, port: 443, protocol: TLS, hostname: b.shop.test, tls: {certificateRefs: [{name: gone}]}}
    - {name: tcp, port: 81, protocol: TCP}
    - {name: udp, port: 81, protocol: UDP}
    - {name: http, port: 82, protocol: HTTP}
    - {name: lost, port: 82, protocol: TCP}
    - {name: same-name, port: 444, protocol: TLS, hostname: c.shop.test, tls: {mode: Passthrough}}
    - {name: same-too, port: 444, protocol: HTTPS, hostname: c.shop.test, tls: {certificateRefs: [{name: gone}]}}
- kind: TLSRoute
  metadata: {name: wild, namespace: shop}
  spec: {parentRefs: [{name: bytes, port: 443}], hostnames: ['*.test'], rules: [{backendRefs: [{name: web, port: 80, weight: 3}, {name: far, namespace: other, port: 80}]}]}
- kind: TLSRoute
  metadata: {name: nowhere, namespace: shop}
  spec: {parentRefs: [{name: bytes, sectionName: tls}, {name: bytes, sectionName: https}], hostnames: [shop.test], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: TCPRoute
  metadata: {name: b-older, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {parentRefs: [{name: bytes, sectionName: tcp}], rules: [{backendRefs: [{name: web, port: 80}, {name: dns, port: 53, weight: 0}, {kind: Other, name: x, port: 1}]}]}
- kind: TCPRoute
  metadata: {name: a-newer, namespace: shop, creationTimestamp: '2026-01-01T00:00:01Z'}
  spec: {parentRefs: [{name: bytes, sectionName: tcp}, {name: bytes, sectionName: http}, {kind: Service, group: '', name: web}], rules: [{backendRefs: [{name: api, port: 80}]}]}
- kind: UDPRoute
  metadata: {name: dns, namespace: shop}
  spec: {parentRefs: [{name: bytes}], rules: [{backendRefs: [{name: dns, port: 53}, {name: web, port: 80}]}]}
",
    );
    insta::assert_snapshot!(cluster.told_without(&["class"]), @r"
    gateway shop/bytes at 192.0.2.9
      Accepted=True ListenersNotValid: 6 of 9 listeners are not valid: https, open, http, lost, same-name, same-too.
      Programmed=True Programmed: 1 node answers at 192.0.2.9.
      listener tls takes TLSRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidRouteKinds: Routes of kind TCPRoute cannot attach; TLSRoutes can.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:443.
      listener https takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidCertificateRef: There is no Secret shop/gone.
        Programmed=False Invalid: The listener is not served: There is no Secret shop/gone.
      listener open takes TLSRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=False InvalidCertificateRef: There is no Secret shop/gone.
        Programmed=False Invalid: The listener is not served: There is no Secret shop/gone.
      listener tcp takes TCPRoute, 2 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:81.
      listener udp takes UDPRoute, 1 attached
        Accepted=True Accepted: The listener is accepted.
        Conflicted=False NoConflicts: No conflicts.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=True Programmed: The nodes listen at 192.0.2.9:81.
      listener http takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=False ProtocolConflict: Listener lost has the same port for protocol TCP.
        Conflicted=True ProtocolConflict: Listener lost has the same port for protocol TCP.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener lost has the same port for protocol TCP.
      listener lost takes TCPRoute, 0 attached
        Accepted=False ProtocolConflict: Listener http has the same port for protocol HTTP.
        Conflicted=True ProtocolConflict: Listener http has the same port for protocol HTTP.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener http has the same port for protocol HTTP.
      listener same-name takes TLSRoute, 0 attached
        Accepted=False ProtocolConflict: Listener same-too has the same port and hostname for protocol HTTPS.
        Conflicted=True ProtocolConflict: Listener same-too has the same port and hostname for protocol HTTPS.
        ResolvedRefs=True ResolvedRefs: All references hold.
        Programmed=False ProtocolConflict: The listener is not served: Listener same-too has the same port and hostname for protocol HTTPS.
      listener same-too takes HTTPRoute, GRPCRoute, 0 attached
        Accepted=False ProtocolConflict: Listener same-name has the same port and hostname for protocol TLS.
        Conflicted=True ProtocolConflict: Listener same-name has the same port and hostname for protocol TLS.
        ResolvedRefs=False InvalidCertificateRef: There is no Secret shop/gone.
        Programmed=False ProtocolConflict: The listener is not served: Listener same-name has the same port and hostname for protocol TLS.

    tls shop/nowhere
      at Gateway bytes tls
        Accepted=False NoMatchingListenerHostname: No listener has a hostname in common with the route.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Gateway bytes https
        Accepted=False NotAllowedByListeners: No listener allows TLSRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.

    tls shop/wild
      at Gateway bytes 443
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=False RefNotPermitted: No ReferenceGrant in other lets TLSRoutes of shop refer to Service other/far.

    tcp shop/a-newer
      at Gateway bytes tcp
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Gateway bytes http
        Accepted=False NotAllowedByListeners: No listener allows TCPRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service web
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    tcp shop/b-older
      at Gateway bytes tcp
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=False UnsupportedProtocol: Port 53 of Service shop/dns is not for TCP, which is what TCPRoutes lead on. Backend x is a Other; only Services are supported.

    udp shop/dns
      at Gateway bytes
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=False UnsupportedProtocol: Port 80 of Service shop/web is not for UDP, which is what UDPRoutes lead on.

    served
      Tcp 192.0.2.9:81 listener *
        *: shop/b-older → web.shop:80 | 500 Port 53 of Service shop/dns is not for TCP, which is what TCPRoutes lead on ×0 | 500 backend x is a Other; only Services are supported
      Tls 192.0.2.9:443 listener *.shop.test
        *.shop.test: shop/wild → web.shop:80 ×3 | 500 No ReferenceGrant in other lets TLSRoutes of shop refer to Service other/far
      Udp 192.0.2.9:81 listener *
        *: shop/dns → dns.shop:53 | 500 Port 80 of Service shop/web is not for UDP, which is what UDPRoutes lead on
      service shop/web Tcp port 80, for all: shop/a-newer → api.shop:80
    ");
    // A grant opens its share; one for another kind does not.
    cluster.apply(
        r"
- kind: ReferenceGrant
  metadata: {name: shop, namespace: other}
  spec: {from: [{group: gateway.networking.k8s.io, kind: TLSRoute, namespace: shop}], to: [{group: '', kind: Service}]}
",
    );
    insta::assert_snapshot!(cluster.told_of("tls shop/wild", true), @r"
    tls shop/wild
      at Gateway bytes 443
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      Tcp 192.0.2.9:81 listener *
        *: shop/b-older → web.shop:80 | 500 Port 53 of Service shop/dns is not for TCP, which is what TCPRoutes lead on ×0 | 500 backend x is a Other; only Services are supported
      Tls 192.0.2.9:443 listener *.shop.test
        *.shop.test: shop/wild → web.shop:80 ×3 | far.other:80
      Udp 192.0.2.9:81 listener *
        *: shop/dns → dns.shop:53 | 500 Port 80 of Service shop/web is not for UDP, which is what UDPRoutes lead on
      service shop/web Tcp port 80, for all: shop/a-newer → api.shop:80
    ");
}

/// At Services: streams and datagrams by the port alone, for all callers or for those of one namespace; of several kinds the most specific.
#[test]
fn routes_of_bytes_lead_who_calls_a_service() {
    let cluster = Cluster::of(
        r#"
- kind: Service
  metadata: {name: dns, namespace: shop}
  spec: {clusterIP: 10.43.0.3, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}
- kind: TCPRoute
  metadata: {name: both-ports, namespace: shop}
  spec: {parentRefs: [{group: "", kind: Service, name: api}], rules: [{backendRefs: [{name: web, port: 80, weight: 3}, {name: gone, port: 1}]}]}
- kind: TCPRoute
  metadata: {name: newer, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {parentRefs: [{group: "", kind: Service, name: api, port: 80}], rules: [{backendRefs: [{name: dns, port: 53}]}]}
- kind: TCPRoute
  metadata: {name: own-callers, namespace: cart}
  spec: {parentRefs: [{group: "", kind: Service, name: api, namespace: shop, sectionName: http}], rules: [{backendRefs: [{name: web, namespace: shop, port: 80}]}]}
- kind: TLSRoute
  metadata: {name: named, namespace: shop}
  spec: {parentRefs: [{group: "", kind: Service, name: api, port: 50051}], hostnames: [api.test], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: GRPCRoute
  metadata: {name: calls, namespace: shop}
  spec: {parentRefs: [{group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: api, port: 50051}]}]}
- kind: HTTPRoute
  metadata: {name: requests, namespace: shop}
  spec: {parentRefs: [{group: "", kind: Service, name: web}, {group: "", kind: Service, name: api}], rules: [{backendRefs: [{name: web, port: 80}]}]}
- kind: UDPRoute
  metadata: {name: questions, namespace: shop}
  spec: {parentRefs: [{group: "", kind: Service, name: dns}, {group: "", kind: Service, name: web}], rules: [{backendRefs: [{name: dns, port: 53}]}]}
"#,
    );
    insta::assert_snapshot!(cluster.told_without(&["class"]), @r"
    route shop/requests
      at Service web
        Accepted=False Conflicted: At port 80, GRPCRoutes go before HTTPRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service api
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    grpc shop/calls
      at Service web
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    tls shop/named
      at Service api 50051
        Accepted=False Conflicted: At port 50051, HTTPRoutes go before TLSRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.

    tcp cart/own-callers
      at Service api http
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.

    tcp shop/both-ports
      at Service api
        Accepted=False Conflicted: At port 80, HTTPRoutes go before TCPRoutes. At port 50051, HTTPRoutes go before TCPRoutes.
        ResolvedRefs=False BackendNotFound: There is no Service shop/gone.

    tcp shop/newer
      at Service api 80
        Accepted=False Conflicted: At port 80, HTTPRoutes go before TCPRoutes.
        ResolvedRefs=True ResolvedRefs: All references hold.

    udp shop/questions
      at Service dns
        Accepted=True Accepted: The route is accepted.
        ResolvedRefs=True ResolvedRefs: All references hold.
      at Service web
        Accepted=False NoMatchingParent: Service shop/web has no such port for UDP, which is what UDPRoutes lead on.
        ResolvedRefs=True ResolvedRefs: All references hold.

    served
      service shop/api, for all: shop/requests
          everything → web.shop:80
      service shop/api Tcp port 80, for cart: cart/own-callers → web.shop:80
      service shop/dns Udp port 53, for all: shop/questions → dns.shop:53
      service shop/web, for all: shop/calls
          everything → api.shop:50051
    ");
    // Where no requests are led, bytes are: a port by the more specific kind, and of one kind by the older route.
    let mut without = cluster;
    without.delete(weft_gateway::Kind::HttpRoute, "shop", "requests");
    insta::assert_snapshot!(without.told_of("tcp shop/both-ports", true), @r"
    tcp shop/both-ports
      at Service api
        Accepted=True Accepted: The route is accepted. At port 50051, TLSRoutes go before TCPRoutes.
        ResolvedRefs=False BackendNotFound: There is no Service shop/gone.

    served
      service shop/api Tcp port 80, for all: shop/both-ports → web.shop:80 ×3 | gone.shop:1
      service shop/api Tcp port 50051, for all: shop/named → web.shop:80
      service shop/api Tcp port 80, for cart: cart/own-callers → web.shop:80
      service shop/dns Udp port 53, for all: shop/questions → dns.shop:53
      service shop/web, for all: shop/calls
          everything → api.shop:50051
    ");
}

/// Of each part the policy that names the Service has the word, then that of the namespace; who came first holds.
#[test]
fn policies_are_put_together_part_by_part_and_told_where_they_do_not_hold() {
    let cluster = Cluster::of(
        r"
- kind: MeshPolicy
  metadata: {name: all, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec:
    timeouts: {request: 10s, attempt: 0s}
    retry: {attempts: 1, statusCodes: [503], backoff: 50ms, budget: {percent: 10, interval: 30s, minPerSecond: 0}}
    hedging: {after: 20ms}
- kind: MeshPolicy
  metadata: {name: later, namespace: shop, creationTimestamp: '2026-01-02T00:00:00Z'}
  spec: {timeouts: {request: 1s}}
- kind: MeshPolicy
  metadata: {name: web, namespace: shop, creationTimestamp: '2026-01-03T00:00:00Z'}
  spec:
    targetRefs: [{kind: Service, name: web}]
    timeouts: {request: 2s}
    circuitBreaker: {}
    concurrency: {min: 3, max: 2, criticalCallers: [{serviceAccountName: cart}]}
    rateLimits: [{by: Namespace, requests: 5, per: 1m}]
- kind: MeshPolicy
  metadata: {name: rival, namespace: shop, creationTimestamp: '2026-01-04T00:00:00Z'}
  spec: {targetRefs: [{kind: Service, name: web}], hedging: {after: 1s}}
- kind: MeshPolicy
  metadata: {name: lost, namespace: shop}
  spec: {targetRefs: [{kind: Service, name: nobody}], hedging: {after: 1s}}
- kind: FaultInjection
  metadata: {name: slow, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec: {targetRefs: [{kind: Service, name: api}], duration: 10m, delay: {duration: 200ms, percent: 50}}
",
    );
    let compiled = cluster.compiled();
    let said = |name: &str| {
        let name = weft_gateway::NamespacedName::new("shop", name);
        let conditions = &compiled.mesh_policies[&name];
        let said = conditions
            .iter()
            .map(|one| format!("{}={} {}: {}", one.kind, one.holds, one.reason, one.message));
        said.collect::<Vec<_>>().join("; ")
    };
    let names = ["all", "later", "web", "rival", "lost"];
    let told: Vec<String> = names.map(|name| format!("{name}: {}", said(name))).into();
    insta::assert_snapshot!(told.join("\n"), @r"
    all: Accepted=true Accepted: The nodes do what it says.
    later: Accepted=false Conflicted: MeshPolicy shop/all is older and names no target, as this one, in namespace shop: what it says holds there.
    web: Accepted=true Accepted: The nodes do what it says.
    rival: Accepted=false Conflicted: MeshPolicy shop/web is older and has Service web already: what it says holds there.
    lost: Accepted=false TargetNotFound: Service nobody does not exist: create it, or correct targetRefs.
    ");
    let of = |name: &str| {
        let name = weft_gateway::NamespacedName::new("shop", name);
        compiled.served.resilience[&name].clone()
    };
    let (web, api) = (of("web"), of("api"));
    let seconds = std::time::Duration::from_secs;
    let millis = std::time::Duration::from_millis;
    assert_eq!(web.request_timeout, Some(seconds(2)), "its own");
    assert_eq!(api.request_timeout, Some(seconds(10)), "the namespace's");
    assert_eq!(api.attempt_timeout, None, "0s is no limit");
    for service in [&web, &api] {
        let retry = service.retry.as_ref().expect("the namespace's");
        assert_eq!((retry.attempts, retry.backoff), (1, Some(millis(50))));
        assert_eq!(service.budget.percent, 10);
        assert_eq!(service.hedge_after, Some(millis(20)));
    }
    assert_eq!(web.breaker, Some(weft_gateway::Breaker::default()));
    let concurrency = web.concurrency.as_ref().expect("its own");
    assert_eq!((concurrency.min, concurrency.max), (3, 3));
    assert_eq!(concurrency.critical[0].namespace, "shop");
    assert_eq!(
        (web.rate_limits[0].burst, web.rate_limits[0].per),
        (5, seconds(60))
    );
    assert!(web.guards() && !api.guards());
    let fault = &api.faults[0];
    assert_eq!(
        (&*fault.name, fault.delay),
        ("shop/slow", Some((millis(200), 50)))
    );
    let status = compiled.faults.values().next().expect("a fault");
    assert!(status.accepted.holds);
    assert_eq!(status.until, fault.until);
    assert_eq!(
        fault.until - 1_767_225_600,
        600,
        "ten minutes after it was made"
    );
}

/// A rule has what it says itself, then what a policy says of it by name, then what one says of its route; each part by itself.
#[test]
fn policies_of_routes_are_put_together_part_by_part() {
    let cluster = Cluster::of(
        r"
- kind: HTTPRoute
  metadata: {name: web, namespace: shop}
  spec:
    parentRefs: [{group: '', kind: Service, name: web}]
    rules:
    - {name: own, timeouts: {request: 1s}, retry: {codes: [500], attempts: 5}, backendRefs: [{name: web, port: 80}]}
    - {name: named, matches: [{path: {value: /named}}], backendRefs: [{name: web, port: 80}]}
    - {matches: [{path: {value: /other}}], backendRefs: [{name: web, port: 80}]}
- kind: GRPCRoute
  metadata: {name: api, namespace: shop}
  spec:
    parentRefs: [{group: '', kind: Service, name: api, port: 50051}]
    rules: [{backendRefs: [{name: api, port: 50051}]}]
- kind: MeshPolicy
  metadata: {name: whole, namespace: shop, creationTimestamp: '2026-01-01T00:00:00Z'}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
    timeouts: {request: 2s, attempt: 0s}
    hedging: {after: 20ms}
- kind: MeshPolicy
  metadata: {name: named, namespace: shop, creationTimestamp: '2026-01-02T00:00:00Z'}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: named}]
    retry: {attempts: 1, statusCodes: [503]}
- kind: MeshPolicy
  metadata: {name: rival, namespace: shop, creationTimestamp: '2026-01-03T00:00:00Z'}
  spec:
    targetRefs:
    - {group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: named}
    timeouts: {request: 9s}
- kind: MeshPolicy
  metadata: {name: calls, namespace: shop}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: api}]
    retry: {grpcCodes: [UNAVAILABLE, CANCELLED]}
- kind: MeshPolicy
  metadata: {name: lost, namespace: shop}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: GRPCRoute, name: web}]
    timeouts: {request: 9s}
- kind: MeshPolicy
  metadata: {name: nameless, namespace: shop}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web, sectionName: gone}]
    timeouts: {request: 9s}
- kind: MeshPolicy
  metadata: {name: elsewhere, namespace: cart}
  spec:
    targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
    timeouts: {request: 9s}
",
    );
    let compiled = cluster.compiled();
    let told = compiled.mesh_policies.iter().map(|(name, conditions)| {
        let one = &conditions[0];
        format!("{name}: {} {}: {}", one.holds, one.reason, one.message)
    });
    insta::assert_snapshot!(told.collect::<Vec<_>>().join("\n"), @r"
    cart/elsewhere: false TargetNotFound: HTTPRoute web does not exist: create it, or correct targetRefs.
    shop/calls: true Accepted: The nodes do what it says.
    shop/lost: false TargetNotFound: GRPCRoute web does not exist: create it, or correct targetRefs.
    shop/named: true Accepted: The nodes do what it says.
    shop/nameless: false TargetNotFound: HTTPRoute web has no rule called gone: name one so, or correct targetRefs.
    shop/rival: false Conflicted: MeshPolicy shop/named is older and has rule named of HTTPRoute web already: what it says holds there.
    shop/whole: true Accepted: The nodes do what it says.
    ");
    let rules = |service: &str| {
        let name = weft_gateway::NamespacedName::new("shop", service);
        let routes = &compiled.served.services[&name].producer;
        let lines = routes[0].rules.iter().map(|rule| {
            let retry = rule.retry.as_ref();
            let retry = retry.map(|retry| (&retry.codes, &retry.grpc, retry.attempts));
            let unlimited = rule.backend_timeout == Some(weft_gateway::UNLIMITED);
            format!(
                "{:?}: {:?}, attempts unlimited: {unlimited}, {retry:?}, {:?}",
                rule.name, rule.request_timeout, rule.hedge_after
            )
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    insta::assert_snapshot!(rules("web"), @r#"
    Some("own"): Some(1s), attempts unlimited: true, Some(([500], [], 5)), Some(20ms)
    Some("named"): Some(2s), attempts unlimited: true, Some(([503], [], 1)), Some(20ms)
    None: Some(2s), attempts unlimited: true, None, Some(20ms)
    "#);
    insta::assert_snapshot!(rules("api"), @"None: None, attempts unlimited: false, Some(([502, 503, 504], [14, 1], 2)), None");
    assert!(
        compiled.served.resilience.is_empty(),
        "of no Service anything is said"
    );
}
