# Copyright: (c) 2026, The wharf.engine authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The laws of the image and volume modules, without a registry."""

from __future__ import annotations

import pytest
from helpers.engine import Engine
from module_utils._engine.errors import InUse, UsageError

SLEEP = ["sleep", "1000"]


def test_importing_the_same_tar_with_the_same_changes_is_no_change(fresh: Engine) -> None:
    again = fresh.busybox()
    assert not again["changed"]
    assert again["image"]["RepoTags"] == ["bb:1"]
    other = fresh.busybox(changes=["CMD sh", "ENV A=1"])
    assert other["changed"] and other["image"]["Id"] != again["image"]["Id"]
    assert "A=1" in other["image"]["Config"]["Env"]


def test_check_mode_says_what_an_import_would_do(fresh: Engine) -> None:
    path = fresh.paths.state + "/../busybox.tar"
    params = {"source": "import", "path": path, "changes": ["CMD sh"]}
    assert not fresh.run("image", check=True, name="bb:1", **params)["changed"]
    assert fresh.run("image", check=True, name="bb:2", **params)["changed"]
    assert len(fresh.run("image_info")["images"]) == 1


def test_an_image_in_use_is_not_removed_and_says_by_whom(fresh: Engine) -> None:
    fresh.container("user", command=SLEEP, state="present")
    with pytest.raises(InUse, match="user"):
        fresh.run("image", name="bb:1", state="absent")
    assert fresh.run("image", check=True, name="other:1", state="absent")["changed"] is False
    fresh.run("container", name="user", state="absent")
    assert fresh.run("image", name="bb:1", state="absent")["changed"]
    assert not fresh.run("image", name="bb:1", state="absent")["changed"]
    assert fresh.run("image_info")["images"] == []


def test_a_second_name_keeps_the_image_until_the_last_one_goes(fresh: Engine) -> None:
    fresh.busybox(name="second:1")
    removed = fresh.run("image", name="bb:1", state="absent")
    assert [action["how"] for action in removed["actions"]] == ["untag"]
    assert fresh.run("image_info", name=["second:1"])["images"]


@pytest.mark.parametrize("name", ["Upper:1", "a/../b", "a@sha256:zz", "a:b:c", "", "x" * 300])
def test_a_bad_reference_is_refused_before_any_io(fresh: Engine, name: str) -> None:
    with pytest.raises(UsageError):
        fresh.run("image", name=name)


def test_a_changed_image_behind_the_same_name_replaces_the_container(fresh: Engine) -> None:
    fresh.container("follow", command=SLEEP)
    fresh.busybox(changes=["CMD sh", "ENV NEW=1"])
    replaced = fresh.container("follow", command=SLEEP)
    assert replaced["actions"][0]["how"] == "replace" and "image" in replaced["actions"][0]["why"]
    assert fresh.sh("follow", "echo $NEW") == "1"
    assert not fresh.container("follow", command=SLEEP)["changed"]


def test_volumes_are_created_relabelled_and_removed_but_never_while_in_use(fresh: Engine) -> None:
    assert fresh.run("volume", name="data", labels={"a": "1"})["changed"]
    assert not fresh.run("volume", name="data", labels={"a": "1"})["changed"]
    fresh.container("user", command=SLEEP, volumes=["data:/data"])
    fresh.sh("user", "echo kept > /data/f")
    relabelled = fresh.run("volume", name="data", labels={"a": "2"})
    assert [action["how"] for action in relabelled["actions"]] == ["live"]
    assert fresh.sh("user", "cat /data/f") == "kept"
    with pytest.raises(InUse, match="user"):
        fresh.run("volume", name="data", state="absent")
    fresh.run("container", name="user", state="absent", force_kill=True)
    assert fresh.run("volume", check=True, name="data", state="absent")["changed"]
    assert fresh.run("volume_info", name="data")["exists"]
    assert fresh.run("volume", name="data", state="absent")["changed"]
    assert not fresh.run("volume_info", name="data")["exists"]
