//! Which nodes a node selector means. One rule for who places pods and who has one on each node.
//!
//! Source: `nodeaffinity` of k8s.io/component-helpers.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

/// Whether one of its terms holds for a node of this name with these labels.
pub fn selects(selector: &NodeSelector, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut terms = selector.node_selector_terms.iter();
    terms.any(|term| term_holds(term, name, labels))
}

/// Expressions of a term are all required; a term without any matches nothing.
pub fn term_holds(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let own = BTreeMap::from([("metadata.name".to_owned(), name.to_owned())]);
    let labelled = expressions.iter().all(|e| expression_holds(e, labels));
    labelled && fields.iter().all(|field| expression_holds(field, &own))
}

/// Whether labels meet one expression of a node selector.
fn expression_holds(
    requirement: &NodeSelectorRequirement,
    labels: &BTreeMap<String, String>,
) -> bool {
    let value = labels.get(&requirement.key);
    let values = requirement.values.as_deref().unwrap_or_default();
    let number = |text: &String| text.parse::<i64>().ok();
    let compare = |holds: fn(i64, i64) -> bool| {
        let (left, right) = (value.and_then(number), values.first().and_then(number));
        matches!((left, right), (Some(left), Some(right)) if holds(left, right))
    };
    match requirement.operator.as_str() {
        "In" => value.is_some_and(|value| values.contains(value)),
        "NotIn" => value.is_none_or(|value| !values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(|left, right| left > right),
        "Lt" => compare(|left, right| left < right),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn terms_are_alternatives_and_expressions_are_not() {
        let labels = BTreeMap::from([
            ("zone".to_owned(), "a".to_owned()),
            ("cores".to_owned(), "8".to_owned()),
        ]);
        let zone = |operator: &str, values: &[&str]| json!({"key": "zone", "operator": operator, "values": values});
        for (terms, expected) in [
            (json!([]), false),
            (json!([{}]), false),
            (
                json!([{"matchExpressions": [zone("In", &["a", "b"])]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [zone("NotIn", &["a"])]}]),
                false,
            ),
            (json!([{"matchExpressions": [zone("Exists", &[])]}]), true),
            (
                json!([{"matchExpressions": [zone("DoesNotExist", &[])]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["4"]}]}]),
                true,
            ),
            (
                json!([{"matchExpressions": [{"key": "cores", "operator": "Lt", "values": ["4"]}]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [zone("In", &["b"])]}, {"matchExpressions": [zone("In", &["a"])]}]),
                true,
            ),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]),
                true,
            ),
            (
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                false,
            ),
            (
                json!([{"matchExpressions": [zone("In", &["b"])],
                    "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n0"]}]}]),
                false,
            ),
        ] {
            let selector: NodeSelector =
                serde_json::from_value(json!({"nodeSelectorTerms": terms})).unwrap();
            assert_eq!(selects(&selector, "n0", &labels), expected, "{terms}");
        }
    }
}
