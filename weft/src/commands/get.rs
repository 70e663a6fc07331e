//! `weft get`: show objects as the table that the server renders, or as YAML, JSON or names.

use std::io::Write as _;

use http::header::ACCEPT;
use kube::discovery::{ApiResource, Scope};
use serde_json::Value;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind and names, as `pods`, `pod web-1`, `deployment/web` or `deploy,rs,pods`
    #[arg(value_name = "KIND [NAME]", required_unless_present = "raw")]
    what: Vec<String>,
    /// Print what the server answers to a GET of this path, as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["what", "selector", "output"])]
    raw: Option<String>,
    #[arg(short, long)]
    namespace: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// # Errors
/// When the kind or an object is not there, or the cluster does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(path) = &args.raw {
        let client = args.client.client().await?;
        let request = http::Request::get(path).body(Vec::new())?;
        let text = client
            .request_text(request)
            .await
            .map_err(|error| api_failure(format!("cannot get {path}"), &error))?;
        std::io::stdout().write_all(text.as_bytes())?;
        return Ok(());
    }
    let (kinds, names) = kind_and_names(&args.what)?;
    let client = args.client.client().await?;
    let kinds: Vec<&str> = kinds.split(',').collect();
    let mut collected = Vec::new();
    for (i, kind) in kinds.iter().enumerate() {
        let (resource, scope) = find(&client, kind).await?;
        let mut paths = Vec::new();
        let list = list_path(&args, &client, &resource, &scope);
        if names.is_empty() {
            let query = args
                .selector
                .as_deref()
                .map(|selector| format!("?labelSelector={}", encode(selector)))
                .unwrap_or_default();
            paths.push(format!("{list}{query}"));
        } else {
            paths.extend(names.iter().map(|name| format!("{list}/{}", encode(name))));
        }
        let tables = matches!(args.output, None | Some(Output::Wide));
        let mut answers = Vec::new();
        for path in paths {
            let accept = if tables { TABLE } else { "application/json" };
            let request = http::Request::get(path)
                .header(ACCEPT, accept)
                .body(Vec::new())?;
            let answer: Value = client
                .request(request)
                .await
                .map_err(|error| api_failure(format!("cannot get {kind}"), &error))?;
            answers.push(answer);
        }
        if tables {
            let columns = Columns {
                namespace: args.all_namespaces && matches!(scope, Scope::Namespaced),
                wide: args.output == Some(Output::Wide),
                prefix: (kinds.len() > 1).then(|| resource.kind.to_lowercase()),
            };
            let text = render(&answers, &columns);
            let mut out = std::io::stdout().lock();
            if text.is_empty() && kinds.len() == 1 {
                eprintln!("No resources found.");
            } else if !text.is_empty() {
                if i > 0 {
                    writeln!(out)?;
                }
                out.write_all(text.as_bytes())?;
            }
        } else {
            for answer in answers {
                match answer["items"].as_array() {
                    Some(items) => collected.extend(items.iter().cloned().map(|mut item| {
                        // Items of a list leave out what the list says once.
                        if item["kind"].is_null() {
                            item["kind"] = resource.kind.clone().into();
                            item["apiVersion"] = resource.api_version.clone().into();
                        }
                        item
                    })),
                    None => collected.push(answer),
                }
            }
        }
    }
    match args.output {
        Some(Output::Json | Output::Yaml) => {
            let value = match (names.len(), collected.len()) {
                (1, 1) => collected.remove(0),
                _ => serde_json::json!({"apiVersion": "v1", "kind": "List", "items": collected}),
            };
            let text = if args.output == Some(Output::Json) {
                serde_json::to_string_pretty(&value)? + "\n"
            } else {
                serde_saphyr::to_string(&value)?
            };
            std::io::stdout().lock().write_all(text.as_bytes())?;
        }
        Some(Output::Name) => {
            for object in collected {
                let kind = object["kind"].as_str().unwrap_or_default().to_lowercase();
                println!(
                    "{kind}/{}",
                    object["metadata"]["name"].as_str().unwrap_or_default()
                );
            }
        }
        None | Some(Output::Wide) => {}
    }
    Ok(())
}

