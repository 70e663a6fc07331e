//! W3C trace context: read it, make a child, write it. Numbers of spans are handed in.
//!
//! The host sees both the call a workload serves and the calls it makes, so it joins them itself: guests need
//! not copy headers. Source: <https://www.w3.org/TR/trace-context/>.

use std::fmt;

use http::{HeaderMap, HeaderValue};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::headers::{BAGGAGE, TRACEPARENT, TRACESTATE};

/// Longest `tracestate` that is passed on; longer ones are dropped, as the specification allows.
const STATE_BYTES_MAX: usize = 512;
/// Vendors in a `tracestate`; a list of more is none (§3.3.1.1).
const STATE_MEMBERS_MAX: usize = 32;
/// Longest `baggage` that is passed on, as its specification wants it of everybody (§3.3.2).
const BAGGAGE_BYTES_MAX: usize = 8192;

/// Somebody records the trace.
const SAMPLED: u8 = 1;
/// The flags that are known; others are written as zero (§2.2.2.1). The second says that the trace's number was drawn at random.
const FLAGS_KNOWN: u8 = 3;
/// The span of whoever serves a try, among those that are derived of the try's.
const SERVED: u64 = 1 << 32;

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
            flags: flags & FLAGS_KNOWN,
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

    /// Whether somebody records the trace.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same, recorded or not.
    #[must_use]
    pub fn recorded(self, is_recorded: bool) -> Self {
        let others = self.flags & !SAMPLED;
        Self {
            flags: others | if is_recorded { SAMPLED } else { 0 },
            ..self
        }
    }

    /// The span of try number `number` of this call: the call's own for the first. Derived, so that both ends of a call, and whoever
    /// tells of it later, mean the same one without having told each other.
    #[must_use]
    pub fn of_try(&self, number: u32) -> Self {
        match number {
            0 => self.clone(),
            number => self.derived(u64::from(number)),
        }
    }

    /// The span of whoever serves this try.
    #[must_use]
    pub fn served(&self) -> Self {
        self.derived(SERVED)
    }

    fn derived(&self, number: u64) -> Self {
        // SplitMix64's steps: one of the trace's many numbers, as good as drawn.
        let mut mixed = self
            .span_id
            .wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        self.child(mixed ^ (mixed >> 31))
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
        let fits = first.len() <= STATE_BYTES_MAX && is_state(first.as_bytes());
        return fits.then(|| first.clone());
    }
    let joined = HeaderValue::from_bytes(&joined).ok()?;
    is_state(joined.as_bytes()).then_some(joined)
}

/// Whether a list names few enough vendors, each once. What they say of themselves is theirs, as far as it can stand in a list (§3.3.1.3.2).
fn is_state(list: &[u8]) -> bool {
    let mut vendors = Vec::new();
    for member in list.split(|byte| *byte == b',') {
        let member = member.trim_ascii();
        if member.is_empty() {
            // Lists may have holes.
            continue;
        }
        let Some(equals) = member.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (vendor, value) = member.split_at(equals);
        let value = value.get(1..).unwrap_or_default();
        let is_value = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b'=';
        let is_said = !value.is_empty() && value.iter().all(is_value);
        let is_new = is_vendor(vendor) && is_said && !vendors.contains(&vendor);
        if !is_new || vendors.len() == STATE_MEMBERS_MAX {
            return false;
        }
        vendors.push(vendor);
    }
    true
}

/// A name in lower case, with its tenant before an @ or not (§3.3.1.3.1).
fn is_vendor(name: &[u8]) -> bool {
    let is_part = |part: &[u8], most: usize, digit_first: bool| {
        let begins = part.first().is_some_and(|byte| {
            byte.is_ascii_lowercase() || (digit_first && byte.is_ascii_digit())
        });
        let goes_on = part
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/'));
        begins && goes_on && part.len() <= most
    };
    match name.iter().position(|byte| *byte == b'@') {
        None => is_part(name, 256, true),
        Some(at) => {
            let (tenant, system) = name.split_at(at);
            let system = system.get(1..).unwrap_or_default();
            is_part(tenant, 241, true) && is_part(system, 14, false)
        }
    }
}

/// What a message says of the properties of its call (W3C Baggage). Several lines are one list; one that is too long is dropped.
#[must_use]
pub fn baggage(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lines = headers.get_all(BAGGAGE).iter();
    let first = lines.next()?;
    let mut joined = Vec::new();
    for line in lines {
        if joined.is_empty() {
            joined.extend_from_slice(first.as_bytes());
        }
        joined.push(b',');
        joined.extend_from_slice(line.as_bytes());
        if joined.len() > BAGGAGE_BYTES_MAX {
            return None;
        }
    }
    match joined.is_empty() {
        true => (first.len() <= BAGGAGE_BYTES_MAX).then(|| first.clone()),
        false => HeaderValue::from_bytes(&joined).ok(),
    }
}

/// Which traces are recorded that begin here or come here: the samplers of OpenTelemetry by their names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Whoever began a trace has said whether it is recorded.
    pub parent_based: bool,
    /// Of those that this is not said of, from 0 to 1.
    pub share: f64,
}

