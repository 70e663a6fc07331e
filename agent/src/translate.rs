//! From a container of a Pod to what the runtime is asked to host.
//!
//! [`container`] takes the Pod, its container, the ConfigMaps and Secrets it names, the Services of its namespace and the facts
//! of this node, and answers with a [`WorkloadSpec`] or with the sentence that `CreateContainerConfigError` shows.
//! Pure: equal input, equal specification.
//!
//! Left to others: the environment (`environment`), fields that no component can have (`unsupported`), fetching
//! (`prepare`), limits the engine itself imposes (`weft_runtime`).

use crate::config_error::ConfigError;
use crate::configuration::Configuration;
use crate::downward::Downward;
use crate::environment::Context;
use crate::fence;
use crate::node_facts::{CPU_MILLIS_MIN, MEMORY_BYTES_MIN, NodeFacts};
use crate::pod_view::{ContainerView, PodView, Resources};
use crate::user;
use crate::volumes::{self, Mount};
use k8s_openapi::api::core::v1::{Container, Service};
use std::time::Duration;
use weft_api::{Quantity, annotation};
use weft_runtime::{Allotment, InstancePolicy, Limits, Stdin, WorkloadConfig};

/// Wall-clock limit of one request when neither the pod nor a route or a caller sets one.
pub const REQUEST_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// What a route or a caller may give to a request where the pod says nothing: a route's `0s` is no limit.
pub const REQUEST_TIMEOUT_MAX: Duration = weft_gateway::UNLIMITED;
/// The largest body of a request or a response when the pod sets none. It only ends what never would: nothing is held for it.
pub const BODY_BYTES_DEFAULT: u64 = 64 << 30;
/// How long an idle pooled instance waits for the next call before it ends.
pub const POOLED_IDLE: Duration = Duration::from_secs(10);
/// Requests of a pooled instance when the pod says nothing, and how many at once: the defaults of WASI 0.3 in the design.
const POOLED_REQUESTS_DEFAULT: u32 = 128;
const POOLED_CONCURRENT_DEFAULT: u32 = 16;

/// Which world to use of a component that exports both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    Http,
    Command,
}

/// What the runtime is asked to host, in its own words.
#[derive(Clone, Debug)]
pub struct WorkloadSpec {
    /// Named `namespace/pod/container`, for logs and metrics; of no account yet. Without a policy it has what is its component's default.
    pub config: WorkloadConfig,
    /// What the pod says; else [`REQUEST_TIMEOUT_DEFAULT`] holds where neither a route nor the caller says anything.
    pub request_timeout: Option<Duration>,
    /// What it mounts, in the container's order.
    pub mounts: Vec<Mount>,
    /// `None`: HTTP if the component exports it.
    pub world: Option<World>,
    /// Where an HTTP component is served; the first is the one that probes mean. Never empty.
    pub ports: Vec<u16>,
}

impl WorkloadSpec {
    /// Whether its environment has a variable of that name.
    pub(crate) fn has_variable(&self, name: &str) -> bool {
        self.config.env.iter().any(|(known, _)| known == name)
    }

    /// What an ephemeral container shares with the one that it is to look into: environment, and volumes where it has none of its own.
    pub(crate) fn join(&mut self, target: WorkloadSpec) {
        let mut env = target.config.env;
        env.retain(|(name, _)| !self.has_variable(name));
        env.append(&mut self.config.env);
        self.config.env = env;
        let own: Vec<String> = self.mounts.iter().map(|mount| mount.path.clone()).collect();
        let theirs = target.mounts.into_iter();
        self.mounts
            .extend(theirs.filter(|mount| !own.contains(&mount.path)));
    }
}

