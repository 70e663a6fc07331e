//! `weft apply`: create what is missing, change what differs.
//!
//! The configuration that was applied is kept in kubectl's own annotation, so `weft apply` and
//! `kubectl apply` may follow one another. A field that was in the last configuration and is in the new
//! one no more is removed; fields that others set stay. Lists are replaced whole. With `--server-side` the server merges, by who owns
//! which field, and names whoever else set one to another value.
//!
//! The server is asked about every object before the first one is changed, so a manifest with a mistake in its last
//! object changes nothing.

use std::path::PathBuf;

use kube::api::{Patch, PatchParams, ValidationDirective};
use kube::core::DynamicObject;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use weft_api::{LabelSelector, Object};

use super::manifest;
use super::output::Output;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const CLIENT_SIDE: &str = "weft-client-side-apply";
const SERVER_SIDE: &str = "weft";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Manifests: files, folders, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Folders with what is in folders in them
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Namespace of objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only the objects of the manifests with these labels, as `app=web,tier!=back`
    #[arg(short = 'l', long, value_name = "LABELS")]
    selector: Option<String>,
    /// Ask what would happen, and change nothing: `server` judges the objects, `client` only compares them
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "server", default_value = "none")]
    dry_run: DryRun,
    /// Let the server merge, by who owns which field
    #[arg(long)]
    server_side: bool,
    /// Take fields over that others own, instead of naming them
    #[arg(long, requires = "server_side")]
    force_conflicts: bool,
    /// Who it is that owns the fields
    #[arg(long, value_name = "NAME")]
    field_manager: Option<String>,
    /// What becomes of fields that a kind does not have: `strict` refuses, `warn` tells and drops them, `ignore` drops them
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "strict", default_value = "strict")]
    validate: Validate,
    /// Print the objects as they are then: yaml, json, name, jsonpath='TEMPLATE' or custom-columns=HEADER:PATH,…
    #[arg(short, long)]
    output: Option<Output>,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum DryRun {
    None,
    Client,
    Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Validate {
    #[value(alias = "true")]
    Strict,
    Warn,
    #[value(alias = "false")]
    Ignore,
}

/// How objects are written, the same for each.
struct Writing {
    server_side: bool,
    force: bool,
    manager: String,
    validate: Validate,
}

/// One object on its way to the server.
struct Step<'a> {
    object: &'a Object,
    api: kube::Api<DynamicObject>,
    shown: String,
    /// It goes into a namespace that the same manifests create.
    into_new_namespace: bool,
    /// It is a pod under a ServiceAccount that the same manifests create.
    under_new_account: bool,
}

/// What became of an object, or would.
struct Outcome {
    word: &'static str,
    /// None where the server was not asked.
    object: Option<DynamicObject>,
}

/// # Errors
/// When a manifest cannot be read, or the server refuses an object. Nothing is changed then.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut objects = manifest::read(&args.filename, args.recursive)?;
    if let Some(selector) = &args.selector {
        let selector = LabelSelector::parse(selector).map_err(|why| {
            Failure::new(
                "cannot select by these labels",
                why,
                "write app=web,tier!=back",
            )
            .usage()
        })?;
        objects.retain(|object| {
            selector.matches_with(|key| object.as_value()["metadata"]["labels"][key].as_str())
        });
    }
    if objects.is_empty() {
        return Err(Failure::new(
            "nothing to apply",
            "the manifests hold no object",
            "name a file with an object in it",
        )
        .usage()
        .into());
    }
    let client = args.client.client().await?;
    let steps = steps(&client, &objects, args.namespace.as_deref()).await?;
    let writing = Writing {
        server_side: args.server_side,
        force: args.force_conflicts,
        manager: args.field_manager.clone().unwrap_or_else(|| {
            let manager = if args.server_side {
                SERVER_SIDE
            } else {
                CLIENT_SIDE
            };
            manager.to_owned()
        }),
        validate: args.validate,
    };
    let mut would = match args.dry_run {
        DryRun::Client => Vec::new(),
        DryRun::None | DryRun::Server => check(&writing, &steps).await?,
    }
    .into_iter();
    let mut written = Vec::new();
    for step in &steps {
        let shown = &step.shown;
        let failed = |error: kube::Error| api_failure(format!("cannot apply {shown}"), &error);
        let (outcome, note) = match (args.dry_run, would.next()) {
            (DryRun::Server, Some(outcome)) => (outcome, " (server dry run)"),
            (DryRun::Client, _) => (compare(step).await.map_err(failed)?, " (dry run)"),
            _ => (writing.apply(step, false).await.map_err(failed)?, ""),
        };
        if args.output.is_none() {
            stdout::line(format_args!("{shown} {}{note}", outcome.word))?;
            continue;
        }
        let object = match outcome.object {
            Some(object) => serde_json::to_value(object)?,
            None => step.object.as_value().clone(),
        };
        written.push(object);
    }
    if let Some(output) = &args.output {
        let single = written.len() == 1;
        stdout::text(&output.render(written, single, true)?)?;
    }
    Ok(())
}

