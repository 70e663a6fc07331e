//! A pod's object as a node keeps it: its JSON at rest, a tree as long as somebody reads.
//!
//! A pod at rest is one of ten thousand, and nobody reads it; as a tree of Kubernetes' types it takes eight times what it says. All
//! that is of one pod (its worker, its volumes, its network, the root of its commands) shares one of these and sees the object as it
//! is now.
//!
//! Invariants: readers at the same time share one tree; what is read is what was last set, times to the second, as the API has them. Cost: reading a pod that nobody else
//! reads takes as long as parsing it, some ten microseconds.

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use std::sync::{Arc, Weak};

/// One pod's object. Clones share it.
#[derive(Clone)]
pub(crate) struct KeptPod(Arc<Mutex<Kept>>);

struct Kept {
    form: Form,
    /// The tree of those who read at the moment.
    read: Weak<Pod>,
}

enum Form {
    Json(Box<[u8]>),
    /// What cannot be written, or would not be read again. Nothing that a server sends is like that.
    Tree(Arc<Pod>),
}

impl Form {
    fn of(pod: &Arc<Pod>) -> Self {
        match serde_json::to_vec(&**pod) {
            Ok(json) => Self::Json(json.into_boxed_slice()),
            Err(_) => Self::Tree(pod.clone()),
        }
    }
}

impl KeptPod {
    pub(crate) fn new(pod: &Arc<Pod>) -> Self {
        Self(Arc::new(Mutex::new(Kept {
            form: Form::of(pod),
            read: Arc::downgrade(pod),
        })))
    }

    /// The object is another from now on, for everybody who has it.
    pub(crate) fn set(&self, pod: &Arc<Pod>) {
        let mut kept = self.0.lock();
        kept.form = Form::of(pod);
        kept.read = Arc::downgrade(pod);
    }

    /// The object. Whoever does several things with it holds it meanwhile.
    pub(crate) fn read(&self) -> Arc<Pod> {
        let mut kept = self.0.lock();
        if let Some(pod) = kept.read.upgrade() {
            return pod;
        }
        let pod = match &kept.form {
            Form::Json(json) => serde_json::from_slice(json).map(Arc::new),
            Form::Tree(pod) => Ok(pod.clone()),
        };
        // Written by the same types a moment ago: there is no pod whose JSON they refuse, and none that is better than a failed worker.
        let pod = pod.expect("the JSON of a pod is a pod");
        kept.read = Arc::downgrade(&pod);
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str) -> Arc<Pod> {
        let pod = serde_json::from_value(json!({
            "metadata": {
                "name": name, "namespace": "n", "uid": "u", "labels": {"app": "web"},
                "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
            },
            "spec": {
                "containers": [{
                    "name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "0.5", "memory": "1Gi"}},
                    "readinessProbe": {"httpGet": {"port": "web"}}, "livenessProbe": {"tcpSocket": {"port": 7}},
                }],
                "volumes": [{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            },
            "status": {"conditions": [{"type": "theirs", "status": "True"}]},
        }));
        Arc::new(pod.expect("a pod"))
    }

    #[test]
    fn a_pod_at_rest_is_read_as_it_was_and_nobody_holds_a_tree_of_it() {
        let first = pod("a");
        let kept = KeptPod::new(&first);
        // As long as somebody has a tree, it is that one.
        assert!(Arc::ptr_eq(&kept.read(), &first));
        let expected = (*first).clone();
        let gone = Arc::downgrade(&first);
        drop(first);
        assert!(gone.upgrade().is_none(), "a tree was kept");
        let (one, other) = (kept.read(), kept.read());
        assert_eq!(*one, expected);
        assert!(Arc::ptr_eq(&one, &other));
        // Clones see what was set, and readers keep what they have.
        kept.clone().set(&pod("b"));
        assert_eq!(kept.read().metadata.name.as_deref(), Some("b"));
        assert_eq!(one.metadata.name.as_deref(), Some("a"));
    }
}
