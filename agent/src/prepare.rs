//! Getting a container ready: image, artefact, configuration, identity, log, workload.
//!
//! Everything here may be slow, and is a task of the pod's worker that can be dropped at any await. What comes out is
//! ready to be started and holds all it needs; what fails is a reason and a sentence for the container's status.
//!
//! Left to others: starting it (`execute`), reading the Pod (`translate`, `unsupported`), fetching (`image`).

use crate::bridge::{self, Failures, Siblings};
use crate::environment::{self, Configuration};
use crate::events::Severity;
use crate::execute::Node;
use crate::guest::Guest;
use crate::identity::{Chain, Claim};
use crate::image::{ImageError, PullPolicy};
use crate::logs::{self, RunId, Stream};
use crate::pod_state::StartFailure;
use crate::probes;
use crate::translate::{self, Isolation, WorkloadSpec, World};
use crate::unsupported;
use crate::wanted::Role;
use bytes::Bytes;
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, Secret};
use kube::api::Api;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use weft_api::{SpiffeId, workload};
use weft_mesh::{CallerInfo, WorkloadInfo};
use weft_runtime::worker::{Setup, Worker};
use weft_runtime::{
    Artifact, ArtifactError, EventSink, InstancePolicy, Limits, LogSink, Volume, Workload,
};

/// How long an idle pooled instance waits for the next call before it ends.
const POOLED_IDLE: Duration = Duration::from_secs(10);

/// A component that is not loaded after this long is told to be compiling: most take less, and need no event.
const COMPILING_TOLD_AFTER: Duration = Duration::from_secs(2);

/// A container that is ready to be started.
pub(crate) struct Prepared {
    pub(crate) spec: WorkloadSpec,
    pub(crate) workload: Guest,
    pub(crate) world: World,
    pub(crate) probes: Vec<probes::Spec>,
    pub(crate) image_id: String,
    pub(crate) log: logs::Writer,
    pub(crate) failures: Arc<Failures>,
    pub(crate) siblings: Siblings,
    pub(crate) identity: SpiffeId,
    pub(crate) claim: Claim,
}

/// The names metrics and peers see.
pub(crate) fn workload_info(pod: &Pod) -> WorkloadInfo {
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    let owner = pod
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let name = match owner {
        None => translate::pod_name(pod),
        Some(owner) => {
            let hash = labels.get(weft_api::annotation::POD_TEMPLATE_HASH);
            workload::of_owner(&owner.kind, &owner.name, hash.map_or("", String::as_str))
        }
    };
    WorkloadInfo::from_labels(name, translate::namespace(pod), &labels)
}

/// Everything that getting a container ready needs.
pub(crate) struct Preparing {
    pub(crate) node: Arc<Node>,
    pub(crate) pod: Arc<Pod>,
    pub(crate) container: Container,
    pub(crate) role: Role,
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
        let (artifact, image_id) = self.artifact().await?;
        let probes = probes::specs(&self.container).map_err(|error| config(&error))?;
        let configuration = self.configuration().await?;
        let services = self
            .node
            .topology
            .services_for(translate::namespace(&self.pod));
        let spec = translate::container(
            &self.pod,
            &self.container,
            self.ip,
            &configuration,
            &services,
            &self.node.facts,
        )
        .map_err(|error| config(&error))?;
        let world = world(self.role, spec.world, &artifact)
            .map_err(|message| (StartFailure::Create, message))?;
        let identity = SpiffeId::new(
            &self.node.trust_domain,
            translate::namespace(&self.pod),
            translate::service_account(&self.pod),
        );
        let claim = self
            .node
            .identities
            .claim(identity.clone())
            .await
            .map_err(|error| create(&Chain(&error)))?;

        let worker = self
            .node
            .workers
            .find(translate::namespace(&self.pod), &self.node.link)
            .await
            .map_err(|error| create(&error))?;
        let place = match worker {
            Some(worker) => match spec.mounts.first() {
                None => Place::Apart(worker),
                Some(mount) => return Err((StartFailure::Config, no_files(&mount.volume))),
            },
            None => Place::Here(self.volumes(&spec).await?),
        };
        let log = self.node.logs.begin(RunId {
            namespace: translate::namespace(&self.pod).into(),
            pod: translate::pod_name(&self.pod).into(),
            uid: translate::uid(&self.pod).into(),
            container: self.container.name.clone(),
            restart: self.restart,
        });
        let failures = Arc::new(Failures::new(
            log.clone(),
            self.node.recorder.clone(),
            &self.pod,
            &self.container.name,
            spec.request_timeout,
        ));
        let info = workload_info(&self.pod);
        let me = Arc::new(weft_mesh::Peer {
            spiffe_id: identity.to_string().into(),
            identity: identity.clone(),
            workload: info.name.as_str().into(),
            transport: weft_mesh::Transport::InProcess,
        });
        let outbound = self.node.mesh.outbound(CallerInfo {
            identity: identity.clone(),
            workload: info,
        });
        let workload = build(
            &self.node,
            place,
            &artifact,
            &spec,
            &log,
            failures.clone(),
            bridge::outbound(outbound, self.siblings.clone(), me, failures.clone()),
        )
        .await
        .map_err(|message| {
            log.close();
            (StartFailure::Create, message)
        })?;
        self.event(
            Severity::Normal,
            "Created",
            format!("Created container: {}", self.container.name),
        );
        Ok(Prepared {
            spec,
            workload,
            world,
            probes,
            image_id,
            log,
            failures,
            siblings: self.siblings,
            identity,
            claim,
        })
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

