//! Asks a real kube-apiserver, and writes down what it answers.
//!
//! It runs in a temporary folder for as long as this takes. curl sends the requests, one after the other, over one connection.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use serde_json::{Map, Value, json};

use super::corpus::{Amounts, CURRENT, Case, cases};
use super::{ANSWERS, CORPUS, STATUSES, manifests};
use crate::kube_apiserver::{KubeApiserver, Setup};

const NAMESPACE: &str = "diff";
/// Who made the objects that are changed, and who applies to them.
const MAKER: &str = "maker";
const APPLIER: &str = "applier";
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
            manifests: manifests::read(Path::new(CORPUS), is_known)?,
            statuses: serde_json::from_slice(&fs::read(STATUSES)?)?,
            amounts: Amounts::FULL,
            answers: PathBuf::from(ANSWERS),
        })
    }

    /// Manifests of others, which are not kept.
    pub fn of(path: &Path, answers: &Path) -> Result<Self> {
        Ok(Self {
            manifests: manifests::read(path, is_known)?,
            amounts: Amounts::FEW,
            answers: answers.to_owned(),
            ..Self::own()?
        })
    }
}

/// Whether a kind is one that is asked about without a definition of it.
pub fn is_known(version: &str, kind: &str) -> bool {
    let mut known = RESOURCES.iter();
    known.any(|(a_version, a_kind, _, _)| *a_version == version && *a_kind == kind)
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
        ensure!(answer.code == 201, "{file} was refused: {}", answer.text());
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
        ensure!(
            matches!(answer.code, 201 | 409),
            "{path}: {}",
            answer.text()
        );
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
                    let path = path_of(&manifests[case.manifest], manifests)?;
                    Ok(request_of(
                        case,
                        path,
                        &manifests[case.manifest],
                        version.as_deref(),
                    ))
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
    // Definitions are judged before there are any, and are there before objects of theirs are.
    let (definitions, creates): (Vec<_>, Vec<_>) = creates
        .into_iter()
        .partition(|case| manifests::is_definition(&manifests[case.manifest]));
    tell(&definitions, &[])?;
    define(reference, manifests)?;
    tell(&creates, &[])?;
    // Changes are about objects that are there; a name that the server makes up cannot be asked for again.
    let mut versions = Vec::new();
    for manifest in manifests {
        let mut version = None;
        if manifest["metadata"]["name"].is_string() {
            let path = path_of(manifest, manifests)?;
            let body = manifest.to_string();
            let made = format!("{path}?fieldManager={MAKER}");
            let mut answer = reference.ask("POST", &made, "application/json", body.as_bytes())?;
            if answer.code == 409 {
                let name = manifest["metadata"]["name"].as_str().unwrap_or_default();
                answer =
                    reference.ask("GET", &format!("{path}/{name}"), "application/json", b"")?;
            }
            if matches!(answer.code, 200 | 201) {
                let created: Value = serde_json::from_slice(&answer.body)?;
                version = created["metadata"]["resourceVersion"]
                    .as_str()
                    .map(str::to_owned);
            } else {
                println!("{path}: {}", answer.text());
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

/// Makes the kinds that the manifests define.
fn define(reference: &Reference, manifests: &[Value]) -> Result<()> {
    let definitions: Vec<&Value> = manifests
        .iter()
        .filter(|manifest| manifests::is_definition(manifest))
        .collect();
    let mut served = Vec::new();
    for definition in definitions {
        let path = path_of(definition, manifests)?;
        let body = definition.to_string();
        let answer = reference.ask("POST", &path, "application/json", body.as_bytes())?;
        if answer.code != 201 {
            println!("{}: {}", definition["metadata"]["name"], answer.text());
            continue;
        }
        let spec = &definition["spec"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        for version in spec["versions"].as_array().into_iter().flatten() {
            if version["served"] == true {
                let (group, version) = (text(&spec["group"]), text(&version["name"]));
                let plural = text(&spec["names"]["plural"]);
                served.push(format!("/apis/{group}/{version}/{plural}"));
            }
        }
    }
    let until = Instant::now() + SERVED_TIMEOUT;
    for path in served {
        while reference.ask("GET", &path, "application/json", b"")?.code != 200 {
            ensure!(Instant::now() < until, "{path} is not served");
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    Ok(())
}

/// What is kept of an answer: a line of JSON.
fn line_of(case: &Case, answer: &Answer) -> Value {
    let mut line = json!({
        "action": case.action, "validation": case.validation, "manifest": case.manifest, "body": case.body, "code": answer.code,
    });
    let text = String::from_utf8_lossy(&answer.body);
    let parsed: Value = match case.action {
        "read yaml" | "list yaml" => serde_saphyr::from_str(&text).unwrap_or_default(),
        // As it came: the comparison decodes both.
        "read protobuf" | "list protobuf" if answer.code < 300 => {
            json!(base64::engine::general_purpose::STANDARD.encode(&answer.body))
        }
        "watch json" if answer.code < 300 => {
            let first = text.lines().next().unwrap_or_default();
            serde_json::from_str(first).unwrap_or_default()
        }
        _ => serde_json::from_str(&text).unwrap_or_default(),
    };
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

/// Where objects like this one are; its kind may be defined by another of the manifests.
fn path_of(manifest: &Value, manifests: &[Value]) -> Result<String> {
    let text = |field: &str| manifest[field].as_str().unwrap_or_default();
    let (version, kind) = (text("apiVersion"), text("kind"));
    let (resource, namespaced) = RESOURCES
        .iter()
        .find(|(a_version, a_kind, _, _)| version == *a_version && kind == *a_kind)
        .map(|(_, _, resource, namespaced)| (*resource, *namespaced))
        .or_else(|| manifests::defined(manifests, version, kind))
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
fn request_of(case: &Case, collection: String, manifest: &Value, version: Option<&str>) -> Request {
    let mut query = format!("dryRun=All&fieldValidation={}", case.validation);
    match case.action {
        "apply" => query += &format!("&fieldManager={APPLIER}"),
        "apply force" => query += &format!("&fieldManager={APPLIER}&force=true"),
        "delete" => query = "dryRun=All".to_owned(),
        action if action.starts_with("read ") => query.clear(),
        "list table" => query = format!("fieldSelector={}&includeObject=Object", named(manifest)),
        "watch json" => {
            query = format!("fieldSelector={}&watch=1&timeoutSeconds=1", named(manifest))
        }
        action if action.starts_with("list ") => {
            query = format!("fieldSelector={}", named(manifest))
        }
        _ => {}
    }
    let mut words = case.action.split(' ').peekable();
    let below = words.next_if(|word| matches!(*word, "status" | "scale"));
    let (method, media_type) = match words.next() {
        Some("apply") => ("PATCH", "application/apply-patch+yaml"),
        Some("delete") => ("DELETE", "application/json"),
        Some("read" | "list" | "watch") => ("GET", "application/json"),
        Some("create") => ("POST", "application/json"),
        Some("json") => ("PATCH", "application/json-patch+json"),
        Some("merge") => ("PATCH", "application/merge-patch+json"),
        Some("strategic") => ("PATCH", "application/strategic-merge-patch+json"),
        _ => ("PUT", "application/json"),
    };
    let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
    let path = match (method, below) {
        ("POST", _) => collection,
        ("GET", _) if !case.action.starts_with("read ") => collection,
        (_, None) => format!("{collection}/{name}"),
        (_, Some(below)) => format!("{collection}/{name}/{below}"),
    };
    let mut body = case.body.clone();
    for pointer in [
        "/metadata/resourceVersion",
        "/preconditions/resourceVersion",
    ] {
        if let Some(named) = body.pointer_mut(pointer)
            && *named == CURRENT
        {
            *named = version.unwrap_or_default().into();
        }
    }
    Request {
        method,
        path: format!("{path}?{query}"),
        media_type,
        accept: accepted(case.action),
        body: match body {
            Value::Null => Vec::new(),
            body => body.to_string().into_bytes(),
        },
    }
}

/// What selects one object among those of its kind.
fn named(manifest: &Value) -> String {
    let name = manifest["metadata"]["name"].as_str().unwrap_or("none");
    format!("metadata.name%3D{name}")
}

/// The form that an answer is asked for in.
fn accepted(action: &str) -> &'static str {
    match action {
        "read yaml" | "list yaml" => "application/yaml",
        "read protobuf" | "list protobuf" => "application/vnd.kubernetes.protobuf",
        "read table" | "list table" => "application/json;as=Table;v=v1;g=meta.k8s.io",
        "list metadata" => "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
        "read metadata" => "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        _ => "application/json",
    }
}

struct Request {
    method: &'static str,
    path: String,
    media_type: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

struct Answer {
    code: u16,
    warnings: Vec<String>,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    /// From what curl writes with `include`: head, empty line, body.
    fn parse(text: &[u8]) -> Result<Self> {
        const END: &[u8] = b"\r\n\r\n";
        let end = text.windows(END.len()).position(|part| part == END);
        let end = end.context("the answer has no head")?;
        let (head, body) = (
            String::from_utf8_lossy(&text[..end]),
            &text[end + END.len()..],
        );
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
            body: body.to_vec(),
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
            accept: "application/json",
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
            writeln!(config, "header = \"Accept: {}\"", request.accept)?;
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
                let text = fs::read(file("answer", index)).unwrap_or_default();
                match text.is_empty() {
                    true if requests.len() > 1 => Ok(Answer {
                        code: 0,
                        warnings: Vec::new(),
                        body: Vec::new(),
                    }),
                    _ => Answer::parse(&text)
                        .with_context(|| format!("{} {}", request.method, request.path)),
                }
            })
            .collect()
    }
}
