//! `cut`: parts of each line, by bytes or fields.

use super::call::{Call, Ended, Stop};
use super::flags::Usage;

const OUTPUT: char = 'O';
const COMPLEMENT: char = 'C';
const USAGE: Usage = Usage::new(
    "cut {-b|c LIST | -f LIST [-d SEP] [-s]} [-O SEP] [FILE]...",
    "b:c:f:d:snO:C",
)
.long(&[
    ("bytes", 'b'),
    ("characters", 'c'),
    ("fields", 'f'),
    ("delimiter", 'd'),
    ("only-delimited", 's'),
    ("output-delimiter", OUTPUT),
    ("complement", COMPLEMENT),
]);

pub async fn cut(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let chosen: Vec<(char, &str)> = ['b', 'c', 'f']
        .into_iter()
        .filter_map(|letter| Some((letter, flags.value(letter)?)))
        .collect();
    let [(letter, text)] = chosen.as_slice() else {
        let text = match chosen.is_empty() {
            true => "expected a list of bytes, characters, or fields",
            false => "only one type of list may be specified",
        };
        return Err(Stop::Said(
            1,
            format!("cut: {text}\nUsage: {}\n", USAGE.line),
        ));
    };
    let ranges = ranges(text)?;
    let complement = flags.has(COMPLEMENT);
    let holds = |number: usize| {
        ranges
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&number))
            != complement
    };
    let delimiter = flags.value('d').unwrap_or("\t").as_bytes().to_vec();
    let [delimiter] = delimiter.as_slice() else {
        return Err(Stop::failed("the delimiter must be a single character"));
    };
    let joint = flags
        .value(OUTPUT)
        .map_or(vec![*delimiter], |text| text.as_bytes().to_vec());
    let between = flags.value(OUTPUT).unwrap_or_default().as_bytes();
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        while let Some(line) = call.line(&mut input, &name).await {
            let line = line.strip_suffix(b"\n").unwrap_or(&line);
            let mut kept = Vec::with_capacity(line.len() + 1);
            if *letter == 'f' {
                if !line.contains(delimiter) {
                    if !flags.has('s') {
                        kept.extend_from_slice(line);
                        kept.push(b'\n');
                        call.out(kept).await?;
                    }
                    continue;
                }
                let fields = line.split(|byte| byte == delimiter);
                let fields = fields.enumerate().filter(|(index, _)| holds(index + 1));
                for (index, (_, field)) in fields.enumerate() {
                    if index > 0 {
                        kept.extend_from_slice(&joint);
                    }
                    kept.extend_from_slice(field);
                }
            } else {
                let mut last = 0;
                for (index, byte) in line
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| holds(index + 1))
                {
                    if last > 0 && index > last {
                        kept.extend_from_slice(between);
                    }
                    kept.push(*byte);
                    last = index + 1;
                }
            }
            kept.push(b'\n');
            call.out(kept).await?;
        }
    }
    Ok(call.code)
}

fn ranges(text: &str) -> Result<Vec<(usize, usize)>, Stop> {
    let invalid = || Stop::failed(format!("invalid range {text}"));
    let number = |text: &str| text.parse::<usize>().map_err(|_| invalid());
    let mut ranges = Vec::new();
    for part in text.split([',', ' ']) {
        let range = match part.split_once('-') {
            None => (number(part)?, number(part)?),
            Some(("", "")) => return Err(invalid()),
            Some(("", to)) => (1, number(to)?),
            Some((from, "")) => (number(from)?, usize::MAX),
            Some((from, to)) => (number(from)?, number(to)?),
        };
        if range.0 == 0 || range.1 < range.0 {
            return Err(invalid());
        }
        ranges.push(range);
    }
    Ok(ranges)
}
