//! `weft server keys`: the keys that tokens of ServiceAccounts are signed with.

use serde_json::Value;
use weft_apiserver::http::SIGNING_KEYS_PATH;

use super::members::request;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct KeysArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Add a key, which signs in an hour: until then others hear of it
    #[arg(long, conflicts_with = "remove")]
    rotate: bool,
    /// Remove a key; the tokens that it signed are worth nothing any more
    #[arg(long, value_name = "KEY")]
    remove: Option<String>,
    /// Print the keys as JSON
    #[arg(short, long)]
    output: Option<super::Output>,
}

/// # Errors
/// When the cluster does not answer, or the key is the one that signs.
pub(super) async fn keys(args: KeysArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let (method, path) = match (&args.remove, args.rotate) {
        (Some(key), _) => (http::Method::DELETE, format!("{SIGNING_KEYS_PATH}/{key}")),
        (None, true) => (http::Method::POST, SIGNING_KEYS_PATH.to_owned()),
        (None, false) => (http::Method::GET, SIGNING_KEYS_PATH.to_owned()),
    };
    let told: Value = client
        .request(request(method, &path, None)?)
        .await
        .map_err(|error| api_failure("cannot change the keys of tokens", &error))?;
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

/// A line a key, the oldest first.
fn lines(told: &Value) -> Vec<String> {
    let keys = told["keys"].as_array().into_iter().flatten();
    let line = |key: &Value| {
        let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
        let signs = if key["signs"] == true { ", signs" } else { "" };
        format!("{} made {}{signs}", text("kid"), text("created"))
    };
    keys.map(line).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_key_is_a_line() {
        let told = json!({"keys": [
            {"kid": "a", "created": "2026-01-01T00:00:00Z", "signs": true},
            {"kid": "b", "created": "2026-01-02T00:00:00Z", "signs": false},
        ]});
        assert_eq!(
            lines(&told),
            [
                "a made 2026-01-01T00:00:00Z, signs",
                "b made 2026-01-02T00:00:00Z"
            ]
        );
    }
}
