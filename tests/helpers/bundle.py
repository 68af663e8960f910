# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bundles made of busybox, and the runtime's executable called as its callers do."""

from __future__ import annotations

import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from typing import Any

from module_utils._engine.oci import template

PLUGINS = os.path.normpath(os.path.join(os.path.dirname(__file__), "../../plugins"))
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); sys.dont_write_bytecode = True; "
    "from module_utils._engine.oci import slim; slim.install(); "
    "from module_utils._engine.oci.main import main; sys.exit(main(sys.argv[1:]))"
)
COMMAND = [sys.executable, "-I", "-S", "-c", _BOOT, PLUGINS]
_NAMES = (
    "sh cat echo ls id sleep true false kill ps env pwd hostname stat grep mount touch wc head dd test mkdir readlink "
    "tty stty seq yes date chmod rm ln umount unshare chown mknod sort cut tr uname od printf ip nice mkfifo"
)
APPLETS = _NAMES.split(" ")


def make_root(path: str) -> str:
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/app"):
        os.makedirs("%s/%s" % (path, name))
    os.chmod(path + "/tmp", 0o1777)
    shutil.copy("/bin/busybox", path + "/bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", "%s/bin/%s" % (path, applet))
    with open(path + "/etc/passwd", "w") as stream:
        stream.write("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n")
    return path


class Bundle:
    """A bundle directory; ``config`` is written by every call of the runtime that reads it."""

    def __init__(self, directory: str, run: str) -> None:
        self.path = directory
        self.run_root = run
        self.ids: list[str] = []
        os.makedirs(directory, exist_ok=True)
        make_root(directory + "/rootfs")
        self.config: dict[str, Any] = copy.deepcopy(template.template())
        self.config["process"].update(terminal=False, args=["sleep", "1000"])
        self.config["root"]["readonly"] = False
        self.linux: dict[str, Any] = self.config["linux"]
        self.process: dict[str, Any] = self.config["process"]

    def new_id(self) -> str:
        name = "wharf-oci-" + secrets.token_hex(4)
        self.ids.append(name)
        self.linux["cgroupsPath"] = "/" + name
        return name

    def argv(self, *words: str) -> list[str]:
        return [*COMMAND, "--root", self.run_root, *words]

    def call(self, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
        with open(self.path + "/config.json", "w") as stream:
            json.dump(self.config, stream)
        options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "cwd": self.path, "timeout": 120, "text": True}
        options.update(more)
        if "stdout" not in options:
            options["stdout"] = subprocess.PIPE
            options.setdefault("stderr", subprocess.PIPE)
        return subprocess.run(self.argv(*words), check=False, **options)

    def must(self, *words: str, **more: Any) -> str:
        result = self.call(*words, **more)
        assert result.returncode == 0, result.stderr
        return str(result.stdout)

    def refused(self, *words: str, code: int = 1, **more: Any) -> str:
        """The error of a call that must fail."""
        result = self.call(*words, **more)
        assert result.returncode == code, (result.returncode, result.stdout, result.stderr)
        return str(result.stderr)

    def sh(self, script: str, *options: str, **more: Any) -> str:
        """What ``sh -c script`` says as the container's program, run in the foreground."""
        self.process["args"] = ["sh", "-c", script]
        return self.must("run", *options, self.new_id(), **more)

    def start(self, *options: str) -> str:
        """A running container; its id. Its output goes nowhere: it must not hold the test's pipes."""
        name = self.new_id()
        with open(self.path + "/stderr", "w+") as errors:
            result = self.call("run", "--detach", *options, name, stdout=subprocess.DEVNULL, stderr=errors)
            errors.seek(0)
            assert result.returncode == 0, errors.read()
        return name

    def create(self, *options: str) -> str:
        name = self.new_id()
        with open(self.path + "/stderr", "w+") as errors:
            result = self.call("create", *options, name, stdout=subprocess.DEVNULL, stderr=errors)
            errors.seek(0)
            assert result.returncode == 0, errors.read()
        return name

    def state(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.must("state", name))
        return found

    def wait_for(self, name: str, status: str) -> dict[str, Any]:
        deadline = time.monotonic() + 60
        while True:
            found = self.state(name)
            if found["status"] == status:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.02)

    def clean(self) -> None:
        for name in self.ids:
            self.call("delete", "--force", name)
        left = os.listdir(self.run_root) if os.path.isdir(self.run_root) else []
        shutil.rmtree(self.run_root, ignore_errors=True)
        assert not left, "state of %s is left" % left


def cgroup_directories(name: str) -> list[str]:
    """Where the host has cgroups of that name."""
    with open("/proc/self/mountinfo") as lines:
        points = [line.split(" ")[4] for line in lines if " - cgroup" in line]
    return [point + "/" + name for point in points if os.path.isdir(point + "/" + name)]
