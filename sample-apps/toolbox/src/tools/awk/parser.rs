//! Tokens into a program. Names become places; which parameters of functions are arrays is found by how they are used.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::tools::pattern::{Kind, Pattern, Syntax};

use super::lexer::{Token, error};
use super::syntax_tree::{
    Block, Expression, Function, Pat, Place, Program, Redirect, Rule, Source, Statement,
};
use super::value::Value;

/// How deep an expression or a block may be nested.
const DEPTH_MAX: usize = 150;

/// Variables with a meaning, at the first places.
pub const SPECIAL: [&str; 16] = [
    "NF", "NR", "FNR", "FS", "OFS", "ORS", "RS", "FILENAME", "SUBSEP", "RSTART", "RLENGTH",
    "CONVFMT", "OFMT", "ENVIRON", "ARGC", "ARGV",
];

type Parsed<T> = Result<T, String>;

pub struct Parser {
    tokens: Vec<(Token, u32)>,
    at: usize,
    depth: usize,
    globals: Vec<String>,
    names: BTreeMap<String, usize>,
    functions: Vec<Function>,
    function_names: BTreeMap<String, usize>,
    locals: Option<Vec<String>>,
    /// In the list of `print`, where `>` writes into a file.
    printing: bool,
    /// Calls that hand a local or global on: function, argument, and the caller with its own parameter.
    handed: Vec<(usize, usize, usize, usize)>,
    current: usize,
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
    fn peek(&self) -> &Token {
        self.ahead(0)
    }

    fn ahead(&self, count: usize) -> &Token {
        self.tokens
            .get(self.at + count)
            .map_or(&Token::End, |(token, _)| token)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.at += 1;
        token
    }

    fn is(&self, sign: &str) -> bool {
        matches!(self.peek(), Token::Sign(found) | Token::Word(found) if *found == sign)
    }

    fn take(&mut self, sign: &str) -> bool {
        let found = self.is(sign);
        self.at += usize::from(found);
        found
    }

    fn wrong<T>(&self, text: &str) -> Parsed<T> {
        let line = self
            .tokens
            .get(self.at)
            .or(self.tokens.last())
            .map_or(1, |(_, line)| *line);
        Err(error(line, text))
    }

    fn need(&mut self, sign: &str) -> Parsed<()> {
        match self.take(sign) {
            true => Ok(()),
            false => self.unexpected(),
        }
    }

    fn unexpected<T>(&self) -> Parsed<T> {
        match self.peek() {
            Token::End | Token::Newline => self.wrong("Unexpected end of string"),
            _ => self.wrong("Unexpected token"),
        }
    }

    fn newlines(&mut self) {
        while matches!(self.peek(), Token::Newline) {
            self.at += 1;
        }
    }

    fn separators(&mut self) {
        while matches!(self.peek(), Token::Newline) || self.is(";") {
            self.at += 1;
        }
    }

