//! Expressions as trees, and as text.
//!
//! The parser makes them, macros still as calls; `super::macros` rewrites those to folds, `super::check` finds types.
//!
//! Invariants: an expression knows its height, so that whoever builds one can refuse it before anything recurses into it;
//! what is printed is read the same again (`tests/properties.rs`).

use std::borrow::Cow;
use std::fmt;

/// Levels of an expression as it is written; upstream stops at 250, published rules need some twenty.
pub const HEIGHT_MAX: u16 = 100;

/// Levels after macros are rewritten, each of which adds a few.
pub(super) const EXPANDED_HEIGHT_MAX: u16 = 250;

/// One expression. Equality is of the form, wherever it was written.
#[derive(Clone, Debug)]
pub struct Expr {
    /// Byte of the source where errors point to.
    pub at: usize,
    /// Number of the node in its tree, given once macros are rewritten.
    pub(super) id: usize,
    height: u16,
    pub kind: Kind,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Literal(Literal),
    Ident(String),
    Select(Box<Select>),
    /// Operators are calls of functions with names that nobody can write, as upstream has them.
    Call(Call),
    List(Vec<Item>),
    Map(Vec<Entry>),
    Fold(Box<Fold>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(String),
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Select {
    pub operand: Expr,
    pub field: String,
    /// `a.?b`: absent is no error.
    pub optional: bool,
    /// Whether it is there, as `has()` asks.
    pub test: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    pub target: Option<Box<Expr>>,
    pub function: String,
    pub args: Vec<Expr>,
}

/// An element of a list; an optional one is left out when it has no value.
#[derive(Clone, Debug, PartialEq)]
pub struct Item {
    pub value: Expr,
    pub optional: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Expr,
    pub value: Expr,
    pub optional: bool,
}

/// A loop over a list or map: `accu = init; for x in range { if !condition break; accu = step }; result`.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    pub range: Expr,
    pub var: String,
    pub var2: Option<String>,
    pub accu: String,
    pub init: Expr,
    pub condition: Expr,
    pub step: Expr,
    pub result: Expr,
}

/// Functions behind operators.
pub mod operator {
    pub const AND: &str = "_&&_";
    pub const OR: &str = "_||_";
    pub const NOT: &str = "!_";
    pub const NEGATE: &str = "-_";
    pub const CONDITIONAL: &str = "_?_:_";
    pub const EQUALS: &str = "_==_";
    pub const NOT_EQUALS: &str = "_!=_";
    pub const LESS: &str = "_<_";
    pub const LESS_EQUALS: &str = "_<=_";
    pub const GREATER: &str = "_>_";
    pub const GREATER_EQUALS: &str = "_>=_";
    pub const IN: &str = "@in";
    pub const ADD: &str = "_+_";
    pub const SUBTRACT: &str = "_-_";
    pub const MULTIPLY: &str = "_*_";
    pub const DIVIDE: &str = "_/_";
    pub const MODULO: &str = "_%_";
    pub const INDEX: &str = "_[_]";
    pub const OPTIONAL_INDEX: &str = "_[?_]";
    pub const NOT_STRICTLY_FALSE: &str = "@not_strictly_false";
    pub const MAP_INSERT: &str = "cel.@mapInsert";
    /// `Name{field: value}`: of the name, and a map of the fields.
    pub const NEW: &str = "@new";
}

/// Binary operators: function, sign, how tightly it binds.
pub(super) const BINARY: &[(&str, &str, u8)] = &[
    (operator::OR, "||", 2),
    (operator::AND, "&&", 3),
    (operator::LESS_EQUALS, "<=", 4),
    (operator::LESS, "<", 4),
    (operator::GREATER_EQUALS, ">=", 4),
    (operator::GREATER, ">", 4),
    (operator::EQUALS, "==", 4),
    (operator::NOT_EQUALS, "!=", 4),
    (operator::IN, "in", 4),
    (operator::ADD, "+", 5),
    (operator::SUBTRACT, "-", 5),
    (operator::MULTIPLY, "*", 6),
    (operator::DIVIDE, "/", 6),
    (operator::MODULO, "%", 6),
];

/// How tightly a conditional, a unary operator and a member bind.
const CONDITIONAL: u8 = 1;
const UNARY: u8 = 7;
const MEMBER: u8 = 8;

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

impl Expr {
    pub fn new(at: usize, kind: Kind) -> Self {
        let mut height = 0;
        for_children(&kind, &mut |child| height = height.max(child.height));
        Self {
            at,
            id: 0,
            height: height.saturating_add(1),
            kind,
        }
    }

