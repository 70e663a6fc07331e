//! Rules about other pods and about nodes: upstream's cases, as tables of where one more pod may go.

use serde_json::{Value, json};
use weft_api::view::{Namespace, Pod, Service};

use super::node;
use crate::{ClaimFacts, NodeFacts, PodFacts, Snapshot, Storage, VolumeFacts, VolumeNeeds};

/// A pod of a spec with labels, in a namespace.
fn pod_of(name: &str, namespace: &str, labels: &Value, mut spec: Value) -> PodFacts {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "main", "image": "x:1"}]);
    }
    let pod = json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels}, "spec": spec});
    let pod: Pod = serde_json::from_value(pod).unwrap();
    PodFacts::of(&pod)
}

/// Nodes `a` and `b` in zone 1, `x` and `y` in zone 2.
fn zones() -> Snapshot {
    let mut snapshot = Snapshot::new(7);
    for (name, zone) in [
        ("a", "label=zone:1"),
        ("b", "label=zone:1"),
        ("x", "label=zone:2"),
        ("y", "label=zone:2"),
    ] {
        snapshot.put_node(node(name, &[zone]));
    }
    snapshot
}

/// The nodes that would take the pod.
fn open(snapshot: &mut Snapshot, pod: &PodFacts) -> String {
    let explained = snapshot.explain(pod).into_iter();
    let open = explained.filter(|(_, reasons)| reasons.is_empty());
    open.map(|(name, _)| name.to_string()).collect()
}

fn on(node: &str, labels: &Value, number: usize) -> PodFacts {
    pod_of(
        &format!("there-{number}"),
        "default",
        labels,
        json!({"nodeName": node}),
    )
}

#[test]
fn hard_spread_constraints() {
    let foo = json!({"foo": "1"});
    let constraint = |extra: Value| {
        let mut whole = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"foo": "1"}}});
        for (key, value) in extra.as_object().unwrap() {
            whole[key] = value.clone();
        }
        whole
    };
    // Where pods are, the constraints, where one more may go.
    for (there, constraints, expected) in [
        ("", json!([constraint(json!({}))]), "abxy"),
        ("a", json!([constraint(json!({}))]), "xy"),
        ("ax", json!([constraint(json!({}))]), "abxy"),
        ("abx", json!([constraint(json!({}))]), "xy"),
        ("ab", json!([constraint(json!({"maxSkew": 3}))]), "abxy"),
        // Fewer domains than asked for: the least is none.
        ("ax", json!([constraint(json!({"minDomains": 3}))]), ""),
        ("", json!([constraint(json!({"minDomains": 3}))]), "abxy"),
        // By node.
        (
            "axy",
            json!([constraint(json!({"topologyKey": "kubernetes.io/hostname"}))]),
            "b",
        ),
        // Both.
        (
            "ax",
            json!([
                constraint(json!({})),
                constraint(json!({"topologyKey": "kubernetes.io/hostname"}))
            ]),
            "by",
        ),
        // No node has the label.
        ("", json!([constraint(json!({"topologyKey": "rack"}))]), ""),
        // A pod that does not count itself.
        (
            "a",
            json!([constraint(
                json!({"labelSelector": {"matchLabels": {"foo": "1"}, "matchExpressions":
            [{"key": "bar", "operator": "DoesNotExist"}]}})
            )]),
            "xy",
        ),
        // Nothing is selected: no skew.
        (
            "ab",
            json!([constraint(json!({"labelSelector": null}))]),
            "abxy",
        ),
        // Soft ones refuse nobody.
        (
            "aab",
            json!([constraint(json!({"whenUnsatisfiable": "ScheduleAnyway"}))]),
            "abxy",
        ),
    ] {
        let mut snapshot = zones();
        for (number, node) in there.chars().enumerate() {
            snapshot.put_pod(on(&node.to_string(), &foo, number));
        }
        let pod = pod_of(
            "new",
            "default",
            &foo,
            json!({"topologySpreadConstraints": constraints}),
        );
        assert_eq!(open(&mut snapshot, &pod), expected, "{there} {constraints}");
    }
}

