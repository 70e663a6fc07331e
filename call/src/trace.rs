//! W3C trace context: read it, make a child, write it. Numbers of spans are handed in.
//!
//! The host sees both the call a workload serves and the calls it makes, so it joins them itself: guests need
//! not copy headers. Source: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::headers::{TRACEPARENT, TRACESTATE};

/// Longest `tracestate` that is passed on; longer ones are dropped, as the specification allows.
const STATE_BYTES_MAX: usize = 512;

/// Position of one call in a trace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    /// Of the specification; the lowest bit says that somebody records the trace.
    pub flags: u8,
    /// `tracestate`, as it came.
    #[serde(serialize_with = "state_to_text", deserialize_with = "state_of_text")]
    pub state: Option<HeaderValue>,
}

impl TraceContext {
    /// Starts a trace that nobody asked to record. Zero is no number of a trace or a span.
    #[must_use]
    pub fn root(trace_id: u128, span_id: u64) -> Self {
        Self {
            trace_id: trace_id.max(1),
            span_id: span_id.max(1),
            flags: 0,
            state: None,
        }
    }

    /// Reads a `traceparent` value; anything malformed is `None`, which starts a new trace.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let bytes = value.as_bytes();
        let well_formed = bytes.len() >= 55
            && bytes[2] == b'-'
            && bytes[35] == b'-'
            && bytes[52] == b'-'
            && bytes[..55]
                .iter()
                .all(|byte| matches!(byte, b'-' | b'0'..=b'9' | b'a'..=b'f'));
        if !well_formed {
            return None;
        }
        let version = u8::from_str_radix(value.get(..2)?, 16).ok()?;
        // Version 00 ends after the flags; later versions may go on after a dash; ff is forbidden.
        let tail_ok = match version {
            0 => bytes.len() == 55,
            0xff => false,
            _ => bytes.len() == 55 || bytes[55] == b'-',
        };
        let trace_id = u128::from_str_radix(value.get(3..35)?, 16).ok()?;
        let span_id = u64::from_str_radix(value.get(36..52)?, 16).ok()?;
        let flags = u8::from_str_radix(value.get(53..55)?, 16).ok()?;
        (tail_ok && trace_id != 0 && span_id != 0).then_some(Self {
            trace_id,
            span_id,
            flags,
            state: None,
        })
    }

    /// Reads the context that a message carries. Two parents are none.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut lines = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (lines.next(), lines.next()) else {
            return None;
        };
        let mut context = Self::parse(parent.to_str().ok()?)?;
        context.state = state(headers);
        Some(context)
    }

    /// The same trace, one span further down.
    #[must_use]
    pub fn child(&self, span_id: u64) -> Self {
        Self {
            span_id: span_id.max(1),
            ..self.clone()
        }
    }

    /// Replaces the context that a message carries.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(TRACEPARENT, self.header());
        match &self.state {
            Some(state) => headers.insert(TRACESTATE, state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }

    fn header(&self) -> HeaderValue {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let mut put = |start: usize, digits: usize, value: u128| {
            for digit in 0..digits {
                let nibble = (value >> (4 * (digits - 1 - digit))) & 0xf;
                text[start + digit] = HEX[nibble as usize];
            }
        };
        put(3, 32, self.trace_id);
        put(36, 16, u128::from(self.span_id));
        put(53, 2, u128::from(self.flags));
        HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

/// What vendors add. Several lines are one list; one that is too long is dropped.
fn state(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(TRACESTATE).iter();
    let first = lines.next()?;
    let mut joined = Vec::new();
    for line in lines {
        if joined.is_empty() {
            joined.extend_from_slice(first.as_bytes());
        }
        if joined.len() + line.len() >= STATE_BYTES_MAX {
            return None;
        }
        joined.push(b',');
        joined.extend_from_slice(line.as_bytes());
    }
    if joined.is_empty() {
        return (first.len() <= STATE_BYTES_MAX).then(|| first.clone());
    }
    HeaderValue::from_bytes(&joined).ok()
}

fn state_to_text<S: Serializer>(
    state: &Option<HeaderValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let state = state.as_ref().map(HeaderValue::as_bytes);
    // What is no text is dropped, as the specification allows.
    let text = state.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.serialize(serializer)
}

fn state_of_text<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<HeaderValue>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    let state = text.map(|text| HeaderValue::from_bytes(text.as_bytes()));
    state.transpose().map_err(de::Error::custom)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "00-{:032x}-{:016x}-{:02x}",
            self.trace_id, self.span_id, self.flags
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn reads_and_writes_the_same_text() {
        let context = TraceContext::parse(PARENT).expect("the example of the specification");
        assert_eq!(context.to_string(), PARENT);
        let mut headers = HeaderMap::new();
        context.write(&mut headers);
        assert_eq!(headers["traceparent"], PARENT);
        assert_eq!(TraceContext::from_headers(&headers), Some(context));
    }

    #[test]
    fn a_child_stays_in_the_trace() {
        let parent = TraceContext::parse(PARENT).expect("valid");
        let child = parent.child(1);
        assert_eq!(child.trace_id, parent.trace_id);
        assert_eq!(child.flags, parent.flags);
        assert_ne!(child.span_id, parent.span_id);
    }

    #[test]
    fn malformed_values_are_refused() {
        for value in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
            "00-4bf92f3577b34da6a3ce929d0e0e473é-00f067aa0ba902b7-0",
        ] {
            assert_eq!(TraceContext::parse(value), None, "{value}");
        }
        assert!(TraceContext::parse(&PARENT.replacen("00", "01", 1)).is_some());
    }

    #[test]
    fn lines_of_one_list_are_joined_and_two_parents_are_none() {
        let read = |lines: &[(&'static str, &str)]| {
            let lines = lines.iter().map(|(name, value)| {
                (
                    name.parse().expect("a name"),
                    value.parse().expect("a value"),
                )
            });
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append::<http::HeaderName>(name, value);
            }
            let context = TraceContext::from_headers(&headers)?;
            Some(
                context
                    .state
                    .map(|state| state.to_str().expect("text").to_owned()),
            )
        };
        let parent = ("traceparent", PARENT);
        let state = |text| ("tracestate", text);
        let long = "x".repeat(STATE_BYTES_MAX);
        assert_eq!(read(&[parent]), Some(None));
        assert_eq!(read(&[parent, state("a=1")]), Some(Some("a=1".into())));
        assert_eq!(
            read(&[parent, state("a=1"), state("b=2"), state("c=3")]),
            Some(Some("a=1,b=2,c=3".into()))
        );
        assert_eq!(read(&[parent, state(&long)]), Some(Some(long.clone())));
        assert_eq!(read(&[parent, state(&long), state("")]), Some(None));
        assert_eq!(read(&[parent, parent]), None);
        assert_eq!(read(&[state("a=1")]), None);
    }
}
