//! `weft mesh`: what the mesh knows of itself and of the calls that it carries.
//!
//! ```text
//! check    whether it is well: nodes, certificates, tables, what was left out
//! stat     calls to each workload (or from it): how many, how many failed, how long they took
//! top      the same, anew each second
//! edges    who calls whom
//! tap      calls as they end
//! routes   which rules calls to a Service follow
//! config   what a node goes by
//! why      why calls from one workload to a Service fail
//! ```
//! All of it is read through the API, under its permissions; `-o json` gives it as the API does.
//!
//! Left to others: the figures (`weft_apiserver::http::edges`), the rest of the cluster's objects.

mod check;
mod figures;
mod routes;
mod tap;
mod why;

use std::fmt::Write as _;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use futures::{AsyncBufReadExt as _, StreamExt as _, TryStreamExt as _};
use http::Request;
use serde_json::Value;

use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;
use figures::{By, edges_text, stat_text};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Look whether the mesh is well
    Check(check::Args),
    /// Show how calls to each workload go
    Stat(StatArgs),
    /// Show that anew each second
    Top(StatArgs),
    /// Show who calls whom
    Edges(EdgesArgs),
    /// Show calls as they end
    Tap(tap::Args),
    /// Show which rules calls to a Service follow
    Routes(routes::Args),
    /// Show what a node's mesh goes by
    Config(check::ConfigArgs),
    /// Tell why calls from a workload to a Service fail
    Why(why::Args),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    #[default]
    Text,
    Json,
}

/// In which namespace.
#[derive(Debug, clap::Args)]
pub(super) struct Scope {
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long, conflicts_with = "all_namespaces")]
    namespace: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
}

impl Scope {
    /// None for all.
    fn namespace<'s>(&'s self, client: &'s kube::Client) -> Option<&'s str> {
        match self.all_namespaces {
            true => None,
            false => Some(
                self.namespace
                    .as_deref()
                    .unwrap_or(client.default_namespace()),
            ),
        }
    }

    /// Of a resource of the mesh's group.
    fn path(&self, client: &kube::Client, resource: &str) -> String {
        match self.namespace(client) {
            Some(namespace) => {
                format!("/apis/mesh.weft.dev/v1/namespaces/{namespace}/{resource}")
            }
            None => format!("/apis/mesh.weft.dev/v1/{resource}"),
        }
    }
}

#[derive(Debug, clap::Args)]
struct StatArgs {
    #[command(flatten)]
    scope: Scope,
    /// By who calls, instead of by who is called
    #[arg(long)]
    from: bool,
    /// Of the last so long, up to a day
    #[arg(short, long, value_name = "DURATION", default_value = "1m")]
    window: String,
    /// End after so many frames
    #[arg(long, value_name = "NUMBER", hide = true)]
    frames: Option<usize>,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

#[derive(Debug, clap::Args)]
struct EdgesArgs {
    #[command(flatten)]
    scope: Scope,
    /// Of the last so long, up to a day
    #[arg(short, long, value_name = "DURATION", default_value = "1m")]
    window: String,
    /// How it is written
    #[arg(short, long, value_enum, default_value_t)]
    output: Form,
}

/// # Errors
/// What the server says, and what keeps it from being asked.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    match args.command {
        Command::Check(args) => check::run(&client, &args).await,
        Command::Config(args) => check::config(&client, &args).await,
        Command::Stat(args) => stat(&client, &args).await,
        Command::Top(args) => top(&client, &args).await,
        Command::Edges(args) => edges(&client, &args).await,
        Command::Tap(args) => tap::run(&client, &args).await,
        Command::Routes(args) => routes::run(&client, &args).await,
        Command::Why(args) => why::run(&client, &args).await,
    }
}

/// What the API has at a path.
async fn read(client: &kube::Client, path: &str, cannot: &str) -> Result<Value, Failure> {
    let request = Request::get(path).body(Vec::new());
    let request = request
        .map_err(|error| Failure::new(cannot, error, "write the names as they are").usage())?;
    let answer = client.request::<Value>(request).await;
    answer.map_err(|error| api_failure(cannot, &error))
}

/// Edges of the time before now.
async fn read_edges(
    client: &kube::Client,
    scope: &Scope,
    window: &str,
    cannot: &str,
) -> Result<Value, Failure> {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("window", window);
    let path = format!("{}?{}", scope.path(client, "edges"), query.finish());
    read(client, &path, cannot).await
}

async fn edges(client: &kube::Client, args: &EdgesArgs) -> anyhow::Result<()> {
    let list = read_edges(client, &args.scope, &args.window, "cannot read the edges").await?;
    let text = match args.output {
        Form::Json => pretty(&list),
        Form::Text => edges_text(&list),
    };
    Ok(stdout::text(&text)?)
}

fn by(args: &StatArgs) -> By {
    match args.from {
        true => By::Source,
        false => By::Destination,
    }
}

async fn stat(client: &kube::Client, args: &StatArgs) -> anyhow::Result<()> {
    let list = read_edges(client, &args.scope, &args.window, "cannot read the figures").await?;
    let text = match args.output {
        Form::Json => pretty(&figures::stat(&list, by(args))),
        Form::Text => stat_text(&list, by(args)),
    };
    Ok(stdout::text(&text)?)
}

/// Until the watch ends, or whoever looks has seen enough.
async fn top(client: &kube::Client, args: &StatArgs) -> anyhow::Result<()> {
    let cannot = "cannot watch the figures";
    let path = format!("{}?watch=true", args.scope.path(client, "edges"));
    let request = Request::get(path).body(Vec::new())?;
    let lines = client.request_stream(request).await;
    let lines = lines.map_err(|error| api_failure(cannot, &error))?.lines();
    let mut lines = lines.take(args.frames.unwrap_or(usize::MAX));
    let is_screen = std::io::IsTerminal::is_terminal(&std::io::stdout());
    while let Some(line) = lines.try_next().await? {
        let event: Value = serde_json::from_str(&line)?;
        let list = &event["object"];
        let text = match args.output {
            Form::Json => format!("{}\n", figures::stat(list, by(args))),
            Form::Text => stat_text(list, by(args)),
        };
        let mut frame = String::new();
        if is_screen && args.output == Form::Text {
            // From the corner of an empty screen.
            frame.push_str("\u{1b}[H\u{1b}[2J");
        }
        let _ = write!(frame, "{text}");
        stdout::text(&frame)?;
    }
    Ok(())
}

fn pretty(value: &Value) -> String {
    format!(
        "{}\n",
        serde_json::to_string_pretty(value).unwrap_or_default()
    )
}

/// A time as people read it: three digits, and a unit.
fn shown_micros(micros: f64) -> String {
    let (value, unit) = match micros {
        micros if micros < 1e3 => (micros, "µs"),
        micros if micros < 1e6 => (micros / 1e3, "ms"),
        micros => (micros / 1e6, "s"),
    };
    match value {
        value if value < 10.0 => format!("{value:.2}{unit}"),
        value if value < 100.0 => format!("{value:.1}{unit}"),
        value => format!("{value:.0}{unit}"),
    }
}

/// How long to wait for one answer of a node.
const NODE_MAX: Duration = Duration::from_secs(5);
