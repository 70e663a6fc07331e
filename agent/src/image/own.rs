//! The cluster's own registry: on the API server's address, under this node's certificate.
//!
//! Left to others: who may read there (`authorize_registry` of the API server), what is kept there (`weft push`).

use super::Limits;
use super::fault::Fault;
use super::manifest::start_of;
use super::remote::{Body, Kind, silent};
use crate::identity::{Chain, Link};
use http::StatusCode;
use http::header::ACCEPT;
use serde::Deserialize;
use std::time::Duration;
use weft_api::image::RegistryReference;

/// How long may be looked for what was meant by a name that is not there.
const GUESS_MAX: Duration = Duration::from_secs(5);
/// How much of a list is read for it, in bytes; a registry with more is not searched.
const LIST_BYTES_MAX: usize = 256 << 10;
/// Names that a message has.
const TOLD_MAX: usize = 3;

pub(super) struct Own {
    pub(super) link: Link,
    pub(super) limits: Limits,
}

#[derive(Deserialize)]
struct Catalog {
    repositories: Vec<String>,
}

#[derive(Deserialize)]
struct TagList {
    tags: Vec<String>,
}

impl Own {
    /// Asks for a path under `/v2/`. The body is left to be read.
    pub(super) async fn open(&self, path: &str, accept: &'static str) -> Result<Body, Fault> {
        let request = http::Request::get(format!("/v2/{path}"))
            .header(ACCEPT, accept)
            .body(kube::client::Body::empty())
            .map_err(|error| Fault::Failed(error.to_string()))?;
        let client = self.link.client();
        let answer = tokio::time::timeout(self.limits.silent, client.send(request))
            .await
            .map_err(|_| silent(self.limits.silent))?
            .map_err(|error| Fault::Failed(Chain(&error).to_string()))?;
        match answer.status() {
            status if status.is_success() => Ok(Body {
                kind: Kind::Own(answer.into_body()),
                silent: self.limits.silent,
            }),
            StatusCode::NOT_FOUND => Err(Fault::NotFound),
            status => Err(Fault::Failed(format!("it answered {status}"))),
        }
    }

    /// What may have been meant by an image that is not there: `; it has vote/web:1`, or nothing.
    pub(super) async fn instead(&self, missing: &RegistryReference) -> String {
        let guess = async {
            let same = self.tags(&missing.repository).await;
            let (repository, tags) = if same.is_empty() {
                let list: Catalog = self.list("_catalog").await?;
                let near = nearest(&missing.repository, list.repositories)?;
                let tags = self.tags(&near).await;
                (near, tags)
            } else {
                (missing.repository.clone(), same)
            };
            told(&repository, &tags, missing.reference())
        };
        let guessed = tokio::time::timeout(GUESS_MAX, guess).await;
        guessed.ok().flatten().unwrap_or_default()
    }

    async fn tags(&self, repository: &str) -> Vec<String> {
        let list: Option<TagList> = self.list(&format!("{repository}/tags/list")).await;
        list.map(|list| list.tags).unwrap_or_default()
    }

    async fn list<T: serde::de::DeserializeOwned>(&self, path: &str) -> Option<T> {
        let mut body = self.open(path, "application/json").await.ok()?;
        let bytes = body.read(LIST_BYTES_MAX).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// The repository that a name was most likely meant to be: a slip or two away, no further.
fn nearest(name: &str, repositories: Vec<String>) -> Option<String> {
    let allowed = (name.chars().count() / 4).clamp(1, 3);
    let near = repositories.into_iter().filter_map(|repository| {
        // Far ones cost nothing.
        if repository.len().abs_diff(name.len()) > 2 * allowed {
            return None;
        }
        let distance = strsim::damerau_levenshtein(name, &repository);
        (distance <= allowed).then_some((distance, repository))
    });
    near.min().map(|(_, repository)| repository)
}

/// The tags that are there, those first that are like the one that is not.
fn told(repository: &str, tags: &[String], missing: &str) -> Option<String> {
    let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
    tags.sort_by_key(|tag| {
        (
            strsim::damerau_levenshtein(tag, missing),
            std::cmp::Reverse(*tag),
        )
    });
    let named = tags.iter().take(TOLD_MAX);
    let named: Vec<String> = named
        .map(|tag| format!("{}:{tag}", start_of(repository)))
        .collect();
    let more = if tags.len() > TOLD_MAX { ", …" } else { "" };
    (!named.is_empty()).then(|| format!("; it has {}{more}", named.join(", ")))
}

/// Whether a name that is not here may be that of a container image: those of Docker Hub's library have one word.
pub(super) fn kind_of(missing: &RegistryReference) -> &'static str {
    let name = missing.repository.as_str();
    if name.contains('/') && !name.starts_with("library/") {
        ""
    } else {
        " (a container image? weft runs WebAssembly components)"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_what_was_meant() {
        let there = ["short/front", "short/api", "vote/web", "vote/bot"];
        for (name, expected) in [
            ("short/fornt", Some("short/front")),
            ("short/frnot", Some("short/front")),
            ("vote/wbe", Some("vote/web")),
            ("vote/cat", Some("vote/bot")),
            ("nginx", None),
            ("a", None),
            ("shop/checkout", None),
        ] {
            let near = nearest(name, there.map(str::to_owned).to_vec());
            assert_eq!(near.as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn tags_are_told_with_the_likely_ones_first() {
        let of = |tags: &[&str], missing: &str| {
            let tags: Vec<String> = tags.iter().map(|tag| (*tag).to_owned()).collect();
            told("vote/web", &tags, missing)
        };
        assert_eq!(of(&["1"], "2").as_deref(), Some("; it has vote/web:1"));
        assert_eq!(
            of(&["0.1", "0.2", "1.0", "latest"], "0.3").as_deref(),
            Some("; it has vote/web:0.2, vote/web:0.1, vote/web:1.0, …")
        );
        assert_eq!(of(&[], "1"), None);
    }
}
