//! `weft server keys|roots`: what the cluster signs with. Tokens of ServiceAccounts are signed with keys, certificates by authorities; of either one
//! signs at a time, another may follow it, and those before it count until they are removed.

use serde_json::Value;
use weft_apiserver::authz::ROOTS_PATH;
use weft_apiserver::http::SIGNING_KEYS_PATH;

use super::Output;
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
    output: Option<Output>,
}

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
    output: Option<Output>,
}

/// # Errors
/// When the cluster does not answer, or the key is the one that signs.
pub(super) async fn keys(args: KeysArgs) -> anyhow::Result<()> {
    let (method, path) = asked(SIGNING_KEYS_PATH, args.rotate, args.remove);
    let told = ask(&args.client, method, &path, "the keys of tokens").await?;
    print(&told, args.output, key_lines)
}

/// # Errors
/// When the cluster does not answer, the authority is the one that signs, or nodes prove themselves by it.
pub(super) async fn roots(args: RootsArgs) -> anyhow::Result<()> {
    let (method, mut path) = asked(ROOTS_PATH, args.rotate, args.remove);
    if args.force {
        path += "?force=true";
    }
    let told = ask(&args.client, method, &path, "the authorities").await?;
    print(&told, args.output, root_lines)
}

fn asked(path: &str, rotate: bool, remove: Option<String>) -> (http::Method, String) {
    match (remove, rotate) {
        (Some(one), _) => (http::Method::DELETE, format!("{path}/{one}")),
        (None, true) => (http::Method::POST, path.to_owned()),
        (None, false) => (http::Method::GET, path.to_owned()),
    }
}

/// All that there are, after what was asked for.
async fn ask(
    client: &ClientArgs,
    method: http::Method,
    path: &str,
    what: &str,
) -> anyhow::Result<Value> {
    let client = client.client().await?;
    let told = client.request(request(method, path, None)?).await;
    Ok(told.map_err(|error| api_failure(format!("cannot change {what}"), &error))?)
}

fn print(
    told: &Value,
    output: Option<Output>,
    lines: fn(&Value) -> Vec<String>,
) -> anyhow::Result<()> {
    match output {
        Some(Output::Json) => stdout::line(told)?,
        None => lines(told).into_iter().try_for_each(stdout::line)?,
    }
    Ok(())
}

/// A line a key, the oldest first.
fn key_lines(told: &Value) -> Vec<String> {
    let keys = told["keys"].as_array().into_iter().flatten();
    let line = |key: &Value| {
        let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
        let signs = if key["signs"] == true { ", signs" } else { "" };
        format!("{} made {}{signs}", text("kid"), text("created"))
    };
    keys.map(line).collect()
}

/// A line an authority, the one that signs first.
fn root_lines(told: &Value) -> Vec<String> {
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
    fn each_key_is_a_line() {
        let told = json!({"keys": [
            {"kid": "a", "created": "2026-01-01T00:00:00Z", "signs": true},
            {"kid": "b", "created": "2026-01-02T00:00:00Z", "signs": false},
        ]});
        assert_eq!(
            key_lines(&told),
            [
                "a made 2026-01-01T00:00:00Z, signs",
                "b made 2026-01-02T00:00:00Z"
            ]
        );
    }

    #[test]
    fn each_authority_is_a_line() {
        let told = json!({"roots": [
            {"id": "b", "certificate": "PEM", "signs": true},
            {"id": "a", "certificate": "PEM", "signs": false},
        ]});
        assert_eq!(root_lines(&told), ["b signs", "a is trusted"]);
    }
}
