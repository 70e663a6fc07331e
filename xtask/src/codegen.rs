//! Derives the API server's schema tables from published schemas and types.
//!
//! `cargo xtask codegen` writes three tables beside the schema type, each with a definition a line, for the served kinds
//! and everything they refer to: `table.json`, OpenAPI v3 schemas; `go.json`, what Kubernetes' Go types say and OpenAPI
//! does not (which zeros are left out, which fields are pointers, what a type is called in messages); `protobuf.json`,
//! how they stand in Kubernetes' binary form. `cargo xtask codegen --check` compares instead of writing.
//!
//! Sources, all Apache-2.0 or MIT and fetched through their ordinary package clients into a temporary folder:
//! * Kubernetes' schemas: `_definitions.json` in PyPI's `kubernetes-validate` (`--definitions FILE` uses one that is at
//!   hand). It is the project's OpenAPI with nulls allowed and references rewritten for validators; both are undone here.
//! * Kubernetes' types: the Go modules `k8s.io/api` and `k8s.io/apimachinery`, asked by [`FACTS`], a program of some
//!   hundred lines that Go runs (`--facts FILE` uses its output).
//! * The binary form: the same Go modules, see [`protobuf`].
//!
//! Invariants: every reference in the table resolves inside it; the output depends on the inputs only.

mod protobuf;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

const KUBERNETES: (&str, &str) = ("kubernetes-validate", "1.37.0");
const GO_MODULES: &[(&str, &str)] = &[
    ("k8s.io/api", "v0.37.2"),
    ("k8s.io/apiextensions-apiserver", "v0.37.2"),
    ("k8s.io/apimachinery", "v0.37.2"),
    ("k8s.io/kube-aggregator", "v0.37.2"),
];
const FACTS: &str = include_str!("codegen/facts.go");
const TABLE: &str = "kinds/src/schema/table.json";
const GO: &str = "kinds/src/schema/go.json";
const TAGS: &str = "kinds/src/schema/protobuf.json";

/// The kinds whose closure is kept. A `…List` definition comes along where one exists.
const ROOTS: &[&str] = &[
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicy",
    "io.k8s.api.admissionregistration.v1.MutatingAdmissionPolicyBinding",
    "io.k8s.api.admissionregistration.v1.MutatingWebhookConfiguration",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
    "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicyBinding",
    "io.k8s.api.admissionregistration.v1.ValidatingWebhookConfiguration",
    "io.k8s.api.apps.v1.ControllerRevision",
    "io.k8s.api.apps.v1.DaemonSet",
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.ReplicaSet",
    "io.k8s.api.apps.v1.StatefulSet",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authorization.v1.LocalSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
    "io.k8s.api.batch.v1.CronJob",
    "io.k8s.api.batch.v1.Job",
    "io.k8s.api.certificates.v1.CertificateSigningRequest",
    "io.k8s.api.certificates.v1.ClusterTrustBundle",
    "io.k8s.api.certificates.v1.PodCertificateRequest",
    "io.k8s.api.coordination.v1.Lease",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.core.v1.ComponentStatus",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Endpoints",
    "io.k8s.api.core.v1.Event",
    "io.k8s.api.core.v1.LimitRange",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.Node",
    "io.k8s.api.core.v1.PersistentVolume",
    "io.k8s.api.core.v1.PersistentVolumeClaim",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.PodTemplate",
    "io.k8s.api.core.v1.ReplicationController",
    "io.k8s.api.core.v1.ResourceQuota",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.events.v1.Event",
    "io.k8s.api.flowcontrol.v1.FlowSchema",
    "io.k8s.api.flowcontrol.v1.PriorityLevelConfiguration",
    "io.k8s.api.networking.v1.IPAddress",
    "io.k8s.api.networking.v1.Ingress",
    "io.k8s.api.networking.v1.IngressClass",
    "io.k8s.api.networking.v1.NetworkPolicy",
    "io.k8s.api.networking.v1.ServiceCIDR",
    "io.k8s.api.node.v1.RuntimeClass",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.api.policy.v1.PodDisruptionBudget",
    "io.k8s.api.rbac.v1.ClusterRole",
    "io.k8s.api.rbac.v1.ClusterRoleBinding",
    "io.k8s.api.rbac.v1.Role",
    "io.k8s.api.rbac.v1.RoleBinding",
    "io.k8s.api.resource.v1.DeviceClass",
    "io.k8s.api.resource.v1.DeviceTaintRule",
    "io.k8s.api.resource.v1.ResourceClaim",
    "io.k8s.api.resource.v1.ResourceClaimTemplate",
    "io.k8s.api.resource.v1.ResourceSlice",
    "io.k8s.api.scheduling.v1.PriorityClass",
    "io.k8s.api.storage.v1.CSIDriver",
    "io.k8s.api.storage.v1.CSINode",
    "io.k8s.api.storage.v1.CSIStorageCapacity",
    "io.k8s.api.storage.v1.StorageClass",
    "io.k8s.api.storage.v1.VolumeAttachment",
    "io.k8s.api.storage.v1.VolumeAttributesClass",
    "io.k8s.api.storagemigration.v1.StorageVersionMigration",
    "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
    "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIService",
];

