//! Which addresses a call out of the cluster may be connected to. Pure.
//!
//! A name of the outside may lead anywhere, and whoever owns it decides that anew at each question: so it is the address that is judged,
//! and the one that was judged is connected to. What is public passes. What is not, passes where a rule's CIDR holds it. What the cluster
//! itself is, passes where a rule names just that: a rule for `10.0.0.0/8` was not made for the pods that happen to be there.
//!
//! What is special is told by this file alone; who else connects for guests ([`SpecialAddress`], the agent's pulls) says what of it he takes.
//!
//! Sources: IANA's special-purpose registries of IPv4 and IPv6 (RFC 6890 and its successors), RFC 6052 and 8215 (NAT64), RFC 3056 (6to4).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// What an address is that is no public host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialAddress {
    Metadata,
    Unspecified,
    Private,
    Carrier,
    Loopback,
    LinkLocal,
    Protocol,
    Documentation,
    Benchmark,
    Multicast,
    Broadcast,
    Reserved,
    UniqueLocal,
    SiteLocal,
    Translator,
}

use SpecialAddress as Special;

impl SpecialAddress {
    /// `None` for one of a public host. Of an IPv6 address that leads to an IPv4 address (mapped, NAT64, 6to4, …), what that is.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => special_v4(address),
            IpAddr::V6(address) => special_v6(address),
        }
    }

    /// What follows "is" in a sentence.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "the metadata service of a cloud",
            Self::Unspecified => "an unspecified address",
            Self::Private => "a private address",
            Self::Carrier => "an address of a carrier's network",
            Self::Loopback => "a loopback address",
            Self::LinkLocal => "a link-local address",
            Self::Protocol => "an address of a protocol",
            Self::Documentation => "an address for documentation",
            Self::Benchmark => "an address for benchmarks",
            Self::Multicast => "a multicast address",
            Self::Broadcast => "a broadcast address",
            Self::Reserved => "a reserved address",
            Self::UniqueLocal => "a unique-local address",
            Self::SiteLocal => "a site-local address",
            Self::Translator => "an address of a translator",
        }
    }
}

/// Where clouds tell machines their credentials, outside of the link-local range: Alibaba, Azure, Oracle.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same of AWS and Google.
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
];

/// What is no host of the Internet, and what it is instead.
const SPECIAL_V4: [(Ipv4Net, Special); 16] = [
    (v4([0, 0, 0, 0], 8), Special::Unspecified),
    (v4([10, 0, 0, 0], 8), Special::Private),
    (v4([100, 64, 0, 0], 10), Special::Carrier),
    (v4([127, 0, 0, 0], 8), Special::Loopback),
    (v4([169, 254, 0, 0], 16), Special::LinkLocal),
    (v4([172, 16, 0, 0], 12), Special::Private),
    (v4([192, 0, 0, 0], 24), Special::Protocol),
    (v4([192, 0, 2, 0], 24), Special::Documentation),
    (v4([192, 88, 99, 0], 24), Special::Protocol),
    (v4([192, 168, 0, 0], 16), Special::Private),
    (v4([198, 18, 0, 0], 15), Special::Benchmark),
    (v4([198, 51, 100, 0], 24), Special::Documentation),
    (v4([203, 0, 113, 0], 24), Special::Documentation),
    (v4([224, 0, 0, 0], 4), Special::Multicast),
    (v4([255, 255, 255, 255], 32), Special::Broadcast),
    (v4([240, 0, 0, 0], 4), Special::Reserved),
];

/// Outside of it nothing is public.
const PUBLIC_V6: Ipv6Net = v6([0x2000, 0], 3);

/// What is none within it.
const SPECIAL_V6: [(Ipv6Net, Special); 3] = [
    // Teredo, ORCHID, benchmarks and more of the kind.
    (v6([0x2001, 0], 23), Special::Protocol),
    (v6([0x2001, 0xdb8], 32), Special::Documentation),
    (v6([0x3fff, 0], 20), Special::Documentation),
];

