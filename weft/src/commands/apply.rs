//! `weft apply`: create what is missing, change what differs.
//!
//! The configuration that was applied is kept in kubectl's own annotation, so `weft apply` and
//! `kubectl apply` may follow one another. A field that was in the last configuration and is in the new
//! one no more is removed; fields that others set stay. Lists are replaced whole.
//!
//! The server is asked about every object before the first one is changed, so a manifest with a mistake in its last
//! object changes nothing.

use std::path::PathBuf;

use kube::api::{Patch, PatchParams};
use kube::core::DynamicObject;
use serde_json::{Map, Value, json};
use weft_api::Object;

use super::manifest;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const FIELD_MANAGER: &str = "weft-client-side-apply";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Manifests: files, folders, or - for stdin
    #[arg(short, long = "filename", value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Ask the server what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    client: ClientArgs,
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

/// # Errors
/// When a manifest cannot be read, or the server refuses an object. Nothing is changed then.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let objects = manifest::read(&args.filename)?;
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
    let would = check(&steps).await?;
    for (step, outcome) in steps.iter().zip(would) {
        let shown = &step.shown;
        if args.dry_run {
            stdout::line(format_args!("{shown} {outcome} (server dry run)"))?;
            continue;
        }
        let outcome = apply(&step.api, step.object, false)
            .await
            .map_err(|error| api_failure(format!("cannot apply {shown}"), &error))?;
        stdout::line(format_args!("{shown} {outcome}"))?;
    }
    Ok(())
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
async fn check(steps: &[Step<'_>]) -> Result<Vec<&'static str>, Failure> {
    let mut outcomes = Vec::with_capacity(steps.len());
    let mut refused = Vec::new();
    for step in steps {
        match apply(&step.api, step.object, true).await {
            Ok(outcome) => outcomes.push(outcome),
            // The namespace is not there yet; everything else about the object was looked at before that.
            Err(kube::Error::Api(status)) if step.into_new_namespace && status.code == 404 => {
                outcomes.push("created");
            }
            // Nor is the account.
            Err(kube::Error::Api(status))
                if step.under_new_account
                    && status.code == 403
                    && status.message.contains("looking up service account") =>
            {
                outcomes.push("created");
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

async fn apply(
    api: &kube::Api<DynamicObject>,
    object: &Object,
    dry_run: bool,
) -> kube::Result<&'static str> {
    let config = annotated(object);
    let Some(live) = api.get_opt(object.name()).await? else {
        create(api, &config, dry_run).await?;
        return Ok("created");
    };
    let last = live
        .metadata
        .annotations
        .as_ref()
        .and_then(|annotations| annotations.get(LAST_APPLIED))
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_else(|| json!({}));
    let live_value = serde_json::to_value(&live).map_err(kube::Error::SerdeError)?;
    let patch = three_way(&last, &config, &live_value);
    if patch.as_object().is_some_and(Map::is_empty) {
        return Ok("unchanged");
    }
    let params = PatchParams {
        dry_run,
        field_manager: Some(FIELD_MANAGER.into()),
        field_validation: Some(kube::api::ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let before = live.metadata.resource_version.clone();
    let after = api
        .patch(object.name(), &params, &Patch::Merge(&patch))
        .await?;
    Ok(if after.metadata.resource_version == before {
        "unchanged"
    } else {
        "configured"
    })
}

/// Creates the object, refusing fields that its kind does not have: the library's own create cannot ask for that.
async fn create(
    api: &kube::Api<DynamicObject>,
    config: &Value,
    dry_run: bool,
) -> kube::Result<DynamicObject> {
    let dry_run = if dry_run { "&dryRun=All" } else { "" };
    let uri = format!(
        "{}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry_run}",
        api.resource_url()
    );
    let body = serde_json::to_vec(config).map_err(kube::Error::SerdeError)?;
    let request = http::Request::post(uri)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(body)
        .map_err(kube::Error::HttpError)?;
    api.clone().into_client().request(request).await
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
