//! An awk program as it was understood: names are places, expressions are compiled.

use std::rc::Rc;

use crate::tools::pattern::Pattern;

use super::value::Value;

pub struct Program {
    pub begin: Vec<Block>,
    pub rules: Vec<Rule>,
    pub end: Vec<Block>,
    pub functions: Vec<Function>,
    /// The names of the global variables, by place.
    pub globals: Vec<String>,
}

pub type Block = Rc<Vec<Statement>>;

pub struct Rule {
    pub pattern: Pat,
    /// Without one the record is printed.
    pub action: Option<Block>,
}

pub enum Pat {
    Always,
    If(Expression),
    Range(Expression, Expression),
}

#[derive(Default)]
pub struct Function {
    pub name: String,
    pub parameters: Vec<String>,
    /// Which parameters are arrays.
    pub arrays: Vec<bool>,
    pub body: Block,
    pub defined: bool,
}

/// Where a variable is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Place {
    Global(usize),
    Local(usize),
}

pub enum Statement {
    Expression(Expression),
    Print(Vec<Expression>, Option<(Redirect, Expression)>),
    Printf(Vec<Expression>, Option<(Redirect, Expression)>),
    If(Expression, Box<Statement>, Option<Box<Statement>>),
    While(Expression, Box<Statement>),
    DoWhile(Box<Statement>, Expression),
    For(
        Option<Box<Statement>>,
        Option<Expression>,
        Option<Box<Statement>>,
        Box<Statement>,
    ),
    ForIn(Place, Place, Box<Statement>),
    Block(Vec<Statement>),
    Next,
    NextFile,
    Exit(Option<Expression>),
    Return(Option<Expression>),
    Break,
    Continue,
    Delete(Place, Option<Vec<Expression>>),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Redirect {
    Write,
    Append,
    Pipe,
}

pub enum Expression {
    Constant(Value),
    Regex(Rc<Pattern>),
    Variable(Place),
    Field(Box<Expression>),
    Element(Place, Vec<Expression>),
    Assign(Box<Expression>, Option<&'static str>, Box<Expression>),
    /// Adds to a variable; the value is that before or after.
    Step(Box<Expression>, f64, bool),
    Choose(Box<Expression>, Box<Expression>, Box<Expression>),
    And(Box<Expression>, Box<Expression>),
    Or(Box<Expression>, Box<Expression>),
    Not(Box<Expression>),
    Negative(Box<Expression>),
    Positive(Box<Expression>),
    Arithmetic(&'static str, Box<Expression>, Box<Expression>),
    Compare(&'static str, Box<Expression>, Box<Expression>),
    Concatenate(Box<Expression>, Box<Expression>),
    Matches(bool, Box<Expression>, Box<Expression>),
    In(Vec<Expression>, Place),
    Builtin(&'static str, Vec<Expression>),
    Call(usize, Vec<Expression>),
    Getline(Source, Option<Box<Expression>>),
    /// In parentheses, so that `(a) = 1` and `print (a) > b` are told apart.
    Grouped(Box<Expression>),
    /// Several in parentheses: before `in`, or all that `print` prints.
    Several(Vec<Expression>),
}

pub enum Source {
    Main,
    File(Box<Expression>),
    Command(Box<Expression>),
}