/// What it is called outside of [`PUBLIC_V6`].
const LOCAL_V6: [(Ipv6Net, Special); 5] = [
    (v6([0xfc00, 0], 7), Special::UniqueLocal),
    (v6([0xfe80, 0], 10), Special::LinkLocal),
    (v6([0xfec0, 0], 10), Special::SiteLocal),
    (v6([0xff00, 0], 8), Special::Multicast),
    (v6([0x64, 0xff9b], 32), Special::Translator),
];

const fn v4(octets: [u8; 4], bits: u8) -> Ipv4Net {
    Ipv4Net::new_assert(
        Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]),
        bits,
    )
}

const fn v6(head: [u16; 2], bits: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(head[0], head[1], 0, 0, 0, 0, 0, 0), bits)
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    if METADATA_V4.contains(&address) {
        return Some(Special::Metadata);
    }
    let mut nets = SPECIAL_V4.iter();
    nets.find(|(net, _)| net.contains(&address))
        .map(|(_, what)| *what)
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    if METADATA_V6.contains(&address) {
        return Some(Special::Metadata);
    }
    if address.is_unspecified() {
        return Some(Special::Unspecified);
    }
    if address.is_loopback() {
        return Some(Special::Loopback);
    }
    if let Some(embedded) = embedded_v4(address) {
        let what = special_v4(embedded);
        // What a node without IPv4 reaches all others by, and what 6to4 has given to everybody with an address.
        let is_public = matches!(
            address.segments(),
            [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x2002, ..]
        );
        if what.is_some() || is_public {
            return what;
        }
    }
    let named = |nets: &[(Ipv6Net, Special)]| {
        let mut nets = nets.iter();
        nets.find(|(net, _)| net.contains(&address))
            .map(|(_, what)| *what)
    };
    if !PUBLIC_V6.contains(&address) {
        return named(&LOCAL_V6).or(Some(Special::Reserved));
    }
    named(&SPECIAL_V6)
}

/// Where an address leads, if a translator makes another one of it.
pub(crate) fn translated(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => embedded_v4(address).map(IpAddr::V4),
    }
}

/// Whether nobody is called at an address, whatever a rule says: to connect to `0.0.0.0` is to connect to this machine.
pub(crate) fn is_no_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            address.octets()[0] == 0 || address.is_multicast() || address.is_broadcast()
        }
        IpAddr::V6(address) => address.is_unspecified() || address.is_multicast(),
    }
}

/// The IPv4 address that an IPv6 address leads to where somebody translates: compatible, translated (RFC 2765), NAT64 and 6to4. A mapped
/// one is an IPv4 address already.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        _ if address.is_loopback() || address.is_unspecified() => None,
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

/// Addresses that belong to the cluster: its nodes, API servers, pods and Services. Calls from within reach them by their names, and not
/// from outside in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnAddresses {
    nets: Vec<(IpNet, &'static str)>,
}

impl OwnAddresses {
    /// Adds a network; `what` it is follows "is" in a sentence, such as `an address of a node`.
    pub fn add(&mut self, net: IpNet, what: &'static str) {
        if !self.nets.contains(&(net, what)) {
            self.nets.push((net, what));
        }
    }

    /// The smallest network that holds `address`.
    pub(crate) fn holds(&self, address: IpAddr) -> Option<(IpNet, &'static str)> {
        let holding = self.nets.iter().filter(|(net, _)| net.contains(&address));
        holding.max_by_key(|(net, _)| net.prefix_len()).copied()
    }
}

/// An address that a call may not be connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) address: IpAddr,
    pub(crate) what: &'static str,
}

impl Refused {
    /// The CIDR that would let it pass.
    pub(crate) fn cidr(&self) -> IpNet {
        IpNet::from(self.address.to_canonical())
    }
}

