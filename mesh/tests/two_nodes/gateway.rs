//! The way in from outside.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use weft_mesh::{
    AttachedRoute, Backend, BackendTarget, Body, BoxError, CancellationToken, Failure, FailureKind,
    GatewayConfig, HostPattern, Match, Mesh, OpenServices, PathMatch, Rule, Served, Table,
};

use super::world::*;

#[tokio::test]
async fn grpc_passes_the_gateway_and_another_node() {
    let world = world();
    world.b.attach(pod(2), workload("voting", echo));
    world.publish(
        1,
        vec![service(
            "voting",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )],
    );
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });

    // HTTP/2 without TLS and without an upgrade, as gRPC clients speak it inside a cluster.
    let stream = tokio::net::TcpStream::connect(address).await.expect("open");
    let (mut client, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(stream),
    )
    .await
    .expect("a connection");
    tokio::spawn(connection);
    let (sender, receiver) = futures::channel::mpsc::channel::<Result<Frame<Bytes>, BoxError>>(1);
    let request = Request::post("http://voting.vote.localhost/vote.Voting/Cast")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(StreamBody::new(receiver)))
        .expect("a request");
    let response = client.send_request(request).await.expect("an answer");
    assert_eq!(response.status(), 200);
    let body = Body::new(response.into_body().map_err(Into::into));
    converse(sender, body).await;

    for (mesh, reporter) in [(&world.a, "source"), (&world.b, "destination")] {
        let mut text = String::new();
        mesh.render_metrics(&mut text);
        let labels = [
            format!("reporter=\"{reporter}\""),
            "source_workload=\"gateway\"".to_owned(),
            "request_protocol=\"grpc\"".to_owned(),
            "grpc_response_status=\"0\"".to_owned(),
        ];
        let counted = text
            .lines()
            .filter(|line| line.starts_with("istio_requests_total"))
            .any(|line| labels.iter().all(|label| line.contains(label)) && line.ends_with(" 1"));
        assert!(counted, "{reporter}: {text}");
    }
}

/// Takes no call: what a workload says whose queue, or whose engine's pool of instances, is full.
async fn full(_request: Request<Body>) -> Result<Response<Body>, Failure> {
    Err(FailureKind::Overloaded.into())
}

/// Has no room, and says so itself.
async fn busy(_request: Request<Body>) -> Result<Response<Body>, Failure> {
    let answer = Response::builder().status(503).header("retry-after", "7");
    Ok(answer.body(Body::full("busy")).expect("a response"))
}

