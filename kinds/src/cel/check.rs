//! Types of every part of an expression, found before it runs.
//!
//! Names are resolved, calls find the overloads that can be meant, and fields are those of the schema: a rule that passes here fails
//! later only for values, never for a name. Where a type is `dyn`, every overload that could fit is kept.
//!
//! Invariants: total; a tree of bounded height is walked once.
//! Source: cel-go `checker/`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Call, Expr, Fold, Kind, Literal, Select, operator};
use super::declaration::{Shape, Type};
use super::functions::{self, Declared, Overload};
use super::message;
use super::{Fault, Faults};

/// An expression with what is known of its parts, by their number.
#[derive(Debug)]
pub(super) struct Checked {
    pub expr: Expr,
    pub types: Vec<Type>,
    pub overloads: Vec<Vec<&'static Overload>>,
    /// Global variables that it names.
    pub used: Vec<String>,
}

/// # Errors
/// Everything that does not fit.
pub(super) fn check(
    mut expr: Expr,
    nodes: usize,
    variables: &[(&str, Type)],
    patches: bool,
) -> Result<Checked, Faults> {
    let mut checker = Checker {
        scopes: variables
            .iter()
            .map(|(name, of)| ((*name).to_owned(), of.clone()))
            .collect(),
        globals: variables.len(),
        used: Vec::new(),
        types: vec![Type::Error; nodes],
        overloads: vec![Vec::new(); nodes],
        bindings: BTreeMap::new(),
        next_param: FREE_PARAMS,
        patches,
        faults: Faults::default(),
    };
    checker.check(&mut expr);
    if checker.faults.len() > 0 {
        return Err(checker.faults);
    }
    let types = std::mem::take(&mut checker.types);
    let types = types
        .iter()
        .map(|of| checker.substitute(of, true))
        .collect();
    Ok(Checked {
        expr,
        types,
        overloads: checker.overloads,
        used: checker.used,
    })
}

/// Variables below are those of signatures.
const FREE_PARAMS: u32 = 16;

struct Checker {
    scopes: Vec<(String, Type)>,
    globals: usize,
    used: Vec<String>,
    types: Vec<Type>,
    overloads: Vec<Vec<&'static Overload>>,
    /// What type variables stand for.
    bindings: BTreeMap<u32, Type>,
    next_param: u32,
    /// Whether the types that patches are made of are known.
    patches: bool,
    faults: Faults,
}

impl Checker {
    fn fault(&mut self, at: usize, message: String) {
        self.faults.push(Fault::new(at, message));
    }

    fn undeclared(&mut self, at: usize, name: &str) -> Type {
        self.fault(
            at,
            format!("undeclared reference to '{name}' (in container '')"),
        );
        Type::Error
    }

    fn fresh(&mut self) -> Type {
        self.next_param += 1;
        Type::Param(self.next_param)
    }

    fn of(&self, expr: &Expr) -> Type {
        self.types[expr.id].clone()
    }

    fn check(&mut self, expr: &mut Expr) {
        let (id, at) = (expr.id, expr.at);
        let found = match &mut expr.kind {
            Kind::Literal(literal) => match literal {
                Literal::Null => Type::Null,
                Literal::Bool(_) => Type::Bool,
                Literal::Int(_) => Type::Int,
                Literal::Uint(_) => Type::Uint,
                Literal::Double(_) => Type::Double,
                Literal::String(_) => Type::String,
                Literal::Bytes(_) => Type::Bytes,
            },
            Kind::Ident(name) => {
                let name = name.clone();
                match self.resolve(&name) {
                    Some(found) => found,
                    None => self.undeclared(at, &name),
                }
            }
            Kind::Select(_) => {
                // A name with dots may be that of a type.
                let qualified = expr.qualified_name();
                // A variable may have a name with dots: `authorizer.requestResource`.
                let whole = qualified.as_ref().and_then(|name| self.global(name));
                if let (Some(of), Some(name)) = (whole, &qualified) {
                    expr.kind = Kind::Ident(name.clone());
                    self.types[id] = of;
                    return;
                }
                let named = qualified.filter(|name| !self.is_variable_path(name));
                match named.and_then(|name| Some((functions::type_named(&name)?, name))) {
                    Some((of, name)) => {
                        expr.kind = Kind::Ident(name);
                        Type::Type(Arc::new(of))
                    }
                    None => match &mut expr.kind {
                        Kind::Select(select) => self.select(at, select),
                        _ => Type::Error,
                    },
                }
            }
            Kind::Call(call) => self.call(id, at, call),
            Kind::List(items) => {
                let mut all: Option<Type> = None;
                for item in items {
                    self.check(&mut item.value);
                    let mut of = self.of(&item.value);
                    if item.optional {
                        of = self.unwrapped(&item.value, of);
                    }
                    all = Some(self.join(all, of));
                }
                Type::list(all.unwrap_or_else(|| self.fresh()))
            }
            Kind::Map(entries) => {
                let (mut keys, mut values): (Option<Type>, Option<Type>) = (None, None);
                for entry in entries {
                    self.check(&mut entry.key);
                    let of = self.of(&entry.key);
                    keys = Some(self.join(keys, of));
                    self.check(&mut entry.value);
                    let mut of = self.of(&entry.value);
                    if entry.optional {
                        of = self.unwrapped(&entry.value, of);
                    }
                    values = Some(self.join(values, of));
                }
                let key = keys.unwrap_or_else(|| self.fresh());
                Type::map(key, values.unwrap_or_else(|| self.fresh()))
            }
            Kind::Fold(fold) => self.fold(fold),
        };
        self.types[id] = found;
    }

