//! What a call costs when it runs.
//!
//! Source: cel-go `interpreter/runtimecost.go`, `ext/lists.go`, `ext/sets.go`; k8s.io/apiserver `pkg/cel/library/cost.go`.
//! Differences to any of them would let a rule end here that does not end there.

use super::functions::lists::SORT_BY_KEYS;
use super::plan::Call;
use super::value::Value;

/// Of a list and a map that are put together.
pub(super) const LIST: u64 = 10;
pub(super) const MAP: u64 = 30;
/// Of what a policy builds.
pub(super) const MESSAGE: u64 = 40;

/// Of a character that is passed over.
pub(super) const TRAVERSAL: f64 = 0.1;
/// Of a character of a pattern.
pub(super) const PATTERN: f64 = 0.25;

fn factor(size: u64, factor: f64) -> u64 {
    (size as f64 * factor).ceil() as u64
}

fn size(value: &Value<'_>) -> u64 {
    match value {
        Value::Optional(Some(inner)) => size(inner),
        value => value.size().unwrap_or(1),
    }
}

fn pattern_cost(text: &Value<'_>, pattern: u64) -> u64 {
    factor(size(text).saturating_add(1), TRAVERSAL).saturating_mul(factor(pattern, PATTERN))
}

/// The cost of a call by its arguments; none where it is the result that counts.
pub(super) fn before(call: &Call, args: &[Value<'_>]) -> Option<u64> {
    let id = call.overload.map_or("", |overload| overload.id.as_str());
    let name = call.function.name;
    let first = args.first();
    let of_first = || first.map_or(1, size);
    let scan = |times: f64| factor(of_first(), times * TRAVERSAL);
    Some(match name {
        "join" => return None,
        // Somebody else is asked.
        "check" => 350_000,
        _ if matches!(id, "list_slice" | "lists_range" | "list_reverse") => return None,
        "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" | "includes" => {
            first.map_or(0, traversal)
        }
        "url" | "lowerAscii" | "upperAscii" | "substring" | "trim" | "cidr" | "isIP" | "isCIDR"
        | "quantity" | "isQuantity" | "semver" | "isSemver" => scan(1.0),
        "ip" if id == "cidr_ip" => 1,
        "ip" => scan(1.0),
        "replace" | "split" | "ip.isCanonical" => scan(2.0),
        "find" | "findAll" | "matches" => match args {
            [text, pattern, ..] => pattern_cost(text, size(pattern)),
            _ => 1,
        },
        "containsIP" | "containsCIDR" => {
            let net = of_first();
            let other = args.get(1).map_or(0, size);
            let mut cost = factor(net.saturating_mul(2), TRAVERSAL);
            if name == "containsCIDR" {
                cost += factor(net, TRAVERSAL) + 1;
            }
            if matches!(id, "cidr_contains_ip_string" | "cidr_contains_cidr_string") {
                cost += factor(other, TRAVERSAL);
            }
            cost
        }
        "validate" => match args {
            [Value::Format(format), text] => pattern_cost(text, format.pattern_chars),
            _ => 1,
        },
        "_==_" | "_!=_" => match args {
            [
                Value::Quantity(_)
                | Value::Ip(_)
                | Value::Cidr(..)
                | Value::Format(_)
                | Value::Url(_)
                | Value::Semver(_),
                _,
            ] if name == "_==_" => 1,
            [a, b] => factor(size(a).min(size(b)), TRAVERSAL),
            _ => 1,
        },
        "sets.contains" | "sets.intersects" | "sets.equivalent" => {
            let times = if name == "sets.equivalent" { 2 } else { 1 };
            let other = args.get(1).map_or(1, size);
            of_first()
                .saturating_mul(other)
                .saturating_mul(times)
                .saturating_add(1)
        }
        "flatten" => {
            let levels = match args.get(1) {
                Some(Value::Int(levels)) => u64::try_from(*levels).unwrap_or(1),
                _ => 1,
            };
            allocating(of_first().saturating_mul(levels))
        }
        // Of elements whose type is known when it runs only, upstream knows no cost.
        "sort" | SORT_BY_KEYS if id.is_empty() => 1,
        "distinct" | "sort" | SORT_BY_KEYS => {
            let keys = if name == SORT_BY_KEYS {
                args.get(1)
            } else {
                first
            };
            let text = match keys {
                Some(Value::List(list)) => {
                    matches!(list.get(0), Some(Ok(Value::String(_) | Value::Bytes(_))))
                }
                _ => false,
            };
            let count = keys.map_or(1, size);
            let pairs = count.saturating_mul(count);
            let times = if text { 2.0 + TRAVERSAL } else { 2.0 };
            allocating((pairs as f64 * times) as u64)
        }
        _ => match id {
            "starts_with_string" | "ends_with_string" => {
                factor(args.get(1).map_or(1, size), TRAVERSAL)
            }
            "string_to_bytes" | "bytes_to_string" | "strings_quote" | "string_format" => scan(1.0),
            "in_list" => args.get(1).map_or(1, size),
            "less_string"
            | "greater_string"
            | "less_equals_string"
            | "greater_equals_string"
            | "less_bytes"
            | "greater_bytes"
            | "less_equals_bytes"
            | "greater_equals_bytes" => {
                let least = args.iter().map(size).min().unwrap_or(1);
                factor(least, TRAVERSAL)
            }
            "add_string" | "add_bytes" => factor(args.iter().map(size).sum(), TRAVERSAL),
            "contains_string" => {
                let part = factor(args.get(1).map_or(1, size), TRAVERSAL);
                scan(1.0).saturating_mul(part)
            }
            _ => 1,
        },
    })
}

/// The cost of a call by its result, where [`before`] has none. An error has the size 1.
pub(super) fn after(call: &Call, args: &[Value<'_>], result: Option<&Value<'_>>) -> Option<u64> {
    if before(call, args).is_some() {
        return None;
    }
    let size = result.map_or(1, size);
    Some(match call.function.name {
        "join" => factor(size, 2.0 * TRAVERSAL),
        _ => allocating(size),
    })
}

/// A call that makes a list.
fn allocating(size: u64) -> u64 {
    size.saturating_add(1 + LIST)
}

/// Everything in a value, once.
fn traversal(value: &Value<'_>) -> u64 {
    match value {
        Value::String(text) => (text.len() as f64 * TRAVERSAL) as u64,
        Value::Bytes(bytes) => (bytes.len() as f64 * TRAVERSAL) as u64,
        Value::List(list) => list
            .iter()
            .map(|item| item.map_or(1, |item| traversal(&item)))
            .fold(0, u64::saturating_add),
        Value::Map(map) => map
            .keys()
            .iter()
            .map(|key| {
                let found = key.key().map(|key| map.find(&key));
                let value = match found {
                    Some(Ok(Some(value))) => traversal(&value),
                    _ => 1,
                };
                traversal(key).saturating_add(value)
            })
            .fold(0, u64::saturating_add),
        _ => 1,
    }
}
