//! What tenants of one engine take from each other, and what becomes of calls when there is no more.

mod guest;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use weft_runtime::wasmtime::{
    self, Config, Instance, InstanceAllocationStrategy, Module, PoolingAllocationConfig, Store,
};
use weft_runtime::{
    Artifact, Body, Cores, Engine, Failure, FailureKind, InstancePolicy, Limits, Outbound, Workload,
};

async fn guest(engine: &Engine, name: &str) -> Artifact {
    engine.load(guest::bytes(name)).await.unwrap()
}

fn engine(instances: u32) -> Engine {
    Engine::builder().instances_max(instances).build().unwrap()
}

fn get(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(Body::empty()).unwrap()
}

async fn say(workload: &Workload, uri: &str) -> String {
    match workload.call(get(uri)).await {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            format!("{status} {}", String::from_utf8_lossy(&body))
        }
        Err(error) => format!("{} {error}", error.status().as_u16()),
    }
}

/// Waits for what happens on another task. The bound only keeps a failing test from hanging.
async fn eventually(mut happened: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never happened");
}

/// Instances that wait longer than any test takes.
const KEPT: InstancePolicy = InstancePolicy::Pooled {
    max_requests: 1_000,
    max_concurrent: 4,
    idle: Duration::from_secs(3_600),
};

/// Calls one after the other, and waits after each until its instance is kept or gone.
async fn calmly(workload: &Workload, uri: &str) -> String {
    let said = say(workload, uri).await;
    eventually(|| workload.usage().in_flight == 0).await;
    said
}

/// The same from a core of its own.
async fn on_core(cores: &Cores, core: usize, workload: &Workload, uri: &'static str) -> String {
    let called = workload.clone();
    let said = cores.spawn_on(core, async move { say(&called, uri).await });
    let said = said.await.unwrap();
    eventually(|| workload.usage().in_flight == 0).await;
    said
}

#[tokio::test]
async fn attack_110_one_tenant_with_many_pods_never_takes_all() {
    let engine = engine(16);
    let probe = guest(&engine, "probe").await;
    let pod = |account: &str| {
        let pod = Workload::builder(&engine, &probe).account(account);
        pod.build().unwrap()
    };
    let modest = pod("modest");
    let greedy: Vec<Workload> = (0..4).map(|_| pod("greedy")).collect();
    let mut held = Vec::new();
    let mut pods = greedy.iter().cycle();
    let live = || greedy.iter().map(|pod| pod.usage().instances).sum::<u64>();
    let waiting = loop {
        let pod = pods.next().expect("a circle has no end");
        let mut call = Box::pin(pod.call(get("/delay?ms=600000")));
        assert!(futures::poll!(&mut call).is_pending());
        if live() == held.len() as u64 {
            break call;
        }
        held.push(call);
        assert!(held.len() < 16, "it has taken everything");
    };
    // It waits for one of its own to end, and not for ever.
    let refused = waiting.await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::NoInstance);
    assert_eq!(held.len(), 11);
    assert!(refused.never_processed() && refused.status() == 503);
    assert_eq!(
        refused.to_string(),
        "there is no room for an instance: account \"greedy\" has 11 of this host's 16 instances, \
         and what is left is for others"
    );
    // The other tenant has its guarantee, at the same time and as often as it likes.
    let mut own = Vec::new();
    for _ in 0..4 {
        let mut call = Box::pin(modest.call(get("/delay?ms=600000")));
        assert!(futures::poll!(&mut call).is_pending());
        own.push(call);
    }
    drop(own);
    eventually(|| modest.usage().instances == 0).await;
    for _ in 0..50 {
        assert_eq!(say(&modest, "/hello").await, "200 hello\n");
    }
    assert_eq!(modest.usage().overloaded, 0);
    drop(held);
    eventually(|| live() == 0).await;
    assert_eq!(say(&greedy[0], "/hello").await, "200 hello\n");
}

