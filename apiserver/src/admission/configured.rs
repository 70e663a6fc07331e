//! What admission is configured by, compiled once for each of its states.
//!
//! A write asks for the configuration of the snapshot that it is judged on. Keys and revisions say whether anything changed since the
//! last one was put together; where nothing did, it is handed out again, and where one object did, that one is read and compiled.
//!
//! Invariants: what is handed out is of the snapshot, not older; without any configuration, a write pays for six looks at ordered keys.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;
use weft_kinds::admission::policy::{Binding, Policy};
use weft_kinds::admission::webhook::Webhook;
use weft_kinds::{
    KindRef, MUTATING_ADMISSION_POLICY, MUTATING_ADMISSION_POLICY_BINDING,
    MUTATING_WEBHOOK_CONFIGURATION, VALIDATING_ADMISSION_POLICY,
    VALIDATING_ADMISSION_POLICY_BINDING, VALIDATING_WEBHOOK_CONFIGURATION,
};
use weft_store::{Key, Revision, Snapshot};

use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// Everything that is configured, in the order of names.
#[derive(Debug, Default)]
pub(crate) struct Configured {
    pub mutating_policies: Vec<Arc<Policy>>,
    pub mutating_bindings: Vec<Arc<Binding>>,
    pub mutating_webhooks: Vec<Arc<Webhook>>,
    pub validating_policies: Vec<Arc<Policy>>,
    pub validating_bindings: Vec<Arc<Binding>>,
    pub validating_webhooks: Vec<Arc<Webhook>>,
}

impl Configured {
    /// Whether anything changes objects.
    pub(crate) fn mutates(&self) -> bool {
        !self.mutating_policies.is_empty() || !self.mutating_webhooks.is_empty()
    }

    /// Whether anything refuses them.
    pub(crate) fn validates(&self) -> bool {
        !self.validating_policies.is_empty() || !self.validating_webhooks.is_empty()
    }
}

/// One object, compiled.
#[derive(Clone)]
enum Compiled {
    Webhooks(Vec<Arc<Webhook>>),
    Policy(Arc<Policy>),
    Binding(Arc<Binding>),
}

/// The last configuration that was asked for.
#[derive(Default)]
pub(crate) struct Configurations {
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    objects: BTreeMap<Key, (Revision, Compiled)>,
    whole: Arc<Configured>,
}

type Compile = fn(&Value) -> Compiled;

fn webhooks(value: &Value, mutates: bool) -> Compiled {
    let hooks = Webhook::of(value, mutates).into_iter();
    Compiled::Webhooks(hooks.map(Arc::new).collect())
}

/// The kinds, and what becomes of their objects.
fn sources() -> [(KindRef<'static>, Compile); 6] {
    let policy: Compile = |value| Compiled::Policy(Arc::new(Policy::of(value)));
    let binding: Compile = |value| Compiled::Binding(Arc::new(Binding::of(value)));
    [
        (&MUTATING_ADMISSION_POLICY, policy),
        (&MUTATING_ADMISSION_POLICY_BINDING, binding),
        (&MUTATING_WEBHOOK_CONFIGURATION, |value| {
            webhooks(value, true)
        }),
        (&VALIDATING_ADMISSION_POLICY, policy),
        (&VALIDATING_ADMISSION_POLICY_BINDING, binding),
        (&VALIDATING_WEBHOOK_CONFIGURATION, |value| {
            webhooks(value, false)
        }),
    ]
}

/// Where the objects of each source begin.
static PREFIXES: LazyLock<[Bytes; 6]> =
    LazyLock::new(|| sources().map(|(kind, _)| stored::prefix(kind, None)));

impl Configurations {
    /// The configuration of a snapshot.
    pub(crate) fn current(&self, snapshot: &Snapshot, vault: &Vault) -> Arc<Configured> {
        let mut found: Vec<(usize, Key, Revision)> = Vec::new();
        for (source, prefix) in PREFIXES.iter().enumerate() {
            let keys = snapshot.keys(prefix, None);
            found.extend(keys.map(|(key, revision)| (source, key, revision)));
        }
        let mut last = self.last.lock();
        let same = found.len() == last.objects.len()
            && found.iter().all(|(_, key, revision)| {
                last.objects
                    .get(key)
                    .is_some_and(|(known, _)| known == revision)
            });
        if same {
            return Arc::clone(&last.whole);
        }
        let mut objects = BTreeMap::new();
        let mut whole = Configured::default();
        for (source, key, revision) in found {
            let Some((kind, compile)) = sources().into_iter().nth(source) else {
                continue;
            };
            let known = last.objects.get(&key);
            let known = known.filter(|(of, _)| *of == revision);
            let compiled = match known {
                Some((_, compiled)) => compiled.clone(),
                None => match snapshot.get(&key) {
                    Some(entry) => compile(&Stored::new(vault, kind, entry).value()),
                    None => continue,
                },
            };
            let mutates = source < 3;
            match (&compiled, mutates) {
                (Compiled::Policy(policy), true) => whole.mutating_policies.push(policy.clone()),
                (Compiled::Policy(policy), false) => {
                    whole.validating_policies.push(policy.clone());
                }
                (Compiled::Binding(binding), true) => {
                    whole.mutating_bindings.push(binding.clone());
                }
                (Compiled::Binding(binding), false) => {
                    whole.validating_bindings.push(binding.clone());
                }
                (Compiled::Webhooks(hooks), true) => {
                    whole.mutating_webhooks.extend(hooks.iter().cloned());
                }
                (Compiled::Webhooks(hooks), false) => {
                    whole.validating_webhooks.extend(hooks.iter().cloned());
                }
            }
            objects.insert(key, (revision, compiled));
        }
        let whole = Arc::new(whole);
        *last = Last {
            objects,
            whole: Arc::clone(&whole),
        };
        whole
    }
}
