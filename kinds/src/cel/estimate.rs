//! What an expression can cost at most, before it runs, for any object that its schema allows.
//!
//! Sizes come from the schema (`maxLength`, `maxItems`, `maxProperties`, formats, enums) or from what fits into a request, are
//! carried through calls and loops, and multiply where loops stand in one another.
//!
//! Invariants: arithmetic saturates; each node is visited once.
//! Source: cel-go `checker/cost.go`; k8s.io/apiserver `pkg/cel/library/cost.go`; k8s.io/apiextensions-apiserver
//! `pkg/apiserver/schema/cel/compilation.go`.

use std::sync::Arc;

use super::ast::{Call, Expr, Fold, Kind, Literal, Select, operator};
use super::check::Checked;
use super::cost::{LIST, MAP, PATTERN, TRAVERSAL};
use super::declaration::{Decl, Type};
use super::functions::lists::SORT_BY_KEYS;

/// A range of sizes or of costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub min: u64,
    pub max: u64,
}

impl Range {
    const UNKNOWN: Self = Self {
        min: 0,
        max: u64::MAX,
    };

    fn fixed(value: u64) -> Self {
        Self {
            min: value,
            max: value,
        }
    }

    fn plus(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_add(other.min),
            max: self.max.saturating_add(other.max),
        }
    }

    fn times(self, other: Self) -> Self {
        Self {
            min: self.min.saturating_mul(other.min),
            max: self.max.saturating_mul(other.max),
        }
    }

    fn scaled(self, factor: f64) -> Self {
        // A conversion saturates, too.
        let scale = |value: u64| (value as f64 * factor).ceil() as u64;
        Self {
            min: scale(self.min),
            max: scale(self.max),
        }
    }

    fn or(self, other: Self) -> Self {
        Self {
            min: self.min.min(other.min),
            max: self.max.max(other.max),
        }
    }
}

/// Sizes of what is in a list or map.
#[derive(Clone, Copy, Debug)]
struct Entries {
    is_list: bool,
    key: Range,
    value: Range,
}

/// Where in the schema a value stands.
///
/// Upstream keeps a path of names whose first is taken for the variable, whatever it is: one step from a value that has no
/// path leads to the root, and estimates with it.
#[derive(Clone)]
enum Place {
    Nowhere,
    /// A path that the schema does not have.
    Lost,
    At(Arc<Decl>),
}

impl Place {
    fn size(&self) -> Option<Range> {
        match self {
            Self::At(decl) => Some(Range {
                min: 0,
                max: decl.elements_max,
            }),
            _ => None,
        }
    }
}

/// A variable of a loop.
#[derive(Clone)]
struct Local {
    name: String,
    place: Place,
    size: Option<Range>,
    entries: Option<Entries>,
}

/// The cost of a checked expression over variables that stand at `root`.
pub(super) fn estimate(checked: &Checked, root: Option<&Arc<Decl>>) -> Range {
    let nodes = checked.types.len();
    let mut estimator = Estimator {
        checked,
        root: root.map_or(Place::Lost, |root| Place::At(Arc::clone(root))),
        locals: Vec::new(),
        places: vec![Place::Nowhere; nodes],
        sizes: vec![None; nodes],
        entries: vec![None; nodes],
    };
    estimator.cost(&checked.expr)
}

struct Estimator<'a> {
    checked: &'a Checked,
    root: Place,
    locals: Vec<Local>,
    /// Where in the schema an expression's value stands.
    places: Vec<Place>,
    sizes: Vec<Option<Range>>,
    entries: Vec<Option<Entries>>,
}

