//! `weft server roots`: the authorities that certificates of the cluster are signed by.

use serde_json::Value;
use weft_apiserver::authz::ROOTS_PATH;

use super::members::request;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct RootsArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Let a new authority follow: it signs from now on, and the older ones are trusted until they are removed
    #[arg(long, conflicts_with = "remove")]
    rotate: bool,
    /// Forget an older authority; whatever it signed proves nothing any more
    #[arg(long, value_name = "ROOT")]
    remove: Option<String>,
    /// Remove it though nodes prove themselves by it still: they have to join anew
    #[arg(long, requires = "remove")]
    force: bool,
    /// Print the authorities as JSON
    #[arg(short, long)]
    output: Option<super::Output>,
}

/// # Errors
/// When the cluster does not answer, the authority is the one that signs, or nodes prove themselves by it.
pub(super) async fn roots(args: RootsArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let forced = if args.force { "?force=true" } else { "" };
    let (method, path) = match (&args.remove, args.rotate) {
        (Some(root), _) => (http::Method::DELETE, format!("{ROOTS_PATH}/{root}{forced}")),
        (None, true) => (http::Method::POST, ROOTS_PATH.to_owned()),
        (None, false) => (http::Method::GET, ROOTS_PATH.to_owned()),
    };
    let told: Value = client
        .request(request(method, &path, None)?)
        .await
        .map_err(|error| api_failure("cannot change the authorities", &error))?;
    match args.output {
        Some(super::Output::Json) => stdout::line(told)?,
        None => {
            for line in lines(&told) {
                stdout::line(line)?;
            }
        }
    }
    Ok(())
}

/// A line each, the one that signs first.
fn lines(told: &Value) -> Vec<String> {
    let roots = told["roots"].as_array().into_iter().flatten();
    let line = |root: &Value| {
        let does = if root["signs"] == true {
            "signs"
        } else {
            "is trusted"
        };
        format!("{} {does}", root["id"].as_str().unwrap_or_default())
    };
    roots.map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_authority_is_a_line() {
        let told = json!({"roots": [
            {"id": "b", "certificate": "PEM", "signs": true},
            {"id": "a", "certificate": "PEM", "signs": false},
        ]});
        assert_eq!(lines(&told), ["b signs", "a is trusted"]);
    }
}
