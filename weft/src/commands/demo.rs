//! `weft demo`: applications that show what there is, with their components, in the program itself: no compiler, no registry, no network.
//!
//! `apply` puts the components into the cluster's registry, applies the manifest as `weft apply` does, waits until all pods of it are ready, and
//! says where to look. What is there already stays; applied again, it changes what is asked for otherwise.
//!
//! Left to others: the components (`build.rs`; a program that was built before them is given a folder with `--components`), the application
//! itself (`sample-apps/`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{DeleteParams, ListParams};
use kube::core::DynamicObject;
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use weft_api::{Object, annotation};

use super::{apply, dash, delete, manifest, push};
use crate::exit::Failure;
use crate::kubeconfig::{ClientArgs, api_failure};
use crate::stdout;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    task: Task,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Task {
    /// Show which applications there are
    List,
    /// Run one, and wait until it does
    Apply {
        #[arg(value_parser = named)]
        name: &'static Demo,
        /// So much load: of vote, votes a second
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LOAD_MAX)))]
        load: Option<u32>,
        /// Take its components from this folder, instead of those in the program
        #[arg(long, value_name = "FOLDER")]
        components: Option<PathBuf>,
        /// Return once it is applied, without waiting until it runs
        #[arg(long)]
        no_wait: bool,
        /// Seconds that it is waited for
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        timeout: u64,
        /// Print what is to be seen where as one JSON line
        #[arg(short, long)]
        output: Option<Output>,
    },
    /// Take one away, with everything in its namespace
    Delete {
        #[arg(value_parser = named)]
        name: &'static Demo,
        /// Seconds that it is waited for
        #[arg(long, default_value_t = 120, value_name = "SECONDS")]
        timeout: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    Json,
}

/// An application.
#[derive(Debug)]
struct Demo {
    name: &'static str,
    about: &'static str,
    namespace: &'static str,
    /// The host of its page.
    host: &'static str,
    manifest: &'static str,
    components: &'static [Component],
    /// The Deployment and the variable of its containers that say how much load there is.
    load: (&'static str, &'static str),
}

#[derive(Debug)]
struct Component {
    /// Of the file, without its end.
    name: &'static str,
    image: &'static str,
    /// Empty where the program was built before it.
    bytes: &'static [u8],
}

macro_rules! component {
    ($name:literal, $image:literal) => {
        Component {
            name: $name,
            image: $image,
            bytes: include_bytes!(concat!(env!("OUT_DIR"), "/", $name, ".wasm")),
        }
    };
}

static DEMOS: [Demo; 1] = [Demo {
    name: "vote",
    about: "votes for emoji: three services and a bot that votes; one vote in ten fails on purpose",
    namespace: "vote",
    host: "vote.localhost",
    manifest: include_str!("../../../sample-apps/vote/weft.yaml"),
    components: &[
        component!("web", "vote/web:0.1"),
        component!("emoji", "vote/emoji:0.1"),
        component!("voting", "vote/voting:0.1"),
        component!("bot", "vote/bot:0.1"),
    ],
    load: ("bot", "RATE"),
}];

/// More than a bot, which waits for each answer, gets done.
const LOAD_MAX: u32 = 10_000;
/// How often it is looked whether it runs.
const POLL: Duration = Duration::from_millis(100);
const SPINNER_TICK: Duration = Duration::from_millis(100);

fn named(name: &str) -> Result<&'static Demo, String> {
    let found = DEMOS.iter().find(|demo| demo.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = DEMOS.iter().map(|demo| demo.name).collect();
        format!("there is no demo of that name, but {}", names.join(", "))
    })
}

/// # Errors
/// When a component is not there, the cluster refuses something, or the application does not run in time.
pub async fn run(args: Args) -> anyhow::Result<()> {
    match args.task {
        Task::List => {
            for demo in &DEMOS {
                stdout::line(format_args!("{:<10} {}", demo.name, demo.about))?;
            }
            Ok(())
        }
        Task::Apply {
            name: demo,
            load,
            components,
            no_wait,
            timeout,
            output,
        } => {
            let began = Instant::now();
            let objects = demo.objects(load)?;
            // Before anything is changed.
            let components = demo.components(components.as_deref())?;
            let (client, server) = args.client.client_of().await?;
            let progress = ProgressBar::new_spinner().with_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            progress.enable_steady_tick(SPINNER_TICK);
            let done = demo
                .bring_out(
                    &client,
                    objects,
                    components,
                    (!no_wait).then(|| Duration::from_secs(timeout)),
                    &progress,
                )
                .await;
            progress.finish_and_clear();
            done?;
            demo.tell(&client, &server, began.elapsed(), no_wait, output)
                .await
        }
        Task::Delete {
            name: demo,
            timeout,
        } => demo.take_away(&args.client, timeout).await,
    }
}

