//! Namespaces, and finalizers.

use serde_json::{Value, json};

use crate::world::*;

#[tokio::test]
async fn namespaces_end_through_their_finalizer_and_objects_through_theirs() {
    let world = World::new().await;
    let namespace = json!({"metadata": {"name": "team"}});
    let held = json!({"metadata": {"name": "held", "finalizers": ["weft.dev/test"]}});
    let team_maps = "POST /api/v1/namespaces/team/configmaps";
    let mut told = vec![
        world.ask("POST /api/v1/namespaces", namespace).await.line(),
        world.ask(team_maps, held).await.line(),
        world
            .ask("DELETE /api/v1/namespaces/team", Value::Null)
            .await
            .line(),
        world.ask(team_maps, config_map("late", "1")).await.line(),
        world
            .ask(
                "DELETE /api/v1/namespaces/team/configmaps/held",
                Value::Null,
            )
            .await
            .line(),
    ];
    let held = "/api/v1/namespaces/team/configmaps/held";
    let add = json!({"metadata": {"finalizers": ["weft.dev/test", "weft.dev/more"]}});
    told.push(world.patch(held, "merge-patch", add).await.line());
    let remove = json!({"metadata": {"finalizers": null}});
    told.push(world.patch(held, "merge-patch", remove).await.line());
    told.push(world.get(held).await.line());
    let finalize = json!({"metadata": {"name": "team"}, "spec": {"finalizers": []}});
    told.push(
        world
            .ask("PUT /api/v1/namespaces/team/finalize", finalize)
            .await
            .line(),
    );
    told.push(world.get("/api/v1/namespaces/team").await.line());
    insta::assert_snapshot!(told.join("\n"), @r#"
    201 Namespace team
    201 ConfigMap held
    200 Namespace team
    403 Forbidden: configmaps "late" is forbidden: unable to create new content in namespace team because it is being terminated
    200 ConfigMap held
    422 Invalid: ConfigMap "held" is invalid: metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers ["weft.dev/more"]
    200 ConfigMap held
    404 NotFound: configmaps "held" not found
    200 Namespace team
    404 NotFound: namespaces "team" not found
    "#);

    let foreground = json!({"propagationPolicy": "Foreground"});
    world
        .ask(&format!("POST {MAPS}"), config_map("owner", "1"))
        .await;
    let marked = world.ask(&format!("DELETE {MAPS}/owner"), foreground).await;
    assert_eq!(
        marked.body["metadata"]["finalizers"],
        json!(["foregroundDeletion"])
    );
}
