//! `weft server members|remove|transfer`: the servers as a group, asked of any one of them.

use serde_json::{Value, json};
use weft_apiserver::http::servers::{ServerList, ServerStatus};

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Print them as JSON
    #[arg(short, long)]
    output: Option<super::Output>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RemoveArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// Its number, as `weft server members` shows it; it never returns
    id: u64,
}

#[derive(Debug, clap::Args)]
pub(super) struct TransferArgs {
    #[command(flatten)]
    client: ClientArgs,
    /// The server that should lead [default: the one that is closest behind]
    id: Option<u64>,
}

pub(super) fn request(
    method: http::Method,
    path: &str,
    body: Option<&Value>,
) -> Result<http::Request<Vec<u8>>, Failure> {
    http::Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(
            body.map(|body| body.to_string().into_bytes())
                .unwrap_or_default(),
        )
        .map_err(|error| Failure::new("cannot ask the cluster", error, ""))
}

/// # Errors
/// When the cluster does not answer.
pub(super) async fn list(args: ListArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let list: ServerList = client
        .request(request(http::Method::GET, "/weft/v1/servers", None)?)
        .await
        .map_err(|error| api_failure("cannot list the servers", &error))?;
    match args.output {
        Some(super::Output::Json) => stdout::line(serde_json::to_value(&list)?)?,
        None => stdout::text(&table(&list.servers))?,
    }
    Ok(())
}

fn table(servers: &[ServerStatus]) -> String {
    let mut rows = vec![["ID", "ROLE", "API", "PEER ADDRESS", "BEHIND"].map(str::to_owned)];
    rows.extend(servers.iter().map(|server| {
        let role = match (server.leader, server.voter) {
            (true, _) => "leader",
            (false, true) => "voter",
            (false, false) => "learner",
        };
        let behind = server.behind.map(|behind| behind.to_string());
        [
            server.id.to_string(),
            role.to_owned(),
            server.url.clone().unwrap_or_else(|| "-".to_owned()),
            server.peer_address.clone(),
            behind.unwrap_or_else(|| "-".to_owned()),
        ]
    }));
    let mut widths = [0; 5];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for row in &rows {
        let cells = row.iter().zip(widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(line.join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// # Errors
/// When the cluster refuses, as for the last server that could go on.
pub(super) async fn remove(args: RemoveArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let path = format!("/weft/v1/servers/{}", args.id);
    let _: Value = client
        .request(request(http::Method::DELETE, &path, None)?)
        .await
        .map_err(|error| api_failure(format!("cannot remove server {}", args.id), &error))?;
    stdout::line(format_args!(
        "server {} is removed; its data folder is of no more use",
        args.id
    ))?;
    Ok(())
}

/// # Errors
/// When the cluster refuses.
pub(super) async fn transfer(args: TransferArgs) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let body = args.id.map_or(json!({}), |id| json!({ "to": id }));
    let answer: Value = client
        .request(request(http::Method::POST, "/weft/v1/leader", Some(&body))?)
        .await
        .map_err(|error| api_failure("cannot hand leadership over", &error))?;
    stdout::line(format_args!("server {} leads", answer["leader"]))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_shown_with_what_they_do() {
        let server = |id, voter, leader, behind| ServerStatus {
            id,
            peer_address: format!("10.0.0.{id}:6444"),
            url: (id != 3).then(|| format!("https://10.0.0.{id}:6443")),
            voter,
            leader,
            behind,
        };
        let servers = [
            server(1, true, true, Some(0)),
            server(2, true, false, Some(12)),
            server(3, false, false, None),
        ];
        assert_eq!(
            table(&servers),
            "ID   ROLE      API                     PEER ADDRESS    BEHIND\n\
             1    leader    https://10.0.0.1:6443   10.0.0.1:6444   0\n\
             2    voter     https://10.0.0.2:6443   10.0.0.2:6444   12\n\
             3    learner   -                       10.0.0.3:6444   -\n"
        );
    }
}
