"""k9s in a terminal: it lists pods, describes one, follows its log, opens a shell in it and forwards a port of it.

    k9s.py KUBECONFIG K9S KUBECTL

The cluster's registry has `hello:1` and `toolbox:1`. k9s is a program for eyes: what is judged is the screen, as a terminal of 160 columns shows it (pyte). Run
by `tour.rs`.
"""

import os
import pathlib
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request

import fcntl
import termios

import pyte

NAMESPACE = "k9s"
PATIENCE = 60
LINES, COLUMNS = 50, 160

OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: hello}
spec: {containers: [{name: main, image: 'hello:1', ports: [{name: web, containerPort: 18080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: box}
spec: {containers: [{name: main, image: 'toolbox:1', command: [sh, -c, 'n=0; while true; do n=$((n+1)); echo tick $n; sleep 1; done']}]}
"""


class Screen:
    """k9s, and what is seen of it."""

    def __init__(self, command, env):
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.stream = pyte.ByteStream(self.screen)
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.execve(command[0], command, env)
        fcntl.ioctl(self.end, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        os.kill(self.pid, signal.SIGWINCH)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.end)

    def text(self):
        return "\n".join(line.rstrip() for line in self.screen.display)

    def look(self, seconds):
        """Takes in what comes for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([self.end], [], [], left)[0]:
                self.stream.feed(os.read(self.end, 1 << 16))

    def until(self, pattern):
        """Looks until the pattern is on the screen; what it matched."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := re.search(pattern, self.text(), re.M):
                return found
            self.look(0.2)
        raise AssertionError(f"{pattern} is not on the screen:\n{self.text()}")

    def press(self, keys):
        for key in keys if isinstance(keys, list) else [keys]:
            os.write(self.end, key.encode())
            self.look(0.3)


ENTER, ESCAPE, DOWN, TAB = "\r", "\x1b", "\x1b[B", "\t"


def choose(screen, pod):
    """Puts the mark on a pod, by a filter that leaves no other."""
    screen.until(r"Pods\(k9s\)|pods\(k9s\)")
    screen.press(["/", *pod, ENTER])
    screen.until(rf"(?i)pods\(k9s\)\[1\]")
    screen.until(rf"^.?\s*{pod}\s+")


def lists(screen):
    screen.until(r"(?i)pods\(k9s\)\[2\]")
    screen.until(r"box\s+●?\s*1/1\s+Running")
    screen.until(r"hello\s+●?\s*1/1\s+Running")


def describes(screen):
    choose(screen, "box")
    screen.press("d")
    screen.until(r"Describe\(k9s/box\)")
    screen.until(r"Name:\s+box")
    screen.until(r"Namespace:\s+k9s")
    screen.press(ESCAPE)


def follows_logs(screen):
    choose(screen, "box")
    screen.press("l")
    screen.until(r"Logs\(k9s/box")
    seen = int(screen.until(r"tick (\d+)")[1])
    # It goes on by itself.
    screen.until(rf"tick {seen + 30}|tick {seen + 6}\b")
    screen.press(ESCAPE)


def opens_a_shell(screen):
    choose(screen, "box")
    screen.press("s")
    screen.until(r"K9s-Shell")
    screen.until(r"[#$] ?$")
    screen.press([*"echo $((6*7)) in $HOSTNAME", ENTER])
    screen.until(r"^42 in box")
    screen.press([*"exit", ENTER])
    screen.until(r"(?i)pods\(k9s\)")


def forwards_a_port(screen):
    choose(screen, "hello")
    # Shift-F, and a form that has the container's port already; the local one is put beside it.
    screen.press("F")
    screen.until(r"PortForward|Port-?Forward")
    text = screen.text()
    assert "18080" in text, text
    # To OK, past container port, local port and address.
    screen.press([TAB, TAB, TAB, ENTER])
    end = time.monotonic() + PATIENCE
    while True:
        try:
            assert b"hello" in urllib.request.urlopen("http://localhost:18080/", timeout=5).read()
            break
        except OSError as error:
            if time.monotonic() > end:
                raise AssertionError(f"{error}\n{screen.text()}")
            screen.look(0.5)


STEPS = [lists, describes, follows_logs, opens_a_shell, forwards_a_port]


def main():
    kubeconfig, k9s, kubectl = sys.argv[1:4]
    chosen = [step for step in STEPS if len(sys.argv) < 5 or step.__name__ in sys.argv[4:]]
    with tempfile.TemporaryDirectory() as folder:
        home = pathlib.Path(folder)
        # It opens a shell by kubectl.
        programs = home / "bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(kubectl)
        env = {
            **os.environ,
            "KUBECONFIG": kubeconfig,
            "HOME": str(home),
            "TERM": "xterm-256color",
            "COLORTERM": "",
            "EDITOR": "true",
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"]:
            env[name] = str(home / name.lower())
        ask = lambda *words, input=None: subprocess.run([kubectl, *words], env=env, input=input, check=True, capture_output=True, timeout=120)
        ask("create", "namespace", NAMESPACE)
        failed = 0
        try:
            ask("-n", NAMESPACE, "apply", "-f", "-", input=OBJECTS.encode())
            for pod in ["hello", "box"]:
                ask("-n", NAMESPACE, "wait", "--for=condition=Ready", f"pod/{pod}", "--timeout=100s")
            for step in chosen:
                command = [k9s, "--kubeconfig", kubeconfig, "--namespace", NAMESPACE, "--command", "pods", "--logoless", "--splashless"]
                with Screen(command, env) as screen:
                    try:
                        step(screen)
                        print(f"ok {step.__name__}", flush=True)
                    except Exception as error:  # The others are tried all the same.
                        failed += 1
                        print(f"FAILED {step.__name__}: {type(error).__name__} {error}", flush=True)
        finally:
            subprocess.run([kubectl, "delete", "namespace", NAMESPACE], env=env, capture_output=True, timeout=120)
    print(f"k9s: {len(chosen) - failed} of {len(chosen)} steps")
    sys.exit(1 if failed else 0)


main()
