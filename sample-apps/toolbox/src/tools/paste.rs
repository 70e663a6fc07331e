//! `paste`: lines of several files side by side, or of one in a row.

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::Usage;

const USAGE: Usage = Usage::new("paste [-s] [-d LIST] [FILE]...", "sd:")
    .long(&[("serial", 's'), ("delimiters", 'd')]);

pub async fn paste(call: &mut Call) -> Ended {
    let flags = USAGE.parse(call)?;
    let delimiters = delimiters(flags.value('d').unwrap_or("\t"));
    let delimiter = |index: usize| -> &[u8] {
        match delimiters.is_empty() {
            true => b"",
            false => delimiters
                .get(index % delimiters.len())
                .map_or(b"", Vec::as_slice),
        }
    };
    let mut inputs = Vec::new();
    for name in flags.files() {
        let input = call
            .open(&name)
            .map_err(|error| Stop::failed(cannot_open(&name, &error)))?;
        inputs.push((name, Some(input)));
    }
    if flags.has('s') {
        for (name, input) in &mut inputs {
            let Some(input) = input else { continue };
            let mut count = 0;
            while let Some(line) = call.line(input, name).await {
                if count > 0 {
                    call.out(delimiter(count - 1)).await?;
                }
                call.out(line.strip_suffix(b"\n").unwrap_or(&line)).await?;
                count += 1;
            }
            call.out("\n").await?;
        }
        return Ok(call.code);
    }
    loop {
        let mut row = Vec::new();
        let mut any = false;
        for (index, (name, slot)) in inputs.iter_mut().enumerate() {
            if index > 0 {
                row.extend_from_slice(delimiter(index - 1));
            }
            let Some(input) = slot else { continue };
            match call.line(input, name).await {
                Some(line) => {
                    any = true;
                    row.extend_from_slice(line.strip_suffix(b"\n").unwrap_or(&line));
                }
                None => *slot = None,
            }
        }
        if !any {
            return Ok(call.code);
        }
        row.push(b'\n');
        call.out(row).await?;
    }
}

fn delimiters(text: &str) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        list.push(match c {
            '\\' => match chars.next() {
                Some('n') => b"\n".to_vec(),
                Some('t') => b"\t".to_vec(),
                Some('0') => Vec::new(),
                Some(other) => other.to_string().into_bytes(),
                None => b"\\".to_vec(),
            },
            c => c.to_string().into_bytes(),
        });
    }
    list
}
