//! As whom a container is to its files: `securityContext` as far as it is about users and groups. Pure.
//!
//! An image has no user: where nothing is said, a container is user 0, as most images are, and with `runAsNonRoot` it is
//! [`NOBODY`]. What that is worth stands in `weft_runtime::ownership`.
//!
//! Source: kubernetes `pkg/securitycontext`, `pkg/kubelet/kuberuntime/security_context.go`, 1.37.

use crate::config_error::ConfigError;
use crate::pod_view::PodView;
use k8s_openapi::api::core::v1::Container;
use weft_runtime::Identity;

/// Who has no name, on any Linux.
const NOBODY: u32 = 65534;

/// As whom `container` of `pod` works on its files.
///
/// # Errors
/// When it says that it is not root, and that it is.
pub(crate) fn of(pod: PodView<'_>, container: &Container) -> Result<Identity, ConfigError> {
    let of_pod = pod.spec().and_then(|spec| spec.security_context.as_ref());
    let own = container.security_context.as_ref();
    let user = own.and_then(|own| own.run_as_user);
    let user = user.or_else(|| of_pod?.run_as_user);
    let group = own.and_then(|own| own.run_as_group);
    let group = group.or_else(|| of_pod?.run_as_group);
    let not_root = own.and_then(|own| own.run_as_non_root);
    let not_root = not_root.or_else(|| of_pod?.run_as_non_root) == Some(true);
    if not_root && user == Some(0) {
        return Err(ConfigError::RunsAsRoot {
            pod: format!("{}_{}({})", pod.name(), pod.namespace(), pod.uid()),
            container: container.name.clone(),
        });
    }
    let number = |number: i64| u32::try_from(number).unwrap_or(NOBODY);
    let user = user.map(number).unwrap_or(match not_root {
        true => NOBODY,
        false => 0,
    });
    let more = of_pod.and_then(|of_pod| of_pod.supplemental_groups.as_ref());
    let more = more.into_iter().flatten().copied().map(number);
    Ok(Identity {
        user,
        // The group of a user that no image knows.
        group: group.map_or(0, number),
        groups: fs_group(pod).into_iter().chain(more).collect(),
    })
}

/// The group that a pod's volumes belong to.
pub(crate) fn fs_group(pod: PodView<'_>) -> Option<u32> {
    let context = pod.spec()?.security_context.as_ref()?;
    u32::try_from(context.fs_group?).ok()
}

/// The one user that all containers of a pod are, where they say so: whom its tokens belong to.
pub(crate) fn common(pod: PodView<'_>) -> Option<u32> {
    let of_pod = pod.spec().and_then(|spec| spec.security_context.as_ref());
    let of_pod = of_pod.and_then(|context| context.run_as_user);
    let mut found = None;
    for (container, _) in pod.containers() {
        let own = container.security_context.as_ref();
        let user = own.and_then(|own| own.run_as_user).or(of_pod)?;
        if found.is_some_and(|found| found != user) {
            return None;
        }
        found = Some(user);
    }
    u32::try_from(found?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    fn who(pod: Value, containers: &[Value]) -> (String, Option<u32>) {
        let containers: Vec<Value> = containers
            .iter()
            .map(|context| json!({"name": "c", "securityContext": context}))
            .collect();
        let pod = json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"securityContext": pod, "containers": containers},
        });
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let first = &pod.spec.as_ref().expect("a spec").containers[0];
        let who = match of(PodView(&pod), first) {
            Ok(who) => format!("{}:{} {:?}", who.user, who.group, who.groups),
            Err(error) => error.to_string(),
        };
        (who, common(PodView(&pod)))
    }

    #[test]
    fn a_container_is_whom_it_says_or_else_its_pod() {
        for (pod, containers, expected, common) in [
            (json!({}), vec![json!({})], "0:0 []", None),
            (
                json!({"runAsUser": 1001}),
                vec![json!({})],
                "1001:0 []",
                Some(1001),
            ),
            (
                json!({"runAsUser": 1001, "runAsGroup": 2002, "fsGroup": 5, "supplementalGroups": [7]}),
                vec![json!({"runAsUser": 1002})],
                "1002:2002 [5, 7]",
                Some(1002),
            ),
            (
                json!({"runAsUser": 1001}),
                vec![json!({}), json!({"runAsUser": 7})],
                "1001:0 []",
                None,
            ),
            (
                json!({"runAsNonRoot": true}),
                vec![json!({})],
                "65534:0 []",
                None,
            ),
            (
                json!({"runAsNonRoot": true}),
                vec![json!({"runAsUser": 0})],
                "container's runAsUser breaks non-root policy (pod: \"p_n(u)\", container: c)",
                Some(0),
            ),
        ] {
            assert_eq!(who(pod, &containers), (expected.to_owned(), common));
        }
    }
}
