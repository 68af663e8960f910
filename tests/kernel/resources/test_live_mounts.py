# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Binds, volumes and tmpfs come and go in a container that runs, and nothing of it leads out of the container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from module_utils._engine.errors import WharfError

SLEEP = ["sleep", "1000"]


def targets(engine: Engine, name: str) -> set[str]:
    return {line.split()[4] for line in Path("/proc/%d/mountinfo" % engine.pid(name)).read_text().splitlines()}


def how(result: dict[str, Any]) -> list[str]:
    return [action["how"] for action in result["actions"]]


def test_mounts_come_and_go_live_and_the_process_stays(shared: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("from the host\n")
    (tmp_path / "dir").mkdir()
    wish = {"volumes": ["lm-data:/data", "%s/file:/etc/file:ro" % tmp_path, "%s/dir:/d" % tmp_path], "tmpfs": ["/t"]}
    shared.container("lm", command=SLEEP)
    pid = shared.pid("lm")
    assert how(shared.container("lm", command=SLEEP, **wish)) == ["live"]
    assert shared.pid("lm") == pid and {"/data", "/etc/file", "/d", "/t"} <= targets(shared, "lm")
    assert shared.sh("lm", "cat /etc/file; echo v > /data/f; echo b > /d/f; echo m > /t/f") == "from the host"
    assert shared.exec("lm", "sh", "-c", "echo x > /etc/file")["rc"] != 0
    assert (tmp_path / "dir/f").read_text() == "b\n"
    assert not shared.container("lm", command=SLEEP, **wish)["changed"]
    assert {m["Destination"] for m in shared.inspect("lm")["Mounts"]} == {"/data", "/etc/file", "/d", "/t"}
    assert how(shared.container("lm", command=SLEEP, volumes=["lm-data:/data"])) == ["live"]
    assert targets(shared, "lm") & {"/data", "/etc/file", "/d", "/t"} == {"/data"}
    assert how(shared.container("lm", command=SLEEP)) == ["live"]
    assert shared.pid("lm") == pid and "/data" not in targets(shared, "lm")
    assert shared.exec("lm", "cat", "/data/f")["rc"] != 0
    shared.container("lm", command=SLEEP, volumes=["lm-data:/data"])
    assert shared.sh("lm", "cat /data/f") == "v"


def test_what_cannot_follow_live_replaces_and_says_why(shared: Engine) -> None:
    shared.container("lr", command=SLEEP, read_only=True, volumes=["lr-a:/srv"])
    for volumes, reason in (
        (["lr-a:/srv:ro"], "/srv stays a mountpoint"),
        (["lr-a:/srv:ro", "lr-b:/new"], "read-only root"),
        (["lr-a:/srv:ro", "lr-b:/new", "lr-c:/dev/shm"], "would cover"),
    ):
        changed = shared.container("lr", command=SLEEP, read_only=True, volumes=volumes)
        assert how(changed) == ["replace"] and reason in changed["actions"][0]["why"]


def test_a_new_volume_is_filled_from_the_image(shared: Engine) -> None:
    shared.container("lf", command=SLEEP)
    shared.container("lf", command=SLEEP, volumes=["lf-data:/srv"])
    assert shared.sh("lf", "cat /srv/index.html") == "hello from the image"


def test_a_renamed_parent_does_not_make_the_engine_uncover_what_is_masked(shared: Engine) -> None:
    """The container moves the directory above its volume away and leaves a link to /proc in its place."""
    shared.container("lx", command=SLEEP)
    masked = next(target for target in targets(shared, "lx") if target.startswith("/proc/") and target != "/proc/sys")
    shared.container("lx", command=SLEEP, volumes=["lx-data:/a/%s" % masked[6:]])
    shared.sh("lx", "mv /a /b && ln -s /proc /a")
    try:
        changed = how(shared.container("lx", command=SLEEP))
    except WharfError as error:
        assert "not what the engine mounted" in error.msg
        changed = []
    assert changed in ([], ["replace"])
    assert masked in targets(shared, "lx")


@pytest.mark.parametrize("target", ["/etc/hosts/x", "/srv/index.html/below"])
def test_a_mount_that_fails_leaves_the_old_wish(shared: Engine, target: str) -> None:
    shared.container("lb", command=SLEEP)
    before = targets(shared, "lb")
    with pytest.raises(WharfError):
        shared.container("lb", command=SLEEP, volumes=["lb-data:%s" % target])
    assert targets(shared, "lb") == before
    assert not shared.container("lb", command=SLEEP)["changed"]
