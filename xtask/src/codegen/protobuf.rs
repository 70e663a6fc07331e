//! Derives the table of protobuf tags: which number on the wire is which JSON field.
//!
//! Source: the crate `k8s-pb`, whose `#[prost(…, tag = "N")]` marks come from Kubernetes' `.proto` files. Only numbers,
//! names and types are read from it. A struct and its definition in the schema table have the same name; a field and
//! its property have it too, once case and underscores are put aside.
//!
//! One line a definition: `{"2":"image","3":"command"}`. A name that ends with `*` is a field whose zero says something:
//! Go writes the zeros of all other scalars to the wire as well, where its JSON leaves them out. An object in place
//! of a name is a message whose fields stand in its parent in JSON (Go's inlined structs).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};

/// Scalars that are pointers in Kubernetes' Go types and optional in the schema: absent and zero differ.
///
/// Neither the `.proto` files nor the OpenAPI document say it. Required scalars need no entry.
const POINTERS: &[(&str, &[&str])] = &[
    (
        "DeleteOptions",
        &[
            "gracePeriodSeconds",
            "ignoreStoreReadErrorWithClusterBreakingPotential",
            "orphanDependents",
            "propagationPolicy",
        ],
    ),
    ("ListMeta", &["remainingItemCount"]),
    ("ObjectMeta", &["deletionGracePeriodSeconds"]),
    ("OwnerReference", &["blockOwnerDeletion", "controller"]),
    ("Preconditions", &["resourceVersion", "uid"]),
    (
        "DeploymentSpec",
        &[
            "progressDeadlineSeconds",
            "replicas",
            "revisionHistoryLimit",
        ],
    ),
    (
        "DeploymentStatus",
        &["collisionCount", "terminatingReplicas"],
    ),
    // Not scalars on the wire, but numbers in JSON as long as they are no percentages.
    ("RollingUpdateDeployment", &["maxSurge", "maxUnavailable"]),
    ("ReplicaSetSpec", &["replicas"]),
    ("ReplicaSetStatus", &["terminatingReplicas"]),
    ("TokenRequestSpec", &["expirationSeconds"]),
    ("CertificateSigningRequestSpec", &["expirationSeconds"]),
    (
        "LeaseSpec",
        &[
            "holderIdentity",
            "leaseDurationSeconds",
            "leaseTransitions",
            "preferredHolder",
            "strategy",
        ],
    ),
    ("ClientIPConfig", &["timeoutSeconds"]),
    (
        "ClusterTrustBundleProjection",
        &["name", "optional", "signerName"],
    ),
    ("ConfigMap", &["immutable"]),
    ("ConfigMapEnvSource", &["optional"]),
    ("ConfigMapKeySelector", &["optional"]),
    ("ConfigMapProjection", &["optional"]),
    ("ConfigMapVolumeSource", &["defaultMode", "optional"]),
    ("ContainerStatus", &["started", "stopSignal"]),
    ("CSIVolumeSource", &["fsType", "readOnly"]),
    (
        "AzureDiskVolumeSource",
        &["cachingMode", "fsType", "readOnly"],
    ),
    ("DownwardAPIVolumeFile", &["mode"]),
    ("DownwardAPIVolumeSource", &["defaultMode"]),
    ("FCVolumeSource", &["lun"]),
    ("FileKeySelector", &["optional"]),
    ("GRPCAction", &["service"]),
    ("ISCSIVolumeSource", &["initiatorName"]),
    ("KeyToPath", &["mode"]),
    ("NodeFeatures", &["supplementalGroupsPolicy"]),
    (
        "NodeRuntimeHandlerFeatures",
        &["recursiveReadOnlyMounts", "userNamespaces"],
    ),
    ("NodeSwapStatus", &["capacity"]),
    (
        "PersistentVolumeClaimSpec",
        &[
            "storageClassName",
            "volumeAttributesClassName",
            "volumeMode",
        ],
    ),
    ("PodCertificateProjection", &["maxExpirationSeconds"]),
    ("PodDNSConfigOption", &["value"]),
    (
        "PodSecurityContext",
        &["fsGroup", "runAsGroup", "runAsNonRoot", "runAsUser"],
    ),
    (
        "PodSpec",
        &[
            "activeDeadlineSeconds",
            "automountServiceAccountToken",
            "enableServiceLinks",
            "hostUsers",
            "hostnameOverride",
            "preemptionPolicy",
            "priority",
            "runtimeClassName",
            "setHostnameAsFQDN",
            "shareProcessNamespace",
            "terminationGracePeriodSeconds",
        ],
    ),
    ("Probe", &["terminationGracePeriodSeconds"]),
    ("ProjectedVolumeSource", &["defaultMode"]),
    ("Secret", &["immutable"]),
    ("SecretEnvSource", &["optional"]),
    ("SecretKeySelector", &["optional"]),
    ("SecretProjection", &["optional"]),
    ("SecretVolumeSource", &["defaultMode", "optional"]),
    (
        "SecurityContext",
        &[
            "allowPrivilegeEscalation",
            "privileged",
            "procMount",
            "readOnlyRootFilesystem",
            "runAsGroup",
            "runAsNonRoot",
            "runAsUser",
        ],
    ),
    ("ServiceAccount", &["automountServiceAccountToken"]),
    ("ServiceAccountTokenProjection", &["expirationSeconds"]),
    ("ServicePort", &["appProtocol"]),
    (
        "ServiceSpec",
        &[
            "allocateLoadBalancerNodePorts",
            "internalTrafficPolicy",
            "ipFamilyPolicy",
            "loadBalancerClass",
            "trafficDistribution",
        ],
    ),
    ("Toleration", &["tolerationSeconds"]),
    ("TopologySpreadConstraint", &["minDomains"]),
    ("TypedLocalObjectReference", &["apiGroup"]),
    ("TypedObjectReference", &["apiGroup", "namespace"]),
    ("VolumeMount", &["mountPropagation", "recursiveReadOnly"]),
    (
        "WindowsSecurityContextOptions",
        &[
            "gmsaCredentialSpec",
            "gmsaCredentialSpecName",
            "hostProcess",
            "runAsUserName",
        ],
    ),
    ("Endpoint", &["hostname", "nodeName", "zone"]),
    ("EndpointConditions", &["ready", "serving", "terminating"]),
    ("EndpointPort", &["appProtocol", "name", "port", "protocol"]),
];

