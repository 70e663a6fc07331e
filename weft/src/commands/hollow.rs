//! Hollow nodes: nodes without a machine (`weft node --hollow N`), which run nothing and report that everything runs.
//!
//! A double of the agent only: server, controllers and scheduler are the real ones, so that a large cluster can be tried on one machine. A
//! node is its object and a lease; a pod that is bound to one is told to run, with an address of its own, and one that is being deleted is gone.
//! It shows a kubeconfig's credentials, as no node may speak for others.
//!
//! ```text
//! once       Nodes and their leases, whichever are not there
//! every 10 s each lease renewed, a few at a time                      (they say 40 s)
//! a watch    pods with a node: a status, or their end, many at a time
//! ```
//!
//! Invariants: requests under way are bounded; a pod is told once to run, whatever is told of it meanwhile; what fails is told again at the
//! next list.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context as _;
use futures::{AsyncBufReadExt as _, StreamExt as _};
use http::Request;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use weft_api::annotation;
use weft_api::time::rfc3339;

use crate::kubeconfig::ClientArgs;
use crate::stdout;

/// Requests under way at once, of each of the three tasks.
const SIDE_BY_SIDE_MAX: usize = 32;
/// As the kubelet: four renewals may get lost.
const LEASE_SECONDS: u64 = 40;
const LEASE_EVERY: Duration = Duration::from_secs(10);
/// Leases are renewed in as many parts, one after the other, so that the server is asked evenly.
const PARTS: usize = 50;
/// Before another try at what failed.
const PAUSE: Duration = Duration::from_secs(1);
/// Zones that the nodes lie in.
const ZONES: u32 = 3;
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// What hollow nodes look like.
#[derive(Debug, Clone)]
pub struct Hollow {
    pub count: u32,
    /// `NAME-0` and so on.
    pub name: String,
    pub cpu: String,
    pub memory: String,
    pub version: String,
}

impl Hollow {
    fn name(&self, number: u32) -> String {
        format!("{}-{number}", self.name)
    }

    fn node(&self, number: u32) -> Value {
        let name = self.name(number);
        let room = json!({"cpu": self.cpu, "memory": self.memory, "ephemeral-storage": "100Gi", "pods": "110"});
        let now = rfc3339(Timestamp::now());
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": "nothing runs here",
                "lastHeartbeatTime": now, "lastTransitionTime": now})
        };
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                annotation::HOSTNAME: name,
                "topology.kubernetes.io/zone": format!("zone-{}", number % ZONES),
                "weft.dev/hollow": "true",
            }},
            "status": {
                "capacity": room, "allocatable": room,
                "conditions": [
                    condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
                    condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
                    condition("PIDPressure", "False", "KubeletHasSufficientPID"),
                    condition("Ready", "True", "KubeletReady"),
                ],
                "addresses": [{"type": "Hostname", "address": name}],
                "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "",
                    "osImage": "", "containerRuntimeVersion": "hollow://1", "kubeletVersion": self.version,
                    "kubeProxyVersion": "", "operatingSystem": "wasi", "architecture": "wasm32"},
            },
        })
    }

    fn lease(&self, number: u32) -> Value {
        let name = self.name(number);
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": micro_time()},
        })
    }
}

fn micro_time() -> String {
    Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%S.%6fZ")
        .to_string()
}

/// Plays the nodes until it is stopped.
///
/// # Errors
/// When the cluster cannot be reached, or refuses the nodes.
pub async fn run(
    hollow: Hollow,
    client: &ClientArgs,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let client = client.client().await?;
    let register = futures::stream::iter(0..hollow.count)
        .map(|number| register(&client, &hollow, number))
        .buffer_unordered(SIDE_BY_SIDE_MAX);
    let registered: Vec<anyhow::Result<()>> = register.collect().await;
    registered.into_iter().collect::<anyhow::Result<()>>()?;
    // A reader that has gone is no reason to end.
    let _ = stdout::text(&format!("{} hollow nodes are ready.\n", hollow.count));
    let names: BTreeSet<String> = (0..hollow.count)
        .map(|number| hollow.name(number))
        .collect();
    tokio::select! {
        () = renew(&client, &hollow) => {}
        () = play(&client, &names) => {}
        () = stop.cancelled() => {}
    }
    Ok(())
}

