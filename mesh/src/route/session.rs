//! Which endpoint a client stays with, where its rule wants that: read from a request, told with the answer.
//!
//! A token says which endpoint answered, and when the session began. It is no secret and is believed as far as it goes: it leads to one of
//! the endpoints that the rule leads to anyway, of backends whatever their weight, and to nobody where there is no such endpoint, or not
//! any more. Nothing is kept here, so that every node knows every session, those of before its start among them.
//!
//! Invariants: a token of one rule means nothing to another; a session that is over, or whose endpoint is gone or did not answer, begins anew
//! where the request was answered; a cookie is set where that is news only.
//! Source: gateway-api `geps/gep-1619`.

use std::net::SocketAddr;

use http::{HeaderMap, HeaderValue, header, uri::Scheme};
use weft_gateway::{Carried, PathMatch, Session};

use super::{Entry, matching::elements};
use crate::{
    resolve::Target,
    table::{Endpoint, Table},
};

/// Digits of an endpoint in a token; those of the time follow.
const ENDPOINT_DIGITS: usize = 16;
/// Most digits of a time, which are those of 64 bits.
const TIME_DIGITS_MAX: usize = 16;
/// How far ahead another node's clock may be, in seconds.
const AHEAD_MAX: u64 = 300;

/// Of a request whose answer has to say where it came from. An extension, which no guest and no client can set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stays {
    /// Where it goes first.
    pub(crate) at: Option<SocketAddr>,
}

/// Of an answer to a request with [`Stays`]: the endpoint's key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnsweredBy(pub(crate) u64);

impl AnsweredBy {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self(endpoint.key)
    }
}

/// The session that a request is of, or is to begin.
#[derive(Debug)]
pub(crate) struct Sticky {
    /// Among the rule's backends.
    pub(crate) backend: Option<usize>,
    pub(crate) stays: Stays,
    kept: Option<Token>,
    /// Below which a cookie is sent again.
    path: String,
    is_secure: bool,
    /// Seconds since the epoch.
    now: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    /// [`mixed`] of its key.
    endpoint: u64,
    /// Seconds since the epoch.
    began: u64,
}

impl Sticky {
    /// What a request says of its session with the entry's rule, if that has any. `now`: seconds since the epoch.
    pub(crate) fn of<B>(
        entry: &Entry,
        table: &Table,
        request: &http::Request<B>,
        now: u64,
    ) -> Option<Self> {
        let session = entry.rule.session.as_ref()?;
        let tokens = tokens(&session.carried, request.headers());
        let valid = tokens.filter(|token| token.is_valid(session, now));
        let mut found = valid.filter_map(|token| {
            let (backend, at) = token.find(entry, session, table)?;
            Some((token, backend, at))
        });
        let found = found.next();
        Some(Self {
            backend: found.map(|(_, backend, _)| backend),
            stays: Stays {
                at: found.map(|(_, _, at)| at),
            },
            kept: found.map(|(token, ..)| token),
            path: cookie_path(&entry.matches().path).to_owned(),
            is_secure: request.uri().scheme() == Some(&Scheme::HTTPS),
            now,
        })
    }

    /// Tells the client where it was answered. Without an endpoint that answered, there is nothing to stay with.
    pub(super) fn tell(&self, session: &Session, by: Option<AnsweredBy>, lines: &mut HeaderMap) {
        let Some(AnsweredBy(key)) = by else { return };
        let endpoint = mixed(session.scope, key);
        let kept = self.kept.filter(|token| token.endpoint == endpoint);
        let token = kept.unwrap_or(Token {
            endpoint,
            began: self.now,
        });
        match &session.carried {
            // Programs take it from any answer.
            Carried::Header(name) => {
                if let Ok(value) = HeaderValue::from_str(&token.text()) {
                    lines.insert(name.clone(), value);
                }
            }
            Carried::Cookie { .. } if kept.is_some() => {}
            Carried::Cookie { name, is_permanent } => {
                let mut line = format!("{name}={}; Path={}", token.text(), self.path);
                if let (true, Some(lifetime)) = (is_permanent, session.lifetime) {
                    line.push_str(&format!("; Max-Age={}", lifetime.as_secs().max(1)));
                }
                line.push_str("; HttpOnly; SameSite=Strict");
                if self.is_secure {
                    line.push_str("; Secure");
                }
                if let Ok(value) = HeaderValue::from_str(&line) {
                    lines.append(header::SET_COOKIE, value);
                }
            }
        }
    }
}

impl Token {
    fn text(self) -> String {
        format!("{:016x}{:x}", self.endpoint, self.began)
    }

    fn read(text: &str) -> Option<Self> {
        let (endpoint, began) = text.split_at_checked(ENDPOINT_DIGITS)?;
        let is_short = began.len() <= TIME_DIGITS_MAX;
        let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !(is_short && is_digits) {
            return None;
        }
        Some(Self {
            endpoint: u64::from_str_radix(endpoint, 16).ok()?,
            began: u64::from_str_radix(began, 16).ok()?,
        })
    }

    fn is_valid(self, session: &Session, now: u64) -> bool {
        let age = now.saturating_sub(self.began);
        let is_over = session
            .lifetime
            .is_some_and(|lifetime| age >= lifetime.as_secs().max(1));
        !is_over && self.began <= now.saturating_add(AHEAD_MAX)
    }

