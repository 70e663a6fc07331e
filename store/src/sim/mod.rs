//! A cluster in one thread, under faults, and the proof that it keeps its promises.

pub(crate) mod random;
pub(crate) mod runtime;
