//! Bytes as numbers: `od`, `hexdump`, `hd` and `xxd`. A row that is as the one before is a `*`, unless `-v` asks for all.

use crate::applet::Input;

use super::call::{Call, Ended, Stop, cannot_open};
use super::flags::{Flags, Usage};

/// The widest row.
const ROW_MAX: usize = 4096;

/// The bytes of several files as one stream, from a place on and for a length.
struct Rows {
    files: std::vec::IntoIter<String>,
    input: Option<(Input, String)>,
    pending: Vec<u8>,
    skip: u64,
    left: u64,
}

impl Rows {
    fn new(files: Vec<String>, skip: u64, left: u64) -> Rows {
        Rows {
            files: files.into_iter(),
            input: None,
            pending: Vec::new(),
            skip,
            left,
        }
    }

    /// The next so many bytes; fewer only at the end.
    async fn row(&mut self, call: &mut Call, width: usize) -> Result<Vec<u8>, Stop> {
        let wanted = width.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        while self.pending.len() < wanted {
            if self.input.is_none() {
                let Some(name) = self.files.next() else { break };
                let input = call
                    .open(&name)
                    .map_err(|error| Stop::failed(cannot_open(&name, &error)))?;
                self.input = Some((input, name));
            }
            let Some((input, name)) = &mut self.input else {
                break;
            };
            match call.chunk(input, name).await {
                None => self.input = None,
                Some(chunk) => {
                    let over = usize::try_from(self.skip)
                        .unwrap_or(usize::MAX)
                        .min(chunk.len());
                    self.skip -= over as u64;
                    self.pending
                        .extend_from_slice(chunk.get(over..).unwrap_or_default());
                }
            }
        }
        let count = wanted.min(self.pending.len());
        self.left -= count as u64;
        Ok(self.pending.drain(..count).collect())
    }
}

fn number(text: &str) -> Result<u64, Stop> {
    let hex = text.strip_prefix("0x").or(text.strip_prefix("0X"));
    match hex {
        Some(hex) => u64::from_str_radix(hex, 16)
            .map_err(|_| Stop::failed(format!("invalid number '{text}'"))),
        None => super::flags::size(text),
    }
}

/// How the units of a row are written.
#[derive(Clone, Copy)]
struct Form {
    letter: char,
    size: usize,
}

impl Form {
    /// A unit's width without the space before it, as od pads.
    fn width(self) -> usize {
        match (self.letter, self.size) {
            ('a' | 'c', _) => 3,
            ('o', 1) => 3,
            ('o', 2) => 6,
            ('o', 4) => 11,
            ('o', _) => 22,
            ('x', size) => size * 2,
            ('u', 1) => 3,
            ('u', 2) => 5,
            ('u', 4) => 10,
            ('u', _) => 20,
            ('d', 1) => 4,
            ('d', 2) => 6,
            ('d', 4) => 11,
            ('d', _) => 20,
            ('f', 4) => 15,
            (_, _) => 24,
        }
    }

    fn write(self, bytes: &[u8]) -> String {
        let mut whole = [0u8; 8];
        whole
            .iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
        let value = u64::from_le_bytes(whole);
        let width = self.width();
        match self.letter {
            'x' => format!("{value:0width$x}"),
            'o' => format!("{value:0width$o}"),
            'u' => format!("{value:width$}"),
            'd' => {
                let shift = 64 - 8 * self.size.min(8);
                format!("{:width$}", (value << shift).cast_signed() >> shift)
            }
            'f' if self.size == 4 => {
                let value = f32::from_bits(value as u32);
                format!(
                    "{:>width$}",
                    super::printf::float(f64::from(value), b'g', 8, false)
                )
            }
            'f' => format!(
                "{:>width$}",
                super::printf::float(f64::from_bits(value), b'g', 17, false)
            ),
            'c' => format!("{:>3}", character(bytes.first().copied().unwrap_or(0))),
            _ => format!("{:>3}", named(bytes.first().copied().unwrap_or(0) & 0x7f)),
        }
    }
}

/// A byte as C writes it.
fn character(byte: u8) -> String {
    match byte {
        0 => "\\0".into(),
        7 => "\\a".into(),
        8 => "\\b".into(),
        9 => "\\t".into(),
        10 => "\\n".into(),
        11 => "\\v".into(),
        12 => "\\f".into(),
        13 => "\\r".into(),
        32..127 => char::from(byte).to_string(),
        byte => format!("{byte:03o}"),
    }
}

