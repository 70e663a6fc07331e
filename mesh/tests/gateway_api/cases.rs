//! Rules of HTTPRoute and GRPCRoute, a case a test of the suite: routes, then requests and what comes of each.
//!
//! An expectation is a workload's name, a status, or both with what else is looked at: `v1 path=/b`, `302 location=http://b.test/`.

use super::world::{Answer, World};

struct Case {
    /// Of the suite's test.
    name: &'static str,
    manifests: &'static str,
    /// Gateway and port.
    at: (&'static str, u16),
    /// Request and expectation.
    asks: &'static [(&'static str, &'static str)],
}

const SAME: (&str, u16) = ("same", 80);

const CASES: &[Case] = &[
    Case {
        name: "HTTPRouteExactPathMatching",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {type: Exact, value: /one}}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{path: {type: Exact, value: /two}}], backendRefs: [{name: v2, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/one", "200 v1"),
            ("GET a.test/two", "200 v2"),
            ("GET a.test/", "404"),
            ("GET a.test/one/x", "404"),
            ("GET a.test/Two", "404"),
            ("GET a.test/two/", "404"),
        ],
    },
    Case {
        name: "HTTPRouteMatching",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - matches: [{path: {type: PathPrefix, value: /}}, {headers: [{name: version, value: one}]}]
      backendRefs: [{name: v1, port: 8080}]
    - matches: [{path: {type: PathPrefix, value: /v2}}, {headers: [{name: version, value: two}]}]
      backendRefs: [{name: v2, port: 8080}]
",
        at: SAME,
        asks: &[
            ("GET a.test/", "200 v1"),
            ("GET a.test/example", "200 v1"),
            ("GET a.test/ version:one", "200 v1"),
            ("GET a.test/v2", "200 v2"),
            ("GET a.test/v2/", "200 v2"),
            ("GET a.test/v2example", "200 v1"),
            ("GET a.test/foo/v2/example", "200 v1"),
            ("GET a.test/ version:two", "200 v2"),
        ],
    },
    Case {
        name: "HTTPRouteMethodMatching",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{method: POST}, {path: {value: /p}, method: GET}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{method: GET}, {path: {value: /p}, method: PATCH}], backendRefs: [{name: v2, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("POST a.test/", "200 v1"),
            ("GET a.test/", "200 v2"),
            ("HEAD a.test/", "404"),
            ("GET a.test/p", "200 v1"),
            ("PATCH a.test/p", "200 v2"),
        ],
    },
    Case {
        name: "HTTPRouteQueryParamMatching",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{queryParams: [{name: animal, value: whale}]}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{queryParams: [{name: animal, value: dolphin}, {name: color, value: blue}]}], backendRefs: [{name: v2, port: 8080}]}
    - {matches: [{queryParams: [{name: num, type: RegularExpression, value: '[0-9]+'}]}], backendRefs: [{name: v3, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/?animal=whale", "200 v1"),
            ("GET a.test/?animal=whale&animal=dolphin", "200 v1"),
            ("GET a.test/?color=blue&animal=dolphin", "200 v2"),
            ("GET a.test/?animal=dolphin", "404"),
            ("GET a.test/?num=12", "200 v3"),
            ("GET a.test/?num=12a", "404"),
        ],
    },
    Case {
        name: "HTTPRouteHeaderMatching",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{headers: [{name: version, value: two}, {name: color, value: orange}]}], backendRefs: [{name: v2, port: 8080}]}
    - {matches: [{headers: [{name: color, type: RegularExpression, value: 'gr[ae]y'}]}], backendRefs: [{name: v3, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/ Version:one", "200 v1"),
            ("GET a.test/ version:two", "404"),
            ("GET a.test/ version:two color:orange", "200 v2"),
            ("GET a.test/ color:gray", "200 v3"),
            ("GET a.test/ color:grays", "404"),
        ],
    },
    Case {
        name: "HTTPRouteHostnameIntersection",
        manifests: r"
- kind: Gateway
  metadata: {name: hosts, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: exact, port: 80, protocol: HTTP, hostname: very.specific.com}
    - {name: wild, port: 80, protocol: HTTP, hostname: '*.wildcard.io'}
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: hosts}]
    hostnames: [non.matching.com, '*.specific.com', a.wildcard.io, '*.b.wildcard.io']
    rules: [{backendRefs: [{name: v1, port: 8080}]}]