/// Judges an address for a call that rules with these CIDRs allow. `own` is the network of the cluster's that holds it, if one does.
pub(crate) fn judge<'c>(
    address: IpAddr,
    own: Option<(IpNet, &'static str)>,
    mut cidrs: impl Iterator<Item = &'c IpNet>,
) -> Result<(), Refused> {
    let canonical = address.to_canonical();
    let refuse = |what| Err(Refused { address, what });
    match (own, SpecialAddress::of(address)) {
        (Some((net, what)), _) => {
            if cidrs.any(|cidr| cidr.contains(&canonical) && net.contains(cidr)) {
                Ok(())
            } else {
                refuse(what)
            }
        }
        (None, Some(special)) => {
            if cidrs.any(|cidr| cidr.contains(&canonical)) {
                Ok(())
            } else {
                refuse(special.as_str())
            }
        }
        (None, None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_hosts_of_the_internet_are_public() {
        for (text, expected) in [
            ("140.82.112.34", None),
            ("1.1.1.1", None),
            ("9.255.255.255", None),
            ("11.0.0.0", None),
            ("100.63.255.255", None),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.32.0.0", None),
            ("223.255.255.255", None),
            ("0.0.0.0", Some("an unspecified address")),
            ("0.1.2.3", Some("an unspecified address")),
            ("10.0.0.7", Some("a private address")),
            ("172.16.0.1", Some("a private address")),
            ("172.31.255.255", Some("a private address")),
            ("192.168.1.1", Some("a private address")),
            ("100.64.0.1", Some("an address of a carrier's network")),
            ("100.127.255.255", Some("an address of a carrier's network")),
            ("100.100.100.200", Some("the metadata service of a cloud")),
            ("168.63.129.16", Some("the metadata service of a cloud")),
            ("192.0.0.192", Some("the metadata service of a cloud")),
            ("127.0.0.1", Some("a loopback address")),
            ("127.8.9.1", Some("a loopback address")),
            ("169.254.169.254", Some("a link-local address")),
            ("192.0.0.8", Some("an address of a protocol")),
            ("192.0.2.1", Some("an address for documentation")),
            ("198.51.100.1", Some("an address for documentation")),
            ("203.0.113.1", Some("an address for documentation")),
            ("192.88.99.1", Some("an address of a protocol")),
            ("198.19.0.1", Some("an address for benchmarks")),
            ("224.0.0.1", Some("a multicast address")),
            ("239.255.255.255", Some("a multicast address")),
            ("240.0.0.1", Some("a reserved address")),
            ("255.255.255.255", Some("a broadcast address")),
            ("2606:50c0:8000::154", None),
            ("2a00:1450:4001::1", None),
            ("::", Some("an unspecified address")),
            ("::1", Some("a loopback address")),
            ("::ffff:127.0.0.1", Some("a loopback address")),
            ("::ffff:169.254.169.254", Some("a link-local address")),
            ("::ffff:10.0.0.7", Some("a private address")),
            ("::ffff:140.82.112.34", None),
            ("::127.0.0.1", Some("a loopback address")),
            ("::140.82.112.34", Some("a reserved address")),
            ("::ffff:0:169.254.169.254", Some("a link-local address")),
            ("::ffff:0:140.82.112.34", Some("a reserved address")),
            ("64:ff9b::7f00:1", Some("a loopback address")),
            ("64:ff9b::a9fe:a9fe", Some("a link-local address")),
            ("64:ff9b::a00:7", Some("a private address")),
            // What a node without IPv4 reaches all others by.
            ("64:ff9b::8c52:7022", None),
            ("64:ff9b:1::a9fe:a9fe", Some("a link-local address")),
            ("64:ff9b:1::8c52:7022", Some("an address of a translator")),
            ("2002:7f00:1::1", Some("a loopback address")),
            ("2002:a00:1::1", Some("a private address")),
            ("2002:8c52:7022::1", None),
            ("2001:0:53aa:64c::1", Some("an address of a protocol")),
            ("2001:db8::1", Some("an address for documentation")),
            ("3fff::1", Some("an address for documentation")),
            ("100::1", Some("a reserved address")),
            ("5f00::1", Some("a reserved address")),
            ("4000::1", Some("a reserved address")),
            ("fd00::7", Some("a unique-local address")),
            ("fc00::7", Some("a unique-local address")),
            ("fd00:ec2::254", Some("the metadata service of a cloud")),
            ("fd20:ce::254", Some("the metadata service of a cloud")),
            ("fe80::1", Some("a link-local address")),
            ("febf::1", Some("a link-local address")),
            ("fec0::1", Some("a site-local address")),
            ("ff02::1", Some("a multicast address")),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            let found = SpecialAddress::of(address).map(SpecialAddress::as_str);
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn nobody_is_called_where_nobody_can_be() {
        for (text, expected) in [
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("::", true),
            ("::ffff:0.0.0.0", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("ff02::1", true),
            ("127.0.0.1", false),
            ("10.0.0.7", false),
            ("::1", false),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(is_no_host(address), expected, "{text}");
        }
        let translated = |text: &str| translated(text.parse().expect("an address"));
        assert_eq!(
            translated("64:ff9b::a00:7"),
            Some(IpAddr::from([10, 0, 0, 7]))
        );
        assert_eq!(
            translated("2002:a00:7::1"),
            Some(IpAddr::from([10, 0, 0, 7]))
        );
        assert_eq!(translated("2606:50c0::1"), None);
    }

    #[test]
    fn what_is_not_public_passes_where_a_rule_names_it() {
        let mut own = OwnAddresses::default();
        for (net, what) in [
            ("10.42.0.0/16", "an address of a pod"),
            ("10.42.3.0/24", "an address of a pod"),
            ("127.0.0.1/32", "an address of a node"),
            ("198.200.0.7/32", "an address of a node"),
        ] {
            own.add(net.parse().expect("a CIDR"), what);
        }
        for (text, cidrs, expected) in [
            ("140.82.112.34", &[][..], None),
            ("10.0.0.7", &[], Some("a private address")),
            ("10.0.0.7", &["192.168.0.0/16"], Some("a private address")),
            ("10.0.0.7", &["192.168.0.0/16", "10.0.0.0/8"], None),
            ("169.254.169.254", &[], Some("a link-local address")),
            ("169.254.169.254", &["169.254.169.254/32"], None),
            ("fd00::7", &["fd00::/8"], None),
            ("fd00::7", &["0.0.0.0/0"], Some("a unique-local address")),
            // A mapped address is the one that it is connected to.
            ("::ffff:10.0.0.7", &["10.0.0.0/8"], None),
            ("::ffff:10.0.0.7", &["::/0"], Some("a private address")),
            // Of one that a translator makes the other end of, the address itself has to be named.
            ("64:ff9b::a00:7", &["10.0.0.0/8"], Some("a private address")),
            ("64:ff9b::a00:7", &["64:ff9b::a00:7/128"], None),
            // The cluster's own are meant only where nothing else can be.
            ("10.42.1.5", &["10.0.0.0/8"], Some("an address of a pod")),
            ("10.42.1.5", &["10.42.0.0/16"], None),
            ("10.42.1.5", &["10.42.1.5/32"], None),
            ("10.42.3.5", &["10.42.0.0/16"], Some("an address of a pod")),
            ("10.42.3.5", &["10.42.3.0/24"], None),
            ("127.0.0.1", &["127.0.0.0/8"], Some("an address of a node")),
            ("127.0.0.1", &["127.0.0.1/32"], None),
            ("127.0.0.2", &["127.0.0.0/8"], None),
            // Though it be public.
            ("198.200.0.7", &[], Some("an address of a node")),
            ("198.200.0.7", &["0.0.0.0/0"], Some("an address of a node")),
            ("198.200.0.7", &["198.200.0.7/32"], None),
        ] {
            let address: IpAddr = text.parse().expect("an address");
            let cidrs: Vec<IpNet> = cidrs
                .iter()
                .map(|cidr| cidr.parse().expect("a CIDR"))
                .collect();
            let found = judge(address, own.holds(address.to_canonical()), cidrs.iter());
            let found = found.err().map(|refused| refused.what);
            assert_eq!(found, expected, "{text} with {cidrs:?}");
        }
        let refused = Refused {
            address: "::ffff:10.0.0.7".parse().expect("an address"),
            what: "",
        };
        assert_eq!(refused.cidr().to_string(), "10.0.0.7/32");
    }
}
