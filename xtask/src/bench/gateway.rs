//! Requests per second from the gateway to a component that answers one line.

use anyhow::Result;
use serde_json::Value;

use super::load::{Case, Target};
use super::{Effort, NAMESPACE, deployment, load, ready, service, start};
use super::{nginx, peers, wasmtime};
use crate::cluster::Cluster;

/// As many bytes as the component answers.
const ANSWER: &str = "hello\\n";

const SERVICES: [&str; 4] = ["fresh", "reused", "fresh-p3", "reused-p3"];

fn deployed(effort: &Effort) -> Result<Cluster> {
    let cluster = start(effort, "bench-gateway", 1)?;
    cluster.apply(&[
        deployment("fresh", "hello", Some("per-request"), None),
        service("fresh"),
        deployment("reused", "hello", Some("pooled"), None),
        service("reused"),
        deployment("fresh-p3", "hello-p3", Some("per-request"), None),
        service("fresh-p3"),
        deployment("reused-p3", "hello-p3", Some("pooled"), None),
        service("reused-p3"),
    ])?;
    ready(&cluster, &SERVICES)?;
    Ok(cluster)
}

/// Sends load to each and measures nothing.
pub fn serve(effort: &Effort) -> Result<()> {
    let cluster = deployed(effort)?;
    for service in SERVICES {
        let url = cluster.url(&format!("{service}.{NAMESPACE}.localhost"), "/");
        let gateway = cluster.gateway_address();
        load::send(&url, gateway, effort.connections, effort.seconds, 0.0)?;
    }
    cluster.stop()
}

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = deployed(effort)?;
    let weft = |name, service: &'static str, peers: &[&'static str]| Case {
        name,
        peers: peers.to_vec(),
        serve: Box::new({
            let cluster = &cluster;
            move || {
                Ok(Target {
                    url: cluster.url(&format!("{service}.{NAMESPACE}.localhost"), "/"),
                    connect: cluster.gateway_address().to_owned(),
                    host: Some(format!("{service}.{NAMESPACE}.localhost")),
                    process: cluster.process(),
                    server: None,
                })
            }
        }),
    };
    let mut cases = vec![
        weft("weft, fresh", "fresh", &["wasmtime serve, fresh"]),
        weft(
            "weft, reused",
            "reused",
            &["wasmtime serve, reused", "nginx from memory"],
        ),
        weft(
            "weft, fresh, WASI 0.3",
            "fresh-p3",
            &["wasmtime serve, fresh, WASI 0.3"],
        ),
        weft(
            "weft, reused, WASI 0.3",
            "reused-p3",
            &["wasmtime serve, reused, WASI 0.3"],
        ),
    ];
    if wasmtime::found().is_some() {
        let with = |name, guest, more: &[&'static str]| {
            wasmtime::case(name, guest, [&wasmtime::TUNED[..], more].concat())
        };
        cases.extend([
            wasmtime::case("wasmtime serve, defaults", "hello", Vec::new()),
            with("wasmtime serve, fresh", "hello", &wasmtime::FRESH),
            with("wasmtime serve, reused", "hello", &wasmtime::REUSED),
            with(
                "wasmtime serve, fresh, WASI 0.3",
                "hello-p3",
                &wasmtime::FRESH,
            ),
            with(
                "wasmtime serve, reused, WASI 0.3",
                "hello-p3",
                &wasmtime::REUSED,
            ),
        ]);
    }
    if let Some(program) = peers::nginx() {
        cases.push(nginx::case("nginx from memory", program, ANSWER));
    }
    let results = load::measure(&cases, effort)?;
    drop(cases);
    cluster.stop()?;
    Ok(results)
}
