//! Objects judged by the rules of their schema: `x-kubernetes-validations`.
//!
//! Rules of a place are compiled when an object first needs them and kept with the schema. They run from the root down, each with the
//! budget of one call, all with that of one object; where either is used up, nothing more is judged and the write is refused.
//! A rule that names `oldSelf` runs where the old object has a counterpart. A value that an update leaves as it was is not held
//! against it, unless the rule is about the change.
//!
//! [`definition_faults`] is what a definition of such a schema is refused for: mistakes, and rules that can cost too much.
//!
//! Source: k8s.io/apiextensions-apiserver `pkg/apiserver/schema/cel/{compilation,validation}.go`,
//! `pkg/apis/apiextensions/validation`.

use std::sync::Arc;

use serde_json::Value as Json;
use weft_api::status::Cause;

use super::correlation::{Keyed, Old};
use super::functions::formatting::quoted;
use super::{Decl, Error, Meter, Program, Type, Value};
use crate::schema::{Node, Rule, Schema};

/// Cost of all rules over one object, upstream's `RuntimeCELCostBudget`: about a second.
pub const OBJECT_COST_MAX: u64 = 10_000_000;

/// Cost that one rule may be estimated at, `StaticEstimatedCostLimit`.
pub const RULE_ESTIMATE_MAX: u64 = 10_000_000;

/// Cost that all rules of a definition may be estimated at, `StaticEstimatedCRDCostLimit`.
pub const DEFINITION_ESTIMATE_MAX: u64 = 100_000_000;

/// Longest message that an expression may make.
const MESSAGE_BYTES_MAX: usize = 5 << 10;

/// A rule that can run, or why it cannot.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// None where the rule is empty.
    program: Option<Result<Program, String>>,
    message: Option<Result<Program, String>>,
    /// Where its faults are told, below its own place: `.spec.x`.
    field_path: String,
}

/// The rules of one place.
#[derive(Debug)]
pub(crate) struct Place {
    decl: Option<Arc<Decl>>,
    compiled: Vec<Compiled>,
}

impl Place {
    /// Compiles the rules of a place; the root of an object knows its type and name.
    pub(crate) fn compile(schema: Schema<'_>, rules: &[Rule], root: bool) -> Self {
        let decl = Decl::of(schema, root);
        let compiled = rules
            .iter()
            .map(|rule| Compiled::new(schema, rule, decl.as_ref()))
            .collect();
        Self { decl, compiled }
    }
}

impl Compiled {
    fn new(schema: Schema<'_>, rule: &Rule, decl: Option<&Arc<Decl>>) -> Self {
        let field_path = field_path(schema, &rule.field_path).unwrap_or_default();
        let nothing = |program| Self {
            program,
            message: None,
            field_path: field_path.clone(),
        };
        if rule.rule.trim().is_empty() {
            return nothing(None);
        }
        let Some(decl) = decl else {
            let told = "failed to convert to declType for CEL validation rules";
            return nothing(Some(Err(told.to_owned())));
        };
        let of = decl.cel_type();
        let old = match rule.optional_old_self {
            Some(true) => Type::optional(of.clone()),
            _ => of.clone(),
        };
        let variables = [("self", of), ("oldSelf", old)];
        let program = Program::compile(&rule.rule, &variables, Some(decl));
        let program = match program {
            Ok(program) if *program.output() != Type::Bool => {
                Err("cel expression must evaluate to a bool".to_owned())
            }
            Err(told) if !told.starts_with("program instantiation failed") => {
                Err(format!("compilation failed: {told}"))
            }
            program => program,
        };
        let message = (program.is_ok() && !rule.message_expression.is_empty()).then(|| {
            let source = &rule.message_expression;
            match Program::compile(source, &variables, Some(decl)) {
                Ok(program) if *program.output() != Type::String => {
                    Err("messageExpression must evaluate to a string".to_owned())
                }
                Ok(program) => Ok(program),
                Err(told) => Err(match told.strip_prefix("program instantiation failed") {
                    Some(told) => format!("messageExpression instantiation failed{told}"),
                    None => format!("messageExpression compilation failed: {told}"),
                }),
            }
        });
        Self {
            program: Some(program),
            message,
            field_path,
        }
    }
}

