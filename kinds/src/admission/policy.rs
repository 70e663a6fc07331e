//! Admission policies: expressions that judge objects, or change them, wherever a binding says so.
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
use weft_api::gvk::GroupVersionKind;
use weft_api::selector::LabelSelector;
use weft_api::status::{Cause, StatusError};

use super::expressions::{
    Budget, Compiler, Conditions, Failure, Gives, Has, Matched, POLICY_COST_MAX, Scope,
};
use super::matching::{self, Constraints, Objects, labels_of};
use super::{Place, Request};
use crate::Kind;
use crate::cel::{Authorize, Composed, Program, Value};
use crate::lens::{items, text};
use crate::patch::{self, PatchKind};

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
    ignores_failures: bool,
    reinvoked: bool,
    params: Option<ParamKind>,
    constraints: Constraints,
    conditions: Conditions,
    variables: Vec<(String, Program)>,
    /// Of a variable that cannot be compiled.
    fault: Option<String>,
    validations: Vec<Validation>,
    annotations: Vec<(String, Expression)>,
    mutations: Vec<Mutation>,
}

#[derive(Debug)]
struct ParamKind {
    api_version: String,
    kind: String,
}

#[derive(Debug)]
struct Expression {
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

#[derive(Debug)]
enum Mutation {
    Patch(Expression),
    Apply(Expression),
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
fn params_of(
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
                let scope = Scope::new(request, at, objects)
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
fn bindings_of<'b>(
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
    fn run<'a>(
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

/// What one round of mutating policies is told of the round before it.
#[derive(Clone, Debug, Default)]
pub struct Round {
    /// Policies with bindings that may run again.
    pub again: Option<Vec<(String, String)>>,
    /// Those that ran, and may run again once the object has changed.
    pub ran: Vec<(String, String)>,
    /// Those whose object was changed after them.
    pub due: Vec<(String, String)>,
}

impl Round {
    fn allows(&self, key: &(String, String)) -> bool {
        self.again.as_ref().is_none_or(|again| again.contains(key))
    }

    /// Whoever ran before is due, since the object has changed.
    pub fn changed(&mut self) {
        for key in std::mem::take(&mut self.ran) {
            if !self.due.contains(&key) {
                self.due.push(key);
            }
        }
    }
}

/// Changes an object; `settle` gives the form that the changed one has, with its defaults.
///
/// # Errors
/// 403 or 422 for a policy that fails, and what `settle` finds wrong.
pub fn mutate(
    policies: &[Arc<Policy>],
    bindings: &[Arc<Binding>],
    request: &Request,
    objects: Objects<'_>,
    lookup: &dyn Lookup,
    round: &mut Round,
    settle: impl Fn(&Place, Json) -> Result<Json, StatusError>,
) -> Result<Option<Json>, StatusError> {
    let mut object = objects.new.cloned();
    let mut changed = false;
    let mut faults: Vec<(String, bool)> = Vec::new();
    for policy in policies {
        let now = Objects {
            new: object.as_ref(),
            ..objects
        };
        let Some(at) = policy.constraints.matched(request, &now) else {
            continue;
        };
        let chosen = bindings_of(policy, bindings, request, &now);
        for binding in chosen {
            let key = (policy.name.clone(), binding.name.clone());
            let mut fail = |told: String, invalid: bool| {
                if !policy.ignores_failures {
                    let told = format!(
                        "policy '{}' with binding '{}' denied request: {told}",
                        policy.name, binding.name
                    );
                    faults.push((told, invalid));
                }
            };
            let params = match params_of(policy, binding, request, lookup) {
                Ok(params) => params,
                Err(why) => {
                    fail(format!("failed to configure binding: {why}"), false);
                    continue;
                }
            };
            for params in &params {
                let scope = Scope::new(request, at, objects)
                    .with_params(params.as_ref())
                    .with_authorizer(lookup.authorizer(), request);
                match policy.conditions.matched(&scope, object.as_ref()) {
                    Matched::Yes => {}
                    Matched::No => continue,
                    Matched::Failed(told) => {
                        fail(told, true);
                        continue;
                    }
                }
                if !round.allows(&key) {
                    continue;
                }
                for mutation in &policy.mutations {
                    let Some(before) = &object else { continue };
                    match policy.change(mutation, &scope, before) {
                        Err(told) => fail(told, true),
                        Ok(next) => {
                            let next = settle(at, next)?;
                            if next != *before {
                                changed = true;
                                round.changed();
                            }
                            object = Some(next);
                        }
                    }
                }
                if policy.reinvoked && !round.ran.contains(&key) {
                    round.ran.push(key.clone());
                }
            }
        }
    }
    if let Some((first, invalid)) = faults.first() {
        let mut error = request.forbidden(object.as_ref(), "admission request denied by policy");
        first.clone_into(&mut error.message);
        if *invalid {
            error.reason = Cow::Borrowed("Invalid");
        }
        let causes = faults.iter().map(|(message, _)| Cause {
            message: message.clone(),
            ..Cause::default()
        });
        error.details.get_or_insert_default().causes.extend(causes);
        return Err(error);
    }
    Ok(object.filter(|_| changed))
}

impl Policy {
    fn change(
        &self,
        mutation: &Mutation,
        scope: &Scope<'_>,
        object: &Json,
    ) -> Result<Json, String> {
        if let Some(told) = &self.fault {
            return Err(told.clone());
        }
        let variables = scope.variables(Some(object));
        let composed = Composed::new(&self.variables, &variables);
        let mut budget = Budget::new(POLICY_COST_MAX);
        let told = |(Failure::Error(told) | Failure::Spent(told))| told;
        match mutation {
            Mutation::Patch(expression) => {
                let found = expression
                    .run(&mut budget, &variables, &composed)
                    .map_err(told)?;
                let patch = found.to_json().map_err(|error| error.message)?;
                let of = GroupVersionKind::new("", "", "");
                let patched = patch::apply(&of, object, PatchKind::Json, &patch);
                match patched {
                    Ok(next) => Ok(next),
                    // A test that fails says that there is nothing to do.
                    Err(error) if is_failed_test(&error) => Ok(object.clone()),
                    Err(error) => Err(format!("JSON Patch: {}", error.message)),
                }
            }
            Mutation::Apply(expression) => {
                if let Err(told) = &expression.program {
                    return Err(told.clone());
                }
                // Merging by the schema is server-side apply's, which is not served yet.
                Err("ApplyConfiguration mutations are not supported by this server yet: use patchType JSONPatch".to_owned())
            }
        }
    }
}

fn is_failed_test(error: &StatusError) -> bool {
    error.message.contains("value did not match")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::expressions::Nobody;
    use crate::admission::{Operation, User};

    /// A cluster with one ConfigMap of params, in which nobody may anything.
    struct Cluster;

    impl Lookup for Cluster {
        fn kind(&self, _: &str, kind: &str) -> Option<Arc<Kind>> {
            (kind == "ConfigMap").then(|| Arc::clone(&crate::CONFIG_MAP))
        }

        fn object(&self, _: &Arc<Kind>, _: Option<&str>, name: &str) -> Option<Json> {
            (name == "limits")
                .then(|| json!({"metadata": {"name": "limits"}, "data": {"most": "2"}}))
        }

        fn objects(&self, kind: &Arc<Kind>, namespace: Option<&str>) -> Vec<Json> {
            self.object(kind, namespace, "limits").into_iter().collect()
        }

        fn authorizer(&self) -> Arc<dyn Authorize> {
            Arc::new(Nobody)
        }
    }

    fn request() -> Request {
        Request {
            operation: Operation::Create,
            place: Place {
                group: String::new(),
                version: "v1".to_owned(),
                kind: "Pod".to_owned(),
                resource: "pods".to_owned(),
                resource_group: String::new(),
                resource_version: "v1".to_owned(),
            },
            equivalents: Vec::new(),
            subresource: String::new(),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            user: User {
                name: "jo".to_owned(),
                ..User::default()
            },
            dry_run: false,
            options: json!({}),
        }
    }

    fn policy(more: &Json) -> Arc<Policy> {
        let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]}});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let policy = json!({"metadata": {"name": "p"}, "spec": spec});
        Arc::new(Policy::of(&policy))
    }

    fn binding(more: &Json) -> Arc<Binding> {
        let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        Arc::new(Binding::of(
            &json!({"metadata": {"name": "b"}, "spec": spec}),
        ))
    }

    /// What a policy says of a list of thirty numbers.
    fn told(of: &Json, bound: &Json) -> String {
        let object =
            json!({"metadata": {"name": "p"}, "spec": {"list": (0..30).collect::<Vec<i32>>()}});
        let objects = Objects {
            new: Some(&object),
            ..Objects::default()
        };
        let (told, result) = validate(
            &[policy(of)],
            &[binding(bound)],
            &request(),
            objects,
            &Cluster,
        );
        match result {
            Ok(()) => format!("{:?}", told.annotations),
            Err(error) => {
                let start = "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: ";
                let message = error.message.strip_prefix(start).unwrap_or(&error.message);
                format!("{} {} {message}", error.code, error.reason)
            }
        }
    }

    #[test]
    fn what_is_asked_for_is_run_and_told() {
        let bad = json!([{"name": "bad", "expression": "object.spec.none"}, {"name": "twice", "expression": "size(object.spec.list) * 2"}]);
        let rule = |expression: &str| json!({"variables": bad, "validations": [{"expression": expression}]});
        let huge = "object.spec.list.all(a, object.spec.list.all(b, object.spec.list.all(c, object.spec.list.all(d, true))))";
        let spent =
            "expression 'HUGE' resulted in error: operation cancelled: actual cost limit exceeded"
                .replace("HUGE", huge);
        for (of, bound, expected) in [
            (rule("variables.twice == 60 || variables.bad"), json!({}), "{}".to_owned()),
            (
                rule("variables.bad == 1"),
                json!({}),
                "422 Invalid expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: no such key: none".to_owned(),
            ),
            (
                rule("variables.twice == 61"),
                json!({}),
                "422 Invalid failed expression: variables.twice == 61".to_owned(),
            ),
            (rule(huge), json!({}), format!("422 Invalid {spent}")),
            (
                rule("authorizer.group('').resource('pods').check('get').allowed()"),
                json!({}),
                "422 Invalid failed expression: authorizer.group('').resource('pods').check('get').allowed()".to_owned(),
            ),
            (
                json!({"failurePolicy": "Ignore", "validations": [{"expression": "object.none"}]}),
                json!({}),
                "{}".to_owned(),
            ),
            (
                json!({"matchConditions": [{"name": "c", "expression": "request.userInfo.username == 'al'"}], "validations": [{"expression": "false"}]}),
                json!({}),
                "{}".to_owned(),
            ),
            (
                json!({"validations": [{"expression": "false", "message": " no ", "reason": "Forbidden", "messageExpression": "'a\\nb'"}]}),
                json!({}),
                "403 Forbidden no".to_owned(),
            ),
            (
                json!({"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "params.kind == 'ConfigMap' && int(params.data.most) > 2"}]}),
                json!({"paramRef": {"selector": {}, "parameterNotFoundAction": "Deny"}}),
                "422 Invalid failed expression: params.kind == 'ConfigMap' && int(params.data.most) > 2".to_owned(),
            ),
            (
                json!({"paramKind": {"apiVersion": "v1", "kind": "Limit"}, "validations": [{"expression": "true"}]}),
                json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}}),
                "422 Invalid failed to configure binding: paramKind kind `v1, Kind=Limit` not known".to_owned(),
            ),
            (
                json!({"auditAnnotations": [{"key": "k", "valueExpression": "'v'"}]}),
                json!({}),
                "{\"p/k\": \"v\"}".to_owned(),
            ),
        ] {
            assert_eq!(told(&of, &bound), expected, "{of}");
        }
    }

    #[test]
    fn changes_follow_each_other_and_a_test_that_fails_is_none() {
        let object = json!({"metadata": {"name": "p"}, "spec": {}});
        let objects = Objects {
            new: Some(&object),
            ..Objects::default()
        };
        let change = |mutations: Json| {
            let policy = policy(&json!({"mutations": mutations}));
            let mut round = Round::default();
            let binding = binding(&json!({}));
            let changed = mutate(
                &[policy],
                &[binding],
                &request(),
                objects,
                &Cluster,
                &mut round,
                |_, next| Ok(next),
            );
            changed.map_err(|error| error.message)
        };
        let patch = |expression: &str| json!({"patchType": "JSONPatch", "jsonPatch": {"expression": expression}});
        let found = change(json!([
            patch("[JSONPatch{op: 'add', path: '/spec/' + jsonpatch.escapeKey('a/b'), value: 1}]"),
            patch("[JSONPatch{op: 'add', path: '/spec/c', value: object.spec['a/b'] + 1}]"),
            patch(
                "[JSONPatch{op: 'test', path: '/spec/c', value: 5}, JSONPatch{op: 'remove', path: '/spec'}]"
            ),
        ]));
        assert_eq!(found.unwrap().unwrap()["spec"], json!({"a/b": 1, "c": 2}));
        let none = "object.spec.size() > 9 ? [JSONPatch{op: 'remove', path: '/spec'}] : []";
        assert_eq!(change(json!([patch(none)])), Ok(None));
        let refused = change(
            json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{a: 1}}"}}]),
        );
        assert_eq!(
            refused.unwrap_err(),
            "policy 'p' with binding 'b' denied request: ApplyConfiguration mutations are not supported by this server yet: use patchType JSONPatch"
        );
    }
}
