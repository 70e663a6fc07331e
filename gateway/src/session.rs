//! Sessions of a rule, from how they are written to values. Pure.
//!
//! Invariant: rules share no session: what tells one's from another's is made of the route and the rule's name, or its place where it has
//! none, so that a rule keeps its sessions when others come and go before one with a name.

use http::HeaderName;
use weft_api::hash::fnv1a_64;

use crate::api::SessionPersistence;
use crate::duration;
use crate::rule::{Carried, Session};

/// `of`: whose sessions they are, in words that nothing else has.
///
/// # Errors
/// Half a sentence with what is not supported.
pub(crate) fn read(written: &SessionPersistence, of: &str) -> Result<Session, String> {
    // The same on every node, whatever it was built by.
    let scope = fnv1a_64(of.bytes());
    let named = written.session_name.as_deref();
    let named = named.filter(|name| !name.is_empty());
    let name = named.map_or_else(|| format!("weft-session-{scope:016x}"), str::to_owned);
    let lifetime = written.absolute_timeout.as_deref().map(duration::parse);
    let lifetime = lifetime.transpose()?.filter(|lifetime| !lifetime.is_zero());
    let carried = match written.kind.as_deref().unwrap_or("Cookie") {
        "Cookie" => {
            let cookie = written.cookie_config.as_ref();
            let kind = cookie.and_then(|cookie| cookie.lifetime_type.as_deref());
            let is_permanent = kind == Some("Permanent");
            if is_permanent && lifetime.is_none() {
                return Err("a permanent cookie needs an absoluteTimeout".to_owned());
            }
            if !name.bytes().all(is_of_token) {
                return Err(format!("{name:?} is no name of a cookie"));
            }
            Carried::Cookie { name, is_permanent }
        }
        "Header" => {
            let parsed = name.parse::<HeaderName>();
            Carried::Header(parsed.map_err(|_| format!("{name:?} is no header name"))?)
        }
        other => return Err(format!("a session of type {other} is not supported")),
    };
    Ok(Session {
        carried,
        lifetime,
        scope,
    })
}

/// What names are made of (RFC 9110 §5.6.2).
fn is_of_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::CookieConfig;

    #[test]
    fn sessions_are_read_or_refused_by_what_is_wrong_with_them() {
        let written = |kind: &str, name: &str, timeout: &str, lifetime: &str| {
            let owned = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            SessionPersistence {
                session_name: owned(name),
                absolute_timeout: owned(timeout),
                kind: owned(kind),
                cookie_config: owned(lifetime).map(|kind| CookieConfig {
                    lifetime_type: Some(kind),
                }),
                ..SessionPersistence::default()
            }
        };
        for (kind, name, timeout, lifetime, expected) in [
            ("", "", "", "", "cookie weft-session-ffb7b13a1ae0dd88, None"),
            ("Cookie", "a", "1h", "", "cookie a, Some(3600s)"),
            (
                "Cookie",
                "a",
                "5m",
                "Permanent",
                "permanent cookie a, Some(300s)",
            ),
            ("Cookie", "a", "0s", "Session", "cookie a, None"),
            (
                "Cookie",
                "a",
                "0s",
                "Permanent",
                "a permanent cookie needs an absoluteTimeout",
            ),
            ("Cookie", "a b", "", "", "\"a b\" is no name of a cookie"),
            ("Header", "X-Session", "", "", "header x-session, None"),
            ("Header", "a:b", "", "", "\"a:b\" is no header name"),
            (
                "Query",
                "",
                "",
                "",
                "a session of type Query is not supported",
            ),
        ] {
            let told = match read(&written(kind, name, timeout, lifetime), "HTTPRoute a/b 0") {
                Err(why) => why,
                Ok(session) => {
                    let carried = match &session.carried {
                        Carried::Cookie {
                            name,
                            is_permanent: true,
                        } => format!("permanent cookie {name}"),
                        Carried::Cookie { name, .. } => format!("cookie {name}"),
                        Carried::Header(name) => format!("header {name}"),
                    };
                    format!("{carried}, {:?}", session.lifetime)
                }
            };
            assert_eq!(told, expected);
        }
        let scope = |of: &str| read(&written("", "", "", ""), of).map(|session| session.scope);
        assert_ne!(scope("HTTPRoute a/b 0"), scope("HTTPRoute a/b 1"));
    }
}
