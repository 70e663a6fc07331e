//! Code that nobody calls leaves memory; whoever calls next does not notice. Seen in the process's own memory map.
#![cfg(target_os = "linux")]

mod guest;

use http::Request;
use weft_runtime::{Artifact, Body, Engine, Exit, Failure, FailureKind, InstancePolicy, Workload};

/// Executable mappings of compiled components from `dir`.
fn mapped(dir: &std::path::Path) -> usize {
    let dir = dir.display().to_string();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let code = maps
        .lines()
        .filter(|line| line.contains(&dir) && line.ends_with(".cwasm"));
    code.filter(|line| line.split(' ').nth(1).is_some_and(|how| how.contains('x')))
        .count()
}

async fn load(engine: &Engine, guest: &str) -> Artifact {
    engine.load(guest::bytes(guest)).await.unwrap()
}

async fn status(workload: &Workload) -> Result<u16, Failure> {
    let request = Request::get("http://x/hello").body(Body::empty()).unwrap();
    workload
        .call(request)
        .await
        .map(|response| response.status().as_u16())
}

#[tokio::test]
async fn equal_components_share_their_code_until_nobody_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder()
        .instances_max(16)
        .cache_dir(dir.path())
        .build()
        .unwrap();
    let first = load(&engine, "hello").await;
    let one = Workload::builder(&engine, &first).build().unwrap();
    let code = mapped(dir.path());
    assert!(code > 0);
    let second = engine.loaded(first.digest()).expect("it is here");
    let other = Workload::builder(&engine, &second).build().unwrap();
    assert_eq!(status(&other).await, Ok(200));
    assert_eq!(mapped(dir.path()), code, "loaded once for both");
    let digest = first.digest();
    drop((first, second, one));
    assert_eq!(status(&other).await, Ok(200));
    drop(other);
    // The call's instance is a task of its own, which ends after its answer.
    while mapped(dir.path()) > 0 {
        tokio::task::yield_now().await;
    }
    assert!(engine.loaded(digest).is_none());
    assert!(engine.load_cached(digest).await.unwrap().is_some());
}

#[tokio::test]
async fn cold_code_is_unloaded_under_its_workloads_and_comes_back_with_a_call() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder()
        .instances_max(16)
        .cache_dir(dir.path())
        .build()
        .unwrap();
    let artifact = load(&engine, "hello").await;
    let per_request = InstancePolicy::PerRequest;
    let workloads: Vec<Workload> = (0..8)
        .map(|_| Workload::builder(&engine, &artifact).instance_policy(per_request))
        .map(|builder| builder.build().unwrap())
        .collect();
    assert_eq!(status(&workloads[0]).await, Ok(200));
    assert_eq!(engine.unload_cold(), 0, "it was just called");
    assert_eq!(status(&workloads[1]).await, Ok(200));
    assert_eq!(engine.unload_cold(), 0, "and again");
    assert_eq!(engine.unload_cold(), 1);
    assert!(!artifact.is_loaded());
    while mapped(dir.path()) > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(engine.unload_cold(), 0, "there is nothing left");

    // Everybody calls at once: the code comes back once, and nobody is turned away.
    let calls = workloads.iter().map(status);
    let answers = futures::future::join_all(calls).await;
    assert!(
        answers.iter().all(|answer| *answer == Ok(200)),
        "{answers:?}"
    );
    let code = mapped(dir.path());
    assert!(code > 0);

    // Unloading while calls are on their way fails none of them.
    for _ in 0..50 {
        let calls = workloads.iter().map(status);
        let (answers, _) = tokio::join!(futures::future::join_all(calls), async {
            for _ in 0..4 {
                engine.unload_cold();
                tokio::task::yield_now().await;
            }
        });
        assert!(
            answers.iter().all(|answer| *answer == Ok(200)),
            "{answers:?}"
        );
    }
}

#[tokio::test]
async fn without_a_cache_nothing_is_unloaded_and_without_its_file_a_call_says_so() {
    let engine = Engine::builder().instances_max(4).build().unwrap();
    let kept = load(&engine, "hello").await;
    assert_eq!((engine.unload_cold(), engine.unload_cold()), (0, 0));
    assert!(kept.is_loaded());

    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder()
        .instances_max(4)
        .cache_dir(dir.path())
        .build()
        .unwrap();
    let artifact = load(&engine, "hello").await;
    let workload = Workload::builder(&engine, &artifact).build().unwrap();
    engine.unload_cold();
    assert_eq!(engine.unload_cold(), 1);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "cwasm") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let error = status(&workload).await.expect_err("its code is gone");
    assert!(error.kind == FailureKind::NotLoaded, "{error}");
    assert!(error.never_processed() && error.status() == 503);
    assert_eq!(workload.usage().traps, 0);
}

#[tokio::test]
async fn a_command_loads_its_code_again_too() {
    let component = r#"(component
      (core module $m (func (export "run") (result i32) i32.const 0))
      (core instance $i (instantiate $m))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $c (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $c)))"#;
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::builder()
        .instances_max(4)
        .cache_dir(dir.path())
        .build()
        .unwrap();
    let artifact = engine
        .load(wat::parse_str(component).unwrap())
        .await
        .unwrap();
    let workload = Workload::builder(&engine, &artifact).build().unwrap();
    assert_eq!(workload.run().await, Exit::Success);
    engine.unload_cold();
    assert_eq!(engine.unload_cold(), 1);
    assert_eq!(workload.run().await, Exit::Success);
}
