//! Asks a real kube-apiserver, and writes down what it answers.
//!
//! It runs in a temporary folder for as long as this takes. curl sends the requests, one after the other, over one connection.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use super::corpus::{Amounts, CURRENT, Case, cases};
use super::{ANSWERS, CORPUS, STATUSES};
use crate::kube_apiserver::{KubeApiserver, Setup};

const NAMESPACE: &str = "diff";
/// Definitions are served some moments after they are stored.
const SERVED_TIMEOUT: Duration = Duration::from_secs(180);
const SETUP: Setup<'_> = Setup {
    token: "secret",
    // What it keeps is thrown away.
    etcd_flags: &["--unsafe-no-fsync"],
    flags: &["--authorization-mode=AlwaysAllow", "--allow-privileged"],
};
/// Requests that curl is given at once.
const BATCH: usize = 2_000;

/// Where the kinds of the corpus live.
const RESOURCES: &[(&str, &str, &str, bool)] = &[
    ("v1", "Pod", "pods", true),
    ("v1", "Service", "services", true),
    ("v1", "Namespace", "namespaces", false),
    ("v1", "Node", "nodes", false),
    ("v1", "ConfigMap", "configmaps", true),
    ("v1", "Secret", "secrets", true),
    ("v1", "ServiceAccount", "serviceaccounts", true),
    ("v1", "Event", "events", true),
    ("apps/v1", "Deployment", "deployments", true),
    ("apps/v1", "ReplicaSet", "replicasets", true),
    (
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "endpointslices",
        true,
    ),
    ("events.k8s.io/v1", "Event", "events", true),
    ("coordination.k8s.io/v1", "Lease", "leases", true),
    (
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        "certificatesigningrequests",
        false,
    ),
    (
        "gateway.networking.k8s.io/v1",
        "HTTPRoute",
        "httproutes",
        true,
    ),
    ("gateway.networking.k8s.io/v1", "Gateway", "gateways", true),
    (
        "gateway.networking.k8s.io/v1",
        "GatewayClass",
        "gatewayclasses",
        false,
    ),
    ("apps/v1", "StatefulSet", "statefulsets", true),
    ("apps/v1", "DaemonSet", "daemonsets", true),
    ("apps/v1", "ControllerRevision", "controllerrevisions", true),
    ("batch/v1", "Job", "jobs", true),
    ("batch/v1", "CronJob", "cronjobs", true),
    (
        "v1",
        "ReplicationController",
        "replicationcontrollers",
        true,
    ),
    ("v1", "PodTemplate", "podtemplates", true),
    (
        "autoscaling/v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        true,
    ),
    (
        "autoscaling/v1",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        true,
    ),
    (
        "policy/v1",
        "PodDisruptionBudget",
        "poddisruptionbudgets",
        true,
    ),
    (
        "scheduling.k8s.io/v1",
        "PriorityClass",
        "priorityclasses",
        false,
    ),
    ("node.k8s.io/v1", "RuntimeClass", "runtimeclasses", false),
    ("v1", "Endpoints", "endpoints", true),
    ("v1", "PersistentVolume", "persistentvolumes", false),
    (
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        true,
    ),
    ("storage.k8s.io/v1", "StorageClass", "storageclasses", false),
    (
        "storage.k8s.io/v1",
        "VolumeAttachment",
        "volumeattachments",
        false,
    ),
    ("storage.k8s.io/v1", "CSIDriver", "csidrivers", false),
    ("storage.k8s.io/v1", "CSINode", "csinodes", false),
    (
        "storage.k8s.io/v1",
        "CSIStorageCapacity",
        "csistoragecapacities",
        true,
    ),
    (
        "storage.k8s.io/v1",
        "VolumeAttributesClass",
        "volumeattributesclasses",
        false,
    ),
    ("networking.k8s.io/v1", "Ingress", "ingresses", true),
    (
        "networking.k8s.io/v1",
        "IngressClass",
        "ingressclasses",
        false,
    ),
    (
        "networking.k8s.io/v1",
        "NetworkPolicy",
        "networkpolicies",
        true,
    ),
    ("networking.k8s.io/v1", "IPAddress", "ipaddresses", false),
    ("networking.k8s.io/v1", "ServiceCIDR", "servicecidrs", false),
    ("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRole",
        "clusterroles",
        false,
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "RoleBinding",
        "rolebindings",
        true,
    ),
    (
        "rbac.authorization.k8s.io/v1",
        "ClusterRoleBinding",
        "clusterrolebindings",
        false,
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
        "flowschemas",
        false,
    ),
    (
        "flowcontrol.apiserver.k8s.io/v1",
        "PriorityLevelConfiguration",
        "prioritylevelconfigurations",
        false,
    ),
    (
        "resource.k8s.io/v1",
        "ResourceClaim",
        "resourceclaims",
        true,
    ),
    (
        "resource.k8s.io/v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        true,
    ),
    ("resource.k8s.io/v1", "DeviceClass", "deviceclasses", false),
    (
        "resource.k8s.io/v1",
        "ResourceSlice",
        "resourceslices",
        false,
    ),
    ("v1", "ResourceQuota", "resourcequotas", true),
    ("v1", "LimitRange", "limitranges", true),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        "mutatingwebhookconfigurations",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicy",
        "mutatingadmissionpolicies",
        false,
    ),
    (
        "admissionregistration.k8s.io/v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        false,
    ),
    (
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        false,
    ),
];