fn named(byte: u8) -> String {
    const NAMES: [&str; 33] = [
        "nul", "soh", "stx", "etx", "eot", "enq", "ack", "bel", "bs", "ht", "nl", "vt", "ff", "cr",
        "so", "si", "dle", "dc1", "dc2", "dc3", "dc4", "nak", "syn", "etb", "can", "em", "sub",
        "esc", "fs", "gs", "rs", "us", "sp",
    ];
    match NAMES.get(usize::from(byte)) {
        Some(name) => (*name).into(),
        None if byte == 127 => "del".into(),
        None => char::from(byte).to_string(),
    }
}

const OD: Usage = Usage::new(
    "od [-abcdeFfhiloxsv] [-t TYPE] [-A RADIX] [-N SIZE] [-j SKIP] [-w WIDTH] [FILE]...",
    "abcdDOBxXshivt:A:N:j:w::",
)
.long(&[
    ("address-radix", 'A'),
    ("format", 't'),
    ("read-bytes", 'N'),
    ("skip-bytes", 'j'),
    ("width", 'w'),
    ("output-duplicates", 'v'),
]);

/// `od`
pub async fn od(call: &mut Call) -> Ended {
    let flags = OD.parse(call)?;
    let mut forms = Vec::new();
    for (letter, value) in &flags.seen {
        let form = |letter, size| Form { letter, size };
        match letter {
            'a' => forms.push(form('a', 1)),
            'b' => forms.push(form('o', 1)),
            'c' => forms.push(form('c', 1)),
            'd' => forms.push(form('u', 2)),
            'D' => forms.push(form('u', 4)),
            'i' => forms.push(form('d', 4)),
            's' => forms.push(form('d', 2)),
            'O' => forms.push(form('o', 4)),
            'B' => forms.push(form('o', 2)),
            'x' | 'h' => forms.push(form('x', 2)),
            'X' => forms.push(form('x', 4)),
            't' => {
                let mut chars = value.chars().peekable();
                while let Some(letter) = chars.next() {
                    let size: String =
                        std::iter::from_fn(|| chars.next_if(char::is_ascii_digit)).collect();
                    let named = chars.next_if(|c| "CSILFD".contains(*c));
                    let size = match (size.as_str(), named, letter) {
                        ("", Some('C'), _) => 1,
                        ("", Some('S'), _) => 2,
                        ("", Some('L' | 'D'), _) => 8,
                        ("", Some(_), _) => 4,
                        ("", None, 'f') => 8,
                        ("", None, 'a' | 'c') => 1,
                        ("", None, _) => 4,
                        (size, ..) => size.parse().unwrap_or(0),
                    };
                    if letter == 'z' {
                        continue;
                    }
                    if !"acdoxuf".contains(letter) || !matches!(size, 1 | 2 | 4 | 8) {
                        return Err(Stop::failed(format!("invalid type string '{value}'")));
                    }
                    forms.push(form(letter, size));
                }
            }
            _ => {}
        }
    }
    if forms.is_empty() {
        forms.push(Form {
            letter: 'o',
            size: 2,
        });
    }
    let width = match flags.value('w') {
        None => 16,
        Some("") => 32,
        Some(text) => usize::try_from(number(text)?)
            .unwrap_or(16)
            .clamp(1, ROW_MAX),
    };
    let skip = flags.value('j').map_or(Ok(0), number)?;
    let left = flags.value('N').map_or(Ok(u64::MAX), number)?;
    let radix = flags
        .value('A')
        .and_then(|text| text.chars().next())
        .unwrap_or('o');
    let address = |at: u64| match radix {
        'd' => format!("{at:07}"),
        'x' => format!("{at:06x}"),
        'n' => String::new(),
        _ => format!("{at:07o}"),
    };
    // The widest form per byte decides how far units of all of them stand apart.
    let per_byte = |form: &Form| (form.width() + 1) * (8 / form.size);
    let widest = forms.iter().map(per_byte).max().unwrap_or(0);
    let mut rows = Rows::new(flags.files(), skip, left);
    let mut at = skip;
    let mut last: Option<Vec<u8>> = None;
    let mut starred = false;
    loop {
        let row = rows.row(call, width).await?;
        if row.is_empty() {
            if radix != 'n' {
                call.out(format!("{}\n", address(at))).await?;
            }
            return Ok(call.code);
        }
        if row.len() == width && last.as_ref() == Some(&row) && !flags.has('v') {
            if !starred {
                call.out("*\n").await?;
            }
            starred = true;
            at += row.len() as u64;
            continue;
        }
        starred = false;
        for (index, form) in forms.iter().enumerate() {
            let lead = match (index, radix) {
                (0, _) => address(at),
                (_, 'n') => String::new(),
                _ => " ".repeat(address(at).len()),
            };
            let mut line = lead;
            let unit = widest * form.size / 8;
            for bytes in row.chunks(form.size) {
                line += &format!("{:>unit$}", form.write(bytes));
            }
            line.push('\n');
            call.out(line).await?;
        }
        at += row.len() as u64;
        last = Some(row);
    }
}

