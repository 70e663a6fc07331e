//! Which nodes are connected to this server, and what the end of a node's last connection means: its lease lasts shorter.
//!
//! A node that dies takes its connections with it, and the kernel says so at once, long before its lease runs out. But a
//! node that lives may have gone to another server, where it renews its lease. So a lease that was not renewed for as long as that takes
//! is shortened, not ended: to [`RENEWALS`] of those that it says it makes, so that one that lives renews it in time, and says again how long it lasts. Whether a node is lost stays the node controller's to decide, by the lease.
//!
//! Invariants: only a lease that nobody renews meanwhile is shortened; a server that did not run for a while says nothing until it has
//! heard what it missed; nothing is said of connections that this server ends
//! itself; what waits to be said is bounded, and what finds no room is left to the lease's own end.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_api::annotation;
use weft_api::status::StatusError;
use weft_kinds::LEASE;

use crate::caller::Caller;
use crate::objects::{Objects, Patch, WriteOptions};
use crate::request::ObjectRef;

/// How long a node may be without a connection before something is made of it: a new certificate means new connections.
const RETURN_WITHIN: Duration = Duration::from_millis(500);
/// How many renewals a shortened lease waits for.
const RENEWALS: u64 = 2;
/// How often a node renews its lease that does not say, in seconds.
const RENEWED_EVERY: u64 = 2;
/// How often a server looks whether it still runs, and after how long it did not.
const LOOKS_EVERY: Duration = Duration::from_millis(250);
const SLEPT: Duration = Duration::from_secs(1);
/// How late a renewal may be.
const LATE: Duration = Duration::from_millis(250);
const NAMESPACE: Option<&str> = Some("kube-node-lease");
/// Nodes that wait for that. When more leave at once it is not they who died.
const LEFT_MAX: usize = 256;
/// How long a write may take: then there is no leader, and a lease of before says nothing.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// What a node's leaving says after this long is older than its lease would be.
const NEWS_MAX: Duration = Duration::from_secs(4);

/// Counts the connections of nodes. Clones share it.
#[derive(Clone)]
pub(crate) struct NodeConnections {
    open: Arc<Mutex<HashMap<String, usize>>>,
    left: mpsc::Sender<Left>,
}

/// A node whose last connection ended.
pub(crate) struct Left {
    node: String,
    at: Instant,
}

/// A node without a connection, whose lease is looked at once more.
struct Gone {
    node: String,
    /// Of its lease, when it had no connection already.
    version: serde_json::Value,
    /// In seconds.
    shorter: u64,
    due: Instant,
}

/// A connection of a node, as long as it is open.
pub(crate) struct Connected {
    all: NodeConnections,
    node: String,
}

impl NodeConnections {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Left>) {
        let (left, leaving) = mpsc::channel(LEFT_MAX);
        let open = Arc::default();
        (Self { open, left }, leaving)
    }

    /// A node connects.
    pub(crate) fn connect(&self, node: &str) -> Connected {
        *self.open.lock().entry(node.to_owned()).or_default() += 1;
        Connected {
            all: self.clone(),
            node: node.to_owned(),
        }
    }

    fn is_connected(&self, node: &str) -> bool {
        self.open.lock().contains_key(node)
    }

    /// Shortens the leases of nodes that leave, do not return and renew nothing elsewhere, until `closing`.
    pub(crate) async fn follow(
        self,
        objects: Objects,
        mut leaving: mpsc::Receiver<Left>,
        closing: CancellationToken,
    ) {
        let caller = Caller::system("apiserver", None);
        let mut gone: VecDeque<Gone> = VecDeque::new();
        let mut awake = Awake::new();
        loop {
            let due = gone.front().map(|gone| gone.due);
            tokio::select! {
                biased;
                () = closing.cancelled() => return,
                () = tokio::time::sleep_until(awake.at + LOOKS_EVERY) => {
                    if awake.has_slept(Instant::now()) {
                        gone.clear();
                    }
                }
                () = until(due) => {
                    if let Some(gone) = gone.pop_front()
                        && !self.is_connected(&gone.node)
                    {
                        tell(&gone.node, shorten(&objects, &caller, &gone)).await;
                    }
                }
                left = leaving.recv(), if gone.len() < LEFT_MAX => {
                    let Some(left) = left else { return };
                    if awake.has_slept(left.at) || awake.trusts_from > Some(left.at) {
                        continue;
                    }
                    tokio::select! {
                        biased;
                        () = closing.cancelled() => return,
                        () = tokio::time::sleep_until(left.at + RETURN_WITHIN) => {}
                    }
                    if self.is_connected(&left.node) || left.at.elapsed() > NEWS_MAX {
                        continue;
                    }
                    let seen = seen(&objects, &caller, left.node);
                    if let Ok(Ok(Some(seen))) = tokio::time::timeout(WRITE_MAX, seen).await {
                        gone.push_back(seen);
                    }
                }
            }
        }
    }
}