#[tokio::test]
async fn who_is_turned_away_is_told_when_to_come_again() {
    let world = world();
    world.authority.give(&world.b, "busy");
    let mut no_place = workload("voting", describe);
    no_place.in_flight_max = 0;
    world.a.attach(pod(1), workload("here", full));
    world.b.attach(pod(2), workload("voting", full));
    world.b.attach(pod(3), no_place);
    world.b.attach(pod(4), workload("busy", busy));
    world.publish(
        1,
        vec![
            service("here", vec![endpoint("here", 1, "a", world.b_address)]),
            service("there", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("full", vec![endpoint("voting", 3, "b", world.b_address)]),
            service("busy", vec![endpoint("busy", 4, "b", world.b_address)]),
            service("empty", Vec::new()),
        ],
    );
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let mut lines = Vec::new();
    for name in ["here", "there", "full", "busy", "empty"] {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = Request::get("/")
            .header("host", format!("{name}.vote.localhost"))
            .body(Body::empty())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let after = response.headers().get("retry-after").cloned();
        let after = after.map(|after| after.to_str().expect("text").to_owned());
        lines.push(format!("{name} {} {after:?}", response.status().as_u16()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r#"
    here 503 Some("1")
    there 503 Some("1")
    full 503 Some("1")
    busy 503 Some("7")
    empty 503 None
    "#);
    world.stop.cancel();
}

#[tokio::test]
async fn the_gateway_routes_by_host_and_falls_back_to_service_names() {
    let world = world();
    world.authority.give(&world.a, "web");
    world.a.attach(pod(1), workload("local", describe));
    world.b.attach(pod(2), workload("voting", describe));
    let to = |name: &str| {
        Backend::new(BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: name.to_owned(),
            port: 80,
        })
    };
    let route = |name: &str, host: &str, backend| {
        let rule = Rule {
            route: format!("vote/{name}"),
            backends: vec![backend],
            ..Rule::default()
        };
        let attached = AttachedRoute {
            route: rule.route.clone(),
            rules: [Arc::new(rule)].into(),
            ..AttachedRoute::default()
        };
        (HostPattern::parse(host), vec![attached])
    };
    let hosts = [
        route("shop", "shop.example.com", to("voting")),
        route("broken", "broken.example.com", to("gone")),
    ];
    let served = Served {
        listeners: [(HostPattern::Any, hosts.into())].into(),
        ..Served::default()
    };
    let table = Table::builder("a", 1)
        .services([
            service("local", vec![endpoint("local", 1, "a", world.b_address)]),
            service("voting", vec![endpoint("voting", 2, "b", world.b_address)]),
            service("empty", Vec::new()),
        ])
        .routes(&served)
        .build();
    world.a.publish(table);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    let served = tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });

    let mut lines = Vec::new();
    for host in [
        "shop.example.com",
        "local.vote.localhost:8080",
        "voting.vote.localhost",
        "broken.example.com",
        "empty.vote.localhost",
        "unknown.example.com",
    ] {
        let stream = tokio::net::TcpStream::connect(address).await.expect("open");
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        let request = Request::get("/p")
            .header("host", host)
            .header("x-forwarded-for", "1.2.3.4")
            .header("x-weft-error", "not-here")
            .body(Body::empty())
            .expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        let response = response.map(|body| Body::new(body.map_err(Into::into)));
        let (status, line) = text(response).await.expect("text");
        lines.push(format!("{} {}", status.as_u16(), line.trim_end()));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    200 GET http://shop.example.com/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by mtls, depth 1, attempt 0, weft headers 0
    200 GET http://local.vote.localhost:8080/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by in-process, depth 1, attempt 0, weft headers 0
    200 GET http://voting.vote.localhost/p from spiffe://cluster.local/ns/weft-system/sa/gateway (gateway) by mtls, depth 1, attempt 0, weft headers 0
    500 route vote/broken sends this request to a backend that is not valid: there is no service gone.vote
    503 service empty.vote has no ready endpoint
    404 no route matches unknown.example.com/p
    ");
    world.stop.cancel();
    served.await.expect("no panic").expect("it drained");
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_closed() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let gateway = Mesh::builder("a", DOMAIN)
        .gateway(GatewayConfig {
            head_timeout: Duration::from_millis(200),
            ..GatewayConfig::default()
        })
        .build();
    let (listener, address) = listen();
    let stop = CancellationToken::new();
    let serving = stop.clone();
    let served = tokio::spawn(async move { gateway.serve_gateway(listener, serving).await });
    for begun in [
        "",
        "GET / HT",
        "GET / HTTP/1.1\r\nhost: a\r\nx-slow: ",
        "PRI * HTTP/2.0\r\n",
    ] {
        let mut client = tokio::net::TcpStream::connect(address)
            .await
            .expect("a connection");
        client.write_all(begun.as_bytes()).await.expect("written");
        // Closed, in whatever way; an answer before that is none.
        let mut said = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut said));
        let closed = closed.await.expect("the gateway closes it");
        assert!(
            closed.is_err() || !said.starts_with(b"HTTP/1.1 2"),
            "{begun:?}"
        );
    }
    stop.cancel();
    served.await.expect("no panic").expect("it served");
}

/// Asks the gateway for a path of a host over HTTP/1.1: status and text.
pub async fn ask(gateway: std::net::SocketAddr, host: &str, path: &str) -> String {
    let stream = tokio::net::TcpStream::connect(gateway).await.expect("open");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io)
        .await
        .expect("a connection");
    tokio::spawn(connection);
    let request = Request::get(path).header("host", host).body(Body::empty());
    let request = request.expect("a request");
    let response = sender.send_request(request).await.expect("an answer");
    let response = response.map(|body| Body::new(body.map_err(Into::into)));
    let (status, line) = text(response).await.expect("text");
    format!("{} {}", status.as_u16(), line.trim_end())
}

/// Answers with the path that it was shown.
async fn path(request: Request<Body>) -> Result<Response<Body>, Failure> {
    Ok(Response::new(Body::full(request.uri().path().to_owned())))
}

/// A mesh of one node whose services `web` and `secret` run here, with a listener for all hosts that has the route, or none.
fn one_node(open: OpenServices, route: Option<(HostPattern, Vec<AttachedRoute>)>) -> Mesh {
    let config = GatewayConfig {
        open_services: open,
        ..GatewayConfig::default()
    };
    let mesh = Mesh::builder("a", DOMAIN).gateway(config).build();
    mesh.attach(pod(1), workload("web", path));
    mesh.attach(pod(2), workload("secret", path));
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let served = Served {
        listeners: [(HostPattern::Any, route.into_iter().collect())].into(),
        ..Served::default()
    };
    let table = Table::builder("a", 1)
        .services([
            service("web", vec![endpoint("web", 1, "a", nowhere)]),
            service("secret", vec![endpoint("secret", 2, "a", nowhere)]),
        ])
        .routes(&served)
        .build();
    mesh.publish(table);
    mesh
}

