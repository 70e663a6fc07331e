//! The roles and bindings of the cluster, indexed by whom they are bound to.
//!
//! Kept up to date change by change from the store's own stream, which is looked at when somebody asks: with thousands of bindings a question
//! costs what is bound to its caller and his groups, in his namespace and everywhere, and nothing for what changed elsewhere in the store.
//!
//! Invariants: what was dispatched when a question is asked is known to it; a binding to a role that is not there gives nothing, and is told of
//! with a refusal. Left to others: what a rule allows (`weft_kinds::rbac::rules`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use weft_kinds::lens::{items, text};
use weft_kinds::rbac::rules::Rule;
use weft_kinds::{CLUSTER_ROLE, CLUSTER_ROLE_BINDING, KindRef, ROLE, ROLE_BINDING};
use weft_store::{Entry, EventKind, Key, Store, Watch};

use super::{Decision, aggregate};
use crate::caller::{Caller, service_account_user};
use crate::encryption::Vault;
use crate::stored::{self, Stored};

/// Every role and binding, and nothing else.
const PREFIX: &str = "/rbac.authorization.k8s.io/";
/// The longest that a request waits to hear of what this server was told: it takes a fraction of a millisecond.
const SETTLES_WITHIN: Duration = Duration::from_millis(200);

/// Where a role is: in a namespace, or nowhere in particular, and how it is called.
type RoleAt = (Option<String>, String);

/// Whom something is bound to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    User(String),
    Group(String),
}

/// One binding.
#[derive(Debug)]
struct Binding {
    name: String,
    namespace: Option<String>,
    role: RoleAt,
    /// With how each is told of.
    subjects: Vec<(Subject, String)>,
}

impl Binding {
    fn of(value: &Value) -> Self {
        let namespace = text(value, "/metadata/namespace");
        let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
        let role_name = text(value, "/roleRef/name").to_owned();
        let role = match text(value, "/roleRef/kind") {
            "Role" => (namespace.clone(), role_name),
            _ => (None, role_name),
        };
        let subjects = items(value, "/subjects").iter().filter_map(|subject| {
            let (kind, name) = (text(subject, "/kind"), text(subject, "/name").to_owned());
            let plain = format!("{kind} {name:?}");
            Some(match kind {
                "User" => (Subject::User(name), plain),
                "Group" => (Subject::Group(name), plain),
                "ServiceAccount" => {
                    let own = text(subject, "/namespace");
                    let own = match own {
                        "" => namespace.as_deref()?,
                        own => own,
                    };
                    let told = format!("{kind} {:?}", format!("{name}/{own}"));
                    (Subject::User(service_account_user(own, &name)), told)
                }
                _ => return None,
            })
        });
        Self {
            name: text(value, "/metadata/name").to_owned(),
            subjects: subjects.collect(),
            namespace,
            role,
        }
    }

    fn told(&self, subject: &str) -> String {
        let (kind, name) = match &self.namespace {
            Some(namespace) => ("RoleBinding", format!("{}/{namespace}", self.name)),
            None => ("ClusterRoleBinding", self.name.clone()),
        };
        let (of, role) = &self.role;
        let of = if of.is_some() { "Role" } else { "ClusterRole" };
        format!("{kind} {name:?} of {of} {role:?} to {subject}")
    }
}

/// What is bound to one subject, by where it counts.
type Bound = BTreeMap<Option<String>, BTreeMap<Key, Arc<Binding>>>;

#[derive(Default)]
struct Index {
    roles: BTreeMap<RoleAt, Arc<[Rule]>>,
    bindings: BTreeMap<Key, Arc<Binding>>,
    subjects: BTreeMap<Subject, Bound>,
}

impl Index {
    fn put(&mut self, vault: &Vault, entry: &Arc<Entry>) {
        let Some((kind, is_role)) = kind_of(&entry.key) else {
            return;
        };
        let value = Stored::new(vault, kind, Arc::clone(entry)).value();
        if is_role {
            let namespace = text(&value, "/metadata/namespace");
            let namespace = (!namespace.is_empty()).then(|| namespace.to_owned());
            let at = (namespace, text(&value, "/metadata/name").to_owned());
            self.roles.insert(at, Rule::all_of(&value).into());
            return;
        }
        self.unbind(&entry.key);
        let binding = Arc::new(Binding::of(&value));
        for (subject, _) in &binding.subjects {
            let bound = self.subjects.entry(subject.clone()).or_default();
            let there = bound.entry(binding.namespace.clone()).or_default();
            there.insert(entry.key.clone(), Arc::clone(&binding));
        }
        self.bindings.insert(entry.key.clone(), binding);
    }

    fn remove(&mut self, key: &Key) {
        match kind_of(key) {
            Some((_, true)) => {
                self.roles.remove(&role_at(key));
            }
            Some((_, false)) => self.unbind(key),
            None => {}
        }
    }

    fn unbind(&mut self, key: &Key) {
        let Some(binding) = self.bindings.remove(key) else {
            return;
        };
        for (subject, _) in &binding.subjects {
            let Some(bound) = self.subjects.get_mut(subject) else {
                continue;
            };
            if let Some(there) = bound.get_mut(&binding.namespace) {
                there.remove(key);
            }
            bound.retain(|_, there| !there.is_empty());
            if bound.is_empty() {
                self.subjects.remove(subject);
            }
        }
    }

