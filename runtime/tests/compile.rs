//! Compilation in a child: within limits of its own, and whatever becomes of the child, the host has a sentence for it.

mod example;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use weft_runtime::wasmtime::{self, component::Linker};
use weft_runtime::{
    ArtifactError, Calls, Capability, CompilerCommand, Engine, Exit, HostBytes, HostState, Workload,
};

fn engine(program: PathBuf, args: &[&str]) -> Engine {
    let command = CompilerCommand {
        program,
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    };
    Engine::builder()
        .instances_max(2)
        .compiler(command)
        .build()
        .unwrap()
}

/// Compiles with `limits` as the child's arguments.
fn limited(limits: &[&str]) -> Engine {
    engine(example::path("compiler"), limits)
}

/// A compiler that is a line of shell.
fn shell(script: &str) -> Engine {
    engine("/bin/sh".into(), &["-c", script])
}

/// A command whose `run` is `body`.
fn run_of(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
          (core module $m (func (export "run") (result i32) (local i32) {body}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    wat::parse_str(text).unwrap()
}

/// A component of one long function, which costs its compiler far more than its few bytes.
fn heavy(operations: usize) -> Vec<u8> {
    let operation = "local.get 0 i32.const 3 i32.mul i32.const 7 i32.xor local.set 0\n";
    run_of(&(operation.repeat(operations) + "i32.const 0"))
}

#[tokio::test]
async fn what_the_child_compiled_runs_here() {
    let engine = limited(&[]);
    let artifact = engine.load(run_of("i32.const 0")).await.unwrap();
    let workload = Workload::builder(&engine, &artifact).build().unwrap();
    assert_eq!(workload.run().await, Exit::Success);
}

/// Whoever gets the better of the compiler has a process that can do nothing.
#[test]
fn a_component_is_compiled_behind_a_seal() {
    let mut child = Command::new(example::path("compiler"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(&heavy(600_000))
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let (mut seal, mut ended) = (String::new(), None);
    while seal != "2" && ended.is_none() {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("Seccomp:"));
        line.unwrap().trim().clone_into(&mut seal);
        ended = child.try_wait().unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((seal.as_str(), ended), ("2", None));
}

#[tokio::test]
async fn a_component_that_makes_the_compiler_eat_is_stopped_and_refused_from_then_on() {
    let (small, plenty) = ("300000000", "4294967296");
    for (memory, seconds, operations, sentence) in [
        (
            small,
            "60",
            400_000,
            "compiling the component takes more memory than is allowed",
        ),
        (
            plenty,
            "1",
            600_000,
            "compiling the component takes more processor time than is allowed",
        ),
    ] {
        let engine = limited(&[memory, seconds]);
        let bomb = heavy(operations);
        let error = engine.load(bomb.clone()).await.unwrap_err();
        assert_eq!(error.to_string(), sentence);
        // Asked again, it costs nothing any more: the answer is known.
        let begun = tokio::time::Instant::now();
        assert_eq!(engine.load(bomb).await.unwrap_err(), error);
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Its neighbours are compiled as ever.
        assert!(engine.load(run_of("i32.const 1")).await.is_ok());
    }
}

#[tokio::test]
async fn whatever_becomes_of_the_child_is_said_in_one_sentence() {
    let mut transcript = String::new();
    for script in [
        "exec cat",
        "exec true",
        "echo not a compiler >&2; exit 7",
        "echo a type is missing >&2; exit 2",
        "kill -KILL $$",
        "kill -SEGV $$",
        "echo memory allocation of 12 bytes failed >&2; kill -ABRT $$",
        "kill -XCPU $$",
        // More than a pipe holds, on the stream that nobody reads to its end.
        "head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; exit 2",
    ] {
        let error = shell(script).load(run_of("i32.const 0")).await.unwrap_err();
        let permanent = if error.is_permanent() {
            "refused"
        } else {
            "try again"
        };
        let shown = error.to_string().replace(&"x".repeat(800), "xxx");
        assert!(!shown.contains('\n'), "{shown}");
        transcript += &format!("{permanent}: {shown}\n");
    }
    let nowhere = engine("/nowhere/compiler".into(), &[]);
    let error = nowhere.load(run_of("i32.const 0")).await.unwrap_err();
    transcript += &format!("{error}\n");
    insta::assert_snapshot!(transcript, @r"
    try again: the compiler failed: what /bin/sh wrote is no code
    try again: the compiler failed: what /bin/sh wrote is no code
    try again: the compiler failed: it exited with code 7: not a compiler
    refused: the component is not valid: a type is missing
    try again: the compiler failed: it was ended by SIGKILL
    try again: the compiler failed: it was ended by SIGSEGV
    refused: compiling the component takes more memory than is allowed
    refused: compiling the component takes more processor time than is allowed
    refused: the component is not valid: xxx…
    the compiler failed: starting /nowhere/compiler: No such file or directory (os error 2)
    ");
}

#[tokio::test(start_paused = true)]
async fn a_child_that_hangs_holds_nobody_up() {
    let engine = shell("exec sleep 100000");
    let error = engine.load(run_of("i32.const 0")).await.unwrap_err();
    assert_eq!(
        error,
        ArtifactError::Compiler {
            reason: "it took more than 240 seconds".into()
        }
    );
}

#[tokio::test]
async fn names_in_a_refusal_are_cut() {
    let engine = limited(&[]);
    let long = "a".repeat(100_000);
    for (what, text) in [
        (
            "imports",
            format!(r#"(import "acme:{long}/launch@1.0.0" (instance (export "go" (func))))"#),
        ),
        (
            "valid",
            format!(r#"(import "{long}" (func)) (import "{long}" (func))"#),
        ),
    ] {
        let component = format!("(component {text})");
        let Ok(bytes) = wat::parse_str(&component) else {
            panic!("{what} does not parse")
        };
        let error = engine.load(bytes).await.unwrap_err().to_string();
        assert!(error.len() < 2_000, "{} bytes", error.len());
    }
}

#[tokio::test]
async fn a_capability_that_needs_the_event_loop_is_for_components_that_have_it() {
    struct Work;

    impl Capability for Work {
        const NAME: &'static str = "acme:slow";
        const INTERFACES: &'static [&'static str] = &["acme:slow/work"];
        type Grant = ();
        type Bound = ();

        fn link(&self, linker: &mut Linker<HostState>, calls: Calls) -> wasmtime::Result<()> {
            if calls == Calls::Serial {
                return Ok(());
            }
            let mut work = linker.instance("acme:slow/work")?;
            work.func_wrap_concurrent("work", |_, (): ()| {
                Box::pin(async { wasmtime::error::Ok(()) })
            })
        }

        fn bind(&self, (): &(), _: &Arc<HostBytes>) {}
    }

    let engine = Engine::builder()
        .instances_max(2)
        .accept_plugins()
        .capability(Work)
        .build()
        .unwrap();
    let load = async |text: String| {
        let loaded = engine.load(wat::parse_str(text).unwrap()).await;
        loaded.map(|_| "loaded").map_err(|error| error.to_string())
    };
    let import = r#"(import "acme:slow/work" (instance (export "work" (func async))))"#;
    assert_eq!(
        load(format!("(component {import})")).await.unwrap(),
        "loaded"
    );
    let plain = r#"(component
        (import "acme:slow/work" (instance (export "work" (func))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $c (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $c)))"#;
    let error = load(plain.into()).await.unwrap_err();
    assert!(error.contains("imports acme:slow/work"), "{error}");
}

/// Compiles the two components into a cache below `dir`, or finds them there.
async fn cached(dir: &std::path::Path) -> (Engine, [weft_runtime::Digest; 2]) {
    let engine = Engine::builder()
        .instances_max(2)
        .cache_dir(dir)
        .build()
        .unwrap();
    let mut digests = Vec::new();
    for code in ["0", "1"] {
        let bytes = run_of(&format!("i32.const {code}"));
        digests.push(engine.load(bytes).await.unwrap().digest());
    }
    (engine, digests.try_into().unwrap())
}

#[tokio::test]
async fn attacks_13_and_102_a_cache_that_somebody_else_wrote_to_is_not_believed() {
    type Tamper = fn([&std::path::Path; 2]);
    let tampers: [(&str, Tamper); 5] = [
        ("nothing", |_| {}),
        ("no proof", |[code, _]| {
            std::fs::remove_file(code.with_extension("mac")).unwrap();
        }),
        ("an empty proof", |[code, _]| {
            std::fs::write(code.with_extension("mac"), []).unwrap();
        }),
        // Both files are genuine; they are those of another component.
        ("another's code", |[code, other]| {
            std::fs::copy(other, code).unwrap();
            std::fs::copy(other.with_extension("mac"), code.with_extension("mac")).unwrap();
        }),
        // Without its key, nobody can prove anything: all is compiled again.
        ("another key", |[code, _]| {
            std::fs::write(code.parent().unwrap().join("key"), [7; 32]).unwrap();
        }),
    ];
    for (what, tamper) in tampers {
        let dir = tempfile::tempdir().unwrap();
        let (first, digests) = cached(dir.path()).await;
        drop(first);
        let file = |digest: &weft_runtime::Digest| {
            let stem = digest.to_string().replace("sha256:", "");
            let files = std::fs::read_dir(dir.path()).unwrap();
            files
                .map(|file| file.unwrap().path())
                .find(|path| {
                    let name = path.file_name().unwrap().to_string_lossy();
                    name.starts_with(&stem) && name.ends_with(".cwasm")
                })
                .unwrap()
        };
        let (one, two) = (file(&digests[0]), file(&digests[1]));
        tamper([&one, &two]);
        let engine = Engine::builder()
            .instances_max(2)
            .cache_dir(dir.path())
            .build()
            .unwrap();
        let found = engine.load_cached(digests[0]).await.unwrap();
        assert_eq!(found.is_some(), what == "nothing", "{what}");
        drop((found, engine));
        // What is compiled again is what was asked for.
        let (engine, _) = cached(dir.path()).await;
        let artifact = engine.load_cached(digests[0]).await.unwrap().unwrap();
        let workload = Workload::builder(&engine, &artifact).build().unwrap();
        assert_eq!(workload.run().await, Exit::Success, "{what}");
    }
}
