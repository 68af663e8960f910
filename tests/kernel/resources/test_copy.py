# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files into containers and out of them: only what differs, running or stopped."""

from __future__ import annotations

import base64
import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import Conflict, KernelError, NotFound, UsageError, WharfError


@pytest.fixture(params=["running", "stopped"])
def box(request: pytest.FixtureRequest, shared: Engine) -> str:
    """A container that runs, and one that never did."""
    name = "copy-" + request.param
    shared.run("container", name=name, state="absent", force_kill=True)
    shared.container(name, command=SLEEP, state="started" if request.param == "running" else "present")
    return name


def copy(engine: Engine, name: str, container_path: str, check: bool = False, **params: Any) -> dict[str, Any]:
    return engine.run("container_copy", check, container=name, container_path=container_path, **params)


def inside(engine: Engine, name: str, script: str) -> str:
    """What a shell in the container says; a stopped one is started for it."""
    engine.run("container", name=name, state="started")
    return engine.sh(name, script)


def test_a_file_goes_in_once_and_comes_back_as_it_was(shared: Engine, box: str, tmp_path: Path) -> None:
    source = tmp_path / "app.conf"
    source.write_text("port = 1\n")
    source.chmod(0o640)
    planned = copy(shared, box, "/etc/app.conf", check=True, path=str(source))
    assert planned["changed"] and [a["how"] for a in planned["actions"]] == ["create"]
    assert planned["diff"]["before"] == "" and planned["diff"]["after"] == "port = 1\n"
    first = copy(shared, box, "/etc/app.conf", path=str(source))
    assert first["actions"] == planned["actions"] and first["diff"] == planned["diff"]
    assert not copy(shared, box, "/etc/app.conf", path=str(source))["changed"]
    source.write_text("port = 2\n")
    again = copy(shared, box, "/etc/app.conf", path=str(source))
    assert [(a["how"], a["why"]) for a in again["actions"]] == [("write", "content")]
    assert again["diff"]["before"] == "port = 1\n" and again["diff"]["after"] == "port = 2\n"
    back = tmp_path / "back.conf"
    out = copy(shared, box, "/etc/app.conf", direction="from", path=str(back))
    assert out["changed"] and back.read_text() == "port = 2\n" and stat.S_IMODE(back.stat().st_mode) == 0o640
    assert not copy(shared, box, "/etc/app.conf", direction="from", path=str(back))["changed"]
    assert inside(shared, box, "cat /etc/app.conf; stat -c '%a %u:%g' /etc/app.conf") == "port = 2\n640 0:0"


def test_owner_and_mode_alone_are_a_difference_too(shared: Engine, box: str) -> None:
    wish = {"content": "x", "mode": "0600", "owner_id": 1000, "group_id": 50}
    copy(shared, box, "/srv/owned", **wish)
    assert not copy(shared, box, "/srv/owned", **wish)["changed"]
    changed = copy(shared, box, "/srv/owned", **{**wish, "mode": 0o644, "group_id": 0})
    assert [(a["how"], a["why"]) for a in changed["actions"]] == [("attributes", "mode, owner")]
    assert changed["diff"]["before"]["/srv/owned"] == {"mode": "0600", "owner": "1000:50"}
    assert changed["diff"]["after"]["/srv/owned"] == {"mode": "0644", "owner": "1000:0"}
    assert inside(shared, box, "stat -c '%a %u:%g' /srv/owned") == "644 1000:0"


def test_without_an_owner_files_belong_to_who_the_containers_command_runs_as(shared: Engine) -> None:
    shared.container("as-web", command=SLEEP, user="web:staff")
    copy(shared, "as-web", "/tmp/mine", content="x", mode="0600")
    assert shared.exec("as-web", "stat", "-c", "%u:%g", "/tmp/mine", user="0")["stdout"] == "1000:50"


def test_check_mode_writes_nothing_anywhere(shared: Engine, box: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "f").write_text("f")
    before = shared.run("container_info", name=box, changes=True)["container"]["Changes"]
    planned = copy(shared, box, "/srv/tree", check=True, path=str(tree))
    assert [a["name"] for a in planned["actions"]] == ["/srv/tree", "/srv/tree/sub", "/srv/tree/sub/f"]
    out = copy(shared, box, "/srv", check=True, direction="from", path=str(tmp_path / "out"))
    assert out["changed"] and not (tmp_path / "out").exists()
    assert shared.run("container_info", name=box, changes=True)["container"]["Changes"] == before


