//! What a tenant that burns every core costs its neighbour on the same node.
//!
//! The neighbour answers one line over a few connections, by turns alone and beside as many endless loops as there are cores and
//! two more. The loops run into their deadline and are sent again. The ratio is the median of the rounds' ratios; the load
//! generator needs a share of the cores too, so the throughput tells as much about it as about the neighbour.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Effort, NAMESPACE, deployment, load, median, number, ready, service, start};
use crate::cluster::Cluster;
use crate::progress::Waiting;

const CONNECTIONS: u16 = 4;

pub fn measure(effort: &Effort) -> Result<Value> {
    let cluster = start("bench-neighbour", 1)?;
    cluster.apply(&[
        deployment("neighbour", "hello", Some("per-request"), None),
        service("neighbour"),
        deployment("burner", "probe", Some("per-request"), None),
        service("burner"),
    ])?;
    ready(&cluster, &["neighbour", "burner"])?;
    let loops = std::thread::available_parallelism().map_or(1, usize::from) + 2;
    let mut waiting = Waiting::new();
    let mut ratios = [const { Vec::new() }; 3];
    let mut last = [Value::Null, Value::Null];
    for round in 1..=effort.rounds {
        waiting.show(format!("round {round} of {}: alone", effort.rounds));
        let alone = neighbour(&cluster, effort)?;
        waiting.show(format!(
            "round {round} of {}: beside {loops} endless loops",
            effort.rounds
        ));
        let url = cluster.url(&format!("burner.{NAMESPACE}.localhost"), "/loop");
        // Longer than the neighbour is measured, so that it burns from the first to the last request.
        let seconds = (effort.seconds + effort.warmup + 2.0).to_string();
        let (loops, none) = (loops.to_string(), "0");
        let burning = [
            "--connections",
            &loops,
            "--seconds",
            &seconds,
            "--warmup",
            none,
        ];
        let burning = cluster.load(&url, &burning)?;
        let beside = neighbour(&cluster, effort)?;
        // It never gets an answer but the refusal at its deadline; that nobody answered at all is as good.
        drop(burning.finish());
        for (ratios, pointer) in
            ratios
                .iter_mut()
                .zip(["/latency_us/p50", "/latency_us/p99", "/requests_per_second"])
        {
            let of = |value: &Value| value.pointer(pointer).map_or(f64::NAN, number);
            ratios.push(of(&beside) / of(&alone));
        }
        last = [alone, beside];
    }
    drop(waiting);
    cluster.stop()?;
    let [p50, p99, rate] = ratios.map(median);
    Ok(json!({
        "ratio_p50": p50, "ratio_p99": p99, "ratio_requests_per_second": rate,
        "alone": last[0]["latency_us"], "beside": last[1]["latency_us"],
    }))
}

fn neighbour(cluster: &Cluster, effort: &Effort) -> Result<Value> {
    let url = cluster.url(&format!("neighbour.{NAMESPACE}.localhost"), "/");
    let gateway = cluster.gateway_address();
    load::send(&url, gateway, CONNECTIONS, effort.seconds, effort.warmup).context("the neighbour")
}

pub fn render(results: &Value) -> String {
    let mut text = "\nBeside a tenant that burns every core\n".to_owned();
    for (name, key) in [("alone", "alone"), ("beside it", "beside")] {
        text += &format!(
            "  {name:<38} p50 {:>6.0} us   p99 {:>6.0} us\n",
            number(&results[key]["p50"]),
            number(&results[key]["p99"])
        );
    }
    text + &format!(
        "  {:<38} p50 {:>6.2}      p99 {:>6.2}      requests {:.2}\n",
        "ratio, median of the rounds",
        number(&results["ratio_p50"]),
        number(&results["ratio_p99"]),
        number(&results["ratio_requests_per_second"])
    )
}
