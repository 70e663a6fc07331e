//! What policies say of calls to a Service is done, on every way in and out.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::{Method, Request, Response, StatusCode};
use weft_call::Priority;
use weft_gateway::{
    Account, Breaker, Concurrency, Fault, NamespacedName, Resilience, Retry, RetryBudget, Served,
};
use weft_mesh::{
    Body, CallContext, CallerInfo, Failure, FailureKind, Mesh, Outbound, ServiceSpec, Table,
};

use super::world::*;

const HOUR: Duration = Duration::from_secs(3600);

pub fn asked(all: impl IntoIterator<Item = (&'static str, Resilience)>) -> Served {
    let all = all.into_iter();
    let all = all.map(|(name, asked)| (NamespacedName::new("vote", name), Arc::new(asked)));
    Served {
        resilience: all.collect(),
        ..Served::default()
    }
}

pub fn publish(mesh: &Mesh, generation: u64, services: Vec<ServiceSpec>, served: &Served) {
    let table = Table::builder(mesh.node(), generation).services(services);
    mesh.publish(table.routes(served).build());
}

/// How often policies of a mesh did something.
pub fn acted(mesh: &Mesh, action: &str) -> u64 {
    let mut text = String::new();
    mesh.render_metrics(&mut text);
    let lines = text.lines().filter(|line| {
        line.starts_with("weft_mesh_policy_actions_total{")
            && line.contains(&format!("action=\"{action}\""))
    });
    let counts = lines.map(|line| line.rsplit(' ').next().expect("a number"));
    counts
        .map(|count| count.parse::<u64>().expect("a number"))
        .sum()
}

fn again(codes: &[u16], attempts: u32) -> Option<Retry> {
    let codes = codes.iter().map(|code| StatusCode::from_u16(*code));
    Some(Retry {
        codes: codes.map(|code| code.expect("a status")).collect(),
        grpc: Vec::new(),
        attempts,
        backoff: Some(Duration::from_millis(1)),
    })
}

/// Answers with a status, and counts.
fn answers(
    status: u16,
    calls: &Arc<AtomicU32>,
) -> impl Fn(Request<Body>) -> std::future::Ready<Result<Response<Body>, Failure>>
+ Clone
+ Send
+ Sync
+ 'static {
    let calls = Arc::clone(calls);
    move |_| {
        calls.fetch_add(1, Ordering::SeqCst);
        let mut response = Response::new(Body::full(status.to_string()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        std::future::ready(Ok(response))
    }
}

pub fn of(mesh: &Mesh, account: &str) -> Outbound {
    mesh.outbound(CallerInfo {
        identity: sa(account),
        workload: named(account),
    })
}

pub fn get(uri: &str) -> Request<Body> {
    Request::get(uri).body(Body::empty()).expect("a request")
}

#[tokio::test]
async fn an_answer_is_asked_for_again_where_it_may_be() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    world
        .a
        .attach(pod(1), workload("web", answers(503, &calls)));
    let policy = Resilience {
        retry: again(&[503], 2),
        ..Resilience::default()
    };
    let here = service("down", vec![endpoint("web", 1, "a", world.b_address)]);
    publish(&world.a, 1, vec![here], &asked([("down", policy)]));
    for (method, key, tries) in [
        (Method::GET, None, 3),
        (Method::PUT, None, 3),
        (Method::POST, None, 1),
        (Method::PATCH, None, 1),
        (Method::POST, Some("7"), 3),
    ] {
        calls.store(0, Ordering::SeqCst);
        let mut request = Request::builder().method(&method).uri("http://down/");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let answer = world.call(request.body(Body::full("body")).expect("a request"));
        let answer = answer.await.expect("an answer");
        assert_eq!(answer.status(), 503, "the last answer is passed on");
        assert_eq!(calls.load(Ordering::SeqCst), tries, "{method} {key:?}");
    }
}

/// Calls the next of a chain in the name of the call that it serves, and fails as that does.
fn link(
    mesh: &Mesh,
    account: &'static str,
    next: String,
    calls: &Arc<AtomicU32>,
) -> impl Fn(Request<Body>) -> weft_call::Calling<Body> + Clone + Send + Sync + 'static {
    let (outbound, calls) = (of(mesh, account), Arc::clone(calls));
    move |request: Request<Body>| -> weft_call::Calling<Body> {
        calls.fetch_add(1, Ordering::SeqCst);
        let context = request.extensions().get::<CallContext>().cloned();
        let mut onward = get(&next);
        onward
            .extensions_mut()
            .insert(context.expect("the context"));
        let answer = outbound.call(onward);
        Box::pin(async move {
            let status = match answer.await {
                Ok(response) => response.status(),
                Err(failure) => failure.status(),
            };
            let mut response = Response::new(Body::empty());
            *response.status_mut() = match status.is_success() {
                true => status,
                false => StatusCode::INTERNAL_SERVER_ERROR,
            };
            Ok(response)
        })
    }
}

