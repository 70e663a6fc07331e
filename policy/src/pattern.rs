//! Which texts a value of a policy means: exactly one, those that begin or end in some way, any at all; or paths by their segments.
//!
//! Invariants: linear in the text; an empty text is met by no pattern but the empty one and those of paths.

/// What a value of a policy means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pattern {
    /// `*`: anything but nothing.
    Present,
    Exact(String),
    /// `a*`.
    Prefix(String),
    /// `*a`.
    Suffix(String),
    /// `a*b*c`, where any number of stars is allowed: what lies between them, in its order.
    Pieces(Vec<String>),
    Path(Template),
}

impl Pattern {
    /// As most fields have it: one star, at the beginning or at the end. Elsewhere it is a star.
    pub(crate) fn of(text: &str) -> Self {
        match text {
            "*" => Self::Present,
            text => match (text.strip_prefix('*'), text.strip_suffix('*')) {
                (Some(suffix), _) => Self::Suffix(suffix.to_owned()),
                (None, Some(prefix)) => Self::Prefix(prefix.to_owned()),
                (None, None) => Self::Exact(text.to_owned()),
            },
        }
    }

    /// As namespaces are written: with stars anywhere.
    pub(crate) fn pieces(text: &str) -> Self {
        match text.contains('*') {
            true => Self::Pieces(text.split('*').map(str::to_owned).collect()),
            false => Self::Exact(text.to_owned()),
        }
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        match self {
            Self::Present => !value.is_empty(),
            Self::Exact(text) => value == text,
            Self::Prefix(text) => value.starts_with(text.as_str()),
            Self::Suffix(text) => value.ends_with(text.as_str()),
            Self::Pieces(pieces) => in_order(pieces, value),
            Self::Path(template) => template.matches(value),
        }
    }
}

/// Whether the pieces are in the text one after the other, the first at its beginning and the last at its end.
fn in_order(pieces: &[String], text: &str) -> bool {
    let Some(((first, between), last)) = pieces
        .split_first()
        .and_then(|(first, rest)| rest.split_last().map(|(last, rest)| ((first, rest), last)))
    else {
        return false;
    };
    let Some(mut rest) = text.strip_prefix(first.as_str()) else {
        return false;
    };
    for piece in between {
        let Some(at) = rest.find(piece.as_str()) else {
            return false;
        };
        rest = rest.get(at + piece.len()..).unwrap_or_default();
    }
    rest.ends_with(last.as_str())
}

/// A path by its segments: `{*}` is one, `{**}` any number of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template {
    /// Before `{**}`, or all.
    head: Vec<Segment>,
    /// Behind it, where it is there.
    tail: Option<Vec<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Text(String),
    /// `{*}`: not empty.
    One,
}

impl Template {
    /// Whether the text wants to be one.
    pub(crate) fn is_meant(text: &str) -> bool {
        text.contains("{*}") || text.contains("{**}")
    }

    /// None where an operator shares its segment, or follows `{**}`, or where something that is none looks like one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut template = Self {
            head: Vec::new(),
            tail: None,
        };
        for segment in text.split('/') {
            let segment = match segment {
                "{*}" => Segment::One,
                "{**}" if template.tail.is_none() => {
                    template.tail = Some(Vec::new());
                    continue;
                }
                text if text.contains(['*', '{', '}']) => return None,
                text => Segment::Text(text.to_owned()),
            };
            match (&mut template.tail, segment) {
                (None, segment) => template.head.push(segment),
                (Some(tail), Segment::Text(text)) => tail.push(text),
                (Some(_), Segment::One) => return None,
            }
        }
        Some(template)
    }

    fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/');
        let begins = self.head.iter().all(|expected| {
            segments.next().is_some_and(|found| match expected {
                Segment::Text(text) => found == text,
                Segment::One => !found.is_empty(),
            })
        });
        if !begins {
            return false;
        }
        match &self.tail {
            None => segments.next().is_none(),
            Some(tail) => {
                let ends = tail
                    .iter()
                    .rev()
                    .all(|text| segments.next_back() == Some(text.as_str()));
                // What stands for `{**}` is between two slashes, or behind one.
                ends && segments.next().is_some()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_at_one_end() {
        for (pattern, met, not_met) in [
            ("abc", &["abc"][..], &["", "ab", "abcd", "ABC"][..]),
            ("abc*", &["abc", "abcd"], &["ab", "xabc"]),
            ("*abc", &["abc", "xabc"], &["abcx", ""]),
            ("*", &["a"], &[""]),
            ("a*c", &["a*c"], &["abc"]),
        ] {
            let read = Pattern::of(pattern);
            for text in met {
                assert!(read.matches(text), "{pattern} {text}");
            }
            for text in not_met {
                assert!(!read.matches(text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn stars_in_namespaces_are_anywhere() {
        for (pattern, met, not_met) in [
            ("prod", &["prod"][..], &["prod-1"][..]),
            ("prod-*", &["prod-", "prod-eu"], &["prod", "xprod-eu"]),
            ("*-eu", &["prod-eu"], &["prod-eu-1"]),
            ("a*-*z", &["a-z", "ab-yz", "a-b-z"], &["az", "a-", "-z"]),
            ("ab*ba", &["abba", "abcba"], &["aba"]),
        ] {
            let read = Pattern::pieces(pattern);
            for text in met {
                assert!(read.matches(text), "{pattern} {text}");
            }
            for text in not_met {
                assert!(!read.matches(text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn templates_are_met_segment_by_segment() {
        for (template, met, not_met) in [
            (
                "/foo/{*}",
                &["/foo/bar"][..],
                &["/foo/bar/baz", "/foo/", "/foo"][..],
            ),
            (
                "/foo/{**}/",
                &["/foo/bar/", "/foo/bar/baz.txt/", "/foo//"],
                &["/foo/bar", "/foo/"],
            ),
            (
                "/foo/{*}/bar/{**}",
                &["/foo/buzz/bar/", "/foo/buzz/bar/baz"],
                &["/foo/buzz/bar", "/foo//bar/baz"],
            ),
            ("/{*}/x", &["/a/x"], &["/a/b/x", "/x"]),
            ("/{**}", &["/", "/a/b"], &[""]),
        ] {
            let read = Template::parse(template).expect(template);
            for path in met {
                assert!(read.matches(path), "{template} {path}");
            }
            for path in not_met {
                assert!(!read.matches(path), "{template} {path}");
            }
        }
        for wrong in [
            "/*/baz/{*}",
            "/**/baz/{*}",
            "/{**}/foo/{*}",
            "/foo/{*}.txt",
            "/{a}/{*}",
            "/{*}/{a=*}",
            "/{**}/{**}",
        ] {
            assert!(Template::is_meant(wrong), "{wrong}");
            assert_eq!(Template::parse(wrong), None, "{wrong}");
        }
    }
}
