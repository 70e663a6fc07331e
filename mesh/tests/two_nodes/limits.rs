//! How many calls each caller may make, by whatever way it comes: at each node, and over all of them.

use std::time::Duration;

use http::Response;
use weft_api::SpiffeId;
use weft_call::Blame;
use weft_gateway::{Across, LimitedBy, RateLimit, Resilience, Served};
use weft_mesh::{Body, CallerInfo, Failure, FailureKind, Mesh, Table, WorkloadInfo};

use super::resilience::{acted, asked, get, of, publish};
use super::world::*;

const HOUR: Duration = Duration::from_secs(3600);

fn two_an_hour(by: LimitedBy) -> Resilience {
    Resilience {
        rate_limits: vec![RateLimit {
            by,
            requests: 2,
            per: HOUR,
            burst: 2,
            across: Across::Node,
        }],
        ..Resilience::default()
    }
}

fn is_limited(outcome: &Result<Response<Body>, Failure>) -> bool {
    matches!(outcome, Err(failure)
        if failure.kind == FailureKind::LimitReached
            && failure.blame == Blame::Policy
            && failure.retry_after.is_some_and(|after| after > Duration::from_secs(60)))
}

#[tokio::test]
async fn each_caller_has_its_share_by_whatever_way_it_comes() {
    let world = world();
    world.authority.give(&world.a, "other");
    world.a.attach(pod(1), workload("web", describe));
    world.b.attach(pod(2), workload("voting", describe));
    let specs = || {
        vec![
            service("here", vec![endpoint("web", 1, "a", world.b_address)]),
            service("there", vec![endpoint("voting", 2, "b", world.b_address)]),
        ]
    };
    let limit = || two_an_hour(LimitedBy::ServiceAccount);
    let served = asked([("here", limit()), ("there", limit())]);
    publish(&world.a, 1, specs(), &served);
    let mut of_b = Table::builder("b", 1).services(specs()).routes(&served);
    world.b.publish(of_b.table(1));
    for name in ["here", "there"] {
        let uri = format!("http://{name}/");
        for account in ["web", "other"] {
            let outbound = of(&world.a, account);
            for _ in 0..2 {
                outbound.call(get(&uri)).await.expect("its share");
            }
            let third = outbound.call(get(&uri)).await;
            assert!(is_limited(&third), "{name}, {account}: {third:?}");
        }
    }
    // At the pod's own address, past the Service, it has had its share already.
    let outbound = world.outbound();
    let past = outbound.call_attached(pod(1), get("http://localhost:8080/"));
    assert!(is_limited(&past.await));
    let straight = world.call(get("http://10.42.0.1:8080/")).await;
    assert!(is_limited(&straight), "{straight:?}");
    assert_eq!(acted(&world.a, "rate-limited"), 4);
    assert_eq!(acted(&world.b, "rate-limited"), 2);
    // No endpoint is avoided for it.
    assert_eq!(gauge(&world.a, "weft_mesh_endpoints_ejected"), 0);
    // A table of later knows what was counted as long as the policy says the same.
    for spec in specs() {
        of_b.set_service(spec);
    }
    of_b.set_routes(&served);
    world.b.publish(of_b.table(2));
    let outcome = world.call(get("http://there/")).await;
    assert!(is_limited(&outcome), "{outcome:?}");
    of_b.set_routes(&Served::default());
    world.b.publish(of_b.table(3));
    let outcome = world.call(get("http://there/")).await;
    assert!(outcome.is_ok(), "nobody asks for it any more: {outcome:?}");
}