/// How an object is judged.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Cost of all rules together.
    pub cost_max: u64,
    /// Whether the value is an object, with a type and a name, or a part of one.
    pub root: bool,
    /// Whether what an update leaves as it was is not held against it.
    pub ratchets: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cost_max: OBJECT_COST_MAX,
            root: true,
            ratchets: true,
        }
    }
}

/// What rules make of an object.
#[derive(Debug)]
pub struct Judgement {
    /// One for each rule that it breaks, from the root down.
    pub causes: Vec<Cause>,
    /// None where a budget was used up; a cause says which.
    pub cost: Option<u64>,
}

/// Judges an object by the rules of its schema; `old` is the one that it takes the place of.
pub fn judge(schema: Schema<'_>, new: &Json, old: Option<&Json>, options: Options) -> Judgement {
    let mut judge = Judge {
        causes: Vec::new(),
        path: String::new(),
        budget: options.cost_max,
    };
    let old = Old::of(schema, new, old, options.ratchets);
    let ended = judge.place(schema, schema, new, old, options.root).is_err();
    Judgement {
        cost: (!ended).then(|| options.cost_max - judge.budget),
        causes: judge.causes,
    }
}

/// What is known of a rule before there is an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Most that it can cost, once.
    pub cost_max: u64,
    pub message_cost_max: u64,
    /// Whether it is about a change.
    pub uses_old_self: bool,
    pub is_empty: bool,
    pub error: Option<String>,
    pub message_error: Option<String>,
}

/// Compiles the rules of one place of a schema.
pub fn estimates(schema: Schema<'_>, root: bool) -> Vec<Estimate> {
    let place = Place::compile(schema, &schema.target().rules, root);
    let estimate = |compiled: &Compiled| {
        let mut estimate = Estimate {
            is_empty: compiled.program.is_none(),
            ..Estimate::default()
        };
        match &compiled.program {
            Some(Ok(program)) => {
                estimate.cost_max = program.cost_max();
                estimate.uses_old_self = program.uses("oldSelf");
            }
            Some(Err(told)) => estimate.error = Some(told.clone()),
            None => {}
        }
        match &compiled.message {
            Some(Ok(program)) => estimate.message_cost_max = program.cost_max(),
            Some(Err(told)) => estimate.message_error = Some(told.clone()),
            None => {}
        }
        estimate
    };
    place.compiled.iter().map(estimate).collect()
}

/// The end of judging: a budget is used up.
struct UsedUp;

struct Judge {
    causes: Vec<Cause>,
    path: String,
    budget: u64,
}

