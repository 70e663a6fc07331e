//! The voting service of the vote app: it counts.
//!
//! | path | answers |
//! | --- | --- |
//! | `POST /api/vote?shortcode=:tada:` | `{"instance", "shortcode", "votes"}`; 500 for `:doughnut:`, on purpose |
//! | `GET /api/results` | `{"instance", "counts": [{"shortcode", "votes"}]}`, most votes first |
//! | `GET /healthz` | 200, for probes |
//!
//! The counts are in a key-value store of the cluster: they add up whichever instance, pod and node counts, and outlive all of
//! them. The manifest has the store, and the CapabilityGrant that gives it to this service.

use std::hash::{BuildHasher as _, RandomState};

use serde::Serialize;
use weft::http::{Method, json, query, status};
use weft::keyvalue::{self, Bucket};
use weft::{Request, Response};

/// Votes for this one fail, so that there is something to find in logs, metrics and traces.
const FAILS_ON_PURPOSE: &str = ":doughnut:";

thread_local! {
    /// Tells instances apart: random, as the seeds of std's hash maps are.
    static INSTANCE: String = format!("{:04x}", RandomState::new().hash_one(0) & 0xffff);
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
            // A caller that fills the store with names meets its quota.
            answer(vote(shortcode).map_err(|error| error.to_string())?)
        }
        (&Method::GET, "/api/results") => {
            let counts = results().map_err(|error| error.to_string())?;
            answer(Results { counts })
        }
        (&Method::GET, "/healthz") => Ok(status(200)),
        (_, "/api/vote" | "/api/results" | "/healthz") => Ok(status(405)),
        _ => Ok(status(404)),
    }
}

fn answer(content: impl Serialize) -> Result<Response, String> {
    let instance = INSTANCE.with(Clone::clone);
    json(&Answer { instance, content }).map_err(|error| error.to_string())
}

fn votes() -> Result<Bucket, keyvalue::Error> {
    keyvalue::open("default")
}

/// Counts one vote.
fn vote(shortcode: String) -> Result<Count, keyvalue::Error> {
    let votes = votes()?.increment(&shortcode, 1)?;
    let votes = u64::try_from(votes).unwrap_or(0);
    Ok(Count { shortcode, votes })
}

/// Most votes first; equal ones in the order of their names.
fn results() -> Result<Vec<Count>, keyvalue::Error> {
    let bucket = votes()?;
    let names: Vec<String> = bucket.keys().collect::<Result<_, _>>()?;
    let values = bucket.get_many(&names)?;
    let number = |value: Option<Vec<u8>>| String::from_utf8(value?).ok()?.parse().ok();
    let counts = names.into_iter().zip(values);
    let mut counts: Vec<Count> = counts
        .filter_map(|(shortcode, value)| {
            let votes = number(value)?;
            Some(Count { shortcode, votes })
        })
        .collect();
    counts.sort_by_key(|count| std::cmp::Reverse(count.votes)); // stable: names stay sorted
    Ok(counts)
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
