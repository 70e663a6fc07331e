//! Messages of OpenTelemetry's protocol, as protocol buffers have them: what is written of traces, metrics and logs, and nothing more.
//!
//! The messages are few and stable since 1.0 (`opentelemetry-proto`), and but for a receiver's answer only ever written: generated code
//! and its runtime would be forty times as much. Real receivers read them in `cargo xtask conformance opentelemetry`.
//!
//! Invariant: [`fields`] takes any bytes; what is none is the end.
//!
//! Source: <https://github.com/open-telemetry/opentelemetry-proto>, `opentelemetry/proto/{common,resource,trace,metrics,logs}/v1`.

/// What a message is written into.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const LENGTH: u32 = 2;
const FIXED32: u32 = 5;

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u32, form: u32) {
        self.varint(u64::from((field << 3) | form));
    }

    pub(super) fn number(&mut self, field: u32, value: u64) {
        self.key(field, VARINT);
        self.varint(value);
    }

    pub(super) fn fixed64(&mut self, field: u32, value: u64) {
        self.key(field, FIXED64);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn fixed32(&mut self, field: u32, value: u32) {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.fixed64(field, value.to_bits());
    }

    pub(super) fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.key(field, LENGTH);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    /// A message within, which `fill` writes. Its length comes before it and is known behind it: a byte is left for that, and what is longer
    /// than it can say is moved.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        self.key(field, LENGTH);
        let at = self.0.len();
        self.0.push(0);
        fill(self);
        let begin = at + 1;
        let length = self.0.len() - begin;
        let digits = length_of(length as u64);
        if digits > 1 {
            let end = self.0.len();
            self.0.resize(end + digits - 1, 0);
            self.0.copy_within(begin..end, begin + digits - 1);
        }
        let mut left = length as u64;
        for place in self.0.iter_mut().skip(at).take(digits) {
            *place = (left as u8 & 0x7f) | 0x80;
            left >>= 7;
        }
        if let Some(last) = self.0.get_mut(at + digits - 1) {
            *last &= 0x7f;
        }
    }

    /// Numbers of eight bytes, one behind the other.
    pub(super) fn packed(&mut self, field: u32, values: impl ExactSizeIterator<Item = u64>) {
        self.key(field, LENGTH);
        self.varint(values.len() as u64 * 8);
        for value in values {
            self.0.extend(value.to_le_bytes());
        }
    }

    /// `KeyValue` of a text.
    pub(super) fn attribute(&mut self, field: u32, name: &str, value: &str) {
        // Fields below 16 have a key of one byte.
        let text = 1 + length_of(value.len() as u64) + value.len();
        let pair = 1 + length_of(name.len() as u64) + name.len() + 1 + length_of(text as u64);
        self.key(field, LENGTH);
        self.varint((pair + text) as u64);
        self.text(1, name);
        self.key(2, LENGTH);
        self.varint(text as u64);
        self.text(1, value);
    }

    /// `KeyValue` of a number.
    pub(super) fn attribute_number(&mut self, field: u32, name: &str, value: u64) {
        let any = 1 + length_of(value);
        let pair = 1 + length_of(name.len() as u64) + name.len() + 1 + length_of(any as u64);
        self.key(field, LENGTH);
        self.varint((pair + any) as u64);
        self.text(1, name);
        self.key(2, LENGTH);
        self.varint(any as u64);
        self.number(3, value);
    }

    /// `Resource`, with the attributes of `own` and, where those do not say it, of `all`.
    pub(super) fn resource(&mut self, own: &[(&str, &str)], all: &[(String, String)]) {
        self.message(1, |resource| {
            for (name, value) in own {
                if !value.is_empty() {
                    resource.attribute(1, name, value);
                }
            }
            for (name, value) in all {
                if !own.iter().any(|(known, _)| known == name) {
                    resource.attribute(1, name, value);
                }
            }
        });
    }

    /// `InstrumentationScope`: who says it.
    pub(super) fn scope(&mut self) {
        self.message(1, |scope| {
            scope.text(1, "weft");
            scope.text(2, env!("CARGO_PKG_VERSION"));
        });
    }
}

