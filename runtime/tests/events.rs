//! What an embedder hears of its workloads, as it happens.

mod guest;

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use weft_runtime::{
    Access, Body, BoxError, CallEnd, Engine, Event, EventSink, Failure, FailureKind,
    InstancePolicy, Limits, Workload, WorkloadBuilder, WorkloadError,
};

static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| Engine::builder().instances_max(16).build().unwrap());

async fn guest(name: &str) -> WorkloadBuilder {
    Workload::builder(&ENGINE, &ENGINE.load(guest::bytes(name)).await.unwrap())
}

type Heard = Arc<Mutex<Vec<Event>>>;

fn ear() -> (Heard, EventSink) {
    let heard = Heard::default();
    let sink = heard.clone();
    let sink = EventSink::new(move |event| sink.lock().unwrap().push(event));
    (heard, sink)
}

/// What was heard since the last time, without how long it took; sorted, since an instance ends when it likes.
fn told(heard: &Heard) -> String {
    let mut lines: Vec<String> = heard
        .lock()
        .unwrap()
        .drain(..)
        .map(|event| match event {
            Event::CallEnded { end, .. } => match end {
                CallEnd::Failed(error) => format!("call failed: {:?}", error.kind),
                end => format!("call: {end:?}"),
            },
            Event::RunEnded { exit, .. } => format!("run: {exit:?}"),
            Event::InstanceStarted => "instance started".to_owned(),
            Event::InstanceEnded { .. } => "instance ended".to_owned(),
            Event::Trapped { message, .. } => format!("trapped: {message}"),
            Event::MemoryRefused { limit_bytes, .. } => format!("memory refused at {limit_bytes}"),
            other => format!("{other:?}"),
        })
        .collect();
    lines.sort();
    lines.dedup();
    lines.join(", ")
}

fn get(uri: &str) -> Request<Body> {
    Request::builder().uri(uri).body(Body::empty()).unwrap()
}

/// Waits until nothing is left of the calls so far.
async fn settled(workload: &Workload) {
    for _ in 0..2_000 {
        if workload.usage().instances == 0 && workload.usage().in_flight == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it never came to rest: {:?}", workload.usage());
}

#[tokio::test]
async fn each_call_and_instance_is_told_of_once() {
    let (heard, sink) = ear();
    let limits = Limits {
        memory_bytes: 8 << 20,
        request_timeout: Duration::from_millis(300),
        ..Limits::default()
    };
    let workload = guest("probe")
        .await
        .limits(limits)
        .instance_policy(InstancePolicy::PerRequest)
        .events(sink)
        .build()
        .unwrap();
    for (path, events) in [
        (
            "/hello",
            "call: Answered(200), instance ended, instance started",
        ),
        (
            "/status?code=404",
            "call: Answered(404), instance ended, instance started",
        ),
        (
            "/panic",
            "call failed: Trap, instance ended, instance started, \
             trapped: wasm trap: wasm `unreachable` instruction executed",
        ),
        (
            "/eat?mb=64",
            "call failed: OutOfMemory, instance ended, instance started, memory refused at 8388608",
        ),
        (
            "/loop",
            "call failed: Deadline, instance ended, instance started",
        ),
    ] {
        if let Ok(response) = workload.call(get(path)).await {
            response.into_body().collect().await.unwrap();
        }
        settled(&workload).await;
        assert_eq!(told(&heard), events, "{path}");
    }

    // A caller that leaves before the response, and one that leaves in the middle of it.
    let mut waiting = Box::pin(workload.call(get("/delay?ms=600000")));
    assert!(futures::poll!(&mut waiting).is_pending());
    drop(waiting);
    settled(&workload).await;
    assert_eq!(
        told(&heard),
        "call: Abandoned, instance ended, instance started"
    );
    let endless = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, BoxError>>();
    let request = Request::post("/echo")
        .body(Body::new(http_body_util::StreamBody::new(endless)))
        .unwrap();
    drop(workload.call(request).await.unwrap());
    settled(&workload).await;
    assert_eq!(
        told(&heard),
        "call: BrokenOff(200), instance ended, instance started"
    );

    workload.stop(Duration::ZERO).await;
    assert_eq!(
        workload.call(get("/hello")).await.unwrap_err(),
        Failure::from(FailureKind::Stopped)
    );
    assert_eq!(told(&heard), "call failed: Stopped");
}

#[tokio::test]
async fn runs_and_the_work_in_plugins_are_told_of() {
    let (heard, sink) = ear();
    let job = guest("wordcount")
        .await
        .events(sink.clone())
        .build()
        .unwrap();
    job.run().await;
    assert_eq!(
        told(&heard),
        "instance ended, instance started, run: Failed(2)"
    );

    let workload = guest("hello").await.events(sink).build().unwrap();
    // On another thread, if there is one: what an embedder does in an instance may move.
    let work = tokio::spawn({
        let workload = workload.clone();
        async move {
            workload
                .with_instance(async |store, instance| {
                    let name = "wasi:http/incoming-handler@0.2.12";
                    let found = instance.get_export_index(&mut *store, None, name);
                    weft_runtime::wasmtime::error::Ok(found.is_some())
                })
                .await
        }
    });
    assert_eq!(work.await.unwrap(), Ok(true));
    assert_eq!(
        told(&heard),
        "call: Returned, instance ended, instance started"
    );
    let failed = workload
        .with_instance(async |_, _| Err::<(), _>(weft_runtime::wasmtime::Error::msg("no use")))
        .await;
    assert!(
        matches!(&failed, Err(error) if error.kind == FailureKind::Trap && error.message == "the guest trapped: no use"),
        "{failed:?}"
    );
    assert_eq!(
        (workload.usage().instances, workload.usage().memory_bytes),
        (0, 0)
    );
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_refused_by_name() {
    let error = guest("hello")
        .await
        .preopen("/no/such/place", "/data", Access::ReadOnly)
        .build()
        .unwrap_err();
    assert_eq!(
        error,
        WorkloadError::Preopen {
            host_dir: "/no/such/place".into(),
            reason: "No such file or directory (os error 2)".into()
        }
    );
}
