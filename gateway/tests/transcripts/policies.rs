//! Policies beside routes and Services: how they are put together.

use crate::told::Cluster;

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