/// Three levels with three tries each would be twenty-seven.
#[tokio::test]
async fn a_backend_that_is_down_gets_a_fifth_more_calls_at_any_depth() {
    const CALLS: u32 = 500;
    for depth in 1..=5_u8 {
        let world = world();
        let counts: Vec<_> = (0..depth).map(|_| Arc::new(AtomicU32::new(0))).collect();
        let names = ["s0", "s1", "s2", "s3", "s4"];
        let policy = Resilience {
            retry: again(&[500, 502, 503, 504], 3),
            budget: RetryBudget {
                interval: HOUR,
                min_per_second: 0,
                ..RetryBudget::default()
            },
            ..Resilience::default()
        };
        let mut services = Vec::new();
        for level in 0..depth {
            let count = &counts[usize::from(level)];
            match level + 1 < depth {
                true => {
                    let next = format!("http://{}/", names[usize::from(level) + 1]);
                    let link = link(&world.a, "web", next, count);
                    world.a.attach(pod(level + 1), workload("web", link));
                }
                false => {
                    let last = workload("web", answers(500, count));
                    world.a.attach(pod(level + 1), last);
                }
            }
            let at = endpoint("web", level + 1, "a", world.b_address);
            services.push(service(names[usize::from(level)], vec![at]));
        }
        let served = asked(names.map(|name| (name, policy.clone())));
        publish(&world.a, 1, services, &served);
        for _ in 0..CALLS {
            let (status, _) = world.get("http://s0/").await.expect("an answer");
            assert_eq!(status, 500);
        }
        for (level, count) in counts.iter().enumerate() {
            let tries = count.load(Ordering::SeqCst);
            assert!(
                (CALLS..=CALLS * 12 / 10).contains(&tries),
                "depth {depth}, level {level}: {tries} tries of {CALLS} calls"
            );
        }
        let last = counts.last().expect("a level").load(Ordering::SeqCst);
        assert!(last > CALLS, "it is tried again at all: {last}");
    }
}

/// Over the wire it is told, too, that the calls below were tried as often as they may be.
#[tokio::test]
async fn who_hears_from_another_node_that_tries_are_spent_does_not_try_again() {
    let world = world();
    let (first, last) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let onward = link(&world.b, "voting", "http://down/".to_owned(), &first);
    world.b.attach(pod(2), workload("voting", onward));
    world
        .b
        .attach(pod(3), workload("voting", answers(500, &last)));
    let policy = || Resilience {
        retry: again(&[500], 1),
        ..Resilience::default()
    };
    let voting = || service("voting", vec![endpoint("voting", 2, "b", world.b_address)]);
    let down = || service("down", vec![endpoint("voting", 3, "b", world.b_address)]);
    let served = asked([("voting", policy()), ("down", policy())]);
    publish(&world.a, 1, vec![voting(), down()], &served);
    publish(&world.b, 1, vec![voting(), down()], &served);
    let (status, _) = world.get("http://voting/").await.expect("an answer");
    assert_eq!(status, 500);
    let counts = (first.load(Ordering::SeqCst), last.load(Ordering::SeqCst));
    assert_eq!(
        counts,
        (1, 2),
        "tried again where it failed, and nowhere else"
    );
    assert_eq!(acted(&world.a, "retry-spent"), 1);
}

