//! The server of HTTP: what came, as JSON.
//!
//! ```text
//! /            the request, and headers of its response by `X-Echo-Set-Header: name:value,…`; `?delay=1s` waits first
//! /health      OK            /status/NNN   that status          /ws   echoes WebSocket messages
//! /retry/…     `?uuid=U&succeedAfter=N`: N times broken off, or `&responseCode=503`, after `&delayRetry=300ms`; then as /
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode, Version};
use serde_json::{Value, json};

use crate::serve::{Peer, Reply, serve};
use crate::tls::Acceptor;
use crate::{Ended, Place, port, variable, websocket};

/// Requests that are remembered as tried; a run of the suite makes some dozens.
const TRIED_MAX: usize = 10_000;

struct State {
    place: Place,
    http_port: u16,
    h2c_port: u16,
    /// How often a request of a name was broken off.
    tried: RefCell<BTreeMap<String, u32>>,
}

pub(crate) async fn run(place: Place) -> Ended {
    let state = Rc::new(State {
        place,
        http_port: port("HTTP_PORT", 3000)?,
        h2c_port: port("H2C_PORT", 3001)?,
        tried: RefCell::default(),
    });
    let https_port = port("HTTPS_PORT", 8443)?;
    let answer = |state: &Rc<State>| {
        let state = state.clone();
        move |request, peer| answered(state.clone(), request, peer)
    };
    let told = |port: u16, what: &str| {
        println!("Starting server, listening on port {port} ({what})");
    };
    let (certificate, key) = (variable("TLS_SERVER_CERT"), variable("TLS_SERVER_PRIVKEY"));
    let acceptor = match certificate.is_empty() || key.is_empty() {
        true => None,
        false => {
            let clients = variable("TLS_CLIENT_CACERTS");
            let protocols = ["h2", "http/1.1"];
            Some(Acceptor::of(&certificate, &key, &clients, &protocols)?)
        }
    };
    let over_tls = async {
        match acceptor {
            None => std::future::pending().await,
            Some(tls) => {
                told(https_port, "https");
                serve(https_port, Some(tls), answer(&state)).await
            }
        }
    };
    told(state.http_port, "http");
    told(state.h2c_port, "h2c");
    tokio::select! {
        ended = serve(state.http_port, None, answer(&state)) => ended,
        ended = serve(state.h2c_port, None, answer(&state)) => ended,
        ended = over_tls => ended,
    }
}

async fn answered(
    state: Rc<State>,
    mut request: Request<Incoming>,
    peer: Peer,
) -> io::Result<Response<Reply>> {
    if peer.port == state.h2c_port
        && peer.port != state.http_port
        && request.version() != Version::HTTP_2
    {
        return Ok(plain(StatusCode::BAD_REQUEST, "Expected h2c request"));
    }
    let path = request.uri().path().replace("//", "/");
    match path.as_str() {
        "/health" => return Ok(plain(StatusCode::OK, "OK")),
        "/ws" => {
            println!("established websocket connection {}", peer.remote);
            return Ok(websocket::answer(&mut request));
        }
        _ => {}
    }
    if path.starts_with("/status/") {
        let code = path.trim_start_matches("/status/").parse().ok();
        let code = code.filter(|_| path.len() == "/status/200".len());
        let code = code.and_then(|code| StatusCode::from_u16(code).ok());
        return Ok(plain(code.unwrap_or(StatusCode::BAD_REQUEST), ""));
    }
    let query = Query::of(&request);
    if path.starts_with("/retry/")
        && let Some(answer) = flaky(&state, &query).await
    {
        return answer;
    }
    println!(
        "Echoing back request made to {} to client ({})",
        target(&request),
        peer.remote
    );
    if let Err(why) = query.wait("delay").await {
        return Ok(failed(&why));
    }
    Ok(echo(&state, &request, &peer))
}

/// What a flaky backend does with a request; none where it has had enough of that.
async fn flaky(state: &State, query: &Query) -> Option<io::Result<Response<Reply>>> {
    let Some(name) = query.get("uuid").filter(|name| !name.is_empty()) else {
        return Some(Ok(plain(StatusCode::BAD_REQUEST, "uuid is required")));
    };
    let Some(until) = query
        .get("succeedAfter")
        .and_then(|n| n.parse::<u32>().ok())
    else {
        return Some(Ok(plain(
            StatusCode::BAD_REQUEST,
            "succeedAfter is required",
        )));
    };
    {
        let mut tried = state.tried.borrow_mut();
        if tried.len() >= TRIED_MAX {
            tried.clear();
        }
        let times = tried.entry(name.to_owned()).or_default();
        if *times >= until {
            return None;
        }
        *times += 1;
    }
    if let Err(why) = query.wait("delayRetry").await {
        return Some(Ok(failed(&why)));
    }
    let code = query.get("responseCode").and_then(|code| code.parse().ok());
    Some(
        match code.and_then(|code| StatusCode::from_u16(code).ok()) {
            Some(code) => Ok(plain(code, "")),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        },
    )
}

/// The request's target as it came.
fn target(request: &Request<Incoming>) -> String {
    let target = request.uri().path_and_query();
    target.map_or_else(|| "/".to_owned(), ToString::to_string)
}

