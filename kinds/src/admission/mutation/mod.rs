//! Mutating admission policies: expressions that change objects wherever a binding says so.
//!
//! A mutation gives a JSON patch, or a part of an object that is laid over it by the schema of its kind ([`crate::apply::overlay`]). Which policies
//! are about a request is decided once, before any of them has changed it; each then sees what those before it made, and its own
//! mutations follow each other.
//!
//! Invariants: what a failed mutation would have changed stays as it was, and the request fails by the policy's failure policy; who asks to be run
//! again is, once, behind everybody else.
//! Source: k8s.io/apiserver `pkg/admission/plugin/policy/mutating`, and its sentences.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value as Json};
use weft_api::gvk::GroupVersionKind;
use weft_api::status::{Cause, StatusError};

use super::expressions::{Budget, Failure, Matched, POLICY_COST_MAX, Scope};
use super::matching::Objects;
use super::policy::{Binding, Expression, Lookup, Policy, Spelled, bindings_of, params_of};
use super::{Place, Request};
use crate::Kind;
use crate::apply::overlay;
use crate::cel::{Composed, Message, Value, misnamed};
use crate::decode;
use crate::lens::text;
use crate::patch::{self, PatchKind};
use crate::schema::Schema;

/// One change of a policy.
#[derive(Debug)]
pub(super) enum Mutation {
    Patch(Expression),
    Apply(Expression),
}

/// A policy, one of its bindings, and one of that one's params, by their names.
type Invocation = (String, String, String);

/// What one round of mutating policies is told of the round before it.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Who may run again; in the first round, everybody may run.
    again: Option<BTreeSet<Invocation>>,
    /// Those that ran, and may run again once somebody has had his turn behind them.
    ran: BTreeSet<Invocation>,
    due: BTreeSet<Invocation>,
}

impl Round {
    /// Whoever ran before is due, since something was made of the object.
    pub fn changed(&mut self) {
        self.due.append(&mut self.ran);
    }

    /// From now on only those run that are due.
    pub fn repeat(&mut self) {
        self.again = Some(std::mem::take(&mut self.due));
    }

    fn allows(&self, invocation: &Invocation) -> bool {
        let again = self.again.as_ref();
        again.is_none_or(|again| again.contains(invocation))
    }
}

/// What is known of the object that is changed; what a subresource exchanges is of no kind that is served.
#[derive(Clone, Copy)]
struct Known<'a> {
    kind: Option<&'a Arc<Kind>>,
    schema: Option<Schema<'a>>,
}

impl<'a> Known<'a> {
    /// The kind, where it is compiled in.
    fn own_kind(self) -> Option<&'a Arc<Kind>> {
        self.kind.filter(|kind| kind.custom.is_none())
    }
}

/// Why a mutation came to nothing.
enum Fault {
    /// The policy's, which its failure policy is about.
    Policy(String),
    /// Of what it made, which nothing excuses.
    Request(StatusError),
}