impl Estimator<'_> {
    fn of(&self, expr: &Expr) -> &Type {
        &self.checked.types[expr.id]
    }

    fn local(&self, name: &str) -> Option<&Local> {
        self.locals.iter().rfind(|local| local.name == name)
    }

    fn cost(&mut self, expr: &Expr) -> Range {
        match &expr.kind {
            Kind::Literal(_) => Range::fixed(0),
            Kind::Ident(name) => {
                self.places[expr.id] = match self.local(name) {
                    Some(local) => local.place.clone(),
                    None => self.root.clone(),
                };
                Range::fixed(1)
            }
            Kind::Select(select) => self.select(expr, select),
            Kind::Call(call) => self.call(expr, call),
            Kind::List(items) => {
                let mut sum = Range::fixed(LIST);
                let mut sizes: Option<Range> = None;
                for item in items {
                    sum = sum.plus(self.cost(&item.value));
                    let size = self.size_or_unknown(&item.value);
                    sizes = Some(sizes.map_or(size, |sizes| sizes.or(size)));
                }
                self.entries[expr.id] = Some(Entries {
                    is_list: true,
                    key: Range::fixed(1),
                    value: sizes.unwrap_or(Range::fixed(0)),
                });
                sum
            }
            Kind::Map(entries) => {
                let mut sum = Range::fixed(MAP);
                let (mut keys, mut values): (Option<Range>, Option<Range>) = (None, None);
                for entry in entries {
                    sum = sum.plus(self.cost(&entry.key));
                    sum = sum.plus(self.cost(&entry.value));
                    let key = self.size_or_unknown(&entry.key);
                    let value = self.size_or_unknown(&entry.value);
                    keys = Some(keys.map_or(key, |keys| keys.or(key)));
                    values = Some(values.map_or(value, |values| values.or(value)));
                }
                self.entries[expr.id] = Some(Entries {
                    is_list: false,
                    key: keys.unwrap_or(Range::fixed(0)),
                    value: values.unwrap_or(Range::fixed(0)),
                });
                sum
            }
            Kind::Fold(fold) => self.fold(expr, fold),
        }
    }

    fn select(&mut self, expr: &Expr, select: &Select) -> Range {
        let operand = self.cost(&select.operand);
        if select.test {
            return operand;
        }
        let place = self.below(&self.place(&select.operand), &select.field);
        if select.optional {
            // A call upstream, whose result has no place.
            self.set_size(expr, None);
            return operand.plus(Range::fixed(1));
        }
        self.places[expr.id] = place;
        match self.of(&select.operand) {
            Type::Map(_) | Type::Object(_) | Type::Opaque(_) | Type::Param(_) => {
                operand.plus(Range::fixed(1))
            }
            _ => operand,
        }
    }

    /// One step further: a field, `@items`, `@values` or `@keys`.
    fn below(&self, place: &Place, step: &str) -> Place {
        match place {
            Place::Nowhere => self.root.clone(),
            Place::Lost => Place::Lost,
            Place::At(decl) => decl.below(step).map_or(Place::Lost, Place::At),
        }
    }

    /// Where an expression's value stands in the schema; of a variable, where that does.
    fn place(&self, expr: &Expr) -> Place {
        if let Kind::Ident(name) = &expr.kind
            && let Some(local) = self.local(name)
        {
            return local.place.clone();
        }
        self.places[expr.id].clone()
    }

    fn size(&self, expr: &Expr) -> Option<Range> {
        if let Some(size) = self.sizes[expr.id] {
            return Some(size);
        }
        let fixed = match &expr.kind {
            Kind::Literal(Literal::String(text)) => Some(text.chars().count()),
            Kind::Literal(Literal::Bytes(bytes)) => Some(bytes.len()),
            Kind::Literal(_) => Some(1),
            Kind::List(items) => Some(items.len()),
            Kind::Map(entries) => Some(entries.len()),
            _ => None,
        };
        if let Some(size) = fixed {
            return Some(Range::fixed(size as u64));
        }
        if let Some(size) = self.place(expr).size() {
            return Some(size);
        }
        if self.of(expr).is_scalar() {
            return Some(Range::fixed(1));
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.size,
            _ => None,
        }
    }

    fn size_or_unknown(&self, expr: &Expr) -> Range {
        self.size(expr).unwrap_or(Range::UNKNOWN)
    }

    fn set_size(&mut self, expr: &Expr, size: Option<Range>) {
        if size.is_some() {
            self.sizes[expr.id] = size;
        }
    }

    fn entries(&self, expr: &Expr) -> Option<Entries> {
        if let Some(entries) = self.entries[expr.id] {
            return Some(entries);
        }
        match &expr.kind {
            Kind::Ident(name) => self.local(name)?.entries,
            _ => None,
        }
    }

    fn fold(&mut self, expr: &Expr, fold: &Fold) -> Range {
        let mut sum = self.cost(&fold.range).plus(self.cost(&fold.init));
        let bind = matches!(&fold.range.kind, Kind::List(items) if items.is_empty())
            && fold.accu != super::macros::ACCU;
        let depth = self.locals.len();
        self.locals.push(Local {
            name: fold.accu.clone(),
            place: self.place(&fold.init),
            size: self.size(&fold.init),
            entries: self.entries(&fold.init),
        });
        if bind {
            sum = sum.plus(self.cost(&fold.result));
            let (size, entries) = (self.size(&fold.result), self.entries(&fold.result));
            self.locals.truncate(depth);
            self.set_size(expr, size);
            self.entries[expr.id] = self.entries[expr.id].or(entries);
            return sum;
        }
        let range_entries = self.entries(&fold.range);
        let is_list = match range_entries {
            Some(entries) => entries.is_list,
            None => matches!(self.of(&fold.range), Type::List(_)),
        };
        let place = self.place(&fold.range);
        let below = |step: &str| self.below(&place, step);
        let local = |name: &str, place, size| Local {
            name: name.to_owned(),
            place,
            size,
            entries: None,
        };
        let (keys, values) = (
            range_entries.map(|entries| entries.key),
            range_entries.map(|entries| entries.value),
        );
        let of_keys = below(if is_list { "@indices" } else { "@keys" });
        let of_items = below(if is_list { "@items" } else { "@values" });
        match &fold.var2 {
            Some(var2) => {
                self.locals.push(local(&fold.var, of_keys, keys));
                self.locals.push(local(var2, of_items, values));
            }
            None if is_list => self.locals.push(local(&fold.var, of_items, values)),
            None => self.locals.push(local(&fold.var, of_keys, keys)),
        }
        let condition = self.cost(&fold.condition);
        let step = self.cost(&fold.step);
        self.locals.truncate(depth + 1);
        sum = sum.plus(self.cost(&fold.result));
        self.locals.truncate(depth);
        let count = self.size_or_unknown(&fold.range);
        sum = sum.plus(count.times(step.plus(condition)));
        match fold.init.kind {
            Kind::Literal(_) => {
                let size = self.size(&fold.init);
                self.set_size(expr, size);
            }
            Kind::List(_) | Kind::Map(_) => {
                self.set_size(expr, Some(count));
                if let Some(entries) = self.entries(&fold.step) {
                    self.entries[expr.id] = Some(entries);
                }
            }
            _ => {}
        }
        sum
    }

    fn call(&mut self, expr: &Expr, call: &Call) -> Range {
        if call.function == "dyn"
            && let [arg] = call.args.as_slice()
        {
            let cost = self.cost(arg).plus(Range::fixed(1));
            let size = self.size(arg);
            self.set_size(expr, size);
            if let Some(entries) = self.entries(arg) {
                self.entries[expr.id] = Some(entries);
            }
            return cost;
        }
        let costs: Vec<Range> = call.args.iter().map(|arg| self.cost(arg)).collect();
        let overloads = self.checked.overloads[expr.id].clone();
        if overloads.is_empty() {
            return Range::fixed(0);
        }
        let mut sum = Range::fixed(0);
        if let Some(target) = call.target.as_deref() {
            sum = self.cost(target);
        }
        let mut cost: Option<Range> = None;
        let mut size: Option<Range> = None;
        for overload in overloads {
            let (one, result) = self.overload(expr, call, &overload.id, &costs);
            cost = Some(cost.map_or(one, |cost| cost.or(one)));
            if let Some(result) = result {
                size = Some(size.map_or(result, |size| size.or(result)));
            }
            let step = match overload.id.as_str() {
                "index_list" => Some("@items"),
                "index_map" => Some("@values"),
                _ => None,
            };
            if let (Some(step), Some(operand)) = (step, call.args.first()) {
                size = self.entries(operand).map(|entries| entries.value);
                self.places[expr.id] = self.below(&self.place(operand), step);
            }
            if size.is_none() {
                size = self.size(expr);
            }
        }
        self.set_size(expr, size);
        sum.plus(cost.unwrap_or(Range::fixed(0)))
    }

    /// Cost of one overload with its arguments, and the size of what it gives.
    fn overload(
        &mut self,
        expr: &Expr,
        call: &Call,
        id: &str,
        costs: &[Range],
    ) -> (Range, Option<Range>) {
        let args_cost = costs
            .iter()
            .fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        let with = |cost: Range, size: Option<Range>| (cost.plus(args_cost), size);
        if let Some((cost, size)) = self.library(call, id) {
            return with(cost, size);
        }
        let args = call.args.as_slice();
        match (id, args) {
            ("logical_and" | "logical_or", _) => {
                // The first term may decide.
                let min = costs.first().map_or(0, |cost| cost.min);
                let max = args_cost.max;
                (Range { min, max }, None)
            }
            ("conditional", [_, yes, no]) => {
                let size = self.size_or_unknown(yes).or(self.size_or_unknown(no));
                self.entries[expr.id] = union(self.entries(yes), self.entries(no));
                let [condition, yes, no] = [costs[0], costs[1], costs[2]];
                (condition.plus(yes.or(no)), Some(size))
            }
            ("add_string" | "add_bytes" | "add_list", [a, b]) => {
                let size = self.size_or_unknown(a).plus(self.size_or_unknown(b));
                if let Some(entries) = union(self.entries(a), self.entries(b)) {
                    self.entries[expr.id] = Some(entries);
                }
                match id {
                    "add_list" => with(Range::fixed(1), Some(size)),
                    _ => with(size.scaled(TRAVERSAL), Some(size)),
                }
            }
            ("string_format", _) => {
                let target = call.target.as_deref();
                let size = target.map_or(Range::UNKNOWN, |target| self.size_or_unknown(target));
                with(size.scaled(TRAVERSAL), None)
            }
            ("string_to_bytes", [text]) => {
                let size = self.size_or_unknown(text);
                let made = Range {
                    min: size.min,
                    max: size.max.saturating_mul(4),
                };
                with(size.scaled(TRAVERSAL), Some(made))
            }
            ("bytes_to_string", [bytes]) => {
                let size = self.size_or_unknown(bytes);
                let made = Range {
                    min: size.min / 4,
                    max: size.max,
                };
                with(size.scaled(TRAVERSAL), Some(made))
            }
            ("strings_quote", [text]) => {
                let size = self.size_or_unknown(text);
                let made = Range {
                    min: size.min.saturating_add(2),
                    max: size.max.saturating_mul(2).saturating_add(2),
                };
                with(size.scaled(TRAVERSAL), Some(made))
            }
            ("starts_with_string" | "ends_with_string", [part]) => {
                with(self.size_or_unknown(part).scaled(TRAVERSAL), None)
            }
            ("in_list", [_, list]) => with(self.size_or_unknown(list), None),
            ("matches" | "matches_string", _) => {
                let target = call.target.as_deref();
                let mut parts = target.into_iter().chain(args);
                let (Some(text), Some(pattern)) = (parts.next(), parts.next()) else {
                    return with(Range::fixed(1), None);
                };
                with(self.pattern(text, pattern), None)
            }
            ("contains_string", [part]) => {
                let target = call.target.as_deref();
                let text = target.map_or(Range::UNKNOWN, |target| self.size_or_unknown(target));
                let part = self.size_or_unknown(part).scaled(TRAVERSAL);
                with(text.scaled(TRAVERSAL).times(part), None)
            }
            (
                "less_string"
                | "greater_string"
                | "less_equals_string"
                | "greater_equals_string"
                | "less_bytes"
                | "greater_bytes"
                | "less_equals_bytes"
                | "greater_equals_bytes"
                | "equals"
                | "not_equals",
                [a, b],
            ) => {
                let max = self.size_or_unknown(a).max.min(self.size_or_unknown(b).max);
                let min = u64::from(max > 0);
                with(Range { min, max }.scaled(TRAVERSAL), None)
            }
            _ => with(Range::fixed(1), None),
        }
    }

    /// Of an element of a list, by its schema.
    fn item_size(&self, list: &Expr) -> Range {
        let size = match self.place(list) {
            Place::Nowhere => None,
            place => self.below(&place, "@items").size(),
        };
        size.unwrap_or(Range::UNKNOWN)
    }

    fn pattern(&self, text: &Expr, pattern: &Expr) -> Range {
        let text = self.size_or_unknown(text).plus(Range::fixed(1));
        let pattern = self.size_or_unknown(pattern).scaled(PATTERN);
        text.scaled(TRAVERSAL).times(pattern)
    }

    /// The functions of Kubernetes' libraries, and of extensions with estimates of their own.
    fn library(&self, call: &Call, id: &str) -> Option<(Range, Option<Range>)> {
        let target = call.target.as_deref();
        let args = call.args.as_slice();
        let size = |expr: &Expr| self.size_or_unknown(expr);
        let scan = |expr: &Expr| size(expr).scaled(TRAVERSAL);
        let allocating = |times: f64, of: Range| {
            let cost = of.scaled(times).plus(Range::fixed(1 + LIST));
            Some((cost, Some(of)))
        };
        let number = |expr: &Expr, other: u64| match expr.kind {
            Kind::Literal(Literal::Int(number)) => u64::try_from(number).unwrap_or(0),
            _ => other,
        };
        let squared = |of: Range| of.times(of);
        match (call.function.as_str(), target, args) {
            (
                "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes",
                Some(list),
                _,
            ) => {
                let mut each = Range::fixed(1);
                let parameters = self.of(list).parameters();
                match parameters.first() {
                    Some(item) => {
                        if matches!(item, Type::String | Type::Bytes) {
                            each = each.plus(self.item_size(list).scaled(TRAVERSAL));
                        }
                        Some((size(list).times(each), None))
                    }
                    None if call.function == "includes" => Some((size(list), None)),
                    None => Some((scan(list), None)),
                }
            }
            ("url", None, [text]) => Some((scan(text), Some(size(text)))),
            ("lowerAscii" | "upperAscii" | "substring" | "trim", Some(text), _) => {
                Some((scan(text), Some(size(text))))
            }
            ("replace", Some(text), [old, new, ..]) => {
                let cost = size(text).scaled(2.0 * TRAVERSAL);
                Some((cost, Some(replaced(size(text), size(old), size(new)))))
            }
            ("split", Some(text), _) => {
                let most = args
                    .get(1)
                    .map_or(size(text).max, |count| match count.kind {
                        Kind::Literal(Literal::Int(count)) => count as u64,
                        _ => size(text).max,
                    });
                let parts = Range { min: 0, max: most };
                Some((size(text).scaled(2.0 * TRAVERSAL), Some(parts)))
            }
            ("join", Some(list), _) => {
                let count = size(list);
                let item = self.item_size(list);
                let mut made = match self.of(list).parameters().is_empty() {
                    true => Range::fixed(0),
                    false => count.times(item),
                };
                if let Some(separator) = args.first() {
                    let between = Range {
                        min: count.min.saturating_sub(1),
                        max: count.max.saturating_sub(1),
                    };
                    made = made.plus(size(separator).times(between));
                }
                Some((made.scaled(TRAVERSAL), Some(made)))
            }
            ("find" | "findAll", Some(text), [pattern, ..]) => {
                let most = Range {
                    min: 0,
                    max: size(text).max,
                };
                Some((self.pattern(text, pattern), Some(most)))
            }
            ("ip", ..) if id == "cidr_ip" => Some((Range::fixed(1), None)),
            (
                "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver"
                | "isSemver",
                None,
                [text, ..],
            ) => Some((scan(text), None)),
            ("ip.isCanonical", None, [text]) => Some((size(text).scaled(2.0 * TRAVERSAL), None)),
            (
                "masked"
                | "prefixLength"
                | "family"
                | "isUnspecified"
                | "isLoopback"
                | "isLinkLocalMulticast"
                | "isLinkLocalUnicast"
                | "isGlobalUnicast"
                | "sign"
                | "asInteger"
                | "isInteger"
                | "asApproximateFloat"
                | "isGreaterThan"
                | "isLessThan"
                | "compareTo"
                | "add"
                | "sub"
                | "major"
                | "minor"
                | "patch"
                | "getScheme"
                | "getHostname"
                | "getHost"
                | "getPort"
                | "getEscapedPath"
                | "getQuery"
                | "format.named",
                ..,
            ) => Some((Range::fixed(1), None)),
            ("containsIP" | "containsCIDR", Some(_), [other]) => {
                let bytes = Range { min: 4, max: 16 };
                let mut cost = bytes.plus(bytes).scaled(TRAVERSAL);
                if call.function == "containsCIDR" {
                    cost = cost.plus(bytes.scaled(TRAVERSAL)).plus(Range::fixed(1));
                }
                if matches!(id, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                    cost = cost.plus(scan(other));
                }
                Some((cost, None))
            }
            ("validate", Some(_), [text]) => {
                // Longer than any pattern that formats are matched by.
                const FORMAT_PATTERN_MAX: f64 = 128.0;
                Some((scan(text).scaled(FORMAT_PATTERN_MAX * PATTERN), None))
            }
            (operator::EQUALS, None, [a, b]) => {
                let (Type::Opaque(a), Type::Opaque(b)) = (self.of(a), self.of(b)) else {
                    return None;
                };
                match *a {
                    _ if a != b => None,
                    "kubernetes.NamedFormat" => {
                        let range = Range { min: 1, max: 64 };
                        Some((range.scaled(TRAVERSAL), None))
                    }
                    "kubernetes.URL" => {
                        let known = args.get(1).and_then(|right| self.size(right));
                        let max = known.map_or(1, |size| size.max.max(1));
                        Some((Range { min: 1, max }.scaled(TRAVERSAL), None))
                    }
                    _ => Some((Range::fixed(1), None)),
                }
            }
            ("sets.contains" | "sets.intersects" | "sets.equivalent", None, [a, b]) => {
                let times = if call.function == "sets.equivalent" {
                    2.0
                } else {
                    1.0
                };
                let cost = size(a).times(size(b)).scaled(times).plus(Range::fixed(1));
                Some((cost, None))
            }
            ("slice", Some(list), [from, to]) => {
                let most = number(to, size(list).max).wrapping_sub(number(from, 0));
                allocating(1.0, Range::fixed(most))
            }
            ("lists.range", None, [count]) => {
                allocating(1.0, Range::fixed(number(count, u64::MAX)))
            }
            ("reverse", Some(list), []) => allocating(1.0, size(list)),
            ("flatten", Some(list), levels) => {
                let levels = levels.first().map_or(1, |levels| number(levels, u64::MAX));
                allocating(levels as f64, size(list))
            }
            ("distinct", Some(list), []) => allocating(2.0, squared(size(list))),
            ("sort", Some(list), []) | (SORT_BY_KEYS, Some(_), [list]) => {
                let text = id.starts_with("list_string_") || id.starts_with("list_bytes_");
                let times = if text { 2.0 + TRAVERSAL } else { 2.0 };
                allocating(times, squared(size(list)))
            }
            _ => None,
        }
    }
}

fn union(a: Option<Entries>, b: Option<Entries>) -> Option<Entries> {
    let (a, b) = (a?, b?);
    Some(Entries {
        is_list: a.is_list,
        key: a.key.or(b.key),
        value: a.value.or(b.value),
    })
}

/// How long a text is after a replacement, at least and at most.
fn replaced(text: Range, old: Range, new: Range) -> Range {
    let ceil = |a: u64, b: u64| (a as f64 / b as f64).ceil() as u64;
    let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
    if old.min == 0 {
        // An empty text is found before and behind each character.
        count.max = text.max.saturating_add(1);
        kept.max = text.max;
    } else if new.max <= old.min {
        kept.max = text.max;
    } else {
        count.max = ceil(text.max, old.min);
    }
    if old.max == 0 {
        count.min = text.min.saturating_add(1);
        kept.min = text.min;
    } else if old.max <= new.min {
        kept.min = text.min;
    } else {
        count.min = ceil(text.min, old.max);
    }
    count.times(new).plus(kept)
}
