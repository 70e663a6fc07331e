//! Links in what is proxied, made to lead through this server as the request did: of pages, and of redirections.
//!
//! A link to the page's own host, or to an absolute path without one, gets in front of it what the page's path has in front of what the pod was asked
//! for. Links to elsewhere, and relative ones, lead where they should by themselves.
//!
//! Invariants: only the values of attributes that hold links change, and nothing else of a page; a page of more than [`PAGE_BYTES_MAX`], and one that is
//! compressed, pass as they are.
//!
//! Source: k8s.io/apimachinery `pkg/util/proxy/transport.go`; HTML Living Standard §13.2.5 (tokenization).

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream};
use http::{HeaderValue, header};

/// Most of a page that is gone through: all of it is there at once.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Attributes that hold links, by their elements.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];

/// Elements whose contents are text, whatever it looks like.
const RAW: &[&str] = &[
    "iframe",
    "noembed",
    "noframes",
    "noscript",
    "plaintext",
    "script",
    "style",
    "textarea",
    "title",
    "xmp",
];

/// Where a page is.
pub(super) struct Place<'a> {
    /// What stands before the path that the pod was asked for.
    pub above: &'a str,
    /// What the page's own host is called: where the pod is, and what the client asked.
    pub hosts: [&'a str; 2],
}

/// The answer with its links leading through this server.
pub(super) async fn rewritten(mut response: Response, place: &Place<'_>) -> Response {
    let headers = response.headers_mut();
    let location = headers.get(header::LOCATION);
    if let Some(location) = location.and_then(|location| location.to_str().ok()) {
        if let Some(through) = place.through(location)
            && let Ok(through) = HeaderValue::from_str(&through)
        {
            headers.insert(header::LOCATION, through);
        }
        return response;
    }
    let kind = headers.get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let is_page = kind.split(';').next().unwrap_or("").trim() == "text/html";
    if !is_page || headers.contains_key(header::CONTENT_ENCODING) {
        return response;
    }
    let (mut head, body) = response.into_parts();
    let mut frames = body.into_data_stream();
    let mut page = BytesMut::new();
    let mut failed = None;
    while page.len() <= PAGE_BYTES_MAX {
        match frames.next().await {
            Some(Ok(bytes)) => page.extend_from_slice(&bytes),
            Some(Err(error)) => {
                failed = Some(error);
                break;
            }
            None => {
                // A head that was asked for alone says how long the page is as it is there.
                if !page.is_empty() {
                    head.headers.remove(header::CONTENT_LENGTH);
                }
                let page = place.page(&page.freeze());
                return Response::from_parts(head, Body::from(page));
            }
        }
    }
    // Too large, or cut off: as it came.
    let first = Ok(page.freeze());
    let rest = stream::iter([first])
        .chain(stream::iter(failed.map(Err)))
        .chain(frames);
    Response::from_parts(head, Body::from_stream(rest))
}

/// A link, taken apart as far as is looked at.
struct Link<'t> {
    host: &'t str,
    path: &'t str,
    /// Query and fragment.
    rest: &'t str,
}

impl<'t> Link<'t> {
    fn of(text: &'t str) -> Self {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        let (front, rest) = text.split_at(end);
        let after_scheme = match front.split_once("://") {
            Some((scheme, after)) if !scheme.contains('/') => Some(after),
            _ => front.strip_prefix("//"),
        };
        let (host, path) = match after_scheme {
            Some(after) => after.split_at(after.find('/').unwrap_or(after.len())),
            None => ("", front),
        };
        Self { host, path, rest }
    }
}

