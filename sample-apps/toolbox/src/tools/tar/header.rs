//! The format of an archive's entries: blocks of 512 bytes, numbers in octal or base 256, names of pax and GNU.

use std::collections::BTreeMap;

use crate::tools::calendar::since_epoch;
use crate::tools::filesystem::About;
use crate::tools::identity::Names;

pub const BLOCK: usize = 512;

pub fn padding(size: u64) -> usize {
    ((BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64) as usize
}

/// The header of an entry, behind those of names that are too long for it.
pub fn headers(
    name: &str,
    link: &str,
    kind: u8,
    size: u64,
    about: &About,
    owners: &Names,
) -> Vec<u8> {
    let mut out = Vec::new();
    for (text, mark) in [(link, b'K'), (name, b'L')] {
        if text.len() > 100 {
            let length = text.len() as u64 + 1;
            out.extend(header(
                "././@LongLink",
                "",
                mark,
                length,
                0o644,
                None,
                0,
                owners,
            ));
            out.extend_from_slice(text.as_bytes());
            out.extend(std::iter::repeat_n(0, 1 + padding(length)));
        }
    }
    let modified = since_epoch(about.modified).0.max(0) as u64;
    out.extend(header(
        name,
        link,
        kind,
        size,
        about.mode,
        Some((about.user, about.group)),
        modified,
        owners,
    ));
    out
}

#[expect(
    clippy::too_many_arguments,
    reason = "the fields of a header, in its order"
)]
fn header(
    name: &str,
    link: &str,
    kind: u8,
    size: u64,
    mode: u32,
    owner: Option<(u32, u32)>,
    modified: u64,
    owners: &Names,
) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, width: usize, bytes: &[u8]| {
        let room = block.get_mut(at..at + width).unwrap_or_default();
        room.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    };
    let octal = |value: u64, width: usize| -> Vec<u8> {
        let digits = width - 1;
        let text = format!("{value:0digits$o}");
        if text.len() <= digits {
            return text.into_bytes();
        }
        // Base 256, which a set high bit marks.
        let mut bytes = vec![0; width];
        bytes
            .iter_mut()
            .rev()
            .zip(value.to_le_bytes())
            .for_each(|(to, from)| *to = from);
        if let Some(first) = bytes.first_mut() {
            *first |= 0x80;
        }
        bytes
    };
    let (user, group) = owner.unwrap_or_default();
    put(
        0,
        100,
        name.as_bytes().get(..100).unwrap_or(name.as_bytes()),
    );
    put(100, 8, &octal(u64::from(mode), 8));
    put(108, 8, &octal(u64::from(user), 8));
    put(116, 8, &octal(u64::from(group), 8));
    put(124, 12, &octal(size, 12));
    put(136, 12, &octal(modified, 12));
    put(148, 8, b"        ");
    put(156, 1, &[kind]);
    put(
        157,
        100,
        link.as_bytes().get(..100).unwrap_or(link.as_bytes()),
    );
    put(257, 8, b"ustar  ");
    if owner.is_some() {
        put(265, 31, owners.user(user).as_bytes());
        put(297, 31, owners.group(group).as_bytes());
    }
    let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
    let mut put = |at: usize, bytes: &[u8]| {
        let room = block.get_mut(at..at + bytes.len()).unwrap_or_default();
        room.copy_from_slice(bytes);
    };
    put(148, format!("{sum:06o}\0 ").as_bytes());
    block
}

/// A number of a header: octal, or base 256.
pub fn number(block: &[u8], at: usize, width: usize) -> Option<u64> {
    let field = block.get(at..at + width)?;
    if field.first()? & 0x80 != 0 {
        let mut value: u64 = u64::from(field.first()? & 0x3f);
        for byte in field.iter().skip(1) {
            value = value.checked_mul(256)?.checked_add(u64::from(*byte))?;
        }
        return Some(value);
    }
    let text = std::str::from_utf8(field).ok()?;
    let text = text.trim_matches([' ', '\0']);
    match text.is_empty() {
        true => Some(0),
        false => u64::from_str_radix(text, 8).ok(),
    }
}

pub fn pax_records(text: &[u8]) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    let mut rest = text;
    while let Some(space) = rest.iter().position(|byte| *byte == b' ') {
        let length = std::str::from_utf8(rest.get(..space).unwrap_or_default())
            .ok()
            .and_then(|text| text.parse::<usize>().ok());
        let Some(record) = length.and_then(|length| rest.get(space + 1..length)) else {
            break;
        };
        let record = String::from_utf8_lossy(record).into_owned();
        if let Some((key, value)) = record.trim_end_matches('\n').split_once('=') {
            records.insert(key.to_owned(), value.to_owned());
        }
        rest = length
            .and_then(|length| rest.get(length..))
            .unwrap_or_default();
    }
    records
}
