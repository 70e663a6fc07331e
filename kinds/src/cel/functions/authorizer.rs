//! Questions of who may do what: `authorizer.group('apps').resource('deployments').namespace('x').check('create').allowed()`.
//!
//! A question is put together call by call, and asked by `check`; who answers is handed in ([`Authorize`]). No rule of a stored object
//! has an `authorizer`: there, these functions are known by their signatures alone, so that what is told of a rule that names it is
//! one thing.
//!
//! Source: k8s.io/apiserver `pkg/cel/library/authz.go`.

use std::fmt;
use std::sync::Arc;

use weft_api::name;

use super::{Function, Outcome};
use crate::cel::eval::{Error, Meter};
use crate::cel::value::Value;

/// Who answers.
pub trait Authorize: Send + Sync {
    fn decide(&self, question: &Question) -> Decision;
}

/// Whether somebody may do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// A ServiceAccount, by namespace and name; without one it is asked of who sent the request.
    pub account: Option<(String, String)>,
    pub subject: Subject,
    pub verb: String,
}

/// What is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    Path(String),
    Resource {
        group: String,
        resource: String,
        subresource: String,
        namespace: String,
        name: String,
        field_selector: String,
        label_selector: String,
    },
}

/// The answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// A question as far as it is put, or its answer.
#[derive(Clone)]
pub struct Authority {
    ask: Arc<dyn Authorize>,
    stage: Stage,
}

#[derive(Clone, Debug)]
enum Stage {
    Whole(Account),
    Group(Account, String),
    Check(Account, Subject),
    Decided(Decision),
}

type Account = Option<(String, String)>;

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stage.fmt(f)
    }
}

impl Authority {
    /// The `authorizer` of an expression.
    pub fn of(ask: Arc<dyn Authorize>) -> Value<'static> {
        Value::Authority(Arc::new(Self {
            ask,
            stage: Stage::Whole(None),
        }))
    }

    /// Its `authorizer.requestResource`.
    pub fn about(ask: Arc<dyn Authorize>, subject: Subject) -> Value<'static> {
        Value::Authority(Arc::new(Self {
            ask,
            stage: Stage::Check(None, subject),
        }))
    }

    pub(in crate::cel) fn type_name(&self) -> &'static str {
        match &self.stage {
            Stage::Whole(_) => "kubernetes.authorization.Authorizer",
            Stage::Group(..) => "kubernetes.authorization.GroupCheck",
            Stage::Check(_, Subject::Path(_)) => "kubernetes.authorization.PathCheck",
            Stage::Check(..) => "kubernetes.authorization.ResourceCheck",
            Stage::Decided(_) => "kubernetes.authorization.Decision",
        }
    }

    fn next<'a>(&self, stage: Stage) -> Outcome<'a> {
        Ok(Some(Value::Authority(Arc::new(Self {
            ask: Arc::clone(&self.ask),
            stage,
        }))))
    }
}

fn path<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    let [Value::Authority(of), Value::String(path)] = args else {
        return Ok(None);
    };
    let Stage::Whole(account) = &of.stage else {
        return Ok(None);
    };
    if path.trim().is_empty() {
        return Err(Error::new("path must not be empty"));
    }
    let subject = Subject::Path((**path).to_owned());
    of.next(Stage::Check(account.clone(), subject))
}

fn group<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    let [Value::Authority(of), Value::String(group)] = args else {
        return Ok(None);
    };
    let Stage::Whole(account) = &of.stage else {
        return Ok(None);
    };
    of.next(Stage::Group(account.clone(), (**group).to_owned()))
}

fn service_account<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    let [
        Value::Authority(of),
        Value::String(namespace),
        Value::String(account),
    ] = args
    else {
        return Ok(None);
    };
    let Stage::Whole(_) = &of.stage else {
        return Ok(None);
    };
    if name::dns1123_subdomain(account).is_err() {
        return Err(Error::new("Invalid service account name"));
    }
    if name::dns1123_label(namespace).is_err() {
        return Err(Error::new("Invalid service account namespace"));
    }
    let account = ((**namespace).to_owned(), (**account).to_owned());
    of.next(Stage::Whole(Some(account)))
}

fn resource<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    let [Value::Authority(of), Value::String(resource)] = args else {
        return Ok(None);
    };
    let Stage::Group(account, group) = &of.stage else {
        return Ok(None);
    };
    if resource.trim().is_empty() {
        return Err(Error::new("resource must not be empty"));
    }
    let subject = Subject::Resource {
        group: group.clone(),
        resource: (**resource).to_owned(),
        subresource: String::new(),
        namespace: String::new(),
        name: String::new(),
        field_selector: String::new(),
        label_selector: String::new(),
    };
    of.next(Stage::Check(account.clone(), subject))
}

