//! Addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::formatting::quoted;
use super::{Function, Outcome};
use crate::cel::eval::Error;
use crate::cel::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        overloads: &[("string_to_ip", "(string) IP"), ("cidr_ip", "CIDR.() IP")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Ip(parse_ip(text)?))),
            [Value::Cidr(net)] => Ok(Some(Value::Ip(net.addr()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "isIP",
        overloads: &[("is_ip", "(string) bool")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Bool(parse_ip(text).is_ok()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "ip.isCanonical",
        overloads: &[("ip_is_canonical", "(string) bool")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Bool(parse_ip(text)?.to_string() == **text))),
            _ => Ok(None),
        },
    },
    Function {
        name: "family",
        overloads: &[("ip_family", "IP.() int")],
        run: |args, _| match args {
            [Value::Ip(ip)] => Ok(Some(Value::Int(if ip.is_ipv4() { 4 } else { 6 }))),
            _ => Ok(None),
        },
    },
    Function {
        name: "isUnspecified",
        overloads: &[("ip_is_unspecified", "IP.() bool")],
        run: |args, _| of_ip(args, |ip| ip.is_unspecified()),
    },
    Function {
        name: "isLoopback",
        overloads: &[("ip_is_loopback", "IP.() bool")],
        run: |args, _| of_ip(args, |ip| ip.is_loopback()),
    },
    Function {
        name: "isLinkLocalMulticast",
        overloads: &[("ip_is_link_local_multicast", "IP.() bool")],
        run: |args, _| of_ip(args, is_link_local_multicast),
    },
    Function {
        name: "isLinkLocalUnicast",
        overloads: &[("ip_is_link_local_unicast", "IP.() bool")],
        run: |args, _| of_ip(args, is_link_local_unicast),
    },
    Function {
        name: "isGlobalUnicast",
        overloads: &[("ip_is_global_unicast", "IP.() bool")],
        run: |args, _| {
            of_ip(args, |ip| {
                let special = ip.is_unspecified()
                    || ip.is_loopback()
                    || ip.is_multicast()
                    || is_link_local_unicast(ip)
                    || ip == IpAddr::V4(Ipv4Addr::BROADCAST);
                !special
            })
        },
    },
    Function {
        name: "string",
        overloads: &[
            ("ip_to_string", "(IP) string"),
            ("cidr_to_string", "(CIDR) string"),
        ],
        run: |args, _| match args {
            [value @ (Value::Ip(_) | Value::Cidr(..))] => Ok(Some(Value::text(value.to_string()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "cidr",
        overloads: &[("string_to_cidr", "(string) CIDR")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Cidr(parse_cidr(text)?))),
            _ => Ok(None),
        },
    },
    Function {
        name: "isCIDR",
        overloads: &[("is_cidr", "(string) bool")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Bool(parse_cidr(text).is_ok()))),
            _ => Ok(None),
        },
    },
    Function {
        name: "containsIP",
        overloads: &[
            ("cidr_contains_ip_string", "CIDR.(string) bool"),
            ("cidr_contains_ip_ip", "CIDR.(IP) bool"),
        ],
        run: |args, _| match args {
            [Value::Cidr(net), Value::Ip(ip)] => Ok(Some(Value::Bool(net.contains(ip)))),
            [Value::Cidr(net), Value::String(text)] => {
                Ok(Some(Value::Bool(net.contains(&parse_ip(text)?))))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "containsCIDR",
        overloads: &[
            ("cidr_contains_cidr_string", "CIDR.(string) bool"),
            ("cidr_contains_cidr", "CIDR.(CIDR) bool"),
        ],
        run: |args, _| match args {
            [Value::Cidr(net), Value::Cidr(inner)] => Ok(Some(Value::Bool(net.contains(inner)))),
            [Value::Cidr(net), Value::String(text)] => {
                Ok(Some(Value::Bool(net.contains(&parse_cidr(text)?))))
            }
            _ => Ok(None),
        },
    },
    Function {
        name: "prefixLength",
        overloads: &[("cidr_prefix_length", "CIDR.() int")],
        run: |args, _| match args {
            [Value::Cidr(net)] => Ok(Some(Value::Int(i64::from(net.prefix_len())))),
            _ => Ok(None),
        },
    },
    Function {
        name: "masked",
        overloads: &[("cidr_masked", "CIDR.() CIDR")],
        run: |args, _| match args {
            [Value::Cidr(net)] => Ok(Some(Value::Cidr(net.trunc()))),
            _ => Ok(None),
        },
    },
];

fn of_ip<'a>(args: &[Value<'a>], holds: impl Fn(IpAddr) -> bool) -> Outcome<'a> {
    match args {
        [Value::Ip(ip)] => Ok(Some(Value::Bool(holds(*ip)))),
        _ => Ok(None),
    }
}

fn is_link_local_unicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn is_link_local_multicast(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets().starts_with(&[224, 0, 0]),
        IpAddr::V6(ip) => ip.segments()[0] & 0xff0f == 0xff02,
    }
}

