//! Rollouts as clients write and read them: as a document, as a row, by their scale, and what is refused.

use serde_json::{Value, json};

use crate::world::*;

const ROLLOUTS: &str = "/apis/weft.dev/v1alpha1/namespaces/default/rollouts";

fn rollout() -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "shop/web:1"}]}},
            "traffic": {"service": "web"},
            "analysis": {"successPercent": 99.5, "latency": [{"percentile": 95, "maxMilliseconds": 200}]},
            "strategy": {"canary": {"steps": [{"setWeight": 10}, {"analysis": {}}, {"pause": {}}]}},
        },
    })
}

#[tokio::test]
async fn a_rollout_is_kept_as_it_is_written_and_has_a_scale() {
    let world = World::new().await;
    let made = world.ask(&format!("POST {ROLLOUTS}"), rollout()).await;
    assert_eq!(made.status, 201, "{}", made.line());
    let spec = &made.body["spec"];
    assert_eq!(spec["analysis"]["successPercent"], 99.5);
    assert_eq!(spec["analysis"]["intervalSeconds"], 30);
    assert_eq!(
        spec["strategy"]["canary"]["steps"][1],
        json!({"analysis": {"rounds": 1}})
    );
    assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
    assert_eq!(made.body["metadata"]["generation"], 1);

    // Whoever scales it needs to know of no kind.
    let path = format!("{ROLLOUTS}/web/scale");
    let scale = world.get(&path).await;
    assert_eq!(scale.body["spec"]["replicas"], 3, "{}", scale.line());
    let body = json!({"spec": {"replicas": 5}});
    let scaled = world.patch(&path, "merge-patch", body).await;
    assert_eq!(scaled.status, 200, "{}", scaled.line());

    // What controllers say is theirs, and leaves the specification alone.
    let status = json!({"spec": {"replicas": 9}, "status": {"phase": "Paused", "step": 1, "steps": 3, "weight": 10,
        "stableRevision": "aaa", "currentRevision": "bbb", "replicas": 4, "readyReplicas": 4}});
    let path = format!("{ROLLOUTS}/web/status");
    let told = world.patch(&path, "merge-patch", status).await;
    assert_eq!(told.status, 200, "{}", told.line());
    assert_eq!(told.body["spec"]["replicas"], 5);
    assert_eq!(told.body["metadata"]["generation"], 2);
    let table = world.table(ROLLOUTS).await;
    let cells = table.body["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells.get(..7).unwrap(),
        [
            json!("web"),
            json!("Paused"),
            json!("1/3"),
            json!(10),
            json!("4/5"),
            json!("aaa"),
            json!("bbb")
        ]
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let world = World::new().await;
    for (pointer, value, expected) in [
        (
            "/spec/strategy",
            json!({}),
            "spec.strategy: Required value: must specify one of: `canary`, `blueGreen`, `ab`",
        ),
        (
            "/spec/analysis/intervalSeconds",
            json!(3),
            "spec.analysis.intervalSeconds: Invalid value: 3: spec.analysis.intervalSeconds in body should be greater than or equal to 10",
        ),
        (
            "/spec/template/metadata/labels",
            json!({"app": "other"}),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ),
    ] {
        let mut wrong = rollout();
        match wrong.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => wrong["spec"]["analysis"]["intervalSeconds"] = value,
        }
        let refused = world.ask(&format!("POST {ROLLOUTS}"), wrong).await;
        assert_eq!(refused.status, 422, "{}", refused.line());
        let message = refused.body["message"].as_str().unwrap();
        assert_eq!(
            message,
            format!("Rollout.weft.dev \"web\" is invalid: {expected}")
        );
    }
}
