//! `weft logs`: show what a pod's component printed.

use std::borrow::Cow;
use std::io::IsTerminal as _;

use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use super::kinds::Kinds;
use super::manifest;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as deployment/web: then its first pod
    #[arg(value_name = "POD")]
    pod: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The container, where the pod has several
    #[arg(short, long)]
    container: Option<String>,
    /// Go on with what it prints from now on
    #[arg(short, long)]
    follow: bool,
    /// Of the run before the last restart
    #[arg(short, long)]
    previous: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// Only from this long ago on, as 30s, 5m or 2h
    #[arg(long, value_name = "DURATION", value_parser = since)]
    since: Option<i64>,
    /// With the time of each line
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    client: ClientArgs,
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
/// When the pod is not there, has no such container, or its node does not answer.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let namespace = args
        .namespace
        .clone()
        .unwrap_or_else(|| client.default_namespace().to_owned());
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), &namespace);
    let pod = match args.pod.split_once('/') {
        None => args.pod.clone(),
        Some((kind, name)) => first_pod(&client, &api, &namespace, kind, name).await?,
    };
    let params = LogParams {
        container: args.container,
        follow: args.follow,
        previous: args.previous,
        tail_lines: args.tail,
        since_seconds: args.since,
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let failed =
        |error: &kube::Error| api_failure(format!("cannot show the log of pod {pod}"), error);
    let stream = api
        .log_stream(&pod, &params)
        .await
        .map_err(|e| failed(&e))?;
    let mut lines = stream.lines();
    let mut out = tokio::io::stdout();
    let terminal = std::io::stdout().is_terminal();
    loop {
        let line = lines.try_next().await.map_err(|error| {
            Failure::new(
                format!("the log of pod {pod} ended early"),
                error,
                "run the command again; --since limits it to what is new",
            )
        })?;
        let Some(line) = line else { break };
        let shown = if terminal {
            visible(&line)
        } else {
            Cow::Borrowed(line.as_str())
        };
        out.write_all(shown.as_bytes()).await?;
        out.write_all(b"\n").await?;
        out.flush().await?;
    }
    Ok(())
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

/// `app=web` and so on: what workloads write under `matchLabels`, and Services as it is.
fn pod_labels(selector: &Value) -> Vec<String> {
    let labels = match &selector["matchLabels"] {
        Value::Null => selector,
        labels => labels,
    };
    labels
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect()
}

/// The first pod, by name, that the selector of an owner matches; a pod itself when the kind is pods.
async fn first_pod(
    client: &kube::Client,
    pods: &kube::Api<Pod>,
    namespace: &str,
    kind: &str,
    name: &str,
) -> Result<String, Failure> {
    let served = Kinds::discover(client).await?;
    let kind_found = served.resolve(kind)?;
    let (resource, scope) = (&kind_found.resource, &kind_found.scope);
    if resource.kind == "Pod" {
        return Ok(name.to_owned());
    }
    let what = || format!("cannot show the log of {kind}/{name}");
    let owner = manifest::api(client, resource, scope, Some(namespace))
        .get(name)
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let selector = pod_labels(&owner.data["spec"]["selector"]);
    if selector.is_empty() {
        let why = format!("a {} selects no pods by label", resource.kind);
        return Err(Failure::new(what(), why, "name a pod; `weft get pods` lists them").usage());
    }
    let found = pods
        .list(&ListParams::default().labels(&selector.join(",")))
        .await
        .map_err(|error| api_failure(what(), &error))?;
    let names = found.items.into_iter().filter_map(|pod| pod.metadata.name);
    names.min().ok_or_else(|| {
        Failure::new(
            what(),
            "it has no pods",
            format!("see why with `weft get {kind} {name} -o yaml`"),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{pod_labels, since, visible};

    #[test]
    fn workloads_and_services_select_pods() {
        for (selector, labels) in [
            (
                json!({"matchLabels": {"app": "web", "tier": "front"}}),
                "app=web,tier=front",
            ),
            (json!({"app": "web"}), "app=web"),
            (json!({"matchExpressions": []}), ""),
            (Value::Null, ""),
        ] {
            assert_eq!(pod_labels(&selector).join(","), labels, "{selector}");
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
