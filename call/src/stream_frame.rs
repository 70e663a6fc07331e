//! Frames between a server and a node while a command runs in a container, or somebody is attached to it.
//!
//! ```text
//! POST /exec/NS/POD/UID/CONTAINER?command=a&stdout=1   Upgrade: weft-stream/1
//!   101, then in both directions:   u8 channel · u32 big-endian length · that many bytes
//! ```
//!
//! Standard input and sizes of the terminal go to the node, the two outputs and the end come from it; `Close` goes either way and
//! names a channel that has nothing more to say. The end is the last frame of a session and there is one of it: a `metav1.Status` in JSON.
//! A frame without bytes says nothing but that its sender is there.
//!
//! Invariants: pure; a length is judged before anything is kept for it, so that a decoder holds one frame and what was read with it;
//! decoding what was encoded gives the same frames however they were cut up. Left to others: what is done with them (`weft_agent`, `weft_apiserver`).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// What a connection is asked to become, in `Upgrade`.
pub const PROTOCOL: &str = "weft-stream/1";
/// The longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// What stands before a payload.
pub const HEAD_BYTES: usize = 5;

/// What a frame is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    Stdin,
    Stdout,
    Stderr,
    /// How it ended: a Status as JSON, from the node, once, last.
    End,
    /// `{"Width":80,"Height":24}`.
    Resize,
    /// Its payload is one byte: the number of the channel that has ended.
    Close,
}

impl Channel {
    pub fn number(self) -> u8 {
        match self {
            Self::Stdin => 0,
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::End => 3,
            Self::Resize => 4,
            Self::Close => 255,
        }
    }

    pub fn of(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Stdin,
            1 => Self::Stdout,
            2 => Self::Stderr,
            3 => Self::End,
            4 => Self::Resize,
            255 => Self::Close,
            _ => return None,
        })
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub channel: Channel,
    pub payload: Bytes,
}

impl Frame {
    pub fn new(channel: Channel, payload: impl Into<Bytes>) -> Self {
        Self {
            channel,
            payload: payload.into(),
        }
    }

    /// That `channel` has nothing more to say.
    pub fn close(channel: Channel) -> Self {
        Self::new(Channel::Close, vec![channel.number()])
    }

    /// Which channel it ends.
    pub fn closes(&self) -> Option<Channel> {
        match (self.channel, &*self.payload) {
            (Channel::Close, [number]) => Channel::of(*number),
            _ => None,
        }
    }

    /// Appends its bytes to `out`; a payload that is too long for one becomes several frames.
    pub fn encode(&self, out: &mut BytesMut) {
        let mut rest = &*self.payload;
        loop {
            let (part, after) = rest.split_at(rest.len().min(PAYLOAD_BYTES_MAX));
            out.reserve(HEAD_BYTES + part.len());
            out.extend_from_slice(&head(self.channel, part.len()));
            out.extend_from_slice(part);
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }
}

/// What stands before a payload of `length` bytes, at most [`PAYLOAD_BYTES_MAX`].
pub fn head(channel: Channel, length: usize) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let mut out = &mut head[..];
    out.put_u8(channel.number());
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    head
}

/// Why what came is not understood; nothing after it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a frame is of channel {0}, which there is not")]
    Channel(u8),
    #[error("a frame has {0} bytes, more than the {PAYLOAD_BYTES_MAX} of the longest")]
    Length(u32),
    #[error("a frame ends a channel without saying which")]
    Close,
}

/// Takes frames out of what was read.
///
/// # Errors
/// [`FrameError`]; the connection is of no use then.
pub fn decode(read: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
    let Some(head) = read.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let [number, length @ ..] = *head;
    let channel = Channel::of(number).ok_or(FrameError::Channel(number))?;
    let length = u32::from_be_bytes(length);
    let whole = usize::try_from(length).unwrap_or(usize::MAX);
    if whole > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Length(length));
    }
    if read.len() < HEAD_BYTES + whole {
        return Ok(None);
    }
    read.advance(HEAD_BYTES);
    let payload = read.split_to(whole).freeze();
    let frame = Frame { channel, payload };
    if channel == Channel::Close && frame.closes().is_none() {
        return Err(FrameError::Close);
    }
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8], cut: usize) -> Result<Vec<Frame>, FrameError> {
        let mut read = BytesMut::new();
        let mut frames = Vec::new();
        for piece in bytes.chunks(cut.max(1)) {
            read.extend_from_slice(piece);
            while let Some(frame) = decode(&mut read)? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_are_what_the_table_says() {
        for (bytes, expected) in [
            (&b""[..], Ok(vec![])),
            (b"\x00\x00\x00\x00", Ok(vec![])),
            (b"\x00\x00\x00\x00\x02a", Ok(vec![])),
            (
                b"\x00\x00\x00\x00\x02ab",
                Ok(vec![Frame::new(Channel::Stdin, &b"ab"[..])]),
            ),
            (
                b"\x01\x00\x00\x00\x00",
                Ok(vec![Frame::new(Channel::Stdout, &b""[..])]),
            ),
            (
                b"\x04\x00\x00\x00\x02{}\xff\x00\x00\x00\x01\x00",
                Ok(vec![
                    Frame::new(Channel::Resize, &b"{}"[..]),
                    Frame::close(Channel::Stdin),
                ]),
            ),
            (b"\x05\x00\x00\x00\x00", Err(FrameError::Channel(5))),
            (b"\x01\x00\x01\x00\x01", Err(FrameError::Length(65_537))),
            (b"\x01\xff\xff\xff\xff", Err(FrameError::Length(u32::MAX))),
            (b"\xff\x00\x00\x00\x00", Err(FrameError::Close)),
            (b"\xff\x00\x00\x00\x01\x07", Err(FrameError::Close)),
        ] {
            assert_eq!(all(bytes, bytes.len()), expected, "{bytes:?}");
            assert_eq!(all(bytes, 1), expected, "{bytes:?} byte by byte");
        }
    }

    #[test]
    fn what_is_too_long_for_one_frame_is_several() {
        let mut out = BytesMut::new();
        Frame::new(Channel::Stdout, vec![7; PAYLOAD_BYTES_MAX + 1]).encode(&mut out);
        let lengths: Vec<usize> = all(&out, out.len())
            .expect("frames")
            .iter()
            .map(|frame| frame.payload.len())
            .collect();
        assert_eq!(lengths, [PAYLOAD_BYTES_MAX, 1]);
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded_in_any_pieces(
            frames in prop::collection::vec((0_u8..5, prop::collection::vec(any::<u8>(), 0..300)), 0..20),
            cut in 1_usize..64,
        ) {
            let frames: Vec<Frame> = frames
                .into_iter()
                .filter_map(|(number, payload)| Some(Frame::new(Channel::of(number)?, payload)))
                .collect();
            let mut out = BytesMut::new();
            frames.iter().for_each(|frame| frame.encode(&mut out));
            prop_assert_eq!(all(&out, cut), Ok(frames));
        }

        #[test]
        fn whatever_comes_is_frames_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(&bytes, 7);
        }
    }
}
