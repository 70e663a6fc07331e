//! Addresses and ranges of addresses as Kubernetes takes them: which spellings are refused, and which are taken with a remark.
//!
//! Go once read `010.0.0.1` as `10.0.0.1`, which others read as `8.0.0.1`; what it would have read is told apart from what is
//! no address at all. After k8s.io/apimachinery `pkg/util/validation/ip.go`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

const NO_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const NO_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// An address, with zeros before its numbers or not.
pub(crate) fn loose(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(|address| {
            // Go has one form for both.
            address
                .to_ipv4_mapped()
                .map_or(IpAddr::V6(address), IpAddr::V4)
        });
    }
    let mut octets = [0; 4];
    let mut parts = text.split('.');
    for octet in &mut octets {
        let part = parts.next()?;
        if part.is_empty() || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        *octet = number(part)?;
    }
    let whole = parts.next().is_none();
    whole.then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}

/// Decimal digits, with zeros before them or not.
fn number(digits: &str) -> Option<u8> {
    match digits.trim_start_matches('0') {
        "" => Some(0),
        digits => digits.parse().ok(),
    }
}

/// A range as [`loose`] reads addresses: the address that was written, and how many of its bits count.
fn loose_range(text: &str) -> Option<(IpAddr, IpNet)> {
    let (address, length) = text.split_once('/')?;
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let length = number(length)?;
    let parsed = loose(address)?;
    // The prefix of a mapped address is counted in its long form.
    let mapped = parsed.is_ipv4() && address.contains(':');
    let bits = if mapped {
        length.checked_sub(96)?
    } else {
        length
    };
    let range = IpNet::new(parsed, bits).ok()?;
    Some((parsed, range))
}

/// Of an address in a field that took loose ones once.
pub(crate) fn address_faults(text: &str) -> Vec<String> {
    if loose(text).is_none() {
        return vec![NO_ADDRESS.to_owned()];
    }
    match text.parse::<IpAddr>() {
        Err(_) => vec!["must not have leading 0s".to_owned()],
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            vec!["must not be an IPv4-mapped IPv6 address".to_owned()]
        }
        Ok(_) => Vec::new(),
    }
}

/// Of an address that has one spelling only.
pub(crate) fn canonical_address_faults(text: &str) -> Vec<String> {
    let mut faults = address_faults(text);
    if let Some(address) = loose(text).filter(|_| faults.is_empty()) {
        let canonical = address.to_string();
        if canonical != text {
            faults.push(format!("must be in canonical form ({canonical:?})"));
        }
    }
    faults
}

/// Of a range in a field that took loose ones once.
pub(crate) fn range_faults(text: &str) -> Vec<String> {
    if loose_range(text).is_none() {
        return vec![NO_RANGE.to_owned()];
    }
    let sentence = match strict_range(text) {
        None => "must not have leading 0s in IP or prefix length",
        Some(range) if is_mapped(range.addr()) => "must not have an IPv4-mapped IPv6 address",
        Some(range) if range.addr() != range.network() => {
            "must not have bits set beyond the prefix length"
        }
        Some(_) => return Vec::new(),
    };
    vec![sentence.to_owned()]
}

fn strict_range(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let padded = length.len() > 1 && length.starts_with('0');
    let address: IpAddr = address.parse().ok()?;
    let length = length.parse().ok().filter(|_| !padded)?;
    IpNet::new(address, length).ok()
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

/// Of a range that has one spelling only.
pub(crate) fn canonical_range_faults(text: &str) -> Vec<String> {
    let mut faults = range_faults(text);
    if let Some((_, range)) = loose_range(text).filter(|_| faults.is_empty()) {
        let canonical = range.trunc().to_string();
        if canonical != text {
            faults.push(format!("must be in canonical form ({canonical:?})"));
        }
    }
    faults
}

/// The range, however it is spelled.
pub(crate) fn range(text: &str) -> Option<IpNet> {
    loose_range(text).map(|(_, range)| range.trunc())
}

/// What is told of an address that is taken and spelled as no other is.
pub(crate) fn remark_on_address(path: &str, text: &str) -> Option<String> {
    let address = loose(text)?;
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(strict)) if strict.to_ipv4_mapped().is_none() => {
            let canonical = strict.to_string();
            (canonical != text).then(|| {
                format!(
                    "{path}: IPv6 address {text:?} should be in RFC 5952 canonical format ({canonical:?})"
                )
            })
        }
        Ok(IpAddr::V4(_)) => None,
        _ => Some(format!(
            "{path}: non-standard IP address {text:?} is invalid: use {:?}",
            address.to_string()
        )),
    }
}

