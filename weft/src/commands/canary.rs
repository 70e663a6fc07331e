//! `weft canary`: brings an image out by the steps of its Rollout, and follows it to the end.

use serde_json::{Value, json};

use super::object::Resource;
use super::rollout::progress::follow;
use super::rollout::{Output, ROLLOUTS};
use crate::exit::Failure;
use crate::kubeconfig::ClientArgs;
use crate::stdout;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the Rollout
    name: String,
    /// The image to bring out, as `shop/web:2`; with several containers, as `web=shop/web:2`
    image: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// Do not wait until it is promoted or rolled back
    #[arg(long)]
    no_wait: bool,
    /// Print a JSON object a line
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

/// # Errors
/// When the Rollout is not there, or is rolled back.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let namespace = args.namespace.as_deref();
    let rollouts = Resource::open(&args.client, namespace, ROLLOUTS, "rollout").await?;
    let name = &args.name;
    let rollout = rollouts.get(name).await?;
    let containers = with_image(&rollout, &args.image).map_err(|why| {
        let next = "name the container, as `weft canary web web=shop/web:2`";
        Failure::new(format!("cannot bring out {}", args.image), why, next).usage()
    })?;
    let body = json!({
        "metadata": {"resourceVersion": rollout["metadata"]["resourceVersion"]},
        "spec": {"template": {"spec": {"containers": containers}}, "paused": false},
    });
    let patched = rollouts.patch(name, &body).await?;
    if args.no_wait {
        let sentence = match args.output {
            Some(Output::Json) => patched.to_string(),
            None => format!("rollout {name} brings out {}", args.image),
        };
        stdout::line(sentence)?;
        return Ok(());
    }
    let generation = patched["metadata"]["generation"].as_i64();
    follow(&rollouts, name, generation, args.output).await
}

/// The containers of the template, one of them with this image.
fn with_image(rollout: &Value, image: &str) -> Result<Value, String> {
    let mut containers = rollout["spec"]["template"]["spec"]["containers"].clone();
    let all = containers.as_array_mut().map(Vec::as_mut_slice);
    let all = all.unwrap_or_default();
    let (name, image) = match image.split_once('=') {
        Some((name, image)) => (Some(name), image),
        None => (None, image),
    };
    let one = match (name, all) {
        (None, [one]) => one,
        (None, all) => return Err(format!("it has {} containers", all.len())),
        (Some(name), all) => {
            let found = all.iter_mut().find(|container| container["name"] == *name);
            found.ok_or_else(|| format!("it has no container {name}"))?
        }
    };
    one["image"] = json!(image);
    Ok(containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_container_gets_the_image() {
        let of = |names: &[&str]| {
            let containers: Vec<Value> = names
                .iter()
                .map(|name| json!({"name": name, "image": "x:1"}))
                .collect();
            json!({"spec": {"template": {"spec": {"containers": containers}}}})
        };
        let images = |rollout: &Value, image: &str| -> Result<Vec<String>, String> {
            let containers = with_image(rollout, image)?;
            let all = containers.as_array().unwrap().iter();
            Ok(all
                .map(|one| one["image"].as_str().unwrap().to_owned())
                .collect())
        };
        assert_eq!(images(&of(&["a"]), "x:2").unwrap(), ["x:2"]);
        assert_eq!(images(&of(&["a", "b"]), "b=x:2").unwrap(), ["x:1", "x:2"]);
        assert_eq!(
            images(&of(&["a", "b"]), "x:2").unwrap_err(),
            "it has 2 containers"
        );
        assert_eq!(
            images(&of(&["a"]), "c=x:2").unwrap_err(),
            "it has no container c"
        );
    }
}
