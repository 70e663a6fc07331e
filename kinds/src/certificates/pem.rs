//! Blocks of PEM, found as Go finds them: what stands between is passed over, and so is what only begins like a block.
//!
//! Pure, one pass; the result is no longer than the text. After `encoding/pem`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
pub(super) struct Block<'a> {
    /// `CERTIFICATE`.
    pub label: &'a str,
    pub has_headers: bool,
    pub bytes: Vec<u8>,
}

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The first block of a text, and what follows it.
pub(super) fn next(text: &str) -> Option<(Block<'_>, &str)> {
    let mut rest = text;
    loop {
        let start = match rest.strip_prefix(BEGIN) {
            Some(start) => start,
            None => rest.split_once("\n-----BEGIN ")?.1,
        };
        let (line, after) = line_of(start);
        if let Some(found) = line
            .strip_suffix(DASHES)
            .and_then(|label| body(label, after))
        {
            return Some(found);
        }
        rest = after;
    }
}

/// The rest of a block of this label.
fn body<'a>(label: &'a str, text: &'a str) -> Option<(Block<'a>, &'a str)> {
    let mut body = text;
    let mut has_headers = false;
    loop {
        if body.is_empty() {
            return None;
        }
        let (line, after) = line_of(body);
        if !line.contains(':') {
            break;
        }
        has_headers = true;
        body = after;
    }
    let (encoded, end) = match body.strip_prefix(END) {
        Some(end) => ("", end),
        None => body.split_once("\n-----END ")?,
    };
    let end = end.strip_prefix(label)?.strip_prefix(DASHES)?;
    let (line, after) = line_of(end);
    if !line.is_empty() {
        return None;
    }
    let encoded: String = encoded
        .chars()
        .filter(|sign| !sign.is_whitespace())
        .collect();
    let block = Block {
        label,
        has_headers,
        bytes: STANDARD.decode(encoded).ok()?,
    };
    Some((block, after))
}

/// The first line without what is blank at its end, and what follows it.
fn line_of(text: &str) -> (&str, &str) {
    let (line, after) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end(), after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_between_whatever_else_there_is() {
        let text = "a\n-----BEGIN X-----\nYWI=\n-----END Y-----\n-----BEGIN A B-----\r\nk: v\n\nYW\n I=\n-----END A B-----\nz\n-----BEGIN C-----\n-----END C-----";
        let mut told = Vec::new();
        let mut rest = text;
        while let Some((block, after)) = next(rest) {
            let bytes = String::from_utf8(block.bytes).unwrap();
            told.push(format!("{} {} {bytes:?}", block.label, block.has_headers));
            rest = after;
        }
        assert_eq!(told, [r#"A B true "ab""#, r#"C false """#]);
        for none in [
            "",
            "-----BEGIN X-----",
            "-----BEGIN X-----\n*\n-----END X-----",
            "-----BEGIN X-----\nk: v",
        ] {
            assert!(next(none).is_none(), "{none:?}");
        }
    }
}
