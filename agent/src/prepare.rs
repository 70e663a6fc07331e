//! Getting a container ready: image, artefact, configuration, identity, log, workload.
//!
//! Everything here may be slow, and is a task of the pod's worker that can be dropped at any await. What comes out is
//! ready to be started and holds all it needs; what fails is a reason and a sentence for the container's status.
//!
//! Left to others: starting it (`execute`), reading the Pod (`translate`, `unsupported`), fetching (`image`).

use crate::bridge::{self, Siblings};
use crate::cgroup::Held;
use crate::configuration::Configuration;
use crate::console::{self, Console};
use crate::context::{self, Context, LateRoot};
use crate::downward::Downward;
use crate::environment;
use crate::events::Severity;
use crate::failures::Failures;
use crate::grants::{self, granted};
use crate::guest::Guest;
use crate::hooks::{self, Hooks};
use crate::host_aliases::HostAliases;
use crate::host_ports::{self, HostPorts};
use crate::identity::{Chain, Claim};
use crate::image::{self, Image, ImageError, Keyring, PullPolicy, Wish};
use crate::kept_pod::KeptPod;
use crate::last_words::LastWords;
use crate::logs::{self, RunId, Stream};
use crate::node::Node;
use crate::otlp;
use crate::pod_state::StartFailure;
use crate::pod_view::PodView;
use crate::probes;
use crate::root_files;
use crate::roots::{Placed, Root};
use crate::sockets::Sockets;
use crate::toolbox;
use crate::translate::{self, WorkloadSpec, World};
use crate::unsupported;
use crate::volumes::{self, Holds, Mount, MountError};
use crate::wanted::Role;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use kube::api::Api;
use parking_lot::Mutex;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OnceCell;
use weft_api::{SpiffeId, workload};
use weft_mesh::{CallerInfo, WorkloadInfo};
use weft_runtime::worker::Worker;
use weft_runtime::{
    Access, Artifact, ArtifactError, Below, EventSink, InstancePolicy, LogSink, MeshMetrics,
    Network, Setup, Stdio, Volume, Workload, WorkloadConfig,
};

/// Secrets of a pod that are read for a pull: each is a request to the API server.
const PULL_SECRETS_MAX: usize = 16;

/// A component that is not loaded after this long is told to be compiling: most take less, and need no event.
const COMPILING_TOLD_AFTER: Duration = Duration::from_secs(2);

const NO_TCP: &str = "ports.protocol is not supported: a component is served over HTTP on its ports that are TCP, and this one has none";

/// In the log of a container that may ask for them.
const NO_SOCKETS: &str = "weft: the worker process of an isolated namespace has no sockets: the component is refused each that it asks for. \
     Serve wasi:http, or run it in a namespace without the label.";

/// A container that is ready to be started.
pub(crate) struct Prepared {
    pub(crate) spec: WorkloadSpec,
    /// As it was when it got ready.
    pub(crate) container: Container,
    pub(crate) workload: Guest,
    pub(crate) context: Arc<Context>,
    /// The streams that its own command is run with.
    pub(crate) stdio: Stdio,
    pub(crate) last_words: LastWords,
    /// Where its sockets are, if it may have any.
    pub(crate) network: Option<Network>,
    pub(crate) world: World,
    pub(crate) probes: Vec<probes::Spec>,
    pub(crate) hooks: Hooks,
    pub(crate) image_id: String,
    pub(crate) log: logs::Writer,
    pub(crate) failures: Arc<Failures>,
    pub(crate) identity: SpiffeId,
    pub(crate) claim: Claim,
    pub(crate) grant: grants::Claim,
}

/// The names metrics and peers see.
pub(crate) fn workload_info(pod: PodView<'_>) -> WorkloadInfo {
    let labels = pod.0.metadata.labels.clone().unwrap_or_default();
    let owner = pod
        .0
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let name = match owner {
        None => pod.name(),
        Some(owner) => {
            let hash = labels.get(weft_api::annotation::POD_TEMPLATE_HASH);
            workload::of_owner(&owner.kind, &owner.name, hash.map_or("", String::as_str))
        }
    };
    WorkloadInfo::from_labels(name, pod.namespace(), &labels)
}

