//! `ValidatingAdmissionPolicy` and `MutatingAdmissionPolicy`.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use serde_json::{Value, json};
use weft_api::gvk::GroupVersionKind;
use weft_api::name;

use super::rules;
use crate::admission::expressions::{Compiler, Gives, Has};
use crate::cel::{Decl, is_identifier};
use crate::columns::{Column, Row};
use crate::conditions::conditions;
use crate::field::Field;
use crate::lens::{fill, items, member, text};
use crate::schema::Schema;
use crate::strategy::Strategy;
use crate::validate::Problems;
use crate::{Kind, Registry, Subresource};

/// Annotations of one policy in the audit log.
const ANNOTATIONS_MAX: usize = 20;
/// Bytes of the expression of one.
const ANNOTATION_BYTES_MAX: usize = 5 << 10;
/// Kinds of object that the expressions of one policy are looked at for.
const TYPES_MAX: usize = 10;

pub static VALIDATING_ADMISSION_POLICY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(Kind {
        subresources: vec![Subresource::Status],
        ..super::kind(
            "ValidatingAdmissionPolicy",
            "validatingadmissionpolicies",
            vec![
                Column::name(),
                Column::integer(
                    "Validations",
                    validations,
                    "How many rules there are in it.",
                ),
                Column::text("ParamKind", param_kind, "The kind of its params."),
                Column::age(),
            ],
            Validating,
        )
    })
});

pub static MUTATING_ADMISSION_POLICY: LazyLock<Arc<Kind>> = LazyLock::new(|| {
    Arc::new(super::kind(
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        vec![
            Column::name(),
            Column::integer("Mutations", mutations, "How many changes there are in it."),
            Column::text("ParamKind", param_kind, "The kind of its params."),
            Column::age(),
        ],
        Mutating,
    ))
});

fn validations(row: &Row<'_>) -> Value {
    items(row.object, "/spec/validations").len().into()
}

fn mutations(row: &Row<'_>) -> Value {
    items(row.object, "/spec/mutations").len().into()
}

fn param_kind(row: &Row<'_>) -> Value {
    match row.object.pointer("/spec/paramKind") {
        Some(kind) => format!("{}/{}", text(kind, "/apiVersion"), text(kind, "/kind")).into(),
        None => "<unset>".into(),
    }
}

struct Validating;
struct Mutating;

fn default(value: &mut Value) {
    let spec = member(value, "spec");
    fill(spec, "failurePolicy", "Fail");
    rules::default_match(spec, "matchConstraints");
}

