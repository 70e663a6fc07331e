//! How many pods of a sort each domain of a topology has: counted once, for all who ask, and kept up with each pod.
//!
//! Invariants: a counter's `counts` of a domain is the sum over the pods on nodes that count there; `levels` holds, of each
//! count, how many domains have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_api::selector::LabelSelector;

use crate::term::{Namespaces, Term};
use crate::topology::{Domain, ScopeId};

pub(crate) type CounterId = usize;

/// What pods with a term want of those that it speaks of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    Near,
    Apart,
    /// By weight.
    Inclined,
}

/// Which pods are counted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum What {
    /// Those that all of these terms speak of.
    Spoken(Vec<Term>),
    /// Those of a namespace that a spread constraint selects.
    Selected(Arc<str>, LabelSelector),
    /// Those of a namespace that one controller has, as far as there is one, and all of these services.
    Kin(Arc<str>, Option<Arc<str>>, Vec<LabelSelector>),
    /// Those that have this term.
    Having(Role, Term),
}

impl What {
    /// Pods in deletion do not count for spreading.
    pub fn is_about_spreading(&self) -> bool {
        matches!(self, Self::Selected(..) | Self::Kin(..))
    }

    /// Labels of namespaces decide.
    pub fn selects_namespaces(&self) -> bool {
        match self {
            Self::Spoken(terms) => terms.iter().any(Term::selects_namespaces),
            Self::Having(_, term) => term.selects_namespaces(),
            Self::Selected(..) | Self::Kin(..) => false,
        }
    }

    /// Whether pods of this sort count, other than by what terms they have.
    pub fn counts(
        &self,
        namespace: &str,
        controller: Option<&Arc<str>>,
        labels: &BTreeMap<String, String>,
        known: &Namespaces,
    ) -> bool {
        match self {
            Self::Spoken(terms) => terms
                .iter()
                .all(|term| term.speaks_of(namespace, labels, known)),
            Self::Selected(here, selector) => **here == *namespace && selector.matches(labels),
            Self::Kin(here, of, services) => {
                **here == *namespace
                    && (of.is_none() || of.as_ref() == controller)
                    && services.iter().all(|selector| selector.matches(labels))
            }
            Self::Having(..) => false,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Counter {
    pub what: What,
    pub scope: ScopeId,
    counts: Vec<i64>,
    pub total: i64,
    levels: BTreeMap<i64, usize>,
}

impl Counter {
    /// Of a scope with so many domains.
    pub fn new(what: What, scope: ScopeId, domains: usize) -> Self {
        let none = (domains > 0 && what.is_about_spreading()).then_some((0, domains));
        Self {
            what,
            scope,
            counts: Vec::new(),
            total: 0,
            levels: none.into_iter().collect(),
        }
    }

    pub fn count(&self, domain: Domain) -> i64 {
        self.counts.get(domain).copied().unwrap_or(0)
    }

    pub fn add(&mut self, domain: Domain, amount: i64) {
        if self.counts.len() <= domain {
            self.counts.resize(domain + 1, 0);
        }
        let before = self.counts[domain];
        self.counts[domain] += amount;
        self.total += amount;
        if self.what.is_about_spreading() {
            self.leave(before);
            self.enter(before + amount);
        }
    }

    fn enter(&mut self, level: i64) {
        *self.levels.entry(level).or_default() += 1;
    }

    fn leave(&mut self, level: i64) {
        if let Some(domains) = self.levels.get_mut(&level) {
            *domains -= 1;
            if *domains == 0 {
                self.levels.remove(&level);
            }
        }
    }

    /// One more domain, or one less; nothing is counted there.
    pub fn shift_domain(&mut self, domain: Domain, is_domain: bool) {
        if !self.what.is_about_spreading() {
            return;
        }
        let level = self.count(domain);
        if is_domain {
            self.enter(level);
        } else {
            self.leave(level);
        }
    }

    /// The fewest that any domain holds; 0 while there are fewer than `min_domains`.
    pub fn fewest(&self, domains: usize, min_domains: usize) -> i64 {
        if domains < min_domains {
            return 0;
        }
        self.levels.keys().next().copied().unwrap_or(0)
    }
}