/// Everything that getting a container ready needs.
pub(crate) struct Preparing {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    /// The same, for whatever outlives getting ready.
    pub(crate) kept: KeptPod,
    pub(crate) container: Container,
    pub(crate) role: Role,
    /// Of an ephemeral container, the one whose root, volumes and environment it shares.
    pub(crate) target: Option<Container>,
    pub(crate) restart: u32,
    pub(crate) ip: IpAddr,
    pub(crate) siblings: Siblings,
}

pub(crate) type Refusal = (StartFailure, String);

impl Preparing {
    pub(crate) async fn prepare(self) -> Result<Prepared, Refusal> {
        let config = |error: &dyn std::fmt::Display| (StartFailure::Config, error.to_string());
        let create = |error: &dyn std::fmt::Display| (StartFailure::Create, error.to_string());
        // What can be said without the image is said before it is fetched.
        unsupported::check(&self.pod, &self.container).map_err(|error| config(&error))?;
        let probes = probes::specs(&self.container).map_err(|error| config(&error))?;
        let hooks = hooks::hooks(&self.container).map_err(|error| config(&error))?;
        let pod = PodView(&self.pod);
        HostPorts::open(&self.node, pod.uid(), self.ip).map_err(|why| {
            self.event(Severity::Warning, "FailedCreatePodSandBox", why.clone());
            create(&why)
        })?;
        let identity = SpiffeId::new(
            &self.node.trust_domain,
            pod.namespace(),
            pod.service_account(),
        );
        // Asked for before the image, which takes longer.
        let grant = self.node.grants.claim(&identity);
        let (artifact, image_id) = self.artifact().await?;
        let grants = self.granted(&grant, &artifact).await?;
        let at = Downward {
            pod,
            pod_ip: host_ports::address(pod, self.node.facts.host_ip).unwrap_or(self.ip),
            node: &self.node.facts,
        };
        let configuration = self.configuration(sees_files(&artifact)).await?;
        let services = self.node.topology.services_for(pod.namespace());
        let mut spec = translate::container(at, &self.container, &configuration, &services)
            .map_err(|error| config(&error))?;
        if let Some(target) = &self.target {
            let theirs = translate::container(at, target, &configuration, &services);
            spec.join(theirs.map_err(|error| config(&error))?);
        }
        let hostname = root_files::hostname(at);
        if !spec.has_variable("HOSTNAME") {
            spec.config.env.insert(0, ("HOSTNAME".into(), hostname));
        }
        let world = world(self.role, spec.world, &artifact)
            .map_err(|message| (StartFailure::Create, message))?;
        let claim = self
            .node
            .identities
            .claim(identity.clone())
            .await
            .map_err(|error| create(&Chain(&error)))?;

        let worker = self
            .node
            .workers
            .find(pod.namespace(), &self.node.link)
            .await
            .map_err(|error| create(&error))?;
        if worker.is_some() || !sees_files(&artifact) {
            spec.mounts.retain(|mount| !mount.automatic);
        }
        if world == World::Http && !has_tcp(&self.container) {
            return Err((StartFailure::Config, NO_TCP.to_owned()));
        }
        let place = match worker {
            Some(worker) => match spec.mounts.first() {
                None => Place::Apart(worker),
                Some(mount) => return Err((StartFailure::Config, no_files(&mount.volume))),
            },
            None => {
                let (mounts, placed) = self.volumes(&spec, at, &configuration).await?;
                let root = match sees_files(&artifact) {
                    true => Some(self.root(&spec, placed.clone(), at).await?),
                    false => None,
                };
                Place::Here(Files {
                    mounts,
                    placed,
                    root,
                })
            }
        };
        let run = RunId {
            namespace: pod.namespace().into(),
            pod: pod.name().into(),
            uid: pod.uid().into(),
            container: self.container.name.clone(),
            restart: self.restart,
        };
        let log = self.node.logs.begin(run.clone());
        let (root, mounts) = match &place {
            Place::Here(files) => (files.root.as_ref(), &files.mounts[..]),
            Place::Apart(_) => (None, &[][..]),
        };
        let logs = self.node.logs.clone();
        let last_words = LastWords::new(&self.container, root, mounts, logs, run);
        let late = match &place {
            Place::Here(Files {
                root: None,
                mounts,
                placed,
            }) => Some(Box::new(LateRoot {
                pod: self.kept.clone(),
                container: self.container.name.clone(),
                restart: self.restart,
                ip: at.pod_ip,
                mounts: mounts.clone(),
                placed: placed.clone(),
                held: Mutex::new(self.held()?),
                made: OnceCell::new(),
            })),
            Place::Here(_) | Place::Apart(_) => None,
        };
        let (console, stdio) = Console::new(console::Kind {
            stdin: self.container.stdin == Some(true),
            once: self.container.stdin_once == Some(true),
            tty: self.container.tty == Some(true),
        });
        let failures = Arc::new(Failures::new(
            log.clone(),
            self.node.recorder.clone(),
            &self.pod,
            &self.container.name,
            spec.request_timeout,
            matches!(spec.config.policy, Some(InstancePolicy::Pooled { .. })),
        ));
        let info = workload_info(pod);
        let sent = self.node.lines.as_ref().map(|lines| {
            let (name, restart) = (&self.container.name, self.restart);
            let container =
                otlp::Container::new(info.clone(), pod.name(), pod.uid(), name, restart);
            let container = Arc::new(container);
            [Stream::Stdout, Stream::Stderr].map(|stream| lines.printing(&container, stream))
        });
        let caller = CallerInfo {
            identity: identity.clone(),
            workload: info,
        };
        let outbound = self.node.mesh.outbound_of_pod(caller, at.pod_ip);
        let has_sockets = world == World::Command && opens_sockets(&artifact);
        let network = match &place {
            Place::Here(_) if has_sockets => Sockets::network_for(&self.node, pod.uid()),
            Place::Apart(_) if has_sockets => {
                log.write_note(NO_SOCKETS);
                None
            }
            Place::Here(_) | Place::Apart(_) => None,
        };
        let outbound = bridge::outbound(
            outbound,
            self.siblings.clone(),
            HostAliases::of(pod),
            failures.clone(),
            bridge::host_ports(&self.node, host_ports::is_on_host(pod)),
        );
        let metrics = grants.of::<MeshMetrics>().cloned();
        let setup = Setup {
            config: WorkloadConfig {
                account: pod.namespace().to_owned(),
                env: match has_sockets {
                    true => with_host_name(&spec.config.env, at),
                    false => spec.config.env.clone(),
                },
                ..spec.config.clone()
            },
            outbound: Some(outbound),
            network: network.clone(),
            grants,
            ..Setup::default()
        };
        let printing = Printing {
            failures: failures.clone(),
            console: console.clone(),
            sent,
        };
        let built = build(&self.node, place, &artifact, printing, setup);
        let workload = built.await.map_err(|message| {
            log.close();
            (StartFailure::Create, message)
        })?;
        let defaults = context::ENV_DEFAULT.into_iter();
        let context = Arc::new(Context {
            namespace: pod.namespace().to_owned(),
            uid: pod.uid().to_owned(),
            guest: workload.clone(),
            artifact,
            entrypoint: toolbox::entrypoint(
                self.container.image.as_deref().unwrap_or_default(),
                self.container.command.as_deref(),
            ),
            console,
            late,
            metrics,
            env: defaults
                .filter(|(name, _)| !spec.has_variable(name))
                .collect(),
        });
        self.event(
            Severity::Normal,
            "Created",
            format!("Created container: {}", self.container.name),
        );
        Ok(Prepared {
            spec,
            container: self.container,
            workload,
            context,
            stdio,
            last_words,
            network,
            world,
            probes,
            hooks,
            image_id,
            log,
            failures,
            identity,
            claim,
            grant,
        })
    }

