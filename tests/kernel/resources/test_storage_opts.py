# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""How much a container may write: set, kept, changed while it runs, taken away; and what the kernel makes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from helpers.engine import Engine, engine
from helpers.option_laws import SLEEP
from helpers.quotas import InMemory, in_force, mounted
from module_utils._engine.errors import UsageError
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.storage import quota

MIB = 1 << 20


@pytest.fixture
def counted(own_network: None, tmp_path: Path) -> Iterator[Engine]:
    """An engine whose file system really has project quotas."""
    with mounted(str(tmp_path / "fs")) as real:
        if not real:
            pytest.skip("this kernel has no project quotas")
        os.mkdir(str(tmp_path / "fs/engine"))
        with engine(str(tmp_path / "fs/engine")) as instance:
            instance.busybox()
            yield instance


@pytest.fixture
def pretended(fresh: Engine, monkeypatch: pytest.MonkeyPatch) -> tuple[Engine, InMemory]:
    return fresh, InMemory(monkeypatch)


def task(engine: Engine, size: Optional[str], check: bool = False) -> dict[str, Any]:
    more = {} if size is None else {"storage_opts": {"size": size}}
    return engine.container("sized", check=check, command=SLEEP, stop_timeout=0, **more)


def hows(result: dict[str, Any]) -> list[str]:
    return [action["how"] for action in result["actions"]]


def upper(engine: Engine) -> str:
    return engine.paths.container(engine.inspect("sized")["Id"]) + "/upper"


def test_a_size_is_set_kept_changed_restored_and_taken_away(pretended: tuple[Engine, InMemory]) -> None:
    engine, memory = pretended
    task(engine, "8m")
    pid = engine.pid("sized")
    assert list(in_force(memory.limits).values()) == [8 * MIB]
    assert not task(engine, "8192k")["changed"]
    for size, limit in (("16m", 16 * MIB), ("8m", 8 * MIB), (None, None), ("8m", 8 * MIB)):
        assert hows(task(engine, size, check=True)) == hows(task(engine, size)) == ["live"]
        assert list(in_force(memory.limits).values()) == ([limit] if limit else [])
        assert not task(engine, size)["changed"] and engine.pid("sized") == pid
    assert engine.inspect("sized")["HostConfig"]["StorageOpt"] == {"size": str(8 * MIB)}
    engine.run("container", name="sized", state="absent", force_kill=True)
    assert in_force(memory.limits) == {}, "a limit was left behind"


def test_the_first_size_replaces_since_nobody_has_counted(pretended: tuple[Engine, InMemory]) -> None:
    engine, memory = pretended
    task(engine, None)
    for found in (task(engine, "8m", check=True), task(engine, "8m")):
        assert hows(found) == ["replace"]
        assert found["differences"][0]["why"] == "what it has written so far was not counted"
    assert list(in_force(memory.limits).values()) == [8 * MIB]


def test_a_size_that_somebody_changed_by_hand_is_drift(pretended: tuple[Engine, InMemory]) -> None:
    engine, memory = pretended
    task(engine, "8m")
    (project,) = in_force(memory.limits)
    memory.limits[project] = 4 * MIB
    for found in (task(engine, "8m", check=True), task(engine, "8m")):
        assert [(a["how"], a["why"]) for a in found["actions"]] == [("live", "drift")]
        assert found["diff"]["before"]["storage_opts"] == {"size": 4 * MIB}
    assert memory.limits[project] == 8 * MIB and not task(engine, "8m")["changed"]


def test_a_number_that_is_somebodys_is_not_taken(pretended: tuple[Engine, InMemory], tmp_path: Path) -> None:
    _engine, memory = pretended
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        quota.give(Kernel(), [str(tmp_path / name)], "12345678abc", MIB)
    assert len(memory.limits) == 2 and min(memory.limits) >= 1 << 30


@pytest.mark.parametrize("wish", [{"other": "1"}, {"size": "many"}, {"size": "-1"}])
def test_what_means_nothing_is_refused_by_name(pretended: tuple[Engine, InMemory], wish: dict[str, str]) -> None:
    engine, _memory = pretended
    with pytest.raises(UsageError, match="storage_opts"):
        engine.container("sized", command=SLEEP, storage_opts=wish)
    assert not engine.run("container_info", name="sized")["exists"]


def test_a_size_that_nobody_would_keep_is_refused(fresh: Engine) -> None:
    if quota.is_possible(Kernel(), fresh.paths.state):
        pytest.skip("this file system has project quotas")
    with pytest.raises(UsageError, match=r"storage_opts\.size.*no project quotas in force"):
        task(fresh, "8m")
    assert not fresh.run("container_info", name="sized")["exists"]


def test_a_container_is_removed_though_its_file_system_has_no_quotas_any_more(fresh: Engine) -> None:
    with pytest.MonkeyPatch.context() as patch:
        InMemory(patch)
        task(fresh, "8m")
    assert fresh.run("container", name="sized", state="absent", force_kill=True)["changed"]


def test_more_than_that_cannot_be_written_and_df_says_how_much_it_is(counted: Engine) -> None:
    task(counted, "8m")
    pid = counted.pid("sized")
    full = counted.exec("sized", "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=12")
    assert full["rc"] != 0 and "quota" in full["stderr"].lower()
    assert os.stat(upper(counted) + "/file").st_size <= 8 * MIB
    assert counted.sh("sized", "df -k / | tail -n 1").split()[1] == str(8 * 1024)
    assert hows(task(counted, "16m")) == ["live"] and counted.pid("sized") == pid
    assert counted.sh("sized", "dd if=/dev/zero of=/file bs=1M count=12 2>/dev/null; ls -s /file").split()[0] >= "12"
    assert hows(task(counted, None)) == ["live"]
    counted.sh("sized", "dd if=/dev/zero of=/file bs=1M count=32 2>/dev/null")
    counted.run("container", name="sized", state="stopped", force_kill=True)
    task(counted, "40m")
    assert counted.sh("sized", "mv /file /moved; rm /etc/passwd; ln /moved /again; ls /again") == "/again"
    assert not task(counted, "40m")["changed"]


def test_what_is_full_can_be_removed_and_another_has_room(counted: Engine) -> None:
    task(counted, "4m")
    assert counted.exec("sized", "dd", "if=/dev/zero", "of=/file", "bs=1M", "count=8")["rc"] != 0
    counted.container("other", command=SLEEP, storage_opts={"size": "4m"})
    counted.sh("other", "dd if=/dev/zero of=/file bs=1M count=3 2>/dev/null")
    for name in ("sized", "other"):
        counted.run("container", name=name, state="absent", force_kill=True)
    fd = os.open(counted.paths.state, os.O_RDONLY)
    try:
        for seed in range(1 << 30, (1 << 30) + 4):  # nothing of ours is in force there
            assert quota.quota.get(Kernel(), fd, seed).limit == 0
    finally:
        os.close(fd)
