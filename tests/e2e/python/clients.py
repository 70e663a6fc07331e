"""What Python's clients rely on, one function a promise. Run by `python.rs` with a cluster's kubeconfig and an image.

Uses the published client `kubernetes`, and requests of its own where that client would not send what is to be tried.
"""

import base64
import http.client
import json
import ssl
import sys
import urllib.parse

from kubernetes import client, config, watch

NAMESPACE = "python"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


class Api:
    """Requests as they are written here, with the kubeconfig's certificate."""

    def __init__(self, settings):
        self.host = urllib.parse.urlsplit(settings.host)
        self.tls = ssl.create_default_context(cafile=settings.ssl_ca_cert)
        self.tls.load_cert_chain(settings.cert_file, settings.key_file)

    def __call__(self, method, path, body=None, kind="application/json", accept="application/json"):
        connection = http.client.HTTPSConnection(self.host.hostname, self.host.port, context=self.tls, timeout=60)
        headers = {"Accept": accept}
        if body is not None:
            headers["Content-Type"] = kind
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read().decode()
        warnings = response.headers.get_all("Warning") or []
        kind = response.headers.get("Content-Type", "")
        connection.close()
        return response.status, json.loads(text) if kind.startswith("application/json") else text, warnings


def path(plural, name="", group="api/v1", suffix=""):
    return f"/{group}/namespaces/{NAMESPACE}/{plural}" + (f"/{name}" if name else "") + suffix