/// Changes an object; `settle` takes what a place spells, and gives the form that the changed object has in the request, with its defaults. None where
/// no mutation ran.
///
/// # Errors
/// 403 or 422 for a policy that fails, 500 for a patch that makes no object of it, and what `settle` finds wrong.
pub fn mutate(
    policies: &[Arc<Policy>],
    bindings: &[Arc<Binding>],
    request: &Request,
    objects: Objects<'_>,
    lookup: &dyn Lookup,
    round: &mut Round,
    settle: impl Fn(&Place, Json) -> Result<Json, StatusError>,
) -> Result<Option<Json>, StatusError> {
    let mut faults: Vec<(String, bool)> = Vec::new();
    let mut fail = |policy: &Policy, binding: &Binding, told: String, invalid: bool| {
        if !policy.ignores_failures {
            let told = format!(
                "policy '{}' with binding '{}' denied request: {told}",
                policy.name, binding.name
            );
            faults.push((told, invalid));
        }
    };
    let mut chosen = Vec::new();
    for policy in policies {
        let Some(at) = policy.constraints.matched(request, &objects) else {
            continue;
        };
        for binding in bindings_of(policy, bindings, request, &objects) {
            match params_of(policy, binding, request, lookup) {
                Ok(params) => {
                    chosen.extend(
                        params
                            .into_iter()
                            .map(|params| (policy, binding, at, params)),
                    );
                }
                Err(why) => {
                    let told = format!("failed to configure binding: {why}");
                    fail(policy, binding, told, false);
                }
            }
        }
    }
    let mut object = objects.new.cloned();
    let mut touched = false;
    for (policy, binding, at, params) in &chosen {
        let now = Objects {
            new: object.as_ref(),
            ..objects
        };
        let spelled = Spelled::of(at, request, &now, lookup);
        let scope = Scope::new(request, at, Spelled::seen(spelled.as_ref(), now))
            .with_params(params.as_ref())
            .with_authorizer(lookup.authorizer(), request);
        match policy.conditions.matched(&scope, None) {
            Matched::Yes => {}
            Matched::No => continue,
            Matched::Failed(told) => {
                fail(policy, binding, told, true);
                continue;
            }
        }
        let invocation = (
            policy.name.clone(),
            binding.name.clone(),
            params.as_ref().map_or(String::new(), param_name),
        );
        if !round.allows(&invocation) {
            continue;
        }
        let gvk = GroupVersionKind::new(&at.group, &at.version, &at.kind);
        let kind = lookup.kind(&gvk.api_version(), &gvk.kind);
        let schema = kind
            .as_ref()
            .map_or_else(|| Schema::of(&gvk), |kind| kind.schema());
        let of = Known {
            kind: kind.as_ref(),
            schema,
        };
        let mut changed = false;
        let mut made = object.clone();
        for mutation in &policy.mutations {
            let Some(before) = made.take() else { continue };
            let other = *at != &request.place;
            let seen = other.then(|| lookup.spelled(at, &before));
            let seen = seen.as_ref().unwrap_or(&before);
            made = match policy.change(mutation, &scope, seen, of) {
                Err(Fault::Policy(told)) => {
                    fail(policy, binding, told, true);
                    Some(before)
                }
                Err(Fault::Request(error)) => return Err(error),
                Ok(next) => {
                    let next = settle(at, next)?;
                    changed |= next != before;
                    touched = true;
                    Some(next)
                }
            };
        }
        drop(scope);
        object = made;
        if changed {
            round.changed();
        }
        if policy.reinvoked {
            round.ran.insert(invocation);
        }
    }
    // As upstream has it: once one mutation ran, all that may are run again, whether it changed anything or not.
    if touched {
        round.changed();
    }
    match faults.is_empty() {
        true => Ok(object.filter(|_| touched)),
        false => Err(refusal(request, object.as_ref(), faults)),
    }
}

/// All refusals, by the first.
fn refusal(request: &Request, object: Option<&Json>, faults: Vec<(String, bool)>) -> StatusError {
    let mut error = request.forbidden(object, "admission request denied by policy");
    if let Some((first, invalid)) = faults.first() {
        first.clone_into(&mut error.message);
        if *invalid {
            error.reason = Cow::Borrowed("Invalid");
        }
    }
    let causes = faults.into_iter().map(|(message, _)| Cause {
        message,
        ..Cause::default()
    });
    error.details.get_or_insert_default().causes.extend(causes);
    error
}

fn param_name(param: &Json) -> String {
    let part = |pointer| text(param, pointer);
    format!("{}/{}", part("/metadata/namespace"), part("/metadata/name"))
}

