//! What requests and answers are like when they go through this server to somebody else and back.
//!
//! Headers of one hop stay behind ([RFC 9110 §7.6.1](https://www.rfc-editor.org/rfc/rfc9110#section-7.6.1)), as do the credentials that the caller has for this server;
//! bodies flow as they come. A request that asks to go on as something else (a WebSocket, SPDY) does so once the other end agrees: its bytes are passed on
//! in both directions until one end closes, or this server does.
//!
//! Invariants: nothing is buffered; connections that became something else are bounded in number ([`UPGRADES_MAX`]); a caller's credentials never
//! reach the other end. Left to others: where that is (`crate::reach`), who may (`crate::authz`).

use std::net::IpAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::AppState;
use crate::authn::{PeerAddress, WEBSOCKET_TOKEN, sessions};
use crate::reach::Line;

/// Connections that became something else, at one time; each has a task and some kilobytes.
const UPGRADES_MAX: usize = 2048;
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Places for such connections.
#[derive(Clone)]
pub struct Upgrades(Arc<Semaphore>);

impl Default for Upgrades {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(UPGRADES_MAX)))
    }
}

/// A request on its way to somebody else.
pub(super) struct Forwarded {
    pub request: http::Request<Body>,
    /// Of the caller's connection, where it asks to go on as something else.
    upgrade: Option<OnUpgrade>,
}

