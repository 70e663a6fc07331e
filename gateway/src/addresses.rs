//! Which address each Gateway has, of ranges that the nodes answer for. Pure.
//!
//! An address is found by the Gateway's name, so that nodes and controllers agree without having been told: it is where its name falls in
//! the range, or the next that no older Gateway has. Who names an address of the range has that one, if it is the oldest to do so; who names
//! none has one of IPv4 and one of IPv6, as far as there are ranges of both.
//!
//! Invariant: no two Gateways have one address, in whichever form it is written; equal objects give equal addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use crate::api::Gateway;
use crate::name::NamespacedName;

/// Addresses of a range that are used at most; of IPv6 the first.
const USED_MAX: u32 = 1 << 20;
/// How many are tried for one Gateway.
const TRIES_MAX: u32 = 4096;

/// The ranges that nodes have, and what of them Services have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pool {
    ranges: BTreeSet<IpNet>,
    taken: BTreeSet<IpAddr>,
}

/// What each Gateway has.
pub(crate) type Given<'o> = BTreeMap<&'o NamespacedName, Vec<IpAddr>>;

impl Pool {
    pub(crate) fn new(
        ranges: impl Iterator<Item = IpNet>,
        taken: impl Iterator<Item = IpAddr>,
    ) -> Self {
        Self {
            ranges: ranges.map(|range| range.trunc()).collect(),
            taken: taken.map(|address| address.to_canonical()).collect(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Whether the address can be a Gateway's.
    fn has(&self, address: IpAddr) -> bool {
        let mut ranges = self.ranges.iter();
        ranges.any(|range| {
            let is_edge = address == range.network() || address == range.broadcast();
            range.contains(&address) && !is_edge
        })
    }

    /// Gives each of `gateways` its addresses; nothing where there is no range.
    pub(crate) fn give<'o>(&self, gateways: impl Iterator<Item = &'o Arc<Gateway>>) -> Given<'o> {
        let mut given = Given::new();
        if self.is_empty() {
            return given;
        }
        let mut gateways: Vec<&'o Arc<Gateway>> = gateways.collect();
        gateways.sort_by_key(|gateway| (gateway.metadata.created, &gateway.metadata.name));
        let mut taken = self.taken.clone();
        for gateway in &gateways {
            let asked = named(gateway).filter(|address| self.has(*address));
            let asked: Vec<IpAddr> = asked.filter(|address| taken.insert(*address)).collect();
            if !asked.is_empty() {
                given.insert(&gateway.metadata.name, asked);
            }
        }
        for gateway in gateways {
            // Who named one that he cannot have is not given another.
            if named(gateway).next().is_some() {
                continue;
            }
            let name = &gateway.metadata.name;
            let mut own = Vec::new();
            for is_ipv6 in [false, true] {
                let of_family = |range: &&IpNet| range.network().is_ipv6() == is_ipv6;
                let mut ranges = self.ranges.iter().filter(of_family);
                if let Some(address) = ranges.find_map(|range| free(*range, name, &taken)) {
                    taken.insert(address);
                    own.push(address);
                }
            }
            if !own.is_empty() {
                given.insert(name, own);
            }
        }
        given
    }
}

/// The addresses that a Gateway asks for.
fn named(gateway: &Gateway) -> impl Iterator<Item = IpAddr> {
    let values = gateway.spec.addresses.iter();
    values.filter_map(|address| parsed(address.value.as_deref()?))
}

/// An address as it is compared: `::ffff:192.0.2.1` is `192.0.2.1`.
pub(crate) fn parsed(text: &str) -> Option<IpAddr> {
    text.parse()
        .ok()
        .map(|address: IpAddr| address.to_canonical())
}

fn free(range: IpNet, name: &NamespacedName, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let bits = u32::from(range.max_prefix_len() - range.prefix_len());
    // Without the first and the last, which are a network's own.
    let count = 1_u32.checked_shl(bits).unwrap_or(USED_MAX).min(USED_MAX);
    let count = count.checked_sub(2).filter(|count| *count > 0)?;
    let start = (hash(name) % u64::from(count)) as u32;
    let tries = 0..count.min(TRIES_MAX);
    let mut found = tries.map(|step| nth(range, 1 + (start + step) % count));
    found.find(|address| !taken.contains(address))
}

fn nth(range: IpNet, index: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(first) => Ipv4Addr::from(u32::from(first).wrapping_add(index)).into(),
        IpAddr::V6(first) => Ipv6Addr::from(u128::from(first).wrapping_add(index.into())).into(),
    }
}

