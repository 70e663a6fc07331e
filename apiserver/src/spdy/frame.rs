//! Frames of SPDY/3.1: bytes in, frames out, and back.
//!
//! ```text
//! control   1 · version 3 (15 bits) · type (16) · flags (8) · length (24) · …
//! data      0 · stream (31)         ·             flags (8) · length (24) · bytes
//! ```
//!
//! Headers of all frames of a direction are one stream of zlib against a dictionary, so a [`Decoder`] and an [`Encoder`] are a connection's. Those that are
//! written are stored and not compressed: a server's are empty. Those of each frame end with zlib's mark of a flush.
//!
//! Invariants: pure; a length is judged before anything is kept for it, and data is given as it comes, so that no frame is held that is long; headers have a
//! bound in number and in bytes, however well they were compressed; what is not understood ends the connection, but for control frames of other types.

use std::sync::LazyLock;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use flate2::{Decompress, FlushDecompress, Status};

use super::dictionary::DICTIONARY;

/// The longest payload of a control frame.
pub const CONTROL_BYTES_MAX: usize = 32 << 10;
/// Headers of one frame, and their bytes once they are decompressed.
pub const HEADERS_MAX: usize = 128;
pub const HEADERS_BYTES_MAX: usize = 16 << 10;
/// The longest payload that there is a number for.
pub const DATA_BYTES_MAX: usize = (1 << 24) - 1;

const VERSION: u16 = 3;
const HEAD_BYTES: usize = 8;
const FIN: u8 = 1;
const UNIDIRECTIONAL: u8 = 2;
const STREAM: u32 = u32::MAX >> 1;
/// What ends the headers of a frame among those of its connection.
const FLUSHED: &[u8] = &[0, 0, 0, 0xff, 0xff];

/// Names in lower case, in the order that they came in.
pub type Headers = Vec<(String, String)>;

/// Why a stream is reset: what this end says.
pub const CANCEL: u32 = 5;
pub const REFUSED_STREAM: u32 = 3;
pub const PROTOCOL_ERROR: u32 = 1;
pub const INVALID_STREAM: u32 = 2;

/// One frame, or of a long one with data, what of it has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        stream: u32,
        /// Its client has nothing to say.
        fin: bool,
        /// Its client hears nothing.
        unidirectional: bool,
        headers: Headers,
    },
    SynReply {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    Reset {
        stream: u32,
        status: u32,
    },
    Settings(Vec<(u32, u32)>),
    Ping(u32),
    GoAway {
        last: u32,
        status: u32,
    },
    Headers {
        stream: u32,
        fin: bool,
        headers: Headers,
    },
    WindowUpdate {
        stream: u32,
        more: u32,
    },
    Data {
        stream: u32,
        fin: bool,
        bytes: Bytes,
    },
}

/// Why what came is not understood; nothing after it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is of version {0} of SPDY, which is not spoken here")]
    Version(u16),
    #[error("a control frame has {0} bytes, more than the {CONTROL_BYTES_MAX} of the longest")]
    Length(usize),
    #[error("a frame of type {0} is not as frames of that type are")]
    Form(u16),
    #[error("headers are no zlib against SPDY's dictionary")]
    Zlib,
    #[error("headers are more than {HEADERS_MAX}, or longer than {HEADERS_BYTES_MAX} bytes")]
    Headers,
    #[error("a header is not a name in lower case and a value, each behind its length")]
    Header,
}

/// What reads the frames of one connection.
pub struct Decoder {
    headers: Decompress,
    data: Option<Arriving>,
}

/// A frame with data, of which some has come.
struct Arriving {
    stream: u32,
    fin: bool,
    left: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            headers: Decompress::new(true),
            data: None,
        }
    }
}

