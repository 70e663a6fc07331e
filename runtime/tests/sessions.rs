//! Commands in the context of a workload, with streams of their own: what they read, print, share and are held to, in this process
//! and in a worker's, for components of both generations.

mod example;
mod guest;

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, watch};
use weft_runtime::worker::{RemoteWorkload, Worker, WorkerCommand};
use weft_runtime::{
    Access, Artifact, Cores, Engine, Exit, Limits, Session, Setup, Stdio, TerminalSize, Volume,
    VolumeLimits, Workload, WorkloadConfig, WorkloadError, volume,
};

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());
static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let builder = Engine::builder().instances_max(64);
    builder
        .cache_dir(DIR.path().join("compiled"))
        .build()
        .unwrap()
});

static CORES: LazyLock<Cores> = LazyLock::new(|| Cores::start(1).unwrap());

/// Both generations.
const GUESTS: [&str; 2] = ["behaviours", "behaviours-p3"];

async fn guest(name: &str) -> Artifact {
    ENGINE.load(guest::bytes(name)).await.unwrap()
}

/// A command whose core function `run` is `body`, in a memory of so many pages.
async fn run_of(body: &str, pages: u32) -> Artifact {
    let text = format!(
        r#"(component
          (core module $m (memory {pages}) (func (export "run") (result i32) {body}))
          (core instance $i (instantiate $m))
          (func $run (result (result)) (canon lift (core func $i "run")))
          (instance $c (export "run" (func $run)))
          (export "wasi:cli/run@0.2.0" (instance $c)))"#
    );
    ENGINE.load(wat::parse_str(text).unwrap()).await.unwrap()
}

/// The other ends of a session's streams.
#[derive(Default)]
struct Held {
    keys: Option<mpsc::Sender<Bytes>>,
    out: Option<mpsc::Receiver<Bytes>>,
    err: Option<mpsc::Receiver<Bytes>>,
}

fn streams(terminal: bool) -> (Stdio, Held) {
    let (keys, stdin) = mpsc::channel(16);
    let (stdout, out) = mpsc::channel(16);
    let (stderr, err) = mpsc::channel(16);
    let size = TerminalSize {
        columns: 80,
        lines: 24,
    };
    let stdio = Stdio {
        stdin: Some(stdin),
        stdout: Some(stdout),
        stderr: Some(stderr),
        // Who resizes is gone; how large it was stays.
        terminal: terminal.then(|| watch::channel(size).1),
    };
    let held = Held {
        keys: Some(keys),
        out: Some(out),
        err: Some(err),
    };
    (stdio, held)
}

async fn all(chunks: &mut Option<mpsc::Receiver<Bytes>>) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = chunks.as_mut().unwrap().recv().await {
        text.extend_from_slice(&chunk);
    }
    String::from_utf8(text).unwrap()
}

/// Where a session is run.
#[derive(Clone)]
enum Outer {
    Here(Workload),
    Apart(RemoteWorkload),
}

impl Outer {
    async fn session(&self, artifact: &Artifact, session: Session, stdio: Stdio) -> Exit {
        match self {
            Outer::Here(workload) => workload.session(artifact, session, stdio).await.unwrap(),
            Outer::Apart(workload) => {
                let ran = workload.session(&ENGINE, artifact, session, stdio).await;
                ran.unwrap()
            }
        }
    }

    async fn stop(&self) {
        match self {
            Outer::Here(workload) => workload.stop(Duration::ZERO).await,
            Outer::Apart(workload) => workload.stop(Duration::ZERO).await,
        }
    }

