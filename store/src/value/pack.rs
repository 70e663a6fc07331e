//! LZ4 blocks against a dictionary, for values that are short beside it.
//!
//! lz4_flex indexes the dictionary anew for each block, which takes longer than the block of an object of a kilobyte or two. Here
//! the index is made once, and only what the block itself repeats is indexed while it is packed.
//!
//! Invariants: what [`Packer::pack`] makes is a block that every LZ4 decoder with the same dictionary unpacks.
//! Left to others: unpacking, and inputs longer than [`Packer::takes`], both by lz4_flex.

/// The shortest match.
const MATCH_MIN: usize = 4;
/// A block ends with so many literals at least, and its last match begins so far before its end at least.
const LITERALS_LAST: usize = 5;
const MATCH_BEGIN_LAST: usize = 12;
/// A match may lie so far back.
const DISTANCE_MAX: usize = 65_535;

/// Places for the dictionary's positions: more than it has bytes, so that few displace each other.
const DICTIONARY_BITS: u32 = 14;
/// Places for the input's: cleared for each block, so no more than a block of some kilobytes fills.
const INPUT_BITS: u32 = 11;
/// Misses after which every second position is looked at, twice as many for every third, and so on: noise is passed over.
const PATIENCE_BITS: u32 = 5;

/// A dictionary and where its sequences are.
pub(super) struct Packer {
    dictionary: &'static [u8],
    /// Positions plus one; 0 where there is none.
    index: Vec<u16>,
}

fn sequence(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*four))
}

fn place(sequence: u32, bits: u32) -> usize {
    // Knuth's multiplicative hash, as in every LZ4.
    (sequence.wrapping_mul(2_654_435_761) >> (32 - bits)) as usize
}

