//! Addresses and ranges of them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Function, Outcome};
use crate::cel::eval::Error;
use crate::cel::value::Value;

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "ip",
        overloads: &[("string_to_ip", "(string) IP"), ("cidr_ip", "CIDR.() IP")],
        run: |args, _| match args {
            [Value::String(text)] => Ok(Some(Value::Ip(parse_ip(text)?))),
            [Value::Cidr(ip, _)] => Ok(Some(Value::Ip(*ip))),
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
            [Value::String(text)] => {
                let (ip, bits) = parse_cidr(text)?;
                Ok(Some(Value::Cidr(ip, bits)))
            }
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
            [Value::Cidr(net, bits), Value::Ip(ip)] => contains(*net, *bits, *ip),
            [Value::Cidr(net, bits), Value::String(text)] => contains(*net, *bits, parse_ip(text)?),
            _ => Ok(None),
        },
    },
    Function {
        name: "containsCIDR",
        overloads: &[
            ("cidr_contains_cidr_string", "CIDR.(string) bool"),
            ("cidr_contains_cidr", "CIDR.(CIDR) bool"),
        ],
        run: |args, _| {
            let (net, bits, inner, inner_bits) = match args {
                [Value::Cidr(net, bits), Value::Cidr(ip, other)] => (net, *bits, *ip, *other),
                [Value::Cidr(net, bits), Value::String(text)] => {
                    let (ip, other) = parse_cidr(text)?;
                    (net, *bits, ip, other)
                }
                _ => return Ok(None),
            };
            match bits <= inner_bits {
                true => contains(*net, bits, inner),
                false => Ok(Some(Value::Bool(false))),
            }
        },
    },
    Function {
        name: "prefixLength",
        overloads: &[("cidr_prefix_length", "CIDR.() int")],
        run: |args, _| match args {
            [Value::Cidr(_, bits)] => Ok(Some(Value::Int(i64::from(*bits)))),
            _ => Ok(None),
        },
    },
    Function {
        name: "masked",
        overloads: &[("cidr_masked", "CIDR.() CIDR")],
        run: |args, _| match args {
            [Value::Cidr(ip, bits)] => Ok(Some(Value::Cidr(masked(*ip, *bits), *bits))),
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

fn parse_ip(text: &str) -> Result<IpAddr, Error> {
    if let Some((address, zone)) = text.split_once('%')
        && !zone.is_empty()
        && address.parse::<Ipv6Addr>().is_ok()
    {
        let sentence = format!("IP address {text:?} with zone value is not allowed");
        return Err(Error::new(sentence));
    }
    match text.parse() {
        Ok(IpAddr::V6(ip)) if ip.to_ipv4_mapped().is_some() => {
            let sentence = format!("IPv4-mapped IPv6 address {text:?} is not allowed");
            Err(Error::new(sentence))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(Error::new(format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        ))),
    }
}

fn parse_cidr(text: &str) -> Result<(IpAddr, u8), Error> {
    const WORDS: &str = "network address parse error during conversion from string";
    let parsed = text.split_once('/').and_then(|(ip, bits)| {
        let ip: IpAddr = ip.parse().ok()?;
        let plain = !bits.starts_with('+') && (bits == "0" || !bits.starts_with('0'));
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let bits: u8 = bits.parse().ok()?;
        (plain && bits <= longest).then_some((ip, bits))
    });
    match parsed {
        Some((IpAddr::V6(ip), _)) if ip.to_ipv4_mapped().is_some() => Err(Error::new(format!(
            "{WORDS}: IPv4-mapped IPv6 address {text:?} is not allowed"
        ))),
        Some(found) => Ok(found),
        None => Err(Error::new(format!(
            "{WORDS}: {WORDS}: netip.ParsePrefix({text:?})"
        ))),
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(bits.min(32)))
                .unwrap_or(0);
            Ipv4Addr::from(u32::from(ip) & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128 - u32::from(bits.min(128)))
                .unwrap_or(0);
            Ipv6Addr::from(u128::from(ip) & mask).into()
        }
    }
}

fn contains<'a>(net: IpAddr, bits: u8, ip: IpAddr) -> Outcome<'a> {
    let same = net.is_ipv4() == ip.is_ipv4();
    Ok(Some(Value::Bool(
        same && masked(net, bits) == masked(ip, bits),
    )))
}
