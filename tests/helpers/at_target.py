# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What tests do on the machine that tasks run on, as root: see ``helpers.target``.

There, this file may be all there is: it needs nothing but Python 3.9 and the engine that the first task brought.
Arguments and results are what JSON can carry.
"""

from __future__ import annotations

import contextlib
import glob as _glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any


def engine_module(state: str, name: str) -> Any:
    """A module of the engine: of the checkout where tests run, of what the first task brought elsewhere."""
    from importlib import import_module

    try:
        return import_module("module_utils._engine." + name)
    except ModuleNotFoundError:
        bundle = state + "/engine/current"
        if bundle not in sys.path:
            sys.path.insert(0, bundle)
        return import_module("wharf_runtime._engine." + name)


# --- files and commands -----------------------------------------------------------------------------------------------


def names(path: str) -> list[str]:
    """What is in a directory; [] when there is none."""
    try:
        return sorted(os.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def glob(pattern: str) -> list[str]:
    return sorted(_glob.glob(pattern))


def exists(path: str) -> bool:
    return os.path.lexists(path)


def read(path: str) -> str:
    with open(path) as stream:
        return stream.read()


def mode(path: str) -> int:
    """The permission bits."""
    return os.stat(path).st_mode & 0o7777


def owner(path: str) -> int:
    return os.stat(path).st_uid


def make_directory(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def remove(path: str) -> None:
    """A file, or a directory with all that is in it, and what a test mounted there. What resists is a mount somewhere
    below, and the check for leftovers at the end of the run names it."""
    if os.path.ismount(path):
        subprocess.run(["umount", "--lazy", path], check=True)
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        os.unlink(path)


def run_directory() -> str:
    return tempfile.mkdtemp(prefix="wt", dir="/run")


def sh(script: str) -> dict[str, Any]:
    """``{"rc", "stdout", "stderr"}`` of a shell script."""
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    done = subprocess.run(
        ["sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
        check=False,
    )
    return {"rc": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


def http(url: str, timeout: float) -> dict[str, Any]:
    """``{"status", "body"}`` of what a server answers; without an answer, ``{"error"}``."""
    import urllib.error
    import urllib.request

    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=timeout) as answer:
            return {"status": answer.status, "body": answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {"status": error.code, "body": ""}
    except OSError as error:
        return {"error": repr(error)}


def fill(directory: str, leave: int) -> str:
    """Leave so many bytes free in the file system of ``directory``. Returns the file that takes the rest."""
    path = directory + "/ballast"
    stats = os.statvfs(directory)
    with open(path, "wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, stats.f_bavail * stats.f_frsize - leave))
    return path


# --- the engine's processes -------------------------------------------------------------------------------------------


def resident(run: str) -> list[int]:
    """Pids of processes whose command line names this instance's run directory (spawner, resolver, monitors)."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError), open("/proc/%s/cmdline" % entry, "rb") as stream:
            if os.fsencode(run) in stream.read().split(b"\0"):
                found.append(int(entry))
    return found


def end_resident(run: str) -> None:
    """Ask them to end, and wait until they have."""
    for pid in resident(run):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 30
    while resident(run) and time.monotonic() < deadline:
        time.sleep(0.02)


def spawner(run: str) -> int:
    """Its pid: the monitors are forked from it, and call themselves otherwise."""
    for pid in resident(run):
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            words = stream.read().split(b"\0")
        if any(word.endswith(b"runtime.spawner") for word in words) and "monitor" not in read("/proc/%d/comm" % pid):
            return pid
    raise AssertionError("no spawner among %s" % resident(run))


def kill(pid: int) -> None:
    """SIGKILL, and wait until the process is gone or a zombie."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = read("/proc/%d/stat" % pid).rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":
            return
        time.sleep(0.01)
    raise AssertionError("process %d does not end" % pid)


# --- the engine -------------------------------------------------------------------------------------------------------


def dispatch(state: str, noun: str, params: dict[str, Any], check: bool) -> Any:
    """One task, as its module runs it; ``params`` are complete."""
    return engine_module(state, "entry").dispatch(noun, params, check_mode=check, diff=True)


def drop_default_network(state: str, run: str) -> None:
    """The default network cannot be removed by a task; a test takes its bridge and the firewall away by hand."""
    paths = engine_module(state, "paths").Paths(state, run)
    bridge = engine_module(state, "network.bridge")
    state_module, netlink_module = engine_module(state, "store.state"), engine_module(state, "kernel.netlink")
    with state_module.Store.open(paths) as store, netlink_module.Netlink() as netlink:
        for record in store.networks.list():
            bridge.remove(netlink, paths, record)
    firewall = engine_module(state, "network.firewall").Firewall(paths)
    firewall.remove()
    firewall.close()


def remove_cgroups(state: str, run: str) -> None:
    """The instance's own, which nothing is in any more: below every hierarchy, or below the delegated unit."""
    name = engine_module(state, "paths").Paths(state, run).cgroup
    for top in (*_glob.glob("/sys/fs/cgroup/*"), "/sys/fs/cgroup/system.slice/wharf-containers.service"):
        with contextlib.suppress(OSError):
            os.rmdir("%s/%s" % (top, name))


def left(state: str, run: str) -> dict[str, list[str]]:
    """What the engine still holds: {} when everything that tasks made is gone (the default network stays).
    Verified blobs of a pull that failed stay for the next one until they are collected, which is done here."""
    paths = engine_module(state, "paths").Paths(state, run)
    if os.path.exists(paths.database):
        with engine_module(state, "store.state").Store.open(paths) as store:
            store.collect()
    found = {
        name: names(path)
        for name, path in (
            ("blobs", paths.blobs),
            ("layers", paths.layers),
            ("containers", paths.containers),
            ("volumes", paths.volumes),
            ("half-done things", paths.tmp),
            ("network namespaces", paths.netns),
            ("run directories", run + "/containers"),
        )
    }
    found["mounts"] = _mounts_below(state, run)
    found["cgroups"] = [
        path
        for top in (*_glob.glob("/sys/fs/cgroup/*"), "/sys/fs/cgroup/system.slice/wharf-containers.service")
        for path in _glob.glob("%s/%s/*/" % (top, paths.cgroup))
    ]
    with open("/proc/net/dev") as lines:  # not /sys/class/net, which shows the network it was mounted in
        links = [line.partition(":")[0].strip() for line in lines]
    found["links"] = [name for name in links if name.startswith("whv")]
    return {kind: items for kind, items in found.items() if items}


def _mounts_below(*tops: str) -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        points = [line.split(" ")[4] for line in lines]
    return [point for point in points if point.startswith(tuple(top + "/" for top in tops))]
