//! Messages of DNS: a question written, an answer read. Nothing in an answer is trusted; names are followed a bounded number of times.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Jumps within a compressed name, and its labels.
const LABELS_MAX: usize = 128;

/// Types that can be asked for.
pub const TYPES: [(&str, u16); 13] = [
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
    ("NAPTR", 35),
    ("DS", 43),
    ("CAA", 257),
    ("ANY", 255),
];
pub const A: u16 = 1;
pub const CNAME: u16 = 5;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;

pub fn type_number(name: &str) -> Option<u16> {
    let upper = name.to_ascii_uppercase();
    let known = TYPES
        .iter()
        .find(|(known, _)| *known == upper)
        .map(|(_, number)| *number);
    known.or_else(|| upper.strip_prefix("TYPE")?.parse().ok())
}

pub fn type_name(number: u16) -> String {
    let known = TYPES.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| format!("TYPE{number}"), |(name, _)| (*name).to_owned())
}

/// The words for a response code.
pub fn code_name(code: u8) -> &'static str {
    match code {
        0 => "NOERROR",
        1 => "FORMERR",
        2 => "SERVFAIL",
        3 => "NXDOMAIN",
        4 => "NOTIMP",
        5 => "REFUSED",
        _ => "RESERVED",
    }
}

#[derive(Debug, Default)]
pub struct Message {
    pub id: u16,
    pub flags: u16,
    /// Name and type.
    pub question: Option<(String, u16)>,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
    pub size: usize,
}

#[derive(Debug, Clone)]
pub struct Record {
    /// With its final dot.
    pub name: String,
    pub kind: u16,
    pub ttl: u32,
    /// As it is written in a zone.
    pub data: String,
    pub address: Option<IpAddr>,
}

impl Message {
    pub fn code(&self) -> u8 {
        (self.flags & 15) as u8
    }

    pub fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    pub fn is_authoritative(&self) -> bool {
        self.flags & 0x0400 != 0
    }
}

/// A question for one name; `None` if it is no name.
pub fn query(id: u16, name: &str, kind: u16, recurse: bool) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(name.len() + 18);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&if recurse { 0x0100u16 } else { 0 }.to_be_bytes());
    for count in [1u16, 0, 0, 0] {
        out.extend_from_slice(&count.to_be_bytes());
    }
    for label in name
        .trim_end_matches('.')
        .split('.')
        .filter(|_| name != ".")
    {
        if label.is_empty() || label.len() > 63 {
            return None;
        }
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&1u16.to_be_bytes());
    (out.len() <= 12 + 255 + 4).then_some(out)
}

struct Reader<'m> {
    bytes: &'m [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        Some(byte)
    }

    fn word(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes([self.byte()?, self.byte()?]))
    }

    fn long(&mut self) -> Option<u32> {
        Some(u32::from(self.word()?) << 16 | u32::from(self.word()?))
    }

    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let (mut at, mut jumped) = (self.at, false);
        for _ in 0..LABELS_MAX {
            let length = *self.bytes.get(at)?;
            match length {
                0 => {
                    if !jumped {
                        self.at = at + 1;
                    }
                    if name.is_empty() {
                        name.push('.');
                    }
                    return Some(name);
                }
                length if length & 0xc0 == 0xc0 => {
                    let low = *self.bytes.get(at + 1)?;
                    if !jumped {
                        self.at = at + 2;
                    }
                    jumped = true;
                    at = usize::from(length & 0x3f) << 8 | usize::from(low);
                }
                length if length & 0xc0 == 0 => {
                    let length = usize::from(length);
                    for byte in self.bytes.get(at + 1..at + 1 + length)? {
                        match byte {
                            b'.' | b'\\' | b'"' | b'(' | b')' | b';' | b'@' | b'$' => {
                                name.push('\\');
                                name.push(char::from(*byte));
                            }
                            0x21..0x7f => name.push(char::from(*byte)),
                            byte => {
                                let _ = write!(name, "\\{byte:03}");
                            }
                        }
                    }
                    name.push('.');
                    at += 1 + length;
                }
                _ => return None,
            }
        }
        None
    }

    fn record(&mut self) -> Option<Record> {
        let name = self.name()?;
        let (kind, _class, ttl) = (self.word()?, self.word()?, self.long()?);
        let length = usize::from(self.word()?);
        let end = self.at + length;
        let raw = self.bytes.get(self.at..end)?;
        let mut address = None;
        let data = match (kind, raw) {
            (A, [a, b, c, d]) => {
                let found = Ipv4Addr::new(*a, *b, *c, *d);
                address = Some(IpAddr::V4(found));
                found.to_string()
            }
            (AAAA, raw) if raw.len() == 16 => {
                let mut octets = [0; 16];
                octets.copy_from_slice(raw);
                let found = Ipv6Addr::from(octets);
                address = Some(IpAddr::V6(found));
                found.to_string()
            }
            (2 | CNAME | PTR, _) => self.name()?,
            (15, _) => format!("{} {}", self.word()?, self.name()?),
            (33, _) => format!(
                "{} {} {} {}",
                self.word()?,
                self.word()?,
                self.word()?,
                self.name()?
            ),
            (6, _) => {
                let (server, mail) = (self.name()?, self.name()?);
                let numbers = [
                    self.long()?,
                    self.long()?,
                    self.long()?,
                    self.long()?,
                    self.long()?,
                ];
                format!(
                    "{server} {mail} {}",
                    numbers.map(|number| number.to_string()).join(" ")
                )
            }
            (16, raw) => {
                let mut parts = Vec::new();
                let mut rest = raw;
                while let Some((length, more)) = rest.split_first() {
                    let (text, after) = more.split_at_checked(usize::from(*length))?;
                    let text = String::from_utf8_lossy(text)
                        .replace('\\', "\\\\")
                        .replace('"', "\\\"");
                    parts.push(format!("\"{text}\""));
                    rest = after;
                }
                parts.join(" ")
            }
            (_, raw) => {
                let hex: String = raw.iter().map(|byte| format!("{byte:02X}")).collect();
                format!("\\# {} {hex}", raw.len()).trim_end().to_owned()
            }
        };
        self.at = end;
        Some(Record {
            name,
            kind,
            ttl,
            data,
            address,
        })
    }
}

/// Reads a message; `None` if it is not one.
pub fn read(bytes: &[u8]) -> Option<Message> {
    let mut reader = Reader { bytes, at: 0 };
    let mut message = Message {
        id: reader.word()?,
        flags: reader.word()?,
        size: bytes.len(),
        ..Message::default()
    };
    let counts = [
        reader.word()?,
        reader.word()?,
        reader.word()?,
        reader.word()?,
    ];
    let [questions, answers, authorities, additions] = counts;
    for _ in 0..questions {
        let question = (reader.name()?, reader.word()?);
        reader.word()?;
        message.question.get_or_insert(question);
    }
    // Each record takes its bytes of a message that is 64 KiB at most, so the counts need no bound of their own.
    for _ in 0..answers {
        message.answer.push(reader.record()?);
    }
    for _ in 0..authorities {
        message.authority.push(reader.record()?);
    }
    for _ in 0..additions {
        message.additional.push(reader.record()?);
    }
    Some(message)
}

/// The name by which an address is asked for.
pub fn reverse_name(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
        }
        IpAddr::V6(address) => {
            let mut name = String::new();
            for byte in address.octets().iter().rev() {
                let _ = write!(name, "{:x}.{:x}.", byte & 15, byte >> 4);
            }
            name + "ip6.arpa."
        }
    }
}
