//! A release of a chart with Helm, unmodified, in the versions that people have: `chart/` uses hooks, a definition, lookups and waiting.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;
use weft_tests::clients;
use weft_tests::cluster::{Cluster, repository, success};

use crate::pods;

#[test]
fn a_release_with_helm_3_17() {
    if let Some(helm) = clients::helm(3) {
        release(&helm).unwrap();
    }
}

#[test]
fn a_release_with_helm_4_3() {
    if let Some(helm) = clients::helm(4) {
        release(&helm).unwrap();
    }
}

fn release(helm: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::start(1)?;
    cluster.push("probe", "probe:1")?;
    let hook = pods::command(&cluster, "ends-well", "i32.const 0");
    let chart = repository().join("tests/e2e/chart").display().to_string();
    let home = cluster.data_dir().join("helm");
    let run = |line: &str, more: &[&str]| {
        let words = line.split(' ').chain(more.iter().copied());
        let ran = Command::new(helm)
            .args(words)
            .env("KUBECONFIG", &cluster.kubeconfig)
            .env("HELM_NAMESPACE", "shop")
            .env("HELM_CACHE_HOME", home.join("cache"))
            .env("HELM_CONFIG_HOME", home.join("config"))
            .env("HELM_DATA_HOME", home.join("data"))
            .env("HOME", &home)
            .output()?;
        success(ran).with_context(|| format!("helm {line}"))
    };
    let get = |what: &str| -> anyhow::Result<Value> {
        let words: Vec<&str> = what.split(' ').collect();
        let words = [&["get", "-n", "shop", "-o", "json"], &words[..]].concat();
        Ok(serde_json::from_str(&success(cluster.weft(&words)?)?)?)
    };
    let hook = format!("hook={hook}");

    let installed = run(
        "install one --create-namespace --wait --timeout 60s --set",
        &[&hook, &chart],
    )?;
    assert!(installed.contains("one 1 says one"), "{installed}");
    // It waited, its hook ran before, and what was to go went.
    let web = get("deployment web")?;
    assert_eq!(web["status"]["readyReplicas"], 1, "{web}");
    assert_eq!(get("configmap before")?["data"]["by"], "the hook");
    assert!(get("pod before").is_err(), "the hook's pod is removed");
    assert_eq!(get("gadget gadget")?["spec"]["parts"][0]["count"], 1);
    let kept = get("configmap kept")?["data"].clone();
    assert_eq!(
        (&kept["first"], &kept["api"]),
        (&"one".into(), &"true".into())
    );
    let again = run("install one --set", &[&hook, &chart]);
    let refused = format!("{:#}", again.unwrap_err());
    assert!(refused.contains("a name that is still in use"), "{refused}");

    let tried = run("test one --timeout 60s", &[])?;
    assert!(tried.contains("Succeeded"), "{tried}");

    let values = ["--set", "replicas=2,message=two"];
    let upgraded = run(
        "upgrade one --wait --timeout 60s --set",
        &[&hook, values[0], values[1], &chart],
    )?;
    assert!(upgraded.contains("one 2 says two"), "{upgraded}");
    assert_eq!(get("deployment web")?["status"]["readyReplicas"], 2);
    assert_eq!(get("configmap second")?["metadata"]["namespace"], "shop");
    let kept = get("configmap kept")?["data"].clone();
    assert_eq!(
        (&kept["first"], &kept["message"]),
        (&"one".into(), &"two".into())
    );
    // The same once more changes nothing that is not Helm's own.
    let before = get("deployment web")?["metadata"]["generation"].clone();
    run(
        "upgrade one --wait --timeout 60s --set",
        &[&hook, values[0], values[1], &chart],
    )?;
    assert_eq!(get("deployment web")?["metadata"]["generation"], before);

    run("rollback one 1 --wait --timeout 60s", &[])?;
    assert_eq!(get("deployment web")?["spec"]["replicas"], 1);
    assert!(
        get("configmap second").is_err(),
        "what came with it goes with it"
    );
    let history: Value = serde_json::from_str(&run("history one -o json", &[])?)?;
    let statuses = history.as_array().context("a list")?.iter();
    let statuses: Vec<&str> = statuses.filter_map(|one| one["status"].as_str()).collect();
    assert_eq!(
        statuses,
        ["superseded", "superseded", "superseded", "deployed"]
    );
    let listed: Value = serde_json::from_str(&run("list -o json", &[])?)?;
    assert_eq!(listed[0]["revision"], "4", "{listed}");
    let manifest = run("get manifest one", &[])?;
    assert!(manifest.contains("kind: Gadget"), "{manifest}");

    let gone = run("uninstall one --wait --timeout 60s", &[])?;
    assert!(gone.contains("uninstalled"), "{gone}");
    let left = get("deployments,services,gadgets,secrets")?;
    assert_eq!(left["items"], serde_json::json!([]), "{left}");
    // Definitions stay: other releases may have objects of them.
    get("customresourcedefinition gadgets.example.com")?;
    Ok(())
}