    /// The bindings that give a caller something in a namespace, those that count everywhere first, each with how its subject is told of.
    fn bound_to<'a>(
        &'a self,
        caller: &'a Caller,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<Binding>, &'a Subject)> + 'a {
        let places = [None, namespace.map(str::to_owned)];
        let places = places
            .into_iter()
            .take(if namespace.is_some() { 2 } else { 1 });
        let user = Subject::User(caller.user().to_owned());
        let groups = caller.groups().iter().cloned().map(Subject::Group);
        let subjects: Vec<Subject> = std::iter::once(user).chain(groups).collect();
        places.flat_map(move |place| {
            let found: Vec<_> = subjects
                .iter()
                .filter_map(|subject| {
                    let (subject, bound) = self.subjects.get_key_value(subject)?;
                    Some((subject, bound.get(&place)?))
                })
                .flat_map(|(subject, there)| there.values().map(move |one| (one, subject)))
                .collect();
            found
        })
    }
}

/// What a key stands for, and whether that is a role.
fn kind_of(key: &Key) -> Option<(KindRef<'static>, bool)> {
    let text = std::str::from_utf8(key.as_bytes()).ok()?;
    let resource = text.strip_prefix(PREFIX)?.split('/').next()?;
    let kinds: [(KindRef<'static>, bool); 4] = [
        (&ROLE, true),
        (&CLUSTER_ROLE, true),
        (&ROLE_BINDING, false),
        (&CLUSTER_ROLE_BINDING, false),
    ];
    kinds
        .into_iter()
        .find(|(kind, _)| kind.resource == resource)
}

fn role_at(key: &Key) -> RoleAt {
    let (namespace, name) = stored::split_key(key);
    (namespace.map(str::to_owned), name.to_owned())
}

/// What was read, and what tells of changes.
#[derive(Default)]
struct Following {
    watch: Option<Watch>,
    index: Index,
}

/// The roles and bindings of a store.
pub(super) struct Roles {
    store: Store,
    vault: Vault,
    following: Mutex<Following>,
}

impl Roles {
    pub(super) fn new(store: Store, vault: Vault) -> Self {
        Self {
            store,
            vault,
            following: Mutex::default(),
        }
    }

    pub(super) async fn settle(&self) {
        let here = self.store.snapshot().revision();
        let mut dispatched = self.store.dispatched();
        let told = dispatched.wait_for(|told| *told >= here);
        // A store that is closed tells nobody anything any more.
        let _ = tokio::time::timeout(SETTLES_WITHIN, told).await;
    }

    /// Takes in what changed since somebody asked last.
    fn follow(&self, following: &mut Following) {
        if let Some(watch) = &mut following.watch {
            loop {
                match watch.try_next() {
                    None => return,
                    Some(Ok(event)) => match event.kind {
                        EventKind::Put => following.index.put(&self.vault, &event.entry),
                        EventKind::Delete => following.index.remove(&event.entry.key),
                    },
                    // It did not keep up: everything is read again.
                    Some(Err(_)) => break,
                }
            }
        }
        let snapshot = self.store.snapshot();
        let mut index = Index::default();
        for entry in snapshot.range(PREFIX.as_bytes(), None) {
            index.put(&self.vault, &entry);
        }
        *following = Following {
            // Without a watch everything is read again the next time.
            watch: self.store.watch(PREFIX, snapshot.revision()).ok(),
            index,
        };
    }

    fn with_index<T>(&self, look: impl FnOnce(&Index) -> T) -> T {
        let mut following = self.following.lock();
        self.follow(&mut following);
        look(&following.index)
    }

    /// Whether a rule that the caller has in a namespace allows it.
    pub(super) fn decide(
        &self,
        caller: &Caller,
        namespace: Option<&str>,
        allows: &dyn Fn(&Rule) -> bool,
    ) -> Decision {
        self.with_index(|index| {
            let mut faults = BTreeSet::new();
            for (binding, subject) in index.bound_to(caller, namespace) {
                let Some(rules) = index.roles.get(&binding.role) else {
                    faults.insert(missing(&binding.role));
                    continue;
                };
                if rules.iter().any(allows) {
                    let mut subjects = binding.subjects.iter();
                    let told = subjects.find(|(own, _)| own == subject);
                    let told = told.map_or("", |(_, told)| told);
                    return Decision::yes(format!("RBAC: allowed by {}", binding.told(told)));
                }
            }
            let faults: Vec<String> = faults.into_iter().collect();
            match faults.is_empty() {
                true => Decision::no(String::new()),
                // Kubernetes says first which of its authorizers had nothing better to say.
                false => Decision::no(format!("rbac: RBAC: {}", aggregate(&faults))),
            }
        })
    }

    /// The rules that a caller has in a namespace, and what kept further ones from being found.
    pub(super) fn rules_of(
        &self,
        caller: &Caller,
        namespace: Option<&str>,
    ) -> (Vec<Rule>, Vec<String>) {
        self.with_index(|index| {
            let (mut rules, mut faults) = (Vec::new(), Vec::new());
            let mut seen: Vec<*const Binding> = Vec::new();
            for (binding, _) in index.bound_to(caller, namespace) {
                // Bound to several of his groups, it is one binding.
                let own = Arc::as_ptr(binding);
                if seen.contains(&own) {
                    continue;
                }
                seen.push(own);
                match index.roles.get(&binding.role) {
                    Some(found) => rules.extend(found.iter().cloned()),
                    None => faults.push(missing(&binding.role)),
                }
            }
            (rules, faults)
        })
    }

    /// The rules of a role, if it is there.
    pub(super) fn rules_at(&self, namespace: Option<&str>, name: &str) -> Option<Arc<[Rule]>> {
        let at = (namespace.map(str::to_owned), name.to_owned());
        self.with_index(|index| index.roles.get(&at).map(Arc::clone))
    }
}

fn missing((namespace, name): &RoleAt) -> String {
    let kind = if namespace.is_some() {
        "role"
    } else {
        "clusterrole"
    };
    format!("{kind}.rbac.authorization.k8s.io {name:?} not found")
}
