//! Admission policies: expressions that judge objects wherever a binding says so; `super::mutation` has those that change them.
//!
//! A policy says what, a binding where and with which params; a policy without bindings does nothing. Each binding is judged with each
//! of its params, and what all expressions cost together is bounded for each.
//!
//! Invariants: a policy that cannot be compiled, or whose params are not there, decides by its failure policy; of several refusals the
//! first is told.
//! Source: k8s.io/apiserver `pkg/admission/plugin/policy`, and its sentences.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use weft_api::selector::LabelSelector;
use weft_api::status::{Cause, StatusError};

use super::expressions::{
    Budget, Compiler, Conditions, Failure, Gives, Has, Matched, POLICY_COST_MAX, Scope,
};
use super::matching::{self, Constraints, Objects, labels_of};
use super::mutation::Mutation;
use super::{Place, Request};
use crate::Kind;
use crate::cel::{Authorize, Composed, Program, Value};
use crate::lens::{items, text};

/// Longest message that an expression makes.
const MESSAGE_BYTES_MAX: usize = 5 << 10;
/// Longest value of an annotation in the audit log.
const ANNOTATION_BYTES_MAX: usize = 10 << 10;
/// Failures that one request leaves in the audit log.
const FAILURES_MAX: usize = 50;

/// A policy, compiled.
#[derive(Debug)]
pub struct Policy {
    pub name: String,
    pub(super) ignores_failures: bool,
    pub(super) reinvoked: bool,
    params: Option<ParamKind>,
    pub(super) constraints: Constraints,
    pub(super) conditions: Conditions,
    pub(super) variables: Vec<(String, Program)>,
    /// Of a variable that cannot be compiled.
    pub(super) fault: Option<String>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    pub(super) mutations: Vec<Mutation>,
}

#[derive(Debug)]
struct ParamKind {
    api_version: String,
    kind: String,
}

#[derive(Debug)]
pub(super) struct Expression {
    source: String,
    program: Result<Program, String>,
}

#[derive(Debug)]
struct Validation {
    expression: Expression,
    message: String,
    message_expression: Option<Expression>,
    reason: String,
}

impl Policy {
    pub fn of(policy: &Json) -> Self {
        let params = policy.pointer("/spec/paramKind").map(|kind| ParamKind {
            api_version: text(kind, "/apiVersion").to_owned(),
            kind: text(kind, "/kind").to_owned(),
        });
        let has = Has {
            params: params.is_some(),
            authorizer: true,
            patches: false,
        };
        let mut compiler = Compiler::composing();
        let (mut variables, mut fault) = (Vec::new(), None);
        for variable in items(policy, "/spec/variables") {
            let name = text(variable, "/name");
            match compiler.variable(name, text(variable, "/expression"), has) {
                Ok(program) => variables.push((name.to_owned(), program)),
                Err(told) => fault = fault.or(Some(told)),
            }
        }
        let expression = |source: &str, has: Has, gives: Gives| Expression {
            source: source.trim().to_owned(),
            program: compiler.compile(source, has, gives),
        };
        let messages = Has {
            authorizer: false,
            ..has
        };
        let validations = items(policy, "/spec/validations").iter();
        let validations = validations.map(|validation| Validation {
            expression: expression(text(validation, "/expression"), has, Gives::Bool),
            message: text(validation, "/message").trim().to_owned(),
            message_expression: Some(text(validation, "/messageExpression"))
                .filter(|source| !source.is_empty())
                .map(|source| expression(source, messages, Gives::Text)),
            reason: text(validation, "/reason").to_owned(),
        });
        let annotations = items(policy, "/spec/auditAnnotations").iter();
        let annotations = annotations.map(|annotation| {
            let source = text(annotation, "/valueExpression");
            let expression = expression(source, has, Gives::TextOrNull);
            (text(annotation, "/key").to_owned(), expression)
        });
        let patches = Has {
            patches: true,
            ..has
        };
        let mutations = items(policy, "/spec/mutations").iter();
        let mutations = mutations.map(|mutation| match text(mutation, "/patchType") {
            "ApplyConfiguration" => {
                let source = text(mutation, "/applyConfiguration/expression");
                Mutation::Apply(expression(source, patches, Gives::Applied))
            }
            _ => {
                let source = text(mutation, "/jsonPatch/expression");
                Mutation::Patch(expression(source, patches, Gives::Patches))
            }
        });
        Self {
            name: text(policy, "/metadata/name").to_owned(),
            ignores_failures: text(policy, "/spec/failurePolicy") == "Ignore",
            reinvoked: text(policy, "/spec/reinvocationPolicy") == "IfNeeded",
            constraints: Constraints::of(
                policy
                    .pointer("/spec/matchConstraints")
                    .unwrap_or(&Json::Null),
            ),
            conditions: Conditions::of(policy, "/spec/matchConditions", has),
            validations: validations.collect(),
            annotations: annotations.collect(),
            mutations: mutations.collect(),
            params,
            variables,
            fault,
        }
    }
}

