//! What a Pod and its containers say, read in place.
//!
//! Views borrow and copy like references. They hold the few rules that readers would else each have a version of: what stands
//! for a field that is absent, which containers there are and in which order. Pure.

use crate::config_error::ConfigError;
use crate::wanted::Role;
use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::borrow::Cow;
use std::net::IpAddr;
use weft_api::Quantity;

/// The port an HTTP component is served on when its container declares none.
pub const PORT_DEFAULT: u16 = 80;

/// A Pod, by what it says.
#[derive(Clone, Copy)]
pub struct PodView<'a>(pub &'a Pod);

impl<'a> PodView<'a> {
    /// The namespace; the API never binds a pod without one.
    pub fn namespace(self) -> &'a str {
        self.0.metadata.namespace.as_deref().unwrap_or("default")
    }

    pub fn name(self) -> &'a str {
        self.0.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn uid(self) -> &'a str {
        self.0.metadata.uid.as_deref().unwrap_or_default()
    }

    /// `name_namespace(uid)`, as the kubelet writes it.
    pub fn full_name(self) -> String {
        format!("{}_{}({})", self.name(), self.namespace(), self.uid())
    }

    /// The ServiceAccount the pod runs as.
    pub fn service_account(self) -> &'a str {
        self.spec()
            .and_then(|spec| spec.service_account_name.as_deref())
            .filter(|name| !name.is_empty())
            .unwrap_or("default")
    }

    pub fn label(self, key: &str) -> Option<&'a str> {
        Some(self.0.metadata.labels.as_ref()?.get(key)?)
    }

    pub fn annotation(self, key: &str) -> Option<&'a str> {
        Some(self.0.metadata.annotations.as_ref()?.get(key)?)
    }

    pub fn spec(self) -> Option<&'a PodSpec> {
        self.0.spec.as_ref()
    }

    pub fn is_deleted(self) -> bool {
        self.0.metadata.deletion_timestamp.is_some()
    }

    /// The address that was last reported for it.
    pub fn reported_ip(self) -> Option<IpAddr> {
        let status = self.0.status.as_ref()?;
        status.pod_ip.as_deref()?.parse().ok()
    }

    /// Every container, in the order of [`crate::wanted::Wanted::containers`], with its role.
    pub fn containers(self) -> Vec<(Cow<'a, Container>, Role)> {
        let Some(spec) = self.spec() else {
            return Vec::new();
        };
        let init = spec.init_containers.iter().flatten().map(|container| {
            let sidecar = container.restart_policy.as_deref() == Some("Always");
            let role = if sidecar { Role::Sidecar } else { Role::Init };
            (Cow::Borrowed(container), role)
        });
        let main = spec.containers.iter();
        let main = main.map(|container| (Cow::Borrowed(container), Role::Main));
        let ephemeral = spec.ephemeral_containers.iter().flatten();
        let ephemeral = ephemeral.map(|container| (Cow::Owned(plain(container)), Role::Ephemeral));
        init.chain(main).chain(ephemeral).collect()
    }

    /// The container whose context an ephemeral container of that name is to share.
    pub fn target_of(self, ephemeral: &str) -> Option<&'a Container> {
        let spec = self.spec()?;
        let mut all = spec.ephemeral_containers.iter().flatten();
        let found = all.find(|container| container.name == ephemeral)?;
        let target = found.target_container_name.as_deref()?;
        let init = spec.init_containers.iter().flatten();
        let mut others = spec.containers.iter().chain(init);
        others.find(|container| container.name == target)
    }

    /// The volumes that it names, mounted or not.
    pub fn volumes(self) -> impl Iterator<Item = &'a Volume> {
        let spec = self.spec().into_iter();
        spec.flat_map(|spec| spec.volumes.iter().flatten())
    }

    pub fn volume(self, name: &str) -> Option<&'a Volume> {
        self.volumes().find(|volume| volume.name == name)
    }
}

