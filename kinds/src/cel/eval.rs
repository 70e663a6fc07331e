//! Running a plan, with what it costs.
//!
//! Costs are counted as upstream's interpreter counts them, step by step, so that one budget means the same there and here.
//! What upstream leaves to its garbage collector is bounded here too: bytes and values that a call makes, which lists that
//! double themselves would multiply without costing much.
//!
//! Invariants: ends within its budget; recurses no deeper than the plan, which is bounded where it is parsed; `&&` and `||` absorb
//! an error that the other side decides, but never the end of the budget.
//! Source: cel-go `interpreter/interpretable.go`, `attributes.go`, `runtimecost.go`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::sync::Arc;

use super::cost;
use super::functions::{self, insert_unique};
use super::message::{self, Message};
use super::plan::{Call, Fold, Plan};
use super::value::{List, Map, Text, Value};

/// Cost of one call of a rule, upstream's `PerCallLimit`: about a tenth of a second.
pub const CALL_COST_MAX: u64 = 1_000_000;

/// Bytes of texts that one call makes. A character costs a tenth, so that this is more than its cost allows for texts that are used.
const CALL_BYTES_MAX: usize = 64 << 20;

/// Values in lists and maps that one call makes; a macro pays 11 or more for each.
const CALL_VALUES_MAX: usize = 1 << 20;

/// Why a run gave nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub message: String,
    /// Whether the budget was used up, which nothing absorbs.
    pub is_final: bool,
}

impl Error {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            is_final: false,
        }
    }

    pub(super) fn no_such_overload() -> Self {
        Self::new("no such overload")
    }

    fn used_up() -> Self {
        Self {
            message: "operation cancelled: actual cost limit exceeded".to_owned(),
            is_final: true,
        }
    }
}

/// What one call has used, and when it ends.
#[derive(Debug)]
pub struct Meter {
    cost: u64,
    cost_max: u64,
    bytes: usize,
    values: usize,
}

impl Meter {
    pub fn new(cost_max: u64) -> Self {
        Self {
            cost: 0,
            cost_max,
            bytes: 0,
            values: 0,
        }
    }

    /// With the budget of one call of a rule.
    pub fn per_call() -> Self {
        Self::new(CALL_COST_MAX)
    }

    pub fn cost(&self) -> u64 {
        self.cost
    }

    pub(super) fn charge(&mut self, cost: u64) -> Result<(), Error> {
        self.cost = self.cost.saturating_add(cost);
        match self.cost > self.cost_max {
            true => Err(Error::used_up()),
            false => Ok(()),
        }
    }

    /// What was charged ahead and is not used.
    fn refund(&mut self, cost: u64) {
        self.cost = self.cost.saturating_sub(cost);
    }

    /// Before so many bytes are made.
    pub(super) fn allocate(&mut self, bytes: usize) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > CALL_BYTES_MAX {
            true => Err(Error::used_up()),
            false => Ok(()),
        }
    }

    /// Before so many values are put into a list or map.
    pub(super) fn allocate_values(&mut self, count: usize) -> Result<(), Error> {
        self.values = self.values.saturating_add(count);
        match self.values > CALL_VALUES_MAX {
            true => Err(Error::used_up()),
            false => Ok(()),
        }
    }
}

pub(super) fn run<'a>(
    plan: &'a Plan,
    variables: Vec<(&'a str, Evaluated<'a>)>,
    composed: Option<&Composed<'a>>,
    meter: &mut Meter,
) -> Result<Value<'a>, Error> {
    let mut run = Run {
        variables,
        composed,
        meter,
    };
    run.eval(plan)
}

/// The name under which expressions of one policy find those that were given a name.
pub const VARIABLES: &str = "variables";

/// Expressions with names, run when one of them is first asked for: an error is that of whoever asks, and what nobody asks for costs
/// nothing. Each has the budget of a call of its own; what they cost together is told by [`Composed::take_cost`].
#[derive(Debug)]
pub struct Composed<'a> {
    programs: &'a [(String, super::Program)],
    globals: Vec<(&'a str, Evaluated<'a>)>,
    known: RefCell<BTreeMap<&'a str, Evaluated<'a>>>,
    cost: Cell<u64>,
}

