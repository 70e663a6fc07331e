//! An awk program at work: variables, fields, statements, expressions, functions.
//!
//! Everything that may read or write waits, and other tasks run meanwhile; what only computes does so at once
//! ([`Interpreter::quick`]). Recursion is bounded, loops give way to others every [`STEPS_PER_TURN`] rounds.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use crate::executor;
use crate::tools::call::{Call, HELD_BYTES_MAX, Stop};
use crate::tools::pattern::Pattern;

use super::input::Records;
use super::parser;
use super::streams::Streams;
use super::syntax_tree::{Block, Expression, Pat, Program, Redirect, Statement};
use super::value::Value;

/// Calls within calls.
const CALLS_MAX: usize = 400;
const STEPS_PER_TURN: u32 = 20_000;
/// Expressions that were strings, kept compiled.
const PATTERNS_MAX: usize = 500;

// Places of the special variables, as `parser::SPECIAL` has them.
pub const NF: usize = 0;
pub const NR: usize = 1;
pub const FNR: usize = 2;
pub const FS: usize = 3;
pub const OFS: usize = 4;
pub const ORS: usize = 5;
pub const RS: usize = 6;
pub const FILENAME: usize = 7;
pub const SUBSEP: usize = 8;
pub const RSTART: usize = 9;
pub const RLENGTH: usize = 10;
pub const CONVFMT: usize = 11;
pub const OFMT: usize = 12;
pub const ENVIRON: usize = 13;
pub const ARGC: usize = 14;
pub const ARGV: usize = 15;

pub type Array = Rc<RefCell<BTreeMap<Vec<u8>, Value>>>;

/// What a variable holds.
#[derive(Clone)]
pub enum Cell {
    Scalar(Value),
    Array(Array),
}

pub enum Flow {
    On,
    Break,
    Continue,
    Next,
    NextFile,
    Exit,
    Return(Value),
}

pub type Result<T> = std::result::Result<T, Stop>;
type Later<'l, T> = Pin<Box<dyn Future<Output = Result<T>> + 'l>>;

pub struct Interpreter<'c> {
    pub call: &'c mut Call,
    pub program: Rc<Program>,
    pub globals: Vec<Cell>,
    pub(super) frames: Vec<Vec<Cell>>,
    pub(super) record: Rc<Vec<u8>>,
    /// The record is newer than the fields, or the fields than the record.
    pub(super) fields: Vec<Value>,
    pub(super) split: bool,
    pub(super) joined: bool,
    pub streams: Streams,
    pub main: Option<Records>,
    pub(super) argument: usize,
    pub(super) files_seen: bool,
    pub(super) patterns: BTreeMap<Vec<u8>, Rc<Pattern>>,
    pub seed: u64,
    pub last_seed: f64,
    pub(super) steps: u32,
    pub(super) inside: Vec<bool>,
    pub(super) exit_code: i32,
}

