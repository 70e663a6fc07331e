//! The details of a book.
//!
//! | path | answers |
//! | --- | --- |
//! | `GET /details/ID` | `{"id", "title", "author", "pages", …}` |
//! | `GET /health` | 200, for probes |

use serde::Serialize;
use weft::http::{Method, json, status};
use weft::{Request, Response};

#[derive(Serialize)]
struct Details {
    id: u64,
    title: &'static str,
    author: &'static str,
    year: u16,
    pages: u16,
    publisher: &'static str,
    language: &'static str,
}

#[weft::http]
async fn handle(request: Request) -> Result<Response, weft::http::Error> {
    let path = request.uri().path();
    if *request.method() != Method::GET {
        return Ok(status(405));
    }
    match path.strip_prefix("/details/").map(str::parse) {
        Some(Ok(id)) => json(&Details {
            id,
            title: "The Loom and the Lattice",
            author: "W. Eaver",
            year: 1801,
            pages: 200,
            publisher: "Shuttle & Sons",
            language: "English",
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
    fn a_book_is_known_by_its_number() {
        for (path, expected) in [
            ("/details/0", 200),
            ("/details/x", 400),
            ("/health", 200),
            ("/", 404),
        ] {
            let mut request = Request::new(weft::Body::empty());
            *request.uri_mut() = path.parse().unwrap();
            let answer = weft::block_on(handle(request)).unwrap();
            assert_eq!(answer.status(), expected, "{path}");
        }
    }
}
