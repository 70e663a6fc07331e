//! What the examples of the `kube` crate do: a kind of one's own by name alone, discovery, a controller over it with a reflector, server-side
//! apply, and the parts below objects.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams,
    PostParams,
};
use kube::discovery::{Discovery, Scope, verbs};
use kube::runtime::controller::{Action, Controller};
use kube::runtime::wait::{await_condition, conditions};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use weft_tests::cluster::Cluster;

use crate::client::client;

/// For whatever is waited for, on a machine that builds and tests besides.
const PATIENCE: Duration = Duration::from_secs(60);

fn definition() -> CustomResourceDefinition {
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "foos.clux.dev"},
        "spec": {
            "group": "clux.dev", "scope": "Namespaced", "names": {"plural": "foos", "singular": "foo", "kind": "Foo"},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                }},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "name": {"type": "string"}, "replicas": {"type": "integer", "default": 1},
                    }},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "made": {"type": "boolean"}}},
                }}},
            }],
        },
    });
    serde_json::from_value(definition).unwrap()
}

/// A reconciler: each Foo has a ConfigMap that belongs to it, and a status that says so.
async fn reconcile(
    object: Arc<DynamicObject>,
    context: Arc<(kube::Client, ApiResource)>,
) -> Result<Action, kube::Error> {
    let (client, kind) = &*context;
    let namespace = object.namespace().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let foos: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, kind);
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": object.name_any(), "ownerReferences": [{
            "apiVersion": "clux.dev/v1", "kind": "Foo", "name": object.name_any(), "uid": object.uid(), "controller": true,
        }]},
        "data": {"name": object.data["spec"]["name"]},
    });
    let apply = PatchParams::apply("foo-controller").force();
    maps.patch(&object.name_any(), &apply, &Patch::Apply(map))
        .await?;
    let status = json!({"apiVersion": "clux.dev/v1", "kind": "Foo", "status": {"made": true}});
    foos.patch_status(&object.name_any(), &apply, &Patch::Apply(status))
        .await?;
    Ok(Action::await_change())
}

#[test]
fn a_controller_over_a_kind_of_its_own() {
    let cluster = Cluster::start(1).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(&cluster).await;
        let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
        let apply = PatchParams::apply("example").force();
        let name = "foos.clux.dev";
        definitions.patch(name, &apply, &Patch::Apply(definition())).await.unwrap();
        let established = await_condition(definitions.clone(), name, conditions::is_crd_established());
        tokio::time::timeout(PATIENCE, established).await.unwrap().unwrap();

        let discovery = Discovery::new(client.clone()).run_aggregated().await.unwrap();
        let kind = GroupVersionKind::gvk("clux.dev", "v1", "Foo");
        let (resource, capabilities) = discovery.resolve_gvk(&kind).unwrap();
        assert_eq!(capabilities.scope, Scope::Namespaced);
        assert!(capabilities.supports_operation(verbs::PATCH));
        let legacy = Discovery::new(client.clone()).run().await.unwrap();
        assert!(legacy.has_group("apps") && legacy.resolve_gvk(&kind).is_some());

        let foos: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let owned = watcher::Config::default();
        let controller = Controller::new_with(foos.clone(), owned.clone(), resource.clone())
            .owns(maps.clone(), owned);
        let store = controller.store();
        let context = Arc::new((client.clone(), resource.clone()));
        let pause = |_: Arc<DynamicObject>, _: &kube::Error, _: Arc<_>| Action::requeue(Duration::from_secs(1));
        let works = tokio::spawn(controller.run(reconcile, pause, context).for_each(|_| std::future::ready(())));

        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "clux.dev/v1", "kind": "Foo", "metadata": {"name": "baz"}, "spec": {"name": "old"},
        }))
        .unwrap();
        let made = foos.create(&PostParams::default(), &object).await.unwrap();
        assert_eq!(made.data["spec"]["replicas"], 1, "what was left out has its default");
        let says = |wanted: &'static str| {
            move |map: Option<&ConfigMap>| {
                let data = map.and_then(|map| map.data.as_ref());
                data.and_then(|data| data.get("name")).is_some_and(|name| name == wanted)
            }
        };
        let there = await_condition(maps.clone(), "baz", says("old"));
        tokio::time::timeout(PATIENCE, there).await.unwrap().unwrap();
        let status = |object: Option<&DynamicObject>| object.is_some_and(|object| object.data["status"]["made"] == true);
        let found = await_condition(foos.clone(), "baz", status);
        tokio::time::timeout(PATIENCE, found).await.unwrap().unwrap();
        let merge = Patch::Merge(json!({"spec": {"name": "new"}}));
        foos.patch("baz", &PatchParams::default(), &merge).await.unwrap();
        let there = await_condition(maps.clone(), "baz", says("new"));
        tokio::time::timeout(PATIENCE, there).await.unwrap().unwrap();
        // What belongs to it comes back.
        maps.delete("baz", &DeleteParams::default()).await.unwrap();
        let there = await_condition(maps.clone(), "baz", says("new"));
        tokio::time::timeout(PATIENCE, there).await.unwrap().unwrap();
        assert_eq!(store.state().len(), 1);

        let scale = foos.get_scale("baz").await.unwrap();
        assert_eq!(scale.spec.unwrap().replicas, Some(1));
        let wide = Patch::Merge(json!({"spec": {"replicas": 3}}));
        foos.patch_scale("baz", &PatchParams::default(), &wide).await.unwrap();
        assert_eq!(foos.get("baz").await.unwrap().data["spec"]["replicas"], 3);
        works.abort();

        definitions.delete(name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(maps.clone(), "baz", |map: Option<&ConfigMap>| map.is_none());
        tokio::time::timeout(PATIENCE, gone).await.unwrap().unwrap();
    });
}

