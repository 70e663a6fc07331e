//! Tokens into a program. Names become places; which parameters of functions are arrays is found by how they are used.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::tools::pattern::{Kind, Pattern, Syntax};

use super::lexer::{Token, error};
use super::syntax_tree::{
    Block, Expression, Function, Pat, Place, Program, Redirect, Rule, Statement,
};

/// How deep an expression or a block may be nested.
const DEPTH_MAX: usize = 150;

/// Variables with a meaning, at the first places.
pub const SPECIAL: [&str; 16] = [
    "NF", "NR", "FNR", "FS", "OFS", "ORS", "RS", "FILENAME", "SUBSEP", "RSTART", "RLENGTH",
    "CONVFMT", "OFMT", "ENVIRON", "ARGC", "ARGV",
];

pub(super) type Parsed<T> = Result<T, String>;

pub struct Parser {
    pub(super) tokens: Vec<(Token, u32)>,
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) globals: Vec<String>,
    pub(super) names: BTreeMap<String, usize>,
    pub(super) functions: Vec<Function>,
    pub(super) function_names: BTreeMap<String, usize>,
    pub(super) locals: Option<Vec<String>>,
    /// In the list of `print`, where `>` writes into a file.
    pub(super) printing: bool,
    /// Calls that hand a local or global on: function, argument, and the caller with its own parameter.
    pub(super) handed: Vec<(usize, usize, usize, usize)>,
    pub(super) current: usize,
}

/// Compiles an expression of awk.
pub fn regex(text: &[u8]) -> Parsed<Pattern> {
    let syntax = Syntax {
        kind: Kind::Extended,
        ..Syntax::default()
    };
    Pattern::new(text, syntax)
        .map_err(|why| format!("bad regex '{}': {why}", String::from_utf8_lossy(text)))
}

pub fn parse(tokens: Vec<(Token, u32)>) -> Parsed<Program> {
    let globals: Vec<String> = SPECIAL.iter().map(|name| (*name).to_owned()).collect();
    let names = globals
        .iter()
        .enumerate()
        .map(|(place, name)| (name.clone(), place))
        .collect();
    let mut parser = Parser {
        tokens,
        at: 0,
        depth: 0,
        globals,
        names,
        functions: Vec::new(),
        function_names: BTreeMap::new(),
        locals: None,
        printing: false,
        handed: Vec::new(),
        current: 0,
    };
    parser.program()
}

impl Parser {
    pub(super) fn peek(&self) -> &Token {
        self.ahead(0)
    }

    pub(super) fn ahead(&self, count: usize) -> &Token {
        self.tokens
            .get(self.at + count)
            .map_or(&Token::End, |(token, _)| token)
    }

