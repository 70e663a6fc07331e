//! `weft get`: show objects as the table that the server renders, or as YAML, JSON or names.
//!
//! What is there is shown even when something else that was named is not; then the command fails at the end. With
//! `--watch`, what is there comes first and every change after it, until the user or the server ends it.

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use http::header::ACCEPT;
use kube::discovery::{ApiResource, Scope};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::Value;

use super::kinds::{self, Kind, Kinds};
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Wide,
    Yaml,
    Json,
    Name,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind and names, as `pods`, `pod web-1`, `deployment/web service/web`, `deploy,rs,pods` or `all`
    #[arg(value_name = "KIND [NAME]", required_unless_present = "raw")]
    what: Vec<String>,
    /// Print what the server answers to a GET of this path, as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["what", "selector", "output", "watch"])]
    raw: Option<String>,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Only objects with these labels, as `app=web,tier!=back`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Only objects with these values in fields, as `spec.nodeName=node-1`
    #[arg(long, value_name = "FIELDS")]
    field_selector: Option<String>,
    /// How to print them, instead of the usual table
    #[arg(short, long)]
    output: Option<Output>,
    /// Go on with every change from now on
    #[arg(short, long)]
    watch: bool,
    /// With the labels in a last column
    #[arg(long)]
    show_labels: bool,
    /// Without the line of column names
    #[arg(long)]
    no_headers: bool,
    #[command(flatten)]
    client: ClientArgs,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// # Errors
/// When the kind or an object is not there, or the cluster does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(path) = &args.raw {
        let client = args.client.client().await?;
        return raw(&client, path).await;
    }
    let named = kinds::named(&args.what)?;
    let client = args.client.client().await?;
    let served = Kinds::discover(&client).await?;
    let mut targets = Vec::new();
    for named in named {
        for kind in served.find(&named.kind)? {
            targets.push((kind, named.names.clone()));
        }
    }
    if args.all_namespaces && targets.iter().any(|(_, names)| !names.is_empty()) {
        return Err(Failure::new(
            "cannot get an object by name in all namespaces",
            "a name is unique only within its namespace",
            "name the namespace with -n, or leave out the name",
        )
        .usage()
        .into());
    }
    let request = Request {
        args: &args,
        client,
    };
    if args.watch {
        return match targets.as_slice() {
            [(kind, names)] if names.len() < 2 => request.watch(kind, names.first()).await,
            _ => Err(Failure::new(
                "cannot watch that",
                "several kinds or objects were named",
                "watch one kind, or one object: `weft get pods --watch`",
            )
            .usage()
            .into()),
        };
    }
    request.once(&targets).await
}

async fn raw(client: &kube::Client, path: &str) -> anyhow::Result<()> {
    let failure = |why: String| {
        let next = "give a path such as /healthz or /api/v1/nodes";
        Failure::new(format!("cannot get {path:?}"), why, next).usage()
    };
    if !path.starts_with('/') {
        return Err(failure("a path begins with /".to_owned()).into());
    }
    let request = http::Request::get(path)
        .body(Vec::new())
        .map_err(|error| failure(error.to_string()))?;
    let answer = client
        .request_text(request)
        .await
        .map_err(|error| api_failure(format!("cannot get {path}"), &error))?;
    Ok(stdout::text(&answer)?)
}

struct Request<'a> {
    args: &'a Args,
    client: kube::Client,
}