    /// How many expressions stand in one another.
    pub fn height(&self) -> u16 {
        self.height
    }

    pub fn literal(at: usize, literal: Literal) -> Self {
        Self::new(at, Kind::Literal(literal))
    }

    pub fn ident(at: usize, name: &str) -> Self {
        Self::new(at, Kind::Ident(name.to_owned()))
    }

    pub fn call(at: usize, function: &str, args: Vec<Expr>) -> Self {
        Self::new(
            at,
            Kind::Call(Call {
                target: None,
                function: function.to_owned(),
                args,
            }),
        )
    }

    pub fn member(at: usize, target: Expr, function: &str, args: Vec<Expr>) -> Self {
        Self::new(
            at,
            Kind::Call(Call {
                target: Some(Box::new(target)),
                function: function.to_owned(),
                args,
            }),
        )
    }

    pub fn select(at: usize, operand: Expr, field: &str, optional: bool) -> Self {
        Self::new(
            at,
            Kind::Select(Box::new(Select {
                operand,
                field: field.to_owned(),
                optional,
                test: false,
            })),
        )
    }

    /// Numbers the nodes from `next` on.
    pub(super) fn number(&mut self, next: &mut usize) {
        self.id = *next;
        *next += 1;
        for_children_mut(&mut self.kind, &mut |child| child.number(next));
    }

    /// `a.b.c` of an identifier and selections, as a name.
    pub(super) fn qualified_name(&self) -> Option<String> {
        match &self.kind {
            Kind::Ident(name) => Some(name.clone()),
            Kind::Select(select) if !select.test && !select.optional => {
                let mut name = select.operand.qualified_name()?;
                name.push('.');
                name.push_str(&select.field);
                Some(name)
            }
            _ => None,
        }
    }

    fn precedence(&self) -> u8 {
        match &self.kind {
            Kind::Literal(Literal::Int(number)) if *number < 0 => UNARY,
            Kind::Literal(Literal::Double(number)) if number.is_sign_negative() => UNARY,
            Kind::Call(Call {
                target: None,
                function,
                args,
            }) => {
                let binary = BINARY.iter().find(|(name, ..)| name == function);
                match (function.as_str(), binary, args.len()) {
                    (operator::CONDITIONAL, _, 3) => CONDITIONAL,
                    (operator::NOT | operator::NEGATE, _, 1) => UNARY,
                    (_, Some((.., precedence)), 2..) => *precedence,
                    _ => MEMBER,
                }
            }
            _ => MEMBER,
        }
    }

    /// Prints in parentheses unless it binds at least as tightly as `least`.
    fn print(&self, f: &mut fmt::Formatter<'_>, least: u8) -> fmt::Result {
        if self.precedence() < least {
            return write!(f, "({self})");
        }
        write!(f, "{self}")
    }
}

/// Calls `visit` with each expression directly below.
pub(super) fn for_children<'a>(kind: &'a Kind, visit: &mut impl FnMut(&'a Expr)) {
    match kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select(select) => visit(&select.operand),
        Kind::Call(call) => {
            call.target.as_deref().into_iter().for_each(&mut *visit);
            call.args.iter().for_each(visit);
        }
        Kind::List(items) => items.iter().for_each(|item| visit(&item.value)),
        Kind::Map(entries) => {
            for entry in entries {
                visit(&entry.key);
                visit(&entry.value);
            }
        }
        Kind::Fold(fold) => {
            for child in [
                &fold.range,
                &fold.init,
                &fold.condition,
                &fold.step,
                &fold.result,
            ] {
                visit(child);
            }
        }
    }
}

fn for_children_mut(kind: &mut Kind, visit: &mut impl FnMut(&mut Expr)) {
    match kind {
        Kind::Literal(_) | Kind::Ident(_) => {}
        Kind::Select(select) => visit(&mut select.operand),
        Kind::Call(call) => {
            call.target.as_deref_mut().into_iter().for_each(&mut *visit);
            call.args.iter_mut().for_each(visit);
        }
        Kind::List(items) => items.iter_mut().for_each(|item| visit(&mut item.value)),
        Kind::Map(entries) => {
            for entry in entries {
                visit(&mut entry.key);
                visit(&mut entry.value);
            }
        }
        Kind::Fold(fold) => {
            for child in [
                &mut fold.range,
                &mut fold.init,
                &mut fold.condition,
                &mut fold.step,
                &mut fold.result,
            ] {
                visit(child);
            }
        }
    }
}

