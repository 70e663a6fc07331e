//! The voting service of the vote app: it counts, and announces round numbers to a host outside of the cluster.
//!
//! | path | answers |
//! | --- | --- |
//! | `POST /api/vote?shortcode=:tada:` | `{"instance", "shortcode", "votes"}`; 500 for `:doughnut:`, on purpose |
//! | `GET /api/results` | `{"instance", "counts": [{"shortcode", "votes"}]}`, most votes first |
//! | `GET /healthz` | 200, for probes |
//!
//! The counts are in a key-value store of the cluster: they add up whichever instance, pod and node counts, and outlive all of
//! them. The manifest has the store, and the CapabilityGrant that gives it to this service.
//!
//! | setting | |
//! | --- | --- |
//! | `announce-to` | the address of a webhook; nothing is announced while it is empty or not set |
//! | `announce-every` | votes for one emoji between two announcements; 100 where it is not set |
//!
//! An announcement is a POST of `{"text", "shortcode", "votes"}`. The store gives each number once, so whichever instance counts the
//! hundredth vote announces it, and no other. It is tried once, for a second at most, and a vote counts whatever becomes of it: the
//! log says why one failed, and where it was refused, the node says there which rule of a CapabilityGrant is missing.

use std::fmt::Display;
use std::hash::{BuildHasher as _, RandomState};
use std::num::NonZero;
use std::time::Duration;

use serde::Serialize;
use weft::http::{HeaderValue, Method, Timeout, Uri, header, json, query, status};
use weft::keyvalue::{self, Bucket};
use weft::{Request, Response};

/// Votes for this one fail, so that there is something to find in logs, metrics and traces.
const FAILS_ON_PURPOSE: &str = ":doughnut:";
/// How many votes lie between two announcements, where no setting says it.
const ANNOUNCE_EVERY: NonZero<u64> = NonZero::new(100).unwrap();
/// How long a vote waits for the webhook to answer: it is counted already, and somebody waits for it.
const ANNOUNCE_MAX: Duration = Duration::from_secs(1);

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
            let count = vote(shortcode).map_err(|error| error.to_string())?;
            if let Err(why) = announce(&count).await {
                let Count { shortcode, votes } = &count;
                weft::warn!("{votes} votes for {shortcode} are not announced: {why}");
            }
            answer(count)
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

#[derive(Serialize)]
struct Announcement<'a> {
    /// What the webhooks of chats show.
    text: String,
    #[serde(flatten)]
    count: &'a Count,
}