/// Bytes of a number as a varint.
fn length_of(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// What a field has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a message by their numbers, up to what cannot be read.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = (u64, Value<'_>)> {
    let mut rest = message;
    std::iter::from_fn(move || {
        let key = varint(&mut rest)?;
        let value = match u32::try_from(key & 7).ok()? {
            VARINT => Value::Number(varint(&mut rest)?),
            form => {
                let length = match form {
                    FIXED64 => 8,
                    LENGTH => usize::try_from(varint(&mut rest)?).ok()?,
                    FIXED32 => 4,
                    _ => return None,
                };
                let (bytes, more) = rest.split_at_checked(length)?;
                rest = more;
                Value::Bytes(bytes)
            }
        };
        Some((key >> 3, value))
    })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, more) = rest.split_first()?;
        *rest = more;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// What is in the first field of this number that is a message or a text.
pub(super) fn bytes_of(message: &[u8], number: u64) -> Option<&[u8]> {
    fields(message).find_map(|(found, value)| match value {
        Value::Bytes(bytes) if found == number => Some(bytes),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

/// What is in the first field of this number that is a number.
pub(super) fn number_of(message: &[u8], number: u64) -> Option<u64> {
    fields(message).find_map(|(found, value)| match value {
        Value::Number(value) if found == number => Some(value),
        Value::Bytes(_) | Value::Number(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_message_ends_where_it_is_none() {
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        message.fixed32(4, 1);
        message.fixed64(5, 2);
        let bytes = message.into_bytes();
        assert_eq!(number_of(&bytes, 1), Some(150));
        assert_eq!(bytes_of(&bytes, 2), Some(&b"testing"[..]));
        assert_eq!(number_of(&bytes, 2), None);
        assert_eq!(fields(&bytes).count(), 4);
        for end in 0..bytes.len() {
            assert!(fields(&bytes[..end]).count() < 4, "{end}");
        }
        for broken in [&[0x80][..], &[0xff; 11], &[0x0b], &[0x12, 0xff, 0xff, 0x7f]] {
            assert_eq!(fields(broken).count(), 0, "{broken:?}");
        }
    }

    /// The bytes of the encoding's own documentation, and one of each form.
    #[test]
    fn fields_are_written_as_protocol_buffers_have_them() {
        let mut message = Message::default();
        message.number(1, 150);
        message.text(2, "testing");
        message.message(3, |inner| inner.number(1, 150));
        message.fixed32(4, 1);
        message.fixed64(5, 2);
        message.double(6, 1.0);
        message.packed(16, [1, 2].into_iter());
        message.attribute(1, "k", "v");
        message.attribute_number(1, "k", 300);
        let expected: Vec<u8> = [
            &[0x08, 0x96, 0x01][..],
            &[0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67],
            &[0x1a, 0x03, 0x08, 0x96, 0x01],
            &[0x25, 1, 0, 0, 0],
            &[0x29, 2, 0, 0, 0, 0, 0, 0, 0],
            &[0x31, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f],
            &[
                0x82, 0x01, 16, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0,
            ],
            &[0x0a, 0x08, 0x0a, 0x01, b'k', 0x12, 0x03, 0x0a, 0x01, b'v'],
            &[0x0a, 0x08, 0x0a, 0x01, b'k', 0x12, 0x03, 0x18, 0xac, 0x02],
        ]
        .concat();
        assert_eq!(message.into_bytes(), expected);
    }

    #[test]
    fn a_message_of_any_length_has_it_before_it() {
        for length in [0, 1, 127, 128, 300, 16_383, 16_384, 2_097_152] {
            let text = "x".repeat(length);
            let mut message = Message::default();
            message.message(1, |outer| {
                outer.number(3, 7);
                outer.message(2, |inner| inner.text(1, &text));
                outer.attribute(4, &text, &text);
            });
            let bytes = message.into_bytes();
            let outer = bytes_of(&bytes, 1).expect("a message");
            assert_eq!(number_of(outer, 3), Some(7));
            let inner = bytes_of(outer, 2).expect("a message");
            assert_eq!(bytes_of(inner, 1), Some(text.as_bytes()), "{length}");
            let pair = bytes_of(outer, 4).expect("a pair");
            assert_eq!(bytes_of(pair, 1), Some(text.as_bytes()));
            let any = bytes_of(pair, 2).expect("a value");
            assert_eq!(bytes_of(any, 1), Some(text.as_bytes()));
            assert_eq!(fields(&bytes).count(), 1);
        }
    }
}
