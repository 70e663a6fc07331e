//! What leaves and what does not.

use std::{net::IpAddr, sync::atomic::Ordering};

use http::{Response, StatusCode};
use weft_mesh::{Body, EgressRule, EgressScheme, FailureKind, OwnAddresses};

use crate::world::{HOST, Host, Speech, World, describe, get, post, rule, text};

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Attacks 41 to 46 and 49 to 51, where rules allow something, but not that.
#[tokio::test]
async fn attacks_41_to_51_what_no_rule_allows_never_leaves_and_says_what_is_missing() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    let port = host.port();
    world.names.add("api.test", &[&[HOST]]);
    world.names.add("inside.test", &[&[ip("10.0.0.7")]]);
    world
        .names
        .add("metadata.test", &[&[ip("169.254.169.254")]]);
    world.names.add("mixed.test", &[&[HOST, ip("127.0.0.3")]]);
    world.names.add("node.test", &[&[ip("127.0.0.4")]]);
    world.names.add("any.test", &[&[ip("0.0.0.0")]]);
    world
        .names
        .add("translated.test", &[&[ip("64:ff9b::7f00:4")]]);
    let mut own = OwnAddresses::default();
    own.add(
        "127.0.0.4/32".parse().expect("a CIDR"),
        "an address of a node",
    );
    world.mesh.set_own_addresses(own);
    let caller = world.caller(
        "cart",
        &[
            EgressRule {
                hosts: ["api.test", "127.0.0.2"].map(str::to_owned).to_vec(),
                paths: vec!["/v1".to_owned()],
                methods: vec!["GET".to_owned()],
                ..rule("", EgressScheme::Http, port)
            },
            EgressRule {
                hosts: ["inside.test", "metadata.test", "mixed.test", "absent.test"]
                    .map(str::to_owned)
                    .to_vec(),
                ..rule("", EgressScheme::Http, port)
            },
            EgressRule {
                hosts: ["node.test", "any.test", "translated.test"]
                    .map(str::to_owned)
                    .to_vec(),
                addresses: vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()],
                ..rule("", EgressScheme::Http, port)
            },
        ],
    );
    let whom = "no CapabilityGrant lets ServiceAccount shop/cart";
    let other = |call: &str, missing: &str| {
        format!(
            "{call} is outside the cluster, and {whom} make this call; CapabilityGrant shop/cart allows others to that \
             host and would need outgoingHTTP: {missing}"
        )
    };
    let leads = |call: &str, to: &str, cidr: &str| {
        format!(
            "{call}:{port} leads to {to}, which no CapabilityGrant of ServiceAccount shop/cart names; CapabilityGrant \
             shop/cart would need outgoingHTTP: addresses [{cidr}]"
        )
    };
    let never = |host: &str, why: &str| {
        format!(
            "{host} is outside the cluster, and ServiceAccount shop/cart cannot be allowed to call it this way: {why}"
        )
    };
    let never_asked = [
        (
            get("https://evil.test/"),
            format!(
                "evil.test:443 is outside the cluster, and {whom} call it; add to one of its own outgoingHTTP: hosts \
                 [evil.test], ports [443]"
            ),
        ),
        (
            get("http://api.test/v1"),
            other("api.test:80", "ports [80]"),
        ),
        (
            get(&format!("https://api.test:{port}/v1")),
            other(&format!("api.test:{port}"), "scheme HTTPS"),
        ),
        (
            get(&format!("http://api.test:{port}/v1/../admin")),
            other(&format!("api.test:{port}"), "paths [/admin]"),
        ),
        (
            post(&format!("http://api.test:{port}/v1"), "x"),
            other(&format!("api.test:{port}"), "methods [POST]"),
        ),
        (
            get(&format!("http://api.test@127.0.0.2:{port}/v1")),
            never("127.0.0.2", "its host names a user"),
        ),
        (
            get(&format!("http://2130706434:{port}/v1")),
            // One label: a Service of the caller's namespace.
            "there is no service 2130706434.shop".to_owned(),
        ),
        (
            get(&format!("http://0x7f.0.0.2:{port}/v1")),
            never(
                "0x7f.0.0.2",
                "its host is a number; an address of IPv4 has four decimal numbers",
            ),
        ),
        (
            get("http://169.254.169.254/latest/meta-data/"),
            format!(
                "169.254.169.254:80 is outside the cluster, and {whom} call it; add to one of its own outgoingHTTP: hosts \
                 [169.254.169.254], ports [80], scheme HTTP"
            ),
        ),
        (
            get(&format!("http://localhost:{port}/v1")),
            format!("localhost:{port} is outside the cluster and no policy allows it"),
        ),
        (
            get(&format!("http://a.b.c.svc.cluster.local:{port}/v1")),
            format!(
                "a.b.c.svc.cluster.local:{port} is outside the cluster and no policy allows it"
            ),
        ),
    ];
    let count = never_asked.len();
    for (request, expected) in never_asked {
        let what = request.uri().clone();
        assert_eq!(text(caller.call(request).await).await, expected, "{what}");
    }
    assert_eq!(
        world.names.asked.load(Ordering::Relaxed),
        0,
        "no name server is asked"
    );
    for (name, expected) in [
        (
            "inside.test",
            leads("inside.test", "10.0.0.7, a private address", "10.0.0.7/32"),
        ),
        (
            "metadata.test",
            leads(
                "metadata.test",
                "169.254.169.254, a link-local address",
                "169.254.169.254/32",
            ),
        ),
        // One address that is not allowed is enough.
        (
            "mixed.test",
            leads(
                "mixed.test",
                "127.0.0.3, a loopback address",
                "127.0.0.3/32",
            ),
        ),
        (
            "node.test",
            leads(
                "node.test",
                "127.0.0.4, an address of a node",
                "127.0.0.4/32",
            ),
        ),
        (
            "any.test",
            never("any.test", "its address is none of a host"),
        ),
        (
            "translated.test",
            leads(
                "translated.test",
                "64:ff9b::7f00:4, an address of a node",
                "64:ff9b::7f00:4/128",
            ),
        ),
        (
            "absent.test",
            "absent.test cannot be found: no such name".to_owned(),
        ),
    ] {
        let request = get(&format!("http://{name}:{port}/v1"));
        assert_eq!(text(caller.call(request).await).await, expected, "{name}");
    }
    assert_eq!(host.seen.connections(), 0, "nothing was connected to");
    let allowed = caller
        .call(get(&format!("http://api.test:{port}/v1")))
        .await;
    assert_eq!(allowed.expect("allowed").status(), StatusCode::OK);
    let mut metrics = String::new();
    world.mesh.render_metrics(&mut metrics);
    let denied = format!("weft_mesh_denied_total {}", count - 1 + 6);
    assert!(metrics.contains(&denied), "{denied}: {metrics}");
}