/// Two tenants share the endpoints of a Service, and neither has what is the other's, whichever of its accounts calls and from wherever.
#[tokio::test]
async fn a_tenant_that_has_had_its_share_takes_nothing_of_anothers() {
    let world = world();
    world.b.attach(pod(2), workload("voting", describe));
    let service = || service("there", vec![endpoint("voting", 2, "b", world.b_address)]);
    let served = asked([("there", two_an_hour(LimitedBy::Namespace))]);
    publish(&world.a, 1, vec![service()], &served);
    publish(&world.b, 1, vec![service()], &served);
    let tenant = |mesh: &Mesh, namespace: &str, account: &str| {
        let identity = SpiffeId::new(DOMAIN, namespace, account);
        let (chain, key) = world.authority.issue(&[&identity.to_string()]);
        let identities = mesh.identities();
        identities.set(identity.clone(), chain, key).expect("a key");
        let workload = WorkloadInfo {
            namespace: namespace.to_owned(),
            ..named(account)
        };
        mesh.outbound(CallerInfo { identity, workload })
    };
    let greedy = [
        tenant(&world.a, "greedy", "one"),
        tenant(&world.a, "greedy", "two"),
        tenant(&world.b, "greedy", "one"),
    ];
    let modest = [
        tenant(&world.a, "modest", "one"),
        tenant(&world.b, "modest", "one"),
    ];
    let mut answered = 0;
    for number in 0..30 {
        let outcome = greedy[number % greedy.len()]
            .call(get("http://there.vote/"))
            .await;
        match is_limited(&outcome) {
            true => {}
            false => answered += u32::from(outcome.is_ok()),
        }
    }
    assert_eq!(answered, 2, "the tenant's share, by whomever");
    for caller in &modest {
        let outcome = caller.call(get("http://there.vote/")).await;
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    let outcome = modest[0].call(get("http://there.vote/")).await;
    assert!(
        is_limited(&outcome),
        "it has a share of its own, and no more"
    );
}

/// Calls go to endpoints of the caller's node first: what one node let in, another one knows soon after.
#[tokio::test]
async fn a_limit_over_the_cluster_is_one_for_all_nodes() {
    let world = world();
    world.authority.give(&world.b, "web");
    let gateway = world.b.gateway_identity();
    let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
    let identities = world.b.identities();
    identities.set(gateway, chain, key).expect("a certificate");
    world.a.attach(pod(1), workload("web", describe));
    world.b.attach(pod(2), workload("voting", describe));
    let spec = || {
        let endpoints = vec![
            endpoint("web", 1, "a", world.b_address),
            endpoint("voting", 2, "b", world.b_address),
        ];
        service("both", endpoints)
    };
    let mut policy = two_an_hour(LimitedBy::ServiceAccount);
    policy.rate_limits[0].across = Across::Cluster;
    let served = asked([("both", policy)]);
    publish(&world.a, 1, vec![spec()], &served);
    publish(&world.b, 1, vec![spec()], &served);
    for _ in 0..2 {
        let answer = of(&world.a, "web").call(get("http://both/")).await;
        assert!(answer.is_ok(), "its share: {answer:?}");
    }
    let telling = tokio::spawn(world.a.clone().share_limits(world.stop.clone()));
    while acted(&world.b, "limit-heard") == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let there = of(&world.b, "web").call(get("http://both/")).await;
    assert!(is_limited(&there), "{there:?}");
    // Whose share it is not.
    world.authority.give(&world.b, "other");
    let other = of(&world.b, "other").call(get("http://both/")).await;
    assert!(other.is_ok(), "{other:?}");
    world.stop.cancel();
    telling.await.expect("it ends");
}

/// A node that nobody reaches gives each caller a share of its own; others go on as one, and it does so again once it is back.
#[tokio::test]
async fn a_node_that_is_cut_off_counts_for_itself_and_holds_nobody_up() {
    let world = world();
    let cut_off = Mesh::builder("c", DOMAIN).build();
    // Connections come to nothing there: nobody takes them yet.
    let (listener, cut_off_address) = listen();
    for mesh in [&world.b, &cut_off] {
        let gateway = mesh.gateway_identity();
        let (chain, key) = world.authority.issue(&[&gateway.to_string()]);
        let identities = mesh.identities();
        identities.set(gateway, chain, key).expect("a certificate");
    }
    for mesh in [&world.a, &world.b, &cut_off] {
        for account in ["web", "other"] {
            world.authority.give(mesh, account);
        }
    }
    world.a.attach(pod(1), workload("web", describe));
    world.b.attach(pod(2), workload("voting", describe));
    cut_off.attach(pod(3), workload("third", describe));
    let spec = || {
        let endpoints = vec![
            endpoint("web", 1, "a", world.b_address),
            endpoint("voting", 2, "b", world.b_address),
            endpoint("third", 3, "c", cut_off_address),
        ];
        service("all", endpoints)
    };
    let mut policy = two_an_hour(LimitedBy::ServiceAccount);
    policy.rate_limits[0].across = Across::Cluster;
    let served = asked([("all", policy)]);
    for mesh in [&world.a, &world.b, &cut_off] {
        publish(mesh, 1, vec![spec()], &served);
    }
    let call = async |mesh: &Mesh, account: &str| of(mesh, account).call(get("http://all/")).await;
    let share = async |mesh: &Mesh, account: &str| {
        for _ in 0..2 {
            let answer = call(mesh, account).await;
            assert!(answer.is_ok(), "its share: {answer:?}");
        }
    };
    let heard = async |mesh: &Mesh, times: u64| {
        while acted(mesh, "limit-heard") < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let telling = tokio::spawn(world.a.clone().share_limits(world.stop.clone()));
    share(&world.a, "web").await;
    heard(&world.b, 1).await;
    assert!(is_limited(&call(&world.b, "web").await));
    // While one is silent the other hears of what comes next.
    share(&world.a, "other").await;
    heard(&world.b, 2).await;
    assert!(is_limited(&call(&world.b, "other").await));
    // The one that heard nothing gives what it has, and no more.
    share(&cut_off, "web").await;
    assert!(is_limited(&call(&cut_off, "web").await));

    let serving = (cut_off.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_inbound(listener, serving.1).await });
    // What it hears first may be of before.
    let mut known = false;
    for number in 0..8 {
        let account = format!("later-{number}");
        for mesh in [&world.a, &cut_off] {
            world.authority.give(mesh, &account);
        }
        let before = acted(&cut_off, "limit-heard");
        share(&world.a, &account).await;
        heard(&cut_off, before + 1).await;
        known = is_limited(&call(&cut_off, &account).await);
        if known {
            break;
        }
    }
    assert!(known, "it counts with the others again");
    world.stop.cancel();
    telling.await.expect("it ends");
}

#[tokio::test]
async fn who_comes_from_outside_is_limited_as_its_gateway() {
    let world = world();
    world.a.attach(pod(1), workload("web", describe));
    let here = service("here", vec![endpoint("web", 1, "a", world.b_address)]);
    let served = asked([("here", two_an_hour(LimitedBy::Everyone))]);
    publish(&world.a, 1, vec![here], &served);
    let (listener, address) = listen();
    let serving = (world.a.clone(), world.stop.clone());
    tokio::spawn(async move { serving.0.serve_gateway(listener, serving.1).await });
    let mut told = Vec::new();
    for _ in 0..3 {
        told.push(asked_plainly(address, "here.vote.localhost").await);
    }
    assert!(told[0].starts_with("HTTP/1.1 200"), "{told:?}");
    assert!(told[1].starts_with("HTTP/1.1 200"), "{told:?}");
    assert!(told[2].starts_with("HTTP/1.1 429"), "{told:?}");
    assert!(told[2].contains("retry-after: "), "{told:?}");
    assert!(told[2].contains("has had its share"), "{told:?}");
}

/// One request of HTTP/1.1, and all of its answer.
async fn asked_plainly(address: std::net::SocketAddr, host: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let stream = tokio::net::TcpStream::connect(address).await;
    let mut stream = stream.expect("a connection");
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}