/// A field of a message: its tag and what stands in Rust.
struct Field {
    tag: u32,
    name: String,
    is_message: bool,
    rust_type: String,
}

/// The table for these definitions, and the properties that no tag is known for.
///
/// # Errors
/// When a source file cannot be read, or a field fits neither a property nor an inlined message.
pub fn table(
    source: &Path,
    definitions: &BTreeMap<String, Value>,
) -> Result<(String, Vec<String>)> {
    let mut modules = Modules {
        source,
        read: BTreeMap::new(),
    };
    let mut lines = Vec::new();
    let mut untagged = Vec::new();
    for (name, schema) in definitions {
        let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
            continue;
        };
        let Some((module, message)) = place_of(name) else {
            continue;
        };
        if modules.fields(&module, message)?.is_none() {
            untagged.push(name.clone());
            continue;
        }
        let mut left: BTreeMap<String, String> = properties
            .keys()
            .filter(|property| !matches!(property.as_str(), "apiVersion" | "kind"))
            .map(|property| (folded(property), property.clone()))
            .collect();
        // These two are fields of their own where an object refers to another one.
        for property in ["apiVersion", "kind"] {
            if properties.contains_key(property) {
                left.insert(folded(property), property.to_owned());
            }
        }
        let is_kind = schema.get("x-kubernetes-group-version-kind").is_some();
        let tags = modules
            .tags(&module, message, schema, &mut left)
            .with_context(|| format!("in {name}"))?;
        // An object's own kind travels in the envelope.
        let unknown = left
            .into_values()
            .filter(|property| !(is_kind && matches!(property.as_str(), "apiVersion" | "kind")))
            .map(|property| format!("{name}.{property}"));
        untagged.extend(unknown);
        lines.push(format!(
            "{}:{}",
            serde_json::to_string(name)?,
            serde_json::to_string(&tags)?
        ));
    }
    Ok((format!("{{\n{}\n}}\n", lines.join(",\n")), untagged))
}

/// `io.k8s.api.core.v1.Pod` is `Pod` in `api/core/v1`.
fn place_of(definition: &str) -> Option<(String, &str)> {
    let path = definition.strip_prefix("io.k8s.")?;
    let (module, message) = path.rsplit_once('.')?;
    Some((module.replace('.', "/"), message))
}