impl Judge {
    /// Judges a value by the rules that stand in `source`: the schema that it has, or a part of one (`allOf`), which knows no types.
    fn place<'a>(
        &mut self,
        schema: Schema<'a>,
        source: Schema<'a>,
        new: &'a Json,
        old: Old<'a>,
        root: bool,
    ) -> Result<(), UsedUp> {
        if new.is_null() {
            return Ok(());
        }
        let (node, rules) = (schema.target(), source.target());
        if !rules.rules.is_empty() {
            self.rules(node, rules.place(schema, root), &rules.rules, new, old)?;
        }
        for part in &rules.all_of {
            let part = Schema::at(part);
            if part.has_rules() {
                self.place(schema, part, new, old.part(), root)?;
            }
        }
        let length = self.path.len();
        match new {
            Json::Array(items) => {
                let (Some(item), Some(source)) = (schema.items(), source.items()) else {
                    return Ok(());
                };
                if !source.has_rules() {
                    return Ok(());
                }
                let keyed = Keyed::of(schema, old.value());
                for (index, value) in items.iter().enumerate() {
                    let next = old.element(item, value, keyed.find(value));
                    self.path.push_str(&format!("[{index}]"));
                    self.place(item, source, value, next, false)?;
                    self.path.truncate(length);
                }
            }
            Json::Object(map) => {
                for (key, value) in map {
                    let (field, source, named) = match (schema.property(key), source.property(key))
                    {
                        (Some((_, field)), Some((_, source))) => (field, source, true),
                        (Some(_), None) => continue,
                        (None, _) => match (schema.additional(), source.additional()) {
                            (Some(field), Some(source)) => (field, source, false),
                            _ => continue,
                        },
                    };
                    if !source.has_rules() {
                        continue;
                    }
                    match named {
                        true if length > 0 => self.path.push_str(&format!(".{key}")),
                        true => self.path.push_str(key),
                        false => self.path.push_str(&format!("[{key}]")),
                    }
                    let next = old.key(key, field, value);
                    self.place(field, source, value, next, false)?;
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn rules<'a>(
        &mut self,
        node: &Node,
        place: &'a Place,
        rules: &'a [Rule],
        new: &'a Json,
        old: Old<'a>,
    ) -> Result<(), UsedUp> {
        let kind = Json::from(node.type_name());
        if self.budget == 0 {
            let told = "validation failed due to running out of cost budget, no further validation rules will be run";
            self.invalid(&kind, told);
            return Err(UsedUp);
        }
        // What does not fit its schema is told where a rule looks at it.
        let read = |json: &'a Json| {
            let decl = place.decl.as_ref()?;
            Some(Value::of(json, decl))
        };
        for (rule, compiled) in rules.iter().zip(&place.compiled) {
            let program = match &compiled.program {
                None => continue,
                Some(Err(told)) => {
                    self.invalid(&kind, &format!("rule compile error: {told}"));
                    continue;
                }
                Some(Ok(program)) => program,
            };
            let optional = rule.optional_old_self == Some(true);
            let transition = program.uses("oldSelf");
            if transition && old.value().is_none() && !optional {
                continue;
            }
            let Some(this) = read(new) else { continue };
            let before = old.value().and_then(read);
            // Messages see the old value as it is, whatever the rule does.
            let mut told_of = vec![("self", this.clone())];
            told_of.extend(before.clone().map(|before| ("oldSelf", before)));
            let mut variables = vec![("self", this)];
            match (before, optional) {
                (Some(before), true) => variables.push(("oldSelf", before.map(Value::some))),
                (None, true) => variables.push(("oldSelf", Ok(Value::Optional(None)))),
                (Some(before), false) => variables.push(("oldSelf", before)),
                (None, false) => {}
            }
            let mut meter = Meter::per_call();
            let result = program.run(&variables, &mut meter);
            if meter.cost() > self.budget {
                let told = "validation failed due to running out of cost budget, no further validation rules will be run";
                self.invalid(&kind, told);
                return Err(UsedUp);
            }
            self.budget -= meter.cost();
            match result {
                Ok(Value::Bool(true)) => continue,
                Ok(_) => {}
                Err(error) if error.is_final => {
                    let told = format!(
                        "'{}': no further validation rules will be run due to call cost exceeds limit for rule: {}",
                        error.message,
                        shown(rule)
                    );
                    self.invalid(&kind, &told);
                    return Err(UsedUp);
                }
                Err(error) if error.message.starts_with("no such overload") => {
                    let told = format!(
                        "'{}': call arguments did not match a supported operator, function or macro signature for rule: {}",
                        error.message,
                        shown(rule)
                    );
                    self.invalid(&kind, &told);
                    continue;
                }
                Err(error) => {
                    let told = format!("{} evaluating rule: {}", error.message, shown(rule));
                    self.invalid(&kind, &told);
                    continue;
                }
            }
            // What was so before, a rule about values alone does not hold against the change of another.
            let forgiven = !transition && old.is_unchanged();
            let detail = match &compiled.message {
                Some(Ok(program)) => match self.message(program, rule, &told_of) {
                    Ok(detail) => detail,
                    Err(told) => {
                        if !forgiven {
                            let field = self.field(compiled);
                            self.causes.push(Cause::invalid(&field, &kind, &told));
                        }
                        return Err(UsedUp);
                    }
                },
                _ => None,
            };
            let detail = detail.unwrap_or_else(|| match rule.message.is_empty() {
                true => format!("failed rule: {}", shown(rule)),
                false => rule.message.trim().to_owned(),
            });
            if !forgiven {
                self.broken(node, rule, compiled, new, detail);
            }
        }
        Ok(())
    }

    /// The message that an expression makes; none where it fails, so that the rule's own is told.
    ///
    /// # Errors
    /// That a budget is used up.
    fn message<'a>(
        &mut self,
        program: &'a Program,
        rule: &Rule,
        variables: &[(&'a str, Result<Value<'a>, Error>)],
    ) -> Result<Option<String>, String> {
        let mut meter = Meter::per_call();
        let result = program.run(variables, &mut meter);
        if meter.cost() > self.budget {
            return Err("messageExpression evaluation failed due to running out of cost budget, no further validation rules will be run".to_owned());
        }
        match result {
            Err(error) if error.is_final => Err(format!(
                "no further validation rules will be run due to call cost exceeds limit for messageExpression: {}",
                quoted(&rule.message_expression)
            )),
            result => {
                self.budget -= meter.cost();
                let Ok(Value::String(text)) = result else {
                    return Ok(None);
                };
                let text = text.trim();
                let sound =
                    !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n');
                Ok(sound.then(|| text.to_owned()))
            }
        }
    }

    fn field(&self, compiled: &Compiled) -> String {
        let below = compiled.field_path.as_str();
        match (self.path.as_str(), below) {
            (path, "") => path.to_owned(),
            ("", below) => below.trim_start_matches('.').to_owned(),
            // A path below is written as a field of its own, with its first point, as upstream does.
            (path, below) => format!("{path}.{}", below.trim_start_matches('.')),
        }
    }

    fn invalid(&mut self, kind: &Json, told: &str) {
        let field = field_or_nil(&self.path);
        self.causes.push(Cause::invalid(field, kind, told));
    }

    fn broken(
        &mut self,
        node: &Node,
        rule: &Rule,
        compiled: &Compiled,
        new: &Json,
        detail: String,
    ) {
        let field = self.field(compiled);
        let field = field_or_nil(&field);
        let whole = matches!(node.type_name(), "object" | "array");
        let cause = match rule.reason.as_str() {
            "FieldValueForbidden" => Cause::forbidden(field, &detail),
            "FieldValueRequired" => Cause::required(field, &detail),
            "FieldValueDuplicate" if whole => Cause {
                reason: "FieldValueDuplicate".to_owned(),
                message: "Duplicate value".to_owned(),
                field: field.to_owned(),
            },
            "FieldValueDuplicate" => Cause::duplicate(field, new),
            _ if whole => Cause {
                reason: "FieldValueInvalid".to_owned(),
                message: format!("Invalid value: {detail}"),
                field: field.to_owned(),
            },
            _ => Cause::invalid(field, new, &detail),
        };
        self.causes.push(cause);
    }
}

