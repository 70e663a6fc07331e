//! `weft delete`: delete objects by manifest, by name or by what selects them, and wait until they are gone.
//!
//! Everything that was named is gone through, whatever becomes of the others; what is chosen by a selector is listed once, before the
//! first one goes.

use std::path::PathBuf;
use std::time::Duration;

use kube::api::{DeleteParams, ListParams, PropagationPolicy};
use kube::core::DynamicObject;

use super::kinds::{self, Kinds};
use super::manifest;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kind and names, as `pod web-1 web-2` or `deployment/web service/web`
    #[arg(value_name = "KIND NAME", conflicts_with = "filename")]
    what: Vec<String>,
    /// Manifests: files, folders, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE")]
    filename: Vec<PathBuf>,
    /// Folders with what is in folders in them
    #[arg(short = 'R', long, requires = "filename")]
    recursive: bool,
    /// Namespace of objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// All objects of the kind with these labels, as `app=web,tier!=back`
    #[arg(short = 'l', long, value_name = "LABELS", conflicts_with_all = ["filename", "all"])]
    selector: Option<String>,
    /// All objects of the kind with these values in fields, as `spec.nodeName=node-1`
    #[arg(long, value_name = "FIELDS", conflicts_with = "filename")]
    field_selector: Option<String>,
    /// All objects of the kind in the namespace
    #[arg(long, conflicts_with = "filename")]
    all: bool,
    /// In all namespaces, together with --all or a selector
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "filename"])]
    all_namespaces: bool,
    /// What becomes of what the object owns
    #[arg(long, value_enum, default_value_t = Cascade::Background)]
    cascade: Cascade,
    /// Seconds that a pod has to end by itself; 0 together with --force
    #[arg(long, value_name = "SECONDS")]
    grace_period: Option<u32>,
    /// With the shortest time to end by itself: a second
    #[arg(long, conflicts_with = "grace_period")]
    now: bool,
    /// Remove the object at once, though its pod may still run
    #[arg(long)]
    force: bool,
    /// Ask the server what would happen, and delete nothing
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "server", value_parser = ["none", "server"], default_value = "none")]
    dry_run: String,
    /// Return at once, without waiting until the objects are gone
    #[arg(long)]
    no_wait: bool,
    /// Wait until the objects are gone
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, action = clap::ArgAction::Set)]
    wait: bool,
    /// Seconds that each object is waited for
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = seconds)]
    timeout: u64,
    /// It is no error when an object is already gone
    #[arg(long)]
    ignore_not_found: bool,
    /// Print the names alone, with -o name
    #[arg(short, long, value_name = "FORM", value_parser = ["name"])]
    output: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// What becomes of what an object owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Cascade {
    /// It goes after the object
    Background,
    /// It goes before the object
    Foreground,
    /// It stays
    Orphan,
}

/// How often a deletion that takes time is asked after.
const POLL: Duration = Duration::from_millis(100);

/// `60`, `60s` or `2m`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, factor) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    let number: Option<u64> = number.parse().ok();
    number
        .and_then(|number| number.checked_mul(factor))
        .ok_or_else(|| format!("{text:?} is no duration such as 60 or 2m"))
}

/// An object that is to go.
struct Target {
    api: kube::Api<DynamicObject>,
    shown: String,
    name: String,
}