    /// A variable, the innermost first, or a type.
    fn resolve(&mut self, name: &str) -> Option<Type> {
        let found = self.scopes.iter().rposition(|(known, _)| known == name);
        if let Some(index) = found {
            if index < self.globals && !self.used.iter().any(|used| used == name) {
                self.used.push(name.to_owned());
            }
            return Some(self.scopes[index].1.clone());
        }
        functions::type_named(name).map(|of| Type::Type(Arc::new(of)))
    }

    /// A variable that the expression was given.
    fn global(&mut self, name: &str) -> Option<Type> {
        let globals = self.scopes.iter().take(self.globals);
        let mut found = globals.filter(|(known, _)| known == name);
        found.next()?;
        self.resolve(name)
    }

    /// Whether a name with dots starts with a variable.
    fn is_variable_path(&self, name: &str) -> bool {
        let first = name.split('.').next().unwrap_or(name);
        self.scopes.iter().any(|(known, _)| known == first)
    }

    fn unwrapped(&mut self, expr: &Expr, of: Type) -> Type {
        match of {
            Type::Optional(inner) => (*inner).clone(),
            Type::Dyn => Type::Dyn,
            of => {
                self.mismatch(expr.at, &Type::optional(of.clone()), &of);
                of
            }
        }
    }

    fn mismatch(&mut self, at: usize, expected: &Type, found: &Type) {
        let expected = self.substitute(expected, false);
        let found = self.substitute(found, false);
        self.fault(
            at,
            format!("expected type '{expected}' but found '{found}'"),
        );
    }

    /// The type that elements have in common, which is any where they are mixed; whether they may be is `super::literals`' to say.
    fn join(&mut self, previous: Option<Type>, current: Type) -> Type {
        let Some(previous) = previous else {
            return current;
        };
        if self.assignable(&previous, &current) {
            return match is_equal_or_less_specific(&previous, &current) {
                true => previous,
                false => current,
            };
        }
        Type::Dyn
    }

