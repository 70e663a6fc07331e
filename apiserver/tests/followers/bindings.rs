//! Who may do what, on each of three servers: what is bound or taken back on one counts on all. The number is that of `docs/attacks.md`.

use std::time::Duration;

use serde_json::json;
use weft_apiserver::caller::Caller;
use weft_apiserver::objects::{DeleteOptions, Objects, WriteOptions};
use weft_apiserver::request::RequestInfo;

use super::cluster::{Cluster, NS, admin, object};

/// What is bound or taken back anywhere, counts on each server as soon as it has heard of it, and that is at its next word with the leader.
#[tokio::test(flavor = "multi_thread")]
async fn a_binding_holds_and_ends_on_every_server() {
    let cluster = Cluster::start().await;
    let (caller, options) = (admin(), WriteOptions::default());
    let jo = Caller::client_certificate("jo", vec![]);
    let list = || RequestInfo::of_collection("list", &weft_kinds::CONFIG_MAP, NS, None);
    let allowed = async |objects: &Objects| {
        objects.store().read().await.unwrap();
        objects.authorizer().settle().await;
        objects.authorizer().authorize(jo.clone(), list()).is_ok()
    };
    let group = "rbac.authorization.k8s.io";
    let role = object(json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role",
        "metadata": {"name": "reader", "namespace": "default"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}],
    }));
    let binding = |user: &str| {
        object(json!({
            "apiVersion": format!("{group}/v1"), "kind": "RoleBinding",
            "metadata": {"name": "reader", "namespace": "default"},
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
            "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
        }))
    };
    let kind = &weft_kinds::ROLE_BINDING;
    let leader = cluster.leader.client(&caller);
    let follower = cluster.follower.client(&caller);
    leader
        .create(&weft_kinds::ROLE, NS, role, &options)
        .await
        .unwrap();
    for round in 0..5 {
        for objects in [&cluster.leader, &cluster.follower] {
            assert!(!allowed(objects).await, "round {round}");
        }
        leader
            .create(kind, NS, binding("jo"), &options)
            .await
            .unwrap();
        for objects in [&cluster.follower, &cluster.leader] {
            assert!(allowed(objects).await, "round {round}");
        }
        // It is somebody else's now, and then nobody's; whichever server was asked for that.
        let other = follower.update(kind, NS, binding("ko"), &options).await;
        other.unwrap();
        for objects in [&cluster.leader, &cluster.follower] {
            assert!(!allowed(objects).await, "round {round}");
        }
        let options = DeleteOptions::default();
        follower.delete(kind, NS, "reader", &options).await.unwrap();
    }
}

/// Attack 88: nobody is asked to look at the newest state first, and still what changed holds on each of three servers within a second, whichever
/// of them was asked for the change.
#[tokio::test(flavor = "multi_thread")]
async fn attack_88_a_changed_binding_holds_within_a_second_on_every_server() {
    const WITHIN: Duration = Duration::from_secs(1);
    let cluster = Cluster::start().await;
    let caller = admin();
    let jo = Caller::client_certificate("jo", vec!["team".to_owned()]);
    let servers = [&cluster.leader, &cluster.other, &cluster.follower];
    let list = || RequestInfo::of_collection("list", &weft_kinds::CONFIG_MAP, NS, None);
    let holds = async |expected: bool, what: &str| {
        let all = async {
            for objects in servers {
                while objects.authorizer().authorize(jo.clone(), list()).is_ok() != expected {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        let told = tokio::time::timeout(WITHIN, all).await;
        assert!(told.is_ok(), "{what}");
    };
    let group = "rbac.authorization.k8s.io";
    let role = |verbs: &[&str]| {
        object(json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRole", "metadata": {"name": "reader"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}],
        }))
    };
    let binding = |kind: &str, name: &str| {
        object(json!({
            "apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": "readers"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "reader"},
            "subjects": [{"apiGroup": group, "kind": kind, "name": name}],
        }))
    };
    let (roles, bindings) = (&weft_kinds::CLUSTER_ROLE, &weft_kinds::CLUSTER_ROLE_BINDING);
    let options = WriteOptions::default();
    let writer = cluster.leader.client(&caller);
    let made = writer.create(roles, None, role(&["list"]), &options).await;
    made.unwrap();
    for (round, objects) in servers.into_iter().enumerate() {
        let at = objects.client(&caller);
        let said = |what: &str| format!("{what}, on server {round}");
        holds(false, &said("nothing is bound yet")).await;
        let made = at.create(bindings, None, binding("Group", "team"), &options);
        made.await.unwrap();
        holds(true, &said("bound to a group")).await;
        let changed = at.update(bindings, None, binding("User", "ko"), &options);
        changed.await.unwrap();
        holds(false, &said("bound to somebody else")).await;
        let changed = at.update(bindings, None, binding("User", "jo"), &options);
        changed.await.unwrap();
        holds(true, &said("bound to the user")).await;
        let changed = at.update(roles, None, role(&["get"]), &options);
        changed.await.unwrap();
        holds(false, &said("the role gives less")).await;
        let changed = at.update(roles, None, role(&["list"]), &options);
        changed.await.unwrap();
        holds(true, &said("the role gives more")).await;
        let gone = DeleteOptions::default();
        let gone = at.delete(bindings, None, "readers", &gone);
        gone.await.unwrap();
        holds(false, &said("taken back")).await;
    }
}