/// A route of the gateway `public` for `host`: requests below `prefix` go to `web`.
fn route(host: &str, prefix: &str) -> (HostPattern, Vec<AttachedRoute>) {
    let rule = Rule {
        route: "vote/r".to_owned(),
        matches: vec![Match {
            path: PathMatch::Prefix(prefix.to_owned()),
            ..Match::default()
        }],
        backends: vec![Backend::new(BackendTarget::Service {
            namespace: "vote".to_owned(),
            name: "web".to_owned(),
            port: 80,
        })],
        ..Rule::default()
    };
    let attached = AttachedRoute {
        route: rule.route.clone(),
        rules: [Arc::new(rule)].into(),
        ..AttachedRoute::default()
    };
    (HostPattern::parse(host), vec![attached])
}

#[tokio::test]
async fn the_gateway_publishes_nothing_that_nobody_published() {
    let (secret, web) = ("secret.vote.localhost", "web.vote.localhost");
    let cases = [
        ("off", OpenServices::ToNobody, None, secret, "/p"),
        ("a name", OpenServices::ToThisMachine, None, secret, "/p"),
        // A dot, and capitals, name nothing else.
        (
            "a dot",
            OpenServices::ToThisMachine,
            Some((web, "/only")),
            "WEB.vote.localhost.",
            "/p",
        ),
        (
            "a route",
            OpenServices::ToThisMachine,
            Some((web, "/only")),
            web,
            "/only/p",
        ),
        (
            "the route's own 404",
            OpenServices::ToThisMachine,
            Some((web, "/only")),
            web,
            "/p",
        ),
        (
            "a wildcard",
            OpenServices::ToThisMachine,
            Some(("*.vote.localhost", "/only")),
            secret,
            "/p",
        ),
        (
            "all hosts",
            OpenServices::ToThisMachine,
            Some(("", "/only")),
            secret,
            "/only",
        ),
        (
            "another's",
            OpenServices::ToThisMachine,
            Some(("shop.example", "/")),
            secret,
            "/p",
        ),
    ];
    let mut lines = Vec::new();
    for (name, open, published, host, asked) in cases {
        let routes = published.map(|(host, prefix)| route(host, prefix));
        let mesh = one_node(open, routes);
        let (listener, address) = listen();
        let stop = CancellationToken::new();
        let serving = stop.clone();
        let served = tokio::spawn(async move { mesh.serve_gateway(listener, serving).await });
        lines.push(format!("{name}: {}", ask(address, host, asked).await));
        stop.cancel();
        served.await.expect("no panic").expect("it served");
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    off: 404 no route matches secret.vote.localhost/p
    a name: 200 /p
    a dot: 404 no route matches web.vote.localhost/p
    a route: 200 /only/p
    the route's own 404: 404 no route matches web.vote.localhost/p
    a wildcard: 404 no route matches secret.vote.localhost/p
    all hosts: 200 /only
    another's: 200 /p
    ");
}

#[tokio::test]
async fn a_prefix_is_not_left_by_dots_slashes_or_escapes() {
    let mesh = one_node(OpenServices::ToNobody, Some(route("", "/public")));
    let (listener, address) = listen();
    let stop = CancellationToken::new();
    let serving = stop.clone();
    tokio::spawn(async move { mesh.serve_gateway(listener, serving).await });
    let mut lines = Vec::new();
    for path in [
        "/public/a",
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public/./a//b/",
        "//public/a",
        "/public/a%2fb",
        "/%70ublic/a",
    ] {
        lines.push(format!("{path}: {}", ask(address, "shop.test", path).await));
    }
    insta::assert_snapshot!(lines.join("\n"), @r"
    /public/a: 200 /public/a
    /public/../admin: 404 no route matches shop.test/admin
    /public/%2e%2e/admin: 404 no route matches shop.test/admin
    /public/./a//b/: 200 /public/a/b/
    //public/a: 200 /public/a
    /public/a%2fb: 200 /public/a%2Fb
    /%70ublic/a: 200 /public/a
    ");
    stop.cancel();
}

/// Says where the request came from and for whom it is, as it was told.
async fn whence(request: Request<Body>) -> Result<Response<Body>, Failure> {
    let told = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"].map(|name| {
        let values = request.headers().get_all(name).iter();
        let values: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
        values.join(" | ")
    });
    let host = request.uri().authority().map(ToString::to_string);
    let text = format!("{} for {}", told.join("; "), host.unwrap_or_default());
    Ok(Response::new(Body::full(text)))
}