impl Policy {
    fn change(
        &self,
        mutation: &Mutation,
        scope: &Scope<'_>,
        object: &Json,
        of: Known<'_>,
    ) -> Result<Json, Fault> {
        if let Some(told) = &self.fault {
            return Err(Fault::Policy(told.clone()));
        }
        let variables = scope.variables(Some(object));
        let composed = Composed::new(&self.variables, &variables);
        let mut budget = Budget::new(POLICY_COST_MAX);
        let (Mutation::Patch(expression) | Mutation::Apply(expression)) = mutation;
        let found = expression.run(&mut budget, &variables, &composed);
        let found =
            found.map_err(|(Failure::Error(told) | Failure::Spent(told))| Fault::Policy(told))?;
        match mutation {
            Mutation::Patch(_) => patched(object, &found, of),
            Mutation::Apply(_) => applied(object, &found, of).map_err(Fault::Policy),
        }
    }
}

/// An object with the operations that an expression gave.
fn patched(object: &Json, found: &Value<'_>, of: Known<'_>) -> Result<Json, Fault> {
    let Value::List(list) = found else {
        let told = "type mismatch: JSONPatchType.expression should evaluate to array";
        return Err(Fault::Policy(told.to_owned()));
    };
    let mut operations = Vec::new();
    for item in list.iter() {
        match item {
            Ok(Value::Message(message)) => {
                operations.push(operation(&message).map_err(Fault::Policy)?);
            }
            Ok(_) => {
                let told =
                    "type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch";
                return Err(Fault::Policy(told.to_owned()));
            }
            Err(error) => return Err(Fault::Policy(error.message)),
        }
    }
    let any = GroupVersionKind::new("", "", "");
    let next = match patch::apply(&any, object, PatchKind::Json, &operations.into()) {
        Ok(next) => next,
        // A test that fails says that there is nothing to do.
        Err(error) if error.message.contains("value did not match") => return Ok(object.clone()),
        Err(error) => return Err(Fault::Policy(format!("JSON Patch: {}", error.message))),
    };
    // What a patch makes of a kind that is compiled in is read strictly.
    if let Some(kind) = of.own_kind() {
        let internal = |told: String| Fault::Request(StatusError::internal(told));
        let decoded = decode::value(kind, &next).map_err(|error| internal(error.to_string()))?;
        if !decoded.faults.is_empty() {
            let faults = decoded.faults.join(", ");
            return Err(internal(format!("strict decoding error: {faults}")));
        }
    }
    Ok(next)
}

/// One operation of a JSON patch, as an expression built it.
fn operation(built: &Message<'_>) -> Result<Json, String> {
    let mut operation = Map::new();
    for field in ["op", "path", "from"] {
        let text: &str = match built.fields.get(field) {
            Some(Value::String(text)) => text,
            _ => "",
        };
        if field != "from" || !text.is_empty() {
            operation.insert(field.to_owned(), text.into());
        }
    }
    if let Some(value) = built.fields.get("value") {
        sound_names(value)?;
        let value = value.to_json().map_err(|error| {
            format!(
                "JSONPath valueExpression evaluated to a type that could not marshal to JSON: {}",
                error.message
            )
        })?;
        operation.insert("value".to_owned(), value);
    }
    Ok(operation.into())
}

/// An object with the part of it that an expression gave.
fn applied(object: &Json, found: &Value<'_>, of: Known<'_>) -> Result<Json, String> {
    sound_names(found)?;
    let config = found.to_json().map_err(|error| error.message)?;
    let next = overlay(of.schema, object, config)
        .map_err(|fault| format!("error applying patch: {fault}"))?;
    if let Some(kind) = of.own_kind() {
        let gvk = kind.gvk();
        decode::merged(&gvk, &next).map_err(|fault| {
            let (version, kind) = (gvk.api_version(), &gvk.kind);
            format!("unable to convert unstructured object to {version}, Kind={kind}: {fault}")
        })?;
    }
    Ok(next)
}

/// Whether every part of an object stands where its name says.
fn sound_names(found: &Value<'_>) -> Result<(), String> {
    let told = misnamed(found);
    match told.is_empty() {
        true => Ok(()),
        false => Err(format!("type mismatch: {}", told.join("\n"))),
    }
}

#[cfg(test)]
mod tests;
