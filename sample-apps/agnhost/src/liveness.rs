//! `liveness`: a server that is well for ten seconds.

use std::time::{Duration, Instant};

use hyper::StatusCode;
use hyper::header::{HeaderValue, LOCATION};

use crate::{Code, server};

const WELL: Duration = Duration::from_secs(10);

pub(crate) async fn run() -> Result<Code, String> {
    let started = Instant::now();
    let listener = server::listen(8080)
        .await
        .map_err(|error| error.to_string())?;
    let handler = server::handler(move |request| async move {
        let lived = started.elapsed();
        match request.path.as_str() {
            "/started" => server::text(format!("{:?}", lived)),
            "/healthz" if lived > WELL => server::answer(
                StatusCode::INTERNAL_SERVER_ERROR,
                "text/plain; charset=utf-8",
                format!("error: {}", lived.as_secs_f64()),
            ),
            "/healthz" => server::text("ok"),
            "/redirect" => redirect(
                &server::unescaped(request.value("loc"), true),
                StatusCode::FOUND,
            ),
            _ => server::not_found(),
        }
    });
    server::serve(listener, None, handler).await;
    Ok(0)
}

/// As Go's `http.Redirect` to a GET.
pub(crate) fn redirect(location: &str, status: StatusCode) -> server::Answer {
    let text = status.canonical_reason().unwrap_or("Found");
    let body = format!("<a href=\"{location}\">{text}</a>.\n\n");
    let mut answer = server::answer(status, "text/html; charset=utf-8", body);
    if let Ok(location) = HeaderValue::from_str(location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}
