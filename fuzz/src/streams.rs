//! What clients and nodes say on streams: frames of SPDY, and those between server and node.
//!
//! Whatever comes is frames or a refusal, the same however it is cut up; what was understood is written and read again as it was, and takes no more room
//! than its bounds say.

use bytes::{Bytes, BytesMut};
use weft_apiserver::spdy::frame::{self, Decoder, Encoder, HEADERS_BYTES_MAX, HEADERS_MAX};
use weft_call::stream_frame::{self, Channel, Frame, PAYLOAD_BYTES_MAX};

/// Frames of SPDY, and whether what followed was refused.
fn spdy_of(input: &[u8], cut: usize) -> (Vec<frame::Frame>, bool) {
    let mut decoder = Decoder::default();
    let (mut read, mut frames) = (BytesMut::new(), Vec::new());
    for piece in input.chunks(cut.max(1)) {
        read.extend_from_slice(piece);
        loop {
            match decoder.decode(&mut read) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

/// Data as one, whatever pieces it came in.
fn joined(frames: Vec<frame::Frame>) -> Vec<frame::Frame> {
    let mut all: Vec<frame::Frame> = Vec::new();
    for next in frames {
        if let (
            Some(frame::Frame::Data {
                stream,
                fin,
                bytes: before,
            }),
            frame::Frame::Data {
                stream: same,
                fin: ends,
                bytes,
            },
        ) = (all.last_mut(), &next)
            && *stream == *same
            && !*fin
        {
            *before = Bytes::from([&before[..], &bytes[..]].concat());
            *fin = *ends;
            continue;
        }
        all.push(next);
    }
    all
}

pub fn spdy(input: &[u8]) {
    let (frames, refused) = spdy_of(input, input.len());
    let (pieces, also) = spdy_of(input, 7);
    assert_eq!(joined(pieces), joined(frames.clone()));
    assert_eq!(refused, also);
    for frame in &frames {
        if let frame::Frame::SynStream { headers, .. }
        | frame::Frame::SynReply { headers, .. }
        | frame::Frame::Headers { headers, .. } = frame
        {
            let bytes: usize = headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            assert!(headers.len() <= HEADERS_MAX && bytes <= HEADERS_BYTES_MAX);
        }
    }
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames
        .iter()
        .for_each(|frame| encoder.encode(frame, &mut out));
    assert_eq!(spdy_of(&out, out.len()), (frames, false));
}

pub fn spdy_seeds() -> Vec<Vec<u8>> {
    let frames = [
        frame::Frame::SynStream {
            stream: 1,
            fin: false,
            unidirectional: false,
            headers: vec![("streamtype".to_owned(), "error".to_owned())],
        },
        frame::Frame::Data {
            stream: 1,
            fin: true,
            bytes: Bytes::from_static(b"hello"),
        },
        frame::Frame::Settings(vec![(4, 100)]),
        frame::Frame::Ping(1),
        frame::Frame::GoAway { last: 1, status: 0 },
    ];
    let (mut encoder, mut out) = (Encoder::default(), BytesMut::new());
    frames
        .iter()
        .for_each(|frame| encoder.encode(frame, &mut out));
    vec![frame::SAMPLE.clone(), out.to_vec()]
}

fn frames_of(input: &[u8], cut: usize) -> (Vec<Frame>, bool) {
    let (mut read, mut frames) = (BytesMut::new(), Vec::new());
    for piece in input.chunks(cut.max(1)) {
        read.extend_from_slice(piece);
        loop {
            match stream_frame::decode(&mut read) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

pub fn frames(input: &[u8]) {
    let (frames, refused) = frames_of(input, input.len());
    assert_eq!(frames_of(input, 3), (frames.clone(), refused));
    let mut out = BytesMut::new();
    for frame in &frames {
        assert!(frame.payload.len() <= PAYLOAD_BYTES_MAX);
        frame.encode(&mut out);
    }
    assert_eq!(frames_of(&out, out.len()), (frames, false));
}

pub fn frame_seeds() -> Vec<Vec<u8>> {
    let frames = [
        Frame::new(Channel::Stdin, "hello"),
        Frame::new(Channel::Resize, "{\"Width\":80,\"Height\":24}"),
        Frame::close(Channel::Stdin),
        Frame::new(Channel::End, "{}"),
    ];
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    vec![out.to_vec()]
}