    /// What the component gets of what its ServiceAccount is granted, if that is all that it imports.
    async fn granted(
        &self,
        grant: &grants::Claim,
        artifact: &Artifact,
    ) -> Result<weft_runtime::Grants, Refusal> {
        let pod = PodView(&self.pod);
        let granted = grant.granted().await;
        let imports = artifact.imports();
        granted::check(imports, pod.namespace(), pod.service_account(), &granted)
            .map_err(|missing| (StartFailure::NotGranted, missing.to_string()))?;
        if granted::imports_config(imports) {
            let refreshed = grant.account().refresh(&self.node.link).await;
            refreshed.map_err(|error| (StartFailure::Config, Chain(&error).to_string()))?;
        }
        let given = grant.give(imports, pod);
        given.map_err(|error| (StartFailure::Config, error.to_string()))
    }

    fn event(&self, severity: Severity, reason: &'static str, message: String) {
        self.node.recorder.pod(
            &self.pod,
            Some(&self.container.name),
            severity,
            reason,
            message,
        );
    }

    /// The credentials that the pod brings for the registry of `image`. Those of its ServiceAccount are among its own since it was
    /// created. A Secret that cannot be had is told and left out, as a kubelet does: the image may be had without.
    async fn keyring(&self, image: &str) -> Keyring {
        let mut keyring = Keyring::default();
        let reference = image.parse::<weft_api::ImageReference>();
        let is_foreign = reference.is_ok_and(|reference| match reference {
            weft_api::ImageReference::Registry(reference) => reference.host.is_some(),
            weft_api::ImageReference::File(_) => false,
        });
        let named = self.pod.spec.as_ref();
        let named = named.and_then(|spec| spec.image_pull_secrets.as_deref());
        let named = named.filter(|_| is_foreign).unwrap_or_default();
        let namespace = PodView(&self.pod).namespace();
        let secrets: Api<Secret> = Api::namespaced(self.node.link.client(), namespace);
        let mut without = Vec::new();
        for name in named
            .iter()
            .map(|secret| &secret.name)
            .take(PULL_SECRETS_MAX)
        {
            let added = match secrets.get_opt(name).await {
                Ok(Some(secret)) => {
                    let data = secret.data.unwrap_or_default();
                    let type_ = secret.type_.unwrap_or_default();
                    keyring.add(&type_, |key| data.get(key).map(|value| value.0.as_slice()))
                }
                Ok(None) => Err("does not exist".to_owned()),
                Err(error) => Err(format!("could not be read: {}", Chain(&error))),
            };
            if let Err(why) = added {
                without.push(format!("{name} {why}"));
            }
        }
        if !without.is_empty() {
            let words = format!(
                "Unable to retrieve some image pull secrets ({}); attempting to pull the image may not succeed.",
                without.join(", ")
            );
            self.event(Severity::Warning, "FailedToRetrieveImagePullSecret", words);
        }
        keyring
    }