/// FNV-1a: the same everywhere and for ever.
fn hash(name: &NamespacedName) -> u64 {
    let text = name.to_string();
    let bytes = text.bytes();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{GatewayAddress, GatewaySpec, Metadata};

    fn gateway(name: &str, created: i64, asked: Option<&str>) -> Arc<Gateway> {
        let addresses = asked.map(|value| GatewayAddress {
            kind: None,
            value: Some(value.to_owned()),
        });
        Arc::new(Gateway {
            metadata: Metadata {
                name: NamespacedName::new("shop", name),
                created,
            },
            spec: GatewaySpec {
                addresses: addresses.into_iter().collect(),
                ..GatewaySpec::default()
            },
        })
    }

    fn pool(range: &str) -> Pool {
        Pool::new(range.parse().into_iter(), std::iter::empty())
    }

    #[test]
    fn each_has_its_own_and_keeps_it_when_others_come() {
        let pool = pool("127.66.0.0/29");
        let all: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"]
            .iter()
            .zip(0..)
            .map(|(name, created)| gateway(name, created, None))
            .collect();
        let given = pool.give(all.iter());
        let addresses: BTreeSet<_> = given.values().flatten().collect();
        assert_eq!((given.len(), addresses.len()), (6, 6), "six of eight");
        let fewer = pool.give(all.iter().take(3));
        for (name, addresses) in &fewer {
            assert_eq!(given.get(name), Some(addresses), "{name}");
        }
    }

    #[test]
    fn each_has_one_of_both_families_where_there_are_ranges_of_both() {
        let ranges = ["2001:db8:7::/112", "127.66.0.0/24", "2001:db8:8::/112"];
        let ranges = ranges.into_iter().filter_map(|range| range.parse().ok());
        let pool = Pool::new(ranges, std::iter::empty());
        let all = [
            gateway("any", 1, None),
            gateway("named", 2, Some("2001:DB8:7:0::9")),
            gateway("mapped", 3, Some("::ffff:127.66.0.9")),
            // The router's of its network, as others mean it.
            gateway("edge", 4, Some("2001:db8:7::")),
        ];
        let given = pool.give(all.iter());
        let any = &given[&NamespacedName::new("shop", "any")];
        let families: Vec<bool> = any.iter().map(IpAddr::is_ipv6).collect();
        assert_eq!(families, [false, true]);
        let named = |name: &str| given.get(&NamespacedName::new("shop", name)).cloned();
        let of = |text: &str| Some(vec![text.parse().expect("an address")]);
        assert_eq!(named("named"), of("2001:db8:7::9"));
        assert_eq!(named("mapped"), of("127.66.0.9"));
        assert_eq!(named("edge"), None);
    }

    #[test]
    fn who_names_an_address_has_it_or_none() {
        let pool = pool("127.66.0.0/24");
        let all = [
            gateway("second", 2, Some("127.66.0.9")),
            gateway("first", 1, Some("127.66.0.9")),
            gateway("edge", 1, Some("127.66.0.255")),
            gateway("other", 0, Some("192.0.2.1")),
        ];
        let given = pool.give(all.iter());
        let told: Vec<String> = given
            .iter()
            .map(|(name, addresses)| format!("{name} {addresses:?}"))
            .collect();
        assert_eq!(told, ["shop/first [127.66.0.9]"]);
        assert!(Pool::default().give(all.iter()).is_empty());
    }
}
