//! What must hold after each change, whatever goes wrong. Each rule has a name, which is counted with how often it had no excuse.
//!
//! Who decides hears late, so a rule about numbers is held against everything that was asked for since all was last well, and pods that
//! faults took since then are allowed for, one by one ([`super::record::Ledger`]). When all is well and the leader has heard of
//! everything the allowance ends ([`calm`]): what is decided from there on is held to the number.

use std::collections::BTreeSet;

use serde_json::Value;

use super::record::{
    Asked, Doer, Ledger, Record, controller, count, cpu_of, has_condition, is_deleting, is_live,
    key_of, millis, name_of, node_of, number, owners, serves, text, uid_of,
};

pub const SURGE: &str = "a Deployment's sets grow to no more than maxSurge allows";
pub const FLOOR: &str = "a Deployment takes no pod that maxUnavailable needs";
pub const SET_SIZE: &str = "a set makes no pod beyond its size";
pub const JOB_SIZE: &str = "a Job starts no pod beyond its parallelism, and no index twice";
pub const DAEMON_ONE: &str = "a DaemonSet has one pod a node";
pub const DAEMON_FLOOR: &str = "a DaemonSet's update takes no pod that maxUnavailable needs";
pub const ORDERED_FLOOR: &str = "a StatefulSet's update takes one pod after the other";
pub const ORDINAL: &str = "a StatefulSet makes no pod beyond its size";
pub const BOUND_ONCE: &str = "a pod is bound once, by uid";
pub const ROOM: &str = "no node is over-committed";
pub const BUDGET: &str = "no eviction breaks a disruption budget";
pub const OWNED: &str = "nothing is collected whose owner lives";
pub const NAMESPACE: &str = "a namespace ends after everything in it, and nothing is made in none";
pub const RUNS_ONCE: &str = "a StatefulSet's pod runs in one place at a time";

pub const ALL: &[&str] = &[
    SURGE,
    FLOOR,
    SET_SIZE,
    JOB_SIZE,
    DAEMON_ONE,
    DAEMON_FLOOR,
    ORDERED_FLOOR,
    ORDINAL,
    BOUND_ONCE,
    ROOM,
    BUDGET,
    OWNED,
    NAMESPACE,
    RUNS_ONCE,
];

const REPLICA_SETS: &str = "replicaset-controller";
const DAEMON_SETS: &str = "daemonset-controller";
const STATEFUL_SETS: &str = "statefulset-controller";
pub const GARBAGE: &str = "garbage-collector";
/// More pods than there ever are.
const NEVER_WHOLE: i64 = 1 << 20;
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

type Held = Result<(), String>;

/// `Err`: the rule's name, and how it is broken.
fn hold(record: &mut Record, rule: &'static str, strictly: bool, broken: Option<String>) -> Held {
    record.judge(rule, strictly);
    match broken {
        None => Ok(()),
        Some(how) => Err(format!("{rule}: {how}")),
    }
}

