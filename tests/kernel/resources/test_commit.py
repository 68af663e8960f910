# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A container becomes an image: only what it changed, the same bytes for the same content, Docker's configuration."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.tars import snapshot
from module_utils._engine.errors import NotFound, Unsupported, UsageError
from module_utils._engine.images import commit as commits
from module_utils._engine.images import diff
from module_utils._engine.images.layers import LayerWriter
from module_utils._engine.kernel.syscalls import Kernel
from module_utils._engine.resources.task import Task
from module_utils._engine.storage import overlay

SLEEP = ["sleep", "1000"]
KERNEL = Kernel()


def commit(instance: Engine, container: str, name: str, check: bool = False, **more: Any) -> dict[str, Any]:
    return instance.run("container_commit", check, container=container, name=name, **more)


def layer_of(instance: Engine, name: str, directory: Path) -> dict[str, tarfile.TarInfo]:
    """Members of the image's last layer, as an export has it."""
    path = str(directory / ("%s.tar" % name.replace(":", "-")))
    image = instance.run("image_export", names=[name], path=path)["images"][0]
    with tarfile.open(path) as outer:
        inner = outer.extractfile("blobs/sha256/" + image["RootFS"]["Layers"][-1][7:])
        with tarfile.open(fileobj=inner) as tar:
            return {member.name: member for member in tar}


@pytest.fixture
def stopped(fresh: Engine) -> Engine:
    fresh.container(
        "web", command=SLEEP, volumes=["data:/data", "/tmp:/deep/er/bind"], tmpfs=["/scratch"], env={"A": "1"}
    )
    return fresh


def test_only_what_changed_is_in_the_layer(stopped: Engine, tmp_path: Path) -> None:
    stopped.sh(
        "web",
        """
        echo new > /srv/new; rm /srv/index.html; mkdir -p /opt/a/b; echo x > /opt/a/b/f; ln /opt/a/b/f /opt/a/hard
        ln -s f /opt/a/b/soft; chmod 700 /var; echo v > /data/v; echo b > /scratch/s
        chmod 600 /etc/group; chmod 644 /etc/group; echo more >> /etc/hosts
        rm -rf /root; mkdir /root; echo r > /root/r; mknod /opt/null c 1 3; mkdir /opt/empty
        """,
    )
    stopped.sh("web", "touch -d @1 /opt/a/b/f")
    done = commit(stopped, "web", "web:1")
    assert done["changed"] and done["actions"][0]["how"] == "commit"
    found = layer_of(stopped, "web:1", tmp_path)
    assert set(found) == {
        "opt", "opt/a", "opt/a/b", "opt/a/b/f", "opt/a/b/soft", "opt/a/hard", "opt/empty", "opt/null",
        "root", "root/.wh..wh..opq", "root/r", "srv", "srv/.wh.index.html", "srv/new", "var",
    } - (set() if "root/.wh..wh..opq" in found else {"root/.wh..wh..opq"})  # fmt: skip
    assert found["opt/a/hard"].islnk() and found["opt/a/hard"].linkname == "opt/a/b/f"
    assert found["var"].mode == 0o700 and found["opt/null"].ischr()
    changed = stopped.run("container_commit", container="web", name="web:1")
    assert not changed["changed"]


def test_the_new_image_shows_what_the_container_showed(stopped: Engine) -> None:
    stopped.sh("web", "echo new > /srv/new; rm /srv/index.html; rm -rf /root; mkdir /root; echo r > /root/r")
    commit(stopped, "web", "web:1")
    stopped.container("copy", image="web:1", command=SLEEP)
    assert stopped.sh("copy", "ls /srv /root; cat /srv/new; ls -d /deep /data /scratch 2>/dev/null; true").split() == [
        "/root:", "r", "/srv:", "new", "new",
    ]  # fmt: skip