/// How upstream names the object itself.
fn field_or_nil(path: &str) -> &str {
    match path {
        "" => "<nil>",
        path => path,
    }
}

/// What a rule is called where it has no message of its own.
fn shown(rule: &Rule) -> &str {
    match rule.message.is_empty() {
        true => rule.rule.trim(),
        false => rule.message.trim(),
    }
}

/// The place that a rule tells its faults at: `.a.b['c']` as a path below its own.
///
/// # Errors
/// Why it is none.
pub fn field_path(schema: Schema<'_>, text: &str) -> Result<String, String> {
    let mut schema = schema;
    let mut path = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        let name = if let Some(after) = rest.strip_prefix('.') {
            let end = after.find(['.', '[', ']']).unwrap_or(after.len());
            let (name, after) = after.split_at(end);
            if name.is_empty() {
                return Err("unexpected end of JSON path".to_owned());
            }
            rest = after;
            name.to_owned()
        } else if let Some(after) = rest.strip_prefix('[') {
            let Some(quoted) = after.strip_prefix('\'') else {
                let end = after.find(']').unwrap_or(after.len());
                return Err(format!(
                    "expected single quoted string but got {}",
                    &after[..end]
                ));
            };
            let (name, after) = unquoted(quoted)?;
            let Some(after) = after.strip_prefix(']') else {
                return Err("unexpected end of JSON path".to_owned());
            };
            rest = after;
            name
        } else {
            let end = rest.find(['.', '[', ']']).unwrap_or(rest.len()).max(1);
            let end = (end..=rest.len())
                .find(|end| rest.is_char_boundary(*end))
                .unwrap_or(rest.len());
            return Err(format!("expected [ or . but got: {}", &rest[..end]));
        };
        schema = match (schema.property(&name), schema.additional()) {
            (Some((_, field)), _) => {
                path.push('.');
                path.push_str(&name);
                field
            }
            (None, Some(values)) => {
                path.push_str(&format!("[{name}]"));
                values
            }
            (None, None) => return Err("does not refer to a valid field".to_owned()),
        };
    }
    Ok(path)
}

