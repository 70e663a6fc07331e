//! `cat`, and `less` and `more`, which page nothing here: their input passes through.

use super::call::{Call, Ended};
use super::flags::Usage;

const USAGE: Usage = Usage::new("cat [-nbsvetAETu] [FILE]...", "nbsvetAETu").long(&[
    ("number", 'n'),
    ("number-nonblank", 'b'),
    ("squeeze-blank", 's'),
    ("show-all", 'A'),
    ("show-ends", 'E'),
    ("show-tabs", 'T'),
    ("show-nonprinting", 'v'),
]);

pub async fn cat(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let any = |letters: &str| letters.chars().any(|letter| flags.has(letter));
    let how = Shown {
        ends: any("eEA"),
        tabs: any("tTA"),
        others: any("vetA"),
    };
    let (nonblank, numbered, squeezed) = (any("b"), any("nb"), any("s"));
    let plain = !numbered && !squeezed && !how.ends && !how.tabs && !how.others;
    let (mut number, mut blanks, mut at_start) = (0u64, 0u64, true);
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        if plain {
            while let Some(bytes) = call.chunk(&mut input, "").await {
                call.out(bytes).await?;
            }
            continue;
        }
        while let Some(line) = call.line(&mut input, "").await {
            let blank = at_start && line == b"\n";
            blanks = if blank { blanks + 1 } else { 0 };
            if squeezed && blanks > 1 {
                continue;
            }
            let mut shown = Vec::with_capacity(line.len() + 8);
            if numbered && at_start && !(nonblank && blank) {
                number += 1;
                shown.extend_from_slice(format!("{number:6}\t").as_bytes());
            }
            at_start = line.last() == Some(&b'\n');
            line.iter().for_each(|byte| how.show(*byte, &mut shown));
            call.out(shown).await?;
        }
    }
    Ok(call.code)
}

struct Shown {
    ends: bool,
    tabs: bool,
    others: bool,
}

impl Shown {
    fn show(&self, byte: u8, to: &mut Vec<u8>) {
        match byte {
            b'\n' => {
                if self.ends {
                    to.push(b'$');
                }
                to.push(b'\n');
            }
            b'\t' if self.tabs => to.extend_from_slice(b"^I"),
            b'\t' => to.push(b'\t'),
            byte if !self.others => to.push(byte),
            byte => {
                let (prefix, low): (&[u8], u8) = if byte >= 128 {
                    (b"M-", byte - 128)
                } else {
                    (b"", byte)
                };
                to.extend_from_slice(prefix);
                match low {
                    0..32 => to.extend_from_slice(&[b'^', low + 64]),
                    127 => to.extend_from_slice(b"^?"),
                    low => to.push(low),
                }
            }
        }
    }
}

const PAGER: Usage = Usage::new("less [FILE]...", "EFIMmNRSh~X");

/// `less` and `more`: whoever reads has a terminal that scrolls.
pub async fn page(call: &mut Call) -> Ended {
    let flags = PAGER.parse(call)?;
    for name in flags.files() {
        let Some(mut input) = call.open_or_fault(&name).await else {
            continue;
        };
        while let Some(bytes) = call.chunk(&mut input, "").await {
            call.out(bytes).await?;
        }
    }
    Ok(call.code)
}
