//! Policies of the mesh on the real server: what is refused, what their statuses tell, and that a fault ends by itself.

use std::sync::Arc;

use serde_json::{Value, json};
use weft_kinds::{
    AUTHORIZATION_POLICY, FAULT_INJECTION, Kind, KindRef, MESH_POLICY, PEER_AUTHENTICATION, SERVICE,
};

use crate::world::World;

fn conditions(world: &World, kind: KindRef<'_>, name: &str) -> String {
    let all = world.get(kind, name)["status"]["conditions"].as_array();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or("").to_owned();
    let lines = all.into_iter().flatten().map(|one| {
        let said = ["type", "status", "reason"].map(|field| text(one, field));
        format!("{}: {}", said.join(" "), text(one, "message"))
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

#[test]
fn a_policy_is_told_whether_it_holds() {
    let mut world = World::new(1);
    let policy = json!({
        "metadata": {"name": "price", "namespace": "default"},
        "spec": {"targetRefs": [{"kind": "Service", "name": "price"}], "retry": {}},
    });
    world.create(&MESH_POLICY, policy);
    world.settle();
    insta::assert_snapshot!(conditions(&world, &MESH_POLICY, "price"), @"Accepted False TargetNotFound: Service price does not exist: create it, or correct targetRefs.");
    world.create(&SERVICE, service("price"));
    world.settle();
    insta::assert_snapshot!(conditions(&world, &MESH_POLICY, "price"), @"Accepted True Accepted: The nodes do what it says.");
}

#[test]
fn a_fault_ends_by_itself_and_tells_so() {
    let mut world = World::new(1);
    world.create(&SERVICE, service("price"));
    let fault = json!({
        "metadata": {"name": "slow", "namespace": "default"},
        "spec": {
            "targetRefs": [{"kind": "Service", "name": "price"}], "duration": "10m",
            "delay": {"duration": "200ms"},
        },
    });
    world.create(&FAULT_INJECTION, fault);
    world.settle();
    insta::assert_snapshot!(conditions(&world, &FAULT_INJECTION, "slow"), @r"
    Accepted True Accepted: The nodes do what it says.
    Active True Active: Calls are spoiled until 2026-01-01T00:10:00Z.
    ");
    world.pass_time(599);
    world.settle();
    assert!(conditions(&world, &FAULT_INJECTION, "slow").contains("Active True"));
    world.pass_time(1);
    world.settle();
    insta::assert_snapshot!(conditions(&world, &FAULT_INJECTION, "slow"), @r"
    Accepted True Accepted: The nodes do what it says.
    Active False Expired: It ended at 2026-01-01T00:10:00Z.
    ");
}

#[test]
fn a_policy_tells_what_of_it_is_not_understood() {
    let mut world = World::still();
    world.define_gateway_api();
    let policy = |spec: Value| {
        json!({
            "metadata": {"name": "cart", "namespace": "default"},
            "spec": spec,
        })
    };
    let told = |world: &World, kind: &Arc<Kind>| {
        let condition = &world.get(kind, "cart")["status"]["conditions"][0];
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let [kind, status, reason, message] = ["type", "status", "reason", "message"].map(text);
        format!("{kind}={status} {reason}: {message}")
    };
    world.create(
        &AUTHORIZATION_POLICY,
        policy(json!({"action": "CUSTOM", "provider": {"name": "opa"}, "rules": [{"from": [{"source": {"ipBlocks": ["10.0.0"]}}]}]})),
    );
    world.create(
        &PEER_AUTHENTICATION,
        policy(json!({"mtls": {"mode": "DISABLE"}})),
    );
    world.settle();
    insta::assert_snapshot!(told(&world, &AUTHORIZATION_POLICY), @"Accepted=False Invalid: action CUSTOM is not served: there is no provider to ask, and what meets its rules is denied; bad IP address (10.0.0)");
    insta::assert_snapshot!(told(&world, &PEER_AUTHENTICATION), @"Accepted=False Invalid: mtls: mode DISABLE is not served: calls between nodes are by mutual TLS, always");
    world.patch(
        &AUTHORIZATION_POLICY,
        "cart",
        json!({"spec": {"action": "ALLOW", "provider": null, "rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/8"]}}]}]}}),
    );
    world.settle();
    insta::assert_snapshot!(told(&world, &AUTHORIZATION_POLICY), @"Accepted=True Accepted: All of it is in force.");
}
