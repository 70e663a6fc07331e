//! Formats of strings by name, as structural schemas use them: `date-time`, `ipv4`, `uuid`.
//!
//! A format that is not here is not checked, as upstream does not check those that it does not know. `email` is left out: Go takes
//! whatever RFC 5322 allows in a header of a letter.
//!
//! Invariants: total, linear in the text.
//! Source: k8s.io/kube-openapi `pkg/validation/strfmt`; k8s.io/apiextensions-apiserver `pkg/apiserver/validation/formats.go`.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::LazyLock;

use regex::Regex;

use crate::cel;

/// Longest name and label of a host.
const HOST_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

/// Longest names of Kubernetes' own formats.
const LONG_NAME_BYTES_MAX: usize = 253;

fn compiled(pattern: &str) -> Regex {
    cel::pattern::compile(pattern).expect("patterns of formats are well formed")
}

macro_rules! pattern {
    ($name:ident, $pattern:expr) => {
        static $name: LazyLock<Regex> = LazyLock::new(|| compiled($pattern));
    };
}

pattern!(HOST_CHARS, r"^[a-zA-Z0-9\p{S}\p{L}]+$");
pattern!(TOP_DOMAIN, r"^[a-zA-Z\p{L}]+$");
pattern!(
    CLOCK,
    r"^([0-9]{2}):([0-9]{2}):([0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$"
);
pattern!(
    BASE64,
    r"^(?:[A-Za-z0-9+\/]{4})*(?:[A-Za-z0-9+\/]{2}==|[A-Za-z0-9+\/]{3}=|[A-Za-z0-9+\/]{4})$"
);
pattern!(
    CREDIT_CARD,
    r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$"
);
pattern!(HEX_COLOR, r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$");
pattern!(
    RGB_COLOR,
    r"^rgb\(\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*,\s*(0|[1-9]\d?|1\d\d?|2[0-4]\d|25[0-5])\s*\)$"
);
pattern!(SSN, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$");
pattern!(
    LONG_NAME,
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
);

/// Whether a text is of a format; none for a format that is not checked.
pub(super) fn is(format: &str, text: &str) -> Option<bool> {
    Some(match format.replace('-', "").as_str() {
        "datetime" => is_date_time(text),
        "date" => cel::is_date(text),
        "duration" => cel::is_duration(text),
        "byte" => BASE64.is_match(text),
        "uuid" => is_uuid(text, None),
        "uuid3" => is_uuid(text, Some('3')),
        "uuid4" => is_uuid(text, Some('4')),
        "uuid5" => is_uuid(text, Some('5')),
        "ipv4" => is_ipv4(text),
        "ipv6" => is_ipv6(text),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "hostname" => is_hostname(text),
        "uri" => cel::is_uri(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => text.len() == 11 && SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|byte| byte.is_ascii_hexdigit()),
        "password" => true,
        "k8sshortname" => {
            text.len() <= LABEL_BYTES_MAX && !text.contains('.') && LONG_NAME.is_match(text)
        }
        "k8slongname" => text.len() <= LONG_NAME_BYTES_MAX && LONG_NAME.is_match(text),
        _ => return None,
    })
}

/// A day, `t`, and a time of day with its offset, in either case.
fn is_date_time(text: &str) -> bool {
    let text = text.to_lowercase();
    let mut parts = text.split('t');
    let (Some(date), Some(clock)) = (parts.next(), parts.next()) else {
        return false;
    };
    let Some(found) = CLOCK.captures(clock).filter(|_| cel::is_date(date)) else {
        return false;
    };
    let most =
        |group: usize, most: &str| found.get(group).is_some_and(|part| part.as_str() <= most);
    most(1, "23") && most(2, "59") && most(3, "59")
}

/// One label, or labels and a domain of letters above them. Symbols are taken, too.
fn is_hostname(text: &str) -> bool {
    let count = |text: &str| text.chars().count();
    let mut chars = text.chars();
    let first = chars.next().map(String::from).unwrap_or_default();
    let rest = chars.as_str();
    // Behind the first character of a single label there may be one hyphen, and nowhere else.
    let rest = rest.strip_prefix('-').unwrap_or(rest);
    let single = HOST_CHARS.is_match(&first)
        && (rest.is_empty() || HOST_CHARS.is_match(rest))
        && count(rest) < LABEL_BYTES_MAX;
    let label = |label: &str| {
        !label.starts_with('-')
            && !label.ends_with('-')
            && HOST_CHARS.is_match(&label.replace('-', ""))
            && count(label) <= LABEL_BYTES_MAX
    };
    let several = text.rsplit_once('.').is_some_and(|(labels, top)| {
        TOP_DOMAIN.is_match(top)
            && (2..=LABEL_BYTES_MAX).contains(&count(top))
            && labels.split('.').all(label)
    });
    (single || several)
        && text.len() <= HOST_BYTES_MAX
        && text.split('.').all(|label| label.len() <= LABEL_BYTES_MAX)
}

/// Hexadecimal digits in groups, each hyphen between them optional; of a version, if there is one.
fn is_uuid(text: &str, version: Option<char>) -> bool {
    let mut digits = String::with_capacity(32);
    let mut rest = text;
    for (index, count) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some((group, after)) = rest.split_at_checked(count) else {
            return false;
        };
        digits.push_str(group);
        rest = after;
    }
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let nth = |place: usize| digits.chars().nth(place).unwrap_or('0');
    let versioned = match version {
        None => true,
        Some('3') => nth(12) == '3',
        Some(version) => {
            nth(12) == version && matches!(nth(16).to_ascii_lowercase(), '8' | '9' | 'a' | 'b')
        }
    };
    rest.is_empty() && hexadecimal && versioned
}

/// With zeros in front of its numbers, as Go took them once.
fn sloppy_ipv4(text: &str) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        let digits = part.bytes().all(|byte| byte.is_ascii_digit());
        *octet = part.parse().ok().filter(|_| digits)?;
    }
    parts.next().is_none().then(|| octets.into())
}

