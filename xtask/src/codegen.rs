//! Derives the API server's schema tables from published schemas.
//!
//! `cargo xtask codegen` writes `kinds/src/schema/table.json`: one OpenAPI v3 schema a line, for the served kinds and
//! everything they refer to; and `protobuf.json` beside it: the tags of their fields in Kubernetes' binary form.
//! `cargo xtask codegen --check` compares instead of writing.
//!
//! Sources, all Apache-2.0 or MIT and fetched through their ordinary package clients into a temporary folder:
//! * Kubernetes: `_definitions.json` in PyPI's `kubernetes-validate` (`--definitions FILE` uses one that is at hand). It
//!   is the project's OpenAPI with nulls allowed and references rewritten for validators; both are undone here.
//! * Gateway API: the Rust bindings of the crate `gateway-api`, whose doc comments, names and optionality come from
//!   the custom resource definitions (`--gateway-api DIR` uses an unpacked crate). HTTPRoute is taken from the
//!   experimental channel for `retry`; list types are not in that source and come from [`LIST_TYPES`].
//! * Tags: the crate `k8s-pb`, see [`protobuf`] (`--protobuf DIR` uses an unpacked crate).
//!
//! Invariants: every reference in the table resolves inside it; the output depends on the three inputs only.

mod protobuf;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

const KUBERNETES: (&str, &str) = ("kubernetes-validate", "1.37.0");
const GATEWAY_API: (&str, &str) = ("gateway-api", "0.22.0");
const PROTOBUF: (&str, &str) = ("k8s-pb", "0.9.0");
const TABLE: &str = "kinds/src/schema/table.json";
const TAGS: &str = "kinds/src/schema/protobuf.json";

/// The kinds whose closure is kept. A `…List` definition comes along where one exists.
const ROOTS: &[&str] = &[
    "io.k8s.api.apps.v1.Deployment",
    "io.k8s.api.apps.v1.ReplicaSet",
    "io.k8s.api.authentication.v1.SelfSubjectReview",
    "io.k8s.api.authentication.v1.TokenRequest",
    "io.k8s.api.authentication.v1.TokenReview",
    "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
    "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
    "io.k8s.api.authorization.v1.SubjectAccessReview",
    "io.k8s.api.autoscaling.v1.Scale",
    "io.k8s.api.certificates.v1.CertificateSigningRequest",
    "io.k8s.api.coordination.v1.Lease",
    "io.k8s.api.core.v1.Binding",
    "io.k8s.api.core.v1.ConfigMap",
    "io.k8s.api.core.v1.Event",
    "io.k8s.api.core.v1.Namespace",
    "io.k8s.api.core.v1.Node",
    "io.k8s.api.core.v1.Pod",
    "io.k8s.api.core.v1.Secret",
    "io.k8s.api.core.v1.Service",
    "io.k8s.api.core.v1.ServiceAccount",
    "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.events.v1.Event",
    "io.k8s.api.policy.v1.Eviction",
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status",
];

/// Groups whose marks stay on shared definitions such as DeleteOptions, which name every group there is.
const GROUPS: &[&str] = &[
    "",
    "apps",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "certificates.k8s.io",
    "coordination.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "gateway.networking.k8s.io",
    "policy",
];

/// Gateway API lists that are not atomic: field name, list type, keys. From the `+listType` marks of its Go types.
const LIST_TYPES: &[(&str, &str, &[&str])] = &[
    ("add", "map", &["name"]),
    ("conditions", "map", &["type"]),
    ("headers", "map", &["name"]),
    ("listeners", "map", &["name"]),
    ("queryParams", "map", &["name"]),
    ("remove", "set", &[]),
    ("set", "map", &["name"]),
    ("supportedFeatures", "map", &["name"]),
];

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";

/// Runs the command: `[--check] [--definitions FILE] [--gateway-api DIR] [--protobuf DIR]`, from the workspace root.
///
/// # Errors
/// When a source cannot be fetched or read, a reference does not resolve, or `--check` finds a difference.
pub fn run(args: Vec<String>) -> Result<()> {
    let mut check = false;
    let mut definitions = None;
    let mut gateway_api = None;
    let mut protobuf = None;
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => check = true,
            "--definitions" => {
                definitions = Some(PathBuf::from(
                    args.next().context("--definitions needs a file")?,
                ));
            }
            "--gateway-api" => {
                gateway_api = Some(PathBuf::from(
                    args.next().context("--gateway-api needs a directory")?,
                ));
            }
            "--protobuf" => {
                protobuf = Some(PathBuf::from(
                    args.next().context("--protobuf needs a directory")?,
                ));
            }
            other => bail!(
                "codegen knows --check, --definitions FILE, --gateway-api DIR and --protobuf DIR, not {other}"
            ),
        }
    }
    let definitions = definitions.map_or_else(fetch_definitions, Ok)?;
    let gateway_api = gateway_api.map_or_else(|| fetch_crate(GATEWAY_API), Ok)?;
    let protobuf = protobuf.map_or_else(|| fetch_crate(PROTOBUF), Ok)?;

    let mut all = kubernetes(&definitions)?;
    for (file, root) in [
        ("experimental/httproutes.rs", "HTTPRoute"),
        ("standard/gateways.rs", "Gateway"),
        ("standard/gatewayclasses.rs", "GatewayClass"),
    ] {
        let path = gateway_api.join("src/apis").join(file);
        let source = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        all.extend(
            gateway_kind(&source, root).with_context(|| format!("reading {}", path.display()))?,
        );
    }
    let kept = closure(&all)?;
    let table = render(&kept)?;
    let (tags, untagged) = protobuf::table(&protobuf, &kept)?;

    for (path, text) in [(TABLE, &table), (TAGS, &tags)] {
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
    if !check && !untagged.is_empty() {
        println!(
            "newer than the tags, so unknown in protobuf bodies: {}",
            untagged.join(", ")
        );
    }
    Ok(())
}