impl<'a> Composed<'a> {
    /// Each expression may ask for those before it.
    pub fn new(programs: &'a [(String, super::Program)], globals: &[(&'a str, Value<'a>)]) -> Self {
        let globals = globals.iter();
        Self {
            programs,
            globals: globals
                .map(|(name, value)| (*name, Ok(value.clone())))
                .collect(),
            known: RefCell::default(),
            cost: Cell::new(0),
        }
    }

    /// What was spent since it was last asked for.
    pub fn take_cost(&self) -> u64 {
        self.cost.take()
    }

    fn find(&self, name: &str) -> Evaluated<'a> {
        let found = self.programs.iter().find(|(known, _)| known == name);
        let Some((name, program)) = found else {
            return Err(Error::new(format!("no such key: {name}")));
        };
        if let Some(value) = self.known.borrow().get(name.as_str()) {
            return value.clone();
        }
        let mut meter = Meter::per_call();
        let value = run(&program.plan, self.globals.clone(), Some(self), &mut meter);
        self.cost.set(self.cost.get().saturating_add(meter.cost()));
        let value = value.map_err(|error| {
            // Whoever asked has a budget of its own.
            Error::new(format!(
                "composited variable {name:?} fails to evaluate: {}",
                error.message
            ))
        });
        self.known.borrow_mut().insert(name, value.clone());
        value
    }
}

struct Run<'a, 'm> {
    /// Innermost last.
    variables: Vec<(&'a str, Evaluated<'a>)>,
    composed: Option<&'m Composed<'a>>,
    meter: &'m mut Meter,
}

type Evaluated<'a> = Result<Value<'a>, Error>;