    /// Whether the pod brings credentials for the registry that `image` comes from.
    fn expects_credentials(&self, image: &str) -> bool {
        let foreign = match image.parse() {
            Ok(weft_api::ImageReference::Registry(reference)) => reference.host.is_some(),
            Ok(weft_api::ImageReference::File(_)) | Err(_) => false,
        };
        let secrets = self
            .pod
            .spec
            .as_ref()
            .and_then(|spec| spec.image_pull_secrets.as_ref());
        foreign && secrets.is_some_and(|secrets| !secrets.is_empty())
    }

    async fn artifact(&self) -> Result<(Artifact, String), Refusal> {
        let image = self.container.image.clone().unwrap_or_default();
        let policy = match self.container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            Some("IfNotPresent") => PullPolicy::IfNotPresent,
            _ if image
                .parse::<weft_api::ImageReference>()
                .is_ok_and(|reference| reference.is_latest()) =>
            {
                PullPolicy::Always
            }
            _ => PullPolicy::IfNotPresent,
        };
        let present = || format!("Container image \"{image}\" already present on machine");
        if policy != PullPolicy::Always
            && let Some((id, digest)) = self.node.images.resolved(&image)
            && let Some(digest) = weft_runtime::Digest::parse(&digest)
            && let Some(artifact) = self.node.engine.loaded(digest)
        {
            self.event(Severity::Normal, "Pulled", present());
            return Ok((artifact, id));
        }
        if policy == PullPolicy::Always
            || (policy == PullPolicy::IfNotPresent && !self.node.images.knows(&image))
        {
            self.event(
                Severity::Normal,
                "Pulling",
                format!("Pulling image \"{image}\""),
            );
        }
        let begun = std::time::Instant::now();
        let found = self
            .node
            .images
            .get(&image, policy)
            .await
            .map_err(|error| {
                let failure = match error {
                    ImageError::Name(_) => StartFailure::ImageName,
                    ImageError::Never { .. } => StartFailure::ImageNever,
                    _ => StartFailure::Image,
                };
                let anonymously = match failure {
                    StartFailure::Image if self.expects_credentials(&image) => {
                        "; it was pulled anonymously, imagePullSecrets are not used by this node"
                    }
                    _ => "",
                };
                (failure, format!("{error}{anonymously}"))
            })?;
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
            .loaded(found.bytes)
            .await
            .map_err(|error| (StartFailure::Create, error.to_string()))?;
        Ok((artifact, found.id))
    }

    /// Loads a component, and says so where that takes long: a large one is compiled for half a minute at its first start.
    async fn loaded(&self, bytes: Bytes) -> Result<Artifact, ArtifactError> {
        let (size, begun) = (bytes.len(), std::time::Instant::now());
        let load = self.node.engine.load(bytes);
        let mut load = std::pin::pin!(load);
        if let Ok(loaded) = tokio::time::timeout(COMPILING_TOLD_AFTER, load.as_mut()).await {
            return loaded;
        }
        let words = format!("Compiling a component of {size} bytes for this node");
        self.event(Severity::Normal, "Compiling", words);
        let loaded = load.await?;
        let words = format!("Compiled in {:.0?}", begun.elapsed());
        self.event(Severity::Normal, "Compiled", words);
        Ok(loaded)
    }

    /// The volumes of the container's mounts.
    async fn volumes(&self, spec: &WorkloadSpec) -> Result<Vec<Volume>, Refusal> {
        let mut volumes = Vec::new();
        for mount in &spec.mounts {
            let all = &self.node.volumes;
            let volume = all.volume(&self.pod, mount, &self.node.recorder).await;
            volumes.push(volume.map_err(|error| {
                let message = format!("volume \"{}\": {}", mount.volume, Chain(&error));
                (StartFailure::Create, message)
            })?);
        }
        Ok(volumes)
    }

    /// The ConfigMaps and Secrets the container's environment names. One that does not exist is left out: whether that is an
    /// error, `translate` decides.
    async fn configuration(&self) -> Result<Configuration, Refusal> {
        let references = environment::references(&self.container);
        let namespace = translate::namespace(&self.pod);
        let failed = |kind: &str, name: &str, error: &kube::Error| {
            (
                StartFailure::Config,
                format!("{kind} \"{name}\" could not be read: {}", Chain(error)),
            )
        };
        let mut configuration = Configuration::default();
        let config_maps: Api<ConfigMap> = Api::namespaced(self.node.link.client(), namespace);
        for name in references.config_maps {
            if let Some(map) = config_maps
                .get_opt(&name)
                .await
                .map_err(|error| failed("configmap", &name, &error))?
            {
                configuration.config_maps.insert(name, map);
            }
        }
        let secrets: Api<Secret> = Api::namespaced(self.node.link.client(), namespace);
        for name in references.secrets {
            if let Some(secret) = secrets
                .get_opt(&name)
                .await
                .map_err(|error| failed("secret", &name, &error))?
            {
                configuration.secrets.insert(name, secret);
            }
        }
        Ok(configuration)
    }
}

