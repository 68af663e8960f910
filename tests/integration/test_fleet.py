# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An image of the controller reaches targets through Ansible's connection: only what they lack, and no registry."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers.images import Image, build_image, build_index, layer
from helpers.playbook import Host, refused, task
from helpers.target import TARGET

pytestmark = pytest.mark.root
BASE = layer({"base": os.urandom(200_000)})


def image(extra: bytes, **more: Any) -> Image:
    return build_image([BASE, layer({"top": extra})], config={"Cmd": ["/top"]}, **more)


@pytest.fixture
def host(own_network: None, tree: Path, tmp_path: Path) -> Iterator[Host]:
    instance = Host(tree, tmp_path / "host")
    try:
        yield instance
    finally:
        instance.close()


def test_only_missing_layers_travel_and_an_image_that_is_there_costs_nothing(host: Host, tmp_path: Path) -> None:
    layout = str(tmp_path / "shop")
    first, second = image(b"one"), image(b"two")
    first.write_layout(layout, "1")
    wanted = {"name": "shop:1", "source": "controller", "path": layout}
    run = host.play(
        [
            {**task("plan", "image", **wanted), "check_mode": True},
            task("first", "image", **wanted),
            task("again", "image", **wanted),
            task("other name", "image", **{**wanted, "name": "also:1"}),
        ],
        "-vv",
    )
    assert run.ok and run.changed == ["plan", "first", "other name"]
    assert run["first"]["image"]["Id"] == first.id and run["first"]["actions"][0]["how"] == "load"
    assert run["first"]["image"]["Descriptor"]["digest"] == first.manifest_digest
    assert run["other name"]["actions"][0]["how"] == "tag"
    assert run.output.count("wharf.engine: taking 2 layers of shop:1") == 1
    assert run.output.count("layers of") == 1

    other = str(tmp_path / "shop2")
    second.write_layout(other, "2")
    run = host.play([task("second", "image", name="shop:2", source="controller", path=other)], "-vv")
    assert run.ok and run["second"]["image"]["Id"] == second.id
    assert "wharf.engine: taking 1 layers of shop:2" in run.output
    assert run["second"]["actions"][0]["detail"]["layers_missing"] == 1
    assert TARGET.call("names", host.paths.tmp) == []


def test_the_target_chooses_its_platform_out_of_what_the_controller_has(host: Host, tmp_path: Path) -> None:
    ours, theirs = image(b"ours"), image(b"theirs", architecture="s390x")
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
    both = build_index({"linux/s390x": theirs, "linux/" + machine: ours}, attestation=True)
    layout = both.write_layout(str(tmp_path / "shop"), "1")
    source = {"name": "shop:1", "source": "controller", "path": layout}
    run = host.play(
        [
            task("bring", "image", **source),
            refused("platform", "image", **{**source, "name": "shop:2", "platform": "linux/riscv64"}),
            refused("nothing", "image", name="shop:1", source="controller", path="no/such/file"),
            refused("no image", "image", name="shop:1", source="controller", path=__file__),
        ]
    )
    assert run.ok and run["bring"]["image"]["Id"] == ours.id
    assert "linux/riscv64" in run.failure("platform")["msg"]
    assert "no/such/file" in run["nothing"]["msg"]
    assert run.failure("no image")["error"]["kind"] == "integrity"


def test_a_damaged_layer_on_the_controller_is_refused_by_the_target(host: Host, tmp_path: Path) -> None:
    one = image(b"one", compress=False)
    layout = one.write_layout(str(tmp_path / "shop"), "1")
    blob = "%s/blobs/sha256/%s" % (layout, one.diff_ids[0][7:])
    with open(blob, "r+b") as stream:
        stream.seek(1000)
        stream.write(b"?")
    run = host.play(
        [refused("bring", "image", name="shop:1", source="controller", path=layout), task("see", "image_info")]
    )
    assert run.ok and run.failure("bring")["error"]["kind"] == "integrity" and run["see"]["images"] == []
