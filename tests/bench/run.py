# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``make bench``: the budgets of the design, measured in one run on one machine, with the peers that are there.

Absolute times are noise on a shared machine; read the ratios. Peers (dockerd, podman, runc, skopeo) are used when
they are installed and running, and left out of the table when they are not. Prints a table and writes JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [ROOT + "/plugins", ROOT + "/tests"]

from bench.bare import bare_rows, growth_rows, unchanged  # noqa: E402
from bench.floods import log_rows  # noqa: E402
from bench.pulls import list_rows, pull_rows  # noqa: E402
from bench.rows import Row, Samples, command, interleaved, timed  # noqa: E402
from helpers.engine import Engine, engine  # noqa: E402
from helpers.private_network import private_network  # noqa: E402

SLEEP = ["sleep", "1000"]


# -- peers -----------------------------------------------------------------------------------------------------


def peers(rootfs: str) -> dict[str, str]:
    """Engines that answer here, with the benchmark's image imported into each."""
    found = {}
    for name, probe in (("docker", ["docker", "info"]), ("podman", ["podman", "info"])):
        if shutil.which(name) and subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            done = subprocess.run([name, "import", rootfs, "wharf-bench:1"], capture_output=True, check=False)
            if done.returncode == 0:
                found[name] = name
    return found


def remove_peers(found: dict[str, str]) -> None:
    for name in found:
        subprocess.run([name, "rmi", "-f", "wharf-bench:1"], capture_output=True, check=False)


# -- rows ------------------------------------------------------------------------------------------------------


def start_rows(instance: Engine, found: dict[str, str], count: int) -> Iterator[Row]:
    """Create and start one container on the default bridge, in a running engine; then the same through the peers."""
    serial = iter(range(10**6))

    def ours() -> None:
        instance.container("bench-%d" % next(serial), command=SLEEP)

    def peer(name: str) -> Callable[[], Any]:
        return lambda: subprocess.run(
            [name, "run", "-d", "--name", "wharf-bench-%d" % next(serial), "wharf-bench:1", "/bin/sleep", "1000"],
            check=True,
            capture_output=True,
        )

    remove_containers(found)  # of a run that was interrupted
    ours()
    samples = interleaved(count, {"wharf": ours, **{name: peer(name) for name in found}})
    mine = samples.pop("wharf")
    yield Row("create + start one container, bridge network", "ms", mine, samples, "≤ 25 ms; ≥ 8 × docker and podman")
    yield Row("memory of a running container's monitor", "KiB PSS", monitors(instance), shims(found), "≤ 1024")
    yield Row("idle engine (spawner)", "KiB PSS", [pss(spawner(instance))], {}, "≤ 10240")
    remove_containers(found)


def remove_containers(found: dict[str, str]) -> None:
    """The peers' containers that start_rows made."""
    for name in found:
        names = subprocess.run(
            [name, "ps", "-aq", "--filter", "name=wharf-bench-"], capture_output=True, text=True, check=False
        ).stdout
        subprocess.run([name, "rm", "-f", *names.split()], capture_output=True, check=False)


def pss(pid: int) -> float:
    with open("/proc/%d/smaps_rollup" % pid) as stream:
        return float(next(line for line in stream if line.startswith("Pss:")).split()[1])


def monitors(instance: Engine) -> Samples:
    parents = []
    for shown in instance.run("container_info")["containers"]:
        if not shown["State"]["Running"]:  # other rows' containers have ended
            continue
        with open("/proc/%d/stat" % shown["State"]["Pid"]) as stream:
            parents.append(int(stream.read().rpartition(")")[2].split()[1]))
    return [pss(pid) for pid in parents]


def spawner(instance: Engine) -> int:
    watched = set(monitor_pids(instance))
    for pid in instance.resident():
        with open("/proc/%d/cmdline" % pid, "rb") as stream:
            if b"runtime.spawner" in stream.read() and pid not in watched:
                return pid
    raise SystemExit("no spawner is running")


def monitor_pids(instance: Engine) -> list[int]:
    found = []
    for entry in os.listdir(instance.paths.containers):
        with contextlib.suppress(OSError), open(instance.paths.container(entry) + "/state.json") as stream:
            found.append(json.load(stream)["monitor_pid"])
    return found