/// The roots and all they refer to.
fn closure(all: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let mut wanted: Vec<String> = ROOTS.iter().map(|root| (*root).to_owned()).collect();
    wanted.extend(
        all.keys()
            .filter(|name| name.starts_with("io.k8s.networking.gateway."))
            .cloned(),
    );
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
                        && mark["version"].as_str() == Some("v1")
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

/// One item of the generated bindings: a struct or an enum with what stands above it.
#[derive(Default)]
struct Item {
    docs: Vec<String>,
    fields: Vec<Field>,
    variants: Vec<String>,
}

struct Field {
    docs: Vec<String>,
    name: String,
    rust_type: String,
}

/// Builds the three definitions of one custom resource (spec and status inlined) from kopium's output.
///
/// Line by line is enough: the generator and rustfmt give one field, variant or attribute a line, and an attribute that
/// rustfmt split is joined first.
fn gateway_kind(source: &str, kind: &str) -> Result<BTreeMap<String, Value>> {
    let mut items: BTreeMap<String, Item> = BTreeMap::new();
    let mut current: Option<(String, bool)> = None;
    let mut docs: Vec<String> = Vec::new();
    let mut rename: Option<String> = None;
    let mut attribute = String::new();
    for line in source.lines() {
        let line = line.trim();
        if !attribute.is_empty() || line.starts_with("#[") {
            attribute.push_str(line);
            if line.ends_with(']') {
                if attribute.starts_with("#[serde(")
                    && let Some((_, rest)) = attribute.split_once("rename = \"")
                {
                    rename = rest.split('"').next().map(str::to_owned);
                }
                attribute.clear();
            }
            continue;
        }
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.strip_prefix(' ').unwrap_or(doc).to_owned());
            continue;
        }
        let header = line.strip_prefix("pub struct ").map(|rest| (rest, false));
        let header = header.or_else(|| line.strip_prefix("pub enum ").map(|rest| (rest, true)));
        if let Some((rest, is_enum)) = header {
            let name = rest.split([' ', '{']).next().unwrap_or_default().to_owned();
            items.insert(
                name.clone(),
                Item {
                    docs: std::mem::take(&mut docs),
                    ..Item::default()
                },
            );
            current = (!line.ends_with("{}")).then_some((name, is_enum));
            continue;
        }
        if line == "}" {
            current = None;
            continue;
        }
        let Some((name, is_enum)) = &current else {
            docs.clear();
            continue;
        };
        let item = items.get_mut(name).context("an item without its header")?;
        if *is_enum {
            // `r#_308` is what a number is called; its new name must not stay behind for the next item's first field.
            let variant = line.trim_end_matches(',').trim_start_matches("r#");
            let is_name = |c: char| c.is_alphanumeric() || c == '_';
            if variant.chars().all(is_name) && !variant.is_empty() {
                item.variants
                    .push(rename.take().unwrap_or_else(|| variant.to_owned()));
            }
        } else if let Some((field, rust_type)) = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(": "))
        {
            let field = field.trim_start_matches("r#").to_owned();
            item.fields.push(Field {
                docs: std::mem::take(&mut docs),
                name: rename.take().unwrap_or(field),
                rust_type: rust_type.trim_end_matches(',').to_owned(),
            });
        }
        docs.clear();
    }

    let rust_name = kind.replace("HTTP", "Http");
    let spec = inline(&items, &format!("{rust_name}Spec"), "spec")?;
    let status = inline(&items, &format!("{rust_name}Status"), "status")?;
    let name = format!("io.k8s.networking.gateway.v1.{kind}");
    let mark = |kind: &str| json!([{ "group": "gateway.networking.k8s.io", "kind": kind, "version": "v1" }]);
    let api_version = json!({ "description": "APIVersion defines the versioned schema of this representation of an object.", "type": "string" });
    let kind_property = json!({ "description": "Kind is a string value representing the REST resource this object represents.", "type": "string" });
    let meta = |of: &str| json!({ "allOf": [{ "$ref": format!("#/components/schemas/{META}.{of}") }], "description": "Standard object's metadata." });
    Ok(BTreeMap::from([
        (
            name.clone(),
            json!({
                "description": format!("{kind} of the Gateway API."),
                "properties": { "apiVersion": api_version, "kind": kind_property, "metadata": meta("ObjectMeta"), "spec": spec, "status": status },
                "required": ["spec"],
                "type": "object",
                "x-kubernetes-group-version-kind": mark(kind),
            }),
        ),
        (
            format!("{name}List"),
            json!({
                "description": format!("{kind}List is a list of {kind}."),
                "properties": {
                    "apiVersion": api_version, "kind": kind_property, "metadata": meta("ListMeta"),
                    "items": { "description": "The objects.", "items": { "$ref": format!("#/components/schemas/{name}") }, "type": "array" },
                },
                "required": ["items"],
                "type": "object",
                "x-kubernetes-group-version-kind": mark(&format!("{kind}List")),
            }),
        ),
    ]))
}

