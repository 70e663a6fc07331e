//! What a look leaves to be known by the next one of the same key, and no object shows.
//!
//! The loop keeps it, and hands it back ([`crate::Context::past`]); a new leader begins with [`Past::Nothing`]. Each controller reads its own sort and
//! takes every other for nothing.

use crate::{autoscaler, rollout};

/// What is remembered of one key.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Past {
    #[default]
    Nothing,
    Autoscaler(autoscaler::Past),
    Rollout(rollout::Past),
}

impl Past {
    /// Nothing is remembered.
    pub fn is_empty(&self) -> bool {
        *self == Self::Nothing
    }
}
