//! What a Pod may ask for and a component cannot have.
//!
//! A field that is dropped in silence fails later and elsewhere, so it is refused here, by name, before an image is
//! fetched; the sentences, all of them at once, are the message of `CreateContainerConfigError`. Pure.
//!
//! Fields that only narrow what a Linux process may do (users, seccomp, dropped capabilities, a read-only root) pass:
//! every component is held tighter than that.

use crate::pod_view::PodView;
use crate::volumes::{self, Source};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, VolumeMount};

/// One field that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unsupported {
    #[error("{field} is not supported: {why}")]
    Field {
        field: &'static str,
        why: &'static str,
    },
    #[error(
        "volume \"{volume}\" is mounted at {path}, and nodes mount only emptyDir, configMap, secret, downwardAPI and projected volumes into components"
    )]
    Volume { volume: String, path: String },
    #[error(
        "volume \"{volume}\": emptyDir.medium \"{medium}\" is not supported: a node keeps volumes on its disk; leave the field out"
    )]
    Medium { volume: String, medium: String },
    #[error(
        "volume \"{volume}\": projected.sources.{source_kind} is not supported: a component never sees credentials, the mesh proves who it is; leave the source out"
    )]
    Projection {
        volume: String,
        source_kind: &'static str,
    },
}

/// All that cannot be kept, in one message: a chart that asks for five such things is not to be applied six times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(". "))]
pub struct AllUnsupported(Vec<Unsupported>);

const NO_HOST: &str =
    "a component is no process of the node and never reaches it; leave the field out";
const WHOLE: &str = "a component gets its volumes whole; mount the volume and use the folder in it";
const MESH_NAMES: &str = "the mesh resolves the names that components call; use a Service";

/// Whether `container` of `pod` can be what it asks to be.
///
/// # Errors
/// Every field that cannot be kept.
pub fn check(pod: &Pod, container: &Container) -> Result<(), AllUnsupported> {
    let fields = pod.spec.iter().flat_map(pod_fields);
    let mut found: Vec<Unsupported> = refused(fields.chain(container_fields(container))).collect();
    found.extend(volumes(pod, container));
    if found.is_empty() {
        return Ok(());
    }
    Err(AllUnsupported(found))
}

fn refused(asked: impl IntoIterator<Item = Asked>) -> impl Iterator<Item = Unsupported> {
    let refused = asked.into_iter().filter(|(asks, ..)| *asks);
    refused.map(|(_, field, why)| Unsupported::Field { field, why })
}

type Asked = (bool, &'static str, &'static str);

fn pod_fields(spec: &PodSpec) -> [Asked; 5] {
    let on = |field: Option<bool>| field == Some(true);
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    [
        (
            on(spec.host_network),
            "hostNetwork",
            "a component has no socket of the node; it is reached through Services and the gateway",
        ),
        (on(spec.host_pid), "hostPID", NO_HOST),
        (on(spec.host_ipc), "hostIPC", NO_HOST),
        (spec.dns_config.is_some(), "dnsConfig", MESH_NAMES),
        (
            windows,
            "os.name: windows",
            "a component runs on any node; leave the field out",
        ),
    ]
}

fn container_fields(container: &Container) -> [Asked; 3] {
    let ports = container.ports.as_deref().unwrap_or_default();
    let security = container.security_context.as_ref();
    let on = |field: Option<bool>| field == Some(true);
    [
        (
            security.is_some_and(|context| on(context.privileged)),
            "securityContext.privileged",
            NO_HOST,
        ),
        (
            ports
                .iter()
                .any(|port| port.host_port.is_some_and(|port| port != 0)),
            "ports.hostPort",
            "a component has no socket of the node; it is reached through Services and the gateway",
        ),
        (
            container
                .volume_devices
                .as_ref()
                .is_some_and(|all| !all.is_empty()),
            "volumeDevices",
            NO_HOST,
        ),
    ]
}

fn volumes(pod: &Pod, container: &Container) -> Vec<Unsupported> {
    let pod = PodView(pod);
    let mut found = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        if volumes::is_automatic(pod, mount) {
            continue;
        }
        let volume = mount.name.clone();
        match pod.volume(&mount.name).and_then(volumes::source) {
            None => {
                let path = mount.mount_path.clone();
                found.push(Unsupported::Volume { volume, path });
                continue;
            }
            Some(Source::EmptyDir(source)) => {
                let medium = source.medium.clone().filter(|medium| !medium.is_empty());
                found.extend(medium.map(|medium| Unsupported::Medium { volume, medium }));
            }
            Some(Source::Projected(source)) => {
                let refused = volumes::refused_projection(source);
                found.extend(refused.map(|source_kind| Unsupported::Projection {
                    volume,
                    source_kind,
                }));
            }
            Some(Source::ConfigMap(_) | Source::Secret(_) | Source::DownwardApi(_)) => {}
        }
        found.extend(refused(mount_fields(mount)));
    }
    found
}