impl Default for Sampling {
    /// Nobody records here; what others record goes on.
    fn default() -> Self {
        Self {
            parent_based: true,
            share: 0.0,
        }
    }
}

impl Sampling {
    /// The sampler that `OTEL_TRACES_SAMPLER` names, and what its argument says; none for a name that is not known, or a share that is none.
    #[must_use]
    pub fn parse(name: &str, argument: Option<&str>) -> Option<Self> {
        let share = || match argument {
            None => Some(1.0),
            Some(argument) => {
                let share = argument.trim().parse::<f64>().ok()?;
                (0.0..=1.0).contains(&share).then_some(share)
            }
        };
        let (parent_based, share) = match name {
            "always_on" => (false, 1.0),
            "always_off" => (false, 0.0),
            "traceidratio" => (false, share()?),
            "parentbased_always_on" => (true, 1.0),
            "parentbased_always_off" => (true, 0.0),
            "parentbased_traceidratio" => (true, share()?),
            _ => return None,
        };
        Some(Self {
            parent_based,
            share,
        })
    }

    /// Whether a trace is recorded from here on; `parent` is what its parent said, where it has one.
    #[must_use]
    pub fn records(&self, trace_id: u128, parent: Option<bool>) -> bool {
        match parent {
            Some(parent) if self.parent_based => parent,
            _ => {
                // As OpenTelemetry's: of the trace's number, so that all who have the same share record the same traces.
                let number = (trace_id as u64 >> 1) as f64;
                // Rounded, the highest number is beyond the end.
                self.share >= 1.0 || number < self.share * (1_u64 << 63) as f64
            }
        }
    }
}

pub(crate) fn state_to_text<S: Serializer>(
    state: &Option<HeaderValue>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let state = state.as_ref().map(HeaderValue::as_bytes);
    // What is no text is dropped, as the specification allows.
    let text = state.and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.serialize(serializer)
}

