//! `weft server rewrap`: every Secret under a new key.

use serde_json::Value;
use weft_apiserver::objects::REWRAP_PATH;

use super::members::request;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct RewrapArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Print what was done as JSON
    #[arg(short, long)]
    output: Option<super::Output>,
}

/// # Errors
/// When the cluster does not answer, or a Secret cannot be read. What was done until then stays done; calling it again goes
/// on.
pub(super) async fn rewrap(args: RewrapArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let done: Value = client
        .request(request(http::Method::POST, REWRAP_PATH, None)?)
        .await
        .map_err(|error| api_failure("cannot encrypt the secrets anew", &error))?;
    match args.output {
        Some(super::Output::Json) => stdout::line(done)?,
        None => stdout::line(sentence(&done))?,
    }
    Ok(())
}

fn sentence(done: &Value) -> String {
    let values = done["values"].as_u64().unwrap_or_default();
    let removed: Vec<String> = done["removed"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Value::to_string)
        .collect();
    let secrets = if values == 1 { "secret" } else { "secrets" };
    let gone = match &removed[..] {
        [] => String::new(),
        [one] => format!("; data key {one} is gone"),
        more => format!("; data keys {} are gone", more.join(", ")),
    };
    format!(
        "{values} {secrets} encrypted anew under data key {}{gone}",
        done["data_key"]
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_done_is_one_sentence() {
        for (done, told) in [
            (
                json!({"data_key": 2, "values": 1, "removed": []}),
                "1 secret encrypted anew under data key 2",
            ),
            (
                json!({"data_key": 4, "values": 0, "removed": [2]}),
                "0 secrets encrypted anew under data key 4; data key 2 is gone",
            ),
            (
                json!({"data_key": 9, "values": 12, "removed": [6, 7]}),
                "12 secrets encrypted anew under data key 9; data keys 6, 7 are gone",
            ),
        ] {
            assert_eq!(sentence(&done), told);
        }
    }
}
