//! Routes of bytes: streams and datagrams, at Gateways and at Services.

use crate::told::Cluster;

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