def shims(found: dict[str, str]) -> dict[str, Samples]:
    """Memory of what the peers keep per container: containerd-shim and conmon."""
    out: dict[str, Samples] = {}
    for name, program in (("docker", "containerd-shim"), ("podman", "conmon")):
        if name not in found:
            continue
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError), open("/proc/%s/comm" % entry) as stream:
                if stream.read().startswith(program[:15]):
                    out.setdefault(name, []).append(pss(int(entry)))
    return out


def idle_rows(instance: Engine, count: int) -> Iterator[Row]:
    """The engine's part of a task that changes nothing: a fresh interpreter, imports from .pyc, one dispatch."""
    instance.container("idle", command=SLEEP, memory="64m", env={"A": "1"}, published_ports=["18088:80"])
    tables = {
        "name": "idle", "image": "bb:1", "command": SLEEP, "memory": "64m", "env": {"A": "1"}, "state": "started",
        "published_ports": ["18088:80"], "pull": "missing",
        "state_dir": instance.paths.state, "run_dir": instance.paths.run,
    }  # fmt: skip
    empty = "import json, sys; import ansible.module_utils.basic; json.loads(sys.argv[1])"
    code = (
        empty + "; sys.path.insert(0, sys.argv[2]); from module_utils._engine.entry import dispatch; "
        "r = dispatch('container', json.loads(sys.argv[1])); sys.exit(1 if r['changed'] else 0)"
    )
    argv = [json.dumps(tables), ROOT + "/plugins"]
    both = {
        "empty": command(sys.executable, "-I", "-c", empty, *argv),
        "wharf": command(sys.executable, "-I", "-c", code, *argv),
    }
    interleaved(2, both)
    samples = interleaved(count, both)
    over = [b - a for a, b in zip(samples["empty"], samples["wharf"])]
    yield Row("engine part of a container task that changes nothing", "ms", over, {}, "≤ 15 ms over an empty module")


def port_rows(instance: Engine, count: int) -> Iterator[Row]:
    """Publishing one more port when one, and when a thousand are published."""

    def publish(ports: list[str]) -> None:
        instance.container("ports", command=SLEEP, published_ports=ports)

    base = ["%d:80" % port for port in range(20000, 21000)]
    publish(base[:1])
    few = []
    for n in range(count):
        few.append(
            timed(lambda n=n: instance.container("few-%d" % n, command=SLEEP, published_ports=["%d:80" % (22000 + n)]))
        )
    publish(base)
    many = []
    for n in range(count):
        many.append(
            timed(lambda n=n: instance.container("many-%d" % n, command=SLEEP, published_ports=["%d:80" % (23000 + n)]))
        )
    yield Row(
        "start with one port while 1,000 are published",
        "ms",
        many,
        {"with one published": few},
        "as cheap as the first",
    )


def many_rows(instance: Engine, found: dict[str, str]) -> Iterator[Row]:
    """50 containers from an image that is there, in one task; the same again; the peers' command line for each."""
    count = 50
    wish = [{"name": "many-task-%d" % n, "image": "bb:1", "command": SLEEP} for n in range(count)]

    def ours() -> None:
        instance.run("containers", containers=wish)

    def gone() -> None:
        instance.run(
            "containers", containers=[{"name": w["name"], "state": "absent", "force_kill": True} for w in wish]
        )

    made, kept = [], []
    for _round in range(3):
        made.append(timed(ours))
        kept += unchanged(instance, wish, 3)
        gone()
    samples: dict[str, Samples] = {}
    for name in found:
        samples[name] = [timed(functools.partial(_start_many, name, count))]
        names = ["wharf-bench-many-%d" % n for n in range(count)]
        subprocess.run([name, "rm", "-f", *names], capture_output=True, check=False)
    yield Row("50 containers created and started by one task", "ms", made, samples, "≥ 20 × 50 docker_container tasks")
    yield Row("50 containers, one task that changes nothing", "ms of CPU", kept, {}, "≤ 15 ms (200: ≤ 60)")


