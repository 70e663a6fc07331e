//! The pod security standards: `privileged`, `baseline` and `restricted`, for the namespaces whose labels ask for them.
//!
//! A namespace says for each of three modes which level and which version of it holds: `enforce` refuses pods, `warn` tells whoever writes
//! pods or what makes them, `audit` is written down. A level is a list of checks; a later version may replace one.
//!
//! Invariants: labels that cannot be read enforce the strictest level, and are refused where they are written.
//! Source: k8s.io/pod-security-admission 0.37 (KEP-2579), and its sentences.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};
use weft_api::status::{Cause, StatusError};

use super::{Operation, Request};
use crate::lens::{flag, items, object, text};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level is raised.
pub const PODS_CHECKED_MAX: usize = 3000;
/// The newest version that a check came with.
const MINOR_MAX: u32 = 37;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        })
    }
}

/// A level as of a version; without a number, the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    minor: Option<u32>,
}

impl fmt::Display for Standard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level),
            None => write!(f, "{}:latest", self.level),
        }
    }
}

/// What a namespace asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Policy {
    enforce: Standard,
    audit: Standard,
    warn: Standard,
}

fn level(text: &str) -> Option<Level> {
    Some(match text {
        "privileged" => Level::Privileged,
        "baseline" => Level::Baseline,
        "restricted" => Level::Restricted,
        _ => return None,
    })
}

/// The number of a version, none for the latest.
fn minor(text: &str) -> Result<Option<u32>, ()> {
    if text == "latest" {
        return Ok(None);
    }
    let digits = text.strip_prefix("v1.").ok_or(())?;
    let plain = digits == "0" || !digits.starts_with('0');
    let digits = Some(digits).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits
        .filter(|_| plain)
        .and_then(|digits| digits.parse().ok());
    number.map(Some).ok_or(())
}

impl Policy {
    /// What labels ask for, and what is wrong with them.
    fn of(namespace: &Value) -> (Self, Vec<Cause>) {
        let labels = object(namespace, "/metadata/labels");
        let label = |name: &str| labels?.get(&format!("{PREFIX}{name}"))?.as_str();
        let mut causes = Vec::new();
        let mut wrong = |name: &str, value: &str, sentence: &str| {
            let field = format!("metadata.labels[{PREFIX}{name}]");
            causes.push(Cause::invalid(&field, &value.into(), sentence));
        };
        let mut read = |mode: &str, otherwise: Level| {
            let mut standard = Standard {
                level: Level::Privileged,
                minor: None,
            };
            if let Some(value) = label(mode) {
                standard.level = level(value).unwrap_or_else(|| {
                    wrong(
                        mode,
                        value,
                        "must be one of privileged, baseline, restricted",
                    );
                    otherwise
                });
            }
            let name = format!("{mode}-version");
            if let Some(value) = label(&name) {
                standard.minor = minor(value).unwrap_or_else(|()| {
                    wrong(&name, value, "must be \"latest\" or \"v1.x\"");
                    None
                });
            }
            standard
        };
        let enforce = read("enforce", Level::Restricted);
        let audit = read("audit", Level::Privileged);
        let mut warn = read("warn", Level::Privileged);
        let is_asked = label("enforce").and_then(level).is_some();
        if label("warn").is_none() && is_asked && enforce.level > warn.level {
            warn.level = enforce.level;
            if label("warn-version").is_none() {
                warn.minor = enforce.minor;
            }
        }
        let policy = Self {
            enforce,
            audit,
            warn,
        };
        (policy, causes)
    }

    fn is_privileged(&self) -> bool {
        [self.enforce, self.audit, self.warn]
            .iter()
            .all(|standard| standard.level == Level::Privileged)
    }
}

/// What is told beside an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub warnings: Vec<String>,
    pub annotations: BTreeMap<String, String>,
}

/// Whether a label asks for anything.
pub fn is_asked_by(label: &str) -> bool {
    label.starts_with(PREFIX)
}

/// Whether a namespace asks for anything of its pods.
pub fn asks(namespace: &Value) -> bool {
    let labels = object(namespace, "/metadata/labels").into_iter().flatten();
    labels.into_iter().any(|(key, _)| is_asked_by(key))
}

