//! Addresses of the web, as Go's `url.ParseRequestURI` reads them.

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::percent_decode_str;

use super::{Function, Outcome};
use crate::cel::eval::{Error, Meter};
use crate::cel::value::{Key, Map, Value};

/// An absolute URL, or a path from the root.
#[derive(Debug, PartialEq, Eq)]
pub struct Url {
    scheme: String,
    host: String,
    /// As it was written, or escaped where it had to be.
    path: String,
    query: String,
}

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "url",
        overloads: &[("string_to_url", "(string) URL")],
        run: |args, meter| match args {
            [Value::String(text)] => {
                meter.allocate(text.len())?;
                match Url::parse_with_fragment(text) {
                    Ok(url) => Ok(Some(Value::Url(Arc::new(url)))),
                    Err(reason) => Err(Error::new(format!(
                        "URL parse error during conversion from string: parse {text:?}: {reason}",
                        text = &**text
                    ))),
                }
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "isURL",
        overloads: &[("is_url_string", "(string) bool")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Bool(Url::parse(text).is_ok()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "getScheme",
        overloads: &[("url_get_scheme", "URL.() string")],
        run: |args, _| part(args, |url| &url.scheme),
    },
    Function {
        name: "getHost",
        overloads: &[("url_get_host", "URL.() string")],
        run: |args, _| part(args, |url| &url.host),
    },
    Function {
        name: "getHostname",
        overloads: &[("url_get_hostname", "URL.() string")],
        run: |args, _| part(args, |url| url.host_and_port().0),
    },
    Function {
        name: "getPort",
        overloads: &[("url_get_port", "URL.() string")],
        run: |args, _| part(args, |url| url.host_and_port().1),
    },
    Function {
        name: "getEscapedPath",
        overloads: &[("url_get_escaped_path", "URL.() string")],
        run: |args, _| part(args, |url| &url.path),
    },
    Function {
        name: "getQuery",
        overloads: &[("url_get_query", "URL.() map(string,list(string))")],
        run: query,
    },
];

impl Url {
    /// As the address of a request, which has no fragment: a `#` is a letter of it.
    ///
    /// # Errors
    /// Why Go does not take it.
    pub(in crate::cel) fn parse(text: &str) -> Result<Self, String> {
        Self::read(text, true)
    }

    /// What can be the address of a request, without the fragment that it may have.
    fn parse_with_fragment(text: &str) -> Result<Self, String> {
        Self::parse(text)?;
        let (text, fragment) = text.split_once('#').unwrap_or((text, ""));
        let url = Self::read(text, false)?;
        check_escapes(fragment)?;
        Ok(url)
    }

    /// A request's has a host behind a scheme only.
    fn read(text: &str, of_request: bool) -> Result<Self, String> {
        if text.is_empty() {
            return Err("empty url".to_owned());
        }
        if text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        if text == "*" {
            return Ok(Self {
                scheme: String::new(),
                host: String::new(),
                path: "*".to_owned(),
                query: String::new(),
            });
        }
        let (scheme, rest) = split_scheme(text)?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (host, path) = match rest.strip_prefix("//") {
            Some(after) if !scheme.is_empty() || !of_request && !after.starts_with('/') => {
                let end = after.find('/').unwrap_or(after.len());
                let (authority, path) = after.split_at(end);
                (host_of(authority)?, path)
            }
            _ if rest.starts_with('/') => (String::new(), rest),
            _ if scheme.is_empty() => return Err("invalid URI for request".to_owned()),
            // An opaque address: `mailto:a@b`.
            _ => (String::new(), ""),
        };
        check_escapes(path)?;
        Ok(Self {
            scheme: scheme.to_ascii_lowercase(),
            host,
            path: escaped_path(path),
            query: query.to_owned(),
        })
    }

    fn host_and_port(&self) -> (&str, &str) {
        let (host, port) = match self.host.rfind(':') {
            Some(colon) if !self.host[colon..].contains(']') => {
                (&self.host[..colon], &self.host[colon + 1..])
            }
            _ => (self.host.as_str(), ""),
        };
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        (bare.unwrap_or(host), port)
    }
}

fn split_scheme(text: &str) -> Result<(&str, &str), String> {
    for (index, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if index > 0 => {}
            ':' if index == 0 => return Err("missing protocol scheme".to_owned()),
            ':' => return Ok((&text[..index], &text[index + 1..])),
            _ => break,
        }
    }
    Ok(("", text))
}

fn host_of(authority: &str) -> Result<String, String> {
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let port = match host.strip_prefix('[') {
        Some(inner) => {
            let Some((_, port)) = inner.split_once(']') else {
                return Err("missing ']' in host".to_owned());
            };
            port
        }
        None => host.find(':').map_or("", |colon| &host[colon..]),
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    let sound = port.is_empty()
        || port.starts_with(':') && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !sound {
        return Err(format!("invalid port {port:?} after host"));
    }
    let strange =
        |c: char| c == ' ' || c == '^' || c == '`' || c == '{' || c == '}' || c == '\\' || c == '|';
    if let Some(c) = host.chars().find(|c| strange(*c)) {
        return Err(format!(
            "invalid character {:?} in host name",
            c.to_string()
        ));
    }
    check_escapes(host)?;
    Ok(host.to_owned())
}

fn check_escapes(text: &str) -> Result<(), String> {
    let bytes = text.as_bytes();
    for (index, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%') {
        let hex = bytes.get(index + 1..index + 3);
        if !hex.is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)) {
            let end = bytes.len().min(index + 3);
            let shown = String::from_utf8_lossy(&bytes[index..end]).into_owned();
            return Err(format!("invalid URL escape {shown:?}"));
        }
    }
    Ok(())
}

fn escaped_path(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        let kept = byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@!'()*%[]".contains(&byte);
        match kept {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

fn part<'a>(args: &[Value<'a>], part: impl Fn(&Url) -> &str) -> Outcome<'a> {
    match args {
        [Value::Url(url)] => Ok(Some(Value::text(part(url)))),
        _ => Ok(None),
    }
}

fn query<'a>(args: &[Value<'a>], meter: &mut Meter) -> Outcome<'a> {
    let [Value::Url(url)] = args else {
        return Ok(None);
    };
    let mut found: BTreeMap<Key, Vec<Value<'a>>> = BTreeMap::new();
    for pair in url.query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        // What is not well formed is left out, as Go does.
        let (Some(key), Some(value)) = (unescaped(key), unescaped(value)) else {
            continue;
        };
        meter.allocate_values(2)?;
        found
            .entry(Key::String(key))
            .or_default()
            .push(Value::text(value));
    }
    let made: BTreeMap<Key, Value<'a>> = found
        .into_iter()
        .map(|(key, values)| (key, Value::list(values)))
        .collect();
    Ok(Some(Value::Map(Map::Built(Arc::new(made)))))
}

fn unescaped(text: &str) -> Option<String> {
    if text.contains(';') {
        return None;
    }
    check_escapes(text).ok()?;
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8_lossy();
    Some(decoded.into_owned())
}
