//! From a container of a Pod to what the runtime is asked to host.
//!
//! [`container`] takes the Pod, its container, the ConfigMaps and Secrets it names, the Services of its namespace and the facts
//! of this node, and answers with a [`WorkloadSpec`] or with the sentence that `CreateContainerConfigError` shows.
//! Pure: equal input, equal specification.
//!
//! Left to others: the environment (`environment`), fields that no component can have (`unsupported`), fetching
//! (`prepare`), limits the engine itself imposes (`weft_runtime`).

use crate::environment::{Configuration, Context, ENVIRONMENT_BYTES_MAX};
use crate::volumes::{self, Mount};
use crate::wanted::Role;
use k8s_openapi::api::core::v1::{Container, Pod, Service};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::net::IpAddr;
use std::time::Duration;
use weft_api::{Quantity, annotation};

/// Memory a container may use when it sets no limit: enough for any sane component, far from a node's.
pub const MEMORY_BYTES_DEFAULT: u64 = 256 << 20;
/// Smallest memory limit that can be kept: one 64 KiB page of linear memory and the tables beside it.
pub const MEMORY_BYTES_MIN: u64 = 1 << 20;
/// Wall-clock limit of one request when the pod sets none.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The largest body of a request or a response when the pod sets none. It only ends what never would: nothing is held for it.
pub const BODY_BYTES_DEFAULT: u64 = 64 << 30;
/// The port an HTTP component is served on when its container declares none.
pub const PORT_DEFAULT: u16 = 80;

/// How instances of a component are reused, as the annotations ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// What the component's world has as default.
    Default,
    PerRequest,
    Pooled {
        max_requests: u32,
        max_concurrent: u32,
    },
}

/// Which world to use of a component that exports both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Http,
    Command,
}

/// What the runtime is asked to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkloadSpec {
    /// `namespace/pod/container`, for logs and metrics.
    pub name: String,
    pub env: Vec<(String, String)>,
    /// `argv`, program name first.
    pub args: Vec<String>,
    pub memory_bytes: u64,
    pub cpu_millis: Option<u32>,
    /// What it requests of the node's CPU; its limit if it says nothing.
    pub cpu_reserved_millis: u32,
    pub request_timeout: Duration,
    /// The largest body of a request or a response.
    pub body_bytes: u64,
    /// Its volumes, in the container's order.
    pub mounts: Vec<Mount>,
    pub isolation: Isolation,
    /// `None`: HTTP if the component exports it.
    pub world: Option<World>,
    pub port: u16,
}

/// What this node adds to a translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub host_ip: IpAddr,
    pub allocatable_cpu_millis: u64,
    pub allocatable_memory_bytes: u64,
}

/// Why a container cannot be configured, as one sentence for its status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    MissingKey {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error(
        "key {key} in {kind} {namespace}/{name} is not UTF-8 text, so it cannot be an environment variable"
    )]
    NotText {
        kind: &'static str,
        namespace: String,
        name: String,
        key: String,
    },
    #[error("environment variable {variable}: unsupported fieldPath \"{path}\"")]
    FieldPath { variable: String, path: String },
    #[error("environment variable {variable}: unsupported resource \"{resource}\"")]
    Resource { variable: String, resource: String },
    #[error("environment variable {variable}: {what} is not supported by this node")]
    Source {
        variable: String,
        what: &'static str,
    },
    #[error("{field}: \"{value}\" is not a quantity")]
    Quantity { field: String, value: String },
    #[error(
        "the memory limit {bytes} is below the smallest a component can run in, {MEMORY_BYTES_MIN}"
    )]
    MemoryTooSmall { bytes: u64 },
    #[error("annotation {name}: \"{value}\" {why}")]
    Annotation {
        name: &'static str,
        value: String,
        why: &'static str,
    },
    #[error(
        "the variables and arguments have more than {ENVIRONMENT_BYTES_MAX} bytes, with what they refer to"
    )]
    EnvironmentTooLarge,
    #[error("container port {port} is not between 1 and 65535")]
    Port { port: i32 },
}

