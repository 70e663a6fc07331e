//! `weft delete`: delete objects by manifest or by name, and wait until they are gone.

use std::path::PathBuf;
use std::time::Duration;

use kube::api::DeleteParams;
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
    /// Namespace of objects that name none
    #[arg(short, long)]
    namespace: Option<String>,
    /// Return at once, without waiting until the objects are gone
    #[arg(long)]
    no_wait: bool,
    /// Seconds that each object is waited for
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    timeout: u64,
    /// It is no error when an object is already gone
    #[arg(long)]
    ignore_not_found: bool,
    #[command(flatten)]
    client: ClientArgs,
}

/// How often a deletion that takes time is asked after.
const POLL: Duration = Duration::from_millis(100);

/// # Errors
/// When nothing is named, an object is not there, or it is not gone within the time-out.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut targets: Vec<(kube::Api<DynamicObject>, String, String)> = Vec::new();
    let client;
    if args.filename.is_empty() {
        let named = kinds::named(&args.what)?;
        if named.is_empty() || named.iter().any(|named| named.names.is_empty()) {
            return Err(Failure::new(
                "nothing to delete",
                "no object was named",
                "weft delete KIND NAME, or weft delete -f FILE",
            )
            .usage()
            .into());
        }
        client = args.client.client().await?;
        let served = Kinds::discover(&client).await?;
        for named in named {
            let kind = served.resolve(&named.kind)?;
            for name in named.names {
                let namespace = args.namespace.as_deref();
                let api = manifest::api(&client, &kind.resource, &kind.scope, namespace);
                targets.push((api, manifest::display_name(&kind.resource, &name), name));
            }
        }
    } else {
        let mut objects = manifest::read(&args.filename)?;
        // What was created last depends on what was created first.
        objects.reverse();
        client = args.client.client().await?;
        let mut resources = manifest::Resources::default();
        for object in objects {
            let (resource, capabilities) = resources.resolve(&client, &object).await?;
            let namespace = object.namespace().or(args.namespace.as_deref());
            let api = manifest::api(&client, &resource, &capabilities.scope, namespace);
            targets.push((
                api,
                manifest::display_name(&resource, object.name()),
                object.name().into(),
            ));
        }
    }
    let mut waiting = Vec::new();
    let mut failed = Vec::new();
    for (api, shown, name) in targets {
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(answer) => {
                stdout::line(format_args!("{shown} deleted"))?;
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
    if !args.no_wait {
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

async fn wait(
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