pub(crate) fn state_of_text<'de, D: Deserializer<'de>>(
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
        let long = format!("a={}", "x".repeat(STATE_BYTES_MAX - 2));
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

    /// After the W3C's own suite (w3c/trace-context, `test/test.py`): what a message says, and what is passed on of it.
    #[test]
    fn the_cases_of_the_specification() {
        let of = |lines: &[(&str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                let name: http::HeaderName = name.parse().expect("a name");
                headers.append(name, value.parse().expect("a value"));
            }
            let context = TraceContext::from_headers(&headers);
            context.map_or("new".to_owned(), |context| {
                let state = context.state.as_ref().and_then(|state| state.to_str().ok());
                format!("{context} {}", state.unwrap_or("none"))
            })
        };
        const ID: &str = "12345678901234567890123456789012-1234567890123456";
        let parent = |version: &str, rest: &str| format!("{version}-{ID}-{rest}");
        let whole = format!("00-{ID}-01");
        let known = format!("{whole} none");
        for (value, expected) in [
            (parent("00", "01"), known.clone()),
            // Versions to come: what is known of them is read.
            (parent("cc", "01"), known.clone()),
            (
                parent("cc", "01-what-the-future-will-be-like"),
                known.clone(),
            ),
            (
                parent("cc", "01.what-the-future-will-be-like"),
                "new".into(),
            ),
            (
                parent("00", "01-what-the-future-will-be-like"),
                "new".into(),
            ),
            (parent("00", "01."), "new".into()),
            (parent("ff", "01"), "new".into()),
            (parent(".0", "01"), "new".into()),
            (parent("0", "01"), "new".into()),
            (parent("000", "01"), "new".into()),
            // Flags that nobody knows are not passed on.
            (parent("00", "ff"), format!("00-{ID}-03 none")),
            (parent("00", "00"), format!("00-{ID}-00 none")),
            (parent("00", ".0"), "new".into()),
            (parent("00", "1"), "new".into()),
            (parent("00", "001"), "new".into()),
            (
                "00-1234567890123456789012345678901-1234567890123456-01".into(),
                "new".into(),
            ),
            (
                "00-12345678901234567890123456789012-123456789012345-01".into(),
                "new".into(),
            ),
            (
                "00-12345678901234567890123456789012-12345678901234567-01".into(),
                "new".into(),
            ),
            (
                "00-.2345678901234567890123456789012-1234567890123456-01".into(),
                "new".into(),
            ),
            (
                "00-12345678901234567890123456789012-.234567890123456-01".into(),
                "new".into(),
            ),
        ] {
            assert_eq!(of(&[("traceparent", &value)]), expected, "{value}");
        }
        let many: Vec<String> = (0..33).map(|number| format!("k{number}=1")).collect();
        let long_name = format!("{}=1", "z".repeat(257));
        let tenant = format!("{}@{}=1", "t".repeat(241), "v".repeat(14));
        let tenant_long = format!("t@{}=1", "v".repeat(15));
        let tenant_too_long = format!("foo=1,{}@v=1", "t".repeat(242));
        let key = "abcdefghijklmnopqrstuvwxyz0123456789_-*/";
        let value: String = (' '..='~').filter(|one| !",=".contains(*one)).collect();
        let allowed = format!("{key}={value}");
        let allowed_of_tenant = format!("{key}@a-z0-9_-*/={value}");
        for (state, expected) in [
            ("foo=1,bar=2", "foo=1,bar=2"),
            ("foo=1 \t , \t bar=2", "foo=1 \t , \t bar=2"),
            ("foo=1,", "foo=1,"),
            ("foo=1,,bar=2", "foo=1,,bar=2"),
            ("0foo=1", "0foo=1"),
            ("foo@=1", "none"),
            ("@foo=1", "none"),
            ("foo@@bar=1", "none"),
            ("foo@0bar=1", "none"),
            ("foo =1", "none"),
            ("FOO=1", "none"),
            ("foo.bar=1", "none"),
            ("foo", "none"),
            ("foo=", "none"),
            ("foo=bar=baz", "none"),
            ("foo=,bar=3", "none"),
            ("foo=1,foo=1", "none"),
            ("foo=1,foo=2", "none"),
            ("foo@bar@baz=1,bar=2", "none"),
            ("", ""),
            (&allowed, &allowed),
            (&allowed_of_tenant, &allowed_of_tenant),
            (&tenant_too_long, "none"),
            (&many.join(","), "none"),
            (&many[..32].join(","), &many[..32].join(",")),
            (&long_name, "none"),
            (&tenant, &tenant),
            (&tenant_long, "none"),
        ] {
            let found = of(&[("traceparent", &whole), ("tracestate", state)]);
            assert_eq!(found, format!("{whole} {expected}"), "{state}");
        }
        // Lines are one list, in their order.
        for (lines, expected) in [
            (&["foo=1", ""][..], "foo=1,"),
            (&["", "foo=1"], ",foo=1"),
            (
                &["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
                "foo=1,bar=2,rojo=1,congo=2,baz=3",
            ),
            (&["foo=1", "foo=2"], "none"),
        ] {
            let mut all = vec![("traceparent", whole.as_str())];
            all.extend(lines.iter().map(|line| ("tracestate", *line)));
            assert_eq!(of(&all), format!("{whole} {expected}"), "{lines:?}");
        }
        // Names of lines have no case; a list without a parent is none.
        assert_eq!(of(&[("TraceParent", &whole)]), known);
        assert_eq!(of(&[("tracestate", "foo=1")]), "new");
        assert_eq!(
            of(&[("traceparent", "bad"), ("tracestate", "foo=1")]),
            "new"
        );
    }

    #[test]
    fn baggage_is_one_list_within_its_bound() {
        let of = |lines: &[&str]| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append("baggage", line.parse().expect("a value"));
            }
            baggage(&headers).map(|list| list.to_str().expect("text").to_owned())
        };
        let long = "x".repeat(BAGGAGE_BYTES_MAX);
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["a=1;p, b=2"]).as_deref(), Some("a=1;p, b=2"));
        assert_eq!(of(&["a=1", "b=2"]).as_deref(), Some("a=1,b=2"));
        assert_eq!(of(&[&long]).as_deref(), Some(long.as_str()));
        assert_eq!(of(&[&long, "a=1"]), None);
    }

    #[test]
    fn spans_of_a_call_are_told_apart_and_found_again() {
        let call = TraceContext::parse(PARENT).expect("valid");
        let spans: std::collections::BTreeSet<u64> = (0..4)
            .flat_map(|number| {
                let tried = call.of_try(number);
                [tried.span_id, tried.served().span_id]
            })
            .collect();
        assert_eq!(spans.len(), 8);
        assert_eq!(call.of_try(0), call);
        assert_eq!(call.of_try(3).served(), call.of_try(3).served());
    }

    #[test]
    fn samplers_by_their_names() {
        let few = 1_u128 << 60;
        let many = u128::from(u64::MAX);
        for (name, argument, expected) in [
            ("always_on", None, "recorded recorded recorded recorded"),
            ("always_off", None, "- - - -"),
            ("traceidratio", Some("0.5"), "recorded - recorded -"),
            (
                "parentbased_always_on",
                None,
                "recorded recorded - recorded",
            ),
            ("parentbased_always_off", None, "- - - recorded"),
            (
                "parentbased_traceidratio",
                Some("0.5"),
                "recorded - - recorded",
            ),
            (
                "parentbased_traceidratio",
                None,
                "recorded recorded - recorded",
            ),
        ] {
            let sampling = Sampling::parse(name, argument).expect("a sampler");
            let cases = [
                (few, None),
                (many, None),
                (few, Some(false)),
                (many, Some(true)),
            ];
            let found = cases.map(|(trace, parent)| match sampling.records(trace, parent) {
                true => "recorded",
                false => "-",
            });
            assert_eq!(found.join(" "), expected, "{name} {argument:?}");
        }
        assert_eq!(Sampling::parse("jaeger_remote", None), None);
        for share in ["2", "-1", "NaN", "x"] {
            assert_eq!(
                Sampling::parse("traceidratio", Some(share)),
                None,
                "{share}"
            );
        }
    }
}
