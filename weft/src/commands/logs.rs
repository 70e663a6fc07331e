//! `weft logs`: show what a pod's component printed.

use std::borrow::Cow;
use std::io::IsTerminal as _;

use futures::{AsyncBufReadExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use tokio::io::AsyncWriteExt as _;
use weft_api::annotation;

use super::pods::{named, of_owner};
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

/// Log streams that are followed at once, where nothing else is said; as kubectl's.
const FOLLOWED_MAX: usize = 5;
/// Last lines of each container that are shown of pods chosen by label; as kubectl's.
const TAIL_OF_MANY: i64 = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as deployment/web: then its first pod
    #[arg(
        value_name = "POD",
        required_unless_present = "selector",
        conflicts_with = "selector"
    )]
    pod: Option<String>,
    /// Of all pods with these labels, as app=web; the last 10 lines of each, unless --tail says otherwise
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container, where the pod has several
    #[arg(short, long, conflicts_with = "all_containers")]
    container: Option<String>,
    /// Of all containers of each pod
    #[arg(long)]
    all_containers: bool,
    /// Of all pods of what is named, not of the first alone
    #[arg(long, conflicts_with = "selector")]
    all_pods: bool,
    /// With the pod and the container before each line
    #[arg(long)]
    prefix: bool,
    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,
    /// Most logs that are followed at once
    #[arg(long, value_name = "NUMBER", default_value_t = FOLLOWED_MAX)]
    max_log_requests: usize,
    /// Of the run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines; -1 for all
    #[arg(long, value_name = "LINES", allow_negative_numbers = true)]
    tail: Option<i64>,
    /// Only from this long ago on, as 30s, 5m or 2h
    #[arg(long, value_name = "DURATION", value_parser = since)]
    since: Option<i64>,
    /// Only from this time on, as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "since")]
    since_time: Option<jiff::Timestamp>,
    /// At most this many bytes of each container's log
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(i64).range(1..))]
    limit_bytes: Option<i64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    /// Go on with the other logs when one cannot be shown
    #[arg(long)]
    ignore_errors: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// A container whose log is shown.
#[derive(Debug, PartialEq)]
struct Source {
    pod: String,
    /// None: whatever the server shows of the pod.
    container: Option<String>,
}

impl Source {
    /// What is before its lines.
    fn prefix(&self) -> String {
        let Self { pod, container } = self;
        format!("[pod/{pod}/{}] ", container.as_deref().unwrap_or_default())
    }
}

/// Seconds from `90`, `90s`, `5m`, `1h30m` or `2d`.
fn since(text: &str) -> Result<i64, String> {
    let refused = || format!("{text:?} is no duration such as 30s, 5m or 2h");
    let mut seconds = 0_i64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: i64 = rest[..digits].parse().map_err(|_| refused())?;
        let mut unit = rest[digits..].chars();
        let factor = match unit.next() {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3_600,
            Some('d') => 86_400,
            Some(_) => return Err(refused()),
        };
        rest = unit.as_str();
        seconds = number
            .checked_mul(factor)
            .and_then(|part| seconds.checked_add(part))
            .ok_or_else(refused)?;
    }
    if seconds == 0 {
        return Err(refused());
    }
    Ok(seconds)
}

/// # Errors
/// When a pod is not there, has no such container, or its node does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), &namespace);
    let sources = sources(&args, &client, &api, &namespace).await?;
    if sources.is_empty() {
        eprintln!("no pods with these labels in namespace {namespace}");
        return Ok(());
    }
    let tail = args.selector.as_ref().map(|_| TAIL_OF_MANY);
    let params = LogParams {
        follow: args.follow,
        previous: args.previous,
        // -1 is all of it, as kubectl has it.
        tail_lines: args.tail.or(tail).filter(|lines| *lines >= 0),
        since_seconds: args.since,
        since_time: args.since_time,
        limit_bytes: args.limit_bytes,
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let logs = sources.iter().map(|source| {
        let lines = log(&api, source, &params, args.prefix);
        lines.filter_map(|line| {
            std::future::ready(match line {
                Err(failure) if args.ignore_errors => {
                    eprintln!("Warning: {failure}");
                    None
                }
                line => Some(line),
            })
        })
    });
    if !args.follow {
        for log in logs {
            show(log).await?;
        }
        return Ok(());
    }
    if sources.len() > args.max_log_requests {
        let why = format!(
            "there are {}, and {} are followed at once",
            sources.len(),
            args.max_log_requests
        );
        let next = "choose fewer pods, or say --max-log-requests";
        return Err(Failure::new("cannot follow all these logs", why, next)
            .usage()
            .into());
    }
    // Lines as they come, each whole.
    show(futures::stream::select_all(logs.map(Box::pin))).await
}