    /// What a guest says that is asked for `row`, with `keys` on its input and then the end of it.
    async fn say(&self, artifact: &Artifact, row: &str, keys: &[&str], terminal: bool) -> String {
        let (stdio, mut held) = streams(terminal);
        let session = session(&["/bin/behave", row]);
        let typed = held.keys.take().unwrap();
        for keys in keys {
            typed
                .send(Bytes::copy_from_slice(keys.as_bytes()))
                .await
                .unwrap();
        }
        drop(typed);
        let running = self.session(artifact, session, stdio);
        let Held {
            mut out, mut err, ..
        } = held;
        let (exit, out, err) = tokio::join!(running, all(&mut out), all(&mut err));
        let err = if err.is_empty() {
            err
        } else {
            format!(" !{err}")
        };
        match exit {
            Exit::Success => format!("{out}{err}"),
            exit => format!("{out}{err} {}", exit.code()),
        }
    }
}

fn session(args: &[&str]) -> Session {
    Session {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        env: vec![("COLOUR".into(), "red".into()), ("MORE".into(), "1".into())],
        cwd: Some("/data".into()),
        ..Session::default()
    }
}

fn config() -> WorkloadConfig {
    WorkloadConfig {
        name: "outer".into(),
        account: "tenant".into(),
        env: vec![
            ("COLOUR".into(), "blue".into()),
            ("SHAPE".into(), "round".into()),
        ],
        args: vec!["outer".into()],
        ..WorkloadConfig::default()
    }
}

fn here(artifact: &Artifact) -> Workload {
    let setup = Setup {
        config: config(),
        ..Setup::default()
    };
    let builder = Workload::builder(&ENGINE, artifact).setup(setup);
    builder.build().unwrap()
}