#[test]
fn who_counts_for_spreading() {
    let foo = json!({"foo": "1", "hash": "new"});
    let spread = |extra: Value| {
        let mut spec = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"foo": "1"}}}]});
        for (key, value) in extra.as_object().unwrap() {
            if key == "nodeSelector" {
                spec[key] = value.clone();
            } else {
                spec["topologySpreadConstraints"][0][key] = value.clone();
            }
        }
        pod_of("new", "default", &foo, spec)
    };
    let mut snapshot = zones();
    // Of another namespace, of an earlier template, on its way out.
    snapshot.put_pod(pod_of("other", "else", &foo, json!({"nodeName": "x"})));
    snapshot.put_pod(pod_of(
        "old",
        "default",
        &json!({"foo": "1", "hash": "old"}),
        json!({"nodeName": "a"}),
    ));
    let ending = PodFacts {
        ending: true,
        ..pod_of("ending", "default", &foo, json!({"nodeName": "a"}))
    };
    snapshot.put_pod(ending);
    assert_eq!(open(&mut snapshot, &spread(json!({}))), "xy");
    assert_eq!(
        open(&mut snapshot, &spread(json!({"matchLabelKeys": ["hash"]}))),
        "abxy"
    );
    // A zone that the pod may not go to is none.
    snapshot.put_node(node("z", &["label=zone:3", "label=disk:hdd"]));
    snapshot.put_node(node("a", &["label=zone:1", "label=disk:ssd"]));
    snapshot.put_node(node("x", &["label=zone:2", "label=disk:ssd"]));
    snapshot.put_pod(on("x", &foo, 0));
    assert_eq!(open(&mut snapshot, &spread(json!({}))), "z");
    let ssd = json!({"disk": "ssd"});
    assert_eq!(
        open(&mut snapshot, &spread(json!({"nodeSelector": ssd}))),
        "ax"
    );
    assert_eq!(
        open(
            &mut snapshot,
            &spread(json!({"nodeSelector": ssd, "nodeAffinityPolicy": "Ignore"}))
        ),
        ""
    );
    // Nor is one whose taints it does not bear, if that is to count.
    snapshot.put_node(node("z", &["label=zone:3", "taint=k:v:NoSchedule"]));
    assert_eq!(open(&mut snapshot, &spread(json!({}))), "");
    assert_eq!(
        open(&mut snapshot, &spread(json!({"nodeTaintsPolicy": "Honor"}))),
        "abxy"
    );
}

#[test]
fn affinity_and_its_namespaces() {
    let term = |extra: Value| {
        let mut term =
            json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"db": "yes"}}});
        for (key, value) in extra.as_object().unwrap() {
            term[key] = value.clone();
        }
        term
    };
    let near = |terms: Value| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    let apart = |terms: Value| json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}});
    for (spec, expected) in [
        (near(json!([term(json!({}))])), "ab"),
        (
            near(json!([term(
                json!({"topologyKey": "kubernetes.io/hostname"})
            )])),
            "a",
        ),
        (apart(json!([term(json!({}))])), "xy"),
        (
            apart(json!([term(
                json!({"topologyKey": "kubernetes.io/hostname"})
            )])),
            "bxy",
        ),
        // One pod has to be what all terms speak of.
        (
            near(json!([
                term(json!({})),
                term(json!({"labelSelector": {"matchLabels": {"db": "no"}}}))
            ])),
            "",
        ),
        (
            near(json!([
                term(json!({})),
                term(json!({"topologyKey": "kubernetes.io/hostname"}))
            ])),
            "a",
        ),
        // Of other namespaces, by name, by label, all of them.
        (near(json!([term(json!({"namespaces": ["team"]}))])), "xy"),
        (
            near(json!([term(
                json!({"namespaceSelector": {"matchLabels": {"kind": "team"}}})
            )])),
            "xy",
        ),
        (
            near(json!([term(
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "bare"}}})
            )])),
            "xy",
        ),
        (apart(json!([term(json!({"namespaceSelector": {}}))])), ""),
        (
            near(json!([term(
                json!({"namespaceSelector": {}, "namespaces": []})
            )])),
            "abxy",
        ),
        // The pod's own values, or others.
        (
            near(json!([term(json!({"matchLabelKeys": ["hash"]}))])),
            "ab",
        ),
        (
            near(json!([term(json!({"mismatchLabelKeys": ["hash"]}))])),
            "",
        ),
        // There is nobody of its kind yet: it is the first; but where the label is.
        (
            near(json!([term(
                json!({"labelSelector": {"matchLabels": {"app": "new"}}})
            )])),
            "abxy",
        ),
        (
            near(json!([term(
                json!({"labelSelector": {"matchLabels": {"app": "new"}}, "topologyKey": "rack"})
            )])),
            "",
        ),
        (
            near(json!([term(
                json!({"labelSelector": {"matchLabels": {"app": "other"}}})
            )])),
            "",
        ),
    ] {
        let mut snapshot = zones();
        let team = json!({"metadata": {"name": "team", "labels": {"kind": "team"}}});
        let team: Namespace = serde_json::from_value(team).unwrap();
        snapshot.put_namespace(&team);
        let db = json!({"db": "yes", "hash": "1"});
        snapshot.put_pod(pod_of("here", "default", &db, json!({"nodeName": "a"})));
        snapshot.put_pod(pod_of("team", "team", &db, json!({"nodeName": "x"})));
        snapshot.put_pod(pod_of("bare", "bare", &db, json!({"nodeName": "y"})));
        let labels = json!({"app": "new", "hash": "1"});
        let pod = pod_of("new", "default", &labels, spec.clone());
        assert_eq!(open(&mut snapshot, &pod), expected, "{spec}");
    }
}

