//! Where the bytes of a persistent volume are: exactly one source, which says what it cannot do without.
//!
//! Source: k8s.io/kubernetes `pkg/apis/core/validation`, `ValidatePersistentVolumeSpec` and what it calls.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::{Map, Value};
use weft_api::name;

use crate::field::Field;
use crate::lens::{fill, put, text};
use crate::storage::required_driver_name;
use crate::validate::Problems;

const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// Sources in the order in which Kubernetes looks at them, with the name that its messages have for each.
const SOURCES: &[(&str, &str)] = &[
    ("hostPath", "hostPath"),
    ("gcePersistentDisk", "persistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("nfs", "nfs"),
    ("rbd", "rbd"),
    ("quobyte", "quobyte"),
    ("cephfs", "cephfs"),
    ("iscsi", "iscsi"),
    ("cinder", "cinder"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("scaleIO", "scaleIO"),
    ("local", "local"),
    ("storageos", "storageos"),
    ("csi", "csi"),
];

/// What a second source is called where that is another name.
fn second(source: &'static str) -> &'static str {
    match source {
        "cephfs" => "cephFS",
        other => other,
    }
}

/// The sources that mount options reach.
const WITH_MOUNT_OPTIONS: &[&str] = &[
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "iscsi",
    "cinder",
    "cephfs",
    "azureFile",
    "vsphereVolume",
    "azureDisk",
    "photonPersistentDisk",
];

/// Sources that Kubernetes has given up.
const GONE: &[(&str, &str, &str)] = &[
    (
        "cephfs",
        "cephfs",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
    (
        "photonPersistentDisk",
        "photonPersistentDisk",
        "deprecated in v1.11, non-functional in v1.16+",
    ),
    (
        "scaleIO",
        "scaleIO",
        "deprecated in v1.16, non-functional in v1.22+",
    ),
    (
        "storageos",
        "storageOS",
        "deprecated in v1.22, non-functional in v1.25+",
    ),
    (
        "glusterfs",
        "glusterfs",
        "deprecated in v1.25, non-functional in v1.26+",
    ),
    (
        "rbd",
        "rbd",
        "deprecated in v1.28, non-functional in v1.31+",
    ),
];

/// Whether the source of a volume is as it was; the secret that one is made larger with may be added.
pub(super) fn are_same(volume: &Field<'_, '_>, before: &Field<'_, '_>) -> bool {
    const LARGER: &str = "controllerExpandSecretRef";
    let of = |volume: &Field<'_, '_>| -> Map<String, Value> {
        let spec = volume.child("spec");
        let sources = SOURCES.iter().filter_map(|(source, _)| {
            let value = spec.child(source).value()?.clone();
            Some(((*source).to_owned(), value))
        });
        sources.collect()
    };
    let (mut now, kept) = (of(volume), of(before));
    if let (Some(driver), Some(was)) = (now.get_mut("csi"), kept.get("csi"))
        && was.get(LARGER).is_none()
    {
        put(driver, LARGER, None);
    }
    now == kept
}

pub(super) fn takes_mount_options(spec: &Field<'_, '_>) -> bool {
    let mut sources = WITH_MOUNT_OPTIONS.iter();
    sources.any(|source| spec.child(source).is_set())
}

/// What whoever writes a volume is told of its source.
pub(super) fn remarks(spec: &Field<'_, '_>) -> Vec<String> {
    let gone = GONE.iter();
    gone.filter(|(source, _, _)| spec.child(source).is_set())
        .map(|(_, shown, message)| format!("spec.{shown}: {message}"))
        .collect()
}

pub(super) fn default(spec: &mut Value) {
    let fill_empty = |of: &mut Value, member: &str, default: &str| {
        if text(of, &format!("/{member}")).is_empty() {
            put(of, member, Some(default.into()));
        }
    };
    if let Some(path) = spec.get_mut("hostPath") {
        fill(path, "type", "");
    }
    if let Some(rbd) = spec.get_mut("rbd") {
        fill_empty(rbd, "pool", "rbd");
        fill_empty(rbd, "user", "admin");
        fill_empty(rbd, "keyring", "/etc/ceph/keyring");
    }
    if let Some(iscsi) = spec.get_mut("iscsi") {
        fill_empty(iscsi, "iscsiInterface", "default");
    }
    if let Some(disk) = spec.get_mut("azureDisk") {
        fill(disk, "cachingMode", "ReadWrite");
        fill(disk, "fsType", "ext4");
        fill(disk, "readOnly", false);
        fill(disk, "kind", "Shared");
    }
    if let Some(scale) = spec.get_mut("scaleIO") {
        fill_empty(scale, "storageMode", "ThinProvisioned");
        fill_empty(scale, "fsType", "xfs");
    }
}

/// Judges the source of a volume of this name.
pub(super) fn validate(spec: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    let mut found = false;
    for (member, shown) in SOURCES {
        let source = spec.child_as(member, shown);
        if !source.is_set() {
            continue;
        }
        // Of this one Kubernetes does not say that it is a second.
        if found && *member != "flexVolume" {
            problems.forbidden(&spec.child_as(member, second(member)), ONE_TYPE);
            continue;
        }
        found = true;
        self::source(member, &source, own_name, problems);
        if *member == "local" && !spec.child("nodeAffinity").is_set() {
            let sentence = "Local volume requires node affinity";
            problems.required(&spec.child("nodeAffinity"), sentence);
        }
    }
    if !found {
        problems.required(spec, "must specify a volume type");
    }
    let policy = spec.child("persistentVolumeReclaimPolicy");
    let path = spec.child("hostPath.path");
    if policy.text() == "Recycle" && path.is_set() && is_root(path.text()) {
        let sentence = "may not be 'recycle' for a hostPath mount of '/'";
        problems.forbidden(&policy, sentence);
    }
}

/// Whether a path leads to the root: what is empty, `.` or `..` at it leads nowhere else.
fn is_root(path: &str) -> bool {
    let mut depth = 0_usize;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth = depth.saturating_sub(1),
            _ => depth += 1,
        }
    }
    path.starts_with('/') && depth == 0
}

/// What sources cannot do without, where that is all that there is to say.
const REQUIRED: &[(&str, &[&str])] = &[
    ("rbd", &["monitors", "image"]),
    ("cephfs", &["monitors"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
];

fn source(kind: &str, source: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    match kind {
        "hostPath" => host_path(source, problems),
        "gcePersistentDisk" => disk(source, "pdName", problems),
        "awsElasticBlockStore" => disk(source, "volumeID", problems),
        "glusterfs" => glusterfs(source, problems),
        "flocker" => flocker(source, problems),
        "nfs" => {
            problems.required_text(&source.child("server"));
            let path = source.child("path");
            problems.required_text(&path);
            if !path.text().starts_with('/') {
                problems.invalid(&path, path.text(), "must be an absolute path");
            }
        }
        "quobyte" => quobyte(source, problems),
        "iscsi" => iscsi(source, own_name, problems),
        "cinder" => {
            problems.required_text(&source.child("volumeID"));
            secret(source, problems);
        }
        "fc" => fibre_channel(source, problems),
        "flexVolume" => flex(source, problems),
        "azureFile" => {
            problems.required_text(&source.child("secretName"));
            problems.required_text(&source.child("shareName"));
            let namespace = source.child("secretNamespace");
            if namespace.is_set() {
                problems.required_text(&namespace);
            }
        }
        "azureDisk" => azure_disk(source, problems),
        "local" => {
            let path = source.child("path");
            problems.required_text(&path);
            no_backsteps(&path, problems);
        }
        "storageos" => {
            problems.required_rule(&source.child("volumeName"), name::dns1123_label_faults);
            let namespace = source.child("volumeNamespace");
            if !namespace.text().is_empty() {
                problems.rule(&namespace, name::dns1123_label_faults);
            }
            secret(source, problems);
        }
        "csi" => driver(source, problems),
        other => {
            let required = REQUIRED.iter().filter(|(of, _)| *of == other);
            for member in required.flat_map(|(_, members)| members.iter()) {
                let member = source.child(member);
                if member.text().is_empty() && member.is_empty() {
                    problems.required(&member, "");
                }
            }
        }
    }
}

fn host_path(source: &Field<'_, '_>, problems: &mut Problems) {
    const TYPES: &[&str] = &[
        "",
        "BlockDevice",
        "CharDevice",
        "Directory",
        "DirectoryOrCreate",
        "File",
        "FileOrCreate",
        "Socket",
    ];
    let path = source.child("path");
    if path.text().is_empty() {
        return problems.required(&path, "");
    }
    no_backsteps(&path, problems);
    problems.one_of(&source.child("type"), TYPES);
}

fn no_backsteps(path: &Field<'_, '_>, problems: &mut Problems) {
    if path.text().split('/').any(|part| part == "..") {
        problems.invalid(path, path.text(), "must not contain '..'");
    }
}

fn disk(source: &Field<'_, '_>, id: &str, problems: &mut Problems) {
    problems.required_text(&source.child(id));
    let partition = source.child("partition");
    if let Some(number) = partition.integer().filter(|n| !(0..=255).contains(n)) {
        let sentence = "must be between 1 and 255, inclusive";
        problems.invalid(&partition, number, sentence);
    }
}

fn glusterfs(source: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&source.child("endpoints"));
    problems.required_text(&source.child("path"));
    let namespace = source.child("endpointsNamespace");
    if namespace.is_set() && namespace.text().is_empty() {
        let sentence = "if the endpointnamespace is set, it must be a valid namespace name";
        problems.invalid(&namespace, "", sentence);
    } else if namespace.is_set() {
        problems.rule(&namespace, name::dns1123_label_faults);
    }
}

fn flocker(source: &Field<'_, '_>, problems: &mut Problems) {
    let (set, id) = (source.child("datasetName"), source.child("datasetUUID"));
    match (set.text().is_empty(), id.text().is_empty()) {
        (true, true) => {
            problems.required(source, "one of datasetName and datasetUUID is required");
        }
        (false, false) => {
            let sentence = "datasetName and datasetUUID can not be specified simultaneously";
            problems.invalid(source, "resource", sentence);
        }
        _ => {}
    }
    if set.text().contains('/') {
        problems.invalid(&set, set.text(), "must not contain '/'");
    }
}

fn quobyte(source: &Field<'_, '_>, problems: &mut Problems) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    const TENANT_BYTES_MAX: usize = 64;
    let (registry, tenant) = (source.child("registry"), source.child("tenant"));
    if registry.text().is_empty() {
        problems.required(&registry, PAIRS);
    } else if tenant.text().len() > TENANT_BYTES_MAX {
        let sentence = "must be a UUID and may not exceed a length of 64 characters";
        problems.required(&tenant, sentence);
    } else {
        for pair in registry.text().split(',') {
            let sound = match pair.strip_prefix('[') {
                Some(rest) => rest.contains("]:"),
                None => pair.matches(':').count() == 1,
            };
            if !sound {
                problems.invalid(&registry, registry.text(), PAIRS);
            }
        }
    }
    problems.required_text(&source.child("volume"));
}

fn iscsi(source: &Field<'_, '_>, own_name: &str, problems: &mut Problems) {
    const PORTAL_BYTES_MAX: usize = 64;
    const NO_FORM: &str = "must be valid format";
    let (portal, initiator) = (source.child("targetPortal"), source.child("initiatorName"));
    problems.required_text(&portal);
    let both = own_name.len() + 1 + portal.text().len();
    if initiator.is_set() && both > PORTAL_BYTES_MAX {
        let sentence = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        let shown = source.child_as("targetPortal", "targetportal");
        problems.invalid(&shown, portal.text(), sentence);
    }
    let target = source.child("iqn");
    if target.text().is_empty() {
        problems.required(&target, "");
    } else if !is_initiator(target.text()) {
        problems.invalid(&target, target.text(), NO_FORM);
    }
    let unit = source.child("lun");
    problems.in_range(&unit, 0..=255);
    let challenged = ["chapAuthDiscovery", "chapAuthSession"];
    let challenged = challenged.iter().any(|flag| source.child(flag).flag());
    let secret = source.child("secretRef");
    if challenged && !secret.is_set() {
        problems.required(&secret, "");
    }
    if secret.is_set() {
        problems.required_text(&secret.child("name"));
    }
    if initiator.is_set() && !is_initiator(initiator.text()) {
        let shown = source.child_as("initiatorName", "initiatorname");
        problems.invalid(&shown, initiator.text(), NO_FORM);
    }
}

fn is_initiator(text: &str) -> bool {
    static FORMS: LazyLock<[(&str, Regex); 3]> = LazyLock::new(|| {
        [
            (
                "iqn",
                r"iqn\.\d{4}-\d{2}\.([[:alnum:]\-.]+)(:[^,;*&$|\s]+)$",
            ),
            ("eui", r"^eui.[[:alnum:]]{16}$"),
            ("naa", r"^naa.[[:alnum:]]{32}$"),
        ]
        .map(|(start, form)| (start, Regex::new(form).expect("the forms are sound")))
    });
    let mut forms = FORMS.iter();
    forms.any(|(start, form)| text.starts_with(start) && form.is_match(text))
}

/// A reference to a secret, if there is one.
fn secret(source: &Field<'_, '_>, problems: &mut Problems) {
    let secret = source.child("secretRef");
    if secret.is_set() {
        problems.required_text(&secret.child("name"));
        problems.required_text(&secret.child("namespace"));
    }
}

fn fibre_channel(source: &Field<'_, '_>, problems: &mut Problems) {
    let (targets, ids) = (source.child("targetWWNs"), source.child("wwids"));
    match (targets.is_empty(), ids.is_empty()) {
        (true, true) => {
            let sentence = "must specify either targetWWNs or wwids, but not both";
            problems.required(&targets, sentence);
        }
        (false, false) => {
            let sentence = "targetWWNs and wwids can not be specified simultaneously";
            problems.invalid(&targets, targets.shown(), sentence);
        }
        _ => {}
    }
    let unit = source.child("lun");
    if !targets.is_empty() && unit.is_set() {
        problems.in_range(&unit, 0..=255);
    } else if !targets.is_empty() {
        problems.required(&unit, "lun is required if targetWWNs is specified");
    }
}

fn flex(source: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&source.child("driver"));
    for (key, option) in source.entries("options") {
        let domain = key.split_once('/').map_or(key, |(domain, _)| domain);
        let domain = format!(".{}", domain.to_lowercase());
        if domain.ends_with(".kubernetes.io") || domain.ends_with(".k8s.io") {
            let sentence = "kubernetes.io and k8s.io namespaces are reserved";
            problems.invalid(&option, key, sentence);
        }
    }
}

fn azure_disk(source: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&source.child("diskName"));
    let (kind, place) = (source.child("kind"), source.child("diskURI"));
    problems.required_text(&place);
    problems.one_of(
        &source.child("cachingMode"),
        &["None", "ReadOnly", "ReadWrite"],
    );
    problems.one_of(&kind, &["Dedicated", "Managed", "Shared"]);
    let (start, form) = match kind.text() {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => (
            "https://",
            "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd",
        ),
    };
    if kind.is_set() && !place.text().starts_with(start) {
        problems.not_supported(&place, place.text(), &[form]);
    }
}

fn driver(source: &Field<'_, '_>, problems: &mut Problems) {
    required_driver_name(&source.child("driver"), problems);
    problems.required_text(&source.child("volumeHandle"));
    for member in [
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ] {
        let secret = source.child(member);
        if secret.is_set() {
            problems.required_rule(&secret.child("name"), name::dns1123_subdomain_faults);
            problems.required_rule(&secret.child("namespace"), name::dns1123_label_faults);
        }
    }
}