impl<'c> Interpreter<'c> {
    pub fn new(call: &'c mut Call, program: Program, arguments: Vec<String>) -> Interpreter<'c> {
        let mut globals = vec![Cell::Scalar(Value::Unset); program.globals.len()];
        let mut set = |place: usize, cell: Cell| {
            if let Some(slot) = globals.get_mut(place) {
                *slot = cell;
            }
        };
        for (place, text) in [
            (FS, " "),
            (OFS, " "),
            (ORS, "\n"),
            (RS, "\n"),
            (SUBSEP, "\x1c"),
            (CONVFMT, "%.6g"),
            (OFMT, "%.6g"),
        ] {
            set(place, Cell::Scalar(Value::text(text)));
        }
        for place in [NF, NR, FNR, RSTART] {
            set(place, Cell::Scalar(Value::Number(0.0)));
        }
        set(RLENGTH, Cell::Scalar(Value::Number(-1.0)));
        set(ARGC, Cell::Scalar(Value::Number(arguments.len() as f64)));
        let argv = arguments.into_iter().enumerate();
        let argv = argv
            .map(|(at, text)| (at.to_string().into_bytes(), Value::input(text)))
            .collect();
        set(ARGV, Cell::Array(Rc::new(RefCell::new(argv))));
        let environment = call.io.env.iter();
        let environment = environment
            .map(|(name, value)| (name.clone().into_bytes(), Value::input(value.as_str())))
            .collect();
        set(ENVIRON, Cell::Array(Rc::new(RefCell::new(environment))));
        let ranges = program.rules.len();
        Interpreter {
            call,
            program: Rc::new(program),
            globals,
            frames: Vec::new(),
            record: Rc::default(),
            fields: Vec::new(),
            split: true,
            joined: true,
            streams: Streams::default(),
            main: None,
            argument: 1,
            files_seen: false,
            patterns: BTreeMap::new(),
            seed: 1,
            last_seed: 0.0,
            steps: 0,
            inside: vec![false; ranges],
            exit_code: 0,
        }
    }

    /// Runs it all and gives the exit code.
    pub async fn run(&mut self) -> Result<i32> {
        let program = Rc::clone(&self.program);
        let exited = self.rules(&program).await?;
        if !exited || !program.end.is_empty() {
            for block in &program.end {
                if matches!(self.block(block).await?, Flow::Exit) {
                    break;
                }
            }
        }
        let code = self.exit_code;
        let closed = self.streams.close_all(self.call).await;
        Ok(if closed { code } else { code.max(2) })
    }

    /// `BEGIN` and the rules; whether `exit` ended them.
    async fn rules(&mut self, program: &Program) -> Result<bool> {
        for block in &program.begin {
            if matches!(self.block(block).await?, Flow::Exit) {
                return Ok(true);
            }
        }
        if program.rules.is_empty() && program.end.is_empty() {
            return Ok(false);
        }
        'records: while let Some(record) = self.read_main().await? {
            self.set_record(record);
            for (index, rule) in program.rules.iter().enumerate() {
                let applies = match &rule.pattern {
                    Pat::Always => true,
                    Pat::If(condition) => self.value(condition).await?.is_true(),
                    Pat::Range(from, to) => {
                        let mut inside = self.inside.get(index).copied().unwrap_or(false);
                        let applies = inside || self.value(from).await?.is_true();
                        if applies {
                            inside = !self.value(to).await?.is_true();
                        }
                        if let Some(slot) = self.inside.get_mut(index) {
                            *slot = inside;
                        }
                        applies
                    }
                };
                if !applies {
                    continue;
                }
                let flow = match &rule.action {
                    Some(block) => self.block(block).await?,
                    None => {
                        let mut text = self.record().to_vec();
                        text.extend_from_slice(&self.special(ORS));
                        self.call.out(text).await?;
                        Flow::On
                    }
                };
                match flow {
                    Flow::Next => continue 'records,
                    Flow::NextFile => {
                        self.main = None;
                        continue 'records;
                    }
                    Flow::Exit => return Ok(true),
                    _ => {}
                }
            }
            self.turn().await;
        }
        Ok(false)
    }

    async fn turn(&mut self) {
        self.steps = self.steps.wrapping_add(1);
        if self.steps.is_multiple_of(STEPS_PER_TURN) {
            executor::yield_now().await;
        }
    }

    // Expressions of matching.

    pub fn pattern(&mut self, text: &[u8]) -> Result<Rc<Pattern>> {
        if let Some(pattern) = self.patterns.get(text) {
            return Ok(Rc::clone(pattern));
        }
        let pattern = Rc::new(parser::regex(text).map_err(|why| Stop::Failed(1, why))?);
        if self.patterns.len() >= PATTERNS_MAX {
            self.patterns.clear();
        }
        self.patterns.insert(text.to_vec(), Rc::clone(&pattern));
        Ok(pattern)
    }