impl Decoder {
    /// Takes a frame out of what was read; none where more has to come.
    ///
    /// # Errors
    /// [`FrameError`]; the connection is of no use then.
    pub fn decode(&mut self, read: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        loop {
            if let Some(data) = &mut self.data {
                let part = data.left.min(read.len());
                if part == 0 && data.left > 0 {
                    return Ok(None);
                }
                data.left -= part;
                let frame = Frame::Data {
                    stream: data.stream,
                    fin: data.fin && data.left == 0,
                    bytes: read.split_to(part).freeze(),
                };
                if data.left == 0 {
                    self.data = None;
                }
                return Ok(Some(frame));
            }
            let Some(head) = read.first_chunk::<HEAD_BYTES>() else {
                return Ok(None);
            };
            let [v1, v2, t1, t2, flags, length @ ..] = *head;
            let [l1, l2, l3] = length;
            let length = u32::from_be_bytes([0, l1, l2, l3]);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if v1 & 0x80 == 0 {
                read.advance(HEAD_BYTES);
                self.data = Some(Arriving {
                    stream: u32::from_be_bytes([v1, v2, t1, t2]),
                    fin: flags & FIN != 0,
                    left: length,
                });
                continue;
            }
            let version = u16::from_be_bytes([v1 & 0x7f, v2]);
            if version != VERSION {
                return Err(FrameError::Version(version));
            }
            if length > CONTROL_BYTES_MAX {
                return Err(FrameError::Length(length));
            }
            if read.len() < HEAD_BYTES + length {
                return Ok(None);
            }
            read.advance(HEAD_BYTES);
            let payload = read.split_to(length).freeze();
            let kind = u16::from_be_bytes([t1, t2]);
            if let Some(frame) = self.control(kind, flags, payload)? {
                return Ok(Some(frame));
            }
        }
    }

    /// A control frame; none of a type that is not known.
    fn control(
        &mut self,
        kind: u16,
        flags: u8,
        mut payload: Bytes,
    ) -> Result<Option<Frame>, FrameError> {
        let wrong = FrameError::Form(kind);
        let fin = flags & FIN != 0;
        let mut word = || payload.try_get_u32().map_err(|_| wrong);
        let frame = match kind {
            1 => {
                let stream = word()? & STREAM;
                word()?;
                // Priority and slot, of which there is one each here.
                let rest = payload.get(2..).ok_or(wrong)?;
                Frame::SynStream {
                    stream,
                    fin,
                    unidirectional: flags & UNIDIRECTIONAL != 0,
                    headers: self.headers(rest)?,
                }
            }
            2 | 8 => {
                let stream = word()? & STREAM;
                let headers = self.headers(&payload)?;
                return Ok(Some(match kind {
                    2 => Frame::SynReply {
                        stream,
                        fin,
                        headers,
                    },
                    _ => Frame::Headers {
                        stream,
                        fin,
                        headers,
                    },
                }));
            }
            3 => Frame::Reset {
                stream: word()? & STREAM,
                status: word()?,
            },
            4 => {
                let count = usize::try_from(word()?).map_err(|_| wrong)?;
                // As many as there are: what is said of their number is not believed.
                if count != payload.len() / 8 || !payload.len().is_multiple_of(8) {
                    return Err(wrong);
                }
                let mut settings = Vec::new();
                while let (Ok(id), Ok(value)) = (payload.try_get_u32(), payload.try_get_u32()) {
                    settings.push((id, value));
                }
                Frame::Settings(settings)
            }
            6 => Frame::Ping(word()?),
            7 => Frame::GoAway {
                last: word()? & STREAM,
                status: word()?,
            },
            9 => Frame::WindowUpdate {
                stream: word()? & STREAM,
                more: word()? & STREAM,
            },
            _ => return Ok(None),
        };
        Ok(Some(frame))
    }