impl Strategy for Validating {
    fn default(&self, value: &mut Value) {
        default(value);
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let (mut compiler, has) = common(&spec, problems);
        variables(&mut compiler, &spec, has, problems);
        let (rules, annotations) = (spec.child("validations"), spec.child("auditAnnotations"));
        if rules.list().is_empty() && annotations.list().is_empty() {
            let sentence = "validations or auditAnnotations must contain at least one item";
            problems.required(&rules, sentence);
            problems.required(&annotations, sentence);
        }
        for rule in spec.items("validations") {
            validation(&compiler, &rule, has, problems);
        }
        self::annotations(&compiler, &root, has, problems);
        super::static_name(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        part: Option<Subresource>,
        problems: &mut Problems,
    ) {
        if part != Some(Subresource::Status) {
            return self.validate(new, problems);
        }
        let root = Field::root(new);
        for warning in root.items("status.typeChecking.expressionWarnings") {
            problems.required_text(&warning.child("warning"));
            problems.required_text(&warning.child("fieldRef"));
        }
        conditions(&root.child("status"), problems);
    }
}

/// What both sorts of policies say; what their expressions may name.
fn common(spec: &Field<'_, '_>, problems: &mut Problems) -> (Compiler, Has) {
    let failure = spec.child("failurePolicy");
    match failure.is_set() {
        true => problems.one_of(&failure, rules::FAILURE_POLICIES),
        false => problems.required(&failure, ""),
    }
    let params = spec.child("paramKind");
    if params.is_set() {
        rules::param_kind(&params, problems);
    }
    let constraints = spec.child("matchConstraints");
    match constraints.is_set() {
        false => problems.required(&constraints, ""),
        true => {
            rules::match_resources(&constraints, problems);
            if constraints.child("resourceRules").list().is_empty() {
                problems.required(&constraints.child("resourceRules"), "");
            }
        }
    }
    let compiler = match spec.child("variables").list().is_empty() {
        true => Compiler::default(),
        false => Compiler::composing(),
    };
    let has = Has {
        params: params.is_set(),
        authorizer: true,
        patches: false,
    };
    (compiler, has)
}

fn variables(compiler: &mut Compiler, spec: &Field<'_, '_>, has: Has, problems: &mut Problems) {
    rules::conditions(spec, has.params, problems);
    for variable in spec.items("variables") {
        let (own_name, source) = (variable.child("name"), variable.child("expression"));
        if own_name.text().trim().is_empty() {
            problems.required(&own_name, "name is not specified");
        } else if !is_identifier(own_name.text()) {
            problems.invalid(&own_name, own_name.text(), "must be a valid CEL identifier");
        }
        if source.text().trim().is_empty() {
            problems.required(&source, "expression is not specified");
        } else if let Err(told) = compiler.variable(own_name.text(), source.text(), has) {
            problems.invalid(&source, source.text(), &told);
        }
    }
}

const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];

fn validation(compiler: &Compiler, rule: &Field<'_, '_>, has: Has, problems: &mut Problems) {
    let source = rule.child("expression");
    if source.text().trim().is_empty() {
        problems.required(&source, "expression is not specified");
    } else {
        expression(compiler, &source, has, Gives::Bool, problems);
    }
    let made = rule.child("messageExpression");
    if !made.text().is_empty() && made.text().trim().is_empty() {
        problems.invalid(&made, made.text(), "must be non-empty if specified");
    } else if !made.text().is_empty() {
        let has = Has {
            authorizer: false,
            ..has
        };
        expression(compiler, &made, has, Gives::Text, problems);
    }
    let message = rule.child("message");
    let trimmed = message.text().trim();
    if !message.text().is_empty() && trimmed.is_empty() {
        problems.invalid(&message, message.text(), "must be non-empty if specified");
    } else if trimmed.contains(['\n', '\r']) {
        problems.invalid(&message, message.text(), "must not contain line breaks");
    }
    problems.one_of(&rule.child("reason"), REASONS);
}

fn expression(
    compiler: &Compiler,
    source: &Field<'_, '_>,
    has: Has,
    gives: Gives,
    problems: &mut Problems,
) {
    if let Err(told) = compiler.compile(source.text(), has, gives) {
        problems.invalid(source, source.text(), &told);
    }
}

fn annotations(compiler: &Compiler, root: &Field<'_, '_>, has: Has, problems: &mut Problems) {
    let spec = root.child("spec");
    let all = spec.child("auditAnnotations");
    if all.list().len() > ANNOTATIONS_MAX {
        let sentence = format!("must not have more than {ANNOTATIONS_MAX} auditAnnotations");
        problems.invalid(&all, all.shown(), &sentence);
    }
    let policy = root.child("metadata.name");
    let mut keys = BTreeSet::new();
    for annotation in spec.items("auditAnnotations") {
        let key = annotation.child("key");
        if policy.text().is_empty() {
            problems.invalid(&key, key.text(), "requires metadata.name be non-empty");
        } else {
            let whole = format!("{}/{}", policy.text(), key.text());
            for fault in name::qualified_name_faults(&whole) {
                problems.invalid(&key, whole.as_str(), &fault);
            }
        }
        let source = annotation.child("valueExpression");
        let trimmed = source.text().trim();
        if trimmed.is_empty() {
            problems.required(&source, "valueExpression is not specified");
        } else if trimmed.len() > ANNOTATION_BYTES_MAX {
            let sentence = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
            problems.required(&source, &sentence);
        } else if let Err(told) = compiler.compile(trimmed, has, Gives::TextOrNull) {
            problems.invalid(&source, source.text(), &told);
        }
        if !keys.insert(key.text()) {
            problems.duplicate(&key, key.text());
        }
    }
}

