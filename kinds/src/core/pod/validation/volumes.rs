//! What a pod mounts.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use weft_api::name;

use super::containers::{pod_field, resource_field};
use crate::certificates::{self, signer_name};
use crate::core::persistentvolumeclaim::validate_template;
use crate::field::Field;
use crate::validate::{Problems, label_selector, user_annotations};

/// What others have to know of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Volume {
    Claim,
    Image,
    EmptyDir,
    Other,
}

/// The sound volumes by their names.
pub(super) type Volumes = BTreeMap<String, Volume>;

const FILE_MODES: RangeInclusive<i64> = 0..=0o777;
const DIRECTORY_MODES: RangeInclusive<i64> = 0..=0o1777;
const USERS: RangeInclusive<i64> = 0..=i32::MAX as i64;
/// Seconds that a token of a service account may be valid.
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;
const ONE_TYPE: &str = "may not specify more than 1 volume type";

/// Sources in the order in which Kubernetes looks at them, with the name that its message has for a second one.
const SOURCES: &[(&str, &str)] = &[
    ("emptyDir", "emptyDir"),
    ("hostPath", "hostPath"),
    ("gitRepo", "gitRepo"),
    ("gcePersistentDisk", "gcePersistentDisk"),
    ("awsElasticBlockStore", "awsElasticBlockStore"),
    ("secret", "secret"),
    ("nfs", "nfs"),
    ("iscsi", "iscsi"),
    ("glusterfs", "glusterfs"),
    ("flocker", "flocker"),
    ("persistentVolumeClaim", "persistentVolumeClaim"),
    ("rbd", "rbd"),
    ("cinder", "cinder"),
    ("cephfs", "cephFS"),
    ("quobyte", "quobyte"),
    ("downwardAPI", "downwarAPI"),
    ("fc", "fc"),
    ("flexVolume", "flexVolume"),
    ("configMap", "configMap"),
    ("azureFile", "azureFile"),
    ("vsphereVolume", "vsphereVolume"),
    ("photonPersistentDisk", "photonPersistentDisk"),
    ("portworxVolume", "portworxVolume"),
    ("azureDisk", "azureDisk"),
    ("storageos", "storageos"),
    ("projected", "projected"),
    ("scaleIO", "scaleIO"),
    ("csi", "csi"),
    ("ephemeral", "ephemeral"),
    ("image", "image"),
];

/// What sources of vendors cannot do without.
const REQUIRED: &[(&str, &[&str])] = &[
    ("iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", &["endpoints", "path"]),
    ("rbd", &["monitors", "image"]),
    ("cinder", &["volumeID"]),
    ("cephfs", &["monitors"]),
    ("flexVolume", &["driver"]),
    ("azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", &["pdID"]),
    ("portworxVolume", &["volumeID"]),
    ("azureDisk", &["diskName", "diskURI"]),
    ("storageos", &["volumeName"]),
    ("scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", &["driver"]),
];

/// Of a pod with this name; those of a template have none yet.
pub(super) fn all(spec: &Field<'_, '_>, pod: &str, problems: &mut Problems) -> Volumes {
    let mut sound = BTreeMap::new();
    let claims = claims_of(spec, pod);
    for volume in spec.items("volumes") {
        let before = problems.count();
        let sort = source(&volume, problems);
        if let Some(claim) = claim_name(&volume, pod) {
            for fault in name::dns1123_subdomain_faults(&claim) {
                let sentence = format!("PVC name {claim:?}: {fault}");
                problems.invalid(
                    &volume.child("name"),
                    volume.child("name").text(),
                    &sentence,
                );
            }
        }
        let own_name = volume.child("name");
        problems.required_rule(&own_name, name::dns1123_label_faults);
        if sound.contains_key(own_name.text()) {
            problems.duplicate(&own_name, own_name.text());
        }
        if problems.count() == before {
            sound.insert(own_name.text().to_owned(), sort);
        }
        let named = volume.child("persistentVolumeClaim.claimName");
        if claims.contains(named.text()) {
            let sentence = "must not reference a PVC that gets created for an ephemeral volume";
            problems.invalid(&named, named.text(), sentence);
        }
    }
    sound
}

/// The name of the claim that is made for an ephemeral volume, once its pod has a name.
fn claim_name(volume: &Field<'_, '_>, pod: &str) -> Option<String> {
    let own_name = volume.child("name").text();
    let is_made = volume.child("ephemeral").is_set() && !pod.is_empty() && !own_name.is_empty();
    is_made.then(|| format!("{pod}-{own_name}"))
}