impl<'a> Run<'a, '_> {
    fn eval(&mut self, plan: &'a Plan) -> Evaluated<'a> {
        match plan {
            Plan::Const(value) => Ok(value.clone()),
            Plan::Failed(error) => Err(error.clone()),
            Plan::Variable(name) => {
                self.meter.charge(1)?;
                let found = self.variables.iter().rfind(|(known, _)| known == name);
                match found {
                    Some((_, value)) => value.clone(),
                    None => Err(Error::new(format!("no such attribute(s): {name}"))),
                }
            }
            Plan::Select { .. } => self.select(plan),
            Plan::Index { .. } => self.index(plan),
            Plan::And(terms) => self.logic(terms, false),
            Plan::Or(terms) => self.logic(terms, true),
            Plan::Conditional(parts) => {
                let [condition, yes, no] = &**parts;
                match self.eval(condition)? {
                    Value::Bool(true) => self.branch(yes),
                    Value::Bool(false) => self.branch(no),
                    _ => Err(Error::no_such_overload()),
                }
            }
            Plan::Member { value, among } => {
                let value = self.eval(value)?;
                for other in among {
                    if value.equals(other)? {
                        return Ok(Value::Bool(true));
                    }
                }
                Ok(Value::Bool(false))
            }
            Plan::OrElse {
                optional,
                other,
                unwraps,
            } => match self.eval(optional)? {
                Value::Optional(Some(value)) if *unwraps => Ok((*value).clone()),
                found @ Value::Optional(Some(_)) => Ok(found),
                Value::Optional(None) => self.eval(other),
                _ => Err(Error::no_such_overload()),
            },
            Plan::Call(call) => self.call(call),
            Plan::List(items) => {
                let mut made = Vec::new();
                for (item, optional) in items {
                    let item = match self.eval(item) {
                        Err(error) if !error.is_final => {
                            self.meter.charge(cost::LIST)?;
                            return Err(error);
                        }
                        item => item?,
                    };
                    match (item, optional) {
                        (value, false) => made.push(value),
                        (Value::Optional(Some(value)), true) => made.push((*value).clone()),
                        (Value::Optional(None), true) => {}
                        (value, true) => {
                            return Err(Error::new(format!(
                                "cannot initialize optional list element from non-optional value {value}"
                            )));
                        }
                    }
                }
                self.meter.charge(cost::LIST)?;
                self.meter.allocate_values(made.len())?;
                Ok(Value::list(made))
            }
            Plan::Map(entries) => self.map(entries),
            Plan::Message(name, fields) => self.message(name, fields),
            Plan::Fold(fold) => self.fold(fold),
        }
    }

    /// A branch of a conditional: an attribute there is resolved without the step for the attribute itself.
    fn branch(&mut self, plan: &'a Plan) -> Evaluated<'a> {
        let value = self.eval(plan);
        let test = matches!(plan, Plan::Select { test: true, .. });
        if plan.is_attribute() && !test && !matches!(plan.root(), Plan::Conditional(_)) {
            self.meter.refund(1);
        }
        value
    }

    /// What an attribute selects from. One that is made by something else than a variable is a step of its own.
    fn operand(&mut self, operand: &'a Plan) -> Evaluated<'a> {
        let value = self.eval(operand)?;
        if !operand.is_attribute() {
            self.meter.charge(1)?;
        }
        Ok(value)
    }

    fn select(&mut self, plan: &'a Plan) -> Evaluated<'a> {
        let Plan::Select {
            operand,
            field,
            optional,
            test,
            in_optional,
        } = plan
        else {
            return Err(Error::no_such_overload());
        };
        if let (Plan::Variable(name), Some(composed)) = (&**operand, self.composed)
            && name == VARIABLES
            && !self.variables.iter().any(|(known, _)| known == name)
        {
            self.meter.charge(if *test { 1 } else { 2 })?;
            let value = composed.find(field)?;
            return Ok(match (test, optional) {
                (true, _) => Value::Bool(true),
                (false, true) => Value::some(value),
                (false, false) => value,
            });
        }
        let value = match self.operand(operand) {
            // The test was not reached, which is the last step of an attribute.
            Err(error) if *test && operand.is_attribute() && !error.is_final => {
                self.meter.refund(1);
                return Err(error);
            }
            value => value?,
        };
        let (value, chained) = match value {
            Value::Optional(None) if *test => {
                self.meter.refund(u64::from(*in_optional));
                return Ok(Value::Bool(false));
            }
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, false),
        };
        let key = Value::String(Text::Borrowed(field.as_str()));
        let presence = *test || chained || *optional;
        let found = qualify(&value, &key, presence);
        if *test {
            // Asking costs what the operand does.
            let found = found?.is_some();
            if chained && !found {
                self.meter.refund(u64::from(*in_optional));
            }
            return Ok(Value::Bool(found));
        }
        match found {
            Ok(Some(found)) => {
                self.meter.charge(1)?;
                Ok(match presence {
                    true => Value::some(found),
                    false => found,
                })
            }
            Ok(None) => Ok(Value::Optional(None)),
            Err(error) => {
                self.meter.charge(1)?;
                Err(error)
            }
        }
    }

    fn index(&mut self, plan: &'a Plan) -> Evaluated<'a> {
        let Plan::Index {
            operand,
            index,
            optional,
        } = plan
        else {
            return Err(Error::no_such_overload());
        };
        let value = self.operand(operand)?;
        let (value, chained) = match value {
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(value)) => ((*value).clone(), true),
            value => (value, false),
        };
        let key = self.eval(index)?;
        let mut charged = if index.is_attribute() { 0 } else { 1 };
        let presence = chained || *optional;
        let found = match qualify(&value, &key, presence) {
            Ok(found) => found,
            Err(error) => {
                self.meter.charge(charged)?;
                return Err(error);
            }
        };
        if found.is_none() {
            charged = 0;
        }
        self.meter.charge(charged)?;
        match (found, presence) {
            (Some(found), true) => Ok(Value::some(found)),
            (Some(found), false) => Ok(found),
            (None, _) => Ok(Value::Optional(None)),
        }
    }

    /// `&&` and `||`: the term that decides wins over errors of the others.
    fn logic(&mut self, terms: &'a [Plan], decides: bool) -> Evaluated<'a> {
        let mut error = None;
        for term in terms {
            match self.eval(term) {
                Ok(Value::Bool(flag)) if flag == decides => return Ok(Value::Bool(decides)),
                Ok(Value::Bool(_)) => {}
                Ok(_) => error = error.or_else(|| Some(Error::no_such_overload())),
                Err(found) if found.is_final => return Err(found),
                Err(found) => error = error.or(Some(found)),
            }
        }
        match error {
            Some(error) => Err(error),
            None => Ok(Value::Bool(!decides)),
        }
    }

    fn call(&mut self, call: &'a Call) -> Evaluated<'a> {
        if call.function.name == super::ast::operator::NOT_STRICTLY_FALSE {
            let value = match call.args.first().map(|arg| self.eval(arg)) {
                Some(Err(error)) if error.is_final => return Err(error),
                Some(Ok(Value::Bool(false))) => false,
                _ => true,
            };
            self.meter.charge(1)?;
            return Ok(Value::Bool(value));
        }
        let mut args = Vec::with_capacity(call.args.len());
        let mut failed = None;
        let many = call.args.len() > 2;
        for arg in &call.args {
            match self.eval(arg) {
                Ok(value) => args.push(value),
                Err(error) if error.is_final => return Err(error),
                // As upstream has it: of two, the other is looked at, and the call costs what it does; of more, none behind is.
                Err(error) if many && args.len() + 1 < call.args.len() => return Err(error),
                Err(error) => {
                    failed.get_or_insert(error);
                    args.push(Value::Null);
                }
            }
        }
        // Charged before it is done: a call whose arguments are too large is not made.
        if let Some(cost) = cost::before(call, &args) {
            self.meter.charge(cost)?;
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let result = match matched(call, &args).or_else(|| nothing_summed(call, &args)) {
            Some(result) => result,
            None => call.function.run(&args, self.meter),
        };
        if !matches!(&result, Err(error) if error.is_final)
            && let Some(cost) = cost::after(call, &args, result.as_ref().ok())
        {
            self.meter.charge(cost)?;
        }
        result
    }

    fn map(&mut self, entries: &'a [(Plan, Plan, bool)]) -> Evaluated<'a> {
        let mut made = BTreeMap::new();
        for (key, value, optional) in entries {
            let key = self.eval(key)?;
            let value = match (self.eval(value)?, optional) {
                (value, false) => Some(value),
                (Value::Optional(Some(value)), true) => Some((*value).clone()),
                (Value::Optional(None), true) => None,
                (value, true) => {
                    return Err(Error::new(format!(
                        "cannot initialize optional entry '{key}' from non-optional value {value}"
                    )));
                }
            };
            let Some(key) = key.key() else {
                let told = format!("unsupported key type: {}", key.type_name());
                return Err(Error::new(told));
            };
            // Of entries with one key the last one counts.
            match value {
                Some(value) => made.insert(key, value),
                None => made.remove(&key),
            };
        }
        self.meter.charge(cost::MAP)?;
        self.meter.allocate_values(made.len())?;
        Ok(Value::Map(Map::Built(Arc::new(made))))
    }

    fn message(&mut self, name: &Arc<str>, fields: &'a [(String, Plan, bool)]) -> Evaluated<'a> {
        let mut made = BTreeMap::new();
        for (field, value, optional) in fields {
            let value = match (self.eval(value)?, optional) {
                (value, false) => value,
                (Value::Optional(Some(value)), true) => (*value).clone(),
                (Value::Optional(None), true) => {
                    made.remove(field);
                    continue;
                }
                (value, true) => {
                    return Err(Error::new(format!(
                        "cannot initialize optional entry '{field}' from non-optional value {value}"
                    )));
                }
            };
            made.insert(field.clone(), value);
        }
        self.meter.charge(cost::MESSAGE)?;
        self.meter.allocate_values(made.len())?;
        Ok(Value::Message(Arc::new(Message {
            name: Arc::clone(name),
            fields: made,
        })))
    }

    fn fold(&mut self, fold: &'a Fold) -> Evaluated<'a> {
        let range = self.eval(&fold.range)?;
        let init = self.eval(&fold.init);
        if let Err(error) = &init
            && error.is_final
        {
            return init;
        }
        let slot = self.variables.len();
        self.variables.push((fold.accu.as_str(), init));
        let looped = self.turns(fold, slot, &range);
        self.variables.truncate(slot + 1);
        let result = looped.and_then(|()| self.eval(&fold.result));
        self.variables.truncate(slot);
        result
    }

    /// One turn of a loop for each element or entry; an error in one is what the loop has gathered, until a later one decides.
    fn turns(&mut self, fold: &'a Fold, slot: usize, range: &Value<'a>) -> Result<(), Error> {
        match range {
            Value::List(list) => {
                for (index, item) in list.iter().enumerate() {
                    let more = match &fold.var2 {
                        Some(name) => {
                            let index = Ok(Value::Int(index as i64));
                            self.turn(fold, slot, index, Some((name, item)))?
                        }
                        None => self.turn(fold, slot, item, None)?,
                    };
                    if !more {
                        break;
                    }
                }
            }
            Value::Map(map) => {
                for key in map.keys() {
                    let second = fold.var2.as_ref().map(|name| {
                        let found = key.key().map(|key| map.find(&key)).transpose();
                        let value = found.map(|value| value.flatten().unwrap_or(Value::Null));
                        (name, value)
                    });
                    if !self.turn(fold, slot, Ok(key), second)? {
                        break;
                    }
                }
            }
            _ => return Err(Error::no_such_overload()),
        }
        Ok(())
    }

    /// Whether there is to be another turn after this one.
    fn turn(
        &mut self,
        fold: &'a Fold,
        slot: usize,
        first: Evaluated<'a>,
        second: Option<(&'a String, Evaluated<'a>)>,
    ) -> Result<bool, Error> {
        self.variables.truncate(slot + 1);
        self.variables.push((fold.var.as_str(), first));
        if let Some((name, value)) = second {
            self.variables.push((name.as_str(), value));
        }
        match self.eval(&fold.condition) {
            Ok(Value::Bool(false)) => return Ok(false),
            Err(error) if error.is_final => return Err(error),
            _ => {}
        }
        let gathered = match self.gather(fold, slot, &fold.step) {
            Some(Ok(())) => return Ok(true),
            Some(Err(error)) => Err(error),
            None => self.eval(&fold.step),
        };
        match gathered {
            Err(error) if error.is_final => Err(error),
            gathered => {
                self.variables[slot].1 = gathered;
                Ok(true)
            }
        }
    }

    /// Steps that put one more into a list or map, done in place: a copy for each turn would take the square of their number.
    /// None for any other step, of which nothing has been done.
    fn gather(&mut self, fold: &'a Fold, slot: usize, step: &'a Plan) -> Option<Result<(), Error>> {
        let is_accu = |plan: &Plan| matches!(plan, Plan::Variable(name) if *name == fold.accu);
        let built = matches!(
            self.variables[slot].1,
            Ok(Value::List(List::Built(_)) | Value::Map(Map::Built(_)))
        );
        match step {
            Plan::Conditional(parts) if built && is_accu(&parts[2]) => {
                let Plan::Call(call) = &parts[1] else {
                    return None;
                };
                if !call.args.first().is_some_and(is_accu) {
                    return None;
                }
                match self.eval(&parts[0]) {
                    Ok(Value::Bool(false)) => Some(Ok(())),
                    Ok(Value::Bool(true)) => match self.gather(fold, slot, &parts[1]) {
                        Some(done) => Some(done),
                        None => Some(self.eval(&parts[1]).map(|value| {
                            self.variables[slot].1 = Ok(value);
                        })),
                    },
                    Ok(_) => Some(Err(Error::no_such_overload())),
                    Err(error) => Some(Err(error)),
                }
            }
            Plan::Call(call) if built && call.args.first().is_some_and(is_accu) => {
                match (call.function.name, call.args.as_slice()) {
                    (super::ast::operator::ADD, [_, item]) => Some(self.push(slot, item)),
                    (super::ast::operator::MAP_INSERT, [_, key, value]) => {
                        Some(self.insert(slot, key, value))
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn push(&mut self, slot: usize, items: &'a Plan) -> Result<(), Error> {
        self.meter.charge(1)?;
        let more = self.eval(items);
        self.meter.charge(1)?;
        let Value::List(more) = more? else {
            return Err(Error::no_such_overload());
        };
        self.meter.allocate_values(more.len())?;
        if let Ok(Value::List(List::Built(list))) = &mut self.variables[slot].1 {
            let list = Arc::make_mut(list);
            for item in more.iter() {
                list.push(item?);
            }
        }
        Ok(())
    }

    fn insert(&mut self, slot: usize, key: &'a Plan, value: &'a Plan) -> Result<(), Error> {
        self.meter.charge(1)?;
        let key = self.eval(key);
        let value = self.eval(value);
        self.meter.charge(1)?;
        let (key, value) = (key?, value?);
        self.meter.allocate_values(1)?;
        let shown = key.to_string();
        let Some(key) = key.key() else {
            let told = format!("unsupported key type: {}", key.type_name());
            return Err(Error::new(told));
        };
        if let Ok(Value::Map(Map::Built(map))) = &mut self.variables[slot].1
            && insert_unique(Arc::make_mut(map), key, value)
        {
            let told = format!("insert failed: key {shown} already exists");
            return Err(Error::new(told));
        }
        Ok(())
    }
}

/// What stands under a key of a map, or at a place of a list; none where it is asked for and not there.
fn qualify<'a>(
    value: &Value<'a>,
    key: &Value<'a>,
    presence: bool,
) -> Result<Option<Value<'a>>, Error> {
    if let Some(told) = super::plan::unqualified(key) {
        return Err(Error::new(told));
    }
    let missing = |what: &str| match presence {
        true => Ok(None),
        false => Err(Error::new(format!("{what}: {key}"))),
    };
    match value {
        Value::Map(map) => match key.key().map(|key| map.find(&key)).transpose()?.flatten() {
            Some(found) => Ok(Some(found)),
            None => missing("no such key"),
        },
        Value::List(list) => {
            let whole = match key {
                Value::Int(number) => Some(*number),
                Value::Uint(number) => i64::try_from(*number).ok(),
                Value::Double(number) => super::value::lossless(*number),
                other => {
                    let name = other.type_name();
                    return Err(Error::new(format!(
                        "unsupported index type '{name}' in list"
                    )));
                }
            };
            let unsupported = || Error::new(format!("unsupported index value {key} in list"));
            let place = usize::try_from(whole.ok_or_else(unsupported)?).ok();
            match place.and_then(|place| list.get(place)) {
                None => missing("index out of bounds"),
                // A list of the object takes integers only.
                Some(_)
                    if matches!(
                        (list, key),
                        (List::Json(..), Value::Uint(_) | Value::Double(_))
                    ) =>
                {
                    Err(Error::new(format!("unsupported index: {key}")))
                }
                Some(found) => found.map(Some),
            }
        }
        Value::Message(made) => match message::field_of(key) {
            Some(field) if presence && !made.has(&field) => Ok(None),
            Some(field) => Ok(Some(made.field(&field))),
            None => missing("no such key"),
        },
        _ => missing("no such key"),
    }
}

/// The sum of a list without elements, of the type that they would have.
fn nothing_summed<'a>(call: &'a Call, args: &[Value<'a>]) -> Option<Evaluated<'a>> {
    match args {
        [Value::List(list)] if call.function.name == "sum" && list.len() == 0 => {
            functions::lists::zero(&call.overload?.result).map(Ok)
        }
        _ => None,
    }
}

/// `matches` and its like with a constant pattern, which is compiled once.
fn matched<'a>(call: &'a Call, args: &[Value<'a>]) -> Option<Evaluated<'a>> {
    let [Value::String(text), Value::String(pattern)] = args else {
        return None;
    };
    let constant = matches!(call.args.last(), Some(Plan::Const(_)));
    if call.function.name != "matches" || !constant {
        return None;
    }
    let compiled = call.regex.get_or_init(|| functions::regex(pattern));
    Some(match compiled {
        Ok(regex) => Ok(Value::Bool(regex.is_match(text))),
        Err(error) => Err(error.clone()),
    })
}
