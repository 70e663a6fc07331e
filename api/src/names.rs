//! Names of generated objects: short, readable, and, where the hash says so, a function of the state that asked for them.
//!
//! Suffixes use Kubernetes' safe alphabet (no vowels, no look-alike digits), so no word appears by accident.

use crate::hash::{fnv1a_64, mixed};

/// Kubernetes' `rand.SafeEncodeString` alphabet.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over the parts, with a separator so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let separated = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
    mixed(fnv1a_64(separated.copied()))
}

/// `length` letters of the safe alphabet for a hash or a random number; at most 13 of them tell two apart.
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
    let room = 63_usize.saturating_sub(suffix.len() + 1);
    let prefix = &prefix[..prefix.floor_char_boundary(room)];
    format!("{}-{suffix}", prefix.trim_end_matches(['-', '.']))
}

/// What `generateName` says of names that were generated from `name`: with a dash, where that leaves it a name
/// (k8s.io/kubernetes `pkg/controller/controller_utils.go`, `getPodsPrefix`).
pub fn generate_prefix(name: &str) -> String {
    const NAME_BYTES_MAX: usize = 253;
    if name.len() < NAME_BYTES_MAX {
        return format!("{name}-");
    }
    name.to_owned()
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
        assert_eq!(generate_prefix("web"), "web-");
        assert_eq!(generate_prefix(&"a".repeat(252)).len(), 253);
        assert_eq!(generate_prefix(&"a".repeat(253)).len(), 253);
    }
}