impl Demo {
    /// The objects of its manifest, with so much load.
    fn objects(&self, load: Option<u32>) -> Result<Vec<Object>, Failure> {
        let mut objects = Vec::new();
        manifest::parse(self.manifest, &mut objects).map_err(|why| {
            Failure::new(
                format!("cannot use the manifest of {}", self.name),
                why,
                "this is a mistake of this program",
            )
        })?;
        let (deployment, variable) = self.load;
        if let Some(load) = load {
            let of_load =
                |object: &&mut Object| object.kind() == "Deployment" && object.name() == deployment;
            for object in objects.iter_mut().filter(of_load) {
                let containers = object
                    .as_value_mut()
                    .pointer_mut("/spec/template/spec/containers");
                let containers = containers.and_then(Value::as_array_mut);
                let variables = containers
                    .into_iter()
                    .flatten()
                    .filter_map(|container| container.get_mut("env")?.as_array_mut());
                for one in variables.flatten() {
                    if one["name"] == variable {
                        one["value"] = json!(load.to_string());
                    }
                }
            }
        }
        Ok(objects)
    }

    /// The names of the images with their components.
    fn components(&self, folder: Option<&Path>) -> Result<Vec<(&'static str, Vec<u8>)>, Failure> {
        let mut found = Vec::with_capacity(self.components.len());
        for component in self.components {
            let bytes = match folder {
                Some(folder) => {
                    push::read_component(&folder.join(format!("{}.wasm", component.name)))?
                }
                None if component.bytes.is_empty() => {
                    return Err(Failure::new(
                        format!(
                            "this weft was built without the components of {}",
                            self.name
                        ),
                        "they were not there when it was built",
                        "build them with `cargo xtask guests`, and name their folder: --components target/guests",
                    ));
                }
                None => component.bytes.to_vec(),
            };
            found.push((component.image, bytes));
        }
        Ok(found)
    }

    async fn bring_out(
        &self,
        client: &kube::Client,
        objects: Vec<Object>,
        components: Vec<(&'static str, Vec<u8>)>,
        wait: Option<Duration>,
        progress: &ProgressBar,
    ) -> anyhow::Result<()> {
        for (image, bytes) in components {
            progress.set_message(format!("pushing {image}"));
            push::put(client.clone(), &push::target(image)?, bytes, None).await?;
        }
        progress.set_message(format!("applying {} objects", objects.len()));
        apply::objects(client, &objects).await?;
        let Some(timeout) = wait else { return Ok(()) };
        let until = Instant::now() + timeout;
        let api = deployments(client, self.namespace);
        loop {
            let found = api.list(&ListParams::default()).await;
            let found = found.map_err(|error| {
                api_failure(format!("cannot see whether {} runs", self.name), &error)
            })?;
            let missing = missing(&objects, &found.items);
            if missing.is_empty() {
                return Ok(());
            }
            let missing = missing.join(", ");
            if Instant::now() >= until {
                let next = format!("look at `weft get pods -n {}`", self.namespace);
                let what = format!("{} does not run after {} s", self.name, timeout.as_secs());
                return Err(Failure::new(what, missing, next).into());
            }
            progress.set_message(format!("waiting: {missing}"));
            tokio::time::sleep(POLL).await;
        }
    }

    /// Says where to look.
    async fn tell(
        &self,
        client: &kube::Client,
        server: &str,
        took: Duration,
        is_under_way: bool,
        output: Option<Output>,
    ) -> anyhow::Result<()> {
        let page = page(client, self.host).await;
        let mut link = dash::link(client, server).await?;
        link.url
            .push_str(&dash::to(&format!("traffic?ns={}", self.namespace)));
        let seconds = took.as_secs_f64();
        if output == Some(Output::Json) {
            let line = json!({
                "demo": self.name,
                "namespace": self.namespace,
                "page": page,
                "dashboard": link.url,
                "ready_seconds": (!is_under_way).then_some(seconds),
            });
            return Ok(stdout::line(line)?);
        }
        let how = match is_under_way {
            true => format!("{} is applied.", self.name),
            false => format!("{} runs after {seconds:.1} s.", self.name),
        };
        let page = page.map_or_else(String::new, |page| format!("  page        {page}\n"));
        Ok(stdout::text(&format!(
            "{how}\n\n{page}  dashboard   {url}\n              (signs in once, within five minutes; `weft dash` makes another link)\n\n  \
             weft mesh top -n {namespace}\n  weft demo delete {name}\n",
            url = link.url,
            namespace = self.namespace,
            name = self.name,
        ))?)
    }

    async fn take_away(&self, client: &ClientArgs, timeout: u64) -> anyhow::Result<()> {
        let client = client.client().await?;
        let namespaces = ApiResource::erase::<Namespace>(&());
        let api = kube::Api::<DynamicObject>::all_with(client, &namespaces);
        let shown = format!("namespace/{}", self.namespace);
        let deleted = api
            .delete(self.namespace, &DeleteParams::background())
            .await;
        let deleted =
            deleted.map_err(|error| api_failure(format!("cannot delete {shown}"), &error))?;
        if let Some(left) = deleted.left() {
            let uid = left.metadata.uid.as_deref();
            let timeout = Duration::from_secs(timeout);
            delete::wait(&api, &shown, self.namespace, uid, timeout).await?;
        }
        Ok(stdout::line(format_args!("{shown} deleted"))?)
    }
}

fn deployments(client: &kube::Client, namespace: &str) -> kube::Api<DynamicObject> {
    let deployments = ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&());
    kube::Api::namespaced_with(client.clone(), namespace, &deployments)
}