",
        at: ("hosts", 80),
        asks: &[
            ("GET very.specific.com/", "200 v1"),
            ("GET very.specific.com:1234/", "200 v1"),
            ("GET other.specific.com/", "404"),
            ("GET non.matching.com/", "404"),
            ("GET a.wildcard.io/", "200 v1"),
            ("GET c.wildcard.io/", "404"),
            ("GET x.b.wildcard.io/", "200 v1"),
        ],
    },
    Case {
        name: "GatewayHTTPListenerIsolation",
        manifests: r"
- kind: Gateway
  metadata: {name: apart, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners:
    - {name: any, port: 80, protocol: HTTP}
    - {name: wild, port: 80, protocol: HTTP, hostname: '*.example.com'}
    - {name: exact, port: 80, protocol: HTTP, hostname: abc.foo.example.com}
- kind: HTTPRoute
  metadata: {name: any, namespace: infra}
  spec: {parentRefs: [{name: apart, sectionName: any}], rules: [{matches: [{path: {value: /any}}], backendRefs: [{name: v1, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: wild, namespace: infra}
  spec: {parentRefs: [{name: apart, sectionName: wild}], rules: [{matches: [{path: {value: /wild}}], backendRefs: [{name: v2, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: exact, namespace: infra}
  spec: {parentRefs: [{name: apart, sectionName: exact}], rules: [{matches: [{path: {value: /exact}}], backendRefs: [{name: v3, port: 8080}]}]}
",
        at: ("apart", 80),
        asks: &[
            ("GET bar.com/any", "200 v1"),
            ("GET bar.com/wild", "404"),
            ("GET x.example.com/wild", "200 v2"),
            ("GET x.example.com/any", "404"),
            ("GET abc.foo.example.com/exact", "200 v3"),
            ("GET abc.foo.example.com/wild", "404"),
        ],
    },
    Case {
        name: "HTTPRouteListenerPortMatching",
        manifests: r"
- kind: Gateway
  metadata: {name: ports, namespace: infra}
  spec:
    gatewayClassName: weft
    listeners: [{name: one, port: 80, protocol: HTTP}, {name: two, port: 8080, protocol: HTTP}]
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec: {parentRefs: [{name: ports, port: 8080}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: s, namespace: infra}
  spec: {parentRefs: [{name: ports, sectionName: one}], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
",
        at: ("ports", 8080),
        asks: &[("GET a.test/", "200 v1")],
    },
    Case {
        name: "HTTPRouteRequestHeaderModifier",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-S, value: new}], add: [{name: X-A, value: more}], remove: [X-R]}}]
      backendRefs:
      - name: v1
        port: 8080
        filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: X-B, value: backend}]}}]
",
        at: SAME,
        asks: &[(
            "GET a.test/ x-s:old x-r:gone",
            "200 v1 +x-s=new +x-a=more +x-b=backend -x-r",
        )],
    },
    Case {
        name: "HTTPRouteResponseHeaderModifier",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: X-S, value: new}], remove: [X-R]}}]
      backendRefs: [{name: v1, port: 8080}]
",
        at: SAME,
        asks: &[(
            "GET a.test/ x-echo-set-header:x-s=old,x-r=gone",
            "200 v1 x-s=new x-r=",
        )],
    },
    Case {
        name: "HTTPRouteRedirectHostAndStatus",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /host}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: b.test}}]}
    - {matches: [{path: {value: /both}}], filters: [{type: RequestRedirect, requestRedirect: {hostname: b.test, statusCode: 301}}]}
    - {matches: [{path: {value: /port}}], filters: [{type: RequestRedirect, requestRedirect: {port: 8083}}]}
    - {matches: [{path: {value: /https}}], filters: [{type: RequestRedirect, requestRedirect: {scheme: https, statusCode: 308}}]}
    - matches: [{path: {value: /old}}]
      filters: [{type: RequestRedirect, requestRedirect: {statusCode: 307, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
",
        at: SAME,
        asks: &[
            ("GET a.test/host", "302 location=http://b.test/host"),
            ("GET a.test/both", "301 location=http://b.test/both"),
            ("GET a.test/port", "302 location=http://a.test:8083/port"),
            ("GET a.test/https", "308 location=https://a.test/https"),
            (
                "GET a.test/old/x?y=1",
                "307 location=http://a.test/new/x?y=1",
            ),
        ],
    },
    Case {
        name: "HTTPRouteRewritePath",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - matches: [{path: {value: /prefix/one}}]
      filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /one}}}]
      backendRefs: [{name: v1, port: 8080}]
    - matches: [{path: {value: /full}}]
      filters: [{type: URLRewrite, urlRewrite: {hostname: b.test, path: {type: ReplaceFullPath, replaceFullPath: /one}}}]
      backendRefs: [{name: v1, port: 8080}]
