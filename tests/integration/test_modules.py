# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Every module through real playbooks, and bad input: one sentence, an error to act on, and nothing left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import tars
from helpers.engine import BUSYBOX, busybox_tar
from helpers.fake_registry import FakeRegistry, body_of, reset_after
from helpers.images import Image, build_image, descriptor, digest_of, layer
from helpers.playbook import Host, Run, Task, refused, task
from helpers.target import TARGET

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not os.path.exists(BUSYBOX), reason="busybox-static is missing"),
]

SLEEP = ["sleep", "1000"]


def base(host: Host) -> Task:
    """The base image: the distribution's busybox."""
    path = str(host.directory / "busybox.tar")
    if not os.path.exists(path):
        busybox_tar(path)
        TARGET.put(path)
    return task("base", "image", name="bb:1", source="import", path=path, changes=["CMD sh"])


def run_container(title: str, **options: Any) -> Task:
    return task(title, "container", **{"image": "bb:1", "command": SLEEP, "stop_timeout": 1, **options})


def bad_container(title: str, **options: Any) -> Task:
    return {**run_container(title, name="bad", **options), "ignore_errors": True}


@pytest.fixture(scope="module")
def shared(own_network: None, tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host with a base image; each test takes its containers away again."""
    host = Host(tree, tmp_path_factory.mktemp("shared"))
    try:
        assert host.play([base(host)]).ok
        yield host
    finally:
        host.close()


def test_all_modules_in_one_play(fresh: Host) -> None:
    with FakeRegistry() as registry, TARGET.reach(registry.port):
        registry.auth = ("basic", "me", "secret")
        registry.add("team/app", "1", build_image([layer({"hello": b"hi\n"})]))
        run = fresh.play(
            [
                task("host", "host_info"),
                base(fresh),
                task("login", "registry", registry_url=registry.host, username="me", password="secret"),
                task("registry", "registry_info", registry_url=registry.host, name="team/app"),
                task("pull", "image", name=registry.host + "/team/app:1"),
                task("images", "image_info", query="[].RepoTags[]"),
                task("image", "image_info", name=["bb:1", "nothere"]),
                task("volume", "volume", name="data", labels={"a": "b"}),
                task("network", "network", name="net", ipam_config=[{"subnet": "10.99.0.0/24"}], labels={"c": "d"}),
                run_container(
                    "container",
                    name="one",
                    command=["sh", "-c", "echo out; echo err >&2; exec sleep 1000"],
                    networks=[{"name": "net", "ipv4_address": "10.99.0.9"}],
                    volumes=["data:/data"],
                    labels={"tier": "web"},
                ),
                task("exec", "container_exec", container="one", argv=["sh", "-c", "cat; echo no >&2"], stdin="typed"),
                task("exec fails", "container_exec", container="one", command="sh -c 'exit 7'")
                | {"failed_when": False},
                task("logs", "container_logs", name="one", tail=10),
                task("info", "container_info", name="one", query="{pid: State.Pid, tier: Config.Labels.tier}"),
                task("all", "container_info", query="[?State.Running].Name"),
                task("no such container", "container_info", name="nothere"),
                task("volume info", "volume_info", name="data"),
                task("volumes", "volume_info", query="[].Name"),
                task("network info", "network_info", name="net"),
                task("networks", "network_info", query="[].Name | sort(@)"),
                task(
                    "format",
                    "container_info",
                    filters={"label": "tier=web", "status": ["running"]},
                    format="{% raw %}{{.Name}} {{range .Mounts}}{{.Name}}{{end}} {{json .Config.Labels}}{% endraw %}",
                ),
                task("bad format", "container_info", name="one", format="{% raw %}{{ .Nope }}{% endraw %}")
                | {"ignore_errors": True},
                task(
                    "usage", "container_info", name="one", stats=True, top=True, query="[Stats.pids_stats, Top.Titles]"
                ),
                task("events", "events_info", filters={"container": "one"}, since="1h", query="[].Action"),
                task("host again", "host_info", query="objects"),
            ]
        )
    assert run.ok
    assert run["host"]["host"]["supported"], run["host"]["host"]["problems"]
    assert run["host"]["host"]["engine"]["state_dir"] == fresh.paths.state
    assert run["registry"]["registry"]["tags"] == ["1"] and run["registry"]["registry"]["username"] == "me"
    assert set(run["images"]["images"]) == {"bb:1", registry.host + "/team/app:1"}
    assert [image["RepoTags"] for image in run["image"]["images"]] == [["bb:1"]]
    assert run["volume"]["volume"]["Labels"] == {"a": "b"}
    assert run["network"]["network"]["IPAM"]["Config"][0]["Subnet"] == "10.99.0.0/24"
    container = run["container"]["container"]
    assert container["State"]["Running"] and container["NetworkSettings"]["Networks"]["net"]["IPAddress"] == "10.99.0.9"
    assert (run["exec"]["stdout"], run["exec"]["stderr"], run["exec"]["rc"]) == ("typed", "no", 0)
    assert run["exec fails"]["rc"] == 7 and run["exec fails"]["error"]["exit_code"] == 7
    assert sorted(run["logs"]["stdout_lines"]) == ["err", "out"]
    assert run["info"]["container"] == {"pid": container["State"]["Pid"], "tier": "web"}
    assert run["all"]["containers"] == ["/one"]
    assert run["no such container"]["exists"] is False
    assert run["volume info"]["volume"]["Mountpoint"] == fresh.paths.volume_data("data")
    assert run["volumes"]["volumes"] == ["data"]
    assert run["network info"]["network"]["Labels"] == {"c": "d"}
    assert run["networks"]["networks"] == ["net"]
    assert run["format"]["containers"] == ['/one data {"tier":"web"}']
    assert 'executing "" at <.Nope>: map has no entry for key "Nope"' in run.failure("bad format")["msg"]
    assert run["usage"]["container"][0]["current"] == 1 and run["usage"]["container"][1][0] == "UID"
    assert run["events"]["events"][:2] == ["create", "start"] and "exec_die" in run["events"]["events"]
    assert run["host again"]["host"] == {"images": 2, "containers": 1, "networks": 1, "volumes": 1}
    assert "secret" not in run.output


def test_what_the_modules_refuse_themselves(shared: Host) -> None:
    run = shared.play(
        [
            refused("upper case", "image", name="team/App:1"),
            refused("dots", "image", name="a/../b:1"),
            refused("dots in container", "container", name="xx", image="a/../b"),
            refused("no tar", "image", name="xx:1", source="import", path="/no/such.tar"),
            refused("exec nowhere", "container_exec", container="nothere", argv=["true"]),
            refused("logs of nothing", "container_logs", name="nothere"),
            refused("bad query", "container_info", query="[?"),
            refused("bad volume name", "volume", name="../x"),
            refused("bad network", "network", name="xx", ipam_config=[{"subnet": "10.0.0.1/33"}]),
            refused("no such image", "container", name="xx", image="nothere:1", pull="never"),
            refused("start nothing", "container", name="nothere"),
            refused("default network", "network", name="bridge", state="absent"),
            refused("no registry", "registry", registry_url="127.0.0.1:1", username="somebody", password="secret"),
        ]
    )
    expected = {
        "upper case": ("usage", "App"),
        "dots": ("usage", r"\.\."),
        "dots in container": ("usage", r"\.\."),
        "no tar": ("not_found|usage", "/no/such.tar"),
        "exec nowhere": ("not_found", "nothere"),
        "logs of nothing": ("not_found", "nothere"),
        "bad query": ("usage", "query"),
        "bad volume name": ("usage", r"\.\./x"),
        "bad network": ("usage", "10.0.0.1/33"),
        "no such image": ("not_found", "nothere"),
        "start nothing": ("not_found", "nothere"),
        "default network": ("usage|in_use|conflict", "bridge"),
        "no registry": ("registry", r"127\.0\.0\.1.*refused"),
    }
    check(run, expected)


def check(run: Run, expected: dict[str, tuple[str, str]]) -> None:
    """``{task: (kind, words of the sentence)}``, both regular expressions."""
    for name, (kind, words) in expected.items():
        failed = run.failure(name)
        assert re.fullmatch(kind, failed["error"]["kind"]), (name, failed["msg"], failed["error"])
        assert re.search(words, failed["msg"]), (name, failed["msg"], failed["error"])


# --- images -----------------------------------------------------------------------------------------------------------


def with_layer(tar: bytes, **more: Any) -> Image:
    return build_image([tar], **more)


def changed_manifest(image: Image, **fields: Any) -> Image:
    """``image`` with another manifest."""
    data, kind = image.manifests[image.top]
    document = {**json.loads(data), **fields}
    raw = json.dumps(document).encode()
    return image._replace(manifests={digest_of(raw): (raw, kind)}, top=digest_of(raw))


def manifest_of(image: Image) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(image.manifests[image.top][0])
    return document


HOSTILE_LAYERS = {
    "climbs": [tars.file("../x")],
    "climbs in the middle": [tars.file("a/../../x")],
    "hard link out": [tars.link("l", "../../../../etc/shadow")],
    "hard link to nothing": [tars.link("l", "not/in/any/layer")],
    "through a file": [tars.file("f"), tars.file("f/x")],
}


@pytest.mark.near("what refuses them asks nothing of any machine, and is slow on one of the lab")
def test_hostile_images_are_refused_and_nothing_is_left(fresh: Host) -> None:
    good = with_layer(layer({"a": os.urandom(300_000)}))
    blob = manifest_of(good)["layers"][0]["digest"]
    with FakeRegistry() as registry, TARGET.reach(registry.port):

        def pull(title: str, image: Image) -> Task:
            return refused(title, "image", name=registry.add("x/" + title.replace(" ", "-"), "1", image), timeout=5)

        both = changed_manifest(good, manifests=[])
        lying = {**manifest_of(good)["layers"][0], "size": manifest_of(good)["layers"][0]["size"] + 1}
        bomb = with_layer(layer({"zeros": bytes(96 << 20)}))
        wrong = with_layer(layer({"b": b"1"}))
        registry.script("/x/wrong-digest/blobs/" + blob, body_of(b"x" * len(good.blobs[blob])), times=99)
        registry.script("/x/half-a-blob/blobs/" + blob, reset_after(150_000))
        registry.script("/x/half-a-blob/blobs/" + blob, reset_after(0), times=99)
        strange = build_image([layer({"b": b"1"})], extra={"rootfs": _rootfs("sha256:" + "0" * 64)})
        run = fresh.play(
            [
                pull("both", both),
                pull("wrong digest", good),
                pull("wrong size", changed_manifest(good, layers=[lying])),
                pull("half a blob", good),
                pull("bomb", bomb),
                pull("wrong content", strange),
                pull("other platform only", _elsewhere(wrong)),
                *(pull(title, with_layer(tars.build(entries))) for title, entries in HOSTILE_LAYERS.items()),
                task("images", "image_info"),
            ]
        )
    check(
        run,
        {
            "both": ("registry|integrity|usage", "index|two different"),
            "wrong digest": ("integrity", "digest"),
            "wrong size": ("integrity", "bytes"),
            "half a blob": ("registry|integrity", "."),
            "bomb": ("integrity", "."),
            "wrong content": ("integrity", "."),
            "other platform only": ("not_found", "s390x"),
            **dict.fromkeys(HOSTILE_LAYERS, ("integrity", ".")),
        },
    )
    assert run["images"]["images"] == []
    left = fresh.left()
    partial = [name for name in left.pop("half-done things", []) if not name.startswith("ingest-")]
    assert partial == [] and left == {}


def _rootfs(diff_id: str) -> dict[str, Any]:
    return {"type": "layers", "diff_ids": [diff_id]}


def _elsewhere(image: Image) -> Image:
    """An index with nothing for this machine."""
    data, kind = image.manifests[image.top]
    entry = descriptor(data, kind, platform={"os": "linux", "architecture": "s390x"})
    kind = "application/vnd.oci.image.index.v1+json"
    raw = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": [entry]}).encode()
    return image._replace(manifests={**image.manifests, digest_of(raw): (raw, kind)}, top=digest_of(raw))


def test_device_nodes_and_outside_paths_of_an_archive_stay_inside(shared: Host) -> None:
    """What Docker allows is allowed, and does no harm: devices are there and cannot be used, absolute names are the
    image's own, and a symlink out of the image leads nowhere on the host."""
    canary = Path("/tmp/wharf-canary-%d" % os.getpid())
    entries = [
        tars.char("dev/memory", 1, 1, mode=0o666),
        tars.block("dev/disk", 8, 0, mode=0o666),
        tars.file("/absolute", b"mine\n"),
        tars.symlink("out", "/../../../../../tmp"),
        tars.file("out/" + canary.name, b"written through a link\n"),
    ]
    path = shared.directory / "devices.tar"
    with open(shared.directory / "busybox.tar", "rb") as stream:
        base_tar = stream.read()
    # After the archive's own end marks nothing is read, so the hostile entries come first.
    path.write_bytes(tars.build(entries, end=False) + base_tar)
    TARGET.put(path)
    run = shared.play(
        [
            task("import", "image", name="devices:1", source="import", path=str(path), changes=["CMD sh"]),
            run_container("start", name="devices", image="devices:1"),
            task("absolute", "container_exec", container="devices", command="cat /absolute"),
            task("memory", "container_exec", container="devices", command="dd if=/dev/memory of=/dev/null bs=1 count=1")
            | {"ignore_errors": True},
            task("disk", "container_exec", container="devices", command="dd if=/dev/disk of=/dev/null bs=1 count=1")
            | {"ignore_errors": True},
            task("gone", "container", name="devices", state="absent", force_kill=True),
            task("image gone", "image", name="devices:1", state="absent"),
        ]
    )
    assert run.ok
    assert run["absolute"]["stdout"] == "mine"
    assert run.failure("memory")["rc"] != 0 and run.failure("disk")["rc"] != 0
    assert not TARGET.call("exists", str(canary))


# --- containers -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A TCP port of the target that somebody listens at."""
    if TARGET.far:
        yield 22
        return
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_what_cannot_start_is_told_and_leaves_nothing(shared: Host, tmp_path: Path) -> None:
    shell = ["sh", "-c", "echo first; echo last words >&2; exit 3"]
    before = shared.left()
    with taken_port() as port:
        run = shared.play(
            [
                bad_container("unknown user", user="nosuch"),
                bad_container("missing command", command=["/no/such/thing"]),
                bad_container("not executable", command=["/etc/passwd"]),
                bad_container("dies unhealthy", command=shell, state="healthy", healthcheck={"test": "true"}),
                bad_container("port in use", published_ports=["%d:80" % port]),
                bad_container("missing source", mounts=[{"type": "bind", "source": "/no/such", "target": "/x"}]),
                bad_container("mount option", tmpfs=["/x:frobnicate=1"]),
                bad_container("volume flag", volumes=["data:/x:frobnicate"]),
                bad_container("no such network", networks=[{"name": "nothere"}]),
                {"name": "look", "wharf.engine.container_info": {"name": "bad"}},
            ]
        )
    check(
        run,
        {
            "unknown user": ("start", "nosuch"),
            "missing command": ("start", "/no/such/thing"),
            "not executable": ("start", "/etc/passwd"),
            "port in use": ("conflict", str(port)),
            "missing source": ("not_found|usage", "/no/such"),
            "mount option": ("usage", "frobnicate"),
            "volume flag": ("usage", "frobnicate"),
            "no such network": ("not_found", "nothere"),
            "dies unhealthy": ("unhealthy", "code 3"),
        },
    )
    assert run["missing command"]["error"]["exit_code"] == 127
    assert run["not executable"]["error"]["exit_code"] == 126
    assert run["missing command"]["error"]["logs"] == run["not executable"]["error"]["logs"] == []
    assert sorted(run["dies unhealthy"]["error"]["logs"]) == ["first", "last words"]
    assert run["dies unhealthy"]["error"]["exit_code"] == 3
    made = shared.play(
        [
            run_container("made", name="binds", volumes=["%s/new/dir:/x" % tmp_path]),
            task("binds", "container", name="binds", state="absent", force_kill=True),
            task("bad", "container", name="bad", state="absent", keep_volumes=False),
        ]
    )
    assert made.ok and TARGET.call("exists", str(tmp_path / "new/dir"))
    assert shared.left() == before


def test_a_container_that_ends_at_once_under_a_replacement_shows_its_last_words(shared: Host) -> None:
    """127 and 126 of a shell, after the start: the log lines are in the error, and the old container runs on."""
    healthy = {"healthcheck": {"test": "true", "interval": "100ms"}, "state": "healthy", "healthy_wait_timeout": 20}
    run = shared.play(
        [
            run_container("first", name="steady", **healthy),
            {**run_container("worse", name="steady", **{**healthy, "command": ["sh", "-c", "nosuchprogram"]})}
            | {"ignore_errors": True},
            task("look", "container_info", name="steady"),
            task("gone", "container", name="steady", state="absent", force_kill=True),
        ]
    )
    assert run.ok
    failed = run.failure("worse")
    assert failed["error"]["kind"] == "unhealthy" and failed["error"]["exit_code"] == 127
    assert "nosuchprogram" in failed["error"]["logs"][-1]
    shown = run["look"]["container"]
    assert shown["Id"] == run["first"]["container"]["Id"] and shown["State"]["Running"]


def test_subnets_that_overlap_are_refused(shared: Host) -> None:
    run = shared.play(
        [
            task("one", "network", name="one", ipam_config=[{"subnet": "10.88.0.0/16"}]),
            refused("two", "network", name="two", ipam_config=[{"subnet": "10.88.3.0/24"}]),
            refused(
                "gateway", "network", name="three", ipam_config=[{"subnet": "10.89.0.0/24", "gateway": "10.9.0.1"}]
            ),
            task("names", "network_info", query="[].Name | sort(@)"),
            task("gone", "network", name="one", state="absent"),
        ]
    )
    assert run.ok
    check(run, {"two": ("conflict", "10.88.3.0/24.*one|one.*10.88.3.0/24"), "gateway": ("usage", "10.9.0.1")})
    assert run["names"]["networks"] == ["bridge", "one"]


def test_two_plays_creating_the_same_container_at_once_make_one(shared: Host) -> None:
    play = [run_container("make", name="same", published_ports=["18777:80"])]
    both = [shared.start(play), shared.start(play)]
    runs = [shared.finish(started) for started in both]
    assert all(run.ok for run in runs)
    assert sorted(bool(run.changed) for run in runs) == [False, True]
    assert runs[0]["make"]["container"]["Id"] == runs[1]["make"]["container"]["Id"]
    assert shared.play([task("gone", "container", name="same", state="absent", force_kill=True)]).ok


# --- killed helpers ---------------------------------------------------------------------------------------------------


def test_a_killed_monitor_and_a_killed_spawner_lose_nothing(shared: Host) -> None:
    script = "trap 'echo bye; exit 0' TERM; n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done"
    make = run_container("make", name="watched", command=["sh", "-c", script], stop_timeout=5, memory="64m")
    first = shared.play([make])
    assert first.ok
    state = TARGET.call("read", shared.paths.container(first["make"]["container"]["Id"]) + "/state.json")
    TARGET.call("kill", json.loads(state)["monitor_pid"])
    second = shared.play(
        [
            make,
            {**make, "name": "changed", "wharf.engine.container": {**make["wharf.engine.container"], "memory": "96m"}},
            task("exec", "container_exec", container="watched", command="echo still here"),
        ]
    )
    assert second.ok
    assert second["changed"]["container"]["State"]["Pid"] == first["make"]["container"]["State"]["Pid"]
    assert second["exec"]["stdout"] == "still here"
    TARGET.call("kill", TARGET.call("spawner", shared.paths.run))
    third = shared.play(
        [
            run_container("another", name="another"),
            task("stop", "container", name="watched", state="stopped"),
            task("logs", "container_logs", name="watched"),
            task("info", "container_info", name="watched"),
            task("gone", "container", name="watched", state="absent"),
            task("another gone", "container", name="another", state="absent", force_kill=True),
        ]
    )
    assert third.ok
    lines = third["logs"]["stdout_lines"]
    assert lines[-1] == "bye"
    assert lines[:-1] == ["line %d" % number for number in range(1, len(lines))], "lines were lost"
    # A monitor that adopted the container is not its parent, and the kernel tells the code to parents alone.
    assert third["info"]["container"]["State"]["ExitCode"] in (0, 255)
    assert not {"containers", "cgroups", "mounts", "network namespaces", "links"} & set(shared.left())


# --- a full disk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(own_network: None, tree: Path, tmp_path: Path) -> Iterator[Host]:
    """A host whose state directory is a file system of 48 MiB."""
    host = Host(tree, tmp_path)
    TARGET.call("make_directory", host.paths.state)
    TARGET.sh("mount -t tmpfs -o size=48m,mode=0710 tmpfs " + host.paths.state)
    try:
        yield host
    finally:
        host.close()


def fill(host: Host, leave: int) -> str:
    """Leave so many bytes free in the state directory. Returns the file that takes the rest."""
    return str(TARGET.call("fill", host.paths.state, leave))


def test_a_full_disk_stops_pull_and_start_and_nothing_is_lost(small: Host) -> None:
    image = build_image([layer({"big": os.urandom(12 << 20)})])
    with FakeRegistry() as registry, TARGET.reach(registry.port):
        pull = task("pull", "image", name=registry.add("x/big", "1", image))
        assert small.play([base(small), run_container("before", name="before")]).ok
        before = small.left()
        ballast = fill(small, 6 << 20)
        failed = small.play([{**pull, "ignore_errors": True}])
        check(failed, {"pull": ("disk_full", re.escape(small.paths.state))})
        assert failed["pull"]["error"]["errno"] == 28
        assert small.left() == before
        TARGET.call("remove", ballast)
        TARGET.sh("truncate -s 0 %s/reserve" % small.paths.state)  # what the engine keeps for bad times is used up, too
        ballast = fill(small, 0)
        failed = small.play([bad_container("start")])
        check(failed, {"start": ("disk_full", re.escape(small.paths.state))})
        TARGET.call("remove", ballast)
        assert small.left() == before
        ballast = fill(small, 1 << 20)
        still = small.play(
            [
                task("exec", "container_exec", container="before", command="echo alive"),
                task("stop", "container", name="before", state="stopped", force_kill=True),
                task("remove", "container", name="before", state="absent"),
            ]
        )
        assert still.ok and still["exec"]["stdout"] == "alive"
        TARGET.call("remove", ballast)
        then = small.play([pull, run_container("start", name="good")])
        assert then.ok and then.changed == ["pull", "start"]


def test_a_disk_that_fills_while_a_volume_is_filled_leaves_no_container(small: Host) -> None:
    path = str(small.directory / "big.tar")
    busybox_tar(path)
    big = tars.build([tars.folder("content"), tars.file("content/big", os.urandom(9 << 20))], end=False)
    Path(path).write_bytes(big + Path(path).read_bytes())
    TARGET.put(path)
    imported = task("image", "image", name="bb:1", source="import", path=path, changes=["CMD sh"])
    start = run_container("start", name="full", volumes=["content:/content"])
    assert small.play([imported]).ok
    before = small.left()
    ballast = fill(small, 5 << 20)
    failed = small.play([{**start, "ignore_errors": True}, task("look", "container_info")])
    check(failed, {"start": ("disk_full", "volume content.*No space left")})
    assert failed["look"]["containers"] == []
    TARGET.call("remove", ballast)
    left = small.left()
    assert left.pop("volumes", ["content"]) == ["content"]
    assert left == before
    then = small.play([start, task("read", "container_exec", container="full", command="wc -c /content/big")])
    assert then.ok and then["read"]["stdout"].split()[0] == str(9 << 20)