/// The text up to a single quote, and what follows it.
fn unquoted(text: &str) -> Result<(String, &str), String> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' => return Ok((name, &text[at + 1..])),
            '\\' => match chars.next().map(|(_, c)| c) {
                Some('a') => name.push('\x07'),
                Some('b') => name.push('\x08'),
                Some('f') => name.push('\x0c'),
                Some('n') => name.push('\n'),
                Some('t') => name.push('\t'),
                Some('r') => name.push('\r'),
                Some('v') => name.push('\x0b'),
                Some(c @ ('\'' | '\\')) => name.push(c),
                other => {
                    let shown = other.map(String::from).unwrap_or_default();
                    return Err(format!(
                        "invalid string literal: invalid escape char \\{shown}"
                    ));
                }
            },
            c => name.push(c),
        }
    }
    Err("unexpected end of JSON path".to_owned())
}

/// Why a definition with this schema is refused, for its rules: at `path`, which leads to the schema.
pub fn definition_faults(schema: Schema<'_>, path: &str) -> Vec<Cause> {
    let mut definition = Definition {
        causes: Vec::new(),
        total: 0,
    };
    definition.walk(schema, path, Some(1), true, None);
    if definition.total > DEFINITION_ESTIMATE_MAX {
        let told = exceeded(
            "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema",
            definition.total,
            DEFINITION_ESTIMATE_MAX,
        );
        definition.causes.push(Cause::forbidden(path, &told));
    }
    definition.causes
}

struct Definition {
    causes: Vec<Cause>,
    total: u64,
}

impl Definition {
    /// `cardinality` is how often, at most, a value stands there; none where nothing bounds it. `uncorrelated` is the list above
    /// whose elements have no counterparts in an old object.
    fn walk(
        &mut self,
        schema: Schema<'_>,
        path: &str,
        cardinality: Option<u64>,
        root: bool,
        uncorrelated: Option<&str>,
    ) {
        let node = schema.target();
        if !node.rules.is_empty() {
            let place = Place::compile(schema, &node.rules, root);
            let unbounded = place.decl.as_ref().map_or(1, |decl| decl.cardinality_max());
            let times = cardinality.unwrap_or(unbounded);
            for (index, (rule, compiled)) in node.rules.iter().zip(&place.compiled).enumerate() {
                let at = format!("{path}.x-kubernetes-validations[{index}]");
                self.rule(schema, rule, compiled, &at, times, uncorrelated);
            }
        }
        let times = |most: Option<usize>| match (cardinality, most) {
            (Some(cardinality), Some(most)) => Some(cardinality.saturating_mul(most as u64)),
            _ => None,
        };
        for (name, field) in schema.properties() {
            let at = format!("{path}.properties[{name}]");
            self.walk(field, &at, cardinality, false, uncorrelated);
        }
        if let Some(values) = schema.additional() {
            let at = format!("{path}.additionalProperties");
            self.walk(values, &at, times(node.max_properties), false, uncorrelated);
        }
        if let Some(item) = schema.items() {
            let at = format!("{path}.items");
            let lost = match schema.list_type() {
                Some("map") => uncorrelated,
                _ => Some(uncorrelated.unwrap_or(path)),
            };
            self.walk(item, &at, times(node.max_items), false, lost);
        }
    }

