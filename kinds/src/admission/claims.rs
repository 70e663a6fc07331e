//! What claims use of quotas: those of volumes by size and class, those of devices by number and class.
//!
//! Source: kubernetes `pkg/quota/v1/evaluator/core`, `persistent_volume_claims.go` and `resource_claims.go`. What extended resources stand
//! for by a class of devices is not counted: nothing allocates devices here.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_api::quantity::Quantity;

use super::amounts::{self, Amounts};
use crate::lens::{integer, items, text};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const DEVICES_SUFFIX: &str = ".deviceclass.resource.k8s.io/devices";
/// What a request for all devices of a class counts as: as many as one claim can be given.
const ALL_DEVICES: i64 = 32;

/// Whether a name in a quota is of claims of volumes.
pub(super) fn is_of_volumes(name: &str) -> bool {
    const SORTS: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
    let of_class = || {
        name.split_once(CLASS_SUFFIX)
            .is_some_and(|(_, sort)| SORTS.contains(&sort))
    };
    SORTS.contains(&name) || of_class()
}

/// Whether a name in a quota is of claims of devices.
pub(super) fn is_of_devices(name: &str) -> bool {
    name.ends_with(DEVICES_SUFFIX)
}

pub(super) fn of_volume(claim: &Value, used: &mut Amounts) {
    let one = Quantity::from_value(1);
    used.insert("persistentvolumeclaims".to_owned(), one);
    let annotated = text(
        claim,
        "/metadata/annotations/volume.beta.kubernetes.io~1storage-class",
    );
    let class = match annotated {
        "" => text(claim, "/spec/storageClassName"),
        class => class,
    };
    let of_class = |sort: &str| format!("{class}{CLASS_SUFFIX}{sort}");
    if !class.is_empty() {
        used.insert(of_class("persistentvolumeclaims"), one);
    }
    let asked = amounts::at(claim, "/spec/resources/requests");
    let Some(asked) = asked.get("storage") else {
        return;
    };
    // A volume that was made larger and is to be smaller again is as large as it is.
    let kept = amounts::at(claim, "/status/allocatedResources");
    let kept = kept.get("storage").filter(|kept| *kept > asked);
    let size = in_bytes(*kept.unwrap_or(asked));
    used.insert("requests.storage".to_owned(), size);
    if !class.is_empty() {
        used.insert(of_class("requests.storage"), size);
    }
}

/// A size as quotas take it, which is whole.
fn in_bytes(size: Quantity) -> Quantity {
    let whole = Quantity::from_value(size.value());
    if whole == size { size } else { whole }
}

/// The classes of attributes that a claim has, is to have, or had until it is changed.
pub(super) fn attribute_classes(claim: &Value) -> Vec<&str> {
    let classes = [
        "/spec/volumeAttributesClassName",
        "/status/currentVolumeAttributesClassName",
        "/status/modifyVolumeStatus/targetVolumeAttributesClassName",
    ];
    let classes = classes.iter().map(|pointer| text(claim, pointer));
    classes.filter(|class| !class.is_empty()).collect()
}

/// Whether a report about a claim changes what it counts as.
pub(super) fn is_recounted(new: &Value, old: &Value) -> bool {
    let kept = |claim: &Value| claim.pointer("/status/allocatedResources/storage").cloned();
    kept(new) != kept(old) || attribute_classes(new) != attribute_classes(old)
}

/// Of devices to choose among, a class counts as often as it may be chosen at most.
pub(super) fn of_devices(claim: &Value, used: &mut Amounts) {
    let number = |request: &Value| {
        let count = match text(request, "/allocationMode") {
            "ExactCount" => integer(request, "/count").unwrap_or(0),
            "All" => ALL_DEVICES,
            _ => 0,
        };
        let class = text(request, "/deviceClassName");
        (class.to_owned(), count)
    };
    let mut classes: BTreeMap<String, i64> = BTreeMap::new();
    for request in items(claim, "/spec/devices/requests") {
        let mut most: BTreeMap<String, i64> = BTreeMap::new();
        let choices = items(request, "/firstAvailable").iter();
        for (class, count) in choices.chain(request.get("exactly")).map(number) {
            let known = most.entry(class).or_default();
            *known = count.max(*known);
        }
        for (class, count) in most {
            let known = classes.entry(class).or_default();
            *known = known.saturating_add(count);
        }
    }
    let counted = classes.into_iter().map(|(class, count)| {
        (
            format!("{class}{DEVICES_SUFFIX}"),
            Quantity::from_value(count.into()),
        )
    });
    used.extend(counted);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(count: fn(&Value, &mut Amounts), claim: &Value) -> String {
        let mut used = Amounts::new();
        count(claim, &mut used);
        let used = used.iter().map(|(name, amount)| format!("{name}={amount}"));
        used.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_volume_counts_with_its_class_and_in_whole_bytes() {
        let claim = |class: &str, asked: &str, kept: &str| {
            json!({
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": asked}}},
                "status": {"allocatedResources": {"storage": kept}},
            })
        };
        for (claim, expected) in [
            (json!({}), "persistentvolumeclaims=1"),
            (
                claim("", "1Gi", "0"),
                "persistentvolumeclaims=1 requests.storage=1Gi",
            ),
            (
                claim("", "1Gi", "2Gi"),
                "persistentvolumeclaims=1 requests.storage=2Gi",
            ),
            (
                claim("gold", "100m", "0"),
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims=1 gold.storageclass.storage.k8s.io/requests.storage=1 \
                 persistentvolumeclaims=1 requests.storage=1",
            ),
        ] {
            assert_eq!(told(of_volume, &claim), expected);
        }
        for (name, is_counted) in [
            ("requests.storage", true),
            ("gold.storageclass.storage.k8s.io/requests.storage", true),
            ("gold.storageclass.storage.k8s.io/pods", false),
            ("requests.cpu", false),
        ] {
            assert_eq!(is_of_volumes(name), is_counted, "{name}");
        }
    }

    #[test]
    fn devices_count_as_many_as_there_may_be() {
        let some = |class: &str, count: i64| json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
        let all = json!({"deviceClassName": "b", "allocationMode": "All"});
        let claim = json!({"spec": {"devices": {"requests": [
            {"exactly": some("a", 2)},
            {"firstAvailable": [some("a", 3), some("a", 1), some("b", 1)]},
            {"exactly": all},
        ]}}});
        assert_eq!(
            told(of_devices, &claim),
            "a.deviceclass.resource.k8s.io/devices=5 b.deviceclass.resource.k8s.io/devices=33"
        );
    }
}