fn claims_of(spec: &Field<'_, '_>, pod: &str) -> BTreeSet<String> {
    let volumes = spec.items("volumes");
    volumes
        .filter_map(|volume| claim_name(&volume, pod))
        .collect()
}

fn source(volume: &Field<'_, '_>, problems: &mut Problems) -> Volume {
    let mut found = None;
    for (name, shown) in SOURCES {
        let source = volume.child(name);
        if !source.is_set() {
            continue;
        }
        if found.is_some() {
            problems.forbidden(&volume.child(shown), ONE_TYPE);
            continue;
        }
        found = Some(match *name {
            "emptyDir" => {
                empty_dir(&source, problems);
                Volume::EmptyDir
            }
            "persistentVolumeClaim" => {
                problems.required_text(&source.child("claimName"));
                Volume::Claim
            }
            "ephemeral" => {
                let template = source.child("volumeClaimTemplate");
                if !template.is_set() {
                    problems.required(&template, "");
                } else {
                    validate_template(&template, problems);
                }
                Volume::Claim
            }
            "image" => {
                problems.one_of(
                    &source.child("pullPolicy"),
                    &["Always", "IfNotPresent", "Never"],
                );
                Volume::Image
            }
            other => {
                of_files(other, &source, problems);
                Volume::Other
            }
        });
    }
    found.unwrap_or_else(|| {
        problems.required(volume, "must specify a volume type");
        Volume::Other
    })
}

fn of_files(kind: &str, source: &Field<'_, '_>, problems: &mut Problems) {
    match kind {
        "hostPath" => {
            let path = source.child("path");
            if path.text().is_empty() {
                return problems.required(&path, "");
            }
            no_backsteps(&path, problems);
            problems.one_of(
                &source.child("type"),
                &[
                    "",
                    "BlockDevice",
                    "CharDevice",
                    "Directory",
                    "DirectoryOrCreate",
                    "File",
                    "FileOrCreate",
                    "Socket",
                ],
            );
        }
        "gitRepo" => {
            problems.required_text(&source.child("repository"));
            let directory = source.child("directory");
            descends(&directory, directory.text(), problems);
        }
        "nfs" => {
            problems.required_text(&source.child("server"));
            let path = source.child("path");
            problems.required_text(&path);
            if !path.text().starts_with('/') {
                problems.invalid(&path, path.text(), "must be an absolute path");
            }
        }
        "secret" => {
            problems.required_text(&source.child("secretName"));
            mode_and_user(source, "defaultMode", "defaultUser", problems);
            for item in source.items("items") {
                key_to_path(&item, problems);
            }
        }
        "configMap" => {
            problems.required_text(&source.child("name"));
            mode_and_user(source, "defaultMode", "defaultUser", problems);
            for item in source.items("items") {
                key_to_path(&item, problems);
            }
        }
        "downwardAPI" => {
            mode_and_user(source, "defaultMode", "defaultUser", problems);
            for item in source.items("items") {
                // Kubernetes leaves the item out of these paths.
                downward_file(&item.moved_to(source), problems);
            }
        }
        "projected" => {
            mode_and_user(source, "defaultMode", "defaultUser", problems);
            projections(source, problems);
        }
        other => {
            for (of, members) in REQUIRED {
                for member in members.iter().filter(|_| *of == other) {
                    let member = source.child(member);
                    if member.text().is_empty() && member.list().is_empty() {
                        problems.required(&member, "");
                    }
                }
            }
        }
    }
}

fn empty_dir(source: &Field<'_, '_>, problems: &mut Problems) {
    let limit = source.child("sizeLimit");
    if limit.quantity().is_some_and(|limit| limit.is_negative()) {
        let sentence = "SizeLimit field must be a valid resource quantity";
        problems.forbidden(&limit, sentence);
    }
    let mode = source.child("mode");
    if let Some(bits) = mode
        .integer()
        .filter(|bits| !DIRECTORY_MODES.contains(bits))
    {
        let sentence = "must be a number between 0 and 01777 (octal), both inclusive";
        problems.invalid(&mode, bits, sentence);
    }
}

fn mode_and_user(of: &Field<'_, '_>, mode: &str, user: &str, problems: &mut Problems) {
    let mode = of.child(mode);
    if let Some(bits) = mode.integer().filter(|bits| !FILE_MODES.contains(bits)) {
        let sentence = "must be a number between 0 and 0777 (octal), both inclusive";
        problems.invalid(&mode, bits, sentence);
    }
    let user = of.child(user);
    if user.is_set() {
        problems.in_range(&user, USERS);
    }
}

