//! Policies that say who may call whom: the condition `Accepted` says whether all of one is understood, and what is not.
//!
//! What is not understood makes a policy let in less, never more ([`weft_policy`]); whoever wrote it is told here what that is, in the words that
//! Istio refuses such an object with.
//!
//! Invariants: what is told rests on the object alone; conditions of others stay.
//! Left to others: what comes of the policies (`weft_mesh`).

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_kinds::{AUTHORIZATION_POLICY, Kind, PEER_AUTHENTICATION, REQUEST_AUTHENTICATION};
use weft_policy::{PolicyKind, peer_authentication_faults};

use crate::conditions::Condition;
use crate::indexer::Lens;
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "accesspolicy-controller",
    reads: |reads| {
        reads
            .kind::<Authorization>()
            .kind::<Tokens>()
            .kind::<Peers>();
    },
    keys: |_, touched| keys(touched),
    relieved: |_, _| Vec::new(),
    seeds: |view| {
        let mut keys = all::<Authorization>(view);
        keys.extend(all::<Tokens>(view));
        keys.extend(all::<Peers>(view));
        keys
    },
    subject: |view, key| {
        let (kind, name) = key.name.split_once('/')?;
        let kind = kinds().into_iter().find(|known| known.resource == kind)?;
        let policy = view.object_of(kind, &key.sibling(name));
        policy.map(PartialObject::reference)
    },
    reconcile,
};

const ACCEPTED: &str = "Accepted";
/// Faults that are told; of further ones, how many they are.
const TOLD_MAX: usize = 8;

fn kinds() -> [&'static Arc<Kind>; 3] {
    [
        &AUTHORIZATION_POLICY,
        &REQUEST_AUTHENTICATION,
        &PEER_AUTHENTICATION,
    ]
}

/// What is told of a policy.
#[derive(Debug)]
struct Told {
    faults: Vec<String>,
    conditions: Value,
}

impl Told {
    fn of(object: &Object, faults: impl FnOnce(&str, &str, &Value) -> Vec<String>) -> Self {
        let value = object.as_value();
        let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
        Self {
            faults: faults(text("namespace"), text("name"), &value["spec"]),
            conditions: value["status"]["conditions"].clone(),
        }
    }
}

macro_rules! lens {
    ($name:ident, $kind:ident, $faults:expr) => {
        #[derive(Debug)]
        struct $name(Told);

        impl Lens for $name {
            fn kind() -> &'static Arc<Kind> {
                &$kind
            }

            fn read(object: &Object) -> Result<Self, ObjectError> {
                Ok(Self(Told::of(object, $faults)))
            }
        }

        impl AsRef<Told> for $name {
            fn as_ref(&self) -> &Told {
                &self.0
            }
        }
    };
}

lens!(
    Authorization,
    AUTHORIZATION_POLICY,
    |namespace, name, spec| { faults(PolicyKind::Authorization, namespace, name, spec) }
);
lens!(Tokens, REQUEST_AUTHENTICATION, |namespace, name, spec| {
    faults(PolicyKind::RequestAuthentication, namespace, name, spec)
});
lens!(Peers, PEER_AUTHENTICATION, |_, _, spec| {
    peer_authentication_faults(spec)
});

fn faults(kind: PolicyKind, namespace: &str, name: &str, spec: &Value) -> Vec<String> {
    weft_policy::faults(&weft_policy::Object {
        kind,
        namespace,
        name,
        annotations: None,
        spec,
    })
}

/// They share one queue, so the key's name carries the kind: `authorizationpolicies/web`.
fn key_of(kind: &Kind, key: &Key) -> Key {
    key.sibling(&format!("{}/{}", kind.resource, key.name))
}

fn all<K: Lens>(view: &View) -> Vec<Key> {
    let rows = view.list::<K>();
    rows.map(|row| key_of(K::kind(), &row.key)).collect()
}

fn keys(touched: &Touched) -> Vec<Key> {
    let is_ours = kinds().into_iter().any(|kind| touched.is_of(kind));
    match is_ours {
        true => vec![key_of(&touched.kind, &touched.key)],
        false => Vec::new(),
    }
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some((kind, name)) = key.name.split_once('/') else {
        return Outcome::default();
    };
    let key = key.sibling(name);
    let write = match kind {
        "authorizationpolicies" => told::<Authorization>(view, &key, cx),
        "requestauthentications" => told::<Tokens>(view, &key, cx),
        "peerauthentications" => told::<Peers>(view, &key, cx),
        _ => None,
    };
    Outcome::from_writes(write.into_iter().collect())
}

fn told<K: Lens + AsRef<Told>>(view: &View, key: &Key, cx: &Context<'_>) -> Option<Write> {
    let policy = view.get::<K>(key)?;
    let Told { faults, conditions } = policy.body.as_ref();
    let message = message(faults);
    let condition = Condition {
        kind: ACCEPTED,
        holds: faults.is_empty(),
        reason: match faults.is_empty() {
            true => ACCEPTED,
            false => "Invalid",
        },
        message: &message,
        generation: policy.meta.generation,
    };
    let others = conditions.as_array().into_iter().flatten();
    let others = others.filter(|other| other["type"] != ACCEPTED).cloned();
    let after: Vec<Value> = others.chain([condition.after(conditions, cx)]).collect();
    let (before, after) = (
        json!({ "conditions": conditions }),
        json!({ "conditions": after }),
    );
    Write::status(policy, &before, &after)
}

fn message(faults: &[String]) -> String {
    if faults.is_empty() {
        return "All of it is in force.".to_owned();
    }
    let told = faults.iter().take(TOLD_MAX).cloned();
    let others = match faults.len().saturating_sub(TOLD_MAX) {
        0 => None,
        others => Some(format!("{others} others")),
    };
    told.chain(others).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_policy_is_told_up_to_a_bound() {
        let of = |spec: Value| message(&faults(PolicyKind::Authorization, "shop", "p", &spec));
        assert_eq!(of(json!({})), "All of it is in force.");
        assert_eq!(
            of(json!({ "rules": [{ "from": [{ "source": { "ipBlocks": ["10.0.0"] } }] }] })),
            "bad IP address (10.0.0)"
        );
        let many: Vec<String> = (0..20).map(|number| format!("10.0.{number}")).collect();
        let told = of(json!({ "rules": [{ "from": [{ "source": { "ipBlocks": many } }] }] }));
        assert!(told.ends_with("; 12 others"), "{told}");
        let peers = peer_authentication_faults(&json!({ "mtls": { "mode": "DISABLE" } }));
        assert_eq!(peers.len(), 1, "{peers:?}");
        let strict = peer_authentication_faults(&json!({ "mtls": { "mode": "STRICT" } }));
        assert_eq!(strict, [""; 0]);
    }
}