/// A core took calls in the order of their arrival: three hundred of one tenant, then the five of another.
#[tokio::test]
async fn many_calls_of_one_tenant_do_not_go_before_the_few_of_another() {
    let engine = engine(16);
    let cores = Cores::start(1).unwrap();
    let probe = guest(&engine, "probe").await;
    let pod = |account: &str| {
        let pod = Workload::builder(&engine, &probe).account(account);
        let pod = pod.instance_policy(InstancePolicy::PerRequest);
        pod.build().unwrap()
    };
    let (greedy, modest) = (pod("greedy"), pod("modest"));
    let answered = Arc::new(AtomicU32::new(0));
    let many = cores.spawn_on(0, {
        let answered = answered.clone();
        async move {
            let calls = (0..300).map(|_| async {
                assert_eq!(say(&greedy, "/hello").await, "200 hello\n");
                answered.fetch_add(1, Relaxed);
            });
            futures::future::join_all(calls).await;
        }
    });
    let few = cores.spawn_on(0, {
        let answered = answered.clone();
        async move {
            for _ in 0..5 {
                assert_eq!(say(&modest, "/hello").await, "200 hello\n");
            }
            answered.load(Relaxed)
        }
    });
    let before = few.await.unwrap();
    assert!(before < 150, "{before} of the others were answered first");
    many.await.unwrap();
    assert_eq!(answered.load(Relaxed), 300, "nobody is left behind");
    cores.shutdown(Duration::ZERO).await;
}

/// A call that had returned and was being read counted as six tasks, which its instance never gave back: a pod with sixty-four callers ran
/// out of fibers, and broke off all calls of the instance that was refused the last.
#[tokio::test]
async fn many_callers_of_pooled_instances_of_wasi_03_do_not_take_all_fibers() {
    let engine = engine(64);
    let cores = Cores::start(1).unwrap();
    let hello = guest(&engine, "hello-p3").await;
    let policy = InstancePolicy::Pooled {
        max_requests: 1_000_000,
        max_concurrent: 16,
        idle: Duration::from_secs(60),
    };
    let workload = Workload::builder(&engine, &hello).instance_policy(policy);
    let workload = workload.build().unwrap();
    let called = workload.clone();
    let calling = cores.spawn_on(0, async move {
        let callers = (0..64).map(|_| async {
            for _ in 0..50 {
                assert_eq!(say(&called, "/").await, "200 hello\n");
            }
        });
        futures::future::join_all(callers).await;
    });
    calling.await.unwrap();
    assert_eq!(workload.usage().overloaded, 0);
    cores.shutdown(Duration::ZERO).await;
}

/// Two hundred at once to a pod with room for three instances were answered, but for three, that there was no memory.
#[tokio::test]
async fn calls_wait_for_the_memory_that_others_give_back() {
    let engine = engine(64);
    let probe = guest(&engine, "probe").await;
    for policy in [InstancePolicy::PerRequest, KEPT] {
        let limits = Limits {
            memory_bytes: probe.initial_memory_bytes() * 7 / 2,
            ..Limits::default()
        };
        let workload = Workload::builder(&engine, &probe)
            .limits(limits)
            .instance_policy(policy);
        let workload = workload.build().unwrap();
        let calls = (0..60).map(|_| say(&workload, "/delay?ms=5"));
        for said in futures::future::join_all(calls).await {
            assert_eq!(said, "200 waited 5 ms\n", "{policy:?}");
        }
        // Who does not get any is told so, and may be served elsewhere.
        let held: Vec<_> = (0..3)
            .map(|_| workload.call(get("/delay?ms=60000")))
            .collect();
        let mut held = futures::future::join_all(held);
        assert!(futures::poll!(&mut held).is_pending());
        let refused = workload.call(get("/hello")).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::NoInstance);
        assert!(refused.never_processed() && refused.status() == 503);
        assert_eq!(
            refused.to_string(),
            format!(
                "there is no room for an instance: those at work have the {} bytes of memory that all may have together",
                workload.limits().memory_bytes
            )
        );
        drop(held);
        eventually(|| workload.usage().in_flight == 0).await;
    }
}

