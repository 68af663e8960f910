# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The rarer options of a mount, each by what the container sees and cannot reach."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.inside import inside
from helpers.option_laws import SLEEP, mounts
from module_utils._engine.errors import UsageError, WharfError
from module_utils._engine.kernel.syscalls import CLONE_NEWNS, MNT_DETACH


def task(engine: Engine, name: str, *entries: dict[str, Any], check: bool = False, **params: Any) -> dict[str, Any]:
    return engine.container(name, check=check, command=SLEEP, stop_timeout=0, mounts=list(entries), **params)


def part(path: str, **more: Any) -> dict[str, Any]:
    return {"type": "volume", "source": "mo-data", "target": "/part", "subpath": path, **more}


@pytest.fixture(scope="module")
def filled(shared: Engine) -> Engine:
    task(shared, "mo-fill", {"type": "volume", "source": "mo-data", "target": "/data"})
    shared.sh("mo-fill", "mkdir -p /data/a/b /data/c; echo deep > /data/a/b/f; echo other > /data/c/f")
    return shared


def test_a_part_of_a_volume_is_all_there_is(filled: Engine) -> None:
    task(filled, "mo-part", part("a/b"))
    pid = filled.pid("mo-part")
    assert filled.sh("mo-part", "ls /part; cat /part/f") == "f\ndeep"
    assert mounts(filled, "mo-part", "/part")[0].split()[0].endswith("/mo-data/_data/a/b")
    assert not task(filled, "mo-part", part("./a//b/"))["changed"]
    assert {a["how"] for a in task(filled, "mo-part")["actions"]} == {"live"}
    assert mounts(filled, "mo-part", "/part") == [] and filled.pid("mo-part") == pid
    assert {a["how"] for a in task(filled, "mo-part", part("c"))["actions"]} == {"live"}
    assert filled.sh("mo-part", "cat /part/f") == "other"


def test_a_part_that_was_unmounted_inside_is_put_back(filled: Engine) -> None:
    task(filled, "mo-lost", part("c"))
    inside(filled.pid("mo-lost"), lambda kernel: kernel.umount2("/part", MNT_DETACH), CLONE_NEWNS)
    found = task(filled, "mo-lost", part("c"))
    assert [(a["how"], a["why"]) for a in found["actions"]] == [("live", "drift")]
    assert filled.sh("mo-lost", "cat /part/f") == "other" and not task(filled, "mo-lost", part("c"))["changed"]


@pytest.mark.parametrize("link", ["/etc", "../../../../../../etc", "/proc/self/root/etc"])
def test_a_link_in_a_volume_never_leads_to_the_hosts_files(filled: Engine, link: str) -> None:
    """CVE-2017-1002101: a container puts a link where another one's subpath is."""
    filled.sh("mo-fill", "rm -rf /data/trap; ln -s %s /data/trap" % link)
    marker = Path("/etc/debian_version").exists()
    with pytest.raises(WharfError):
        task(filled, "mo-trap", part("trap"))
    assert marker and not filled.run("container_info", name="mo-trap")["exists"]
    filled.sh("mo-fill", "mkdir -p /data/etc; echo mine > /data/etc/hostname")
    if link != "/proc/self/root/etc":  # in the volume that is etc of the volume
        task(filled, "mo-trap", part("trap"))
        assert filled.sh("mo-trap", "cat /part/hostname") == "mine"
        filled.run("container", name="mo-trap", state="absent", force_kill=True)
    filled.sh("mo-fill", "rm -rf /data/etc /data/trap")


@pytest.mark.parametrize("path", ["/abs", "../up", "a/../../b", "."])
def test_a_part_outside_of_the_volume_is_refused(filled: Engine, path: str) -> None:
    with pytest.raises(UsageError, match=r"mounts\[0\]\.subpath"):
        task(filled, "mo-bad", part(path))


def test_a_part_that_is_not_there_leaves_no_container(filled: Engine) -> None:
    with pytest.raises(WharfError, match="nowhere"):
        task(filled, "mo-none", part("nowhere"))
    assert not filled.run("container_info", name="mo-none")["exists"]