/// Whether a request is about pods, or about what makes them.
pub fn concerns(request: &Request) -> bool {
    template_of(request).is_some() && !skips(request)
}

fn skips(request: &Request) -> bool {
    let is_pod = request.place.resource == "pods";
    match request.subresource.as_str() {
        "" => false,
        // Whatever else changes a pod's spec is judged.
        "ephemeralcontainers" | "resize" => !is_pod,
        _ => true,
    }
}

/// Where in an object a pod's spec is, with its metadata; none for what makes no pods.
fn template_of(request: &Request) -> Option<&'static str> {
    Some(
        match (&*request.place.resource_group, &*request.place.resource) {
            ("", "pods") => "",
            ("", "podtemplates") => "/template",
            ("", "replicationcontrollers")
            | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
            | ("batch", "jobs") => "/spec/template",
            ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
            _ => return None,
        },
    )
}

/// Judges a pod, or what makes pods, that is to be in `namespace`.
///
/// # Errors
/// 403 for a pod that violates what is enforced.
pub fn judge(
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    namespace: &Value,
) -> Result<Told, StatusError> {
    let mut told = Told::default();
    let Some(pointer) = template_of(request) else {
        return Ok(told);
    };
    let is_pod = request.place.resource == "pods";
    if skips(request) || !matches!(request.operation, Operation::Create | Operation::Update) {
        return Ok(told);
    }
    let (policy, causes) = Policy::of(namespace);
    if policy.is_privileged() && causes.is_empty() {
        return Ok(told);
    }
    if let (true, Some(old)) = (is_pod, old)
        && !changes_containers(new, old)
    {
        return Ok(told);
    }
    let Some(pod) = new.pointer(pointer).filter(|pod| pod.get("spec").is_some()) else {
        return Ok(told);
    };
    if !causes.is_empty() {
        let faults: Vec<String> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let sentence = format!("Failed to parse policy: {}", super::aggregate(faults));
        told.annotation("error", sentence);
    }
    if is_pod {
        told.annotation("enforce-policy", policy.enforce.to_string());
        let found = violations(policy.enforce, pod);
        if !found.is_empty() {
            let sentence = format!(
                "violates PodSecurity \"{}\": {}",
                policy.enforce,
                detail(&found)
            );
            return Err(request.forbidden(Some(new), &sentence));
        }
    }
    let would = |standard: Standard| {
        let found = violations(standard, pod);
        let sentence = || {
            format!(
                "would violate PodSecurity \"{standard}\": {}",
                detail(&found)
            )
        };
        (!found.is_empty()).then(sentence)
    };
    if let Some(sentence) = would(policy.audit) {
        told.annotation("audit-violations", sentence);
    }
    told.warnings.extend(would(policy.warn));
    Ok(told)
}

impl Told {
    fn annotation(&mut self, name: &str, value: String) {
        self.annotations.insert(format!("{PREFIX}{name}"), value);
    }
}

/// Judges the labels of a namespace. `pods` gives those that are in it, for one whose level is raised.
///
/// # Errors
/// 422 for labels that cannot be read, unless they were there before.
pub fn judge_namespace(
    request: &Request,
    new: &Value,
    old: Option<&Value>,
    pods: impl FnOnce() -> Vec<Value>,
) -> Result<Told, StatusError> {
    let (policy, causes) = Policy::of(new);
    let before = old.map(Policy::of);
    let known = before.as_ref().is_some_and(|(_, faults)| *faults == causes);
    if !causes.is_empty() && !known {
        let name = text(new, "/metadata/name");
        return Err(StatusError::invalid("Namespace", "", name, causes));
    }
    let mut told = Told::default();
    let Some((before, _)) = before else {
        return Ok(told);
    };
    let (is, was) = (policy.enforce, before.enforce);
    let relaxed = is.minor == was.minor && is.level <= was.level;
    if is == was || is.level == Level::Privileged || relaxed {
        return Ok(told);
    }
    told.warnings = violations_of_namespace(&request.name, is, pods());
    Ok(told)
}

