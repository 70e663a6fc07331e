//! `tar`: archives made, listed and unpacked, in pieces and never whole in memory.
//!
//! Written are ustar headers, with GNU's long names and sizes in base 256 where ustar has no room; read are those, the old formats and
//! pax' paths, links and sizes. Nothing is unpacked outside of the directory: leading slashes and `..` are taken away, and a link in
//! the way is not followed. `header` is the format of entries, `writer` makes archives, `reader` lists and unpacks them.

mod header;
mod reader;
mod writer;

use super::call::{Call, Ended, Stop};
use super::flags::Usage;
use super::glob;

pub const STRIP: char = '\u{1}';
pub const EXCLUDE: char = '\u{2}';
const NUMERIC: char = '\u{3}';
const IGNORED: char = '\u{4}';

const USAGE: Usage = Usage::new(
    "tar c|x|t [-hvokOmpz] [-f TARFILE] [-C DIR] [-T FILE] [-X FILE] [LONGOPT]... [FILE]...",
    "cxtruf:C:T:X:hvokOmpzjJ\u{1}:\u{2}:\u{3}\u{4}",
)
.long(&[
    ("create", 'c'),
    ("extract", 'x'),
    ("get", 'x'),
    ("list", 't'),
    ("file", 'f'),
    ("directory", 'C'),
    ("files-from", 'T'),
    ("exclude-from", 'X'),
    ("verbose", 'v'),
    ("gzip", 'z'),
    ("to-stdout", 'O'),
    ("keep-old-files", 'k'),
    ("touch", 'm'),
    ("preserve-permissions", 'p'),
    ("same-permissions", 'p'),
    ("no-same-permissions", IGNORED),
    ("no-same-owner", 'o'),
    ("dereference", 'h'),
    ("strip-components", STRIP),
    ("exclude", EXCLUDE),
    ("numeric-owner", NUMERIC),
    ("overwrite", IGNORED),
]);

pub async fn tar(call: &mut Call) -> Ended {
    // `--warning=…` only says what to keep quiet of. The first word may be letters without a dash, whose values follow in their order.
    let mut args: Vec<String> = call
        .args
        .iter()
        .filter(|arg| !arg.starts_with("--warning"))
        .cloned()
        .collect();
    if let Some(first) = args
        .first()
        .filter(|first| !first.starts_with('-'))
        .cloned()
    {
        args.remove(0);
        let mut spread = Vec::new();
        let mut values = args.into_iter();
        for letter in first.chars() {
            spread.push(format!("-{letter}"));
            if "fCTX".contains(letter) {
                spread.extend(values.next());
            }
        }
        spread.extend(values);
        args = spread;
    }
    let flags = USAGE.sort(&call.name, &args)?;
    let modes: Vec<char> = "cxtru"
        .chars()
        .filter(|letter| flags.has(*letter))
        .collect();
    let archive = flags.value('f').unwrap_or("-").to_owned();
    if flags.has('j') || flags.has('J') {
        return Err(Stop::failed("only gzip (-z) is known here"));
    }
    match modes.as_slice() {
        ['c'] => writer::create(call, &flags, &archive).await,
        ['x'] => {
            reader::Reader::open(call, &flags, &archive)?
                .unpack(call, &flags, false)
                .await
        }
        ['t'] => {
            reader::Reader::open(call, &flags, &archive)?
                .unpack(call, &flags, true)
                .await
        }
        ['r' | 'u'] => Err(Stop::failed("an archive is written once; make a new one")),
        _ => Err(USAGE.wrong()),
    }
}

async fn lines_of(call: &mut Call, name: &str) -> Result<Vec<String>, Stop> {
    let text = call.whole(name).await?;
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

fn excluded_by(patterns: &[String], name: &str) -> bool {
    let name = name.trim_end_matches('/');
    patterns.iter().any(|pattern| {
        // A pattern may begin at any part of a path, and what is below what it names goes with it.
        let starts = std::iter::once(0).chain(name.match_indices('/').map(|(at, _)| at + 1));
        starts
            .into_iter()
            .filter_map(|start| name.get(start..))
            .any(|tail| {
                let ends = tail
                    .match_indices('/')
                    .map(|(at, _)| at)
                    .chain([tail.len()]);
                ends.into_iter()
                    .filter_map(|end| tail.get(..end))
                    .any(|part| glob::matches(pattern.as_bytes(), part.as_bytes()))
            })
    })
}
