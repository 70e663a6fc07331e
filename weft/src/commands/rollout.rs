//! `weft rollout`: how far a Rollout is, and somebody's word on it.
//!
//! A word names the revision that it is about, as the status had it: one that arrives late says nothing of another revision.

pub(super) mod progress;

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};
use weft_api::annotation::ROLLOUT_REVISION;

use self::progress::{Progress, follow};
use super::object::Resource;
use crate::exit::Failure;
use crate::kubeconfig::ClientArgs;
use crate::stdout;

pub(super) const ROLLOUTS: &str = "weft.dev/v1alpha1/rollouts";
const REPLICA_SETS: &str = "apps/v1/replicasets";
/// The label that a revision is known by.
const HASH: &str = "pod-template-hash";

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show how far it is, until it is promoted or rolled back
    Status(StatusArgs),
    /// Let it go on: past the pause that it is in, or all the way
    Promote(PromoteArgs),
    /// Roll back the revision that is on its way
    Abort(Target),
    /// Try a revision that was rolled back once more, from its first step
    Retry(Target),
    /// Take no further step
    Pause(Target),
    /// Take steps again
    Resume(Target),
    /// Bring out the template of another revision
    Undo(UndoArgs),
    /// Show the revisions that are kept
    History(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    /// Name of the Rollout
    name: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// How to print what came of it, instead of as text
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    target: Target,
    /// Show how far it is now, and nothing more
    #[arg(long)]
    once: bool,
}

#[derive(Debug, clap::Args)]
struct PromoteArgs {
    #[command(flatten)]
    target: Target,
    /// Leave out all steps that are left
    #[arg(long)]
    full: bool,
}

#[derive(Debug, clap::Args)]
struct UndoArgs {
    #[command(flatten)]
    target: Target,
    /// The number of the revision, as `weft rollout history` shows it [default: the one before]
    #[arg(long, value_name = "NUMBER")]
    to_revision: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Output {
    Json,
}

impl Target {
    async fn open(&self) -> Result<Resource, Failure> {
        Resource::open(&self.client, self.namespace.as_deref(), ROLLOUTS, "rollout").await
    }

    fn tell(&self, object: &Value, sentence: &str) -> anyhow::Result<()> {
        match self.output {
            Some(Output::Json) => stdout::line(object)?,
            None => stdout::line(format_args!("rollout {} {sentence}", self.name))?,
        }
        Ok(())
    }
}

/// # Errors
/// When the Rollout is not there, the server refuses, or the revision that is followed is rolled back.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Status(args) => {
            let rollouts = args.target.open().await?;
            let name = &args.target.name;
            if args.once {
                let found = rollouts.get(name).await?;
                let progress = Progress::of(&found);
                return Ok(stdout::line(progress.shown(name, args.target.output)?)?);
            }
            follow(&rollouts, name, None, args.target.output).await
        }
        Command::Promote(args) => {
            let rollouts = args.target.open().await?;
            let found = rollouts.get(&args.target.name).await?;
            let word = promotion(&found, args.full);
            let (word, sentence) = word.map_err(|why| {
                let what = format!("cannot promote rollout {}", args.target.name);
                Failure::new(what, why, "see it with `weft rollout status --once`")
            })?;
            let body = json!({"spec": {"promote": word, "paused": false}});
            let patched = rollouts.patch(&args.target.name, &body).await?;
            args.target.tell(&patched, &sentence)
        }
        Command::Abort(target) => {
            let rollouts = target.open().await?;
            let found = rollouts.get(&target.name).await?;
            let progress = Progress::of(&found);
            if progress.is_over() {
                let what = format!("cannot abort rollout {}", target.name);
                let why = "no revision is on its way";
                let next = "go back to one of before with `weft rollout undo`";
                return Err(Failure::new(what, why, next).into());
            }
            let revision = &progress.current;
            let body = json!({"spec": {"abort": {"revision": revision}}});
            let patched = rollouts.patch(&target.name, &body).await?;
            target.tell(&patched, &format!("takes {revision} back"))
        }
        Command::Retry(target) => {
            let rollouts = target.open().await?;
            let word = Timestamp::now().to_string();
            let word = word.get(..word.len().min(63)).unwrap_or_default();
            let body = json!({"spec": {"retry": word, "abort": null}});
            let patched = rollouts.patch(&target.name, &body).await?;
            let revision = Progress::of(&patched).current;
            target.tell(&patched, &format!("tries {revision} again"))
        }
        Command::Pause(target) => pause(&target, true).await,
        Command::Resume(target) => pause(&target, false).await,
        Command::Undo(args) => undo(args).await,
        Command::History(target) => history(&target).await,
    }
}

