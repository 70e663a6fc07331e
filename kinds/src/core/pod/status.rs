//! The status of a pod, as its node reports it: what a report leaves as it was, what follows from it, and what it may say.

use serde_json::{Value, json};
use weft_api::name;

use crate::address::address_faults;
use crate::field::Field;
use crate::lens::{integer, items, items_mut, put, text};
use crate::validate::Problems;

/// A report with what it does not know of, and its addresses in both spellings.
pub(super) fn complete(status: &mut Value, old: &Value) {
    keep(status, old);
    let one = text(status, "/podIP").to_owned();
    let first = text(status, "/podIPs/0/ip");
    if !one.is_empty() && one != first {
        // Who knows the older field alone has not read the list.
        put(status, "podIPs", Some(json!([{ "ip": one }])));
    } else if !first.is_empty() {
        let first = first.into();
        put(status, "podIP", Some(first));
    }
}

/// What a report that does not know of it leaves as it is: what follows from the spec, which generation was seen, and claims of devices.
fn keep(status: &mut Value, old: &Value) {
    const GENERATION: &str = "observedGeneration";
    if text(status, "/qosClass").is_empty() {
        put(status, "qosClass", old.get("qosClass").cloned());
    }
    for field in [
        "resourceClaimStatuses",
        "extendedResourceClaimStatus",
        "nodeAllocatableResourceClaimStatuses",
    ] {
        if status.get(field).is_none_or(Value::is_null) {
            put(status, field, old.get(field).cloned());
        }
    }
    let unseen = |value: &Value| integer(value, "/observedGeneration").unwrap_or(0) == 0;
    if unseen(status) {
        put(status, GENERATION, old.get(GENERATION).cloned());
    }
    // There may be several of a type: each takes from the next one of before.
    let mut before: Vec<&Value> = items(old, "/conditions").iter().collect();
    for condition in items_mut(status, "/conditions") {
        let place = before
            .iter()
            .position(|one| one["type"] == condition["type"]);
        let seen = place.and_then(|place| before.remove(place).get(GENERATION).cloned());
        if unseen(condition) {
            put(condition, GENERATION, seen);
        }
    }
}

/// Judges a report.
pub(super) fn judge(root: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    for condition in root.items("status.conditions") {
        let kind = condition.child("type");
        for fault in name::qualified_name_faults(kind.text()) {
            let path = format!("{condition}.Type");
            problems.invalid_at(&path, kind.text(), &fault);
        }
    }
    let class = root.child("status.qosClass");
    problems.immutable(&class, &before.child("status.qosClass"));
    addresses(root, before, problems);
}

/// Addresses that are new have to be addresses.
fn addresses(root: &Field<'_, '_>, before: &Field<'_, '_>, problems: &mut Problems) {
    let kept = before.child("status.podIPs");
    let kept = |address: &str| kept.list().iter().any(|one| text(one, "/ip") == address);
    for one in root.items("status.podIPs") {
        let address = one.child("ip").text();
        if kept(address) {
            continue;
        }
        for fault in address_faults(address) {
            problems.invalid(&one, address, &fault);
        }
    }
    let all = root.child("status.podIPs");
    let one = root.child("status.podIP").text();
    if one.is_empty() == all.list().is_empty() {
        return;
    }
    let shown: Vec<Value> = all
        .list()
        .iter()
        .map(|one| json!({ "IP": text(one, "/ip") }))
        .collect();
    let sentence = "podIP and podIPs must either both be set or both be unset";
    problems.invalid(&all, shown, sentence);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_both_spellings() {
        for (said, expected) in [
            (
                json!({"podIP": "10.1.0.1"}),
                json!({"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}),
            ),
            (
                json!({"podIPs": [{"ip": "10.1.0.2"}]}),
                json!({"podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}]}),
            ),
            (
                json!({"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::1"}]}),
                json!({"podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}]}),
            ),
            (json!({}), json!({})),
        ] {
            let mut status = said.clone();
            complete(&mut status, &json!({}));
            assert_eq!(status, expected, "{said}");
        }
    }

    #[test]
    fn only_new_addresses_are_judged() {
        let pod = |address: &str| json!({"status": {"podIP": address, "podIPs": [{"ip": address}], "conditions": [{"type": "a b"}]}});
        for (new, expected) in [
            ("10.1.0.1", 1),
            // It was there.
            ("10.1.0.x", 1),
            ("10.1.0.y", 2),
        ] {
            let (new, old) = (pod(new), pod("10.1.0.x"));
            let mut problems = Problems::default();
            judge(&Field::root(&new), &Field::root(&old), &mut problems);
            assert_eq!(problems.count(), expected, "{new}");
        }
    }
}
