//! ValidatingAdmissionPolicies: the status says what their expressions get wrong about the kinds that they name.
//!
//! Left to others: what that is (`weft_kinds::admissionregistration`), and judging by policies (`weft_apiserver`).

use std::sync::Arc;

use serde_json::{Value, json};
use weft_api::object::{Object, ObjectError};
use weft_kinds::admissionregistration::type_warnings;
use weft_kinds::{Kind, VALIDATING_ADMISSION_POLICY};

use crate::indexer::Lens;
use crate::metadata::{Key, PartialObject};
use crate::view::{Touched, View};
use crate::write::Write;
use crate::{Context, Controller, Outcome};

pub const CONTROLLER: Controller = Controller {
    name: "validatingadmissionpolicy-status-controller",
    reads: |reads| {
        reads.kind::<Policy>();
    },
    keys: |_, touched: &Touched| match touched.is_of(&VALIDATING_ADMISSION_POLICY) {
        true => vec![touched.key.clone()],
        false => Vec::new(),
    },
    relieved: |_, _| Vec::new(),
    seeds: |view| view.list::<Policy>().map(|row| row.key.clone()).collect(),
    subject: |view, key| {
        let policy = view.object_of(&VALIDATING_ADMISSION_POLICY, key);
        policy.map(PartialObject::reference)
    },
    reconcile,
};

/// A policy: there are few.
#[derive(Debug)]
struct Policy(Value);

impl Lens for Policy {
    fn kind() -> &'static Arc<Kind> {
        &VALIDATING_ADMISSION_POLICY
    }

    fn read(object: &Object) -> Result<Self, ObjectError> {
        let value = object.as_value();
        Ok(Self(
            json!({"spec": value["spec"], "status": value["status"]}),
        ))
    }
}

fn reconcile(view: &View, key: &Key, cx: &Context<'_>) -> Outcome {
    let Some(policy) = view.get::<Policy>(key) else {
        return Outcome::default();
    };
    let before = &policy.body.0["status"];
    // It is looked at once for each of its generations.
    if before["observedGeneration"] == policy.meta.generation {
        return Outcome::default();
    }
    let warnings = type_warnings(&policy.body.0, cx.kinds);
    let mut after = before.clone();
    after["observedGeneration"] = policy.meta.generation.into();
    after["typeChecking"] = match warnings.is_empty() {
        true => json!({}),
        false => json!({"expressionWarnings": warnings}),
    };
    Outcome::from_writes(Write::status(policy, before, &after).into_iter().collect())
}