async fn pause(target: &Target, paused: bool) -> anyhow::Result<()> {
    let body = json!({"spec": {"paused": paused}});
    let patched = target.open().await?.patch(&target.name, &body).await?;
    let sentence = if paused { "is paused" } else { "goes on" };
    target.tell(&patched, sentence)
}

/// What a promotion says, and what becomes of it.
fn promotion(rollout: &Value, full: bool) -> Result<(Value, String), String> {
    let progress = Progress::of(rollout);
    let revision = &progress.current;
    if progress.is_over() {
        return Err(format!("no revision is on its way: {}", progress.message));
    }
    if full {
        let sentence = format!("brings out {revision} without the steps that are left");
        return Ok((json!({ "revision": revision, "step": null }), sentence));
    }
    let step = progress.step;
    let sentence = format!("lets {revision} go on past step {step}");
    Ok((json!({"revision": revision, "step": step}), sentence))
}

async fn undo(args: UndoArgs) -> anyhow::Result<()> {
    let target = &args.target;
    let rollouts = target.open().await?;
    let found = rollouts.get(&target.name).await?;
    let sets = rollouts.beside(REPLICA_SETS, "replica set").list().await?;
    let what = format!("cannot undo rollout {}", target.name);
    let chosen = choose(&found, &sets, args.to_revision)
        .map_err(|why| Failure::new(what, why, "see them with `weft rollout history`"))?;
    // A merge patch leaves members that the other template lacks, so the whole of it is written.
    let mut whole = found;
    whole["spec"]["template"] = chosen.template;
    let replaced = rollouts.replace(&target.name, &whole).await?;
    let sentence = format!("brings out revision {} again", chosen.number);
    target.tell(&replaced, &sentence)
}

/// A revision that is kept.
struct Kept {
    number: u64,
    revision: String,
    images: String,
    template: Value,
}

/// The revisions of a Rollout, oldest first.
fn kept(rollout: &Value, sets: &[Value]) -> Vec<Kept> {
    let uid = &rollout["metadata"]["uid"];
    let is_owned = |set: &&Value| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        let mut owners = owners.into_iter().flatten();
        owners.any(|owner| owner["controller"] == true && owner["uid"] == *uid)
    };
    let revisions = sets.iter().filter(is_owned).map(|set| {
        let mut template = set["spec"]["template"].clone();
        let labels = template
            .pointer_mut("/metadata/labels")
            .and_then(Value::as_object_mut);
        let revision = labels.and_then(|labels| labels.remove(HASH));
        let number = set["metadata"]["annotations"][ROLLOUT_REVISION].as_str();
        let containers = template["spec"]["containers"].as_array();
        let images = containers.into_iter().flatten();
        let images: Vec<&str> = images
            .filter_map(|container| container["image"].as_str())
            .collect();
        Kept {
            number: number.and_then(|number| number.parse().ok()).unwrap_or(0),
            revision: revision
                .as_ref()
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            images: images.join(","),
            template,
        }
    });
    let mut revisions: Vec<Kept> = revisions.collect();
    revisions.sort_by_key(|kept| kept.number);
    revisions
}