/// The schema of a Rust type; the structs it names become nested objects, as a custom resource definition has them.
fn inline(items: &BTreeMap<String, Item>, rust_type: &str, field: &str) -> Result<Value> {
    let inner = |prefix: &str| {
        rust_type
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_suffix('>'))
    };
    if let Some(inner) = inner("Option<") {
        return inline(items, inner, field);
    }
    if let Some(inner) = inner("Vec<") {
        let mut schema = json!({ "items": inline(items, inner, field)?, "type": "array" });
        let list_type = LIST_TYPES
            .iter()
            .find(|(name, kind, _)| *name == field && (*kind == "set") == (inner == "String"));
        let (kind, keys) =
            list_type.map_or(("atomic", &[] as &[&str]), |(_, kind, keys)| (kind, keys));
        schema["x-kubernetes-list-type"] = json!(kind);
        if !keys.is_empty() {
            schema["x-kubernetes-list-map-keys"] = json!(keys);
        }
        return Ok(schema);
    }
    if let Some(value) = inner("BTreeMap<String, ") {
        return Ok(
            json!({ "additionalProperties": inline(items, value, field)?, "type": "object" }),
        );
    }
    Ok(match rust_type {
        "String" => json!({ "type": "string" }),
        "bool" => json!({ "type": "boolean" }),
        "i32" => json!({ "format": "int32", "type": "integer" }),
        "i64" => json!({ "format": "int64", "type": "integer" }),
        "IntOrString" => json!({ "$ref": format!("#/components/schemas/{INT_OR_STRING}") }),
        "Condition" => json!({ "$ref": format!("#/components/schemas/{META}.Condition") }),
        name => {
            let item = items
                .get(name)
                .with_context(|| format!("{field} has the unknown type {name}"))?;
            if !item.variants.is_empty() {
                let numbers: Option<Vec<i64>> =
                    item.variants.iter().map(|v| v.parse().ok()).collect();
                return Ok(match numbers {
                    Some(numbers) => json!({ "enum": numbers, "type": "integer" }),
                    None => json!({ "enum": item.variants, "type": "string" }),
                });
            }
            let mut properties = Map::new();
            let mut required = Vec::new();
            for field in &item.fields {
                let mut schema = inline(items, &field.rust_type, &field.name)?;
                if !field.docs.is_empty() {
                    if let Some(reference) = schema
                        .as_object_mut()
                        .and_then(|schema| schema.remove("$ref"))
                    {
                        schema["allOf"] = json!([{ "$ref": reference }]);
                    }
                    schema["description"] = json!(field.docs.join("\n"));
                }
                if !field.rust_type.starts_with("Option<") {
                    required.push(field.name.clone());
                }
                properties.insert(field.name.clone(), schema);
            }
            let mut schema = json!({ "properties": properties, "type": "object" });
            if !required.is_empty() {
                schema["required"] = json!(required);
            }
            if !item.docs.is_empty() {
                schema["description"] = json!(item.docs.join("\n"));
            }
            schema
        }
    })
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

/// `cargo info` downloads and unpacks a published crate into cargo's own cache.
fn fetch_crate((package, version): (&str, &str)) -> Result<PathBuf> {
    shell(
        "cargo",
        &["info", "--quiet", &format!("{package}@{version}")],
    )?;
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("no cargo home")?;
    for index in
        std::fs::read_dir(home.join("registry/src")).context("listing cargo's unpacked crates")?
    {
        let unpacked = index?.path().join(format!("{package}-{version}"));
        if unpacked.is_dir() {
            return Ok(unpacked);
        }
    }
    bail!(
        "cargo did not unpack {package} {version}; give its folder with --gateway-api or --protobuf"
    )
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
    use super::gateway_kind;

    #[test]
    fn a_number_among_variants_renames_nothing_else() {
        let source = r##"
            pub struct HttpRouteSpec {
                pub code: Option<Code>,
                pub change: Option<Change>,
            }
            pub enum Code {
                #[serde(rename = "308")]
                r#_308,
            }
            pub struct Change {
                pub add: Option<String>,
            }
            pub struct HttpRouteStatus {}
        "##;
        let kinds = gateway_kind(source, "HTTPRoute").unwrap();
        let spec = &kinds["io.k8s.networking.gateway.v1.HTTPRoute"]["properties"]["spec"];
        assert_eq!(spec["properties"]["code"]["enum"][0], 308);
        let change = &spec["properties"]["change"]["properties"];
        assert_eq!(change["add"]["type"], "string", "{change}");
    }
}
