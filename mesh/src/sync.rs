//! Atomics, by a name of this crate: `tests/models` compiles the files that use them with those of loom, which tries every order.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
