//! What is executed: an expression with its constants folded and its calls bound.
//!
//! Folding is not for speed alone. Upstream folds literals of lists and maps, conversions of constants, and membership in a constant
//! list, and what is folded costs nothing when the rule runs.
//!
//! Source: cel-go `interpreter/planner.go`, `interpreter/decorators.go`.

use std::sync::{Arc, OnceLock};

use super::ast::{Expr, Kind, Literal, operator};
use super::check::Checked;
use super::declaration::Type;
use super::eval::{Error, Meter};
use super::functions::{self, Declared, Overload};
use super::value::{Map, Value};

/// Steps of an evaluation.
#[derive(Debug)]
pub(super) enum Plan {
    Const(Value<'static>),
    /// A constant that cannot be made, which is told when it is looked at.
    Failed(Error),
    Variable(String),
    Select {
        operand: Box<Plan>,
        field: String,
        optional: bool,
        test: bool,
        /// Whether what it selects from is, or may be missing in, an optional value.
        in_optional: bool,
    },
    Index {
        operand: Box<Plan>,
        index: Box<Plan>,
        optional: bool,
    },
    And(Vec<Plan>),
    Or(Vec<Plan>),
    Conditional(Box<[Plan; 3]>),
    /// `x in [constants]`, which costs nothing beside `x`.
    Member {
        value: Box<Plan>,
        among: Vec<Value<'static>>,
    },
    /// `a.or(b)`, `a.orValue(b)`: the argument is looked at only where it is needed.
    OrElse {
        optional: Box<Plan>,
        other: Box<Plan>,
        unwraps: bool,
    },
    Call(Call),
    List(Vec<(Plan, bool)>),
    Map(Vec<(Plan, Plan, bool)>),
    /// What a policy builds, by its name; it is made anew each time, whatever its fields are.
    Message(Arc<str>, Vec<(String, Plan, bool)>),
    Fold(Box<Fold>),
}

pub(super) struct Call {
    pub function: &'static Declared,
    /// The one way that it can be meant, if there is only one.
    pub overload: Option<&'static Overload>,
    pub args: Vec<Plan>,
    /// Of a pattern that is a constant, compiled at the first call.
    pub regex: OnceLock<Result<regex::Regex, Error>>,
}

impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}({:?})", self.function.name, self.args)
    }
}

#[derive(Debug)]
pub(super) struct Fold {
    pub range: Plan,
    pub var: String,
    pub var2: Option<String>,
    pub accu: String,
    pub init: Plan,
    pub condition: Plan,
    pub step: Plan,
    pub result: Plan,
}

/// # Errors
/// For a conversion of a constant that fails.
pub(super) fn plan(checked: &Checked) -> Result<Plan, Error> {
    step(checked, &checked.expr)
}

fn all(checked: &Checked, exprs: &[Expr]) -> Result<Vec<Plan>, Error> {
    exprs.iter().map(|expr| step(checked, expr)).collect()
}

fn boxed(checked: &Checked, expr: &Expr) -> Result<Box<Plan>, Error> {
    step(checked, expr).map(Box::new)
}

