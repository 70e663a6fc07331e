//! CapabilityGrants: the condition `ResolvedRefs` says whether all that a grant refers to exists.
//!
//! A grant holds as it is written, whatever else is there: pods wait for settings that are missing, and what is done with a store that
//! is missing fails. Who looks at the grant is told of it before, and what to do about it.
//!
//! Invariants: whether an object exists is all that is looked at, no Secret is read; conditions of others stay.
//! Left to others: what a grant may say (`weft_kinds`), what pods get by it (`weft_agent`).

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_kinds::lens::{items, text};
use weft_kinds::weft::{references_of_outgoing, store_to_add};
use weft_kinds::{CAPABILITY_GRANT, CONFIG_MAP, KEY_VALUE_STORE, Kind, SECRET, SERVICE_ACCOUNT};

use crate::conditions::Condition;
use crate::indexer::Lens;
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "capabilitygrant-controller",
    reads: |reads| {
        reads.kind::<Grant>();
    },
    keys,
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Grant>().map(|row| row.key.clone()).collect(),
    subject: |view, key| {
        let grant = view.object_of(&CAPABILITY_GRANT, key);
        grant.map(PartialObject::reference)
    },
    reconcile,
};

const RESOLVED: &str = "ResolvedRefs";
/// Missing objects that are named; of further ones, how many they are. A grant may refer to 144, with names of 253 bytes.
const TOLD_MAX: usize = 8;

/// What a grant refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Referent {
    ServiceAccount,
    ConfigMap,
    Secret,
    KeyValueStore,
    /// What calls out of the cluster show.
    ShownSecret,
    /// Whom they believe.
    Authorities,
}

impl Referent {
    const ALL: [Self; 6] = [
        Self::ServiceAccount,
        Self::ConfigMap,
        Self::Secret,
        Self::KeyValueStore,
        Self::ShownSecret,
        Self::Authorities,
    ];

    fn kind(self) -> &'static Arc<Kind> {
        match self {
            Self::ServiceAccount => &SERVICE_ACCOUNT,
            Self::ConfigMap | Self::Authorities => &CONFIG_MAP,
            Self::Secret | Self::ShownSecret => &SECRET,
            Self::KeyValueStore => &KEY_VALUE_STORE,
        }
    }
}

/// An object that has to exist.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference {
    to: Referent,
    name: String,
}

/// What is looked at of a grant.
#[derive(Debug)]
struct Grant {
    /// Each once, in the order in which they are written.
    references: Vec<Reference>,
    conditions: Value,
}

impl Lens for Grant {
    fn kind() -> &'static Arc<Kind> {
        &CAPABILITY_GRANT
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        Ok(Self {
            references: references(value),
            conditions: value["status"]["conditions"].clone(),
        })
    }
}

fn references(grant: &Value) -> Vec<Reference> {
    let accounts = items(grant, "/spec/serviceAccountNames").iter();
    let accounts = accounts.filter_map(|name| Some((Referent::ServiceAccount, name.as_str()?)));
    let sources = items(grant, "/spec/config").iter().flat_map(|source| {
        let fields = [
            (Referent::ConfigMap, &source["configMapRef"]),
            (Referent::Secret, &source["secretRef"]),
        ];
        let required = fields
            .into_iter()
            .filter(|(_, field)| field["optional"] != true);
        required.map(|(to, field)| (to, text(field, "/name")))
    });
    let stores = items(grant, "/spec/keyValue").iter();
    let stores = stores.map(|entry| (Referent::KeyValueStore, text(entry, "/store")));
    let outgoing = items(grant, "/spec/outgoingHTTP").iter();
    let outgoing = outgoing.flat_map(references_of_outgoing);
    let outgoing = outgoing.map(|(is_secret, name)| match is_secret {
        true => (Referent::ShownSecret, name),
        false => (Referent::Authorities, name),
    });
    let mut found: Vec<Reference> = Vec::new();
    for (to, name) in accounts.chain(sources).chain(stores).chain(outgoing) {
        let reference = Reference {
            to,
            name: name.to_owned(),
        };
        if !name.is_empty() && !found.contains(&reference) {
            found.push(reference);
        }
    }
    found
}

