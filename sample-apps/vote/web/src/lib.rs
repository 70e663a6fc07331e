//! The front of the vote app: one page, and an API that asks the two services behind it.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /` | the page; its question is the setting `question` |
//! | `GET /api/list` | the emoji, from `http://emoji` |
//! | `GET /api/leaderboard` | `{"instance", "places": [{"shortcode", "unicode", "votes"}]}`, from both services |
//! | `POST /api/vote?choice=:tada:` | a vote: checked against `http://emoji`, counted by `http://voting` |
//! | `GET /healthz` | 200, for probes: about this service alone |
//!
//! A service behind it that answers with an error, or that cannot be reached, becomes a 502 or 503 whose text names
//! it; the page shows that text.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use weft::http::{ErrorKind, Method, StatusCode, html, json, query, status};
use weft::{Request, Response};

const PAGE: &str = include_str!("page.html");
/// Where the page asks its question, and what it asks where no setting says anything else.
const PLACE: &str = "{question}";
const QUESTION: &str = "Vote for an emoji";

#[derive(Deserialize, Serialize)]
struct Emoji {
    shortcode: String,
    unicode: String,
}

/// What `voting` has counted, and the instance that says so.
#[derive(Deserialize)]
struct Results {
    instance: String,
    counts: Vec<Count>,
}

#[derive(Deserialize)]
struct Count {
    shortcode: String,
    votes: u64,
}

#[derive(Serialize)]
struct Leaderboard {
    instance: String,
    places: Vec<Place>,
}

#[derive(Serialize)]
struct Place {
    shortcode: String,
    unicode: String,
    votes: u64,
}

/// Why a service behind this one gave no usable answer.
enum Failure {
    /// It answered with this status.
    Answered {
        service: &'static str,
        status: StatusCode,
    },
    /// It did not answer, or with something unreadable.
    Call {
        service: &'static str,
        error: weft::http::Error,
    },
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    let answer = match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(html(page(weft::config::get("question").ok().flatten()))),
        (&Method::GET, "/healthz") => Ok(status(200)),
        (&Method::GET, "/api/list") => match emoji_list().await {
            Ok(list) => Ok(json(&list)?),
            Err(failure) => Err(failure),
        },
        (&Method::GET, "/api/leaderboard") => match leaderboard().await {
            Ok(board) => Ok(json(&board)?),
            Err(failure) => Err(failure),
        },
        (&Method::POST, "/api/vote") => match query(request.uri(), "choice") {
            Some(choice) => vote(&choice).await,
            None => Ok(status(400)),
        },
        (_, "/" | "/healthz" | "/api/list" | "/api/leaderboard" | "/api/vote") => Ok(status(405)),
        _ => Ok(status(404)),
    };
    Ok(answer.unwrap_or_else(|failure| failure.into_response()))
}

fn page(question: Option<String>) -> String {
    let question = question.unwrap_or_else(|| QUESTION.to_owned());
    let text = question.replace('&', "&amp;").replace('<', "&lt;");
    PAGE.replacen(PLACE, &text, 1)
}

async fn emoji_list() -> Result<Vec<Emoji>, Failure> {
    fetch("emoji", "http://emoji/api/list").await
}

async fn leaderboard() -> Result<Leaderboard, Failure> {
    let results = fetch::<Results>("voting", "http://voting/api/results");
    let (list, results) = weft::join(emoji_list(), results).await;
    let (list, Results { instance, counts }) = (list?, results?);
    Ok(Leaderboard {
        instance,
        places: rank(list, counts),
    })
}

/// Every counted emoji with its picture, in the order of the counts.
fn rank(list: Vec<Emoji>, counts: Vec<Count>) -> Vec<Place> {
    let mut unicode: HashMap<String, String> = list
        .into_iter()
        .map(|emoji| (emoji.shortcode, emoji.unicode))
        .collect();
    counts
        .into_iter()
        .filter_map(|Count { shortcode, votes }| {
            let unicode = unicode.remove(&shortcode)?;
            Some(Place {
                shortcode,
                unicode,
                votes,
            })
        })
        .collect()
}

