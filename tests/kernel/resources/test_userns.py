# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""``userns_mode``: a range of ids per container, from the task to the disk and back."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP, hold, proc
from module_utils._engine.errors import Conflict, UsageError
from module_utils._engine.resources import container_userns
from module_utils._engine.store.state import Store


def first(engine: Engine, name: str) -> int:
    return int(proc(engine, name, "uid_map").split()[1])


def reserved(engine: Engine) -> list[tuple[int, int]]:
    with Store.open(engine.paths) as store:
        found = [record.resolved.get("userns") for record in store.containers.list()]
    return sorted((entry["first"], entry["size"]) for entry in found if entry)


def test_the_mode_is_kept_through_every_change_of_the_task(shared: Engine) -> None:
    hold(shared, "userns_mode", "auto", "keep-id", "replace", lambda e, n: proc(e, n, "uid_map").split())
    hold(shared, "userns_mode", "auto:size=1000", "auto:size=2000", "replace", lambda e, n: proc(e, n, "uid_map"))


def test_host_and_the_default_size_are_what_leaving_them_out_means(shared: Engine) -> None:
    shared.container("same", command=SLEEP, userns_mode="host")
    assert not shared.container("same", command=SLEEP)["changed"]
    shared.container("same2", command=SLEEP, userns_mode="auto:size=65536")
    assert not shared.container("same2", command=SLEEP, userns_mode="auto")["changed"]
    assert shared.inspect("same2")["HostConfig"]["UsernsMode"] == "auto"


def test_no_two_containers_have_an_id_in_common_and_removal_gives_ids_back(fresh: Engine) -> None:
    sizes = (65536, 1000, 65536, 3, 200000)
    for number, size in enumerate(sizes):
        fresh.container("u%d" % number, command=SLEEP, userns_mode="auto:size=%d" % size)
    ranges = reserved(fresh)
    assert [size for _first, size in ranges] == list(sizes)
    assert all(one[0] + one[1] <= two[0] for one, two in zip(ranges, ranges[1:]))
    assert {first(fresh, "u%d" % n) for n in range(5)} == {start for start, _size in ranges}
    gone = first(fresh, "u1")
    fresh.run("container", name="u1", state="absent", force_kill=True)
    fresh.container("again", command=SLEEP, userns_mode="auto:size=500")
    assert first(fresh, "again") == gone
    fresh.run("container", name="u0", state="absent", force_kill=True)
    assert fresh.container("u2", command=SLEEP, userns_mode="auto:size=65536", env={"A": "1"})["changed"]
    assert len(reserved(fresh)) == 4  # a replacement took a range of its own, and the old one's went with it


def test_a_restart_and_a_stop_keep_the_range(shared: Engine) -> None:
    shared.container("keeps", command=SLEEP, userns_mode="auto")
    before = first(shared, "keeps")
    shared.sh("keeps", "echo x >/root/f")
    shared.container("keeps", command=SLEEP, userns_mode="auto", restart=True)
    shared.run("container", name="keeps", state="stopped", force_kill=True)
    shared.container("other", command=SLEEP, userns_mode="auto")
    shared.run("container", name="keeps", state="started")
    assert first(shared, "keeps") == before != first(shared, "other")
    assert shared.sh("keeps", "stat -c %u:%g /root/f") == "0:0"


def test_its_network_is_its_own_and_works(shared: Engine) -> None:
    shared.container("server", command=["httpd", "-f", "-p", "80", "-h", "/srv"], userns_mode="auto")
    shared.container("client", command=SLEEP, userns_mode="auto", capabilities=["NET_ADMIN"])
    address = shared.inspect("server")["NetworkSettings"]["IPAddress"]
    assert shared.sh("client", "wget -qO- http://%s/" % address) == "hello from the image"
    assert shared.sh("client", "ip link set lo mtu 1300 && cat /sys/class/net/lo/mtu") == "1300"
    assert shared.sh("client", "ping -c1 -w5 %s >/dev/null && echo answered" % address) == "answered"
    assert shared.sh("client", "stat -c %u:%g /etc/hosts /etc/resolv.conf") == "0:0\n0:0"


