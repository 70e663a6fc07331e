//! Expressions of webhooks and policies: which variables they have, what they must give, and how they run.
//!
//! `object` and `oldObject` are read as whatever they are, `request` and `namespaceObject` have types, `params` is there for policies
//! with a `paramKind`, `authorizer` for all but messages, and `variables` are expressions of the same policy with names.
//!
//! Source: k8s.io/apiserver `pkg/admission/plugin/cel`.

use std::sync::{Arc, LazyLock};

use serde_json::{Value as Json, json};

use super::matching::Objects;
use super::{Place, Request};
use crate::cel::{
    Authority, Authorize, Composed, Decl, Error, Meter, Program, Subject, Type, VARIABLES, Value,
};
use crate::lens::text;

/// What all conditions of one webhook or policy may cost together.
const CONDITIONS_COST_MAX: u64 = 2_500_000;
/// What all expressions of one policy may cost together, for one binding and one set of params.
pub const POLICY_COST_MAX: u64 = 10_000_000;

/// Which variables an expression has beyond the object and the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Has {
    pub params: bool,
    pub authorizer: bool,
    pub patches: bool,
}

fn request_type() -> Arc<Decl> {
    static TYPE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
        let text = Decl::text;
        let kind = Decl::record(
            "kubernetes.GroupVersionKind",
            &[("group", text()), ("version", text()), ("kind", text())],
        );
        let resource = Decl::record(
            "kubernetes.GroupVersionResource",
            &[("group", text()), ("version", text()), ("resource", text())],
        );
        let user = Decl::record(
            "kubernetes.UserInfo",
            &[
                ("username", text()),
                ("uid", text()),
                ("groups", Decl::list_of(text())),
                ("extra", Decl::map_of(Decl::list_of(text()))),
            ],
        );
        Decl::record(
            "kubernetes.AdmissionRequest",
            &[
                ("kind", Arc::clone(&kind)),
                ("resource", Arc::clone(&resource)),
                ("subResource", text()),
                ("requestKind", kind),
                ("requestResource", resource),
                ("requestSubResource", text()),
                ("name", text()),
                ("namespace", text()),
                ("operation", text()),
                ("userInfo", user),
                ("dryRun", Decl::boolean()),
                ("options", Decl::any()),
            ],
        )
    });
    Arc::clone(&TYPE)
}

fn namespace_type() -> Arc<Decl> {
    static TYPE: LazyLock<Arc<Decl>> = LazyLock::new(|| {
        let text = Decl::text;
        let metadata = Decl::record(
            "kubernetes.NamespaceMetadata",
            &[
                ("name", text()),
                ("generateName", text()),
                ("namespace", text()),
                ("labels", Decl::map_of(text())),
                ("annotations", Decl::map_of(text())),
                ("UID", text()),
                ("creationTimestamp", Decl::time()),
                ("deletionGracePeriodSeconds", Decl::integer()),
                ("deletionTimestamp", Decl::time()),
                ("generation", Decl::integer()),
                ("resourceVersion", text()),
                ("finalizers", Decl::list_of(text())),
            ],
        );
        let spec = Decl::record(
            "kubernetes.NamespaceSpec",
            &[("finalizers", Decl::list_of(text()))],
        );
        let condition = Decl::record(
            "kubernetes.NamespaceCondition",
            &[
                ("status", text()),
                ("type", text()),
                ("lastTransitionTime", Decl::time()),
                ("message", text()),
                ("reason", text()),
            ],
        );
        let status = Decl::record(
            "kubernetes.NamespaceStatus",
            &[("conditions", Decl::list_of(condition)), ("phase", text())],
        );
        Decl::record(
            "kubernetes.Namespace",
            &[("metadata", metadata), ("spec", spec), ("status", status)],
        )
    });
    Arc::clone(&TYPE)
}

/// Compiles the expressions of one webhook or policy.
#[derive(Debug, Default)]
pub struct Compiler {
    /// Expressions with names, of which each knows those before it.
    variables: Vec<(String, Arc<Decl>)>,
    composes: bool,
    /// The kinds of object that it is told to expect; without, any.
    pub object: Option<Type>,
    pub params: Option<Type>,
}

/// What an expression must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gives {
    Bool,
    Text,
    TextOrNull,
    Any,
    Patches,
    Applied,
}

impl Compiler {
    /// For a policy with variables, which knows the name `variables` even before there is one.
    pub fn composing() -> Self {
        Self {
            composes: true,
            ..Self::default()
        }
    }