const HEXDUMP: Usage = Usage::new(
    "hexdump [-bcCdoxv] [-n LEN] [-s OFS] [FILE]...",
    "bcCdoxvn:s:R",
)
.long(&[
    ("canonical", 'C'),
    ("length", 'n'),
    ("skip", 's'),
    ("no-squeezing", 'v'),
]);

/// `hexdump` and `hd`
pub async fn hexdump(call: &mut Call) -> Ended {
    let flags = HEXDUMP.parse(call)?;
    let skip = flags.value('s').map_or(Ok(0), number)?;
    let left = flags.value('n').map_or(Ok(u64::MAX), number)?;
    let canonical = flags.has('C') || call.name == "hd";
    let letter = if canonical {
        'C'
    } else {
        flags.last_of("bcdox").unwrap_or(' ')
    };
    let mut rows = Rows::new(flags.files(), skip, left);
    let (mut at, mut last, mut starred) = (skip, None, false);
    loop {
        let row = rows.row(call, 16).await?;
        if row.is_empty() {
            if at > skip {
                let end = if canonical {
                    format!("{at:08x}\n")
                } else {
                    format!("{at:07x}\n")
                };
                call.out(end).await?;
            }
            return Ok(call.code);
        }
        if last.as_ref() == Some(&row) && !flags.has('v') {
            if !starred {
                call.out("*\n").await?;
            }
            starred = true;
        } else {
            starred = false;
            let line = match canonical {
                true => canonical_row(at, &row),
                false => hexdump_row(at, &row, letter),
            };
            call.out(line).await?;
        }
        at += row.len() as u64;
        last = Some(row);
    }
}

fn canonical_row(at: u64, row: &[u8]) -> String {
    let mut line = format!("{at:08x} ");
    for index in 0..16 {
        if index == 8 {
            line.push(' ');
        }
        line += &row
            .get(index)
            .map_or("   ".to_owned(), |byte| format!(" {byte:02x}"));
    }
    let text: String = row.iter().map(|byte| printable(*byte)).collect();
    format!("{line}  |{text}|\n")
}

fn printable(byte: u8) -> char {
    if (32..127).contains(&byte) {
        char::from(byte)
    } else {
        '.'
    }
}

fn hexdump_row(at: u64, row: &[u8], letter: char) -> String {
    let mut line = format!("{at:07x}");
    let unit = |bytes: &[u8]| {
        u16::from_le_bytes([
            bytes.first().copied().unwrap_or(0),
            bytes.get(1).copied().unwrap_or(0),
        ])
    };
    match letter {
        'b' => row.iter().for_each(|byte| line += &format!(" {byte:03o}")),
        'c' => row
            .iter()
            .for_each(|byte| line += &format!(" {:>3}", character(*byte))),
        'd' => row
            .chunks(2)
            .for_each(|bytes| line += &format!("   {:05}", unit(bytes))),
        'o' => row
            .chunks(2)
            .for_each(|bytes| line += &format!("  {:06o}", unit(bytes))),
        'x' => row
            .chunks(2)
            .for_each(|bytes| line += &format!("    {:04x}", unit(bytes))),
        _ => row
            .chunks(2)
            .for_each(|bytes| line += &format!(" {:04x}", unit(bytes))),
    }
    // Missing units are blanks.
    let (units, width) = match letter {
        'b' | 'c' => (16 - row.len(), 4),
        ' ' => (8 - row.len().div_ceil(2), 5),
        _ => (8 - row.len().div_ceil(2), 8),
    };
    line += &" ".repeat(units * width);
    line.push('\n');
    line
}

