//! Calls between components of two nodes and from outside: who is reached, who is seen to call, what is refused.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::SinkExt as _;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::Frame;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use weft_tests::cluster::{Cluster, eventually, success};

/// A pod of the probe with a Service of the same name; `node` is where it runs.
fn probe(namespace: &str, name: &str, account: &str, node: u32) -> String {
    format!(
        r"
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {name}, kind: probe}}, annotations: {{weft.dev/request-timeout: 5s}}}}
spec:
  serviceAccountName: {account}
  nodeSelector: {{kubernetes.io/hostname: node-{node}}}
  containers:
  - name: main
    image: probe:1
    env: [{{name: NAME, value: {name}}}]
    ports: [{{name: web, containerPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: web}}]}}
"
    )
}

fn account(namespace: &str, name: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: {name}, namespace: {namespace}}}\n"
    )
}

fn namespace(name: &str) -> String {
    format!("---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n")
}

fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    let path = cluster.data_dir().join("mesh.yaml");
    std::fs::write(&path, manifest)?;
    success(cluster.weft(&["apply", "-f", &path.display().to_string()])?).map(drop)
}

/// `front` on node 1 calls `near` on node 1 and `far` on node 2; `abroad` lives in another namespace.
fn started() -> anyhow::Result<Cluster> {
    let cluster = Cluster::start(2)?;
    cluster.push("probe", "probe:1")?;
    let objects = [
        namespace("shop"),
        namespace("other"),
        account("shop", "front"),
        account("shop", "back"),
        probe("shop", "front", "front", 1),
        probe("shop", "near", "back", 1),
        probe("shop", "far", "back", 2),
        probe("other", "abroad", "default", 2),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: headless, namespace: shop}\nspec: {clusterIP: None, selector: {app: far}, ports: [{port: 8080}]}\n".to_owned(),
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: nobody, namespace: shop}\nspec: {selector: {app: nobody}, ports: [{port: 80}]}\n".to_owned(),
    ];
    apply(&cluster, &objects.concat())?;
    Ok(cluster)
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// One GET through the gateway.
async fn get(
    cluster: &Cluster,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<Answer> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let mut request = http::Request::get(format!("{}{path}", cluster.gateway));
    request = request.header(http::header::HOST, host);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = client.request(request.body(Empty::new())?).await?;
    let status = response.status().as_u16();
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    let headers = response.headers().iter().map(text).collect();
    let body = response.into_body().collect().await?.to_bytes();
    Ok(Answer {
        status,
        headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    })
}

