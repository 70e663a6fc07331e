//! The servers a node knows: those it was told to start with, and those that they told of.
//!
//! Kept in `servers.json`, so that a node finds its cluster again when the servers it was first told of are gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use weft_agent::identity::Link;
use weft_apiserver::http::servers::ServerList;

use crate::balancer::{Balancer, host_and_port};
use crate::data_dir;
use crate::exit::Chain;

/// How often the servers are asked who they are. A server that died is passed over at once all the same.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Most servers that are remembered: five may vote, and twice as many may have been told of over time.
const SERVERS_MAX: usize = 16;

pub(super) struct KnownServers {
    file: PathBuf,
    /// Named on the command line; they stay, as they may be a load balancer's.
    told: Vec<String>,
    learnt: Vec<String>,
}

impl KnownServers {
    pub fn load(data_dir: &Path, told: &[String]) -> Self {
        let file = data_dir.join("servers.json");
        // A missing or broken file costs what was learnt, and it is learnt again.
        let learnt: serde_json::Value = std::fs::read(&file)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let learnt = learnt["servers"].as_array().into_iter().flatten();
        Self {
            file,
            told: told.to_vec(),
            learnt: learnt
                .filter_map(|url| Some(url.as_str()?.to_owned()))
                .take(SERVERS_MAX)
                .collect(),
        }
    }

    /// `HOST:PORT` of each, once.
    pub fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = Vec::new();
        for url in self.learnt.iter().chain(&self.told) {
            if let Some(address) = host_and_port(url)
                && !addresses.contains(&address)
            {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Takes over what the servers tell. Never returns.
    pub async fn follow(mut self, link: Link, balancer: &Balancer) {
        loop {
            match ask(&link).await {
                Ok(urls) if urls.is_empty() || urls == self.learnt => {}
                Ok(urls) => {
                    tracing::info!(servers = ?urls, "the servers of the cluster");
                    self.learnt = urls;
                    balancer.set(&self.addresses());
                    let text = json!({ "servers": self.learnt }).to_string();
                    if let Err(error) = data_dir::write_private(&self.file, text.as_bytes()) {
                        tracing::warn!(%error, "the servers of the cluster were not remembered");
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %Chain(&error), "no server tells who they are");
                }
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

async fn ask(link: &Link) -> Result<Vec<String>, kube::Error> {
    let request = http::Request::get("/weft/v1/servers")
        .body(Vec::new())
        .map_err(kube::Error::HttpError)?;
    let list: ServerList = link.client().request(request).await?;
    let urls = list.servers.into_iter().filter_map(|server| server.url);
    Ok(urls.take(SERVERS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_comes_before_what_was_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = ["https://a:1".to_owned(), "https://b:2".to_owned()];
        let load = || KnownServers::load(dir.path(), &told).addresses();
        assert_eq!(load(), ["a:1", "b:2"]);
        let file = dir.path().join("servers.json");
        std::fs::write(&file, r#"{"servers": ["https://b:2", "https://c:3"]}"#).unwrap();
        assert_eq!(load(), ["b:2", "c:3", "a:1"]);
        std::fs::write(&file, "{").unwrap();
        assert_eq!(load(), ["a:1", "b:2"]);
    }
}