/// Translates one container.
///
/// `services` are those whose variables the container sees: its namespace's, and `default/kubernetes`.
///
/// # Errors
/// [`ConfigError`], the message of `CreateContainerConfigError`.
pub fn container(
    pod: &Pod,
    container: &Container,
    pod_ip: IpAddr,
    configuration: &Configuration,
    services: &[Service],
    node: &NodeFacts,
) -> Result<WorkloadSpec, ConfigError> {
    let context = Context {
        pod,
        container,
        pod_ip,
        configuration,
        node,
    };
    let mut env = context.environment(services)?;
    let mut args = env.arguments(container.command.as_ref())?;
    if args.is_empty() {
        args.push(container.name.clone());
    }
    args.extend(env.arguments(container.args.as_ref())?);

    let memory =
        limit(container, "memory")?.map(|quantity| u64::try_from(quantity.value()).unwrap_or(0));
    let memory_bytes = memory.unwrap_or(memory_bytes_default(node));
    if memory_bytes < MEMORY_BYTES_MIN {
        return Err(ConfigError::MemoryTooSmall {
            bytes: memory_bytes,
        });
    }
    let millis = |quantity: Quantity| u32::try_from(quantity.milli()).unwrap_or(u32::MAX);
    let cpu_millis = limit(container, "cpu")?.map(|quantity| millis(quantity).max(1));
    let cpu_reserved_millis = quantity(container, "requests", "cpu")?
        .map(millis)
        .or(cpu_millis)
        .unwrap_or(0);
    Ok(WorkloadSpec {
        name: format!("{}/{}/{}", namespace(pod), pod_name(pod), container.name),
        args,
        memory_bytes,
        cpu_millis,
        cpu_reserved_millis,
        request_timeout: request_timeout(pod)?,
        body_bytes: body_bytes(pod)?,
        mounts: volumes::mounts(pod, container)?,
        isolation: isolation(pod)?,
        world: world(pod)?,
        port: port(container)?,
        env: env.into_variables(),
    })
}

/// What a container without a limit is held to on `node`.
pub(crate) fn memory_bytes_default(node: &NodeFacts) -> u64 {
    MEMORY_BYTES_DEFAULT.min(node.allocatable_memory_bytes.max(MEMORY_BYTES_MIN))
}

/// The port an HTTP component of `container` is served on.
///
/// # Errors
/// [`ConfigError::Port`] outside 1 to 65535.
pub fn port(container: &Container) -> Result<u16, ConfigError> {
    match container.ports.iter().flatten().next() {
        None => Ok(PORT_DEFAULT),
        Some(port) => u16::try_from(port.container_port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or(ConfigError::Port {
                port: port.container_port,
            }),
    }
}

/// The number behind a probe's or service's port, by number or by the name of one of the container's ports.
pub fn port_number(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok().filter(|number| *number > 0),
        IntOrString::String(name) => container
            .ports
            .iter()
            .flatten()
            .find(|port| port.name.as_deref() == Some(name))
            .and_then(|port| u16::try_from(port.container_port).ok()),
    }
}

/// Every container of the pod in the order of [`crate::wanted::Wanted::containers`], with its role.
pub fn containers(pod: &Pod) -> Vec<(&Container, Role)> {
    let Some(spec) = &pod.spec else {
        return Vec::new();
    };
    let init = spec.init_containers.iter().flatten().map(|container| {
        let sidecar = container.restart_policy.as_deref() == Some("Always");
        (container, if sidecar { Role::Sidecar } else { Role::Init })
    });
    init.chain(
        spec.containers
            .iter()
            .map(|container| (container, Role::Main)),
    )
    .collect()
}

/// The pod's namespace; the API never binds a pod without one.
pub fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or("default")
}