    async fn artifact(&self) -> Result<(Artifact, String), Refusal> {
        let image = self.container.image.clone().unwrap_or_default();
        let policy = pull_policy(&image, self.container.image_pull_policy.as_deref());
        let namespace = PodView(&self.pod).namespace();
        let toolbox = match image::is_toolbox(&image) {
            true => {
                let workers = &self.node.workers;
                let allowed = workers.toolbox_allowed(namespace, &self.node.link).await;
                allowed.map_err(|error| (StartFailure::Image, Chain(&error).to_string()))?
            }
            false => false,
        };
        let wish = Wish {
            keyring: self.keyring(&image).await,
            namespace: namespace.to_owned(),
            image,
            policy,
            toolbox,
        };
        let image = wish.image.clone();
        let present = || format!("Container image \"{image}\" already present on machine");
        let resolved = self.node.images.resolved(&wish);
        if policy == PullPolicy::Always
            || (policy == PullPolicy::IfNotPresent && resolved.is_none())
        {
            self.event(
                Severity::Normal,
                "Pulling",
                format!("Pulling image \"{image}\""),
            );
        } else if let Some((id, digest)) = resolved
            && let Some(digest) = weft_runtime::Digest::parse(&digest)
            && let Some(artifact) = self.node.engine.loaded(digest)
        {
            self.event(Severity::Normal, "Pulled", present());
            return Ok((artifact, id));
        }
        let begun = std::time::Instant::now();
        let found = self.node.images.get(wish).await.map_err(image_refused)?;
        let words = if found.fetched {
            format!(
                "Successfully pulled image \"{image}\" in {:.0?}. Image size: {} bytes.",
                begun.elapsed(),
                found.bytes.len()
            )
        } else {
            present()
        };
        self.event(Severity::Normal, "Pulled", words);
        let artifact = self
            .loaded(found.bytes.clone())
            .await
            .map_err(|error| (StartFailure::Create, error.to_string()))?;
        self.node.toolbox.note(artifact.digest(), &found.bytes);
        Ok((artifact, found.id))
    }

