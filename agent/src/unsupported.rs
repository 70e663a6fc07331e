//! What a Pod may ask for and a component cannot have.
//!
//! A field that is dropped in silence fails later and elsewhere, so it is refused here, by name, before an image is
//! fetched; the sentences, all of them at once, are the message of `CreateContainerConfigError`. Pure.
//!
//! Fields that say what a Linux process may ask of its kernel (seccomp, capabilities, `privileged`) pass: a component has no
//! kernel to ask, and gets nothing by them.

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
        "volume \"{volume}\" is mounted at {path}, and nodes mount only emptyDir, hostPath, persistentVolumeClaim, ephemeral, configMap, secret, downwardAPI, projected and image volumes into components"
    )]
    Volume { volume: String, path: String },
    #[error(
        "volume \"{volume}\": emptyDir.medium \"{medium}\" is not supported: a component's memory has no pages of another size; use Memory, or leave the field out"
    )]
    Medium { volume: String, medium: String },
}

/// All that cannot be kept, in one message: a chart that asks for five such things is not to be applied six times.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(". "))]
pub struct AllUnsupported(Vec<Unsupported>);

const NO_HOST: &str =
    "a component is no process of the node and never reaches it; leave the field out";

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

fn pod_fields(spec: &PodSpec) -> [Asked; 3] {
    let on = |field: Option<bool>| field == Some(true);
    let windows = spec.os.as_ref().is_some_and(|os| os.name == "windows");
    [
        (on(spec.host_pid), "hostPID", NO_HOST),
        (on(spec.host_ipc), "hostIPC", NO_HOST),
        (
            windows,
            "os.name: windows",
            "a component runs on any node; leave the field out",
        ),
    ]
}

fn container_fields(container: &Container) -> [Asked; 1] {
    let devices = container.volume_devices.as_ref();
    let has_any = devices.is_some_and(|all| !all.is_empty());
    [(has_any, "volumeDevices", NO_HOST)]
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
                let medium = source.medium.clone();
                let medium = medium.filter(|medium| !matches!(&**medium, "" | "Memory"));
                found.extend(medium.map(|medium| Unsupported::Medium { volume, medium }));
            }
            Some(
                Source::ConfigMap(_)
                | Source::Secret(_)
                | Source::DownwardApi(_)
                | Source::Projected(_)
                | Source::Claim(_)
                | Source::HostPath(_)
                | Source::Image,
            ) => {}
        }
        found.extend(refused(mount_fields(mount)));
    }
    found
}

fn mount_fields(mount: &VolumeMount) -> [Asked; 1] {
    let propagation = mount.mount_propagation.as_deref();
    [(
        propagation.is_some_and(|mode| mode != "None"),
        "volumeMounts.mountPropagation",
        NO_HOST,
    )]
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
        let pods = [json!({"hostPID": true}), json!({"os": {"name": "windows"}})];
        let volumes = [
            (json!({"nfs": {"server": "s", "path": "/"}}), json!({})),
            (json!({"emptyDir": {"medium": "HugePages"}}), json!({})),
            (
                json!({"emptyDir": {}}),
                json!({"mountPropagation": "Bidirectional"}),
            ),
        ];
        let containers = [
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
        hostPID is not supported: a component is no process of the node and never reaches it; leave the field out
        os.name: windows is not supported: a component runs on any node; leave the field out
        volumeDevices is not supported: a component is no process of the node and never reaches it; leave the field out
        volume "data" is mounted at /data, and nodes mount only emptyDir, hostPath, persistentVolumeClaim, ephemeral, configMap, secret, downwardAPI, projected and image volumes into components
        volume "data" is mounted at /data, and nodes mount only emptyDir, hostPath, persistentVolumeClaim, ephemeral, configMap, secret, downwardAPI, projected and image volumes into components
        volume "data": emptyDir.medium "HugePages" is not supported: a component's memory has no pages of another size; use Memory, or leave the field out
        volumeMounts.mountPropagation is not supported: a component is no process of the node and never reaches it; leave the field out
        "#);
    }

    #[test]
    fn all_that_a_chart_asks_for_in_vain_is_told_at_once() {
        let container = json!({
            "volumeDevices": [{"name": "disk", "devicePath": "/dev/sda"}],
            "volumeMounts": [{"name": "tls", "mountPath": "/tls"}, {"name": "data", "mountPath": "/data", "mountPropagation": "Bidirectional"}],
        });
        let pod = json!({"volumes": [{"name": "tls", "nfs": {"server": "s", "path": "/tls"}}, {"name": "data", "emptyDir": {}}]});
        let told = verdict(pod, container).expect_err("refused").to_string();
        insta::assert_snapshot!(told.replace(". ", "\n"), @r#"
        volumeDevices is not supported: a component is no process of the node and never reaches it; leave the field out
        volume "tls" is mounted at /tls, and nodes mount only emptyDir, hostPath, persistentVolumeClaim, ephemeral, configMap, secret, downwardAPI, projected and image volumes into components
        volumeMounts.mountPropagation is not supported: a component is no process of the node and never reaches it; leave the field out
        "#);
    }

    #[test]
    fn what_every_component_keeps_anyway_passes() {
        let pod = json!({
            "hostNetwork": true,
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["db"]}],
            "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["1.2.3.4"]},
            "securityContext": {"runAsNonRoot": true, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [
                {"name": "token", "projected": {"sources": []}},
                {"name": "unused", "hostPath": {"path": "/"}},
                {"name": "data", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "settings", "configMap": {"name": "settings", "defaultMode": 420}},
            ],
            "terminationGracePeriodSeconds": 5,
            "os": {"name": "linux"},
        });
        let container = json!({
                   "securityContext": {"runAsUser": 1000, "privileged": true, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}},
                   "lifecycle": {
                       "preStop": {"exec": {"command": ["sleep", "5"]}},
                       "postStart": {"httpGet": {"port": 80}},
                   },
                   "workingDir": "/srv",
                   "tty": true,
        "ports": [{"containerPort": 8080, "hostPort": 8080, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}],
                   "volumeMounts": [
                       {"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
                       {"name": "data", "mountPath": "/data", "readOnly": true, "subPath": "a", "mountPropagation": "None"},
                       {"name": "settings", "mountPath": "/settings"},
                   ],
               });
        assert_eq!(verdict(pod, container), Ok(()));
    }
}
