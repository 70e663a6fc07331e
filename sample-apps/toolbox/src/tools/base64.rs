//! `base64`, both ways.

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::Usage;

const USAGE: Usage = Usage::new("base64 [-d] [-w COL] [FILE]", "diw:").long(&[
    ("decode", 'd'),
    ("ignore-garbage", 'i'),
    ("wrap", 'w'),
]);
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Bytes as base64, with padding and without line ends.
pub fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = (bits >> (18 - 6 * place) & 63) as usize;
            out.push(if place <= group.len() {
                ALPHABET.get(letter).copied().unwrap_or(b'=')
            } else {
                b'='
            });
        }
    }
    out
}

/// `base64`
pub async fn base64(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let width = match flags.value('w') {
        None => 76,
        Some(text) => text
            .parse()
            .map_err(|_| Stop::failed(format!("invalid number '{text}'")))?,
    };
    let name = flags.files().into_iter().next().unwrap_or_default();
    let mut input = call
        .open(&name)
        .map_err(|error| Stop::failed(cannot_open(&name, &error)))?;
    if flags.has('d') {
        return decode(call, &mut input, &name, flags.has('i')).await;
    }
    let (mut held, mut column): (Vec<u8>, usize) = (Vec::new(), 0);
    loop {
        let chunk = call.chunk(&mut input, &name).await;
        let last = chunk.is_none();
        held.extend(chunk.unwrap_or_default());
        let ready = if last { held.len() } else { held.len() / 3 * 3 };
        let part: Vec<u8> = held.drain(..ready).collect();
        let mut out = Vec::new();
        let encoded = encode(&part);
        if width == 0 {
            out = encoded;
        } else {
            for letter in encoded {
                out.push(letter);
                column += 1;
                if column == width {
                    out.push(b'\n');
                    column = 0;
                }
            }
        }
        if last && column > 0 {
            out.push(b'\n');
        }
        call.out(out).await?;
        if last {
            return Ok(call.code);
        }
    }
}

async fn decode(
    call: &mut Call,
    input: &mut crate::applet::Input,
    name: &str,
    lenient: bool,
) -> Ended {
    let (mut bits, mut count, mut padding) = (0u32, 0, 0);
    while let Some(chunk) = call.chunk(input, name).await {
        let mut out = Vec::with_capacity(chunk.len() / 4 * 3 + 3);
        let mut broken = false;
        for byte in chunk {
            let value = match byte {
                b'=' => {
                    padding += 1;
                    0
                }
                byte => match ALPHABET.iter().position(|letter| *letter == byte) {
                    Some(_) if padding > 0 => {
                        broken = true;
                        break;
                    }
                    Some(value) => value as u32,
                    None if lenient || byte.is_ascii_whitespace() => continue,
                    None => {
                        broken = true;
                        break;
                    }
                },
            };
            bits = bits << 6 | value;
            count += 1;
            if count == 4 {
                let bytes = bits.to_be_bytes();
                let kept = 3usize.saturating_sub(padding);
                out.extend_from_slice(bytes.get(1..=kept).unwrap_or_default());
                (bits, count) = (0, 0);
                // What follows padding is a text of its own, as concatenated ones are.
                broken |= padding > 2;
                padding = 0;
            }
        }
        call.out(out).await?;
        if broken {
            return Err(Stop::failed("truncated input"));
        }
    }
    if count != 0 {
        // What is there of an unpadded end is still given.
        let bytes = (bits << (6 * (4 - count))).to_be_bytes();
        call.out(bytes.get(1..count as usize).unwrap_or_default())
            .await?;
        return Err(Stop::failed("truncated input"));
    }
    Ok(call.code)
}
