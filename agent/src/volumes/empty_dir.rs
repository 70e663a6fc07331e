//! `emptyDir` volumes: a folder on the node's disk with limits that hold.
//!
//! With `medium: Memory` the pod is told that it is a `tmpfs`, and it never holds more than the pod may have of memory: the node keeps it
//! in its page cache and on its disk.

use crate::config_error::ConfigError;
use crate::downward::Downward;
use crate::events::{Recorder, Severity};
use crate::pod_view::{ContainerView, PodView, Resources};
use crate::wanted::Role;
use k8s_openapi::api::core::v1::EmptyDirVolumeSource;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use weft_api::{Quantity, annotation};
use weft_runtime::{Full, Volume, VolumeLimits};

/// What a volume without `sizeLimit` may hold: plenty for a cache, and a node has room for many. The kubelet has no limit, and
/// evicts whoever fills the disk; here nobody can.
pub const BYTES_DEFAULT: u64 = 1 << 30;
/// Files, folders and links of a volume, unless the pod says otherwise. Counting them takes about a tenth of a second.
pub const INODES_DEFAULT: u64 = 65_536;
/// The most that a pod can ask for: counting so many takes a second or two.
pub const INODES_MAX: u64 = 1_000_000;

/// The limits of a volume of that name.
///
/// # Errors
/// One that is none.
pub(super) fn limits(
    at: Downward<'_>,
    name: &str,
    source: &EmptyDirVolumeSource,
) -> Result<VolumeLimits, ConfigError> {
    let mut bytes = bytes(name, source)?;
    if in_memory(source) {
        let most = memory(at)?;
        bytes = Some(bytes.map_or(most, |bytes| bytes.min(most)));
    }
    Ok(VolumeLimits {
        bytes: Some(bytes.unwrap_or(BYTES_DEFAULT)),
        inodes: Some(inodes(at.pod)?),
    })
}

/// Whether it is asked to be in memory.
pub(super) fn in_memory(source: &EmptyDirVolumeSource) -> bool {
    source.medium.as_deref() == Some("Memory")
}

/// What a pod may have of memory: the limits of its containers, where all have one, and what the node has.
fn memory(at: Downward<'_>) -> Result<u64, ConfigError> {
    let mut sum = 0_u64;
    for (container, role) in at.pod.containers() {
        if !matches!(role, Role::Main | Role::Sidecar) {
            continue;
        }
        let limit = ContainerView(&container).resource(Resources::Limits, "memory")?;
        let Some(limit) = limit.and_then(|limit| u64::try_from(limit.value()).ok()) else {
            return Ok(at.node.allocatable_memory_bytes);
        };
        sum = sum.saturating_add(limit);
    }
    Ok(sum.min(at.node.allocatable_memory_bytes))
}

fn bytes(name: &str, source: &EmptyDirVolumeSource) -> Result<Option<u64>, ConfigError> {
    let Some(limit) = &source.size_limit else {
        return Ok(None);
    };
    let bytes = Quantity::parse(&limit.0).ok().map(Quantity::value);
    match bytes.map(u64::try_from) {
        // As in Kubernetes, nothing and zero are the same.
        Some(Ok(0)) => Ok(None),
        Some(Ok(bytes)) => Ok(Some(bytes)),
        Some(Err(_)) | None => Err(ConfigError::Quantity {
            field: format!("volume {name}: emptyDir.sizeLimit"),
            value: limit.0.clone(),
        }),
    }
}

pub(crate) fn inodes(pod: PodView<'_>) -> Result<u64, ConfigError> {
    let Some(text) = pod.annotation(annotation::MAX_VOLUME_INODES) else {
        return Ok(INODES_DEFAULT);
    };
    let number = text.parse().ok();
    number
        .filter(|number| (1..=INODES_MAX).contains(number))
        .ok_or(ConfigError::Annotation {
            name: annotation::MAX_VOLUME_INODES,
            value: text.into(),
            why: "is not a number from 1 to 1000000",
        })
}

/// Notes an event the first time that a guest gets no room, for each limit.
pub(super) fn tell_when_full(volume: &Volume, pod: PodView<'_>, name: &str, recorder: &Recorder) {
    let about = crate::events::about(pod.0, None);
    let (recorder, limits, name) = (recorder.clone(), volume.limits(), name.to_owned());
    let told = [AtomicBool::new(false), AtomicBool::new(false)];
    volume.on_full(move |full| {
        if told[full as usize].swap(true, Relaxed) {
            return;
        }
        let message = full_message(&name, full, limits);
        recorder.record(about.clone(), Severity::Warning, "VolumeFull", message);
    });
}

fn full_message(name: &str, full: Full, limits: VolumeLimits) -> String {
    match full {
        Full::Bytes => format!(
            "volume \"{name}\" is full: it may hold {} bytes; emptyDir.sizeLimit says how many",
            limits.bytes.unwrap_or_default()
        ),
        Full::Inodes => format!(
            "volume \"{name}\" is full: it may hold {} files, folders and links; the annotation {} says how many",
            limits.inodes.unwrap_or_default(),
            annotation::MAX_VOLUME_INODES
        ),
    }
}
