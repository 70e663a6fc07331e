//! `/healthz`, `/livez`, `/readyz`: whether this server is well, in Kubernetes' words.
//!
//! `ok`, or which check failed; `?verbose` lists all of them, `?exclude=NAME` leaves one out, `/readyz/NAME` is one alone. Why a check
//! failed is told by the log: anybody may ask here.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use weft_api::status::StatusError;

use super::error::ApiError;

/// Whether this server has done what it does at its start: only then it calls itself ready. One that nobody starts in steps is started.
#[derive(Clone, Debug)]
pub struct Started(Arc<AtomicBool>);

impl Default for Started {
    fn default() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }
}

impl Started {
    pub(crate) fn not_yet() -> Self {
        Self(Arc::default())
    }

    /// From now on.
    pub fn tell(&self) {
        self.0.store(true, Ordering::Release);
    }

    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The answer for checks and how each went.
pub fn answer(uri: &Uri, checks: &[(&str, bool)]) -> Response {
    let mut parts = uri.path().trim_matches('/').splitn(2, '/');
    let endpoint = parts.next().unwrap_or("");
    let one = parts.next();
    let query = uri.query().unwrap_or("").split('&');
    let pairs: Vec<(&str, &str)> = query
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    if let Some(one) = one {
        return match checks.iter().find(|(name, _)| *name == one) {
            Some((_, true)) => told("ok".to_owned(), StatusCode::OK),
            Some((_, false)) => told(
                format!("internal server error: {one} failed\n"),
                StatusCode::INTERNAL_SERVER_ERROR,
            ),
            None => ApiError(StatusError::unknown_path()).into_response(),
        };
    }
    let excluded: Vec<&str> = pairs
        .iter()
        .filter(|(name, _)| *name == "exclude")
        .map(|(_, check)| *check)
        .collect();
    let verbose = pairs.iter().any(|(name, _)| *name == "verbose");
    let (mut text, mut healthy) = (String::new(), true);
    for (name, good) in checks {
        // Writing to a String cannot fail.
        let _ = if excluded.contains(name) {
            writeln!(text, "[+]{name} excluded: ok")
        } else if *good {
            writeln!(text, "[+]{name} ok")
        } else {
            healthy = false;
            writeln!(text, "[-]{name} failed: reason withheld")
        };
    }
    let is_known = |wanted: &&str| checks.iter().any(|(name, _)| name == wanted);
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !is_known(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        let _ = writeln!(
            text,
            "warn: some health checks cannot be excluded: no matches for {}",
            unknown.join(", ")
        );
    }
    if !healthy {
        let _ = writeln!(text, "{endpoint} check failed");
        return told(text, StatusCode::INTERNAL_SERVER_ERROR);
    }
    if !verbose {
        return told("ok".to_owned(), StatusCode::OK);
    }
    let _ = writeln!(text, "{endpoint} check passed");
    told(text, StatusCode::OK)
}

fn told(text: String, status: StatusCode) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn checks_are_told_as_kubernetes_tells_them() {
        let checks = [("ping", true), ("store", false)];
        for (uri, status, expected) in [
            ("/livez/ping", 200, "ok"),
            ("/livez/store", 500, "internal server error: store failed\n"),
            ("/livez?exclude=store", 200, "ok"),
            (
                "/livez?verbose&exclude=store&exclude=nope",
                200,
                "[+]ping ok\n[+]store excluded: ok\nwarn: some health checks cannot be excluded: no matches for \"nope\"\nlivez check passed\n",
            ),
            (
                "/readyz",
                500,
                "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n",
            ),
        ] {
            let response = answer(&uri.parse().unwrap(), &checks);
            assert_eq!(response.status(), status, "{uri}");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(std::str::from_utf8(&body).unwrap(), expected, "{uri}");
        }
        assert_eq!(answer(&"/livez/x".parse().unwrap(), &checks).status(), 404);
    }
}