/// Judges a change that the record has taken.
pub fn change(
    record: &mut Record,
    doer: Doer,
    kind: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Held {
    if let Some(after) = after {
        note_asked(record, kind, after);
    }
    if doer == Doer::Controller(GARBAGE) {
        nothing_owned_goes(record, kind, before, after)?;
    }
    namespaces_hold(record, kind, before, after)?;
    super::rollouts::judge(record, doer, kind, before, after)?;
    match kind {
        "ReplicaSet" => sets_fit(record, before, after),
        "Pod" => {
            binding_stands(record, before, after)?;
            if before.is_none()
                && let Some(pod) = after
            {
                pod_is_wanted(record, pod)?;
            }
            pod_is_missed(record, doer, before, after)
        }
        _ => Ok(()),
    }
}

/// Remembers what is asked for now.
fn note_asked(record: &mut Record, kind: &str, object: &Value) {
    let Some(asked) = asked(record, kind, object) else {
        return;
    };
    let ledger = record.ledgers.entry(uid_of(object).to_owned());
    let ledger = ledger.or_insert_with(|| Ledger {
        // What never was whole promises nothing: who serves by now was not known to whoever decided.
        hurt: match kind {
            "Deployment" | "DaemonSet" | "StatefulSet" => NEVER_WHOLE,
            _ => 0,
        },
        asked: Vec::new(),
    });
    if ledger.asked.last() != Some(&asked) {
        ledger.asked.push(asked);
    }
    // A set is looked at once for each size that its status names; nobody else stands between.
    if matches!(kind, "ReplicaSet" | "StatefulSet") {
        let seen = number(object, "/status/observedGeneration");
        ledger.asked.retain(|one| one.generation >= seen);
    }
}

fn asked(record: &Record, kind: &str, object: &Value) -> Option<Asked> {
    let generation = number(object, "/metadata/generation");
    let size = number(object, "/spec/replicas");
    let asked = |most, fewest| {
        Some(Asked {
            generation,
            size,
            most,
            fewest,
        })
    };
    match kind {
        "Deployment" if text(object, "/spec/strategy/type") == "Recreate" => asked(size, 0),
        "Deployment" => {
            let rolling = &object["spec"]["strategy"]["rollingUpdate"];
            let surge = share(&rolling["maxSurge"], size, true);
            let mut missing = share(&rolling["maxUnavailable"], size, false);
            if surge == 0 && missing == 0 {
                missing = 1;
            }
            asked(size + surge, (size - missing).max(0))
        }
        "ReplicaSet" | "StatefulSet" => asked(size, 0),
        "DaemonSet" => {
            let most = &object["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"];
            asked(0, most.as_i64().unwrap_or(1))
        }
        "Job" => match object["spec"]["suspend"] == true {
            true => asked(0, 0),
            false => asked(number(object, "/spec/parallelism"), 0),
        },
        "PodDisruptionBudget" => {
            let fewest = match object["spec"]["maxUnavailable"].as_i64() {
                None => number(object, "/spec/minAvailable"),
                Some(most) => smallest_selected(record, object) - most,
            };
            asked(i64::MAX, fewest.max(0))
        }
        _ => None,
    }
}

/// What the smallest of the workloads asks for that a budget is for, over all that it asked for lately.
fn smallest_selected(record: &Record, budget: &Value) -> i64 {
    let app = text(budget, "/spec/selector/matchLabels/app");
    let namespace = text(budget, "/metadata/namespace");
    let workloads = ["Deployment", "StatefulSet"].map(|kind| record.all(kind));
    let selected = workloads.into_iter().flatten().filter(|(key, object)| {
        &*key.namespace == namespace && text(object, "/spec/template/metadata/labels/app") == app
    });
    let ledgers = selected.filter_map(|(_, object)| record.ledgers.get(uid_of(object)));
    ledgers.map(Ledger::smallest).min().unwrap_or(0)
}

/// A number of pods, or a share of `of`.
fn share(value: &Value, of: i64, up: bool) -> i64 {
    let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')) else {
        return value.as_i64().unwrap_or(0);
    };
    let percent: i64 = percent.parse().unwrap_or(0);
    (percent * of + if up { 99 } else { 0 }) / 100
}