/// An ephemeral container as the container that it is, without what it may not have.
fn plain(container: &EphemeralContainer) -> Container {
    let container = container.clone();
    Container {
        args: container.args,
        command: container.command,
        env: container.env,
        env_from: container.env_from,
        image: container.image,
        image_pull_policy: container.image_pull_policy,
        name: container.name,
        security_context: container.security_context,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        termination_message_path: container.termination_message_path,
        termination_message_policy: container.termination_message_policy,
        tty: container.tty,
        volume_mounts: container.volume_mounts,
        working_dir: container.working_dir,
        ..Container::default()
    }
}

/// A container, by what it says.
#[derive(Clone, Copy)]
pub struct ContainerView<'a>(pub &'a Container);

impl<'a> ContainerView<'a> {
    /// The ports an HTTP component is served on: a component has one handler, and each TCP port of its container leads to it.
    /// The first is the one that probes and messages mean; never empty.
    ///
    /// # Errors
    /// [`ConfigError::Port`] outside 1 to 65535.
    pub fn ports(self) -> Result<Vec<u16>, ConfigError> {
        let mut ports = Vec::new();
        for port in self.0.ports.iter().flatten() {
            let number = u16::try_from(port.container_port).ok();
            let number = number.filter(|number| *number > 0);
            let number = number.ok_or(ConfigError::Port {
                port: port.container_port,
            })?;
            let is_tcp = port.protocol.as_deref().is_none_or(|name| name == "TCP");
            if is_tcp && !ports.contains(&number) {
                ports.push(number);
            }
        }
        if ports.is_empty() {
            ports.push(PORT_DEFAULT);
        }
        Ok(ports)
    }

    /// The number behind a probe's or Service's port, by number or by the name of one of the container's ports.
    pub fn port_number(self, port: &IntOrString) -> Option<u16> {
        match port {
            IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number > 0),
            IntOrString::String(name) => self
                .0
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name))
                .and_then(|port| u16::try_from(port.container_port).ok()),
        }
    }

    /// An amount of `resources.limits` or `resources.requests`.
    ///
    /// # Errors
    /// [`ConfigError::Quantity`] when it is none.
    pub fn resource(
        self,
        which: Resources,
        resource: &str,
    ) -> Result<Option<Quantity>, ConfigError> {
        let Some(resources) = &self.0.resources else {
            return Ok(None);
        };
        let (name, map) = match which {
            Resources::Limits => ("limits", &resources.limits),
            Resources::Requests => ("requests", &resources.requests),
        };
        let Some(text) = map.as_ref().and_then(|map| map.get(resource)) else {
            return Ok(None);
        };
        let amount = Quantity::parse(&text.0).map_err(|_| ConfigError::Quantity {
            field: format!("{name}.{resource}"),
            value: text.0.clone(),
        })?;
        Ok(Some(amount))
    }
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resources {
    Limits,
    Requests,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ports(ports: Value) -> Result<Vec<u16>, String> {
        let container = json!({"name": "web", "ports": ports});
        let container: Container = serde_json::from_value(container).expect("a container");
        let ports = ContainerView(&container).ports();
        ports.map_err(|error| error.to_string())
    }

    #[test]
    fn every_tcp_port_of_a_container_leads_to_its_component() {
        let port =
            |number: i32, protocol: &str| json!({"containerPort": number, "protocol": protocol});
        for (declared, served) in [
            (json!([]), vec![80]),
            (json!([{"containerPort": 9000}]), vec![9000]),
            (json!([port(80, "TCP"), port(9797, "TCP")]), vec![80, 9797]),
            (json!([port(9797, "TCP"), port(80, "TCP")]), vec![9797, 80]),
            (json!([port(53, "UDP"), port(8080, "TCP")]), vec![8080]),
            (json!([port(80, "TCP"), port(80, "UDP")]), vec![80]),
        ] {
            assert_eq!(ports(declared.clone()), Ok(served), "{declared}");
        }
        assert_eq!(
            ports(json!([port(70000, "TCP")])),
            Err("container port 70000 is not between 1 and 65535".into())
        );
    }
}