/// The revision to go back to: of this number, or the newest one of before.
fn choose(rollout: &Value, sets: &[Value], number: Option<u64>) -> Result<Kept, String> {
    let current = Progress::of(rollout).current;
    let mut all = kept(rollout, sets);
    let at = match number {
        Some(number) => all.iter().position(|kept| kept.number == number),
        None => all.iter().rposition(|kept| kept.revision != current),
    };
    match (at, number) {
        (Some(at), _) => Ok(all.swap_remove(at)),
        (None, Some(number)) => Err(format!("revision {number} is not kept")),
        (None, None) => Err("no revision of before is kept".to_owned()),
    }
}

async fn history(target: &Target) -> anyhow::Result<()> {
    let rollouts = target.open().await?;
    let found = rollouts.get(&target.name).await?;
    let sets = rollouts.beside(REPLICA_SETS, "replica set").list().await?;
    let all = kept(&found, &sets);
    let progress = Progress::of(&found);
    if target.output == Some(Output::Json) {
        let all = all.iter().map(
            |kept| json!({"number": kept.number, "revision": kept.revision, "images": kept.images}),
        );
        stdout::line(Value::Array(all.collect()))?;
        return Ok(());
    }
    stdout::text(&table(&all, &progress))?;
    Ok(())
}

fn table(all: &[Kept], progress: &Progress) -> String {
    let mut text = format!(
        "{:<8}   {:<10}   {:<8}   IMAGES\n",
        "NUMBER", "REVISION", "IS"
    );
    for kept in all {
        let is = match &kept.revision {
            revision if *revision == progress.stable => "stable",
            revision if *revision == progress.current => "current",
            _ => "",
        };
        let (number, revision) = (kept.number, &kept.revision);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{number:<8}   {revision:<10}   {is:<8}   {}",
            kept.images
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rollout(step: i64, phase: &str) -> Value {
        json!({
            "metadata": {"name": "web", "uid": "u"},
            "status": {"phase": phase, "message": "it waits", "stableRevision": "aaa", "currentRevision": "bbb",
                "step": step, "steps": 4, "weight": 20},
        })
    }

    fn set(number: u64, revision: &str, image: &str) -> Value {
        json!({
            "metadata": {"name": format!("web-{revision}"), "annotations": {ROLLOUT_REVISION: number.to_string()},
                "ownerReferences": [{"uid": "u", "controller": true}]},
            "spec": {"template": {"metadata": {"labels": {"app": "web", HASH: revision}},
                "spec": {"containers": [{"name": "c", "image": image}]}}},
        })
    }

    #[test]
    fn a_promotion_names_revision_and_step() {
        let (word, told) = promotion(&rollout(1, "Paused"), false).unwrap();
        assert_eq!(word, json!({"revision": "bbb", "step": 1}));
        assert_eq!(told, "lets bbb go on past step 1");
        let (word, _) = promotion(&rollout(1, "Paused"), true).unwrap();
        assert_eq!(word, json!({"revision": "bbb", "step": null}));
        let why = promotion(&rollout(1, "RolledBack"), false).unwrap_err();
        assert_eq!(why, "no revision is on its way: it waits");
    }

    #[test]
    fn undo_goes_to_the_newest_other_revision_or_to_a_number() {
        let sets = [
            set(3, "bbb", "x:3"),
            set(1, "ccc", "x:1"),
            set(2, "aaa", "x:2"),
            json!({"metadata": {"name": "other"}}),
        ];
        let rollout = rollout(1, "Paused");
        let chosen = choose(&rollout, &sets, None).unwrap();
        assert_eq!((chosen.number, &*chosen.images), (2, "x:2"));
        assert_eq!(chosen.template["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(choose(&rollout, &sets, Some(1)).unwrap().revision, "ccc");
        let why = choose(&rollout, &sets, Some(7)).err();
        assert_eq!(why.as_deref(), Some("revision 7 is not kept"));
        let shown = table(&kept(&rollout, &sets), &Progress::of(&rollout));
        insta::assert_snapshot!(shown, @r"
        NUMBER     REVISION     IS         IMAGES
        1          ccc                     x:1
        2          aaa          stable     x:2
        3          bbb          current    x:3
        ");
    }
}
