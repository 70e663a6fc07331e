//! Events in both of their versions.

use serde_json::json;

use crate::world::*;

#[tokio::test]
async fn events_are_one_store_with_two_spellings() {
    let world = World::new().await;
    let event = json!({
        "metadata": {"name": "e"}, "reason": "Started", "note": "it runs", "type": "Normal",
        "action": "Start", "reportingController": "weft", "reportingInstance": "n1",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": {"kind": "Pod", "namespace": "default", "name": "p"},
    });
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    assert_eq!(
        world.ask(&format!("POST {new}"), event).await.line(),
        "201 Event e"
    );
    let old = world
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp,involvedObject.kind%3DPod")
        .await;
    assert_eq!(old.body["items"][0]["message"], "it runs");
    assert_eq!(old.body["apiVersion"], "v1");
    let back = world
        .get(&format!("{new}?fieldSelector=regarding.name%3Dp"))
        .await;
    assert_eq!(back.body["items"][0]["note"], "it runs");
    // The reporter is the source of an event that has none, as newer ones are.
    for (path, field, found) in [
        ("/api/v1/events", "source%3Dweft", "[e]"),
        ("/api/v1/events", "source%3Dother", "[]"),
        ("/api/v1/events", "reportingComponent%3Dweft", "[e]"),
        (new, "reportingController%3Dweft", "[e]"),
    ] {
        let listed = world.get(&format!("{path}?fieldSelector={field}")).await;
        assert_eq!(listed.line(), format!("200 EventList {found}"), "{field}");
    }
    assert_eq!(back.body["apiVersion"], "events.k8s.io/v1");

    // Each spelling has rules of its own: nothing but the series of an event changes in the newer one.
    let mut changed = back.body["items"][0].clone();
    changed["type"] = "Warning".into();
    let refused = world.ask(&format!("PUT {new}/e"), changed).await;
    assert_eq!(
        refused.line(),
        r#"422 Invalid: Event "e" is invalid: type: Invalid value: "Warning": field is immutable"#
    );
    let mut changed = old.body["items"][0].clone();
    changed["type"] = "Warning".into();
    let put = "PUT /api/v1/namespaces/default/events/e";
    assert_eq!(world.ask(put, changed).await.line(), "200 Event e");
}
