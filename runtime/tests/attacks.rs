//! Components that wish their host ill. The numbers are those of the list of attacks that the whole project answers
//! (`docs/attacks.md`): what is asked of the engine and of WASI is here, what needs a cluster in `tests/e2e/attacks.rs`.

mod example;
mod guest;

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use weft_runtime::{
    Artifact, Body, Engine, Exit, Failure, FailureKind, InstancePolicy, Limits, LogSink, Outbound,
    Workload, WorkloadBuilder,
};

/// A command of the core modules and instances in `modules`, of which `$i` exports `run`.
fn component(modules: &str) -> Vec<u8> {
    let text = format!(
        r#"(component {modules}
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    wat::parse_str(text).unwrap()
}

/// One module with `contents` beside a `run` that does nothing.
fn module(contents: &str) -> Vec<u8> {
    component(&format!(
        r#"(core module $m {contents} (func (export "run") (result i32) i32.const 0))
           (core instance $i (instantiate $m))"#
    ))
}

/// One module with `contents` and a `run` of its own.
fn running(contents: &str, run: &str) -> Vec<u8> {
    component(&format!(
        r#"(core module $m {contents} (func (export "run") (result i32) {run}))
           (core instance $i (instantiate $m))"#
    ))
}

/// Where an outbound request stays for ever, but for `/` of `next` where `answered`.
fn next(answered: bool) -> Outbound {
    Outbound::new(tower::service_fn(move |_: Request<Body>| async move {
        if !answered {
            std::future::pending::<()>().await;
        }
        Ok::<_, Failure>(http::Response::new(Body::empty()))
    }))
}

async fn say(workload: &Workload, path: &str) -> String {
    let request = Request::builder().uri(path).body(Body::empty()).unwrap();
    match workload.call(request).await {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.into_body().collect().await {
                Ok(body) => {
                    let bytes = body.to_bytes();
                    format!("{status} {}", String::from_utf8_lossy(&bytes))
                }
                Err(error) => format!("{status}, broken: {error}"),
            }
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

/// Another tenant of the same engine and thread, who is called all the while and must always be answered.
struct Neighbour {
    over: Arc<AtomicBool>,
    calls: tokio::task::JoinHandle<u64>,
}

impl Neighbour {
    async fn start(engine: &Engine) -> Neighbour {
        let artifact = engine.load(guest::bytes("hello")).await.unwrap();
        let workload = Workload::builder(engine, &artifact).build().unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let calls = tokio::spawn({
            let over = over.clone();
            async move {
                let mut calls = 0;
                while !over.load(Relaxed) || calls == 0 {
                    assert_eq!(say(&workload, "/").await, "200 hello\n");
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            }
        });
        Neighbour { over, calls }
    }

    async fn was_answered(self) {
        self.over.store(true, Relaxed);
        assert!(self.calls.await.unwrap() > 0);
    }
}

fn shown(exit: Exit) -> String {
    match exit {
        Exit::Trap { message, .. } => format!("trapped: {message}"),
        exit => format!("{exit:?}"),
    }
}

/// Loads and runs, within half a megabyte and a tenth of a second.
async fn outcome(engine: &Engine, bytes: Vec<u8>) -> String {
    let artifact = match engine.load(bytes).await {
        Err(error) => {
            assert!(error.is_permanent(), "{error}");
            return error.to_string();
        }
        Ok(artifact) => artifact,
    };
    let limits = Limits {
        memory_bytes: 512 << 10,
        run_timeout: Some(Duration::from_millis(100)),
        ..Limits::default()
    };
    let workload = Workload::builder(engine, &artifact).limits(limits).build();
    match workload {
        Err(error) => error.to_string(),
        Ok(workload) => {
            let exit = workload.run().await;
            let usage = workload.usage();
            assert_eq!((usage.instances, usage.memory_bytes), (0, 0));
            shown(exit)
        }
    }
}

#[tokio::test]
async fn attacks_01_to_21_of_components_on_the_engine() {
    let engine = Engine::builder().instances_max(8).build().unwrap();
    let neighbour = Neighbour::start(&engine).await;
    let instances: String = (0..80)
        .map(|_| "(core instance (instantiate $m))")
        .collect();
    let many = format!(
        r#"(core module $m (func (export "run") (result i32) i32.const 0)) {instances}
           (core instance $i (instantiate $m))"#
    );
    // Each of eight instances of a component makes a thousand handles of a resource of its own.
    let handles = r#"
        (component $c
          (type $r (resource (rep i32)))
          (core func $new (canon resource.new $r))
          (core module $m
            (import "" "new" (func $new (param i32) (result i32)))
            (func (export "go") (local $n i32)
              (loop (drop (call $new (i32.const 1)))
                (br_if 0 (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))))
          (core instance $i (instantiate $m (with "" (instance (export "new" (func $new))))))
          (func (export "go") (canon lift (core func $i "go"))))"#;
    let each = |text: &dyn Fn(u32) -> String| (0..8).map(text).collect::<String>();
    let nested = format!(
        r#"(component {handles} {}
        (component $user {} {}
          (core module $m {} (func (export "run") (result i32) {} i32.const 0))
          (core instance $i (instantiate $m (with "" (instance {}))))
          (func (export "run") (result (result)) (canon lift (core func $i "run"))))
        (instance $u (instantiate $user {}))
        (instance $c (export "run" (func $u "run")))
        (export "wasi:cli/run@0.2.0" (instance $c)))"#,
        each(&|n| format!("(instance $n{n} (instantiate $c))")),
        each(&|n| format!("(import \"go{n}\" (func $go{n}))")),
        each(&|n| format!("(core func $low{n} (canon lower (func $go{n})))")),
        each(&|n| format!("(import \"\" \"go{n}\" (func $go{n}))")),
        each(&|n| format!("(call $go{n})")),
        each(&|n| format!("(export \"go{n}\" (func $low{n}))")),
        each(&|n| format!("(with \"go{n}\" (func $n{n} \"go\"))")),
    );
    let nothing = "i32.const 0";
    let cases = [
        ("01 a loop", running("", "(loop (br 0)) i32.const 0")),
        (
            "02 a start that never ends",
            module("(func $s (loop (br 0))) (start $s)"),
        ),
        (
            "02 a start that traps",
            module("(func $s unreachable) (start $s)"),
        ),
        (
            "02 a start that recurses",
            module("(func $s (call $s)) (start $s)"),
        ),
        (
            "03 memory.grow to the end",
            running(
                "(memory 1)",
                "(loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) (i32.ne (memory.size) (i32.const 8))",
            ),
        ),
        ("04 4 GiB of memory", module("(memory 65536)")),
        (
            "05 a table of a billion",
            module("(table 1000000000 funcref)"),
        ),
        (
            "05 a table beyond the pool's",
            module("(table 200000 funcref)"),
        ),
        ("05 a table over the limit", module("(table 90000 funcref)")),
        ("06 a hundred memories", module(&"(memory 1)".repeat(100))),
        (
            "06 a thousand tables",
            module(&"(table 1 funcref)".repeat(1000)),
        ),
        ("06 eighty instances", component(&many)),
        (
            "06 a thousand parameters",
            module(&format!("(func (param {}))", "i32 ".repeat(1001))),
        ),
        (
            "07 recursion without end",
            running("(func $f (call $f))", "(call $f) i32.const 0"),
        ),
        ("11 a core module", wat::parse_str("(module)").unwrap()),
        (
            "12 an import that nobody granted",
            component(
                r#"(import "evil:capability/everything" (instance (export "take" (func))))
                (core module $m (func (export "run") (result i32) i32.const 0)) (core instance $i (instantiate $m))"#,
            ),
        ),
        ("16 threads", module("(memory 1 1 shared)")),
        ("16 a 64 bit memory", module("(memory i64 1)")),
        (
            "16 garbage collection",
            module("(type $s (struct (field i32)))"),
        ),
        ("16 exceptions", module("(tag $t)")),
        (
            "16 tail calls",
            running(
                "(func $f)",
                "(return_call $g)) (func $g (result i32) i32.const 0",
            ),
        ),
        (
            "17 memory.copy without end",
            running(
                "(memory 8)",
                "(loop (memory.copy (i32.const 0) (i32.const 1) (i32.const 524287)) (br 0)) i32.const 0",
            ),
        ),
        (
            "17 memory.fill and table.fill without end",
            running(
                "(memory 7) (table 1000 funcref)",
                "(loop (memory.fill (i32.const 0) (i32.const 1) (i32.const 458752)) (table.fill (i32.const 0) (ref.null func) (i32.const 1000)) (br 0)) i32.const 0",
            ),
        ),
        (
            "20 handles of nested instances",
            wat::parse_str(&nested).unwrap(),
        ),
        (
            "21 an allocation that fails",
            running(
                "(memory 1)",
                "(if (i32.eq (memory.grow (i32.const 65535)) (i32.const -1)) (then unreachable)) i32.const 0",
            ),
        ),
        (
            "-- a modest one",
            running("(memory 1) (table 10 funcref)", nothing),
        ),
    ];
    let mut transcript = String::new();
    for (what, bytes) in cases {
        let outcome = outcome(&engine, bytes).await;
        writeln!(transcript, "{what}: {outcome}").unwrap();
    }
    neighbour.was_answered().await;
    insta::assert_snapshot!(transcript, @r"
    01 a loop: Deadline
    02 a start that never ends: Deadline
    02 a start that traps: trapped: wasm trap: wasm `unreachable` instruction executed
    02 a start that recurses: trapped: wasm trap: call stack exhausted
    03 memory.grow to the end: Success
    04 4 GiB of memory: the component starts with 4294967296 bytes of memory, and the limit is 524288
    05 a table of a billion: the component does not fit this host: module table does not fit in pooling allocator requirements: table index 0 has a minimum element size of 1000000000 which exceeds the limit of 100000
    05 a table beyond the pool's: the component does not fit this host: module table does not fit in pooling allocator requirements: table index 0 has a minimum element size of 200000 which exceeds the limit of 100000
    05 a table over the limit: OutOfMemory { limit_bytes: 524288 }
    06 a hundred memories: the component does not fit this host: module memory does not fit in pooling allocator requirements: defined memories count of 100 exceeds the per-instance limit of 4
    06 a thousand tables: the component is not valid: failed to parse WebAssembly module: tables count exceeds limit of 100 (at offset 0x21)
    06 eighty instances: the component does not fit this host: The component transitively contains 81 core module instances, which exceeds the configured maximum of 64 in the pooling allocator
    06 a thousand parameters: the component is not valid: failed to parse WebAssembly module: function params size is out of bounds (at offset 0x18)
    07 recursion without end: trapped: wasm trap: call stack exhausted
    11 a core module: this is a core WebAssembly module, not a component; build it for wasm32-wasip2, or wrap it with `wasm-tools component new`
    12 an import that nobody granted: the component imports evil:capability/everything, which this host does not offer; it offers wasi:cli, wasi:clocks, wasi:config, wasi:filesystem, wasi:http, wasi:io, wasi:keyvalue, wasi:random, wasi:sockets, weft:files, weft:mesh, weft:terminal
    16 threads: the component is not valid: failed to parse WebAssembly module: threads must be enabled for shared memories (at offset 0x20)
    16 a 64 bit memory: the component is not valid: failed to parse WebAssembly module: memory64 must be enabled for 64-bit memories (at offset 0x20)
    16 garbage collection: the component is not valid: failed to parse WebAssembly module: struct indexed types not supported without the gc feature (at offset 0x15)
    16 exceptions: the component is not valid: failed to parse WebAssembly module: exceptions proposal not enabled (at offset 0x22)
    16 tail calls: Success
    17 memory.copy without end: Deadline
    17 memory.fill and table.fill without end: Deadline
    20 handles of nested instances: trapped: cannot allocate another handle: store handle limit exceeded
    21 an allocation that fails: OutOfMemory { limit_bytes: 524288 }
    -- a modest one: Success
    ");
}

/// The compiler runs in a child in these, as on a node.
fn compiling() -> Engine {
    let command = weft_runtime::CompilerCommand {
        program: example::path("compiler"),
        args: Vec::new(),
    };
    Engine::builder()
        .instances_max(4)
        .compiler(command)
        .build()
        .unwrap()
}

#[tokio::test]
async fn attacks_08_and_09_on_the_compiler() {
    let engine = compiling();
    let neighbour = Neighbour::start(&engine).await;
    // A binary of `depth` components inside each other: each is the only section of the one around it.
    let nested = |depth: usize| {
        let header = b"\0asm\x0d\0\x01\0";
        let mut inner = header.to_vec();
        for _ in 0..depth {
            let mut outer = header.to_vec();
            outer.push(4);
            let mut length = inner.len();
            loop {
                let byte = (length & 0x7f) as u8;
                length >>= 7;
                outer.push(if length == 0 { byte } else { byte | 0x80 });
                if length == 0 {
                    break;
                }
            }
            outer.extend(inner);
            inner = outer;
        }
        inner
    };
    let types: String = (1..10_000)
        .map(|n| format!("(type (list {}))", n - 1))
        .collect();
    let functions =
        "(func (param i32) (result i32) local.get 0 i32.const 1 i32.add)".repeat(100_000);
    let body = "local.get 0 i32.const 3 i32.mul local.set 0 ".repeat(150_000);
    let cases = [
        ("08 components inside each other", nested(2_000)),
        (
            "08 ten thousand types inside each other",
            component(&format!(
                "(type u8) {types} (core module $m (func (export \"run\") (result i32) i32.const 0)) (core instance $i (instantiate $m))"
            )),
        ),
        ("08 more bytes than are read", vec![0; (64 << 20) + 1]),
        ("09 a hundred thousand functions", module(&functions)),
        (
            "09 a function of a megabyte",
            module(&format!("(func (local i32) {body})")),
        ),
    ];
    let mut transcript = String::new();
    for (what, bytes) in cases {
        let outcome = outcome(&engine, bytes).await;
        writeln!(transcript, "{what}: {outcome}").unwrap();
    }
    neighbour.was_answered().await;
    insta::assert_snapshot!(transcript, @r"
    08 components inside each other: the component exports neither wasi:http/incoming-handler@0.2, wasi:http/handler@0.3 nor wasi:cli/run
    08 ten thousand types inside each other: the component is not valid: failed to parse WebAssembly module: type nesting is too deep (at offset 0xf8)
    08 more bytes than are read: the component has 67108865 bytes, and 67108864 is the most accepted
    09 a hundred thousand functions: Success
    09 a function of a megabyte: Success
    ");
}

/// Truncated at any place, with any bit changed, and bytes that are nothing: a sentence, or a component that runs.
#[tokio::test]
async fn attack_10_bytes_that_are_no_component() {
    let engine = Engine::builder().instances_max(4).build().unwrap();
    let whole = running("(memory 1) (table 10 funcref)", "i32.const 0");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut refused = 0;
    for round in 0..600 {
        let mut bytes = whole.clone();
        let at = random() as usize % bytes.len();
        match round % 3 {
            0 => bytes.truncate(at),
            1 => bytes[at] ^= 1 << (random() % 8),
            _ => bytes[8..].fill_with(|| random() as u8),
        }
        match engine.load(bytes).await {
            Ok(artifact) => {
                let limits = Limits {
                    run_timeout: Some(Duration::from_millis(50)),
                    memory_bytes: 1 << 20,
                    ..Limits::default()
                };
                let workload = Workload::builder(&engine, &artifact).limits(limits).build();
                if let Ok(workload) = workload {
                    let _ = workload.run().await;
                }
            }
            Err(error) => {
                assert!(error.is_permanent(), "round {round}: {error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 500, "{refused}");
    assert_eq!(outcome(&engine, whole).await, "Success");
}

struct Attacked {
    engine: Engine,
    artifact: Artifact,
    printed: Arc<Mutex<Vec<u8>>>,
}

impl Attacked {
    async fn new() -> Attacked {
        let engine = Engine::builder().instances_max(64).build().unwrap();
        let artifact = engine.load(guest::bytes("attacker")).await.unwrap();
        let printed = Arc::default();
        Attacked {
            engine,
            artifact,
            printed,
        }
    }

    fn builder(&self) -> WorkloadBuilder {
        let printed = self.printed.clone();
        Workload::builder(&self.engine, &self.artifact)
            .limits(Limits {
                memory_bytes: 300 << 20,
                // Only keeps a failing test from hanging.
                request_timeout: Duration::from_secs(60),
                body_idle_timeout: Duration::from_millis(200),
                background_timeout: Duration::from_millis(100),
                ..Limits::default()
            })
            .stdout(LogSink::new(move |bytes| {
                let mut printed = printed.lock().unwrap();
                let room = 256_usize.saturating_sub(printed.len());
                printed.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }))
            .outbound(next(true))
    }

    fn workload(&self) -> Workload {
        self.builder().build().unwrap()
    }
}

#[tokio::test]
async fn attacks_18_to_40_through_wasi() {
    let attacked = Attacked::new().await;
    let neighbour = Neighbour::start(&attacked.engine).await;
    let workload = attacked.workload();
    let mut transcript = String::new();
    for (what, path) in [
        ("19 ten thousand resources", "/19"),
        ("21 an allocation that fails", "/21"),
        ("22 text that is not UTF-8", "/22"),
        ("23 a hundred thousand header fields", "/23"),
        ("24 a header of a megabyte", "/24"),
        ("25 three content-lengths", "/25"),
        ("26 headers that belong to the connection", "/26"),
        (
            "27 line breaks in names, values, paths and authorities",
            "/27",
        ),
        ("29 a body that is never ended", "/29"),
        ("30 an answer given twice", "/30?twice"),
        ("30 no answer", "/30?never"),
        ("31 no time and all the time", "/31"),
        ("34 a terabyte of randomness", "/34"),
        ("35 128 MB of lists in lists", "/35"),
        ("36 64 MiB of log", "/36"),
        ("38 a million pollables", "/38"),
        ("40 what others keep", "/40"),
    ] {
        writeln!(transcript, "{what}: {}", say(&workload, path).await).unwrap();
    }
    neighbour.was_answered().await;
    let printed = String::from_utf8_lossy(&attacked.printed.lock().unwrap()).into_owned();
    transcript += printed.lines().next().unwrap();
    eventually(|| workload.usage().instances == 0 && workload.usage().memory_bytes == 0).await;
    insta::assert_snapshot!(transcript, @r"
    19 ten thousand resources: 502 the guest trapped: resource table has no free keys
    21 an allocation that fails: 502 the guest ran out of memory: its limit is 314572800 bytes
    22 text that is not UTF-8: 502 the guest trapped: invalid utf-8 sequence of 1 bytes from index 1
    23 a hundred thousand header fields: 502 the guest trapped: total size of fields exceeds limit
    24 a header of a megabyte: 502 the guest trapped: total size of fields exceeds limit
    25 three content-lengths: 200, broken: HTTP protocol error
    26 headers that belong to the connection: 200 accepted []
    27 line breaks in names, values, paths and authorities: 200 refused [true, true, true, true, true, true]
    29 a body that is never ended: 200, broken: the call took longer than it may
    30 an answer given twice: 200, broken: the guest trapped: unknown handle index 2
    30 no answer: 502 the guest returned without a response
    31 no time and all the time: 200 zero: true 200, huge: true 200
    34 a terabyte of randomness: 502 the guest trapped: requested len 1099511627776 exceeds limit 1048576
    35 128 MB of lists in lists: 502 the guest trapped: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted
    36 64 MiB of log: 200 64 MiB
    38 a million pollables: 502 the guest trapped: resource table has no free keys
    40 what others keep: 200 [] Err(NotPresent)
    [true, false, false] body true
    ");
}

#[tokio::test]
async fn attack_01_a_loop_in_a_handler_ends_at_its_deadline() {
    let attacked = Attacked::new().await;
    let neighbour = Neighbour::start(&attacked.engine).await;
    let limits = Limits {
        request_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let workload = attacked.builder().limits(limits).build().unwrap();
    let loops: Vec<_> = (0..8).map(|_| say(&workload, "/1")).collect();
    for said in futures::future::join_all(loops).await {
        assert_eq!(said, "504 the call took longer than it may");
    }
    neighbour.was_answered().await;
    eventually(|| workload.usage().instances == 0).await;
}

#[tokio::test]
async fn attack_18_an_instance_that_trapped_is_never_used_again() {
    let attacked = Attacked::new().await;
    let workload = attacked
        .builder()
        .instance_policy(InstancePolicy::Pooled {
            max_requests: 1_000,
            max_concurrent: 4,
            idle: Duration::from_secs(60),
        })
        .build()
        .unwrap();
    assert_eq!(say(&workload, "/18").await, "200 0 calls before");
    assert_eq!(say(&workload, "/18").await, "200 1 calls before");
    let said = say(&workload, "/18?trap").await;
    assert!(said.starts_with("502 the guest trapped"), "{said}");
    assert_eq!(say(&workload, "/18").await, "200 0 calls before");
    assert_eq!(workload.usage().instances_started, 2);
}

/// Nobody is there any more: the guest ends, and until then nothing piles up in the host.
#[tokio::test]
async fn attack_28_a_body_without_end_ends_with_its_caller() {
    let attacked = Attacked::new().await;
    let workload = attacked.workload();
    let request = Request::builder().uri("/28").body(Body::empty()).unwrap();
    let mut body = workload.call(request).await.unwrap().into_body();
    let mut read = 0;
    while read < 1 << 20 {
        let frame = body.frame().await.unwrap().unwrap();
        read += frame.into_data().unwrap().len();
    }
    assert_eq!(workload.usage().instances, 1);
    drop(body);
    eventually(|| workload.usage().instances == 0).await;
}

/// A caller that takes all there is gets no more than the limit, and is told so.
#[tokio::test]
async fn attack_28_a_body_without_end_is_cut_at_its_limit() {
    let attacked = Attacked::new().await;
    let limit_bytes = 1 << 20;
    let sharing = InstancePolicy::Pooled {
        max_requests: 100,
        max_concurrent: 4,
        idle: Duration::from_secs(60),
    };
    for policy in [InstancePolicy::PerRequest, sharing] {
        let limits = Limits {
            body_bytes: limit_bytes,
            ..Limits::default()
        };
        let workload = attacked.builder().limits(limits).instance_policy(policy);
        let workload = workload.build().unwrap();
        let request = Request::builder().uri("/28").body(Body::empty()).unwrap();
        let mut body = workload.call(request).await.unwrap().into_body();
        let mut read = 0;
        let error = loop {
            match body.frame().await.expect("the end is no good one") {
                Ok(frame) => read += frame.into_data().unwrap().len() as u64,
                Err(error) => break error,
            }
        };
        assert!((1..=limit_bytes).contains(&read), "{read}");
        assert_eq!(
            error.downcast::<Failure>().unwrap().kind,
            FailureKind::BodyTooLarge
        );
        eventually(|| workload.usage().instances == 0).await;
        assert_eq!(workload.usage().in_flight, 0);
    }
}

/// A caller that stays and does not read held the guest, and one of its places, for ever.
#[tokio::test]
async fn attack_33_a_body_that_nobody_reads_is_given_up() {
    let attacked = Attacked::new().await;
    let sharing = InstancePolicy::Pooled {
        max_requests: 100,
        max_concurrent: 4,
        idle: Duration::from_secs(60),
    };
    for policy in [InstancePolicy::PerRequest, sharing] {
        let workload = attacked.builder().instance_policy(policy).build().unwrap();
        let request = Request::builder().uri("/28").body(Body::empty()).unwrap();
        let mut body = workload.call(request).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        eventually(|| workload.usage().instances == 0).await;
        let error = loop {
            match body.frame().await.expect("the end is no good one") {
                Ok(frame) => assert!(frame.is_data()),
                Err(error) => break error,
            }
        };
        assert_eq!(
            error.downcast::<Failure>().unwrap().kind,
            FailureKind::Deadline
        );
        assert_eq!(workload.usage().in_flight, 0);
    }
}

#[tokio::test]
async fn attack_32_ten_thousand_requests_at_once_meet_a_limit() {
    let attacked = Attacked::new().await;
    let workload = attacked.builder().outbound(next(false)).build().unwrap();
    let said = say(&workload, "/32").await;
    assert!(
        said.starts_with("200 ") && said.ends_with("refused: ErrorCode::ConnectionLimitReached"),
        "{said}"
    );
    assert_eq!(workload.usage().outbound_requests, 256);
    eventually(|| workload.usage().instances == 0).await;
}

/// A thousand bodies that are written to and never sent were half a gigabyte of the host's; a thousand sets of fields or long
/// methods as much as anybody liked.
#[tokio::test]
async fn attack_117_what_a_guest_has_the_host_hold_is_its_own_memory() {
    let attacked = Attacked::new().await;
    let neighbour = Neighbour::start(&attacked.engine).await;
    let memory_bytes = 32 << 20;
    let limits = Limits {
        memory_bytes,
        ..Limits::default()
    };
    let workload = attacked.builder().limits(limits).build().unwrap();
    for path in ["/bodies", "/fields", "/clones", "/methods"] {
        assert_eq!(
            say(&workload, path).await,
            "502 the guest ran out of memory: its limit is 33554432 bytes",
            "{path}"
        );
        assert!(workload.usage().memory_peak_bytes <= memory_bytes);
        eventually(|| workload.usage().memory_bytes == 0).await;
    }
    assert_eq!(workload.usage().out_of_memory, 4);
    // Where there is memory for them, a thousand small ones are no attack, and are counted.
    let roomy = attacked.workload();
    assert_eq!(say(&roomy, "/bodies?16384").await, "200 1000 requests");
    let peak = roomy.usage().memory_peak_bytes;
    assert!(peak > 1_000 * 16_384, "{peak}");
    eventually(|| roomy.usage().memory_bytes == 0).await;
    neighbour.was_answered().await;
}

#[tokio::test]
async fn attack_39_sleep_without_end_is_woken_by_the_deadline() {
    let attacked = Attacked::new().await;
    let limits = Limits {
        request_timeout: Duration::from_millis(100),
        ..Limits::default()
    };
    let workload = attacked.builder().limits(limits).build().unwrap();
    let request = Request::builder().uri("/39").body(Body::empty()).unwrap();
    let error = workload.call(request).await.unwrap_err();
    assert_eq!(error.kind, FailureKind::Deadline);
    eventually(|| workload.usage().instances == 0).await;
}

/// One slot, two tenants in turn: one leaves a pattern in all of its memory and table, the other looks for anything that is
/// not zero or null. Two megabytes are more than a slot keeps resident.
#[tokio::test]
async fn attack_101_ten_thousand_uses_of_a_slot_leak_nothing() {
    let engine = Engine::builder().instances_max(1).build().unwrap();
    let writer = running(
        "(memory 1) (table 1000 funcref) (func $secret) (elem declare func $secret)",
        r"(drop (memory.grow (i32.const 31)))
          (memory.fill (i32.const 0) (i32.const 0xa5) (i32.const 2097152))
          (table.fill (i32.const 0) (ref.func $secret) (i32.const 1000))
          i32.const 0",
    );
    let reader = running(
        "(memory 1) (table 1000 funcref)",
        r"(local $at i32)
          (drop (memory.grow (i32.const 31)))
          (loop (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then (return (i32.const 1))))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 2097152))))
          (local.set $at (i32.const 0))
          (loop (if (i32.eqz (ref.is_null (table.get (local.get $at)))) (then (return (i32.const 1))))
            (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 1))) (i32.const 1000))))
          i32.const 0",
    );
    let mut tenants = Vec::new();
    for bytes in [writer, reader] {
        let artifact = engine.load(bytes).await.unwrap();
        tenants.push(Workload::builder(&engine, &artifact).build().unwrap());
    }
    for round in 0..5_000 {
        for tenant in &tenants {
            assert_eq!(tenant.run().await, Exit::Success, "round {round}");
        }
    }
}

/// Ten tenants that burn all they get, one that needs a little: what it asks for, it gets.
#[tokio::test]
async fn attack_106_who_burns_everything_leaves_the_others_theirs() {
    let engine = Engine::builder().instances_max(32).build().unwrap();
    let artifact = engine
        .load(running("", "(loop (br 0)) i32.const 0"))
        .await
        .unwrap();
    let burning = |millis| {
        let limits = Limits {
            cpu_millis: Some(millis),
            ..Limits::default()
        };
        Workload::builder(&engine, &artifact)
            .limits(limits)
            .build()
            .unwrap()
    };
    let thief = burning(100);
    let honest = burning(100);
    let run = |workload: &Workload| {
        let workload = workload.clone();
        tokio::spawn(async move { workload.run().await })
    };
    let mut runs: Vec<_> = (0..10).map(|_| run(&thief)).collect();
    runs.push(run(&honest));
    eventually(|| thief.usage().cpu_nanos > 400_000_000).await;
    let (stolen, left) = (thief.usage().cpu_nanos, honest.usage().cpu_nanos);
    for workload in [&thief, &honest] {
        workload.stop(Duration::ZERO).await;
    }
    for run in runs {
        assert_eq!(run.await.unwrap(), Exit::Stopped);
    }
    // Equal quotas give equal shares, however many instances ask for one.
    assert!(left * 10 >= stolen * 9, "{left} of {stolen}");
}
