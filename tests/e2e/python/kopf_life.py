"""An operator of kopf's over a kind of its own, and what it has to see of a life of one object. Run by `python.rs` with a cluster's
kubeconfig: prints what its handlers saw, a line each.
"""

import json
import os
import subprocess
import sys
import time

KIND = "kopfexamples.kopf.dev"
NAMESPACE = "default"

HANDLERS = '''
import kopf

def told(what):
    print("SEEN", what, flush=True)

@kopf.on.startup()
def startup(settings, **_):
    settings.posting.enabled = True
    settings.watching.server_timeout = 10
    told("startup")

@kopf.on.create("kopf.dev", "v1", "kopfexamples")
def create(body, spec, retry, patch, **_):
    if retry < 1:
        raise kopf.TemporaryError("not yet", delay=0.5)
    kopf.info(body, reason="Made", message="as it is wanted")
    patch.status["seen"] = spec.get("field")
    told(f"create {spec['field']} after {retry}")
    return {"made": True}

@kopf.on.update("kopf.dev", "v1", "kopfexamples")
def update(diff, **_):
    told("update " + " ".join(".".join(field) for _, field, _, _ in diff))

@kopf.on.field("kopf.dev", "v1", "kopfexamples", field="spec.field")
def field(old, new, **_):
    if old is not None:
        told(f"field {old} {new}")

@kopf.on.resume("kopf.dev", "v1", "kopfexamples")
def resume(name, **_):
    told(f"resume {name}")

@kopf.timer("kopf.dev", "v1", "kopfexamples", interval=1, initial_delay=1)
def timer(memo, **_):
    if not memo.get("ticked"):
        memo.ticked = True
        told("timer")

@kopf.daemon("kopf.dev", "v1", "kopfexamples", cancellation_timeout=5)
async def daemon(stopped, **_):
    told("daemon begins")
    await stopped.wait()
    told("daemon ends")

@kopf.on.delete("kopf.dev", "v1", "kopfexamples")
def delete(**_):
    told("delete")

@kopf.on.cleanup()
def cleanup(**_):
    told("cleanup")
'''

DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": KIND},
    "spec": {
        "group": "kopf.dev",
        "scope": "Namespaced",
        "names": {"plural": "kopfexamples", "singular": "kopfexample", "kind": "KopfExample", "shortNames": ["kex"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def main():
    kubeconfig, weft, folder = sys.argv[1:]
    environment = {**os.environ, "KUBECONFIG": kubeconfig, "WEFT_KUBECONFIG": kubeconfig, "PYTHONUNBUFFERED": "1"}
    handlers = os.path.join(folder, "handlers.py")
    with open(handlers, "w") as file:
        file.write(HANDLERS)
    log = os.path.join(folder, "kopf.log")

    def command(*words, text=None):
        ran = subprocess.run([weft, *words], input=text, env=environment, capture_output=True, text=True)
        assert ran.returncode == 0, (words, ran.stderr)
        return ran.stdout

    def apply(value):
        path = os.path.join(folder, "object.json")
        with open(path, "w") as file:
            json.dump(value, file)
        command("apply", "-f", path)

    def example(value):
        return {
            "apiVersion": "kopf.dev/v1",
            "kind": "KopfExample",
            "metadata": {"name": "one", "namespace": NAMESPACE},
            "spec": {"field": value, "list": [1, 2]},
        }

    def begin():
        arguments = [sys.executable, "-m", "kopf", "run", "--standalone", "--namespace", NAMESPACE, handlers]
        with open(log, "a") as file:
            return subprocess.Popen(arguments, env=environment, stdout=file, stderr=subprocess.STDOUT)

    def seen():
        with open(log) as file:
            return [line.strip()[5:] for line in file if line.startswith("SEEN ")]

    def until(what, after=0):
        for _ in range(300):
            if what in seen()[after:]:
                return len(seen())
            time.sleep(0.1)
        with open(log) as file:
            raise AssertionError(f"{what} was not seen: {file.read()[-4000:]}")

    def stored():
        return json.loads(command("get", "kopfexamples", "one", "-n", NAMESPACE, "-o", "json"))

    apply(DEFINITION)
    operator = begin()
    try:
        until("startup")
        apply(example("a"))
        until("create a after 1")
        for what in ["daemon begins", "timer"]:
            until(what)
        for _ in range(100):
            if stored().get("status", {}).get("create") == {"made": True}:
                break
            time.sleep(0.1)
        status = stored()
        assert status["status"]["seen"] == "a" and status["metadata"]["finalizers"], status
        apply(example("b"))
        until("field a b")
        # What changes while nobody looks is seen when somebody does again.
        operator.terminate()
        assert operator.wait(timeout=30) == 0
        until("cleanup")
        apply(example("c"))
        before = len(seen())
        operator = begin()
        until("field b c", before)
        until("resume one", before)
        command("delete", "kopfexamples", "one", "-n", NAMESPACE)
        for what in ["delete", "daemon ends"]:
            until(what, before)
        left = json.loads(command("get", "kopfexamples", "-n", NAMESPACE, "-o", "json"))
        assert left["items"] == [], left
        events = json.loads(command("get", "events", "-n", NAMESPACE, "-o", "json"))["items"]
        told = [event["reason"] for event in events if event["involvedObject"]["kind"] == "KopfExample"]
        assert told == ["Made"], events
    finally:
        operator.terminate()
        operator.wait(timeout=30)
    with open(log) as file:
        wrong = [line for line in file if "Traceback" in line or "[ERROR" in line and "not yet" not in line]
    assert not wrong, wrong
    for line in seen():
        print(line)


main()
