//! What users do: they roll out, scale, pause and undo, make Jobs and budgets, empty nodes, end namespaces, and own things together. Each
//! deed is drawn when its time comes; one that finds nothing to be done to, or is refused, is no deed.

use serde_json::{Value, json};
use weft_api::annotation;
use weft_apiserver::objects::Propagation;
use weft_controllers::Key;
use weft_kinds::{
    CONFIG_MAP, DAEMON_SET, DEPLOYMENT, JOB, KindRef, NAMESPACE, NODE, POD, POD_DISRUPTION_BUDGET,
    STATEFUL_SET,
};

use super::chance::Chance;
use super::cluster::Cluster;
use super::planted::Bug;
use super::record::{
    Doer, is_deleting, is_live, key_of, name_of, node_of, number, serves, text, uid_of,
};

/// Names of Deployments; the last two are more and less urgent than others.
const WEBS: [&str; 4] = ["web", "api", "urgent", "idle"];
/// Names of StatefulSets.
const STATEFUL: [&str; 2] = ["db", FENCED];
/// The pods of this one ask their node to stop them when it is cut off.
const FENCED: &str = "kv";
const SECOND: &str = "shop";
const IMAGES: [&str; 3] = ["x:1", "x:2", "x:3"];

pub struct Users {
    /// The node that somebody empties.
    draining: Option<String>,
    jobs: u64,
    maps: u64,
    bug: Option<Bug>,
}

impl Users {
    pub fn new(bug: Option<Bug>) -> Self {
        Self {
            draining: None,
            jobs: 0,
            maps: 0,
            bug,
        }
    }

    /// What is there before anything goes wrong.
    pub fn begin(&mut self, cluster: &mut Cluster) {
        for (name, value) in [("urgent", 100), ("idle", -10)] {
            let class = json!({"metadata": {"name": name}, "value": value});
            let _ = cluster.create(&weft_kinds::PRIORITY_CLASS, class);
        }
        let mut owners: Vec<Value> = Vec::new();
        for name in ["map-1", "map-2", "map-3"] {
            let refers: &[Value] = if owners.len() == 2 { &owners } else { &[] };
            let map = json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": refers}});
            if let Ok(map) = cluster.create(&CONFIG_MAP, map) {
                owners.push(owner(map.as_value()));
            }
        }
        self.maps = 3;
    }

    /// Draws a deed and does it.
    pub fn act(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let namespace = if chance.is(85) { "default" } else { SECOND };
        let name = *chance.one_of(&WEBS).unwrap();
        let web = Key::new(namespace, name);
        match chance.below(33) {
            0..=4 => make_or_roll(cluster, chance, &web),
            5..=7 => scale(cluster, chance, &web),
            8 => {
                let paused = cluster.record.get("Deployment", &web);
                let paused = paused.is_some_and(|web| web["spec"]["paused"] == true);
                patch(
                    cluster,
                    &DEPLOYMENT,
                    &web,
                    &json!({"spec": {"paused": !paused}}),
                );
            }
            9 => fences(cluster, chance, &web),
            10 => end(cluster, chance, "Deployment", &DEPLOYMENT, &web),
            11..=13 => {
                let name = *chance.one_of(&STATEFUL).unwrap();
                stateful(cluster, chance, &Key::new("default", name));
            }
            14 => {
                let name = *chance.one_of(&STATEFUL).unwrap();
                let key = Key::new("default", name);
                end(cluster, chance, "StatefulSet", &STATEFUL_SET, &key);
            }
            15..=16 => daemons(cluster, chance, &Key::new("default", "log")),
            17..=18 => self.job(cluster, chance),
            19 => self.tune_job(cluster, chance),
            20..=21 => budget(cluster, chance, &web),
            22..=23 => self.drain(cluster, chance),
            24 => self.uncordon(cluster),
            25..=26 => namespaces(cluster, chance),
            27..=30 => self.own(cluster, chance),
            31 => one_pod(cluster, chance),
            _ => relabel(cluster, chance),
        }
        self.go_on_draining(cluster, chance);
    }

    /// What was left half done is done or taken back.
    pub fn finish(&mut self, cluster: &mut Cluster) {
        self.uncordon(cluster);
        let deployments: Vec<Key> = cluster
            .record
            .all("Deployment")
            .map(|(key, _)| key.clone())
            .collect();
        for key in deployments {
            patch(
                cluster,
                &DEPLOYMENT,
                &key,
                &json!({"spec": {"paused": false}}),
            );
        }
        let jobs: Vec<Key> = cluster
            .record
            .all("Job")
            .map(|(key, _)| key.clone())
            .collect();
        for key in jobs {
            patch(cluster, &JOB, &key, &json!({"spec": {"suspend": false}}));
        }
    }