    fn select(&mut self, at: usize, select: &mut Select) -> Type {
        self.check(&mut select.operand);
        let operand = self.substitute(&self.of(&select.operand), false);
        let (target, optional) = match operand {
            Type::Optional(inner) => ((*inner).clone(), true),
            other => (other, false),
        };
        let found = match &target {
            Type::Map(entry) => entry.1.clone(),
            Type::Object(decl) if matches!(decl.shape, Shape::Open) => Type::Dyn,
            Type::Object(decl) => match decl.field(&select.field) {
                Some((_, field)) => field.cel_type(),
                None => {
                    self.fault(at, format!("undefined field '{}'", select.field));
                    Type::Error
                }
            },
            Type::Param(_) => {
                self.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    let told = format!("type '{other}' does not support field selection");
                    self.fault(at, told);
                }
                Type::Dyn
            }
        };
        let found = match optional || select.optional {
            true => Type::optional(found),
            false => found,
        };
        if select.test { Type::Bool } else { found }
    }

    /// `JSONPatch{op: "add"}`, `Object.spec{replicas: 1}`: what policies build.
    fn new_message(&mut self, at: usize, call: &mut Call) -> Type {
        let [name, fields] = call.args.as_mut_slice() else {
            return Type::Error;
        };
        self.check(name);
        let Kind::Literal(Literal::String(name)) = &name.kind else {
            return Type::Error;
        };
        let name = name.clone();
        let declared = message::declared(&name).filter(|_| self.patches);
        let Some(decl) = declared else {
            return self.undeclared(at, &name);
        };
        if let Kind::Map(entries) = &mut fields.kind {
            for entry in entries {
                self.check(&mut entry.key);
                self.check(&mut entry.value);
                let Kind::Literal(Literal::String(field)) = &entry.key.kind else {
                    continue;
                };
                let field = field.clone();
                let mut of = self.of(&entry.value);
                if entry.optional {
                    of = self.unwrapped(&entry.key, of);
                }
                let wanted = match (&decl.shape, decl.field(&field)) {
                    (Shape::Open, _) => continue,
                    (_, Some((_, field))) => field.cel_type(),
                    (_, None) => {
                        self.fault(entry.key.at, format!("undefined field '{field}'"));
                        continue;
                    }
                };
                if !self.assignable(&wanted, &of) {
                    self.fault(
                        entry.key.at,
                        format!(
                            "expected type of field '{field}' is '{wanted}' but provided type is '{of}'"
                        ),
                    );
                }
            }
        }
        self.types[fields.id] = Type::map(Type::String, Type::Dyn);
        decl.cel_type()
    }

    fn call(&mut self, id: usize, at: usize, call: &mut Call) -> Type {
        if call.function == operator::NEW {
            return self.new_message(at, call);
        }
        for arg in &mut call.args {
            self.check(arg);
        }
        if let Some(target) = &mut call.target {
            let qualified = target.qualified_name();
            let qualified = qualified.map(|name| format!("{name}.{}", call.function));
            let qualified =
                qualified.filter(|name| self.patches || !name.starts_with("jsonpatch."));
            match qualified.and_then(|name| functions::find(&name)) {
                // A function of a namespace.
                Some(declared) => {
                    call.target = None;
                    call.function = declared.name.to_owned();
                }
                None => self.check(target),
            }
        }
        let Some(declared) = functions::find(&call.function) else {
            return self.undeclared(at, &call.function.clone());
        };
        match self.resolve_overload(at, declared, call) {
            Some((overloads, result)) => {
                self.overloads[id] = overloads;
                result
            }
            None => Type::Error,
        }
    }

    fn resolve_overload(
        &mut self,
        at: usize,
        declared: &'static Declared,
        call: &Call,
    ) -> Option<(Vec<&'static Overload>, Type)> {
        let target = call.target.as_deref();
        let places: Vec<&Expr> = target.into_iter().chain(&call.args).collect();
        let args: Vec<Type> = places.iter().map(|arg| self.of(arg)).collect();
        if matches!(declared.name, operator::AND | operator::OR) {
            let before = self.faults.len();
            for (place, arg) in places.iter().zip(&args) {
                if !self.assignable(arg, &Type::Bool) {
                    self.mismatch(place.at, &Type::Bool, arg);
                }
            }
            let sound = self.faults.len() == before;
            return sound.then(|| (declared.overloads.iter().collect(), Type::Bool));
        }
        let mut matched = Vec::new();
        let mut result: Option<Type> = None;
        for overload in &declared.overloads {
            if overload.member != target.is_some() || overload.args.len() != args.len() {
                continue;
            }
            let mut instance = BTreeMap::new();
            for number in 0..overload.params {
                let fresh = self.fresh();
                instance.insert(number, fresh);
            }
            let candidates: Vec<Type> = overload
                .args
                .iter()
                .map(|arg| substitute(&instance, arg, false))
                .collect();
            if !self.all_assignable(&args, &candidates) {
                continue;
            }
            matched.push(overload);
            let of = substitute(&instance, &overload.result, false);
            let of = self.substitute(&of, false);
            result = Some(match result {
                None => of,
                Some(result) if matches!(result, Type::Dyn) || result == of => result,
                Some(_) => Type::Dyn,
            });
        }
        if let Some(result) = result {
            return Some((matched, result));
        }
        let shown: Vec<String> = args
            .iter()
            .map(|arg| self.substitute(arg, true).to_string())
            .collect();
        let signature = match (target, shown.split_first()) {
            (Some(_), Some((target, args))) => format!("{target}.({})", args.join(", ")),
            _ => format!("({})", shown.join(", ")),
        };
        self.fault(
            at,
            format!(
                "found no matching overload for '{}' applied to '{signature}'",
                declared.name
            ),
        );
        None
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        self.check(&mut fold.range);
        self.check(&mut fold.init);
        let range = self.substitute(&self.of(&fold.range), false);
        let accu = self.of(&fold.init);
        let two = fold.var2.is_some();
        let (var, var2) = match &range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Error),
            Type::Map(entry) => entry.as_ref().clone(),
            Type::Dyn | Type::Error | Type::Param(_) => {
                self.assignable(&Type::Dyn, &range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                let told = format!(
                    "expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"
                );
                self.fault(fold.range.at, told);
                (Type::Error, Type::Error)
            }
        };
        let outside = self.scopes.len();
        self.scopes.push((fold.accu.clone(), accu.clone()));
        let before = self.scopes.len();
        self.scopes.push((fold.var.clone(), var));
        if let Some(name) = &fold.var2 {
            self.scopes.push((name.clone(), var2));
        }
        self.check(&mut fold.condition);
        self.assert(&fold.condition, &Type::Bool);
        self.check(&mut fold.step);
        self.assert(&fold.step, &accu);
        self.scopes.truncate(before);
        self.check(&mut fold.result);
        self.scopes.truncate(outside);
        self.substitute(&self.of(&fold.result), false)
    }

    fn assert(&mut self, expr: &Expr, wanted: &Type) {
        let of = self.of(expr);
        if !self.assignable(wanted, &of) {
            self.mismatch(expr.at, wanted, &of);
        }
    }

    fn substitute(&self, of: &Type, to_dyn: bool) -> Type {
        substitute(&self.bindings, of, to_dyn)
    }

    /// Whether a value of the second type can stand where the first is wanted; type variables are bound by it.
    fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        let before = self.bindings.clone();
        let fits = self.unify(a, b);
        if !fits {
            self.bindings = before;
        }
        fits
    }

    fn all_assignable(&mut self, a: &[Type], b: &[Type]) -> bool {
        let before = self.bindings.clone();
        let fits = a.iter().zip(b).all(|(a, b)| self.unify(a, b));
        if !fits {
            self.bindings = before;
        }
        fits
    }

    fn unify(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Param(number) = b {
            let (valid, bound) = self.bind(*number, a);
            if valid || bound {
                return valid;
            }
        }
        if let Type::Param(number) = a {
            return self.bind(*number, b).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        let nullable = |of: &Type| {
            matches!(
                of,
                Type::Null
                    | Type::Duration
                    | Type::Timestamp
                    | Type::Object(_)
                    | Type::Optional(_)
                    | Type::Opaque("kubernetes.Quantity" | "kubernetes.URL" | "kubernetes.Semver")
            )
        };
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => nullable(other),
            (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
                self.unify(&Arc::clone(a), &Arc::clone(b))
            }
            (Type::Map(a), Type::Map(b)) => {
                let (a, b) = (Arc::clone(a), Arc::clone(b));
                self.unify(&a.0, &b.0) && self.unify(&a.1, &b.1)
            }
            (Type::Type(_), Type::Type(_)) => true,
            (a, b) => a == b,
        }
    }

    /// Binds a variable to a type: whether that is possible, and whether it was bound before.
    fn bind(&mut self, number: u32, to: &Type) -> (bool, bool) {
        if *to == Type::Param(number) {
            return (true, true);
        }
        if let Some(bound) = self.bindings.get(&number).cloned() {
            if *to == bound {
                return (true, true);
            }
            if !self.unify(to, &bound) {
                return (false, true);
            }
            let general = match is_equal_or_less_specific(to, &bound) {
                true => to.clone(),
                false => bound,
            };
            if !self.occurs(number, &general) {
                self.bindings.insert(number, general);
            }
            return (true, true);
        }
        if self.occurs(number, to) {
            return (false, false);
        }
        self.bindings.insert(number, to.clone());
        (true, false)
    }

    /// Whether a variable occurs in a type, so that it cannot stand for it.
    fn occurs(&self, number: u32, of: &Type) -> bool {
        match of {
            Type::Param(other) if *other == number => true,
            Type::Param(other) => match self.bindings.get(other) {
                Some(bound) => self.occurs(number, bound),
                None => false,
            },
            of => of
                .parameters()
                .into_iter()
                .any(|part| self.occurs(number, part)),
        }
    }
}

