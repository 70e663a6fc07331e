//! Rules as expressions: Kubernetes' dialect of the Common Expression Language.
//!
//! `parse → rewrite macros → check types against the schema → estimate cost → plan`, once for each rule, by
//! [`Program::compile`]; then [`Program::eval`] for each object, with a [`Meter`] that ends it. [`rules`] judges objects by the
//! `x-kubernetes-validations` of their schema.
//!
//! Written here and not taken from a crate: of those that there are (`cel` 0.13, `kube-cel` 0.8, looked at in November 2026) none checks types,
//! counts cost as it runs, or bounds memory, and those are what makes a stranger's rule safe to run in a server.
//!
//! Invariants: pure and total; expressions, values and recursion are bounded, whatever a rule says. Costs and wordings are meant to be those
//! of kube-apiserver; `tests/upstream/` has its answers and holds how many differ (165 of 1,390 expressions, 119 of 1,188 judgements).
//!
//! Source: cel-spec; cel-go 0.29; k8s.io/apiserver and k8s.io/apiextensions-apiserver 0.37.

pub mod ast;
mod check;
mod cost;
mod declaration;
mod estimate;
mod eval;
mod functions;
mod lexer;
mod macros;
mod parser;
pub(crate) mod pattern;
mod plan;
pub mod rules;
mod time;
mod value;

use std::sync::Arc;

pub use declaration::{Decl, Type, escape, unescape};
pub use eval::{Error, Meter};
pub use parser::{SOURCE_CHARS_MAX, parse};
pub use value::Value;

/// A mistake in an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Byte of the source.
    pub at: usize,
    pub message: String,
}

impl Fault {
    fn new(at: usize, message: String) -> Self {
        Self { at, message }
    }

    fn syntax(at: usize, message: String) -> Self {
        Self::new(at, format!("Syntax error: {message}"))
    }

    /// With the line that it is in, as upstream shows it.
    pub fn describe(&self, source: &str) -> String {
        let at = self.at.min(source.len());
        let before = source.get(..at).unwrap_or(source);
        let line = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count();
        let text = source.lines().nth(line).unwrap_or("");
        format!(
            "ERROR: <input>:{}:{}: {}\n | {text}\n | {}^",
            line + 1,
            column + 1,
            self.message,
            ".".repeat(column)
        )
    }
}

/// An expression that can run.
#[derive(Debug)]
pub struct Program {
    plan: plan::Plan,
    output: Type,
    cost_max: u64,
    used: Vec<String>,
}

impl Program {
    /// Compiles an expression over variables; `root` is the place in a schema where they stand, which says how large they are.
    ///
    /// # Errors
    /// All mistakes, as upstream words them.
    pub fn compile(
        source: &str,
        variables: &[(&str, Type)],
        root: Option<&Arc<Decl>>,
    ) -> Result<Self, String> {
        let describe = |fault: Fault| fault.describe(source);
        let parsed = parse(source).map_err(describe)?;
        let (expanded, nodes) = macros::expand(parsed).map_err(describe)?;
        let checked = check::check(expanded, nodes, variables).map_err(|faults| {
            let told: Vec<String> = faults.into_iter().map(describe).collect();
            told.join("\n")
        })?;
        plan::literals(&checked).map_err(describe)?;
        let cost_max = estimate::estimate(&checked, root).max;
        let plan = plan::plan(&checked)
            .map_err(|error| format!("program instantiation failed: {}", error.message))?;
        Ok(Self {
            output: checked.types[checked.expr.id].clone(),
            plan,
            cost_max,
            used: checked.used,
        })
    }

    /// What it gives.
    pub fn output(&self) -> &Type {
        &self.output
    }

    /// The most that it can cost for any object that its schema allows.
    pub fn cost_max(&self) -> u64 {
        self.cost_max
    }

    /// Whether it names a variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.used.iter().any(|used| used == variable)
    }

    /// Runs it over values for its variables.
    ///
    /// # Errors
    /// What went wrong, in upstream's words; or that the meter ended it.
    pub fn eval<'a>(
        &'a self,
        variables: &[(&'a str, Value<'a>)],
        meter: &mut Meter,
    ) -> Result<Value<'a>, Error> {
        eval::run(&self.plan, variables, meter)
    }
}
