//! Requests per second from the gateway to a component that answers one line.

use anyhow::Result;
use serde_json::Value;

use super::load::{Case, Target};
use super::wasmtime::{self, Wasmtime};
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
        peer: Some(peer),
        serve: Box::new({
            let cluster = &cluster;
            move || {
                Ok(Target {
                    url: cluster.url(&format!("{service}.{NAMESPACE}.localhost"), "/"),
                    connect: cluster.gateway_address().to_owned(),
                    process: cluster.process(),
                    _server: None,
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
        cases.push(peer("wasmtime serve, defaults", "hello", Vec::new()));
        cases.push(peer(
            "wasmtime serve, fresh",
            "hello",
            wasmtime::TUNED.to_vec(),
        ));
        cases.push(peer("wasmtime serve, reused", "hello", reused.clone()));
        cases.push(peer("wasmtime serve, reused, WASI 0.3", "hello-p3", reused));
    } else {
        eprintln!("      wasmtime is not on PATH: nothing to compare with");
    }
    let results = load::measure(&cases, effort)?;
    drop(cases);
    cluster.stop()?;
    Ok(results)
}

/// `wasmtime serve` with these arguments, a new one for each round.
fn peer(name: &'static str, guest: &'static str, arguments: Vec<&'static str>) -> Case<'static> {
    Case {
        name,
        peer: None,
        serve: Box::new(move || {
            let server = Wasmtime::start(guest, &arguments)?;
            Ok(Target {
                url: format!("http://{}/", server.address()),
                connect: server.address(),
                process: server.process(),
                _server: Some(server),
            })
        }),
    }
}
