//! Macros: calls that are rewritten before anything is checked.
//!
//! `has`, `all`, `exists`, `exists_one`, `map`, `filter` of the language, `optMap` and `optFlatMap` of optional values, `sortBy` of lists,
//! and those with two variables. Each becomes what upstream makes of it, because costs are counted in what it becomes.
//!
//! Invariants: the result is bounded in height; its nodes are numbered from 0 in one sequence.
//! Source: cel-go `parser/macro.go`, `cel/library.go`, `ext/comprehensions.go`, `ext/lists.go`.

use super::Fault;
use super::ast::{Call, EXPANDED_HEIGHT_MAX, Entry, Expr, Fold, Item, Kind, Literal, operator};
use super::functions::lists::SORT_BY_KEYS;

/// What loops gather in; no name that can be written.
pub(super) const ACCU: &str = "@result";
const UNUSED: &str = "#unused";
/// What `sortBy` sorts.
const SORTED: &str = "@__sortBy_input__";

/// Nodes of an expanded expression: `optMap` writes its target twice, so that nested ones double.
const NODES_MAX: usize = 200_000;

/// Rewrites the macros of an expression and numbers its nodes; returns how many there are.
pub(super) fn expand(expr: Expr) -> Result<(Expr, usize), Fault> {
    let mut nodes = 0;
    let mut expanded = rewrite(expr, &mut nodes)?;
    let mut next = 0;
    expanded.number(&mut next);
    Ok((expanded, next))
}

fn rewrite(expr: Expr, nodes: &mut usize) -> Result<Expr, Fault> {
    let at = expr.at;
    *nodes += 1;
    let kind = match expr.kind {
        kind @ (Kind::Literal(_) | Kind::Ident(_) | Kind::Fold(_)) => kind,
        Kind::Select(mut select) => {
            select.operand = rewrite(select.operand, nodes)?;
            Kind::Select(select)
        }
        Kind::List(items) => {
            let items: Result<Vec<Item>, Fault> = items
                .into_iter()
                .map(|item| {
                    let value = rewrite(item.value, nodes)?;
                    Ok(Item { value, ..item })
                })
                .collect();
            Kind::List(items?)
        }
        Kind::Map(entries) => {
            let entries: Result<Vec<Entry>, Fault> = entries
                .into_iter()
                .map(|entry| {
                    Ok(Entry {
                        key: rewrite(entry.key, nodes)?,
                        value: rewrite(entry.value, nodes)?,
                        ..entry
                    })
                })
                .collect();
            Kind::Map(entries?)
        }
        Kind::Call(call) => {
            let args: Result<Vec<Expr>, Fault> = call
                .args
                .into_iter()
                .map(|arg| rewrite(arg, nodes))
                .collect();
            let args = args?;
            let target = match call.target {
                Some(target) => Some(Box::new(rewrite(*target, nodes)?)),
                None => None,
            };
            let made = call_or_macro(
                at,
                Call {
                    target,
                    args,
                    function: call.function,
                },
                nodes,
            )?;
            if *nodes > NODES_MAX {
                return Err(Fault::new(
                    at,
                    format!("expression has more than {NODES_MAX} nodes"),
                ));
            }
            made.kind
        }
    };
    let expr = Expr::new(at, kind);
    match expr.height() > EXPANDED_HEIGHT_MAX {
        true => Err(Fault::new(
            at,
            format!("expression recursion limit exceeded: {EXPANDED_HEIGHT_MAX}"),
        )),
        false => Ok(expr),
    }
}

