//! The API server under load: writes, applies and custom objects, whole lists and pages, thousands of watchers, leases beside clients that do nothing but list.
//!
//! `apiserver/examples/load` is both the server, in a process of its own, and all clients; they share the machine. A round is a
//! new store. Where kube-apiserver and etcd are found ([`crate::kube_apiserver`]), each round asks them the same, with the same clients, after or before
//! weft in turn; a ratio is the median of the rounds' ratios. What is told are medians of the rounds; all rounds are in the document. CPU is that of
//! all processes of a server, etcd's with kube-apiserver's; it does not depend on what the clients beside it cost.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Effort, median, number};
use crate::kube_apiserver::{self, KubeApiserver, Setup};
use crate::progress::{self, Waiting};

/// Rounds at most: one takes a minute or two, and three agree well enough.
const ROUNDS_MAX: usize = 3;
/// As in the program that is run.
pub const SETUP: Setup<'_> = Setup {
    token: "bench",
    etcd_flags: &[],
    flags: &[
        "--authorization-mode=RBAC",
        // Nobody makes service accounts here, and pods are bound when they are made.
        "--disable-admission-plugins=ServiceAccount",
    ],
};

pub fn measure(effort: &Effort) -> Result<Value> {
    // As it is released: what is measured beside is a release, too.
    if !effort.is_built {
        let mut cargo = progress::cargo(["build", "--release", "--workspace", "--example", "load"]);
        progress::run(&mut cargo, "read the compiler's messages above")?;
    }
    let program = program(effort);
    let dir = PathBuf::from("target/bench-api");
    let mut waiting = Waiting::new();
    let rounds = effort.rounds.min(ROUNDS_MAX);
    let binaries = kube_apiserver::found();
    if binaries.is_none() {
        eprintln!(
            "      kube-apiserver and etcd are not in $WEFT_ORACLE or ../.oracle: nothing to compare with"
        );
    }
    let load = |dir: &PathBuf, server: &[&str]| -> Result<Value> {
        let mut load = Command::new(&program);
        load.arg("--dir").arg(dir).args(server);
        if effort.quick {
            load.arg("--quick");
        }
        let row = progress::read(&mut load)?;
        serde_json::from_str(&row).context("reading what the load prints")
    };
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        for turn in 0..2 {
            let peers = (round + turn) % 2 == 1;
            let name = if peers { "kube-apiserver" } else { "weft" };
            if peers && binaries.is_none() {
                continue;
            }
            waiting.show(format!("round {} of {rounds}: {name}", round + 1));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir_all(&dir)?;
            match binaries.as_ref().filter(|_| peers) {
                Some(binaries) => {
                    let peer = KubeApiserver::start(binaries, &dir, &SETUP)?;
                    let (pid, port) = (peer.pid().to_string(), peer.port.to_string());
                    let etcd = peer.etcd_pid().to_string();
                    let server = ["--pid", &pid, "--port", &port, "--beside", &etcd];
                    theirs.push(load(&dir, &server)?);
                }
                None => ours.push(load(&dir, &[])?),
            }
        }
    }
    drop(waiting);
    let _ = std::fs::remove_dir_all(&dir);
    let mut document = middle(&ours);
    if !theirs.is_empty() {
        document["kube_apiserver"] = middle(&theirs);
        let ratios: Vec<Value> = ours.iter().zip(&theirs).map(ratio).collect();
        document["of_kube_apiserver"] = merged(&ratios);
    }
    Ok(document)
}

fn program(effort: &Effort) -> PathBuf {
    effort.programs.join("examples/load")
}

/// One short round of everything, by a server alone.
pub fn serve(effort: &Effort) -> Result<()> {
    let dir = crate::target().join("bench-api");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let mut load = Command::new(program(effort));
    let told = progress::read(load.arg("--quick").arg("--dir").arg(&dir));
    let _ = std::fs::remove_dir_all(&dir);
    told.map(drop)
}

/// Each number of ours as a part of theirs.
fn ratio((ours, theirs): (&Value, &Value)) -> Value {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            let both = ours.iter().filter_map(|(key, ours)| {
                let theirs = theirs.get(key)?;
                Some((key.clone(), ratio((ours, theirs))))
            });
            Value::Object(both.collect())
        }
        (Value::Array(ours), Value::Array(theirs)) => ours.iter().zip(theirs).map(ratio).collect(),
        (ours, theirs) if theirs.as_f64().is_some_and(|theirs| theirs != 0.0) => {
            json!(number(ours) / number(theirs))
        }
        _ => Value::Null,
    }
}

