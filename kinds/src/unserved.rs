//! Kinds that are stored and that nothing here acts on: the sentence that whoever writes one is told.
//!
//! All in one place, so that what begins to be served is struck from one list.

/// Group, kind, and what does not happen.
const SENTENCES: &[(&str, &str, &str)] = &[
    (
        "storage.k8s.io",
        "VolumeAttachment",
        "nothing attaches the volume: volumes of this cluster are folders of its nodes",
    ),
    (
        "storage.k8s.io",
        "CSIDriver",
        "nodes of this cluster call no CSI drivers",
    ),
    (
        "storage.k8s.io",
        "CSINode",
        "nodes of this cluster call no CSI drivers",
    ),
    (
        "storage.k8s.io",
        "CSIStorageCapacity",
        "pods are not placed by the capacity of storage",
    ),
    (
        "storage.k8s.io",
        "VolumeAttributesClass",
        "nothing changes volumes by it: a folder of a node has no attributes",
    ),
    (
        "networking.k8s.io",
        "Ingress",
        "nothing routes by it: to be reached from outside, name the Service in an HTTPRoute to a Gateway",
    ),
    (
        "networking.k8s.io",
        "IngressClass",
        "no controller of this cluster serves Ingresses: use a GatewayClass",
    ),
    (
        "networking.k8s.io",
        "ServiceCIDR",
        "addresses of Services come from the range that the servers were started with alone",
    ),
    (
        "resource.k8s.io",
        "ResourceClaim",
        "nothing allocates devices in this cluster: it stays pending",
    ),
    (
        "resource.k8s.io",
        "ResourceClaimTemplate",
        "nothing makes claims from it: devices are not allocated in this cluster",
    ),
    (
        "resource.k8s.io",
        "DeviceClass",
        "devices are not allocated in this cluster",
    ),
    (
        "resource.k8s.io",
        "ResourceSlice",
        "devices are not allocated in this cluster",
    ),
    (
        "resource.k8s.io",
        "DeviceTaintRule",
        "devices are not allocated in this cluster",
    ),
    (
        "storagemigration.k8s.io",
        "StorageVersionMigration",
        "nothing stores objects anew by it: write them once more for that",
    ),
    (
        "scheduling.k8s.io",
        "PriorityClass",
        "no pod is pushed out for another yet: pods of it are placed before others, as with preemptionPolicy Never",
    ),
];

/// What whoever writes an object of this kind is told.
pub(crate) fn told_of(group: &str, kind: &str) -> Vec<String> {
    SENTENCES
        .iter()
        .filter(|(of, name, _)| *of == group && *name == kind)
        .map(|(_, name, sentence)| format!("{name}: {sentence}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;

    #[test]
    fn each_sentence_is_of_a_kind_that_is_served() {
        let registry = Registry::builtin();
        for (group, name, _) in SENTENCES {
            assert!(registry.by_group_kind(group, name).is_some(), "{name}");
            assert_eq!(told_of(group, name).len(), 1, "{name}");
        }
        assert_eq!(told_of("", "Pod"), [""; 0]);
    }
}