/// Says more of a resource: `pick` finds the part that the text is of.
fn say<'a>(args: &[Value<'a>], pick: fn(&mut Subject) -> Option<&mut String>) -> Outcome<'a> {
    let [Value::Authority(of), Value::String(text)] = args else {
        return Ok(None);
    };
    let Stage::Check(account, subject) = &of.stage else {
        return Ok(None);
    };
    let mut subject = subject.clone();
    let Some(part) = pick(&mut subject) else {
        return Ok(None);
    };
    (**text).clone_into(part);
    of.next(Stage::Check(account.clone(), subject))
}

macro_rules! part {
    ($part:ident) => {
        |args, _| {
            say(args, |subject| match subject {
                Subject::Resource { $part, .. } => Some($part),
                Subject::Path(_) => None,
            })
        }
    };
}

fn check<'a>(args: &[Value<'a>], _: &mut Meter) -> Outcome<'a> {
    let [Value::Authority(of), Value::String(verb)] = args else {
        return Ok(None);
    };
    let Stage::Check(account, subject) = &of.stage else {
        return Ok(None);
    };
    let decision = of.ask.decide(&Question {
        account: account.clone(),
        subject: subject.clone(),
        verb: (**verb).to_owned(),
    });
    of.next(Stage::Decided(decision))
}

fn decided<'v>(args: &'v [Value<'_>]) -> Option<&'v Decision> {
    match args {
        [Value::Authority(of)] => match &of.stage {
            Stage::Decided(decision) => Some(decision),
            _ => None,
        },
        _ => None,
    }
}

pub(super) const FUNCTIONS: &[Function] = &[
    Function {
        name: "path",
        overloads: &[("authorizer_path", "Authorizer.(string) PathCheck")],
        run: path,
    },
    Function {
        name: "group",
        overloads: &[("authorizer_group", "Authorizer.(string) GroupCheck")],
        run: group,
    },
    Function {
        name: "serviceAccount",
        overloads: &[(
            "authorizer_serviceaccount",
            "Authorizer.(string, string) Authorizer",
        )],
        run: service_account,
    },
    Function {
        name: "resource",
        overloads: &[("groupcheck_resource", "GroupCheck.(string) ResourceCheck")],
        run: resource,
    },
    Function {
        name: "subresource",
        overloads: &[(
            "resourcecheck_subresource",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: part!(subresource),
    },
    Function {
        name: "namespace",
        overloads: &[(
            "resourcecheck_namespace",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: part!(namespace),
    },
    Function {
        name: "name",
        overloads: &[("resourcecheck_name", "ResourceCheck.(string) ResourceCheck")],
        run: part!(name),
    },
    Function {
        name: "fieldSelector",
        overloads: &[(
            "authorizer_fieldselector",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: part!(field_selector),
    },
    Function {
        name: "labelSelector",
        overloads: &[(
            "authorizer_labelselector",
            "ResourceCheck.(string) ResourceCheck",
        )],
        run: part!(label_selector),
    },
    Function {
        name: "check",
        overloads: &[
            ("pathcheck_check", "PathCheck.(string) Decision"),
            ("resourcecheck_check", "ResourceCheck.(string) Decision"),
        ],
        run: check,
    },
    Function {
        name: "errored",
        overloads: &[("decision_errored", "Decision.() bool")],
        run: |args, _| Ok(decided(args).map(|decision| Value::Bool(decision.error.is_some()))),
    },
    Function {
        name: "error",
        overloads: &[("decision_error", "Decision.() string")],
        run: |args, _| {
            let error = |decision: &Decision| decision.error.clone().unwrap_or_default();
            Ok(decided(args).map(|decision| Value::text(error(decision))))
        },
    },
    Function {
        name: "allowed",
        overloads: &[("decision_allowed", "Decision.() bool")],
        run: |args, _| Ok(decided(args).map(|decision| Value::Bool(decision.allowed))),
    },
    Function {
        name: "reason",
        overloads: &[("decision_reason", "Decision.() string")],
        run: |args, _| Ok(decided(args).map(|decision| Value::text(decision.reason.as_str()))),
    },
    // Of a key in the path of a JSON patch; known to expressions that make patches alone.
    Function {
        name: "jsonpatch.escapeKey",
        overloads: &[("string_jsonpatch_escapeKey_string", "(string) string")],
        run: |args, meter| {
            let [Value::String(key)] = args else {
                return Ok(None);
            };
            meter.allocate(key.len().saturating_mul(2))?;
            let escaped = key.replace('~', "~0").replace('/', "~1");
            Ok(Some(Value::text(escaped)))
        },
    },
];