/// # Errors
/// Why it is none for rules: as Go words it, or that it has a zone or is an IPv4 address in IPv6.
fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    let (ip, zone) = parse_addr(text).map_err(|reason| {
        Error::new(format!(
            "IP Address {} parse error during conversion from string: {reason}",
            quoted(text)
        ))
    })?;
    if zone {
        let sentence = format!("IP address {} with zone value is not allowed", quoted(text));
        return Err(Error::new(sentence));
    }
    unmapped(ip, text).map_err(Error::new)
}

/// # Errors
/// As [`parse_ip`]; what is no range is told once by Go's parser, and what Go takes and rules do not is not.
fn parse_cidr(text: &str) -> Result<IpNet, Error> {
    const WORDS: &str = "network address parse error during conversion from string";
    let read = parse_prefix(text).map_err(|reason| {
        let prefix = format!("netip.ParsePrefix({}): {reason}", quoted(text));
        Error::new(format!("{WORDS}: {WORDS}: {prefix}"))
    });
    let net = read?;
    unmapped(net.addr(), text).map_err(|told| Error::new(format!("{WORDS}: {told}")))?;
    Ok(net)
}

fn unmapped(ip: IpAddr, text: &str) -> Result<IpAddr, String> {
    match ip {
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Err(format!(
            "IPv4-mapped IPv6 address {} is not allowed",
            quoted(text)
        )),
        ip => Ok(ip),
    }
}

/// As Go's `netip.ParsePrefix`.
fn parse_prefix(text: &str) -> Result<IpNet, String> {
    let (ip, bits) = text.rsplit_once('/').ok_or("no '/'")?;
    let (ip, zone) = parse_addr(ip)?;
    if zone {
        return Err("IPv6 zones cannot be present in a prefix".to_owned());
    }
    let bad = || format!("bad bits after slash: {}", quoted(bits));
    if bits.len() > 1 && !bits.starts_with(|c: char| matches!(c, '1'..='9')) {
        return Err(bad());
    }
    if bits.is_empty() || !bits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad());
    }
    let bits: i64 = bits.parse().map_err(|_| bad())?;
    let net = u8::try_from(bits).ok();
    net.and_then(|bits| IpNet::new(ip, bits).ok())
        .ok_or_else(|| "prefix length out of range".to_owned())
}

/// As Go's `netip.ParseAddr`; whether it has a zone.
fn parse_addr(text: &str) -> Result<(IpAddr, bool), String> {
    let told = |reason: Reason<'_>| {
        let Reason(message, at) = reason;
        let at = match at {
            "" => String::new(),
            at => format!(" (at {})", quoted(at)),
        };
        format!("ParseAddr({}): {message}{at}", quoted(text))
    };
    match text.find(['.', ':', '%']).map(|at| &text[at..=at]) {
        Some(".") => {
            let fields = ipv4_fields(text).map_err(told)?;
            Ok((Ipv4Addr::from(fields).into(), false))
        }
        Some(":") => {
            let (ip, zone) = parse_ipv6(text).map_err(told)?;
            Ok((ip.into(), zone))
        }
        Some(_) => Err(told(Reason("missing IPv6 address", ""))),
        None => Err(told(Reason("unable to parse IP", ""))),
    }
}

/// What is wrong, and the rest of the text from there; nothing where that is not told.
struct Reason<'a>(&'static str, &'a str);

fn ipv4_fields(text: &str) -> Result<[u8; 4], Reason<'_>> {
    let mut fields = [0_u8; 4];
    let (mut value, mut digits, mut place) = (0_u32, 0, 0);
    for (index, c) in text.char_indices() {
        match c {
            '0'..='9' => {
                if digits == 1 && value == 0 {
                    return Err(Reason("IPv4 field has octet with leading zero", ""));
                }
                value = value * 10 + c.to_digit(10).unwrap_or(0);
                digits += 1;
                if value > 255 {
                    return Err(Reason("IPv4 field has value >255", ""));
                }
            }
            '.' => {
                if index == 0 || index == text.len() - 1 || text[..index].ends_with('.') {
                    let at = &text[index..];
                    return Err(Reason("IPv4 field must have at least one digit", at));
                }
                if place == 3 {
                    return Err(Reason("IPv4 address too long", ""));
                }
                fields[place] = value as u8;
                place += 1;
                (value, digits) = (0, 0);
            }
            _ => return Err(Reason("unexpected character", &text[index..])),
        }
    }
    if place < 3 {
        return Err(Reason("IPv4 address too short", ""));
    }
    fields[3] = value as u8;
    Ok(fields)
}