const DEFINITIONS: &[&str] = &[
    "experimental/gateway.networking.k8s.io_httproutes.yaml",
    "standard/gateway.networking.k8s.io_gateways.yaml",
    "standard/gateway.networking.k8s.io_gatewayclasses.yaml",
];

/// Which manifests are asked about, how much, and where the answers go.
pub struct Corpus {
    manifests: Vec<Value>,
    statuses: Map<String, Value>,
    amounts: Amounts,
    answers: PathBuf,
}

impl Corpus {
    /// The one that is kept with the test.
    pub fn own() -> Result<Self> {
        Ok(Self {
            manifests: read_manifests(Path::new(CORPUS))?,
            statuses: serde_json::from_slice(&fs::read(STATUSES)?)?,
            amounts: Amounts::FULL,
            answers: PathBuf::from(ANSWERS),
        })
    }

    /// Manifests of others, which are not kept: a JSON list of objects.
    pub fn of(manifests: &Path, answers: &Path) -> Result<Self> {
        Ok(Self {
            manifests: read_manifests(manifests)?,
            amounts: Amounts::FEW,
            answers: answers.to_owned(),
            ..Self::own()?
        })
    }
}

fn read_manifests(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))
}

pub fn run(binaries: &Path, definitions: &Path, corpus: &Corpus) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("weft-differential-{}", std::process::id()));
    fs::create_dir_all(&dir)?;
    let reference = Reference::start(binaries, &dir)?;
    let recorded = record(&reference, definitions, corpus);
    drop(reference);
    fs::remove_dir_all(&dir)?;
    recorded
}

