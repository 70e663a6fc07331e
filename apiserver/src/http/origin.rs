//! Whether a request comes from a page of this server, as a browser says it.
//!
//! A browser says of which page a request is in `Sec-Fetch-Site` and `Origin`, and no page can make it say something else. Other programs say
//! nothing, and need not: nothing that they send is sent without their knowing.
//!
//! Invariants: pure; of two words that disagree the worse counts. Left to others: for whom that matters (`crate::authn`).

use http::{HeaderMap, HeaderName, Method, Uri, header};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What a URL leaves out.
const PORT_USUAL: &str = ":443";

/// Whose page sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Own,
    Another,
    /// Nobody says; it is no page, or a browser of long ago.
    Unsaid,
}

impl Origin {
    pub(crate) fn of(headers: &HeaderMap, uri: &Uri) -> Self {
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes());
        let by_site = match site {
            Some(b"same-origin") => Self::Own,
            // Of no page: somebody typed it.
            Some(b"none") | None => Self::Unsaid,
            Some(_) => Self::Another,
        };
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let by_origin = match (origins.next(), origins.next()) {
            (None, _) => Self::Unsaid,
            (Some(origin), None) if is_here(origin.as_bytes(), headers, uri) => Self::Own,
            _ => Self::Another,
        };
        match (by_site, by_origin) {
            (Self::Another, _) | (_, Self::Another) => Self::Another,
            (Self::Own, _) | (_, Self::Own) => Self::Own,
            (Self::Unsaid, Self::Unsaid) => Self::Unsaid,
        }
    }
}

/// Whether an origin is the one that a request was sent to.
fn is_here(origin: &[u8], headers: &HeaderMap, uri: &Uri) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    // HTTP/2 names it in the URI.
    let host = uri.authority().map(http::uri::Authority::as_str).or(host);
    let origin = std::str::from_utf8(origin).ok();
    let origin = origin.and_then(|origin| origin.strip_prefix("https://"));
    let (Some(host), Some(origin)) = (host, origin) else {
        return false;
    };
    let bare = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.strip_suffix(PORT_USUAL)
            .map(str::to_owned)
            .unwrap_or(text)
    };
    !host.is_empty() && bare(host) == bare(origin)
}

/// Whether a browser says that a page asks.
pub(crate) fn is_of_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(SEC_FETCH_SITE)
}

/// Whether a request may change something, or become a connection that does.
pub(crate) fn may_change(method: &Method, headers: &HeaderMap) -> bool {
    !matches!(*method, Method::GET | Method::HEAD) || headers.contains_key(header::UPGRADE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_page_sent_it() {
        for (lines, uri, expected) in [
            (&[][..], "/", Origin::Unsaid),
            (&[("sec-fetch-site", "none")], "/", Origin::Unsaid),
            (&[("sec-fetch-site", "same-origin")], "/", Origin::Own),
            // Another port of this machine.
            (&[("sec-fetch-site", "same-site")], "/", Origin::Another),
            (&[("sec-fetch-site", "cross-site")], "/", Origin::Another),
            (
                &[("host", "h:6443"), ("origin", "https://h:6443")],
                "/",
                Origin::Own,
            ),
            (
                &[("host", "H"), ("origin", "https://h:443")],
                "/",
                Origin::Own,
            ),
            (
                &[("origin", "https://h:6443")],
                "https://h:6443/x",
                Origin::Own,
            ),
            (
                &[("host", "h:6443"), ("origin", "https://h:6443")],
                "https://other:6443/x",
                Origin::Another,
            ),
            (
                &[("host", "h:6443"), ("origin", "http://h:6443")],
                "/",
                Origin::Another,
            ),
            (
                &[("host", "h:6443"), ("origin", "https://h:6443.evil")],
                "/",
                Origin::Another,
            ),
            (&[("host", "h"), ("origin", "null")], "/", Origin::Another),
            (
                &[("host", ""), ("origin", "https://")],
                "/",
                Origin::Another,
            ),
            (&[("origin", "https://h")], "/", Origin::Another),
            (
                &[
                    ("host", "h"),
                    ("origin", "https://h"),
                    ("sec-fetch-site", "cross-site"),
                ],
                "/",
                Origin::Another,
            ),
            (
                &[
                    ("host", "h"),
                    ("origin", "https://h"),
                    ("origin", "https://evil"),
                ],
                "/",
                Origin::Another,
            ),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name = HeaderName::from_static(name);
                headers.append(name, value.parse().unwrap());
            }
            let found = Origin::of(&headers, &uri.parse().unwrap());
            assert_eq!(found, expected, "{lines:?} {uri}");
        }
    }
}