fn step(checked: &Checked, expr: &Expr) -> Result<Plan, Error> {
    Ok(match &expr.kind {
        Kind::Literal(literal) => Plan::Const(match literal {
            Literal::Null => Value::Null,
            Literal::Bool(flag) => Value::Bool(*flag),
            Literal::Int(number) => Value::Int(*number),
            Literal::Uint(number) => Value::Uint(*number),
            Literal::Double(number) => Value::Double(*number),
            Literal::String(text) => Value::text(text.as_str()),
            Literal::Bytes(bytes) => Value::Bytes(bytes.as_slice().into()),
        }),
        Kind::Ident(name) => match &checked.types[expr.id] {
            Type::Type(of) if functions::type_named(name).is_some() => {
                Plan::Const(Value::Type(Arc::from(of.name())))
            }
            _ => Plan::Variable(name.clone()),
        },
        Kind::Select(select) => Plan::Select {
            operand: boxed(checked, &select.operand)?,
            field: select.field.clone(),
            optional: select.optional,
            test: select.test,
            in_optional: is_in_optional(checked, &select.operand),
        },
        Kind::Call(call) if call.function == operator::NEW => message(checked, call)?,
        Kind::Call(call) => return self::call(checked, expr, call),
        Kind::List(items) => {
            let items: Vec<(Plan, bool)> = items
                .iter()
                .map(|item| Ok((step(checked, &item.value)?, item.optional)))
                .collect::<Result<_, Error>>()?;
            let constant = items.iter().map(|(item, _)| constant(item));
            match constant.collect::<Option<Vec<_>>>() {
                Some(values) if items.iter().all(|(_, optional)| !optional) => {
                    Plan::Const(Value::list(values))
                }
                _ => Plan::List(items),
            }
        }
        Kind::Map(entries) => {
            let entries: Vec<(Plan, Plan, bool)> = entries
                .iter()
                .map(|entry| {
                    Ok((
                        step(checked, &entry.key)?,
                        step(checked, &entry.value)?,
                        entry.optional,
                    ))
                })
                .collect::<Result<_, Error>>()?;
            match constant_map(&entries) {
                Ok(Some(value)) => Plan::Const(value),
                Ok(None) => Plan::Map(entries),
                Err(error) => Plan::Failed(error),
            }
        }
        Kind::Fold(fold) => Plan::Fold(Box::new(Fold {
            range: step(checked, &fold.range)?,
            var: fold.var.clone(),
            var2: fold.var2.clone(),
            accu: fold.accu.clone(),
            init: step(checked, &fold.init)?,
            condition: step(checked, &fold.condition)?,
            step: step(checked, &fold.step)?,
            result: step(checked, &fold.result)?,
        })),
    })
}

/// `Name{field: value}`.
fn message(checked: &Checked, call: &super::ast::Call) -> Result<Plan, Error> {
    let [name, fields] = call.args.as_slice() else {
        return Err(Error::no_such_overload());
    };
    let (Kind::Literal(Literal::String(name)), Kind::Map(entries)) = (&name.kind, &fields.kind)
    else {
        return Err(Error::no_such_overload());
    };
    let mut made = Vec::with_capacity(entries.len());
    for entry in entries {
        if let Kind::Literal(Literal::String(field)) = &entry.key.kind {
            let value = step(checked, &entry.value)?;
            made.push((field.clone(), value, entry.optional));
        }
    }
    Ok(Plan::Message(Arc::from(name.as_str()), made))
}

/// Whether an attribute begins with an optional value, or asks with `.?` or `[?]` on its way.
fn is_in_optional(checked: &Checked, expr: &Expr) -> bool {
    match &expr.kind {
        Kind::Select(select) => select.optional || is_in_optional(checked, &select.operand),
        Kind::Call(call) if call.function == operator::OPTIONAL_INDEX => true,
        Kind::Call(call) if call.function == operator::INDEX => {
            let operand = call.target.as_deref().or(call.args.first());
            operand.is_some_and(|operand| is_in_optional(checked, operand))
        }
        _ => matches!(checked.types[expr.id], Type::Optional(_)),
    }
}

fn constant(plan: &Plan) -> Option<Value<'static>> {
    match plan {
        Plan::Const(value) => Some(value.clone()),
        _ => None,
    }
}

fn constant_map(entries: &[(Plan, Plan, bool)]) -> Result<Option<Value<'static>>, Error> {
    let mut map = std::collections::BTreeMap::new();
    for (key, value, optional) in entries {
        let (Some(key), Some(value), false) = (constant(key), constant(value), optional) else {
            return Ok(None);
        };
        let key = key
            .key()
            .ok_or_else(|| Error::new(format!("unsupported key type: {}", key.type_name())))?;
        map.insert(key, value);
    }
    Ok(Some(Value::Map(Map::Built(Arc::new(map)))))
}

/// Conversions, which are made once where what they convert is a constant.
const CONVERSIONS: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "string",
    "timestamp",
    "type",
    "uint",
];