def pod(name, image, **more):
    container = {"name": "main", "image": image, "ports": [{"containerPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container], **more}}


def deployment(name, image, replicas):
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod(name, image)["spec"]}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def r1_unknown_fields_are_warned_about_and_never_stored(api, image):
    def seen(plural, name):
        return json.dumps(api("GET", path(plural, name))[1])

    unknown = {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "u", "zz": "1"}, "data": {"a": "1"}, "status": {"x": 1},
    }
    code, _, warnings = api("POST", path("configmaps"), unknown)
    assert code == 201 and len(warnings) == 2, (code, warnings)
    assert '"zz"' not in seen("configmaps", "u") and '"status"' not in seen("configmaps", "u")
    replaced = api("GET", path("configmaps", "u"))[1]
    replaced["status"] = {"x": 2}
    replaced["metadata"]["zz"] = "2"
    changes = [
        ("PUT", replaced, "application/json"),
        ("PATCH", {"status": {"x": 3}, "metadata": {"zz": "3"}}, MERGE),
        ("PATCH", {"status": {"x": 4}, "metadata": {"zz": "4"}}, STRATEGIC),
        ("PATCH", [{"op": "add", "path": "/status", "value": {}}, {"op": "add", "path": "/metadata/zz", "value": "5"}], JSON_PATCH),
    ]
    for method, body, kind in changes:
        code, answer, warnings = api(method, path("configmaps", "u"), body, kind)
        assert code == 200, (method, kind, answer)
        assert any("status" in warning for warning in warnings), (method, kind, warnings)
        assert "zz" not in answer["metadata"] and "status" not in answer, answer
        assert '"zz"' not in seen("configmaps", "u") and '"status"' not in seen("configmaps", "u")
    # Nobody else is told of what one client wrote.
    code, _, warnings = api("PATCH", path("configmaps", "u"), {"data": {"b": "2"}}, MERGE)
    assert (code, warnings) == (200, []), warnings
    code, answer, _ = api("POST", path("configmaps", suffix="?fieldValidation=Strict"), {**unknown, "metadata": {"name": "s", "zz": "1"}})
    assert code == 400 and 'unknown field "metadata.zz"' in answer["message"], answer

    misspelt = pod("u", image, bogus=1)
    misspelt["spec"]["containers"][0]["foo"] = {}
    misspelt["spec"]["containers"][0]["ports"][0]["x"] = 1
    code, _, warnings = api("POST", path("pods"), misspelt)
    assert code == 201 and len(warnings) == 3, (code, warnings)
    for field in ['"bogus"', '"foo"', '"x"']:
        assert field not in seen("pods", "u"), field
    api("DELETE", path("pods", "u"))


def r2_the_last_that_is_seen_of_a_pod_is_how_it_ended(api, image):
    core = client.CoreV1Api()
    for turn in range(4):
        name = f"ends-{turn}"
        core.create_namespaced_pod(NAMESPACE, pod(name, image))
        selector = f"metadata.name={name}"
        for event in watch.Watch().stream(core.list_namespaced_pod, NAMESPACE, field_selector=selector, timeout_seconds=60):
            conditions = event["object"].status.conditions or []
            if any(condition.type == "Ready" and condition.status == "True" for condition in conditions):
                version = event["object"].metadata.resource_version
                break
        else:
            raise AssertionError(f"{name} was never ready")
        api("DELETE", path("pods", name, suffix=f"?gracePeriodSeconds={[30, 5, 2, 10][turn]}"))
        ends = []
        for event in watch.Watch().stream(
            core.list_namespaced_pod, NAMESPACE, field_selector=selector, resource_version=version, timeout_seconds=60
        ):
            last = event["object"]
            ready = [condition.status for condition in last.status.conditions if condition.type == "Ready"]
            state = last.status.container_statuses[0].state
            ends.append((event["type"], last.status.phase, ready, state.terminated is not None))
            if event["type"] == "DELETED":
                break
        assert ends[-1][0] == "DELETED", ends
        assert ends[-1][1] in ("Succeeded", "Failed") and ends[-1][2:] == (["False"], True), ends


def r3_base64_may_have_line_breaks(api, image):
    for name, field, plural in [("nl", "data", "secrets"), ("nl", "binaryData", "configmaps")]:
        body = {"apiVersion": "v1", "metadata": {"name": name}, field: {"a": "YWFh\nYWFh\n", "b": "YWFh\r\nYQ=="}}
        code, answer, _ = api("POST", path(plural), body)
        assert code == 201, answer
        stored = api("GET", path(plural, name))[1][field]
        assert stored == {"a": "YWFhYWFh", "b": "YWFhYQ=="}, stored
    read = client.CoreV1Api().read_namespaced_secret("nl", NAMESPACE)
    assert base64.b64decode(read.data["a"]) == b"aaaaaa"
    code, answer, _ = api("POST", path("secrets"), {"metadata": {"name": "space"}, "data": {"a": "YW Fh"}})
    assert code == 400 and "illegal base64 data" in answer["message"], answer


def r4_a_deployment_has_a_status_from_the_beginning(api, image):
    apps = client.AppsV1Api()
    code, answer, _ = api("POST", path("deployments", group="apis/apps/v1"), deployment("raw", image, 0))
    assert code == 201 and answer["status"] == {}, answer
    made = apps.create_namespaced_deployment(NAMESPACE, deployment("typed", image, 2))
    assert made.status is not None
    selector = "metadata.name=typed"
    for event in watch.Watch().stream(apps.list_namespaced_deployment, NAMESPACE, field_selector=selector, timeout_seconds=60):
        if event["object"].status.available_replicas == 2:
            break
    else:
        raise AssertionError("typed was never available")
    scaled = apps.patch_namespaced_deployment_scale("typed", NAMESPACE, {"spec": {"replicas": 1}})
    assert scaled.spec.replicas == 1


def r5_null_is_an_empty_value_of_a_map(api, image):
    body = {
        "apiVersion": "v1", "metadata": {"name": "null", "annotations": {"a": None}, "labels": {"b": None}}, "data": {"c": None, "d": "1"},
    }
    code, answer, _ = api("POST", path("configmaps"), body)
    assert code == 201, answer
    stored = api("GET", path("configmaps", "null"))[1]
    assert stored["data"] == {"c": "", "d": "1"}, stored
    assert (stored["metadata"]["annotations"], stored["metadata"]["labels"]) == ({"a": ""}, {"b": ""}), stored
    code, answer, _ = api("POST", path("configmaps"), {"metadata": {"name": "nulls", "labels": None, "annotations": None}, "data": None})
    assert code == 201 and not answer.keys() & {"data"} and not answer["metadata"].keys() & {"labels", "annotations"}, answer
    # One such object made the whole list unreadable.
    names = [item.metadata.name for item in client.CoreV1Api().list_namespaced_config_map(NAMESPACE).items]
    assert "null" in names and "nulls" in names, names


def r8_answers_come_as_yaml(api, image):
    for place in [path("configmaps", "null"), path("configmaps")]:
        code, text, _ = api("GET", place, accept="application/yaml")
        assert code == 200 and not text.startswith("{"), (place, code, text)
    import yaml

    read = yaml.safe_load(api("GET", path("configmaps", "null"), accept="application/yaml")[1])
    assert read == api("GET", path("configmaps", "null"))[1], read


def watches_resume_and_tell_of_what_is_too_old(api, image):
    core = client.CoreV1Api()
    version = core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
    for number in range(3):
        core.create_namespaced_config_map(NAMESPACE, {"metadata": {"name": f"w{number}"}})
    names = []
    for event in watch.Watch().stream(core.list_namespaced_config_map, NAMESPACE, resource_version=version, timeout_seconds=5):
        names.append(event["object"].metadata.name)
        if len(names) == 3:
            break
    assert names == ["w0", "w1", "w2"], names
    code, answer, _ = api("GET", path("configmaps", suffix="?watch=1&resourceVersion=None"))
    assert code in (400, 422) and "resourceVersion" in answer["message"], answer


def main():
    kubeconfig, image = sys.argv[1:]
    settings = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=settings)
    client.Configuration.set_default(settings)
    api = Api(settings)
    assert api("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})[0] == 201
    for promise in [
        r1_unknown_fields_are_warned_about_and_never_stored,
        r2_the_last_that_is_seen_of_a_pod_is_how_it_ended,
        r3_base64_may_have_line_breaks,
        r4_a_deployment_has_a_status_from_the_beginning,
        r5_null_is_an_empty_value_of_a_map,
        r8_answers_come_as_yaml,
        watches_resume_and_tell_of_what_is_too_old,
    ]:
        promise(api, image)
        print(promise.__name__, flush=True)


main()