    fn headers(&mut self, mut compressed: &[u8]) -> Result<Headers, FrameError> {
        let mut block = Vec::new();
        let mut part = [0; 4 << 10];
        loop {
            let (came, gave) = (self.headers.total_in(), self.headers.total_out());
            let inflating = self
                .headers
                .decompress(compressed, &mut part, FlushDecompress::Sync);
            let taken = usize::try_from(self.headers.total_in() - came).unwrap_or(usize::MAX);
            let given = usize::try_from(self.headers.total_out() - gave).unwrap_or(usize::MAX);
            compressed = compressed.get(taken..).unwrap_or_default();
            block.extend_from_slice(part.get(..given).unwrap_or_default());
            if block.len() > HEADERS_BYTES_MAX {
                return Err(FrameError::Headers);
            }
            match inflating {
                Err(error) if error.needs_dictionary() == Some(DICTIONARY.1) => {
                    let set = self.headers.set_dictionary(&DICTIONARY.0);
                    set.map_err(|_| FrameError::Zlib)?;
                }
                // A connection's headers have no end.
                Err(_) | Ok(Status::StreamEnd) => return Err(FrameError::Zlib),
                Ok(Status::Ok | Status::BufError) => {
                    let is_full = given == part.len();
                    if compressed.is_empty() && !is_full {
                        break;
                    }
                    if taken == 0 && given == 0 {
                        return Err(FrameError::Zlib);
                    }
                }
            }
        }
        headers_of(&block)
    }
}

/// The headers of a block.
fn headers_of(mut block: &[u8]) -> Result<Headers, FrameError> {
    let length = |block: &mut &[u8]| {
        let length = block.try_get_u32().map_err(|_| FrameError::Header)?;
        usize::try_from(length).map_err(|_| FrameError::Header)
    };
    let count = length(&mut block)?;
    if count > HEADERS_MAX {
        return Err(FrameError::Headers);
    }
    let text = |block: &mut &[u8]| {
        let length = length(block)?;
        let (text, rest) = block.split_at_checked(length).ok_or(FrameError::Header)?;
        *block = rest;
        let text = std::str::from_utf8(text).map_err(|_| FrameError::Header)?;
        Ok(text.to_owned())
    };
    let mut headers = Headers::new();
    for _ in 0..count {
        let (name, value) = (text(&mut block)?, text(&mut block)?);
        let is_upper = |byte: u8| byte.is_ascii_uppercase();
        if name.is_empty() || name.bytes().any(is_upper) || header(&headers, &name).is_some() {
            return Err(FrameError::Header);
        }
        headers.push((name, value));
    }
    match block {
        [] => Ok(headers),
        _ => Err(FrameError::Header),
    }
}

/// The value of a header, the first where there are several.
pub fn header<'h>(headers: &'h [(String, String)], name: &str) -> Option<&'h str> {
    let found = headers.iter().find(|(other, _)| other == name);
    found.and_then(|(_, value)| value.split('\0').next())
}

/// What writes the frames of one connection.
#[derive(Default)]
pub struct Encoder {
    /// Whether there were headers before.
    begun: bool,
}