fn nothing_owned_goes(
    record: &mut Record,
    kind: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Held {
    let Some(object) = before else {
        return Ok(());
    };
    let goes = !is_deleting(object) && after.is_none_or(is_deleting);
    if !goes {
        return Ok(());
    }
    // As it is now: who was told of an owner in the same write is owned.
    let namespace = text(object, "/metadata/namespace");
    let living = owners(after.unwrap_or(object)).find(|owner| {
        let found = record.by_uid(text(owner, "/uid"));
        found.is_some_and(|found| {
            let within = text(found, "/metadata/namespace");
            (within.is_empty() || within == namespace) && !waits_for_dependents(found)
        })
    });
    let broken = living.map(|owner| {
        let name = name_of(object);
        format!("{kind} {name}, of {}", text(owner, "/name"))
    });
    hold(record, OWNED, true, broken)
}

fn waits_for_dependents(owner: &Value) -> bool {
    let finalizers = owner["metadata"]["finalizers"].as_array();
    let mut finalizers = finalizers.into_iter().flatten();
    is_deleting(owner) && finalizers.any(|one| one == "foregroundDeletion")
}

fn namespaces_hold(
    record: &mut Record,
    kind: &str,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Held {
    match (kind, before, after) {
        ("Namespace", Some(gone), None) => {
            let name = name_of(gone);
            let left = record
                .everything()
                .find(|(_, key, _)| &*key.namespace == name)
                .map(|(kind, key, _)| format!("{kind} {key} is left"));
            hold(record, NAMESPACE, true, left)
        }
        (_, None, Some(new)) => {
            let namespace = text(new, "/metadata/namespace");
            if namespace.is_empty() {
                return Ok(());
            }
            let found = record.get("Namespace", &weft_controllers::Key::cluster(namespace));
            let broken = found.is_none().then(|| format!("{kind} {}", key_of(new)));
            hold(record, NAMESPACE, true, broken)
        }
        _ => Ok(()),
    }
}

fn sets_fit(record: &mut Record, before: Option<&Value>, after: Option<&Value>) -> Held {
    let Some(after) = after else { return Ok(()) };
    let grown = number(after, "/spec/replicas")
        - before.map_or(0, |before| number(before, "/spec/replicas"));
    let Some(owner) = controller(after).filter(|_| grown > 0) else {
        return Ok(());
    };
    // Sets of a Rollout have rules of their own.
    let ledger = record.ledgers.get(owner);
    let Some(ledger) = ledger.filter(|ledger| !ledger.asked.is_empty()) else {
        return Ok(());
    };
    let (most, strictly) = (ledger.most(), ledger.asked.len() == 1);
    let sizes = record
        .sets_of(owner)
        .map(|set| number(set, "/spec/replicas"));
    let sizes: i64 = sizes.sum();
    let broken = (sizes > most).then(|| {
        format!(
            "{} makes it {sizes} pods, of {most} at most",
            name_of(after)
        )
    });
    hold(record, SURGE, strictly, broken)
}

fn binding_stands(record: &mut Record, before: Option<&Value>, after: Option<&Value>) -> Held {
    let Some(after) = after else { return Ok(()) };
    let node = node_of(after).to_owned();
    let was = before.filter(|before| uid_of(before) == uid_of(after));
    let was = was.map(node_of).unwrap_or_default();
    if was == node {
        return Ok(());
    }
    let name = name_of(after);
    let broken = (!was.is_empty()).then(|| format!("{name} was on {was}, and is on {node}"));
    hold(record, BOUND_ONCE, true, broken)?;
    let Some(room) = record.get("Node", &weft_controllers::Key::cluster(&node)) else {
        return Ok(());
    };
    let room = (
        millis(text(room, "/status/allocatable/cpu")),
        text(room, "/status/allocatable/pods")
            .parse::<i64>()
            .unwrap_or(0),
    );
    let there = record.pods().filter(|pod| node_of(pod) == node);
    let there = there.filter(|pod| !super::record::is_finished(pod));
    let taken = there.fold((0, 0), |(cpu, pods), pod| (cpu + cpu_of(pod), pods + 1));
    let broken = (taken.0 > room.0 || taken.1 > room.1)
        .then(|| format!("{name} makes it {taken:?} on {node}, of {room:?} in all"));
    hold(record, ROOM, true, broken)
}

/// Whether there was room for a new pod among its like.
fn pod_is_wanted(record: &mut Record, pod: &Value) -> Held {
    let Some(owner) = controller(pod).and_then(|uid| record.by_uid(uid)) else {
        return Ok(());
    };
    let uid = uid_of(owner).to_owned();
    let kind = text(owner, "/kind").to_owned();
    let Some(ledger) = record.ledgers.get(&uid) else {
        return Ok(());
    };
    let (most, strictly) = (ledger.most(), ledger.asked.len() == 1);
    let live: Vec<&Value> = record.pods_of(&uid).filter(|pod| is_live(pod)).collect();
    let there = i64::try_from(live.len()).unwrap();
    let name = name_of(pod);
    let too_many = (there > most).then(|| format!("{name} is one of {there}, of {most} at most"));
    match kind.as_str() {
        "ReplicaSet" => hold(record, SET_SIZE, strictly, too_many),
        "Job" => {
            let indexes = live
                .iter()
                .filter_map(|pod| pod["metadata"]["annotations"][INDEX].as_str());
            let mut seen = BTreeSet::new();
            let twice = indexes.filter(|index| !seen.insert(*index)).count() > 0;
            let twice = twice.then(|| format!("{name} has another's index"));
            hold(record, JOB_SIZE, strictly, too_many.or(twice))
        }
        "StatefulSet" => {
            let ordinal: i64 = ordinal(name);
            let beyond = (ordinal >= most).then(|| format!("{name}, of {most}"));
            hold(record, ORDINAL, strictly, beyond)
        }
        "DaemonSet" => {
            let node = pinned(pod);
            let beside = live.iter().filter(|one| pinned(one) == node).count();
            let broken = (beside > 1).then(|| format!("{name} is one of {beside} on {node}"));
            hold(record, DAEMON_ONE, true, broken)
        }
        _ => Ok(()),
    }
}

pub fn ordinal(name: &str) -> i64 {
    let number = name.rsplit_once('-').and_then(|(_, end)| end.parse().ok());
    number.unwrap_or(0)
}

/// The node that a DaemonSet's pod is for.
pub fn pinned(pod: &Value) -> &str {
    text(pod, crate::world::PINNED)
}

/// A pod stopped serving: by whom, and who is left.
fn pod_is_missed(
    record: &mut Record,
    doer: Doer,
    before: Option<&Value>,
    after: Option<&Value>,
) -> Held {
    let Some(before) = before.filter(|before| serves(before)) else {
        return Ok(());
    };
    let stays = after.filter(|after| uid_of(after) == uid_of(before) && serves(after));
    let is_same = |after: &Value| {
        controller(after) == controller(before)
            && after["metadata"]["labels"] == before["metadata"]["labels"]
    };
    if stays.is_some_and(is_same) {
        return Ok(());
    }
    let taken = stays.is_none() && after.is_none_or(is_deleting);
    let owner = controller(before).and_then(|uid| record.by_uid(uid));
    if let Some(owner) = owner.cloned() {
        let by = taken.then_some(doer);
        workload_holds(record, by, &owner, before)?;
    }
    let budgets = record.all("PodDisruptionBudget").filter(|(key, budget)| {
        *key.namespace == *text(before, "/metadata/namespace") && selects(budget, before)
    });
    let budgets: Vec<Value> = budgets.map(|(_, budget)| budget.clone()).collect();
    for budget in budgets {
        let counts = taken && doer == Doer::Eviction;
        let left = selected(record, &budget, serves);
        let fewest = asked(record, "PodDisruptionBudget", &budget).map_or(0, |asked| asked.fewest);
        let ledger = record.ledgers.entry(uid_of(&budget).to_owned());
        let ledger = ledger.or_default();
        if !counts {
            ledger.hurt += 1;
            continue;
        }
        let (hurt, fewest) = (ledger.hurt, ledger.fewest().min(fewest));
        let broken = (left + hurt < fewest).then(|| {
            let name = name_of(before);
            format!("without {name} {left} serve of {fewest} that have to, and faults took {hurt}")
        });
        hold(record, BUDGET, hurt == 0, broken)?;
    }
    Ok(())
}

pub fn selects(budget: &Value, pod: &Value) -> bool {
    let wanted = budget["spec"]["selector"]["matchLabels"].as_object();
    let labels = &pod["metadata"]["labels"];
    let mut wanted = wanted.into_iter().flatten();
    wanted.all(|(label, value)| labels[label] == *value)
}

/// How many of the pods are so that a budget is for.
pub fn selected(record: &Record, budget: &Value, are: fn(&Value) -> bool) -> i64 {
    let namespace = text(budget, "/metadata/namespace");
    let pods = record.pods();
    let pods = pods.filter(|pod| text(pod, "/metadata/namespace") == namespace);
    count(pods.filter(|pod| selects(budget, pod)), are)
}

fn workload_holds(record: &mut Record, taken_by: Option<Doer>, owner: &Value, pod: &Value) -> Held {
    let name = name_of(pod);
    let (workload, rule, left, fewest) = match text(owner, "/kind") {
        "ReplicaSet" => {
            let Some(deployment) = controller(owner).and_then(|uid| record.by_uid(uid)) else {
                return Ok(());
            };
            let taken = taken_by == Some(Doer::Controller(REPLICA_SETS));
            let rule = (taken && !is_deleting(deployment) && !is_deleting(owner)).then_some(FLOOR);
            let uid = uid_of(deployment).to_owned();
            let left = count(record.pods_of_deployment(&uid), serves);
            let fewest = record.ledgers.get(&uid).map_or(0, |ledger| ledger.fewest());
            (uid, rule, left, fewest)
        }
        "DaemonSet" => {
            let uid = uid_of(owner).to_owned();
            let taken = taken_by == Some(Doer::Controller(DAEMON_SETS));
            let is_there = |node: &str| {
                let key = weft_controllers::Key::cluster(node);
                record
                    .get("Node", &key)
                    .is_some_and(|node| !is_deleting(node))
            };
            let rule =
                (taken && is_there(pinned(pod)) && !is_deleting(owner)).then_some(DAEMON_FLOOR);
            let left = count(record.pods_of(&uid), serves);
            // This one was there, too.
            let there = count(record.pods_of(&uid), is_live) + 1;
            let missing = record.ledgers.get(&uid);
            let missing =
                missing.and_then(|ledger| ledger.asked.iter().map(|one| one.fewest).max());
            (uid, rule, left, there - missing.unwrap_or(1))
        }
        "StatefulSet" => {
            let uid = uid_of(owner).to_owned();
            let taken = taken_by == Some(Doer::Controller(STATEFUL_SETS));
            let ledger = record.ledgers.get(&uid);
            let wanted = ledger.is_some_and(|ledger| ordinal(name) < ledger.smallest());
            let ordered = text(owner, "/spec/podManagementPolicy") != "Parallel";
            let rule = (taken && wanted && ordered && !is_deleting(owner)).then_some(ORDERED_FLOOR);
            let left = count(record.pods_of(&uid), serves);
            let there = count(record.pods_of(&uid), is_live) + 1;
            (uid, rule, left, there - 1)
        }
        _ => return Ok(()),
    };
    let ledger = record.ledgers.entry(workload).or_default();
    let Some(rule) = rule else {
        ledger.hurt += 1;
        return Ok(());
    };
    let hurt = ledger.hurt;
    let broken = (left + hurt < fewest).then(|| {
        format!("without {name} {left} serve of {fewest} that have to, and faults took {hurt}")
    });
    hold(record, rule, hurt == 0, broken)
}

/// The leader has heard of everything and has nothing under way: where all is well, nothing is left to excuse.
pub fn calm(record: &mut Record) {
    let whole: Vec<String> = record
        .ledgers
        .keys()
        .filter(|uid| {
            record
                .by_uid(uid)
                .is_some_and(|object| is_whole(record, object))
        })
        .cloned()
        .collect();
    for uid in whole {
        if let Some(ledger) = record.ledgers.get_mut(&uid) {
            ledger.hurt = 0;
            let last = ledger.asked.len().saturating_sub(1);
            ledger.asked.drain(..last);
        }
    }
}

/// As many serve as are asked for, and nothing of what was decided is still to be done.
fn is_whole(record: &Record, object: &Value) -> bool {
    let uid = uid_of(object);
    let seen = number(object, "/status/observedGeneration");
    if text(object, "/kind") != "Job" && seen != number(object, "/metadata/generation") {
        return false;
    }
    let size = number(object, "/spec/replicas");
    let all_serve = |pods: i64, serving: i64| pods == serving;
    match text(object, "/kind") {
        "Deployment" => {
            let done = |set: &Value| {
                let live = count(record.pods_of(uid_of(set)), is_live);
                live == number(set, "/spec/replicas")
            };
            record.sets_of(uid).all(done) && count(record.pods_of_deployment(uid), serves) >= size
        }
        "ReplicaSet" => count(record.pods_of(uid), is_live) == size,
        "StatefulSet" => count(record.pods_of(uid), serves) == size,
        "DaemonSet" => {
            let live = count(record.pods_of(uid), is_live);
            all_serve(live, count(record.pods_of(uid), serves))
        }
        "Job" => true,
        "PodDisruptionBudget" => {
            let serving = selected(record, object, serves);
            let disrupted = object["status"]["disruptedPods"].as_object();
            all_serve(selected(record, object, |_| true), serving)
                && number(object, "/status/currentHealthy") == serving
                && disrupted.is_none_or(serde_json::Map::is_empty)
        }
        _ => false,
    }
}

/// What the cluster would be if nothing had gone wrong; `Err`: what of it is not so yet.
pub fn converged(record: &Record) -> Held {
    let not_yet = |what: &str, object: &Value| Err(format!("{} {}", key_of(object), what));
    for (kind, _, object) in record.everything() {
        if is_deleting(object) {
            return not_yet(&format!("({kind}) is on its way out"), object);
        }
        let mut held = owners(object).map(|owner| record.by_uid(text(owner, "/uid")).is_some());
        if owners(object).next().is_some() && !held.any(|held| held) {
            return not_yet(&format!("({kind}) is left without an owner"), object);
        }
        let seen = number(object, "/status/observedGeneration");
        let is_seen = seen == number(object, "/metadata/generation");
        let uid = uid_of(object);
        let size = number(object, "/spec/replicas");
        match kind {
            "Node" => {
                let taints = object["spec"]["taints"].as_array();
                if !has_condition(object, "Ready", "True")
                    || taints.is_some_and(|all| !all.is_empty())
                {
                    return not_yet("(Node) is not well", object);
                }
            }
            "Pod" => pod_is_well(record, object)?,
            "Deployment" => {
                let status = ["replicas", "updatedReplicas", "availableReplicas"]
                    .map(|field| number(object, &format!("/status/{field}")));
                let waits = record
                    .pods_of_deployment(uid)
                    .any(|pod| node_of(pod).is_empty());
                if !is_seen || !waits && status != [size; 3] {
                    return not_yet(&format!("(Deployment) has {status:?} of {size}"), object);
                }
            }
            "StatefulSet" => {
                let status = ["replicas", "readyReplicas"]
                    .map(|field| number(object, &format!("/status/{field}")));
                let [old, new] = ["currentRevision", "updateRevision"]
                    .map(|field| text(object, &format!("/status/{field}")));
                let waits = record.pods_of(uid).any(|pod| node_of(pod).is_empty());
                if !is_seen || !waits && (status != [size; 2] || old != new) {
                    return not_yet(&format!("(StatefulSet) has {status:?} of {size}"), object);
                }
            }
            "DaemonSet" => {
                let nodes = i64::try_from(record.all("Node").count()).unwrap();
                let fields = [
                    "desiredNumberScheduled",
                    "numberReady",
                    "updatedNumberScheduled",
                ];
                let status = fields.map(|field| number(object, &format!("/status/{field}")));
                if !is_seen || status != [nodes; 3] {
                    return not_yet(&format!("(DaemonSet) has {status:?} of {nodes}"), object);
                }
            }
            "Job" => {
                let over = ["Complete", "Failed"]
                    .iter()
                    .any(|one| has_condition(object, one, "True"));
                let waits = record.pods_of(uid).any(|pod| node_of(pod).is_empty());
                if !over && !waits {
                    return not_yet("(Job) goes on", object);
                }
                let most = number(object, "/spec/completions");
                let counted = number(object, "/status/succeeded");
                if has_condition(object, "Complete", "True") && counted != most {
                    return not_yet(&format!("(Job) counts {counted} of {most}"), object);
                }
            }
            "PodDisruptionBudget" => {
                let healthy = number(object, "/status/currentHealthy");
                if !is_seen || healthy != selected(record, object, serves) {
                    return not_yet(&format!("(PodDisruptionBudget) counts {healthy}"), object);
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// A pod that was wanted serves, or fits nowhere, whoever less urgent made room.
fn pod_is_well(record: &Record, pod: &Value) -> Held {
    if super::record::is_finished(pod) || serves(pod) {
        return Ok(());
    }
    let not_well = |why: &str| Err(format!("{} (Pod) {why}", key_of(pod)));
    if !node_of(pod).is_empty() {
        return not_well("does not serve");
    }
    let urgency = number(pod, "/spec/priority");
    let fits = record.all("Node").any(|(key, node)| {
        let there = record.pods().filter(|one| node_of(one) == &*key.name);
        let there = there.filter(|one| !super::record::is_finished(one));
        let there = there.filter(|one| number(one, "/spec/priority") >= urgency);
        let taken: i64 = there.map(cpu_of).sum();
        taken + cpu_of(pod) <= millis(text(node, "/status/allocatable/cpu"))
    });
    match fits {
        true => not_well("has no node, and there is room"),
        false => Ok(()),
    }
}
