//! `tr`: bytes translated, squeezed or deleted.

use super::call::{Call, Ended, Stop};
use super::flags::Usage;
use super::pattern::named_class;

const USAGE: Usage = Usage::new("tr [-cds] STRING1 [STRING2]", "+cCdst").long(&[
    ("complement", 'c'),
    ("delete", 'd'),
    ("squeeze-repeats", 's'),
    ("truncate-set1", 't'),
]);

pub async fn tr(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let (delete, squeeze) = (flags.has('d'), flags.has('s'));
    let (first, second) = match flags.rest.as_slice() {
        [first] if delete || squeeze => (first, None),
        [first, second] => (first, Some(second)),
        _ => return Err(USAGE.wrong()),
    };
    let mut from = set(first.as_bytes(), 0)?;
    if flags.has('c') || flags.has('C') {
        from = (0..=255u8).filter(|byte| !from.contains(byte)).collect();
    }
    let to = second
        .map(|text| set(text.as_bytes(), from.len()))
        .transpose()?;
    let mut map: [u8; 256] = std::array::from_fn(|byte| byte as u8);
    if let (Some(to), false) = (&to, delete) {
        let Some(last) = to.last() else {
            return Err(Stop::failed("STRING2 must be non-empty"));
        };
        for (index, byte) in from.iter().enumerate() {
            if index >= to.len() && flags.has('t') {
                break;
            }
            map[usize::from(*byte)] = *to.get(index).unwrap_or(last);
        }
    }
    let member =
        |set: &[u8]| -> [bool; 256] { std::array::from_fn(|byte| set.contains(&(byte as u8))) };
    let deleted = if delete { member(&from) } else { [false; 256] };
    let squeezed = match (squeeze, &to) {
        (false, _) => [false; 256],
        (true, Some(to)) => member(to),
        (true, None) => member(&from),
    };
    let mut input = call.io.stdin.clone();
    let mut last = None;
    while let Some(chunk) = call.chunk(&mut input, "").await {
        let mut out = Vec::with_capacity(chunk.len());
        for byte in chunk {
            if deleted[usize::from(byte)] {
                continue;
            }
            let byte = map[usize::from(byte)];
            if squeezed[usize::from(byte)] && last == Some(byte) {
                continue;
            }
            last = Some(byte);
            out.push(byte);
        }
        call.out(out).await?;
    }
    Ok(call.code)
}

/// The bytes that a string names, in order. `[x*]` fills up to `length`.
fn set(text: &[u8], length: usize) -> Result<Vec<u8>, Stop> {
    let mut bytes = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with(b"[:")
            && let Some(end) = rest.windows(2).position(|window| window == b":]")
            && let Some(holds) = named_class(rest.get(2..end).unwrap_or_default())
        {
            bytes.extend((0..=255u8).filter(|byte| holds(*byte)));
            at += end + 2;
            continue;
        }
        if let [b'[', b'=', byte, b'=', b']', ..] = rest {
            bytes.push(*byte);
            at += 5;
            continue;
        }
        if let [b'[', byte, b'*', more @ ..] = rest
            && let Some(end) = more.iter().position(|byte| *byte == b']')
        {
            let digits = String::from_utf8_lossy(more.get(..end).unwrap_or_default()).into_owned();
            let count = match digits.as_str() {
                "" => length.saturating_sub(bytes.len()),
                octal if octal.starts_with('0') => usize::from_str_radix(octal, 8).unwrap_or(0),
                number => number.parse().unwrap_or(0),
            };
            bytes.extend(std::iter::repeat_n(*byte, count.min(1 << 16)));
            at += end + 4;
            continue;
        }
        let (low, used) = one(rest);
        at += used;
        let rest = text.get(at..).unwrap_or_default();
        if rest.first() == Some(&b'-') && rest.len() > 1 {
            let (high, used) = one(rest.get(1..).unwrap_or_default());
            if high < low {
                let text = format!(
                    "range-endpoints of '{}-{}' are in reverse collating sequence order",
                    char::from(low),
                    char::from(high)
                );
                return Err(Stop::failed(text));
            }
            bytes.extend(low..=high);
            at += 1 + used;
        } else {
            bytes.push(low);
        }
    }
    Ok(bytes)
}

/// One byte, which may be escaped, and the length of its writing.
fn one(text: &[u8]) -> (u8, usize) {
    match text {
        [b'\\', b'0'..=b'7', ..] => {
            let digits = text
                .iter()
                .skip(1)
                .take(3)
                .take_while(|byte| (b'0'..=b'7').contains(byte));
            let mut used = 1;
            let mut value = 0u32;
            for digit in digits {
                let next = value * 8 + u32::from(digit - b'0');
                if next > 255 {
                    break;
                }
                value = next;
                used += 1;
            }
            (value as u8, used)
        }
        [b'\\', letter, ..] => {
            let byte = match letter {
                b'a' => 7,
                b'b' => 8,
                b'f' => 12,
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'v' => 11,
                other => *other,
            };
            (byte, 2)
        }
        [byte, ..] => (*byte, 1),
        [] => (0, 1),
    }
}