/// Applies objects that the program brings along, as `weft apply -f` would.
///
/// # Errors
/// As of [`run`].
pub(super) async fn objects(client: &kube::Client, objects: &[Object]) -> anyhow::Result<()> {
    let steps = steps(client, objects, None).await?;
    let writing = Writing {
        server_side: false,
        force: false,
        manager: CLIENT_SIDE.to_owned(),
        validate: Validate::Strict,
    };
    check(&writing, &steps).await?;
    for step in &steps {
        let failed =
            |error: kube::Error| api_failure(format!("cannot apply {}", step.shown), &error);
        writing.apply(step, false).await.map_err(failed)?;
    }
    Ok(())
}

/// What a write would do, as far as it can be told without asking whether the server takes it.
async fn compare(step: &Step<'_>) -> kube::Result<Outcome> {
    let live = step.api.get_opt(step.object.name()).await?;
    let word = match &live {
        None => "created",
        Some(live) => match difference(step.object, live)?
            .as_object()
            .is_some_and(Map::is_empty)
        {
            true => "unchanged",
            false => "configured",
        },
    };
    Ok(Outcome { word, object: None })
}

async fn steps<'a>(
    client: &kube::Client,
    objects: &'a [Object],
    default_namespace: Option<&str>,
) -> Result<Vec<Step<'a>>, Failure> {
    let creates = |namespace: &str| {
        objects
            .iter()
            .any(|object| object.kind() == "Namespace" && object.name() == namespace)
    };
    let creates_account = |pod: &Object, namespace: Option<&str>| {
        let account = pod.as_value().pointer("/spec/serviceAccountName");
        let account = account.and_then(Value::as_str).unwrap_or("default");
        objects.iter().any(|object| {
            object.kind() == "ServiceAccount"
                && object.name() == account
                && object.namespace().or(default_namespace) == namespace
        })
    };
    let mut resources = manifest::Resources::default();
    let mut steps = Vec::with_capacity(objects.len());
    for object in objects {
        let (resource, capabilities) = resources.resolve(client, object).await?;
        let namespace = object.namespace().or(default_namespace);
        steps.push(Step {
            object,
            api: manifest::api(client, &resource, &capabilities.scope, namespace),
            shown: manifest::display_name(&resource, object.name()),
            into_new_namespace: namespace.is_some_and(creates),
            under_new_account: object.kind() == "Pod" && creates_account(object, namespace),
        });
    }
    Ok(steps)
}

