//! One small situation each: what is there, what is written.

use serde_json::{Value, json};
use weft_controllers::write::Propagation;
use weft_kinds::{
    CAPABILITY_GRANT, CLUSTER_ROLE, CONFIG_MAP, DEPLOYMENT, EVENT, KEY_VALUE_STORE, NODE,
    REPLICA_SET, SECRET, SERVICE_ACCOUNT,
};

use crate::manifests::{deployment, node_object};
use crate::world::World;

#[test]
fn pods_that_are_refused_show_in_the_conditions_until_they_are_not() {
    let mut world = World::still();
    let mut object = deployment("web", 2, "x:1");
    object["spec"]["template"]["spec"]["serviceAccountName"] = json!("web");
    world.create(&DEPLOYMENT, object);
    world.settle();
    // The first refusal ends the list before the status; the next look, a second later, tells first.
    world.pass_time(1);
    world.settle();
    let failure = |world: &World, kind, name: &str| {
        let conditions = world.get(kind, name)["status"]["conditions"].clone();
        let conditions = conditions.as_array().cloned().unwrap_or_default();
        let found = conditions
            .into_iter()
            .find(|c| c["type"] == "ReplicaFailure");
        found.map(|c| format!("{} {} {}", c["status"], c["reason"], c["message"]))
    };
    let set = world.names(&REPLICA_SET)[0].clone();
    let told = failure(&world, &REPLICA_SET, &set).unwrap();
    assert!(
        told.starts_with(r#""True" "FailedCreate" "pods "#),
        "{told}"
    );
    let why = r#"is forbidden: error looking up service account default/web: serviceaccount \"web\" not found"#;
    assert!(told.contains(why), "{told}");
    assert_eq!(failure(&world, &DEPLOYMENT, "web"), Some(told));
    assert!(
        world
            .tell()
            .contains("event FailedCreate Error creating: pods ")
    );
    let status = &world.get(&REPLICA_SET, &set)["status"];
    assert_eq!(status["observedGeneration"], 1);

    let account = json!({"metadata": {"name": "web", "namespace": "default"}});
    world.create(&SERVICE_ACCOUNT, account);
    world.pass_time(1);
    world.settle();
    assert_eq!(world.live_pods(), 2);
    assert_eq!(failure(&world, &REPLICA_SET, &set), None);
    assert_eq!(failure(&world, &DEPLOYMENT, "web"), None);
}

#[test]
fn nodes_get_distinct_ranges() {
    let mut world = World::still();
    let range = |cidr: &str| json!({"podCIDR": cidr, "podCIDRs": [cidr]});
    for name in ["a", "b", "c", "d"] {
        let mut node = node_object(name);
        node["spec"] = match name {
            // From a version that gave each node 253 addresses: it stays as it is.
            "b" => range("10.42.0.0/24"),
            // Asked for with --pod-cidr, inside of what would be the second range.
            "c" => range("10.128.200.0/22"),
            _ => json!({}),
        };
        world.create(&NODE, node);
    }
    world.settle();
    let ranges: Vec<&Value> = world
        .all(&NODE)
        .into_iter()
        .map(|n| &n["spec"]["podCIDR"])
        .collect();
    assert_eq!(
        ranges,
        [
            "10.128.0.0/17",
            "10.42.0.0/24",
            "10.128.200.0/22",
            "10.129.0.0/17"
        ]
    );
}

#[test]
fn events_end_an_hour_after_they_were_written() {
    let mut world = World::still();
    let event = |name: &str, time: &str| {
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "involvedObject": {"namespace": "default"}, "lastTimestamp": time,
        })
    };
    // Clocks of those who tell may be wrong.
    world.create(&EVENT, event("a", "2000-01-01T00:00:00Z"));
    world.create(&EVENT, event("b", "2099-01-01T00:00:00Z"));
    world.seed_controllers();
    world.settle();
    let mut left = Vec::new();
    let mut after = |world: &mut World, minutes: i64| {
        world.pass_time(minutes * 60);
        world.settle();
        left.push(world.all(&EVENT).len());
    };
    after(&mut world, 31);
    world.patch(&EVENT, "b", json!({"count": 2}));
    world.settle();
    after(&mut world, 30);
    // It was told again half an hour ago.
    after(&mut world, 29);
    after(&mut world, 2);
    world.create(&EVENT, event("c", "2099-01-01T00:00:00Z"));
    after(&mut world, 50);
    // A leader that finds one there knows what it says, and no more.
    world.change_leader();
    after(&mut world, 1);
    after(&mut world, 60);
    assert_eq!(left, [2, 1, 1, 0, 1, 1, 0]);
}