/// Ten endpoints here, of which the first `bad` answer with 500, and a policy.
fn ten(world: &World, bad: u8, policy: Resilience) {
    for last in 1..=10 {
        let status = if last <= bad { 500 } else { 200 };
        let calls = Arc::new(AtomicU32::new(0));
        world
            .a
            .attach(pod(last), workload("web", answers(status, &calls)));
    }
    let at = |last| endpoint("web", last, "a", world.b_address);
    let all = service("ten", (1..=10).map(at).collect());
    publish(&world.a, 1, vec![all], &asked([("ten", policy)]));
}

async fn failed(world: &World, calls: u32) -> u32 {
    let mut failed = 0;
    for _ in 0..calls {
        let (status, _) = world.get("http://ten/").await.expect("an answer");
        failed += u32::from(status != StatusCode::OK);
    }
    failed
}

#[tokio::test]
async fn who_answers_badly_is_left_alone_and_no_more_than_a_share_of_all() {
    let breaker = |percent| Resilience {
        breaker: Some(Breaker {
            ejection: HOUR,
            ejection_max: HOUR,
            ejected_percent_max: percent,
            ..Breaker::default()
        }),
        ..Resilience::default()
    };
    for (bad, percent, open) in [(1, 10, 1), (3, 10, 1), (3, 30, 3), (10, 100, 9), (0, 10, 0)] {
        let world = world();
        ten(&world, bad, breaker(percent));
        let failed = failed(&world, 2000).await;
        let found = gauge(&world.a, "weft_mesh_breakers_open");
        assert_eq!(found, open, "{bad} of ten are bad, {percent} %");
        if u64::from(bad) == open {
            assert!(failed <= 7 * u32::from(bad), "{failed} failed");
        }
        if u64::from(bad) > open {
            assert!(acted(&world.a, "breaker-capped") > 0, "and that is told");
        }
    }
}