/// Asks the server what each object would bring about.
///
/// # Errors
/// A [`Failure`] that names every object the server refuses.
async fn check(writing: &Writing, steps: &[Step<'_>]) -> Result<Vec<Outcome>, Failure> {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut refused = Vec::new();
    for step in steps {
        let new = || Outcome {
            word: "created",
            object: None,
        };
        match writing.apply(step, true).await {
            Ok(outcome) => outcomes.push(outcome),
            // The namespace is not there yet; everything else about the object was looked at before that.
            Err(kube::Error::Api(status)) if step.into_new_namespace && status.code == 404 => {
                outcomes.push(new());
            }
            // Nor is the account.
            Err(kube::Error::Api(status))
                if step.under_new_account
                    && status.code == 403
                    && status.message.contains("looking up service account") =>
            {
                outcomes.push(new());
            }
            Err(error) => {
                let mut failure = api_failure(format!("cannot apply {}", step.shown), &error);
                if !matches!(error, kube::Error::Api(_)) {
                    return Err(failure);
                }
                if failure.next.is_empty() {
                    failure.next =
                        "nothing was changed; correct the manifest and run the command again"
                            .into();
                }
                refused.push(failure);
            }
        }
    }
    Failure::all(refused, "objects cannot be applied").map(|()| outcomes)
}

impl Writing {
    /// Brings one object about, or asks what that would do.
    async fn apply(&self, step: &Step<'_>, dry_run: bool) -> kube::Result<Outcome> {
        if self.server_side {
            return self.merged_there(step, dry_run).await;
        }
        let (api, object) = (&step.api, step.object);
        let Some(live) = api.get_opt(object.name()).await? else {
            let created = self.create(api, &annotated(object), dry_run).await?;
            return Ok(Outcome {
                word: "created",
                object: Some(created),
            });
        };
        let patch = difference(object, &live)?;
        if patch.as_object().is_some_and(Map::is_empty) {
            return Ok(Outcome {
                word: "unchanged",
                object: Some(live),
            });
        }
        self.patched(api, &live, &Patch::Merge(&patch), dry_run)
            .await
    }

    async fn merged_there(&self, step: &Step<'_>, dry_run: bool) -> kube::Result<Outcome> {
        let live = step.api.get_opt(step.object.name()).await?;
        let params = self.params(dry_run);
        let patch = Patch::Apply(step.object.as_value());
        let Some(live) = live else {
            let created = step.api.patch(step.object.name(), &params, &patch).await?;
            return Ok(Outcome {
                word: "created",
                object: Some(created),
            });
        };
        self.patched(&step.api, &live, &patch, dry_run).await
    }

    async fn patched(
        &self,
        api: &kube::Api<DynamicObject>,
        live: &DynamicObject,
        patch: &Patch<&Value>,
        dry_run: bool,
    ) -> kube::Result<Outcome> {
        let name = live.metadata.name.as_deref().unwrap_or_default();
        let after = api.patch(name, &self.params(dry_run), patch).await?;
        let same = match dry_run {
            // What is only tried has no revision of its own.
            true => same_but_for_the_record(live, &after),
            false => after.metadata.resource_version == live.metadata.resource_version,
        };
        Ok(Outcome {
            word: if same { "unchanged" } else { "configured" },
            object: Some(after),
        })
    }

    fn params(&self, dry_run: bool) -> PatchParams {
        PatchParams {
            dry_run,
            force: self.server_side && self.force,
            field_manager: Some(self.manager.clone()),
            field_validation: Some(match self.validate {
                Validate::Strict => ValidationDirective::Strict,
                Validate::Warn => ValidationDirective::Warn,
                Validate::Ignore => ValidationDirective::Ignore,
            }),
        }
    }

    /// Creates the object, with a word on fields that its kind does not have: the library's own create cannot ask for that.
    async fn create(
        &self,
        api: &kube::Api<DynamicObject>,
        config: &Value,
        dry_run: bool,
    ) -> kube::Result<DynamicObject> {
        let dry_run = if dry_run { "&dryRun=All" } else { "" };
        let validate = match self.validate {
            Validate::Strict => "Strict",
            Validate::Warn => "Warn",
            Validate::Ignore => "Ignore",
        };
        let manager = utf8_percent_encode(&self.manager, NON_ALPHANUMERIC);
        let uri = format!(
            "{}?fieldManager={manager}&fieldValidation={validate}{dry_run}",
            api.resource_url()
        );
        let body = serde_json::to_vec(config).map_err(kube::Error::SerdeError)?;
        let request = http::Request::post(uri)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(kube::Error::HttpError)?;
        api.clone().into_client().request(request).await
    }
}

/// Both say the same, whatever is recorded of who said it and when.
fn same_but_for_the_record(before: &DynamicObject, after: &DynamicObject) -> bool {
    let told = |object: &DynamicObject| {
        let mut object = object.clone();
        object.metadata.managed_fields = None;
        object.metadata.resource_version = None;
        object
    };
    told(before) == told(after)
}

/// The JSON merge patch that takes what is there to what is wanted; empty where that says all of it.
fn difference(object: &Object, live: &DynamicObject) -> kube::Result<Value> {
    let last = live
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| json!({}));
    let live = serde_json::to_value(live).map_err(kube::Error::SerdeError)?;
    Ok(three_way(&last, &annotated(object), &live))
}

