//! The runtime by itself, beside `wasmtime serve` with the same components: no mesh, no cluster.
//!
//! `runtime/examples/serve.rs` is weft's side. Fresh instances are compared with wasmtime's defaults and with its best
//! settings, reused ones with its best. What the parts of a call cost is measured without sockets (`runtime/examples/costs.rs`).

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::load::{self, Case, Server, Target};
use super::wasmtime;
use super::{Effort, number};
use crate::{guests, progress};

const REUSED: [&str; 2] = ["--reuse", "1000000/16"];
const FRESH: [&str; 2] = ["--reuse", "1"];

pub fn measure(effort: &Effort) -> Result<Value> {
    let mut cases = vec![
        weft(
            effort,
            "weft, 0.2 fresh",
            "hello",
            &FRESH,
            &["wasmtime, 0.2 defaults", "wasmtime, 0.2 fresh"],
        ),
        weft(
            effort,
            "weft, 0.2 reused",
            "hello",
            &REUSED,
            &["wasmtime, 0.2 reused"],
        ),
        weft(
            effort,
            "weft, 0.3 fresh",
            "hello-p3",
            &FRESH,
            &["wasmtime, 0.3 fresh"],
        ),
        weft(
            effort,
            "weft, 0.3 reused",
            "hello-p3",
            &REUSED,
            &["wasmtime, 0.3 defaults", "wasmtime, 0.3 reused"],
        ),
    ];
    if wasmtime::found().is_some() {
        let tuned = |more: &[&'static str]| [&wasmtime::TUNED[..], more].concat();
        cases.push(wasmtime::case(
            "wasmtime, 0.2 defaults",
            "hello",
            Vec::new(),
        ));
        cases.push(wasmtime::case(
            "wasmtime, 0.2 fresh",
            "hello",
            tuned(&wasmtime::FRESH),
        ));
        cases.push(wasmtime::case(
            "wasmtime, 0.2 reused",
            "hello",
            tuned(&wasmtime::REUSED),
        ));
        cases.push(wasmtime::case(
            "wasmtime, 0.3 defaults",
            "hello-p3",
            Vec::new(),
        ));
        cases.push(wasmtime::case(
            "wasmtime, 0.3 fresh",
            "hello-p3",
            tuned(&wasmtime::FRESH),
        ));
        cases.push(wasmtime::case(
            "wasmtime, 0.3 reused",
            "hello-p3",
            tuned(&wasmtime::REUSED),
        ));
    }
    let serving = load::measure(&cases, effort)?;
    Ok(json!({"serving": serving, "costs": costs(effort)?}))
}

/// What the parts of a call cost, without sockets.
///
/// # Errors
/// When the example cannot be run.
pub fn costs(effort: &Effort) -> Result<Value> {
    let rounds = (effort.rounds * 10).to_string();
    let printed = progress::read(
        example(effort, "costs")
            .args([guests::path("hello"), guests::path("hello-p3")])
            .args(["--rounds", &rounds]),
    )?;
    serde_json::from_str(&printed).context("reading what the costs example printed")
}

/// Settings of the engine, one changed at a time, with a fresh instance for each request: where ours come from.
pub fn sweep(effort: &Effort) -> Result<Value> {
    let settings: [(&'static str, &'static [&'static str]); 9] = [
        ("ours", &[]),
        (
            "no pages kept",
            &["--keep-resident", "0", "--table-keep-resident", "0"],
        ),
        ("64 KiB of memory kept", &["--keep-resident", "65536"]),
        ("4 MiB of memory kept", &["--keep-resident", "4194304"]),
        ("no table pages kept", &["--table-keep-resident", "0"]),
        ("without PAGEMAP_SCAN", &["--no-pagemap"]),
        ("epoch of 5 ms", &["--epoch-micros", "5000"]),
        ("epoch of 10 ms", &["--epoch-micros", "10000"]),
        ("8,000 slots", &["--instances", "8000"]),
    ];
    let cases: Vec<Case> = settings
        .into_iter()
        .map(|(name, flags)| {
            let peers: &[&str] = if name == "ours" { &[] } else { &["ours"] };
            weft(effort, name, "hello", &[&FRESH[..], flags].concat(), peers)
        })
        .collect();
    load::measure(&cases, effort)
}

fn example(effort: &Effort, name: &str) -> Command {
    let mut command = Command::new(effort.programs.join("examples").join(name));
    progress::clean_environment(&mut command);
    // Captured stacks cost either side a third of its requests.
    command.env("RUST_BACKTRACE", "0").stdin(Stdio::null());
    command
}

fn weft(
    effort: &Effort,
    name: &'static str,
    guest: &'static str,
    flags: &[&'static str],
    peers: &[&'static str],
) -> Case<'static> {
    let flags = flags.to_vec();
    let effort = effort.clone();
    Case {
        name,
        peers: peers.to_vec(),
        serve: Box::new(move || {
            let mut process = example(&effort, "serve")
                .arg(guests::path(guest))
                .args(["--addr", "127.0.0.1:0"])
                .args(&flags)
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start the serve example")?;
            let mut line = String::new();
            let mut stdout = BufReader::new(process.stdout.take().context("its output is piped")?);
            stdout.read_line(&mut line)?;
            let server = Server::new(process);
            let Some((_, address)) = line.trim().rsplit_once("http://") else {
                bail!("the serve example did not start");
            };
            Ok(Target {
                url: format!("http://{address}/"),
                connect: address.to_owned(),
                host: None,
                process: server.id(),
                server: Some(server),
            })
        }),
    }
}

pub fn render(results: &Value) -> String {
    let mut text = format!("\nThe runtime alone\n{}", load::render(&results["serving"]));
    text += "\nWhat the parts of a call cost, without sockets, nanoseconds\n";
    for (name, key) in [("WASI 0.2", "hello"), ("WASI 0.3", "hello-p3")] {
        let costs = &results["costs"][key];
        text += &format!(
            "  {name}: instantiation {:.0}, whole call {:.0} fresh and {:.0} reused, same-pod call {:.0}\n",
            number(&costs["instantiation_ns"]),
            number(&costs["call_fresh_ns"]),
            number(&costs["call_reused_ns"]),
            number(&costs["same_pod_call_ns"]),
        );
    }
    text += &format!(
        "  a host call: {:.0}\n",
        number(&results["costs"]["host_call_ns"])
    );
    text
}