fn violations_of_namespace(namespace: &str, standard: Standard, pods: Vec<Value>) -> Vec<String> {
    let total = pods.len();
    // Of those that one controller made, the first tells of all.
    let mut owners = BTreeSet::new();
    let (first, more): (Vec<&Value>, Vec<&Value>) = pods.iter().partition(|pod| {
        let mut references = items(pod, "/metadata/ownerReferences").iter();
        let controller = references.find(|owner| flag(owner, "/controller"));
        controller.is_none_or(|owner| owners.insert(text(owner, "/uid").to_owned()))
    });
    let mut counts: BTreeMap<String, (String, usize)> = BTreeMap::new();
    for pod in first.into_iter().chain(more).take(PODS_CHECKED_MAX) {
        let found = violations(standard, pod);
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<&str> = found.iter().map(|(reason, _)| reason.as_str()).collect();
        let name = text(pod, "/metadata/name");
        let count = counts.entry(reasons.join(", ")).or_default();
        if count.1 == 0 || name < count.0.as_str() {
            name.clone_into(&mut count.0);
        }
        count.1 += 1;
    }
    let mut warnings = Vec::new();
    if total > PODS_CHECKED_MAX {
        warnings.push(format!(
            "new PodSecurity enforce level only checked against the first {PODS_CHECKED_MAX} of {total} existing pods"
        ));
    }
    if !counts.is_empty() {
        warnings.push(format!(
            "existing pods in namespace {namespace:?} violate the new PodSecurity enforce level \"{standard}\""
        ));
    }
    let mut lines: Vec<String> = counts
        .into_iter()
        .map(|(reasons, (name, count))| match count {
            1 => format!("{name}: {reasons}"),
            2 => format!("{name} (and 1 other pod): {reasons}"),
            count => format!("{name} (and {} other pods): {reasons}", count - 1),
        })
        .collect();
    lines.sort_unstable();
    warnings.append(&mut lines);
    warnings
}

/// Whether a pod has other containers than before, or other images.
fn changes_containers(new: &Value, old: &Value) -> bool {
    let images = |pod: &Value, list: &str| -> Vec<String> {
        let all = items(pod, list).iter();
        all.map(|container| text(container, "/image").to_owned())
            .collect()
    };
    let differ = |list: &str| images(new, list) != images(old, list);
    let ephemeral = items(new, "/spec/ephemeralContainers").iter().any(|new| {
        let mut before = items(old, "/spec/ephemeralContainers").iter();
        let before = before.find(|old| text(old, "/name") == text(new, "/name"));
        before.is_none_or(|before| text(before, "/image") != text(new, "/image"))
    });
    differ("/spec/containers") || differ("/spec/initContainers") || ephemeral
}

/// Why, and in which detail.
type Violation = (String, String);

fn detail(found: &[Violation]) -> String {
    let parts: Vec<String> = found
        .iter()
        .map(|(reason, detail)| match detail.is_empty() {
            true => reason.clone(),
            false => format!("{reason} ({detail})"),
        })
        .collect();
    parts.join(", ")
}

