//! `weft get`: show objects as the table that the server renders, as YAML, JSON or names, by a template or in columns of the user's.
//!
//! What is there is shown even when something else that was named is not; then the command fails at the end. With
//! `--watch`, what is there comes first and every change after it, until the user or the server ends it. Lists come in pages, so that
//! none has to be held twice.

mod order;
mod table;

use std::path::PathBuf;

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use http::header::ACCEPT;
use kube::discovery::{ApiResource, Scope};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde_json::{Value, json};
use weft_kinds::apiextensions::json_path::JsonPath;

use self::table::{Columns, Table};
use super::kinds::{self, Kinds};
use super::manifest;
use super::output::{Output, objects, qualified, qualified_name};
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind and names, as `pods`, `pod web-1`, `deployment/web service/web`, `deploy,rs,pods` or `all`
    #[arg(value_name = "KIND [NAME]", required_unless_present_any = ["raw", "filename"], conflicts_with = "filename")]
    what: Vec<String>,
    /// What these manifests name: files, folders, or - for stdin
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["selector", "field_selector", "all_namespaces"])]
    filename: Vec<PathBuf>,
    /// Folders with what is in folders in them
    #[arg(short = 'R', long, requires = "filename")]
    recursive: bool,
    /// Print what the server answers to a GET of this path, as it is
    #[arg(long, value_name = "PATH", conflicts_with_all = ["what", "filename", "selector", "output", "watch"])]
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
    /// How to print them: wide, yaml, json, name, jsonpath='TEMPLATE' or custom-columns=HEADER:PATH,…
    #[arg(short, long)]
    output: Option<Output>,
    /// In the order of what is at this path in them, as .metadata.creationTimestamp
    #[arg(long, value_name = "PATH", value_parser = order::path, conflicts_with = "watch")]
    sort_by: Option<JsonPath>,
    /// Of each object this part: status or scale
    #[arg(long, value_name = "NAME", value_parser = ["status", "scale"])]
    subresource: Option<String>,
    /// Go on with every change from now on
    #[arg(short, long)]
    watch: bool,
    /// Every change from now on, without what is there
    #[arg(long)]
    watch_only: bool,
    /// With what happened to each object: ADDED, MODIFIED or DELETED
    #[arg(long)]
    output_watch_events: bool,
    /// With the labels in a last column
    #[arg(long)]
    show_labels: bool,
    /// With these labels in a column each
    #[arg(short = 'L', long, value_name = "LABEL", value_delimiter = ',')]
    label_columns: Vec<String>,
    /// With the kind before each name
    #[arg(long)]
    show_kind: bool,
    /// Without the line of column names
    #[arg(long)]
    no_headers: bool,
    /// It is no error when an object is not there
    #[arg(long)]
    ignore_not_found: bool,
    /// Objects that are asked for at once; 0 for all
    #[arg(long, value_name = "NUMBER", default_value_t = 500)]
    chunk_size: u32,
    #[command(flatten)]
    client: ClientArgs,
}

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

/// A kind, and the names of its objects in a namespace, or none for all of them.
struct Target {
    resource: ApiResource,
    scope: Scope,
    names: Vec<String>,
    /// That of a manifest, instead of that of the command.
    namespace: Option<String>,
}