fn call_or_macro(at: usize, mut call: Call, nodes: &mut usize) -> Result<Expr, Fault> {
    let count = call.args.len();
    let Some(target) = call.target.take() else {
        if (call.function.as_str(), count) == ("has", 1) {
            return presence(at, call.args.remove(0));
        }
        return Ok(Expr::new(at, Kind::Call(call)));
    };
    let function = call.function.as_str();
    let two = matches!(
        (function, count),
        ("all" | "exists" | "exists_one" | "existsOne", 3)
            | (
                "transformList" | "transformMap" | "transformMapEntry",
                3 | 4
            )
    );
    let one = matches!(
        (function, count),
        ("all" | "exists" | "exists_one" | "existsOne" | "filter", 2) | ("map", 2 | 3)
    );
    if matches!((function, count), ("optMap" | "optFlatMap", 2)) {
        *nodes += size(&target);
        return optional(at, *target, call);
    }
    if (function, count) == ("sortBy", 2) {
        *nodes += 14;
        return sorted(at, *target, call.args);
    }
    if !one && !two {
        call.target = Some(target);
        return Ok(Expr::new(at, Kind::Call(call)));
    }
    *nodes += 8;
    let mut args = call.args.into_iter();
    let var = variable(args.next()).map_err(|fault| match call.function.as_str() {
        "map" | "filter" => not_an_identifier(fault),
        _ => fault,
    })?;
    let var2 = match two {
        true => {
            let second = args.next();
            let place = second.as_ref().map_or(at, |second| second.at);
            let name = variable(second)?;
            if name == var {
                return Err(Fault::new(
                    place,
                    format!("duplicate variable name: {name}"),
                ));
            }
            Some(name)
        }
        false => None,
    };
    let args: Vec<Expr> = args.collect();
    let make = Builder {
        at,
        range: *target,
        var,
        var2,
    };
    Ok(make.fold(&call.function, args))
}

fn presence(at: usize, arg: Expr) -> Result<Expr, Fault> {
    match arg.kind {
        Kind::Select(mut select) if !select.test && !select.optional => {
            select.test = true;
            Ok(Expr::new(at, Kind::Select(select)))
        }
        _ => Err(Fault::new(
            arg.at,
            "invalid argument to has() macro".to_owned(),
        )),
    }
}

fn variable(arg: Option<Expr>) -> Result<String, Fault> {
    match arg {
        Some(Expr {
            kind: Kind::Ident(name),
            ..
        }) => Ok(name),
        Some(other) => Err(Fault::new(
            other.at,
            "argument must be a simple name".to_owned(),
        )),
        None => Err(Fault::new(0, "argument must be a simple name".to_owned())),
    }
}

fn not_an_identifier(fault: Fault) -> Fault {
    Fault {
        message: "argument is not an identifier".to_owned(),
        ..fault
    }
}

/// `bind(input, target, input.@sortByAssociatedKeys(input.map(v, e)))`.
fn sorted(at: usize, target: Expr, args: Vec<Expr>) -> Result<Expr, Fault> {
    if matches!(target.kind, Kind::Literal(_) | Kind::Map(_)) {
        let told = "sortBy can only be applied to a list, identifier, comprehension, call or select expression";
        return Err(Fault::new(target.at, told.to_owned()));
    }
    let mut args = args.into_iter();
    let var = variable(args.next()).map_err(not_an_identifier)?;
    let make = Builder {
        at,
        range: Expr::ident(at, SORTED),
        var,
        var2: None,
    };
    let keys = make.fold("map", args.collect());
    let result = Expr::member(at, Expr::ident(at, SORTED), SORT_BY_KEYS, vec![keys]);
    Ok(bound(at, SORTED, target, result))
}

/// A value under a name: a loop over nothing.
fn bound(at: usize, name: &str, value: Expr, result: Expr) -> Expr {
    Expr::new(
        at,
        Kind::Fold(Box::new(Fold {
            range: Expr::new(at, Kind::List(Vec::new())),
            var: UNUSED.to_owned(),
            var2: None,
            init: value,
            accu: name.to_owned(),
            condition: Expr::literal(at, Literal::Bool(false)),
            step: Expr::ident(at, name),
            result,
        })),
    )
}

fn size(expr: &Expr) -> usize {
    let mut count = 1;
    super::ast::for_children(&expr.kind, &mut |child| count += size(child));
    count
}