fn parse_ipv6(text: &str) -> Result<(Ipv6Addr, bool), Reason<'_>> {
    let (mut rest, zone) = match text.split_once('%') {
        Some((_, "")) => return Err(Reason("zone must be a non-empty string", "")),
        Some((rest, _)) => (rest, true),
        None => (text, false),
    };
    let mut bytes = [0_u8; 16];
    let mut ellipsis = None;
    let mut filled = 0;
    if let Some(after) = rest.strip_prefix("::") {
        ellipsis = Some(0);
        rest = after;
        if rest.is_empty() {
            return Ok((Ipv6Addr::UNSPECIFIED, zone));
        }
    }
    while filled < 16 {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        if digits > 4 {
            return Err(Reason("each group must have 4 or less digits", rest));
        }
        if digits == 0 {
            return Err(Reason(
                "each colon-separated field must have at least one digit",
                rest,
            ));
        }
        let (group, after) = rest.split_at(digits);
        if after.starts_with('.') {
            if ellipsis.is_none() && filled != 12 {
                return Err(Reason(
                    "embedded IPv4 address must replace the final 2 fields of the address",
                    rest,
                ));
            }
            if filled + 4 > 16 {
                return Err(Reason(
                    "too many hex fields to fit an embedded IPv4 at the end of the address",
                    rest,
                ));
            }
            bytes[filled..filled + 4].copy_from_slice(&ipv4_fields(rest)?);
            filled += 4;
            rest = "";
            break;
        }
        // Four digits fit.
        let group = u16::from_str_radix(group, 16).unwrap_or(0);
        bytes[filled..filled + 2].copy_from_slice(&group.to_be_bytes());
        filled += 2;
        rest = after;
        if rest.is_empty() {
            break;
        }
        let Some(after) = rest.strip_prefix(':') else {
            return Err(Reason("unexpected character, want colon", rest));
        };
        if after.is_empty() {
            return Err(Reason("colon must be followed by more characters", rest));
        }
        rest = after;
        if let Some(after) = rest.strip_prefix(':') {
            if ellipsis.is_some() {
                return Err(Reason("multiple :: in address", rest));
            }
            ellipsis = Some(filled);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }
    if !rest.is_empty() {
        return Err(Reason("trailing garbage after address", rest));
    }
    match ellipsis {
        None if filled < 16 => return Err(Reason("address string too short", "")),
        Some(_) if filled == 16 => {
            return Err(Reason(
                "the :: must expand to at least one field of zeros",
                "",
            ));
        }
        Some(place) => {
            let zeros = 16 - filled;
            bytes.copy_within(place..filled, place + zeros);
            bytes[place..place + zeros].fill(0);
        }
        None => {}
    }
    Ok((Ipv6Addr::from(bytes), zone))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        for (text, told) in [
            ("1.2.3.4", Ok("1.2.3.4")),
            ("::1", Ok("::1")),
            ("2001:db8::68", Ok("2001:db8::68")),
            ("1:2:3:4:5:6:7::", Ok("1:2:3:4:5:6:7:0")),
            ("64:ff9b::1.2.3.4", Ok("64:ff9b::102:304")),
            ("x", Err("unable to parse IP")),
            ("%eth0", Err("missing IPv6 address")),
            ("1.2.3", Err("IPv4 address too short")),
            ("1.2.3.4.5", Err("IPv4 address too long")),
            (
                "1..3.4",
                Err("IPv4 field must have at least one digit (at \".3.4\")"),
            ),
            (
                "1.2.3.",
                Err("IPv4 field must have at least one digit (at \".\")"),
            ),
            ("1.2.3.04", Err("IPv4 field has octet with leading zero")),
            ("1.2.3.256", Err("IPv4 field has value >255")),
            ("1.2.ä.4", Err("unexpected character (at \"ä.4\")")),
            (
                "2001:db8:::68",
                Err("each colon-separated field must have at least one digit (at \":68\")"),
            ),
            ("fe80::1%", Err("zone must be a non-empty string")),
            ("1:2", Err("address string too short")),
            ("1::2::3", Err("multiple :: in address (at \":3\")")),
            (
                "12345::",
                Err("each group must have 4 or less digits (at \"12345::\")"),
            ),
            (
                "1:2:3:4:5:6:7:8:9",
                Err("trailing garbage after address (at \"9\")"),
            ),
            (
                "1:2:3:4:5:6:7::8",
                Err("the :: must expand to at least one field of zeros"),
            ),
            (
                "1:",
                Err("colon must be followed by more characters (at \":\")"),
            ),
            (
                "1:2.",
                Err(
                    "embedded IPv4 address must replace the final 2 fields of the address (at \"2.\")",
                ),
            ),
        ] {
            let found = parse_addr(text).map(|(ip, _)| ip.to_string());
            let told = told
                .map(str::to_owned)
                .map_err(|told: &str| format!("ParseAddr({text:?}): {told}"));
            assert_eq!(found, told, "{text}");
        }
        for (text, told) in [
            ("10.0.0.0/8", Ok((8, true))),
            ("::/0", Ok((0, false))),
            ("10.0.0.0", Err("no '/'")),
            ("10.0.0.0/", Err("bad bits after slash: \"\"")),
            ("10.0.0.0/08", Err("bad bits after slash: \"08\"")),
            ("10.0.0.0/33", Err("prefix length out of range")),
            (
                "fe80::%en0/10",
                Err("IPv6 zones cannot be present in a prefix"),
            ),
        ] {
            let found = parse_prefix(text).map(|net| (net.prefix_len(), net.addr().is_ipv4()));
            assert_eq!(found, told.map_err(str::to_owned), "{text}");
        }
    }
}
