//! Names for generated objects: short, readable, and a function of the state that asked for them.
//!
//! Suffixes use Kubernetes' safe alphabet (no vowels, no look-alike digits), so no word appears by accident.

/// Kubernetes' `rand.SafeEncodeString` alphabet.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over the parts, with a separator so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.iter().chain(std::iter::once(&0xff)) {
            state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    // FNV's high bits mix poorly on short input; the finaliser of SplitMix64 spreads them.
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

/// `length` letters of the safe alphabet, at most 13 of them carrying entropy.
pub fn suffix(mut hash: u64, length: usize) -> String {
    let base = ALPHABET.len() as u64;
    (0..length)
        .map(|_| {
            let letter = ALPHABET[(hash % base) as usize];
            hash /= base;
            char::from(letter)
        })
        .collect()
}

/// `{prefix}-{suffix}`, the prefix cut so that the whole fits a DNS label (63 bytes).
///
/// Kubernetes cuts generated names the same way, at 58 bytes before a five-letter suffix.
pub fn generated(prefix: &str, suffix: &str) -> String {
    let room = 63 - suffix.len() - 1;
    let prefix = prefix.get(..room.min(prefix.len())).unwrap_or(prefix);
    format!("{}-{suffix}", prefix.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_stable_and_safe() {
        let a = suffix(hash(&[b"uid", b"1"]), 5);
        assert_eq!(a, suffix(hash(&[b"uid", b"1"]), 5));
        assert_ne!(a, suffix(hash(&[b"uid", b"2"]), 5));
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert!(a.bytes().all(|letter| ALPHABET.contains(&letter)));
        assert_eq!(generated("web", "x2"), "web-x2");
        assert_eq!(generated(&"a".repeat(80), "bcdfg").len(), 63);
    }
}