/// Translates one container.
///
/// `services` are those whose variables the container sees: its namespace's, and `default/kubernetes`.
///
/// # Errors
/// [`ConfigError`], the message of `CreateContainerConfigError`.
pub(crate) fn container(
    at: Downward<'_>,
    container: &Container,
    configuration: &Configuration,
    services: &[Service],
) -> Result<WorkloadSpec, ConfigError> {
    let context = Context {
        at,
        container,
        configuration,
    };
    let mut env = context.environment(services)?;
    let mut args = env.arguments(container.command.as_ref())?;
    if args.is_empty() {
        args.push(container.name.clone());
    }
    args.extend(env.arguments(container.args.as_ref())?);

    let (pod, view) = (at.pod, ContainerView(container));
    let Allotment {
        memory_bytes,
        cpu_millis,
        cpu_reserved_millis,
    } = allotment(at.node, container)?;
    let request_timeout = request_timeout(pod)?;
    fence::asked(pod)?;
    let mounts = volumes::mounts(at, &env, container)?;
    let config = WorkloadConfig {
        name: format!("{}/{}/{}", pod.namespace(), pod.name(), container.name),
        args,
        limits: Limits {
            memory_bytes,
            cpu_millis,
            cpu_reserved_millis,
            request_timeout: request_timeout.unwrap_or(REQUEST_TIMEOUT_MAX),
            body_bytes: body_bytes(pod)?,
            ..Limits::default()
        },
        cwd: container.working_dir.clone().filter(|dir| !dir.is_empty()),
        stdin: match container.stdin {
            Some(true) => Stdin::EndsAtStop,
            _ => Stdin::Empty,
        },
        policy: policy(pod)?,
        env: env.into_variables(),
        identity: user::of(pod, container)?,
        ..WorkloadConfig::default()
    };
    Ok(WorkloadSpec {
        config,
        request_timeout,
        mounts,
        world: world(pod)?,
        ports: view.ports()?,
    })
}

/// What a container may have of memory and CPU.
///
/// # Errors
/// [`ConfigError`] for an amount that is none, or of which nothing can run.
pub(crate) fn allotment(node: &NodeFacts, container: &Container) -> Result<Allotment, ConfigError> {
    let view = ContainerView(container);
    let memory = view.resource(Resources::Limits, "memory")?;
    let memory = memory.map(|quantity| u64::try_from(quantity.value()).unwrap_or(0));
    let memory_bytes = memory.unwrap_or(node.memory_bytes_default());
    if memory_bytes < MEMORY_BYTES_MIN {
        return Err(ConfigError::MemoryTooSmall {
            bytes: memory_bytes,
            least: MEMORY_BYTES_MIN,
        });
    }
    let millis = |quantity: Quantity| u32::try_from(quantity.milli()).unwrap_or(u32::MAX);
    let cpu_millis = view.resource(Resources::Limits, "cpu")?;
    let cpu_millis = cpu_millis.map(|quantity| millis(quantity).max(CPU_MILLIS_MIN));
    let cpu_reserved_millis = view.resource(Resources::Requests, "cpu")?;
    Ok(Allotment {
        memory_bytes,
        cpu_millis,
        // Its limit if it requests nothing.
        cpu_reserved_millis: cpu_reserved_millis.map(millis).or(cpu_millis).unwrap_or(0),
    })
}