/// The pod's name.
pub fn pod_name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The pod's uid.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// The ServiceAccount the pod runs as.
pub fn service_account(pod: &Pod) -> &str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.as_deref())
        .filter(|name| !name.is_empty())
        .unwrap_or("default")
}

pub(crate) fn pod_annotation<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    pod.metadata
        .annotations
        .as_ref()?
        .get(name)
        .map(String::as_str)
}

fn body_bytes(pod: &Pod) -> Result<u64, ConfigError> {
    let Some(text) = pod_annotation(pod, annotation::MAX_BODY_SIZE) else {
        return Ok(BODY_BYTES_DEFAULT);
    };
    let bytes = Quantity::parse(text).ok().map(Quantity::value);
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes > 0)
        .ok_or(ConfigError::Annotation {
            name: annotation::MAX_BODY_SIZE,
            value: text.into(),
            why: "is not a size such as 10Mi or 2Gi",
        })
}

fn request_timeout(pod: &Pod) -> Result<Duration, ConfigError> {
    match pod_annotation(pod, annotation::REQUEST_TIMEOUT) {
        None => Ok(REQUEST_TIMEOUT_DEFAULT),
        Some(text) => weft_api::time::parse_duration(text)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .ok_or(ConfigError::Annotation {
                name: annotation::REQUEST_TIMEOUT,
                value: text.into(),
                why: "is not a duration such as 500ms, 30s or 2m",
            }),
    }
}

fn isolation(pod: &Pod) -> Result<Isolation, ConfigError> {
    let number = |name: &'static str, most: u32, why: &'static str| match pod_annotation(pod, name)
    {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
            _ => Err(ConfigError::Annotation {
                name,
                value: text.into(),
                why,
            }),
        },
    };
    let max_requests = number(
        annotation::MAX_REQUESTS_PER_INSTANCE,
        1_000_000,
        "is not a number from 1 to 1000000",
    )?;
    let max_concurrent = number(
        annotation::MAX_CONCURRENT_REQUESTS,
        1_000,
        "is not a number from 1 to 1000",
    )?;
    match pod_annotation(pod, annotation::ISOLATION) {
        Some("per-request") => Ok(Isolation::PerRequest),
        // 128 requests an instance and 16 at once: the defaults of WASI 0.3 in the design.
        Some("pooled") => Ok(Isolation::Pooled {
            max_requests: max_requests.unwrap_or(128),
            max_concurrent: max_concurrent.unwrap_or(16),
        }),
        None if max_requests.is_some() || max_concurrent.is_some() => Ok(Isolation::Pooled {
            max_requests: max_requests.unwrap_or(128),
            max_concurrent: max_concurrent.unwrap_or(16),
        }),
        None => Ok(Isolation::Default),
        Some(other) => Err(ConfigError::Annotation {
            name: annotation::ISOLATION,
            value: other.into(),
            why: "is neither \"per-request\" nor \"pooled\"",
        }),
    }
}

fn world(pod: &Pod) -> Result<Option<World>, ConfigError> {
    match pod_annotation(pod, annotation::WORLD) {
        None => Ok(None),
        Some("http") => Ok(Some(World::Http)),
        Some("command") => Ok(Some(World::Command)),
        Some(other) => Err(ConfigError::Annotation {
            name: annotation::WORLD,
            value: other.into(),
            why: "is neither \"http\" nor \"command\"",
        }),
    }
}

fn limit(container: &Container, resource: &str) -> Result<Option<Quantity>, ConfigError> {
    quantity(container, "limits", resource)
}