fn record(reference: &Reference, definitions: &Path, corpus: &Corpus) -> Result<()> {
    let manifests = &corpus.manifests;
    for file in DEFINITIONS {
        let body = fs::read(definitions.join(file)).with_context(|| format!("reading {file}"))?;
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let answer = reference.ask("POST", path, "application/yaml", &body)?;
        ensure!(answer.code == 201, "{file} was refused: {}", answer.body);
    }
    for (path, body) in [
        (
            "/api/v1/namespaces".to_owned(),
            json!({ "metadata": { "name": NAMESPACE } }),
        ),
        (
            format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts"),
            json!({ "metadata": { "name": "default" } }),
        ),
    ] {
        let body = body.to_string();
        let answer = reference.ask("POST", &path, "application/json", body.as_bytes())?;
        ensure!(matches!(answer.code, 201 | 409), "{path}: {}", answer.body);
    }
    let until = Instant::now() + SERVED_TIMEOUT;
    for resource in ["httproutes", "gateways", "gatewayclasses"] {
        let path = format!("/apis/gateway.networking.k8s.io/v1/{resource}");
        while reference.ask("GET", &path, "application/json", b"")?.code != 200 {
            ensure!(Instant::now() < until, "{path} is not served");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    let cases = cases(manifests, &corpus.statuses, corpus.amounts);
    let (creates, changes): (Vec<_>, Vec<_>) =
        cases.into_iter().partition(|case| case.action == "create");
    let mut lines = String::new();
    let mut tell = |cases: &[Case], versions: &[Option<String>]| -> Result<()> {
        for batch in cases.chunks(BATCH) {
            let requests: Vec<Request> = batch
                .iter()
                .map(|case| {
                    let version = versions.get(case.manifest).cloned().flatten();
                    request_of(case, &manifests[case.manifest], version.as_deref())
                })
                .collect::<Result<_>>()?;
            let answers = reference.ask_all(&requests)?;
            for (case, answer) in batch.iter().zip(answers) {
                writeln!(lines, "{}", line_of(case, &answer))?;
            }
            println!("{} of {} asked", lines.lines().count(), cases.len());
        }
        Ok(())
    };
    tell(&creates, &[])?;
    // Changes are about objects that are there; a name that the server makes up cannot be asked for again.
    let mut versions = Vec::new();
    for manifest in manifests {
        let mut version = None;
        if manifest["metadata"]["name"].is_string() {
            let path = path_of(manifest)?;
            let body = manifest.to_string();
            let answer = reference.ask("POST", &path, "application/json", body.as_bytes())?;
            if answer.code == 201 {
                let created: Value = serde_json::from_str(&answer.body)?;
                version = created["metadata"]["resourceVersion"]
                    .as_str()
                    .map(str::to_owned);
            } else {
                println!("{path}: {}", answer.body);
            }
        }
        versions.push(version);
    }
    let changes: Vec<Case> = changes
        .into_iter()
        .filter(|case| versions[case.manifest].is_some())
        .collect();
    tell(&changes, &versions)?;
    let packed = lz4_flex::compress_prepend_size(lines.as_bytes());
    fs::write(&corpus.answers, &packed)?;
    println!(
        "{}: {} answers, {} KiB",
        corpus.answers.display(),
        lines.lines().count(),
        packed.len() >> 10
    );
    Ok(())
}

/// What is kept of an answer: a line of JSON.
fn line_of(case: &Case, answer: &Answer) -> Value {
    let mut line = json!({
        "action": case.action, "validation": case.validation, "manifest": case.manifest, "body": case.body, "code": answer.code,
    });
    let parsed: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    if answer.code < 300 {
        line["object"] = parsed;
    } else {
        line["message"] = parsed["message"].clone();
    }
    if !answer.warnings.is_empty() {
        line["warnings"] = json!(answer.warnings);
    }
    line
}

fn path_of(manifest: &Value) -> Result<String> {
    let (version, kind) = (&manifest["apiVersion"], &manifest["kind"]);
    let (version, _, resource, namespaced) = RESOURCES
        .iter()
        .find(|(v, k, _, _)| version == v && kind == k)
        .with_context(|| format!("{version} {kind} is no kind of the comparison"))?;
    let root = match version.contains('/') {
        true => "apis",
        false => "api",
    };
    Ok(match namespaced {
        true => format!("/{root}/{version}/namespaces/{NAMESPACE}/{resource}"),
        false => format!("/{root}/{version}/{resource}"),
    })
}

/// `version` is the resourceVersion of the object.
fn request_of(case: &Case, manifest: &Value, version: Option<&str>) -> Result<Request> {
    let collection = path_of(manifest)?;
    let query = format!("dryRun=All&fieldValidation={}", case.validation);
    let mut words = case.action.split(' ').peekable();
    let below = words.next_if(|word| matches!(*word, "status" | "scale"));
    let (method, media_type) = match words.next() {
        Some("create") => ("POST", "application/json"),
        Some("json") => ("PATCH", "application/json-patch+json"),
        Some("merge") => ("PATCH", "application/merge-patch+json"),
        Some("strategic") => ("PATCH", "application/strategic-merge-patch+json"),
        _ => ("PUT", "application/json"),
    };
    let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
    let path = match (method, below) {
        ("POST", _) => collection,
        (_, None) => format!("{collection}/{name}"),
        (_, Some(below)) => format!("{collection}/{name}/{below}"),
    };
    let mut body = case.body.clone();
    if let Some(named) = body.pointer_mut("/metadata/resourceVersion")
        && *named == CURRENT
    {
        *named = version.unwrap_or_default().into();
    }
    Ok(Request {
        method,
        path: format!("{path}?{query}"),
        media_type,
        body: body.to_string().into_bytes(),
    })
}

struct Request {
    method: &'static str,
    path: String,
    media_type: &'static str,
    body: Vec<u8>,
}

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: String,
}

impl Answer {
    /// From what curl writes with `include`: head, empty line, body.
    fn parse(text: &str) -> Result<Self> {
        let (head, body) = text
            .split_once("\r\n\r\n")
            .context("the answer has no head")?;
        let mut lines = head.lines();
        let code = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok())
            .context("the answer has no code")?;
        let warnings = lines
            .filter_map(|line| line.split_once(": "))
            .filter(|(name, _)| name.eq_ignore_ascii_case("warning"))
            .map(|(_, value)| value.to_owned())
            .collect();
        Ok(Self {
            code,
            warnings,
            body: body.to_owned(),
        })
    }
}