    fn job(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        self.jobs += 1;
        let name = format!("job-{}", self.jobs);
        let indexed = chance.is(50);
        let mut pods = template(&name, "x:1", "200m", "");
        pods["spec"]["restartPolicy"] = json!("Never");
        pods["metadata"].take();
        let mut job = json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"completions": chance.within(1, 5), "parallelism": chance.within(1, 3),
                "backoffLimit": chance.within(0, 3), "template": pods},
        });
        if indexed {
            job["spec"]["completionMode"] = json!("Indexed");
        }
        if chance.is(20) {
            job["spec"]["ttlSecondsAfterFinished"] = json!(10);
        }
        make(cluster, &JOB, job);
    }

    fn tune_job(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let jobs: Vec<Key> = cluster
            .record
            .all("Job")
            .map(|(key, _)| key.clone())
            .collect();
        let Some(job) = chance.one_of(&jobs).cloned() else {
            return;
        };
        match chance.below(3) {
            0 => {
                let suspend = chance.is(50);
                patch(cluster, &JOB, &job, &json!({"spec": {"suspend": suspend}}));
            }
            1 => {
                let most = chance.within(1, 4);
                patch(cluster, &JOB, &job, &json!({"spec": {"parallelism": most}}));
            }
            _ => end(cluster, chance, "Job", &JOB, &job),
        }
    }

    fn drain(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let nodes: Vec<Key> = cluster
            .record
            .all("Node")
            .map(|(key, _)| key.clone())
            .collect();
        if self.draining.is_none()
            && let Some(node) = chance.one_of(&nodes)
        {
            self.draining = Some(node.name.to_string());
            patch(
                cluster,
                &NODE,
                node,
                &json!({"spec": {"unschedulable": true}}),
            );
        }
    }

    fn uncordon(&mut self, cluster: &mut Cluster) {
        if let Some(node) = self.draining.take() {
            let spec = json!({"spec": {"unschedulable": false}});
            patch(cluster, &NODE, &Key::cluster(&node), &spec);
        }
    }

    /// Whoever empties a node asks for some of the pods on it to go.
    pub fn go_on_draining(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let Some(node) = self.draining.clone() else {
            return;
        };
        let leave = |pod: &&Value| {
            let owner = super::record::controller(pod).and_then(|uid| cluster.record.by_uid(uid));
            let stays = owner.is_some_and(|owner| text(owner, "/kind") == "DaemonSet");
            node_of(pod) == node && is_live(pod) && !stays
        };
        let pods: Vec<Key> = cluster.record.pods().filter(leave).map(key_of).collect();
        for key in pods {
            if !chance.is(60) {
                continue;
            }
            let came = if self.bug == Some(Bug::BudgetNotAsked) {
                let options = weft_apiserver::objects::DeleteOptions::default();
                cluster
                    .delete(Doer::Eviction, &POD, &key, &options)
                    .map(drop)
            } else {
                cluster.evict(&key)
            };
            let came =
                came.map_or_else(|error| format!(" … {}", error.message), |()| String::new());
            cluster.tell(&format!("a user evicts {key} from {node}{came}"));
        }
    }

    /// ConfigMaps that others own, alone or together; owners that go; and one that joins.
    fn own(&mut self, cluster: &mut Cluster, chance: &mut Chance) {
        let maps: Vec<Value> = cluster
            .record
            .all("ConfigMap")
            .filter(|(key, map)| key.name.starts_with("map-") && !is_deleting(map))
            .map(|(_, map)| map.clone())
            .collect();
        if maps.len() < 3 || chance.is(40) {
            self.maps += 1;
            let mut owners: Vec<Value> = (0..chance.below(3))
                .filter_map(|_| chance.one_of(&maps).map(owner))
                .collect();
            owners.dedup();
            let name = format!("map-{}", self.maps);
            let map = json!({"metadata": {"name": name, "namespace": "default", "ownerReferences": owners}});
            make(cluster, &CONFIG_MAP, map);
            return;
        }
        let Some(map) = chance.one_of(&maps) else {
            return;
        };
        if chance.is(50) {
            end(cluster, chance, "ConfigMap", &CONFIG_MAP, &key_of(map));
            return;
        }
        // Another owner takes part in it, perhaps while it is thought to have lost its last one.
        let Some(other) = chance.one_of(&maps) else {
            return;
        };
        let mut owners: Vec<Value> = super::record::owners(map).cloned().collect();
        let is_new = owners.iter().all(|one| one["uid"] != *uid_of(other));
        if uid_of(other) != uid_of(map) && is_new && number_of(map) > number_of(other) {
            owners.push(owner(other));
            let body = json!({"metadata": {"ownerReferences": owners}});
            patch(cluster, &CONFIG_MAP, &key_of(map), &body);
        }
    }
}

