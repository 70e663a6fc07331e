//! The pods of this node, for those who read: logs, metrics, summaries.
//!
//! Each pod's worker writes its own record; readers get copies. Never authoritative, and gone with the process.

use crate::translate;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use weft_runtime::Workload;

/// All records. Clones share them.
#[derive(Clone, Default)]
pub struct Registry {
    pods: Arc<Mutex<BTreeMap<(String, String), PodRecord>>>,
}

/// One pod as the node's HTTP port sees it.
#[derive(Clone)]
pub struct PodRecord {
    pub uid: String,
    pub containers: Vec<ContainerRecord>,
}

/// One container of it.
#[derive(Clone)]
pub struct ContainerRecord {
    pub name: String,
    pub restart: u32,
    /// Why it has not started yet; `None` once it has.
    pub waiting: Option<String>,
    pub workload: Option<Workload>,
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

    pub(crate) fn set(&self, pod: &Pod, record: PodRecord) {
        self.pods.lock().insert(
            (
                translate::namespace(pod).into(),
                translate::pod_name(pod).into(),
            ),
            record,
        );
    }

    pub(crate) fn remove(&self, pod: &Pod) {
        let key = (
            translate::namespace(pod).to_owned(),
            translate::pod_name(pod).to_owned(),
        );
        let mut pods = self.pods.lock();
        // A successor of the same name may be there already.
        if pods
            .get(&key)
            .is_some_and(|record| record.uid == translate::uid(pod))
        {
            pods.remove(&key);
        }
    }
}