fn body_bytes(pod: PodView<'_>) -> Result<u64, ConfigError> {
    let Some(text) = pod.annotation(annotation::MAX_BODY_SIZE) else {
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

fn request_timeout(pod: PodView<'_>) -> Result<Option<Duration>, ConfigError> {
    match pod.annotation(annotation::REQUEST_TIMEOUT) {
        None => Ok(None),
        Some(text) => weft_api::time::parse_duration(text)
            .ok()
            .filter(|timeout| !timeout.is_zero())
            .map(Some)
            .ok_or(ConfigError::Annotation {
                name: annotation::REQUEST_TIMEOUT,
                value: text.into(),
                why: "is not a duration such as 500ms, 30s or 2m",
            }),
    }
}

fn policy(pod: PodView<'_>) -> Result<Option<InstancePolicy>, ConfigError> {
    let number = |name: &'static str, most: u32, why: &'static str| match pod.annotation(name) {
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
    let pooled = InstancePolicy::Pooled {
        max_requests: max_requests.unwrap_or(POOLED_REQUESTS_DEFAULT),
        max_concurrent: max_concurrent.unwrap_or(POOLED_CONCURRENT_DEFAULT),
        idle: POOLED_IDLE,
    };
    match pod.annotation(annotation::ISOLATION) {
        Some("per-request") => Ok(Some(InstancePolicy::PerRequest)),
        Some("pooled") => Ok(Some(pooled)),
        None if max_requests.is_some() || max_concurrent.is_some() => Ok(Some(pooled)),
        None => Ok(None),
        Some(other) => Err(ConfigError::Annotation {
            name: annotation::ISOLATION,
            value: other.into(),
            why: "is neither \"per-request\" nor \"pooled\"",
        }),
    }
}

fn world(pod: PodView<'_>) -> Result<Option<World>, ConfigError> {
    match pod.annotation(annotation::WORLD) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_facts::NodeFacts;
    use k8s_openapi::api::core::v1::Pod;
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

    /// A route may allow more than the default, and never more than the pod says.
    #[test]
    fn the_timeout_of_a_pod_is_the_most_where_it_is_said() {
        for (annotations, said, most) in [
            (json!({}), None, weft_gateway::UNLIMITED),
            (
                json!({"weft.dev/request-timeout": "5s"}),
                Some(Duration::from_secs(5)),
                Duration::from_secs(5),
            ),
            (
                json!({"weft.dev/request-timeout": "2m"}),
                Some(Duration::from_secs(120)),
                Duration::from_secs(120),
            ),
        ] {
            let container = json!({"name": "main", "image": "x:1"});
            let spec = translate(annotations.clone(), container, &[]);
            let spec = spec.expect("a workload");
            let found = (spec.request_timeout, spec.config.limits.request_timeout);
            assert_eq!(found, (said, most), "{annotations}");
        }
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
            ..Configuration::default()
        }
    }

    fn translate(
        annotations: serde_json::Value,
        spec: serde_json::Value,
        services: &[Service],
    ) -> Result<WorkloadSpec, ConfigError> {
        let pod = pod(annotations, spec);
        let only = &pod.spec.as_ref().expect("a spec").containers[0];
        let at = Downward {
            pod: PodView(&pod),
            pod_ip: "10.42.0.7".parse().expect("an address"),
            node: &node(),
        };
        container(at, only, &configuration(), services)
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
        let config = spec.config;
        let mut text: Vec<String> = config
            .env
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        text.push(format!("args {:?}", config.args));
        text.push(format!(
            "{} bytes, {:?} millis, {} reserved, ports {:?}",
            config.limits.memory_bytes,
            config.limits.cpu_millis,
            config.limits.cpu_reserved_millis,
            spec.ports
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
        67108864 bytes, Some(250) millis, 100 reserved, ports [80]
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
    fn annotations_choose_how_long_instances_live() {
        let pooled = |max_requests, max_concurrent| {
            Some(InstancePolicy::Pooled {
                max_requests,
                max_concurrent,
                idle: POOLED_IDLE,
            })
        };
        for (annotations, policy) in [
            (json!({}), None),
            (
                json!({"weft.dev/isolation": "per-request"}),
                Some(InstancePolicy::PerRequest),
            ),
            (json!({"weft.dev/isolation": "pooled"}), pooled(128, 16)),
            (
                json!({"weft.dev/max-requests-per-instance": "5"}),
                pooled(5, 16),
            ),
        ] {
            let spec =
                translate(annotations.clone(), json!({"name": "web"}), &[]).expect("translates");
            assert_eq!(spec.config.policy, policy, "{annotations}");
        }
    }
}