impl Strategy for Mutating {
    fn default(&self, value: &mut Value) {
        default(value);
    }

    fn allows_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, new: &Value, problems: &mut Problems) {
        let root = Field::root(new);
        let spec = root.child("spec");
        let (_, has) = common(&spec, problems);
        let mut compiler = Compiler::composing();
        let operations = spec.child("matchConstraints");
        let operations = operations.child("resourceRules");
        let at = operations.child("operations");
        for rule in spec.items("matchConstraints.resourceRules") {
            for operation in rule.items("operations") {
                let supported = ["*", "CONNECT", "CREATE", "UPDATE"];
                problems.one_of_as(&at, operation.text(), &supported);
            }
        }
        variables(&mut compiler, &spec, has, problems);
        let mutations = spec.child("mutations");
        if mutations.list().is_empty() {
            problems.required(&mutations, "mutations must contain at least one item");
        }
        for change in spec.items("mutations") {
            mutation(&compiler, &change, has, problems);
        }
        problems.required_one_of(
            &spec.child("reinvocationPolicy"),
            rules::REINVOCATION_POLICIES,
        );
        super::static_name(&root, problems);
    }

    fn validate_update(
        &self,
        new: &Value,
        _: &Value,
        _: Option<Subresource>,
        problems: &mut Problems,
    ) {
        self.validate(new, problems);
    }
}

fn mutation(compiler: &Compiler, of: &Field<'_, '_>, has: Has, problems: &mut Problems) {
    let kind = of.child("patchType");
    let (own, other, gives) = match kind.text() {
        "JSONPatch" => ("jsonPatch", "applyConfiguration", Gives::Patches),
        "ApplyConfiguration" => ("applyConfiguration", "jsonPatch", Gives::Applied),
        _ => {
            let known = ["ApplyConfiguration", "JSONPatch"];
            return problems.required_one_of(&kind, &known);
        }
    };
    let (change, other_change) = (of.child(own), of.child(other));
    if change.is_set() {
        let source = change.child("expression");
        let trimmed = source.text().trim();
        let has = Has {
            patches: true,
            ..has
        };
        if trimmed.is_empty() {
            problems.required(&source, "");
        } else if let Err(told) = compiler.compile(trimmed, has, gives) {
            problems.invalid(&source, trimmed, &told);
        }
    } else {
        let sentence = format!("must be specified when patchType is {}", kind.text());
        problems.required(&change, &sentence);
    }
    if other_change.is_set() {
        let sentence = format!("must not be specified when patchType is {}", kind.text());
        problems.invalid(&other_change, format!("{{{other}}}"), &sentence);
    }
}

