//! `cmp`: the first byte in which two files differ, or with `-l` all of them.

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::{self, Usage};

const USAGE: Usage = Usage::new("cmp [-ls] [-n NUM] FILE1 [FILE2 [SKIP1 [SKIP2]]]", "lsbn:")
    .code(2)
    .long(&[
        ("verbose", 'l'),
        ("silent", 's'),
        ("quiet", 's'),
        ("bytes", 'n'),
    ]);

struct Bytes {
    input: crate::applet::Input,
    name: String,
    held: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Bytes {
    async fn next(&mut self, call: &mut Call) -> Option<u8> {
        if self.at >= self.held.len() && !self.ended {
            let chunk = call.chunk(&mut self.input, &self.name).await;
            self.ended = chunk.is_none();
            (self.held, self.at) = (chunk.unwrap_or_default(), 0);
        }
        let byte = self.held.get(self.at).copied();
        self.at += 1;
        byte
    }
}

pub async fn cmp(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let Some(first) = flags.rest.first() else {
        return Err(USAGE.wrong());
    };
    let second = flags.rest.get(1).map_or("-", String::as_str);
    let most = flags.value('n').map_or(Ok(u64::MAX), flags::size)?;
    let mut sides = Vec::new();
    for (place, name) in [first.as_str(), second].into_iter().enumerate() {
        let input = call
            .open(name)
            .map_err(|error| Stop::Failed(2, cannot_open(name, &error)))?;
        let mut side = Bytes {
            input,
            name: name.to_owned(),
            held: Vec::new(),
            at: 0,
            ended: false,
        };
        let skip = flags
            .rest
            .get(place + 2)
            .map_or(Ok(0), |text| flags::size(text))?;
        for _ in 0..skip {
            side.next(call).await;
        }
        sides.push(side);
    }
    let [one, other] = sides.as_mut_slice() else {
        return Err(USAGE.wrong());
    };
    let (mut number, mut line, mut differs) = (0u64, 1u64, false);
    while number < most {
        number += 1;
        let (a, b) = (one.next(call).await, other.next(call).await);
        match (a, b) {
            (None, None) => break,
            (Some(a), Some(b)) if a == b => line += u64::from(a == b'\n'),
            (Some(a), Some(b)) => {
                differs = true;
                if flags.has('s') {
                    return Ok(1);
                }
                if !flags.has('l') {
                    call.out(format!(
                        "{first} {second} differ: char {number}, line {line}\n"
                    ))
                    .await?;
                    return Ok(1);
                }
                call.out(format!("{number} {a:3o} {b:3o}\n")).await?;
            }
            (None, _) | (_, None) => {
                if !flags.has('s') {
                    let ended = if a.is_none() { first.as_str() } else { second };
                    call.say(format!("cmp: EOF on {ended}\n")).await;
                }
                return Ok(1);
            }
        }
    }
    Ok(if call.code != 0 {
        2
    } else {
        i32::from(differs)
    })
}