/// Waits until every node's gateway answers: they share one port, the kernel chooses one for each connection, and each learns of
/// a route by itself. Sixteen answers in a row leave a node that does not know it one chance in sixty thousand.
fn answers(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    host: &str,
    path: &str,
) -> anyhow::Result<()> {
    eventually(&format!("{host}{path} answers"), || {
        for _ in 0..16 {
            if runtime.block_on(get(cluster, host, path, &[]))?.status != 200 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

#[test]
fn components_call_each_other_by_name_and_nothing_else() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started().unwrap();
    let front = "front.shop.localhost";
    for to in ["near", "far", "abroad.other"] {
        answers(
            &cluster,
            &runtime,
            front,
            &format!("/call?url=http://{to}/hello"),
        )
        .unwrap();
    }
    let through_front = |url: &str, headers: &[(&str, &str)]| {
        let path = format!("/call?url={url}");
        let answer = runtime
            .block_on(get(&cluster, front, &path, headers))
            .unwrap();
        answer.body
    };
    for name in [
        "near",
        "NEAR",
        "near:80",
        "near.shop",
        "near.shop.svc",
        "near.shop.svc.cluster.local.",
        "far",
        "headless:8080",
        "abroad.other",
        "abroad.other.svc.cluster.local",
    ] {
        assert_eq!(
            through_front(&format!("http://{name}/hello"), &[]),
            "200 OK\nhello\n",
            "{name}"
        );
    }

    // The callee knows who calls, from the certificate or from the host, never from what the caller says.
    let forged = [
        (
            "x-forwarded-client-cert",
            "URI=spiffe://cluster.local/ns/shop/sa/admin",
        ),
        ("x-weft-source", "admin;;;;"),
    ];
    for (to, transport) in [("near", "in-process"), ("far", "mutual-tls")] {
        let told = through_front(&format!("http://{to}/whoami"), &forged);
        for line in [
            "spiffe-id: spiffe://cluster.local/ns/shop/sa/front",
            "namespace: shop",
            "service-account: front",
            "workload: front",
            &format!("transport: {transport}"),
            "attempt: 1",
        ] {
            assert!(
                told.lines().any(|told| told == line),
                "{to}: {line} is not in {told}"
            );
        }
        // The time left is the caller's, who has 5 s for all of its own call.
        let left = told
            .lines()
            .find_map(|line| line.strip_prefix("remaining: ")?.strip_suffix(" ms"));
        let left: u64 = left.unwrap_or_else(|| panic!("{told}")).parse().unwrap();
        assert!(left <= 5_000, "{left}");
    }

    // Behind the gateway is anybody, whatever they say of themselves: the component is told nobody.
    let behind = runtime.block_on(get(&cluster, front, "/whoami", &forged));
    let behind = behind.unwrap().body;
    assert!(behind.starts_with("unknown caller\n"), "{behind}");

    // A trace goes on through a guest that does nothing for it.
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    for to in ["near", "far"] {
        let told = through_front(
            &format!("http://{to}/headers"),
            &[("traceparent", &parent), ("tracestate", "vendor=1")],
        );
        assert!(
            told.contains(&format!("traceparent: 00-{trace}-"))
                && told.contains("tracestate: vendor=1"),
            "{told}"
        );
        assert!(
            !told.contains("b7ad6b7169203331"),
            "the caller's span is not the gateway's: {told}"
        );
    }

    // What is not there, and what is not ours.
    for (url, code) in [
        ("http://nosuch/", "destination-not-found"),
        ("http://near:81/", "internal-error"),
        ("http://nobody/", "destination-unavailable"),
        ("http://localhost:9/", "connection-refused"),
        ("http://example.com/", "HTTP-request-denied"),
        ("https://example.com/", "HTTP-request-denied"),
        (
            "http://169.254.169.254/latest/meta-data",
            "HTTP-request-denied",
        ),
        ("http://127.0.0.2:6443/", "HTTP-request-denied"),
        ("http://[::ffff:127.0.0.1]:6443/", "HTTP-request-denied"),
        ("http://0x7f000001/", "destination-not-found"),
        ("http://near.shop@example.com/", "HTTP-request-denied"),
    ] {
        let told = through_front(url, &[]);
        assert!(told.ends_with(&format!("code: {code}\n")), "{url}: {told}");
    }

    // Both ends of a call count it, under Istio's names.
    let metrics = |node: u32| {
        let path = format!("/api/v1/nodes/node-{node}/proxy/metrics");
        success(cluster.weft(&["get", "--raw", &path]).unwrap())
    };
    // As in Istio, the calling end does not say how the connection was secured.
    for (node, reporter, policy) in [(1, "source", "unknown"), (2, "destination", "mutual_tls")] {
        let text = metrics(node).unwrap();
        let labels = [
            format!("reporter=\"{reporter}\""),
            "source_workload=\"front\"".to_owned(),
            "source_principal=\"spiffe://cluster.local/ns/shop/sa/front\"".to_owned(),
            "destination_service=\"far.shop.svc.cluster.local\"".to_owned(),
            format!("connection_security_policy=\"{policy}\""),
            "response_code=\"200\"".to_owned(),
        ];
        let counted = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total{"))
            .any(|line| labels.iter().all(|label| line.contains(label)));
        assert!(counted, "{reporter}: {text}");
    }
}

const ROUTES: &str = r#"
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: shop}
spec:
  gatewayClassName: weft
  listeners: [{name: http, port: 8080, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  parentRefs: [{name: public}]
  hostnames: [shop.example, "*.shop.example"]
  rules:
  - matches: [{path: {type: Exact, value: /env}}]
    backendRefs: [{name: near, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /env}}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /env}}}]
    backendRefs: [{name: far, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-tier, value: gold}], remove: [x-secret]}
    - type: ResponseHeaderModifier
      responseHeaderModifier: {add: [{name: x-served-by, value: weft}]}
    backendRefs: [{name: near, port: 80}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /env}}}]
  - matches: [{headers: [{name: x-team, value: blue}]}]
    filters: [{type: URLRewrite, urlRewrite: {path: {type: ReplaceFullPath, replaceFullPath: /env}}}]
    backendRefs: [{name: near, port: 80, weight: 0}, {name: far, port: 80, weight: 1}]
  - matches: [{path: {value: /broken}}]
    backendRefs: [{name: nosuch, port: 80}]
