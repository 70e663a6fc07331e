//! Patterns of file names: `*`, `?` and `[...]`, as `find -name` takes them.

use super::pattern::named_class;

/// Whether a pattern is all of a text. `*` also takes slashes and leading dots, as `find` has it.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    // Where to go on when what follows the last star fails.
    let mut star: Option<(usize, usize)> = None;
    loop {
        let step = match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, place));
                at += 1;
                continue;
            }
            None if place == text.len() => return true,
            None => None,
            Some(_) => text.get(place).and_then(|byte| one(pattern, at, *byte)),
        };
        match (step, star) {
            (Some(next), _) => (at, place) = (next, place + 1),
            (None, Some((after, from))) if from < text.len() => {
                (at, place) = (after, from + 1);
                star = Some((after, from + 1));
            }
            (None, _) => return false,
        }
    }
}

/// The place behind what stands at `at` of a pattern, if a byte matches it.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'\\' => match pattern.get(at + 1) {
            Some(escaped) => (*escaped == byte).then_some(at + 2),
            None => (byte == b'\\').then_some(at + 1),
        },
        b'[' => match class(pattern, at + 1, byte) {
            Some((holds, next)) => holds.then_some(next),
            None => (byte == b'[').then_some(at + 1),
        },
        literal => (*literal == byte).then_some(at + 1),
    }
}

fn class(pattern: &[u8], mut at: usize, byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(at), Some(b'!' | b'^'));
    at += usize::from(negated);
    let (mut holds, mut first) = (false, true);
    loop {
        let mut low = *pattern.get(at)?;
        if low == b']' && !first {
            return Some((holds != negated, at + 1));
        }
        first = false;
        if low == b'[' && pattern.get(at + 1) == Some(&b':') {
            let rest = pattern.get(at + 2..)?;
            let length = rest.windows(2).position(|window| window == b":]")?;
            let named = named_class(rest.get(..length)?)?;
            holds |= named(byte);
            at += length + 4;
            continue;
        }
        if low == b'\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        at += 1;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') && pattern.get(at + 1).is_some_and(|next| *next != b']') {
            high = *pattern.get(at + 1)?;
            at += 2;
        }
        holds |= (low..=high).contains(&byte);
    }
}
