//! Gateways and their listeners: which are served, where, and who has which hosts.

use crate::told::{self, Cluster};

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
