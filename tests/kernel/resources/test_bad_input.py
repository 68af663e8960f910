# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bad input as tasks and images have it: a sentence, nothing left behind, and the host untouched."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import BUSYBOX, Engine
from helpers.option_laws import SLEEP
from module_utils._engine.errors import StartError, UsageError, WharfError
from module_utils._engine.runtime.client import Runtime


def left(engine: Engine, name: str) -> bool:
    return bool(engine.run("container_info", name=name)["exists"])


def image(engine: Engine, directory: Path, name: str, entries: dict[str, tuple[bytes, str]], **changes: Any) -> None:
    """Busybox, and over it ``{path: (type, link target)}``."""
    path = directory / "image.tar"
    with tarfile.open(str(path), "w") as tar:
        for member in ("bin", "etc"):
            info = tarfile.TarInfo(member)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        info = tarfile.TarInfo("bin/busybox")
        info.mode, info.size = 0o755, os.path.getsize(BUSYBOX)
        with open(BUSYBOX, "rb") as stream:
            tar.addfile(info, stream)
        for where, (kind, target) in entries.items():
            info = tarfile.TarInfo(where)
            info.type, info.linkname, info.mode = kind, target, 0o755
            data = target.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            if kind == tarfile.REGTYPE:
                info.linkname = ""
            tar.addfile(info, io.BytesIO(data))
    engine.run("image", name=name, source="import", path=str(path), changes=changes.get("changes", []))


@pytest.mark.parametrize("user", ["1a", "+1", "-1", " 1", "0x0", "1:2a", "nosuch:0"])
def test_a_user_that_is_no_number_and_no_name_is_refused_not_guessed(shared: Engine, user: str) -> None:
    """CVE-2026-30892: "1a" was taken for 1."""
    with pytest.raises(StartError, match=r"unable to find (user|group)"):
        shared.container("user", command=SLEEP, user=user)
    assert not left(shared, "user")
    shared.container("runs", command=SLEEP)
    with pytest.raises(WharfError, match=r"unable to find (user|group)"):
        shared.exec("runs", "id", user=user)


@pytest.mark.parametrize("user", ["4294967296", "4294967295", "2147483648", "0:4294967296", "99999999999999999999"])
def test_a_number_beyond_what_an_id_can_be_does_not_wrap_to_root(shared: Engine, user: str) -> None:
    """CVE-2024-40635."""
    with pytest.raises(UsageError, match="2147483647"):
        shared.container("user", command=SLEEP, user=user)
    shared.container("runs", command=SLEEP)
    with pytest.raises(WharfError, match="2147483647"):
        shared.exec("runs", "id", user=user)


@pytest.mark.parametrize("user", ["4294967296", "4294967296:0", "1a", "0:99999999999"])
def test_an_image_whose_user_is_none_cannot_be_started(fresh: Engine, tmp_path: Path, user: str) -> None:
    image(fresh, tmp_path, "odd:1", {}, changes=["USER " + user, 'CMD ["/bin/busybox", "id"]'])
    with pytest.raises(StartError, match=r"unable to find|range 0-2147483647"):
        fresh.container("odd", image="odd:1")
    assert not left(fresh, "odd")


