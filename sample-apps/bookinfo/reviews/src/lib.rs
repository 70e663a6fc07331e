//! What two reviewers say of a book, in three versions of one component: `VERSION=v1` asks nobody for stars, `v2` shows black ones, `v3`
//! red ones.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /reviews/ID` | `{"id", "version", "pod", "reviews": [{"reviewer", "text", "rating": {"stars", "color"}}]}` |
//! | `GET /health` | 200, for probes |
//!
//! Who reads is told on to `ratings` (`end-user`), and nothing else has to be. Stars that cannot be had in time (10 s, of `v3` 2.5 s) are
//! left out, and `rating.error` says so: the reviews are there without.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft::http::{Method, StatusCode, Timeout, json, status};
use weft::{Request, Response, env};

const READER: &str = "end-user";
const UNAVAILABLE: &str = "the ratings cannot be had at the moment";

const SAID: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "A yarn in the best sense: every thread is picked up again, and the last knot holds.",
    ),
    (
        "Reviewer2",
        "Slow to warp, quick to weft. I read it twice to see how the pattern was made.",
    ),
];

#[derive(Serialize)]
struct Reviews {
    id: u64,
    version: String,
    pod: String,
    reviews: Vec<Review>,
}

#[derive(Serialize)]
struct Review {
    reviewer: &'static str,
    text: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    rating: Option<Rating>,
}

#[derive(Clone, Serialize)]
#[serde(untagged)]
enum Rating {
    Stars { stars: u8, color: &'static str },
    Unavailable { error: &'static str },
}

#[derive(Deserialize)]
struct Ratings {
    ratings: BTreeMap<String, u8>,
}

/// How a version shows stars, and how long it waits for them; none: not at all.
fn stars(version: &str) -> Option<(&'static str, Duration)> {
    match version {
        "v2" => Some(("black", Duration::from_secs(10))),
        "v3" => Some(("red", Duration::from_millis(2500))),
        _ => None,
    }
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    let path = request.uri().path();
    if *request.method() != Method::GET {
        return Ok(status(405));
    }
    let id = match path.strip_prefix("/reviews/").map(str::parse::<u64>) {
        Some(Ok(id)) => id,
        Some(Err(_)) => return Ok(status(400)),
        None if path == "/health" => return Ok(status(200)),
        None => return Ok(status(404)),
    };
    let version = env::var("VERSION").unwrap_or_else(|| "v1".to_owned());
    let shown = match stars(&version) {
        None => None,
        Some((color, patience)) => Some((color, ratings(id, &request, patience).await.ok())),
    };
    let rating = |reviewer: &str| {
        let (color, ratings) = shown.as_ref()?;
        let stars = ratings
            .as_ref()
            .and_then(|found| found.ratings.get(reviewer));
        Some(match stars {
            Some(stars) => Rating::Stars {
                stars: *stars,
                color,
            },
            None => Rating::Unavailable { error: UNAVAILABLE },
        })
    };
    let reviews = SAID.iter().map(|(reviewer, text)| Review {
        reviewer,
        text,
        rating: rating(reviewer),
    });
    json(&Reviews {
        id,
        version,
        pod: env::var("POD_NAME").unwrap_or_default(),
        reviews: reviews.collect(),
    })
}

async fn ratings(id: u64, of: &Request, patience: Duration) -> Result<Ratings, weft::http::Error> {
    let mut request = Request::new(weft::Body::empty());
    *request.uri_mut() = format!("http://ratings:9080/ratings/{id}")
        .parse()
        .unwrap_or_default();
    if let Some(reader) = of.headers().get(READER) {
        request.headers_mut().insert(READER, reader.clone());
    }
    request.extensions_mut().insert(Timeout(patience));
    let answer = weft::http::send(request).await?;
    let status = answer.status();
    let text = answer.into_body().text().await?;
    match serde_json::from_str(&text) {
        Ok(ratings) if status == StatusCode::OK => Ok(ratings),
        _ => Ok(Ratings {
            ratings: BTreeMap::new(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(found: Option<&'static str>) -> String {
        weft::http::respond_with(move |request| {
            assert_eq!(request.headers()[READER], "jason");
            match found {
                Some(text) => Ok(Response::new(text.into())),
                None => Err(weft::http::ErrorKind::Timeout),
            }
        });
        let mut request = Request::new(weft::Body::empty());
        *request.uri_mut() = "/reviews/0".parse().unwrap();
        request
            .headers_mut()
            .insert(READER, "jason".parse().unwrap());
        let told = weft::block_on(ratings(0, &request, Duration::from_secs(1)));
        match told {
            Ok(told) => format!("{:?}", told.ratings),
            Err(error) => format!("{:?}", error.kind()),
        }
    }

    #[test]
    fn stars_are_shown_where_they_can_be_had_and_reviews_always() {
        assert_eq!(
            answered(Some(r#"{"id":0,"ratings":{"Reviewer1":5}}"#)),
            r#"{"Reviewer1": 5}"#
        );
        assert_eq!(answered(Some("fault filter abort")), "{}");
        assert_eq!(answered(None), "Timeout");
        assert_eq!(stars("v1"), None);
        assert_eq!(stars("v3").map(|(color, _)| color), Some("red"));
    }
}