impl Encoder {
    /// Appends a frame to `out`. What of it is longer than can be said is not.
    pub fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        let fin_flag = |fin: bool| u8::from(fin) * FIN;
        match frame {
            Frame::Data { stream, fin, bytes } => {
                let bytes = bytes.get(..DATA_BYTES_MAX).unwrap_or(bytes);
                out.reserve(HEAD_BYTES + bytes.len());
                out.put_u32(stream & STREAM);
                put_length(out, fin_flag(*fin), bytes.len());
                out.extend_from_slice(bytes);
            }
            Frame::SynStream {
                stream,
                fin,
                unidirectional,
                headers,
            } => {
                let flags = fin_flag(*fin) | (u8::from(*unidirectional) * UNIDIRECTIONAL);
                let block = self.block(headers);
                put_head(out, 1, flags, 10 + block.len());
                out.put_u32(stream & STREAM);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(&block);
            }
            Frame::SynReply {
                stream,
                fin,
                headers,
            } => self.put_headers(out, 2, fin_flag(*fin), *stream, headers),
            Frame::Headers {
                stream,
                fin,
                headers,
            } => self.put_headers(out, 8, fin_flag(*fin), *stream, headers),
            Frame::Reset { stream, status } => put_words(out, 3, &[stream & STREAM, *status]),
            Frame::Settings(settings) => {
                let count = u32::try_from(settings.len()).unwrap_or(u32::MAX);
                let pairs = settings.iter().flat_map(|(id, value)| [*id, *value]);
                let words: Vec<u32> = std::iter::once(count).chain(pairs).collect();
                put_words(out, 4, &words);
            }
            Frame::Ping(id) => put_words(out, 6, &[*id]),
            Frame::GoAway { last, status } => put_words(out, 7, &[last & STREAM, *status]),
            Frame::WindowUpdate { stream, more } => {
                put_words(out, 9, &[stream & STREAM, more & STREAM]);
            }
        }
    }

    fn put_headers(
        &mut self,
        out: &mut BytesMut,
        kind: u16,
        flags: u8,
        stream: u32,
        headers: &[(String, String)],
    ) {
        let block = self.block(headers);
        put_head(out, kind, flags, 4 + block.len());
        out.put_u32(stream & STREAM);
        out.extend_from_slice(&block);
    }

    /// Headers as zlib that stores what it is given.
    fn block(&mut self, headers: &[(String, String)]) -> Vec<u8> {
        let mut block = Vec::new();
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        block.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.put_u32(length(text));
            block.extend_from_slice(text.as_bytes());
        }
        let mut stored = Vec::with_capacity(block.len() + 16);
        if !self.begun {
            self.begun = true;
            // Deflate in a window of 32 KiB, with a dictionary of that checksum.
            stored.extend_from_slice(&[0x78, 0xf9]);
            stored.put_u32(DICTIONARY.1);
        }
        for part in block.chunks(usize::from(u16::MAX)) {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            stored.push(0);
            stored.put_u16_le(length);
            stored.put_u16_le(!length);
            stored.extend_from_slice(part);
        }
        // Empty: the mark of a flush, without which a reader may wait for the next block, or fail for there is none.
        stored.extend_from_slice(FLUSHED);
        stored
    }
}

fn put_length(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(u32::MAX) & (u32::MAX >> 8);
    out.put_u32(u32::from(flags) << 24 | length);
}

fn put_head(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.reserve(HEAD_BYTES + length);
    out.put_u16(0x8000 | VERSION);
    out.put_u16(kind);
    put_length(out, flags, length);
}

fn put_words(out: &mut BytesMut, kind: u16, words: &[u32]) {
    put_head(out, kind, 0, words.len() * 4);
    words.iter().for_each(|word| out.put_u32(*word));
}