def test_a_second_container_with_the_same_files_makes_the_same_layer(stopped: Engine) -> None:
    layers = []
    for name in ("one", "two"):
        stopped.container(name, command=SLEEP)
        stopped.sh(name, "echo same > /srv/same; rm /srv/index.html; touch -d @1000 /srv/same /srv")
        layers.append(commit(stopped, name, "same:" + name)["image"]["RootFS"]["Layers"][-1])
    assert layers[0] == layers[1]


def test_a_commit_of_nothing_adds_no_layer_only_history(stopped: Engine) -> None:
    base = stopped.run("image_info", name=["bb:1"])["images"][0]
    image = commit(stopped, "web", "web:same", comment="nothing")["image"]
    assert image["RootFS"] == base["RootFS"] and image["Comment"] == "nothing"
    assert image["Id"] != base["Id"] and not commit(stopped, "web", "web:same", comment="nothing")["changed"]


def test_the_configuration_is_the_containers_with_the_changes_over_it(stopped: Engine) -> None:
    image = commit(
        stopped, "web", "web:1", author="Ada", comment="why",
        changes=["ENTRYPOINT [\"/bin/echo\"]", "ENV B=2", "LABEL l=1", "EXPOSE 80", "WORKDIR /srv"],
    )["image"]  # fmt: skip
    config = image["Config"]
    assert config["Entrypoint"] == ["/bin/echo"] and not config["Cmd"]
    assert {"A=1", "B=2"} <= set(config["Env"]) and config["Labels"] == {"l": "1"}
    assert config["ExposedPorts"] == {"80/tcp": {}} and config["WorkingDir"] == "/srv"
    assert image["Author"] == "Ada" and image["Comment"] == "why"
    shell = commit(stopped, "web", "web:2", changes=["CMD node app.js"])["image"]["Config"]
    assert shell["Cmd"] == ["/bin/sh", "-c", "node app.js"]
    again = commit(stopped, "web", "web:2", changes=["CMD other"])
    assert again["actions"][0]["detail"]["replaces"]
    for bad in ("RUN rm -rf /", "FROM x", "COPY a b"):
        with pytest.raises(UsageError, match="is not one of"):
            commit(stopped, "web", "web:3", changes=[bad])


def test_check_mode_says_and_does_nothing_and_what_is_not_there_is_named(stopped: Engine) -> None:
    assert commit(stopped, "web", "web:1", check=True)["changed"]
    assert [one["RepoTags"] for one in stopped.run("image_info")["images"]] == [["bb:1"]]
    with pytest.raises(NotFound, match="No such container"):
        commit(stopped, "nobody", "web:1")
    with pytest.raises(UsageError):
        commit(stopped, "web", "web@sha256:" + "0" * 64)