#[test]
fn anti_affinity_holds_both_ways_and_ends_with_the_pod() {
    let mut snapshot = zones();
    let apart = json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "new"}}, "namespaceSelector": {"matchLabels": {"kind": "team"}}}]}},
        "nodeName": "a"});
    let pod = pod_of("new", "team", &json!({"app": "new"}), json!({}));
    assert_eq!(open(&mut snapshot, &pod), "abxy");
    snapshot.put_pod(pod_of("hermit", "default", &json!({}), apart));
    assert_eq!(open(&mut snapshot, &pod), "abxy");
    // The namespace gets the label that the term selects by, and loses it.
    let namespace = |labels: Value| -> Namespace {
        serde_json::from_value(json!({"metadata": {"name": "team", "labels": labels}})).unwrap()
    };
    snapshot.put_namespace(&namespace(json!({"kind": "team"})));
    assert_eq!(open(&mut snapshot, &pod), "xy");
    snapshot.put_node(node("a", &["label=zone:2"]));
    assert_eq!(open(&mut snapshot, &pod), "b");
    snapshot.put_namespace(&namespace(json!({})));
    assert_eq!(open(&mut snapshot, &pod), "abxy");
    snapshot.put_namespace(&namespace(json!({"kind": "team"})));
    snapshot.remove_pod("hermit");
    assert_eq!(open(&mut snapshot, &pod), "abxy");
}

/// Where each of some pods goes, one after the other.
fn places(snapshot: &mut Snapshot, pods: &[PodFacts]) -> String {
    let plan = snapshot.plan(pods);
    let nodes = plan
        .placements
        .iter()
        .map(|placement| placement.node.to_string());
    nodes.collect()
}

