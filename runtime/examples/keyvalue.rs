//! A component with settings and a key-value store in this program's memory.
//!
//! `cargo xtask guests && cargo run --example keyvalue [COMPONENT [PATH…]]`
//!
//! Whoever keeps data elsewhere implements [`KeyValueStore`] instead; nothing else changes. Without one of the two grants the
//! component would be refused, with the interface that it misses.
//!
//! [`KeyValueStore`]: weft_runtime::KeyValueStore

use std::sync::Arc;

use http_body_util::BodyExt;
use weft_runtime::{Body, Config, Engine, MemoryStore, Workload};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/guests/granted.wasm");
    let component = args.next().unwrap_or(built.to_owned());
    let mut paths: Vec<String> = args.collect();
    if paths.is_empty() {
        let asked = ["/config", "/increment?key=visits", "/increment?key=visits"];
        paths = asked.map(str::to_owned).into();
    }

    let settings = [("greeting".to_owned(), "hello".to_owned())];
    let store = Arc::new(MemoryStore::new(16 << 20, 10_000));
    let engine = Engine::builder().build()?;
    let artifact = engine.load(std::fs::read(component)?).await?;
    let workload = Workload::builder(&engine, &artifact)
        .config(Config::fixed(settings.into())?)
        .key_value("default", store.clone())
        .build()?;
    for path in paths {
        let request = http::Request::get(&path).body(Body::empty())?;
        let response = workload.call(request).await?;
        let bytes = response.into_body().collect().await;
        let bytes = bytes.map_err(|error| error.to_string())?.to_bytes();
        println!("{path}: {}", String::from_utf8_lossy(&bytes).trim_end());
    }
    println!("{} keys, {} bytes", store.keys(), store.bytes());
    Ok(())
}