/// The lines of a container's log, each with its line break.
fn log<'a>(
    api: &'a kube::Api<Pod>,
    source: &'a Source,
    params: &LogParams,
    with_prefix: bool,
) -> impl Stream<Item = Result<String, Failure>> + 'a {
    let params = LogParams {
        container: source.container.clone(),
        ..params.clone()
    };
    let pod = &source.pod;
    let terminal = std::io::stdout().is_terminal();
    let prefix = if with_prefix {
        source.prefix()
    } else {
        String::new()
    };
    let opened = async move {
        let opened = api.log_stream(pod, &params).await;
        let opened = opened
            .map_err(|error| api_failure(format!("cannot show the log of pod {pod}"), &error))?;
        Ok(opened.lines().map_err(move |error| {
            Failure::new(
                format!("the log of pod {pod} ended early"),
                error,
                "run the command again; --since limits it to what is new",
            )
        }))
    };
    futures::stream::once(opened)
        .try_flatten()
        .map_ok(move |line| {
            let line = if terminal {
                visible(&line)
            } else {
                Cow::Borrowed(line.as_str())
            };
            format!("{prefix}{line}\n")
        })
}

async fn show(lines: impl Stream<Item = Result<String, Failure>>) -> anyhow::Result<()> {
    let mut lines = std::pin::pin!(lines);
    let mut out = tokio::io::stdout();
    while let Some(line) = lines.try_next().await? {
        out.write_all(line.as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

/// Whose logs are asked for.
async fn sources(
    args: &Args,
    client: &kube::Client,
    api: &kube::Api<Pod>,
    namespace: &str,
) -> Result<Vec<Source>, Failure> {
    let what = || "cannot show the logs".to_owned();
    let chosen = match (&args.selector, args.pod.as_deref().unwrap_or_default()) {
        (Some(labels), _) => {
            let listed = api.list(&ListParams::default().labels(labels)).await;
            listed.map_err(|error| api_failure(what(), &error))?.items
        }
        (None, pod) => {
            let mut pods = match pod.split_once('/') {
                None => vec![named(pod)],
                Some((kind, name)) => {
                    let what = format!("cannot show the log of {kind}/{name}");
                    of_owner(client, api, namespace, kind, name, &what).await?
                }
            };
            if !args.all_pods {
                pods.truncate(1);
            }
            pods
        }
    };
    let mut sources = Vec::new();
    for mut pod in chosen {
        // Its containers are looked at only where they have to be known.
        if pod.spec.is_none() && (args.all_containers || (args.prefix && args.container.is_none()))
        {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let found = api.get(name).await;
            pod = found.map_err(|error| api_failure(what(), &error))?;
        }
        sources.extend(of_pod(&pod, args.container.as_deref(), args.all_containers));
    }
    Ok(sources)
}

/// The containers of a pod that are shown: the one that is named, all, or the one that is its default.
fn of_pod(pod: &Pod, container: Option<&str>, all: bool) -> Vec<Source> {
    let source = |container: Option<String>| Source {
        pod: pod.metadata.name.clone().unwrap_or_default(),
        container,
    };
    let spec = pod.spec.as_ref();
    let mains = spec.into_iter().flat_map(|spec| &spec.containers);
    if all {
        let inits = spec.and_then(|spec| spec.init_containers.as_ref());
        let containers = inits.into_iter().flatten().chain(mains);
        return containers
            .map(|container| source(Some(container.name.clone())))
            .collect();
    }
    let annotations = pod.metadata.annotations.as_ref();
    let default = annotations.and_then(|all| all.get(annotation::DEFAULT_CONTAINER));
    let mut names = mains.map(|container| &container.name);
    let default = default.or_else(|| names.next());
    vec![source(container.map(str::to_owned).or(default.cloned()))]
}

/// A line as a terminal may show it. What a component prints is not to move the cursor, clear the screen or set titles;
/// colours pass.
fn visible(line: &str) -> Cow<'_, str> {
    if !line.chars().any(|c| c.is_control() && c != '\t') {
        return Cow::Borrowed(line);
    }
    let mut shown = String::with_capacity(line.len() + 16);
    let mut coloured = false;
    let mut rest = line;
    while let Some(c) = rest.chars().next() {
        if let Some(colour) = colour(rest) {
            shown.push_str(colour);
            coloured = true;
            rest = &rest[colour.len()..];
            continue;
        }
        match c {
            c if c.is_control() && c != '\t' => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    if coloured {
        shown.push_str("\u{1b}[0m");
    }
    Cow::Owned(shown)
}

/// The colour sequence that `text` begins with.
fn colour(text: &str) -> Option<&str> {
    let inside = text.strip_prefix("\u{1b}[")?;
    let end = inside.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    (inside[end..].starts_with('m')).then(|| &text[..2 + end + 1])
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::{Value, json};

    use super::super::pods::named;
    use super::{of_pod, since, visible};

    #[test]
    fn a_pod_shows_one_container_unless_all_are_asked_for() {
        let pod = |annotations: Value| -> Pod {
            let container = |name: &str| json!({"name": name});
            serde_json::from_value(json!({
                "metadata": {"name": "web-1", "annotations": annotations},
                "spec": {"initContainers": [container("init")], "containers": [container("app"), container("log")]},
            }))
            .expect("a pod")
        };
        let default = json!({"kubectl.kubernetes.io/default-container": "log"});
        for (pod, container, all, shown) in [
            (pod(Value::Null), None, false, "[pod/web-1/app] "),
            (pod(default.clone()), None, false, "[pod/web-1/log] "),
            (pod(default), Some("app"), false, "[pod/web-1/app] "),
            (
                pod(Value::Null),
                None,
                true,
                "[pod/web-1/init] [pod/web-1/app] [pod/web-1/log] ",
            ),
            (named("web-1"), None, false, "[pod/web-1/] "),
        ] {
            let sources = of_pod(&pod, container, all);
            let prefixes: Vec<String> = sources.iter().map(|source| source.prefix()).collect();
            assert_eq!(prefixes.concat(), shown);
        }
    }

    #[test]
    fn durations_are_read_as_kubectl_reads_them() {
        for (text, seconds) in [
            ("30", Some(30)),
            ("30s", Some(30)),
            ("5m", Some(300)),
            ("1h30m", Some(5_400)),
            ("2d", Some(172_800)),
            ("", None),
            ("0s", None),
            ("m", None),
            ("5x", None),
            ("-5m", None),
            ("99999999999999999999", None),
            ("9999999999999999d", None),
        ] {
            assert_eq!(since(text).ok(), seconds, "{text}");
        }
    }

    #[test]
    fn attack_37_a_terminal_is_shown_what_it_would_obey() {
        for (line, shown) in [
            (
                "plain, with\ta tab and ünïcode",
                "plain, with\ta tab and ünïcode",
            ),
            (
                "\u{1b}[2J\u{1b}]0;owned\u{7}\rall is well",
                r"\u{1b}[2J\u{1b}]0;owned\u{7}\rall is well",
            ),
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m\u{1b}[0m"),
            ("\u{1b}[31", r"\u{1b}[31"),
            ("\u{9b}2J", r"\u{9b}2J"),
        ] {
            assert_eq!(visible(line), shown, "{line:?}");
        }
    }
}