fn number_of(map: &Value) -> u64 {
    let number = name_of(map).strip_prefix("map-");
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn owner(map: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name_of(map), "uid": uid_of(map),
        "blockOwnerDeletion": true})
}

pub fn template(app: &str, image: &str, cpu: &str, class: &str) -> Value {
    let mut pod = json!({
        "metadata": {"labels": {"app": app}},
        "spec": {"terminationGracePeriodSeconds": 2, "containers": [{"name": "main", "image": image,
            "resources": {"requests": {"cpu": cpu}}}]},
    });
    if !class.is_empty() {
        pod["spec"]["priorityClassName"] = json!(class);
    }
    pod
}

fn make(cluster: &mut Cluster, kind: KindRef<'_>, object: Value) {
    let (key, size) = (key_of(&object), object["spec"]["replicas"].clone());
    let came = cluster.create(kind, object);
    let came = came.map_or_else(|error| format!(" … {}", error.message), |_| String::new());
    cluster.tell(&format!(
        "a user creates {} {key} {size}{came}",
        kind.resource
    ));
}

fn patch(cluster: &mut Cluster, kind: KindRef<'_>, key: &Key, body: &Value) {
    if cluster.record.get(&kind.kind, key).is_none() {
        return;
    }
    let came = cluster.patch(kind, key, body);
    let came = came.map_or_else(|error| format!(" … {}", error.message), |()| String::new());
    cluster.tell(&format!(
        "a user patches {} {key} {body}{came}",
        kind.resource
    ));
}

fn end(cluster: &mut Cluster, chance: &mut Chance, name: &str, kind: KindRef<'_>, key: &Key) {
    let how = match chance.below(3) {
        0 => Propagation::Background,
        1 => Propagation::Foreground,
        _ if name == "ConfigMap" || name == "Deployment" => Propagation::Orphan,
        _ => Propagation::Background,
    };
    if cluster.record.get(name, key).is_some() && cluster.delete_with(kind, key, how).is_ok() {
        cluster.tell(&format!("a user deletes {name} {key} {how:?}"));
    }
}

fn make_or_roll(cluster: &mut Cluster, chance: &mut Chance, key: &Key) {
    let image = *chance.one_of(&IMAGES).unwrap();
    if cluster.record.get("Deployment", key).is_some() {
        let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image,
            "resources": {"requests": {"cpu": cpu(&key.name)}}}]}}}});
        patch(cluster, &DEPLOYMENT, key, &body);
        return;
    }
    let class = match &*key.name {
        "urgent" | "idle" => &*key.name,
        _ => "",
    };
    let deployment = json!({
        "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        "spec": {
            "replicas": chance.within(2, 6),
            "selector": {"matchLabels": {"app": &*key.name}},
            "strategy": strategy(chance),
            "template": template(&key.name, image, cpu(&key.name), class),
        },
    });
    make(cluster, &DEPLOYMENT, deployment);
}

fn cpu(name: &str) -> &'static str {
    match name {
        "urgent" => "600m",
        "idle" => "900m",
        _ => "300m",
    }
}

fn strategy(chance: &mut Chance) -> Value {
    let (surge, unavailable) = match chance.below(6) {
        0 => (json!("25%"), json!("25%")),
        1 => (json!(1), json!(0)),
        2 => (json!(0), json!(1)),
        3 => (json!("100%"), json!(0)),
        4 => (json!(2), json!("50%")),
        _ => return json!({"type": "Recreate", "rollingUpdate": null}),
    };
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

fn fences(cluster: &mut Cluster, chance: &mut Chance, key: &Key) {
    let strategy = strategy(chance);
    patch(
        cluster,
        &DEPLOYMENT,
        key,
        &json!({"spec": {"strategy": strategy}}),
    );
}

fn scale(cluster: &mut Cluster, chance: &mut Chance, key: &Key) {
    let size = chance.within(0, 7);
    patch(
        cluster,
        &DEPLOYMENT,
        key,
        &json!({"spec": {"replicas": size}}),
    );
}

fn stateful(cluster: &mut Cluster, chance: &mut Chance, key: &Key) {
    let image = *chance.one_of(&IMAGES).unwrap();
    if cluster.record.get("StatefulSet", key).is_none() {
        let policy = if chance.is(70) {
            "OrderedReady"
        } else {
            "Parallel"
        };
        let mut template = template(&key.name, image, "300m", "");
        if *key.name == *FENCED {
            template["metadata"]["annotations"] = json!({annotation::FENCED: "true"});
        }
        let set = json!({
            "metadata": {"name": &*key.name, "namespace": &*key.namespace},
            "spec": {"replicas": chance.within(1, 4), "serviceName": &*key.name, "podManagementPolicy": policy,
                "selector": {"matchLabels": {"app": &*key.name}}, "template": template},
        });
        make(cluster, &STATEFUL_SET, set);
        return;
    }
    let body = match chance.below(2) {
        0 => json!({"spec": {"replicas": chance.within(1, 4)}}),
        _ => json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image,
            "resources": {"requests": {"cpu": "300m"}}}]}}}}),
    };
    patch(cluster, &STATEFUL_SET, key, &body);
}