/// What a component is used as: HTTP wins for main containers, init containers are run.
fn world(role: Role, asked: Option<World>, artifact: &Artifact) -> Result<World, String> {
    let kind = artifact.kind();
    let wanted = match (role, asked) {
        (Role::Init, _) => World::Command,
        (_, Some(world)) => world,
        (_, None) if kind.http.is_some() => World::Http,
        (_, None) => World::Command,
    };
    match wanted {
        World::Http if kind.http.is_none() => Err("the component does not export wasi:http, which the annotation weft.dev/world asks for".into()),
        World::Command if kind.command.is_none() => Err(match role {
            Role::Init => "an init container runs to completion, and this component does not export wasi:cli/run".into(),
            Role::Main | Role::Sidecar => "the component does not export wasi:cli/run, which the annotation weft.dev/world asks for".into(),
        }),
        world => Ok(world),
    }
}

fn no_files(volume: &str) -> String {
    format!(
        "volume \"{volume}\" cannot be mounted: the worker process of a namespace with the label {} has no files",
        weft_api::annotation::ISOLATE_PROCESS
    )
}

/// Where a guest runs.
enum Place {
    /// In this process, with the volumes of its mounts.
    Here(Vec<Volume>),
    Apart(Worker),
}

/// The guest, in its place.
async fn build(
    node: &Node,
    place: Place,
    artifact: &Artifact,
    spec: &WorkloadSpec,
    log: &logs::Writer,
    failures: Arc<Failures>,
    outbound: weft_runtime::Outbound,
) -> Result<Guest, String> {
    let limits = Limits {
        memory_bytes: spec.memory_bytes,
        cpu_millis: spec.cpu_millis,
        cpu_reserved_millis: spec.cpu_reserved_millis,
        request_timeout: spec.request_timeout,
        body_bytes: spec.body_bytes,
        ..Limits::default()
    };
    let sink = |stream: Stream| {
        let log = log.clone();
        LogSink::new(move |bytes| log.write(stream, bytes))
    };
    let policy = match spec.isolation {
        Isolation::Default => None,
        Isolation::PerRequest => Some(InstancePolicy::PerRequest),
        Isolation::Pooled {
            max_requests,
            max_concurrent,
        } => Some(InstancePolicy::Pooled {
            max_requests,
            max_concurrent,
            idle: POOLED_IDLE,
        }),
    };
    let faults = EventSink::of_broken_off(move |fault| failures.record_failure(&fault));
    let volumes = match place {
        Place::Here(volumes) => volumes,
        Place::Apart(worker) => {
            let setup = Setup {
                name: spec.name.clone(),
                env: spec.env.clone(),
                args: spec.args.clone(),
                limits,
                policy,
                stdout: sink(Stream::Stdout),
                stderr: sink(Stream::Stderr),
                outbound: Some(outbound),
                events: Some(faults),
            };
            let built = worker.build(&node.engine, artifact, setup).await;
            return built
                .map(Guest::Apart)
                .map_err(|error| Chain(&error).to_string());
        }
    };
    let mut builder = Workload::builder(&node.engine, artifact)
        .name(spec.name.clone())
        .env(spec.env.clone())
        .args(spec.args.clone())
        .limits(limits)
        .stdout(sink(Stream::Stdout))
        .stderr(sink(Stream::Stderr))
        .events(faults)
        .outbound(outbound);
    if let Some(policy) = policy {
        builder = builder.instance_policy(policy);
    }
    for (volume, mount) in volumes.iter().zip(&spec.mounts) {
        builder = builder.volume(volume, &mount.path, mount.access);
    }
    builder
        .build()
        .map(Guest::Here)
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
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
            assert_eq!(workload_info(&pod).name, expected);
        }
    }
}
