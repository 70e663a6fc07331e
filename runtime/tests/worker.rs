//! Guests in a worker process: they answer, fail and are bounded as in this one, and nothing they do reaches further.

mod example;
mod guest;

use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_runtime::worker::{Ended, RemoteWorkload, Worker, WorkerCommand, WorkerError};
use weft_runtime::{
    Blame, Body, BoxError, CallContext, Cores, Engine, EventSink, Exit, Failure, FailureKind,
    InstancePolicy, Limits, LogSink, Outbound, Peer, Processed, Setup, Stdin, Transport,
    WorkloadConfig,
};

/// An engine that compiles, a worker that runs, and what its guests print.
struct Place {
    engine: Engine,
    cores: Cores,
    worker: Worker,
    printed: Arc<Mutex<String>>,
    _dir: tempfile::TempDir,
}

impl Place {
    async fn start() -> Place {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::builder()
            .instances_max(2)
            .cache_dir(dir.path().join("compiled"))
            .build()
            .unwrap();
        let cores = Cores::start(2).unwrap();
        let worker = worker(&cores).await;
        Place {
            engine,
            cores,
            worker,
            printed: Arc::default(),
            _dir: dir,
        }
    }

    fn setup(&self) -> Setup {
        let sink = || {
            let printed = self.printed.clone();
            LogSink::new(move |bytes| {
                *printed.lock().unwrap() += &String::from_utf8_lossy(bytes);
            })
        };
        Setup {
            config: WorkloadConfig {
                name: "guest".into(),
                account: "tenant".into(),
                env: vec![("COLOUR".into(), "blue".into())],
                args: vec!["guest".into()],
                ..WorkloadConfig::default()
            },
            stdout: sink(),
            stderr: sink(),
            ..Setup::default()
        }
    }

    async fn build(&self, component: Vec<u8>, setup: Setup) -> Result<RemoteWorkload, WorkerError> {
        let artifact = self.engine.load(component).await.unwrap();
        self.worker.build(&self.engine, &artifact, setup).await
    }

    async fn guest(&self, name: &str, setup: Setup) -> RemoteWorkload {
        self.build(guest::bytes(name), setup).await.unwrap()
    }
}

async fn worker(cores: &Cores) -> Worker {
    let command = WorkerCommand {
        program: example::path("worker"),
        args: Vec::new(),
    };
    Worker::start(&command, cores).await.unwrap()
}

fn get(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(Body::empty()).unwrap()
}

async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.into()).unwrap()
}

async fn say(workload: &RemoteWorkload, uri: &str) -> String {
    match workload.call(get(uri)).await {
        Ok(response) => format!("{} {}", response.status().as_u16(), text(response).await),
        Err(error) => format!("{} {error}", error.status().as_u16()),
    }
}