pub(crate) fn quantity(
    container: &Container,
    which: &'static str,
    resource: &str,
) -> Result<Option<Quantity>, ConfigError> {
    let Some(resources) = &container.resources else {
        return Ok(None);
    };
    let map = if which == "limits" {
        &resources.limits
    } else {
        &resources.requests
    };
    let Some(text) = map.as_ref().and_then(|map| map.get(resource)) else {
        return Ok(None);
    };
    let bad = || ConfigError::Quantity {
        field: format!("{which}.{resource}"),
        value: text.0.clone(),
    };
    Quantity::parse(&text.0).map(Some).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn node() -> NodeFacts {
        NodeFacts {
            name: "node-0".into(),
            host_ip: "127.0.0.1".parse().expect("an address"),
            allocatable_cpu_millis: 2000,
            allocatable_memory_bytes: 4 << 30,
        }
    }

    fn pod(annotations: serde_json::Value, container: serde_json::Value) -> Pod {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "vote", "uid": "u-1", "labels": {"app": "web"}, "annotations": annotations},
            "spec": {"serviceAccountName": "web", "nodeName": "node-0", "containers": [container]},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn configuration() -> Configuration {
        let map = serde_json::from_value(
            json!({"metadata": {"name": "settings"}, "data": {"COLOUR": "blue", "SIZE": "9"}}),
        )
        .expect("a map");
        let secret = serde_json::from_value(
            json!({"metadata": {"name": "keys"}, "data": {"token": "c2VzYW1l", "raw": "/w=="}}),
        )
        .expect("a secret");
        Configuration {
            config_maps: BTreeMap::from([("settings".to_owned(), map)]),
            secrets: BTreeMap::from([("keys".to_owned(), secret)]),
        }
    }

    fn translate(
        annotations: serde_json::Value,
        spec: serde_json::Value,
        services: &[Service],
    ) -> Result<WorkloadSpec, ConfigError> {
        let pod = pod(annotations, spec);
        let only = &pod.spec.as_ref().expect("a spec").containers[0];
        container(
            &pod,
            only,
            "10.42.0.7".parse().expect("an address"),
            &configuration(),
            services,
            &node(),
        )
    }

    #[test]
    fn every_source_of_the_environment_in_its_order() {
        let service = serde_json::from_value(json!({
            "metadata": {"name": "voting-svc", "namespace": "vote"},
            "spec": {"clusterIP": "10.43.0.9", "ports": [{"name": "http", "port": 80}]},
        }))
        .expect("a service");
        let spec = json!({
            "name": "web", "image": "vote/web:1",
            "command": ["serve", "$(COLOUR)"], "args": ["$(VOTING_SVC_SERVICE_HOST)", "$$(COLOUR)", "$(NOPE)"],
            "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}, "requests": {"cpu": "100m"}},
            "envFrom": [{"prefix": "CFG_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "COLOUR"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "GREETING", "value": "$(COLOUR)-$(CFG_SIZE) $$5 $x"},
                {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "no", "optional": true}}},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                {"name": "CPU_MILLIS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
                {"name": "MEMORY_MIB", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            ],
        });
        let spec = translate(json!({}), spec, &[service]).expect("translates");
        let mut text: Vec<String> = spec
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        text.push(format!("args {:?}", spec.args));
        text.push(format!(
            "{} bytes, {:?} millis, {} reserved, port {}",
            spec.memory_bytes, spec.cpu_millis, spec.cpu_reserved_millis, spec.port
        ));
        insta::assert_snapshot!(text.join("\n"), @r#"
        VOTING_SVC_SERVICE_HOST=10.43.0.9
        VOTING_SVC_SERVICE_PORT=80
        VOTING_SVC_SERVICE_PORT_HTTP=80
        VOTING_SVC_PORT=tcp://10.43.0.9:80
        VOTING_SVC_PORT_80_TCP=tcp://10.43.0.9:80
        VOTING_SVC_PORT_80_TCP_PROTO=tcp
        VOTING_SVC_PORT_80_TCP_PORT=80
        VOTING_SVC_PORT_80_TCP_ADDR=10.43.0.9
        CFG_COLOUR=blue
        CFG_SIZE=9
        COLOUR=blue
        TOKEN=sesame
        GREETING=blue-9 $5 $x
        POD=web-1
        APP=web
        IP=10.42.0.7
        CPU=1
        CPU_MILLIS=250
        MEMORY_MIB=64
        args ["serve", "blue", "10.43.0.9", "$(COLOUR)", "$(NOPE)"]
        67108864 bytes, Some(250) millis, 100 reserved, port 80
        "#);
    }

    #[test]
    fn what_cannot_be_configured_says_so_in_one_sentence() {
        let from = |source: serde_json::Value| json!({"name": "web", "env": [{"name": "X", "valueFrom": source}]});
        let cases = [
            (
                json!({}),
                from(json!({"configMapKeyRef": {"name": "nope", "key": "k"}})),
            ),
            (
                json!({}),
                from(json!({"configMapKeyRef": {"name": "settings", "key": "k"}})),
            ),
            (
                json!({}),
                from(json!({"secretKeyRef": {"name": "keys", "key": "k"}})),
            ),
            (
                json!({}),
                from(json!({"secretKeyRef": {"name": "keys", "key": "raw"}})),
            ),
            (
                json!({}),
                from(json!({"fieldRef": {"fieldPath": "spec.weather"}})),
            ),
            (
                json!({}),
                json!({"name": "web", "envFrom": [{"secretRef": {"name": "nope"}}]}),
            ),
            (
                json!({}),
                json!({"name": "web", "ports": [{"containerPort": 70000}]}),
            ),
            (
                json!({}),
                json!({"name": "web", "resources": {"limits": {"memory": "12k"}}}),
            ),
            (
                json!({"weft.dev/isolation": "cosy"}),
                json!({"name": "web"}),
            ),
            (
                json!({"weft.dev/max-requests-per-instance": "0"}),
                json!({"name": "web"}),
            ),
            (
                json!({"weft.dev/request-timeout": "soon"}),
                json!({"name": "web"}),
            ),
            (
                json!({"weft.dev/max-body-size": "-1"}),
                json!({"name": "web"}),
            ),
        ];
        let text: Vec<String> = cases
            .into_iter()
            .map(|(annotations, container)| {
                translate(annotations, container, &[])
                    .expect_err("must not translate")
                    .to_string()
            })
            .collect();
        insta::assert_snapshot!(text.join("\n"), @r#"
        configmap "nope" not found
        couldn't find key k in ConfigMap vote/settings
        couldn't find key k in Secret vote/keys
        key raw in Secret vote/keys is not UTF-8 text, so it cannot be an environment variable
        environment variable X: unsupported fieldPath "spec.weather"
        secret "nope" not found
        container port 70000 is not between 1 and 65535
        the memory limit 12000 is below the smallest a component can run in, 1048576
        annotation weft.dev/isolation: "cosy" is neither "per-request" nor "pooled"
        annotation weft.dev/max-requests-per-instance: "0" is not a number from 1 to 1000000
        annotation weft.dev/request-timeout: "soon" is not a duration such as 500ms, 30s or 2m
        annotation weft.dev/max-body-size: "-1" is not a size such as 10Mi or 2Gi
        "#);
    }

    #[test]
    fn annotations_choose_isolation() {
        for (annotations, isolation) in [
            (json!({}), Isolation::Default),
            (
                json!({"weft.dev/isolation": "per-request"}),
                Isolation::PerRequest,
            ),
            (
                json!({"weft.dev/isolation": "pooled"}),
                Isolation::Pooled {
                    max_requests: 128,
                    max_concurrent: 16,
                },
            ),
            (
                json!({"weft.dev/max-requests-per-instance": "5"}),
                Isolation::Pooled {
                    max_requests: 5,
                    max_concurrent: 16,
                },
            ),
        ] {
            let spec =
                translate(annotations.clone(), json!({"name": "web"}), &[]).expect("translates");
            assert_eq!(spec.isolation, isolation, "{annotations}");
        }
    }
}