/// # Errors
/// When the kind or an object is not there, or the cluster does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    if let Some(path) = &args.raw {
        let client = args.client.client().await?;
        return raw(&client, path).await;
    }
    let named = kinds::named(&args.what)?;
    let in_manifests = manifest::read(&args.filename, args.recursive)?;
    let client = args.client.client().await?;
    let mut targets = Vec::new();
    if args.filename.is_empty() {
        let served = Kinds::discover(&client).await?;
        for named in named {
            for kind in served.find(&named.kind)? {
                targets.push(Target {
                    resource: kind.resource.clone(),
                    scope: kind.scope.clone(),
                    names: named.names.clone(),
                    namespace: None,
                });
            }
        }
    } else {
        let mut resources = manifest::Resources::default();
        for object in &in_manifests {
            let (resource, capabilities) = resources.resolve(&client, object).await?;
            targets.push(Target {
                resource,
                scope: capabilities.scope,
                names: vec![object.name().to_owned()],
                namespace: object.namespace().map(str::to_owned),
            });
        }
    }
    let by_name = targets.iter().any(|target| !target.names.is_empty());
    let refused = |what: &str, why: &str, next: &str| -> anyhow::Result<()> {
        Err(Failure::new(what, why, next).usage().into())
    };
    if args.all_namespaces && by_name {
        return refused(
            "cannot get an object by name in all namespaces",
            "a name is unique only within its namespace",
            "name the namespace with -n, or leave out the name",
        );
    }
    if by_name && args.selector.is_some() {
        return refused(
            "cannot select by labels what is named",
            "a name is of one object already",
            "leave out the names, or -l",
        );
    }
    if args.subresource.is_some() && targets.iter().any(|target| target.names.is_empty()) {
        return refused(
            "cannot get a part of all objects",
            "a subresource is of one object",
            "name the objects",
        );
    }
    let request = Request {
        args: &args,
        client,
    };
    if args.watch || args.watch_only {
        return match targets.as_slice() {
            [target] if target.names.len() < 2 => request.watch(target).await,
            _ => refused(
                "cannot watch that",
                "several kinds or objects were named",
                "watch one kind, or one object: `weft get pods --watch`",
            ),
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
    fn path(&self, target: &Target, name: Option<&str>, more: &[(&str, &str)]) -> String {
        let mut path = self.list_path(target);
        let mut query: Vec<(&str, &str)> = Vec::new();
        if let Some(name) = name {
            path = format!("{path}/{}", encode(name));
            if let Some(part) = &self.args.subresource {
                path = format!("{path}/{part}");
            }
        } else {
            let selectors = [
                ("labelSelector", self.args.selector.as_deref()),
                ("fieldSelector", self.args.field_selector.as_deref()),
            ];
            query.extend(
                selectors
                    .iter()
                    .filter_map(|(key, value)| Some((*key, (*value)?))),
            );
        }
        query.extend_from_slice(more);
        if self.as_table() && self.args.sort_by.is_some() {
            query.push(("includeObject", "Object"));
        }
        let query: Vec<String> = query
            .iter()
            .map(|(key, value)| format!("{key}={}", encode(value)))
            .collect();
        match query.as_slice() {
            [] => path,
            query => format!("{path}?{}", query.join("&")),
        }
    }

    fn list_path(&self, target: &Target) -> String {
        let resource = &target.resource;
        let base = match resource.group.as_str() {
            "" => format!("/api/{}", resource.version),
            group => format!("/apis/{group}/{}", resource.version),
        };
        match target.scope {
            Scope::Namespaced if !self.args.all_namespaces => {
                let namespace = target
                    .namespace
                    .as_deref()
                    .or(self.args.namespace.as_deref());
                let namespace = namespace.unwrap_or(self.client.default_namespace());
                format!(
                    "{base}/namespaces/{}/{}",
                    encode(namespace),
                    resource.plural
                )
            }
            _ => format!("{base}/{}", resource.plural),
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

    /// What is at a path; None where nothing is, and that is no error.
    async fn fetch(&self, target: &Target, path: &str) -> Result<Option<Value>, Failure> {
        match self.client.request(self.http(path)?).await {
            Ok(answer) => Ok(Some(answer)),
            Err(kube::Error::Api(status)) if status.code == 404 && self.args.ignore_not_found => {
                Ok(None)
            }
            Err(error) => Err(api_failure(
                format!("cannot get {}", target.resource.plural),
                &error,
            )),
        }
    }

    /// All pages of a list.
    async fn pages(&self, target: &Target) -> Result<Vec<Value>, Failure> {
        let limit = self.args.chunk_size.to_string();
        let mut pages = Vec::new();
        let mut next = String::new();
        loop {
            let mut query = Vec::new();
            if self.args.chunk_size > 0 {
                query.push(("limit", limit.as_str()));
            }
            if !next.is_empty() {
                query.push(("continue", next.as_str()));
            }
            let request = self.http(&self.path(target, None, &query))?;
            let page: Value = match self.client.request(request).await {
                Ok(page) => page,
                // The state that the pages are of is gone: all at once, then.
                Err(kube::Error::Api(status)) if status.code == 410 && !next.is_empty() => {
                    return Ok(self
                        .fetch(target, &self.path(target, None, &[]))
                        .await?
                        .into_iter()
                        .collect());
                }
                Err(error) => {
                    let what = format!("cannot get {}", target.resource.plural);
                    return Err(api_failure(what, &error));
                }
            };
            next = text(&page, "/metadata/continue").to_owned();
            pages.push(page);
            if next.is_empty() {
                return Ok(pages);
            }
        }
    }

    /// Shows what is there now.
    async fn once(&self, targets: &[Target]) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        let mut collected = Vec::new();
        let mut shown = 0;
        for target in targets {
            let mut answers = Vec::new();
            if target.names.is_empty() {
                answers = self.pages(target).await?;
            }
            for name in &target.names {
                match self
                    .fetch(target, &self.path(target, Some(name), &[]))
                    .await
                {
                    Ok(answer) => answers.extend(answer),
                    Err(failure) => missing.push(failure),
                }
            }
            if self.as_table() {
                if let Some(path) = &self.args.sort_by {
                    answers = vec![sorted_table(answers, path)];
                }
                let mut table = Table::new(self.columns(target, targets.len() > 1));
                let text = table.render(&answers, "");
                if !text.is_empty() {
                    let gap = if shown > 0 { "\n" } else { "" };
                    stdout::text(&format!("{gap}{text}"))?;
                    shown += 1;
                }
            } else {
                let items = answers
                    .into_iter()
                    .flat_map(|answer| objects(answer, &target.resource));
                collected.extend(items);
            }
        }
        match &self.args.output {
            None | Some(Output::Wide) => {
                if shown == 0 && missing.is_empty() && !self.args.ignore_not_found {
                    eprintln!("{}", self.nothing(targets));
                }
            }
            Some(output) => {
                if let Some(path) = &self.args.sort_by {
                    order::sort(&mut collected, path, |object| object);
                }
                let single = matches!(targets, [target] if target.names.len() == 1);
                stdout::text(&output.render(collected, single, !self.args.no_headers)?)?;
            }
        }
        Failure::all(missing, "objects cannot be shown").map_err(Into::into)
    }

    fn nothing(&self, targets: &[Target]) -> String {
        let namespaced = targets
            .iter()
            .any(|target| matches!(target.scope, Scope::Namespaced));
        if !namespaced || self.args.all_namespaces {
            return "No resources found.".to_owned();
        }
        let namespace = self.args.namespace.as_deref();
        let namespace = namespace.unwrap_or(self.client.default_namespace());
        format!("No resources found in {namespace} namespace.")
    }

    /// Shows what is there, then every change.
    async fn watch(&self, target: &Target) -> anyhow::Result<()> {
        let name = target.names.first();
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
            self.fetch(target, &self.path(target, Some(name), &[]))
                .await?;
        }
        let list = self
            .fetch(target, &self.path(target, None, &select))
            .await?;
        let list = list.unwrap_or_default();
        let mut revision = text(&list, "/metadata/resourceVersion").to_owned();
        let mut table = Table::new(self.columns(target, false));
        if !self.args.watch_only {
            self.show(target, &mut table, "ADDED", list)?;
        }
        loop {
            let mut query = select.clone();
            query.extend([("watch", "1"), ("resourceVersion", revision.as_str())]);
            query.push(("allowWatchBookmarks", "1"));
            let request = self.http(&self.path(target, None, &query))?;
            let plural = &target.resource.plural;
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
                let what = text(&event, "/type");
                if what != "BOOKMARK" {
                    self.show(target, &mut table, what, object)?;
                }
            }
            // The server ends a watch from time to time; it goes on where that one was.
        }
    }

    fn show(
        &self,
        target: &Target,
        table: &mut Table,
        event: &str,
        answer: Value,
    ) -> anyhow::Result<()> {
        let Some(output) = self.args.output.as_ref().filter(|_| !self.as_table()) else {
            return Ok(stdout::text(&table.render(&[answer], event))?);
        };
        for object in objects(answer, &target.resource) {
            match output {
                Output::Name => stdout::line(qualified_name(&object))?,
                Output::Columns(columns) => {
                    let headers = !self.args.no_headers && table.is_first();
                    stdout::text(&columns.render(&[object], headers))?;
                }
                output => {
                    let shown = match self.args.output_watch_events {
                        true => json!({"type": event, "object": object}),
                        false => object,
                    };
                    let between = if *output == Output::Yaml { "---\n" } else { "" };
                    stdout::text(&format!("{between}{}", output.document(&shown)?))?;
                }
            }
        }
        Ok(())
    }

    fn columns(&self, target: &Target, several: bool) -> Columns {
        let args = self.args;
        let kind = || qualified(&target.resource.kind, &target.resource.group);
        Columns {
            namespace: args.all_namespaces && matches!(target.scope, Scope::Namespaced),
            wide: args.output == Some(Output::Wide),
            labels: args.show_labels,
            label_columns: args.label_columns.clone(),
            headers: !args.no_headers,
            event: args.output_watch_events && (args.watch || args.watch_only),
            prefix: (several || args.show_kind).then(kind),
        }
    }
}

/// The rows of several tables in one, in the order of what is at a path in their objects.
fn sorted_table(tables: Vec<Value>, path: &JsonPath) -> Value {
    let mut tables = tables.into_iter();
    let mut first = tables.next().unwrap_or_default();
    let mut rows = match first["rows"].take() {
        Value::Array(rows) => rows,
        _ => Vec::new(),
    };
    for mut table in tables {
        if let Value::Array(more) = table["rows"].take() {
            rows.extend(more);
        }
    }
    order::sort(&mut rows, path, |row| &row["object"]);
    first["rows"] = Value::Array(rows);
    first
}

const AGAIN: &str = "run the command again";

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
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