#[tokio::test]
async fn of_an_endpoint_that_is_tried_again_one_good_answer_is_enough() {
    let world = world();
    let is_well = Arc::new(AtomicU32::new(0));
    let answer = {
        let is_well = Arc::clone(&is_well);
        move |_: Request<Body>| {
            let mut response = Response::new(Body::empty());
            if is_well.load(Ordering::SeqCst) == 0 {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            std::future::ready(Ok::<_, Failure>(response))
        }
    };
    let calls = Arc::new(AtomicU32::new(0));
    world.a.attach(pod(1), workload("web", answer));
    world
        .a
        .attach(pod(2), workload("web", answers(200, &calls)));
    let at = |last| endpoint("web", last, "a", world.b_address);
    let policy = Resilience {
        breaker: Some(Breaker {
            ejection: Duration::from_millis(100),
            ..Breaker::default()
        }),
        ..Resilience::default()
    };
    let both = service("ten", vec![at(1), at(2)]);
    publish(&world.a, 1, vec![both], &asked([("ten", policy)]));
    let is_open = || gauge(&world.a, "weft_mesh_breakers_open") == 1;
    while !is_open() {
        failed(&world, 1).await;
    }
    is_well.store(1, Ordering::SeqCst);
    while is_open() {
        assert_eq!(failed(&world, 1).await, 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn one_of_ten_that_fails_is_not_noticed_where_answers_are_asked_for_again() {
    let world = world();
    let policy = Resilience {
        retry: again(&[500], 2),
        breaker: Some(Breaker::default()),
        ..Resilience::default()
    };
    ten(&world, 1, policy);
    let failed = failed(&world, 3000).await;
    assert!(failed < 3, "{failed} of 3000: under a thousandth");
}

#[tokio::test]
async fn a_call_that_may_be_made_twice_is_where_the_first_try_takes_long() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    let ended = Arc::new(AtomicU32::new(0));
    for last in [1, 2] {
        let (calls, ended) = (Arc::clone(&calls), Arc::clone(&ended));
        // Only the second of them answers.
        let answer = move |_: Request<Body>| {
            let (number, ended) = (calls.fetch_add(1, Ordering::SeqCst), Arc::clone(&ended));
            async move {
                if number == 0 {
                    let _ended = scopeguard(move || {
                        ended.fetch_add(1, Ordering::SeqCst);
                    });
                    std::future::pending::<()>().await;
                }
                Ok::<_, Failure>(Response::new(Body::full("second")))
            }
        };
        world.a.attach(pod(last), workload("web", answer));
    }
    let policy = Resilience {
        hedge_after: Some(Duration::from_millis(10)),
        request_timeout: Some(Duration::from_secs(20)),
        ..Resilience::default()
    };
    let at = |last| endpoint("web", last, "a", world.b_address);
    let both = service("both", vec![at(1), at(2)]);
    publish(&world.a, 1, vec![both], &asked([("both", policy.clone())]));
    let (status, text) = world.get("http://both/").await.expect("an answer");
    assert_eq!((status, &*text), (StatusCode::OK, "second"));
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    assert_eq!(
        ended.load(Ordering::SeqCst),
        1,
        "the slower one is let go of"
    );
    assert_eq!(
        (acted(&world.a, "hedged"), acted(&world.a, "hedge-won")),
        (1, 1)
    );
    // What may be done only once is not.
    calls.store(0, Ordering::SeqCst);
    let soon = Resilience {
        request_timeout: Some(Duration::from_millis(100)),
        ..policy
    };
    let both = service("both", vec![at(1), at(2)]);
    publish(&world.a, 2, vec![both], &asked([("both", soon)]));
    let request = Request::post("http://both/").body(Body::empty());
    let outcome = world.call(request.expect("a request")).await;
    let failure = outcome.expect_err("nobody answers it");
    assert_eq!(failure.kind, FailureKind::Deadline);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
    assert_eq!(acted(&world.a, "hedged"), 1);
}

/// Does something when it is dropped.
fn scopeguard(act: impl FnOnce()) -> impl Drop {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(act) = self.0.take() {
                act();
            }
        }
    }
    Guard(Some(act))
}

#[tokio::test]
async fn an_endpoint_has_as_many_calls_as_a_policy_lets_in() {
    let world = world();
    let open = Arc::new(tokio::sync::Semaphore::new(0));
    let answer = {
        let open = Arc::clone(&open);
        move |request: Request<Body>| {
            let open = Arc::clone(&open);
            async move {
                let context = request.extensions().get::<CallContext>().cloned();
                let priority = context.expect("the context").priority;
                open.acquire().await.expect("open").forget();
                Ok::<_, Failure>(Response::new(Body::full(format!("{priority:?}"))))
            }
        }
    };
    world.b.attach(pod(2), workload("voting", answer));
    let policy = Resilience {
        concurrency: Some(Concurrency {
            min: 2,
            max: 2,
            queue_max: 1,
            critical: vec![Account {
                namespace: "vote".to_owned(),
                name: "urgent".to_owned(),
            }],
        }),
        ..Resilience::default()
    };
    let there = || {
        vec![service(
            "there",
            vec![endpoint("voting", 2, "b", world.b_address)],
        )]
    };
    let served = asked([("there", policy)]);
    publish(&world.a, 1, there(), &served);
    publish(&world.b, 1, there(), &served);
    world.authority.give(&world.a, "urgent");
    let call = |account: &str, urgency: &str| {
        let request = Request::get("http://there/").header("priority", urgency);
        let request = request.body(Body::empty()).expect("a request");
        tokio::spawn(of(&world.a, account).call(request))
    };
    let inside = || {
        let mut text = String::new();
        world.b.render_metrics(&mut text);
        let line = text
            .lines()
            .find(|line| line.starts_with("weft_mesh_concurrency_inside{"));
        line.map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
    };
    let held = [call("web", "u=3"), call("web", "u=3")];
    while inside().as_deref() != Some("2") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // One waits, and leaves the queue to who is more urgent.
    let low = call("web", "u=6");
    tokio::time::sleep(Duration::from_millis(20)).await;
    let urgent = call("urgent", "u=3");
    let shed = low.await.expect("no panic").expect_err("no room");
    assert_eq!(shed.kind, FailureKind::Overloaded);
    assert!(acted(&world.b, "shed") >= 1);
    open.add_permits(3);
    for held in held {
        held.await.expect("no panic").expect("an answer");
    }
    // It had a tenth of a second, which may have been over on a busy machine.
    match urgent.await.expect("no panic") {
        Ok(response) => assert_eq!(text(response).await.expect("text").1, "Usual"),
        Err(failure) => assert_eq!(failure.kind, FailureKind::Overloaded),
    }
}

#[tokio::test]
async fn a_fault_is_injected_for_whom_and_as_long_as_it_says() {
    let world = world();
    let calls = Arc::new(AtomicU32::new(0));
    world
        .a
        .attach(pod(1), workload("web", answers(200, &calls)));
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(now.expect("after 1970").as_secs()).expect("this century");
    let fault = |until| Resilience {
        retry: again(&[418], 3),
        faults: vec![Fault {
            name: "vote/tea".to_owned(),
            until,
            callers: vec![Account {
                namespace: "vote".to_owned(),
                name: "web".to_owned(),
            }],
            headers: Vec::new(),
            delay: Some((Duration::from_millis(30), 100)),
            abort: Some((StatusCode::IM_A_TEAPOT, 100)),
        }],
        ..Resilience::default()
    };
    let here = || {
        vec![service(
            "here",
            vec![endpoint("web", 1, "a", world.b_address)],
        )]
    };
    publish(&world.a, 1, here(), &asked([("here", fault(now + 3600))]));
    let begun = Instant::now();
    let (status, text) = world.get("http://here/").await.expect("an answer");
    assert_eq!((status.as_u16(), &*text), (418, "fault filter abort"));
    assert!(begun.elapsed() >= Duration::from_millis(30));
    let done = [
        acted(&world.a, "fault-delay"),
        acted(&world.a, "fault-abort"),
    ];
    assert_eq!(done, [1, 1], "and not again by what makes further tries");
    assert_eq!(calls.load(Ordering::SeqCst), 0, "nobody was called");
    insta::assert_snapshot!(counted(&world.a), @"source here 418 FI x1");
    let other = of(&world.a, "other").call(get("http://here/")).await;
    assert_eq!(other.expect("an answer").status(), 200, "not for others");
    // It ends by itself.
    publish(&world.a, 2, here(), &asked([("here", fault(now))]));
    let (status, _) = world.get("http://here/").await.expect("an answer");
    assert_eq!(status, 200);
}

/// A guest says of time and of importance what it likes: both only ever become less.
#[tokio::test]
async fn deadlines_and_priorities_only_shrink_along_the_call_tree() {
    let world = world();
    let tell = |request: Request<Body>| async move {
        let context = request.extensions().get::<CallContext>().cloned();
        let context = context.expect("the context");
        let left = context.deadline.map(|deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            left.as_secs().saturating_add(1)
        });
        let line = format!("{left:?} s, {}", context.priority.as_str());
        Ok::<_, Failure>(Response::new(Body::full(line)))
    };
    world.b.attach(pod(2), workload("voting", tell));
    let there = service("there", vec![endpoint("voting", 2, "b", world.b_address)]);
    let policy = Resilience {
        request_timeout: Some(Duration::from_secs(100)),
        ..Resilience::default()
    };
    publish(&world.a, 1, vec![there], &asked([("there", policy)]));
    let serving = |seconds: Option<u64>, priority| CallContext {
        deadline: seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        priority,
        ..CallContext::default()
    };
    let mut told = Vec::new();
    for (context, lines) in [
        (serving(None, Priority::Usual), &[][..]),
        (serving(Some(50), Priority::Usual), &[]),
        (serving(Some(500), Priority::Usual), &[]),
        (
            serving(Some(50), Priority::Low),
            &[
                ("content-type", "application/grpc"),
                ("grpc-timeout", "20S"),
                ("priority", "u=0"),
            ],
        ),
        (
            serving(Some(10), Priority::Usual),
            &[
                ("content-type", "application/grpc"),
                ("grpc-timeout", "1H"),
                ("priority", "u=7"),
            ],
        ),
    ] {
        let mut request = Request::get("http://there/");
        for (name, value) in lines {
            request = request.header(*name, *value);
        }
        let request = request.extension(context).body(Body::empty());
        let answer = world.call(request.expect("a request")).await;
        told.push(text(answer.expect("an answer")).await.expect("text").1);
    }
    insta::assert_snapshot!(told.join("\n"), @r"
    Some(100) s, usual
    Some(50) s, usual
    Some(100) s, usual
    Some(20) s, low
    Some(10) s, sheddable
    ");
}
