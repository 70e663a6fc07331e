//! A command as a job: arguments, environment, a directory, what it prints, limits, and its exit code.
//!
//! `cargo xtask guests && cargo run --example job -- COMPONENT [ARGUMENT…]`, for example
//! `cargo run --example job -- target/guests/wordcount.wasm /data/LICENSE`
//!
//! The job sees this directory at `/data`, read-only, and nothing else. This program exits as the job did.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use weft_runtime::{Access, Engine, Exit, Limits, LogSink, Workload};

#[tokio::main]
async fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let component = args.first().ok_or("which component?")?;
    let engine = Engine::builder().build()?;
    let artifact = engine.load(std::fs::read(component)?).await?;
    let printed = Arc::new(Mutex::new(Vec::new()));
    let sink = printed.clone();
    let workload = Workload::builder(&engine, &artifact)
        .args(args)
        .env(vec![("UNIT".into(), "words".into())])
        .preopen(".", "/data", Access::ReadOnly)
        .stdout(LogSink::new(move |bytes| {
            sink.lock()
                .expect("nobody panicked")
                .extend_from_slice(bytes);
        }))
        .stderr(LogSink::new(|bytes| {
            eprint!("{}", String::from_utf8_lossy(bytes));
        }))
        .limits(Limits {
            memory_bytes: 32 << 20,
            cpu_millis: Some(500),
            run_timeout: Some(Duration::from_secs(10)),
            ..Limits::default()
        })
        .build()?;

    let exit = workload.run().await;
    let printed = printed.lock().expect("nobody panicked");
    print!("{}", String::from_utf8_lossy(&printed));
    match &exit {
        Exit::Success | Exit::Failed(_) => {}
        exit => eprintln!("the job ended with {exit:?}"),
    }
    let peak = workload.usage().memory_peak_bytes;
    eprintln!(
        "exit code {}, {} KiB of memory at most",
        exit.code(),
        peak >> 10
    );
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(1)))
}