fn echo(state: &State, request: &Request<Incoming>, peer: &Peer) -> Response<Reply> {
    let lines = request.headers();
    let named = request.uri().authority().map(ToString::to_string);
    let line = lines.get("host").and_then(|host| host.to_str().ok());
    let host = named.or_else(|| line.map(str::to_owned));
    let place = &state.place;
    let mut told = json!({
        "path": target(request),
        "host": host.unwrap_or_default(),
        "method": request.method().as_str(),
        "proto": match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        },
        "headers": shown(lines),
        "httpPort": state.http_port.to_string(),
        "namespace": place.namespace,
        "ingress": place.ingress,
        "service": place.service,
        "pod": place.pod,
    });
    if let Some(tls) = &peer.tls {
        told["tls"] = tls.json();
    }
    let text = serde_json::to_string_pretty(&told).unwrap_or_default();
    let mut response = Response::new(Reply::from(text));
    for (name, value) in wanted(lines) {
        response.headers_mut().insert(name, value);
    }
    json_lines(response.headers_mut());
    response
}

/// Lines as Go has them: by names in its spelling, without the host.
fn shown(lines: &HeaderMap) -> Value {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in lines.iter().filter(|(name, _)| *name != "host") {
        let values = told.entry(spelled(name.as_str())).or_default();
        values.push(String::from_utf8_lossy(value.as_bytes()).into_owned());
    }
    json!(told)
}

/// `X-Header-Add`.
pub(crate) fn spelled(name: &str) -> String {
    let mut starts = true;
    let letters = name.chars().map(|letter| {
        let letter = match starts {
            true => letter.to_ascii_uppercase(),
            false => letter.to_ascii_lowercase(),
        };
        starts = letter == '-';
        letter
    });
    letters.collect()
}

/// What lines of the response are asked for; of one name, the values are joined.
fn wanted(lines: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for line in lines.get_all("x-echo-set-header") {
        let line = String::from_utf8_lossy(line.as_bytes()).into_owned();
        for pair in line.split(',') {
            let (name, value) = pair.trim().split_once(':').unwrap_or((pair.trim(), ""));
            let name = name.to_ascii_lowercase();
            match found.iter_mut().find(|(known, _)| *known == name) {
                None => found.push((name, value.to_owned())),
                Some((_, values)) => {
                    values.push(',');
                    values.push_str(value.trim());
                }
            }
        }
    }
    let lines = found.into_iter();
    lines
        .filter_map(|(name, value)| Some((name.parse().ok()?, value.parse().ok()?)))
        .collect()
}

fn json_lines(lines: &mut HeaderMap) {
    lines.insert("content-type", HeaderValue::from_static("application/json"));
    lines.insert(
        "x-content-type-options",
        HeaderValue::from_static("nosniff"),
    );
}

pub(crate) fn plain(status: StatusCode, text: &str) -> Response<Reply> {
    let mut response = Response::new(Reply::from(text.to_owned()));
    *response.status_mut() = status;
    if text.is_empty() {
        response.body_mut().bytes = None;
    }
    response
}

fn failed(why: &str) -> Response<Reply> {
    let mut response = Response::new(Reply::from(json!({"message": why}).to_string()));
    *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    json_lines(response.headers_mut());
    response
}

struct Query(Vec<(String, String)>);

impl Query {
    fn of(request: &Request<Incoming>) -> Self {
        let parts = request.uri().query().unwrap_or_default().split('&');
        let pairs = parts.map(|part| part.split_once('=').unwrap_or((part, "")));
        Self(
            pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        )
    }

    fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// As long as the parameter says.
    async fn wait(&self, name: &str) -> Result<(), String> {
        let Some(text) = self.get(name).filter(|text| !text.is_empty()) else {
            return Ok(());
        };
        let pause = duration(text).ok_or_else(|| format!("time: invalid duration {text:?}"))?;
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// `1s`, `300ms`, `1m30s`.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .bytes()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .count();
        let (number, behind) = rest.split_at(digits);
        let units = [("ms", 0.001), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let mut units = units.into_iter();
        let (unit, behind) =
            units.find_map(|(name, unit)| Some((unit, behind.strip_prefix(name)?)))?;
        sum += Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        rest = behind;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_times_are_written_as_in_go() {
        for (name, expected) in [("x-header-add", "X-Header-Add"), ("HOST", "Host")] {
            assert_eq!(spelled(name), expected);
        }
        for (text, millis) in [
            ("1s", Some(1000)),
            ("300ms", Some(300)),
            ("1m1.5s", Some(61_500)),
            ("1", None),
            ("x", None),
        ] {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn lines_of_the_response_are_those_that_are_asked_for() {
        let mut lines = HeaderMap::new();
        let said = "X-A:1,X-B:two words, X-A: 3";
        lines.insert("x-echo-set-header", HeaderValue::from_static(said));
        let found = wanted(&lines);
        let found: Vec<String> = found
            .iter()
            .map(|(name, value)| format!("{name}={}", value.to_str().expect("text")))
            .collect();
        assert_eq!(found, ["x-a=1,3", "x-b=two words"]);
    }
}
