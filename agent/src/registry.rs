//! The pods of this node, for those who read: logs, metrics, summaries.
//!
//! Each pod's worker writes its own record; readers get copies. Never authoritative, and gone with the process.

use crate::context::Context;
use crate::guest::Guest;
use crate::pod_view::PodView;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use weft_runtime::Usage;

/// All records. Clones share them.
#[derive(Clone, Default)]
pub struct Registry {
    pods: Arc<Mutex<BTreeMap<(String, String), PodRecord>>>,
}

/// One pod as the node's HTTP port sees it.
#[derive(Clone)]
pub struct PodRecord {
    pub uid: String,
    /// Where it is in the mesh, once it has an address.
    pub ip: Option<IpAddr>,
    pub containers: Box<[ContainerRecord]>,
}

/// One container of it.
#[derive(Clone)]
pub struct ContainerRecord {
    pub name: String,
    pub restart: u32,
    /// Why it has not started yet; `None` once it has.
    pub waiting: Option<String>,
    pub workload: Option<Guest>,
    /// Where commands in it are run, while it runs.
    pub(crate) context: Option<Arc<Context>>,
    /// What its earlier runs on this node have used.
    pub spent: Option<Box<Usage>>,
}

impl ContainerRecord {
    /// What it has used over all of its runs, so that counters survive restarts. `None`: it never ran.
    pub fn usage(&self) -> Option<Usage> {
        let now = self.workload.as_ref().map(Guest::usage);
        match (now, &self.spent) {
            (Some(now), Some(spent)) => Some(add(now, spent)),
            (None, Some(spent)) => Some(**spent),
            (now, None) => now,
        }
    }
}

/// `now` with the counters of `earlier` runs on top; gauges are those of now.
pub(crate) fn add(now: Usage, earlier: &Usage) -> Usage {
    Usage {
        cpu_nanos: now.cpu_nanos + earlier.cpu_nanos,
        memory_peak_bytes: now.memory_peak_bytes.max(earlier.memory_peak_bytes),
        instances_started: now.instances_started + earlier.instances_started,
        requests: now.requests + earlier.requests,
        overloaded: now.overloaded + earlier.overloaded,
        deadlines: now.deadlines + earlier.deadlines,
        traps: now.traps + earlier.traps,
        no_response: now.no_response + earlier.no_response,
        out_of_memory: now.out_of_memory + earlier.out_of_memory,
        outbound_requests: now.outbound_requests + earlier.outbound_requests,
        ..now
    }
}

impl Registry {
    /// One pod.
    pub fn get(&self, namespace: &str, pod: &str) -> Option<PodRecord> {
        self.pods
            .lock()
            .get(&(namespace.to_owned(), pod.to_owned()))
            .cloned()
    }

    /// Every pod with its namespace and name.
    pub fn all(&self) -> Vec<((String, String), PodRecord)> {
        self.pods
            .lock()
            .iter()
            .map(|(key, record)| (key.clone(), record.clone()))
            .collect()
    }

    pub(crate) fn set(&self, pod: PodView<'_>, record: PodRecord) {
        let key = (pod.namespace().to_owned(), pod.name().to_owned());
        self.pods.lock().insert(key, record);
    }

    pub(crate) fn remove(&self, pod: PodView<'_>) {
        let key = (pod.namespace().to_owned(), pod.name().to_owned());
        let mut pods = self.pods.lock();
        // A successor of the same name may be there already.
        if pods.get(&key).is_some_and(|record| record.uid == pod.uid()) {
            pods.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_survive_a_restart_and_gauges_do_not() {
        let spent = Usage {
            cpu_nanos: 5,
            memory_bytes: 0,
            memory_peak_bytes: 9,
            traps: 1,
            out_of_memory: 2,
            deadlines: 3,
            ..Usage::default()
        };
        let now = Usage {
            cpu_nanos: 2,
            memory_bytes: 4,
            memory_peak_bytes: 4,
            memory_limit_bytes: 64,
            traps: 1,
            ..Usage::default()
        };
        let both = add(now, &spent);
        assert_eq!((both.cpu_nanos, both.traps), (7, 2));
        assert_eq!((both.out_of_memory, both.deadlines), (2, 3));
        assert_eq!((both.memory_bytes, both.memory_peak_bytes), (4, 9));
        assert_eq!(both.memory_limit_bytes, 64);
    }
}
