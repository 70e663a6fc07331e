//! The voting service of the vote app: it counts.
//!
//! | path | answers |
//! | --- | --- |
//! | `POST /api/vote?shortcode=:tada:` | `{"instance", "shortcode", "votes"}`; 500 for `:doughnut:`, on purpose |
//! | `GET /api/results` | `{"instance", "counts": [{"shortcode", "votes"}]}`, most votes first |
//! | `GET /healthz` | 200, for probes |
//!
//! The counts live in an instance's memory, and every answer names its instance. The manifest asks for instances that
//! serve call after call (`weft.dev/isolation: pooled`); with a fresh one for each call, every vote would be the first.
//! A pod has an instance on each core that calls arrive on, and more under load, and lets idle ones go: each counts
//! what it saw. Counts that have to add up belong into a store, which this app leaves out to stay three components.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use serde::Serialize;
use weft::http::{Method, json, query, status};
use weft::{Request, Response};

/// Votes for this one fail, so that there is something to find in logs, metrics and traces.
const FAILS_ON_PURPOSE: &str = ":doughnut:";

/// A caller may not fill the memory with names: the emoji service knows 100.
const SHORTCODES_MAX: usize = 1000;

thread_local! {
    /// Tells instances apart: random, as the seeds of std's hash maps are.
    static INSTANCE: String = format!("{:04x}", RandomState::new().hash_one(0) & 0xffff);
    static VOTES: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

#[derive(Serialize)]
struct Answer<T> {
    instance: String,
    #[serde(flatten)]
    content: T,
}

#[derive(Serialize)]
struct Results {
    counts: Vec<Count>,
}

#[derive(Serialize)]
struct Count {
    shortcode: String,
    votes: u64,
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, String> {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/api/vote") => {
            let Some(shortcode) = query(request.uri(), "shortcode") else {
                return Ok(status(400));
            };
            if shortcode == FAILS_ON_PURPOSE {
                return Err(format!("{FAILS_ON_PURPOSE} cannot be voted for"));
            }
            match vote(shortcode) {
                Some(count) => answer(count),
                None => Ok(status(507)),
            }
        }
        (&Method::GET, "/api/results") => answer(Results { counts: results() }),
        (&Method::GET, "/healthz") => Ok(status(200)),
        (_, "/api/vote" | "/api/results" | "/healthz") => Ok(status(405)),
        _ => Ok(status(404)),
    }
}

fn answer(content: impl Serialize) -> Result<Response, String> {
    let instance = INSTANCE.with(Clone::clone);
    json(&Answer { instance, content }).map_err(|error| error.to_string())
}

/// Counts one vote; `None` when there is no room for another name.
fn vote(shortcode: String) -> Option<Count> {
    VOTES.with_borrow_mut(|votes| {
        if votes.len() >= SHORTCODES_MAX && !votes.contains_key(&shortcode) {
            return None;
        }
        let count = votes.entry(shortcode.clone()).or_default();
        *count += 1;
        Some(Count {
            shortcode,
            votes: *count,
        })
    })
}

/// Most votes first; equal ones in the order of their names.
fn results() -> Vec<Count> {
    let mut counts: Vec<Count> = VOTES.with_borrow(|votes| {
        votes
            .iter()
            .map(|(shortcode, &votes)| Count {
                shortcode: shortcode.clone(),
                votes,
            })
            .collect()
    });
    counts.sort_by_key(|count| std::cmp::Reverse(count.votes)); // stable: names stay sorted
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: Method, uri: &str) -> Result<(u16, String), String> {
        let mut request = Request::new(weft::Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        let response = weft::block_on(handle(request))?;
        let status = response.status().as_u16();
        Ok((status, weft::block_on(response.into_body().text()).unwrap()))
    }

    #[test]
    fn votes_count_and_the_doughnut_fails() {
        for name in [":b:", ":a:", ":b:", ":c:"] {
            assert_eq!(
                call(Method::POST, &format!("/api/vote?shortcode={name}"))
                    .unwrap()
                    .0,
                200
            );
        }
        assert!(call(Method::POST, "/api/vote?shortcode=:doughnut:").is_err());
        assert_eq!(call(Method::POST, "/api/vote").unwrap().0, 400);
        let results = call(Method::GET, "/api/results").unwrap().1;
        let expected = [(":b:", 2), (":a:", 1), (":c:", 1)]
            .map(|(name, votes)| format!(r#"{{"shortcode":"{name}","votes":{votes}}}"#));
        let counts = results.split_once(r#","counts":"#).unwrap().1;
        assert_eq!(counts, format!("[{}]}}\n", expected.join(",")));
    }
}