def _start_many(peer: str, count: int) -> None:
    for n in range(count):
        argv = [peer, "run", "-d", "--name", "wharf-bench-many-%d" % n, "wharf-bench:1", "/bin/sleep", "1000"]
        subprocess.run(argv, check=True, capture_output=True)


def exec_rows(instance: Engine, found: dict[str, str], count: int) -> Iterator[Row]:
    instance.container("exec", command=SLEEP)
    for name in found:
        subprocess.run(
            [name, "run", "-d", "--name", "wharf-bench-exec", "wharf-bench:1", "/bin/sleep", "1000"],
            check=True,
            capture_output=True,
        )
    works: dict[str, Callable[[], Any]] = {"wharf": lambda: instance.exec("exec", "/bin/true")}
    works.update({name: command(name, "exec", "wharf-bench-exec", "/bin/true") for name in found})
    samples = interleaved(count, works)
    mine = samples.pop("wharf")
    for name in found:
        subprocess.run([name, "rm", "-f", "wharf-bench-exec"], capture_output=True, check=False)
    yield Row("exec of /bin/true in a running container", "ms", mine, samples, "≤ 15 ms")


def report(rows: list[Row]) -> str:
    lines = ["%-58s %10s %10s %10s  %s" % ("what", "median", "min", "max", "budget; peers (ratio to us)")]
    for row in rows:
        shown = row.as_dict()
        mine = shown["wharf"]
        beside = ", ".join(
            "%s %.1f (%.1f ×)" % (name, peer["median"], peer["ratio"]) for name, peer in shown["peers"].items()
        )
        lines.append(
            "%-58s %10.1f %10.1f %10.1f  %s"
            % (
                "%s [%s]" % (row.what, row.unit),
                mine["median"],
                mine["min"],
                mine["max"],
                "; ".join(filter(None, (row.budget, beside))),
            )
        )
    return "\n".join(lines)


GROUPS = ("pull", "images", "start", "bare", "many", "growth", "exec", "idle", "ports", "logs")


def network_rows(instance: Engine, found: dict[str, str], count: int, wanted: list[str]) -> Iterator[Row]:
    if "start" in wanted:
        yield from start_rows(instance, found, count)
    if "many" in wanted:
        yield from many_rows(instance, found)
    if "growth" in wanted:
        yield from growth_rows(instance)
    if "exec" in wanted:
        yield from exec_rows(instance, found, count)
    if "idle" in wanted:
        yield from idle_rows(instance, count)
    if "ports" in wanted:
        yield from port_rows(instance, min(count, 10))
    if "logs" in wanted:
        yield from log_rows(instance, found, min(count, 5))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", type=int, default=20, help="samples of each row")
    parser.add_argument("--only", action="append", choices=GROUPS, help="only these rows (may be repeated)")
    parser.add_argument("--json", default="", help="also write the figures to this file")
    options = parser.parse_args()
    directory = tempfile.mkdtemp(prefix="wharf-bench")
    rows: list[Row] = []
    wanted = options.only or list(GROUPS)
    try:
        with engine(directory) as instance:
            instance.busybox()
            # Peers live in the host's network; ours in a namespace, so that nothing of the benchmark stays on the host.
            found = peers(directory + "/busybox.tar")
            # No bridge is needed to pull, and the peers' registry must be on the host's loopback.
            if "pull" in wanted:
                rows += pull_rows(instance, found, directory, min(options.n, 5))
            if "images" in wanted:
                rows += list_rows(directory, options.n)
            if set(wanted) - {"pull", "images"}:
                if "bare" in wanted:
                    rows += bare_rows(instance, directory, options.n)
                with private_network():
                    rows += network_rows(instance, found, options.n, wanted)
                    instance.close()
            remove_peers(found)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    sys.stdout.write(report(rows) + "\n")
    if options.json:
        with open(options.json, "w") as stream:
            json.dump(
                {
                    "machine": os.uname()._asdict() if hasattr(os.uname(), "_asdict") else list(os.uname()),
                    "rows": [row.as_dict() for row in rows],
                },
                stream,
                indent=2,
            )


if __name__ == "__main__":
    main()
