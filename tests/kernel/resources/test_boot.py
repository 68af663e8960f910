# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""After a boot: nothing runs, the run directory is empty, and what should run comes back as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from pathlib import Path

from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.kernel import procfs
from module_utils._engine.kernel.syscalls import MNT_DETACH, Kernel
from module_utils._engine.restore import restore

GONE = procfs.Stat(0, "", "Z", 0, 0, 0, 0)


def boot(engine: Engine) -> None:
    """As far as the engine can tell: no process of it and its containers, and nothing in its run directory."""
    pids = [*engine.resident()]
    pids += [shown["State"]["Pid"] for shown in engine.run("container_info")["containers"] if shown["State"]["Pid"]]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while any((procfs.stat(pid) or GONE).state != "Z" for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    for name in os.listdir(engine.paths.netns):
        Kernel().umount2(engine.paths.netns + "/" + name, MNT_DETACH)
    for name in os.listdir(engine.paths.run):
        path = "%s/%s" % (engine.paths.run, name)
        shutil.rmtree(path) if os.path.isdir(path) else os.unlink(path)


def back(engine: Engine) -> dict[str, list[str]]:
    return restore({"state_dir": engine.paths.state, "run_dir": engine.paths.run})


POLICIES = {"aa": "always", "bb": "unless-stopped", "cc": "on-failure"}


def test_policies_are_kept_and_ids_of_its_own_are_the_same_ones(fresh: Engine) -> None:
    for name, policy in (*POLICIES.items(), ("dd", "no")):
        fresh.container(name, command=SLEEP, restart_policy=policy, userns_mode="auto", volumes=["v-%s:/data" % name])
        fresh.sh(name, "echo %s >/data/f; echo %s >/root/f; chown 5:6 /root/f" % (name, name))
    fresh.container("stopped", command=SLEEP, restart_policy="unless-stopped")
    fresh.container("stopped-too", command=SLEEP, restart_policy="always")
    for name in ("stopped", "stopped-too"):
        fresh.run("container", name=name, state="stopped", force_kill=True)
    before = {name: Path("/proc/%d/uid_map" % fresh.pid(name)).read_text() for name in POLICIES}
    boot(fresh)
    assert back(fresh) == {"started": ["aa", "bb", "cc", "stopped-too"], "failed": []}
    for name in POLICIES:
        assert Path("/proc/%d/uid_map" % fresh.pid(name)).read_text() == before[name]
        assert fresh.sh(name, "cat /data/f /root/f; stat -c %u:%g /root/f") == "%s\n%s\n5:6" % (name, name)
    assert back(fresh) == {"started": [], "failed": []}
    for name in POLICIES:
        task = {
            "command": SLEEP,
            "restart_policy": POLICIES[name],
            "userns_mode": "auto",
            "volumes": ["v-%s:/data" % name],
        }
        assert not fresh.container(name, **task)["changed"]


def test_whose_namespaces_are_shared_comes_back_before_who_shares_them(fresh: Engine) -> None:
    always = {"command": SLEEP, "restart_policy": "always"}
    fresh.container("zz", **always)
    fresh.container("mm", **always, network_mode="container:zz")
    fresh.container("aa", **always, pid_mode="container:mm", ipc_mode="container:zz")
    boot(fresh)
    assert back(fresh) == {"started": ["zz", "mm", "aa"], "failed": []}
    assert os.readlink("/proc/%d/ns/pid" % fresh.pid("aa")) == os.readlink("/proc/%d/ns/pid" % fresh.pid("mm"))


def test_one_that_cannot_start_stops_no_other(fresh: Engine, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    mounts = [{"type": "bind", "source": str(tmp_path / "gone"), "target": "/x"}]
    fresh.container("aa", command=SLEEP, restart_policy="always", mounts=mounts)
    fresh.container("bb", command=SLEEP, restart_policy="always")
    boot(fresh)
    (tmp_path / "gone").rmdir()
    result = back(fresh)
    assert result["started"] == ["bb"]
    assert len(result["failed"]) == 1 and result["failed"][0].startswith("aa: ") and "gone" in result["failed"][0]
