//! What the mesh itself costs, with no policy, the usual ones and all of them, and what it promises of services that are down, slow or failing.
//!
//! `mesh/examples/paths` is two meshes in one process whose workloads answer at once: what is measured is the mesh alone, which `calls` sees
//! beside guests. A build of it in `--programs` is measured as it is.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Effort, number};
use crate::progress;

pub fn measure(effort: &Effort) -> Result<Value> {
    if !effort.is_built {
        let mut cargo =
            progress::cargo(["build", "--release", "--workspace", "--example", "paths"]);
        progress::run(&mut cargo, "read the compiler's messages above")?;
    }
    let mut paths = Command::new(effort.programs.join("examples/paths"));
    if effort.quick {
        paths.arg("--quick");
    }
    let told = progress::read(&mut paths)?;
    serde_json::from_str(&told).context("reading what the bench prints")
}

pub fn render(results: &Value) -> String {
    let at = |pointer: &str| results.pointer(pointer).map_or(f64::NAN, number);
    let mut text = format!(
        "\nThe mesh alone, microseconds a call (TCP alone: {:.1})\n  {:<24} {:>8} {:>8} {:>14}\n",
        at("/paths/loopback_tcp/p50_us"),
        "",
        "p50",
        "p99",
        "beside no policy"
    );
    for (name, key) in [
        ("same node", "same_node"),
        ("other node, mTLS", "other_node"),
    ] {
        for case in ["none", "usual", "all"] {
            let ratio = match case {
                "none" => 1.0,
                case => at(&format!("/paths/{key}/{case}_ratio")),
            };
            text += &format!(
                "  {:<24} {:>8.2} {:>8.2} {ratio:>14.2}\n",
                format!("{name}, {case}"),
                at(&format!("/paths/{key}/{case}/p50_us")),
                at(&format!("/paths/{key}/{case}/p99_us")),
            );
        }
    }
    text += "  64 at once, one core          calls/s   CPU ms per 1,000\n";
    for case in ["here-none", "here-all", "there-none", "there-all"] {
        text += &format!(
            "  {case:<28} {:>8.0} {:>18.2}\n",
            at(&format!("/throughput/{case}/calls_per_second")),
            at(&format!("/throughput/{case}/cpu_seconds_per_1000")) * 1e3,
        );
    }
    text += &format!(
        "  a pair that calls each other: {:.0} bytes\n  1,000 services × 10 endpoints, 1,000 routes and policies, compiled\n",
        at("/edges/bytes_per_pair"),
    );
    for (name, key) in [
        ("at Services", "services"),
        ("at hosts of a Gateway", "gateway"),
    ] {
        let at = |figure: &str| at(&format!("/tables/{key}/{figure}_ms"));
        text += &format!(
            "    {name:<22} {:.1} ms; one service: {:.3} ms; one route: {:.3} ms\n",
            at("whole"),
            at("one_service"),
            at("one_route"),
        );
    }
    for (case, ratio) in results["down"].as_object().into_iter().flatten() {
        text += &format!("  {case}: {:.3} tries a call\n", number(ratio));
    }
    for bad in ["failing", "slow"] {
        text += &format!(
            "  one of ten is {bad}: {:.3} % errors, p99 {:.2} times\n",
            at(&format!("/one_of_ten/{bad}/errors")) * 100.0,
            at(&format!("/one_of_ten/{bad}/p99_ratio")),
        );
    }
    text += &format!(
        "  an endpoint that is removed is last called {:.0} µs after\n",
        at("/removed/last_call_us_after")
    );
    text
}