/// What a client of Kubernetes sends first for a forwarded port, as its zlib compresses it; seeds of those who try to break this.
pub static SAMPLE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    const FIRST: &[u8] = b"\x78\xf9\xe3\xc6\xa7\xc2\x02\x25\x3a\x70\x3a\x2b\x29\x4a\x4d\xcc\x85\x16\x25\xac\xa9\xa0\x80\x86\x14\xcb\x45\xa0\x24\xcc\x64\x61\x00\x24\x39\x8b\x20\x91\x98\x09\x4a\xdc\x8c\x06\x00\x00\x00\x00\xff\xff";
    const SECOND: &[u8] = b"\xc2\xaa\x15\x54\x0a\x25\x12\xd2\x09\x00\x00\x00\xff\xff";
    let mut bytes = BytesMut::new();
    for (stream, fin, block) in [(1, FIN, FIRST), (3, 0, SECOND)] {
        put_head(&mut bytes, 1, fin, 10 + block.len());
        bytes.put_u32(stream);
        bytes.put_u32(0);
        bytes.put_u16(0);
        bytes.extend_from_slice(block);
    }
    bytes.to_vec()
});

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        let (mut read, mut frames) = (BytesMut::new(), Vec::new());
        for piece in bytes.chunks(cut.max(1)) {
            read.extend_from_slice(piece);
            while let Some(frame) = decoder.decode(&mut read)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        let pairs = pairs.iter();
        pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_a_client_compresses_is_read_in_any_pieces() {
        let of = |stream, fin, what| Frame::SynStream {
            stream,
            fin,
            unidirectional: false,
            headers: headers(&[("streamtype", what), ("port", "80"), ("requestid", "0")]),
        };
        let expected = Ok(vec![of(1, true, "error"), of(3, false, "data")]);
        for cut in [1, 3, 1000] {
            assert_eq!(all(&SAMPLE, cut), expected, "{cut}");
        }
    }

    #[test]
    fn frames_are_what_the_table_says() {
        let data = |stream, fin, bytes: &'static [u8]| Frame::Data {
            stream,
            fin,
            bytes: Bytes::from_static(bytes),
        };
        for (bytes, expected) in [
            (&b"\0\0\0\x01\x01\0\0\0"[..], Ok(vec![data(1, true, b"")])),
            (b"\0\0\0\x01\0\0\0\x02ab", Ok(vec![data(1, false, b"ab")])),
            // What of it has come is there, and the end with the last of it.
            (b"\0\0\0\x01\x01\0\0\x02a", Ok(vec![data(1, false, b"a")])),
            (
                b"\x80\x03\0\x06\0\0\0\x04\0\0\0\x07",
                Ok(vec![Frame::Ping(7)]),
            ),
            (b"\x80\x03\0\x06\0\0\0\x03\0\0\0", Err(FrameError::Form(6))),
            (
                b"\x80\x03\0\x03\0\0\0\x08\0\0\0\x05\0\0\0\x05",
                Ok(vec![Frame::Reset {
                    stream: 5,
                    status: CANCEL,
                }]),
            ),
            (
                b"\x80\x03\0\x07\0\0\0\x08\0\0\0\x05\0\0\0\0",
                Ok(vec![Frame::GoAway { last: 5, status: 0 }]),
            ),
            (
                b"\x80\x03\0\x09\0\0\0\x08\0\0\0\x05\0\0\0\x09",
                Ok(vec![Frame::WindowUpdate { stream: 5, more: 9 }]),
            ),
            (
                b"\x80\x03\0\x04\0\0\0\x0c\0\0\0\x01\0\0\0\x04\0\0\0\x64",
                Ok(vec![Frame::Settings(vec![(4, 100)])]),
            ),
            (
                b"\x80\x03\0\x04\0\0\0\x04\xff\xff\xff\xff",
                Err(FrameError::Form(4)),
            ),
            // A type of later times.
            (
                b"\x80\x03\0\x63\0\0\0\x01x\x80\x03\0\x06\0\0\0\x04\0\0\0\x01",
                Ok(vec![Frame::Ping(1)]),
            ),
            (
                b"\x80\x02\0\x06\0\0\0\x04\0\0\0\x01",
                Err(FrameError::Version(2)),
            ),
            (b"\x80\x03\0\x01\0\x01\0\0", Err(FrameError::Length(65_536))),
            (
                b"\x80\x03\0\x01\0\0\0\x0c\0\0\0\x01\0\0\0\0\0\0\x78\x9c",
                Err(FrameError::Header),
            ),
            (
                b"\x80\x03\0\x01\0\0\0\x0e\0\0\0\x01\0\0\0\0\0\0\x78\x9c\xff\xff",
                Err(FrameError::Zlib),
            ),
            (
                b"\x80\x03\0\x01\0\0\0\x09\0\0\0\x01\0\0\0\0\0",
                Err(FrameError::Form(1)),
            ),
        ] {
            let bytes: &[u8] = bytes;
            assert_eq!(all(bytes, bytes.len()), expected, "{bytes:02x?}");
        }
    }

    #[test]
    fn headers_end_with_a_flush_that_readers_of_one_stream_after_another_need() {
        let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
        for stream in [1, 3] {
            let (fin, headers) = (false, Headers::new());
            let reply = Frame::SynReply {
                stream,
                fin,
                headers,
            };
            encoder.encode(&reply, &mut out);
        }
        let first = b"\x80\x03\0\x02\0\0\0\x18\0\0\0\x01\x78\xf9\xe3\xc6\xa7\xc2\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff";
        let second = b"\x80\x03\0\x02\0\0\0\x12\0\0\0\x03\0\x04\0\xfb\xff\0\0\0\0\0\0\0\xff\xff";
        assert_eq!(out, [&first[..], second].concat());
    }

    #[test]
    fn headers_that_grow_are_refused_before_they_are_kept() {
        let block = |headers: &Headers| {
            let mut out = BytesMut::new();
            let frame = Frame::SynReply {
                stream: 1,
                fin: false,
                headers: headers.clone(),
            };
            Encoder::default().encode(&frame, &mut out);
            out
        };
        let mut compress = flate2::Compress::new(flate2::Compression::best(), true);
        compress.set_dictionary(&DICTIONARY.0).unwrap();
        let mut bomb = Vec::with_capacity(CONTROL_BYTES_MAX);
        let zeros = vec![0; 8 << 20];
        compress
            .compress_vec(&zeros, &mut bomb, flate2::FlushCompress::Sync)
            .unwrap();
        let mut frame = BytesMut::new();
        put_head(&mut frame, 2, 0, 4 + bomb.len());
        frame.put_u32(1);
        frame.extend_from_slice(&bomb);
        assert_eq!(all(&frame, frame.len()), Err(FrameError::Headers));
        let many: Headers = (0..=HEADERS_MAX)
            .map(|n| (format!("h{n}"), String::new()))
            .collect();
        let many = block(&many);
        assert_eq!(all(&many, many.len()), Err(FrameError::Headers));
        for wrong in [
            headers(&[("Upper", "")]),
            headers(&[("a", "1"), ("a", "2")]),
            headers(&[("", "x")]),
        ] {
            let wrong = block(&wrong);
            assert_eq!(all(&wrong, wrong.len()), Err(FrameError::Header));
        }
        assert_eq!(header(&headers(&[("a", "1\u{0}2")]), "a"), Some("1"));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let names = prop::collection::btree_map("[a-z-]{1,12}", "[ -~]{0,40}", 0..6);
        let headers = names.prop_map(|names| names.into_iter().collect::<Headers>());
        let stream = 1..=STREAM;
        prop_oneof![
            (
                stream.clone(),
                any::<bool>(),
                any::<bool>(),
                headers.clone()
            )
                .prop_map(|(stream, fin, unidirectional, headers)| Frame::SynStream {
                    stream,
                    fin,
                    unidirectional,
                    headers
                }),
            (stream.clone(), any::<bool>(), headers.clone()).prop_map(|(stream, fin, headers)| {
                Frame::SynReply {
                    stream,
                    fin,
                    headers,
                }
            }),
            (stream.clone(), any::<bool>(), headers).prop_map(|(stream, fin, headers)| {
                Frame::Headers {
                    stream,
                    fin,
                    headers,
                }
            }),
            (stream.clone(), any::<u32>())
                .prop_map(|(stream, status)| Frame::Reset { stream, status }),
            any::<u32>().prop_map(Frame::Ping),
            prop::collection::vec(any::<(u32, u32)>(), 0..5).prop_map(Frame::Settings),
            (stream.clone(), any::<u32>())
                .prop_map(|(last, status)| Frame::GoAway { last, status }),
            (
                stream.clone(),
                any::<bool>(),
                prop::collection::vec(any::<u8>(), 0..100)
            )
                .prop_map(|(stream, fin, bytes)| Frame::Data {
                    stream,
                    fin,
                    bytes: bytes.into()
                }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(frames in prop::collection::vec(any_frame(), 0..20)) {
            let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
            frames.iter().for_each(|frame| encoder.encode(frame, &mut out));
            prop_assert_eq!(all(&out, out.len()), Ok(frames));
        }

        #[test]
        fn whatever_comes_is_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = all(&bytes, 9);
        }
    }
}