",
        at: SAME,
        asks: &[
            (
                "GET a.test/prefix/one/two",
                "200 v1 path=/one/two host=a.test",
            ),
            ("GET a.test/full/x", "200 v1 path=/one host=b.test"),
        ],
    },
    Case {
        name: "HTTPRouteInvalidNonExistentBackendRef",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /gone}}], backendRefs: [{name: gone, port: 8080}]}
    - {matches: [{path: {value: /kind}}], backendRefs: [{name: v1, kind: NonExistent, port: 8080}]}
    - {matches: [{path: {value: /far}}], backendRefs: [{name: far, namespace: web, port: 8080}]}
    - {matches: [{path: {value: /empty}}], backendRefs: [{name: empty, port: 8080}]}
    - {matches: [{path: {value: /none}}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/gone", "500"),
            ("GET a.test/kind", "500"),
            ("GET a.test/far", "500"),
            ("GET a.test/empty", "503"),
            ("GET a.test/none", "500"),
        ],
    },
    Case {
        name: "HTTPRouteReferenceGrant",
        manifests: r#"
- kind: ReferenceGrant
  metadata: {name: g, namespace: web}
  spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: infra}], to: [{group: "", kind: Service, name: far}]}
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec: {parentRefs: [{name: same}], rules: [{backendRefs: [{name: far, namespace: web, port: 8080}]}]}
"#,
        at: SAME,
        asks: &[("GET a.test/", "200 far")],
    },
    Case {
        name: "HTTPRouteBackendProtocolH2C",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /h2}}], backendRefs: [{name: v1, port: 8081}]}
    - {backendRefs: [{name: v1, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/h2", "200 v1 h2=true"),
            ("GET a.test/", "200 v1 h2=false"),
        ],
    },
    Case {
        name: "HTTPRouteBackendProtocolWebSocket",
        manifests: r"
- kind: Service
  metadata: {name: ports, namespace: infra}
  spec:
    clusterIP: 10.43.0.9
    ports:
    - {name: ws, port: 8080, appProtocol: kubernetes.io/ws}
    - {name: wss, port: 8081, appProtocol: kubernetes.io/wss}
    - {name: grpc, port: 8082, appProtocol: grpc}
    - {name: quic, port: 8083, appProtocol: kubernetes.io/quic}
    - {name: own, port: 8084, appProtocol: example.com/own}
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    hostnames: [http.test]
    rules:
    - {matches: [{path: {value: /ws}}], backendRefs: [{name: ports, port: 8080}]}
    - {matches: [{path: {value: /wss}}], backendRefs: [{name: ports, port: 8081}]}
    - {matches: [{path: {value: /grpc}}], backendRefs: [{name: ports, port: 8082}]}
    - {matches: [{path: {value: /quic}}], backendRefs: [{name: ports, port: 8083}]}
    - {matches: [{path: {value: /own}}], backendRefs: [{name: ports, port: 8084}]}
- kind: GRPCRoute
  metadata: {name: g, namespace: infra}
  spec: {parentRefs: [{name: same}], hostnames: [grpc.test], rules: [{backendRefs: [{name: ports, port: 8080}]}]}
",
        at: SAME,
        asks: &[
            ("GET http.test/ws", "200 ports h2=false"),
            ("GET http.test/wss", "500"),
            ("GET http.test/grpc", "200 ports h2=true"),
            ("GET http.test/quic", "500"),
            ("GET http.test/own", "200 ports h2=false"),
            ("POST grpc.test/a/B", "500"),
        ],
    },
    Case {
        name: "HTTPRouteCORS",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - filters:
      - type: CORS
        cors: {allowOrigins: ['https://www.foo.com', 'https://*.bar.com'], allowMethods: [GET, OPTIONS], allowHeaders: [x-1], allowCredentials: true, maxAge: 3600}
      backendRefs: [{name: v1, port: 8080}]
",
        at: SAME,
        asks: &[
            (
                "OPTIONS a.test/ origin:https://www.foo.com access-control-request-method:GET",
                "204 access-control-allow-origin=https://www.foo.com access-control-allow-credentials=true access-control-max-age=3600",
            ),
            (
                "OPTIONS a.test/ origin:https://foobar.com access-control-request-method:GET",
                "204 access-control-allow-origin=",
            ),
            (
                "GET a.test/ origin:https://a.b.bar.com",
                "200 v1 access-control-allow-origin=https://a.b.bar.com",
            ),
            (
                "GET a.test/ origin:https://foobar.com",
                "200 v1 access-control-allow-origin=",
            ),
        ],
    },
    Case {
        name: "HTTPRouteRetry",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /status/503}}], retry: {codes: [503], attempts: 3, backoff: 1ms}, backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{path: {value: /status/500}}], retry: {codes: [503], attempts: 3, backoff: 1ms}, backendRefs: [{name: v2, port: 8080}]}
    - {matches: [{path: {value: /status/502}}], retry: {codes: [502], attempts: 2, backoff: 1ms}, backendRefs: [{name: v3, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("GET a.test/status/503?until=3", "200 v1"),
            ("GET a.test/status/500?until=1", "500 v2"),
            ("GET a.test/status/502?until=9", "502 v3"),
        ],
    },
    Case {
        name: "HTTPRouteTimeoutRequest",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /slow}}], timeouts: {request: 50ms}, backendRefs: [{name: v1, port: 8080}]}