    /// Loads a component, and says so where that takes long: a large one is compiled for half a minute at its first start.
    async fn loaded(&self, bytes: Bytes) -> Result<Artifact, ArtifactError> {
        let size = bytes.len();
        let load = self.node.engine.load(bytes);
        told_of(load, size, Artifact::code_bytes, |reason, words| {
            self.event(Severity::Normal, reason, words);
        })
        .await
    }

    /// What the container mounts: folders, and files that are mounted by themselves.
    async fn volumes(
        &self,
        spec: &WorkloadSpec,
        at: Downward<'_>,
        configuration: &Configuration,
    ) -> Result<(Vec<(Mount, Volume)>, Vec<Placed>), Refusal> {
        let (mut mounts, mut placed) = (Vec::new(), Vec::new());
        let name = &self.container.name;
        for mount in &spec.mounts {
            let all = &self.node.volumes;
            let is_made = all.is_made(at.pod.uid(), &mount.volume);
            let image = match mount.holds == Holds::Image && !is_made {
                true => Some(self.image_volume(&mount.volume).await?),
                false => None,
            };
            let given = volumes::Given {
                configuration,
                image: image.as_ref(),
                recorder: &self.node.recorder,
            };
            let found = all.find(&self.kept, name, mount, at, given).await;
            if let (Some(image), Err(MountError::Volume { .. })) = (&image, &found) {
                // Whatever was wrong with it is not to be met again.
                self.node.images.discard(image).await;
            }
            let found = found.map_err(|error| {
                let failure = match error {
                    MountError::Config(_) => StartFailure::Config,
                    MountError::Volume { .. } => StartFailure::Create,
                };
                (failure, Chain(&error).to_string())
            })?;
            match found {
                Below::Folder(volume) => mounts.push((mount.clone(), volume)),
                Below::File(file) => placed.push(Placed {
                    path: mount.path.clone(),
                    file: Arc::new(file),
                    is_shared: mount.access == Access::ReadWrite,
                }),
            }
        }
        Ok((mounts, placed))
    }

    /// The files of the image that a volume is.
    async fn image_volume(&self, volume: &str) -> Result<Image, Refusal> {
        let named = PodView(&self.pod).volume(volume);
        let source = named.and_then(|volume| volume.image.as_ref());
        let image = source.and_then(|source| source.reference.clone());
        let image = image.unwrap_or_default();
        let said = source.and_then(|source| source.pull_policy.as_deref());
        let wish = Wish {
            keyring: self.keyring(&image).await,
            namespace: PodView(&self.pod).namespace().to_owned(),
            policy: pull_policy(&image, said),
            toolbox: false,
            image: image.clone(),
        };
        let found = self.node.images.files(wish).await.map_err(image_refused)?;
        let words = match found.fetched {
            true => format!("Successfully pulled image \"{image}\" for volume {volume}"),
            false => format!("Container image \"{image}\" already present on machine"),
        };
        self.event(Severity::Normal, "Pulled", words);
        Ok(found)
    }

