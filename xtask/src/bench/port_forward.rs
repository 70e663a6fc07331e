//! How fast bytes pass a forwarded port, beside proxies of our own that do nothing else.
//!
//! Client, server, node and component share the machine, and each byte is ciphered and deciphered twice on its way (client to server, server to node); so the
//! way is measured beside two others in the same rounds: a proxy that copies between plain connections, which is the bound that can be reached
//! by nobody who enciphers, and one that has TLS on both of its sides (`weft/examples/streams.rs` is all of these). The ratios are those of the rounds.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::sessions::{asked, client, serve};
use super::{Effort, NAMESPACE, median, number};
use crate::cluster::Cluster;
use crate::guests;

const PORT: &str = "9000";

pub fn measure(effort: &Effort) -> Result<Value> {
    let client = client(effort);
    let program = effort.programs.join("weft");
    let cluster = Cluster::start_program(&program, "bench-port-forward", 1, false)?;
    cluster.push(&guests::path("echo"), "bench/echo:0.1")?;
    serve(&cluster, "echo", "bench/echo:0.1", &["echo", PORT])?;
    let mib = effort.forwarded_mib.to_string();
    let mut told = Map::new();
    for way in ["up", "down"] {
        let kinds: [(&str, &[&str]); 3] = [
            (
                "forwarded",
                &["forward", NAMESPACE, "echo", PORT, way, &mib],
            ),
            ("plain", &["plain", way, &mib]),
            ("tls", &["tls", way, &mib]),
        ];
        let mut rounds: Vec<[f64; 3]> = Vec::new();
        for round in 0..=effort.rounds {
            let mut rates = [0.0; 3];
            for turn in 0..kinds.len() {
                let kind = (turn + round) % kinds.len();
                let (_, words) = kinds[kind];
                rates[kind] = number(&asked(&cluster, &client, words)?["mb_per_second"]);
            }
            // The first warms up.
            if round > 0 {
                rounds.push(rates);
            }
        }
        let of = |pick: &dyn Fn(&[f64; 3]) -> f64| median(rounds.iter().map(pick).collect());
        told.insert(
            way.to_owned(),
            json!({
                "forwarded_mb_per_second": of(&|rates| rates[0]),
                "plain_mb_per_second": of(&|rates| rates[1]),
                "tls_mb_per_second": of(&|rates| rates[2]),
                "of_plain": of(&|rates| rates[0] / rates[1]),
                "of_tls": of(&|rates| rates[0] / rates[2]),
            }),
        );
    }
    cluster.stop()?;
    Ok(Value::Object(told))
}

pub fn render(forwarded: &Value) -> String {
    let mut text = String::from("\nBytes through a forwarded port\n");
    for (way, what) in [("up", "to the pod"), ("down", "from the pod")] {
        let of = |key: &str| number(&forwarded[way][key]);
        text += &format!(
            "  {what:<14} {:>7.0} MB/s; a proxy that copies {:.0} ({:.2} of it), one with TLS on both sides {:.0} ({:.2} of it)\n",
            of("forwarded_mb_per_second"),
            of("plain_mb_per_second"),
            of("of_plain"),
            of("tls_mb_per_second"),
            of("of_tls"),
        );
    }
    text
}
