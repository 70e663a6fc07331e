//! Pods that are alike: one namespace, one controller, equal needs. What the cluster says of one of them it says of all.
//!
//! Invariant: `on` has, of each node, how many of the class's pods are there.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::counters::{CounterId, Role};
use crate::index::Index;
use crate::pod::PodNeeds;
use crate::rules::Rules;
use crate::topology::Slot;

pub(crate) type ClassId = usize;

/// Pods of a class on a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Here {
    pub all: i64,
    /// Those among them that are being deleted.
    pub ending: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Class {
    pub namespace: Arc<str>,
    pub controller: Option<Arc<str>>,
    pub needs: Arc<PodNeeds>,
    pub on: BTreeMap<Slot, Here>,
    /// Where its pods are counted, and as how many.
    pub counted: Vec<(CounterId, i64)>,
    /// Terms of others that speak of its pods.
    pub met: Vec<(CounterId, Role)>,
    /// What its pods ask of counters; found out when one of them is to be placed.
    pub rules: Option<Arc<Rules>>,
    pub index: Option<Box<Index>>,
    /// When one of its pods was last to be placed, in pods that were; 0: never.
    pub asked: u64,
    /// How many of its pods were to be placed, one soon after the other.
    pub uses: u64,
}

impl Class {
    pub fn new(namespace: Arc<str>, controller: Option<Arc<str>>, needs: Arc<PodNeeds>) -> Self {
        Self {
            namespace,
            controller,
            needs,
            on: BTreeMap::new(),
            counted: Vec::new(),
            met: Vec::new(),
            rules: None,
            index: None,
            asked: 0,
            uses: 0,
        }
    }
}