impl Place<'_> {
    /// A link as it leads through this server; none where it is well as it is.
    fn through(&self, text: &str) -> Option<String> {
        let Link { host, path, rest } = Link::of(text);
        let is_elsewhere = !host.is_empty() && !self.hosts.contains(&host);
        if is_elsewhere || !path.starts_with('/') {
            return None;
        }
        let through = match path.starts_with(self.above) {
            true => format!("{path}{rest}"),
            false => format!("{}{path}{rest}", self.above),
        };
        (through != text).then_some(through)
    }

    /// A page with its links.
    fn page(&self, page: &Bytes) -> Bytes {
        // What is no text is none of a page.
        let Ok(text) = std::str::from_utf8(page) else {
            return page.clone();
        };
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('<') {
            let (before, tag) = rest.split_at(at);
            out.push_str(before);
            rest = self.tag(tag, &mut out);
        }
        out.push_str(rest);
        out.into()
    }

    /// Writes what begins at a `<`, and gives what follows.
    fn tag<'t>(&self, text: &'t str, out: &mut String) -> &'t str {
        let whole = |out: &mut String, end: usize| {
            let (done, rest) = text.split_at(end);
            out.push_str(done);
            rest
        };
        if text.starts_with("<!--") {
            let end = text.find("-->").map_or(text.len(), |at| at + 3);
            return whole(out, end);
        }
        let name = text.strip_prefix('<').unwrap_or(text);
        let end = name.find(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>'));
        let name = name.get(..end.unwrap_or(name.len())).unwrap_or("");
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return whole(out, 1);
        }
        let element = name.to_ascii_lowercase();
        let links = LINKS.iter().find(|(of, _)| *of == element);
        let links = links.map_or(&[][..], |(_, links)| links);
        let start = 1 + name.len();
        out.push_str(text.get(..start).unwrap_or(""));
        let mut rest = self.attributes(text.get(start..).unwrap_or(""), links, out);
        if RAW.contains(&element.as_str()) {
            let end = end_of_raw(rest, &element);
            let (raw, after) = rest.split_at(end);
            out.push_str(raw);
            rest = after;
        }
        rest
    }

    /// Writes the attributes of a tag and its end, and gives what follows.
    fn attributes<'t>(&self, text: &'t str, links: &[&str], out: &mut String) -> &'t str {
        let mut rest = text;
        loop {
            let start = rest.find(|c: char| !(c.is_ascii_whitespace() || c == '/'));
            let Some((space, after)) = start.map(|at| rest.split_at(at)) else {
                out.push_str(rest);
                return "";
            };
            out.push_str(space);
            if let Some(after) = after.strip_prefix('>') {
                out.push('>');
                return after;
            }
            // A `=` in the first place is part of the name.
            let stop = after
                .char_indices()
                .skip(1)
                .find(|(_, c)| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '='));
            let (name, after) = after.split_at(stop.map_or(after.len(), |(at, _)| at));
            out.push_str(name);
            let value = after.trim_start_matches(|c: char| c.is_ascii_whitespace());
            let Some(value) = value.strip_prefix('=') else {
                rest = after;
                continue;
            };
            let value = value.trim_start_matches(|c: char| c.is_ascii_whitespace());
            out.push_str(after.get(..after.len() - value.len()).unwrap_or(""));
            let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
            let (text, after) = match quote {
                Some(quote) => {
                    let inner = value.get(1..).unwrap_or("");
                    // A quote that is never closed takes all there is.
                    inner.split_at(inner.find(quote).unwrap_or(inner.len()))
                }
                None => {
                    let end = value.find(|c: char| c.is_ascii_whitespace() || c == '>');
                    value.split_at(end.unwrap_or(value.len()))
                }
            };
            let is_link = links.contains(&name.to_ascii_lowercase().as_str());
            let through = is_link.then(|| self.through(text)).flatten();
            out.extend(quote);
            out.push_str(through.as_deref().unwrap_or(text));
            rest = match quote {
                Some(quote) if after.starts_with(quote) => {
                    out.push(quote);
                    after.get(1..).unwrap_or("")
                }
                _ => after,
            };
        }
    }
}