    /// # Errors
    /// The mistakes, as Kubernetes words them.
    pub fn compile(&self, source: &str, has: Has, gives: Gives) -> Result<Program, String> {
        let object = self.object.clone().unwrap_or(Type::Dyn);
        let mut variables = vec![
            ("object", object.clone()),
            ("oldObject", object),
            ("namespaceObject", namespace_type().cel_type()),
            ("request", request_type().cel_type()),
        ];
        if has.params {
            variables.push(("params", self.params.clone().unwrap_or(Type::Dyn)));
        }
        if has.authorizer {
            let of = |name| Type::Opaque(name);
            variables.push(("authorizer", of("kubernetes.authorization.Authorizer")));
            variables.push((
                "authorizer.requestResource",
                of("kubernetes.authorization.ResourceCheck"),
            ));
        }
        if self.composes {
            let fields: Vec<(&str, Arc<Decl>)> = self
                .variables
                .iter()
                .map(|(name, decl)| (name.as_str(), Arc::clone(decl)))
                .collect();
            let all = Decl::record("kubernetes.variables", &fields);
            variables.push((VARIABLES, all.cel_type()));
        }
        let program = match has.patches {
            true => Program::compile_patch(source, &variables),
            false => Program::compile(source, &variables, None),
        };
        let program = program.map_err(|told| match told.starts_with("program instantiation") {
            true => told,
            false => format!("compilation failed: {told}"),
        })?;
        let found = program.output();
        let is_named =
            |of: &Type, name: &str| matches!(of, Type::Object(_)) && of.to_string() == name;
        let (fits, wanted) = match gives {
            Gives::Bool => (matches!(found, Type::Bool), "bool"),
            Gives::Text => (matches!(found, Type::String), "string"),
            Gives::TextOrNull => (
                matches!(found, Type::String | Type::Null),
                "[string null_type]",
            ),
            Gives::Any => (true, ""),
            Gives::Patches => (
                matches!(found, Type::List(item) if is_named(item, "JSONPatch")),
                "list(JSONPatch)",
            ),
            Gives::Applied => (is_named(found, "Object"), "Object"),
        };
        if fits {
            return Ok(program);
        }
        let one_of = match gives {
            Gives::TextOrNull => "one of ",
            _ => "",
        };
        Err(format!("must evaluate to {one_of}{wanted} but got {found}"))
    }

    /// Compiles an expression with a name, which those after it know; of one that fails, they know the name alone.
    ///
    /// # Errors
    /// As [`Compiler::compile`].
    pub fn variable(&mut self, name: &str, source: &str, has: Has) -> Result<Program, String> {
        let program = self.compile(source, has, Gives::Any);
        let of = program
            .as_ref()
            .map_or(Type::Dyn, |program| program.output().clone());
        self.variables.push((name.to_owned(), Decl::given(of)));
        program
    }
}

/// What the variables of expressions stand for, in one request.
pub struct Scope<'a> {
    request: Json,
    namespace: Option<&'a Json>,
    objects: Objects<'a>,
    params: Option<&'a Json>,
    authorizer: Option<(Arc<dyn Authorize>, Subject)>,
}

impl<'a> Scope<'a> {
    /// `at` is the place by which a rule is about the request.
    pub fn new(request: &Request, at: &Place, objects: Objects<'a>) -> Self {
        Self {
            request: request.to_value(at),
            // Namespaces are in none, whatever the request says.
            namespace: objects.namespace.filter(|_| !request.is_namespace()),
            objects,
            params: None,
            authorizer: None,
        }
    }

    pub fn with_params(self, params: Option<&'a Json>) -> Self {
        Self { params, ..self }
    }

    pub fn with_authorizer(self, ask: Arc<dyn Authorize>, request: &Request) -> Self {
        let subject = Subject::Resource {
            group: request.place.resource_group.clone(),
            resource: request.place.resource.clone(),
            subresource: request.subresource.clone(),
            namespace: request.namespace.clone(),
            name: request.name.clone(),
            field_selector: String::new(),
            label_selector: String::new(),
        };
        Self {
            authorizer: Some((ask, subject)),
            ..self
        }
    }