#[test]
fn what_is_preferred() {
    let weighted = |sign: &str| {
        let term = json!([{"weight": 10, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"db": "yes"}}}}]);
        json!({"affinity": {sign: {"preferredDuringSchedulingIgnoredDuringExecution": term}}})
    };
    for (spec, zone) in [
        (weighted("podAffinity"), "ab"),
        (weighted("podAntiAffinity"), "xy"),
    ] {
        let mut snapshot = zones();
        snapshot.put_pod(on("a", &json!({"db": "yes"}), 0));
        let went = places(
            &mut snapshot,
            &[pod_of("new", "default", &json!({}), spec.clone())],
        );
        assert!(zone.contains(&went), "{spec} {went}");
    }
    // A pod that is there may prefer it, too.
    let mut snapshot = zones();
    let mut spec = weighted("podAntiAffinity");
    spec["nodeName"] = json!("a");
    snapshot.put_pod(pod_of("there", "default", &json!({}), spec));
    let went = places(
        &mut snapshot,
        &[pod_of("new", "default", &json!({"db": "yes"}), json!({}))],
    );
    assert!("xy".contains(&went), "{went}");
    // Images that most nodes have are worth going to.
    let mut snapshot = Snapshot::new(3);
    for name in ["a", "b", "c"] {
        let mut facts = node(name, &[]);
        if name != "b" {
            facts.images.insert("big:1".into(), 800 << 20);
        }
        snapshot.put_node(facts);
    }
    let spec = json!({"containers": [{"name": "main", "image": "big:1"}]});
    let went = places(&mut snapshot, &[pod_of("new", "default", &json!({}), spec)]);
    assert!("ac".contains(&went), "{went}");
}

#[test]
fn pods_behind_a_service_are_spread_over_zones() {
    let service = json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}});
    let service: Service = serde_json::from_value(service).unwrap();
    let pods: Vec<PodFacts> = (0..4)
        .map(|number| {
            pod_of(
                &format!("web-{number}"),
                "default",
                &json!({"app": "web"}),
                json!({}),
            )
        })
        .collect();
    for seed in 0..16 {
        let mut snapshot = Snapshot::new(seed);
        for (name, zone) in [("a", "1"), ("b", "1"), ("x", "2"), ("y", "2")] {
            let zone = format!("label=topology.kubernetes.io/zone:{zone}");
            snapshot.put_node(node(name, &[&zone]));
        }
        snapshot.put_service(&service);
        let went = places(&mut snapshot, &pods);
        let first: Vec<bool> = went
            .chars()
            .take(2)
            .map(|node| "ab".contains(node))
            .collect();
        assert_ne!(first[0], first[1], "WEFT_SEED={seed} {went}");
        let mut all: Vec<char> = went.chars().collect();
        all.sort_unstable();
        assert_eq!(all.iter().collect::<String>(), "abxy", "WEFT_SEED={seed}");
    }
}

#[test]
fn one_of_many_nodes_is_found_however_it_is_looked_for() {
    // Rare pods look at nodes until enough take them, frequent ones have them in order: neither misses the last one.
    for count in [1, 99, 100, 101, 350] {
        let mut snapshot = Snapshot::new(5);
        for number in 0..count {
            let label = if number == count / 2 {
                "label=only:this"
            } else {
                "label=only:no"
            };
            snapshot.put_node(node(&format!("n{number}"), &[label]));
        }
        let spec = json!({"nodeSelector": {"only": "this"}});
        let wanted = format!("n{}", count / 2);
        for number in 0..20 {
            let pod = pod_of(&format!("p{number}"), "default", &json!({}), spec.clone());
            assert_eq!(places(&mut snapshot, &[pod]), wanted, "{count}");
        }
        let field = json!([{"key": "metadata.name", "operator": "In", "values": [wanted]}]);
        let spec = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchFields": field}]}}}});
        let pod = pod_of("pinned", "default", &json!({}), spec);
        assert_eq!(places(&mut snapshot, &[pod]), wanted, "{count}");
    }
}

