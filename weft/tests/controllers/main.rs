//! Every controller against the real object verbs: what they write, and what a cluster becomes by it.
//!
//! They are here and not in the controllers' crate because only the binary's crate knows both.

mod cases;
mod hostile;
mod rollout;
mod silence;
mod world;