def test_a_running_container_is_frozen_meanwhile_and_runs_on(stopped: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = commits.commit

    def spy(*args: Any) -> Any:
        seen.append(stopped.inspect("web")["State"]["Status"])
        return original(*args)

    monkeypatch.setattr(commits, "commit", spy)
    commit(stopped, "web", "web:1")
    commit(stopped, "web", "web:2", pause=False)
    assert seen == ["paused", "running"] and stopped.inspect("web")["State"]["Status"] == "running"

    def fail(*_args: Any) -> Any:
        raise Unsupported("no")

    monkeypatch.setattr(commits, "commit", fail)
    with pytest.raises(Unsupported):
        commit(stopped, "web", "web:3")
    assert stopped.inspect("web")["State"]["Status"] == "running"


def test_a_stopped_container_can_be_committed_and_its_image_keeps_what_is_below(stopped: Engine) -> None:
    stopped.sh("web", "echo kept > /srv/kept")
    stopped.run("container", name="web", state="stopped", stop_timeout=1)
    commit(stopped, "web", "web:1")
    stopped.run("container", name="web", state="absent")
    stopped.run("image", name="bb:1", state="absent")
    stopped.container("next", image="web:1", command=SLEEP)
    assert stopped.sh("next", "cat /srv/kept").strip() == "kept"


def test_export_is_one_flat_archive_and_the_same_one_twice(stopped: Engine, tmp_path: Path) -> None:
    stopped.sh("web", "echo new > /srv/new; rm /srv/index.html; echo v > /data/v")
    path = str(tmp_path / "web.tar")
    params = {"container": "web", "path": path}
    assert stopped.run("container_export", True, **params)["changed"] and not os.path.exists(path)
    assert stopped.run("container_export", **params)["changed"]
    assert not stopped.run("container_export", **params)["changed"]
    with tarfile.open(path) as tar:
        names = tar.getnames()
    assert "srv/new" in names and "bin/busybox" in names and "data" in names
    assert "srv/index.html" not in names and "data/v" not in names
    image = stopped.run("image", name="flat:1", source="import", path=path)["image"]
    assert len(image["RootFS"]["Layers"]) == 1
    stopped.sh("web", "echo again > /srv/new")
    assert stopped.run("container_export", **params)["changed"]


# -- the walk against a real overlay, both forms of layers -------------------------------------------------------

SCRIPTS = {
    "files": "echo 1 > a/f; rm a/g; : > new; chmod 600 top; chown 5:6 link -h",
    "opaque": "rm -rf a; mkdir a; echo x > a/other",
    "emptied": "rm -rf a; mkdir a",
    "file becomes directory": "rm top; mkdir top; echo x > top/in",
    "directory becomes file": "rm -rf a; echo x > a",
    "directory becomes symlink": "rm -rf a; ln -s b a",
    "links": "ln top hard1; ln top a/hard2; ln -s nowhere dangling; mkfifo pipe; mknod dev b 7 9",
    "moved": "mv a moved; mv b/deep/er b/up",
    "touched and put back": "chmod 600 top; chmod 644 top; : >> a/f",
    "whiteout below new": "mkdir n; echo 1 > n/x; rm n/x; rm -rf b/deep; mkdir b/deep; rm -rf b",
    "attributes": "setfattr -n user.k -v v top 2>/dev/null || true; touch -d @5.25 a/f; chmod 2755 b",
    "long": "d=$(printf 'd%.0s' $(seq 200)); mkdir -p $d/$d; echo x > $d/$d/$d; ln -s $d/$d $d/l",
}


@pytest.fixture(params=["erofs", "tree"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> list[tuple[str, str]]:
    from helpers.tars import build, file, folder, link, symlink

    lower = build([
        folder("a"), file("a/f", b"f", xattrs={"user.x": b"\\0"}), file("a/g", b"g" * 5000), file("top", b"t"),
        link("top2", "top"), symlink("link", "a/f"), folder("b"), folder("b/deep"), folder("b/deep/er"),
        file("b/deep/er/x", b"x"),
    ])  # fmt: skip
    (tmp_path / "layer").mkdir()
    with LayerWriter(str(tmp_path / "layer"), form=request.param) as writer:
        writer.write(lower)
        return [(str(tmp_path / "layer"), writer.finish().form)]


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_the_image_with_the_layer_is_what_the_container_saw(
    base: list[tuple[str, str]], tmp_path: Path, script: str
) -> None:
    for name in ("upper", "work", "second"):
        (tmp_path / name).mkdir()
    upper = str(tmp_path / "upper")
    os.chmod(upper, 0o755)
    mounted = overlay.mount_rootfs(KERNEL, base, upper, str(tmp_path / "work"))
    try:
        done = subprocess.run(
            ["sh", "-c", "cd /proc/self/fd/%d && (%s)" % (mounted, script)], pass_fds=[mounted], check=False
        )
        assert done.returncode == 0
        seen = snapshot(mounted)
    finally:
        os.close(mounted)
    archives = []
    for _again in range(2):
        data = bytearray()
        with commits.opened(KERNEL, commits.Container(base, upper, ())) as (fd, walk):
            count = diff.write_layer(KERNEL, fd, iter(walk), data.extend)
        archives.append(bytes(data))
    assert archives[0] == archives[1]
    if script == SCRIPTS["touched and put back"]:
        assert count == 0
        return
    for form in ("erofs", "tree"):
        directory = tmp_path / ("second-" + form)
        directory.mkdir()
        with LayerWriter(str(directory), form=form, parents=base) as writer:
            writer.write(archives[0])
            stack = [*base, (str(directory), writer.finish().form)]
        again = overlay.mount_rootfs(KERNEL, stack)
        try:
            shown = snapshot(again)
        finally:
            os.close(again)
        shown[b"."] = seen[b"."]  # the engine's own directory
        assert _plain(shown) == _plain(seen)


def _plain(found: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """Without directory times: a directory that only lost and got back a name counts as unchanged."""
    return {path: (*facts[:5], 0 if facts[0] >> 12 == 4 else facts[5], *facts[6:]) for path, facts in found.items()}


def test_names_that_only_look_like_whiteouts_are_refused(base: list[tuple[str, str]], tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/.wh.top").write_text("")
    with pytest.raises(Unsupported, match="was deleted"):
        commits.diff_id(KERNEL, commits.Container(base, str(tmp_path / "upper"), ()))


def test_what_umoci_unpacks_of_a_commit_is_what_we_show(stopped: Engine, tmp_path: Path) -> None:
    if not shutil.which("umoci"):
        pytest.skip("umoci is needed")
    stopped.sh("web", "rm -rf /root; mkdir /root; echo r > /root/r; rm /srv/index.html; ln /bin/busybox /bin/twin")
    commit(stopped, "web", "web:1")
    stopped.run("image_export", names=["web:1"], path=str(tmp_path / "oci"), format="oci-layout")
    subprocess.run(
        ["umoci", "unpack", "--image", "%s:1" % (tmp_path / "oci"), str(tmp_path / "bundle")],
        check=True,
        capture_output=True,
    )
    theirs = snapshot(str(tmp_path / "bundle/rootfs"), times=False)
    stopped.run("container_export", container="web", path=str(tmp_path / "flat.tar"))
    with tarfile.open(tmp_path / "flat.tar") as tar:
        ours = {os.fsencode("./" + member.name) for member in tar}
    mountpoints = {b"./dev", b"./proc", b"./sys", b"./data", b"./deep", b"./deep/er", b"./deep/er/bind", b"./scratch",
                   b"./etc/hosts", b"./etc/hostname", b"./etc/resolv.conf"}  # fmt: skip
    assert set(theirs) - {b"."} == ours - mountpoints


@pytest.mark.parametrize("alone", [True, False])
def test_a_container_goes_on_when_the_task_that_commits_it_is_killed(shared: Engine, alone: bool) -> None:
    """``alone``: its monitor lives, and sees it; otherwise the next monitor knows."""
    name = "held-%d" % alone
    shared.container(name, command=SLEEP)
    identity = shared.inspect(name)["Id"]
    task = os.fork()
    if task == 0:
        try:
            params = {"state_dir": shared.paths.state, "run_dir": shared.paths.run}
            with Task(params) as opened, opened.runtime.standstill(identity):
                signal.pause()
        finally:
            os._exit(1)
    until(lambda: shared.inspect(name)["State"]["Status"] == "paused")
    if not alone:
        with open(shared.paths.container(identity) + "/state.json") as stream:
            os.kill(json.load(stream)["monitor_pid"], signal.SIGKILL)
    os.kill(task, signal.SIGKILL)
    os.waitpid(task, 0)
    until(lambda: shared.inspect(name)["State"]["Status"] == "running")
    assert shared.sh(name, "echo moves") == "moves"
    shared.run("container_pause", container=name)
    commit(shared, name, name + ":1")
    assert shared.inspect(name)["State"]["Status"] == "paused", "paused by hand, it stays so"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
