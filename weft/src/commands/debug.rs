//! `weft debug`: add a container with tools to a pod that runs, and open a shell in it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::pods;
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::session::{self, Wanted};

/// How often it is looked whether the container runs, and for how long.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOKS_MAX: u32 = 240;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the pod, or KIND/NAME of what owns pods, such as deployment/web: then its first pod
    #[arg(value_name = "POD")]
    pod: String,
    /// In this namespace [default: the one of the kubeconfig]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The image of the container that is added
    #[arg(long, default_value = "toolbox")]
    image: String,
    /// The name of the container that is added [default: debugger-N]
    #[arg(short, long)]
    container: Option<String>,
    /// The container that is looked into
    #[arg(long, value_name = "CONTAINER")]
    target: Option<String>,
    /// With what this program reads
    #[arg(short = 'i', long)]
    stdin: bool,
    /// In a terminal
    #[arg(short, long)]
    tty: bool,
    /// The command and its arguments [default: the image's own]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
    #[command(flatten)]
    client: ClientArgs,
}

/// A name that no container of the pod has.
fn free_name(pod: &Pod) -> String {
    let spec = pod.spec.as_ref();
    let taken = spec.and_then(|spec| spec.ephemeral_containers.as_ref());
    let taken: Vec<&str> = taken
        .into_iter()
        .flatten()
        .map(|container| container.name.as_str())
        .collect();
    let mut names = (1_u32..).map(|number| format!("debugger-{number}"));
    let free = names.find(|name| !taken.contains(&name.as_str()));
    free.unwrap_or_default()
}

fn status<'p>(pod: &'p Pod, container: &str) -> Option<&'p ContainerStatus> {
    let statuses = pod.status.as_ref()?.ephemeral_container_statuses.as_ref()?;
    statuses.iter().find(|status| status.name == container)
}

/// # Errors
/// When the container cannot be added or does not start, and with its exit code when that is not 0.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let client = args.client.client().await?;
    let namespace = args.namespace.as_deref();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace());
    let cannot = format!("cannot debug {}", args.pod);
    let pod = pods::one(&client, namespace, &args.pod, &cannot).await?;
    let name = pod.metadata.name.clone().unwrap_or_default();
    let container = args.container.clone().unwrap_or_else(|| free_name(&pod));
    let tty = session::terminal_for(args.tty, args.stdin);
    let mut added = json!({
        "name": container, "image": args.image, "stdin": args.stdin, "tty": tty,
        "terminationMessagePolicy": "File", "imagePullPolicy": "IfNotPresent",
    });
    if let Some(target) = &args.target {
        added["targetContainerName"] = target.as_str().into();
    }
    if !args.command.is_empty() {
        added["command"] = json!(args.command);
    }
    let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [added]}}));
    let api: kube::Api<Pod> = kube::Api::namespaced(client.clone(), namespace);
    let params = PatchParams::default();
    let patched = api.patch_subresource("ephemeralcontainers", &name, &params, &patch);
    patched
        .await
        .map_err(|error| api_failure(&cannot, &error))?;
    eprintln!("Defaulting debug container name to {container}.");
    if !args.stdin && !tty {
        return Ok(());
    }
    let is_over = wait(&api, &name, &container, &cannot).await?;
    if is_over {
        let why = format!("container {container} has ended already");
        let next = format!("see what it said with `weft logs {name} -c {container}`");
        return Err(Failure::new(cannot, why, next).into());
    }
    if args.stdin && tty {
        eprintln!("If you don't see a command prompt, try pressing enter.");
    }
    let wanted = Wanted {
        namespace,
        pod: &name,
        container: &container,
        command: None,
        stdin: args.stdin,
        tty,
    };
    session::at_hand(&client, &wanted, &cannot).await
}

/// Waits until a container runs, or has ended: whether it has.
async fn wait(
    api: &kube::Api<Pod>,
    pod: &str,
    container: &str,
    cannot: &str,
) -> Result<bool, Failure> {
    let mut why = "it is not started".to_owned();
    for _ in 0..LOOKS_MAX {
        let found = api.get(pod).await;
        let found = found.map_err(|error| api_failure(cannot, &error))?;
        let state = status(&found, container).and_then(|status| status.state.as_ref());
        if let Some(state) = state {
            if state.terminated.is_some() {
                return Ok(true);
            }
            if state.running.is_some() {
                return Ok(false);
            }
            if let Some(waiting) = &state.waiting {
                let parts = [waiting.reason.as_deref(), waiting.message.as_deref()];
                let parts: Vec<&str> = parts.into_iter().flatten().collect();
                why = parts.join(": ");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let next = format!("see the pod with `weft get pod {pod} -o yaml`");
    Err(Failure::new(
        cannot,
        format!("container {container} does not run: {why}"),
        next,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_is_free() {
        let pod = |names: &[&str]| -> Pod {
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            serde_json::from_value(
                json!({"spec": {"containers": [], "ephemeralContainers": containers}}),
            )
            .expect("a pod")
        };
        assert_eq!(free_name(&pod(&[])), "debugger-1");
        assert_eq!(
            free_name(&pod(&["debugger-1", "x", "debugger-3"])),
            "debugger-2"
        );
    }
}