    /// The root of the container: a new one, or that of the container that it is to look into.
    async fn root(
        &self,
        spec: &WorkloadSpec,
        placed: Vec<Placed>,
        at: Downward<'_>,
    ) -> Result<Root, Refusal> {
        let (roots, uid) = (&self.node.roots, at.pod.uid());
        if let Some(target) = &self.target {
            if let Some(theirs) = roots.of(uid, &target.name) {
                return Ok(theirs);
            }
            let record = self.node.registry.get(at.pod.namespace(), at.pod.name());
            let mut others = record.into_iter().flat_map(|record| record.containers);
            if !others.any(|other| other.name == target.name && other.context.is_some()) {
                let why = format!("unable to find target container \"{}\"", target.name);
                return Err((StartFailure::Create, why));
            }
        }
        let names = self.node.names();
        let held = self.held()?;
        let contents = root_files::contents(at, &self.container, &spec.mounts, placed, names, held)
            .map_err(|error| (StartFailure::Config, error.to_string()))?;
        let made = roots.make(uid, &self.container.name, self.restart, contents);
        made.await.map_err(|error| {
            let why = format!("making the container's root: {error}");
            (StartFailure::Create, why)
        })
    }

    /// What the container is held to.
    fn held(&self) -> Result<Held, Refusal> {
        let held = Held::of(&self.node.facts, &self.container);
        held.map_err(|error| (StartFailure::Config, error.to_string()))
    }

    /// The ConfigMaps, Secrets and tokens that the container's environment and volumes name. An object that does not exist is left out:
    /// whether that is an error, `translate` and `volumes` decide.
    async fn configuration(&self, sees_files: bool) -> Result<Configuration, Refusal> {
        let pod = PodView(&self.pod);
        let mut references = environment::references(&self.container);
        references.extend(volumes::references(pod, &self.container, sees_files));
        if let Some(target) = &self.target {
            references.extend(environment::references(target));
            references.extend(volumes::references(pod, target, sees_files));
        }
        let (volumes, client) = (&self.node.volumes, self.node.link.client());
        let fetched = volumes.fetch(client, pod.namespace(), references);
        fetched
            .await
            .map_err(|error| (StartFailure::Config, Chain(&error).to_string()))
    }
}

/// When a registry is asked for an image.
fn pull_policy(image: &str, said: Option<&str>) -> PullPolicy {
    let is_latest = || {
        let reference = image.parse::<weft_api::ImageReference>();
        reference.is_ok_and(|reference| reference.is_latest())
    };
    match said {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        Some("IfNotPresent") => PullPolicy::IfNotPresent,
        _ if is_latest() => PullPolicy::Always,
        _ => PullPolicy::IfNotPresent,
    }
}

fn image_refused(error: ImageError) -> Refusal {
    let failure = match error {
        ImageError::Name(_) => StartFailure::ImageName,
        ImageError::Never { .. } | ImageError::NeverWithout { .. } => StartFailure::ImageNever,
        _ => StartFailure::Image,
    };
    (failure, error.to_string())
}

