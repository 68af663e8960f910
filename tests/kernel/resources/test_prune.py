# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sizes are true, and what goes is what nothing needs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from helpers.engine import Engine
from helpers.images import build_image, layer
from module_utils._engine.errors import UsageError
from module_utils._engine.resources.filters import parse_time

SLEEP = ["sleep", "1000"]


def images(instance: Engine, **params: Any) -> dict[str, dict[str, Any]]:
    return {(one["RepoTags"] or [""])[0]: one for one in instance.run("image_info", **params)["images"]}


def test_an_images_own_bytes_are_told_from_those_it_shares(fresh: Engine, tmp_path: Path) -> None:
    base, extra = layer({"f": b"x" * 1000}), layer({"g": b"y" * 300})
    for name, layers in (("a", [base]), ("b", [base, extra])):
        path = build_image(layers).write_layout(str(tmp_path / name), "1")
        fresh.run("image", name=name + ":1", source="load", path=path)
    found = images(fresh)
    assert (found["a:1"]["SharedSize"], found["a:1"]["UniqueSize"], found["a:1"]["Size"]) == (1000, 0, 1000)
    assert (found["b:1"]["SharedSize"], found["b:1"]["UniqueSize"], found["b:1"]["Size"]) == (1000, 300, 1300)
    assert found["bb:1"]["SharedSize"] == 0 and found["bb:1"]["UniqueSize"] == found["bb:1"]["Size"]
    history = images(fresh, history=True)["b:1"]["History"]
    assert [(row["CreatedBy"], row["Size"]) for row in history] == [("layer 1", 300), ("layer 0", 1000)]
    assert history[0]["Id"] == found["b:1"]["Id"] and history[1]["Id"] == "<missing>"


def test_a_containers_size_is_what_it_wrote_and_its_changes_are_docker_diffs(fresh: Engine) -> None:
    image = images(fresh)["bb:1"]
    fresh.container("web", command=SLEEP, volumes=["data:/data"])
    fresh.sh(
        "web",
        "dd if=/dev/zero of=/srv/big bs=1024 count=100; ln /srv/big /srv/two; rm /srv/index.html; echo x > /data/x",
    )
    shown = fresh.run("container_info", name="web", size=True, changes=True)["container"]
    assert shown["SizeRw"] == 102400 and shown["SizeRootFs"] == 102400 + image["Size"]
    assert shown["Changes"] == [
        {"Path": "/srv", "Kind": 0},
        {"Path": "/srv/big", "Kind": 1},
        {"Path": "/srv/index.html", "Kind": 2},
        {"Path": "/srv/two", "Kind": 1},
    ]
    assert "SizeRw" not in fresh.inspect("web")


def test_disk_usage_by_kind_adds_up(fresh: Engine) -> None:
    fresh.container("web", command=SLEEP, volumes=["data:/data"])
    fresh.run("volume", name="idle")
    fresh.sh("web", "dd if=/dev/zero of=/data/f bs=1024 count=64; echo hello > /srv/f")
    fresh.busybox(name="other:1", changes=["CMD sh", "ENV A=1"])
    usage = fresh.run("host_info", disk_usage=True)["host"]["disk_usage"]
    assert (usage["images"]["count"], usage["images"]["active"], usage["images"]["reclaimable"]) == (2, 1, 0)
    assert usage["images"]["disk"] >= usage["images"]["size"] > 500_000
    assert (usage["containers"]["count"], usage["containers"]["active"]) == (1, 1)
    assert (usage["volumes"]["count"], usage["volumes"]["active"]) == (2, 1)
    assert usage["volumes"]["size"] >= 65536 and usage["containers"]["size"] == 6
    assert usage["total"] == sum(part["disk"] for part in usage.values() if isinstance(part, dict))
    assert "disk_usage" not in fresh.run("host_info")["host"]