async fn send(
    client: &kube::Client,
    request: http::request::Builder,
    body: &Value,
) -> Result<Value, kube::Error> {
    let request = request
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    client.request(request).await
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

async fn register(client: &kube::Client, hollow: &Hollow, number: u32) -> anyhow::Result<()> {
    for (path, object) in [
        ("/api/v1/nodes", hollow.node(number)),
        (LEASES, hollow.lease(number)),
    ] {
        let request = Request::post(path).header("content-type", "application/json");
        match send(client, request, &object).await {
            Err(error) if !is_code(&error, 409) => {
                return Err(error)
                    .with_context(|| format!("making the node {}", hollow.name(number)));
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Renews all leases, evenly, for ever.
async fn renew(client: &kube::Client, hollow: &Hollow) {
    let mut ticks = tokio::time::interval(LEASE_EVERY / u32::try_from(PARTS).unwrap_or(1));
    for part in (0..PARTS).cycle() {
        ticks.tick().await;
        let step = PARTS;
        let mine = (0..hollow.count).skip(part).step_by(step);
        let renewals = futures::stream::iter(mine).map(|number| {
            let path = format!("{LEASES}/{}", hollow.name(number));
            let request =
                Request::patch(path).header("content-type", "application/merge-patch+json");
            async move {
                let spec = json!({"spec": {"renewTime": micro_time()}});
                if let Err(error) = send(client, request, &spec).await {
                    // One that somebody deleted is made again.
                    if is_code(&error, 404) {
                        let request =
                            Request::post(LEASES).header("content-type", "application/json");
                        let _ = send(client, request, &hollow.lease(number)).await;
                    }
                }
            }
        });
        renewals
            .buffer_unordered(SIDE_BY_SIDE_MAX)
            .collect::<()>()
            .await;
    }
}

/// Follows pods, and begins anew whenever the stream ends.
async fn play(client: &kube::Client, names: &BTreeSet<String>) {
    let mut told = Told::default();
    loop {
        if let Err(error) = follow(client, names, &mut told).await {
            tracing::debug!(error = %error, "pods are listed again");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What was told of pods, by uid.
#[derive(Default)]
struct Told {
    running: BTreeSet<String>,
    next_address: u32,
}

impl Told {
    /// What has to be done for a pod as it is now.
    fn next(
        &mut self,
        pod: &Value,
        names: &BTreeSet<String>,
    ) -> Option<(http::request::Builder, Value)> {
        let node = pod["spec"]["nodeName"].as_str()?;
        if !names.contains(node) {
            return None;
        }
        let (meta, uid) = (&pod["metadata"], pod["metadata"]["uid"].as_str()?);
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}",
            meta["namespace"].as_str()?,
            meta["name"].as_str()?
        );
        if !meta["deletionTimestamp"].is_null() {
            self.running.remove(uid);
            let request = Request::delete(path).header("content-type", "application/json");
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": uid}});
            return Some((request, options));
        }
        if pod["status"]["phase"] != "Pending" || !self.running.insert(uid.to_owned()) {
            return None;
        }
        self.next_address = (self.next_address + 1) % (1 << 22);
        let request = Request::patch(format!("{path}/status"))
            .header("content-type", "application/strategic-merge-patch+json");
        Some((request, running(pod, uid, self.next_address)))
    }
}

/// The status of a pod that runs.
fn running(pod: &Value, uid: &str, number: u32) -> Value {
    let now = rfc3339(Timestamp::now());
    // Of the addresses that no machine on the internet has, and no node's pods here.
    let address = std::net::Ipv4Addr::from_bits(((100 << 24) | (64 << 16)) + number).to_string();
    let of = |list: &str, state: Value| {
        let containers = pod["spec"][list].as_array().into_iter().flatten();
        let statuses = containers.map(|container| {
            let stays = list == "containers" || container["restartPolicy"] == "Always";
            let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}});
            json!({"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0,
                "ready": true, "started": stays, "state": if stays { state.clone() } else { ended }})
        });
        statuses.collect::<Vec<Value>>()
    };
    let state = json!({"running": {"startedAt": now}});
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": now});
    let kinds = [
        "Initialized",
        "Ready",
        "ContainersReady",
        "PodReadyToStartContainers",
    ];
    json!({
        "metadata": {"uid": uid},
        "status": {
            "phase": "Running", "startTime": now, "podIP": address, "podIPs": [{"ip": address}],
            "conditions": kinds.map(condition),
            "initContainerStatuses": of("initContainers", state.clone()),
            "containerStatuses": of("containers", state),
        },
    })
}

/// Lists pods with a node, then follows them; ends with the stream.
async fn follow(
    client: &kube::Client,
    names: &BTreeSet<String>,
    told: &mut Told,
) -> anyhow::Result<()> {
    const PODS: &str = "/api/v1/pods?fieldSelector=spec.nodeName!%3D";
    let list: Value = client.request(Request::get(PODS).body(Vec::new())?).await?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or("0");
    told.running.clear();
    let pods = list["items"].as_array().into_iter().flatten();
    let work: Vec<_> = pods.filter_map(|pod| told.next(pod, names)).collect();
    let done = futures::stream::iter(work).map(|(request, body)| async move {
        let _ = send(client, request, &body).await;
    });
    done.buffer_unordered(SIDE_BY_SIDE_MAX)
        .collect::<()>()
        .await;
    let path = format!("{PODS}&watch=true&allowWatchBookmarks=true&resourceVersion={version}");
    let lines = client
        .request_stream(Request::get(path).body(Vec::new())?)
        .await?
        .lines();
    let work = lines.filter_map(|line| {
        let event = line
            .ok()
            .and_then(|line| serde_json::from_str::<Value>(&line).ok());
        let event = event.unwrap_or_default();
        let next = match event["type"].as_str() {
            Some("ADDED" | "MODIFIED") => told.next(&event["object"], names),
            Some("DELETED") => {
                let uid = event["object"]["metadata"]["uid"]
                    .as_str()
                    .unwrap_or_default();
                told.running.remove(uid);
                None
            }
            _ => None,
        };
        std::future::ready(next)
    });
    let done = work.map(|(request, body)| async move {
        let _ = send(client, request, &body).await;
    });
    done.buffer_unordered(SIDE_BY_SIDE_MAX)
        .collect::<()>()
        .await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_told_once_to_run_and_let_go_when_it_is_to() {
        let names = BTreeSet::from(["hollow-0".to_owned()]);
        let mut told = Told::default();
        let pod = |node: &str, phase: &str, more: Value| {
            let mut meta = json!({"name": "p", "namespace": "d", "uid": "u"});
            for (key, value) in more.as_object().into_iter().flatten() {
                meta[key] = value.clone();
            }
            json!({"metadata": meta, "status": {"phase": phase},
                "spec": {"nodeName": node, "initContainers": [{"name": "i"}], "containers": [{"name": "c", "image": "x"}]}})
        };
        assert!(
            told.next(&pod("other", "Pending", json!({})), &names)
                .is_none()
        );
        let (request, body) = told
            .next(&pod("hollow-0", "Pending", json!({})), &names)
            .expect("work");
        assert_eq!(
            request.uri_ref().map(ToString::to_string),
            Some("/api/v1/namespaces/d/pods/p/status".to_owned())
        );
        assert_eq!(body["status"]["podIP"], "100.64.0.1");
        assert!(body["status"]["containerStatuses"][0]["state"]["running"].is_object());
        assert!(body["status"]["initContainerStatuses"][0]["state"]["terminated"].is_object());
        assert!(
            told.next(&pod("hollow-0", "Pending", json!({})), &names)
                .is_none()
        );
        let ending = pod(
            "hollow-0",
            "Running",
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        );
        let (request, body) = told.next(&ending, &names).expect("work");
        assert_eq!(request.method_ref(), Some(&http::Method::DELETE));
        assert_eq!(body["preconditions"]["uid"], "u");
    }

    #[test]
    fn a_node_is_ready_from_the_beginning() {
        let hollow = Hollow {
            count: 2,
            name: "h".into(),
            cpu: "4".into(),
            memory: "8Gi".into(),
            version: "v1".into(),
        };
        let node: k8s_openapi::api::core::v1::Node =
            serde_json::from_value(hollow.node(1)).unwrap();
        let facts = weft_scheduler::NodeFacts::of(&node);
        assert_eq!(
            (&*facts.name, facts.allocatable.cpu, facts.pods_max),
            ("h-1", 4000, 110)
        );
        let lease = hollow.lease(1);
        assert_eq!(lease["spec"]["holderIdentity"], "h-1");
    }
}