def test_a_directory_is_copied_with_links_and_only_what_differs_the_next_time(
    shared: Engine, box: str, tmp_path: Path
) -> None:
    tree = tmp_path / "site"
    (tree / "img").mkdir(parents=True)
    (tree / "index.html").write_text("<h1>one")
    (tree / "img" / "logo").write_bytes(bytes(range(256)) * 5000)
    (tree / "current").symlink_to("img/logo")
    (tree / "away").symlink_to("/etc/passwd")
    os.mkfifo(tree / "pipe")
    (tree / "img").chmod(0o2750)
    first = copy(shared, box, "/srv/site", path=str(tree))
    names = ["", "/away", "/current", "/img", "/img/logo", "/index.html"]
    assert sorted(a["name"] for a in first["actions"]) == ["/srv/site" + name for name in names]
    assert first["warnings"] == ["Not copied, being no files, directories or links: /srv/site/pipe"]
    assert not copy(shared, box, "/srv/site", path=str(tree))["changed"]
    (tree / "index.html").write_text("<h1>two")
    (tree / "current").unlink()
    (tree / "current").symlink_to("index.html")
    again = copy(shared, box, "/srv/site", path=str(tree))
    assert {a["name"]: a["why"] for a in again["actions"]} == {
        "/srv/site/index.html": "content",
        "/srv/site/current": "target",
    }
    out = tmp_path / "out"
    copy(shared, box, "/srv/site", direction="from", path=str(out))
    assert (out / "img" / "logo").read_bytes() == (tree / "img" / "logo").read_bytes()
    assert os.readlink(out / "away") == "/etc/passwd" and os.readlink(out / "current") == "index.html"
    assert not copy(shared, box, "/srv/site", direction="from", path=str(out))["changed"]
    script = "stat -c %a /srv/site/img; readlink /srv/site/away; cat /srv/site/current"
    assert inside(shared, box, script).split() == ["2750", "/etc/passwd", "<h1>two"]


def test_what_is_in_the_target_directory_besides_stays_and_the_directory_itself_is_not_dressed(
    shared: Engine, box: str, tmp_path: Path
) -> None:
    (tmp_path / "t").mkdir(mode=0o700)
    (tmp_path / "t" / "new").write_text("n")
    copy(shared, box, "/tmp", path=str(tmp_path / "t"))
    copy(shared, box, "/srv", path=str(tmp_path / "t"))
    assert inside(shared, box, "stat -c %a /tmp; ls /srv").split() == ["1777", "index.html", "new"]
    copy(shared, box, "/srv", path=str(tmp_path / "t"), directory_mode="0711")
    assert inside(shared, box, "stat -c %a /srv") == "711"


def test_links_are_followed_where_the_task_says_so_and_never_out_of_the_container(
    shared: Engine, box: str, tmp_path: Path
) -> None:
    inside(shared, box, "ln -s /etc/real /srv/link; ln -s /../../../../srv /abs; mkdir -p /etc")
    shared.run("container", name=box, state="stopped" if "stopped" in box else "started", stop_timeout=0)
    copy(shared, box, "/srv/link", content="through", mode="0644", follow=True)
    copy(shared, box, "/abs/file", content="below", mode="0644")
    assert not Path("/etc/real").exists() and not Path("/srv/file").exists()
    out = tmp_path / "link"
    copy(shared, box, "/srv/link", direction="from", path=str(out))
    assert os.readlink(out) == "/etc/real"
    copy(shared, box, "/srv/link", direction="from", path=str(out), follow=True, local_follow=False)
    assert out.read_text() == "through" and not out.is_symlink()
    copy(shared, box, "/srv/link", content="instead", mode="0644")
    script = "cat /etc/real; echo; cat /srv/file; echo; test -L /srv/link || cat /srv/link"
    assert inside(shared, box, script).split() == ["through", "below", "instead"]


def test_force_writes_always_or_never(shared: Engine, box: str) -> None:
    copy(shared, box, "/srv/f", content="1", mode="0644")
    assert not copy(shared, box, "/srv/f", content="2", mode="0600", force=False)["changed"]
    assert copy(shared, box, "/srv/new", content="2", mode="0600", force=False)["changed"]
    forced = copy(shared, box, "/srv/f", content="1", mode="0644", force=True)
    assert [(a["how"], a["why"]) for a in forced["actions"]] == [("write", "force")]
    assert inside(shared, box, "cat /srv/f") == "1"


def test_content_may_be_binary_and_is_in_no_diff(shared: Engine, box: str, tmp_path: Path) -> None:
    data = bytes(range(256))
    text = base64.b64encode(data).decode()
    result = copy(shared, box, "/srv/bin", content=text, content_is_b64=True, mode="0600")
    assert text not in str(result) and result["changed"]
    hidden = copy(shared, box, "/srv/secret", content="hunter2-old", mode="0600")
    hidden = copy(shared, box, "/srv/secret", content="hunter2-new", mode="0600")
    assert "hunter2" not in str(hidden) and hidden["changed"]
    copy(shared, box, "/srv/bin", direction="from", path=str(tmp_path / "bin"))
    assert (tmp_path / "bin").read_bytes() == data


