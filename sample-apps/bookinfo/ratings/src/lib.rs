//! How many stars each reviewer gives.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /ratings/ID` | `{"id", "ratings": {"Reviewer1": 5, …}}` |
//! | `GET /health` | 200, for probes |

use std::collections::BTreeMap;

use serde::Serialize;
use weft::http::{Method, json, status};
use weft::{Request, Response};

#[derive(Serialize)]
struct Ratings {
    id: u64,
    ratings: BTreeMap<&'static str, u8>,
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    let path = request.uri().path();
    if *request.method() != Method::GET {
        return Ok(status(405));
    }
    match path.strip_prefix("/ratings/").map(str::parse) {
        Some(Ok(id)) => json(&Ratings {
            id,
            ratings: BTreeMap::from([("Reviewer1", 5), ("Reviewer2", 4)]),
        }),
        Some(Err(_)) => Ok(status(400)),
        None if path == "/health" => Ok(status(200)),
        None => Ok(status(404)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reviewer_has_stars() {
        let mut request = Request::new(weft::Body::empty());
        *request.uri_mut() = "/ratings/7".parse().unwrap();
        let answer = weft::block_on(handle(request)).unwrap();
        let text = weft::block_on(answer.into_body().text()).unwrap();
        assert_eq!(
            text,
            "{\"id\":7,\"ratings\":{\"Reviewer1\":5,\"Reviewer2\":4}}\n"
        );
    }
}