def test_volumes_are_filled_and_shared_with_the_ids_of_the_image(shared: Engine) -> None:
    for mode in ("auto", "auto", "host"):
        name = "v%d" % len(shared.run("container_info")["containers"])
        shared.container(name, command=SLEEP, userns_mode=mode, volumes=["data:/srv"], user="0")
        assert shared.sh(name, "stat -c %u:%g /srv /srv/index.html") == "0:0\n0:0"
        shared.sh(name, "touch /srv/%s && chown 1000:50 /srv/%s" % (name, name))
        info = os.stat(shared.paths.volume_data("data") + "/" + name)
        assert (info.st_uid, info.st_gid) == (1000, 50)
        shared.run("container", name=name, state="stopped", force_kill=True)


def test_commit_export_and_changes_tell_the_ids_of_the_image(shared: Engine, tmp_path: Path) -> None:
    shared.container("source", command=SLEEP, userns_mode="auto", capabilities=["SETFCAP"])
    shared.sh("source", "echo x >/root/f; chown 1000:50 /root/f; cat /srv/index.html >>/dev/null")
    shared.sh("source", "mkdir /root/d; rm /srv/index.html; chmod 755 /etc/passwd; chmod 644 /etc/passwd")
    kinds = {
        c["Path"]: c["Kind"] for c in shared.run("container_info", name="source", changes=True)["container"]["Changes"]
    }
    assert kinds == {"/root": 0, "/root/f": 1, "/root/d": 1, "/srv": 0, "/srv/index.html": 2}
    shared.run("container_export", container="source", path=str(tmp_path / "out.tar"))
    with tarfile.open(str(tmp_path / "out.tar")) as tar:
        owners = {m.name.lstrip("./"): (m.uid, m.gid) for m in tar.getmembers()}
    assert owners["root/f"] == (1000, 50) and owners["root/d"] == owners["bin/busybox"] == (0, 0)
    assert set(owners.values()) == {(0, 0), (1000, 50)}
    shared.run("container_commit", container="source", name="made:1")
    assert not shared.run("container_commit", container="source", name="made:1")["changed"]
    for name, mode in (("plain", "host"), ("other-range", "auto")):
        shared.container(name, image="made:1", command=SLEEP, userns_mode=mode)
        assert shared.sh(name, "stat -c %u:%g /root/f /root/d") == "1000:50\n0:0"


def test_a_container_on_a_copy_of_its_image_commits_and_exports_the_same(fresh: Engine, tmp_path: Path) -> None:
    """As on a kernel that cannot mount layers with other ids: the copy is made beforehand, and used as it is there."""
    from module_utils._engine.kernel.syscalls import Kernel
    from module_utils._engine.resources import container_make
    from module_utils._engine.resources.task import Task
    from module_utils._engine.storage import shifted

    script = "echo x >/root/f; chown 1000:50 /root/f; chmod 700 /srv"
    digests = {}
    for name in ("mapped", "copied"):
        fresh.container(name, command=SLEEP, userns_mode="auto", state="present")
        with Task({"state_dir": fresh.paths.state, "run_dir": fresh.paths.run}) as task:
            record = task.store.containers.by_name(name)
            image = task.store.images.get(record.image_id) if record else None
            assert record is not None and image is not None
            owners = container_userns.owners(record)
            assert owners is not None
            if name == "copied":
                place = task.paths.container(record.id) + "/" + shifted.NAME
                shifted._copy(Kernel(), container_make.layer_paths(task, image), place, owners)
        fresh.run("container", name=name, state="started")
        fresh.sh(name, script)
        assert fresh.sh(name, "stat -c %u:%g /bin/busybox /root/f") == "0:0\n1000:50"
        fresh.sh(name, "touch -d '2020-01-01 00:00:00' /root/f /root /srv")
        fresh.run("container_export", container=name, path=str(tmp_path / (name + ".tar")))
        kinds = {
            c["Path"]: c["Kind"] for c in fresh.run("container_info", name=name, changes=True)["container"]["Changes"]
        }
        assert kinds == {"/root": 0, "/root/f": 1, "/srv": 0}
        made = fresh.run("container_commit", container=name, name=name + ":1")["image"]
        digests[name] = made["RootFS"]["Layers"][-1]
    listed = []
    for name in ("mapped", "copied"):
        with tarfile.open(str(tmp_path / (name + ".tar"))) as tar:
            listed.append({(m.name, m.uid, m.gid, m.mode, m.size) for m in tar.getmembers()})
    assert listed[0] == listed[1]
    assert digests["mapped"] == digests["copied"]
    identity = fresh.inspect("copied")["Id"]
    assert fresh.run("host_info", disk_usage=True)["host"]["disk_usage"]["containers"]["disk"] > os.path.getsize(
        "/bin/busybox"
    )
    fresh.run("container", name="copied", state="absent", force_kill=True)
    assert not os.path.exists(fresh.paths.container(identity))