fn mount_fields(mount: &VolumeMount) -> [Asked; 3] {
    let given = |field: &Option<String>| field.as_ref().is_some_and(|text| !text.is_empty());
    let propagation = mount.mount_propagation.as_deref();
    [
        (given(&mount.sub_path), "volumeMounts.subPath", WHOLE),
        (
            given(&mount.sub_path_expr),
            "volumeMounts.subPathExpr",
            WHOLE,
        ),
        (
            propagation.is_some_and(|mode| mode != "None"),
            "volumeMounts.mountPropagation",
            NO_HOST,
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn verdict(pod: Value, container: Value) -> Result<(), AllUnsupported> {
        let with = |mut base: Value, more: Value| {
            if let (Some(base), Value::Object(more)) = (base.as_object_mut(), more) {
                base.extend(more);
            }
            base
        };
        let container = with(json!({"name": "web"}), container);
        let spec = with(json!({"containers": [container]}), pod);
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec}))
            .expect("a pod");
        let only = &pod.spec.as_ref().expect("a spec").containers[0];
        check(&pod, only)
    }

    #[test]
    fn what_a_component_cannot_have_is_refused_by_name() {
        let pods = [
            json!({"hostNetwork": true}),
            json!({"hostPID": true}),
            json!({"dnsConfig": {"nameservers": ["1.2.3.4"]}}),
            json!({"os": {"name": "windows"}}),
        ];
        let volumes = [
            (json!({"hostPath": {"path": "/"}}), json!({})),
            (
                json!({"persistentVolumeClaim": {"claimName": "disk"}}),
                json!({}),
            ),
            (
                json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "ca"}}]}}),
                json!({}),
            ),
            (json!({"emptyDir": {"medium": "Memory"}}), json!({})),
            (json!({"emptyDir": {}}), json!({"subPath": "a"})),
            (json!({"emptyDir": {}}), json!({"subPathExpr": "$(POD)"})),
            (
                json!({"emptyDir": {}}),
                json!({"mountPropagation": "Bidirectional"}),
            ),
        ];
        let containers = [
            json!({"securityContext": {"privileged": true}}),
            json!({"ports": [{"containerPort": 80, "hostPort": 80}]}),
            json!({"volumeDevices": [{"name": "disk", "devicePath": "/dev/sda"}]}),
            json!({"volumeMounts": [{"name": "data", "mountPath": "/data"}]}),
        ];
        let volumes = volumes.into_iter().map(|(mut volume, mut mount)| {
            volume["name"] = json!("data");
            (mount["name"], mount["mountPath"]) = (json!("data"), json!("/data"));
            verdict(
                json!({"volumes": [volume]}),
                json!({"volumeMounts": [mount]}),
            )
        });
        let pods = pods.into_iter().map(|pod| verdict(pod, json!({})));
        let containers = containers
            .into_iter()
            .map(|container| verdict(json!({}), container));
        let text: Vec<String> = pods
            .chain(containers)
            .chain(volumes)
            .map(|verdict| verdict.expect_err("refused").to_string())
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        hostNetwork is not supported: a component has no socket of the node; it is reached through Services and the gateway
        hostPID is not supported: a component is no process of the node and never reaches it; leave the field out
        dnsConfig is not supported: the mesh resolves the names that components call; use a Service
        os.name: windows is not supported: a component runs on any node; leave the field out
        securityContext.privileged is not supported: a component is no process of the node and never reaches it; leave the field out
        ports.hostPort is not supported: a component has no socket of the node; it is reached through Services and the gateway
        volumeDevices is not supported: a component is no process of the node and never reaches it; leave the field out
        volume "data" is mounted at /data, and nodes mount only emptyDir, configMap, secret, downwardAPI and projected volumes into components
        volume "data" is mounted at /data, and nodes mount only emptyDir, configMap, secret, downwardAPI and projected volumes into components
        volume "data" is mounted at /data, and nodes mount only emptyDir, configMap, secret, downwardAPI and projected volumes into components
        volume "data": projected.sources.clusterTrustBundle is not supported: a component never sees credentials, the mesh proves who it is; leave the source out
        volume "data": emptyDir.medium "Memory" is not supported: a node keeps volumes on its disk; leave the field out
        volumeMounts.subPath is not supported: a component gets its volumes whole; mount the volume and use the folder in it
        volumeMounts.subPathExpr is not supported: a component gets its volumes whole; mount the volume and use the folder in it
        volumeMounts.mountPropagation is not supported: a component is no process of the node and never reaches it; leave the field out
        "#);
    }

    #[test]
    fn all_that_a_chart_asks_for_in_vain_is_told_at_once() {
        let container = json!({
            "ports": [{"containerPort": 80, "hostPort": 80}],
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "data", "mountPath": "/data", "subPath": "a"}],
        });
        let pod = json!({"volumes": [{"name": "tls", "hostPath": {"path": "/tls"}}, {"name": "data", "emptyDir": {}}]});
        let told = verdict(pod, container).expect_err("refused").to_string();
        insta::assert_snapshot!(told.replace(". ", "\n"), @r#"
        ports.hostPort is not supported: a component has no socket of the node; it is reached through Services and the gateway
        volume "tls" is mounted at /tls, and nodes mount only emptyDir, configMap, secret, downwardAPI and projected volumes into components
        volumeMounts.subPath is not supported: a component gets its volumes whole; mount the volume and use the folder in it
        "#);
    }

    #[test]
    fn what_every_component_keeps_anyway_passes() {
        let pod = json!({
            "hostNetwork": false,
            "securityContext": {"runAsNonRoot": true, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"name": "token", "projected": {"sources": []}},
                {"name": "unused", "hostPath": {"path": "/"}},
                {"name": "data", "emptyDir": {"medium": "", "sizeLimit": "1Mi"}},
                {"name": "settings", "configMap": {"name": "settings", "defaultMode": 420}},
            ],
            "terminationGracePeriodSeconds": 5,
            "os": {"name": "linux"},
        });
        let container = json!({
            "securityContext": {"runAsUser": 1000, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
            "lifecycle": {
                "preStop": {"exec": {"command": ["sleep", "5"]}},
                "postStart": {"httpGet": {"port": 80}},
            },
            "workingDir": "/srv",
            "tty": true,
            "ports": [{"containerPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
            "volumeMounts": [
                {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                {"name": "data", "mountPath": "/data", "readOnly": true, "mountPropagation": "None"},
                {"name": "settings", "mountPath": "/settings"},
            ],
        });
        assert_eq!(verdict(pod, container), Ok(()));
    }
}