/// What is told of a range that is taken: how it could be misread.
pub(crate) fn remarks_on_range(path: &str, text: &str) -> Vec<String> {
    let Some((address, range)) = loose_range(text) else {
        return Vec::new();
    };
    let network = range.trunc().to_string();
    let mut told = Vec::new();
    if address != range.network() {
        let single = format!("{address}/{}", range.max_prefix_len());
        told.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be {network:?} or {single:?}?)"
        ));
    }
    match strict_range(text) {
        Some(strict) if !is_mapped(strict.addr()) => {
            let canonical = strict.to_string();
            if told.is_empty() && address.is_ipv6() && canonical != text {
                told.push(format!(
                    "{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format ({canonical:?})"
                ));
            }
        }
        _ => told.push(format!(
            "{path}: non-standard CIDR value {text:?} is invalid: use {network:?}"
        )),
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_told_apart() {
        for (text, expected) in [
            ("10.0.0.1", ""),
            ("::1", ""),
            ("010.0.0.1", "must not have leading 0s"),
            ("::ffff:1.2.3.4", "must not be an IPv4-mapped IPv6 address"),
            ("2001:DB8::1", "must be in canonical form (\"2001:db8::1\")"),
            ("10.0.0", NO_ADDRESS),
            ("10.0.0.256", NO_ADDRESS),
            ("10.0.0.1.2", NO_ADDRESS),
            ("", NO_ADDRESS),
        ] {
            assert_eq!(
                canonical_address_faults(text).join("; "),
                expected,
                "{text}"
            );
        }
        for (text, expected) in [
            ("10.0.0.0/8", ""),
            ("2001:db8::/32", ""),
            (
                "10.0.0.1/8",
                "must not have bits set beyond the prefix length",
            ),
            (
                "010.0.0.0/8",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "10.0.0.0/08",
                "must not have leading 0s in IP or prefix length",
            ),
            (
                "::ffff:1.2.3.0/120",
                "must not have an IPv4-mapped IPv6 address",
            ),
            (
                "2001:DB8::/32",
                "must be in canonical form (\"2001:db8::/32\")",
            ),
            ("10.0.0.0/33", NO_RANGE),
            ("10.0.0.0", NO_RANGE),
            ("10.0.0.0/", NO_RANGE),
        ] {
            assert_eq!(canonical_range_faults(text).join("; "), expected, "{text}");
        }
    }

    #[test]
    fn what_could_be_misread_is_remarked_on() {
        for (text, expected) in [
            ("10.0.0.1", None),
            ("2001:db8::1", None),
            (
                "010.0.0.1",
                Some("f: non-standard IP address \"010.0.0.1\" is invalid: use \"10.0.0.1\""),
            ),
            (
                "2001:DB8::1",
                Some(
                    "f: IPv6 address \"2001:DB8::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                ),
            ),
            ("x", None),
        ] {
            assert_eq!(remark_on_address("f", text).as_deref(), expected);
        }
        assert_eq!(
            remarks_on_range("f", "10.0.0.1/8"),
            [
                "f: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)"
            ]
        );
        assert_eq!(
            remarks_on_range("f", "2001:DB8::/32"),
            [
                "f: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")"
            ]
        );
        assert_eq!(remarks_on_range("f", "10.0.0.0/8"), [""; 0]);
    }
}
