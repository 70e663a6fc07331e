//! Which taints a pod bears. One rule for who places pods and who drives them off.
//!
//! Source: `Toleration.ToleratesTaint` of k8s.io/api `core/v1`.

use crate::view::{Taint, Toleration};

/// Whether `toleration` matches `taint`. An empty effect matches every effect; an empty key with `Exists` every taint;
/// `Gt` and `Lt` compare whole numbers.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let value = toleration.value.as_deref().unwrap_or_default();
    let tainted = taint.value.as_deref().unwrap_or_default();
    let operator = toleration.operator.as_deref().unwrap_or_default();
    // Without a key, no other operator passes validation.
    let is_about_it = key == taint.key || (key.is_empty() && operator == "Exists");
    if !is_about_it || !(effect.is_empty() || effect == taint.effect) {
        return false;
    }
    let numbers = || whole_number(tainted).zip(whole_number(value));
    match operator {
        "" | "Equal" => value == tainted,
        "Exists" => true,
        "Gt" => numbers().is_some_and(|(tainted, bound)| tainted > bound),
        "Lt" => numbers().is_some_and(|(tainted, bound)| tainted < bound),
        _ => false,
    }
}

/// A decimal number without a plus sign or zeros in front.
fn whole_number(text: &str) -> Option<i64> {
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_match_as_in_kubernetes() {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        for (key, operator, value, effect, expected) in [
            ("gpu", "", "a", "", true),
            ("gpu", "Equal", "a", "NoSchedule", true),
            ("gpu", "Equal", "b", "", false),
            ("gpu", "Equal", "a", "NoExecute", false),
            ("gpu", "Exists", "", "", true),
            ("cpu", "Exists", "", "", false),
            ("", "Exists", "", "", true),
            ("gpu", "exists", "", "", false),
            ("gpu", "Gt", "0", "", false),
        ] {
            let toleration = Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                toleration_seconds: None,
            };
            let taint = Taint {
                key: "gpu".to_owned(),
                value: some("a"),
                effect: "NoSchedule".to_owned(),
                time_added: None,
            };
            assert_eq!(
                tolerates(&toleration, &taint),
                expected,
                "{key} {operator} {value} {effect}"
            );
        }
        for (operator, bound, tainted, expected) in [
            ("Gt", "5", "6", true),
            ("Gt", "5", "5", false),
            ("Lt", "5", "-3", true),
            ("Lt", "5", "06", false),
            ("Lt", "+5", "3", false),
            ("Gt", "1.5", "3", false),
        ] {
            let toleration = Toleration {
                key: some("sla"),
                operator: some(operator),
                value: some(bound),
                ..Toleration::default()
            };
            let taint = Taint {
                key: "sla".to_owned(),
                value: some(tainted),
                ..Taint::default()
            };
            assert_eq!(
                tolerates(&toleration, &taint),
                expected,
                "{operator} {bound} {tainted}"
            );
        }
    }

    #[test]
    fn a_toleration_covers_what_it_names() {
        // key, operator, value, effect; against a=b:NoSchedule
        for (key, operator, value, effect, covers) in [
            ("a", "Equal", "b", "NoSchedule", true),
            ("a", "", "b", "", true),
            ("a", "Equal", "c", "NoSchedule", false),
            ("a", "Equal", "b", "NoExecute", false),
            ("a", "Exists", "", "NoSchedule", true),
            ("c", "Exists", "", "", false),
            ("", "Exists", "", "", true),
            ("", "Equal", "b", "", false),
        ] {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let toleration = Toleration {
                key: some(key),
                operator: some(operator),
                value: some(value),
                effect: some(effect),
                ..Toleration::default()
            };
            let taint = Taint {
                key: "a".into(),
                value: Some("b".into()),
                effect: "NoSchedule".into(),
                ..Taint::default()
            };
            let told = format!("{key:?} {operator:?} {value:?} {effect:?}");
            assert_eq!(tolerates(&toleration, &taint), covers, "{told}");
        }
    }
}
