"""What people do with kubectl on a container, done on components: each step is one command or two, judged by what it prints.

    tour.py KUBECONFIG KUBECTL

The cluster's registry has `hello:1` and `toolbox:1`, beside what every node has. Needs nothing but Python and openssl. Run by `tour.rs` with kubectl of two
times; by hand with any, against a cluster that may be kept: everything is in a namespace of its own, which goes at the end.
"""

import base64
import hashlib
import json
import os
import pathlib
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

NAMESPACE = "tour"
# What a command may take on a machine that builds and tests beside it.
PATIENCE = 90

OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: hello, labels: {app: hello}}
spec: {containers: [{name: main, image: 'hello:1', ports: [{name: web, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: hello}
spec: {selector: {app: hello}, ports: [{name: web, port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box, labels: {app: box}}
spec: {containers: [{name: main, image: 'toolbox:1', command: [sh, -c, 'echo begun; echo oops >&2; while true; do echo tick; sleep 1; done']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: echo}
spec: {containers: [{name: main, image: 'toolbox:1', stdin: true, command: [sh, -c, 'while read line; do echo "heard $line"; done']}]}
---
apiVersion: v1
kind: Pod
metadata: {name: again}
spec: {containers: [{name: main, image: 'toolbox:1', command: [sh, -c, 'echo "life of $HOSTNAME"; sleep 1; exit 3']}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: 'toolbox:1', command: [sh, -c, 'echo from the deployment; while true; do sleep 1; done']}]}
"""


class Tour:
    def __init__(self, kubeconfig, kubectl):
        self.kubectl = kubectl
        self.folder = tempfile.TemporaryDirectory()
        self.home = pathlib.Path(self.folder.name)
        self.env = {**os.environ, "KUBECONFIG": kubeconfig, "KUBECACHEDIR": str(self.home / "cache"), "TERM": "xterm", "HOME": str(self.home)}
        # A diff of the machine's own, whatever its user prefers.
        self.env.pop("KUBECTL_EXTERNAL_DIFF", None)
        version = json.loads(subprocess.run([kubectl, "version", "--client", "-o", "json"], env=self.env, capture_output=True, check=True).stdout)
        self.minor = int(version["clientVersion"]["minor"].rstrip("+"))

    def command(self, *words):
        return [self.kubectl, "-n", NAMESPACE, *words]

    def ask(self, *words, input=None, code=0):
        """Runs kubectl to its end; what it printed on both, and on stdout alone."""
        ran = subprocess.run(self.command(*words), env=self.env, input=input, capture_output=True, timeout=PATIENCE)
        out, err = ran.stdout.decode(), ran.stderr.decode()
        assert ran.returncode == code, f"{words}: exit {ran.returncode}\n{out}{err}"
        return out + err if code else out

    def until(self, what, look):
        """Looks until there is something to see."""
        end = time.monotonic() + PATIENCE
        last = None
        while time.monotonic() < end:
            try:
                if found := look():
                    return found
            except AssertionError as error:
                last = error
            time.sleep(0.2)
        raise AssertionError(f"{what} did not come to pass: {last}")

    def start(self, *words):
        return Running(subprocess.Popen(self.command(*words), env=self.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))

    def terminal(self, *words):
        return Terminal(self.command(*words), self.env)

    def file(self, name, text):
        path = self.home / name
        path.write_text(text)
        return str(path)


class Running:
    """A command that goes on until it is let go of."""

    def __init__(self, process):
        self.process = process
        self.seen = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()

    def say(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def until(self, pattern):
        """Reads until the pattern is there; what it matched."""
        end = time.monotonic() + PATIENCE
        while True:
            if found := re.search(pattern, self.seen):
                return found
            left = end - time.monotonic()
            assert left > 0, f"{pattern} did not come: {self.seen!r}"
            if not select.select([self.process.stdout], [], [], left)[0]:
                continue
            read = os.read(self.process.stdout.fileno(), 1 << 16)
            assert read, f"{pattern} did not come before the end: {self.seen!r}"
            self.seen += read.decode(errors="replace")


class Terminal:
    """The same on a terminal of 100 columns and 30 lines."""

    def __init__(self, command, env):
        self.seen = ""
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, env)
        self.size(30, 100)

    def size(self, lines, columns):
        import fcntl
        import struct
        import termios

        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        os.close(self.end)

    def say(self, text):
        os.write(self.end, text.encode())

    def until(self, pattern):
        end = time.monotonic() + PATIENCE
        while True:
            if found := re.search(pattern, self.seen):
                # What comes next is looked for behind it.
                self.seen = self.seen[found.end() :]
                return found
            left = end - time.monotonic()
            assert left > 0, f"{pattern} did not come: {self.seen!r}"
            if not select.select([self.end], [], [], left)[0]:
                continue
            try:
                read = os.read(self.end, 1 << 16)
            except OSError:
                read = b""
            assert read, f"{pattern} did not come before the end: {self.seen!r}"
            self.seen += read.decode(errors="replace")

    def ended(self):
        """Its exit code."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if select.select([self.end], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.end, 1 << 16).decode(errors="replace")
                except OSError:
                    pass
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
        raise AssertionError(f"it does not end: {self.seen!r}")


# === The steps ===


def exec_runs_a_command(tour):
    assert tour.ask("exec", "box", "--", "echo", "a b") == "a b\n"
    assert tour.ask("exec", "deploy/web", "--", "sh", "-c", "echo hi | tr a-z A-Z") == "HI\n"
    assert tour.ask("exec", "-i", "box", "-c", "main", "--", "sh", "-c", "cat; exit 7", input=b"typed", code=7).startswith("typed")
    told = tour.ask("exec", "box", "--", "nothing-there", code=1)
    assert 'exec: "nothing-there": executable file not found in $PATH' in told, told
    told = tour.ask("exec", "box", "-c", "other", "--", "true", code=1)
    assert "container other is not valid for pod box" in told, told
    much = os.urandom(3 << 20)
    ran = subprocess.run(tour.command("exec", "-i", "box", "--", "cat"), env=tour.env, input=much, capture_output=True, timeout=PATIENCE)
    assert ran.stdout == much, (len(ran.stdout), ran.stderr)


def exec_it_is_a_shell_on_a_terminal(tour):
    with tour.terminal("exec", "-it", "box", "--", "sh") as shell:
        shell.until(r"[#$] ")
        shell.say("echo $((6*7)) in $HOSTNAME\r")
        shell.until(r"\n42 in box\r\n")
        shell.say("[ -t 0 ] && echo $COLUMNS\r")
        shell.until(r"\n100\r\n")
        # ^C ends what runs, and not the shell.
        shell.say("sleep 1000\r")
        time.sleep(0.5)
        shell.say("\x03")
        shell.until(r"[#$] ")
        shell.say("echo $?\r")
        shell.until(r"\n130\r\n")
        shell.say("exit 5\r")
        assert shell.ended() == 5
    with tour.terminal("exec", "-it", "deploy/web", "--", "sh") as shell:
        shell.until(r"[#$] ")
        shell.say("\x04")
        assert shell.ended() == 0


def cp_copies_both_ways(tour):
    folder = tour.home / "there"
    (folder / "deep").mkdir(parents=True)
    (folder / "a b.txt").write_text("notes\n")
    (folder / "deep" / "bytes").write_bytes(os.urandom(1 << 20))
    tour.ask("cp", str(folder), "box:/tmp/there")
    assert tour.ask("exec", "box", "--", "cat", "/tmp/there/a b.txt") == "notes\n"
    digest = hashlib.sha256((folder / "deep" / "bytes").read_bytes()).hexdigest()
    assert tour.ask("exec", "box", "--", "sha256sum", "/tmp/there/deep/bytes").split()[0] == digest
    back = tour.home / "back"
    tour.ask("cp", f"{NAMESPACE}/box:/tmp/there", str(back), "-c", "main")
    assert (back / "a b.txt").read_text() == "notes\n"
    assert hashlib.sha256((back / "deep" / "bytes").read_bytes()).hexdigest() == digest
    # A component that is no toolbox has the node's.
    tour.ask("cp", str(folder / "a b.txt"), "hello:/tmp/a")
    # It ends with 0 or 1, as it hears of the archive's end or the command's first.
    subprocess.run(tour.command("cp", "box:/tmp/none", str(tour.home / "none")), env=tour.env, capture_output=True, timeout=PATIENCE)
    assert not (tour.home / "none").exists()


def port_forward_leads_to_a_port(tour):
    for target, port in [("pod/hello", "8080"), ("pod/hello", "web"), ("svc/hello", "80"), ("svc/hello", "web")]:
        with tour.start("port-forward", target, f":{port}") as forward:
            at = forward.until(r"Forwarding from 127\.0\.0\.1:(\d+) -> 8080\n")[1]
            for _ in range(3):
                assert b"hello" in urllib.request.urlopen(f"http://127.0.0.1:{at}/", timeout=PATIENCE).read()
            forward.until("Handling connection for " + at)
    with tour.start("port-forward", "pod/hello", ":9") as forward:
        at = forward.until(r"Forwarding from 127\.0\.0\.1:(\d+) -> 9\n")[1]
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{at}/", timeout=PATIENCE)
            raise AssertionError("somebody answered")
        except OSError:
            pass
        forward.until("connection refused")


def attach_looks_and_types(tour):
    with tour.start("attach", "box") as seen:
        seen.until("tick\r?\ntick\r?\n")
    with tour.start("attach", "-i", "echo") as typed:
        time.sleep(1)
        typed.say("one\n")
        typed.until("heard one\n")
        typed.say("two\n")
        typed.until("heard two\n")
    told = tour.ask("attach", "none", code=1)
    assert 'pods "none" not found' in told, told


def run_makes_a_pod_and_removes_it(tour):
    ran = tour.ask("run", "once", "--rm", "-i", "--image=toolbox", "--restart=Never", "--", "sh", "-c", "cat; echo bye", input=b"typed\n")
    assert "typed\n" in ran and "bye\n" in ran and 'pod "once" deleted' in ran, ran
    with tour.terminal("run", "inter", "--rm", "-it", "--image=toolbox", "--restart=Never", "--", "sh") as shell:
        shell.say("echo $((6*7))\r")
        shell.until(r"\n42\r\n")
        shell.say("exit\r")
        assert shell.ended() == 0, shell.seen


def debug_adds_a_container_and_copies_a_pod(tour):
    # With the image that every node has: nothing was pushed under this name.
    with tour.terminal("debug", "-it", "hello", "--image=toolbox", "--", "sh") as shell:
        # Its prompt may have come before anybody looked.
        shell.until("try pressing enter")
        shell.say("\r")
        shell.until(r"[#$] ")
        shell.say("echo $((6*7)) in $HOSTNAME\r")
        shell.until(r"\n42 in hello\r\n")
        shell.say("wget -qO- http://localhost:8080/\r")
        shell.until(r"\nhello")
        shell.say("exit\r")
        assert shell.ended() == 0, shell.seen
    tour.ask("debug", "hello", "--image=toolbox", "-c", "looker", "--target=main", "--", "sh", "-c", "echo debugged")
    tour.until("what was added has spoken", lambda: tour.ask("logs", "hello", "-c", "looker") == "debugged\n")
    described = tour.ask("describe", "pod", "hello")
    assert "Ephemeral Containers:" in described and "looker:" in described, described
    tour.ask("debug", "hello", "--copy-to=hello-copy", "--image=toolbox", "-c", "looker", "--", "sh", "-c", "echo copied; sleep 1000")
    tour.until("the copy has spoken", lambda: "copied\n" in tour.ask("logs", "hello-copy", "-c", "looker"))
    tour.ask("delete", "pod", "hello-copy", "--wait=false")


def logs_with_every_option(tour):
    # A time to ask from, by the log's own stamps: three ticks are two seconds after what it began with, however long ago the pod started.
    ticks = tour.until("three ticks", lambda: [line.split()[0] for line in tour.ask("logs", "box", "--timestamps").splitlines() if line.endswith(" tick")][2:])
    last = tour.ask("logs", "box", "--tail=1")
    assert last == "tick\n", last
    first = tour.ask("logs", "box", "--limit-bytes=5")
    assert first == "begun", first
    whole = tour.ask("logs", "box")
    assert whole.startswith("begun\noops\ntick\n"), whole
    later = tour.ask("logs", "box", "--since-time", ticks[0])
    assert later.startswith("tick\n") and "begun" not in later, later
    for since in [["--since=10s"], ["--since-time", ticks[0]]]:
        with tour.start("logs", "-f", *since, "box") as seen:
            seen.until("tick\ntick\n")
    stamped = tour.ask("logs", "box", "--timestamps", "--tail=2").splitlines()
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z tick", line) for line in stamped), stamped
    prefixed = tour.ask("logs", "-l", "app=web", "--prefix", "--all-containers")
    assert re.search(r"^\[pod/web-\S+/main\] from the deployment$", prefixed, re.M), prefixed
    assert tour.ask("logs", "deploy/web") == "from the deployment\n"
    tour.until("its life before", lambda: tour.ask("logs", "again", "--previous") == "life of again\n")
    told = tour.ask("logs", "box", "--previous", code=1)
    assert 'previous terminated container "main" in pod "box" not found' in told, told
    told = tour.ask("logs", "box", "-c", "other", code=1)
    assert "container other is not valid for pod box" in told, told


def top_shows_nodes_and_pods(tour):
    nodes = tour.until("nodes are measured", lambda: tour.ask("top", "node"))
    assert re.search(r"^NAME +CPU\(cores\) +CPU(\(%\)|%) +MEMORY\(bytes\) +MEMORY(\(%\)|%)", nodes), nodes
    assert re.search(r"^node-1 +\d+m +\d+% +\d+Mi +\d+%", nodes, re.M), nodes
    pods = tour.until("pods are measured", lambda: tour.ask("top", "pod", "box"))
    assert re.search(r"^box +\d+m +\d+Mi", pods, re.M), pods
    pods = tour.ask("top", "pod", "--containers", "--sort-by=cpu")
    assert re.search(r"^box +main +\d+m +\d+Mi", pods, re.M), pods
    assert "web-" in tour.ask("top", "pod", "-l", "app=web", "--no-headers", "--sum=false")


def auth_says_who_may(tour):
    rules = tour.ask("auth", "can-i", "--list")
    assert re.search(r"^\*\.\* +\[\] +\[\] +\[\*\]", rules, re.M), rules
    assert tour.ask("auth", "can-i", "create", "pods") == "yes\n"
    account = f"--as=system:serviceaccount:{NAMESPACE}:looker"
    tour.ask("create", "serviceaccount", "looker")
    assert tour.ask("auth", "can-i", "get", "pods/log", account, code=1).startswith("no\n")
    tour.ask("create", "role", "looks", "--verb=get,list", "--resource=pods,pods/log")
    tour.ask("create", "rolebinding", "looks", "--role=looks", f"--serviceaccount={NAMESPACE}:looker")
    tour.until("the binding is known", lambda: tour.ask("auth", "can-i", "get", "pods", "--subresource=log", account))
    rules = tour.ask("auth", "can-i", "--list", account)
    assert re.search(r"^pods/log +\[\] +\[\] +\[get list\]", rules, re.M), rules
    assert re.search(r"\[/healthz\] ", rules), rules
    assert re.search(r"^Username +\S+", tour.ask("auth", "whoami"), re.M)


def tokens_are_made_and_used(tour):
    token = tour.ask("create", "token", "looker", "--duration=1h").strip()
    part = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    assert claims["sub"] == f"system:serviceaccount:{NAMESPACE}:looker" and claims["exp"] - claims["iat"] == 3600, claims
    # A client with the token and none of the administrator's certificate.
    config = json.loads(tour.ask("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": user["name"], "user": {"token": token}} for user in config["users"]]
    path = tour.file("looker.json", json.dumps(config))
    assert "box" in tour.ask("--kubeconfig", path, "get", "pods")
    told = tour.ask("--kubeconfig", path, "get", "secrets", code=1)
    assert f'User "system:serviceaccount:{NAMESPACE}:looker" cannot list resource "secrets"' in told, told
    bound = tour.ask("create", "token", "looker", "--audience=there", "--bound-object-kind=Pod", "--bound-object-name=box", code=1)
    assert "must match" in bound or "does not" in bound or "cannot bind" in bound, bound


def certificates_are_approved_and_denied(tour):
    key, request = str(tour.home / "key.pem"), str(tour.home / "request.pem")
    subprocess.run(["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=ann"], check=True, capture_output=True)
    asked = base64.b64encode(pathlib.Path(request).read_bytes()).decode()
    for name in ["tour-ann", "tour-bob"]:
        tour.ask("delete", "csr", name, "--ignore-not-found")
        spec = {"request": asked, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"]}
        body = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name}, "spec": spec}
        tour.ask("create", "-f", tour.file(f"{name}.json", json.dumps(body)))
    assert re.search(r"^tour-ann .* Pending$", tour.ask("get", "csr"), re.M)
    assert "certificatesigningrequest.certificates.k8s.io/tour-ann approved" in tour.ask("certificate", "approve", "tour-ann")
    assert "tour-bob denied" in tour.ask("certificate", "deny", "tour-bob")
    tour.until("it is issued", lambda: re.search(r"^tour-ann .* Approved,Issued$", tour.ask("get", "csr"), re.M))
    assert re.search(r"^tour-bob .* Denied$", tour.ask("get", "csr"), re.M)
    issued = base64.b64decode(tour.ask("get", "csr", "tour-ann", "-o", "jsonpath={.status.certificate}"))
    certificate = tour.file("ann.pem", issued.decode())
    config = json.loads(tour.ask("config", "view", "--raw", "-o", "json"))
    user = {"client-certificate": certificate, "client-key": key}
    config["users"] = [{"name": one["name"], "user": user} for one in config["users"]]
    told = tour.ask("--kubeconfig", tour.file("ann.json", json.dumps(config)), "get", "pods", code=1)
    assert 'User "ann" cannot list resource "pods"' in told, told
    tour.ask("delete", "csr", "tour-ann", "tour-bob")


def proxy_serves_the_api_here(tour):
    with tour.start("proxy", "--port=0") as proxy:
        at = proxy.until(r"Starting to serve on (127\.0\.0\.1:\d+)\n")[1]
        read = lambda path: urllib.request.urlopen(f"http://{at}{path}", timeout=PATIENCE).read().decode()
        assert json.loads(read("/api/v1/namespaces/tour/pods/box"))["metadata"]["name"] == "box"
        for path in ["pods/hello:8080", "services/hello:web", "services/hello:80"]:
            assert "hello" in read(f"/api/v1/namespaces/tour/{path}/proxy/"), path
        assert "gitVersion" in read("/version")


def diff_shows_what_would_change(tour):
    path = tour.file("objects.yaml", OBJECTS)
    assert tour.ask("diff", "-f", path) == ""
    changed = tour.file("changed.yaml", OBJECTS.replace("replicas: 2", "replicas: 3"))
    told = tour.ask("diff", "-f", changed, code=1)
    assert re.search(r"^-  replicas: 2$", told, re.M) and re.search(r"^\+  replicas: 3$", told, re.M), told
    told = tour.ask("diff", "--server-side", "--field-manager=kubectl-client-side-apply", "--force-conflicts", "-f", changed, code=1)
    assert re.search(r"^\+  replicas: 3$", told, re.M), told


def wait_waits(tour):
    assert tour.ask("wait", "--for=condition=Ready", "pod/box", "--timeout=60s") == "pod/box condition met\n"
    assert "deployment.apps/web condition met" in tour.ask("wait", "--for=condition=Available", "deploy/web", "--timeout=60s")
    assert "condition met" in tour.ask("wait", "--for=jsonpath={.status.phase}=Running", "pod/box", "--timeout=60s")
    told = tour.ask("wait", "--for=condition=Gone", "pod/box", "--timeout=1s", code=1)
    assert "timed out waiting for the condition on pods/box" in told, told
    with tour.start("wait", "--for=create", "configmap/late", "--timeout=60s") as waiting:
        time.sleep(1)
        tour.ask("create", "configmap", "late")
        waiting.until("configmap/late condition met")
    with tour.start("wait", "--for=delete", "configmap/late", "--timeout=60s") as waiting:
        time.sleep(1)
        tour.ask("delete", "configmap", "late")
        waiting.until("configmap/late condition met")


def events_are_told(tour):
    told = tour.ask("events", "--for", "pod/box")
    assert re.match(r"LAST SEEN +TYPE +REASON +OBJECT +MESSAGE\n", told), told
    for reason in ["Scheduled", "Pulled", "Created", "Started"]:
        assert re.search(rf"Normal +{reason} +Pod/box ", told), told
    assert "BackOff" in tour.until("it backs off", lambda: (found := tour.ask("events", "--types=Warning", "--for=pod/again")) and "BackOff" in found and found)
    with tour.start("events", "--watch", "--for=configmap/none") as watching:
        event = {"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": "e-"}, "type": "Normal", "reason": "Told", "message": "it is told"}
        event["involvedObject"] = {"kind": "ConfigMap", "name": "none", "namespace": NAMESPACE, "apiVersion": "v1"}
        time.sleep(1)
        tour.ask("create", "-f", tour.file("event.json", json.dumps(event)))
        watching.until(r"Normal +Told +ConfigMap/none +it is told")


def explain_knows_every_field(tour):
    told = tour.ask("explain", "pods", "--recursive")
    for line in [r"^KIND: +Pod$", r"^ +containers\t<\[\]Container> -required-$", r"^ +terminationGracePeriodSeconds\t<integer>$"]:
        assert re.search(line, told, re.M), (line, told[:2000])
    told = tour.ask("explain", "deployment.spec.strategy.rollingUpdate")
    assert "maxSurge" in told and "FIELDS:" in told, told
    told = tour.ask("explain", "httproutes.gateway.networking.k8s.io", "--recursive")
    assert re.search(r"^ +backendRefs\t<\[\]Object>$", told, re.M), told
    told = tour.ask("explain", "capabilitygrants", "--recursive")
    assert "KIND:       CapabilityGrant" in told, told


STEPS = [
    exec_runs_a_command,
    exec_it_is_a_shell_on_a_terminal,
    cp_copies_both_ways,
    port_forward_leads_to_a_port,
    attach_looks_and_types,
    run_makes_a_pod_and_removes_it,
    debug_adds_a_container_and_copies_a_pod,
    logs_with_every_option,
    top_shows_nodes_and_pods,
    auth_says_who_may,
    tokens_are_made_and_used,
    certificates_are_approved_and_denied,
    proxy_serves_the_api_here,
    diff_shows_what_would_change,
    wait_waits,
    events_are_told,
    explain_knows_every_field,
]


def main():
    tour = Tour(*sys.argv[1:3])
    chosen = [step for step in STEPS if len(sys.argv) < 4 or step.__name__ in sys.argv[3:]]
    subprocess.run([tour.kubectl, "create", "namespace", NAMESPACE], env=tour.env, check=True, capture_output=True)
    failed = 0
    try:
        tour.until("its account is there", lambda: tour.ask("get", "serviceaccount", "default"))
        tour.ask("apply", "-f", tour.file("objects.yaml", OBJECTS))
        for pod in ["hello", "box", "echo"]:
            tour.ask("wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=80s")
        tour.ask("rollout", "status", "deploy/web", "--timeout=80s")
        for step in chosen:
            begun = time.monotonic()
            try:
                step(tour)
                print(f"ok {time.monotonic() - begun:.1f}s {step.__name__}", flush=True)
            except Exception as error:  # The others are tried all the same.
                failed += 1
                print(f"FAILED {step.__name__}: {type(error).__name__} {error}", flush=True)
    finally:
        subprocess.run([tour.kubectl, "delete", "namespace", NAMESPACE, "--wait=true"], env=tour.env, capture_output=True, timeout=PATIENCE)
    print(f"kubectl 1.{tour.minor}: {len(chosen) - failed} of {len(chosen)} steps")
    sys.exit(1 if failed else 0)


main()