const XXD: Usage = Usage::new(
    "xxd [-pr] [-iu] [-g N] [-c N] [-l LEN] [-s OFS] [-o OFS] [FILE]",
    "priuabeg:c:l:s:o:",
);

/// `xxd`
pub async fn xxd(call: &mut Call) -> Ended {
    let flags = XXD.parse(call)?;
    if flags.has('r') {
        return xxd_back(call, &flags).await;
    }
    let skip = flags.value('s').map_or(Ok(0), number)?;
    let left = flags.value('l').map_or(Ok(u64::MAX), number)?;
    let shift = flags.value('o').map_or(Ok(0), number)?;
    let default = match (flags.has('p'), flags.has('i'), flags.has('b')) {
        (true, ..) => 30,
        (_, true, _) => 12,
        (.., true) => 6,
        _ => 16,
    };
    let width = flags.value('c').map_or(Ok(default), number)?;
    let width = usize::try_from(if width == 0 { default } else { width })
        .unwrap_or(16)
        .min(256);
    let group = match flags.value('g') {
        None if flags.has('b') => 1,
        None => 2,
        Some(text) => usize::try_from(number(text)?).unwrap_or(0),
    };
    let group = if group == 0 { width } else { group };
    let files: Vec<String> = flags.files().into_iter().take(1).collect();
    let name = files.first().cloned().unwrap_or_default();
    let ident: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut rows = Rows::new(files, skip, left);
    let hex = |byte: u8| match (flags.has('b'), flags.has('u')) {
        (true, _) => format!("{byte:08b}"),
        (_, true) => format!("{byte:02X}"),
        _ => format!("{byte:02x}"),
    };
    let mut at = skip;
    let mut first = true;
    if flags.has('i') && name != "-" {
        call.out(format!("unsigned char {ident}[] = {{\n")).await?;
    }
    loop {
        let row = rows.row(call, width).await?;
        if row.is_empty() {
            break;
        }
        let digits: String = row.iter().map(|byte| hex(*byte)).collect();
        let line = if flags.has('p') {
            format!("{digits}\n")
        } else if flags.has('i') {
            let bytes: Vec<String> = row.iter().map(|byte| format!("0x{}", hex(*byte))).collect();
            format!("{}  {}", if first { "" } else { ",\n" }, bytes.join(", "))
        } else {
            let mut line = format!("{:08x}: ", at + shift);
            for index in 0..width {
                let missing = if flags.has('b') { "        " } else { "  " };
                line += &row.get(index).map_or(missing.to_owned(), |byte| hex(*byte));
                if (index + 1) % group == 0 || index + 1 == width {
                    line.push(' ');
                }
            }
            let text: String = row.iter().map(|byte| printable(*byte)).collect();
            format!("{line} {text}\n")
        };
        first = false;
        call.out(line).await?;
        at += row.len() as u64;
    }
    if flags.has('i') {
        let end = if first { "" } else { "\n" };
        call.out(end).await?;
        if name != "-" {
            call.out(format!("}};\nunsigned int {ident}_len = {};\n", at - skip))
                .await?;
        }
    }
    Ok(call.code)
}

async fn xxd_back(call: &mut Call, flags: &Flags) -> Ended {
    let name = flags.files().into_iter().next().unwrap_or_default();
    let mut input = call
        .open(&name)
        .map_err(|error| Stop::failed(cannot_open(&name, &error)))?;
    let mut half: Option<u8> = None;
    while let Some(line) = call.line(&mut input, &name).await {
        let mut text = line.as_slice();
        if !flags.has('p') {
            let Some(colon) = text.iter().position(|byte| *byte == b':') else {
                continue;
            };
            text = text.get(colon + 1..).unwrap_or_default();
            // Two spaces end the numbers.
            let end = text
                .windows(2)
                .skip(1)
                .position(|pair| pair == b"  ")
                .map_or(text.len(), |at| at + 1);
            text = text.get(..end).unwrap_or_default();
        }
        let mut out = Vec::new();
        for byte in text {
            let Some(digit) = char::from(*byte).to_digit(16) else {
                continue;
            };
            let digit = digit as u8;
            match half.take() {
                Some(high) => out.push(high << 4 | digit),
                None => half = Some(digit),
            }
        }
        if !flags.has('p') {
            half = None;
        }
        call.out(out).await?;
    }
    Ok(call.code)
}