    pub(super) fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    pub(super) fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) | Token::Word(found) if *found == sign)
    }

    pub(super) fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    pub(super) fn wrong<T>(&self, text: &str) -> Parsed<T> {
        let line = self
            .tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |(_, line)| *line);
        Err(error(line, text))
    }

    pub(super) fn need(&mut self, sign: &str) -> Parsed<()> {
        match self.take(sign) {
            true => Ok(()),
            false => self.unexpected(),
        }
    }

    pub(super) fn unexpected<T>(&self) -> Parsed<T> {
        match self.peek() {
            Token::End | Token::Newline => self.wrong("Unexpected end of string"),
            _ => self.wrong("Unexpected token"),
        }
    }

    pub(super) fn newlines(&mut self) {
        while matches!(self.peek(), Token::Newline) {
            self.at += 1;
        }
    }

    fn separators(&mut self) {
        while matches!(self.peek(), Token::Newline) || self.is(";") {
            self.at += 1;
        }
    }

    pub(super) fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.wrong("nested too deep")
        } else {
            Ok(())
        }
    }

    pub(super) fn place(&mut self, name: &str) -> Parsed<Place> {
        if let Some(local) = self
            .locals
            .as_ref()
            .and_then(|locals| locals.iter().position(|local| local == name))
        {
            return Ok(Place::Local(local));
        }
        if self
            .function_names
            .get(name)
            .and_then(|index| self.functions.get(*index))
            .is_some_and(|function| function.defined)
        {
            return self.wrong(&format!("function name '{name}' used as variable"));
        }
        if let Some(place) = self.names.get(name) {
            return Ok(Place::Global(*place));
        }
        self.globals.push(name.to_owned());
        self.names.insert(name.to_owned(), self.globals.len() - 1);
        Ok(Place::Global(self.globals.len() - 1))
    }

    /// A variable that is used as an array.
    pub(super) fn array(&mut self, name: &str) -> Parsed<Place> {
        let place = self.place(name)?;
        if let Place::Local(local) = place
            && let Some(slot) = self
                .functions
                .get_mut(self.current)
                .and_then(|function| function.arrays.get_mut(local))
        {
            *slot = true;
        }
        Ok(place)
    }

    pub(super) fn function(&mut self, name: &str) -> usize {
        if let Some(index) = self.function_names.get(name) {
            return *index;
        }
        let index = self.functions.len();
        self.functions.push(Function {
            name: name.to_owned(),
            ..Function::default()
        });
        self.function_names.insert(name.to_owned(), index);
        index
    }

    fn program(&mut self) -> Parsed<Program> {
        let (mut begin, mut rules, mut end) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            self.separators();
            match self.peek() {
                Token::End => break,
                Token::Word("BEGIN") => {
                    self.at += 1;
                    begin.push(self.block()?);
                }
                Token::Word("END") => {
                    self.at += 1;
                    end.push(self.block()?);
                }
                Token::Word("function" | "func") => {
                    self.at += 1;
                    self.definition()?;
                }
                _ => rules.push(self.rule()?),
            }
        }
        if let Some(function) = self.functions.iter().find(|function| !function.defined) {
            return Err(error(
                1,
                &format!("Call to undefined function '{}'", function.name),
            ));
        }
        // What is handed on to an array is one itself.
        loop {
            let mut changed = false;
            for (callee, argument, caller, parameter) in &self.handed {
                let array = self
                    .functions
                    .get(*callee)
                    .and_then(|function| function.arrays.get(*argument))
                    == Some(&true);
                let slot = self
                    .functions
                    .get_mut(*caller)
                    .and_then(|function| function.arrays.get_mut(*parameter));
                if let Some(slot) = slot.filter(|slot| array && !**slot) {
                    *slot = true;
                    changed = true;
                }
            }
            if !changed {
                break;
            }
        }
        let functions = std::mem::take(&mut self.functions);
        Ok(Program {
            begin,
            rules,
            end,
            functions,
            globals: std::mem::take(&mut self.globals),
        })
    }

    fn rule(&mut self) -> Parsed<Rule> {
        let pattern = match self.is("{") {
            true => Pat::Always,
            false => {
                let first = self.expression()?;
                match self.take(",") {
                    true => {
                        self.newlines();
                        Pat::Range(first, self.expression()?)
                    }
                    false => Pat::If(first),
                }
            }
        };
        let action = if self.is("{") {
            Some(self.block()?)
        } else {
            None
        };
        if action.is_none() && !matches!(self.peek(), Token::Newline | Token::End) && !self.is(";")
        {
            return self.unexpected();
        }
        Ok(Rule { pattern, action })
    }

    fn definition(&mut self) -> Parsed<()> {
        let name = match self.next() {
            Token::Name(name) | Token::Call(name) => name,
            _ => return self.wrong("function name expected"),
        };
        let index = self.function(&name);
        if self
            .functions
            .get(index)
            .is_some_and(|function| function.defined)
        {
            return self.wrong(&format!("function '{name}' is defined twice"));
        }
        self.need("(")?;
        let mut parameters = Vec::new();
        while !self.is(")") {
            self.newlines();
            match self.next() {
                Token::Name(parameter) => parameters.push(parameter),
                _ => return self.unexpected(),
            }
            self.newlines();
            if !self.take(",") {
                break;
            }
        }
        self.need(")")?;
        self.newlines();
        if let Some(function) = self.functions.get_mut(index) {
            function.arrays = vec![false; parameters.len()];
            function.parameters.clone_from(&parameters);
            function.defined = true;
        }
        (self.current, self.locals) = (index, Some(parameters));
        let body = self.block();
        self.locals = None;
        let body = body?;
        if let Some(function) = self.functions.get_mut(index) {
            function.body = body;
        }
        Ok(())
    }

    fn block(&mut self) -> Parsed<Block> {
        self.newlines();
        self.need("{")?;
        Ok(Rc::new(self.statements()?))
    }

    /// Statements to the closing brace, which is passed.
    fn statements(&mut self) -> Parsed<Vec<Statement>> {
        self.enter()?;
        let mut list = Vec::new();
        loop {
            self.separators();
            if self.take("}") {
                break;
            }
            if matches!(self.peek(), Token::End) {
                return self.unexpected();
            }
            list.push(self.statement()?);
        }
        self.depth -= 1;
        Ok(list)
    }

    /// A statement that is the body of another.
    fn body(&mut self) -> Parsed<Box<Statement>> {
        self.newlines();
        if self.take(";") {
            return Ok(Box::new(Statement::Block(Vec::new())));
        }
        Ok(Box::new(self.statement()?))
    }

    fn condition(&mut self) -> Parsed<Expression> {
        self.need("(")?;
        let condition = self.expression()?;
        self.need(")")?;
        Ok(condition)
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.peek(), Token::Newline | Token::End) || self.is(";") || self.is("}")
    }

    pub(super) fn statement(&mut self) -> Parsed<Statement> {
        self.enter()?;
        let statement = self.statement_inner();
        self.depth -= 1;
        statement
    }

    fn statement_inner(&mut self) -> Parsed<Statement> {
        let Token::Word(word) = *self.peek() else {
            if self.take("{") {
                return Ok(Statement::Block(self.statements()?));
            }
            return self.simple();
        };
        Ok(match word {
            "if" => {
                self.at += 1;
                let condition = self.condition()?;
                let then = self.body()?;
                let back = self.at;
                self.separators();
                if !self.take("else") {
                    self.at = back;
                    return Ok(Statement::If(condition, then, None));
                }
                Statement::If(condition, then, Some(self.body()?))
            }
            "while" => {
                self.at += 1;
                let condition = self.condition()?;
                Statement::While(condition, self.body()?)
            }
            "do" => {
                self.at += 1;
                let body = self.body()?;
                self.separators();
                self.need("while")?;
                let condition = self.condition()?;
                self.end()?;
                Statement::DoWhile(body, condition)
            }
            "for" => {
                self.at += 1;
                self.need("(")?;
                if let (Token::Name(key), Token::Word("in"), Token::Name(array), Token::Sign(")")) = (
                    self.ahead(0).clone(),
                    self.ahead(1),
                    self.ahead(2).clone(),
                    self.ahead(3),
                ) {
                    self.at += 4;
                    let (key, array) = (self.place(&key)?, self.array(&array)?);
                    return Ok(Statement::ForIn(key, array, self.body()?));
                }
                let first = if self.is(";") {
                    None
                } else {
                    Some(Box::new(self.simple_inner()?))
                };
                self.need(";")?;
                self.newlines();
                let condition = if self.is(";") {
                    None
                } else {
                    Some(self.expression()?)
                };
                self.need(";")?;
                self.newlines();
                let step = if self.is(")") {
                    None
                } else {
                    Some(Box::new(self.simple_inner()?))
                };
                self.need(")")?;
                Statement::For(first, condition, step, self.body()?)
            }
            _ => return self.simple(),
        })
    }

    /// A statement that ends with its line.
    fn simple(&mut self) -> Parsed<Statement> {
        let statement = self.simple_inner()?;
        self.end()?;
        Ok(statement)
    }

    fn end(&mut self) -> Parsed<()> {
        if !self.ended() {
            return self.unexpected();
        }
        if matches!(self.peek(), Token::Newline) || self.is(";") {
            self.at += 1;
        }
        Ok(())
    }

    fn simple_inner(&mut self) -> Parsed<Statement> {
        let Token::Word(word) = *self.peek() else {
            return Ok(Statement::Expression(self.expression()?));
        };
        if word == "getline" {
            return Ok(Statement::Expression(self.expression()?));
        }
        self.at += 1;
        Ok(match word {
            "print" | "printf" => {
                let before = std::mem::replace(&mut self.printing, true);
                let mut list = Vec::new();
                if !self.ended() && !self.is(">") && !self.is(">>") && !self.is("|") {
                    list = self.list()?;
                }
                if let [Expression::Several(_)] = list.as_slice()
                    && let Some(Expression::Several(inner)) = list.pop()
                {
                    list = inner;
                }
                let redirect = match self.peek() {
                    Token::Sign(">") => Some(Redirect::Write),
                    Token::Sign(">>") => Some(Redirect::Append),
                    Token::Sign("|") => Some(Redirect::Pipe),
                    _ => None,
                };
                let target = match redirect {
                    None => None,
                    Some(redirect) => {
                        self.at += 1;
                        Some((redirect, self.concatenation()?))
                    }
                };
                self.printing = before;
                if word == "printf" {
                    if list.is_empty() {
                        return self.wrong("printf: no format");
                    }
                    return Ok(Statement::Printf(list, target));
                }
                Statement::Print(list, target)
            }
            "next" => Statement::Next,
            "nextfile" => Statement::NextFile,
            "break" => Statement::Break,
            "continue" => Statement::Continue,
            "exit" => Statement::Exit(if self.ended() {
                None
            } else {
                Some(self.expression()?)
            }),
            "return" => {
                if self.locals.is_none() {
                    return self.wrong("'return' not in function");
                }
                Statement::Return(if self.ended() {
                    None
                } else {
                    Some(self.expression()?)
                })
            }
            "delete" => {
                let name = match self.next() {
                    Token::Name(name) => name,
                    _ => return self.unexpected(),
                };
                let place = self.array(&name)?;
                let key = match self.take("[") {
                    false => None,
                    true => {
                        let key = self.list()?;
                        self.need("]")?;
                        Some(key)
                    }
                };
                Statement::Delete(place, key)
            }
            _ => {
                self.at -= 1;
                return self.unexpected();
            }
        })
    }
}