def test_volumes_and_binds_are_where_the_container_sees_them(shared: Engine, tmp_path: Path) -> None:
    (tmp_path / "bind").mkdir()
    mounts = ["copy-vol:/data/vol", "%s:/data/bind" % (tmp_path / "bind")]
    for state in ("present", "started"):
        shared.run("container", name="mounts", state="absent", force_kill=True)
        shared.container("mounts", command=SLEEP, volumes=mounts, state=state)
        for name in ("vol", "bind"):
            assert copy(shared, "mounts", "/data/%s/%s" % (name, state), content=name, mode="0644")["changed"]
            assert not copy(shared, "mounts", "/data/%s/%s" % (name, state), content=name, mode="0644")["changed"]
        assert (tmp_path / "bind" / state).read_text() == "bind"
        assert Path(shared.paths.volume_data("copy-vol"), state).read_text() == "vol"
        copy(shared, "mounts", "/data", direction="from", path=str(tmp_path / ("out-" + state)))
        assert (tmp_path / ("out-" + state) / "vol" / state).read_text() == "vol"
    assert not os.listdir(shared.paths.container(shared.inspect("mounts")["Id"]) + "/upper/data/vol")


def test_what_is_the_kernels_is_not_copied(shared: Engine, box: str, tmp_path: Path) -> None:
    for path in ("/proc/1/environ", "/sys/kernel", "/dev/null", "/proc"):
        with pytest.raises(UsageError):
            copy(shared, box, path, direction="from", path=str(tmp_path / "stolen"))
    for path in ("/proc/x", "/sys/x", "/dev/x"):
        with pytest.raises(UsageError):
            copy(shared, box, path, content="x", mode="0644")
    assert not (tmp_path / "stolen").exists()


def test_the_whole_tree_can_be_copied_without_what_is_the_kernels(shared: Engine, tmp_path: Path) -> None:
    shared.container("whole", command=SLEEP)
    result = copy(shared, "whole", "/", direction="from", path=str(tmp_path / "root"))
    assert (tmp_path / "root" / "srv" / "index.html").read_text() == "hello from the image\n"
    assert not {"proc", "sys", "dev"} & set(os.listdir(tmp_path / "root")) and result["warnings"]


def test_a_set_id_program_of_a_container_does_not_become_one_of_the_host(shared: Engine, tmp_path: Path) -> None:
    shared.container("suid", command=SLEEP)
    shared.sh("suid", "cp /bin/busybox /srv/su 2>/dev/null || cat /bin/busybox > /srv/su; chmod 6755 /srv/su")
    copy(shared, "suid", "/srv/su", direction="from", path=str(tmp_path / "su"))
    assert stat.S_IMODE((tmp_path / "su").stat().st_mode) == 0o755 and (tmp_path / "su").stat().st_uid == 0


def test_devices_of_a_container_are_neither_opened_nor_made_on_the_host(shared: Engine, tmp_path: Path) -> None:
    shared.container("dev", command=SLEEP)
    shared.sh("dev", "mkdir /srv/d; mknod /srv/d/null c 1 3; mknod /srv/d/pipe p; echo ok > /srv/d/ok")
    result = copy(shared, "dev", "/srv/d", direction="from", path=str(tmp_path / "d"))
    assert os.listdir(tmp_path / "d") == ["ok"] and len(result["warnings"]) == 1
    with pytest.raises(UsageError, match="no file, directory or link"):
        copy(shared, "dev", "/srv/d/null", direction="from", path=str(tmp_path / "null"))


def test_a_read_only_root_refuses_files_and_its_volumes_take_them(shared: Engine) -> None:
    for state in ("present", "started"):
        shared.run("container", name="ro", state="absent", force_kill=True)
        shared.container("ro", command=SLEEP, read_only=True, volumes=["ro-vol:/data"], state=state)
        with pytest.raises(KernelError, match="Read-only file system"):
            copy(shared, "ro", "/srv/x", content="x", mode="0644")
        copy(shared, "ro", "/data/" + state, content="x", mode="0644")


def test_a_container_with_ids_of_its_own_sees_files_with_its_ids(shared: Engine, tmp_path: Path) -> None:
    for state in ("present", "started"):
        shared.run("container", name="mapped", state="absent", force_kill=True)
        shared.container("mapped", command=SLEEP, userns_mode="auto", state=state)
        wish = {"content": "x", "mode": "0640", "owner_id": 1000, "group_id": 0}
        copy(shared, "mapped", "/srv/owned", **wish)
        assert not copy(shared, "mapped", "/srv/owned", **wish)["changed"]
        copy(shared, "mapped", "/srv/index.html", direction="from", path=str(tmp_path / state))
        assert (tmp_path / state).read_text() == "hello from the image\n"
        assert inside(shared, "mapped", "stat -c '%a %u:%g' /srv/owned; rm /srv/owned") == "640 1000:0"