    /// The variables; `object` stands in for the new object, where it was changed since.
    pub fn variables<'s>(&'s self, object: Option<&'s Json>) -> Vec<(&'s str, Value<'s>)> {
        let any = Decl::any();
        let read = |json: Option<&'s Json>, decl: &Arc<Decl>| match json {
            Some(json) => Value::of(json, decl).unwrap_or(Value::Null),
            None => Value::Null,
        };
        let new = object.or(self.objects.new);
        let mut all = vec![
            ("object", read(new, &any)),
            ("oldObject", read(self.objects.old, &any)),
            ("namespaceObject", read(self.namespace, &namespace_type())),
            ("request", read(Some(&self.request), &request_type())),
            ("params", read(self.params, &any)),
        ];
        if let Some((ask, subject)) = &self.authorizer {
            all.push(("authorizer", Authority::of(Arc::clone(ask))));
            all.push((
                "authorizer.requestResource",
                Authority::about(Arc::clone(ask), subject.clone()),
            ));
        }
        all
    }
}

/// What is left of a budget.
#[derive(Debug)]
pub struct Budget(u64);

/// Why an expression gave nothing that could be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its own fault.
    Error(String),
    /// Everything ends with it.
    Spent(String),
}

impl Budget {
    pub fn new(most: u64) -> Self {
        Self(most)
    }

    /// Runs an expression.
    ///
    /// # Errors
    /// In Kubernetes' words, with the expression.
    pub fn run<'a>(
        &mut self,
        program: &'a Program,
        source: &str,
        variables: &[(&'a str, Value<'a>)],
        composed: &Composed<'a>,
    ) -> Result<Value<'a>, Failure> {
        let mut meter = Meter::per_call();
        let found = program.eval_composed(variables, composed, &mut meter);
        let cost = meter.cost().saturating_add(composed.take_cost());
        match self.0.checked_sub(cost) {
            Some(rest) => self.0 = rest,
            None => {
                self.0 = 0;
                return Err(Failure::Spent(
                    "validation failed due to running out of cost budget, no further validation rules will be run".to_owned(),
                ));
            }
        }
        found.map_err(|Error { message, .. }| {
            Failure::Error(format!(
                "expression '{source}' resulted in error: {message}"
            ))
        })
    }
}

/// `matchConditions`: expressions that must all hold.
#[derive(Debug, Default)]
pub struct Conditions {
    all: Vec<(String, Result<Program, String>)>,
}

/// What conditions say of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matched {
    Yes,
    No,
    /// Whether that matters is for the failure policy to say.
    Failed(String),
}

impl Conditions {
    pub fn of(value: &Json, pointer: &str, has: Has) -> Self {
        let compiler = Compiler::default();
        let all = crate::lens::items(value, pointer).iter().map(|condition| {
            let source = text(condition, "/expression").trim();
            let program = compiler.compile(source, has, Gives::Bool);
            (source.to_owned(), program)
        });
        Self { all: all.collect() }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One that does not hold decides, whatever the others do.
    pub fn matched(&self, scope: &Scope<'_>, object: Option<&Json>) -> Matched {
        if self.all.is_empty() {
            return Matched::Yes;
        }
        let variables = scope.variables(object);
        let composed = Composed::new(&[], &variables);
        let mut budget = Budget::new(CONDITIONS_COST_MAX);
        let mut failed = Vec::new();
        for (source, program) in &self.all {
            let program = match program {
                Ok(program) => program,
                Err(told) => {
                    failed.push(told.clone());
                    continue;
                }
            };
            match budget.run(program, source, &variables, &composed) {
                Ok(Value::Bool(true)) => {}
                Ok(_) => return Matched::No,
                Err(Failure::Error(told)) => failed.push(told),
                Err(Failure::Spent(told)) => {
                    failed.push(told);
                    break;
                }
            }
        }
        match failed.is_empty() {
            true => Matched::Yes,
            false => Matched::Failed(super::aggregate(failed)),
        }
    }
}

/// The answer of nobody: what `authorizer` says where there is none to ask.
#[derive(Debug)]
pub struct Nobody;

impl Authorize for Nobody {
    fn decide(&self, _: &crate::cel::Question) -> crate::cel::Decision {
        crate::cel::Decision::default()
    }
}

/// An object that says who it is, for those that are stored without.
pub fn identified(mut object: Json, kind: crate::KindRef<'_>) -> Json {
    if text(&object, "/kind").is_empty() {
        let meta = json!({"apiVersion": kind.api_version(), "kind": kind.kind});
        if let (Some(into), Some(from)) = (object.as_object_mut(), meta.as_object()) {
            into.extend(from.clone());
        }
    }
    object
}