fn daemons(cluster: &mut Cluster, chance: &mut Chance, key: &Key) {
    let image = *chance.one_of(&IMAGES).unwrap();
    if cluster.record.get("DaemonSet", key).is_none() {
        let most = chance.within(1, 2);
        let set = json!({
            "metadata": {"name": &*key.name, "namespace": &*key.namespace},
            "spec": {"selector": {"matchLabels": {"app": "log"}}, "template": template("log", image, "100m", ""),
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": most}}},
        });
        make(cluster, &DAEMON_SET, set);
    } else if chance.is(10) {
        end(cluster, chance, "DaemonSet", &DAEMON_SET, key);
    } else {
        let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "main", "image": image,
            "resources": {"requests": {"cpu": "100m"}}}]}}}});
        patch(cluster, &DAEMON_SET, key, &body);
    }
}

fn budget(cluster: &mut Cluster, chance: &mut Chance, web: &Key) {
    let app = if chance.is(75) { &*web.name } else { "db" };
    let key = Key::new(&web.namespace, app);
    if cluster.record.get("PodDisruptionBudget", &key).is_some() {
        if chance.is(30) {
            end(
                cluster,
                chance,
                "PodDisruptionBudget",
                &POD_DISRUPTION_BUDGET,
                &key,
            );
        } else {
            let least = chance.within(1, 4);
            let body = json!({"spec": {"minAvailable": least, "maxUnavailable": null}});
            patch(cluster, &POD_DISRUPTION_BUDGET, &key, &body);
        }
        return;
    }
    let mut budget = json!({
        "metadata": {"name": &*key.name, "namespace": &*key.namespace},
        "spec": {"selector": {"matchLabels": {"app": app}}},
    });
    match chance.is(50) {
        true => budget["spec"]["minAvailable"] = json!(chance.within(1, 4)),
        false => budget["spec"]["maxUnavailable"] = json!(chance.within(0, 2)),
    }
    make(cluster, &POD_DISRUPTION_BUDGET, budget);
}

fn namespaces(cluster: &mut Cluster, chance: &mut Chance) {
    let key = Key::cluster(SECOND);
    if cluster.record.get("Namespace", &key).is_none() {
        make(cluster, &NAMESPACE, json!({"metadata": {"name": SECOND}}));
        make_or_roll(cluster, chance, &Key::new(SECOND, "web"));
    } else if chance.is(60) {
        end(cluster, chance, "Namespace", &NAMESPACE, &key);
    }
}

/// A pod is deleted by hand.
fn one_pod(cluster: &mut Cluster, chance: &mut Chance) {
    let pods: Vec<Key> = cluster
        .record
        .pods()
        .filter(|pod| serves(pod))
        .map(key_of)
        .collect();
    if let Some(key) = chance.one_of(&pods) {
        let _ = cluster.delete_with(&POD, key, Propagation::Background);
        cluster.tell(&format!("a user deletes Pod {key}"));
    }
}

/// A pod is taken out of its set, or one that was comes back to it.
fn relabel(cluster: &mut Cluster, chance: &mut Chance) {
    let webs = cluster.record.pods().filter(|pod| {
        serves(pod)
            && number(pod, "/spec/priority") == 0
            && text(pod, "/metadata/labels/app") == "web"
    });
    let webs: Vec<Key> = webs.map(key_of).collect();
    let apart = cluster
        .record
        .pods()
        .find(|pod| text(pod, "/metadata/labels/app") == "apart");
    let apart = apart.map(key_of);
    if let Some(key) = apart {
        let _ = cluster.delete_with(&POD, &key, Propagation::Background);
    } else if let Some(key) = chance.one_of(&webs) {
        patch(
            cluster,
            &POD,
            key,
            &json!({"metadata": {"labels": {"app": "apart"}}}),
        );
    }
}