/// Waits for what happens elsewhere. The bound only keeps a failing test from hanging.
async fn eventually(mut happened: impl FnMut() -> bool) {
    for _ in 0..4_000 {
        if happened() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not happen");
}

/// A command whose core function `run` is `body`.
fn run_of(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
          (core module $m (memory 1) (func $deep (export "run") (result i32) {body}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    wat::parse_str(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_answer_as_in_this_process() {
    let place = Place::start().await;
    for (name, answer) in [("hello", "200 "), ("hello-p3", "200 ")] {
        let workload = place.guest(name, place.setup()).await;
        let said = say(&workload, "http://guest/").await;
        assert!(said.starts_with(answer), "{name}: {said}");
        // The same from each core.
        for core in 0..place.cores.len() {
            let workload = workload.clone();
            let there = place
                .cores
                .spawn_on(core, async move { say(&workload, "http://guest/").await });
            assert_eq!(there.await.unwrap(), said, "{name} on core {core}");
        }
    }
    let probe = place.guest("probe", place.setup()).await;
    assert_eq!(say(&probe, "http://guest/env").await, "200 COLOUR=blue\n");
    let headers = say(&probe, "http://guest/headers?x=1").await;
    assert!(
        headers.starts_with("200 GET http://guest/headers?x=1\n") && !headers.contains("weft-"),
        "{headers}"
    );
    let mut request = get("http://guest/whoami");
    request.extensions_mut().insert(CallContext {
        peer: Some(Arc::new(Peer {
            spiffe_id: "spiffe://here/ns/shop/sa/cart".into(),
            namespace: "shop".into(),
            service_account: "cart".into(),
            workload: "cart".into(),
            transport: Transport::MutualTls,
        })),
        deadline: Some(Instant::now() + Duration::from_secs(5)),
        // The interface counts from 1.
        attempt: 2,
        port: Some(8081),
        ..CallContext::default()
    });
    let who = text(probe.call(request).await.unwrap()).await;
    for part in [
        "spiffe://here/ns/shop/sa/cart",
        "attempt: 3",
        "port: 8081",
        "remaining: 4",
    ] {
        assert!(who.contains(part), "{part} is missing in {who}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_both_ways() {
    let place = Place::start().await;
    let probe = place.guest("probe", place.setup()).await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let chunks = futures::stream::unfold(receiver, async |mut receiver| {
        let chunk = receiver.recv().await?;
        Some((Ok::<_, BoxError>(Frame::data(chunk)), receiver))
    });
    let request = Request::post("http://guest/echo")
        .body(Body::new(StreamBody::new(chunks)))
        .unwrap();
    let response = probe.call(request).await.unwrap();
    let mut echoed = response.into_body();
    // Each chunk comes back before the next one is sent, so nothing waits for the end.
    for chunk in ["one", "two", "three"] {
        sender.send(chunk.into()).await.unwrap();
        let frame = echoed.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    drop(sender);
    let rest = echoed.collect().await.unwrap();
    assert!(rest.to_bytes().is_empty());

    // Far more than any window: back-pressure has to let it through, whole.
    let big = Bytes::from(vec![7; 8 << 20]);
    let request = Request::post("http://guest/echo")
        .body(Body::full(big.clone()))
        .unwrap();
    let response = probe.call(request).await.unwrap();
    assert_eq!(
        response.into_body().collect().await.unwrap().to_bytes(),
        big
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_have_their_reasons_and_limits_hold() {
    let place = Place::start().await;
    let limits = Limits {
        memory_bytes: 64 << 20,
        request_timeout: Duration::from_secs(2),
        ..Limits::default()
    };
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = told.clone();
    let mut setup = place.setup();
    setup.config.limits = limits;
    setup.events = Some(EventSink::of_broken_off(move |fault| {
        heard.lock().unwrap().push(fault);
    }));
    let probe = place.guest("probe", setup).await;
    match probe.call(get("http://guest/panic")).await {
        Err(error) if error.kind == FailureKind::Trap => {
            assert!(error.message.contains("unreachable"), "{error}");
            let backtrace = error.detail.unwrap_or_default();
            assert!(backtrace.lines().count() > 2, "{backtrace}");
        }
        other => panic!("{other:?}"),
    }
    // What it printed was here before its error was.
    let printed = place.printed.lock().unwrap().clone();
    assert!(printed.contains("asked to panic"), "{printed}");
    assert_eq!(
        probe
            .call(get("http://guest/eat?mb=512"))
            .await
            .unwrap_err(),
        Failure::new(
            FailureKind::OutOfMemory,
            "the guest ran out of memory: its limit is 67108864 bytes"
        )
    );
    assert_eq!(
        probe.call(get("http://guest/loop")).await.unwrap_err(),
        FailureKind::Deadline.into()
    );
    assert_eq!(say(&probe, "http://guest/hello").await, "200 hello\n");
    // One that traps in the middle of its answer: no call returns it, so it is told.
    let response = probe.call(get("http://guest/truncate")).await.unwrap();
    assert!(response.into_body().collect().await.is_err());
    eventually(|| !told.lock().unwrap().is_empty()).await;
    match &told.lock().unwrap()[..] {
        [
            Failure {
                kind: FailureKind::Trap,
                detail: Some(backtrace),
                ..
            },
        ] => assert!(backtrace.lines().count() > 2),
        other => panic!("{other:?}"),
    }
    eventually(|| probe.usage().requests == 5).await;
    let usage = probe.usage();
    assert_eq!(
        (usage.traps, usage.out_of_memory, usage.deadlines),
        (2, 1, 1)
    );
    // What it computes is counted, however little of a processor it gets beside others for each of them.
    for _ in 0..30 {
        if probe.usage().cpu_nanos > 1_000_000_000 {
            break;
        }
        let error = probe.call(get("http://guest/loop")).await.unwrap_err();
        assert_eq!(error.kind, FailureKind::Deadline);
    }
    let counted = probe.usage().cpu_nanos;
    assert!(counted > 1_000_000_000, "it span for seconds: {counted}");

    let mut setup = place.setup();
    setup.config.limits.memory_bytes = 1;
    let refused = place.build(guest::bytes("probe"), setup).await.unwrap_err();
    assert!(matches!(refused, WorkerError::Workload(_)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_ends_its_call() {
    let place = Place::start().await;
    let limits = Limits {
        in_flight_max: 1,
        queued_max: 1,
        request_timeout: Duration::from_secs(600),
        ..Limits::default()
    };
    let mut setup = place.setup();
    setup.config.limits = limits;
    let probe = place.guest("probe", setup).await;
    let spinning = tokio::spawn({
        let probe = probe.clone();
        async move { probe.call(get("http://guest/loop")).await.map(drop) }
    });
    eventually(|| probe.usage().in_flight == 1).await;
    spinning.abort();
    // Its place is free again, long before its deadline.
    assert_eq!(say(&probe, "http://guest/hello").await, "200 hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn outbound_requests_leave_through_this_process_with_their_context() {
    let place = Place::start().await;
    let seen: Arc<Mutex<Vec<CallContext>>> = Arc::default();
    let noted = seen.clone();
    let outbound = tower::service_fn(move |mut request: Request<Body>| {
        let context = request.extensions_mut().remove::<CallContext>();
        noted.lock().unwrap().push(context.unwrap());
        async move {
            match request.uri().host() {
                Some("friend") => Ok(Response::new(Body::full("hi from afar"))),
                Some("broken") => {
                    let frames = [
                        Ok(Frame::data(Bytes::from("half"))),
                        Err::<_, BoxError>(Failure::from(FailureKind::Deadline).into()),
                    ];
                    let body = Body::new(StreamBody::new(futures::stream::iter(frames)));
                    Ok(Response::new(body))
                }
                _ => Err(FailureKind::Denied.into()),
            }
        }
    });
    let setup = Setup {
        outbound: Some(Outbound::new(outbound)),
        ..place.setup()
    };
    let probe = place.guest("probe", setup).await;
    let call = |url: &str| {
        let mut request = get(&format!("http://guest/call?url={url}"));
        request.extensions_mut().insert(CallContext {
            depth: 7,
            ..CallContext::default()
        });
        let probe = probe.clone();
        async move { text(probe.call(request).await.unwrap()).await }
    };
    assert!(call("http://friend/").await.ends_with("hi from afar"));
    assert!(
        call("http://stranger/")
            .await
            .contains("HTTP-request-denied")
    );
    let broken = call("http://broken/").await;
    assert!(broken.contains("HTTP-response-timeout"), "{broken}");
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    for context in seen.iter() {
        assert_eq!(context.depth, 7);
        assert!(context.deadline.is_some(), "no request outlives its call");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_to_their_end_or_are_stopped() {
    let place = Place::start().await;
    let run = async |body: &str| {
        let workload = place.build(run_of(body), place.setup()).await.unwrap();
        workload.run().await
    };
    assert_eq!(run("i32.const 0").await, Exit::Success);
    assert_eq!(run("i32.const 1").await, Exit::Failed(1));
    assert!(matches!(run("unreachable").await, Exit::Trap { .. }));
    let forever = run_of("(loop $l (br $l)) i32.const 0");
    let workload = place.build(forever, place.setup()).await.unwrap();
    let running = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run().await }
    });
    eventually(|| workload.usage().instances == 1).await;
    workload.stop(Duration::ZERO).await;
    assert_eq!(running.await.unwrap(), Exit::Stopped);
    // One that waits for the end of its input hears of the stop, and has the grace for what it does then.
    let mut setup = place.setup();
    setup.config.stdin = Stdin::EndsAtStop;
    setup.config.args = vec!["guest".into(), "cli/stdin".into()];
    let workload = place.guest("behaviours", setup).await;
    let running = tokio::spawn({
        let workload = workload.clone();
        async move { workload.run().await }
    });
    eventually(|| workload.usage().instances == 1).await;
    workload.stop(Duration::from_secs(60)).await;
    assert_eq!(running.await.unwrap(), Exit::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_takes_its_own_calls_along_and_no_others() {
    let place = Place::start().await;
    let other = worker(&place.cores).await;
    let artifact = place.engine.load(guest::bytes("probe")).await.unwrap();
    let neighbour = other
        .build(&place.engine, &artifact, place.setup())
        .await
        .unwrap();
    let probe = place.guest("probe", place.setup()).await;
    let waiting = tokio::spawn({
        let probe = probe.clone();
        async move {
            probe
                .call(get("http://guest/delay?ms=20000"))
                .await
                .map(drop)
        }
    });
    let command = run_of("(loop $l (br $l)) i32.const 0");
    let command = place.build(command, place.setup()).await.unwrap();
    let running = tokio::spawn(async move { command.run().await });
    eventually(|| probe.usage().in_flight == 1).await;

    let pid = Pid::from_raw(place.worker.pid().try_into().unwrap());
    kill(pid, Signal::SIGKILL).unwrap();
    let reason = "was ended by SIGKILL".to_owned();
    let lost = || {
        Failure::new(
            FailureKind::Lost,
            "the guest's worker process was ended by SIGKILL",
        )
    };
    assert_eq!(
        waiting.await.unwrap().unwrap_err(),
        lost().with_processed(Processed::Maybe)
    );
    assert_eq!(
        running.await.unwrap(),
        Exit::Lost {
            reason: reason.clone()
        }
    );
    assert_eq!(
        probe.call(get("http://guest/hello")).await.unwrap_err(),
        lost()
            .with_processed(Processed::No)
            .with_blame(Blame::Connection)
    );
    let ended = place.worker.ended().borrow().clone();
    assert!(
        matches!(&ended, Some(Ended::Died { reason: said, .. }) if *said == reason),
        "{ended:?}"
    );
    assert_eq!(say(&neighbour, "http://guest/hello").await, "200 hello\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_ends_with_its_last_workload() {
    let place = Place::start().await;
    let probe = place.guest("probe", place.setup()).await;
    let Place { worker, cores, .. } = place;
    let mut ended = worker.ended();
    drop(worker);
    assert_eq!(say(&probe, "http://guest/hello").await, "200 hello\n");
    drop(probe);
    let ended = ended.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(ended, Some(Ended::NotNeeded));
    drop(cores);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooled_instance_serves_many_calls() {
    let place = Place::start().await;
    let mut setup = place.setup();
    setup.config.policy = Some(InstancePolicy::Pooled {
        max_requests: 100,
        max_concurrent: 1,
        idle: Duration::from_secs(60),
    });
    let probe = place.guest("probe", setup).await;
    let there = place.cores.spawn_on(0, {
        let probe = probe.clone();
        async move {
            for _ in 0..20 {
                assert_eq!(say(&probe, "http://guest/hello").await, "200 hello\n");
            }
        }
    });
    there.await.unwrap();
    eventually(|| probe.usage().requests == 20).await;
    assert_eq!(probe.usage().instances_started, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_holds_nothing_it_could_misuse() {
    let place = Place::start().await;
    let pid = place.worker.pid();
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    let status = read("status");
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        assert!(status.contains(line), "{status}");
    }
    // Every thread of it.
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    let environment = read("environ").replace('\0', "\n");
    assert_eq!(environment, "RUST_LIB_BACKTRACE=0\n");
    let limits = read("limits");
    for (name, value) in [("Max core file size", "0"), ("Max file size", "268435456")] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        assert_eq!(line[name.len()..].split_whitespace().next(), Some(value));
    }
    let limited = limits
        .lines()
        .any(|line| line.starts_with("Max address space") && !line.contains("unlimited"));
    assert!(limited, "{limits}");
    // Sockets, wake-ups, its own page map: no file of this machine.
    for file in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let target = std::fs::read_link(file.unwrap().path()).unwrap();
        let target = target.display().to_string();
        let known = ["socket:", "pipe:", "anon_inode:", "/memfd:", "/dev/null"];
        assert!(
            known.iter().any(|known| target.starts_with(known)) || target.ends_with("/pagemap"),
            "{target}"
        );
    }
}

#[test]
fn what_a_worker_must_not_do_is_refused_or_ends_it() {
    let run = |name: &str| {
        let output = Command::new(example::path("worker"))
            .args(["self-test", name])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        match output.status.signal() {
            Some(31) => "ended by SIGSYS".to_owned(),
            Some(signal) => format!("signal {signal}"),
            None => said,
        }
    };
    let list = Command::new(example::path("worker"))
        .arg("self-test")
        .output()
        .unwrap();
    let list = String::from_utf8(list.stdout).unwrap();
    let table: Vec<String> = list
        .lines()
        .map(|name| format!("{name}: {}", run(name)))
        .collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    thread: allowed
    batch-scheduling: allowed
    real-time-scheduling: refused: Operation not permitted (os error 1)
    memory: allowed
    read-file: refused: Operation not permitted (os error 1)
    write-file: refused: Operation not permitted (os error 1)
    list-folder: refused: Operation not permitted (os error 1)
    make-folder: refused: Operation not permitted (os error 1)
    remove-file: refused: Operation not permitted (os error 1)
    change-folder: refused: Operation not permitted (os error 1)
    signal: refused: Operation not permitted (os error 1)
    change-user: refused: Operation not permitted (os error 1)
    raise-limit: refused: Operation not permitted (os error 1)
    udp: ended by SIGSYS
    tcp: ended by SIGSYS
    unix-socket: ended by SIGSYS
    program: ended by SIGSYS
    ");
}