/// Where the text of an element ends whose contents are text: at its end tag.
fn end_of_raw(text: &str, element: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text.get(from..).and_then(|rest| rest.find("</")) {
        let at = from + at;
        let name = text.get(at + 2..at + 2 + element.len());
        if name.is_some_and(|name| name.eq_ignore_ascii_case(element)) {
            return at;
        }
        from = at + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place<'static> = Place {
        above: "/api/v1/namespaces/n/pods/p:80/proxy",
        hosts: ["10.42.0.3:80", "localhost:8001"],
    };

    #[test]
    fn links_to_the_page_itself_lead_through_this_server() {
        for (link, expected) in [
            (
                "/rewriteme",
                Some("/api/v1/namespaces/n/pods/p:80/proxy/rewriteme"),
            ),
            (
                "/a/?q=/b#c",
                Some("/api/v1/namespaces/n/pods/p:80/proxy/a/?q=/b#c"),
            ),
            (
                "http://10.42.0.3:80/x",
                Some("/api/v1/namespaces/n/pods/p:80/proxy/x"),
            ),
            (
                "https://localhost:8001/x",
                Some("/api/v1/namespaces/n/pods/p:80/proxy/x"),
            ),
            (
                "//10.42.0.3:80/x",
                Some("/api/v1/namespaces/n/pods/p:80/proxy/x"),
            ),
            ("/api/v1/namespaces/n/pods/p:80/proxy/x", None),
            ("http://example.com/x", None),
            ("x/y", None),
            ("#top", None),
            ("mailto:jo@example.com", None),
            ("javascript:alert('/x')", None),
        ] {
            assert_eq!(PLACE.through(link).as_deref(), expected, "{link}");
        }
    }

    #[test]
    fn a_page_changes_in_its_links_only() {
        let above = PLACE.above;
        for (page, expected) in [
            (
                "<a href=\"/rewriteme\">test</a>",
                format!("<a href=\"{above}/rewriteme\">test</a>"),
            ),
            (
                "<A HREF='/x' title=\"/y\">",
                format!("<A HREF='{above}/x' title=\"/y\">"),
            ),
            ("<img src=/x/>", format!("<img src={above}/x/>")),
            (
                "<a href = \"/x\" / >",
                format!("<a href = \"{above}/x\" / >"),
            ),
            (
                "<script src=\"/s\">var a = '<a href=\"/x\">'</script><a href=/y>",
                format!(
                    "<script src=\"{above}/s\">var a = '<a href=\"/x\">'</script><a href={above}/y>"
                ),
            ),
            (
                "<!-- <a href=\"/x\"> -->",
                "<!-- <a href=\"/x\"> -->".to_owned(),
            ),
            (
                "1 < 2 <p title='<a href=\"/x\">'>",
                "1 < 2 <p title='<a href=\"/x\">'>".to_owned(),
            ),
            // What ends too early ends as it is.
            ("<a href=\"/x", format!("<a href=\"{above}/x")),
            ("<a href", "<a href".to_owned()),
            ("<a href=", "<a href=".to_owned()),
            ("<", "<".to_owned()),
            ("<title>", "<title>".to_owned()),
        ] {
            let found = PLACE.page(&Bytes::copy_from_slice(page.as_bytes()));
            assert_eq!(std::str::from_utf8(&found).unwrap(), expected, "{page}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_or_no_page_passes_as_it_is() {
        let link = "<a href=\"/x\">";
        let large = format!("{link}{}", " ".repeat(PAGE_BYTES_MAX));
        for (kind, body, changes) in [
            ("text/html; charset=utf-8", link.to_owned(), true),
            ("text/html", large, false),
            ("text/plain", link.to_owned(), false),
        ] {
            let mut response = Response::new(Body::from(body.clone()));
            let kind = HeaderValue::from_static(kind);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            let response = rewritten(response, &PLACE).await;
            let found = axum::body::to_bytes(response.into_body(), usize::MAX).await;
            assert_eq!(found.unwrap() != body.as_bytes(), changes);
        }
    }
}
