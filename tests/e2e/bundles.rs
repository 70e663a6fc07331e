//! The Gateway API as it is published, applied by kubectl over the definitions that a cluster begins with: the standard and the
//! experimental channel, an older release, and back. Objects stay readable, and routes are served by whichever definitions there are.
//!
//! The bundles come out of the Go module, which is fetched once; without them nothing is tried, and that is said aloud.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use weft_tests::clients;
use weft_tests::cluster::{Cluster, eventually, success};

const MODULE: &str = "sigs.k8s.io/gateway-api";
const NEWEST: &str = "v1.6.3";
const OLDER: &str = "v1.2.1";
/// What the newer bundles bring against the older ones, and against another channel.
const GUARD: &str = "safe-upgrades.gateway.networking.k8s.io";

const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: g}
spec: {gatewayClassName: weft, listeners: [{name: http, port: 80, protocol: HTTP}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r}
spec: {parentRefs: [{name: g}], hostnames: [a.example], rules: [{backendRefs: [{name: none, port: 80}]}]}
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: kept}
spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: x}], to: [{group: '', kind: Service}]}
";

#[test]
fn published_definitions_take_the_place_of_our_own_and_each_others() {
    let kubectl = clients::kubectl(37);
    let newest = clients::go_module(MODULE, NEWEST);
    let older = clients::go_module(MODULE, OLDER);
    if let (Some(kubectl), Some(newest), Some(older)) = (kubectl, newest, older) {
        bundles(&kubectl, &newest, &older).unwrap();
    }
}

fn bundles(kubectl: &Path, newest: &Path, older: &Path) -> anyhow::Result<()> {
    let cluster = Cluster::start(1)?;
    let run = |args: &[&str]| {
        let told = success(cluster.kubectl(kubectl, args)?);
        told.with_context(|| args.join(" "))
    };
    let objects = cluster.data_dir().join("objects.yaml");
    std::fs::write(&objects, OBJECTS)?;
    let objects = objects.display().to_string();
    run(&["apply", "-f", &objects])?;

    let bundle = |module: &Path, channel: &str| -> anyhow::Result<Vec<String>> {
        let folder = module.join("config/crd").join(channel);
        let files = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        files.retain(|file| !file.ends_with("kustomization.yaml"));
        files.sort();
        let named = files
            .iter()
            .flat_map(|file| ["-f".to_owned(), file.display().to_string()]);
        Ok(named.collect())
    };
    let apply = |module: &Path, channel: &str, how: &[&str]| -> anyhow::Result<()> {
        let files = bundle(module, channel)?;
        let files = files.iter().map(String::as_str);
        let args: Vec<&str> = ["apply"]
            .into_iter()
            .chain(how.iter().copied())
            .chain(files)
            .collect();
        run(&args).map(drop)
    };
    // As people do who go where the bundle's own policy would not let them. It is out of force some moments later, and each bundle
    // brings it again.
    let unguarded = |module: &Path, channel: &str, how: &[&str]| {
        eventually(&format!("{channel} is applied"), || {
            let kinds = "validatingadmissionpolicybindings,validatingadmissionpolicies";
            run(&["delete", "--ignore-not-found", kinds, GUARD])?;
            Ok(apply(module, channel, how).ok())
        })
    };
    // Each time the route asks for something else, which is judged by what is defined now.
    let mut hosts = 0;
    let mut served = |release: &str| {
        hosts += 1;
        let host = format!(
            "[{{\"op\":\"replace\",\"path\":\"/spec/hostnames/0\",\"value\":\"h{hosts}.example\"}}]"
        );
        run(&["patch", "httproute", "r", "--type=json", "-p", &host])?;
        let accepted = "jsonpath={.metadata.generation} {.status.parents[0].conditions[?(@.type==\"Accepted\")].observedGeneration} \
                        {.status.parents[0].conditions[?(@.type==\"Accepted\")].status}";
        eventually(&format!("the route is served by {release}"), || {
            let told = run(&["get", "httproute", "r", "-o", accepted])?;
            let words: Vec<&str> = told.split_whitespace().collect();
            Ok(matches!(words.as_slice(), [asked, seen, "True"] if asked == seen).then_some(()))
        })?;
        let version =
            "jsonpath={.metadata.annotations.gateway\\.networking\\.k8s\\.io/bundle-version}";
        let crd = "httproutes.gateway.networking.k8s.io";
        assert_eq!(run(&["get", "crd", crd, "-o", version])?, release);
        let grants = "referencegrants.v1beta1.gateway.networking.k8s.io";
        let name = run(&["get", grants, "-o", "jsonpath={.items[*].metadata.name}"])?;
        assert_eq!(name, "kept", "{release}");
        anyhow::Ok(())
    };
    served(NEWEST)?;
    apply(newest, "standard", &[])?;
    served(NEWEST)?;
    unguarded(
        newest,
        "experimental",
        &["--server-side", "--force-conflicts"],
    )?;
    served(NEWEST)?;
    unguarded(older, "standard", &[])?;
    served(OLDER)?;
    unguarded(newest, "standard", &["--server-side", "--force-conflicts"])?;
    served(NEWEST)
}