    /// The backend and the endpoint that it names, among those that can be called.
    fn find(self, entry: &Entry, session: &Session, table: &Table) -> Option<(usize, SocketAddr)> {
        let mut backends = entry.rule.backends.iter().enumerate();
        backends.find_map(|(place, backend)| {
            let Ok(Target::Service { service, port }) = table.backend(&backend.target) else {
                return None;
            };
            let is_it = |endpoint: &Endpoint| mixed(session.scope, endpoint.key) == self.endpoint;
            let endpoint = service.port(port)?.find(is_it)?;
            Some((place, endpoint.address))
        })
    }
}

/// An endpoint as one rule calls it.
fn mixed(scope: u64, key: u64) -> u64 {
    let mixed = (key ^ scope).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ (mixed >> 32)
}

/// All that may be the session's: of one name there may be cookies for several paths.
fn tokens<'h>(carried: &'h Carried, lines: &'h HeaderMap) -> impl Iterator<Item = Token> + 'h {
    let (line, cookie) = match carried {
        Carried::Cookie { name, .. } => (header::COOKIE, Some(name.as_str())),
        Carried::Header(name) => (name.clone(), None),
    };
    let values = lines.get_all(&line).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    let parts = values.flat_map(move |value| {
        let limit = match cookie {
            Some(_) => usize::MAX,
            None => 1,
        };
        value.splitn(limit, ';')
    });
    parts.filter_map(move |part| match cookie {
        None => Token::read(part.trim()),
        Some(wanted) => {
            let (name, value) = part.split_once('=')?;
            let value = value.trim().trim_matches('"');
            (name.trim() == wanted)
                .then(|| Token::read(value))
                .flatten()
        }
    })
}

/// The paths for which a cookie is sent again: those that the match is for, or what is sure of them.
fn cookie_path(path: &PathMatch) -> &str {
    let path: &str = match path {
        PathMatch::Exact(path) => path,
        PathMatch::Prefix(prefix) => elements(prefix),
        PathMatch::Method(_) => "",
        PathMatch::Pattern(pattern) => {
            let text = pattern.as_str();
            match text.find(|letter: char| r".*+?()[]{}|^$\".contains(letter)) {
                None => text,
                Some(end) => text
                    .get(..end)
                    .and_then(|sure| sure.rsplit_once('/'))
                    .map_or("", |(sure, _)| sure),
            }
        }
    };
    match path.starts_with('/') && !path.contains(';') {
        true => path,
        false => "/",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::Request;
    use weft_gateway::Pattern;

    use super::*;

    #[test]
    fn a_cookie_is_for_the_paths_of_its_match() {
        let pattern = |text: &str| PathMatch::Pattern(Pattern::new(text).expect("a pattern"));
        for (path, expected) in [
            (PathMatch::Prefix(String::new()), "/"),
            (PathMatch::Prefix("/".to_owned()), "/"),
            (PathMatch::Prefix("/a/b/".to_owned()), "/a/b"),
            (PathMatch::Exact("/a/b".to_owned()), "/a/b"),
            (PathMatch::Exact("/a;b".to_owned()), "/"),
            (PathMatch::Method("Get".to_owned()), "/"),
            (pattern("/p1/p2/.*/p3"), "/p1/p2"),
            (pattern("/p1/p2[0-9]"), "/p1"),
            (pattern(".*"), "/"),
            (pattern("/p1"), "/p1"),
        ] {
            assert_eq!(cookie_path(&path), expected, "{path:?}");
        }
    }

    #[test]
    fn tokens_are_found_among_others_and_hold_for_their_time() {
        let cookie = Carried::Cookie {
            name: "s".to_owned(),
            is_permanent: false,
        };
        let token = Token {
            endpoint: 0xa,
            began: 1000,
        };
        let text = token.text();
        assert_eq!(text, "000000000000000a3e8");
        let header = Carried::Header(header::FROM);
        for (carried, name, value, expected) in [
            (&cookie, "cookie", format!("a=b; s={text}; s2=x"), 1),
            (&cookie, "cookie", format!("s=\"{text}\"; s={text}"), 2),
            (
                &cookie,
                "cookie",
                format!("ss={text}; s=; s=1; s=zz{text}; s"),
                0,
            ),
            (&cookie, "cookie", format!("s={text}{text}"), 0),
            (&header, "from", text.clone(), 1),
            (&header, "from", format!("{text};{text}"), 0),
        ] {
            let request = Request::get("/").header(name, &value).body(());
            let request = request.expect("a request");
            let found: Vec<Token> = tokens(carried, request.headers()).collect();
            assert_eq!(found, vec![token; expected], "{value}");
        }
        let session = |lifetime: Option<u64>| Session {
            carried: cookie.clone(),
            lifetime: lifetime.map(Duration::from_secs),
            scope: 1,
        };
        for (lifetime, now, expected) in [
            (None, 999_999, true),
            (Some(10), 1009, true),
            (Some(10), 1010, false),
            (Some(10), 800, true),
            (None, 600, false),
        ] {
            assert_eq!(token.is_valid(&session(lifetime), now), expected, "{now}");
        }
        assert_ne!(mixed(1, 7), mixed(2, 7));
    }
}