/// The kube-apiserver that is asked.
struct Reference {
    server: KubeApiserver,
    dir: PathBuf,
}

impl Reference {
    fn start(binaries: &Path, dir: &Path) -> Result<Self> {
        Ok(Self {
            server: KubeApiserver::start(binaries, dir, &SETUP)?,
            dir: dir.to_owned(),
        })
    }

    fn ask(
        &self,
        method: &'static str,
        path: &str,
        media_type: &'static str,
        body: &[u8],
    ) -> Result<Answer> {
        let request = Request {
            method,
            path: path.to_owned(),
            media_type,
            body: body.to_vec(),
        };
        let mut answers = self.ask_all(std::slice::from_ref(&request))?;
        answers.pop().context("no answer")
    }

    fn ask_all(&self, requests: &[Request]) -> Result<Vec<Answer>> {
        let file = |what: &str, index: usize| self.dir.join(format!("{what}-{index}"));
        let mut config = String::new();
        for (index, request) in requests.iter().enumerate() {
            fs::write(file("body", index), &request.body)?;
            if index > 0 {
                config.push_str("next\n");
            }
            writeln!(config, "url = \"{}\"", self.server.url(&request.path))?;
            writeln!(config, "request = \"{}\"", request.method)?;
            if !request.body.is_empty() {
                writeln!(
                    config,
                    "data-binary = \"@{}\"",
                    file("body", index).display()
                )?;
            }
            writeln!(config, "header = \"Content-Type: {}\"", request.media_type)?;
            writeln!(config, "header = \"Accept: application/json\"")?;
            writeln!(config, "header = \"{}\"", self.server.authorization())?;
            writeln!(config, "output = \"{}\"", file("answer", index).display())?;
            config.push_str("insecure\nsilent\ninclude\n");
        }
        let path = self.dir.join("curl.config");
        fs::write(&path, config)?;
        for index in 0..requests.len() {
            // What was answered last time must not be read as what is answered now.
            let _ = fs::remove_file(file("answer", index));
        }
        let status = Command::new("curl").arg("--config").arg(&path).status()?;
        // One dropped connection must not lose the other answers.
        let _ = status;
        requests
            .iter()
            .enumerate()
            .map(|(index, request)| {
                let text = fs::read_to_string(file("answer", index)).unwrap_or_default();
                match text.is_empty() {
                    true if requests.len() > 1 => Ok(Answer {
                        code: 0,
                        warnings: Vec::new(),
                        body: String::new(),
                    }),
                    _ => Answer::parse(&text)
                        .with_context(|| format!("{} {}", request.method, request.path)),
                }
            })
            .collect()
    }
}