/// Whether this server itself runs: one that was stopped hears of the end of connections that nodes have long replaced.
struct Awake {
    at: Instant,
    /// None before it ever slept.
    trusts_from: Option<Instant>,
}

impl Awake {
    fn new() -> Self {
        Self {
            at: Instant::now(),
            trusts_from: None,
        }
    }

    /// Whether it ran too rarely until `now`; then it hears of what was for a while.
    fn has_slept(&mut self, now: Instant) -> bool {
        let slept = now.saturating_duration_since(self.at) > SLEPT;
        if slept {
            self.trusts_from = Some(now + NEWS_MAX);
        }
        self.at = self.at.max(now);
        slept
    }
}

/// Never, where there is nothing to wait for.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

async fn tell(node: &str, shortened: impl Future<Output = Result<bool, StatusError>>) {
    match tokio::time::timeout(WRITE_MAX, shortened).await {
        Ok(Ok(true)) => tracing::info!(node, "its connections ended; its lease is shortened"),
        Ok(Ok(false)) => {}
        Ok(Err(error)) => tracing::debug!(node, %error, "its lease was not shortened"),
        Err(_) => tracing::debug!(node, "its lease was not shortened in time"),
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut open = self.all.open.lock();
        let Some(count) = open.get_mut(&self.node) else {
            return;
        };
        *count -= 1;
        if *count > 0 {
            return;
        }
        open.remove(&self.node);
        let left = Left {
            node: std::mem::take(&mut self.node),
            at: Instant::now(),
        };
        // Full: see `LEFT_MAX`. Closed: the server goes.
        let _ = self.all.left.try_send(left);
    }
}