/// The same document, with each number the median of the rounds', and the rounds themselves beside it.
fn middle(rows: &[Value]) -> Value {
    let mut document = merged(rows);
    document["rounds"] = json!(rows);
    document
}

fn merged(rows: &[Value]) -> Value {
    match rows.first() {
        Some(Value::Object(first)) => {
            let of = |key: &String| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
            let members = first.keys().map(|key| (key.clone(), merged(&of(key))));
            Value::Object(members.collect())
        }
        Some(Value::Array(first)) => {
            let of = |at| rows.iter().map(|row| row[at].clone()).collect::<Vec<_>>();
            (0..first.len()).map(|at| merged(&of(at))).collect()
        }
        Some(Value::Number(_)) => json!(median(rows.iter().map(number).collect())),
        Some(other) => other.clone(),
        None => Value::Null,
    }
}

pub fn render(results: &Value) -> String {
    let mut text = "\nThe API server, its clients on the same machine\n".to_owned();
    text += &told(results);
    let peer = results.get("kube_apiserver");
    if let Some(peer) = peer {
        text += "\nkube-apiserver and etcd, asked the same in the same rounds\n";
        text += &told(peer);
    }
    if let Some(ratios) = results.get("of_kube_apiserver") {
        text += &compared(ratios);
    }
    text
}

/// What matters of ours, as parts of theirs.
fn compared(ratios: &Value) -> String {
    let at = |pointer: &str| ratios.pointer(pointer).map_or(f64::NAN, number);
    let mut text = "\nweft's, of kube-apiserver's (medians of the rounds)\n".to_owned();
    for (what, pointer) in [
        ("pods made by one client", "/writes/creates/0/per_second"),
        ("the same, p99", "/writes/creates/0/p99_ms"),
        ("the same, CPU", "/writes/creates/0/server_cpu_us_each"),
        ("pods made by 16 clients", "/writes/creates/1/per_second"),
        ("the same, p99", "/writes/creates/1/p99_ms"),
        ("the same, CPU", "/writes/creates/1/server_cpu_us_each"),
        ("pods made by 128 clients", "/writes/creates/2/per_second"),
        ("the same, p99", "/writes/creates/2/p99_ms"),
        ("the same, CPU", "/writes/creates/2/server_cpu_us_each"),
        ("server-side applies", "/writes/applies/per_second"),
        ("the same, p99", "/writes/applies/p99_ms"),
        (
            "custom objects under rules, made",
            "/writes/custom/made/per_second",
        ),
        ("the same, changed", "/writes/custom/changed/per_second"),
        ("the same, listed", "/writes/custom/listed_ms"),
        ("memory at rest", "/idle/resident_bytes"),
        ("all pods listed, seconds", "/lists/seconds"),
        ("all pods listed, CPU", "/lists/server_cpu_seconds"),
        ("memory at most, lists at once", "/lists/peak_bytes_at_once"),
        ("a page at the front, ms", "/lists/page_ms/first"),
        ("a lease beside lists, p50", "/leases/1/p50_ms"),
        ("a lease beside lists, p99", "/leases/1/p99_ms"),
        ("watchers by node, p99", "/watches_by_node/2/p99_ms"),
        (
            "watchers by node, CPU a change",
            "/watches_by_node/2/server_cpu_us_per_change",
        ),
        (
            "fewer watchers of one object, updates a second",
            "/one_object/0/updates_per_second",
        ),
        ("the same, p99", "/one_object/0/p99_ms"),
        (
            "many watchers of one object, updates a second",
            "/one_object/1/updates_per_second",
        ),
        ("the same, p99", "/one_object/1/p99_ms"),
        ("memory after large values", "/values/resident_bytes"),
    ] {
        text += &format!("  {what}: {:.2}\n", at(pointer));
    }
    text
}