",
        at: SAME,
        asks: &[("GET a.test/slow", "504")],
    },
    Case {
        name: "HTTPRouteTimeoutBackendRequest",
        manifests: r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{path: {value: /slow}}], timeouts: {backendRequest: 50ms}, backendRefs: [{name: v1, port: 8080}]}
",
        at: SAME,
        asks: &[("GET a.test/slow", "504")],
    },
    Case {
        name: "ListenerSetHTTPRouting",
        manifests: r"
- kind: Gateway
  metadata: {name: open, namespace: infra}
  spec:
    gatewayClassName: weft
    allowedListeners: {namespaces: {from: All}}
    listeners: [{name: own, port: 80, protocol: HTTP, hostname: own.test}]
- kind: ListenerSet
  metadata: {name: set, namespace: web}
  spec:
    parentRef: {name: open, namespace: infra}
    listeners:
    - {name: one, port: 80, protocol: HTTP, hostname: one.test, allowedRoutes: {namespaces: {from: All}}}
    - {name: again, port: 80, protocol: HTTP, hostname: own.test}
- kind: HTTPRoute
  metadata: {name: own, namespace: infra}
  spec: {parentRefs: [{name: open}], rules: [{backendRefs: [{name: v1, port: 8080}]}]}
- kind: HTTPRoute
  metadata: {name: set, namespace: infra}
  spec: {parentRefs: [{name: set, namespace: web, kind: ListenerSet}], rules: [{backendRefs: [{name: v2, port: 8080}]}]}
",
        at: ("open", 80),
        asks: &[
            ("GET own.test/", "200 v1"),
            ("GET one.test/", "200 v2"),
            ("GET other.test/", "404"),
        ],
    },
    Case {
        name: "GRPCExactMethodMatching",
        manifests: r"
- kind: GRPCRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - {matches: [{method: {service: a.Echo, method: One}}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{method: {service: a.Echo}}], backendRefs: [{name: v2, port: 8080}]}
    - {matches: [{method: {method: One}}], backendRefs: [{name: v3, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("POST a.test/a.Echo/One", "200 v1"),
            ("POST a.test/a.Echo/Two", "200 v2"),
            ("POST a.test/b.Echo/One", "200 v3"),
            ("POST a.test/b.Echo/Two", "404"),
        ],
    },
    Case {
        name: "GRPCRouteHeaderMatching",
        manifests: r"
- kind: GRPCRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    hostnames: [grpc.test]
    rules:
    - {matches: [{headers: [{name: version, value: one}]}], backendRefs: [{name: v1, port: 8080}]}
    - {matches: [{headers: [{name: version, type: RegularExpression, value: 'tw.'}]}], backendRefs: [{name: v2, port: 8080}]}
",
        at: SAME,
        asks: &[
            ("POST grpc.test/a/B version:one", "200 v1"),
            ("POST grpc.test/a/B version:two", "200 v2"),
            ("POST grpc.test/a/B", "404"),
            ("POST other.test/a/B version:one", "404"),
        ],
    },
];

/// Whether the answer is what the words say.
fn is_met(answer: &Answer, wanted: &str) -> bool {
    let mut words = wanted.split_whitespace();
    let status = words.next().expect("a status");
    if answer.status.as_str() != status {
        return false;
    }
    let line = |name: &str| {
        let value = answer.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or_default())
    };
    words.all(|word| {
        if let Some(name) = word.strip_prefix('-') {
            return answer.body["headers"][name].is_null();
        }
        if let Some(asked) = word.strip_prefix('+') {
            let (name, value) = asked.split_once('=').expect("a value");
            return answer.body["headers"][name] == value;
        }
        match word.split_once('=') {
            None => answer.body["name"] == word,
            Some((name @ ("path" | "host"), value)) => answer.body[name] == value,
            Some(("h2", value)) => answer.body["h2"] == (value == "true"),
            Some((name, value)) => line(name) == value,
        }
    })
}

