//! What the node holds a container to, as Linux shows it in `/sys/fs/cgroup`. Pure.
//!
//! Programs size themselves by these files (`cpu.max`, `memory.max`), so that their names and form are those of cgroup v2. A component is in
//! no cgroup: the numbers are those that the node enforces itself (`weft_runtime::Allotment`). `memory.max` is the container's own limit,
//! `max` where it has none; what holds then is the node's, in `memory.max.effective`.

use crate::config_error::ConfigError;
use crate::node_facts::NodeFacts;
use crate::pod_view::{ContainerView, Resources};
use crate::translate;
use k8s_openapi::api::core::v1::Container;
use weft_runtime::Allotment;

/// Where the files are.
pub(crate) const PATH: &str = "/sys/fs/cgroup";
/// What their file system calls itself.
pub(crate) const FILE_SYSTEM: &str = "cgroup2";

/// The stretch of time that a quota is about, in microseconds; as in the kernel, where nobody says anything.
const PERIOD_MICROS: u64 = 100_000;
/// What a container has beside others that requests no CPU, as the kubelet counts it, and the most that there is.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// What a container is held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) to: Allotment,
    /// Whether it says itself how much memory it may have.
    limits_memory: bool,
}

impl Held {
    /// # Errors
    /// [`ConfigError`] for an amount that is none, or of which nothing can run.
    pub(crate) fn of(node: &NodeFacts, container: &Container) -> Result<Self, ConfigError> {
        let memory = ContainerView(container).resource(Resources::Limits, "memory")?;
        Ok(Self {
            to: translate::allotment(node, container)?,
            limits_memory: memory.is_some(),
        })
    }
}

/// The files, by name.
pub(crate) fn files(held: Held) -> Vec<(String, String)> {
    let Held {
        to: has,
        limits_memory,
    } = held;
    let quota = match has.cpu_millis {
        Some(millis) => (u64::from(millis) * PERIOD_MICROS / 1000).to_string(),
        None => "max".to_owned(),
    };
    let memory = has.memory_bytes.to_string();
    let own = match limits_memory {
        true => memory.clone(),
        false => "max".to_owned(),
    };
    let files = [
        ("cgroup.controllers", "cpu memory".to_owned()),
        ("cpu.max", format!("{quota} {PERIOD_MICROS}")),
        ("cpu.weight", weight(has.cpu_reserved_millis).to_string()),
        ("memory.max", own),
        ("memory.max.effective", memory),
    ];
    let files = files.into_iter();
    files
        .map(|(name, text)| (name.to_owned(), format!("{text}\n")))
        .collect()
}

/// A request in thousandths of a core as a weight from 1 to 10,000: by shares, as container runtimes do it.
fn weight(millis: u32) -> u64 {
    let shares = u64::from(millis) * 1024 / 1000;
    let (least, most) = (*SHARES.start(), *SHARES.end());
    let above = shares.clamp(least, most) - least;
    1 + above * 9999 / (most - least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_read_as_a_kernels() {
        for (memory_bytes, limits_memory, cpu_millis, cpu_reserved_millis, expected) in [
            (
                1 << 26,
                true,
                Some(250),
                100,
                "25000 100000|4|67108864|67108864",
            ),
            (1 << 28, false, None, 0, "max 100000|1|max|268435456"),
            (
                1 << 20,
                true,
                Some(10),
                1000,
                "1000 100000|39|1048576|1048576",
            ),
            (
                1 << 20,
                true,
                Some(64_000),
                300_000,
                "6400000 100000|10000|1048576|1048576",
            ),
        ] {
            let has = Allotment {
                memory_bytes,
                cpu_millis,
                cpu_reserved_millis,
            };
            let files = files(Held {
                to: has,
                limits_memory,
            });
            let text: Vec<&str> = files[1..].iter().map(|(_, text)| text.trim_end()).collect();
            assert_eq!(text.join("|"), expected);
            assert!(files.iter().all(|(_, text)| text.ends_with('\n')));
        }
    }
}
