//! The order of objects by a value in them: `--sort-by=.metadata.creationTimestamp`.
//!
//! Numbers and quantities by their size, other texts with the numbers in them by their size (`web-2` before `web-10`), what is not
//! there first. Invariant: a total order, and equal ones stay as they were.

use std::cmp::Ordering;

use serde_json::Value;
use weft_api::Quantity;
use weft_kinds::apiextensions::json_path::JsonPath;

/// The path that the user gave, with or without braces and a leading point.
pub fn path(text: &str) -> Result<JsonPath, String> {
    let bare = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'))
        .unwrap_or(text);
    let dotted = match bare.starts_with(['.', '[', '$', '@']) {
        true => bare.to_owned(),
        false => format!(".{bare}"),
    };
    JsonPath::parse(&dotted).ok_or_else(|| format!("{text:?} is no path such as .metadata.name"))
}

/// Sorts `items` by what `path` finds first in the object of each.
pub fn sort(items: &mut [Value], path: &JsonPath, object: impl Fn(&Value) -> &Value) {
    let key = |item: &Value| {
        let found = path.find(object(item)).unwrap_or_default();
        found.first().map(|value| (*value).clone())
    };
    items.sort_by_cached_key(|item| Key(key(item)));
}

struct Key(Option<Value>);

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Some(a), Some(b)) => compare(a, b),
            (a, b) => a.is_some().cmp(&b.is_some()),
        }
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Key {}

/// Numbers before quantities before texts before all else: an order must not depend on which two are compared.
fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(text) if Quantity::parse(text).is_ok() => 1,
        Value::String(_) => 2,
        Value::Bool(_) => 3,
        _ => 4,
    };
    rank(a).cmp(&rank(b)).then_with(|| match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let (a, b) = (
                a.as_f64().unwrap_or_default(),
                b.as_f64().unwrap_or_default(),
            );
            a.total_cmp(&b)
        }
        (Value::String(x), Value::String(y)) => match (Quantity::parse(x), Quantity::parse(y)) {
            (Ok(x), Ok(y)) => x.cmp(&y),
            _ => natural(x, y),
        },
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        _ => a.to_string().cmp(&b.to_string()),
    })
}

/// Texts by their parts, those of digits as numbers.
fn natural(mut a: &str, mut b: &str) -> Ordering {
    fn part(text: &str) -> (&str, &str) {
        let digits = text.starts_with(|c: char| c.is_ascii_digit());
        let end = text.find(|c: char| c.is_ascii_digit() != digits);
        text.split_at(end.unwrap_or(text.len()))
    }
    while !a.is_empty() && !b.is_empty() {
        let ((first, rest_a), (second, rest_b)) = (part(a), part(b));
        let number = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let order = if number(first) && number(second) {
            let (x, y) = (
                first.trim_start_matches('0'),
                second.trim_start_matches('0'),
            );
            x.len().cmp(&y.len()).then_with(|| x.cmp(y))
        } else {
            first.cmp(second)
        };
        if order.is_ne() {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
    a.len().cmp(&b.len())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_ordered_by_their_kind() {
        for (values, sorted) in [
            (json!([10, 9, 2.5]), json!([2.5, 9, 10])),
            (
                json!(["web-10", "web-2", "web-1"]),
                json!(["web-1", "web-2", "web-10"]),
            ),
            (
                json!(["1Gi", "200Mi", "1500m"]),
                json!(["1500m", "200Mi", "1Gi"]),
            ),
            (
                json!(["2026-11-30T01:00:00Z", "2026-02-01T09:00:00Z"]),
                json!(["2026-02-01T09:00:00Z", "2026-11-30T01:00:00Z"]),
            ),
            (
                json!(["x", 3, "1Gi", true, null]),
                json!([3, "1Gi", "x", true, null]),
            ),
        ] {
            let mut items: Vec<Value> = values
                .as_array()
                .unwrap()
                .iter()
                .map(|v| json!({"a": v}))
                .collect();
            items.insert(0, json!({}));
            sort(&mut items, &path("a").unwrap(), |item| item);
            let found: Vec<Value> = items.iter().map(|item| item["a"].clone()).collect();
            let mut expected = vec![Value::Null];
            expected.extend(sorted.as_array().unwrap().clone());
            assert_eq!(found, expected);
        }
        for text in ["{.a}", ".a", "a"] {
            assert_eq!(path(text), path(".a"));
        }
        assert!(path("a[").is_err());
    }
}