/// Splits `pod a b`, `pod/a` and `pods` into the kind and the names.
///
/// # Errors
/// A [`Failure`] when both forms are mixed.
pub fn kind_and_names(what: &[String]) -> Result<(String, Vec<String>), Failure> {
    let mixed = || {
        Failure::new(
            "cannot tell which objects are meant",
            "KIND/NAME and KIND NAME are mixed",
            "write `pod a b` or `pod/a pod/b`",
        )
        .usage()
    };
    let Some(first) = what.first() else {
        return Ok((String::new(), Vec::new()));
    };
    if !first.contains('/') {
        if what.iter().skip(1).any(|name| name.contains('/')) {
            return Err(mixed());
        }
        return Ok((first.clone(), what[1..].to_vec()));
    }
    let mut kind = None;
    let mut names = Vec::new();
    for text in what {
        match text.split_once('/') {
            Some((k, name)) if kind.is_none_or(|kind| kind == k) => {
                kind = Some(k);
                names.push(name.to_owned());
            }
            _ => return Err(mixed()),
        }
    }
    Ok((kind.unwrap_or_default().to_owned(), names))
}

/// Finds a kind by plural, singular, short name or kind, as kubectl does.
///
/// # Errors
/// A [`Failure`] when the cluster serves no such kind or does not answer.
pub async fn find(client: &kube::Client, kind: &str) -> Result<(ApiResource, Scope), Failure> {
    let what = || format!("cannot find the kind {kind:?}");
    let wanted = kind.to_lowercase();
    let mut groups = vec![("api/v1".to_owned(), String::new(), "v1".to_owned())];
    let listed = client
        .list_api_groups()
        .await
        .map_err(|error| api_failure(what(), &error))?;
    for group in listed.groups {
        let version = group
            .preferred_version
            .as_ref()
            .or(group.versions.first())
            .map(|version| version.version.clone())
            .unwrap_or_default();
        groups.push((
            format!("apis/{}/{version}", group.name),
            group.name,
            version,
        ));
    }
    for (path, group, version) in groups {
        let request = http::Request::get(format!("/{path}"))
            .body(Vec::new())
            .map_err(|error| Failure::new(what(), error, ""))?;
        let list: Value = client
            .request(request)
            .await
            .map_err(|error| api_failure(what(), &error))?;
        for resource in list["resources"].as_array().into_iter().flatten() {
            let text = |key: &str| resource[key].as_str().unwrap_or_default();
            let short = resource["shortNames"].as_array().into_iter().flatten();
            let qualified = format!("{}.{group}", text("name"));
            let is_it = [text("name"), text("singularName"), &qualified].contains(&wanted.as_str())
                || text("kind").to_lowercase() == wanted
                || short.filter_map(Value::as_str).any(|name| name == wanted);
            if !is_it || text("name").contains('/') {
                continue;
            }
            let scope = if resource["namespaced"] == Value::Bool(true) {
                Scope::Namespaced
            } else {
                Scope::Cluster
            };
            let api_version = if group.is_empty() {
                version.clone()
            } else {
                format!("{group}/{version}")
            };
            let resource = ApiResource {
                plural: text("name").into(),
                kind: text("kind").into(),
                group,
                version,
                api_version,
            };
            return Ok((resource, scope));
        }
    }
    Err(Failure::new(
        what(),
        "the cluster serves no such kind",
        "`kubectl api-resources` lists what is served",
    ))
}