fn is_ipv4(text: &str) -> bool {
    // An address of IPv6 that ends in one is taken, too.
    sloppy_ipv4(text).is_some() || text.contains('.') && text.parse::<Ipv6Addr>().is_ok()
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_ok()
}

fn is_cidr(text: &str) -> bool {
    let Some((ip, bits)) = text.split_once('/') else {
        return false;
    };
    let longest = match (sloppy_ipv4(ip), ip.parse::<Ipv6Addr>()) {
        (Some(_), _) => 32,
        (None, Ok(_)) => 128,
        _ => return false,
    };
    let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
    digits && bits.parse::<u32>().is_ok_and(|bits| bits <= longest)
}

/// 6, 8 or 20 bytes in hexadecimal: in pairs behind `:` or `-`, in fours behind `.`, or without signs.
fn is_mac(text: &str) -> bool {
    let (sign, width) = match (text.as_bytes().get(2), text.as_bytes().get(4)) {
        (Some(sign @ (b':' | b'-')), _) => (Some(char::from(*sign)), 2),
        (_, Some(b'.')) => (Some('.'), 4),
        _ => (None, text.len()),
    };
    let groups: Vec<&str> = match sign {
        Some(sign) => text.split(sign).collect(),
        None => vec![text],
    };
    let sound =
        |group: &&str| group.len() == width && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    let digits: usize = groups.iter().map(|group| group.len()).sum();
    matches!(digits, 12 | 16 | 40) && groups.iter().all(sound)
}

fn without_spaces(text: &str) -> Vec<u8> {
    let kept = text.chars().filter(|c| !c.is_whitespace() && *c != '-');
    kept.collect::<String>().into_bytes()
}

fn is_isbn10(text: &str) -> bool {
    let text = without_spaces(text);
    let [digits @ .., last] = text.as_slice() else {
        return false;
    };
    let last = match last {
        b'X' => 10,
        last if last.is_ascii_digit() => u32::from(last - b'0'),
        _ => return false,
    };
    if digits.len() != 9 || !digits.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = (1..)
        .zip(digits)
        .map(|(place, digit)| place * u32::from(digit - b'0'))
        .sum();
    (sum + 10 * last).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let text = without_spaces(text);
    if text.len() != 13 || !text.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let weighted = text.iter().zip([1, 3].into_iter().cycle());
    let sum: u32 = weighted
        .map(|(digit, weight)| weight * u32::from(digit - b'0'))
        .sum();
    sum.is_multiple_of(10)
}