/// What is wrong with the expressions of a policy for the kinds that it names, whose fields are known: it is told in its status, since
/// such an expression may nevertheless be right for others.
pub fn type_warnings(policy: &Value, kinds: &Registry) -> Vec<Value> {
    let found = kinds_of(policy, kinds);
    let has_params = policy.pointer("/spec/paramKind").is_some();
    let params = policy.pointer("/spec/paramKind").and_then(|kind| {
        let (group, version) = split(text(kind, "/apiVersion"));
        let gvk = GroupVersionKind::new(group, version, text(kind, "/kind"));
        Decl::of(Schema::of(&gvk)?, true)
    });
    let has = Has {
        params: has_params,
        authorizer: true,
        patches: false,
    };
    let mut told: Vec<(String, Vec<String>)> = Vec::new();
    for gvk in &found {
        let Some(decl) = Schema::of(gvk).and_then(|schema| Decl::of(schema, true)) else {
            continue;
        };
        let mut compiler = Compiler::composing();
        compiler.object = Some(decl.cel_type());
        compiler.params = params.as_ref().map(Decl::cel_type);
        for variable in items(policy, "/spec/variables") {
            // What is wrong with one is told where it is used.
            let _ = compiler.variable(text(variable, "/name"), text(variable, "/expression"), has);
        }
        for (index, rule) in items(policy, "/spec/validations").iter().enumerate() {
            for (field, gives) in [
                ("expression", Gives::Bool),
                ("messageExpression", Gives::Text),
            ] {
                let source = text(rule, &format!("/{field}"));
                if source.is_empty() {
                    continue;
                }
                if let Err(fault) = compiler.compile(source, has, gives) {
                    let fault = fault.strip_prefix("compilation failed: ").unwrap_or(&fault);
                    let of = match gvk.group.is_empty() {
                        true => format!("{}, Kind={}", gvk.version, gvk.kind),
                        false => format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind),
                    };
                    let line = format!("{of}: {fault}");
                    let place = format!("spec.validations[{index}].{field}");
                    match told.iter_mut().find(|(known, _)| *known == place) {
                        Some((_, lines)) => lines.push(line),
                        None => told.push((place, vec![line])),
                    }
                }
            }
        }
    }
    told.into_iter()
        .map(|(place, lines)| json!({"fieldRef": place, "warning": lines.join("\n")}))
        .collect()
}

