//! What is wrong with the literals of an expression whose types fit: times, durations, patterns and formats that cannot be read, and lists
//! and maps that mix their types.
//!
//! Invariants: total; a tree of bounded height is walked once.
//! Source: cel-go `cel/validator.go`, `ext/formatting.go`, as k8s.io/apiserver `pkg/cel/environment` enables them.

use super::ast::{Call, Entry, Expr, Item, Kind, Literal, for_children, operator};
use super::check::Checked;
use super::declaration::Type;
use super::functions::{self, formatting};
use super::{Fault, Faults, time};

/// Everything that is wrong.
pub(super) fn faults(checked: &Checked) -> Faults {
    let mut walk = Walk {
        checked,
        faults: Faults::default(),
    };
    walk.expr(&checked.expr, false);
    walk.faults
}

struct Walk<'a> {
    checked: &'a Checked,
    faults: Faults,
}

impl Walk<'_> {
    fn of(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id]
    }

    fn fault(&mut self, at: usize, message: String) {
        self.faults.push(Fault::new(at, message));
    }

    /// `formats` is whether the expression is part of what is formatted, which may mix types.
    fn expr(&mut self, expr: &Expr, formats: bool) {
        match &expr.kind {
            Kind::Call(call) => {
                self.argument(call);
                self.format(expr, call);
            }
            Kind::List(items) if !formats => self.list(items),
            Kind::Map(entries) if !formats => self.map(entries),
            _ => {}
        }
        let formats =
            formats || matches!(&expr.kind, Kind::Call(call) if call.function == "format");
        if let Kind::Call(call) = &expr.kind
            && call.function == operator::NEW
            && let Some(fields) = call.args.last()
        {
            // Fields have types of their own.
            for_children(&fields.kind, &mut |child| self.expr(child, formats));
            return;
        }
        for_children(&expr.kind, &mut |child| self.expr(child, formats));
    }

    /// The first argument, where it is a literal: of `matches(text, pattern)`, too, that is the text.
    fn argument(&mut self, call: &Call) {
        let Some(argument) = call.args.first() else {
            return;
        };
        let Kind::Literal(literal) = &argument.kind else {
            return;
        };
        let sound = match (call.function.as_str(), literal) {
            ("duration", Literal::String(text)) => time::duration(text).is_some(),
            ("timestamp", Literal::String(text)) => time::timestamp(text).is_ok(),
            ("timestamp", Literal::Int(seconds)) => time::Time::from_seconds(*seconds).is_some(),
            ("matches", Literal::String(pattern)) => functions::regex(pattern).is_ok(),
            _ => true,
        };
        if !sound {
            self.fault(argument.at, format!("invalid {} argument", call.function));
        }
    }

    fn list(&mut self, items: &[Item]) {
        let mut types = items.iter().map(|item| {
            let of = unwrapped(self.of(&item.value), item.optional);
            (item.value.at, of)
        });
        let Some((_, first)) = types.next() else {
            return;
        };
        // The first that differs is told, and no other.
        if let Some((at, other)) = types.find(|(_, of)| of != &first) {
            self.mixed(at, &first, &other);
        }
    }

    fn map(&mut self, entries: &[Entry]) {
        let types: Vec<[(usize, Type); 2]> = entries
            .iter()
            .map(|entry| {
                let value = unwrapped(self.of(&entry.value), entry.optional);
                let key = self.of(&entry.key).clone();
                [(entry.key.at, key), (entry.value.at, value)]
            })
            .collect();
        let Some((first, others)) = types.split_first() else {
            return;
        };
        for other in others {
            for ((_, wanted), (at, found)) in first.iter().zip(other) {
                if wanted != found {
                    self.mixed(*at, wanted, found);
                }
            }
        }
    }

    fn mixed(&mut self, at: usize, wanted: &Type, found: &Type) {
        self.fault(at, format!("expected type '{wanted}' but found '{found}'"));
    }

    /// A format that is a literal, with a list of values that is one.
    fn format(&mut self, expr: &Expr, call: &Call) {
        if call.function != "format" {
            return;
        }
        let Some(Kind::Literal(Literal::String(text))) =
            call.target.as_deref().map(|target| &target.kind)
        else {
            return;
        };
        let [
            Expr {
                kind: Kind::List(items),
                ..
            },
        ] = call.args.as_slice()
        else {
            return;
        };
        if let Err((at, told)) = self.clauses(text, items) {
            self.fault(at.unwrap_or(expr.at), told);
        }
    }

    /// # Errors
    /// Where, if it is a value's, and what.
    fn clauses(&self, text: &str, items: &[Item]) -> Result<(), (Option<usize>, String)> {
        let mut used = 0;
        for piece in formatting::pieces(text) {
            let clause = match piece {
                formatting::Piece::Text(_) => continue,
                formatting::Piece::Clause(clause) => clause,
            };
            used += 1;
            if clause == Err(formatting::Broken::Unfinished) {
                return Err((None, formatting::Broken::Unfinished.to_string()));
            }
            let Some(item) = items.get(used - 1) else {
                return Err((None, format!("index {} out of range", used - 1)));
            };
            let clause = clause.map_err(|broken| (None, broken.to_string()))?;
            let refused = match clause.verb {
                's' => self.unshowable(&item.value),
                _ => (!clause.takes(self.of(&item.value))).then_some(&item.value),
            };
            if let Some(refused) = refused {
                let told = clause.refusal(self.of(refused).name());
                return Err((Some(refused.at), told));
            }
        }
        match items.len() > used {
            true => Err((
                None,
                format!(
                    "too many arguments supplied to string.format (expected {used}, got {})",
                    items.len()
                ),
            )),
            false => Ok(()),
        }
    }

    /// The first part of a value that has no text.
    fn unshowable<'e>(&self, expr: &'e Expr) -> Option<&'e Expr> {
        let shown = matches!(
            self.of(expr),
            Type::Dyn
                | Type::List(_)
                | Type::Map(_)
                | Type::Int
                | Type::Uint
                | Type::Double
                | Type::Bool
                | Type::String
                | Type::Timestamp
                | Type::Bytes
                | Type::Duration
                | Type::Type(_)
                | Type::Null
        );
        match &expr.kind {
            _ if !shown => Some(expr),
            Kind::List(items) => items.iter().find_map(|item| self.unshowable(&item.value)),
            Kind::Map(entries) => entries.iter().find_map(|entry| {
                let key = self.unshowable(&entry.key);
                key.or_else(|| self.unshowable(&entry.value))
            }),
            _ => None,
        }
    }
}

fn unwrapped(of: &Type, optional: bool) -> Type {
    match of {
        Type::Optional(inner) if optional => (**inner).clone(),
        of => of.clone(),
    }
}
