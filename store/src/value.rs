//! A value as the store holds it: in memory, in the log, on disk and between servers.
//!
//! Values are opaque, but most are Kubernetes objects as JSON, of a kilobyte or two and much alike. They are compressed once, by
//! the server that is asked to write them, with LZ4 against a dictionary of what such objects have in common
//! (`value/dictionary-1.txt`, indexed once: `value/pack.rs`): pods take a quarter of their JSON, events two fifths, what does not
//! shrink stays as it is. The history, the log, the files and the messages between servers hold as much more, and reading one
//! takes 0.1 to 0.4 µs.
//!
//! Invariants: [`Value::plain`] gives back what [`Value::new`] was given; a value on disk is read for ever, so the bytes of a
//! dictionary never change: a better one gets the next number.

mod pack;

use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;

use crate::codec::{Reader, Writer};
use crate::command::COMMAND_BYTES_MAX;
use crate::error::DecodeError;
use crate::value::pack::Packer;

static DICTIONARY: &[u8] = include_bytes!("value/dictionary-1.txt");
static PACKER: LazyLock<Packer> = LazyLock::new(|| Packer::new(DICTIONARY));

/// Bytes that one byte of an LZ4 block can stand for: the most that it adds to the length of a match.
const UNPACKED_MAX: usize = 255;

/// Shorter values stay as they are.
const PACKED_FROM: usize = 96;

/// How the bytes of a value are to be read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// An LZ4 block against dictionary 1, of so many bytes when unpacked.
    Packed1 {
        length: u32,
    },
}

/// An immutable value, compressed where that makes it smaller. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Value {
    bytes: Bytes,
    form: Form,
}

impl Value {
    /// Takes a value, and compresses it if a quarter or more can be saved.
    pub fn new(plain: impl Into<Bytes>) -> Value {
        let plain = plain.into();
        let length = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        if (PACKED_FROM..=COMMAND_BYTES_MAX).contains(&plain.len()) {
            let packed = if PACKER.takes(&plain) {
                PACKER.pack(&plain)
            } else {
                lz4_flex::block::compress_with_dict(&plain, DICTIONARY)
            };
            if packed.len() <= plain.len() / 4 * 3 {
                return Value {
                    // Without what it had room for.
                    bytes: Bytes::copy_from_slice(&packed),
                    form: Form::Packed1 { length },
                };
            }
        }
        Value::as_it_is(plain)
    }

    /// A value that is not compressed: one from before values were, or one that cannot be.
    pub(crate) fn as_it_is(plain: Bytes) -> Value {
        Value {
            bytes: plain,
            form: Form::Plain,
        }
    }

    /// The value. A compressed one is unpacked into a new buffer each time.
    pub fn plain(&self) -> Bytes {
        match self.form {
            Form::Plain => self.bytes.clone(),
            Form::Packed1 { length } => {
                let length = length as usize;
                match lz4_flex::block::decompress_with_dict(&self.bytes, length, DICTIONARY) {
                    Ok(plain) => Bytes::from(plain),
                    // Checksums keep damage out: another server, which may write what it likes, wrote this.
                    Err(error) => {
                        tracing::error!(%error, "a compressed value cannot be read: taken for an empty one");
                        Bytes::new()
                    }
                }
            }
        }
    }

    /// Length of the value in bytes, as it was given.
    pub fn len(&self) -> usize {
        match self.form {
            Form::Plain => self.bytes.len(),
            Form::Packed1 { length } => length as usize,
        }
    }

    /// Whether the value has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that it counts for where memory is bounded: what it takes, and at least an eighth of what it is unpacked to, for
    /// readers unpack it, and what they hang on it must be bounded too.
    pub(crate) fn weight(&self) -> usize {
        self.bytes.len().max(self.len() / 8)
    }

    /// The bytes that are kept.
    pub(crate) fn held(&self) -> &Bytes {
        &self.bytes
    }

    /// The same value in another buffer, which holds the same bytes.
    pub(crate) fn moved(&self, bytes: Bytes) -> Value {
        debug_assert_eq!(self.bytes, bytes);
        Value {
            bytes,
            form: self.form,
        }
    }

