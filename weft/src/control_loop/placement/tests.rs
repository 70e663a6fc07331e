//! Placement over a view, with a time that is handed in: what each batch does, one line each.

use std::time::Duration;

use weft_api::Object;

use super::*;

/// Longer than any pause between two looks at a pod.
const PAUSE: Duration = Duration::from_secs(10);

/// A view with placement beside it, and a time that is handed in.
struct World {
    view: View,
    placement: Placement,
    now: Instant,
    revision: u64,
}

impl World {
    fn new() -> Self {
        let mut view = View::new([reads as fn(&mut Reads)]);
        view.set_synced(0);
        Self {
            view,
            placement: Placement::new(1),
            now: Instant::now(),
            revision: 0,
        }
    }

    fn put(&mut self, kind: weft_kinds::KindRef<'_>, mut value: Value) {
        self.revision += 1;
        value["metadata"]["uid"] = value["metadata"]["name"].clone();
        value["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        let object = Object::from_value(value).unwrap();
        let change = Change::Upsert(Arc::clone(kind), object);
        let touched = self.view.apply(change, Timestamp::UNIX_EPOCH).unwrap();
        self.placement.notice(&touched);
    }

    fn put_node(&mut self, name: &str, pods: &str) {
        self.put(
            &NODE,
            json!({"metadata": {"name": name}, "status": {"allocatable": {"pods": pods}}}),
        );
    }

    fn put_pod(&mut self, name: &str, spec: &Value, conditions: &Value) {
        self.put(
            &POD,
            json!({"metadata": {"name": name, "namespace": "d"}, "spec": spec,
                "status": {"phase": "Pending", "conditions": conditions}}),
        );
    }

    fn wait(&mut self, name: &str) {
        self.put_pod(name, &spec(), &json!([]));
    }

    fn plan(&mut self) -> Option<Batch> {
        self.placement
            .next_batch(self.now, Timestamp::UNIX_EPOCH, &self.view)
    }

    /// What the next batch does, one line each.
    fn next(&mut self) -> String {
        let Some(batch) = self.plan() else {
            return "nothing".to_owned();
        };
        let placed = batch.placements.iter();
        let placed = placed.map(|(chosen, _)| format!("{} -> {}", chosen.name, chosen.node));
        let told = batch.writes.iter().map(|write| match write {
            Write::Event(note) => format!("{} {}", note.about.key.name, note.reason),
            Write::Patch { key, patch, .. } => {
                let condition = &patch["status"]["conditions"][0];
                format!("{} is {}", key.name, condition["reason"].as_str().unwrap())
            }
            other => format!("{other:?}"),
        });
        let lines: Vec<String> = placed.chain(told).collect();
        lines.join(", ")
    }

    /// The last batch is carried out; these bindings are refused.
    fn finish(&mut self, refused: &[(&str, &str)]) {
        let refused = refused.iter().map(|(name, node)| Chosen {
            namespace: "d".into(),
            name: (*name).into(),
            uid: (*name).into(),
            node: (*node).into(),
        });
        let round = Round {
            changes: Vec::new(),
            refused: refused.collect(),
            failed: Vec::new(),
            in_doubt: false,
        };
        self.placement.finish_round(round, &self.view);
    }
}

fn spec() -> Value {
    json!({"containers": [{"name": "main", "image": "x:1"}]})
}

#[test]
fn room_is_given_away_once_and_comes_back_with_a_refused_binding() {
    let mut world = World::new();
    world.put_node("n", "1");
    world.wait("a");
    assert_eq!(world.next(), "a -> n");
    world.wait("b");
    assert_eq!(world.next(), "b is Unschedulable, b FailedScheduling");
    world.finish(&[]);
    world.finish(&[("a", "n")]);
    // Both wait for the room that is back: the one whose binding was refused, and whoever it had been refused to.
    assert_eq!(world.next(), "a -> n");
    world.finish(&[]);
    world.now += PAUSE;
    assert_eq!(world.next(), "", "it was told so a second ago");
    world.finish(&[]);
    // Bound and gone: what it took is free.
    let mut bound = spec();
    bound["nodeName"] = json!("n");
    world.put_pod("a", &bound, &json!([]));
    assert_eq!(world.next(), "nothing");
    world.put(
        &POD,
        json!({"metadata": {"name": "a", "namespace": "d"}, "spec": bound,
            "status": {"phase": "Succeeded"}}),
    );
    world.now += PAUSE;
    assert_eq!(world.next(), "b -> n");
}

#[test]
fn an_unchanged_refusal_is_told_again_after_a_while_only() {
    let mut world = World::new();
    world.put_node("n", "0");
    world.wait("a");
    assert_eq!(world.next(), "a is Unschedulable, a FailedScheduling");
    world.finish(&[]);
    assert_eq!(world.placement.next_due(), Some(world.now + FLUSH));
    // Something changes each second, and nothing for this pod.
    for number in 0..10 {
        world.put_node(&format!("full-{number}"), "0");
        world.now += PAUSE;
        let told = world.next();
        assert!(
            told.contains("FailedScheduling"),
            "another number of nodes: {told}"
        );
        world.finish(&[]);
    }
    world.put_node("full-0", "0");
    world.placement.changed |= Hints::NODE;
    world.now += PAUSE;
    assert_eq!(world.next(), "");
    world.finish(&[]);
    world.now += FLUSH;
    assert_eq!(world.next(), "a is Unschedulable, a FailedScheduling");
}

#[test]
fn pods_that_nobody_may_place_are_told_so_once() {
    let mut world = World::new();
    world.put_node("n", "9");
    let mut gated = spec();
    gated["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    let mut broken = spec();
    broken["priority"] = json!("high");
    let mut others = spec();
    others["schedulerName"] = json!("mine");
    world.put_pod("gated", &gated, &json!([]));
    world.put_pod("broken", &broken, &json!([]));
    world.put_pod("others", &others, &json!([]));
    assert_eq!(
        world.next(),
        "broken is SchedulerError, gated is SchedulingGated"
    );
    world.finish(&[]);
    // The same again, with what they were told.
    let said = json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates"}]);
    world.put_pod("gated", &gated, &said);
    assert_eq!(world.next(), "nothing");
    // The gate is lifted, the shape corrected.
    world.put_pod("gated", &spec(), &said);
    world.put_pod("broken", &spec(), &json!([]));
    assert_eq!(world.next(), "broken -> n, gated -> n");
}

#[test]
fn what_is_bound_and_cannot_be_read_any_more_keeps_its_room() {
    let mut world = World::new();
    world.put_node("n", "1");
    let mut bound = spec();
    bound["nodeName"] = json!("n");
    world.put_pod("a", &bound, &json!([]));
    bound["priority"] = json!("high");
    world.put_pod("a", &bound, &json!([]));
    bound["nodeName"] = json!(7);
    world.put_pod("a", &bound, &json!([]));
    world.wait("b");
    assert_eq!(world.next(), "b is Unschedulable, b FailedScheduling");
}

#[test]
fn a_batch_has_a_bound_and_the_rest_comes_next() {
    let mut world = World::new();
    world.put_node("n", "10000");
    for number in 0..BATCH + 1 {
        world.wait(&format!("p{number:04}"));
    }
    assert_eq!(world.next().split(", ").count(), BATCH);
    assert_eq!(world.next(), format!("p{BATCH:04} -> n"));
    // So have the batches under way.
    for _ in 2..ROUNDS_MAX {
        world.wait("more");
        assert_eq!(world.next(), "more -> n");
        world.placement.forget_pod("more");
    }
    world.wait("late");
    assert_eq!(world.next(), "nothing");
    world.finish(&[]);
    assert_eq!(world.next(), "late -> n");
}

#[test]
fn room_is_made_for_who_is_more_urgent() {
    let mut world = World::new();
    world.put_node("n", "1");
    let mut bound = spec();
    bound["nodeName"] = json!("n");
    world.put_pod("low", &bound, &json!([]));
    let mut urgent = spec();
    urgent["priority"] = json!(9);
    world.put_pod("high", &urgent, &json!([]));
    let batch = world.plan().unwrap();
    let Write::Patch { patch, .. } = &batch.writes[0] else {
        panic!("{:?}", batch.writes);
    };
    assert_eq!(patch["status"]["nominatedNodeName"], "n");
    let message = "0/1 nodes are available: 1 Too many pods. preemption: found a potential placement for pod on node n, preempting 1 victims";
    assert_eq!(patch["status"]["conditions"][0]["message"], message);
    let writes = &batch.evictions[0].writes[0];
    let [
        Write::Patch { key, patch, .. },
        Write::Delete {
            grace_seconds: None,
            note: Some(note),
            ..
        },
    ] = &writes[..]
    else {
        panic!("{writes:?}");
    };
    let condition = &patch["status"]["conditions"][0];
    assert_eq!(
        (&*key.name, condition["reason"].as_str()),
        ("low", Some("PreemptionByScheduler"))
    );
    assert_eq!(note.message, "Preempted by pod high on node n");
    world.finish(&[]);
    // The room is not for whoever comes first.
    world.wait("other");
    assert_eq!(
        world.next(),
        "other is Unschedulable, other FailedScheduling"
    );
    world.finish(&[]);
    world.put(
        &POD,
        json!({"metadata": {"name": "low", "namespace": "d"}, "spec": bound, "status": {"phase": "Failed"}}),
    );
    world.now += PAUSE;
    assert_eq!(world.next(), "high -> n");
    world.finish(&[]);
    // Somebody could not be made to go: the claim is none, and the pod is looked at anew.
    world.put_node("m", "1");
    bound["nodeName"] = json!("m");
    world.put_pod("low2", &bound, &json!([]));
    world.put_pod("high2", &urgent, &json!([]));
    let mut batch = world.plan().unwrap();
    let failed = batch.evictions.pop().unwrap().preemption;
    assert_eq!(world.placement.snapshot.nominated_node("high2"), Some("m"));
    let round = Round {
        changes: Vec::new(),
        refused: Vec::new(),
        failed: vec![failed],
        in_doubt: false,
    };
    world.placement.finish_round(round, &world.view);
    assert_eq!(world.placement.snapshot.nominated_node("high2"), None);
    world.put(
        &POD,
        json!({"metadata": {"name": "low2", "namespace": "d"}, "spec": bound, "status": {"phase": "Failed"}}),
    );
    assert!(world.next().contains("high2 -> m"));
}

#[test]
fn a_claim_for_one_pod_is_one_pods_at_a_time() {
    let mut world = World::new();
    world.put_node("n", "9");
    let claim = |mode: &str| {
        json!({
            "metadata": {"name": mode.to_lowercase(), "namespace": "d"},
            "spec": {"accessModes": [mode], "volumeName": "v"},
        })
    };
    let volume = json!({"metadata": {"name": "v"}, "spec": {}});
    world.put(&PERSISTENT_VOLUME, volume);
    let using = |mode: &str| {
        let mut using = spec();
        let claim = json!({"claimName": mode.to_lowercase()});
        using["volumes"] = json!([{"name": "v", "persistentVolumeClaim": claim}]);
        using
    };
    const ALONE: &str = "ReadWriteOncePod";
    const SHARED: &str = "ReadWriteOnce";
    for mode in [ALONE, SHARED] {
        world.put(&PERSISTENT_VOLUME_CLAIM, claim(mode));
    }
    // Of one batch, too.
    world.put_pod("a", &using(ALONE), &json!([]));
    world.put_pod("b", &using(ALONE), &json!([]));
    world.put_pod("c", &using(SHARED), &json!([]));
    world.put_pod("d", &using(SHARED), &json!([]));
    let batch = world
        .placement
        .next_batch(world.now, Timestamp::UNIX_EPOCH, &world.view)
        .unwrap();
    let placed: Vec<&str> = batch
        .placements
        .iter()
        .map(|(chosen, _)| &*chosen.name)
        .collect();
    assert_eq!(placed, ["a", "c", "d"]);
    let told = batch.writes.iter().find_map(|write| match write {
        Write::Event(note) => Some(note.message.as_str()),
        _ => None,
    });
    assert_eq!(
        told,
        Some(
            "0/1 nodes are available: 1 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
        )
    );
    world.finish(&[]);
    // Its binding was written, and it has not ended.
    let mut bound = using(ALONE);
    bound["nodeName"] = json!("n");
    world.put_pod("a", &bound, &json!([]));
    world.now += FLUSH;
    assert!(world.next().contains("b FailedScheduling"));
    world.finish(&[]);
    world.put(
        &POD,
        json!({"metadata": {"name": "a", "namespace": "d"}, "spec": bound,
            "status": {"phase": "Succeeded"}}),
    );
    world.now += PAUSE;
    assert_eq!(world.next(), "b -> n");
}

#[test]
fn a_more_urgent_pod_has_the_user_of_its_claim_go() {
    let mut world = World::new();
    for name in ["m", "n"] {
        world.put_node(name, "9");
    }
    let claim = json!({
        "metadata": {"name": "data", "namespace": "d"},
        "spec": {"accessModes": ["ReadWriteOncePod"], "volumeName": "v"},
    });
    world.put(&PERSISTENT_VOLUME_CLAIM, claim);
    let volume = json!({"metadata": {"name": "v"}, "spec": {}});
    world.put(&PERSISTENT_VOLUME, volume);
    let using = |priority: i32| {
        let mut using = spec();
        using["priority"] = json!(priority);
        let claim = json!({"claimName": "data"});
        using["volumes"] = json!([{"name": "v", "persistentVolumeClaim": claim}]);
        using
    };
    let mut bound = using(0);
    bound["nodeName"] = json!("m");
    world.put_pod("low", &bound, &json!([]));
    world.put_pod("high", &using(9), &json!([]));
    let batch = world.plan().unwrap();
    let preemption = &batch.evictions[0].preemption;
    assert_eq!(
        (&*preemption.node, &*preemption.victims[0].name),
        ("m", "low")
    );
    world.finish(&[]);
    world.put(
        &POD,
        json!({"metadata": {"name": "low", "namespace": "d"}, "spec": bound, "status": {"phase": "Failed"}}),
    );
    world.now += PAUSE;
    assert_eq!(world.next(), "high -> m");
}

#[test]
fn a_class_that_comes_late_wakes_who_waits_for_it() {
    let mut world = World::new();
    world.put_node("n", "9");
    let claim = json!({
        "metadata": {"name": "data", "namespace": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "late"},
    });
    world.put(&PERSISTENT_VOLUME_CLAIM, claim);
    let mut using = spec();
    let claim = json!({"claimName": "data"});
    using["volumes"] = json!([{"name": "v", "persistentVolumeClaim": claim}]);
    world.put_pod("a", &using, &json!([]));
    let batch = world.plan().unwrap();
    let told = batch.writes.iter().find_map(|write| match write {
        Write::Event(note) => Some(note.message.as_str()),
        _ => None,
    });
    assert_eq!(
        told,
        Some(
            "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
    );
    world.finish(&[]);
    world.now += PAUSE;
    assert_eq!(world.next(), "nothing");
    let class = json!({"metadata": {"name": "late"}, "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer"});
    world.put(&STORAGE_CLASS, class);
    assert_eq!(world.next(), "a -> n");
}