/// What is answered to a request of these lines, sent by hand: its status, and where it leads or what it says.
async fn said(at: std::net::SocketAddr, path: &str, lines: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(at).await.expect("open");
    let request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.expect("room");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("an end");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let mut head = head.lines();
    let status = head.next().and_then(|line| line.get(9..12));
    let location = head.find_map(|line| line.strip_prefix("location: "));
    format!(
        "{} {}",
        status.expect("a status"),
        location.unwrap_or_else(|| body.trim_end())
    )
}

#[tokio::test]
async fn proxies_in_front_are_believed_as_far_as_they_are_trusted() {
    for (trusted_hops, expected) in [
        (
            0,
            "200 127.0.0.1; http; whence.vote.localhost for whence.vote.localhost",
        ),
        (
            1,
            "200 203.0.113.7, 127.0.0.1; https; www.shop.test for whence.vote.localhost",
        ),
    ] {
        let mesh = Mesh::builder("a", DOMAIN)
            .gateway(GatewayConfig {
                open_services: OpenServices::ToThisMachine,
                trusted_hops,
                ..GatewayConfig::default()
            })
            .build();
        mesh.attach(pod(1), workload("whence", whence));
        let (listener, address) = listen();
        let services = vec![service("whence", vec![endpoint("whence", 1, "a", address)])];
        mesh.publish(Table::builder("a", 1).services(services).build());
        let stop = CancellationToken::new();
        let serving = stop.clone();
        tokio::spawn(async move { mesh.serve_gateway(listener, serving).await });
        let lines = "Host: whence.vote.localhost\r\nX-Forwarded-For: 10.0.0.1, 203.0.113.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: www.shop.test\r\n";
        assert_eq!(said(address, "/", lines).await, expected, "{trusted_hops}");
        stop.cancel();
    }
}

/// Listeners at an address of IPv6: hosts that are addresses, and where requests are said to come from and are sent on to.
#[tokio::test]
async fn a_gateway_is_at_addresses_of_ipv6_too() {
    let mesh = Mesh::builder("a", DOMAIN).build();
    mesh.attach(pod(1), workload("whence", whence));
    let listener = std::net::TcpListener::bind("[::1]:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let place: std::net::SocketAddr = "[2001:db8::9]:80".parse().expect("a place");
    let rule = |path: &str, filters| {
        Arc::new(Rule {
            route: "vote/whence".to_owned(),
            matches: vec![Match {
                path: PathMatch::Exact(path.to_owned()),
                ..Match::default()
            }],
            filters,
            backends: match path {
                "/" => vec![Backend::new(BackendTarget::Service {
                    namespace: "vote".to_owned(),
                    name: "whence".to_owned(),
                    port: 80,
                })],
                _ => Vec::new(),
            },
            ..Rule::default()
        })
    };
    let redirect = weft_mesh::Filter::Redirect(weft_mesh::Redirect {
        scheme: Some("https".to_owned()),
        ..weft_mesh::Redirect::default()
    });
    let route = AttachedRoute {
        route: "vote/whence".to_owned(),
        rules: [rule("/", Vec::new()), rule("/away", vec![redirect])].into(),
        listener_port: Some(80),
        ..AttachedRoute::default()
    };
    let hosts = [(HostPattern::Any, vec![route])].into();
    let front = weft_mesh::Front {
        listeners: [(HostPattern::Any, hosts)].into(),
        ..weft_mesh::Front::default()
    };
    let served = Served {
        fronts: [(place, front)].into(),
        ..Served::default()
    };
    let services = vec![service("whence", vec![endpoint("whence", 1, "a", address)])];
    let builder = Table::builder("a", 1).services(services);
    mesh.publish(builder.routes(&served).build());
    assert_eq!(*mesh.places().borrow(), [place].into());
    let stop = CancellationToken::new();
    let serving = (mesh.clone(), stop.clone());
    tokio::spawn(async move { serving.0.serve_place(place, listener, serving.1).await });
    for (host, expected) in [
        (
            "[2001:DB8::9]",
            "200 ::1; http; [2001:db8::9] for [2001:db8::9]",
        ),
        (
            "[2001:db8::9]:80",
            "200 ::1; http; [2001:db8::9]:80 for [2001:db8::9]:80",
        ),
        ("shop.test", "200 ::1; http; shop.test for shop.test"),
        // A zone is one machine's, and half of an address is none.
        (
            "[fe80::1%25eth0]",
            "400 the request is not acceptable: its host is not valid",
        ),
        (
            "[2001:db8::9",
            "400 the request is not acceptable: its host is not valid",
        ),
    ] {
        let told = said(address, "/", &format!("Host: {host}\r\n")).await;
        assert_eq!(told, expected, "{host}");
    }
    let away = said(address, "/away", "Host: [2001:db8::9]\r\n").await;
    assert_eq!(away, "302 https://[2001:db8::9]/away");
    stop.cancel();
}