#[tokio::test]
async fn idle_instances_give_way_before_anybody_is_refused() {
    let engine = engine(4);
    let probe = guest(&engine, "probe").await;
    let pod = |account: &str, policy| {
        let pod = Workload::builder(&engine, &probe).account(account);
        pod.instance_policy(policy).build().unwrap()
    };
    let (first, second) = (pod("shop", KEPT), pod("shop", KEPT));
    let calls = (0..3).map(|_| say(&first, "/delay?ms=20"));
    for said in futures::future::join_all(calls).await {
        assert_eq!(said, "200 waited 20 ms\n");
    }
    eventually(|| first.usage().in_flight == 0).await;
    assert_eq!(first.usage().instances, 3, "they wait for the next call");
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut call = Box::pin(second.call(get("/delay?ms=600000")));
        assert!(futures::poll!(&mut call).is_pending(), "there was room");
        held.push(call);
    }
    assert_eq!(first.usage().instances, 0);
    assert_eq!(second.usage().overloaded, 0);
}

/// It is interrupted, goes on elsewhere, and comes to its end there. It was kept there, too, where nobody looked for it: the pod
/// filled up with instances that waited for nobody.
#[tokio::test]
async fn an_instance_that_computed_for_long_is_called_again() {
    let engine = engine(8);
    let probe = guest(&engine, "probe").await;
    let workload = Workload::builder(&engine, &probe).instance_policy(KEPT);
    let workload = workload.build().unwrap();
    for _ in 0..12 {
        let said = calmly(&workload, "/spin?ms=20").await;
        assert_eq!(said, "200 computed for 20 ms\n");
    }
    let usage = workload.usage();
    assert_eq!((usage.instances_started, usage.instances), (1, 1));
}