fn substitute(bindings: &BTreeMap<u32, Type>, of: &Type, to_dyn: bool) -> Type {
    match of {
        Type::Param(number) => match bindings.get(number) {
            Some(bound) => substitute(bindings, bound, to_dyn),
            None if to_dyn => Type::Dyn,
            None => of.clone(),
        },
        Type::List(item) => Type::list(substitute(bindings, item, to_dyn)),
        Type::Optional(inner) => Type::optional(substitute(bindings, inner, to_dyn)),
        Type::Type(inner) => Type::Type(Arc::new(substitute(bindings, inner, to_dyn))),
        Type::Map(entry) => Type::map(
            substitute(bindings, &entry.0, to_dyn),
            substitute(bindings, &entry.1, to_dyn),
        ),
        other => other.clone(),
    }
}

fn is_equal_or_less_specific(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Param(_), _) => true,
        (_, Type::Dyn | Type::Param(_)) => false,
        (Type::List(a), Type::List(b)) | (Type::Optional(a), Type::Optional(b)) => {
            is_equal_or_less_specific(a, b)
        }
        (Type::Map(a), Type::Map(b)) => {
            is_equal_or_less_specific(&a.0, &b.0) && is_equal_or_less_specific(&a.1, &b.1)
        }
        (Type::Type(_), Type::Type(_)) => true,
        (a, b) => a == b,
    }
}