fn told(results: &Value) -> String {
    let at = |pointer: &str| results.pointer(pointer).map_or(f64::NAN, number);
    let mb = |pointer: &str| at(pointer) / 1e6;
    let rows = |pointer: &str| results.pointer(pointer).and_then(Value::as_array);
    let mut text = format!(
        "  nobody asks anything: {:.1} MB, {:.2} % of a processor\n",
        mb("/idle/resident_bytes"),
        at("/idle/cores") * 100.0,
    );
    let written = |what: &str, row: &Value| {
        let clients = row.get("clients_cpu_us_each").map(number);
        let clients = clients.map(|cpu| format!(" and {cpu:.0} of the clients'"));
        format!(
            "  {what} by {:.0} clients: {:.0} a second, p99 {:.1} ms, {:.0} µs of CPU each{}\n",
            number(&row["clients"]),
            number(&row["per_second"]),
            number(&row["p99_ms"]),
            number(&row["server_cpu_us_each"]),
            clients.unwrap_or_default(),
        )
    };
    for row in rows("/writes/creates").into_iter().flatten() {
        text += &written("pods made", row);
    }
    text += &written("server-side applies", &results["writes"]["applies"]);
    text += &written(
        &format!(
            "{:.0} custom objects under rules, made",
            at("/writes/custom/objects")
        ),
        &results["writes"]["custom"]["made"],
    );
    text += &written("the same, changed", &results["writes"]["custom"]["changed"]);
    text += &format!(
        "  the same, listed: {:.1} MB in {:.0} ms; the definition was served after {:.0} ms\n",
        mb("/writes/custom/listed_bytes"),
        at("/writes/custom/listed_ms"),
        at("/writes/custom/served_after_ms"),
    );
    text += &format!(
        "  {:.0} pods listed whole: {:.1} MB in {:.0} ms, {:.0} MB/s, {:.0} ms of CPU; {:.0} clients at once {:.0} MB/s\n",
        at("/lists/pods"),
        mb("/lists/bytes"),
        at("/lists/seconds") * 1e3,
        mb("/lists/bytes_per_second"),
        at("/lists/server_cpu_seconds") * 1e3,
        at("/lists/clients_at_once"),
        mb("/lists/bytes_per_second_at_once"),
    );
    text += &format!(
        "  memory: {:.0} MB before, at most {:.0} with one list, {:.0} with {:.0} at once\n",
        mb("/lists/resident_bytes_before"),
        mb("/lists/peak_bytes_one"),
        mb("/lists/peak_bytes_at_once"),
        at("/lists/clients_at_once"),
    );
    text += &format!(
        "  a page of {:.0}: {:.1} ms at the front, {:.1} in the middle, {:.1} at the end\n",
        at("/lists/page_objects"),
        at("/lists/page_ms/first"),
        at("/lists/page_ms/middle"),
        at("/lists/page_ms/last"),
    );
    for row in rows("/watches_by_node").into_iter().flatten() {
        text += &format!(
            "  {:.0} watchers by node of {:.0} pod changes a second, {:.0} others not concerned: p50 {:.1} ms, p99 {:.1} ms, {:.0} µs of CPU a change, {:.0} MB\n",
            number(&row["concerned"]),
            number(&row["changes_per_second"]),
            number(&row["idle"]),
            number(&row["p50_ms"]),
            number(&row["p99_ms"]),
            number(&row["server_cpu_us_per_change"]),
            number(&row["resident_bytes"]) / 1e6,
        );
    }
    for row in rows("/one_object").into_iter().flatten() {
        text += &format!(
            "  {:.0} watchers of one ConfigMap, {:.0} updates a second: p50 {:.1} ms, p99 {:.1} ms, {:.1} µs of CPU an event\n",
            number(&row["watchers"]),
            number(&row["updates_per_second"]),
            number(&row["p50_ms"]),
            number(&row["p99_ms"]),
            number(&row["server_cpu_us_per_event"]),
        );
    }
    for row in rows("/leases").into_iter().flatten() {
        text += &format!(
            "  a lease renewed beside {:.0} clients that list everything: p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms\n",
            number(&row["listers"]),
            number(&row["p50_ms"]),
            number(&row["p99_ms"]),
            number(&row["max_ms"]),
        );
    }
    text += &format!(
        "  {:.0} large values of {:.1} MB in all: listed in {:.0} ms; {:.0} MB before they were written, {:.0} MB after\n",
        at("/values/objects"),
        mb("/values/bytes"),
        at("/values/seconds") * 1e3,
        mb("/values/resident_bytes_before"),
        mb("/values/resident_bytes"),
    );
    text += &format!(
        "  memory at the end {:.0} MB, at most {:.0}\n",
        mb("/resident_bytes"),
        mb("/peak_bytes")
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_of_medians_has_the_form_of_each_round() {
        let round = |n: u32| json!({"a": {"b": n}, "c": [{"d": n * 2}], "name": "x"});
        let middle = merged(&[round(1), round(9), round(2)]);
        assert_eq!(
            middle,
            json!({"a": {"b": 2.0}, "c": [{"d": 4.0}], "name": "x"})
        );
        assert_eq!(
            ratio((&round(1), &round(4))),
            json!({"a": {"b": 0.25}, "c": [{"d": 0.25}], "name": null})
        );
    }
}