def test_prune_takes_what_nothing_needs_and_says_so_before(fresh: Engine) -> None:
    fresh.run("network", name="idle")
    fresh.run("network", name="busy")
    fresh.run("volume", name="named")
    fresh.container("up", command=SLEEP, networks=[{"name": "busy"}])
    fresh.container("down", command=SLEEP, state="present", volumes=["/anonymous"])
    fresh.busybox(name="unused:1", changes=["CMD sh", "ENV A=1"])
    fresh.busybox(name="bb:2", changes=["CMD sh", "ENV A=2"])
    fresh.busybox(name="bb:2", changes=["CMD sh", "ENV A=3"])  # leaves one without a name
    everything: dict[str, Any] = {"containers": True, "images": True, "networks": True, "volumes": True}
    planned = fresh.run("prune", True, **everything)
    assert planned["changed"] and len(fresh.run("container_info")["containers"]) == 2
    done = fresh.run("prune", **everything)
    for key in ("containers", "images", "networks", "volumes", "actions"):
        assert done[key] == planned[key]
    assert len(done["containers"]) == 1 and len(done["images"]) == 1 and len(done["volumes"]) == 1
    assert done["networks"] == ["idle"]
    assert not fresh.run("prune", **everything)["changed"]
    assert set(images(fresh)) == {"bb:1", "bb:2", "unused:1"}
    done = fresh.run("prune", images=True, images_filters={"dangling": False})
    assert {"Untagged": "unused:1"} in done["images"] and set(images(fresh)) == {"bb:1"}
    assert fresh.run("prune", volumes=True, volumes_filters={"all": True})["volumes"] == ["named"]
    assert fresh.sh("up", "echo runs").strip() == "runs"


def test_an_image_that_only_a_pruned_container_used_goes_with_it_and_gives_its_bytes_back(
    fresh: Engine, tmp_path: Path
) -> None:
    path = build_image([layer({"f": os.urandom(300_000)})], config={"Cmd": ["/f"]}).write_layout(
        str(tmp_path / "l"), "1"
    )
    fresh.run("image", name="gone:1", source="load", path=path)
    fresh.container("down", image="gone:1", state="present")
    kept = fresh.run("prune", True, images=True, images_filters={"dangling": "false"})
    assert {"Untagged": "gone:1"} not in kept["images"]
    params: dict[str, Any] = {"containers": True, "images": True, "images_filters": {"dangling": "false"}}
    planned = fresh.run("prune", True, **params)
    assert planned["images_space_reclaimed"] > 300_000
    done = fresh.run("prune", **params)
    assert {"Untagged": "gone:1"} in done["images"] and done["images_space_reclaimed"] > 300_000
    assert os.listdir(fresh.paths.layers) == []


def test_filters_by_label_and_age(fresh: Engine) -> None:
    for name, labels in (("na", {"tier": "web"}), ("nb", {"tier": "db"}), ("nc", {})):
        fresh.container(name, command=SLEEP, state="present", labels=labels)
    ids = {one["Name"][1:]: one["Id"] for one in fresh.run("container_info")["containers"]}

    def pruned(**filters: Any) -> set[str]:
        found = fresh.run(
            "prune", True, containers=True, containers_filters={k.replace("_", "!"): v for k, v in filters.items()}
        )
        return {name for name, one in ids.items() if one in found["containers"]}

    assert pruned() == {"na", "nb", "nc"}
    assert pruned(label="tier") == {"na", "nb"} and pruned(label=["tier=web"]) == {"na"}
    assert pruned(label_="tier") == {"nc"} and pruned(label_="tier=web") == {"nb", "nc"}
    assert pruned(until="1h") == set() and pruned(until="2999-01-01") == {"na", "nb", "nc"}
    assert pruned(until="0s") == {"na", "nb", "nc"} and pruned(until="1000000000") == set()
    for bad in ({"containers_filters": {"dangling": True}}, {"containers_filters": {"until": "soon"}},
                {"volumes_filters": {"until": "1h"}}, {"images_filters": {"dangling": "maybe"}}):  # fmt: skip
        with pytest.raises(UsageError, match="_filters"):
            fresh.run("prune", containers=True, **bad)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:01Z", 1),
        ("1970-01-01T01:00:00.5+01:00", 0.5),
        ("1970-01-02", 86400),
        ("24h", None),
        ("", None),
    ],
)
def test_times_are_read_as_rfc_3339(text: str, seconds: Any) -> None:
    assert parse_time(text) == seconds
