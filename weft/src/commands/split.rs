//! `weft split`: leads the callers of a Service to several Services, by shares.
//!
//! An HTTPRoute of the Service's name does it, whose parent is the Service; one that somebody else made for something else is left alone.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::object::Resource;
use super::rollout::Output;
use crate::exit::Failure;
use crate::kubeconfig::ClientArgs;
use crate::stdout;

const ROUTES: &str = "gateway.networking.k8s.io/v1/httproutes";
const SERVICES: &str = "v1/services";
/// On routes that this command made.
const MADE_BY: &str = "weft.dev/split";
/// Most shares; as many backends as a rule may have.
const SHARES_MAX: usize = 16;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Service whose callers are led
    service: String,
    /// Where to, as `web-1=90 web-2=10`; nothing shows the shares that there are
    #[arg(value_name = "SERVICE=WEIGHT", conflicts_with = "off")]
    shares: Vec<String>,
    /// Its callers reach it again
    #[arg(long)]
    off: bool,
    /// The port of the Services [default: the first one of the Service]
    #[arg(long)]
    port: Option<u16>,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Print the route as JSON
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When a share is none, the Service is not there, or another route has its name.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let shares = shares(&args.shares).map_err(|why| {
        let next = "say it as `weft split web web-1=90 web-2=10`";
        Failure::new("cannot split", why, next).usage()
    })?;
    let namespace = args.namespace.as_deref();
    let routes = Resource::open(&args.client, namespace, ROUTES, "route").await?;
    let name = &args.service;
    let there = routes.find(name).await?;
    let is_ours = |route: &Value| !route["metadata"]["annotations"][MADE_BY].is_null();
    if let Some(other) = there.as_ref().filter(|route| !is_ours(route)) {
        let owner = &other["metadata"]["ownerReferences"][0];
        let why = match owner["kind"].as_str() {
            Some(kind) => {
                let owner = owner["name"].as_str().unwrap_or_default();
                format!("{kind} {owner} leads the callers of Service {name}")
            }
            None => format!("HTTPRoute {name} was not made by this command"),
        };
        let next = "change that one, or delete it first";
        return Err(Failure::new(format!("cannot split {name}"), why, next).into());
    }
    if args.off {
        routes.delete(name).await?;
        stdout::line(format_args!("callers of {name} reach it"))?;
        return Ok(());
    }
    if shares.is_empty() {
        let route = there.unwrap_or_default();
        stdout::text(&told(name, &route, args.output))?;
        return Ok(());
    }
    let services = routes.beside(SERVICES, "service");
    let service = services.get(name).await?;
    for (to, _) in &shares {
        services.get(to).await?;
    }
    let first = service["spec"]["ports"][0]["port"].as_u64();
    let port = args.port.map(u64::from).or(first).unwrap_or(80);
    let spec = spec(name, port, &shares);
    let route = match &there {
        Some(_) => routes.patch(name, &json!({ "spec": spec })).await?,
        None => {
            let route = json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": name, "annotations": {MADE_BY: "true"}},
                "spec": spec,
            });
            routes.create(&route).await?
        }
    };
    stdout::text(&told(name, &route, args.output))?;
    Ok(())
}

/// Services and weights.
fn shares(words: &[String]) -> Result<Vec<(String, u64)>, String> {
    if words.len() > SHARES_MAX {
        return Err(format!("{} shares are more than {SHARES_MAX}", words.len()));
    }
    let share = |word: &String| {
        let (service, weight) = word
            .split_once('=')
            .ok_or_else(|| format!("{word} is no SERVICE=WEIGHT"))?;
        let weight = weight.trim_end_matches('%').parse::<u64>().ok();
        let weight = weight.filter(|weight| *weight <= 1_000_000);
        let weight = weight.ok_or_else(|| format!("{word} has no weight from 0 to 1000000"))?;
        Ok((service.to_owned(), weight))
    };
    let all: Vec<(String, u64)> = words.iter().map(share).collect::<Result<_, String>>()?;
    if !all.is_empty() && all.iter().all(|(_, weight)| *weight == 0) {
        return Err("all weights are 0: nobody would be called".to_owned());
    }
    Ok(all)
}

fn spec(service: &str, port: u64, shares: &[(String, u64)]) -> Value {
    let backends: Vec<Value> = shares
        .iter()
        .map(|(name, weight)| json!({"name": name, "port": port, "weight": weight}))
        .collect();
    json!({
        "parentRefs": [{"group": "", "kind": "Service", "name": service, "port": port}],
        "rules": [{"backendRefs": backends}],
    })
}

/// Where callers go, as the route has it.
fn told(service: &str, route: &Value, output: Option<Output>) -> String {
    if output == Some(Output::Json) {
        return format!("{route}\n");
    }
    let backends = route["spec"]["rules"][0]["backendRefs"].as_array();
    let Some(backends) = backends.filter(|backends| !backends.is_empty()) else {
        return format!("callers of {service} reach it\n");
    };
    let weight = |backend: &Value| backend["weight"].as_u64().unwrap_or(1);
    let sum: u64 = backends.iter().map(weight).sum();
    let mut text = format!("callers of {service} reach\n");
    for backend in backends {
        let share = weight(backend) as f64 * 100.0 / sum.max(1) as f64;
        let name = backend["name"].as_str().unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {share:>5.1} %  {name}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_services_with_weights() {
        let found = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            shares(&words)
        };
        let all = found(&["a=90", "b=10%"]).unwrap();
        assert_eq!(all, [("a".to_owned(), 90), ("b".to_owned(), 10)]);
        for (words, why) in [
            (&["a"][..], "a is no SERVICE=WEIGHT"),
            (&["a=x"], "a=x has no weight from 0 to 1000000"),
            (&["a=0", "b=0"], "all weights are 0: nobody would be called"),
        ] {
            assert_eq!(found(words).unwrap_err(), why);
        }
        let route = json!({ "spec": spec("web", 80, &all) });
        insta::assert_snapshot!(told("web", &route, None), @r"
        callers of web reach
           90.0 %  a
           10.0 %  b
        ");
        assert_eq!(told("web", &Value::Null, None), "callers of web reach it\n");
    }
}