async fn vote(choice: &str) -> Result<Response, Failure> {
    let choice = encode(choice);
    let found = call(
        "emoji",
        Method::GET,
        &format!("http://emoji/api/find?shortcode={choice}"),
    )
    .await?;
    if found.status() == StatusCode::NOT_FOUND {
        return Ok(status(404));
    }
    success("emoji", found)?;
    let counted = call(
        "voting",
        Method::POST,
        &format!("http://voting/api/vote?shortcode={choice}"),
    )
    .await?;
    success("voting", counted)
}

async fn fetch<T: serde::de::DeserializeOwned>(
    service: &'static str,
    uri: &str,
) -> Result<T, Failure> {
    let response = success(service, call(service, Method::GET, uri).await?)?;
    response
        .into_body()
        .json()
        .await
        .map_err(|error| Failure::Call {
            service,
            error: error.into(),
        })
}

async fn call(service: &'static str, method: Method, uri: &str) -> Result<Response, Failure> {
    let sent = match method {
        Method::POST => weft::http::post(uri, weft::Body::empty()).await,
        _ => weft::http::get(uri).await,
    };
    sent.map_err(|error| Failure::Call { service, error })
}

fn success(service: &'static str, response: Response) -> Result<Response, Failure> {
    match response.status() {
        status if status.is_success() => Ok(response),
        status => Err(Failure::Answered { service, status }),
    }
}

impl Failure {
    fn into_response(self) -> Response {
        let (status, text) = match self {
            Self::Answered { service, status } => (
                StatusCode::BAD_GATEWAY,
                format!("{service} answered {status}\n"),
            ),
            Self::Call { service, error } => {
                let status = match error.kind() {
                    ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
                    ErrorKind::NotFound | ErrorKind::Unavailable | ErrorKind::LimitReached => {
                        StatusCode::SERVICE_UNAVAILABLE
                    }
                    _ => StatusCode::BAD_GATEWAY,
                };
                (status, format!("{service}: {error}\n"))
            }
        };
        weft::warn!("{} {}", status.as_u16(), text.trim_end());
        let mut response = Response::new(text.into());
        *response.status_mut() = status;
        response
    }
}

/// `text` for a query value: everything but letters, digits and `-._~` as `%XX`.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded += &format!("%{byte:02X}"),
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranking_keeps_the_order_and_drops_the_unknown() {
        let list = [(":a:", "A"), (":b:", "B")].map(|(shortcode, unicode)| Emoji {
            shortcode: shortcode.into(),
            unicode: unicode.into(),
        });
        let counts = [(":b:", 9), (":x:", 5), (":a:", 1)].map(|(shortcode, votes)| Count {
            shortcode: shortcode.into(),
            votes,
        });
        let places: Vec<_> = rank(list.into(), counts.into())
            .into_iter()
            .map(|place| (place.unicode, place.votes))
            .collect();
        assert_eq!(places, [("B".to_owned(), 9), ("A".to_owned(), 1)]);
    }

    #[test]
    fn without_its_services_it_says_which_one_is_missing() {
        let mut request = Request::new(weft::Body::empty());
        *request.uri_mut() = "/api/leaderboard".parse().unwrap();
        let response = weft::block_on(handle(request)).unwrap();
        assert_eq!(response.status(), 503);
        assert!(
            weft::block_on(response.into_body().text())
                .unwrap()
                .starts_with("emoji: ")
        );
    }

    #[test]
    fn the_page_asks_what_the_setting_says() {
        let ask = || {
            let response = weft::block_on(handle(Request::new(weft::Body::empty()))).unwrap();
            weft::block_on(response.into_body().text()).unwrap()
        };
        assert!(ask().contains("<h1>Vote for an emoji</h1>"));
        weft::config::set("question", "Cats & <dogs>?");
        assert!(ask().contains("<h1>Cats &amp; &lt;dogs>?</h1>"));
    }

    #[test]
    fn queries_are_encoded() {
        assert_eq!(encode(":a b&é"), "%3Aa%20b%26%C3%A9");
    }
}
