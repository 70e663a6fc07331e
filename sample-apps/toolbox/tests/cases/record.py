#!/usr/bin/env python3
"""Asks dash and busybox' ash for the answers to the cases in this folder and writes them beside.

Usage: record.py DASH BUSYBOX (Debian's packages of the same names). A case is a script behind a line `#### name`; it is
run as `sh -c SCRIPT` in an empty folder with nothing on stdin. What both shells say alike is the answer; where they
differ it is busybox', whose words the errors are, or dash's for a case marked `[dash]`, whose words are not held to.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}


def cases(path):
    name, lines = None, []
    for line in path.read_text().splitlines(keepends=True):
        if line.startswith("#### "):
            if name is not None:
                yield name, "".join(lines)
            name, lines = line[5:].strip(), []
        else:
            lines.append(line)
    if name is not None:
        yield name, "".join(lines)


def ask(shell, script):
    folder = tempfile.mkdtemp()
    try:
        done = subprocess.run(
            ["sh", "-c", script],
            executable=shell,
            cwd=folder,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=20,
        )
    except subprocess.TimeoutExpired:
        return "", "", "timeout"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = lambda data: data.decode("utf-8", "backslashreplace")
    status = done.returncode if done.returncode >= 0 else 128 - done.returncode
    return text(done.stdout), text(done.stderr), status


def main():
    tools = pathlib.Path(tempfile.mkdtemp())
    (tools / "dash").mkdir()
    (tools / "ash").mkdir()
    # A shell that a case starts is the same one.
    for folder, shell in (("dash", sys.argv[1]), ("ash", sys.argv[2])):
        os.symlink(os.path.abspath(shell), tools / folder / "sh")
    count, differ = 0, 0
    for path in sorted(HERE.glob("*.sh")):
        answers = {}
        for name, script in cases(path):
            count += 1
            found = {}
            for folder in ("dash", "ash"):
                ENVIRONMENT["PATH"] = f"{tools / folder}:/usr/bin:/bin"
                found[folder] = ask(tools / folder / "sh", script)
            # The same errors in other words are no difference.
            same = found["dash"][0] == found["ash"][0] and found["dash"][2] == found["ash"][2]
            source = "dash" if name.endswith("[dash]") else "ash"
            differ += not same
            stdout, _, status = found[source]
            answer = {"status": status, "stdout": stdout}
            if source == "ash":
                answer["stderr"] = found["ash"][1]
            if not same:
                answer["only"] = source
            answers[name] = answer
        text = json.dumps(answers, indent=1, ensure_ascii=False, sort_keys=False)
        path.with_suffix(".json").write_text(text + "\n")
    shutil.rmtree(tools)
    print(f"{count} cases, {differ} of them answered differently by the two shells")


main()