impl Request<'_> {
    fn as_table(&self) -> bool {
        matches!(self.args.output, None | Some(Output::Wide))
    }

    /// The path of a list or of one object, with what selects in the list.
    fn path(&self, kind: &Kind, name: Option<&str>, more: &[(&str, &str)]) -> String {
        let list = list_path(self.args, &self.client, &kind.resource, &kind.scope);
        if let Some(name) = name {
            return format!("{list}/{}", encode(name));
        }
        let selectors = [
            ("labelSelector", self.args.selector.as_deref()),
            ("fieldSelector", self.args.field_selector.as_deref()),
        ];
        let query: Vec<String> = selectors
            .iter()
            .filter_map(|(key, value)| Some((*key, (*value)?)))
            .chain(more.iter().copied())
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        match query.as_slice() {
            [] => list,
            query => format!("{list}?{}", query.join("&")),
        }
    }

    fn http(&self, path: &str) -> Result<http::Request<Vec<u8>>, Failure> {
        let accept = if self.as_table() {
            TABLE
        } else {
            "application/json"
        };
        http::Request::get(path)
            .header(ACCEPT, accept)
            .body(Vec::new())
            .map_err(|error| Failure::new(format!("cannot get {path}"), error, "").usage())
    }

    async fn fetch(&self, kind: &Kind, path: &str) -> Result<Value, Failure> {
        let plural = &kind.resource.plural;
        self.client
            .request(self.http(path)?)
            .await
            .map_err(|error| api_failure(format!("cannot get {plural}"), &error))
    }

    /// Shows what is there now.
    async fn once(&self, targets: &[(&Kind, Vec<String>)]) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let mut collected = Vec::new();
        let mut shown = 0;
        for (kind, names) in targets {
            let paths = match names.as_slice() {
                [] => vec![self.path(kind, None, &[])],
                names => names
                    .iter()
                    .map(|name| self.path(kind, Some(name), &[]))
                    .collect(),
            };
            let mut answers = Vec::new();
            for path in paths {
                match self.fetch(kind, &path).await {
                    Ok(answer) => answers.push(answer),
                    Err(failure) if names.is_empty() => return Err(failure.into()),
                    Err(failure) => missing.push(failure),
                }
            }
            if self.as_table() {
                let mut table = Table::new(self.columns(kind, targets.len() > 1));
                let text = table.render(&answers);
                if !text.is_empty() {
                    let gap = if shown > 0 { "\n" } else { "" };
                    stdout::text(&format!("{gap}{text}"))?;
                    shown += 1;
                }
            } else {
                collected.extend(
                    answers
                        .into_iter()
                        .flat_map(|answer| objects(answer, &kind.resource)),
                );
            }
        }
        match self.args.output {
            Some(output @ (Output::Json | Output::Yaml)) => {
                let single = matches!(targets, [(_, names)] if names.len() == 1);
                let value = match (single, collected.len()) {
                    (true, 1) => collected.remove(0),
                    (true, 0) => Value::Null,
                    _ => {
                        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": collected})
                    }
                };
                if !value.is_null() {
                    stdout::text(&document(&value, output)?)?;
                }
            }
            Some(Output::Name) => {
                for object in &collected {
                    stdout::line(qualified_name(object))?;
                }
            }
            None | Some(Output::Wide) if shown == 0 && missing.is_empty() => {
                eprintln!("{}", self.nothing(targets));
            }
            None | Some(Output::Wide) => {}
        }
        Failure::all(missing, "objects cannot be shown").map_err(Into::into)
    }

    fn nothing(&self, targets: &[(&Kind, Vec<String>)]) -> String {
        let namespaced = targets
            .iter()
            .any(|(kind, _)| matches!(kind.scope, Scope::Namespaced));
        if !namespaced || self.args.all_namespaces {
            return "No resources found.".to_owned();
        }
        let namespace = self.args.namespace.as_deref();
        let namespace = namespace.unwrap_or(self.client.default_namespace());
        format!("No resources found in {namespace} namespace.")
    }

    /// Shows what is there, then every change.
    async fn watch(&self, kind: &Kind, name: Option<&String>) -> anyhow::Result<()> {
        let by_name = name.map(|name| format!("metadata.name={name}"));
        if by_name.is_some() && self.args.field_selector.is_some() {
            return Err(Failure::new(
                "cannot watch that",
                "an object was named and selected by its fields",
                "leave out one of the two",
            )
            .usage()
            .into());
        }
        let mut select: Vec<(&str, &str)> = Vec::new();
        if let Some(by_name) = &by_name {
            select.push(("fieldSelector", by_name));
        }
        if let Some(name) = name {
            // A list of nothing would wait for an object that may be a typing error.
            self.fetch(kind, &self.path(kind, Some(name), &[])).await?;
        }
        let list = self.fetch(kind, &self.path(kind, None, &select)).await?;
        let mut revision = text(&list, "/metadata/resourceVersion").to_owned();
        let mut table = Table::new(self.columns(kind, false));
        self.show(kind, &mut table, list)?;
        loop {
            let mut query = select.clone();
            query.extend([("watch", "1"), ("resourceVersion", revision.as_str())]);
            query.push(("allowWatchBookmarks", "1"));
            let request = self.http(&self.path(kind, None, &query))?;
            let plural = &kind.resource.plural;
            let failed =
                |why: String| Failure::new(format!("cannot go on watching {plural}"), why, AGAIN);
            let stream = self
                .client
                .request_stream(request)
                .await
                .map_err(|error| api_failure(format!("cannot watch {plural}"), &error))?;
            let mut lines = stream.lines();
            while let Some(line) = lines
                .try_next()
                .await
                .map_err(|error| failed(error.to_string()))?
            {
                let mut event: Value = serde_json::from_str(&line)?;
                let object = event["object"].take();
                if event["type"] == "ERROR" {
                    return Err(failed(text(&object, "/message").to_owned()).into());
                }
                for pointer in [
                    "/metadata/resourceVersion",
                    "/rows/0/object/metadata/resourceVersion",
                ] {
                    match text(&object, pointer) {
                        "" => {}
                        seen => revision = seen.to_owned(),
                    }
                }
                if event["type"] != "BOOKMARK" {
                    self.show(kind, &mut table, object)?;
                }
            }
            // The server ends a watch from time to time; it goes on where that one was.
        }
    }

    fn show(&self, kind: &Kind, table: &mut Table, answer: Value) -> anyhow::Result<()> {
        let Some(output) = self.args.output.filter(|_| !self.as_table()) else {
            return Ok(stdout::text(&table.render(&[answer]))?);
        };
        for object in objects(answer, &kind.resource) {
            match output {
                Output::Name => stdout::line(qualified_name(&object))?,
                Output::Yaml => stdout::text(&format!("---\n{}", document(&object, output)?))?,
                Output::Json | Output::Wide => stdout::text(&document(&object, output)?)?,
            }
        }
        Ok(())
    }

    fn columns(&self, kind: &Kind, several: bool) -> Columns {
        Columns {
            namespace: self.args.all_namespaces && matches!(kind.scope, Scope::Namespaced),
            wide: self.args.output == Some(Output::Wide),
            labels: self.args.show_labels,
            headers: !self.args.no_headers,
            prefix: several.then(|| qualified(&kind.resource.kind, &kind.resource.group)),
        }
    }
}