/// The lease of a node without a connection, if it is one that can be shortened.
async fn seen(
    objects: &Objects,
    caller: &Caller,
    node: String,
) -> Result<Option<Gone>, StatusError> {
    let lease = match objects.client(caller).get(&LEASE, NAMESPACE, &node).await {
        Ok(lease) => lease,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let lease = lease.value();
    let lasts = lease["spec"]["leaseDurationSeconds"].as_u64();
    let every = lease["metadata"]["annotations"][annotation::RENEWED_EVERY].as_str();
    let every = every.and_then(|seconds| seconds.parse().ok());
    let every = every.unwrap_or(RENEWED_EVERY).max(1);
    let shorter = RENEWALS.saturating_mul(every);
    if lasts.is_some_and(|lasts| lasts <= shorter) {
        return Ok(None);
    }
    let Some(due) = Instant::now().checked_add(Duration::from_secs(every) + LATE) else {
        return Ok(None);
    };
    Ok(Some(Gone {
        node,
        version: lease["metadata"]["resourceVersion"].clone(),
        shorter,
        due,
    }))
}

/// Whether the node's lease is shortened now: nobody has renewed it since it was seen.
async fn shorten(objects: &Objects, caller: &Caller, gone: &Gone) -> Result<bool, StatusError> {
    let client = objects.client(caller);
    let patch = json!({
        "metadata": {"resourceVersion": gone.version},
        "spec": {"leaseDurationSeconds": gone.shorter},
    });
    let patched = client
        .patch(
            ObjectRef::new(&LEASE, NAMESPACE, &gone.node),
            None,
            Patch::merge(&patch),
            &WriteOptions::default(),
        )
        .await;
    match patched {
        Ok(_) => Ok(true),
        // Renewed, or gone: somebody else has said something newer.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use weft_api::object::Object;
    use weft_store::Store;

    use super::*;
    use crate::objects;

    async fn lasts(objects: &Objects, node: &str) -> Option<u64> {
        let caller = Caller::system("apiserver", None);
        let client = objects.client(&caller);
        let lease = client.get(&LEASE, Some("kube-node-lease"), node).await;
        lease.unwrap().value()["spec"]["leaseDurationSeconds"].as_u64()
    }

    #[tokio::test]
    async fn the_lease_of_a_node_that_leaves_is_shortened_and_that_of_one_that_returns_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(weft_store::Config::new(dir.path().join("store")));
        let store = store.await.unwrap();
        let mut leadership = store.leadership();
        leadership.wait_for(Option::is_some).await.unwrap();
        let objects = Objects::new(store, objects::Config::default());
        let caller = Caller::system("apiserver", None);
        let founded = objects.ensure_permanent_namespaces(&caller).await;
        founded.unwrap();
        for (node, seconds, every) in [
            ("stays", 8, "1"),
            ("returns", 8, "1"),
            ("rare", 8, "often"),
            ("brief", 1, "1"),
            ("moves", 8, "1"),
            ("leaves", 8, "1"),
        ] {
            let lease = json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": node, "namespace": "kube-node-lease", "annotations": {"weft.dev/renewed-every": every}},
                "spec": {"holderIdentity": node, "leaseDurationSeconds": seconds},
            });
            let lease = Object::from_value(lease).unwrap();
            let options = WriteOptions::default();
            let client = objects.client(&caller);
            let created = client.create(&LEASE, Some("kube-node-lease"), lease, &options);
            created.await.unwrap();
        }
        let (all, leaving) = NodeConnections::new();
        let closing = CancellationToken::new();
        let following = all
            .clone()
            .follow(objects.clone(), leaving, closing.clone());
        let following = tokio::spawn(following);
        let _first = all.connect("stays");
        drop(all.connect("stays"));
        drop(all.connect("returns"));
        let _back = all.connect("returns");
        // Who never was a node has no lease, and one that is short already stays as it is.
        drop(all.connect("nobody"));
        drop(all.connect("brief"));
        drop(all.connect("moves"));
        drop(all.connect("leaves"));
        drop(all.connect("rare"));
        // Who has gone to another server renews there.
        let mut renewals = 0;
        while lasts(&objects, "leaves").await != Some(2) || lasts(&objects, "rare").await != Some(4)
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
            renewals += 1;
            let renewed = json!({"metadata": {"annotations": {"renewals": renewals.to_string()}}});
            let lease = ObjectRef::new(&LEASE, NAMESPACE, "moves");
            let (client, options) = (objects.client(&caller), WriteOptions::default());
            let patched = client.patch(lease, None, Patch::merge(&renewed), &options);
            patched.await.unwrap();
        }
        assert_eq!(lasts(&objects, "moves").await, Some(8));
        assert_eq!(lasts(&objects, "stays").await, Some(8));
        assert_eq!(lasts(&objects, "returns").await, Some(8));
        assert_eq!(lasts(&objects, "brief").await, Some(1));
        assert_eq!(lasts(&objects, "rare").await, Some(4));
        assert!(!all.is_connected("leaves") && all.is_connected("stays"));
        closing.cancel();
        following.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_was_stopped_does_not_trust_what_it_hears_first() {
        let mut awake = Awake::new();
        let start = awake.at;
        let after = |millis| start + Duration::from_millis(millis);
        for (millis, slept, trusts_from) in [
            (250, false, None),
            (1_250, false, None),
            // Stopped for twelve seconds.
            (13_250, true, Some(17_250)),
            (13_500, false, Some(17_250)),
            // News of before, handed over late, are no sleep.
            (13_400, false, Some(17_250)),
            (14_400, false, Some(17_250)),
        ] {
            assert_eq!(awake.has_slept(after(millis)), slept, "{millis}");
            assert_eq!(awake.trusts_from, trusts_from.map(after), "{millis}");
        }
    }
}