/// A workload that tries ports one after the other learns nothing of who listens: no packet leaves, each try is counted, and the log has a
/// line for each doubling of them. The number is that of `docs/attacks.md`.
#[tokio::test]
async fn attack_53_a_scan_of_ports_learns_nothing_and_is_counted() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    // It may call one host at one port, which makes it no master of the others.
    let allowed = rule("api.test", EgressScheme::Http, host.port());
    world.names.add("api.test", &[&[HOST]]);
    let caller = world.caller("scanner", &[allowed]);
    let open = host.port();
    let ports = (20_000..22_000u16).chain([open]);
    let mut told = std::collections::BTreeSet::new();
    for port in ports.clone() {
        let answered = caller.call(get(&format!("http://{HOST}:{port}/"))).await;
        let refused = answered.err().map(|failure| failure.kind);
        assert_eq!(refused, Some(FailureKind::NotGranted), "{port}");
        let words = text(caller.call(get(&format!("http://{HOST}:{port}/"))).await).await;
        told.insert(words.replace(&port.to_string(), "PORT"));
    }
    // Of the port where somebody listens is said what is said of all.
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(host.seen.connections(), 0, "nothing was connected to");
    let mut metrics = String::new();
    world.mesh.render_metrics(&mut metrics);
    let denied = format!("weft_mesh_denied_total {}\n", 2 * ports.count());
    assert!(metrics.contains(&denied), "{denied}: {metrics}");
}

#[tokio::test]
async fn attack_47_a_name_that_leads_elsewhere_the_next_time_is_judged_again() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    let port = host.port();
    // What the rebinding is after.
    let victim = std::net::TcpListener::bind((ip("127.0.0.3"), port)).expect("a free port");
    victim.set_nonblocking(true).expect("a socket");
    world
        .names
        .add("rebind.test", &[&[HOST], &[ip("127.0.0.3")], &[HOST]]);
    let caller = world.caller("cart", &[rule("rebind.test", EgressScheme::Http, port)]);
    let uri = format!("http://rebind.test:{port}/");
    let first = text(caller.call(get(&uri)).await).await;
    assert!(first.starts_with("HTTP/1.1 GET /"), "{first}");
    assert_eq!(
        world.names.asked.load(Ordering::Relaxed),
        1,
        "what was judged is connected to"
    );
    // There is a connection that idles; it is not used for what is not allowed any more.
    let second = caller.call(get(&uri)).await.expect_err("private");
    assert_eq!(second.kind, FailureKind::NotGranted, "{second}");
    let third = text(caller.call(get(&uri)).await).await;
    assert!(third.starts_with("HTTP/1.1 GET /"), "{third}");
    assert_eq!(host.seen.connections(), 1);
    assert!(victim.accept().is_err(), "nobody came");
}

#[tokio::test]
async fn attack_48_a_redirect_is_an_answer_and_who_follows_it_is_judged_anew() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, |_| async {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::FOUND;
        let to = http::HeaderValue::from_static("http://169.254.169.254/latest/meta-data/");
        response.headers_mut().insert(http::header::LOCATION, to);
        response
    })
    .await;
    let port = host.port();
    world.names.add("api.test", &[&[HOST]]);
    let caller = world.caller("cart", &[rule("api.test", EgressScheme::Http, port)]);
    let answer = caller.call(get(&format!("http://api.test:{port}/"))).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.status(), StatusCode::FOUND);
    let to = answer.headers()[http::header::LOCATION]
        .to_str()
        .expect("text");
    let followed = caller.call(get(to)).await.expect_err("not allowed");
    assert_eq!(followed.kind, FailureKind::NotGranted, "{followed}");
    assert_eq!(host.seen.requests(), 1);
}

#[tokio::test]
async fn rules_hold_from_the_moment_they_are_there_until_they_are_withdrawn() {
    let world = World::new();
    let host = Host::start(HOST, Speech::Plain, describe).await;
    let uri = format!("http://127.0.0.2:{}/", host.port());
    let caller = world.caller("cart", &[]);
    assert!(caller.call(get(&uri)).await.is_err());
    world.caller(
        "cart",
        &[rule("127.0.0.2", EgressScheme::Http, host.port())],
    );
    assert!(caller.call(get(&uri)).await.is_ok());
    let other = world.caller("web", &[]);
    assert!(other.call(get(&uri)).await.is_err(), "another's rule");
    world.caller("cart", &[]);
    assert!(caller.call(get(&uri)).await.is_err());
    assert_eq!(host.seen.requests(), 1);
}
