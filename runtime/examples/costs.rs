//! What the parts of a call cost, without sockets: an instantiation, a host call, a call between two workloads of one pod.
//!
//! `cargo run --example costs -- COMPONENT [COMPONENT…] [--rounds N]` prints one JSON object, nanoseconds, medians of the
//! rounds. Each COMPONENT exports `wasi:http` and answers `GET /`; the host call is measured with a component of its own.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

use std::time::{Duration, Instant};

use http::Request;
use http_body_util::BodyExt;
use tower::ServiceExt;
use weft_runtime::{
    Artifact, Body, Engine, Exit, Failure, FailureKind, InstancePolicy, Limits, Outbound, Workload,
};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Calls in one round; a round is a few milliseconds.
const CALLS: u32 = 500;
/// Host calls in one run of the looping command.
const HOST_CALLS: u32 = 200_000;

/// A command that asks the monotonic clock for the time as often as it is told, or does the same loop without asking.
fn looping(asks: bool) -> String {
    let ask = if asks {
        "(drop (call $now))"
    } else {
        "(drop (i64.const 1))"
    };
    format!(
        r#"(component
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
  (core func $now (canon lower (func $clock "now")))
  (core module $main
    (import "host" "now" (func $now (result i64)))
    (func (export "run") (result i32) (local $left i32)
      (local.set $left (i32.const {HOST_CALLS}))
      (loop $again
        {ask}
        (br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
      (i32.const 0)))
  (core instance $main (instantiate $main (with "host" (instance (export "now" (func $now))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"#
    )
}

fn pooled() -> InstancePolicy {
    InstancePolicy::Pooled {
        max_requests: u32::MAX,
        max_concurrent: 16,
        idle: Duration::from_secs(10),
    }
}

fn workload(
    engine: &Engine,
    artifact: &Artifact,
    policy: InstancePolicy,
) -> Result<Workload, Error> {
    let builder = Workload::builder(engine, artifact).limits(Limits {
        memory_bytes: 1 << 30,
        ..Limits::default()
    });
    Ok(builder.instance_policy(policy).build()?)
}

fn request() -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.uri_mut() = http::Uri::from_static("http://bench/");
    request
}

/// Nanoseconds a call, one after the other on this thread.
async fn calls(workload: &Workload) -> Result<f64, Error> {
    let started = Instant::now();
    for _ in 0..CALLS {
        let response = workload.call(request()).await?;
        response.into_body().collect().await?;
    }
    Ok(nanos(started, CALLS))
}

/// The same through an outbound service, as a sibling of one pod is called.
async fn through(outbound: &Outbound) -> Result<f64, Error> {
    let started = Instant::now();
    for _ in 0..CALLS {
        let response = outbound.clone().oneshot(request()).await?;
        response.into_body().collect().await?;
    }
    Ok(nanos(started, CALLS))
}

async fn runs(workload: &Workload) -> Result<f64, Error> {
    let started = Instant::now();
    match workload.run().await {
        Exit::Success => Ok(nanos(started, HOST_CALLS)),
        other => Err(format!("the loop ended with {other:?}").into()),
    }
}

fn nanos(started: Instant, times: u32) -> f64 {
    started.elapsed().as_nanos() as f64 / f64::from(times)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let (mut components, mut rounds) = (Vec::new(), 20);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            _ => components.push(arg),
        }
    }
    let rounds = 1.max(rounds);
    let engine = Engine::builder().build()?;
    let mut report = Vec::new();
    for path in &components {
        let artifact = engine.load(std::fs::read(path)?).await?;
        let fresh = workload(&engine, &artifact, InstancePolicy::PerRequest)?;
        let reused = workload(&engine, &artifact, pooled())?;
        let callee = reused.clone();
        let outbound = Outbound::new(tower::service_fn(move |request| {
            let callee = callee.clone();
            async move {
                let answer = callee.call(request).await;
                answer.map_err(|error| Failure::new(FailureKind::Failed, error.to_string()))
            }
        }));
        let [mut fresh_nanos, mut reused_nanos, mut pod_nanos] = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            fresh_nanos.push(calls(&fresh).await?);
            reused_nanos.push(calls(&reused).await?);
            pod_nanos.push(through(&outbound).await?);
        }
        let (fresh, reused, pod) = (
            median(&mut fresh_nanos),
            median(&mut reused_nanos),
            median(&mut pod_nanos),
        );
        let name = std::path::Path::new(path)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy();
        report.push(format!(
            "{:?}: {{\"call_fresh_ns\": {fresh:.0}, \"call_reused_ns\": {reused:.0}, \"instantiation_ns\": {:.0}, \"same_pod_call_ns\": {pod:.0}}}",
            name,
            fresh - reused
        ));
    }
    let [asking, idling] = [true, false].map(looping);
    let load = |text: String| async { engine.load(wat::parse_str(text).unwrap_or_default()).await };
    let asking = workload(&engine, &load(asking).await?, InstancePolicy::PerRequest)?;
    let idling = workload(&engine, &load(idling).await?, InstancePolicy::PerRequest)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        with.push(runs(&asking).await?);
        without.push(runs(&idling).await?);
    }
    report.push(format!(
        "\"host_call_ns\": {:.1}",
        median(&mut with) - median(&mut without)
    ));
    println!("{{{}}}", report.join(", "));
    Ok(())
}
