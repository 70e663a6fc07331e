//! `wc`: counts lines, words, characters, bytes, and the longest line.

use super::call::{Call, Ended, reason};
use super::flags::Usage;

const USAGE: Usage = Usage::new("wc [-cmlwL] [FILE]...", "cmlwL").long(&[
    ("bytes", 'c'),
    ("chars", 'm'),
    ("lines", 'l'),
    ("words", 'w'),
    ("max-line-length", 'L'),
]);

#[derive(Clone, Copy, Default)]
struct Counts {
    lines: u64,
    words: u64,
    chars: u64,
    bytes: u64,
    longest: u64,
}

pub async fn wc(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let mut letters: Vec<char> = "lwmcL"
        .chars()
        .filter(|letter| flags.has(*letter))
        .collect();
    if letters.is_empty() {
        letters = vec!['l', 'w', 'c'];
    }
    let row = |counts: Counts, name: &str| {
        let number = |letter: &char| match letter {
            'l' => counts.lines,
            'w' => counts.words,
            'm' => counts.chars,
            'c' => counts.bytes,
            _ => counts.longest,
        };
        let numbers: Vec<String> = match letters.as_slice() {
            [only] => vec![number(only).to_string()],
            several => several
                .iter()
                .map(|letter| format!("{:9}", number(letter)))
                .collect(),
        };
        let name = if name.is_empty() {
            String::new()
        } else {
            format!(" {name}")
        };
        format!("{}{name}\n", numbers.join(" "))
    };
    let files = flags.files();
    let mut total = Counts::default();
    for name in &files {
        let mut input = match call.open(name) {
            Ok(input) => input,
            Err(error) => {
                call.fault(format!("{name}: {}", reason(&error))).await;
                continue;
            }
        };
        let mut counts = Counts::default();
        let (mut in_word, mut column) = (false, 0u64);
        while let Some(chunk) = call.chunk(&mut input, name).await {
            counts.bytes += chunk.len() as u64;
            for byte in chunk {
                // The first byte of each UTF-8 sequence stands for its character.
                counts.chars += u64::from(byte & 0xc0 != 0x80);
                match byte {
                    b'\n' | b'\r' | 0x0c => {
                        counts.lines += u64::from(byte == b'\n');
                        counts.longest = counts.longest.max(column);
                        column = 0;
                    }
                    b'\t' => column = (column / 8 + 1) * 8,
                    byte => column += u64::from((32..127).contains(&byte)),
                }
                let space = matches!(byte, b' ' | b'\t'..=b'\r');
                counts.words += u64::from(!space && !in_word);
                in_word = !space;
            }
        }
        counts.longest = counts.longest.max(column);
        total.lines += counts.lines;
        total.words += counts.words;
        total.chars += counts.chars;
        total.bytes += counts.bytes;
        total.longest = total.longest.max(counts.longest);
        let named = !flags.rest.is_empty();
        call.out(row(counts, if named { name } else { "" })).await?;
    }
    if files.len() > 1 {
        call.out(row(total, "total")).await?;
    }
    Ok(call.code)
}