#[tokio::test]
async fn idle_instances_end_before_a_call_is_refused_memory() {
    let engine = engine(8);
    let cores = Cores::start(2).unwrap();
    let probe = guest(&engine, "probe").await;
    let limits = Limits {
        memory_bytes: 40 << 20,
        ..Limits::default()
    };
    let workload = Workload::builder(&engine, &probe)
        .limits(limits)
        .instance_policy(KEPT)
        .build()
        .unwrap();
    // A guest's memory does not shrink: each instance is too large for another beside it, and waits on its core.
    for core in [0, 1, 0, 1] {
        let said = on_core(&cores, core, &workload, "/eat?mb=24").await;
        assert_eq!(said, "200 ate 24 MiB\n");
        assert_eq!(workload.usage().instances, 1);
    }
    assert_eq!(workload.usage().out_of_memory, 0);

    // Those of WASI 0.3 are tasks, which only end themselves.
    let hello = guest(&engine, "hello-p3").await;
    let limits = Limits {
        memory_bytes: hello.initial_memory_bytes() * 3 / 2,
        ..Limits::default()
    };
    let workload = Workload::builder(&engine, &hello)
        .limits(limits)
        .instance_policy(KEPT)
        .build()
        .unwrap();
    for core in [0, 1] {
        let said = on_core(&cores, core, &workload, "/").await;
        assert!(said.starts_with("200 "), "{said}");
    }
    eventually(|| workload.usage().instances == 1).await;
    assert_eq!(workload.usage().instances_started, 2);
    cores.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn an_instance_that_did_not_respond_is_never_used_again() {
    let engine = engine(4);
    let attacker = guest(&engine, "attacker").await;
    let workload = Workload::builder(&engine, &attacker).instance_policy(KEPT);
    let workload = workload.build().unwrap();
    assert_eq!(calmly(&workload, "/18").await, "200 0 calls before");
    assert_eq!(calmly(&workload, "/18").await, "200 1 calls before");
    let said = calmly(&workload, "/30?never").await;
    assert_eq!(said, "502 the guest returned without a response");
    assert_eq!(calmly(&workload, "/18").await, "200 0 calls before");
    let usage = workload.usage();
    assert_eq!((usage.instances_started, usage.no_response), (2, 1));
    assert_eq!(usage.traps, 0);
}

/// What an engine says that has nothing left.
fn nothing_left() -> wasmtime::Error {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(1)
        .total_component_instances(1)
        .total_memories(1)
        .max_memory_size(1 << 16)
        .total_tables(1)
        .total_stacks(1)
        .total_gc_heaps(1);
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = wasmtime::Engine::new(&config).unwrap();
    let module = Module::new(&engine, wat::parse_str("(module)").unwrap()).unwrap();
    let mut store = Store::new(&engine, ());
    Instance::new(&mut store, &module, &[]).unwrap();
    Instance::new(&mut store, &module, &[]).unwrap_err()
}

/// A fiber for a task, say, that a guest of WASI 0.3 begins in the middle of a call. That was told as a call that had never begun,
/// and a POST was sent again.
#[tokio::test]
async fn what_ran_out_of_room_in_the_middle_of_a_call_is_not_called_unbegun() {
    let engine = engine(4);
    let hello = guest(&engine, "hello").await;
    let workload = Workload::builder(&engine, &hello).build().unwrap();
    let ended = workload
        .with_instance(async |_, _| Err::<(), _>(nothing_left()))
        .await;
    let error = ended.unwrap_err();
    assert!(error.kind == FailureKind::Exhausted, "{error:?}");
    assert!(!error.never_processed());
    assert_eq!(
        (error.status().as_u16(), error.to_string()),
        (
            502,
            "the guest could not go on: maximum concurrent limit of 1 for core instances reached"
                .into()
        )
    );
}

#[tokio::test]
async fn who_still_waits_when_a_workload_stops_has_not_begun() {
    let engine = engine(4);
    let probe = guest(&engine, "probe").await;
    let limits = Limits {
        in_flight_max: 1,
        ..Limits::default()
    };
    let workload = Workload::builder(&engine, &probe).limits(limits);
    let workload = workload.build().unwrap();
    let mut first = Box::pin(workload.call(get("/delay?ms=600000")));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(workload.call(get("/hello")));
    assert!(futures::poll!(&mut second).is_pending());
    workload.stop(Duration::ZERO).await;
    for (call, begun) in [(first, true), (second, false)] {
        let error = call.await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Stopped);
        assert_eq!(error.never_processed(), !begun);
    }
}

/// Runs the clock by itself, as far as the next thing that waits for it, until it is dropped.
struct Fast {
    since: tokio::time::Instant,
    took: Arc<Mutex<Option<Duration>>>,
}

impl Drop for Fast {
    fn drop(&mut self) {
        *self.took.lock().unwrap() = Some(self.since.elapsed());
        tokio::time::resume();
    }
}

/// `weft::http::Timeout` said half a second, and a second passed.
#[tokio::test]
async fn a_guest_waits_as_long_as_it_said() {
    let engine = engine(4);
    let probe = guest(&engine, "probe").await;
    let took = Arc::new(Mutex::new(None));
    let asked = Arc::new(AtomicBool::new(false));
    let outbound = Outbound::new(tower::service_fn({
        let (took, asked) = (took.clone(), asked.clone());
        move |_: Request<Body>| {
            let took = took.clone();
            asked.store(true, Relaxed);
            async move {
                tokio::time::pause();
                let _fast = Fast {
                    since: tokio::time::Instant::now(),
                    took,
                };
                std::future::pending::<Result<http::Response<Body>, Failure>>().await
            }
        }
    }));
    let workload = Workload::builder(&engine, &probe).outbound(outbound);
    let workload = workload.build().unwrap();
    let said = say(&workload, "/call?url=http://slow/&timeout=500").await;
    assert!(asked.load(Relaxed), "{said}");
    assert!(
        said.starts_with("502 the call took too long (HTTP-response-timeout)"),
        "{said}"
    );
    let took = took.lock().unwrap().expect("it was given up");
    assert!(
        (500..510).contains(&took.as_millis()),
        "it waited for {took:?}"
    );
}
