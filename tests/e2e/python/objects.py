"""What kr8s' users do with objects, one function a promise. Run by `python.rs` with a cluster's kubeconfig and an image."""

import sys
import threading

import kr8s
from kr8s.objects import ConfigMap, Deployment, Namespace, Pod, Secret, new_class

NAMESPACE = "objects"


def labels(name):
    return {"app": name}


def pod(name, image, **more):
    container = {"name": "main", "image": image, "ports": [{"containerPort": 8080}]}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": labels(name)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container], **more}}


def objects_are_made_changed_and_found(api, image):
    made = ConfigMap({"metadata": {"name": "a", "namespace": NAMESPACE, "labels": labels("a")}, "data": {"k": "v"}}, api=api)
    made.create()
    assert made.exists()
    made.patch({"data": {"k": "w", "l": None}})
    assert made.data.k == "w"
    made.patch([{"op": "add", "path": "/data/m", "value": "x"}], type="json")
    made.label({"tier": "back"})
    made.annotate({"note": "y"})
    made.refresh()
    assert dict(made.labels) == {"app": "a", "tier": "back"} and made.annotations["note"] == "y"
    for found in [
        api.get("configmaps", namespace=NAMESPACE, label_selector={"tier": "back"}),
        api.get("configmaps", namespace=NAMESPACE, field_selector="metadata.name=a"),
        api.get("configmaps", "a", namespace=NAMESPACE),
        ConfigMap.list(namespace=NAMESPACE, label_selector="app in (a,b)", api=api),
    ]:
        assert [one.name for one in found] == ["a"]
    secret = Secret({"metadata": {"name": "s", "namespace": NAMESPACE}, "stringData": {"k": "v"}}, api=api)
    secret.create()
    assert secret.raw["data"] == {"k": "dg=="}
    made.delete()
    made.wait("delete", timeout=30)
    assert not made.exists()


def a_pod_is_waited_for_and_its_log_read(api, image):
    one = Pod(pod("waited", image), api=api)
    one.create()
    one.wait("condition=Ready", timeout=60)
    assert one.ready() and one.status.phase == "Running"
    assert isinstance(list(one.logs()), list)
    # While it is waited for, it goes.
    done = threading.Thread(target=one.delete)
    done.start()
    one.wait(["condition=Ready=False", "delete"], timeout=60)
    done.join()
    one.wait("delete", timeout=60)


def a_deployment_is_scaled(api, image):
    template = {"metadata": {"labels": labels("web")}, "spec": pod("web", image)["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": labels("web")}, "template": template}
    one = Deployment({"metadata": {"name": "web", "namespace": NAMESPACE}, "spec": spec}, api=api)
    one.create()
    one.wait("condition=Available", timeout=60)
    assert one.replicas == 1
    one.scale(2)
    one.wait("jsonpath='{.status.readyReplicas}'=2", timeout=60)
    pods = one.pods()
    assert len(pods) == 2 and all(found.ready() for found in pods), pods
    assert len(list(api.get("pods", namespace=NAMESPACE, label_selector=labels("web")))) == 2
    one.delete(propagation_policy="Foreground")
    one.wait("delete", timeout=60)
    assert not list(api.get("pods", namespace=NAMESPACE, label_selector=labels("web")))


def changes_are_watched(api, image):
    seen = []

    def look():
        for kind, found in api.watch("configmaps", namespace=NAMESPACE, label_selector="watched=yes"):
            seen.append(f"{kind} {found.name}")
            if kind == "DELETED":
                return

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    made = ConfigMap({"metadata": {"name": "w", "namespace": NAMESPACE, "labels": {"watched": "yes"}}}, api=api)
    made.create()
    made.patch({"data": {"k": "v"}})
    made.delete()
    watcher.join(timeout=30)
    assert not watcher.is_alive() and seen[0] == "ADDED w" and seen[-1] == "DELETED w", seen


def a_kind_of_its_own_is_found_by_discovery(api, image):
    definition = kr8s.objects.CustomResourceDefinition(
        {
            "metadata": {"name": "shirts.stable.example.com"},
            "spec": {
                "group": "stable.example.com",
                "scope": "Namespaced",
                "names": {"plural": "shirts", "singular": "shirt", "kind": "Shirt"},
                "versions": [
                    {
                        "name": "v1",
                        "served": True,
                        "storage": True,
                        "schema": {
                            "openAPIV3Schema": {
                                "type": "object",
                                "properties": {"spec": {"type": "object", "properties": {"color": {"type": "string"}}}},
                            }
                        },
                        "selectableFields": [{"jsonPath": ".spec.color"}],
                    }
                ],
            },
        },
        api=api,
    )
    definition.create()
    # kr8s cannot wait for a condition where there is none yet.
    while not definition.raw["status"].get("conditions"):
        definition.refresh()
    definition.wait("condition=Established", timeout=30)
    shirt = new_class(kind="Shirt", version="stable.example.com/v1", namespaced=True)
    shirt({"metadata": {"name": "red", "namespace": NAMESPACE}, "spec": {"color": "red"}}, api=api).create()
    shirt({"metadata": {"name": "blue", "namespace": NAMESPACE}, "spec": {"color": "blue"}}, api=api).create()
    found = api.get("shirts.stable.example.com", namespace=NAMESPACE, field_selector="spec.color=red")
    assert [one.name for one in found] == ["red"]
    # It keeps what it looked up before.
    kinds = {resource["kind"] for resource in api.api_resources()}
    assert {"Pod", "Deployment", "HTTPRoute"} <= kinds, kinds
    definition.delete()
    definition.wait("delete", timeout=30)


def who_asks_and_whom_is_told(api, image):
    assert api.version()["major"] == "1"
    assert api.whoami()
    conditions = list(api.get("nodes"))[0].raw["status"]["conditions"]
    assert any(one["type"] == "Ready" and one["status"] == "True" for one in conditions), conditions


def main():
    kubeconfig, image = sys.argv[1:]
    api = kr8s.api(kubeconfig=kubeconfig)
    Namespace({"metadata": {"name": NAMESPACE}}, api=api).create()
    for promise in [
        objects_are_made_changed_and_found,
        a_pod_is_waited_for_and_its_log_read,
        a_deployment_is_scaled,
        changes_are_watched,
        a_kind_of_its_own_is_found_by_discovery,
        who_asks_and_whom_is_told,
    ]:
        promise(api, image)
        print(promise.__name__, flush=True)


main()