#[test]
fn nodes_have_to_declare_what_not_all_can_do() {
    let restarts = json!({"containers": [{"name": "main", "restartPolicy": "Never", "restartPolicyRules": [
        {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]}]});
    let mut once = restarts.clone();
    once["containers"][0]["restartPolicyRules"][0]["action"] = json!("Restart");
    let network = json!({"hostNetwork": true, "hostUsers": false});
    for (spec, expected) in [
        (json!({}), "abc"),
        (once, "abc"),
        (restarts, "b"),
        (network, "c"),
        (json!({"hostNetwork": true, "hostUsers": true}), "abc"),
        (json!({"hostUsers": false}), "abc"),
    ] {
        let mut snapshot = Snapshot::new(0);
        for (name, features) in [
            ("a", json!([])),
            (
                "b",
                json!(["RestartAllContainersOnContainerExits", "Other"]),
            ),
            ("c", json!(["UserNamespacesHostNetworkSupport"])),
        ] {
            let node =
                json!({"metadata": {"name": name}, "status": {"declaredFeatures": features}});
            snapshot.put_node(NodeFacts::of(&serde_json::from_value(node).unwrap()));
        }
        let pod = pod_of("new", "default", &json!({}), spec.clone());
        assert_eq!(open(&mut snapshot, &pod), expected, "{spec}");
        if expected == "b" {
            let reasons = &snapshot.explain(&pod)["a"];
            let text = reasons[0].to_string();
            assert_eq!(text, "node(s) didn't match Pod's required features");
        }
    }
}

#[test]
fn a_pod_that_claims_devices_waits_for_somebody_who_allocates_them() {
    let claims = json!([{"name": "gpu", "resourceClaimName": "mine"}]);
    let spec = json!({"resourceClaims": claims});
    let refused = zones()
        .plan(&[pod_of("new", "default", &json!({}), spec)])
        .refusals;
    assert_eq!(
        refused[0].to_string(),
        "0/4 nodes are available: 4 cannot allocate all claims. preemption: 0/4 nodes are available: 4 Preemption is not helpful for scheduling."
    );
}

/// A claim for one pod alone, of a volume that is on `a` and `b`.
#[derive(Default)]
struct Shelf {
    labels: std::collections::BTreeMap<String, String>,
    claim: Value,
    volume: Value,
}

impl Storage for Shelf {
    fn claim(&self, name: &str) -> Option<ClaimFacts<'_>> {
        (name == "data").then_some(ClaimFacts {
            spec: &self.claim,
            is_deleting: false,
        })
    }

    fn volume(&self, _: &str) -> Option<VolumeFacts<'_>> {
        Some(VolumeFacts {
            spec: &self.volume,
            labels: &self.labels,
        })
    }

    fn waits(&self, _: &str) -> bool {
        false
    }
}

#[test]
fn a_claim_for_one_pod_alone_keeps_others_from_every_node_while_it_is_used() {
    let shelf = Shelf {
        claim: json!({"accessModes": ["ReadWriteOncePod"], "volumeName": "pv"}),
        volume: json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["1"]}]}]}}}),
        ..Shelf::default()
    };
    let using = |name: &str, priority: i32, node: Option<&str>| {
        let mut spec = json!({"priority": priority,
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]});
        if let Some(node) = node {
            spec["nodeName"] = json!(node);
        }
        let mut pod = pod_of(name, "default", &json!({}), spec);
        let needs = VolumeNeeds::of([("data", false)].into_iter(), &shelf).unwrap();
        pod.needs = pod.needs.with_volumes(needs).into();
        pod
    };
    let mut snapshot = zones();
    assert_eq!(open(&mut snapshot, &using("first", 0, None)), "ab");
    // Of a batch only one gets it; before all else it is told that the claim is taken.
    let batch = [using("first", 0, None), using("second", 0, None)];
    let plan = snapshot.plan(&batch);
    let user = plan.placements[0].node.clone();
    assert!("ab".contains(&*user), "{user}");
    assert_eq!(
        plan.refusals[0].to_string(),
        "0/4 nodes are available: 4 node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod. preemption: 0/4 nodes are available: 4 No preemption victims found for incoming pod."
    );
    // Who is more urgent has the user go, and nobody else helps.
    let plan = snapshot.plan(&[using("urgent", 9, None)]);
    let preemption = &plan.preemptions[0];
    assert_eq!((&preemption.node, preemption.victims.len()), (&user, 1));
    assert_eq!(&*preemption.victims[0].name, "first");
    snapshot.remove_pod("first");
    let urgent = PodFacts {
        nominated: Some(user.clone()),
        ..using("urgent", 9, None)
    };
    assert_eq!(places(&mut snapshot, &[urgent]), *user);
    // Of another namespace it is another claim.
    let mut elsewhere = using("third", 0, None);
    elsewhere.namespace = "other".into();
    assert_eq!(open(&mut snapshot, &elsewhere), "ab");
    snapshot.remove_pod("urgent");
    assert!(snapshot.claims.is_empty());
}
