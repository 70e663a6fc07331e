//! Expressions of an awk program, the loosest operators first.

use std::rc::Rc;

use super::lexer::Token;
use super::parser::{Parsed, Parser, regex};
use super::syntax_tree::{Expression, Place, Source};
use super::value::Value;

impl Parser {
    pub(super) fn list(&mut self) -> Parsed<Vec<Expression>> {
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

    pub(super) fn concatenation(&mut self) -> Parsed<Expression> {
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