    fn enter(&mut self) -> Parsed<()> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            self.wrong("nested too deep")
        } else {
            Ok(())
        }
    }

    fn place(&mut self, name: &str) -> Parsed<Place> {
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
    fn array(&mut self, name: &str) -> Parsed<Place> {
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

    fn function(&mut self, name: &str) -> usize {
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

    fn ended(&self) -> bool {
        matches!(self.peek(), Token::Newline | Token::End) || self.is(";") || self.is("}")
    }

    fn statement(&mut self) -> Parsed<Statement> {
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

    fn list(&mut self) -> Parsed<Vec<Expression>> {
        let mut list = vec![self.expression()?];
        while self.take(",") {
            self.newlines();
            list.push(self.expression()?);
        }
        Ok(list)
    }

    pub fn expression(&mut self) -> Parsed<Expression> {
        self.enter()?;
        let expression = self.ternary();
        self.depth -= 1;
        expression
    }

    fn ternary(&mut self) -> Parsed<Expression> {
        let condition = self.or()?;
        if self.take("?") {
            self.newlines();
            let then = self.expression()?;
            self.newlines();
            self.need(":")?;
            self.newlines();
            let other = self.expression()?;
            return Ok(Expression::Choose(
                Box::new(condition),
                Box::new(then),
                Box::new(other),
            ));
        }
        let assign = match self.peek() {
            Token::Sign("=") => Some(None),
            Token::Sign(sign @ ("+=" | "-=" | "*=" | "/=" | "%=" | "^=")) => Some(sign.get(..1)),
            _ => None,
        };
        let Some(operator) = assign else {
            return Ok(condition);
        };
        self.at += 1;
        self.newlines();
        let value = self.expression()?;
        self.assigned(condition, operator, value)
    }

    /// `a == b = c` and `!x = y` assign to the last operand, as the grammar has it.
    fn assigned(
        &self,
        left: Expression,
        operator: Option<&'static str>,
        value: Expression,
    ) -> Parsed<Expression> {
        Ok(match left {
            Expression::Variable(_) | Expression::Field(_) | Expression::Element(..) => {
                Expression::Assign(Box::new(left), operator, Box::new(value))
            }
            Expression::Grouped(inner)
                if matches!(
                    *inner,
                    Expression::Variable(_) | Expression::Field(_) | Expression::Element(..)
                ) =>
            {
                Expression::Assign(inner, operator, Box::new(value))
            }
            Expression::Not(inner) => {
                Expression::Not(Box::new(self.assigned(*inner, operator, value)?))
            }
            Expression::Negative(inner) => {
                Expression::Negative(Box::new(self.assigned(*inner, operator, value)?))
            }
            Expression::And(a, b) => {
                Expression::And(a, Box::new(self.assigned(*b, operator, value)?))
            }
            Expression::Or(a, b) => {
                Expression::Or(a, Box::new(self.assigned(*b, operator, value)?))
            }
            Expression::Compare(sign, a, b) => {
                Expression::Compare(sign, a, Box::new(self.assigned(*b, operator, value)?))
            }
            _ => return self.wrong("assignment to what is no variable"),
        })
    }

    fn or(&mut self) -> Parsed<Expression> {
        let mut left = self.and()?;
        while self.take("||") {
            self.newlines();
            left = Expression::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Parsed<Expression> {
        let mut left = self.membership()?;
        while self.take("&&") {
            self.newlines();
            left = Expression::And(Box::new(left), Box::new(self.membership()?));
        }
        Ok(left)
    }

    fn membership(&mut self) -> Parsed<Expression> {
        let mut left = self.matching()?;
        while self.is("in") {
            self.at += 1;
            let name = match self.next() {
                Token::Name(name) => name,
                _ => return self.unexpected(),
            };
            let place = self.array(&name)?;
            let keys = match left {
                Expression::Several(keys) => keys,
                key => vec![key],
            };
            left = Expression::In(keys, place);
        }
        Ok(left)
    }

    fn matching(&mut self) -> Parsed<Expression> {
        let mut left = self.comparison()?;
        loop {
            let negated = match self.peek() {
                Token::Sign("~") => false,
                Token::Sign("!~") => true,
                _ => return Ok(left),
            };
            self.at += 1;
            left = Expression::Matches(!negated, Box::new(left), Box::new(self.comparison()?));
        }
    }

    fn comparison(&mut self) -> Parsed<Expression> {
        let mut left = self.concatenation()?;
        loop {
            match *self.peek() {
                Token::Sign("|") if *self.ahead(1) == Token::Word("getline") => {
                    self.at += 2;
                    let target = self.target()?;
                    left = Expression::Getline(Source::Command(Box::new(left)), target);
                }
                Token::Sign(">") if self.printing => return Ok(left),
                Token::Sign(sign @ ("<" | "<=" | "==" | "!=" | ">" | ">=")) => {
                    self.at += 1;
                    let right = self.concatenation()?;
                    left = Expression::Compare(sign, Box::new(left), Box::new(right));
                }
                _ => return Ok(left),
            }
        }
    }

    fn concatenation(&mut self) -> Parsed<Expression> {
        let mut left = self.additive()?;
        loop {
            let begins = match self.peek() {
                Token::Number(_)
                | Token::Text(_)
                | Token::Regex(_)
                | Token::Name(_)
                | Token::Call(_)
                | Token::Builtin(_) => true,
                Token::Sign(sign) => matches!(*sign, "$" | "!" | "(" | "-" | "+" | "++" | "--"),
                _ => false,
            };
            // A sum was read already; a minus here begins another operand only behind one that cannot be subtracted from.
            if !begins || self.is("+") || self.is("-") || self.is("!") {
                return Ok(left);
            }
            let right = self.additive()?;
            left = Expression::Concatenate(Box::new(left), Box::new(right));
        }
    }

    fn additive(&mut self) -> Parsed<Expression> {
        let mut left = self.multiplicative()?;
        while let Token::Sign(sign @ ("+" | "-")) = *self.peek() {
            self.at += 1;
            left = Expression::Arithmetic(sign, Box::new(left), Box::new(self.multiplicative()?));
        }
        Ok(left)
    }

    fn multiplicative(&mut self) -> Parsed<Expression> {
        let mut left = self.unary()?;
        while let Token::Sign(sign @ ("*" | "/" | "%")) = *self.peek() {
            self.at += 1;
            left = Expression::Arithmetic(sign, Box::new(left), Box::new(self.unary()?));
        }
        Ok(left)
    }

    fn unary(&mut self) -> Parsed<Expression> {
        self.enter()?;
        let expression = match self.peek() {
            Token::Sign("!") => {
                self.at += 1;
                Expression::Not(Box::new(self.unary()?))
            }
            Token::Sign("-") => {
                self.at += 1;
                Expression::Negative(Box::new(self.unary()?))
            }
            Token::Sign("+") => {
                self.at += 1;
                Expression::Positive(Box::new(self.unary()?))
            }
            _ => self.power()?,
        };
        self.depth -= 1;
        Ok(expression)
    }

    fn power(&mut self) -> Parsed<Expression> {
        let base = self.postfix()?;
        if !self.take("^") {
            return Ok(base);
        }
        // To the right, and its exponent may have a sign.
        let exponent = self.unary()?;
        Ok(Expression::Arithmetic(
            "^",
            Box::new(base),
            Box::new(exponent),
        ))
    }

    fn is_variable(expression: &Expression) -> bool {
        matches!(
            expression,
            Expression::Variable(_) | Expression::Field(_) | Expression::Element(..)
        )
    }

    fn postfix(&mut self) -> Parsed<Expression> {
        let operand = self.primary()?;
        if Self::is_variable(&operand) {
            for (sign, step) in [("++", 1.0), ("--", -1.0)] {
                if self.take(sign) {
                    return Ok(Expression::Step(Box::new(operand), step, false));
                }
            }
        }
        Ok(operand)
    }

    /// The variable that `getline` sets, if one follows.
    fn target(&mut self) -> Parsed<Option<Box<Expression>>> {
        match self.peek() {
            Token::Name(_) | Token::Sign("$") => Ok(Some(Box::new(self.primary()?))),
            _ => Ok(None),
        }
    }

    fn primary(&mut self) -> Parsed<Expression> {
        let token = self.next();
        Ok(match token {
            Token::Number(number) => Expression::Constant(Value::Number(number)),
            Token::Text(text) => Expression::Constant(Value::text(text)),
            Token::Regex(text) => match regex(&text) {
                Ok(pattern) => Expression::Regex(Rc::new(pattern)),
                Err(why) => return self.wrong(&why),
            },
            Token::Sign("$") => {
                self.enter()?;
                let field = match self.peek() {
                    Token::Sign("++" | "--") => self.primary()?,
                    Token::Sign("-" | "+" | "!") => self.unary()?,
                    _ => self.primary()?,
                };
                self.depth -= 1;
                Expression::Field(Box::new(field))
            }
            Token::Sign(sign @ ("++" | "--")) => {
                let operand = self.primary()?;
                if !Self::is_variable(&operand) {
                    return self.unexpected();
                }
                Expression::Step(
                    Box::new(operand),
                    if sign == "++" { 1.0 } else { -1.0 },
                    true,
                )
            }
            Token::Sign("(") => {
                let before = std::mem::take(&mut self.printing);
                self.newlines();
                let mut list = self.list()?;
                self.newlines();
                self.printing = before;
                self.need(")")?;
                match list.len() {
                    1 => Expression::Grouped(Box::new(list.remove(0))),
                    _ => Expression::Several(list),
                }
            }
            Token::Sign(sign @ ("-" | "+" | "!")) => {
                let operand = Box::new(self.unary()?);
                match sign {
                    "-" => Expression::Negative(operand),
                    "+" => Expression::Positive(operand),
                    _ => Expression::Not(operand),
                }
            }
            Token::Word("getline") => {
                let target = self.target()?;
                match self.take("<") {
                    true => Expression::Getline(Source::File(Box::new(self.postfix()?)), target),
                    false => Expression::Getline(Source::Main, target),
                }
            }
            Token::Name(name) => match self.is("[") {
                true => {
                    let place = self.array(&name)?;
                    self.at += 1;
                    let before = std::mem::take(&mut self.printing);
                    let key = self.list()?;
                    self.printing = before;
                    self.need("]")?;
                    Expression::Element(place, key)
                }
                false => Expression::Variable(self.place(&name)?),
            },
            Token::Builtin(name) => {
                let arguments = match self.is("(") {
                    true => self.arguments()?,
                    false if name == "length" => Vec::new(),
                    false => return self.unexpected(),
                };
                if name == "split"
                    && let Some(Expression::Variable(Place::Local(local))) = arguments.get(1)
                    && let Some(slot) = self
                        .functions
                        .get_mut(self.current)
                        .and_then(|function| function.arrays.get_mut(*local))
                {
                    *slot = true;
                }
                Expression::Builtin(name, arguments)
            }
            Token::Call(name) => {
                let arguments = self.arguments()?;
                let index = self.function(&name);
                if self.locals.is_some() {
                    for (argument, expression) in arguments.iter().enumerate() {
                        if let Expression::Variable(Place::Local(local)) = expression {
                            self.handed.push((index, argument, self.current, *local));
                        }
                    }
                }
                Expression::Call(index, arguments)
            }
            _ => {
                self.at -= 1;
                return self.unexpected();
            }
        })
    }

    fn arguments(&mut self) -> Parsed<Vec<Expression>> {
        self.need("(")?;
        let before = std::mem::take(&mut self.printing);
        self.newlines();
        let list = if self.is(")") {
            Vec::new()
        } else {
            self.list()?
        };
        self.newlines();
        self.printing = before;
        self.need(")")?;
        Ok(list)
    }
}
