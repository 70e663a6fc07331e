//! Names for generated objects: short, readable, and a function of the state that asked for them.
//!
//! Suffixes use Kubernetes' safe alphabet (no vowels, no look-alike digits), so no word appears by accident.

/// Kubernetes' `rand.SafeEncodeString` alphabet.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// FNV-1a over the parts, with a separator so that `["ab","c"]` and `["a","bc"]` differ.
pub fn hash(parts: &[&[u8]]) -> u64 {
    let separated = parts.iter().flat_map(|part| part.iter().chain(&[0xff]));
    weft_api::hash::mixed(weft_api::hash::fnv1a_64(separated.copied()))
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
    let room = 63_usize.saturating_sub(suffix.len() + 1);
    let prefix = &prefix[..prefix.floor_char_boundary(room)];
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