fn folded(name: &str) -> String {
    name.trim_start_matches("r#")
        .chars()
        .filter(|c| *c != '_')
        .flat_map(char::to_lowercase)
        .collect()
}

struct Modules<'a> {
    source: &'a Path,
    read: BTreeMap<String, BTreeMap<String, Vec<Field>>>,
}

impl Modules<'_> {
    /// The fields of a message, if the module has it.
    fn fields(&mut self, module: &str, message: &str) -> Result<Option<&Vec<Field>>> {
        if !self.read.contains_key(module) {
            let file = self.source.join("src").join(module).join("mod.rs");
            let messages = match std::fs::read_to_string(&file) {
                Ok(text) => messages(&text).with_context(|| format!("in {}", file.display()))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
                Err(error) => {
                    return Err(error).with_context(|| format!("reading {}", file.display()));
                }
            };
            self.read.insert(module.to_owned(), messages);
        }
        Ok(self.read[module].get(&folded(message)))
    }

    /// The tags of one message; what they name is taken out of `left`.
    fn tags(
        &mut self,
        module: &str,
        message: &str,
        schema: &Value,
        left: &mut BTreeMap<String, String>,
    ) -> Result<Value> {
        let fields = self
            .fields(module, message)?
            .with_context(|| format!("{module} has no message {message}"))?;
        let fields: Vec<(u32, String, bool, String)> = fields
            .iter()
            .map(|f| (f.tag, folded(&f.name), f.is_message, f.rust_type.clone()))
            .collect();
        let mut tags: BTreeMap<u32, Value> = BTreeMap::new();
        for (tag, name, is_message, rust_type) in fields {
            if let Some(property) = left.remove(&name) {
                let mark = if zero_counts(message, &property, schema) {
                    "*"
                } else {
                    ""
                };
                tags.insert(tag, json!(format!("{property}{mark}")));
            } else if is_message && !rust_type.contains("Vec<") {
                let inner = rust_type
                    .trim_start_matches("::core::option::Option<")
                    .trim_end_matches('>');
                let (path, inner) = inner.rsplit_once("::").unwrap_or(("", inner));
                if path.contains("super") {
                    bail!("{message}.{name} is inlined from another module, which is not read");
                }
                let inner = self.tags(module, inner, schema, left)?;
                if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                    tags.insert(tag, inner);
                }
            }
            // Else the schema's version has the field no more.
        }
        let tags: Map<String, Value> = tags
            .into_iter()
            .map(|(tag, value)| (tag.to_string(), value))
            .collect();
        Ok(Value::Object(tags))
    }
}

fn zero_counts(message: &str, property: &str, schema: &Value) -> bool {
    let required = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|required| required == property);
    let pointer = POINTERS
        .iter()
        .any(|(owner, fields)| *owner == message && fields.contains(&property));
    required || pointer
}

/// The messages of one generated module by their folded names. The generator gives one attribute and one field a line.
fn messages(source: &str) -> Result<BTreeMap<String, Vec<Field>>> {
    let mut found = BTreeMap::new();
    let mut current: Option<(String, Vec<Field>)> = None;
    let mut mark: Option<(u32, bool)> = None;
    for line in source.lines() {
        let line = line.trim();
        if let Some(rest) = line.strip_prefix("pub struct ") {
            let name = folded(rest.split([' ', '{']).next().unwrap_or_default());
            if line.ends_with("{}") {
                found.insert(name, Vec::new());
            } else {
                current = Some((name, Vec::new()));
            }
        } else if let Some(rest) = line.strip_prefix("#[prost(") {
            let tag = rest
                .split("tag = \"")
                .nth(1)
                .and_then(|rest| rest.split('"').next())
                .and_then(|tag| tag.parse().ok())
                .with_context(|| format!("no tag in {line}"))?;
            mark = Some((tag, rest.starts_with("message")));
        } else if line == "}" {
            found.extend(current.take());
        } else if let Some((_, fields)) = &mut current
            && let Some((name, rust_type)) = line
                .strip_prefix("pub ")
                .and_then(|rest| rest.split_once(':'))
        {
            // A type that rustfmt split over lines is of another module; only its tag is of interest.
            let (tag, is_message) = mark.take().with_context(|| format!("{name} has no tag"))?;
            fields.push(Field {
                tag,
                name: name.to_owned(),
                is_message,
                rust_type: rust_type.trim().trim_end_matches(',').to_owned(),
            });
        }
    }
    Ok(found)
}
