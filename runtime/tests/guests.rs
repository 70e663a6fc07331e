//! The runtime with real components: those of `sample-apps` (built by `cargo xtask guests`) and small ones in text.

mod guest;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::{BodyExt, StreamBody};
use weft_runtime::{
    Artifact, ArtifactError, Body, BoxError, CallContext, Engine, EventSink, Exit, Failure,
    FailureKind, InstancePolicy, Limits, LogSink, Outbound, Peer, Stdin, TraceContext, Transport,
    Wasi, Workload, WorkloadBuilder, WorkloadError,
};

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().instances_max(64).build().unwrap());

async fn guest(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

async fn probe() -> WorkloadBuilder {
    Workload::builder(&ENGINE, &guest("probe").await).name("probe")
}

fn get(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(
        response
            .into_body()
            .collect()
            .await
            .unwrap()
            .to_bytes()
            .into(),
    )
    .unwrap()
}

async fn say(workload: &Workload, uri: &str) -> String {
    match workload.call(get(uri)).await {
        Ok(response) => format!("{} {}", response.status().as_u16(), text(response).await),
        Err(error) => format!("{} {error}", error.status().as_u16()),
    }
}

async fn command(text: &str) -> Result<Artifact, ArtifactError> {
    ENGINE.load(wat::parse_str(text).unwrap()).await
}

/// A command whose core function `run` is `body`, with one page of memory.
fn run_of(body: &str) -> String {
    format!(
        r#"(component
          (core module $m (memory 1) (func $deep (export "run") (result i32) {body}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    )
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

#[tokio::test]
async fn what_is_not_a_component_is_refused_with_a_sentence() {
    let truncated = {
        let mut bytes = wat::parse_str(run_of("i32.const 0")).unwrap();
        bytes.truncate(60);
        bytes
    };
    let unknown =
        r#"(component (import "acme:rockets/launch@1.0.0" (instance (export "go" (func)))))"#;
    let imports = |import: &str| {
        wat::parse_str(run_of("i32.const 0").replacen(
            "(component",
            &format!("(component {import}"),
            1,
        ))
        .unwrap()
    };
    let mut transcript = String::new();
    for bytes in [
        Vec::new(),
        b"#!/bin/sh\n".to_vec(),
        b"\x7fELF\x02\x01\x01".to_vec(),
        wat::parse_str("(module)").unwrap(),
        truncated,
        wat::parse_str(unknown).unwrap(),
        imports(r#"(import "acme:rockets/launch@1.0.0" (instance (export "go" (func))))"#),
        imports(r#"(import "wasi:http/future@0.4.0" (instance (export "go" (func))))"#),
        imports(
            r#"(import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" u32)))))"#,
        ),
    ] {
        let error = ENGINE.load(bytes).await.unwrap_err();
        assert!(error.is_permanent());
        transcript += &format!("{error}\n");
    }
    insta::assert_snapshot!(transcript, @r##"
    this is not WebAssembly: it starts with nothing, not with \0asm
    this is not WebAssembly: it starts with "#!/bin/s", not with \0asm
    this is machine code, not WebAssembly; only components that are compiled on this machine are run
    this is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`
    the component is not valid: failed to parse WebAssembly module: wasm component contains an invalid module section: section range 10..71 is out of bounds (bound = 60)
    the component exports neither wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 nor wasi:cli/run
    the component imports acme:rockets/launch@1.0.0, which this host does not offer; it offers wasi:cli, wasi:clocks, wasi:config, wasi:filesystem, wasi:http, wasi:io, wasi:keyvalue, wasi:random, wasi:sockets, weft:files, weft:mesh, weft:terminal
    the component imports wasi:http/future@0.4.0, which this host does not offer; of wasi:http it offers 0.2.12 and 0.3.0
    the component does not fit this host: component imports instance `wasi:cli/exit@0.2.0`, but a matching implementation was not found in the linker: instance export `exit` has the wrong type: type mismatch with parameters: expected `result` found `u32`
    "##);
}

#[tokio::test]
async fn a_command_ends_in_one_of_few_ways() {
    let limits = || Limits {
        memory_bytes: 1 << 20,
        run_timeout: Some(Duration::from_millis(200)),
        ..Limits::default()
    };
    let mut transcript = String::new();
    for body in [
        "i32.const 0",
        "i32.const 1",
        "unreachable",
        "(i32.div_u (i32.const 1) (i32.const 0))",
        "(call $deep)",
        "(loop (br 0)) i32.const 0",
        // Takes memory until there is none, as a guest's allocator would.
        "(loop (br_if 0 (i32.ne (memory.grow (i32.const 4)) (i32.const -1)))) unreachable",
    ] {
        let artifact = command(&run_of(body)).await.unwrap();
        let workload = Workload::builder(&ENGINE, &artifact)
            .limits(limits())
            .build()
            .unwrap();
        let exit = workload.run().await;
        if let Exit::Trap { backtrace, .. } = &exit {
            assert!(backtrace.contains("deep"), "{backtrace}");
        }
        let shown = match &exit {
            Exit::Trap { message, .. } => format!("Trap: {message}"),
            exit => format!("{exit:?}"),
        };
        transcript += &format!("{shown} (exit code {})\n", exit.code());
        assert_eq!(
            (workload.usage().instances, workload.usage().memory_bytes),
            (0, 0)
        );
    }
    insta::assert_snapshot!(transcript, @r"
    Success (exit code 0)
    Failed(1) (exit code 1)
    Trap: wasm trap: wasm `unreachable` instruction executed (exit code 134)
    Trap: wasm trap: integer divide by zero (exit code 134)
    Trap: wasm trap: call stack exhausted (exit code 134)
    Deadline (exit code 137)
    OutOfMemory { limit_bytes: 1048576 } (exit code 137)
    ");
}

#[tokio::test]
async fn a_running_command_can_be_stopped() {
    let artifact = command(&run_of("(loop (br 0)) i32.const 0")).await.unwrap();
    let workload = Workload::builder(&ENGINE, &artifact).build().unwrap();
    let running = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run().await }
    });
    eventually(|| workload.usage().cpu_nanos > 0).await;
    workload.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap(), Exit::Stopped);
    assert_eq!(
        workload.run().await,
        Exit::Stopped,
        "nothing begins after a stop"
    );
}

#[tokio::test]
async fn a_command_has_its_grace_and_hears_of_the_stop_at_its_input() {
    for name in ["behaviours", "behaviours-p3"] {
        let artifact = guest(name).await;
        let workload = Workload::builder(&ENGINE, &artifact)
            .args(vec![name.into(), "cli/stdin".into()])
            .stdin(Stdin::EndsAtStop)
            .build()
            .unwrap();
        let mut running = tokio::spawn({
            let workload = workload.clone();
            async move { workload.run().await }
        });
        eventually(|| workload.usage().instances == 1).await;
        let early = tokio::time::timeout(Duration::from_millis(50), &mut running).await;
        assert!(
            early.is_err(),
            "{name} ended before it was told to: {early:?}"
        );
        let begun = Instant::now();
        workload.stop(Duration::from_secs(60)).await;
        assert_eq!(running.await.unwrap(), Exit::Success, "{name}");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "{name} waited for nobody"
        );
    }
}

#[tokio::test]
async fn memory_declared_beyond_the_limit_is_refused_before_anything_starts() {
    let artifact = command(&run_of("i32.const 0").replace("(memory 1)", "(memory 100)"))
        .await
        .unwrap();
    let limits = Limits {
        memory_bytes: 1 << 20,
        ..Limits::default()
    };
    let error = Workload::builder(&ENGINE, &artifact)
        .limits(limits)
        .build()
        .unwrap_err();
    assert_eq!(
        error,
        WorkloadError::MemoryLimitTooSmall {
            needed_bytes: 6_553_600,
            limit_bytes: 1 << 20
        }
    );
}

#[tokio::test]
async fn both_generations_of_wasi_answer() {
    for (name, wasi) in [("hello", Wasi::P2), ("hello-p3", Wasi::P3)] {
        let artifact = guest(name).await;
        assert_eq!(artifact.kind().http, Some(wasi));
        for policy in [
            InstancePolicy::PerRequest,
            InstancePolicy::Pooled {
                max_requests: 4,
                max_concurrent: 2,
                idle: Duration::from_secs(60),
            },
        ] {
            let workload = Workload::builder(&ENGINE, &artifact)
                .instance_policy(policy)
                .build()
                .unwrap();
            for _ in 0..8 {
                assert_eq!(
                    say(&workload, "/").await,
                    "200 hello\n",
                    "{name} {policy:?}"
                );
            }
            let usage = workload.usage();
            let instances = if policy == InstancePolicy::PerRequest {
                8
            } else {
                2
            };
            assert_eq!(
                (usage.requests, usage.instances_started),
                (8, instances),
                "{name} {policy:?}"
            );
            assert!(usage.cpu_nanos > 0 && usage.memory_peak_bytes > 0);
            workload.stop(Duration::from_secs(5)).await;
            assert_eq!(say(&workload, "/").await, "503 the workload is stopped");
            eventually(|| workload.usage().instances == 0 && workload.usage().memory_bytes == 0)
                .await;
        }
    }
}

#[tokio::test]
async fn a_guest_sees_an_absolute_request_its_environment_and_its_caller() {
    let workload = probe()
        .await
        .env(vec![("COLOR".into(), "green".into())])
        .build()
        .unwrap();
    assert_eq!(say(&workload, "/env").await, "200 COLOR=green\n");
    let request = Request::builder()
        .uri("/headers?a=b")
        .header("host", "shop.test:81")
        .header("x-one", "1");
    let shown = text(
        workload
            .call(request.body(Body::empty()).unwrap())
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(shown, "GET http://shop.test:81/headers?a=b\nx-one: 1\n");
    assert!(
        say(&workload, "/whoami")
            .await
            .starts_with("200 unknown caller\n")
    );

    let mut request = get("/whoami");
    request.extensions_mut().insert(CallContext {
        peer: Some(Arc::new(Peer {
            spiffe_id: "spiffe://cluster.local/ns/vote/sa/web".into(),
            namespace: "vote".into(),
            service_account: "web".into(),
            workload: "web".into(),
            transport: Transport::MutualTls,
        })),
        deadline: Some(Instant::now() + Duration::from_millis(500)),
        trace: Some(TraceContext {
            trace_id: 0xabc,
            span_id: 1,
            flags: 1,
            state: None,
        }),
        // The interface counts from 1.
        attempt: 1,
        depth: 0,
        port: Some(8081),
        ..CallContext::default()
    });
    let shown = text(workload.call(request).await.unwrap()).await;
    let left: u64 = shown
        .split("remaining: ")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    assert!(left <= 500);
    let shown = shown.replace(&format!("{left} ms"), "at most 500 ms");
    insta::assert_snapshot!(shown, @r"
    spiffe-id: spiffe://cluster.local/ns/vote/sa/web
    namespace: vote
    service-account: web
    workload: web
    transport: mutual-tls
    remaining: at most 500 ms
    attempt: 2
    trace: 00000000000000000000000000000abc
    port: 8081
    ");
}

/// A request to `/echo` whose body is sent through the sender, and ends with it.
fn echo() -> (tokio::sync::mpsc::Sender<bytes::Bytes>, Request<Body>) {
    let (sender, receiver) = tokio::sync::mpsc::channel::<bytes::Bytes>(1);
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        receiver
            .recv()
            .await
            .map(|bytes| (Ok(http_body::Frame::data(bytes)), receiver))
    });
    let request = Request::post("http://probe/echo")
        .body(Body::new(StreamBody::new(frames)))
        .unwrap();
    (sender, request)
}

/// Sends parts one by one: each comes back before the next is sent, so nothing waits for the end.
async fn converse(sender: tokio::sync::mpsc::Sender<bytes::Bytes>, response: Response<Body>) {
    let mut echoed = response.into_body();
    for part in ["one", "two", "three"] {
        sender.send(part.into()).await.unwrap();
        let frame = echoed.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    drop(sender);
    assert!(echoed.frame().await.is_none());
}

#[tokio::test]
async fn bodies_stream_both_ways() {
    let workload = probe().await.build().unwrap();
    let (sender, request) = echo();
    let response = workload.call(request).await.unwrap();
    converse(sender, response).await;
}

#[tokio::test]
async fn faults_have_reasons_and_touch_nobody_else() {
    let stderr = Arc::new(Mutex::new(Vec::new()));
    let sink = stderr.clone();
    let workload = probe()
        .await
        .limits(Limits {
            memory_bytes: 8 << 20,
            request_timeout: Duration::from_secs(2),
            ..Limits::default()
        })
        .stderr(LogSink::new(move |bytes| {
            sink.lock().unwrap().extend_from_slice(bytes)
        }))
        .build()
        .unwrap();
    let spinning = tokio::spawn({
        let workload = workload.clone();
        async move { workload.call(get("/loop")).await.map(drop) }
    });
    // It has its memory before another instance takes all that the workload may have: on a slow machine the two raced, and
    // the guest that should spin was the one that found none.
    eventually(|| workload.usage().memory_bytes > 0).await;
    match workload.call(get("/panic")).await.unwrap_err() {
        error if error.kind == FailureKind::Trap => {
            assert_eq!(
                error.message,
                "the guest trapped: wasm trap: wasm `unreachable` instruction executed"
            );
            let backtrace = error.detail.unwrap_or_default();
            assert!(backtrace.contains("wasm function"), "{backtrace}");
        }
        other => panic!("{other:?}"),
    }
    assert!(String::from_utf8_lossy(&stderr.lock().unwrap()).contains("asked to panic"));
    assert_eq!(
        say(&workload, "/eat?mb=64").await,
        "502 the guest ran out of memory: its limit is 8388608 bytes"
    );
    assert_eq!(say(&workload, "/eat?mb=1").await, "200 ate 1 MiB\n");
    // On the same thread as the guest that spins.
    assert_eq!(say(&workload, "/hello").await, "200 hello\n");
    assert_eq!(
        spinning.await.unwrap().unwrap_err(),
        FailureKind::Deadline.into()
    );
    eventually(|| workload.usage().instances == 0).await;
    let usage = workload.usage();
    assert_eq!(
        (
            usage.traps,
            usage.out_of_memory,
            usage.deadlines,
            usage.in_flight
        ),
        (1, 1, 1, 0)
    );
}

/// A trap after the response's head took the rest of the body along, and its caller saw a body that had ended.
#[tokio::test]
async fn a_body_that_the_guest_did_not_end_does_not_look_whole() {
    let next = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Failure>(Response::new(Body::empty()))
    });
    for name in ["probe", "relay-p3"] {
        let (told, sink) = broken_off();
        let workload = Workload::builder(&ENGINE, &guest(name).await)
            .outbound(Outbound::new(next))
            .events(sink)
            .build()
            .unwrap();
        for path in ["/truncate", "/hello"] {
            let response = workload.call(get(path)).await.unwrap();
            assert_eq!(response.status(), 200, "{name}{path}");
            let ended = response.into_body().collect().await;
            match ended.map_err(|error| error.downcast::<Failure>().unwrap()) {
                Err(error) => assert!(
                    path == "/truncate" && error.kind == FailureKind::Trap,
                    "{name}{path}: {error}"
                ),
                Ok(body) => assert!(
                    path == "/hello" && !body.to_bytes().is_empty(),
                    "{name}{path} ended as if it were whole"
                ),
            }
        }
        assert_eq!(workload.usage().traps, 1, "{name}");
        if name == "probe" {
            // The call returns it: nobody else has to be told.
            let fault = workload.call(get("/panic")).await.unwrap_err();
            assert!(fault.kind == FailureKind::Trap, "{fault}");
            assert_eq!(workload.usage().traps, 2);
        }
        let told = told.lock().unwrap();
        assert!(
            matches!(
                &told[..],
                [Failure {
                    kind: FailureKind::Trap,
                    detail: Some(_),
                    ..
                }]
            ),
            "{name}: {told:?}"
        );
    }
}

/// Faults that no call returns.
fn broken_off() -> (Arc<Mutex<Vec<Failure>>>, EventSink) {
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let sink = EventSink::of_broken_off(move |fault| heard.lock().unwrap().push(fault));
    (told, sink)
}

/// A guest may be as slow as it likes to say nothing, but its caller does not wait longer than it may.
#[tokio::test]
async fn a_body_that_stays_away_is_a_deadline_that_is_counted_and_told() {
    let (told, sink) = broken_off();
    let limits = Limits {
        body_idle_timeout: Duration::from_millis(50),
        ..Limits::default()
    };
    let workload = probe().await.limits(limits).events(sink).build().unwrap();
    let (sender, request) = echo();
    let response = workload.call(request).await.unwrap();
    let ended = response.into_body().collect().await.map(|_| ());
    let error = ended.unwrap_err().downcast::<Failure>().unwrap();
    assert_eq!(*error, FailureKind::Deadline.into());
    drop(sender);
    assert_eq!(
        *told.lock().unwrap(),
        [Failure::from(FailureKind::Deadline)]
    );
    eventually(|| workload.usage().in_flight == 0).await;
    assert_eq!(workload.usage().deadlines, 1);
}

#[tokio::test]
async fn a_caller_that_leaves_ends_its_call() {
    let workload = probe().await.build().unwrap();
    let mut waiting = Box::pin(workload.call(get("/delay?ms=600000")));
    assert!(futures::poll!(&mut waiting).is_pending());
    eventually_running(&workload).await;
    drop(waiting);
    eventually(|| workload.usage().instances == 0).await;
    // The same in the middle of a body.
    let endless = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, BoxError>>();
    let request = Request::post("http://probe/echo")
        .body(Body::new(StreamBody::new(endless)))
        .unwrap();
    let response = workload.call(request).await.unwrap();
    assert_eq!(workload.usage().instances, 1);
    drop(response);
    eventually(|| workload.usage().instances == 0 && workload.usage().in_flight == 0).await;
}

async fn eventually_running(workload: &Workload) {
    eventually(|| workload.usage().instances == 1).await;
}

#[tokio::test]
async fn a_caller_that_leaves_late_ends_no_other_call() {
    let one_at_a_time = InstancePolicy::Pooled {
        max_requests: 8,
        max_concurrent: 1,
        idle: Duration::from_secs(60),
    };
    let workload = probe()
        .await
        .instance_policy(one_at_a_time)
        .build()
        .unwrap();
    // The guest has returned, and its caller has not read a byte of what it said.
    let unread = workload.call(get("/hello")).await.unwrap();
    eventually(|| workload.usage().in_flight == 0).await;
    // The instance is with the next call when that caller turns away.
    let (sender, request) = echo();
    let response = workload.call(request).await.unwrap();
    drop(unread);
    converse(sender, response).await;
    assert_eq!(workload.usage().instances_started, 1);
}

#[tokio::test]
async fn admission_is_bounded() {
    let limits = Limits {
        in_flight_max: 1,
        queued_max: 1,
        ..Limits::default()
    };
    let workload = probe().await.limits(limits).build().unwrap();
    let mut first = Box::pin(workload.call(get("/delay?ms=600000")));
    assert!(futures::poll!(&mut first).is_pending());
    let mut second = Box::pin(workload.call(get("/hello")));
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(workload.usage().queued, 1);
    assert_eq!(
        workload.call(get("/hello")).await.unwrap_err(),
        Failure::new(
            FailureKind::Overloaded,
            "the workload is at its limit of calls, and its queue is full"
        )
    );
    drop(first);
    assert_eq!(text(second.await.unwrap()).await, "hello\n");
    assert_eq!(
        (workload.usage().overloaded, workload.usage().queued),
        (1, 0)
    );
}

#[tokio::test]
async fn outbound_requests_carry_the_callers_context_and_errors_reach_the_guest() {
    let denied = probe().await.build().unwrap();
    insta::assert_snapshot!(say(&denied, "/call?url=http://voting/").await, @r"
    502 the request was denied (HTTP-request-denied)
    kind: Denied
    code: HTTP-request-denied
    ");

    let seen = Arc::new(AtomicUsize::new(0));
    let counter = seen.clone();
    let outbound = Outbound::new(tower::service_fn(move |request: Request<Body>| {
        counter.fetch_add(1, Relaxed);
        async move {
            let context = request
                .extensions()
                .get::<CallContext>()
                .expect("the call's context");
            match request.uri().host() {
                Some("voting") => Ok(Response::new(Body::full(format!(
                    "{} attempt {}",
                    request.uri(),
                    context.attempt
                )))),
                Some("busy") => Err(FailureKind::LimitReached.into()),
                _ => Err(FailureKind::UnknownService.into()),
            }
        }
    }));
    let workload = probe().await.outbound(outbound).build().unwrap();
    let mut request = get("/call?url=http://voting/api");
    request.extensions_mut().insert(CallContext {
        attempt: 7,
        ..CallContext::default()
    });
    let shown = text(workload.call(request).await.unwrap()).await;
    assert_eq!(shown, "200 OK\nhttp://voting/api attempt 7");
    for (host, code) in [
        ("busy", "connection-limit-reached"),
        ("nowhere", "destination-not-found"),
    ] {
        let shown = say(&workload, &format!("/call?url=http://{host}/")).await;
        assert!(shown.ends_with(&format!("code: {code}\n")), "{shown}");
    }
    assert_eq!(seen.load(Relaxed), 3);
    assert_eq!(workload.usage().outbound_requests, 3);
}

#[tokio::test]
async fn calls_that_share_an_instance_each_see_their_own_context() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let both = Arc::new(tokio::sync::Barrier::new(2));
    let outbound = Outbound::new(tower::service_fn({
        let seen = seen.clone();
        move |request: Request<Body>| {
            let context: &CallContext = request.extensions().get().expect("the call's context");
            let (peer, trace) = (context.peer.as_ref().unwrap(), context.trace.as_ref());
            seen.lock().unwrap().push(format!(
                "{} of {} on {:x}, attempt {}",
                request.uri(),
                peer.workload,
                trace.unwrap().trace_id,
                context.attempt
            ));
            let both = both.clone();
            async move {
                // Neither is answered before the other has been sent.
                both.wait().await;
                Ok(Response::new(Body::empty()))
            }
        }
    }));
    let limits = Limits {
        request_timeout: Duration::from_secs(1_000_000),
        ..Limits::default()
    };
    let workload = Workload::builder(&ENGINE, &guest("relay-p3").await)
        .outbound(outbound)
        .limits(limits)
        .instance_policy(InstancePolicy::Pooled {
            max_requests: 8,
            max_concurrent: 2,
            idle: Duration::from_secs(60),
        })
        .build()
        .unwrap();
    let call = |path: &str, name: &str, number: u32| {
        let mut request = get(path);
        request.extensions_mut().insert(CallContext {
            peer: Some(Arc::new(Peer {
                spiffe_id: format!("spiffe://cluster.local/ns/vote/sa/{name}").into(),
                namespace: "vote".into(),
                service_account: name.into(),
                workload: name.into(),
                transport: Transport::InProcess,
            })),
            deadline: Some(Instant::now() + Duration::from_secs(3_600) * number),
            trace: Some(TraceContext {
                trace_id: u128::from(number),
                span_id: 1,
                flags: 0,
                state: None,
            }),
            attempt: number - 1,
            depth: 0,
            ..CallContext::default()
        });
        let workload = workload.clone();
        tokio::spawn(async move { text(workload.call(request).await.unwrap()).await })
    };
    let first = call("/a", "ann", 1);
    eventually(|| seen.lock().unwrap().len() == 1).await;
    let second = call("/b", "bob", 2);
    let told = [first.await.unwrap(), second.await.unwrap()].concat();
    assert_eq!(workload.usage().instances_started, 1);
    let seen = seen.lock().unwrap().join("\n");
    insta::assert_snapshot!(format!("{told}\n{seen}"), @r"
    ann 00000000000000000000000000000001 within 1 h, attempt 1
    ann 00000000000000000000000000000001 within 1 h, attempt 1
    ann 00000000000000000000000000000001 within 1 h, attempt 1
    next answered 200
    bob 00000000000000000000000000000002 within 2 h, attempt 2
    bob 00000000000000000000000000000002 within 2 h, attempt 2
    bob 00000000000000000000000000000002 within 2 h, attempt 2
    next answered 200

    http://next/a of ann on 1, attempt 0
    http://next/b of bob on 2, attempt 1
    ");
}

/// A busy instance kept what it knew of each call that it ever had: a million with the annotation that allows as many.
#[tokio::test]
async fn a_busy_instance_forgets_the_calls_that_are_over() {
    let asked = Arc::new(AtomicUsize::new(0));
    let released = Arc::new(tokio::sync::Notify::new());
    let outbound = Outbound::new(tower::service_fn({
        let (asked, released) = (asked.clone(), released.clone());
        move |request: Request<Body>| {
            let (is_long, released) = (request.uri().path() == "/long", released.clone());
            asked.fetch_add(1, Relaxed);
            async move {
                if is_long {
                    released.notified().await;
                }
                Ok(Response::new(Body::empty()))
            }
        }
    }));
    let workload = Workload::builder(&ENGINE, &guest("relay-p3").await)
        .outbound(outbound)
        .instance_policy(InstancePolicy::Pooled {
            max_requests: 1_000,
            max_concurrent: 2,
            idle: Duration::from_secs(60),
        })
        .build()
        .unwrap();
    let peer = Arc::new(Peer {
        spiffe_id: "spiffe://cluster.local/ns/vote/sa/ann".into(),
        namespace: "vote".into(),
        service_account: "ann".into(),
        workload: "ann".into(),
        transport: Transport::InProcess,
    });
    let call = |path: &str| {
        let mut request = get(path);
        request.extensions_mut().insert(CallContext {
            peer: Some(peer.clone()),
            ..CallContext::default()
        });
        let workload = workload.clone();
        async move { text(workload.call(request).await.unwrap()).await }
    };
    let long = tokio::spawn(call("/long"));
    eventually(|| asked.load(Relaxed) == 1).await;
    for _ in 0..100 {
        assert!(call("/short").await.contains("next answered 200"));
    }
    assert_eq!(workload.usage().instances_started, 1);
    let known = Arc::strong_count(&peer);
    assert!(known < 10, "{known} of 101 calls");
    released.notify_one();
    assert!(long.await.unwrap().contains("next answered 200"));
}

#[tokio::test]
async fn a_quota_slows_a_guest_down() {
    let limits = Limits {
        cpu_millis: Some(100),
        run_timeout: Some(Duration::from_secs(1)),
        ..Limits::default()
    };
    let artifact = command(&run_of("(loop (br 0)) i32.const 0")).await.unwrap();
    let workload = Workload::builder(&ENGINE, &artifact)
        .limits(limits)
        .build()
        .unwrap();
    let started = Instant::now();
    assert_eq!(workload.run().await, Exit::Deadline);
    // A tenth of the time, one burst of 10 ms, and the slices that were begun on credit.
    let used = Duration::from_nanos(workload.usage().cpu_nanos);
    assert!(
        used < started.elapsed() / 2,
        "{used:?} of {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn compiled_code_is_kept_authenticated_and_made_once() {
    let dir = tempfile::tempdir().unwrap();
    let engine = || {
        Engine::builder()
            .instances_max(4)
            .cache_dir(dir.path().join("cache"))
            .build()
            .unwrap()
    };
    let bytes = wat::parse_str(run_of("i32.const 0")).unwrap();
    let first = engine();
    let (one, two) = tokio::join!(first.load(bytes.clone()), first.load(bytes.clone()));
    let artifact = one.unwrap();
    assert_eq!(artifact.digest(), two.unwrap().digest());
    let code = std::fs::read_dir(dir.path().join("cache"))
        .unwrap()
        .map(|file| file.unwrap().path());
    let code: Vec<_> = code
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect();
    assert_eq!(code.len(), 1);

    let digest = artifact.digest();
    let second = engine();
    let found = second.load_cached(digest).await.unwrap().unwrap();
    assert_eq!(
        Workload::builder(&second, &found)
            .build()
            .unwrap()
            .run()
            .await,
        Exit::Success
    );

    // One bit of the code, changed behind our back by someone who can write the file but does not know the key.
    let mut forged = std::fs::read(&code[0]).unwrap();
    let middle = forged.len() / 2;
    forged[middle] ^= 1;
    let replaced = code[0].with_extension("new");
    std::fs::write(&replaced, forged).unwrap();
    std::fs::rename(&replaced, &code[0]).unwrap();
    let third = engine();
    assert!(
        third.load_cached(digest).await.unwrap().is_none(),
        "forged code is not found"
    );
    let again = third.load(bytes).await.unwrap();
    assert_eq!(
        Workload::builder(&third, &again)
            .build()
            .unwrap()
            .run()
            .await,
        Exit::Success
    );
}
