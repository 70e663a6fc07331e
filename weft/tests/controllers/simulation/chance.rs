//! All chance of a world, from its seed. What happens to the cluster, what users do, and whose turn it is have each a stream of their
//! own, so that a world without one sort of fault is otherwise much the same.

/// SplitMix64: enough for choices, and the same everywhere.
pub struct Chance(u64);

impl Chance {
    /// The stream of this number of a seed.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut chance = Self(seed ^ stream.wrapping_mul(0xd6e8_feb8_6659_fd93));
        chance.next();
        chance
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; zero if there is none.
    pub fn below(&mut self, bound: usize) -> usize {
        let drawn = self.next() % u64::try_from(bound.max(1)).unwrap();
        usize::try_from(drawn).unwrap()
    }

    /// A number of `from..=to`.
    pub fn within(&mut self, from: i64, to: i64) -> i64 {
        let width = usize::try_from(to - from + 1).unwrap();
        from + i64::try_from(self.below(width)).unwrap()
    }

    pub fn is(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        all.get(self.below(all.len()))
    }
}