#[tokio::test]
async fn each_rule_of_the_suite_holds() {
    let mut wrong = Vec::new();
    for case in CASES {
        let world = World::of(case.manifests).await;
        for (ask, wanted) in case.asks {
            let answer = world.ask(case.at.0, case.at.1, ask).await;
            if !is_met(&answer, wanted) {
                wrong.push(format!("{}: {ask}: {wanted}, not {answer:?}", case.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(CASES.len(), 23, "a case came or went: its rule, too");
}

/// Rules with sessions: a client stays with the endpoint that answered it first, whatever the weights, and each rule has sessions of its own.
#[tokio::test]
async fn a_client_stays_where_its_session_began() {
    let world = World::of(
        r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - matches: [{path: {value: /cookie}}]
      sessionPersistence: {sessionName: s}
      backendRefs: [{name: v1, port: 8080}, {name: v2, port: 8080}]
    - matches: [{path: {value: /other}}]
      sessionPersistence: {sessionName: s}
      backendRefs: [{name: v1, port: 8080}, {name: v2, port: 8080}]
    - matches: [{path: {value: /header}}]
      sessionPersistence: {type: Header, sessionName: X-Session}
      backendRefs: [{name: v1, port: 8080}, {name: v2, port: 8080}, {name: v3, port: 8080, weight: 0}]
    - matches: [{path: {value: /permanent}}]
      sessionPersistence: {cookieConfig: {lifetimeType: Permanent}, absoluteTimeout: 5m}
      backendRefs: [{name: v1, port: 8080}]
",
    )
    .await;
    let line = |answer: &Answer, name: &str| {
        let value = answer
            .headers
            .get(name)
            .map(|value| value.to_str().expect("text"));
        value.unwrap_or_default().to_owned()
    };
    let first = world.ask("same", 80, "GET a.test/cookie").await;
    let told = line(&first, "set-cookie");
    let (cookie, attributes) = told.split_once("; ").expect("attributes");
    assert!(cookie.starts_with("s="), "{told}");
    assert_eq!(attributes, "Path=/cookie; HttpOnly; SameSite=Strict");
    for _ in 0..20 {
        let again = world
            .ask(
                "same",
                80,
                &format!("GET a.test/cookie cookie:x=1;~{cookie}"),
            )
            .await;
        assert_eq!(again.body["name"], first.body["name"]);
        assert_eq!(line(&again, "set-cookie"), "", "it is no news");
    }
    // What is another rule's, or nobody's, is no session of this one.
    for cookie in [cookie, "s=00", "s="] {
        let other = world
            .ask("same", 80, &format!("GET a.test/other cookie:{cookie}"))
            .await;
        let told = line(&other, "set-cookie");
        assert!(told.contains("; Path=/other; "), "{told}");
    }

    let first = world.ask("same", 80, "GET a.test/header").await;
    let token = line(&first, "x-session");
    for _ in 0..20 {
        let again = world
            .ask("same", 80, &format!("GET a.test/header x-session:{token}"))
            .await;
        assert_eq!(again.body["name"], first.body["name"]);
        assert_eq!(line(&again, "x-session"), token);
    }
    let permanent = world.ask("same", 80, "GET a.test/permanent").await;
    let told = line(&permanent, "set-cookie");
    assert!(told.starts_with("weft-session-"), "{told}");
    assert!(
        told.ends_with("; Path=/permanent; Max-Age=300; HttpOnly; SameSite=Strict"),
        "{told}"
    );
}

#[tokio::test]
async fn mirrors_have_their_share_and_nobody_hears_them() {
    let world = World::of(
        r"
- kind: HTTPRoute
  metadata: {name: r, namespace: infra}
  spec:
    parentRefs: [{name: same}]
    rules:
    - matches: [{path: {value: /all}}]
      filters:
      - {type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: v3, port: 8080}, percent: 100}}
      - {type: RequestMirror, requestMirror: {backendRef: {name: gone, port: 8080}}}
      backendRefs: [{name: v1, port: 8080}]
    - matches: [{path: {value: /none}}]
      filters: [{type: RequestMirror, requestMirror: {backendRef: {name: v2, port: 8080}, fraction: {numerator: 0, denominator: 3}}}]
      backendRefs: [{name: v1, port: 8080}]
",
    )
    .await;
    for path in ["/all", "/none"] {
        let answer = world.ask("same", 80, &format!("GET a.test{path}")).await;
        assert!(is_met(&answer, "200 v1"), "{answer:?}");
    }
    let mut heard = Vec::new();
    // The copies are nobody's to wait for.
    while heard.len() < 4 {
        tokio::task::yield_now().await;
        heard = world.heard.lock().clone();
    }
    heard.sort();
    let expected = ["v1 GET /all", "v1 GET /none", "v2 GET /all", "v3 GET /all"];
    assert_eq!(heard, expected);
}

/// Routes as a traffic router leaves them that shifts weights between two Services and puts a rule for a header behind the others: a share of
/// nothing gets nothing, and who says the header is led by it, wherever the rule stands.
#[tokio::test]
async fn weights_and_headers_of_a_traffic_router_are_followed() {
    let route = |stable: u32, canary: u32, more: &str| {
        format!(
            r"
- kind: HTTPRoute
  metadata: {{name: r, namespace: infra, labels: {{rollouts.argoproj.io/gatewayapi-canary: in-progress}}}}
  spec:
    parentRefs: [{{name: same}}]
    rules:
    - matches: [{{path: {{type: PathPrefix, value: /}}}}]
      backendRefs:
      - {{group: '', kind: Service, name: v1, port: 8080, weight: {stable}}}
      - {{group: '', kind: Service, name: v2, port: 8080, weight: {canary}}}
{more}"
        )
    };
    let header = |kind: &str, value: &str| {
        format!(
            r"    - matches: [{{path: {{type: PathPrefix, value: /}}, headers: [{{name: x-version, type: {kind}, value: '{value}'}}]}}]
      backendRefs: [{{group: '', kind: Service, name: v2, port: 8080}}]
"
        )
    };
    for (manifests, asks) in [
        (
            route(100, 0, ""),
            [
                ("GET a.test/", "200 v1"),
                ("GET a.test/ x-version:v2", "200 v1"),
            ],
        ),
        (
            route(0, 100, ""),
            [
                ("GET a.test/", "200 v2"),
                ("GET a.test/ x-version:v2", "200 v2"),
            ],
        ),
        (
            route(100, 0, &header("Exact", "v2")),
            [
                ("GET a.test/", "200 v1"),
                ("GET a.test/ x-version:v2", "200 v2"),
            ],
        ),
        (
            route(100, 0, &header("RegularExpression", "v.*")),
            [
                ("GET a.test/ x-version:w2", "200 v1"),
                ("GET a.test/ x-version:v22", "200 v2"),
            ],
        ),
    ] {
        let world = World::of(&manifests).await;
        for (ask, wanted) in asks {
            for _ in 0..8 {
                let answer = world.ask("same", 80, ask).await;
                assert!(
                    is_met(&answer, wanted),
                    "{ask}: {wanted}, not {answer:?}: {manifests}"
                );
            }
        }
    }
}