/// What comes of loading a component of `size` bytes; `tell` hears of it, with a reason and words, where that takes long.
async fn told_of<T, E>(
    load: impl Future<Output = Result<T, E>>,
    size: usize,
    code_bytes: impl FnOnce(&T) -> Option<usize>,
    mut tell: impl FnMut(&'static str, String),
) -> Result<T, E> {
    let begun = tokio::time::Instant::now();
    let mut load = std::pin::pin!(load);
    if let Ok(loaded) = tokio::time::timeout(COMPILING_TOLD_AFTER, load.as_mut()).await {
        return loaded;
    }
    let words = format!("Compiling a component of {size} bytes for this node");
    tell("Compiling", words);
    let loaded = load.await?;
    let code = match code_bytes(&loaded) {
        Some(bytes) => format!(" into {bytes} bytes of machine code"),
        None => String::new(),
    };
    tell(
        "Compiled",
        format!("Compiled{code} in {:.0?}", begun.elapsed()),
    );
    Ok(loaded)
}

/// What a component is used as: HTTP wins for main containers, init containers are run.
fn world(role: Role, asked: Option<World>, artifact: &Artifact) -> Result<World, String> {
    let kind = artifact.kind();
    let wanted = match (role, asked) {
        (Role::Init | Role::Ephemeral, _) => World::Command,
        (_, Some(world)) => world,
        (_, None) if kind.http.is_some() => World::Http,
        (_, None) => World::Command,
    };
    match wanted {
        World::Http if kind.http.is_none() => Err("the component does not export wasi:http, which the annotation weft.dev/world asks for".into()),
        World::Command if kind.command.is_none() => Err(match role {
            Role::Init => "an init container runs to completion, and this component does not export wasi:cli/run".into(),
            Role::Ephemeral => "an ephemeral container is run, and this component does not export wasi:cli/run".into(),
            Role::Main | Role::Sidecar => "the component does not export wasi:cli/run, which the annotation weft.dev/world asks for".into(),
        }),
        world => Ok(world),
    }
}

/// Whether the component opens files: what nobody asked for is not mounted into one that does not.
fn sees_files(artifact: &Artifact) -> bool {
    let mut imports = artifact.imports().iter();
    imports.any(|import| import.starts_with("wasi:filesystem/"))
}

/// Whether the container says of all its ports that they are none of TCP.
fn has_tcp(container: &Container) -> bool {
    let ports = container.ports.as_deref().unwrap_or_default();
    let is_tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|it| it == "TCP");
    ports.is_empty() || ports.iter().any(|port| is_tcp(&port.protocol))
}

/// Whether the component opens sockets.
fn opens_sockets(artifact: &Artifact) -> bool {
    const INTERFACES: [&str; 3] = [
        "wasi:sockets/tcp@",
        "wasi:sockets/udp@",
        "wasi:sockets/types@",
    ];
    let mut imports = artifact.imports().iter();
    imports.any(|import| {
        INTERFACES
            .iter()
            .any(|interface| import.starts_with(interface))
    })
}

/// A program with sockets can ask for its host's name: what a container runtime tells it, unless the pod does.
fn with_host_name(env: &[(String, String)], at: Downward<'_>) -> Vec<(String, String)> {
    const HOST_NAME: &str = "HOSTNAME";
    let mut env = env.to_vec();
    if !env.iter().any(|(name, _)| name == HOST_NAME) {
        env.push((HOST_NAME.to_owned(), root_files::hostname(at)));
    }
    env
}

fn no_files(volume: &str) -> String {
    format!(
        "volume \"{volume}\" cannot be mounted: the worker process of a namespace with the label {} has no files",
        weft_api::annotation::ISOLATE_PROCESS
    )
}

/// Where a guest runs.
enum Place {
    /// In this process, with its files.
    Here(Files),
    Apart(Worker),
}

/// What it mounts, and its root.
struct Files {
    mounts: Vec<(Mount, Volume)>,
    placed: Vec<Placed>,
    root: Option<Root>,
}

/// Where what it prints goes.
struct Printing {
    failures: Arc<Failures>,
    console: Arc<Console>,
    /// Both streams, where lines are sent to somebody.
    sent: Option<[otlp::Printing; 2]>,
}

/// A sink that `write` takes all of, and whoever it is sent to, if anybody.
fn sink(sent: Option<otlp::Printing>, write: impl Fn(&[u8]) + Send + Sync + 'static) -> LogSink {
    match sent {
        None => LogSink::new(write),
        Some(sent) => LogSink::with_calls(move |bytes, call| {
            write(bytes);
            sent.write(bytes, call.and_then(|call| call.trace.as_ref()));
        }),
    }
}