/// # Errors
/// When nothing is named, an object is not there, or it is not gone within the time-out.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let params = params(&args)?;
    let targets = targets(&args).await?;
    let mut waiting = Vec::new();
    let mut failed = Vec::new();
    if args.force && args.grace_period == Some(0) {
        eprintln!("Warning: the objects go at once; what runs of them may go on for a while");
    }
    for Target { api, shown, name } in targets {
        match api.delete(&name, &params).await {
            Ok(answer) => {
                if args.output.is_some() {
                    stdout::line(&shown)?;
                } else {
                    let forced = if args.force { "force " } else { "" };
                    let dry = if params.dry_run {
                        " (server dry run)"
                    } else {
                        ""
                    };
                    stdout::line(format_args!("{shown} {forced}deleted{dry}"))?;
                }
                if let Some(object) = answer.left() {
                    waiting.push((api, shown, name, object.metadata.uid));
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 && args.ignore_not_found => {}
            Err(error) => {
                let failure = api_failure(format!("cannot delete {shown}"), &error);
                if !matches!(error, kube::Error::Api(_)) {
                    return Err(failure.into());
                }
                // The others were named too.
                failed.push(failure);
            }
        }
    }
    if args.wait && !args.no_wait && !params.dry_run {
        for (api, shown, name, uid) in waiting {
            wait(
                &api,
                &shown,
                &name,
                uid.as_deref(),
                Duration::from_secs(args.timeout),
            )
            .await?;
        }
    }
    Failure::all(failed, "objects were not deleted").map_err(Into::into)
}

/// What the server is asked for with each deletion.
fn params(args: &Args) -> Result<DeleteParams, Failure> {
    // A pod of which nobody knows whether it has ended is nothing to get by accident.
    if args.grace_period == Some(0) && !args.force {
        return Err(Failure::new(
            "cannot delete without any time to end",
            "--grace-period=0 removes objects though their pods may still run",
            "say --force, too; --now gives a second",
        )
        .usage());
    }
    let propagation = match args.cascade {
        Cascade::Background => PropagationPolicy::Background,
        Cascade::Foreground => PropagationPolicy::Foreground,
        Cascade::Orphan => PropagationPolicy::Orphan,
    };
    Ok(DeleteParams {
        dry_run: args.dry_run == "server",
        grace_period_seconds: match (args.now, args.force, args.grace_period) {
            (true, ..) => Some(1),
            (_, true, None) => Some(0),
            (.., seconds) => seconds,
        },
        propagation_policy: Some(propagation),
        preconditions: None,
    })
}

async fn targets(args: &Args) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    if !args.filename.is_empty() {
        let mut objects = manifest::read(&args.filename, args.recursive)?;
        // What was created last depends on what was created first.
        objects.reverse();
        let client = args.client.client().await?;
        let mut resources = manifest::Resources::default();
        for object in objects {
            let (resource, capabilities) = resources.resolve(&client, &object).await?;
            let namespace = object.namespace().or(args.namespace.as_deref());
            targets.push(Target {
                api: manifest::api(&client, &resource, &capabilities.scope, namespace),
                shown: manifest::display_name(&resource, object.name()),
                name: object.name().into(),
            });
        }
        return Ok(targets);
    }
    let named = kinds::named(&args.what)?;
    let many = args.all || args.selector.is_some() || args.field_selector.is_some();
    let unclear = |why: &str, next: &str| {
        anyhow::Error::from(Failure::new("nothing to delete", why, next).usage())
    };
    if named.is_empty() || (!many && named.iter().any(|named| named.names.is_empty())) {
        let next = "weft delete KIND NAME, weft delete KIND --all, or weft delete -f FILE";
        return Err(unclear("no object was named", next));
    }
    if many && named.iter().any(|named| !named.names.is_empty()) {
        let why = "objects were named, and chosen by --all or a selector";
        return Err(unclear(why, "leave out one of the two"));
    }
    if args.all_namespaces && !many {
        let why = "a name is unique only within its namespace";
        return Err(unclear(why, "name the namespace with -n, or say --all"));
    }
    let client = args.client.client().await?;
    let served = Kinds::discover(&client).await?;
    for named in named {
        let namespace = args.namespace.as_deref();
        for kind in served.find(&named.kind)? {
            let (resource, scope) = (&kind.resource, &kind.scope);
            let target = |namespace: Option<&str>, name: String| Target {
                api: manifest::api(&client, resource, scope, namespace),
                shown: manifest::display_name(resource, &name),
                name,
            };
            if !many {
                // A category is for looking at.
                served.resolve(&named.kind)?;
                targets.extend(
                    named
                        .names
                        .iter()
                        .map(|name| target(namespace, name.clone())),
                );
                continue;
            }
            let all = match args.all_namespaces {
                true => kube::Api::<DynamicObject>::all_with(client.clone(), resource),
                false => manifest::api(&client, resource, scope, namespace),
            };
            let chosen = ListParams {
                label_selector: args.selector.clone(),
                field_selector: args.field_selector.clone(),
                ..ListParams::default()
            };
            let found = all.list_metadata(&chosen).await;
            let found = found
                .map_err(|error| api_failure(format!("cannot list {}", resource.plural), &error))?;
            for object in found.items {
                let name = object.metadata.name.unwrap_or_default();
                targets.push(target(object.metadata.namespace.as_deref(), name));
            }
        }
    }
    if targets.is_empty() {
        eprintln!("No resources found");
    }
    Ok(targets)
}

/// Waits until an object is gone.
///
/// # Errors
/// When it is still there after that time, or the server does not say.
pub(super) async fn wait(
    api: &kube::Api<DynamicObject>,
    shown: &str,
    name: &str,
    uid: Option<&str>,
    timeout: Duration,
) -> Result<(), Failure> {
    let gone = async {
        loop {
            let live = api
                .get_metadata_opt(name)
                .await
                .map_err(|error| api_failure(format!("cannot wait for {shown}"), &error))?;
            // Another object of the same name is not the one that was deleted.
            if live.is_none_or(|live| live.metadata.uid.as_deref() != uid) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(timeout, gone)
        .await
        .unwrap_or_else(|_| {
            Err(Failure::new(
                format!("{shown} is not gone yet"),
                format!(
                    "it still had finalizers or a running workload after {} s",
                    timeout.as_secs()
                ),
                "look at it with `weft get -o yaml`; the deletion goes on by itself",
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn what_is_asked_for_with_a_deletion() {
        use clap::Parser as _;
        for (line, expected) in [
            ("", Some((None, false, "Background"))),
            ("--cascade=orphan", Some((None, false, "Orphan"))),
            (
                "--cascade=foreground --dry-run",
                Some((None, true, "Foreground")),
            ),
            ("--dry-run=none", Some((None, false, "Background"))),
            ("--now", Some((Some(1), false, "Background"))),
            ("--grace-period=5", Some((Some(5), false, "Background"))),
            ("--force", Some((Some(0), false, "Background"))),
            (
                "--force --grace-period=0",
                Some((Some(0), false, "Background")),
            ),
            ("--grace-period=0", None),
        ] {
            let words = ["delete", "pod", "a"]
                .into_iter()
                .chain(line.split_whitespace());
            let args = Line::try_parse_from(words).unwrap().args;
            let params = params(&args).ok();
            let found = params.map(|params| {
                let policy = format!("{:?}", params.propagation_policy.unwrap());
                (params.grace_period_seconds, params.dry_run, policy)
            });
            let expected = expected.map(|(seconds, dry, policy)| (seconds, dry, policy.to_owned()));
            assert_eq!(found, expected, "{line}");
        }
        for line in [
            "--dry-run=client2",
            "--cascade=x",
            "-o yaml",
            "--timeout=x",
            "--all -l a=b",
        ] {
            let words = ["delete", "pod"].into_iter().chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
        assert_eq!(
            (seconds("60"), seconds("5s"), seconds("2m")),
            (Ok(60), Ok(5), Ok(120))
        );
    }
}