fn keys(view: &View, touched: &Touched) -> Vec<Key> {
    if touched.is_of(&CAPABILITY_GRANT) {
        return vec![touched.key.clone()];
    }
    // What is in them is none of a grant's business, and changes often.
    if touched.was_there == touched.is_there {
        return Vec::new();
    }
    if !Referent::ALL.into_iter().any(|to| touched.is_of(to.kind())) {
        return Vec::new();
    }
    let refers = |reference: &Reference| {
        touched.is_of(reference.to.kind()) && *reference.name == *touched.key.name
    };
    let grants = view.list_in::<Grant>(&touched.key.namespace);
    let grants = grants.filter(|grant| grant.body.references.iter().any(refers));
    grants.map(|grant| grant.key.clone()).collect()
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(grant) = view.get::<Grant>(key) else {
        return Outcome::default();
    };
    let references = grant.body.references.iter();
    let missing = references.filter(|reference| {
        let named = key.sibling(&reference.name);
        view.object_of(reference.to.kind(), &named).is_none()
    });
    let missing: Vec<&Reference> = missing.collect();
    let message = match missing.is_empty() {
        true => "All references hold.".to_owned(),
        false => message(&key.namespace, &missing),
    };
    let condition = Condition {
        kind: RESOLVED,
        holds: missing.is_empty(),
        reason: match missing.is_empty() {
            true => RESOLVED,
            false => "RefNotFound",
        },
        message: &message,
        generation: grant.meta.generation,
    };
    let before = &grant.body.conditions;
    let others = before.as_array().into_iter().flatten();
    let others = others.filter(|other| other["type"] != RESOLVED).cloned();
    let after: Vec<Value> = others.chain([condition.after(before, cx)]).collect();
    let (before, after) = (json!({"conditions": before}), json!({"conditions": after}));
    Outcome::from_writes(Write::status(grant, &before, &after).into_iter().collect())
}

/// What is missing, what that means, and what to do.
fn message(namespace: &str, missing: &[&Reference]) -> String {
    let told = missing.iter().take(TOLD_MAX).map(|reference| {
        let Reference { to, name } = reference;
        let next = match to {
            Referent::ServiceAccount => {
                "no pod runs as it: create it, or correct serviceAccountNames.".to_owned()
            }
            Referent::ConfigMap | Referent::Secret => {
                "pods that import wasi:config wait for it: create it, or set optional: true."
                    .to_owned()
            }
            Referent::ShownSecret | Referent::Authorities => {
                "calls out of the cluster that need it fail: create it.".to_owned()
            }
            Referent::KeyValueStore => format!(
                "what pods do with it fails: add {}",
                store_to_add(namespace, name)
            ),
        };
        format!("{} {name} does not exist, and {next}", to.kind().kind)
    });
    let others = match missing.len().saturating_sub(TOLD_MAX) {
        0 => None,
        others => Some(format!("{others} others do not exist.")),
    };
    told.chain(others).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(spec: Value) -> String {
        let references = references(&json!({"spec": spec}));
        let missing: Vec<&Reference> = references.iter().collect();
        message("shop", &missing)
    }

    #[test]
    fn each_thing_that_is_missing_is_told_once_with_what_to_do() {
        let again = "pods that import wasi:config wait for it: create it, or set optional: true.";
        let settings = format!("ConfigMap settings does not exist, and {again}");
        let key = format!("Secret key does not exist, and {again}");
        for (spec, expected) in [
            (json!({}), ""),
            (json!({"outgoingHTTP": [{"hosts": ["a.example"]}]}), ""),
            (
                json!({"serviceAccountNames": ["cart"]}),
                "ServiceAccount cart does not exist, and no pod runs as it: create it, or correct serviceAccountNames.",
            ),
            (
                json!({"config": [
                    {"configMapRef": {"name": "settings"}},
                    {"configMapRef": {"name": "settings", "optional": false}, "prefix": "again."},
                    {"secretRef": {"name": "spare", "optional": true}},
                    {},
                ]}),
                &settings,
            ),
            (json!({"config": [{"secretRef": {"name": "key"}}]}), &key),
            (
                json!({"outgoingHTTP": [{
                    "hosts": ["a.example"],
                    "credentials": [{"bearer": {"secretRef": {"name": "token"}}}],
                    "tls": {"caCertificates": {"configMapRef": {"name": "roots"}}},
                }]}),
                "Secret token does not exist, and calls out of the cluster that need it fail: create it. \
                 ConfigMap roots does not exist, and calls out of the cluster that need it fail: create it.",
            ),
            (
                json!({"keyValue": [{"identifier": "", "store": "carts"}, {"identifier": "default", "store": "carts"}]}),
                "KeyValueStore carts does not exist, and what pods do with it fails: add {apiVersion: weft.dev/v1alpha1, \
                 kind: KeyValueStore, metadata: {name: carts, namespace: shop}}",
            ),
        ] {
            assert_eq!(told(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn of_many_only_some_are_named() {
        let names: Vec<String> = (0..11).map(|number| format!("a{number}")).collect();
        let told = told(json!({"serviceAccountNames": names}));
        assert!(
            told.contains("ServiceAccount a7 ") && !told.contains("a8"),
            "{told}"
        );
        assert!(told.ends_with(" 3 others do not exist."), "{told}");
    }
}