/// The name of a field, between backticks where it is no identifier.
fn field_text(name: &str) -> Cow<'_, str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let plain = name.chars().all(word)
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && !matches!(name, "in" | "true" | "false" | "null" | "");
    match plain {
        true => Cow::Borrowed(name),
        false => Cow::Owned(format!("`{name}`")),
    }
}

/// As it could have been written. A fold prints as a call that cannot be read: it has no text of its own.
impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Literal(literal) => literal.fmt(f),
            Kind::Ident(name) => f.write_str(name),
            Kind::Select(select) if select.test => {
                f.write_str("has(")?;
                select.operand.print(f, MEMBER)?;
                write!(f, ".{})", field_text(&select.field))
            }
            Kind::Select(select) => {
                select.operand.print(f, MEMBER)?;
                let sign = if select.optional { ".?" } else { "." };
                write!(f, "{sign}{}", field_text(&select.field))
            }
            Kind::Call(call) => call.fmt(f),
            Kind::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    f.write_str(if item.optional { "?" } else { "" })?;
                    write!(f, "{}", item.value)?;
                }
                f.write_str("]")
            }
            Kind::Map(entries) => {
                f.write_str("{")?;
                for (index, entry) in entries.iter().enumerate() {
                    f.write_str(if index > 0 { ", " } else { "" })?;
                    f.write_str(if entry.optional { "?" } else { "" })?;
                    write!(f, "{}: {}", entry.key, entry.value)?;
                }
                f.write_str("}")
            }
            Kind::Fold(fold) => write!(
                f,
                "__fold__({}, {}, {}, {}, {}, {})",
                fold.range, fold.var, fold.init, fold.condition, fold.step, fold.result
            ),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(target) = &self.target {
            target.print(f, MEMBER)?;
            write!(f, ".{}", self.function)?;
            return print_arguments(f, &self.args);
        }
        let binary = BINARY.iter().find(|(name, ..)| *name == self.function);
        match (self.function.as_str(), binary, self.args.as_slice()) {
            (operator::CONDITIONAL, _, [condition, yes, no]) => {
                condition.print(f, CONDITIONAL + 1)?;
                f.write_str(" ? ")?;
                yes.print(f, CONDITIONAL + 1)?;
                f.write_str(" : ")?;
                no.print(f, CONDITIONAL)
            }
            (operator::NOT, _, [operand]) => {
                f.write_str("!")?;
                operand.print(f, MEMBER)
            }
            (operator::NEGATE, _, [operand]) => {
                // A literal would take the sign as its own.
                f.write_str("-")?;
                match operand.kind {
                    Kind::Literal(_) => write!(f, "({operand})"),
                    _ => operand.print(f, MEMBER),
                }
            }
            (operator::INDEX, _, [operand, index]) => {
                operand.print(f, MEMBER)?;
                write!(f, "[{index}]")
            }
            (operator::OPTIONAL_INDEX, _, [operand, index]) => {
                operand.print(f, MEMBER)?;
                write!(f, "[?{index}]")
            }
            (_, Some((_, sign, precedence)), [first, rest @ ..]) if !rest.is_empty() => {
                // `&&` and `||` take any number of terms; the others group to the left.
                let flat = matches!(*sign, "&&" | "||");
                first.print(f, precedence + u8::from(flat))?;
                for term in rest {
                    write!(f, " {sign} ")?;
                    term.print(f, precedence + 1)?;
                }
                Ok(())
            }
            _ => {
                f.write_str(&self.function)?;
                print_arguments(f, &self.args)
            }
        }
    }
}

fn print_arguments(f: &mut fmt::Formatter<'_>, args: &[Expr]) -> fmt::Result {
    f.write_str("(")?;
    for (index, arg) in args.iter().enumerate() {
        f.write_str(if index > 0 { ", " } else { "" })?;
        write!(f, "{arg}")?;
    }
    f.write_str(")")
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Uint(value) => write!(f, "{value}u"),
            Self::Double(value) => write!(f, "{value:?}"),
            Self::String(text) => print_quoted(f, text),
            Self::Bytes(bytes) => {
                f.write_str("b\"")?;
                for byte in bytes {
                    write!(f, "\\x{byte:02x}")?;
                }
                f.write_str("\"")
            }
        }
    }
}

fn print_quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\U{:08x}", u32::from(c))?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}
