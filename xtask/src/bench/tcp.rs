//! TCP through the gateway to a component, beside nginx' stream module before a server of our own: bytes each way, and connections a second.
//!
//! Both are a listener, a way on, and who takes what comes. weft's other end is the component `echo` in the node itself, nginx' a process of its
//! own that does the same (`weft/examples/streams.rs`, which is the client, too); client and servers share the machine. Each is measured in every
//! round, by turns; the ratios are those of the rounds.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::load::Server;
use super::sessions::{asked, client, serve};
use super::{Effort, NAMESPACE, median, nginx, number, peers};
use crate::cluster::{self, Cluster};
use crate::guests;
use crate::progress;

/// Where the component listens, and the gateway for it.
const PORT: u16 = 9000;
/// Connections that are opened one after the other in a round.
const CONNECTIONS: u32 = 2_000;

pub fn measure(effort: &Effort) -> Result<Value> {
    let client = client(effort);
    let program = effort.programs.join("weft");
    let cluster = Cluster::start_program(&program, "bench-tcp", 1, false)?;
    cluster.push(&guests::path("echo"), "bench/echo:0.1")?;
    serve(
        &cluster,
        "echo",
        "bench/echo:0.1",
        &["echo", &PORT.to_string()],
    )?;
    let through = published(&cluster)?;
    // What nginx passes on to, if there is one.
    let beside = peers::nginx_stream().map(|(program, module)| {
        let (server, port) = native(&client)?;
        let (nginx, listens) = nginx::pass(&program, &module, port)?;
        anyhow::Ok((server, nginx, format!("127.0.0.1:{listens}")))
    });
    let beside = beside.transpose()?;
    let mut ways = vec![("weft", through)];
    ways.extend(beside.iter().map(|(_, _, at)| ("nginx", at.clone())));
    let mib = effort.forwarded_mib.to_string();
    let connections = match effort.quick {
        true => CONNECTIONS / 10,
        false => CONNECTIONS,
    };
    let connections = connections.to_string();
    let mut told = Map::new();
    for (what, words, rate) in [
        (
            "to the component",
            ["straight", "up", &mib],
            "mb_per_second",
        ),
        (
            "from the component",
            ["straight", "down", &mib],
            "mb_per_second",
        ),
        ("connections", ["opens", &connections, ""], "per_second"),
    ] {
        let mut rounds: Vec<Vec<f64>> = Vec::new();
        for round in 0..=effort.rounds {
            let mut rates = vec![0.0; ways.len()];
            for turn in 0..ways.len() {
                let way = (turn + round) % ways.len();
                let [word, rest @ ..] = words;
                let rest = rest.into_iter().filter(|word| !word.is_empty());
                let all: Vec<&str> = [word, &ways[way].1].into_iter().chain(rest).collect();
                rates[way] = number(&asked(&cluster, &client, &all)?[rate]);
            }
            // The first warms up.
            if round > 0 {
                rounds.push(rates);
            }
        }
        let of =
            |pick: &dyn Fn(&[f64]) -> f64| median(rounds.iter().map(|rates| pick(rates)).collect());
        let mut result = json!({"weft": of(&|rates| rates[0])});
        if ways.len() > 1 {
            result["nginx"] = json!(of(&|rates| rates[1]));
            result["of_nginx"] = json!(of(&|rates| rates[0] / rates[1]));
        }
        told.insert(what.to_owned(), result);
    }
    cluster.stop()?;
    Ok(Value::Object(told))
}

/// A Gateway for TCP that leads to the component; where it listens.
fn published(cluster: &Cluster) -> Result<String> {
    let metadata = json!({"name": "echo", "namespace": NAMESPACE});
    let group = "gateway.networking.k8s.io/v1";
    cluster.apply(&[
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": {"app": "echo"}, "ports": [{"port": PORT}]},
        }),
        json!({
            "apiVersion": group, "kind": "GatewayClass", "metadata": {"name": "bench"},
            "spec": {"controllerName": "weft.dev/gateway-controller"},
        }),
        json!({
            "apiVersion": group, "kind": "Gateway", "metadata": metadata,
            "spec": {"gatewayClassName": "bench", "listeners": [{"name": "tcp", "port": PORT, "protocol": "TCP"}]},
        }),
        json!({
            "apiVersion": group, "kind": "TCPRoute", "metadata": metadata,
            "spec": {"parentRefs": [{"name": "echo"}], "rules": [{"backendRefs": [{"name": "echo", "port": PORT}]}]},
        }),
    ])?;
    let started = std::time::Instant::now();
    while started.elapsed() < cluster::ROLLOUT_PATIENCE {
        let gateways = cluster.get(NAMESPACE, "gateways")?;
        let address = gateways.iter().find_map(|gateway| {
            let address = gateway["status"]["addresses"][0]["value"].as_str()?;
            Some(format!("{address}:{PORT}"))
        });
        if let Some(address) = address
            && std::net::TcpStream::connect(&address).is_ok()
        {
            return Ok(address);
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    anyhow::bail!("the Gateway has no address where anybody listens")
}

/// A process that does what the component does; and its port.
fn native(client: &std::path::Path) -> Result<(Server, u16)> {
    let mut command = Command::new(client);
    command.arg("serve").stdin(Stdio::null());
    progress::clean_environment(&mut command);
    let mut process = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start the server behind nginx")?;
    let out = process.stdout.take().context("what it says")?;
    let server = Server::new(process);
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    let port = line.trim().parse().context("the port that it says")?;
    Ok((server, port))
}

pub fn render(tcp: &Value) -> String {
    let mut text = String::from("\nTCP through the gateway\n");
    for (what, unit) in [
        ("to the component", "MB/s"),
        ("from the component", "MB/s"),
        ("connections", "a second"),
    ] {
        let of = |key: &str| number(&tcp[what][key]);
        text += &format!("  {what:<20} {:>8.0} {unit}", of("weft"));
        if tcp[what].get("nginx").is_some() {
            text += &format!("; nginx {:.0} ({:.2} of it)", of("nginx"), of("of_nginx"));
        }
        text.push('\n');
    }
    text
}