/// Tells the webhook of a round number of votes, if there is a webhook. An error names its host alone: addresses of webhooks are secrets.
async fn announce(count: &Count) -> Result<(), String> {
    fn text(error: impl Display) -> String {
        error.to_string()
    }
    let to = weft::config::get("announce-to").map_err(text)?;
    let Some(to) = to.filter(|to| !to.is_empty()) else {
        return Ok(());
    };
    let every = weft::config::parse("announce-every", ANNOUNCE_EVERY).map_err(text)?;
    if !count.votes.is_multiple_of(every.get()) {
        return Ok(());
    }
    let to: Result<Uri, _> = to.parse();
    let to = to.map_err(|error| format!("setting announce-to: {error}"))?;
    let host = to.host().unwrap_or_default().to_owned();
    let announcement = Announcement {
        text: format!("{} has {} votes", count.shortcode, count.votes),
        count,
    };
    let body = serde_json::to_vec(&announcement).map_err(text)?;
    let mut request = Request::new(body.into());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = to;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request.extensions_mut().insert(Timeout(ANNOUNCE_MAX));
    let answered = weft::http::send(request).await;
    let status = answered
        .map_err(|error| format!("{host}: {error}"))?
        .status();
    match status.is_success() {
        true => Ok(()),
        false => Err(format!("{host} answered {status}")),
    }
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
    use std::cell::RefCell;
    use std::rc::Rc;

    use weft::http::ErrorKind;

    use super::*;

    fn call(method: Method, uri: &str) -> Result<(u16, String), String> {
        let mut request = Request::new(weft::Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        let response = weft::block_on(handle(request))?;
        let status = response.status().as_u16();
        Ok((status, weft::block_on(response.into_body().text()).unwrap()))
    }

    /// Votes for `:a:` so often, with a webhook that answers so; what came to that.
    fn announced(
        votes: usize,
        settings: &[(&str, &str)],
        answer: fn() -> Result<Response, ErrorKind>,
    ) -> Vec<String> {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let sees = seen.clone();
        weft::http::respond_with(move |request| {
            assert_eq!(request.headers()["content-type"], "application/json");
            assert_eq!(
                request.extensions().get::<Timeout>().unwrap().0,
                ANNOUNCE_MAX
            );
            let (method, uri) = (request.method().clone(), request.uri().clone());
            let body = weft::block_on(request.into_body().text()).unwrap();
            sees.borrow_mut().push(format!("{method} {uri} {body}"));
            answer()
        });
        for (name, value) in settings {
            weft::config::set(name, value);
        }
        for _ in 0..votes {
            let (status, _) = call(Method::POST, "/api/vote?shortcode=:a:").unwrap();
            assert_eq!(
                status, 200,
                "a vote counts whatever becomes of its announcement"
            );
        }
        seen.take()
    }

    const TO: (&str, &str) = ("announce-to", "https://hooks.example.com/vote");

    #[test]
    fn nothing_is_announced_where_no_setting_says_where() {
        for settings in [&[][..], &[("announce-to", "")], &[("announce-every", "1")]] {
            assert_eq!(announced(200, settings, || Ok(status(204))), [""; 0]);
        }
    }

    #[test]
    fn round_numbers_are_announced_each_once() {
        let told = |votes| {
            let text = format!(":a: has {votes} votes");
            format!(
                r#"POST https://hooks.example.com/vote {{"text":"{text}","shortcode":":a:","votes":{votes}}}"#
            )
        };
        let seen = announced(250, &[TO], || Ok(status(204)));
        assert_eq!(seen, [100, 200].map(told));
        let seen = announced(7, &[TO, ("announce-every", "3")], || Ok(status(200)));
        assert_eq!(seen, [252, 255].map(told));
    }

    #[test]
    fn a_vote_counts_whatever_becomes_of_its_announcement() {
        let every = ("announce-every", "1");
        assert_eq!(
            announced(2, &[TO, every], || Err(ErrorKind::Denied)).len(),
            2
        );
        assert_eq!(announced(2, &[TO, every], || Ok(status(404))).len(), 2);
        for settings in [
            [TO, ("announce-every", "0")],
            [("announce-to", "http://["), every],
        ] {
            assert_eq!(announced(2, &settings, || Ok(status(204))), [""; 0]);
        }
        let results = call(Method::GET, "/api/results").unwrap().1;
        assert!(
            results.contains(r#"{"shortcode":":a:","votes":8}"#),
            "{results}"
        );
    }

    #[test]
    fn a_failed_announcement_says_why_without_the_address() {
        let count = Count {
            shortcode: ":a:".into(),
            votes: 100,
        };
        let announce = || weft::block_on(announce(&count)).unwrap_err();
        weft::config::set("announce-to", "https://hooks.example.com/token");
        type Answering = fn() -> Result<Response, ErrorKind>;
        let cases: [(Answering, &str); 2] = [
            (
                || Err(ErrorKind::Denied),
                "hooks.example.com: the request was denied (HTTP-request-denied)",
            ),
            (
                || Ok(status(404)),
                "hooks.example.com answered 404 Not Found",
            ),
        ];
        for (answer, why) in cases {
            weft::http::respond_with(move |_| answer());
            assert_eq!(announce(), why);
        }
        weft::config::set("announce-to", "https://hooks example.com/token");
        let told = announce();
        assert!(told.starts_with("setting announce-to: invalid"), "{told}");
        assert!(!told.contains("token"), "{told}");
        weft::config::set("announce-every", "often");
        assert_eq!(
            announce(),
            "setting announce-every: invalid digit found in string"
        );
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