/// Groups whose marks stay on shared definitions such as DeleteOptions, which name every group there is.
const GROUPS: &[&str] = &[
    "",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "apiregistration.k8s.io",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
    "storagemigration.k8s.io",
];

/// Keys of lists that have a default, from the `+default` marks of the Go types; the validators' copy has none.
const DEFAULTS: &[(&str, &str, &str)] = &[
    ("io.k8s.api.core.v1.ContainerPort", "protocol", "TCP"),
    ("io.k8s.api.core.v1.ServicePort", "protocol", "TCP"),
];

const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Runs the command: `[--check] [--definitions FILE] [--facts FILE]`, from the workspace root.
///
/// # Errors
/// When a source cannot be fetched or read, a reference does not resolve, or `--check` finds a difference.
pub fn run(args: Vec<String>) -> Result<()> {
    let mut check = false;
    let mut definitions = None;
    let mut facts = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let given = match arg.as_str() {
            "--check" => {
                check = true;
                continue;
            }
            "--definitions" => &mut definitions,
            "--facts" => &mut facts,
            other => {
                bail!("codegen knows --check, --definitions FILE and --facts FILE, not {other}")
            }
        };
        let path = args.next().with_context(|| format!("{arg} needs a path"))?;
        *given = Some(PathBuf::from(path));
    }
    let definitions = definitions.map_or_else(fetch_definitions, Ok)?;
    let facts = match facts {
        Some(file) => {
            std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?
        }
        None => ask_go()?,
    };
    let facts: Value = serde_json::from_slice(&facts).context("reading the facts of Go's types")?;

    let mut all = kubernetes(&definitions)?;
    for (definition, property, default) in DEFAULTS {
        let schema = all
            .get_mut(*definition)
            .with_context(|| format!("{definition} is not defined by the sources"))?;
        schema["properties"][property]["default"] = json!(default);
    }
    let kept = closure(&all)?;
    let table = render(&kept)?;
    let go = render(&go_types(&facts, &kept)?)?;
    let tags = protobuf::table()?;

    for (path, text) in [(TABLE, &table), (GO, &go), (TAGS, &tags)] {
        if check {
            let committed =
                std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
            ensure!(
                committed == *text,
                "{path} is not what its sources give; run `cargo xtask codegen`"
            );
            println!("{path} is up to date");
        } else {
            std::fs::write(path, text).with_context(|| format!("writing {path}"))?;
            println!(
                "{path}: {} definitions, {} KiB",
                text.lines().count() - 2,
                text.len() >> 10
            );
        }
    }
    Ok(())
}