/// What goes on of a request; `target` is its path and query there.
pub(super) fn request(mut incoming: Request, target: Uri) -> Forwarded {
    let asks = asks_to_upgrade(incoming.headers());
    let upgrade = asks.then(|| hyper::upgrade::on(&mut incoming));
    let peer = incoming.extensions().get::<PeerAddress>();
    let peer = peer.map(|PeerAddress(address)| *address);
    let (head, body) = incoming.into_parts();
    let mut request = http::Request::new(body);
    *request.method_mut() = head.method;
    *request.uri_mut() = target;
    *request.headers_mut() = of_request(&head.headers, peer);
    // HTTP/2 names the host in the URI alone.
    if !request.headers().contains_key(header::HOST)
        && let Some(host) = head.uri.authority()
        && let Ok(host) = HeaderValue::from_str(host.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    if asks && let Some(protocol) = head.headers.get(header::UPGRADE) {
        let headers = request.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    Forwarded { request, upgrade }
}

/// Why nothing comes back, in Go's words.
pub(super) enum Failed {
    /// The other end was not reached, or did not answer.
    Unreached(String),
    /// The connection cannot become what was asked for.
    Upgrade(String),
}

/// Sends it, and gives what comes back.
///
/// # Errors
/// [`Failed`]; an answer with any status is none.
pub(super) async fn exchange(
    state: &AppState,
    mut line: Line,
    forwarded: Forwarded,
) -> Result<Response, Failed> {
    let Forwarded { request, upgrade } = forwarded;
    let sent = line.send(request).await;
    let mut response = sent.map_err(|unanswered| Failed::Unreached(unanswered.why()))?;
    let status = response.status();
    let Some(upgrade) = upgrade else {
        // Nobody asked for that, and a connection cannot become it.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let told = format!("unexpected status code {}", status.as_u16());
            return Err(Failed::Unreached(told));
        }
        return Ok(answer(response.map(Body::new)));
    };
    if status != StatusCode::SWITCHING_PROTOCOLS {
        if status.as_u16() < 400 {
            let code = status.as_u16();
            let told = format!("invalid upgrade response: status code {code}");
            return Err(Failed::Upgrade(told));
        }
        return Ok(answer(response.map(Body::new)));
    }
    let Ok(place) = Arc::clone(&state.upgrades.0).try_acquire_owned() else {
        let told = "too many connections are open, please try again later";
        return Err(Failed::Upgrade(told.to_owned()));
    };
    let there = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(header::UPGRADE).cloned();
    let mut answer = answer(response.map(|_| Body::empty()));
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
    let closing = state.closing.clone();
    pass_on(&state.answers, closing, upgrade, there, place);
    Ok(answer)
}

fn pass_on(
    tasks: &TaskTracker,
    closing: CancellationToken,
    here: OnUpgrade,
    there: OnUpgrade,
    place: tokio::sync::OwnedSemaphorePermit,
) {
    let passing = async move {
        let (here, there) = match tokio::try_join!(here, there) {
            Ok(both) => both,
            Err(error) => {
                tracing::debug!(%error, "a connection did not become what it should");
                return;
            }
        };
        let (mut here, mut there) = (TokioIo::new(here), TokioIo::new(there));
        // Whichever end breaks off: the other hears of it by its connection's end.
        let _ = tokio::io::copy_bidirectional(&mut here, &mut there).await;
    };
    tasks.spawn(async move {
        closing.run_until_cancelled(passing).await;
        drop(place);
    });
}

/// Whether a request asks that its connection become something else.
pub(super) fn asks_to_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && words(headers, &header::CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"))
}

fn words<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h str> + use<'h> {
    let values = headers.get_all(name).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Headers of a request that go on.
fn of_request(headers: &HeaderMap, peer: Option<IpAddr>) -> HeaderMap {
    let mut kept = without_hop(headers);
    let takes_trailers = words(headers, &header::TE).any(|word| word == "trailers");
    kept.remove(header::AUTHORIZATION);
    kept.remove(sessions::MARK);
    without_session(headers, &mut kept);
    let impersonates = kept.keys();
    let impersonates = impersonates.filter(|name| name.as_str().starts_with("impersonate-"));
    let impersonates: Vec<HeaderName> = impersonates.cloned().collect();
    for name in impersonates {
        kept.remove(name);
    }
    if takes_trailers {
        kept.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    // Where a browser puts its token.
    let protocols = words(headers, &header::SEC_WEBSOCKET_PROTOCOL);
    let protocols: Vec<&str> = protocols
        .filter(|word| !word.starts_with(WEBSOCKET_TOKEN))
        .collect();
    kept.remove(header::SEC_WEBSOCKET_PROTOCOL);
    if !protocols.is_empty()
        && let Ok(told) = HeaderValue::from_str(&protocols.join(", "))
    {
        kept.insert(header::SEC_WEBSOCKET_PROTOCOL, told);
    }
    if let Some(peer) = peer {
        let before = words(headers, &FORWARDED_FOR).map(str::to_owned);
        let all: Vec<String> = before.chain([peer.to_string()]).collect();
        if let Ok(told) = HeaderValue::from_str(&all.join(", ")) {
            kept.insert(FORWARDED_FOR, told);
        }
    }
    kept
}

/// Has all cookies but that of a session.
fn without_session(headers: &HeaderMap, kept: &mut HeaderMap) {
    kept.remove(header::COOKIE);
    for line in headers.get_all(header::COOKIE) {
        let pairs = line.as_bytes().split(|byte| *byte == b';');
        let pairs: Vec<&[u8]> = pairs.filter(|pair| !sessions::is_cookie(pair)).collect();
        let rest = pairs.join(&b';');
        if let Ok(rest) = HeaderValue::from_bytes(rest.trim_ascii())
            && !rest.is_empty()
        {
            kept.append(header::COOKIE, rest);
        }
    }
}

/// An answer as it goes on to the caller.
fn answer(response: http::Response<Body>) -> Response {
    let (mut head, body) = response.into_parts();
    head.headers = without_hop(&head.headers);
    // What the other end allows scripts of other origins, it cannot allow them here.
    for name in [
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        header::ACCESS_CONTROL_ALLOW_HEADERS,
        header::ACCESS_CONTROL_ALLOW_METHODS,
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
    ] {
        head.headers.remove(name);
    }
    // Nor can it have a browser be somebody else here.
    if let http::header::Entry::Occupied(cookies) = head.headers.entry(header::SET_COOKIE) {
        let (name, cookies) = cookies.remove_entry_mult();
        let cookies = cookies.filter(|line| !sessions::is_cookie(line.as_bytes()));
        let cookies: Vec<HeaderValue> = cookies.collect();
        for line in cookies {
            head.headers.append(name.clone(), line);
        }
    }
    let mut answer = Response::new(body);
    *answer.status_mut() = head.status;
    *answer.headers_mut() = head.headers;
    answer
}

/// What is not of one hop: neither by itself nor because `Connection` names it.
fn without_hop(headers: &HeaderMap) -> HeaderMap {
    const HOP: [HeaderName; 9] = [
        header::CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    let named: Vec<&str> = words(headers, &header::CONNECTION).collect();
    let stays = |name: &HeaderName| {
        let mut named = named.iter();
        !HOP.contains(name) && !named.any(|named| name.as_str().eq_ignore_ascii_case(named))
    };
    let kept = headers.iter().filter(|(name, _)| stays(name));
    kept.map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let lines = lines.iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value).unwrap();
            (HeaderName::from_static(name), value)
        });
        lines.collect()
    }

    fn told(headers: &HeaderMap) -> Vec<String> {
        let lines = headers.iter();
        let lines = lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()));
        let mut lines: Vec<String> = lines.collect();
        lines.sort();
        lines
    }

    #[test]
    fn attack_134_what_is_of_one_hop_and_what_is_a_secret_stays_behind() {
        let sent = headers(&[
            ("authorization", "Bearer secret"),
            ("connection", "close, X-Own, upgrade"),
            ("x-own", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("upgrade", "h2c"),
            ("impersonate-user", "root"),
            ("x-forwarded-for", "10.0.0.9"),
            (
                "sec-websocket-protocol",
                "base64url.bearer.authorization.k8s.io.c2VjcmV0, v4.channel.k8s.io",
            ),
            ("cookie", "a=b; __Host-weft-session=secret; c=d"),
            ("weft-session", "1"),
            ("accept", "text/html"),
        ]);
        let peer = Some("10.0.0.1".parse().unwrap());
        assert_eq!(
            told(&of_request(&sent, peer)),
            [
                "accept: text/html",
                "cookie: a=b; c=d",
                "sec-websocket-protocol: v4.channel.k8s.io",
                "te: trailers",
                "x-forwarded-for: 10.0.0.9, 10.0.0.1",
            ]
        );
        let mut response = http::Response::new(Body::empty());
        *response.headers_mut() = headers(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("access-control-allow-origin", "*"),
            ("set-cookie", "a=b"),
            ("set-cookie", " __Host-weft-session = mine; Path=/"),
        ]);
        assert_eq!(told(answer(response).headers()), ["set-cookie: a=b"]);
    }

    #[test]
    fn who_asks_to_go_on_as_something_else_says_it_twice() {
        for (lines, expected) in [
            (
                &[
                    ("connection", "keep-alive, Upgrade"),
                    ("upgrade", "websocket"),
                ][..],
                true,
            ),
            (&[("connection", "close"), ("upgrade", "websocket")], false),
            (&[("connection", "upgrade")], false),
        ] {
            assert_eq!(asks_to_upgrade(&headers(lines)), expected, "{lines:?}");
        }
    }
}
