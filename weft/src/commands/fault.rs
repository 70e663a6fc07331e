//! `weft fault`: spoils calls of a Service on purpose, for a time: some wait, some are answered with a status.
//!
//! A FaultInjection of the Service's name does it, and ends by itself.

use serde_json::{Value, json};

use super::object::Resource;
use super::rollout::Output;
use crate::exit::Failure;
use crate::kubeconfig::ClientArgs;
use crate::stdout;

const FAULTS: &str = "weft.dev/v1alpha1/faultinjections";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The Service whose calls are spoiled
    service: String,
    /// Calls wait for so long, as `200ms`, or `200ms:50%` of them
    #[arg(long, value_name = "TIME[:PERCENT]")]
    delay: Option<String>,
    /// Calls are answered with a status, as `503`, or `503:10%` of them
    #[arg(long, value_name = "STATUS[:PERCENT]")]
    abort: Option<String>,
    /// Only calls of this ServiceAccount, as `cart` or `shop/cart`; may be given again
    #[arg(long = "from", value_name = "ACCOUNT")]
    callers: Vec<String>,
    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "5m")]
    duration: String,
    /// End it now
    #[arg(long, conflicts_with_all = ["delay", "abort", "callers"])]
    off: bool,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Print the object as JSON
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When nothing is said that is to be done, or the server refuses it.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let name = format!("{}-fault", args.service);
    let namespace = args.namespace.as_deref();
    let faults = || Resource::open(&args.client, namespace, FAULTS, "fault injection");
    if args.off {
        faults().await?.delete(&name).await?;
        stdout::line(format_args!("calls of {} are as they are", args.service))?;
        return Ok(());
    }
    let spec = spec(&args).map_err(|why| {
        let next = "say it as `weft fault price --delay 200ms:50% --abort 503:1% --for 5m`";
        Failure::new(format!("cannot spoil calls of {}", args.service), why, next).usage()
    })?;
    let faults = faults().await?;
    // It lasts from when it is made, so one that is there makes room.
    faults.delete(&name).await?;
    let fault = json!({
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "FaultInjection",
        "metadata": {"name": name},
        "spec": spec,
    });
    let made = faults.create(&fault).await?;
    match args.output {
        Some(Output::Json) => stdout::line(&made)?,
        None => stdout::line(told(&args.service, &made["spec"]))?,
    }
    Ok(())
}

fn spec(args: &Args) -> Result<Value, String> {
    if args.delay.is_none() && args.abort.is_none() {
        return Err("neither --delay nor --abort is said".to_owned());
    }
    let mut spec = json!({
        "targetRefs": [{"group": "", "kind": "Service", "name": args.service}],
        "duration": args.duration,
    });
    if let Some(delay) = &args.delay {
        let (time, percent) = with_percent(delay)?;
        spec["delay"] = json!({"duration": time, "percent": percent});
    }
    if let Some(abort) = &args.abort {
        let (status, percent) = with_percent(abort)?;
        let status = status.parse::<u16>();
        let status = status.map_err(|_| format!("{abort} begins with no status"))?;
        spec["abort"] = json!({"httpStatus": status, "percent": percent});
    }
    if !args.callers.is_empty() {
        let callers = args
            .callers
            .iter()
            .map(|caller| match caller.split_once('/') {
                Some((namespace, account)) => {
                    json!({"namespace": namespace, "serviceAccountName": account})
                }
                None => json!({"serviceAccountName": caller}),
            });
        spec["callers"] = Value::Array(callers.collect());
    }
    Ok(spec)
}

/// A word, and of how many calls in a hundred.
fn with_percent(text: &str) -> Result<(&str, u8), String> {
    let Some((word, percent)) = text.split_once(':') else {
        return Ok((text, 100));
    };
    let number = percent.trim_end_matches('%').parse::<u8>().ok();
    let number = number.filter(|number| (1..=100).contains(number));
    let number = number.ok_or_else(|| format!("{percent} is no percentage from 1 to 100"))?;
    Ok((word, number))
}

fn told(service: &str, spec: &Value) -> String {
    let mut parts = Vec::new();
    if let Some(percent) = spec["delay"]["percent"].as_u64() {
        let time = spec["delay"]["duration"].as_str().unwrap_or_default();
        parts.push(format!("{percent} % wait for {time}"));
    }
    if let Some(percent) = spec["abort"]["percent"].as_u64() {
        let status = &spec["abort"]["httpStatus"];
        parts.push(format!("{percent} % are answered with {status}"));
    }
    let duration = spec["duration"].as_str().unwrap_or_default();
    format!("calls of {service}: {}, for {duration}", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(delay: Option<&str>, abort: Option<&str>, callers: &[&str]) -> Args {
        Args {
            service: "price".to_owned(),
            delay: delay.map(str::to_owned),
            abort: abort.map(str::to_owned),
            callers: callers.iter().map(|one| (*one).to_owned()).collect(),
            duration: "5m".to_owned(),
            off: false,
            namespace: None,
            output: None,
            client: ClientArgs::default(),
        }
    }

    #[test]
    fn what_is_said_is_an_object() {
        let spec = spec(&args(Some("200ms:50%"), Some("503"), &["cart", "shop/web"])).unwrap();
        assert_eq!(
            spec,
            json!({
                "targetRefs": [{"group": "", "kind": "Service", "name": "price"}],
                "duration": "5m",
                "delay": {"duration": "200ms", "percent": 50},
                "abort": {"httpStatus": 503, "percent": 100},
                "callers": [{"serviceAccountName": "cart"}, {"namespace": "shop", "serviceAccountName": "web"}],
            })
        );
        assert_eq!(
            told("price", &spec),
            "calls of price: 50 % wait for 200ms, 100 % are answered with 503, for 5m"
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (delay, abort, why) in [
            (None, None, "neither --delay nor --abort is said"),
            (Some("1s:0%"), None, "0% is no percentage from 1 to 100"),
            (None, Some("often"), "often begins with no status"),
        ] {
            assert_eq!(spec(&args(delay, abort, &[])).unwrap_err(), why);
        }
    }
}