/// The guest, in its place.
async fn build(
    node: &Node,
    place: Place,
    artifact: &Artifact,
    printing: Printing,
    setup: Setup,
) -> Result<Guest, String> {
    let Printing {
        failures,
        console,
        sent,
    } = printing;
    let (sent_stdout, sent_stderr) = sent.map(|[stdout, stderr]| (stdout, stderr)).unzip();
    let stdout = sink(sent_stdout, {
        let (log, console) = (failures.log().clone(), console.clone());
        move |bytes| {
            log.write(Stream::Stdout, bytes);
            console.print(Stream::Stdout, bytes);
        }
    });
    let stderr = sink(sent_stderr, {
        let failures = failures.clone();
        move |bytes| {
            failures.hear(bytes);
            failures.log().write(Stream::Stderr, bytes);
            console.print(Stream::Stderr, bytes);
        }
    });
    let faults = EventSink::of_broken_off(move |fault| failures.record_failure(&fault, None));
    let setup = Setup {
        stdout,
        stderr,
        events: Some(faults),
        ..setup
    };
    let files = match place {
        Place::Here(files) => files,
        Place::Apart(worker) => {
            let built = worker.build(&node.engine, artifact, setup).await;
            return built
                .map(Guest::Apart)
                .map_err(|error| Chain(&error).to_string());
        }
    };
    let mut builder = Workload::builder(&node.engine, artifact).setup(setup);
    for (mount, volume) in &files.mounts {
        builder = builder.volume(volume, &mount.path, mount.access);
    }
    for (volume, path, access) in files.root.iter().flat_map(Root::lent) {
        builder = builder.volume(&volume, path, access);
    }
    builder
        .build()
        .map(Guest::Here)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node_facts::NodeFacts;
    use serde_json::json;

    #[test]
    fn a_pod_is_named_after_what_made_it() {
        for (name, owner, expected) in [
            (
                "web-7d4b9c6f5d-x2x8q",
                Some(("ReplicaSet", "web-7d4b9c6f5d")),
                "web",
            ),
            ("job-abcde", Some(("Job", "job")), "job"),
            ("alone", None, "alone"),
        ] {
            let owners: Vec<_> = owner
                .iter()
                .map(|(kind, name)| json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}))
                .collect();
            let pod = json!({"metadata": {"name": name, "namespace": "vote", "ownerReferences": owners, "labels": {"pod-template-hash": "7d4b9c6f5d"}}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            assert_eq!(workload_info(PodView(&pod)).name, expected);
        }
    }
    #[test]
    fn a_program_is_told_its_hosts_name_unless_the_pod_tells_it() {
        for (hostname, env, expected) in [
            (None, None, "web-0"),
            (Some("db"), None, "db"),
            (Some("db"), Some("other"), "other"),
        ] {
            let pod = json!({"metadata": {"name": "web-0"}, "spec": {"containers": [], "hostname": hostname}});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let env = env.map(|value: &str| ("HOSTNAME".to_owned(), value.to_owned()));
            let env: Vec<_> = env.into_iter().collect();
            let node = NodeFacts {
                name: "node-0".into(),
                host_ip: "127.0.0.1".parse().expect("an address"),
                allocatable_cpu_millis: 1000,
                allocatable_memory_bytes: 1 << 30,
            };
            let at = Downward {
                pod: PodView(&pod),
                pod_ip: node.host_ip,
                node: &node,
            };
            let found = with_host_name(&env, at);
            let expected = [("HOSTNAME".to_owned(), expected.to_owned())];
            assert_eq!(found, expected, "{hostname:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_compilation_is_told_of_where_it_takes_long() {
        for (seconds, outcome, expected) in [
            (1, Ok(7), ""),
            (
                37,
                Ok(7),
                "Compiling: Compiling a component of 13000000 bytes for this node\n\
                 Compiled: Compiled into 7 bytes of machine code in 37s\n",
            ),
            (
                37,
                Err("no"),
                "Compiling: Compiling a component of 13000000 bytes for this node\n",
            ),
        ] {
            let mut told = String::new();
            let load = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                outcome
            };
            let loaded = told_of(
                load,
                13_000_000,
                |code| Some(*code),
                |reason, words| {
                    told.push_str(&format!("{reason}: {words}\n"));
                },
            );
            assert_eq!(loaded.await, outcome);
            assert_eq!(told, expected);
        }
    }
}
