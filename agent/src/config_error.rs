//! Why a container cannot be configured: the sentence that `CreateContainerConfigError` shows.

/// One reason. Values of Secrets are in none of them.
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
    #[error(
        "key {key} in Secret {namespace}/{name} is not UTF-8 text, so it cannot be configuration of a component"
    )]
    ConfigNotText {
        namespace: String,
        name: String,
        key: String,
    },
    #[error(
        "the granted configuration has more than {bytes} bytes or {keys} keys; grant less of it to one ServiceAccount"
    )]
    ConfigTooLarge { bytes: usize, keys: usize },
    #[error("{of}: unsupported fieldPath \"{path}\"")]
    FieldPath { of: String, path: String },
    #[error("{of}: unsupported resource \"{resource}\"")]
    Resource { of: String, resource: String },
    #[error("environment variable {variable}: {what} is not supported by this node")]
    Source {
        variable: String,
        what: &'static str,
    },
    #[error("{field}: \"{value}\" is not a quantity")]
    Quantity { field: String, value: String },
    #[error("the memory limit {bytes} is below the smallest a component can run in, {least}")]
    MemoryTooSmall { bytes: u64, least: u64 },
    #[error("annotation {name}: \"{value}\" {why}")]
    Annotation {
        name: &'static str,
        value: String,
        why: &'static str,
    },
    #[error("the variables and arguments have more than {most} bytes, with what they refer to")]
    EnvironmentTooLarge { most: usize },
    #[error("container port {port} is not between 1 and 65535")]
    Port { port: i32 },
    #[error(
        "container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})"
    )]
    RunsAsRoot { pod: String, container: String },
    /// Of a `subPath`, in the kubelet's words.
    #[error("{0}")]
    SubPath(String),
    #[error("volume \"{volume}\": {why}")]
    Volume { volume: String, why: String },
}