    pub(crate) fn encode(&self, writer: &mut Writer) {
        match self.form {
            Form::Plain => writer.u8(0),
            Form::Packed1 { length } => {
                writer.u8(1);
                writer.u32(length);
            }
        }
        writer.bytes(&self.bytes);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Value, DecodeError> {
        let form = match reader.u8()? {
            0 => Form::Plain,
            1 => Form::Packed1 {
                length: reader.u32()?,
            },
            tag => {
                return Err(DecodeError::Tag {
                    what: "form of a value",
                    tag,
                });
            }
        };
        let bytes = reader.bytes()?;
        if let Form::Packed1 { length } = form {
            // Whatever a packed value says of itself, that much is allocated when it is read: no more than any value has, and
            // than so many bytes can have been packed from.
            let largest = (bytes.len() + 1).saturating_mul(UNPACKED_MAX);
            if length as usize > COMMAND_BYTES_MAX.min(largest) {
                return Err(DecodeError::Truncated);
            }
        }
        Ok(Value { bytes, form })
    }
}

impl<T: Into<Bytes>> From<T> for Value {
    fn from(plain: T) -> Value {
        Value::new(plain)
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets: a length is all that reaches a log.
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A pod as the API server stores it.
    fn pod() -> String {
        let name = "web-6wm4ghqq5z-4gsc4";
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"creationTimestamp":"2026-11-26T06:08:40Z","generateName":"web-6wm4ghqq5z-","generation":2,"labels":{{"app":"web","pod-template-hash":"6wm4ghqq5z"}},"name":"{name}","namespace":"shop","ownerReferences":[{{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web-6wm4ghqq5z","uid":"29ed2528-aca8-4ad4-b1b4-5d5f8e4f8f99"}}],"uid":"953193b8-e8d5-4488-af05-d1480d0136ea"}},"spec":{{"containers":[{{"image":"shop/web:v1","imagePullPolicy":"IfNotPresent","name":"web","resources":{{}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}}],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"nodeName":"node-1","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{{}},"serviceAccountName":"default","terminationGracePeriodSeconds":30}},"status":{{"hostIP":"192.0.2.7","phase":"Running","podIP":"10.128.0.27","podIPs":[{{"ip":"10.128.0.27"}}],"qosClass":"BestEffort","startTime":"2026-11-26T06:08:40Z"}}}}"#
        )
    }

    fn round(value: &Value) -> Value {
        let mut writer = Writer::new(1);
        value.encode(&mut writer);
        let record = Bytes::from(writer.finish(b""));
        let mut reader = Reader::open(record, b"", 1).expect("frame");
        let found = Value::decode(&mut reader).expect("decodes");
        reader.finish().expect("nothing left");
        found
    }

    #[test]
    fn objects_shrink_and_the_rest_stays_as_it_is() {
        let pod = pod();
        let packed = Value::new(pod.clone());
        assert!(packed.form != Form::Plain);
        assert!(
            packed.held().len() * 3 < pod.len(),
            "{}",
            packed.held().len()
        );
        assert_eq!(
            (packed.len(), packed.plain()),
            (pod.len(), Bytes::from(pod))
        );
        assert_eq!(round(&packed), packed);

        // The same bytes come out in another buffer, so that what it came in is not kept alive.
        let noise: Vec<u8> = (0..999_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        for plain in [Vec::new(), b"short".to_vec(), noise] {
            let value = Value::new(plain.clone());
            assert!(value.form == Form::Plain, "{} bytes", plain.len());
            assert_eq!((value.len(), &value.plain()[..]), (plain.len(), &plain[..]));
            assert_eq!(round(&value), value);
        }
    }

    #[test]
    fn a_dictionary_never_changes() {
        assert_eq!(
            (DICTIONARY.len(), crc32c::crc32c(DICTIONARY)),
            (12_376, 0xecc3_65d1),
            "values on disk were compressed against dictionary 1: make a dictionary 2"
        );
    }

    #[test]
    fn what_is_no_packed_value_is_refused_or_read_as_empty() {
        let form = |form: u8, length: u32| {
            let mut writer = Writer::new(1);
            writer.u8(form);
            writer.u32(length);
            writer.bytes(b"no block of LZ4");
            let record = Bytes::from(writer.finish(b""));
            Value::decode(&mut Reader::open(record, b"", 1).expect("frame"))
        };
        assert!(form(7, 10).is_err(), "an unknown form");
        assert!(form(1, u32::MAX).is_err(), "more than any value has");
        assert_eq!(form(1, 1000).expect("decodes").plain(), "");
    }

    #[test]
    fn what_shrinks_to_nothing_still_counts() {
        let value = Value::new(vec![b'x'; 80_000]);
        assert!(value.held().len() < 1_000);
        assert_eq!(value.weight(), 10_000);
    }

    proptest! {
        #[test]
        fn every_value_comes_back(
            plain in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..2_000),
                "([a-c]{1,9}|\"kind\":\"Pod\"|default-scheduler){0,300}".prop_map(String::into_bytes),
            ]
        ) {
            let value = Value::new(plain.clone());
            prop_assert_eq!(&value.plain()[..], &plain[..]);
            prop_assert!(value.held().len() <= plain.len());
            prop_assert_eq!(round(&value), value);
        }
    }
}