/// What one rule of a level says of a pod, by the version of the level.
type Rule = fn(&Pod<'_>, u32) -> Option<Violation>;

/// Everything that a pod does which a standard does not allow.
fn violations(standard: Standard, pod: &Value) -> Vec<Violation> {
    let minor = standard.minor.unwrap_or(MINOR_MAX).min(MINOR_MAX);
    let restricted = standard.level == Level::Restricted;
    if standard.level == Level::Privileged {
        return Vec::new();
    }
    let empty = Value::Null;
    let pod = Pod {
        annotations: object(pod, "/metadata/annotations"),
        spec: pod.get("spec").unwrap_or(&empty),
    };
    let own_users = minor >= 35 && pod.spec.get("hostUsers") == Some(&Value::Bool(false));
    let windows = minor >= 25 && text(pod.spec, "/os/name") == "windows";
    // Each of them once, in the order of its name; of two of one thing, the stricter.
    let baseline: [(bool, Rule); 12] = [
        (true, app_armor),
        (!(restricted && minor >= 22), capabilities),
        (true, host_namespaces),
        (!restricted, host_paths),
        (true, host_ports),
        (minor >= 34, probe_hosts),
        (true, privileged),
        (!(own_users || restricted && minor >= 35), proc_mount),
        (true, se_linux),
        (!(restricted && minor >= 19), seccomp),
        (true, sysctls),
        (true, host_process),
    ];
    let strict: [(bool, Rule); 7] = [
        (minor >= 8 && !windows, escalation),
        (minor >= 22 && !windows, all_capabilities),
        (minor >= 35, proc_mount),
        (true, volume_types),
        (!own_users, non_root),
        (minor >= 23 && !own_users, root_user),
        (minor >= 19 && !windows, seccomp_set),
    ];
    let strict = strict.iter().filter(|_| restricted);
    let checks = baseline.iter().chain(strict);
    checks
        .filter(|(applies, _)| *applies)
        .filter_map(|(_, check)| check(&pod, minor))
        .collect()
}

struct Pod<'a> {
    annotations: Option<&'a Map<String, Value>>,
    spec: &'a Value,
}

impl<'a> Pod<'a> {
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["/initContainers", "/containers", "/ephemeralContainers"]
            .into_iter()
            .flat_map(move |list| items(spec, list))
    }

    fn annotation(&self, name: &str) -> Option<&'a str> {
        self.annotations?.get(name)?.as_str()
    }

    /// The names of containers that something holds of.
    fn named(&self, mut bad: impl FnMut(&'a Value) -> bool) -> Vec<&'a str> {
        self.containers()
            .filter(|container| bad(container))
            .map(|container| text(container, "/name"))
            .collect()
    }
}

fn quoted<T: AsRef<str>>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<T> = items.into_iter().collect();
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.is_empty() {
        true => String::new(),
        false => format!("\"{}\"", items.join("\", \"")),
    }
}

fn plural<'s>(one: &'s str, many: &'s str, count: usize) -> &'s str {
    if count == 1 { one } else { many }
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    let word = plural("container", "containers", names.len());
    format!("{word} {}", quoted(names))
}

/// Who has set something: the pod, containers, or both.
fn setters(pod: bool, names: &[&str]) -> String {
    let mut who = Vec::new();
    if pod {
        who.push("pod".to_owned());
    }
    if !names.is_empty() {
        who.push(containers(names));
    }
    who.join(" and ")
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some((reason.to_owned(), detail))
}

fn app_armor(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |of: &Value| {
        let profile = of.pointer("/securityContext/appArmorProfile");
        let Some(profile) = profile else { return false };
        let kind = text(profile, "/type");
        let sound = matches!(kind, "RuntimeDefault" | "Localhost");
        if !sound {
            values.insert(kind.to_owned());
        }
        !sound
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let mut who = setters(on_pod, &names);
    let prefix = "container.apparmor.security.beta.kubernetes.io/";
    let annotations = pod.annotations.into_iter().flatten();
    let annotations: Vec<String> = annotations
        .filter(|(key, _)| key.starts_with(prefix))
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(_, value)| {
            !value.is_empty() && *value != "runtime/default" && !value.starts_with("localhost/")
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut all: Vec<String> = values.into_iter().collect();
    if !annotations.is_empty() {
        if !who.is_empty() {
            who += " and ";
        }
        who += plural("annotation", "annotations", annotations.len());
        all.extend(annotations);
    }
    if who.is_empty() {
        return None;
    }
    let reason = plural(
        "forbidden AppArmor profile",
        "forbidden AppArmor profiles",
        all.len(),
    );
    violation(
        reason,
        format!(
            "{who} must not set AppArmor profile type to {}",
            quoted(&all)
        ),
    )
}

const CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Capabilities that a container adds beyond those that are allowed.
fn added<'a>(container: &'a Value, allowed: &[&str]) -> Vec<&'a str> {
    let added = items(container, "/securityContext/capabilities/add").iter();
    let added = added.filter_map(Value::as_str);
    added.filter(|name| !allowed.contains(name)).collect()
}

