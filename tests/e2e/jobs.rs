//! Jobs with real nodes: commands that end, and pods that wait for their Job to count them before they go.

use serde_json::Value;
use weft_tests::cluster::{Cluster, eventually, success};

use crate::pods::{apply, command};

fn job(name: &str, image: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, namespace: default}}\nspec:\n{spec}\n  template:\n    spec:\n      restartPolicy: Never\n      terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: '{image}', resources: {{limits: {{memory: 8Mi}}}}}}\n"
    )
}

fn get(cluster: &Cluster, what: &[&str]) -> anyhow::Result<Value> {
    let arguments = [&["get"], what, &["-o", "json"]].concat();
    let text = success(cluster.weft(&arguments)?)?;
    Ok(serde_json::from_str(&text)?)
}

/// Conditions that hold, and how many pods succeeded and failed.
fn shown(job: &Value) -> String {
    let status = &job["status"];
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let holds = conditions.iter().filter(|one| one["status"] == "True");
    let names: Vec<&str> = holds.filter_map(|one| one["type"].as_str()).collect();
    let count = |field: &str| status[field].as_i64().unwrap_or(0);
    format!(
        "{}: {} succeeded, {} failed",
        names.join(" "),
        count("succeeded"),
        count("failed")
    )
}

fn becomes(cluster: &Cluster, name: &str, expected: &str) {
    let mut last = String::new();
    let came = eventually(&format!("job {name} is {expected}"), || {
        last = shown(&get(cluster, &["job", name])?);
        Ok((last == expected).then_some(()))
    });
    assert!(came.is_ok(), "job {name}\n is {last}\nnot {expected}");
}

fn pods_of(cluster: &Cluster, job: &str) -> Vec<Value> {
    let all = get(cluster, &["pods"]).unwrap()["items"]
        .as_array()
        .cloned();
    let mut pods = all.unwrap_or_default();
    pods.retain(|pod| pod["metadata"]["labels"]["batch.kubernetes.io/job-name"] == job);
    pods
}

#[test]
fn jobs_end_with_what_their_pods_end_with() {
    let cluster = Cluster::start(2).unwrap();
    let done = command(&cluster, "done", "i32.const 0");
    let failing = command(&cluster, "failing", "i32.const 1");
    let endless = command(&cluster, "endless", "(loop (br 0)) i32.const 0");
    let indexed = "  completionMode: Indexed\n  completions: 3\n  parallelism: 3";
    let jobs = [
        job("completes", &done, "  completions: 3\n  parallelism: 2"),
        job("indexed", &done, indexed),
        job("fails", &failing, "  backoffLimit: 0"),
        job("overruns", &endless, "  activeDeadlineSeconds: 2"),
        job("lasts", &endless, "  backoffLimit: 5"),
    ];
    apply(&cluster, &jobs.concat()).unwrap();
    becomes(
        &cluster,
        "completes",
        "SuccessCriteriaMet Complete: 3 succeeded, 0 failed",
    );
    becomes(
        &cluster,
        "indexed",
        "SuccessCriteriaMet Complete: 3 succeeded, 0 failed",
    );
    let told = get(&cluster, &["job", "indexed"]).unwrap();
    assert_eq!(told["status"]["completedIndexes"], "0-2");
    becomes(
        &cluster,
        "fails",
        "FailureTarget Failed: 0 succeeded, 1 failed",
    );
    becomes(
        &cluster,
        "overruns",
        "FailureTarget Failed: 0 succeeded, 1 failed",
    );
    let pods = pods_of(&cluster, "completes");
    assert_eq!(pods.len(), 3, "they stay");
    assert!(
        pods.iter()
            .all(|pod| pod["metadata"]["finalizers"].is_null())
    );
    assert_eq!(
        pods_of(&cluster, "overruns").len(),
        0,
        "what ran is deleted"
    );

    // A pod that is deleted goes as soon as its end is counted, and no sooner.
    eventually("a pod of the job that lasts runs", || {
        let runs = |pod: &Value| pod["status"]["phase"] == "Running";
        Ok(pods_of(&cluster, "lasts").iter().any(runs).then_some(()))
    })
    .unwrap();
    let pod = pods_of(&cluster, "lasts").remove(0);
    let name = pod["metadata"]["name"].as_str().unwrap();
    success(cluster.weft(&["delete", "pod", name]).unwrap()).unwrap();
    becomes(&cluster, "lasts", ": 0 succeeded, 1 failed");
    eventually("the deleted pod is gone", || {
        let gone = pods_of(&cluster, "lasts")
            .iter()
            .all(|pod| pod["metadata"]["name"] != name);
        Ok(gone.then_some(()))
    })
    .unwrap();
}