/// The facts of the kept definitions. Every property of a struct must be a field of its Go type, and the other way round.
fn go_types(facts: &Value, kept: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let mut types = BTreeMap::new();
    for (name, schema) in kept {
        let (Some(properties), Some(fields)) = (
            schema["properties"].as_object(),
            facts["types"].get(name).and_then(Value::as_array),
        ) else {
            continue;
        };
        let names: Vec<&str> = fields
            .iter()
            .filter_map(|field| field.as_str()?.split('|').next())
            .collect();
        for property in properties.keys() {
            ensure!(
                names.contains(&property.as_str()),
                "{name} has {property} in the schemas, not in the Go types"
            );
        }
        // Fields that the schemas are older than are left out: what is not in the schema is unknown.
        let known: Vec<Value> = fields
            .iter()
            .zip(&names)
            .filter(|(_, name)| properties.contains_key(**name))
            .map(|(field, _)| field.clone())
            .collect();
        types.insert(name.clone(), Value::Array(known));
    }
    Ok(types)
}

/// The roots and all they refer to.
fn closure(all: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let mut wanted: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    let lists: Vec<String> = wanted
        .iter()
        .map(|name| format!("{name}List"))
        .filter(|name| all.contains_key(name))
        .collect();
    wanted.extend(lists);

    let mut kept = BTreeMap::new();
    while let Some(name) = wanted.pop() {
        if kept.contains_key(&name) {
            continue;
        }
        let schema = all
            .get(&name)
            .with_context(|| format!("{name} is not defined by the sources"))?;
        references(schema, &mut wanted);
        kept.insert(name, schema.clone());
    }
    Ok(kept)
}

/// A definition a line in name order, so that a change reads well in review.
fn render(definitions: &BTreeMap<String, Value>) -> Result<String> {
    let lines: Vec<String> = definitions
        .iter()
        .map(|(name, schema)| {
            Ok(format!(
                "{}:{}",
                serde_json::to_string(name)?,
                serde_json::to_string(schema)?
            ))
        })
        .collect::<Result<_>>()?;
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(name) = map.get("$ref").and_then(Value::as_str) {
                found.extend(name.rsplit('/').next().map(str::to_owned));
            }
            map.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

fn kubernetes(definitions: &Path) -> Result<BTreeMap<String, Value>> {
    let text =
        std::fs::read(definitions).with_context(|| format!("reading {}", definitions.display()))?;
    let document: Value = serde_json::from_slice(&text)?;
    let definitions = document
        .get("$defs")
        .and_then(Value::as_object)
        .context("the document has no $defs")?;
    Ok(definitions
        .iter()
        .map(|(name, schema)| {
            let schema = match name.as_str() {
                INT_OR_STRING => json!({
                    "description": "IntOrString is a type that can hold an int32 or a string.",
                    "format": "int-or-string",
                    "oneOf": [{ "type": "integer" }, { "type": "string" }],
                }),
                QUANTITY => json!({
                    "description": "Quantity is a fixed-point number: a number with an optional suffix such as m, k, Ki, M, Mi, G or Gi.",
                    "oneOf": [{ "type": "string" }, { "type": "number" }],
                }),
                _ => published(schema),
            };
            (name.clone(), schema)
        })
        .collect())
}

/// Undoes what a validator's copy of the OpenAPI document changed: nullable types, fixed apiVersion and kind, `$defs`.
fn published(schema: &Value) -> Value {
    let Value::Object(map) = schema else {
        return schema.clone();
    };
    let mut out = Map::new();
    for (key, value) in map {
        match key.as_str() {
            "type" => {
                let name = match value {
                    Value::Array(names) => {
                        names.iter().find(|name| *name != "null").unwrap_or(value)
                    }
                    other => other,
                };
                out.insert(key.clone(), name.clone());
            }
            "enum" => {
                let values: Vec<Value> = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|v| !v.is_null())
                    .cloned()
                    .collect();
                out.insert(key.clone(), Value::Array(values));
            }
            // A reference beside a description is written as the API server writes it, in allOf.
            "$ref" => {
                let name = value
                    .as_str()
                    .and_then(|name| name.rsplit('/').next())
                    .unwrap_or_default();
                let reference = json!({ "$ref": format!("#/components/schemas/{name}") });
                if map.contains_key("description") {
                    out.insert("allOf".to_owned(), json!([reference]));
                } else {
                    out.insert(key.clone(), reference["$ref"].clone());
                }
            }
            "properties" => {
                let properties = value
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, property)| {
                        let mut property = published(property);
                        if matches!(name.as_str(), "apiVersion" | "kind")
                            && let Some(property) = property.as_object_mut()
                        {
                            property.remove("enum");
                        }
                        (name.clone(), property)
                    });
                out.insert(key.clone(), Value::Object(properties.collect()));
            }
            "x-kubernetes-group-version-kind" => {
                let served = |mark: &&Value| {
                    mark["group"]
                        .as_str()
                        .is_some_and(|group| GROUPS.contains(&group))
                        && matches!(mark["version"].as_str(), Some("v1" | "v2"))
                };
                let marks: Vec<Value> = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(served)
                    .cloned()
                    .collect();
                out.insert(key.clone(), Value::Array(marks));
            }
            "$schema" | "definitions" => {}
            "required" => {
                out.insert(key.clone(), value.clone());
            }
            _ => {
                let value = match value {
                    Value::Object(_) => published(value),
                    Value::Array(items) => Value::Array(items.iter().map(published).collect()),
                    other => other.clone(),
                };
                out.insert(key.clone(), value);
            }
        }
    }
    Value::Object(out)
}

