//! Open dashboards, as far as the server knows them, for `cargo xtask bench dashboard`: what they read is told as a line of JSON.
//!
//! ```text
//! dashboard READERS SECONDS
//! ```
//! Each reader has a connection of its own, a stream of frames and a watch of the cluster's pods, as a page has. The kubeconfig is the one of
//! `WEFT_KUBECONFIG`. A reader that is told of fewer frames than there were seconds, but for two, is a failure.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures::{AsyncBufReadExt as _, AsyncReadExt as _, StreamExt as _};
use http::Request;
use serde_json::{Value, json};
use weft::kubeconfig::ClientArgs;

const FRAMES: &str = "/apis/mesh.weft.dev/v1/frames?watch=true&traces=true";
const PODS: &str = "/api/v1/pods?watch=true";

fn main() -> Result<()> {
    // Of the two that could be compiled in; a program chooses once.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut words = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut number = || {
        words
            .next()
            .context("dashboard READERS SECONDS")?
            .context("a number")
    };
    let (readers, seconds) = (number()?, number()?);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let told = runtime.block_on(read_all(readers, Duration::from_secs(seconds)))?;
    println!("{told}");
    Ok(())
}

async fn read_all(readers: u64, lasts: Duration) -> Result<Value> {
    let reading = (0..readers).map(|_| read(lasts));
    let (mut frames, mut bytes, mut skipped) = (0, 0, 0);
    for read in futures::future::try_join_all(reading).await? {
        frames += read.frames;
        bytes += read.bytes;
        skipped += read.skipped;
    }
    Ok(json!({"readers": readers, "frames": frames, "bytes": bytes, "skipped": skipped}))
}

#[derive(Default)]
struct Read {
    frames: u64,
    bytes: usize,
    skipped: u64,
}

async fn read(lasts: Duration) -> Result<Read> {
    let kubeconfig = std::env::var_os("WEFT_KUBECONFIG").map(Into::into);
    let client = ClientArgs { kubeconfig }.client().await?;
    let stream = async |path: &str| {
        let request = Request::get(path).body(Vec::new())?;
        anyhow::Ok(client.request_stream(request).await?)
    };
    let mut lines = stream(FRAMES).await?.lines();
    let mut pods = std::pin::pin!(stream(PODS).await?);
    let mut buffer = vec![0; 16 << 10];
    let ends = Instant::now() + lasts;
    let mut read = Read::default();
    while let Some(left) = ends.checked_duration_since(Instant::now()) {
        tokio::select! {
            line = lines.next() => {
                let line = line.context("the stream of frames ended")??;
                let event: Value = serde_json::from_str(&line)?;
                read.frames += 1;
                read.bytes += line.len();
                read.skipped += event["object"]["skipped"].as_u64().unwrap_or_default();
            }
            got = pods.read(&mut buffer) => ensure!(got? > 0, "the watch of pods ended"),
            () = tokio::time::sleep(left) => {}
        }
    }
    let least = lasts.as_secs().saturating_sub(2);
    ensure!(
        read.frames + read.skipped >= least,
        "{} frames in {} s",
        read.frames,
        lasts.as_secs()
    );
    Ok(read)
}
