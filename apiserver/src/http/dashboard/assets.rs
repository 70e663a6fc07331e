//! The page itself: files that are in the program, as `build.rs` listed them.
//!
//! | path | |
//! | --- | --- |
//! | `/dashboard/assets/NAME` | names say what is in them: kept for good |
//! | `/dashboard/NAME.EXT` | asked for again each time, and not sent again |
//! | any other | `index.html`: the page finds its own way |
//!
//! Invariants: a name is looked up in a list, and never a path on a disk; nothing is compressed here.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use sha2::{Digest as _, Sha256};

/// A file, and what it was compressed to.
#[allow(dead_code, reason = "there are none where nothing is embedded")]
struct File {
    name: &'static str,
    plain: &'static [u8],
    brotli: Option<&'static [u8]>,
    gzip: Option<&'static [u8]>,
}

static FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));
/// What tells one state of a file from another, in the order of [`FILES`].
static TAGS: LazyLock<Vec<HeaderValue>> =
    LazyLock::new(|| FILES.iter().map(|file| tag(file.plain)).collect());

const INDEX: &str = "index.html";
/// Below this, names say what is in them.
const HASHED: &str = "assets/";
const KEPT: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASKED_AGAIN: HeaderValue = HeaderValue::from_static("no-cache");

/// In the place of the page, where it is not in the program.
const NOTICE: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>weft</title>
</head>
<body>
<h1>This weft was built without its dashboard</h1>
<p>The server runs; only this page is missing. To have it, build it before weft, with Node:</p>
<pre>cargo xtask dashboard build
cargo build --release</pre>
<p>Until then: <code>weft mesh top</code>, <code>weft get pods</code>, <code>weft why POD</code>.</p>
</body>
</html>
"#;

fn tag(bytes: &[u8]) -> HeaderValue {
    let digest = Sha256::digest(bytes);
    let digest = URL_SAFE_NO_PAD.encode(digest.get(..12).unwrap_or_default());
    HeaderValue::from_str(&format!("\"{digest}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The file of a name below `/dashboard/`, or the page.
///
/// `None`: there is no such file, and it is no place of the page.
pub(super) fn answer(method: &Method, name: &str, headers: &HeaderMap) -> Option<Response> {
    let mut response = match FILES.iter().position(|file| file.name == name) {
        Some(index) => file(index, headers)?,
        None if is_place(name) => {
            let index = FILES.iter().position(|file| file.name == INDEX);
            index.map_or_else(|| Some(notice()), |index| file(index, headers))?
        }
        None => return None,
    };
    if method == Method::HEAD {
        *response.body_mut() = Body::empty();
    }
    Some(response)
}

/// Whether the page itself knows what is there: names of files have a dot.
fn is_place(name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or_default();
    !name.starts_with(HASHED) && !last.contains('.') && !name.contains("..")
}

fn file(index: usize, headers: &HeaderMap) -> Option<Response> {
    let (file, tag) = (FILES.get(index)?, TAGS.get(index)?);
    let is_kept = file.name.starts_with(HASHED);
    let (bytes, encoding) = match (file.brotli, file.gzip) {
        (Some(bytes), _) if takes(headers, "br") => (bytes, Some("br")),
        (_, Some(bytes)) if takes(headers, "gzip") => (bytes, Some("gzip")),
        _ => (file.plain, None),
    };
    let same = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
        let known = known.as_bytes().split(|byte| *byte == b',');
        let known = known.map(|one| one.trim_ascii());
        known
            .map(|one| one.strip_prefix(b"W/").unwrap_or(one))
            .any(|one| one == tag.as_bytes() || one == b"*")
    });
    let mut response = Response::new(match same {
        true => Body::empty(),
        false => Body::from(Bytes::from_static(bytes)),
    });
    let told = response.headers_mut();
    told.insert(header::ETAG, tag.clone());
    told.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let lasts = if is_kept { KEPT } else { ASKED_AGAIN };
    told.insert(header::CACHE_CONTROL, lasts);
    if same {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Some(response);
    }
    told.insert(header::CONTENT_TYPE, media_type(file.name));
    told.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes.len()));
    if let Some(encoding) = encoding {
        told.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
    }
    Some(response)
}

fn notice() -> Response {
    let mut response = Response::new(Body::from(NOTICE));
    let told = response.headers_mut();
    told.insert(header::CONTENT_TYPE, media_type(INDEX));
    told.insert(header::CACHE_CONTROL, ASKED_AGAIN);
    response
}

fn media_type(name: &str) -> HeaderValue {
    let end = name.rsplit('.').next().unwrap_or_default();
    HeaderValue::from_static(match end {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "json" | "map" => "application/json",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "ico" => "image/x-icon",
        "woff2" => "font/woff2",
        "txt" => "text/plain; charset=utf-8",
        "webmanifest" => "application/manifest+json",
        _ => "application/octet-stream",
    })
}

/// Whether whoever asks says that he takes an encoding.
fn takes(headers: &HeaderMap, wanted: &str) -> bool {
    let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    let mut words = lines.flat_map(|line| line.split(','));
    words.any(|word| {
        let mut parts = word.split(';').map(str::trim);
        let is_it = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        let refused = parts.any(|part| {
            let share = part.strip_prefix("q=").or_else(|| part.strip_prefix("Q="));
            share.is_some_and(|share| share.trim().parse::<f32>().unwrap_or(0.0) <= 0.0)
        });
        is_it && !refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_but_into_the_list() {
        let headers = HeaderMap::new();
        for name in [
            "../Cargo.toml",
            "assets/../index.html",
            "assets/nothing",
            "%2e%2e/x.js",
            "/etc/passwd.txt",
            "assets/x.js",
            "..",
        ] {
            assert!(answer(&Method::GET, name, &headers).is_none(), "{name}");
        }
        for place in ["", "graph", "workloads/shop/web"] {
            let found = answer(&Method::GET, place, &headers).expect("the page, or the notice");
            assert_eq!(found.headers()[header::CACHE_CONTROL], "no-cache");
            assert_eq!(
                found.headers()[header::CONTENT_TYPE],
                "text/html; charset=utf-8"
            );
        }
    }

    #[test]
    fn what_is_embedded_is_not_sent_twice() {
        for known in FILES {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, "gzip, br;q=0".parse().unwrap());
            let first = answer(&Method::GET, known.name, &headers).unwrap();
            let encoding = first.headers().get(header::CONTENT_ENCODING);
            assert_eq!(encoding.is_some(), known.gzip.is_some(), "{}", known.name);
            let tag = first.headers()[header::ETAG].clone();
            headers.insert(header::IF_NONE_MATCH, tag);
            let again = answer(&Method::GET, known.name, &headers).unwrap();
            assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        }
    }

    #[test]
    fn who_takes_what() {
        for (line, br, gzip) in [
            ("gzip, deflate, br", true, true),
            ("br;q=0, gzip;q=0.5", false, true),
            ("GZIP; q=0", false, false),
            ("identity", false, false),
            ("brotli", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, line.parse().unwrap());
            assert_eq!(
                (takes(&headers, "br"), takes(&headers, "gzip")),
                (br, gzip),
                "{line}"
            );
        }
    }
}