#[test]
fn appliers_dry_runs_and_parts_of_objects() {
    let cluster = Cluster::start(1).unwrap();
    cluster.push("probe", "probe:1").unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(&cluster).await;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
        let wanted = |replicas: i32| {
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "web"}}, "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "c", "image": "probe:1", "ports": [{"containerPort": 8080}]}]},
                }},
            })
        };
        let dry = PatchParams { dry_run: true, ..PatchParams::apply("one") };
        deployments.patch("web", &dry, &Patch::Apply(wanted(1))).await.unwrap();
        assert!(deployments.get_opt("web").await.unwrap().is_none());
        deployments.patch("web", &PatchParams::apply("one"), &Patch::Apply(wanted(1))).await.unwrap();
        let refused = deployments.patch("web", &PatchParams::apply("two"), &Patch::Apply(wanted(2))).await;
        let Err(kube::Error::Api(refused)) = refused else {
            panic!("somebody else's field was taken");
        };
        assert_eq!(refused.code, 409);
        let force = PatchParams::apply("two").force();
        deployments.patch("web", &force, &Patch::Apply(wanted(2))).await.unwrap();
        let ready = |web: Option<&Deployment>| {
            let status = web.and_then(|web| web.status.as_ref());
            status.is_some_and(|status| status.ready_replicas == Some(2))
        };
        let there = await_condition(deployments.clone(), "web", ready);
        tokio::time::timeout(PATIENCE, there).await.unwrap().unwrap();
        deployments.restart("web").await.unwrap();
        let metadata = deployments.get_metadata("web").await.unwrap();
        assert_eq!(metadata.types.unwrap().kind, "PartialObjectMetadata");
        let listed = deployments.list_metadata(&ListParams::default()).await.unwrap();
        assert_eq!(listed.items.len(), 1);

        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "somebody");
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        let request: CertificateSigningRequest = serde_json::from_value(json!({
            "metadata": {"name": "somebody"},
            "spec": {"signerName": "example.com/nobody", "usages": ["client auth"], "request": k8s_openapi::ByteString(pem.into_bytes())},
        }))
        .unwrap();
        requests.create(&PostParams::default(), &request).await.unwrap();
        let approval = json!({"status": {"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]}});
        requests.patch_approval("somebody", &PatchParams::default(), &Patch::Merge(approval)).await.unwrap();
        let approved = requests.get_approval("somebody").await.unwrap();
        assert_eq!(approved.status.unwrap().conditions.unwrap()[0].type_, "Approved");

        // A store that follows.
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
        let (reader, writer) = reflector::store();
        let follows = watcher(maps.clone(), watcher::Config::default())
            .default_backoff()
            .reflect(writer)
            .applied_objects();
        let follows = tokio::spawn(follows.for_each(|_| std::future::ready(())));
        tokio::time::timeout(PATIENCE, reader.wait_until_ready()).await.unwrap().unwrap();
        let map: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "followed"}})).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        let seen = async {
            while !reader.state().iter().any(|map| map.name_any() == "followed") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, seen).await.unwrap();
        follows.abort();
    });
}