"#;

/// A gateway for labelled namespaces, and a route of another namespace to a service of this one.
const SHARED: &str = r#"
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: shared, namespace: shop}
spec:
  gatewayClassName: weft
  listeners:
  - name: http
    port: 8080
    protocol: HTTP
    hostname: "*.team.example"
    allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {team: t}}}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: team, namespace: other}
spec:
  parentRefs: [{name: shared, namespace: shop}]
  hostnames: [a.team.example]
  rules: [{backendRefs: [{name: near, namespace: shop, port: 80}]}]
---
apiVersion: v1
kind: Namespace
metadata: {name: other, labels: {team: t}}
"#;

const GRANT: &str = r#"
---
apiVersion: gateway.networking.k8s.io/v1
kind: ReferenceGrant
metadata: {name: other, namespace: shop}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: other}]
  to: [{group: "", kind: Service, name: near}]
"#;

/// Waits until every node's gateway answers like this, and the route's status says so.
fn told_and_done(
    cluster: &Cluster,
    runtime: &tokio::runtime::Runtime,
    status: u16,
    condition: (&str, &str),
) -> anyhow::Result<()> {
    eventually(&format!("{status} and {condition:?}"), || {
        for _ in 0..16 {
            let answer = runtime.block_on(get(cluster, "a.team.example", "/env", &[]))?;
            if answer.status != status {
                return Ok(None);
            }
        }
        let route =
            success(cluster.weft(&["get", "httproute", "team", "-n", "other", "-o", "json"])?)?;
        let route: serde_json::Value = serde_json::from_str(&route)?;
        let conditions = route["status"]["parents"][0]["conditions"].as_array();
        let is_told = conditions
            .into_iter()
            .flatten()
            .any(|told| told["type"] == condition.0 && told["reason"] == condition.1);
        Ok(is_told.then_some(()))
    })
}

