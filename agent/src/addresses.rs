//! Pod addresses: which of this node's pod CIDR are given out.
//!
//! Pure bookkeeping. Addresses are virtual, known to the mesh only, so that one that was let go could be reused at once; they
//! are handed out in turn all the same, to keep a late caller of a gone pod from reaching its successor.
//!
//! Invariants: no address is held twice; network, gateway (`.1`) and broadcast addresses are never given.

use std::collections::{HashSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use ipnet::Ipv4Net;

/// A text that is not an IPv4 CIDR of use.
#[derive(Debug, thiserror::Error)]
#[error("\"{cidr}\" is not an IPv4 range such as 10.42.0.0/24")]
pub struct CidrError {
    pub cidr: String,
}

/// The addresses of one node. Taking and letting go cost the same however many are held.
#[derive(Debug)]
pub struct Addresses {
    base: u32,
    size: u32,
    /// The first address that was never given out in turn.
    next: u32,
    /// Addresses that came back, in the order in which they did. Some may have been taken again by preference.
    free: VecDeque<u32>,
    held: HashSet<u32>,
}

impl Addresses {
    /// All of `cidr`, none held.
    ///
    /// # Errors
    /// [`CidrError`] when it is no IPv4 range with room for a pod.
    pub fn new(cidr: &str) -> Result<Self, CidrError> {
        let bad = || CidrError {
            cidr: cidr.to_owned(),
        };
        let range: Ipv4Net = cidr.parse().map_err(|_| bad())?;
        if !(8..=29).contains(&range.prefix_len()) {
            return Err(bad());
        }
        Ok(Self {
            base: range.network().to_bits(),
            size: 1 << (32 - range.prefix_len()),
            next: 2,
            free: VecDeque::new(),
            held: HashSet::new(),
        })
    }

    /// Takes `preferred` if it is free and ours, else the one that has been free for longest; `None` when all are held.
    pub fn allocate(&mut self, preferred: Option<IpAddr>) -> Option<IpAddr> {
        if let Some(IpAddr::V4(wanted)) = preferred
            && let Some(offset) = wanted
                .to_bits()
                .checked_sub(self.base)
                .filter(|offset| (2..self.size - 1).contains(offset))
            && self.held.insert(offset)
        {
            return Some(self.address(offset));
        }
        while let Some(offset) = self.in_turn() {
            if self.held.insert(offset) {
                return Some(self.address(offset));
            }
        }
        None
    }

    /// Fresh addresses first, then those that came back. What is held by preference is skipped once each.
    fn in_turn(&mut self) -> Option<u32> {
        if self.next < self.size - 1 {
            self.next += 1;
            return Some(self.next - 1);
        }
        self.free.pop_front()
    }

    /// Lets an address go.
    pub fn release(&mut self, address: IpAddr) {
        if let IpAddr::V4(address) = address
            && let Some(offset) = address.to_bits().checked_sub(self.base)
            && self.held.remove(&offset)
            // Others will have their turn.
            && offset < self.next
        {
            self.free.push_back(offset);
        }
    }

    fn address(&self, offset: u32) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.base + offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_turn_and_end() {
        let mut addresses = Addresses::new("10.42.3.0/29").expect("a range");
        let kept = addresses.allocate("10.42.3.4".parse().ok());
        let taken: Vec<String> = std::iter::from_fn(|| addresses.allocate(None))
            .map(|ip| ip.to_string())
            .collect();
        assert_eq!(kept.map(|ip| ip.to_string()).as_deref(), Some("10.42.3.4"));
        assert_eq!(taken, ["10.42.3.2", "10.42.3.3", "10.42.3.5", "10.42.3.6"]);
        addresses.release("10.42.3.3".parse().expect("an address"));
        assert_eq!(addresses.allocate(None), "10.42.3.3".parse().ok());
        // Foreign, reserved and held addresses are not what one gets.
        addresses.release("10.42.3.5".parse().expect("an address"));
        assert_eq!(
            addresses.allocate("10.42.3.1".parse().ok()),
            "10.42.3.5".parse().ok()
        );
    }

    #[test]
    fn a_full_node_gives_out_what_came_back_and_each_address_once() {
        let mut addresses = Addresses::new("10.128.0.0/17").expect("a range");
        let all: Vec<IpAddr> = std::iter::from_fn(|| addresses.allocate(None)).collect();
        assert_eq!(all.len(), 32_765, "room for the 20,000 pods of a node");
        let kept = all[7];
        addresses.release(kept);
        addresses.release(kept);
        assert_eq!(addresses.allocate(Some(kept)), Some(kept));
        assert_eq!(addresses.allocate(None), None, "it is held, if once free");
        addresses.release(all[9]);
        addresses.release(all[8]);
        let again: Vec<IpAddr> = std::iter::from_fn(|| addresses.allocate(None)).collect();
        assert_eq!(again, [all[9], all[8]], "the longest free first");
    }

    #[test]
    fn bad_ranges_are_refused() {
        for bad in [
            "",
            "10.42.0.0",
            "10.42.0.0/33",
            "10.42.0.0/30",
            "fd00::/64",
            "x/24",
        ] {
            assert!(Addresses::new(bad).is_err(), "{bad}");
        }
    }
}