fn capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.named(|container| {
        let more = added(container, CAPABILITIES);
        found.extend(more.iter().copied());
        !more.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(found)
        ),
    )
}

fn all_capabilities(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let keep = pod.named(|container| {
        let dropped = items(container, "/securityContext/capabilities/drop");
        !dropped.iter().any(|name| name == "ALL")
    });
    let mut found = BTreeSet::new();
    let adds = pod.named(|container| {
        let more = added(container, &["NET_BIND_SERVICE"]);
        found.extend(more.iter().copied());
        !more.is_empty()
    });
    let mut told = Vec::new();
    if !keep.is_empty() {
        told.push(format!(
            "{} must set securityContext.capabilities.drop=[\"ALL\"]",
            containers(&keep)
        ));
    }
    if !adds.is_empty() {
        told.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adds),
            quoted(found)
        ));
    }
    if told.is_empty() {
        return None;
    }
    violation("unrestricted capabilities", told.join("; "))
}

fn host_namespaces(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter();
    let shared: Vec<String> = shared
        .filter(|field| flag(pod.spec, &format!("/{field}")))
        .map(|field| format!("{field}=true"))
        .collect();
    if shared.is_empty() {
        return None;
    }
    violation("host namespaces", shared.join(", "))
}

fn host_paths(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let volumes = items(pod.spec, "/volumes").iter();
    let names: Vec<&str> = volumes
        .filter(|volume| volume.get("hostPath").is_some())
        .map(|volume| text(volume, "/name"))
        .collect();
    if names.is_empty() {
        return None;
    }
    let word = plural("volume", "volumes", names.len());
    violation("hostPath volumes", format!("{word} {}", quoted(names)))
}

fn host_ports(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut ports = BTreeSet::new();
    let names = pod.named(|container| {
        let found = items(container, "/ports").iter();
        let found: Vec<i64> = found
            .filter_map(|port| port["hostPort"].as_i64().filter(|port| *port != 0))
            .collect();
        ports.extend(found.iter().map(ToString::to_string));
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    let list: Vec<&str> = ports.iter().map(String::as_str).collect();
    violation(
        "hostPort",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural("hostPort", "hostPorts", ports.len()),
            list.join(", ")
        ),
    )
}

fn probe_hosts(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut hosts = BTreeSet::new();
    let mut names: Vec<&str> = pod.named(|container| {
        let handlers = [
            "/livenessProbe",
            "/readinessProbe",
            "/startupProbe",
            "/lifecycle/postStart",
            "/lifecycle/preStop",
        ];
        let found: Vec<&str> = handlers
            .iter()
            .filter_map(|handler| container.pointer(handler))
            .flat_map(|handler| {
                [
                    text(handler, "/httpGet/host"),
                    text(handler, "/tcpSocket/host"),
                ]
            })
            .filter(|host| !host.is_empty())
            .collect();
        hosts.extend(found.iter().copied());
        !found.is_empty()
    });
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    violation(
        "probe or lifecycle host",
        format!(
            "{} {} {} {}",
            containers(&names),
            plural("uses", "use", names.len()),
            plural(
                "probe or lifecycle host",
                "probe or lifecycle hosts",
                hosts.len()
            ),
            quoted(hosts)
        ),
    )
}

fn privileged(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let names = pod.named(|container| flag(container, "/securityContext/privileged"));
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "privileged",
        format!("{who} must not set securityContext.privileged=true"),
    )
}

fn proc_mount(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let mut found = BTreeSet::new();
    let names = pod.named(|container| {
        let mount = container.pointer("/securityContext/procMount");
        let mount = mount.and_then(Value::as_str);
        let mount = mount.filter(|mount| *mount != "Default");
        found.extend(mount);
        mount.is_some()
    });
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "procMount",
        format!(
            "{who} must not set securityContext.procMount to {}",
            quoted(found)
        ),
    )
}