/// Runs [`FACTS`] in a module of its own in the temporary folder; Go fetches what it reads.
fn ask_go() -> Result<Vec<u8>> {
    let dir = std::env::temp_dir().join("weft-codegen-facts");
    std::fs::create_dir_all(&dir)?;
    let requires: String = GO_MODULES
        .iter()
        .map(|(module, version)| format!("require {module} {version}\n"))
        .collect();
    std::fs::write(
        dir.join("go.mod"),
        format!("module facts\n\ngo 1.26.0\n\n{requires}"),
    )?;
    std::fs::write(dir.join("main.go"), FACTS)?;
    go(&dir, &["run", "."])
}

fn go(dir: &Path, args: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new("go")
        .args(args)
        .current_dir(dir)
        .env("GOFLAGS", "-mod=mod")
        .output()
        .context("starting go, which tells what Kubernetes' types say")?;
    ensure!(
        output.status.success(),
        "go {} failed: {}",
        args.first().unwrap_or(&""),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}

fn fetch_definitions() -> Result<PathBuf> {
    let (package, version) = KUBERNETES;
    let dir = std::env::temp_dir().join(format!("{package}-{version}"));
    std::fs::create_dir_all(&dir)?;
    let dir_text = dir
        .to_str()
        .context("the temporary folder's name is not UTF-8")?;
    let wheel = dir.join(format!("kubernetes_validate-{version}-py3-none-any.whl"));
    if !wheel.exists() {
        shell(
            "pip",
            &[
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                dir_text,
                &format!("{package}=={version}"),
            ],
        )?;
    }
    let member =
        format!("kubernetes_validate/kubernetes-json-schema/v{version}-local/_definitions.json");
    let wheel = wheel
        .to_str()
        .context("the temporary folder's name is not UTF-8")?;
    shell("unzip", &["-oq", wheel, &member, "-d", dir_text])?;
    Ok(dir.join(member))
}

fn shell(program: &str, args: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("starting {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::go_types;

    #[test]
    fn facts_are_kept_for_what_the_schemas_have() {
        let kept = [("a.T".to_owned(), json!({ "properties": { "x": {} } }))].into();
        let facts = json!({ "types": { "a.T": ["x|*int32|e|", "newer|string||"], "a.U": [] } });
        assert_eq!(
            go_types(&facts, &kept).unwrap()["a.T"],
            json!(["x|*int32|e|"])
        );
        assert!(go_types(&json!({ "types": { "a.T": [] } }), &kept).is_err());
    }
}