/// Deployments that are wanted and do not run yet, each with how far it is.
fn missing(wanted: &[Object], found: &[DynamicObject]) -> Vec<String> {
    let wanted = wanted.iter().filter(|object| object.kind() == "Deployment");
    wanted
        .filter_map(|object| {
            let live = found
                .iter()
                .find(|live| live.metadata.name.as_deref() == Some(object.name()));
            let number = |path: &str| live.and_then(|live| live.data.pointer(path)?.as_i64());
            let replicas = number("/spec/replicas").unwrap_or(1);
            let updated = number("/status/updatedReplicas").unwrap_or_default();
            let available = number("/status/availableReplicas").unwrap_or_default();
            let observed = number("/status/observedGeneration");
            let is_seen = live.is_some_and(|live| observed >= live.metadata.generation);
            let ready = available.min(updated);
            (!is_seen || ready < replicas)
                .then(|| format!("{} {ready} of {replicas}", object.name()))
        })
        .collect()
}

/// Where the page is, if a node says at which port it takes requests from outside.
async fn page(client: &kube::Client, host: &str) -> Option<String> {
    let nodes = kube::Api::<Node>::all(client.clone());
    let nodes = nodes.list(&ListParams::default().limit(1)).await.ok()?;
    let annotations = nodes.items.first()?.metadata.annotations.as_ref()?;
    let port: u16 = annotations.get(annotation::GATEWAY_PORT)?.parse().ok()?;
    Some(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_has_the_images_that_its_manifest_names_and_as_much_load_as_is_asked_for() {
        for demo in &DEMOS {
            let objects = demo.objects(Some(77)).unwrap();
            let text = objects
                .iter()
                .map(|object| object.as_value().to_string())
                .collect::<String>();
            for component in demo.components {
                let image = format!(r#""image":"{}""#, component.image);
                assert!(text.contains(&image), "{image}");
            }
            let deployments = objects.iter().filter(|one| one.kind() == "Deployment");
            assert_eq!(deployments.count(), demo.components.len());
            let (_, variable) = demo.load;
            let load = json!({"name": variable, "value": "77"});
            let of_load = objects.iter().filter_map(|one| {
                one.as_value()
                    .pointer("/spec/template/spec/containers/0/env")
            });
            let of_load = of_load.filter_map(Value::as_array).flatten();
            assert_eq!(of_load.filter(|one| **one == load).count(), 1);
            // In one namespace, which is all that goes with it.
            let inside = objects.iter().filter(|one| one.kind() != "Namespace");
            for object in inside {
                assert_eq!(
                    object.namespace(),
                    Some(demo.namespace),
                    "{}",
                    object.name()
                );
            }
        }
        assert!(named("vote").is_ok());
        assert_eq!(
            named("boat").unwrap_err(),
            "there is no demo of that name, but vote"
        );
    }

    #[test]
    fn what_does_not_run_yet_is_told() {
        let wanted = |name: &str| {
            let value =
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}});
            Object::from_value(value).unwrap()
        };
        let live = |name: &str, generation: i64, status: Value| -> DynamicObject {
            serde_json::from_value(json!({
                "metadata": {"name": name, "generation": generation}, "spec": {"replicas": 2}, "status": status,
            }))
            .unwrap()
        };
        let whole = |observed: i64, updated: i64, available: i64| json!({"observedGeneration": observed, "updatedReplicas": updated, "availableReplicas": available});
        let objects = ["a", "b", "c", "d", "e"].map(wanted);
        let found = [
            live("a", 1, whole(1, 2, 2)),
            live("b", 2, whole(1, 2, 2)),
            live("c", 1, whole(1, 1, 2)),
            live("d", 1, json!({})),
        ];
        assert_eq!(
            missing(&objects, &found),
            ["b 2 of 2", "c 1 of 2", "d 0 of 2", "e 0 of 1"]
        );
    }

    #[test]
    fn a_component_that_is_not_there_is_told_before_anything_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let refused = DEMOS[0].components(Some(folder.path())).unwrap_err();
        assert!(refused.what.starts_with("cannot push "), "{}", refused.what);
    }
}
