//! Labels of nodes that Kubernetes has other names for now, and what whoever selects by one of them is told.

/// The old names, with what to do about each.
const DEPRECATED: &[(&str, &str)] = &[
    (
        "beta.kubernetes.io/arch",
        "deprecated since v1.14; use \"kubernetes.io/arch\" instead",
    ),
    (
        "beta.kubernetes.io/os",
        "deprecated since v1.14; use \"kubernetes.io/os\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    (
        "node-role.kubernetes.io/master",
        "use \"node-role.kubernetes.io/control-plane\" instead",
    ),
];

/// What is told of a label, if it is one of the old ones.
pub(crate) fn deprecated(label: &str) -> Option<&'static str> {
    let found = DEPRECATED.iter().find(|(old, _)| *old == label);
    found.map(|(_, message)| *message)
}

/// The old names that have a new one of the same meaning.
const RENAMED: &[(&str, &str)] = &[
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
    ),
];

/// What a label is called now, if it is an old one.
pub(crate) fn renamed(label: &str) -> Option<&'static str> {
    let found = RENAMED.iter().find(|(old, _)| *old == label);
    found.map(|(_, new)| *new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_labels_have_a_message_and_some_a_new_name() {
        for (label, told, new) in [
            ("beta.kubernetes.io/os", true, Some("kubernetes.io/os")),
            (
                "failure-domain.beta.kubernetes.io/zone",
                true,
                Some("topology.kubernetes.io/zone"),
            ),
            ("app.kubernetes.io/created-by", true, None),
            ("node-role.kubernetes.io/master", true, None),
            ("kubernetes.io/os", false, None),
        ] {
            assert_eq!(
                (deprecated(label).is_some(), renamed(label)),
                (told, new),
                "{label}"
            );
        }
    }
}
