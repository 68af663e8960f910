# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Docker's figures out of the files of cgroup v2 and of v1 (kernel tests have only what their machine has)."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers.store_kit import container
from module_utils._engine.kernel import processes
from module_utils._engine.kernel.cgroups import Layout
from module_utils._engine.kernel.cgroups.layout import Hierarchy
from module_utils._engine.resources import container_stats

V2 = {
    "cpu.stat": "usage_usec 5000000\nuser_usec 3000000\nsystem_usec 2000000\nnr_periods 10\nnr_throttled 4\n"
    "throttled_usec 7",
    "memory.stat": "anon 1000\nfile 5000\ninactive_file 2000",
    "memory.current": "9000",
    "memory.peak": "9500",
    "memory.max": "20000",
    "memory.events": "oom 1\noom_kill 1",
    "pids.current": "3",
    "pids.max": "max",
    "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0",
}
V1 = {
    "cpuacct": {"cpuacct.usage": "5000000000", "cpuacct.stat": "user 300\nsystem 200"},
    "cpu": {"cpu.stat": "nr_periods 10\nnr_throttled 4\nthrottled_time 7000"},
    "memory": {
        "memory.stat": "total_inactive_file 2000\ntotal_rss 1000\ntotal_cache 5000",
        "memory.usage_in_bytes": "9000",
        "memory.max_usage_in_bytes": "9500",
        "memory.limit_in_bytes": "20480",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1",
    },
    "pids": {"pids.current": "3", "pids.max": "max"},
    "blkio": {
        "blkio.throttle.io_service_bytes_recursive": "8:0 Read 10\n8:0 Write 20\nTotal 30",
        "blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\nTotal 3",
    },
}


def write(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(parents=True)
    for name, text in files.items():
        (directory / name).write_text(text + "\n")


def task(tmp_path: Path, version: int, container_id: str) -> Any:
    if version == 2:
        controllers = ("cpu", "memory", "pids", "io")
        write(tmp_path / "wharf" / container_id, V2)
        (tmp_path / "cgroup.controllers").write_text(" ".join(controllers))
        layout = Layout([Hierarchy("", 2, str(tmp_path), controllers)])
    else:
        for name, files in V1.items():
            write(tmp_path / name / "wharf" / container_id, files)
        layout = Layout([Hierarchy(name, 1, str(tmp_path / name), (name,)) for name in V1])
    facts = {"status": "running", "pid": os.getpid()}
    return SimpleNamespace(
        layout=layout, paths=SimpleNamespace(cgroup="wharf"), runtime=SimpleNamespace(state=lambda _id: facts)
    )


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_give_dockers_figures(tmp_path: Path, version: int) -> None:
    record = container("web")
    (stats,) = container_stats.collect(task(tmp_path, version, record.id), [record], 0.0)
    assert stats is not None
    cpu = stats["cpu_stats"]
    assert cpu["cpu_usage"] == {
        "total_usage": 5_000_000_000, "usage_in_kernelmode": 2_000_000_000, "usage_in_usermode": 3_000_000_000,
    }  # fmt: skip
    assert cpu["throttling_data"] == {"periods": 10, "throttled_periods": 4, "throttled_time": 7000}
    memory = stats["memory_stats"]
    assert (memory["usage"], memory["max_usage"], memory["failcnt"]) == (9000, 9500, 1)
    assert memory["limit"] in (20000, 20480) and stats["memory_used"] == 7000
    assert memory["stats"]["inactive_file" if version == 2 else "total_inactive_file"] == 2000
    assert stats["pids_stats"] == {"current": 3}
    assert stats["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 10}, {"major": 8, "minor": 0, "op": "write", "value": 20},
    ]  # fmt: skip
    assert [entry["value"] for entry in stats["blkio_stats"]["io_serviced_recursive"]] == [1, 2]


@pytest.mark.parametrize("version", [1, 2])
def test_a_percentage_is_of_one_processor_between_two_samples(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = container("web")
    host = iter([(100_000_000_000, 4), (104_000_000_000, 4)])  # all four have spent one second each
    monkeypatch.setattr(processes, "system_cpu", lambda: next(host))
    subject = task(tmp_path, version, record.id)

    def work(_seconds: float) -> None:  # half a second meanwhile
        if version == 2:
            (tmp_path / "wharf" / record.id / "cpu.stat").write_text(V2["cpu.stat"].replace("5000000", "5500000", 1))
        else:
            (tmp_path / "cpuacct" / "wharf" / record.id / "cpuacct.usage").write_text("5500000000\n")

    monkeypatch.setattr(container_stats.time, "sleep", work)
    (stats,) = container_stats.collect(subject, [record], 1.0)
    assert stats is not None and stats["cpu_percent"] == 50.0
    assert stats["precpu_stats"]["cpu_usage"]["total_usage"] == 5_000_000_000
    assert stats["preread"] <= stats["read"]