    fn rule(
        &mut self,
        schema: Schema<'_>,
        rule: &Rule,
        compiled: &Compiled,
        at: &str,
        times: u64,
        uncorrelated: Option<&str>,
    ) {
        let mut faults = Vec::new();
        let text = |text: &str| Json::from(text);
        let message = rule.message.trim();
        if rule.rule.trim().is_empty() {
            faults.push(Cause::required(
                &format!("{at}.rule"),
                "rule is not specified",
            ));
        } else if !rule.message.is_empty() && message.is_empty() {
            let field = format!("{at}.message");
            faults.push(Cause::invalid(
                &field,
                &text(&rule.message),
                "must be non-empty if specified",
            ));
        } else if message.contains('\n') {
            let field = format!("{at}.message");
            faults.push(Cause::invalid(
                &field,
                &text(&rule.message),
                "must not contain line breaks",
            ));
        } else if rule.rule.trim().contains('\n') && message.is_empty() {
            let told = "message must be specified if rule contains line breaks";
            faults.push(Cause::required(&format!("{at}.message"), told));
        }
        if !rule.message_expression.is_empty() && rule.message_expression.trim().is_empty() {
            let told = "messageExpression must be non-empty if specified";
            faults.push(Cause::required(&format!("{at}.messageExpression"), told));
        }
        if !rule.reason.is_empty() && !REASONS.contains(&rule.reason.as_str()) {
            let field = format!("{at}.reason");
            faults.push(Cause::not_supported(&field, &text(&rule.reason), REASONS));
        }
        if !rule.field_path.is_empty() {
            let field = format!("{at}.fieldPath");
            let value = text(&rule.field_path);
            if rule.field_path.trim().is_empty() {
                faults.push(Cause::invalid(
                    &field,
                    &value,
                    "must be non-empty if specified",
                ));
            }
            if rule.field_path.contains('\n') {
                faults.push(Cause::invalid(
                    &field,
                    &value,
                    "must not contain line breaks",
                ));
            }
            if field_path(schema, &rule.field_path).is_err() {
                faults.push(Cause::invalid(&field, &value, "must be a valid path"));
            }
        }
        // Mistakes of the definition make the errors of its expressions hard to understand.
        if faults.is_empty() {
            self.program(rule, compiled, at, times, uncorrelated, &mut faults);
        }
        self.causes.append(&mut faults);
    }

    fn program(
        &mut self,
        rule: &Rule,
        compiled: &Compiled,
        at: &str,
        times: u64,
        uncorrelated: Option<&str>,
        faults: &mut Vec<Cause>,
    ) {
        let source = Json::from(rule.rule.as_str());
        let mut transition = false;
        for (compiled, name, what) in [
            (&compiled.program, "rule", "estimated rule cost"),
            (
                &compiled.message,
                "messageExpression",
                "estimated messageExpression cost",
            ),
        ] {
            let field = format!("{at}.{name}");
            match compiled {
                None => {}
                Some(Err(told)) => faults.push(Cause::invalid(&field, &source, told)),
                Some(Ok(program)) => {
                    // A message is made once, a rule judged wherever its place occurs.
                    let cost = match name {
                        "rule" => program.cost_max().saturating_mul(times),
                        _ => program.cost_max(),
                    };
                    self.total = self.total.saturating_add(cost);
                    if cost > RULE_ESTIMATE_MAX {
                        let told = exceeded(what, cost, RULE_ESTIMATE_MAX);
                        faults.push(Cause::forbidden(&field, &told));
                    }
                    transition |= name == "rule" && program.uses("oldSelf");
                }
            }
        }
        let field = format!("{at}.rule");
        if let Some(list) = uncorrelated.filter(|_| transition) {
            let told = format!(
                "oldSelf cannot be used on the uncorrelatable portion of the schema within {list}"
            );
            faults.push(Cause::invalid(&field, &source, &told));
        }
        if let Some(flag) = rule.optional_old_self.filter(|_| !transition) {
            let field = format!("{at}.optionalOldSelf");
            let told = "may not be set if oldSelf is not used in rule";
            faults.push(Cause::invalid(&field, &flag.into(), told));
        }
    }
}

const REASONS: &[&str] = &[
    "FieldValueDuplicate",
    "FieldValueForbidden",
    "FieldValueInvalid",
    "FieldValueRequired",
];

/// How far a cost is beyond its limit, as upstream words it.
fn exceeded(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)"
    )
}
