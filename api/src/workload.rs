//! Which workload a pod belongs to, as metrics and peers name it.
//!
//! The owner says it exactly. Who knows a pod by its name only takes off what Deployment and ReplicaSet append, which is
//! right unless the name was cut to fit; where it is not, the endpoints say so
//! ([`ENDPOINT_WORKLOADS`](crate::annotation::ENDPOINT_WORKLOADS)).

/// The workload of a pod by its controller: the Deployment behind a ReplicaSet, else the controller itself.
///
/// `template_hash`: the pod's label of that name, which a Deployment appends to its sets' names.
pub fn of_owner<'a>(kind: &str, name: &'a str, template_hash: &str) -> &'a str {
    if kind != "ReplicaSet" || template_hash.is_empty() {
        return name;
    }
    let deployment = name.strip_suffix(template_hash);
    let deployment = deployment.and_then(|name| name.strip_suffix('-'));
    deployment.filter(|name| !name.is_empty()).unwrap_or(name)
}

/// The workload behind a pod's name: what is left without the two suffixes that Deployment and ReplicaSet append.
pub fn of_pod_name(pod: &str) -> &str {
    let suffix = |name: &str, lengths: std::ops::RangeInclusive<usize>| {
        let at = name.rfind('-')?;
        let tail = &name[at + 1..];
        (lengths.contains(&tail.len())
            && tail
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()))
        .then_some(at)
    };
    let Some(at) = suffix(pod, 5..=5) else {
        return pod;
    };
    let without = &pod[..at];
    match suffix(without, 8..=10) {
        Some(at) => &without[..at],
        None => without,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workloads_behind_pod_names() {
        for (pod, workload) in [
            ("web-7d4b9c6f5d-x2x8q", "web"),
            ("vote-bot-6c9f8b7d5-abcde", "vote-bot"),
            ("web-x2x8q", "web"),
            ("web-0", "web-0"),
            ("web", "web"),
        ] {
            assert_eq!(of_pod_name(pod), workload, "{pod}");
        }
    }

    #[test]
    fn workloads_behind_owners() {
        let long = "a".repeat(242);
        let set = format!("{long}-bcdfghjklm");
        for (kind, owner, hash, workload) in [
            ("ReplicaSet", "web-bcdfghjklm", "bcdfghjklm", "web"),
            ("ReplicaSet", set.as_str(), "bcdfghjklm", long.as_str()),
            ("ReplicaSet", "web", "", "web"),
            ("ReplicaSet", "web-1", "other", "web-1"),
            ("ReplicaSet", "-x", "x", "-x"),
            ("StatefulSet", "db", "x", "db"),
        ] {
            assert_eq!(of_owner(kind, owner, hash), workload, "{kind} {owner}");
        }
    }
}