fn key_to_path(item: &Field<'_, '_>, problems: &mut Problems) {
    problems.required_text(&item.child("key"));
    let path = item.child("path");
    problems.required_text(&path);
    local_path(&path, problems);
    mode_and_user(item, "mode", "user", problems);
}

/// What a file may take from the pod.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
];

fn downward_file(item: &Field<'_, '_>, problems: &mut Problems) {
    let path = item.child("path");
    problems.required_text(&path);
    local_path(&path, problems);
    let field = item.child("fieldRef");
    let resource = item.child("resourceFieldRef");
    if field.is_set() {
        pod_field(&field, POD_FIELDS, problems);
        if resource.is_set() {
            let sentence = "fieldRef and resourceFieldRef can not be specified simultaneously";
            problems.invalid(item, "resource", sentence);
        }
    } else if resource.is_set() {
        resource_field(&resource, true, problems);
    } else {
        let sentence = "one of fieldRef and resourceFieldRef is required";
        problems.required(item, sentence);
    }
    mode_and_user(item, "mode", "user", problems);
}

fn projections(volume: &Field<'_, '_>, problems: &mut Problems) {
    let mut paths = BTreeSet::new();
    for projection in volume.items("sources") {
        let mut sources = 0;
        for kind in ["secret", "configMap"] {
            let source = projection.child(kind);
            if !source.is_set() {
                continue;
            }
            sources += 1;
            let own_name = source.child("name");
            problems.required_text(&own_name);
            for item in source.items("items") {
                key_to_path(&item, problems);
                let path = item.child("path").text();
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    problems.invalid(volume, own_name.text(), CONFLICT);
                }
            }
        }
        let source = projection.child("downwardAPI");
        if source.is_set() {
            sources += 1;
            for item in source.items("items") {
                downward_file(&item.moved_to(&source), problems);
                let path = item.child("path").text();
                if !path.is_empty() && !paths.insert(path.to_owned()) {
                    problems.invalid(volume, path, CONFLICT);
                }
            }
        }
        let source = projection.child("serviceAccountToken");
        if source.is_set() {
            sources += 1;
            token(volume, &source, problems);
        }
        let source = projection.child("clusterTrustBundle");
        if source.is_set() {
            sources += 1;
            trust_bundle(&source, problems);
            let path = source.child("path").text();
            if !paths.insert(path.to_owned()) {
                problems.invalid(volume, path, CONFLICT);
            }
        }
        let source = projection.child("podCertificate");
        if source.is_set() {
            sources += 1;
            pod_certificate(volume, &source, &mut paths, problems);
        }
        if sources > 1 {
            let sentence = "may not specify more than 1 volume type per source";
            problems.forbidden(&projection, sentence);
        }
    }
}

const CONFLICT: &str = "conflicting duplicate paths";

fn token(volume: &Field<'_, '_>, source: &Field<'_, '_>, problems: &mut Problems) {
    let expires = source.child("expirationSeconds");
    match expires.integer() {
        None => problems.required(&expires, ""),
        Some(seconds) if seconds < TOKEN_SECONDS_MIN => {
            let sentence = "may not specify a duration less than 10 minutes";
            problems.invalid(&expires, seconds, sentence);
        }
        Some(seconds) if seconds > TOKEN_SECONDS_MAX => {
            let sentence = "may not specify a duration larger than 2^32 seconds";
            problems.invalid(&expires, seconds, sentence);
        }
        Some(_) => {}
    }
    // Kubernetes names the path as if it were the volume's.
    let path = source.child("path").moved_to(volume);
    let path = path.child_as("", "path");
    problems.required_text(&path);
    local_path(&path, problems);
    let user = source.child("user");
    if user.is_set() {
        problems.in_range(&user, USERS);
    }
}

