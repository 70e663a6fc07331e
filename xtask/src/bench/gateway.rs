//! Requests per second from the gateway to a component that answers one line.

use anyhow::Result;
use serde_json::Value;

use super::load::{Case, Target};
use super::wasmtime;
use super::{Effort, NAMESPACE, deployment, load, ready, service, start};

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start("bench-gateway", 1)?;
    let services = ["fresh", "reused", "reused-p3"];
    cluster.apply(&[
        deployment("fresh", "hello", Some("per-request"), None),
        service("fresh"),
        deployment("reused", "hello", Some("pooled"), None),
        service("reused"),
        deployment("reused-p3", "hello-p3", Some("pooled"), None),
        service("reused-p3"),
    ])?;
    ready(&cluster, &services)?;
    let weft = |name, service: &'static str, peer| Case {
        name,
        peers: vec![peer],
        serve: Box::new({
            let cluster = &cluster;
            move || {
                Ok(Target {
                    url: cluster.url(&format!("{service}.{NAMESPACE}.localhost"), "/"),
                    connect: cluster.gateway_address().to_owned(),
                    process: cluster.process(),
                    server: None,
                })
            }
        }),
    };
    let mut cases = vec![
        weft("weft, fresh", "fresh", "wasmtime serve, fresh"),
        weft("weft, reused", "reused", "wasmtime serve, reused"),
        weft(
            "weft, reused, WASI 0.3",
            "reused-p3",
            "wasmtime serve, reused, WASI 0.3",
        ),
    ];
    if wasmtime::version().is_some() {
        let reused = [&wasmtime::TUNED[..], &wasmtime::REUSED[..]].concat();
        cases.push(wasmtime::case(
            "wasmtime serve, defaults",
            "hello",
            Vec::new(),
        ));
        cases.push(wasmtime::case(
            "wasmtime serve, fresh",
            "hello",
            wasmtime::TUNED.to_vec(),
        ));
        cases.push(wasmtime::case(
            "wasmtime serve, reused",
            "hello",
            reused.clone(),
        ));
        cases.push(wasmtime::case(
            "wasmtime serve, reused, WASI 0.3",
            "hello-p3",
            reused,
        ));
    }
    let results = load::measure(&cases, effort)?;
    drop(cases);
    cluster.stop()?;
    Ok(results)
}
