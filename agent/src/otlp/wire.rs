//! Messages of OpenTelemetry's protocol, as protocol buffers have them: what is written of traces, metrics and logs, and nothing more.
//!
//! The messages are few and stable since 1.0 (`opentelemetry-proto`), and are only ever written: generated code and its runtime would be
//! forty times as much. A real receiver reads them in the tests.
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

    /// A message within, which `fill` writes.
    pub(super) fn message(&mut self, field: u32, fill: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        fill(&mut inner);
        self.bytes(field, &inner.0);
    }

    /// Numbers of eight bytes, one behind the other.
    pub(super) fn packed(&mut self, field: u32, values: impl Iterator<Item = u64>) {
        let packed: Vec<u8> = values.flat_map(u64::to_le_bytes).collect();
        self.bytes(field, &packed);
    }

    /// `KeyValue` of a text.
    pub(super) fn attribute(&mut self, field: u32, name: &str, value: &str) {
        self.message(field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| any.text(1, value));
        });
    }

    /// `KeyValue` of a number.
    pub(super) fn attribute_number(&mut self, field: u32, name: &str, value: u64) {
        self.message(field, |pair| {
            pair.text(1, name);
            pair.message(2, |any| any.number(3, value));
        });
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

#[cfg(test)]
mod tests {
    use super::*;

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
        ]
        .concat();
        assert_eq!(message.into_bytes(), expected);
    }
}