/// The digits of a number that passes Luhn's check, whatever stands between them.
fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(
            |(place, digit)| match (u32::from(digit - b'0'), place % 2) {
                (digit, 0) => digit,
                (digit @ 5.., _) => digit * 2 - 9,
                (digit, _) => digit * 2,
            },
        )
        .sum();
    CREDIT_CARD.is_match(&digits) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_of_their_format_or_not() {
        for (format, texts, others) in [
            (
                "date-time",
                &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"][..],
                &[
                    "2014-12-15",
                    "2014-12-15T24:30:20Z",
                    "2014-13-15T19:30:20Z",
                    "x",
                    "",
                ][..],
            ),
            (
                "date",
                &["2024-02-29"],
                &["2023-02-29", "2024-2-29", "2024-02-29T"],
            ),
            ("duration", &["22 ns", "1h30m", "2 weeks"], &["soon", "3"]),
            ("byte", &["aGk=", "aGkx"], &["aGk", "a-k=", ""]),
            (
                "uuid",
                &[
                    "BCD02E22-68F0-3046-A512-327CCA9DEF8F",
                    "bcd02e2268f03046a512327cca9def8f",
                ],
                &["bcd02e22-68f0-3046-a512-327cca9def8g", "x"],
            ),
            (
                "uuid3",
                &["bcd02e22-68f0-3046-a512-327cca9def8f"],
                &["bcd02e22-68f0-4046-a512-327cca9def8f"],
            ),
            (
                "uuid4",
                &["025b0d74-00a2-4048-bf57-227c5111bb34"],
                &["025b0d74-00a2-4048-0f57-227c5111bb34"],
            ),
            (
                "ipv4",
                &["1.2.3.4", "01.2.3.4"],
                &["1.2.3", "1.2.3.256", "::1", "1.2.3.4.5"],
            ),
            (
                "ipv6",
                &["::1", "fe80::1"],
                &["1.2.3.4", "fe80::1%eth0", "x"],
            ),
            (
                "cidr",
                &["10.0.0.0/8", "::/0"],
                &["10.0.0.0", "10.0.0.0/33", "x/1", "10.0.0.0/+8"],
            ),
            (
                "mac",
                &[
                    "01:02:03:04:05:06",
                    "01-02-03-04-05-06-07-08",
                    "0102.0304.0506",
                    "010203040506",
                ],
                &[
                    "01:02:03:04:05",
                    "01:02-03:04:05:06",
                    "0102.0304.05",
                    "xx:02:03:04:05:06",
                ],
            ),
            (
                "hostname",
                &["a.example.com", "host", "1a.london"],
                &["-a.com", "a_b.com", "a.c"],
            ),
            ("uri", &["http://a/b?c", "/a"], &["a", ""]),
            (
                "isbn",
                &["0321751043", "978-0321751041"],
                &["0321751044", "978-0321751042"],
            ),
            (
                "creditcard",
                &["4012 8888 8888 1881"],
                &["4012 8888 8888 1882", "1"],
            ),
            ("ssn", &["111-11-1111"], &["111 11 111", "111111111"]),
            ("hexcolor", &["#FFF", "ffffff"], &["#ff"]),
            ("rgbcolor", &["rgb(255, 0,7)"], &["rgb(256,0,7)"]),
            (
                "bsonobjectid",
                &["507f1f77bcf86cd799439011"],
                &["507f1f77bcf86cd79943901"],
            ),
            ("k8s-short-name", &["a-1"], &["a.b", "A", "-a"]),
            ("k8s-long-name", &["a-1.b"], &["a..b", "A"]),
        ] {
            for text in texts {
                assert_eq!(is(format, text), Some(true), "{format} {text}");
            }
            for text in others {
                assert_eq!(is(format, text), Some(false), "{format} {text}");
            }
        }
        assert_eq!(is("email", "x"), None);
        assert_eq!(is("int-or-string", "x"), None);
    }
}