def test_a_line_of_an_environment_file_without_a_value_is_refused_not_taken_from_the_host(
    shared: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTS_OWN", "secret")
    for line in ("HOSTS_OWN", "=novalue"):
        (tmp_path / "env").write_text("# a comment\nGOOD=1\n\n%s\n" % line)
        with pytest.raises(UsageError, match="env_file: line 4"):
            shared.container("refused", command=SLEEP, env_file=str(tmp_path / "env"))
        assert not left(shared, "refused")
    (tmp_path / "env").write_text("GOOD=1\nEMPTY=\n")
    shared.container("environment", command=SLEEP, env_file=str(tmp_path / "env"))
    lines = shared.sh("environment", "env").splitlines()
    assert "GOOD=1" in lines and "EMPTY=" in lines and not [line for line in lines if "HOSTS_OWN" in line]


@pytest.mark.parametrize("number", [3, 7, 9])
@pytest.mark.parametrize("where", ["task", "image"])
def test_a_working_directory_among_descriptors_is_refused(
    fresh: Engine, tmp_path: Path, number: int, where: str
) -> None:
    """CVE-2024-21626."""
    directory = "/proc/self/fd/%d" % number
    if where == "image":
        image(fresh, tmp_path, "leaky:1", {}, changes=["WORKDIR " + directory, 'CMD ["/bin/busybox", "pwd"]'])
        with pytest.raises(StartError):
            fresh.container("leaky", image="leaky:1")
    else:
        with pytest.raises(StartError):
            fresh.container("leaky", command=SLEEP, working_dir=directory)
    assert not left(fresh, "leaky")


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_an_image_without_ordinary_directories_for_the_kernels_file_systems_is_refused(
    fresh: Engine, tmp_path: Path, name: str, kind: str
) -> None:
    """CVE-2026-41579, CVE-2019-19921."""
    entry = (tarfile.SYMTYPE, "/etc") if kind == "link" else (tarfile.REGTYPE, "x")
    image(fresh, tmp_path, "bent:1", {name: entry}, changes=['CMD ["/bin/busybox", "true"]'])
    before = sorted(os.listdir("/etc"))
    with pytest.raises(StartError, match="/%s in the image is no ordinary directory" % name):
        fresh.container("bent", image="bent:1")
    assert sorted(os.listdir("/etc")) == before and not left(fresh, "bent")


def test_the_engines_interpreter_is_no_entrypoint(fresh: Engine, tmp_path: Path) -> None:
    """CVE-2019-5736, as an image would try it."""
    entries = {"bin/loop": (tarfile.REGTYPE, "#!/proc/self/exe\n")}
    for number, command in enumerate(('["/proc/self/exe"]', '["/bin/loop"]')):
        image(fresh, tmp_path, "self:%d" % number, entries, changes=["ENTRYPOINT " + command])
        with pytest.raises(StartError, match="interpreter") as caught:
            fresh.container("self", image="self:%d" % number)
        assert caught.value.details["exit_code"] == 126
        assert not left(fresh, "self")


@pytest.mark.parametrize(
    "failing", ["the program", "the directory", "the runtime", "the resolver", "nobody in particular"]
)
def test_what_stops_a_start_is_told_of_the_container_by_its_name(
    shared: Engine, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    def fail(_self: Any, container: str, *_arguments: Any, **_options: Any) -> None:
        subjects = {"the runtime": container, "the resolver": "container %s" % container[:12]}
        raise StartError("It does not work", subject=subjects.get(failing))

    options: dict[str, Any] = {"command": SLEEP}
    if failing == "the program":
        options["command"] = ["/no/such/program"]
    elif failing == "the directory":
        options["working_dir"] = "/bin/busybox"
    else:
        monkeypatch.setattr(Runtime, "start", fail)
    with pytest.raises(WharfError) as caught:
        shared.container("called", **options)
    assert caught.value.subject == "container called"
    monkeypatch.undo()
    assert not left(shared, "called")


@pytest.mark.parametrize("volume", ["/../../etc", "/srv/../../../etc", "//etc//wharf-volume"])
def test_an_images_volume_stays_below_its_root(fresh: Engine, tmp_path: Path, volume: str) -> None:
    """CVE-2022-23648: the host's files were copied into the new volume."""
    image(
        fresh, tmp_path, "voluminous:1", {}, changes=['VOLUME ["%s"]' % volume, 'CMD ["/bin/busybox", "sleep", "99"]']
    )
    fresh.container("voluminous", image="voluminous:1")
    (mount,) = fresh.inspect("voluminous")["Mounts"]
    assert mount["Destination"].startswith("/") and ".." not in mount["Destination"]
    assert "passwd" not in os.listdir(fresh.paths.volume_data(mount["Name"]))


def test_labels_signals_and_checks_of_an_image_do_what_they_say_and_no_more(fresh: Engine, tmp_path: Path) -> None:
    """CVE-2026-53488: nothing an image says of itself is an option of the engine."""
    changes = [
        'LABEL privileged=true wharf.privileged=true io.wharf.config="{}" org.opencontainers.image.title=x',
        "STOPSIGNAL 99",
        'CMD ["/bin/busybox", "sleep", "99"]',
    ]
    with pytest.raises(WharfError):
        image(fresh, tmp_path, "labelled:1", {}, changes=changes)
        fresh.container("labelled", image="labelled:1")
    image(fresh, tmp_path, "labelled:2", {}, changes=[changes[0], changes[2]])
    fresh.container("labelled", image="labelled:2")
    status = Path("/proc/%d/status" % fresh.pid("labelled")).read_text()
    assert "Seccomp:\t2" in status and not fresh.inspect("labelled")["HostConfig"]["Privileged"]


def test_a_process_killed_for_lack_of_memory_is_reported_as_that(shared: Engine) -> None:
    script = "x=a; while :; do x=$x$x; done"
    shared.container("hungry", command=["sh", "-c", script], memory="16m", memory_swap="16m", detach=True)
    identity = shared.inspect("hungry")["Id"]
    Runtime(shared.paths).wait(identity, timeout=60)
    shown = shared.inspect("hungry")
    assert shown["State"]["OOMKilled"] is True and shown["State"]["ExitCode"] == 137


def test_a_fork_bomb_is_removed_like_any_other(shared: Engine) -> None:
    shared.container("bomb", command=["sh", "-c", "b() { b | b & }; b; sleep 999"], pids_limit=50)
    assert shared.container("bystander", command=SLEEP)["changed"]
    shared.run("container", name="bomb", state="absent", force_kill=True)
    assert not left(shared, "bomb")