/// The kinds of the Gateway API are custom kinds: who takes a definition away takes its objects and what came of them; with it they come back.
#[test]
fn routes_go_and_come_with_their_definition() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started().unwrap();
    apply(&cluster, ROUTES).unwrap();
    answers(&cluster, &runtime, "shop.example", "/env").unwrap();
    let weft = |args: &[&str]| cluster.weft(args).and_then(success);
    let definition = "httproutes.gateway.networking.k8s.io";
    let crds = "customresourcedefinitions";
    let saved = weft(&["get", crds, definition, "-o", "json"]).unwrap();
    weft(&["delete", crds, definition]).unwrap();
    eventually("no node serves the route", || {
        for _ in 0..16 {
            let answer = runtime.block_on(get(&cluster, "shop.example", "/env", &[]))?;
            if answer.status != 404 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
    .unwrap();
    // What needs no route goes on.
    answers(&cluster, &runtime, "near.shop.localhost", "/hello").unwrap();

    let mut saved: serde_json::Value = serde_json::from_str(&saved).unwrap();
    saved["metadata"] = serde_json::json!({
        "name": definition, "annotations": saved["metadata"]["annotations"],
    });
    saved["status"] = serde_json::json!({});
    eventually("the definition is gone", || {
        Ok(weft(&["get", crds, definition]).is_err().then_some(()))
    })
    .unwrap();
    apply(&cluster, &saved.to_string()).unwrap();
    eventually("routes are taken", || Ok(apply(&cluster, ROUTES).ok())).unwrap();
    answers(&cluster, &runtime, "shop.example", "/env").unwrap();
}

#[test]
fn the_gateway_routes_as_the_gateway_api_says() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started().unwrap();
    for name in ["near", "far"] {
        answers(
            &cluster,
            &runtime,
            &format!("{name}.shop.localhost"),
            "/hello",
        )
        .unwrap();
    }
    apply(&cluster, ROUTES).unwrap();
    answers(&cluster, &runtime, "shop.example", "/env").unwrap();
    let ask = |host: &str, path: &str, headers: &[(&str, &str)]| {
        runtime
            .block_on(get(&cluster, host, path, headers))
            .unwrap()
    };
    let blue = [("x-team", "blue")];
    for (host, path, headers, status, name) in [
        ("shop.example", "/env", &[][..], 200, "NAME=near"),
        ("shop.example:8080", "/env?x=1", &[], 200, "NAME=near"),
        ("SHOP.example", "/env/", &[], 404, ""),
        ("a.b.shop.example", "/env/..", &[], 404, ""),
        ("eu.shop.example", "/env", &[], 200, "NAME=near"),
        ("shop.example", "/environment", &[], 404, "no route matches"),
        ("shop.example", "/anything", &blue, 200, "NAME=far"),
        (
            "shop.example",
            "/broken",
            &[],
            500,
            "there is no service nosuch.shop",
        ),
        (
            "shop.example",
            "/",
            &[],
            404,
            "no route matches shop.example/",
        ),
        (
            "other.example",
            "/env",
            &[],
            404,
            "no route matches other.example/env",
        ),
    ] {
        let answer = ask(host, path, headers);
        assert!(
            answer.status == status && answer.body.contains(name),
            "{host}{path}: {} {}",
            answer.status,
            answer.body
        );
    }
    let changed = ask(
        "shop.example",
        "/headers",
        &[("x-secret", "1"), ("x-tier", "tin")],
    );
    assert!(
        changed.body.contains("x-tier: gold\n") && !changed.body.contains("x-secret"),
        "{}",
        changed.body
    );
    assert_eq!(changed.headers["x-served-by"], "weft");
    let moved = ask("shop.example", "/old/page", &[]);
    assert_eq!(moved.status, 301);
    assert!(
        moved.headers["location"].ends_with("/env"),
        "{:?}",
        moved.headers
    );

    // What the status says is what is done, at each moment: a grant is missing, there, and then the label is gone.
    apply(&cluster, SHARED).unwrap();
    let told = |status, condition| told_and_done(&cluster, &runtime, status, condition).unwrap();
    told(500, ("ResolvedRefs", "RefNotPermitted"));
    apply(&cluster, GRANT).unwrap();
    told(200, ("ResolvedRefs", "ResolvedRefs"));
    apply(
        &cluster,
        &SHARED.replace("labels: {team: t}", "labels: {team: u}"),
    )
    .unwrap();
    told(404, ("Accepted", "NotAllowedByListeners"));
}

#[test]
fn a_call_in_flight_outlives_the_deletion_of_its_pod() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = started().unwrap();
    // The gateway's port is shared by both nodes, so that the call may cross from one to the other or not.
    let host = "far.shop.localhost";
    answers(&cluster, &runtime, host, "/hello").unwrap();
    let (mut sender, receiver) =
        futures::channel::mpsc::channel::<std::io::Result<Frame<Bytes>>>(1);
    let body = StreamBody::new(receiver);
    let mut part = |text: &'static str, echoed: &mut hyper::body::Incoming| {
        runtime.block_on(async {
            sender.send(Ok(Frame::data(text.into()))).await.unwrap();
            let frame = echoed.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), text);
        });
    };
    let client = {
        let _runtime = runtime.enter();
        Client::builder(TokioExecutor::new()).build_http()
    };
    let request = http::Request::post(format!("{}/echo", cluster.gateway))
        .header(http::header::HOST, host)
        .body(body)
        .unwrap();
    let response = runtime.block_on(client.request(request)).unwrap();
    assert_eq!(response.status(), 200);
    let mut echoed = response.into_body();
    part("before", &mut echoed);
    success(
        cluster
            .weft(&["delete", "pod", "far", "-n", "shop", "--no-wait"])
            .unwrap(),
    )
    .unwrap();
    eventually("nobody is sent there any more", || {
        let answer = runtime.block_on(get(&cluster, host, "/hello", &[]))?;
        Ok((answer.status == 503).then_some(()))
    })
    .unwrap();
    part("after", &mut echoed);
    drop(sender);
    assert!(runtime.block_on(echoed.frame()).is_none());
    eventually("the pod is gone", || {
        let left = success(cluster.weft(&["get", "pods", "-n", "shop", "-o", "name"])?)?;
        Ok((!left.contains("far")).then_some(()))
    })
    .unwrap();
}