/// How many bytes two texts have in common at their beginnings.
fn common(one: &[u8], other: &[u8]) -> usize {
    let length = one.len().min(other.len());
    let mut same = 0;
    while let (Some(a), Some(b)) = (
        one.get(same..).and_then(<[u8]>::first_chunk::<8>),
        other.get(same..).and_then(<[u8]>::first_chunk::<8>),
    ) {
        let different = u64::from_le_bytes(*a) ^ u64::from_le_bytes(*b);
        if different != 0 {
            return same + different.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    while same < length && one[same] == other[same] {
        same += 1;
    }
    same
}

/// A length's part behind its four bits of the token.
fn push_rest(length: usize, out: &mut Vec<u8>) {
    let Some(mut rest) = length.checked_sub(15) else {
        return;
    };
    while rest >= 255 {
        out.push(255);
        rest -= 255;
    }
    out.push(rest as u8);
}

fn push_literals(literals: &[u8], token: u8, out: &mut Vec<u8>) {
    out.push(((literals.len().min(15) as u8) << 4) | token);
    push_rest(literals.len(), out);
    out.extend_from_slice(literals);
}

/// Where the input goes on as something before it did.
struct Match {
    /// In the input.
    at: usize,
    distance: usize,
    length: usize,
}

impl Packer {
    pub(super) fn new(dictionary: &'static [u8]) -> Packer {
        let mut index = vec![0; 1 << DICTIONARY_BITS];
        for at in 0..dictionary.len() {
            if let (Some(sequence), Ok(position)) =
                (sequence(dictionary, at), u16::try_from(at + 1))
            {
                index[place(sequence, DICTIONARY_BITS)] = position;
            }
        }
        Packer { dictionary, index }
    }

    /// Whether an input is short enough: all of it and of the dictionary within a match's reach.
    pub(super) fn takes(&self, input: &[u8]) -> bool {
        self.dictionary.len() + input.len() < DISTANCE_MAX
    }

    /// Packs an input that it [takes](Packer::takes).
    pub(super) fn pack(&self, input: &[u8]) -> Vec<u8> {
        debug_assert!(self.takes(input));
        let mut out = Vec::with_capacity(input.len() / 2 + 16);
        // Positions plus one, as the dictionary's.
        let mut seen = [0_u16; 1 << INPUT_BITS];
        let (mut at, mut done, mut misses) = (0, 0, 0_u32);
        while at + MATCH_BEGIN_LAST <= input.len()
            && let Some(sequence) = sequence(input, at)
        {
            let before = &mut seen[place(sequence, INPUT_BITS)];
            let candidate = usize::from(*before).checked_sub(1);
            *before = (at + 1) as u16;
            let own = candidate.map(|from| extend(input, done, at, input, from, at - from));
            let word = usize::from(self.index[place(sequence, DICTIONARY_BITS)]).checked_sub(1);
            let word = word.map(|from| {
                let distance = self.dictionary.len() - from + at;
                extend(input, done, at, self.dictionary, from, distance)
            });
            let longest = own.into_iter().chain(word).max_by_key(|found| found.length);
            let Some(found) = longest.filter(|found| found.length >= MATCH_MIN) else {
                misses += 1;
                at += 1 + (misses >> PATIENCE_BITS) as usize;
                continue;
            };
            misses = 0;
            let length = found.length - MATCH_MIN;
            push_literals(&input[done..found.at], length.min(15) as u8, &mut out);
            out.extend_from_slice(&(found.distance as u16).to_le_bytes());
            push_rest(length, &mut out);
            at = found.at + found.length;
            done = at;
            // One position within the match, as others do: what follows a repetition is often repeated as well.
            if let Some(sequence) = self::sequence(input, at - 2) {
                seen[place(sequence, INPUT_BITS)] = (at - 1) as u16;
            }
        }
        push_literals(&input[done..], 0, &mut out);
        out
    }
}

/// How far the input at a position and `from` in an earlier text are alike, forwards and back to what is packed already.
fn extend(
    input: &[u8],
    done: usize,
    at: usize,
    text: &[u8],
    from: usize,
    distance: usize,
) -> Match {
    let end = input.len() - LITERALS_LAST;
    let after = common(&input[at..end], &text[from..]);
    if after < MATCH_MIN {
        return Match {
            at,
            distance,
            length: 0,
        };
    }
    let behind = input[done..at].iter().rev().zip(text[..from].iter().rev());
    let before = behind.take_while(|(one, other)| one == other).count();
    Match {
        at: at - before,
        distance,
        length: before + after,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    static DICTIONARY: &[u8] =
        br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"shop"},"spec":{}}"#;

    fn unpacked(packed: &[u8], length: usize) -> Vec<u8> {
        lz4_flex::block::decompress_with_dict(packed, length, DICTIONARY).expect("a block")
    }

    #[test]
    fn edges_of_a_block_are_where_every_decoder_expects_them() {
        let packer = Packer::new(DICTIONARY);
        // Around the lengths at which a match is allowed, a token overflows, and a length takes another byte.
        for length in (0..40).chain(255..300).chain(530..560) {
            for text in [vec![b'a'; length], DICTIONARY.repeat(8)[..length].to_vec()] {
                let packed = packer.pack(&text);
                assert_eq!(unpacked(&packed, length), text, "{length}");
            }
        }
        // The whole dictionary, and a part up to its end.
        for text in [DICTIONARY.repeat(2), DICTIONARY[20..].to_vec()] {
            assert_eq!(unpacked(&packer.pack(&text), text.len()), text);
        }
        let noise: Vec<u8> = (0..40_000_u32)
            .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        let packed = packer.pack(&noise);
        assert_eq!(unpacked(&packed, noise.len()), noise);
        assert!(packer.takes(&noise) && !packer.takes(&[0; 65_500]));
    }

    proptest! {
        #[test]
        fn what_is_packed_is_unpacked_by_another(
            parts in proptest::collection::vec(
                prop_oneof![
                    proptest::collection::vec(any::<u8>(), 0..30),
                    (0..90_usize, 0..90_usize).prop_map(|(from, to)| {
                        let length = DICTIONARY.len();
                        let (from, to) = (from.min(length), to.min(length));
                        DICTIONARY[from.min(to)..from.max(to)].to_vec()
                    }),
                    "[ab]{0,20}".prop_map(String::into_bytes),
                ],
                0..60,
            )
        ) {
            let text = parts.concat();
            let packed = Packer::new(DICTIONARY).pack(&text);
            prop_assert_eq!(unpacked(&packed, text.len()), &text[..]);
            // No longer than what no match was found in.
            prop_assert!(packed.len() <= text.len() + text.len() / 255 + 16);
        }
    }
}