def test_a_health_check_and_a_mount_added_live_run_inside(shared: Engine, tmp_path: Path) -> None:
    os.chown(tmp_path, 1000, 50)
    check = {"test": ["CMD-SHELL", "test $(id -u) = 0 && touch /root/probed"], "interval": "100ms"}
    task: dict[str, Any] = {"command": SLEEP, "userns_mode": "auto", "healthcheck": check, "state": "healthy"}
    shared.container("live", **task)
    pid = shared.pid("live")
    upper = shared.paths.container(shared.inspect("live")["Id"]) + "/upper"
    assert os.stat(upper + "/root/probed").st_uid == first(shared, "live")
    mounts = [{"type": "bind", "source": str(tmp_path), "target": "/mnt"}, {"type": "tmpfs", "target": "/scratch"}]
    result = shared.container("live", **task, mounts=mounts)
    assert [action["how"] for action in result["actions"]] == ["live"] and shared.pid("live") == pid
    assert shared.sh("live", "stat -c %u:%g /mnt /scratch") == "1000:50\n0:0"


@pytest.mark.parametrize(
    "mode", ["auto:size=0", "auto:size=x", "auto:uidmapping=0:1:2", "nonsense", "container:x", "auto:size=999999999"]
)
def test_a_mode_that_means_nothing_is_refused_before_anything_changes(shared: Engine, mode: str) -> None:
    with pytest.raises(UsageError, match="userns_mode"):
        shared.container("never", command=SLEEP, userns_mode=mode)


@pytest.mark.parametrize("option", [{"privileged": True}, {"network_mode": "host"}, {"pid_mode": "host"}])
def test_what_is_about_the_host_is_refused_with_ids_of_its_own(shared: Engine, option: dict[str, Any]) -> None:
    for mode in ("auto", "keep-id"):
        with pytest.raises(UsageError, match="cannot be combined with %s" % next(iter(option))):
            shared.container("never", command=SLEEP, userns_mode=mode, **option)


def test_the_pool_is_the_lines_of_the_user_wharf_or_what_nobody_else_has(tmp_path: Path) -> None:
    uids, gids = tmp_path / "subuid", tmp_path / "subgid"

    def pool() -> list[tuple[int, int]]:
        return container_userns.pool(str(uids), str(gids))

    whole = pool()
    assert whole == [(1879048192, 268304384)]
    uids.write_text("alice:1879048192:10\nbob:1879148192:65536\n")
    gids.write_text("alice:100000:65536\n")
    assert pool() == [(1879048202, 99990), (1879213728, 268138848)]
    uids.write_text("wharf:500000:70000\n")
    with pytest.raises(UsageError, match="differ"):
        pool()
    gids.write_text("wharf:500000:70000\n")
    assert pool() == [(500000, 70000)]


def test_an_exhausted_pool_is_a_sentence_and_no_container(fresh: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_userns, "pool", lambda: [(500000, 70000)])
    fresh.container("one", command=SLEEP, userns_mode="auto")
    with pytest.raises(Conflict, match="No range of 65536 ids is left"):
        fresh.container("two", command=SLEEP, userns_mode="auto")
    fresh.container("three", command=SLEEP, userns_mode="auto:size=4464")
    assert reserved(fresh) == [(500000, 65536), (565536, 4464)]
    assert {c["Name"] for c in fresh.run("container_info")["containers"]} == {"/one", "/three"}