fn split(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

/// The kinds that a policy names without a star.
fn kinds_of(policy: &Value, kinds: &Registry) -> BTreeSet<GroupVersionKind> {
    let mut found = BTreeSet::new();
    for rule in items(policy, "/spec/matchConstraints/resourceRules") {
        let list = |field: &str| -> Vec<&str> {
            let list = items(rule, &format!("/{field}")).iter();
            list.filter_map(Value::as_str).collect()
        };
        let (groups, versions) = (list("apiGroups"), list("apiVersions"));
        let resources = list("resources");
        let star = |list: &[&str]| list.iter().any(|name| name.contains('*'));
        if star(&groups) || star(&versions) || star(&resources) {
            continue;
        }
        for (group, version) in groups
            .iter()
            .flat_map(|group| versions.iter().map(move |version| (*group, *version)))
        {
            let plain = resources.iter().filter(|resource| !resource.contains('/'));
            for kind in plain.filter_map(|name| kinds.by_resource(group, version, name)) {
                if found.len() < TYPES_MAX {
                    found.insert(kind.gvk());
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::told;

    fn validating() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["deployments"]}]},
            "variables": [{"name": "n", "expression": "object.spec.replicas"}, {"name": "m", "expression": "variables.n + 1"}],
            "validations": [{"expression": "variables.m <= 5", "messageExpression": "'at most ' + string(variables.n)"}],
        }})
    }

    #[test]
    fn validating_policies_are_sound() {
        told::check(
            &VALIDATING_ADMISSION_POLICY,
            &validating(),
            &[
                (
                    "/spec/validations",
                    json!([]),
                    &[
                        "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                        "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
                    ],
                ),
                (
                    "/spec/validations/0",
                    json!({"expression": "variables.x", "message": "a\nb", "reason": "Why"}),
                    &[
                        "spec.validations[0].expression: Invalid value: \"variables.x\": compilation failed: ERROR: <input>:1:10: undefined field 'x'\n | variables.x\n | .........^",
                        "spec.validations[0].message: Invalid value: \"a\\nb\": must not contain line breaks",
                        "spec.validations[0].reason: Unsupported value: \"Why\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\"",
                    ],
                ),
                (
                    "/spec/validations/0",
                    json!({"expression": "params.x == 1"}),
                    &[
                        "spec.validations[0].expression: Invalid value: \"params.x == 1\": compilation failed: ERROR: <input>:1:1: undeclared reference to 'params' (in container '')\n | params.x == 1\n | ^",
                    ],
                ),
                (
                    "/spec/variables/0",
                    json!({"name": "if", "expression": "1"}),
                    &[
                        "spec.variables[0].name: Invalid value: \"if\": must be a valid CEL identifier",
                        "spec.variables[1].expression: Invalid value: \"variables.n + 1\": compilation failed: ERROR: <input>:1:10: undefined field 'n'\n | variables.n + 1\n | .........^",
                        "spec.validations[0].messageExpression: Invalid value: \"'at most ' + string(variables.n)\": compilation failed: ERROR: <input>:1:30: undefined field 'n'\n | 'at most ' + string(variables.n)\n | .............................^",
                    ],
                ),
                (
                    "/spec/matchConstraints",
                    json!({}),
                    &["spec.matchConstraints.resourceRules: Required value"],
                ),
                (
                    "/spec/paramKind",
                    json!({"apiVersion": "a/b/c", "kind": "X_"}),
                    &[
                        "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                        "spec.paramKind.kind: Invalid value: \"X_\": may have mixed case, but should otherwise match: a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
                    ],
                ),
                (
                    "/spec/auditAnnotations",
                    json!([{"key": "k", "valueExpression": "1"}, {"key": "k", "valueExpression": "null"}]),
                    &[
                        "spec.auditAnnotations[0].valueExpression: Invalid value: \"1\": must evaluate to one of [string null_type] but got int",
                        "spec.auditAnnotations[1].key: Duplicate value: \"k\"",
                    ],
                ),
            ],
        );
    }

    #[test]
    fn mutating_policies_are_sound() {
        let base = json!({"metadata": {"name": "p"}, "spec": {
            "matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]},
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression":
                "[JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}]"}}],
            "reinvocationPolicy": "Never",
        }});
        told::check(
            &MUTATING_ADMISSION_POLICY,
            &base,
            &[
                (
                    "/spec/mutations/0/jsonPatch/expression",
                    json!("[JSONPatch{op: 1, paths: ''}]"),
                    &[
                        "spec.mutations[0].jsonPatch.expression: Invalid value: \"[JSONPatch{op: 1, paths: ''}]\": compilation failed: ERROR: <input>:1:14: expected type of field 'op' is 'string' but provided type is 'int'\n | [JSONPatch{op: 1, paths: ''}]\n | .............^\nERROR: <input>:1:24: undefined field 'paths'\n | [JSONPatch{op: 1, paths: ''}]\n | .......................^",
                    ],
                ),
                (
                    "/spec/mutations/0",
                    json!({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": "Object{spec: Object.spec{nodeName: 'n'}}"}}),
                    &[],
                ),
                (
                    "/spec/mutations/0/patchType",
                    json!("ApplyConfiguration"),
                    &[
                        "spec.mutations[0].applyConfiguration: Required value: must be specified when patchType is ApplyConfiguration",
                        "spec.mutations[0].jsonPatch: Invalid value: \"{jsonPatch}\": must not be specified when patchType is ApplyConfiguration",
                    ],
                ),
                (
                    "/spec/matchConstraints/resourceRules/0/operations",
                    json!(["DELETE"]),
                    &[
                        "spec.matchConstraints.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"UPDATE\"",
                    ],
                ),
                (
                    "/spec/reinvocationPolicy",
                    Value::Null,
                    &["spec.reinvocationPolicy: Required value"],
                ),
            ],
        );
    }

    #[test]
    fn names_that_a_kind_does_not_have_are_told() {
        let registry = Registry::builtin();
        assert_eq!(type_warnings(&validating(), &registry), Vec::<Value>::new());
        let wrong = told::with(
            &validating(),
            "/spec/validations/0/expression",
            json!("object.replicas > 1"),
        );
        let found = type_warnings(&wrong, &registry);
        assert_eq!(found[0]["fieldRef"], "spec.validations[0].expression");
        assert_eq!(
            found[0]["warning"],
            "apps/v1, Kind=Deployment: ERROR: <input>:1:7: undefined field 'replicas'\n | object.replicas > 1\n | ......^"
        );
    }
}