/// The configuration with itself in the annotation that the next apply compares with.
fn annotated(object: &Object) -> Value {
    let mut config = object.as_value().clone();
    if let Some(annotations) = config["metadata"]["annotations"].as_object_mut() {
        annotations.remove(LAST_APPLIED);
    }
    let text = format!("{config}\n");
    if config["metadata"]["annotations"].is_null() {
        config["metadata"]["annotations"] = json!({});
    }
    config["metadata"]["annotations"][LAST_APPLIED] = Value::String(text);
    config
}

/// The JSON merge patch that takes `live` to `config`, and removes what `last` had and `config` has not.
///
/// Source: kubectl's client-side apply, with RFC 7396 merge patches in place of strategic ones.
fn three_way(last: &Value, config: &Value, live: &Value) -> Value {
    let empty = Map::new();
    let map = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let (last_map, live_map) = (map(last), live.as_object().unwrap_or(&empty));
    let mut patch = Map::new();
    for (key, wanted) in config.as_object().unwrap_or(&empty) {
        let found = live_map.get(key).unwrap_or(&Value::Null);
        if wanted.is_object() && found.is_object() {
            let inner = three_way(last_map.get(key).unwrap_or(&Value::Null), wanted, found);
            if inner.as_object().is_some_and(|inner| !inner.is_empty()) {
                patch.insert(key.clone(), inner);
            }
        } else if !covers(found, wanted) {
            patch.insert(key.clone(), wanted.clone());
        }
    }
    for key in last_map.keys() {
        if config.get(key).is_none() && live_map.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

/// The live value already says all that the wanted one says: the rest are the server's defaults.
fn covers(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => wanted
            .iter()
            .all(|(key, wanted)| live.get(key).is_some_and(|live| covers(live, wanted))),
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(l, w)| covers(l, w))
        }
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_way_changes_only_what_the_user_changed() {
        let last = json!({"spec": {"replicas": 1, "paused": true, "list": [1]}});
        let live = json!({"spec": {"replicas": 5, "paused": true, "list": [1], "defaulted": "x"}, "status": {}});
        for (config, patch) in [
            (
                json!({"spec": {"replicas": 5, "list": [1]}}),
                json!({"spec": {"paused": null}}),
            ),
            (
                json!({"spec": {"paused": true, "list": [1, 2]}}),
                json!({"spec": {"list": [1, 2], "replicas": null}}),
            ),
            (
                json!({"spec": {"paused": true, "replicas": 5, "list": [1]}}),
                json!({}),
            ),
        ] {
            assert_eq!(three_way(&last, &config, &live), patch, "{config}");
        }
    }

    #[test]
    fn defaults_inside_list_items_are_no_change() {
        let live =
            json!({"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}]});
        let same = json!({"containers": [{"name": "a", "image": "x"}]});
        let other = json!({"containers": [{"name": "a", "image": "y"}]});
        assert_eq!(three_way(&json!({}), &same, &live), json!({}));
        assert_eq!(three_way(&json!({}), &other, &live), other);
    }
}