/// What a grant refers to may come and go after it.
#[test]
fn a_grant_tells_what_it_refers_to_and_is_not_there() {
    let mut world = World::still();
    world.seed_controllers();
    let named = |name: &str| json!({"metadata": {"name": name, "namespace": "default"}});
    world.create(
        &CAPABILITY_GRANT,
        json!({
            "metadata": {"name": "cart", "namespace": "default"},
            "spec": {
                "serviceAccountNames": ["default", "cart"],
                "config": [
                    {"configMapRef": {"name": "settings"}},
                    {"secretRef": {"name": "key"}},
                    {"secretRef": {"name": "spare", "optional": true}},
                ],
                "keyValue": [{"store": "carts"}],
            },
        }),
    );
    let told = |world: &World| {
        let grant = world.get(&CAPABILITY_GRANT, "cart");
        let condition = &grant["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let missing = text("message").replace(". ", ".\n").replace("} ", "}\n");
        let missing = missing.lines().map(|line| {
            let (what, _) = line.split_once(" does not").unwrap_or((line, ""));
            what.to_owned()
        });
        let missing = missing.collect::<Vec<_>>().join(", ");
        let [kind, status, reason, since] =
            ["type", "status", "reason", "lastTransitionTime"].map(text);
        format!("{kind}={status} {reason} since {since}: {missing}")
    };
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:00:00Z: ServiceAccount cart, ConfigMap settings, Secret key, KeyValueStore carts");
    world.pass_time(60);
    for (kind, object) in [
        (&SERVICE_ACCOUNT, named("cart")),
        (&CONFIG_MAP, named("settings")),
        (&KEY_VALUE_STORE, named("carts")),
        (&CONFIG_MAP, named("other")),
    ] {
        world.create(kind, object);
    }
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:00:00Z: Secret key");
    world.create(&SECRET, named("key"));
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=True ResolvedRefs since 2026-01-01T00:01:00Z: All references hold.");
    world.pass_time(60);
    world.delete(&KEY_VALUE_STORE, "carts", Propagation::Background);
    world.settle();
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=False RefNotFound since 2026-01-01T00:02:00Z: KeyValueStore carts");
    // What it does not refer to any more, it does not miss.
    world.patch(
        &CAPABILITY_GRANT,
        "cart",
        json!({"spec": {"keyValue": null}}),
    );
    world.settle();
    let grant = world.get(&CAPABILITY_GRANT, "cart");
    assert_eq!(
        grant["status"]["conditions"][0]["observedGeneration"],
        grant["metadata"]["generation"]
    );
    insta::assert_snapshot!(told(&world), @"ResolvedRefs=True ResolvedRefs since 2026-01-01T00:02:00Z: All references hold.");
    // Others' conditions stay, and nothing is said twice.
    let other = json!({
        "type": "Reviewed", "status": "True", "reason": "Reviewed", "message": "",
        "lastTransitionTime": "2025-12-31T23:00:00Z",
    });
    let ours = grant["status"]["conditions"][0].clone();
    world.patch(
        &CAPABILITY_GRANT,
        "cart",
        json!({"status": {"conditions": [ours, other]}}),
    );
    world.settle();
    world.delete(&SECRET, "key", Propagation::Background);
    world.settle();
    let conditions = world.get(&CAPABILITY_GRANT, "cart")["status"]["conditions"].clone();
    let kinds: Vec<&Value> = conditions
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["type"])
        .collect();
    assert_eq!(kinds, ["Reviewed", "ResolvedRefs"]);
    world.tell();
    world.seed_controllers();
    world.settle();
    assert_eq!(world.tell(), "");
}

#[test]
fn roles_gather_the_rules_of_others() {
    let mut world = World::still();
    world.seed_controllers();
    let role = |name: &str, label: &str, resources: &[&str]| {
        let rules = resources
            .iter()
            .map(|resource| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]}));
        let rules: Vec<Value> = rules.collect();
        json!({"metadata": {"name": name, "labels": {label: "true"}}, "rules": rules})
    };
    let mut all = role("all", "top", &[]);
    all["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": {"to-all": "true"}}]});
    world.create(&CLUSTER_ROLE, role("b", "to-all", &["pods", "secrets"]));
    world.create(&CLUSTER_ROLE, all);
    world.create(&CLUSTER_ROLE, role("a", "to-all", &["services", "pods"]));
    world.create(&CLUSTER_ROLE, role("c", "other", &["nodes"]));
    let gathered = |world: &World| {
        let role = world.get(&CLUSTER_ROLE, "all");
        let rules = role["rules"].as_array().cloned().unwrap_or_default();
        let resources = rules
            .iter()
            .map(|rule| rule["resources"][0].as_str().unwrap().to_owned());
        resources.collect::<Vec<_>>().join(" ")
    };
    world.settle();
    assert_eq!(gathered(&world), "services pods secrets");
    // Whatever is written into it goes, and what its parts say follows.
    world.patch(&CLUSTER_ROLE, "all", json!({"rules": []}));
    world.patch(
        &CLUSTER_ROLE,
        "c",
        json!({"metadata": {"labels": {"to-all": "true"}}}),
    );
    world.settle();
    assert_eq!(gathered(&world), "services pods secrets nodes");
    world.delete(&CLUSTER_ROLE, "a", Propagation::Background);
    world.settle();
    assert_eq!(gathered(&world), "pods secrets nodes");
}
