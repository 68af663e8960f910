# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tiny engine around the runtime: an image made of busybox, and containers whose config.json ``spec`` generates."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import tempfile
import time

import pytest
from module_utils._engine.errors import WharfError
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.cgroups import Layout
from module_utils._engine.paths import Paths
from module_utils._engine.runtime import logs, spec, wire
from module_utils._engine.runtime.client import Runtime
from module_utils._engine.runtime.exec import ExecSpec

BUSYBOX = "/bin/busybox"
APPLETS = [
    "sh",
    "cat",
    "echo",
    "ls",
    "id",
    "sleep",
    "true",
    "false",
    "kill",
    "ps",
    "env",
    "pwd",
    "hostname",
    "stat",
    "grep",
    "mount",
    "touch",
    "wc",
    "head",
    "dd",
    "trap",
    "test",
    "mkdir",
    "readlink",
    "tty",
    "stty",
    "seq",
    "yes",
    "date",
    "nc",
    "chmod",
    "rm",
    "ln",
    "umount",
    "unshare",
]

pytestmark = pytest.mark.root


def make_tree(directory):
    """A layer of form "tree" with busybox and what an image usually has."""
    tree = directory + "/tree"
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev", "root", "home/app"):
        os.makedirs("%s/%s" % (tree, name))
    os.chmod(tree + "/tmp", 0o1777)
    shutil.copy(BUSYBOX, tree + "/bin/busybox")
    for applet in APPLETS:
        os.symlink("busybox", "%s/bin/%s" % (tree, applet))
    with open(tree + "/etc/passwd", "w") as stream:
        stream.write(
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\nbad:x:4294967296:0::/:/bin/sh\n"
        )
    with open(tree + "/etc/group", "w") as stream:
        stream.write("root:x:0:\napp:x:1000:\nextra:x:2000:app\nmore:x:3000:\n")
    os.chown(tree + "/home/app", 1000, 1000)
    return tree


class Harness:
    def __init__(self, state, run):
        self.paths = Paths(state, run)
        self.paths.ensure()
        self.runtime = Runtime(self.paths)
        self.layers = self.paths.layers + "/base"
        self.tree = make_tree(self.layers)
        self.ids = []

    def create(self, command, *, layers=None, run=None, netns=True, hostname="box", volumes=(), userns=None, **asked):
        cid = secrets.token_hex(32)
        self.ids.append(cid)
        directory = self.paths.container(cid)
        os.makedirs(directory + "/files")
        context = {
            "id": cid, "name": "test", "netns_path": None, "new_netns": netns, "hostname": hostname,
            "files_dir": directory + "/files", "volumes": list(volumes), "cgroup": "%s/%s" % (self.paths.cgroup, cid),
            "userns": userns,
        }  # fmt: skip
        for name, text in (("hosts", "127.0.0.1\tlocalhost\n"), ("hostname", hostname + "\n"), ("resolv.conf", "")):
            with open("%s/files/%s" % (directory, name), "w") as stream:
                stream.write(text)
        asked.setdefault("command", command)
        config = spec.generate(asked, {}, context)
        with open(directory + "/config.json", "w") as stream:
            json.dump(config, stream)
        settings = {
            "id": cid,
            "name": "test",
            "layers": [{"path": path, "form": "tree"} for path in (layers or [self.layers])],
            "upper": directory + "/upper",
            "work": directory + "/work",
            "rootfs_readonly": False,
            "log": {"driver": "json-file", "path": directory + "/log", "max_size": None, "max_file": 1},
            "tty": bool(asked.get("tty")),
            "open_stdin": bool(asked.get("interactive")),
            "restart": {"policy": "no", "retries": 0},
            "stop_signal": 15,
            "stop_timeout": 10,
            "healthcheck": None,
            "reserve": [],
            "cgroup": context["cgroup"],
            "uid_user": asked.get("user", ""),
            "groups": asked.get("groups", []),
            "init": bool(asked.get("init")),
            "on_exit": [],
        }
        settings.update(run or {})
        with open(directory + "/run.json", "w") as stream:
            json.dump(settings, stream)
        return cid

    def run(self, command, **more):
        """Create, start, wait for the end: ``(state, stdout, stderr)``."""
        cid = self.create(command, **more)
        self.runtime.start(cid)
        state = self.runtime.wait(cid, timeout=20)
        return state, self.output(cid, "stdout"), self.output(cid, "stderr")

    def sh(self, script, **more):
        return self.run(["/bin/sh", "-c", script], **more)

    def start(self, script, **more):
        cid = self.create(["/bin/sh", "-c", script], **more)
        self.runtime.start(cid)
        return cid

    def exec(self, cid, *argv, stdin=b"", **more):
        return self.runtime.exec(cid, ExecSpec(list(argv), **more), stdin)

    def output(self, cid, stream="stdout"):
        return "".join(r["log"] for r in logs.read(self.paths.container(cid) + "/log", streams=(stream,)))

    def until(self, condition, timeout=10.0):
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "not within %g seconds" % timeout
            time.sleep(0.01)

    def leavings(self, cid):
        """Everything of a container that is not in its state directory: should be empty once it has ended."""
        found = []
        for hierarchy in Layout.detect().hierarchies:
            path = "%s/%s/%s" % (hierarchy.mountpoint, self.paths.cgroup, cid)
            if os.path.exists(path):
                found.append(path)
        if os.path.exists(self.paths.container_run(cid)):
            found.append(self.paths.container_run(cid))
        found += [m.target for m in procfs.mountinfo() if self.paths.state in m.target or self.paths.run in m.target]
        return found

    def spawner_pid(self):
        with wire.connect(self.paths.spawner_socket, 5) as sock:
            wire.send_line(sock, {"op": "ping"})
            return wire.LineReader(sock).wait()["pid"]

    def close(self):
        for cid in self.ids:
            try:
                self.runtime.delete(cid)
            except WharfError as error:
                print(cid, error)
        try:
            pid = self.spawner_pid()
            with wire.connect(self.paths.spawner_socket, 5) as sock:
                wire.send_line(sock, {"op": "quit"})
                wire.LineReader(sock).wait()
            self.until(lambda: procfs.stat(pid) is None or procfs.stat(pid).state == "Z", 5)
        except OSError:
            pass
        for hierarchy in Layout.detect().hierarchies:
            try:
                os.rmdir("%s/%s" % (hierarchy.mountpoint, self.paths.cgroup))
            except FileNotFoundError:
                pass


@pytest.fixture(scope="session")
def engine():
    if os.geteuid() != 0:
        pytest.skip("needs root")
    state = tempfile.mkdtemp(prefix="wharf-state-", dir="/var/tmp")
    run = tempfile.mkdtemp(prefix="wt", dir="/run")
    harness = Harness(state, run)
    try:
        yield harness
    finally:
        with open(run + "/spawner.log", "a+") as stream:
            stream.seek(0)
            print(stream.read())
        harness.close()
        shutil.rmtree(state, ignore_errors=True)
        shutil.rmtree(run, ignore_errors=True)


@pytest.fixture
def kill():
    return lambda pid: os.kill(pid, signal.SIGKILL)
