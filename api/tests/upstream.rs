//! Quantities, selectors, times and names answer as Kubernetes' own packages do, sentence for sentence.
//!
//! The tables are what those packages answered; `upstream/README.md` says how they were made.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::name;
use weft_api::quantity::QuantityError;
use weft_api::time::WireTime;
use weft_api::{FieldSelector, LabelSelector, Quantity};

fn rows(table: &str) -> impl Iterator<Item = Vec<Value>> {
    table.lines().map(|line| {
        let columns = line.split('\t');
        columns
            .map(|column| serde_json::from_str(column).expect("columns are JSON"))
            .collect()
    })
}

/// Go reads a text without digits as zero.
const WITHOUT_DIGITS: &[&str] = &["e3"];

/// Whether an amount is beyond what is counted here.
fn is_beyond(quantity: &str) -> bool {
    let suffix = quantity.find(|c: char| !"+-.0123456789".contains(c));
    let (number, suffix) = quantity.split_at(suffix.unwrap_or(quantity.len()));
    let exponent = match suffix {
        "T" => 12,
        "P" => 15,
        "E" => 18,
        other => other[1..].parse().unwrap(),
    };
    number.parse::<f64>().unwrap().abs() * 10_f64.powi(exponent) > 0.9e29
}

#[test]
fn quantities() {
    for row in rows(include_str!("upstream/quantities.tsv")) {
        let input = row[0].as_str().unwrap();
        let canonical = Quantity::canonical(input);
        if WITHOUT_DIGITS.contains(&input) {
            assert!(canonical.is_err(), "{input}");
            continue;
        }
        if let Some(sentence) = row[1].as_str() {
            assert_eq!(canonical.unwrap_err().to_string(), sentence, "{input}");
            continue;
        }
        if canonical == Err(QuantityError::Number) {
            assert!(is_beyond(input), "{input}");
            continue;
        }
        let canonical = canonical.unwrap();
        let quantity = Quantity::parse(input).unwrap();
        // Go drops the suffix of an amount from 1000E: what was 10^21 is answered as 1.
        let dropped = canonical.ends_with('E') && !row[2].as_str().unwrap().ends_with('E');
        match dropped {
            true => assert!(quantity.value().abs() >= 10_i128.pow(21), "{input}"),
            false => assert_eq!(canonical, row[2].as_str().unwrap(), "{input}"),
        }
        assert_eq!(
            Quantity::canonical(&canonical).unwrap(),
            canonical,
            "{input}"
        );
        assert_eq!(Quantity::parse(&canonical).unwrap(), quantity, "{input}");
        // Beyond an int64 Go's two numbers wrap, and of negative fractions it is not of one mind.
        for (ours, theirs) in [(quantity.milli(), &row[3]), (quantity.value(), &row[4])] {
            if !quantity.is_negative() && ours < i128::from(i64::MAX) {
                assert_eq!(i128::from(theirs.as_i64().unwrap()), ours, "{input}");
            }
        }
    }
}

#[test]
fn label_selectors() {
    for row in rows(include_str!("upstream/labels.tsv")) {
        let input = row[0].as_str().unwrap();
        let parsed = LabelSelector::parse(input);
        if let Some(sentence) = row[1].as_str() {
            assert_eq!(parsed.unwrap_err().to_string(), sentence, "{input}");
            continue;
        }
        let parsed = parsed.unwrap_or_else(|error| panic!("{input}: {error}"));
        // Two ways to write the same, of which Go remembers which it was.
        let theirs = row[2].as_str().unwrap().replace("==", "=");
        assert_eq!(parsed.to_string(), theirs, "{input}");
        let sets = row[3].as_array().unwrap().iter();
        for (set, selected) in sets.zip(row[4].as_array().unwrap()) {
            let set: BTreeMap<String, String> = serde_json::from_value(set.clone()).unwrap();
            assert_eq!(parsed.matches(&set), *selected, "{input} on {set:?}");
        }
    }
}

#[test]
fn field_selectors() {
    for row in rows(include_str!("upstream/fields.tsv")) {
        let input = row[0].as_str().unwrap();
        let parsed = FieldSelector::parse(input);
        if let Some(sentence) = row[1].as_str() {
            assert_eq!(parsed.unwrap_err().to_string(), sentence, "{input}");
            continue;
        }
        let parsed = parsed.unwrap_or_else(|error| panic!("{input}: {error}"));
        let terms: Vec<Value> = parsed
            .requirements()
            .iter()
            .map(|term| {
                let operator = if term.equal { "=" } else { "!=" };
                serde_json::json!([term.field, operator, term.value])
            })
            .collect();
        assert_eq!(Value::Array(terms), row[2], "{input}");
    }
}

#[test]
fn times() {
    let told = |time: WireTime, form: fn(WireTime) -> String| match time.is_zero() {
        true => Value::Null,
        false => form(time).into(),
    };
    for row in rows(include_str!("upstream/times.tsv")) {
        let input = row[0].as_str().unwrap();
        for (ours, sentence, text, form) in [
            (
                WireTime::parse(input),
                &row[1],
                &row[2],
                WireTime::rfc3339 as fn(WireTime) -> String,
            ),
            (
                WireTime::parse_micro(input),
                &row[3],
                &row[4],
                WireTime::rfc3339_micros,
            ),
        ] {
            match ours {
                Ok(time) => {
                    assert_eq!(*sentence, Value::Null, "{input}");
                    assert_eq!(told(time, form), *text, "{input}");
                }
                Err(error) => assert_eq!(error.to_string(), sentence.as_str().unwrap_or_default()),
            }
        }
    }
}

#[test]
fn names() {
    for row in rows(include_str!("upstream/names.tsv")) {
        let (rule, input) = (row[0].as_str().unwrap(), row[1].as_str().unwrap());
        let faults = match rule {
            "dns1123_label" => name::dns1123_label_faults(input),
            "dns1123_subdomain" => name::dns1123_subdomain_faults(input),
            "dns1035_label" => name::dns1035_label_faults(input),
            "qualified_name" => name::qualified_name_faults(input),
            "label_value" => name::label_value_faults(input),
            "config_key" => name::config_key_faults(input),
            "env_name" => name::env_name_faults(input),
            "port_name" => name::port_name_faults(input),
            other => panic!("the table has the rule {other}, the test has not"),
        };
        assert_eq!(serde_json::json!(faults), row[2], "{rule} of {input:?}");
    }
}

#[test]
fn a_selector_of_an_object_is_told_all_that_is_wrong_with_it() {
    let selector = serde_json::json!({
        "matchLabels": {"-a": "b c"},
        "matchExpressions": [
            {"key": "a", "operator": "In"},
            {"key": "a", "operator": "Exists", "values": ["b"]},
            {"key": "", "operator": "Gt", "values": ["-"]},
        ],
    });
    let causes = LabelSelector::causes(&selector, "spec.selector");
    let told: Vec<String> = causes
        .iter()
        .map(|cause| format!("{}: {}", cause.field, cause.message))
        .map(|line| line.split(" (e.g.").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        told,
        [
            "spec.selector.matchLabels: Invalid value: \"-a\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "spec.selector.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
            "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            "spec.selector.matchExpressions[2].operator: Invalid value: \"Gt\": not a valid selector operator",
            "spec.selector.matchExpressions[2].key: Invalid value: \"\": name part must be non-empty",
            "spec.selector.matchExpressions[2].key: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
            "spec.selector.matchExpressions[2].values[0]: Invalid value: \"-\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
        ]
    );
    assert!(LabelSelector::from_object(&selector).is_err());
}