/// gRPC is HTTP/2 with trailers both ways: they pass the gateway, another node and guests of both generations. A WebSocket needs
/// an upgrade, which no world of WASI has: the request is served as the GET that it is.
#[test]
fn trailers_pass_both_ways_as_grpc_needs_them_and_upgrades_do_not() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cluster = Cluster::start(2).unwrap();
    let mut manifest = namespace("shop");
    for (name, guest) in [("second", "behaviours"), ("third", "behaviours-p3")] {
        cluster.push(guest, &format!("{guest}:1")).unwrap();
        manifest += &probe("shop", name, "default", 2).replace("probe:1", &format!("{guest}:1"));
    }
    cluster.push("probe", "probe:1").unwrap();
    manifest += &probe("shop", "front", "default", 1);
    apply(&cluster, &manifest).unwrap();
    // The host is the authority of the URI in HTTP/2, so that the client is told apart from it where to connect.
    let gateway = cluster.gateway.trim_start_matches("http://").to_owned();
    for name in ["second", "third"] {
        let host = format!("{name}.shop.localhost");
        answers(&cluster, &runtime, &host, "/request").unwrap();
        let call = |path: &str| {
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("x-sum"),
                http::HeaderValue::from_static("5"),
            )]);
            let frames = [
                Ok::<_, std::convert::Infallible>(Frame::data(Bytes::from("hello"))),
                Ok(Frame::trailers(trailers)),
            ];
            let request = http::Request::post(format!("http://{host}{path}"))
                .header(http::header::TE, "trailers")
                .header(http::header::CONTENT_TYPE, "application/grpc")
                .body(StreamBody::new(futures::stream::iter(frames)))
                .unwrap();
            runtime.block_on(async {
                let socket = tokio::net::TcpStream::connect(&gateway).await.unwrap();
                let (mut sender, connection) = hyper::client::conn::http2::handshake(
                    TokioExecutor::new(),
                    hyper_util::rt::TokioIo::new(socket),
                )
                .await
                .unwrap();
                tokio::spawn(connection);
                let response = sender.send_request(request).await.unwrap();
                assert_eq!(response.status(), 200, "{name}{path}");
                assert_eq!(response.version(), http::Version::HTTP_2);
                let body = response.into_body().collect().await.unwrap();
                let trailers = body.trailers().cloned().unwrap_or_default();
                let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                (text, trailers)
            })
        };
        // Twelve calls: the gateway of either node takes them.
        for _ in 0..6 {
            let (text, trailers) = call("/trailers");
            assert_eq!(text, "hello", "{name}");
            assert_eq!(trailers["x-sum"], "5", "{name}");
            let (told, _) = call("/request-body");
            assert!(told.contains("hello") && told.contains("x-sum"), "{told}");
        }
    }
    let upgrade = [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    answers(&cluster, &runtime, "front.shop.localhost", "/hello").unwrap();
    let answer = runtime
        .block_on(get(&cluster, "front.shop.localhost", "/headers", &upgrade))
        .unwrap();
    assert_eq!(answer.status, 200);
    assert!(!answer.body.contains("upgrade: "), "{}", answer.body);
}