const AGAIN: &str = "run the command again";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The items of a list, or the one object that was asked for.
fn objects(mut answer: Value, resource: &ApiResource) -> Vec<Value> {
    let Value::Array(mut items) = answer["items"].take() else {
        if let Some(map) = answer.as_object_mut() {
            map.remove("items");
        }
        return vec![answer];
    };
    for item in &mut items {
        // Items of a list leave out what the list says once.
        if item["kind"].is_null() {
            item["kind"] = resource.kind.clone().into();
            item["apiVersion"] = resource.api_version.clone().into();
        }
    }
    items
}

fn document(value: &Value, output: Output) -> anyhow::Result<String> {
    Ok(match output {
        Output::Yaml => serde_saphyr::to_string(value)?,
        _ => serde_json::to_string_pretty(value)? + "\n",
    })
}

/// `deployment.apps/web`
fn qualified_name(object: &Value) -> String {
    let group = text(object, "/apiVersion").split_once('/');
    let group = group.map_or("", |(group, _)| group);
    format!(
        "{}/{}",
        qualified(text(object, "/kind"), group),
        text(object, "/metadata/name")
    )
}

/// `deployment.apps`, or `pod` in the core group.
fn qualified(kind: &str, group: &str) -> String {
    match group {
        "" => kind.to_lowercase(),
        group => format!("{}.{group}", kind.to_lowercase()),
    }
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

/// All but what a path segment and a query value may hold as it is (RFC 3986 §2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

struct Columns {
    namespace: bool,
    wide: bool,
    labels: bool,
    headers: bool,
    /// `pod/` before each name, when several kinds are shown.
    prefix: Option<String>,
}

/// A table that may grow: the server's tables as one, columns three spaces apart.
struct Table {
    columns: Columns,
    headed: bool,
    widths: Vec<usize>,
}

impl Table {
    fn new(columns: Columns) -> Self {
        let headed = !columns.headers;
        Self {
            columns,
            headed,
            widths: Vec::new(),
        }
    }

    /// The rows of `tables`, below the names of the columns the first time; empty when there are no rows.
    fn render(&mut self, tables: &[Value]) -> String {
        let columns = &self.columns;
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let mut rows = Vec::new();
        for table in tables {
            let shown: Vec<(usize, String)> = list(&table["columnDefinitions"])
                .iter()
                .enumerate()
                .filter(|(_, c)| columns.wide || c["priority"].as_i64().unwrap_or(0) == 0)
                .map(|(i, c)| (i, text(c, "/name").to_uppercase()))
                .collect();
            for row in list(&table["rows"]) {
                if !self.headed {
                    self.headed = true;
                    let mut header: Vec<String> =
                        shown.iter().map(|(_, name)| name.clone()).collect();
                    if columns.namespace {
                        header.insert(0, "NAMESPACE".into());
                    }
                    if columns.labels {
                        header.push("LABELS".into());
                    }
                    rows.push(header);
                }
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
                    line.insert(0, text(&row, "/object/metadata/namespace").to_owned());
                }
                if columns.labels {
                    line.push(labels(&row["object"]["metadata"]["labels"]));
                }
                rows.push(line);
            }
        }
        for row in &rows {
            self.widths.resize(self.widths.len().max(row.len()), 0);
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut out = String::new();
        for row in rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&self.widths) {
                line.push_str(&format!("{cell:<width$}   "));
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

fn labels(labels: &Value) -> String {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    match pairs.as_slice() {
        [] => "<none>".to_owned(),
        pairs => pairs.join(","),
    }
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

    fn columns() -> Columns {
        Columns {
            namespace: false,
            wide: false,
            labels: false,
            headers: true,
            prefix: None,
        }
    }

    fn table(rows: Value) -> Value {
        json!({
            "columnDefinitions": [{"name": "Name"}, {"name": "IP", "priority": 1}, {"name": "Restarts"}],
            "rows": rows,
        })
    }

    #[test]
    fn tables_align_and_hide_wide_columns() {
        let two = table(json!([
            {"cells": ["web", "10.0.0.1", 0], "object": {"metadata": {"namespace": "n", "labels": {"app": "web"}}}},
            {"cells": ["a\u{1b}[31m", "10.0.0.2", 12], "object": {"metadata": {"namespace": "longer"}}},
        ]));
        let render = |columns: Columns| Table::new(columns).render(std::slice::from_ref(&two));
        let prefix = Some("pod".to_owned());
        assert_eq!(
            render(Columns {
                prefix,
                ..columns()
            }),
            "NAME         RESTARTS\npod/web      0\npod/a\u{fffd}[31m   12\n"
        );
        let everywhere = Columns {
            namespace: true,
            wide: true,
            ..columns()
        };
        assert!(render(everywhere).starts_with("NAMESPACE   NAME     IP         RESTARTS\n"));
        let labelled = Columns {
            labels: true,
            headers: false,
            ..columns()
        };
        assert_eq!(
            render(labelled),
            "web      0    app=web\na\u{fffd}[31m   12   <none>\n"
        );
        assert_eq!(Table::new(columns()).render(&[table(json!([]))]), "");
    }

    #[test]
    fn a_watched_table_has_one_header_and_keeps_its_columns() {
        let mut growing = Table::new(columns());
        let row = |name: &str| table(json!([{"cells": [name, "", 0]}]));
        assert_eq!(growing.render(&[table(json!([]))]), "");
        assert_eq!(
            growing.render(&[row("voting-1")]),
            "NAME       RESTARTS\nvoting-1   0\n"
        );
        assert_eq!(growing.render(&[row("web-1")]), "web-1      0\n");
    }

    #[test]
    fn names_carry_the_group() {
        for (version, name) in [("v1", "pod/a"), ("apps/v1", "pod.apps/a")] {
            let object = json!({"apiVersion": version, "kind": "Pod", "metadata": {"name": "a"}});
            assert_eq!(qualified_name(&object), name);
        }
    }
}