/// Where a policy holds, and what comes of it.
#[derive(Debug)]
pub struct Binding {
    pub name: String,
    pub policy: String,
    constraints: Option<Constraints>,
    params: Option<ParamRef>,
    actions: Vec<String>,
}

#[derive(Debug)]
struct ParamRef {
    name: String,
    namespace: String,
    selector: LabelSelector,
    denies: bool,
}

impl Binding {
    pub fn of(binding: &Json) -> Self {
        let actions = items(binding, "/spec/validationActions").iter();
        let actions = actions.filter_map(Json::as_str).map(str::to_owned);
        Self {
            name: text(binding, "/metadata/name").to_owned(),
            policy: text(binding, "/spec/policyName").to_owned(),
            constraints: binding.pointer("/spec/matchResources").map(Constraints::of),
            params: binding.pointer("/spec/paramRef").map(|reference| ParamRef {
                name: text(reference, "/name").to_owned(),
                namespace: text(reference, "/namespace").to_owned(),
                selector: matching::selector(reference, "/selector"),
                denies: text(reference, "/parameterNotFoundAction") == "Deny",
            }),
            actions: actions.collect(),
        }
    }
}

/// The cluster as policies see it.
pub trait Lookup {
    fn kind(&self, api_version: &str, kind: &str) -> Option<Arc<Kind>>;
    fn object(&self, kind: &Arc<Kind>, namespace: Option<&str>, name: &str) -> Option<Json>;
    fn objects(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Vec<Json>;
    /// Who answers what expressions ask of rights.
    fn authorizer(&self) -> Arc<dyn Authorize>;
    /// An object of the request as another place spells it, by which a rule is about it.
    fn spelled(&self, at: &Place, object: &Json) -> Json;
}

/// The objects of a request as a place spells them, for a rule by which that place is meant.
pub(super) struct Spelled {
    new: Option<Json>,
    old: Option<Json>,
}

impl Spelled {
    /// None where they are spelled so already.
    pub(super) fn of(
        at: &Place,
        request: &Request,
        objects: &Objects<'_>,
        lookup: &dyn Lookup,
    ) -> Option<Self> {
        let spell = |object: Option<&Json>| object.map(|object| lookup.spelled(at, object));
        (*at != request.place).then(|| Self {
            new: spell(objects.new),
            old: spell(objects.old),
        })
    }