fn list_path(args: &Args, client: &kube::Client, resource: &ApiResource, scope: &Scope) -> String {
    let base = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    match scope {
        Scope::Namespaced if !args.all_namespaces => {
            let namespace = args
                .namespace
                .as_deref()
                .unwrap_or(client.default_namespace());
            format!(
                "{base}/namespaces/{}/{}",
                encode(namespace),
                resource.plural
            )
        }
        _ => format!("{base}/{}", resource.plural),
    }
}

/// Percent-encodes everything but what a path segment or query value may hold as it is.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

struct Columns {
    namespace: bool,
    wide: bool,
    /// `pod/` before each name, when several kinds are shown.
    prefix: Option<String>,
}

/// Renders the server's tables as one, columns three spaces apart; empty when there are no rows.
fn render(tables: &[Value], columns: &Columns) -> String {
    let Some(first) = tables.first() else {
        return String::new();
    };
    let empty = Vec::new();
    let list = |value: &Value| value.as_array().unwrap_or(&empty).clone();
    let shown: Vec<(usize, String)> = list(&first["columnDefinitions"])
        .iter()
        .enumerate()
        .filter(|(_, c)| columns.wide || c["priority"].as_i64().unwrap_or(0) == 0)
        .map(|(i, c)| (i, c["name"].as_str().unwrap_or_default().to_uppercase()))
        .collect();
    let mut header: Vec<String> = shown.iter().map(|(_, name)| name.clone()).collect();
    if columns.namespace {
        header.insert(0, "NAMESPACE".into());
    }
    let mut rows = vec![header];
    for table in tables {
        for row in list(&table["rows"]) {
            let cells = list(&row["cells"]);
            let mut line: Vec<String> = shown
                .iter()
                .map(|(i, _)| match cells.get(*i) {
                    Some(Value::String(text)) => printable(text),
                    Some(Value::Null) | None => String::new(),
                    Some(other) => other.to_string(),
                })
                .collect();
            if let (Some(prefix), Some(name)) = (&columns.prefix, line.first_mut()) {
                *name = format!("{prefix}/{name}");
            }
            if columns.namespace {
                let namespace = row["object"]["metadata"]["namespace"]
                    .as_str()
                    .unwrap_or_default();
                line.insert(0, namespace.to_owned());
            }
            rows.push(line);
        }
    }
    if rows.len() == 1 {
        return String::new();
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|i| {
            rows.iter()
                .map(|row| row[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Control characters could make a terminal do things; they are shown, not sent.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_named_as_in_kubectl() {
        let split = |text: &str| {
            let what: Vec<String> = text.split(' ').map(str::to_owned).collect();
            kind_and_names(&what).map(|(kind, names)| format!("{kind}:{}", names.join("+")))
        };
        assert_eq!(split("pods").unwrap(), "pods:");
        assert_eq!(split("pod a b").unwrap(), "pod:a+b");
        assert_eq!(split("pod/a pod/b").unwrap(), "pod:a+b");
        assert!(split("pod/a svc/b").is_err());
        assert!(split("pod a/b").is_err());
    }

    #[test]
    fn tables_align_and_hide_wide_columns() {
        let table = json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "IP", "priority": 1}, {"name": "Restarts"}],
            "rows": [
                {"cells": ["web", "10.0.0.1", 0], "object": {"metadata": {"namespace": "n"}}},
                {"cells": ["a\u{1b}[31m", "10.0.0.2", 12], "object": {"metadata": {"namespace": "longer"}}},
            ],
        });
        let narrow = Columns {
            namespace: false,
            wide: false,
            prefix: Some("pod".into()),
        };
        assert_eq!(
            render(std::slice::from_ref(&table), &narrow),
            "NAME         RESTARTS\npod/web      0\npod/a\u{fffd}[31m   12\n"
        );
        let wide = Columns {
            namespace: true,
            wide: true,
            prefix: None,
        };
        assert!(render(&[table], &wide).starts_with("NAMESPACE   NAME     IP         RESTARTS\n"));
        assert_eq!(render(&[json!({"rows": []})], &wide), "");
    }
}