    /// An operand that is an expression of matching, or a value that is read as one.
    pub async fn matcher(&mut self, expression: &Expression) -> Result<Rc<Pattern>> {
        match expression {
            Expression::Regex(pattern) => Ok(Rc::clone(pattern)),
            Expression::Grouped(inner) if matches!(**inner, Expression::Regex(_)) => {
                Box::pin(self.matcher(inner)).await
            }
            other => {
                let text = self.text(other).await?;
                self.pattern(&text)
            }
        }
    }

    // Statements.

    async fn block(&mut self, block: &Block) -> Result<Flow> {
        self.all(block).await
    }

    async fn all(&mut self, statements: &[Statement]) -> Result<Flow> {
        for statement in statements {
            match self.statement(statement).await? {
                Flow::On => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::On)
    }

    fn statement<'l>(&'l mut self, statement: &'l Statement) -> Later<'l, Flow> {
        Box::pin(async move {
            match statement {
                Statement::Expression(expression) => {
                    self.value(expression).await?;
                }
                Statement::Print(list, target) => self.print(list, target.as_ref()).await?,
                Statement::Printf(list, target) => {
                    let text = self.formatted(list).await?;
                    self.put(text, target.as_ref()).await?;
                }
                Statement::If(condition, then, other) => {
                    if self.value(condition).await?.is_true() {
                        return self.statement(then).await;
                    }
                    if let Some(other) = other {
                        return self.statement(other).await;
                    }
                }
                Statement::While(condition, body) => {
                    while self.value(condition).await?.is_true() {
                        match self.statement(body).await? {
                            Flow::On | Flow::Continue => {}
                            Flow::Break => break,
                            flow => return Ok(flow),
                        }
                        self.turn().await;
                    }
                }
                Statement::DoWhile(body, condition) => loop {
                    match self.statement(body).await? {
                        Flow::On | Flow::Continue => {}
                        Flow::Break => break,
                        flow => return Ok(flow),
                    }
                    self.turn().await;
                    if !self.value(condition).await?.is_true() {
                        break;
                    }
                },
                Statement::For(first, condition, step, body) => {
                    if let Some(first) = first {
                        self.statement(first).await?;
                    }
                    loop {
                        if let Some(condition) = condition
                            && !self.value(condition).await?.is_true()
                        {
                            break;
                        }
                        match self.statement(body).await? {
                            Flow::On | Flow::Continue => {}
                            Flow::Break => break,
                            flow => return Ok(flow),
                        }
                        if let Some(step) = step {
                            self.statement(step).await?;
                        }
                        self.turn().await;
                    }
                }
                Statement::ForIn(key, place, body) => {
                    let array = self.array(*place)?;
                    let mut keys: Vec<Vec<u8>> = array.borrow().keys().cloned().collect();
                    // Numbers in their order, as people expect of what has none.
                    keys.sort_by(|a, b| {
                        let number = |key: &[u8]| {
                            std::str::from_utf8(key)
                                .ok()
                                .and_then(|text| text.parse::<i64>().ok())
                        };
                        match (number(a), number(b)) {
                            (Some(a), Some(b)) => a.cmp(&b),
                            (Some(_), None) => std::cmp::Ordering::Less,
                            (None, Some(_)) => std::cmp::Ordering::Greater,
                            (None, None) => a.cmp(b),
                        }
                    });
                    for name in keys {
                        if !array.borrow().contains_key(&name) {
                            continue;
                        }
                        self.write(*key, Value::input(name))?;
                        match self.statement(body).await? {
                            Flow::On | Flow::Continue => {}
                            Flow::Break => break,
                            flow => return Ok(flow),
                        }
                        self.turn().await;
                    }
                }
                Statement::Block(list) => return self.all(list).await,
                Statement::Next => return Ok(Flow::Next),
                Statement::NextFile => return Ok(Flow::NextFile),
                Statement::Break => return Ok(Flow::Break),
                Statement::Continue => return Ok(Flow::Continue),
                Statement::Exit(code) => {
                    if let Some(code) = code {
                        self.exit_code = (self.value(code).await?.number() as i64 & 255) as i32;
                    }
                    return Ok(Flow::Exit);
                }
                Statement::Return(value) => {
                    let value = match value {
                        Some(value) => self.value(value).await?,
                        None => Value::Unset,
                    };
                    return Ok(Flow::Return(value));
                }
                Statement::Delete(place, key) => {
                    let key = match key {
                        Some(key) => Some(self.key(key).await?),
                        None => None,
                    };
                    let array = self.array(*place)?;
                    match key {
                        Some(key) => drop(array.borrow_mut().remove(&key)),
                        None => array.borrow_mut().clear(),
                    }
                }
            }
            Ok(Flow::On)
        })
    }

    async fn print(
        &mut self,
        list: &[Expression],
        target: Option<&(Redirect, Expression)>,
    ) -> Result<()> {
        let mut text = Vec::new();
        if list.is_empty() {
            text.extend_from_slice(&self.record());
        }
        for (index, expression) in list.iter().enumerate() {
            if index > 0 {
                text.extend_from_slice(&self.special(OFS));
            }
            let value = self.value(expression).await?;
            let format = self.special(OFMT);
            text.extend_from_slice(&value.bytes(&format));
        }
        text.extend_from_slice(&self.special(ORS));
        self.put(text, target).await
    }

    async fn put(&mut self, text: Vec<u8>, target: Option<&(Redirect, Expression)>) -> Result<()> {
        let Some((redirect, name)) = target else {
            return self.call.out(text).await;
        };
        let name = self.text(name).await?;
        let name = String::from_utf8_lossy(&name).into_owned();
        self.streams.write(self.call, *redirect, &name, &text).await
    }

    /// What `printf` and `sprintf` make of their arguments.
    pub async fn formatted(&mut self, list: &[Expression]) -> Result<Vec<u8>> {
        let Some((format, rest)) = list.split_first() else {
            return Ok(Vec::new());
        };
        let format = self.text(format).await?;
        let mut values = Vec::with_capacity(rest.len());
        for expression in rest {
            values.push(self.value(expression).await?);
        }
        let conversions = self.special(CONVFMT);
        Ok(super::builtins::formatted(&format, &values, &conversions))
    }

    // Values.

    pub async fn text(&mut self, expression: &Expression) -> Result<Rc<Vec<u8>>> {
        let value = self.value(expression).await?;
        let format = self.special(CONVFMT);
        Ok(value.bytes(&format))
    }

    /// The key that a list of subscripts is.
    async fn key(&mut self, list: &[Expression]) -> Result<Vec<u8>> {
        if let [only] = list {
            return Ok(self.text(only).await?.to_vec());
        }
        let mut key = Vec::new();
        for (index, expression) in list.iter().enumerate() {
            if index > 0 {
                key.extend_from_slice(&self.special(SUBSEP));
            }
            let part = self.text(expression).await?;
            key.extend_from_slice(&part);
        }
        Ok(key)
    }

    /// A value that needs no waiting and changes nothing; `None` if it is not such a one.
    fn quick(&mut self, expression: &Expression) -> Option<Result<Value>> {
        macro_rules! quick {
            ($inner:expr) => {
                match self.quick($inner)? {
                    Ok(value) => value,
                    Err(stop) => return Some(Err(stop)),
                }
            };
        }
        Some(Ok(match expression {
            Expression::Constant(value) => value.clone(),
            Expression::Variable(place) => return Some(self.read(*place)),
            Expression::Grouped(inner) => quick!(inner),
            Expression::Field(number) => {
                let number = quick!(number).number();
                return Some(self.field(number));
            }
            Expression::Regex(pattern) => {
                let record = self.record();
                Value::truth(pattern.is_match(&record))
            }
            Expression::Arithmetic(sign, a, b) => {
                let (a, b) = (quick!(a), quick!(b));
                return Some(
                    super::builtins::arithmetic(sign, a.number(), b.number()).map(Value::Number),
                );
            }
            Expression::Compare(sign, a, b) => {
                let (a, b) = (quick!(a), quick!(b));
                self.compared(sign, &a, &b)
            }
            Expression::Concatenate(a, b) => {
                let (a, b) = (quick!(a), quick!(b));
                return Some(self.joined_values(&a, &b));
            }
            Expression::Not(inner) => Value::truth(!quick!(inner).is_true()),
            Expression::Negative(inner) => Value::Number(-quick!(inner).number()),
            _ => return None,
        }))
    }

    fn compared(&self, sign: &str, a: &Value, b: &Value) -> Value {
        let order = a.compare(b, &self.special(CONVFMT));
        Value::truth(match sign {
            "<" => order.is_lt(),
            "<=" => order.is_le(),
            "==" => order.is_eq(),
            "!=" => order.is_ne(),
            ">" => order.is_gt(),
            _ => order.is_ge(),
        })
    }

    fn joined_values(&self, a: &Value, b: &Value) -> Result<Value> {
        let format = self.special(CONVFMT);
        let (a, b) = (a.bytes(&format), b.bytes(&format));
        if a.len() + b.len() > HELD_BYTES_MAX {
            return Err(Stop::Failed(
                1,
                format!("a string is longer than {HELD_BYTES_MAX} bytes"),
            ));
        }
        let mut text = Vec::with_capacity(a.len() + b.len());
        text.extend_from_slice(&a);
        text.extend_from_slice(&b);
        Ok(Value::text(text))
    }

    pub async fn value(&mut self, expression: &Expression) -> Result<Value> {
        match self.quick(expression) {
            Some(value) => value,
            None => self.evaluate(expression).await,
        }
    }

    fn evaluate<'l>(&'l mut self, expression: &'l Expression) -> Later<'l, Value> {
        Box::pin(async move {
            Ok(match expression {
                Expression::Constant(_) | Expression::Variable(_) | Expression::Regex(_) => {
                    return self.quick(expression).unwrap_or(Ok(Value::Unset));
                }
                Expression::Grouped(inner) => self.value(inner).await?,
                Expression::Several(_) => return Err(Stop::Failed(1, "a list is no value".into())),
                Expression::Field(number) => {
                    let number = self.value(number).await?.number();
                    self.field(number)?
                }
                Expression::Element(place, key) => {
                    let key = self.key(key).await?;
                    let array = self.array(*place)?;
                    let mut array = array.borrow_mut();
                    array.entry(key).or_default().clone()
                }
                Expression::Assign(target, operator, value) => {
                    let mut value = self.value(value).await?;
                    if let Some(sign) = operator {
                        let before = self.value(target).await?.number();
                        value = Value::Number(super::builtins::arithmetic(
                            sign,
                            before,
                            value.number(),
                        )?);
                    }
                    self.assign(target, value.clone()).await?;
                    value
                }
                Expression::Step(target, step, after) => {
                    let before = self.value(target).await?.number();
                    self.assign(target, Value::Number(before + step)).await?;
                    Value::Number(if *after { before + step } else { before })
                }
                Expression::Choose(condition, then, other) => {
                    match self.value(condition).await?.is_true() {
                        true => self.value(then).await?,
                        false => self.value(other).await?,
                    }
                }
                Expression::And(a, b) => {
                    Value::truth(self.value(a).await?.is_true() && self.value(b).await?.is_true())
                }
                Expression::Or(a, b) => {
                    Value::truth(self.value(a).await?.is_true() || self.value(b).await?.is_true())
                }
                Expression::Not(inner) => Value::truth(!self.value(inner).await?.is_true()),
                Expression::Negative(inner) => Value::Number(-self.value(inner).await?.number()),
                Expression::Positive(inner) => Value::Number(self.value(inner).await?.number()),
                Expression::Arithmetic(sign, a, b) => {
                    let a = self.value(a).await?.number();
                    let b = self.value(b).await?.number();
                    Value::Number(super::builtins::arithmetic(sign, a, b)?)
                }
                Expression::Compare(sign, a, b) => {
                    let a = self.value(a).await?;
                    let b = self.value(b).await?;
                    self.compared(sign, &a, &b)
                }
                Expression::Concatenate(a, b) => {
                    let a = self.value(a).await?;
                    let b = self.value(b).await?;
                    self.joined_values(&a, &b)?
                }
                Expression::Matches(wanted, text, pattern) => {
                    let text = self.text(text).await?;
                    let pattern = self.matcher(pattern).await?;
                    Value::truth(pattern.is_match(&text) == *wanted)
                }
                Expression::In(key, place) => {
                    let key = self.key(key).await?;
                    let array = self.array(*place)?;
                    let found = array.borrow().contains_key(&key);
                    Value::truth(found)
                }
                Expression::Builtin(name, arguments) => {
                    super::builtins::call(self, name, arguments).await?
                }
                Expression::Call(index, arguments) => self.function(*index, arguments).await?,
                Expression::Getline(source, target) => {
                    super::builtins::getline(self, source, target.as_deref()).await?
                }
            })
        })
    }

    pub async fn assign(&mut self, target: &Expression, value: Value) -> Result<()> {
        match target {
            Expression::Variable(place) => self.write(*place, value),
            Expression::Field(number) => {
                let number = self.value(number).await?.number();
                self.set_field(number, value)
            }
            Expression::Element(place, key) => {
                let key = self.key(key).await?;
                let array = self.array(*place)?;
                array.borrow_mut().insert(key, value);
                Ok(())
            }
            Expression::Grouped(inner) => Box::pin(self.assign(inner, value)).await,
            _ => Err(Stop::Failed(1, "assignment to what is no variable".into())),
        }
    }

    async fn function(&mut self, index: usize, arguments: &[Expression]) -> Result<Value> {
        let program = Rc::clone(&self.program);
        let Some(function) = program.functions.get(index) else {
            return Ok(Value::Unset);
        };
        if arguments.len() > function.parameters.len() {
            let text = format!(
                "function '{}' is called with too many arguments",
                function.name
            );
            return Err(Stop::Failed(1, text));
        }
        if self.frames.len() >= CALLS_MAX {
            return Err(Stop::Failed(
                1,
                format!("functions call one another more than {CALLS_MAX} deep"),
            ));
        }
        let mut frame = Vec::with_capacity(function.parameters.len());
        for (place, is_array) in function.arrays.iter().enumerate() {
            frame.push(match (arguments.get(place), is_array) {
                (Some(Expression::Variable(variable)), true) => Cell::Array(self.array(*variable)?),
                (Some(Expression::Variable(variable)), false) => match self.cell(*variable) {
                    Some(Cell::Array(array)) => Cell::Array(Rc::clone(array)),
                    _ => Cell::Scalar(self.read(*variable)?),
                },
                (Some(expression), _) => Cell::Scalar(self.value(expression).await?),
                (None, _) => Cell::Scalar(Value::Unset),
            });
        }
        self.frames.push(frame);
        let body = Rc::clone(&function.body);
        let flow = self.all(&body).await;
        self.frames.pop();
        match flow? {
            Flow::Return(value) => Ok(value),
            Flow::Exit => Err(Stop::Code(self.leave().await)),
            Flow::Next => Err(Stop::Failed(1, "next is used in a function".into())),
            _ => Ok(Value::Unset),
        }
    }

    /// `exit` inside of a function: the END rules are not reached from there, all else is as ever.
    async fn leave(&mut self) -> i32 {
        self.streams.close_all(self.call).await;
        self.exit_code
    }
}