    pub(super) fn seen<'s>(spelled: Option<&'s Self>, objects: Objects<'s>) -> Objects<'s> {
        match spelled {
            None => objects,
            Some(Self { new, old }) => Objects {
                new: new.as_ref(),
                old: old.as_ref(),
                ..objects
            },
        }
    }
}

/// What is told beside an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Whether any of the policies is about a request: otherwise nothing need be prepared for them.
pub fn concern(policies: &[Arc<Policy>], request: &Request, objects: &Objects<'_>) -> bool {
    policies
        .iter()
        .any(|policy| policy.constraints.matched(request, objects).is_some())
}

/// The params of a binding: one that is none for a policy that has no use for any.
pub(super) fn params_of(
    policy: &Policy,
    binding: &Binding,
    request: &Request,
    lookup: &dyn Lookup,
) -> Result<Vec<Option<Json>>, String> {
    let (Some(kind), Some(reference)) = (&policy.params, &binding.params) else {
        return Ok(vec![None]);
    };
    let ParamKind { api_version, kind } = kind;
    let Some(kind) = lookup.kind(api_version, kind) else {
        return Err(format!(
            "paramKind kind `{api_version}, Kind={kind}` not known"
        ));
    };
    let namespace = match (kind.namespaced, reference.namespace.as_str()) {
        (false, "") => None,
        (false, _) => {
            let told = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(told.to_owned());
        }
        (true, "") if request.namespace.is_empty() => {
            let told = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(told.to_owned());
        }
        (true, "") => Some(request.namespace.as_str()),
        (true, named) => Some(named),
    };
    let found: Vec<Json> = match reference.name.as_str() {
        "" => {
            let all = lookup.objects(&kind, namespace).into_iter();
            let selected = |object: &Json| reference.selector.matches(&labels_of(Some(object)));
            all.filter(selected).collect()
        }
        name => lookup.object(&kind, namespace, name).into_iter().collect(),
    };
    if found.is_empty() && reference.denies {
        let told = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(told.to_owned());
    }
    let found = found.into_iter();
    Ok(found
        .map(|object| Some(super::expressions::identified(object, &kind)))
        .collect())
}

/// Why a request is refused.
struct Denial {
    policy: String,
    binding: Option<String>,
    message: String,
    reason: String,
}

/// Judges an object that is valid by its kind's own rules.
///
/// # Errors
/// The first refusal; 422 unless the rule gives another reason.
pub fn validate(
    policies: &[Arc<Policy>],
    bindings: &[Arc<Binding>],
    request: &Request,
    objects: Objects<'_>,
    lookup: &dyn Lookup,
) -> (Told, Result<(), StatusError>) {
    let mut told = Told::default();
    let mut denials = Vec::new();
    let mut failures = Vec::new();
    for policy in policies {
        let Some(at) = policy.constraints.matched(request, &objects) else {
            continue;
        };
        let spelled = Spelled::of(at, request, &objects, lookup);
        let seen = Spelled::seen(spelled.as_ref(), objects);
        let mut annotations: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for binding in bindings_of(policy, bindings, request, &objects) {
            let params = match params_of(policy, binding, request, lookup) {
                Ok(params) => params,
                Err(why) => {
                    if !policy.ignores_failures {
                        denials.push(Denial {
                            policy: policy.name.clone(),
                            binding: Some(binding.name.clone()),
                            message: format!("failed to configure binding: {why}"),
                            reason: String::new(),
                        });
                    }
                    continue;
                }
            };
            for params in &params {
                let scope = Scope::new(request, at, seen)
                    .with_params(params.as_ref())
                    .with_authorizer(lookup.authorizer(), request);
                let found = policy.judge(&scope, &mut annotations);
                for (index, (message, reason)) in found {
                    binding.act(
                        policy,
                        index,
                        message,
                        reason,
                        &mut told,
                        &mut denials,
                        &mut failures,
                    );
                }
            }
        }
        for (key, values) in annotations {
            let key = format!("{}/{key}", policy.name);
            told.annotations.insert(key, values.join(", "));
        }
    }
    if !failures.is_empty() {
        failures.truncate(FAILURES_MAX);
        told.annotations.insert(
            "validation.policy.admission.k8s.io/validation_failure".to_owned(),
            Json::from(failures).to_string(),
        );
    }
    let result = match denials.into_iter().next() {
        None => Ok(()),
        Some(denial) => Err(refusal(request, objects.new, denial)),
    };
    (told, result)
}

/// The bindings of a policy that are about a request, too.
pub(super) fn bindings_of<'b>(
    policy: &Policy,
    bindings: &'b [Arc<Binding>],
    request: &Request,
    objects: &Objects<'_>,
) -> Vec<&'b Binding> {
    let bindings = bindings.iter().map(|binding| &**binding);
    let about = |binding: &&Binding| {
        binding.policy == policy.name
            && binding
                .constraints
                .as_ref()
                .is_none_or(|constraints| constraints.matched(request, objects).is_some())
    };
    bindings.filter(about).collect()
}

fn refusal(request: &Request, object: Option<&Json>, denial: Denial) -> StatusError {
    let of = match &denial.binding {
        Some(binding) => format!("'{}' with binding '{binding}'", denial.policy),
        None => format!("'{}'", denial.policy),
    };
    let message = format!(
        "ValidatingAdmissionPolicy {of} denied request: {}",
        denial.message
    );
    let mut error = request.forbidden(object, &message);
    error.code = match denial.reason.as_str() {
        "Forbidden" => 403,
        "Unauthorized" => 401,
        "RequestEntityTooLarge" => 413,
        _ => 422,
    };
    error.reason = match denial.reason.is_empty() {
        true => Cow::Borrowed("Invalid"),
        false => Cow::Owned(denial.reason),
    };
    error.details.get_or_insert_default().causes.push(Cause {
        message,
        ..Cause::default()
    });
    error
}