/// `target.hasValue() ? optional.of(bind(v, target.value(), e)) : optional.none()`; the flat one without `optional.of`.
fn optional(at: usize, target: Expr, call: Call) -> Result<Expr, Fault> {
    let flat = call.function == "optFlatMap";
    let mut args = call.args.into_iter();
    let name = variable(args.next()).map_err(|fault| Fault {
        message: format!(
            "{}() variable name must be a simple identifier",
            call.function
        ),
        ..fault
    })?;
    let Some(body) = args.next() else {
        return Err(Fault::new(at, "argument is missing".to_owned()));
    };
    let namespace =
        |function: &str, args| Expr::member(at, Expr::ident(at, "optional"), function, args);
    let value = Expr::member(at, target.clone(), "value", Vec::new());
    let found = bound(at, &name, value, body);
    let mapped = match flat {
        true => found,
        false => namespace("of", vec![found]),
    };
    let args = vec![
        Expr::member(at, target, "hasValue", Vec::new()),
        mapped,
        namespace("none", Vec::new()),
    ];
    Ok(Expr::call(at, operator::CONDITIONAL, args))
}

struct Builder {
    at: usize,
    range: Expr,
    var: String,
    var2: Option<String>,
}

impl Builder {
    fn fold(self, function: &str, args: Vec<Expr>) -> Expr {
        let at = self.at;
        let literal = |literal| Expr::literal(at, literal);
        let accu = || Expr::ident(at, ACCU);
        let call = |function: &str, args| Expr::call(at, function, args);
        let var = self.var.clone();
        let always = || literal(Literal::Bool(true));
        let mut args = args.into_iter();
        // A macro with too few arguments is a call, and does not come here.
        let first = args.next().unwrap_or_else(always);
        let second = args.next();
        let (init, condition, step, result) = match function {
            "all" => (
                always(),
                call(operator::NOT_STRICTLY_FALSE, vec![accu()]),
                call(operator::AND, vec![accu(), first]),
                accu(),
            ),
            "exists" => (
                literal(Literal::Bool(false)),
                call(
                    operator::NOT_STRICTLY_FALSE,
                    vec![call(operator::NOT, vec![accu()])],
                ),
                call(operator::OR, vec![accu(), first]),
                accu(),
            ),
            "exists_one" | "existsOne" => (
                literal(Literal::Int(0)),
                always(),
                call(
                    operator::CONDITIONAL,
                    vec![
                        first,
                        call(operator::ADD, vec![accu(), literal(Literal::Int(1))]),
                        accu(),
                    ],
                ),
                call(operator::EQUALS, vec![accu(), literal(Literal::Int(1))]),
            ),
            _ => {
                let (filter, made) = match second {
                    Some(second) => (Some(first), second),
                    None if function == "filter" => (Some(first), Expr::ident(at, &var)),
                    None => (None, first),
                };
                let (init, step) = match function {
                    "transformMap" => (
                        Kind::Map(Vec::new()),
                        call(
                            operator::MAP_INSERT,
                            vec![accu(), Expr::ident(at, &var), made],
                        ),
                    ),
                    "transformMapEntry" => (
                        Kind::Map(Vec::new()),
                        call(operator::MAP_INSERT, vec![accu(), made]),
                    ),
                    _ => {
                        let item = Item {
                            value: made,
                            optional: false,
                        };
                        let one = Expr::new(at, Kind::List(vec![item]));
                        (
                            Kind::List(Vec::new()),
                            call(operator::ADD, vec![accu(), one]),
                        )
                    }
                };
                let step = match filter {
                    Some(filter) => call(operator::CONDITIONAL, vec![filter, step, accu()]),
                    None => step,
                };
                (Expr::new(at, init), always(), step, accu())
            }
        };
        Expr::new(
            at,
            Kind::Fold(Box::new(Fold {
                range: self.range,
                var: self.var,
                var2: self.var2,
                accu: ACCU.to_owned(),
                init,
                condition,
                step,
                result,
            })),
        )
    }
}
