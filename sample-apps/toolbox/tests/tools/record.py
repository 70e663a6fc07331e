#!/usr/bin/env python3
"""Writes the answers of busybox to the scripts beside this file into *.json.

    record.py BUSYBOX [TOPIC...]

A script whose name ends in [gnu] is answered by the system's own tools instead. Scripts run in an empty folder, with busybox' applets
alone on the path.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile


def cases(text):
    name, script = None, ""
    for line in text.splitlines(keepends=True):
        if line.startswith("#### "):
            if name is not None:
                yield name, script
            name, script = line[5:].strip(), ""
        else:
            script += line
    yield name, script


def main():
    here = pathlib.Path(__file__).parent
    busybox = pathlib.Path(sys.argv[1]).resolve()
    topics = sys.argv[2:] or sorted(path.stem for path in here.glob("*.sh"))
    with tempfile.TemporaryDirectory() as bin_folder:
        for applet in subprocess.check_output([busybox, "--list"], text=True).split():
            os.symlink(busybox, f"{bin_folder}/{applet}")
        for topic in topics:
            answers = {}
            for name, script in cases((here / f"{topic}.sh").read_text()):
                gnu = name.endswith("[gnu]")
                path = "/usr/bin:/bin" if gnu else bin_folder
                shell = ["/bin/sh", "-c", script] if gnu else [busybox, "sh", "-c", script]
                with tempfile.TemporaryDirectory() as folder:
                    done = subprocess.run(
                        shell,
                        cwd=folder,
                        env={"PATH": path, "HOME": "/root", "LC_ALL": "C", "TZ": "UTC"},
                        stdin=subprocess.DEVNULL,
                        capture_output=True,
                        timeout=60,
                    )
                answers[name] = {
                    "status": done.returncode,
                    "stdout": done.stdout.decode("utf-8", "replace"),
                    "stderr": done.stderr.decode("utf-8", "replace"),
                }
            text = json.dumps(answers, indent=1, ensure_ascii=False)
            (here / f"{topic}.json").write_text(text + "\n")


main()