impl Binding {
    #[expect(
        clippy::too_many_arguments,
        reason = "where a refusal goes is several places"
    )]
    fn act(
        &self,
        policy: &Policy,
        index: usize,
        message: String,
        reason: String,
        told: &mut Told,
        denials: &mut Vec<Denial>,
        failures: &mut Vec<Json>,
    ) {
        // Of an annotation, which no action is about.
        let whole = index == usize::MAX;
        for action in &self.actions {
            match action.as_str() {
                "Warn" if !whole => told.warnings.push(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {message}",
                    policy.name, self.name
                )),
                "Audit" if !whole => failures.push(json!({
                    "message": message, "policy": policy.name, "binding": self.name,
                    "expressionIndex": index, "validationActions": self.actions,
                })),
                _ => {}
            }
        }
        if whole || self.actions.iter().any(|action| action == "Deny") {
            denials.push(Denial {
                policy: policy.name.clone(),
                binding: Some(self.name.clone()),
                message,
                reason,
            });
        }
    }
}

impl Policy {
    /// What is found against an object: by which rule, the message and the reason.
    fn judge(
        &self,
        scope: &Scope<'_>,
        annotations: &mut BTreeMap<String, Vec<String>>,
    ) -> Vec<(usize, (String, String))> {
        let failed = |told: String| match self.ignores_failures {
            true => Vec::new(),
            false => vec![(0, (told, String::new()))],
        };
        if let Some(told) = &self.fault {
            return failed(told.clone());
        }
        match self.conditions.matched(scope, None) {
            Matched::Yes => {}
            Matched::No => return Vec::new(),
            Matched::Failed(_) if self.ignores_failures => return Vec::new(),
            Matched::Failed(told) => return failed(told),
        }
        let variables = scope.variables(None);
        let composed = Composed::new(&self.variables, &variables);
        let mut budget = Budget::new(POLICY_COST_MAX);
        let mut results = Vec::new();
        for validation in &self.validations {
            let found = validation
                .expression
                .run(&mut budget, &variables, &composed);
            match found {
                Err(Failure::Spent(told)) => return failed(told),
                found => results.push(found),
            }
        }
        let mut found = Vec::new();
        for (index, (validation, result)) in self.validations.iter().zip(results).enumerate() {
            match result {
                Ok(Value::Bool(true)) => {}
                Ok(_) => {
                    let message = validation.message(&mut budget, &variables, &composed);
                    match message {
                        Ok(message) => {
                            let reason = validation.reason.clone();
                            found.push((index, (message, reason)));
                        }
                        Err(told) => found.extend(
                            failed(format!("failed messageExpression: {told}"))
                                .into_iter()
                                .map(|(_, told)| (index, told)),
                        ),
                    }
                }
                Err(Failure::Error(told) | Failure::Spent(told)) => {
                    found.extend(failed(told).into_iter().map(|(_, told)| (index, told)));
                }
            }
        }
        let mut budget = Budget::new(POLICY_COST_MAX);
        for (key, expression) in &self.annotations {
            match expression.run(&mut budget, &variables, &composed) {
                Ok(Value::String(value)) => {
                    let value = value.trim();
                    let value = cut(value, ANNOTATION_BYTES_MAX).to_owned();
                    let values = annotations.entry(key.clone()).or_default();
                    if !value.is_empty() && !values.contains(&value) {
                        values.push(value);
                    }
                }
                Ok(_) => {}
                Err(Failure::Error(told) | Failure::Spent(told)) => {
                    let told = failed(told).into_iter();
                    found.extend(told.map(|(_, told)| (usize::MAX, told)));
                }
            }
        }
        annotations.retain(|_, values| !values.is_empty());
        found
    }
}

/// As much of a text as fits.
fn cut(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len()))
        .rev()
        .find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

impl Expression {
    pub(super) fn run<'a>(
        &'a self,
        budget: &mut Budget,
        variables: &[(&'a str, Value<'a>)],
        composed: &Composed<'a>,
    ) -> Result<Value<'a>, Failure> {
        match &self.program {
            Ok(program) => budget.run(program, &self.source, variables, composed),
            Err(told) => Err(Failure::Error(told.clone())),
        }
    }
}

impl Validation {
    /// # Errors
    /// That the budget is used up.
    fn message<'a>(
        &'a self,
        budget: &mut Budget,
        variables: &[(&'a str, Value<'a>)],
        composed: &Composed<'a>,
    ) -> Result<String, String> {
        if let Some(expression) = &self.message_expression {
            match expression.run(budget, variables, composed) {
                Ok(Value::String(made)) => {
                    let made = made.trim();
                    let sound =
                        !made.is_empty() && made.len() <= MESSAGE_BYTES_MAX && !made.contains('\n');
                    if sound {
                        return Ok(made.to_owned());
                    }
                }
                Err(Failure::Spent(told)) => return Err(told),
                _ => {}
            }
        }
        Ok(match self.message.is_empty() {
            true => format!("failed expression: {}", self.expression.source),
            false => self.message.clone(),
        })
    }
}

#[cfg(test)]
mod tests;