/// In this process, and in a worker's.
async fn places(artifact: &Artifact) -> Vec<Outer> {
    let program = example::path("worker");
    let args = Vec::new();
    let worker = Worker::start(&WorkerCommand { program, args }, &CORES).await;
    let setup = Setup {
        config: config(),
        ..Setup::default()
    };
    let apart = worker.unwrap().build(&ENGINE, artifact, setup).await;
    vec![Outer::Here(here(artifact)), Outer::Apart(apart.unwrap())]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_has_its_own_words_and_its_workloads_world() {
    let outer = run_of("i32.const 0", 1).await;
    for place in places(&outer).await {
        for name in GUESTS {
            let guest = guest(name).await;
            let said = place.say(&guest, "cli/arguments", &[], false).await;
            assert_eq!(
                said.trim_end(),
                r#"["/bin/behave", "cli/arguments"]"#,
                "{name}"
            );
            let said = place.say(&guest, "cli/initial-cwd", &[], false).await;
            assert_eq!(said.trim_end(), r#"Some("/data")"#, "{name}");
            let said = place.say(&guest, "cli/environment", &[], false).await;
            let env = r#"[("SHAPE", "round"), ("COLOUR", "red"), ("MORE", "1")]"#;
            assert!(said.starts_with(env), "{name}: {said}");
            for (terminal, expected) in [(false, "false false false"), (true, "true true true")] {
                let said = place.say(&guest, "cli/terminals", &[], terminal).await;
                assert_eq!(said.trim_end(), expected, "{name}");
                assert_eq!(said.ends_with("\r\n"), terminal, "{name}: {said:?}");
            }
            let said = place.say(&guest, "cli/exit-with-code-7", &[], false).await;
            assert!(said.ends_with(" 7"), "{name}: {said}");
            let said = place.say(&guest, "cli/stderr", &[], false).await;
            assert!(said.contains("!on stderr"), "{name}: {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_typed_arrives_and_ends() {
    let outer = run_of("i32.const 0", 1).await;
    for place in places(&outer).await {
        let guest = guest("behaviours").await;
        let said = place
            .say(&guest, "cli/stdin", &["hello wo", "rld"], false)
            .await;
        let typed = format!("Ok({:?})", b"hello wo");
        assert!(said.starts_with(&format!("[{typed}, ")), "{said}");
        let said = place.say(&guest, "cli/stdin", &[], true).await;
        assert!(said.starts_with("[Err(StreamError::Closed), "), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_waits_for_who_reads_it_and_ends_with_its_workload() {
    let outer = run_of("i32.const 0", 1).await;
    for place in places(&outer).await {
        let guest = guest("behaviours").await;
        let (stdout, mut out) = mpsc::channel(1);
        stdout.send(Bytes::from_static(b"unread")).await.unwrap();
        let stdio = || Stdio {
            stdout: Some(stdout.clone()),
            ..Stdio::default()
        };
        let ask = session(&["behave", "cli/arguments"]);
        let mut running = Box::pin(place.session(&guest, ask.clone(), stdio()));
        let early = tokio::time::timeout(Duration::from_millis(100), running.as_mut()).await;
        if let Outer::Here(_) = place {
            // From a worker comes what the windows on the way hold.
            assert!(early.is_err(), "nobody has read it");
        }
        assert_eq!(out.recv().await.unwrap(), "unread");
        if early.is_err() {
            let heard = async { while !out.recv().await.unwrap().ends_with(b"\n") {} };
            let (exit, ()) = tokio::join!(running, heard);
            assert_eq!(exit, Exit::Success);
        }

        // One that computes for ever, and one that waits for ever.
        let spinning = run_of("(loop (br 0)) unreachable", 1).await;
        for artifact in [&spinning, &guest] {
            let (stdio, held) = streams(false);
            let ask = session(&["behave", "cli/stdin"]);
            let mut running = Box::pin(place.session(artifact, ask, stdio));
            let early = tokio::time::timeout(Duration::from_millis(50), running.as_mut()).await;
            assert!(early.is_err(), "it goes on: {early:?}");
            if std::ptr::eq(artifact, &guest) {
                place.stop().await;
                let exit = running.await;
                assert!(matches!(exit, Exit::Stopped | Exit::Success), "{exit:?}");
            }
            drop(held);
        }
    }
}

#[tokio::test]
async fn a_session_is_on_its_workloads_account() {
    let outer = run_of("i32.const 0", 1).await;
    let large = run_of("i32.const 0", 40).await;
    let greedy = run_of("(drop (memory.grow (i32.const 20))) (memory.size)", 1).await;
    let workload = Workload::builder(&ENGINE, &outer)
        .limits(Limits {
            memory_bytes: 1 << 20,
            ..Limits::default()
        })
        .build()
        .unwrap();
    let refused = workload.session(&large, Session::default(), Stdio::default());
    assert_eq!(
        refused.await,
        Err(WorkloadError::MemoryLimitTooSmall {
            needed_bytes: 40 << 16,
            limit_bytes: 1 << 20,
        })
    );
    // It may not grow, and goes on: what `run` answers with is no exit code of zero.
    let denied = workload.session(&greedy, Session::default(), Stdio::default());
    assert_eq!(denied.await, Ok(Exit::Failed(1)));
    let usage = workload.usage();
    assert_eq!(usage.memory_bytes, 0, "all of it was given back");
    assert!(usage.memory_peak_bytes >= 1 << 16, "and was counted");
    assert!(usage.cpu_nanos > 0);
}

#[tokio::test]
async fn a_session_finds_the_files_of_its_workload_and_nothing_behind_null() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("text"), "one two three").unwrap();
    let null = dir.path().join("null");
    volume::make_null(&null).unwrap();
    std::fs::write(&null, "four").unwrap();
    let limits = VolumeLimits {
        bytes: Some(1 << 20),
        inodes: Some(10),
    };
    let volume = Volume::open(dir.path(), limits).unwrap();
    let outer = run_of("i32.const 0", 1).await;
    let workload = Workload::builder(&ENGINE, &outer)
        .volume(&volume, "/", Access::ReadWrite)
        .build()
        .unwrap();
    let place = Outer::Here(workload);
    let counts = guest("wordcount").await;
    for (path, expected) in [("/text", "3  in /text\n"), ("/null", "0  in /null\n")] {
        let (stdio, held) = streams(false);
        let ask = Session {
            args: vec!["wordcount".into(), path.into()],
            ..Session::default()
        };
        let Held { mut out, .. } = held;
        let (exit, said) = tokio::join!(place.session(&counts, ask, stdio), all(&mut out));
        assert_eq!((exit, said.as_str()), (Exit::Success, expected));
    }
}