fn se_linux(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let mut types = BTreeSet::new();
    let (mut user, mut role) = (false, false);
    let mut bad = |of: &Value| {
        let Some(options) = of.pointer("/securityContext/seLinuxOptions") else {
            return false;
        };
        let kind = text(options, "/type");
        let known = matches!(
            kind,
            "" | "container_t" | "container_init_t" | "container_kvm_t"
        ) || (minor >= 31 && kind == "container_engine_t");
        if !known {
            types.insert(kind.to_owned());
        }
        let has = |pointer| !text(options, pointer).is_empty();
        let (has_user, has_role) = (has("/user"), has("/role"));
        user |= has_user;
        role |= has_role;
        !known || has_user || has_role
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let who = setters(on_pod, &names);
    if who.is_empty() {
        return None;
    }
    let mut what = Vec::new();
    if !types.is_empty() {
        let word = plural("type", "types", types.len());
        what.push(format!("{word} {}", quoted(types)));
    }
    if user {
        what.push("user may not be set".to_owned());
    }
    if role {
        what.push("role may not be set".to_owned());
    }
    violation(
        "seLinuxOptions",
        format!(
            "{who} set forbidden securityContext.seLinuxOptions: {}",
            what.join("; ")
        ),
    )
}

/// The profile that a pod or a container asks for.
fn profile(of: &Value) -> Option<&str> {
    let profile = of.pointer("/securityContext/seccompProfile")?;
    Some(text(profile, "/type"))
}

fn is_sound_profile(kind: &str) -> bool {
    matches!(kind, "Localhost" | "RuntimeDefault")
}

/// Who has set a profile that may not be.
fn bad_profiles(pod: &Pod<'_>) -> Option<Violation> {
    let mut values = BTreeSet::new();
    let mut bad = |of: &Value| {
        let found = profile(of).filter(|kind| !is_sound_profile(kind));
        values.extend(found.map(str::to_owned));
        found.is_some()
    };
    let on_pod = bad(pod.spec);
    let names = pod.named(&mut bad);
    let who = setters(on_pod, &names);
    if who.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(values)
        ),
    )
}

fn seccomp(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    if minor >= 19 {
        return bad_profiles(pod);
    }
    let sound = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let of_pod = "seccomp.security.alpha.kubernetes.io/pod".to_owned();
    let of_containers = pod.containers().map(|container| {
        let name = text(container, "/name");
        format!("container.seccomp.security.alpha.kubernetes.io/{name}")
    });
    let found: BTreeSet<String> = std::iter::once(of_pod)
        .chain(of_containers)
        .filter_map(|key| {
            let value = pod.annotation(&key).filter(|value| !sound(value))?;
            Some(format!("{key}={value:?}"))
        })
        .collect();
    if found.is_empty() {
        return None;
    }
    let word = plural("annotation", "annotations", found.len());
    let list: Vec<&str> = found.iter().map(String::as_str).collect();
    violation(
        "seccompProfile",
        format!("forbidden {word} {}", list.join(", ")),
    )
}

fn seccomp_set(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    if let Some(found) = bad_profiles(pod) {
        return Some(found);
    }
    if profile(pod.spec).is_some_and(is_sound_profile) {
        return None;
    }
    let names = pod.named(|container| profile(container).is_none());
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "seccompProfile",
        format!(
            "pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
        ),
    )
}

fn sysctls(pod: &Pod<'_>, minor: u32) -> Option<Violation> {
    let known = |name: &str| {
        let since = match name {
            "kernel.shm_rmid_forced"
            | "net.ipv4.ip_local_port_range"
            | "net.ipv4.tcp_syncookies"
            | "net.ipv4.ping_group_range"
            | "net.ipv4.ip_unprivileged_port_start" => 0,
            "net.ipv4.ip_local_reserved_ports" => 27,
            "net.ipv4.tcp_keepalive_time"
            | "net.ipv4.tcp_fin_timeout"
            | "net.ipv4.tcp_keepalive_intvl"
            | "net.ipv4.tcp_keepalive_probes" => 29,
            "net.ipv4.tcp_rmem" | "net.ipv4.tcp_wmem" => 32,
            "net.ipv4.tcp_slow_start_after_idle" | "net.ipv4.tcp_notsent_lowat" => 37,
            _ => return false,
        };
        minor >= since
    };
    let all = items(pod.spec, "/securityContext/sysctls").iter();
    let names: Vec<&str> = all
        .map(|sysctl| text(sysctl, "/name"))
        .filter(|name| !known(name))
        .collect();
    if names.is_empty() {
        return None;
    }
    violation("forbidden sysctls", names.join(", "))
}