fn call(checked: &Checked, expr: &Expr, call: &super::ast::Call) -> Result<Plan, Error> {
    let mut args = Vec::new();
    if let Some(target) = &call.target {
        args.push(step(checked, target)?);
    }
    args.extend(all(checked, &call.args)?);
    match call.function.as_str() {
        operator::AND => return Ok(Plan::And(args)),
        operator::OR => return Ok(Plan::Or(args)),
        _ => {}
    }
    let overloads = &checked.overloads[expr.id];
    let overload = match overloads.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    let id = overload.map_or("", |overload| overload.id.as_str());
    let name = call.function.as_str();
    if let operator::INDEX | operator::OPTIONAL_INDEX | "or" | "orValue" = name {
        let [operand, index] = two(args)?;
        let (operand, index) = (Box::new(operand), Box::new(index));
        if let ("_[_]" | "_[?_]", Plan::Const(key)) = (name, &*index)
            && let Some(told) = unqualified(key)
        {
            return Err(Error::new(told));
        }
        return Ok(match name {
            "or" | "orValue" => Plan::OrElse {
                optional: operand,
                other: index,
                unwraps: name == "orValue",
            },
            _ => Plan::Index {
                operand,
                index,
                optional: name == operator::OPTIONAL_INDEX,
            },
        });
    }
    if name == operator::CONDITIONAL {
        let parts: Result<[Plan; 3], _> = args.try_into();
        let parts = parts.map_err(|_| Error::no_such_overload())?;
        return Ok(Plan::Conditional(Box::new(parts)));
    }
    let function = functions::find(name).ok_or_else(Error::no_such_overload)?;
    if let [Plan::Const(value)] = args.as_slice()
        && CONVERSIONS.contains(&name)
    {
        let made = function.run(std::slice::from_ref(value), &mut Meter::per_call())?;
        return Ok(Plan::Const(made));
    }
    if let ("find" | "findAll", [_, Plan::Const(Value::String(pattern)), ..]) =
        (name, args.as_slice())
    {
        // A pattern that is none is told before anything runs.
        functions::regex(pattern)?;
    }
    if id == "in_list"
        && let [_, Plan::Const(Value::List(list))] = args.as_slice()
    {
        let among: Vec<Value<'static>> = list.iter().collect::<Result<_, _>>()?;
        if among.is_empty() {
            return Ok(Plan::Const(Value::Bool(false)));
        }
        let primitive = |value: &Value<'_>| {
            matches!(
                value,
                Value::Bool(_)
                    | Value::Int(_)
                    | Value::Uint(_)
                    | Value::Double(_)
                    | Value::String(_)
            )
        };
        if among.iter().all(primitive) {
            let [value, _] = two(args)?;
            return Ok(Plan::Member {
                value: Box::new(value),
                among,
            });
        }
    }
    Ok(Plan::Call(Call {
        function,
        overload,
        args,
        regex: OnceLock::new(),
    }))
}

/// Why a value cannot be an index.
pub(super) fn unqualified(key: &Value<'_>) -> Option<String> {
    let of = match key {
        Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Double(_) | Value::String(_) => {
            return None;
        }
        Value::Null => "types.Null",
        Value::Bytes(_) => "types.Bytes",
        Value::Duration(_) => "types.Duration",
        Value::Timestamp(_) => "types.Timestamp",
        Value::Type(_) => "*types.Type",
        Value::List(_) => "*types.baseList",
        Value::Map(_) => "*types.baseMap",
        Value::Optional(_) => "*types.Optional",
        Value::Quantity(_) => "cel.Quantity",
        Value::Ip(_) => "cel.IP",
        Value::Cidr(..) => "cel.CIDR",
        Value::Url(_) => "cel.URL",
        Value::Semver(_) => "cel.Semver",
        Value::Format(_) => "cel.Format",
        Value::Authority(_) => "library.authorizerVal",
        Value::Message(_) => "*dynamic.ObjectVal",
    };
    Some(format!("invalid qualifier type: {of}"))
}

fn two(args: Vec<Plan>) -> Result<[Plan; 2], Error> {
    args.try_into().map_err(|_| Error::no_such_overload())
}

impl Plan {
    /// Whether upstream reads it as an attribute: a variable with selections. Those cost 1 for the variable and 1 for
    /// each selection, and nothing for being put together.
    pub(super) fn is_attribute(&self) -> bool {
        matches!(
            self,
            Self::Variable(_) | Self::Select { .. } | Self::Index { .. } | Self::Conditional(_)
        )
    }

    /// What an attribute starts with.
    pub(super) fn root(&self) -> &Self {
        match self {
            Self::Select { operand, .. } | Self::Index { operand, .. } => operand.root(),
            other => other,
        }
    }
}
