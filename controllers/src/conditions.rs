//! A condition of a status, as every kind has it that is told of by conditions.
//!
//! Invariant: the transition time changes only with the condition's status, so that equal states have equal conditions.

use serde_json::{Value, json};

use crate::{Context, stamp};

/// A condition to be told.
pub struct Condition<'a> {
    /// `type`
    pub kind: &'a str,
    pub holds: bool,
    /// CamelCase.
    pub reason: &'a str,
    pub message: &'a str,
    /// The generation that it was decided on.
    pub generation: i64,
}

impl Condition<'_> {
    /// As JSON. `before` is the list that it will be in, as it is now.
    pub fn after(&self, before: &Value, cx: &Context<'_>) -> Value {
        let status = if self.holds { "True" } else { "False" };
        let mut old = before.as_array().into_iter().flatten();
        let old = old.find(|old| old["type"] == self.kind && old["status"] == status);
        let since = old
            .map(|old| old["lastTransitionTime"].clone())
            .filter(Value::is_string)
            .unwrap_or_else(|| json!(stamp(cx.now)));
        json!({
            "type": self.kind,
            "status": status,
            "reason": self.reason,
            "message": self.message,
            "observedGeneration": self.generation,
            "lastTransitionTime": since,
        })
    }
}