fn trust_bundle(source: &Field<'_, '_>, problems: &mut Problems) {
    let own_name = source.child("name");
    let signer = source.child("signerName");
    match (own_name.is_set(), signer.is_set()) {
        (true, true) => {
            let sentence = "only one of name and signerName may be used";
            problems.invalid(source, source.shown(), sentence);
        }
        (true, false) => {
            if own_name.text().is_empty() {
                problems.required(&own_name, "must be a valid object name");
            }
            let signer = certificates::signer_of(own_name.text()).unwrap_or_default();
            for fault in certificates::name_faults(&signer, own_name.text()) {
                let sentence = format!("not a valid clustertrustbundlename: {fault}");
                problems.invalid(&own_name, own_name.text(), &sentence);
            }
            let selector = source.child("labelSelector");
            if selector.is_set() {
                let sentence = "labelSelector must be unset if name is specified";
                problems.invalid(&selector, selector.shown(), sentence);
            }
        }
        (false, true) => {
            if signer.text().is_empty() {
                problems.required(&signer, "must be a valid signer name");
            }
            signer_name(&signer, problems);
            label_selector(&source.child("labelSelector"), problems);
        }
        (false, false) => {
            let sentence = "either name or signerName must be specified";
            problems.required(source, sentence);
        }
    }
    let path = source.child("path");
    problems.required_text(&path);
    local_path(&path, problems);
}

/// Variables that are read from a file of a volume need one that is the pod's own.
pub(super) fn of_environment_files(spec: &Field<'_, '_>, problems: &mut Problems) {
    let volumes = spec.child("volumes").list();
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in spec.items(list) {
            for variable in container.items("env") {
                let reference = variable.child("valueFrom.fileKeyRef");
                if !reference.is_set() {
                    continue;
                }
                let wanted = reference.child("volumeName");
                let mut named = volumes
                    .iter()
                    .filter(|volume| volume.get("name") == wanted.value());
                match named.next() {
                    None => problems.not_found(&wanted, wanted.text()),
                    Some(volume) if volume.get("emptyDir").is_none_or(|dir| dir.is_null()) => {
                        let sentence = "referenced volume must be of type emptyDir";
                        problems.invalid(&wanted, wanted.text(), sentence);
                    }
                    Some(_) => {}
                }
            }
        }
    }
}

/// A path below what is mounted.
pub(super) fn descends(field: &Field<'_, '_>, path: &str, problems: &mut Problems) {
    if path.starts_with('/') {
        problems.invalid(field, path, "must be a relative path");
    }
    if path.split('/').any(|part| part == "..") {
        problems.invalid(field, path, "must not contain '..'");
    }
}

pub(super) fn no_backsteps(path: &Field<'_, '_>, problems: &mut Problems) {
    if path.text().split('/').any(|part| part == "..") {
        problems.invalid(path, path.text(), "must not contain '..'");
    }
}

/// A path below what is mounted, and none that the node's agent keeps for itself.
fn local_path(path: &Field<'_, '_>, problems: &mut Problems) {
    descends(path, path.text(), problems);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        problems.invalid(path, path.text(), "must not start with '..'");
    }
}

/// A key and a certificate that the node asks a signer for.
fn pod_certificate(
    volume: &Field<'_, '_>,
    source: &Field<'_, '_>,
    paths: &mut BTreeSet<String>,
    problems: &mut Problems,
) {
    const KEY_TYPES: &[&str] = &[
        "RSA3072",
        "RSA4096",
        "ECDSAP256",
        "ECDSAP384",
        "ECDSAP521",
        "ED25519",
    ];
    let signer = source.child("signerName");
    signer_name(&signer, problems);
    user_annotations(&source.child("userAnnotations"), problems);
    let user = source.child("user");
    if user.is_set() {
        problems.in_range(&user, USERS);
    }
    let key_type = source.child("keyType");
    problems.one_of_as(&key_type, key_type.text(), KEY_TYPES);
    let life = source.child("maxExpirationSeconds");
    if let Some(seconds) = life.integer() {
        let most = match certificates::is_kubernetes_signer(signer.text()) {
            true => certificates::KUBERNETES_LIFE_SECONDS_MAX,
            false => certificates::LIFE_SECONDS_MAX,
        };
        let least = certificates::LIFE_SECONDS_MIN;
        if seconds < least {
            let sentence = format!("if provided, maxExpirationSeconds must be >= {least}");
            problems.invalid(&life, seconds, &sentence);
        }
        if seconds > most {
            let sentence = format!("if provided, maxExpirationSeconds must be <= {most}");
            problems.invalid(&life, seconds, &sentence);
        }
    }
    let mut given = 0;
    for member in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = source.child(member);
        if path.text().is_empty() {
            continue;
        }
        given += 1;
        local_path(&path, problems);
        if !paths.insert(path.text().to_owned()) {
            problems.invalid(volume, path.text(), CONFLICT);
        }
    }
    if given == 0 {
        let sentence =
            "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        problems.required(source, sentence);
    }
}