def test_labels_are_for_a_volume_that_is_new_and_make_no_difference_in_the_container(shared: Engine) -> None:
    def labelled(text: str) -> dict[str, Any]:
        return {
            "type": "volume",
            "source": "mo-lab",
            "target": "/l",
            "labels": {"owner": text},
            "volume_driver": "local",
        }

    task(shared, "mo-label", labelled("one"))
    pid = shared.pid("mo-label")
    assert shared.run("volume_info", name="mo-lab")["volume"]["Labels"] == {"owner": "one"}
    assert {a["how"] for a in task(shared, "mo-label", labelled("two"))["actions"]} == {"live"}
    assert shared.run("volume_info", name="mo-lab")["volume"]["Labels"] == {"owner": "one"}
    assert shared.pid("mo-label") == pid and not task(shared, "mo-label", labelled("two"))["changed"]


def test_a_bind_makes_its_source_and_leaves_out_what_is_mounted_below(shared: Engine, tmp_path: Path) -> None:
    source, below = tmp_path / "made", tmp_path / "made/below"
    entry = {"type": "bind", "source": str(source), "target": "/b", "create_mountpoint": True}
    task(shared, "mo-bind", entry, network_mode="none")
    assert source.is_dir()
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "below", str(below)], check=True)
    try:
        (below / "seen").touch()
        task(shared, "mo-bind", {**entry, "target": "/c"}, network_mode="none")
        assert shared.sh("mo-bind", "ls /c/below") == "seen"
        task(shared, "mo-bind", {**entry, "target": "/d", "non_recursive": True}, network_mode="none")
        assert shared.sh("mo-bind", "ls /d/below") == ""
        read_only = {"read_only": True, "read_only_force_recursive": True}
        task(shared, "mo-bind", {**entry, "target": "/e", **read_only}, network_mode="none")
        assert shared.exec("mo-bind", "touch", "/e/below/x")["rc"] != 0
    finally:
        shared.run("container", name="mo-bind", state="absent", force_kill=True)
        subprocess.run(["umount", str(below)], check=True)


def test_a_memory_file_system_takes_further_options(shared: Engine) -> None:
    entry = {"type": "tmpfs", "target": "/m", "tmpfs_options": [{"uid": 1000}, {"exec": None}]}
    task(shared, "mo-tmpfs", entry)
    assert shared.sh("mo-tmpfs", "stat -c %u /m") == "1000"
    assert shared.sh(
        "mo-tmpfs", "cp /bin/busybox /m/echo 2>/dev/null || cat /bin/busybox > /m/echo; chmod 755 /m/echo; /m/echo ok"
    )
    same = shared.container("mo-tmpfs", command=SLEEP, stop_timeout=0, tmpfs=["/m:exec,uid=1000"])
    assert not same["changed"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "volume", "source": "mo-no", "target": "/x", "volume_driver": "nfs"}, "volume_driver: 'nfs'"),
    ({"type": "volume", "source": "mo-no", "target": "/x", "volume_options": {"o": "addr=1"}}, "volume_options"),
    ({"type": "bind", "source": "/srv", "target": "/x", "subpath": "a"}, "is for volume and image mounts"),
    ({"type": "volume", "target": "/x", "subpath": "a"}, "needs a volume with a name"),
    ({"type": "tmpfs", "target": "/x", "tmpfs_options": [{"bogus": 1}]}, "bogus"),
    ({"type": "bind", "source": "/srv", "target": "/x", "read_only_non_recursive": True}, "is not supported"),
    ({"type": "volume", "source": "mo-no", "target": "/x", "create_mountpoint": True}, "is for bind mounts"),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_cannot_be_is_refused_by_name_before_anything_changes(shared: Engine, number: int) -> None:
    entry, words = REFUSED[number]
    with pytest.raises(UsageError, match=words):
        task(shared, "mo-refused", entry)
    assert not os.path.exists(shared.paths.volume_data("mo-no"))


def test_a_health_check_without_a_test_is_the_images_unless_that_is_switched_off(shared: Engine) -> None:
    shared.busybox("healthy:1", ["CMD sleep 1000", "HEALTHCHECK --interval=1s CMD true"])

    def check(**healthcheck: Any) -> Any:
        shared.container("mo-health", image="healthy:1", command=SLEEP, stop_timeout=0, healthcheck=healthcheck)
        return shared.inspect("mo-health")["State"].get("Health")

    assert check(interval="50ms")
    assert not check(interval="50ms", test_cli_compatible=False)
    assert check(interval="50ms", test_cli_compatible=True)