fn host_process(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let bad = |of: &Value| flag(of, "/securityContext/windowsOptions/hostProcess");
    let who = setters(bad(pod.spec), &pod.named(bad));
    if who.is_empty() {
        return None;
    }
    violation(
        "hostProcess",
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}

fn escalation(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let names = pod.named(|container| {
        let allowed = container.pointer("/securityContext/allowPrivilegeEscalation");
        allowed != Some(&Value::Bool(false))
    });
    if names.is_empty() {
        return None;
    }
    let who = containers(&names);
    violation(
        "allowPrivilegeEscalation != false",
        format!("{who} must set securityContext.allowPrivilegeEscalation=false"),
    )
}

const VOLUMES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

const OTHER_VOLUMES: &[&str] = &[
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

fn volume_types(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let has = |volume: &Value, kind: &str| volume.get(kind).is_some_and(|found| !found.is_null());
    let volumes = items(pod.spec, "/volumes").iter();
    let bad: Vec<&Value> = volumes
        .filter(|volume| !VOLUMES.iter().any(|kind| has(volume, kind)))
        .collect();
    if bad.is_empty() {
        return None;
    }
    let types: BTreeSet<&str> = bad
        .iter()
        .map(|volume| {
            let mut kinds = OTHER_VOLUMES.iter();
            let kind = kinds.find(|kind| has(volume, kind));
            kind.copied().unwrap_or("unknown")
        })
        .collect();
    let names: Vec<&str> = bad.iter().map(|volume| text(volume, "/name")).collect();
    violation(
        "restricted volume types",
        format!(
            "{} {} {} {} {}",
            plural("volume", "volumes", names.len()),
            quoted(&names),
            plural("uses", "use", names.len()),
            plural(
                "restricted volume type",
                "restricted volume types",
                types.len()
            ),
            quoted(types)
        ),
    )
}

fn non_root(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let asked = |of: &Value| {
        let asked = of.pointer("/securityContext/runAsNonRoot");
        asked.and_then(Value::as_bool)
    };
    let on_pod = asked(pod.spec);
    let explicit = pod.named(|container| asked(container) == Some(false));
    let who = setters(on_pod == Some(false), &explicit);
    if !who.is_empty() {
        return violation(
            "runAsNonRoot != true",
            format!("{who} must not set securityContext.runAsNonRoot=false"),
        );
    }
    if on_pod == Some(true) {
        return None;
    }
    let implicit = pod.named(|container| asked(container).is_none());
    if implicit.is_empty() {
        return None;
    }
    let who = containers(&implicit);
    violation(
        "runAsNonRoot != true",
        format!("pod or {who} must set securityContext.runAsNonRoot=true"),
    )
}

fn root_user(pod: &Pod<'_>, _: u32) -> Option<Violation> {
    let root = |of: &Value| {
        let user = of.pointer("/securityContext/runAsUser");
        user.and_then(Value::as_i64) == Some(0)
    };
    let who = setters(root(pod.spec), &pod.named(root));
    if who.is_empty() {
        return None;
    }
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admission::{Place, User};

    fn standard(text: &str) -> Standard {
        let (name, version) = text.split_once(':').unwrap();
        Standard {
            level: level(name).unwrap(),
            minor: minor(version).unwrap(),
        }
    }

    fn told(of: &str, spec: Value) -> String {
        detail(&violations(standard(of), &json!({"spec": spec})))
    }

    /// The sentence that users of other clusters know by heart.
    #[test]
    fn a_plain_pod_is_not_restricted() {
        let plain = json!({"containers": [{"name": "c", "image": "i"}]});
        assert_eq!(told("baseline:latest", plain.clone()), "");
        assert_eq!(
            told("restricted:latest", plain.clone()),
            "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
        );
        // Of an early version, there are fewer.
        assert_eq!(
            told("restricted:v1.7", plain),
            "runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true)"
        );
        let sound = json!({
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{"name": "c", "securityContext": {
                "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
            }}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}],
        });
        assert_eq!(told("restricted:latest", sound), "");
    }

    #[test]
    fn each_check_has_its_sentence() {
        for (spec, expected) in [
            (
                json!({"hostNetwork": true, "hostPID": true}),
                "host namespaces (hostNetwork=true, hostPID=true)",
            ),
            (
                json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}, {"name": "b", "ports": [{"hostPort": 443}]}]}),
                "hostPort (containers \"a\", \"b\" use hostPorts 443, 80)",
            ),
            (
                json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
                "hostPath volumes (volume \"v\")",
            ),
            (
                json!({"initContainers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN", "KILL"]}}}]}),
                "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), privileged (container \"a\" must not set securityContext.privileged=true)",
            ),
            (
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}, "sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_rmem"}]}}),
                "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\"), forbidden sysctls (kernel.msgmax)",
            ),
            (
                json!({"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}, "windowsOptions": {"hostProcess": true}}}),
                "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set), hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            ),
            (
                json!({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}}),
                "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
            ),
            (
                json!({"containers": [{"name": "a", "livenessProbe": {"httpGet": {"host": "h"}}, "securityContext": {"procMount": "Unmasked"}}]}),
                "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\"), procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            ),
        ] {
            assert_eq!(told("baseline:latest", spec), expected);
        }
        let volumes = json!({"volumes": [{"name": "a", "hostPath": {}}, {"name": "b", "nfs": {}}, {"name": "c"}]});
        assert!(told("restricted:latest", volumes).starts_with(
            "restricted volume types (volumes \"a\", \"b\", \"c\" use restricted volume types \"hostPath\", \"nfs\", \"unknown\")"
        ));
    }

    fn request(operation: Operation, resource: &str) -> Request {
        Request {
            operation,
            place: Place {
                group: String::new(),
                version: "v1".to_owned(),
                kind: String::new(),
                resource: resource.to_owned(),
                resource_group: String::new(),
                resource_version: "v1".to_owned(),
            },
            equivalents: Vec::new(),
            subresource: String::new(),
            namespace: "n".to_owned(),
            name: "p".to_owned(),
            user: User::default(),
            dry_run: false,
            options: Value::Null,
        }
    }

    #[test]
    fn a_namespace_says_what_holds() {
        let namespace = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"hostPID": true, "containers": [{"name": "c"}]}});
        let create = request(Operation::Create, "pods");
        let enforced = namespace(
            json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"}),
        );
        let refused = judge(&create, &pod, None, &enforced).unwrap_err();
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (
                403,
                "pods \"p\" is forbidden: violates PodSecurity \"baseline:v1.30\": host namespaces (hostPID=true)"
            )
        );
        // What does not change containers is let through.
        let update = request(Operation::Update, "pods");
        assert!(judge(&update, &pod, Some(&pod), &enforced).is_ok());
        let warned = namespace(json!({"pod-security.kubernetes.io/warn": "baseline"}));
        let told = judge(&create, &pod, None, &warned).unwrap();
        assert_eq!(
            told.warnings,
            ["would violate PodSecurity \"baseline:latest\": host namespaces (hostPID=true)"]
        );
        // Nobody who cannot be understood is let through.
        let unread = namespace(json!({"pod-security.kubernetes.io/enforce": "strict"}));
        assert!(judge(&create, &pod, None, &unread).is_err());
        let refused = judge_namespace(&create, &unread, None, Vec::new).unwrap_err();
        assert_eq!(refused.code, 422);
        let raised = judge_namespace(
            &Request {
                name: "n".to_owned(),
                ..update
            },
            &enforced,
            Some(&namespace(json!({}))),
            || vec![pod.clone()],
        );
        assert_eq!(
            raised.unwrap().warnings,
            [
                "existing pods in namespace \"n\" violate the new PodSecurity enforce level \"baseline:v1.30\"",
                "p: host namespaces",
            ]
        );
    }
}