def test_a_paused_container_can_be_copied_to(shared: Engine) -> None:
    shared.container("paused", command=SLEEP, paused=True)
    copy(shared, "paused", "/srv/x", content="x", mode="0644")
    assert shared.inspect("paused")["State"]["Paused"]
    shared.run("container", name="paused", state="started", paused=False)
    assert shared.sh("paused", "cat /srv/x") == "x"


@pytest.mark.parametrize(
    ("params", "error", "words"),
    [
        ({"container_path": "/srv/f"}, UsageError, "path is missing"),
        ({"container_path": "/srv/f", "content": "x"}, UsageError, "mode is missing"),
        ({"container_path": "srv/f", "content": "x", "mode": "0644"}, UsageError, "not an absolute path"),
        ({"container_path": "/srv/f", "content": "x", "mode": "9"}, UsageError, "no octal file mode"),
        ({"container_path": "/srv/f", "content": "x", "mode": "17777"}, UsageError, "is no file mode"),
        ({"container_path": "/srv/f", "content": "x", "mode": "0644", "owner_id": 1}, UsageError, "go together"),
        ({"container_path": "/srv/f", "content": "!", "content_is_b64": True, "mode": "0644"}, UsageError, "Base64"),
        ({"container_path": "/srv/f", "path": "/etc/nothing-there"}, NotFound, "there is no /etc/nothing-there"),
        ({"container_path": "/no/where/f", "content": "x", "mode": "0644"}, NotFound, "directory /no/where does not"),
        ({"container_path": "/srv/index.html/f", "content": "x", "mode": "0644"}, NotFound, "is not a directory"),
        ({"container_path": "/srv", "content": "x", "mode": "0644"}, Conflict, "/srv is a directory in container"),
        ({"container_path": "/srv/new/", "content": "x", "mode": "0644"}, UsageError, "names a directory"),
        ({"container_path": "/srv/index.html", "path": "/etc/default"}, Conflict, "is no directory"),
        ({"container_path": "/srv/none", "direction": "from", "path": "/tmp/f"}, NotFound, "there is no /srv/none"),
        ({"container_path": "/srv/f", "direction": "from", "content": "x", "mode": "0600"}, UsageError, "into only"),
    ],
)
def test_bad_input_is_told_and_changes_nothing(
    shared: Engine, box: str, params: dict[str, Any], error: type[WharfError], words: str
) -> None:
    before = shared.run("container_info", name=box, changes=True)["container"]["Changes"]
    with pytest.raises(error, match=words):
        shared.run("container_copy", container=box, **params)
    assert shared.run("container_info", name=box, changes=True)["container"]["Changes"] == before


def test_files_that_the_engine_makes_at_every_start_are_not_written_below_its_own(shared: Engine) -> None:
    shared.container("made", command=SLEEP, state="present")
    for name in ("hosts", "hostname", "resolv.conf"):
        with pytest.raises(UsageError, match="is made from the container's options whenever it starts"):
            copy(shared, "made", "/etc/" + name, content="x", mode="0644")


def _start(engine: Engine, name: str, failed: list[Exception]) -> None:
    try:
        engine.run("container", name=name, state="started")
    except Exception as error:
        failed.append(error)


def test_a_container_that_is_started_while_files_are_copied_to_it_has_them_all(shared: Engine) -> None:
    for turn in range(8):
        name = "meanwhile%d" % turn
        shared.container(name, command=["sh", "-c", "sleep 1000"], state="present")
        failed: list[Exception] = []

        thread = threading.Thread(target=_start, args=(shared, name, failed))
        thread.start()
        done = []
        for number in range(6):
            try:
                copy(shared, name, "/srv/f%d" % number, content=str(number), mode="0644")
                done.append(number)
            except Conflict as error:  # at the very moment of the start
                assert "between two runs" in error.msg
        thread.join()
        assert not failed
        found = shared.sh(name, "cd /srv; echo f*").split()
        assert done and found == ["f%d" % number for number in done]
        shared.run("container", name=name, state="absent", force_kill=True)


def test_a_file_that_is_mounted_in_the_container_stays_mounted_and_as_it_is(shared: Engine, tmp_path: Path) -> None:
    """From another mount namespace, a rename over it would succeed and take the mount away."""
    (tmp_path / "own").write_text("mounted")
    shared.container("over", command=SLEEP, volumes=["%s:/srv/own" % (tmp_path / "own")])
    with pytest.raises(Conflict, match="/srv/own cannot be replaced: it is mounted there"):
        copy(shared, "over", "/srv/own", content="x", mode="0644")
    assert shared.sh("over", "cat /srv/own; ls -a /srv").split() == ["mounted.", "..", "index.html", "own"]
    assert (tmp_path / "own").read_text() == "mounted"
