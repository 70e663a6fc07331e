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
//! of kube-apiserver; `tests/upstream/` has its answers and holds how many differ, and `docs/differences.md` says which and why.
//!
//! Source: cel-spec; cel-go 0.29; k8s.io/apiserver and k8s.io/apiextensions-apiserver 0.37.

pub mod ast;
mod check;
pub(crate) mod correlation;
mod cost;
mod declaration;
mod estimate;
mod eval;
mod functions;
mod lexer;
mod literals;
mod macros;
mod message;
mod parser;
pub(crate) mod pattern;
mod plan;
pub mod rules;
mod time;
mod value;

use std::sync::Arc;

pub use declaration::{Decl, Type, escape, unescape};
pub use eval::{Composed, Error, Meter, VARIABLES};
pub use functions::authorizer::{Authority, Authorize, Decision, Question, Subject};
pub use message::{Message, misnamed};
pub use parser::{SOURCE_CHARS_MAX, parse};
pub use value::Value;

/// Whether a text is a day, as rules read it.
pub(crate) fn is_date(text: &str) -> bool {
    time::date(text).is_ok()
}

/// Whether a text can be the name of a variable.
pub(crate) fn is_identifier(text: &str) -> bool {
    let starts = |c: char| c == '_' || c.is_ascii_alphabetic();
    let goes_on = |c: char| c == '_' || c.is_ascii_alphanumeric();
    text.starts_with(starts)
        && text.chars().all(goes_on)
        && !parser::RESERVED.contains(&text)
        && !matches!(text, "true" | "false" | "null" | "in")
}

/// Whether a text is a duration of a schema's.
pub(crate) fn is_duration(text: &str) -> bool {
    time::loose_duration(text).is_ok()
}

/// Whether a text is an address of the web, or a path from the root.
pub(crate) fn is_uri(text: &str) -> bool {
    functions::url::Url::parse(text).is_ok()
}

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
        /// Bytes of a line that is still shown.
        const LINE_BYTES_MAX: usize = 16_384;
        let at = self.at.min(source.len());
        let before = source.get(..at).unwrap_or(source);
        let line = before.matches('\n').count();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before[start..].chars().count();
        let text = source.split('\n').nth(line).unwrap_or("");
        let told = format!(
            "ERROR: <input>:{}:{}: {}",
            line + 1,
            column + 1,
            self.message
        );
        if source.is_empty() || text.len() > LINE_BYTES_MAX {
            return told;
        }
        let text = text.replace('\t', " ");
        // What stands below a wide character is wide, too.
        let mut below: String = text
            .chars()
            .take(column)
            .map(|c| if c.is_ascii() { '.' } else { '\u{ff0e}' })
            .collect();
        let wide = text.chars().nth(column).is_some_and(|c| !c.is_ascii());
        below.push(if wide { '\u{ff3e}' } else { '^' });
        format!("{told}\n | {text}\n | {below}")
    }
}

/// Mistakes of one expression that are told; how many more there are, is.
const FAULTS_MAX: usize = 100;

/// The mistakes in an expression, of which the first hundred are kept.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    kept: Vec<Fault>,
    more: usize,
}

impl Faults {
    pub(crate) fn push(&mut self, fault: Fault) {
        match self.kept.len() < FAULTS_MAX {
            true => self.kept.push(fault),
            false => self.more += 1,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len() + self.more
    }

    pub(crate) fn into_kept(self) -> Vec<Fault> {
        self.kept
    }

    /// The first in the text.
    pub(crate) fn first(&self) -> Option<&Fault> {
        self.kept.iter().min_by_key(|fault| fault.at)
    }

    fn result<T>(self, made: T, source: &str) -> Result<T, String> {
        match self.len() {
            0 => Ok(made),
            _ => Err(self.describe(source)),
        }
    }

    /// All of them in the order of the text.
    fn describe(mut self, source: &str) -> String {
        self.kept.sort_by_key(|fault| fault.at);
        let mut told: Vec<String> = self
            .kept
            .iter()
            .map(|fault| fault.describe(source))
            .collect();
        if self.more > 0 {
            told.push(format!("{} more errors were truncated", self.more));
        }
        told.join("\n")
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self {
            kept: vec![fault],
            more: 0,
        }
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
        Self::compile_for(source, variables, root, false)
    }

    /// The same for an expression that may make patches: `JSONPatch{…}`, `Object{…}`, `jsonpatch.escapeKey`.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_patch(source: &str, variables: &[(&str, Type)]) -> Result<Self, String> {
        Self::compile_for(source, variables, None, true)
    }

    fn compile_for(
        source: &str,
        variables: &[(&str, Type)],
        root: Option<&Arc<Decl>>,
        patches: bool,
    ) -> Result<Self, String> {
        let describe = |faults: Faults| faults.describe(source);
        let parsed = parser::parse_all(source).map_err(describe)?;
        let (expanded, nodes) = macros::expand(parsed).map_err(|fault| fault.describe(source))?;
        let checked = check::check(expanded, nodes, variables, patches).map_err(describe)?;
        literals::faults(&checked).result((), source)?;
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
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (*name, Ok(value.clone())));
        eval::run(&self.plan, variables.collect(), None, meter)
    }

    /// The same with expressions that it may ask for by name, as `variables.NAME`.
    ///
    /// # Errors
    /// As [`Program::eval`].
    pub fn eval_composed<'a>(
        &'a self,
        variables: &[(&'a str, Value<'a>)],
        composed: &Composed<'a>,
        meter: &mut Meter,
    ) -> Result<Value<'a>, Error> {
        let variables = variables.iter();
        let variables = variables.map(|(name, value)| (*name, Ok(value.clone())));
        eval::run(&self.plan, variables.collect(), Some(composed), meter)
    }

    /// The same over variables of which some cannot be read, which is told where they are looked at.
    pub(crate) fn run<'a>(
        &'a self,
        variables: &[(&'a str, Result<Value<'a>, Error>)],
        meter: &mut Meter,
    ) -> Result<Value<'a>, Error> {
        eval::run(&self.plan, variables.to_vec(), None, meter)
    }
}
